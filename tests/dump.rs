//! Dumps: their text against small tables, their bounds, and that they only look.

mod common;

use std::ops::RangeInclusive;

use common::*;
use nested_vtd::unit::{Config, Dump, HostKind};

fn lines(guest: &Guest, what: Dump) -> Vec<String> {
    let mut lines = Vec::new();
    let mut take = |line: &str| lines.push(line.to_owned());
    guest.unit.dump(what, &mut take).unwrap();
    lines
}

/// A guest whose device translates through a first stage.
fn running() -> Guest {
    let mut guest = Guest::new(HostKind::None);
    guest.build_tables();
    guest.enable();
    guest
}

/// Name, offset and contents of a line of the register dump.
fn register(line: &str) -> (&str, u64, u64) {
    let mut fields = line.split_whitespace();
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16);
    let name = fields.next().unwrap();
    let offset = number(fields.next().unwrap()).unwrap();
    let contents = number(fields.next().unwrap()).unwrap();
    assert_eq!(fields.next(), None);
    // Linux: "%-16s\t0x%02x\t\t0x%016llx"
    assert_eq!(
        line,
        format!("{name:<16}\t0x{offset:02x}\t\t0x{contents:016x}")
    );
    (name, offset, contents)
}

#[test]
fn registers_are_listed_as_linux_does() {
    let guest = running();
    guest.write32(0x40, 0xfee0_1004);
    let lines = lines(&guest, Dump::Registers { base: 0xfed9_0000 });
    assert_eq!(lines[0], "IOMMU: dmar0 Register Base Address: fed90000");
    assert_eq!(lines[1], "Name\t\t\tOffset\t\tContents");
    assert_eq!(lines[2], "VER             \t0x00\t\t0x0000000000000060");
    assert_eq!(lines.last().unwrap(), "");
    let registers: Vec<_> = lines[2..lines.len() - 1]
        .iter()
        .map(|line| register(line))
        .collect();
    assert_eq!(registers.len(), 17 + 25 + 20);
    for (index, &(name, offset, contents)) in registers.iter().enumerate() {
        // Linux reads the first 17 as 32 bits and the others as 64.
        let read = if index < 17 {
            guest.read32(offset).into()
        } else {
            guest.read64(offset)
        };
        assert_eq!(contents, read, "{name}");
    }
    let find = |wanted| {
        let found = registers.iter().find(|(name, ..)| *name == wanted);
        found.map(|&(_, offset, contents)| (offset, contents))
    };
    assert_eq!(find("GSTS"), Some((0x1c, 0xc400_0000)));
    assert_eq!(find("FEADDR"), Some((0x40, 0xfee0_1004)));
    assert_eq!(find("RTADDR"), Some((0x20, ROOT | 1 << 10)));
    assert_eq!(find("IQA"), Some((0x90, QUEUE | 0x800)));
    assert_eq!(find("PEUADDR"), Some((0xec, 0)));
    assert_eq!(find("MTRR_PHYSMASK9"), Some((0x218, 0)));
}

#[test]
fn the_register_dump_counts_nothing() {
    let guest = running();
    let before = guest.unit.stats();
    lines(&guest, Dump::Registers { base: 0 });
    assert_eq!(guest.unit.stats(), before);
}

#[test]
fn the_queue_is_listed_as_linux_does() {
    let mut guest = running();
    guest.submit(&[pasid_cache(), wait(7)]);
    let lines = lines(&guest, Dump::Queue);
    let expected = [
        "Invalidation queue on IOMMU: dmar0",
        " Base: 0x9000\tHead: 2\tTail: 2",
        "Index\t\tqw0\t\t\tqw1\t\t\tqw2\t\t\tqw3\t\t\tstatus",
        "    0\t0000000000050017\t0000000000000000\t0000000000000000\t0000000000000000\t0000000000000000",
        "    1\t0000000700000025\t000000000000a000\t0000000000000000\t0000000000000000\t0000000000000000",
        "    2\t0000000000000000\t0000000000000000\t0000000000000000\t0000000000000000\t0000000000000000",
    ];
    assert_eq!(lines[..expected.len()], expected);
    // 4 KiB of 256-bit descriptors, and the empty line.
    assert_eq!(lines.len(), 3 + 128 + 1);
    assert_eq!(lines.last().unwrap(), "");
}

