//! Inputs to begin with: what drivers and VMMs do, in the form of each target.
//!
//! They are kept as files in `seeds/`, which `cargo xtask fuzz --seeds` writes anew; fuzz/README.md says how a
//! recorded boot becomes one.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs, process};

use crate::c_abi;
use crate::guest::world::{CONTEXTS, DATA, DIRECTORIES, FIRST_SETS, PASID_TABLES, QUEUE, ROOT};
use crate::guest::{Code, Op};
use crate::programs;
use crate::recorded;
use crate::snapshot::{HEADER, KINDS, busy};

/// Content by target and name.
pub type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

/// Everything in `seeds/`.
pub fn all() -> Seeds {
    let mut seeds = Seeds::new();
    guest(&mut seeds);
    model(&mut seeds);
    c_abi(&mut seeds);
    decoders(&mut seeds);
    snapshot(&mut seeds);
    seeds
}

/// With `NVTD_FUZZ_SEEDS` in the environment: write the files into a directory (`write:DIRECTORY`), see whether they are
/// there as they are made (`check:DIRECTORY`), or write those of the trace that `NVTD_FUZZ_TRACE` names (`record:DIRECTORY`); and end the process. Any program of this crate must be linked with libFuzzer,
/// so there is none for this alone.
pub fn if_asked() {
    let Some(asked) = env::var_os("NVTD_FUZZ_SEEDS") else {
        return;
    };
    let asked = asked.to_string_lossy().into_owned();
    let Some((how, dir)) = asked.split_once(':') else {
        eprintln!("NVTD_FUZZ_SEEDS={asked} is neither write:, check: nor record: and a directory");
        process::exit(2);
    };
    if how == "record" {
        record(&Path::new(dir).join("guest"));
        process::exit(0);
    }
    let mut differ = 0;
    for ((target, name), content) in all() {
        let dir = Path::new(dir).join(target);
        let file = dir.join(name);
        if fs::read(&file).is_ok_and(|found| found == content) {
            continue;
        }
        if how == "write" {
            fs::create_dir_all(&dir).expect("the directory can be made");
            fs::write(&file, content).expect("the file can be written");
            println!("wrote {}", file.display());
        } else {
            eprintln!("{} is not as it is made", file.display());
            differ += 1;
        }
    }
    process::exit(i32::from(differ > 0));
}

/// Write the inputs of a recorded boot.
fn record(dir: &Path) {
    let trace = env::var_os("NVTD_FUZZ_TRACE").unwrap_or_default();
    let text = fs::read_to_string(&trace).expect("NVTD_FUZZ_TRACE names a trace");
    let name = Path::new(&trace).file_stem().unwrap_or_default();
    for (number, content) in recorded::inputs(&text).iter().enumerate() {
        let file = dir.join(format!("recorded-{}-{number}", name.to_string_lossy()));
        fs::write(&file, content).expect("the file can be written");
        println!(
            "wrote {}, {} records",
            file.display(),
            content.len() / 16 - 1
        );
    }
}

/// Header of target `guest`: mode and host; flags.
pub(crate) fn header(mode: u8, host: u8, flags: u8) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = mode;
    header[1] = host;
    header[8] = flags;
    header
}

pub(crate) fn with(code: Code, change: impl FnOnce(&mut Op)) -> Op {
    let mut op = Op::new(code);
    change(&mut op);
    op
}

/// A write of a register by its place in the list of those that are known.
pub(crate) fn write(place: u16, value: u64) -> Op {
    with(Code::Write, |op| (op.d, op.value) = (place, value))
}

/// Places in the list of registers.
pub(crate) const GCMD: u16 = 3;
pub(crate) const RTADDR: u16 = 5;
const FECTL: u16 = 8;
pub(crate) const IQT: u16 = 13;
pub(crate) const IQA: u16 = 14;
const IECTL: u16 = 16;
pub(crate) const IRTA: u16 = 21;

/// A qword of RAM.
pub(crate) fn poke(gpa: u64, value: u64) -> Op {
    with(Code::Poke, |op| {
        op.d = (gpa >> 12) as u16;
        op.e = (gpa >> 3 & 511) as u16;
        op.value = value;
    })
}

