//! docs/performance: the table, the plots, and on what machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::machine::Unit;
use super::rows::{Row, Verdict};
use super::sections::Section;
use crate::ui::{Context, Result, output};
use crate::workspace::Workspace;

/// What was measured on, and with what.
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub qemu: String,
    pub rust: String,
}

impl Machine {
    pub fn here(qemu: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).context(path);
        let info = read("/proc/cpuinfo")?;
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("unknown", |model| {
            model.trim_start_matches([' ', '\t', ':'])
        });
        let guest = info.lines().any(|line| {
            line.starts_with("flags") && line.split_whitespace().any(|flag| flag == "hypervisor")
        });
        let version = output(Command::new(qemu).arg("--version"))?;
        Ok(Self {
            processor: format!(
                "{model}{}",
                if guest { ", in a virtual machine" } else { "" }
            ),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            qemu: version.lines().next().unwrap_or("").trim().to_owned(),
            rust: output(Command::new("rustc").arg("--version"))?
                .trim()
                .to_owned(),
        })
    }

    pub fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "cores": self.cores,
            "kernel": self.kernel,
            "qemu": self.qemu,
            "rust": self.rust,
        })
    }
}

/// How busy others keep the processors, in percent of all of them.
pub fn busy() -> Result<f64> {
    // Of all time since the machine is up: user to steal, and idle of it with waiting for disks.
    let now = || -> Result<(f64, f64)> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let words = text.lines().next().unwrap_or("").split_whitespace().skip(1);
        let ticks: Vec<f64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        Ok((ticks.iter().sum(), ticks.iter().skip(3).take(2).sum()))
    };
    let before = now()?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    let after = now()?;
    Ok((1.0 - (after.1 - before.1) / (after.0 - before.0).max(1.0)) * 100.0)
}

/// Writes docs/performance.
pub fn write(
    workspace: &Workspace,
    machine: &Machine,
    busy: f64,
    sections: &[Section],
    rounds: usize,
) -> Result<()> {
    let dir = workspace.path("docs/performance");
    fs::create_dir_all(&dir).context(dir.display())?;
    let mut text = head(machine, busy, rounds);
    for section in sections {
        text += &format!("\n## {}\n\n{}\n", section.title, wrapped(section.about));
        if let Some(svg) = section.plot.svg() {
            let file = dir.join(format!("{}.svg", section.name));
            fs::write(&file, svg).context(file.display())?;
            text += &format!("\n![{}]({}.svg)\n", section.plot.title, section.name);
        }
        text += &format!("\n{}", table(&section.rows));
    }
    let missed: Vec<_> = sections
        .iter()
        .flat_map(|section| &section.rows)
        .filter(|row| matches!(row.verdict, Verdict::NotMet | Verdict::Restated))
        .collect();
    if !missed.is_empty() {
        text += "\n## Not met\n\n";
        for row in missed {
            let why = row
                .restated()
                .map_or(String::new(), |why| format!(": {why}"));
            text += &format!("- {}{why}\n", row.case.trim());
        }
    }
    let file = dir.join("README.md");
    fs::write(&file, text).context(file.display())
}

fn head(machine: &Machine, busy: f64, rounds: usize) -> String {
    let commands: String = Unit::ALL
        .iter()
        .map(|unit| {
            let option = unit
                .option()
                .map_or("no `-device`".to_owned(), |o| format!("`-device {o}`"));
            format!("| {} | {option} |\n", unit.name())
        })
        .collect();
    format!(
        "# Performance\n\n\
         nested-vtd beside QEMU's own intel-iommu: the same program, the same tables, the same test device\n\
         (`iommu-bench-testdev` of the patches), in turns in one run. What counts are ratios; the times are of\n\
         this machine. `cargo xtask bench --guest --update-docs` writes this page; `--only` measures some of it,\n\
         `--quick` with fewer rounds.\n\n\
         | | |\n|---|---|\n\
         | processor | {}, {} cores |\n| kernel | {} |\n| emulator | {} |\n| compiler | {} |\n\
         | busy with other things | {busy:.0} % before it began |\n| rounds | {rounds}, after one that does not count |\n{commands}\n\
         Times are medians of all repetitions. A ratio is the median over the rounds of what a round's medians\n\
         give, and its spread the least and the most of them; a spread with ± is half of the middle half.\n",
        machine.processor, machine.cores, machine.kernel, machine.qemu, machine.rust
    )
}

fn table(rows: &[Row]) -> String {
    let line = |cells: [&str; 7]| format!("| {} |\n", cells.map(str::trim).join(" | "));
    let mut text = line(Row::HEAD);
    text += &line(["---"; 7]);
    for row in rows {
        text += &line(row.cells());
    }
    text
}

/// Lines of at most 110 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, String::len);
        if last > 0 && last + 1 + word.len() > 110 {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_text_is_wrapped() {
        let text = wrapped(&"word ".repeat(50));
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.lines()
                .all(|line| line.len() <= 110 && !line.ends_with(' '))
        );
    }
}
