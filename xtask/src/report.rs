//! What a guest run showed: the reasons why it is not as it should be, and the report of it as text
//! and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::boot::{DISKS, NET};
use crate::outcome::{Entry, Guest, Outcome, Unit};
use crate::scenario::{Kernel, Mode, Remapping, Route, Scenario, Then, Verdict};
use crate::ui::{Error, Result, fail, indent};

const CAP_BITS: &[(u32, &str)] = &[
    (4, "RWBF"),
    (5, "PLMR"),
    (6, "PHMR"),
    (7, "CM"),
    (22, "ZLR"),
    (39, "PSI"),
    (54, "DWD"),
    (55, "DRD"),
    (56, "FS1GP"),
    (59, "PI"),
    (60, "FS5LP"),
    (61, "ECMDS"),
    (62, "ESIRTPS"),
    (63, "ESRTPS"),
];

const ECAP_BITS: &[(u32, &str)] = &[
    (0, "C"),
    (1, "QI"),
    (2, "DT"),
    (3, "IR"),
    (4, "EIM"),
    (6, "PT"),
    (7, "SC"),
    (25, "MTS"),
    (26, "NEST"),
    (29, "PRS"),
    (30, "ERS"),
    (31, "SRS"),
    (33, "NWFS"),
    (34, "EAFS"),
    (40, "PASID"),
    (41, "DIT"),
    (42, "PDS"),
    (43, "SMTS"),
    (44, "VCS"),
    (45, "SSADS"),
    (46, "SSTS"),
    (47, "FSTS"),
    (48, "SMPWCS"),
    (49, "RPS"),
    (51, "PMS"),
    (52, "ABTS"),
    (53, "RPRIVS"),
];

/// IRTA.EIME.
const EIME: u64 = 1 << 11;

/// ECAP.NEST.
const NEST: u32 = 26;

/// Names of invalidation descriptors by type (VT-d 6.5.2).
const DESCRIPTORS: [&str; 10] = [
    "",
    "context cache",
    "IOTLB",
    "device TLB",
    "interrupt entry cache",
    "wait",
    "PASID IOTLB",
    "PASID cache",
    "PASID device TLB",
    "page group response",
];

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
    for id in DISKS.iter().map(|d| d.id).chain([NET]) {
        let Some(device) = unit.device(id) else {
            reasons.push(format!("{id}: not behind the unit"));
            continue;
        };
        let (hwpt, errno) = (device.number("hwpt"), device.number("host-errno"));
        let wanted = match scenario.route {
            Route::Nested => "nested",
            Route::Parent => "parent",
            Route::Direct => "direct",
        };
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
    match scenario.route {
        Route::Nested if unit.stat("invalidate-calls") == 0 => {
            reasons.push("no invalidate call reached the host".to_owned());
        }
        Route::Direct => zero("hwpt-allocs", "HWPTs allocated without a host"),
        Route::Nested | Route::Parent => {}
    }
}

/// The report for people.
pub fn text(outcome: &Outcome) -> String {
    let mut out = String::new();
    write_text(&mut out, outcome).unwrap_or_default();
    out
}

fn write_text(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let guest = &outcome.guest;
    let kernel = guest.kernel.as_deref().unwrap_or("did not start");
    writeln!(
        out,
        "\nguest         Linux {kernel}, {}; used its devices in {:.0} s under TCG",
        match outcome.scenario.kernel {
            Kernel::Stock => "stock Debian",
            Kernel::Lab => "the lab kernel",
        },
        outcome.seconds
    )?;
    if !guest.earlier.is_empty() {
        writeln!(
            out,
            "              came up {} times",
            guest.earlier.len() + 1
        )?;
    }
    for crash in &outcome.crashes {
        writeln!(
            out,
            "              booted again, as its kernel had crashed by itself: {crash}"
        )?;
    }
    match &outcome.unit {
        Err(e) => writeln!(out, "unit          {e}")?,
        Ok(unit) => write_unit(out, outcome, unit)?,
    }
    for (disk, sum) in DISKS.iter().zip(&outcome.sums) {
        let reads: Vec<_> = guest.reads.iter().filter(|r| r.disk == disk.name).collect();
        let verdict = |got: &str| match got {
            got if got == *sum => "as expected".to_owned(),
            got if got.starts_with("error") => got.to_owned(),
            got => format!("WRONG, sha256 {}...", short(got)),
        };
        writeln!(
            out,
            "data          {}: 16 MiB by O_DIRECT, sha256 {}...",
            disk.id,
            short(sum)
        )?;
        for read in reads {
            writeln!(
                out,
                "              {:>5} blocks: {}",
                read.block,
                verdict(&read.got)
            )?;
        }
    }
    let lease = guest.lease.as_deref().unwrap_or("none");
    writeln!(
        out,
        "lease         {NET}: {}",
        lease.replacen(' ', " from ", 1)
    )?;
    for (subject, what) in &guest.nesting {
        writeln!(out, "nesting       {subject}: {what}")?;
    }
    if guest.done {
        let alive = if outcome.alive { "alive" } else { "silent" };
        writeln!(out, "guest now     {alive} after all this")?;
    }
    let reasons = reasons(outcome);
    if reasons.is_empty() {
        return writeln!(out, "\nPASSED");
    }
    writeln!(out, "\nFAILED")?;
    for reason in reasons {
        writeln!(out, "- {reason}")?;
    }
    Ok(())
}

