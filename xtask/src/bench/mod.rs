//! `cargo xtask bench`: nested-vtd beside QEMU's own intel-iommu, in the same program and run.

mod alone;
mod cases;
mod docs;
mod guest;
mod machine;
mod measured;
mod plot;
mod rows;
mod samples;
mod sections;
mod table;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use serde_json::json;

use crate::cache::{self, Cache};
use crate::debian::Apt;
use crate::host;
use crate::qemu;
use crate::ui::{Context, Error, Result};
use crate::workspace::Workspace;
use alone::Alone;
use cases::{CASES, Case};
use docs::Machine;
use guest::Reads;
use machine::{Emulator, Unit};
use measured::Measured;

pub const USAGE: &str = "\
usage: cargo xtask bench [OPTION...]
  --quick        three rounds instead of fifteen
  --only TEXT    only the cases whose name has TEXT in it, and not the crate by itself; may be given
                 more than once
  --alone        only the crate by itself
  --guest        also reads of a guest's nvme disk: some minutes more
  --list         say which cases there are
  --json FILE    write everything that was measured, too
  --update-docs  write docs/performance
  --qemu FILE    with this QEMU instead of the project's";

struct Options {
    quick: bool,
    alone: bool,
    guest: bool,
    docs: bool,
    only: Vec<String>,
    json: Option<PathBuf>,
    qemu: Option<PathBuf>,
}

/// `cargo xtask bench`.
pub fn run(args: &[String]) -> Result<()> {
    let Some(options) = parse(args)? else {
        for case in CASES {
            println!("{:<20} {}", case.name, case.spec);
        }
        return Ok(());
    };
    let rounds = if options.quick { 3 } else { 15 };
    let cases: Vec<_> = CASES
        .iter()
        .filter(|case| {
            options.only.is_empty() || options.only.iter().any(|text| case.name.contains(text))
        })
        .filter(|_| !options.alone)
        .collect();
    if cases.is_empty() && !options.alone {
        return Err(Error::new("no case has such a name").next("cargo xtask bench --list"));
    }
    let (workspace, cache) = (Workspace::new(), Cache::open()?);
    let (program, firmware) = prepare(&workspace, &cache, options.qemu.as_deref())?;
    let machine = Machine::here(&program)?;
    let busy = docs::busy()?;
    if busy > 10.0 {
        eprintln!(
            "warning: something else keeps the processors {busy:.0} % busy: spreads will be wide, and two \
             threads have less than two processors; stop it and measure again"
        );
    }
    let measured = if options.alone {
        Measured::default()
    } else {
        in_emulators(&cache, &program, &firmware, &cases, rounds)?
    };
    let alone = if options.only.is_empty() {
        Alone::take(&workspace, &cache, options.quick)?
    } else {
        Alone::default()
    };
    let reads = if options.guest {
        in_guest(&workspace, &cache, &program, &firmware, options.quick)?
    } else {
        Reads::default()
    };
    let sections = sections::all(&measured, &alone, &reads);
    print!("{}", table::text(&sections));
    if let Some(file) = options.json {
        let rows = sections.iter().flat_map(|section| &section.rows);
        let report = json!({
            "machine": machine.json(),
            "busy-before-percent": busy,
            "rounds": rounds,
            "rows": rows.map(rows::Row::json).collect::<Vec<_>>(),
            "cases": measured.json(),
            "alone": alone.json(),
            "guest": reads.json(),
        });
        fs::write(&file, format!("{report:#}\n")).context(file.display())?;
    }
    if options.docs {
        docs::write(&workspace, &machine, busy, &sections, rounds)?;
    }
    Ok(())
}

/// The emulator and its firmware.
fn prepare(
    workspace: &Workspace,
    cache: &Cache,
    qemu: Option<&Path>,
) -> Result<(PathBuf, PathBuf)> {
    let _lock = cache.lock()?;
    host::require(cache, &[host::UNPACK, host::BUILD])?;
    let apt = Apt::open(cache, false)?;
    let firmware = qemu::firmware(cache, &apt)?;
    let program = match qemu {
        Some(program) => program.to_owned(),
        None => qemu::build(workspace, cache, &apt)?,
    };
    Ok((program, firmware))
}

fn in_emulators(
    cache: &Cache,
    program: &Path,
    firmware: &Path,
    cases: &[&'static Case],
    rounds: usize,
) -> Result<Measured> {
    let dir = cache.path(format!("run/{}-bench", process::id()));
    fs::create_dir_all(&dir).context(dir.display())?;
    let mut emulators = Vec::new();
    let started = Unit::ALL.iter().try_for_each(|unit| {
        emulators.push((*unit, Emulator::start(program, firmware, *unit, &dir)?));
        Ok(())
    });
    let measured = started.and_then(|()| Measured::take(&mut emulators, cases, rounds));
    drop(emulators);
    cache::remove(&dir)?;
    measured
}

fn in_guest(
    workspace: &Workspace,
    cache: &Cache,
    program: &Path,
    firmware: &Path,
    quick: bool,
) -> Result<Reads> {
    let image = {
        let _lock = cache.lock()?;
        host::require(cache, &[host::UNPACK, host::GUEST])?;
        crate::guest::stock(workspace, cache, &Apt::open(cache, false)?)?
    };
    let dir = cache.path(format!("run/{}-bench-guest", process::id()));
    fs::create_dir_all(&dir).context(dir.display())?;
    let reads = Reads::take(program, firmware, &image, &dir, if quick { 1 } else { 3 });
    cache::remove(&dir)?;
    reads
}

/// None: only the list is asked for.
fn parse(args: &[String]) -> Result<Option<Options>> {
    let mut options = Options {
        quick: false,
        alone: false,
        guest: false,
        docs: false,
        only: Vec::new(),
        json: None,
        qemu: None,
    };
    let here = env::current_dir().context("current directory")?;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || {
            let missing = || Error::new(format!("{arg} needs a value")).next(USAGE);
            args.next().ok_or_else(missing)
        };
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--alone" => options.alone = true,
            "--guest" => options.guest = true,
            "--update-docs" => options.docs = true,
            "--list" => return Ok(None),
            "--only" => options.only.push(value()?.clone()),
            "--json" => options.json = Some(here.join(value()?)),
            "--qemu" => options.qemu = Some(here.join(value()?)),
            _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
        }
    }
    if options.docs && (options.quick || options.alone || !options.only.is_empty()) {
        let error = Error::new("docs/performance is of all cases and rounds");
        return Err(error.next("cargo xtask bench --guest --update-docs"));
    }
    Ok(Some(options))
}