#[test]
fn a_stopped_queue_shows_where_and_why() {
    let mut guest = running();
    guest.submit(&[wait(7), [0xf, 0], wait(8)]);
    let lines = lines(&guest, Dump::Queue);
    assert_eq!(lines[1], " Base: 0x9000\tHead: 1\tTail: 3");
    let status = |index: usize| lines[3 + index].rsplit('\t').next().unwrap().to_owned();
    assert_eq!(status(0), format!("{:016x}", 0));
    assert_eq!(status(1), format!("{:016x}", 1));
    assert_eq!(status(2), format!("{:016x}", 1));
    assert_eq!(status(3), format!("{:016x}", 0));
    assert_eq!(
        lines[lines.len() - 2],
        "Queue error at index 1: IQERCD 0x0000000000000003"
    );
}

#[test]
fn a_queue_that_wrapped_has_its_pending_descriptors_at_both_ends() {
    let mut guest = running();
    guest.submit(&[wait(7); 126]);
    // Stopped at index 126; the tail goes on to 1.
    guest.submit(&[[0xf, 0], wait(8), wait(9)]);
    let lines = lines(&guest, Dump::Queue);
    assert_eq!(lines[1], " Base: 0x9000\tHead: 126\tTail: 1");
    let pending: Vec<usize> = (0..128)
        .filter(|index| lines[3 + index].ends_with("\t0000000000000001"))
        .collect();
    assert_eq!(pending, [0, 126, 127]);
}

#[test]
fn a_narrow_queue_has_two_columns_and_may_be_off_or_elsewhere() {
    let guest = Guest::new(HostKind::None);
    assert_eq!(
        lines(&guest, Dump::Queue),
        ["Queued invalidation is not enabled on dmar0"]
    );
    guest.write64(0x90, QUEUE);
    guest.write32(0x18, 1 << 26);
    let narrow = lines(&guest, Dump::Queue);
    assert_eq!(narrow[2], "Index\t\tqw0\t\t\tqw1\t\t\tstatus");
    assert_eq!(
        narrow[3],
        "    0\t0000000000000000\t0000000000000000\t0000000000000000"
    );
    assert_eq!(narrow.len(), 3 + 256 + 1);

    guest.write32(0x18, 0);
    guest.write64(0x90, RAM_SIZE);
    guest.write32(0x18, 1 << 26);
    assert_eq!(lines(&guest, Dump::Queue)[3..], ["    0\tnot in RAM", ""]);
}

#[test]
fn a_long_queue_is_cut() {
    let guest = Guest::new(HostKind::None);
    guest.write64(0x90, 0x10_0000 | 7);
    guest.write32(0x18, 1 << 26);
    let lines = lines(&guest, Dump::Queue);
    assert_eq!(lines.len(), 16384 + 1);
    assert_eq!(lines.last().unwrap(), "... cut after 16384 lines");
}