/// A request: whose, PASID as [`Op::b`], access as [`Op::c`], which page.
fn dma(slot: u8, pasid: u8, access: u8, page: u16) -> Op {
    with(Code::Dma, |op| {
        (op.a, op.b, op.c, op.d, op.e) = (slot, pasid, access, page, 8);
    })
}

/// Descriptors of 256 bits into the queue from `from` on, and the tail behind them.
fn queue(ops: &mut Vec<Op>, from: u64, descriptors: &[[u64; 2]]) -> u64 {
    let mut tail = from;
    for words in descriptors {
        for (index, &word) in words.iter().enumerate() {
            if word != 0 {
                ops.push(poke(QUEUE + tail + index as u64 * 8, word));
            }
        }
        tail += 32;
    }
    ops.push(write(IQT, tail));
    tail
}

/// What Linux's driver does from power-on to the first DMA and the first page that is unmapped, register by register.
fn boot() -> Vec<Op> {
    const QIE: u64 = 1 << 26;
    const STATUS: u64 = 30 << 12;
    let wait = |number: u64| [5 | 1 << 5 | number << 32, STATUS + number * 4];
    let mut ops = vec![
        // Faults and completions raise interrupts.
        write(FECTL + 1, 0x4021),
        write(FECTL + 2, 0xfee0_1000),
        write(FECTL, 0),
        write(IECTL + 1, 0x4022),
        write(IECTL + 2, 0xfee0_1000),
        write(IECTL, 0),
        // The queue, before anything else.
        write(IQT, 0),
        write(IQA, QUEUE | 0x800),
        write(GCMD, QIE),
    ];
    let mut tail = queue(&mut ops, 0, &[[1 | 1 << 4, 0], [2 | 1 << 4, 0], wait(1)]);
    // Interrupt remapping.
    ops.push(poke(28 << 12, 1 | 0x30 << 16 | 1 << 40));
    ops.push(write(IRTA, 28 << 12 | 3));
    ops.push(write(GCMD, QIE | 1 << 24));
    tail = queue(&mut ops, tail, &[[4, 0], wait(2)]);
    ops.push(write(GCMD, QIE | 1 << 25));
    // Tables of one device.
    let tables = [
        (ROOT, CONTEXTS[0] | 1),
        (CONTEXTS[0] + 0x18 * 32, DIRECTORIES[0] | 0b1001),
        (DIRECTORIES[0], PASID_TABLES[0][0] | 1),
        (FIRST_SETS[0] + 0x3000, FIRST_SETS[0] + 0x2000 + 7),
        (FIRST_SETS[0] + 0x2000, FIRST_SETS[0] + 0x1000 + 7),
        (FIRST_SETS[0] + 0x1000, FIRST_SETS[0] + 7),
        (FIRST_SETS[0] + 8, DATA | 7),
        (PASID_TABLES[0][0] + 16, FIRST_SETS[0] + 0x3000),
        (PASID_TABLES[0][0] + 8, 2 | 1 << 23),
        (PASID_TABLES[0][0], 1 | 1 << 6),
    ];
    ops.extend(tables.map(|(gpa, value)| poke(gpa, value)));
    ops.push(write(RTADDR, ROOT | 1 << 10));
    ops.push(write(GCMD, QIE | 1 << 25 | 1 << 30));
    let everything = [[1 | 1 << 4, 0], [7 | 3 << 4, 0], [2 | 1 << 4, 0], wait(3)];
    tail = queue(&mut ops, tail, &everything);
    ops.push(write(GCMD, QIE | 1 << 25 | 1 << 31));
    // DMA; a page is unmapped and another one is mapped.
    ops.extend([dma(0, 0, 0, 1), dma(0, 0, 4, 1)]);
    ops.push(poke(FIRST_SETS[0] + 8, DATA + 0x1000 + 7));
    let page = [6 | 3 << 4 | 2 << 16, 0x1000 | 1 << 6];
    queue(&mut ops, tail, &[page, wait(4)]);
    ops.extend([dma(0, 0, 0, 1), Op::new(Code::Sync)]);
    ops
}

