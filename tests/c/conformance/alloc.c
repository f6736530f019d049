/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * HWPT_ALLOC: what is common, on an IOAS, and on a nesting parent.
 */
#include "conformance.h"

static int alloc_of(uint32_t pt, uint32_t flags)
{
    struct hwpt_alloc a = paging(pt, flags);
    return alloc(&a);
}

static void reserved(void)
{
    struct hwpt_alloc a = paging(new_ioas(), 0);
    a.reserved = 1;
    expect(alloc(&a), EOPNOTSUPP, "__reserved");
    /* It is the first thing that is looked at. */
    a.data_len = 8;
    a.dev_id = 0;
    expect(alloc(&a), EOPNOTSUPP, "__reserved, data without a type and an unknown device");
}

static void data_or_none(void)
{
    struct hwpt_alloc a = paging(new_ioas(), 0);
    a.data_len = 24;
    expect(alloc(&a), EINVAL, "data_len with type NONE");
    a.dev_id = 0;
    expect(alloc(&a), EINVAL, "data_len with type NONE and an unknown device");
    a = paging(a.pt_id, 0);
    a.data_type = HWPT_DATA_VTD_S1;
    expect(alloc(&a), EINVAL, "type VTD_S1 without data_len");
    a.data_type = 0x7777;
    expect(alloc(&a), EINVAL, "an unknown type without data_len");
}

static void device(void)
{
    struct hwpt_alloc a = paging(new_ioas(), 0);
    a.dev_id = a.pt_id;
    expect(alloc(&a), ENOENT, "the IOAS as the device");
    a.dev_id = unused_id();
    expect(alloc(&a), ENOENT, "no object as the device");
    a.pt_id = a.dev_id;
    expect(alloc(&a), ENOENT, "no object as device and table");
}

static void no_table(void)
{
    expect(alloc_of(unused_id(), 0), EINVAL, "pt_id of no object");
    expect(alloc_of(0, 0), EINVAL, "pt_id 0");
}

static void no_kind_of_table(void)
{
    int fd;
    expect(alloc_of(now.dev_id, 0), EINVAL, "pt_id of a device");
    expect(alloc_of(new_fault_queue(&fd), 0), EINVAL, "pt_id of a fault queue");
    close_file(fd);
    if (!cannest())
        return;
    uint32_t parent = new_parent(new_ioas());
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(new_nested(parent, 0), &data);
    expect(alloc(&a), EINVAL, "pt_id of a nested HWPT");
}

static void paging_flags(void)
{
    uint32_t ioas = new_ioas();
    for (unsigned bit = 4; bit < 32; bit++)
        expect(alloc_of(ioas, 1u << bit), EOPNOTSUPP, "flags %#x", 1u << bit);
    if (!as_7_3())
        expect(alloc_of(ioas, HWPT_PASID), EOPNOTSUPP, "PASID");
}

static void paging_dirty(void)
{
    uint32_t ioas = new_ioas();
    expect(alloc_of(ioas, HWPT_DIRTY_TRACKING), cantrackdirty() && can(ECAP_SLTS) ? 0 : EOPNOTSUPP,
           "DIRTY_TRACKING");
}

static void second_stage_flags(void)
{
    need_dirty_tracking();
    need_7_3("fault queues of paging HWPTs");
    int fd;
    struct hwpt_alloc a = paging(new_ioas(), HWPT_DIRTY_TRACKING | HWPT_PASID | HWPT_FAULT_ID_VALID);
    a.fault_id = new_fault_queue(&fd);
    expect(alloc(&a), 0, "DIRTY_TRACKING, PASID and FAULT_ID_VALID");
    close_file(fd);
    expect(alloc_of(a.pt_id, HWPT_DIRTY_TRACKING | HWPT_NEST_PARENT | HWPT_PASID),
           cannest() ? 0 : EOPNOTSUPP, "DIRTY_TRACKING, NEST_PARENT and PASID");
}

static void parent_dirty(void)
{
    need_nesting();
    expect(alloc_of(new_ioas(), HWPT_DIRTY_TRACKING | HWPT_NEST_PARENT),
           cantrackdirty() ? 0 : EOPNOTSUPP, "DIRTY_TRACKING and NEST_PARENT");
}

static void parent_with_faults(void)
{
    int fd;
    struct hwpt_alloc a = paging(new_ioas(), HWPT_FAULT_ID_VALID | HWPT_NEST_PARENT);
    a.fault_id = new_fault_queue(&fd);
    expect(alloc(&a), EOPNOTSUPP, "FAULT_ID_VALID and NEST_PARENT");
    close_file(fd);
}

