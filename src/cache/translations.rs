//! The translation cache: bounded, read without locks, with invalidation by generation.
//!
//! Entries belong to a [`Tag`], one per set of tables (an HWPT, or a PASID's stages). Forgetting all of
//! a tag costs O(1): its stamp moves on and older entries no longer match.
//! Forgetting a few pages removes just these. Either way the tag's epoch moves on
//! first, and a walk that began before that can no longer fill the cache.
//!
//! Beside leaves there are tables of 4 KiB pages that were found ([`LastTable`]): the paging-structure cache (6.2.4),
//! which makes a walk one of a single entry.

use std::sync::{Arc, OnceLock};

use super::secret::Secret;
use super::sets::{Name, PLACE, Set, WAYS};
pub use super::tags::{Link, Tag, Ticket};
use super::tags::{Place, State, Tags, kinds};
use crate::spec::PAGE_SIZE;
use crate::translate::walk::{LastTable, Leaf, Rights};
use crate::translate::{Access, Fault, Permissions, Translation};

/// Sets in one piece of the cache, and pieces.
const SEGMENT: usize = if cfg!(loom) { 1 } else { 128 };
const SEGMENTS: usize = if cfg!(loom) { 1 } else { 256 };

/// Page sizes a leaf can have, smallest first; their kinds are their numbers.
const PAGE_SIZES: [u64; 3] = [PAGE_SIZE, PAGE_SIZE << 9, PAGE_SIZE << 18];

/// The kind of a table of 4 KiB pages, and the size of what it translates.
const TABLE: u64 = 3;
const TABLE_REACH: u64 = PAGE_SIZE << 9;

/// More pages than this are not looked up one by one: the whole tag is forgotten.
const MAX_PAGES_ONE_BY_ONE: u64 = 512;

/// Addresses that an entry leads to have at most this many bits.
const TARGET_BITS: u32 = 52;

/// A bounded cache of leaves. Its memory comes as it is used, in pieces of 16 KiB.
pub struct TranslationCache {
    segments: [OnceLock<Box<[Set]>>; SEGMENTS],
    secret: Secret,
    tags: Arc<Tags>,
}

impl core::fmt::Debug for TranslationCache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TranslationCache").finish_non_exhaustive()
    }
}

impl Default for TranslationCache {
    fn default() -> Self {
        Self {
            segments: [const { OnceLock::new() }; SEGMENTS],
            secret: Secret::default(),
            tags: Arc::default(),
        }
    }
}

/// First address of the page of `size` bytes around `address`.
#[inline]
fn page_start(address: u64, size: u64) -> u64 {
    address & !size.wrapping_sub(1)
}

/// The page of this kind and size around an address, as entries are named.
#[inline]
fn key_of(address: u64, kind: u64, size: u64) -> u64 {
    (page_start(address, size) >> 12 << 3) | 4 | kind
}

/// A tag's place as values have it.
#[inline]
fn place_bits(place: Place) -> u64 {
    u64::from(place) << PLACE.trailing_zeros()
}

impl TranslationCache {
    /// Entries the cache can hold.
    pub const CAPACITY: usize = SEGMENTS * SEGMENT * WAYS;

    /// Bytes it takes at most.
    pub const BYTES: usize = SEGMENTS * SEGMENT * size_of::<Set>();

    /// A tag that no entry has yet.
    pub fn new_tag(&self) -> Tag {
        self.tags.new_tag()
    }

    /// Segment and number of the set of a name.
    #[inline]
    fn place_of(&self, key: u64, place: u64) -> (usize, usize) {
        let hash = self.secret.mix(key.rotate_left(20) ^ place, key);
        let set = (hash >> 32) as usize % (SEGMENTS * SEGMENT);
        (set / SEGMENT, set % SEGMENT)
    }

    /// The set of a name, if there are any entries near.
    #[inline]
    fn set(&self, key: u64, place: u64) -> Option<&Set> {
        let (segment, set) = self.place_of(key, place);
        self.segments.get(segment)?.get()?.get(set)
    }