/// Everything once, in a world whose driver has started the unit.
fn tour() -> Vec<Op> {
    let mut ops = Vec::new();
    for slot in 0..6 {
        // Plain, with a PASID, a write, for a device TLB, and of what that was told.
        ops.extend([
            dma(slot, 0, 0, 0),
            dma(slot, 0x18, 0, 1),
            dma(slot, 0x28, 4, 2),
            dma(slot, 0, 2, 1),
            dma(slot, 0, 3, 1),
        ]);
    }
    ops.push(with(Code::Dma, |op| op.c = 0x80));
    for what in 0..8 {
        ops.push(with(Code::Change, |op| {
            (op.a, op.b, op.c, op.d, op.e) = (what, what & 3, 5 + what, what.into(), 1);
        }));
        ops.push(with(Code::Again, |op| (op.a, op.c) = (what, 2)));
        ops.push(dma(what % 6, 0, 4, 1));
    }
    for kind in [1, 2, 3, 4, 6, 7, 8, 9, 10] {
        ops.push(with(Code::Queue, |op| {
            (op.a, op.b, op.c, op.d) = (kind | 2 << 4, 2, 8, 1);
        }));
    }
    ops.push(Op::new(Code::Ring));
    // Once around.
    ops.push(with(Code::Queue, |op| op.a = 10));
    ops.push(with(Code::Ring, |op| op.b = 120));
    for index in 0..4 {
        ops.push(with(Code::Msi, |op| (op.a, op.c) = (index, index)));
    }
    for slot in [0, 1, 2, 3] {
        ops.push(with(Code::PageRequest, |op| {
            (op.a, op.c, op.d) = (slot, 5, 1);
        }));
    }
    for what in 0..10 {
        ops.push(with(Code::Look, |op| {
            (op.a, op.b, op.e) = (what, what, 0x100);
        }));
    }
    for how in 0..3 {
        ops.extend([
            with(Code::Move, |op| op.a = how),
            dma(how, 0, 0, 1),
            dma(2 + how, 0x18, 4, 1),
        ]);
    }
    ops.extend([
        with(Code::Device, |op| (op.a, op.b) = (2, 5)),
        with(Code::Device, |op| (op.a, op.b, op.c) = (0, 3, 3)),
        with(Code::Tlb, |op| op.a = 1),
        with(Code::Queue, |op| op.a = 3),
        with(Code::Queue, |op| op.a = 10),
        Op::new(Code::Ring),
        with(Code::Inject, |op| op.a = 3),
        with(Code::Change, |op| (op.a, op.c) = (4, 0xc)),
        with(Code::Ram, |op| op.a = 3),
        with(Code::Ram, |op| (op.a, op.b) = (3, 1)),
        with(Code::Sync, |op| op.b = 15),
        Op::new(Code::Reset),
        dma(0, 0, 0, 1),
        Op::new(Code::Enable),
        dma(0, 0, 0, 1),
        with(Code::Sync, |op| (op.a, op.b) = (1, 15)),
    ]);
    ops
}

/// Entries that are wrong, one after the other, and a request for each.
fn broken() -> Vec<Op> {
    let mut ops = Vec::new();
    for code in [
        Code::Root,
        Code::Context,
        Code::Directory,
        Code::Pasid,
        Code::Table,
    ] {
        for bit in [2, 8, 64] {
            ops.push(with(code, |op| (op.b, op.c, op.e) = (0, 0, bit)));
            ops.push(Op::new(Code::Sync));
            ops.push(dma(0, 0, 0, 1));
            ops.push(dma(2, 0x18, 4, 1));
            ops.push(with(code, |op| {
                (op.b, op.c) = (u8::from(code == Code::Pasid), 0);
            }));
        }
    }
    ops.push(with(Code::Sync, |op| op.b = 15));
    ops
}

