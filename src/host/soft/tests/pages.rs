//! Page requests: groups, the fault queue's file, answers.

use super::*;

fn fault_queue(bench: &Bench) -> (u32, Fd) {
    let mut alloc = FaultAlloc::default();
    bench.call(request::FAULT_QUEUE_ALLOC, &mut alloc).unwrap();
    (alloc.out_fault_id, alloc.out_fault_fd)
}

fn ask(group: u16, pasid: Option<u32>, last: bool) -> TwinPageRequest {
    TwinPageRequest {
        address: 0x5123,
        pasid,
        group,
        read: true,
        last,
        ..TwinPageRequest::default()
    }
}

/// A device whose page requests are read by software.
fn asking() -> (Nest, u32, Fd, u32) {
    let nest = Nest::default();
    let (id, fd) = fault_queue(&nest.bench);
    let flags = HWPT_FAULT_ID_VALID | HWPT_PASID;
    let hwpt = nest
        .bench
        .nested_with(nest.device, nest.parent, flags, id, &mut S1.clone())
        .unwrap();
    nest.bench.attach(nest.fd, hwpt).unwrap();
    (nest, id, fd, hwpt)
}

fn records(bytes: &[u8]) -> Vec<PageFault> {
    bytes.chunks(40).map(PageFault::from_bytes).collect()
}

#[test]
fn groups_are_read_as_a_whole_and_answered_by_cookie() {
    let (nest, _, queue, _) = asking();
    let twin = &nest.bench.twin;
    let mut bytes = [0; 160];
    assert_eq!(twin.read(queue, &mut bytes), Ok(0), "empty");
    assert_eq!(twin.read(queue, &mut bytes[..39]), Err(libc::ESPIPE));
    let waits = libc::POLLIN as u32;
    assert_eq!(twin.poll(queue).unwrap() & waits, 0);
    twin.page_request(nest.fd, ask(1, None, false)).unwrap();
    twin.page_request(nest.fd, ask(2, None, true)).unwrap();
    twin.page_request(nest.fd, ask(1, None, true)).unwrap();
    assert_ne!(twin.poll(queue).unwrap() & waits, 0);
    let mut poll = [0_u8; 0];
    assert_eq!(twin.read(queue, &mut poll), Err(libc::EINVAL));
    assert_eq!(
        twin.read(queue, &mut bytes[..80]),
        Ok(40),
        "not half a group"
    );
    assert_eq!(twin.read(queue, &mut bytes[40..80]), Err(libc::EINVAL));
    assert_eq!(twin.read(queue, &mut bytes[40..]), Ok(80));
    let found = records(&bytes[..120]);
    assert_eq!(
        found[0],
        PageFault {
            flags: PAGE_FAULT_LAST_PAGE,
            dev_id: nest.device,
            grpid: 2,
            perm: PAGE_FAULT_READ,
            addr: 0x5000,
            cookie: 1,
            ..PageFault::default()
        }
    );
    assert_eq!((found[1].flags, found[2].flags), (0, PAGE_FAULT_LAST_PAGE));
    assert_eq!((found[1].cookie, found[2].cookie), (2, 2));
    assert_eq!(twin.poll(queue).unwrap() & waits, 0);
    let respond = |cookie, code| {
        let response = PageFaultResponse { cookie, code };
        twin.write(queue, &response.to_bytes())
    };
    assert_eq!(twin.write(queue, &[0; 7]), Err(libc::ESPIPE));
    assert_eq!(respond(2, 2), Err(libc::EINVAL));
    assert_eq!(respond(3, 0), Err(libc::EINVAL));
    assert_eq!(respond(2, 0), Ok(8));
    assert_eq!(respond(2, 0), Err(libc::EINVAL), "once");
    assert_eq!(respond(1, 1), Ok(8));
    let answer = |group, code| PageAnswer {
        pasid: None,
        group,
        code,
    };
    let answers = twin.page_responses(nest.fd).unwrap();
    assert_eq!(answers, [answer(1, 0), answer(2, 1)]);
}

