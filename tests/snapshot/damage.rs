//! States that were damaged, or that cannot be: refused, and the unit is as it was; or, if every
//! field is one that could be, taken, and saved again as it was.

use std::fmt::Write;

use crate::common::*;
use crate::random::Random;
use crate::states::{self, all_on, busy, first_stage, legacy};
use crate::*;
use nested_vtd::unit::{Config, Features};

const HEADER: usize = 32;
const CHECKSUM: usize = 4;
const LENGTH: usize = 12;

/// The same polynomial, written otherwise.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// Length and checksum as they are to be.
pub fn sealed(mut state: Vec<u8>) -> Vec<u8> {
    let end = state.len();
    if end >= HEADER + CHECKSUM {
        state[LENGTH..LENGTH + 4].copy_from_slice(&(end as u32).to_le_bytes());
        let crc = crc32(&state[..end - CHECKSUM]);
        state[end - CHECKSUM..].copy_from_slice(&crc.to_le_bytes());
    }
    state
}

#[test]
fn the_layout_is_that_of_the_page() {
    let guest = busy();
    let state = guest.unit.save();
    assert_eq!(sealed(state.clone()), state);
    let word = |at: usize| u32::from_le_bytes(state[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(state[at..at + 8].try_into().unwrap());
    assert_eq!(&state[..8], b"nvtdsnap");
    assert_eq!((word(8), word(12) as usize), (1, state.len()));
    assert_eq!(
        (long(16), long(24)),
        (guest.read64(CAP), guest.read64(ECAP))
    );
    let mut at = HEADER;
    let mut sections = Vec::new();
    while at < state.len() - CHECKSUM {
        let size = word(at + 4) as usize;
        sections.push((
            String::from_utf8(state[at..at + 4].to_vec()).unwrap(),
            at + 8,
            size,
        ));
        at += 8 + size;
    }
    let found: Vec<(&str, usize)> = sections
        .iter()
        .map(|(tag, _, size)| (&**tag, *size))
        .collect();
    let wanted = [
        ("ROOT", 20),
        ("CMDS", 24),
        ("QUEU", 44),
        ("FALT", 150),
        ("IREM", 16),
        ("PREQ", 36),
        ("GRPS", 0),
    ];
    assert_eq!(found, wanted);
    let place = |tag| sections.iter().find(|(found, ..)| found == tag).unwrap().1;

    // Every field against its register, by the page's offsets.
    let events = |at, control| {
        for register in 0..4 {
            assert_eq!(
                word(at + register * 4),
                guest.read32(control + register as u64 * 4)
            );
        }
    };
    let root = place("ROOT");
    assert_eq!(word(root), guest.read32(GSTS));
    assert_eq!(long(root + 4), guest.read64(RTADDR));
    assert_eq!(long(root + 12), ROOT | 1 << 10);
    let commands = place("CMDS");
    for (index, register) in [CCMD, IOTLB, IVA].into_iter().enumerate() {
        assert_eq!(long(commands + index * 8), guest.read64(register));
    }
    let queue = place("QUEU");
    assert_eq!(long(queue), guest.read64(IQA));
    assert_eq!(long(queue + 8), guest.read64(IQERCD));
    assert_eq!(u64::from(word(queue + 16)), guest.read64(IQH));
    assert_eq!(u64::from(word(queue + 20)), guest.read64(IQT));
    assert_eq!(word(queue + 24), guest.read32(ICS));
    events(queue + 28, IECTL);
    let faults = place("FALT");
    assert_eq!(word(faults), guest.read32(FSTS) & !(PPF | 0xff00));
    assert_eq!((state[faults + 4], state[faults + 5]), (2, 0));
    for record in 0..16 {
        let register = guest.read64(FRCD + record as u64 * 8);
        assert_eq!(long(faults + 6 + record * 8), register);
    }
    events(faults + 134, FECTL);
    let interrupts = place("IREM");
    assert_eq!(long(interrupts), guest.read64(IRTA));
    assert_eq!(long(interrupts + 8), states::IRT | 7);
    let requests = place("PREQ");
    assert_eq!(long(requests), guest.read64(PQA));
    assert_eq!(u64::from(word(requests + 8)), guest.read64(PQH));
    assert_eq!(u64::from(word(requests + 12)), guest.read64(PQT));
    assert_eq!(word(requests + 16), guest.read32(PRS));
    events(requests + 20, PECTL);
}

/// A unit that states are tried on.
struct Trial {
    guest: Guest,
    /// Its own state, and what its registers are in it.
    state: Vec<u8>,
    registers: Vec<u64>,
    tried: u64,
    taken: u64,
}

impl Trial {
    fn new(guest: Guest) -> Self {
        let state = guest.unit.save();
        let registers = registers(&guest);
        Self {
            guest,
            state,
            registers,
            tried: 0,
            taken: 0,
        }
    }

    /// Is the state taken?
    fn offer(&mut self, offered: &[u8]) -> bool {
        self.tried += 1;
        self.guest.notes.events.lock().unwrap().clear();
        match self.guest.unit.load(offered) {
            Err(error) => {
                assert_eq!(error.errno(), libc::EINVAL, "{error}");
                assert!(error.message().len() > 30, "{error}");
                assert_eq!(self.guest.unit.save(), self.state, "{error}");
                // Which takes its time, and is of the same state.
                if self.tried % 8 == 0 {
                    assert_eq!(registers(&self.guest), self.registers, "{error}");
                }
                false
            }
            Ok(()) => {
                self.taken += 1;
                assert_eq!(self.guest.unit.save(), offered);
                self.use_it();
                // The next is tried on the same state again.
                self.guest.unit.load(&self.state).unwrap();
                assert_eq!(self.guest.unit.save(), self.state);
                true
            }
        }
    }

    /// Whatever it is, a guest and its devices can go on with it.
    fn use_it(&self) {
        let guest = &self.guest;
        let _anything = read(guest, 0x5000);
        let _anything = remap(guest, 3);
        if guest.read64(ECAP) & 1 << 29 != 0 {
            states::page_request(guest, 0x9000, 1);
        }
        for control in [FECTL, IECTL, PECTL] {
            guest.write32(control, 0);
        }
        guest.write32(IQT, 0x40);
        guest.write32(FSTS, IQE | ITE | ICE | PFO);
        let _anything = registers(guest);
        let further = guest.unit.save();
        guest.unit.load(&further).unwrap();
        assert_eq!(guest.unit.save(), further);
    }

    fn tell(&self, what: &str) {
        println!(
            "{what}: {} states, {} of them taken",
            self.tried, self.taken
        );
    }
}

fn trials() -> Vec<(&'static str, Trial)> {
    [
        ("everything at once", busy()),
        ("everything on", all_on()),
        ("first stage", first_stage()),
        ("legacy mode", legacy()),
    ]
    .map(|(name, guest)| (name, Trial::new(guest)))
    .into()
}

#[test]
fn every_byte_in_several_ways() {
    for (name, mut trial) in trials() {
        let good = trial.state.clone();
        for at in 0..good.len() {
            let mut values: Vec<u8> = (0..8).map(|bit| good[at] ^ 1 << bit).collect();
            values.extend([
                0,
                0xff,
                !good[at],
                good[at].wrapping_add(1),
                good[at].wrapping_sub(1),
            ]);
            values.retain(|&value| value != good[at]);
            for value in values {
                let mut bad = good.clone();
                bad[at] = value;
                assert!(!trial.offer(&bad), "byte {at} is {value:#x}");
                if at < good.len() - CHECKSUM {
                    let taken = trial.offer(&sealed(bad));
                    // With length and checksum as they are to be, the length is good.
                    let in_header = at < HEADER && !(LENGTH..LENGTH + 4).contains(&at);
                    assert!(!(taken && in_header), "byte {at} is {value:#x}");
                }
            }
        }
        trial.tell(name);
        assert!(trial.taken > 0);
    }
}

#[test]
fn every_length() {
    for (name, mut trial) in trials() {
        let good = trial.state.clone();
        for length in 0..good.len() {
            assert!(!trial.offer(&good[..length]), "{length} bytes");
            assert!(
                !trial.offer(&sealed(good[..length].to_vec())),
                "{length} bytes"
            );
            // From the middle, in front of the checksum.
            if length + CHECKSUM < good.len() {
                let cut = [&good[..length], &good[good.len() - CHECKSUM..]].concat();
                let same = length == good.len() - CHECKSUM;
                assert_eq!(trial.offer(&sealed(cut)), same, "{length} bytes");
            }
        }
        for more in 1..=64 {
            for byte in [0, 0xff, b'A'] {
                let tail = vec![byte; more];
                assert!(!trial.offer(&[&good[..], &tail].concat()), "{more} more");
                let end = good.len() - CHECKSUM;
                let longer = [&good[..end], &tail, &[0; CHECKSUM]].concat();
                let groups = trial.guest.read64(ECAP) & 1 << 29 != 0;
                let taken = trial.offer(&sealed(longer));
                assert!(!taken || groups, "{more} more before the checksum");
            }
        }
        assert!(!trial.offer(&[]));
        trial.tell(name);
    }
}

/// Bytes and words that mean something, in any place; pieces that move, come twice or not at all.
fn mutate(random: &mut Random, good: &[u8]) -> Vec<u8> {
    let mut bad = good.to_vec();
    for _ in 0..=random.below(3) {
        let at = HEADER + random.below(bad.len().saturating_sub(HEADER + CHECKSUM).max(1));
        let end = bad.len() - CHECKSUM;
        match random.below(10) {
            0..4 => bad[at.min(end - 1)] ^= 1 << random.below(8),
            4 | 5 => bad[at.min(end - 1)] = random.next() as u8,
            6 => {
                let at = at.min(end.saturating_sub(4));
                let value = [0, u32::MAX, 1, 0x8000_0000, 0x1000, random.next() as u32];
                let value = value[random.below(value.len())];
                bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            7 => {
                let length = 1 + random.below(40);
                let to = (at + length).min(end);
                bad.drain(at.min(to)..to);
            }
            8 => {
                let from = HEADER + random.below(end - HEADER);
                let piece = bad[from..(from + 1 + random.below(40)).min(end)].to_vec();
                bad.splice(at..at, piece);
            }
            _ => bad[random.below(HEADER)] = random.next() as u8,
        }
        if bad.len() < HEADER + CHECKSUM + 1 {
            break;
        }
    }
    bad
}

#[test]
fn random_damage() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut tried = 0;
    for (name, mut trial) in trials() {
        let good = trial.state.clone();
        for round in 0..26_000 {
            let bad = mutate(&mut random, &good);
            trial.offer(&if round % 8 == 0 { bad } else { sealed(bad) });
        }
        trial.tell(name);
        tried += trial.tried;
    }
    assert!(tried >= 100_000);
}

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
