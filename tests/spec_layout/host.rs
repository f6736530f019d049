//! Structures, numbers and flags of the kernel's iommufd and vfio interfaces.

use core::mem::offset_of;

use nested_vtd::host::uapi::*;

/// A test of size, alignment, and type and offset of every field, and that the
/// structure becomes the same bytes and comes back from them.
macro_rules! structure {
    ($test:ident: $type:ident, size $size:literal, align $align:literal;
     $($field:ident: $kind:ty, at $offset:literal;)+) => {
        #[test]
        fn $test() {
            let $type { $($field),+ } = $type::default();
            $(
                let zero: $kind = $field;
                assert_eq!(zero, <$kind>::default());
                assert_eq!(offset_of!($type, $field), $offset, stringify!($field));
            )+
            assert_eq!(size_of::<$type>(), $size);
            assert_eq!(align_of::<$type>(), $align);
            let pattern: Vec<u8> = (1..=$size).collect();
            assert_eq!($type::from_bytes(&pattern).to_bytes(), pattern);
            assert_eq!($type::from_bytes(&[]), $type::default());
        }
    };
}

// struct iommu_destroy.
structure! {
    destroy: Destroy, size 8, align 4;
    size: u32, at 0;
    id: u32, at 4;
}

// struct iommu_ioas_alloc.
structure! {
    ioas_alloc: IoasAlloc, size 12, align 4;
    size: u32, at 0;
    flags: u32, at 4;
    out_ioas_id: u32, at 8;
}

// struct iommu_iova_range.
structure! {
    iova_range: IovaRange, size 16, align 8;
    start: u64, at 0;
    last: u64, at 8;
}

// struct iommu_ioas_iova_ranges.
structure! {
    ioas_iova_ranges: IoasIovaRanges, size 32, align 8;
    size: u32, at 0;
    ioas_id: u32, at 4;
    num_iovas: u32, at 8;
    reserved: u32, at 12;
    allowed_iovas: u64, at 16;
    out_iova_alignment: u64, at 24;
}

// struct iommu_ioas_allow_iovas.
structure! {
    ioas_allow_iovas: IoasAllowIovas, size 24, align 8;
    size: u32, at 0;
    ioas_id: u32, at 4;
    num_iovas: u32, at 8;
    reserved: u32, at 12;
    allowed_iovas: u64, at 16;
}

// struct iommu_ioas_map.
structure! {
    ioas_map: IoasMap, size 40, align 8;
    size: u32, at 0;
    flags: u32, at 4;
    ioas_id: u32, at 8;
    reserved: u32, at 12;
    user_va: u64, at 16;
    length: u64, at 24;
    iova: u64, at 32;
}

// struct iommu_ioas_map_file.
structure! {
    ioas_map_file: IoasMapFile, size 40, align 8;
    size: u32, at 0;
    flags: u32, at 4;
    ioas_id: u32, at 8;
    fd: i32, at 12;
    start: u64, at 16;
    length: u64, at 24;
    iova: u64, at 32;
}

// struct iommu_ioas_copy.
structure! {
    ioas_copy: IoasCopy, size 40, align 8;
    size: u32, at 0;
    flags: u32, at 4;
    dst_ioas_id: u32, at 8;
    src_ioas_id: u32, at 12;
    length: u64, at 16;
    dst_iova: u64, at 24;
    src_iova: u64, at 32;
}

// struct iommu_ioas_unmap.
structure! {
    ioas_unmap: IoasUnmap, size 24, align 8;
    size: u32, at 0;
    ioas_id: u32, at 4;
    iova: u64, at 8;
    length: u64, at 16;
}

// struct iommu_ioas_change_process.
structure! {
    ioas_change_process: IoasChangeProcess, size 8, align 4;
    size: u32, at 0;
    reserved: u32, at 4;
}

// struct iommu_option.
structure! {
    iommu_option: IommuOption, size 24, align 8;
    size: u32, at 0;
    option_id: u32, at 4;
    op: u16, at 8;
    reserved: u16, at 10;
    object_id: u32, at 12;
    val64: u64, at 16;
}

// struct iommu_vfio_ioas.
structure! {
    vfio_ioas: VfioIoas, size 12, align 4;
    size: u32, at 0;
    ioas_id: u32, at 4;
    op: u16, at 8;
    reserved: u16, at 10;
}

// struct iommu_hwpt_alloc.
structure! {
    hwpt_alloc: HwptAlloc, size 48, align 8;
    size: u32, at 0;
    flags: u32, at 4;
    dev_id: u32, at 8;
    pt_id: u32, at 12;
    out_hwpt_id: u32, at 16;
    reserved: u32, at 20;
    data_type: u32, at 24;
    data_len: u32, at 28;
    data_uptr: u64, at 32;
    fault_id: u32, at 40;
    reserved2: u32, at 44;
}

