//! What happens to a VM. Each event leaves a guest that is up and has used all of its devices.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::random::Random;
use super::vm::{DISK_SIZE, LEGACY, PORTS, SCALABLE, Vm, words};
use crate::scenario::Scenario;
use crate::ui::{Result, Step, fail};

#[derive(Clone, Copy, PartialEq)]
pub enum Event {
    /// The guest comes up, if it has not, and uses everything.
    Use,
    /// Resets at random moments of the boot, and after it.
    Resets,
    /// The guest panics, or reboots without asking its drivers.
    Reboots,
    /// Devices are plugged in, used, and taken out.
    Plugs,
    /// Memory is plugged in, used for DMA, and taken out.
    Memory,
    /// Kernels that use scalable and legacy mode in turns, with a reset in between.
    Modes,
}

impl Event {
    /// What happens, and how often.
    pub const SOFT: &[(Self, u64)] = &[
        (Self::Use, 1),
        (Self::Resets, 12),
        (Self::Plugs, 16),
        (Self::Memory, 4),
        (Self::Reboots, 2),
    ];
    pub const NONE: &[(Self, u64)] = &[
        (Self::Use, 1),
        (Self::Resets, 6),
        (Self::Plugs, 8),
        (Self::Memory, 2),
        (Self::Modes, 2),
        (Self::Reboots, 2),
    ];
    pub const QUICK: &[(Self, u64)] = &[
        (Self::Use, 1),
        (Self::Resets, 3),
        (Self::Plugs, 2),
        (Self::Memory, 1),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Use => "the guest comes up and uses its devices",
            Self::Resets => "resets at random moments",
            Self::Reboots => "panics and reboots",
            Self::Plugs => "devices plugged in and out",
            Self::Memory => "memory plugged in and out",
            Self::Modes => "scalable and legacy mode in turns",
        }
    }

    pub fn happens(
        self,
        step: &mut Step,
        vm: &mut Vm<'_>,
        times: u64,
        random: &mut Random,
    ) -> Result<String> {
        let scenario = vm.kind.scenario()?;
        if !vm.is_up() {
            vm.ready(step)?;
            vm.use_all(step, scenario)?;
            vm.judge_hwpts()?;
        }
        let said = match self {
            Self::Use => String::new(),
            Self::Resets => resets(step, vm, times, random)?,
            Self::Reboots => reboots(step, vm, times)?,
            Self::Plugs => plugs(step, vm, times, random)?,
            Self::Memory => memory(step, vm, times)?,
            Self::Modes => modes(step, vm, times, random)?,
        };
        vm.use_all(step, scenario)?;
        let base = vm.judge_hwpts()?;
        let sep = if said.is_empty() { "" } else { ", " };
        Ok(format!("{said}{sep}{} HWPTs as at first", base.live))
    }
}

/// The first one is of a guest at work; the last one is left alone.
fn resets(step: &mut Step, vm: &mut Vm<'_>, times: u64, random: &mut Random) -> Result<String> {
    let mut came_up = 1;
    vm.run(step, "busy nvme0n1 vda")?;
    for time in 0..times {
        // Before, in the middle of and after what the driver does with the unit.
        match time % 4 {
            0 => random.pause(800),
            3 => {
                vm.ready(step)?;
                came_up += 1;
                vm.run(step, "busy nvme0n1 vda")?;
                random.pause(800);
            }
            _ => {
                vm.until(step, "translation on", Vm::translates)?;
                random.pause(400);
            }
        }
        vm.reset(random)?;
        step.update(&format!("{} of {times}", time + 1));
    }
    vm.ready(step)?;
    Ok(format!(
        "{times} resets, {came_up} of the boots came to their end"
    ))
}

fn reboots(step: &mut Step, vm: &mut Vm<'_>, times: u64) -> Result<String> {
    let scenario = vm.kind.scenario()?;
    for time in 0..times {
        for key in ["c", "b"] {
            vm.run(step, "busy nvme0n1 vda")?;
            vm.judge_counters()?;
            vm.run(
                step,
                &format!("(usleep 300000; echo {key} >/proc/sysrq-trigger) &"),
            )?;
            vm.ready(step)?;
            vm.pardon();
            vm.counts.reboots += 1;
            vm.use_all(step, scenario)?;
        }
        step.update(&format!("{} of {times}", time + 1));
    }
    Ok(format!("{times} panics, {times} reboots"))
}

/// Device, its property with what it is of, and its name in the guest.
const HOT: [(&str, &str, &str); PORTS] = [
    ("virtio-blk-pci", "drive", "vdc"),
    ("nvme", "drive", "nvme1n1"),
    ("e1000e", "netdev", "eth1"),
];

