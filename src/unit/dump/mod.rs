//! Text about the unit's state, for people. Where Linux's driver has a debugfs
//! file for the same thing (`/sys/kernel/debug/iommu/intel/`) the lines are laid
//! out as there, so that what the guest sees and what the unit sees can be diffed.
//!
//! Dumps only look: no accessed or dirty bit is set, no fault recorded, nothing
//! counted. The lines are collected first and handed out with no lock held.

mod entries;
mod interrupts;
mod mappings;
mod queue;
mod registers;
mod tables;
mod walk;

use core::ops::RangeInclusive;

use super::Unit;
use crate::Result;

/// Most lines of one dump, the one that says it was cut excepted.
const MAX_LINES: usize = 1 << 14;

/// Most table entries read for one dump.
const MAX_ENTRIES: u64 = 1 << 22;

/// Linux's name of the first unit of a machine.
const NAME: &str = "dmar0";

/// What to dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dump {
    /// The registers that Linux's `iommu_regset` has.
    Registers {
        /// Guest-physical address of the register window.
        base: u64,
    },
    /// The invalidation queue, as `invalidation_queue`.
    Queue,
    /// Root, context and PASID entries, as `dmar_translation_struct`.
    Tables {
        /// Those of one device only.
        device: Option<u32>,
    },
    /// Each entry that a request of a device would read, and what would come of it.
    Walk {
        /// The device.
        device: u32,
        /// PASID of the request, if it has one.
        pasid: Option<u32>,
        /// Its address.
        address: u64,
    },
    /// What a device's tables map, as `domain_translation_struct`.
    Mappings {
        /// The device.
        device: u32,
        /// PASID of the requests, if they have one.
        pasid: Option<u32>,
        /// Which addresses.
        range: RangeInclusive<u64>,
    },
    /// The interrupt remapping table, as `ir_translation_struct`.
    Interrupts,
}

impl Unit {
    /// Give the dump to `line`, line by line, without line ends. A dump of too many
    /// lines or table entries is cut, and its last line says so.
    ///
    /// # Errors
    /// `ENOENT`: there is no such device.
    pub fn dump(&self, what: Dump, line: &mut dyn FnMut(&str)) -> Result<()> {
        let mut lines = Lines::default();
        match what {
            Dump::Registers { base } => self.dump_registers(base, &mut lines),
            Dump::Queue => self.dump_queue(&mut lines),
            Dump::Tables { device } => self.dump_tables(device, &mut lines)?,
            Dump::Walk {
                device,
                pasid,
                address,
            } => self.dump_walk(device, pasid, address, &mut lines)?,
            Dump::Mappings {
                device,
                pasid,
                range,
            } => self.dump_mappings(device, pasid, range, &mut lines)?,
            Dump::Interrupts => self.dump_interrupts(&mut lines),
        }
        lines.text.iter().for_each(|text| line(text));
        Ok(())
    }
}

/// Bus, device and function of a requester ID.
fn device_name(source_id: u16) -> String {
    let [bus, devfn] = source_id.to_be_bytes();
    format!("{bus:02x}:{:02x}.{:x}", devfn >> 3, devfn & 7)
}

/// Lines of a dump, and what may still be done for it.
#[derive(Debug)]
struct Lines {
    text: Vec<String>,
    cut: bool,
    entries: u64,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            text: Vec::new(),
            cut: false,
            entries: MAX_ENTRIES,
        }
    }
}

impl Lines {
    /// Add a line, unless the dump was cut.
    fn push(&mut self, line: impl Into<String>) {
        if self.text.len() >= MAX_LINES {
            self.cut(&format!("{MAX_LINES} lines"));
        }
        if !self.cut {
            self.text.push(line.into());
        }
    }

    /// Nothing more is to be added.
    fn is_cut(&self) -> bool {
        self.cut
    }

    /// One more table entry is read. False if the dump is cut.
    fn spend_entry(&mut self) -> bool {
        match self.entries.checked_sub(1) {
            Some(left) => self.entries = left,
            None => self.cut_entries(),
        }
        !self.cut
    }

    /// No more table entries may be read.
    fn cut_entries(&mut self) {
        self.cut(&format!("{MAX_ENTRIES} table entries"));
    }

    fn cut(&mut self, after: &str) {
        if !self.cut {
            self.text.push(format!("... cut after {after}"));
            self.cut = true;
        }
    }
}
