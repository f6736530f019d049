//! Moments at which a state is awkward to save, and that the guest goes on from there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::common::*;
use crate::states::{
    FAULT_MSI, IRT, PAGE_MSI, RING, WAIT_MSI, all_on, busy, config, fault, first_stage, legacy,
    page_request, wait_with_interrupt,
};
use crate::*;
use nested_vtd::spec::page_request::ResponseCode;
use nested_vtd::unit::{Config, Notify};
use nested_vtd::vmm::{Holder, InvalidationFailure, Pasids};

/// The same is done here and there, with the same result.
fn both<T: PartialEq + std::fmt::Debug>(
    here: &mut Guest,
    there: &mut Guest,
    act: impl Fn(&mut Guest) -> T,
) {
    let (before, after) = (act(here), act(there));
    assert_eq!(after, before);
    assert_eq!(there.unit.save(), here.unit.save());
    assert_eq!(registers(there), registers(here));
    assert_eq!(sent(there), sent(here));
}

#[test]
fn after_power_on() {
    for features in [Config::DEFAULT.features, everything()] {
        let guest = Guest::with(Config {
            features,
            pasid_bits: 20,
            ..Config::DEFAULT
        });
        let there = moved(&guest);
        assert_eq!(read(&there, 0x1234), Ok(0x1234));
    }
}

#[test]
fn everything_at_once() {
    let mut here = busy();
    let mut there = moved(&here);
    both(&mut here, &mut there, |guest| read(guest, 0x5678));
    both(&mut here, &mut there, |guest| remap(guest, 3));
    // Written, but not in force; then it is.
    both(&mut here, &mut there, |guest| {
        guest.write64(IRTA, 0x7_0000 | 3);
        remap(guest, 3)
    });
    both(&mut here, &mut there, |guest| {
        let on = guest.read32(GSTS) & (QIE | TE | IRE);
        guest.write32(GCMD, on | SIRTP);
        remap(guest, 3)
    });
    // The masks are lifted, one after the other.
    for control in [FECTL, IECTL, PECTL] {
        both(&mut here, &mut there, |guest| guest.write32(control, 0));
    }
    // The records are read and cleared, in order; the next fault has its place.
    both(&mut here, &mut there, |guest| {
        for record in 0..8 {
            guest.write32(FRCD + record * 16 + 12, 1 << 31);
        }
        guest.write32(FSTS, PFO);
        fault(guest, 3);
        guest.read32(FSTS)
    });
    // The queue goes on behind the descriptor that was wrong.
    both(&mut here, &mut there, |guest| {
        guest.poke(QUEUE + 64, wait(9)[0]);
        guest.poke(QUEUE + 72, STATUS);
        guest.write32(FSTS, IQE);
        (guest.read64(IQH), guest.peek(STATUS))
    });
    both(&mut here, &mut there, |guest| {
        guest.submit(&[page(0x5000), wait(10)]);
        (guest.read64(IQH), guest.peek(STATUS))
    });
    // Requests go on where the queue's tail was.
    both(&mut here, &mut there, |guest| {
        page_request(guest, 0x9000, 8);
        (guest.read64(PQT), guest.peek(RING + 2 * 32 + 8))
    });
}

#[test]
fn a_guest_goes_on_and_invalidates() {
    for (guest, mut submit) in [first_stage(), all_on()].map(|guest| (guest, 1)) {
        assert_eq!(read(&guest, 0x5678), Ok(0x10_0678));
        // Here it is cached, there it is not.
        guest.map(0x5000, 0x10_1000);
        assert_eq!(read(&guest, 0x5678), Ok(0x10_0678));
        let mut there = moved(&guest);
        assert_eq!(read(&there, 0x5678), Ok(0x10_1678));
        there.map(0x5000, 0x10_2000);
        assert_eq!(read(&there, 0x5678), Ok(0x10_1678));
        for target in [0x10_2000, 0x10_3000, 0x10_4000] {
            submit += 1;
            there.map(0x5000, target);
            there.submit(&[page(0x5000), wait(submit)]);
            assert_eq!(there.peek(STATUS), submit.into());
            assert_eq!(read(&there, 0x5678), Ok(target | 0x678));
        }
        // Once more.
        let again = moved(&there);
        assert_eq!(read(&again, 0x5678), Ok(0x10_4678));
    }
}

