//! The archive that VMMs link, `libnested_vtd.a`: one object in which only the C ABI is global.
//!
//! Cargo's static library carries Rust's standard library with some 1800 global symbols; they would
//! leak out of every shared library it is linked into and clash with another Rust library taken
//! whole. Here its members become one relocatable object without what the C ABI does not reach, every
//! symbol outside `abi/symbols.txt` becomes local, and line tables stay for this project's own code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::header;
use crate::symbols::{self, Symbols};
use crate::ui::{self, Context, Error, Result, Step};
use crate::workspace::Workspace;

const ARCHIVE: &str = "libnested_vtd.a";

pub const USAGE: &str = "\
usage: cargo xtask archive --out DIR [--depfile FILE] [--profile release|dev]
       cargo xtask archive --stage PREFIX [--profile release|dev]
  --out      write DIR/libnested_vtd.a
  --depfile  write what the archive was made from, as a Makefile rule
  --stage    write PREFIX/{lib,include,lib/pkgconfig}; files that do not change keep their time";

/// What this file and its neighbours read besides the sources that the compiler names.
const INPUTS: [&str; 5] = [
    "Cargo.toml",
    "Cargo.lock",
    symbols::LIST,
    "xtask/src/archive.rs",
    "xtask/src/symbols.rs",
];

/// What Rust's standard library needs from the system (`rustc --print native-static-libs`).
const NATIVE_LIBRARIES: &str = "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc";

#[derive(Clone, Copy)]
pub enum Profile {
    Release,
    Dev,
}

