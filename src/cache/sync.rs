//! The atomics of the cache's protocol, which loom replaces to try every order of them
//! (`orders.rs`).

#[cfg(not(loom))]
pub(super) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
    thread::yield_now,
};

#[cfg(loom)]
pub(super) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
    thread::yield_now,
};

/// Between a `SeqCst` access and a later one of another atomic. Loom takes such accesses for
/// acquire and release only, and has to be told that nothing comes between.
pub(super) fn in_order() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}
