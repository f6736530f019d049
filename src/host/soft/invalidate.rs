//! `IOMMU_HWPT_INVALIDATE`: what the driver makes of a guest's invalidations.

use std::sync::Arc;

use super::dispatch::Call;
use super::domain::Nested;
use super::inject::{Forgotten, Injection};
use super::objects::Kind as Object;
use super::{Kernel, State};
use crate::host::Errno;
use crate::host::uapi::{
    HwptInvalidate, INVALIDATE_DATA_VTD_S1, MAX_INVALIDATE_ENTRIES, MAX_INVALIDATE_ENTRY, Plain,
    VTD_INV_FLAGS_LEAF, VtdS1Invalidate,
};
use crate::memory::user;
use crate::spec::PAGE_SIZE;

/// `sizeof(struct iommu_hwpt_vtd_s1_invalidate)`.
const ENTRY_SIZE: u32 = 24;

/// Entries that are copied at a time.
const BATCH: u32 = 256;

/// What an entry covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    All,
    Pages { first: u64, pages: u64 },
}

/// The smallest naturally aligned power of two of pages that has the range
/// (`calculate_psi_aligned_address`).
fn hull(entry: &VtdS1Invalidate) -> Range {
    let first = entry.addr;
    let last = first
        .wrapping_add(entry.npages.wrapping_mul(PAGE_SIZE))
        .wrapping_sub(1);
    let bits = 64_u32.saturating_sub((first ^ last).leading_zeros());
    let shift = bits.max(PAGE_SIZE.trailing_zeros());
    match 1_u64.checked_shl(shift) {
        None => Range::All,
        Some(size) => Range::Pages {
            first: first & !size.wrapping_sub(1),
            pages: size / PAGE_SIZE,
        },
    }
}

/// The range as it was asked for.
fn exact(entry: &VtdS1Invalidate) -> Range {
    if entry.npages == u64::MAX {
        Range::All
    } else {
        Range::Pages {
            first: entry.addr,
            pages: entry.npages,
        }
    }
}

/// Judge an entry as `intel_nested_cache_invalidate_user` does.
fn check(entry: &VtdS1Invalidate) -> Result<(), Errno> {
    if entry.flags & !VTD_INV_FLAGS_LEAF != 0 || entry.reserved != 0 {
        return Err(libc::EOPNOTSUPP);
    }
    if entry.addr % PAGE_SIZE != 0 || (entry.npages == u64::MAX && entry.addr != 0) {
        return Err(libc::EINVAL);
    }
    Ok(())
}

impl State {
    /// The call. How many entries were handled is told also when it fails.
    pub(super) fn invalidate(
        &mut self,
        context: u64,
        call: &Call,
        injected: Option<&Injection>,
    ) -> Result<(), Errno> {
        let mut invalidate: HwptInvalidate = call.get();
        self.meters.invalidate_calls = self.meters.invalidate_calls.saturating_add(1);
        let limit = injected.map_or(u32::MAX, |injected| injected.handled);
        let (handled, result) = match self.invalidated_hwpt(context, &invalidate) {
            Ok(nested) => self.invalidate_entries(&nested, &invalidate, limit),
            Err(errno) => (0, Err(errno)),
        };
        invalidate.entry_num = handled;
        call.respond(&invalidate)?;
        result
    }

    fn invalidated_hwpt(
        &mut self,
        context: u64,
        invalidate: &HwptInvalidate,
    ) -> Result<Arc<Nested>, Errno> {
        let old = self.config.kernel == Kernel::V6_12;
        if invalidate.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let too_much = invalidate.entry_len > MAX_INVALIDATE_ENTRY
            || invalidate.entry_num as usize > MAX_INVALIDATE_ENTRIES;
        if invalidate.entry_num != 0
            && (invalidate.data_uptr == 0 || invalidate.entry_len == 0 || (too_much && !old))
        {
            return Err(libc::EINVAL);
        }
        let nested = match self.context(context)?.get(invalidate.hwpt_id) {
            Some(Object::Nested(hwpt)) => Arc::clone(&hwpt.domain),
            Some(_) if !old => return Err(libc::EINVAL),
            _ => return Err(libc::ENOENT),
        };
        if invalidate.data_type != INVALIDATE_DATA_VTD_S1 {
            return Err(libc::EINVAL);
        }
        Ok(nested)
    }

