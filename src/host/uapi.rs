//! The structures, numbers and flags of `<linux/iommufd.h>`, and of the three calls of
//! `<linux/vfio.h>` that put a device on an iommufd object. Layouts are pinned by
//! `tests/spec_layout/host.rs`; fields have the kernel's names.

use crate::spec::PAGE_SIZE;

/// A field of a structure: plain bytes in the machine's order.
pub trait Field: Sized {
    /// Take it from the front of `bytes`; missing bytes are 0.
    fn take(bytes: &[u8]) -> Self;

    /// Append it to `bytes`.
    fn put(&self, bytes: &mut Vec<u8>);
}

macro_rules! plain_fields {
    ($($kind:ty),*) => {
        $(impl Field for $kind {
            fn take(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                for (to, from) in own.iter_mut().zip(bytes) {
                    *to = *from;
                }
                Self::from_ne_bytes(own)
            }

            fn put(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_ne_bytes());
            }
        })*
    };
}

plain_fields!(u8, u16, u32, u64, i32);

impl Field for [u8; 3] {
    fn take(bytes: &[u8]) -> Self {
        let mut own = [0; 3];
        for (to, from) in own.iter_mut().zip(bytes) {
            *to = *from;
        }
        own
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }
}

/// A structure of the interface. None has padding.
pub trait Plain: Copy + Default {
    /// From bytes; what is missing at the end is 0.
    fn from_bytes(bytes: &[u8]) -> Self;

    /// As bytes.
    fn to_bytes(&self) -> Vec<u8>;
}

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),+ $(,)? })+) => {
        $($(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[expect(missing_docs, reason = "the kernel's header says what each field is")]
        pub struct $name {
            $(pub $field: $kind,)+
        }

        impl Plain for $name {
            fn from_bytes(bytes: &[u8]) -> Self {
                Self {
                    $($field: Field::take(
                        bytes.get(core::mem::offset_of!(Self, $field)..).unwrap_or_default(),
                    ),)+
                }
            }

            fn to_bytes(&self) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(size_of::<Self>());
                $(self.$field.put(&mut bytes);)+
                bytes
            }
        })+
    };
}

