/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What Intel's driver looks at when a device is attached to an HWPT, and what becomes of its DMA.
 */
#include "conformance.h"

static int attach_with(uint32_t parent, uint64_t flags, uint32_t width)
{
    struct hwpt_vtd_s1 data = tables();
    data.flags = flags;
    data.addr_width = width;
    return attach(new_nested_with(parent, 0, &data));
}

static void parent_of_other_iommu(void)
{
    /* A parent made for the other IOMMU, which can do more or less than this one. */
    need_nesting();
    uint32_t foreign, ioas = new_ioas(), flags = HWPT_NEST_PARENT;
    int device = bound_device(FOREIGN, &foreign);
    struct hw_info_vtd vtd = { .flags = 0 };
    struct hw_info info = { .size = sizeof(info), .dev_id = foreign, .data_len = sizeof(vtd),
                            .data_uptr = (uintptr_t)&vtd };
    expect(call(IOMMU_GET_HW_INFO, &info), 0, "GET_HW_INFO");
    if ((vtd.ecap_reg >> ECAP_NEST & 1) && (vtd.cap_reg & 0x3f1f00) == (now.cap & 0x3f1f00))
        skip("the other IOMMU can do the same");
    /* Its widest table, or its lack of nesting, does not suit the other one. */
    uint32_t parent = new_paging(ioas, flags);
    struct vfio_attach a = { .argsz = offsetof(struct vfio_attach, pasid), .pt_id = parent };
    expect(call_on(device, VFIO_DEVICE_ATTACH, &a), EINVAL, "ATTACH of the other IOMMU's device");
    a.pt_id = new_nested(parent, 0);
    expect(call_on(device, VFIO_DEVICE_ATTACH, &a), EINVAL, "ATTACH to a nested HWPT on it");
    expect(attach(parent), 0, "ATTACH of the IOMMU's own");
    close_file(device);
}

static void domain_ids(void)
{
    /* CAP.ND; the driver keeps two for itself, and other devices may have some. */
    unsigned number = 1u << (4 + 2 * (now.cap & 7)), got = 0;
    need_pasid();
    if (number > 64 || number > 1u << now.max_pasid_log2)
        skip("there are %u domain IDs", number);
    uint32_t parent = new_parent(new_ioas());
    int result = 0;
    while (got < number && result == 0) {
        result = attach_pasid(new_nested(parent, HWPT_PASID), got + 1);
        got += result == 0;
    }
    expect(result, ENOSPC, "ATTACH of PASID %u to an HWPT of its own", got + 1);
    if (got > number - 2 || (!now.host->real_files && got != number - 2))
        wrong("%u of %u domain IDs were given", got, number);
    expect(detach_pasid(1), 0, "DETACH of one");
    expect(attach_pasid(new_nested(parent, HWPT_PASID), 1), 0, "ATTACH of another");
}

static void page_requests(void)
{
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(parent, &data);
    int fd;
    a.flags = HWPT_FAULT_ID_VALID;
    a.fault_id = new_fault_queue(&fd);
    expect(alloc(&a), 0, "HWPT_ALLOC");
    int result = attach(a.out_hwpt_id);
    close_file(fd);
    if (result == 0 && now.host->page_request)
        skip("the device has page requests");
    expect(result, ENODEV, "ATTACH to an HWPT with a fault queue");
    if (!as_7_3())
        return;
    a = paging(ioas, HWPT_FAULT_ID_VALID);
    a.fault_id = new_fault_queue(&fd);
    expect(alloc(&a), 0, "HWPT_ALLOC");
    expect(attach(a.out_hwpt_id), ENODEV, "ATTACH to a paging HWPT with a fault queue");
    close_file(fd);
}

