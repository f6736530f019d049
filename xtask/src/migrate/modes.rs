//! What the unit and the guest's tables are like when the guest moves, and when it does.

use crate::scenario::{Mode as Tables, Remapping, Route, Scenario, Verdict};

/// When a guest is saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Firmware or kernel come up, and translation is off.
    Early,
    /// The kernel programs the unit: whenever GSTS is another than before.
    Setup,
    /// Disks are read and written, and the network is in use; to another emulator.
    Running,
    /// The same, and later back to it in the same emulator.
    Snapshot,
    /// It reboots.
    Reboot,
}

impl Moment {
    pub const ALL: [Self; 5] = [
        Self::Early,
        Self::Setup,
        Self::Running,
        Self::Snapshot,
        Self::Reboot,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Setup => "setup",
            Self::Running => "migrate",
            Self::Snapshot => "snapshot",
            Self::Reboot => "reboot",
        }
    }
}

/// A row of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// How the guest runs: its unit, tables, domains and command line.
    pub here: Scenario,
    /// How every second emulator differs.
    pub elsewhere: Option<Scenario>,
}

/// Freed addresses are used again at once, so invalidations are under way all the time.
const NESTED: Scenario = Scenario {
    about: "first-stage tables in nested HWPTs of the software host",
    domain: "DMA",
    append: "iommu.strict=1",
    ..Scenario::NESTED
};

const DIRECT: Scenario = Scenario {
    name: "direct",
    about: "first-stage tables walked by the unit",
    route: Route::Direct,
    unit: "host=none,x-oracle=on",
    ..NESTED
};

const fn same(here: Scenario) -> Mode {
    Mode {
        here,
        elsewhere: None,
    }
}

impl Mode {
    pub const ALL: &[Self] = &[
        same(NESTED),
        same(DIRECT),
        Self {
            here: Scenario {
                name: "changing",
                about: "from the unit's own walk to nested HWPTs, and back",
                // Capabilities must be the same; the software host has no second-stage tables for guests.
                unit: "host=none,second-stage=off,x-oracle=on",
                ..DIRECT
            },
            elsewhere: Some(NESTED),
        },
        same(Scenario {
            name: "five-level",
            about: "first-stage tables of 5 levels",
            mode: Tables::FirstStage(5),
            unit: "host=none,aw-bits=57,x-oracle=on",
            ..DIRECT
        }),
        same(Scenario {
            name: "second-stage",
            about: "second-stage tables only",
            mode: Tables::SecondStage,
            unit: "host=none,first-stage=off,caching-mode=off,x-oracle=on",
            ..DIRECT
        }),
        same(Scenario {
            name: "legacy",
            about: "legacy mode (intel_iommu=sm_off)",
            mode: Tables::Legacy,
            append: "intel_iommu=sm_off iommu.strict=1",
            ..DIRECT
        }),
        same(Scenario {
            name: "pass-through",
            about: "pass-through (iommu=pt) on the nesting parent",
            route: Route::Parent,
            mode: Tables::PassThrough,
            domain: "identity",
            append: "iommu=pt",
            ..NESTED
        }),
        same(Scenario {
            name: "x2apic",
            about: "nested HWPTs, interrupt remapping with 32-bit APIC IDs",
            remapping: Remapping::Wide,
            unit: "host=soft,intremap=on,eim=on",
            ..NESTED
        }),
        same(Scenario {
            name: "lazy",
            about: "nested HWPTs, batched invalidation, no interrupt remapping",
            domain: "DMA-FQ",
            remapping: Remapping::Off,
            unit: "host=soft,intremap=off",
            append: "",
            ..NESTED
        }),
        Self {
            here: Scenario {
                name: "break-alloc",
                about: "an emulator that refuses the HWPTs is noticed",
                verdict: Verdict::Blocked,
                ..NESTED
            },
            elsewhere: Some(Scenario {
                unit: "host=soft,x-inject=refuse-alloc",
                ..NESTED
            }),
        },
        Self {
            here: Scenario {
                name: "break-invalidation",
                about: "an emulator that drops invalidations is noticed",
                verdict: Verdict::StaleUses,
                ..NESTED
            },
            elsewhere: Some(Scenario {
                unit: "host=soft,x-inject=drop-invalidations",
                ..NESTED
            }),
        },
    ];

    /// What `cargo xtask check` has time for.
    pub const QUICK: &[&str] = &["nested", "changing", "legacy", "break-alloc"];

    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|mode| mode.here.name == name)
    }

    /// What is tried, guest by guest.
    pub fn lives(&self) -> &'static [&'static [Moment]] {
        match self.here.verdict {
            Verdict::Works => &[
                &[Moment::Early, Moment::Setup, Moment::Running],
                &[Moment::Snapshot, Moment::Reboot],
            ],
            _ => &[&[Moment::Running]],
        }
    }

    /// How the emulator with this number differs.
    pub fn of(&self, number: usize) -> &Scenario {
        match &self.elsewhere {
            Some(elsewhere) if number % 2 == 1 => elsewhere,
            _ => &self.here,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for (n, mode) in Mode::ALL.iter().enumerate() {
            let same = |other: &Mode| other.here.name == mode.here.name;
            assert_eq!(Mode::ALL.iter().position(same), Some(n));
        }
        assert!(Mode::QUICK.iter().all(|name| Mode::named(name).is_some()));
    }

    #[test]
    fn every_moment_is_tried_once() {
        let mode = Mode::named("changing").unwrap();
        for moment in Moment::ALL {
            let lives = mode.lives().iter().flat_map(|life| life.iter());
            assert_eq!(lives.filter(|m| **m == moment).count(), 1);
        }
        assert_eq!(mode.of(0).route, Route::Direct);
        assert_eq!(mode.of(1).route, Route::Nested);
        assert_eq!(mode.of(2).route, Route::Direct);
    }
}
