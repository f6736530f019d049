//! Memory of this process that devices reach by I/O address, as a kernel pins it for
//! DMA: the maps of one I/O address space.
//!
//! An access holds the table's read lock, so when [`PinnedMemory::remove`] returns
//! nothing touches the memory any more. Processors write the same memory at the same
//! time: every access is one atomic load or exchange.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::{MemoryError, user};

/// What a map permits a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinRights {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
}

/// A file's pages, mapped into this process for as long as this value lives.
#[derive(Debug)]
pub struct FilePages {
    address: *mut u8,
    length: usize,
}

// SAFETY: the mapping is this value's own, and only its address is handed out.
unsafe impl Send for FilePages {}
// SAFETY: as above.
unsafe impl Sync for FilePages {}

impl FilePages {
    /// Map `length` bytes of a file from `start` on, both multiples of the page size.
    ///
    /// # Errors
    /// The errno: `EBADF` for what is no file, `EINVAL` for a file that is no memfd.
    pub fn map(file: i32, start: u64, length: u64, writable: bool) -> Result<Arc<Self>, i32> {
        let errno = || {
            std::io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO)
        };
        // SAFETY: asks about a file and has no other effect.
        if unsafe { libc::fcntl(file, libc::F_GET_SEALS) } < 0 {
            return Err(errno());
        }
        let length = usize::try_from(length).map_err(|_| libc::EOVERFLOW)?;
        let start = libc::off_t::try_from(start).map_err(|_| libc::EOVERFLOW)?;
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping where the kernel finds room touches nothing that exists.
        let address = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                file,
                start,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(errno());
        }
        Ok(Arc::new(Self {
            address: address.cast(),
            length,
        }))
    }

    /// Where the pages are in this process.
    pub fn address(&self) -> u64 {
        self.address.expose_provenance() as u64
    }
}

impl Drop for FilePages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing has its address any more:
        // whoever pins it keeps a reference.
        unsafe { libc::munmap(self.address.cast(), self.length) };
    }
}

/// One map.
#[derive(Debug)]
struct Pin {
    length: u64,
    pointer: *mut u8,
    rights: PinRights,
    /// Keeps the memory alive if it is a file's.
    _file: Option<Arc<FilePages>>,
}

// SAFETY: the pointer is only used for atomic accesses inside the memory, which whoever
// had it mapped keeps valid until it is unmapped, as of a kernel's map.
unsafe impl Send for Pin {}
// SAFETY: as above.
unsafe impl Sync for Pin {}

/// The maps of one I/O address space that has hardware behind it.
#[derive(Debug, Default)]
pub struct PinnedMemory {
    pins: RwLock<BTreeMap<u64, Pin>>,
}

impl PinnedMemory {
    /// Give devices `length` bytes at `address` of this process as `iova`. All three
    /// are multiples of 4096, and nothing of the range is there yet.
    ///
    /// The memory must stay mapped until [`Self::remove`], as the system call that
    /// stands for this demands of its caller.
    ///
    /// # Errors
    /// [`user::BadAddress`]: not all of it is mapped with these rights.
    pub fn insert(
        &self,
        iova: u64,
        address: u64,
        length: u64,
        rights: PinRights,
        file: Option<Arc<FilePages>>,
    ) -> Result<(), user::BadAddress> {
        if file.is_none() && !user::permits(address, length, rights.write) {
            return Err(user::BadAddress);
        }
        let address = usize::try_from(address).map_err(|_| user::BadAddress)?;
        let pin = Pin {
            length,
            pointer: core::ptr::with_exposed_provenance_mut(address),
            rights,
            _file: file,
        };
        self.pins.write().insert(iova, pin);
        Ok(())
    }

    /// Take a map back. No access to it is under way or begins once this returns.
    pub fn remove(&self, iova: u64) {
        self.pins.write().remove(&iova);
    }

    /// Take all maps back.
    pub fn clear(&self) {
        self.pins.write().clear();
    }

    /// What may be done with the page of `size` bytes (a power of two) around `iova`?
    /// None unless one map has all of it.
    pub fn page(&self, iova: u64, size: u64) -> Option<PinRights> {
        let start = iova & !size.wrapping_sub(1);
        let pins = self.pins.read();
        let (&first, pin) = pins.range(..=start).next_back()?;
        let offset = start.wrapping_sub(first);
        (offset < pin.length && pin.length.wrapping_sub(offset) >= size).then_some(pin.rights)
    }

    /// Run `access` on the pointer to the qword at `iova`.
    fn with<T>(
        &self,
        iova: u64,
        write: bool,
        access: impl FnOnce(&AtomicU64) -> T,
    ) -> Result<T, MemoryError> {
        if iova % 8 != 0 {
            return Err(MemoryError::Misaligned);
        }
        let pins = self.pins.read();
        let (&first, pin) = pins.range(..=iova).next_back().ok_or(MemoryError::NotRam)?;
        let offset = iova.wrapping_sub(first);
        if offset >= pin.length || !pin.rights.read {
            return Err(MemoryError::NotRam);
        }
        if write && !pin.rights.write {
            return Err(MemoryError::ReadOnly);
        }
        let offset = usize::try_from(offset).map_err(|_| MemoryError::NotRam)?;
        let pointer = pin.pointer.wrapping_add(offset);
        // SAFETY: the pin starts at a page and `iova` is a multiple of 8, so the qword is
        // aligned and inside of the pin, which stays mapped while the lock is held; all
        // accesses from here are atomic.
        Ok(access(unsafe { AtomicU64::from_ptr(pointer.cast()) }))
    }

    /// Read a naturally aligned little-endian qword.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn read_u64(&self, iova: u64) -> Result<u64, MemoryError> {
        self.with(iova, false, |cell| {
            u64::from_le(cell.load(Ordering::Acquire))
        })
    }

    /// Replace the qword `old` at `iova` by `new`. False if it was not `old`.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn compare_exchange_u64(&self, iova: u64, old: u64, new: u64) -> Result<bool, MemoryError> {
        self.with(iova, true, |cell| {
            cell.compare_exchange(
                old.to_le(),
                new.to_le(),
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok()
        })
    }
}
