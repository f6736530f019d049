//! Whatever a guest writes: an architectural fault, a queue error or an ignored
//! write, in bounded time and without a panic.

mod common;

use common::*;
use nested_vtd::interrupt::{self, Message};
use nested_vtd::unit::{Config, HostKind, PageRequest, Request};
use proptest::prelude::*;

/// Offsets that mean something, a little off, or nothing.
fn offsets() -> impl Strategy<Value = u64> {
    prop_oneof![
        proptest::sample::select(vec![
            0x18, 0x20, 0x24, 0x28, 0x2c, 0x34, 0x38, 0x3c, 0x40, 0x44, 0x80, 0x88, 0x8c, 0x90,
            0x94, 0x9c, 0xa0, 0xa4, 0xb0, 0xb8, 0xbc, 0xc0, 0xc8, 0xd0, 0xdc, 0xe0, 0xe4, 0xf0,
            0xf8, 0xfc, 0x220, 0x228, 0x22c, 0x298, 0x29c,
        ]),
        0_u64..0xff8,
    ]
}

/// Values that are nothing, near a table, or anything.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        (0_u64..16, 0_u64..0x1000).prop_map(|(page, low)| page << 12 | low),
        any::<u64>(),
        (0_u32..64).prop_map(|bit| 1 << bit),
    ]
}

/// Interrupt requests of either format, and writes elsewhere.
fn interrupts() -> impl Strategy<Value = Message> {
    let address = prop_oneof![
        0xfee0_0000_u64..=0xfeef_ffff,
        0xfee0_0000_u64..0xfee0_0100,
        values()
    ];
    let data = prop_oneof![Just(0), any::<u32>(), 0_u32..16];
    (address, data).prop_map(|(address, data)| Message { address, data })
}

#[derive(Debug, Clone)]
enum Step {
    Write {
        offset: u64,
        size: u32,
        value: u64,
    },
    Read {
        offset: u64,
        size: u32,
    },
    Poke {
        gpa: u64,
        value: u64,
    },
    Dma {
        address: u64,
        write: bool,
    },
    Ask {
        address: u64,
        pasid: Option<u32>,
        last: bool,
    },
    Interrupt {
        message: Message,
        source_id: u16,
    },
    Reset,
}

fn steps() -> impl Strategy<Value = Step> {
    let sizes = || proptest::sample::select(vec![1_u32, 2, 4, 4, 4, 8, 8]);
    prop_oneof![
        8 => (offsets(), sizes(), values())
            .prop_map(|(offset, size, value)| Step::Write { offset, size, value }),
        2 => (offsets(), sizes()).prop_map(|(offset, size)| Step::Read { offset, size }),
        6 => (0_u64..0xb000 / 8, values()).prop_map(|(cell, value)| Step::Poke { gpa: cell * 8, value }),
        3 => (values(), any::<bool>()).prop_map(|(address, write)| Step::Dma { address, write }),
        3 => (values(), proptest::option::of(0_u32..1 << 20), any::<bool>())
            .prop_map(|(address, pasid, last)| Step::Ask { address, pasid, last }),
        3 => (interrupts(), any::<u16>())
            .prop_map(|(message, source_id)| Step::Interrupt { message, source_id }),
        1 => Just(Step::Reset),
    ]
}

