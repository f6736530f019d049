//! Page requests: the queue, its overflow and event, who may ask, and the answers.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use nested_vtd::spec::page_request::ResponseCode;
use nested_vtd::unit::{Config, PageRequest, Request};
use proptest::prelude::*;

const PQH: u64 = 0xc0;
const PQT: u64 = 0xc8;
const PQA: u64 = 0xd0;
const PRS: u64 = 0xdc;
const PECTL: u64 = 0xe0;
const PEDATA: u64 = 0xe4;
const PEADDR: u64 = 0xe8;
const PEUADDR: u64 = 0xec;
const FSTS: u64 = 0x34;
const FRCD: u64 = 0x220;

const PPR: u32 = 1;
const PRO: u32 = 2;

/// The page request queue: 128 entries, between two pages that nobody writes.
const RING: u64 = 0x20_0000;
const CONTEXT_ENTRY: u64 = CONTEXT + SOURCE_ID as u64 * 32;
/// P, DTE, PASIDE, PRE.
const CONTEXT_BITS: u64 = 0b1_1101;
const MSI: (u64, u32) = (0x12_fee0_3000, 0x61);

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

/// A guest whose device may ask for pages; the event is unmasked.
fn asking() -> Guest {
    let mut guest = Guest::with(config());
    guest.build_tables();
    guest.poke(CONTEXT_ENTRY, DIRECTORY | CONTEXT_BITS);
    guest.write64(PQH, 0);
    guest.write64(PQT, 0);
    guest.write64(PQA, RING);
    guest.write32(PEDATA, MSI.1);
    guest.write32(PEADDR, MSI.0 as u32);
    guest.write32(PEUADDR, (MSI.0 >> 32) as u32);
    guest.write32(PECTL, 0);
    guest.enable();
    guest
}

fn read(address: u64) -> PageRequest {
    PageRequest {
        address,
        read: true,
        last: true,
        ..PageRequest::default()
    }
}

fn ask(guest: &Guest, request: PageRequest) {
    guest.unit.page_request(guest.device, request).unwrap();
}

/// Codes of the responses since the last call.
fn codes(guest: &Guest) -> Vec<ResponseCode> {
    let responses = std::mem::take(&mut *guest.notes.responses.lock().unwrap());
    responses.iter().map(|response| response.code).collect()
}

fn msis(guest: &Guest) -> usize {
    guest.notes.msis.lock().unwrap().len()
}

fn entry(guest: &Guest, index: u64) -> [u64; 4] {
    [0, 8, 16, 24].map(|offset| guest.peek(RING + index * 32 + offset))
}

#[test]
fn a_request_is_queued_and_signalled() {
    let guest = asking();
    for index in 0..4 {
        guest.poke(RING + 16 + index * 8, u64::MAX);
    }
    let request = PageRequest {
        address: 0xffff_8765_4321_0fff,
        pasid: Some(0xf_edcb),
        read: true,
        write: true,
        execute: true,
        privileged: true,
        last: true,
        group: 0x1a5,
    };
    // 20-bit PASIDs need a directory of 2^14 entries.
    guest.poke(CONTEXT_ENTRY, DIRECTORY | CONTEXT_BITS | 7 << 9);
    ask(&guest, request);
    let low = 1 | 1 << 8 | u64::from(SOURCE_ID) << 16 | 0xf_edcb << 32 | 1 << 52 | 1 << 53;
    let high = 0b111 | 0x1a5 << 3 | 0xffff_8765_4321_0000;
    assert_eq!(entry(&guest, 0), [low, high, 0, 0]);
    assert_eq!((guest.read64(PQH), guest.read64(PQT)), (0, 32));
    assert_eq!(guest.read32(PRS), PPR);
    assert_eq!(*guest.notes.msis.lock().unwrap(), [MSI]);

    // No PASID, and no further interrupt before PPR is cleared.
    let second = PageRequest {
        last: false,
        ..read(0x5000)
    };
    ask(&guest, second);
    let plain = 1 | u64::from(SOURCE_ID) << 16;
    assert_eq!(entry(&guest, 1), [plain, 0x5001, 0, 0]);
    assert_eq!((guest.read64(PQT), msis(&guest)), (64, 1));
    guest.write32(PRS, PPR);
    assert_eq!(guest.read32(PRS), 0);
    ask(&guest, second);
    assert_eq!(msis(&guest), 2);
    assert!(codes(&guest).is_empty(), "answers are the guest's");
    let stats = guest.unit.stats();
    assert_eq!((stats.page_requests, stats.page_requests_refused), (3, 0));
}

