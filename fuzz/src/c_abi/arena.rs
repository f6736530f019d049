//! Memory that is handed over: pieces that end where nothing is mapped, so that an access behind one does
//! not go unseen; and guest RAM.

use std::cell::Cell;
use std::ptr;

const PAGE: usize = 4096;

/// Pages of guest RAM.
pub const RAM_PAGES: usize = 64;

/// Pages of a buffer: more than the largest structure that can be meant.
const BUFFER_PAGES: usize = 18;

/// Buffers that are used at a time, in calls and in calls from inside callbacks.
const BUFFERS: usize = 16;

/// So much behind all of it is nobody's, as a bitmap may be asked for of which only a far bit is set.
const BEHIND: usize = 16 << 30;

/// What buffers are full of, and stays where nothing is written.
pub const UNTOUCHED: u8 = 0xa5;

/// One mapping: RAM, then buffers, with an inaccessible page behind each.
pub struct Arena {
    base: *mut u8,
    next: Cell<usize>,
}

impl Arena {
    pub fn new() -> Self {
        let whole = (RAM_PAGES + 1 + BUFFERS * (BUFFER_PAGES + 1)) * PAGE + BEHIND;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel finds room touches nothing that exists.
        let base = unsafe { libc::mmap(ptr::null_mut(), whole, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "no room");
        let arena = Self {
            base: base.cast(),
            next: Cell::new(0),
        };
        arena.open(0, RAM_PAGES);
        for number in 0..BUFFERS {
            arena.open(Self::first_page(number), BUFFER_PAGES);
        }
        arena
    }

    fn first_page(buffer: usize) -> usize {
        RAM_PAGES + 1 + buffer * (BUFFER_PAGES + 1)
    }

    fn open(&self, page: usize, count: usize) {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the pages are of this arena's own mapping.
        let opened = unsafe {
            let first = self.base.add(page * PAGE);
            libc::mprotect(first.cast(), count * PAGE, rights)
        };
        assert_eq!(opened, 0, "pages cannot be opened");
    }

    /// Guest RAM.
    pub fn ram(&self) -> *mut u8 {
        self.base
    }

    /// Bytes of it.
    pub const RAM: usize = RAM_PAGES * PAGE;

    /// As after power-on.
    pub fn clear(&self) {
        // SAFETY: RAM is open, and nobody uses it between two inputs.
        unsafe { self.base.write_bytes(0, Self::RAM) };
        self.next.set(0);
    }

    pub fn peek(&self, gpa: usize) -> u64 {
        assert!(gpa % 8 == 0 && gpa < Self::RAM);
        // SAFETY: an aligned qword of open RAM; no unit is being called.
        unsafe { self.base.add(gpa).cast::<u64>().read() }
    }

    pub fn poke(&self, gpa: usize, value: u64) {
        assert!(gpa % 8 == 0 && gpa < Self::RAM);
        // SAFETY: as above.
        unsafe { self.base.add(gpa).cast::<u64>().write(value) };
    }

    /// A buffer of so many bytes, aligned to 8, that ends where nothing is mapped, up to seven bytes before.
    pub fn buffer(&self, length: usize) -> Buffer {
        let length = length.min(BUFFER_PAGES * PAGE);
        let number = self.next.get() % BUFFERS;
        self.next.set(number + 1);
        let end = (Self::first_page(number) + BUFFER_PAGES) * PAGE;
        let start = end - length.next_multiple_of(8);
        // SAFETY: inside of the open pages of this buffer, which is the oldest: calls from inside callbacks give back
        // what they had, and are not so deep that it is still used.
        let pointer = unsafe {
            let pointer = self.base.add(start);
            pointer.write_bytes(UNTOUCHED, end - start);
            pointer
        };
        Buffer { pointer, length }
    }

    /// Do something whose buffers are nobody's afterwards.
    pub fn giving_back<T>(&self, work: impl FnOnce() -> T) -> T {
        let next = self.next.get();
        let result = work();
        self.next.set(next);
        result
    }

    /// Is the address none of this process, or of this memory, so that it may be written to?
    pub fn is_harmless(&self, address: u64) -> bool {
        let own = self.base.addr() as u64;
        let whole = (RAM_PAGES + 1 + BUFFERS * (BUFFER_PAGES + 1)) * PAGE;
        address < 1 << 46 || (own..own + whole as u64).contains(&address)
    }
}

/// Bytes that are lent for a call.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    pointer: *mut u8,
    length: usize,
}

impl Buffer {
    pub fn pointer<T>(&self) -> *mut T {
        self.pointer.cast()
    }

    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: the buffer is open and initialised, and no call is under way.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }.to_vec()
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let count = bytes.len().min(self.length.saturating_sub(offset));
        // SAFETY: inside of the buffer.
        unsafe {
            let to = self.pointer.add(offset.min(self.length));
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, count);
        }
    }

    /// What is behind the last byte is untouched.
    pub fn check_end(&self) {
        for offset in self.length..self.length.next_multiple_of(8) {
            // SAFETY: these bytes are open, see [`Arena::buffer`].
            let byte = unsafe { self.pointer.add(offset).read() };
            assert_eq!(
                byte, UNTOUCHED,
                "byte {offset} of {} was written",
                self.length
            );
        }
    }
}
