//! The ways in which `cargo xtask` runs a guest, and what is to be seen in each.

use std::time::Duration;

/// Which kernel the guest has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kernel {
    /// Debian's newest.
    Stock,
    /// The lab kernel, see kernel.rs.
    Lab,
}

/// What the guest does besides using its devices: `nvtd.then` of tests/guest/init.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Then {
    Nothing,
    /// It acts as the host of a nested guest, see tests/guest/nesting.c.
    Nesting,
    /// It reboots, and uses its devices again.
    Reboot,
    /// It starts its kernel again by kexec, which uses the devices again.
    Kexec,
}

impl Then {
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Nesting => Some("nesting"),
            Self::Reboot => Some("reboot"),
            Self::Kexec => Some("kexec"),
        }
    }

    /// How often the guest comes up in a run.
    pub fn boots(self) -> usize {
        match self {
            Self::Nothing | Self::Nesting => 1,
            Self::Reboot | Self::Kexec => 2,
        }
    }
}

/// How the devices' DMA is to go.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Route {
    /// Through nested HWPTs made of the guest's first-stage tables.
    Nested,
    /// Through the nesting parent, as guest-physical addresses.
    Parent,
    /// Through the unit's own walk.
    Direct,
}

impl Route {
    /// The state of a device that the unit shows.
    pub fn state(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Parent => "parent",
            Self::Direct => "direct",
        }
    }
}

/// What the tables that the guest makes are to ask for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    /// Scalable mode, first-stage tables of this many levels.
    FirstStage(u64),
    /// Scalable mode, second-stage tables.
    SecondStage,
    /// Scalable mode, pass-through.
    PassThrough,
    /// Legacy mode, with tables.
    Legacy,
}

impl Mode {
    /// PGTT of the PASID-table entry (VT-d 9.6), or what a legacy context entry corresponds to.
    pub fn pgtt(self) -> u64 {
        match self {
            Self::FirstStage(_) => 1,
            Self::SecondStage | Self::Legacy => 2,
            Self::PassThrough => 4,
        }
    }
}

/// What becomes of the devices' interrupts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Remapping {
    Off,
    /// With 8-bit APIC IDs.
    On,
    /// With 32-bit APIC IDs: IRTA.EIME.
    Wide,
}

/// What the run is to show.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    /// Everything works, and nothing is complained of.
    Works,
    /// The oracle counts stale uses, and the report names them.
    StaleUses,
    /// The host refuses every HWPT, and the devices are blocked.
    Blocked,
}

/// One way to run the guest. All have 2 vCPUs.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// What is tried, for the list of checks.
    pub about: &'static str,
    pub kernel: Kernel,
    pub then: Then,
    pub route: Route,
    pub mode: Mode,
    /// The type of the devices' domains in the guest.
    pub domain: &'static str,
    pub remapping: Remapping,
    pub verdict: Verdict,
    /// Properties of `-device nested-vtd`.
    pub unit: &'static str,
    /// More words for the kernel's command line.
    pub append: &'static str,
    /// Seconds after which the guest gives up a job.
    pub patience: u32,
    /// The limit for each time it comes up.
    pub deadline: Duration,
}

impl Scenario {
    pub const NESTED: Self = Self {
        name: "nested",
        about: "DMA through nested HWPTs",
        kernel: Kernel::Stock,
        then: Then::Nothing,
        route: Route::Nested,
        mode: Mode::FirstStage(4),
        domain: "DMA-FQ",
        remapping: Remapping::On,
        verdict: Verdict::Works,
        unit: "host=soft",
        append: "",
        patience: 45,
        deadline: Duration::from_secs(100),
    };

    /// No mapping outlives its request, so freed addresses are used again at once.
    const STRICT: Self = Self {
        name: "strict",
        about: "the same, strict unmapping, no interrupt remapping",
        domain: "DMA",
        remapping: Remapping::Off,
        unit: "host=soft,intremap=off",
        append: "iommu.strict=1",
        ..Self::NESTED
    };

    const DIRECT: Self = Self {
        name: "direct",
        about: "DMA through the unit's own walk of first-stage tables",
        route: Route::Direct,
        unit: "host=none",
        ..Self::NESTED
    };

    pub const BREAK_INVALIDATION: Self = Self {
        name: "break-invalidation",
        about: "dropped invalidations are noticed",
        verdict: Verdict::StaleUses,
        unit: "host=soft,intremap=off,x-inject=drop-invalidations",
        patience: 20,
        deadline: Duration::from_secs(60),
        ..Self::STRICT
    };

    pub const BREAK_ALLOC: Self = Self {
        name: "break-alloc",
        about: "refused HWPTs leave devices blocked",
        verdict: Verdict::Blocked,
        unit: "host=soft,x-inject=refuse-alloc",
        patience: 15,
        deadline: Duration::from_secs(60),
        ..Self::NESTED
    };

    /// All of them, in the order in which they are checked.
    pub const ALL: &[Self] = &[
        Self::NESTED,
        Self::STRICT,
        Self::DIRECT,
        Self {
            name: "reboot",
            about: "the guest reboots and uses its devices again",
            then: Then::Reboot,
            ..Self::NESTED
        },
        Self {
            name: "kexec",
            about: "the guest starts its kernel by kexec and uses its devices again",
            then: Then::Kexec,
            ..Self::NESTED
        },
        Self {
            name: "pass-through",
            about: "pass-through (iommu=pt) on the nesting parent",
            route: Route::Parent,
            mode: Mode::PassThrough,
            domain: "identity",
            append: "iommu=pt",
            ..Self::NESTED
        },
        Self {
            name: "five-level",
            about: "first-stage tables of 5 levels",
            mode: Mode::FirstStage(5),
            unit: "host=none,aw-bits=57",
            ..Self::DIRECT
        },
        // Without caching mode the driver batches its invalidations.
        Self {
            name: "second-stage",
            about: "second-stage tables only, no caching mode",
            mode: Mode::SecondStage,
            unit: "host=none,first-stage=off,caching-mode=off",
            ..Self::DIRECT
        },
        // With it, every change of a second-stage table is announced, and nothing is batched.
        Self {
            name: "legacy",
            about: "legacy mode (intel_iommu=sm_off)",
            mode: Mode::Legacy,
            domain: "DMA",
            unit: "host=none",
            append: "intel_iommu=sm_off",
            ..Self::DIRECT
        },
        Self {
            name: "x2apic",
            about: "interrupt remapping with 32-bit APIC IDs",
            remapping: Remapping::Wide,
            unit: "host=soft,intremap=on,eim=on",
            ..Self::NESTED
        },
        Self {
            name: "nesting-host",
            about: "the guest is a host of nested guests: iommufd, nesting parent, nested HWPT",
            kernel: Kernel::Lab,
            then: Then::Nesting,
            route: Route::Direct,
            unit: "host=none,nest=on,intremap=on",
            ..Self::NESTED
        },
        Self::BREAK_INVALIDATION,
        Self::BREAK_ALLOC,
    ];

    /// The scenario of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|scenario| scenario.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for (n, scenario) in Scenario::ALL.iter().enumerate() {
            let same = |other: &Scenario| other.name == scenario.name;
            assert_eq!(Scenario::ALL.iter().position(same), Some(n));
            assert!(!scenario.name.contains(' '));
        }
    }
}
