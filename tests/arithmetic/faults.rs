//! The fault recording registers as a ring (7.2).

use nested_vtd::unit::{HostKind, Request};

use crate::common::*;
use crate::count;

const FSTS: u64 = 0x34;
const FRCD: u64 = 0x220;
const RECORDS: usize = 8;
const PFO: u32 = 1;
const PPF: u32 = 2;

/// The log as the guest sees it, and as it is to be.
struct Log {
    guest: Guest,
    /// The page in each pending record.
    records: [Option<u64>; RECORDS],
    next: usize,
    /// The record with which PPF came up.
    first: usize,
    overflow: bool,
    page: u64,
}

impl Log {
    fn new() -> Self {
        let mut guest = Guest::new(HostKind::None);
        guest.build_tables();
        guest.enable();
        Self {
            guest,
            records: [None; RECORDS],
            next: 0,
            first: 0,
            overflow: false,
            page: 1,
        }
    }

    /// A request that is refused, each to another page.
    fn fault(&mut self) {
        self.page += 1;
        let request = Request {
            address: self.page << 12,
            read: true,
            ..Request::default()
        };
        let answer = self
            .guest
            .unit
            .translate(self.guest.device, request)
            .unwrap();
        assert!(answer.result.is_err());
        if self.overflow {
            return;
        }
        if self.records[self.next].is_some() {
            self.overflow = true;
            return;
        }
        if self.records.iter().all(Option::is_none) {
            self.first = self.next;
        }
        self.records[self.next] = Some(self.page);
        self.next = (self.next + 1) % RECORDS;
    }

    /// Software clears F of a record.
    fn clear(&mut self, index: usize) {
        self.guest.write32(FRCD + index as u64 * 16 + 12, 1 << 31);
        self.records[index] = None;
    }

    fn clear_overflow(&mut self) {
        self.guest.write32(FSTS, PFO);
        self.overflow = false;
    }

    fn check(&self) {
        let status = self.guest.read32(FSTS);
        let pending = (0..RECORDS).map(|step| (self.first + step) % RECORDS);
        let pending = pending
            .into_iter()
            .find(|&index| self.records[index].is_some());
        let mut expected = if self.overflow { PFO } else { 0 };
        // FRI counts while PPF is set.
        expected |= pending.map_or(0, |index| PPF | (index as u32) << 8);
        assert_eq!(status, expected, "{:?}, next {}", self.records, self.next);
        for (index, record) in self.records.iter().enumerate() {
            let at = FRCD + index as u64 * 16;
            let fault = self.guest.read64(at + 8) >> 63 != 0;
            assert_eq!(fault, record.is_some(), "{index} of {:?}", self.records);
            if let Some(page) = record {
                assert_eq!(self.guest.read64(at), page << 12, "{index}");
            }
        }
    }
}

/// From each place of the ring as many faults as fit and one more; of those each choice is cleared; then faults until there
/// is no room, and one after that was seen to.
#[test]
fn faults_are_recorded_one_after_another() {
    let mut log = Log::new();
    let mut cases = 0;
    for filled in 0..=RECORDS + 1 {
        let kept = 1_u32 << filled.min(RECORDS);
        for choice in 0..kept {
            // One fault more each time moves on where it begins.
            for _ in 0..RECORDS {
                for index in 0..RECORDS {
                    log.clear(index);
                }
                log.clear_overflow();
                log.fault();
                log.clear((log.next + RECORDS - 1) % RECORDS);
                log.check();
                let begin = log.next;
                for _ in 0..filled {
                    log.fault();
                }
                log.check();
                let order: Vec<usize> = (0..RECORDS).map(|step| (begin + step) % RECORDS).collect();
                for (bit, &index) in order.iter().enumerate() {
                    if choice >> bit & 1 != 0 {
                        log.clear(index);
                    }
                }
                log.check();
                log.clear_overflow();
                log.fault();
                log.check();
                log.fault();
                log.check();
                cases += 1;
            }
        }
    }
    count("states of the fault log", cases);
}
