//! A VM that lives on whatever happens to it: its emulator, the shell in its guest, and what is compared after each
//! event.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::random::Random;
use super::tally::Counts;
use crate::boot::{EMULATED, Lab, Machine, pseudo_random};
use crate::cache;
use crate::guest::Image;
use crate::lab::agent::Agent;
use crate::outcome::{Device, Unit, complaint, register};
use crate::scenario::Scenario;
use crate::ui::{Context, Error, Result, Step, fail, indent, tail};
use crate::verdict;

/// For a guest to come up.
const BOOT: Duration = Duration::from_secs(120);

/// For something that the guest or the emulator does soon.
pub const SOON: Duration = Duration::from_secs(60);

/// The disks' size, and that of those which are plugged in.
pub const DISK_SIZE: usize = 4 << 20;
const HOT_SIZE: usize = 1 << 20;

/// Root ports with nothing behind them.
pub const PORTS: usize = 3;

/// Devices that are always there.
pub const DEVICES: [&str; 3] = ["nvme0", "blk0", "net0"];

/// GSTS.TES.
const TES: u64 = 1 << 31;

/// How the unit is used, and by what words of the kernel.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// Properties of the unit, and what is to be seen of it, by the guest tests' names.
    pub scenario: &'static str,
}

impl Kind {
    pub const SOFT: Self = Self {
        name: "host=soft",
        scenario: "nested",
    };
    pub const NONE: Self = Self {
        name: "host=none",
        scenario: "direct",
    };

    pub fn scenario(self) -> Result<&'static Scenario> {
        match Scenario::named(self.scenario) {
            Some(scenario) => Ok(scenario),
            None => fail(format!("there is no guest test {}", self.scenario)),
        }
    }
}

/// Words that say which mode the guest's driver uses.
pub const SCALABLE: &str = "intel_iommu=on,sm_on";
pub const LEGACY: &str = "intel_iommu=on,sm_off";

pub fn words(mode: &str) -> String {
    format!(
        "console=ttyS0 panic=1 {EMULATED} rdinit=/life memhp_default_state=online_movable {mode}"
    )
}

/// What every VM needs, in a directory.
pub struct Files {
    pub image: Image,
    pub dir: PathBuf,
    disks: Vec<(&'static str, String)>,
    pub hot_sum: String,
    /// Bytes of the kernel and of the initial RAM disk on the disk `next`.
    pub next: [usize; 2],
}

impl Files {
    pub fn new(image: Image, dir: &Path) -> Result<Self> {
        let write = |name: &str, data: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, data).context(path.display())?;
            cache::sha256(data)
        };
        let mut disks = Vec::new();
        for (name, seed) in [("nvme0n1", 0x6e31), ("vda", 0x7664)] {
            disks.push((name, write(name, &pseudo_random(seed, DISK_SIZE))?));
        }
        let hot_sum = write("hot", &pseudo_random(0x686f_7400, HOT_SIZE))?;
        let mut next = Vec::new();
        let mut sizes = [0; 2];
        for (size, file) in sizes.iter_mut().zip([&image.kernel, &image.initrd]) {
            let begin = next.len();
            next.extend(fs::read(file).context(file.display())?);
            next.resize(next.len().next_multiple_of(4096), 0);
            *size = next.len() - begin;
        }
        write("next", &next)?;
        Ok(Self {
            image,
            dir: dir.to_owned(),
            disks,
            hot_sum,
            next: sizes,
        })
    }
}

/// What the unit is at power-on.
struct Fresh {
    registers: String,
    devices: Value,
    stats: Value,
}

/// What a guest that uses its devices has of the host.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Base {
    /// HWPTs that there are.
    pub live: u64,
    /// The largest ID of one. IDs are given lowest first, so what is never destroyed makes them grow.
    pub highest: u64,
}

pub struct Vm<'a> {
    pub files: &'a Files,
    pub kind: Kind,
    pub machine: Machine,
    pub agent: Agent,
    pub counts: Counts,
    fresh: Fresh,
    base: Option<Base>,
    /// So much of the console was judged.
    judged: usize,
}

