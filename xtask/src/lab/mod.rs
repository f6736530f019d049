//! `cargo xtask lab`: the nested loop. L0 is an emulator whose unit plays VT-d hardware; L1 a Linux on it
//! that is a host; L2 a Linux behind our unit again, whose host is L1's kernel. So the kernel judges what
//! our unit asks of it, and our unit what the kernel makes of that.

pub mod agent;
mod controls;
mod guest;
mod host;
mod machine;
mod peers;
mod report;
mod restore;
mod soak;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::boot::pseudo_random;
use crate::cache::{self, Cache, sha256};
use crate::conformance;
use crate::debian::Apt;
use crate::guest::{self as image, Image};
use crate::host as packages;
use crate::kernel::Release;
use crate::qemu;
use crate::selftests;
use crate::ui::{self, Context, Error, Result, Step, fail};
use crate::workspace::Workspace;
use guest::{Guest, READ, WRITTEN};
use machine::{Files, HARDWARE, How, Machine};
use report::{Report, Seen, Verdict};

pub const USAGE: &str = "\
usage: cargo xtask lab [OPTION...]
  --kernel N            Linux N of Debian's in L1 and L2, 6.12 for one, not its newest
  --full                the kernel's own tests of vfio and iommufd in L1, too
  --soak MINUTES        instead of the rest: everything comes and goes at once, for so long
  --break invalidation  L2's unit drops every invalidation: fails, with stale uses
  --json FILE           write the report as JSON, too
  --keep                keep the run's files (consoles, disks)
  --update              look for newer Debian packages first";

/// What the disk has: READ bytes made of this.
const SEED: u64 = 0x6c61_622d_3064;

struct Options {
    release: Release,
    broken: bool,
    full: bool,
    soak: Option<u64>,
    json: Option<PathBuf>,
    keep: bool,
    update: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            release: Release::Newest,
            broken: false,
            full: false,
            soak: None,
            json: None,
            keep: false,
            update: false,
        };
        let here = env::current_dir().context("current directory")?;
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            let mut value = || {
                let missing = || Error::new(format!("{arg} needs a value")).next(USAGE);
                args.next().ok_or_else(missing)
            };
            match arg {
                "--kernel" => options.release = Release::parse(value()?)?,
                "--json" => options.json = Some(here.join(value()?)),
                "--soak" => {
                    let minutes = value()?.parse().ok().filter(|minutes| *minutes > 0);
                    let wrong = || Error::new("--soak takes minutes, 1 or more").next(USAGE);
                    options.soak = Some(minutes.ok_or_else(wrong)?);
                }
                "--break" if value()? == "invalidation" => options.broken = true,
                "--full" => options.full = true,
                "--keep" => options.keep = true,
                "--update" => options.update = true,
                _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
            }
        }
        Ok(options)
    }
}

/// `cargo xtask lab`.
pub fn run_command(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let (workspace, cache) = (Workspace::new(), Cache::open()?);
    let report = tried(&workspace, &cache, &options)?;
    print!("{}", report.text());
    if let Some(file) = &options.json {
        fs::write(file, format!("{:#}\n", report.json())).context(file.display())?;
    }
    judge(&report)
}

/// What L2's emulator says if KVM takes an access of L2's for one in the middle of an exception.
const GIVEN_UP: &str = "KVM internal error. Suberror: 3";

/// A run, and one more if L1's KVM gave L2 up in the first and nothing else was wrong; that one is printed as well. docs/lab.md says why
/// KVM does so.
fn tried(workspace: &Workspace, cache: &Cache, options: &Options) -> Result<Report> {
    let report = run(workspace, cache, options)?;
    if options.keep || options.broken || !report.failed_by(GIVEN_UP) {
        return Ok(report);
    }
    eprintln!("{}  running the lab once more", report.text());
    run(workspace, cache, options)
}

/// The run that is part of `cargo xtask check`.
pub fn check(workspace: &Workspace, cache: &Cache) -> Result<()> {
    let report = tried(workspace, cache, &Options::parse(&[])?)?;
    judge(&report).map_err(|e| Error::new(format!("{e}\n{}", report.text())))
}

fn judge(report: &Report) -> Result<()> {
    match report.count(Verdict::Failed) {
        0 => Ok(()),
        n => Err(Error::new(format!("{n} lines of the report failed"))
            .next("look closer with cargo xtask lab --keep")),
    }
}

