//! The translation cache: bounded, sharded, with invalidation by generation.
//!
//! Entries belong to a [`Tag`], one per set of tables (an HWPT, or a PASID's stages). Forgetting all of
//! a tag costs O(1): its generation moves on and older entries no longer match.
//! Forgetting a few pages removes just these. Either way the tag's epoch moves on
//! first, and a walk that began before that can no longer fill the cache.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::spec::PAGE_SIZE;
use crate::translate::walk::Leaf;
use crate::translate::{Access, Fault, Translation};

const SHARDS: usize = 16;
const SETS_PER_SHARD: usize = 64;
const WAYS: usize = 4;

/// Page sizes a leaf can have, smallest first.
const PAGE_SIZES: [u64; 3] = [PAGE_SIZE, PAGE_SIZE << 9, PAGE_SIZE << 18];

/// More pages than this are not looked up one by one: the whole tag is forgotten.
const MAX_PAGES_ONE_BY_ONE: u64 = 512;

/// Identity of a set of tables in the cache.
#[derive(Debug)]
pub struct Tag {
    id: u64,
    generation: AtomicU64,
    epoch: AtomicU64,
    /// Some entry is a part of a larger first-stage page, so that naming one address
    /// of that page names entries elsewhere, too.
    fractured: AtomicBool,
}

/// The state of a tag when a walk began; a fill needs it unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    generation: u64,
    epoch: u64,
}

impl Tag {
    /// What a walk that starts now must show to fill the cache.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            generation: self.generation.load(Ordering::SeqCst),
            epoch: self.epoch.load(Ordering::SeqCst),
        }
    }

    /// Was nothing of this tag invalidated since `ticket`?
    pub fn unchanged_since(&self, ticket: Ticket) -> bool {
        self.ticket() == ticket
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u64,
    generation: u64,
    /// First address of the page.
    page: u64,
    leaf: Leaf,
}

#[derive(Debug, Default)]
struct Set {
    ways: [Option<Entry>; WAYS],
    next: usize,
}

#[derive(Debug)]
struct Shard {
    sets: Vec<Set>,
}

/// A bounded cache of leaves.
#[derive(Debug)]
pub struct TranslationCache {
    shards: Vec<Mutex<Shard>>,
    hasher: std::hash::RandomState,
    next_tag: AtomicU64,
}

impl Default for TranslationCache {
    fn default() -> Self {
        let shard = || {
            let sets = (0..SETS_PER_SHARD).map(|_| Set::default()).collect();
            Mutex::new(Shard { sets })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: std::hash::RandomState::new(),
            next_tag: AtomicU64::new(1),
        }
    }
}

/// First address of the page of `size` bytes around `address`.
fn page_start(address: u64, size: u64) -> u64 {
    address & !size.wrapping_sub(1)
}

impl TranslationCache {
    /// Entries the cache can hold.
    pub const CAPACITY: usize = SHARDS * SETS_PER_SHARD * WAYS;

    /// A tag that no entry has yet.
    pub fn new_tag(&self) -> Tag {
        Tag {
            id: self.next_tag.fetch_add(1, Ordering::Relaxed),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            fractured: AtomicBool::new(false),
        }
    }

