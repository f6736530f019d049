//! What a C program has: units, twins, devices, files; and how it judges what it is told.

use core::ffi::c_int;
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::CStr;
use std::ptr;

use nested_vtd::ffi::twin::{NvtdTwin, nvtd_twin_destroy};
use nested_vtd::ffi::{NvtdUnit, nvtd_last_error, nvtd_unit_destroy};

use super::Op;
use super::arena::{Arena, Buffer};

/// Units, and twins, that a program has.
pub const PLACES: usize = 2;

/// Calls from inside callbacks, at most: of one input, and inside of each other.
const MOST_REACTIONS: u32 = 64;
const DEEPEST: u32 = 2;

thread_local! {
    static ARENA: OnceCell<&'static Arena> = const { OnceCell::new() };
}

pub struct World {
    pub arena: &'static Arena,
    pub units: [Cell<*mut NvtdUnit>; PLACES],
    pub twins: [Cell<*mut NvtdTwin>; PLACES],
    /// Handles that were given.
    pub devices: RefCell<Vec<u32>>,
    /// Files of twins.
    pub files: RefCell<Vec<c_int>>,
    /// Regions of RAM: unit, address, size.
    pub ram: RefCell<Vec<(usize, u64, u64)>>,
    /// What units have saved last.
    pub saved: RefCell<[Vec<u8>; PLACES]>,
    /// What callbacks do and return, one after the other.
    script: RefCell<Vec<u8>>,
    place: Cell<usize>,
    reactions: Cell<u32>,
    depth: Cell<u32>,
    /// Callbacks must not call now.
    quiet: Cell<bool>,
}

impl World {
    pub fn new(header: &[u8]) -> Self {
        let arena = ARENA.with(|arena| *arena.get_or_init(|| Box::leak(Box::new(Arena::new()))));
        arena.clear();
        Self {
            arena,
            units: [const { Cell::new(ptr::null_mut()) }; PLACES],
            twins: [const { Cell::new(ptr::null_mut()) }; PLACES],
            devices: RefCell::default(),
            files: RefCell::default(),
            ram: RefCell::default(),
            saved: RefCell::default(),
            script: RefCell::new(header.to_vec()),
            place: Cell::new(0),
            reactions: Cell::new(0),
            depth: Cell::new(0),
            quiet: Cell::new(false),
        }
    }

    /// The pointer that callbacks get.
    pub fn opaque(&self) -> *mut core::ffi::c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// The next byte of the script, which begins anew at its end.
    pub fn next(&self) -> u8 {
        let script = self.script.borrow();
        if script.is_empty() {
            return 0;
        }
        let place = self.place.get();
        self.place.set(place + 1);
        script[place % script.len()]
    }

    /// A unit, by a number; sometimes none.
    pub fn unit(&self, op: &Op) -> *mut NvtdUnit {
        if op.wrong == 1 {
            return ptr::null_mut();
        }
        self.units[usize::from(op.a & 1)].get()
    }

    pub fn twin(&self, op: &Op) -> *mut NvtdTwin {
        if op.wrong == 1 {
            return ptr::null_mut();
        }
        self.twins[usize::from(op.a & 1)].get()
    }

    /// One of a list, by a number, or the number itself.
    pub fn known<T: Copy + From<u8>>(list: &RefCell<Vec<T>>, number: u8) -> T {
        let list = list.borrow();
        match list.len() {
            0 => number.into(),
            _ if number >= 240 => number.into(),
            count => list[usize::from(number) % count],
        }
    }

    pub fn device(&self, op: &Op) -> u32 {
        Self::known(&self.devices, op.a >> 1)
    }

    pub fn file(&self, number: u8) -> c_int {
        Self::known(&self.files, number)
    }

    /// The size that a caller says a structure has: as it is, smaller, larger, or nonsense.
    fn size(right: usize, choice: u8) -> usize {
        match choice {
            0..=9 => right,
            10 => right - 8,
            11 => right + 8,
            12 => right + 64,
            13 => [0, 8, 15, 16, 17, 24][right / 8 % 6],
            14 => [65536, 65537, usize::MAX, 16, 20][right / 8 % 5],
            _ => right.saturating_sub(4),
        }
    }

