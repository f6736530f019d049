//! Translation domains: what an HWPT is to the hardware.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::cache::translations::{Tag, TranslationCache};
use crate::host::VtdS1;
use crate::memory::pinned::PinnedMemory;

/// The paging format of a domain over an IOAS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// First-stage format; else second-stage.
    pub first_stage: bool,
    /// Bits in an input address, as the driver computes them.
    pub width: u32,
    /// Table levels, 3 to 5.
    pub levels: u32,
    /// 2 MiB pages.
    pub pages_2m: bool,
    /// 1 GiB pages.
    pub pages_1g: bool,
    /// Walks are not coherent, so the driver flushes.
    pub incoherent: bool,
    /// Maps are told to the hardware (CAP.RWBF or CM).
    pub sync_map: bool,
    /// Requests snoop whatever they ask for (ECAP.SC).
    pub force_snoop: bool,
}

impl Format {
    /// Last address of the aperture. First-stage tables have the lower canonical half.
    pub fn aperture_last(&self) -> u64 {
        let bits = self.width.saturating_sub(u32::from(self.first_stage));
        1_u64
            .checked_shl(bits)
            .map_or(u64::MAX, |end| end.wrapping_sub(1))
    }
}

/// Second-stage dirty bits, by page.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    tracking: AtomicBool,
    pages: Mutex<BTreeSet<u64>>,
}

impl Dirty {
    pub fn is_tracking(&self) -> bool {
        self.tracking.load(Ordering::SeqCst)
    }

    pub fn set_tracking(&self, enable: bool) {
        self.tracking.store(enable, Ordering::SeqCst);
    }

    /// A write to the page at `page`.
    pub fn mark(&self, page: u64) {
        self.pages.lock().insert(page);
    }

    pub fn is_marked(&self, page: u64) -> bool {
        self.pages.lock().contains(&page)
    }

    /// The marked pages from `first` to `last`.
    pub fn marked(&self, first: u64, last: u64) -> Vec<u64> {
        self.pages.lock().range(first..=last).copied().collect()
    }

    pub fn clear(&self, first: u64, last: u64) {
        let mut pages = self.pages.lock();
        let mut from_first = pages.split_off(&first);
        if let Some(after) = last.checked_add(1) {
            pages.append(&mut from_first.split_off(&after));
        }
    }
}

/// A domain over an IOAS.
#[derive(Debug)]
pub(super) struct Paging {
    pub key: u64,
    pub pins: Arc<PinnedMemory>,
    pub format: Format,
    /// Allocated with `IOMMU_HWPT_ALLOC_NEST_PARENT`.
    pub nest_parent: bool,
    /// There if allocated with `IOMMU_HWPT_ALLOC_DIRTY_TRACKING`.
    pub dirty: Option<Dirty>,
    children: Mutex<BTreeMap<u64, Weak<Nested>>>,
}

impl Paging {
    pub fn new(
        key: u64,
        pins: Arc<PinnedMemory>,
        format: Format,
        nest_parent: bool,
        dirty: bool,
    ) -> Self {
        Self {
            key,
            pins,
            format,
            nest_parent,
            dirty: dirty.then(Dirty::default),
            children: Mutex::default(),
        }
    }

    /// The dirty bits, if they are being set.
    pub fn tracking(&self) -> Option<&Dirty> {
        self.dirty.as_ref().filter(|dirty| dirty.is_tracking())
    }

    pub fn add_child(&self, child: &Arc<Nested>) {
        self.children
            .lock()
            .insert(child.key, Arc::downgrade(child));
    }

    pub fn forget_child(&self, key: u64) {
        self.children.lock().remove(&key);
    }

    /// Maps went or changed: nothing that was found through them may be used again.
    pub fn forget_cached(&self, cache: &TranslationCache) {
        for child in self.children.lock().values().filter_map(Weak::upgrade) {
            for tag in child.tags.lock().iter() {
                cache.invalidate_all(tag);
            }
        }
    }
}

/// A guest's first-stage table on a parent.
#[derive(Debug)]
pub(super) struct Nested {
    pub key: u64,
    pub data: VtdS1,
    pub parent: Arc<Paging>,
    /// One for each device and PASID that is attached, in the translation cache.
    pub tags: Mutex<Vec<Arc<Tag>>>,
}

/// Either.
#[derive(Debug, Clone)]
pub(super) enum Domain {
    Paging(Arc<Paging>),
    Nested(Arc<Nested>),
}

impl Domain {
    pub fn key(&self) -> u64 {
        match self {
            Self::Paging(domain) => domain.key,
            Self::Nested(domain) => domain.key,
        }
    }

    /// The domain that has the maps.
    pub fn paging(&self) -> &Arc<Paging> {
        match self {
            Self::Paging(domain) => domain,
            Self::Nested(domain) => &domain.parent,
        }
    }
}
