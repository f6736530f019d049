//! The walker: generic over the page format ([`PageFormat`]) and over the memory
//! that holds the tables ([`TableMemory`]).

use core::num::NonZero;

use bitfield_struct::bitfield;

use super::{Access, Fault, Permissions, TableError, TableMemory, Translation};
use crate::spec::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST, PAGE_SIZE};

/// Deepest table: 5 levels.
pub(super) const MAX_LEVELS: usize = 5;

/// Bits of the address that one level translates.
const LEVEL_BITS: u32 = 9;

/// How often a walk starts again because an entry changed under it.
const MAX_RESTARTS: usize = 16;

/// What the entries of a walk allow in common.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Rights {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Fetching instructions.
    pub execute: bool,
    /// User requests.
    pub user: bool,
    #[bits(4)]
    __: u8,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self::from_bits(0b1111);

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::from_bits(self.into_bits() & other.into_bits())
    }
}

/// Entries that point to a table, and of which nothing is to be told but where it is and what they allow: they have all bits of
/// `set` and none of `clear`. Most are such, and need no other look.
#[derive(Debug, Clone, Copy)]
pub struct Plain {
    /// Present, and marked if they are to be.
    pub set: u64,
    /// Reserved, or the bit of pages.
    pub clear: u64,
    /// Bits that deny what others allow by being 0.
    pub denies: u64,
}

impl Plain {
    fn includes(self, entry: u64) -> bool {
        entry & (self.set | self.clear) == self.set
    }
}

/// How one stage's paging entries are to be read. Levels count from 1 (4 KiB
/// pages) upwards.
pub trait PageFormat {
    /// Is the address one that these tables can translate?
    ///
    /// # Errors
    /// The fault of an address that is not.
    fn check_address(&self, address: u64) -> Result<(), Fault>;

    /// Levels of the table: 3 to 5.
    fn levels(&self) -> u32;

    /// Which entries need no judging.
    fn plain(&self) -> Plain;

    /// Judge one entry on the way.
    ///
    /// # Errors
    /// The fault of an entry that is not present, or has reserved bits.
    fn check_entry(&self, entry: u64, level: u32, access: Access) -> Result<(), Fault>;

    /// Does the entry map a page, rather than point to a table?
    fn is_leaf(&self, entry: u64, level: u32) -> bool;

    /// Where the entry points, low bits not masked for large pages.
    fn address_of(&self, entry: u64) -> u64;

    /// What the entry allows, on its own.
    fn rights(&self, entry: u64) -> Rights;

    /// What the entries whose rights are `common`, with this leaf, permit to a
    /// request with the privilege of `access`.
    fn permissions(&self, common: Rights, leaf: u64, access: Access) -> Permissions;

    /// Why an access that `common` does not permit is refused.
    ///
    /// # Errors
    /// The fault; nothing if it is permitted.
    fn check_access(
        &self,
        common: Rights,
        granted: Permissions,
        access: Access,
    ) -> Result<(), Fault>;

    /// The entry with its accessed bit, and for the leaf of a write its dirty bit.
    fn mark(&self, entry: u64, leaf: bool, write: bool) -> u64;

    /// The fault of an entry that is to be marked and cannot be, whoever asks.
    fn unmarkable(&self) -> Option<Fault>;

    /// Are writes through this leaf already marked, or never to be?
    fn is_dirty(&self, leaf: u64) -> bool;

    /// The fault of an entry at `level` that could not be read.
    fn read_fault(&self, level: u32, error: TableError) -> Fault;

    /// The fault of an entry that could not be marked.
    fn mark_fault(&self, level: u32, error: TableError) -> Fault;

    /// The fault of entries that change each time they are to be marked.
    fn contention(&self) -> Fault;
}

/// The end of a walk: two words, so that it is handed on in registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    address: u64,
    /// Flags in the lowest byte, log2 of the page size in the next.
    about: NonZero<u64>,
}

/// What a leaf says beside its address: its [`Permissions`], and in the two bits that they leave what matters to those only who
/// keep it.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct LeafFlags {
    #[bits(6)]
    permissions: u8,
    /// The leaf's dirty bit is set, so a later write needs no walk to set it.
    pub dirty: bool,
    /// The page is a part of a larger one of the first stage.
    pub fractured: bool,
}

