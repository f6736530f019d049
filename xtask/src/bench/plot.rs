//! Bar plots as SVG, written by hand: logarithmic, and readable on light and on dark pages.

use std::fmt::Write;

/// Bars of one place on the axis, one of each series.
pub struct Group {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

pub struct Plot {
    pub title: String,
    pub series: Vec<String>,
    pub groups: Vec<Group>,
    /// What is written above a bar.
    pub label: fn(f64) -> String,
}

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 38.0;

/// Colours of text and lines follow the page where the viewer tells, and are between light and dark
/// where it does not. Those of bars stand out on both.
const STYLE: &str = "\
text { font: 12px sans-serif; fill: #737c86; }
.title { font-size: 14px; font-weight: bold; }
.label { font-size: 10px; text-anchor: middle; }
.group { text-anchor: middle; }
.tick { text-anchor: end; }
.grid { stroke: #8c959f; stroke-opacity: 0.35; }
.s0 { fill: #8c959f; } .s1 { fill: #d1762b; } .s2 { fill: #2f81f7; } .s3 { fill: #3fa34d; }
@media (prefers-color-scheme: light) { text { fill: #4b535d; } }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9; } }
";

impl Plot {
    /// The bars' own colours; a series that has no bar is left out.
    fn used(&self) -> Vec<usize> {
        let has = |series: &usize| {
            let mut values = self.groups.iter().map(|group| group.values.get(*series));
            values.any(|value| matches!(value, Some(Some(_))))
        };
        (0..self.series.len()).filter(has).collect()
    }

    /// Powers of ten around all values.
    fn decades(&self) -> Option<(i32, i32)> {
        let values = self
            .groups
            .iter()
            .flat_map(|group| group.values.iter().flatten());
        let logs: Vec<f64> = values
            .filter(|value| **value > 0.0)
            .map(|v| v.log10())
            .collect();
        let least = logs.iter().copied().reduce(f64::min)?;
        let most = logs.iter().copied().reduce(f64::max)?;
        // A bar has a height even if it is the least.
        let low = (least - 0.15).floor() as i32;
        Some((low, (most.ceil() as i32).max(low + 1)))
    }

    /// None if there is nothing to show.
    pub fn svg(&self) -> Option<String> {
        let (low, high) = self.decades()?;
        let used = self.used();
        let floor = HEIGHT - BOTTOM;
        let y = |value: f64| {
            let part = (value.log10() - f64::from(low)) / f64::from(high - low);
            floor - part.max(0.0) * (floor - TOP)
        };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
             <title>{0}</title>\n<style>\n{STYLE}</style>\n\
             <text class=\"title\" x=\"12\" y=\"22\">{0}</text>\n",
            escaped(&self.title)
        );
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        let mut x = 12.0;
        for series in &used {
            let name = &self.series[*series];
            line(format!(
                "<rect class=\"s{series}\" x=\"{x}\" y=\"33\" width=\"11\" height=\"11\"/>"
            ));
            line(format!(
                "<text x=\"{}\" y=\"43\">{}</text>",
                x + 16.0,
                escaped(name)
            ));
            x += 34.0 + name.chars().count() as f64 * 7.0;
        }
        for decade in low..=high {
            let value = 10_f64.powi(decade);
            let at = y(value);
            line(format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                WIDTH - 12.0
            ));
            line(format!(
                "<text class=\"tick\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                round((self.label)(value))
            ));
        }
        let room = (WIDTH - 12.0 - LEFT) / self.groups.len() as f64;
        let bar = (room * 0.92 / used.len() as f64).min(70.0);
        for (index, group) in self.groups.iter().enumerate() {
            let middle = LEFT + room * (index as f64 + 0.5);
            let mut left = middle - bar * used.len() as f64 / 2.0;
            for series in &used {
                if let Some(Some(value)) = group.values.get(*series) {
                    let top = y(*value);
                    line(format!(
                        "<rect class=\"s{series}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
                         height=\"{:.1}\"/>",
                        left + 1.0,
                        bar - 2.0,
                        floor - top
                    ));
                    line(format!(
                        "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                        left + bar / 2.0,
                        top - 4.0,
                        (self.label)(*value)
                    ));
                }
                left += bar;
            }
            line(format!(
                "<text class=\"group\" x=\"{middle:.1}\" y=\"{}\">{}</text>",
                floor + 18.0,
                escaped(&group.name)
            ));
        }
        writeln!(out, "</svg>").ok()?;
        Some(out)
    }
}

/// A round number without its zeros.
fn round(label: String) -> String {
    label.replace(".00", "").replace(".0", "")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(values: Vec<Option<f64>>) -> Plot {
        Plot {
            title: "a < b".to_owned(),
            series: vec!["one".to_owned(), "two".to_owned()],
            groups: vec![Group {
                name: "here".to_owned(),
                values,
            }],
            label: |value| format!("{value}"),
        }
    }

    #[test]
    fn a_series_without_bars_is_not_in_the_legend() {
        let svg = plot(vec![Some(12.0), None]).svg().unwrap();
        assert!(svg.contains("one") && !svg.contains("two"));
        assert!(svg.contains("<title>a &lt; b</title>"));
        assert_eq!(svg.matches("class=\"s0\"").count(), 2);
    }

    #[test]
    fn nothing_is_no_plot() {
        assert!(plot(vec![None, None]).svg().is_none());
    }

    #[test]
    fn the_axis_has_the_powers_of_ten_around() {
        assert_eq!(plot(vec![Some(12.0), Some(340.0)]).decades(), Some((0, 3)));
        assert_eq!(plot(vec![Some(15.0), Some(100.0)]).decades(), Some((1, 2)));
    }
}
