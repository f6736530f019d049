//! The conformance program (tests/c/conformance) on the lab kernel and on the twin, and the table of
//! docs/conformance.md that says which rule is shown where.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::boot::EMULATED;
use crate::cache::{self, Cache};
use crate::debian::Apt;
use crate::guest;
use crate::host;
use crate::kernel::Release;
use crate::qemu;
use crate::ui::{self, Context, Error, Result, Step, fail, tail};
use crate::workspace::Workspace;

/// The lab kernel is booted behind each of these units, with these devices; together they show what it
/// can show.
const BOOTS: &[(&str, &str, &str)] = &[
    ("nested", "nest=on", SIBLINGS),
    (
        "everything",
        "nest=on,slads=on,srs=on,eafs=on,aw-bits=57,pasid-bits=20,prs=on,device-iotlb=on,snoop-control=on",
        WITH_PASIDS,
    ),
    ("first stage only", "second-stage=off", SIBLINGS),
    ("no interrupt remapping", "intremap=off", SIBLINGS),
];

/// Two functions of one device, which share an IOMMU group, and one by itself, with PASIDs that need an
/// IOMMU with PASID.
const SIBLINGS: &str = "-device edu,addr=4.0,multifunction=on,dma_mask=0xffffffff \
    -device edu,addr=4.1,dma_mask=0xffffffff -device pasid-testdev,addr=5";

/// One with PASIDs, which functions of one device cannot have (nothing keeps them from each other, ACS), and
/// one without.
const WITH_PASIDS: &str = "-device pasid-testdev,addr=4 -device edu,addr=5,dma_mask=0xffffffff";

/// For one boot.
const DEADLINE: Duration = Duration::from_secs(90);

/// Columns of the table behind the rule and what it says.
const KERNEL: usize = 0;

const TABLE: &str = "docs/conformance.md";

/// What is in the table, and what is not.
const SHOWN: &str = "yes";
const NOT_SHOWN: &str = "-";

/// Boots the lab kernel behind units of several kinds and runs the program in each.
pub fn of_kernel(step: &mut Step, workspace: &Workspace, cache: &Cache) -> Result<()> {
    let (program, firmware, image) = {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK, host::BUILD, host::GUEST])?;
        let apt = Apt::open(cache, false)?;
        let program = qemu::build(workspace, cache, &apt)?;
        let firmware = qemu::firmware(cache, &apt)?;
        (
            program,
            firmware,
            guest::lab(workspace, cache, &apt, &Release::Newest)?,
        )
    };
    let dir = cache.path(format!("run/{}-conformance", process::id()));
    cache::build_dir(&dir, |dir| {
        let root = dir.join("root");
        fs::create_dir_all(root.join("bin")).context(root.display())?;
        build_for_guest(workspace, &root.join("bin/host_conformance"))?;
        guest::add(&image, &root, &dir.join("initrd"))
    })?;
    let mut seen = Seen::default();
    let result = (|| {
        for (name, unit, devices) in BOOTS {
            step.update(name);
            let options = format!("{devices} -device nested-vtd,{unit}");
            let said = boot(&program, &firmware, &image.kernel, &dir, &options)?;
            seen.add(&said)
                .map_err(|e| Error::new(format!("{name}: {e}\n{}", ui::indent(&said))))?;
        }
        seen.judge(workspace, KERNEL)
    })();
    cache::remove(&dir)?;
    result
}

