//! Failures on purpose, and what the twin counts.

use std::collections::BTreeMap;

use super::Twin;
use crate::host::Errno;

/// Requests that [`Twin::record`] keeps at most.
const MAX_RECORDED: usize = 1 << 20;

/// Ranges that [`Twin::record_forgotten`] keeps at most.
const MAX_FORGOTTEN: usize = 1 << 20;

/// Kinds of objects, in the order of [`TwinStats`].
const KINDS: usize = 5;

/// [`Injection::request`] for opening `/dev/iommu` through [`System`].
///
/// [`System`]: crate::host::ioctl::System
pub const OPEN: u32 = 1;

/// [`Injection::request`] for reading a file.
pub const READ: u32 = 2;

/// A call that is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injection {
    /// Calls from now on that still go through.
    pub skip: u64,
    /// Count and fail only these, ioctls or [`OPEN`] or [`READ`]; else every ioctl.
    pub request: Option<u32>,
    /// Its errno.
    pub errno: Errno,
    /// `IOMMU_HWPT_INVALIDATE`: entries that are done before it fails, and reported.
    pub handled: u32,
    /// Attaching leaves the hardware blocked, as a late failure of the driver does; else
    /// nothing changes.
    pub blocked: bool,
    /// How many calls fail.
    pub times: u64,
}

/// How often a request was made, and how often it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallCount {
    /// Calls.
    pub calls: u64,
    /// Those that failed.
    pub errors: u64,
}

/// What the twin has seen since it was made, and what there is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TwinStats {
    /// ioctls by request; and [`OPEN`] and [`READ`], of which only injected errors count.
    pub calls: BTreeMap<u32, CallCount>,
    /// IOAS objects that exist.
    pub ioas: u64,
    /// `HWPT_PAGING` objects that exist.
    pub paging: u64,
    /// `HWPT_NESTED` objects that exist.
    pub nested: u64,
    /// Fault queues that exist.
    pub fault_queues: u64,
    /// Bound devices.
    pub devices: u64,
    /// Most IOAS objects at a time.
    pub peak_ioas: u64,
    /// Most `HWPT_PAGING` objects at a time.
    pub peak_paging: u64,
    /// Most `HWPT_NESTED` objects at a time.
    pub peak_nested: u64,
    /// Bytes mapped into IOAS objects.
    pub mapped: u64,
    /// Bytes ever mapped.
    pub ever_mapped: u64,
    /// `IOMMU_HWPT_INVALIDATE` calls.
    pub invalidate_calls: u64,
    /// Entries of these that were done.
    pub invalidate_entries: u64,
    /// DMA requests.
    pub dmas: u64,
    /// Those that were refused.
    pub faults: u64,
    /// Cached translations that were used although the tables say otherwise.
    pub stale_uses: u64,
    /// Page requests.
    pub page_requests: u64,
    /// Page groups answered, by software or by the kernel on its own.
    pub page_responses: u64,
}

/// A range that an HWPT was told to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// The HWPT's ID.
    pub hwpt: u32,
    /// First address as asked.
    pub address: u64,
    /// Pages of 4 KiB as asked; all ones for everything.
    pub pages: u64,
}

/// Counters and injections of the kernel's side.
#[derive(Debug, Default)]
pub(super) struct Meters {
    calls: BTreeMap<u32, CallCount>,
    total: u64,
    recorded: Option<Vec<u32>>,
    forgotten: Option<Vec<Forgotten>>,
    injections: Vec<Injection>,
    live: [u64; KINDS],
    peak: [u64; KINDS],
    mapped: u64,
    ever_mapped: u64,
    pub invalidate_calls: u64,
    pub invalidate_entries: u64,
    pub page_requests: u64,
    pub page_responses: u64,
}

impl Meters {
    pub fn born(&mut self, kind: usize) {
        if let (Some(live), Some(peak)) = (self.live.get_mut(kind), self.peak.get_mut(kind)) {
            *live = live.saturating_add(1);
            *peak = (*peak).max(*live);
        }
    }

    pub fn died(&mut self, kind: usize) {
        if let Some(live) = self.live.get_mut(kind) {
            *live = live.saturating_sub(1);
        }
    }

    pub fn mapped(&mut self, bytes: u64) {
        self.mapped = self.mapped.saturating_add(bytes);
        self.ever_mapped = self.ever_mapped.saturating_add(bytes);
    }

    pub fn unmapped(&mut self, bytes: u64) {
        self.mapped = self.mapped.saturating_sub(bytes);
    }

