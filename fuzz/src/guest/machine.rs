//! The unit under test with its RAM, its devices, and the twin below it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nested_vtd::host::ioctl::{Fd, System};
use nested_vtd::host::soft::{Twin, TwinDevice};
use nested_vtd::memory::{HostRam, OwnedRam};
use nested_vtd::unit::{Config, DeviceDescription, HostKind, Notify, Unit};

use super::vmm::Watcher;
use super::world::{LOW_PAGES, READ_ONLY, READ_ONLY_PAGES, SLOTS, SOURCE_IDS};
use crate::reference::{Capabilities, Memory, Region};

/// Pages of a region that can be put anywhere.
const EXTRA_PAGES: u64 = 8;
/// Pages of a region around the interrupt window: two before and two behind it.
const WINDOW_PAGES: u64 = 260;
const WINDOW: u64 = 0xfedf_e000;

/// Memory of this process, kept from one input to the next, as making it takes long.
struct Backing {
    low: OwnedRam,
    read_only: OwnedRam,
    extra: OwnedRam,
    window: OwnedRam,
    /// The window was used by the last input.
    used: bool,
}

/// Plain numbers, which are copied and compared much faster where each comparison is counted.
fn words(cells: &OwnedRam) -> &[u64] {
    // SAFETY: an atomic has the layout of its number; and this is the only thread, which does not
    // call the unit while it has the slice.
    unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
}

fn clear(cells: &OwnedRam) {
    // SAFETY: as above, and the cells are atomic, so they may be written through this pointer.
    unsafe { cells.as_ptr().cast_mut().write_bytes(0, cells.len()) };
}

thread_local! {
    static BACKING: RefCell<Option<Backing>> = const { RefCell::new(None) };
}

/// Pieces of RAM that can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Low,
    ReadOnly,
    /// Anywhere, with any size.
    Extra {
        gpa: u64,
        size: u64,
        read_only: bool,
    },
    Window,
}

/// RAM as it is registered.
pub struct Ram {
    pub piece: Piece,
    pub gpa: u64,
    pub size: u64,
    pub read_only: bool,
    cells: OwnedRam,
}

impl Ram {
    fn holds(&self, gpa: u64) -> bool {
        gpa.checked_sub(self.gpa)
            .is_some_and(|offset| offset < self.size)
    }

    fn cell(&self, gpa: u64) -> &AtomicU64 {
        &self.cells[((gpa - self.gpa) / 8) as usize]
    }

    /// What is in it.
    fn words(&self) -> &[u64] {
        words(&self.cells)
            .get(..(self.size / 8) as usize)
            .unwrap_or_default()
    }

    /// Bytes of the whole pages that a host maps.
    fn mapped_bytes(&self) -> u64 {
        if self.read_only {
            return 0;
        }
        let whole = |first: u64, end: u64| {
            let first = first.div_ceil(0x1000) << 12;
            (end & !0xfff).saturating_sub(first)
        };
        let (first, end) = (self.gpa, self.gpa + self.size);
        whole(first, end.min(0xfee0_0000)) + whole(first.max(0xfef0_0000), end)
    }

    /// Does a host map the page?
    fn maps(&self, gpa: u64) -> bool {
        let page = gpa & !0xfff;
        let window = (0xfee0_0000..=0xfeef_ffff).contains(&page);
        !self.read_only && !window && page >= self.gpa && {
            // Without overflow: the region ends within 64 bits.
            let last = self.gpa + (self.size - 1);
            page + 0xfff <= last
        }
    }
}

/// A device, or the place for one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    pub handle: Option<u32>,
    /// Its vfio file on the twin.
    pub file: Option<Fd>,
    pub notify: bool,
}

pub struct Machine {
    pub config: Config,
    /// None only while it is dropped.
    pub unit: Option<Arc<Unit>>,
    pub twin: Option<Arc<Twin>>,
    pub vmm: Arc<Watcher>,
    pub capabilities: Capabilities,
    pub slots: [Slot; SLOTS],
    pub ram: Vec<Ram>,
    iommufds: [Option<Fd>; 2],
    backing: Option<Backing>,
}

