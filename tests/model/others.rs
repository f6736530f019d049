//! Conditions of what is no DMA request: interrupts (5.1) and page requests (7.4).

use nested_vtd::interrupt::{Message, Request as Interrupt};
use nested_vtd::unit::PageRequest;

use crate::conditions::{Guest, Mode, NOWHERE, PASID, READ};
use crate::machine::{Machine, SOURCE_IDS};
use crate::reference::interrupt::{Control, Delivered, remap};
use crate::reference::{Refusal, bit, field, lookup};
use crate::world::context_entry;

/// The interrupt remapping table: 16 entries in a page of its own.
const TABLE: u64 = 28 << 12;
const SIZE: u64 = 3;

/// A guest that remaps interrupts.
pub struct Interrupts {
    machine: Machine,
    control: Control,
}

impl Interrupts {
    fn new(table: u64, compatibility: bool) -> Self {
        let guest = Guest::new(Mode::First, READ);
        let machine = Machine::new(guest.setup).unwrap();
        machine.write64(0xb8, table);
        machine.write32(0x18, 1 << 24);
        machine.write32(0x18, 1 << 25);
        machine.write32(0x18, 1 << 25 | u32::from(compatibility) << 23);
        assert_eq!(
            machine.read32(0x1c) & (1 << 25 | 1 << 23),
            1 << 25 | u32::from(compatibility) << 23
        );
        Self {
            machine,
            control: Control {
                enabled: true,
                compatibility,
                table,
            },
        }
    }

    fn entry(&mut self, index: u64, low: u64, high: u64) {
        self.machine.poke(TABLE + index * 16, low);
        self.machine.poke(TABLE + index * 16 + 8, high);
    }

    /// A request: the unit's fault code and the model's, 0 if there is none; what else they say
    /// is compared here.
    fn ask(&mut self, address: u64, data: u32) -> (u8, u8) {
        let source_id = SOURCE_IDS[0];
        let view = self.machine.memory.now();
        let expected = remap(view, &self.control, address, data, source_id);
        let outcome = self.machine.unit.remap_msi(Interrupt {
            message: Message { address, data },
            source_id,
            verify: true,
            pasid: None,
            look: false,
        });
        let record = self.machine.take_record();
        match (outcome.result, expected) {
            (Ok(message), Ok(expected)) => {
                assert_eq!(record, None);
                check_message(message, Message { address, data }, expected);
                (0, 0)
            }
            (Ok(message), Err(refusal)) => panic!("{message:x?} instead of {refusal:x?}"),
            (Err(refusal), Ok(expected)) => panic!("{:x?} instead of {expected:x?}", refusal.fault),
            (Err(refusal), Err(expected)) => {
                let code = refusal.fault.reason.code();
                let recorded = record.map(|record| field(record.high, 39, 32));
                let to_record = (!expected.quiet).then_some(u64::from(code));
                assert_eq!(recorded, to_record, "{address:#x} {data:#x} {expected:x?}");
                (code, expected.codes[0])
            }
        }
    }
}

fn check_message(message: Message, sent: Message, expected: Delivered) {
    match expected {
        Delivered::AsSent => assert_eq!((message.address, message.data), (sent.address, sent.data)),
        Delivered::Remapped {
            destination,
            vector,
            delivery_mode,
            logical,
            level,
        } => {
            let address = message.address;
            let upper = address >> 40 << 8;
            assert_eq!(address >> 20 & 0xfff, 0xfee, "{message:x?}");
            assert_eq!(
                upper | field(address, 19, 12),
                u64::from(destination),
                "{message:x?}"
            );
            assert_eq!(bit(address, 2), logical, "{message:x?}");
            let data = u64::from(message.data);
            assert_eq!(data & 0xff, u64::from(vector), "{message:x?}");
            assert_eq!(field(data, 10, 8), u64::from(delivery_mode), "{message:x?}");
            assert_eq!(bit(data, 15), level, "{message:x?}");
        }
    }
}

