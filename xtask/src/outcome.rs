//! What guest and unit said in a run.

use std::fmt::{self, Display};

use serde_json::{Map, Value};

use crate::boot::DISKS;
use crate::scenario::Scenario;
use crate::ui::Result;

/// What came of a run.
pub struct Outcome {
    pub scenario: Scenario,
    pub seconds: f64,
    pub guest: Guest,
    /// Expected SHA-256 of each of DISKS.
    pub sums: Vec<String>,
    /// The unit's state at the end, or why QEMU did not tell.
    pub unit: Result<Unit>,
    /// The same when the guest was done before it came up again.
    pub earlier: Vec<Result<Unit>>,
    /// The guest gave a sign of life after the unit had been asked.
    pub alive: bool,
    /// The kernel's last words, if it wrote any.
    pub console: String,
    /// The first complaint of the kernel about itself.
    pub complaint: Option<String>,
}

impl Outcome {
    pub fn came_up_as_often_as_it_should(&self) -> bool {
        self.guest.earlier.len() + 1 == self.scenario.then.boots()
    }
}

/// What a kernel writes when its own memory is not what it should be.
const COMPLAINTS: &[&str] = &[
    "BUG: ",
    "Oops: ",
    "Bad page",
    "bad pgd",
    "bad p4d",
    "bad pud",
    "bad pmd",
    "general protection fault",
    "Kernel panic",
    "stack guard",
    "segfault",
];

pub fn complaint(console: &str) -> Option<String> {
    let line = console
        .lines()
        .find(|line| COMPLAINTS.iter().any(|word| line.contains(word)))?;
    // Without the time stamp.
    let text = line.split_once("] ").map_or(line, |(_, text)| text);
    Some(text.trim().to_owned())
}

/// What the guest said, as tests/guest/init writes it.
#[derive(Default)]
pub struct Guest {
    pub kernel: Option<String>,
    /// The unit as the guest's kernel sees it.
    pub units: Vec<String>,
    /// PCI address, type of its domain, driver.
    pub groups: Vec<[String; 3]>,
    pub reads: Vec<Read>,
    pub lease: Option<String>,
    /// How many of its interrupts are remapped.
    pub interrupts: u64,
    /// What tests/guest/nesting.c said: subject, and what of it.
    pub nesting: Vec<(String, String)>,
    pub done: bool,
    pub beats: u64,
    /// What it said before it came up again.
    pub earlier: Vec<Self>,
}

/// One pass over a disk: its checksum, or `error ...`.
pub struct Read {
    pub disk: String,
    pub block: String,
    pub got: String,
}

/// The unit as QEMU shows it.
pub struct Unit {
    pub cap: u64,
    pub ecap: u64,
    /// The interrupt remapping table in force.
    pub irta: u64,
    pub stats: Map<String, Value>,
    pub devices: Vec<Device>,
    /// The guest's tables have these for requests without PASID, by source ID.
    pub entries: Vec<(String, Entry)>,
}

/// What the guest's tables say of a device.
#[derive(Debug, PartialEq)]
pub enum Entry {
    /// There is a context entry of legacy mode.
    Legacy,
    /// The PASID-table entry's first three quadwords, the lowest first.
    Scalable([u64; 3]),
}

impl Entry {
    /// Of `0x2:0x1:0x0`, the highest quadword first.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = [0; 3];
        let mut parts = text.rsplit(':');
        for word in &mut words {
            *word = u64::from_str_radix(parts.next()?.trim().strip_prefix("0x")?, 16).ok()?;
        }
        Some(Self::Scalable(words))
    }

    /// PGTT (VT-d 9.6), if the entry is present.
    pub fn pgtt(&self) -> Option<u64> {
        match self {
            Self::Scalable([low, ..]) if low & 1 != 0 => Some(low >> 6 & 7),
            _ => None,
        }
    }

    /// Levels of the first stage, by FSPM.
    pub fn first_stage_levels(&self) -> Option<u64> {
        match self {
            Self::Scalable([_, _, high]) => Some(4 + (high >> 2 & 3)),
            Self::Legacy => None,
        }
    }
}

impl Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy => write!(f, "of legacy mode"),
            Self::Scalable([low, middle, high]) => write!(f, "{high:#x}:{middle:#x}:{low:#x}"),
        }
    }
}

/// A register's contents in a dump of all: name, offset and contents in a line.
pub fn register(dump: &str, name: &str) -> Option<u64> {
    let mut lines = dump.lines().map(str::split_whitespace);
    let line = lines.find(|words| words.clone().next() == Some(name))?;
    u64::from_str_radix(line.last()?.strip_prefix("0x")?, 16).ok()
}

/// The entries in a dump of the guest's tables, laid out as Linux's dmar_translation_struct: source ID,
/// root entry, context entry, PASID (-1 in legacy mode) and PASID-table entry.
pub fn entries(dump: &str) -> Vec<(String, Entry)> {
    let entry = |line: &str| {
        let columns: Vec<_> = line.split('\t').map(str::trim).collect();
        let entry = match columns.as_slice() {
            [_, _, _, "-1", _] => Entry::Legacy,
            [_, _, _, "0", entry] => Entry::parse(entry)?,
            _ => return None,
        };
        Some((columns[0].to_owned(), entry))
    };
    dump.lines().filter_map(entry).collect()
}

