//! The host behind assigned devices: iommufd, and what the unit keeps on it.
//!
//! [`Host`] holds one [`space::Space`] for each iommufd: one IOAS that maps guest RAM
//! once, a nesting parent on it, the nested HWPTs, and the devices ([`device`]). It
//! speaks through [`iommufd`] to a [`ioctl::System`]: the kernel, or the twin that
//! plays it.
//!
//! Calls are made while the unit's lock is held, as the kernel is what the hardware
//! would be; the VMM is called only where it has said that it attaches devices itself.

pub mod device;
#[expect(unsafe_code, reason = "system calls take addresses")]
pub mod ioctl;
pub mod iommufd;
pub mod ranges;
pub mod soft;
pub mod space;
pub mod uapi;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::Error;
use crate::memory::{GuestMemory, RegionInfo};
use crate::spec::registers::{Cap, Ecap};
use device::HostDevice;
use ioctl::{Fd, System};
use iommufd::{Attach, Iommufd, VfioDevice};
use space::{Collected, Space};

pub use uapi::VtdS1;

/// A positive errno, as the kernel would answer.
pub type Errno = i32;

/// A call that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostError {
    /// Number of the call, see [`uapi::request`].
    pub request: u32,
    /// Why.
    pub errno: Errno,
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        let what = match error.request {
            0 => "/dev/iommu",
            request => uapi::request::name(request),
        };
        let why = std::io::Error::from_raw_os_error(error.errno);
        Self::new(error.errno, format!("the host refused {what}: {why}"))
    }
}

/// The registers of a host unit that say what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HwInfo {
    /// `cap_reg`.
    pub cap: Cap,
    /// `ecap_reg`.
    pub ecap: Ecap,
}

/// What `IOMMU_GET_HW_INFO` tells of a device and its host unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostInfo {
    /// `cap_reg`.
    pub cap: Cap,
    /// `ecap_reg`.
    pub ecap: Ecap,
    /// `out_capabilities`: `IOMMU_HW_CAP_*`.
    pub capabilities: u64,
    /// `out_max_pasid_log2`: bits in the device's PASIDs, 0 for none. Linux 6.12 always
    /// says 0.
    pub pasid_bits: u32,
}

impl HostInfo {
    /// Bits in an address that a nesting parent maps: the widest second-stage tables that
    /// MGAW and SAGAW (11.4.2) both allow; 0 for none.
    pub fn parent_bits(&self) -> u32 {
        let address_width = u32::from(self.cap.address_width()).saturating_add(1);
        let tables = self.cap.second_stage_widths();
        // Tables of one width serve narrower addresses, too.
        let widest = [(57, 48, 0b1000), (48, 39, 0b1100), (39, 30, 0b1110)];
        widest
            .into_iter()
            .find(|(_, more_than, levels)| tables & levels != 0 && address_width > *more_than)
            .map_or(0, |(width, ..)| address_width.min(width))
    }
}

/// What the guest is offered, as far as objects on the host depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// Bits in a PASID, 0 for none.
    pub pasid_bits: u32,
    /// Page requests.
    pub page_requests: bool,
}

/// A device that the VMM lends.
#[derive(Debug)]
pub struct Lent {
    /// The iommufd it is or is to be bound to; None for the unit's own.
    pub iommufd: Option<Fd>,
    /// Its ID there; None if it is to be bound.
    pub dev_id: Option<u32>,
    /// Its vfio file, or whoever attaches it instead.
    pub way: Way,
}

/// How a device is attached.
#[derive(Debug)]
pub enum Way {
    /// Through its vfio file, which the VMM keeps open.
    File(Fd),
    /// Through its vfio file, which is closed with the device.
    OwnFile(Fd),
    /// The VMM does it.
    Vmm(Box<dyn Attach>),
}

/// The host's side of a unit.
#[derive(Debug)]
pub struct Host {
    system: Arc<dyn System>,
    memory: Arc<GuestMemory>,
    offer: Offer,
    spaces: Mutex<Spaces>,
}

#[derive(Debug, Default)]
struct Spaces {
    list: Vec<Arc<Space>>,
    last_number: u64,
}

impl Host {
    /// Reach iommufd through `system`; devices see the RAM of `memory`.
    pub fn new(system: Arc<dyn System>, memory: Arc<GuestMemory>, offer: Offer) -> Self {
        Self {
            system,
            memory,
            offer,
            spaces: Mutex::default(),
        }
    }

