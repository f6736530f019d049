//! What a device's tables map, for a VMM that shadows them.

use core::ops::{ControlFlow, RangeInclusive};

use super::Unit;
use crate::translate::enumerate::{Budget, Run, Stop, runs};
use crate::translate::tables::{Requester, lookup};
use crate::{Error, Result};

/// Most paging entries read for one enumeration: 64 GiB in pages of 4 KiB.
const MAX_ENTRIES: u64 = 1 << 24;

/// Why runs are no longer given.
enum End<B> {
    Limit,
    Visitor(B),
}

impl Unit {
    /// Visit what a device's requests without PASID, or with this one, can reach
    /// from the addresses of `range`, in maximal runs and rising order: at most
    /// `limit` of them, or any number with 0.
    ///
    /// The tables are read as they are now, whatever is cached; no bit is set in
    /// them, and nothing is recorded. While translation is off, in pass-through and
    /// where the tables refuse the device there is no run: the first two have no
    /// tables to shadow. No lock is held while `visit` is called.
    ///
    /// # Errors
    /// `ENOENT`: there is no such device. `EINVAL`: the range is empty. `E2BIG`:
    /// there are more runs than `limit`, or the tables have too many entries; the
    /// runs that were visited are good.
    pub fn for_each_mapping<B>(
        &self,
        handle: u32,
        pasid: Option<u32>,
        range: RangeInclusive<u64>,
        limit: u64,
        visit: &mut dyn FnMut(&Run) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let source_id = self.source_id_of(handle)?;
        let (first, last) = (*range.start(), *range.end());
        if first > last {
            return Err(Error::invalid(format!(
                "the first address {first:#x} is beyond the last, {last:#x}; they are the ends \
                 of a range"
            )));
        }
        let control = self.control.get();
        let requester = Requester {
            pasid,
            ..Requester::plain(source_id)
        };
        let memory = &*self.memory;
        let found = lookup(memory, &self.capabilities, control.root, requester);
        let Some(translated) = found.ok().filter(|_| control.enabled) else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut left = if limit == 0 { u64::MAX } else { limit };
        let budget = Budget::new(MAX_ENTRIES);
        let end = runs(memory, &translated.stages, range, &budget, &mut |run| {
            match left.checked_sub(1) {
                Some(rest) => left = rest,
                None => return ControlFlow::Break(End::Limit),
            }
            visit(run).map_break(End::Visitor)
        });
        match end {
            ControlFlow::Continue(()) => Ok(ControlFlow::Continue(())),
            ControlFlow::Break(Stop::Visitor(End::Visitor(value))) => Ok(ControlFlow::Break(value)),
            ControlFlow::Break(Stop::Visitor(End::Limit)) => Err(Error::new(
                libc::E2BIG,
                format!(
                    "there are more than {limit} mappings from {first:#x} to {last:#x}; raise the \
                     limit or ask for a smaller range"
                ),
            )),
            ControlFlow::Break(Stop::Exhausted) => Err(Error::new(
                libc::E2BIG,
                format!(
                    "the tables have more than {MAX_ENTRIES} entries from {first:#x} to \
                     {last:#x}; ask for a smaller range"
                ),
            )),
        }
    }
}
