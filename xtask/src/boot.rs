//! Boots the guest on the patched QEMU and collects what guest and unit say. The demo and the guest
//! tests of `cargo xtask check` are all a `Scenario` each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::cache::{self, Cache};
use crate::debian::Apt;
use crate::guest::{self, Image};
use crate::host;
use crate::qemu;
use crate::qmp::Qmp;
use crate::ui::{Context, Error, Result, Step, fail, indent, tail};
use crate::workspace::Workspace;

/// What a guest run needs, made or taken from the cache.
pub struct Lab {
    qemu: PathBuf,
    firmware: PathBuf,
    image: Image,
}

impl Lab {
    pub fn prepare(workspace: &Workspace, cache: &Cache, update: bool) -> Result<Self> {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK, host::BUILD, host::GUEST])?;
        let apt = Apt::open(cache, update)?;
        let image = guest::prepare(workspace, cache, &apt)?;
        let firmware = qemu::firmware(cache, &apt)?;
        let qemu = qemu::build(workspace, cache, &apt)?;
        Ok(Self {
            qemu,
            firmware,
            image,
        })
    }
}

/// A disk of seeded pseudo-random data: id of its device in QEMU, and its name in the guest.
pub struct Disk {
    pub id: &'static str,
    pub name: &'static str,
    device: &'static str,
    seed: u64,
}

pub const DISKS: &[Disk] = &[
    Disk {
        id: "nvme0",
        name: "nvme0n1",
        device: "nvme,serial=nested-vtd",
        seed: 0x6e76_6d65,
    },
    Disk {
        id: "blk0",
        name: "vda",
        device: "virtio-blk-pci,iommu_platform=on,disable-legacy=on",
        seed: 0x0062_6c6b,
    },
];

/// Id of the network device.
pub const NET: &str = "net0";

pub const DISK_SIZE: usize = 16 << 20;

/// How the devices' DMA is to go.
#[derive(Clone, Copy, PartialEq)]
pub enum Route {
    /// Through nested HWPTs made of the guest's first-stage tables.
    Nested,
    /// Through the unit's own walk of these tables.
    Direct,
}

/// One way to run the guest.
pub struct Scenario {
    pub name: &'static str,
    pub route: Route,
    /// More properties of `-device nested-vtd`.
    pub unit: &'static str,
    /// More words for the kernel's command line.
    pub append: &'static str,
    /// Seconds after which the guest gives up a job.
    pub patience: u32,
    /// The whole run's limit.
    pub deadline: Duration,
    /// How often the guest may be booted, should its kernel crash by itself.
    attempts: usize,
}

impl Scenario {
    pub const NESTED: Self = Self {
        name: "nested",
        route: Route::Nested,
        unit: "host=soft",
        append: "",
        patience: 45,
        deadline: Duration::from_secs(150),
        attempts: 3,
    };

    /// No mapping outlives its request, so freed addresses are used again at once.
    pub const STRICT: Self = Self {
        name: "strict",
        append: "iommu.strict=1",
        ..Self::NESTED
    };

    pub const DIRECT: Self = Self {
        name: "direct",
        route: Route::Direct,
        unit: "host=none",
        ..Self::NESTED
    };

    pub const BREAK_INVALIDATION: Self = Self {
        name: "break-invalidation",
        unit: "host=soft,x-inject=drop-invalidations",
        patience: 20,
        deadline: Duration::from_secs(60),
        attempts: 1,
        ..Self::STRICT
    };

    pub const BREAK_ALLOC: Self = Self {
        name: "break-alloc",
        unit: "host=soft,x-inject=refuse-alloc",
        patience: 15,
        deadline: Duration::from_secs(60),
        ..Self::NESTED
    };
}

