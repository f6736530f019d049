//! What a device's tables map, for a VMM that shadows them; the enumeration itself
//! is tested beside it.

mod common;

use std::ops::{ControlFlow, RangeInclusive};

use common::*;
use nested_vtd::unit::{HostKind, Request};

const EVERYTHING: RangeInclusive<u64> = 0..=u64::MAX;

fn running() -> Guest {
    let mut guest = Guest::new(HostKind::None);
    guest.build_tables();
    guest.enable();
    guest
}

/// Address, target and length of each run.
fn mappings(guest: &Guest, range: RangeInclusive<u64>) -> Vec<(u64, u64, u64)> {
    let mut found = Vec::new();
    let end = guest
        .unit
        .for_each_mapping(guest.device, None, range, 0, &mut |run| {
            found.push((run.address, run.translated, run.length));
            ControlFlow::<()>::Continue(())
        });
    assert_eq!(end, Ok(ControlFlow::Continue(())));
    found
}

#[test]
fn runs_are_what_requests_find() {
    let guest = running();
    for page in [3, 4, 5, 9] {
        guest.map(page << 12, 0x10_0000 + (page << 12));
    }
    assert_eq!(
        mappings(&guest, EVERYTHING),
        [(0x3000, 0x10_3000, 0x3000), (0x9000, 0x10_9000, 0x1000)]
    );
    assert_eq!(
        mappings(&guest, 0x4000..=0x8fff),
        [(0x4000, 0x10_4000, 0x2000)]
    );
    for address in (0..0x10_000).step_by(0x1000) {
        let request = Request {
            address,
            read: true,
            debug: true,
            ..Request::default()
        };
        let answer = guest.unit.translate(guest.device, request).unwrap();
        let found = mappings(&guest, address..=address);
        match answer.result {
            Ok(translation) => assert_eq!(found, [(address, translation.address, 1)]),
            Err(_) => assert_eq!(found, []),
        }
    }
    assert_eq!(guest.peek(PML4), PDPT | PWU);
}

#[test]
fn nothing_is_mapped_without_tables() {
    let guest = Guest::new(HostKind::None);
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    // Translation is off.
    assert_eq!(mappings(&guest, EVERYTHING), []);
    let guest = running();
    guest.map(0x5000, 0x10_0000);
    assert_eq!(mappings(&guest, EVERYTHING).len(), 1);
    // Pass-through, and a PASID entry that is not present.
    guest.set_pasid_entry(4);
    assert_eq!(mappings(&guest, EVERYTHING), []);
    guest.poke(PASID_TABLE, 0);
    assert_eq!(mappings(&guest, EVERYTHING), []);
}

#[test]
fn the_visitor_and_the_limit_end_it() {
    let guest = running();
    for page in [3, 5, 7] {
        guest.map(page << 12, 0x10_0000);
    }
    let mut visits = 0;
    let mut run = |limit, last| {
        visits = 0;
        let end = guest
            .unit
            .for_each_mapping(guest.device, None, 0..=last, limit, &mut |run| {
                visits += 1;
                if run.address == 0x7000 {
                    return ControlFlow::Break(run.translated);
                }
                ControlFlow::Continue(())
            });
        (end.map_err(|error| error.errno()), visits)
    };
    assert_eq!(run(0, u64::MAX), (Ok(ControlFlow::Break(0x10_0000)), 3));
    assert_eq!(run(3, u64::MAX), (Ok(ControlFlow::Break(0x10_0000)), 3));
    assert_eq!(run(2, u64::MAX), (Err(libc::E2BIG), 2));
    assert_eq!(run(2, 0x6fff), (Ok(ControlFlow::Continue(())), 2));
    assert_eq!(run(1, 0x6fff), (Err(libc::E2BIG), 1));
}

#[test]
fn misuse_is_refused() {
    let guest = running();
    let unit = &guest.unit;
    let mut visit = |_: &_| ControlFlow::<()>::Continue(());
    let unknown = unit.for_each_mapping(77, None, EVERYTHING, 0, &mut visit);
    assert_eq!(unknown.unwrap_err().errno(), libc::ENOENT);
    #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    let empty = unit.for_each_mapping(guest.device, None, 1..=0, 0, &mut visit);
    assert_eq!(empty.unwrap_err().errno(), libc::EINVAL);
}

#[test]
fn tables_without_end_are_given_up() {
    let guest = running();
    // Four levels of full tables, that lead to a table of supervisor pages.
    for index in 0..512 {
        guest.poke(PML4 + index * 8, PDPT | PWU);
        guest.poke(PDPT + index * 8, PD | PWU);
        guest.poke(PD + index * 8, PT | PWU);
        guest.poke(PT + index * 8, 1);
    }
    let mut visit = |_: &_| ControlFlow::<()>::Continue(());
    let given_up = guest
        .unit
        .for_each_mapping(guest.device, None, EVERYTHING, 0, &mut visit);
    assert_eq!(given_up.unwrap_err().errno(), libc::E2BIG);
}