fn plugs(step: &mut Step, vm: &mut Vm<'_>, times: u64, random: &mut Random) -> Result<String> {
    for time in 0..times {
        let ports = random.order(PORTS);
        for kind in random.order(PORTS) {
            let (driver, property, _) = HOT[kind];
            let mut device = json!({
                "driver": driver, "id": format!("plugged{kind}"), "bus": format!("port{}", ports[kind]),
            });
            device[property] = if property == "drive" {
                format!("hot{kind}").into()
            } else {
                "user1".into()
            };
            match driver {
                "virtio-blk-pci" => {
                    device["iommu_platform"] = true.into();
                    device["disable-legacy"] = "on".into();
                }
                "nvme" => device["serial"] = "plugged".into(),
                _ => {}
            }
            vm.execute("device_add", device)?;
        }
        for kind in random.order(PORTS) {
            let (_, property, name) = HOT[kind];
            let (said, wanted) = if property == "drive" {
                (
                    vm.run(step, &format!("sum {name} 16k"))?,
                    vm.files.hot_sum.clone(),
                )
            } else {
                (vm.run(step, &format!("lease {name}"))?, "1".to_owned())
            };
            if said != wanted {
                return fail(format!("{name}: {said}, not {wanted}"));
            }
        }
        for kind in random.order(PORTS) {
            let (id, (_, property, name)) = (format!("plugged{kind}"), HOT[kind]);
            vm.execute("device_del", json!({ "id": id }))?;
            let node = if property == "drive" {
                "/dev/"
            } else {
                "/sys/class/net/"
            };
            vm.run(step, &format!("await not {node}{name}"))?;
            vm.until(step, &format!("{id} gone"), |vm| vm.lacks(&id))?;
            vm.counts.plugs += 1;
        }
        vm.judge_counters()?;
        vm.judge_hwpts()?;
        step.update(&format!("{} of {times}", time + 1));
    }
    Ok(format!("{} devices", times * PORTS as u64))
}

/// MiB that are plugged in, and of which so many are used for certain.
const MORE: u64 = 256;
const USED: u64 = 128;

fn memory(step: &mut Step, vm: &mut Vm<'_>, times: u64) -> Result<String> {
    let kib = |vm: &mut Vm<'_>, step: &mut Step| -> Result<u64> {
        let said = vm.run(step, "awk '/MemTotal/ { print $2 }' /proc/meminfo")?;
        Ok(said.parse().unwrap_or(0))
    };
    let mut kept = 0;
    let mut pages = 0;
    for time in 0..times {
        let (memory, dimm) = (format!("more{time}"), format!("dimm{time}"));
        let before = kib(vm, step)?;
        vm.run(step, "busy nvme0n1")?;
        let object = json!({ "qom-type": "memory-backend-ram", "id": memory, "size": MORE << 20 });
        vm.execute("object-add", object)?;
        let device = json!({ "driver": "pc-dimm", "id": dimm, "memdev": memory });
        vm.execute("device_add", device)?;
        let mut now = before;
        for _ in 0..100 {
            now = kib(vm, step)?;
            if now >= before + (MORE << 10) * 9 / 10 {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let said = vm.run(step, &format!("memory /dev/vda {DISK_SIZE} {USED}"))?;
        let numbers: Vec<u64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [all, high, wrong] = numbers[..] else {
            return fail(said);
        };
        if wrong > 0 || high < all / 2 {
            return fail(format!("{said}; MemTotal {before} KiB, then {now} KiB"));
        }
        pages += high;
        vm.execute("device_del", json!({ "id": dimm }))?;
        let gone = vm.until(step, &format!("{dimm} gone"), |vm| vm.lacks(&dimm));
        if gone.is_ok() {
            vm.execute("object-del", json!({ "id": memory }))?;
        } else {
            kept += 1;
        }
        vm.run(step, "kill $(jobs -p); wait; true")?;
        vm.counts.memory += 1;
        vm.judge_counters()?;
        vm.judge_hwpts()?;
        if kept > 3 {
            break;
        }
    }
    vm.counts.memory_kept += kept;
    vm.counts.high_pages += pages;
    Ok(format!(
        "{times} times {MORE} MiB, {kept} kept by the guest, {pages} of its pages read into"
    ))
}

fn modes(step: &mut Step, vm: &mut Vm<'_>, times: u64, random: &mut Random) -> Result<String> {
    let Some(legacy) = Scenario::named("legacy") else {
        return fail("there is no guest test legacy");
    };
    let scalable = vm.kind.scenario()?;
    for time in 0..times {
        for (mode, scenario) in [(LEGACY, legacy), (SCALABLE, scalable), (LEGACY, legacy)] {
            vm.judge_counters()?;
            let [kernel, initrd] = vm.files.next;
            vm.run(
                step,
                &format!("again vdb {kernel} {initrd} '{}'", words(mode)),
            )?;
            vm.ready(step)?;
            vm.counts.kexecs += 1;
            vm.use_all(step, scenario)?;
        }
        // Back to the mode of the first kernel.
        vm.reset(random)?;
        vm.ready(step)?;
        vm.use_all(step, scalable)?;
        step.update(&format!("{} of {times}", time + 1));
    }
    Ok(format!("{} kernels by kexec, {times} resets", times * 3))
}
