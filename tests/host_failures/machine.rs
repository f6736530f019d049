//! A VMM and its guest over a twin: how devices reach their iommufd, the guest's tables,
//! and an independent account of what they say.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use nested_vtd::event::Event;
use nested_vtd::host::ioctl::{Fd, System};
use nested_vtd::host::iommufd::{Attach, Iommufd, VfioDevice};
use nested_vtd::host::soft::{DmaFault, Twin, TwinDevice, TwinPageRequest, TwinRequest};
use nested_vtd::memory::OwnedRam;
use nested_vtd::translate::Access;
use nested_vtd::translate::tables::Purpose;
use nested_vtd::unit::{BindingState, Config, DeviceDescription, HostKind, Unit};
use nested_vtd::vmm::{LogLevel, Vmm};

use super::model::{
    DEVICES, Entry, HIGH, HIGH_PAGES, HIGH_SIZE, HOLE, LOW_SIZE, Model, PAGES, PASIDS, TABLES,
    domain,
};

const SOURCE_ID: u16 = 0x18;
const ROOT: u64 = 0x1000;
const CONTEXT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const PASID_TABLE: u64 = 0x5000;
const QUEUE: u64 = 0x7000;
const STATUS: u64 = 0x8000;
/// The guest's page request queue, of one page.
const PAGE_QUEUE: u64 = 0x9000;
const STAGES: u64 = 0x1_0000;
const PWU: u64 = 0b111;
const QIE: u32 = 1 << 26;
const TE: u32 = 1 << 31;
/// FSTS.ITE.
const TIMEOUT: u32 = 1 << 6;

/// How devices reach their iommufd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One iommufd that the VMM lends.
    Shared,
    /// One for each device.
    Two,
    /// The unit opens one.
    Own,
    /// One that is lent, on which the VMM binds and attaches.
    ByVmm,
    /// One that is lent, and the guest is offered page requests.
    Asking,
}

/// The VMM: takes notes, and attaches where it has said so.
#[derive(Default)]
pub struct Watcher {
    events: Mutex<Vec<(Event, [u64; 3])>>,
    files: Mutex<Option<(Arc<Twin>, [Fd; DEVICES])>>,
    pub watched: Mutex<Vec<(Fd, bool)>>,
}

impl Vmm for Watcher {
    fn event(&self, event: Event, a: u64, b: u64, c: u64) {
        self.events.lock().unwrap().push((event, [a, b, c]));
    }

    fn msi(&self, _address: u64, _data: u32) {}

    fn log(&self, _level: LogLevel, _message: &str) {}

    fn attach(&self, tag: u64, pasid: Option<u32>, hwpt: Option<u32>) -> Result<(), i32> {
        let (twin, files) = self.files.lock().unwrap().clone().unwrap();
        let device = VfioDevice {
            system: twin,
            fd: files[tag as usize],
            owned: false,
        };
        match hwpt {
            Some(hwpt) => device.attach(pasid, hwpt),
            None => device.detach(pasid),
        }
    }

    fn watch(&self, file: i32, on: bool) {
        self.watched.lock().unwrap().push((file, on));
    }
}

/// The host's refusal of one device's requests: who, the call, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub who: (usize, usize),
    pub request: u32,
    pub errno: i32,
}

pub struct Machine {
    pub twin: Arc<Twin>,
    pub unit: Option<Unit>,
    pub watcher: Arc<Watcher>,
    pub model: Model,
    pub handles: [Option<u32>; DEVICES],
    pub files: [Fd; DEVICES],
    topology: Topology,
    iommufds: Vec<Fd>,
    low: OwnedRam,
    high: OwnedRam,
    tail: u64,
    status: u32,
    /// Devices do not share a parent, by an injected `EINVAL`.
    pub apart: bool,
    /// There is a parent more than needed, by an injected `EINVAL`.
    pub spare: bool,
}

fn twin_device() -> TwinDevice {
    TwinDevice {
        max_pasid_bits: 8,
        ..TwinDevice::default()
    }
}