#[test]
fn the_event_waits_while_it_is_masked() {
    let guest = asking();
    guest.write32(PECTL, 1 << 31);
    ask(&guest, read(0x5000));
    assert_eq!(guest.read32(PECTL), 1 << 31 | 1 << 30);
    guest.write32(PECTL, 0);
    assert_eq!((guest.read32(PECTL), msis(&guest)), (0, 1));

    // Software that sees to PPR while the interrupt waits has no use for it.
    guest.write32(PECTL, 1 << 31);
    guest.write32(PRS, PPR);
    ask(&guest, read(0x5000));
    guest.write32(PRS, PPR);
    assert_eq!(guest.read32(PECTL), 1 << 31);
    guest.write32(PECTL, 0);
    assert_eq!(msis(&guest), 1);
}

#[test]
fn a_full_queue_overflows_until_software_says_otherwise() {
    let guest = asking();
    for index in 0..127 {
        ask(&guest, read(index << 12));
    }
    assert_eq!((guest.read32(PRS), guest.read64(PQT)), (PPR, 127 * 32));
    let not_last = PageRequest {
        last: false,
        ..read(0x5000)
    };
    ask(&guest, not_last);
    assert_eq!(guest.read32(PRS), PPR | PRO);
    assert!(codes(&guest).is_empty(), "the group goes on");
    ask(&guest, read(0x6000));
    assert_eq!(codes(&guest), [ResponseCode::Success]);
    assert_eq!(entry(&guest, 127), [0; 4]);
    assert_eq!(msis(&guest), 1);

    // As Linux does it: PPR first, then the head, PRO once the queue is empty.
    guest.write32(PRS, PPR);
    guest.write64(PQH, 127 * 32);
    ask(&guest, read(0x7000));
    assert_eq!(
        codes(&guest),
        [ResponseCode::Success],
        "not while PRO is set"
    );
    assert_eq!((guest.read32(PRS), guest.read64(PQT)), (PRO, 127 * 32));
    guest.write32(PRS, PRO);
    ask(&guest, read(0x8000));
    assert_eq!(entry(&guest, 127)[1], 0x8005);
    assert_eq!((guest.read64(PQT), msis(&guest)), (0, 2), "the tail wraps");
    ask(&guest, read(0x9000));
    assert_eq!(entry(&guest, 0)[1], 0x9005);
    assert_eq!((entry(&guest, 128), guest.read32(PRS)), ([0; 4], PPR));
    assert_eq!(guest.unit.stats().page_request_overflows, 3);
    assert_eq!(guest.unit.stats().page_responses_by_unit, 2);
    assert_eq!(guest.read32(FSTS), 0, "an overflow is no fault");
}

#[test]
fn an_overflow_with_nothing_pending_raises_the_event() {
    let guest = asking();
    guest.write64(PQH, 32);
    ask(&guest, read(0x5000));
    assert_eq!((guest.read32(PRS), msis(&guest)), (PRO, 1));
    guest.write32(PECTL, 1 << 31);
    guest.write32(PRS, PRO);
    ask(&guest, read(0x5000));
    assert_eq!(guest.read32(PECTL), 1 << 31 | 1 << 30);
    guest.write32(PRS, PRO);
    assert_eq!(guest.read32(PECTL), 1 << 31);
}