    /// Run `work` on the set in which a page's entry would be. The hash is keyed,
    /// so a guest cannot pick addresses that all fall into one set.
    fn with_set<T>(
        &self,
        tag: u64,
        page: u64,
        size: u64,
        work: impl FnOnce(&mut Set) -> T,
    ) -> Option<T> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(tag);
        hasher.write_u64(page | (size >> 12));
        let hash = usize::try_from(hasher.finish() & 0xffff_ffff).unwrap_or(0);
        let shard = self.shards.get(hash % SHARDS)?;
        let mut shard = shard.lock();
        let set = shard.sets.get_mut((hash / SHARDS) % SETS_PER_SHARD)?;
        Some(work(set))
    }

    /// The leaf cached for `address`, if it is still valid.
    pub fn get(&self, tag: &Tag, address: u64) -> Option<Leaf> {
        let generation = tag.generation.load(Ordering::SeqCst);
        PAGE_SIZES.iter().find_map(|&size| {
            let page = page_start(address, size);
            let leaf = self.with_set(tag.id, page, size, |set| {
                let found = set.ways.iter().flatten().find(|entry| {
                    entry.tag == tag.id
                        && entry.page == page
                        && entry.leaf.translation.page_size == size
                        && entry.generation == generation
                });
                found.map(|entry| entry.leaf)
            })??;
            let translation = leaf.translation;
            let offset = address.wrapping_sub(page);
            Some(Leaf {
                translation: Translation {
                    address: translation.address.wrapping_add(offset),
                    ..translation
                },
                ..leaf
            })
        })
    }

    /// Remember `leaf` for the page around `address`, unless something of the tag
    /// was invalidated since `ticket` was taken.
    pub fn fill(&self, tag: &Tag, ticket: Ticket, address: u64, leaf: Leaf) {
        let size = leaf.translation.page_size;
        let page = page_start(address, size);
        let base = page_start(leaf.translation.address, size);
        let entry = Entry {
            tag: tag.id,
            generation: ticket.generation,
            page,
            leaf: Leaf {
                translation: Translation {
                    address: base,
                    ..leaf.translation
                },
                ..leaf
            },
        };
        if leaf.fractured {
            // Before the epoch is looked at, so that whoever moves it on sees it.
            tag.fractured.store(true, Ordering::SeqCst);
        }
        self.with_set(tag.id, page, size, |set| {
            // Under the set's lock: an invalidation moves the epoch on before it
            // takes this lock, so it either is seen here or removes the entry.
            if !tag.unchanged_since(ticket) {
                return;
            }
            let same = set.ways.iter().position(|way| {
                way.is_some_and(|old| {
                    old.tag == entry.tag
                        && old.page == page
                        && old.leaf.translation.page_size == size
                })
            });
            let index = same.unwrap_or(set.next);
            if let Some(way) = set.ways.get_mut(index) {
                *way = Some(entry);
            }
            if same.is_none() {
                set.next = set.next.wrapping_add(1) % WAYS;
            }
        });
    }

    /// Forget everything of `tag`.
    pub fn invalidate_all(&self, tag: &Tag) {
        tag.epoch.fetch_add(1, Ordering::SeqCst);
        tag.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Forget `pages` pages of 4 KiB from `address` on.
    pub fn invalidate_range(&self, tag: &Tag, address: u64, pages: u64) {
        if pages > MAX_PAGES_ONE_BY_ONE {
            self.invalidate_all(tag);
            return;
        }
        tag.epoch.fetch_add(1, Ordering::SeqCst);
        if tag.fractured.load(Ordering::SeqCst) {
            self.invalidate_all(tag);
            return;
        }
        let start = page_start(address, PAGE_SIZE);
        let bytes = pages.wrapping_mul(PAGE_SIZE);
        for size in PAGE_SIZES {
            let mut page = page_start(start, size);
            let mut covered = page.wrapping_sub(start).wrapping_add(size);
            loop {
                self.remove(tag, page, size);
                if covered >= bytes {
                    break;
                }
                page = page.wrapping_add(size);
                covered = covered.wrapping_add(size);
            }
        }
    }

    fn remove(&self, tag: &Tag, page: u64, size: u64) {
        self.with_set(tag.id, page, size, |set| {
            for way in &mut set.ways {
                let hit = way.is_some_and(|entry| {
                    entry.tag == tag.id
                        && entry.page == page
                        && entry.leaf.translation.page_size == size
                });
                if hit {
                    *way = None;
                }
            }
        });
    }
}

/// The oracle: does a fresh `walk` contradict the cached translation that serves
/// `access`? Permissions may have grown since: that needs no invalidation.
pub fn contradicted(
    cached: &Translation,
    access: Access,
    walk: impl FnOnce(Access) -> Result<Leaf, Fault>,
) -> bool {
    let look = Access {
        look: true,
        ..access
    };
    walk(look).map_or(true, |fresh| {
        let fresh = fresh.translation;
        cached.address != fresh.address
            || (access.read && !fresh.permissions.read)
            || (access.write && !fresh.permissions.write)
    })
}

#[cfg(test)]
mod tests;
