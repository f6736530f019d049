//! Decoding of whole descriptors (6.5.2, 7.7.1), as Linux sends them, and of wrong ones.

use nested_vtd::spec::descriptors::{Descriptor, PageRange, PasidPages, Scope, SourceMatch};
use nested_vtd::spec::registers::QueueErrorInfo::{self, BadType, ReservedField};

/// A table of low qword, high qword and what they mean.
type Table<'a> = &'a [(u64, u64, Descriptor)];

fn decodes(table: Table<'_>) {
    for &(low, high, descriptor) in table {
        assert_eq!(
            Descriptor::decode([low, high, 0, 0]),
            Ok(descriptor),
            "{low:#018x} {high:#018x}"
        );
    }
}

fn refuses(low: u64, high: u64, why: QueueErrorInfo) {
    assert_eq!(
        Descriptor::decode([low, high, 0, 0]),
        Err(why),
        "{low:#018x} {high:#018x}"
    );
}

fn source(source_id: u16, function_mask: u8) -> SourceMatch {
    SourceMatch {
        source_id,
        function_mask,
    }
}

fn pages(address: u64, address_mask: u8, leaf_only: bool) -> PageRange {
    PageRange {
        address,
        address_mask,
        leaf_only,
    }
}

// Type 1 (6.5.2.1).
#[test]
fn context_cache() {
    use Descriptor::ContextCache;
    decodes(&[
        (0x0000_0000_0000_0011, 0, ContextCache(Scope::Global)),
        (0x0000_0000_0002_0021, 0, ContextCache(Scope::Domain(2))),
        (
            0x0000_0018_0000_0031,
            0,
            ContextCache(Scope::Fine(0, source(0x0018, 0))),
        ),
        (
            0x0003_0300_1234_0031,
            0,
            ContextCache(Scope::Fine(0x1234, source(0x0300, 3))),
        ),
    ]);
    refuses(0x0000_0000_0000_0001, 0, ReservedField);
}

// Type 2 (6.5.2.3). Linux asks for both drains if CAP has them.
#[test]
fn iotlb() {
    use Descriptor::Iotlb;
    decodes(&[
        (0x0000_0000_0000_00d2, 0, Iotlb(Scope::Global)),
        (0x0000_0000_0000_00e2, 0, Iotlb(Scope::Domain(0))),
        (0x0000_0000_0005_00e2, 0, Iotlb(Scope::Domain(5))),
        (
            0x0000_0000_0005_00f2,
            0x0000_0007_f000_0049,
            Iotlb(Scope::Fine(5, pages(0x0000_0007_f000_0000, 9, true))),
        ),
        (
            0x0000_0000_0005_0032,
            0x0000_0000_ffff_f012,
            Iotlb(Scope::Fine(5, pages(0x0000_0000_ffff_f000, 18, false))),
        ),
    ]);
    refuses(0x0000_0000_0000_00c2, 0, ReservedField);
}

// Type 3 (6.5.2.5), for all and for one page.
#[test]
fn device_tlb() {
    decodes(&[
        (
            0x0010_0018_0010_8003,
            0x7fff_ffff_ffff_f001,
            Descriptor::DeviceTlb {
                source_id: 0x0018,
                range: (0, u64::MAX),
            },
        ),
        (
            0x0000_0300_0000_0003,
            0x0000_0001_2345_6000,
            Descriptor::DeviceTlb {
                source_id: 0x0300,
                range: (0x1_2345_6000, 0x1_2345_6fff),
            },
        ),
        (
            0x0000_0300_0000_0003,
            0x0000_0001_2345_6001, // S, bit 12 clear: two pages
            Descriptor::DeviceTlb {
                source_id: 0x0300,
                range: (0x1_2345_6000, 0x1_2345_7fff),
            },
        ),
        (
            0x0000_0300_0000_0003,
            0x0000_0001_2345_7001, // S, bit 12 set and 13 set, 14 clear: eight pages
            Descriptor::DeviceTlb {
                source_id: 0x0300,
                range: (0x1_2345_0000, 0x1_2345_ffff),
            },
        ),
    ]);
}