static void paging_data(void)
{
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(new_ioas(), &data);
    expect(alloc(&a), EOPNOTSUPP, "VTD_S1 data on an IOAS");
    a.data_uptr = (uintptr_t)nowhere();
    expect(alloc(&a), EOPNOTSUPP, "data in no memory on an IOAS");
}

static void parent_without_nesting(void)
{
    int wanted = cannest() && can(ECAP_SLTS) ? 0 : EOPNOTSUPP;
    expect(alloc_of(new_ioas(), HWPT_NEST_PARENT), wanted, "NEST_PARENT");
    if (as_7_3())
        expect(alloc_of(new_ioas(), HWPT_NEST_PARENT | HWPT_PASID), wanted, "NEST_PARENT and PASID");
}

static void without_second_stage(void)
{
    if (can(ECAP_SLTS) || !can(ECAP_SMTS))
        skip("the IOMMU has second-stage tables");
    uint32_t ioas = new_ioas();
    expect(alloc_of(ioas, HWPT_NEST_PARENT), EOPNOTSUPP, "NEST_PARENT");
    expect(alloc_of(ioas, HWPT_DIRTY_TRACKING), EOPNOTSUPP, "DIRTY_TRACKING");
    if (as_7_3()) {
        expect(alloc_of(ioas, 0), can(ECAP_FLTS) ? 0 : EOPNOTSUPP, "no flags");
        return;
    }
    /* 6.12 notices when a device is attached. */
    expect(attach(new_paging(ioas, 0)), EINVAL, "ATTACH to an HWPT without flags");
}

/* The last address that an IOAS allows, after an HWPT was made on it. */
static uint64_t last_address(uint32_t flags)
{
    uint32_t ioas = new_ioas();
    new_paging(ioas, flags);
    struct iova_range ranges[8];
    struct ioas_iova_ranges r = { .size = sizeof(r), .ioas_id = ioas, .num_iovas = 8,
                                  .allowed_iovas = (uintptr_t)ranges };
    int result = call(IOMMU_IOAS_IOVA_RANGES, &r);
    if (result || !r.num_iovas || r.num_iovas > 8)
        give_up("IOAS_IOVA_RANGES: %s, %u ranges", strerror(-result), r.num_iovas);
    expect_number(r.out_iova_alignment, PAGE, "out_iova_alignment");
    expect_number(ranges[0].start, 0, "the first address");
    return ranges[r.num_iovas - 1].last;
}

static void aperture(void)
{
    if (can(ECAP_SLTS) || !can(ECAP_SMTS)) {
        unsigned bits = second_stage_bits();
        uint64_t second = (1ull << bits) - 1;
        if (cannest())
            expect_number(last_address(HWPT_NEST_PARENT), second, "the last address of a parent");
        else if (cantrackdirty())
            expect_number(last_address(HWPT_DIRTY_TRACKING), second, "the last address with dirty bits");
    }
    /* Without flags Linux 7.3 takes a first-stage table if it can, whose lower half it uses. */
    unsigned mgaw = (now.cap >> 16 & 63) + 1, first = mgaw > 48 && now.cap >> CAP_FL5LP & 1 ? 57 : 48;
    bool prefers_first = can(ECAP_SMTS) && can(ECAP_FLTS) && as_7_3();
    if (prefers_first)
        expect_number(last_address(0), (1ull << ((mgaw < first ? mgaw : first) - 1)) - 1,
                      "the last address of a first-stage table");
    else if (can(ECAP_SLTS) || !can(ECAP_SMTS))
        expect_number(last_address(0), (1ull << second_stage_bits()) - 1,
                      "the last address of a second-stage table");
}

static void outside_of_aperture(void)
{
    uint32_t ioas = new_ioas();
    expect(map(ioas, MAP_FIXED_IOVA | MAP_RW, pages(1), PAGE, 1ull << 57), 0, "IOAS_MAP at 2^57");
    expect(alloc_of(ioas, 0), EADDRINUSE, "HWPT_ALLOC with a page at 2^57");
    expect(unmap(ioas, 1ull << 57, PAGE, NULL), 0, "IOAS_UNMAP");
    expect(alloc_of(ioas, 0), 0, "HWPT_ALLOC without it");
}

