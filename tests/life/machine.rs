//! A machine whose devices come and go: a guest of `tests/common` with assigned devices on a twin, emulated
//! ones, or both, each at a requester ID of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use nested_vtd::host::ioctl::Fd;
use nested_vtd::host::soft::{DmaFault, Twin, TwinDevice, TwinPageRequest, TwinRequest};
use nested_vtd::host::uapi::request;
use nested_vtd::translate::Access;
use nested_vtd::translate::tables::Purpose;
use nested_vtd::unit::{BindingState, Config, DeviceDescription, PageRequest, Request};

use crate::common::*;

/// A PASID that the tables have besides requests without one.
pub const PASID: u32 = 3;
/// What requests without PASID, and those of the PASID, may be.
pub const BOTH: [Option<u32>; 2] = [None, Some(PASID)];
/// The guest's page request queue.
pub const RING: u64 = 0xb000;

pub const QIE: u64 = 1 << 26;
pub const TE: u64 = 1 << 31;
pub const SRTP: u64 = 1 << 30;

/// A unit that offers PASIDs and page requests.
pub fn config() -> Config {
    Config {
        features: Config::DEFAULT
            .features
            .with_device_tlb(true)
            .with_page_request(true),
        pasid_bits: 8,
        ..Config::DEFAULT
    }
}

/// A device that is there.
#[derive(Debug, Clone, Copy)]
pub struct Device {
    pub handle: u32,
    /// Of an assigned one.
    pub file: Option<Fd>,
    /// Added to the first requester ID.
    pub index: u16,
}

pub struct Machine {
    pub guest: Guest,
    pub twin: Arc<Twin>,
    iommufd: Fd,
    pub devices: Vec<Device>,
    /// Page groups of assigned devices that nobody has answered.
    open: BTreeMap<Fd, u64>,
}

impl Machine {
    /// Without devices.
    pub fn empty(config: Config, twin: &Arc<Twin>) -> Self {
        let (guest, devices) = Guest::on_twin(config, twin, 1);
        for (handle, file) in devices {
            guest.unit.device_remove(handle).unwrap();
            twin.close(file).unwrap();
        }
        Self {
            guest,
            twin: Arc::clone(twin),
            iommufd: twin.open(),
            devices: Vec::new(),
            open: BTreeMap::new(),
        }
    }

    /// Without a host, and without devices.
    pub fn without_host(config: Config) -> Self {
        let guest = Guest::with(config);
        guest.unit.device_remove(guest.device).unwrap();
        let twin: Arc<Twin> = Arc::default();
        Self {
            guest,
            iommufd: twin.open(),
            twin,
            devices: Vec::new(),
            open: BTreeMap::new(),
        }
    }

    /// With two assigned devices, and an emulated one.
    pub fn new() -> Self {
        Self::on(&Arc::default())
    }

    /// As [`Self::new`], with an iommufd of its own on a host that others may use as well.
    pub fn on(twin: &Arc<Twin>) -> Self {
        let mut machine = Self::empty(config(), twin);
        for (index, assigned) in [(0, true), (1, true), (2, false)] {
            machine.plug(index, assigned);
        }
        machine
    }

    pub fn plug(&mut self, index: u16, assigned: bool) {
        let file = assigned.then(|| self.twin.add_device(TwinDevice::default()).unwrap());
        let description = DeviceDescription {
            tag: u64::from(index),
            source_id: SOURCE_ID + index,
            assigned,
            iommufd: assigned.then_some(self.iommufd),
            file,
            dev_id: None,
            fixed_id: index % 2 == 0,
        };
        let handle = self.guest.unit.device_add(description).unwrap();
        file.map(|file| self.open.insert(file, 0));
        self.devices.push(Device {
            handle,
            file,
            index,
        });
    }

    /// Take out the device at `place` in the list, and close its file. It does not wait for pages any more.
    pub fn unplug(&mut self, place: usize) {
        let device = self.devices.swap_remove(place);
        self.guest.unit.device_remove(device.handle).unwrap();
        if let Some(file) = device.file {
            self.hear(file);
            assert_eq!(
                self.open.remove(&file),
                Some(0),
                "page groups of {device:?}"
            );
            self.twin.close(file).unwrap();
        }
    }

