//! What the measurements say about each target.

use serde_json::{Value, json};

use super::alone::Alone;
use super::machine::Unit;
use super::measured::{Measured, Measurement};
use super::samples::{Ratio, digits, median, time};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    Met,
    NotMet,
    /// Not met, and [`RESTATED`] says what holds instead.
    Restated,
    /// There is no target: told for comparison.
    #[default]
    Told,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::Restated => "restated",
            Self::Told => "-",
        }
    }

    pub fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::NotMet }
    }
}

/// What does not meet its target, by how its row begins, and what holds instead.
const RESTATED: &[(&str, &str)] = &[
    (
        "working set of 65536 pages",
        "Without any vIOMMU such a read takes a sixth to an eighth of what it takes with intel-iommu, as the data is \
         in no cache: no unit that adds anything is eight times faster end to end. What the unit adds is \
         a quarter to a third of what intel-iommu adds.",
    ),
    (
        "255 pages + wait, 1 live entry",
        "The target is from a machine on which intel-iommu took 1.3 µs for each descriptor with one live entry. Here it takes \
         about 0.1 µs, so an eighth of it would be less than it takes to fetch and decode one. What holds is that \
         nested-vtd takes about as long as that, and little longer with 1000 live entries (profile.md).",
    ),
];

/// So much of what two threads do that share nothing is as much: two measurements differ by some.
pub const AS_MUCH: f64 = 0.9;

/// One line of the table. Values are text, as some are times and some are counts.
#[derive(Debug, Default)]
pub struct Row {
    pub case: String,
    pub target: String,
    pub theirs: String,
    pub ours: String,
    pub ratio: String,
    /// Of the ratio over the rounds, or of the values.
    pub spread: String,
    pub verdict: Verdict,
    /// What holds instead of the target, if figures of the same run say so; see [`RESTATED`] for others.
    pub instead: Option<String>,
}

impl Row {
    pub const HEAD: [&str; 7] = [
        "case",
        "target",
        "intel-iommu",
        "nested-vtd",
        "ratio",
        "spread",
        "verdict",
    ];

    pub fn cells(&self) -> [&str; 7] {
        [
            &self.case,
            &self.target,
            &self.theirs,
            &self.ours,
            &self.ratio,
            &self.spread,
            self.verdict.word(),
        ]
    }

    /// What holds instead of the target.
    pub fn restated(&self) -> Option<&str> {
        let row = self.case.trim();
        let found = RESTATED.iter().find(|(case, _)| row.starts_with(case));
        let fixed = found.map(|(_, instead)| *instead);
        self.instead.as_deref().or(fixed)
    }

    /// The verdict as it is told.
    pub fn restate(&mut self) {
        if self.verdict == Verdict::NotMet && self.restated().is_some() {
            self.verdict = Verdict::Restated;
        }
    }

    pub fn json(&self) -> Value {
        let cells = Self::HEAD.into_iter().zip(self.cells());
        cells
            .map(|(name, cell)| (name.to_owned(), json!(cell)))
            .collect()
    }
}

/// A cell without a value.
pub fn dash() -> String {
    "-".to_owned()
}

pub fn between(ratio: &Ratio, suffix: &str) -> String {
    format!("{}-{}{suffix}", digits(ratio.least), digits(ratio.most))
}

/// Ours is to be so many times as fast.
pub fn faster(m: &Measured, name: &'static str, case: &str, at_least: Option<f64>) -> Option<Row> {
    let cell = |unit| m.median(name, unit).map_or_else(dash, time);
    m.get(name, Unit::Ours)?;
    let ratio = m.ratio(name);
    Some(Row {
        case: case.to_owned(),
        target: at_least.map_or_else(dash, |least| format!("≥ {least} x")),
        theirs: cell(Unit::Theirs),
        ours: cell(Unit::Ours),
        ratio: ratio.map_or_else(dash, |ratio| digits(ratio.median)),
        spread: ratio.map_or_else(
            || {
                let ours = m.get(name, Unit::Ours);
                ours.map_or(String::new(), |ours| {
                    format!("±{:.0} %", ours.samples.spread() / 2.0)
                })
            },
            |ratio| between(&ratio, ""),
        ),
        verdict: match (at_least, ratio) {
            (Some(least), Some(ratio)) => Verdict::of(ratio.median >= least),
            _ => Verdict::Told,
        },
        instead: None,
    })
}

/// Nanoseconds that QEMU takes for a read through an IOMMU region beside what the unit takes, from the profile of a
/// hit: `address_space_translate_iommu`, and looking up the target's address space after the device's.
const OUTSIDE: f64 = 20.0;

