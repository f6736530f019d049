//! What L2 is to show: that a guest's DMA is right through our unit, the kernel's iommufd below it, and
//! our unit again as that kernel's hardware.

use std::time::Duration;

use serde_json::json;

use super::host::all_ok;
use super::host::{NESTED, SECOND_STAGE, pgtt};
use super::machine::{ASSIGNED, Assigned, Counters, DISK_IN_L2, Machine, NET_IN_L2, THIRD_IN_L2};
use super::report::{Report, Seen};
use super::restore;
use crate::ui::{Result, Step, fail};

/// Of the disk L2 reads this, which L0 has filled, and writes what follows.
pub const READ: usize = 64 << 20;
pub const WRITTEN: usize = 16 << 20;

/// So is it in Linux 6.12, whose iommufd does not make first-stage tables.
const SECOND_STAGE_ONLY: &str =
    "L2's iommufd makes second-stage tables only, which L2's unit does not have";

/// The pattern that L2 writes.
const SEED: u64 = 0x6c61_622d_3277;

const LONG: Duration = Duration::from_secs(120);

/// L2 as it was told to be: properties of its unit beside the host, and the sum of the data to read.
pub struct Guest<'a> {
    pub unit: &'a str,
    pub sum: &'a str,
}

impl Guest<'_> {
    /// From its start to where it has used its devices.
    pub fn first_steps(&self, report: &mut Report, machine: &mut Machine) -> Result<()> {
        step_of(
            report,
            machine,
            "l1.second-stage-before",
            |machine, step| {
                machine.start_l2(step, self.unit)?;
                attached(machine, step, SECOND_STAGE)?;
                Ok(Seen::new(
                    "L2 has not begun: its three devices are on the parent, PGTT 2",
                ))
            },
        )?;
        step_of(report, machine, "l2.boot", |machine, step| {
            machine.boot_l2(step)?;
            domains(machine, step)
        })?;
        step_of(
            report,
            machine,
            "l1.nested-while-l2-runs",
            |machine, step| {
                attached(machine, step, NESTED)?;
                Ok(Seen::new(
                    "L2's three devices are on its first-stage tables, PGTT 3",
                ))
            },
        )?;
        step_of(report, machine, "l2.read", |machine, step| {
            let before = Levels::read(machine)?;
            let seconds = self.read(machine, step)?;
            let used = Levels::read(machine)?.since(&before);
            Ok(Seen::new(format!(
                "{} MiB of nvme by O_DIRECT at random offsets in {seconds}, iommu.strict=1: checksum right\n{}",
                READ >> 20,
                used.text()
            ))
            .with("levels", used.json()))
        })?;
        step_of(report, machine, "l2.write", |machine, step| {
            let write = format!("disk write /dev/nvme0n1 {READ} {WRITTEN} {SEED}");
            machine.l2.run_for(step, &write, LONG)?;
            written(machine, step)?;
            Ok(Seen::new(format!(
                "{} MiB written and read back, at random offsets",
                WRITTEN >> 20
            )))
        })?;
        step_of(report, machine, "l2.network", |machine, step| {
            Ok(Seen::new(network(machine, step)?))
        })?;
        step_of(report, machine, "l2.third-device", |machine, step| {
            third_device(machine, step)
        })
    }

    /// What makes domains and devices come and go.
    pub fn later_steps(&self, report: &mut Report, machine: &mut Machine) -> Result<()> {
        step_of(report, machine, "l2.rebind", |machine, step| {
            rebind(machine, step)
        })?;
        step_of(report, machine, "l2.unplug", |machine, step| {
            self.unplug(machine, step)
        })?;
        restore::steps(report, machine, self.unit)?;
        step_of(report, machine, "l2.reboot", |machine, step| {
            machine.l2.run(step, "reboot -f &")?;
            machine.wait_for_l2(step)?;
            attached(machine, step, NESTED)?;
            written(machine, step)?;
            Ok(Seen::new(format!(
                "PGTT 3 again; the {} MiB that were written are there",
                WRITTEN >> 20
            )))
        })
    }

    /// Reads what L0 has filled; how long that took.
    pub fn read(&self, machine: &mut Machine, step: &mut Step) -> Result<String> {
        let command = format!("time disk read /dev/nvme0n1 0 {READ} $RANDOM | sha256sum");
        let said = machine.l2.run_for(step, &command, LONG)?;
        if !said.contains(self.sum) {
            return fail(format!("the checksum is to be {}:\n{said}", self.sum));
        }
        let mut words = said.split_whitespace().skip_while(|word| *word != "real");
        Ok(words.nth(2).unwrap_or("no time").to_owned())
    }

    fn unplug(&self, machine: &mut Machine, step: &mut Step) -> Result<Seen> {
        let reading =
            "{ disk read /dev/nvme0n1 0 67108864 $RANDOM | sha256sum >/tmp/meanwhile; } &";
        machine.l2.run(step, reading)?;
        let [_, card, _] = &ASSIGNED;
        machine.unplug(step, card)?;
        let left = machine.l2.run(step, "ls /sys/bus/pci/devices")?;
        machine.l2.run_for(step, "wait", LONG)?;
        let meanwhile = machine.l2.run(step, "cat /tmp/meanwhile")?;
        if left.contains(card.in_l2) || !meanwhile.contains(self.sum) {
            return fail(format!("devices: {left}\nread meanwhile: {meanwhile}"));
        }
        // L1's own driver gets it back, so that L1 itself can use it, and L2 again after that.
        machine.plug(card)?;
        machine.until(step, "plugged in", LONG, |machine, step| {
            Ok(machine.l2.run(step, "ls /sys/class/net")?.contains("eth"))
        })?;
        let seen = network(machine, step)?;
        Ok(Seen::new(format!(
            "network card unplugged while {} MiB were read, right; plugged in again: {seen}",
            READ >> 20
        )))
    }
}

