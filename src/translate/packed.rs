//! How requests are translated, as a few words that fit into atomics.

use bitfield_struct::bitfield;

use super::first_stage::FirstStage;
use super::second_stage::{Role, SecondStage};
use super::stages::{Stages, Tables};
use super::tables::Translated;
use crate::spec::PAGE_SIZE;

/// Tables are whole pages: bits of their addresses that are 0.
const FRAME_SHIFT: u32 = PAGE_SIZE.trailing_zeros();

/// The number of the page with a table, if it is one that words can hold.
fn frame(table: u64) -> Option<u64> {
    (table % PAGE_SIZE == 0).then_some(table >> FRAME_SHIFT)
}

/// What there is beside tables.
#[bitfield(u64)]
struct Head {
    fault_disable: bool,
    pass_through: bool,
    legacy: bool,
    #[bits(7)]
    width: u32,
    #[bits(54)]
    __: u64,
}

/// Tables of the first stage.
#[bitfield(u64)]
struct First {
    present: bool,
    #[bits(3)]
    levels: u32,
    #[bits(7)]
    width: u32,
    huge_pages: bool,
    write_protect: bool,
    no_execute: bool,
    supervisor_execute_prevention: bool,
    extended_accessed: bool,
    snoop: bool,
    #[bits(40)]
    frame: u64,
    #[bits(7)]
    __: u64,
}

/// Tables of the second stage.
#[bitfield(u64)]
struct Second {
    present: bool,
    #[bits(3)]
    levels: u32,
    #[bits(7)]
    width: u32,
    large_pages: bool,
    huge_pages: bool,
    snoop_control: bool,
    transient_mapping: bool,
    execute_enable: bool,
    accessed_dirty: bool,
    snoop: bool,
    legacy: bool,
    nested: bool,
    #[bits(40)]
    frame: u64,
    #[bits(4)]
    __: u64,
}

impl First {
    fn of(tables: &Tables<FirstStage>) -> Option<Self> {
        let format = &tables.format;
        let word = Self::new()
            .with_present(true)
            .with_huge_pages(format.huge_pages)
            .with_write_protect(format.write_protect)
            .with_no_execute(format.no_execute)
            .with_supervisor_execute_prevention(format.supervisor_execute_prevention)
            .with_extended_accessed(format.extended_accessed)
            .with_snoop(format.snoop);
        let word = word.with_levels_checked(format.levels).ok()?;
        let word = word.with_width_checked(format.address_width).ok()?;
        word.with_frame_checked(frame(tables.table)?).ok()
    }

    fn tables(self) -> Tables<FirstStage> {
        Tables {
            table: self.frame() << FRAME_SHIFT,
            format: FirstStage {
                levels: self.levels(),
                huge_pages: self.huge_pages(),
                address_width: self.width(),
                write_protect: self.write_protect(),
                no_execute: self.no_execute(),
                supervisor_execute_prevention: self.supervisor_execute_prevention(),
                extended_accessed: self.extended_accessed(),
                snoop: self.snoop(),
            },
        }
    }
}

impl Second {
    fn of(tables: &Tables<SecondStage>) -> Option<Self> {
        let format = &tables.format;
        let word = Self::new()
            .with_present(true)
            .with_large_pages(format.large_pages)
            .with_huge_pages(format.huge_pages)
            .with_snoop_control(format.snoop_control)
            .with_transient_mapping(format.transient_mapping)
            .with_execute_enable(format.execute_enable)
            .with_accessed_dirty(format.accessed_dirty)
            .with_snoop(format.snoop)
            .with_legacy(format.role == Role::Legacy)
            .with_nested(format.role == Role::Nested);
        let word = word.with_levels_checked(format.levels).ok()?;
        let word = word.with_width_checked(format.address_width).ok()?;
        word.with_frame_checked(frame(tables.table)?).ok()
    }

    fn tables(self) -> Tables<SecondStage> {
        Tables {
            table: self.frame() << FRAME_SHIFT,
            format: SecondStage {
                levels: self.levels(),
                address_width: self.width(),
                large_pages: self.large_pages(),
                huge_pages: self.huge_pages(),
                snoop_control: self.snoop_control(),
                transient_mapping: self.transient_mapping(),
                execute_enable: self.execute_enable(),
                accessed_dirty: self.accessed_dirty(),
                snoop: self.snoop(),
                role: match (self.legacy(), self.nested()) {
                    (true, _) => Role::Legacy,
                    (false, true) => Role::Nested,
                    (false, false) => Role::Alone,
                },
            },
        }
    }
}

