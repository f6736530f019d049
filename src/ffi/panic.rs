//! A panic's last words go to the VMM's log before the process aborts.

use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::{Once, Weak};

use parking_lot::Mutex;

use crate::ffi::callbacks::Callbacks;
use crate::vmm::{LogLevel, Vmm};

/// Units that are alive, for the hook; a panic names no unit, so all are told.
static LISTENERS: Mutex<Vec<Weak<Callbacks>>> = Mutex::new(Vec::new());

/// The hook is process-wide, it is set once and calls the one before it.
static HOOK: Once = Once::new();

/// Tell these callbacks of a panic, for as long as their unit lives.
pub(super) fn install(callbacks: &Arc<Callbacks>) {
    {
        let mut listeners = LISTENERS.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(callbacks));
    }
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            tell(info);
            before(info);
        }));
    });
}

/// Only this crate's panics are the VMM's business: another Rust library in the
/// same program has its own copy of the hook.
fn tell(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map_or_else(String::new, ToString::to_string);
    let payload = info.payload();
    let what = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let line = format!("internal error at {place}: {what}; the process ends");
    // A panic while the list was locked must not wait for itself.
    let Some(listeners) = LISTENERS.try_lock() else {
        return;
    };
    for listener in listeners.iter().filter_map(Weak::upgrade) {
        listener.log(LogLevel::Error, &line);
    }
}
