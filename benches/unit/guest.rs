//! A guest of memory only: tables, a queue, and what a driver does with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use nested_vtd::event::Event;
use nested_vtd::host::ioctl::System;
use nested_vtd::host::soft::{Twin, TwinDevice};
use nested_vtd::memory::OwnedRam;
use nested_vtd::unit::{Config, DeviceDescription, HostKind, Request, Unit};
use nested_vtd::vmm::{LogLevel, Vmm};

const RAM_SIZE: u64 = 64 << 20;
const ROOT: u64 = 0x1000;
const CONTEXT: u64 = 0x2000;
const STATUS: u64 = 0x3000;
const QUEUE: u64 = 0x4000;
const QUEUE_BYTES: u64 = 512 * 32;
const DIRECTORY: u64 = 0x1_0000;
const TABLES: u64 = 0x10_0000;
/// Where pages go that are mapped.
const PAGES: u64 = 32 << 20;
/// Where the addresses of requests begin.
const IOVA: u64 = 4 << 30;

const SOURCE_ID: u16 = 0x18;
pub const DOMAIN: u64 = 5;
/// Accessed, user, writable, present.
const FIRST_STAGE: u64 = 0x27;
const DIRTY: u64 = 0x40;
const SECOND_STAGE: u64 = 0x3;

/// A VMM that nobody listens to.
struct Deaf;

impl Vmm for Deaf {
    fn msi(&self, _address: u64, _data: u32) {}

    fn log(&self, _level: LogLevel, message: &str) {
        eprintln!("{message}");
    }

    fn event(&self, _event: Event, _a: u64, _b: u64, _c: u64) {}

    fn wants_events(&self) -> bool {
        false
    }

    fn more_work(&self) {
        MORE.store(true, Ordering::SeqCst);
    }
}

/// The unit has left work.
static MORE: AtomicBool = AtomicBool::new(false);

/// Which pages are mapped, and how.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub pages: u64,
    /// They are 2^stride bytes apart.
    pub stride: u32,
    pub nested: bool,
}

impl Shape {
    pub const fn dense(pages: u64) -> Self {
        Self {
            pages,
            stride: 12,
            nested: false,
        }
    }

    pub fn iova(&self, page: u64) -> u64 {
        IOVA + (page << self.stride)
    }

    pub fn target(page: u64) -> u64 {
        PAGES + (page % 8192) * 0x1000
    }
}

pub struct Guest {
    pub unit: Unit,
    pub device: u32,
    pub shape: Shape,
    ram: OwnedRam,
    next_table: u64,
    tail: AtomicU64,
    waits: AtomicU32,
}

impl Guest {
    /// A device without a host, which the unit walks for.
    pub fn new(shape: Shape) -> Self {
        Self::on_ram(shape, OwnedRam::new(RAM_SIZE))
    }

    /// The same with memory that others have, too.
    pub fn on_ram(shape: Shape, ram: OwnedRam) -> Self {
        let features = Config::DEFAULT
            .features
            .with_second_stage(true)
            .with_nested(true);
        let config = Config {
            features,
            pasid_bits: 20,
            ..Config::DEFAULT
        };
        let unit = Unit::new(config, Arc::new(Deaf)).unwrap();
        let device = DeviceDescription {
            source_id: SOURCE_ID,
            ..DeviceDescription::default()
        };
        let mut guest = Self::around(unit, shape, ram);
        guest.device = guest.unit.device_add(device).unwrap();
        guest.boot();
        guest
    }

