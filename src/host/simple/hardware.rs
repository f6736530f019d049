//! The silicon of the software host: walks guest tables through the parent, caches
//! what it walked, and watches itself.
//!
//! The oracle: each time a cached translation is used, a fresh walk is made beside
//! it. If the two differ and nothing was invalidated meanwhile, an invalidation was
//! forgotten or wrong, and the use is reported as stale.

use super::{Attachment, Nested, Object, SoftHost};
use crate::cache::translations::agrees;
use crate::host::HostDevice;
use crate::memory::{GuestMemory, PageKind};
use crate::spec::PAGE_SIZE;
use crate::spec::fault::FaultReason;
use crate::translate::walk::{Leaf, walk};
use crate::translate::{
    Access, Diagnostic, Fault, Permissions, TableError, TableMemory, Translation,
    is_interrupt_address,
};

/// What became of a DMA request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dma {
    /// Where it goes, or why it does not.
    pub result: Result<Translation, DmaFault>,
    /// It was answered from the cache.
    pub cache_hit: bool,
    /// A cached translation was used that a fresh walk contradicts.
    pub stale: bool,
    /// Table walks made, the oracle's excepted.
    pub walks: u32,
}

/// Why a DMA request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaFault {
    /// The device is attached to nothing.
    Blocked,
    /// A table refused it.
    Table(Fault),
}

/// The parent as the memory in which a nested walk finds its entries: guest RAM,
/// through the second stage.
struct ParentTables<'a>(&'a GuestMemory);

impl TableMemory for ParentTables<'_> {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        self.0.page(address, PAGE_SIZE).ok_or(TableError::NotRam)?;
        Ok(self.0.read_u64(address)?)
    }

    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError> {
        self.0.page(address, PAGE_SIZE).ok_or(TableError::NotRam)?;
        Ok(self.0.compare_exchange_u64(address, old, new)?)
    }
}

impl SoftHost {
    /// A request of `device` arrives at the hardware.
    pub fn dma(&self, device: HostDevice, address: u64, access: Access) -> Dma {
        let attachment = match self.objects.read().by_id.get(&device.0) {
            Some(Object::Device(found)) => found.attachment.clone(),
            _ => Attachment::Blocked,
        };
        let plain = |result| Dma {
            result,
            cache_hit: false,
            stale: false,
            walks: 0,
        };
        match attachment {
            Attachment::Blocked => plain(Err(DmaFault::Blocked)),
            Attachment::Parent => plain(
                self.second_stage(address, PAGE_SIZE, access)
                    .map_err(DmaFault::Table),
            ),
            Attachment::Nested(nested) => self.nested_dma(&nested, address, access),
        }
    }

    fn nested_dma(&self, nested: &Nested, address: u64, access: Access) -> Dma {
        let ticket = nested.tag.ticket();
        if let Some(leaf) = self.cached(nested, address, access) {
            let stale = self.contradicted(nested, address, access, &leaf.translation)
                && nested.tag.unchanged_since(ticket);
            return Dma {
                result: Ok(leaf.told(access.look)),
                cache_hit: true,
                stale,
                walks: 0,
            };
        }
        let walked = self.nested_walk(nested, address, access);
        if let (Ok(leaf), false) = (&walked, access.look) {
            self.cache.fill(&nested.tag, ticket, address, *leaf);
        }
        Dma {
            result: walked
                .map(|leaf| leaf.told(access.look))
                .map_err(DmaFault::Table),
            cache_hit: false,
            stale: false,
            walks: 1,
        }
    }

    /// The cached leaf, if it permits the access and needs no bit set for it. One
    /// that does not is walked again, so permissions may grow without invalidation.
    /// A look is always walked.
    fn cached(&self, nested: &Nested, address: u64, access: Access) -> Option<Leaf> {
        if access.look {
            return None;
        }
        let leaf = self.cache.get(&nested.tag, address)?;
        leaf.serves(access).then_some(leaf)
    }

    /// The oracle: does a fresh walk contradict what was used?
    fn contradicted(
        &self,
        nested: &Nested,
        address: u64,
        access: Access,
        used: &Translation,
    ) -> bool {
        let needed = Permissions {
            read: access.read,
            write: access.write,
            ..Permissions::ALL
        };
        match self.nested_walk(
            nested,
            address,
            Access {
                look: true,
                ..access
            },
        ) {
            Ok(fresh) => !agrees(used, &fresh.translation, needed),
            Err(_) => true,
        }
    }

    /// The first stage over the second: entries are found through the parent, and
    /// so is the page they lead to.
    fn nested_walk(&self, nested: &Nested, address: u64, access: Access) -> Result<Leaf, Fault> {
        let format = Self::supports(&nested.data)
            .map_err(|_| Fault::new(FaultReason::PasidInvalid, Diagnostic::HostRefused))?;
        let tables = ParentTables(&self.memory);
        let leaf = walk(&tables, &format, nested.data.pgtbl_addr, address, access)?;
        let first = leaf.translation;
        let second = self.second_stage(first.address, first.page_size, access)?;
        let translation = Translation {
            permissions: first.permissions.and(second.permissions),
            ..second
        };
        let leaf = Leaf {
            translation,
            fractured: second.page_size < first.page_size,
            ..leaf
        };
        Ok(leaf.clear_of_interrupts(address))
    }

    /// The parent: identity over registered RAM. The answer holds for the page of
    /// `largest` bytes if one region has all of it, else for 4 KiB.
    fn second_stage(&self, gpa: u64, largest: u64, access: Access) -> Result<Translation, Fault> {
        if is_interrupt_address(gpa) {
            return Err(Fault::new(
                FaultReason::InterruptRange,
                Diagnostic::InterruptRange,
            ));
        }
        let (kind, page_size) = [largest, PAGE_SIZE]
            .into_iter()
            .find_map(|size| Some((self.memory.page(gpa, size)?, size)))
            .ok_or(Fault::new(
                FaultReason::SecondStagePermission,
                Diagnostic::ParentUnmapped,
            ))?;
        let writable = kind == PageKind::Writable;
        if access.write && !writable {
            return Err(Fault::new(
                FaultReason::SecondStagePermission,
                Diagnostic::ParentReadOnly,
            ));
        }
        Ok(Translation {
            address: gpa,
            page_size,
            permissions: Permissions {
                read: true,
                write: writable,
                ..Permissions::ALL
            },
        })
    }
}
