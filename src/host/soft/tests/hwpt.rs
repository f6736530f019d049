//! HWPTs: allocation, invalidation, dirty tracking, device information.

use super::*;

fn device_on(iommu: HwInfo) -> (Bench, Fd, u32, u32) {
    let bench = Bench::with(|config| config.iommus = vec![iommu]);
    let ioas = bench.ioas();
    let (fd, device) = bench.device(TwinDevice::default());
    (bench, fd, device, ioas)
}

#[test]
fn hw_info_is_the_registers_and_what_the_driver_makes_of_them() {
    let nest = Nest::default();
    let mut data = HwInfoVtd::default();
    let mut info = HwInfoCall {
        dev_id: nest.device,
        data_len: 24,
        data_uptr: address_of(&mut data),
        ..HwInfoCall::default()
    };
    nest.bench.call(request::GET_HW_INFO, &mut info).unwrap();
    let iommu = capable_iommu();
    assert_eq!(data.flags, 1);
    assert_eq!(data.cap_reg, iommu.cap.into_bits());
    assert_eq!(data.ecap_reg, iommu.ecap.into_bits());
    assert_eq!((info.data_type, info.data_len), (HW_INFO_INTEL_VTD, 24));
    assert_eq!(info.out_max_pasid_log2, 20);
    assert_eq!(info.out_capabilities, HW_CAP_DIRTY_TRACKING);
    let refused = |change: fn(&mut HwInfoCall)| {
        let mut info = HwInfoCall {
            dev_id: nest.device,
            ..HwInfoCall::default()
        };
        change(&mut info);
        nest.bench
            .call(request::GET_HW_INFO, &mut info)
            .unwrap_err()
    };
    assert_eq!(refused(|info| info.flags = 2), libc::EOPNOTSUPP);
    assert_eq!(refused(|info| info.reserved[2] = 1), libc::EOPNOTSUPP);
    assert_eq!(refused(|info| info.dev_id = 99), libc::ENOENT);
    assert_eq!(
        refused(|info| (info.flags, info.data_type) = (1, 2)),
        libc::EOPNOTSUPP
    );
    assert_eq!(
        refused(|info| (info.data_len, info.data_uptr) = (24, 8)),
        libc::EFAULT
    );
}

#[test]
fn a_larger_buffer_is_filled_with_zeros() {
    let nest = Nest::default();
    let mut data = [0xff_u8; 5000];
    let mut info = HwInfoCall {
        dev_id: nest.device,
        data_len: 4990,
        data_uptr: address_of(&mut data),
        ..HwInfoCall::default()
    };
    nest.bench.call(request::GET_HW_INFO, &mut info).unwrap();
    assert!(data[24..4990].iter().all(|&byte| byte == 0));
    assert!(data[4990..].iter().all(|&byte| byte == 0xff));
}

#[test]
fn paging_allocation_judges_flags() {
    let bare = HwInfo {
        ecap: capable_iommu()
            .ecap
            .with_nested(false)
            .with_second_stage_accessed_dirty(false),
        ..capable_iommu()
    };
    let (bench, _, device, ioas) = device_on(bare);
    let hwpt = |flags| bench.hwpt(device, ioas, flags);
    assert_eq!(hwpt(0x10), Err(libc::EOPNOTSUPP));
    assert_eq!(hwpt(HWPT_NEST_PARENT), Err(libc::EOPNOTSUPP));
    assert_eq!(hwpt(HWPT_DIRTY_TRACKING), Err(libc::EOPNOTSUPP));
    assert_eq!(bench.hwpt(99, ioas, 0), Err(libc::ENOENT));
    assert_eq!(bench.hwpt(device, 99, 0), Err(libc::EINVAL));
    assert_eq!(bench.hwpt(device, device, 0), Err(libc::EINVAL));
    let nest = Nest::default();
    let both = HWPT_NEST_PARENT | HWPT_FAULT_ID_VALID;
    assert_eq!(
        nest.bench.hwpt(nest.device, nest.ioas, both),
        Err(libc::EOPNOTSUPP)
    );
    assert_eq!(
        nest.bench.hwpt(nest.device, nest.ioas, HWPT_FAULT_ID_VALID),
        Err(libc::ENOENT),
        "no such fault queue"
    );
    let mut data = S1;
    assert_eq!(
        nest.bench
            .nested_with(nest.device, nest.ioas, 0, 0, &mut data),
        Err(libc::EOPNOTSUPP),
        "data on an IOAS"
    );
}

#[test]
fn an_hwpt_without_flags_is_a_first_stage_one_and_no_parent() {
    let nest = Nest::default();
    let plain = nest.bench.hwpt(nest.device, nest.ioas, HWPT_PASID).unwrap();
    assert_eq!(nest.bench.nested(nest.device, plain, S1), Err(libc::EINVAL));
    let aperture = |first_stage_default| {
        let bench = Bench::with(|config| config.quirks.first_stage_default = first_stage_default);
        let ioas = bench.ioas();
        let (_, device) = bench.device(TwinDevice::default());
        bench.hwpt(device, ioas, 0).unwrap();
        let ram = Ram::new(1);
        bench.map(ioas, &ram, 1 << 56)
    };
    assert_eq!(aperture(true), Err(libc::EINVAL), "the lower half only");
    assert_eq!(aperture(false), Ok(()));
}

