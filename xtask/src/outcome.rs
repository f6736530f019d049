//! What guest and unit said in a run.

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
    /// How earlier boots of this run ended that do not count; see `Outcome::crash`.
    pub crashes: Vec<String>,
}

impl Outcome {
    /// How the guest ended, if it crashed or hung although the unit has nothing to answer for: no
    /// fault, no stale use, nothing refused.
    ///
    /// A few boots of a hundred end so under TCG, behind `-device intel-iommu` of the same QEMU as well,
    /// in legacy mode too; none of 25 did without an IOMMU. The cause is not known. Every such boot is
    /// reported, as a fault of the unit that leaves no trace would look alike.
    pub fn crash(&self) -> Option<String> {
        let unit = self.unit.as_ref().ok()?;
        const OUR_FAULT: &[&str] = &[
            "faults",
            "stale-uses",
            "queue-errors",
            "memory-errors",
            "invalidate-errors",
        ];
        // A refused HWPT is meant to give faults.
        let expected = unit.stat("hwpt-alloc-errors") != 0;
        if !expected && OUR_FAULT.iter().any(|name| unit.stat(name) != 0) {
            return None;
        }
        match &self.complaint {
            Some(complaint) => Some(complaint.clone()),
            None => {
                let through = self.guest.used_all() && self.came_up_as_often_as_it_should();
                (!expected && !through).then(|| "it hung".to_owned())
            }
        }
    }

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
    pub stats: Map<String, Value>,
    pub devices: Vec<Device>,
}

impl Unit {
    pub fn stat(&self, name: &str) -> u64 {
        self.stats.get(name).and_then(Value::as_u64).unwrap_or(0)
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

    /// Did it come to the end of each use of a device?
    fn used_all(&self) -> bool {
        self.reads.len() == DISKS.len() * 3 && self.lease.is_some()
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
