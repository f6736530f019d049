//! Boots the guest on the patched QEMU and collects what guest and unit say. The demo and the guest
//! tests of `cargo xtask check` are all a `Scenario` each.

use std::env;
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
use crate::kernel::Release;
use crate::outcome::{self, Device, Guest, Outcome, Unit, complaint};
use crate::qemu;
use crate::qmp::Qmp;
use crate::report;
use crate::scenario::{Kernel, Scenario, Then};
use crate::ui::{Context, Error, Result, Step, fail, indent, tail};
use crate::verdict;
use crate::workspace::Workspace;

/// Words for the kernel of every emulated guest. On a loaded machine its timer may miss its moment, for which
/// Linux panics at once. And the watchdog of clocksources waits with interrupts off for another processor
/// (`watchdog_check_skew()` of Linux 7.3, `clocksource_verify_percpu()` before): if that one is stopping the machine to switch the
/// clocksource, and time is still counted in jiffies, both wait for ever.
pub const EMULATED: &str = "quiet no_timer_check tsc=nowatchdog";

pub const USAGE: &str = "\
usage: cargo xtask boot [OPTION...] NAME...
  NAME          a guest test of `cargo xtask check`; several may be given
  --list        say which there are
  --repeat N    run each N times
  --qemu FILE   with this QEMU instead of the project's
  --trace FILE  write the unit's trace events
  --keep        keep the run's files (disks, consoles)
  --update      look for newer Debian packages first";

/// `cargo xtask boot`.
pub fn run_command(args: &[String]) -> Result<()> {
    let (mut scenarios, mut trace, mut repeat, mut qemu) = (Vec::new(), None, 1, None);
    let (mut keep, mut update) = (false, false);
    let here = env::current_dir().context("current directory")?;
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--list" => {
                for scenario in Scenario::ALL {
                    println!("{:<20} {}", scenario.name, scenario.about);
                }
                return Ok(());
            }
            "--trace" => match args.next() {
                Some(file) => trace = Some(here.join(file)),
                None => return Err(Error::new("--trace into which file?").next(USAGE)),
            },
            "--qemu" => match args.next() {
                Some(file) => qemu = Some(here.join(file)),
                None => return Err(Error::new("--qemu which file?").next(USAGE)),
            },
            "--repeat" => match args.next().and_then(|n| n.parse::<u32>().ok()) {
                Some(n) => repeat = n,
                None => return Err(Error::new("--repeat how often?").next(USAGE)),
            },
            "--keep" => keep = true,
            "--update" => update = true,
            name => match Scenario::named(name) {
                Some(scenario) => scenarios.push(scenario),
                None => {
                    let error = Error::new(format!("no guest test or option is called {name}"));
                    return Err(error.next("cargo xtask boot --list"));
                }
            },
        }
    }
    if scenarios.is_empty() {
        return Err(Error::new("boot what?").next(USAGE));
    }
    let (workspace, cache) = (Workspace::new(), Cache::open()?);
    let mut lab = match qemu {
        Some(qemu) => Lab::with(qemu, &workspace, &cache, update)?,
        None => Lab::prepare(&workspace, &cache, update)?,
    };
    let mut failed = Vec::new();
    for scenario in scenarios {
        for _ in 0..repeat {
            let dir = RunDir::new(&cache, scenario, keep)?;
            let outcome = boot(&mut lab, scenario, &dir, trace.as_deref())?;
            print!("{}", report::text(&outcome));
            if let Err(e) = verdict::judge(&outcome) {
                println!("{}: {e}", scenario.name);
                failed.push(scenario.name);
            }
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => fail(format!("failed: {}", names.join(", "))),
    }
}

/// What a guest run needs, made or taken from the cache.
pub struct Lab {
    workspace: Workspace,
    cache: Cache,
    qemu: PathBuf,
    firmware: PathBuf,
    /// Those that were asked for.
    images: Vec<(Kernel, Image)>,
}

