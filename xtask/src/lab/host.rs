//! What L1 is to show: that a Linux on our unit is a host that can nest.

use std::time::Duration;

use serde_json::Value;

use super::machine::{EDU, Machine, OTHER, THIRD};
use super::report::{Report, Seen};
use crate::conformance;
use crate::outcome::Entry;
use crate::ui::{Context, Error, Result, Step, fail};
use crate::workspace::Workspace;

/// PGTT of PASID-table entries (VT-d 9.6).
pub const SECOND_STAGE: u64 = 2;
pub const NESTED: u64 = 3;

/// What a program says about `subject`, one fact a line.
pub fn fact<'a>(said: &'a str, subject: &str) -> Result<&'a str> {
    let mut lines = said.lines();
    let found = lines.find_map(|line| line.strip_prefix(subject)?.strip_prefix(' '));
    found.ok_or_else(|| Error::new(format!("no word of `{subject}` in:\n{said}")))
}

/// The fact's numbers, decimal or hexadecimal.
pub fn numbers(said: &str, subject: &str) -> Result<Vec<u64>> {
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    };
    let fact = fact(said, subject)?;
    let numbers: Option<Vec<_>> = fact.split_whitespace().map(number).collect();
    numbers.ok_or_else(|| Error::new(format!("{subject}: not all of this are numbers: {fact}")))
}

/// Fails unless the program says `ok` about each.
pub fn all_ok(said: &str, subjects: &[&str]) -> Result<()> {
    for subject in subjects {
        if fact(said, subject)? != "ok" {
            return fail(format!("not all is ok:\n{said}"));
        }
    }
    Ok(())
}

/// PGTT that L1's driver has for a device's requests without PASID.
pub fn pgtt(machine: &mut Machine, step: &mut Step, device: &str) -> Result<u64> {
    let said = machine.l1.run(step, &format!("pgtt {device}"))?;
    match numbers(&said, "0")?.as_slice() {
        [pgtt] => Ok(*pgtt),
        _ => fail(format!("{device}: not one PASID-table entry: {said}")),
    }
}

/// `newest`: the kernel is the one that docs/conformance.md is about.
pub fn steps(
    report: &mut Report,
    machine: &mut Machine,
    workspace: &Workspace,
    newest: bool,
) -> Result<()> {
    report.step("l1.capabilities", |step| capabilities(machine, step))?;
    report.step("l1.nesting", |step| nesting(machine, step))?;
    report.step("l1.pasids", |step| pasids(machine, step))?;
    report.step("l1.conformance", |step| {
        conformance(machine, step, workspace, newest)
    })
}

fn capabilities(machine: &mut Machine, step: &mut Step) -> Result<Seen> {
    let release = machine.l1.run(step, "uname -r")?;
    let said = nesting_program(machine, step)?;
    let [kind, cap, ecap] = numbers(&said, "hw-info")?[..] else {
        return fail(said);
    };
    let mut register = |name| -> Result<u64> {
        let value = machine.l0.get("/machine/peripheral/vtd0", name)?;
        Ok(value.as_u64().unwrap_or(0))
    };
    let ours = (register("cap")?, register("ecap")?);
    if (kind, (cap, ecap)) != (1, ours) {
        return fail(format!(
            "GET_HW_INFO says type {kind}, CAP {cap:#x}, ECAP {ecap:#x}; the unit's are {:#x}, {:#x}",
            ours.0, ours.1
        ));
    }
    Ok(Seen::new(format!(
        "Linux {release}; GET_HW_INFO has the unit's CAP {cap:#x} and ECAP {ecap:#x}"
    ))
    .with("kernel", release)
    .with("cap", cap)
    .with("ecap", ecap))
}

fn nesting_program(machine: &mut Machine, step: &mut Step) -> Result<String> {
    let command = format!("give {THIRD} && nesting 0000:{THIRD} $(vfio {THIRD})");
    machine.l1.run(step, &command)
}

