//! Guest memory and a guest's driver, for tests that drive the unit from Rust.
#![expect(dead_code, reason = "each test uses a part of it")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use nested_vtd::event::Event;
use nested_vtd::host::ioctl::{Fd, System};
use nested_vtd::host::soft::{Twin, TwinDevice};
use nested_vtd::memory::OwnedRam;
use nested_vtd::unit::{Config, DeviceDescription, HostKind, Unit};
use nested_vtd::vmm::{Invalidation, InvalidationFailure, LogLevel, PageResponse, Vmm};

/// What a VMM does about an invalidation.
pub type Obey = Arc<dyn Fn() -> Result<(), InvalidationFailure> + Send + Sync>;

/// What a device does with a response.
pub type OnResponse = Arc<dyn Fn(&PageResponse) + Send + Sync>;

/// A VMM that takes notes.
#[derive(Default)]
pub struct Notes {
    pub msis: Mutex<Vec<(u64, u32)>>,
    pub events: Mutex<Vec<(Event, [u64; 3])>>,
    pub lines: Mutex<Vec<String>>,
    pub invalidations: Mutex<Vec<Invalidation>>,
    pub obey: Mutex<Option<Obey>>,
    pub responses: Mutex<Vec<PageResponse>>,
    pub on_response: Mutex<Option<OnResponse>>,
    /// What interrupt requests were remapped to and is to be forgotten.
    pub forgotten: Mutex<Vec<Option<(u16, u8)>>>,
    /// Called when something is to be forgotten.
    pub on_forget: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// The requester ID of every device, if the guest has renumbered it.
    pub renumbered: Mutex<Option<u16>>,
}

impl Vmm for Notes {
    fn msi(&self, address: u64, data: u32) {
        self.msis.lock().unwrap().push((address, data));
    }

    fn source_id(&self, _tag: u64) -> Option<u16> {
        *self.renumbered.lock().unwrap()
    }

    fn log(&self, _level: LogLevel, message: &str) {
        self.lines.lock().unwrap().push(message.to_owned());
    }

    fn iec_invalidate(&self, range: Option<(u16, u8)>) {
        self.forgotten.lock().unwrap().push(range);
        if let Some(on_forget) = self.on_forget.get() {
            on_forget();
        }
    }

    fn invalidate(&self, invalidation: &Invalidation) -> Result<(), InvalidationFailure> {
        self.invalidations.lock().unwrap().push(*invalidation);
        let obey = self.obey.lock().unwrap().clone();
        obey.map_or(Ok(()), |obey| obey())
    }

    fn event(&self, event: Event, a: u64, b: u64, c: u64) {
        self.events.lock().unwrap().push((event, [a, b, c]));
    }

    fn page_response(&self, response: PageResponse) {
        let on_response = self.on_response.lock().unwrap().clone();
        if let Some(on_response) = on_response {
            on_response(&response);
        }
        self.responses.lock().unwrap().push(response);
    }
}

/// Guest-physical layout.
pub const RAM_SIZE: u64 = 4 << 20;
pub const ROOT: u64 = 0x1000;
pub const CONTEXT: u64 = 0x2000;
pub const DIRECTORY: u64 = 0x3000;
pub const PASID_TABLE: u64 = 0x4000;
pub const PML4: u64 = 0x5000;
pub const PDPT: u64 = 0x6000;
pub const PD: u64 = 0x7000;
pub const PT: u64 = 0x8000;
pub const QUEUE: u64 = 0x9000;
pub const STATUS: u64 = 0xa000;

/// Present, writable, user.
pub const PWU: u64 = 0b111;
pub const DOMAIN: u16 = 5;
/// Device 00:03.0.
pub const SOURCE_ID: u16 = 0x18;

/// A guest: RAM, a unit and a device.
pub struct Guest {
    pub unit: Arc<Unit>,
    pub notes: Arc<Notes>,
    pub device: u32,
    config: Config,
    ram: OwnedRam,
    queue: u64,
    queue_bytes: u64,
    tail: u64,
}