    /// The set of a name, for writing.
    fn set_for_writing(&self, key: u64, place: u64) -> Option<&Set> {
        let (segment, set) = self.place_of(key, place);
        let segment = self.segments.get(segment)?;
        segment
            .get_or_init(|| (0..SEGMENT).map(|_| Set::default()).collect())
            .get(set)
    }

    #[inline(always)]
    fn find(&self, place: Place, stamp: u64, key: u64) -> Option<u64> {
        let place = place_bits(place);
        self.set(key, place)?.find(Name { key, stamp, place })
    }

    #[inline(always)]
    fn hit(&self, place: Place, state: &State, stamp: u64, address: u64) -> Option<Hit> {
        let present = state.kinds();
        for (&page_size, kind) in PAGE_SIZES.iter().zip(0_u64..) {
            if present & (kinds::LEAF << kind) != 0 {
                let key = key_of(address, kind, page_size);
                if let Some(value) = self.find(place, stamp, key) {
                    return Some(Hit { value, page_size });
                }
            }
        }
        None
    }

    /// The leaf cached for `address`, if it is still valid.
    pub fn get(&self, tag: &Tag, address: u64) -> Option<Leaf> {
        let stamp = tag.ticket().stamp?;
        let hit = self.hit(tag.place(), tag.state()?, stamp, address)?;
        Some(hit.leaf(address))
    }

    /// The same for a tag that is known by its link.
    #[inline(always)]
    pub fn get_by(&self, link: Link, address: u64) -> Option<Hit> {
        let (place, state, stamp) = self.tags.follow(link)?;
        self.hit(place, state, stamp, address)
    }

    /// Remember `leaf` for the page around `address`, unless something of the tag
    /// was invalidated since `ticket` was taken.
    pub fn fill(&self, tag: &Tag, ticket: Ticket, address: u64, leaf: Leaf) {
        let size = leaf.translation.page_size;
        let Some((_, kind)) = PAGE_SIZES.iter().zip(0_u64..).find(|(of, _)| **of == size) else {
            return;
        };
        let fractured = if leaf.fractured { kinds::FRACTURED } else { 0 };
        let found = page_start(leaf.translation.address, size);
        self.put(
            tag,
            ticket,
            (
                key_of(address, kind, size),
                (kinds::LEAF << kind) | fractured,
            ),
            (found, flags_of(&leaf)),
        );
    }

    /// The table of 4 KiB pages for `address`, if one is cached.
    pub fn table(&self, tag: &Tag, address: u64) -> Option<LastTable> {
        if tag.state()?.kinds() & kinds::TABLE == 0 {
            return None;
        }
        let key = key_of(address, TABLE, TABLE_REACH);
        let value = self.find(tag.place(), tag.ticket().stamp?, key)?;
        Some(LastTable {
            address: target(value),
            rights: Rights {
                read: value & 1 != 0,
                write: value & 2 != 0,
                execute: value & 4 != 0,
                user: value & 8 != 0,
            },
        })
    }

    /// Remember the table that has the entry of the 4 KiB page at `address`, as [`Self::fill`] does.
    pub fn fill_table(&self, tag: &Tag, ticket: Ticket, address: u64, table: LastTable) {
        let LastTable {
            address: found,
            rights,
        } = table;
        let flags = u64::from(rights.read)
            | (u64::from(rights.write) << 1)
            | (u64::from(rights.execute) << 2)
            | (u64::from(rights.user) << 3);
        let key = key_of(address, TABLE, TABLE_REACH);
        self.put(tag, ticket, (key, kinds::TABLE), (found, flags));
    }

    fn put(&self, tag: &Tag, ticket: Ticket, (key, kind): (u64, u64), (found, flags): (u64, u64)) {
        let (Some(state), Some(stamp)) = (tag.state(), ticket.stamp) else {
            return;
        };
        if found >> TARGET_BITS != 0 {
            return;
        }
        state.add_kind(kind);
        let place = place_bits(tag.place());
        let value = (found >> 12 << 24) | place | flags;
        if let Some(set) = self.set_for_writing(key, place) {
            set.fill(Name { key, stamp, place }, value, || {
                tag.unchanged_since(ticket)
            });
        }
    }

