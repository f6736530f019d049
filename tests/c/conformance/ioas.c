/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * IOAS_ALLOC, ranges, options, and the calls that Intel's driver does not have.
 */
#include <unistd.h>

#include "conformance.h"

static void alloc_flags(void)
{
    for (unsigned bit = 0; bit < 32; bit++) {
        struct ioas_alloc a = { .size = sizeof(a), .flags = 1u << bit };
        expect(call(IOMMU_IOAS_ALLOC, &a), EOPNOTSUPP, "flags %#x", a.flags);
    }
}

static int ranges_of(uint32_t ioas, struct iova_range *ranges, uint32_t room,
                     struct ioas_iova_ranges *r)
{
    *r = (struct ioas_iova_ranges){ .size = sizeof(*r), .ioas_id = ioas, .num_iovas = room,
                                    .allowed_iovas = (uintptr_t)ranges };
    return call(IOMMU_IOAS_IOVA_RANGES, r);
}

static void ranges(void)
{
    uint32_t ioas = new_ioas();
    struct iova_range r[8];
    struct ioas_iova_ranges c = { .size = sizeof(c), .reserved = 1 };
    expect(call(IOMMU_IOAS_IOVA_RANGES, &c), EOPNOTSUPP, "__reserved");
    expect(ranges_of(unused_id(), r, 8, &c), ENOENT, "no object");
    expect(ranges_of(ioas, r, 8, &c), 0, "a new IOAS");
    expect_number(c.num_iovas, 1, "the ranges of a new IOAS");
    expect_number(r[0].start, 0, "its first address");
    expect_number(r[0].last, UINT64_MAX, "its last address");
    expect_number(c.out_iova_alignment, 1, "out_iova_alignment");
    expect(ranges_of(ioas, NULL, 0, &c), EMSGSIZE, "no room");
    expect_number(c.num_iovas, 1, "num_iovas without room");
    expect(ranges_of(ioas, nowhere(), 8, &c), EFAULT, "no memory");
}

static void ranges_of_device(void)
{
    uint32_t ioas = new_ioas();
    struct iova_range r[8];
    struct ioas_iova_ranges c;
    expect(attach(ioas), 0, "attach");
    expect(ranges_of(ioas, r, 8, &c), 0, "IOAS_IOVA_RANGES");
    if (c.num_iovas < 2)
        give_up("num_iovas is %u", c.num_iovas);
    expect_number(c.out_iova_alignment, PAGE, "out_iova_alignment");
    bool before = false, behind = false;
    for (unsigned i = 0; i < c.num_iovas && i < 8; i++) {
        before |= r[i].last == MSI_WINDOW - 1;
        behind |= r[i].start == MSI_WINDOW + 0x100000;
        if (r[i].start < MSI_WINDOW + 0x100000 && r[i].last >= MSI_WINDOW)
            wrong("%#llx to %#llx is allowed", (unsigned long long)r[i].start,
                  (unsigned long long)r[i].last);
    }
    expect_number(before, true, "a range up to the MSI window");
    expect_number(behind, true, "a range from its end on");
    uint32_t all = c.num_iovas;
    struct iova_range one[2] = { { 0, 0 }, { 0x55, 0x55 } };
    expect(ranges_of(ioas, one, 1, &c), EMSGSIZE, "room for one");
    expect_number(c.num_iovas, all, "num_iovas");
    expect_number(one[0].last, r[0].last, "the range for which there was room");
    expect_number(one[1].start, 0x55, "what is behind it");
    expect(detach(), 0, "detach");
    expect(ranges_of(ioas, r, 8, &c), 0, "IOAS_IOVA_RANGES after the detach");
    expect_number(c.num_iovas, 1, "num_iovas after the detach");
    expect_number(r[0].last, UINT64_MAX, "the last address after the detach");
}

static int allow(uint32_t ioas, const struct iova_range *ranges, uint32_t number)
{
    struct ioas_allow_iovas a = { .size = sizeof(a), .ioas_id = ioas, .num_iovas = number,
                                  .allowed_iovas = (uintptr_t)ranges };
    return call(IOMMU_IOAS_ALLOW_IOVAS, &a);
}