impl Guest {
    /// Power on, with one device, assigned if there is a host.
    pub fn new(host: HostKind) -> Self {
        Self::with(Config {
            host,
            ..Config::default()
        })
    }

    /// Power on over a twin, with so many of its devices; also their vfio files.
    pub fn on_twin(config: Config, twin: &Arc<Twin>, devices: u16) -> (Self, Vec<(u32, Fd)>) {
        let config = Config {
            host: HostKind::Iommufd,
            ..config
        };
        let notes = Arc::new(Notes::default());
        let vmm = Arc::clone(&notes) as Arc<dyn Vmm>;
        let system = Arc::clone(twin) as Arc<dyn System>;
        let unit = Unit::with_system(config, vmm, system).unwrap();
        let ram = OwnedRam::new(RAM_SIZE);
        unit.ram_add(0, ram.clone().into(), false).unwrap();
        let iommufd = twin.open();
        let devices: Vec<(u32, Fd)> = (0..devices)
            .map(|index| {
                let file = twin.add_device(TwinDevice::default()).unwrap();
                let description = DeviceDescription {
                    tag: u64::from(index),
                    source_id: SOURCE_ID + index,
                    assigned: true,
                    iommufd: Some(iommufd),
                    file: Some(file),
                    dev_id: None,
                    fixed_id: false,
                };
                (unit.device_add(description).unwrap(), file)
            })
            .collect();
        let guest = Self {
            unit: Arc::new(unit),
            notes,
            device: devices[0].0,
            config,
            ram,
            queue: QUEUE,
            queue_bytes: 0x1000,
            tail: 0,
        };
        (guest, devices)
    }

    pub fn with(config: Config) -> Self {
        Self::over(config, OwnedRam::new(RAM_SIZE))
    }

