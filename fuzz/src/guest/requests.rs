//! What devices and the VMM ask of the unit.

use std::ops::ControlFlow;

use nested_vtd::host::soft::TwinPageRequest;
use nested_vtd::interrupt::{Message, Request as Interrupt};
use nested_vtd::unit::{Dump, PageRequest};

use super::op::Op;
use super::run::Run;
use super::world::{PASIDS, SLOTS};
use crate::input::pick;
use crate::reference::{Kind, Request, mask};

/// Requests that are kept, to be made again.
const KEPT: usize = 16;

/// The last requests: who asked, and for what.
#[derive(Debug, Default)]
pub struct Remembered {
    last: Vec<(usize, Request)>,
}

impl Remembered {
    pub fn keep(&mut self, slot: usize, request: Request) {
        self.last.retain(|known| *known != (slot, request));
        self.last.push((slot, request));
        if self.last.len() > KEPT {
            self.last.remove(0);
        }
    }

    /// The last but so many.
    pub fn get(&self, back: usize) -> Option<(usize, Request)> {
        let count = self.last.len();
        let back = back.checked_rem(count)?;
        self.last.get(count - 1 - back).copied()
    }

    /// The last ones.
    pub fn last(&self, count: usize) -> Vec<(usize, Request)> {
        self.last.iter().rev().take(count).copied().collect()
    }
}

/// None, one that has an entry, or any.
pub fn pasid_number(which: u8, raw: u16) -> Option<u32> {
    match which % 16 {
        0..=7 => None,
        8..=13 => Some(pick(&PASIDS, which / 16)),
        14 => Some(u32::from(raw)),
        _ => Some(pick(&[2, 63, 127, 0x3fff, 0xf_ffff], which / 16)),
    }
}

/// An address that tables say something about, or any.
pub fn address(which: u16, low: u16, raw: u64) -> u64 {
    let low = u64::from(low) & 0xfff;
    if which & 0x8000 != 0 {
        return raw;
    }
    let page = u64::from(which & 7) << 12;
    let rest = which >> 3;
    let large = match rest % 8 {
        0..=2 => 0,
        3 => 1 << 21,
        4 => 2 << 21,
        5 => 3 << 21,
        6 => 1 << 30,
        _ => 2 << 30,
    };
    let edge = match rest / 8 % 32 {
        // Pages of RAM that a large page, or a table of 64 pages, leads to.
        20 => 36 << 12,
        21 => 40 << 12,
        22 => 46 << 12,
        23 => 29 << 12,
        24 => 0xfee0_0000,
        25 => 0xfedf_f000,
        26 => 0xfef0_0000,
        27 => 1 << 39,
        28 => 1 << 47,
        29 => 1 << 48,
        30 => mask(63, 47),
        31 => mask(63, 57),
        _ => 0,
    };
    (page | large | low).wrapping_add(edge)
}

impl Run {
    /// `a`: whose; `b`: PASID; `c`: bits 0 and 1 the address type, 2 to 4 the access, 5 for execution, 6
    /// privileged; `d`: the address, or with bit 15 `value`; `e`: the byte in its page.
    fn request(op: &Op) -> (usize, Request) {
        let kind = pick(
            &[
                Kind::Untranslated,
                Kind::Untranslated,
                Kind::Translation,
                Kind::Translated,
            ],
            op.c & 3,
        );
        let pasid = pasid_number(op.b, op.value as u16).map(|pasid| pasid & 0xf_ffff);
        let access = op.c >> 2 & 3;
        let read = kind == Kind::Translation || access != 1;
        let request = Request {
            address: address(op.d, op.e, op.value),
            pasid,
            kind,
            read,
            write: access & 1 != 0,
            execute: read && pasid.is_some() && op.c >> 5 & 1 != 0,
            privileged: pasid.is_some() && op.c >> 6 & 1 != 0,
        };
        (usize::from(op.a) % SLOTS, request)
    }

    /// As [`Self::request`]; with bit 7 of `c` a debugger's.
    pub fn dma(&mut self, op: &Op) {
        let (slot, request) = Self::request(op);
        if op.c & 0x80 != 0 {
            self.debug(slot, request);
        } else {
            self.remembered.keep(slot, request);
            self.ask(slot, request);
        }
    }

    /// The same on the twin's hardware.
    pub fn silicon(&mut self, op: &Op) {
        let (slot, request) = Self::request(op);
        self.remembered.keep(slot, request);
        self.ask_silicon(slot, request);
    }

    /// `a`: the last request but so many; `b`: what is changed about it; `c`: how often.
    pub fn again(&mut self, op: &Op) {
        let Some((slot, mut request)) = self.remembered.get(op.a.into()) else {
            return;
        };
        match op.b % 8 {
            1 => {
                request.write = !request.write;
                request.read = true;
            }
            2 => request.address ^= 0x1000,
            3 => request.kind = Kind::Untranslated,
            4 => request.kind = Kind::Translation,
            5 => request.privileged = request.pasid.is_some() && !request.privileged,
            6 => request.address ^= 8 << (op.d % 9),
            _ => {}
        }
        request.read |= request.kind == Kind::Translation || !request.write;
        request.execute &= request.read;
        for _ in 0..op.c % 3 + 1 {
            self.ask(slot, request);
            self.ask_silicon(slot, request);
        }
    }