fn write_unit(out: &mut String, outcome: &Outcome, unit: &Unit) -> std::fmt::Result {
    let (cap, ecap) = (unit.cap, unit.ecap);
    let mgaw = (cap >> 16 & 0x3f) + 1;
    writeln!(
        out,
        "CAP           {cap:#018x}  {} MGAW={mgaw}",
        names(cap, CAP_BITS)
    )?;
    writeln!(
        out,
        "ECAP          {ecap:#018x}  {}",
        names(ecap, ECAP_BITS)
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "{:<13} {:<16} {:<8} {:<8} {:<14} {:>5} {:>12} {:>11} {:>7} {:>6}  guest's domain",
        "device",
        "type",
        "source",
        "state",
        "PGTT",
        "HWPT",
        "translations",
        "cache hits",
        "faults",
        "stale"
    )?;
    for d in &unit.devices {
        let id = if d.id.is_empty() { "-" } else { &d.id };
        let hwpt = d.number("hwpt");
        let hwpt = if hwpt == 0 {
            "-".to_owned()
        } else {
            hwpt.to_string()
        };
        let group = outcome
            .guest
            .groups
            .iter()
            .find(|g| g[0].ends_with(&d.source_id));
        let errno = match d.number("host-errno") {
            0 => String::new(),
            e => format!("  refused: {}", errno_name(e)),
        };
        writeln!(
            out,
            "{id:<13} {:<16} {:<8} {:<8} {:<14} {hwpt:>5} {:>12} {:>11} {:>7} {:>6}  {}{errno}",
            d.kind,
            d.source_id,
            d.state,
            pgtt(d.number("pgtt")),
            d.number("translations"),
            d.number("cache-hits"),
            d.number("faults"),
            d.number("stale-uses"),
            group.map_or("-", |g| &g[1]),
        )?;
    }
    writeln!(out)?;
    let s = |name: &str| unit.stat(name);
    writeln!(
        out,
        "HWPTs         {} allocated, {} refused, {} destroyed; {} attachments, {} refused",
        s("hwpt-allocs"),
        s("hwpt-alloc-errors"),
        s("hwpt-destroys"),
        s("attaches"),
        s("attach-errors")
    )?;
    writeln!(
        out,
        "invalidation  {} calls with {} entries from {} guest descriptors; {} refused, {} entries dropped",
        s("invalidate-calls"),
        s("invalidate-entries"),
        s("invalidate-descriptors"),
        s("invalidate-errors"),
        s("invalidate-dropped")
    )?;
    writeln!(
        out,
        "queue         {} descriptors: {}",
        s("descriptors"),
        descriptors(unit)
    )?;
    writeln!(
        out,
        "translations  {}, {} from a cache, {} walks, {} faults, {} stale uses",
        s("translations"),
        s("cache-hits"),
        s("walks"),
        s("faults"),
        s("stale-uses")
    )?;
    writeln!(
        out,
        "interrupts    {} remapped by the unit, {} from its cache, {} refused; {} of the guest's are remapped",
        s("interrupts"),
        s("interrupt-cache-hits"),
        s("interrupt-faults"),
        outcome.guest.interrupts
    )
}

/// `12 wait, 3 PASID IOTLB`
fn descriptors(unit: &Unit) -> String {
    let Some(counts) = unit
        .stats
        .get("descriptors-by-type")
        .and_then(Value::as_array)
    else {
        return String::new();
    };
    let counts = counts
        .iter()
        .map(|c| c.as_u64().unwrap_or(0))
        .zip(DESCRIPTORS);
    let seen: Vec<_> = counts
        .filter(|(n, _)| *n != 0)
        .map(|(n, d)| format!("{n} {d}"))
        .collect();
    seen.join(", ")
}

