//! An I/O address space: maps, reservations, alignment, and the domains that have its maps
//! (the kernel's `io_pagetable`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::domain::Paging;
use crate::cache::translations::TranslationCache;
use crate::host::Errno;
use crate::memory::pinned::{FilePages, PinRights, PinnedMemory};
use crate::spec::PAGE_SIZE;

/// Maps without a fixed address are aligned to this much at most: the processor's large
/// page.
const MAX_ALIGNMENT: u64 = 2 << 20;

/// Where a map's memory comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The process's memory.
    User,
    /// A file.
    File(Arc<FilePages>),
}

/// Memory that was handed over by one map, and that copies of the map share.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    /// It was handed over for writing.
    pub writable: bool,
    pub source: Source,
}

/// A part of such memory.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub pages: Pages,
    /// First byte of the part in the process.
    pub address: u64,
    pub length: u64,
}

/// One map.
#[derive(Debug, Clone)]
pub(super) struct Area {
    pub last: u64,
    pub slice: Slice,
    pub rights: PinRights,
}

/// Who reserved a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A device that is attached, by its file.
    Device(i32),
    /// A domain, for what is beyond its aperture.
    Domain(u64),
}

#[derive(Debug, Clone, Copy)]
struct Reserved {
    first: u64,
    last: u64,
    owner: Owner,
}

/// Where a map is to go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Fixed(u64),
    Anywhere,
}

/// What memory must be to be given to the hardware.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Writable, below a nesting parent.
    pub refuse_read_only: bool,
    /// No more than so many bytes.
    pub room: u64,
}

/// An IOAS.
#[derive(Debug)]
pub(super) struct Ioas {
    areas: BTreeMap<u64, Area>,
    reserved: Vec<Reserved>,
    allowed: Vec<(u64, u64)>,
    pub alignment: u64,
    pub small_pages: bool,
    domains: Vec<Arc<Paging>>,
    /// HWPTs on it, in the order of their making.
    pub hwpts: Vec<u32>,
    /// The maps as the hardware has them, while there is a domain.
    pub pins: Arc<PinnedMemory>,
}

impl Default for Ioas {
    fn default() -> Self {
        Self {
            areas: BTreeMap::new(),
            reserved: Vec::new(),
            allowed: Vec::new(),
            alignment: 1,
            small_pages: false,
            domains: Vec::new(),
            hwpts: Vec::new(),
            pins: Arc::default(),
        }
    }
}

/// Last address of `length` bytes from `first` on; `length` is not 0.
pub(super) fn last_of(first: u64, length: u64) -> Result<u64, Errno> {
    first
        .checked_add(length.wrapping_sub(1))
        .ok_or(libc::EOVERFLOW)
}

/// Is it a multiple of a power of two?
fn is_aligned(value: u64, alignment: u64) -> bool {
    value & alignment.wrapping_sub(1) == 0
}

/// The ranges between `first` and `last` that none of the sorted `used` touches.
fn holes(used: &[(u64, u64)], first: u64, last: u64) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut from = Some(first);
    for &(used_first, used_last) in used {
        let Some(start) = from else { break };
        if used_last < start {
            continue;
        }
        if used_first > last {
            break;
        }
        if used_first > start {
            holes.push((start, used_first.wrapping_sub(1)));
        }
        from = used_last.checked_add(1);
    }
    if let Some(start) = from.filter(|&start| start <= last) {
        holes.push((start, last));
    }
    holes
}

impl Ioas {
    /// Bytes mapped.
    pub fn bytes(&self) -> u64 {
        self.areas
            .values()
            .fold(0, |sum: u64, area| sum.saturating_add(area.slice.length))
    }

    pub fn areas(&self) -> impl Iterator<Item = (u64, &Area)> {
        self.areas.iter().map(|(&first, area)| (first, area))
    }

    fn reserves(&self, first: u64, last: u64) -> bool {
        self.reserved
            .iter()
            .any(|range| range.first <= last && first <= range.last)
    }

