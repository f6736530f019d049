//! `cargo xtask fuzz`: libFuzzer on the targets of `fuzz/`, built with this rustc's own counters.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::{self, Cache};
use crate::host;
use crate::ui::{self, Context, Error, Result, Step, fail};
use crate::workspace::Workspace;

pub const USAGE: &str = "\
usage: cargo xtask fuzz [TARGET...] [--minutes N] [--jobs N]
       cargo xtask fuzz [TARGET...] --runs N
       cargo xtask fuzz TARGET --input FILE
       cargo xtask fuzz --seeds
       cargo xtask fuzz --record TRACE
  TARGET       guest, model, c_abi, decoders or snapshot; without one all of them
  --minutes N  each of them for so long (5); the corpus is kept in the cache
  --jobs N     so many of them at a time (1)
  --runs N     the seeds and regressions, and so many inputs made of them by a fixed seed
  --input FILE one input; each operation is printed before it is done
  --seeds      write fuzz/seeds anew
  --record TRACE
               make seeds for guest of what `cargo xtask boot --trace TRACE` has recorded

A finding is written to fuzz/findings, with what it does and the command that repeats it.";

/// A program of `fuzz/targets`.
struct Target {
    name: &'static str,
    /// Bytes of its longest inputs.
    longest: u32,
    /// Inputs that the check makes: a few seconds.
    checked: u32,
}

const TARGETS: &[Target] = &[
    Target {
        name: "guest",
        longest: 16 + 160 * 16,
        checked: 4000,
    },
    Target {
        name: "model",
        longest: 192 + 32 * 16,
        checked: 10_000,
    },
    Target {
        name: "c_abi",
        longest: 32 + 120 * 24,
        checked: 20_000,
    },
    Target {
        name: "decoders",
        longest: 8 + 48 * 8,
        checked: 50_000,
    },
    Target {
        name: "snapshot",
        longest: 8 + 1024,
        checked: 5000,
    },
];

/// Coverage for libFuzzer, which stable Rust has as a pass of LLVM's: a counter for each edge, where each of them is, and
/// what is compared. And `cfg(fuzzing)`, as is usual.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// An input that takes longer, in seconds, is a finding; and so is more memory, in MiB.
const TIMEOUT: u32 = 20;
const MEMORY: u32 = 2048;

/// `cargo xtask fuzz`.
pub fn run(args: &[String]) -> Result<()> {
    let mut names: Vec<&str> = Vec::new();
    let (mut minutes, mut jobs, mut runs) = (5.0, 1, None);
    let (mut input, mut write_seeds, mut record) = (None, false, None);
    let mut args = args.iter().map(String::as_str);
    let workspace = Workspace::new();
    let cache = Cache::open()?;
    while let Some(arg) = args.next() {
        let mut number = || {
            let text = args.next().unwrap_or_default();
            let number: Option<f64> = text.parse().ok().filter(|&number| number > 0.0);
            number
                .ok_or_else(|| Error::new(format!("{arg} {text}: a number is needed")).next(USAGE))
        };
        match arg {
            "--minutes" => minutes = number()?,
            "--jobs" => jobs = number()? as usize,
            "--runs" => runs = Some(number()? as u32),
            "--input" => input = args.next(),
            "--seeds" => {
                write_seeds = true;
                names.push(MAKES_SEEDS);
            }
            "--record" => {
                record = args.next().map(Path::new);
                names.push(MAKES_SEEDS);
            }
            name if TARGETS.iter().any(|target| target.name == name) => names.push(name),
            _ => return Err(Error::new(format!("unknown option {arg}")).next(USAGE)),
        }
    }
    let targets: Vec<&Target> = TARGETS
        .iter()
        .filter(|target| names.is_empty() || names.contains(&target.name))
        .collect();
    let mut step = Step::new("fuzz targets build");
    build(&mut step, &workspace, &cache, &targets)?;
    step.done("");
    if write_seeds {
        return seeds(&workspace, "write", None);
    }
    if let Some(trace) = record {
        return seeds(&workspace, "record", Some(trace));
    }
    if let Some(file) = input {
        return match targets.as_slice() {
            [target] => show(&workspace, target, Path::new(file)),
            _ => Err(Error::new("which target is the input for?").next(USAGE)),
        };
    }
    let until = match runs {
        Some(runs) => Until::Runs(runs),
        None => Until::Seconds((minutes * 60.0) as u32),
    };
    let mut found = false;
    for targets in targets.chunks(jobs.max(1)) {
        found |= batch(&workspace, &cache, targets, until)?;
    }
    if found { Err(Error::silent()) } else { Ok(()) }
}