/// Each call on the host fails, when devices, PASIDs and RAM come and go.
fn refusals() -> Vec<Op> {
    let mut ops = Vec::new();
    for failure in 0..12 {
        ops.push(with(Code::Inject, |op| (op.a, op.e) = (failure, 1)));
        // A PASID entry with other flags, as it was, a page, RAM, a device.
        ops.push(with(Code::Change, |op| {
            (op.a, op.b, op.c, op.d) = (4, 2, 4, 0x800);
        }));
        ops.push(with(Code::Change, |op| (op.a, op.b, op.c) = (4, 2, 4)));
        ops.push(with(Code::Change, |op| (op.c, op.e) = (failure, 1)));
        ops.push(with(Code::Ram, |op| op.a = 3));
        ops.push(with(Code::Ram, |op| (op.a, op.b) = (3, 1)));
        ops.push(with(Code::Device, |op| {
            (op.a, op.b, op.c) = (2, if failure % 2 == 0 { 5 } else { 7 }, 0x3c);
        }));
        ops.push(with(Code::Device, |op| op.a = 2));
        ops.push(with(Code::Device, |op| op.a = 5));
        ops.push(Op::new(Code::Sync));
    }
    ops
}

fn guest(seeds: &mut Seeds) {
    let mut put = |name: &str, header: [u8; 16], ops: Vec<Op>| {
        let records: Vec<u8> = ops.iter().flat_map(Op::encode).collect();
        let content = [header.as_slice(), &records].concat();
        seeds.insert(("guest", name.to_owned()), content);
    };
    // Not started: flag 4.
    put("boot-host", header(4, 0, 4), boot());
    put("boot-alone", header(4, 2, 4), boot());
    put("refusals", header(0, 0, 0), refusals());
    put("refusals-two-hosts", header(0, 0, 2), refusals());
    let worlds = [
        ("first-host", header(0, 0, 0)),
        ("first-two-hosts", header(0, 0, 2)),
        ("first-software-host", header(0, 1, 0)),
        ("first-alone", header(0, 2, 1)),
        ("nested", header(1, 2, 0)),
        ("nested-no-oracle", header(1, 2, 1)),
        ("second", header(2, 2, 0)),
        ("legacy", header(3, 2, 0)),
        ("legacy-no-oracle", header(3, 2, 1)),
    ];
    for (name, header) in worlds {
        put(&format!("tour-{name}"), header, tour());
        put(&format!("broken-{name}"), header, broken());
    }
}

/// The cases that failed once.
fn model(seeds: &mut Seeds) {
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len() / 2)
            .map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
            .collect()
    };
    let padded = |mut bytes: Vec<u8>, length| {
        bytes.resize(length, 0);
        bytes
    };
    let shape = programs::SHAPE;
    let cases = include_str!("../../tests/model/regressions/cases.txt").lines();
    let cases = cases.filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (number, case) in cases.enumerate() {
        let (world, ops) = case.split_once(':').expect("world:operation,operation...");
        let mut content = padded(unhex(world), shape.header);
        for op in ops.split(',') {
            content.extend(padded(unhex(op), shape.record));
        }
        seeds.insert(("model", format!("case-{number}")), content);
    }
    // The plainest guest: requests, changes, invalidations.
    let mut content = vec![0; shape.header];
    for first in [0, 150, 0, 190, 0, 200, 0, 236, 240, 0, 246, 0, 252, 0] {
        content.extend(padded(vec![first, 0, 0, 128, 1, 2, 3], shape.record));
    }
    seeds.insert(("model", "plain".to_owned()), content);
}

