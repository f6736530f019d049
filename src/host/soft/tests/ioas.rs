//! Address spaces: maps, reservations, alignment.

use super::*;

const RW: u32 = MAP_READABLE | MAP_WRITEABLE;

#[test]
fn maps_are_judged_in_the_kernels_order() {
    let bench = Bench::default();
    let ioas = bench.ioas();
    let ram = Ram::new(4);
    let map = |change: fn(&mut IoasMap)| {
        let mut map = IoasMap {
            flags: RW | MAP_FIXED_IOVA,
            ioas_id: ioas,
            user_va: ram.address(),
            length: 0x2000,
            iova: 0x1_0000,
            ..IoasMap::default()
        };
        change(&mut map);
        bench.call(request::IOAS_MAP, &mut map)
    };
    assert_eq!(map(|map| map.flags |= 8), Err(libc::EOPNOTSUPP));
    assert_eq!(map(|map| map.reserved = 1), Err(libc::EOPNOTSUPP));
    assert_eq!(map(|map| map.iova = u64::MAX), Err(libc::EOVERFLOW));
    assert_eq!(map(|map| map.length = u64::MAX), Err(libc::EOVERFLOW));
    assert_eq!(map(|map| map.flags = MAP_FIXED_IOVA), Err(libc::EINVAL));
    assert_eq!(map(|map| map.ioas_id = 99), Err(libc::ENOENT));
    assert_eq!(map(|map| map.user_va = u64::MAX), Err(libc::EOVERFLOW));
    assert_eq!(map(|map| map.length = 0), Err(libc::EINVAL));
    assert_eq!(map(|map| map.iova = u64::MAX - 1), Err(libc::EOVERFLOW));
    assert_eq!(map(|_| ()), Ok(()));
    assert_eq!(map(|map| map.iova = 0x1_1fff), Err(libc::EEXIST));
    assert_eq!(map(|map| map.iova = 0xf001), Err(libc::EEXIST));
    assert_eq!(map(|map| map.iova = 0x1_2001), Ok(()), "any byte goes");
    assert_eq!(
        map(|map| (map.user_va, map.iova) = (8, 0x8_0000)),
        Ok(()),
        "nobody looks at the memory yet"
    );
    let (_, device) = bench.device(TwinDevice::default());
    assert_eq!(
        bench.hwpt(device, ioas, HWPT_NEST_PARENT),
        Err(libc::EADDRINUSE),
        "not aligned"
    );
}

#[test]
fn a_domain_needs_memory_alignment_and_an_aperture() {
    let nest = Nest::default();
    let bench = &nest.bench;
    let ram = Ram::new(4);
    let map = |change: fn(&mut IoasMap)| {
        let mut map = IoasMap {
            flags: RW | MAP_FIXED_IOVA,
            ioas_id: nest.ioas,
            user_va: ram.address(),
            length: 0x2000,
            iova: 0x40_0000,
            ..IoasMap::default()
        };
        change(&mut map);
        bench.call(request::IOAS_MAP, &mut map)
    };
    assert_eq!(map(|map| map.user_va = 0x1000), Err(libc::EFAULT));
    assert_eq!(map(|map| map.length = 0x1800), Err(libc::EINVAL));
    assert_eq!(map(|map| map.iova += 8), Err(libc::EINVAL));
    assert_eq!(map(|map| map.user_va += 8), Err(libc::EINVAL));
    assert_eq!(map(|map| map.iova = 1 << 57), Err(libc::EINVAL));
    assert_eq!(map(|_| ()), Ok(()));
    let other = bench.ioas();
    bench.map(other, &ram, 1 << 57).unwrap();
    assert_eq!(
        bench.hwpt(nest.device, other, HWPT_NEST_PARENT),
        Err(libc::EADDRINUSE)
    );
    let third = bench.ioas();
    let mut bad = IoasMap {
        flags: RW | MAP_FIXED_IOVA,
        ioas_id: third,
        user_va: 0x1000,
        length: 0x1000,
        ..IoasMap::default()
    };
    bench.call(request::IOAS_MAP, &mut bad).unwrap();
    assert_eq!(
        bench.hwpt(nest.device, third, HWPT_NEST_PARENT),
        Err(libc::EFAULT)
    );
    assert_eq!(bench.twin.stats().paging, 1);
}

#[test]
fn unmapping_takes_whole_maps_and_what_came_before_the_one_it_would_split() {
    let bench = Bench::default();
    let ioas = bench.ioas();
    let ram = Ram::new(2);
    for iova in [0x1_0000, 0x2_0000, 0x3_0000] {
        bench.map(ioas, &ram, iova).unwrap();
    }
    assert_eq!(bench.unmap(99, 0, 1), Err(libc::ENOENT));
    assert_eq!(bench.unmap(ioas, 0, 0), Err(libc::EINVAL));
    assert_eq!(bench.unmap(ioas, u64::MAX, 1), Err(libc::EOVERFLOW));
    assert_eq!(bench.unmap(ioas, 3, u64::MAX - 1), Err(libc::EOVERFLOW));
    assert_eq!(bench.unmap(ioas, 0x8_0000, 0x1000), Err(libc::ENOENT));
    assert_eq!(bench.unmap(ioas, 0x1_1000, 0x1000), Err(libc::ENOENT));
    assert_eq!(bench.unmap(ioas, 0x1_0000, 0x1_1000), Err(libc::ENOENT));
    assert_eq!(bench.twin.stats().mapped, 0x4000, "the first one is gone");
    assert_eq!(bench.unmap(ioas, 0, u64::MAX), Ok(0x4000));
    assert_eq!(bench.unmap(ioas, 0, u64::MAX), Ok(0));
}

