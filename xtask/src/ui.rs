//! What the user sees: errors with a next step, progress of long steps, and other programs' output
//! kept in log files.

use std::fmt::{self, Display};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong and what the user can do about it.
#[derive(Debug)]
pub struct Error {
    message: String,
    next: Option<String>,
}

impl Error {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            next: None,
        }
    }

    /// For when everything has been said.
    pub fn silent() -> Self {
        Self::new("")
    }

    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// The user's next step; the one given first, nearest to the cause, stays.
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next.get_or_insert_with(|| step.into());
        self
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.next {
            Some(step) => write!(f, "\n  next: {step}"),
            None => Ok(()),
        }
    }
}

/// For `return fail("...")`.
pub fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(message))
}

/// Puts what was being done in front of an error.
pub trait Context<T> {
    fn context(self, doing: impl Display) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, doing: impl Display) -> Result<T> {
        self.map_err(|e| Error::new(format!("{doing}: {e}")))
    }
}

impl<T> Context<T> for Result<T> {
    fn context(self, doing: impl Display) -> Result<T> {
        self.map_err(|e| Error {
            message: format!("{doing}: {}", e.message),
            next: e.next,
        })
    }
}

/// How often a step that is not on a terminal prints where it is.
const QUIET: Duration = Duration::from_secs(10);

/// One named step. On a terminal one line is rewritten, elsewhere a line appears every ten seconds.
pub struct Step {
    name: String,
    start: Instant,
    printed: Instant,
    terminal: bool,
    ended: bool,
}

impl Step {
    pub fn new(name: impl Into<String>) -> Self {
        let now = Instant::now();
        let terminal = io::stderr().is_terminal();
        let step = Self {
            name: name.into(),
            start: now,
            printed: now,
            terminal,
            ended: false,
        };
        if terminal {
            step.rewrite("");
        }
        step
    }

    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Is it time to say where the step is?
    fn due(&self) -> bool {
        let pause = if self.terminal {
            Duration::from_millis(200)
        } else {
            QUIET
        };
        self.printed.elapsed() >= pause
    }

    /// Says where the step is; call it as often as convenient.
    pub fn update(&mut self, detail: &str) {
        if !self.due() {
            return;
        }
        self.printed = Instant::now();
        if self.terminal {
            self.rewrite(detail);
        } else {
            eprintln!(
                "  .. {:5.0} s  {}: {}",
                self.seconds(),
                self.name,
                clip(detail, 90)
            );
        }
    }

    /// Ends the step well. One that is dropped without this has failed.
    pub fn done(mut self, note: impl Display) {
        let note = note.to_string();
        let sep = if note.is_empty() { "" } else { ": " };
        self.end("ok", &format!("{sep}{note}"));
    }

    fn end(&mut self, verdict: &str, tail: &str) {
        self.ended = true;
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        eprintln!(
            "{clear}  {verdict:<6} {:5.1} s  {}{tail}",
            self.seconds(),
            self.name
        );
    }

    fn rewrite(&self, detail: &str) {
        let sep = if detail.is_empty() { "" } else { ": " };
        let line = format!(
            "  ..     {:5.0} s  {}{sep}{detail}",
            self.seconds(),
            self.name
        );
        eprint!("\r{}\x1b[K", clip(&line, 100));
        io::stderr().flush().ok();
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("FAILED", "");
        }
    }
}

fn clip(text: &str, width: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(width)
        .collect()
}

/// Runs `command` as part of `step` with its output appended to the file `log`. Of the output the
/// last line is shown as progress, with a percentage where it begins with ninja's `[n/m]`. On failure
/// the error holds the output's tail and says where the log is.
pub fn run(step: &mut Step, log: &Path, command: &mut Command) -> Result<()> {
    run_showing(step, log, command, |begin| progress(&tail(log, begin, 1)))
}

/// The same for a command that writes about `lines` lines in all and no counter of its own.
pub fn run_counted(step: &mut Step, log: &Path, command: &mut Command, lines: u64) -> Result<()> {
    run_showing(step, log, command, |begin| {
        let written = fs::read(log).unwrap_or_default();
        let new = written.iter().skip(usize::try_from(begin).unwrap_or(0));
        let count = new.filter(|byte| **byte == b'\n').count() as u64;
        let percent = (count * 100).checked_div(lines).unwrap_or(0).min(99);
        format!("{percent:2} % {}", tail(log, begin, 1).trim())
    })
}