/// All that is tried; what fails is in the report.
fn run(workspace: &Workspace, cache: &Cache, options: &Options) -> Result<Report> {
    let prepared = Prepared::new(workspace, cache, options)?;
    let mut report = Report::default();
    match options.soak {
        Some(minutes) => soaked_boot(&mut report, &prepared, minutes).or_else(said)?,
        None => first_boot(&mut report, &prepared, workspace, options).or_else(said)?,
    }
    if !options.broken && options.soak.is_none() {
        second_boot(&mut report, &prepared).or_else(said)?;
    }
    if options.full {
        peers::steps(&mut report, &prepared.files).or_else(said)?;
    }
    if !options.keep {
        cache::remove(&prepared.files.dir)?;
    }
    Ok(report)
}

/// An error that is in the report.
fn said(e: Error) -> Result<()> {
    if e.is_silent() { Ok(()) } else { Err(e) }
}

/// L1 on hardware that nests, and L2 in it.
fn first_boot(
    report: &mut Report,
    prepared: &Prepared,
    workspace: &Workspace,
    options: &Options,
) -> Result<()> {
    let broken = options.broken;
    let machine = &mut start(report, "l1.boot", prepared, &How::NESTING)?;
    let guest = Guest {
        unit: if broken {
            "x-inject=drop-invalidations"
        } else {
            ""
        },
        sum: &prepared.sum,
    };
    let went = (|| {
        if !broken {
            let newest = options.release == Release::Newest;
            host::steps(report, machine, workspace, newest)?;
        }
        guest.first_steps(report, machine)?;
        controls::second_stage_page(report, machine)?;
        guest.later_steps(report, machine)?;
        report.step("l2.unit", |_| unit_of_l2(machine))
    })();
    // Whatever came of L2, what L0 has seen counts.
    report.step("l0.unit", |_| unit_of_l0(machine))?;
    went?;
    report.step("l2.stop", |step| {
        machine.stop_l2(step)?;
        Ok(Seen::new("its emulator has ended"))
    })?;
    controls::dropped_invalidations(report, machine, unit_of_l0)
}

/// The same for long, with all of L0's memory taken from the start, so that what grows is seen.
fn soaked_boot(report: &mut Report, prepared: &Prepared, minutes: u64) -> Result<()> {
    let how = How {
        options: "-mem-prealloc",
        ..How::NESTING
    };
    let machine = &mut start(report, "l1.boot", prepared, &how)?;
    let guest = Guest {
        unit: "",
        sum: &prepared.sum,
    };
    let went = (|| {
        guest.first_steps(report, machine)?;
        soak::soak(report, machine, &prepared.sum, minutes)?;
        report.step("l2.unit", |_| unit_of_l2(machine))
    })();
    report.step("l0.unit", |_| unit_of_l0(machine))?;
    went
}

/// L1 on hardware that does not.
fn second_boot(report: &mut Report, prepared: &Prepared) -> Result<()> {
    let unit = HARDWARE.replace("nest=on", "nest=off");
    let how = How {
        unit: &unit,
        ..How::NESTING
    };
    let mut machine = start(report, "l1.boot-without-nesting", prepared, &how)?;
    controls::no_nesting(report, &mut machine)
}

fn start(report: &mut Report, name: &str, prepared: &Prepared, how: &How<'_>) -> Result<Machine> {
    let mut started = None;
    report.step(name, |step| {
        started = Some(Machine::start(step, &prepared.files, how)?);
        Ok(Seen::new(format!("-device {}", how.unit)))
    })?;
    started.map_or_else(|| fail("there is no machine"), Ok)
}

/// L0's unit has used nothing stale, and refused nothing but what was to be refused.
fn unit_of_l0(machine: &mut Machine) -> Result<Seen> {
    let counters = machine.counters()?;
    let [stale, faults, walks, nested, second, updates, queue] = [
        "stale-uses",
        "faults",
        "walks",
        "nested-walks",
        "second-stage-walks",
        "table-updates",
        "queue-errors",
    ]
    .map(|name| counters.get(name));
    let expected = machine.refused;
    let text = format!(
        "stale uses 0 (oracle on); {faults} DMAs refused, all of them on purpose; {} translations, \
         {walks} walks, {nested} of them nested, {second} second-stage walks, {updates} accessed and \
         dirty updates",
        counters.get("translations")
    );
    if stale != 0 || faults != expected || queue != 0 || nested == 0 {
        return fail(format!(
            "{stale} stale uses, {faults} faults of which {expected} were to be, {queue} queue errors, \
             {nested} nested walks"
        ));
    }
    Ok(Seen::new(text)
        .with("stale-uses", stale)
        .with("faults", faults)
        .with("faults-expected", expected)
        .with("walks", walks)
        .with("nested-walks", nested)
        .with("second-stage-walks", second)
        .with("table-updates", updates))
}

