/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What all calls on an iommufd have in common, and objects' IDs.
 */
#include "conformance.h"

/* Every call: the size of its structure, the least that is accepted, and the release with it. */
static const struct command {
    const char *name;
    uint32_t request, size, least;
    unsigned since;
} COMMANDS[] = {
    { "DESTROY", IOMMU_DESTROY, 8, 8, 612 },
    { "IOAS_ALLOC", IOMMU_IOAS_ALLOC, 12, 12, 612 },
    { "IOAS_ALLOW_IOVAS", IOMMU_IOAS_ALLOW_IOVAS, 24, 24, 612 },
    { "IOAS_COPY", IOMMU_IOAS_COPY, 40, 40, 612 },
    { "IOAS_IOVA_RANGES", IOMMU_IOAS_IOVA_RANGES, 32, 32, 612 },
    { "IOAS_MAP", IOMMU_IOAS_MAP, 40, 40, 612 },
    { "IOAS_UNMAP", IOMMU_IOAS_UNMAP, 24, 24, 612 },
    { "OPTION", IOMMU_OPTION, 24, 24, 612 },
    { "VFIO_IOAS", IOMMU_VFIO_IOAS, 12, 12, 612 },
    { "HWPT_ALLOC", IOMMU_HWPT_ALLOC, 48, 24, 612 },
    { "GET_HW_INFO", IOMMU_GET_HW_INFO, 40, 32, 612 },
    { "HWPT_SET_DIRTY_TRACKING", IOMMU_HWPT_SET_DIRTY_TRACKING, 16, 16, 612 },
    { "HWPT_GET_DIRTY_BITMAP", IOMMU_HWPT_GET_DIRTY_BITMAP, 48, 48, 612 },
    { "HWPT_INVALIDATE", IOMMU_HWPT_INVALIDATE, 32, 32, 612 },
    { "FAULT_QUEUE_ALLOC", IOMMU_FAULT_QUEUE_ALLOC, 16, 16, 612 },
    { "IOAS_MAP_FILE", IOMMU_IOAS_MAP_FILE, 40, 40, 703 },
    { "VIOMMU_ALLOC", IOMMU_VIOMMU_ALLOC, 40, 24, 703 },
    { "VDEVICE_ALLOC", IOMMU_VDEVICE_ALLOC, 24, 24, 703 },
    { "IOAS_CHANGE_PROCESS", IOMMU_IOAS_CHANGE_PROCESS, 8, 8, 703 },
    { "VEVENTQ_ALLOC", IOMMU_VEVENTQ_ALLOC, 32, 28, 703 },
    { "HW_QUEUE_ALLOC", IOMMU_HW_QUEUE_ALLOC, 40, 40, 703 },
};
enum { NUMBER = sizeof(COMMANDS) / sizeof(COMMANDS[0]) };

/* Calls `what` for every command that this release has. */
static void for_each(void (*what)(const struct command *c))
{
    for (unsigned i = 0; i < NUMBER; i++)
        if (COMMANDS[i].since <= now.host->release)
            what(&COMMANDS[i]);
}

static void unknown_numbers(void)
{
    uint32_t words[64] = { sizeof(words) };
    expect(call(CALL(0xf0), words), ENOTTY, "number 0xf0");
    expect(call(CALL(0x7f), words), ENOTTY, "number 0x7f");
    expect(call(CALL(0xff), words), ENOTTY, "number 0xff");
    expect(call(CALL(0x96), words), ENOTTY, "number 0x96");
}

static void newer_numbers(void)
{
    if (now.host->release >= 703)
        skip("this release has them");
    uint32_t words[64] = { sizeof(words) };
    for (unsigned i = 0; i < NUMBER; i++)
        if (COMMANDS[i].since > now.host->release && !as_7_3())
            expect(call(COMMANDS[i].request, words), ENOTTY, "%s", COMMANDS[i].name);
}

static void no_argument_of(const struct command *c)
{
    expect(call(c->request, NULL), EFAULT, "%s", c->name);
}

static void no_argument(void)
{
    for_each(no_argument_of);
}

static void other_encoding_of(const struct command *c)
{
    uint32_t words[64] = { c->size };
    /* _IOWR with the structure's size. */
    uint32_t request = c->request | 3u << 30 | c->size << 16;
    expect(call(request, words), ENOTTY, "%s", c->name);
    /* The size is read before. */
    expect(call(request, NULL), EFAULT, "%s without an argument", c->name);
}

