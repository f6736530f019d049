/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Dumps and mappings through the C interface; what they say is tested in tests/dump.rs and
 * tests/mappings.rs.
 */
#include "guest.h"

#include <errno.h>
#include <string.h>

static struct guest *g;

struct taken {
    unsigned lines;
    char first[128];
    char last[128];
};

static void take(void *opaque, const char *text)
{
    struct taken *taken = opaque;

    assert_null(strchr(text, '\n'));
    if (!taken->lines++) {
        strncpy(taken->first, text, sizeof(taken->first) - 1);
    }
    strncpy(taken->last, text, sizeof(taken->last) - 1);
}

static int setup(void **state)
{
    (void)state;
    g = guest_new(NVTD_HOST_NONE, 0);
    guest_boot(g);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_free(g);
    return 0;
}

static struct taken dump(NvtdDump what)
{
    struct taken taken = { 0 };

    what.size = sizeof(what);
    assert_int_equal(nvtd_dump(g->unit, &what, take, &taken), 0);
    return taken;
}

static void refuse(NvtdDump what, int expected, const char *named)
{
    struct taken taken = { 0 };

    what.size = sizeof(what);
    expect_error(nvtd_dump(g->unit, &what, take, &taken), expected, named);
    assert_int_equal(taken.lines, 0);
}

static void each_kind_gives_its_lines(void **state)
{
    struct taken taken = dump((NvtdDump){ .kind = NVTD_DUMP_REGISTERS, .address = 0xfed90000 });

    (void)state;
    assert_string_equal(taken.first, "IOMMU: dmar0 Register Base Address: fed90000");
    assert_string_equal(taken.last, "");
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_QUEUE });
    assert_string_equal(taken.first, "Invalidation queue on IOMMU: dmar0");
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_INTERRUPTS });
    assert_string_equal(taken.first, "****");
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_TABLES });
    assert_int_equal(taken.lines, 4);
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_TABLES, .device = g->device });
    assert_int_equal(taken.lines, 4);

    guest_map(g, 0x5000, 0x300000, 1, FS_LEAF);
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_WALK, .device = g->device, .address = 0x5000 });
    assert_int_equal(taken.lines, 1 + 4 + 4 + 2);
    assert_string_equal(taken.last,
                        "write: goes to 0x300000, page of 0x1000 bytes, may read write execute");
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_WALK, .device = g->device, .flags = NVTD_DUMP_PASID,
                             .pasid = 3, .address = 0x5000 });
    assert_string_equal(taken.last, "refused: fault 0x45 pasid_disabled");
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_MAPPINGS, .device = g->device });
    assert_int_equal(taken.lines, 3);
    assert_memory_equal(taken.last, "0x0000000000005 |", 17);
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_MAPPINGS, .device = g->device, .address = 0x5fff,
                             .last = 0x6000 });
    assert_int_equal(taken.lines, 3);
    taken = dump((NvtdDump){ .kind = NVTD_DUMP_MAPPINGS, .device = g->device, .address = 0x6000,
                             .last = 0x6000 });
    assert_int_equal(taken.lines, 2);
}

static void misuse_is_refused(void **state)
{
    NvtdDump what = { .size = sizeof(what), .kind = NVTD_DUMP_QUEUE };
    struct taken taken = { 0 };

    (void)state;
    expect_error(nvtd_dump(NULL, &what, take, &taken), -EINVAL, "unit");
    expect_error(nvtd_dump(g->unit, NULL, take, &taken), -EINVAL, "what");
    expect_error(nvtd_dump(g->unit, &what, NULL, &taken), -EINVAL, "line");
    what.size = 1;
    expect_error(nvtd_dump(g->unit, &what, take, &taken), -EINVAL, "what->size");
    refuse((NvtdDump){ .kind = 0 }, -EINVAL, "what->kind");
    refuse((NvtdDump){ .kind = 77 }, -EINVAL, "what->kind");
    refuse((NvtdDump){ .kind = NVTD_DUMP_REGISTERS, .last = 1 }, -EINVAL, "what->last");
    refuse((NvtdDump){ .kind = NVTD_DUMP_QUEUE, .device = 1 }, -EINVAL, "what->device");
    refuse((NvtdDump){ .kind = NVTD_DUMP_INTERRUPTS, .pasid = 1 }, -EINVAL, "what->pasid");
    refuse((NvtdDump){ .kind = NVTD_DUMP_TABLES, .flags = 1 }, -EINVAL, "what->flags");
    refuse((NvtdDump){ .kind = NVTD_DUMP_TABLES, .device = 77 }, -ENOENT, "77");
    refuse((NvtdDump){ .kind = NVTD_DUMP_WALK }, -ENOENT, "device 0");
    refuse((NvtdDump){ .kind = NVTD_DUMP_WALK, .last = 1 }, -EINVAL, "what->last");
    refuse((NvtdDump){ .kind = NVTD_DUMP_WALK, .flags = 2 }, -EINVAL, "what->flags");
    refuse((NvtdDump){ .kind = NVTD_DUMP_WALK, .pasid = 1 }, -EINVAL, "pasid");
    refuse((NvtdDump){ .kind = NVTD_DUMP_MAPPINGS, .flags = NVTD_DUMP_PASID, .pasid = 1 << 20 },
           -EINVAL, "20 bits");
}