#[test]
fn the_file_is_a_real_one_that_can_be_polled() {
    let (nest, _, queue, _) = asking();
    let twin = &nest.bench.twin;
    let readable = || {
        let mut poll = libc::pollfd {
            fd: queue,
            events: libc::POLLIN,
            revents: 0,
        };
        poll_now(&mut poll)
    };
    assert!(!readable());
    for _ in 0..2 {
        twin.page_request(nest.fd, ask(1, None, true)).unwrap();
        assert!(readable());
    }
    let mut bytes = [0; 80];
    assert_eq!(twin.read(queue, &mut bytes), Ok(80));
    assert!(!readable());
    twin.close(queue).unwrap();
    assert_eq!(twin.read(queue, &mut bytes), Err(libc::EBADF));
}

#[expect(unsafe_code, reason = "poll(2) is a system call")]
fn poll_now(poll: &mut libc::pollfd) -> bool {
    // SAFETY: one structure, which is ours.
    unsafe { libc::poll(poll, 1, 0) == 1 }
}

#[test]
fn requests_with_pasid_go_to_its_hwpt_and_leak_a_flag() {
    for leaks in [true, false] {
        let mut config = TwinConfig::default();
        config.quirks.fault_flag_leaks = leaks;
        let nest = Nest::new(config, TwinDevice::default());
        let (id, queue) = fault_queue(&nest.bench);
        let flags = HWPT_FAULT_ID_VALID | HWPT_PASID;
        let hwpt = nest
            .bench
            .nested_with(nest.device, nest.parent, flags, id, &mut S1.clone())
            .unwrap();
        nest.bench.attach_pasid(nest.fd, 9, hwpt).unwrap();
        let twin = &nest.bench.twin;
        twin.page_request(nest.fd, ask(1, None, true)).unwrap();
        twin.page_request(nest.fd, ask(2, Some(8), false)).unwrap();
        twin.page_request(nest.fd, ask(3, Some(9), true)).unwrap();
        let refused: Vec<_> = twin
            .page_responses(nest.fd)
            .unwrap()
            .iter()
            .map(|answer| (answer.group, answer.code))
            .collect();
        assert_eq!(refused, [(1, 1), (2, 1)], "nobody is there for them");
        let mut bytes = [0; 40];
        assert_eq!(twin.read(queue, &mut bytes), Ok(40));
        let found = PageFault::from_bytes(&bytes);
        let flags = if leaks { 7 } else { 3 };
        assert_eq!((found.pasid, found.flags), (9, flags));
    }
}

#[test]
fn requests_that_the_driver_does_not_take() {
    let (nest, _, queue, _) = asking();
    let twin = &nest.bench.twin;
    for bad in [
        TwinPageRequest {
            address: 1 << 60,
            ..ask(1, None, true)
        },
        TwinPageRequest {
            privileged: true,
            ..ask(2, Some(0), true)
        },
        TwinPageRequest {
            execute: true,
            ..ask(3, Some(0), true)
        },
        TwinPageRequest {
            address: 1 << 60,
            ..ask(4, None, false)
        },
        TwinPageRequest {
            read: false,
            ..ask(5, None, true)
        },
    ] {
        twin.page_request(nest.fd, bad).unwrap();
    }
    let answers = twin.page_responses(nest.fd).unwrap();
    let groups: Vec<_> = answers.iter().map(|answer| answer.group).collect();
    assert_eq!(groups, [1, 2, 3], "neither the fourth nor a stop marker");
    assert_eq!(twin.read(queue, &mut [0; 40]), Ok(0));
}