    /// Take what a device was answered.
    fn hear(&mut self, file: Fd) {
        let answers = self.twin.page_responses(file).unwrap().len() as u64;
        *self.open.get_mut(&file).unwrap() -= answers;
    }

    /// Page groups that wait for an answer.
    pub fn open_groups(&mut self) -> u64 {
        let files: Vec<Fd> = self.open.keys().copied().collect();
        files.into_iter().for_each(|file| self.hear(file));
        self.open.values().sum()
    }

    /// Where a read of a device goes.
    pub fn read(&self, device: Device, pasid: Option<u32>, address: u64) -> Option<u64> {
        self.try_read(device, pasid, address).ok()
    }

    /// The same, and why it was refused.
    pub fn try_read(
        &self,
        device: Device,
        pasid: Option<u32>,
        address: u64,
    ) -> Result<u64, DmaFault> {
        let Some(file) = device.file else {
            let request = Request {
                address,
                pasid,
                read: true,
                ..Request::default()
            };
            let answer = self.guest.unit.translate(device.handle, request).unwrap();
            return answer.result.map(|to| to.address).map_err(DmaFault::Table);
        };
        let request = TwinRequest {
            address,
            pasid,
            access: Access::new().with_read(true),
            kind: Purpose::Untranslated,
        };
        let dma = self.twin.dma(file, &request);
        dma.result.map(|to| to.address)
    }

    /// A device asks for a page, and the unit hears of it.
    pub fn ask(&mut self, device: Device, pasid: Option<u32>, group: u16) {
        let Some(file) = device.file else {
            let request = PageRequest {
                address: 0x9000,
                pasid,
                read: true,
                last: true,
                group,
                ..PageRequest::default()
            };
            let _refused = self.guest.unit.page_request(device.handle, request);
            return;
        };
        let request = TwinPageRequest {
            address: 0x9000,
            pasid,
            group,
            read: true,
            last: true,
            ..TwinPageRequest::default()
        };
        self.twin.page_request(file, request).unwrap();
        *self.open.get_mut(&file).unwrap() += 1;
        self.guest.unit.host_faults().unwrap();
    }

    /// Objects on the iommufd: IOAS, parents, nested HWPTs, fault queues, mapped bytes.
    pub fn objects(&self) -> [u64; 5] {
        let stats = self.twin.stats();
        [
            stats.ioas,
            stats.paging,
            stats.nested,
            stats.fault_queues,
            stats.mapped,
        ]
    }

    /// Nested HWPTs that were ever made, and those of them that have ended.
    pub fn hwpts(&self) -> (u64, u64) {
        let made = |of| {
            let count = self.twin.count(of);
            count.calls - count.errors
        };
        let allocs = made(request::HWPT_ALLOC);
        let others = made(request::IOAS_ALLOC) + made(request::FAULT_QUEUE_ALLOC);
        let stats = self.twin.stats();
        // Every IOAS has had one parent.
        let parents = made(request::IOAS_ALLOC);
        let ended = made(request::DESTROY)
            - (others - stats.ioas - stats.fault_queues)
            - (parents - stats.paging);
        (allocs - parents, ended)
    }

    /// The registers, all of the window.
    pub fn registers(&self) -> Vec<u64> {
        (0..0x1000)
            .step_by(8)
            .map(|at| self.guest.read64(at))
            .collect()
    }

    /// With translation off every device has all of RAM, and nothing with a PASID.
    pub fn check_off(&self) {
        for &device in &self.devices {
            for address in [0x5000, 0x10_0000] {
                assert_eq!(
                    self.read(device, None, address),
                    Some(address),
                    "{device:?}"
                );
            }
            let info = self.guest.unit.device_info(device.handle).unwrap();
            if device.file.is_some() {
                assert_eq!(self.read(device, Some(PASID), 0x5000), None, "{device:?}");
                let of_host = (info.state, info.pasids, info.pasids_blocked, info.refused);
                assert_eq!(of_host, (BindingState::Parent, 0, 0, None), "{device:?}");
            } else {
                assert_eq!(info.state, BindingState::Direct, "{device:?}");
            }
        }
    }