/// A step that L2 takes part in: when it fails, what L2 has said is told, too.
pub fn step_of(
    report: &mut Report,
    machine: &mut Machine,
    name: &str,
    take: impl FnOnce(&mut Machine, &mut Step) -> Result<Seen>,
) -> Result<()> {
    report.step(name, |step| {
        take(machine, step).map_err(|e| machine.explain_l2(step, &e))
    })
}

/// L2's devices have this PGTT in L1's tables.
pub fn attached(machine: &mut Machine, step: &mut Step, wanted: u64) -> Result<()> {
    for device in &ASSIGNED {
        let found = pgtt(machine, step, device.in_l1)?;
        if found != wanted {
            return fail(format!("{}: PGTT is {found}, not {wanted}", device.in_l1));
        }
    }
    Ok(())
}

fn domains(machine: &mut Machine, step: &mut Step) -> Result<Seen> {
    let release = machine.l2.run(step, "uname -r")?;
    for Assigned { in_l2: device, .. } in &ASSIGNED {
        let file = format!("cat /sys/bus/pci/devices/0000:{device}/iommu_group/type");
        let kind = machine.l2.run(step, &file)?;
        if kind != "DMA" {
            return fail(format!(
                "{device} is to have a strict domain, DMA, not {kind}"
            ));
        }
    }
    Ok(Seen::new(format!(
        "Linux {release}, scalable mode; the devices' domains are strict"
    )))
}

pub fn written(machine: &mut Machine, step: &mut Step) -> Result<()> {
    let read = format!("disk read /dev/nvme0n1 {READ} {WRITTEN} $RANDOM | sha256sum");
    let pattern = format!("disk pattern {WRITTEN} {SEED} | sha256sum");
    let found = machine.l2.run_for(step, &read, LONG)?;
    let wanted = machine.l2.run_for(step, &pattern, LONG)?;
    if found != wanted {
        return fail(format!(
            "what was written is {wanted}, what was read {found}"
        ));
    }
    Ok(())
}

/// L2 as a host of its third device.
pub fn third_device(machine: &mut Machine, step: &mut Step) -> Result<Seen> {
    let command = format!("give {THIRD_IN_L2} && nesting 0000:{THIRD_IN_L2} $(vfio {THIRD_IN_L2})");
    let (_, said) = machine.l2.try_for(step, &command, LONG)?;
    if said.ends_with("error attach: Invalid argument") {
        machine.no_iommufd_in_l2 = Some(SECOND_STAGE_ONLY);
        return Ok(Seen::skipped(SECOND_STAGE_ONLY));
    }
    all_ok(&said, &["dma plain"])?;
    Ok(Seen::new(
        "vfio-pci and iommufd in L2: a page copied through a domain of L2's own",
    ))
}

