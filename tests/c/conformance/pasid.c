/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Attachments of PASIDs.
 */
#include "conformance.h"

static uint32_t with_pasid(uint32_t parent)
{
    return new_nested(parent, HWPT_PASID);
}

static void older(void)
{
    if (as_7_3())
        skip("this release has PASID attachments");
    struct vfio_attach a = { .argsz = sizeof(a), .flags = VFIO_PASID, .pt_id = new_ioas(), .pasid = 1 };
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, &a), EINVAL, "ATTACH with PASID");
    struct vfio_detach d = { .argsz = sizeof(d), .flags = VFIO_PASID, .pasid = 1 };
    expect(call_on(now.device, VFIO_DEVICE_DETACH, &d), EINVAL, "DETACH with PASID");
}

static void unsupported(void)
{
    need_7_3("PASID attachments");
    if (can(ECAP_PASID))
        skip("the IOMMU has PASID");
    /* A device cannot have PASIDs then, so the driver is not asked: see Q9. */
    expect_number(now.max_pasid_log2, 0, "out_max_pasid_log2");
    if (now.host->has[SECOND]) {
        struct hw_info info = { .size = sizeof(info) };
        int second = bound_device(SECOND, &info.dev_id);
        expect(call(IOMMU_GET_HW_INFO, &info), 0, "GET_HW_INFO of the second device");
        expect_number(info.out_max_pasid_log2, 0, "its out_max_pasid_log2");
        close_file(second);
    }
    uint32_t parent = new_parent(new_ioas());
    expect(attach(parent), 0, "ATTACH");
}

static void compatible(void)
{
    need_7_3("PASID attachments");
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    uint32_t plain = new_nested(parent, 0), marked = with_pasid(parent);
    expect(attach_pasid(plain, 1), EINVAL, "an HWPT without ALLOC_PASID");
    expect(attach(plain), 0, "ATTACH to an HWPT without ALLOC_PASID");
    expect(attach_pasid(marked, 1), EINVAL, "a PASID while the device has such an HWPT");
    expect(attach(marked), 0, "ATTACH to an HWPT with ALLOC_PASID");
    expect(attach_pasid(marked, 1), 0, "a PASID then");
    expect(attach(plain), EINVAL, "ATTACH to an HWPT without it while a PASID is attached");
    expect(detach(), 0, "DETACH");
    expect(attach(plain), EINVAL, "the same after DETACH");
    expect(detach_pasid(1), 0, "DETACH of the PASID");
    expect(attach(plain), 0, "the same after DETACH of the PASID");
}

static void with_ioas(void)
{
    need_7_3("PASID attachments");
    uint32_t ioas = new_ioas(), parent = new_parent(new_ioas());
    expect(attach_pasid(ioas, 1), EINVAL, "an IOAS for a PASID");
    expect(attach(ioas), 0, "ATTACH to an IOAS");
    expect(attach_pasid(with_pasid(parent), 1), EINVAL, "a PASID of a device attached to an IOAS");
}

static void limits(void)
{
    need_pasid();
    uint32_t hwpt = with_pasid(new_parent(new_ioas())), most = 1u << now.max_pasid_log2;
    expect(attach_pasid(hwpt, most), EINVAL, "PASID %u", most);
    expect(attach_pasid(hwpt, most - 1), 0, "PASID %u", most - 1);
    expect(attach_pasid(hwpt, 0x7fffffff), EINVAL, "PASID 2^31 - 1");
    expect(attach_pasid(hwpt, 0x80000000), ENOSPC, "PASID 2^31");
    /* As a signed number that is the error with which vfio's lookup says that there is no such PASID. */
    expect(attach_pasid(hwpt, -(uint32_t)EINVAL), EINVAL, "PASID 2^32 - EINVAL");
    expect(detach_pasid(-(uint32_t)EINVAL), 0, "DETACH of that");
    expect(attach_pasid(unused_id(), 1), ENOENT, "no object");
    expect(attach_pasid(now.dev_id, 1), EINVAL, "a device");
}

