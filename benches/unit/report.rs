//! What was measured, for people and for programs.

use std::fmt::Write;
use std::hint::black_box;
use std::io;
use std::time::Instant;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Nanoseconds for one operation.
    Time,
    Count,
    Bytes,
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Self::Time => "ns",
            Self::Count => "count",
            Self::Bytes => "bytes",
        }
    }
}

struct Line {
    name: &'static str,
    about: &'static str,
    of: Of,
    values: Vec<f64>,
}

/// Lines, printed as they come unless they are to be JSON in the end.
pub struct Report {
    lines: Vec<Line>,
    json: bool,
    /// Only lines whose name has this in it.
    only: Option<String>,
    pub rounds: usize,
    /// What takes minutes is left out.
    pub quick: bool,
}

impl Report {
    /// From the arguments; cargo adds `--bench`.
    pub fn new(args: impl Iterator<Item = String>) -> Self {
        let mut report = Self {
            lines: Vec::new(),
            json: false,
            only: None,
            rounds: 15,
            quick: false,
        };
        for arg in args {
            match arg.as_str() {
                "--json" => report.json = true,
                "--quick" => (report.rounds, report.quick) = (5, true),
                "--bench" => {}
                "--help" | "-h" => {
                    println!("options: [--json] [--quick] [TEXT]");
                    std::process::exit(0);
                }
                text => report.only = Some(text.to_owned()),
            }
        }
        report
    }

    /// Is something with this name asked for?
    pub fn wants(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    }

    pub fn add(&mut self, name: &'static str, about: &'static str, of: Of, values: Vec<f64>) {
        let (low, middle, high) = quartiles(&values);
        if self.json {
            eprintln!("{name}");
        } else {
            println!(
                "{name:<28} {middle:>12.1} {:<6} {low:>12.1} {high:>12.1}  {about}",
                of.name()
            );
        }
        self.lines.push(Line {
            name,
            about,
            of,
            values,
        });
    }

    pub fn count(&mut self, name: &'static str, about: &'static str, value: f64) {
        self.add(name, about, Of::Count, vec![value]);
    }

    pub fn end(self) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut text = String::from("[\n");
        for (index, line) in self.lines.iter().enumerate() {
            let values: Vec<_> = line.values.iter().map(f64::to_string).collect();
            let comma = if index + 1 < self.lines.len() {
                ","
            } else {
                ""
            };
            // No name or text here has anything to escape.
            let written = writeln!(
                text,
                "  {{\"name\": \"{}\", \"about\": \"{}\", \"of\": \"{}\", \"values\": [{}]}}{comma}",
                line.name,
                line.about,
                line.of.name(),
                values.join(", ")
            );
            written.map_err(io::Error::other)?;
        }
        io::Write::write_all(&mut io::stdout(), (text + "]\n").as_bytes())
    }
}

/// The least, the middle and the most of the middle half.
fn quartiles(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: usize| sorted[(sorted.len() - 1) * part / 4];
    (at(1), at(2), at(3))
}

/// Nanoseconds that `work` takes, for each of `ops`.
pub fn time<T>(ops: u64, work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_nanos() as f64 / ops as f64
}
