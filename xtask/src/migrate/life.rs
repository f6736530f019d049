//! One guest, and the emulators that it is in one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::counts::Counts;
use super::modes::Mode;
use super::random::Random;
use super::said::{self, Port, Said};
use crate::boot::{EMULATED, Lab, Machine, pseudo_random, read_lossy};
use crate::cache;
use crate::guest::Image;
use crate::outcome::{Unit, complaint, register};
use crate::scenario::Route;
use crate::ui::{Context, Error, Result, Step, fail, indent, tail};
use crate::verdict;

/// The devices behind the unit.
const DEVICES: [&str; 3] = ["blk0", "blk1", "net0"];

const DISK_SIZE: usize = 2 << 20;
const FILE_SIZE: usize = 64 << 10;

/// Whatever a guest does takes less.
const PATIENCE: Duration = Duration::from_secs(100);

/// For a migration, or a job of the emulator.
const JOB: Duration = Duration::from_secs(60);

pub const TES: u64 = 1 << 31;
/// GSTS.QIES.
const QIES: u64 = 1 << 26;
/// IECTL.IP and FECTL.IP.
const IP: u64 = 1 << 30;

/// What a kernel writes when a device does not do what it should.
const COMPLAINTS: &[&str] = &[
    "DMAR:",
    "I/O error",
    "timed out",
    "timeout",
    "Hang",
    "nobody cared",
];

/// What all guests of a run need.
pub struct Files<'a> {
    pub lab: &'a Lab,
    pub image: Image,
    dir: PathBuf,
    disk_sum: String,
    file_sum: String,
}

impl<'a> Files<'a> {
    /// Makes what they read, in `dir`.
    pub fn new(lab: &'a Lab, image: Image, dir: &Path) -> Result<Self> {
        let write = |name: &str, data: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, data).context(path.display())
        };
        fs::create_dir_all(dir.join("tftp")).context(dir.display())?;
        let disk = pseudo_random(0x0064_6973_6b00, DISK_SIZE);
        let file = pseudo_random(0x0066_696c_6500, FILE_SIZE);
        write("vda", &disk)?;
        write("vdb", &vec![0; DISK_SIZE])?;
        write("tftp/data", &file)?;
        Ok(Self {
            lab,
            image,
            dir: dir.to_owned(),
            disk_sum: cache::sha256(&disk)?,
            file_sum: cache::sha256(&file)?,
        })
    }
}

/// How a guest comes to another emulator.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Way {
    /// To one that is already there; the guest runs as long as it can.
    Live,
    /// Into a file, while the guest runs as long as it can, and out of it when the first emulator is gone.
    File,
    /// The same, but the guest stands still from the beginning.
    Still,
}

pub struct Life<'a> {
    files: &'a Files<'a>,
    mode: &'a Mode,
    pub machine: Machine,
    /// Of the emulator, from 0 on.
    number: usize,
    port: Port,
    pub random: Random,
    pub counts: Counts,
    /// Everything that was not as it should be.
    pub reasons: Vec<String>,
    /// The unit as it was seen last, where the guest may reset it.
    sample: Option<Unit>,
}

