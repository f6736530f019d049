//! The unit by itself, through its Rust interface: `cargo bench`.
//!
//! Beside each time of a lookup stands one of a hash map with the same keys, measured in turns. `-- --json`
//! writes the lines for programs, `-- TEXT` measures only those with TEXT in their name.

mod guest;
mod memory;
mod race;
mod report;
mod threads;

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::sync::Arc;

use guest::{Guest, Shape, page, pasid_all, pasid_cache, shuffled};
use nested_vtd::host::soft::Twin;
use nested_vtd::host::uapi::request;
use report::{Of, Report, time};

fn main() -> std::io::Result<()> {
    let mut report = Report::new(std::env::args().skip(1));
    // First, before others have given memory back that could be used again.
    if report.wants("memory") {
        memory::measure(&mut report);
    }
    if report.wants("hit") {
        hits(&mut report, 1, ["hit-1", "hash-1", "fast-hash-1"]);
        hits(&mut report, 512, ["hit-512", "hash-512", "fast-hash-512"]);
    }
    if report.wants("threads") {
        threads::measure(&mut report);
    }
    misses(&mut report);
    if report.wants("drain") {
        drains(&mut report);
    }
    if report.wants("pasids") {
        pasids_of_host(&mut report);
        pasids_of_requests(&mut report);
    }
    if report.wants("calls") {
        calls(&mut report);
    }
    if report.wants("late") {
        race::late_fills(&mut report);
    }
    report.end()
}

/// As good a hash as a lookup can afford to be compared with: one multiplication.
#[derive(Default)]
struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// A translation as a hash map would hold it: by tag and page, where it goes and what may be done there.
type Map<S> = HashMap<(u64, u64), (u64, u64, u8), S>;

fn map<S: BuildHasher + Default>(shape: Shape) -> Map<S> {
    (0..shape.pages)
        .map(|page| ((1, shape.iova(page)), (Shape::target(page), 0x1000, 3)))
        .collect()
}

fn look_up<S: BuildHasher>(map: &Map<S>, addresses: &[u64], ops: u64) -> u64 {
    let mut sum = 0;
    for address in addresses.iter().cycle().take(ops as usize) {
        let found = map.get(&black_box((1, address & !0xfff)));
        sum ^= found.map_or(0, |(target, size, _)| target + (address & (size - 1)));
    }
    sum
}

fn translate(guest: &Guest, addresses: &[u64], ops: u64) -> u64 {
    let mut sum = 0;
    for address in addresses.iter().cycle().take(ops as usize) {
        sum ^= guest.read(black_box(*address), None);
    }
    sum
}

/// Addresses of all pages of a shape, shuffled.
fn addresses(shape: Shape) -> Vec<u64> {
    let order = shuffled(shape.pages).into_iter();
    order
        .map(|page| shape.iova(page) + page % 64 * 64)
        .collect()
}