// Type 4 (6.5.2.7).
#[test]
fn interrupt_entry_cache() {
    use Descriptor::InterruptEntryCache;
    decodes(&[
        (
            0x0000_0000_0000_0004,
            0,
            InterruptEntryCache { range: None },
        ),
        (
            0x0000_0040_1000_0014,
            0,
            InterruptEntryCache {
                range: Some((0x40, 2)),
            },
        ),
        (
            0x0000_ffff_7800_0014,
            0,
            InterruptEntryCache {
                range: Some((0xffff, 15)),
            },
        ),
        // IM and IIDX mean nothing in a global one.
        (
            0x0000_ffff_f800_0004,
            0,
            InterruptEntryCache { range: None },
        ),
    ]);
    // More than ECAP.MHMV can say.
    refuses(0x0000_0000_8000_0014, 0, ReservedField);
    refuses(0x0000_0000_f800_0014, 0, ReservedField);
}

// Type 5 (6.5.2.8). Linux writes 2; it also sends a fence without any status.
#[test]
fn wait() {
    let wait = |status, [interrupt, fence, page_drain]: [bool; 3]| Descriptor::Wait {
        status,
        interrupt,
        fence,
        page_drain,
    };
    decodes(&[
        (
            0x0000_0002_0000_0025,
            0x0000_0001_2345_6788,
            wait(Some((0x0000_0001_2345_6788, 2)), [false, false, false]),
        ),
        (0x0000_0000_0000_0045, 0, wait(None, [false, true, false])),
        (
            0x0000_0002_0000_00a5,
            0x0000_0001_2345_678c,
            wait(Some((0x0000_0001_2345_678c, 2)), [false, false, true]),
        ),
        (0x0000_0000_0000_0015, 0, wait(None, [true, false, false])),
        (
            0xdead_beef_0000_00f5,
            0xffff_ffff_ffff_fffc,
            wait(
                Some((0xffff_ffff_ffff_fffc, 0xdead_beef)),
                [true, true, true],
            ),
        ),
    ]);
}

// Type 6 (6.5.2.4). Linux does not limit AM by CAP.MAMV: 52 is the whole address
// space, 63 the widest that the field holds.
#[test]
fn pasid_iotlb() {
    let pasid_iotlb = |domain_id, pasid, pages| Descriptor::PasidIotlb {
        domain_id,
        pasid,
        pages,
    };
    decodes(&[
        (0x0000_0000_0002_0026, 0, pasid_iotlb(2, 0, PasidPages::All)),
        (
            0x000a_bcde_1234_0026,
            0,
            pasid_iotlb(0x1234, 0xa_bcde, PasidPages::All),
        ),
        (
            0x0000_0000_0002_0036,
            0x0000_0007_f000_0049,
            pasid_iotlb(2, 0, PasidPages::Range(pages(0x7_f000_0000, 9, true))),
        ),
        (
            0x0000_0000_0002_0036,
            0x0000_0000_0000_0034,
            pasid_iotlb(2, 0, PasidPages::Range(pages(0, 52, false))),
        ),
        (
            0x0000_0001_0002_0036,
            0x0000_0000_0000_003f,
            pasid_iotlb(2, 1, PasidPages::Range(pages(0, 63, false))),
        ),
    ]);
    refuses(0x0000_0000_0002_0006, 0, ReservedField);
    refuses(0x0000_0000_0002_0016, 0, ReservedField);
}

// Type 7 (6.5.2.2).
#[test]
fn pasid_cache() {
    use Descriptor::PasidCache;
    decodes(&[
        (0x0000_0000_0002_0007, 0, PasidCache(Scope::Domain(2))),
        (0x0000_0000_0002_0017, 0, PasidCache(Scope::Fine(2, 0))),
        (
            0x000a_bcde_1234_0017,
            0,
            PasidCache(Scope::Fine(0x1234, 0xa_bcde)),
        ),
        (0x0000_0000_0000_0037, 0, PasidCache(Scope::Global)),
    ]);
    refuses(0x0000_0000_0002_0027, 0, ReservedField);
}