impl Machine {
    pub fn new(topology: Topology) -> Self {
        let page_requests = topology == Topology::Asking;
        let twin = Arc::new(Twin::default());
        let features = Config::DEFAULT
            .features
            .with_device_tlb(page_requests)
            .with_page_request(page_requests);
        let config = Config {
            host: HostKind::Iommufd,
            pasid_bits: 6,
            features,
            ..Config::DEFAULT
        };
        let watcher = Arc::new(Watcher::default());
        let system = Arc::clone(&twin) as Arc<dyn System>;
        let vmm = Arc::clone(&watcher) as Arc<dyn Vmm>;
        let unit = Unit::with_system(config, vmm, Arc::clone(&system)).unwrap();
        let iommufds: Vec<Fd> = match topology {
            Topology::Own => Vec::new(),
            Topology::Two => vec![twin.open(), twin.open()],
            Topology::Shared | Topology::ByVmm | Topology::Asking => vec![twin.open()],
        };
        let files = [(); DEVICES].map(|()| twin.add_device(twin_device()).unwrap());
        let mut machine = Self {
            twin,
            unit: Some(unit),
            watcher,
            model: Model {
                enabled: false,
                entries: [[Entry::None; PASIDS]; DEVICES],
                moved: [0; TABLES],
                present: [false; DEVICES],
                low: false,
                high: false,
            },
            handles: [None; DEVICES],
            files,
            topology,
            iommufds,
            low: OwnedRam::new(LOW_SIZE),
            high: OwnedRam::new(HIGH_SIZE),
            tail: 0,
            status: 0,
            apart: false,
            spare: false,
        };
        if topology == Topology::ByVmm {
            machine.bind();
        }
        machine.build_tables();
        machine
    }

    fn bind(&self) {
        let system = Arc::clone(&self.twin) as Arc<dyn System>;
        let iommufd = Iommufd::new(system, Some(self.iommufds[0])).unwrap();
        for file in self.files {
            iommufd.bind(file).unwrap();
        }
        *self.watcher.files.lock().unwrap() = Some((Arc::clone(&self.twin), self.files));
    }

    fn build_tables(&mut self) {
        self.poke(ROOT, CONTEXT | 1);
        // DTE and PRE.
        let asks = if self.is_asking() { 0b10100 } else { 0 };
        for device in 0..DEVICES as u64 {
            let context = CONTEXT + (u64::from(SOURCE_ID) + device) * 32;
            // Present, PASIDE.
            self.poke(context, (DIRECTORY + device * 0x1000) | 0b1001 | asks);
            let table = PASID_TABLE + device * 0x1000;
            self.poke(DIRECTORY + device * 0x1000, table | 1);
        }
        for table in 0..TABLES {
            let base = STAGES + table as u64 * 0x4000;
            for level in 0..3 {
                let at = base + level * 0x1000;
                self.poke(at, (at + 0x1000) | PWU);
            }
            for (page, target) in HIGH_PAGES {
                self.poke(base + 0x3000 + (page >> 12) * 8, target | PWU);
            }
            self.map_pages(table);
        }
    }

    /// Point the pages of a table somewhere else.
    pub fn move_pages(&mut self, table: usize) {
        self.model.moved[table] += 1;
        self.map_pages(table);
    }

    fn map_pages(&mut self, table: usize) {
        let base = STAGES + table as u64 * 0x4000 + 0x3000;
        for (index, page) in PAGES.into_iter().enumerate() {
            let target = self.model.data(table, index);
            self.poke(base + (page >> 12) * 8, target | PWU);
        }
    }

    /// Write a PASID entry.
    pub fn set_entry(&mut self, device: usize, pasid: usize, entry: Entry) {
        self.model.entries[device][pasid] = entry;
        let at = PASID_TABLE + device as u64 * 0x1000 + pasid as u64 * 64;
        let (pgtt, table) = match entry {
            Entry::None => (None, 0),
            Entry::Table(table) => (Some(1), table as u64),
            Entry::Through => (Some(4), 0),
        };
        self.poke(at, 0);
        self.poke(at + 16, STAGES + table * 0x4000);
        self.poke(at + 8, u64::from(domain(entry)) | 1 << 23);
        self.poke(at, pgtt.map_or(0, |pgtt: u64| (pgtt << 6) | 1));
    }

