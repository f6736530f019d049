//! The register map: which register is where, and which part of it an access
//! means. Odd accesses are sorted out here, once.

use super::config::FAULT_RECORDS;
use crate::spec::registers::{Ecap, offset};

/// A register of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Version,
    Capability,
    ExtendedCapability,
    GlobalCommand,
    GlobalStatus,
    RootTableAddress,
    ContextCommand,
    FaultStatus,
    Event(Source, EventRegister),
    QueueHead,
    QueueTail,
    QueueAddress,
    CompletionStatus,
    QueueErrorRecord,
    InterruptTableAddress,
    PageQueueHead,
    PageQueueTail,
    PageQueueAddress,
    PageRequestStatus,
    InvalidateAddress,
    IotlbInvalidate,
    FaultRecordLow(usize),
    FaultRecordHigh(usize),
}

impl Register {
    /// Is the register there? One whose capability is not reported is reserved.
    pub fn is_offered(self, ecap: Ecap) -> bool {
        match self {
            PageQueueHead
            | PageQueueTail
            | PageQueueAddress
            | PageRequestStatus
            | Event(PageRequest, _) => ecap.page_request(),
            _ => true,
        }
    }
}

/// Which interrupt an event register belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Fault,
    Completion,
    PageRequest,
}

/// The four registers of an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventRegister {
    Control,
    Data,
    Address,
    UpperAddress,
}

use EventRegister::{Address, Control, Data, UpperAddress};
use Register::*;
use Source::{Completion, Fault, PageRequest};

/// Offset, bytes and name of each register but the fault records.
const MAP: &[(u64, u64, Register)] = &[
    (offset::VER, 4, Version),
    (offset::CAP, 8, Capability),
    (offset::ECAP, 8, ExtendedCapability),
    (offset::GCMD, 4, GlobalCommand),
    (offset::GSTS, 4, GlobalStatus),
    (offset::RTADDR, 8, RootTableAddress),
    (offset::CCMD, 8, ContextCommand),
    (offset::FSTS, 4, FaultStatus),
    (offset::FECTL, 4, Event(Fault, Control)),
    (offset::FEDATA, 4, Event(Fault, Data)),
    (offset::FEADDR, 4, Event(Fault, Address)),
    (offset::FEUADDR, 4, Event(Fault, UpperAddress)),
    (offset::IQH, 8, QueueHead),
    (offset::IQT, 8, QueueTail),
    (offset::IQA, 8, QueueAddress),
    (offset::ICS, 4, CompletionStatus),
    (offset::IECTL, 4, Event(Completion, Control)),
    (offset::IEDATA, 4, Event(Completion, Data)),
    (offset::IEADDR, 4, Event(Completion, Address)),
    (offset::IEUADDR, 4, Event(Completion, UpperAddress)),
    (offset::IQERCD, 8, QueueErrorRecord),
    (offset::IRTA, 8, InterruptTableAddress),
    (offset::PQH, 8, PageQueueHead),
    (offset::PQT, 8, PageQueueTail),
    (offset::PQA, 8, PageQueueAddress),
    (offset::PRS, 4, PageRequestStatus),
    (offset::PECTL, 4, Event(PageRequest, Control)),
    (offset::PEDATA, 4, Event(PageRequest, Data)),
    (offset::PEADDR, 4, Event(PageRequest, Address)),
    (offset::PEUADDR, 4, Event(PageRequest, UpperAddress)),
    (offset::IVA, 8, InvalidateAddress),
    (offset::IOTLB, 8, IotlbInvalidate),
];

/// Bytes in a fault recording register.
const FAULT_RECORD_SIZE: u64 = 16;

/// A register, or the half of one, that an access means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub register: Register,
    /// Position of the access in the register: 0, or 32 for the upper half.
    pub shift: u32,
    /// Bits of the register that the access means.
    pub mask: u64,
}

/// What does an access of `size` bytes at `at` mean? None for what hardware leaves
/// undefined: unaligned, not 4 or 8 bytes, 8 bytes of a 4-byte register, or no
/// register at all.
pub(super) fn locate(at: u64, size: u32) -> Option<Target> {
    let size = u64::from(size);
    if !matches!(size, 4 | 8) || at & size.saturating_sub(1) != 0 {
        return None;
    }
    let (start, width, register) = find(at)?;
    if size > width {
        return None;
    }
    let shift = if at == start { 0 } else { 32 };
    let mask = if size == 8 {
        u64::MAX
    } else {
        0xffff_ffff << shift
    };
    Some(Target {
        register,
        shift,
        mask,
    })
}

