//! Guest RAM: the regions the VMM registered, read and written in place.
//!
//! This is the one place that turns a guest-physical address into a pointer. An
//! access holds the region table's read lock, so when [`GuestMemory::remove`]
//! returns nothing touches the region any more. Guest processors write the same
//! memory at the same time: every access is one atomic load, store or exchange.

pub mod pinned;
pub mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};

use crate::{Error, Result};

/// Most regions that can be registered.
pub const MAX_REGIONS: usize = 4096;

/// Regions start, end and lie in the process at multiples of this many bytes, so
/// that an aligned access never straddles two.
const ALIGNMENT: u64 = 8;

/// Why guest RAM could not be accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryError {
    /// No region covers the address.
    NotRam,
    /// The region is read-only.
    ReadOnly,
    /// The address is not a multiple of the access size.
    Misaligned,
}

/// What a device may do with a page of guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// Registered for reading and writing.
    Writable,
    /// Registered read-only.
    ReadOnly,
}

/// Memory of this process that is to become guest RAM.
#[derive(Debug)]
pub struct HostRam {
    pointer: *mut u8,
    size: u64,
    /// Keeps the memory alive if it is ours to keep.
    _owner: Option<OwnedRam>,
}

// SAFETY: the pointer is only used for atomic accesses inside the memory, which is
// valid from any thread for as long as this value lives: `new` demands it, and
// otherwise `_owner` keeps it.
unsafe impl Send for HostRam {}
// SAFETY: as above.
unsafe impl Sync for HostRam {}

impl HostRam {
    /// `size` bytes at `pointer`, which somebody else owns.
    ///
    /// # Safety
    /// The memory is valid for reads and, unless it is registered read-only, for
    /// writes from any thread until this value is dropped: by
    /// [`GuestMemory::remove`], or with the [`GuestMemory`].
    pub unsafe fn new(pointer: *mut u8, size: u64) -> Self {
        Self {
            pointer,
            size,
            _owner: None,
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the process has it.
    pub fn address(&self) -> u64 {
        self.pointer.expose_provenance() as u64
    }
}

/// A page, as hosts map them.
#[derive(Debug)]
#[repr(C, align(4096))]
struct Page([AtomicU64; 512]);

/// Zeroed memory of this process that is RAM for as long as somebody holds it; aligned
/// to pages, and seen as qwords.
#[derive(Debug, Clone)]
pub struct OwnedRam(Arc<[Page]>);

impl OwnedRam {
    /// At least `size` bytes, in whole pages.
    pub fn new(size: u64) -> Self {
        let page = |_| Page(core::array::from_fn(|_| AtomicU64::new(0)));
        Self(
            (0..size.div_ceil(size_of::<Page>() as u64))
                .map(page)
                .collect(),
        )
    }
}

impl core::ops::Deref for OwnedRam {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        let qwords = self.0.len().saturating_mul(512);
        // SAFETY: pages are arrays of qwords without anything between or behind them.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), qwords) }
    }
}

impl From<OwnedRam> for HostRam {
    /// Memory that is shared with the caller.
    fn from(ram: OwnedRam) -> Self {
        // Interior mutability makes writing through this pointer sound.
        let pointer = ram.0.as_ptr().cast::<u8>().cast_mut();
        Self {
            pointer,
            size: size_of_val(&*ram.0) as u64,
            _owner: Some(ram),
        }
    }
}

#[derive(Debug)]
struct Region {
    gpa: u64,
    ram: HostRam,
    read_only: bool,
}

impl Region {
    /// Address after the last byte; `add` made sure that it does not overflow.
    fn end(&self) -> u64 {
        self.gpa.saturating_add(self.ram.size)
    }

    #[inline]
    fn holds(&self, gpa: u64) -> bool {
        gpa.wrapping_sub(self.gpa) < self.ram.size
    }

    fn info(&self) -> RegionInfo {
        RegionInfo {
            gpa: self.gpa,
            size: self.ram.size,
            address: self.ram.address(),
            read_only: self.read_only,
        }
    }
}

/// A region as it was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionInfo {
    /// Guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub size: u64,
    /// Where the process has it.
    pub address: u64,
    /// Devices may not write it.
    pub read_only: bool,
}

