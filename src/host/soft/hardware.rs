//! The silicon: DMA through PASID entries, a cache of what was walked, and a watch over
//! itself.
//!
//! An address in an IOAS (for a unit, a guest-physical one) is where the walk ends; a guest's first-stage
//! table is read and marked through the IOAS's maps.
//!
//! The oracle: each time a cached translation is used, a fresh walk is made beside it. If
//! the two differ and nothing was invalidated meanwhile, an invalidation was forgotten or
//! wrong, and the use is counted as stale.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::Twin;
use super::domain::{Domain, Nested, Paging};
use super::group::NO_PASID;
use super::iommu::pasid_entry;
use crate::cache::translations::{Tag, TranslationCache, contradicted};
use crate::host::ioctl::Fd;
use crate::host::{Errno, HwInfo};
use crate::memory::pinned::PinRights;
use crate::spec::PAGE_SIZE;
use crate::spec::fault::FaultReason;
use crate::spec::pasid::PasidEntry2;
use crate::translate::first_stage::FirstStage;
use crate::translate::tables::Purpose;
use crate::translate::walk::{Leaf, walk};
use crate::translate::{
    Access, Diagnostic, Fault, Permissions, TableError, TableMemory, Translation,
    is_interrupt_address,
};

/// A DMA request as it arrives at the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwinRequest {
    /// Its address.
    pub address: u64,
    /// PASID, if it has one.
    pub pasid: Option<u32>,
    /// What it wants.
    pub access: Access,
    /// Untranslated, or of a device TLB. Page requests are [`Twin::page_request`].
    pub kind: Purpose,
}

/// What became of it.
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

impl Dma {
    fn plain(result: Result<Translation, DmaFault>) -> Self {
        Self {
            result,
            cache_hit: false,
            stale: false,
            walks: 0,
        }
    }
}

/// Why a DMA request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaFault {
    /// The device, or its PASID, is attached to nothing.
    Blocked,
    /// A table refused it.
    Table(Fault),
}

fn refuse<T>(reason: FaultReason, diagnostic: Diagnostic) -> Result<T, Fault> {
    Err(Fault::new(reason, diagnostic))
}

/// A present PASID entry.
#[derive(Debug)]
pub(super) enum PasidEntry {
    /// The IOAS's maps alone.
    Paging(Arc<Paging>),
    /// A guest's table over them.
    Nested {
        domain: Arc<Nested>,
        entry: PasidEntry2,
        /// How the table is read, or why every request is refused.
        format: Result<FirstStage, Fault>,
        tag: Arc<Tag>,
    },
}

impl PasidEntry {
    /// An entry for `domain` behind an IOMMU.
    pub fn new(cache: &TranslationCache, iommu: &HwInfo, domain: &Domain) -> Result<Self, Errno> {
        Ok(match domain {
            Domain::Paging(domain) => Self::Paging(Arc::clone(domain)),
            Domain::Nested(domain) => {
                iommu.check_first_stage(&domain.data)?;
                let entry = pasid_entry(&domain.data);
                let snoop = !domain.parent.format.incoherent;
                Self::Nested {
                    domain: Arc::clone(domain),
                    entry,
                    format: iommu.first_stage(entry, snoop),
                    tag: Arc::new(cache.new_tag()),
                }
            }
        })
    }
}

/// A device as its IOMMU knows it.
#[derive(Debug)]
pub(super) struct DeviceHardware {
    pub iommu: HwInfo,
    ats: bool,
    entries: RwLock<BTreeMap<u32, Arc<PasidEntry>>>,
}

impl DeviceHardware {
    pub fn new(iommu: HwInfo, ats: bool) -> Self {
        Self {
            iommu,
            ats,
            entries: RwLock::default(),
        }
    }

    /// Replace a PASID entry. What was cached under the one before is dropped, as tearing
    /// an entry down does.
    pub fn set(&self, cache: &TranslationCache, pasid: u32, entry: Option<PasidEntry>) {
        let entry = entry.map(Arc::new);
        if let Some(PasidEntry::Nested { domain, tag, .. }) = entry.as_deref() {
            domain.tags.lock().push(Arc::clone(tag));
        }
        let before = {
            let mut entries = self.entries.write();
            match entry {
                Some(entry) => entries.insert(pasid, entry),
                None => entries.remove(&pasid),
            }
        };
        if let Some(PasidEntry::Nested { domain, tag, .. }) = before.as_deref() {
            domain.tags.lock().retain(|other| !Arc::ptr_eq(other, tag));
            cache.invalidate_all(tag);
        }
    }