    /// Forget everything of `tag`.
    pub fn invalidate_all(&self, tag: &Tag) {
        if let Some(state) = tag.state() {
            state.move_epoch();
            state.move_stamp();
        }
    }

    /// Forget `pages` pages of 4 KiB from `address` on, and unless `leaf_only` the tables
    /// that lead to them.
    pub fn invalidate_range(&self, tag: &Tag, address: u64, pages: u64, leaf_only: bool) {
        let Some(state) = tag.state() else {
            return;
        };
        state.move_epoch();
        let present = state.kinds();
        if pages > MAX_PAGES_ONE_BY_ONE || present & kinds::FRACTURED != 0 {
            state.move_stamp();
            return;
        }
        let bytes = pages.wrapping_mul(PAGE_SIZE);
        for (&size, kind) in PAGE_SIZES.iter().zip(0..) {
            if present & (kinds::LEAF << kind) != 0 {
                self.remove(tag, kind, size, (address, bytes));
            }
        }
        if !leaf_only && present & kinds::TABLE != 0 {
            self.remove(tag, TABLE, TABLE_REACH, (address, bytes));
        }
    }

    /// Take out the entries of a kind, for `size` bytes each, that have to do with a range.
    fn remove(&self, tag: &Tag, kind: u64, size: u64, (address, bytes): (u64, u64)) {
        let place = place_bits(tag.place());
        let start = page_start(address, PAGE_SIZE);
        let mut page = page_start(start, size);
        let mut covered = page.wrapping_sub(start).wrapping_add(size);
        loop {
            let key = key_of(page, kind, size);
            if let Some(set) = self.set(key, place) {
                set.remove(key, place);
            }
            if covered >= bytes {
                break;
            }
            page = page.wrapping_add(size);
            covered = covered.wrapping_add(size);
        }
    }
}

/// An entry that was found, as it was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    value: u64,
    page_size: u64,
}

impl Hit {
    #[inline]
    fn flag(self, bit: u32) -> bool {
        self.value & (1 << bit) != 0
    }

    /// Bytes of the page.
    #[inline]
    pub fn page_size(self) -> u64 {
        self.page_size
    }

    /// Where an address of the page goes.
    #[inline]
    pub fn address(self, address: u64) -> u64 {
        target(self.value) | (address & self.page_size.wrapping_sub(1))
    }

    /// What may be done with the page.
    #[inline]
    pub fn permissions(self) -> Permissions {
        Permissions {
            read: self.flag(0),
            write: self.flag(1),
            execute: self.flag(2),
            privileged: self.flag(3),
            global: self.flag(4),
            untranslated: self.flag(5),
        }
    }

    /// The leaf's dirty bit is set.
    #[inline]
    pub fn is_dirty(self) -> bool {
        self.flag(6)
    }

    /// The leaf, as it answers for an address.
    pub fn leaf(self, address: u64) -> Leaf {
        Leaf {
            translation: Translation {
                address: self.address(address),
                page_size: self.page_size,
                permissions: self.permissions(),
            },
            dirty: self.is_dirty(),
            fractured: self.flag(7),
        }
    }
}

/// The address that a value leads to.
#[inline]
fn target(value: u64) -> u64 {
    value >> 24 << 12
}

/// What a leaf says beside its address, in 8 bits.
fn flags_of(leaf: &Leaf) -> u64 {
    let permissions = leaf.translation.permissions;
    [
        permissions.read,
        permissions.write,
        permissions.execute,
        permissions.privileged,
        permissions.global,
        permissions.untranslated,
        leaf.dirty,
        leaf.fractured,
    ]
    .into_iter()
    .rev()
    .fold(0, |bits, flag| (bits << 1) | u64::from(flag))
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
