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
pub use super::tags::{Link, Note, Owner, Tag, Ticket};
use super::tags::{Place, Tags, kinds};
use crate::spec::PAGE_SIZE;
use crate::translate::walk::{LastTable, Leaf, LeafFlags, Rights};
use crate::translate::{Access, Fault, Permissions, Translation};

/// Sets in one piece of the cache, and pieces.
const SEGMENT: usize = if cfg!(loom) { 1 } else { 256 };
const SEGMENTS: usize = if cfg!(loom) { 1 } else { 128 };

/// Pages of the same size that are in one piece of the cache, as bits of their number: as many as one table has
/// entries. Of them two are in one set.
const NEIGHBOURS: u32 = 9;

/// A kind of entries: a page size, or [`TABLE`].
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// 0 to 3, and 4 more for privileged requests: they are permitted other things.
    number: u64,
    /// Log2 of the bytes that one entry is for.
    shift: u32,
}

impl Kind {
    const fn new(number: u64, shift: u32) -> Self {
        Self { number, shift }
    }

    /// Leaves of this page size.
    fn of_leaf(page_size: u64) -> Option<Self> {
        LEAVES.into_iter().find(|kind| kind.size() == page_size)
    }

    /// The first kind of a set that is not empty.
    #[inline]
    fn first_of(kinds: u64) -> Self {
        let number = u64::from(kinds.trailing_zeros()) & 7;
        Self::new(
            number,
            match number & 3 {
                0 => 12,
                2 => 30,
                _ => 21,
            },
        )
    }

    #[inline]
    const fn of(self, privileged: bool) -> Self {
        Self::new(self.number | (privileged as u64) << 2, self.shift)
    }

    #[inline]
    fn size(self) -> u64 {
        1 << self.shift
    }

    /// In the set of kinds that a tag has.
    #[inline]
    fn bit(self) -> u64 {
        kinds::FIRST << self.number
    }

    /// What entries for an address are found by: the number of the page, and the kind.
    #[inline]
    fn key(self, address: u64) -> u64 {
        (address >> self.shift << 4) | 8 | self.number
    }
}

/// Leaves, smallest page first.
const LEAVES: [Kind; 3] = [Kind::new(0, 12), Kind::new(1, 21), Kind::new(2, 30)];

/// A table of 4 KiB pages.
const TABLE: Kind = Kind::new(3, 21);

/// Bits of all kinds, and of those that are tables.
const ALL: u64 = 0xff;
const TABLES: u64 = 0x88;

/// More pages than this are not looked up one by one: the whole tag is forgotten.
const MAX_PAGES_ONE_BY_ONE: u64 = 512;

/// Addresses that an entry leads to have at most this many bits.
const TARGET_BITS: u32 = 52;