/// The step of `cargo xtask check`: every target builds, gives no warning, and runs on its seeds, on what
/// was found once, and on some inputs made of them.
pub fn check(step: &mut Step, ws: &Workspace, cache: &Cache) -> Result<()> {
    let all: Vec<&Target> = TARGETS.iter().collect();
    build(step, ws, cache, &all)?;
    let mut clippy = cargo(ws, "clippy")?;
    clippy.args(["--all-targets", "--", "--deny", "warnings"]);
    ui::run(step, &cache.log("fuzz-clippy"), &mut clippy)?;
    seeds(ws, "check", None)?;
    for target in TARGETS {
        if batch(ws, cache, &[target], Until::Runs(target.checked))? {
            return fail(format!("target {} has found something", target.name));
        }
    }
    Ok(())
}

/// `cargo COMMAND` for the crate, with libFuzzer's counters in what is built. A target is named so that
/// build scripts and macros are built without.
fn cargo(ws: &Workspace, command: &str) -> Result<Command> {
    let mut cargo = ws.cargo();
    cargo
        .args([command, "--locked", "--release", "--manifest-path"])
        .arg(ws.path("fuzz/Cargo.toml"))
        .args(["--target", &machine()?])
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("CARGO_TARGET_DIR", ws.target().join("fuzz"));
    Ok(cargo)
}

/// What this rustc builds for.
pub fn machine() -> Result<String> {
    let about = ui::output(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host:"));
    host.map(|line| line.trim().to_owned())
        .ok_or_else(|| Error::new("`rustc -vV` says no host"))
}

fn program(ws: &Workspace, name: &str) -> Result<PathBuf> {
    let dir = ws.target().join("fuzz").join(machine()?);
    Ok(dir.join("release").join(name))
}

fn build(step: &mut Step, ws: &Workspace, cache: &Cache, targets: &[&Target]) -> Result<()> {
    host::require(cache, &[host::FUZZ])?;
    let mut build = cargo(ws, "build")?;
    for target in targets {
        build.args(["--bin", target.name]);
    }
    ui::run(step, &cache.log("fuzz-build"), &mut build)
}

/// The target that has the code for all seeds.
const MAKES_SEEDS: &str = "guest";

/// Write the seeds (`write`), see whether they are as the code makes them (`check`), or write those of a trace (`record`).
fn seeds(ws: &Workspace, how: &str, trace: Option<&Path>) -> Result<()> {
    let dir = ws.path("fuzz/seeds");
    let mut program = Command::new(program(ws, MAKES_SEEDS)?);
    program.env("NVTD_FUZZ_SEEDS", format!("{how}:{}", dir.display()));
    if let Some(trace) = trace {
        program.env("NVTD_FUZZ_TRACE", trace);
    }
    let said = ui::output(&mut program).map_err(|error| error.next("cargo xtask fuzz --seeds"))?;
    print!("{said}");
    Ok(())
}

/// How long a target runs.
#[derive(Clone, Copy)]
enum Until {
    Seconds(u32),
    /// So many inputs beside those that there are, the same every time.
    Runs(u32),
}

/// A target at work.
struct Running<'a> {
    target: &'a Target,
    child: Child,
    log: PathBuf,
    before: Vec<PathBuf>,
    start: Instant,
    /// What it has had of a processor, when it was looked at last.
    processor: Duration,
}