/// What came of a run.
pub struct Outcome {
    pub scenario: &'static str,
    pub route: Route,
    pub seconds: f64,
    pub guest: Guest,
    /// Expected SHA-256 of each of DISKS.
    pub sums: Vec<String>,
    /// The unit's state at the end, or why QEMU did not tell.
    pub unit: Result<Unit>,
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
    fn crash(&self) -> Option<String> {
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
                let through =
                    self.guest.reads.len() == DISKS.len() * 3 && self.guest.lease.is_some();
                (!expected && !through).then(|| "it hung".to_owned())
            }
        }
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

fn complaint(console: &str) -> Option<String> {
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
    pub done: bool,
    beats: u64,
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
                "kernel" => guest.kernel = Some(rest.to_owned()),
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
                "done" => guest.done = true,
                "alive" => guest.beats = rest.parse().unwrap_or(0),
                _ => {}
            }
        }
        guest
    }

    fn progress(&self) -> String {
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

/// Files of one run; removed at its end unless they are to be kept.
pub struct RunDir {
    path: PathBuf,
    keep: bool,
}

impl RunDir {
    pub fn new(cache: &Cache, scenario: &Scenario, keep: bool) -> Result<Self> {
        let runs = cache.path("run");
        // What interrupted runs have left.
        for old in cache::list(&runs)? {
            let name = old.file_name().unwrap_or_default().to_string_lossy();
            let pid = name.split('-').next().and_then(|n| n.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                cache::remove(&old)?;
            }
        }
        let owner = if keep {
            "kept".to_owned()
        } else {
            process::id().to_string()
        };
        let path = runs.join(format!("{owner}-{}", scenario.name));
        cache::remove(&path)?;
        fs::create_dir_all(&path).context(path.display())?;
        Ok(Self { path, keep })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept: {}", self.path.display());
        } else {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Runs the scenario. An error means that it could not be run; what the guest and the unit did is in
/// the outcome, well or not. A guest that crashed by itself is booted again, and the outcome says so.
pub fn boot(lab: &Lab, scenario: &Scenario, dir: &RunDir, trace: Option<&Path>) -> Result<Outcome> {
    let mut crashes = Vec::new();
    loop {
        let mut outcome = boot_once(lab, scenario, dir, trace)?;
        match outcome.crash() {
            Some(crash) if crashes.len() + 1 < scenario.attempts => {
                eprintln!("  the guest crashed by itself ({crash}); booting it again");
                crashes.push(crash);
            }
            _ => {
                outcome.crashes = crashes;
                return Ok(outcome);
            }
        }
    }
}

fn boot_once(
    lab: &Lab,
    scenario: &Scenario,
    dir: &RunDir,
    trace: Option<&Path>,
) -> Result<Outcome> {
    let mut step = Step::new(format!("guest ({})", scenario.name));
    let mut sums = Vec::new();
    for disk in DISKS {
        let data = pseudo_random(disk.seed);
        let file = dir.path().join(disk.name);
        fs::write(&file, &data).context(file.display())?;
        sums.push(cache::sha256(&data)?);
    }
    let start = Instant::now();
    let mut machine = Machine::start(lab, scenario, dir.path(), trace)?;
    machine.qmp.begin().map_err(|e| machine.explain(&e))?;

    let said = || Guest::parse(&read_lossy(&dir.path().join("facts")));
    let mut guest = said();
    while !guest.done && start.elapsed() < scenario.deadline && machine.runs() {
        thread::sleep(Duration::from_millis(100));
        guest = said();
        step.update(&guest.progress());
    }
    let seconds = start.elapsed().as_secs_f64();
    let unit = machine.unit().map_err(|e| machine.explain(&e));
    let beats = said().beats;
    let mut alive = false;
    let patience = Instant::now();
    while guest.done && !alive && patience.elapsed() < Duration::from_secs(10) && machine.runs() {
        thread::sleep(Duration::from_millis(100));
        alive = said().beats > beats + 1;
    }
    machine.quit();
    let console = tail(&dir.path().join("console"), 0, 15);
    step.done(if guest.done {
        ""
    } else {
        "the guest did not finish"
    });
    Ok(Outcome {
        scenario: scenario.name,
        route: scenario.route,
        seconds,
        guest,
        sums,
        unit,
        alive,
        console,
        complaint: complaint(&read_lossy(&dir.path().join("console"))),
        crashes: Vec::new(),
    })
}

/// A running emulator; killed when dropped.
struct Machine {
    child: Child,
    qmp: Qmp,
    errors: PathBuf,
}

impl Machine {
    fn start(lab: &Lab, scenario: &Scenario, dir: &Path, trace: Option<&Path>) -> Result<Self> {
        let append = format!(
            "console=ttyS0 panic=-1 quiet intel_iommu=on,sm_on nvtd.patience={} {}",
            scenario.patience, scenario.append
        );
        // setpriv ends the emulator with this process, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&lab.qemu)
            .current_dir(dir);
        let mut words = |text: &str| {
            command.args(text.split(' '));
        };
        words("-nodefaults -display none -no-reboot -no-shutdown -qmp stdio");
        // Without 5-level paging fewer guests crash by themselves; see `Outcome::crash`.
        words("-machine q35 -accel tcg -cpu max,la57=off -smp 2 -m 1024");
        words("-serial file:console -serial file:facts");
        // The unit comes before the devices behind it.
        words(&format!("-device nested-vtd,id=vtd0,{}", scenario.unit));
        for Disk {
            id, name, device, ..
        } in DISKS
        {
            words(&format!(
                "-drive if=none,id={id}-drive,format=raw,file={name}"
            ));
            words(&format!("-device {device},id={id},drive={id}-drive"));
        }
        words("-netdev user,id=user0");
        words(&format!("-device e1000e,id={NET},netdev=user0"));
        command.arg("-L").arg(&lab.firmware);
        command
            .arg("-kernel")
            .arg(&lab.image.kernel)
            .arg("-initrd")
            .arg(&lab.image.initrd);
        command.arg("-append").arg(append.trim_end());
        if let Some(file) = trace {
            command.args(["-trace", "nested_vtd_event", "-D"]).arg(file);
        }
        let errors = dir.join("qemu.log");
        let log = fs::File::create(&errors).context(errors.display())?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start setpriv (package util-linux)")?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Self {
                child,
                qmp: Qmp::new(stdin, stdout),
                errors,
            }),
            _ => fail("QEMU has no stdin or stdout"),
        }
    }

    /// Is the guest running? After a reboot or a panic it is not, but its unit can still be asked.
    fn runs(&mut self) -> bool {
        let status = self.qmp.execute("query-status", Value::Object(Map::new()));
        status.is_ok_and(|s| s["running"] == Value::Bool(true))
    }

    fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn unit(&mut self) -> Result<Unit> {
        const PATH: &str = "/machine/peripheral/vtd0";
        let mut get = |property| self.qmp.get(PATH, property);
        let (stats, devices) = (get("stats")?, get("devices")?);
        let (Value::Object(stats), Value::Array(devices)) = (stats, devices) else {
            return fail("the unit's properties have unexpected types");
        };
        Ok(Unit {
            cap: get("cap")?.as_u64().unwrap_or(0),
            ecap: get("ecap")?.as_u64().unwrap_or(0),
            stats,
            devices: devices.into_iter().map(Device::new).collect(),
        })
    }

    /// The error with what QEMU wrote to stderr.
    fn explain(&self, e: &Error) -> Error {
        let said = tail(&self.errors, 0, 10);
        if said.is_empty() {
            return Error::new(e.to_string());
        }
        Error::new(format!("{e}; QEMU said:\n{}", indent(&said)))
    }

    fn quit(&mut self) {
        if self.qmp.execute("quit", Value::Object(Map::new())).is_ok() {
            let start = Instant::now();
            while !self.ended() && start.elapsed() < Duration::from_secs(5) {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// A disk's data: xorshift64* from a seed.
fn pseudo_random(seed: u64) -> Vec<u8> {
    let mut state = seed | 1 << 63;
    let mut data = Vec::with_capacity(DISK_SIZE);
    while data.len() < DISK_SIZE {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        data.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    data
}
