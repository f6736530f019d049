//! Devices: binding, attaching, replacing, with and without PASID.

use super::*;
use crate::translate::Diagnostic;

#[test]
fn nothing_goes_before_a_device_is_bound_and_it_is_bound_once() {
    let bench = Bench::default();
    let fd = bench.twin.add_device(TwinDevice::default()).unwrap();
    assert_eq!(bench.attach(fd, 1), Err(libc::EINVAL));
    let bind = |change: fn(&mut VfioBind)| {
        let mut bind = VfioBind {
            argsz: 24,
            iommufd: bench.iommu,
            ..VfioBind::default()
        };
        change(&mut bind);
        bench.raw(fd, request::VFIO_BIND, &mut bind.to_bytes())
    };
    assert_eq!(bind(|bind| bind.argsz = 15), Err(libc::EINVAL));
    assert_eq!(bind(|bind| bind.flags = 2), Err(libc::EINVAL));
    assert_eq!(bind(|bind| bind.iommufd = -1), Err(libc::EINVAL));
    assert_eq!(bind(|bind| bind.iommufd = 0), Err(libc::EBADF));
    assert_eq!(bind(|bind| bind.iommufd += 1), Err(libc::EBADFD));
    assert_eq!(
        bind(|bind| (bind.flags, bind.token_uuid_ptr) = (1, 8)),
        Err(libc::EFAULT)
    );
    assert_eq!(bind(|bind| bind.argsz = 16), Ok(()));
    assert_eq!(bind(|_| ()), Err(libc::EINVAL));
    assert_eq!(bench.twin.device_id(fd), Some(1));
    assert_eq!(bench.raw(fd, 0x3b6b, &mut [0; 64]), Err(libc::ENOTTY));
}

#[test]
fn a_device_whose_interrupts_are_unsafe_is_not_bound() {
    let bench = Bench::with(|config| config.unsafe_interrupts = true);
    let fd = bench.twin.add_device(TwinDevice::default()).unwrap();
    assert_eq!(bench.bind(fd), Err(libc::EPERM));
    assert_eq!(bench.twin.stats().devices, 0);
}

#[test]
fn attaching_judges_its_argument_and_then_the_object() {
    let nest = Nest::default();
    let bench = &nest.bench;
    let attach = |argsz, flags| {
        let attach = VfioAttach {
            argsz,
            flags,
            pt_id: nest.parent,
            pasid: 5,
        };
        bench.raw(nest.fd, request::VFIO_ATTACH, &mut attach.to_bytes())
    };
    assert_eq!(attach(11, 0), Err(libc::EINVAL));
    assert_eq!(attach(16, 2), Err(libc::EINVAL));
    assert_eq!(attach(15, VFIO_PASID), Err(libc::EINVAL));
    assert_eq!(attach(12, 0), Ok(()));
    assert_eq!(bench.attach(nest.fd, 99), Err(libc::ENOENT));
    assert_eq!(bench.attach(nest.fd, nest.device), Err(libc::EINVAL));
    assert_eq!(bench.detach(nest.fd, None), Ok(()));
    assert_eq!(bench.detach(nest.fd, None), Ok(()), "never fails");
    assert_eq!(bench.detach(nest.fd, Some(9)), Ok(()));
}

#[test]
fn a_table_that_the_hardware_cannot_read_is_refused_when_attached() {
    let less = HwInfo {
        cap: capable_iommu().cap.with_first_stage_5_level(false),
        ecap: capable_iommu()
            .ecap
            .with_supervisor_request(false)
            .with_extended_accessed(false),
    };
    let config = TwinConfig {
        iommus: vec![less],
        ..TwinConfig::default()
    };
    let nest = Nest::new(config, TwinDevice::default());
    let good = nest.attached();
    nest.ram.map(0x5000, 0x6000);
    for bad in [
        VtdS1 {
            addr_width: 39,
            ..S1
        },
        VtdS1 {
            addr_width: 57,
            ..S1
        },
        VtdS1 {
            flags: VTD_S1_SRE,
            ..S1
        },
        VtdS1 {
            flags: VTD_S1_EAFE,
            ..S1
        },
    ] {
        let bench = &nest.bench;
        assert_eq!(bench.target(nest.fd, 0x5000), Some(0x6000));
        let bad = nest.nested(bad);
        assert_eq!(bench.attach(nest.fd, bad), Err(libc::EINVAL));
        assert_eq!(bench.target(nest.fd, 0x5000), None, "blocked");
        assert_eq!(bench.destroy(good), Err(libc::EBUSY), "on record");
        bench.attach(nest.fd, good).unwrap();
        assert_eq!(bench.target(nest.fd, 0x5000), None, "nothing is done");
        bench.detach(nest.fd, None).unwrap();
        bench.attach(nest.fd, good).unwrap();
    }
    let odd = nest.nested(VtdS1 {
        flags: VTD_S1_WPE | 1 << 40,
        reserved: 3,
        ..S1
    });
    nest.bench.attach(nest.fd, odd).unwrap();
}