/// The region table: sorted by address, never overlapping.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: RwLock<Vec<Region>>,
    /// Place of the region in which something was found that was looked for: mostly the next is there, too.
    recent: AtomicUsize,
}

impl GuestMemory {
    /// Register guest RAM at `gpa`.
    ///
    /// # Errors
    /// `EINVAL` for a NULL, empty, overflowing or misaligned region, `EEXIST` for
    /// one that overlaps another, `ENOSPC` for one too many.
    pub fn add(&self, gpa: u64, ram: HostRam, read_only: bool) -> Result<()> {
        if ram.pointer.is_null() {
            return Err(Error::invalid(
                "host is NULL; pass where the process has the RAM",
            ));
        }
        let (size, host) = (ram.size, ram.pointer.addr() as u64);
        if size == 0 {
            return Err(Error::invalid(
                "size is 0; a RAM region has at least 8 bytes",
            ));
        }
        if [gpa, size, host].iter().any(|value| value % ALIGNMENT != 0) {
            return Err(Error::invalid(format!(
                "gpa {gpa:#x}, size {size:#x} and host {host:#x} must be multiples of 8"
            )));
        }
        let Some(end) = gpa.checked_add(size) else {
            return Err(Error::invalid(format!(
                "gpa {gpa:#x} + size {size:#x} is beyond 64 bits; shorten the region"
            )));
        };
        let mut regions = self.regions.write();
        if regions.len() >= MAX_REGIONS {
            return Err(Error::new(
                libc::ENOSPC,
                format!("there are {MAX_REGIONS} RAM regions already; remove one first"),
            ));
        }
        let index = regions.partition_point(|region| region.gpa < gpa);
        let before = index.checked_sub(1).and_then(|before| regions.get(before));
        let overlapped = before
            .filter(|region| region.end() > gpa)
            .or_else(|| regions.get(index).filter(|region| region.gpa < end));
        if let Some(other) = overlapped {
            return Err(Error::new(
                libc::EEXIST,
                format!(
                    "RAM at {gpa:#x} size {size:#x} overlaps the region at {:#x} size {:#x}; \
                     remove that one first",
                    other.gpa, other.ram.size
                ),
            ));
        }
        regions.insert(
            index,
            Region {
                gpa,
                ram,
                read_only,
            },
        );
        Ok(())
    }

    /// Take a region back, exactly as it was registered. No access to it is under
    /// way or begins once this returns.
    ///
    /// # Errors
    /// `ENOENT` if no region has this address and size.
    pub fn remove(&self, gpa: u64, size: u64) -> Result<()> {
        let mut regions = self.regions.write();
        match regions
            .iter()
            .position(|region| region.gpa == gpa && region.ram.size == size)
        {
            Some(index) => {
                regions.remove(index);
                Ok(())
            }
            None => Err(Error::new(
                libc::ENOENT,
                format!(
                    "no RAM region at {gpa:#x} has size {size:#x}; remove regions exactly as they \
                     were added"
                ),
            )),
        }
    }

    /// Every region, in the order of their addresses.
    pub fn regions(&self) -> Vec<RegionInfo> {
        let regions = self.regions.read();
        regions.iter().map(Region::info).collect()
    }

    /// The region of this address and size.
    pub fn region(&self, gpa: u64, size: u64) -> Option<RegionInfo> {
        let regions = self.regions.read();
        find(&regions, gpa)
            .map(|(_, region)| region.info())
            .filter(|region| (region.gpa, region.size) == (gpa, size))
    }

