//! Primary fault logging (7.2): the fault recording registers and FSTS.

use super::config::FAULT_RECORDS;
use super::outbox::Outbox;
use super::signal::Signal;
use super::snapshot::format::{Fields, Section, check};
use super::{State, Unit};
use crate::Result;
use crate::spec::fault::{FaultReason, RecordedType};
use crate::spec::registers::{FaultRecordHigh, FaultRecordLow, FaultStatus};

/// A refused request, as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub source_id: u16,
    pub address: u64,
    pub reason: FaultReason,
    pub kind: RecordedType,
    /// AT.
    pub address_type: u8,
    pub pasid: Option<u32>,
    /// EXE and PRIV, of a request with PASID.
    pub execute: bool,
    pub privileged: bool,
}

impl Refused {
    fn record(&self) -> (FaultRecordLow, FaultRecordHigh) {
        let pasid = self.pasid.unwrap_or(0);
        let high = FaultRecordHigh::new()
            .with_source_id(self.source_id)
            .with_privileged(self.privileged)
            .with_execute(self.execute)
            .with_pasid_present(self.pasid.is_some())
            .with_type2(self.kind as u8 & 0b01 != 0)
            .with_reason(self.reason.code())
            .with_pasid(pasid & 0xf_ffff)
            .with_address_type(self.address_type)
            .with_read(self.kind as u8 & 0b10 != 0)
            .with_fault(true);
        let low = FaultRecordLow::new().with_page(self.address >> 12);
        (low, high)
    }
}

/// What became of a fault that was to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// It has a record.
    Yes,
    /// A pending record says the same already (7.2.1).
    Collapsed,
    /// There was no room: PFO is set.
    Overflow,
}

/// The log and the errors that share its status register and interrupt.
#[derive(Debug, Default)]
pub(super) struct FaultLog {
    records: [(FaultRecordLow, FaultRecordHigh); FAULT_RECORDS],
    /// The record that the next fault takes.
    next: usize,
    /// Where to begin the search for the first pending record.
    first: usize,
    /// PFO, IQE, ICE and ITE; PPF and FRI follow from the records.
    sticky: FaultStatus,
    pub signal: Signal,
}

impl FaultLog {
    /// FSTS.
    pub fn status(&self) -> FaultStatus {
        match self.first_pending() {
            Some(index) => self
                .sticky
                .with_pending(true)
                .with_first_record(u8::try_from(index).unwrap_or(0)),
            None => self.sticky,
        }
    }

    fn first_pending(&self) -> Option<usize> {
        let order = self
            .records
            .iter()
            .enumerate()
            .cycle()
            .skip(self.first)
            .take(FAULT_RECORDS);
        order
            .into_iter()
            .find(|(_, (_, high))| high.fault())
            .map(|(index, _)| index)
    }

    /// Anything that holds the interrupt back until software has seen to it?
    fn is_settled(&self) -> bool {
        self.status().into_bits() & !0xff00 == 0
    }

    /// Change the log; if that brings up the first condition, raise the interrupt.
    fn signalling(&mut self, out: &mut Outbox, change: impl FnOnce(&mut Self)) {
        let was_settled = self.is_settled();
        change(self);
        if was_settled && !self.is_settled() {
            self.signal.raise(out);
        }
    }

    /// Record a fault. Without room PFO is set, and nothing is recorded until software
    /// clears it. A fault that repeats a pending record is not recorded again, so that
    /// one requester cannot fill the log with one fault.
    pub fn record(&mut self, refused: Refused, out: &mut Outbox) -> Recorded {
        if self.sticky.overflow() {
            return Recorded::Overflow;
        }
        if self.records.contains(&refused.record()) {
            return Recorded::Collapsed;
        }
        let mut stored = false;
        self.signalling(out, |log| stored = log.store(refused));
        if stored {
            Recorded::Yes
        } else {
            Recorded::Overflow
        }
    }

    fn store(&mut self, refused: Refused) -> bool {
        let nothing_pending = self.first_pending().is_none();
        let free = self
            .records
            .get_mut(self.next)
            .filter(|(_, high)| !high.fault());
        let Some(record) = free else {
            self.sticky.set_overflow(true);
            return false;
        };
        *record = refused.record();
        if nothing_pending {
            self.first = self.next;
        }
        self.next = self.next.wrapping_add(1) % FAULT_RECORDS;
        true
    }

    /// IQE is raised.
    pub fn queue_error(&mut self, out: &mut Outbox) {
        self.signalling(out, |log| log.sticky.set_queue_error(true));
    }

    /// ITE is raised.
    pub fn timeout_error(&mut self, out: &mut Outbox) {
        self.signalling(out, |log| log.sticky.set_timeout_error(true));
    }

    /// ICE is raised.
    pub fn completion_error(&mut self, out: &mut Outbox) {
        self.signalling(out, |log| log.sticky.set_completion_error(true));
    }

    /// Is the queue stopped, by IQE or ITE?
    pub fn stops_queue(&self) -> bool {
        self.sticky.queue_error() || self.sticky.timeout_error()
    }

