//! What must go wrong when something is broken: without these a lab in which all passes proves little.

use std::time::Duration;

use super::guest::step_of;
use super::host::{fact, numbers};
use super::machine::{DISK, Machine, THIRD, THIRD_IN_L2};
use super::report::{Report, Seen};
use crate::ui::{Result, Step, fail};

/// Reason of a page that the second stage does not map, in scalable mode (VT-d 7.1.3, SSS.2).
const SECOND_STAGE_DENIES: &str = "fault reason 0x79";

const TRY: Duration = Duration::from_secs(20);

/// The second stage's entry of a page of L2's is taken away and given back, behind the kernel's back.
pub fn second_stage_page(report: &mut Report, machine: &mut Machine) -> Result<()> {
    step_of(
        report,
        machine,
        "control.second-stage-page",
        |machine, step| {
            if let Some(why) = machine.no_iommufd_in_l2 {
                return Ok(Seen::skipped(why));
            }
            let command = format!(
                "give {THIRD_IN_L2}; rm -f /tmp/reach*; : >/tmp/reached; \
             reach 0000:{THIRD_IN_L2} $(vfio {THIRD_IN_L2}) >/tmp/reached 2>&1 &"
            );
            machine.l2.run(step, &command)?;
            let mut page = 0;
            machine.until(step, "reach has a page", TRY, |machine, step| {
                let said = machine.l2.run(step, "cat /tmp/reached")?;
                page = numbers(&said, "page").map_or(0, |numbers| numbers[0]);
                Ok(page != 0)
            })?;
            attempt(machine, step, 1, "ok")?;

            machine.l1.run(step, "dmesg -c >/dev/null")?;
            let faults = machine.counters()?.get("faults");
            let take = format!("second_stage 0000:{THIRD} {page:#x}");
            let taken = machine.l1.run(step, &take)?;
            attempt(machine, step, 2, "refused")?;
            let refused = machine.counters()?.get("faults") - faults;
            machine.refused += refused;
            let told = machine
                .l1
                .run(step, "dmesg | grep 'DMAR.*fault reason'; true")?;
            machine
                .l1
                .run(step, &format!("{take} {}", fact(&taken, "was")?))?;
            if refused != 2 || !told.contains(SECOND_STAGE_DENIES) || !told.contains(THIRD) {
                return fail(format!(
                    "L0 counted {refused} faults, not 2; L1 was to hear of {THIRD}, \
                 {SECOND_STAGE_DENIES}: {told}"
                ));
            }

            attempt(machine, step, 3, "ok")?;
            let alive = machine.l2.run(
                step,
                "uname -n && disk read /dev/nvme0n1 0 1048576 1 | wc -c",
            )?;
            if !alive.ends_with("1048576") {
                return fail(format!("L2 is not what it was: {alive}"));
            }
            let told = told.lines().next().unwrap_or("").trim();
            Ok(Seen::new(format!(
                "2 DMAs refused, L2 goes on, DMA right when the page is back\nL1 was told: {told}"
            ))
            .with("faults", refused))
        },
    )
}

/// A try of `reach` in L2.
fn attempt(machine: &mut Machine, step: &mut Step, n: u32, wanted: &str) -> Result<()> {
    machine.l2.run(step, &format!(": >/tmp/reach.{n}"))?;
    let subject = format!("try {n}");
    machine.until(step, &subject, TRY, |machine, step| {
        let said = machine.l2.run(step, "cat /tmp/reached")?;
        match fact(&said, &subject) {
            Ok(came) if came == wanted => Ok(true),
            Ok(came) => fail(format!("try {n} came out {came}, not {wanted}")),
            Err(_) => Ok(false),
        }
    })
}

/// L2's unit drops what L2 invalidates. L2's drivers may not get along with that, but a program that maps and
/// unmaps must see DMA reach what it has unmapped, L0's oracle must see it, and the judgement of L0's unit
/// must be that this is a failure.
pub fn dropped_invalidations(
    report: &mut Report,
    machine: &mut Machine,
    judge: impl FnOnce(&mut Machine) -> Result<Seen>,
) -> Result<()> {
    step_of(
        report,
        machine,
        "control.dropped-invalidations",
        |machine, step| {
            if let Some(why) = machine.no_iommufd_in_l2 {
                return Ok(Seen::skipped(why));
            }
            machine.start_l2(step, "x-inject=drop-invalidations")?;
            machine.boot_l2(step)?;
            let storm =
                format!("give {THIRD_IN_L2} && storm 0000:{THIRD_IN_L2} $(vfio {THIRD_IN_L2}) 3");
            let said = machine.l2.run_for(step, &storm, TRY)?;
            let [_, _, dmas, _, wrong] = numbers(&said, "storm")?[..] else {
                return fail(said);
            };
            let stale = machine.counters()?.get("stale-uses");
            machine.stop_l2(step)?;
            if stale == 0 || wrong == 0 || judge(machine).is_ok() {
                return fail(format!("{stale} stale uses; {said}"));
            }
            Ok(Seen::new(format!(
            "{stale} stale uses seen by L0, and judged a failure; L2 saw {wrong} of {dmas} DMAs go wrong"
        ))
        .with("stale-uses", stale)
        .with("wrong", wrong))
        },
    )
}

/// On a unit without nested translation (the machine has none) L2's unit refuses the device.
pub fn no_nesting(report: &mut Report, machine: &mut Machine) -> Result<()> {
    report.step("control.no-nesting", |step| {
        machine.l1.run(step, &format!("give {DISK}"))?;
        let command = format!(
            "emulator -accel kvm -S -device nested-vtd,host=iommufd \
             -device vfio-pci,host=0000:{DISK},iommufd=iommufd0"
        );
        let (status, _) = machine.l1.try_for(step, &command, TRY)?;
        let said = machine.l1.run(step, "cat /tmp/emulator")?;
        if status == 0 || !said.contains("no nested translation (ECAP.SMTS and ECAP.NEST") {
            return fail(format!("it ended with {status} and said: {said}"));
        }
        let named = said.lines().find(|line| line.contains("ECAP.NEST"));
        Ok(Seen::new(format!(
            "L2's emulator ended with {status}: {}",
            named.unwrap_or("").trim()
        )))
    })
}
