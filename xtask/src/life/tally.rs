//! What happened how often, and what came of each part.

use std::fmt::{self, Display};
use std::ops::AddAssign;

use crate::ui::{Result, Step, indent};

/// How often what happened.
#[derive(Default, Clone, Copy)]
pub struct Counts {
    /// Resets from outside.
    pub resets: u64,
    /// The guest came up so far that it did what it was told.
    pub boots: u64,
    /// Panics, and reboots of the guest's own.
    pub reboots: u64,
    /// Kernels started by another one.
    pub kexecs: u64,
    /// Devices plugged in, used, and taken out again.
    pub plugs: u64,
    /// Memory plugged in, used for DMA, and taken out again if the guest let go.
    pub memory: u64,
    pub memory_kept: u64,
    /// Pages of plugged-in memory that were read into.
    pub high_pages: u64,
    pub leaked: u64,
    pub stale_uses: u64,
    pub faults: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.resets += other.resets;
        self.boots += other.boots;
        self.reboots += other.reboots;
        self.kexecs += other.kexecs;
        self.plugs += other.plugs;
        self.memory += other.memory;
        self.memory_kept += other.memory_kept;
        self.high_pages += other.high_pages;
        self.leaked += other.leaked;
        self.stale_uses += other.stale_uses;
        self.faults += other.faults;
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} boots, {} resets, {} reboots by the guest, {} by kexec; {} devices plugged in and out; memory plugged in \
             {} times ({} kept by the guest), {} pages of it read into; {} faults, {} stale uses, {} leaked HWPTs",
            self.boots,
            self.resets,
            self.reboots,
            self.kexecs,
            self.plugs,
            self.memory,
            self.memory_kept,
            self.high_pages,
            self.faults,
            self.stale_uses,
            self.leaked
        )
    }
}

#[derive(Default)]
pub struct Tally {
    pub counts: Counts,
    pub passed: u32,
    pub failed: u32,
    /// Of those that failed: the first.
    pub first: Option<String>,
}

impl Tally {
    /// Takes a part; true if it went well.
    pub fn part(&mut self, name: &str, take: impl FnOnce(&mut Step) -> Result<String>) -> bool {
        let mut step = Step::new(name);
        match take(&mut step) {
            Ok(said) => {
                step.done(said);
                self.passed += 1;
                true
            }
            Err(e) => {
                drop(step);
                eprintln!("{}", indent(&e.to_string()));
                self.first.get_or_insert_with(|| format!("{name}: {e}"));
                self.failed += 1;
                false
            }
        }
    }
}