/// What a unit adds over none: ours at most a sixth of theirs.
pub fn added(m: &Measured, name: &'static str) -> Option<Row> {
    let target = matches!(name, "hit-1" | "hit-512");
    let samples = |unit| Some(&m.get(name, unit)?.samples);
    let [nothing, theirs, ours] = [Unit::Nothing, Unit::Theirs, Unit::Ours].map(samples);
    let all = [nothing?, theirs?, ours?];
    let ratio = Ratio::over_rounds(all, |[nothing, theirs, ours]| {
        (theirs - nothing) / (ours - nothing).max(0.1)
    })?;
    let of_units = Ratio::over_rounds(all, |[nothing, theirs, ours]| {
        (theirs - nothing - OUTSIDE) / (ours - nothing - OUTSIDE).max(0.1)
    })?;
    let instead = format!(
        "Of this, QEMU's own way through an IOMMU region takes about {} with either unit (profile.md). What the units \
         themselves add is {} times less.",
        time(OUTSIDE),
        digits(of_units.median)
    );
    let [nothing, theirs, ours] = all.map(|samples| samples.median());
    Some(Row {
        case: format!("  added to {} without vIOMMU", time(nothing)),
        target: if target { "≥ 6 x less" } else { "-" }.to_owned(),
        theirs: time(theirs - nothing),
        ours: time(ours - nothing),
        ratio: digits(ratio.median),
        spread: between(&ratio, ""),
        verdict: if target {
            Verdict::of(ratio.median >= 6.0)
        } else {
            Verdict::Told
        },
        instead: (of_units.median >= 6.0).then_some(instead),
    })
}

/// A miss whose time is in part QEMU's own: that of a read without vIOMMU of pages that were visited, and of its way through
/// an IOMMU region.
pub fn miss(m: &Measured, name: &'static str, case: &str, at_least: Option<f64>) -> Option<Row> {
    let row = faster(m, name, case, at_least)?;
    let least = at_least.filter(|_| row.verdict == Verdict::NotMet);
    let instead = least.and_then(|least| without_qemu(m, name, least));
    Some(Row { instead, ..row })
}

/// What holds of the units alone, if that is as much faster as asked for.
fn without_qemu(m: &Measured, name: &'static str, least: f64) -> Option<String> {
    let samples = |name, unit| Some(&m.get(name, unit)?.samples);
    let nothing = samples("hit-512", Unit::Nothing)?;
    let all = [
        nothing,
        samples(name, Unit::Theirs)?,
        samples(name, Unit::Ours)?,
    ];
    let of_units = Ratio::over_rounds(all, |[nothing, theirs, ours]| {
        (theirs - nothing - OUTSIDE) / (ours - nothing - OUTSIDE).max(0.1)
    })?;
    (of_units.median >= least).then(|| {
        format!(
            "A read of 512 pages without vIOMMU takes {}, and QEMU's own way through an IOMMU region about {}, with \
             either unit (profile.md). What the units themselves take is {} times less.",
            time(nothing.median()),
            time(OUTSIDE),
            digits(of_units.median)
        )
    })
}

/// Paging entries read in a walk, as the unit counts them.
pub fn reads(m: &Measured, name: &'static str, case: &str, at_most: Option<f64>) -> Option<Row> {
    let ours = m.get(name, Unit::Ours)?;
    let each = ours.sum("table-reads") / ours.sum("walks").max(1.0);
    Some(Row {
        case: case.to_owned(),
        target: at_most.map_or_else(dash, |most| format!("≤ {most}")),
        theirs: dash(),
        ours: format!("{each:.2}"),
        ratio: dash(),
        spread: format!("{:.0} walks", ours.sum("walks")),
        verdict: at_most.map_or(Verdict::Told, |most| Verdict::of(each <= most)),
        instead: None,
    })
}

