//! Is a guest run as it should be, and if not, why not?

use crate::boot::{DISKS, NET};
use crate::outcome::{Entry, Guest, Outcome, Unit};
use crate::scenario::{Mode, Remapping, Route, Scenario, Then, Verdict};
use crate::ui::{Error, Result, fail, indent};

/// IRTA.EIME.
const EIME: u64 = 1 << 11;

/// ECAP.NEST.
const NEST: u32 = 26;

/// Is the outcome what its scenario is to show?
pub fn judge(outcome: &Outcome) -> Result<()> {
    match outcome.scenario.verdict {
        Verdict::Works if reasons(outcome).is_empty() => Ok(()),
        Verdict::Works => fail("the run is not as it should be"),
        Verdict::StaleUses => finds_stale_uses(outcome),
        Verdict::Blocked => finds_blocked_devices(outcome),
    }
}

fn finds_stale_uses(outcome: &Outcome) -> Result<()> {
    let unit = known(outcome)?;
    let named = reasons(outcome).iter().any(|r| r.starts_with("stale uses"));
    match (unit.stat("invalidate-dropped"), unit.stat("stale-uses")) {
        (0, _) => fail("no invalidation was dropped"),
        (_, 0) => fail("no stale use was seen"),
        _ if !named => fail("the reasons do not name the stale uses"),
        _ => Ok(()),
    }
}

fn finds_blocked_devices(outcome: &Outcome) -> Result<()> {
    let unit = known(outcome)?;
    let reasons = reasons(outcome);
    for id in DISKS.iter().map(|d| d.id).chain([NET]) {
        let Some(device) = unit.device(id) else {
            return fail(format!("{id} is missing"));
        };
        if device.state != "blocked" || device.number("host-errno") == 0 {
            return fail(format!("{id} is {}, not blocked by the host", device.state));
        }
        if !reasons
            .iter()
            .any(|r| r.starts_with(&format!("{id}: blocked")))
        {
            return fail(format!("the reasons do not name {id} as blocked"));
        }
    }
    if unit.stat("hwpt-allocs") != 0 {
        return fail("an HWPT was allocated");
    }
    if outcome.alive {
        Ok(())
    } else {
        fail("the guest is not alive afterwards")
    }
}

fn known(outcome: &Outcome) -> Result<&Unit> {
    let unit = outcome.unit.as_ref();
    unit.map_err(|e| Error::new(e.to_string()))
}

/// Everything that is not as it should be, a line each; none if all is well.
pub fn reasons(outcome: &Outcome) -> Vec<String> {
    let mut reasons = Vec::new();
    let guest = &outcome.guest;
    if guest.kernel.is_none() {
        let console = indent(&outcome.console);
        reasons.push(format!("the guest never came up; its console:\n{console}"));
    } else if !guest.done {
        reasons.push("the guest did not finish in time".to_owned());
    }
    if let Some(complaint) = &outcome.complaint {
        reasons.push(format!("its kernel complained: {complaint}"));
    }
    if !outcome.came_up_as_often_as_it_should() {
        reasons.push(format!(
            "the guest came up {} times, not {}",
            guest.earlier.len() + 1,
            outcome.scenario.then.boots()
        ));
    }
    for unit in outcome.earlier.iter().chain([&outcome.unit]) {
        match unit {
            Ok(unit) => unit_reasons(unit, &outcome.scenario, &mut reasons),
            Err(e) => reasons.push(format!("the unit's state is unknown: {e}")),
        }
    }
    for guest in guest.earlier.iter().chain([guest]) {
        guest_reasons(guest, outcome, &mut reasons);
    }
    if outcome.scenario.then == Then::Nesting {
        nesting_reasons(guest, &mut reasons);
    }
    reasons
}

