//! The crate by itself: what `cargo bench` measures, as rows of the same table.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::rows::{AS_MUCH, Row, Verdict, between, dash};
use super::samples::{Ratio, digits, median, quantile, time};
use crate::cache::Cache;
use crate::ui::{self, Context, Error, Result, Step};
use crate::workspace::Workspace;

/// Values by the names that `benches/unit` gives them.
#[derive(Default)]
pub struct Alone {
    lines: BTreeMap<String, Vec<f64>>,
}

/// What two threads do in what one does.
pub struct Threads {
    /// With one unit for both.
    pub shared: f64,
    /// With a unit each.
    pub own: f64,
    /// Without any: a calculation that leaves a core nothing to do besides.
    pub calculation: f64,
    /// The first in the second.
    pub ratio: Ratio,
}

impl Alone {
    pub fn take(workspace: &Workspace, cache: &Cache, quick: bool) -> Result<Self> {
        let mut step = Step::new("the crate by itself");
        let log = cache.log("bench-build");
        let bench = [
            "bench",
            "--locked",
            "--package",
            "nested-vtd",
            "--bench",
            "unit",
        ];
        let mut build = workspace.cargo();
        ui::run(&mut step, &log, build.args(bench).arg("--no-run"))?;
        let log = cache.log("bench");
        let (errors, out) = (log.with_extension("err"), log.with_extension("json"));
        let create = |path: &std::path::Path| fs::File::create(path).context(path.display());
        let mut command = workspace.cargo();
        command.args(bench).args(["--", "--json"]);
        if quick {
            command.arg("--quick");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&errors)?)
            .spawn()
            .context("cargo bench")?;
        let status = loop {
            if let Some(status) = child.try_wait().context("cargo bench")? {
                break status;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
            step.update(&format!("after {}", ui::tail(&errors, 0, 1)));
        };
        if !status.success() {
            let said = ui::indent(&ui::tail(&errors, 0, 10));
            return Err(
                Error::new(format!("cargo bench failed ({status}):\n{said}"))
                    .next("cargo bench --bench unit"),
            );
        }
        let text = fs::read_to_string(&out).context(out.display())?;
        let alone = Self::parse(&text)?;
        step.done(format!("{} lines", alone.lines.len()));
        Ok(alone)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines: Vec<Value> = serde_json::from_str(text)
            .map_err(|e| Error::new(format!("what cargo bench wrote is no JSON: {e}")))?;
        let entry = |line: &Value| {
            let values = line["values"].as_array()?;
            let values = values.iter().filter_map(Value::as_f64).collect();
            Some((line["name"].as_str()?.to_owned(), values))
        };
        Ok(Self {
            lines: lines.iter().filter_map(entry).collect(),
        })
    }

    pub fn json(&self) -> Value {
        json!(self.lines)
    }

    fn values(&self, name: &str) -> Option<&[f64]> {
        self.lines.get(name).map(Vec::as_slice)
    }

    pub fn median(&self, name: &str) -> Option<f64> {
        self.values(name).map(median)
    }