/// A bounded cache of leaves. Its memory comes as it is used, in pieces of 32 KiB.
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
        self.new_tag_with(Note::default())
    }

    /// The same, to find a note by it.
    pub fn new_tag_with(&self, note: Note) -> Tag {
        self.tags.new_tag(note)
    }

    /// Whose entries a link leads to. The owner may have died meanwhile.
    #[inline]
    pub fn owner(&self, link: Link) -> Option<Owner<'_>> {
        self.tags.owner(link)
    }

    /// Segment and number of the set of a name. Pages that one table can have are together in a segment, and so is the
    /// table: whoever uses one page is likely to use the next, and then finds the processor's caches warm.
    #[inline]
    fn place_of(&self, key: u64, place: u64) -> (usize, usize) {
        let (number, kind) = (key >> 4, key & 3);
        let (table, level, page) = if kind == TABLE.number {
            (number, 0, 0)
        } else {
            let pages = (1_u64 << NEIGHBOURS).wrapping_sub(1);
            (number >> NEIGHBOURS, kind, number & pages)
        };
        let table = table << 2 | level;
        let hash = self.secret.mix(table.rotate_left(20) ^ place, table);
        let set = (hash ^ page >> 1) as usize % SEGMENT;
        ((hash >> 32) as usize % SEGMENTS, set)
    }

    /// The set of a name, if there are any entries near. Without optimisation it stays a function of its own, by whose name helgrind is
    /// told what it reads.
    #[cfg_attr(not(debug_assertions), inline(always))]
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
    fn hit(&self, owner: Owner<'_>, privileged: bool, address: u64) -> Option<Hit> {
        let (place, stamp) = (owner.place(), owner.stamp()?.get());
        let present = owner.state().kinds();
        // One by one, so that each is compiled for its size.
        let [small, large, huge] = LEAVES.map(|leaf| leaf.of(privileged));
        let mut found = None;
        if present & small.bit() != 0 {
            found = self.find_leaf(place, stamp, small, address);
        }
        if found.is_none() && present & large.bit() != 0 {
            found = self.find_leaf(place, stamp, large, address);
        }
        if found.is_none() && present & huge.bit() != 0 {
            found = self.find_leaf(place, stamp, huge, address);
        }
        found
    }

    #[inline(always)]
    fn find_leaf(&self, place: Place, stamp: u64, kind: Kind, address: u64) -> Option<Hit> {
        let value = self.find(place, stamp, kind.key(address))?;
        let page_size = kind.size();
        Some(Hit { value, page_size })
    }

    /// The leaf cached for `address` and requests that are `privileged` or not, if it is still valid.
    pub fn get<'a>(
        &self,
        owner: impl Into<Option<Owner<'a>>>,
        privileged: bool,
        address: u64,
    ) -> Option<Leaf> {
        let hit = self.hit(owner.into()?, privileged, address)?;
        Some(hit.leaf(address))
    }

    /// The same for requests that are not privileged, and a tag that is known by its link.
    #[inline(always)]
    pub fn get_by(&self, link: Link, address: u64) -> Option<Hit> {
        self.hit(self.owner(link)?, false, address)
    }

    /// Remember `leaf` for the page around `address`, unless something of the tag, which is the owner or has one,
    /// was invalidated since `ticket` was taken.
    pub fn fill<'a>(
        &self,
        owner: impl Into<Option<Owner<'a>>>,
        ticket: Ticket,
        privileged: bool,
        address: u64,
        leaf: Leaf,
    ) {
        let size = leaf.page_size();
        let Some(kind) = Kind::of_leaf(size) else {
            return;
        };
        let kind = kind.of(privileged);
        let fractured = if leaf.flags().fractured() {
            kinds::FRACTURED
        } else {
            0
        };
        let found = page_start(leaf.address(), size);
        self.put(
            owner.into(),
            ticket,
            (kind.key(address), kind.bit() | fractured),
            (found, leaf.flags().into_bits().into()),
        );
    }

    /// The table of 4 KiB pages for `address` and such requests, if one is cached.
    pub fn table<'a>(
        &self,
        owner: impl Into<Option<Owner<'a>>>,
        privileged: bool,
        address: u64,
    ) -> Option<LastTable> {
        let (owner, kind) = (owner.into()?, TABLE.of(privileged));
        if owner.state().kinds() & kind.bit() == 0 {
            return None;
        }
        let value = self.find(owner.place(), owner.stamp()?.get(), kind.key(address))?;
        let rights = Rights::from_bits((value & 0xff) as u8);
        Some(LastTable::with_entry(target(value), rights))
    }

    /// Remember the table that has the entry of the 4 KiB page at `address`, as [`Self::fill`] does.
    pub fn fill_table<'a>(
        &self,
        owner: impl Into<Option<Owner<'a>>>,
        ticket: Ticket,
        privileged: bool,
        address: u64,
        table: LastTable,
    ) {
        let (found, flags) = (table.address(), table.rights().into_bits().into());
        let kind = TABLE.of(privileged);
        self.put(
            owner.into(),
            ticket,
            (kind.key(address), kind.bit()),
            (found, flags),
        );
    }

    fn put(
        &self,
        owner: Option<Owner<'_>>,
        ticket: Ticket,
        (key, kinds): (u64, u64),
        (found, flags): (u64, u64),
    ) {
        let (Some(owner), Some(stamp)) = (owner, ticket.stamp) else {
            return;
        };
        let stamp = stamp.get();
        if found >> TARGET_BITS != 0 {
            return;
        }
        owner.state().add_kinds(kinds);
        let place = place_bits(owner.place());
        let value = (found >> 12 << 24) | place | flags;
        if let Some(set) = self.set_for_writing(key, place) {
            set.fill(Name { key, stamp, place }, value, || {
                owner.unchanged_since(ticket)
            });
        }
    }

    /// Forget everything of `tag`.
    pub fn invalidate_all(&self, tag: &Tag) {
        if let Some(owner) = tag.owner() {
            owner.state().move_epoch();
            owner.state().move_stamp();
        }
    }

    /// Forget `pages` pages of 4 KiB from `address` on, and unless `leaf_only` the tables
    /// that lead to them. Gives how many sets of entries were looked at.
    pub fn invalidate_range(&self, tag: &Tag, address: u64, pages: u64, leaf_only: bool) -> u64 {
        let Some(owner) = tag.owner() else {
            return 0;
        };
        let state = owner.state();
        state.move_epoch();
        let present = state.kinds();
        if pages > MAX_PAGES_ONE_BY_ONE || present & kinds::FRACTURED != 0 {
            state.move_stamp();
            return 0;
        }
        let mut looked_at = 0_u64;
        let bytes = pages.wrapping_mul(PAGE_SIZE);
        let mut kinds = present & if leaf_only { ALL & !TABLES } else { ALL };
        while kinds != 0 {
            let removed = self.remove(owner, Kind::first_of(kinds), (address, bytes));
            looked_at = looked_at.saturating_add(removed);
            kinds &= kinds.wrapping_sub(1);
        }
        looked_at
    }

    /// Take out the entries of a kind that have to do with a range.
    fn remove(&self, owner: Owner<'_>, kind: Kind, (address, bytes): (u64, u64)) -> u64 {
        let place = place_bits(owner.place());
        let size = kind.size();
        let start = page_start(address, PAGE_SIZE);
        let mut page = page_start(start, size);
        let mut covered = page.wrapping_sub(start).wrapping_add(size);
        let mut looked_at = 0_u64;
        loop {
            looked_at = looked_at.saturating_add(1);
            let key = kind.key(page);
            if let Some(set) = self.set(key, place) {
                set.remove(key, place);
            }
            if covered >= bytes {
                return looked_at;
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
    /// The lowest byte is what the leaf says beside its address.
    #[inline]
    fn flags(self) -> LeafFlags {
        LeafFlags::from_bits((self.value & 0xff) as u8)
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
        self.flags().allowed()
    }

    /// The leaf's dirty bit is set.
    #[inline]
    pub fn is_dirty(self) -> bool {
        self.flags().dirty()
    }

    /// The leaf, as it answers for an address.
    pub fn leaf(self, address: u64) -> Leaf {
        Leaf::of(self.address(address), self.page_size, self.flags())
    }
}

/// The address that a value leads to.
#[inline]
fn target(value: u64) -> u64 {
    value >> 24 << 12
}

/// The oracle: does a fresh `walk` contradict the cached translation that serves
/// `access`? Permissions may have grown since: that needs no invalidation.
pub fn contradicted(
    cached: &Translation,
    access: Access,
    walk: impl FnOnce(Access) -> Result<Leaf, Fault>,
) -> bool {
    let look = access.with_look(true);
    walk(look).map_or(true, |fresh| {
        let fresh = fresh.translation();
        cached.address != fresh.address
            || (access.read() && !fresh.permissions.read())
            || (access.write() && !fresh.permissions.write())
    })
}

#[cfg(test)]
mod tests;