    pub fn read_low(&self, index: usize) -> u64 {
        self.records
            .get(index)
            .map_or(0, |(low, _)| low.into_bits())
    }

    pub fn read_high(&self, index: usize) -> u64 {
        self.records
            .get(index)
            .map_or(0, |(_, high)| high.into_bits())
    }

    /// Software writes the upper half of a record: F is cleared by writing 1.
    pub fn write_high(&mut self, index: usize, written: u64) {
        if let Some((_, high)) = self.records.get_mut(index) {
            if FaultRecordHigh::from_bits(written).fault() {
                high.set_fault(false);
            }
        }
        if self.is_settled() {
            self.signal.settle();
        }
    }

    /// Software writes FSTS: PFO, IQE, ICE and ITE are cleared by writing 1.
    pub fn write_status(&mut self, written: FaultStatus) {
        let clear = FaultStatus::new()
            .with_overflow(written.overflow())
            .with_queue_error(written.queue_error())
            .with_completion_error(written.completion_error())
            .with_timeout_error(written.timeout_error());
        self.sticky = FaultStatus::from_bits(self.sticky.into_bits() & !clear.into_bits());
        if self.is_settled() {
            self.signal.settle();
        }
    }
}

/// A saved state has the log, too.
impl FaultLog {
    /// What of FSTS does not follow from the records.
    const STICKY: FaultStatus = FaultStatus::new()
        .with_overflow(true)
        .with_queue_error(true)
        .with_completion_error(true)
        .with_timeout_error(true);

    /// Into a saved state.
    pub fn save(&self, section: &mut Section) {
        section.u32(self.sticky.into_bits());
        for place in [self.next, self.first] {
            section.u8(u8::try_from(place).unwrap_or(0));
        }
        for (low, high) in &self.records {
            section.u64(low.into_bits());
            section.u64(high.into_bits());
        }
        self.signal.save(section);
    }

    /// From a saved state.
    ///
    /// # Errors
    /// `EINVAL`: it cannot be so.
    pub fn load(fields: &mut Fields<'_>) -> Result<Self> {
        let mut log = Self {
            sticky: FaultStatus::from_bits(fields.bits32("FSTS", Self::STICKY.into_bits())?),
            ..Self::default()
        };
        log.next = place(fields, "the next fault record")?;
        log.first = place(fields, "the first fault record")?;
        for (index, record) in log.records.iter_mut().enumerate() {
            *record = load_record(fields, index)?;
        }
        log.signal = Signal::load(fields, "FE", ("FSTS", !log.is_settled()))?;
        Ok(log)
    }
}

fn place(fields: &mut Fields<'_>, name: &str) -> Result<usize> {
    let place = usize::from(fields.u8(name)?);
    check(place < FAULT_RECORDS, || {
        format!(
            "{name} is number {place}; there are 0 to {}",
            FAULT_RECORDS.saturating_sub(1)
        )
    })?;
    Ok(place)
}

/// A record is empty, or what [`Refused::record`] makes, pending or not.
fn load_record(fields: &mut Fields<'_>, index: usize) -> Result<(FaultRecordLow, FaultRecordHigh)> {
    let name = |half: &str| format!("the {half} half of fault record {index}");
    let known = FaultRecordLow::new().with_page(u64::MAX >> 12);
    let low = fields.bits64(&name("lower"), known.into_bits())?;
    let known = FaultRecordHigh::from_bits(u64::MAX);
    let known = FaultRecordHigh::new()
        .with_source_id(known.source_id())
        .with_type2(true)
        .with_privileged(true)
        .with_execute(true)
        .with_pasid_present(true)
        .with_reason(known.reason())
        .with_pasid(known.pasid())
        .with_address_type(known.address_type())
        .with_read(true)
        .with_fault(true);
    let bits = fields.bits64(&name("upper"), known.into_bits())?;
    let high = FaultRecordHigh::from_bits(bits);
    if (low, bits) == (0, 0) {
        return Ok((FaultRecordLow::new(), high));
    }
    check(FaultReason::is_code(high.reason()), || {
        format!(
            "fault record {index} has reason {:#x}, which is none",
            high.reason()
        )
    })?;
    check(!(high.type2() && high.read()), || {
        format!("fault record {index} has T1 and T2; a request is a write, a read or for a page")
    })?;
    check(high.address_type() < 3, || {
        format!("fault record {index} has AT 3; it is to be 0, 1 or 2")
    })?;
    let of_pasid = high.pasid() != 0 || high.privileged() || high.execute();
    check(high.pasid_present() || !of_pasid, || {
        format!("fault record {index} has a PASID, PRIV or EXE without PP; they are to be 0")
    })?;
    Ok((FaultRecordLow::from_bits(low), high))
}

impl Unit {
    /// Record a refused request, and count what became of it.
    pub(super) fn record_fault(&self, state: &mut State, refused: Refused, out: &mut Outbox) {
        match state.registers.faults.record(refused, out) {
            Recorded::Yes => {}
            Recorded::Collapsed => self.counters.faults_collapsed.add(1),
            Recorded::Overflow => self.counters.fault_overflows.add(1),
        }
    }
}
