//! Caches of what was walked, indexed by what invalidations name.

pub mod contexts;
mod sets;
mod sync;
pub mod tags;
pub mod translations;
