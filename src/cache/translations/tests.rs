use super::*;
use crate::translate::Permissions;

fn leaf(address: u64, page_size: u64) -> Leaf {
    Leaf::new(
        Translation {
            address,
            page_size,
            permissions: Permissions::ALL,
        },
        true,
        false,
    )
}

fn cached(cache: &TranslationCache, tag: &Tag, address: u64) -> Option<u64> {
    cache.get(tag, false, address).map(|leaf| leaf.address())
}

#[test]
fn a_page_answers_for_all_its_bytes_and_only_them() {
    let cache = TranslationCache::default();
    let (tag, other) = (cache.new_tag(), cache.new_tag());
    for (page, target, size) in [
        (0x1000, 0x7000, 1 << 12),
        (0x40_0000, 0x80_0000, 1 << 21),
        (1 << 32, 1 << 33, 1 << 30),
    ] {
        cache.fill(
            &tag,
            tag.ticket(),
            false,
            page + 0x123,
            leaf(target + 0x123, size),
        );
        assert_eq!(cached(&cache, &tag, page), Some(target));
        assert_eq!(
            cached(&cache, &tag, page + size - 1),
            Some(target + size - 1)
        );
        assert_eq!(cached(&cache, &tag, page + size), None);
        assert_eq!(cached(&cache, &tag, page - 1), None);
        assert_eq!(cached(&cache, &other, page), None);
    }
}

#[test]
fn a_range_forgets_every_page_size_it_touches_and_nothing_else() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let ticket = tag.ticket();
    cache.fill(&tag, ticket, false, 0x0, leaf(0x10_0000, 1 << 12));
    cache.fill(&tag, ticket, false, 0x3000, leaf(0x20_0000, 1 << 12));
    cache.fill(&tag, ticket, false, 0x20_0000, leaf(0x40_0000, 1 << 21));
    cache.invalidate_range(&tag, 0x1000, 3, false);
    assert_eq!(cached(&cache, &tag, 0x0), Some(0x10_0000));
    assert_eq!(cached(&cache, &tag, 0x3000), None);
    assert_eq!(cached(&cache, &tag, 0x20_0000), Some(0x40_0000));
    cache.invalidate_range(&tag, 0x3f_f000, 1, false);
    assert_eq!(cached(&cache, &tag, 0x20_0000), None);
    assert_eq!(cached(&cache, &tag, 0x0), Some(0x10_0000));
}

#[test]
fn forgetting_a_tag_leaves_the_others() {
    let cache = TranslationCache::default();
    let (tag, other) = (cache.new_tag(), cache.new_tag());
    cache.fill(&tag, tag.ticket(), false, 0x1000, leaf(0x5000, 1 << 12));
    cache.fill(&other, other.ticket(), false, 0x1000, leaf(0x6000, 1 << 12));
    cache.invalidate_all(&tag);
    assert_eq!(cached(&cache, &tag, 0x1000), None);
    assert_eq!(cached(&cache, &other, 0x1000), Some(0x6000));
    cache.invalidate_range(&other, 0, u64::MAX >> 12, false);
    assert_eq!(cached(&cache, &other, 0x1000), None);
}

#[test]
fn a_walk_begun_before_an_invalidation_fills_nothing() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let before = tag.ticket();
    cache.invalidate_range(&tag, 0x8000, 1, false);
    cache.fill(&tag, before, false, 0x1000, leaf(0x5000, 1 << 12));
    assert_eq!(cached(&cache, &tag, 0x1000), None);
    cache.fill(&tag, tag.ticket(), false, 0x1000, leaf(0x5000, 1 << 12));
    assert_eq!(cached(&cache, &tag, 0x1000), Some(0x5000));
}

#[test]
#[cfg_attr(miri, ignore = "too many cases")]
fn memory_is_bounded_whatever_is_filled() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    for page in 0..2 * TranslationCache::CAPACITY as u64 {
        cache.fill(
            &tag,
            tag.ticket(),
            false,
            page << 12,
            leaf(page << 12, 1 << 12),
        );
    }
    let pages = 0..2 * TranslationCache::CAPACITY as u64;
    let kept = pages
        .filter(|page| cached(&cache, &tag, page << 12).is_some())
        .count();
    assert!(
        kept <= TranslationCache::CAPACITY && kept > TranslationCache::CAPACITY / 2,
        "{kept}"
    );
}

#[test]
fn privileged_requests_have_entries_of_their_own() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let found = |privileged| {
        let leaf = cache.get(&tag, privileged, 0x1000)?;
        Some(leaf.address())
    };
    for size in [1 << 12, 1 << 21, 1 << 30] {
        cache.fill(&tag, tag.ticket(), true, 0x1000, leaf(0x1000, size));
        assert_eq!((found(false), found(true)), (None, Some(0x1000)));
        cache.invalidate_range(&tag, 0x1000, 1, true);
        assert_eq!(found(true), None);
    }
    let table = LastTable::with_entry(0x9000, Rights::ALL);
    cache.fill_table(&tag, tag.ticket(), true, 0x1000, table);
    assert_eq!(cache.table(&tag, false, 0x1000), None);
    assert_eq!(cache.table(&tag, true, 0x1000), Some(table));
    cache.invalidate_range(&tag, 0x1000, 1, true);
    assert_eq!(cache.table(&tag, true, 0x1000), Some(table));
    cache.invalidate_range(&tag, 0x1000, 1, false);
    assert_eq!(cache.table(&tag, true, 0x1000), None);
}