/// What one kernel made of its devices.
fn guest_reasons(guest: &Guest, outcome: &Outcome, reasons: &mut Vec<String>) {
    for (disk, sum) in DISKS.iter().zip(&outcome.sums) {
        let reads: Vec<_> = guest.reads.iter().filter(|r| r.disk == disk.name).collect();
        for read in &reads {
            if read.got != *sum {
                reasons.push(format!(
                    "{}: read in {} blocks: got {}, expected {sum}",
                    disk.id, read.block, read.got
                ));
            }
        }
        if reads.len() < 3 {
            reasons.push(format!(
                "{}: {} of 3 reads came to an end",
                disk.id,
                reads.len()
            ));
        }
    }
    match &guest.lease {
        Some(lease) if !lease.starts_with("error") => {}
        Some(error) => reasons.push(format!("{NET}: no DHCP lease: {error}")),
        None => reasons.push(format!("{NET}: no DHCP lease")),
    }
    let Scenario {
        domain, remapping, ..
    } = outcome.scenario;
    if let Some(group) = guest.groups.iter().find(|g| g[1] != domain) {
        reasons.push(format!(
            "{} is in a domain of type {}, not {domain}",
            group[0], group[1]
        ));
    }
    match (guest.interrupts, remapping) {
        (0, Remapping::Off) => {}
        (n, Remapping::Off) => reasons.push(format!("{n} interrupts are remapped")),
        (0, _) if guest.done => reasons.push("no interrupt is remapped".to_owned()),
        _ => {}
    }
}

/// What a guest that acts as a host of nested guests is to have seen: the facts of
/// tests/guest/nesting.c that must be as they are here, and for the others what is wrong.
fn nesting_reasons(guest: &Guest, reasons: &mut Vec<String>) {
    for (subject, what) in &guest.nesting {
        if subject == "error" {
            reasons.push(format!("nesting: {what}"));
        }
    }
    let ecap = guest.nested("hw-info").and_then(|info| {
        let hex = info.rsplit(' ').next()?.strip_prefix("0x")?;
        u64::from_str_radix(hex, 16).ok()
    });
    match ecap {
        None => reasons.push("nesting: no GET_HW_INFO".to_owned()),
        Some(ecap) if ecap >> NEST & 1 == 0 => {
            reasons.push(format!(
                "nesting: GET_HW_INFO shows ECAP {ecap:#x} without NEST"
            ));
        }
        Some(_) => {}
    }
    for subject in ["parent", "nested", "remapped"] {
        match guest.nested(subject) {
            Some("ok") => {}
            said => reasons.push(format!("nesting: {subject}: {}", said.unwrap_or("nothing"))),
        }
    }
    for (stage, wanted) in [("parent", 2), ("nested", 3)] {
        match of_stage(guest, "entry", stage).and_then(Entry::parse) {
            None => reasons.push(format!("nesting: no PASID-table entry at stage {stage}")),
            Some(entry) if entry.pgtt() != Some(wanted) => {
                reasons.push(format!(
                    "nesting: the PASID-table entry at stage {stage} is {entry}, not of PGTT {wanted}"
                ));
            }
            Some(_) => {}
        }
        match of_stage(guest, "dma", stage) {
            Some("ok") => {}
            said => reasons.push(format!(
                "nesting: DMA at stage {stage}: {}",
                said.unwrap_or("none")
            )),
        }
    }
    // The page read has its accessed bit, the page written its dirty bit as well.
    let bits: Vec<_> = guest
        .nested("bits")
        .unwrap_or("")
        .split(' ')
        .filter_map(|hex| u64::from_str_radix(hex, 16).ok())
        .map(|entry| entry >> 5 & 3)
        .collect();
    if bits != [1, 3] {
        reasons.push(format!(
            "nesting: accessed and dirty bits of the pages read and written are {bits:?}, not [1, 3]"
        ));
    }
}

/// What the guest said of `subject` at `stage`.
fn of_stage<'a>(guest: &'a Guest, subject: &str, stage: &str) -> Option<&'a str> {
    let said = guest.nesting.iter().filter(|(word, _)| word == subject);
    said.filter_map(|(_, what)| what.split_once(' '))
        .find(|(of, _)| *of == stage)
        .map(|(_, what)| what)
}

fn unit_reasons(unit: &Unit, scenario: &Scenario, reasons: &mut Vec<String>) {
    let ids: Vec<_> = DISKS.iter().map(|d| d.id).chain([NET]).collect();
    device_reasons(unit, scenario, &ids, reasons);
    counter_reasons(unit, scenario, reasons);
}

