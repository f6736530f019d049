//! `cargo xtask life`: what happens to a VM in its life. The machine is reset at random moments, its guest panics, reboots
//! and starts other kernels, devices and memory come and go, all in one emulator, whose unit goes through it.

mod events;
mod random;
mod tally;
mod vm;

use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::boot::{Lab, RunDir};
use crate::cache::Cache;
use crate::scenario::Kernel;
use crate::ui::{Context, Error, Result, fail};
use crate::workspace::Workspace;
use events::Event;
use random::Random;
use tally::Tally;
use vm::{Files, Kind, Vm};

pub const USAGE: &str = "\
usage: cargo xtask life [OPTION...]
  --rounds N   each event N times as often, 1 if it is not said
  --minutes N  again and again, with another seed each time, for so long
  --seed N     the moments that follow from N
  --quick      little of it, as in `cargo xtask check`
  --qemu FILE  with this QEMU instead of the project's
  --keep       keep the run's files (disks, consoles)";

struct Options {
    rounds: u64,
    minutes: Option<u64>,
    seed: u64,
    quick: bool,
    qemu: Option<PathBuf>,
    keep: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut options = Self {
            rounds: 1,
            minutes: None,
            seed: now.map_or(1, |now| now.as_secs()),
            quick: false,
            qemu: None,
            keep: false,
        };
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            match arg {
                "--quick" => options.quick = true,
                "--keep" => options.keep = true,
                "--qemu" => match args.next() {
                    Some(file) => {
                        options.qemu =
                            Some(env::current_dir().context("current directory")?.join(file));
                    }
                    None => return Err(Error::new("--qemu which file?").next(USAGE)),
                },
                "--rounds" | "--minutes" | "--seed" => {
                    let Some(number) = args.next().and_then(|n| n.parse::<u64>().ok()) else {
                        return Err(Error::new(format!("{arg} which number?")).next(USAGE));
                    };
                    match arg {
                        "--rounds" => options.rounds = number,
                        "--minutes" => options.minutes = Some(number),
                        _ => options.seed = number,
                    }
                }
                _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
            }
        }
        Ok(options)
    }
}

/// `cargo xtask life`.
pub fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let (workspace, cache) = (Workspace::new(), Cache::open()?);
    let mut lab = match &options.qemu {
        Some(qemu) => Lab::with(qemu.clone(), &workspace, &cache, false)?,
        None => Lab::prepare(&workspace, &cache, false)?,
    };
    let mut tally = Tally::default();
    let limit = options
        .minutes
        .map(|minutes| Duration::from_secs(minutes * 60));
    let start = Instant::now();
    let mut seed = options.seed;
    loop {
        println!("seed {seed}");
        lives(&mut lab, &cache, &options, seed, &mut tally)?;
        seed += 1;
        if limit.is_none_or(|limit| start.elapsed() > limit) {
            break;
        }
    }
    println!("{}", tally.counts);
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 {
        Ok(())
    } else {
        Err(Error::silent())
    }
}

/// The part that is among all checks.
pub fn check(lab: &mut Lab, cache: &Cache) -> Result<()> {
    let options = Options::parse(&["--quick".to_owned(), "--seed".to_owned(), "1".to_owned()])?;
    let mut tally = Tally::default();
    lives(lab, cache, &options, options.seed, &mut tally)?;
    println!("         {}", tally.counts);
    match tally.first {
        None => Ok(()),
        Some(first) => fail(first),
    }
}

/// A VM for each kind of unit.
fn lives(
    lab: &mut Lab,
    cache: &Cache,
    options: &Options,
    seed: u64,
    tally: &mut Tally,
) -> Result<()> {
    let kinds: &[_] = if options.quick {
        &[(Kind::SOFT, Event::QUICK)]
    } else {
        &[(Kind::SOFT, Event::SOFT), (Kind::NONE, Event::NONE)]
    };
    let image = lab.image(Kernel::Stock)?;
    for &(kind, events) in kinds {
        let dir = RunDir::named(cache, &format!("life-{}", kind.scenario), options.keep)?;
        let files = Files::new(image.clone(), dir.path())?;
        let mut random = Random(seed);
        let mut vm = None;
        for &(event, times) in events {
            let name = format!("{}: {}", kind.name, event.name());
            let well = tally.part(&name, |step| {
                live(lab, &files, kind, &mut vm, |vm| {
                    event.happens(step, vm, times * options.rounds, &mut random)
                })
            });
            if let Some(vm) = &mut vm {
                tally.counts += std::mem::take(&mut vm.counts);
            }
            if !well {
                // What comes next begins anew.
                vm = None;
            }
        }
        if let Some(mut vm) = vm {
            vm.machine.quit();
        }
    }
    Ok(())
}

/// Something that happens to the VM, which is started if there is none.
fn live<'a>(
    lab: &Lab,
    files: &'a Files,
    kind: Kind,
    vm: &mut Option<Vm<'a>>,
    event: impl FnOnce(&mut Vm<'a>) -> Result<String>,
) -> Result<String> {
    let vm = match vm {
        Some(vm) => vm,
        None => vm.insert(Vm::start(lab, files, kind)?),
    };
    event(vm).map_err(|e| {
        // So that what was wrong until now is counted.
        let _ = vm.judge_counters();
        vm.explain(&e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_numbers_and_words() {
        let parse = |words: &str| {
            let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
            Options::parse(&words)
        };
        let options = parse("--rounds 3 --minutes 20 --seed 7 --quick").unwrap();
        assert_eq!(
            (options.rounds, options.minutes, options.seed),
            (3, Some(20), 7)
        );
        assert!(options.quick && !options.keep);
        for wrong in ["--rounds", "--seed x", "--qemu", "now"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_follows_from_a_seed_is_the_same_each_time() {
        let mut orders = [1, 1, 2].map(|seed| {
            let mut random = Random(seed);
            (0..8).map(|_| random.order(5)).collect::<Vec<_>>()
        });
        assert_eq!(orders[0], orders[1]);
        assert_ne!(orders[0], orders[2]);
        for order in &mut orders[0] {
            order.sort_unstable();
            assert_eq!(*order, [0, 1, 2, 3, 4]);
        }
    }
}