impl Machine {
    /// Power on. None: the unit does not want to be that.
    pub fn new(config: Config, two_iommufds: bool) -> Option<Self> {
        let vmm = Arc::new(Watcher::new());
        let twin = (config.host == HostKind::Iommufd).then(|| Arc::new(Twin::default()));
        let unit = Self::make(config, &vmm, twin.as_ref()).ok()?;
        let iommufds = twin.as_ref().map_or([None; 2], |twin| {
            [Some(twin.open()), two_iommufds.then(|| twin.open())]
        });
        let capabilities = Capabilities {
            cap: unit.mmio_read(0x08, 8).unwrap(),
            ecap: unit.mmio_read(0x10, 8).unwrap(),
            host_width: match config.address_width {
                0 => 48,
                width => width,
            },
        };
        let backing = BACKING.take().map_or_else(
            || Backing {
                low: OwnedRam::new(LOW_PAGES << 12),
                read_only: OwnedRam::new(READ_ONLY_PAGES << 12),
                extra: OwnedRam::new(EXTRA_PAGES << 12),
                window: OwnedRam::new(WINDOW_PAGES << 12),
                used: false,
            },
            |mut backing| {
                [&backing.low, &backing.read_only, &backing.extra]
                    .into_iter()
                    .for_each(clear);
                if backing.used {
                    clear(&backing.window);
                    backing.used = false;
                }
                backing
            },
        );
        Some(Self {
            config,
            unit: Some(Arc::new(unit)),
            twin,
            vmm,
            capabilities,
            slots: [Slot::default(); SLOTS],
            ram: Vec::new(),
            iommufds,
            backing: Some(backing),
        })
    }

    pub fn unit(&self) -> &Unit {
        self.unit.as_ref().expect("there is a unit until the end")
    }

    /// Does a device of this place belong to the host?
    pub fn is_assigned(&self, slot: usize) -> bool {
        self.config.host != HostKind::None && slot >= 2
    }

    pub fn source_id(&self, slot: usize) -> u16 {
        self.vmm.source_id_of(slot)
    }

    /// Add a device.
    pub fn plug(&mut self, slot: usize) -> nested_vtd::Result<()> {
        if self.slots[slot].handle.is_some() {
            return Ok(());
        }
        let assigned = self.is_assigned(slot);
        let file = self
            .twin
            .as_ref()
            .filter(|_| assigned)
            .map(|twin| twin.add_device(TwinDevice::default()).unwrap());
        // The last one is on an iommufd of the unit's own.
        let iommufd = match slot {
            _ if file.is_none() => None,
            5 => None,
            4 => self.iommufds[1].or(self.iommufds[0]),
            _ => self.iommufds[0],
        };
        let description = DeviceDescription {
            tag: slot as u64,
            source_id: SOURCE_IDS[slot],
            assigned,
            iommufd,
            file,
            dev_id: None,
            fixed_id: false,
        };
        let added = self.unit().device_add(description);
        match added {
            Ok(handle) => {
                self.slots[slot] = Slot {
                    handle: Some(handle),
                    file,
                    notify: false,
                };
                Ok(())
            }
            Err(error) => {
                self.close(file);
                Err(error)
            }
        }
    }

    /// Take a device out.
    pub fn unplug(&mut self, slot: usize) {
        let Slot { handle, file, .. } = std::mem::take(&mut self.slots[slot]);
        if let Some(handle) = handle {
            self.unit().device_remove(handle).unwrap();
            self.close(file);
        }
    }

    fn close(&self, file: Option<Fd>) {
        if let (Some(twin), Some(file)) = (&self.twin, file) {
            twin.close(file).unwrap();
        }
    }

    fn make(
        config: Config,
        vmm: &Arc<Watcher>,
        twin: Option<&Arc<Twin>>,
    ) -> nested_vtd::Result<Unit> {
        let told = Arc::clone(vmm) as Arc<dyn nested_vtd::vmm::Vmm>;
        match twin {
            Some(twin) => Unit::with_system(config, told, Arc::clone(twin) as Arc<dyn System>),
            None => Unit::new(config, told),
        }
    }

    /// Another unit, as it is after power-on, with the same RAM and devices.
    pub fn replace(&mut self) {
        let before = self.slots;
        for slot in 0..SLOTS {
            self.unplug(slot);
        }
        self.unit = None;
        self.vmm.begin_lines();
        let unit = Self::make(self.config, &self.vmm, self.twin.as_ref());
        self.unit = Some(Arc::new(unit.expect("there was such a unit")));
        for ram in &self.ram {
            // SAFETY: as in `ram_add`.
            let host =
                unsafe { HostRam::new(ram.cells.as_ptr().cast::<u8>().cast_mut(), ram.size) };
            let added = self.unit().ram_add(ram.gpa, host, ram.read_only);
            added.expect("there was such RAM");
        }
        for (slot, was) in before.into_iter().enumerate() {
            if was.handle.is_none() {
                continue;
            }
            self.plug(slot).expect("there was such a device");
            if was.notify {
                let handle = self.slots[slot].handle.expect("it was plugged in");
                let notify = Notify {
                    unit: true,
                    device_tlb: true,
                };
                self.unit().device_notify(handle, notify).unwrap();
                self.slots[slot].notify = true;
            }
        }
    }

