//! Runs the cases: round by round, in each case one emulator after the other.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::cases::Case;
use super::machine::{Emulator, Unit};
use super::samples::{Ratio, Samples};
use crate::ui::{Result, Step, fail};

/// What one emulator measured of one case.
#[derive(Default)]
pub struct Measurement {
    pub samples: Samples,
    /// The device's answers, one of each round.
    pub answers: Vec<Value>,
}

impl Measurement {
    /// A number of the answers: of each repetition of each round.
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        let lists = self.answers.iter().map(|answer| match &answer[name] {
            Value::Array(list) => list.iter().filter_map(Value::as_f64).collect(),
            one => one.as_f64().into_iter().collect::<Vec<_>>(),
        });
        lists.flatten().collect()
    }

    pub fn sum(&self, name: &str) -> f64 {
        self.numbers(name).iter().sum()
    }
}

#[derive(Default)]
pub struct Measured {
    cases: BTreeMap<(&'static str, Unit), Measurement>,
}

impl Measured {
    /// Measures `cases`, each in every one of `rounds` rounds and once before as a warm-up. Which
    /// emulator is the first changes from round to round; the others sleep meanwhile.
    pub fn take(
        emulators: &mut [(Unit, Emulator)],
        cases: &[&'static Case],
        rounds: usize,
    ) -> Result<Self> {
        let mut measured = Self::default();
        let mut step = Step::new(format!("{} cases, {rounds} rounds", cases.len()));
        for round in 0..=rounds {
            for (index, case) in cases.iter().enumerate() {
                let percent = (round * cases.len() + index) * 100 / (cases.len() * (rounds + 1));
                step.update(&format!("{percent:2} % round {round}: {}", case.name));
                for place in 0..emulators.len() {
                    let turn = (place + round + index) % emulators.len();
                    let (unit, emulator) = &mut emulators[turn];
                    if !case.units.contains(unit) {
                        continue;
                    }
                    let answer = emulator.measure(case.spec)?;
                    if round > 0 {
                        measured.add(case.name, *unit, answer)?;
                    }
                }
            }
        }
        step.done("");
        Ok(measured)
    }

    fn add(&mut self, name: &'static str, unit: Unit, answer: Value) -> Result<()> {
        let ops = answer["ops"].as_f64().filter(|ops| *ops > 0.0);
        let (Some(ops), Some(times)) = (ops, answer["ns"].as_array()) else {
            return fail(format!(
                "{name}: the device's answer has no times: {answer}"
            ));
        };
        let times = times.iter().filter_map(Value::as_f64);
        let round = times.map(|ns| ns / ops).collect();
        let measurement = self.cases.entry((name, unit)).or_default();
        measurement.samples.rounds.push(round);
        measurement.answers.push(answer);
        Ok(())
    }

    pub fn get(&self, name: &'static str, unit: Unit) -> Option<&Measurement> {
        self.cases.get(&(name, unit))
    }

    pub fn median(&self, name: &'static str, unit: Unit) -> Option<f64> {
        Some(self.get(name, unit)?.samples.median())
    }

    /// How many times as long intel-iommu takes.
    pub fn ratio(&self, name: &'static str) -> Option<Ratio> {
        let [theirs, ours] = Unit::BOTH.map(|unit| self.get(name, unit));
        Ratio::over_rounds([&theirs?.samples, &ours?.samples], |[theirs, ours]| {
            theirs / ours
        })
    }

    pub fn json(&self) -> Value {
        let mut cases = Map::new();
        for ((name, unit), measurement) in &self.cases {
            let samples = &measurement.samples;
            cases.entry(*name).or_insert_with(|| json!({}))[unit.name()] = json!({
                "median-ns": samples.median(),
                "spread-percent": samples.spread(),
                "medians-of-rounds-ns": samples.medians(),
                "answers": measurement.answers,
            });
        }
        Value::Object(cases)
    }
}