    /// The same machine elsewhere: its RAM is a copy, its unit in the state after power-on.
    pub fn elsewhere(&self) -> Self {
        let ram = OwnedRam::new(RAM_SIZE);
        for (to, from) in ram.iter().zip(self.ram.iter()) {
            to.store(from.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.next(Self::over(self.config, ram))
    }

    /// The same machine with another unit, in the state after power-on.
    pub fn beside(&self) -> Self {
        self.next(Self::over(self.config, self.cells()))
    }

    fn next(&self, there: Self) -> Self {
        Self {
            queue: self.queue,
            queue_bytes: self.queue_bytes,
            tail: self.tail,
            ..there
        }
    }

    fn over(config: Config, ram: OwnedRam) -> Self {
        let notes = Arc::new(Notes::default());
        let unit = Unit::new(config, Arc::clone(&notes) as Arc<dyn Vmm>).unwrap();
        unit.ram_add(0, ram.clone().into(), false).unwrap();
        let assigned = config.host != HostKind::None;
        let description = DeviceDescription {
            tag: 1,
            source_id: SOURCE_ID,
            assigned,
            ..DeviceDescription::default()
        };
        let device = unit.device_add(description).unwrap();
        Self {
            unit: Arc::new(unit),
            notes,
            device,
            config,
            ram,
            queue: QUEUE,
            queue_bytes: 0x1000,
            tail: 0,
        }
    }

    /// The RAM, for those who do not own the guest.
    pub fn cells(&self) -> OwnedRam {
        self.ram.clone()
    }

    /// Where the next descriptor goes.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// The guest goes on there.
    pub fn set_tail(&mut self, tail: u64) {
        self.tail = tail;
    }

    fn cell(&self, gpa: u64) -> &AtomicU64 {
        assert!(gpa % 8 == 0);
        &self.ram[(gpa / 8) as usize]
    }

    /// RAM, for whoever looks at it while the guest is busy.
    pub fn ram(&self) -> OwnedRam {
        self.ram.clone()
    }

    pub fn poke(&self, gpa: u64, value: u64) {
        self.cell(gpa).store(value, Ordering::SeqCst);
    }

    pub fn peek(&self, gpa: u64) -> u64 {
        self.cell(gpa).load(Ordering::SeqCst)
    }

    /// Root, context and PASID tables down to a first-stage PASID entry.
    pub fn build_tables(&self) {
        self.poke(ROOT, CONTEXT | 1);
        self.poke(CONTEXT + u64::from(SOURCE_ID) * 32, DIRECTORY | 1);
        self.poke(DIRECTORY, PASID_TABLE | 1);
        self.poke(PML4, PDPT | PWU);
        self.poke(PDPT, PD | PWU);
        self.poke(PD, PT | PWU);
        self.set_pasid_entry(1);
    }

    /// The PASID entry, with this PGTT.
    pub fn set_pasid_entry(&self, pgtt: u64) {
        self.poke(PASID_TABLE + 16, PML4);
        // PWSNP: the walks snoop, so that accessed and dirty bits can be set.
        self.poke(PASID_TABLE + 8, u64::from(DOMAIN) | 1 << 23);
        self.poke(PASID_TABLE, (pgtt << 6) | 1);
    }

    /// Map the 4 KiB page at `iova` (below 2 MiB).
    pub fn map(&self, iova: u64, target: u64) {
        self.poke(PT + (iova >> 12) * 8, target | PWU);
    }

    pub fn write32(&self, offset: u64, value: u32) {
        self.unit.mmio_write(offset, 4, value.into()).unwrap();
    }

    pub fn write64(&self, offset: u64, value: u64) {
        self.unit.mmio_write(offset, 8, value).unwrap();
    }

    pub fn read32(&self, offset: u64) -> u32 {
        self.unit.mmio_read(offset, 4).unwrap() as u32
    }

    pub fn read64(&self, offset: u64) -> u64 {
        self.unit.mmio_read(offset, 8).unwrap()
    }

    /// Queue on (128 descriptors of 256 bits), root table set, translation on.
    pub fn enable(&mut self) {
        self.enable_queue_at(QUEUE, 0);
    }

    /// As [`Self::enable`] with a queue of 2^size pages somewhere else.
    pub fn enable_queue_at(&mut self, queue: u64, size: u64) {
        (self.queue, self.queue_bytes) = (queue, 0x1000 << size);
        self.write64(0x90, queue | 0x800 | size);
        self.write32(0x18, 1 << 26);
        self.write64(0x20, ROOT | 1 << 10);
        self.write32(0x18, 1 << 26 | 1 << 30);
        self.write32(0x18, 1 << 26 | 1 << 31);
        assert_eq!(self.read32(0x1c), 1 << 26 | 1 << 30 | 1 << 31);
    }

    /// Write descriptors, each two qwords, and do not tell the unit.
    pub fn queue(&mut self, descriptors: impl IntoIterator<Item = [u64; 2]>) {
        for [low, high] in descriptors {
            for (index, qword) in [low, high, 0, 0].into_iter().enumerate() {
                self.poke(self.queue + self.tail + index as u64 * 8, qword);
            }
            self.tail = (self.tail + 32) % self.queue_bytes;
        }
    }

    /// Submit descriptors.
    pub fn submit(&mut self, descriptors: &[[u64; 2]]) {
        self.queue(descriptors.iter().copied());
        self.write32(0x88, self.tail as u32);
    }

    /// The queue was switched off and on: it begins anew.
    pub fn rewind(&mut self) {
        self.write32(0x88, 0);
        self.tail = 0;
    }
}

/// PASID-cache invalidate of the device's PASID entry.
pub fn pasid_cache() -> [u64; 2] {
    [7 | 1 << 4 | u64::from(DOMAIN) << 16, 0]
}

/// PASID-based IOTLB invalidate of one page.
pub fn page(iova: u64) -> [u64; 2] {
    [6 | 3 << 4 | u64::from(DOMAIN) << 16, iova]
}

/// PASID-based IOTLB invalidate of everything.
pub fn pasid_all() -> [u64; 2] {
    [6 | 2 << 4 | u64::from(DOMAIN) << 16, 0]
}

/// Wait that writes `data` to [`STATUS`].
pub fn wait(data: u32) -> [u64; 2] {
    [5 | 1 << 5 | u64::from(data) << 32, STATUS]
}
