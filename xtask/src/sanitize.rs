//! `cargo xtask sanitize`: QEMU with the device, the C tests and the crate under sanitizers. It takes long the first time, as
//! QEMU is built once more for it, so it is no part of the check.

use std::path::Path;
use std::process::Command;

use crate::cache::Cache;
use crate::check::{Tally, tell};
use crate::ctests;
use crate::fuzz;
use crate::qemu::{Build, qtest};
use crate::ui::{self, Error, Result, Step};
use crate::workspace::Workspace;

pub const USAGE: &str = "\
usage: cargo xtask sanitize [--only TEXT] [--minutes N]
       cargo xtask sanitize --miri
  --only TEXT  only those whose name has TEXT in it: C tests, crate, qtest, ...
  --minutes N  a guest without rules at QEMU for so long; else 7 seeds of it
  --miri       the crate's tests that need no system calls, by Miri

The crate's tests need a nightly toolchain of rustup's for this, TSan its rust-src, and Miri both and
itself; without them they are left out. Nothing else needs any.";

/// Leaks of QEMU's own.
const LEAKS: &str = "xtask/qemu.lsan";

/// The crate's tests that a sanitizer has something to say about: the C interface, what is `unsafe`, and threads.
const TESTS: &[&str] = &[
    "--lib",
    "--test=concurrency",
    "--test=hits",
    "--test=snapshot",
];

/// And one of another program.
const LATE: &[&str] = &["--test=model", "late"];

/// What Miri can run of the crate: no files, no system calls, not too many cases.
const MIRI: &[&str] = &["--lib", "cache::", "ffi::", "memory::", "spec::"];

/// `cargo xtask sanitize`.
pub fn run(args: &[String]) -> Result<()> {
    let mut tally = Tally::default();
    let (mut minutes, mut miri) = (0, false);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg {
            "--only" => value().clone_into(&mut tally.only),
            "--minutes" => {
                minutes = value()
                    .parse()
                    .map_err(|_| Error::new("--minutes needs a whole number").next(USAGE))?;
            }
            "--miri" => miri = true,
            _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
        }
    }
    let workspace = Workspace::new();
    let cache = Cache::open()?;
    if miri {
        by_miri(&mut tally, &workspace, &cache)?;
    } else {
        tally.check("C tests under ASan and UBSan", |step| {
            ctests::sanitized(step, &workspace, &cache)
        });
        of_crate(&mut tally, &workspace, &cache);
        of_qemu(&mut tally, &workspace, &cache, minutes);
    }
    tally.end()
}

/// The qtests on a QEMU in which all of C is instrumented.
fn of_qemu(tally: &mut Tally, workspace: &Workspace, cache: &Cache, minutes: u64) {
    let leaks = workspace.path(LEAKS);
    let environment = [
        // The whole stack of an allocation: glib has no frame pointers.
        (
            "ASAN_OPTIONS",
            "fast_unwind_on_malloc=0:malloc_context_size=12:detect_leaks=1".to_owned(),
        ),
        (
            "LSAN_OPTIONS",
            format!("suppressions={}:print_suppressions=0", leaks.display()),
        ),
        (
            "UBSAN_OPTIONS",
            "halt_on_error=1:print_stacktrace=1".to_owned(),
        ),
        ("NESTED_VTD_RANDOM_SECONDS", (minutes * 60).to_string()),
    ];
    let how = qtest::Run {
        build: Build::Sanitized,
        environment: &environment,
        limit: 1800 + minutes * 60,
    };
    for test in qtest::OURS.iter().chain([&qtest::THEIRS]) {
        tally.check(&format!("qtest under ASan and UBSan: {test}"), |step| {
            let log = qtest::run(step, workspace, cache, test, &how)?;
            if *test == qtest::RANDOM {
                tell(&log, &["with fresh seeds", " translations, "]);
            }
            Ok(())
        });
    }
}

/// The crate and its dependencies, instrumented by a nightly rustc.
fn of_crate(tally: &mut Tally, workspace: &Workspace, cache: &Cache) {
    const ASAN: &str = "crate under ASan";
    const TSAN: &str = "crate under TSan";
    if !tally.wants(ASAN) && !tally.wants(TSAN) {
        return;
    }
    if !has_nightly("rustc") {
        println!(
            "the crate's own tests are left out: there is no nightly toolchain\n  \
             next: rustup toolchain install nightly"
        );
        return;
    }
    // Rust's own library is used as it comes, which hides no wrong access of the crate's.
    const ABI: &str = "-Cunsafe-allow-abi-mismatch=sanitizer";
    tally.check(ASAN, |step| {
        under(step, workspace, cache, "address", (ABI, &[]))
    });
    // But TSan has to see the library's locks, joins and fences.
    if has_library_source() {
        tally.check(TSAN, |step| {
            under(step, workspace, cache, "thread", ("", &["-Zbuild-std"]))
        });
    } else if tally.wants(TSAN) {
        println!(
            "TSan is left out: it needs the source of Rust's own library\n  \
             next: rustup component add --toolchain nightly rust-src"
        );
    }
}

/// The crate's tests under one sanitizer, with further flags for rustc and cargo.
fn under(
    step: &mut Step,
    workspace: &Workspace,
    cache: &Cache,
    sanitizer: &str,
    (rustc, options): (&str, &[&str]),
) -> Result<()> {
    let log = cache.log(&format!("crate-{sanitizer}"));
    let flags = format!("-Zsanitizer={sanitizer} {rustc}");
    let target = workspace.target().join(format!("sanitize-{sanitizer}"));
    for tests in [TESTS, LATE] {
        let mut cargo = nightly(workspace, "test");
        cargo
            .args(["--locked", "--target", &fuzz::machine()?])
            .args(options)
            .args(tests)
            .env("RUSTFLAGS", flags.trim())
            .env("CARGO_TARGET_DIR", &target);
        ui::run(step, &log, &mut cargo)?;
    }
    tell(&log, &["test result: "]);
    Ok(())
}

/// Miri itself, where it is.
fn by_miri(tally: &mut Tally, workspace: &Workspace, cache: &Cache) -> Result<()> {
    if !has_nightly("miri") {
        return Err(Error::new("there is no Miri")
            .next("rustup component add --toolchain nightly miri rust-src"));
    }
    tally.check("crate by Miri", |step| {
        let log = cache.log("crate-miri");
        let mut cargo = nightly(workspace, "miri");
        cargo.args(["test", "--locked"]).args(MIRI);
        // Guest RAM is reached by its address, as the VMM says where it is.
        cargo.env("MIRIFLAGS", "-Zmiri-permissive-provenance");
        cargo.env("CARGO_TARGET_DIR", workspace.target().join("miri"));
        ui::run(step, &log, &mut cargo)?;
        tell(&log, &["test result: "]);
        Ok(())
    });
    Ok(())
}

/// Does rustup have a nightly toolchain with this program?
fn has_nightly(program: &str) -> bool {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program, "--version"]);
    ui::output(&mut command).is_ok()
}

/// Has that toolchain the source of Rust's own library?
fn has_library_source() -> bool {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    ui::output(&mut command).is_ok_and(|sysroot| {
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
        source.is_dir()
    })
}

/// `cargo COMMAND` of the nightly toolchain. The variables by which cargo tells this xtask of its own are not for that one.
fn nightly(workspace: &Workspace, command: &str) -> Command {
    let mut cargo = Command::new("rustup");
    cargo
        .args(["run", "nightly", "cargo", command])
        .current_dir(workspace.path("."));
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(name);
    }
    cargo
}
