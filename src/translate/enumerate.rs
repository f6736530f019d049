//! Enumerating what a stage maps in a range of addresses: every leaf that a walk
//! would accept, in rising order ([`pages`]); and what its stages map together,
//! in maximal runs ([`runs`]). Nothing is set in the tables.

use core::cell::Cell;
use core::ops::{ControlFlow, RangeInclusive};

use super::stages::{Stages, Tables, ThroughSecondStage};
use super::walk::{MAX_LEVELS, PageFormat, Rights, page_shift};
use super::{Access, Permissions, TableMemory};
use crate::spec::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST};

/// Entries in a table.
const TABLE_ENTRIES: u64 = 512;

/// The access for which the entries are judged: a user's look.
const LOOK: Access = Access::new().with_read(true).with_look(true);

/// How many more paging entries may be read. Tables of a hostile guest can point
/// to each other so that a whole address space is mapped by one page of entries.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Budget {
    /// So many entries.
    pub fn new(entries: u64) -> Self {
        Self(Cell::new(entries))
    }

    /// Entries left.
    pub fn left(&self) -> u64 {
        self.0.get()
    }

    fn spend<B>(&self) -> ControlFlow<Stop<B>> {
        match self.0.get().checked_sub(1) {
            Some(left) => {
                self.0.set(left);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(Stop::Exhausted),
        }
    }
}

/// Why an enumeration ended before the end of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop<B> {
    /// The budget is used up.
    Exhausted,
    /// The visitor wanted no more.
    Visitor(B),
}

/// One leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// First address it maps.
    pub address: u64,
    /// Where that goes.
    pub translated: u64,
    /// Bytes it maps: 4 KiB, 2 MiB or 1 GiB.
    pub size: u64,
    /// What the entries on the way permit to users.
    pub permissions: Permissions,
    /// The entries on the way, that of level 1 first; 0 for levels not passed.
    pub path: [u64; MAX_LEVELS],
}

/// Visit the leaves of `tables` that map an address of `range`. A leaf is given whole, also where it begins before the range or ends behind it.
/// Entries that a walk would refuse are passed over.
///
/// # Errors
/// Breaks with the reason to stop.
pub fn pages<M: TableMemory + ?Sized, F: PageFormat, B>(
    memory: &M,
    tables: &Tables<F>,
    range: RangeInclusive<u64>,
    budget: &Budget,
    visit: &mut dyn FnMut(&Page) -> ControlFlow<Stop<B>>,
) -> ControlFlow<Stop<B>> {
    let format = &tables.format;
    let mut enumeration = Enumeration {
        memory,
        format,
        range,
        budget,
        visit,
    };
    let top = Place {
        table: tables.table,
        level: format.levels(),
        rights: Rights::ALL,
        path: [0; MAX_LEVELS],
    };
    for index in 0..TABLE_ENTRIES {
        let Some(address) = first_address(format, index) else {
            continue;
        };
        if enumeration.meets(address, page_shift(top.level)) {
            enumeration.entry(&top, index, address)?;
        }
    }
    ControlFlow::Continue(())
}

/// First address behind an entry of the topmost table; where addresses are
/// canonical, the upper half of the entries is the upper half of the addresses.
fn first_address<F: PageFormat>(format: &F, index: u64) -> Option<u64> {
    let shift = page_shift(format.levels());
    let address = index.wrapping_shl(shift);
    let above = 64_u32.saturating_sub(shift.saturating_add(9));
    let canonical = (address.wrapping_shl(above) as i64).wrapping_shr(above) as u64;
    [address, canonical]
        .into_iter()
        .find(|&candidate| format.check_address(candidate).is_ok())
}

/// A table on the way.
#[derive(Clone, Copy)]
struct Place {
    table: u64,
    level: u32,
    rights: Rights,
    path: [u64; MAX_LEVELS],
}

