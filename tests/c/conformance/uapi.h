/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The calls of iommufd and of vfio's character devices with their structures, as Linux 7.3 has them.
 * The machine's own headers may be older, or missing. Sizes and offsets are pinned by uapi.c.
 */
#ifndef CONFORMANCE_UAPI_H
#define CONFORMANCE_UAPI_H

#include <stdint.h>

/* _IO(';', number): neither a size nor a direction is part of the number. */
#define CALL(number) ((uint32_t)(';' << 8 | (number)))

enum {
    VFIO_GROUP_SET_CONTAINER = CALL(0x68),
    VFIO_GROUP_GET_DEVICE_FD = CALL(0x6a),
    VFIO_DEVICE_GET_REGION_INFO = CALL(0x6c),
    VFIO_DEVICE_BIND_IOMMUFD = CALL(0x76),
    VFIO_DEVICE_ATTACH = CALL(0x77),
    VFIO_DEVICE_DETACH = CALL(0x78),
    IOMMU_DESTROY = CALL(0x80),
    IOMMU_IOAS_ALLOC = CALL(0x81),
    IOMMU_IOAS_ALLOW_IOVAS = CALL(0x82),
    IOMMU_IOAS_COPY = CALL(0x83),
    IOMMU_IOAS_IOVA_RANGES = CALL(0x84),
    IOMMU_IOAS_MAP = CALL(0x85),
    IOMMU_IOAS_UNMAP = CALL(0x86),
    IOMMU_OPTION = CALL(0x87),
    IOMMU_VFIO_IOAS = CALL(0x88),
    IOMMU_HWPT_ALLOC = CALL(0x89),
    IOMMU_GET_HW_INFO = CALL(0x8a),
    IOMMU_HWPT_SET_DIRTY_TRACKING = CALL(0x8b),
    IOMMU_HWPT_GET_DIRTY_BITMAP = CALL(0x8c),
    IOMMU_HWPT_INVALIDATE = CALL(0x8d),
    IOMMU_FAULT_QUEUE_ALLOC = CALL(0x8e),
    IOMMU_IOAS_MAP_FILE = CALL(0x8f),
    IOMMU_VIOMMU_ALLOC = CALL(0x90),
    IOMMU_VDEVICE_ALLOC = CALL(0x91),
    IOMMU_IOAS_CHANGE_PROCESS = CALL(0x92),
    IOMMU_VEVENTQ_ALLOC = CALL(0x93),
    IOMMU_HW_QUEUE_ALLOC = CALL(0x94),
    IOMMU_IOAS_NOIOMMU_GET_PA = CALL(0x95),
};

enum { MAP_FIXED_IOVA = 1, MAP_WRITEABLE = 2, MAP_READABLE = 4, MAP_RW = 6 };
enum { HWPT_NEST_PARENT = 1, HWPT_DIRTY_TRACKING = 2, HWPT_FAULT_ID_VALID = 4, HWPT_PASID = 8 };
enum { HWPT_DATA_NONE = 0, HWPT_DATA_VTD_S1 = 1, HWPT_DATA_ARM_SMMUV3 = 2 };
enum { VTD_S1_SRE = 1, VTD_S1_EAFE = 2, VTD_S1_WPE = 4 };
/* Unlike the type of a HWPT's data this one counts from 0. */
enum { INVALIDATE_DATA_VTD_S1 = 0, INVALIDATE_LEAF = 1 };
enum { HW_INFO_TYPE_DEFAULT = 0, HW_INFO_TYPE_INTEL_VTD = 1, HW_INFO_TYPE_ARM_SMMUV3 = 2 };
enum { HW_INFO_INPUT_TYPE = 1, VTD_ERRATA_772415_SPR17 = 1 };
enum { HW_CAP_DIRTY_TRACKING = 1, HW_CAP_PASID_EXEC = 2, HW_CAP_PASID_PRIV = 4 };
enum { HW_CAP_ATS_NOT_SUPPORTED = 8 };
enum { DIRTY_TRACKING_ENABLE = 1, DIRTY_BITMAP_NO_CLEAR = 1 };
enum { PGFAULT_PASID_VALID = 1, PGFAULT_LAST_PAGE = 2, PGFAULT_LEAKED = 4 };
enum { PGFAULT_PERM_READ = 1, PGFAULT_PERM_WRITE = 2, PGFAULT_PERM_EXEC = 4, PGFAULT_PERM_PRIV = 8 };
enum { PAGE_RESP_SUCCESS = 0, PAGE_RESP_INVALID = 1 };
enum { OPTION_RLIMIT_MODE = 0, OPTION_HUGE_PAGES = 1, OPTION_SET = 0, OPTION_GET = 1 };
enum { VFIO_IOAS_GET = 0, VFIO_IOAS_SET = 1, VFIO_IOAS_CLEAR = 2 };
enum { VFIO_BIND_TOKEN = 1, VFIO_PASID = 1 };
enum { VFIO_BAR0 = 0, VFIO_CONFIG = 7 };