    /// Read a naturally aligned little-endian qword.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn read_u64(&self, gpa: u64) -> core::result::Result<u64, MemoryError> {
        self.locked().read_u64(gpa)
    }

    /// Read `N` qwords, each atomically.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn read_qwords<const N: usize>(
        &self,
        gpa: u64,
    ) -> core::result::Result<[u64; N], MemoryError> {
        self.locked().read_qwords(gpa)
    }

    /// Write a naturally aligned little-endian dword.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn write_u32(&self, gpa: u64, value: u32) -> core::result::Result<(), MemoryError> {
        self.locked().write_u32(gpa, value)
    }

    /// Write `N` naturally aligned little-endian qwords, each atomically, in the order
    /// of their addresses.
    ///
    /// # Errors
    /// See [`MemoryError`]; some of the qwords may then have been written.
    pub fn write_qwords<const N: usize>(
        &self,
        gpa: u64,
        qwords: [u64; N],
    ) -> core::result::Result<(), MemoryError> {
        self.locked().write_qwords(gpa, qwords)
    }

    /// Replace the qword `old` at `gpa` by `new`. False if it was not `old`.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn compare_exchange_u64(
        &self,
        gpa: u64,
        old: u64,
        new: u64,
    ) -> core::result::Result<bool, MemoryError> {
        self.locked().compare_exchange_u64(gpa, old, new)
    }

    /// The memory with its regions locked, for several accesses at the cost of one lock. Regions can be
    /// added and removed only once it is dropped, so there must be no other access by this thread meanwhile.
    pub fn locked(&self) -> LockedMemory<'_> {
        LockedMemory {
            regions: self.regions.read(),
            recent: &self.recent,
        }
    }

    /// What is the page of `size` bytes (a power of two) around `gpa` to a device?
    /// None unless one region holds all of it, as a host can map only whole pages.
    pub fn page(&self, gpa: u64, size: u64) -> Option<PageKind> {
        let start = gpa & !size.wrapping_sub(1);
        let regions = self.regions.read();
        let (_, region) = find(&regions, start)?;
        if region.end().wrapping_sub(start) < size {
            return None;
        }
        Some(if region.read_only {
            PageKind::ReadOnly
        } else {
            PageKind::Writable
        })
    }
}

/// Guest RAM whose regions stay as they are; see [`GuestMemory::locked`].
pub struct LockedMemory<'a> {
    regions: RwLockReadGuard<'a, Vec<Region>>,
    /// As [`GuestMemory::recent`].
    recent: &'a AtomicUsize,
}