#[test]
fn without_the_quirks_a_failed_replacement_changes_nothing() {
    let mut config = TwinConfig::default();
    config.quirks.failed_attach_blocks = false;
    config.quirks.same_hwpt_ignored = false;
    let nest = Nest::new(config, TwinDevice::default());
    let good = nest.attached();
    nest.ram.map(0x5000, 0x6000);
    let bad = nest.nested(VtdS1 {
        addr_width: 39,
        ..S1
    });
    assert_eq!(nest.bench.attach(nest.fd, bad), Err(libc::EINVAL));
    assert_eq!(nest.bench.target(nest.fd, 0x5000), Some(0x6000));
    nest.bench.attach(nest.fd, good).unwrap();
    assert_eq!(nest.bench.target(nest.fd, 0x5000), Some(0x6000));
}

#[test]
fn a_failed_replacement_lifts_the_reservation() {
    let nest = Nest::default();
    nest.attached();
    let bad = nest.nested(VtdS1 {
        addr_width: 39,
        ..S1
    });
    let ram = Ram::new(1);
    let bench = &nest.bench;
    assert_eq!(bench.map(nest.ioas, &ram, 0xfee0_0000), Err(libc::EINVAL));
    assert_eq!(bench.attach(nest.fd, bad), Err(libc::EINVAL));
    assert_eq!(bench.map(nest.ioas, &ram, 0xfee0_0000), Ok(()));
}

#[test]
fn pasids_need_hwpts_that_say_so() {
    let nest = Nest::default();
    let bench = &nest.bench;
    let (device, fd) = (nest.device, nest.fd);
    let with = nest.nested(S1);
    let without = bench
        .nested_with(device, nest.parent, 0, 0, &mut S1.clone())
        .unwrap();
    assert_eq!(bench.attach_pasid(fd, 5, without), Err(libc::EINVAL));
    bench.attach(fd, without).unwrap();
    assert_eq!(bench.attach_pasid(fd, 5, with), Err(libc::EINVAL));
    bench.attach(fd, with).unwrap();
    bench.attach_pasid(fd, 5, with).unwrap();
    assert_eq!(bench.attach(fd, without), Err(libc::EINVAL));
    assert_eq!(bench.attach_pasid(fd, 1 << 20, with), Err(libc::EINVAL));
    assert_eq!(
        bench.attach_pasid(fd, 0, with),
        Err(libc::EBUSY),
        "it is what the device has without PASID"
    );
    bench.detach(fd, None).unwrap();
    bench.attach_pasid(fd, 0, with).unwrap();
    nest.ram.map(0x5000, 0x6000);
    assert_eq!(bench.target(fd, 0x5000), Some(0x6000));
    assert_eq!(bench.attach(fd, with), Err(libc::EBUSY));
    let ioas = bench.ioas();
    assert_eq!(bench.attach_pasid(fd, 6, ioas), Err(libc::EINVAL));
}

#[test]
fn a_failed_replacement_of_a_pasid_blocks_it_only_once_it_was_torn_down() {
    let nest = Nest::default();
    let good = nest.nested(S1);
    let bench = &nest.bench;
    bench.attach_pasid(nest.fd, 5, good).unwrap();
    nest.ram.map(0x5000, 0x6000);
    let reads = || bench.dma(nest.fd, Some(5), 0x5000, READ).result.is_ok();
    let bad = nest.nested(VtdS1 {
        addr_width: 39,
        ..S1
    });
    assert!(reads());
    assert_eq!(bench.attach_pasid(nest.fd, 5, bad), Err(libc::EINVAL));
    assert!(!reads());
    bench.attach_pasid(nest.fd, 5, good).unwrap();
    assert!(!reads(), "the same as on record");
    let other = nest.nested(S1);
    bench.attach_pasid(nest.fd, 5, other).unwrap();
    assert!(reads());
}

#[test]
fn pasids_of_a_device_without_are_attached_to_nothing() {
    let plain = TwinDevice {
        max_pasid_bits: 0,
        ..TwinDevice::default()
    };
    let nest = Nest::new(TwinConfig::default(), plain);
    let hwpt = nest.nested(S1);
    nest.bench.attach_pasid(nest.fd, 5, hwpt).unwrap();
    assert_eq!(
        nest.bench.dma(nest.fd, Some(5), 0x5000, READ).result,
        Err(DmaFault::Blocked)
    );
    assert_eq!(nest.bench.destroy(hwpt), Err(libc::EBUSY));
    nest.bench.detach(nest.fd, Some(5)).unwrap();
    nest.bench.destroy(hwpt).unwrap();
}

