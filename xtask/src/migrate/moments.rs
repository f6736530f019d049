//! When the guest is saved, and what must be true afterwards.

use std::fs;
use std::time::{Duration, Instant};

use super::life::{Life, TES, Way};
use super::modes::Moment;
use crate::cache;
use crate::scenario::Verdict;
use crate::ui::{Context, Result, Step, fail};

/// For translation to be switched on, from power-on.
const BOOT: Duration = Duration::from_secs(120);

/// Saves and loads the guest at this moment, about `hops` times. What was not as it should be is among its reasons.
pub fn pass(life: &mut Life<'_>, moment: Moment, hops: u32, step: &mut Step) -> Result<()> {
    match (moment, life.mode().here.verdict) {
        (Moment::Early, _) => early(life, hops),
        (Moment::Setup, _) => setup(life, hops, step),
        (Moment::Running, Verdict::Works) => running(life, hops, step),
        (Moment::Running, Verdict::Blocked) => blocked(life, step),
        (Moment::Running, Verdict::StaleUses) => stale(life, step),
        (Moment::Snapshot, _) => snapshot(life, hops, step),
        (Moment::Reboot, _) => reboot(life, step),
    }
}

/// May this moment be the guest's last?
pub fn works_afterwards(moment: Moment) -> bool {
    matches!(moment, Moment::Running | Moment::Snapshot | Moment::Reboot)
}

fn early(life: &mut Life<'_>, hops: u32) -> Result<()> {
    for n in 0..hops {
        life.some_time(50_000, 700_000);
        if life.gsts()? & TES != 0 {
            if n == 0 {
                return fail("translation was on already");
            }
            break;
        }
        life.hop(Way::Still, false)?;
    }
    Ok(())
}

/// Lets the guest run for a moment at a time, to see GSTS change.
fn setup(life: &mut Life<'_>, hops: u32, step: &mut Step) -> Result<()> {
    let start = Instant::now();
    let mut last = life.gsts()?;
    let mut done = 0;
    while last & TES == 0 {
        if start.elapsed() > BOOT {
            return fail(format!("translation is not on; GSTS is {last:#x}"));
        }
        life.some_time(300, 2500);
        life.command("stop")?;
        let now = life.gsts()?;
        if now != last && (done < hops.max(2) * 2 || now & TES != 0) {
            life.hop(Way::Still, false)?;
            done += 1;
        } else {
            life.command("cont")?;
        }
        last = now;
        step.update(&format!("GSTS {now:#010x}, {done} hops"));
    }
    if done == 0 {
        return fail("translation was on already");
    }
    Ok(())
}

fn running(life: &mut Life<'_>, hops: u32, step: &mut Step) -> Result<()> {
    life.works(step)?;
    for n in 0..hops {
        life.some_time(0, 1_500_000);
        let way = match n {
            0 => Way::Live,
            1 => Way::Still,
            _ => [Way::Live, Way::File, Way::Still][life.random.index(3)],
        };
        step.update(&format!("hop {n}: {way:?}"));
        life.hop(way, true)?;
        life.works(step)?;
    }
    Ok(())
}

/// The next emulator refuses what the devices need.
fn blocked(life: &mut Life<'_>, step: &mut Step) -> Result<()> {
    life.works(step)?;
    life.hop(Way::Still, true)
}

/// The next emulator forgets invalidations.
fn stale(life: &mut Life<'_>, step: &mut Step) -> Result<()> {
    life.works(step)?;
    life.hop(Way::Live, true)?;
    life.until(step, |life| {
        let none = life.machine.unit()?.stat("stale-uses") == 0;
        Ok(none.then(|| "a stale use".to_owned()))
    })
}

fn snapshot(life: &mut Life<'_>, hops: u32, step: &mut Step) -> Result<()> {
    life.works(step)?;
    for n in 0..hops {
        life.some_time(0, 1_500_000);
        let tag = format!("s{n}");
        life.command("stop")?;
        let mark = life.save(&tag)?;
        life.command("cont")?;
        life.works(step)?;
        life.some_time(0, 1_000_000);
        life.command("stop")?;
        // Every second time into a machine that has come up in between.
        if n % 2 == 1 {
            life.judge_said();
            life.judge_now(true)?;
            life.command("system_reset")?;
            life.command("cont")?;
            life.some_time(100_000, 2_500_000);
            life.command("stop")?;
        }
        life.load(&tag, mark)?;
        life.command("cont")?;
        life.works(step)?;
    }
    Ok(())
}

fn reboot(life: &mut Life<'_>, step: &mut Step) -> Result<()> {
    life.works(step)?;
    let boots = life.boots();
    let order = life.dir().join("tftp/order");
    fs::write(&order, "reboot\n").context(order.display())?;
    life.until(step, |life| {
        life.watch()?;
        let reboots = life.said().is_some_and(|said| said.rebooting);
        Ok((!reboots).then(|| "the reboot".to_owned()))
    })?;
    cache::remove(&order)?;
    for most in [300_000, 2_500_000] {
        let time = Duration::from_micros(life.random.between(0, most));
        let start = Instant::now();
        life.until(step, |life| {
            life.watch()?;
            Ok((start.elapsed() < time).then(|| "a moment".to_owned()))
        })?;
        life.hop(Way::Still, false)?;
    }
    life.until(step, |life| {
        life.watch()?;
        Ok((life.boots() <= boots).then(|| "the guest to come up again".to_owned()))
    })?;
    life.works(step)
}
