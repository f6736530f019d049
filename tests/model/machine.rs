//! The unit under test, in a guest that shares its memory with the reference.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nested_vtd::event::Event;
use nested_vtd::memory::{HostRam, OwnedRam};
use nested_vtd::unit::{Config, DeviceDescription, Features, HostKind, Unit};
use nested_vtd::vmm::{LogLevel, Vmm};

use crate::reference::{Capabilities, Kind, Memory, Region, Request};

/// A VMM that does nothing.
struct Nobody;

impl Vmm for Nobody {
    fn msi(&self, _address: u64, _data: u32) {}

    fn log(&self, _level: LogLevel, _message: &str) {}

    fn event(&self, _event: Event, _a: u64, _b: u64, _c: u64) {}

    fn wants_events(&self) -> bool {
        false
    }
}

/// RAM starts at 0; the region behind it is read-only for devices.
pub const RAM_PAGES: u64 = 32;
pub const READ_ONLY_PAGES: u64 = 2;
pub const RAM_END: u64 = (RAM_PAGES + READ_ONLY_PAGES) << 12;

pub const QUEUE: u64 = 29 << 12;
pub const STATUS: u64 = 30 << 12;

/// Requester IDs: the functions of one are in the lower half of its bus, those of the other in
/// the upper half of another.
pub const SOURCE_IDS: [u16; 2] = [0x0018, 0x0198];

/// What the unit is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub features: Features,
    pub address_width: u32,
    pub pasid_bits: u32,
}

/// What the unit said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Page {
        address: u64,
        size: u64,
        read: bool,
        write: bool,
        execute: bool,
        untranslated: bool,
    },
    Refused {
        code: u8,
        recoverable: bool,
    },
}

/// A fault recording register that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub low: u64,
    pub high: u64,
}

pub struct Machine {
    pub unit: Arc<Unit>,
    pub capabilities: Capabilities,
    /// The same content as the unit's RAM, but for what the unit wrote since the last
    /// [`Machine::learn`].
    pub memory: Memory,
    /// IQA.DW.
    pub wide: bool,
    ram: [OwnedRam; 2],
    setup: Setup,
    devices: Vec<u32>,
    tail: u64,
    waits: u32,
    next_record: u64,
}

/// A unit after power-on, with this RAM and the devices, whose handles these are. None: it
/// refuses to be that.
fn unit(setup: Setup, ram: &[OwnedRam; 2]) -> Option<(Unit, Vec<u32>)> {
    let config = Config {
        host: HostKind::None,
        features: setup.features,
        address_width: setup.address_width,
        pasid_bits: setup.pasid_bits,
        ..Config::default()
    };
    let unit = Unit::new(config, Arc::new(Nobody)).ok()?;
    let add = |base, index: usize, read_only| {
        let ram: HostRam = ram[index].clone().into();
        unit.ram_add(base, ram, read_only).unwrap();
    };
    add(0, 0, false);
    add(RAM_PAGES << 12, 1, true);
    let devices = SOURCE_IDS
        .iter()
        .enumerate()
        .map(|(index, &source_id)| {
            let description = DeviceDescription {
                tag: index as u64,
                source_id,
                assigned: false,
                ..DeviceDescription::default()
            };
            unit.device_add(description).unwrap()
        })
        .collect();
    Some((unit, devices))
}

impl Machine {
    /// A unit after power-on. None: it refuses to be that.
    pub fn new(setup: Setup) -> Option<Self> {
        let ram = [RAM_PAGES, READ_ONLY_PAGES].map(|pages| OwnedRam::new(pages << 12));
        let (unit, devices) = unit(setup, &ram)?;
        let region = |base, pages: u64, writable| Region {
            base,
            words: vec![0; (pages * 512) as usize],
            writable,
        };
        let memory = Memory::new(vec![
            region(0, RAM_PAGES, true),
            region(RAM_PAGES << 12, READ_ONLY_PAGES, false),
        ]);
        let width = match setup.address_width {
            0 => 48,
            width => width,
        };
        let capabilities = Capabilities {
            cap: unit.mmio_read(0x08, 8).unwrap(),
            ecap: unit.mmio_read(0x10, 8).unwrap(),
            host_width: width,
        };
        Some(Self {
            wide: capabilities.scalable_mode(),
            unit: Arc::new(unit),
            capabilities,
            memory,
            ram,
            setup,
            devices,
            tail: 0,
            waits: 0,
            next_record: 0,
        })
    }