structures! {
    /// `struct iommu_destroy`.
    Destroy { size: u32, id: u32 }

    /// `struct iommu_ioas_alloc`.
    IoasAlloc { size: u32, flags: u32, out_ioas_id: u32 }

    /// `struct iommu_iova_range`.
    IovaRange { start: u64, last: u64 }

    /// `struct iommu_ioas_iova_ranges`.
    IoasIovaRanges {
        size: u32, ioas_id: u32, num_iovas: u32, reserved: u32, allowed_iovas: u64,
        out_iova_alignment: u64,
    }

    /// `struct iommu_ioas_allow_iovas`.
    IoasAllowIovas {
        size: u32, ioas_id: u32, num_iovas: u32, reserved: u32, allowed_iovas: u64,
    }

    /// `struct iommu_ioas_map`.
    IoasMap {
        size: u32, flags: u32, ioas_id: u32, reserved: u32, user_va: u64, length: u64, iova: u64,
    }

    /// `struct iommu_ioas_map_file`.
    IoasMapFile {
        size: u32, flags: u32, ioas_id: u32, fd: i32, start: u64, length: u64, iova: u64,
    }

    /// `struct iommu_ioas_copy`.
    IoasCopy {
        size: u32, flags: u32, dst_ioas_id: u32, src_ioas_id: u32, length: u64, dst_iova: u64,
        src_iova: u64,
    }

    /// `struct iommu_ioas_unmap`.
    IoasUnmap { size: u32, ioas_id: u32, iova: u64, length: u64 }

    /// `struct iommu_ioas_change_process`.
    IoasChangeProcess { size: u32, reserved: u32 }

    /// `struct iommu_option`.
    IommuOption {
        size: u32, option_id: u32, op: u16, reserved: u16, object_id: u32, val64: u64,
    }

    /// `struct iommu_vfio_ioas`.
    VfioIoas { size: u32, ioas_id: u32, op: u16, reserved: u16 }

    /// `struct iommu_hwpt_alloc`.
    HwptAlloc {
        size: u32, flags: u32, dev_id: u32, pt_id: u32, out_hwpt_id: u32, reserved: u32,
        data_type: u32, data_len: u32, data_uptr: u64, fault_id: u32, reserved2: u32,
    }

    /// `struct iommu_hwpt_vtd_s1`: a guest's first-stage table. `addr_width` is 48 or 57,
    /// `pgtbl_addr` a guest-physical address.
    VtdS1 { flags: u64, pgtbl_addr: u64, addr_width: u32, reserved: u32 }

    /// `struct iommu_hw_info`.
    HwInfoCall {
        size: u32, flags: u32, dev_id: u32, data_len: u32, data_uptr: u64, data_type: u32,
        out_max_pasid_log2: u8, reserved: [u8; 3], out_capabilities: u64,
    }

    /// `struct iommu_hw_info_vtd`.
    HwInfoVtd { flags: u32, reserved: u32, cap_reg: u64, ecap_reg: u64 }

    /// `struct iommu_hwpt_set_dirty_tracking`.
    SetDirtyTracking { size: u32, flags: u32, hwpt_id: u32, reserved: u32 }

    /// `struct iommu_hwpt_get_dirty_bitmap`.
    GetDirtyBitmap {
        size: u32, hwpt_id: u32, flags: u32, reserved: u32, iova: u64, length: u64,
        page_size: u64, data: u64,
    }

    /// `struct iommu_hwpt_invalidate`.
    HwptInvalidate {
        size: u32, hwpt_id: u32, data_uptr: u64, data_type: u32, entry_len: u32, entry_num: u32,
        reserved: u32,
    }

    /// `struct iommu_hwpt_vtd_s1_invalidate`: a range to forget. `addr` is a multiple of
    /// 4096, `npages` counts pages of 4 KiB, all ones with `addr` 0 is everything.
    VtdS1Invalidate { addr: u64, npages: u64, flags: u32, reserved: u32 }

    /// `struct iommu_fault_alloc`.
    FaultAlloc { size: u32, flags: u32, out_fault_id: u32, out_fault_fd: i32 }

    /// `struct iommu_hwpt_pgfault`: a page request, read from a fault queue.
    PageFault {
        flags: u32, dev_id: u32, pasid: u32, grpid: u32, perm: u32, reserved: u32, addr: u64,
        length: u32, cookie: u32,
    }

    /// `struct iommu_hwpt_page_response`: the answer, written to it.
    PageFaultResponse { cookie: u32, code: u32 }

    /// `struct iommu_viommu_alloc`.
    ViommuAlloc {
        size: u32, flags: u32, kind: u32, dev_id: u32, hwpt_id: u32, out_viommu_id: u32,
        data_len: u32, reserved: u32, data_uptr: u64,
    }

    /// `struct iommu_vdevice_alloc`.
    VdeviceAlloc { size: u32, viommu_id: u32, dev_id: u32, out_vdevice_id: u32, virt_id: u64 }

    /// `struct iommu_veventq_alloc`.
    VeventqAlloc {
        size: u32, flags: u32, viommu_id: u32, kind: u32, veventq_depth: u32,
        out_veventq_id: u32, out_veventq_fd: u32, reserved: u32,
    }

    /// `struct iommu_hw_queue_alloc`.
    HwQueueAlloc {
        size: u32, flags: u32, viommu_id: u32, kind: u32, index: u32, out_hw_queue_id: u32,
        nesting_parent_iova: u64, length: u64,
    }

    /// `struct vfio_device_bind_iommufd`.
    VfioBind { argsz: u32, flags: u32, iommufd: i32, out_devid: u32, token_uuid_ptr: u64 }

    /// `struct vfio_device_attach_iommufd_pt`.
    VfioAttach { argsz: u32, flags: u32, pt_id: u32, pasid: u32 }

    /// `struct vfio_device_detach_iommufd_pt`.
    VfioDetach { argsz: u32, flags: u32, pasid: u32 }
}