    /// A call came back.
    pub fn called(&mut self, request: u32, error: Option<Errno>) {
        self.total = self.total.saturating_add(1);
        let count = self.calls.entry(request).or_default();
        count.calls = count.calls.saturating_add(1);
        count.errors = count.errors.saturating_add(u64::from(error.is_some()));
        if let Some(recorded) = &mut self.recorded {
            if recorded.len() < MAX_RECORDED {
                recorded.push(request);
            }
        }
    }

    /// An invalidation entry was done.
    pub fn forgot(&mut self, forgotten: Forgotten) {
        self.invalidate_entries = self.invalidate_entries.saturating_add(1);
        if let Some(log) = &mut self.forgotten {
            if log.len() < MAX_FORGOTTEN {
                log.push(forgotten);
            }
        }
    }

    /// Is this call, which is no ioctl, to fail?
    pub fn injected_other(&mut self, request: u32) -> Result<(), Errno> {
        let injection = self.due(|injection| injection.request == Some(request));
        let count = self.calls.entry(request).or_default();
        count.calls = count.calls.saturating_add(1);
        count.errors = count.errors.saturating_add(u64::from(injection.is_some()));
        injection.map_or(Ok(()), |injection| Err(injection.errno))
    }

    /// Is this ioctl to fail?
    pub fn injected(&mut self, request: u32) -> Option<Injection> {
        self.due(|injection| injection.request.is_none_or(|only| only == request))
    }

    /// The injection that a call is due for, of those that count it.
    fn due(&mut self, counts: impl Fn(&Injection) -> bool) -> Option<Injection> {
        let mut hit = None;
        for injection in self.injections.iter_mut().filter(|it| counts(it)) {
            if injection.skip > 0 {
                injection.skip = injection.skip.saturating_sub(1);
            } else if hit.is_none() {
                injection.times = injection.times.saturating_sub(1);
                hit = Some(*injection);
            }
        }
        self.injections.retain(|injection| injection.times > 0);
        hit
    }
}

impl Twin {
    /// Is `/dev/iommu` to be opened?
    pub(in crate::host) fn may_open(&self) -> Result<(), Errno> {
        self.state.lock().meters.injected_other(OPEN)
    }

    /// Let calls fail. Several injections count side by side; the first one that is due
    /// decides. One with `times` 0 does nothing.
    pub fn inject(&self, injection: Injection) {
        if injection.times > 0 {
            self.state.lock().meters.injections.push(injection);
        }
    }

    /// Forget all injections that have not fired.
    pub fn clear_injections(&self) {
        self.state.lock().meters.injections.clear();
    }

    /// ioctls so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().meters.total
    }

    /// ioctls with this number so far.
    pub fn count(&self, request: u32) -> CallCount {
        let state = self.state.lock();
        state
            .meters
            .calls
            .get(&request)
            .copied()
            .unwrap_or_default()
    }

    /// Keep the requests of the ioctls from now on, or stop. At most 2^20 are kept.
    pub fn record(&self, on: bool) {
        self.state.lock().meters.recorded = on.then(Vec::new);
    }

    /// The requests kept since the last look.
    pub fn recorded(&self) -> Vec<u32> {
        let mut state = self.state.lock();
        state
            .meters
            .recorded
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Keep what HWPTs are told to forget from now on, or stop. At most 2^20 are kept.
    pub fn record_forgotten(&self, on: bool) {
        self.state.lock().meters.forgotten = on.then(Vec::new);
    }

    /// What was kept since the last look.
    pub fn forgotten(&self) -> Vec<Forgotten> {
        let mut state = self.state.lock();
        state
            .meters
            .forgotten
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Counters.
    pub fn stats(&self) -> TwinStats {
        let state = self.state.lock();
        let meters = &state.meters;
        let [ioas, paging, nested, fault_queues, devices] = meters.live;
        let [peak_ioas, peak_paging, peak_nested, ..] = meters.peak;
        TwinStats {
            calls: meters.calls.clone(),
            ioas,
            paging,
            nested,
            fault_queues,
            devices,
            peak_ioas,
            peak_paging,
            peak_nested,
            mapped: meters.mapped,
            ever_mapped: meters.ever_mapped,
            invalidate_calls: meters.invalidate_calls,
            invalidate_entries: meters.invalidate_entries,
            page_requests: meters.page_requests,
            page_responses: meters.page_responses,
            dmas: self.hardware.dmas(),
            faults: self.hardware.faults(),
            stale_uses: self.hardware.stale_uses(),
        }
    }
}
