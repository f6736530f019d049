//! vfio behind `-device nested-vtd`, with a kernel: the lab kernel, in a guest whose hardware is
//! nested-vtd, passes devices to emulators with another nested-vtd. See tests/guest/vfio.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};

use super::{PROGRAM, build, firmware};
use crate::boot::EMULATED;
use crate::cache::{self, Cache};
use crate::debian::Apt;
use crate::guest;
use crate::host;
use crate::kernel::Release;
use crate::ui::{self, Context, Error, Result, Step, fail, tail};
use crate::workspace::Workspace;

/// What each DMA is to bring (a page that is not mapped keeps what it had); PGTT in the kernel's own
/// entries for a device (VT-d 9.6: 2 is the nesting parent, 3 a nested HWPT); and how many there are.
const EXPECTED: &[(&str, u64)] = &[
    ("off", 0x1111),
    ("tables", 0x2222),
    ("unmapped", 0x2222),
    ("moved", 0x4444),
    ("pass-through", 0x5555),
    ("tables-again", 0x6666),
    ("nested-off", 0x1111),
    ("pgtt-off", 2),
    ("nested", 0x2222),
    ("pgtt-nested", 3),
    ("pgtt-nested-second", 3),
    ("second", 0x3333),
    ("one-hwpt", 1),
    ("emulated", 0x4444),
    ("moved-plugged", 0x5555),
    ("moved-second", 0x5555),
    ("moved-emulated", 0x5555),
    ("nested-unmapped", 0),
    ("alone", 0x7777),
    ("in-its-place", 0x8888),
    ("plugged-again", 0x9999),
    ("nested-pass-through", 0xaaaa),
    ("pgtt-pass-through", 2),
    ("pgtt-nested-again", 3),
    ("pgtt-reset", 2),
    ("mapped-by-vfio", 0),
    ("refused", 1),
];

const DEADLINE: Duration = Duration::from_secs(120);

/// Runs the guest and judges what it says.
pub fn run(step: &mut Step, workspace: &Workspace, cache: &Cache) -> Result<()> {
    let (program, firmware, image) = {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK, host::BUILD, host::GUEST])?;
        let apt = Apt::open(cache, false)?;
        let program = build(workspace, cache, &apt)?;
        let firmware = firmware(cache, &apt)?;
        (
            program,
            firmware,
            guest::lab(workspace, cache, &apt, &Release::Newest)?,
        )
    };
    let dir = cache.path(format!("run/{}-vfio", process::id()));
    cache::build_dir(&dir, |dir| {
        let root = dir.join("root");
        emulator(&root.join("emulator"), &program, &firmware)?;
        guest::add(&image, &root, &dir.join("initrd"))
    })?;
    let result = boot(step, &program, &firmware, &image.kernel, &dir);
    cache::remove(&dir)?;
    result
}

/// Fills `dir` with the emulator and all that it loads.
pub fn emulator(dir: &Path, program: &Path, firmware: &Path) -> Result<()> {
    fs::create_dir_all(dir).context(dir.display())?;
    ui::output(
        Command::new("strip")
            .arg("-o")
            .arg(dir.join(PROGRAM))
            .arg(program),
    )?;
    let libraries = ui::output(Command::new("ldd").arg(program))?;
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from);
    for file in libraries.chain(cache::list(firmware)?) {
        let name = file.file_name().unwrap_or_default();
        fs::copy(&file, dir.join(name)).context(file.display())?;
    }
    Ok(())
}

fn boot(step: &mut Step, program: &Path, firmware: &Path, kernel: &Path, dir: &Path) -> Result<()> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command.arg("-L").arg(firmware).arg("-kernel").arg(kernel);
    for words in [
        "-nodefaults -display none -no-reboot -serial file:console -serial file:facts",
        "-machine q35 -accel tcg -cpu max -smp 2 -m 1536 -initrd initrd",
        "-device nested-vtd,nest=on",
        "-device edu,addr=4,dma_mask=0xffffffff -device edu,addr=5,dma_mask=0xffffffff",
    ] {
        command.args(words.split(' '));
    }
    command.arg("-append").arg(format!(
        "console=ttyS0 panic=-1 {EMULATED} intel_iommu=on,sm_on rdinit=/vfio"
    ));
    let log = dir.join("qemu.log");
    let errors = fs::File::create(&log).context(log.display())?;
    let mut child = command
        .current_dir(dir)
        .stderr(errors)
        .spawn()
        .context("cannot start setpriv (package util-linux)")?;

    let start = Instant::now();
    let facts = || fs::read_to_string(dir.join("facts")).unwrap_or_default();
    while !facts().lines().any(|line| line == "done")
        && start.elapsed() < DEADLINE
        && matches!(child.try_wait(), Ok(None))
    {
        thread::sleep(Duration::from_millis(100));
        step.update(&format!(
            "{} of {} steps",
            facts().lines().count(),
            EXPECTED.len()
        ));
    }
    child.kill().ok();
    child.wait().ok();
    judge(&facts()).map_err(|e| {
        Error::new(format!(
            "{e}\nit said:\n{}\nits console:\n{}\nthe emulator:\n{}",
            ui::indent(&facts()),
            ui::indent(&tail(&dir.join("console"), 0, 15)),
            ui::indent(&tail(&log, 0, 5)),
        ))
    })
}

/// Is what the guest said what each step is to bring, and nothing else?
fn judge(facts: &str) -> Result<()> {
    let mut said = facts.lines();
    for (name, expected) in EXPECTED {
        let line = said.next().unwrap_or("nothing");
        let value = line
            .strip_prefix(name)
            .and_then(|rest| rest.trim().strip_prefix("0x"))
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        if value != Some(*expected) {
            return fail(format!(
                "{name} is to be {expected:#x}, but it said {line:?}"
            ));
        }
    }
    match said.next() {
        Some("done") => Ok(()),
        other => fail(format!("it did not come to its end, but to {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{EXPECTED, judge};

    #[test]
    fn only_the_expected_answers_pass() {
        let said = EXPECTED
            .iter()
            .map(|(name, value)| format!("{name} {value:#x}\n"));
        let good = said.collect::<String>() + "done\n";
        assert!(judge(&good).is_ok());
        assert!(judge(&good.replace("moved 0x4444", "moved 0x0")).is_err());
        assert!(judge(&good.replace("done\n", "")).is_err());
        assert!(judge(&good.replace("off 0x1111\n", "")).is_err());
        assert!(judge("").is_err());
    }
}
