//! L0: the emulator whose unit is the lab's hardware, with L1 in it, and the ways to talk to both and to
//! L2, a guest of L1's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::agent::Agent;
use crate::boot::EMULATED;
use crate::qmp::Qmp;
use crate::ui::{Context, Error, Result, Step, fail, indent, tail};

/// Words for L1's kernel: so far may the rate of a guest's TSC be from its own, in millionths. At boot Linux estimates the rate of an
/// emulated TSC up to some thousandths wrong, KVM takes that for its guests, and the kernel corrects its own a second later. KVM
/// would then have to scale the TSC, which this processor cannot, and reckons L2's TSC as 0 for ever: each timer of L2 is as late as
/// the TSC is old (`set_tsc_khz()` and `kvm_scale_tsc()`).
const TSC: &str = "kvm.tsc_tolerance_ppm=100000";

/// L0's unit: all that a host of nested guests can use. As of hardware, there is no caching mode.
pub const HARDWARE: &str =
    "nested-vtd,nest=on,caching-mode=off,slads=on,pasid-bits=8,eim=on,x-oracle=on";

/// Devices of L1, by address: one for the conformance program alone; a disk and a network card for L2;
/// and two that do what they are told, also with PASIDs, one of them for L2.
pub const EDU: &str = "00:05.0";
pub const DISK: &str = "00:06.0";
pub const NET: &str = "00:07.0";
pub const THIRD: &str = "00:08.0";
pub const OTHER: &str = "00:09.0";

/// The same devices in L2.
pub const DISK_IN_L2: &str = "01:00.0";
pub const NET_IN_L2: &str = "02:00.0";
pub const THIRD_IN_L2: &str = "03:00.0";

/// A device that L2 gets: its id in L2's emulator, and where L1 and L2 have it.
pub struct Assigned {
    pub id: &'static str,
    pub in_l1: &'static str,
    pub in_l2: &'static str,
}

/// Each behind a root port of its own, as there is no hot-plug elsewhere. Firmware numbers the buses in this order.
pub const ASSIGNED: [Assigned; 3] = [
    Assigned {
        id: "disk",
        in_l1: DISK,
        in_l2: DISK_IN_L2,
    },
    Assigned {
        id: "net",
        in_l1: NET,
        in_l2: NET_IN_L2,
    },
    Assigned {
        id: "third",
        in_l1: THIRD,
        in_l2: THIRD_IN_L2,
    },
];

impl Assigned {
    /// Properties of the device, as `device_add` takes them.
    fn properties(&self) -> Value {
        json!({ "driver": "vfio-pci", "id": self.id, "host": format!("0000:{}", self.in_l1),
            "iommufd": "iommufd0", "bus": format!("{}-port", self.id), "rombar": 0 })
    }
}

const UNIT: &str = "/machine/peripheral/vtd0";

/// For a guest to come up.
const BOOT: Duration = Duration::from_secs(90);

/// For a guest to let go of a device.
const UNPLUG: Duration = Duration::from_secs(60);

/// What is booted: an emulator, firmware and L1's kernel, and a directory with its `initrd`, the
/// `payload` of its first disk, and the `disk` that L2 gets.
pub struct Files {
    pub qemu: PathBuf,
    pub firmware: PathBuf,
    pub kernel: PathBuf,
    pub dir: PathBuf,
}

/// How L0 is started.
pub struct How<'a> {
    /// The unit, its type and properties.
    pub unit: &'a str,
    /// More options of the emulator.
    pub options: &'a str,
    /// More words for L1's kernel.
    pub append: &'a str,
}

impl How<'_> {
    /// What all that is about L2 runs on.
    pub const NESTING: Self = Self {
        unit: HARDWARE,
        options: "",
        append: "",
    };
}

/// A unit's counters.
pub struct Counters(Map<String, Value>);

impl Counters {
    /// Of the emulator with this monitor.
    pub fn read(monitor: &mut Qmp) -> Result<Self> {
        match monitor.get(UNIT, "stats")? {
            Value::Object(counters) => Ok(Self(counters)),
            _ => fail("the unit's counters have an unexpected type"),
        }
    }

    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Descriptors of this type.
    pub fn descriptors(&self, kind: usize) -> u64 {
        self.0["descriptors-by-type"][kind].as_u64().unwrap_or(0)
    }