    /// The machine goes on with the state that its unit has now: in another unit, or loaded
    /// into the same.
    pub fn migrate(&mut self, elsewhere: bool) {
        let saved = self.unit.save();
        if elsewhere {
            let (unit, devices) = unit(self.setup, &self.ram).unwrap();
            (self.unit, self.devices) = (Arc::new(unit), devices);
        }
        self.unit.load(&saved).unwrap();
        assert_eq!(self.unit.save(), saved);
    }

    /// The unit's name of a device.
    pub fn handle(&self, device: usize) -> u32 {
        self.devices[device]
    }

    fn cell(&self, address: u64) -> &AtomicU64 {
        let word = (address / 8) as usize;
        let split = (RAM_PAGES * 512) as usize;
        if word < split {
            &self.ram[0][word]
        } else {
            &self.ram[1][word - split]
        }
    }

    /// The guest's CPU writes.
    pub fn poke(&mut self, address: u64, value: u64) {
        self.cell(address).store(value, Ordering::SeqCst);
        self.memory.write(address, value);
    }

    /// What is in the unit's RAM.
    pub fn peek(&self, address: u64) -> u64 {
        self.cell(address).load(Ordering::SeqCst)
    }

    /// Take over what the unit wrote there.
    pub fn learn(&mut self, address: u64) {
        let value = self.peek(address);
        self.memory.write(address, value);
    }

    /// Where the unit's RAM is not what it should be.
    pub fn differences(&self) -> Vec<(u64, u64, u64)> {
        let mut differences = Vec::new();
        for (ram, region) in self.ram.iter().zip(&self.memory.regions) {
            let pairs = ram.iter().zip(&region.words);
            for (word, (cell, &expected)) in pairs.enumerate() {
                let found = cell.load(Ordering::SeqCst);
                if found != expected {
                    differences.push((region.base + word as u64 * 8, found, expected));
                }
            }
        }
        differences
    }

    pub fn read32(&self, offset: u64) -> u32 {
        self.unit.mmio_read(offset, 4).unwrap() as u32
    }

    pub fn read64(&self, offset: u64) -> u64 {
        self.unit.mmio_read(offset, 8).unwrap()
    }

    pub fn write32(&self, offset: u64, value: u32) {
        self.unit.mmio_write(offset, 4, value.into()).unwrap();
    }

    pub fn write64(&self, offset: u64, value: u64) {
        self.unit.mmio_write(offset, 8, value).unwrap();
    }

    fn status(&self) -> u32 {
        // GSTS keeps what GCMD set, but for the one-shot bits.
        self.read32(0x1c) & (1 << 31 | 1 << 26 | 1 << 25 | 1 << 23)
    }

    /// Queue on: 128 descriptors of 256 bits, or 256 of 128.
    pub fn enable_queue(&mut self) {
        self.write64(0x90, QUEUE | u64::from(self.wide) << 11);
        self.write32(0x18, self.status() | 1 << 26);
        assert_ne!(self.read32(0x1c) & 1 << 26, 0, "QIES");
    }

    /// RTADDR and SRTP.
    pub fn set_root(&mut self, root: u64) {
        self.write64(0x20, root);
        self.write32(0x18, self.status() | 1 << 30);
        assert_ne!(self.read32(0x1c) & 1 << 30, 0, "RTPS");
    }

