use core::convert::Infallible;
use std::collections::BTreeMap;

use super::*;
use crate::spec::registers::{Cap, Ecap};
use crate::translate::TableError;
use crate::translate::first_stage::FirstStage;
use crate::translate::second_stage::{Role, SecondStage};
use crate::translate::tables::Capabilities;

const ROOT: u64 = 0x1000;
const TABLE: u64 = 0b111;
const PS: u64 = 0x80;
const EVERYTHING: RangeInclusive<u64> = 0..=u64::MAX;

/// Pages that were written to; nothing elsewhere.
#[derive(Default)]
struct Ram {
    entries: BTreeMap<u64, u64>,
}

impl TableMemory for Ram {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        let page = address & !0xfff..=address | 0xfff;
        if self.entries.range(page).next().is_none() {
            return Err(TableError::NotRam);
        }
        Ok(self.entries.get(&address).copied().unwrap_or(0))
    }

    fn compare_exchange(&self, _: u64, _: u64, _: u64) -> Result<bool, TableError> {
        panic!("an enumeration sets nothing");
    }
}

impl Ram {
    fn set(&mut self, table: u64, index: u64, entry: u64) {
        self.entries.insert(table + index * 8, entry);
    }
}

fn first(levels: u32) -> Tables<FirstStage> {
    Tables {
        table: ROOT,
        format: FirstStage::new(levels, true, 48),
    }
}

fn found(ram: &Ram, levels: u32, range: RangeInclusive<u64>) -> Vec<Page> {
    let mut found = Vec::new();
    let done = pages(
        ram,
        &first(levels),
        range,
        &Budget::new(1 << 20),
        &mut |page: &Page| {
            found.push(*page);
            ControlFlow::<Stop<Infallible>>::Continue(())
        },
    );
    assert_eq!(done, ControlFlow::Continue(()));
    found
}

fn places(ram: &Ram, range: RangeInclusive<u64>) -> Vec<(u64, u64, u64)> {
    found(ram, 4, range)
        .iter()
        .map(|page| (page.address, page.translated, page.size))
        .collect()
}

/// 0x3000 and 0x4000 in 4 KiB, 0x20_0000 in 2 MiB with PAT, 0x4000_0000 in 1 GiB, and the
/// topmost page.
fn sample() -> Ram {
    let mut ram = Ram::default();
    ram.set(ROOT, 0, 0x2000 | TABLE);
    ram.set(0x2000, 0, 0x3000 | TABLE);
    ram.set(0x2000, 1, 0xc000_0000 | PS | TABLE);
    ram.set(0x3000, 0, 0x4000 | TABLE);
    ram.set(0x3000, 1, 0x80_0000 | 1 << 12 | PS | TABLE);
    ram.set(0x4000, 3, 0x9000 | TABLE);
    ram.set(0x4000, 4, 0xa000 | TABLE & !2);
    ram.set(ROOT, 511, 0x5000 | TABLE);
    ram.set(0x5000, 511, 0x6000 | TABLE);
    ram.set(0x6000, 511, 0x7000 | TABLE);
    ram.set(0x7000, 511, 0xb000 | TABLE);
    ram
}

const TOP: u64 = 0xffff_ffff_ffff_f000;

#[test]
fn leaves_of_every_size_are_found_in_order() {
    assert_eq!(
        places(&sample(), EVERYTHING),
        [
            (0x3000, 0x9000, 0x1000),
            (0x4000, 0xa000, 0x1000),
            (0x20_0000, 0x80_0000, 0x20_0000),
            (0x4000_0000, 0xc000_0000, 0x4000_0000),
            (TOP, 0xb000, 0x1000),
        ]
    );
}