fn hits(report: &mut Report, pages: u64, names: [&'static str; 3]) {
    const OPS: u64 = 1 << 18;
    let shape = Shape::dense(pages);
    let guest = Guest::new(shape);
    let addresses = addresses(shape);
    let bare: Map<std::hash::RandomState> = map(shape);
    let fast: Map<BuildHasherDefault<Multiply>> = map(shape);
    let mut times = [const { Vec::new() }; 3];
    for round in 0..=report.rounds {
        let taken = [
            time(OPS, || translate(&guest, &addresses, OPS)),
            time(OPS, || look_up(&bare, &addresses, OPS)),
            time(OPS, || look_up(&fast, &addresses, OPS)),
        ];
        // The first is a warm-up.
        if round > 0 {
            times.iter_mut().zip(taken).for_each(|(to, ns)| to.push(ns));
        }
    }
    let abouts = [
        "translate, cached",
        "look up the same in a HashMap",
        "look up the same in a HashMap with a fast hash",
    ];
    for ((name, about), values) in names.into_iter().zip(abouts).zip(times) {
        report.add(name, about, Of::Time, values);
    }
}

fn misses(report: &mut Report) {
    let apart = |nested| Shape {
        pages: 200,
        stride: 39,
        nested,
    };
    let together = |nested| Shape {
        nested,
        ..Shape::dense(512)
    };
    for (shape, name, reads) in [
        (together(false), "miss", "reads-warm"),
        (apart(false), "miss-apart", "reads-cold"),
        (together(true), "miss-nested", "reads-nested-warm"),
        (apart(true), "miss-nested-apart", "reads-nested-cold"),
    ] {
        if !report.wants(name) && !report.wants(reads) {
            continue;
        }
        let guest = Guest::new(shape);
        let addresses = addresses(shape);
        let (first, rest) = addresses.split_at(usize::from(shape.stride == 12));
        let mut times = Vec::new();
        let mut counted = [0, 0];
        for round in 0..=report.rounds * 4 {
            guest.submit(&[pasid_all(0)]);
            translate(&guest, first, first.len() as u64);
            let before = guest.unit.stats();
            let ops = rest.len() as u64;
            let ns = time(ops, || translate(&guest, rest, ops));
            let after = guest.unit.stats();
            if round > 0 {
                times.push(ns);
                counted[0] += after.table_reads - before.table_reads;
                counted[1] += after.walks - before.walks;
            }
        }
        report.add(name, "translate, not cached", Of::Time, times);
        report.count(
            reads,
            "paging entries read in such a walk",
            counted[0] as f64 / counted[1] as f64,
        );
    }
}

fn drains(report: &mut Report) {
    for (name, pages, live) in [
        ("drain-0", 1000, 0),
        ("drain-1000", 1000, 1000),
        ("drain-65536", 65536, 65536),
    ] {
        let shape = Shape::dense(pages);
        let guest = Guest::new(shape);
        let addresses = addresses(shape);
        let named: Vec<_> = addresses
            .iter()
            .take(255)
            .map(|at| page(at & !0xfff))
            .collect();
        let mut times = Vec::new();
        for round in 0..=report.rounds * 2 {
            guest.submit(&[pasid_all(0)]);
            translate(&guest, &addresses, live);
            // What the translations have pushed out of the processor's caches is not to count.
            guest.submit(&[]);
            guest.queue(&named);
            let ns = time(1, || guest.ring());
            guest.check();
            if round > 0 {
                times.push(ns);
            }
        }
        report.add(
            name,
            "255 pages and a wait, so many visited",
            Of::Time,
            times,
        );
    }
}

/// PASIDs of an assigned device, each with a nested HWPT of its own.
fn pasids_of_host(report: &mut Report) {
    for (name, binding, count) in [
        ("pasids-host-1", "pasids-bind-1", 1),
        ("pasids-host-1000", "pasids-bind-1000", 1000),
        ("pasids-host-100000", "pasids-bind-100000", 100_000),
    ] {
        if count > 10_000 {
            if report.quick {
                continue;
            }
            eprintln!("binding {count} PASIDs");
        }
        let twin = Arc::new(Twin::default());
        let mut guest = Guest::on_twin(&twin, 1);
        guest.boot();
        guest.bind_pasids(count);
        guest.queue(&[pasid_cache()]);
        let bound = time(1, || guest.ring());
        guest.check();
        let info = guest.unit.device_info(guest.device).unwrap();
        assert_eq!(info.pasids as u64, count, "all are bound");
        report.add(binding, "the one that binds them", Of::Time, vec![bound]);
        let rounds = if count > 10_000 { 3 } else { report.rounds };
        let mut times = Vec::new();
        for _ in 0..rounds {
            guest.queue(&[pasid_cache()]);
            times.push(time(1, || guest.ring()));
            guest.check();
        }
        report.add(
            name,
            "PASID-cache invalidation, so many on the host",
            Of::Time,
            times,
        );
    }
}

/// PASIDs of a device that the unit walks for, known as requests have come with them.
fn pasids_of_requests(report: &mut Report) {
    for (name, count) in [
        ("pasids-unit-1", 1),
        ("pasids-unit-1000", 1000),
        ("pasids-unit-100000", 100_000),
    ] {
        let shape = Shape::dense(1);
        let mut guest = Guest::new(shape);
        let table = guest.new_table();
        // A 1 GiB page that holds the address.
        let next = guest.new_table();
        guest.poke(table, next | 0x27);
        guest.poke(
            next + (shape.iova(0) >> 30 & 511) * 8,
            0x40_0000_0000 | 0xe7,
        );
        for pasid in 1..=count {
            guest.bind(pasid, 1 << 6 | 1, table);
        }
        let rounds = if count > 10_000 { 3 } else { report.rounds };
        let mut times = Vec::new();
        for _ in 0..rounds {
            for pasid in 1..=count {
                guest.read(shape.iova(0), Some(pasid as u32));
            }
            guest.queue(&[pasid_cache()]);
            times.push(time(1, || guest.ring()));
            guest.check();
        }
        report.add(
            name,
            "PASID-cache invalidation, so many in use",
            Of::Time,
            times,
        );
    }
}

/// 255 pages and a wait with 8 devices that share a table: calls on the host.
fn calls(report: &mut Report) {
    let twin = Arc::new(Twin::default());
    let mut guest = Guest::on_twin(&twin, 8);
    guest.boot();
    let calls = || {
        let stats = twin.stats();
        let made = stats.calls.get(&request::HWPT_INVALIDATE);
        made.map_or(0, |count| count.calls)
    };
    let named: Vec<_> = (0..255)
        .map(|index| page(guest.shape.iova(index * 2)))
        .collect();
    let before = calls();
    guest.submit(&named);
    report.count(
        "calls-8-devices",
        "HWPT_INVALIDATE calls for 255 pages and a wait",
        (calls() - before) as f64,
    );
}
