//! Devices are plugged in and out while a guest changes its tables, toggles translation and leaves page requests
//! open. What is there works, and of what is not nothing is left.

use std::fs;
use std::process::Command;

use crate::common::*;
use crate::machine::*;

/// Requester IDs that the guest's tables have.
const PLACES: u16 = 8;

/// What the guest's tables say, and how often what was done.
struct Storm {
    machine: Machine,
    random: Random,
    on: bool,
    bound: bool,
    page: u64,
    group: u16,
    status: u32,
    plugs: u64,
    unplugs: u64,
    changes: u64,
    asks: u64,
    reads: u64,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut machine = Machine::new();
        for index in 3..PLACES {
            machine.plug(index, index % 2 == 1);
        }
        machine.run(&boot(PLACES));
        machine.guest.set_tail(machine.guest.read64(0x88));
        Self {
            machine,
            random: Random(seed),
            on: true,
            bound: true,
            page: 0x12_0000,
            group: 0,
            status: 0,
            plugs: 0,
            unplugs: 0,
            changes: 0,
            asks: 0,
            reads: 0,
        }
    }

    fn submit(&mut self, descriptors: &[[u64; 2]]) {
        let guest = &mut self.machine.guest;
        self.status += 1;
        guest.queue(descriptors.iter().copied());
        guest.submit(&[wait(self.status)]);
        assert_eq!(guest.peek(STATUS) as u32, self.status);
        self.changes += 1;
    }

    /// A device that is not there is plugged in, or one that is is taken out.
    fn plug_or_unplug(&mut self) {
        let index = self.random.below(PLACES.into()) as u16;
        let place = self
            .machine
            .devices
            .iter()
            .position(|device| device.index == index);
        if let Some(place) = place {
            let handle = self.machine.devices[place].handle;
            self.machine.unplug(place);
            let gone = self.machine.guest.unit.device_info(handle).unwrap_err();
            assert_eq!(gone.errno(), libc::ENOENT);
            self.unplugs += 1;
        } else {
            let assigned = self.random.below(3) > 0;
            self.machine.plug(index, assigned);
            self.plugs += 1;
        }
    }

    fn act(&mut self) {
        match self.random.below(16) {
            0..8 => self.plug_or_unplug(),
            8 | 9 => {
                // The page goes elsewhere.
                self.page = 0x20_0000 + self.random.next() % 256 * 0x1000;
                self.machine.guest.poke(PT + 5 * 8, self.page | PWU);
                self.submit(&[page(0x5000), page_of_pasid(0x5000)]);
            }
            10 => {
                self.bound = !self.bound;
                let entry = PASID_TABLE + u64::from(PASID) * 64;
                self.machine
                    .guest
                    .poke(entry, if self.bound { 1 << 6 | 1 } else { 0 });
                let [low, high] = pasid_cache();
                self.submit(&[[low | u64::from(PASID) << 32, high]]);
            }
            11 => {
                self.on = !self.on;
                let bits = if self.on { QIE | TE } else { QIE };
                self.machine.guest.write32(0x18, bits as u32);
            }
            12..14 if !self.machine.devices.is_empty() => {
                let device = self.random.pick(&self.machine.devices);
                let pasid = self.random.pick(&BOTH);
                self.group = (self.group + 1) % 512;
                self.machine.ask(device, pasid, self.group);
                self.asks += 1;
            }
            14 => {
                // What the queue has is taken out, and some group of some device is answered.
                let guest = &self.machine.guest;
                guest.write64(0xc0, guest.read64(0xc8));
                guest.write32(0xdc, 3);
                let source_id = u64::from(SOURCE_ID) + self.random.next() % u64::from(PLACES);
                let group = u64::from(self.group) << 3;
                let of_pasid = u64::from(PASID) << 32 | 1 << 4;
                self.submit(&[
                    [9 | source_id << 16, group],
                    [9 | of_pasid | source_id << 16, group],
                ]);
            }
            _ => self.check_objects(),
        }
        self.check_reads();
    }

    /// Every device reads where the tables say.
    fn check_reads(&mut self) {
        for &device in &self.machine.devices {
            for pasid in BOTH {
                let to = match (self.on, pasid) {
                    (false, None) => Some(0x5000),
                    (false, Some(_)) => None,
                    (true, None) => Some(self.page),
                    (true, Some(_)) => self.bound.then_some(self.page),
                };
                // Without translation an emulated device's PASID is not looked at.
                if device.file.is_some() || self.on {
                    let went = self.machine.read(device, pasid, 0x5000);
                    assert_eq!(went, to, "{device:?} {pasid:?}");
                    self.reads += 1;
                }
            }
        }
    }

    /// The host has what the devices that are there need, and nothing else.
    fn check_objects(&self) {
        let assigned = self
            .machine
            .devices
            .iter()
            .filter(|device| device.file.is_some());
        let there = assigned.count() as u64;
        let some = there.min(1);
        let nested = if self.on { some } else { 0 };
        assert_eq!(
            self.machine.objects(),
            [some, some, nested, some, some * RAM_SIZE]
        );
        assert_eq!(self.machine.twin.stats().devices, there);
    }

    fn forget_notes(&self) {
        let notes = &self.machine.guest.notes;
        notes.msis.lock().unwrap().clear();
        notes.events.lock().unwrap().clear();
        notes.lines.lock().unwrap().clear();
        notes.invalidations.lock().unwrap().clear();
        notes.responses.lock().unwrap().clear();
    }

    fn run(&mut self, rounds: u64) {
        for round in 0..rounds {
            self.act();
            if round % 64 == 0 {
                self.forget_notes();
            }
        }
    }

    /// An emulated device comes, reads and goes, and the guest commands nothing.
    fn come_and_go(&mut self, rounds: u64) {
        if let Some(place) = self
            .machine
            .devices
            .iter()
            .position(|device| device.index == 0)
        {
            self.machine.unplug(place);
        }
        for round in 0..rounds {
            self.machine.plug(0, false);
            let device = self.machine.devices[self.machine.devices.len() - 1];
            for pasid in BOTH {
                self.machine.read(device, pasid, 0x5000);
            }
            self.machine.unplug(self.machine.devices.len() - 1);
            if round % 64 == 0 {
                self.forget_notes();
            }
        }
    }

    fn end(mut self) {
        while !self.machine.devices.is_empty() {
            self.machine.unplug(0);
            self.unplugs += 1;
            self.check_objects();
        }
        let (made, ended) = self.machine.hwpts();
        assert_eq!(made, ended, "nested HWPTs");
        let host = self.machine.twin.stats();
        assert_eq!((host.stale_uses, host.devices), (0, 0));
        println!(
            "{} plugs, {} unplugs, {} changes of tables, {} page requests, {} reads; {made} nested HWPTs made \
             and ended",
            self.plugs, self.unplugs, self.changes, self.asks, self.reads
        );
        self.machine.end();
    }
}