    fn poke(&self, gpa: u64, value: u64) {
        self.low[(gpa / 8) as usize].store(value, Ordering::SeqCst);
    }

    pub fn peek(&self, gpa: u64) -> u64 {
        self.low[(gpa / 8) as usize].load(Ordering::SeqCst)
    }

    pub fn unit(&self) -> &Unit {
        self.unit.as_ref().unwrap()
    }

    pub fn write32(&self, offset: u64, value: u32) {
        self.unit().mmio_write(offset, 4, value.into()).unwrap();
    }

    fn write64(&self, offset: u64, value: u64) {
        self.unit().mmio_write(offset, 8, value).unwrap();
    }

    fn read32(&self, offset: u64) -> u32 {
        self.unit().mmio_read(offset, 4).unwrap() as u32
    }

    /// Queue on, root table set.
    pub fn set_root(&mut self) {
        self.write64(0x90, QUEUE | 0x800);
        self.write32(0x18, QIE);
        self.write64(0x20, ROOT | 1 << 10);
        self.write32(0x18, QIE | 1 << 30);
        if self.is_asking() {
            self.write64(0xd0, PAGE_QUEUE);
        }
    }

    pub fn enable(&mut self, on: bool) {
        self.model.enabled = on;
        self.write32(0x18, if on { QIE | TE } else { QIE });
    }

    /// Submit descriptors and a wait, as Linux does: while the queue stops with ITE,
    /// clear it and submit all of it again. `retry` is called before each further
    /// attempt. How many attempts were aborted.
    pub fn submit(&mut self, descriptors: &[[u64; 2]], mut retry: impl FnMut(&Self, u32)) -> u32 {
        let mut aborted = 0;
        loop {
            self.status += 1;
            let wait = [5 | 1 << 5 | u64::from(self.status) << 32, STATUS];
            for descriptor in descriptors.iter().copied().chain([wait]) {
                for (index, qword) in descriptor.into_iter().chain([0, 0]).enumerate() {
                    self.poke(QUEUE + self.tail + index as u64 * 8, qword);
                }
                self.tail = (self.tail + 32) % 0x1000;
            }
            self.write32(0x88, self.tail as u32);
            let faults = self.read32(0x34);
            let done = self.peek(STATUS) as u32 == self.status;
            if done {
                assert_eq!(
                    faults & 0x70,
                    0,
                    "the wait completed, and the queue stopped"
                );
                return aborted;
            }
            assert_eq!(
                faults & 0x70,
                TIMEOUT,
                "the wait did not complete without ITE"
            );
            aborted += 1;
            retry(self, aborted);
            self.write32(0x34, TIMEOUT);
        }
    }

    /// Is the guest offered page requests?
    pub fn is_asking(&self) -> bool {
        self.topology == Topology::Asking
    }

    /// A device asks for a page. Does the request go to the fault queue?
    pub fn ask(&self, device: usize, pasid: usize, group: u16) -> bool {
        let request = TwinPageRequest {
            address: PAGES[0],
            pasid: (pasid > 0).then_some(pasid as u32),
            group,
            read: true,
            last: true,
            ..TwinPageRequest::default()
        };
        self.twin.page_request(self.files[device], request).unwrap();
        matches!(self.model.through(device, pasid), Entry::Table(_))
    }

    /// The answers that a device got: group and code.
    pub fn answers(&self, device: usize) -> Vec<(u16, u32)> {
        let answers = self.twin.page_responses(self.files[device]).unwrap();
        answers
            .iter()
            .map(|answer| (answer.group, answer.code))
            .collect()
    }