    /// Everything ends; nothing is left on the iommufd.
    pub fn end(mut self) -> Arc<Twin> {
        while !self.devices.is_empty() {
            self.unplug(0);
        }
        assert_eq!(self.objects(), [0; 5]);
        self.twin
    }
}

/// A step of what the machine does.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// The tables' pages, the queue and what devices write are 0, as of memory that is cleaned.
    Clear,
    Poke(u64, u64),
    /// Write a register: offset, bytes, value.
    Write(u64, u32, u64),
    /// All devices read, without PASID and with it, and the result is this.
    Reads(u64, Option<u64>),
    /// The device at this place asks for a page.
    Ask(usize, Option<u32>, u16),
    /// The wait that writes this has completed.
    Done(u64),
}

impl Machine {
    pub fn perform(&mut self, op: Op) {
        match op {
            Op::Clear => (0x1000..RING + 0x1000)
                .step_by(8)
                .for_each(|at| self.guest.poke(at, 0)),
            Op::Poke(gpa, value) => self.guest.poke(gpa, value),
            Op::Write(offset, size, value) => {
                self.guest.unit.mmio_write(offset, size, value).unwrap();
            }
            Op::Reads(address, to) => {
                for &device in &self.devices {
                    for pasid in BOTH {
                        let went = self.read(device, pasid, address);
                        assert_eq!(went, to, "{device:?} {pasid:?} {address:#x}");
                    }
                }
            }
            Op::Ask(place, pasid, group) => self.ask(self.devices[place], pasid, group),
            Op::Done(status) => assert_eq!(self.guest.peek(STATUS), status),
        }
    }

    pub fn run(&mut self, program: &[Op]) {
        program.iter().for_each(|&op| self.perform(op));
    }
}

/// Writes the descriptors of a program.
struct Queue {
    ops: Vec<Op>,
    tail: u64,
    waits: u64,
}

impl Queue {
    fn submit(&mut self, descriptors: &[[u64; 2]]) {
        self.waits += 1;
        let wait = wait(self.waits as u32);
        for &[low, high] in descriptors.iter().chain([&wait]) {
            self.ops.push(Op::Poke(QUEUE + self.tail, low));
            self.ops.push(Op::Poke(QUEUE + self.tail + 8, high));
            self.tail += 32;
        }
        self.ops.push(Op::Write(0x88, 8, self.tail));
        self.ops.push(Op::Done(self.waits));
    }
}

/// PASID-based IOTLB invalidation of a page by the name of [`PASID`].
pub fn page_of_pasid(iova: u64) -> [u64; 2] {
    let [low, high] = page(iova);
    [low | u64::from(PASID) << 32, high]
}

/// Invalidation of context entries, PASID entries and translations, all of them.
pub const EVERYTHING: [[u64; 2]; 3] = [[1 | 1 << 4, 0], [7 | 3 << 4, 0], [2 | 1 << 4, 0]];