    /// Of values measured in turns.
    fn ratio(&self, over: &str, under: &str) -> Option<Vec<f64>> {
        let pairs = self.values(over)?.iter().zip(self.values(under)?);
        Some(pairs.map(|(over, under)| over / under).collect())
    }

    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (hit, hash, fast, case) in [
            ("hit-1", "hash-1", "fast-hash-1", "1 page"),
            ("hit-512", "hash-512", "fast-hash-512", "512 pages"),
        ] {
            rows.extend(self.lookup(
                hit,
                hash,
                &format!("hit, {case}, beside a HashMap"),
                Some(2.0),
            ));
            let case = format!("  beside a HashMap with a fast hash, {case}");
            rows.extend(self.lookup(hit, fast, &case, None));
        }
        for (name, case) in [
            ("miss", "miss, 511 pages of one table"),
            ("miss-apart", "miss, pages that share no table"),
            ("miss-nested", "nested miss, 511 pages of one table"),
            (
                "miss-nested-apart",
                "nested miss, pages that share no table",
            ),
            ("drain-0", "255 pages + wait, 0 visited"),
            ("drain-1000", "255 pages + wait, 1000 visited"),
            ("drain-65536", "255 pages + wait, 65536 visited"),
        ] {
            rows.extend(self.told(name, case));
        }
        for (name, case, most) in [
            (
                "reads-nested-cold",
                "table reads of a nested miss, cold",
                24.0,
            ),
            (
                "reads-nested-warm",
                "table reads of a nested miss, warm",
                6.0,
            ),
            (
                "calls-8-devices",
                "HWPT_INVALIDATE calls, 255 + wait, 8 devices",
                1.0,
            ),
            (
                "memory-each",
                "bytes for each cached translation, all counted",
                64.0,
            ),
            ("late-old", "old pages given after their invalidation", 0.0),
        ] {
            rows.extend(self.at_most(name, case, most));
        }
        rows.extend(self.two_threads());
        rows.extend(self.follows("pasids-host", "PASID-cache global,", "on the host"));
        rows.extend(self.follows("pasids-bind", "binding", "on the host"));
        rows.extend(self.follows("pasids-unit", "PASID-cache global,", "in use, no host"));
        rows
    }

    /// What a second thread brings, by what it does.
    pub fn threads(&self) -> Option<Threads> {
        let gain = |one, two| Some(median(&self.ratio(one, two)?));
        let ratios = self.ratio("threads-own", "threads-shared")?;
        Some(Threads {
            shared: gain("threads-one", "threads-shared")?,
            own: gain("threads-one", "threads-own")?,
            calculation: gain("threads-spin-one", "threads-spin")?,
            ratio: Ratio {
                median: median(&ratios),
                least: quantile(&ratios, 0.0),
                most: quantile(&ratios, 1.0),
            },
        })
    }

    fn two_threads(&self) -> Option<Row> {
        let Threads {
            shared,
            own,
            calculation,
            ratio,
        } = self.threads()?;
        let [shared, own, calculation] = [shared, own, calculation].map(digits);
        Some(Row {
            case: format!(
                "two threads on one unit, beside a unit each ({calculation} x for a calculation)"
            ),
            target: format!("≥ {AS_MUCH} x"),
            theirs: dash(),
            ours: format!("{shared} x to {own} x"),
            ratio: digits(ratio.median),
            spread: between(&ratio, ""),
            verdict: Verdict::of(ratio.median >= AS_MUCH),
            instead: None,
        })
    }

    fn lookup(&self, hit: &str, other: &str, case: &str, most: Option<f64>) -> Option<Row> {
        let ratios = self.ratio(hit, other)?;
        let ratio = median(&ratios);
        Some(Row {
            case: case.to_owned(),
            target: most.map_or_else(dash, |most| format!("≤ {most} x")),
            theirs: dash(),
            ours: format!(
                "{} to {}",
                time(self.median(hit)?),
                time(self.median(other)?)
            ),
            ratio: digits(ratio),
            spread: format!(
                "{}-{}",
                digits(quantile(&ratios, 0.0)),
                digits(quantile(&ratios, 1.0))
            ),
            verdict: most.map_or(Verdict::Told, |most| Verdict::of(ratio <= most)),
            instead: None,
        })
    }

    fn told(&self, name: &str, case: &str) -> Option<Row> {
        let values = self.values(name)?;
        Some(Row {
            case: case.to_owned(),
            target: dash(),
            theirs: dash(),
            ours: time(median(values)),
            ratio: dash(),
            spread: format!(
                "{}-{}",
                time(quantile(values, 0.25)),
                time(quantile(values, 0.75))
            ),
            verdict: Verdict::Told,
            instead: None,
        })
    }

    fn at_most(&self, name: &str, case: &str, most: f64) -> Option<Row> {
        let value = self.median(name)?;
        let spread = match name {
            "memory-each" => format!("{:.0} held", self.median("memory-held")?),
            "late-old" => format!("{:.0} translations", self.median("late-translations")?),
            _ => String::new(),
        };
        Some(Row {
            case: case.to_owned(),
            target: format!("≤ {most}"),
            theirs: dash(),
            ours: digits(value),
            ratio: dash(),
            spread,
            verdict: Verdict::of(value <= most),
            instead: None,
        })
    }

    /// A PASID-cache invalidation costs what is bound: for each PASID at most twice as much if there are
    /// a hundred times as many, which is what caches of the processor make of it.
    fn follows(&self, name: &str, what: &str, of_whom: &str) -> Option<Row> {
        let of = |count: u32| self.median(&format!("{name}-{count}"));
        let (one, some, many) = (of(1)?, of(1000)?, of(100_000)?);
        let growth = (many / 100_000.0) / (some / 1000.0);
        Some(Row {
            case: format!("{what} 1, 1000 and 100000 PASIDs {of_whom}"),
            target: "≤ 2 x a PASID".to_owned(),
            theirs: dash(),
            ours: format!("{}, {}, {}", time(one), time(some), time(many)),
            ratio: digits(growth),
            spread: String::new(),
            verdict: Verdict::of(growth <= 2.0),
            instead: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_rows() {
        let text = r#"[
            {"name": "hit-1", "about": "", "of": "ns", "values": [10, 30]},
            {"name": "hash-1", "about": "", "of": "ns", "values": [10, 10]},
            {"name": "late-old", "about": "", "of": "count", "values": [0]},
            {"name": "late-translations", "about": "", "of": "count", "values": [7]}
        ]"#;
        let rows = Alone::parse(text).unwrap().rows();
        let cases: Vec<_> = rows.iter().map(|row| (&*row.ratio, row.verdict)).collect();
        assert_eq!(cases, [("2.00", Verdict::Met), ("-", Verdict::Met)]);
        assert!(Alone::parse("no").is_err());
    }

    #[test]
    fn two_threads_are_compared_with_what_the_machine_has_for_them() {
        let text = r#"[
            {"name": "threads-one", "about": "", "of": "ns", "values": [30, 30, 33]},
            {"name": "threads-shared", "about": "", "of": "ns", "values": [20, 20, 22]},
            {"name": "threads-own", "about": "", "of": "ns", "values": [20, 18, 11]},
            {"name": "threads-spin-one", "about": "", "of": "ns", "values": [10, 10, 10]},
            {"name": "threads-spin", "about": "", "of": "ns", "values": [10, 10, 10]}
        ]"#;
        let rows = Alone::parse(text).unwrap().rows();
        let [row] = rows.as_slice() else {
            panic!("{rows:?}");
        };
        assert_eq!(row.ours, "1.50 x to 1.67 x");
        assert_eq!((&*row.ratio, row.verdict), ("0.90", Verdict::Met));
        assert!(row.case.ends_with("(1.00 x for a calculation)"));
    }
}