// struct iommu_hwpt_vtd_s1.
structure! {
    vtd_s1: VtdS1, size 24, align 8;
    flags: u64, at 0;
    pgtbl_addr: u64, at 8;
    addr_width: u32, at 16;
    reserved: u32, at 20;
}

// struct iommu_hw_info.
structure! {
    hw_info_call: HwInfoCall, size 40, align 8;
    size: u32, at 0;
    flags: u32, at 4;
    dev_id: u32, at 8;
    data_len: u32, at 12;
    data_uptr: u64, at 16;
    data_type: u32, at 24;
    out_max_pasid_log2: u8, at 28;
    reserved: [u8; 3], at 29;
    out_capabilities: u64, at 32;
}

// struct iommu_hw_info_vtd.
structure! {
    hw_info_vtd: HwInfoVtd, size 24, align 8;
    flags: u32, at 0;
    reserved: u32, at 4;
    cap_reg: u64, at 8;
    ecap_reg: u64, at 16;
}

// struct iommu_hwpt_set_dirty_tracking.
structure! {
    set_dirty_tracking: SetDirtyTracking, size 16, align 4;
    size: u32, at 0;
    flags: u32, at 4;
    hwpt_id: u32, at 8;
    reserved: u32, at 12;
}

// struct iommu_hwpt_get_dirty_bitmap.
structure! {
    get_dirty_bitmap: GetDirtyBitmap, size 48, align 8;
    size: u32, at 0;
    hwpt_id: u32, at 4;
    flags: u32, at 8;
    reserved: u32, at 12;
    iova: u64, at 16;
    length: u64, at 24;
    page_size: u64, at 32;
    data: u64, at 40;
}

// struct iommu_hwpt_invalidate.
structure! {
    hwpt_invalidate: HwptInvalidate, size 32, align 8;
    size: u32, at 0;
    hwpt_id: u32, at 4;
    data_uptr: u64, at 8;
    data_type: u32, at 16;
    entry_len: u32, at 20;
    entry_num: u32, at 24;
    reserved: u32, at 28;
}

// struct iommu_hwpt_vtd_s1_invalidate.
structure! {
    vtd_s1_invalidate: VtdS1Invalidate, size 24, align 8;
    addr: u64, at 0;
    npages: u64, at 8;
    flags: u32, at 16;
    reserved: u32, at 20;
}

// struct iommu_fault_alloc.
structure! {
    fault_alloc: FaultAlloc, size 16, align 4;
    size: u32, at 0;
    flags: u32, at 4;
    out_fault_id: u32, at 8;
    out_fault_fd: i32, at 12;
}

// struct iommu_hwpt_pgfault.
structure! {
    page_fault: PageFault, size 40, align 8;
    flags: u32, at 0;
    dev_id: u32, at 4;
    pasid: u32, at 8;
    grpid: u32, at 12;
    perm: u32, at 16;
    reserved: u32, at 20;
    addr: u64, at 24;
    length: u32, at 32;
    cookie: u32, at 36;
}

// struct iommu_hwpt_page_response.
structure! {
    page_fault_response: PageFaultResponse, size 8, align 4;
    cookie: u32, at 0;
    code: u32, at 4;
}

// struct iommu_viommu_alloc.
structure! {
    viommu_alloc: ViommuAlloc, size 40, align 8;
    size: u32, at 0;
    flags: u32, at 4;
    kind: u32, at 8;
    dev_id: u32, at 12;
    hwpt_id: u32, at 16;
    out_viommu_id: u32, at 20;
    data_len: u32, at 24;
    reserved: u32, at 28;
    data_uptr: u64, at 32;
}

// struct iommu_vdevice_alloc.
structure! {
    vdevice_alloc: VdeviceAlloc, size 24, align 8;
    size: u32, at 0;
    viommu_id: u32, at 4;
    dev_id: u32, at 8;
    out_vdevice_id: u32, at 12;
    virt_id: u64, at 16;
}

// struct iommu_veventq_alloc.
structure! {
    veventq_alloc: VeventqAlloc, size 32, align 4;
    size: u32, at 0;
    flags: u32, at 4;
    viommu_id: u32, at 8;
    kind: u32, at 12;
    veventq_depth: u32, at 16;
    out_veventq_id: u32, at 20;
    out_veventq_fd: u32, at 24;
    reserved: u32, at 28;
}

// struct iommu_hw_queue_alloc.
structure! {
    hw_queue_alloc: HwQueueAlloc, size 40, align 8;
    size: u32, at 0;
    flags: u32, at 4;
    viommu_id: u32, at 8;
    kind: u32, at 12;
    index: u32, at 16;
    out_hw_queue_id: u32, at 20;
    nesting_parent_iova: u64, at 24;
    length: u64, at 32;
}

// struct vfio_device_bind_iommufd.
structure! {
    vfio_bind: VfioBind, size 24, align 8;
    argsz: u32, at 0;
    flags: u32, at 4;
    iommufd: i32, at 8;
    out_devid: u32, at 12;
    token_uuid_ptr: u64, at 16;
}

