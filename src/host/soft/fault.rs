//! Page requests (PRI): from a device to the fault queue of the HWPT it is attached to,
//! and the answers back.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::dispatch::Call;
use super::group::Attached;
use super::objects::Kind as Object;
use super::{File, State, Twin, inject};
use crate::host::Errno;
use crate::host::ioctl::Fd;
use crate::host::uapi::{
    FaultAlloc, PAGE_FAULT_EXECUTE, PAGE_FAULT_LAST_PAGE, PAGE_FAULT_PASID_VALID,
    PAGE_FAULT_PRIVILEGED, PAGE_FAULT_READ, PAGE_FAULT_WRITE, PAGE_RESPONSE_INVALID,
    PAGE_RESPONSE_SUCCESS, PageFault, PageFaultResponse, Plain,
};
use crate::spec::PAGE_SIZE;

/// `sizeof(struct iommu_hwpt_pgfault)` and `sizeof(struct iommu_hwpt_page_response)`.
const RECORD_SIZE: usize = 40;
const RESPONSE_SIZE: usize = 8;

/// `IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID`, a flag that the kernel keeps to itself and
/// hands out all the same.
const LEAKED_FLAG: u32 = 4;

/// Requests of unfinished groups, and answers, that a device keeps at most.
const MOST_KEPT: usize = 1 << 12;

/// Bits of a canonical address on a processor with 5-level tables.
const CANONICAL_BITS: u32 = 57;

/// Takes bytes at an offset of what a caller wants to read.
pub(super) type CopyOut<'a> = &'a mut dyn FnMut(usize, &[u8]) -> Result<(), Errno>;
/// Gives bytes at an offset of what a caller wants to write.
pub(super) type CopyIn<'a> = &'a mut dyn FnMut(usize, &mut [u8]) -> Result<(), Errno>;

/// A device asks for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TwinPageRequest {
    /// Any address in the page.
    pub address: u64,
    /// PASID, if it has one.
    pub pasid: Option<u32>,
    /// Page request group index.
    pub group: u16,
    /// The page is to be read.
    pub read: bool,
    /// The page is to be written.
    pub write: bool,
    /// The page is to be executed.
    pub execute: bool,
    /// For privileged mode.
    pub privileged: bool,
    /// The last request of its group.
    pub last: bool,
}

/// The answer to a group, as it reaches the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAnswer {
    /// PASID of the group, if it has one.
    pub pasid: Option<u32>,
    /// Page request group index.
    pub group: u16,
    /// `IOMMUFD_PAGE_RESP_*`.
    pub code: u32,
}

/// Which queue a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FaultKey {
    pub context: u64,
    pub id: u32,
}

/// A group of page requests that waits for its answer.
#[derive(Debug)]
struct Group {
    device: Fd,
    device_id: u32,
    /// The attachment under which it came.
    handle: u64,
    requests: Vec<TwinPageRequest>,
}

/// A fault queue.
#[derive(Debug)]
pub(super) struct FaultQueue {
    deliver: VecDeque<Group>,
    delivered: BTreeMap<u32, Group>,
    signal: Option<Signal>,
}

/// A file that can be read while groups wait to be delivered: VMMs poll real files.
#[derive(Debug)]
struct Signal {
    ours: UnixStream,
    theirs: UnixStream,
    raised: bool,
}

impl Signal {
    fn new() -> Result<Self, Errno> {
        let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EMFILE);
        let (ours, theirs) = UnixStream::pair().map_err(errno)?;
        theirs.set_nonblocking(true).map_err(errno)?;
        Ok(Self {
            ours,
            theirs,
            raised: false,
        })
    }

    fn set(&mut self, raise: bool) {
        if raise == self.raised {
            return;
        }
        // One byte is in the pipe exactly while it is raised, so neither call can block.
        let done = if raise {
            self.ours.write(&[1]).is_ok()
        } else {
            self.theirs.read(&mut [0]).is_ok()
        };
        if done {
            self.raised = raise;
        }
    }
}

