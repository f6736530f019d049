use super::*;
use crate::cache::translations::TranslationCache;
use crate::translate::stages::Stages;

fn context(cache: &TranslationCache, domain_id: u16) -> Arc<Context> {
    Arc::new(Context {
        source_id: 8,
        translated: Translated {
            domain_id,
            pasid: 0,
            fault_disable: false,
            context_fault_disable: false,
            device_tlb: false,
            supervisor_request: false,
            execute_request: false,
            legacy: false,
            stages: Stages::PassThrough {
                width: 48,
                legacy: false,
            },
        },
        tag: cache.new_tag(),
    })
}

fn key(device: u32, pasid: Option<u32>) -> Key {
    Key { device, pasid }
}

#[test]
fn a_late_fill_is_refused() {
    let translations = TranslationCache::default();
    let cache = ContextCache::default();
    let ticket = cache.ticket();
    cache.forget(|_, _| false);
    cache.fill(key(1, None), ticket, context(&translations, 5));
    assert!(cache.get(key(1, None)).is_none());
    cache.fill(key(1, None), cache.ticket(), context(&translations, 5));
    assert!(cache.get(key(1, None)).is_some());
}

#[test]
fn what_is_named_is_forgotten() {
    let translations = TranslationCache::default();
    let cache = ContextCache::default();
    for (device, pasid, domain_id) in [(1, None, 5), (1, Some(3), 6), (2, None, 6)] {
        let entry = context(&translations, domain_id);
        cache.fill(key(device, pasid), cache.ticket(), entry);
    }
    cache.forget(|key, context| key.device == 1 && context.translated.domain_id == 6);
    let mut left = Vec::new();
    cache.for_each(|context| left.push(context.translated.domain_id));
    left.sort_unstable();
    assert_eq!(left, [5, 6]);
    assert!(cache.get(key(1, Some(3))).is_none());
    cache.clear();
    assert!(cache.get(key(1, None)).is_none() && cache.get(key(2, None)).is_none());
}

#[test]
#[cfg_attr(miri, ignore = "too many cases")]
fn the_cache_is_bounded() {
    let translations = TranslationCache::default();
    let cache = ContextCache::default();
    for pasid in 0..3 * CAPACITY as u32 {
        let entry = context(&translations, 5);
        cache.fill(key(1, Some(pasid)), cache.ticket(), entry);
        assert!(cache.get(key(1, Some(pasid))).is_some());
    }
    let mut count = 0;
    cache.for_each(|_| count += 1);
    assert!(count <= CAPACITY, "{count}");
}

#[test]
fn who_still_has_a_forgotten_context_caches_nothing_under_it() {
    let translations = TranslationCache::default();
    let cache = ContextCache::default();
    let leaf = crate::translate::walk::Leaf::new(
        crate::translate::Translation {
            address: 0x5000,
            page_size: 0x1000,
            permissions: crate::translate::Permissions::ALL,
        },
        true,
        false,
    );
    let forget: [fn(&ContextCache, &TranslationCache); 2] = [
        |cache, _| cache.clear(),
        // Another one in its place.
        |cache, all| cache.fill(key(1, None), cache.ticket(), context(all, 6)),
    ];
    for forget in forget {
        cache.fill(key(1, None), cache.ticket(), context(&translations, 5));
        let held = cache.get(key(1, None)).unwrap();
        let tag = &held.tag;
        let link = tag.link().unwrap();
        translations.fill(tag, tag.ticket(), false, 0x1000, leaf);
        assert!(translations.get_by(link, 0x1000).is_some());
        forget(&cache, &translations);
        assert!(translations.get_by(link, 0x1000).is_none());
        translations.fill(tag, tag.ticket(), false, 0x1000, leaf);
        assert!(translations.get_by(link, 0x1000).is_none());
    }
}

#[test]
fn a_domain_and_a_pasid_of_it_are_found() {
    let translations = TranslationCache::default();
    let cache = ContextCache::default();
    for (device, domain_id) in [(1, 5), (2, 5), (3, 6), (4, u16::MAX)] {
        let entry = context(&translations, domain_id);
        cache.fill(key(device, None), cache.ticket(), entry);
    }
    let count = |domain_id, pasid| {
        let mut count = 0;
        match pasid {
            Some(pasid) => count = cache.named(domain_id, pasid).len(),
            None => cache.for_each_of(domain_id, |_| count += 1),
        }
        count
    };
    assert_eq!(count(5, None), 2);
    assert_eq!(count(5, Some(0)), 2);
    assert_eq!(count(5, Some(1)), 0);
    assert_eq!(count(u16::MAX, None), 1);
    // In another domain now.
    cache.fill(key(1, None), cache.ticket(), context(&translations, 6));
    assert_eq!((count(5, None), count(6, None)), (1, 2));
    cache.clear();
    assert_eq!(count(6, None), 0);
}
