//! The C tests: meson's build directories for them, and the tools that they run under.

use std::path::PathBuf;
use std::process::Command;

use crate::cache::{self, Cache};
use crate::host;
use crate::ui::{self, Result, Step};
use crate::workspace::Workspace;

/// How the archive and the tests are built.
#[derive(Clone, Copy)]
enum Build {
    /// As VMMs use it.
    Optimised,
    /// With a function for every lock and every atomic access, by which helgrind is told of them.
    Plain,
    /// With the compiler's AddressSanitizer and UndefinedBehaviorSanitizer in the tests.
    Sanitized,
}

/// A report of the sanitizers' is a failure.
const SANITIZERS: [(&str, &str); 2] = [
    ("ASAN_OPTIONS", "detect_leaks=1"),
    ("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1"),
];

/// The tests by themselves.
pub fn run(step: &mut Step, ws: &Workspace, cache: &Cache) -> Result<()> {
    test(step, ws, cache, Build::Optimised, &[])
}

/// Those of the twin as a host: the conformance program.
pub fn conformance(step: &mut Step, ws: &Workspace, cache: &Cache) -> Result<()> {
    test(step, ws, cache, Build::Optimised, &["--suite", "host"])
}

/// The test programs under valgrind's memcheck.
pub fn memcheck(step: &mut Step, ws: &Workspace, cache: &Cache) -> Result<()> {
    test(step, ws, cache, Build::Optimised, &["--setup", "memcheck"])
}

/// The test programs under valgrind's helgrind, once it has found what was planted for it.
pub fn helgrind(step: &mut Step, ws: &Workspace, cache: &Cache) -> Result<()> {
    test(step, ws, cache, Build::Plain, &["helgrind-planted"])?;
    test(step, ws, cache, Build::Plain, &["--setup", "helgrind"])
}

/// The test programs with the compiler's sanitizers, once they have found what was planted for them.
pub fn sanitized(step: &mut Step, ws: &Workspace, cache: &Cache) -> Result<()> {
    test(step, ws, cache, Build::Sanitized, &["sanitizers-planted"])?;
    test(step, ws, cache, Build::Sanitized, &[])
}

fn test(
    step: &mut Step,
    ws: &Workspace,
    cache: &Cache,
    build: Build,
    options: &[&str],
) -> Result<()> {
    host::require(cache, &[host::C_TESTS])?;
    let log = cache.log("meson");
    let dir = build.directory(ws);
    if !dir.join("build.ninja").is_file() {
        cache::remove(&dir)?;
        let mut setup = Command::new("meson");
        setup.arg("setup").args(build.options());
        ui::run(step, &log, setup.arg(&dir).arg(ws.path(".")))?;
    }
    let mut test = Command::new("meson");
    test.envs(SANITIZERS);
    test.args(["test", "--print-errorlogs", "-C"]).arg(&dir);
    ui::run(step, &log, test.args(options))
}

impl Build {
    fn directory(self, ws: &Workspace) -> PathBuf {
        ws.target().join(match self {
            Self::Optimised => "meson-check",
            Self::Plain => "meson-helgrind",
            Self::Sanitized => "meson-sanitized",
        })
    }

    /// Options of `meson setup`.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Optimised => &[],
            Self::Plain => &["--buildtype=debug"],
            Self::Sanitized => &["-Db_sanitize=address,undefined", "-Db_lundef=false"],
        }
    }
}