fn find(at: u64) -> Option<(u64, u64, Register)> {
    let fixed = MAP
        .iter()
        .find(|&&(start, width, _)| (start..start.saturating_add(width)).contains(&at));
    fixed.copied().or_else(|| fault_record(at))
}

fn fault_record(at: u64) -> Option<(u64, u64, Register)> {
    let within = at.checked_sub(offset::FRCD)?;
    let index = usize::try_from(within / FAULT_RECORD_SIZE).ok()?;
    if index >= FAULT_RECORDS {
        return None;
    }
    let start = at & !7;
    let low = within % FAULT_RECORD_SIZE < 8;
    Some((
        start,
        8,
        if low {
            FaultRecordLow(index)
        } else {
            FaultRecordHigh(index)
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_registers_and_halves_are_found() {
        let whole = Target {
            register: Capability,
            shift: 0,
            mask: u64::MAX,
        };
        assert_eq!(locate(0x08, 8), Some(whole));
        assert_eq!(
            locate(0x0c, 4),
            Some(Target {
                shift: 32,
                mask: 0xffff_ffff_0000_0000,
                ..whole
            })
        );
        let status = Target {
            register: GlobalStatus,
            shift: 0,
            mask: 0xffff_ffff,
        };
        assert_eq!(locate(0x1c, 4), Some(status));
        assert_eq!(locate(0x22c, 4).unwrap().register, FaultRecordHigh(0));
        assert_eq!(locate(0x290, 8).unwrap().register, FaultRecordLow(7));
    }

    #[test]
    fn odd_accesses_mean_nothing() {
        for (at, size) in [
            (0x18, 8), // two 4-byte registers
            (0x0c, 8), // unaligned
            (0x0a, 4),
            (0x18, 1),
            (0x18, 2),
            (0x48, 4),  // no register
            (0x2a0, 8), // behind the last fault record
            (0xffc, 4),
        ] {
            assert_eq!(locate(at, size), None, "{at:#x} {size}");
        }
    }

    #[test]
    fn registers_do_not_overlap() {
        for (index, &(start, width, register)) in MAP.iter().enumerate() {
            for &(other, other_width, name) in &MAP[index + 1..] {
                assert!(
                    start + width <= other || other + other_width <= start,
                    "{register:?} and {name:?}"
                );
            }
        }
    }

    /// Every offset and size: an access means bits of the register that stands there, and no others.
    #[test]
    fn every_access_means_the_bytes_that_it_touches() {
        // The register that has a byte, and which of its bytes that is.
        let mut bytes = vec![None; 0x1100];
        let records = (0..FAULT_RECORDS as u64).flat_map(|index| {
            let at = offset::FRCD + index * 16;
            let index = index as usize;
            [
                (at, 8, FaultRecordLow(index)),
                (at + 8, 8, FaultRecordHigh(index)),
            ]
        });
        for (start, width, register) in MAP.iter().copied().chain(records) {
            for byte in 0..width {
                let before = bytes[(start + byte) as usize].replace((register, byte, width));
                assert_eq!(before, None, "{register:?}");
            }
        }
        for at in 0..0x1080 {
            for size in 0..=16 {
                let found = locate(at, size);
                let expected = bytes[at as usize].filter(|&(_, byte, width)| {
                    matches!(size, 4 | 8)
                        && at % u64::from(size) == 0
                        && byte + u64::from(size) <= width
                });
                assert_eq!(
                    found.map(|it| it.register),
                    expected.map(|it| it.0),
                    "{at:#x} {size}"
                );
                if let (Some(found), Some((_, byte, _))) = (found, expected) {
                    let touched = (0..64)
                        .filter(|bit| (byte * 8..(byte + u64::from(size)) * 8).contains(bit));
                    assert_eq!(found.mask, touched.fold(0, |mask, bit| mask | 1 << bit));
                    assert_eq!(u64::from(found.shift), byte * 8, "{at:#x} {size}");
                }
            }
        }
        for at in [u64::MAX, u64::MAX - 7, 1 << 32, 1 << 63] {
            assert_eq!(locate(at, 8), None);
        }
    }
}