/// What a guest does from power-on until it takes a page back, for so many devices; the result of each step is
/// checked.
pub fn boot(devices: u16) -> Vec<Op> {
    let mut queue = Queue {
        ops: vec![Op::Clear],
        tail: 0,
        waits: 0,
    };
    let mut poke = |gpa, value| queue.ops.push(Op::Poke(gpa, value));
    poke(ROOT, CONTEXT | 1);
    for index in 0..u64::from(devices) {
        // DTE, PASIDE, PRE.
        let context = CONTEXT + (u64::from(SOURCE_ID) + index) * 32;
        poke(context, DIRECTORY | 0b1_1101);
    }
    poke(DIRECTORY, PASID_TABLE | 1);
    for [table, next] in [[PML4, PDPT], [PDPT, PD], [PD, PT]] {
        poke(table, next | PWU);
    }
    for pasid in [0, u64::from(PASID)] {
        let entry = PASID_TABLE + pasid * 64;
        poke(entry + 16, PML4);
        poke(entry + 8, u64::from(DOMAIN) | 1 << 23);
        poke(entry, 1 << 6 | 1);
    }
    poke(PT + 5 * 8, 0x10_0000 | PWU);
    for (offset, value) in [
        (0x3c, 0x41),
        (0x40, 0xfee0_1000),
        (0x44, 0),
        (0x38, 0),
        (0xe4, 0x43),
        (0xe8, 0xfee0_3000),
        (0xe0, 0),
    ] {
        queue.ops.push(Op::Write(offset, 4, value));
    }
    for (offset, size, value) in [
        (0x88, 8, 0),
        (0x90, 8, QUEUE | 0x800),
        (0x18, 4, QIE),
        (0x20, 8, ROOT | 1 << 10),
        (0x18, 4, QIE | SRTP),
        (0xc8, 8, 0),
        (0xd0, 8, RING),
    ] {
        queue.ops.push(Op::Write(offset, size, value));
    }
    queue.submit(&EVERYTHING);
    queue.ops.push(Op::Write(0x18, 4, QIE | TE));
    queue.ops.push(Op::Reads(0x5000, Some(0x10_0000)));
    queue.ops.push(Op::Poke(PT + 6 * 8, 0x11_0000 | PWU));
    queue.ops.push(Op::Reads(0x6000, Some(0x11_0000)));
    for place in 0..usize::from(devices) {
        queue.ops.push(Op::Ask(place, Some(PASID), 7));
        queue.ops.push(Op::Ask(place, None, 8));
    }
    // The first is answered, the others never are.
    let with_pasid = u64::from(PASID) << 32 | 1 << 4;
    queue.submit(&[[9 | with_pasid | u64::from(SOURCE_ID) << 16, 7 << 3]]);
    // A page goes elsewhere, and another one goes.
    queue.ops.push(Op::Poke(PT + 5 * 8, 0x12_0000 | PWU));
    queue.ops.push(Op::Poke(PT + 6 * 8, 0));
    queue.submit(&[
        page(0x5000),
        page_of_pasid(0x5000),
        page(0x6000),
        page_of_pasid(0x6000),
    ]);
    queue.ops.push(Op::Reads(0x5000, Some(0x12_0000)));
    queue.ops.push(Op::Reads(0x6000, None));
    queue.ops
}

/// xorshift.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Something that a guest or one of its devices may do; where it went, if it is a read.
    pub fn act(&mut self, machine: &mut Machine) -> Option<u64> {
        let any = self.next();
        let value = self.pick(&[
            any,
            1 << (any & 63),
            ROOT | 1 << 10,
            QUEUE | 0x800,
            0,
            u64::MAX,
            0x40,
        ]);
        let guest = &machine.guest;
        match self.below(16) {
            0..3 => {
                let at = (any % 0x300) & !3;
                let size = if at % 8 == 0 && any & 1 << 40 == 0 {
                    8
                } else {
                    4
                };
                guest.unit.mmio_write(at, size, value).unwrap();
            }
            3..5 => {
                let bits = self.pick(&[QIE, QIE | TE, QIE | SRTP, TE, 1 << 25 | QIE, 0]);
                guest.write32(0x18, bits as u32);
            }
            5..8 => {
                // A descriptor that there may be, and the tail somewhere.
                let at = QUEUE + any % 0x1000 / 32 * 32;
                let some = [
                    EVERYTHING[0],
                    EVERYTHING[1],
                    EVERYTHING[2],
                    pasid_cache(),
                    page(0x5000),
                    wait(any as u32),
                    [any & 0xffff_0000_ffff_fff0 | any >> 32 & 0xf, any],
                ];
                let [low, high] = self.pick(&some);
                guest.poke(at, low);
                guest.poke(at + 8, high);
                guest.write32(0x88, (at - QUEUE) as u32);
                guest.write32(0x34, 0x70);
            }
            8..10 => {
                // An entry of any table, that means something or not.
                let at = (ROOT + any % 0x8000) & !7;
                let table = ROOT + (any >> 32) % 16 * 0x1000;
                let entry = self.pick(&[value, table | 1, table | PWU, 0, 1 << 6 | 1, any]);
                guest.poke(at, entry);
            }
            10..12 => {
                let place = self.below(machine.devices.len());
                let (device, pasid) = (machine.devices[place], self.pick(&BOTH));
                machine.ask(device, pasid, (any % 512) as u16);
            }
            _ => {
                let device = self.pick(&machine.devices);
                let address = self.pick(&[0x5000, 0x6000, 0x10_0000, any, any & 0x3f_f000]);
                return machine.read(device, self.pick(&BOTH), address);
            }
        }
        None
    }
}