    /// Requests that were made are made again, and answered as the tables say.
    pub fn probe(&mut self, count: usize) {
        for (slot, request) in self.remembered.last(count) {
            for _ in 0..2 {
                // Bits that are set in tables that are other tables as well change these.
                if !self.clean {
                    self.settle(1);
                }
                self.ask(slot, request);
                if !self.clean {
                    self.settle(1);
                }
                self.ask_silicon(slot, request);
            }
        }
    }

    /// `a`: the entry, or with `b` odd the address is `value`; `b`: bits 1 and 2 SHV and the format; `c`: whose,
    /// and flags; `d`: the data; `e`: the requester, 0 for the device's.
    pub fn msi(&mut self, op: &Op) {
        let handle = u64::from(op.a % 20);
        let subhandle = u64::from(op.b >> 1 & 1);
        let remappable = u64::from(op.b >> 2 & 1 == 0);
        let address = if op.b & 1 != 0 {
            op.value
        } else {
            0xfee0_0000 | handle << 5 | subhandle << 3 | remappable << 4 | (op.value & 0xfe0 << 5)
        };
        let source_id = match op.e {
            0 => self.machine.source_id(usize::from(op.c) % SLOTS),
            other => other,
        };
        let request = Interrupt {
            message: Message {
                address,
                data: u32::from(op.d) | if op.c & 0x40 != 0 { 1 << 16 } else { 0 },
            },
            source_id,
            verify: op.c & 0x20 == 0,
            pasid: (op.c & 0x10 != 0).then_some(5),
            look: op.c & 0x80 != 0,
        };
        self.ask_interrupt(request);
    }

    /// `a`: whose; `b`: PASID; `c`: bits 0 and 1 read and write, 2 the last, 3 for execution, 4 privileged; `d`: the
    /// address; `e`: the group.
    pub fn page_request(&mut self, op: &Op) {
        let slot = usize::from(op.a) % SLOTS;
        let pasid = pasid_number(op.b, op.value as u16);
        let (read, write) = (op.c & 1 != 0, op.c & 2 != 0);
        let request = PageRequest {
            address: address(op.d, 0, op.value),
            pasid,
            read,
            write,
            execute: op.c & 8 != 0,
            privileged: op.c & 16 != 0,
            last: op.c & 4 != 0 || !(read || write),
            group: op.e % 0x208,
        };
        let file = self.machine.slots[slot].file;
        match (&self.machine.twin, file) {
            (Some(twin), Some(file)) => {
                let sent = TwinPageRequest {
                    address: request.address,
                    pasid,
                    group: request.group,
                    read,
                    write,
                    execute: request.execute,
                    privileged: request.privileged,
                    last: request.last,
                };
                let _sent = twin.page_request(file, sent);
                let read = self.machine.unit().host_faults();
                assert!(read.is_ok() || self.injected, "{read:?}");
                let _answers = twin.page_responses(file).unwrap();
            }
            _ => self.ask_for_page(slot, request),
        }
    }

    /// The VMM looks. `a`: at what; `b`: whose; `c`: PASID; `d`: the address.
    pub fn look(&mut self, op: &Op) {
        let slot = usize::from(op.b) % SLOTS;
        let handle = self.machine.slots[slot].handle;
        let pasid = pasid_number(op.c, op.value as u16);
        let first = address(op.d, 0, op.value);
        let last = first.saturating_add(u64::from(op.e) << 8);
        let unit = self.machine.unit();
        let mut lines = 0;
        let mut dump = |what| {
            let given = unit.dump(what, &mut |text| {
                assert!(!text.contains(['\n', '\0']), "{text:?} is more than a line");
                lines += 1;
            });
            assert!(given.is_ok(), "{given:?}");
        };
        let device = handle.unwrap_or(0);
        match (op.a % 10, handle) {
            (0, _) => dump(Dump::Registers { base: op.value }),
            (1, _) => dump(Dump::Queue),
            (2, _) => dump(Dump::Tables { device: handle }),
            (3, _) => dump(Dump::Interrupts),
            (4, Some(_)) => dump(Dump::Walk {
                device,
                pasid,
                address: first,
            }),
            (5, Some(_)) => dump(Dump::Mappings {
                device,
                pasid,
                range: first..=last,
            }),
            (6, Some(_)) => {
                let mut end = None;
                let visited = unit.for_each_mapping(device, pasid, first..=last, 64, &mut |run| {
                    assert!(run.length > 0 && run.address >= first, "{run:x?}");
                    assert!(
                        end.is_none_or(|end| run.address > end),
                        "{run:x?} is not behind what ends at {end:x?}"
                    );
                    let run_end = run.address + (run.length - 1);
                    assert!(run_end <= last, "{run:x?}");
                    end = Some(run_end);
                    ControlFlow::<()>::Continue(())
                });
                if let Err(error) = visited {
                    assert_eq!(error.errno(), libc::E2BIG, "{error}");
                }
            }
            (7, Some(_)) => {
                let info = unit.device_info(device).unwrap();
                assert_eq!(info.source_id, self.machine.source_id(slot));
            }
            (8, _) => {
                let _tracking = unit.set_dirty_tracking(op.e & 1 != 0);
                // Stopping and beginning makes the hardware forget.
                let mut bitmap = [0; 2];
                let _dirty = unit.dirty_bitmap(0, 64 << 12, 0x1000, op.e & 2 != 0, &mut bitmap);
            }
            _ => {
                let stats = unit.stats();
                assert!(stats.cache_hits <= stats.translations, "{stats:?}");
                assert!(stats.interrupt_cache_hits <= stats.interrupts, "{stats:?}");
            }
        }
        assert!(lines <= 16384 + 1, "{lines} lines");
    }
}