    /// The first map that touches the range.
    fn touched(&self, first: u64, last: u64) -> Option<(u64, &Area)> {
        let before = self.areas.range(..first).next_back();
        if let Some((&start, area)) = before.filter(|(_, area)| area.last >= first) {
            return Some((start, area));
        }
        let (&start, area) = self.areas.range(first..=last).next()?;
        Some((start, area))
    }

    fn sorted_reserved(&self) -> Vec<(u64, u64)> {
        let mut used: Vec<_> = self
            .reserved
            .iter()
            .map(|range| (range.first, range.last))
            .collect();
        used.sort_unstable();
        used
    }

    /// Ranges that can be mapped (`IOMMU_IOAS_IOVA_RANGES`).
    pub fn usable(&self) -> Vec<(u64, u64)> {
        holes(&self.sorted_reserved(), 0, u64::MAX)
    }

    /// `IOMMU_IOAS_ALLOW_IOVAS`.
    pub fn allow(&mut self, allowed: Vec<(u64, u64)>) -> Result<(), Errno> {
        if allowed
            .iter()
            .any(|&(first, last)| self.reserves(first, last))
        {
            return Err(libc::EADDRINUSE);
        }
        self.allowed = allowed;
        self.allowed.sort_unstable();
        Ok(())
    }

    /// Reserve a range (`iopt_reserve_iova`).
    pub fn reserve(&mut self, first: u64, last: u64, owner: Owner) -> Result<(), Errno> {
        let allowed = self
            .allowed
            .iter()
            .any(|&(from, to)| from <= last && first <= to);
        if allowed || self.touched(first, last).is_some() {
            return Err(libc::EADDRINUSE);
        }
        self.reserved.push(Reserved { first, last, owner });
        Ok(())
    }

    pub fn unreserve(&mut self, owner: Owner) {
        self.reserved.retain(|range| range.owner != owner);
    }

    /// Room for a map without a fixed address (`iopt_alloc_iova`). Neither the first nor
    /// the last page of the address space is ever given.
    fn find_room(&self, address: u64, length: u64) -> Result<u64, Errno> {
        if length == 0 || length >= u64::MAX / 2 {
            return Err(libc::EOVERFLOW);
        }
        let mut alignment = length.checked_next_power_of_two().unwrap_or(MAX_ALIGNMENT);
        if address != 0 {
            alignment = alignment.min(address & address.wrapping_neg());
        }
        let alignment = alignment.min(MAX_ALIGNMENT);
        if alignment < self.alignment {
            return Err(libc::EINVAL);
        }
        let offset = address % PAGE_SIZE;
        let fit = |first: u64, last: u64| {
            let start = first.checked_next_multiple_of(alignment)? | offset;
            let fits = start < last && last.wrapping_sub(start) >= length.wrapping_sub(1);
            fits.then_some(start)
        };
        let edge = (PAGE_SIZE, u64::MAX.wrapping_sub(PAGE_SIZE));
        let allowed = if self.allowed.is_empty() {
            vec![edge]
        } else {
            self.allowed
                .iter()
                .map(|&(first, last)| (first.max(edge.0), last.min(edge.1)))
                .filter(|&(first, last)| first <= last)
                .collect()
        };
        let mut used = self.sorted_reserved();
        used.extend(self.areas().map(|(first, area)| (first, area.last)));
        used.sort_unstable();
        allowed
            .into_iter()
            .filter_map(|(first, last)| Some((fit(first, last)?, last)))
            .flat_map(|(first, last)| holes(&used, first, last))
            .find_map(|(first, last)| fit(first, last))
            .ok_or(libc::ENOSPC)
    }

    fn check_fixed(&self, iova: u64, length: u64) -> Result<u64, Errno> {
        if !is_aligned(iova, self.alignment) {
            return Err(libc::EINVAL);
        }
        let last = last_of(iova, length)?;
        if self.reserves(iova, last) {
            return Err(libc::EINVAL);
        }
        if self.touched(iova, last).is_some() {
            return Err(libc::EEXIST);
        }
        Ok(iova)
    }