    /// A guest whose `devices` devices are on a twin and share one table; not yet booted.
    pub fn on_twin(twin: &Arc<Twin>, devices: u16) -> Self {
        let config = Config {
            host: HostKind::Iommufd,
            pasid_bits: 20,
            ..Config::DEFAULT
        };
        let system = Arc::clone(twin) as Arc<dyn System>;
        let unit = Unit::with_system(config, Arc::new(Deaf), system).unwrap();
        let mut guest = Self::around(unit, Shape::dense(512), OwnedRam::new(RAM_SIZE));
        let iommufd = twin.open();
        for index in 0..devices {
            let description = DeviceDescription {
                tag: index.into(),
                source_id: SOURCE_ID + index,
                assigned: true,
                iommufd: Some(iommufd),
                file: Some(twin.add_device(TwinDevice::default()).unwrap()),
                dev_id: None,
                fixed_id: false,
            };
            guest.device = guest.unit.device_add(description).unwrap();
        }
        guest
    }

    fn around(unit: Unit, shape: Shape, ram: OwnedRam) -> Self {
        unit.ram_add(0, ram.clone().into(), false).unwrap();
        Self {
            unit,
            device: 0,
            shape,
            ram,
            next_table: TABLES,
            tail: AtomicU64::new(0),
            waits: AtomicU32::new(0),
        }
    }

    /// Tables of the shape, queue on, translation on.
    pub fn boot(&mut self) {
        let first = self.new_table();
        for page in 0..self.shape.pages {
            let (from, to) = (self.shape.iova(page), Shape::target(page));
            self.map(first, from, to, FIRST_STAGE, DIRTY);
        }
        let mut second = 0;
        if self.shape.nested {
            second = self.new_table();
            for page in (0..RAM_SIZE).step_by(0x1000) {
                self.map(second, page, page, SECOND_STAGE, 0);
            }
        }
        self.poke(ROOT, CONTEXT | 1);
        for device in 0..8 {
            // 2^14 directory entries, PASIDE.
            let context = DIRECTORY | 7 << 9 | 0b1001;
            self.poke(CONTEXT + (u64::from(SOURCE_ID) + device) * 32, context);
        }
        // PGTT nested over 4 levels, or first-stage.
        let low = if self.shape.nested {
            second | 3 << 6 | 2 << 2
        } else {
            1 << 6
        };
        self.bind(0, low | 1, first);
        self.write64(0x90, QUEUE | 0x800 | 2);
        self.write32(0x18, 1 << 26);
        self.write64(0x20, ROOT | 1 << 10);
        self.write32(0x18, 1 << 26 | 1 << 30);
        self.write32(0x18, 1 << 26 | 1 << 31);
        self.submit(&[pasid_cache(), pasid_all(0)]);
    }

    /// A PASID entry; its second and third qword are of a first stage.
    pub fn bind(&mut self, pasid: u64, low: u64, table: u64) {
        let directory = DIRECTORY + (pasid >> 6) * 8;
        if self.peek(directory) == 0 {
            let entries = self.new_table();
            self.poke(directory, entries | 1);
        }
        let entry = (self.peek(directory) & !0xfff) + (pasid & 63) * 64;
        self.poke(entry + 16, table);
        // PWSNP: the walks snoop.
        self.poke(entry + 8, DOMAIN | 1 << 23);
        self.poke(entry, low);
    }

    /// `count` PASIDs, each with a table of its own: only those whom nobody asks for.
    pub fn bind_pasids(&mut self, count: u64) {
        for pasid in 1..=count {
            self.bind(pasid, 1 << 6 | 1, PAGES + (pasid % 8192) * 0x1000);
        }
    }

    pub fn new_table(&mut self) -> u64 {
        let table = self.next_table;
        assert!(table < PAGES, "no room for tables");
        for at in (table..table + 0x1000).step_by(8) {
            self.poke(at, 0);
        }
        self.next_table += 0x1000;
        table
    }

    fn map(&mut self, mut table: u64, from: u64, to: u64, flags: u64, leaf: u64) {
        for level in [39, 30, 21] {
            let at = table + (from >> level & 511) * 8;
            if self.peek(at) == 0 {
                let next = self.new_table();
                self.poke(at, next | flags);
            }
            table = self.peek(at) & !0xfff;
        }
        self.poke(table + (from >> 12 & 511) * 8, to | flags | leaf);
    }