#[test]
fn what_waits_is_refused_when_the_attachment_ends() {
    let (nest, id, queue, hwpt) = asking();
    let bench = &nest.bench;
    let twin = &bench.twin;
    twin.page_request(nest.fd, ask(1, None, true)).unwrap();
    let mut bytes = [0; 40];
    twin.read(queue, &mut bytes).unwrap();
    twin.page_request(nest.fd, ask(2, None, true)).unwrap();
    twin.page_request(nest.fd, ask(3, None, false)).unwrap();
    bench.attach(nest.fd, nest.parent).unwrap();
    let answers = twin.page_responses(nest.fd).unwrap();
    assert!(answers.iter().all(|answer| answer.code == 1));
    assert_eq!(answers.len(), 2);
    let late = PageFaultResponse { cookie: 1, code: 0 };
    assert_eq!(twin.write(queue, &late.to_bytes()), Err(libc::EINVAL));
    assert_eq!(bench.destroy(id), Err(libc::EBUSY), "file and HWPT");
    bench.destroy(hwpt).unwrap();
    assert_eq!(bench.destroy(id), Err(libc::EBUSY), "the file");
    twin.close(queue).unwrap();
    bench.destroy(id).unwrap();
}

#[test]
fn what_waits_is_refused_when_the_device_is_detached_or_its_queue_goes() {
    let (nest, id, queue, hwpt) = asking();
    let bench = &nest.bench;
    let twin = &bench.twin;
    let refused = || {
        let answers = twin.page_responses(nest.fd).unwrap();
        answers.iter().filter(|answer| answer.code == 1).count()
    };
    twin.page_request(nest.fd, ask(1, None, true)).unwrap();
    bench.detach(nest.fd, None).unwrap();
    assert_eq!(refused(), 1);
    bench.attach(nest.fd, hwpt).unwrap();
    twin.page_request(nest.fd, ask(2, None, true)).unwrap();
    twin.close(queue).unwrap();
    assert_eq!(refused(), 0, "the HWPT has the queue");
    twin.page_request(nest.fd, ask(3, None, true)).unwrap();
    bench.detach(nest.fd, None).unwrap();
    assert_eq!(refused(), 2);
    bench.destroy(hwpt).unwrap();
    bench.destroy(id).unwrap();
}

#[test]
fn a_device_without_pri_takes_no_fault_queue() {
    for kernel in [Kernel::V7_3, Kernel::V6_12] {
        let config = TwinConfig {
            kernel,
            ..TwinConfig::default()
        };
        let plain = TwinDevice {
            pri: false,
            ..TwinDevice::default()
        };
        let nest = Nest::new(config, plain);
        nest.bench.attach(nest.fd, nest.parent).unwrap();
        let (id, _) = fault_queue(&nest.bench);
        let hwpt = nest
            .bench
            .nested_with(
                nest.device,
                nest.parent,
                HWPT_FAULT_ID_VALID,
                id,
                &mut S1.clone(),
            )
            .unwrap();
        assert_eq!(nest.bench.attach(nest.fd, hwpt), Err(libc::ENODEV));
        let blocked = nest.bench.target(nest.fd, 0x1000).is_none();
        assert_eq!(blocked, kernel == Kernel::V7_3, "6.12 looks before");
        assert_eq!(
            nest.bench.twin.page_request(nest.fd, ask(1, None, true)),
            Err(libc::EOPNOTSUPP)
        );
    }
}

#[test]
fn reading_and_writing_by_address() {
    let (nest, _, queue, _) = asking();
    let twin = &nest.bench.twin;
    twin.page_request(nest.fd, ask(1, None, true)).unwrap();
    assert_eq!(twin.read_to(queue, 8, 40), Err(libc::EFAULT));
    let mut record = PageFault::default();
    assert_eq!(twin.read_to(queue, address_of(&mut record), 40), Ok(40));
    assert_eq!(record.cookie, 1, "it was put back");
    assert_eq!(twin.write_from(queue, 8, 8), Err(libc::EFAULT));
    let mut response = PageFaultResponse { cookie: 1, code: 0 };
    assert_eq!(twin.write_from(queue, address_of(&mut response), 8), Ok(8));
    assert_eq!(twin.page_response(nest.fd).unwrap().unwrap().code, 0);
    assert_eq!(twin.page_response(nest.fd), Ok(None));
}
