//! Page request descriptors (section 7.4.1.1) and the codes that answer them
//! (section 7.7.1).

use bitfield_struct::bitfield;

/// First qword of a page request descriptor (7.4.1.1). The third and fourth qwords
/// are reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageRequestLow {
    /// TYPE: always [`PAGE_REQUEST_TYPE`].
    pub kind: u8,
    /// PP: the PASID field is valid.
    pub pasid_present: bool,
    #[bits(7)]
    pub reserved0: u8,
    /// RID: requester.
    pub source_id: u16,
    /// PASID.
    #[bits(20)]
    pub pasid: u32,
    /// EXE: the page is to be executed; valid with PP.
    pub execute: bool,
    /// PRIV: a privileged request; valid with PP.
    pub privileged: bool,
    #[bits(10)]
    pub reserved1: u16,
}

/// Second qword of a page request descriptor (7.4.1.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageRequestHigh {
    /// RD: the page is to be read.
    pub read: bool,
    /// WR: the page is to be written.
    pub write: bool,
    /// LPIG: last page in group.
    pub last: bool,
    /// PRGI: page request group index.
    #[bits(9)]
    pub group: u16,
    /// ADDR: bits 63:12 of the address.
    #[bits(52)]
    pub page: u64,
}

/// TYPE of a page request descriptor.
pub const PAGE_REQUEST_TYPE: u8 = 1;

/// Bytes in a page request descriptor.
pub const PAGE_REQUEST_SIZE: u64 = 32;

/// Response code of a page group response, descriptor and message (7.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResponseCode {
    /// The pages are there; the device asks for their translations again.
    Success = 0,
    /// A page is not to be had.
    Invalid = 1,
    /// A catastrophic error: the device stops asking for pages.
    Failure = 15,
}

impl From<u8> for ResponseCode {
    /// A device takes the unused codes, 2 to 14, for a failure (PCI Express, 10.4.2).
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Success,
            1 => Self::Invalid,
            _ => Self::Failure,
        }
    }
}