impl VtdS1Invalidate {
    /// The entry that forgets everything.
    pub const ALL: Self = Self {
        addr: 0,
        npages: u64::MAX,
        flags: 0,
        reserved: 0,
    };
}

/// Numbers of the calls.
#[expect(missing_docs, reason = "the kernel's header says what each call does")]
pub mod request {
    pub const DESTROY: u32 = 0x3b80;
    pub const IOAS_ALLOC: u32 = 0x3b81;
    pub const IOAS_ALLOW_IOVAS: u32 = 0x3b82;
    pub const IOAS_COPY: u32 = 0x3b83;
    pub const IOAS_IOVA_RANGES: u32 = 0x3b84;
    pub const IOAS_MAP: u32 = 0x3b85;
    pub const IOAS_UNMAP: u32 = 0x3b86;
    pub const OPTION: u32 = 0x3b87;
    pub const VFIO_IOAS: u32 = 0x3b88;
    pub const HWPT_ALLOC: u32 = 0x3b89;
    pub const GET_HW_INFO: u32 = 0x3b8a;
    pub const HWPT_SET_DIRTY_TRACKING: u32 = 0x3b8b;
    pub const HWPT_GET_DIRTY_BITMAP: u32 = 0x3b8c;
    pub const HWPT_INVALIDATE: u32 = 0x3b8d;
    pub const FAULT_QUEUE_ALLOC: u32 = 0x3b8e;
    pub const IOAS_MAP_FILE: u32 = 0x3b8f;
    pub const VIOMMU_ALLOC: u32 = 0x3b90;
    pub const VDEVICE_ALLOC: u32 = 0x3b91;
    pub const IOAS_CHANGE_PROCESS: u32 = 0x3b92;
    pub const VEVENTQ_ALLOC: u32 = 0x3b93;
    pub const HW_QUEUE_ALLOC: u32 = 0x3b94;
    pub const IOAS_NOIOMMU_GET_PA: u32 = 0x3b95;
    pub const VFIO_BIND: u32 = 0x3b76;
    pub const VFIO_ATTACH: u32 = 0x3b77;
    pub const VFIO_DETACH: u32 = 0x3b78;

    /// A request by name, for people.
    pub fn name(request: u32) -> &'static str {
        match request {
            DESTROY => "IOMMU_DESTROY",
            IOAS_ALLOC => "IOMMU_IOAS_ALLOC",
            IOAS_IOVA_RANGES => "IOMMU_IOAS_IOVA_RANGES",
            IOAS_MAP => "IOMMU_IOAS_MAP",
            IOAS_UNMAP => "IOMMU_IOAS_UNMAP",
            HWPT_ALLOC => "IOMMU_HWPT_ALLOC",
            GET_HW_INFO => "IOMMU_GET_HW_INFO",
            HWPT_SET_DIRTY_TRACKING => "IOMMU_HWPT_SET_DIRTY_TRACKING",
            HWPT_GET_DIRTY_BITMAP => "IOMMU_HWPT_GET_DIRTY_BITMAP",
            HWPT_INVALIDATE => "IOMMU_HWPT_INVALIDATE",
            FAULT_QUEUE_ALLOC => "IOMMU_FAULT_QUEUE_ALLOC",
            VFIO_BIND => "VFIO_DEVICE_BIND_IOMMUFD",
            VFIO_ATTACH => "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
            VFIO_DETACH => "VFIO_DEVICE_DETACH_IOMMUFD_PT",
            _ => "an ioctl",
        }
    }
}

/// `IOMMU_IOAS_MAP_FIXED_IOVA`.
pub const MAP_FIXED_IOVA: u32 = 1;
/// `IOMMU_IOAS_MAP_WRITEABLE`.
pub const MAP_WRITEABLE: u32 = 2;
/// `IOMMU_IOAS_MAP_READABLE`.
pub const MAP_READABLE: u32 = 4;

