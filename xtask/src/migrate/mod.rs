//! `cargo xtask migrate`: guests that are taken to other emulators, and back in time, while they use their devices.

mod counts;
mod life;
mod modes;
mod moments;
mod random;
mod said;

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::boot::{Lab, RunDir};
use crate::cache::Cache;
use crate::scenario::{Kernel, Verdict};
use crate::ui::{Context, Error, Result, Step, indent};
use crate::workspace::Workspace;
use counts::Counts;
use life::{Files, Life};
use modes::{Mode, Moment};
use random::Random;

pub const USAGE: &str = "\
usage: cargo xtask migrate [OPTION...] [MODE...]
  MODE          what the unit and the guest's tables are like; all of them if none is given
  --list        say which there are
  --hops N      migrate or go back N times at each moment (3)
  --seed N      the same random moments as in the run that printed N
  --qemu FILE   with this QEMU instead of the project's
  --keep        keep the run's files (disks, consoles)";

/// How a cell of the matrix came out.
enum Cell {
    /// After so many saves.
    Passed(u64),
    Failed(u64, String),
    /// Its guest did not come so far.
    Unreached,
}

/// What came of a mode.
struct Row {
    mode: &'static Mode,
    cells: Vec<(Moment, Cell)>,
}

/// `cargo xtask migrate`.
pub fn run(args: &[String]) -> Result<()> {
    let (mut modes, mut hops, mut seed, mut qemu, mut keep) = (Vec::new(), 3, None, None, false);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--list" => {
                for mode in Mode::ALL {
                    println!("{:<20} {}", mode.here.name, mode.here.about);
                }
                return Ok(());
            }
            "--hops" => match args.next().and_then(|n| n.parse().ok()) {
                Some(n) if n > 0 => hops = n,
                _ => return Err(Error::new("--hops how often?").next(USAGE)),
            },
            "--seed" => match args.next().and_then(|n| n.parse().ok()) {
                Some(n) => seed = Some(n),
                None => return Err(Error::new("--seed which number?").next(USAGE)),
            },
            "--qemu" => match args.next() {
                Some(file) => {
                    qemu = Some(env::current_dir().context("current directory")?.join(file));
                }
                None => return Err(Error::new("--qemu which file?").next(USAGE)),
            },
            "--keep" => keep = true,
            name => match Mode::named(name) {
                Some(mode) => modes.push(mode),
                None => {
                    let error = Error::new(format!("no mode or option is called {name}"));
                    return Err(error.next("cargo xtask migrate --list"));
                }
            },
        }
    }
    if modes.is_empty() {
        modes.extend(Mode::ALL);
    }
    let (workspace, cache) = (Workspace::new(), Cache::open()?);
    let mut lab = match qemu {
        Some(qemu) => Lab::with(qemu, &workspace, &cache, false)?,
        None => Lab::prepare(&workspace, &cache, false)?,
    };
    let seed = seed.unwrap_or_else(fresh_seed);
    println!("seed {seed}");
    let mut counts = Counts::default();
    let mut rows = Vec::new();
    for mode in modes {
        let (row, counted) = pass(&mut lab, &cache, mode, mode.lives(), hops, seed, keep)?;
        for (moment, cell) in &row.cells {
            if let Cell::Failed(_, why) = cell {
                println!("{}, {}:\n{}", mode.here.name, moment.name(), indent(why));
            }
        }
        // What is to go wrong is not to be added up.
        if mode.here.verdict == Verdict::Works {
            counts.join(counted);
        }
        rows.push(row);
    }
    print!("\n{}\n{}", matrix(&rows), counts.text());
    let cells = || rows.iter().flat_map(|row| &row.cells);
    let passed = cells()
        .filter(|(_, cell)| matches!(cell, Cell::Passed(_)))
        .count();
    let failed = cells().count() - passed;
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        Ok(())
    } else {
        Err(Error::silent())
    }
}

/// Part of it, for `cargo xtask check`: some modes, each to other emulators and back in time with one guest.
pub fn check(lab: &mut Lab, cache: &Cache) -> Result<()> {
    let seed = fresh_seed();
    let mut wrong = Vec::new();
    let mut counts = Counts::default();
    for mode in Mode::QUICK.iter().filter_map(|name| Mode::named(name)) {
        let lives: &[&[Moment]] = match mode.here.verdict {
            Verdict::Works => &[&[Moment::Running, Moment::Snapshot]],
            _ => mode.lives(),
        };
        let (row, counted) = pass(lab, cache, mode, lives, 2, seed, false)?;
        for (moment, cell) in &row.cells {
            if let Cell::Failed(_, why) = cell {
                wrong.push(format!(
                    "{}, {}:\n{}",
                    mode.here.name,
                    moment.name(),
                    indent(why)
                ));
            }
        }
        counts.join(counted);
    }
    println!(
        "         saved {} times, loaded {} times; seed {seed}",
        counts.saves, counts.loads
    );
    if wrong.is_empty() {
        return Ok(());
    }
    let names = Mode::QUICK.join(" ");
    let error = Error::new(wrong.join("\n"));
    Err(error.next(format!("cargo xtask migrate --seed {seed} {names}")))
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| u64::from(now.subsec_nanos()) ^ now.as_secs()) % 1_000_000_000
}