#[test]
fn an_ioas_makes_a_domain_of_its_own_and_it_goes_with_the_last_device() {
    let bench = Bench::default();
    let ioas = bench.ioas();
    let ram = Ram::new(1);
    bench.map(ioas, &ram, 0x1000).unwrap();
    let (first, _) = bench.device(TwinDevice::default());
    let (second, device) = bench.device(TwinDevice::default());
    let hwpt = bench.attach(first, ioas).unwrap();
    assert_ne!(hwpt, ioas);
    assert_eq!(bench.attach(second, ioas), Ok(hwpt), "shared");
    assert_eq!(bench.target(second, 0x1008), Some(0x1008));
    assert_eq!(bench.nested(device, hwpt, S1), Err(libc::EINVAL));
    bench.detach(first, None).unwrap();
    assert_eq!(bench.twin.stats().paging, 1);
    bench.twin.close(second).unwrap();
    assert_eq!(bench.twin.stats().paging, 0);
    let bad = bench.ioas();
    bench.map(bad, &ram, 1 << 60).unwrap();
    assert_eq!(bench.attach(first, bad), Err(libc::EADDRINUSE));
    assert_eq!(bench.twin.stats().paging, 0);
    bench.attach(first, ioas).unwrap();
    assert_eq!(bench.attach(first, bad), Err(libc::EADDRINUSE));
    assert_eq!(bench.target(first, 0x1008), Some(0x1008), "as before");
}

#[test]
fn a_domain_of_one_iommu_may_not_fit_another() {
    let narrow = HwInfo {
        cap: capable_iommu()
            .cap
            .with_address_width(47)
            .with_second_stage_widths(0b00100),
        ..capable_iommu()
    };
    let config = TwinConfig {
        iommus: vec![capable_iommu(), narrow],
        ..TwinConfig::default()
    };
    let nest = Nest::new(config, TwinDevice::default());
    let bench = &nest.bench;
    let (fd, device) = bench.device(TwinDevice {
        iommu: 1,
        ..TwinDevice::default()
    });
    assert_eq!(bench.attach(fd, nest.parent), Err(libc::EINVAL));
    let nested = nest.nested(S1);
    assert_eq!(bench.attach(fd, nested), Err(libc::EINVAL));
    let own = bench.hwpt(device, nest.ioas, HWPT_NEST_PARENT).unwrap();
    let nested = bench.nested(device, own, S1).unwrap();
    bench.attach(fd, nested).unwrap();
    assert_eq!(bench.attach(nest.fd, nested), Ok(nested), "the other way");
}

#[test]
fn the_low_bits_of_a_tables_address_become_flags() {
    let nest = Nest::default();
    nest.ram.map(0x5000, 0x6000);
    let fault = |low: u64, addr_width| {
        let hwpt = nest.nested(VtdS1 {
            pgtbl_addr: TABLE | low,
            addr_width,
            ..S1
        });
        nest.bench.attach(nest.fd, hwpt).unwrap();
        match nest.bench.dma(nest.fd, None, 0x5000, READ).result {
            Err(DmaFault::Table(fault)) => Some(fault.diagnostic),
            found => {
                assert_eq!(found.unwrap().address, 0x6000);
                None
            }
        }
    };
    assert_eq!(fault(0, 48), None);
    assert_eq!(fault(1 << 7, 48), None);
    assert_eq!(nest.ram.peek(TABLE) & 1 << 10, 1 << 10, "EAFE");
    assert_eq!(fault(1 << 3, 48), Some(Diagnostic::PasidPagingMode));
    assert_eq!(fault(1 << 8, 48), Some(Diagnostic::PasidReserved));
    assert_eq!(fault(1 << 1, 48), Some(Diagnostic::PasidCapability), "ERE");
    assert_eq!(fault(0xfff, 48), Some(Diagnostic::PasidPagingMode));
    assert_ne!(fault(1 << 2, 48), None, "five levels");
}

#[test]
fn domain_ids_run_out() {
    let few = HwInfo {
        cap: capable_iommu().cap.with_domains(0),
        ..capable_iommu()
    };
    let config = TwinConfig {
        iommus: vec![few],
        ..TwinConfig::default()
    };
    let nest = Nest::new(config, TwinDevice::default());
    for pasid in 1..=14 {
        let hwpt = nest.nested(S1);
        nest.bench.attach_pasid(nest.fd, pasid, hwpt).unwrap();
    }
    let hwpt = nest.nested(S1);
    let attach = || nest.bench.attach_pasid(nest.fd, 15, hwpt);
    assert_eq!(attach(), Err(libc::ENOSPC));
    nest.bench.detach(nest.fd, Some(3)).unwrap();
    assert_eq!(attach(), Ok(hwpt));
}