impl Profile {
    fn parse(name: &str) -> Result<Self> {
        match name {
            "release" => Ok(Self::Release),
            "dev" => Ok(Self::Dev),
            _ => Err(Error::new(format!("unknown profile {name:?}")).next(USAGE)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    /// The directory in cargo's output directory.
    fn directory(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// `cargo xtask archive`.
pub fn run(args: &[String]) -> Result<()> {
    let (mut out, mut prefix, mut depfile) = (None, None, None);
    let mut profile = Profile::Release;
    let mut words = args.iter();
    while let Some(option) = words.next() {
        let mut value = || {
            let missing = || Error::new(format!("{option} needs a value")).next(USAGE);
            words.next().ok_or_else(missing)
        };
        match option.as_str() {
            "--out" => out = Some(PathBuf::from(value()?)),
            "--stage" => prefix = Some(PathBuf::from(value()?)),
            "--depfile" => depfile = Some(PathBuf::from(value()?)),
            "--profile" => profile = Profile::parse(value()?)?,
            _ => return Err(Error::new(format!("unknown argument {option:?}")).next(USAGE)),
        }
    }
    let ws = Workspace::new();
    match (out, prefix) {
        (Some(out), None) => {
            let made = build(&ws, &out, profile)?;
            match depfile {
                Some(file) => write_depfile(&ws, &file, &made, profile),
                None => Ok(()),
            }
        }
        (None, Some(prefix)) if depfile.is_none() => stage(&ws, &prefix, profile),
        _ => Err(Error::new("where to?").next(USAGE)),
    }
}

/// Builds the archive in the directory `out` and returns its path.
pub fn build(ws: &Workspace, out: &Path, profile: Profile) -> Result<PathBuf> {
    let mut step = Step::new(format!("archive ({})", profile.name()));
    let scratch = Scratch::new(ws, "archive")?;
    let log = ws.target().join("xtask/archive.log");
    fs::remove_file(&log).ok();
    let mut cargo = ws.cargo();
    cargo.args(["build", "--locked", "--package", "nested-vtd", "--lib"]);
    ui::run(&mut step, &log, cargo.args(["--profile", profile.name()]))?;

    let list = symbols::list(ws)?;
    let cargos = cargo_output(ws, profile).join(ARCHIVE);
    let mut exported = Symbols::read(&cargos)?.defined;
    exported.retain(|name| name.starts_with("nvtd_"));
    symbols::compare("the crate", &exported, &list)?;

    let object = scratch.0.join("nested_vtd.o");
    link(&scratch.0, &cargos, list.iter(), &object)?;
    localize(&ws.path(symbols::LIST), &scratch.0, &object)?;
    symbols::compare("the archive", &Symbols::read(&object)?.defined, &list)?;

    fs::create_dir_all(out).context(out.display())?;
    let made = out.join(ARCHIVE);
    let fresh = scratch.0.join(ARCHIVE);
    ui::output(Command::new("ar").arg("rcsD").arg(&fresh).arg(&object))?;
    fs::copy(&fresh, &made).context(made.display())?;
    let kib = fs::metadata(&made).context(made.display())?.len() / 1024;
    step.done(format!(
        "{} ({kib} KiB, {} symbols)",
        made.display(),
        list.len()
    ));
    Ok(made)
}

/// Lays out `prefix` as an installation, for a build that finds the archive through pkg-config. A
/// file whose content stays the same is not touched, so that build has nothing to do then.
pub fn stage(ws: &Workspace, prefix: &Path, profile: Profile) -> Result<()> {
    fs::create_dir_all(prefix).context(prefix.display())?;
    let prefix = prefix.canonicalize().context(prefix.display())?;
    let scratch = Scratch::new(ws, "stage")?;
    let archive = build(ws, &scratch.0.join("out"), profile)?;
    let archive = fs::read(&archive).context(archive.display())?;
    let header = fs::read(ws.path(header::PATH)).context(header::PATH)?;
    update(&prefix.join("lib").join(ARCHIVE), &archive)?;
    update(&prefix.join(header::PATH), &header)?;
    update(
        &prefix.join("lib/pkgconfig/nested-vtd.pc"),
        package(&prefix).as_bytes(),
    )
}

/// The pkg-config description of the installation at `prefix`.
fn package(prefix: &Path) -> String {
    format!(
        "prefix={}\nlibdir=${{prefix}}/lib\nincludedir=${{prefix}}/include\n\n\
         Name: nested-vtd\nDescription: Intel VT-d remapping unit for VMMs\nVersion: {}\n\
         Libs: -L${{libdir}} -lnested_vtd\nLibs.private: {NATIVE_LIBRARIES}\n\
         Cflags: -I${{includedir}}\n",
        prefix.display(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// Links what `roots` reach in the static library `cargos` into one relocatable object.
fn link<'a>(
    scratch: &Path,
    cargos: &Path,
    roots: impl Iterator<Item = &'a String>,
    object: &Path,
) -> Result<()> {
    let members = ui::output(Command::new("ar").arg("t").arg(cargos))?;
    let own: Vec<_> = members
        .lines()
        .filter(|name| name.starts_with("nested_vtd"))
        .collect();
    ui::output(
        Command::new("ar")
            .current_dir(scratch)
            .arg("x")
            .arg(cargos)
            .args(&own),
    )?;
    let rest = scratch.join("rest.a");
    let mut objcopy = Command::new("objcopy");
    objcopy.args([
        "--strip-debug",
        "--remove-section=.llvmbc",
        "--remove-section=.llvmcmd",
    ]);
    ui::output(objcopy.arg(cargos).arg(&rest))?;

    let mut ld = Command::new("ld");
    // COMDAT groups are dissolved: the linker would match their names, local or not, with those
    // of another Rust library and drop what this object's local symbols refer to.
    ld.current_dir(scratch)
        .args(["-r", "--gc-sections", "--force-group-allocation", "-o"]);
    ld.arg(object)
        .args(roots.map(|name| format!("--undefined={name}")));
    ui::output(ld.args(&own).arg(&rest))?;
    Ok(())
}

/// Makes every symbol of `object` local that is not in the file `list`.
fn localize(list: &Path, scratch: &Path, object: &Path) -> Result<()> {
    // The linker leaves undefined symbols of what it dropped. Of weak ones objcopy would make strong
    // ones, and the final link of a program would ask for them.
    let undefined = scratch.join("undefined");
    let names: Vec<_> = Symbols::read(object)?.undefined.into_iter().collect();
    fs::write(&undefined, names.join("\n")).context(undefined.display())?;
    let mut objcopy = Command::new("objcopy");
    objcopy.arg(format!("--strip-unneeded-symbols={}", undefined.display()));
    objcopy.arg(format!("--keep-global-symbols={}", list.display()));
    ui::output(objcopy.arg(object))?;
    Ok(())
}

/// Writes `file`: the archive at `made`, a colon, and everything it was made from.
fn write_depfile(ws: &Workspace, file: &Path, made: &Path, profile: Profile) -> Result<()> {
    let cargos = cargo_output(ws, profile).join(ARCHIVE).with_extension("d");
    let rules = fs::read_to_string(&cargos).context(cargos.display())?;
    // Cargo writes one rule per file it made from the same sources.
    let sources = rules
        .lines()
        .next()
        .and_then(|rule| rule.split_once(": "))
        .map_or("", |r| r.1);
    let mut text = format!("{}: {sources}", escaped(made));
    for input in INPUTS {
        text.push(' ');
        text.push_str(&escaped(&ws.path(input)));
    }
    text.push('\n');
    fs::write(file, text).context(file.display())
}

/// A path as a Makefile writes it.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(' ', "\\ ")
}

fn cargo_output(ws: &Workspace, profile: Profile) -> PathBuf {
    ws.target().join(profile.directory())
}

/// Writes `content` to `path` unless it is there already.
fn update(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).context(dir.display())?;
    }
    fs::write(path, content).context(path.display())
}

/// A directory of this run alone, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(ws: &Workspace, purpose: &str) -> Result<Self> {
        let dir = ws
            .target()
            .join("xtask")
            .join(format!("{purpose}-{}", process::id()));
        fs::create_dir_all(&dir).context(dir.display())?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
