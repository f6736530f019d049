//! `cargo xtask lab --soak MINUTES`: everything comes and goes at once, in L1 and L2, for long. Nothing
//! stale is used, nothing is refused but what is to be, and nothing grows.

use std::fs;
use std::time::{Duration, Instant};

use super::guest::{READ, step_of};
use super::host::numbers;
use super::machine::{DISK_IN_L2, Machine, NET_IN_L2, OTHER, THIRD_IN_L2};
use super::report::{Report, Seen};
use crate::ui::{Context, Error, Result, Step, fail};

/// How often memory is looked at.
const PAUSE: Duration = Duration::from_secs(10);

/// KiB that each kind of memory may grow by, between the time when all has been used once and the end.
const ALLOWED: u64 = 24 << 10;

pub fn soak(report: &mut Report, machine: &mut Machine, sum: &str, minutes: u64) -> Result<()> {
    step_of(report, machine, "soak", |machine, step| {
        let quiet = live_hwpts(machine)?;
        let seconds = minutes * 60;
        begin(machine, step, sum, seconds)?;
        let memory = watch(machine, step, seconds)?;
        let work = end(machine, step)?;
        machine.refused += work.refused;
        let left = live_hwpts(machine)?;
        if left != quiet {
            return fail(format!("L2's unit has {left} HWPTs, before it had {quiet}"));
        }
        memory.judge()?;
        Ok(Seen::new(format!(
            "{minutes} minutes: {}\nHWPTs of L2's unit: {quiet} before and after\n{}",
            work.text,
            memory.text()
        ))
        .with("minutes", minutes)
        .with("hwpts", left)
        .with("memory-growth-kib", memory.json())
        .with("work", work.text))
    })
}

/// Nested HWPTs that L2's unit has.
fn live_hwpts(machine: &mut Machine) -> Result<u64> {
    let counters = machine.counters_of_l2()?;
    Ok(counters.get("hwpt-allocs") - counters.get("hwpt-destroys"))
}

fn begin(machine: &mut Machine, step: &mut Step, sum: &str, seconds: u64) -> Result<()> {
    let pasids = format!(
        "give {OTHER}; pasid 0000:{OTHER} $(vfio {OTHER}) {seconds} >/tmp/pasids 2>&1 & pasids=$!"
    );
    machine.l1.run(step, &pasids)?;
    for command in [
        ". /soak; rm -f /tmp/stop".to_owned(),
        format!("soak_disk {DISK_IN_L2} {READ} {sum} & disk=$!"),
        format!("soak_net {NET_IN_L2} & net=$!"),
        format!(
            "give {THIRD_IN_L2}; \
             storm 0000:{THIRD_IN_L2} $(vfio {THIRD_IN_L2}) {seconds} >/tmp/stormed 2>&1 & storm=$!"
        ),
    ] {
        machine.l2.run(step, &command)?;
    }
    Ok(())
}

struct Work {
    text: String,
    /// DMAs that were refused as they should.
    refused: u64,
}

fn end(machine: &mut Machine, step: &mut Step) -> Result<Work> {
    let limit = Duration::from_secs(240);
    machine.l1.run_for(step, "wait $pasids", limit)?;
    let pasids = machine.l1.run(step, "cat /tmp/pasids")?;
    let stop = ": >/tmp/stop; wait $storm $disk $net; cat /tmp/stormed";
    let stormed = machine.l2.run_for(step, stop, limit)?;
    let soaked = machine
        .l2
        .run(step, "cat /tmp/soaked.disk /tmp/soaked.net")?;
    let [maps, unmaps, dmas, refused, wrong] = numbers(&stormed, "storm")?[..] else {
        return fail(stormed);
    };
    let [steps, pasid_dmas, pasid_refused, pasid_wrong] = numbers(&pasids, "churn")?[..] else {
        return fail(pasids);
    };
    let goods: Option<Vec<u64>> = soaked
        .lines()
        .map(|line| line.trim().parse().ok())
        .collect();
    let Some([disk, net]) = goods.as_deref() else {
        return fail(format!("disk and network in L2: {soaked}"));
    };
    if wrong + pasid_wrong != 0 {
        return fail(format!("DMA went wrong:\n{stormed}\n{pasids}"));
    }
    Ok(Work {
        text: format!(
            "L2 mapped {maps} and unmapped {unmaps} times, {dmas} DMAs right ({refused} refused); {disk} \
             times {} MiB read or nvme bound anew, {net} times igb bound anew or pinged; L1 changed \
             PASIDs {steps} times, {pasid_dmas} DMAs right ({pasid_refused} refused)",
            READ >> 20
        ),
        refused: refused + pasid_refused,
    })
}