/// L2's unit was refused nothing by L1's kernel.
fn unit_of_l2(machine: &mut Machine) -> Result<Seen> {
    let counters = machine.counters_of_l2()?;
    let bad = [
        "hwpt-alloc-errors",
        "attach-errors",
        "invalidate-errors",
        "hwpt-destroy-errors",
        "host-timeouts",
        "queue-errors",
        "faults",
        "interrupt-faults",
    ]
    .map(|name| (name, counters.get(name)));
    if bad.iter().any(|(_, count)| *count != 0) {
        return fail(format!("{bad:?}"));
    }
    let [calls, allocs, destroys, attaches] = [
        "invalidate-calls",
        "hwpt-allocs",
        "hwpt-destroys",
        "attaches",
    ]
    .map(|name| counters.get(name));
    Ok(Seen::new(format!(
        "since its reset: {allocs} HWPTs made, {destroys} destroyed, {attaches} attachments, {calls} \
         invalidate calls, none refused"
    )))
}

/// All that a run needs.
struct Prepared {
    files: Files,
    /// Of the data that L2 is to read.
    sum: String,
}

impl Prepared {
    fn new(workspace: &Workspace, cache: &Cache, options: &Options) -> Result<Self> {
        let (program, firmware, image, selftests) = {
            let _lock = cache.lock()?;
            packages::require(cache, &[packages::UNPACK, packages::BUILD, packages::GUEST])?;
            let apt = Apt::open(cache, options.update)?;
            let program = qemu::build(workspace, cache, &apt)?;
            let firmware = qemu::firmware(cache, &apt)?;
            let image = image::lab(workspace, cache, &apt, &options.release)?;
            let selftests = (options.full)
                .then(|| selftests::build(workspace, cache, &apt, &options.release))
                .transpose()?;
            (program, firmware, image, selftests)
        };
        let owner = if options.keep {
            "kept".to_owned()
        } else {
            process::id().to_string()
        };
        let dir = cache.path(format!("run/{owner}-lab"));
        let step = Step::new("disks of the lab");
        let data = pseudo_random(SEED, READ);
        let sum = sha256(&data)?;
        cache::build_dir(&dir, |dir| {
            payload(workspace, dir, &program, &firmware, &image)?;
            if let Some(programs) = &selftests {
                add_selftests(dir, programs)?;
            }
            fs::copy(&image.initrd, dir.join("initrd")).context("initrd")?;
            let disk = dir.join("disk");
            fs::write(&disk, &data).context(disk.display())?;
            let disk = fs::File::options()
                .write(true)
                .open(&disk)
                .context("disk")?;
            disk.set_len((READ + WRITTEN) as u64).context("disk")
        })?;
        step.done("");
        Ok(Self {
            files: Files {
                qemu: program,
                firmware,
                kernel: image.kernel,
                dir,
            },
            sum,
        })
    }
}

/// L1's first disk: an archive of what it needs for L2.
fn payload(
    workspace: &Workspace,
    dir: &Path,
    program: &Path,
    firmware: &Path,
    image: &Image,
) -> Result<()> {
    let root = dir.join("root");
    qemu::vfio::emulator(&root.join("emulator"), program, firmware)?;
    fs::copy(&image.kernel, root.join("vmlinuz")).context("vmlinuz")?;
    fs::copy(&image.initrd, root.join("initrd")).context("initrd")?;
    conformance::build_for_guest(workspace, &root.join("host_conformance"))?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--file"])
        .arg(dir.join("payload"));
    ui::output(tar.arg("--directory").arg(&root).arg("."))?;
    cache::remove(&root)
}

/// The kernel's own tests go into the archive as well.
fn add_selftests(dir: &Path, programs: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--append", "--owner=0", "--group=0", "--file"])
        .arg(dir.join("payload"));
    tar.args(["--transform", "s,^[.],./selftests,", "--directory"]);
    ui::output(tar.arg(programs).arg(".")).map(drop)
}