impl<'a> Life<'a> {
    /// Starts the first emulator.
    pub fn begin(files: &'a Files<'a>, mode: &'a Mode, random: Random) -> Result<Self> {
        for file in cache::list(&files.dir)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if ["console", "facts", "qemu.log"]
                .iter()
                .any(|n| name.starts_with(n))
            {
                cache::remove(&file)?;
            }
        }
        cache::remove(&files.dir.join("tftp/order"))?;
        make_disks(files)?;
        let mut life = Self {
            files,
            mode,
            machine: start(files, mode, 0, false)?,
            number: 0,
            port: Port::new(files.dir.join("facts0")),
            random,
            counts: Counts::default(),
            reasons: Vec::new(),
            sample: None,
        };
        life.machine.qmp.begin()?;
        Ok(life)
    }

    pub fn dir(&self) -> &Path {
        &self.files.dir
    }

    pub fn mode(&self) -> &Mode {
        self.mode
    }

    pub fn command(&mut self, command: &str) -> Result<()> {
        self.machine.qmp.execute(command, json!({})).map(drop)
    }

    fn registers(&mut self) -> Result<String> {
        self.machine.qmp.human("info nested-vtd registers")
    }

    pub fn gsts(&mut self) -> Result<u64> {
        let registers = self.registers()?;
        register(&registers, "GSTS").ok_or_else(|| Error::new("the unit shows no GSTS"))
    }

    /// Notes in what state the unit is saved. The guest stands still.
    pub fn note_save(&mut self) -> Result<()> {
        let registers = self.registers()?;
        let value = |name: &str| register(&registers, name).unwrap_or(0);
        let gsts = value("GSTS");
        self.counts.saves += 1;
        self.counts.gsts.insert(gsts);
        self.counts.queue += u64::from(gsts & QIES != 0 && value("IQH") != value("IQT"));
        self.counts.waiting +=
            u64::from((value("IECTL") | value("FECTL")) & IP != 0 || value("FSTS") != 0);
        Ok(())
    }

    /// What the last kernel said, if one has come up.
    pub fn said(&self) -> Option<Said> {
        self.port.boots().pop()
    }

    pub fn boots(&self) -> usize {
        self.port.boots().len()
    }

    /// Waits until `done` has nothing more to wait for.
    pub fn until(
        &mut self,
        step: &mut Step,
        mut done: impl FnMut(&mut Self) -> Result<Option<String>>,
    ) -> Result<()> {
        let start = Instant::now();
        while let Some(what) = done(self)? {
            let number = self.number;
            if start.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return fail(format!(
                    "emulator {number}: waited {seconds} s for {what}, in vain"
                ));
            }
            if !self.machine.runs() {
                return fail(format!(
                    "emulator {number}: the guest does not run; it was waited for {what}"
                ));
            }
            step.update(&format!("emulator {number}: waiting for {what}"));
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until the guest has read, written and used the network once more from here on.
    pub fn works(&mut self, step: &mut Step) -> Result<()> {
        let before = self.said().map_or([0; 3], |said| said.rounds());
        self.until(step, |life| {
            let now = life.said().map_or([0; 3], |said| said.rounds());
            let missing = ["reads", "writes", "the network"]
                .iter()
                .zip(now.iter().zip(before));
            let missing = missing.filter(|(_, (now, before))| *now <= before);
            let names: Vec<_> = missing.map(|(name, _)| *name).collect();
            Ok((!names.is_empty()).then(|| names.join(", ")))
        })
    }

    /// Lets the guest run for a random time.
    pub fn some_time(&mut self, least: u64, most: u64) {
        let time = self.random.between(least, most);
        thread::sleep(Duration::from_micros(time));
    }

    /// Takes the guest to another emulator. `working` says that it is using its devices.
    pub fn hop(&mut self, way: Way, working: bool) -> Result<()> {
        let number = self.number + 1;
        let parameters = json!({ "max-bandwidth": 1_u64 << 30, "downtime-limit": 500 });
        self.machine
            .qmp
            .execute("migrate-set-parameters", parameters)?;
        let (uri, mut there) = match way {
            Way::Live => {
                let uri = format!("unix:stream{number}");
                (uri.clone(), Some(self.incoming(number, &uri)?))
            }
            Way::File => ("file:stream".to_owned(), None),
            Way::Still => {
                self.command("stop")?;
                ("file:stream".to_owned(), None)
            }
        };
        self.machine.qmp.execute("migrate", json!({ "uri": uri }))?;
        self.migrated()?;
        self.note_save()?;
        let unit = self.machine.unit()?;
        self.judge_unit(&unit, working);
        self.port
            .go_on(self.files.dir.join(format!("facts{number}")));
        self.leave()?;
        let mut there = match there.take() {
            Some(there) => there,
            None => self.incoming(number, &uri)?,
        };
        arrived(&mut there)
            .map_err(|e| there.explain(&e))
            .context(format!("emulator {number}"))?;
        self.machine = there;
        self.number = number;
        self.counts.loads += 1;
        if way == Way::Still {
            if working {
                self.judge_places()?;
            }
            self.command("cont")?;
        }
        Ok(())
    }

    /// An emulator that waits for the guest.
    fn incoming(&self, number: usize, uri: &str) -> Result<Machine> {
        let mut there = start(self.files, self.mode, number, true)?;
        let begun = there.qmp.begin().and_then(|()| {
            let incoming = json!({ "uri": uri });
            there.qmp.execute("migrate-incoming", incoming).map(drop)
        });
        begun.map_err(|e| there.explain(&e))?;
        Ok(there)
    }

    /// Waits until all has been sent.
    fn migrated(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let state = self.machine.qmp.execute("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let why = state["error-desc"].as_str().unwrap_or("no reason");
                    return fail(format!(
                        "emulator {}: the migration failed: {why}",
                        self.number
                    ));
                }
                _ if start.elapsed() > JOB => {
                    return fail(format!(
                        "emulator {}: the migration does not end: {state}",
                        self.number
                    ));
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The guest is gone from this emulator: after a reset nothing of it is left on the host, and it ends without a word.
    fn leave(&mut self) -> Result<()> {
        self.command("system_reset")?;
        // It is done by the main loop, which comes round before it looks at the next command but one.
        self.command("query-status")?;
        let unit = self.machine.unit()?;
        let start = Instant::now();
        let mut left = nested(&unit);
        while !left.is_empty() && start.elapsed() < Duration::from_secs(2) {
            thread::sleep(Duration::from_millis(10));
            left = nested(&self.machine.unit()?);
        }
        if !left.is_empty() {
            self.reason(format!(
                "{} left on the host after a reset",
                left.join(", ")
            ));
        }
        self.quit()
    }

    fn quit(&mut self) -> Result<()> {
        self.machine.quit();
        let start = Instant::now();
        while !self.machine.ended() && start.elapsed() < JOB {
            thread::sleep(Duration::from_millis(20));
        }
        if !self.machine.ended() {
            return fail(format!("emulator {} does not end", self.number));
        }
        let said = tail(&self.errors(), 0, 10);
        if !said.is_empty() {
            self.reason(format!("it wrote: {said}"));
        }
        Ok(())
    }

    fn errors(&self) -> PathBuf {
        errors(self.files, self.number)
    }

    fn reason(&mut self, reason: String) {
        self.reason_of(self.number, &reason);
    }

    fn reason_of(&mut self, number: usize, reason: &str) {
        self.reasons.push(format!("emulator {number}: {reason}"));
    }

    /// Judges the unit and adds up what it has counted; it will count no further.
    fn judge_unit(&mut self, unit: &Unit, working: bool) {
        let (mut reasons, scenario) = (Vec::new(), self.mode.of(self.number));
        if working {
            verdict::device_reasons(unit, scenario, &DEVICES, &mut reasons);
        }
        verdict::counter_reasons(unit, scenario, &mut reasons);
        for reason in reasons {
            self.reason(reason);
        }
        self.counts.add(unit);
        self.sample = None;
    }

    /// Of the guest that stands still after it was loaded: are its devices where its tables say, before it did anything?
    pub fn judge_places(&mut self) -> Result<()> {
        let unit = self.machine.unit()?;
        let scenario = self.mode.of(self.number);
        for id in DEVICES {
            let state = unit.device(id).map_or("missing", |d| &d.state);
            if state != scenario.route.state() {
                let errno = unit.device(id).map_or(0, |d| d.number("host-errno"));
                let refused = match errno {
                    0 => String::new(),
                    errno => format!(" (the host refused it with {})", verdict::errno_name(errno)),
                };
                self.reason(format!(
                    "{id}: {state} right after the load, not {}{refused}",
                    scenario.route.state()
                ));
            }
        }
        Ok(())
    }

    /// Remembers what the unit counts, as a reset clears it.
    pub fn watch(&mut self) -> Result<()> {
        let unit = self.machine.unit()?;
        match self.sample.take() {
            Some(last) if last.stat("descriptors") > unit.stat("descriptors") => {
                self.judge_unit(&last, false);
            }
            _ => {}
        }
        self.sample = Some(unit);
        Ok(())
    }

    /// Of the guest that stands still: the counters as they are, before a reset clears them.
    pub fn judge_now(&mut self, working: bool) -> Result<()> {
        let unit = self.machine.unit()?;
        self.judge_unit(&unit, working);
        Ok(())
    }

    /// Saves the guest, which stands still, under this name. Returns how much it had said.
    pub fn save(&mut self, tag: &str) -> Result<usize> {
        self.note_save()?;
        self.snapshot("snapshot-save", tag)?;
        Ok(self.port.bytes().len())
    }

    /// Puts the guest, which stands still, back to where it was when it had said `mark` bytes.
    pub fn load(&mut self, tag: &str, mark: usize) -> Result<()> {
        // What is undone was to be right as well.
        self.judge_said();
        self.snapshot("snapshot-load", tag)?;
        self.port.go_back(mark);
        self.counts.loads += 1;
        self.judge_places()
    }

    fn snapshot(&mut self, command: &str, tag: &str) -> Result<()> {
        let arguments = json!({ "tag": tag, "vmstate": "disk1", "devices": ["disk0", "disk1"] });
        job(&mut self.machine, command, arguments)
            .map_err(|e| self.machine.explain(&e))
            .context(format!("emulator {}", self.number))
    }

    pub fn judge_said(&mut self) {
        let boots = self.port.boots();
        let sums = (&self.files.disk_sum, &self.files.file_sum);
        for reason in said::reasons(&boots, &self.mode.here, sums.0, sums.1) {
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
        self.counts.again = self
            .counts
            .again
            .max(boots.iter().map(|said| said.again).sum());
    }

    /// Judges consoles.
    pub fn judge_consoles(&mut self) {
        for number in 0..=self.number {
            let console = read_lossy(&console(self.files, number));
            let begins = |line: &str| {
                complaint(line).is_some() || COMPLAINTS.iter().any(|word| line.contains(word))
            };
            let from = console.lines().skip_while(|line| !begins(line));
            // With what a kernel says of its state.
            let lines: Vec<_> = from.take(24).map(str::trim_end).collect();
            if lines.is_empty() {
                continue;
            }
            let (first, text) = (lines[0], indent(&lines.join("\n")));
            if !self.reasons.iter().any(|reason| reason.contains(first)) {
                self.reason_of(number, &format!("its kernel complained:\n{text}"));
            }
        }
    }

    /// Judges what is left, and ends the last emulator.
    pub fn end(&mut self, working: bool) -> Result<()> {
        self.command("stop")?;
        self.judge_now(working)?;
        self.judge_said();
        self.judge_consoles();
        if let Some(said) = self.said() {
            self.counts.kernel = said.kernel;
        }
        self.leave()
    }

    /// The error with the last words of guest and emulator.
    pub fn explain(&self, e: &Error) -> Error {
        let words = [
            (
                "it said",
                self.files.dir.join(format!("facts{}", self.number)),
                8,
            ),
            ("its console", console(self.files, self.number), 15),
            ("the emulator", self.errors(), 5),
        ];
        let mut text = e.to_string();
        for (whose, file, lines) in words {
            let said = tail(&file, 0, lines);
            if !said.is_empty() {
                text += &format!("\n{whose}:\n{}", indent(&said));
            }
        }
        Error::new(text)
    }
}

/// Devices that are on a nested HWPT.
fn nested(unit: &Unit) -> Vec<String> {
    let nested = |d: &&crate::outcome::Device| d.state == Route::Nested.state();
    unit.devices
        .iter()
        .filter(nested)
        .map(|d| d.id.clone())
        .collect()
}

fn console(files: &Files<'_>, number: usize) -> PathBuf {
    files.dir.join(format!("console{number}"))
}

fn errors(files: &Files<'_>, number: usize) -> PathBuf {
    files.dir.join(format!("qemu.log{number}"))
}

/// Starts the emulator with this number.
fn start(files: &Files<'_>, mode: &Mode, number: usize, incoming: bool) -> Result<Machine> {
    let scenario = mode.of(number);
    let mut command = files.lab.emulator(&files.dir);
    let mut words = |text: &str| {
        command.args(text.split_whitespace());
    };
    words("-nodefaults -display none -no-shutdown -qmp stdio");
    words("-machine q35 -accel tcg -cpu max -smp 2 -m 512");
    // Else the firmware drives the disks and leaves them their rings, which they look at whenever the guest goes on, also
    // when the kernel has switched translation on and has not come to them yet.
    words("-boot strict=on");
    words(&format!(
        "-serial file:console{number} -serial file:facts{number}"
    ));
    words(&format!("-device nested-vtd,id=vtd0,{}", scenario.unit));
    words("-object iothread,id=io0");
    for (n, thread) in [(0, ",iothread=io0"), (1, "")] {
        words(&format!(
            "-blockdev driver=qcow2,node-name=disk{n},file.driver=file,file.filename=disk{n}.qcow2"
        ));
        words(&format!(
            "-device virtio-blk-pci,id=blk{n},drive=disk{n},iommu_platform=on,disable-legacy=on{thread}"
        ));
    }
    words("-netdev user,id=user0,tftp=tftp -device e1000e,id=net0,netdev=user0");
    if incoming {
        words("-incoming defer");
    }
    // A guest that reboots must not do so in a panic: that would look the same. And its watchdog sees when the machine
    // has no time for the emulator.
    let append = format!(
        "console=ttyS0 panic=0 {EMULATED} nosoftlockup intel_iommu=on,sm_on rdinit=/migrate {}",
        mode.here.append
    );
    files.image.boots(&mut command, &append);
    Machine::spawn(command, errors(files, number))
}

/// Makes disks that can be saved: what is written is in files of their own.
fn make_disks(files: &Files<'_>) -> Result<()> {
    let mut command = files.lab.emulator(&files.dir);
    command.args("-nodefaults -display none -S -machine none -qmp stdio".split(' '));
    let mut machine = Machine::spawn(command, files.dir.join("qemu.log"))?;
    machine.qmp.begin()?;
    for (n, backing) in [(0, "vda"), (1, "vdb")] {
        let file = format!("disk{n}.qcow2");
        cache::remove(&files.dir.join(&file))?;
        let create = |options: Value| json!({ "options": options });
        let options = json!({ "driver": "file", "filename": file, "size": 0 });
        job(&mut machine, "blockdev-create", create(options))?;
        let node = json!({ "driver": "file", "node-name": backing, "filename": file });
        machine.qmp.execute("blockdev-add", node)?;
        let options = json!({
            "driver": "qcow2", "file": backing, "size": DISK_SIZE,
            "backing-file": backing, "backing-fmt": "raw"
        });
        job(&mut machine, "blockdev-create", create(options))?;
    }
    machine.quit();
    Ok(())
}

/// Runs a job of the emulator to its end.
fn job(machine: &mut Machine, command: &str, mut arguments: Value) -> Result<()> {
    arguments["job-id"] = json!("job");
    machine.qmp.execute(command, arguments)?;
    let start = Instant::now();
    loop {
        let jobs = machine.qmp.execute("query-jobs", json!({}))?;
        let mut jobs = jobs.as_array().into_iter().flatten();
        let Some(job) = jobs.find(|job| job["id"] == "job") else {
            return fail(format!("{command}: the job is gone"));
        };
        if job["status"] == "concluded" {
            let error = job["error"].as_str().map(str::to_owned);
            machine.qmp.execute("job-dismiss", json!({ "id": "job" }))?;
            return match error {
                None => Ok(()),
                Some(error) => fail(format!("{command}: {error}")),
            };
        }
        if start.elapsed() > JOB {
            return fail(format!("{command} does not end"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the guest is there.
fn arrived(there: &mut Machine) -> Result<()> {
    let start = Instant::now();
    loop {
        let status = there.qmp.execute("query-status", json!({}))?;
        match status["status"].as_str() {
            Some("running" | "paused") => return Ok(()),
            _ if start.elapsed() > JOB => {
                return fail(format!("the guest does not arrive: {status}"));
            }
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}