    /// Map slices one after another (`iopt_map_pages`). Gives their address.
    pub fn map(
        &mut self,
        slices: Vec<Slice>,
        place: Place,
        rights: PinRights,
        limits: Limits,
    ) -> Result<u64, Errno> {
        let length = slices
            .iter()
            .try_fold(0_u64, |sum, slice| sum.checked_add(slice.length))
            .ok_or(libc::EOVERFLOW)?;
        if length == 0 || !is_aligned(length, self.alignment) {
            return Err(libc::EINVAL);
        }
        let iova = match place {
            Place::Fixed(iova) => self.check_fixed(iova, length)?,
            Place::Anywhere => {
                let address = slices.first().map_or(0, |slice| slice.address);
                self.find_room(address, length)?
            }
        };
        let mut areas = Vec::with_capacity(slices.len());
        let mut first = iova;
        for slice in slices {
            if rights.write && !slice.pages.writable {
                return Err(libc::EPERM);
            }
            if !is_aligned(slice.address % PAGE_SIZE, self.alignment) {
                return Err(libc::EINVAL);
            }
            let last = last_of(first, slice.length)?;
            areas.push((
                first,
                Area {
                    last,
                    slice,
                    rights,
                },
            ));
            first = last.wrapping_add(1);
        }
        if !self.domains.is_empty() {
            for (index, (first, area)) in areas.iter().enumerate() {
                if let Err(errno) = self.pin(*first, area, limits.refuse_read_only) {
                    self.unpin(areas.get(..index).unwrap_or_default());
                    return Err(errno);
                }
            }
            if length > limits.room {
                self.unpin(&areas);
                return Err(libc::ENOMEM);
            }
        }
        self.areas.extend(areas);
        Ok(iova)
    }

    fn unpin(&self, areas: &[(u64, Area)]) {
        for (first, _) in areas {
            self.pins.remove(*first);
        }
    }

    /// Give an area to the hardware.
    fn pin(&self, first: u64, area: &Area, refuse_read_only: bool) -> Result<(), Errno> {
        let file = match &area.slice.source() {
            Source::User => None,
            Source::File(file) => Some(Arc::clone(file)),
        };
        let slice = &area.slice;
        self.pins
            .insert(first, slice.address, slice.length, area.rights, file)
            .map_err(|_| libc::EFAULT)?;
        let parent = self.domains.iter().any(|domain| domain.nest_parent);
        if refuse_read_only && parent && !area.rights.write {
            self.pins.remove(first);
            return Err(libc::EINVAL);
        }
        Ok(())
    }

    /// The memory behind a range that is mapped without a gap (`iopt_get_pages`).
    pub fn slices(&self, first: u64, length: u64) -> Result<Vec<Slice>, Errno> {
        if length == 0 {
            return Err(libc::EINVAL);
        }
        let last = last_of(first, length)?;
        let mut slices = Vec::new();
        let mut at = first;
        loop {
            let (start, area) = self.touched(at, at).ok_or(libc::ENOENT)?;
            let offset = at.wrapping_sub(start);
            let end = area.last.min(last);
            slices.push(Slice {
                pages: area.slice.pages.clone(),
                address: area.slice.address.wrapping_add(offset),
                length: end.wrapping_sub(at).wrapping_add(1),
            });
            if end == last {
                return Ok(slices);
            }
            at = end.wrapping_add(1);
        }
    }

    /// Unmap what is wholly within the range (`iopt_unmap_iova_range`). Gives the bytes,
    /// and the error that stopped it.
    pub fn unmap(
        &mut self,
        mut first: u64,
        last: u64,
        cache: &TranslationCache,
    ) -> (u64, Result<(), Errno>) {
        let mut bytes = 0_u64;
        while let Some((start, area)) = self.touched(first, last) {
            let (end, length) = (area.last, area.slice.length);
            if start < first || end > last {
                return (bytes, Err(libc::ENOENT));
            }
            self.areas.remove(&start);
            if !self.domains.is_empty() {
                self.pins.remove(start);
                for domain in &self.domains {
                    if let Some(dirty) = &domain.dirty {
                        dirty.clear(start, end);
                    }
                    domain.forget_cached(cache);
                }
            }
            bytes = bytes.saturating_add(length);
            if end >= last {
                break;
            }
            first = end.wrapping_add(1);
        }
        (bytes, Ok(()))
    }