    /// Where a first-stage entry is, found by walking.
    pub fn entry(&self, page: u64) -> u64 {
        let from = self.shape.iova(page);
        let directory = self.peek(DIRECTORY) & !0xfff;
        let mut table = self.peek(directory + 16);
        for level in [39, 30, 21] {
            table = self.peek(table + (from >> level & 511) * 8) & !0xfff;
        }
        table + (from >> 12 & 511) * 8
    }

    /// Point the first-stage entry at `entry` to a page.
    pub fn remap(&self, entry: u64, target: u64) {
        self.poke(entry, target | FIRST_STAGE | DIRTY);
    }

    pub fn poke(&self, gpa: u64, value: u64) {
        self.ram[(gpa / 8) as usize].store(value, Ordering::SeqCst);
    }

    pub fn peek(&self, gpa: u64) -> u64 {
        self.ram[(gpa / 8) as usize].load(Ordering::SeqCst)
    }

    fn write32(&self, offset: u64, value: u32) {
        self.unit.mmio_write(offset, 4, value.into()).unwrap();
    }

    fn write64(&self, offset: u64, value: u64) {
        self.unit.mmio_write(offset, 8, value).unwrap();
    }

    /// Descriptors and a wait into the queue, not yet seen by the unit.
    pub fn queue(&self, descriptors: &[[u64; 2]]) {
        let number = self.waits.load(Ordering::SeqCst) + 1;
        let wait = [5 | 1 << 5 | u64::from(number) << 32, STATUS];
        let mut tail = self.tail.load(Ordering::SeqCst);
        for [low, high] in descriptors.iter().chain([&wait]) {
            for (index, qword) in [*low, *high, 0, 0].into_iter().enumerate() {
                self.poke(QUEUE + tail + index as u64 * 8, qword);
            }
            tail = (tail + 32) % QUEUE_BYTES;
        }
        self.waits.store(number, Ordering::SeqCst);
        self.tail.store(tail, Ordering::SeqCst);
    }

    /// The write of IQT, and whatever work it leaves for later.
    pub fn ring(&self) {
        self.write32(0x88, self.tail.load(Ordering::SeqCst) as u32);
        let wanted = self.waits.load(Ordering::SeqCst);
        while self.peek(STATUS) as u32 != wanted && MORE.swap(false, Ordering::SeqCst) {
            self.unit.work();
        }
    }

    /// The wait is done, as it is when [`Self::ring`] returns.
    pub fn check(&self) {
        let number = self.waits.load(Ordering::SeqCst);
        assert_eq!(self.peek(STATUS) as u32, number, "the wait was not reached");
    }

    pub fn submit(&self, descriptors: &[[u64; 2]]) {
        self.queue(descriptors);
        self.ring();
        self.check();
    }

    pub fn read(&self, address: u64, pasid: Option<u32>) -> u64 {
        let request = Request {
            address,
            pasid,
            read: true,
            ..Request::default()
        };
        let answer = self.unit.translate(self.device, request).unwrap();
        answer.result.unwrap().address
    }
}

/// PASID-cache invalidate of everything.
pub fn pasid_cache() -> [u64; 2] {
    [7 | 3 << 4, 0]
}

/// PASID-based IOTLB invalidate of one page of requests without PASID.
pub fn page(iova: u64) -> [u64; 2] {
    [6 | 3 << 4 | DOMAIN << 16, iova]
}

/// PASID-based IOTLB invalidate of everything of a PASID.
pub fn pasid_all(pasid: u64) -> [u64; 2] {
    [6 | 2 << 4 | DOMAIN << 16 | pasid << 32, 0]
}

/// 0 to `count` - 1, shuffled, always alike.
pub fn shuffled(count: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..order.len()).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        order.swap(last, (seed >> 16) as usize % (last + 1));
    }
    order
}