impl<'a> Vm<'a> {
    /// Starts the emulator, and the guest in it.
    pub fn start(lab: &Lab, files: &'a Files, kind: Kind) -> Result<Self> {
        let mut command = lab.emulator(&files.dir);
        let mut add = |text: &str| {
            command.args(text.split_whitespace());
        };
        add("-nodefaults -display none -no-shutdown -qmp stdio -S");
        add("-machine q35 -accel tcg -cpu max -smp 2 -m 512,slots=4,maxmem=4G");
        add("-serial file:console");
        add("-chardev socket,id=agent,path=agent,server=on,wait=off -serial chardev:agent");
        add(&format!(
            "-device nested-vtd,id=vtd0,{}",
            kind.scenario()?.unit
        ));
        for node in ["nvme0n1", "vda", "next", "hot0", "hot1", "hot2"] {
            let file = if node.starts_with("hot") { "hot" } else { node };
            add(&format!(
                "-blockdev driver=raw,node-name={node},read-only=on,file.driver=file,file.filename={file},file.locking=off"
            ));
        }
        add("-device nvme,id=nvme0,serial=life,drive=nvme0n1");
        add("-device virtio-blk-pci,id=blk0,drive=vda,iommu_platform=on,disable-legacy=on");
        add("-device virtio-blk-pci,id=blk1,drive=next,iommu_platform=on,disable-legacy=on");
        add("-netdev user,id=user0 -netdev user,id=user1");
        add("-device e1000e,id=net0,netdev=user0");
        for port in 0..PORTS {
            add(&format!(
                "-device pcie-root-port,id=port{port},chassis={}",
                port + 1
            ));
        }
        files.image.boots(&mut command, &words(SCALABLE));
        for file in ["agent", "console"] {
            cache::remove(&files.dir.join(file))?;
        }
        let mut machine = Machine::spawn(command, files.dir.join("qemu.log"))?;
        machine.qmp.begin().map_err(|e| machine.explain(&e))?;
        let agent = Agent::connect("guest", &files.dir.join("agent"))?;
        let fresh = Fresh::see(&mut machine)?;
        let mut vm = Self {
            files,
            kind,
            machine,
            agent,
            counts: Counts::default(),
            fresh,
            base: None,
            judged: 0,
        };
        vm.execute("cont", json!({}))?;
        Ok(vm)
    }

    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.machine.qmp.execute(command, arguments)
    }

    /// A command in the guest, which prints this.
    pub fn run(&mut self, step: &mut Step, command: &str) -> Result<String> {
        self.agent.run_for(step, command, SOON)
    }

    /// Has the guest come up?
    pub fn is_up(&self) -> bool {
        self.base.is_some()
    }

    /// Is there no device of this name?
    pub fn lacks(&mut self, id: &str) -> Result<bool> {
        let all = self.execute("qom-list", json!({ "path": "/machine/peripheral" }))?;
        let mut devices = all.as_array().into_iter().flatten();
        Ok(!devices.any(|device| device["name"] == id))
    }

    /// Waits for the guest's shell.
    pub fn ready(&mut self, step: &mut Step) -> Result<()> {
        self.agent.ready(step, BOOT)?;
        self.counts.boots += 1;
        Ok(())
    }

    /// Waits until `done` says so.
    pub fn until(
        &mut self,
        step: &mut Step,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !done(self)? {
            if start.elapsed() > BOOT {
                return fail(format!("{what} has not come true in {} s", BOOT.as_secs()));
            }
            step.update(what);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Is translation on?
    pub fn translates(&mut self) -> Result<bool> {
        let registers = self.machine.qmp.human("info nested-vtd registers")?;
        Ok(register(&registers, "GSTS").unwrap_or(0) & TES != 0)
    }

    /// Resets the machine. What is there of the guest then is judged before; what is there of the unit, after.
    pub fn reset(&mut self, random: &mut Random) -> Result<()> {
        self.judge_counters()?;
        // Every other time the emulator stands still meanwhile, so that the unit can be looked at.
        let still = random.below(2) == 0;
        if still {
            self.execute("stop", json!({}))?;
        }
        self.execute("system_reset", json!({}))?;
        self.agent.forget()?;
        let start = Instant::now();
        while self.translates()? || still && self.status()? != "prelaunch" {
            if start.elapsed() > SOON {
                return fail("the machine was not reset");
            }
            thread::sleep(Duration::from_millis(5));
        }
        let now = Fresh::see(&mut self.machine)?;
        if still {
            self.fresh.compare(&now)?;
            self.execute("cont", json!({}))?;
        } else if self.fresh.places() != now.places() {
            let (now, fresh) = (now.places(), self.fresh.places());
            return fail(format!(
                "devices are at {now:?} after a reset, at power-on at {fresh:?}"
            ));
        }
        self.counts.resets += 1;
        Ok(())
    }

    fn status(&mut self) -> Result<String> {
        let status = self.execute("query-status", json!({}))?;
        Ok(status["status"].as_str().unwrap_or("").to_owned())
    }

    pub fn unit(&mut self) -> Result<Unit> {
        self.machine.unit()
    }

    /// Nothing was counted that is wrong, and the kernel has not complained.
    pub fn judge_counters(&mut self) -> Result<()> {
        let unit = self.unit()?;
        let mut reasons = Vec::new();
        verdict::counter_reasons(&unit, self.kind.scenario()?, &mut reasons);
        self.counts.stale_uses += unit.stat("stale-uses");
        self.counts.faults += unit.stat("faults") + unit.stat("interrupt-faults");
        let path = self.files.dir.join("console");
        let console = fs::read(&path).unwrap_or_default();
        let new =
            String::from_utf8_lossy(console.get(self.judged..).unwrap_or_default()).into_owned();
        self.judged = console.len();
        reasons.extend(complaint(&new).map(|said| format!("the kernel complained: {said}")));
        let faults = new
            .lines()
            .filter(|line| line.contains("DMAR: ") && line.contains("fault"));
        reasons.extend(faults.map(|line| format!("the kernel saw a fault: {line}")));
        match reasons.as_slice() {
            [] => Ok(()),
            reasons => fail(reasons.join("\n")),
        }
    }

    /// What the console says until now is not judged.
    pub fn pardon(&mut self) {
        let console = fs::read(self.files.dir.join("console")).unwrap_or_default();
        self.judged = console.len();
    }

    /// The guest uses all devices, and they are where `scenario` says.
    pub fn use_all(&mut self, step: &mut Step, scenario: &Scenario) -> Result<()> {
        for (disk, sum) in &self.files.disks {
            for size in ["4k", "256k"] {
                let said = self.run(step, &format!("sum {disk} {size}"))?;
                if said != *sum {
                    return fail(format!("{disk}: {said}, not {sum}"));
                }
            }
        }
        let said = self.run(step, "lease eth0")?;
        if said != "1" {
            return fail(format!("eth0: no lease: {said}"));
        }
        let unit = self.unit()?;
        let mut reasons = Vec::new();
        verdict::device_reasons(&unit, scenario, &DEVICES, &mut reasons);
        if !reasons.is_empty() {
            return fail(reasons.join("\n"));
        }
        self.judge_counters()
    }

    /// All is used; the HWPTs are those that there were at first.
    pub fn judge_hwpts(&mut self) -> Result<Base> {
        let unit = self.unit()?;
        let ids = unit.devices.iter().map(|device| device.number("hwpt"));
        let now = Base {
            live: unit.stat("hwpt-allocs") - unit.stat("hwpt-destroys"),
            highest: ids.max().unwrap_or(0),
        };
        let base = *self.base.get_or_insert(now);
        self.counts.leaked += now.live.saturating_sub(base.live);
        // Devices come up in any order, so one may have got another's ID while that was moved.
        if now.live != base.live || now.highest > base.highest + DEVICES.len() as u64 {
            return fail(format!("HWPTs are {now:?}, at first they were {base:?}"));
        }
        Ok(now)
    }

    /// The error, with what the guest's console and the emulator said last.
    pub fn explain(&self, e: &Error) -> Error {
        let console = tail(&self.files.dir.join("console"), 0, 12);
        Error::new(format!(
            "{}\nthe guest's console:\n{}",
            self.machine.explain(e),
            indent(&console)
        ))
    }
}

impl Fresh {
    fn see(machine: &mut Machine) -> Result<Self> {
        const UNIT: &str = "/machine/peripheral/vtd0";
        Ok(Self {
            registers: machine.qmp.human("info nested-vtd registers")?,
            devices: machine.qmp.get(UNIT, "devices")?,
            stats: machine.qmp.get(UNIT, "stats")?,
        })
    }

    /// What each device's DMA goes through: its name, how, and the HWPT.
    fn places(&self) -> Vec<(String, String, u64)> {
        let devices = self
            .devices
            .as_array()
            .into_iter()
            .flatten()
            .cloned()
            .map(Device::new);
        devices
            .map(|device| {
                let hwpt = device.number("hwpt");
                (device.id, device.state, hwpt)
            })
            .collect()
    }

    fn compare(&self, now: &Self) -> Result<()> {
        let lines = self.registers.lines().zip(now.registers.lines());
        for (fresh, line) in lines {
            if fresh != line {
                return fail(format!("after a reset: {line}\nat power-on:   {fresh}"));
            }
        }
        if self.devices != now.devices {
            return fail(format!(
                "devices after a reset: {}\nat power-on: {}",
                now.devices, self.devices
            ));
        }
        if self.stats != now.stats {
            return fail(format!("counters after a reset: {}", now.stats));
        }
        Ok(())
    }
}
