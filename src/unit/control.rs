//! What translation needs of the registers, read without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::spec::registers::RootTableAddress;

/// Whether and through which tables requests are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Control {
    /// GSTS.TES.
    pub enabled: bool,
    /// The root table set with the last SRTP.
    pub root: RootTableAddress,
}

/// The bit for [`Control::enabled`] beside the root table's address, whose lowest bits are reserved.
const ENABLED: u64 = 1;
const RESERVED: u64 = 0x3ff;

/// A [`Control`] that is replaced as a whole, by whoever has the unit's state locked.
#[derive(Debug, Default)]
pub(super) struct Shared(AtomicU64);

impl Shared {
    /// As it is now. Whoever took a ticket of the context cache before, and fills it after, has seen what
    /// was set before that cache was last told to forget.
    #[inline]
    pub fn get(&self) -> Control {
        let word = self.0.load(Ordering::SeqCst);
        Control {
            enabled: word & ENABLED != 0,
            root: RootTableAddress::from_bits(word & !RESERVED),
        }
    }

    /// To be called before anything is told to forget.
    pub fn set(&self, control: Control) {
        let root = control.root.into_bits() & !RESERVED;
        let word = root | if control.enabled { ENABLED } else { 0 };
        self.0.store(word, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_come_out_again() {
        let shared = Shared::default();
        assert_eq!(shared.get(), Control::default());
        for enabled in [false, true] {
            let control = Control {
                enabled,
                root: RootTableAddress::from_bits(0xffff_ffff_ffff_f400),
            };
            shared.set(control);
            assert_eq!(shared.get(), control);
        }
    }
}