/// Memory in KiB, by what it is of.
const KINDS: [&str; 4] = ["L0's emulator", "L1's slabs", "L1 in use", "L2's emulator"];

struct Memory {
    samples: Vec<[u64; KINDS.len()]>,
}

/// Looks at memory until the time has come.
fn watch(machine: &mut Machine, step: &mut Step, seconds: u64) -> Result<Memory> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(PAUSE.min(Duration::from_secs(seconds)));
        samples.push(sample(machine, step)?);
        let counters = machine.counters()?;
        let stale = counters.get("stale-uses");
        step.update(&format!(
            "{} of {seconds} s: {} translations, {} nested walks, {stale} stale uses",
            start.elapsed().as_secs(),
            counters.get("translations"),
            counters.get("nested-walks")
        ));
        if stale != 0 {
            return fail(format!(
                "{stale} stale uses after {} s",
                start.elapsed().as_secs()
            ));
        }
    }
    Ok(Memory { samples })
}

fn sample(machine: &mut Machine, step: &mut Step) -> Result<[u64; KINDS.len()]> {
    let file = format!("/proc/{}/status", machine.id());
    let status = fs::read_to_string(&file).context(&file)?;
    let meminfo = machine.l1.run(step, "cat /proc/meminfo")?;
    let emulator = machine.l1.run(step, "cat /proc/$l2/status")?;
    Ok([
        kib(&status, "RssAnon:")?,
        kib(&meminfo, "Slab:")?,
        kib(&meminfo, "MemTotal:")? - kib(&meminfo, "MemAvailable:")?,
        kib(&emulator, "VmRSS:")?,
    ])
}

fn kib(text: &str, field: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .ok_or_else(|| Error::new(format!("no {field} in {text}")))
}

impl Memory {
    /// How much each kind has grown since all was used once, after a quarter of the time: the least of the
    /// last samples, as there is always work under way, over the most of the ones around then.
    fn growth(&self) -> [u64; KINDS.len()] {
        let count = self.samples.len();
        let quarter = (count / 4).max(1);
        let early = &self.samples[quarter.min(count - 1)..(2 * quarter).min(count)];
        let late = &self.samples[count - quarter.min(count)..];
        std::array::from_fn(|kind| {
            let most = early.iter().map(|sample| sample[kind]).max().unwrap_or(0);
            let least = late.iter().map(|sample| sample[kind]).min().unwrap_or(0);
            least.saturating_sub(most)
        })
    }

    fn judge(&self) -> Result<()> {
        let growth = self.growth();
        match KINDS.iter().zip(growth).find(|(_, grown)| *grown > ALLOWED) {
            Some((kind, grown)) => fail(format!("memory of {kind} has grown by {grown} KiB")),
            None => Ok(()),
        }
    }

    fn text(&self) -> String {
        let (first, last) = (self.samples.first(), self.samples.last());
        let kinds = KINDS
            .iter()
            .zip(self.growth())
            .enumerate()
            .map(|(n, (kind, grown))| {
                let at = |sample: Option<&[u64; KINDS.len()]>| {
                    sample.map_or(0, |sample| sample[n] >> 10)
                };
                format!(
                    "{kind} {} to {} MiB (grown {grown} KiB)",
                    at(first),
                    at(last)
                )
            });
        format!(
            "memory, {} samples: {}",
            self.samples.len(),
            kinds.collect::<Vec<_>>().join(", ")
        )
    }

    fn json(&self) -> serde_json::Value {
        KINDS
            .iter()
            .zip(self.growth())
            .map(|(kind, grown)| ((*kind).to_owned(), grown.into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Memory {
        let sample = |value: &u64| [*value, 1, 1, 1];
        Memory {
            samples: values.iter().map(sample).collect(),
        }
    }

    #[test]
    fn growth_is_what_stays() {
        assert_eq!(of(&[10, 50, 60, 55, 61, 52, 70, 58]).growth()[0], 0);
        assert_eq!(of(&[10, 50, 60, 70, 80, 90, 100, 110]).growth()[0], 30);
        assert_eq!(of(&[10]).growth()[0], 0);
        let leak: Vec<_> = (0..40).map(|n| n * ALLOWED / 10).collect();
        assert!(of(&leak).judge().is_err());
        assert!(of(&[ALLOWED; 40]).judge().is_ok());
    }

    #[test]
    fn memory_is_read_in_kib() {
        assert_eq!(kib("a: 1 kB\nSlab:   12 kB\n", "Slab:").unwrap(), 12);
        assert!(kib("", "Slab:").is_err());
    }
}
