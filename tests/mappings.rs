//! What a device's tables map, for a VMM that shadows them; the enumeration itself
//! is tested beside it.

mod common;

use std::ops::{ControlFlow, RangeInclusive};

use common::*;
use nested_vtd::translate::Permissions;
use nested_vtd::unit::{Config, HostKind, Request};

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
    guest.write32(0x18, 0);
    assert_eq!(mappings(&guest, EVERYTHING), []);
    guest.write32(0x18, 1 << 31);
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

/// Numbers without a plan (xorshift), so that a failure can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.next() % count == 0
    }
}

/// Entries that are filled in of each table, from the first on.
const FILLED: [u64; 4] = [24, 4, 2, 1];

/// Four levels of tables, one after the other from `base` on, two of each level but
/// the topmost: tables, pages of each size, entries that are not present or have
/// reserved bits. `rights` are bits 2:0 of an entry that allows everything.
fn scatter(guest: &Guest, random: &mut Random, base: u64, rights: u64) {
    let table = |level: u64, which: u64| base + ((level * 2 + which) << 12);
    for level in 0..4 {
        for which in 0..2 {
            for index in 0..FILLED[level as usize] {
                let allowed = if random.one_in(3) {
                    random.next() & rights
                } else {
                    rights
                };
                let is_page = level == 0 || (level < 3 && random.one_in(4));
                let target = if is_page {
                    let frame = if random.one_in(20) {
                        0xf_ee00 | (random.next() & 0x1ff)
                    } else {
                        random.next() % 0x1000
                    };
                    let size = 12 + 9 * level;
                    let page_size = if level == 0 { 0 } else { 0x80 };
                    ((frame << 12) >> size << size) | page_size
                } else {
                    table(level - 1, random.next() & 1)
                };
                let reserved = if random.one_in(20) { 1 << 51 } else { 0 };
                guest.poke(table(level, which) + index * 8, target | allowed | reserved);
            }
        }
    }
}

fn agree(pgtt: u64, seed: u64) -> usize {
    let mut random = Random((seed << 8 | pgtt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let features = Config::default()
        .features
        .with_second_stage(true)
        .with_second_stage_2m(true)
        .with_second_stage_1g(true)
        .with_nested(true);
    let mut guest = Guest::with(Config {
        features,
        ..Config::default()
    });
    guest.build_tables();
    let (first, second) = (0x2_0000, 0x4_0000);
    scatter(&guest, &mut random, first, 7);
    scatter(&guest, &mut random, second, 3);
    if pgtt == 3 {
        // Mostly, the first stage's tables are where it says.
        guest.poke(second + 0x6000, (second + 0x4000) | 3);
        guest.poke(second + 0x4000, (second + 0x2000) | 3);
        if !random.one_in(4) {
            guest.poke(second + 0x2000, 0x83);
        }
    }
    guest.poke(PASID_TABLE + 16, first + 0x6000);
    guest.poke(PASID_TABLE, (second + 0x6000) | (pgtt << 6) | (2 << 2) | 1);
    guest.enable();

    let mut runs = Vec::new();
    let end = guest
        .unit
        .for_each_mapping(guest.device, None, EVERYTHING, 0, &mut |run| {
            runs.push(*run);
            ControlFlow::<()>::Continue(())
        });
    assert_eq!(end, Ok(ControlFlow::Continue(())));
    for pair in runs.windows(2) {
        assert!(pair[0].address + pair[0].length <= pair[1].address);
    }
    let mut mapped = 0;
    for page in 0..FILLED[2] * FILLED[1] * FILLED[0] {
        let (page, level1) = (page / FILLED[0], page % FILLED[0]);
        let (level3, level2) = (page / FILLED[1], page % FILLED[1]);
        let address = (level3 << 30) | (level2 << 21) | (level1 << 12) | 0x123;
        let found = runs
            .iter()
            .find(|run| (run.address..run.address + run.length).contains(&address));
        for write in [false, true] {
            let request = Request {
                address,
                read: !write,
                write,
                debug: true,
                ..Request::default()
            };
            let answer = guest.unit.translate(guest.device, request).unwrap();
            let expected = answer.result.ok().map(|translation| translation.address);
            let permitted = |may: Permissions| if write { may.write() } else { may.read() };
            let given = found
                .filter(|run| permitted(run.permissions))
                .map(|run| run.translated + (address - run.address));
            assert_eq!(given, expected, "{address:#x} write {write} seed {seed}");
            mapped += usize::from(given.is_some());
        }
    }
    mapped
}

#[test]
fn runs_agree_with_translations_in_any_tables() {
    for pgtt in [1, 2, 3] {
        let mapped: usize = (1..=40).map(|seed| agree(pgtt, seed)).sum();
        // Of 40 times 192 pages, each to be read and to be written.
        assert!(mapped > 1000, "PGTT {pgtt}: only {mapped}");
    }
}
