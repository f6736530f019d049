//! `IOMMU_IOAS_*`, `IOMMU_OPTION` and `IOMMU_VFIO_IOAS`.

use super::State;
use super::dispatch::Call;
use super::ioas::{Limits, Pages, Place, Slice, Source, last_of};
use super::objects::Kind;
use crate::host::Errno;
use crate::host::uapi::{
    IoasAlloc, IoasAllowIovas, IoasChangeProcess, IoasCopy, IoasIovaRanges, IoasMap, IoasMapFile,
    IoasUnmap, IommuOption, IovaRange, MAP_FIXED_IOVA, MAP_READABLE, MAP_WRITEABLE, Plain,
    VfioIoas,
};
use crate::memory::pinned::{FilePages, PinRights};
use crate::memory::user;
use crate::spec::PAGE_SIZE;

const MAP_FLAGS: u32 = MAP_FIXED_IOVA | MAP_WRITEABLE | MAP_READABLE;

/// `IOMMU_OPTION_RLIMIT_MODE` and `IOMMU_OPTION_HUGE_PAGES`.
const OPTION_RLIMIT_MODE: u32 = 0;
const OPTION_HUGE_PAGES: u32 = 1;
/// `IOMMU_OPTION_OP_SET` and `IOMMU_OPTION_OP_GET`.
const OPTION_SET: u16 = 0;
const OPTION_GET: u16 = 1;
/// `IOMMU_VFIO_IOAS_GET`, `SET` and `CLEAR`.
const VFIO_IOAS_GET: u16 = 0;
const VFIO_IOAS_SET: u16 = 1;
const VFIO_IOAS_CLEAR: u16 = 2;

/// Bytes of a `struct iommu_iova_range`.
const RANGE_SIZE: usize = 16;
/// Offset of `val64` in a `struct iommu_option`.
const OPTION_VALUE: u64 = 16;

fn rights(flags: u32) -> Result<PinRights, Errno> {
    let rights = PinRights {
        read: flags & MAP_READABLE != 0,
        write: flags & MAP_WRITEABLE != 0,
    };
    if rights.read || rights.write {
        Ok(rights)
    } else {
        Err(libc::EINVAL)
    }
}

fn place(flags: u32, iova: u64) -> Place {
    if flags & MAP_FIXED_IOVA != 0 {
        Place::Fixed(iova)
    } else {
        Place::Anywhere
    }
}

/// All ones stands for other things than an address or a length.
fn no_all_ones(values: &[u64]) -> Result<(), Errno> {
    if values.contains(&u64::MAX) {
        Err(libc::EOVERFLOW)
    } else {
        Ok(())
    }
}

/// Lengths that an allocation of pages takes (`iopt_alloc_pages`).
fn check_length(length: u64) -> Result<(), Errno> {
    if length == 0 || length > u64::MAX.wrapping_sub(PAGE_SIZE) {
        Err(libc::EINVAL)
    } else {
        Ok(())
    }
}

impl State {
    pub(super) fn ioas_alloc(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut alloc: IoasAlloc = call.get();
        if alloc.flags != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        alloc.out_ioas_id = self.context(context)?.free_id()?;
        call.respond(&alloc)?;
        self.insert(context, Kind::Ioas(Box::default())).map(|_| ())
    }

    pub(super) fn ioas_iova_ranges(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut ranges: IoasIovaRanges = call.get();
        if ranges.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let ioas = self.context(context)?.ioas(ranges.ioas_id)?;
        let room = ranges.num_iovas;
        ranges.num_iovas = 0;
        ranges.out_iova_alignment = ioas.alignment;
        let mut to = ranges.allowed_iovas;
        for (start, last) in ioas.usable() {
            if ranges.num_iovas < room {
                let range = IovaRange { start, last }.to_bytes();
                user::write(to, &range).map_err(|_| libc::EFAULT)?;
                to = to.wrapping_add(RANGE_SIZE as u64);
            }
            ranges.num_iovas = ranges.num_iovas.saturating_add(1);
        }
        call.respond(&ranges)?;
        if ranges.num_iovas > room {
            return Err(libc::EMSGSIZE);
        }
        Ok(())
    }

