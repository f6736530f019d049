//! Ranges of pages: what an address mask names, and what merged ranges cover.

use nested_vtd::host::ranges::merge;
use nested_vtd::host::uapi::{VTD_INV_FLAGS_LEAF, VtdS1Invalidate};
use nested_vtd::spec::descriptors::PageRange;

/// A range names as many pages as it says, around its address, and none that there are not.
pub fn is_range(range: PageRange) {
    let pages = 1_u128 << range.address_mask;
    let bytes = pages * 4096;
    match range.bounds() {
        None => assert!(bytes >= 1 << 64, "{range:x?} is not everything"),
        Some((first, count)) => {
            assert_eq!(u128::from(count), pages, "{range:x?}");
            let (first, address) = (u128::from(first), u128::from(range.address));
            assert_eq!(first % bytes, 0, "{range:x?} is not aligned");
            assert!(first <= address && address < first + bytes, "{range:x?}");
            assert!(first + bytes <= 1 << 64, "{range:x?} is beyond 64 bits");
        }
    }
}

/// Each word an address with AM and IH below it.
pub fn pages(words: &[u64]) {
    for &word in words {
        is_range(PageRange {
            address: word & !0xfff,
            address_mask: (word & 0x3f) as u8,
            leaf_only: word & 0x40 != 0,
        });
    }
}

/// Pages of an entry, as the kernel reads it: first, the one behind the last, and whether only leaves are named.
fn of(entry: &VtdS1Invalidate) -> (u128, u128, bool) {
    let leaf_only = entry.flags & VTD_INV_FLAGS_LEAF != 0;
    if matches!(entry.npages, 0 | u64::MAX) {
        return (0, 1 << 52, leaf_only);
    }
    let first = u128::from(entry.addr / 4096);
    let end = (first + u128::from(entry.npages)).min(1 << 52);
    (first, end, leaf_only)
}

/// Two words an entry: what the unit would make of a guest's descriptors, and any.
pub fn merged(words: &[u64]) {
    let entries: Vec<VtdS1Invalidate> = words
        .chunks_exact(2)
        .map(|pair| {
            let leaf = if pair[1] & 1 != 0 {
                VTD_INV_FLAGS_LEAF
            } else {
                0
            };
            let addr = pair[0] & !0xfff;
            let npages = match pair[1] >> 1 & 3 {
                0 => pair[1] >> 3 & 0xff,
                1 => 1 << (pair[1] >> 3 & 0x3f).min(51),
                2 => pair[1] >> 3,
                _ => pair[1],
            };
            VtdS1Invalidate {
                addr,
                npages,
                flags: leaf,
                reserved: 0,
            }
        })
        // A range ends within 64 bits.
        .filter(|entry| {
            matches!(entry.npages, 0 | u64::MAX)
                || u128::from(entry.addr / 4096) + u128::from(entry.npages) <= 1 << 52
        })
        .collect();
    let result = merge(&entries);
    assert!(
        result.len() <= entries.len().max(1),
        "{entries:x?} became {result:x?}"
    );
    assert!(
        result
            .iter()
            .all(|entry| entry.reserved == 0 && entry.addr % 4096 == 0)
    );
    // At each place where something begins or ends, and beside it, the same is named as before.
    let mut places: Vec<u128> = Vec::new();
    for (first, end, _) in entries.iter().chain(&result).map(of) {
        places.extend([first.saturating_sub(1), first, end.saturating_sub(1), end]);
    }
    let everything = entries
        .iter()
        .any(|entry| matches!(entry.npages, 0 | u64::MAX));
    for place in places.into_iter().filter(|&place| place < 1 << 52) {
        for leaf_only in [false, true] {
            let covered = |entries: &[VtdS1Invalidate]| {
                entries.iter().map(of).any(|(first, end, leaves)| {
                    first <= place && place < end && (leaf_only || !leaves)
                })
            };
            // Everything is asked for without IH, which forgets more.
            let before = covered(&entries) || everything;
            assert_eq!(
                covered(&result),
                before,
                "page {place:#x}, leaves {leaf_only}: {entries:x?} became {result:x?}"
            );
        }
    }
}