#[test]
fn kinds_are_found_by_their_bits() {
    for (number, privileged) in (0..8).zip([[false; 4], [true; 4]].concat()) {
        let kind = Kind::first_of(!0 << number);
        assert_eq!((kind.number, kind.bit()), (number, 1 << number));
        let of_leaf = Kind::of_leaf(kind.size()).unwrap();
        let known = [of_leaf, TABLE].map(|known| known.of(privileged));
        assert!(
            known
                .iter()
                .any(|known| (known.number, known.shift) == (number, kind.shift))
        );
        assert_eq!(kind.bit() & TABLES != 0, number & 3 == TABLE.number);
    }
}

#[test]
fn neighbours_share_a_segment_and_two_a_set() {
    let cache = TranslationCache::default();
    let place = |kind: Kind, address| cache.place_of(kind.key(address), place_bits(3));
    for kind in LEAVES {
        let first = (kind.size() << NEIGHBOURS) * 7;
        let pages = (0..1 << NEIGHBOURS).map(|page| place(kind, first + page * kind.size()));
        let places: Vec<_> = pages.collect();
        assert!(places.iter().all(|(segment, _)| *segment == places[0].0));
        let mut sets: Vec<_> = places.iter().map(|(_, set)| *set).collect();
        sets.sort_unstable();
        let twice = (0..SEGMENT).flat_map(|set| [set, set]);
        assert!(sets.into_iter().eq(twice), "{kind:?}");
    }
    let [small, ..] = LEAVES;
    let table = small.size() << NEIGHBOURS;
    assert_eq!(place(TABLE, table * 7), place(small, table * 7));
}

#[test]
fn tables_fall_apart() {
    let cache = TranslationCache::default();
    let mut used = vec![0_u32; SEGMENTS];
    for table in 0..10 * SEGMENTS as u64 {
        let address = table << TABLE.shift;
        let (segment, _) = cache.place_of(LEAVES[0].key(address), place_bits(3));
        used[segment] += 1;
    }
    assert!(used.iter().all(|count| *count < 40), "{used:?}");
}

#[test]
fn a_range_at_the_end_of_the_address_space_wraps_without_harm() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let last = u64::MAX - 0xfff;
    cache.fill(&tag, tag.ticket(), false, last, leaf(0x5000, 1 << 12));
    cache.invalidate_range(&tag, last, 1, false);
    assert_eq!(cached(&cache, &tag, last), None);
    cache.invalidate_range(&tag, last, 512, false);
}

#[test]
fn tables_are_kept_until_more_than_leaves_is_named() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let table = LastTable::with_entry(0x9ff8, Rights::ALL.with_write(false));
    let fill = || cache.fill_table(&tag, tag.ticket(), false, 0x41_2000, table);
    fill();
    assert_eq!(cache.table(&tag, false, 0x5f_f000), Some(table));
    assert_eq!(cache.table(&tag, false, 0x60_0000), None);
    assert_eq!(cached(&cache, &tag, 0x41_2000), None);
    cache.invalidate_range(&tag, 0x41_2000, 1, true);
    assert_eq!(cache.table(&tag, false, 0x40_0000), Some(table));
    cache.invalidate_range(&tag, 0x41_3000, 1, false);
    assert_eq!(cache.table(&tag, false, 0x40_0000), None);
    fill();
    cache.invalidate_all(&tag);
    assert_eq!(cache.table(&tag, false, 0x40_0000), None);
    let late = tag.ticket();
    cache.invalidate_range(&tag, 0, 1, true);
    cache.fill_table(&tag, late, false, 0x41_2000, table);
    assert_eq!(cache.table(&tag, false, 0x40_0000), None);
}

#[test]
fn a_retired_tag_has_nothing_and_gets_nothing() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let link = tag.link().unwrap();
    let found = |link| {
        let hit = cache.get_by(link, 0x1008)?;
        Some(hit.address(0x1008))
    };
    cache.fill(&tag, tag.ticket(), false, 0x1000, leaf(0x5000, 1 << 12));
    assert_eq!(found(link), Some(0x5008));
    assert!(!tag.is_dead());
    tag.retire();
    assert!(tag.is_dead());
    assert_eq!((found(link), cached(&cache, &tag, 0x1000)), (None, None));
    cache.fill(&tag, tag.ticket(), false, 0x1000, leaf(0x5000, 1 << 12));
    assert_eq!((found(link), cached(&cache, &tag, 0x1000)), (None, None));
}

