//! What is added up over emulators and guests.

use std::collections::{BTreeMap, BTreeSet};

use crate::outcome::Unit;

/// Counters of the unit that say how much was under way.
const SUMMED: &[&str] = &[
    "translations",
    "descriptors",
    "invalidate-calls",
    "hwpt-allocs",
    "interrupts",
    "stale-uses",
    "faults",
    "queue-errors",
    "interrupt-faults",
];

#[derive(Default)]
pub struct Counts {
    pub saves: u64,
    pub loads: u64,
    /// Saved with IQH other than IQT.
    pub queue: u64,
    /// Saved with an interrupt of the unit that waits, or something in FSTS.
    pub waiting: u64,
    /// Each GSTS that was saved.
    pub gsts: BTreeSet<u64>,
    /// Transfers that were begun again.
    pub again: u64,
    pub kernel: String,
    sums: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub fn add(&mut self, unit: &Unit) {
        for name in SUMMED {
            *self.sums.entry(name).or_default() += unit.stat(name);
        }
    }

    pub fn join(&mut self, other: Self) {
        self.saves += other.saves;
        self.loads += other.loads;
        self.queue += other.queue;
        self.waiting += other.waiting;
        self.gsts.extend(other.gsts);
        self.again += other.again;
        if !other.kernel.is_empty() {
            self.kernel = other.kernel;
        }
        for (name, sum) in other.sums {
            *self.sums.entry(name).or_default() += sum;
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let gsts: Vec<_> = self.gsts.iter().map(|gsts| format!("{gsts:08x}")).collect();
        let sums = |names: &[&str]| {
            let one = |name: &&str| format!("{name} {}", self.sums.get(name).unwrap_or(&0));
            names.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        format!(
            "saved         {} times, loaded {} times; Linux {}\n\
             queue         IQH was not IQT in {} of the saved states; an event or fault waited in {}\n\
             GSTS          {}\n\
             under way     {}; {} transfers begun again\n\
             wrong         {}\n",
            self.saves,
            self.loads,
            self.kernel,
            self.queue,
            self.waiting,
            gsts.join(" "),
            sums(&SUMMED[..5]),
            self.again,
            sums(&SUMMED[5..]),
        )
    }
}