/// The address of a remappable request.
fn remappable(handle: u64, subhandle: bool) -> u64 {
    0xfee0_0010 | (handle & 0x7fff) << 5 | handle >> 15 << 2 | u64::from(subhandle) << 3
}

/// Present, vector 0x41, destination 1.
const PLAIN: u64 = 0x0000_0100_0041_0001;

pub fn reserved_in_request() -> (u8, u8) {
    let mut guest = Interrupts::new(TABLE | SIZE, false);
    guest.entry(1, PLAIN, 0);
    guest.ask(remappable(1, true), 0x1_0000)
}

pub fn index_beyond_the_table() -> (u8, u8) {
    let mut guest = Interrupts::new(TABLE | SIZE, false);
    guest.entry(16, PLAIN, 0);
    assert_eq!(guest.ask(remappable(8, true), 8), (0x21, 0x21));
    guest.ask(remappable(16, false), 0)
}

pub fn entry_not_present() -> (u8, u8) {
    let mut guest = Interrupts::new(TABLE | SIZE, false);
    guest.entry(1, PLAIN & !1, 0);
    guest.ask(remappable(1, false), 0)
}

pub fn table_outside_ram() -> (u8, u8) {
    Interrupts::new(NOWHERE | SIZE, false).ask(remappable(1, false), 0)
}

pub fn reserved_in_entry() -> (u8, u8) {
    let mut last = (0, 0);
    for (low, high) in [
        (1 << 12, 0),
        (1 << 15, 0),
        (1 << 31, 0),
        (1 << 32, 0),
        (1 << 48, 0),
        (0, 1 << 20),
        (0, 1 << 63),
    ] {
        let mut guest = Interrupts::new(TABLE | SIZE, false);
        guest.entry(1, PLAIN | low, high);
        last = guest.ask(remappable(1, false), 0);
        assert_eq!(last, (0x24, 0x24), "{low:#x} {high:#x}");
    }
    last
}

pub fn compatibility_format() -> (u8, u8) {
    let mut guest = Interrupts::new(TABLE | SIZE, true);
    assert_eq!(guest.ask(0xfee0_1000, 0x41), (0, 0));
    // Never in extended mode.
    let mut guest = Interrupts::new(TABLE | SIZE | 1 << 11, true);
    assert_eq!(guest.ask(0xfee0_1000, 0x41), (0x25, 0x25));
    Interrupts::new(TABLE | SIZE, false).ask(0xfee0_1000, 0x41)
}

pub fn another_requester() -> (u8, u8) {
    let source_id = u64::from(SOURCE_IDS[0]);
    // SVT 1 with SQ 0 and 3, SVT 2.
    for (high, refused) in [
        (1 << 18 | source_id, false),
        (1 << 18 | source_id ^ 1, true),
        (1 << 18 | 3 << 16 | source_id ^ 7, false),
        (1 << 18 | 3 << 16 | source_id ^ 8, true),
        (2 << 18 | 0x0002, false),
        (2 << 18 | 0x0102, true),
    ] {
        let mut guest = Interrupts::new(TABLE | SIZE, false);
        guest.entry(1, PLAIN, high);
        let code = if refused { 0x26 } else { 0 };
        assert_eq!(
            guest.ask(remappable(1, false), 0),
            (code, code),
            "{high:#x}"
        );
    }
    (0x26, 0x26)
}

/// No device asks an interrupt table with a PASID: the request is refused before the table is
/// looked at, so there is one step, and the model has it here.
pub fn with_pasid() -> (u8, u8) {
    let mut guest = Interrupts::new(TABLE | SIZE, false);
    guest.entry(1, PLAIN, 0);
    let outcome = guest.machine.unit.remap_msi(Interrupt {
        message: Message {
            address: remappable(1, false),
            data: 0,
        },
        source_id: SOURCE_IDS[0],
        verify: true,
        pasid: Some(PASID),
        look: false,
    });
    let code = outcome
        .result
        .map_or_else(|refusal| refusal.fault.reason.code(), |_| 0);
    (code, 0x29)
}

