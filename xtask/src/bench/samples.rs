//! Numbers of several rounds: medians, quartiles, and ratios of what was measured side by side.

/// The middle one, or the mean of the two in the middle; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Linear between the neighbours.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let at = part * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// What one emulator measured of one case: of each round its repetitions, in nanoseconds for one
/// operation.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    pub rounds: Vec<Vec<f64>>,
}

impl Samples {
    pub fn all(&self) -> Vec<f64> {
        self.rounds.concat()
    }

    pub fn median(&self) -> f64 {
        median(&self.all())
    }

    pub fn medians(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| median(round)).collect()
    }

    /// The middle half of all repetitions, in percent of the median: how sure it is.
    pub fn spread(&self) -> f64 {
        let all = self.all();
        let middle = median(&all);
        if middle == 0.0 {
            return 0.0;
        }
        (quantile(&all, 0.75) - quantile(&all, 0.25)) / middle * 100.0
    }
}

/// A ratio of what was measured in the same round: its median over the rounds, least and most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Ratio {
    /// `of` gets the medians of a round.
    pub fn over_rounds<const N: usize>(
        samples: [&Samples; N],
        of: impl Fn([f64; N]) -> f64,
    ) -> Option<Self> {
        let medians = samples.map(Samples::medians);
        let rounds = medians.iter().map(Vec::len).min()?;
        let ratios: Vec<f64> = (0..rounds)
            .map(|round| of(std::array::from_fn(|which| medians[which][round])))
            .collect();
        if ratios.is_empty() {
            return None;
        }
        Some(Self {
            median: median(&ratios),
            least: quantile(&ratios, 0.0),
            most: quantile(&ratios, 1.0),
        })
    }
}

/// Nanoseconds as people read them.
pub fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 999.5 => (ns, "ns"),
        ns if ns < 999_500.0 => (ns / 1e3, "µs"),
        ns if ns < 999_500_000.0 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", digits(value))
}

/// Three digits that say something.
pub fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.25), 2.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let theirs = Samples {
            rounds: vec![vec![10.0, 20.0, 30.0], vec![40.0]],
        };
        let ours = Samples {
            rounds: vec![vec![10.0], vec![10.0]],
        };
        let ratio = Ratio::over_rounds([&theirs, &ours], |[a, b]| a / b).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (2.0, 3.0, 4.0));
        assert!(Ratio::over_rounds([&theirs, &Samples::default()], |[a, b]| a / b).is_none());
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(time(12.345), "12.3 ns");
        assert_eq!(time(999.7), "1.00 µs");
        assert_eq!(time(123_456.0), "123 µs");
        assert_eq!(time(12_345_678.0), "12.3 ms");
        assert_eq!(time(144.9e9), "145 s");
    }
}