#[test]
fn a_storm_of_plugs() {
    let mut storm = Storm::new(0xbb67_ae85_84ca_a73b);
    storm.run(if cfg!(debug_assertions) {
        20_000
    } else {
        100_000
    });
    storm.end();
}

/// Each handle is given 65 535 times before it comes again, which it then does in good order.
#[test]
fn one_device_so_often_that_handles_wrap() {
    let mut machine = Machine::empty(config(), &Default::default());
    machine.run(&boot(1)[..boot(1).len() / 2]);
    machine.plug(0, false);
    let first = machine.devices[0].handle;
    machine.unplug(0);
    let mut again = 0;
    for _ in 0..70_000 {
        machine.plug(0, false);
        again += u32::from(machine.devices[0].handle == first);
        assert_eq!(machine.guest.unit.stats().faults, 0);
        machine.unplug(0);
    }
    assert_eq!(again, 1);
}

/// Of this process; in KiB.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// In a process of its own, as others would be counted as well.
#[test]
#[ignore = "run by a_storm_takes_no_memory"]
fn a_storm_alone() {
    let mut storm = Storm::new(0x3c6e_f372_fe94_f82b);
    storm.run(2000);
    let before = resident();
    let rounds = if cfg!(debug_assertions) { 8000 } else { 60_000 };
    storm.run(rounds);
    storm.come_and_go(rounds);
    let grown = resident() - before;
    println!("{grown} KiB more than {before} KiB");
    // Half of the rounds are plugs and unplugs: less than 100 bytes for each.
    assert!(grown < 400);
    storm.end();
}

#[test]
fn a_storm_takes_no_memory() {
    let mut alone = Command::new(std::env::current_exe().unwrap());
    alone.args([
        "--exact",
        "plugs::a_storm_alone",
        "--ignored",
        "--nocapture",
    ]);
    let ran = alone.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    print!("{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"));
}