/// Entries of any content, most bits plain.
#[test]
fn interrupts_of_generated_entries() {
    let mut state = 7_u64;
    let mut random = move || {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut codes = [0_u32; 256];
    let mut guests = [
        Interrupts::new(TABLE | SIZE, false),
        Interrupts::new(TABLE | SIZE | 1 << 11, true),
    ];
    for _ in 0..4000 {
        let guest = &mut guests[(random() & 1) as usize];
        let noise = 1 << (random() & 63);
        let low = match random() % 4 {
            0 => PLAIN ^ noise,
            1 => PLAIN ^ (random() & 0x0000_ff00_00ff_00fe),
            2 => random(),
            _ => PLAIN,
        };
        let source_id = u64::from(SOURCE_IDS[0]);
        let high = match random() % 4 {
            0 => 1 << (random() & 63),
            1 => (random() & 0xf_0000) | source_id ^ (random() & 7),
            _ => source_id,
        };
        guest.entry(2, low, high);
        // Not the entry that the unit may have kept: all is forgotten.
        guest.machine.write32(0x18, 1 << 25 | 1 << 24);
        let compatibility = guest.control.compatibility;
        guest
            .machine
            .write32(0x18, 1 << 25 | u32::from(compatibility) << 23);
        let address = match random() % 8 {
            0 => 0xfee0_1000,
            1 => remappable(0, true),
            _ => remappable(2, random() & 1 == 1),
        };
        let data = match random() % 4 {
            0 => 2,
            1 => random() as u32 & 0x1_000f,
            _ => 0,
        };
        let (unit, model) = guest.ask(address, data);
        assert_eq!(unit, model, "{low:#x} {high:#x} {address:#x} {data:#x}");
        codes[usize::from(unit)] += 1;
    }
    for code in [0, 0x20, 0x21, 0x22, 0x24, 0x25, 0x26] {
        assert!(codes[code] > 0, "{code:#x} was never reached");
    }
}

/// A page request: the unit's fault code and the model's.
fn page_request(legacy: bool, pasid: Option<u32>, context: u64) -> (u8, u8) {
    let mode = if legacy { Mode::Legacy } else { Mode::First };
    let guest = Guest::new(mode, READ);
    let mut machine = Machine::new(guest.setup).unwrap();
    for &(address, value) in &guest.memory {
        machine.poke(address, value);
    }
    if !legacy {
        let address = context_entry(0, false);
        let entry = machine.memory.read(address).unwrap();
        machine.poke(address, entry & !0b1_1100 | context);
    }
    machine.set_root(guest.root);
    machine.set_translation(true);
    let (capabilities, view) = (machine.capabilities, machine.memory.now());
    let expected = lookup::page_request(view, &capabilities, guest.root, SOURCE_IDS[0], pasid);
    let request = PageRequest {
        address: 0x1000,
        pasid,
        read: true,
        last: true,
        ..PageRequest::default()
    };
    machine
        .unit
        .page_request(machine.handle(0), request)
        .unwrap();
    let record = machine.take_record();
    let code = |expected: Result<(), Refusal>| expected.err().map_or(0, |refusal| refusal.codes[0]);
    let found = record.map_or(0, |record| field(record.high, 39, 32) as u8);
    (found, code(expected))
}

pub fn page_request_in_legacy_mode() -> (u8, u8) {
    page_request(true, None, 0)
}

pub fn page_request_without_pre() -> (u8, u8) {
    page_request(false, None, 0b0_0100)
}

/// The other conditions of page requests are those of all requests.
#[test]
fn page_requests_are_judged_by_the_context_entry() {
    for (pasid, context, code) in [
        (None, 0b1_1100, 0),
        (Some(PASID), 0b1_1100, 0),
        (None, 0b1_1000, 0x43),
        (None, 0b0_1000, 0x44),
        (Some(PASID), 0b1_0100, 0x45),
        (Some(64 << 7), 0b1_1100, 0x46),
        (None, 0b0_1100, 0x47),
    ] {
        assert_eq!(
            page_request(false, pasid, context),
            (code, code),
            "{pasid:?} {context:#b}"
        );
    }
}
