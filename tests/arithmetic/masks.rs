//! What address masks and their like name: page by page, as the specification has it.

use nested_vtd::host::ranges::merge;
use nested_vtd::host::uapi::{VTD_INV_FLAGS_LEAF, VtdS1Invalidate};
use nested_vtd::spec::descriptors::{Descriptor, PageRange, PasidPages, Scope};
use nested_vtd::unit::{Config, Notify};

use crate::common::*;
use crate::{count, edges};

/// AM (6.5.2.3): pages whose numbers differ in the lowest `mask` bits only.
fn named(page: u64, mask: u32, other: u64) -> bool {
    (mask..52).all(|bit| page >> bit & 1 == other >> bit & 1)
}

fn holds(bounds: Option<(u64, u64)>, page: u64) -> bool {
    bounds.is_none_or(|(first, pages)| {
        assert_eq!(first % 0x1000, 0);
        let first = first >> 12;
        first <= page && page - first < pages
    })
}

fn range(page: u64, mask: u32) -> PageRange {
    PageRange {
        // The offset says nothing.
        address: page << 12 | 0xabc,
        address_mask: mask as u8,
        leaf_only: false,
    }
}

#[test]
fn an_address_mask_names_its_block() {
    let mut cases = 0;
    for page in 0..64 {
        for mask in 0..64 {
            let bounds = range(page, mask).bounds();
            for other in 0..256 {
                assert_eq!(
                    holds(bounds, other),
                    named(page, mask, other),
                    "{page:#x} {mask} {other:#x}"
                );
                cases += 1;
            }
        }
    }
    let pages = edges(52);
    for &page in &pages {
        for mask in 0..64 {
            let bounds = range(page, mask).bounds();
            let block = 1_u64.checked_shl(mask.min(52)).unwrap_or(0);
            let first = page & !(block - 1);
            let last = first + (block - 1);
            let ends = [
                first.wrapping_sub(1),
                first,
                page,
                last,
                last.wrapping_add(1),
            ];
            for other in ends.map(|other| other & ((1 << 52) - 1)) {
                assert_eq!(
                    holds(bounds, other),
                    named(page, mask, other),
                    "{page:#x} {mask} {other:#x}"
                );
                cases += 1;
            }
        }
    }
    count("address masks", cases);
}

/// AM and its page as they stand in descriptors, and come out of them.
#[test]
fn descriptors_have_their_masks() {
    let mut cases = 0;
    for page in edges(52) {
        for mask in 0..64_u64 {
            for leaf_only in [false, true] {
                let high = page << 12 | u64::from(leaf_only) << 6 | mask;
                let expected = PageRange {
                    address: page << 12,
                    address_mask: mask as u8,
                    leaf_only,
                };
                let decoded = Descriptor::decode([2 | 3 << 4, high, 0, 0]);
                assert_eq!(decoded, Ok(Descriptor::Iotlb(Scope::Fine(0, expected))));
                let decoded = Descriptor::decode([6 | 3 << 4, high, 0, 0]);
                let pages = PasidPages::Range(expected);
                assert_eq!(
                    decoded,
                    Ok(Descriptor::PasidIotlb {
                        domain_id: 0,
                        pasid: 0,
                        pages
                    })
                );
                cases += 2;
            }
        }
    }
    count("descriptors with masks", cases);
}

/// The range of a device-TLB invalidation, without and with PASID.
fn device_tlb(page: u64, size: bool) -> (u64, u64) {
    let size = u64::from(size);
    let plain = Descriptor::decode([3, page << 12 | size, 0, 0]);
    let with_pasid = Descriptor::decode([8, page << 12 | size << 11, 0, 0]);
    match (plain, with_pasid) {
        (
            Ok(Descriptor::DeviceTlb { range, .. }),
            Ok(Descriptor::PasidDeviceTlb { range: same, .. }),
        ) => {
            assert_eq!(range, same);
            range
        }
        other => panic!("{other:?}"),
    }
}

