//! QEMU's qtest programs for VT-d units, run against `-device nested-vtd`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{self, Command};

use super::{PROGRAM, build, firmware};
use crate::cache::{self, Cache};
use crate::debian::Apt;
use crate::host;
use crate::ui::{Context, Result, Step, run as run_logged};
use crate::workspace::Workspace;

/// QEMU's own test of intel-iommu. It is not changed; what starts the emulator for it gives it
/// nested-vtd in place of intel-iommu.
pub const THEIRS: &str = "intel-iommu-test";

/// The device's own tests, which the patches add.
pub const OURS: [&str; 3] = [
    "nested-vtd-test",
    "nested-vtd-notify-test",
    "nested-vtd-migration-test",
];

/// The test programs, as ninja's targets.
pub(super) fn targets() -> [String; 4] {
    let [device, notify, migration] = OURS;
    [THEIRS, device, notify, migration].map(|test| format!("tests/qtest/{test}"))
}

/// Runs one of the programs with what they need built before.
pub fn run(step: &mut Step, workspace: &Workspace, cache: &Cache, test: &str) -> Result<()> {
    let (program, firmware) = {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK, host::BUILD])?;
        let apt = Apt::open(cache, false)?;
        (build(workspace, cache, &apt)?, firmware(cache, &apt)?)
    };
    let dir = cache.path(format!("run/{}-{test}", process::id()));
    cache::build_dir(&dir, |dir| starter(&dir.join(PROGRAM), &program, &firmware))?;
    let mut command = Command::new("timeout");
    command.arg("300").arg(program.with_file_name(test));
    command.arg("--tap").current_dir(&dir);
    command.env("QTEST_QEMU_BINARY", dir.join(PROGRAM));
    let result = run_logged(step, &cache.log(test), &mut command);
    cache::remove(&dir)?;
    result
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