#[test]
fn nested_allocation_judges_everything_but_the_table() {
    let nest = Nest::default();
    let bench = &nest.bench;
    let alloc = |change: fn(&mut HwptAlloc)| {
        let mut data = S1;
        let mut alloc = HwptAlloc {
            dev_id: nest.device,
            pt_id: nest.parent,
            data_type: HWPT_DATA_VTD_S1,
            data_len: 24,
            data_uptr: address_of(&mut data),
            ..HwptAlloc::default()
        };
        change(&mut alloc);
        bench.call(request::HWPT_ALLOC, &mut alloc)
    };
    let unsupported = Err(libc::EOPNOTSUPP);
    let invalid = Err(libc::EINVAL);
    assert_eq!(alloc(|alloc| alloc.reserved = 1), unsupported);
    assert_eq!(alloc(|alloc| alloc.data_len = 0), invalid);
    assert_eq!(alloc(|alloc| alloc.data_type = HWPT_DATA_NONE), invalid);
    assert_eq!(
        alloc(|alloc| (alloc.data_type, alloc.data_len) = (0, 0)),
        unsupported
    );
    assert_eq!(alloc(|alloc| alloc.flags = HWPT_NEST_PARENT), unsupported);
    assert_eq!(
        alloc(|alloc| alloc.flags = HWPT_DIRTY_TRACKING),
        unsupported
    );
    assert_eq!(alloc(|alloc| alloc.data_type = 2), unsupported);
    assert_eq!(alloc(|alloc| alloc.data_len = 23), invalid);
    assert_eq!(alloc(|alloc| alloc.data_len = 25), invalid);
    assert_eq!(alloc(|alloc| alloc.data_uptr = 8), Err(libc::EFAULT));
    assert_eq!(
        alloc(|alloc| (alloc.flags, alloc.fault_id) = (HWPT_FAULT_ID_VALID, 77)),
        Err(libc::ENOENT)
    );
    assert_eq!(alloc(|alloc| alloc.reserved2 = 1), Ok(()), "nobody looks");
    let odd = VtdS1 {
        flags: u64::MAX,
        pgtbl_addr: u64::MAX,
        addr_width: 3,
        reserved: 9,
    };
    let odd = bench.nested(nest.device, nest.parent, odd).unwrap();
    assert_eq!(bench.attach(nest.fd, odd), Err(libc::EINVAL));
    let nested = nest.nested(S1);
    assert_eq!(bench.nested(nest.device, nested, S1), Err(libc::EINVAL));
}

#[test]
fn maps_that_cannot_be_written_do_not_go_with_a_parent() {
    for refused in [true, false] {
        let mut config = TwinConfig::default();
        config.quirks.read_only_refused = refused;
        let nest = Nest::new(config, TwinDevice::default());
        let rom = Ram::new(1);
        let flags = MAP_FIXED_IOVA | MAP_READABLE;
        let expected = if refused { Err(libc::EINVAL) } else { Ok(()) };
        let bench = &nest.bench;
        assert_eq!(bench.map_flags(nest.ioas, &rom, 0x40_0000, flags), expected);
        let other = bench.ioas();
        bench.map_flags(other, &rom, 0, flags).unwrap();
        assert_eq!(
            bench.hwpt(nest.device, other, HWPT_NEST_PARENT).map(|_| ()),
            expected
        );
        bench.hwpt(nest.device, other, 0).unwrap();
    }
}

#[test]
fn invalidation_reports_how_far_it_came() {
    let nest = Nest::default();
    let hwpt = nest.nested(S1);
    let bench = &nest.bench;
    assert_eq!(bench.invalidate(hwpt, &mut []), (0, Ok(())));
    assert_eq!(
        bench.invalidate(nest.parent, &mut []),
        (0, Err(libc::EINVAL))
    );
    assert_eq!(bench.invalidate(99, &mut []), (0, Err(libc::ENOENT)));
    let flags = VtdS1Invalidate {
        flags: 2,
        ..page(0)
    };
    let reserved = VtdS1Invalidate {
        reserved: 1,
        ..page(0)
    };
    let all_but = VtdS1Invalidate {
        npages: u64::MAX,
        ..page(0x1000)
    };
    for (bad, errno) in [
        (flags, libc::EOPNOTSUPP),
        (reserved, libc::EOPNOTSUPP),
        (page(0x1001), libc::EINVAL),
        (all_but, libc::EINVAL),
    ] {
        let mut entries = [page(0), page(0x1000), bad, page(0x2000)];
        assert_eq!(bench.invalidate(hwpt, &mut entries), (2, Err(errno)));
    }
    let call = |change: fn(&mut HwptInvalidate)| {
        let mut entries = [page(0), page(0)];
        let mut call = HwptInvalidate {
            hwpt_id: hwpt,
            data_uptr: address_of(&mut entries),
            entry_len: 24,
            entry_num: 2,
            ..HwptInvalidate::default()
        };
        change(&mut call);
        let result = bench.call(request::HWPT_INVALIDATE, &mut call);
        (call.entry_num, result)
    };
    assert_eq!(call(|call| call.reserved = 1), (0, Err(libc::EOPNOTSUPP)));
    let invalid = (0, Err(libc::EINVAL));
    assert_eq!(call(|call| call.data_uptr = 0), invalid);
    assert_eq!(call(|call| call.entry_len = 0), invalid);
    assert_eq!(call(|call| call.entry_len = 4097), invalid);
    assert_eq!(call(|call| call.entry_len = 32), invalid);
    assert_eq!(call(|call| call.entry_num = (1 << 19) + 1), invalid);
    assert_eq!(call(|call| call.data_type = 1), invalid);
    assert_eq!(
        call(|call| (call.data_type, call.entry_num) = (1, 0)),
        invalid,
        "a probe"
    );
    assert_eq!(call(|call| call.data_uptr = 8), (0, Err(libc::EFAULT)));
}

