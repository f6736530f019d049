//! Saved states, and the rest of the queue.

use std::ptr;

use libc::{EBUSY, EINVAL, ENOSPC};
use nested_vtd::ffi::NvtdUnit;
use nested_vtd::ffi::nvtd_work;
use nested_vtd::ffi::snapshot::{nvtd_unit_load, nvtd_unit_save};

use super::Op;
use super::arena::UNTOUCHED;
use super::world::World;

impl World {
    pub fn work(&self, op: &Op) {
        // Not from inside callbacks.
        if self.is_inside() {
            return;
        }
        // SAFETY: a live unit or NULL.
        let result = unsafe { nvtd_work(self.unit(op)) };
        self.judge("work", result.into(), &[EINVAL]);
        assert_eq!(result != 0, self.unit(op).is_null(), "work: {result}");
    }

    pub fn snapshot(&self, op: &Op) {
        match op.code {
            13 => self.save(op),
            _ => self.load(op),
        }
    }

    /// `number`: how much room there is; `w`: another size.
    fn save(&self, op: &Op) {
        let unit = self.unit(op);
        let size = match op.number & 7 {
            0..=3 => 4096,
            4 => 0,
            5 => op.w as usize % 512,
            6 => 382,
            _ => op.w as usize % 0x1_0000,
        };
        let buffer = self.arena.buffer(size);
        let needed = self.arena.buffer(8);
        let to = match op.wrong {
            2 => ptr::null_mut(),
            _ => buffer.pointer(),
        };
        let count = match op.wrong {
            3 => ptr::null_mut(),
            _ => needed.pointer::<usize>(),
        };
        // SAFETY: a live unit or NULL, as many bytes or NULL, and room for a number or NULL.
        let result = unsafe { nvtd_unit_save(unit, to, size, count) };
        self.judge("unit_save", result.into(), &[EINVAL, ENOSPC]);
        let is_wrong = unit.is_null() || count.is_null() || to.is_null() && size != 0;
        assert_eq!(result == -EINVAL, is_wrong, "unit_save: {result}");
        buffer.check_end();
        // Without a buffer it tells the size alone.
        let written = if result == 0 && !to.is_null() {
            // SAFETY: it was written.
            unsafe { count.read() }
        } else {
            0
        };
        let bytes = buffer.bytes();
        assert!(bytes[written..].iter().all(|&byte| byte == UNTOUCHED));
        if result == -ENOSPC {
            // SAFETY: it was written.
            let needed = unsafe { count.read() };
            assert!(
                needed > size,
                "{needed} bytes are needed, {size} are too few"
            );
        }
        if result == 0 && !to.is_null() {
            assert!(written > 36, "{written} bytes are no state");
            self.saved.borrow_mut()[usize::from(op.a & 1)] = bytes[..written].to_vec();
        }
    }

    /// What the unit saves now, up to page requests: who those are of is asked of the VMM each time.
    fn state(&self, unit: *mut NvtdUnit) -> Vec<u8> {
        let buffer = self.arena.buffer(4096);
        let needed = self.arena.buffer(8);
        // SAFETY: a live unit or NULL, 4096 bytes and room for a number.
        let result = self
            .quietly(|| unsafe { nvtd_unit_save(unit, buffer.pointer(), 4096, needed.pointer()) });
        if result != 0 {
            return Vec::new();
        }
        without_groups(&buffer.bytes()).to_vec()
    }

    /// `number`: whose state; whether a byte of it is changed (`v`), and whether it is cut (`w`).
    fn load(&self, op: &Op) {
        // Not from inside callbacks.
        if self.is_inside() {
            return;
        }
        let unit = self.unit(op);
        let whole = self.saved.borrow()[(op.number & 1) as usize].clone();
        let mut state = whole.clone();
        if op.number & 2 != 0 && !state.is_empty() {
            let place = op.v as usize % state.len();
            state[place] ^= 1 << (op.v >> 32 & 7);
        }
        if op.number & 4 != 0 {
            state.truncate(op.w as usize % (whole.len() + 1));
        }
        let buffer = self.arena.buffer(state.len());
        buffer.write(0, &state);
        let from = match op.wrong {
            2 => ptr::null(),
            _ => buffer.pointer::<u8>().cast_const(),
        };
        let before = self.state(unit);
        let reactions = self.reactions();
        // SAFETY: a live unit or NULL, and as many bytes or NULL.
        let result = unsafe { nvtd_unit_load(unit, from.cast(), state.len()) };
        self.judge("unit_load", result.into(), &[EINVAL, EBUSY]);
        assert_ne!(result, -EBUSY, "nobody else executes anything");
        if unit.is_null() || from.is_null() || state.is_empty() || state != whole {
            assert_eq!(result, -EINVAL, "such a state is none");
        }
        if self.reactions() != reactions {
            return;
        }
        let after = self.state(unit);
        if result == 0 {
            assert!(after == without_groups(&state), "another state was loaded");
        } else {
            assert!(after == before, "changed by a state that is refused");
        }
    }
}

/// CAP up to the last section but that of groups.
fn without_groups(state: &[u8]) -> &[u8] {
    let length = u32::from_le_bytes(state[12..16].try_into().unwrap()) as usize;
    let sections = &state[16..length - 4];
    let groups = sections.windows(4).rposition(|tag| tag == b"GRPS");
    &sections[..groups.unwrap_or(sections.len())]
}