impl FaultQueue {
    fn update(&mut self) {
        let waiting = !self.deliver.is_empty();
        if let Some(signal) = &mut self.signal {
            signal.set(waiting);
        }
    }

    /// The lowest free cookie from 1 on.
    fn free_cookie(&self) -> u32 {
        let mut free = 1_u32;
        for &cookie in self.delivered.keys() {
            if cookie != free {
                break;
            }
            free = free.saturating_add(1);
        }
        free
    }
}

/// Does sign extension give the address back?
fn is_canonical(address: u64) -> bool {
    let above = 64_u32.saturating_sub(CANONICAL_BITS);
    (address.wrapping_shl(above) as i64).wrapping_shr(above) as u64 == address
}

impl State {
    pub(super) fn fault_alloc(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut alloc: FaultAlloc = call.get();
        if alloc.flags != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let signal = Signal::new()?;
        let fd = signal.theirs.as_raw_fd();
        alloc.out_fault_id = self.context(context)?.free_id()?;
        alloc.out_fault_fd = fd;
        call.respond(&alloc)?;
        let id = self.insert(
            context,
            Object::Fault(FaultQueue {
                deliver: VecDeque::new(),
                delivered: BTreeMap::new(),
                signal: Some(signal),
            }),
        )?;
        let owner = self.context(context)?;
        owner.hold(id);
        owner.users = owner.users.saturating_add(1);
        self.files.insert(fd, File::Fault(FaultKey { context, id }));
        Ok(())
    }

    /// The file of a queue is closed.
    pub(super) fn close_fault(&mut self, key: FaultKey) {
        if let Ok(owner) = self.context(key.context) {
            if let Ok(queue) = owner.fault(key.id) {
                queue.signal = None;
            }
            owner.put(key.id);
        }
        self.put_context(key.context);
    }

    fn queue(&mut self, key: FaultKey) -> Result<&mut FaultQueue, Errno> {
        self.context(key.context)?.fault(key.id)
    }

    /// read(2). `copy` gets the offset and the bytes.
    pub(super) fn read(&mut self, fd: Fd, room: usize, copy: CopyOut<'_>) -> Result<usize, Errno> {
        let key = match self.files.get(&fd) {
            Some(File::Fault(key)) => *key,
            Some(_) => return Err(libc::EINVAL),
            None => return Err(libc::EBADF),
        };
        if room % RECORD_SIZE != 0 {
            return Err(libc::ESPIPE);
        }
        self.meters.injected_other(inject::READ)?;
        let leaks = self.config.quirks.fault_flag_leaks;
        let queue = self.queue(key)?;
        let mut done = 0_usize;
        let mut result = Ok(());
        while let Some(group) = queue.deliver.pop_front() {
            let length = group.requests.len().saturating_mul(RECORD_SIZE);
            if done >= room || length > room.saturating_sub(done) {
                queue.deliver.push_front(group);
                result = Err(libc::EINVAL);
                break;
            }
            let cookie = queue.free_cookie();
            let mut bytes = Vec::with_capacity(length);
            for request in &group.requests {
                bytes.extend(record(request, group.device_id, cookie, leaks).to_bytes());
            }
            if let Err(errno) = copy(done, &bytes) {
                queue.deliver.push_front(group);
                result = Err(errno);
                break;
            }
            queue.delivered.insert(cookie, group);
            done = done.saturating_add(length);
        }
        queue.update();
        if done == 0 {
            result.map(|()| 0)
        } else {
            Ok(done)
        }
    }