    fn entry(&self, pasid: u32) -> Option<Arc<PasidEntry>> {
        self.entries.read().get(&pasid).cloned()
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Hardware {
    pub cache: TranslationCache,
    pub devices: RwLock<BTreeMap<Fd, Arc<DeviceHardware>>>,
    dmas: AtomicU64,
    faults: AtomicU64,
    stale_uses: AtomicU64,
}

impl Hardware {
    pub fn dmas(&self) -> u64 {
        self.dmas.load(Ordering::Relaxed)
    }

    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    pub fn stale_uses(&self) -> u64 {
        self.stale_uses.load(Ordering::Relaxed)
    }

    fn count(&self, dma: &Dma) {
        self.dmas.fetch_add(1, Ordering::Relaxed);
        if dma.result.is_err() {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        if dma.stale {
            self.stale_uses.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Paging {
    /// Where an address of the IOAS goes: to itself, if it is mapped. The answer holds for
    /// the page of `largest` bytes if one map has all of it, else for 4 KiB.
    fn translate(&self, address: u64, largest: u64, access: Access) -> Result<Leaf, Fault> {
        if is_interrupt_address(address) {
            return refuse(FaultReason::InterruptRange, Diagnostic::InterruptRange);
        }
        let tracking = self.tracking();
        // Dirty bits are per page of 4 KiB, so an answer is for no more.
        let largest = if tracking.is_some() {
            PAGE_SIZE
        } else {
            largest
        };
        let beyond = address > self.format.aperture_last();
        let found = [largest, PAGE_SIZE]
            .into_iter()
            .find_map(|size| Some((self.pins.page(address, size)?, size)))
            .filter(|_| !beyond);
        let Some((rights, page_size)) = found else {
            return refuse(self.unmapped(), Diagnostic::ParentUnmapped);
        };
        if (access.write() && !rights.write) || (access.read() && !rights.read) {
            return refuse(self.denied(access, rights), Diagnostic::ParentReadOnly);
        }
        let page = address & !PAGE_SIZE.wrapping_sub(1);
        let dirty = tracking.is_none_or(|dirty| {
            if access.write() && !access.look() {
                dirty.mark(page);
            }
            dirty.is_marked(page)
        });
        Ok(Leaf::new(
            Translation {
                address,
                page_size,
                permissions: Permissions::ALL
                    .with_read(rights.read)
                    .with_write(rights.write),
            },
            dirty,
            false,
        ))
    }

    fn unmapped(&self) -> FaultReason {
        if self.format.first_stage {
            FaultReason::FirstStageNotPresent
        } else {
            FaultReason::SecondStagePermission
        }
    }

    fn denied(&self, access: Access, rights: PinRights) -> FaultReason {
        match self.format.first_stage {
            true if access.write() && !rights.write => FaultReason::NoWrite,
            true => FaultReason::NoRead,
            false => FaultReason::SecondStagePermission,
        }
    }

    /// A qword of a table, for reading or writing.
    fn check_table(&self, address: u64, write: bool) -> Result<(), TableError> {
        let access = Access::new().with_read(true).with_write(write);
        match self.translate(address, PAGE_SIZE, access) {
            Ok(_) => Ok(()),
            Err(fault) if fault.reason == FaultReason::SecondStagePermission => {
                let mapped = fault.diagnostic != Diagnostic::ParentUnmapped;
                Err(if mapped && write {
                    TableError::ReadOnly
                } else {
                    TableError::NotRam
                })
            }
            Err(fault) => Err(TableError::Refused(fault)),
        }
    }
}

/// The parent as the memory in which a nested walk finds its entries.
impl TableMemory for Paging {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        self.check_table(address, false)?;
        Ok(self.pins.read_u64(address)?)
    }

    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError> {
        self.check_table(address, true)?;
        Ok(self.pins.compare_exchange_u64(address, old, new)?)
    }
}

impl Hardware {
    fn dma(&self, device: &DeviceHardware, request: &TwinRequest) -> Dma {
        let found = device.entry(request.pasid.unwrap_or(NO_PASID));
        let Some(found) = found else {
            return Dma::plain(Err(DmaFault::Blocked));
        };
        if request.kind != Purpose::Untranslated && !(device.ats && device.iommu.ecap.device_tlb())
        {
            let fault = Fault::new(
                FaultReason::DeviceTlbDisabled,
                Diagnostic::DeviceTlbDisabled,
            );
            return Dma::plain(Err(DmaFault::Table(fault)));
        }
        let (address, access) = (request.address, request.access);
        let (domain, entry, format, tag) = match &*found {
            PasidEntry::Paging(domain) => return through_maps(domain, address, access),
            PasidEntry::Nested { domain, .. } if request.kind == Purpose::Translated => {
                return through_maps(&domain.parent, address, access);
            }
            PasidEntry::Nested {
                domain,
                entry,
                format,
                tag,
            } => (domain, *entry, format, tag),
        };
        match format.and_then(|format| check_request(entry, access).map(|()| format)) {
            Ok(format) => Walker {
                cache: &self.cache,
                domain,
                format: &format,
                tag,
            }
            .dma(address, access),
            Err(fault) => Dma::plain(Err(DmaFault::Table(fault))),
        }
    }
}

/// What of a request the PASID entry allows, before any table.
fn check_request(entry: PasidEntry2, access: Access) -> Result<(), Fault> {
    if access.execute() && !entry.execute_request() {
        return refuse(FaultReason::ExecuteDisabled, Diagnostic::ExecuteDisabled);
    }
    if access.privileged() && !entry.supervisor_request() {
        return refuse(
            FaultReason::SupervisorDisabled,
            Diagnostic::SupervisorDisabled,
        );
    }
    Ok(())
}

fn through_maps(domain: &Paging, address: u64, access: Access) -> Dma {
    let found = domain.translate(address, PAGE_SIZE, access);
    Dma::plain(
        found
            .map(|leaf| leaf.told(access.look()))
            .map_err(DmaFault::Table),
    )
}

/// A nested PASID entry at work.
struct Walker<'a> {
    cache: &'a TranslationCache,
    domain: &'a Nested,
    format: &'a FirstStage,
    tag: &'a Tag,
}

impl Walker<'_> {
    fn dma(&self, address: u64, access: Access) -> Dma {
        // Supervisor and user requests see different permissions; only users' are kept.
        let cacheable = !access.look() && !access.privileged();
        let ticket = self.tag.ticket();
        if cacheable {
            let cached = self.cache.get(self.tag, false, address);
            if let Some(leaf) = cached.filter(|leaf| leaf.serves(access)) {
                let stale =
                    contradicted(&leaf.translation(), access, |look| self.walk(address, look))
                        && self.tag.unchanged_since(ticket);
                return Dma {
                    result: Ok(leaf.told(false)),
                    cache_hit: true,
                    stale,
                    walks: 0,
                };
            }
        }
        let walked = self.walk(address, access);
        if let (Ok(leaf), true) = (&walked, cacheable) {
            self.cache.fill(self.tag, ticket, false, address, *leaf);
        }
        Dma {
            result: walked
                .map(|leaf| leaf.told(access.look()))
                .map_err(DmaFault::Table),
            cache_hit: false,
            stale: false,
            walks: 1,
        }
    }

    /// The first stage over the maps: entries are found through them, and so is the page
    /// they lead to.
    fn walk(&self, address: u64, access: Access) -> Result<Leaf, Fault> {
        let parent = &*self.domain.parent;
        let root = self.domain.data.pgtbl_addr & !PAGE_SIZE.wrapping_sub(1);
        let leaf = walk(parent, self.format, root, address, access)?.leaf;
        let first = leaf.translation();
        let found = parent.translate(first.address, first.page_size, access)?;
        let second = found.translation();
        let leaf = Leaf::new(
            Translation {
                permissions: first.permissions.and(second.permissions),
                ..second
            },
            leaf.flags().dirty() && found.flags().dirty(),
            second.page_size < first.page_size,
        );
        Ok(leaf.clear_of_interrupts(address))
    }
}

impl Twin {
    /// A request of a device arrives at the hardware. The answer's address is the one in
    /// the IOAS. A translation request that asks for more than reading gets what there is.
    pub fn dma(&self, device: Fd, request: &TwinRequest) -> Dma {
        let found = self.hardware.devices.read().get(&device).cloned();
        let Some(device) = found else {
            return Dma::plain(Err(DmaFault::Blocked));
        };
        let mut dma = self.hardware.dma(&device, request);
        let writes = request.access.write() && request.access.read();
        if dma.result.is_err() && request.kind == Purpose::Translation && writes {
            let less = TwinRequest {
                access: request.access.with_write(false),
                ..*request
            };
            dma = self.hardware.dma(&device, &less);
        }
        if !request.access.look() {
            self.hardware.count(&dma);
        }
        dma
    }
}
