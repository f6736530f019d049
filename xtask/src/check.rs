//! `cargo xtask check`: every test there is, in the order of how soon it tells something.

use std::fs;
use std::path::Path;

use crate::boot::{self, Lab, RunDir};
use crate::cache::Cache;
use crate::debian::Apt;
use crate::kernel::Release;
use crate::qemu::qtest;
use crate::qemu::source::{self, Source};
use crate::qemu::vfio;
use crate::scenario::Scenario;
use crate::ui::{self, Error, Result, Step};
use crate::workspace::Workspace;
use crate::{
    conformance, ctests, fuzz, header, host, kernel, lab, life, migrate, report, symbols, verdict,
};

pub const USAGE: &str = "\
usage: cargo xtask check [--quick] [--only TEXT]
  --quick      leave out QEMU and the guest
  --only TEXT  only those checks whose name has TEXT in it";

/// `cargo xtask check`.
pub fn run(args: &[String]) -> Result<()> {
    let mut quick = false;
    let mut tally = Tally::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.as_slice()) {
            ("--quick", _) => quick = true,
            ("--only", [text, ..]) => {
                tally.only.clone_from(text);
                args.next();
            }
            _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
        }
    }
    let workspace = Workspace::new();
    let cache = Cache::open()?;
    own(&mut tally, &workspace, &cache);
    if !quick {
        with_qemu(&mut tally, &workspace, &cache);
    }
    tally.end()
}

/// Counts the checks; runs only those with `only` in their name.
#[derive(Default)]
pub struct Tally {
    pub only: String,
    /// The names that were asked about.
    names: Vec<String>,
    passed: u32,
    failed: u32,
}

impl Tally {
    /// Is this one of those to run?
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// Runs one of them.
    pub fn check(&mut self, name: &str, test: impl FnOnce(&mut Step) -> Result<()>) {
        self.names.push(name.to_owned());
        if !self.wants(name) {
            return;
        }
        let mut step = Step::new(name);
        match test(&mut step) {
            Ok(()) => {
                step.done("");
                self.passed += 1;
            }
            Err(e) => {
                drop(step);
                eprintln!("{}", ui::indent(&e.to_string()));
                self.failed += 1;
            }
        }
    }

    /// Says how many there were. None at all is an error, as a name was misspelt.
    pub fn end(&self) -> Result<()> {
        if self.passed == 0 && self.failed == 0 {
            let names = self.names.join("\n  ");
            return Err(
                Error::new(format!("no check has {:?} in its name", self.only))
                    .next(format!("one of\n  {names}")),
            );
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 {
            Ok(())
        } else {
            Err(Error::silent())
        }
    }
}

/// Prints those lines of a log that say how many cases there were, and so what passing is worth.
pub fn tell(log: &Path, words: &[&str]) {
    for line in fs::read_to_string(log).unwrap_or_default().lines() {
        if words.iter().any(|words| line.contains(words)) {
            println!("         {}", line.trim_start_matches("# "));
        }
    }
}

/// What needs no emulator.
fn own(tally: &mut Tally, workspace: &Workspace, cache: &Cache) {
    let cargo = |step: &mut Step, name: &str, args: &[&str]| {
        ui::run(step, &cache.log(name), workspace.cargo().args(args))
    };
    tally.check("format", |step| {
        let next = "cargo fmt --all (without rustfmt: rustup component add rustfmt)";
        cargo(step, "format", &["fmt", "--all", "--check"]).map_err(|e| e.next(next))?;
        const FUZZ: &[&str] = &["fmt", "--manifest-path", "fuzz/Cargo.toml"];
        cargo(step, "format", &[FUZZ, &["--check"]].concat())
            .map_err(|e| e.next(format!("cargo {}", FUZZ.join(" "))))
    });
    tally.check("clippy", |step| {
        const ARGS: &[&str] = &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "--deny",
            "warnings",
        ];
        cargo(step, "clippy", ARGS)
    });
    tally.check("documentation", |step| {
        let mut doc = workspace.cargo();
        doc.args(["doc", "--package", "nested-vtd", "--no-deps", "--locked"]);
        ui::run(
            step,
            &cache.log("doc"),
            doc.env("RUSTDOCFLAGS", "--deny warnings"),
        )
    });
    tally.check("header is up to date", |_| {
        header::run(&["--check".to_owned()])
    });
    tally.check("Rust tests", |step| {
        cargo(step, "rust-tests", &["test", "--workspace", "--locked"])
    });
    tally.check("every order of threads in the cache", |step| {
        const ARGS: &[&str] = &[
            "test",
            "--package",
            "nested-vtd",
            "--lib",
            "--locked",
            "cache::orders",
        ];
        let mut loom = workspace.cargo();
        loom.args(ARGS)
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", workspace.target().join("loom"));
        ui::run(step, &cache.log("loom"), &mut loom)
    });
    tally.check("every failure of the host", |step| {
        const ARGS: &[&str] = &[
            "test",
            "--release",
            "--test",
            "host_failures",
            "--locked",
            "--",
            "--nocapture",
        ];
        let log = cache.log("host-failures");
        ui::run(step, &log, workspace.cargo().args(ARGS))?;
        tell(&log, &[" injected cases over "]);
        Ok(())
    });
    tally.check("every case of arithmetic", |step| {
        const ARGS: &[&str] = &[
            "test",
            "--release",
            "--test",
            "arithmetic",
            "--locked",
            "--",
            "--nocapture",
        ];
        let log = cache.log("arithmetic");
        ui::run(step, &log, workspace.cargo().args(ARGS))?;
        tell(&log, &[" cases"]);
        Ok(())
    });
    tally.check("fuzz targets: seeds, regressions and some inputs", |step| {
        fuzz::check(step, workspace, cache)
    });
    tally.check("exported symbols", |_| {
        host::require(cache, &[host::C_TESTS])?;
        symbols::run(&["--check".to_owned()])
    });
    tally.check("C tests (meson)", |step| {
        ctests::run(step, workspace, cache)
    });
    tally.check("conformance: the twin", |step| {
        ctests::conformance(step, workspace, cache)
    });
    tally.check("C tests under valgrind: memcheck", |step| {
        ctests::memcheck(step, workspace, cache)
    });
    tally.check("C tests under valgrind: helgrind", |step| {
        ctests::helgrind(step, workspace, cache)
    });
    tally.check("C tests under ASan and UBSan", |step| {
        ctests::sanitized(step, workspace, cache)
    });
}