static void width(void)
{
    uint32_t parent = new_parent(new_ioas());
    const uint32_t widths[] = { 0, 39, 47, 49, 56, 58, 64, UINT32_MAX };
    for (unsigned i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
        expect(attach_with(parent, 0, widths[i]), EINVAL, "addr_width %u", widths[i]);
    expect(attach_with(parent, 0, 48), 0, "addr_width 48");
    expect(attach_with(parent, 0, 57), now.cap >> CAP_FL5LP & 1 ? 0 : EINVAL, "addr_width 57");
}

static void supervisor(void)
{
    uint32_t parent = new_parent(new_ioas());
    expect(attach_with(parent, VTD_S1_SRE, 48), can(ECAP_SRS) ? 0 : EINVAL, "SRE");
    expect(attach_with(parent, VTD_S1_EAFE, 48), can(ECAP_EAFS) ? 0 : EINVAL, "EAFE");
}

static void other_flags(void)
{
    uint32_t parent = new_parent(new_ioas());
    expect(attach_with(parent, VTD_S1_WPE, 48), 0, "WPE without SRE");
    expect(attach_with(parent, ~7ull, 48), 0, "unknown flags");
}

static void present(void)
{
    skip("the driver never finds a PASID entry that it has not made");
}

static void reserved_of_parent(void)
{
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    expect(map(ioas, MAP_FIXED_IOVA | MAP_RW, now.ram, PAGE, MSI_WINDOW), 0,
           "IOAS_MAP in the MSI window");
    expect(attach(parent), EADDRINUSE, "ATTACH to the parent");
    expect(attach(new_nested(parent, 0)), EADDRINUSE, "ATTACH to a nested HWPT on it");
    expect(unmap(ioas, MSI_WINDOW, PAGE, NULL), 0, "IOAS_UNMAP");
    expect(attach(parent), 0, "ATTACH to the parent without it");
    expect(map(ioas, MAP_FIXED_IOVA | MAP_RW, now.ram, PAGE, MSI_WINDOW), EINVAL,
           "IOAS_MAP in the MSI window with a device");
}

static void reserved_moves(void)
{
    uint32_t from = new_ioas(), to = new_ioas(), flags = MAP_FIXED_IOVA | MAP_RW;
    expect(attach(new_paging(from, 0)), 0, "ATTACH");
    expect(attach(new_paging(to, 0)), 0, "ATTACH to another IOAS's HWPT");
    expect(map(to, flags, now.ram, PAGE, MSI_WINDOW), EINVAL, "IOAS_MAP in the MSI window of its IOAS");
    expect(map(from, flags, now.ram, PAGE, MSI_WINDOW), 0, "IOAS_MAP in that of the IOAS before");
}

static void stages(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    if (copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("a device without an HWPT accesses memory");
    expect(attach(parent), 0, "ATTACH to the parent");
    if (!copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("the parent's addresses do not work");
    uint32_t hwpt = new_nested(parent, 0);
    expect(attach(hwpt), 0, "ATTACH to a nested HWPT");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the first stage's addresses do not work");
    if (copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("the parent's addresses still work");
    expect(attach(parent), 0, "ATTACH to the parent again");
    expect(destroy(hwpt), 0, "DESTROY of the nested HWPT");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the first stage's addresses still work");
    if (!copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("the parent's addresses do not work again");
    expect(detach(), 0, "DETACH");
    if (copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("a detached device accesses memory");
}

static void accessed_bits(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    uint64_t *entry = make_tables();
    expect(attach(new_nested(parent, 0)), 0, "ATTACH");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        give_up("a page did not arrive");
    expect_number(entry[0] >> 5 & 3, 1, "accessed and dirty bits of the page read");
    expect_number(entry[1] >> 5 & 3, 3, "accessed and dirty bits of the page written");
}

static void first_stage_permissions(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    uint64_t *entry = make_tables();
    entry[1] &= ~(uint64_t)PTE_WRITE;
    expect(attach(new_nested(parent, 0)), 0, "ATTACH");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page that cannot be written is written");
}

static void failed_attach(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    uint32_t good = new_nested(parent, 0);
    expect(attach(good), 0, "ATTACH");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        give_up("a page did not arrive");
    expect(attach_with(parent, 0, 20), EINVAL, "ATTACH to an HWPT of width 20");
    expect_number(copies(now.device, VIRTUAL, VIRTUAL + PAGE), !as_7_3(), "pages that arrive");
    if (!as_7_3())
        return;
    /* It is still recorded: it cannot be destroyed, and to attach it again does nothing. */
    expect(destroy(good), EBUSY, "DESTROY of the HWPT before");
    expect(attach(good), 0, "ATTACH to the HWPT before");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("attaching the HWPT before again programs it again");
    expect(detach(), 0, "DETACH");
    expect(attach(good), 0, "ATTACH");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page does not arrive after DETACH and ATTACH");
}

static void failed_attach_recovers(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    expect(attach(parent), 0, "ATTACH");
    expect(attach_with(parent, 0, 20), EINVAL, "ATTACH to an HWPT of width 20");
    expect(attach(new_nested(parent, 0)), 0, "ATTACH to another HWPT than before");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page does not arrive");
}

static void first_attach_fails(void)
{
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    struct hwpt_vtd_s1 data = tables();
    data.addr_width = 20;
    uint32_t bad = new_nested_with(parent, 0, &data);
    expect(attach(bad), EINVAL, "ATTACH to an HWPT of width 20");
    expect(destroy(bad), 0, "DESTROY of it");
    expect(attach(parent), 0, "ATTACH to the parent");
}

static void same_again(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    uint32_t hwpt = new_nested(parent, 0);
    for (unsigned i = 0; i < 3; i++)
        expect(attach(hwpt), 0, "ATTACH %u", i + 1);
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page does not arrive");
    expect(detach(), 0, "DETACH");
    expect(destroy(hwpt), 0, "DESTROY after one DETACH");
}

static void immutable(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    struct hwpt_vtd_s1 data = tables();
    uint32_t hwpt = new_nested_with(parent, 0, &data);
    data.pgtbl_addr = 0;
    expect(attach(hwpt), 0, "ATTACH after the data was changed");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page does not arrive");
}

static void bad_tables(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    uint64_t *entry = make_tables();
    entry[0] = (RAM_BASE + RAM_SIZE) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    expect(attach(new_nested(parent, 0)), 0, "ATTACH with a page outside of RAM");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page arrives");
    struct hwpt_vtd_s1 data = tables();
    data.pgtbl_addr = RAM_BASE + RAM_SIZE;
    expect(attach(new_nested_with(parent, 0, &data)), 0, "ATTACH with a table outside of RAM");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page arrives");
}

static void low_bits(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    struct hwpt_vtd_s1 data = tables();
    data.pgtbl_addr += 0xfff;
    expect(attach(new_nested_with(parent, 0, &data)), 0, "ATTACH with all low bits");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page arrives although FSPM is reserved");
    data.pgtbl_addr = RAM_BASE + TABLE + 1;
    expect(attach(new_nested_with(parent, 0, &data)), 0, "ATTACH with bit 0");
}

static void shared(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas), id;
    map_ram(ioas);
    make_tables();
    int second = bound_device(SECOND, &id);
    struct vfio_attach a = { .argsz = offsetof(struct vfio_attach, pasid),
                             .pt_id = new_nested(parent, 0) };
    expect(attach(a.pt_id), 0, "ATTACH");
    expect(call_on(second, VFIO_DEVICE_ATTACH, &a), 0, "ATTACH of the second device");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE) || !copies(second, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page does not arrive");
    expect(detach(), 0, "DETACH");
    if (!copies(second, VIRTUAL, VIRTUAL + PAGE))
        wrong("the second device's page does not arrive after the first was detached");
    expect(destroy(a.pt_id), EBUSY, "DESTROY");
    close_file(second);
    expect(destroy(a.pt_id), 0, "DESTROY after the second was closed");
}

static void erratum(void)
{
    struct hw_info_vtd vtd = { .flags = 0 };
    struct hw_info info = { .size = sizeof(info), .dev_id = now.dev_id, .data_len = sizeof(vtd),
                            .data_uptr = (uintptr_t)&vtd };
    expect(call(IOMMU_GET_HW_INFO, &info), 0, "GET_HW_INFO");
    expect_number(vtd.flags, VTD_ERRATA_772415_SPR17, "flags");
    uint32_t ioas = new_ioas();
    new_parent(ioas);
    expect(map(ioas, MAP_FIXED_IOVA | MAP_READABLE, now.ram, PAGE, PAGE), EINVAL,
           "IOAS_MAP, read-only");
}

static void prefers_first_stage(void)
{
    need_nesting();
    if (!can(ECAP_FLTS))
        skip("the IOMMU has no first-stage tables");
    uint32_t ioas = new_ioas(), hwpt = new_paging(ioas, 0);
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(hwpt, &data);
    expect(alloc(&a), EINVAL, "a nested HWPT on an HWPT without flags");
    struct hwpt_set_dirty_tracking s = { .size = sizeof(s), .flags = DIRTY_TRACKING_ENABLE,
                                         .hwpt_id = hwpt };
    expect(call(IOMMU_HWPT_SET_DIRTY_TRACKING, &s), EOPNOTSUPP, "dirty tracking of it");
    /* The upper half of a 48-bit table is left out; a second-stage one of 6.12 has both. */
    unsigned first = now.cap >> CAP_FL5LP & 1 && (now.cap >> 16 & 63) + 1 > 48 ? 57 : 48;
    if (second_stage_bits() < first)
        return;
    expect(map(ioas, MAP_FIXED_IOVA | MAP_RW, now.ram, PAGE, 1ull << (first - 1)),
           as_7_3() ? EINVAL : 0, "IOAS_MAP in the upper half");
}

static void paging_with_faults(void)
{
    int fd;
    uint32_t ioas = new_ioas();
    struct hwpt_alloc a = paging(ioas, HWPT_FAULT_ID_VALID);
    a.fault_id = new_fault_queue(&fd);
    expect(alloc(&a), as_7_3() ? 0 : EOPNOTSUPP, "on an IOAS");
    a = paging(ioas, HWPT_FAULT_ID_VALID | HWPT_NEST_PARENT);
    expect(alloc(&a), EOPNOTSUPP, "of a parent");
    close_file(fd);
}

static void counted_requests(void)
{
    skip("what the driver has counted cannot be seen");
}

static void failed_attach_unreserves(void)
{
    uint32_t ioas = new_ioas(), parent = new_parent(ioas), flags = MAP_FIXED_IOVA | MAP_RW;
    expect(attach(parent), 0, "ATTACH");
    expect(map(ioas, flags, now.ram, PAGE, MSI_WINDOW), EINVAL, "IOAS_MAP in the MSI window");
    expect(attach_with(parent, 0, 20), EINVAL, "ATTACH to an HWPT of width 20");
    expect(map(ioas, flags, now.ram, PAGE, MSI_WINDOW), 0, "IOAS_MAP in the MSI window then");
    expect(unmap(ioas, MSI_WINDOW, PAGE, NULL), 0, "IOAS_UNMAP");
    expect(detach(), 0, "DETACH");
    expect(attach(parent), 0, "ATTACH");
    expect(map(ioas, flags, now.ram, PAGE, MSI_WINDOW), EINVAL, "IOAS_MAP in the MSI window again");
}

const struct rule rules_attach[] = {
    { "T2", "a parent that another IOMMU cannot use is refused with EINVAL", parent_of_other_iommu },
    { "T3", "without a free domain ID it is ENOSPC", domain_ids },
    { "T4", "an HWPT with a fault queue needs a device with page requests: ENODEV", page_requests },
    { "T5-width", "a width other than 48, and 57 where the IOMMU has it, is EINVAL", width },
    { "T5-flags", "SRE and EAFE need the IOMMU's: EINVAL", supervisor },
    { "T5-ignored", "WPE without SRE and unknown flags are not looked at", other_flags },
    { "T6", "a PASID entry that is present is EBUSY", present },
    { "ATTACH-reserved", "maps in the MSI window of the parent's IOAS are EADDRINUSE", reserved_of_parent },
    { "ATTACH-reserved-moves", "with an HWPT of another IOAS the reservation moves there", reserved_moves },
    { "ATTACH-dma", "none, parent, nested, parent, none: each is in force when ATTACH has returned",
      stages },
    { "ATTACH-bits", "the device sets accessed and dirty bits of the first stage", accessed_bits },
    { "ATTACH-permissions", "the first stage's permissions hold", first_stage_permissions },
    { "ATTACH-shared", "devices share a nested HWPT", shared },
    { "ATTACH-first-fails", "a first attachment that fails leaves nothing attached", first_attach_fails },
    { "Q1", "an attachment that fails leaves the device blocked, with the HWPT before on record, which"
      " attached again does nothing; DETACH and ATTACH help. In 6.12 the HWPT before stays", failed_attach },
    { "Q1-other", "another HWPT than before helps as well", failed_attach_recovers },
    { "Q2", "attaching the HWPT that is attached succeeds", same_again },
    { "Q3", "a nested HWPT is what it was made of", immutable },
    { "Q5", "bad tables and addresses are attached, and only DMA shows them", bad_tables },
    { "Q5-low-bits", "the low bits of pgtbl_addr are not looked at; they become SRE, FSPM and other fields"
      " of the PASID entry", low_bits },
    { "Q6", "the erratum is always reported, and read-only maps are refused", erratum },
    { "Q7", "without flags 7.3 makes a first-stage table: no parent, no dirty tracking, half as wide",
      prefers_first_stage },
    { "Q11", "a paging HWPT may have a fault queue, except in 6.12; a parent not", paging_with_faults },
    { "Q12", "an attachment of a nested HWPT counts its page requests once more", counted_requests },
    { "Q14", "a replacement that fails lifts the reservation of the MSI window in the IOAS, until DETACH and"
      " ATTACH", failed_attach_unreserves },
    { NULL, NULL, NULL },
};