#[test]
fn addresses_are_found_by_alignment_and_around_what_is_taken() {
    let bench = Bench::default();
    let ioas = bench.ioas();
    let ram = Ram::new(4);
    let map = |length| {
        let mut map = IoasMap {
            flags: RW,
            ioas_id: ioas,
            user_va: ram.address(),
            length,
            iova: 7,
            ..IoasMap::default()
        };
        bench.call(request::IOAS_MAP, &mut map).map(|()| map.iova)
    };
    assert_eq!(map(0x1000), Ok(0x1000), "never 0");
    assert_eq!(map(0x1000), Ok(0x2000));
    let allow = |ranges: &mut [IovaRange]| {
        let mut allow = IoasAllowIovas {
            ioas_id: ioas,
            num_iovas: ranges.len() as u32,
            allowed_iovas: ranges.as_mut_ptr().expose_provenance() as u64,
            ..IoasAllowIovas::default()
        };
        bench.call(request::IOAS_ALLOW_IOVAS, &mut allow)
    };
    let range = |start, last| IovaRange { start, last };
    assert_eq!(allow(&mut [range(5, 5)]), Err(libc::EINVAL));
    assert_eq!(
        allow(&mut [range(5, 9), range(8, 20)]),
        Err(libc::EINVAL),
        "they overlap"
    );
    assert_eq!(allow(&mut [range(0x10_0000, 0x10_0fff)]), Ok(()));
    assert_eq!(map(0x1000), Ok(0x10_0000));
    assert_eq!(map(0x1000), Err(libc::ENOSPC));
    assert_eq!(map(1 << 63), Err(libc::EOVERFLOW));
    let (fd, device) = bench.device(TwinDevice::default());
    let hwpt = bench.hwpt(device, ioas, HWPT_NEST_PARENT).unwrap();
    assert_eq!(allow(&mut [range(0xfee0_0000, 0xfee0_1000)]), Ok(()));
    assert_eq!(
        bench.attach(fd, hwpt),
        Err(libc::EADDRINUSE),
        "the interrupt window was promised"
    );
    assert_eq!(allow(&mut []), Ok(()));
    bench.attach(fd, hwpt).unwrap();
    assert_eq!(
        allow(&mut [range(0xfee0_0000, 0xfee0_1000)]),
        Err(libc::EADDRINUSE)
    );
}

#[test]
fn usable_ranges_shrink_with_domains_and_devices() {
    let bench = Bench::default();
    let ioas = bench.ioas();
    let ranges = |room: u32| {
        let mut found = [IovaRange::default(); 4];
        let mut call = IoasIovaRanges {
            ioas_id: ioas,
            num_iovas: room,
            allowed_iovas: address_of(&mut found),
            ..IoasIovaRanges::default()
        };
        let result = bench.call(request::IOAS_IOVA_RANGES, &mut call);
        let found = found.map(|range| (range.start, range.last));
        (result, call.num_iovas, call.out_iova_alignment, found)
    };
    let (result, number, alignment, found) = ranges(4);
    assert_eq!((result, number, alignment), (Ok(()), 1, 1));
    assert_eq!(found[0], (0, u64::MAX));
    let (fd, device) = bench.device(TwinDevice::default());
    let hwpt = bench.hwpt(device, ioas, HWPT_NEST_PARENT).unwrap();
    bench.attach(fd, hwpt).unwrap();
    let (result, number, alignment, found) = ranges(4);
    assert_eq!((result, number, alignment), (Ok(()), 2, 4096));
    assert_eq!(found[0], (0, 0xfedf_ffff));
    assert_eq!(found[1], (0xfef0_0000, (1 << 57) - 1));
    let (result, number, _, found) = ranges(1);
    assert_eq!((result, number), (Err(libc::EMSGSIZE), 2));
    assert_eq!(found[1], (0, 0), "only one was asked for");
    let ram = Ram::new(1);
    assert_eq!(bench.map(ioas, &ram, 0xfee0_0000), Err(libc::EINVAL));
    bench.detach(fd, None).unwrap();
    bench.map(ioas, &ram, 0xfee0_0000).unwrap();
    assert_eq!(bench.attach(fd, hwpt), Err(libc::EADDRINUSE));
}

