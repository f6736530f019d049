//! `cargo xtask qemu`: the patched QEMU with the archive linked in, and the firmware it needs.

pub mod qtest;
pub mod source;
pub mod vfio;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::archive::{self, Profile};
use crate::cache::{self, Cache};
use crate::debian::{self, Apt, STABLE};
use crate::host;
use crate::ui::{Context, Error, Result, Step, fail, run};
use crate::workspace::Workspace;
use source::Source;

pub const USAGE: &str = "\
usage: cargo xtask qemu [--update] [--edit | --refresh]
  --update   look for newer Debian packages first
  --edit     put the source with the patches as commits where it says, for editing
  --refresh  turn the commits made there into qemu-patches/";

const PROGRAM: &str = "qemu-system-x86_64";

const CONFIGURE: &[&str] = &[
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--enable-tcg",
    "--enable-kvm",
    "--enable-system",
    "--enable-fdt=system",
    "--enable-slirp",
    "--enable-trace-backends=log",
    "--enable-nested-vtd",
    "--disable-install-blobs",
    "--disable-docs",
    "--disable-tools",
    "--disable-user",
];

/// With the host's gcc, whose sanitizers they are. The whole at a lower optimisation, and with names and lines only, takes
/// some twenty minutes.
const SANITIZE: &[&str] = &["--enable-asan", "--enable-ubsan", "--extra-cflags=-O1 -g1"];

/// How QEMU is built, each in a directory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// As it is used.
    Plain,
    /// With AddressSanitizer and UndefinedBehaviorSanitizer; the archive is the same.
    Sanitized,
}

impl Build {
    fn configure(self) -> Vec<&'static str> {
        match self {
            Self::Plain => CONFIGURE.to_vec(),
            Self::Sanitized => [CONFIGURE, SANITIZE].concat(),
        }
    }

    /// Beside the source tree.
    fn directory(self) -> &'static str {
        match self {
            Self::Plain => "build",
            Self::Sanitized => "build-sanitized",
        }
    }

    /// Finished programs in the cache, and how many of them stay there.
    fn programs(self) -> (&'static str, usize) {
        match self {
            Self::Plain => ("qemu/bin", 4),
            Self::Sanitized => ("qemu/bin-sanitized", 1),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "QEMU",
            Self::Sanitized => "sanitized QEMU",
        }
    }

    fn log(self) -> &'static str {
        match self {
            Self::Plain => "qemu-build",
            Self::Sanitized => "qemu-build-sanitized",
        }
    }
}

/// Packages with the firmware that Debian's source of QEMU leaves out, and what of it a q35 machine
/// with `-kernel` and our devices loads.
const FIRMWARE_PACKAGES: &[&str] = &["ipxe-qemu", "qemu-system-data", "seabios"];
const FIRMWARE: &[&str] = &[
    "bios-256k.bin",
    "efi-e1000e.rom",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
];

/// `cargo xtask qemu`.
pub fn run_command(args: &[String]) -> Result<()> {
    let (mut update, mut edit, mut refresh) = (false, false, false);
    for arg in args {
        match arg.as_str() {
            "--update" => update = true,
            "--edit" => edit = true,
            "--refresh" => refresh = true,
            _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
        }
    }
    let workspace = Workspace::new();
    let cache = Cache::open()?;
    let _lock = cache.lock()?;
    host::require(&cache, &[host::UNPACK])?;
    let apt = Apt::open(&cache, update)?;
    let source = Source::open(&cache, &apt)?;
    match (edit, refresh) {
        (false, false) => println!("{}", build(&workspace, &cache, &apt)?.display()),
        (true, false) => {
            let mut step = Step::new("patches");
            source.patch(&mut step, &source::patches(&workspace)?)?;
            step.done("");
            println!("{}", source.tree().display());
            println!("Commit there above the tag base, then: cargo xtask qemu --refresh");
        }
        (false, true) => match source.refresh(&workspace)?.as_slice() {
            [] => println!("qemu-patches/ is up to date"),
            changed => println!("qemu-patches/: {}", changed.join(", ")),
        },
        (true, true) => {
            return Err(Error::new("--edit and --refresh exclude each other").next(USAGE));
        }
    }
    Ok(())
}

/// Builds the patched QEMU and returns the program; the test programs are beside it. It is named by all that goes into it, and stays as
/// it is while another checkout builds another.
pub fn build(workspace: &Workspace, cache: &Cache, apt: &Apt) -> Result<PathBuf> {
    build_as(Build::Plain, workspace, cache, apt)
}

