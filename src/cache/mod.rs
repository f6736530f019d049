//! Caches of what was walked, indexed by what invalidations name.

pub mod contexts;
pub mod translations;
