//! The kernel's own tests of vfio and iommufd in L1, on our unit: tests that are neither ours nor about us.

use std::time::Duration;

use super::machine::{Files, HARDWARE, How, Machine, NET};
use super::report::{Report, Seen};
use crate::ui::{Error, Result, Step, fail};

/// What the tests need of L1: huge pages of both sizes, and virtual functions.
const HOW: How<'static> = How {
    unit: HARDWARE,
    options: "",
    append: "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=64 vfio_pci.enable_sriov=1",
};

/// A program's tests, as it is called, and how long it may take.
struct Suite {
    name: &'static str,
    command: &'static str,
    limit: Duration,
}

/// `DEVICE` is igb's address. The driver's tests are run for each way to an IOMMU by itself.
const SUITES: &[Suite] = &[
    suite(
        "vfio_iommufd_setup_test",
        "vfio_iommufd_setup_test DEVICE",
        60,
    ),
    suite("vfio_pci_device_test", "vfio_pci_device_test DEVICE", 60),
    suite(
        "vfio_pci_device_init_perf_test",
        "vfio_pci_device_init_perf_test DEVICE",
        60,
    ),
    suite("vfio_dma_mapping_test", "vfio_dma_mapping_test DEVICE", 120),
    suite(
        "vfio_dma_mapping_mmio_test",
        "vfio_dma_mapping_mmio_test DEVICE",
        60,
    ),
    suite(
        "vfio_pci_sriov_uapi_test",
        "vfio_pci_sriov_uapi_test DEVICE",
        120,
    ),
    suite(
        "vfio_pci_driver_test/vfio_type1_iommu",
        "vfio_pci_driver_test -v vfio_type1_iommu DEVICE",
        180,
    ),
    suite(
        "vfio_pci_driver_test/vfio_type1v2_iommu",
        "vfio_pci_driver_test -v vfio_type1v2_iommu DEVICE",
        180,
    ),
    suite(
        "vfio_pci_driver_test/iommufd_compat_type1",
        "vfio_pci_driver_test -v iommufd_compat_type1 DEVICE",
        180,
    ),
    suite(
        "vfio_pci_driver_test/iommufd_compat_type1v2",
        "vfio_pci_driver_test -v iommufd_compat_type1v2 DEVICE",
        180,
    ),
    suite(
        "vfio_pci_driver_test/iommufd",
        "vfio_pci_driver_test -v iommufd DEVICE",
        180,
    ),
    // The other tests are about the mock driver's devices and domains.
    suite("iommufd/iommufd", "iommufd -f iommufd", 60),
];

const fn suite(name: &'static str, command: &'static str, seconds: u64) -> Suite {
    Suite {
        name,
        command,
        limit: Duration::from_secs(seconds),
    }
}

/// Runs them all. A program that fails or does not end is run once more, in an L1 of its own, and the line says so:
/// tests that wait for interrupts of igb have stalled on a busy machine, behind intel-iommu as well.
pub fn steps(report: &mut Report, files: &Files) -> Result<()> {
    let mut l1 = None;
    for suite in SUITES {
        let name = format!("peer.{}", suite.name);
        report.step(&name, |step| {
            once(suite, &mut l1, files, step).or_else(|first| {
                l1 = None;
                let again = once(suite, &mut l1, files, step);
                let again = again.map_err(|e| Error::new(format!("{first}\nonce more: {e}")))?;
                Ok(again.but(&format!("at the second try; the first: {first}")))
            })
        })?;
    }
    Ok(())
}

/// Runs one, in the L1 that is there or in a new one. Whatever it does, nothing stale is used.
fn once(suite: &Suite, l1: &mut Option<Machine>, files: &Files, step: &mut Step) -> Result<Seen> {
    let machine = match l1 {
        Some(machine) => machine,
        None => l1.insert(Machine::start(step, files, &HOW)?),
    };
    let seen = run(suite, machine, step)?;
    let counters = machine.counters()?;
    let [stale, queue] = ["stale-uses", "queue-errors"].map(|name| counters.get(name));
    if stale != 0 || queue != 0 {
        return fail(format!("{stale} stale uses, {queue} queue errors"));
    }
    Ok(seen)
}

fn run(suite: &Suite, machine: &mut Machine, step: &mut Step) -> Result<Seen> {
    let (program, _) = suite.command.split_once(' ').unwrap_or((suite.command, ""));
    let there = format!("[ -e /payload/selftests/{program} ]");
    if machine.l1.try_for(step, &there, suite.limit)?.0 != 0 {
        return Ok(Seen::skipped("this release has no such tests"));
    }
    machine.l1.run(step, &format!("give {NET}"))?;
    let command = suite.command.replace("DEVICE", &format!("0000:{NET}"));
    let command = format!("/payload/selftests/{command}");
    let (status, said) = machine.l1.try_for(step, &command, suite.limit)?;
    let Some(totals) = said
        .lines()
        .find_map(|line| line.strip_prefix("# Totals: "))
    else {
        return fail(format!("no totals, status {status}:\n{said}"));
    };
    let tally = Tally::parse(totals);
    if status != 0 || tally.passed == 0 || tally.failed != 0 {
        let bad: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("not ok"))
            .collect();
        return fail(format!("status {status}, {totals}\n{}", bad.join("\n")));
    }
    Ok(Seen::new(format!(
        "{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    ))
    .with("passed", tally.passed)
    .with("failed", tally.failed)
    .with("skipped", tally.skipped))
}

/// A test program's own count.
#[derive(Debug, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Of `pass:6 fail:0 xfail:0 xpass:0 skip:0 error:0`.
    fn parse(totals: &str) -> Self {
        let of = |name: &str| {
            let mut words = totals
                .split_whitespace()
                .filter_map(|word| word.split_once(':'));
            let found = words.find(|(word, _)| *word == name);
            found.and_then(|(_, count)| count.parse().ok()).unwrap_or(0)
        };
        Self {
            passed: of("pass") + of("xfail"),
            failed: of("fail") + of("xpass") + of("error"),
            skipped: of("skip"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_counted() {
        let tally = Tally::parse("pass:6 fail:1 xfail:2 xpass:0 skip:3 error:1");
        let wanted = Tally {
            passed: 8,
            failed: 2,
            skipped: 3,
        };
        assert_eq!(tally, wanted);
    }
}
