//! Target `snapshot`: whatever is given to a unit as a saved state.
//!
//! It is taken or refused, and never does harm. Refused, the unit is as it was, to the bit. Taken, it is what the unit saves
//! then, byte for byte, another unit takes it too, nothing was sent, and registers are such as a guest can have made
//! them: so it stays while the guest goes on with them.
//!
//! An input is a header ([`Setup`]) and the state. The target makes magic, version, length, capabilities and
//! checksum good, or else hardly anything would get as far as the fields; the header can forbid that.

use libc::EINVAL;

use crate::guest::op::{Code, Op};
use crate::guest::run::{FSTS, GCMD, IQT, REGISTERS, Run};
use crate::input::{Bytes, Random, pick};

/// Bytes before the state.
pub const HEADER: usize = 8;

/// Bytes of the longest input.
const LONGEST: usize = HEADER + 1024;

/// Units, as headers of target `guest`: mode, host, features that are left out.
pub const KINDS: &[(&str, u8, u8, u32)] = &[
    // With everything there is.
    ("nested", 1, 2, 0),
    // Behind it the twin's devices, which ask for pages; the software host.
    ("host", 0, 0, 0),
    ("software-host", 0, 1, 0),
    // Without interrupt remapping, without page requests, without either, without EIM.
    ("no-remapping", 1, 2, 0x6000),
    ("no-page-requests", 1, 2, 0x1000),
    ("neither", 1, 2, 0x7000),
    ("no-extended-mode", 1, 2, 0x4000),
    ("legacy", 3, 2, 0),
];

/// The header: kind of unit; flags; how the guest goes on, six bytes.
struct Setup {
    kind: (&'static str, u8, u8, u32),
    /// 1: magic, version, length and checksum stay as they are.
    is_unsealed: bool,
    /// 2: so do CAP and ECAP.
    is_foreign: bool,
    /// 4: the unit has a state already.
    is_busy: bool,
    /// 8: somebody keeps translations.
    is_kept: bool,
    steps: [u8; 6],
}

impl Setup {
    fn decode(header: &[u8]) -> Self {
        let mut bytes = Bytes::new(header);
        let kind = pick(KINDS, bytes.byte());
        let flags = bytes.byte();
        Self {
            kind,
            is_unsealed: flags & 1 != 0,
            is_foreign: flags & 2 != 0,
            is_busy: flags & 4 != 0,
            is_kept: flags & 8 != 0,
            steps: bytes.take(),
        }
    }

