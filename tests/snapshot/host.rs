//! Guests with devices of a host: the objects there are made anew, and what was asked is not
//! answered twice.

use std::sync::Arc;

use crate::common::*;
use crate::states::RING;
use crate::*;
use nested_vtd::host::ioctl::Fd;
use nested_vtd::host::soft::{Injection, Twin, TwinPageRequest, TwinRequest};
use nested_vtd::host::uapi::{PAGE_RESPONSE_INVALID, PAGE_RESPONSE_SUCCESS, request};
use nested_vtd::translate::Access;
use nested_vtd::translate::tables::Purpose;
use nested_vtd::unit::{BindingState, Config, DeviceDescription, HostKind};

/// A machine on a host of its own, with two devices.
struct Machine {
    guest: Guest,
    twin: Arc<Twin>,
    devices: Vec<(u32, Fd)>,
}

fn config() -> Config {
    Config {
        features: Config::DEFAULT
            .features
            .with_device_tlb(true)
            .with_page_request(true),
        pasid_bits: 20,
        ..Config::DEFAULT
    }
}

impl Machine {
    fn new() -> Self {
        let twin = Arc::new(Twin::default());
        let (guest, devices) = Guest::on_twin(config(), &twin, 2);
        Self {
            guest,
            twin,
            devices,
        }
    }

    /// Both devices go through one first-stage table, with PASID 3 as well, and may ask for pages.
    fn booted() -> Self {
        let mut machine = Self::new();
        let guest = &mut machine.guest;
        guest.build_tables();
        for index in 0..2 {
            let context = CONTEXT + (u64::from(SOURCE_ID) + index) * 32;
            guest.poke(context, DIRECTORY | 0b1_1101);
        }
        guest.poke(PASID_TABLE + 3 * 64 + 16, PML4);
        guest.poke(PASID_TABLE + 3 * 64 + 8, u64::from(DOMAIN) | 1 << 23);
        guest.poke(PASID_TABLE + 3 * 64, 1 << 6 | 1);
        guest.map(0x5000, 0x10_0000);
        guest.write64(PQA, RING);
        guest.enable();
        machine
    }

    /// Another host, and RAM as it is here.
    fn elsewhere(&self) -> Self {
        let there = Self::new();
        let (from, to) = (self.guest.cells(), there.guest.cells());
        for (to, from) in to.iter().zip(from.iter()) {
            let value = from.load(std::sync::atomic::Ordering::SeqCst);
            to.store(value, std::sync::atomic::Ordering::SeqCst);
        }
        let mut there = there;
        there.guest.set_tail(self.guest.tail());
        there
    }

    fn moved(&self) -> Self {
        let there = self.elsewhere();
        load(&there.guest, &self.guest.unit.save());
        there
    }

    /// Where the hardware takes a read of a device.
    fn dma(&self, device: usize, pasid: Option<u32>, address: u64) -> Option<u64> {
        let request = TwinRequest {
            address,
            pasid,
            access: Access::new().with_read(true),
            kind: Purpose::Untranslated,
        };
        let dma = self.twin.dma(self.devices[device].1, &request);
        assert!(!dma.stale);
        dma.result.ok().map(|to| to.address)
    }

    /// A device asks for a page, and the guest finds the request in its queue.
    fn ask(&self, device: usize, pasid: Option<u32>, group: u16) {
        let tail = self.guest.read64(PQT);
        let asked = TwinPageRequest {
            address: 0x9000,
            pasid,
            group,
            read: true,
            write: false,
            execute: false,
            privileged: false,
            last: true,
        };
        let file = self.devices[device].1;
        self.twin.page_request(file, asked).unwrap();
        self.guest.unit.host_faults().unwrap();
        assert_eq!(self.guest.read64(PQT), tail + 32);
    }

    /// The guest answers.
    fn answer(&mut self, device: u16, pasid: Option<u32>, group: u64) {
        let with = pasid.map_or(0, |pasid| u64::from(pasid) << 32 | 1 << 4);
        let source_id = u64::from(SOURCE_ID + device);
        let response = [9 | with | source_id << 16, group << 3];
        self.guest.submit(&[response, wait(1)]);
    }

    /// What the device was answered since the last call: PASID, group, code.
    fn answers(&self, device: usize) -> Vec<(Option<u32>, u16, u32)> {
        let mut answers = Vec::new();
        let file = self.devices[device].1;
        while let Ok(Some(answer)) = self.twin.page_response(file) {
            answers.push((answer.pasid, answer.group, answer.code));
        }
        answers
    }
}

/// The software host of the unit's own.
#[test]
fn the_software_host() {
    let mut here = Guest::new(HostKind::Soft);
    here.build_tables();
    here.map(0x5000, 0x10_0000);
    assert_eq!(
        read(&moved(&here), 0x5678),
        Ok(0x5678),
        "translation is off"
    );
    here.enable();
    assert_eq!(read(&here, 0x5678), Ok(0x10_0678));
    here.map(0x5000, 0x10_1000);
    let mut there = moved(&here);
    let info = there.unit.device_info(there.device).unwrap();
    assert_eq!(info.state, BindingState::Nested);
    assert_eq!(read(&there, 0x5678), Ok(0x10_1678));
    there.map(0x5000, 0x10_2000);
    there.submit(&[page(0x5000), wait(1)]);
    assert_eq!(
        (there.peek(STATUS), read(&there, 0x5678)),
        (1, Ok(0x10_2678))
    );
    // In place, with other RAM: what the host has cached is not what is in the table.
    let saved = there.unit.save();
    there.map(0x5000, 0x10_3000);
    load(&there, &saved);
    assert_eq!(read(&there, 0x5678), Ok(0x10_3678));
    assert_eq!(there.unit.stats().stale_uses, 0);
    // To and from a unit without a host.
    let bare = Guest::new(HostKind::None);
    for (to, from) in bare.cells().iter().zip(there.cells().iter()) {
        let value = from.load(std::sync::atomic::Ordering::SeqCst);
        to.store(value, std::sync::atomic::Ordering::SeqCst);
    }
    load(&bare, &saved);
    assert_eq!(read(&bare, 0x5678), Ok(0x10_3678));
}