    /// Register RAM.
    pub fn ram_add(&mut self, piece: Piece) -> nested_vtd::Result<()> {
        let backing = self
            .backing
            .as_mut()
            .expect("there is memory until the end");
        let (cells, gpa, size, read_only) = match piece {
            Piece::Low => (&backing.low, 0, LOW_PAGES << 12, false),
            Piece::ReadOnly => (&backing.read_only, READ_ONLY, READ_ONLY_PAGES << 12, true),
            Piece::Extra {
                gpa,
                size,
                read_only,
            } => (&backing.extra, gpa, size.min(EXTRA_PAGES << 12), read_only),
            Piece::Window => {
                backing.used = true;
                (&backing.window, WINDOW, WINDOW_PAGES << 12, false)
            }
        };
        let cells = cells.clone();
        let pointer = cells.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: the cells are atomic, so they may be written through this pointer; as many
        // bytes are there, and they live as long as `self.ram` or `BACKING` has them, which is
        // longer than the unit.
        let host = unsafe { HostRam::new(pointer, size) };
        self.unit().ram_add(gpa, host, read_only)?;
        self.ram.push(Ram {
            piece,
            gpa,
            size,
            read_only,
            cells,
        });
        Ok(())
    }

    /// Take RAM back.
    pub fn ram_remove(&mut self, gpa: u64, size: u64) -> nested_vtd::Result<()> {
        self.unit().ram_remove(gpa, size)?;
        self.ram.retain(|ram| (ram.gpa, ram.size) != (gpa, size));
        Ok(())
    }

    fn at(&self, gpa: u64) -> Option<&Ram> {
        self.ram.iter().find(|ram| ram.holds(gpa))
    }

    /// What is in RAM; None if there is none.
    pub fn peek(&self, gpa: u64) -> Option<u64> {
        let ram = self.at(gpa)?;
        (gpa % 8 == 0).then(|| ram.cell(gpa).load(Ordering::SeqCst))
    }

    /// The guest's processor writes. False: nothing is there, or it has this value.
    pub fn poke(&self, gpa: u64, value: u64) -> bool {
        match self.at(gpa).filter(|_| gpa % 8 == 0) {
            Some(ram) => ram.cell(gpa).swap(value, Ordering::SeqCst) != value,
            None => false,
        }
    }

    /// Is the RAM at 0 there?
    pub fn has_low_ram(&self) -> bool {
        self.ram.iter().any(|ram| ram.piece == Piece::Low)
    }

    /// Does a nesting parent have the page?
    pub fn is_mapped(&self, gpa: u64) -> bool {
        self.ram.iter().any(|ram| ram.maps(gpa))
    }

    /// Bytes that each nesting parent is to have.
    pub fn mapped_bytes(&self) -> u64 {
        self.ram.iter().map(Ram::mapped_bytes).sum()
    }

    /// Is there RAM that a host does not map?
    pub fn has_hidden_ram(&self) -> bool {
        self.ram.iter().any(|ram| {
            ram.read_only || (ram.gpa | ram.size) & 0xfff != 0 || ram.piece == Piece::Window
        })
    }

    /// RAM as the model has it.
    pub fn memory(&self) -> Memory {
        let regions = self.ram.iter().map(|ram| Region {
            base: ram.gpa,
            words: ram.words().to_vec(),
            writable: !ram.read_only,
        });
        Memory::new(regions.collect())
    }

    /// Where RAM is not what the model has: address, what is there and what should be.
    pub fn differences(&self, memory: &Memory) -> Vec<(u64, u64, u64)> {
        let mut differences = Vec::new();
        for (ram, region) in self.ram.iter().zip(&memory.regions) {
            let words = ram.words();
            if words == region.words {
                continue;
            }
            for (index, (&found, &expected)) in words.iter().zip(&region.words).enumerate() {
                if found != expected {
                    differences.push((region.base + index as u64 * 8, found, expected));
                }
            }
        }
        differences
    }

    pub fn read32(&self, offset: u64) -> u32 {
        self.unit().mmio_read(offset, 4).unwrap() as u32
    }

    pub fn read64(&self, offset: u64) -> u64 {
        self.unit().mmio_read(offset, 8).unwrap()
    }

    /// The host's objects that are left, whatever they are.
    pub fn objects(&self) -> [u64; 5] {
        self.twin.as_ref().map_or([0; 5], |twin| {
            let stats = twin.stats();
            [
                stats.ioas,
                stats.paging,
                stats.nested,
                stats.fault_queues,
                stats.mapped,
            ]
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.unit = None;
        self.ram.clear();
        BACKING.set(self.backing.take());
    }
}