#[test]
fn what_is_cached_is_forgotten_where_it_is_loaded() {
    let guest = all_on();
    let saved = guest.unit.save();
    let goes = |dma, msi: u32| {
        assert_eq!(read(&guest, 0x5678), Ok(dma));
        assert_eq!(remap(&guest, 3), Ok((0xfee0_1000, 0x4000 | msi)));
    };
    goes(0x10_0678, 0x55);
    guest.map(0x5000, 0x10_1000);
    guest.poke(IRT + 3 * 16, 0x0000_0100_0066_0001);
    goes(0x10_0678, 0x55);
    let before = guest.unit.stats();
    load(&guest, &saved);
    goes(0x10_1678, 0x66);
    // Counters stay, and count on.
    let after = guest.unit.stats();
    assert_eq!(after.translations, before.translations + 1);
    assert_eq!(after.descriptors, before.descriptors);
}

/// Context and PASID entries are cached, too.
#[test]
fn decoded_entries_are_forgotten_where_they_are_loaded() {
    let guest = first_stage();
    let saved = guest.unit.save();
    assert_eq!(read(&guest, 0x5678), Ok(0x10_0678));
    guest.set_pasid_entry(4);
    assert_eq!(read(&guest, 0x5678), Ok(0x10_0678));
    load(&guest, &saved);
    assert_eq!(read(&guest, 0x5678), Ok(0x5678), "pass-through");
}

#[test]
fn another_root_table_is_in_force_where_it_is_loaded() {
    let guest = first_stage();
    let saved = guest.unit.save();
    guest.write64(RTADDR, 0x30_0000 | 1 << 10);
    assert_eq!(
        read(&guest, 0x5000),
        Ok(0x10_0000),
        "the old one is in force"
    );
    let there = moved(&guest);
    assert_eq!(
        read(&there, 0x5000),
        Ok(0x10_0000),
        "the old one is in force"
    );
    for guest in [&guest, &there] {
        guest.write32(GCMD, QIE | TE | SRTP);
        assert_eq!(read(guest, 0x5000), Err(0x39));
        guest.write32(FRCD + 12, 1 << 31);
        load(guest, &saved);
        assert_eq!(read(guest, 0x5000), Ok(0x10_0000));
    }
}

#[test]
fn registers_of_which_half_is_written() {
    let mut here = Guest::with(config());
    here.build_tables();
    here.map(0x5000, 0x10_0000);
    for (at, low) in [
        (RTADDR, ROOT as u32 | 1 << 10),
        (IQA, QUEUE as u32 | 0x800),
        (IRTA, 0x1_0807),
        (PQA, 0x1_0003),
        (CCMD, 0x0018_0005),
        (IOTLB, 0xffff_ffff),
        (IVA, 0x5001),
        (PQT, 0x20),
    ] {
        here.write32(at, low);
        here.write32(at + 4, 0x17);
        here.write32(at, low);
    }
    let mut there = moved(&here);
    both(&mut here, &mut there, |guest| {
        for at in [RTADDR, IQA, IRTA, PQA] {
            assert_eq!(guest.read32(at + 4), 0x17);
            guest.write32(at + 4, 0);
        }
        // ICC and IVT are in the upper halves.
        guest.write32(CCMD + 4, 1 << 31 | 1 << 29);
        guest.write32(IOTLB + 4, 1 << 31 | 1 << 28);
        guest.write32(GCMD, QIE);
        guest.write32(GCMD, QIE | SRTP);
        guest.write32(GCMD, QIE | TE);
        guest.submit(&[page(0x5000), wait(3)]);
        (guest.peek(STATUS), read(guest, 0x5000))
    });
    assert_eq!(read(&there, 0x5000), Ok(0x10_0000));
}

/// A fault, a wait that is done, a page request; the register, and the interrupt.
type Event = (fn(&mut Guest), u64, (u64, u32), fn(&Guest));

const EVENTS: [Event; 3] = [
    (
        |guest| fault(guest, 1),
        FECTL,
        FAULT_MSI,
        |guest| guest.write32(FRCD + 12, 1 << 31),
    ),
    (
        |guest| guest.submit(&[wait_with_interrupt()]),
        IECTL,
        WAIT_MSI,
        |guest| guest.write32(ICS, 1),
    ),
    (
        |guest| page_request(guest, 0x9000, 1),
        PECTL,
        PAGE_MSI,
        |guest| guest.write32(PRS, 1),
    ),
];