/// Run some targets at a time. Has one found something?
fn batch(ws: &Workspace, cache: &Cache, targets: &[&Target], until: Until) -> Result<bool> {
    let names: Vec<&str> = targets.iter().map(|target| target.name).collect();
    let mut step = Step::new(format!("fuzz: {}", names.join(", ")));
    let mut running: Vec<Running<'_>> = Vec::new();
    for target in targets {
        running.push(start(ws, cache, target, until)?);
    }
    let mut reports = Vec::new();
    let mut found = false;
    while !running.is_empty() {
        thread::sleep(Duration::from_millis(100));
        let lines = running.iter().map(|it| last(&it.log, it.target.name));
        let line: Vec<String> = lines.collect();
        step.update(&line.join("; "));
        let mut still = Vec::new();
        for mut it in running {
            it.processor = processor(&it.child).unwrap_or(it.processor);
            match it.child.try_wait().context(it.target.name)? {
                None => still.push(it),
                Some(status) => {
                    reports.push(account(cache, &it, until)?);
                    if !status.success() {
                        found = true;
                        reports.push(finding(ws, &it)?);
                    }
                }
            }
        }
        running = still;
    }
    if found {
        drop(step);
    } else {
        step.done("");
    }
    for report in reports {
        println!("{}", ui::indent(&report));
    }
    Ok(found)
}

fn start<'a>(
    ws: &Workspace,
    cache: &Cache,
    target: &'a Target,
    until: Until,
) -> Result<Running<'a>> {
    let findings = ws.path("fuzz/findings");
    let committed =
        ["seeds", "regressions"].map(|kind| ws.path("fuzz").join(kind).join(target.name));
    let corpus = match until {
        Until::Seconds(_) => corpus(cache, target),
        // Always the same to begin with.
        Until::Runs(_) => {
            let scratch = ws.target().join("fuzz/corpus").join(target.name);
            cache::remove(&scratch)?;
            scratch
        }
    };
    for dir in [&findings, &corpus] {
        fs::create_dir_all(dir).context(dir.display())?;
    }
    let mut command = Command::new(program(ws, target.name)?);
    command
        .arg(format!("-max_len={}", target.longest))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!(
            "-artifact_prefix={}/{}-",
            findings.display(),
            target.name
        ))
        // Longer inputs when shorter ones bring nothing new any more.
        .args(["-print_final_stats=1", "-len_control=20", "-verbosity=1"]);
    let mut known = 0;
    let dirs: Vec<&PathBuf> = committed.iter().filter(|dir| dir.is_dir()).collect();
    for dir in &dirs {
        known += cache::list(dir)?.len();
    }
    match until {
        Until::Seconds(seconds) => command.arg(format!("-max_total_time={seconds}")),
        Until::Runs(runs) => command.args([
            "-seed=1".to_owned(),
            format!("-runs={}", known as u64 + u64::from(runs)),
        ]),
    };
    // Not in the cache: another checkout may run the same target meanwhile.
    let log = ws.target().join(format!("fuzz/{}.log", target.name));
    let out = File::create(&log).context(log.display())?;
    let errors = out.try_clone().context(log.display())?;
    let before = cache::list(&findings)?;
    let child = command
        .arg(&corpus)
        .args(dirs)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors)
        .spawn()
        .context(target.name)?;
    Ok(Running {
        target,
        child,
        log,
        before,
        start: Instant::now(),
        processor: Duration::ZERO,
    })
}

/// Inputs that brought something new, of all runs.
fn corpus(cache: &Cache, target: &Target) -> PathBuf {
    cache.path("fuzz").join(target.name)
}

/// What libFuzzer says of a run: executions, edges, inputs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    executions: u64,
    edges: u64,
    inputs: u64,
}

/// Of lines as `#1024 NEW cov: 4361 ft: 12294 corp: 362/32Kb lim: 231 exec/s: 543 rss: 34Mb`.
fn said(text: &str) -> Said {
    let number = |words: &[&str], name: &str| {
        let place = words.iter().position(|word| *word == name)?;
        let digits = words.get(place + 1)?.split('/').next()?;
        digits.parse().ok()
    };
    let mut said = Said::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let executions = words
            .first()
            .and_then(|word| word.strip_prefix('#')?.parse().ok());
        if let Some(executions) = executions {
            said.executions = executions;
            said.edges = number(&words, "cov:").unwrap_or(said.edges);
            said.inputs = number(&words, "corp:").unwrap_or(said.inputs);
        }
        if let Some(executions) = number(&words, "stat::number_of_executed_units:") {
            said.executions = executions;
        }
    }
    said
}

/// One line of a run under way.
fn last(log: &Path, name: &str) -> String {
    let said = said(&ui::tail(log, 0, 40));
    format!(
        "{name} {} runs, {} edges, {} inputs",
        said.executions, said.edges, said.inputs
    )
}

