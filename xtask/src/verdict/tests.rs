//! Each flaw of a run is found, and nothing else.

use serde_json::{Value, json};

use super::*;
use crate::outcome::Device;
use crate::report::{json as as_json, text};

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
    assert_eq!(as_json(&outcome)["passed"], false);
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
    assert_eq!(as_json(&outcome)["passed"], true);
}

#[test]
fn each_flaw_is_named() {
    let stat = |name: &'static str| {
        complaint(move |o| {
            unit(o).stats.insert(name.to_owned(), json!(7));
        })
    };
    let bug = complaint(|o| o.complaint = Some("BUG: Bad page map".to_owned()));
    assert_eq!(bug, "its kernel complained: BUG: Bad page map");
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

const NESTING: &str = "nesting hw-info 1 0xc1d2078c222f0686 0x1c80004f00f4b\n\
    nesting parent ok\nnesting entry parent 0x0:0x800006:0x2dd8089\nnesting dma parent ok\n\
    nesting nested ok\nnesting entry nested 0x1000000:0x800006:0x2dd80c9\nnesting dma nested ok\n\
    nesting bits 1010027 1030067\nnesting remapped ok\nnesting end\n";

/// What is wrong with NESTING when `from` is `to` in it.
fn nesting(from: &str, to: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    assert!(NESTING.contains(from));
    nesting_reasons(&Guest::parse(&NESTING.replace(from, to)), &mut reasons);
    reasons
}

#[test]
fn each_flaw_of_a_nesting_host_is_named() {
    assert_eq!(nesting("", ""), [""; 0]);
    for (from, to, reason) in [
        (
            "4f00f4b",
            "0f00f4b",
            "GET_HW_INFO shows ECAP 0x1c80000f00f4b without NEST",
        ),
        (
            "parent ok\nnesting entry",
            "parent EOPNOTSUPP\nnesting entry",
            "parent: EOPNOTSUPP",
        ),
        (
            "2dd8089",
            "2dd8049",
            "the PASID-table entry at stage parent is 0x0:0x800006:0x2dd8049, not of PGTT 2",
        ),
        (
            "nesting entry nested",
            "nesting x",
            "no PASID-table entry at stage nested",
        ),
        (
            "dma nested ok",
            "dma nested wrong data",
            "DMA at stage nested: wrong data",
        ),
        ("remapped ok", "remapped wrong data", "remapped: wrong data"),
        (
            "1030067",
            "1030027",
            "accessed and dirty bits of the pages read and written are [1, 1], not [1, 3]",
        ),
        (
            "nesting end",
            "nesting error attach: EBUSY",
            "attach: EBUSY",
        ),
    ] {
        assert_eq!(nesting(from, to), [format!("nesting: {reason}")]);
    }
}