static void alignment_of_maps(void)
{
    uint32_t ioas = new_ioas();
    expect(map(ioas, MAP_FIXED_IOVA | MAP_RW, now.ram + 0x10, 0x20, 0x1010), 0,
           "IOAS_MAP of 0x20 bytes");
    expect(alloc_of(ioas, 0), EADDRINUSE, "HWPT_ALLOC with 0x20 bytes mapped");
    expect(unmap(ioas, 0, UINT64_MAX, NULL), 0, "IOAS_UNMAP");
    expect(alloc_of(ioas, 0), 0, "HWPT_ALLOC without them");
}

static void fill_with_bad_memory(void)
{
    uint32_t ioas = new_ioas();
    expect(map(ioas, MAP_FIXED_IOVA | MAP_RW, nowhere(), PAGE, 0x1000), 0,
           "IOAS_MAP of what is not there, without an HWPT");
    expect(alloc_of(ioas, 0), EFAULT, "HWPT_ALLOC with it");
    expect(unmap(ioas, 0, UINT64_MAX, NULL), 0, "IOAS_UNMAP");
    expect(map(ioas, MAP_FIXED_IOVA | MAP_RW, read_only_pages(1), PAGE, 0x1000), 0,
           "IOAS_MAP to be written of what cannot be written");
    expect(alloc_of(ioas, 0), EFAULT, "HWPT_ALLOC with it");
}

static void fill_parent_with_read_only(void)
{
    need_nesting();
    uint32_t ioas = new_ioas();
    expect(map(ioas, MAP_FIXED_IOVA | MAP_READABLE, pages(1), PAGE, 0x1000), 0, "IOAS_MAP");
    expect(alloc_of(ioas, HWPT_NEST_PARENT), EINVAL, "a parent over a read-only map");
    expect(alloc_of(ioas, 0), 0, "another HWPT over it");
    expect(unmap(ioas, 0, UINT64_MAX, NULL), 0, "IOAS_UNMAP");
    expect(alloc_of(ioas, HWPT_NEST_PARENT), 0, "a parent afterwards");
}

static void fault_queue_of_paging(void)
{
    uint32_t ioas = new_ioas();
    int fd;
    struct hwpt_alloc a = paging(ioas, HWPT_FAULT_ID_VALID);
    if (!as_7_3()) {
        expect(alloc(&a), EOPNOTSUPP, "FAULT_ID_VALID");
        return;
    }
    a.fault_id = unused_id();
    expect(alloc(&a), ENOENT, "no object as fault_id");
    a.fault_id = ioas;
    expect(alloc(&a), ENOENT, "an IOAS as fault_id");
    a.fault_id = new_fault_queue(&fd);
    expect(alloc(&a), 0, "a fault queue");
    expect(destroy(a.fault_id), EBUSY, "DESTROY of the fault queue");
    expect(destroy(a.out_hwpt_id), 0, "DESTROY of the HWPT");
    close_file(fd);
    expect(destroy(a.fault_id), 0, "DESTROY of the fault queue afterwards");
    /* Without the flag it is not looked at. */
    a = paging(ioas, 0);
    a.fault_id = 0x77777;
    expect(alloc(&a), 0, "fault_id without the flag");
}

static void no_reply(void)
{
    /* The structure can be read but not written: the HWPT goes again. */
    uint32_t ioas = new_ioas(), next = unused_id();
    struct hwpt_alloc a = paging(ioas, 0);
    expect(alloc(write_protected(&a, sizeof(a))), EFAULT, "HWPT_ALLOC in memory that cannot be written");
    expect(map(ioas, MAP_FIXED_IOVA | MAP_RW, nowhere(), PAGE, PAGE), 0,
           "IOAS_MAP of what is not there, as without an HWPT");
    expect(unmap(ioas, PAGE, PAGE, NULL), 0, "IOAS_UNMAP");
    expect_number(new_paging(ioas, 0), next, "the next ID");
    struct ioas_alloc i = { .size = sizeof(i) };
    next = unused_id();
    expect(call(IOMMU_IOAS_ALLOC, write_protected(&i, sizeof(i))), EFAULT,
           "IOAS_ALLOC in memory that cannot be written");
    expect_number(new_ioas(), next, "the next ID");
}

static void nested_flags(void)
{
    uint32_t parent = new_parent(new_ioas());
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a;
    for (unsigned bit = 0; bit < 32; bit++) {
        uint32_t flag = 1u << bit;
        if (flag == HWPT_FAULT_ID_VALID)
            continue;
        a = nested(parent, &data);
        a.flags = flag;
        expect(alloc(&a), flag == HWPT_PASID && as_7_3() ? 0 : EOPNOTSUPP, "flags %#x", flag);
    }
    a = paging(parent, 0);
    expect(alloc(&a), EOPNOTSUPP, "no data");
}

