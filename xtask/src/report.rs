//! What a guest run showed: the reasons why it is not as it should be, and the report of it as text
//! and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::boot::{DISKS, NET, Outcome, Route, Unit};
use crate::ui::indent;

/// PGTT values (VT-d 9.6).
const FIRST_STAGE: u64 = 1;

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
    match &outcome.unit {
        Ok(unit) => unit_reasons(unit, outcome.route, &mut reasons),
        Err(e) => reasons.push(format!("the unit's state is unknown: {e}")),
    }
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
    reasons
}

fn unit_reasons(unit: &Unit, route: Route, reasons: &mut Vec<String>) {
    for id in DISKS.iter().map(|d| d.id).chain([NET]) {
        let Some(device) = unit.device(id) else {
            reasons.push(format!("{id}: not behind the unit"));
            continue;
        };
        let (hwpt, errno) = (device.number("hwpt"), device.number("host-errno"));
        let wanted = if route == Route::Nested {
            "nested"
        } else {
            "direct"
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
        if device.number("pgtt") != FIRST_STAGE {
            reasons.push(format!(
                "{id}: PGTT is {}, not first-stage",
                pgtt(device.number("pgtt"))
            ));
        }
        match route {
            Route::Nested if hwpt == 0 && errno == 0 => reasons.push(format!("{id}: no HWPT")),
            Route::Direct if hwpt != 0 => reasons.push(format!("{id}: HWPT {hwpt} without a host")),
            _ => {}
        }
        if device.number("translations") == 0 {
            reasons.push(format!("{id}: no DMA went through the unit"));
        }
    }
    let mut zero = |name: &str, what: &str| {
        if unit.stat(name) != 0 {
            reasons.push(format!("{what}: {}", unit.stat(name)));
        }
    };
    zero("faults", "faults");
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
    match route {
        Route::Nested if unit.stat("invalidate-calls") == 0 => {
            reasons.push("no invalidate call reached the host".to_owned());
        }
        Route::Direct => zero("hwpt-allocs", "HWPTs allocated without a host"),
        Route::Nested => {}
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
        "\nguest         Linux {kernel}, stock Debian; used its devices in {:.0} s under TCG",
        outcome.seconds
    )?;
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
        "scenario": outcome.scenario,
        "earlier-crashes": outcome.crashes,
        "passed": reasons.is_empty(),
        "reasons": reasons,
        "seconds": outcome.seconds,
        "guest": {
            "kernel": guest.kernel,
            "units": guest.units,
            "groups": guest.groups,
            "lease": guest.lease,
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
        FIRST_STAGE => "first-stage",
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
    use crate::boot::{Device, Guest};
    use crate::ui::Error;

    /// A run with nothing to complain of.
    fn good() -> Outcome {
        let sums = vec!["0a".repeat(32), "0b".repeat(32)];
        let mut facts = "kernel 7.3.4\nlease 10.0.2.15 10.0.2.2\n".to_owned();
        for (disk, sum) in DISKS.iter().zip(&sums) {
            for block in ["4k", "64k", "1M"] {
                facts += &format!("disk {} {block} {sum}\n", disk.name);
            }
        }
        facts += "done\nalive 1\n";
        let device = |id: &str| {
            Device::new(json!({
                "id": id, "type": "t", "source-id": "00:01.0", "state": "nested",
                "pgtt": 1, "hwpt": 10, "host-errno": 0, "translations": 5,
            }))
        };
        let stats = json!({ "invalidate-calls": 3, "descriptors-by-type": [0, 1, 0, 0, 0, 2] });
        let Value::Object(stats) = stats else {
            unreachable!()
        };
        let devices = vec![device("nvme0"), device("blk0"), device(NET)];
        Outcome {
            scenario: "nested",
            route: Route::Nested,
            seconds: 1.0,
            guest: Guest::parse(&facts),
            sums,
            unit: Ok(Unit {
                cap: 1 << 7,
                ecap: 1 << 43,
                stats,
                devices,
            }),
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
            "blk0: PGTT is 4 pass-through, not first-stage"
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
        let gone = complaint(|o| o.unit = Err(Error::new("QEMU has ended")));
        assert_eq!(gone, "the unit's state is unknown: QEMU has ended");
    }

    #[test]
    fn without_a_host_an_hwpt_is_a_flaw() {
        let mut outcome = good();
        outcome.route = Route::Direct;
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