#[test]
fn copies_share_memory_and_not_more_than_its_rights() {
    let bench = Bench::default();
    let (from, to) = (bench.ioas(), bench.ioas());
    let ram = Ram::new(2);
    bench
        .map_flags(from, &ram, 0x1000, MAP_FIXED_IOVA | MAP_READABLE)
        .unwrap();
    bench.map(from, &ram, 0x3000).unwrap();
    let copy = |flags, length, src_iova| {
        let mut copy = IoasCopy {
            flags: flags | MAP_FIXED_IOVA,
            dst_ioas_id: to,
            src_ioas_id: from,
            length,
            dst_iova: 0x10_0000,
            src_iova,
            ..IoasCopy::default()
        };
        bench.call(request::IOAS_COPY, &mut copy)
    };
    assert_eq!(copy(0, 0x1000, 0x1000), Err(libc::EINVAL));
    assert_eq!(copy(MAP_READABLE, 0, 0x1000), Err(libc::EINVAL));
    assert_eq!(copy(MAP_READABLE, 0x1000, 0), Err(libc::ENOENT));
    assert_eq!(copy(MAP_READABLE, 0x5000, 0x1000), Err(libc::ENOENT));
    assert_eq!(copy(RW, 0x4000, 0x1000), Err(libc::EPERM));
    assert_eq!(copy(MAP_READABLE, 0x2000, 0x2000), Ok(()));
    assert_eq!(copy(MAP_READABLE, 0x1000, 0x2000), Err(libc::EEXIST));
    let (fd, _) = bench.device(TwinDevice::default());
    bench.attach(fd, to).unwrap();
    assert_eq!(bench.target(fd, 0x10_1008), Some(0x10_1008));
    let write = bench.dma(fd, None, 0x10_1008, WRITE);
    assert!(write.result.is_err());
}

#[test]
fn a_user_without_privileges_pins_no_more_than_the_limit() {
    let nest = Nest::default();
    let bench = &nest.bench;
    let (ram, other) = (Ram::new(2), bench.ioas());
    bench.twin.set_limit(Some(nest.ram.bytes() + 0x2000));
    bench.map(nest.ioas, &ram, 0x40_0000).unwrap();
    assert_eq!(bench.map(nest.ioas, &ram, 0x50_0000), Err(libc::ENOMEM));
    bench.map(other, &ram, 0).unwrap();
    let hwpt = || bench.hwpt(nest.device, other, 0);
    assert_eq!(hwpt(), Err(libc::ENOMEM), "nothing was pinned before");
    let mut option = IommuOption::default();
    assert_eq!(bench.call(request::OPTION, &mut option), Err(libc::EPERM));
    bench.twin.set_limit(None);
    bench.map(nest.ioas, &ram, 0x50_0000).unwrap();
    hwpt().unwrap();
}

#[test]
fn options_and_the_compatible_ioas() {
    let bench = Bench::default();
    let option = |option_id, op, object_id, val64| {
        let mut option = IommuOption {
            option_id,
            op,
            object_id,
            val64,
            ..IommuOption::default()
        };
        bench
            .call(request::OPTION, &mut option)
            .map(|()| option.val64)
    };
    const SET: u16 = 0;
    const GET: u16 = 1;
    assert_eq!(option(0, SET, 0, 2), Err(libc::EINVAL));
    assert_eq!(option(0, SET, 0, 1), Ok(1));
    let ioas = bench.ioas();
    assert_eq!(option(0, GET, 0, 0), Ok(1));
    assert_eq!(option(0, SET, 0, 0), Err(libc::EBUSY));
    assert_eq!(option(0, GET, ioas, 0), Err(libc::EOPNOTSUPP));
    assert_eq!(option(2, GET, 0, 0), Err(libc::EOPNOTSUPP));
    assert_eq!(option(0, 2, 0, 0), Err(libc::EOPNOTSUPP));
    assert_eq!(option(1, GET, ioas, 0), Ok(1));
    assert_eq!(option(1, GET, 99, 0), Err(libc::ENOENT));
    assert_eq!(option(1, SET, ioas, 2), Err(libc::EINVAL));
    assert_eq!(option(1, SET, ioas, 0), Ok(0));
    assert_eq!(option(1, GET, ioas, 5), Ok(0));
    let vfio = |op, ioas_id| {
        let mut vfio = VfioIoas {
            ioas_id,
            op,
            ..VfioIoas::default()
        };
        bench
            .call(request::VFIO_IOAS, &mut vfio)
            .map(|()| vfio.ioas_id)
    };
    assert_eq!(vfio(0, 0), Err(libc::ENODEV));
    assert_eq!(vfio(1, 99), Err(libc::ENOENT));
    assert_eq!(vfio(1, ioas), Ok(ioas));
    assert_eq!(vfio(0, 0), Ok(ioas));
    bench.destroy(ioas).unwrap();
    assert_eq!(vfio(0, 0), Err(libc::ENODEV));
    assert_eq!(vfio(2, 0), Ok(0));
    assert_eq!(vfio(3, 0), Err(libc::EOPNOTSUPP));
}
