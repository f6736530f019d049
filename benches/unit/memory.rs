//! What a cached translation takes: memory that this process has more with full caches, by the
//! translations that they turn out to hold.

use std::fs;

use nested_vtd::memory::OwnedRam;

use crate::guest::{Guest, Shape};
use crate::report::{Of, Report};

/// So many that pages and the allocator's own blocks do not count.
const UNITS: u64 = 16;
const VISITED: u64 = 65536;

/// Bytes of this process that are its own; None where the kernel does not tell.
fn private() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

pub fn measure(report: &mut Report) {
    let shape = Shape::dense(VISITED);
    let ram = OwnedRam::new(64 << 20);
    // Tables are made by the first one, and are the same for all.
    let first = Guest::on_ram(shape, ram.clone());
    let held = held(&first);
    report.count(
        "memory-held",
        "translations that the cache holds of 65536 visited",
        held,
    );
    let Some(before) = private() else {
        return;
    };
    let mut units = Vec::new();
    for _ in 0..UNITS {
        let guest = Guest::on_ram(shape, ram.clone());
        visit(&guest);
        units.push(guest);
    }
    let Some(after) = private() else {
        return;
    };
    let each = after.saturating_sub(before) as f64 / UNITS as f64 / held;
    report.add(
        "memory-each",
        "all that a unit with a full cache takes, for each translation in it",
        Of::Bytes,
        vec![each],
    );
    drop(units);
}

fn visit(guest: &Guest) {
    for page in 0..VISITED {
        guest.read(guest.shape.iova(page), None);
    }
}

/// After visits to more pages than the cache can hold: how many of them are hits. The last visited
/// come first, so that looking does not push out what is still to be looked at.
fn held(guest: &Guest) -> f64 {
    visit(guest);
    let mut held = 0;
    for page in (0..VISITED).rev() {
        let before = guest.unit.stats().walks;
        guest.read(guest.shape.iova(page), None);
        held += u64::from(guest.unit.stats().walks == before);
    }
    held as f64
}
