//! The invalidation queue: descriptors as drivers write them, with a bit that is wrong; and the driver's own use of it.

use super::op::Op;
use super::requests::{address, pasid_number};
use super::run::{FSTS, GSTS, IQA, IQH, IQT, IRTA, QIE, RTADDR, Run, SIRTP, SRTP};
use super::world::{LARGE_QUEUE, QUEUE, SLOTS, STATUS};

/// FSTS: IQE, ICE and ITE.
const QUEUE_ERRORS: u32 = 0x70;

/// What was put behind the tail, which was not moved yet.
#[derive(Debug, Default)]
pub struct Queue {
    end: Option<u64>,
    /// The last descriptor of an operation.
    last: Option<[u64; 4]>,
    /// Waits of the driver so far.
    waits: u32,
}

impl Queue {
    pub fn forget(&mut self) {
        self.end = None;
    }
}

/// Context-cache invalidate: everything.
pub const CONTEXTS: [u64; 2] = [1 | 1 << 4, 0];
/// IOTLB invalidate: everything.
pub const TRANSLATIONS: [u64; 2] = [2 | 1 << 4, 0];
/// Interrupt-entry-cache invalidate: everything.
pub const INTERRUPT_ENTRIES: [u64; 2] = [4, 0];
/// PASID-cache invalidate: everything.
pub const PASIDS: [u64; 2] = [7 | 3 << 4, 0];

/// Invalidate all of a domain by second-stage address.
pub fn domain(domain: u16) -> [u64; 2] {
    [2 | 2 << 4 | u64::from(domain) << 16, 0]
}

/// Invalidate pages of a domain by second-stage address; `low` is AM and IH.
pub fn domain_pages(domain: u16, address: u64, low: u64) -> [u64; 2] {
    [2 | 3 << 4 | u64::from(domain) << 16, address | low]
}

/// Invalidate all of a PASID.
pub fn pasid(domain: u16, pasid: u32) -> [u64; 2] {
    [
        6 | 2 << 4 | u64::from(domain) << 16 | u64::from(pasid) << 32,
        0,
    ]
}

/// Invalidate pages of a PASID; `low` is AM and IH.
pub fn pasid_pages(domain: u16, pasid: u32, address: u64, low: u64) -> [u64; 2] {
    let first = 6 | 3 << 4 | u64::from(domain) << 16 | u64::from(pasid) << 32;
    [first, address | low]
}

/// Invalidate a PASID's entry.
pub fn pasid_cache(domain: u16, pasid: u32) -> [u64; 2] {
    [
        7 | 1 << 4 | u64::from(domain) << 16 | u64::from(pasid) << 32,
        0,
    ]
}

/// Invalidate a device's context entry.
pub fn device(domain: u16, source_id: u16) -> [u64; 2] {
    [
        1 | 3 << 4 | u64::from(domain) << 16 | u64::from(source_id) << 32,
        0,
    ]
}

impl Run {
    /// `a`: type and granularity; `b`: domain; `c`: PASID or device; `d`: page; `value`: the rest.
    fn descriptor(&self, op: &Op) -> [u64; 4] {
        let granularity = u64::from(op.a >> 4 & 3) << 4;
        let domain = match op.b {
            0..=250 => u64::from(op.b % 12),
            _ => op.value & 0xffff,
        } << 16;
        let pasid = u64::from(pasid_number(op.c, op.d).unwrap_or(0)) << 32;
        let source_id = u64::from(self.machine.source_id(usize::from(op.c) % SLOTS));
        let page = address(op.d, 0, op.value) & !0xfff;
        let (low, high) = match op.a & 15 {
            1 => (
                1 | granularity | domain | source_id << 32 | (op.value & 3) << 48,
                0,
            ),
            2 => (2 | granularity | domain, page | op.value & 0x7f),
            3 => (3 | source_id << 32, page | op.value & 1),
            4 => (
                4 | granularity & 0x10 | (op.value & 15) << 27 | (op.value >> 8 & 0xffff) << 32,
                0,
            ),
            6 => (6 | granularity | domain | pasid, page | op.value & 0x7f),
            7 => (7 | granularity | domain | pasid, 0),
            8 => (8 | source_id << 16 | pasid, page | op.value & 0x801),
            9 => (
                9 | (op.value & 1) << 4 | (op.value >> 1 & 15) << 12 | source_id << 16 | pasid,
                (op.value >> 8 & 0x1ff) << 3,
            ),
            0 => (op.value, 0),
            // Waits, most of them with a status.
            kind => {
                let flags = if kind < 13 {
                    1 << 5
                } else {
                    u64::from(op.a >> 4) << 4
                };
                let data = (op.value & 0xffff_ffff) << 32;
                let status = match op.d {
                    0..0x1000 => STATUS | u64::from(op.d) & 0xffc,
                    _ => u64::from(op.d & 0xfff) << 10,
                };
                (5 | flags | data, status)
            }
        };
        op.flipped([low, high, 0, 0])
    }

    /// A descriptor is put where the next one goes.
    pub fn put(&mut self, op: &Op) {
        let words = self.descriptor(op);
        self.put_words(words);
        self.queue.last = Some(words);
    }