static void other_encoding(void)
{
    for_each(other_encoding_of);
}

static void too_small_of(const struct command *c)
{
    uint32_t words[64] = { c->least - 1 };
    expect(call(c->request, words), EINVAL, "%s of %u bytes", c->name, c->least - 1);
    words[0] = 0;
    expect(call(c->request, words), EINVAL, "%s of 0 bytes", c->name);
}

static void too_small(void)
{
    for_each(too_small_of);
}

static void trailing_bytes_of(const struct command *c)
{
    uint32_t words[64] = { c->size + 4 };
    words[c->size / 4] = 1;
    expect(call(c->request, words), E2BIG, "%s with a trailing 1", c->name);
    words[0] = c->size + 1;
    expect(call(c->request, words), E2BIG, "%s with one trailing byte", c->name);
}

static void trailing_bytes(void)
{
    for_each(trailing_bytes_of);
    struct { struct ioas_alloc call; uint32_t more; } a = { .call = { .size = sizeof(a) } };
    expect(call(IOMMU_IOAS_ALLOC, &a), 0, "IOAS_ALLOC with trailing zeros");
}

static void end_of_memory_of(const struct command *c)
{
    /* The size can be read, what follows cannot. */
    uint32_t *size = (uint32_t *)(void *)edge_of_memory() - 1;
    *size = c->size;
    expect(call(c->request, size), EFAULT, "%s at the edge of memory", c->name);
}

static void end_of_memory(void)
{
    for_each(end_of_memory_of);
}

static void short_structure(void)
{
    uint32_t ioas = new_ioas();
    /* All behind __reserved reads as 0: no data, though it is there. */
    struct hwpt_alloc a = paging(ioas, 0);
    a.size = offsetof(struct hwpt_alloc, data_type);
    a.data_type = 77;
    a.data_len = 77;
    expect(alloc(&a), 0, "HWPT_ALLOC of 24 bytes");
    struct hw_info info = { .size = offsetof(struct hw_info, out_capabilities),
                            .dev_id = now.dev_id, .out_capabilities = 0x55 };
    expect(call(IOMMU_GET_HW_INFO, &info), 0, "GET_HW_INFO of 32 bytes");
    expect_number(info.out_capabilities, 0x55, "what is behind the 32 bytes");
    expect_number(info.data_type, HW_INFO_TYPE_INTEL_VTD, "out_data_type");
}

static void errors_write_nothing(void)
{
    struct hwpt_alloc a = paging(unused_id(), 0), before = a;
    before.out_hwpt_id = a.out_hwpt_id = 0x1234;
    expect(alloc(&a), EINVAL, "HWPT_ALLOC on nothing");
    if (memcmp(&a, &before, sizeof(a)))
        wrong("HWPT_ALLOC changed its structure");
    struct ioas_unmap u = { .size = sizeof(u), .ioas_id = new_ioas(), .iova = 0x1000,
                            .length = 0x1000 };
    expect(call(IOMMU_IOAS_UNMAP, &u), ENOENT, "IOAS_UNMAP of nothing");
    expect_number(u.length, 0x1000, "length");
}

static void ids(void)
{
    /* The device is object 1 of a new iommufd. */
    expect_number(now.dev_id, 1, "the device's ID");
    uint32_t a = new_ioas(), b = new_ioas(), c = new_ioas();
    expect_number(a, 2, "the second object's ID");
    expect_number(b, 3, "the third object's ID");
    expect_number(c, 4, "the fourth object's ID");
    expect(destroy(a), 0, "DESTROY");
    expect(destroy(b), 0, "DESTROY");
    expect_number(new_ioas(), a, "the ID after two were freed");
    expect_number(new_paging(a, 0), b, "the ID of an HWPT");
    int other = now.host->open_iommu();
    if (other < 0)
        give_up("a second iommufd: %s", strerror(-other));
    struct ioas_alloc alloc_elsewhere = { .size = sizeof(alloc_elsewhere) };
    expect(call_on(other, IOMMU_IOAS_ALLOC, &alloc_elsewhere), 0, "IOAS_ALLOC");
    expect_number(alloc_elsewhere.out_ioas_id, 1, "the first ID of another iommufd");
    close_file(other);
}