/// A table of 4 KiB pages, and what the entries that lead to it allow in common: where a later walk for
/// a page near can begin. One word, for the same reason.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LastTable(NonZero<u64>);

impl LastTable {
    /// Below the address there is room for [`Rights`], and for a bit that is always set.
    const SET: NonZero<u64> = NonZero::new(1 << 11).unwrap();

    /// The table with the entry at `entry`.
    #[inline]
    pub fn with_entry(entry: u64, rights: Rights) -> Self {
        let address = entry & !PAGE_SIZE.wrapping_sub(1);
        Self(Self::SET | address | u64::from(rights.into_bits()))
    }

    /// Where it is in memory.
    #[inline]
    pub fn address(self) -> u64 {
        self.0.get() & !PAGE_SIZE.wrapping_sub(1)
    }

    /// Rights of the entries above it.
    #[inline]
    pub fn rights(self) -> Rights {
        Rights::from_bits((self.0.get() & 0xff) as u8)
    }
}

impl core::fmt::Debug for LastTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("LastTable")
            .field(&self.address())
            .field(&self.rights())
            .finish()
    }
}

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its end.
    pub leaf: Leaf,
    /// The table with the leaf, if that is a 4 KiB page.
    pub table: Option<LastTable>,
}

/// Page sizes a leaf can have, largest first.
const PAGE_SIZES: [u64; 3] = [PAGE_SIZE << 18, PAGE_SIZE << 9, PAGE_SIZE];

impl LeafFlags {
    /// What may be done with the page.
    #[inline]
    pub fn allowed(self) -> Permissions {
        Permissions::from_bits(self.permissions())
    }
}

impl Leaf {
    /// Leaves say at least that their page has 4 KiB.
    const LEAST: NonZero<u64> = NonZero::new(12 << 8).unwrap();

    /// The end of a walk.
    #[inline]
    pub fn new(translation: Translation, dirty: bool, fractured: bool) -> Self {
        let flags = LeafFlags::from_bits(translation.permissions.into_bits())
            .with_dirty(dirty)
            .with_fractured(fractured);
        Self::of(translation.address, translation.page_size, flags)
    }

    /// The same of flags.
    #[inline]
    pub fn of(address: u64, page_size: u64, flags: LeafFlags) -> Self {
        let about = u64::from(page_size.trailing_zeros()) << 8 | u64::from(flags.into_bits());
        Self {
            address,
            about: NonZero::new(about).unwrap_or(Self::LEAST),
        }
    }

    /// Where the address goes.
    #[inline]
    pub fn address(self) -> u64 {
        self.address
    }

    /// Bytes in the naturally aligned page for which this holds.
    #[inline]
    pub fn page_size(self) -> u64 {
        1_u64.wrapping_shl((self.about.get() >> 8) as u32)
    }

    /// What may be done with the page, and more.
    #[inline]
    pub fn flags(self) -> LeafFlags {
        LeafFlags::from_bits((self.about.get() & 0xff) as u8)
    }

    /// Where the address goes, for who needs to know no more.
    #[inline]
    pub fn translation(self) -> Translation {
        Translation {
            address: self.address,
            page_size: self.page_size(),
            permissions: self.flags().allowed(),
        }
    }

    /// The answer for `address`, for the largest page of which nothing is in the
    /// interrupt range: who keeps a page must neither send writes there nor swallow
    /// those that belong there (3.15).
    #[must_use]
    pub fn clear_of_interrupts(self, address: u64) -> Self {
        let clear = |&size: &u64| {
            size <= self.page_size()
                && !touches_interrupts(address, size)
                && !touches_interrupts(self.address, size)
        };
        let page_size = PAGE_SIZES.into_iter().find(clear).unwrap_or(PAGE_SIZE);
        let fractured = self.flags().fractured() || page_size < self.page_size();
        Self::of(
            self.address,
            page_size,
            self.flags().with_fractured(fractured),
        )
    }