#[test]
fn only_the_range_is_visited() {
    let ram = sample();
    assert_eq!(places(&ram, 0..=0x2fff), []);
    assert_eq!(places(&ram, 0..=0x3000).len(), 1);
    assert_eq!(places(&ram, 0x3fff..=0x4000).len(), 2);
    assert_eq!(
        places(&ram, 0x30_0000..=0x30_0000),
        [(0x20_0000, 0x80_0000, 0x20_0000)]
    );
    assert_eq!(places(&ram, TOP..=TOP).len(), 1);
    assert_eq!(places(&ram, 0x8000_0000..=TOP - 1), []);
    let budget = Budget::new(4);
    let mut count = 0;
    let done = pages(
        &ram,
        &first(4),
        0x3000..=0x3fff,
        &budget,
        &mut |_: &Page| {
            count += 1;
            ControlFlow::<Stop<Infallible>>::Continue(())
        },
    );
    // One entry for each level.
    assert_eq!(
        (done, count, budget.left()),
        (ControlFlow::Continue(()), 1, 0)
    );
}

#[test]
fn permissions_are_those_in_common_and_the_path_is_kept() {
    let mut ram = sample();
    let [first, second, ..] = found(&ram, 4, EVERYTHING)[..] else {
        panic!("too few pages");
    };
    assert_eq!(first.permissions, Permissions::ALL);
    assert!(!second.permissions.write());
    assert_eq!(second.path, [0xa005, 0x4007, 0x3007, 0x2007, 0]);
    ram.set(ROOT, 0, 0x2000 | TABLE & !2);
    assert!(!found(&ram, 4, EVERYTHING)[0].permissions.write());
}

#[test]
fn what_a_walk_refuses_is_passed_over() {
    let mut ram = sample();
    // Not present, reserved bits, and a table that is nowhere.
    ram.set(0x4000, 3, 0x9000);
    ram.set(0x4000, 4, 0xa000 | TABLE | 1 << 50);
    ram.set(0x3000, 1, 0xdead_0000 | TABLE);
    assert_eq!(
        places(&ram, 0..=1 << 40),
        [(0x4000_0000, 0xc000_0000, 0x4000_0000)]
    );
}

#[test]
fn five_levels_reach_the_wider_halves() {
    let mut ram = Ram::default();
    for index in [0, 256] {
        ram.set(ROOT, index, 0x2000 | TABLE);
    }
    ram.set(0x2000, 1, 0x3000 | TABLE);
    ram.set(0x3000, 0, 0x4000_0000 | PS | TABLE);
    let found: Vec<u64> = found(&ram, 5, EVERYTHING)
        .iter()
        .map(|page| page.address)
        .collect();
    assert_eq!(found, [0x80_0000_0000, 0xff00_0080_0000_0000]);
}

#[test]
fn tables_that_point_to_themselves_end_with_the_budget() {
    let mut ram = Ram::default();
    for index in 0..512 {
        ram.set(ROOT, index, ROOT | TABLE);
    }
    let mut count = 0_u64;
    let budget = Budget::new(10_000);
    let done = pages(&ram, &first(4), EVERYTHING, &budget, &mut |_: &Page| {
        count += 1;
        ControlFlow::<Stop<()>>::Continue(())
    });
    assert_eq!(done, ControlFlow::Break(Stop::Exhausted));
    assert!((9_000..10_000).contains(&count), "{count}");
}

#[test]
fn the_visitor_can_stop() {
    let done = pages(
        &sample(),
        &first(4),
        EVERYTHING,
        &Budget::new(1 << 20),
        &mut |page: &Page| ControlFlow::Break(Stop::Visitor(page.address)),
    );
    assert_eq!(done, ControlFlow::Break(Stop::Visitor(0x3000)));
}

fn run(address: u64, translated: u64, length: u64) -> Run {
    Run {
        address,
        translated,
        length,
        permissions: Permissions::ALL,
    }
}

#[test]
fn runs_join_when_both_sides_and_permissions_go_on() {
    let mut merger = Merger::default();
    let read_only = Run {
        permissions: Permissions::ALL.with_write(false),
        ..run(0x4000, 0xb000, 0x1000)
    };
    let given = [
        run(0x1000, 0x8000, 0x1000),
        run(0x2000, 0x9000, 0x2000), // joins
        read_only,                   // other permissions
        run(0x5000, 0xd000, 0x1000), // a gap in the results
        run(0x7000, 0xe000, 0x1000), // a gap in the addresses
    ];
    let mut ended: Vec<Run> = given.iter().filter_map(|run| merger.push(*run)).collect();
    ended.extend(merger.finish());
    assert_eq!(
        ended,
        [
            run(0x1000, 0x8000, 0x3000),
            read_only,
            run(0x5000, 0xd000, 0x1000),
            run(0x7000, 0xe000, 0x1000)
        ]
    );
}