#[test]
fn a_queue_that_cannot_be_written_overflows() {
    // PQH, PQT, PQA: beyond the ring; beyond RAM; a head as far as it can be.
    for (head, tail, queue) in [
        (0, 0x1000, RING),
        (0x1000, 0, RING),
        (0x7_ffe0, 0x7_ffe0, RING),
        (0x7_ffe0, 0, RING | 6),
        (0, 0, RAM_SIZE),
        (0, 0x1000, (RAM_SIZE - 0x1000) | 1),
        (0, 0, 0xffff_ffff_ffff_f000),
        (0, 0x7_ffc0, 0xffff_ffff_ffff_f000 | 7),
    ] {
        let guest = asking();
        guest.write64(PQH, head);
        guest.write64(PQT, tail);
        guest.write64(PQA, queue);
        ask(&guest, read(0x5000));
        assert_eq!(guest.read32(PRS), PRO, "{head:#x} {tail:#x} {queue:#x}");
        assert_eq!(codes(&guest), [ResponseCode::Success]);
        assert_eq!(guest.read64(PQT), tail);
        assert_eq!(entry(&guest, 0), [0; 4]);
        // The guest sets the queue up anew.
        guest.write64(PQH, 0);
        guest.write64(PQT, 0);
        guest.write64(PQA, RING);
        guest.write32(PRS, PRO);
        ask(&guest, read(0x5000));
        assert_eq!(entry(&guest, 0)[1], 0x5005);
    }
}

#[test]
fn every_size_of_the_queue_is_used_whole() {
    for size in 0..8 {
        let guest = asking();
        let bytes = 0x1000 << size;
        guest.write64(PQA, RING | size);
        guest.write64(PQH, bytes - 32);
        guest.write64(PQT, bytes - 64);
        ask(&guest, read(0x5000));
        assert_eq!(guest.read32(PRS), PRO);
        guest.write32(PRS, PRO);
        guest.write64(PQH, bytes - 64);
        for tail in [bytes - 32, 0, 32] {
            ask(&guest, read(0x5000));
            assert_eq!((guest.read64(PQT), guest.read32(PRS)), (tail, PPR));
        }
        assert_eq!(guest.peek(RING + bytes - 24), 0x5005);
        assert_eq!(guest.peek(RING + bytes), 0);
    }
}

#[test]
fn the_registers_hold_what_the_layout_has() {
    let guest = asking();
    for (offset, mask) in [
        (PQH, 0x7_ffe0),
        (PQT, 0x7_ffe0),
        (PQA, 0xffff_ffff_ffff_f007),
    ] {
        guest.write64(offset, u64::MAX);
        assert_eq!(guest.read64(offset), mask, "{offset:#x}");
        guest.write32(offset + 4, 0);
        assert_eq!(guest.read64(offset), mask & 0xffff_ffff, "{offset:#x}");
        guest.write32(offset, 0);
        assert_eq!(guest.read64(offset), 0, "{offset:#x}");
    }
    guest.write32(PRS, u32::MAX);
    assert_eq!(guest.read32(PRS), 0);
    assert_eq!(guest.unit.stats().mmio_ignored, 0);
    let ecap = guest.read64(0x10);
    assert_eq!(ecap & (1 << 29 | 1 << 42), 1 << 29 | 1 << 42, "PRS, PDS");

    guest.unit.reset();
    for offset in [PQH, PQT, PQA] {
        assert_eq!(guest.read64(offset), 0);
    }
    assert_eq!((guest.read32(PRS), guest.read32(PECTL)), (0, 1 << 31));
}

#[test]
fn without_the_capability_there_is_nothing() {
    let guest = Guest::with(Config::DEFAULT);
    for offset in (PQH..=PQA + 4).chain(PRS..=PEUADDR).step_by(4) {
        guest.write32(offset, u32::MAX);
        assert_eq!(guest.read32(offset), 0, "{offset:#x}");
    }
    assert!(guest.unit.stats().mmio_ignored > 0);
    let error = guest.unit.page_request(guest.device, read(0)).unwrap_err();
    assert_eq!(error.errno(), libc::EOPNOTSUPP);
}