static void allow_iovas(void)
{
    uint32_t ioas = new_ioas();
    struct ioas_allow_iovas a = { .size = sizeof(a), .reserved = 1 };
    expect(call(IOMMU_IOAS_ALLOW_IOVAS, &a), EOPNOTSUPP, "__reserved");
    const struct iova_range good[] = { { 0x10000, 0x1ffff }, { 0x30000, 0x3ffff } };
    expect(allow(unused_id(), good, 2), ENOENT, "no object");
    expect(allow(ioas, nowhere(), 1), EFAULT, "no memory");
    const struct iova_range point = { 0x1000, 0x1000 }, turned = { 0x2000, 0x1000 };
    expect(allow(ioas, &point, 1), EINVAL, "a range of one byte");
    expect(allow(ioas, &turned, 1), EINVAL, "a range that ends before it begins");
    const struct iova_range overlap[] = { { 0x10000, 0x1ffff }, { 0x1f000, 0x2ffff } };
    expect(allow(ioas, overlap, 2), EINVAL, "ranges that overlap");
    expect(allow(ioas, good, 2), 0, "two ranges");
    expect(allow(ioas, NULL, 0), 0, "no ranges");
    expect(attach(ioas), 0, "attach");
    const struct iova_range msi = { MSI_WINDOW, MSI_WINDOW + 0xfff };
    expect(allow(ioas, &msi, 1), EADDRINUSE, "a range in the MSI window");
}

static void allowed_are_kept(void)
{
    /* A device may not reserve what was allowed. */
    uint32_t ioas = new_ioas();
    const struct iova_range msi = { MSI_WINDOW, MSI_WINDOW + 0xfff };
    expect(allow(ioas, &msi, 1), 0, "a range in the MSI window, without a device");
    expect(attach(ioas), EADDRINUSE, "attach");
    expect(allow(ioas, NULL, 0), 0, "no ranges");
    expect(attach(ioas), 0, "attach");
}

static int option(uint32_t id, uint16_t op, uint32_t object, uint64_t *value)
{
    struct option o = { .size = sizeof(o), .option_id = id, .op = op, .object_id = object,
                        .val64 = *value };
    int result = call(IOMMU_OPTION, &o);
    *value = o.val64;
    return result;
}

static void options(void)
{
    struct option o = { .size = sizeof(o), .reserved = 1 };
    uint64_t value = 0;
    expect(call(IOMMU_OPTION, &o), EOPNOTSUPP, "__reserved");
    expect(option(2, OPTION_GET, 0, &value), EOPNOTSUPP, "option 2");
    expect(option(OPTION_RLIMIT_MODE, 2, 0, &value), EOPNOTSUPP, "operation 2");
    expect(option(OPTION_HUGE_PAGES, 2, new_ioas(), &value), EOPNOTSUPP, "operation 2");
}

static int set_rlimit_mode(void)
{
    uint64_t value = 0;
    return option(OPTION_RLIMIT_MODE, OPTION_SET, 0, &value);
}

static void rlimit_mode_privilege(void)
{
    expect(now.host->unprivileged(set_rlimit_mode), EPERM, "SET");
}

static void rlimit_mode(void)
{
    uint64_t value = 77;
    expect(option(OPTION_RLIMIT_MODE, OPTION_GET, 1, &value), EOPNOTSUPP, "an object");
    expect(option(OPTION_RLIMIT_MODE, OPTION_GET, 0, &value), 0, "GET");
    expect_number(value, 0, "the mode");
    if (geteuid() != 0 && now.host->real_files)
        skip("only root may set it");
    value = 1;
    expect(option(OPTION_RLIMIT_MODE, OPTION_SET, 0, &value), EBUSY, "SET with objects");
    /* On an iommufd without objects. */
    int other = now.host->open_iommu();
    if (other < 0)
        give_up("a second iommufd: %s", strerror(-other));
    struct option o = { .size = sizeof(o), .option_id = OPTION_RLIMIT_MODE, .op = OPTION_SET,
                        .val64 = 2 };
    expect(call_on(other, IOMMU_OPTION, &o), EINVAL, "SET to 2");
    o.val64 = 1;
    expect(call_on(other, IOMMU_OPTION, &o), 0, "SET to 1");
    o.op = OPTION_GET, o.val64 = 77;
    expect(call_on(other, IOMMU_OPTION, &o), 0, "GET");
    expect_number(o.val64, 1, "the mode");
    close_file(other);
}