#[test]
fn devices_and_pasids_are_where_the_tables_say() {
    let here = Machine::booted();
    let mut there = here.moved();
    for machine in [&here, &there] {
        let stats = machine.twin.stats();
        assert_eq!((stats.ioas, stats.paging, stats.nested), (1, 1, 1));
        for device in 0..2 {
            for pasid in [None, Some(3)] {
                assert_eq!(machine.dma(device, pasid, 0x5678), Some(0x10_0678));
            }
            assert_eq!(machine.dma(device, Some(4), 0x5678), None);
        }
    }
    there.guest.map(0x5000, 0x10_1000);
    let all = [6 | 2 << 4 | u64::from(DOMAIN) << 16 | 3 << 32, 0];
    there.guest.submit(&[page(0x5000), all, wait(1)]);
    for pasid in [None, Some(3)] {
        assert_eq!(there.dma(0, pasid, 0x5678), Some(0x10_1678));
    }
    // A PASID that went while the state was under way, and all of them in place.
    let away = here.elsewhere();
    away.guest.poke(PASID_TABLE + 3 * 64, 0);
    load(&away.guest, &here.guest.unit.save());
    assert_eq!(away.dma(1, Some(3), 0x5678), None);
    assert_eq!(away.dma(1, None, 0x5678), Some(0x10_0678));
    let off = Machine::new();
    load(&away.guest, &off.guest.unit.save());
    assert_eq!(away.dma(1, None, 0x5678), Some(0x5678));
    let stats = away.twin.stats();
    assert_eq!((stats.ioas, stats.paging, stats.nested), (1, 1, 0));
}

#[test]
fn a_host_that_refuses_blocks_the_device_there() {
    let here = Machine::booted();
    let there = here.elsewhere();
    there.twin.inject(Injection {
        request: Some(request::HWPT_ALLOC),
        errno: libc::ENOMEM,
        times: u64::MAX,
        ..Injection::default()
    });
    load(&there.guest, &here.guest.unit.save());
    let info = there.guest.unit.device_info(there.guest.device).unwrap();
    assert_eq!(info.state, BindingState::Blocked);
    assert_eq!(there.dma(0, None, 0x5678), None);
}

#[test]
fn groups_that_wait_are_nobodys_elsewhere() {
    let mut here = Machine::booted();
    here.ask(0, None, 7);
    here.ask(0, Some(3), 0x1ff);
    here.ask(1, Some(3), 7);
    let mut there = here.moved();
    assert_eq!(there.guest.unit.save(), here.guest.unit.save());

    // Here the host has them, and there nobody: neither the VMM nor its devices.
    for machine in [&mut here, &mut there] {
        machine.answer(0, None, 7);
        machine.answer(0, Some(3), 0x1ff);
        assert!(machine.guest.notes.responses.lock().unwrap().is_empty());
    }
    let success = PAGE_RESPONSE_SUCCESS;
    assert_eq!(
        here.answers(0),
        [(None, 7, success), (Some(3), 0x1ff, success)]
    );
    assert_eq!(there.answers(0), []);

    // Each is answered once; what the device there asks is its own.
    there.ask(0, None, 7);
    there.answer(0, None, 7);
    assert_eq!(there.answers(0), [(None, 7, success)]);
    there.ask(1, Some(3), 7);
    there.answer(1, Some(3), 7);
    assert_eq!(there.answers(1), [(Some(3), 7, success)]);
    assert!(there.guest.notes.responses.lock().unwrap().is_empty());
}

#[test]
fn groups_of_this_host_are_answered_when_another_state_is_loaded() {
    let mut machine = Machine::booted();
    let saved = machine.guest.unit.save();
    machine.ask(0, None, 7);
    machine.ask(1, Some(3), 8);
    let later = machine.guest.unit.save();
    machine.guest.write64(PQH, machine.guest.read64(PQT));
    load(&machine.guest, &saved);
    let invalid = PAGE_RESPONSE_INVALID;
    assert_eq!(machine.answers(0), [(None, 7, invalid)]);
    assert_eq!(machine.answers(1), [(Some(3), 8, invalid)]);
    // The guest of the later state answers what it knows of.
    load(&machine.guest, &later);
    machine.answer(0, None, 7);
    assert_eq!(machine.answers(0), []);
    assert!(machine.guest.notes.responses.lock().unwrap().is_empty());
}

#[test]
fn groups_of_a_device_that_is_not_there_are_refused() {
    let here = Machine::booted();
    here.ask(1, None, 7);
    let saved = here.guest.unit.save();
    let bare = Guest::with(config());
    let said = refusal(&bare, &saved);
    assert!(said.contains("device 00:03.1"), "{said}");
    let other = DeviceDescription {
        tag: 2,
        source_id: SOURCE_ID + 1,
        ..DeviceDescription::default()
    };
    bare.unit.device_add(other).unwrap();
    load(&bare, &saved);
}