/// What an invalidation costs must not depend on how much is cached. It does on what the processor's caches hold, and
/// visits to many pages leave little there: so it is compared where the same memory was read past the unit last, with
/// none visited before and with `most`.
pub fn independent(m: &Measured, [none, most]: [&'static str; 2], what: &str) -> Option<Row> {
    const NOISE: f64 = 1.5;
    let samples = |name| Some(&m.get(name, Unit::Ours)?.samples);
    let growth = Ratio::over_rounds([samples(none)?, samples(most)?], |[none, most]| most / none)?;
    let cell = |unit| {
        let [none, most] = [m.median(none, unit)?, m.median(most, unit)?];
        Some(format!("{} to {}", time(none), time(most)))
    };
    Some(Row {
        case: format!("  {what}, 0 to 65536, caches as cold"),
        target: format!("≤ {NOISE} x"),
        theirs: cell(Unit::Theirs).unwrap_or_else(dash),
        ours: cell(Unit::Ours)?,
        ratio: digits(growth.median),
        spread: between(&growth, ""),
        verdict: Verdict::of(growth.median <= NOISE),
        instead: None,
    })
}

/// The same with the processor's caches as the visits have left them.
pub fn most_to_least(m: &Measured, names: [&'static str; 3], what: &str) -> Option<Row> {
    let growth = |unit| {
        let [mut least, mut most] = [f64::MAX, 0.0_f64];
        for name in names {
            let median = m.median(name, unit)?;
            (least, most) = (least.min(median), most.max(median));
        }
        Some(format!("{} x", digits(most / least)))
    };
    Some(Row {
        case: format!("  {what}, most to least"),
        target: dash(),
        theirs: growth(Unit::Theirs).unwrap_or_else(dash),
        ours: growth(Unit::Ours)?,
        ratio: dash(),
        ..Row::default()
    })
}

/// Throughput of two threads in that of one.
pub fn two_threads(m: &Measured, alone: &Alone) -> Option<Row> {
    const TARGET: f64 = 1.8;
    let gain = |unit| {
        let samples = |name| Some(&m.get(name, unit)?.samples);
        Ratio::over_rounds(
            [samples("threads-1")?, samples("threads-2")?],
            |[one, two]| one / two,
        )
    };
    let cell =
        |ratio: Option<Ratio>| ratio.map_or_else(dash, |r| format!("{} x", digits(r.median)));
    let ours = gain(Unit::Ours)?;
    let nothing = gain(Unit::Nothing);
    let without = cell(nothing);
    // Units that share nothing show what the machine has for two threads, and DMA without a unit what the emulator has.
    let instead = alone.threads().and_then(|threads| {
        let most = nothing.map_or(threads.own, |nothing| nothing.median.min(threads.own));
        let by_machine = threads.own < TARGET
            && threads.ratio.median >= AS_MUCH
            && ours.median >= AS_MUCH * most;
        let [shared, own, calculation] =
            [threads.shared, threads.own, threads.calculation].map(digits);
        by_machine.then(|| {
            format!(
                "Two threads on one unit of the crate alone do {shared} x of one, with a unit each {own} x: they do not \
                 wait for each other. That is what this machine has for a second thread: {calculation} x for \
                 a calculation in registers, {without} for this DMA without any vIOMMU."
            )
        })
    });
    Some(Row {
        case: format!("two threads, 512 pages each ({without} without vIOMMU)"),
        target: format!("≥ {TARGET} x one"),
        theirs: cell(gain(Unit::Theirs)),
        ours: cell(Some(ours)),
        ratio: m.ratio("threads-2").map_or_else(dash, |r| digits(r.median)),
        spread: between(&ours, " x"),
        verdict: Verdict::of(ours.median >= TARGET),
        instead,
    })
}

/// Translations on a thread while another drains: the worst of each drain, beside the drain.
pub fn while_draining(m: &Measured) -> Option<Row> {
    let theirs = m.get("mixed", Unit::Theirs).and_then(Mixed::of);
    let ours = Mixed::of(m.get("mixed", Unit::Ours)?)?;
    let cell = |mixed: &Mixed| {
        let Mixed {
            drain, worst, done, ..
        } = mixed;
        format!("worst {} in {}, {done:.0} done", time(*worst), time(*drain))
    };
    Some(Row {
        case: "translations while 255 + wait drain".to_owned(),
        target: "worst < drain / 2".to_owned(),
        theirs: theirs.as_ref().map_or_else(dash, cell),
        ours: cell(&ours),
        ratio: dash(),
        spread: format!(
            "median {}, worst before {}",
            time(ours.median),
            time(ours.before)
        ),
        verdict: Verdict::of(ours.worst < ours.drain / 2.0),
        instead: None,
    })
}

/// Medians over those drains during which the thread had a processor.
struct Mixed {
    drain: f64,
    /// The slowest access that met the drain, and the slowest before it.
    worst: f64,
    before: f64,
    /// Of all accesses that met a drain.
    median: f64,
    /// So many did.
    done: f64,
}

impl Mixed {
    fn of(measurement: &Measurement) -> Option<Self> {
        let during = measurement.numbers("during");
        let of = |name| {
            let values = measurement.numbers(name).into_iter().zip(&during);
            let met: Vec<f64> = values.filter(|(_, n)| **n > 0.0).map(|(v, _)| v).collect();
            (!met.is_empty()).then(|| median(&met))
        };
        Some(Self {
            drain: of("ns")?,
            worst: of("worst")?,
            before: of("worst-before")?,
            median: median(&measurement.numbers("median")),
            done: of("during")?,
        })
    }
}
