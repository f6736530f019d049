//! Every order of what threads do to the cache, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test --lib cache::orders`.
//!
//! The cache has one set with one entry here, so that everything meets in it.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::translations::{Owner, Tag, TranslationCache};
use crate::translate::walk::Leaf;
use crate::translate::{Permissions, Translation};

const PAGE: u64 = 0x5000;
const OLD: u64 = 0x1000;
const NEW: u64 = 0x2000;

fn leaf(address: u64) -> Leaf {
    Leaf::new(
        Translation {
            address,
            page_size: 0x1000,
            permissions: Permissions::ALL,
        },
        true,
        false,
    )
}

struct World {
    cache: TranslationCache,
    tag: Tag,
    /// What the guest's tables say of the page.
    table: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let cache = TranslationCache::default();
        let tag = cache.new_tag();
        Arc::new(Self {
            cache,
            tag,
            table: AtomicU64::new(OLD),
        })
    }

    /// A request that misses.
    fn walk(&self) {
        let ticket = self.tag.ticket();
        let found = self.table.load(Ordering::Acquire);
        self.cache.fill(&self.tag, ticket, false, PAGE, leaf(found));
    }

    fn cached(&self) -> Option<u64> {
        let found = self.cache.get(&self.tag, false, PAGE)?;
        Some(found.address())
    }
}

/// Requests miss while the guest moves the page and invalidates it.
fn moved(invalidate: fn(&World)) {
    loom::model(move || {
        let world = World::new();
        let walker = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.walk())
        };
        world.table.store(NEW, Ordering::Release);
        invalidate(&world);
        assert_ne!(world.cached(), Some(OLD), "after the invalidation");
        walker.join().unwrap();
        assert_ne!(world.cached(), Some(OLD), "after the walk");
    });
}

#[test]
fn pages_that_are_forgotten_stay_so() {
    moved(|world| {
        let _looked_at = world.cache.invalidate_range(&world.tag, PAGE, 1, true);
    });
}

#[test]
fn tags_that_are_forgotten_stay_so() {
    moved(|world| world.cache.invalidate_all(&world.tag));
}

#[test]
fn tags_that_are_retired_stay_so() {
    moved(|world| world.tag.retire());
}

/// What was there before is found, or nothing, and never after.
#[test]
fn an_entry_that_was_there_is_gone() {
    loom::model(|| {
        let world = World::new();
        world.walk();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let found = world.cached();
                assert!(found.is_none_or(|found| found == OLD));
            })
        };
        world.cache.invalidate_range(&world.tag, PAGE, 1, true);
        assert_eq!(world.cached(), None);
        reader.join().unwrap();
    });
}

/// Readers never get a page's answer for another.
#[test]
fn entries_are_read_as_a_whole() {
    loom::model(|| {
        let world = World::new();
        let fill = |world: &World, page: u64| {
            let ticket = world.tag.ticket();
            let found = leaf(page + 0x10_0000);
            world.cache.fill(&world.tag, ticket, false, page, found);
        };
        fill(&world, PAGE);
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                for page in [PAGE + 0x1000, PAGE] {
                    let found = world.cache.get(&world.tag, false, page);
                    let expected = page + 0x10_0000;
                    assert!(found.is_none_or(|found| found.address() == expected));
                }
            })
        };
        fill(&world, PAGE + 0x1000);
        reader.join().unwrap();
    });
}

/// Who has an old link gets the note of the tag that it was made of, or none: never that of the tag that
/// has the place now, nor a part of it.
#[test]
fn notes_are_those_of_their_tag() {
    loom::model(|| {
        let cache = Arc::new(TranslationCache::default());
        let tag = cache.new_tag_with([1; 3]);
        let link = tag.link().unwrap();
        let reader = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                let note = cache.owner(link).and_then(Owner::note);
                assert!(note.is_none_or(|note| note == [1; 3]), "{note:?}");
            })
        };
        drop(tag);
        let next = cache.new_tag_with([2; 3]);
        let found = next.owner().and_then(Owner::note);
        assert_eq!(found, Some([2; 3]));
        assert_eq!(cache.owner(link).and_then(Owner::note), None);
        reader.join().unwrap();
    });
}