struct Enumeration<'a, M: ?Sized, F, B> {
    memory: &'a M,
    format: &'a F,
    range: RangeInclusive<u64>,
    budget: &'a Budget,
    visit: &'a mut dyn FnMut(&Page) -> ControlFlow<Stop<B>>,
}

impl<M: TableMemory + ?Sized, F: PageFormat, B> Enumeration<'_, M, F, B> {
    /// Does the range meet the 2^`shift` bytes from `address` on?
    fn meets(&self, address: u64, shift: u32) -> bool {
        let last = address | low_bits(shift);
        address <= *self.range.end() && last >= *self.range.start()
    }

    fn entry(&mut self, place: &Place, index: u64, address: u64) -> ControlFlow<Stop<B>> {
        self.budget.spend()?;
        let level = place.level;
        let Ok(entry) = self
            .memory
            .read(place.table.wrapping_add(index.wrapping_mul(8)))
        else {
            return ControlFlow::Continue(());
        };
        if self.format.check_entry(entry, level, LOOK).is_err() {
            return ControlFlow::Continue(());
        }
        let mut below = *place;
        below.rights = below.rights.and(self.format.rights(entry));
        let slot = usize::try_from(level.saturating_sub(1)).unwrap_or(0);
        if let Some(step) = below.path.get_mut(slot) {
            *step = entry;
        }
        let target = self.format.address_of(entry);
        if self.format.is_leaf(entry, level) {
            let shift = page_shift(level);
            let page = Page {
                address,
                translated: target & !low_bits(shift),
                size: 1 << shift,
                permissions: self.format.permissions(below.rights, entry, LOOK),
                path: below.path,
            };
            return (self.visit)(&page);
        }
        below.table = target;
        below.level = level.saturating_sub(1);
        self.table(&below, address)
    }

    /// The entries of the table below the topmost one that the range meets.
    fn table(&mut self, place: &Place, base: u64) -> ControlFlow<Stop<B>> {
        let shift = page_shift(place.level);
        let last_index = TABLE_ENTRIES.wrapping_sub(1);
        let index_of = |address: u64| (address.saturating_sub(base) >> shift).min(last_index);
        for index in index_of(*self.range.start())..=index_of(*self.range.end()) {
            self.entry(place, index, base.wrapping_add(index << shift))?;
        }
        ControlFlow::Continue(())
    }
}

fn low_bits(shift: u32) -> u64 {
    1_u64.wrapping_shl(shift).wrapping_sub(1)
}

/// Addresses next to each other that go to addresses next to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First address.
    pub address: u64,
    /// Where it goes.
    pub translated: u64,
    /// Bytes.
    pub length: u64,
    /// What users may do with each of them: reading, writing, executing.
    pub permissions: Permissions,
}

impl Run {
    fn from_page(page: &Page) -> Self {
        Self {
            address: page.address,
            translated: page.translated,
            length: page.size,
            permissions: page.permissions.with_global(false),
        }
    }

    /// The part of the run whose addresses are in `range`.
    fn clip(self, range: &RangeInclusive<u64>) -> Option<Self> {
        let last = self.address.checked_add(self.length.checked_sub(1)?)?;
        let first = self.address.max(*range.start());
        let last = last.min(*range.end());
        let skipped = first.wrapping_sub(self.address);
        Some(Self {
            address: first,
            translated: self.translated.wrapping_add(skipped),
            length: last.checked_sub(first)?.checked_add(1)?,
            ..self
        })
    }

    /// The parts that neither begin nor end up in the interrupt range: a request there
    /// is none of memory, and a translation to there is refused (3.14, 3.15).
    fn without_interrupts(self) -> impl Iterator<Item = Self> {
        self.outside_interrupts()
            .flat_map(|part| part.turned().outside_interrupts().map(Self::turned))
    }

