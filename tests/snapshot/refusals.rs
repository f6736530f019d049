//! What cannot be is refused with the field, the section or the property that is wrong.

use std::fmt::Write;

use crate::common::*;
use crate::damage::{CHECKSUM, HEADER, sealed};
use crate::states::{self, all_on, first_stage};
use crate::*;
use nested_vtd::unit::{Config, Features};

/// A state in which the register at a place of a section is another, with the checksum.
fn with(state: &[u8], tag: &str, offset: usize, value: &[u8]) -> Vec<u8> {
    let at = state.windows(4).position(|window| window == tag.as_bytes());
    let at = at.unwrap() + 8 + offset;
    let mut changed = state.to_vec();
    changed[at..at + value.len()].copy_from_slice(value);
    sealed(changed)
}

/// What cannot be, field by field, and what is said of it.
#[test]
fn the_field_that_is_wrong_is_named() {
    let guest = all_on();
    let state = guest.unit.save();
    let narrow = first_stage();
    let long = |value: u64| value.to_le_bytes().to_vec();
    let word = |value: u32| value.to_le_bytes().to_vec();
    // The upper half of a record: F, a write, AT 0, PV 0, FR 71h.
    let record = 1 << 63 | 0x71 << 32_u64;
    let cases: Vec<(&str, usize, Vec<u8>, &[&str])> = vec![
        (
            "ROOT",
            0,
            word(TE | QIE | 1 << 30 | 1 << 28),
            &["GSTS", "0x10000000 is reserved"],
        ),
        (
            "ROOT",
            4,
            long(0x1000 | 1 << 9),
            &["RTADDR", "0x200 is reserved"],
        ),
        (
            "ROOT",
            12,
            long(0x1001),
            &["root table in force", "0x1 is reserved"],
        ),
        (
            "ROOT",
            0,
            word(TE | QIE | SIRTP | IRE),
            &["GSTS.RTPS is 0", "0x1400"],
        ),
        ("CMDS", 0, long(1 << 63), &["CCMD.ICC is 1", "clear"]),
        ("CMDS", 8, long(1 << 63), &["IOTLB.IVT is 1", "clear"]),
        (
            "CMDS",
            0,
            long(1 << 42),
            &["CCMD", "0x40000000000 is reserved"],
        ),
        ("CMDS", 8, long(1), &["IOTLB", "0x1 is reserved"]),
        ("CMDS", 16, long(1 << 7), &["IVA", "0x80 is reserved"]),
        ("QUEU", 0, long(QUEUE | 8), &["IQA", "0x8 is reserved"]),
        ("QUEU", 8, long(1 << 4), &["IQERCD", "0x10 is reserved"]),
        ("QUEU", 8, long(3), &["IQEI is 3", "IQE is 0"]),
        ("QUEU", 8, long(7 << 32), &["ITESID is 0x7", "ITE is 0"]),
        ("QUEU", 8, long(7 << 48), &["ICESID is 0x7", "ICE is 0"]),
        (
            "QUEU",
            16,
            word(0x1000),
            &["IQH is 0x1000", "multiple of 32 below 0x1000"],
        ),
        ("QUEU", 16, word(0x10), &["IQH is 0x10", "multiple of 32"]),
        ("QUEU", 20, word(8), &["IQT", "0x8 is reserved"]),
        ("QUEU", 20, word(1 << 19), &["IQT", "0x80000 is reserved"]),
        ("QUEU", 24, word(2), &["ICS", "0x2 is reserved"]),
        ("QUEU", 28, word(1), &["IECTL", "0x1 is reserved"]),
        ("QUEU", 28, word(IP), &["IECTL.IP", "IM is 0"]),
        ("QUEU", 28, word(IP | IM), &["IECTL.IP", "ICS.IWC"]),
        (
            "QUEU",
            36,
            word(0xfee0_0001),
            &["IEADDR", "0x1 is reserved"],
        ),
        ("FALT", 0, word(PPF), &["FSTS", "0x2 is reserved"]),
        ("FALT", 0, word(IQE), &["IQEI is 0", "IQE is 1"]),
        (
            "FALT",
            4,
            vec![8],
            &["next fault record is number 8", "0 to 7"],
        ),
        (
            "FALT",
            5,
            vec![8],
            &["first fault record is number 8", "0 to 7"],
        ),
        (
            "FALT",
            6,
            long(1),
            &["lower half of fault record 0", "0x1 is reserved"],
        ),
        ("FALT", 6, long(0x1000), &["fault record 0 has reason 0x0"]),
        (
            "FALT",
            30,
            long(record | 1 << 16),
            &["upper half of fault record 1", "reserved"],
        ),
        (
            "FALT",
            30,
            long(1 << 63 | 0x2a << 32),
            &["fault record 1 has reason 0x2a"],
        ),
        (
            "FALT",
            30,
            long(record | 1 << 62 | 1 << 28),
            &["fault record 1 has T1 and T2"],
        ),
        (
            "FALT",
            30,
            long(record | 3 << 60),
            &["fault record 1 has AT 3"],
        ),
        (
            "FALT",
            30,
            long(record | 1 << 40),
            &["fault record 1 has a PASID", "without PP"],
        ),
        ("FALT", 30, long(record | 1 << 30), &["without PP"]),
        ("FALT", 30, long(record | 1 << 29), &["without PP"]),
        ("FALT", 134, word(IP | IM), &["FECTL.IP", "FSTS"]),
        ("FALT", 142, word(2), &["FEADDR", "0x2 is reserved"]),
        ("IREM", 0, long(1 << 4), &["IRTA", "0x10 is reserved"]),
        (
            "IREM",
            8,
            long(1 << 10),
            &["interrupt table in force", "0x400 is reserved"],
        ),
        ("PREQ", 0, long(8), &["PQA", "0x8 is reserved"]),
        ("PREQ", 8, word(16), &["PQH", "0x10 is reserved"]),
        ("PREQ", 12, word(1 << 20), &["PQT", "0x100000 is reserved"]),
        ("PREQ", 16, word(4), &["PRS", "0x4 is reserved"]),
        ("PREQ", 20, word(IP | IM), &["PECTL.IP", "PRS"]),
    ];
    for (tag, offset, value, named) in &cases {
        let said = refusal(&guest, &with(&state, tag, *offset, value));
        for name in *named {
            assert!(
                said.contains(name),
                "{tag}+{offset}: \"{said}\" lacks \"{name}\""
            );
        }
    }
    // The queue is off, but has a head.
    let off = with(&state, "ROOT", 0, &word(TE | SRTP | SIRTP | IRE));
    let said = refusal(&guest, &with(&off, "QUEU", 16, &word(32)));
    assert!(said.contains("IQH is 0x20 while GSTS.QIES is 0"), "{said}");
    // A table in force that was never set.
    let unset = with(&state, "ROOT", 0, &word(TE | SRTP | QIE | IRE));
    let said = refusal(&guest, &unset);
    assert!(said.contains("GSTS.IRTPS is 0"), "{said}");
    // What this unit does not offer.
    let state = narrow.unit.save();
    let said = refusal(
        &narrow,
        &with(&state, "ROOT", 0, &word(TE | SRTP | QIE | IRE)),
    );
    assert!(said.contains("0x2000000 is reserved"), "{said}");
    let small = Guest::with(Config {
        features: Config::DEFAULT.features.with_interrupt_remapping(true),
        ..Config::DEFAULT
    });
    let state = with(&small.unit.save(), "IREM", 0, &long(1 << 11));
    let said = refusal(&small, &state);
    assert!(said.contains("IRTA is 0x800"), "{said}");
}