    /// A domain is to have the maps (`iopt_table_add_domain`).
    pub fn add_domain(&mut self, domain: Arc<Paging>, limits: Limits) -> Result<(), Errno> {
        let alignment = self.alignment.max(PAGE_SIZE);
        if alignment != self.alignment {
            let fits = |(first, area): (u64, &Area)| {
                let of_page = area.slice.address % PAGE_SIZE;
                [first, area.slice.length, of_page]
                    .iter()
                    .all(|&value| is_aligned(value, alignment))
            };
            if !self.areas().all(fits) {
                return Err(libc::EADDRINUSE);
            }
        }
        let owner = Owner::Domain(domain.key);
        if let Some(beyond) = domain.format.aperture_last().checked_add(1) {
            self.reserve(beyond, u64::MAX, owner)?;
        }
        if let Err(errno) = self.fill(&domain, limits) {
            self.unreserve(owner);
            return Err(errno);
        }
        self.alignment = alignment;
        self.domains.push(domain);
        Ok(())
    }

    /// Give all maps to a new domain.
    fn fill(&self, domain: &Paging, limits: Limits) -> Result<(), Errno> {
        for (first, area) in self.areas() {
            let refused = domain.nest_parent && limits.refuse_read_only && !area.rights.write;
            let result = if self.domains.is_empty() {
                self.pin(first, area, false)
            } else {
                Ok(())
            };
            let result = result.and(if refused { Err(libc::EINVAL) } else { Ok(()) });
            if result.is_err() {
                if self.domains.is_empty() {
                    self.pins.clear();
                }
                return result;
            }
        }
        if self.domains.is_empty() && self.bytes() > limits.room {
            self.pins.clear();
            return Err(libc::ENOMEM);
        }
        Ok(())
    }

    pub fn has_domains(&self) -> bool {
        !self.domains.is_empty()
    }

    /// A domain ends (`iopt_table_remove_domain`).
    pub fn remove_domain(&mut self, key: u64) {
        self.domains.retain(|domain| domain.key != key);
        self.unreserve(Owner::Domain(key));
        if self.domains.is_empty() {
            self.pins.clear();
        }
        self.realign();
    }

    /// The alignment that domains and options ask for.
    fn realign(&mut self) {
        self.alignment = if self.domains.is_empty() && !self.small_pages {
            1
        } else {
            PAGE_SIZE
        };
    }

    /// `IOMMU_OPTION_HUGE_PAGES`.
    pub fn set_small_pages(&mut self, small: bool) -> Result<(), Errno> {
        if small && !self.small_pages {
            if !self.domains.is_empty() && !self.areas.is_empty() {
                return Err(libc::EINVAL);
            }
            let aligned = |(first, area): (u64, &Area)| {
                [first, area.slice.length, area.slice.address]
                    .iter()
                    .all(|value| value % PAGE_SIZE == 0)
            };
            if !self.areas().all(aligned) {
                return Err(libc::EADDRINUSE);
            }
        }
        self.small_pages = small;
        self.realign();
        Ok(())
    }

    /// The maps that follow each other without a gap from `first` on, cut to `last`.
    pub fn contiguous(&self, first: u64, last: u64) -> Option<u64> {
        let mut covered = None;
        let mut at = first;
        while let Some((_, area)) = self.touched(at, at) {
            let end = area.last.min(last);
            covered = Some(end);
            match end.checked_add(1).filter(|_| end < last) {
                Some(next) => at = next,
                None => break,
            }
        }
        covered
    }
}

impl Slice {
    fn source(&self) -> &Source {
        &self.pages.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_what_is_left() {
        assert_eq!(holes(&[], 0, u64::MAX), [(0, u64::MAX)]);
        assert_eq!(holes(&[(0, u64::MAX)], 0, u64::MAX), []);
        assert_eq!(
            holes(&[(10, 19), (15, 29), (40, u64::MAX)], 0, u64::MAX),
            [(0, 9), (30, 39)]
        );
        assert_eq!(holes(&[(0, 4), (50, 60)], 3, 55), [(5, 49)]);
    }
}
