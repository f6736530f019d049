//! What is left in the caches after an invalidation.

use nested_vtd::cache::translations::TranslationCache;
use nested_vtd::interrupt::Entry;
use nested_vtd::interrupt::cache::EntryCache;
use nested_vtd::translate::walk::{LastTable, Leaf, Rights};
use nested_vtd::translate::{Permissions, Translation};

use crate::{EVERYTHING, count};

const PAGE: u64 = 1 << 12;
const LARGE: u64 = 1 << 21;
const HUGE: u64 = 1 << 30;

fn leaf(address: u64, page_size: u64) -> Leaf {
    let permissions = Permissions::ALL;
    let translation = Translation {
        address,
        page_size,
        permissions,
    };
    Leaf::new(translation, true, false)
}

/// Around each of these pages begins on the one side, and ends on the other.
const PLACES: [u64; 7] = [
    16 * PAGE,
    LARGE,
    HUGE,
    1 << 39,
    1 << 47,
    1 << 63,
    (16 * PAGE).wrapping_neg(),
];

/// Every range of up to 24 pages that begins within 16 pages of a boundary: leaves of 4 KiB, 2 MiB and 1 GiB, and
/// tables, go exactly if the range touches them.
#[test]
fn a_range_forgets_what_it_touches() {
    let mut cases = 0;
    for middle in PLACES {
        let cache = TranslationCache::default();
        // A tag for each size, as a page has one size.
        let tags: Vec<_> = (0..4).map(|_| cache.new_tag()).collect();
        let small: Vec<u64> = (0..32)
            .map(|page| (middle - 16 * PAGE).wrapping_add(page * PAGE))
            .collect();
        let around = |size: u64| {
            let last = small[31] & !(size - 1);
            let mut pages = vec![small[0] & !(size - 1), last];
            pages.dedup();
            pages
        };
        let kinds = [
            (PAGE, small.clone()),
            (LARGE, around(LARGE)),
            (HUGE, around(HUGE)),
        ];
        for leaf_only in [false, true] {
            for &first in &small {
                for count in 1..=24 {
                    let bytes = count * PAGE;
                    let Some(last) = first.checked_add(bytes - 1) else {
                        break;
                    };
                    let touched = |page: u64, size: u64| page <= last && first <= page + (size - 1);
                    for (tag, (size, pages)) in tags.iter().zip(&kinds) {
                        for &page in pages {
                            cache.fill(tag, tag.ticket(), false, page, leaf(0x4000_0000, *size));
                        }
                        let looked_at = cache.invalidate_range(tag, first, count, leaf_only);
                        // What a loop does is bounded by what it covers.
                        assert!((1..=bytes / size + 2).contains(&looked_at), "{looked_at}");
                        for &page in pages {
                            let kept = cache.get(tag, false, page).is_some();
                            assert_eq!(
                                kept,
                                !touched(page, *size),
                                "{page:#x} {size:#x}: {first:#x} {count}"
                            );
                            cases += 1;
                        }
                    }
                    let tag = &tags[3];
                    for page in around(LARGE) {
                        let table = LastTable::with_entry(0x5000, Rights::ALL);
                        cache.fill_table(tag, tag.ticket(), false, page, table);
                    }
                    cache.invalidate_range(tag, first, count, leaf_only);
                    for page in around(LARGE) {
                        let kept = cache.table(tag, false, page).is_some();
                        assert_eq!(kept, leaf_only || !touched(page, LARGE), "table {page:#x}");
                        cases += 1;
                    }
                }
            }
        }
    }
    count("entries beside ranges", cases);
}

/// What is packed into an entry comes out of it: every bit of addresses and targets.
#[test]
fn entries_keep_every_bit() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let mut cases = 0;
    for size in [PAGE, LARGE, HUGE] {
        for target in super::edges(52) {
            for address in (12..64).map(|bit| 1_u64 << bit).chain([0, u64::MAX]) {
                let target = target & !(size - 1);
                cache.fill(&tag, tag.ticket(), false, address, leaf(target, size));
                let found = cache.get(&tag, false, address).map(Leaf::translation);
                let expected = target | (address & (size - 1));
                let found = found.map(|found| (found.address, found.page_size));
                assert_eq!(found, Some((expected, size)), "{address:#x}");
                cache.invalidate_all(&tag);
                cases += 1;
            }
        }
    }
    count("packed entries", cases);
}

/// Every index with every mask: the entries at both ends of the block, and beside it.
#[test]
fn an_index_mask_forgets_its_block() {
    let cache = EntryCache::default();
    let entry = Entry::decode([1, 0], false).unwrap();
    let mut cases = 0;
    for mask in 0..=15_u8 {
        // Places repeat after a capacity of 1024.
        let indices = (0..=0xffff_u32).filter(|&it| EVERYTHING || !(0x800..0xf800).contains(&it));
        for index in indices {
            let block = 1_u32 << mask;
            let first = index / block * block;
            let near = [
                first.wrapping_sub(1),
                first,
                index,
                first + block - 1,
                first + block,
            ];
            for near in near.into_iter().filter_map(|near| u16::try_from(near).ok()) {
                cache.fill(cache.ticket(), near, entry);
                cache.invalidate(index as u16, mask);
                let named = u32::from(near) / block == index / block;
                let kept = cache.get(near).is_some();
                // Large blocks may take others along.
                assert!(!(named && kept), "{near:#x} stays: {index:#x} {mask}");
                assert!(
                    named || kept || block > 64,
                    "{near:#x} goes: {index:#x} {mask}"
                );
                cases += 1;
            }
        }
    }
    count("interrupt entries beside blocks", cases);
}

/// Two indices share a place exactly if they are a capacity apart.
#[test]
fn interrupt_entries_have_one_place_each() {
    let cache = EntryCache::default();
    let entry = Entry::decode([1, 0], false).unwrap();
    let capacity = EntryCache::CAPACITY as u32;
    for base in (0..0x1_0000).step_by(EntryCache::CAPACITY) {
        for index in base..base + capacity {
            cache.fill(cache.ticket(), index as u16, entry);
        }
        for index in 0..=0xffff_u32 {
            let kept = cache.get(index as u16).is_some();
            assert_eq!(kept, (base..base + capacity).contains(&index), "{index:#x}");
        }
    }
    count("places of interrupt entries", 64 * 0x1_0000);
}
