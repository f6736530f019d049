//! L2 is saved to a file and goes on in another emulator of L1's. vfio lets nothing be saved while a device
//! is behind a vIOMMU, so the devices are unplugged before and plugged in after.

use std::str::FromStr;
use std::time::Duration;

use serde_json::json;

use super::guest::{attached, network, step_of, third_device, written};
use super::host::NESTED;
use super::machine::{ASSIGNED, Machine, THIRD_IN_L2};
use super::report::{Report, Seen};
use super::unit_of_l2;
use crate::outcome::register;
use crate::ui::{Error, Result, Step, fail};

/// The file, in L1.
const FILE: &str = "/tmp/saved";

const LONG: Duration = Duration::from_secs(60);

/// TES, RTPS, QIES, IRES and IRTPS of GSTS (VT-d 11.4.4.2).
const IN_USE: u64 = 0xc700_0000;

/// What L2 knows of itself.
struct Alive {
    boot: String,
    uptime: f64,
    beats: u64,
}

/// L2 as it was when it was saved.
struct Saved {
    /// A word that only the shell in L2 has.
    word: String,
    alive: Alive,
    /// Its unit's registers, and the tables that they lead to.
    unit: String,
}

/// `unit`: properties of L2's unit.
pub fn steps(report: &mut Report, machine: &mut Machine, unit: &str) -> Result<()> {
    let mut saved = None;
    step_of(report, machine, "l2.save", |machine, step| {
        let (seen, l2) = save(machine, step)?;
        saved = Some(l2);
        Ok(seen)
    })?;
    let missing = || Error::new("there is no saved L2");
    let saved = saved.ok_or_else(missing)?;
    step_of(
        report,
        machine,
        "control.restore-elsewhere",
        |machine, step| elsewhere(machine, step, unit),
    )?;
    step_of(report, machine, "l2.restore", |machine, step| {
        restore(machine, step, unit, &saved)
    })?;
    step_of(report, machine, "l2.plug-after-restore", plug)
}

fn save(machine: &mut Machine, step: &mut Step) -> Result<(Seen, Saved)> {
    let Err(refused) = to_file(machine) else {
        return fail("L2 can be saved with assigned devices behind its unit");
    };
    if !refused.to_string().contains("VFIO") {
        return Err(refused);
    }
    let mut places = Vec::new();
    for device in &ASSIGNED {
        machine.unplug(step, device)?;
        let left = machine.l2.run(step, "ls /sys/bus/pci/devices")?;
        if left.contains(device.in_l2) {
            return fail(format!("L2 still has {}: {left}", device.in_l2));
        }
        places.push(left_by_l2(machine, step, device.in_l1)?);
    }
    let unit = unit_of_l2(machine)?;

    let word = format!("word-{}", std::process::id());
    let life = format!(
        "word={word}; \
         {{ n=0; while :; do n=$((n + 1)); echo $n >/tmp/beat.new; mv /tmp/beat.new /tmp/beat; usleep 100000; done; }} & \
         beat=$!; until [ -e /tmp/beat ]; do usleep 50000; done"
    );
    machine.l2.run(step, &life)?;
    let alive = alive(machine, step)?;
    machine.monitor.execute("stop", json!({}))?;
    let dump = dump(machine)?;
    let gsts = register(&dump, "GSTS").unwrap_or(0);
    if gsts & IN_USE != IN_USE {
        return fail(format!("L2 does not use its unit: GSTS is {gsts:#x}"));
    }
    to_file(machine)?;
    transferred(machine, step, "saved")?;
    machine.stop_l2(step)?;
    let size = machine.l1.run(step, &format!("stat -c %s {FILE}"))?;
    let size: u64 = number(&size)?;
    let seen = Seen::new(format!(
        "devices unplugged, {} in L1; {} MiB saved, its emulator has ended\n\
         with the devices L2's emulator said: {refused}\nits unit: {unit}",
        places.join(", "),
        size >> 20,
        unit = unit.said(),
    ));
    let saved = Saved {
        word,
        alive,
        unit: dump,
    };
    Ok((seen.with("bytes", size), saved))
}

fn dump(machine: &mut Machine) -> Result<String> {
    let registers = machine.monitor.human("info nested-vtd registers")?;
    Ok(registers + &machine.monitor.human("info nested-vtd tables")?)
}

/// The lines that only one of two dumps has.
fn differences(before: &str, after: &str) -> String {
    let only = |one: &str, other: &str, word: &str| -> String {
        let lines = one
            .lines()
            .filter(|line| !other.lines().any(|l| l == *line));
        lines.map(|line| format!("{word} {line}\n")).collect()
    };
    only(before, after, "was") + &only(after, before, "is ")
}

/// Begins to write L2 to the file.
fn to_file(machine: &mut Machine) -> Result<()> {
    let parameters = json!({ "max-bandwidth": 1_u64 << 40 });
    machine
        .monitor
        .execute("migrate-set-parameters", parameters)?;
    let uri = json!({ "uri": format!("file:{FILE}") });
    machine.monitor.execute("migrate", uri).map(drop)
}

/// Begins to read it.
fn from_file(machine: &mut Machine) -> Result<()> {
    let uri = json!({ "uri": format!("file:{FILE}"), "exit-on-error": false });
    machine.monitor.execute("migrate-incoming", uri).map(drop)
}