/// Programs of the C interface: a VMM with a twin, with the software host, and without.
fn c_abi(seeds: &mut Seeds) {
    let op = |code: u8, number: u32, v: u64, w: u64| c_abi::Op {
        code,
        a: 0,
        sizes: 0,
        wrong: 0,
        number,
        v,
        w,
    };
    let of_file = |file: u8, op: c_abi::Op| c_abi::Op { a: file << 1, ..op };
    let session = |create: c_abi::Op, device: c_abi::Op| {
        let mut ops = vec![
            op(24, 0, 0, 0),
            op(26, 0, 0, 0),
            op(27, 0, 0, 0),
            op(27, 0, 0, 0),
            create,
            op(6, 0, 0, 0),
            op(8, 0, 0x18, 0),
            device,
            op(22, 0, 0, 0),
        ];
        for number in 0..12 {
            ops.push(op(12, number, 0x1008, 1));
        }
        ops.extend([
            op(10, 3, 0, 0),
            op(4, 0, 17, 0x20),
            op(4, 0, 8, 9 * 32),
            op(15, 0, 0x1000, 0),
            op(15, 5, 0x1000, 5),
            op(17, 1, 0x30, 0x18 << 32),
            of_file(1, op(36, 0, 0x1008, 1)),
            of_file(1, op(37, 0, 0x1000, 0)),
            of_file(1, op(37, 0x100, 0, 0)),
            op(20, 0, 0, 0),
            op(20, 1, 0, 0),
            op(20, 2, 0, 0),
            op(19, 0, 0, 0x1_0000),
            op(16, 0, 0, 0),
            op(11, 0, 0, 0),
            op(39, 1, 5, 0),
            op(39, 2, 0, 0),
        ]);
        for kind in 1..7 {
            ops.push(op(18, kind, 0x1000, 0xffff));
        }
        // A state is saved, lost, and loaded; then changed, and cut.
        ops.extend([
            op(13, 0, 0, 0),
            op(13, 4, 0, 0),
            op(2, 0, 0, 0),
            op(14, 0, 0, 0),
            op(5, 0, 0, 0),
            op(14, 2, 100, 0),
            op(14, 4, 0, 100),
        ]);
        ops.extend([
            op(2, 0, 0, 0),
            op(9, 0, 0, 0),
            op(7, 0, 0, 0),
            op(21, 7, 0, 0),
            op(1, 0, 0, 0),
        ]);
        ops
    };
    // File 0 is the iommufd, 1 and 2 are devices.
    let with_twin = c_abi::Op {
        a: 0,
        ..op(0, 0, 0, 0x200)
    };
    let assigned = op(8, 3, 0x1a, 0x100);
    let mut programs = vec![
        ("twin", session(with_twin, assigned)),
        (
            "software-host",
            session(
                c_abi::Op {
                    a: 2,
                    ..op(0, 2 << 3, 0, 0x200)
                },
                op(8, 5, 0x1a, 0),
            ),
        ),
        (
            "alone",
            session(
                c_abi::Op {
                    a: 2,
                    ..op(0, 3 << 3 | 4, 0, 0x200)
                },
                op(8, 2, 0x1a, 0),
            ),
        ),
    ];
    // The kernel's interface by itself: an IOAS, RAM in it, HWPTs.
    let ioctl = |file: u8, call: u32, words: [u8; 8]| {
        of_file(file, op(28, call, u64::from_le_bytes(words), 0))
    };
    programs.push((
        "kernel",
        vec![
            op(24, 0, 0, 0),
            op(26, 0, 0, 0),
            op(27, 0, 0, 0),
            // BIND: device 1. IOAS_ALLOC: 2. IOAS_MAP.
            ioctl(1, 22, [0, 5, 0, 0, 0, 0, 0, 0]),
            ioctl(0, 1, [0; 8]),
            ioctl(0, 5, [7 << 3 | 6, 2 << 3 | 1, 3, 15 << 3 | 4, 0, 0, 0, 0]),
            // HWPT_ALLOC of a parent, 3; GET_HW_INFO; FAULT_QUEUE_ALLOC, 4.
            ioctl(0, 9, [1 << 3 | 6, 9 << 3 | 2, 0, 0, 0, 0, 0, 0]),
            ioctl(0, 10, [0, 1 << 3 | 1, 3, 0, 0, 0, 0, 0]),
            ioctl(0, 14, [0; 8]),
            // ATTACH.
            ioctl(1, 23, [0, 3 << 3 | 1, 0, 0, 0, 0, 0, 0]),
            of_file(1, op(36, 0, 0x1008, 0)),
            of_file(1, op(37, 0, 0x1000, 0)),
            of_file(2, op(34, 0, 0, 0)),
            // DETACH.
            ioctl(1, 24, [0; 8]),
            op(38, 3, 8, 0),
            op(35, 0, 0, 0),
        ],
    ));
    for (name, ops) in programs {
        // Two scripts for the callbacks: they do nothing, or call whatever there is.
        for (kind, script) in [("", [0; 32]), ("-calling", std::array::from_fn(script))] {
            let records: Vec<u8> = ops.iter().flat_map(c_abi::Op::encode).collect();
            let content = [script.as_slice(), &records].concat();
            seeds.insert(("c_abi", format!("{name}{kind}")), content);
        }
    }
}

