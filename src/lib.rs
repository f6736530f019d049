//! An emulated Intel VT-d remapping unit with scalable-mode nested translation.
//!
//! A VMM links this crate as a static archive with the C interface of
//! `include/nested_vtd.h` ([`ffi`]), or uses [`unit::Unit`] from Rust. The guest
//! programs the unit as hardware. For an assigned device the guest's own
//! first-stage tables are handed to a host ([`host`]) as a nested HWPT and the
//! guest's invalidation queue is drained into that host; for an emulated device
//! the unit walks the tables itself ([`translate`]).
//!
//! Modules depend downwards only:
//! `ffi` -> `unit` -> {`translate`, `cache`, `interrupt`, `host`} -> `memory` -> `spec`.
//!
//! Section numbers are those of the Intel Virtualization Technology for Directed
//! I/O Architecture Specification, revision 4.1.

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unreachable
    )
)]

pub mod cache;
pub mod error;
pub mod event;
#[expect(unsafe_code, reason = "the C ABI takes and gives raw pointers")]
pub mod ffi;
pub mod host;
pub mod interrupt;
#[expect(
    unsafe_code,
    reason = "guest RAM is memory of the VMM, reached by address"
)]
pub mod memory;
pub mod spec;
pub mod translate;
pub mod unit;
pub mod vmm;

pub use error::{Error, Result};