    /// write(2). `copy` gets the offset and where the bytes go.
    pub(super) fn write(
        &mut self,
        fd: Fd,
        length: usize,
        copy: CopyIn<'_>,
    ) -> Result<usize, Errno> {
        let key = match self.files.get(&fd) {
            Some(File::Fault(key)) => *key,
            Some(_) => return Err(libc::EINVAL),
            None => return Err(libc::EBADF),
        };
        if length % RESPONSE_SIZE != 0 {
            return Err(libc::ESPIPE);
        }
        let mut done = 0_usize;
        while done < length {
            let mut bytes = [0; RESPONSE_SIZE];
            let answered = copy(done, &mut bytes)
                .and_then(|()| self.respond(key, &PageFaultResponse::from_bytes(&bytes)));
            match answered {
                Ok(()) => done = done.saturating_add(RESPONSE_SIZE),
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn respond(&mut self, key: FaultKey, response: &PageFaultResponse) -> Result<(), Errno> {
        if ![PAGE_RESPONSE_SUCCESS, PAGE_RESPONSE_INVALID].contains(&response.code) {
            return Err(libc::EINVAL);
        }
        let delivered = &mut self.queue(key)?.delivered;
        let group = delivered.remove(&response.cookie).ok_or(libc::EINVAL)?;
        self.answer(&group, response.code);
        Ok(())
    }

    /// poll(2).
    pub(super) fn poll(&mut self, fd: Fd) -> Result<u32, Errno> {
        let input = (libc::POLLIN | libc::POLLRDNORM) as u32;
        let output = libc::POLLOUT as u32;
        match self.files.get(&fd).copied().ok_or(libc::EBADF)? {
            File::Fault(key) if self.queue(key)?.deliver.is_empty() => Ok(output),
            File::Fault(_) => Ok(output | input),
            File::Iommu(_) | File::Device => Ok(output | input | libc::POLLWRNORM as u32),
        }
    }

    /// A group's answer reaches the device.
    fn answer(&mut self, group: &Group, code: u32) {
        if let Some(last) = group.requests.last() {
            self.answer_request(group.device, last, code);
        }
    }

    fn answer_request(&mut self, fd: Fd, request: &TwinPageRequest, code: u32) {
        self.meters.page_responses = self.meters.page_responses.saturating_add(1);
        if let Ok(device) = self.device(fd) {
            if device.answers.len() >= MOST_KEPT {
                device.answers.pop_front();
            }
            device.answers.push_back(PageAnswer {
                pasid: request.pasid,
                group: request.group,
                code,
            });
        }
    }

    /// A queue ends: what waits in it is answered.
    pub(super) fn answer_all(&mut self, queue: FaultQueue) {
        for group in queue.deliver.iter().chain(queue.delivered.values()) {
            self.answer(group, PAGE_RESPONSE_INVALID);
        }
    }

    /// An attachment ends: what came under it is answered
    /// (`iommufd_auto_response_faults`).
    pub(super) fn answer_attachment(&mut self, context: u64, fault: u32, handle: u64) {
        let Ok(queue) = self.context(context).and_then(|owner| owner.fault(fault)) else {
            return;
        };
        let (gone, stay): (VecDeque<_>, _) = std::mem::take(&mut queue.deliver)
            .into_iter()
            .partition(|group| group.handle == handle);
        queue.deliver = stay;
        let cookies: Vec<u32> = queue
            .delivered
            .iter()
            .filter(|(_, group)| group.handle == handle)
            .map(|(&cookie, _)| cookie)
            .collect();
        let delivered: Vec<Group> = cookies
            .into_iter()
            .filter_map(|cookie| queue.delivered.remove(&cookie))
            .collect();
        queue.update();
        for group in gone.iter().chain(&delivered) {
            self.answer(group, PAGE_RESPONSE_INVALID);
        }
    }

    /// A request arrives in the hardware's queue, and the driver takes it out.
    fn page_request(&mut self, fd: Fd, request: TwinPageRequest) -> Result<(), Errno> {
        let device = self.device(fd)?;
        if !device.has_page_requests() {
            return Err(libc::EOPNOTSUPP);
        }
        let request = TwinPageRequest {
            address: request.address & !PAGE_SIZE.wrapping_sub(1),
            ..request
        };
        self.meters.page_requests = self.meters.page_requests.saturating_add(1);
        let bad = !is_canonical(request.address)
            || (request.privileged && (request.read || request.write))
            || (request.execute && request.read);
        if bad {
            if request.last {
                self.answer_request(fd, &request, PAGE_RESPONSE_INVALID);
            }
            return Ok(());
        }
        if request.last && !request.read && !request.write {
            // A stop marker.
            return Ok(());
        }
        let Some((key, record)) = self.fault_handler(fd, request.pasid) else {
            self.answer_request(fd, &request, PAGE_RESPONSE_INVALID);
            return Ok(());
        };
        let device = self.device(fd)?;
        if !request.last {
            if device.partial.len() < MOST_KEPT {
                device.partial.push(request);
            }
            return Ok(());
        }
        let (mut requests, others): (Vec<_>, _) = std::mem::take(&mut device.partial)
            .into_iter()
            .partition(|part| part.group == request.group);
        device.partial = others;
        requests.push(request);
        // Whoever attached the group's first device has it on record.
        let device_id = self.bound(record.first).map_or(0, |bound| bound.id);
        let queue = self.queue(key)?;
        queue.deliver.push_back(Group {
            device: fd,
            device_id,
            handle: record.handle,
            requests,
        });
        queue.update();
        Ok(())
    }

    /// The queue for a device's requests, and the attachment they come under.
    fn fault_handler(&mut self, fd: Fd, pasid: Option<u32>) -> Option<(FaultKey, Attached)> {
        let group = self.group(fd).ok()?;
        let context = group.owner?;
        let record = group.attached(pasid.unwrap_or(0))?;
        let id = self.context(context).ok()?.fault_of(record.hwpt)?;
        Some((FaultKey { context, id }, record))
    }
}

/// A request as software reads it.
fn record(request: &TwinPageRequest, dev_id: u32, cookie: u32, leaks: bool) -> PageFault {
    let flag = |set: bool, value: u32| if set { value } else { 0 };
    let with_pasid = request.pasid.is_some();
    PageFault {
        flags: flag(with_pasid, PAGE_FAULT_PASID_VALID)
            | flag(request.last, PAGE_FAULT_LAST_PAGE)
            | flag(with_pasid && leaks, LEAKED_FLAG),
        dev_id,
        pasid: request.pasid.unwrap_or(0),
        grpid: request.group.into(),
        perm: flag(request.read, PAGE_FAULT_READ)
            | flag(request.write, PAGE_FAULT_WRITE)
            | flag(request.execute, PAGE_FAULT_EXECUTE)
            | flag(request.privileged, PAGE_FAULT_PRIVILEGED),
        addr: request.address,
        cookie,
        ..PageFault::default()
    }
}

impl Twin {
    /// A device requests a page. What it is answered is kept for
    /// [`Self::page_responses`].
    ///
    /// # Errors
    /// `EBADF`: no such device. `EOPNOTSUPP`: it cannot request pages, or its IOMMU does
    /// not take requests.
    pub fn page_request(&self, device: Fd, request: TwinPageRequest) -> Result<(), Errno> {
        self.state.lock().page_request(device, request)
    }

    /// The answers that a device got since the last look, at most 4096.
    ///
    /// # Errors
    /// `EBADF`: no such device.
    pub fn page_responses(&self, device: Fd) -> Result<Vec<PageAnswer>, Errno> {
        let mut state = self.state.lock();
        Ok(state.device(device)?.answers.drain(..).collect())
    }

    /// The oldest answer that was not yet looked at.
    ///
    /// # Errors
    /// `EBADF`: no such device.
    pub fn page_response(&self, device: Fd) -> Result<Option<PageAnswer>, Errno> {
        Ok(self.state.lock().device(device)?.answers.pop_front())
    }
}
