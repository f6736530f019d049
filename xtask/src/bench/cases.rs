//! What is measured. Each case is one request to the test device, the same for every unit.

use super::machine::Unit;

pub struct Case {
    pub name: &'static str,
    /// For the test device; `hw/misc/iommu-bench-testdev.c` lists the options.
    pub spec: &'static str,
    pub units: &'static [Unit],
}

const ALL: &[Unit] = &Unit::ALL;
const BOTH: &[Unit] = &Unit::BOTH;
const OURS: &[Unit] = &[Unit::Ours];

const fn case(name: &'static str, units: &'static [Unit], spec: &'static str) -> Case {
    Case { name, spec, units }
}

/// In the order of the table.
pub const CASES: &[Case] = &[
    case("hit-1", ALL, "read pages=1 ops=100000 reps=5"),
    case("hit-512", ALL, "read pages=512 ops=102400 reps=5"),
    case("hit-4096", ALL, "read pages=4096 ops=81920 reps=5"),
    case("hit-65536", ALL, "read pages=65536 ops=131072 reps=3"),
    case("hit-2m", ALL, "read pages=512 large=1 ops=102400 reps=5"),
    case(
        "hit-nested",
        OURS,
        "read pages=512 nested=1 ops=102400 reps=5",
    ),
    // 512 pages of one last-level table; then pages that share nothing but the root of the tables.
    case("miss", BOTH, "miss pages=512 reps=50"),
    case("miss-apart", BOTH, "miss pages=200 stride=39 reps=50"),
    case("miss-nested", OURS, "miss pages=512 nested=1 reps=50"),
    case(
        "miss-nested-apart",
        OURS,
        "miss pages=200 stride=39 nested=1 reps=50",
    ),
    case("drain-1", BOTH, "drain pages=1000 live=1 reps=50"),
    case("drain-1000", BOTH, "drain pages=1000 live=1000 reps=50"),
    case("drain-65536", BOTH, "drain pages=65536 live=65536 reps=5"),
    case(
        "pasid-0",
        BOTH,
        "drain flush=1 descriptors=1 pages=1024 live=0 reps=50",
    ),
    case(
        "pasid-1024",
        BOTH,
        "drain flush=1 descriptors=1 pages=1024 live=1024 reps=50",
    ),
    case(
        "pasid-65536",
        BOTH,
        "drain flush=1 descriptors=1 pages=65536 live=65536 reps=15",
    ),
    case(
        "pasid-cold-0",
        BOTH,
        "drain flush=1 descriptors=1 pages=65536 live=0 cold=1 reps=15",
    ),
    case(
        "pasid-cold-65536",
        BOTH,
        "drain flush=1 descriptors=1 pages=65536 live=65536 cold=1 reps=15",
    ),
    case(
        "domain-0",
        BOTH,
        "drain flush=2 descriptors=1 pages=1024 live=0 reps=50",
    ),
    case(
        "domain-1024",
        BOTH,
        "drain flush=2 descriptors=1 pages=1024 live=1024 reps=50",
    ),
    case(
        "domain-65536",
        BOTH,
        "drain flush=2 descriptors=1 pages=65536 live=65536 reps=15",
    ),
    case(
        "domain-cold-0",
        BOTH,
        "drain flush=2 descriptors=1 pages=65536 live=0 cold=1 reps=15",
    ),
    case(
        "domain-cold-65536",
        BOTH,
        "drain flush=2 descriptors=1 pages=65536 live=65536 cold=1 reps=15",
    ),
    case(
        "threads-1",
        ALL,
        "threads threads=1 pages=512 ops=102400 reps=5",
    ),
    case(
        "threads-2",
        ALL,
        "threads threads=2 pages=512 ops=102400 reps=5",
    ),
    case("mixed", BOTH, "mixed pages=1000 live=1000 reps=30"),
    case(
        "walk-first-cold",
        OURS,
        "miss count=1 pages=200 stride=39 reps=2",
    ),
    case(
        "walk-first-warm",
        OURS,
        "miss count=1 pages=512 warm=1 reps=2",
    ),
    case(
        "walk-nested-cold",
        OURS,
        "miss count=1 pages=200 stride=39 nested=1 reps=2",
    ),
    case(
        "walk-nested-warm",
        OURS,
        "miss count=1 pages=512 warm=1 nested=1 reps=2",
    ),
];