#[test]
fn runs_do_not_wrap_around() {
    let mut merger = Merger::default();
    assert_eq!(merger.push(run(TOP, 0x1000, 0x1000)), None);
    let next = run(0, 0x2000, 0x1000);
    assert_eq!(merger.push(next), Some(run(TOP, 0x1000, 0x1000)));
    assert_eq!(merger.finish(), Some(next));
}

#[test]
fn clipping_keeps_the_part_in_the_range() {
    let whole = run(0x2000, 0x8000, 0x3000);
    assert_eq!(whole.clip(&EVERYTHING), Some(whole));
    assert_eq!(
        whole.clip(&(0x2800..=0x3fff)),
        Some(run(0x2800, 0x8800, 0x1800))
    );
    assert_eq!(whole.clip(&(0x4fff..=0x9000)), Some(run(0x4fff, 0xafff, 1)));
    assert_eq!(whole.clip(&(0..=0x1fff)), None);
    assert_eq!(whole.clip(&(0x5000..=u64::MAX)), None);
    let top = run(TOP, 0, 0x1000);
    assert_eq!(top.clip(&EVERYTHING), Some(top));
}

#[test]
fn the_interrupt_range_is_cut_out_on_both_sides() {
    let cut = |run: Run| run.without_interrupts().collect::<Vec<_>>();
    let apart = run(0x1000, 0x8000, 0x1000);
    assert_eq!(cut(apart), [apart]);
    assert_eq!(cut(run(0x1000, 0xfee0_0000, 0x10_0000)), []);
    assert_eq!(
        cut(run(0x4000_0000, 0xfed0_0000, 0x30_0000)),
        [
            run(0x4000_0000, 0xfed0_0000, 0x10_0000),
            run(0x4020_0000, 0xfef0_0000, 0x10_0000)
        ]
    );
    assert_eq!(
        cut(run(0xfed0_0000, 0x4000_0000, 0x30_0000)),
        [
            run(0xfed0_0000, 0x4000_0000, 0x10_0000),
            run(0xfef0_0000, 0x4020_0000, 0x10_0000)
        ]
    );
    // Both, one after the other.
    assert_eq!(
        cut(run(0xfee0_0000, 0xfed0_0000, 0x30_0000)),
        [run(0xff00_0000, 0xfef0_0000, 0x10_0000)]
    );
}

/// A second stage of `levels` at `table`.
fn second(levels: u32, table: u64, role: Role) -> Tables<SecondStage> {
    let capabilities = Capabilities {
        cap: Cap::new().with_second_stage_large_pages(3),
        ecap: Ecap::new(),
        address_width: 48,
    };
    Tables {
        table,
        format: SecondStage::reported(&capabilities, levels, role),
    }
}

fn runs_of(ram: &Ram, stages: &Stages, range: RangeInclusive<u64>) -> Vec<Run> {
    let mut found = Vec::new();
    let done = runs(ram, stages, range, &Budget::new(1 << 20), &mut |run| {
        found.push(*run);
        ControlFlow::<Infallible>::Continue(())
    });
    assert_eq!(done, ControlFlow::Continue(()));
    found
}

#[test]
fn a_first_stage_gives_runs_of_what_users_may_do() {
    let mut ram = sample();
    // Next to 0x3000 on both sides, then a supervisor's page.
    ram.set(0x4000, 4, 0xa000 | TABLE | 1 << 8);
    ram.set(0x4000, 5, 0xb000 | TABLE & !4);
    let stages = Stages::FirstStage(first(4));
    assert_eq!(
        runs_of(&ram, &stages, 0..=0x2f_ffff),
        [
            run(0x3000, 0x9000, 0x2000),
            run(0x20_0000, 0x80_0000, 0x10_0000)
        ]
    );
    ram.set(0x3000, 1, 0xfee0_0000 | PS | TABLE);
    assert_eq!(
        runs_of(&ram, &stages, 0x4800..=0x3f_ffff),
        [
            run(0x4800, 0xa800, 0x800),
            run(0x30_0000, 0xfef0_0000, 0x10_0000)
        ]
    );
}