/// The same as JSON.
pub fn json(outcome: &Outcome) -> Value {
    let guest = &outcome.guest;
    let reasons = reasons(outcome);
    let unit = match &outcome.unit {
        Ok(unit) => json!({
            "cap": unit.cap,
            "ecap": unit.ecap,
            "stats": unit.stats,
            "devices": unit.devices.iter().map(|d| d.all.clone()).collect::<Vec<_>>(),
        }),
        Err(e) => json!({ "error": e.to_string() }),
    };
    let disks = DISKS.iter().zip(&outcome.sums).map(|(disk, sum)| {
        let reads = guest.reads.iter().filter(|r| r.disk == disk.name);
        json!({
            "id": disk.id,
            "expected": sum,
            "reads": reads.map(|r| json!({ "block": r.block, "got": r.got })).collect::<Vec<_>>(),
        })
    });
    json!({
        "scenario": outcome.scenario.name,
        "earlier-crashes": outcome.crashes,
        "passed": reasons.is_empty(),
        "reasons": reasons,
        "seconds": outcome.seconds,
        "guest": {
            "kernel": guest.kernel,
            "units": guest.units,
            "groups": guest.groups,
            "lease": guest.lease,
            "interrupts-remapped": guest.interrupts,
            "nesting": guest.nesting.iter().map(|(s, w)| format!("{s} {w}")).collect::<Vec<_>>(),
            "came-up-before": guest.earlier.len(),
            "finished": guest.done,
            "alive-afterwards": outcome.alive,
        },
        "unit": unit,
        "disks": disks.collect::<Vec<_>>(),
    })
}

fn names(register: u64, bits: &[(u32, &str)]) -> String {
    let set: Vec<_> = bits
        .iter()
        .filter(|(b, _)| register >> b & 1 != 0)
        .map(|(_, n)| *n)
        .collect();
    set.join(" ")
}