    /// Take a device. It is not attached before [`Self::join`], and is to be given to
    /// [`Self::leave`] whatever becomes of that.
    ///
    /// # Errors
    /// `/dev/iommu` cannot be opened (its request number is 0), or a call is refused.
    /// Nothing is then left.
    pub fn take(&self, lent: Lent) -> Result<HostDevice, HostError> {
        // The space stays while a device is on its way to it.
        let space = {
            let mut spaces = self.spaces.lock();
            let known = spaces.list.iter().find(|space| match lent.iommufd {
                Some(fd) => !space.iommufd.is_owned() && space.iommufd.fd() == fd,
                None => space.iommufd.is_owned(),
            });
            let space = if let Some(space) = known {
                Arc::clone(space)
            } else {
                let iommufd = Iommufd::new(Arc::clone(&self.system), lent.iommufd)
                    .map_err(|errno| HostError { request: 0, errno })?;
                spaces.last_number = spaces.last_number.saturating_add(1);
                let space = Arc::new(Space::new(iommufd, spaces.last_number, self.offer));
                spaces.list.push(Arc::clone(&space));
                space
            };
            space.enter();
            space
        };
        let taken = self.bind(&space, lent);
        if taken.is_err() {
            space.leave();
            self.collect();
        }
        taken
    }

    fn bind(&self, space: &Arc<Space>, lent: Lent) -> Result<HostDevice, HostError> {
        let file = |fd, owned| VfioDevice {
            system: Arc::clone(&self.system),
            fd,
            owned,
        };
        let (way, file): (Box<dyn Attach>, _) = match lent.way {
            Way::File(fd) => (Box::new(file(fd, false)), Some(fd)),
            Way::OwnFile(fd) => (Box::new(file(fd, true)), Some(fd)),
            Way::Vmm(way) => (way, None),
        };
        let dev_id = match (lent.dev_id, file) {
            (Some(dev_id), _) => dev_id,
            (None, Some(fd)) => space.iommufd.bind(fd)?,
            (None, None) => {
                return Err(HostError {
                    request: uapi::request::VFIO_BIND,
                    errno: libc::EBADF,
                });
            }
        };
        let info = space.iommufd.hw_info(dev_id)?;
        Ok(HostDevice::new(Arc::clone(space), dev_id, info, way, file))
    }

    /// Give a device its place on a nesting parent; RAM is mapped for the first one.
    ///
    /// # Errors
    /// The call that was refused.
    pub fn join(&self, device: &HostDevice) -> Result<(), HostError> {
        // RAM that comes or goes waits.
        let _spaces = self.spaces.lock();
        device.space.join(device, &self.memory)
    }

    /// A device that was taken goes: it is detached. What that is refused for is
    /// detached when its file is closed, and then no longer in use.
    pub fn leave(&self, device: &HostDevice) {
        device.leave();
        device.space.leave();
    }

    /// Destroy what nobody uses any more: nested HWPTs, and everything on iommufds
    /// without devices.
    pub fn collect(&self) -> Collected {
        let mut collected = Collected::default();
        let mut spaces = self.spaces.lock();
        spaces.list.retain(|space| !space.end(&mut collected));
        collected
    }

    /// The spaces at present.
    pub fn spaces(&self) -> Vec<Arc<Space>> {
        self.spaces.lock().list.clone()
    }

    /// Register RAM by `add`, and map it for every device, or nothing of both.
    ///
    /// # Errors
    /// Those of `add`, made from the refused call where the host is at fault.
    pub fn ram_add<E: From<HostError>>(
        &self,
        region: &RegionInfo,
        add: impl FnOnce() -> Result<(), E>,
        undo: impl FnOnce(),
    ) -> Result<(), E> {
        let spaces = self.spaces.lock();
        add()?;
        for (index, space) in spaces.list.iter().enumerate() {
            if let Err(error) = space.map_region(region) {
                for space in spaces.list.iter().take(index) {
                    space.take_back(region);
                }
                undo();
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Unmap RAM for every device, then take it back by `remove`; or nothing of both.
    ///
    /// # Errors
    /// The call that was refused, or those of `remove`.
    pub fn ram_remove<E: From<HostError>>(
        &self,
        region: &RegionInfo,
        remove: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let spaces = self.spaces.lock();
        for (index, space) in spaces.list.iter().enumerate() {
            if let Err(error) = space.unmap_region(region) {
                for space in spaces.list.iter().take(index) {
                    let _mapped = space.map_region(region);
                }
                return Err(error.into());
            }
        }
        remove()
    }

    /// Track which pages devices write, or stop it.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: a host unit cannot.
    pub fn set_dirty_tracking(&self, on: bool) -> Result<(), HostError> {
        for space in self.spaces() {
            space
                .for_each_tracking(uapi::request::HWPT_SET_DIRTY_TRACKING, |iommufd, parent| {
                    iommufd.set_dirty_tracking(parent, on)
                })?;
        }
        Ok(())
    }

    /// Set the bits of pages that devices wrote, see [`Iommufd::dirty_bitmap`].
    ///
    /// # Errors
    /// As there.
    pub fn dirty_bitmap(
        &self,
        range: (u64, u64),
        page_size: u64,
        keep: bool,
        bitmap: &mut [u64],
    ) -> Result<(), HostError> {
        for space in self.spaces() {
            space.for_each_tracking(uapi::request::HWPT_GET_DIRTY_BITMAP, |iommufd, parent| {
                iommufd.dirty_bitmap(parent, range, page_size, keep, bitmap)
            })?;
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.collect();
    }
}
