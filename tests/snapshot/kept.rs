//! States that earlier releases saved: they are loaded for ever.

use std::fs;
use std::path::PathBuf;

use crate::common::*;
use crate::states::{self, busy, first_stage, legacy};
use crate::*;
use nested_vtd::unit::Config;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(name)
}

fn kept(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

/// Three groups of page requests wait: of PASIDs, and without.
fn groups() -> Vec<u8> {
    let guest = Guest::with(states::config());
    let mut state = guest.unit.save();
    state.truncate(state.len() - 4);
    let end = state.len();
    state[end - 4..].copy_from_slice(&24_u32.to_le_bytes());
    for (index, pasid) in [(7, 0), (3, 1 << 31), (0x1ff, 1 << 31 | 0xf_ffff)] {
        let (index, pasid): (u16, u32) = (index, pasid);
        state.extend(SOURCE_ID.to_le_bytes());
        state.extend(index.to_le_bytes());
        state.extend(pasid.to_le_bytes());
    }
    state.extend([0; 4]);
    damage::sealed(state)
}

/// `cargo test --test snapshot -- --ignored write_version_1` wrote them, once.
#[test]
#[ignore = "states of a release are written once"]
fn write_version_1() {
    for (name, state) in [
        ("v1-everything.bin", busy().unit.save()),
        ("v1-first-stage.bin", first_stage().unit.save()),
        ("v1-legacy.bin", legacy().unit.save()),
        ("v1-groups.bin", groups()),
    ] {
        assert!(!path(name).exists(), "{name} is there");
        fs::write(path(name), state).unwrap();
    }
}

/// What the registers are to be: offset and value.
fn expect(guest: &Guest, values: &[(u64, u64)]) {
    for &(at, value) in values {
        assert_eq!(guest.read64(at), value, "register {at:#x}");
    }
}

#[test]
fn version_1_with_everything() {
    let guest = Guest::with(states::config());
    let state = kept("v1-everything.bin");
    load(&guest, &state);
    expect(
        &guest,
        &[
            (RTADDR, 0x17_0000_1400),
            (CCMD, 0x4000_0001_0018_0005),
            (IOTLB, 0x3000_0005_0000_0000),
            (IVA, 0x5000),
            (IQH, 64),
            (IQT, 128),
            (IQA, QUEUE | 0x800),
            (IQERCD, 3),
            (IRTA, 0x7_0800),
            (PQH, 32),
            (PQT, 64),
            (PQA, states::RING),
        ],
    );
    assert_eq!(guest.read32(GSTS), TE | SRTP | QIE | IRE | SIRTP);
    assert_eq!(guest.read32(FSTS), PFO | PPF | IQE);
    assert_eq!((guest.read32(ICS), guest.read32(PRS)), (1, 1));
    for (record, page, upper) in [
        (0, 0x7777_7000, 0x8000_0071_8000_0018_u64),
        (1, 0x7777_8000, 0x8000_0071_0000_0018),
        (2, 0x10_2000, 0xc000_0071_0000_0018),
        (7, 0x10_7000, 0xc000_0071_0000_0018),
    ] {
        expect(
            &guest,
            &[(FRCD + record * 16, page), (FRCD + record * 16 + 8, upper)],
        );
    }
    for (control, (address, data)) in [
        (FECTL, states::FAULT_MSI),
        (IECTL, states::WAIT_MSI),
        (PECTL, states::PAGE_MSI),
    ] {
        assert_eq!(guest.read32(control), IM | IP);
        guest.write32(control, 0);
        assert_eq!(sent(&guest), [(address, data)]);
    }
}

#[test]
fn version_1_with_a_first_stage() {
    let guest = Guest::with(Config::DEFAULT);
    load(&guest, &kept("v1-first-stage.bin"));
    // The tables are not in it.
    guest.build_tables();
    guest.map(0x5000, 0x10_0000);
    assert_eq!(read(&guest, 0x5678), Ok(0x10_0678));
    expect(&guest, &[(RTADDR, 0x1400), (IQH, 32), (IQT, 32)]);
    assert_eq!(guest.read32(FSTS), PPF);
}

#[test]
fn version_1_in_legacy_mode() {
    let guest = legacy();
    let state = kept("v1-legacy.bin");
    assert_eq!(guest.unit.save(), state);
    guest.unit.reset();
    load(&guest, &state);
    assert_eq!(read(&guest, 0x5678), Ok(0x10_0678));
    expect(
        &guest,
        &[(RTADDR, 0x1000), (IQH, 0x90), (IQT, 0x90), (IQA, QUEUE | 2)],
    );
}

#[test]
fn version_1_with_page_groups() {
    let mut guest = Guest::with(states::config());
    load(&guest, &kept("v1-groups.bin"));
    guest.build_tables();
    guest.enable();
    let answer = |pasid: u64, group: u64| {
        [
            9 | u64::from(SOURCE_ID) << 16 | pasid << 32 | 1 << 4,
            group << 3,
        ]
    };
    guest.submit(&[answer(0xf_ffff, 0x1ff), answer(0xf_fffe, 0x1ff), wait(1)]);
    assert_eq!(guest.peek(STATUS), 1);
    // The one that waits elsewhere is nobody's, the other one the device's.
    let responses = guest.notes.responses.lock().unwrap();
    let pasids: Vec<_> = responses.iter().map(|response| response.pasid).collect();
    assert_eq!(pasids, [Some(0xf_fffe)]);
}