    pub fn since(&self, earlier: &Self, name: &str) -> u64 {
        self.get(name).wrapping_sub(earlier.get(name))
    }
}

pub struct Machine {
    child: Child,
    pub l0: Qmp,
    pub l1: Agent,
    pub l2: Agent,
    /// Of L2's emulator, whichever is running.
    pub monitor: Qmp,
    /// DMA requests that are to be refused so far.
    pub refused: u64,
    /// Why L2's own iommufd cannot use its devices, if so.
    pub no_iommufd_in_l2: Option<&'static str>,
}

impl Machine {
    /// Starts L0, and waits for L1.
    pub fn start(step: &mut Step, files: &Files, how: &How<'_>) -> Result<Self> {
        let dir = &files.dir;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&files.qemu);
        command.arg("-L").arg(&files.firmware);
        command.arg("-kernel").arg(&files.kernel);
        let mut words = |text: &str| {
            command.args(text.split_whitespace());
        };
        words(
            "-nodefaults -display none -no-reboot -qmp stdio -serial file:console -initrd initrd",
        );
        // The processor's help for guests is AMD's: that is what the emulator can emulate.
        words("-machine q35 -accel tcg,thread=multi -cpu EPYC -smp 2 -m 4096");
        words(how.options);
        words(&format!("-device {},id=vtd0", how.unit));
        words("-drive if=none,id=payload,format=raw,file=payload,read-only=on");
        words("-device virtio-blk-pci,addr=2,drive=payload,iommu_platform=on,disable-legacy=on");
        words("-device virtio-serial-pci,addr=3,iommu_platform=on,disable-legacy=on");
        for port in ["agent", "l2-agent", "l2-monitor"] {
            words(&format!(
                "-chardev socket,id={port},path={port},server=on,wait=off \
                 -device virtserialport,chardev={port},name={port}"
            ));
        }
        words("-device edu,addr=5,dma_mask=0xffffffff");
        words(
            "-drive if=none,id=disk,format=raw,file=disk -device nvme,addr=6,serial=lab,drive=disk",
        );
        words("-netdev user,id=user -device igb,addr=7,netdev=user,romfile=");
        words("-device pasid-testdev,addr=8 -device pasid-testdev,addr=9");
        command.arg("-append").arg(format!(
            "console=ttyS0 panic=-1 {EMULATED} {TSC} intel_iommu=on,sm_on rdinit=/lab {}",
            how.append
        ));
        for port in ["agent", "l2-agent", "l2-monitor"] {
            crate::cache::remove(&dir.join(port))?;
        }
        let log = dir.join("qemu.log");
        let errors = fs::File::create(&log).context(log.display())?;
        let mut child = command
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("cannot start setpriv (package util-linux)")?;
        match Self::connect(step, &mut child, dir) {
            Ok((l0, l1, l2, monitor)) => Ok(Self {
                child,
                l0,
                l1,
                l2,
                monitor,
                refused: 0,
                no_iommufd_in_l2: None,
            }),
            Err(e) => {
                child.kill().ok();
                child.wait().ok();
                Err(explain(&e, dir))
            }
        }
    }

    fn connect(step: &mut Step, child: &mut Child, dir: &Path) -> Result<(Qmp, Agent, Agent, Qmp)> {
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return fail("QEMU has no stdin or stdout");
        };
        let mut l0 = Qmp::new(stdin, stdout);
        l0.begin()?;
        let mut l1 = Agent::connect("L1", &dir.join("agent"))?;
        let l2 = Agent::connect("L2", &dir.join("l2-agent"))?;
        let path = dir.join("l2-monitor");
        let socket = std::os::unix::net::UnixStream::connect(&path).context(path.display())?;
        let monitor = Qmp::new(socket.try_clone().context(path.display())?, socket);
        l1.ready(step, BOOT)?;
        Ok((l0, l1, l2, monitor))
    }

    /// The counters of L0's unit, and of L2's.
    pub fn counters(&mut self) -> Result<Counters> {
        Counters::read(&mut self.l0)
    }

    pub fn counters_of_l2(&mut self) -> Result<Counters> {
        Counters::read(&mut self.monitor)
    }

    /// Starts L2 with these properties of its unit; it stays before its first instruction.
    pub fn start_l2(&mut self, step: &mut Step, unit: &str) -> Result<()> {
        let give = format!("give {DISK} {NET} {THIRD}");
        self.l1.run(step, &give)?;
        self.l2.forget()?;
        let mut options = "-S".to_owned();
        for device in &ASSIGNED {
            options += &format!(" -device '{}'", device.properties());
        }
        self.start_emulator(step, unit, &options)
    }

    /// Starts an emulator that has none of L1's devices and waits for a saved L2.
    pub fn start_waiting(&mut self, step: &mut Step, unit: &str) -> Result<()> {
        self.start_emulator(step, unit, "-incoming defer")
    }

    fn start_emulator(&mut self, step: &mut Step, unit: &str, options: &str) -> Result<()> {
        let mut ports = String::new();
        for (n, device) in ASSIGNED.iter().enumerate() {
            let (slot, chassis) = (n + 5, n + 1);
            ports += &format!(
                "-device pcie-root-port,id={}-port,addr={slot},chassis={chassis} ",
                device.id
            );
        }
        let command = format!(
            "l2 host=iommufd,{unit} 'iommu.strict=1 hugepages=2' {ports} {options} & l2=$!"
        );
        self.l1.run(step, &command)?;
        self.monitor.begin()
    }

    /// Plugs one of L1's devices into L2.
    pub fn plug(&mut self, device: &Assigned) -> Result<()> {
        self.monitor
            .execute("device_add", device.properties())
            .map(drop)
    }

    /// Takes it out, and waits until L2 has let go of it.
    pub fn unplug(&mut self, step: &mut Step, device: &Assigned) -> Result<()> {
        self.monitor
            .execute("device_del", json!({ "id": device.id }))?;
        let (named, what) = (
            format!("id \"{}\"", device.id),
            format!("{} unplugged", device.id),
        );
        self.until(step, &what, UNPLUG, |machine, _| {
            Ok(!machine.monitor.human("info pci")?.contains(&named))
        })
    }

    /// Lets L2 run, and waits for it.
    pub fn boot_l2(&mut self, step: &mut Step) -> Result<()> {
        self.monitor.execute("cont", json!({}))?;
        self.wait_for_l2(step)
    }

    pub fn wait_for_l2(&mut self, step: &mut Step) -> Result<()> {
        self.l2.ready(step, BOOT)
    }

    /// Ends L2's emulator.
    pub fn stop_l2(&mut self, step: &mut Step) -> Result<()> {
        self.monitor.execute("quit", json!({})).ok();
        let wait = "for n in $(seq 100); do kill -0 $l2 2>/dev/null || break; usleep 100000; done; \
                    kill -9 $l2 2>/dev/null; wait $l2; true";
        self.l1.run(step, wait).map(drop)
    }

    /// The error with what L2's emulator and console have said: a complaint, or else their last words.
    pub fn explain_l2(&mut self, step: &mut Step, e: &Error) -> Error {
        let said = self.l1.run(
            step,
            "grep -A 1 'KVM internal error' /tmp/emulator; tail -n 5 /tmp/emulator; \
             grep -m 1 -B 4 -A 30 -e 'BUG: ' -e 'Oops: ' -e 'Kernel panic' -e 'WARNING: ' -e 'rcu: INFO' /tmp/l2 || \
             tail -n 12 /tmp/l2; true",
        );
        Error::new(format!(
            "{e}\nL2 and its emulator:\n{}",
            indent(&said.unwrap_or_else(|e| e.to_string()))
        ))
    }

    /// The emulator's process, for looking at what memory it takes.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `done` says so.
    pub fn until(
        &mut self,
        step: &mut Step,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Self, &mut Step) -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !done(self, step)? {
            if start.elapsed() > limit {
                return fail(format!("{what} has not come true in {} s", limit.as_secs()));
            }
            step.update(what);
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn explain(e: &Error, dir: &Path) -> Error {
    Error::new(format!(
        "{e}\nL1's console:\n{}\nits emulator:\n{}",
        indent(&tail(&dir.join("console"), 0, 12)),
        indent(&tail(&dir.join("qemu.log"), 0, 5))
    ))
}