impl Lab {
    pub fn prepare(workspace: &Workspace, cache: &Cache, update: bool) -> Result<Self> {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK, host::BUILD, host::GUEST])?;
        let apt = Apt::open(cache, update)?;
        let firmware = qemu::firmware(cache, &apt)?;
        let qemu = qemu::build(workspace, cache, &apt)?;
        Ok(Self::new(workspace, cache, qemu, firmware))
    }

    /// With a QEMU that is not the project's own build.
    pub fn with(qemu: PathBuf, workspace: &Workspace, cache: &Cache, update: bool) -> Result<Self> {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK, host::GUEST])?;
        let firmware = qemu::firmware(cache, &Apt::open(cache, update)?)?;
        Ok(Self::new(workspace, cache, qemu, firmware))
    }

    fn new(workspace: &Workspace, cache: &Cache, qemu: PathBuf, firmware: PathBuf) -> Self {
        Self {
            workspace: workspace.clone(),
            cache: cache.clone(),
            qemu,
            firmware,
            images: Vec::new(),
        }
    }

    /// The emulator, without devices, in the directory `dir`. setpriv ends it with this process, however that ends.
    pub fn emulator(&self, dir: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&self.qemu)
            .current_dir(dir);
        command.arg("-L").arg(&self.firmware);
        command
    }

    /// The guest with this kernel.
    pub fn image(&mut self, kernel: Kernel) -> Result<Image> {
        if let Some((_, image)) = self.images.iter().find(|(k, _)| *k == kernel) {
            return Ok(image.clone());
        }
        let _lock = self.cache.lock()?;
        host::require(&self.cache, &[host::UNPACK, host::GUEST])?;
        let apt = Apt::open(&self.cache, false)?;
        let make = match kernel {
            Kernel::Stock => guest::stock,
            Kernel::Lab => |workspace: &_, cache: &_, apt: &_| {
                guest::lab(workspace, cache, apt, &Release::Newest)
            },
        };
        let image = make(&self.workspace, &self.cache, &apt)?;
        self.images.push((kernel, image.clone()));
        Ok(image)
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

/// Files of one run; removed at its end unless they are to be kept.
pub struct RunDir {
    path: PathBuf,
    keep: bool,
}

impl RunDir {
    pub fn new(cache: &Cache, scenario: &Scenario, keep: bool) -> Result<Self> {
        Self::named(cache, scenario.name, keep)
    }

    pub fn named(cache: &Cache, name: &str, keep: bool) -> Result<Self> {
        let runs = cache.path("run");
        // What interrupted runs have left.
        for old in cache::list(&runs)? {
            let owner = old.file_name().unwrap_or_default().to_string_lossy();
            let pid = owner.split('-').next().and_then(|n| n.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                cache::remove(&old)?;
            }
        }
        let owner = if keep {
            "kept".to_owned()
        } else {
            process::id().to_string()
        };
        let path = runs.join(format!("{owner}-{name}"));
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
/// the outcome, well or not.
pub fn boot(
    lab: &mut Lab,
    scenario: &Scenario,
    dir: &RunDir,
    trace: Option<&Path>,
) -> Result<Outcome> {
    let mut image = lab.image(scenario.kernel)?;
    if scenario.then == Then::Kexec {
        image = guest::with_itself(&image, dir.path())?;
    }
    let mut step = Step::new(format!("guest ({})", scenario.name));
    let mut sums = Vec::new();
    for disk in DISKS {
        let data = pseudo_random(disk.seed, DISK_SIZE);
        let file = dir.path().join(disk.name);
        fs::write(&file, &data).context(file.display())?;
        sums.push(cache::sha256(&data)?);
    }
    let start = Instant::now();
    let mut machine = Machine::start(lab, &image, scenario, dir.path(), trace)?;
    machine.qmp.begin().map_err(|e| machine.explain(&e))?;

    let said = || Guest::parse(&read_lossy(&dir.path().join("facts")));
    let mut guest = said();
    let mut earlier = Vec::new();
    let boots = scenario.then.boots();
    let ended = |guest: &Guest| guest.done && guest.earlier.len() + 1 >= boots;
    let mut since = start;
    while !ended(&guest) && since.elapsed() < scenario.deadline && machine.runs() {
        thread::sleep(Duration::from_millis(100));
        guest = said();
        step.update(&guest.progress());
        // A reset clears the unit's counters.
        if guest.done && !ended(&guest) && earlier.len() == guest.earlier.len() {
            earlier.push(machine.unit().map_err(|e| machine.explain(&e)));
            since = Instant::now();
        }
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
    step.done(if ended(&guest) {
        ""
    } else {
        "the guest did not finish"
    });
    Ok(Outcome {
        scenario: *scenario,
        seconds,
        guest,
        sums,
        unit,
        earlier,
        alive,
        console,
        complaint: complaint(&read_lossy(&dir.path().join("console"))),
    })
}

/// A running emulator; killed when dropped.
pub struct Machine {
    child: Child,
    pub qmp: Qmp,
    errors: PathBuf,
}

impl Machine {
    fn start(
        lab: &Lab,
        image: &Image,
        scenario: &Scenario,
        dir: &Path,
        trace: Option<&Path>,
    ) -> Result<Self> {
        // A guest that is to reboot by itself must not do so in a panic: that would look the same.
        let reboots = scenario.then == Then::Reboot;
        let mut append = format!(
            "console=ttyS0 panic={} {EMULATED} intel_iommu=on,sm_on nvtd.patience={} {}",
            if reboots { 0 } else { -1 },
            scenario.patience,
            scenario.append
        );
        if let Some(word) = scenario.then.word() {
            append += &format!(" nvtd.then={word}");
        }
        let mut command = lab.emulator(dir);
        let mut words = |text: &str| {
            command.args(text.split(' '));
        };
        words("-nodefaults -display none -no-shutdown -qmp stdio");
        if !reboots {
            words("-no-reboot");
        }
        words("-machine q35 -accel tcg -cpu max -smp 2 -m 1024");
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
        if scenario.then == Then::Nesting {
            words("-device edu,id=edu0");
        }
        image.boots(&mut command, &append);
        if let Some(file) = trace {
            command.args(["-trace", "nested_vtd_event", "-D"]).arg(file);
        }
        Self::spawn(command, dir.join("qemu.log"))
    }

    /// Starts an emulator with `-qmp stdio`. What it says on stderr goes to the file `errors`.
    pub fn spawn(mut command: Command, errors: PathBuf) -> Result<Self> {
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
    pub fn runs(&mut self) -> bool {
        let status = self.qmp.execute("query-status", Value::Object(Map::new()));
        status.is_ok_and(|s| s["running"] == Value::Bool(true))
    }

    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn unit(&mut self) -> Result<Unit> {
        const PATH: &str = "/machine/peripheral/vtd0";
        let mut dump = |what| self.qmp.human(&format!("info nested-vtd {what}"));
        let (tables, registers) = (dump("tables")?, dump("registers")?);
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
            irta: outcome::register(&registers, "IRTA").unwrap_or(0),
            entries: outcome::entries(&tables),
        })
    }

    /// The error with what QEMU wrote to stderr.
    pub fn explain(&self, e: &Error) -> Error {
        let said = tail(&self.errors, 0, 10);
        if said.is_empty() {
            return Error::new(e.to_string());
        }
        Error::new(format!("{e}; QEMU said:\n{}", indent(&said)))
    }

    pub fn quit(&mut self) {
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

/// What is in the file, if anything.
pub fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// A disk's data: xorshift64* from a seed.
pub fn pseudo_random(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed | 1 << 63;
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        data.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    data
}