    /// The guest takes the page requests that it has got, and gives the descriptors that
    /// answer them with success.
    pub fn take_page_requests(&self) -> Vec<[u64; 2]> {
        let tail = u64::from(self.read32(0xc8));
        let mut head = u64::from(self.read32(0xc0));
        let mut answers = Vec::new();
        while head != tail {
            let (low, high) = (
                self.peek(PAGE_QUEUE + head),
                self.peek(PAGE_QUEUE + head + 8),
            );
            // Requester and PASID stand where the answer has them, and so does the group.
            let with_pasid = low >> 8 & 1;
            let source_id = low >> 16 & 0xffff;
            let pasid = low >> 32 & 0xf_ffff;
            let group = high >> 3 & 0x1ff;
            answers.push([
                9 | with_pasid << 4 | source_id << 16 | pasid << 32,
                group << 3,
            ]);
            head = (head + 32) % 0x1000;
        }
        self.write64(0xc0, head);
        self.write32(0xdc, 1);
        answers
    }

    /// Register RAM.
    pub fn ram(&mut self, high: bool) -> nested_vtd::Result<()> {
        let (gpa, ram) = if high {
            (HIGH, &self.high)
        } else {
            (0, &self.low)
        };
        self.unit().ram_add(gpa, ram.clone().into(), false)?;
        let known = if high {
            &mut self.model.high
        } else {
            &mut self.model.low
        };
        *known = true;
        Ok(())
    }

    pub fn ram_remove_high(&mut self) -> nested_vtd::Result<()> {
        self.unit().ram_remove(HIGH, HIGH_SIZE)?;
        self.model.high = false;
        Ok(())
    }

    pub fn plug(&mut self, device: usize) -> nested_vtd::Result<()> {
        let lent = match self.topology {
            Topology::Own => None,
            Topology::Two => Some(self.iommufds[device]),
            Topology::Shared | Topology::ByVmm | Topology::Asking => Some(self.iommufds[0]),
        };
        let by_vmm = self.topology == Topology::ByVmm;
        let file = self.files[device];
        let description = DeviceDescription {
            tag: device as u64,
            source_id: SOURCE_ID + device as u16,
            assigned: true,
            iommufd: lent,
            file: (!by_vmm).then_some(file),
            dev_id: if by_vmm {
                self.twin.device_id(file)
            } else {
                None
            },
            fixed_id: false,
        };
        let plugged = self.unit().device_add(description);
        if plugged.is_err() && !by_vmm {
            // A file that was bound cannot be bound again.
            self.reopen(device);
        }
        self.handles[device] = Some(plugged?);
        self.model.present[device] = true;
        Ok(())
    }

    fn reopen(&mut self, device: usize) {
        self.twin.close(self.files[device]).unwrap();
        self.files[device] = self.twin.add_device(twin_device()).unwrap();
    }

    /// Take a device out, and close its file.
    pub fn unplug(&mut self, device: usize) {
        let handle = self.handles[device].take().unwrap();
        self.unit().device_remove(handle).unwrap();
        self.model.present[device] = false;
        self.twin.close(self.files[device]).unwrap();
    }

    /// Open the file of a device again, as for plugging it in once more.
    pub fn open_again(&mut self, device: usize) {
        self.files[device] = self.twin.add_device(twin_device()).unwrap();
        if self.topology == Topology::ByVmm {
            let system = Arc::clone(&self.twin) as Arc<dyn System>;
            let iommufd = Iommufd::new(system, Some(self.iommufds[0])).unwrap();
            iommufd.bind(self.files[device]).unwrap();
            let (twin, _) = self.watcher.files.lock().unwrap().clone().unwrap();
            *self.watcher.files.lock().unwrap() = Some((twin, self.files));
        }
    }

    pub fn events(&self) -> Vec<(Event, [u64; 3])> {
        self.watcher.events.lock().unwrap().clone()
    }

    pub fn forget_events(&self) {
        self.watcher.events.lock().unwrap().clear();
    }

    /// Who was refused by the host since the events were forgotten.
    pub fn refusals(&self) -> Vec<Refusal> {
        let of_device = |(event, [a, b, c]): &(Event, [u64; 3])| {
            let device = usize::from(*a as u16).checked_sub(SOURCE_ID.into())?;
            (*event == Event::HostRefused && device < DEVICES).then_some(Refusal {
                who: (device, (a >> 16 & 0xf_ffff) as usize),
                request: *b as u32,
                errno: *c as i32,
            })
        };
        self.events().iter().filter_map(of_device).collect()
    }