    pub(super) fn ioas_allow_iovas(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let allow: IoasAllowIovas = call.get();
        if allow.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        self.context(context)?.ioas(allow.ioas_id)?;
        // The ranges must not touch each other, so they can be kept by their start.
        let mut ranges = std::collections::BTreeMap::new();
        let mut from = allow.allowed_iovas;
        for _ in 0..allow.num_iovas {
            let mut bytes = [0; RANGE_SIZE];
            user::read(from, &mut bytes).map_err(|_| libc::EFAULT)?;
            from = from.wrapping_add(RANGE_SIZE as u64);
            let range = IovaRange::from_bytes(&bytes);
            if range.start >= range.last {
                return Err(libc::EINVAL);
            }
            let before = ranges.range(..=range.last).next_back();
            if before.is_some_and(|(_, &last)| last >= range.start) {
                return Err(libc::EINVAL);
            }
            ranges.insert(range.start, range.last);
        }
        self.context(context)?
            .ioas(allow.ioas_id)?
            .allow(ranges.into_iter().collect())
    }

    pub(super) fn ioas_map(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut map: IoasMap = call.get();
        if map.flags & !MAP_FLAGS != 0 || map.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        no_all_ones(&[map.iova, map.length])?;
        let rights = rights(map.flags)?;
        self.context(context)?.ioas(map.ioas_id)?;
        map.user_va.checked_add(map.length).ok_or(libc::EOVERFLOW)?;
        check_length(map.length)?;
        let pages = Pages {
            writable: rights.write,
            source: Source::User,
        };
        let slice = Slice {
            pages,
            address: map.user_va,
            length: map.length,
        };
        map.iova = self.map(
            context,
            map.ioas_id,
            vec![slice],
            place(map.flags, map.iova),
            rights,
        )?;
        call.respond(&map)
    }

    /// What memory for the hardware must be.
    pub(super) fn limits(&mut self, context: u64) -> Result<Limits, Errno> {
        let limit = self.limit;
        let room = match limit {
            None => u64::MAX,
            Some(limit) => {
                let pinned = self
                    .context(context)?
                    .iter()
                    .filter_map(|(_, object)| match &object.kind {
                        Kind::Ioas(ioas) if ioas.has_domains() => Some(ioas.bytes()),
                        _ => None,
                    })
                    .fold(0_u64, u64::saturating_add);
                limit.saturating_sub(pinned)
            }
        };
        Ok(Limits {
            refuse_read_only: self.config.quirks.read_only_refused,
            room,
        })
    }

    /// Map, and count what was mapped.
    fn map(
        &mut self,
        context: u64,
        id: u32,
        slices: Vec<Slice>,
        place: Place,
        rights: PinRights,
    ) -> Result<u64, Errno> {
        let length = slices
            .iter()
            .fold(0_u64, |sum, slice| sum.saturating_add(slice.length));
        let limits = self.limits(context)?;
        let ioas = self.context(context)?.ioas(id)?;
        let iova = ioas.map(slices, place, rights, limits)?;
        self.meters.mapped(length);
        Ok(iova)
    }

    pub(super) fn ioas_map_file(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut map: IoasMapFile = call.get();
        if map.flags & !MAP_FLAGS != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        no_all_ones(&[map.iova, map.length])?;
        let rights = rights(map.flags)?;
        self.context(context)?.ioas(map.ioas_id)?;
        if map.length == 0 {
            return Err(libc::EINVAL);
        }
        let last = last_of(map.start, map.length)?;
        check_length(map.length)?;
        // The pages that the range touches; the kernel looks at them only with a domain.
        let first_page = map.start & !PAGE_SIZE.wrapping_sub(1);
        let bytes = (last | PAGE_SIZE.wrapping_sub(1))
            .wrapping_sub(first_page)
            .wrapping_add(1);
        let file = FilePages::map(map.fd, first_page, bytes, rights.write)?;
        let address = file
            .address()
            .wrapping_add(map.start.wrapping_sub(first_page));
        let pages = Pages {
            writable: rights.write,
            source: Source::File(file),
        };
        let slice = Slice {
            pages,
            address,
            length: map.length,
        };
        map.iova = self.map(
            context,
            map.ioas_id,
            vec![slice],
            place(map.flags, map.iova),
            rights,
        )?;
        call.respond(&map)
    }