/// The program without the twin, for a guest that has no libraries.
pub fn build_for_guest(workspace: &Workspace, to: &Path) -> Result<()> {
    let sources = cache::list(&workspace.path("tests/c/conformance"))?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-D_DEFAULT_SOURCE", "-DNO_TWIN", "-static"]);
    gcc.args(["-O2", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(to);
    gcc.args(
        sources
            .iter()
            .filter(|file| file.extension().is_some_and(|e| e == "c") && !file.ends_with("twin.c")),
    );
    ui::output(&mut gcc).map(drop)
}

/// One boot, and all that the program said. Guests used to stall in the middle of a rule, until an emulator that
/// loses accesses was mended (qemu-patches, system/physmem) and the clocksource watchdog kept out ([`EMULATED`]). In
/// case there is another cause, one that stalls is booted once more, and the first is printed. A rule that stalls a
/// kernel only at times would pass here.
fn boot(
    program: &Path,
    firmware: &Path,
    kernel: &Path,
    dir: &Path,
    options: &str,
) -> Result<String> {
    boot_once(program, firmware, kernel, dir, options).or_else(|error| {
        eprintln!("{error}\n  booting it once more");
        boot_once(program, firmware, kernel, dir, options)
    })
}

fn boot_once(
    program: &Path,
    firmware: &Path,
    kernel: &Path,
    dir: &Path,
    options: &str,
) -> Result<String> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command.arg("-L").arg(firmware).arg("-kernel").arg(kernel);
    for words in [
        "-nodefaults -display none -no-reboot -serial file:console -serial file:facts",
        "-machine q35 -accel tcg -cpu max -smp 2 -m 1024 -initrd initrd",
        options,
    ] {
        command.args(words.split_whitespace());
    }
    command.arg("-append").arg(format!(
        "console=ttyS0 panic=-1 {EMULATED} intel_iommu=on,sm_on rdinit=/conformance"
    ));
    let (log, facts) = (dir.join("qemu.log"), dir.join("facts"));
    fs::write(&facts, "").context(facts.display())?;
    let errors = fs::File::create(&log).context(log.display())?;
    let mut child = command
        .current_dir(dir)
        .stderr(errors)
        .spawn()
        .context("cannot start setpriv (package util-linux)")?;
    let start = Instant::now();
    let said = || fs::read_to_string(&facts).unwrap_or_default();
    while !ended(&said()) && start.elapsed() < DEADLINE && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(100));
    }
    child.kill().ok();
    child.wait().ok();
    if ended(&said()) {
        return Ok(said());
    }
    fail(format!(
        "the guest did not come to its end; it said:\n{}\nits console:\n{}\nthe emulator:\n{}",
        ui::indent(&said()),
        ui::indent(&tail(&dir.join("console"), 0, 15)),
        ui::indent(&tail(&log, 0, 5)),
    ))
}

fn ended(said: &str) -> bool {
    said.ends_with('\n') && said.lines().any(|line| line.starts_with("exit "))
}

/// What came of a run in which nothing failed.
pub struct Tally {
    pub passed: usize,
    /// Rules that were not shown, and why.
    pub skipped: Vec<(String, String)>,
}

/// Judges a run with one kind of unit: no rule fails, and with the kernel that the table is about (`newest`) none
/// passes that the table does not have.
pub fn judge_one(said: &str, workspace: &Workspace, newest: bool) -> Result<Tally> {
    let mut seen = Seen::default();
    seen.add(said)?;
    if !ended_well(said) {
        return fail(format!("it did not come to its end:\n{said}"));
    }
    if newest {
        let file = workspace.path(TABLE);
        let text = fs::read_to_string(&file).context(file.display())?;
        let (_, differences) = compare(&text, KERNEL, &seen.rules);
        let new: Vec<_> = differences
            .into_iter()
            .filter(|difference| !difference.ends_with(&format!("seen: {NOT_SHOWN:?}")))
            .collect();
        if !new.is_empty() {
            return fail(new.join("\n"));
        }
    }
    let reason = |line: &str| {
        let why = line.rsplit_once('[').map_or("", |(_, why)| why);
        why.trim_end_matches(']').to_owned()
    };
    let skipped: Vec<_> = said
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("skipped"))
                .then(|| Some((words.next()?.to_owned(), reason(line))))
                .flatten()
        })
        .collect();
    Ok(Tally {
        passed: seen.rules.values().filter(|passed| **passed).count(),
        skipped,
    })
}

/// Is the last line the program's own count?
fn ended_well(said: &str) -> bool {
    let last = said.trim_end().lines().last().unwrap_or("");
    last.contains(" passed") && last.contains(" 0 failed")
}

/// Verdicts of one run or several.
#[derive(Default)]
struct Seen {
    /// Every rule, and whether it has passed.
    rules: BTreeMap<String, bool>,
}