    /// Where a request of a device goes on the twin.
    pub fn dma(&self, device: usize, pasid: usize, address: u64) -> Result<u64, DmaFault> {
        let access = Access::new().with_read(true).with_write(true);
        let request = TwinRequest {
            address,
            pasid: (pasid > 0).then_some(pasid as u32),
            access,
            kind: Purpose::Untranslated,
        };
        let dma = self.twin.dma(self.files[device], &request);
        dma.result.map(|to| to.address)
    }

    /// Every request goes exactly where the tables say, or is refused if its device is
    /// `blocked`; and the unit says so, too.
    pub fn check_dma(&self, blocked: &[Refusal]) {
        for device in 0..DEVICES {
            if !self.model.present[device] {
                continue;
            }
            for pasid in 0..PASIDS {
                let refused = blocked.iter().any(|it| it.who == (device, pasid));
                let pages = PAGES.into_iter().chain(HIGH_PAGES.map(|(page, _)| page));
                for page in pages.chain([HOLE]) {
                    let went = self.dma(device, pasid, page);
                    if refused {
                        assert_eq!(went, Err(DmaFault::Blocked), "{device} {pasid} {page:#x}");
                    } else {
                        let target = self.model.target(device, pasid, page);
                        assert_eq!(went.ok(), target, "{device} {pasid} {page:#x}");
                    }
                }
            }
            self.check_info(device, blocked);
        }
        assert_eq!(self.twin.stats().stale_uses, 0, "stale uses");
    }

    fn check_info(&self, device: usize, blocked: &[Refusal]) {
        let info = self
            .unit()
            .device_info(self.handles[device].unwrap())
            .unwrap();
        let refused = |pasid| blocked.iter().rev().find(|it| it.who == (device, pasid));
        let wanted = match (refused(0), self.model.through(device, 0)) {
            (Some(_), _) | (None, Entry::None) => BindingState::Blocked,
            (None, Entry::Table(_)) => BindingState::Nested,
            (None, Entry::Through) => BindingState::Parent,
        };
        let why = refused(0).map(|it| (it.request, it.errno));
        let told = info.refused.map(|it| (it.request, it.errno));
        assert_eq!((info.state, told), (wanted, why), "device {device}");
        let are_blocked = (1..PASIDS)
            .filter(|&pasid| refused(pasid).is_some())
            .count();
        let present = |pasid: &usize| self.model.through(device, *pasid) != Entry::None;
        let bound = (1..PASIDS).filter(present).count() - are_blocked;
        assert_eq!(
            (info.pasids, info.pasids_blocked),
            (bound, are_blocked),
            "device {device}"
        );
    }

    /// Spaces: numbers that tell apart what devices share a nesting parent.
    fn space(&self, device: usize) -> usize {
        let apart = self.topology == Topology::Two || self.apart;
        if apart { device } else { 0 }
    }

    /// Do devices share an iommufd?
    pub fn shares_iommufd(&self) -> bool {
        self.topology != Topology::Two
    }

    /// PASIDs whose entry names a table.
    pub fn pasids_of(&self, table: usize) -> Vec<usize> {
        let names = |&pasid: &usize| {
            let mut entries = self.model.entries.iter();
            entries.any(|entries| entries[pasid] == Entry::Table(table))
        };
        (0..PASIDS).filter(names).collect()
    }