static void ids_of_other_kinds(void)
{
    uint32_t ioas = new_ioas(), hwpt = new_paging(ioas, 0);
    int fd;
    uint32_t fault = new_fault_queue(&fd);
    const uint32_t not_an_ioas[] = { 0, now.dev_id, hwpt, fault, unused_id(), 0x7fffffff, UINT32_MAX };
    for (unsigned i = 0; i < sizeof(not_an_ioas) / sizeof(not_an_ioas[0]); i++)
        expect(map(not_an_ioas[i], MAP_FIXED_IOVA | MAP_RW, now.ram, PAGE, RAM_BASE), ENOENT,
               "IOAS_MAP into object %u", not_an_ioas[i]);
    struct hw_info info = { .size = sizeof(info), .dev_id = ioas };
    expect(call(IOMMU_GET_HW_INFO, &info), ENOENT, "GET_HW_INFO of an IOAS");
    close_file(fd);
}

static void destroy_unknown(void)
{
    expect(destroy(unused_id()), ENOENT, "an ID that was freed");
    expect(destroy(0), ENOENT, "0");
    expect(destroy(UINT32_MAX), ENOENT, "2^32 - 1");
}

static void destroy_busy(void)
{
    uint32_t ioas = new_ioas(), hwpt = new_paging(ioas, 0);
    expect(destroy(now.dev_id), EBUSY, "a bound device");
    expect(destroy(ioas), EBUSY, "an IOAS with an HWPT");
    expect(attach(hwpt), 0, "attach");
    expect(destroy(hwpt), EBUSY, "an HWPT with a device");
    expect(detach(), 0, "detach");
    expect(destroy(hwpt), 0, "the HWPT afterwards");
    expect(destroy(ioas), 0, "the IOAS afterwards");
    expect(destroy(ioas), ENOENT, "the IOAS again");
}

static void device_keeps_iommufd(void)
{
    uint32_t ioas = new_ioas(), hwpt = new_paging(ioas, 0);
    expect(attach(hwpt), 0, "attach");
    expect(close_file(now.iommu), 0, "close of the iommufd");
    now.iommu = -1;
    expect(detach(), 0, "detach after the iommufd was closed");
    expect(attach(hwpt), 0, "attach after the iommufd was closed");
}

static void noiommu(void)
{
    need_7_3("IOAS_NOIOMMU_GET_PA");
    struct ioas_get_pa g = { .size = sizeof(g), .ioas_id = new_ioas(), .length = PAGE };
    int result = call(IOMMU_IOAS_NOIOMMU_GET_PA, &g);
    if (result != -EOPNOTSUPP && result != -ENOENT && result != -EPERM)
        wrong("IOAS_NOIOMMU_GET_PA: %d, neither EOPNOTSUPP nor what it is with no-IOMMU mode", result);
}

const struct rule rules_dispatch[] = {
    { "DISPATCH-number", "numbers outside of the table are refused with ENOTTY", unknown_numbers },
    { "DISPATCH-newer", "calls newer than the kernel are refused with ENOTTY", newer_numbers },
    { "DISPATCH-null", "an argument that cannot be read is refused with EFAULT", no_argument },
    { "DISPATCH-encoding", "a number with another size or direction is refused with ENOTTY, after the"
      " size was read", other_encoding },
    { "DISPATCH-small", "a size below the least is refused with EINVAL", too_small },
    { "DISPATCH-trailing", "trailing bytes that are not 0 are refused with E2BIG", trailing_bytes },
    { "DISPATCH-memory", "a structure outside of memory is refused with EFAULT", end_of_memory },
    { "DISPATCH-short", "what a short structure lacks reads as 0 and is not written", short_structure },
    { "DISPATCH-error", "a call that fails writes nothing back", errors_write_nothing },
    { "DISPATCH-noiommu", "IOAS_NOIOMMU_GET_PA is refused with EOPNOTSUPP", noiommu },
    { "ID-lowest", "an object gets the lowest free ID from 1 on; all kinds share them", ids },
    { "ID-kind", "an ID of another kind of object is refused with ENOENT", ids_of_other_kinds },
    { "DESTROY-unknown", "DESTROY of an ID that is not there is refused with ENOENT",
      destroy_unknown },
    { "DESTROY-busy", "DESTROY of what is in use is refused with EBUSY, and so is a bound device's",
      destroy_busy },
    { "ID-close", "a bound device keeps the iommufd's objects when that is closed",
      device_keeps_iommufd },
    { NULL, NULL, NULL },
};