#[test]
fn who_may_not_ask_is_told_and_reported() {
    let pasid = |pasid| PageRequest {
        pasid: Some(pasid),
        ..read(0x5000)
    };
    let entry = DIRECTORY | CONTEXT_BITS;
    // Where, what, the request, and the fault reason; 0 for none.
    let cases = [
        (ROOT, CONTEXT | 1, read(0x5000), 0),
        (ROOT, 0, read(0x5000), 0x39),
        (ROOT, CONTEXT | 3, read(0x5000), 0x3a),
        (ROOT, 0x7000_0000_0001, read(0x5000), 0x40),
        (CONTEXT_ENTRY, 0, read(0x5000), 0x41),
        (CONTEXT_ENTRY, entry | 0x20, read(0x5000), 0x42),
        (CONTEXT_ENTRY, entry & !0b100, read(0x5000), 0x43), // PRE without DTE
        (CONTEXT_ENTRY, DIRECTORY | 1, read(0x5000), 0x44),
        (CONTEXT_ENTRY, DIRECTORY | 0b1101, read(0x5000), 0x47),
        (CONTEXT_ENTRY, entry & !0b1000, read(0x5000), 0),
        (CONTEXT_ENTRY, entry & !0b1000, pasid(0), 0x45),
        (CONTEXT_ENTRY, entry, pasid(0x1fff), 0), // PDTS 0: 2^13 PASIDs
        (CONTEXT_ENTRY, entry, pasid(0x2000), 0x46),
        (CONTEXT_ENTRY, entry | 6 << 9, pasid(0x7_ffff), 0),
        (CONTEXT_ENTRY, entry | 6 << 9, pasid(0x8_0000), 0x46),
        (CONTEXT_ENTRY, entry | 7 << 9, pasid(0xf_ffff), 0),
    ];
    for (gpa, value, request, reason) in cases {
        let guest = asking();
        guest.poke(gpa, value);
        let note = format!("{value:#x} at {gpa:#x}, {request:x?}");
        let not_last = PageRequest {
            last: false,
            ..request
        };
        ask(&guest, not_last);
        let pending = if reason == 0 { 0 } else { 1 << 63 };
        assert_eq!(guest.read64(FRCD + 8) & 1 << 63, pending, "{note}");
        assert!(codes(&guest).is_empty(), "{note}");
        ask(&guest, request);
        if reason == 0 {
            assert_eq!((guest.read64(PQT), codes(&guest).len()), (64, 0), "{note}");
            continue;
        }
        assert_eq!(codes(&guest), [ResponseCode::Invalid], "{note}");
        // F, no T1, PASID, reason, PP, T2, SID.
        let with_pasid = request
            .pasid
            .map_or(0, |pasid| u64::from(pasid) << 40 | 1 << 31);
        let record = 1 << 63 | with_pasid | reason << 32 | 1 << 28 | u64::from(SOURCE_ID);
        assert_eq!(guest.read64(FRCD + 8), record, "{note}");
        assert_eq!(guest.read64(FRCD), 0x5000, "{note}");
        assert_eq!((guest.read32(PRS), guest.read64(PQT)), (0, 0), "{note}");
        let stats = guest.unit.stats();
        assert_eq!((stats.page_requests_refused, stats.faults), (2, 0));
    }
}

#[test]
fn the_record_says_execute_and_privileged() {
    let guest = asking();
    guest.poke(CONTEXT_ENTRY, DIRECTORY | 0b1101);
    let request = PageRequest {
        pasid: Some(3),
        execute: true,
        privileged: true,
        ..read(0x5000)
    };
    ask(&guest, request);
    let attributes = guest.read64(FRCD + 8) >> 28 & 0xf;
    assert_eq!(attributes, 0b1111, "PP, EXE, PRIV, T2");
}