/// Of a [`Translated`] what plain DMA needs once it is known to be permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The stages it goes through.
    pub stages: Stages,
    /// Its faults are not recorded.
    pub fault_disable: bool,
}

impl Path {
    /// It as words. None if they cannot hold it.
    pub fn pack(&self) -> Option<[u64; 3]> {
        let head = Head::new().with_fault_disable(self.fault_disable);
        let (head, first, second) = match &self.stages {
            Stages::PassThrough { width, legacy } => {
                let head = head.with_pass_through(true).with_legacy(*legacy);
                (head.with_width_checked(*width).ok()?, None, None)
            }
            Stages::FirstStage(first) => (head, Some(First::of(first)?), None),
            Stages::SecondStage(second) => (head, None, Some(Second::of(second)?)),
            Stages::Nested(first, second) => {
                (head, Some(First::of(first)?), Some(Second::of(second)?))
            }
        };
        Some([
            head.into_bits(),
            first.map_or(0, First::into_bits),
            second.map_or(0, Second::into_bits),
        ])
    }

    /// The reverse of [`Self::pack`]. None for words that it does not give, as 0 are.
    #[inline]
    pub fn unpack([head, first, second]: [u64; 3]) -> Option<Self> {
        let head = Head::from_bits(head);
        let (first, second) = (First::from_bits(first), Second::from_bits(second));
        let stages = match (head.pass_through(), first.present(), second.present()) {
            (false, true, false) => Stages::FirstStage(first.tables()),
            (false, false, true) => Stages::SecondStage(second.tables()),
            (false, true, true) => Stages::Nested(first.tables(), second.tables()),
            (true, false, false) => Stages::PassThrough {
                width: head.width(),
                legacy: head.legacy(),
            },
            _ => return None,
        };
        Some(Self {
            stages,
            fault_disable: head.fault_disable(),
        })
    }
}

impl From<&Translated> for Path {
    fn from(translated: &Translated) -> Self {
        Self {
            stages: translated.stages,
            fault_disable: translated.fault_disable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each flag in turn, and the largest numbers there are.
    fn firsts() -> impl Iterator<Item = Tables<FirstStage>> {
        (0..=6).map(|flag| Tables {
            table: 0x000f_ffff_ffff_f000 >> flag & !0xfff,
            format: FirstStage {
                levels: if flag == 0 { 5 } else { 4 },
                huge_pages: flag == 1,
                address_width: if flag == 0 { 52 } else { 39 },
                write_protect: flag == 2,
                no_execute: flag == 3,
                supervisor_execute_prevention: flag == 4,
                extended_accessed: flag == 5,
                snoop: flag == 6,
            },
        })
    }

    fn seconds() -> impl Iterator<Item = Tables<SecondStage>> {
        (0..=9).map(|flag| Tables {
            table: 0x000f_ffff_ffff_f000 >> flag & !0xfff,
            format: SecondStage {
                levels: 3 + flag % 3,
                address_width: if flag == 0 { 52 } else { 39 },
                large_pages: flag == 1,
                huge_pages: flag == 2,
                snoop_control: flag == 3,
                transient_mapping: flag == 4,
                execute_enable: flag == 5,
                accessed_dirty: flag == 6,
                snoop: flag == 7,
                role: match flag {
                    8 => Role::Legacy,
                    9 => Role::Nested,
                    _ => Role::Alone,
                },
            },
        })
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let mut all: Vec<Stages> = firsts().map(Stages::FirstStage).collect();
        all.extend(seconds().map(Stages::SecondStage));
        for first in firsts() {
            all.extend(seconds().map(|second| Stages::Nested(first, second)));
        }
        all.extend([false, true].map(|legacy| Stages::PassThrough { width: 57, legacy }));
        for stages in all {
            for fault_disable in [false, true] {
                let path = Path {
                    stages,
                    fault_disable,
                };
                assert_eq!(Path::unpack(path.pack().unwrap()), Some(path));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_packed() {
        let mut first = firsts().next().unwrap();
        for bit in [11, 52] {
            first.table = 1 << bit;
            let path = Path {
                stages: Stages::FirstStage(first),
                fault_disable: false,
            };
            assert_eq!(path.pack(), None);
        }
        assert_eq!(Path::unpack([0; 3]), None);
    }
}