fn with_qemu(tally: &mut Tally, workspace: &Workspace, cache: &Cache) {
    tally.check("patches apply to Debian's QEMU", |step| {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK])?;
        let apt = Apt::open(cache, false)?;
        let source = Source::open(cache, &apt)?;
        source.apply(step, &source::patches(workspace)?).map(drop)
    });
    let mut lab: Option<Lab> = None;
    tally.check("QEMU builds", |_| {
        lab = Some(Lab::prepare(workspace, cache, false)?);
        Ok(())
    });
    tally.check("qtest: QEMU's own for intel-iommu", |step| {
        qtest::run(step, workspace, cache, qtest::THEIRS, &qtest::Run::PLAIN).map(drop)
    });
    for test in qtest::OURS {
        tally.check(&format!("qtest: {test}"), |step| {
            qtest::run(step, workspace, cache, test, &qtest::Run::PLAIN).map(drop)
        });
    }
    tally.check("lab kernel builds", |_| {
        kernel::prepare(workspace, cache, &Release::Newest, false).map(drop)
    });
    tally.check("vfio: a device passed on behind a second unit", |step| {
        vfio::run(step, workspace, cache)
    });
    tally.check("conformance: the kernel itself", |step| {
        conformance::of_kernel(step, workspace, cache)
    });
    tally.check("lab: Linux on the unit, a guest behind it again", |_| {
        lab::check(workspace, cache)
    });
    tally.check(
        "life: resets, devices and memory plugged in and out",
        |_| life::check(prepared(&mut lab, workspace, cache)?, cache),
    );
    tally.check(
        "migration: guests to other emulators, and back in time",
        |_| migrate::check(prepared(&mut lab, workspace, cache)?, cache),
    );
    for scenario in Scenario::ALL {
        tally.check(&format!("guest: {}", scenario.about), |_| {
            let lab = prepared(&mut lab, workspace, cache)?;
            let dir = RunDir::new(cache, scenario, false)?;
            let outcome = boot::boot(lab, scenario, &dir, None)?;
            verdict::judge(&outcome)
                .map_err(|e| Error::new(format!("{e}\n{}", report::text(&outcome))))
        });
    }
}

/// `lab`, made if that was not done or has failed.
fn prepared<'a>(
    lab: &'a mut Option<Lab>,
    workspace: &Workspace,
    cache: &Cache,
) -> Result<&'a mut Lab> {
    match lab {
        Some(lab) => Ok(lab),
        none => Ok(none.insert(Lab::prepare(workspace, cache, false)?)),
    }
}