/// `IOMMU_HWPT_ALLOC_NEST_PARENT`.
pub const HWPT_NEST_PARENT: u32 = 1;
/// `IOMMU_HWPT_ALLOC_DIRTY_TRACKING`.
pub const HWPT_DIRTY_TRACKING: u32 = 2;
/// `IOMMU_HWPT_FAULT_ID_VALID`.
pub const HWPT_FAULT_ID_VALID: u32 = 4;
/// `IOMMU_HWPT_ALLOC_PASID`, new after Linux 6.12.
pub const HWPT_PASID: u32 = 8;

/// `IOMMU_HWPT_DATA_NONE`.
pub const HWPT_DATA_NONE: u32 = 0;
/// `IOMMU_HWPT_DATA_VTD_S1`.
pub const HWPT_DATA_VTD_S1: u32 = 1;
/// `IOMMU_HWPT_INVALIDATE_DATA_VTD_S1`.
pub const INVALIDATE_DATA_VTD_S1: u32 = 0;
/// `IOMMU_HW_INFO_TYPE_INTEL_VTD`.
pub const HW_INFO_INTEL_VTD: u32 = 1;

/// `IOMMU_VTD_S1_SRE`: supervisor requests.
pub const VTD_S1_SRE: u64 = 1;
/// `IOMMU_VTD_S1_EAFE`: extended accessed flag.
pub const VTD_S1_EAFE: u64 = 2;
/// `IOMMU_VTD_S1_WPE`: write protection for supervisor requests.
pub const VTD_S1_WPE: u64 = 4;

/// `IOMMU_VTD_INV_FLAGS_LEAF`: only the last level of the table changed.
pub const VTD_INV_FLAGS_LEAF: u32 = 1;

/// `IOMMU_HW_CAP_DIRTY_TRACKING`.
pub const HW_CAP_DIRTY_TRACKING: u64 = 1;
/// `IOMMU_HW_CAP_PCI_PASID_EXEC`.
pub const HW_CAP_PASID_EXEC: u64 = 2;
/// `IOMMU_HW_CAP_PCI_PASID_PRIV`.
pub const HW_CAP_PASID_PRIV: u64 = 4;
/// `IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED`.
pub const HW_CAP_ATS_NOT_SUPPORTED: u64 = 8;

/// `IOMMU_HWPT_DIRTY_TRACKING_ENABLE`.
pub const DIRTY_TRACKING_ENABLE: u32 = 1;
/// `IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR`.
pub const DIRTY_BITMAP_NO_CLEAR: u32 = 1;

/// `IOMMU_PGFAULT_FLAGS_PASID_VALID`.
pub const PAGE_FAULT_PASID_VALID: u32 = 1;
/// `IOMMU_PGFAULT_FLAGS_LAST_PAGE`.
pub const PAGE_FAULT_LAST_PAGE: u32 = 2;
/// `IOMMU_PGFAULT_PERM_READ`.
pub const PAGE_FAULT_READ: u32 = 1;
/// `IOMMU_PGFAULT_PERM_WRITE`.
pub const PAGE_FAULT_WRITE: u32 = 2;
/// `IOMMU_PGFAULT_PERM_EXEC`.
pub const PAGE_FAULT_EXECUTE: u32 = 4;
/// `IOMMU_PGFAULT_PERM_PRIV`.
pub const PAGE_FAULT_PRIVILEGED: u32 = 8;
/// `IOMMUFD_PAGE_RESP_SUCCESS`.
pub const PAGE_RESPONSE_SUCCESS: u32 = 0;
/// `IOMMUFD_PAGE_RESP_INVALID`.
pub const PAGE_RESPONSE_INVALID: u32 = 1;

/// `VFIO_DEVICE_ATTACH_PASID`, `VFIO_DEVICE_DETACH_PASID`.
pub const VFIO_PASID: u32 = 1;

/// Most entries of one `IOMMU_HWPT_INVALIDATE` call.
pub const MAX_INVALIDATE_ENTRIES: usize = 1 << 19;
/// Most bytes of one entry.
pub const MAX_INVALIDATE_ENTRY: u32 = PAGE_SIZE as u32;

/// First address of the interrupt window, which no IOAS can map.
pub const MSI_START: u64 = 0xfee0_0000;
/// Last address of it.
pub const MSI_LAST: u64 = 0xfeef_ffff;