#[test]
fn tables_are_listed_as_linux_does() {
    let guest = running();
    // 00:1f.2 has its entry in the upper context table, with PASID 65 only.
    guest.poke(ROOT + 8, 0xb000 | 1);
    guest.poke(0xb000 + (0xfa & 0x7f) * 32, 0xc000 | 1);
    guest.poke(0xc000 + 8, 0xd000 | 1);
    guest.poke(0xd000 + 64, 1 << 6 | 1);
    guest.poke(0xd000 + 64 + 16, PML4 | 4);
    let head = [
        "IOMMU dmar0: Root Table Address: 0x1000",
        "B.D.F\tRoot_entry\t\t\t\tContext_entry\t\t\t\tPASID\tPASID_table_entry",
    ];
    let first = "00:03.0\t0x000000000000b001:0x0000000000002001\t\
                 0x0000000000000000:0x0000000000003001\t\
                 0     \t0x0000000000005000:0x0000000000800005:0x0000000000000041";
    let second = "00:1f.2\t0x000000000000b001:0x0000000000002001\t\
                  0x0000000000000000:0x000000000000c001\t\
                  65    \t0x0000000000005004:0x0000000000000000:0x0000000000000041";
    let all = lines(&guest, Dump::Tables { device: None });
    assert_eq!(all, [head[0], head[1], first, second, ""]);
    let device = Some(guest.device);
    let one = lines(&guest, Dump::Tables { device });
    assert_eq!(one, [head[0], head[1], first, ""]);
}

#[test]
fn legacy_tables_have_no_pasid() {
    let guest = Guest::new(HostKind::None);
    guest.poke(ROOT, CONTEXT | 1);
    guest.poke(CONTEXT + u64::from(SOURCE_ID) * 16, PML4 | 1);
    guest.poke(CONTEXT + u64::from(SOURCE_ID) * 16 + 8, 5 << 8 | 2);
    guest.write64(0x20, ROOT);
    guest.write32(0x18, 1 << 30);
    assert_eq!(
        lines(&guest, Dump::Tables { device: None }),
        ["DMA Remapping is not enabled on dmar0"]
    );
    guest.write32(0x18, 1 << 31);
    let lines = lines(&guest, Dump::Tables { device: None });
    assert_eq!(
        lines[2..],
        [
            "00:03.0\t0x0000000000000000:0x0000000000002001\t\
             0x0000000000000502:0x0000000000005001\t\
             -1    \t0x0000000000000000:0x0000000000000000:0x0000000000000000",
            ""
        ]
    );
}

#[test]
fn tables_that_point_to_each_other_are_cut() {
    let guest = running();
    // Every root entry, context entry and directory entry is present.
    let (directory, table) = (0x10_0000, 0xd000);
    for index in 0..512 {
        guest.poke(ROOT + index * 8, CONTEXT | 1);
        guest.poke(CONTEXT + index * 8, directory | 7 << 9 | 1);
    }
    for index in 0..1 << 14 {
        guest.poke(directory + index * 8, table | 1);
    }
    let nothing = lines(&guest, Dump::Tables { device: None });
    assert_eq!(
        nothing.last().unwrap(),
        "... cut after 4194304 table entries"
    );
    assert_eq!(nothing.len(), 3);
    guest.poke(table, 1);
    let much = lines(&guest, Dump::Tables { device: None });
    assert_eq!(much.last().unwrap(), "... cut after 16384 lines");
}

#[test]
fn a_device_that_is_none_is_refused() {
    let guest = running();
    let device = Some(77);
    let error = guest
        .unit
        .dump(Dump::Tables { device }, &mut |_| panic!("a line"))
        .unwrap_err();
    assert_eq!(error.errno(), libc::ENOENT);
}

#[test]
fn a_line_may_call_the_unit() {
    let guest = running();
    let mut seen = 0;
    let mut nested = |_: &str| {
        guest.read32(0x1c);
        guest.write32(0x40, 0xfee0_0000);
        seen += 1;
    };
    guest.unit.dump(Dump::Queue, &mut nested).unwrap();
    assert_eq!(seen, 3 + 128 + 1);
}