fn pgtt(value: u64) -> String {
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

fn errno_name(errno: u64) -> String {
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

fn short(sum: &str) -> &str {
    sum.get(..16).unwrap_or(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Device;

    /// A run with nothing to complain of.
    fn good() -> Outcome {
        let sums = vec!["0a".repeat(32), "0b".repeat(32)];
        let mut facts =
            "kernel 7.3.4\ngroup 0000:00:01.0 DMA-FQ nvme\nlease 10.0.2.15 10.0.2.2\n".to_owned();
        for (disk, sum) in DISKS.iter().zip(&sums) {
            for block in ["4k", "64k", "1M"] {
                facts += &format!("disk {} {block} {sum}\n", disk.name);
            }
        }
        facts += "interrupts 9\ndone\nalive 1\n";
        let device = |id: &str| {
            Device::new(json!({
                "id": id, "type": "t", "source-id": "00:01.0", "state": "nested",
                "pgtt": 1, "hwpt": 10, "host-errno": 0, "translations": 5,
            }))
        };
        let stats = json!({ "invalidate-calls": 3, "interrupts": 4, "descriptors-by-type": [0, 1, 0, 0, 0, 2] });
        let Value::Object(stats) = stats else {
            unreachable!()
        };
        let devices = vec![device("nvme0"), device("blk0"), device(NET)];
        Outcome {
            scenario: Scenario::NESTED,
            seconds: 1.0,
            guest: Guest::parse(&facts),
            sums,
            unit: Ok(Unit {
                cap: 1 << 7,
                ecap: 1 << 43,
                irta: 0,
                stats,
                devices,
                entries: vec![("00:01.0".to_owned(), Entry::Scalable([0x41, 1, 0]))],
            }),
            earlier: Vec::new(),
            alive: true,
            console: String::new(),
            complaint: None,
            crashes: Vec::new(),
        }
    }

    fn unit(outcome: &mut Outcome) -> &mut Unit {
        outcome.unit.as_mut().unwrap()
    }

    /// The only complaint after `spoil`.
    fn complaint(spoil: impl FnOnce(&mut Outcome)) -> String {
        let mut outcome = good();
        spoil(&mut outcome);
        let reasons = reasons(&outcome);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(text(&outcome).contains("FAILED"));
        assert_eq!(json(&outcome)["passed"], false);
        reasons[0].clone()
    }

    #[test]
    fn a_good_run_passes() {
        let outcome = good();
        assert_eq!(reasons(&outcome), [""; 0]);
        let text = text(&outcome);
        assert!(text.contains("PASSED"), "{text}");
        assert!(
            text.contains("CAP           0x0000000000000080  CM"),
            "{text}"
        );
        assert!(text.contains("1 context cache, 2 wait"), "{text}");
        assert_eq!(json(&outcome)["passed"], true);
    }

    #[test]
    fn each_flaw_is_named() {
        let stat = |name: &'static str| {
            complaint(move |o| {
                unit(o).stats.insert(name.to_owned(), json!(7));
            })
        };
        assert_eq!(stat("faults"), "faults: 7");
        assert!(stat("stale-uses").starts_with("stale uses"));
        assert!(stat("invalidate-dropped").contains("dropped"));
        let no_call = complaint(|o| drop(unit(o).stats.remove("invalidate-calls")));
        assert_eq!(no_call, "no invalidate call reached the host");

        let device = |name: &'static str, value: Value| {
            complaint(move |o| {
                let mut all = unit(o).devices[1].all.clone();
                all[name] = value;
                unit(o).devices[1] = Device::new(all);
            })
        };
        assert_eq!(
            device("state", json!("parent")),
            "blk0: state is parent, not nested"
        );
        assert_eq!(
            device("pgtt", json!(4)),
            "blk0: PGTT is 4 pass-through, not 1 first-stage"
        );
        assert_eq!(device("hwpt", json!(0)), "blk0: no HWPT");
        assert_eq!(
            device("translations", json!(0)),
            "blk0: no DMA went through the unit"
        );
        let refused = device("host-errno", json!(12));
        assert_eq!(
            refused,
            "blk0: nested, the host refused it with ENOMEM (12)"
        );
        assert_eq!(
            complaint(|o| drop(unit(o).devices.remove(0))),
            "nvme0: not behind the unit"
        );

        let levels = complaint(|o| {
            o.scenario.mode = Mode::FirstStage(5);
            for device in ["nvme0", NET] {
                let n = unit(o).devices.iter().position(|d| d.id == device).unwrap();
                unit(o).devices[n].source_id = "00:02.0".to_owned();
            }
            let five = Entry::Scalable([0x41, 1, 1 << 2]);
            unit(o).entries.push(("00:02.0".to_owned(), five));
        });
        assert!(levels.starts_with("blk0: its entry is 0x0"), "{levels}");
        assert_eq!(stat("interrupt-faults"), "interrupt requests refused: 7");
        let none = complaint(|o| drop(unit(o).stats.remove("interrupts")));
        assert_eq!(none, "the unit remapped no interrupt");
        let none = complaint(|o| o.guest.interrupts = 0);
        assert_eq!(none, "no interrupt is remapped");
        let off = complaint(|o| o.scenario.remapping = Remapping::Off);
        assert_eq!(off, "9 interrupts are remapped");
        let narrow = complaint(|o| o.scenario.remapping = Remapping::Wide);
        assert_eq!(narrow, "IRTA is 0x0");

        let wrong = complaint(|o| o.guest.reads[4].got = "0c".repeat(32));
        assert!(
            wrong.starts_with("blk0: read in 64k blocks: got 0c0c"),
            "{wrong}"
        );
        let short = complaint(|o| drop(o.guest.reads.remove(0)));
        assert_eq!(short, "nvme0: 2 of 3 reads came to an end");
        assert_eq!(complaint(|o| o.guest.lease = None), "net0: no DHCP lease");
        assert_eq!(
            complaint(|o| o.guest.done = false),
            "the guest did not finish in time"
        );
        let earlier = complaint(|o| {
            let mut unit = good().unit.unwrap();
            unit.stats.insert("faults".to_owned(), json!(1));
            o.earlier.push(Ok(unit));
        });
        assert_eq!(earlier, "faults: 1");
        let gone = complaint(|o| o.unit = Err(Error::new("QEMU has ended")));
        assert_eq!(gone, "the unit's state is unknown: QEMU has ended");
    }

    #[test]
    fn without_a_host_an_hwpt_is_a_flaw() {
        let mut outcome = good();
        outcome.scenario.route = Route::Direct;
        let reasons = reasons(&outcome);
        assert!(
            reasons.contains(&"nvme0: state is nested, not direct".to_owned()),
            "{reasons:?}"
        );
        assert!(
            reasons.contains(&"net0: HWPT 10 without a host".to_owned()),
            "{reasons:?}"
        );
    }
}