// struct vfio_device_attach_iommufd_pt.
structure! {
    vfio_attach: VfioAttach, size 16, align 4;
    argsz: u32, at 0;
    flags: u32, at 4;
    pt_id: u32, at 8;
    pasid: u32, at 12;
}

// struct vfio_device_detach_iommufd_pt.
structure! {
    vfio_detach: VfioDetach, size 12, align 4;
    argsz: u32, at 0;
    flags: u32, at 4;
    pasid: u32, at 8;
}

// _IO(';', 0x80) and on; vfio's _IO(';', 100 + 18) and on.
#[test]
fn requests() {
    assert_eq!(request::DESTROY, 0x3b80);
    assert_eq!(request::IOAS_ALLOC, 0x3b81);
    assert_eq!(request::IOAS_ALLOW_IOVAS, 0x3b82);
    assert_eq!(request::IOAS_COPY, 0x3b83);
    assert_eq!(request::IOAS_IOVA_RANGES, 0x3b84);
    assert_eq!(request::IOAS_MAP, 0x3b85);
    assert_eq!(request::IOAS_UNMAP, 0x3b86);
    assert_eq!(request::OPTION, 0x3b87);
    assert_eq!(request::VFIO_IOAS, 0x3b88);
    assert_eq!(request::HWPT_ALLOC, 0x3b89);
    assert_eq!(request::GET_HW_INFO, 0x3b8a);
    assert_eq!(request::HWPT_SET_DIRTY_TRACKING, 0x3b8b);
    assert_eq!(request::HWPT_GET_DIRTY_BITMAP, 0x3b8c);
    assert_eq!(request::HWPT_INVALIDATE, 0x3b8d);
    assert_eq!(request::FAULT_QUEUE_ALLOC, 0x3b8e);
    assert_eq!(request::IOAS_MAP_FILE, 0x3b8f);
    assert_eq!(request::VIOMMU_ALLOC, 0x3b90);
    assert_eq!(request::VDEVICE_ALLOC, 0x3b91);
    assert_eq!(request::IOAS_CHANGE_PROCESS, 0x3b92);
    assert_eq!(request::VEVENTQ_ALLOC, 0x3b93);
    assert_eq!(request::HW_QUEUE_ALLOC, 0x3b94);
    assert_eq!(request::IOAS_NOIOMMU_GET_PA, 0x3b95);
    assert_eq!(request::VFIO_BIND, 0x3b76);
    assert_eq!(request::VFIO_ATTACH, 0x3b77);
    assert_eq!(request::VFIO_DETACH, 0x3b78);
    assert_eq!(request::name(0x3b8d), "IOMMU_HWPT_INVALIDATE");
}

#[test]
fn flags() {
    assert_eq!((MAP_FIXED_IOVA, MAP_WRITEABLE, MAP_READABLE), (1, 2, 4));
    assert_eq!((HWPT_NEST_PARENT, HWPT_DIRTY_TRACKING), (1, 2));
    assert_eq!((HWPT_FAULT_ID_VALID, HWPT_PASID), (4, 8));
    assert_eq!((HWPT_DATA_NONE, HWPT_DATA_VTD_S1), (0, 1));
    assert_eq!((INVALIDATE_DATA_VTD_S1, HW_INFO_INTEL_VTD), (0, 1));
    assert_eq!((VTD_S1_SRE, VTD_S1_EAFE, VTD_S1_WPE), (1, 2, 4));
    assert_eq!(VTD_INV_FLAGS_LEAF, 1);
    assert_eq!((HW_CAP_DIRTY_TRACKING, HW_CAP_PASID_EXEC), (1, 2));
    assert_eq!((HW_CAP_PASID_PRIV, HW_CAP_ATS_NOT_SUPPORTED), (4, 8));
    assert_eq!((DIRTY_TRACKING_ENABLE, DIRTY_BITMAP_NO_CLEAR), (1, 1));
    assert_eq!((PAGE_FAULT_PASID_VALID, PAGE_FAULT_LAST_PAGE), (1, 2));
    assert_eq!((PAGE_FAULT_READ, PAGE_FAULT_WRITE), (1, 2));
    assert_eq!((PAGE_FAULT_EXECUTE, PAGE_FAULT_PRIVILEGED), (4, 8));
    assert_eq!((PAGE_RESPONSE_SUCCESS, PAGE_RESPONSE_INVALID), (0, 1));
    assert_eq!(VFIO_PASID, 1);
    assert_eq!((MSI_START, MSI_LAST), (0xfee0_0000, 0xfeef_ffff));
}

// The kernel takes address 0 with all ones as everything.
#[test]
fn everything() {
    let all = VtdS1Invalidate::ALL;
    assert_eq!(all.addr, 0);
    assert_eq!(all.npages, 0xffff_ffff_ffff_ffff);
    assert_eq!((all.flags, all.reserved), (0, 0));
}