#[test]
fn in_6_12_there_are_no_pasids() {
    let config = TwinConfig {
        kernel: Kernel::V6_12,
        ..TwinConfig::default()
    };
    let nest = Nest::new(config, TwinDevice::default());
    assert_eq!(
        nest.bench.attach_pasid(nest.fd, 5, nest.parent),
        Err(libc::EINVAL)
    );
    nest.bench.attach(nest.fd, nest.parent).unwrap();
    assert_eq!(nest.bench.target(nest.fd, 0x1008), Some(0x1008));
}

#[test]
fn in_6_12_a_failed_replacement_changes_nothing() {
    let config = TwinConfig {
        kernel: Kernel::V6_12,
        ..TwinConfig::default()
    };
    let nest = Nest::new(config, TwinDevice::default());
    let nested = |data: VtdS1| {
        nest.bench
            .nested_with(nest.device, nest.parent, 0, 0, &mut data.clone())
            .unwrap()
    };
    nest.ram.map(0x5000, 0x6000);
    let (good, bad) = (
        nested(S1),
        nested(VtdS1 {
            addr_width: 39,
            ..S1
        }),
    );
    assert_eq!(nest.bench.attach(nest.fd, bad), Err(libc::EINVAL));
    assert_eq!(nest.bench.target(nest.fd, 0x5000), None);
    nest.bench.attach(nest.fd, good).unwrap();
    assert_eq!(nest.bench.attach(nest.fd, bad), Err(libc::EINVAL));
    assert_eq!(nest.bench.target(nest.fd, 0x5000), Some(0x6000));
}

#[test]
fn an_iommu_without_second_stages_is_noticed_late_in_6_12() {
    for kernel in [Kernel::V6_12, Kernel::V7_3] {
        let bare = HwInfo {
            ecap: capable_iommu().ecap.with_second_stage(false),
            ..capable_iommu()
        };
        let bench = Bench::with(|config| {
            config.kernel = kernel;
            config.iommus = vec![bare];
            config.quirks.first_stage_default = false;
        });
        let ioas = bench.ioas();
        let (fd, device) = bench.device(TwinDevice::default());
        let made = bench.hwpt(device, ioas, 0);
        if kernel == Kernel::V6_12 {
            assert_eq!(bench.attach(fd, made.unwrap()), Err(libc::EINVAL));
            assert_eq!(bench.attach(fd, ioas), Err(libc::EINVAL));
        } else {
            assert_eq!(made, Err(libc::EOPNOTSUPP));
        }
    }
}

#[test]
fn devices_of_a_group_are_attached_together() {
    let member = TwinDevice {
        group: 7,
        ..TwinDevice::default()
    };
    let nest = Nest::new(TwinConfig::default(), member);
    let bench = &nest.bench;
    let foreign = Bench::with(|config| config.iommus.push(capable_iommu()));
    foreign.twin.add_device(member).unwrap();
    let elsewhere = TwinDevice { iommu: 1, ..member };
    assert_eq!(foreign.twin.add_device(elsewhere), Err(libc::EINVAL));

    let second = bench.twin.add_device(member).unwrap();
    let other = bench.twin.open();
    let mut bind = VfioBind {
        iommufd: other,
        ..VfioBind::default()
    };
    assert_eq!(
        bench.on(second, request::VFIO_BIND, &mut bind),
        Err(libc::EPERM),
        "the group has an owner"
    );
    let hwpt = nest.attached();
    nest.ram.map(0x5000, 0x6000);
    assert_eq!(
        bench.target(second, 0x5000),
        Some(0x6000),
        "without being bound"
    );
    bench.bind(second).unwrap();
    assert_eq!(bench.attach(second, nest.parent), Err(libc::EINVAL));
    bench.attach(second, hwpt).unwrap();
    bench.attach(second, nest.parent).unwrap();
    assert_eq!(bench.target(nest.fd, 0x5000), Some(0x5000), "both changed");
    bench.destroy(hwpt).unwrap();
    let bad = nest.nested(VtdS1 {
        addr_width: 39,
        ..S1
    });
    assert_eq!(bench.attach(nest.fd, bad), Err(libc::EINVAL));
    assert_eq!(bench.target(nest.fd, 0x5000), None, "the first refused");
    bench.detach(nest.fd, None).unwrap();
    bench.destroy(bad).unwrap();
    assert_eq!(bench.destroy(nest.parent), Err(libc::EBUSY));
    bench.twin.close(second).unwrap();
    bench.destroy(nest.parent).unwrap();
}