#[test]
fn interrupt_entries_are_listed_as_linux_does() {
    let features = Config::DEFAULT.features.with_interrupt_remapping(true);
    let guest = Guest::with(Config {
        features,
        ..Config::DEFAULT
    });
    let head = "Remapped Interrupt supported on IOMMU: dmar0";
    let off = [head, "Interrupt Remapping is not enabled", "", "****", ""];
    assert_eq!(lines(&guest, Dump::Interrupts), off);
    // 16 entries; the last is the 17th and not in the table.
    let table = 0xb000;
    let entries = [
        (0, 0x0000_0100_0021_0001, 0x0004_00ff),
        (3, 0x0000_0002_00ec_000d, 0x0004_0018),
        (4, 0x0000_0002_00ec_000c, 0x0004_0018),
        (5, 0x0000_0002_00ec_8001, 0x0004_0018),
        (15, 0x0000_0000_0030_0001, 0x0004_01fa),
        (16, 0x0000_0000_0030_0001, 0x0004_01fa),
    ];
    for (index, low, high) in entries {
        guest.poke(table + index * 16, low);
        guest.poke(table + index * 16 + 8, high);
    }
    guest.write64(0xb8, table | 3);
    guest.write32(0x18, 1 << 24);
    assert_eq!(lines(&guest, Dump::Interrupts), off);
    guest.write32(0x18, 1 << 25);
    // What is written without SIRTP is not in force.
    guest.write64(0xb8, 0xc000 | 3);
    assert_eq!(
        lines(&guest, Dump::Interrupts),
        [
            head,
            " IR table address:b000",
            " Entry SrcID   DstID    Vct IRTE_high\t\tIRTE_low",
            " 0     00:1f.7 00000100 21  00000000000400ff\t0000010000210001",
            " 3     00:03.0 00000002 ec  0000000000040018\t0000000200ec000d",
            " 15    01:1f.2 00000000 30  00000000000401fa\t0000000000300001",
            "",
            "****",
            "",
        ]
    );
}

#[test]
fn without_interrupt_remapping_there_is_nothing_to_list() {
    let guest = Guest::new(HostKind::None);
    assert_eq!(lines(&guest, Dump::Interrupts), ["****", ""]);
}

/// A unit that has everything, with nested tables for the device: the second stage
/// maps the first 2 MiB onto themselves and 4 MiB to 2 MiB, and the first stage maps
/// 0x5000 to 0x40_1000.
fn nested() -> Guest {
    let features = Config::default()
        .features
        .with_second_stage(true)
        .with_second_stage_2m(true)
        .with_nested(true);
    let mut guest = Guest::with(Config {
        features,
        pasid_bits: 8,
        ..Config::default()
    });
    guest.build_tables();
    guest.map(0x5000, 0x40_1000);
    guest.poke(SECOND_STAGE, (SECOND_STAGE + 0x1000) | 3);
    guest.poke(SECOND_STAGE + 0x1000, (SECOND_STAGE + 0x2000) | 3);
    guest.poke(SECOND_STAGE + 0x2000, 0x83);
    guest.poke(SECOND_STAGE + 0x2010, 0x20_0000 | 0x81);
    // AW 2 is 48 bits, PGTT 3 nested.
    guest.poke(PASID_TABLE, SECOND_STAGE | 3 << 6 | 2 << 2 | 1);
    guest.enable();
    guest
}

const SECOND_STAGE: u64 = 0x2_0000;

fn walk(guest: &Guest, address: u64) -> Vec<String> {
    let what = Dump::Walk {
        device: guest.device,
        pasid: None,
        address,
    };
    lines(guest, what)
}

/// The lines of the tables of [`common`].
const TABLE_LINES: [&str; 4] = [
    "Root entry            @0x0000000000001000 0x0000000000002001 P",
    "Context entry         @0x0000000000002300 0x0000000000003001 0x0000000000000000 \
     0x0000000000000000 0x0000000000000000 P PDTS=0 RID_PASID=0x0",
    "PASID directory entry @0x0000000000003000 0x0000000000004001 P",
    "PASID entry           @0x0000000000004000 0x0000000000000041 0x0000000000800005 \
     0x0000000000005000 0x0000000000000000 0x0000000000000000 0x0000000000000000 \
     0x0000000000000000 0x0000000000000000 P PWSNP PGTT=1 AW=0 FSPM=0 DID=5",
];