fn nesting(machine: &mut Machine, step: &mut Step) -> Result<Seen> {
    let before = machine.counters()?;
    let said = nesting_program(machine, step)?;
    all_ok(
        &said,
        &["parent", "dma parent", "nested", "dma nested", "remapped"],
    )?;
    for (stage, wanted) in [("parent", SECOND_STAGE), ("nested", NESTED)] {
        let text = fact(&said, &format!("entry {stage}"))?;
        if Entry::parse(text).and_then(|entry| entry.pgtt()) != Some(wanted) {
            return fail(format!("{stage}: PGTT is to be {wanted} in {text}"));
        }
    }
    // Accessed; accessed and dirty.
    let bits = fact(&said, "bits")?;
    let set: Vec<_> = bits
        .split_whitespace()
        .filter_map(|word| u64::from_str_radix(word, 16).ok())
        .map(|entry| entry & 0x60)
        .collect();
    let updates = machine.counters()?.since(&before, "table-updates");
    if set != [0x20, 0x60] || updates == 0 {
        return fail(format!(
            "accessed and dirty bits: entries {bits}, {updates} updates counted"
        ));
    }
    Ok(Seen::new(format!(
        "parent and nested HWPT: PGTT 2, 3; DMA right, also after an invalidation; A and D set \
         in {updates} entries"
    ))
    .with("table-updates", updates))
}

fn pasids(machine: &mut Machine, step: &mut Step) -> Result<Seen> {
    let command = format!("give {OTHER} && pasid 0000:{OTHER} $(vfio {OTHER}) 2");
    let said = machine.l1.run(step, &command)?;
    if let Ok(why) = fact(&said, "unsupported") {
        return Ok(Seen::skipped(format!("PASIDs cannot be attached: {why}")));
    }
    all_ok(&said, &["attached", "replaced", "invalidated", "detached"])?;
    let entries = numbers(&said, "entries")?;
    let [steps, dmas, refused, wrong] = numbers(&said, "churn")?[..] else {
        return fail(said);
    };
    machine.refused += refused;
    let faults = machine.counters()?.get("faults");
    if entries != [6] || wrong != 0 || faults != machine.refused {
        return fail(format!("{said}\nthe unit refused {faults}"));
    }
    Ok(Seen::new(format!(
        "6 PASIDs with a first-stage table each, PGTT 3; {steps} attachments, detachments and \
         changes: {dmas} DMAs right, {refused} of them refused as they should"
    ))
    .with("steps", steps)
    .with("dmas", dmas)
    .with("refused", refused))
}

/// `host_conformance` on the kernel as it is in the lab. Of the rules that depend on the kind of unit
/// docs/conformance.md has all.
fn conformance(
    machine: &mut Machine,
    step: &mut Step,
    workspace: &Workspace,
    newest: bool,
) -> Result<Seen> {
    // A reset at each opening takes its time.
    let command = format!(
        "echo >/sys/bus/pci/devices/0000:{OTHER}/reset_method; give {OTHER} {EDU} && \
         /payload/host_conformance --iommu /dev/iommu \
         --device $(vfio {OTHER}) --second-device $(vfio {EDU})"
    );
    let limit = Duration::from_secs(90);
    let (_, said) = machine.l1.try_for(step, &command, limit)?;
    // Many a rule is about DMA that is refused.
    machine.refused = machine.counters()?.get("faults");
    let tally = conformance::judge_one(&said, workspace, newest).context("host_conformance")?;
    let names = |rules: &[(String, String)]| {
        let names: Vec<_> = rules
            .iter()
            .map(|(name, why)| format!("{name} ({why})"))
            .collect();
        names.join(", ")
    };
    Ok(Seen::new(format!(
        "{} rules passed, 0 failed, {} skipped\nskipped: {}",
        tally.passed,
        tally.skipped.len(),
        names(&tally.skipped)
    ))
    .with("passed", tally.passed)
    .with("failed", 0)
    .with(
        "skipped",
        Value::from_iter(
            tally
                .skipped
                .iter()
                .map(|(name, why)| format!("{name}: {why}")),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found() {
        let said = "dma parent ok\ndma ok\nhw-info 1 0x10 0x20\nok no\n";
        assert_eq!(fact(said, "dma").unwrap(), "parent ok");
        assert_eq!(numbers(said, "hw-info").unwrap(), [1, 16, 32]);
        assert!(numbers(said, "dma").is_err());
        assert!(fact(said, "nothing").is_err());
        assert!(all_ok(said, &["dma parent"]).is_ok());
        assert!(all_ok(said, &["dma parent", "ok"]).is_err());
    }
}
