/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Sizes and offsets of the structures, measured from Linux 7.3's headers with a compiler.
 */
#include "uapi.h"

#include <stddef.h>

#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), "size of " #type)
#define AT(type, field, bytes)                                                                     \
    _Static_assert(offsetof(struct type, field) == (bytes), "offset of " #type "." #field)

SIZE(destroy, 8);
AT(destroy, size, 0);
AT(destroy, id, 4);

SIZE(ioas_alloc, 12);
AT(ioas_alloc, size, 0);
AT(ioas_alloc, flags, 4);
AT(ioas_alloc, out_ioas_id, 8);

SIZE(iova_range, 16);
AT(iova_range, start, 0);
AT(iova_range, last, 8);

SIZE(ioas_iova_ranges, 32);
AT(ioas_iova_ranges, size, 0);
AT(ioas_iova_ranges, ioas_id, 4);
AT(ioas_iova_ranges, num_iovas, 8);
AT(ioas_iova_ranges, reserved, 12);
AT(ioas_iova_ranges, allowed_iovas, 16);
AT(ioas_iova_ranges, out_iova_alignment, 24);

SIZE(ioas_allow_iovas, 24);
AT(ioas_allow_iovas, size, 0);
AT(ioas_allow_iovas, ioas_id, 4);
AT(ioas_allow_iovas, num_iovas, 8);
AT(ioas_allow_iovas, reserved, 12);
AT(ioas_allow_iovas, allowed_iovas, 16);

SIZE(ioas_map, 40);
AT(ioas_map, size, 0);
AT(ioas_map, flags, 4);
AT(ioas_map, ioas_id, 8);
AT(ioas_map, reserved, 12);
AT(ioas_map, user_va, 16);
AT(ioas_map, length, 24);
AT(ioas_map, iova, 32);

SIZE(ioas_unmap, 24);
AT(ioas_unmap, size, 0);
AT(ioas_unmap, ioas_id, 4);
AT(ioas_unmap, iova, 8);
AT(ioas_unmap, length, 16);

SIZE(ioas_copy, 40);
AT(ioas_copy, size, 0);
AT(ioas_copy, flags, 4);
AT(ioas_copy, dst_ioas_id, 8);
AT(ioas_copy, src_ioas_id, 12);
AT(ioas_copy, length, 16);
AT(ioas_copy, dst_iova, 24);
AT(ioas_copy, src_iova, 32);

SIZE(ioas_map_file, 40);
AT(ioas_map_file, size, 0);
AT(ioas_map_file, flags, 4);
AT(ioas_map_file, ioas_id, 8);
AT(ioas_map_file, fd, 12);
AT(ioas_map_file, start, 16);
AT(ioas_map_file, length, 24);
AT(ioas_map_file, iova, 32);

SIZE(option, 24);
AT(option, size, 0);
AT(option, option_id, 4);
AT(option, op, 8);
AT(option, reserved, 10);
AT(option, object_id, 12);
AT(option, val64, 16);

SIZE(vfio_ioas, 12);
AT(vfio_ioas, size, 0);
AT(vfio_ioas, ioas_id, 4);
AT(vfio_ioas, op, 8);
AT(vfio_ioas, reserved, 10);

SIZE(ioas_change_process, 8);
AT(ioas_change_process, size, 0);
AT(ioas_change_process, reserved, 4);

SIZE(hw_info, 40);
AT(hw_info, size, 0);
AT(hw_info, flags, 4);
AT(hw_info, dev_id, 8);
AT(hw_info, data_len, 12);
AT(hw_info, data_uptr, 16);
AT(hw_info, data_type, 24);
AT(hw_info, out_max_pasid_log2, 28);
AT(hw_info, reserved, 29);
AT(hw_info, out_capabilities, 32);

SIZE(hw_info_vtd, 24);
AT(hw_info_vtd, flags, 0);
AT(hw_info_vtd, reserved, 4);
AT(hw_info_vtd, cap_reg, 8);
AT(hw_info_vtd, ecap_reg, 16);

SIZE(hwpt_alloc, 48);
AT(hwpt_alloc, size, 0);
AT(hwpt_alloc, flags, 4);
AT(hwpt_alloc, dev_id, 8);
AT(hwpt_alloc, pt_id, 12);
AT(hwpt_alloc, out_hwpt_id, 16);
AT(hwpt_alloc, reserved, 20);
AT(hwpt_alloc, data_type, 24);
AT(hwpt_alloc, data_len, 28);
AT(hwpt_alloc, data_uptr, 32);
AT(hwpt_alloc, fault_id, 40);
AT(hwpt_alloc, reserved2, 44);

SIZE(hwpt_vtd_s1, 24);
AT(hwpt_vtd_s1, flags, 0);
AT(hwpt_vtd_s1, pgtbl_addr, 8);
AT(hwpt_vtd_s1, addr_width, 16);
AT(hwpt_vtd_s1, reserved, 20);

SIZE(hwpt_invalidate, 32);
AT(hwpt_invalidate, size, 0);
AT(hwpt_invalidate, hwpt_id, 4);
AT(hwpt_invalidate, data_uptr, 8);
AT(hwpt_invalidate, data_type, 16);
AT(hwpt_invalidate, entry_len, 20);
AT(hwpt_invalidate, entry_num, 24);
AT(hwpt_invalidate, reserved, 28);

SIZE(hwpt_vtd_s1_invalidate, 24);
AT(hwpt_vtd_s1_invalidate, addr, 0);
AT(hwpt_vtd_s1_invalidate, npages, 8);
AT(hwpt_vtd_s1_invalidate, flags, 16);
AT(hwpt_vtd_s1_invalidate, reserved, 20);

SIZE(hwpt_set_dirty_tracking, 16);
AT(hwpt_set_dirty_tracking, size, 0);
AT(hwpt_set_dirty_tracking, flags, 4);
AT(hwpt_set_dirty_tracking, hwpt_id, 8);
AT(hwpt_set_dirty_tracking, reserved, 12);

SIZE(hwpt_get_dirty_bitmap, 48);
AT(hwpt_get_dirty_bitmap, size, 0);
AT(hwpt_get_dirty_bitmap, hwpt_id, 4);
AT(hwpt_get_dirty_bitmap, flags, 8);
AT(hwpt_get_dirty_bitmap, reserved, 12);
AT(hwpt_get_dirty_bitmap, iova, 16);
AT(hwpt_get_dirty_bitmap, length, 24);
AT(hwpt_get_dirty_bitmap, page_size, 32);
AT(hwpt_get_dirty_bitmap, data, 40);

SIZE(fault_alloc, 16);
AT(fault_alloc, size, 0);
AT(fault_alloc, flags, 4);
AT(fault_alloc, out_fault_id, 8);
AT(fault_alloc, out_fault_fd, 12);

SIZE(hwpt_pgfault, 40);
AT(hwpt_pgfault, flags, 0);
AT(hwpt_pgfault, dev_id, 4);
AT(hwpt_pgfault, pasid, 8);
AT(hwpt_pgfault, grpid, 12);
AT(hwpt_pgfault, perm, 16);
AT(hwpt_pgfault, reserved, 20);
AT(hwpt_pgfault, addr, 24);
AT(hwpt_pgfault, length, 32);
AT(hwpt_pgfault, cookie, 36);

SIZE(hwpt_page_response, 8);
AT(hwpt_page_response, cookie, 0);
AT(hwpt_page_response, code, 4);

SIZE(viommu_alloc, 40);
AT(viommu_alloc, size, 0);
AT(viommu_alloc, flags, 4);
AT(viommu_alloc, type, 8);
AT(viommu_alloc, dev_id, 12);
AT(viommu_alloc, hwpt_id, 16);
AT(viommu_alloc, out_viommu_id, 20);
AT(viommu_alloc, data_len, 24);
AT(viommu_alloc, reserved, 28);
AT(viommu_alloc, data_uptr, 32);

SIZE(vdevice_alloc, 24);
AT(vdevice_alloc, size, 0);
AT(vdevice_alloc, viommu_id, 4);
AT(vdevice_alloc, dev_id, 8);
AT(vdevice_alloc, out_vdevice_id, 12);
AT(vdevice_alloc, virt_id, 16);

SIZE(veventq_alloc, 32);
AT(veventq_alloc, size, 0);
AT(veventq_alloc, flags, 4);
AT(veventq_alloc, viommu_id, 8);
AT(veventq_alloc, type, 12);
AT(veventq_alloc, veventq_depth, 16);
AT(veventq_alloc, out_veventq_id, 20);
AT(veventq_alloc, out_veventq_fd, 24);
AT(veventq_alloc, reserved, 28);

SIZE(hw_queue_alloc, 40);
AT(hw_queue_alloc, size, 0);
AT(hw_queue_alloc, flags, 4);
AT(hw_queue_alloc, viommu_id, 8);
AT(hw_queue_alloc, type, 12);
AT(hw_queue_alloc, index, 16);
AT(hw_queue_alloc, out_hw_queue_id, 20);
AT(hw_queue_alloc, nesting_parent_iova, 24);
AT(hw_queue_alloc, length, 32);

SIZE(ioas_get_pa, 40);
AT(ioas_get_pa, size, 0);
AT(ioas_get_pa, flags, 4);
AT(ioas_get_pa, ioas_id, 8);
AT(ioas_get_pa, reserved, 12);
AT(ioas_get_pa, iova, 16);
AT(ioas_get_pa, length, 24);
AT(ioas_get_pa, out_phys, 32);

SIZE(vfio_bind, 24);
AT(vfio_bind, argsz, 0);
AT(vfio_bind, flags, 4);
AT(vfio_bind, iommufd, 8);
AT(vfio_bind, out_devid, 12);
AT(vfio_bind, token_uuid_ptr, 16);

SIZE(vfio_attach, 16);
AT(vfio_attach, argsz, 0);
AT(vfio_attach, flags, 4);
AT(vfio_attach, pt_id, 8);
AT(vfio_attach, pasid, 12);

SIZE(vfio_detach, 12);
AT(vfio_detach, argsz, 0);
AT(vfio_detach, flags, 4);
AT(vfio_detach, pasid, 8);

_Static_assert(IOMMU_DESTROY == 0x3b80, "IOMMU_DESTROY");
_Static_assert(IOMMU_HWPT_ALLOC == 0x3b89, "IOMMU_HWPT_ALLOC");
_Static_assert(IOMMU_IOAS_NOIOMMU_GET_PA == 0x3b95, "IOMMU_IOAS_NOIOMMU_GET_PA");
_Static_assert(VFIO_DEVICE_BIND_IOMMUFD == 0x3b76, "VFIO_DEVICE_BIND_IOMMUFD");
