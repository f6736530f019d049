//! The stages of a translation, and how they compose (3.6 to 3.8).

use std::cell::Cell;

use super::first_stage::FirstStage;
use super::second_stage::SecondStage;
use super::walk::{Found, LastTable, Leaf, resume, settled, walk};
use super::{
    Access, Diagnostic, Fault, Permissions, TableError, TableMemory, Translation, is_beyond,
    is_interrupt_address,
};
use crate::spec::PAGE_SIZE;
use crate::spec::fault::FaultReason;
use crate::spec::pasid::TranslationType;

/// Tables of one stage: where the topmost one is, and how entries are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tables<F> {
    /// Address of the topmost table.
    pub table: u64,
    /// The format.
    pub format: F,
}

impl Tables<SecondStage> {
    fn walk<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        address: u64,
        access: Access,
    ) -> Result<Found, Fault> {
        memory.second_stage_walk();
        walk(memory, &self.format, self.table, address, access)
    }
}

/// Which tables a request goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stages {
    /// None: addresses are physical, up to `width` bits.
    PassThrough {
        /// Bits in an address.
        width: u32,
        /// In legacy mode.
        legacy: bool,
    },
    /// The first stage alone.
    FirstStage(Tables<FirstStage>),
    /// The second stage alone.
    SecondStage(Tables<SecondStage>),
    /// The first stage, whose tables and pages are found through the second.
    Nested(Tables<FirstStage>, Tables<SecondStage>),
}

impl Stages {
    /// The PGTT these stages have, or would have in scalable mode.
    pub fn translation_type(&self) -> TranslationType {
        match self {
            Self::PassThrough { .. } => TranslationType::PassThrough,
            Self::FirstStage(_) => TranslationType::FirstStage,
            Self::SecondStage(_) => TranslationType::SecondStage,
            Self::Nested(..) => TranslationType::Nested,
        }
    }

    /// Address of the topmost table that a request's address enters; 0 without one.
    pub fn table(&self) -> u64 {
        match self {
            Self::PassThrough { .. } => 0,
            Self::FirstStage(first) | Self::Nested(first, _) => first.table,
            Self::SecondStage(second) => second.table,
        }
    }

    /// Is it legacy mode?
    fn is_legacy(&self) -> bool {
        match self {
            Self::PassThrough { legacy, .. } => *legacy,
            Self::SecondStage(second) => second.format.role == super::second_stage::Role::Legacy,
            Self::FirstStage(_) | Self::Nested(..) => false,
        }
    }

    /// Translate `address`.
    ///
    /// # Errors
    /// The fault that refuses the access.
    pub fn translate<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        address: u64,
        access: Access,
    ) -> Result<Leaf, Fault> {
        self.find(memory, address, access).map(|found| found.leaf)
    }

    /// The same, along with where a walk for a page near can begin.
    ///
    /// # Errors
    /// As [`Self::translate`].
    pub fn find<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        address: u64,
        access: Access,
    ) -> Result<Found, Fault> {
        let found = match self {
            Self::PassThrough { width, legacy } => Found {
                leaf: pass_through(address, *width, *legacy)?,
                table: None,
            },
            Self::FirstStage(first) => walk(memory, &first.format, first.table, address, access)?,
            Self::SecondStage(second) => second.walk(memory, address, access)?,
            Self::Nested(first, second) => nested(memory, first, second, address, access)?,
        };
        if is_interrupt_address(found.leaf.address()) {
            return Err(self.interrupt_range());
        }
        Ok(Found {
            leaf: found.leaf.clear_of_interrupts(address),
            ..found
        })
    }

    /// Translate from `table` on, which [`Self::find`] gave for a page near. None unless that
    /// succeeds; [`Self::find`] then tells why.
    pub fn resume<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        table: LastTable,
        address: u64,
        access: Access,
    ) -> Option<Leaf> {
        let leaf = match self {
            Self::PassThrough { .. } => None,
            Self::FirstStage(first) => resume(memory, &first.format, table, address, access),
            Self::SecondStage(second) => {
                memory.second_stage_walk();
                resume(memory, &second.format, table, address, access)
            }
            Self::Nested(first, second) => {
                let leaf = resume(memory, &first.format, table, address, access)?;
                memory.second_stage_walk();
                let (format, access) = (&second.format, access.with_privileged(false));
                let found = settled(memory, format, second.table, leaf.address(), access)?;
                Some(through(leaf, found.leaf))
            }
        }?;
        let interrupts = is_interrupt_address(leaf.address());
        (!interrupts).then(|| leaf.clear_of_interrupts(address))
    }

    /// The fault of a translated address that would raise an interrupt (3.15).
    pub fn interrupt_range(&self) -> Fault {
        let reason = if self.is_legacy() {
            FaultReason::LegacyInterruptRange
        } else {
            FaultReason::InterruptRange
        };
        Fault::new(reason, Diagnostic::InterruptRange)
    }
}

