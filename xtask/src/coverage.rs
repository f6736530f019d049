//! `cargo xtask coverage`: which lines the Rust and C tests run, by rustc's own instrumentation and the
//! LLVM tools that belong to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cache::{self, Cache};
use crate::host;
use crate::ui::{self, Context, Error, Result, Step, fail};
use crate::workspace::Workspace;

pub const USAGE: &str = "\
usage: cargo xtask coverage [--summary]
  --summary  without the list of lines that no test runs

Fails if less than 95 % of the lines are run.";

/// The rooms that are measured.
const ROOMS: &[&str] = &[
    "src/spec",
    "src/translate",
    "src/unit",
    "src/interrupt",
    "src/cache",
];

/// Percent of their lines that tests have to run.
const TARGET: f64 = 95.0;

/// What Rust's standard library needs from the system.
const LIBRARIES: &[&str] = &["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

/// `cargo xtask coverage`.
pub fn run(args: &[String]) -> Result<()> {
    let list = match args {
        [] => true,
        [arg] if arg == "--summary" => false,
        _ => return Err(Error::new(format!("unknown options: {}", args.join(" "))).next(USAGE)),
    };
    let workspace = Workspace::new();
    let cache = Cache::open()?;
    host::require(&cache, &[host::C_TESTS])?;
    let tools = Tools::find(&cache)?;
    let dir = workspace.target().join("coverage");
    let profiles = dir.join("profiles");
    cache::remove(&profiles)?;
    fs::create_dir_all(&profiles).context(profiles.display())?;
    let mut programs = rust_tests(&workspace, &cache, &dir, &profiles)?;
    programs.extend(c_tests(&workspace, &cache, &dir, &profiles)?);

    let files = tools.lines(&workspace, &profiles, &programs)?;
    print!("{}", report(&files, list));
    let (run, all) = sum(files.values());
    if percent(run, all) < TARGET {
        return fail(format!("{TARGET} % of the lines are to be run by tests"));
    }
    Ok(())
}

/// Builds the Rust tests with counters, runs them, and returns the programs.
fn rust_tests(ws: &Workspace, cache: &Cache, dir: &Path, profiles: &Path) -> Result<Vec<PathBuf>> {
    const TEST: &[&str] = &["test", "--package", "nested-vtd", "--locked"];
    let log = cache.log("coverage-rust");
    let mut step = Step::new("Rust tests, counting lines");
    ui::run(
        &mut step,
        &log,
        counting(ws.cargo(), dir, profiles).args(TEST),
    )?;
    let mut list = counting(ws.cargo(), dir, profiles);
    let messages = ui::output(
        list.args(TEST)
            .args(["--no-run", "--message-format=json"])
            // A doc test is no program of its own.
            .args(["--lib", "--tests"]),
    )?;
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    let programs: Vec<_> = messages.lines().filter_map(program).collect();
    step.done(format!("{} programs", programs.len()));
    Ok(programs)
}

/// The same for the C tests, linked with cargo's archive as it is: the one that users get has no room
/// for counters.
fn c_tests(ws: &Workspace, cache: &Cache, dir: &Path, profiles: &Path) -> Result<Vec<PathBuf>> {
    let log = cache.log("coverage-c");
    let mut step = Step::new("C tests, counting lines");
    let mut build = counting(ws.cargo(), dir, profiles);
    build.args(["build", "--package", "nested-vtd", "--lib", "--locked"]);
    ui::run(&mut step, &log, &mut build)?;
    let cmocka = ui::output(Command::new("pkg-config").args(["--cflags", "--libs", "cmocka"]))?;
    let sources = ws.path("tests/c");
    let mut programs = Vec::new();
    for source in cache::list(&sources)? {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let Some(name) = name
            .strip_prefix("test_")
            .and_then(|n| n.strip_suffix(".c"))
        else {
            continue;
        };
        let program = dir.join(format!("c-{name}"));
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=c11", "-D_DEFAULT_SOURCE", "-g", "-o"])
            .arg(&program)
            .arg("-I")
            .arg(ws.path("include"))
            .arg(&source)
            .args(["guest.c", "machine.c"].map(|support| sources.join(support)))
            .arg(dir.join("debug/libnested_vtd.a"))
            .args(cmocka.split_whitespace())
            .args(LIBRARIES)
            // The archive has what writes the counts, but nothing in C asks for it.
            .arg("-Wl,--undefined=__llvm_profile_runtime");
        ui::run(&mut step, &log, &mut gcc)?;
        ui::run(
            &mut step,
            &log,
            &mut counting(Command::new(&program), dir, profiles),
        )?;
        programs.push(program);
    }
    step.done(format!("{} programs", programs.len()));
    Ok(programs)
}

/// `command` so that what it builds counts, in a target directory of its own, and what it runs leaves
/// its counts in `profiles`.
fn counting(mut command: Command, dir: &Path, profiles: &Path) -> Command {
    command
        .env("CARGO_TARGET_DIR", dir)
        .env("RUSTFLAGS", "-C instrument-coverage")
        // The tests of a model take long without.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
    command
}

/// llvm-profdata and llvm-cov of rustc's LLVM: others do not read its counts.
struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    fn find(cache: &Cache) -> Result<Self> {
        let about = ui::output(Command::new("rustc").arg("-vV"))?;
        let of = |name: &str| {
            let line = about.lines().find_map(|l| l.strip_prefix(name));
            line.map(|l| l.trim().to_owned())
                .ok_or_else(|| Error::new(format!("`rustc -vV` says no {name}")))
        };
        let (host, version) = (of("host:")?, of("LLVM version:")?);
        let major = version.split('.').next().unwrap_or("").to_owned();
        let sysroot = ui::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let component = Path::new(sysroot.trim())
            .join("lib/rustlib")
            .join(host)
            .join("bin");
        let debian = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
        let there = || {
            let both =
                |dir: &&PathBuf| ["llvm-profdata", "llvm-cov"].map(|p| dir.join(p).is_file());
            [&component, &debian]
                .into_iter()
                .find(|dir| both(dir) == [true, true])
        };
        if there().is_none() {
            let mut step = Step::new("LLVM tools of this rustc");
            let mut add = Command::new("rustup");
            add.args(["component", "add", "llvm-tools"]);
            match ui::run(&mut step, &cache.log("coverage-tools"), &mut add) {
                Ok(()) => step.done("rustup's component llvm-tools"),
                // Without rustup rustc is likely to be Debian's, and so are its LLVM's tools.
                Err(_) => {
                    drop(step);
                    host::require(cache, &[&[format!("llvm-{major}").as_str()]])
                        .map_err(|e| Error::new(e.to_string()).next(advice(&major)))?;
                }
            }
        }
        match there() {
            Some(dir) => Ok(Self {
                profdata: dir.join("llvm-profdata"),
                cov: dir.join("llvm-cov"),
            }),
            None => {
                Err(Error::new("there are no tools of LLVM for this rustc").next(advice(&major)))
            }
        }
    }

    /// For each file of ROOMS how often its lines were run.
    fn lines(&self, ws: &Workspace, profiles: &Path, programs: &[PathBuf]) -> Result<Files> {
        let step = Step::new("lines");
        let raw: Vec<_> = cache::list(profiles)?
            .into_iter()
            .filter(|p| p.extension().is_some_and(|e| e == "profraw"))
            .collect();
        let merged = profiles.join("merged.profdata");
        let mut merge = Command::new(&self.profdata);
        merge.args(["merge", "--sparse", "-o"]).arg(&merged);
        ui::output(merge.args(raw))?;
        let mut export = Command::new(&self.cov);
        export
            .args(["export", "--format=lcov", "--instr-profile"])
            .arg(&merged);
        for program in programs {
            export.arg("--object").arg(program);
        }
        export.arg("--sources");
        export.args(ROOMS.iter().map(|room| ws.path(room)));
        let mut files = parse(&ui::output(&mut export)?, &ws.path("."));
        files.retain(|file, _| !is_test(file));
        for (file, lines) in &mut files {
            let path = ws.path(file);
            let text = fs::read_to_string(&path).context(path.display())?;
            let end = tests_begin(&text);
            lines.retain(|line, _| *line < end);
        }
        if files.is_empty() {
            return fail("nothing was counted");
        }
        step.done("");
        Ok(files)
    }
}