    pub(super) fn ioas_copy(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut copy: IoasCopy = call.get();
        if copy.flags & !MAP_FLAGS != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        no_all_ones(&[copy.length, copy.src_iova, copy.dst_iova])?;
        let rights = rights(copy.flags)?;
        let slices = self
            .context(context)?
            .ioas(copy.src_ioas_id)?
            .slices(copy.src_iova, copy.length)?;
        let to = place(copy.flags, copy.dst_iova);
        copy.dst_iova = self.map(context, copy.dst_ioas_id, slices, to, rights)?;
        call.respond(&copy)
    }

    pub(super) fn ioas_unmap(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut unmap: IoasUnmap = call.get();
        let hardware = std::sync::Arc::clone(&self.hardware);
        let all = unmap.iova == 0 && unmap.length == u64::MAX;
        let ioas = self.context(context)?.ioas(unmap.ioas_id)?;
        let last = if all {
            u64::MAX
        } else {
            no_all_ones(&[unmap.iova, unmap.length])?;
            if unmap.length == 0 {
                return Err(libc::EINVAL);
            }
            last_of(unmap.iova, unmap.length)?
        };
        let (bytes, result) = ioas.unmap(unmap.iova, last, &hardware.cache);
        self.meters.unmapped(bytes);
        result?;
        if bytes == 0 && !all {
            return Err(libc::ENOENT);
        }
        unmap.length = bytes;
        call.respond(&unmap)
    }

    /// Only files can change hands.
    pub(super) fn ioas_change_process(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let change: IoasChangeProcess = call.get();
        if change.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let user = self
            .context(context)?
            .iter()
            .filter_map(|(_, object)| match &object.kind {
                Kind::Ioas(ioas) => Some(ioas),
                _ => None,
            })
            .flat_map(|ioas| ioas.areas())
            .any(|(_, area)| matches!(area.slice.pages.source, Source::User));
        if user { Err(libc::EINVAL) } else { Ok(()) }
    }

    pub(super) fn option(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut option: IommuOption = call.get();
        if option.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        match option.option_id {
            OPTION_RLIMIT_MODE => self.rlimit_mode(context, &mut option)?,
            OPTION_HUGE_PAGES => {
                let ioas = self.context(context)?.ioas(option.object_id)?;
                match (option.op, option.val64) {
                    (OPTION_GET, _) => option.val64 = u64::from(!ioas.small_pages),
                    (OPTION_SET, value @ 0..=1) => ioas.set_small_pages(value == 0)?,
                    (OPTION_SET, _) => return Err(libc::EINVAL),
                    _ => return Err(libc::EOPNOTSUPP),
                }
            }
            _ => return Err(libc::EOPNOTSUPP),
        }
        call.write_at(OPTION_VALUE, &option.val64.to_ne_bytes())
    }

    fn rlimit_mode(&mut self, context: u64, option: &mut IommuOption) -> Result<(), Errno> {
        if option.object_id != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let unprivileged = self.limit.is_some();
        let owner = self.context(context)?;
        match option.op {
            OPTION_SET if unprivileged => return Err(libc::EPERM),
            OPTION_GET => option.val64 = owner.rlimit_mode,
            OPTION_SET if !owner.is_empty() => return Err(libc::EBUSY),
            OPTION_SET if option.val64 > 1 => return Err(libc::EINVAL),
            OPTION_SET => owner.rlimit_mode = option.val64,
            _ => return Err(libc::EOPNOTSUPP),
        }
        Ok(())
    }

    pub(super) fn vfio_ioas(&mut self, context: u64, call: &Call) -> Result<(), Errno> {
        let mut compat: VfioIoas = call.get();
        if compat.reserved != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let owner = self.context(context)?;
        match compat.op {
            VFIO_IOAS_GET => {
                compat.ioas_id = owner.vfio_ioas.ok_or(libc::ENODEV)?;
                call.respond(&compat)
            }
            VFIO_IOAS_SET => {
                owner.ioas(compat.ioas_id)?;
                owner.vfio_ioas = Some(compat.ioas_id);
                Ok(())
            }
            VFIO_IOAS_CLEAR => {
                owner.vfio_ioas = None;
                Ok(())
            }
            _ => Err(libc::EOPNOTSUPP),
        }
    }
}