    fn machine(&self, is_started: bool) -> Run {
        let (_, mode, host, without) = self.kind;
        let mut header = [0; 16];
        header[..2].copy_from_slice(&[mode, host]);
        header[2..6].copy_from_slice(&without.to_le_bytes());
        // The oracle is of no use here.
        header[8] = 1 | u8::from(!is_started) << 2;
        Run::new(&header).expect("the unit can be so")
    }
}

/// A guest that has faults, a queue that stopped, and interrupts that wait.
pub fn busy(kind: usize) -> Run {
    let setup = Setup {
        kind: KINDS[kind],
        ..Setup::decode(&[])
    };
    let mut run = setup.machine(true);
    make_busy(&mut run);
    run
}

fn make_busy(run: &mut Run) {
    let mut op = |code, change: fn(&mut Op)| {
        let mut op = Op::new(code);
        change(&mut op);
        run.step(&op);
    };
    // Three controls are masked, a root entry is broken, pages are asked for, a descriptor has no type.
    op(Code::Write, |op| (op.d, op.value) = (8, 1 << 31));
    op(Code::Write, |op| (op.d, op.value) = (16, 1 << 31));
    op(Code::Write, |op| (op.d, op.value) = (26, 1 << 31));
    op(Code::PageRequest, |op| (op.c, op.d) = (5, 1));
    op(Code::PageRequest, |op| (op.a, op.c, op.d) = (2, 5, 1));
    op(Code::Root, |op| op.e = 2);
    op(Code::Sync, |_| ());
    op(Code::Dma, |op| op.d = 1);
    op(Code::Dma, |op| (op.a, op.c, op.d) = (1, 4, 2));
    op(Code::Queue, |op| op.value = 0);
    op(Code::Ring, |_| ());
}

/// CRC-32 as of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

/// The state as it is loaded.
fn prepared(setup: &Setup, run: &Run, input: &[u8]) -> Vec<u8> {
    let mut state = input.to_vec();
    if !setup.is_foreign && state.len() >= 32 {
        state[16..24].copy_from_slice(&run.machine.capabilities.cap.to_le_bytes());
        state[24..32].copy_from_slice(&run.machine.capabilities.ecap.to_le_bytes());
    }
    if !setup.is_unsealed && state.len() >= 36 {
        let length = state.len();
        state[..8].copy_from_slice(b"nvtdsnap");
        state[8..12].copy_from_slice(&1_u32.to_le_bytes());
        state[12..16].copy_from_slice(&(length as u32).to_le_bytes());
        let sum = crc32(&state[..length - 4]);
        state[length - 4..].copy_from_slice(&sum.to_le_bytes());
    }
    state
}

/// What software reads of all registers.
pub fn registers(run: &Run) -> Vec<u64> {
    let known = REGISTERS.iter().map(|&(at, size)| (u64::from(at), size));
    let records = (0x220..0x2a0).step_by(8).map(|at| (at, 8));
    let read = |(at, size)| run.machine.unit().mmio_read(at, size).unwrap();
    known.chain(records).map(read).collect()
}

/// Run an input.
///
/// # Panics
/// A state does harm.
pub fn run(input: &[u8]) {
    let (header, state) = input.split_at(input.len().min(HEADER));
    let setup = Setup::decode(header);
    let mut run = setup.machine(setup.is_busy);
    if setup.is_busy {
        make_busy(&mut run);
    }
    if setup.is_kept {
        run.step(&Op {
            a: 0,
            b: 4,
            c: 3,
            ..Op::new(Code::Device)
        });
    }
    let state = prepared(&setup, &run, state);
    let (before, read) = (run.machine.unit().save(), registers(&run));
    let msis = run.machine.vmm.told().msis;
    let loaded = run.machine.unit().load(&state);
    if crate::is_printing() {
        eprintln!("{}, flags {:x?}: {loaded:?}", setup.kind.0, header.get(1));
    }
    assert_eq!(run.machine.vmm.told().msis, msis, "a load sends nothing");
    let after = run.machine.unit().save();
    if let Err(error) = loaded {
        assert_eq!(error.errno(), EINVAL, "{error}");
        let text = error.message();
        assert!(text.len() > 10 && !text.contains('\n'), "{text:?}");
        assert!(after == before, "changed by a state that is refused");
        assert_eq!(registers(&run), read, "registers after {error}");
        return;
    }
    assert!(after == state, "{after:x?} is saved after {state:x?}");
    let there = setup.machine(false);
    there.machine.unit().load(&after).unwrap();
    assert!(
        there.machine.unit().save() == after,
        "another unit makes of it what it is not"
    );
    go_on(&setup, run);
}

/// The guest goes on: it reads, writes, asks.
fn go_on(setup: &Setup, mut run: Run) {
    // What is in force is not known here, nor whether it is what the tables of the world are.
    run.forget();
    run.drain();
    run.check_state();
    let read = registers(&run);
    assert_eq!(registers(&run), read, "a second look");
    for step in setup.steps {
        let op = operation(step);
        run.step(&op);
        if op.code == Code::Move {
            // What is in force is as unknown as before.
            run.forget();
        }
        run.check_state();
    }
    run.step(&Op::new(Code::Reset));
}

/// A write of a register of 4 or 8 bytes.
fn write(offset: u64, size: u8, value: u64) -> Op {
    Op {
        a: size >> 3,
        b: 2,
        d: offset as u16,
        value,
        ..Op::new(Code::Write)
    }
}

/// What the guest does next, by a byte.
fn operation(step: u8) -> Op {
    let value = step >> 4;
    let number = u64::from(value);
    let of = |code| Op {
        a: value,
        ..Op::new(code)
    };
    match step % 16 {
        0 => of(Code::Read),
        1 => write(IQT, 4, number << 5),
        2 => write(FSTS, 4, 0x71),
        // A bit of GCMD, which goes on or off.
        3 | 4 => Op {
            c: 4,
            ..write(GCMD, 4, number)
        },
        5 => write(pick(&[0x38, 0xa0, 0xe0], number), 4, 0),
        6 => write(0x9c, 4, 1),
        7 => write(0xdc, 4, 3),
        8 => write(0x22c + number % 8 * 16, 4, 1 << 31),
        9 => Op {
            d: 1,
            ..of(Code::Dma)
        },
        10 => Op {
            c: 5,
            d: 1,
            ..of(Code::PageRequest)
        },
        11 => of(Code::Msi),
        12 => of(Code::Move),
        13 => write(pick(&[0xc0, 0xc8], number), 8, number << 5),
        14 => write(pick(&[0x28, 0xf8], number), 8, 1 << 63 | 1 << 61 | 1 << 60),
        _ => Op::new(Code::Reset),
    }
}

/// Another input: mostly some bytes of the state become others, as whatever moves the rest is refused.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    most: usize,
    seed: u32,
    bytes: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Random::new(u64::from(seed) | 1 << 42);
    let room = most.min(data.len()).min(LONGEST);
    let size = size.min(room);
    if size <= HEADER + 8 || random.below(16) == 0 {
        return bytes(data, size, room);
    }
    for _ in 0..1 + random.below(3) {
        let length = [1, 2, 4, 8][random.below(4)];
        let place = match random.below(4) {
            0 => random.below(HEADER),
            _ => HEADER + random.below(size - HEADER),
        };
        let end = (place + length).min(size);
        let window = &mut data[place..end];
        let mut copy = window.to_vec();
        let kept = bytes(&mut copy, window.len(), window.len());
        window[..kept].copy_from_slice(&copy[..kept]);
        // A bit more: most fields are a few of them.
        if random.below(2) == 0 {
            data[place] ^= 1 << random.below(8);
        }
    }
    size
}