static void nested_on_no_parent(void)
{
    need_nesting();
    struct hwpt_vtd_s1 data = tables();
    uint32_t ioas = new_ioas();
    struct hwpt_alloc a = nested(new_paging(ioas, 0), &data);
    expect(alloc(&a), EINVAL, "on an HWPT without NEST_PARENT");
    /* HWPTs that an attachment to an IOAS makes are never parents. */
    struct vfio_attach at = { .argsz = offsetof(struct vfio_attach, pasid), .pt_id = ioas };
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, &at), 0, "attach to an IOAS");
    a = nested(at.pt_id, &data);
    expect(alloc(&a), EINVAL, "on the HWPT of an attachment to an IOAS");
}

static void nested_without_nesting(void)
{
    need_nesting();
    uint32_t foreign;
    bound_device(FOREIGN, &foreign);
    struct hw_info_vtd vtd = { .flags = 0 };
    struct hw_info info = { .size = sizeof(info), .dev_id = foreign, .data_len = sizeof(vtd),
                            .data_uptr = (uintptr_t)&vtd };
    expect(call(IOMMU_GET_HW_INFO, &info), 0, "GET_HW_INFO");
    if (vtd.ecap_reg >> ECAP_NEST & 1)
        skip("the other IOMMU nests as well");
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(new_parent(new_ioas()), &data);
    a.dev_id = foreign;
    expect(alloc(&a), EOPNOTSUPP, "for a device whose IOMMU does not nest");
}

static void nested_type(void)
{
    uint32_t parent = new_parent(new_ioas());
    struct hwpt_vtd_s1 data = tables();
    const uint32_t types[] = { HWPT_DATA_ARM_SMMUV3, 3, 4, UINT32_MAX };
    for (unsigned i = 0; i < 4; i++) {
        struct hwpt_alloc a = nested(parent, &data);
        a.data_type = types[i];
        expect(alloc(&a), EOPNOTSUPP, "data of type %u", types[i]);
    }
}

static void nested_on_first_stage(void)
{
    need_nesting();
    if (!can(ECAP_FLTS))
        skip("the IOMMU has no first-stage tables");
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(new_paging(new_ioas(), as_7_3() ? HWPT_PASID : 0), &data);
    expect(alloc(&a), EINVAL, "on a first-stage table");
}

static void nested_length(void)
{
    uint32_t parent = new_parent(new_ioas());
    struct hwpt_vtd_s1 *data = pages(1);
    *data = tables();
    const uint32_t lengths[] = { 1, 8, 16, 20, 23, 25, 32, 4096 };
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct hwpt_alloc a = nested(parent, data);
        a.data_len = lengths[i];
        expect(alloc(&a), EINVAL, "%u bytes of data", lengths[i]);
    }
}

static void nested_memory(void)
{
    struct hwpt_alloc a = nested(new_parent(new_ioas()), nowhere());
    expect(alloc(&a), EFAULT, "data in no memory");
    a.data_uptr = 0;
    expect(alloc(&a), EFAULT, "no pointer");
}

static void nested_fault_queue(void)
{
    uint32_t parent = new_parent(new_ioas());
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(parent, &data);
    a.flags = HWPT_FAULT_ID_VALID;
    a.fault_id = unused_id();
    expect(alloc(&a), ENOENT, "no object as fault_id");
    a.fault_id = parent;
    expect(alloc(&a), ENOENT, "an HWPT as fault_id");
    int fd;
    a.fault_id = new_fault_queue(&fd);
    expect(alloc(&a), 0, "a fault queue");
    close_file(fd);
}

static void nested_takes_all(void)
{
    uint32_t parent = new_parent(new_ioas());
    const struct hwpt_vtd_s1 odd[] = {
        { .flags = ~7ull, .pgtbl_addr = RAM_BASE, .addr_width = 48 },
        { .flags = 7, .pgtbl_addr = RAM_BASE, .addr_width = 48 },
        { .pgtbl_addr = RAM_BASE, .addr_width = 48, .reserved = UINT32_MAX },
        { .pgtbl_addr = RAM_BASE, .addr_width = 0 },
        { .pgtbl_addr = RAM_BASE, .addr_width = UINT32_MAX },
        { .pgtbl_addr = RAM_BASE + 0x123, .addr_width = 48 },
        { .pgtbl_addr = UINT64_MAX, .addr_width = 48 },
    };
    for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        struct hwpt_alloc a = nested(parent, &odd[i]);
        expect(alloc(&a), 0, "odd data %u", i);
    }
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(parent, &data);
    a.reserved2 = 1;
    expect(alloc(&a), 0, "__reserved2");
}

