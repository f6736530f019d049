//! A whole guest: reads of an nvme disk by a stock Linux whose every request is mapped, unmapped and
//! invalidated at once (`iommu.strict=1`), behind each unit in turn.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::machine::Unit;
use super::rows::{Row, Verdict, dash};
use super::samples::{Ratio, Samples, digits, time};
use crate::boot::pseudo_random;
use crate::guest::Image;
use crate::ui::{Context, Error, Result, Step, indent, tail};

const DISK: &str = "disk";
const DISK_SIZE: usize = 64 << 20;
const READS: u32 = 2000;
/// Rounds of reads in each boot.
const ROUNDS: usize = 5;
/// For booting and reading, where nothing is said meanwhile.
const PATIENCE: Duration = Duration::from_secs(90);

/// Nanoseconds for one read, by unit: a round of [`Samples`] is a boot.
#[derive(Default)]
pub struct Reads {
    units: BTreeMap<Unit, Samples>,
}

impl Reads {
    pub fn take(
        program: &Path,
        firmware: &Path,
        image: &Image,
        dir: &Path,
        boots: usize,
    ) -> Result<Self> {
        let disk = dir.join(DISK);
        fs::write(&disk, pseudo_random(0x6e76_6d65, DISK_SIZE)).context(disk.display())?;
        let mut step = Step::new(format!("nvme reads of a guest, {boots} boots of each"));
        let mut reads = Self::default();
        for boot in 0..boots {
            for place in 0..Unit::ALL.len() {
                let unit = Unit::ALL[(place + boot) % Unit::ALL.len()];
                let name = format!("boot {} behind {}", boot + 1, unit.name());
                let round =
                    run(&mut step, &name, program, firmware, image, unit, dir).context(&name)?;
                reads.units.entry(unit).or_default().rounds.push(round);
            }
        }
        step.done("");
        Ok(reads)
    }

    pub fn median(&self, unit: Unit) -> Option<f64> {
        self.units.get(&unit).map(Samples::median)
    }

    pub fn rows(&self) -> Option<[Row; 2]> {
        let [nothing, theirs, ours] = Unit::ALL.map(|unit| self.units.get(&unit));
        let (nothing, theirs, ours) = (nothing?, theirs?, ours?);
        let ratio = Ratio::over_rounds([theirs, ours], |[theirs, ours]| theirs / ours)?;
        let row = |case: String, [theirs, ours]: [f64; 2], ratio: String, spread: String| Row {
            case,
            target: dash(),
            theirs: time(theirs),
            ours: time(ours),
            ratio,
            spread,
            verdict: Verdict::Told,
            instead: None,
        };
        let [nothing, theirs, ours] = [nothing, theirs, ours].map(Samples::median);
        let added = [theirs - nothing, ours - nothing];
        // Boots differ by about as much, so the rounds say nothing of this.
        let times = if added[1] > 0.0 {
            digits(added[0] / added[1])
        } else {
            dash()
        };
        Some([
            row(
                "4 KiB read".to_owned(),
                [theirs, ours],
                digits(ratio.median),
                format!("{}-{}", digits(ratio.least), digits(ratio.most)),
            ),
            row(
                format!("  added to {} without vIOMMU", time(nothing)),
                added,
                times,
                String::new(),
            ),
        ])
    }

    pub fn json(&self) -> Value {
        let units = self.units.iter();
        units
            .map(|(unit, samples)| (unit.name().to_owned(), json!(samples.rounds)))
            .collect()
    }
}

/// A running emulator; killed when dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// One boot: of each round, nanoseconds for one read.
fn run(
    step: &mut Step,
    name: &str,
    program: &Path,
    firmware: &Path,
    image: &Image,
    unit: Unit,
    dir: &Path,
) -> Result<Vec<f64>> {
    let (facts, console, log) = (
        dir.join("facts"),
        dir.join("console"),
        dir.join("guest.log"),
    );
    for file in [&facts, &console] {
        fs::write(file, "").context(file.display())?;
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command.current_dir(dir).arg("-L").arg(firmware);
    for words in [
        "-nodefaults -display none -no-reboot -serial file:console -serial file:facts",
        "-machine q35 -accel tcg -cpu max -smp 2 -m 1024",
    ] {
        command.args(words.split(' '));
    }
    if let Some(device) = unit.option() {
        command.args(["-device", device]);
    }
    command.args([
        "-drive",
        &format!("if=none,id=drive,format=raw,readonly=on,file={DISK}"),
    ]);
    command.args(["-device", "nvme,serial=bench,drive=drive"]);
    command
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd);
    command.arg("-append").arg(format!(
        "console=ttyS0 panic=-1 quiet no_timer_check intel_iommu=on,sm_on iommu.strict=1 rdinit=/reads \
         nvtd.reads={READS} nvtd.rounds={ROUNDS}"
    ));
    let errors = File::create(&log).context(log.display())?;
    let child = command
        .stdin(Stdio::null())
        .stderr(errors)
        .spawn()
        .context("cannot start setpriv (package util-linux)")?;
    let mut guest = Guest(child);
    let (mut since, mut lines) = (Instant::now(), 0);
    let said = loop {
        thread::sleep(Duration::from_millis(100));
        let said = fs::read_to_string(&facts).unwrap_or_default();
        if said.lines().count() > lines {
            (since, lines) = (Instant::now(), said.lines().count());
        }
        step.update(&format!("{name}: {lines} of {} lines", ROUNDS + 2));
        let ended = !matches!(guest.0.try_wait(), Ok(None));
        if said.lines().any(|line| line == "done") || ended || since.elapsed() > PATIENCE {
            break said;
        }
    };
    drop(guest);
    parse(&said, unit).map_err(|e| {
        Error::new(format!(
            "{e}\nits console:\n{}\nthe emulator:\n{}",
            indent(&tail(&console, 0, 15)),
            indent(&tail(&log, 0, 5)),
        ))
    })
}

/// What the guest said, if it did what was to be measured.
fn parse(said: &str, unit: Unit) -> Result<Vec<f64>> {
    let domain = said.lines().find_map(|line| line.strip_prefix("domain "));
    let wanted = if unit == Unit::Nothing { "none" } else { "DMA" };
    if domain != Some(wanted) {
        return Err(Error::new(format!(
            "the disk's domain is to be {wanted}, the guest says {domain:?}"
        )));
    }
    let round = |line: &str| {
        let mut words = line.strip_prefix("reads ")?.split_whitespace();
        let reads: f64 = words.next()?.parse().ok()?;
        let ns: f64 = words.next()?.parse().ok()?;
        Some(ns / reads)
    };
    let rounds: Vec<f64> = said.lines().filter_map(round).collect();
    if rounds.len() != ROUNDS {
        return Err(Error::new(format!(
            "{ROUNDS} rounds of reads were to be measured; the guest said:\n{}",
            indent(said)
        )));
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lazy_domain_is_not_measured() {
        let reads = "reads 2000 4000000\n".repeat(ROUNDS);
        let said = |domain: &str| format!("domain {domain}\n{reads}done\n");
        assert_eq!(parse(&said("DMA"), Unit::Ours).unwrap(), [2000.0; ROUNDS]);
        assert!(parse(&said("DMA-FQ"), Unit::Ours).is_err());
        assert!(parse(&said("none"), Unit::Nothing).is_ok());
        assert!(parse("domain DMA\nreads 2000 random: disk\n", Unit::Ours).is_err());
    }
}