/// An address by DHCP, and packets of any size there and back.
pub fn network(machine: &mut Machine, step: &mut Step) -> Result<String> {
    let lease = "card=$(ls /sys/class/net | grep eth); ip link set $card up && \
                 udhcpc -f -q -n -i $card -t 30 -T 1 -s /address";
    machine.l2.run_for(step, lease, LONG)?;
    let address = "ip -4 -o addr show dev $card | awk '{ print $4 }'";
    let address = machine.l2.run(step, address)?;
    let ping = "ping -c 40 -i 0.02 -s 1400 10.0.2.2";
    let said = machine.l2.run_for(step, ping, LONG)?;
    // After the last it waits for one more second only, on a busy machine or not.
    let answered = |n: &u32| said.contains(&format!(" seq={n} "));
    let lost: Vec<_> = (0..40).filter(|n| !answered(n)).collect();
    if !lost.is_empty() {
        return fail(format!("no answer to pings {lost:?} of 0 to 39:\n{said}"));
    }
    Ok(format!("igb has {address}; 40 of 40 pings of 1400 bytes"))
}

/// The drivers let go of their devices and take them again.
fn rebind(machine: &mut Machine, step: &mut Step) -> Result<Seen> {
    const TIMES: u32 = 3;
    let drivers = [("nvme", DISK_IN_L2), ("igb", NET_IN_L2)];
    for n in 0..TIMES {
        for (driver, device) in drivers {
            let dir = format!("/sys/bus/pci/drivers/{driver}");
            let command =
                format!("echo 0000:{device} >{dir}/unbind && echo 0000:{device} >{dir}/bind");
            machine.l2.run_for(step, &command, LONG)?;
        }
        let appear = "until [ -e /dev/nvme0n1 ]; do usleep 50000; done";
        machine.l2.run_for(step, appear, LONG)?;
        written(machine, step)?;
        step.update(&format!("{} of {TIMES}", n + 1));
    }
    let seen = network(machine, step)?;
    Ok(Seen::new(format!(
        "nvme and igb unbound and bound {TIMES} times, {} MiB right each time; {seen}",
        WRITTEN >> 20
    )))
}

/// What the units of L2 and L0 were asked to do.
struct Levels {
    l2: Counters,
    l0: Counters,
}

/// What became of L2's invalidations on the way down.
struct Used {
    /// Descriptors of L2, without waits, that were about its first-stage tables.
    l2_descriptors: u64,
    calls: u64,
    entries: u64,
    /// Descriptors of L1.
    l1_descriptors: u64,
    nested_walks: u64,
    translations: u64,
}

/// Descriptor types (VT-d 6.5.2).
const WAIT: usize = 5;
const PASID_IOTLB: usize = 6;

impl Levels {
    fn read(machine: &mut Machine) -> Result<Self> {
        Ok(Self {
            l2: machine.counters_of_l2()?,
            l0: machine.counters()?,
        })
    }

    fn since(&self, before: &Self) -> Used {
        let l0 = |name| self.l0.since(&before.l0, name);
        let l2 = |name| self.l2.since(&before.l2, name);
        let of = |now: &Counters, before: &Counters, kind| {
            now.descriptors(kind) - before.descriptors(kind)
        };
        Used {
            l2_descriptors: of(&self.l2, &before.l2, PASID_IOTLB),
            calls: l2("invalidate-calls"),
            entries: l2("invalidate-entries"),
            l1_descriptors: l0("descriptors") - of(&self.l0, &before.l0, WAIT),
            nested_walks: l0("nested-walks"),
            translations: l0("translations"),
        }
    }
}

impl Used {
    fn text(&self) -> String {
        format!(
            "L2: {} PASID-based IOTLB descriptors -> its unit: {} HWPT_INVALIDATE calls with {} entries -> \
             L1: {} descriptors to L0\nL0: {} translations, {} nested walks",
            self.l2_descriptors,
            self.calls,
            self.entries,
            self.l1_descriptors,
            self.translations,
            self.nested_walks
        )
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "l2-piotlb-descriptors": self.l2_descriptors,
            "l2-invalidate-calls": self.calls,
            "l2-invalidate-entries": self.entries,
            "l1-descriptors": self.l1_descriptors,
            "l0-translations": self.translations,
            "l0-nested-walks": self.nested_walks,
        })
    }
}