    /// `blocked` are all users of so many nested HWPTs.
    pub fn check_users(&self, blocked: &[Refusal], hwpts: usize) {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for refusal in blocked {
            let (device, pasid) = refusal.who;
            let Entry::Table(table) = self.model.through(device, pasid) else {
                panic!("{refusal:?} went through no nested HWPT");
            };
            found.push((self.space(device), table));
        }
        let calls = found.clone();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), hwpts, "{blocked:?}");
        for (space, table) in found {
            let users = (0..DEVICES)
                .filter(|&device| self.space(device) == space)
                .flat_map(|device| (0..PASIDS).map(move |pasid| (device, pasid)))
                .filter(|&(device, pasid)| {
                    self.model.through(device, pasid) == Entry::Table(table)
                });
            let told = calls.iter().filter(|&&it| it == (space, table)).count();
            assert_eq!(told, users.count(), "{blocked:?}");
        }
    }

    /// At most so many nested HWPTs more than what is to be there.
    pub fn check_nested_at_most(&self, over: u64) {
        let (nested, wanted) = (self.twin.stats().nested, self.wanted_nested());
        assert!(
            nested <= wanted + over,
            "{nested} nested HWPTs, {wanted} are wanted"
        );
    }

    /// Nested HWPTs that there are to be.
    pub fn wanted_nested(&self) -> u64 {
        let mut content: Vec<(usize, usize)> = Vec::new();
        for device in 0..DEVICES {
            for pasid in 0..PASIDS {
                if let Entry::Table(table) = self.model.through(device, pasid) {
                    content.push((self.space(device), table));
                }
            }
        }
        content.sort_unstable();
        content.dedup();
        content.len() as u64
    }

    /// Nothing is there that nobody uses: `over` nested HWPTs at most may wait to be
    /// destroyed.
    pub fn check_objects(&self, over: u64) {
        let stats = self.twin.stats();
        let present = self.model.present.iter().filter(|&&it| it).count() as u64;
        let spaces = match self.topology {
            Topology::Two => present,
            _ => present.min(1),
        };
        let queues = if self.is_asking() { spaces } else { 0 };
        let parents = spaces + u64::from(self.spare && present > 0);
        let sizes = [
            (self.model.low, LOW_SIZE),
            (self.model.high, HIGH_SIZE - 0x10_0000),
        ];
        let ram: u64 = sizes
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, size)| size)
            .sum();
        assert_eq!(
            (stats.ioas, stats.paging, stats.mapped, stats.fault_queues),
            (spaces, parents, ram * spaces, queues),
            "IOAS, parents, mapped bytes, fault queues"
        );
        let (watched, unwatched) = self.watched();
        assert_eq!(
            watched - unwatched,
            queues as usize,
            "files that the VMM watches"
        );
        let wanted = self.wanted_nested();
        assert!(
            stats.nested >= wanted && stats.nested <= wanted + over,
            "{} nested HWPTs, {wanted} are wanted",
            stats.nested
        );
    }

    /// How often the VMM was told to watch a file, and not to any more.
    fn watched(&self) -> (usize, usize) {
        let watched = self.watcher.watched.lock().unwrap();
        let on = watched.iter().filter(|(_, on)| *on).count();
        (on, watched.len() - on)
    }

    /// End the unit; nothing is left of it, whatever else is open.
    pub fn end(&mut self) {
        drop(self.unit.take());
        let stats = self.twin.stats();
        let left = [
            stats.ioas,
            stats.paging,
            stats.nested,
            stats.fault_queues,
            stats.mapped,
        ];
        assert_eq!(
            left, [0; 5],
            "IOAS, parents, nested HWPTs, fault queues, mapped bytes"
        );
    }
}

/// PASID-cache invalidation of one PASID.
pub fn pasid_cache(domain: u16, pasid: usize) -> [u64; 2] {
    [
        7 | 1 << 4 | u64::from(domain) << 16 | (pasid as u64) << 32,
        0,
    ]
}

/// PASID-cache invalidation of all.
pub const PASID_CACHE: [u64; 2] = [7 | 3 << 4, 0];

/// Context-cache invalidation of all.
pub const CONTEXT_CACHE: [u64; 2] = [1 | 1 << 4, 0];

/// IOTLB invalidation of all.
pub const IOTLB: [u64; 2] = [2 | 1 << 4, 0];

/// PASID-based IOTLB invalidation of one page.
pub fn page(domain: u16, pasid: usize, address: u64) -> [u64; 2] {
    let low = 6 | 3 << 4 | u64::from(domain) << 16 | (pasid as u64) << 32;
    [low, address]
}