impl Seen {
    /// Takes in a run's lines; a rule that failed is an error.
    fn add(&mut self, said: &str) -> Result<()> {
        let mut failed = Vec::new();
        for line in said.lines() {
            let mut words = line.split_whitespace();
            let passed = match words.next() {
                Some("passed") => true,
                Some("skipped") => false,
                Some("failed") => {
                    failed.push(line);
                    continue;
                }
                _ => continue,
            };
            let Some(name) = words.next() else { continue };
            *self.rules.entry(name.to_owned()).or_default() |= passed;
        }
        match failed.as_slice() {
            [] if self.rules.is_empty() => fail("no rule was checked"),
            [] => Ok(()),
            lines => fail(lines.join("\n")),
        }
    }

    /// Is it what the table has in this column?
    fn judge(&self, workspace: &Workspace, column: usize) -> Result<()> {
        let file = workspace.path(TABLE);
        let text = fs::read_to_string(&file).context(file.display())?;
        let (new, differences) = compare(&text, column, &self.rules);
        if env::var_os("NVTD_WRITE_DOCS").is_some() {
            return fs::write(&file, new).context(file.display());
        }
        match differences.as_slice() {
            [] => Ok(()),
            lines => Err(Error::new(lines.join("\n")).next(format!(
                "if this is as it should be: NVTD_WRITE_DOCS=1 writes it into {TABLE}"
            ))),
        }
    }
}

/// The table with `rules` in this column, and what it had otherwise.
fn compare(text: &str, column: usize, rules: &BTreeMap<String, bool>) -> (String, Vec<String>) {
    let (mut new, mut differences) = (String::new(), Vec::new());
    let mut missing: Vec<_> = rules.keys().map(String::as_str).collect();
    for line in text.lines() {
        let mut cells: Vec<_> = line.split('|').map(str::trim).collect();
        // An empty one on either side, the rule, what it says, the columns.
        let place = column + 3;
        let rule = cells.get(1).copied().unwrap_or_default();
        if let (Some(passed), true) = (rules.get(rule), cells.len() > place + 1) {
            let wanted = if *passed { SHOWN } else { NOT_SHOWN };
            missing.retain(|name| *name != rule);
            if cells[place] != wanted {
                differences.push(format!(
                    "{rule}: the table has {:?}, seen: {wanted:?}",
                    cells[place]
                ));
                cells[place] = wanted;
                new += &format!("| {} |\n", cells[1..cells.len() - 1].join(" | "));
                continue;
            }
        }
        new += line;
        new.push('\n');
    }
    for name in missing {
        differences.push(format!("{name} is not in the table"));
    }
    (new, differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str =
        "Linux 7.3.4\npassed   H1   flags  [x]\nskipped  H2   type  [no]\n1 passed\nexit 0\n";
    const DOCS: &str = "# Title\n| rule | says | a | b |\n|---|---|---|---|\n| H1 | flags | yes | - |\n\
                        | H2 | type | - | - |\n";

    #[test]
    fn verdicts_are_compared_with_the_table() {
        let mut seen = Seen::default();
        seen.add(SAID).unwrap();
        assert!(compare(DOCS, 0, &seen.rules).1.is_empty());
        let (new, differences) = compare(DOCS, 1, &seen.rules);
        assert_eq!(differences, ["H1: the table has \"-\", seen: \"yes\""]);
        assert_eq!(
            new,
            DOCS.replace("flags | yes | - |", "flags | yes | yes |")
        );
        seen.rules.insert("H3".to_owned(), true);
        assert_eq!(compare(DOCS, 0, &seen.rules).1, ["H3 is not in the table"]);
    }

    #[test]
    fn a_rule_passes_if_it_does_in_one_run_and_fails_in_none() {
        let mut seen = Seen::default();
        seen.add(SAID).unwrap();
        seen.add("passed  H2  type\nskipped  H1  flags  [no]\n")
            .unwrap();
        assert!(seen.rules["H1"] && seen.rules["H2"]);
        assert!(seen.add("failed  H2  type  [0, not EINVAL]\n").is_err());
        assert!(Seen::default().add("exit 1\n").is_err());
    }

    #[test]
    fn the_end_is_a_whole_line() {
        assert!(ended(SAID));
        assert!(!ended(SAID.trim_end()));
        assert!(!ended("passed  H1  x\n"));
    }
}
