//! Layouts of the VT-d specification: bits only, no state, no I/O.
//!
//! One file per group of tables. Every type cites its section and is pinned by
//! `tests/spec_layout` with literal hex from two independent sources.

pub mod descriptors;
pub mod fault;
pub mod interrupt;
pub mod page_request;
pub mod paging;
pub mod pasid;
pub mod registers;
pub mod root_context;

/// Bytes in the smallest page.
pub const PAGE_SIZE: u64 = 4096;

/// First address of the interrupt range; memory writes to it are interrupt
/// requests, not DMA (3.14).
pub const INTERRUPT_RANGE_FIRST: u64 = 0xfee0_0000;

/// Last address of the interrupt range.
pub const INTERRUPT_RANGE_LAST: u64 = 0xfeef_ffff;