fn pass_through(address: u64, width: u32, legacy: bool) -> Result<Leaf, Fault> {
    if is_beyond(address, width) {
        let reason = if legacy {
            FaultReason::LegacyBeyondWidth
        } else {
            FaultReason::BeyondWidth
        };
        return Err(Fault::new(reason, Diagnostic::BeyondWidth));
    }
    Ok(Leaf::new(
        Translation {
            address,
            page_size: PAGE_SIZE,
            permissions: Permissions::ALL,
        },
        true,
        false,
    ))
}

/// The first stage over the second (3.8): each table of the first stage and the page
/// it leads to are found through the second.
fn nested<M: TableMemory + ?Sized>(
    memory: &M,
    first: &Tables<FirstStage>,
    second: &Tables<SecondStage>,
    address: u64,
    access: Access,
) -> Result<Found, Fault> {
    let tables = ThroughSecondStage::new(memory, second, access.look());
    let found = walk(&tables, &first.format, first.table, address, access)?;
    Ok(Found {
        leaf: below(memory, found.leaf, second, access)?,
        // The entry that was read last is the leaf's.
        table: found
            .table
            .map(|table| LastTable::with_entry(tables.last.get(), table.rights())),
    })
}

/// The page of a first-stage leaf, through the second stage.
fn below<M: TableMemory + ?Sized>(
    memory: &M,
    leaf: Leaf,
    second: &Tables<SecondStage>,
    access: Access,
) -> Result<Leaf, Fault> {
    let found = second.walk(memory, leaf.address(), access.with_privileged(false))?;
    Ok(through(leaf, found.leaf))
}

/// A first-stage leaf whose page the second stage has at `found`.
fn through(leaf: Leaf, found: Leaf) -> Leaf {
    let (page, translation) = (leaf.translation(), found.translation());
    Leaf::new(
        Translation {
            address: translation.address,
            page_size: translation.page_size.min(page.page_size),
            permissions: page.permissions.and(translation.permissions),
        },
        leaf.flags().dirty() && found.flags().dirty(),
        translation.page_size < page.page_size,
    )
}

/// Memory as the first stage's walk sees it: guest-physical addresses, translated by
/// the second stage.
pub struct ThroughSecondStage<'a, M: ?Sized> {
    /// Memory in which the second stage is.
    memory: &'a M,
    /// The second stage.
    second: &'a Tables<SecondStage>,
    /// Set no accessed or dirty bits.
    look: bool,
    /// Where in memory the qword is that was read last.
    last: Cell<u64>,
}

impl<'a, M: ?Sized> ThroughSecondStage<'a, M> {
    /// Nothing has been read; with `look` no accessed and dirty bits are set.
    pub fn new(memory: &'a M, second: &'a Tables<SecondStage>, look: bool) -> Self {
        Self {
            memory,
            second,
            look,
            last: Cell::new(0),
        }
    }
}

impl<M: TableMemory + ?Sized> ThroughSecondStage<'_, M> {
    fn locate(&self, address: u64, write: bool) -> Result<u64, TableError> {
        let access = Access::new()
            .with_read(true)
            .with_write(write)
            .with_look(self.look);
        self.second
            .walk(self.memory, address, access)
            .map(|found| found.leaf.address())
            .map_err(|fault| match fault.reason {
                FaultReason::SecondStagePermission => TableError::Denied,
                FaultReason::NestedBeyondWidth => TableError::Refused(Fault::new(
                    FaultReason::FirstStageTableBeyondWidth,
                    Diagnostic::NestedTableBeyondWidth,
                )),
                _ => TableError::Refused(fault),
            })
    }
}

impl<M: TableMemory + ?Sized> TableMemory for ThroughSecondStage<'_, M> {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        let place = self.locate(address, false)?;
        self.last.set(place);
        self.memory.read(place)
    }

    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError> {
        self.memory
            .compare_exchange(self.locate(address, true)?, old, new)
    }
}
