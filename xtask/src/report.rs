//! The report of a guest run, as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::boot::{DISKS, NET};
use crate::outcome::{Outcome, Unit};
use crate::scenario::Kernel;
use crate::verdict::{errno_name, pgtt, reasons};

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

fn short(sum: &str) -> &str {
    sum.get(..16).unwrap_or(sum)
}