impl LockedMemory<'_> {
    /// The region that holds the byte at `gpa`.
    #[inline]
    fn find(&self, gpa: u64) -> Option<&Region> {
        let recent = self.regions.get(self.recent.load(Ordering::Relaxed));
        match recent.filter(|region| region.holds(gpa)) {
            None => self.search(gpa),
            found => found,
        }
    }

    fn search(&self, gpa: u64) -> Option<&Region> {
        let (place, region) = find(&self.regions, gpa)?;
        self.recent.store(place, Ordering::Relaxed);
        Some(region)
    }

    /// Run `access` on the pointer to `size` bytes at `gpa`. `size` is a power of
    /// two up to 8, so an aligned access lies within one region.
    fn with<T>(
        &self,
        gpa: u64,
        size: u64,
        write: bool,
        access: impl FnOnce(*mut u8) -> T,
    ) -> core::result::Result<T, MemoryError> {
        if gpa & size.wrapping_sub(1) != 0 {
            return Err(MemoryError::Misaligned);
        }
        let region = self.find(gpa).ok_or(MemoryError::NotRam)?;
        if write && region.read_only {
            return Err(MemoryError::ReadOnly);
        }
        let offset =
            usize::try_from(gpa.wrapping_sub(region.gpa)).map_err(|_| MemoryError::NotRam)?;
        Ok(access(region.ram.pointer.wrapping_add(offset)))
    }

    /// Read a naturally aligned little-endian qword.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn read_u64(&self, gpa: u64) -> core::result::Result<u64, MemoryError> {
        self.with(gpa, 8, false, |pointer| {
            // SAFETY: `pointer` is 8-aligned, inside a region that stays valid
            // while `with` holds the lock, and only accessed atomically.
            let value = unsafe { AtomicU64::from_ptr(pointer.cast()) };
            u64::from_le(value.load(Ordering::Acquire))
        })
    }

    /// Read `N` qwords, each atomically.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn read_qwords<const N: usize>(
        &self,
        gpa: u64,
    ) -> core::result::Result<[u64; N], MemoryError> {
        let mut qwords = [0; N];
        self.read_all(gpa, &mut qwords)?;
        Ok(qwords)
    }

    /// Read as many qwords as there are in `qwords`, each atomically, in the order of their addresses.
    ///
    /// # Errors
    /// See [`MemoryError`]; some of the qwords may then have been read.
    pub fn read_into(&self, gpa: u64, qwords: &mut [u64]) -> core::result::Result<(), MemoryError> {
        self.read_all(gpa, qwords)
    }

    // Inlined, as no loop is left where their number is known.
    #[inline(always)]
    fn read_all(&self, gpa: u64, qwords: &mut [u64]) -> core::result::Result<(), MemoryError> {
        let bytes = size_of_val(qwords) as u64;
        let whole = self
            .find(gpa)
            .filter(|region| gpa % 8 == 0 && region.end().wrapping_sub(gpa) >= bytes);
        if let Some(region) = whole {
            let offset =
                usize::try_from(gpa.wrapping_sub(region.gpa)).map_err(|_| MemoryError::NotRam)?;
            let first = region.ram.pointer.wrapping_add(offset).cast::<AtomicU64>();
            for (index, qword) in qwords.iter_mut().enumerate() {
                // SAFETY: 8-aligned, in a region that has all of them and stays valid while it is locked, and only
                // accessed atomically.
                let value = unsafe { AtomicU64::from_ptr(first.wrapping_add(index).cast()) };
                *qword = u64::from_le(value.load(Ordering::Acquire));
            }
            return Ok(());
        }
        let mut address = gpa;
        for qword in qwords {
            *qword = self.read_u64(address)?;
            address = address.checked_add(8).ok_or(MemoryError::NotRam)?;
        }
        Ok(())
    }

    /// Write a naturally aligned little-endian dword.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn write_u32(&self, gpa: u64, value: u32) -> core::result::Result<(), MemoryError> {
        self.with(gpa, 4, true, |pointer| {
            // SAFETY: as in `read_u64`, 4-aligned and in a writable region.
            let target = unsafe { AtomicU32::from_ptr(pointer.cast()) };
            target.store(value.to_le(), Ordering::Release);
        })
    }

    /// Write `N` naturally aligned little-endian qwords, each atomically, in the order
    /// of their addresses.
    ///
    /// # Errors
    /// See [`MemoryError`]; some of the qwords may then have been written.
    pub fn write_qwords<const N: usize>(
        &self,
        gpa: u64,
        qwords: [u64; N],
    ) -> core::result::Result<(), MemoryError> {
        let mut address = gpa;
        for qword in qwords {
            self.with(address, 8, true, |pointer| {
                // SAFETY: as in `read_u64`, in a writable region.
                let target = unsafe { AtomicU64::from_ptr(pointer.cast()) };
                target.store(qword.to_le(), Ordering::Release);
            })?;
            address = address.checked_add(8).ok_or(MemoryError::NotRam)?;
        }
        Ok(())
    }

    /// Replace the qword `old` at `gpa` by `new`. False if it was not `old`.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn compare_exchange_u64(
        &self,
        gpa: u64,
        old: u64,
        new: u64,
    ) -> core::result::Result<bool, MemoryError> {
        self.with(gpa, 8, true, |pointer| {
            // SAFETY: as in `read_u64`, in a writable region.
            let target = unsafe { AtomicU64::from_ptr(pointer.cast()) };
            target
                .compare_exchange(
                    old.to_le(),
                    new.to_le(),
                    Ordering::AcqRel,
                    Ordering::Acquire,
                )
                .is_ok()
        })
    }
}

/// The region that holds the byte at `gpa`, and its place.
fn find(regions: &[Region], gpa: u64) -> Option<(usize, &Region)> {
    let after = regions.partition_point(|region| region.gpa <= gpa);
    let place = after.checked_sub(1)?;
    let region = regions.get(place)?;
    region.holds(gpa).then_some((place, region))
}

#[cfg(test)]
mod tests;