struct destroy { uint32_t size, id; };
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct iova_range { uint64_t start, last; };
struct ioas_iova_ranges {
    uint32_t size, ioas_id, num_iovas, reserved;
    uint64_t allowed_iovas, out_iova_alignment;
};
struct ioas_allow_iovas { uint32_t size, ioas_id, num_iovas, reserved; uint64_t allowed_iovas; };
struct ioas_map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct ioas_unmap { uint32_t size, ioas_id; uint64_t iova, length; };
struct ioas_copy {
    uint32_t size, flags, dst_ioas_id, src_ioas_id;
    uint64_t length, dst_iova, src_iova;
};
struct ioas_map_file { uint32_t size, flags, ioas_id; int32_t fd; uint64_t start, length, iova; };
struct option {
    uint32_t size, option_id;
    uint16_t op, reserved;
    uint32_t object_id;
    uint64_t val64;
};
struct vfio_ioas { uint32_t size, ioas_id; uint16_t op, reserved; };
struct ioas_change_process { uint32_t size, reserved; };
struct hw_info {
    uint32_t size, flags, dev_id, data_len;
    uint64_t data_uptr;
    uint32_t data_type;
    uint8_t out_max_pasid_log2, reserved[3];
    uint64_t out_capabilities;
};
struct hw_info_vtd { uint32_t flags, reserved; uint64_t cap_reg, ecap_reg; };
struct hwpt_alloc {
    uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len;
    uint64_t data_uptr;
    uint32_t fault_id, reserved2;
};
struct hwpt_vtd_s1 { uint64_t flags, pgtbl_addr; uint32_t addr_width, reserved; };
struct hwpt_invalidate {
    uint32_t size, hwpt_id;
    uint64_t data_uptr;
    uint32_t data_type, entry_len, entry_num, reserved;
};
struct hwpt_vtd_s1_invalidate { uint64_t addr, npages; uint32_t flags, reserved; };
struct hwpt_set_dirty_tracking { uint32_t size, flags, hwpt_id, reserved; };
struct hwpt_get_dirty_bitmap {
    uint32_t size, hwpt_id, flags, reserved;
    uint64_t iova, length, page_size, data;
};
struct fault_alloc { uint32_t size, flags, out_fault_id; int32_t out_fault_fd; };
struct hwpt_pgfault {
    uint32_t flags, dev_id, pasid, grpid, perm, reserved;
    uint64_t addr;
    uint32_t length, cookie;
};
struct hwpt_page_response { uint32_t cookie, code; };
struct viommu_alloc {
    uint32_t size, flags, type, dev_id, hwpt_id, out_viommu_id, data_len, reserved;
    uint64_t data_uptr;
};
struct vdevice_alloc { uint32_t size, viommu_id, dev_id, out_vdevice_id; uint64_t virt_id; };
struct veventq_alloc {
    uint32_t size, flags, viommu_id, type, veventq_depth, out_veventq_id;
    int32_t out_veventq_fd;
    uint32_t reserved;
};
struct hw_queue_alloc {
    uint32_t size, flags, viommu_id, type, index, out_hw_queue_id;
    uint64_t nesting_parent_iova, length;
};
struct ioas_get_pa { uint32_t size, flags, ioas_id, reserved; uint64_t iova, length, out_phys; };
struct vfio_bind {
    uint32_t argsz, flags;
    int32_t iommufd;
    uint32_t out_devid;
    uint64_t token_uuid_ptr;
};
struct vfio_attach { uint32_t argsz, flags, pt_id, pasid; };
struct vfio_detach { uint32_t argsz, flags, pasid; };
struct vfio_region_info { uint32_t argsz, flags, index, cap_offset; uint64_t size, offset; };

#endif
