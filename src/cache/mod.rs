//! Caches of what was walked, indexed by what invalidations name.

pub mod translations;