#[test]
fn the_place_of_a_tag_that_is_gone_has_none_of_its_entries() {
    // Under Miri the table takes seconds to be gone through.
    const ROUNDS: u32 = if cfg!(miri) { 3 } else { 1000 };
    let cache = TranslationCache::default();
    for round in 0..ROUNDS {
        let tag = cache.new_tag();
        let link = tag.link().unwrap();
        assert_eq!(cached(&cache, &tag, 0x1000), None, "{round}");
        cache.fill(&tag, tag.ticket(), false, 0x1000, leaf(0x5000, 1 << 12));
        assert_eq!(cached(&cache, &tag, 0x1000), Some(0x5000));
        drop(tag);
        assert!(cache.get_by(link, 0x1000).is_none());
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many cases")]
fn more_tags_than_there_are_places_do_without_entries() {
    let cache = TranslationCache::default();
    let tags: Vec<_> = (0..=u16::MAX).map(|_| cache.new_tag()).collect();
    let last = tags.last().unwrap();
    assert_eq!(last.link(), None);
    cache.fill(last, last.ticket(), false, 0x1000, leaf(0x5000, 1 << 12));
    assert_eq!(cached(&cache, last, 0x1000), None);
    let first = tags.first().unwrap();
    cache.fill(first, first.ticket(), false, 0x1000, leaf(0x5000, 1 << 12));
    assert_eq!(cached(&cache, first, 0x1000), Some(0x5000));
}

#[test]
fn what_is_packed_comes_out_again() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    for bits in 0..256_u32 {
        let flag = |bit: u32| bits & (1 << bit) != 0;
        let packed = Leaf::new(
            Translation {
                address: 0x000f_ffff_ffe0_0000,
                page_size: 1 << 21,
                permissions: Permissions::new()
                    .with_read(flag(0))
                    .with_write(flag(1))
                    .with_execute(flag(2))
                    .with_privileged(flag(3))
                    .with_global(flag(4))
                    .with_untranslated(flag(5)),
            },
            flag(6),
            flag(7),
        );
        let address = u64::from(bits) << 21;
        cache.fill(&tag, tag.ticket(), false, address, packed);
        assert_eq!(cache.get(&tag, false, address), Some(packed));
    }
}

/// Entries take 25.6 bytes each; with loom there is one.
#[cfg(not(loom))]
const _: () = {
    assert!(TranslationCache::BYTES / TranslationCache::CAPACITY <= 32);
    assert!(TranslationCache::BYTES == 4 << 20);
};

/// Names of entries: the kinds of one address, and neighbours of one kind, are told apart.
#[test]
#[cfg_attr(miri, ignore = "too many cases")]
fn keys_have_their_page_and_kind() {
    let kinds = [LEAVES[0], LEAVES[1], LEAVES[2], TABLE];
    let kinds: Vec<Kind> = kinds
        .into_iter()
        .flat_map(|kind| [kind.of(false), kind.of(true)])
        .collect();
    for (index, kind) in kinds.iter().enumerate() {
        // Every choice of kinds beside it that come later in the set.
        for others in 0..0x100_u64 {
            let first = Kind::first_of(kind.bit() | others & !(kind.bit() * 2 - 1));
            assert_eq!((first.number, first.shift), (kind.number, kind.shift));
        }
        for address in (0..64).flat_map(|bit| [1_u64 << bit, !(1 << bit), (1 << bit) - 1]) {
            let key = kind.key(address);
            assert_ne!(key, 0);
            assert_eq!(key >> 4, address >> kind.shift);
            assert_eq!(key, kind.key(page_start(address, kind.size())));
            assert_eq!(key, kind.key(address | (kind.size() - 1)));
            let last = page_start(address, kind.size()).wrapping_sub(1);
            assert_ne!(key, kind.key(last), "{address:#x}");
            for other in &kinds[..index] {
                assert_ne!(key, other.key(address));
            }
        }
    }
}

/// All tags that there can be: each leads to itself, and one beyond them has no entries and no link.
#[test]
#[cfg_attr(miri, ignore = "too many cases")]
fn every_place_has_a_tag() {
    let cache = TranslationCache::default();
    let tags: Vec<Tag> = (0..0xffff_u64)
        .map(|number| cache.new_tag_with([number, 0, 0]))
        .collect();
    for (number, tag) in tags.iter().enumerate() {
        let link = tag.link().unwrap();
        assert!(link.bits() != 0 && link.bits() >> 48 == 0);
        assert_eq!(Link::from_bits(link.bits()), Some(link));
        let owner = cache.owner(link).unwrap();
        assert_eq!(owner.note(), Some([number as u64, 0, 0]));
    }
    let beyond = cache.new_tag();
    assert_eq!(beyond.link(), None);
    cache.fill(
        &beyond,
        beyond.ticket(),
        false,
        0x1000,
        leaf(0x5000, 1 << 12),
    );
    assert_eq!(cached(&cache, &beyond, 0x1000), None);
    drop(tags);
    assert!(cache.new_tag().link().is_some());
}