static void zero(void)
{
    need_7_3("PASID attachments");
    uint32_t ioas = new_ioas(), parent = new_parent(ioas), hwpt = with_pasid(parent);
    expect(attach_pasid(hwpt, 0), 0, "PASID 0 of a detached device");
    expect(destroy(hwpt), EBUSY, "DESTROY of the HWPT");
    expect(detach_pasid(0), 0, "DETACH of PASID 0");
    expect(destroy(hwpt), 0, "DESTROY of the HWPT afterwards");
    hwpt = with_pasid(parent);
    expect(attach(hwpt), 0, "ATTACH");
    expect(attach_pasid(hwpt, 0), EBUSY, "PASID 0 of an attached device");
    expect(detach_pasid(0), 0, "DETACH of PASID 0, which vfio has not noted");
    expect(destroy(hwpt), EBUSY, "DESTROY of the HWPT then");
    expect(detach(), 0, "DETACH");
    map_ram(ioas);
    make_tables();
    expect(attach_pasid(hwpt, 0), 0, "PASID 0 again");
    expect(attach(hwpt), EBUSY, "ATTACH of a device whose PASID 0 is attached");
    expect(detach(), 0, "DETACH of the device, which vfio has not noted");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the device does not access memory without PASID");
}

static void without_pasid(void)
{
    need_7_3("PASID attachments");
    if (now.max_pasid_log2)
        skip("the device has PASIDs");
    uint32_t hwpt = with_pasid(new_parent(new_ioas()));
    expect(attach_pasid(hwpt, 5), 0, "a PASID of a device without");
    expect(attach_pasid(hwpt, 0x80000000), ENOSPC, "PASID 2^31, which vfio cannot note");
    expect(destroy(hwpt), EBUSY, "DESTROY of the HWPT");
    expect(detach_pasid(5), 0, "DETACH of it");
    expect(destroy(hwpt), 0, "DESTROY afterwards");
}

static void checks(void)
{
    need_pasid();
    uint32_t parent = new_parent(new_ioas());
    struct hwpt_vtd_s1 data = tables();
    data.addr_width = 20;
    expect(attach_pasid(new_nested_with(parent, HWPT_PASID, &data), 1), EINVAL, "width 20");
    data = tables();
    data.flags = VTD_S1_EAFE;
    expect(attach_pasid(new_nested_with(parent, HWPT_PASID, &data), 1), can(ECAP_EAFS) ? 0 : EINVAL,
           "EAFE");
    int fd;
    data = tables();
    struct hwpt_alloc a = nested(parent, &data);
    a.flags = HWPT_PASID | HWPT_FAULT_ID_VALID;
    a.fault_id = new_fault_queue(&fd);
    expect(alloc(&a), 0, "HWPT_ALLOC with a fault queue");
    int result = attach_pasid(a.out_hwpt_id, 2);
    if (result != 0)
        expect(result, ENODEV, "an HWPT with a fault queue");
    close_file(fd);
}

