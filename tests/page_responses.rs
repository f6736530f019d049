//! Page group responses, and what a wait descriptor says of them.

mod common;

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::*;
use nested_vtd::spec::page_request::ResponseCode;
use nested_vtd::unit::{Config, DeviceDescription, PageRequest};
use nested_vtd::vmm::PageResponse;

const IQH: u64 = 0x80;
const IQT: u64 = 0x88;

/// A guest that is offered page requests; its device may not ask.
fn offered() -> Guest {
    let mut guest = Guest::with(Config {
        features: Config::DEFAULT
            .features
            .with_device_tlb(true)
            .with_page_request(true),
        pasid_bits: 20,
        ..Config::DEFAULT
    });
    guest.build_tables();
    guest.enable();
    guest
}

fn on_response(guest: &Guest, act: impl Fn(&PageResponse) + Send + Sync + 'static) {
    *guest.notes.on_response.lock().unwrap() = Some(Arc::new(act));
}

/// Page group response descriptor.
fn response(source_id: u16, pasid: Option<u32>, group: u64, code: u64) -> [u64; 2] {
    let pasid = pasid.map_or(0, |pasid| u64::from(pasid) << 32 | 1 << 4);
    [
        9 | pasid | code << 12 | u64::from(source_id) << 16,
        group << 3,
    ]
}

#[test]
fn responses_reach_the_device_they_name() {
    let mut guest = offered();
    let other = DeviceDescription {
        tag: 7,
        source_id: 0x300,
        assigned: false,
        ..DeviceDescription::default()
    };
    let other = guest.unit.device_add(other).unwrap();
    guest.submit(&[
        response(SOURCE_ID, None, 0x1ff, 0),
        response(0x300, Some(0xf_ffff), 0, 1),
        response(SOURCE_ID, Some(0), 5, 15),
        response(0x301, None, 5, 0), // not there
        response(0x300, None, 1, 2), // unused codes are failures
        wait(1),
    ]);
    let given = |tag, device, pasid, group, code| PageResponse {
        tag,
        device,
        pasid,
        group,
        code,
    };
    use ResponseCode::{Failure, Invalid, Success};
    let device = guest.device;
    assert_eq!(
        *guest.notes.responses.lock().unwrap(),
        [
            given(1, device, None, 0x1ff, Success),
            given(7, other, Some(0xf_ffff), 0, Invalid),
            given(1, device, Some(0), 5, Failure),
            given(7, other, None, 1, Failure),
        ]
    );
    let stats = guest.unit.stats();
    assert_eq!((stats.page_responses, stats.page_responses_ignored), (4, 1));
    assert_eq!((guest.peek(STATUS), stats.queue_errors), (1, 0));
}

#[test]
fn without_the_capability_responses_go_nowhere() {
    let mut guest = Guest::with(Config::DEFAULT);
    guest.build_tables();
    guest.enable();
    guest.submit(&[response(SOURCE_ID, None, 0, 0), wait(1)]);
    assert_eq!(guest.peek(STATUS), 1);
    assert!(guest.notes.responses.lock().unwrap().is_empty());
    assert_eq!(guest.unit.stats().page_responses_ignored, 1);
}

#[test]
fn a_response_is_there_before_its_wait_completes() {
    let mut guest = offered();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (ram, notes) = (guest.ram(), Arc::clone(&seen));
    on_response(&guest, move |response| {
        let status = ram[(STATUS / 8) as usize].load(Ordering::SeqCst);
        notes.lock().unwrap().push((response.group, status));
    });
    guest.submit(&[
        response(SOURCE_ID, None, 1, 0),
        response(SOURCE_ID, None, 2, 0),
        wait(1),
        wait(2),
        response(SOURCE_ID, None, 3, 0),
        wait(3),
        response(SOURCE_ID, None, 4, 0),
    ]);
    assert_eq!(*seen.lock().unwrap(), [(1, 0), (2, 0), (3, 2), (4, 3)]);
    assert_eq!((guest.peek(STATUS), guest.read64(IQH)), (3, 7 * 32));
}

/// A device that takes its time: says that a response came, and waits until it may go on.
fn slow_device(guest: &Guest) -> (Receiver<u16>, Sender<()>) {
    let (came, coming) = channel();
    let (go_on, going_on) = channel();
    let channels = Mutex::new((came, going_on));
    on_response(guest, move |response| {
        let (came, going_on) = &*channels.lock().unwrap();
        came.send(response.group).unwrap();
        going_on.recv().unwrap();
    });
    (coming, go_on)
}

/// Put descriptors at `index` of the queue and write the tail behind them.
fn put(guest: &Guest, index: u64, descriptors: &[[u64; 2]]) {
    let mut at = QUEUE + index * 32;
    for [low, high] in descriptors {
        guest.poke(at, *low);
        guest.poke(at + 8, *high);
        at += 32;
    }
    guest.write32(IQT, (at - QUEUE) as u32);
}

#[test]
fn the_wait_of_another_processor_finds_the_response_there() {
    let guest = offered();
    let (coming, go_on) = slow_device(&guest);
    let early = std::thread::scope(|scope| {
        scope.spawn(|| put(&guest, 0, &[response(SOURCE_ID, None, 1, 0)]));
        assert_eq!(coming.recv(), Ok(1));
        put(&guest, 1, &[wait(5)]);
        let early = guest.peek(STATUS);
        go_on.send(()).unwrap();
        early
    });
    assert_eq!((early, guest.peek(STATUS)), (0, 5));
}

#[test]
fn page_request_drain_waits_for_the_answers_of_the_unit() {
    let drain = |data| {
        let [low, high] = wait(data);
        [low | 1 << 7, high]
    };
    let guest = offered();
    let (coming, go_on) = slow_device(&guest);
    let request = PageRequest {
        read: true,
        last: true,
        group: 9,
        ..PageRequest::default()
    };
    let early = std::thread::scope(|scope| {
        scope.spawn(|| guest.unit.page_request(guest.device, request).unwrap());
        assert_eq!(coming.recv(), Ok(9));
        // Other waits do not ask for it.
        put(&guest, 0, &[wait(1), drain(2), wait(3)]);
        let early = (guest.peek(STATUS), guest.read64(IQH));
        go_on.send(()).unwrap();
        early
    });
    assert_eq!(early, (1, 32));
    assert_eq!((guest.peek(STATUS), guest.read64(IQH)), (3, 96));
    put(&guest, 3, &[drain(4)]);
    assert_eq!(guest.peek(STATUS), 4);
    let responses = guest.notes.responses.lock().unwrap();
    assert_eq!(responses[0].code, ResponseCode::Invalid);
}