fn transferred(machine: &mut Machine, step: &mut Step, what: &str) -> Result<()> {
    machine.until(step, what, LONG, |machine, _| {
        let state = machine.monitor.execute("query-migrate", json!({}))?;
        match state["status"].as_str() {
            Some("completed") => Ok(true),
            Some("failed" | "cancelled") => {
                let why = state["error-desc"].as_str().unwrap_or("no reason");
                fail(format!("L2 was not {what}: {why}"))
            }
            _ => Ok(false),
        }
    })
}

/// Waits until L1's kernel has nothing of L2's for the device, and says what it has.
fn left_by_l2(machine: &mut Machine, step: &mut Step, device: &str) -> Result<String> {
    let mut found = String::new();
    machine.until(step, "HWPT destroyed", LONG, |machine, step| {
        found = machine.l1.run(step, &format!("pgtt {device}"))?;
        let nested = |line: &str| line.ends_with(&format!(" {NESTED}"));
        Ok(!found.lines().any(nested))
    })?;
    Ok(match found.split_once(' ') {
        Some((_, pgtt)) => format!("{device} PGTT {pgtt}"),
        None => format!("{device} without an entry"),
    })
}

fn number<T: FromStr>(word: &str) -> Result<T> {
    let wrong = |_| Error::new(format!("not a number: {word}"));
    word.trim().parse().map_err(wrong)
}

fn alive(machine: &mut Machine, step: &mut Step) -> Result<Alive> {
    let ask = "cat /proc/sys/kernel/random/boot_id /proc/uptime /tmp/beat";
    let said = machine.l2.run(step, ask)?;
    let words: Vec<_> = said.split_whitespace().collect();
    match words[..] {
        [boot, uptime, _, beats] => Ok(Alive {
            boot: boot.to_owned(),
            uptime: number(uptime)?,
            beats: number(beats)?,
        }),
        _ => fail(format!("not what was asked for: {said}")),
    }
}

/// An emulator whose unit has other capabilities refuses the state, and says which.
fn elsewhere(machine: &mut Machine, step: &mut Step, unit: &str) -> Result<Seen> {
    machine.start_waiting(step, &format!("pt=off,{unit}"))?;
    from_file(machine)?;
    let Err(e) = transferred(machine, step, "restored") else {
        return fail("a unit without pass-through has taken the state of one with it");
    };
    machine.stop_l2(step)?;
    let said = machine
        .l1
        .run(step, "grep nested-vtd: /tmp/emulator; true")?;
    if !said.contains("make the unit with pt=on") {
        return fail(format!("{e}\nthe emulator has said: {said}"));
    }
    Ok(Seen::new(said))
}

/// L2 goes on where it was.
fn restore(machine: &mut Machine, step: &mut Step, unit: &str, saved: &Saved) -> Result<Seen> {
    machine.start_waiting(step, unit)?;
    from_file(machine)?;
    transferred(machine, step, "restored")?;
    machine.l1.run(step, &format!("rm {FILE}"))?;
    let unit = dump(machine)?;
    if unit != saved.unit {
        return fail(format!(
            "the unit is not what it was:\n{}",
            differences(&saved.unit, &unit)
        ));
    }
    machine.monitor.execute("cont", json!({}))?;
    let word = machine.l2.run(step, "echo $word")?;
    let mut now = alive(machine, step)?;
    let was = &saved.alive;
    machine.until(step, "another beat", LONG, |machine, step| {
        now = alive(machine, step)?;
        Ok(now.beats > was.beats + 1)
    })?;
    machine.l2.run(step, "kill $beat")?;
    if word != saved.word || now.boot != was.boot || now.uptime < was.uptime {
        return fail(format!(
            "not the guest that was saved: {word}, boot {}, up for {} s; that was {}, {}, {} s",
            now.boot, now.uptime, saved.word, was.boot, was.uptime
        ));
    }
    Ok(Seen::new(format!(
        "the unit's registers and tables are those that were saved; L2 goes on: same boot, shell and processes, up for \
         {} s, before for {} s",
        now.uptime, was.uptime
    )))
}

/// L2 gets its devices again.
fn plug(machine: &mut Machine, step: &mut Step) -> Result<Seen> {
    // The third has no driver.
    let taken = [
        "[ -e /dev/nvme0n1 ]",
        "ls /sys/class/net | grep -q eth",
        &format!("[ -e /sys/bus/pci/devices/0000:{THIRD_IN_L2} ]"),
    ];
    for (device, taken) in ASSIGNED.iter().zip(taken) {
        machine.plug(device)?;
        let wait = format!("until {taken}; do usleep 50000; done");
        machine.l2.run_for(step, &wait, LONG)?;
    }
    written(machine, step)?;
    let net = network(machine, step)?;
    attached(machine, step, NESTED)?;
    let third = third_device(machine, step)?;
    let unit = unit_of_l2(machine)?;
    Ok(Seen::new(format!(
        "what was written before is there; {net}; PGTT 3 for all three; {}\nits unit: {}",
        third.said(),
        unit.said()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown() {
        assert_eq!(differences("a\nb\n", "a\nb\n"), "");
        assert_eq!(differences("a\nb\n", "b\nc\n"), "was a\nis  c\n");
    }
}