    fn put_words(&mut self, words: [u64; 4]) {
        let register = self.machine.read64(IQA);
        let (bytes, size) = (
            0x1000 << (register & 7),
            if register >> 11 & 1 != 0 { 32 } else { 16 },
        );
        let tail = self.machine.read64(IQT);
        let end = self.queue.end.unwrap_or(tail) & (bytes - 1) & !(size - 1);
        let at = (register & !0xfff).wrapping_add(end);
        for (index, word) in words.into_iter().take(size as usize / 8).enumerate() {
            self.poke(at.wrapping_add(index as u64 * 8), word);
        }
        self.queue.end = Some((end + size) & (bytes - 1));
    }

    /// The tail goes behind what was put, and `b` copies of the last of it, or somewhere else.
    pub fn ring(&mut self, op: &Op) {
        // A wait with FN only.
        let last = self.queue.last.unwrap_or([5 | 1 << 6, 0, 0, 0]);
        for _ in 0..op.b {
            self.put_words(last);
        }
        let end = self.queue.end.take();
        let value = match op.value {
            0 => end.unwrap_or_else(|| self.machine.read64(IQT)),
            value => value & 0xf_ffff,
        };
        self.write(IQT, if op.a & 1 == 0 { 4 } else { 8 }, value);
    }

    /// Set the queue up anew, and empty.
    pub fn start_queue(&mut self, which: u8) {
        self.command(0, QIE);
        self.write(IQT, 8, 0);
        self.write(FSTS, 4, u64::from(QUEUE_ERRORS));
        let wide = u64::from(self.needs_wide() || which & 4 != 0) << 11;
        let place = match which % 4 {
            1 => LARGE_QUEUE | 1,
            _ => QUEUE,
        };
        self.write(IQA, 8, place | wide);
        self.command(QIE, 0);
        self.queue.forget();
    }

    /// In scalable mode descriptors have 256 bits.
    fn needs_wide(&self) -> bool {
        !self.is_legacy() || self.root >> 10 & 3 == 1
    }

    /// Is the queue one that the driver can use?
    fn is_running(&self) -> bool {
        let register = self.machine.read64(IQA);
        self.machine.read32(GSTS) & QIE != 0
            && self.machine.read32(FSTS) & QUEUE_ERRORS == 0
            && [QUEUE, LARGE_QUEUE | 1].contains(&(register & !0x800))
            && (!self.needs_wide() || register & 0x800 != 0)
            && self.machine.read64(IQH) == self.machine.read64(IQT)
    }

    /// Can the driver use a queue at all? Its descriptors are in RAM at 0, and a root table of the reserved
    /// mode stops the queue.
    pub fn has_queue(&self) -> bool {
        self.machine.has_low_ram() && self.root >> 10 & 3 != 2
    }

    /// Submit descriptors and a wait, which must be done when the register was written.
    pub fn submit(&mut self, descriptors: &[[u64; 2]]) {
        if !self.is_running() {
            self.start_queue(0);
        }
        self.queue.forget();
        self.queue.waits += 1;
        let number = self.queue.waits;
        let status = STATUS + 0xff8;
        let wait = [5 | 1 << 5 | u64::from(number) << 32, status];
        for &[low, high] in descriptors.iter().chain([&wait]) {
            self.put_words([low, high, 0, 0]);
        }
        let end = self.queue.end.take().unwrap_or(0);
        self.write(IQT, 4, end);
        self.note_writes();
        let done = self.machine.peek(status).unwrap_or(0) as u32;
        assert!(
            done == number,
            "wait {number} is not done, but {done}: FSTS {:#x} IQERCD {:#x} IQH {:#x} IQT {:#x}",
            self.machine.read32(FSTS),
            self.machine.read64(0xb0),
            self.machine.read64(IQH),
            self.machine.read64(IQT),
        );
    }

    /// Everything is invalidated, by the queue or by setting the tables that are in force. What is remembered is then asked again, and answered as the tables say.
    pub fn sync(&mut self, op: &Op) {
        self.settle(op.a);
        self.probe(usize::from(op.b % 16) + 1);
    }

    /// Invalidate everything.
    pub fn settle(&mut self, how: u8) {
        if let Some(twin) = &self.machine.twin {
            twin.clear_injections();
        }
        self.injected = false;
        self.machine.vmm.answer_invalidations(0);
        if how % 3 != 1 && self.has_queue() {
            self.submit(&[CONTEXTS, PASIDS, TRANSLATIONS, INTERRUPT_ENTRIES]);
        } else {
            let (root, own) = (self.root, self.machine.read64(RTADDR));
            self.write(RTADDR, 8, root);
            self.command(SRTP, 0);
            self.write(RTADDR, 8, own);
            if let Some(table) = self.interrupt_table {
                let own = self.machine.read64(IRTA);
                self.write(IRTA, 8, table);
                self.command(SIRTP, 0);
                self.write(IRTA, 8, own);
            }
        }
        self.note_writes();
        self.check_memory();
        self.mirror = None;
        self.clean = true;
        self.interrupts_clean = true;
    }
}
