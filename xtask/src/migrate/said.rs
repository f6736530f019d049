//! What the guest says (tests/guest/migrate), across emulators and back in time.

use std::fs;
use std::path::PathBuf;

use crate::scenario::{Remapping, Scenario};

/// The guest's second serial port: a file for each emulator, of which what was undone is left out.
pub struct Port {
    before: Vec<u8>,
    file: PathBuf,
    /// Where in the file what counts begins.
    from: usize,
}

impl Port {
    pub fn new(file: PathBuf) -> Self {
        Self {
            before: Vec::new(),
            file,
            from: 0,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut all = self.before.clone();
        let new = fs::read(&self.file).unwrap_or_default();
        all.extend(new.get(self.from..).unwrap_or_default());
        all
    }

    /// The guest, which stands still, goes on to say what it says into another file.
    pub fn go_on(&mut self, file: PathBuf) {
        self.before = self.bytes();
        self.file = file;
        self.from = 0;
    }

    /// It stands still and goes on where it had said only `mark` bytes.
    pub fn go_back(&mut self, mark: usize) {
        let all = self.bytes();
        self.before = all[..mark.min(all.len())].to_vec();
        self.from = fs::read(&self.file).map_or(0, |file| file.len());
    }

    pub fn boots(&self) -> Vec<Said> {
        parse(&String::from_utf8_lossy(&self.bytes()))
    }
}

/// A round that came to its end, and what of it.
#[derive(Debug)]
pub struct Round {
    number: u64,
    what: String,
}

/// What one kernel said.
#[derive(Default, Debug)]
pub struct Said {
    pub kernel: String,
    /// PCI address, type of its domain, driver.
    pub groups: Vec<[String; 3]>,
    /// How many of its interrupts are remapped.
    pub interrupts: Option<u64>,
    pub reads: Vec<Round>,
    pub writes: Vec<Round>,
    pub nets: Vec<Round>,
    /// Transfers that were begun again.
    pub again: u64,
    pub rebooting: bool,
    /// Lines that are none of these.
    odd: Vec<String>,
}

impl Said {
    /// Rounds of reading, writing and the network.
    pub fn rounds(&self) -> [usize; 3] {
        [self.reads.len(), self.writes.len(), self.nets.len()]
    }
}

/// By kernel.
fn parse(text: &str) -> Vec<Said> {
    let mut boots: Vec<Said> = Vec::new();
    // The last line may be incomplete.
    let complete = &text[..text.rfind('\n').map_or(0, |n| n + 1)];
    for line in complete.lines() {
        let line = line.trim_end();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "kernel" || boots.is_empty() {
            boots.push(Said::default());
        }
        let Some(said) = boots.last_mut() else {
            continue;
        };
        let round = || {
            let (number, what) = rest.split_once(' ')?;
            Some(Round {
                number: number.parse().ok()?,
                what: what.to_owned(),
            })
        };
        let understood = match word {
            "kernel" => {
                rest.clone_into(&mut said.kernel);
                true
            }
            "group" => {
                let mut words = rest.splitn(3, ' ').map(str::to_owned);
                let mut next = || words.next().unwrap_or_default();
                said.groups.push([next(), next(), next()]);
                true
            }
            "interrupts" => {
                said.interrupts = rest.parse().ok();
                said.interrupts.is_some()
            }
            "read" => round().map(|r| said.reads.push(r)).is_some(),
            "write" => round().map(|r| said.writes.push(r)).is_some(),
            "net" => round().map(|r| said.nets.push(r)).is_some(),
            "again" => {
                said.again += 1;
                rest.parse::<u64>().is_ok()
            }
            "rebooting" => {
                said.rebooting = true;
                true
            }
            _ => false,
        };
        if !understood {
            said.odd.push(line.to_owned());
        }
    }
    boots
}

/// Everything that is not as it should be. `disk` and `file` are the sums of what is read.
pub fn reasons(boots: &[Said], scenario: &Scenario, disk: &str, file: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    for said in boots {
        let wanted = [
            ("read", &said.reads, disk),
            ("write", &said.writes, "good"),
            ("net", &said.nets, file),
        ];
        for (word, rounds, wanted) in wanted {
            for (n, round) in (1..).zip(rounds) {
                if round.number != n {
                    reasons.push(format!("{word} {} where {n} was due", round.number));
                }
                if round.what != wanted {
                    reasons.push(format!(
                        "{word} {}: {}, not {wanted}",
                        round.number, round.what
                    ));
                }
            }
        }
        for [address, domain, driver] in &said.groups {
            if *domain != scenario.domain {
                reasons.push(format!(
                    "{address} ({driver}) is in a domain of type {domain}, not {}",
                    scenario.domain
                ));
            }
        }
        match (said.interrupts, scenario.remapping) {
            (Some(0), remapping) if remapping != Remapping::Off => {
                reasons.push("no interrupt is remapped".to_owned());
            }
            (Some(n), Remapping::Off) if n > 0 => {
                reasons.push(format!("{n} interrupts are remapped"));
            }
            _ => {}
        }
        reasons.extend(said.odd.iter().map(|line| format!("it said {line:?}")));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "kernel a\ngroup 00:01.0 DMA none\ninterrupts 3\nread 1 d\nwrite 1 good\nagain 1\nnet 1 f\nread 2 d\nwri";

    fn judged(text: &str) -> Vec<String> {
        let scenario = Scenario {
            domain: "DMA",
            ..Scenario::NESTED
        };
        reasons(&parse(text), &scenario, "d", "f")
    }

    #[test]
    fn only_what_is_right_passes() {
        assert_eq!(judged(GOOD), Vec::<String>::new());
        assert_eq!(parse(GOOD)[0].rounds(), [2, 1, 1]);
        for (from, to) in [
            ("read 2 d", "read 3 d"),
            ("read 2 d", "read 2 x"),
            ("read 2 d", "read 1 d"),
            ("write 1 good", "write 1 wrong"),
            ("net 1 f", "net 1 error: no lease"),
            ("DMA", "identity"),
            ("interrupts 3", "interrupts 0"),
            ("again 1", "agaiwrite 1 good"),
        ] {
            assert_eq!(judged(&GOOD.replace(from, to)).len(), 1, "{to}");
        }
    }

    #[test]
    fn each_kernel_counts_anew() {
        let twice = format!("{GOOD}\nrebooting\n{GOOD}").replace("wri\n", "");
        assert_eq!(judged(&twice), Vec::<String>::new());
        assert_eq!(parse(&twice).len(), 2);
    }

    #[test]
    fn what_was_undone_is_left_out() {
        let dir = std::env::temp_dir();
        let name = |n| dir.join(format!("xtask-said-{}-{n}", std::process::id()));
        let mut port = Port::new(name(1));
        fs::write(name(1), "kernel a\nread 1 d\nrea").unwrap();
        let mark = port.bytes().len();
        fs::write(name(1), "kernel a\nread 1 d\nread 2 d\nread 3").unwrap();
        port.go_back(mark);
        assert_eq!(port.bytes(), b"kernel a\nread 1 d\nrea");
        fs::write(name(1), "kernel a\nread 1 d\nread 2 d\nread 3d 2").unwrap();
        port.go_on(name(2));
        fs::write(name(2), " d\n").unwrap();
        assert_eq!(port.bytes(), b"kernel a\nread 1 d\nread 2 d\n");
        for n in [1, 2] {
            fs::remove_file(name(n)).unwrap();
        }
    }
}
