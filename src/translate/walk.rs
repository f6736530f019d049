//! The walker: generic over the page format ([`PageFormat`]) and over the memory
//! that holds the tables ([`TableMemory`]).

use super::{Access, Fault, Permissions, TableError, TableMemory, Translation};
use crate::spec::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST, PAGE_SIZE};

/// Deepest table: 5 levels.
pub(super) const MAX_LEVELS: usize = 5;

/// Bits of the address that one level translates.
const LEVEL_BITS: u32 = 9;

/// How often a walk starts again because an entry changed under it.
const MAX_RESTARTS: usize = 16;

/// What the entries of a walk allow in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Fetching instructions.
    pub execute: bool,
    /// User requests.
    pub user: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
        user: true,
    };

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            execute: self.execute && other.execute,
            user: self.user && other.user,
        }
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

/// The end of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Where the address goes.
    pub translation: Translation,
    /// The leaf's dirty bit is set, so a later write needs no walk to set it.
    pub dirty: bool,
    /// The page is a part of a larger one of the first stage.
    pub fractured: bool,
}

/// A table of 4 KiB pages, and what the entries that lead to it allow in common: where a later walk for
/// a page near can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTable {
    /// Where it is in memory.
    pub address: u64,
    /// Rights of the entries above it.
    pub rights: Rights,
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

impl Leaf {
    /// The answer for `address`, for the largest page of which nothing is in the
    /// interrupt range: who keeps a page must neither send writes there nor swallow
    /// those that belong there (3.15).
    #[must_use]
    pub fn clear_of_interrupts(self, address: u64) -> Self {
        let page = self.translation;
        let clear = |&size: &u64| {
            size <= page.page_size
                && !touches_interrupts(address, size)
                && !touches_interrupts(page.address, size)
        };
        let page_size = PAGE_SIZES.into_iter().find(clear).unwrap_or(PAGE_SIZE);
        Self {
            translation: Translation { page_size, ..page },
            fractured: self.fractured || page_size < page.page_size,
            ..self
        }
    }

    /// What a requester is told: writing only if the dirty bit needs no more setting,
    /// as it may keep the answer. A look sees the page as it is.
    pub fn told(&self, look: bool) -> Translation {
        let mut translation = self.translation;
        translation.permissions.write &= self.dirty || look;
        translation
    }

    /// Does it answer `access` without another walk?
    pub fn serves(&self, access: Access) -> bool {
        let may = self.translation.permissions;
        (may.read || !access.read)
            && (may.execute || !access.execute)
            && (may.write && self.dirty || !access.write)
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
        let (depth, level, above) = descend(memory, format, root, address, access, &mut path)?;
        let taken = path.get(..depth).unwrap_or_default();
        let last = taken.last().copied().unwrap_or_default();
        let leaf = last.entry;
        let rights = above.and(format.rights(leaf));
        let permissions = format.permissions(rights, leaf, access);
        format.check_access(rights, permissions, access)?;
        if !access.look && !mark(memory, format, taken, access.write)? {
            continue;
        }
        let page_size = 1_u64 << page_shift(level);
        let low = page_size.wrapping_sub(1);
        return Ok(Found {
            leaf: Leaf {
                translation: Translation {
                    address: (format.address_of(leaf) & !low) | (address & low),
                    page_size,
                    permissions,
                },
                dirty: format.is_dirty(leaf) || (access.write && !access.look),
                fractured: false,
            },
            table: (level == 1).then_some(LastTable {
                address: last.address & !PAGE_SIZE.wrapping_sub(1),
                rights: above,
            }),
        });
    }
    Err(format.contention())
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
        .read(table.address.wrapping_add(index.wrapping_mul(8)))
        .ok()?;
    format.check_entry(entry, 1, access).ok()?;
    if format.mark(entry, true, access.write) != entry {
        return None;
    }
    let rights = table.rights.and(format.rights(entry));
    let permissions = format.permissions(rights, entry, access);
    format.check_access(rights, permissions, access).ok()?;
    let low = PAGE_SIZE.wrapping_sub(1);
    Some(Leaf {
        translation: Translation {
            address: (format.address_of(entry) & !low) | (address & low),
            page_size: PAGE_SIZE,
            permissions,
        },
        dirty: format.is_dirty(entry),
        fractured: false,
    })
}

/// Address bits below those that `level` translates; `level` is at most 5.
pub(crate) fn page_shift(level: u32) -> u32 {
    LEVEL_BITS
        .wrapping_mul(level.saturating_sub(1))
        .wrapping_add(PAGE_SIZE.trailing_zeros())
}

/// Follow the entries to the leaf. Gives the number of entries, the leaf's level
/// and the rights that those before it have in common.
fn descend<M: TableMemory + ?Sized, F: PageFormat>(
    memory: &M,
    format: &F,
    root: u64,
    address: u64,
    access: Access,
    path: &mut [Step; MAX_LEVELS],
) -> Result<(usize, u32, Rights), Fault> {
    let mut rights = Rights::ALL;
    let mut table = root;
    let mut level = format.levels();
    let mut depth = 0_usize;
    for step in path.iter_mut() {
        let index = (address >> page_shift(level)) & 0x1ff;
        step.address = table.wrapping_add(index.wrapping_mul(8));
        step.entry = memory
            .read(step.address)
            .map_err(|error| format.read_fault(level, error))?;
        format.check_entry(step.entry, level, access)?;
        depth = depth.saturating_add(1);
        if format.is_leaf(step.entry, level) {
            break;
        }
        rights = rights.and(format.rights(step.entry));
        table = format.address_of(step.entry);
        level = level.saturating_sub(1);
    }
    Ok((depth, level, rights))
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
