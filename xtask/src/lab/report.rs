//! What the lab has seen, as named lines, for people and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::ui::{Error, Result, Step, indent};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Passed,
    Failed,
    /// Not possible with this kernel; the line says why.
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

struct Line {
    name: String,
    verdict: Verdict,
    said: String,
    seconds: f64,
    numbers: Map<String, Value>,
}

/// What a step has seen: words for people, numbers for programs.
pub struct Seen {
    said: String,
    skipped: bool,
    numbers: Map<String, Value>,
}

impl Seen {
    pub fn new(said: impl Into<String>) -> Self {
        Self {
            said: said.into(),
            skipped: false,
            numbers: Map::new(),
        }
    }

    pub fn skipped(why: impl Into<String>) -> Self {
        Self {
            skipped: true,
            ..Self::new(why)
        }
    }

    pub fn said(&self) -> &str {
        &self.said
    }

    /// The same, with a reservation.
    pub fn but(mut self, what: &str) -> Self {
        self.said = format!("{}, {what}", self.said);
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.numbers.insert(name.to_owned(), value.into());
        self
    }
}

#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Takes a step and notes what came of it. After one that failed an error without words is
    /// returned, as everything has been said.
    pub fn step(&mut self, name: &str, take: impl FnOnce(&mut Step) -> Result<Seen>) -> Result<()> {
        let mut step = Step::new(name);
        let result = take(&mut step);
        let seconds = step.seconds();
        let (verdict, seen) = match result {
            Ok(seen) if seen.skipped => (Verdict::Skipped, seen),
            Ok(seen) => (Verdict::Passed, seen),
            Err(e) => (Verdict::Failed, Seen::new(e.to_string())),
        };
        match verdict {
            Verdict::Failed => {
                drop(step);
                eprintln!("{}", indent(&seen.said));
            }
            Verdict::Passed => step.done(&seen.said),
            Verdict::Skipped => step.done(format!("skipped, {}", seen.said)),
        }
        self.lines.push(Line {
            name: name.to_owned(),
            verdict,
            said: seen.said,
            seconds,
            numbers: seen.numbers,
        });
        match verdict {
            Verdict::Failed => Err(Error::silent()),
            Verdict::Passed | Verdict::Skipped => Ok(()),
        }
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        let of = |line: &&Line| line.verdict == verdict;
        self.lines.iter().filter(of).count()
    }

    /// Has something failed, and nothing but with these words?
    pub fn failed_by(&self, words: &str) -> bool {
        let failed = |line: &&Line| line.verdict == Verdict::Failed;
        self.count(Verdict::Failed) > 0
            && self
                .lines
                .iter()
                .filter(failed)
                .all(|line| line.said.contains(words))
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let mut said = line.said.lines();
            let first = said.next().unwrap_or("");
            let _ = writeln!(
                text,
                "{:<8} {:<28} {:6.1} s  {first}",
                line.verdict.word(),
                line.name,
                line.seconds
            );
            for more in said {
                let _ = writeln!(text, "{:47}{more}", "");
            }
        }
        let count = |verdict| self.count(verdict);
        let _ = writeln!(
            text,
            "lab: {} passed, {} failed, {} skipped",
            count(Verdict::Passed),
            count(Verdict::Failed),
            count(Verdict::Skipped)
        );
        text
    }

    pub fn json(&self) -> Value {
        let lines: Vec<_> = (self.lines.iter())
            .map(|line| {
                json!({
                    "name": line.name,
                    "verdict": line.verdict.word(),
                    "said": line.said,
                    "seconds": line.seconds,
                    "numbers": line.numbers,
                })
            })
            .collect();
        json!({
            "passed": self.count(Verdict::Passed),
            "failed": self.count(Verdict::Failed),
            "skipped": self.count(Verdict::Skipped),
            "lines": lines,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::fail;

    #[test]
    fn every_step_becomes_a_line() {
        let mut report = Report::default();
        report
            .step("good", |_| Ok(Seen::new("all\nof it").with("n", 3)))
            .unwrap();
        report
            .step("none", |_| Ok(Seen::skipped("too old")))
            .unwrap();
        assert!(report.step("bad", |_| fail("why")).is_err());
        let text = report.text();
        assert!(text.contains("passed   good") && text.contains("of it\n"));
        assert!(text.ends_with("lab: 1 passed, 1 failed, 1 skipped\n"));
        let json = report.json();
        assert_eq!(json["lines"][0]["numbers"]["n"], 3);
        assert_eq!(json["lines"][2]["verdict"], "failed");
        assert_eq!(json["lines"][2]["said"], "why");
    }

    #[test]
    fn why_all_that_failed_did() {
        let mut report = Report::default();
        report.step("good", |_| Ok(Seen::new(""))).unwrap();
        assert!(!report.failed_by("given up"));
        let _ = report.step("late", |_| fail("L2: given up"));
        assert!(report.failed_by("given up"));
        let _ = report.step("stale", |_| fail("2 stale uses"));
        assert!(!report.failed_by("given up"));
    }
}
