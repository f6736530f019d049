//! The kernel's own tests of vfio and iommufd, built from the source of the lab kernel as static programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::cache::{self, Cache};
use crate::debian::Apt;
use crate::host;
use crate::kernel::{self, Release};
use crate::ui::{self, Context, Result, Step};
use crate::workspace::Workspace;

/// What a test's `ioctl` becomes, see there.
const SHIM: &str = "tests/guest/mock_calls.inc";

/// Builds the programs, or takes them from the cache. A kernel that has no tests of vfio, as 6.12, gives those of iommufd.
pub fn build(
    workspace: &Workspace,
    cache: &Cache,
    apt: &Apt,
    release: &Release,
) -> Result<PathBuf> {
    let mut step = Step::new("the kernel's own tests of vfio and iommufd");
    let shim = workspace.path(SHIM);
    let text = fs::read(&shim).context(shim.display())?;
    let source = kernel::Source::find(&mut step, apt, release)?;
    let name = format!("{}-{}", source.version, cache::key(&[&text])?);
    let dir = cache.path("selftests").join(name);
    if !dir.is_dir() {
        host::require(cache, &[host::UNPACK, host::KERNEL, host::SELFTESTS])?;
        let tree = cache.path("selftests-build");
        source.unpack(&mut step, apt, &tree)?;
        let log = cache.log("selftests");
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut headers = kernel::make(&tree);
        ui::run(
            &mut step,
            &log,
            headers.args(["-j", &jobs.to_string(), "headers"]),
        )?;
        cache::build_dir(&dir, |dir| programs(&mut step, &log, &tree, &shim, dir))?;
        cache::remove(&tree)?;
        cache::prune(&cache.path("selftests"), 2)?;
    }
    step.done("");
    Ok(dir)
}

fn programs(step: &mut Step, log: &Path, tree: &Path, shim: &Path, dir: &Path) -> Result<()> {
    let headers = format!("KHDR_INCLUDES=-isystem {}/usr/include", tree.display());
    let object = tree.join("mock_calls.o");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-Wall", "-c", "-x", "c", "-o"]);
    ui::output(gcc.arg(&object).arg(shim))?;
    let wrapped = format!("LDFLAGS=-static -Wl,--wrap=ioctl {}", object.display());
    for (group, link) in [("vfio", "LDFLAGS=-static"), ("iommu", wrapped.as_str())] {
        let tests = tree.join("tools/testing/selftests").join(group);
        if !tests.is_dir() {
            continue;
        }
        let mut make = kernel::make(&tests);
        ui::run(step, log, make.args([headers.as_str(), link]))?;
        for file in cache::list(&tests)? {
            let plain = file.is_file() && file.extension().is_none();
            let name = file.file_name().unwrap_or_default();
            if plain && name != "Makefile" && name != "config" {
                fs::copy(&file, dir.join(name)).context(file.display())?;
            }
        }
    }
    Ok(())
}
