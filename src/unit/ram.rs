//! Guest RAM that comes and goes.

use super::Unit;
use crate::event::Event;
use crate::memory::{HostRam, RegionInfo};
use crate::spec::PAGE_SIZE;
use crate::{Error, Result};

impl Unit {
    /// Register guest RAM. Devices on the host reach it when this returns.
    ///
    /// # Errors
    /// As [`GuestMemory::add`], or the host cannot map it (its errno); nothing is then
    /// registered.
    ///
    /// [`GuestMemory::add`]: crate::memory::GuestMemory::add
    pub fn ram_add(&self, gpa: u64, ram: HostRam, read_only: bool) -> Result<()> {
        let size = ram.size();
        let region = RegionInfo {
            gpa,
            size,
            address: ram.address(),
            read_only,
        };
        if self.host.is_some() && (gpa ^ region.address) % PAGE_SIZE != 0 {
            return Err(Error::invalid(format!(
                "the host maps whole pages, so gpa {gpa:#x} and host {:#x} must be at the same \
                 place within a page",
                region.address
            )));
        }
        self.check_ram(&region)?;
        let add = || self.memory.add(gpa, ram, read_only);
        match &self.host {
            None => add()?,
            Some(host) => host.ram_add(&region, add, || {
                let _removed = self.memory.remove(gpa, size);
            })?,
        }
        self.vmm
            .event(Event::RamAdd, gpa, size, u64::from(read_only));
        Ok(())
    }

    /// Take a RAM region back. Nothing reaches it when this returns.
    ///
    /// # Errors
    /// As [`GuestMemory::remove`], or the host cannot let go of it (its errno); the
    /// region is then as it was.
    ///
    /// [`GuestMemory::remove`]: crate::memory::GuestMemory::remove
    pub fn ram_remove(&self, gpa: u64, size: u64) -> Result<()> {
        let remove = || self.memory.remove(gpa, size);
        match (&self.host, self.memory.region(gpa, size)) {
            (Some(host), Some(region)) => host.ram_remove(&region, remove)?,
            _ => remove()?,
        }
        self.contexts.clear();
        self.interrupt_entries.invalidate_all();
        self.vmm.event(Event::RamRemove, gpa, size, 0);
        Ok(())
    }

    /// Track which pages assigned devices write, or stop it. Tracking begins with every
    /// page clean.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: there is no host, or a host unit cannot.
    pub fn set_dirty_tracking(&self, on: bool) -> Result<()> {
        self.tracking_host()?.set_dirty_tracking(on)?;
        Ok(())
    }

    /// Set a bit in `bitmap` for each page of `page_size` bytes of `gpa` and `length`
    /// that an assigned device wrote since this was asked last, or tracking began; with
    /// `keep`, ask without making the pages clean.
    ///
    /// # Errors
    /// `EINVAL`: range, page size and bitmap do not go together. `EOPNOTSUPP`: nothing
    /// is tracked.
    pub fn dirty_bitmap(
        &self,
        gpa: u64,
        length: u64,
        page_size: u64,
        keep: bool,
        bitmap: &mut [u64],
    ) -> Result<()> {
        self.tracking_host()?
            .dirty_bitmap((gpa, length), page_size, keep, bitmap)?;
        Ok(())
    }

    fn tracking_host(&self) -> Result<&crate::host::Host> {
        self.host.as_ref().ok_or_else(|| {
            Error::new(
                libc::EOPNOTSUPP,
                "without a host no device writes but through the VMM; track its own writes, or \
                 select a host",
            )
        })
    }
}
