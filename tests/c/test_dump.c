/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Dumps through the C interface; their text is tested in tests/dump.rs.
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
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_kind_gives_its_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(misuse_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