#[test]
fn in_6_12_other_objects_are_not_found_and_lengths_are_not_bounded() {
    let config = TwinConfig {
        kernel: Kernel::V6_12,
        ..TwinConfig::default()
    };
    let nest = Nest::new(config, TwinDevice::default());
    assert_eq!(
        nest.bench.invalidate(nest.parent, &mut []),
        (0, Err(libc::ENOENT))
    );
    assert_eq!(
        nest.bench.hwpt(nest.device, nest.ioas, HWPT_PASID),
        Err(libc::EOPNOTSUPP)
    );
    let mut data = S1;
    nest.bench
        .nested_with(nest.device, nest.parent, 0, 0, &mut data)
        .unwrap();
}

#[test]
fn entries_before_memory_that_is_not_there_are_done() {
    let nest = Nest::default();
    let hwpt = nest.nested(S1);
    // Only the first whole page of the array is in memory of the stack's last page; so
    // entries are put at the end of a page whose successor is not mapped.
    let mut call = HwptInvalidate {
        hwpt_id: hwpt,
        data_uptr: u64::MAX - 100,
        entry_len: 24,
        entry_num: 1,
        ..HwptInvalidate::default()
    };
    let result = nest.bench.call(request::HWPT_INVALIDATE, &mut call);
    assert_eq!((call.entry_num, result), (0, Err(libc::EFAULT)));
}

#[test]
fn dirty_tracking_judges_its_range() {
    let nest = Nest::flags(
        TwinConfig::default(),
        TwinDevice::default(),
        HWPT_NEST_PARENT | HWPT_DIRTY_TRACKING,
    );
    let bench = &nest.bench;
    let plain = bench.hwpt(nest.device, nest.ioas, 0).unwrap();
    let nested = bench
        .nested_with(nest.device, nest.parent, 0, 0, &mut S1.clone())
        .unwrap();
    let set = |hwpt_id, flags| {
        let mut set = SetDirtyTracking {
            flags,
            hwpt_id,
            reserved: 5,
            size: 0,
        };
        bench.call(request::HWPT_SET_DIRTY_TRACKING, &mut set)
    };
    assert_eq!(set(nest.parent, 2), Err(libc::EOPNOTSUPP));
    assert_eq!(set(nested, 1), Err(libc::ENOENT));
    assert_eq!(set(plain, 1), Err(libc::EOPNOTSUPP));
    assert_eq!(set(nest.parent, 1), Ok(()), "reserved is not looked at");
    let get = |change: fn(&mut GetDirtyBitmap)| {
        let mut get = GetDirtyBitmap {
            hwpt_id: nest.parent,
            length: 0x2000,
            page_size: 4096,
            ..GetDirtyBitmap::default()
        };
        change(&mut get);
        bench.call(request::HWPT_GET_DIRTY_BITMAP, &mut get)
    };
    let invalid = Err(libc::EINVAL);
    assert_eq!(get(|get| get.flags = 2), Err(libc::EOPNOTSUPP));
    assert_eq!(get(|get| get.reserved = 1), Err(libc::EOPNOTSUPP));
    assert_eq!(get(|get| get.hwpt_id = 99), Err(libc::ENOENT));
    assert_eq!(get(|get| get.length = 0), invalid);
    assert_eq!(get(|get| get.iova = u64::MAX - 0xfff), Err(libc::EOVERFLOW));
    assert_eq!(get(|get| get.iova = 0x800), invalid);
    assert_eq!(get(|get| get.length = 0x1800), invalid);
    assert_eq!(get(|get| get.page_size = 0), invalid);
    assert_eq!(get(|get| get.page_size = 0x4000), invalid);
    assert_eq!(get(|get| get.iova = 1 << 40), Ok(()), "nothing there");
    assert_eq!(get(|get| get.data = 8), Ok(()), "no error for the bitmap");
}
