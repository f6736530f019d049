//! The registers, as Linux's `iommu_regset` lists them.

use super::{Lines, NAME};
use crate::unit::Unit;

/// Name, offset and bytes of each register, in Linux's order. Those that the unit
/// does not have read as 0, as they do for the guest.
const REGISTERS: &[(&str, u64, u32)] = &[
    ("VER", 0x00, 4),
    ("GCMD", 0x18, 4),
    ("GSTS", 0x1c, 4),
    ("FSTS", 0x34, 4),
    ("FECTL", 0x38, 4),
    ("FEDATA", 0x3c, 4),
    ("FEADDR", 0x40, 4),
    ("FEUADDR", 0x44, 4),
    ("PMEN", 0x64, 4),
    ("PLMBASE", 0x68, 4),
    ("PLMLIMIT", 0x6c, 4),
    ("ICS", 0x9c, 4),
    ("PRS", 0xdc, 4),
    ("PECTL", 0xe0, 4),
    ("PEDATA", 0xe4, 4),
    ("PEADDR", 0xe8, 4),
    ("PEUADDR", 0xec, 4),
    ("CAP", 0x08, 8),
    ("ECAP", 0x10, 8),
    ("RTADDR", 0x20, 8),
    ("PHMBASE", 0x70, 8),
    ("PHMLIMIT", 0x78, 8),
    ("IQH", 0x80, 8),
    ("IQT", 0x88, 8),
    ("IQA", 0x90, 8),
    ("IRTA", 0xb8, 8),
    ("PQH", 0xc0, 8),
    ("PQT", 0xc8, 8),
    ("PQA", 0xd0, 8),
    ("MTRRCAP", 0x100, 8),
    ("MTRRDEF", 0x108, 8),
    ("MTRR_FIX64K_00000", 0x120, 8),
    ("MTRR_FIX16K_80000", 0x128, 8),
    ("MTRR_FIX16K_A0000", 0x130, 8),
    ("MTRR_FIX4K_C0000", 0x138, 8),
    ("MTRR_FIX4K_C8000", 0x140, 8),
    ("MTRR_FIX4K_D0000", 0x148, 8),
    ("MTRR_FIX4K_D8000", 0x150, 8),
    ("MTRR_FIX4K_E0000", 0x158, 8),
    ("MTRR_FIX4K_E8000", 0x160, 8),
    ("MTRR_FIX4K_F0000", 0x168, 8),
    ("MTRR_FIX4K_F8000", 0x170, 8),
];

/// MTRR_PHYSBASE0; the ten pairs of base and mask follow each other.
const MTRR_PHYSICAL: u64 = 0x180;
const MTRR_PHYSICAL_PAIRS: u64 = 10;

impl Unit {
    pub(super) fn dump_registers(&self, base: u64, lines: &mut Lines) {
        lines.push(format!("IOMMU: {NAME} Register Base Address: {base:x}"));
        lines.push("Name\t\t\tOffset\t\tContents");
        let state = self.state.lock();
        let mut register = |name: &str, offset, size| {
            let value = self.peek_window(&state, offset, size);
            lines.push(format!("{name:<16}\t{offset:#04x}\t\t{value:#018x}"));
        };
        for &(name, offset, size) in REGISTERS {
            register(name, offset, size);
        }
        for index in 0..MTRR_PHYSICAL_PAIRS {
            let offset = MTRR_PHYSICAL.wrapping_add(index.wrapping_mul(16));
            register(&format!("MTRR_PHYSBASE{index}"), offset, 8);
            register(&format!("MTRR_PHYSMASK{index}"), offset.wrapping_add(8), 8);
        }
        drop(state);
        lines.push("");
    }
}