#[test]
fn fault_processing_disabled_answers_all_the_same() {
    let guest = asking();
    for value in [0b10, DIRECTORY | 0b11, DIRECTORY | CONTEXT_BITS | 0x22] {
        guest.poke(CONTEXT_ENTRY, value);
        ask(&guest, read(0x5000));
        assert_eq!(codes(&guest), [ResponseCode::Invalid], "{value:#x}");
    }
    assert_eq!(guest.read32(FSTS), 0);
}

#[test]
fn table_modes_without_page_requests_refuse_them() {
    let features = config().features;
    let scalable = Config {
        features: features.with_abort_dma(true),
        ..config()
    };
    for (config, mode, reason) in [
        (config(), 0, 0x32),
        (config(), 2, 0x30),
        (config(), 3, 0x30),
        (scalable, 3, 0x33),
    ] {
        let mut guest = Guest::with(config);
        guest.build_tables();
        guest.enable();
        guest.write64(0x20, ROOT | mode << 10);
        guest.write32(0x18, 1 << 31 | 1 << 26 | 1 << 30);
        ask(&guest, read(0x5000));
        assert_eq!(guest.read64(FRCD + 8) >> 32 & 0xff, reason, "TTM {mode}");
        assert_eq!(codes(&guest), [ResponseCode::Invalid]);
    }
}

#[test]
fn while_translation_is_off_requests_are_invalid() {
    let guest = asking();
    guest.write32(0x18, 1 << 26);
    ask(&guest, read(0x5000));
    assert_eq!(codes(&guest), [ResponseCode::Invalid]);
    assert_eq!((guest.read32(FSTS), guest.read32(PRS)), (0, 0));
}

#[test]
fn a_stop_marker_is_queued_and_never_answered() {
    let guest = asking();
    let marker = PageRequest {
        pasid: Some(1),
        last: true,
        ..PageRequest::default()
    };
    ask(&guest, marker);
    assert_eq!(guest.read64(PQT), 32);
    assert_eq!(entry(&guest, 0)[1], 0b100);
    guest.write64(PQH, 64);
    ask(&guest, marker);
    assert_eq!(guest.read32(PRS), PPR | PRO);
    guest.poke(CONTEXT_ENTRY, 0);
    ask(&guest, marker);
    assert_eq!(guest.unit.stats().page_requests_refused, 1);
    assert!(codes(&guest).is_empty());
    assert_eq!(guest.unit.stats().page_responses_by_unit, 0);
}

#[test]
fn a_page_that_is_asked_for_is_translated_afresh() {
    let guest = asking();
    let page = |address| {
        let request = Request {
            address,
            read: true,
            ..Request::default()
        };
        let answer = guest.unit.translate(guest.device, request).unwrap();
        answer.result.unwrap().address
    };
    for iova in [0x5000, 0x6000] {
        guest.map(iova, 0x10_0000 + iova);
        page(iova);
        guest.map(iova, 0x11_0000 + iova);
    }
    assert_eq!((page(0x5000), page(0x6000)), (0x10_5000, 0x10_6000));
    ask(&guest, read(0x5123));
    assert_eq!((page(0x5000), page(0x6000)), (0x11_5000, 0x10_6000));
}

#[test]
fn what_no_device_can_ask_is_an_error() {
    let guest = asking();
    let good = read(0x5000);
    for (request, named) in [
        (
            PageRequest {
                pasid: Some(1 << 20),
                ..good
            },
            "20 bits",
        ),
        (
            PageRequest {
                group: 0x200,
                ..good
            },
            "9 bits",
        ),
        (
            PageRequest {
                execute: true,
                ..good
            },
            "PASID",
        ),
        (
            PageRequest {
                privileged: true,
                ..good
            },
            "PASID",
        ),
        (
            PageRequest {
                pasid: Some(1),
                execute: true,
                read: false,
                write: true,
                ..good
            },
            "read",
        ),
        (
            PageRequest {
                read: false,
                last: false,
                ..good
            },
            "stop marker",
        ),
    ] {
        let error = guest.unit.page_request(guest.device, request).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL);
        assert!(error.to_string().contains(named), "{error}");
    }
    let error = guest.unit.page_request(99, good).unwrap_err();
    assert_eq!(error.errno(), libc::ENOENT);
    assert_eq!(guest.unit.stats().page_requests, 0);
    assert_eq!(guest.read64(PQT), 0);
}