fn advice(major: &str) -> String {
    format!("rustup component add llvm-tools, or install Debian's package llvm-{major}")
}

/// By file, relative to the project's root: how often each line that can be run was.
type Files = BTreeMap<String, Lines>;
type Lines = BTreeMap<usize, u64>;

/// Of LCOV's records: `SF:file`, then `DA:line,count`.
fn parse(lcov: &str, root: &Path) -> Files {
    let root = format!("{}/", root.display().to_string().trim_end_matches("/."));
    let mut files = Files::new();
    let mut file = String::new();
    for record in lcov.lines() {
        match record.split_once(':') {
            Some(("SF", path)) => path
                .strip_prefix(&root)
                .unwrap_or(path)
                .clone_into(&mut file),
            Some(("DA", data)) => {
                let mut numbers = data.split(',').map(str::parse::<u64>);
                if let (Some(Ok(line)), Some(Ok(count))) = (numbers.next(), numbers.next()) {
                    let line = usize::try_from(line).unwrap_or(0);
                    *files
                        .entry(file.clone())
                        .or_default()
                        .entry(line)
                        .or_default() += count;
                }
            }
            _ => {}
        }
    }
    files
}

/// Is the whole file tests?
fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// The line where a file's own tests begin; they are its end.
fn tests_begin(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    let begin = lines
        .windows(2)
        .position(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod ") && w[1].ends_with('{'));
    begin.map_or(usize::MAX, |n| n + 1)
}

fn sum<'a>(files: impl Iterator<Item = &'a Lines>) -> (usize, usize) {
    files.fold((0, 0), |(run, all), lines| {
        let new = lines.values().filter(|count| **count != 0).count();
        (run + new, all + lines.len())
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of lines are far below 2^52"
)]
fn percent(run: usize, all: usize) -> f64 {
    if all == 0 {
        return 100.0;
    }
    run as f64 * 100.0 / all as f64
}

fn report(files: &Files, list: bool) -> String {
    let mut out = String::new();
    let mut row = |(run, all): (usize, usize), name: &str| {
        out += &format!(
            "{:6.1} %  {run:>5} of {all:>5}  {name}\n",
            percent(run, all)
        );
    };
    for (file, lines) in files {
        row(sum([lines].into_iter()), file);
    }
    for room in ROOMS {
        let of = |(file, lines)| {
            let file: &String = file;
            file.starts_with(&format!("{room}/")).then_some(lines)
        };
        row(sum(files.iter().filter_map(of)), room);
    }
    row(sum(files.values()), "in total");
    if list {
        out += "\nlines that no test runs:\n";
        for (file, lines) in files {
            for range in missed(lines) {
                out += &format!("  {file}:{range}\n");
            }
        }
    }
    out
}

/// `12` or `12-14`: lines that were not run, in ranges over lines that cannot be.
fn missed(lines: &Lines) -> Vec<String> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    let mut open = false;
    for (line, count) in lines {
        match ranges.last_mut() {
            _ if *count != 0 => open = false,
            Some(range) if open => range.1 = *line,
            _ => {
                ranges.push((*line, *line));
                open = true;
            }
        }
    }
    let text = |(first, last)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LCOV: &str = "SF:/p/src/spec/a.rs\nFN:1,f\nDA:1,4\nDA:2,0\nDA:4,0\nDA:5,1\nDA:9,0\nend_of_record\n\
        SF:/p/src/unit/b.rs\nDA:7,1\nend_of_record\n";

    #[test]
    fn lines_are_counted_by_file_room_and_all() {
        let files = parse(LCOV, Path::new("/p/."));
        let text = report(&files, true);
        assert!(
            text.contains("  40.0 %      2 of     5  src/spec/a.rs\n"),
            "{text}"
        );
        assert!(
            text.contains(" 100.0 %      1 of     1  src/unit\n"),
            "{text}"
        );
        assert!(
            text.contains("  50.0 %      3 of     6  in total\n"),
            "{text}"
        );
        assert!(
            text.ends_with("  src/spec/a.rs:2-4\n  src/spec/a.rs:9\n"),
            "{text}"
        );
    }

    #[test]
    fn tests_themselves_do_not_count() {
        assert!(is_test("src/unit/tests.rs") && is_test("src/cache/x/tests/a.rs"));
        assert!(!is_test("src/unit/mod.rs"));
        assert_eq!(
            tests_begin("fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n"),
            3
        );
        assert_eq!(
            tests_begin("#[cfg(test)]\nmod tests;\nfn a() {}\n"),
            usize::MAX
        );
    }
}