static void huge_pages(void)
{
    uint32_t ioas = new_ioas();
    uint64_t value = 77;
    expect(option(OPTION_HUGE_PAGES, OPTION_GET, unused_id(), &value), ENOENT, "no object");
    expect(option(OPTION_HUGE_PAGES, OPTION_GET, ioas, &value), 0, "GET");
    expect_number(value, 1, "whether there are huge pages");
    value = 2;
    expect(option(OPTION_HUGE_PAGES, OPTION_SET, ioas, &value), EINVAL, "SET to 2");
    value = 0;
    expect(option(OPTION_HUGE_PAGES, OPTION_SET, ioas, &value), 0, "SET to 0");
    value = 77;
    expect(option(OPTION_HUGE_PAGES, OPTION_GET, ioas, &value), 0, "GET");
    expect_number(value, 0, "whether there are huge pages");
    value = 1;
    expect(option(OPTION_HUGE_PAGES, OPTION_SET, ioas, &value), 0, "SET to 1");
    new_paging(ioas, 0);
    map_ram(ioas);
    value = 0;
    expect(option(OPTION_HUGE_PAGES, OPTION_SET, ioas, &value), EINVAL, "SET to 0 with maps in an HWPT");
}

static int compat(uint32_t op, uint32_t *ioas)
{
    struct vfio_ioas v = { .size = sizeof(v), .op = (uint16_t)op, .ioas_id = *ioas };
    int result = call(IOMMU_VFIO_IOAS, &v);
    *ioas = v.ioas_id;
    return result;
}

static void vfio_ioas(void)
{
    uint32_t ioas = new_ioas(), id = 0;
    struct vfio_ioas v = { .size = sizeof(v), .reserved = 1 };
    expect(call(IOMMU_VFIO_IOAS, &v), EOPNOTSUPP, "__reserved");
    expect(compat(3, &id), EOPNOTSUPP, "operation 3");
    expect(compat(VFIO_IOAS_GET, &id), ENODEV, "GET of none");
    expect(compat(VFIO_IOAS_CLEAR, &id), 0, "CLEAR of none");
    id = unused_id();
    expect(compat(VFIO_IOAS_SET, &id), ENOENT, "SET to no object");
    id = ioas;
    expect(compat(VFIO_IOAS_SET, &id), 0, "SET");
    id = 0;
    expect(compat(VFIO_IOAS_GET, &id), 0, "GET");
    expect_number(id, ioas, "the IOAS");
    expect(compat(VFIO_IOAS_CLEAR, &id), 0, "CLEAR");
    expect(compat(VFIO_IOAS_GET, &id), ENODEV, "GET after CLEAR");
    id = ioas;
    expect(compat(VFIO_IOAS_SET, &id), 0, "SET");
    expect(destroy(ioas), 0, "DESTROY of the IOAS");
    expect(compat(VFIO_IOAS_GET, &id), ENODEV, "GET after DESTROY");
}

static void viommu(void)
{
    need_7_3("VIOMMU_ALLOC");
    struct viommu_alloc v = { .size = sizeof(v), .flags = 1, .type = 1 };
    expect(call(IOMMU_VIOMMU_ALLOC, &v), EOPNOTSUPP, "flags and no device");
    v.flags = 0, v.type = 0;
    expect(call(IOMMU_VIOMMU_ALLOC, &v), EOPNOTSUPP, "type DEFAULT and no device");
    v.type = 1;
    expect(call(IOMMU_VIOMMU_ALLOC, &v), ENOENT, "no device");
    v.dev_id = now.dev_id;
    expect(call(IOMMU_VIOMMU_ALLOC, &v), EOPNOTSUPP, "an Intel device");
    v.reserved = 1;
    expect(call(IOMMU_VIOMMU_ALLOC, &v), EOPNOTSUPP, "an Intel device and __reserved");
}

static void vdevice(void)
{
    need_7_3("VDEVICE_ALLOC");
    struct vdevice_alloc v = { .size = sizeof(v), .viommu_id = unused_id(), .dev_id = now.dev_id };
    expect(call(IOMMU_VDEVICE_ALLOC, &v), ENOENT, "no vIOMMU");
    v.viommu_id = new_ioas();
    expect(call(IOMMU_VDEVICE_ALLOC, &v), ENOENT, "an IOAS as the vIOMMU");
}