static void many_nested(void)
{
    uint32_t ioas = new_ioas(), parent = new_parent(ioas), ids[20];
    for (unsigned i = 0; i < 20; i++)
        ids[i] = new_nested(parent, 0);
    for (unsigned i = 0; i < 20; i++) {
        expect(destroy(parent), EBUSY, "DESTROY of a parent with %u children", 20 - i);
        expect(destroy(ids[i]), 0, "DESTROY of a child");
    }
    expect(destroy(ioas), EBUSY, "DESTROY of the IOAS");
    expect(destroy(parent), 0, "DESTROY of the parent");
    expect(destroy(ioas), 0, "DESTROY of the IOAS afterwards");
}

const struct rule rules_alloc[] = {
    { "A1", "__reserved is refused with EOPNOTSUPP", reserved },
    { "A2", "data without a type and a type without data are refused with EINVAL", data_or_none },
    { "A3", "a dev_id that is no device is refused with ENOENT", device },
    { "A4", "a pt_id that is not there is refused with EINVAL", no_table },
    { "A5", "a pt_id that is neither IOAS nor paging HWPT is refused with EINVAL", no_kind_of_table },
    { "P1", "on an IOAS unknown flags are refused with EOPNOTSUPP", paging_flags },
    { "P2", "DIRTY_TRACKING without the IOMMU's is refused with EOPNOTSUPP", paging_dirty },
    { "P3", "FAULT_ID_VALID with NEST_PARENT is refused with EOPNOTSUPP", parent_with_faults },
    { "P4", "data on an IOAS is refused with EOPNOTSUPP", paging_data },
    { "P5", "a second-stage table takes DIRTY_TRACKING and PASID with a fault queue or NEST_PARENT",
      second_stage_flags },
    { "P6", "NEST_PARENT without the IOMMU's nesting is refused with EOPNOTSUPP",
      parent_without_nesting },
    { "P7", "DIRTY_TRACKING with NEST_PARENT needs the IOMMU's dirty bits as well: EOPNOTSUPP",
      parent_dirty },
    { "P8", "without second-stage tables what needs them is EOPNOTSUPP; 6.12 can attach nothing then: EINVAL",
      without_second_stage },
    { "P9-aperture", "an HWPT limits its IOAS to the width of its table: half of it for the first stage,"
      " which 7.3 takes if no flag needs the second", aperture },
    { "P9-outside", "a map outside of the width is EADDRINUSE", outside_of_aperture },
    { "P9-alignment", "a map that is not aligned to pages is EADDRINUSE", alignment_of_maps },
    { "P9-memory", "maps of what is not there, or not to be written, are EFAULT with the first HWPT",
      fill_with_bad_memory },
    { "P9-read-only", "a nesting parent over a read-only map is refused with EINVAL",
      fill_parent_with_read_only },
    { "P10", "a fault_id that is no fault queue is refused with ENOENT; in 6.12 FAULT_ID_VALID on an IOAS"
      " is EOPNOTSUPP",
      fault_queue_of_paging },
    { "P11", "a reply that cannot be written is EFAULT, and what was made goes again", no_reply },
    { "N1", "on a parent flags other than FAULT_ID_VALID and PASID, and no data, are refused with"
      " EOPNOTSUPP", nested_flags },
    { "N2", "an HWPT that was not made with NEST_PARENT is refused with EINVAL", nested_on_no_parent },
    { "N3", "a device whose IOMMU does not nest is refused with EOPNOTSUPP", nested_without_nesting },
    { "N4", "data of another type than VTD_S1 is refused with EOPNOTSUPP", nested_type },
    { "N5", "a first-stage table is no parent: EINVAL", nested_on_first_stage },
    { "N6", "data of other than 24 bytes is refused with EINVAL", nested_length },
    { "N7", "data that cannot be read is refused with EFAULT", nested_memory },
    { "N8", "a fault_id that is no fault queue is refused with ENOENT", nested_fault_queue },
    { "N-lazy", "flags, __reserved, width and address of VTD_S1, and __reserved2, are not looked at",
      nested_takes_all },
    { "N-many", "a parent has any number of nested HWPTs and cannot be destroyed before them",
      many_nested },
    { NULL, NULL, NULL },
};