    /// The parts whose addresses are not in the interrupt range.
    fn outside_interrupts(self) -> impl Iterator<Item = Self> {
        let below = 0..=INTERRUPT_RANGE_FIRST.wrapping_sub(1);
        let above = INTERRUPT_RANGE_LAST.wrapping_add(1)..=u64::MAX;
        [below, above]
            .into_iter()
            .filter_map(move |range| self.clip(&range))
    }

    /// Addresses and results exchanged.
    fn turned(self) -> Self {
        Self {
            address: self.translated,
            translated: self.address,
            ..self
        }
    }

    /// The addresses it goes to.
    fn results(&self) -> RangeInclusive<u64> {
        let last = self.length.saturating_sub(1);
        self.translated..=self.translated.saturating_add(last)
    }

    /// The part whose results `below` translates, translated by it.
    fn through(&self, below: &Self) -> Option<Self> {
        let part = below.clip(&self.results())?;
        let skipped = part.address.wrapping_sub(self.translated);
        Some(Self {
            address: self.address.wrapping_add(skipped),
            permissions: self.permissions.and(part.permissions),
            ..part
        })
    }

    fn joined(&self, next: &Self) -> Option<Self> {
        let follows = self.address.checked_add(self.length) == Some(next.address)
            && self.translated.checked_add(self.length) == Some(next.translated)
            && self.permissions == next.permissions;
        Some(Self {
            length: self.length.checked_add(next.length).filter(|_| follows)?,
            ..*self
        })
    }
}

/// Visit what `stages` map in `range` as maximal runs, in rising order. Addresses
/// that only supervisors may use, those in the interrupt range and those that a
/// translation would bring there are not mapped. Pass-through maps nothing: there are no tables.
///
/// # Errors
/// Breaks with the reason to stop; runs visited before are good.
pub fn runs<M: TableMemory + ?Sized, B>(
    memory: &M,
    stages: &Stages,
    range: RangeInclusive<u64>,
    budget: &Budget,
    visit: &mut dyn FnMut(&Run) -> ControlFlow<B>,
) -> ControlFlow<Stop<B>> {
    let mut merger = Merger::default();
    let mut give = |run: Run| visit(&run).map_break(Stop::Visitor);
    let mut take = |run: Run| {
        if !run.permissions.read() && !run.permissions.write() {
            return ControlFlow::Continue(());
        }
        run.clip(&range)
            .into_iter()
            .flat_map(Run::without_interrupts)
            .filter_map(|part| merger.push(part))
            .try_for_each(&mut give)
    };
    let (start, end) = (*range.start(), *range.end());
    match stages {
        Stages::PassThrough { .. } => {}
        Stages::FirstStage(first) => {
            pages(memory, first, start..=end, budget, &mut |page| {
                take(Run::from_page(page))
            })?;
        }
        Stages::SecondStage(second) => {
            pages(memory, second, start..=end, budget, &mut |page| {
                take(Run::from_page(page))
            })?;
        }
        Stages::Nested(first, second) => {
            let tables = ThroughSecondStage::new(memory, second, true);
            pages(&tables, first, start..=end, budget, &mut |page| {
                let Some(outer) = Run::from_page(page).clip(&range) else {
                    return ControlFlow::Continue(());
                };
                pages(memory, second, outer.results(), budget, &mut |below| {
                    outer
                        .through(&Run::from_page(below))
                        .map_or(ControlFlow::Continue(()), &mut take)
                })
            })?;
        }
    }
    merger.finish().map_or(ControlFlow::Continue(()), give)
}

/// Joins runs that are given in rising order.
#[derive(Debug, Default)]
struct Merger {
    last: Option<Run>,
}

impl Merger {
    /// Take one more run; gives the one before if it ends here.
    fn push(&mut self, run: Run) -> Option<Run> {
        let joined = self.last.and_then(|last| last.joined(&run));
        let ended = if joined.is_some() { None } else { self.last };
        self.last = Some(joined.unwrap_or(run));
        ended
    }

    /// The last run.
    fn finish(self) -> Option<Run> {
        self.last
    }
}

#[cfg(test)]
mod tests;
