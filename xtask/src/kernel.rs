//! The lab kernel: a kernel source of Debian's, its newest or one by number, built with the few options
//! of `tests/guest/lab-kernel.config`. Debian's own kernels have no iommufd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::cache::{self, Cache};
use crate::debian::{self, Apt, BACKPORTS, STABLE};
use crate::host;
use crate::ui::{self, Context, Error, Result, Step, fail};
use crate::workspace::Workspace;

pub const USAGE: &str = "\
usage: cargo xtask kernel [--release N] [--update]
  --release N  Linux N of Debian's, 6.12 for one, not its newest
  --update     look for newer Debian packages first";

/// The options that are on, in Kconfig's format.
const OPTIONS: &str = "tests/guest/lab-kernel.config";

/// The metapackage that depends on the newest source.
const SOURCE: &str = "linux-source";

/// About how many lines make writes in a whole build. Only the percentage comes from it.
const LINES: u64 = 1900;

/// Which kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Release {
    /// Debian's newest source.
    Newest,
    /// By its number, as in `6.12`.
    Named(String),
}

impl Release {
    /// Of `6.12`.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        match text.split_once('.') {
            Some((major, minor)) if digits(major) && digits(minor) => {
                Ok(Self::Named(text.to_owned()))
            }
            _ => fail(format!("{text} is no release of Linux"))
                .map_err(|e: Error| e.next("name it like 6.12")),
        }
    }
}

/// `cargo xtask kernel`.
pub fn run_command(args: &[String]) -> Result<()> {
    let (mut update, mut release) = (false, Release::Newest);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.as_slice()) {
            ("--update", _) => update = true,
            ("--release", [number, ..]) => {
                release = Release::parse(number)?;
                args.next();
            }
            _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
        }
    }
    let dir = prepare(&Workspace::new(), &Cache::open()?, &release, update)?;
    println!("{}", dir.display());
    Ok(())
}

/// Builds the kernel with all that this needs.
pub fn prepare(
    workspace: &Workspace,
    cache: &Cache,
    release: &Release,
    update: bool,
) -> Result<PathBuf> {
    let _lock = cache.lock()?;
    host::require(cache, &[host::UNPACK])?;
    let apt = Apt::open(cache, update)?;
    build(workspace, cache, &apt, release)
}

/// The package with a kernel's source, as `name=version`.
pub struct Source {
    name: String,
    pub version: String,
}

impl Source {
    pub fn find(step: &mut Step, apt: &Apt, release: &Release) -> Result<Self> {
        match release {
            Release::Newest => {
                let meta = apt.debs(step, &[format!("{SOURCE}/{BACKPORTS}")])?;
                let package = debian::depends(&meta[0])?
                    .into_iter()
                    .find(|(name, _)| name.starts_with(SOURCE));
                match package {
                    Some((name, Some(version))) => Ok(Self { name, version }),
                    _ => fail(format!("{} depends on no source", meta[0].display())),
                }
            }
            Release::Named(number) => {
                let name = format!("{SOURCE}-{number}");
                let suite = [STABLE, BACKPORTS]
                    .into_iter()
                    .find(|suite| apt.has(&format!("{name}/{suite}")));
                let Some(suite) = suite else {
                    return fail(format!("Debian has no package {name}"));
                };
                let deb = apt.debs(step, &[format!("{name}/{suite}")])?.remove(0);
                let version = debian::field(&deb, "Version")?;
                Ok(Self { name, version })
            }
        }
    }

    /// Unpacks it into the new directory `tree`.
    pub fn unpack(&self, step: &mut Step, apt: &Apt, tree: &Path) -> Result<()> {
        let Self { name, version } = self;
        let deb = apt.debs(step, &[format!("{name}={version}")])?.remove(0);
        step.update("unpacking the source");
        cache::build_dir(tree, |dir| {
            debian::unpack(&deb, dir)?;
            let archive = dir.join("usr/src").join(format!("{name}.tar.xz"));
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--xz", "--strip-components=1", "--file"]);
            ui::output(tar.arg(&archive).arg("--directory").arg(dir))?;
            cache::remove(&dir.join("usr/src"))
        })
    }
}