#[test]
fn a_second_stage_may_allow_one_direction_only() {
    let mut ram = Ram::default();
    ram.set(ROOT, 511, 0x2000 | 3);
    ram.set(0x2000, 511, 0x3000 | 3);
    for (index, rights) in [(509, 2), (510, 1), (511, 3)] {
        ram.set(0x3000, index, index << 12 | rights);
    }
    let stages = Stages::SecondStage(second(3, ROOT, Role::Legacy));
    let found = runs_of(&ram, &stages, EVERYTHING);
    let last = (1 << 39) - 0x1000;
    assert_eq!(
        found
            .iter()
            .map(|run| (run.address, run.permissions.read(), run.permissions.write()))
            .collect::<Vec<_>>(),
        [
            (last - 0x2000, false, true),
            (last - 0x1000, true, false),
            (last, true, true)
        ]
    );
}

#[test]
fn nested_stages_are_composed() {
    let mut ram = Ram::default();
    // Second stage: 16 MiB at 1 GiB in 2 MiB pages, but for one in 4 KiB pages, of
    // which one is missing and one is read-only.
    let below = 0x10_0000;
    ram.set(below, 0, 0x10_1000 | 3);
    ram.set(0x10_1000, 0, 0x10_2000 | 3);
    for index in 0..8 {
        ram.set(0x10_2000, index, (0x4000_0000 + (index << 21)) | 0x83);
    }
    ram.set(0x10_2000, 2, 0x10_3000 | 3);
    for index in 0..512 {
        ram.set(0x10_3000, index, (0x4040_0000 + (index << 12)) | 3);
    }
    ram.set(0x10_3000, 5, 0);
    ram.set(0x10_3000, 6, 0x4040_6000 | 1);
    // First stage, in guest-physical pages from 0x1000, that is from 0x4000_1000.
    let above = 0x4000_0000;
    ram.set(above + ROOT, 0, 0x2000 | TABLE);
    ram.set(above + 0x2000, 0, 0x3000 | TABLE);
    ram.set(above + 0x3000, 1, 0x40_0000 | PS | TABLE);
    ram.set(above + 0x3000, 2, 0x60_0000 | PS | TABLE & !2);
    // Beyond what the second stage maps.
    ram.set(above + 0x3000, 3, 0x200_0000 | PS | TABLE);
    let stages = Stages::Nested(first(4), second(4, below, Role::Nested));
    let read_only = |run: Run| Run {
        permissions: Permissions::ALL.with_write(false),
        ..run
    };
    assert_eq!(
        runs_of(&ram, &stages, EVERYTHING),
        [
            run(0x20_0000, 0x4040_0000, 0x5000),
            read_only(run(0x20_6000, 0x4040_6000, 0x1000)),
            run(0x20_7000, 0x4040_7000, 0x1f_9000),
            read_only(run(0x40_0000, 0x4060_0000, 0x20_0000)),
        ]
    );
    assert_eq!(
        runs_of(&ram, &stages, 0x20_8001..=0x20_8fff),
        [run(0x20_8001, 0x4040_8001, 0xfff)]
    );
}

#[test]
fn pass_through_has_no_runs_and_visitors_and_budgets_stop() {
    let ram = sample();
    let pass_through = Stages::PassThrough {
        width: 48,
        legacy: false,
    };
    assert_eq!(runs_of(&ram, &pass_through, EVERYTHING), []);
    let stages = Stages::FirstStage(first(4));
    let stop = |entries| {
        runs(
            &ram,
            &stages,
            EVERYTHING,
            &Budget::new(entries),
            &mut |run| ControlFlow::Break(run.address),
        )
    };
    assert_eq!(stop(1 << 20), ControlFlow::Break(Stop::Visitor(0x3000)));
    assert_eq!(stop(6), ControlFlow::Break(Stop::Exhausted));
}