    /// Do the entries one after another. Gives how many were done before one was refused.
    fn invalidate_entries(
        &mut self,
        nested: &Nested,
        invalidate: &HwptInvalidate,
        limit: u32,
    ) -> (u32, Result<(), Errno>) {
        let number = invalidate.entry_num.min(limit);
        if number != 0 && invalidate.entry_len != ENTRY_SIZE {
            return (0, Err(libc::EINVAL));
        }
        let mut done = 0;
        let mut bytes = vec![0; BATCH.min(number).saturating_mul(ENTRY_SIZE) as usize];
        while done < number {
            let from = invalidate
                .data_uptr
                .wrapping_add(u64::from(done).wrapping_mul(ENTRY_SIZE.into()));
            let wanted = number.saturating_sub(done).min(BATCH);
            let (batch, readable) = read_entries(&mut bytes, from, wanted);
            for entry in batch.chunks_exact(ENTRY_SIZE as usize) {
                let entry = VtdS1Invalidate::from_bytes(entry);
                if let Err(errno) = check(&entry) {
                    return (done, Err(errno));
                }
                self.forget(nested, invalidate.hwpt_id, &entry);
                done = done.saturating_add(1);
            }
            if !readable {
                return (done, Err(libc::EFAULT));
            }
        }
        (done, Ok(()))
    }

    fn forget(&mut self, nested: &Nested, hwpt: u32, entry: &VtdS1Invalidate) {
        let wide = self.config.quirks.wide_invalidation;
        let empty = entry.npages == 0 && entry.addr != 0;
        let range = if wide && empty && self.config.kernel == Kernel::V6_12 {
            // Its way of counting pages makes it one.
            hull(&VtdS1Invalidate {
                npages: 1,
                ..*entry
            })
        } else if wide {
            hull(entry)
        } else {
            exact(entry)
        };
        let cache = &self.hardware.cache;
        for tag in nested.tags.lock().iter() {
            match range {
                Range::All => cache.invalidate_all(tag),
                Range::Pages { first, pages } => {
                    let _looked_at = cache.invalidate_range(tag, first, pages, false);
                }
            }
        }
        self.meters.forgot(Forgotten {
            hwpt,
            address: entry.addr,
            pages: entry.npages,
        });
    }
}

/// As many of `wanted` entries as can be read, and whether that is all of them.
fn read_entries(bytes: &mut [u8], from: u64, wanted: u32) -> (&[u8], bool) {
    let size = ENTRY_SIZE as usize;
    let length = size.saturating_mul(wanted as usize);
    let whole = bytes.get_mut(..length).unwrap_or_default();
    if user::read(from, whole).is_ok() {
        return (bytes.get(..length).unwrap_or_default(), true);
    }
    // One by one, to find the one that cannot.
    let mut read = 0_usize;
    for entry in bytes.chunks_exact_mut(size).take(wanted as usize) {
        if user::read(from.wrapping_add(read as u64), entry).is_err() {
            break;
        }
        read = read.saturating_add(size);
    }
    (bytes.get(..read).unwrap_or_default(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(addr: u64, npages: u64) -> VtdS1Invalidate {
        VtdS1Invalidate {
            addr,
            npages,
            flags: 0,
            reserved: 0,
        }
    }

    fn pages(first: u64, pages: u64) -> Range {
        Range::Pages { first, pages }
    }

    #[test]
    fn ranges_grow_to_a_power_of_two() {
        assert_eq!(hull(&entry(0x5000, 1)), pages(0x5000, 1));
        assert_eq!(hull(&entry(0x5000, 2)), pages(0x4000, 4));
        assert_eq!(hull(&entry(0x7000, 2)), pages(0, 16));
        assert_eq!(hull(&entry(0, u64::MAX)), Range::All);
        assert_eq!(hull(&entry(0, 0)), Range::All);
        assert_eq!(
            hull(&entry(0x1000, 0)),
            pages(0, 2),
            "the last byte is before it"
        );
        assert_eq!(hull(&entry(0, 1 << 52)), Range::All, "2^64 wraps to 0");
        assert_eq!(hull(&entry(0x7fff_ffff_f000, 2)), pages(0, 1 << 36));
    }
}