impl Unit {
    pub fn stat(&self, name: &str) -> u64 {
        self.stats.get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// What the guest's tables say of the device with this source ID.
    pub fn entry(&self, source_id: &str) -> Option<&Entry> {
        let entry = self.entries.iter().find(|(id, _)| id == source_id)?;
        Some(&entry.1)
    }

    pub fn device(&self, id: &str) -> Option<&Device> {
        self.devices.iter().find(|d| d.id == id)
    }
}

/// A device behind the unit.
pub struct Device {
    pub id: String,
    pub kind: String,
    pub source_id: String,
    pub state: String,
    /// The numbers, by the names that QEMU gives them.
    pub all: Value,
}

impl Device {
    pub fn new(all: Value) -> Self {
        let text = |name: &str| all[name].as_str().unwrap_or("").to_owned();
        let (id, kind, source_id, state) =
            (text("id"), text("type"), text("source-id"), text("state"));
        Self {
            id,
            kind,
            source_id,
            state,
            all,
        }
    }

    pub fn number(&self, name: &str) -> u64 {
        self.all[name].as_u64().unwrap_or(0)
    }
}

impl Guest {
    pub fn parse(text: &str) -> Self {
        let mut guest = Self::default();
        // The last line may be incomplete.
        let complete = &text[..text.rfind('\n').map_or(0, |n| n + 1)];
        for line in complete.lines() {
            let (word, rest) = line
                .trim_end()
                .split_once(' ')
                .unwrap_or((line.trim_end(), ""));
            let mut words = rest.splitn(3, ' ').map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            match word {
                "kernel" => {
                    if guest.kernel.is_some() {
                        let mut earlier = std::mem::take(&mut guest);
                        guest.earlier.append(&mut earlier.earlier);
                        guest.earlier.push(earlier);
                    }
                    guest.kernel = Some(rest.to_owned());
                }
                "unit" => guest.units.push(rest.to_owned()),
                "group" => guest.groups.push([next(), next(), next()]),
                "disk" => {
                    guest.reads.push(Read {
                        disk: next(),
                        block: next(),
                        got: next(),
                    });
                }
                "lease" => guest.lease = Some(rest.to_owned()),
                "interrupts" => guest.interrupts = rest.parse().unwrap_or(0),
                "nesting" => {
                    let (subject, what) = rest.split_once(' ').unwrap_or((rest, ""));
                    guest.nesting.push((subject.to_owned(), what.to_owned()));
                }
                "done" => guest.done = true,
                "alive" => guest.beats = rest.parse().unwrap_or(0),
                _ => {}
            }
        }
        guest
    }

    /// What the nesting test said of `subject`.
    pub fn nested(&self, subject: &str) -> Option<&str> {
        let fact = self.nesting.iter().find(|(word, _)| word == subject)?;
        Some(&fact.1)
    }

    pub fn progress(&self) -> String {
        let passes = DISKS.len() * 3;
        let lease = if self.lease.is_some() {
            ", lease taken"
        } else {
            ""
        };
        match &self.kernel {
            None => "waiting for the kernel".to_owned(),
            Some(kernel) => format!(
                "Linux {kernel}: {} of {passes} reads{lease}",
                self.reads.len()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_a_dump() {
        let dump = "IOMMU dmar0: Root Table Address: 0x2000\n\
            B.D.F\tRoot_entry\tContext_entry\tPASID\tPASID_table_entry\n\
            00:01.0\t0x0:0x3001\t0x0:0x4001\t0     \t0x4:0x1:0x49\n\
            00:01.0\t0x0:0x3001\t0x0:0x4001\t7     \t0x0:0x1:0x81\n\
            00:02.0\t0x0:0x3001\t0x0:0x4001\t-1    \t0x0:0x0:0x0\n";
        let entries = entries(dump);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].0, "00:01.0");
        assert_eq!(entries[0].1, Entry::Scalable([0x49, 1, 4]));
        assert_eq!(entries[0].1.pgtt(), Some(1));
        assert_eq!(entries[0].1.first_stage_levels(), Some(5));
        assert_eq!(entries[1], ("00:02.0".to_owned(), Entry::Legacy));
        assert_eq!(Entry::Scalable([0x40, 0, 0]).pgtt(), None);
    }

    #[test]
    fn registers_are_found_in_a_dump() {
        let dump = "Name\t\t\tOffset\t\tContents\nIRTA            \t0xb8\t\t0x000000000100080f\n";
        assert_eq!(register(dump, "IRTA"), Some(0x0100_080f));
        assert_eq!(register(dump, "IRT"), None);
    }

    #[test]
    fn a_guest_that_comes_up_again_is_heard_anew() {
        let guest =
            Guest::parse("kernel a\nlease 1 2\ndone\nalive 1\nkernel b\nnesting dma x ok\n");
        assert_eq!(guest.earlier.len(), 1);
        assert!(guest.earlier[0].done && guest.earlier[0].lease.is_some());
        assert!(!guest.done && guest.lease.is_none());
        assert_eq!(guest.nested("dma"), Some("x ok"));
    }
}