#[test]
fn an_interrupt_that_is_masked_is_sent_once_when_it_is_not() {
    for (raise, control, msi, settle) in EVENTS {
        let mut here = all_on();
        raise(&mut here);
        assert_eq!(here.read32(control), IM | IP);
        let mut there = moved(&here);
        both(&mut here, &mut there, |guest| guest.read32(control));
        there.write32(control, 0);
        assert_eq!(sent(&there), [msi]);
        // Not again: neither by the mask, nor elsewhere.
        there.write32(control, IM);
        there.write32(control, 0);
        let further = moved(&there);
        for guest in [&there, &further] {
            guest.write32(control, IM);
            guest.write32(control, 0);
            assert_eq!(sent(guest), []);
        }
        // What was seen to while it waited is void.
        let settled = moved(&here);
        settle(&settled);
        settled.write32(control, 0);
        assert_eq!(sent(&settled), []);
    }
}

#[test]
fn an_interrupt_that_is_not_masked_was_sent() {
    for (raise, control, msi, settle) in EVENTS {
        let mut here = all_on();
        here.write32(control, 0);
        raise(&mut here);
        assert_eq!(sent(&here), [msi]);
        let mut there = moved(&here);
        // The condition is up, so it is not raised again before it is seen to.
        raise(&mut there);
        assert_eq!(sent(&there), []);
        settle(&there);
        if control == PECTL {
            there.write64(PQH, there.read64(PQT));
        }
        raise(&mut there);
        assert_eq!(sent(&there), [msi]);
    }
}

/// What stops the queue, and IQEI.
type QueueError = (fn(&mut Guest), u64);

#[test]
fn a_queue_that_stopped_stays_so() {
    // Unknown type, reserved field, a tail beyond it, one within a descriptor.
    let stops: [QueueError; 4] = [
        (|guest| guest.submit(&[wait(1), [0xf, 0], wait(2)]), 3),
        (
            |guest| guest.submit(&[wait(1), [5 | 1 << 12, 0], wait(2)]),
            4,
        ),
        (|guest| guest.write64(IQT, 0x2000), 1),
        (|guest| guest.write64(IQT, 0x30), 6),
    ];
    for (stop, info) in stops {
        let mut here = all_on();
        stop(&mut here);
        assert_eq!(here.read64(IQERCD), info);
        let mut there = moved(&here);
        let status = there.peek(STATUS);
        both(&mut here, &mut there, |guest| {
            guest.write64(IQT, guest.read64(IQT));
            (guest.read32(FSTS), guest.read64(IQH))
        });
        assert_eq!(there.peek(STATUS), status);
        // Software sees to it: both waits, then nothing.
        both(&mut here, &mut there, |guest| {
            let head = guest.read64(IQH);
            guest.poke(QUEUE + head, wait(3)[0]);
            guest.poke(QUEUE + head + 8, STATUS);
            guest.write64(IQT, head + 32);
            guest.write32(FSTS, IQE);
            (guest.peek(STATUS), guest.read64(IQH))
        });
        assert_eq!(there.peek(STATUS), 3);
        assert_eq!(there.read64(IQERCD), 0);
    }
}

#[test]
fn device_tlbs_that_did_not_answer() {
    let bad = [
        (InvalidationFailure::TimedOut, ITE, 32),
        (InvalidationFailure::Failed, ICE, 48),
    ];
    for (failure, bit, place) in bad {
        let mut here = all_on();
        let notify = Notify {
            unit: false,
            device_tlb: true,
        };
        here.unit.device_notify(here.device, notify).unwrap();
        *here.notes.obey.lock().unwrap() = Some(Arc::new(move || Err(failure)));
        here.submit(&[
            [3 | u64::from(SOURCE_ID) << 32, 0x7fff_ffff_ffff_f001],
            wait(1),
            wait(2),
        ]);
        assert_eq!(here.read32(FSTS), bit);
        assert_eq!(here.read64(IQERCD), u64::from(SOURCE_ID) << place);
        *here.notes.obey.lock().unwrap() = None;
        let mut there = moved(&here);
        both(&mut here, &mut there, |guest| {
            guest.write32(FSTS, bit);
            (guest.peek(STATUS), guest.read64(IQERCD), guest.read64(IQH))
        });
        assert_eq!(there.peek(STATUS), 2);
    }
}

