//! Page requests of the host's devices: from the fault queue of their iommufd into the
//! guest's page request queue, and the guest's answers back.

use std::sync::Arc;

use super::Unit;
use super::device::Device;
use super::page_requests::PageRequest;
use crate::Error;
use crate::Result;
use crate::host::ioctl::Fd;
use crate::host::space::Space;
use crate::host::uapi::{
    PAGE_FAULT_EXECUTE, PAGE_FAULT_LAST_PAGE, PAGE_FAULT_PASID_VALID, PAGE_FAULT_PRIVILEGED,
    PAGE_FAULT_READ, PAGE_FAULT_WRITE, PAGE_RESPONSE_INVALID, PAGE_RESPONSE_SUCCESS, PageFault,
};
use crate::spec::page_request::ResponseCode;

/// Reads of one fault queue that a call makes at most; the file stays readable if there
/// is more.
const MAX_READS: usize = 16;

/// Groups of one device that the guest has not answered, at most: more than devices have requests on their way. Those beyond are
/// answered at once, as a guest may answer none.
const MAX_GROUPS: usize = 4096;

/// A group of page requests that a host has asked.
#[derive(Debug, Clone)]
pub(super) enum HostGroup {
    /// It waits to have it answered.
    Here {
        space: Arc<Space>,
        file: Fd,
        cookie: u32,
    },
    /// It is another host, and this state was loaded: the device that asked is not there any
    /// more, so the answer is nobody's.
    Elsewhere,
}

impl HostGroup {
    /// Answer it. A group that is none any more, as its device has left the HWPT, was
    /// answered by the kernel.
    pub fn answer(&self, code: ResponseCode) {
        let Self::Here {
            space,
            file,
            cookie,
        } = self
        else {
            return;
        };
        let code = match code {
            ResponseCode::Success => PAGE_RESPONSE_SUCCESS,
            ResponseCode::Invalid | ResponseCode::Failure => PAGE_RESPONSE_INVALID,
        };
        let _answered = space.iommufd.answer_fault(*file, *cookie, code);
    }
}

/// A record of a fault queue as what the device has asked. The kernel leaks a flag of its
/// own, so only those that are defined count.
fn page_request(record: &PageFault) -> PageRequest {
    let flag = |flag| record.flags & flag != 0;
    let may = |permission| record.perm & permission != 0;
    PageRequest {
        address: record.addr,
        pasid: flag(PAGE_FAULT_PASID_VALID).then_some(record.pasid),
        read: may(PAGE_FAULT_READ),
        write: may(PAGE_FAULT_WRITE),
        execute: may(PAGE_FAULT_EXECUTE),
        privileged: may(PAGE_FAULT_PRIVILEGED),
        last: flag(PAGE_FAULT_LAST_PAGE),
        group: u16::try_from(record.grpid).unwrap_or(u16::MAX),
    }
}

impl Unit {
    /// Put the page requests that the host has into the guest's queue. Whatever cannot be
    /// put there is answered, so that no device waits for ever.
    ///
    /// # Errors
    /// The errno of reading a fault queue.
    pub fn host_faults(&self) -> Result<()> {
        let Some(host) = &self.host else {
            return Ok(());
        };
        for space in host.spaces() {
            let Some(file) = space.fault_file() else {
                continue;
            };
            for _ in 0..MAX_READS {
                let records = self.with_state(|_, _| self.read_host_faults(&space, file))?;
                if records.is_empty() {
                    break;
                }
                // Records of a group follow one another; when one is refused so is the
                // group.
                let mut refused = None;
                for record in &records {
                    self.counters.host_page_requests.add(1);
                    if refused == Some(record.cookie) || !self.host_fault(&space, record) {
                        self.counters.host_page_requests_refused.add(1);
                        refused = Some(record.cookie);
                    }
                }
            }
        }
        Ok(())
    }

    /// Read what there is, and remember what is to be answered. The unit's lock is held:
    /// while it is no device leaves its HWPT, which would end its groups and let the
    /// kernel give their cookies to others.
    fn read_host_faults(&self, space: &Arc<Space>, file: Fd) -> Result<Vec<PageFault>> {
        let records = space
            .iommufd
            .read_faults(file)
            .map_err(|errno| Error::new(errno, "a fault queue of the host could not be read"))?;
        let ends_group = |record: &&PageFault| record.flags & PAGE_FAULT_LAST_PAGE != 0;
        for record in records.iter().filter(ends_group) {
            let group = HostGroup::Here {
                space: Arc::clone(space),
                file,
                cookie: record.cookie,
            };
            let Some((_, device)) = self.device_on(space, record.dev_id) else {
                group.answer(ResponseCode::Invalid);
                continue;
            };
            let request = page_request(record);
            let key = (request.pasid, request.group);
            let mut groups = device.host_groups.lock();
            let unanswered = if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
                Some(group)
            } else {
                // A device that asks again has given up the group before.
                groups.insert(key, group)
            };
            drop(groups);
            if let Some(group) = unanswered {
                group.answer(ResponseCode::Invalid);
            }
        }
        Ok(records)
    }

    /// False if the group was answered, as its device is not there or could not ask so.
    fn host_fault(&self, space: &Arc<Space>, record: &PageFault) -> bool {
        let Some((handle, device)) = self.device_on(space, record.dev_id) else {
            return false;
        };
        let request = page_request(record);
        let taken = self.page_request(handle, request).is_ok();
        if !taken {
            let key = (request.pasid, request.group);
            if let Some(group) = device.host_groups.lock().remove(&key) {
                group.answer(ResponseCode::Invalid);
            }
        }
        taken
    }

    fn device_on(&self, space: &Arc<Space>, dev_id: u32) -> Option<(u32, Arc<Device>)> {
        self.devices.read().find_by(|device| {
            device
                .host
                .as_ref()
                .is_some_and(|host| Arc::ptr_eq(&host.space, space) && host.dev_id == dev_id)
        })
    }

    /// Have the VMM watch the fault queues that are new, while devices are there to fill
    /// them.
    pub(super) fn watch_faults(&self) {
        let Some(host) = &self.host else { return };
        for space in host.spaces() {
            let Some(file) = space.fault_file() else {
                continue;
            };
            if self.watched.lock().insert(space.number) {
                self.vmm.watch(file, true);
            }
        }
    }

    /// The device is to go: if it is the last one of its iommufd, the fault queue goes
    /// with it.
    pub(super) fn unwatch_faults(&self, device: &Device) {
        let Some(bound) = &device.host else { return };
        let (1, Some(file)) = (bound.space.devices(), bound.space.fault_file()) else {
            return;
        };
        if self.watched.lock().remove(&bound.space.number) {
            self.vmm.watch(file, false);
        }
    }
}