#[test]
fn a_walk_shows_each_entry_and_the_verdicts() {
    let guest = running();
    guest.map(0x5000, 0x9000);
    guest.poke(PT + 5 * 8, 0x9000 | 5);
    let lines = walk(&guest, 0x5678);
    assert_eq!(lines[0], "Device 00:03.0 address 0x5678");
    assert_eq!(lines[1..5], TABLE_LINES);
    assert_eq!(
        lines[5..],
        [
            "First-stage PML4E     @0x0000000000005000 0x0000000000006007 P RW US",
            "First-stage PDPE      @0x0000000000006000 0x0000000000007007 P RW US",
            "First-stage PDE       @0x0000000000007000 0x0000000000008007 P RW US",
            "First-stage PTE       @0x0000000000008028 0x0000000000009005 P US",
            "read: goes to 0x9678, page of 0x1000 bytes, may read execute",
            "write: refused: fault 0x85 first_stage_read_only",
        ]
    );
    // Only looked at: no accessed bits, no counters, no faults.
    assert_eq!(guest.peek(PML4), PDPT | PWU);
    assert_eq!(guest.unit.stats().translations, 0);
    assert_eq!(guest.unit.stats().faults, 0);
    assert_eq!(guest.read32(0x34), 0);
}

#[test]
fn a_walk_ends_where_it_is_refused() {
    let guest = running();
    guest.poke(PD, 0);
    let refused = walk(&guest, 0x5678);
    assert_eq!(
        refused[5..],
        [
            "First-stage PML4E     @0x0000000000005000 0x0000000000006007 P RW US",
            "First-stage PDPE      @0x0000000000006000 0x0000000000007007 P RW US",
            "First-stage PDE       @0x0000000000007000 0x0000000000000000",
            "read: refused: fault 0x71 first_stage_not_present",
            "write: refused: fault 0x71 first_stage_not_present",
        ]
    );
    guest.poke(PASID_TABLE, 2);
    let refused = walk(&guest, 0x5678);
    assert_eq!(refused.len(), 1 + 4 + 1);
    assert_eq!(
        refused[5],
        "refused: fault 0x59 pasid_not_present, not recorded (FPD)"
    );
    guest.poke(DIRECTORY, RAM_SIZE | 1);
    let refused = walk(&guest, 0x5678);
    assert_eq!(
        refused[4..],
        [
            "PASID entry           @0x0000000000400000 not in RAM",
            "refused: fault 0x58 pasid_access",
        ]
    );
}

#[test]
fn a_nested_walk_shows_both_stages_as_they_are_read() {
    let guest = nested();
    let lines = walk(&guest, 0x5678);
    let second = [
        "Second-stage PML4E    @0x0000000000020000 0x0000000000021003 R W",
        "Second-stage PDPE     @0x0000000000021000 0x0000000000022003 R W",
        "Second-stage PDE      @0x0000000000022000 0x0000000000000083 R W PS",
    ];
    let first = [
        "First-stage PML4E     @0x0000000000005000 0x0000000000006007 P RW US",
        "First-stage PDPE      @0x0000000000006000 0x0000000000007007 P RW US",
        "First-stage PDE       @0x0000000000007000 0x0000000000008007 P RW US",
        "First-stage PTE       @0x0000000000008028 0x0000000000401007 P RW US",
    ];
    let mut expected: Vec<&str> = Vec::new();
    for entry in first {
        expected.extend(second);
        expected.push(entry);
    }
    expected.extend(&second[..2]);
    expected.push("Second-stage PDE      @0x0000000000022010 0x0000000000200081 R PS");
    expected.push("read: goes to 0x201678, page of 0x1000 bytes, may read execute");
    expected.push("write: refused: fault 0x79 second_stage_denied");
    assert_eq!(lines[5..], expected);
}