    /// TE.
    pub fn set_translation(&mut self, on: bool) {
        self.write32(0x18, self.status() & !(1 << 31) | u32::from(on) << 31);
        assert_eq!(self.read32(0x1c) >> 31 == 1, on, "TES");
    }

    pub fn descriptor_size(&self) -> u64 {
        if self.wide { 32 } else { 16 }
    }

    /// Put descriptors into the queue and move the tail.
    pub fn submit(&mut self, descriptors: &[[u64; 4]]) {
        for descriptor in descriptors {
            let size = self.descriptor_size();
            for (index, &word) in descriptor[..(size / 8) as usize].iter().enumerate() {
                let address = QUEUE + self.tail + index as u64 * 8;
                self.poke(address, word);
            }
            self.tail = (self.tail + size) % 0x1000;
        }
        self.write32(0x88, self.tail as u32);
    }

    /// Put descriptors and a wait into the queue. Is the wait done?
    pub fn submit_and_wait(&mut self, descriptors: &[[u64; 4]]) -> bool {
        self.waits += 1;
        let wait = [5 | 1 << 5 | u64::from(self.waits) << 32, STATUS, 0, 0];
        self.submit(&[descriptors, &[wait]].concat());
        let done = self.peek(STATUS) as u32 == self.waits;
        self.learn(STATUS);
        done
    }

    /// IQEI, after a queue error.
    pub fn queue_error(&self) -> Option<u64> {
        (self.read32(0x34) & 0x10 != 0).then(|| self.read64(0xb0) & 0xf)
    }

    /// Step over the descriptor at the head: overwrite it by a wait without effect, and clear
    /// the error.
    pub fn skip_bad_descriptor(&mut self) {
        let head = self.read64(0x80);
        for index in 0..self.descriptor_size() / 8 {
            self.poke(QUEUE + head + index * 8, 0);
        }
        // A wait with FN only.
        self.poke(QUEUE + head, 5 | 1 << 6);
        self.write32(0x34, 0x10);
        assert_eq!(self.read64(0x80), self.tail, "the queue goes on");
        self.learn(STATUS);
    }

    /// A request of a device.
    pub fn request(&self, device: usize, request: &Request) -> Said {
        use nested_vtd::unit::RequestKind;
        let answer = self
            .unit
            .translate(
                self.devices[device],
                nested_vtd::unit::Request {
                    address: request.address,
                    pasid: request.pasid,
                    kind: match request.kind {
                        Kind::Untranslated => RequestKind::Untranslated,
                        Kind::Translation => RequestKind::Translation,
                        Kind::Translated => RequestKind::Translated,
                    },
                    read: request.read,
                    write: request.write,
                    execute: request.execute,
                    privileged: request.privileged,
                    debug: false,
                },
            )
            .unwrap();
        match answer.result {
            Ok(to) => Said::Page {
                address: to.address,
                size: to.page_size,
                read: to.permissions.read(),
                write: to.permissions.write(),
                execute: to.permissions.execute(),
                untranslated: to.permissions.untranslated(),
            },
            Err(fault) => Said::Refused {
                code: fault.reason.code(),
                recoverable: answer.recoverable,
            },
        }
    }

    /// The fault recorded since the last call, taken out of its register as a driver does.
    pub fn take_record(&mut self) -> Option<Record> {
        let status = self.read32(0x34);
        assert_eq!(status & 1, 0, "PFO");
        if status & 2 == 0 {
            return None;
        }
        assert_eq!(u64::from(status >> 8 & 0xff), self.next_record, "FRI");
        let place = 0x220 + self.next_record * 16;
        self.next_record = (self.next_record + 1) % 8;
        let record = Record {
            low: self.read64(place),
            high: self.read64(place + 8),
        };
        self.write32(place + 12, 1 << 31);
        assert_eq!(self.read32(0x34) & 2, 0, "PPF: there is another record");
        Some(record)
    }
}