static void veventq(void)
{
    need_7_3("VEVENTQ_ALLOC");
    const struct veventq_alloc good = { .size = sizeof(good), .viommu_id = unused_id(), .type = 1,
                                        .veventq_depth = 1 };
    struct veventq_alloc v = good;
    v.flags = 1;
    expect(call(IOMMU_VEVENTQ_ALLOC, &v), EOPNOTSUPP, "flags");
    v = good, v.reserved = 1;
    expect(call(IOMMU_VEVENTQ_ALLOC, &v), EOPNOTSUPP, "__reserved");
    v = good, v.type = 0;
    expect(call(IOMMU_VEVENTQ_ALLOC, &v), EOPNOTSUPP, "type DEFAULT");
    v = good, v.veventq_depth = 0;
    expect(call(IOMMU_VEVENTQ_ALLOC, &v), EINVAL, "depth 0");
    v = good, v.veventq_depth = (1u << 19) + 1;
    expect(call(IOMMU_VEVENTQ_ALLOC, &v), EINVAL, "depth 2^19 + 1");
    v = good, v.veventq_depth = 1u << 19;
    expect(call(IOMMU_VEVENTQ_ALLOC, &v), ENOENT, "no vIOMMU");
}

static void hw_queue(void)
{
    need_7_3("HW_QUEUE_ALLOC");
    const struct hw_queue_alloc good = { .size = sizeof(good), .viommu_id = unused_id(), .type = 1,
                                         .length = PAGE };
    struct hw_queue_alloc q = good;
    q.flags = 1;
    expect(call(IOMMU_HW_QUEUE_ALLOC, &q), EOPNOTSUPP, "flags");
    q = good, q.type = 0;
    expect(call(IOMMU_HW_QUEUE_ALLOC, &q), EOPNOTSUPP, "type DEFAULT");
    q = good, q.length = 0;
    expect(call(IOMMU_HW_QUEUE_ALLOC, &q), EINVAL, "length 0");
    q = good, q.nesting_parent_iova = UINT64_MAX;
    expect(call(IOMMU_HW_QUEUE_ALLOC, &q), EOVERFLOW, "a range around the end");
    q = good;
    expect(call(IOMMU_HW_QUEUE_ALLOC, &q), ENOENT, "no vIOMMU");
}

const struct rule rules_ioas[] = {
    { "IOAS-ALLOC", "IOAS_ALLOC: flags are refused with EOPNOTSUPP", alloc_flags },
    { "IOVA-RANGES", "a new IOAS has one range and alignment 1; without room num_iovas is written, then"
      " EMSGSIZE", ranges },
    { "IOVA-RANGES-device", "with a device the MSI window and what the table cannot reach are left out",
      ranges_of_device },
    { "ALLOW-IOVAS", "IOAS_ALLOW_IOVAS: __reserved EOPNOTSUPP, odd ranges EINVAL, reserved ones"
      " EADDRINUSE", allow_iovas },
    { "ALLOW-IOVAS-kept", "what was allowed cannot be reserved: EADDRINUSE when attaching",
      allowed_are_kept },
    { "OPTION", "OPTION: __reserved, unknown options and operations are EOPNOTSUPP", options },
    { "OPTION-RLIMIT-MODE", "RLIMIT_MODE: for no object, before there are objects (EBUSY), 0 or 1",
      rlimit_mode },
    { "OPTION-privilege", "RLIMIT_MODE: SET by who is not privileged is EPERM", rlimit_mode_privilege },
    { "OPTION-HUGE-PAGES", "HUGE_PAGES: 0 or 1, and not 0 once maps are in an HWPT (EINVAL)", huge_pages },
    { "VFIO-IOAS", "VFIO_IOAS: ENODEV while there is none, ENOENT for no IOAS", vfio_ioas },
    { "VIOMMU", "VIOMMU_ALLOC: Intel has none, EOPNOTSUPP", viommu },
    { "VDEVICE", "VDEVICE_ALLOC: ENOENT without a vIOMMU", vdevice },
    { "VEVENTQ", "VEVENTQ_ALLOC: its own arguments, then ENOENT without a vIOMMU", veventq },
    { "HW-QUEUE", "HW_QUEUE_ALLOC: its own arguments, then ENOENT without a vIOMMU", hw_queue },
    { NULL, NULL, NULL },
};
