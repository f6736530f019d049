//! The walker: generic over the page format ([`PageFormat`]) and over the memory
//! that holds the tables ([`TableMemory`]).

use super::{Access, Diagnostic, Fault, Permissions, TableError, TableMemory, Translation};
use crate::spec::PAGE_SIZE;
use crate::spec::fault::FaultReason;

/// Deepest table: 5 levels.
const MAX_LEVELS: usize = 5;

/// Bits of the address that one level translates.
const LEVEL_BITS: u32 = 9;

/// How often a walk starts again because an entry changed under it.
const MAX_RESTARTS: usize = 16;

/// How one stage's paging entries are to be read. Levels count from 1 (4 KiB
/// pages) upwards.
pub trait PageFormat {
    /// Is the address one that these tables can translate?
    ///
    /// # Errors
    /// The fault of an address that is not.
    fn check_address(&self, address: u64) -> Result<(), Fault>;

    /// Levels of the table: 4 or 5.
    fn levels(&self) -> u32;

    /// Judge one entry on the way.
    ///
    /// # Errors
    /// The fault of an entry that is not present, or has reserved bits.
    fn check_entry(&self, entry: u64, level: u32) -> Result<(), Fault>;

    /// Does the entry map a page, rather than point to a table?
    fn is_leaf(&self, entry: u64, level: u32) -> bool;

    /// Where the entry points, low bits not masked for large pages.
    fn address_of(&self, entry: u64) -> u64;

    /// What the entry allows, on its own.
    fn permissions(&self, entry: u64) -> Permissions;

    /// May the access go through the entries whose permissions are `granted` in
    /// common?
    ///
    /// # Errors
    /// The fault of an access that may not.
    fn check_access(&self, granted: Permissions, access: Access) -> Result<(), Fault>;

    /// The entry with its accessed bit, and for the leaf of a write its dirty bit.
    fn mark(&self, entry: u64, leaf: bool, write: bool) -> u64;

    /// Are writes through this leaf already marked?
    fn is_dirty(&self, leaf: u64) -> bool;

    /// The fault of an entry at `level` that could not be accessed.
    fn access_fault(&self, level: u32, error: TableError) -> Fault;
}

/// The end of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Where the address goes.
    pub translation: Translation,
    /// The leaf's dirty bit is set, so a later write needs no walk to set it.
    pub dirty: bool,
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
) -> Result<Leaf, Fault> {
    format.check_address(address)?;
    for _ in 0..MAX_RESTARTS {
        let mut path = [Step::default(); MAX_LEVELS];
        let (depth, level, permissions) = descend(memory, format, root, address, &mut path)?;
        format.check_access(permissions, access)?;
        let taken = path.get(..depth).unwrap_or_default();
        if !access.look && !mark(memory, format, taken, access.write)? {
            continue;
        }
        let leaf = taken.last().map_or(0, |step| step.entry);
        let page_size = 1_u64 << page_shift(level);
        let low = page_size.wrapping_sub(1);
        return Ok(Leaf {
            translation: Translation {
                address: (format.address_of(leaf) & !low) | (address & low),
                page_size,
                permissions,
            },
            dirty: format.is_dirty(leaf) || (access.write && !access.look),
        });
    }
    Err(Fault::new(
        FaultReason::AccessedDirty,
        Diagnostic::AccessedDirtyContended,
    ))
}

/// Address bits below those that `level` translates; `level` is at most 5.
fn page_shift(level: u32) -> u32 {
    LEVEL_BITS
        .wrapping_mul(level.saturating_sub(1))
        .wrapping_add(PAGE_SIZE.trailing_zeros())
}

/// Follow the entries to the leaf. Gives the number of entries, the leaf's level
/// and the permissions they have in common.
fn descend<M: TableMemory + ?Sized, F: PageFormat>(
    memory: &M,
    format: &F,
    root: u64,
    address: u64,
    path: &mut [Step; MAX_LEVELS],
) -> Result<(usize, u32, Permissions), Fault> {
    let mut permissions = Permissions::ALL;
    let mut table = root;
    let mut level = format.levels();
    let mut depth = 0_usize;
    for step in path.iter_mut() {
        let index = (address >> page_shift(level)) & 0x1ff;
        step.address = table.wrapping_add(index.wrapping_mul(8));
        step.entry = memory
            .read(step.address)
            .map_err(|error| format.access_fault(level, error))?;
        format.check_entry(step.entry, level)?;
        let own = format.permissions(step.entry);
        permissions.read &= own.read;
        permissions.write &= own.write;
        depth = depth.saturating_add(1);
        if format.is_leaf(step.entry, level) {
            break;
        }
        table = format.address_of(step.entry);
        level = level.saturating_sub(1);
    }
    Ok((depth, level, permissions))
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
            let done = memory
                .compare_exchange(step.address, step.entry, marked)
                .map_err(|error| format.access_fault(level, error))?;
            if !done {
                return Ok(false);
            }
        }
        level = level.saturating_sub(1);
    }
    Ok(true)
}