/// Once a context entry without PRE is announced and a wait with PD has completed, no
/// request of the device comes up in the queue any more.
#[test]
fn a_wait_leaves_no_request_on_its_way() {
    let guest = asking();
    guest.write64(PQA, RING | 7);
    let asked = || guest.unit.stats().page_requests;
    let empty = || guest.write64(PQH, guest.read64(PQT));
    let more = |meanwhile: &dyn Fn()| {
        let until = asked() + 3;
        while asked() < until {
            meanwhile();
            std::thread::yield_now();
        }
    };
    let stop = AtomicBool::new(false);
    // However long the other thread does not run, the queue is not to overflow.
    let is_full = || {
        let queued = guest.read64(PQT).wrapping_sub(guest.read64(PQH)) & 0x7_ffff;
        queued > 0x4_0000 && guest.peek(CONTEXT_ENTRY) & 0b1_0000 != 0
    };
    let mut late = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                if is_full() {
                    std::thread::yield_now();
                } else {
                    ask(&guest, read(0x5000));
                }
            }
        });
        for round in 0..100 {
            guest.poke(CONTEXT_ENTRY, DIRECTORY | CONTEXT_BITS);
            more(&empty);
            guest.poke(CONTEXT_ENTRY, DIRECTORY | 1);
            let tail = round % 32 * 128;
            for (index, qword) in [1 | 1 << 4, 0, 0, 0, 5 | 1 << 5 | 1 << 7, STATUS]
                .into_iter()
                .enumerate()
            {
                guest.poke(QUEUE + tail + index as u64 * 8, qword);
            }
            for (index, qword) in [5 | 1 << 6, 0, 0, 0, 5 | 1 << 6, 0].into_iter().enumerate() {
                guest.poke(QUEUE + tail + 64 + index as u64 * 8, qword);
            }
            guest.write32(0x88, ((tail + 128) % 0x1000) as u32);
            let queued = guest.read64(PQT);
            more(&|| ());
            late += usize::from(guest.read64(PQT) != queued);
            empty();
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(late, 0, "of 100 rounds");
    assert_eq!(guest.read32(PRS) & PRO, 0);
    assert_eq!(guest.unit.stats().queue_errors, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the registers hold, only the queue is written.
    #[test]
    fn nothing_is_written_beside_the_queue(
        writes in proptest::collection::vec(
            (proptest::sample::select(vec![PQH, PQT, PQA, PRS]), any::<u64>(), 0..4_u64), 1..40)
    ) {
        let guest = asking();
        let mut queue = (RING, 0x1000);
        for (offset, value, size) in writes {
            let value = match offset {
                PQA => (RING + ((value & 3) << 16)) | size,
                PQH | PQT => value & 0x7fff,
                _ => value,
            };
            if offset == PRS {
                guest.write32(PRS, value as u32);
            } else {
                guest.write64(offset, value);
            }
            if offset == PQA {
                queue = (value & !0xfff, 0x1000 << (value & 7));
            }
            let tail = guest.read64(PQT);
            ask(&guest, read(0x5000));
            let queued = guest.read64(PQT) != tail;
            prop_assert_eq!(queued, guest.peek(queue.0 + tail + 8) == 0x5005);
            prop_assert!(!queued || tail < queue.1, "{tail:#x} {queue:x?}");
            guest.poke(queue.0 + tail + 8, 0);
            prop_assert!(guest.read64(PQT) & 31 == 0);
        }
        // What is left are the first qwords of requests.
        for gpa in (RING..RAM_SIZE).step_by(8) {
            prop_assert!(matches!(guest.peek(gpa), 0 | 0x18_0001), "{gpa:#x}");
        }
    }
}