/// The same, built in one way or the other.
fn build_as(how: Build, workspace: &Workspace, cache: &Cache, apt: &Apt) -> Result<PathBuf> {
    host::require(cache, &[host::UNPACK, host::BUILD])?;
    let prefix = cache.path("qemu/prefix");
    archive::stage(workspace, &prefix, Profile::Release)?;
    let source = Source::open(cache, apt)?;
    let patches = source::patches(workspace)?;
    if patches.is_empty() {
        return fail("there are no patches in qemu-patches/")
            .map_err(|e: Error| e.next("git checkout qemu-patches"));
    }

    let read = |name: &str| fs::read(prefix.join(name)).context(name);
    let archive = read("lib/libnested_vtd.a")?;
    let header = read("include/nested_vtd.h")?;
    let package = read("lib/pkgconfig/nested-vtd.pc")?;
    let configuration = cache::key(&[how.configure().join(" ").as_bytes(), &package])?;
    let patches_key = source::content_key(&patches)?;
    let key = cache::key(&[
        source.version.as_bytes(),
        patches_key.as_bytes(),
        configuration.as_bytes(),
        &archive,
        &header,
    ])?;
    let (programs, kept) = how.programs();
    let program = cache.path(programs).join(&key).join(PROGRAM);
    let mut step = Step::new(format!(
        "{} {} with {} patches",
        how.name(),
        source.version,
        patches.len()
    ));
    if program.is_file() {
        step.done("built before");
        if source.edited()? {
            eprintln!(
                "warning: changes in {} are not in qemu-patches/ and not in this QEMU; \
                 commit them and run `cargo xtask qemu --refresh`",
                source.tree().display()
            );
        }
        return Ok(program);
    }

    let log = cache.log(how.log());
    source.patch(&mut step, &patches)?;
    let build = source.dir().join(how.directory());
    let meson = meson(&mut step, cache, apt)?;
    let with_paths = |mut command: Command| {
        command.current_dir(&build).env("PYTHONPATH", &meson);
        command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        command
    };
    let note = build.join("nested-vtd-configuration");
    if !fs::read_to_string(&note).is_ok_and(|k| k == configuration) {
        cache::remove(&build)?;
        fs::create_dir_all(&build).context(build.display())?;
        let mut configure = with_paths(Command::new(source.tree().join("configure")));
        run(&mut step, &log, configure.args(how.configure()))?;
        fs::write(&note, &configuration).context(note.display())?;
    }
    // Linked anew whatever ninja thinks of the archive's time.
    let linked = build.join(PROGRAM);
    cache::remove(&linked)?;
    let mut ninja = with_paths(Command::new("ninja"));
    run(&mut step, &log, ninja.arg(PROGRAM).args(qtest::targets()))?;
    let dir = program.parent().unwrap_or(&program);
    cache::build_dir(dir, |dir| {
        for target in qtest::targets().iter().map(String::as_str).chain([PROGRAM]) {
            let made = build.join(target);
            let name = made.file_name().unwrap_or_default();
            fs::copy(&made, dir.join(name)).context(made.display())?;
        }
        Ok(())
    })?;
    cache::prune(&cache.path(programs), kept)?;
    step.done("");
    Ok(program)
}

/// Debian 12's meson is too old for this QEMU. Debian 13's is all Python and runs anywhere; what is
/// returned belongs into PYTHONPATH.
fn meson(step: &mut Step, cache: &Cache, apt: &Apt) -> Result<PathBuf> {
    let deb = apt.debs(step, &[format!("meson/{STABLE}")])?.remove(0);
    let dir = unpacked(&cache.path("qemu/meson"), &deb)?;
    Ok(dir.join("usr/lib/python3/dist-packages"))
}

/// The directory for QEMU's -L.
pub fn firmware(cache: &Cache, apt: &Apt) -> Result<PathBuf> {
    let mut step = Step::new("firmware");
    let packages: Vec<_> = FIRMWARE_PACKAGES
        .iter()
        .map(|p| format!("{p}/{STABLE}"))
        .collect();
    let debs = apt.debs(&mut step, &packages)?;
    let names: Vec<_> = debs
        .iter()
        .map(|d| d.as_os_str().as_encoded_bytes())
        .collect();
    let key = cache::key(&[&names.concat(), FIRMWARE.join(" ").as_bytes()])?;
    let dir = cache.path("firmware").join(key);
    if !dir.is_dir() {
        cache::build_dir(&dir, |dir| {
            let all = dir.join("all");
            for deb in &debs {
                debian::unpack(deb, &all)?;
            }
            for name in FIRMWARE {
                let places = ["qemu", "seabios"].map(|p| all.join("usr/share").join(p).join(name));
                let Some(file) = places.iter().find(|p| p.is_file()) else {
                    return fail(format!("no {name} in {}", FIRMWARE_PACKAGES.join(", ")));
                };
                fs::copy(file, dir.join(name)).context(file.display())?;
            }
            cache::remove(&all)
        })?;
        cache::prune(&cache.path("firmware"), 2)?;
    }
    step.done("");
    Ok(dir)
}

/// `deb` unpacked in `parent`, once.
fn unpacked(parent: &Path, deb: &Path) -> Result<PathBuf> {
    let dir = parent.join(deb.file_stem().unwrap_or_default());
    if !dir.is_dir() {
        cache::build_dir(&dir, |dir| debian::unpack(deb, dir))?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::workspace::Workspace;

    use super::source;

    /// Every counter of the header is among the device's, so that `qom-get` shows it.
    #[test]
    fn the_device_shows_every_counter() {
        let workspace = Workspace::new();
        let header = fs::read_to_string(workspace.path("include/nested_vtd.h")).unwrap();
        let patches: String = source::patches(&workspace)
            .unwrap()
            .iter()
            .map(|patch| fs::read_to_string(patch).unwrap())
            .collect();
        let (_, body) = header.split_once("typedef struct NvtdStats {").unwrap();
        let (body, _) = body.split_once("} NvtdStats;").unwrap();
        let counters: Vec<_> = body
            .lines()
            .filter_map(|line| line.trim().strip_prefix("uint64_t ")?.strip_suffix(';'))
            .filter(|name| !name.contains('['))
            .collect();
        assert!(counters.len() > 20, "{counters:?}");
        for name in counters {
            let shown = format!("COUNTER({name})");
            assert!(
                patches.contains(&shown),
                "{name} is not in nested_vtd_qom.c"
            );
        }
    }
}