/// What a run has done, and all of them together in this cache.
fn account(cache: &Cache, it: &Running<'_>, until: Until) -> Result<String> {
    let name = it.target.name;
    let text = fs::read(&it.log).context(it.log.display())?;
    let said = said(&String::from_utf8_lossy(&text));
    let (seconds, processor) = (it.start.elapsed().as_secs(), it.processor.as_secs());
    let mut report = format!(
        "{name}: {} executions, {} edges, {} inputs in the corpus, {seconds} s, {processor} s of a processor",
        said.executions, said.edges, said.inputs
    );
    if matches!(until, Until::Seconds(_)) {
        let file = cache.path("fuzz").join(format!("{name}.total"));
        let mut totals = totals(&fs::read_to_string(&file).unwrap_or_default());
        *totals.entry("executions".to_owned()).or_default() += said.executions;
        *totals.entry("seconds".to_owned()).or_default() += seconds;
        *totals.entry("processor".to_owned()).or_default() += processor;
        let lines: Vec<String> = totals.iter().map(|(k, v)| format!("{k} {v}\n")).collect();
        fs::write(&file, lines.concat()).context(file.display())?;
        report += &format!(
            "\n{name}, all runs: {} executions, {} minutes, {} of a processor",
            totals["executions"],
            totals["seconds"] / 60,
            totals["processor"] / 60
        );
    }
    Ok(report)
}

/// The time that a process's first thread has run; libFuzzer's inputs run on it. On a busy machine it is less than the
/// time that has passed.
fn processor(child: &Child) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{}/schedstat", child.id())).ok()?;
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// Of lines `name number`.
fn totals(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Say what was found, and how to see it again; what it does is written beside it.
fn finding(ws: &Workspace, it: &Running<'_>) -> Result<String> {
    let name = it.target.name;
    let mut report = String::new();
    for file in cache::list(&ws.path("fuzz/findings"))? {
        let is_of_it = file
            .file_name()
            .is_some_and(|it| it.to_string_lossy().starts_with(&format!("{name}-")));
        if !is_of_it || it.before.contains(&file) || file.extension().is_some() {
            continue;
        }
        let told = ui::tail(&it.log, 0, 400);
        let panic = told
            .lines()
            .skip_while(|line| !line.contains("panicked at"));
        let panic: Vec<&str> = panic.take(6).collect();
        fs::write(file.with_extension("txt"), printed(ws, it.target, &file)?)
            .context(file.display())?;
        report += &format!(
            "{}\nfound: {}\nwhat it does: {}\nagain: cargo xtask fuzz {name} --input {}\n",
            panic.join("\n"),
            file.display(),
            file.with_extension("txt").display(),
            file.display()
        );
    }
    if report.is_empty() {
        return Err(Error::new(format!("target {name} ended without a finding"))
            .next(format!("see {}", it.log.display())));
    }
    Ok(report)
}

/// The operations of an input, printed as they are done.
fn printed(ws: &Workspace, target: &Target, file: &Path) -> Result<Vec<u8>> {
    let out = Command::new(program(ws, target.name)?)
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(file)
        .env("NVTD_FUZZ_PRINT", "1")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .output()
        .context(target.name)?;
    Ok(out.stderr)
}

/// `--input`.
fn show(ws: &Workspace, target: &Target, file: &Path) -> Result<()> {
    let text = printed(ws, target, file)?;
    let text = String::from_utf8_lossy(&text);
    println!("{text}");
    match text.contains("ERROR: libFuzzer") {
        true => fail(format!("{} is a finding", file.display())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        let text = "INFO: Seed: 1\n\
            #2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb\n\
            #1024\tNEW    cov: 4361 ft: 12294 corp: 362/32Kb lim: 231 exec/s: 543 rss: 34Mb L: 80/231\n\
            #2048\tpulse  corp: 363/32Kb\n";
        let expected = Said {
            executions: 2048,
            edges: 4361,
            inputs: 363,
        };
        assert_eq!(said(text), expected);
        let text = format!("{text}stat::number_of_executed_units: 2100\n");
        assert_eq!(said(&text).executions, 2100);
        assert_eq!(said("#include\n"), Said::default());
    }

    #[test]
    fn totals_are_read_as_they_are_written() {
        let all = totals("executions 12\nseconds 60\nnonsense\n");
        assert_eq!((all["executions"], all["seconds"], all.len()), (12, 60, 2));
    }
}
