//! Dirty tracking of second stages: `IOMMU_HWPT_SET_DIRTY_TRACKING` and
//! `IOMMU_HWPT_GET_DIRTY_BITMAP`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::State;
use super::dispatch::Call;
use super::domain::Paging;
use super::ioas::last_of;
use crate::host::Errno;
use crate::host::uapi::{
    DIRTY_BITMAP_NO_CLEAR, DIRTY_TRACKING_ENABLE, GetDirtyBitmap, SetDirtyTracking,
};
use crate::memory::user;
use crate::spec::PAGE_SIZE;

/// Bits in a byte of the bitmap.
const BITS: u64 = 8;

impl State {
    /// An `HWPT_PAGING` and its IOAS.
    fn tracked(&mut self, context: u64, hwpt: u32) -> Result<(Arc<Paging>, u32), Errno> {
        let hwpt = self.context(context)?.paging(hwpt)?;
        Ok((Arc::clone(&hwpt.domain), hwpt.ioas))
    }

    pub(super) fn set_dirty_tracking(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let set: SetDirtyTracking = call.get();
        if set.flags & !DIRTY_TRACKING_ENABLE != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let (domain, _) = self.tracked(context, set.hwpt_id)?;
        let dirty = domain.dirty.as_ref().ok_or(libc::EOPNOTSUPP)?;
        let enable = set.flags & DIRTY_TRACKING_ENABLE != 0;
        if enable {
            dirty.clear(0, u64::MAX);
        }
        dirty.set_tracking(enable);
        domain.forget_cached(&self.hardware.cache);
        Ok(())
    }

    pub(super) fn get_dirty_bitmap(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let get: GetDirtyBitmap = call.get();
        if get.flags & !DIRTY_BITMAP_NO_CLEAR != 0 || get.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let (domain, ioas) = self.tracked(context, get.hwpt_id)?;
        let ioas = self.context(context)?.ioas(ioas)?;
        if get.length == 0 {
            return Err(libc::EINVAL);
        }
        let last = check_range(&get, ioas.alignment)?;
        let dirty = domain.dirty.as_ref().ok_or(libc::EOPNOTSUPP)?;
        // What follows a gap between maps is left out, and nobody is told.
        let Some(last) = ioas.contiguous(get.iova, last) else {
            return Ok(());
        };
        report(&get, &dirty.marked(get.iova, last));
        if get.flags & DIRTY_BITMAP_NO_CLEAR == 0 {
            dirty.clear(get.iova, last);
            domain.forget_cached(&self.hardware.cache);
        }
        Ok(())
    }
}

/// `iommufd_check_iova_range`; the length is not 0. Gives the last address.
fn check_range(get: &GetDirtyBitmap, alignment: u64) -> Result<u64, Errno> {
    let last = last_of(get.iova, get.length)?;
    let end = last.wrapping_add(1);
    let misaligned = |mask: u64| (get.iova | end) & mask != 0;
    if misaligned(alignment.wrapping_sub(1))
        || get.page_size == 0
        || misaligned(get.page_size.wrapping_sub(1))
    {
        return Err(libc::EINVAL);
    }
    Ok(last)
}

/// Set the bits of dirty pages. Where the bitmap is not in memory its bits are lost.
fn report(get: &GetDirtyBitmap, pages: &[u64]) {
    let shift = get.page_size.trailing_zeros();
    let mut bytes: BTreeMap<u64, u8> = BTreeMap::new();
    for &page in pages {
        let first = page.wrapping_sub(get.iova) >> shift;
        let last = page
            .wrapping_sub(get.iova)
            .wrapping_add(PAGE_SIZE.wrapping_sub(1))
            >> shift;
        for bit in first..=last {
            let mask = 1_u8.wrapping_shl(u32::try_from(bit % BITS).unwrap_or(0));
            *bytes.entry(bit / BITS).or_default() |= mask;
        }
    }
    for (offset, mask) in bytes {
        let at = get.data.wrapping_add(offset);
        let mut byte = [0];
        if user::read(at, &mut byte).is_ok() {
            let [old] = byte;
            // The kernel drops this error, too.
            let _ = user::write(at, &[old | mask]);
        }
    }
}