/// Groups of page requests, in a state without any.
#[test]
fn groups_that_cannot_be() {
    let guest = all_on();
    let state = guest.unit.save();
    let group = |source_id: u16, index: u16, pasid: u32| {
        let (id, index) = (source_id.to_le_bytes(), index.to_le_bytes());
        [&id[..], &index, &pasid.to_le_bytes()].concat()
    };
    let with_groups = |groups: &[Vec<u8>]| {
        let mut changed = state[..state.len() - CHECKSUM].to_vec();
        let end = changed.len();
        let bytes = groups.concat();
        changed[end - 4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        changed.extend(&bytes);
        changed.extend([0; CHECKSUM]);
        sealed(changed)
    };
    let id = SOURCE_ID;
    load(
        &guest,
        &with_groups(&[group(id, 1, 0), group(id, 2, 0), group(id, 0, 1 << 31)]),
    );
    load(&guest, &state);
    let cases: [(&[Vec<u8>], &str); 8] = [
        (&[group(id + 1, 1, 0)], "device 00:03.1 waits"),
        (&[group(id, 0x200, 0)], "the index of page group 0 is 0x200"),
        (&[group(id, 1, 1)], "page group 0 has PASID 0x1 without"),
        (
            &[group(id, 1, 1 << 31 | 1 << 20)],
            "the PASID of page group 0",
        ),
        (
            &[group(id, 1, 0), group(id, 1, 0)],
            "page group 1 is not behind",
        ),
        (
            &[group(id, 2, 0), group(id, 1, 0)],
            "page group 1 is not behind",
        ),
        (
            &[group(id, 2, 1 << 31), group(id, 1, 0)],
            "page group 1 is not behind",
        ),
        (
            &[group(id, 1, 0)[..7].to_vec()],
            "before a page group's PASID",
        ),
    ];
    for (groups, named) in cases {
        let said = refusal(&guest, &with_groups(groups));
        assert!(said.contains(named), "\"{said}\" lacks \"{named}\"");
    }
}

#[test]
fn states_of_other_releases_are_refused_by_name() {
    let guest = all_on();
    let state = guest.unit.save();
    let mut later = state.clone();
    later[8] = 2;
    let said = refusal(&guest, &sealed(later));
    assert!(
        said.contains("version 2") && said.contains("knows 1"),
        "{said}"
    );
    // One more section, at the end and before another; a longer one.
    let end = state.len() - CHECKSUM;
    let more = [&state[..end], b"PIRQ\x02\0\0\0ab", &[0; CHECKSUM]].concat();
    let said = refusal(&guest, &sealed(more));
    assert!(said.contains("section PIRQ"), "{said}");
    let more = [&state[..HEADER], b"PIRQ\x02\0\0\0ab", &state[HEADER..]].concat();
    let said = refusal(&guest, &sealed(more));
    assert!(
        said.contains("section PIRQ") && said.contains("later release"),
        "{said}"
    );
    let at = HEADER + 8 + 20;
    let mut longer = [&state[..at], &[0; 4], &state[at..]].concat();
    longer[HEADER + 4] += 4;
    let said = refusal(&guest, &sealed(longer));
    assert!(
        said.contains("section ROOT") && said.contains("4 bytes more"),
        "{said}"
    );
    for (bytes, named) in [
        (&b"QEMU"[..], "ends before the magic"),
        (b"QEMUQEMUQEMUQEMUQEMUQEMU", "nvtdsnap"),
        (&state[..100], "it was cut"),
        (&[&state[..], b"x"].concat(), "something follows"),
    ] {
        let said = refusal(&guest, bytes);
        assert!(said.contains(named), "{said}");
    }
}

/// Each property makes a difference of its own, and is what is named.
#[test]
fn units_that_differ_are_refused_with_the_property() {
    let full = states::config();
    let off = |change: fn(Features) -> Features| Config {
        features: change(full.features),
        ..full
    };
    let pairs: Vec<(&str, Config)> = vec![
        (
            "aw-bits=48",
            Config {
                address_width: 57,
                ..full
            },
        ),
        (
            "pasid-bits=20",
            Config {
                pasid_bits: 8,
                ..full
            },
        ),
        ("caching-mode=on", off(|all| all.with_caching_mode(false))),
        ("fs1gp=on", off(|all| all.with_first_stage_1g(false))),
        ("pt=on", off(|all| all.with_pass_through(false))),
        ("nest=on", off(|all| all.with_nested(false))),
        ("ss2m=on", off(|all| all.with_second_stage_2m(false))),
        ("ss1g=on", off(|all| all.with_second_stage_1g(false))),
        ("snoop-control=on", off(|all| all.with_snoop_control(false))),
        (
            "slads=on",
            off(|all| all.with_second_stage_accessed_dirty(false)),
        ),
        ("prs=on", off(|all| all.with_page_request(false))),
        (
            "device-iotlb=on",
            off(|all| all.with_page_request(false).with_device_tlb(false)),
        ),
        (
            "intremap=on",
            off(|all| {
                all.with_interrupt_remapping(false)
                    .with_extended_interrupt_mode(false)
            }),
        ),
        ("eim=on", off(|all| all.with_extended_interrupt_mode(false))),
        ("eafs=on", off(|all| all.with_extended_accessed(false))),
        ("srs=on", off(|all| all.with_supervisor_request(false))),
        ("ers=on", off(|all| all.with_execute_request(false))),
        ("rid-pasid=on", off(|all| all.with_rid_pasid(false))),
        ("abort-dma=on", off(|all| all.with_abort_dma(false))),
        (
            "second-stage=on",
            off(|all| {
                all.with_second_stage(false)
                    .with_second_stage_2m(false)
                    .with_second_stage_1g(false)
                    .with_second_stage_accessed_dirty(false)
                    .with_nested(false)
            }),
        ),
        (
            "first-stage=on",
            off(|all| {
                all.with_first_stage(false)
                    .with_nested(false)
                    .with_extended_accessed(false)
                    .with_supervisor_request(false)
                    .with_execute_request(false)
            }),
        ),
        (
            "scalable-mode=on",
            Config {
                features: Features::new().with_second_stage(true),
                pasid_bits: 0,
                ..full
            },
        ),
    ];
    let saved = Guest::with(full).unit.save();
    let mut all = String::new();
    for (property, config) in &pairs {
        let other = Guest::with(*config);
        let said = refusal(&other, &saved);
        writeln!(all, "{said}").unwrap();
        assert!(
            said.ends_with(&format!("make the unit with {property}")),
            "{property}: {said}"
        );
        // And the other way round.
        let said = refusal(&Guest::with(full), &other.unit.save());
        let (name, _) = property.split_once('=').unwrap();
        let of = |found: &str| found.contains(&format!("make the unit with {name}="));
        // Device TLBs are looked at before what needs them.
        assert!(of(&said), "{property}: {said}");
    }
    println!("{all}");
}