/// Builds the kernel, or takes it from the cache. The directory returned has `vmlinuz`, `modules/order`
/// with nothing to load, and `release`.
pub fn build(
    workspace: &Workspace,
    cache: &Cache,
    apt: &Apt,
    release: &Release,
) -> Result<PathBuf> {
    let mut step = Step::new("lab kernel (a first build takes 4 to 14 minutes on 2 cores)");
    let source = Source::find(&mut step, apt, release)?;
    let version = &source.version;
    let file = workspace.path(OPTIONS);
    let options = fs::read_to_string(&file).context(file.display())?;
    let key = cache::key(&[options.as_bytes()])?;
    let dir = cache.path("kernel").join(format!("{version}-{key}"));
    if !dir.is_dir() {
        host::require(cache, &[host::UNPACK, host::KERNEL])?;
        let log = cache.log("kernel-build");
        let tree = cache.path("kernel-build").join(version);
        if !tree.is_dir() {
            cache::remove(&cache.path("kernel-build"))?;
            source.unpack(&mut step, apt, &tree)?;
        }
        configure(&mut step, &log, &tree, &file, &options)?;
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut make = make(&tree);
        make.args(["-j", &jobs.to_string(), "bzImage"]);
        ui::run_counted(&mut step, &log, &mut make, LINES)?;
        cache::build_dir(&dir, |dir| install(&tree, dir))?;
        cache::remove(&cache.path("kernel-build"))?;
        cache::prune(&cache.path("kernel"), 4)?;
    }
    let release = fs::read_to_string(dir.join("release")).context("release")?;
    step.done(release.trim());
    Ok(dir)
}

/// Everything off but `options` and what they select; an option that did not come true is an error.
fn configure(step: &mut Step, log: &Path, tree: &Path, file: &Path, options: &str) -> Result<()> {
    let mut config = make(tree);
    config.arg("allnoconfig").env("KCONFIG_ALLCONFIG", file);
    ui::run(step, log, &mut config)?;
    let got = fs::read_to_string(tree.join(".config")).context(".config")?;
    match lost(options, &got).as_slice() {
        [] => Ok(()),
        lost => Err(Error::new(format!(
            "the kernel cannot have these options of {OPTIONS}: {}",
            lost.join(" ")
        ))
        .next("see in the kernel's Kconfig files what they depend on, and name that as well")),
    }
}

/// Lines of `wanted` that `got` does not have.
fn lost<'a>(wanted: &'a str, got: &str) -> Vec<&'a str> {
    let has: Vec<_> = got.lines().collect();
    wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !has.contains(line))
        .collect()
}

/// Puts what a guest needs into `dir`.
fn install(tree: &Path, dir: &Path) -> Result<()> {
    let image = tree.join("arch/x86/boot/bzImage");
    fs::copy(&image, dir.join("vmlinuz")).context(image.display())?;
    let release = tree.join("include/config/kernel.release");
    fs::copy(&release, dir.join("release")).context(release.display())?;
    fs::create_dir(dir.join("modules")).context("modules")?;
    fs::write(dir.join("modules/order"), "").context("modules/order")
}

/// make in `tree`, or in a directory of it. The image then says neither where nor when it was made.
pub fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.current_dir(tree)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .env("KBUILD_BUILD_USER", "nested-vtd")
        .env("KBUILD_BUILD_HOST", "lab")
        .env("KBUILD_BUILD_TIMESTAMP", "@0")
        // What cargo and its callers set for their own makes.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL");
    make
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_numbers() {
        assert_eq!(
            Release::parse("6.12").unwrap(),
            Release::Named("6.12".to_owned())
        );
        for wrong in ["6", "6.", "6.12-rc1", "newest", ""] {
            assert!(Release::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_that_did_not_come_true_are_named() {
        let wanted = "# why\nCONFIG_A=y\nCONFIG_B=y\n\nCONFIG_C=8\n";
        let got = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=64\nCONFIG_D=y\n";
        assert_eq!(lost(wanted, got), ["CONFIG_B=y", "CONFIG_C=8"]);
        assert_eq!(lost(wanted, wanted), [""; 0]);
    }
}