fn script(place: usize) -> u8 {
    (place * 37 + 1) as u8
}

/// States of a guest of each kind of unit, and those of the first release that are kept.
fn snapshot(seeds: &mut Seeds) {
    let mut put = |name: String, kind: usize, flags: u8, mut state: Vec<u8>| {
        // What the target puts in anyway.
        if flags & 2 == 0 {
            state[16..32].fill(0);
        }
        if flags & 1 == 0 {
            let end = state.len() - 4;
            state[end..].fill(0);
        }
        let header: [u8; HEADER] = [kind as u8, flags, 0x83, 0x02, 0x09, 0x15, 0x41, 0x1c];
        let content = [header.as_slice(), &state].concat();
        seeds.insert(("snapshot", name), content);
    };
    for (kind, (name, ..)) in KINDS.iter().enumerate() {
        let state = busy(kind).machine.unit().save();
        put((*name).to_owned(), kind, 0, state.clone());
        put(format!("{name}-busy"), kind, 4 | 8, state);
    }
    let kept: [(&str, usize, &[u8]); 4] = [
        (
            "v1-everything",
            0,
            include_bytes!("../../tests/snapshots/v1-everything.bin"),
        ),
        (
            "v1-groups",
            0,
            include_bytes!("../../tests/snapshots/v1-groups.bin"),
        ),
        (
            "v1-first-stage",
            5,
            include_bytes!("../../tests/snapshots/v1-first-stage.bin"),
        ),
        (
            "v1-legacy",
            5,
            include_bytes!("../../tests/snapshots/v1-legacy.bin"),
        ),
    ];
    for (name, kind, state) in kept {
        put(name.to_owned(), kind, 0, state.to_vec());
        put(format!("{name}-as-it-is"), kind, 1 | 2, state.to_vec());
    }
}

fn decoders(seeds: &mut Seeds) {
    let mut put = |name: &str, kind: u8, words: &[u64]| {
        let mut content = vec![kind, 0, 0, 1, 0, 0, 0, 0];
        content.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        seeds.insert(("decoders", name.to_owned()), content);
    };
    let descriptors: Vec<u64> = [
        [1 | 3 << 4 | 5 << 16 | 0x18 << 32, 0],
        [2 | 3 << 4 | 5 << 16, 0x1000 | 1 << 6 | 2],
        [3 | 0x18 << 32, 0x3001],
        [4 | 1 << 4 | 3 << 27 | 9 << 32, 0],
        [5 | 7 << 4 | 1 << 32, 0x3_0000],
        [6 | 3 << 4 | 5 << 16 | 1 << 32, 0x1000 | 9],
        [7 | 1 << 4 | 5 << 16 | 1 << 32, 0],
        [8 | 0x18 << 16 | 1 << 32, 0x3800],
        [9 | 1 << 4 | 0x18 << 16 | 1 << 32, 3 << 3],
    ]
    .into_iter()
    .flat_map(|[low, high]| [low, high, 0, 0])
    .collect();
    put("descriptors", 0, &descriptors);
    put(
        "pages",
        1,
        &[0x1000, 0x1234_5009, u64::MAX, 0xfff_f000 | 51],
    );
    put(
        "ranges",
        2,
        &[0x1000, 8, 0x2000, 8, 0x5000, 9, 0x1000, 1 << 3],
    );
    put("layouts", 3, &[0, u64::MAX, 0x0123_4567_89ab_cdef]);
    put(
        "interrupts",
        4,
        &[0xfee0_0030, 0, 0xfee0_0058, 1, 1 | 0x30 << 16 | 1 << 40, 0],
    );
    let entries = [
        0xf_ffff,
        5,
        0,
        0b1101,
        0,
        0,
        0,
        0,
        1 | 3 << 6 | 2 << 2,
        7 | 1 << 23,
        0,
    ];
    put("tables", 5, &entries);
    put("walks", 6, &[0x1008, 0x2000, 0x3000, 7, 0x8007, 0x87, 3]);
    put("capabilities", 7, &[0xf_ffff]);
}