fn run(host: HostKind, steps: &[Step]) {
    // Devices of a host cannot ask for pages.
    let asking = host == HostKind::None;
    let mut guest = Guest::with(Config {
        host,
        features: Config::DEFAULT
            .features
            .with_device_tlb(asking)
            .with_page_request(asking)
            .with_interrupt_remapping(true)
            .with_extended_interrupt_mode(true),
        pasid_bits: if asking { 20 } else { 0 },
        ..Config::DEFAULT
    });
    guest.build_tables();
    guest.enable();
    for step in steps {
        match *step {
            Step::Write {
                offset,
                size,
                value,
            } => {
                guest.unit.mmio_write(offset, size, value).unwrap();
            }
            Step::Read { offset, size } => {
                guest.unit.mmio_read(offset, size).unwrap();
            }
            Step::Poke { gpa, value } => guest.poke(gpa, value),
            Step::Dma { address, write } => {
                let request = Request {
                    address,
                    read: !write,
                    write,
                    ..Request::default()
                };
                guest.unit.translate(guest.device, request).unwrap();
            }
            Step::Ask {
                address,
                pasid,
                last,
            } => {
                let request = PageRequest {
                    address,
                    pasid,
                    read: true,
                    last,
                    ..PageRequest::default()
                };
                let asked = guest.unit.page_request(guest.device, request);
                assert_eq!(asked.is_ok(), host == HostKind::None);
            }
            Step::Interrupt { message, source_id } => {
                let outcome = guest.unit.remap_msi(interrupt::Request {
                    message,
                    source_id,
                    verify: true,
                    pasid: None,
                    look: false,
                });
                match (outcome.result, outcome.index) {
                    (Ok(passed), None) => assert_eq!(passed, message),
                    (Ok(remapped), Some(_)) => {
                        assert_eq!(remapped.address & 0xff_fff0_0ff3, 0xfee0_0000);
                        assert_eq!(remapped.data & 0xffff_7800, 0x4000);
                    }
                    (Err(refusal), _) => {
                        assert!((0x20..=0x26).contains(&refusal.fault.reason.code()));
                    }
                }
            }
            Step::Reset => guest.unit.reset(),
        }
        assert!(
            guest.read64(0x80) < 0x8_0000,
            "IQH stays inside the largest queue"
        );
    }
    // And it still works.
    guest.unit.reset();
    let mut fresh = guest;
    for cell in 0..0xb000 / 8 {
        fresh.poke(cell * 8, 0);
    }
    fresh.build_tables();
    fresh.map(0x5000, 0x10_0000);
    fresh.enable();
    fresh.write32(0x88, 0);
    let queue_is_fine = fresh.read32(0x34) & 0x10 == 0;
    assert!(queue_is_fine, "a reset clears the queue error");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_guest_can_upset_the_unit(steps in proptest::collection::vec(steps(), 1..80)) {
        run(HostKind::None, &steps);
        run(HostKind::Soft, &steps);
    }

    #[test]
    fn any_descriptor_is_executed_or_stops_the_queue(
        qwords in proptest::array::uniform4(prop_oneof![any::<u64>(), 0_u64..16]),
    ) {
        let mut guest = Guest::new(HostKind::Soft);
        guest.build_tables();
        guest.enable();
        for (index, qword) in qwords.into_iter().enumerate() {
            guest.poke(QUEUE + index as u64 * 8, qword);
        }
        guest.write32(0x88, 32);
        let stopped = guest.read32(0x34) & 0x10 != 0;
        prop_assert_eq!(guest.read64(0x80), if stopped { 0 } else { 32 });
        prop_assert_eq!(guest.read64(0xb0) & 0xf != 0, stopped);
    }
}

#[test]
fn a_full_ring_is_drained_once_and_ends() {
    let mut guest = Guest::new(HostKind::Soft);
    guest.build_tables();
    guest.enable();
    for slot in 0..128 {
        guest.poke(QUEUE + slot * 32, 6 | 2 << 4 | u64::from(DOMAIN) << 16);
    }
    guest.write32(0x88, 127 * 32);
    assert_eq!(guest.unit.stats().descriptors, 127);
    assert_eq!(guest.read64(0x80), 127 * 32);
}

#[test]
fn registers_outside_their_rules_are_left_alone() {
    let mut guest = Guest::new(HostKind::None);
    guest.enable();
    let before: Vec<u32> = (0..0x300 / 4)
        .map(|index| guest.read32(index * 4))
        .collect();
    let ignored = guest.unit.stats().mmio_ignored;
    for (offset, size) in [
        (0x18, 8),
        (0x38, 8),
        (0x40, 8),
        (0x19, 1),
        (0x22, 2),
        (0x21, 4),
        (0x24, 8),
        (0x48, 4),
    ] {
        guest.unit.mmio_write(offset, size, u64::MAX).unwrap();
    }
    assert_eq!(guest.unit.stats().mmio_ignored - ignored, 8);
    let after: Vec<u32> = (0..0x300 / 4)
        .map(|index| guest.read32(index * 4))
        .collect();
    assert_eq!(before, after);
}

#[test]
fn a_queue_outside_ram_is_a_fetch_error_and_counted() {
    let guest = Guest::new(HostKind::None);
    guest.write64(0x90, 0xdead_0000_0000 | 0x800);
    guest.write32(0x18, 1 << 26);
    guest.write32(0x88, 32);
    assert_eq!(guest.read64(0xb0) & 0xf, 2);
    assert_eq!(guest.read32(0x34) & 0x10, 0x10);
    assert_eq!(guest.unit.stats().memory_errors, 1);
}

#[test]
fn reserved_and_read_only_bits_of_commands_are_not_kept() {
    let guest = Guest::new(HostKind::None);
    // CCMD, IOTLB and IVA, without the bit that starts a command.
    for (offset, kept) in [
        (0x28, 0x6000_0003_ffff_ffff),
        (0xf8, 0x3003_ffff_0000_0000),
        (0xf0, !0xf80),
    ] {
        let value = if offset == 0xf0 {
            u64::MAX
        } else {
            u64::MAX >> 1
        };
        guest.write64(offset, value);
        assert_eq!(guest.read64(offset), kept, "{offset:#x}");
    }
    // What was done is the unit's to say, and stays until the next command.
    guest.write64(0x28, 1 << 63 | 1 << 61);
    assert_eq!(guest.read64(0x28), 1 << 61 | 1 << 59);
    guest.write64(0x28, 2 << 61 | 3 << 59);
    assert_eq!(guest.read64(0x28), 2 << 61 | 1 << 59);
}
