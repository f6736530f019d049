//! States that were damaged, or that cannot be: refused, and the unit is as it was; or, if every
//! field is one that could be, taken, and saved again as it was.

use std::hash::{BuildHasher, Hasher};

use crate::common::*;
use crate::random::Random;
use crate::states::{self, all_on, busy, first_stage, legacy};
use crate::*;

pub const HEADER: usize = 32;
pub const CHECKSUM: usize = 4;
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

/// Random damage to each of the states, so many times. Gives how often that was in all.
fn damage_at_random(seed: u64, rounds: usize) -> u64 {
    let mut random = Random(seed);
    let mut tried = 0;
    for (name, mut trial) in trials() {
        let good = trial.state.clone();
        for round in 0..rounds {
            let bad = mutate(&mut random, &good);
            trial.offer(&if round % 8 == 0 { bad } else { sealed(bad) });
        }
        trial.tell(name);
        tried += trial.tried;
    }
    tried
}

#[test]
fn random_damage() {
    assert!(damage_at_random(0x2545_f491_4f6c_dd1d, 26_000) >= 100_000);
}

/// `cargo test --release --test snapshot -- --ignored long_random_damage --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn long_random_damage() {
    let seed = std::hash::RandomState::new().build_hasher().finish() | 1;
    println!("seed {seed:#x}");
    damage_at_random(seed, 1_000_000);
}
