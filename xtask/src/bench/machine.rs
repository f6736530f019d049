//! The emulators that are measured: the same program, with a unit or without one, and the test device
//! that measures. Their guests never run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::qmp::Qmp;
use crate::ui::{Context, Error, Result, fail, indent, tail};

/// What stands between device and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Nothing,
    Theirs,
    Ours,
}

impl Unit {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Theirs, Self::Ours];
    pub const BOTH: [Self; 2] = [Self::Theirs, Self::Ours];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no vIOMMU",
            Self::Theirs => "intel-iommu",
            Self::Ours => "nested-vtd",
        }
    }

    /// What `-device` gets: scalable mode with first-stage tables, in both.
    pub fn option(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Theirs => Some("intel-iommu,x-scalable-mode=on,x-flts=on"),
            Self::Ours => Some("nested-vtd,nest=on"),
        }
    }
}

/// An emulator; killed when dropped.
pub struct Emulator {
    unit: Unit,
    child: Child,
    qmp: Qmp,
    errors: PathBuf,
}

impl Emulator {
    pub fn start(program: &Path, firmware: &Path, unit: Unit, dir: &Path) -> Result<Self> {
        // setpriv ends the emulator with this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command.current_dir(dir).arg("-L").arg(firmware);
        let options = "-nodefaults -display none -S -qmp stdio -machine q35 -accel tcg -m 2G";
        command.args(options.split(' '));
        for device in unit
            .option()
            .into_iter()
            .chain(["iommu-bench-testdev,id=bench0"])
        {
            command.args(["-device", device]);
        }
        let errors = dir.join(format!("{}.log", unit.name()));
        let log = File::create(&errors).context(errors.display())?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start setpriv (package util-linux)")?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return fail("QEMU has no stdin or stdout");
        };
        let mut emulator = Self {
            unit,
            child,
            qmp: Qmp::new(stdin, stdout),
            errors,
        };
        emulator.qmp.begin().map_err(|e| emulator.explain(&e))?;
        Ok(emulator)
    }

    /// Has the device measure what `spec` says; its answer is at the head of the device's source.
    pub fn measure(&mut self, spec: &str) -> Result<Value> {
        self.try_measure(spec)
            .map_err(|e| self.explain(&e))
            .context(format!("{} with {spec:?}", self.unit.name()))
    }

    fn try_measure(&mut self, spec: &str) -> Result<Value> {
        const PATH: &str = "/machine/peripheral/bench0";
        let run = json!({ "path": PATH, "property": "run", "value": spec });
        self.qmp.execute("qom-set", run)?;
        let text = self.qmp.get(PATH, "result")?;
        let text = text.as_str().unwrap_or_default();
        serde_json::from_str(text).map_err(|e| Error::new(format!("{e} in {text:?}")))
    }

    /// The error with what QEMU wrote to stderr.
    fn explain(&self, e: &Error) -> Error {
        match tail(&self.errors, 0, 10) {
            said if said.is_empty() => Error::new(e.to_string()),
            said => Error::new(format!("{e}; QEMU said:\n{}", indent(&said))),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