#[test]
fn a_walk_says_why_there_is_nothing_to_walk() {
    let guest = Guest::new(HostKind::None);
    assert_eq!(
        walk(&guest, 0x5000)[1..],
        ["translation is off: goes to 0x5000"]
    );
    let guest = running();
    guest.set_pasid_entry(4);
    let lines = walk(&guest, 0x5000);
    assert_eq!(
        lines[5..],
        [
            "pass-through: no tables",
            "read: goes to 0x5000, page of 0x1000 bytes, may read write execute",
            "write: goes to 0x5000, page of 0x1000 bytes, may read write execute",
        ]
    );
    assert_eq!(
        walk(&guest, 0xfee0_1000)[1..],
        ["the address is in the interrupt range: no DMA"]
    );
}

#[test]
fn a_walk_with_pasid_uses_its_entry() {
    let guest = nested();
    let what = Dump::Walk {
        device: guest.device,
        pasid: Some(3),
        address: 0x5000,
    };
    let denied = lines(&guest, what.clone());
    assert_eq!(denied[0], "Device 00:03.0 with pasid 3 address 0x5000");
    assert_eq!(denied.last().unwrap(), "refused: fault 0x45 pasid_disabled");
    guest.poke(CONTEXT + u64::from(SOURCE_ID) * 32, DIRECTORY | 1 << 3 | 1);
    let found = lines(&guest, what);
    assert!(
        found[2].ends_with(" P PASIDE PDTS=0 RID_PASID=0x0"),
        "{}",
        found[2]
    );
    assert!(found[4].starts_with("PASID entry           @0x00000000000040c0 "));
}

fn mappings(guest: &Guest, range: RangeInclusive<u64>) -> Vec<String> {
    let what = Dump::Mappings {
        device: guest.device,
        pasid: None,
        range,
    };
    lines(guest, what)
}

const COLUMNS: &str = "IOVA_PFN         \tPML5E             \tPML4E             \t\
                       PDPE              \tPDE               \tPTE";

#[test]
fn mappings_are_listed_as_linux_does() {
    let guest = running();
    guest.map(0x5000, 0x9000);
    guest.poke(PD + 8, 0x20_0000 | 0x87);
    // The upper half, which Linux does not extend.
    guest.poke(PML4 + 511 * 8, PDPT | PWU);
    guest.poke(PDPT + 511 * 8, 0x4000_0000 | 0x87);
    let all = mappings(&guest, 0..=u64::MAX);
    let device = "Device 0000:00:03.0 with pasid 0 @0x5000";
    assert_eq!(
        all,
        [
            device,
            COLUMNS,
            "0x0000000000005 |\t0x0000000000000000\t0x0000000000006007\t0x0000000000007007\t\
             0x0000000000008007\t0x0000000000009007",
            "0x0000000000200 |\t0x0000000000000000\t0x0000000000006007\t0x0000000000007007\t\
             0x0000000000200087",
            "0x0000007fc0000 |\t0x0000000000000000\t0x0000000000006007\t0x0000000040000087",
            "0x0000ff8000005 |\t0x0000000000000000\t0x0000000000006007\t0x0000000000007007\t\
             0x0000000000008007\t0x0000000000009007",
            "0x0000ff8000200 |\t0x0000000000000000\t0x0000000000006007\t0x0000000000007007\t\
             0x0000000000200087",
            "0x0000ffffc0000 |\t0x0000000000000000\t0x0000000000006007\t0x0000000040000087",
        ]
    );
    assert_eq!(mappings(&guest, 0..=0x5fff), all[..3]);
    assert_eq!(mappings(&guest, 0x6000..=0x6fff), all[..2]);
}