/// ATS, 10.3.1: with S the block has 2^(n + 1) pages, of which n low bits of the page number are 1 and the next is 0.
#[test]
fn the_size_bit_tells_how_many_pages() {
    let mut cases = 0;
    let mut check = |page: u64, n: u32| {
        // What somebody writes who wants the block of 2^(n + 1) pages around the page.
        let pages = 1_u64 << n << 1;
        let first = page & !(pages - 1);
        let written = first | (pages / 2 - 1);
        let last = (first + (pages - 1)) << 12 | 0xfff;
        assert_eq!(
            device_tlb(written, true),
            (first << 12, last),
            "{page:#x} {n}"
        );
        cases += 1;
    };
    for n in 0..52 {
        (0..512).for_each(|page| check(page, n));
        edges(52).iter().for_each(|&page| check(page, n));
    }
    assert_eq!(device_tlb((1 << 52) - 1, true), (0, u64::MAX));
    for page in (0..512).chain(edges(52)) {
        assert_eq!(device_tlb(page, false), (page << 12, page << 12 | 0xfff));
        cases += 1;
    }
    count("device-TLB ranges", cases);
}

/// What the VMM is told of a PASID-based invalidation: bytes, both ends included.
#[test]
fn what_the_vmm_is_told_is_what_is_named() {
    let mut guest = Guest::with(Config::default());
    guest.build_tables();
    guest.enable();
    let unit = Notify {
        unit: true,
        device_tlb: false,
    };
    guest.unit.device_notify(guest.device, unit).unwrap();
    guest.submit(&[pasid_cache(), wait(1)]);
    let mut cases = 0;
    for page in edges(52) {
        for mask in 0..64_u32 {
            guest.notes.invalidations.lock().unwrap().clear();
            let [low, _] = super::common::page(0);
            guest.submit(&[[low, page << 12 | u64::from(mask)], wait(1)]);
            let told = guest.notes.invalidations.lock().unwrap().clone();
            let [told] = told.as_slice() else {
                panic!("{page:#x} {mask}: {told:?}");
            };
            let bits = (mask + 12).min(64);
            let low = u64::MAX.checked_shr(64 - bits).unwrap();
            let address = page << 12;
            assert_eq!(
                (told.first, told.last),
                (address & !low, address | low),
                "{page:#x} {mask}"
            );
            cases += 1;
        }
    }
    count("ranges that the VMM is told", cases);
}

fn covers(entries: &[VtdS1Invalidate], page: u64, leaf_only: bool) -> bool {
    entries.iter().any(|entry| {
        let first = entry.addr / 0x1000;
        let of_leaves = entry.flags & VTD_INV_FLAGS_LEAF != 0;
        let all = entry.npages == u64::MAX;
        all || ((first..first + entry.npages).contains(&page) && (leaf_only || !of_leaves))
    })
}

/// All lists of up to three ranges in six pages, at the start of the address space, at its end, and where the
/// numbers carry.
#[test]
fn merged_ranges_cover_the_same() {
    const PAGES: u64 = 6;
    let mut cases = 0;
    for base in [0, (1 << 20) - 3, (1 << 52) - PAGES] {
        let mut all = Vec::new();
        for first in 0..PAGES {
            for npages in 1..=PAGES - first {
                for flags in [0, VTD_INV_FLAGS_LEAF] {
                    let addr = (base + first) * 0x1000;
                    all.push(VtdS1Invalidate {
                        addr,
                        npages,
                        flags,
                        reserved: 0,
                    });
                }
            }
        }
        let mut check = |entries: &[VtdS1Invalidate]| {
            let merged = merge(entries);
            assert!(merged.len() <= entries.len());
            for page in base.saturating_sub(1)..base + PAGES + 1 {
                for leaf_only in [false, true] {
                    let same = covers(&merged, page, leaf_only) == covers(entries, page, leaf_only);
                    assert!(same, "page {page:#x} of {entries:?} as {merged:?}");
                }
            }
            cases += 1;
        };
        for &one in &all {
            check(&[one]);
            for &two in &all {
                check(&[one, two]);
                // With a third, in one order of the first two: they are sorted.
                if base == 0 && one.addr <= two.addr {
                    all.iter().for_each(|&three| check(&[one, two, three]));
                }
            }
        }
    }
    count("lists of ranges", cases);
}
