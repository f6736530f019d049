use super::*;
use crate::translate::Permissions;

fn leaf(address: u64, page_size: u64) -> Leaf {
    Leaf {
        translation: Translation {
            address,
            page_size,
            permissions: Permissions::ALL,
        },
        dirty: true,
        fractured: false,
    }
}

fn cached(cache: &TranslationCache, tag: &Tag, address: u64) -> Option<u64> {
    cache.get(tag, address).map(|leaf| leaf.translation.address)
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
        cache.fill(&tag, tag.ticket(), page + 0x123, leaf(target + 0x123, size));
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
    cache.fill(&tag, ticket, 0x0, leaf(0x10_0000, 1 << 12));
    cache.fill(&tag, ticket, 0x3000, leaf(0x20_0000, 1 << 12));
    cache.fill(&tag, ticket, 0x20_0000, leaf(0x40_0000, 1 << 21));
    cache.invalidate_range(&tag, 0x1000, 3);
    assert_eq!(cached(&cache, &tag, 0x0), Some(0x10_0000));
    assert_eq!(cached(&cache, &tag, 0x3000), None);
    assert_eq!(cached(&cache, &tag, 0x20_0000), Some(0x40_0000));
    cache.invalidate_range(&tag, 0x3f_f000, 1);
    assert_eq!(cached(&cache, &tag, 0x20_0000), None);
    assert_eq!(cached(&cache, &tag, 0x0), Some(0x10_0000));
}

#[test]
fn forgetting_a_tag_leaves_the_others() {
    let cache = TranslationCache::default();
    let (tag, other) = (cache.new_tag(), cache.new_tag());
    cache.fill(&tag, tag.ticket(), 0x1000, leaf(0x5000, 1 << 12));
    cache.fill(&other, other.ticket(), 0x1000, leaf(0x6000, 1 << 12));
    cache.invalidate_all(&tag);
    assert_eq!(cached(&cache, &tag, 0x1000), None);
    assert_eq!(cached(&cache, &other, 0x1000), Some(0x6000));
    cache.invalidate_range(&other, 0, u64::MAX >> 12);
    assert_eq!(cached(&cache, &other, 0x1000), None);
}

#[test]
fn a_walk_begun_before_an_invalidation_fills_nothing() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let before = tag.ticket();
    cache.invalidate_range(&tag, 0x8000, 1);
    cache.fill(&tag, before, 0x1000, leaf(0x5000, 1 << 12));
    assert_eq!(cached(&cache, &tag, 0x1000), None);
    cache.fill(&tag, tag.ticket(), 0x1000, leaf(0x5000, 1 << 12));
    assert_eq!(cached(&cache, &tag, 0x1000), Some(0x5000));
}

#[test]
fn memory_is_bounded_whatever_is_filled() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    for page in 0..4 * TranslationCache::CAPACITY as u64 {
        cache.fill(&tag, tag.ticket(), page << 12, leaf(page << 12, 1 << 12));
    }
    let pages = 0..4 * TranslationCache::CAPACITY as u64;
    let kept = pages
        .filter(|page| cached(&cache, &tag, page << 12).is_some())
        .count();
    assert!(
        kept <= TranslationCache::CAPACITY && kept > TranslationCache::CAPACITY / 2,
        "{kept}"
    );
}

#[test]
fn a_range_at_the_end_of_the_address_space_wraps_without_harm() {
    let cache = TranslationCache::default();
    let tag = cache.new_tag();
    let last = u64::MAX - 0xfff;
    cache.fill(&tag, tag.ticket(), last, leaf(0x5000, 1 << 12));
    cache.invalidate_range(&tag, last, 1);
    assert_eq!(cached(&cache, &tag, last), None);
    cache.invalidate_range(&tag, last, 512);
}