#[test]
fn nested_mappings_are_those_of_both_stages() {
    let guest = nested();
    let nothing = "\t0x0000000000000000";
    assert_eq!(
        mappings(&guest, 0..=u64::MAX),
        [
            "Device 0000:00:03.0 with pasid 0 @0x20000",
            COLUMNS,
            &format!(
                "0x0000000000000 |{nothing}\t0x0000000000021003\t0x0000000000022003\t\
                 0x0000000000000083"
            ),
            &format!(
                "0x0000000000400 |{nothing}\t0x0000000000021003\t0x0000000000022003\t\
                 0x0000000000200081"
            ),
            "Device 0000:00:03.0 with pasid 0 first stage @0x5000",
            COLUMNS,
            &format!(
                "0x0000000000005 |{nothing}\t0x0000000000006007\t0x0000000000007007\t\
                 0x0000000000008007\t0x0000000000401007"
            ),
        ]
    );
}

#[test]
fn legacy_mappings_have_no_pasid() {
    let features = Config::default().features.with_second_stage(true);
    let guest = Guest::with(Config {
        features,
        ..Config::default()
    });
    let context = CONTEXT + u64::from(SOURCE_ID) * 16;
    guest.poke(ROOT, CONTEXT | 1);
    guest.poke(context, PML4 | 1);
    guest.poke(context + 8, 5 << 8 | 1);
    // Three levels.
    guest.poke(PML4, PDPT | 3);
    guest.poke(PDPT, PD | 3);
    guest.poke(PD + 8, 0x7000 | 1);
    guest.write64(0x20, ROOT);
    guest.write32(0x18, 1 << 30);
    guest.write32(0x18, 1 << 31);
    assert_eq!(
        mappings(&guest, 0..=u64::MAX),
        [
            "Device 0000:00:03.0 @0x5000",
            COLUMNS,
            "0x0000000000001 |\t0x0000000000000000\t0x0000000000000000\t0x0000000000006003\t\
             0x0000000000007003\t0x0000000000007001",
        ]
    );
    let lines = walk(&guest, 0x1234);
    assert_eq!(
        lines[1..],
        [
            "Root entry            @0x0000000000001000 0x0000000000002001 0x0000000000000000 P",
            "Context entry         @0x0000000000002180 0x0000000000005001 0x0000000000000501 P \
             TT=0 AW=1 DID=5",
            "Second-stage PDPE     @0x0000000000005000 0x0000000000006003 R W",
            "Second-stage PDE      @0x0000000000006000 0x0000000000007003 R W",
            "Second-stage PTE      @0x0000000000007008 0x0000000000007001 R",
            "read: goes to 0x7234, page of 0x1000 bytes, may read execute",
            "write: refused: fault 0x5 second_stage_denied",
        ]
    );
}

#[test]
fn mappings_say_why_there_are_none_and_are_cut() {
    let guest = Guest::new(HostKind::None);
    let off = ["DMA Remapping is not enabled on dmar0"];
    assert_eq!(mappings(&guest, 0..=u64::MAX), off);
    let guest = running();
    guest.set_pasid_entry(4);
    assert_eq!(
        mappings(&guest, 0..=u64::MAX),
        ["Device 0000:00:03.0 with pasid 0 pass-through"]
    );
    guest.set_pasid_entry(7);
    assert_eq!(
        mappings(&guest, 0..=u64::MAX),
        ["Device 0000:00:03.0 refused: fault 0x5b pasid_translation_type"]
    );
    guest.set_pasid_entry(1);
    for index in 0..512 {
        guest.poke(PML4 + index * 8, PML4 | PWU);
    }
    let much = mappings(&guest, 0..=u64::MAX);
    assert_eq!(much.last().unwrap(), "... cut after 16384 lines");
    // Each of these tables is full, and leads to a table that is empty.
    for index in 0..512 {
        guest.poke(PML4 + index * 8, PDPT | PWU);
        guest.poke(PDPT + index * 8, PD | PWU);
        guest.poke(PD + index * 8, PT | PWU);
    }
    let nothing = mappings(&guest, 0..=u64::MAX);
    assert_eq!(
        nothing.last().unwrap(),
        "... cut after 4194304 table entries"
    );
    assert_eq!(nothing.len(), 3);
}