/// Legacy mode has 128-bit descriptors, and here a queue of four pages.
#[test]
fn narrow_descriptors() {
    let mut here = legacy();
    let mut there = moved(&here);
    both(&mut here, &mut there, |guest| read(guest, 0x5000));
    both(&mut here, &mut there, |guest| {
        let tail = guest.read64(IQT);
        guest.poke(QUEUE + tail, 2 | 1 << 4);
        guest.poke(QUEUE + tail + 16, wait(5)[0]);
        guest.poke(QUEUE + tail + 24, STATUS);
        guest.write64(IQT, tail + 32);
        (guest.peek(STATUS), guest.read64(IQH))
    });
    assert_eq!(there.peek(STATUS), 5);
}

#[test]
fn a_queue_that_wrapped() {
    let mut here = Guest::with(Config::DEFAULT);
    here.build_tables();
    here.enable_queue_at(0x10_0000, 3);
    for round in 1..=3 {
        here.submit(&vec![wait(round); 500]);
    }
    assert_eq!(here.read64(IQH), (1500 * 32) % 0x8000);
    let mut there = moved(&here);
    both(&mut here, &mut there, |guest| {
        guest.submit(&[wait(9); 700]);
        (guest.peek(STATUS), guest.read64(IQH))
    });
}

#[test]
fn page_requests_wait_and_overflow() {
    let mut here = all_on();
    for index in 0..127 {
        page_request(&here, index << 12, index as u16);
    }
    here.write32(PRS, 1);
    page_request(&here, 0x5000, 200);
    assert_eq!(here.read32(PRS), 2);
    here.notes.responses.lock().unwrap().clear();
    let mut there = moved(&here);
    let codes = |guest: &Guest| -> Vec<(u16, ResponseCode)> {
        let responses = std::mem::take(&mut *guest.notes.responses.lock().unwrap());
        let codes = responses
            .iter()
            .map(|response| (response.group, response.code));
        codes.collect()
    };
    // Nothing goes in, then all of it comes out, then the next goes in.
    both(&mut here, &mut there, |guest| {
        page_request(guest, 0x6000, 201);
        codes(guest)
    });
    both(&mut here, &mut there, |guest| {
        guest.submit(&[[9 | u64::from(SOURCE_ID) << 16, 17 << 3], wait(4)]);
        (codes(guest), guest.peek(STATUS))
    });
    both(&mut here, &mut there, |guest| {
        guest.write64(PQH, guest.read64(PQT));
        guest.write32(PRS, 2);
        page_request(guest, 0x7000, 202);
        (guest.read64(PQT), guest.peek(RING + 127 * 32 + 8))
    });
    assert_eq!(there.read64(PQT), 0);
}

