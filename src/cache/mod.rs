//! Caches of what was walked, indexed by what invalidations name.

pub mod contexts;
#[cfg(all(test, loom))]
mod orders;
mod secret;
mod sets;
mod sync;
pub mod tags;
pub mod translations;