/// What is wrong with how the devices `ids` are handled.
pub fn device_reasons(unit: &Unit, scenario: &Scenario, ids: &[&str], reasons: &mut Vec<String>) {
    for id in ids {
        let Some(device) = unit.device(id) else {
            reasons.push(format!("{id}: not behind the unit"));
            continue;
        };
        let (hwpt, errno) = (device.number("hwpt"), device.number("host-errno"));
        let wanted = scenario.route.state();
        if errno != 0 {
            let name = errno_name(errno);
            reasons.push(format!(
                "{id}: {}, the host refused it with {name}",
                device.state
            ));
        } else if device.state != wanted {
            reasons.push(format!("{id}: state is {}, not {wanted}", device.state));
        }
        let wanted = scenario.mode.pgtt();
        if device.number("pgtt") != wanted {
            let (is, wanted) = (pgtt(device.number("pgtt")), pgtt(wanted));
            reasons.push(format!("{id}: PGTT is {is}, not {wanted}"));
        }
        let entry = unit.entry(&device.source_id);
        let as_wanted = match scenario.mode {
            Mode::Legacy => entry == Some(&Entry::Legacy),
            Mode::FirstStage(levels) => {
                entry.is_some_and(|e| e.pgtt() == Some(1) && e.first_stage_levels() == Some(levels))
            }
            mode => entry.is_some_and(|e| e.pgtt() == Some(mode.pgtt())),
        };
        if !as_wanted {
            let is = entry.map_or("none".to_owned(), Entry::to_string);
            reasons.push(format!(
                "{id}: its entry is {is}, not of {:?}",
                scenario.mode
            ));
        }
        match scenario.route {
            Route::Nested | Route::Parent if hwpt == 0 && errno == 0 => {
                reasons.push(format!("{id}: no HWPT"));
            }
            Route::Direct if hwpt != 0 => reasons.push(format!("{id}: HWPT {hwpt} without a host")),
            _ => {}
        }
        if device.number("translations") == 0 {
            reasons.push(format!("{id}: no DMA went through the unit"));
        }
    }
    if scenario.remapping != Remapping::Off && unit.stat("interrupts") == 0 {
        reasons.push("the unit remapped no interrupt".to_owned());
    }
    if (scenario.remapping == Remapping::Wide) != (unit.irta & EIME != 0) {
        reasons.push(format!("IRTA is {:#x}", unit.irta));
    }
    if scenario.route == Route::Nested && unit.stat("invalidate-calls") == 0 {
        reasons.push("no invalidate call reached the host".to_owned());
    }
}

/// What the unit has counted that it should not, whenever it is asked.
pub fn counter_reasons(unit: &Unit, scenario: &Scenario, reasons: &mut Vec<String>) {
    let mut zero = |name: &str, what: &str| {
        if unit.stat(name) != 0 {
            reasons.push(format!("{what}: {}", unit.stat(name)));
        }
    };
    zero("faults", "faults");
    zero("interrupt-faults", "interrupt requests refused");
    zero(
        "stale-uses",
        "stale uses (cached translations used after the tables had changed)",
    );
    zero("queue-errors", "invalidation queue errors");
    zero(
        "invalidate-errors",
        "invalidate calls that the host refused",
    );
    zero(
        "invalidate-dropped",
        "invalidate entries dropped on their way to the host",
    );
    zero(
        "hwpt-alloc-errors",
        "HWPT allocations that the host refused",
    );
    zero("memory-errors", "accesses outside of guest RAM");
    if scenario.route == Route::Direct {
        zero("hwpt-allocs", "HWPTs allocated without a host");
    }
}

pub fn pgtt(value: u64) -> String {
    let name = match value {
        0 => return "-".to_owned(),
        1 => "first-stage",
        2 => "second-stage",
        3 => "nested",
        4 => "pass-through",
        _ => "reserved",
    };
    format!("{value} {name}")
}

pub fn errno_name(errno: u64) -> String {
    let name = match errno {
        2 => "ENOENT",
        12 => "ENOMEM",
        16 => "EBUSY",
        22 => "EINVAL",
        95 => "EOPNOTSUPP",
        _ => return format!("errno {errno}"),
    };
    format!("{name} ({errno})")
}

#[cfg(test)]
mod tests;