/// The unit's state as a thread in the middle of the queue leaves it: the VMM is being told.
fn in_the_middle() -> (Guest, Guest) {
    let guest = Arc::new(Mutex::new(None::<(Vec<u8>, Guest)>));
    let mut here = all_on();
    here.write32(IECTL, 0);
    let notify = Notify {
        unit: true,
        device_tlb: false,
    };
    here.unit.device_notify(here.device, notify).unwrap();
    let (unit, seen) = (Arc::clone(&here.unit), Arc::clone(&guest));
    let there = here.elsewhere();
    let (from, to) = (here.cells(), there.cells());
    let there = Mutex::new(Some(there));
    *here.notes.obey.lock().unwrap() = Some(Arc::new(move || {
        let first = there.lock().unwrap().take();
        if let Some(there) = first {
            let error = unit.load(&unit.save()).unwrap_err();
            assert_eq!(error.errno(), libc::EBUSY, "{error}");
            for (to, from) in to.iter().zip(from.iter()) {
                to.store(from.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            *seen.lock().unwrap() = Some((unit.save(), there));
        }
        Ok(())
    }));
    here.submit(&[
        wait(1),
        page(0x5000),
        [5 | 1 << 4 | 1 << 5 | 2 << 32, STATUS],
        wait(3),
    ]);
    *here.notes.obey.lock().unwrap() = None;
    assert_eq!((here.peek(STATUS), here.read64(IQH)), (3, 4 * 32));
    assert_eq!(sent(&here), [WAIT_MSI]);
    let (saved, there) = guest.lock().unwrap().take().unwrap();
    load(&there, &saved);
    (here, there)
}

#[test]
fn a_queue_in_the_middle_goes_on_with_the_next_access() {
    let accesses: [fn(&mut Guest); 4] = [
        |guest| assert_eq!(guest.read32(FSTS), 0),
        |guest| assert_ne!(guest.read64(IQH), 0),
        |guest| guest.write64(IQT, 4 * 32),
        |guest| guest.submit(&[]),
    ];
    for access in accesses {
        let (here, mut there) = in_the_middle();
        // Nothing is done by loading it, nor by other registers or DMA.
        assert_eq!(there.read64(IQT), 4 * 32);
        assert_eq!(read(&there, 0x5000), Ok(0x10_0000));
        assert_eq!(there.peek(STATUS), 1);
        assert_eq!(sent(&there), []);
        let there_tail = here.tail();
        assert_eq!(there_tail, 4 * 32);
        there.set_tail(there_tail);
        access(&mut there);
        assert_eq!((there.peek(STATUS), there.read64(IQH)), (3, 4 * 32));
        assert_eq!(sent(&there), [WAIT_MSI]);
        assert_eq!(registers(&there), registers(&here));
    }
}

/// CCMD and IOTLB say that they are done, as they are where everything is forgotten.
#[test]
fn a_command_in_the_middle_is_done() {
    for (register, command) in [(CCMD, 1 << 63 | 1 << 61), (IOTLB, 1 << 63 | 1 << 60)] {
        let here = all_on();
        let there = here.elsewhere();
        let notify = Notify {
            unit: true,
            device_tlb: false,
        };
        here.unit.device_notify(here.device, notify).unwrap();
        let (unit, saved) = (Arc::clone(&here.unit), Arc::new(Mutex::new(Vec::new())));
        let state = Arc::clone(&saved);
        *here.notes.obey.lock().unwrap() = Some(Arc::new(move || {
            assert_ne!(unit.mmio_read(register, 8).unwrap() & 1 << 63, 0);
            *state.lock().unwrap() = unit.save();
            Ok(())
        }));
        here.write64(register, command);
        // The unit is in what it calls, and would never end.
        *here.notes.obey.lock().unwrap() = None;
        load(&there, &saved.lock().unwrap());
        assert_eq!(there.read64(register), here.read64(register));
        assert_eq!(there.read64(register) >> 63, 0);
    }
}

#[test]
fn who_keeps_answers_is_told_to_forget() {
    let guest = all_on();
    let saved = guest.unit.save();
    for (unit, device_tlb) in [(false, false), (true, false), (false, true), (true, true)] {
        let notify = Notify { unit, device_tlb };
        guest.unit.device_notify(guest.device, notify).unwrap();
        guest.notes.forgotten.lock().unwrap().clear();
        guest.notes.invalidations.lock().unwrap().clear();
        load(&guest, &saved);
        assert_eq!(*guest.notes.forgotten.lock().unwrap(), [None]);
        let told = guest.notes.invalidations.lock().unwrap();
        for (holder, wanted) in [(Holder::Unit, unit), (Holder::DeviceTlb, device_tlb)] {
            let of = told.iter().filter(|told| told.holder == holder);
            let of: Vec<_> = of
                .map(|told| (told.first, told.last, told.pasids))
                .collect();
            let all = (0, u64::MAX, Pasids::All);
            assert_eq!(of, if wanted { vec![all] } else { vec![] }, "{holder:?}");
        }
    }
    // One that cannot is the operator's business.
    *guest.notes.obey.lock().unwrap() = Some(Arc::new(|| Err(InvalidationFailure::TimedOut)));
    guest.notes.lines.lock().unwrap().clear();
    load(&guest, &saved);
    assert_eq!(guest.read32(FSTS), 0);
    let lines = guest.notes.lines.lock().unwrap();
    assert!(
        lines.iter().any(|line| line.contains("device 00:03.0")),
        "{lines:?}"
    );
}