static void dma(void)
{
    need_pasid();
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    uint32_t hwpt = with_pasid(parent);
    if (copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("a PASID that is not attached accesses memory");
    expect(attach_pasid(hwpt, 1), 0, "ATTACH of a PASID");
    if (!copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page does not arrive");
    if (copies_with_pasid(now.device, 2, VIRTUAL, VIRTUAL + PAGE))
        wrong("another PASID accesses memory");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the device accesses memory without PASID");
    expect(attach_pasid(hwpt, 1), 0, "the same again");
    expect(attach_pasid(hwpt, 2), 0, "ATTACH of another PASID");
    expect(detach_pasid(1), 0, "DETACH of the PASID");
    if (copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("a detached PASID accesses memory");
    if (!copies_with_pasid(now.device, 2, VIRTUAL, VIRTUAL + PAGE))
        wrong("the other PASID was detached as well");
    expect(destroy(hwpt), EBUSY, "DESTROY");
    expect(detach_pasid(2), 0, "DETACH of the other PASID");
    expect(destroy(hwpt), 0, "DESTROY");
}

static void without_first_stage(void)
{
    need_pasid();
    need_dma();
    uint32_t ioas = new_ioas(), hwpt = new_paging(ioas, HWPT_PASID);
    map_ram(ioas);
    expect(attach_pasid(hwpt, 1), 0, "ATTACH of a PASID to a paging HWPT");
    if (!copies_with_pasid(now.device, 1, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("a page does not arrive");
    if (copies_with_pasid(now.device, 2, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("another PASID accesses memory");
    uint32_t parent = new_paging(ioas, HWPT_NEST_PARENT | HWPT_PASID);
    expect(attach_pasid(parent, 1), 0, "ATTACH to a parent");
    expect(attach_pasid(with_pasid(parent), 2), 0, "ATTACH of another to a nested HWPT on it");
    make_tables();
    if (!copies_with_pasid(now.device, 1, RAM_BASE + SOURCE, RAM_BASE + TARGET) ||
        !copies_with_pasid(now.device, 2, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page does not arrive through the parent");
    expect(unmap(ioas, RAM_BASE, RAM_SIZE, NULL), 0, "IOAS_UNMAP");
    if (copies_with_pasid(now.device, 1, RAM_BASE + SOURCE, RAM_BASE + TARGET) ||
        copies_with_pasid(now.device, 2, VIRTUAL, VIRTUAL + PAGE))
        wrong("a PASID accesses what was unmapped");
}

static void not_reserved(void)
{
    need_pasid();
    uint32_t ioas = new_ioas(), hwpt = with_pasid(new_parent(ioas)), flags = MAP_FIXED_IOVA | MAP_RW;
    expect(attach_pasid(hwpt, 1), 0, "ATTACH of a PASID");
    expect(map(ioas, flags, now.ram, PAGE, MSI_WINDOW), 0, "IOAS_MAP in the MSI window");
    expect(attach_pasid(hwpt, 2), 0, "ATTACH of another PASID then");
    expect(attach(hwpt), EADDRINUSE, "ATTACH of the device");
}

static void reply(void)
{
    need_pasid();
    need_dma();
    uint32_t ioas = new_ioas(), hwpt = with_pasid(new_parent(ioas));
    map_ram(ioas);
    make_tables();
    struct vfio_attach a = { .argsz = sizeof(a), .flags = VFIO_PASID, .pt_id = hwpt, .pasid = 1 };
    expect(attach(hwpt), 0, "ATTACH");
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, write_protected(&a, sizeof(a))), EFAULT,
           "memory that cannot be written");
    if (!copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("the PASID is not attached");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the device is still attached");
    expect(detach_pasid(1), 0, "DETACH of the PASID");
    expect(destroy(hwpt), 0, "DESTROY");
}

static void replace(void)
{
    need_pasid();
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    struct hwpt_vtd_s1 data = tables();
    data.pgtbl_addr = RAM_BASE + OTHER; /* nothing is there */
    uint32_t hwpt = with_pasid(parent), empty = new_nested_with(parent, HWPT_PASID, &data);
    expect(attach_pasid(hwpt, 1), 0, "ATTACH of a PASID");
    expect(attach_pasid(empty, 1), 0, "ATTACH to another HWPT");
    if (copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("the table before is still used");
    expect(destroy(hwpt), 0, "DESTROY of the one before");
}

static void failed_replace(void)
{
    need_pasid();
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    struct hwpt_vtd_s1 data = tables();
    data.addr_width = 20;
    uint32_t hwpt = with_pasid(parent), bad = new_nested_with(parent, HWPT_PASID, &data);
    expect(attach_pasid(hwpt, 1), 0, "ATTACH of a PASID");
    expect(attach_pasid(bad, 1), EINVAL, "ATTACH to an HWPT of width 20");
    if (copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("the PASID still accesses memory");
    expect(destroy(hwpt), EBUSY, "DESTROY of the HWPT before");
    expect(attach_pasid(hwpt, 1), 0, "ATTACH to the HWPT before");
    if (copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("attaching the HWPT before again programs it again");
    expect(detach_pasid(1), 0, "DETACH");
    expect(attach_pasid(hwpt, 1), 0, "ATTACH");
    if (!copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page does not arrive after DETACH and ATTACH");
}

static void survives_detach(void)
{
    need_pasid();
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    uint32_t hwpt = with_pasid(parent);
    expect(attach(hwpt), 0, "ATTACH");
    expect(attach_pasid(hwpt, 1), 0, "ATTACH of a PASID");
    struct hwpt_vtd_s1 data = tables();
    data.addr_width = 20;
    uint32_t bad = new_nested_with(parent, HWPT_PASID, &data);
    expect(attach(with_pasid(parent)), 0, "ATTACH of the device to another HWPT");
    if (!copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("the PASID does not access memory after that");
    expect(attach(bad), EINVAL, "ATTACH of the device to an HWPT of width 20");
    if (!copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("the PASID does not access memory after that failed");
    expect(detach(), 0, "DETACH");
    if (!copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE))
        wrong("the PASID does not access memory after DETACH without PASID");
    expect(close_file(now.device), 0, "close");
    now.device = -1;
    expect(destroy(hwpt), 0, "DESTROY after the device was closed");
}

static void flushed(void)
{
    need_pasid();
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    uint64_t *entry = make_tables();
    uint32_t hwpt = with_pasid(parent);
    expect(attach(hwpt), 0, "ATTACH");
    expect(attach_pasid(hwpt, 1), 0, "ATTACH of a PASID");
    expect(attach_pasid(hwpt, 2), 0, "ATTACH of another PASID");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE) ||
        !copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE) ||
        !copies_with_pasid(now.device, 2, VIRTUAL, VIRTUAL + PAGE))
        give_up("a page did not arrive");
    entry[0] = (RAM_BASE + OTHER) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    expect(invalidate_all(hwpt), 0, "HWPT_INVALIDATE");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE) ||
        copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE) ||
        copies_with_pasid(now.device, 2, VIRTUAL, VIRTUAL + PAGE))
        wrong("an old page is still used");
    entry[0] = (RAM_BASE + SOURCE) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    const struct hwpt_vtd_s1_invalidate page = { .addr = VIRTUAL, .npages = 1 };
    uint32_t handled;
    expect(invalidate(hwpt, &page, 1, &handled), 0, "HWPT_INVALIDATE of a page");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE) ||
        !copies_with_pasid(now.device, 1, VIRTUAL, VIRTUAL + PAGE) ||
        !copies_with_pasid(now.device, 2, VIRTUAL, VIRTUAL + PAGE))
        wrong("an old page is used after the invalidation of one");
}

const struct rule rules_pasid[] = {
    { "PASID-6.12", "Linux 6.12 refuses the flag with EINVAL", older },
    { "T1", "an IOMMU without PASID lends its devices none", unsupported },
    { "PASID-compatible", "an HWPT for a PASID, and the device's own beside it, need ALLOC_PASID: EINVAL",
      compatible },
    { "PASID-ioas", "an IOAS cannot be attached to a PASID, nor to a device with PASIDs: EINVAL", with_ioas },
    { "PASID-limits", "a PASID that the device does not have is EINVAL, from 2^31 on ENOSPC, but 2^32 - 22 EINVAL",
      limits },
    { "PASID-checks", "the driver looks at the same as for a device", checks },
    { "PASID-dma", "an attached PASID accesses memory, and no other", dma },
    { "PASID-paging", "a PASID can have a paging HWPT, or a parent, and what is unmapped there is gone",
      without_first_stage },
    { "PASID-reserved", "an attached PASID does not reserve the MSI window", not_reserved },
    { "PASID-reply", "a reply that cannot be written is EFAULT; the PASID is attached, and the device not any"
      " more", reply },
    { "PASID-replace", "an attachment to another HWPT replaces the one before", replace },
    { "PASID-Q1", "a replacement that fails leaves the PASID blocked, with the HWPT before on record",
      failed_replace },
    { "PASID-detach", "a PASID outlives the device's own attachment, and goes with its file",
      survives_detach },
    { "PASID-invalidate", "an invalidation reaches every PASID that has the HWPT", flushed },
    { "Q8", "PASID 0 is the device's own attachment: EBUSY if there is one", zero },
    { "Q9", "a PASID of a device without PASIDs is attached without effect", without_pasid },
    { NULL, NULL, NULL },
};