/// Runs the guests of a mode.
fn pass(
    lab: &mut Lab,
    cache: &Cache,
    mode: &'static Mode,
    lives: &[&[Moment]],
    hops: u32,
    seed: u64,
    keep: bool,
) -> Result<(Row, Counts)> {
    let image = lab.image(Kernel::Stock)?;
    let (mut cells, mut counts) = (Vec::new(), Counts::default());
    for (n, moments) in lives.iter().enumerate() {
        let name = format!("migrate-{}-{n}", mode.here.name);
        let dir = RunDir::named(cache, &name, keep)?;
        let files = Files::new(lab, image.clone(), dir.path())?;
        let names: Vec<_> = moments.iter().map(|m| m.name()).collect();
        let mut step = Step::new(format!("{}: {}", mode.here.name, names.join(", ")));
        let mut life = Life::begin(&files, mode, Random::new(seed, &name))?;
        live(&mut life, moments, hops, &mut step, &mut cells);
        if cells
            .iter()
            .all(|(_, cell)| matches!(cell, Cell::Passed(_)))
        {
            step.done(format!("{} saves", life.counts.saves));
        } else {
            drop(step);
        }
        counts.join(life.counts);
    }
    Ok((Row { mode, cells }, counts))
}

/// Takes one guest through these moments.
fn live(
    life: &mut Life<'_>,
    moments: &[Moment],
    hops: u32,
    step: &mut Step,
    cells: &mut Vec<(Moment, Cell)>,
) {
    let mut gone = false;
    for (n, moment) in moments.iter().enumerate() {
        if gone {
            cells.push((*moment, Cell::Unreached));
            continue;
        }
        let before = life.counts.saves;
        let mut result = moments::pass(life, *moment, hops, step);
        life.judge_said();
        life.judge_consoles();
        if result.is_ok() && n + 1 == moments.len() {
            result = life.end(moments::works_afterwards(*moment));
        }
        let mut reasons: Vec<_> = life.reasons.drain(..).collect();
        if let Err(e) = &result {
            reasons.push(life.explain(e).to_string());
            gone = true;
        }
        let saves = life.counts.saves - before;
        cells.push((*moment, judge(life.mode().here.verdict, saves, &reasons)));
    }
}

/// Is what was found wrong what was to be found?
fn judge(verdict: Verdict, saves: u64, reasons: &[String]) -> Cell {
    let wanted = match verdict {
        Verdict::Works if reasons.is_empty() => return Cell::Passed(saves),
        Verdict::Works => return Cell::Failed(saves, list(reasons)),
        Verdict::Blocked => "blocked right after the load",
        Verdict::StaleUses => "stale uses",
    };
    if reasons.iter().any(|reason| reason.contains(wanted)) {
        return Cell::Passed(saves);
    }
    let all = list(reasons);
    Cell::Failed(saves, format!("no reason says {wanted:?}\n{all}"))
}

fn list(reasons: &[String]) -> String {
    let lines: Vec<_> = reasons.iter().map(|reason| format!("- {reason}")).collect();
    lines.join("\n")
}

/// Modes by moments.
fn matrix(rows: &[Row]) -> String {
    let mut text = format!("{:<20}", "");
    for moment in Moment::ALL {
        text += &format!(" {:<12}", moment.name());
    }
    for row in rows {
        text = text.trim_end().to_owned();
        text += &format!("\n{:<20}", row.mode.here.name);
        for moment in Moment::ALL {
            let cell = row.cells.iter().find(|(m, _)| *m == moment);
            let said = match cell {
                Some((_, Cell::Passed(n))) => format!("passed, {n}"),
                Some((_, Cell::Failed(n, _))) => format!("FAILED, {n}"),
                Some((_, Cell::Unreached)) => "not reached".to_owned(),
                None => "-".to_owned(),
            };
            text += &format!(" {said:<12}");
        }
    }
    text.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_go_wrong_must() {
        let passed = |verdict, reasons: &[&str]| {
            let reasons: Vec<_> = reasons.iter().map(|r| (*r).to_owned()).collect();
            matches!(judge(verdict, 1, &reasons), Cell::Passed(1))
        };
        assert!(passed(Verdict::Works, &[]));
        assert!(!passed(Verdict::Works, &["anything"]));
        assert!(!passed(Verdict::Blocked, &[]));
        assert!(passed(
            Verdict::Blocked,
            &[
                "other",
                "emulator 1: blk0: blocked right after the load, not nested"
            ]
        ));
        assert!(!passed(Verdict::StaleUses, &["blk0: blocked"]));
    }
}
