//! The table, by what is measured: rows with their targets, and a plot.

use super::alone::Alone;
use super::guest::Reads;
use super::machine::Unit;
use super::measured::Measured;
use super::plot::{Group, Plot};
use super::rows::{
    Row, added, faster, independent, miss, most_to_least, reads, two_threads, while_draining,
};
use super::samples::{digits, time};

pub struct Section {
    /// Of the plot's file.
    pub name: &'static str,
    pub title: &'static str,
    pub about: &'static str,
    pub rows: Vec<Row>,
    pub plot: Plot,
}

/// Those of which something was measured.
pub fn all(measured: &Measured, alone: &Alone, reads: &Reads) -> Vec<Section> {
    let mut sections = vec![
        hits(measured),
        misses(measured),
        drains(measured),
        selective(measured),
        threads(measured, alone),
        by_itself(alone),
        guest(reads),
    ];
    sections.retain(|section| !section.rows.is_empty());
    let rows = sections.iter_mut().flat_map(|section| &mut section.rows);
    rows.for_each(Row::restate);
    sections
}

/// Bars of all units: for each group its name and the case.
fn plot(m: &Measured, title: &str, groups: &[(&str, &'static str)]) -> Plot {
    Plot {
        title: title.to_owned(),
        series: Unit::ALL.map(|unit| unit.name().to_owned()).to_vec(),
        groups: groups
            .iter()
            .map(|(name, case)| Group {
                name: (*name).to_owned(),
                values: Unit::ALL.map(|unit| m.median(case, unit)).to_vec(),
            })
            .collect(),
        label: time,
    }
}

fn hits(m: &Measured) -> Section {
    let mut rows = Vec::new();
    for (name, case, at_least) in [
        ("hit-1", "hit, 1 page", Some(3.0)),
        ("hit-512", "hit, 512 pages", Some(3.0)),
        ("hit-4096", "working set of 4096 pages", Some(8.0)),
        ("hit-65536", "working set of 65536 pages", Some(8.0)),
        ("hit-2m", "hit, 512 pages of 2 MiB", None),
    ] {
        rows.extend(faster(m, name, case, at_least));
        rows.extend(added(m, name));
    }
    rows.extend(faster(m, "hit-nested", "hit, 512 pages, nested", None));
    Section {
        name: "hits",
        title: "DMA to a working set",
        about: "A device reads 4 bytes of each page of a working set that it has visited before, in a random \
                order: everything from the device's call to the data. intel-iommu keeps 1024 translations.",
        rows,
        plot: plot(
            m,
            "One DMA read of 4 bytes, by working set",
            &[
                ("1 page", "hit-1"),
                ("512", "hit-512"),
                ("4096", "hit-4096"),
                ("65536", "hit-65536"),
                ("512 of 2 MiB", "hit-2m"),
                ("512, nested", "hit-nested"),
            ],
        ),
    }
}

fn misses(m: &Measured) -> Section {
    let mut rows = Vec::new();
    for (name, case, at_least) in [
        ("miss", "miss, 512 pages of one table", Some(4.0)),
        ("miss-apart", "miss, pages that share no table", Some(4.0)),
        ("miss-nested", "nested miss, 512 pages of one table", None),
        (
            "miss-nested-apart",
            "nested miss, pages that share no table",
            None,
        ),
    ] {
        rows.extend(miss(m, name, case, at_least));
    }
    for (name, case, at_most) in [
        ("walk-first-cold", "table reads of a miss, cold", None),
        ("walk-first-warm", "table reads of a miss, warm", None),
        (
            "walk-nested-cold",
            "table reads of a nested miss, cold",
            Some(24.0),
        ),
        (
            "walk-nested-warm",
            "table reads of a nested miss, warm",
            Some(6.0),
        ),
    ] {
        rows.extend(reads(m, name, case, at_most));
    }
    Section {
        name: "misses",
        title: "DMA to pages that are not cached",
        about: "Everything of the PASID is invalidated, which is not timed; then each page is read once. Warm \
                is after one other page of the same last-level table. intel-iommu has no nested translation.",
        rows,
        plot: plot(
            m,
            "One DMA read of 4 bytes, not cached",
            &[
                ("one table", "miss"),
                ("no table shared", "miss-apart"),
                ("nested, one table", "miss-nested"),
                ("nested, none shared", "miss-nested-apart"),
            ],
        ),
    }
}

fn drains(m: &Measured) -> Section {
    let mut rows = Vec::new();
    for (name, case, at_least) in [
        ("drain-1", "255 pages + wait, 1 live entry", Some(8.0)),
        ("drain-1000", "255 pages + wait, 1000 live", Some(40.0)),
        ("drain-65536", "255 pages + wait, 65536 visited", None),
    ] {
        rows.extend(faster(m, name, case, at_least));
    }
    rows.extend(while_draining(m));
    Section {
        name: "drains",
        title: "The invalidation queue",
        about: "One write of IQT with 255 page-selective PASID-based IOTLB invalidations and a wait before it, \
                which name pages that were visited as far as there are such. The queue has 512 entries of 256 \
                bits: one of 256 entries holds one less than that. While a thread translates other pages of the \
                same PASID, worst is the median over the drains of the slowest of its accesses.",
        rows,
        plot: plot(
            m,
            "255 page invalidations and a wait, by pages visited before",
            &[
                ("1", "drain-1"),
                ("1000", "drain-1000"),
                ("65536", "drain-65536"),
            ],
        ),
    }
}

fn selective(m: &Measured) -> Section {
    let mut rows = Vec::new();
    for (names, cold, what) in [
        (
            ["pasid-0", "pasid-1024", "pasid-65536"],
            ["pasid-cold-0", "pasid-cold-65536"],
            "PASID-selective",
        ),
        (
            ["domain-0", "domain-1024", "domain-65536"],
            ["domain-cold-0", "domain-cold-65536"],
            "domain-selective",
        ),
    ] {
        for (name, live) in names
            .into_iter()
            .zip(["0 live", "1024 live", "65536 visited"])
        {
            rows.extend(faster(m, name, &format!("{what}, {live}"), None));
        }
        rows.extend(most_to_least(m, names, what));
        rows.extend(independent(m, cold, what));
    }
    Section {
        name: "selective",
        title: "Invalidations of all of a PASID or domain",
        about: "One write of IQT with one such invalidation and a wait. Visits to many pages push what it needs out of \
                the processor's caches. With caches as cold, the device has read all 65536 pages and their paging \
                entries past the unit after none or all of them were visited, so that only what the unit holds differs.",
        rows,
        plot: plot(
            m,
            "One invalidation and a wait, by pages visited before",
            &[
                ("PASID, 0", "pasid-0"),
                ("1024", "pasid-1024"),
                ("65536", "pasid-65536"),
                ("domain, 0", "domain-0"),
                ("1024", "domain-1024"),
                ("65536", "domain-65536"),
            ],
        ),
    }
}

fn threads(m: &Measured, alone: &Alone) -> Section {
    Section {
        name: "threads",
        title: "Two threads",
        about: "Threads of the emulator without its big lock, as iothreads are, each reading the same 512 pages. \
                intel-iommu translates under one mutex.",
        rows: two_threads(m, alone).into_iter().collect(),
        plot: plot(
            m,
            "One DMA read of 4 bytes, all threads' reads in turn",
            &[("1 thread", "threads-1"), ("2 threads", "threads-2")],
        ),
    }
}

fn by_itself(alone: &Alone) -> Section {
    let names = [
        ("hit, 1 page", ["hash-1", "fast-hash-1", "hit-1"]),
        ("hit, 512 pages", ["hash-512", "fast-hash-512", "hit-512"]),
    ];
    let mut groups: Vec<Group> = names
        .into_iter()
        .map(|(name, lines)| Group {
            name: name.to_owned(),
            values: lines.map(|line| alone.median(line)).to_vec(),
        })
        .collect();
    for (name, line) in [
        ("miss", "miss"),
        ("nested miss", "miss-nested"),
        ("nested, cold", "miss-nested-apart"),
    ] {
        groups.push(Group {
            name: name.to_owned(),
            values: vec![None, None, alone.median(line)],
        });
    }
    Section {
        name: "alone",
        title: "The crate by itself",
        about: "Through the Rust interface, without an emulator: `cargo bench`.",
        rows: alone.rows(),
        plot: Plot {
            title: "One translation by the crate".to_owned(),
            series: ["a HashMap's lookup", "one with a fast hash", "nested-vtd"]
                .map(str::to_owned)
                .to_vec(),
            groups,
            label: |ns| if ns < 1000.0 { digits(ns) } else { time(ns) },
        },
    }
}

fn guest(reads: &Reads) -> Section {
    let group = Group {
        name: "4 KiB".to_owned(),
        values: Unit::ALL.map(|unit| reads.median(unit)).to_vec(),
    };
    Section {
        name: "guest",
        title: "A whole guest",
        about: "Debian's stock kernel under TCG with `iommu.strict=1`: reads of 4 KiB at random places of an nvme \
                disk, one after the other and past the page cache, so each is mapped, unmapped and invalidated. \
                Most of the time is the emulated processor's.",
        rows: reads.rows().into_iter().flatten().collect(),
        plot: Plot {
            title: "One nvme read of a guest, strict mode".to_owned(),
            series: Unit::ALL.map(|unit| unit.name().to_owned()).to_vec(),
            groups: vec![group],
            label: time,
        },
    }
}