/// Runs `command`; `shows` says where it is, given where its output begins in the log.
fn run_showing(
    step: &mut Step,
    log: &Path,
    command: &mut Command,
    shows: impl Fn(u64) -> String,
) -> Result<()> {
    let line = shown(command);
    let mut file = open_log(log)?;
    writeln!(file, "+ {line}").context(log.display())?;
    let begin = file.stream_position().context(log.display())?;
    let errors = file.try_clone().context(log.display())?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .map_err(|e| missing(command, &e))?;
    let mut pause = Duration::from_millis(5);
    let status = loop {
        if let Some(status) = child.try_wait().context(&line)? {
            break status;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
        if step.due() {
            step.update(&shows(begin));
        }
    };
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "`{line}` failed ({status}); its last lines:\n{}\n  log: {}",
        indent(&tail(log, begin, 25)),
        log.display()
    )))
}

/// Runs a short `command` and returns what it wrote to stdout; stderr goes into the error.
pub fn output(command: &mut Command) -> Result<String> {
    let bytes = output_bytes(command)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub fn output_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| missing(command, &e))?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let said = String::from_utf8_lossy(if out.stderr.is_empty() {
        &out.stdout
    } else {
        &out.stderr
    });
    fail(format!(
        "`{}` failed ({}):\n{}",
        shown(command),
        out.status,
        indent(said.trim_end())
    ))
}

/// The last `lines` lines of the file `log` from byte `begin` on.
pub fn tail(log: &Path, begin: u64, lines: usize) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let near = file.metadata()?.len().saturating_sub(16 * 1024);
        file.seek(SeekFrom::Start(begin.max(near)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    // A carriage return rewrites a line; what follows the last one is what is to be seen.
    let seen: Vec<_> = text
        .lines()
        .map(|l| l.trim_end_matches('\r').rsplit('\r').next().unwrap_or(""))
        .filter(|l| !l.trim().is_empty())
        .collect();
    seen[seen.len().saturating_sub(lines)..].join("\n")
}

pub fn indent(text: &str) -> String {
    text.lines()
        .map(|l| format!("    {l}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `[12/1596] Compiling ...` -> ` 1 % [12/1596] Compiling ...`
fn progress(line: &str) -> String {
    let percent = || {
        let (n, m) = line.strip_prefix('[')?.split_once(']')?.0.split_once('/')?;
        let (n, m) = (n.trim().parse::<u64>().ok()?, m.trim().parse::<u64>().ok()?);
        (n * 100).checked_div(m)
    };
    match percent() {
        Some(p) => format!("{p:2} % {line}"),
        None => line.to_owned(),
    }
}

fn open_log(log: &Path) -> Result<File> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).context(dir.display())?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .context(log.display())?;
    file.seek(SeekFrom::End(0)).context(log.display())?;
    Ok(file)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn missing(command: &Command, e: &io::Error) -> Error {
    let program = command.get_program().to_string_lossy();
    let error = Error::new(format!("cannot start `{program}`: {e}"));
    match e.kind() {
        io::ErrorKind::NotFound => error.next(format!("install the package that has `{program}`")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninjas_counter_becomes_a_percentage() {
        assert_eq!(
            progress("[12/1596] Compiling a"),
            " 0 % [12/1596] Compiling a"
        );
        assert_eq!(progress("[3/3] Linking b"), "100 % [3/3] Linking b");
        assert_eq!(progress("[x/0] odd"), "[x/0] odd");
        assert_eq!(progress("[1/0] odd"), "[1/0] odd");
    }

    #[test]
    fn the_next_step_nearest_to_the_cause_stays() {
        let error = Error::new("cause").next("first").next("second");
        assert_eq!(error.to_string(), "cause\n  next: first");
        let error = Err::<(), _>(error).context("doing").unwrap_err();
        assert_eq!(error.to_string(), "doing: cause\n  next: first");
    }

    #[test]
    fn a_failing_command_shows_its_last_lines() {
        let log = std::env::temp_dir().join(format!("xtask-ui-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let error = run(&mut Step::new("test"), &log, &mut command)
            .unwrap_err()
            .to_string();
        fs::remove_file(&log).unwrap();
        assert!(error.contains("    one\n    two\n"), "{error}");
        assert!(error.contains("status: 3"), "{error}");
    }
}