    /// What a requester is told: writing only if the dirty bit needs no more setting,
    /// as it may keep the answer. A look sees the page as it is.
    #[inline]
    pub fn told(self, look: bool) -> Translation {
        let mut translation = self.translation();
        let write = translation.permissions.write() && (self.flags().dirty() || look);
        translation.permissions.set_write(write);
        translation
    }

    /// What a requester is told that asks for data only.
    #[inline(always)]
    pub fn told_plainly(self) -> Translation {
        let told = self.told(false);
        Translation {
            permissions: told.permissions.with_execute(false),
            ..told
        }
    }

    /// Does it answer `access` without another walk?
    pub fn serves(self, access: Access) -> bool {
        let may = self.flags().allowed();
        (may.read() || !access.read())
            && (may.execute() || !access.execute())
            && (may.write() && self.flags().dirty() || !access.write())
    }
}

impl core::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Leaf")
            .field("address", &self.address)
            .field("page_size", &self.page_size())
            .field("flags", &self.flags())
            .finish()
    }
}

/// Does the page of `size` bytes around `address` touch the interrupt range?
fn touches_interrupts(address: u64, size: u64) -> bool {
    let first = address & !size.wrapping_sub(1);
    let last = first | size.wrapping_sub(1);
    first <= INTERRUPT_RANGE_LAST && last >= INTERRUPT_RANGE_FIRST
}

/// Entries of one walk, root first.
#[derive(Clone, Copy, Default)]
struct Step {
    address: u64,
    entry: u64,
}

/// Walk the table at `root` for `address`.
///
/// Accessed and dirty bits are set once the access is known to be allowed, each
/// by compare-and-exchange against the entry that was judged; if one changed
/// meanwhile, the walk starts again.
///
/// # Errors
/// The fault that refuses the access.
pub fn walk<M: TableMemory + ?Sized, F: PageFormat>(
    memory: &M,
    format: &F,
    root: u64,
    address: u64,
    access: Access,
) -> Result<Found, Fault> {
    format.check_address(address)?;
    for _ in 0..MAX_RESTARTS {
        let mut path = [Step::default(); MAX_LEVELS];
        let way = descend(memory, format, root, address, access, &mut path)?;
        let permissions = permitted(format, &way, access)?;
        if !access.look() && !way.marked {
            let taken = path.get(..way.depth).unwrap_or_default();
            if !mark(memory, format, taken, access.write())? {
                continue;
            }
        }
        return Ok(way.end(format, permissions, address, access));
    }
    Err(format.contention())
}

/// The same if it succeeds with nothing to be marked, else None, and nothing has been.
pub fn settled<M: TableMemory + ?Sized, F: PageFormat>(
    memory: &M,
    format: &F,
    root: u64,
    address: u64,
    access: Access,
) -> Option<Found> {
    format.check_address(address).ok()?;
    let mut path = [Step::default(); MAX_LEVELS];
    let way = descend(memory, format, root, address, access, &mut path).ok()?;
    let permissions = permitted(format, &way, access).ok()?;
    way.marked
        .then(|| way.end(format, permissions, address, access))
}

/// What a way permits.
fn permitted<F: PageFormat>(format: &F, way: &Way, access: Access) -> Result<Permissions, Fault> {
    let leaf = way.last.entry;
    let rights = way.above.and(format.rights(leaf));
    let permissions = format.permissions(rights, leaf, access);
    format.check_access(rights, permissions, access)?;
    Ok(permissions)
}

/// Begin at the last table, which an earlier walk found. None unless the access succeeds with nothing to be
/// marked: then only a whole walk can tell.
pub fn resume<M: TableMemory + ?Sized, F: PageFormat>(
    memory: &M,
    format: &F,
    table: LastTable,
    address: u64,
    access: Access,
) -> Option<Leaf> {
    format.check_address(address).ok()?;
    let index = (address >> page_shift(1)) & 0x1ff;
    let entry = memory
        .read(table.address().wrapping_add(index.wrapping_mul(8)))
        .ok()?;
    format.check_entry(entry, 1, access).ok()?;
    if format.mark(entry, true, access.write()) != entry {
        return None;
    }
    let rights = table.rights().and(format.rights(entry));
    let permissions = format.permissions(rights, entry, access);
    format.check_access(rights, permissions, access).ok()?;
    let low = PAGE_SIZE.wrapping_sub(1);
    Some(Leaf::new(
        Translation {
            address: (format.address_of(entry) & !low) | (address & low),
            page_size: PAGE_SIZE,
            permissions,
        },
        format.is_dirty(entry),
        false,
    ))
}