    /// A structure that begins with its size, as a caller passes it. `choice` says which size, and whether what is
    /// behind it is 0. None for NULL.
    pub fn structure<T: Copy>(&self, value: &T, choice: u8, is_null: bool) -> Option<Buffer> {
        if is_null {
            return None;
        }
        let right = size_of::<T>();
        let size = Self::size(right, choice & 15);
        // Of more than can be meant only the size is looked at.
        let length = if size > 65536 { 8 } else { size.max(8) };
        let buffer = self.arena.buffer(length);
        let behind = if choice & 0x80 != 0 { 1 } else { 0 };
        buffer.write(0, &vec![behind; length]);
        // SAFETY: as many bytes of a structure of integers and pointers, which has no padding.
        let bytes = unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast::<u8>(), right) };
        buffer.write(0, bytes);
        buffer.write(0, &size.to_ne_bytes());
        Some(buffer)
    }

    /// A structure that is to be filled.
    pub fn room<T>(&self, choice: u8, is_null: bool) -> Option<Buffer> {
        if is_null {
            return None;
        }
        let size = Self::size(size_of::<T>(), choice & 15);
        let length = if size > 65536 { 8 } else { size.max(8) };
        let buffer = self.arena.buffer(length);
        buffer.write(0, &size.to_ne_bytes());
        Some(buffer)
    }

    /// What was filled: nothing if the call failed, else not more than there is, and never the size.
    pub fn check_room<T>(result: c_int, room: Option<Buffer>, before: &[u8]) {
        let Some(room) = room else { return };
        room.check_end();
        let after = room.bytes();
        let changed = if result == 0 {
            8..size_of::<T>().min(after.len())
        } else {
            0..0
        };
        for (offset, (was, is)) in before.iter().zip(&after).enumerate() {
            assert!(
                was == is || changed.contains(&offset),
                "byte {offset} was changed by a call that gave {result}"
            );
        }
    }

    /// Is it 0, or one of the errors that it may be, with a sentence?
    pub fn judge(&self, name: &str, result: i64, errors: &[i32]) {
        if crate::is_printing() {
            eprintln!("    {name}: {result}");
        }
        if result >= 0 {
            return;
        }
        let errno = -result;
        assert!((1..4096).contains(&errno), "{name} gives {result}");
        let may = errors.is_empty() || errors.iter().any(|&known| i64::from(known) == errno);
        // SAFETY: never NULL, and valid until the next call on this thread.
        let text = unsafe { CStr::from_ptr(nvtd_last_error()) };
        let text = text.to_str().expect("the sentence is UTF-8");
        assert!(may, "{name} gives {result}: {text}");
        assert!(
            text.len() > 10 && text.len() < 2000 && !text.contains('\n'),
            "{name} gives {result} and says {text:?}"
        );
    }

    /// A callback has been called, and may call.
    pub fn react(&self) {
        let (depth, reactions) = (self.depth.get(), self.reactions.get());
        if self.quiet.get() || depth >= DEEPEST || reactions >= MOST_REACTIONS {
            return;
        }
        let code = self.next();
        if code & 3 == 0 {
            return;
        }
        self.reactions.set(reactions + 1);
        self.depth.set(depth + 1);
        let low = u64::from(self.next());
        let op = Op {
            code: code % super::FUNCTIONS,
            a: self.next() & 7,
            sizes: if low > 200 { low as u8 } else { 0 },
            wrong: 0,
            number: u32::from(self.next()),
            v: low << 12,
            w: u64::from(self.next()),
        };
        if crate::is_printing() {
            eprintln!("    from inside a callback: {op:x?}");
        }
        self.arena.giving_back(|| self.call(&op));
        self.depth.set(depth);
    }

    /// Calls from inside callbacks so far.
    pub fn reactions(&self) -> u32 {
        self.reactions.get()
    }

    pub fn is_inside(&self) -> bool {
        self.depth.get() > 0
    }

    /// Do something during which callbacks do not call.
    pub fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.quiet.replace(true);
        let result = work();
        self.quiet.set(before);
        result
    }

    pub fn call(&self, op: &Op) {
        match op.code {
            0..24 => self.call_unit(op),
            _ => self.call_twin(op),
        }
    }

    /// The program ends.
    pub fn end(&self) {
        for unit in &self.units {
            let unit = unit.replace(ptr::null_mut());
            // SAFETY: it was created, and this is its last use.
            self.quietly(|| unsafe { nvtd_unit_destroy(unit) });
        }
        for twin in &self.twins {
            // SAFETY: as above.
            unsafe { nvtd_twin_destroy(twin.replace(ptr::null_mut())) };
        }
    }
}
