//! QEMU's qtest programs for VT-d units, run against `-device nested-vtd`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use super::{Build, PROGRAM, build_as, firmware};
use crate::cache::{self, Cache};
use crate::debian::Apt;
use crate::host;
use crate::ui::{Context, Result, Step, run as run_logged};
use crate::workspace::Workspace;

/// QEMU's own test of intel-iommu. It is not changed; what starts the emulator for it gives it
/// nested-vtd in place of intel-iommu.
pub const THEIRS: &str = "intel-iommu-test";

/// The device's own tests, which the patches add.
pub const OURS: [&str; 4] = [
    "nested-vtd-test",
    "nested-vtd-notify-test",
    "nested-vtd-migration-test",
    RANDOM,
];

/// That of a guest without rules.
pub const RANDOM: &str = "nested-vtd-random-test";

/// The test programs, as ninja's targets.
pub(super) fn targets() -> Vec<String> {
    let tests = OURS.iter().chain([&THEIRS]);
    tests.map(|test| format!("tests/qtest/{test}")).collect()
}

/// How a program is run.
pub struct Run<'a> {
    pub build: Build,
    pub environment: &'a [(&'a str, String)],
    /// Seconds that it may take.
    pub limit: u64,
}

impl Run<'_> {
    pub const PLAIN: Self = Run {
        build: Build::Plain,
        environment: &[],
        limit: 300,
    };
}

/// Runs one of the programs with what they need built before; its output is in the log that is returned.
pub fn run(
    step: &mut Step,
    workspace: &Workspace,
    cache: &Cache,
    test: &str,
    how: &Run<'_>,
) -> Result<PathBuf> {
    let (program, firmware) = {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK, host::BUILD])?;
        let apt = Apt::open(cache, false)?;
        let program = build_as(how.build, workspace, cache, &apt)?;
        (program, firmware(cache, &apt)?)
    };
    let dir = cache.path(format!("run/{}-{test}", process::id()));
    cache::build_dir(&dir, |dir| starter(&dir.join(PROGRAM), &program, &firmware))?;
    let log = cache.log(test);
    let mut command = Command::new("timeout");
    command.arg(how.limit.to_string());
    command.arg(program.with_file_name(test));
    command.arg("--tap").current_dir(&dir);
    command.env("QTEST_QEMU_BINARY", dir.join(PROGRAM));
    command.envs(how.environment.iter().map(|(name, value)| (name, value)));
    let result = run_logged(step, &log, &mut command);
    cache::remove(&dir)?;
    result.map(|()| log)
}

/// The script that the tests start as the emulator. Its name tells them the architecture.
fn starter(script: &Path, program: &Path, firmware: &Path) -> Result<()> {
    let text = format!(
        "#!/bin/sh\n\
         for word; do\n    \
             shift\n    \
             case $word in intel-iommu,*) word=nested-vtd ;; esac\n    \
             set -- \"$@\" \"$word\"\n\
         done\n\
         exec '{}' -nodefaults -L '{}' \"$@\"\n",
        program.display(),
        firmware.display()
    );
    fs::write(script, text).context(script.display())?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).context(script.display())
}