struct mapped {
    unsigned count;
    int answer;
    NvtdMapping last;
};

static int take_mapping(void *opaque, const NvtdMapping *mapping)
{
    struct mapped *mapped = opaque;

    mapped->count++;
    mapped->last = *mapping;
    return mapped->answer;
}

static void mappings_are_given(void **state)
{
    struct mapped mapped = { 0 };

    (void)state;
    guest_map(g, 0x5000, 0x300000, 1, FS_LEAF);
    guest_map(g, 0x6000, 0x301000, 1, FS_LEAF);
    guest_map(g, 0x8000, 0x302000, 1, FS_P | FS_U);
    assert_int_equal(nvtd_for_each_mapping(g->unit, g->device, 0, 0, 0, UINT64_MAX, 0,
                                           take_mapping, &mapped), 0);
    assert_int_equal(mapped.count, 2);
    assert_int_equal(mapped.last.size, sizeof(NvtdMapping));
    assert_int_equal(mapped.last.address, 0x8000);
    assert_int_equal(mapped.last.translated, 0x302000);
    assert_int_equal(mapped.last.length, 0x1000);
    assert_int_equal(mapped.last.permissions, NVTD_PERMISSION_READ | NVTD_PERMISSION_EXECUTE);
    assert_int_equal(mapped.last.reserved, 0);

    mapped.answer = -EINTR;
    assert_int_equal(nvtd_for_each_mapping(g->unit, g->device, 0, 0, 0, UINT64_MAX, 0,
                                           take_mapping, &mapped), -EINTR);
    assert_int_equal(mapped.count, 3);
    assert_int_equal(mapped.last.length, 0x2000);
}

static void misused_mappings_are_refused(void **state)
{
    struct mapped mapped = { 0 };
    NvtdUnit *unit = g->unit;
    uint32_t device = g->device;

    (void)state;
    guest_map(g, 0x5000, 0x300000, 1, FS_LEAF);
    guest_map(g, 0x7000, 0x300000, 1, FS_LEAF);
    expect_error(nvtd_for_each_mapping(NULL, device, 0, 0, 0, 1, 0, take_mapping, &mapped),
                 -EINVAL, "unit");
    expect_error(nvtd_for_each_mapping(unit, device, 0, 0, 0, 1, 0, NULL, &mapped), -EINVAL,
                 "mapping is NULL");
    expect_error(nvtd_for_each_mapping(unit, 77, 0, 0, 0, 1, 0, take_mapping, &mapped), -ENOENT,
                 "77");
    expect_error(nvtd_for_each_mapping(unit, device, 2, 0, 0, 1, 0, take_mapping, &mapped), -EINVAL,
                 "flags");
    expect_error(nvtd_for_each_mapping(unit, device, 0, 5, 0, 1, 0, take_mapping, &mapped), -EINVAL,
                 "pasid is 5");
    expect_error(nvtd_for_each_mapping(unit, device, 0, 0, 2, 1, 0, take_mapping, &mapped), -EINVAL,
                 "beyond the last");
    assert_int_equal(mapped.count, 0);
    expect_error(nvtd_for_each_mapping(unit, device, 0, 0, 0, UINT64_MAX, 1, take_mapping, &mapped),
                 -E2BIG, "more than 1 mappings");
    assert_int_equal(mapped.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_kind_gives_its_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(misuse_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(mappings_are_given, setup, teardown),
        cmocka_unit_test_setup_teardown(misused_mappings_are_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