/// Address bits below those that `level` translates; `level` is at most 5.
pub(crate) fn page_shift(level: u32) -> u32 {
    LEVEL_BITS
        .wrapping_mul(level.saturating_sub(1))
        .wrapping_add(PAGE_SIZE.trailing_zeros())
}

/// What [`descend`] found.
struct Way {
    /// The number of entries.
    depth: usize,
    /// Level of the leaf.
    level: u32,
    /// The leaf.
    last: Step,
    /// Rights that the entries before it have in common.
    above: Rights,
    /// Nothing is to be marked.
    marked: bool,
}

impl Way {
    /// The end of a walk for `address`, once what is to be marked is.
    fn end<F: PageFormat>(
        &self,
        format: &F,
        permissions: Permissions,
        address: u64,
        access: Access,
    ) -> Found {
        let leaf = self.last.entry;
        let page_size = 1_u64 << page_shift(self.level);
        let low = page_size.wrapping_sub(1);
        Found {
            leaf: Leaf::new(
                Translation {
                    address: (format.address_of(leaf) & !low) | (address & low),
                    page_size,
                    permissions,
                },
                format.is_dirty(leaf) || (access.write() && !access.look()),
                false,
            ),
            table: (self.level == 1).then(|| LastTable::with_entry(self.last.address, self.above)),
        }
    }
}

/// Follow the entries to the leaf.
fn descend<M: TableMemory + ?Sized, F: PageFormat>(
    memory: &M,
    format: &F,
    root: u64,
    address: u64,
    access: Access,
    path: &mut [Step; MAX_LEVELS],
) -> Result<Way, Fault> {
    let mut way = Way {
        depth: 0,
        level: format.levels(),
        last: Step::default(),
        above: Rights::ALL,
        marked: true,
    };
    let plain = format.plain();
    // What the plain ones allow in common, each bit allowing if it is set.
    let mut common = u64::MAX;
    let (mut table, mut shift) = (root, page_shift(way.level));
    for step in path.iter_mut() {
        let level = way.level;
        let index = address.wrapping_shr(shift) & 0x1ff;
        let at = table.wrapping_add(index.wrapping_mul(8));
        let entry = memory
            .read(at)
            .map_err(|error| format.read_fault(level, error))?;
        way.last = Step { address: at, entry };
        *step = way.last;
        way.depth = way.depth.saturating_add(1);
        if level > 1 && plain.includes(entry) {
            common &= entry ^ plain.denies;
        } else {
            format.check_entry(entry, level, access)?;
            let leaf = format.is_leaf(entry, level);
            way.marked &= format.mark(entry, leaf, access.write()) == entry;
            if leaf {
                break;
            }
            way.above = way.above.and(format.rights(entry));
        }
        table = format.address_of(entry);
        way.level = level.saturating_sub(1);
        shift = shift.saturating_sub(LEVEL_BITS);
    }
    way.above = way.above.and(format.rights(common ^ plain.denies));
    Ok(way)
}

/// Set accessed and dirty bits along `path`. False if an entry had changed.
fn mark<M: TableMemory + ?Sized, F: PageFormat>(
    memory: &M,
    format: &F,
    path: &[Step],
    write: bool,
) -> Result<bool, Fault> {
    let mut level = format.levels();
    let mut rest = path.iter().peekable();
    while let Some(step) = rest.next() {
        let marked = format.mark(step.entry, rest.peek().is_none(), write);
        if marked != step.entry {
            if let Some(fault) = format.unmarkable() {
                return Err(fault);
            }
            let done = memory
                .compare_exchange(step.address, step.entry, marked)
                .map_err(|error| format.mark_fault(level, error))?;
            if !done {
                return Ok(false);
            }
        }
        level = level.saturating_sub(1);
    }
    Ok(true)
}