// Type 8 (6.5.2.6).
#[test]
fn pasid_device_tlb() {
    decodes(&[
        (
            0x001a_bcde_0018_81f8,
            0x7fff_ffff_ffff_f800,
            Descriptor::PasidDeviceTlb {
                source_id: 0x0018,
                pasid: Some(0xa_bcde),
                range: (0, u64::MAX),
            },
        ),
        (
            0x001a_bcde_0018_81f8,
            0x0000_0000_0000_5001, // G
            Descriptor::PasidDeviceTlb {
                source_id: 0x0018,
                pasid: None,
                range: (0x5000, 0x5fff),
            },
        ),
    ]);
}

// Type 9 (7.7.1): invalid with PASID, and failure without.
#[test]
fn page_group_response() {
    decodes(&[
        (
            0x000a_bcde_0018_1019,
            0x0000_0000_0000_0ff8,
            Descriptor::PageGroupResponse {
                source_id: 0x0018,
                pasid: Some(0xa_bcde),
                code: 1,
                group: 0x1ff,
            },
        ),
        (
            0x0000_0000_0300_f009,
            0x0000_0000_0000_0028,
            Descriptor::PageGroupResponse {
                source_id: 0x0300,
                pasid: None,
                code: 15,
                group: 5,
            },
        ),
    ]);
}

// Types 0, 10, 0x11 (type 1 but for a bit of the upper part), 0x71 and 0x7f; what else
// is in the descriptor does not matter.
#[test]
fn unknown_types() {
    for low in [0x000, 0x00a, 0x211, 0xe01, 0xe0f] {
        refuses(low, 0, BadType);
        assert_eq!(
            Descriptor::decode([low | 0xffff_ffff_ffff_f1c0, !0, !0, !0]),
            Err(BadType),
            "{low:#x}"
        );
    }
}

/// A descriptor of each type that is right, and the bits of its qwords that are to be 0.
/// VirtualBox and QEMU agree on these, but that QEMU also reserves the bits of
/// capabilities it does not report: PD of a wait, PFSID. Reserved bits of a page group
/// response are let pass.
const RESERVED: [(u64, u64, u64); 9] = [
    (0x011, 0xfffc_0000_0000_f1c0, 0xffff_ffff_ffff_ffff),
    (0x012, 0xffff_ffff_0000_f100, 0x0000_0000_0000_0f80),
    (0x003, 0x000f_0000_ffe0_01f0, 0x0000_0000_0000_0ffe),
    (0x004, 0xffff_0000_07ff_f1e0, 0xffff_ffff_ffff_ffff),
    (0x005, 0x0000_0000_ffff_f100, 0x0000_0000_0000_0003),
    (0x026, 0xfff0_0000_0000_f1c0, 0x0000_0000_0000_0f80),
    (0x037, 0xfff0_0000_0000_f1c0, 0xffff_ffff_ffff_ffff),
    (0x008, 0x0000_0000_0000_0000, 0x0000_0000_0000_07fe),
    (0x009, 0x0000_0000_0000_0000, 0x0000_0000_0000_0000),
];

/// Bits of the type and of the granularity, which the tables above have.
const TYPE_AND_GRANULARITY: u64 = 0xe3f;

#[test]
fn reserved_bits() {
    for (low, low_reserved, high_reserved) in RESERVED {
        for bit in (0..64).map(|at| 1_u64 << at) {
            if bit & TYPE_AND_GRANULARITY == 0 {
                let refused = Descriptor::decode([low | bit, 0, 0, 0]) == Err(ReservedField);
                assert_eq!(refused, low_reserved & bit != 0, "{low:#x} {bit:#x}");
            }
            let refused = Descriptor::decode([low, bit, 0, 0]) == Err(ReservedField);
            assert_eq!(refused, high_reserved & bit != 0, "{low:#x} 0 {bit:#x}");
        }
    }
}

// The upper half of a 256-bit descriptor is reserved but for private data of page
// requests.
#[test]
fn upper_qwords() {
    for (low, ..) in RESERVED {
        for upper in [[1, 0], [0, 1], [1 << 63, 0], [0, 1 << 63]] {
            let [third, fourth] = upper;
            let decoded = Descriptor::decode([low, 0, third, fourth]);
            if low == 9 {
                assert!(decoded.is_ok());
            } else {
                assert_eq!(decoded, Err(ReservedField), "{low:#x} {upper:x?}");
            }
        }
    }
}
