//! Address widths: which addresses a stage takes, and which bits of entries are beyond the width.

use nested_vtd::translate::Access;
use nested_vtd::translate::first_stage::FirstStage;
use nested_vtd::translate::second_stage::{Role, SecondStage};
use nested_vtd::translate::walk::PageFormat;

use crate::{count, edges};

/// 3.6: bits 63 down to the uppermost translated one are the same.
fn is_canonical(address: u64, width: u32) -> bool {
    let uppermost = address >> (width - 1) & 1;
    (width..64).all(|bit| address >> bit & 1 == uppermost)
}

/// All values of the 17 uppermost bits, above low bits of each kind; and all edges.
#[test]
fn first_stages_take_canonical_addresses() {
    let mut cases = 0;
    for (levels, width) in [(4, 48), (5, 57)] {
        let stage = FirstStage::new(levels, true, 52);
        let mut check = |address: u64| {
            let taken = stage.check_address(address).is_ok();
            assert_eq!(
                taken,
                is_canonical(address, width),
                "{address:#x}, {levels} levels"
            );
            cases += 1;
        };
        for upper in 0..1_u64 << 17 {
            let upper = upper << 47;
            let lower = [0, 1, 1 << 46, (1 << 47) - 1];
            lower
                .map(|lower| upper | lower)
                .into_iter()
                .for_each(&mut check);
        }
        edges(64).into_iter().for_each(check);
    }
    count("addresses of first stages", cases);
}

fn second_stage(levels: u32, address_width: u32) -> SecondStage {
    SecondStage {
        levels,
        address_width,
        large_pages: true,
        huge_pages: true,
        snoop_control: true,
        transient_mapping: true,
        execute_enable: false,
        accessed_dirty: false,
        snoop: true,
        role: Role::Alone,
    }
}

#[test]
fn second_stages_take_what_their_levels_translate() {
    let mut cases = 0;
    for (levels, width) in [(3, 39), (4, 48), (5, 57)] {
        let stage = second_stage(levels, 52);
        assert_eq!(stage.width(), width);
        let mut check = |address: u64| {
            let fits = (width..64).all(|bit| address >> bit & 1 == 0);
            assert_eq!(
                stage.check_address(address).is_ok(),
                fits,
                "{address:#x}, {levels} levels"
            );
            cases += 1;
        };
        for upper in 0..1_u64 << 17 {
            check(upper << 47);
            check((upper << 38) | ((1 << 38) - 1));
        }
        edges(64).into_iter().for_each(check);
    }
    count("addresses of second stages", cases);
}

/// Each bit of an entry's address is reserved exactly if it is beyond the width, at every level, of tables and pages.
#[test]
fn bits_beyond_the_width_are_reserved() {
    const PRESENT: u64 = 0b111;
    const LARGE: u64 = 1 << 7;
    let mut cases = 0;
    let access = Access::new().with_read(true);
    for width in 12..=64 {
        let first = FirstStage::new(5, true, width);
        let second = second_stage(5, width);
        for level in 1..=5 {
            for large in [0, LARGE] {
                if large != 0 && !(2..=3).contains(&level) {
                    continue;
                }
                // Below it the bits of a page's address are reserved for another reason.
                let lowest = if large == 0 { 12 } else { 12 + 9 * (level - 1) };
                for bit in lowest..52 {
                    let entry = PRESENT | large | 1 << bit;
                    let fits = bit < width;
                    let found = first.check_entry(entry, level, access).is_ok();
                    assert_eq!(found, fits, "first stage, {width}, {bit}, level {level}");
                    let found = second.check_entry(entry, level, access).is_ok();
                    assert_eq!(found, fits, "second stage, {width}, {bit}, level {level}");
                    cases += 2;
                }
            }
        }
    }
    count("address bits of entries", cases);
}
