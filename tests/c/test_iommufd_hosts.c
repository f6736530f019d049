/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Hosts that differ: what an assigned device needs, an older kernel, two kinds of IOMMU; and dirty
 * pages. The kernel is a twin.
 */
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE

/* Registers of a host that has everything (VT-d 11.4.2, 11.4.3), and bits of theirs. */
#define CAP_FS5LP (1ull << 60)
#define CAP_HAS_FS1GP (1ull << 56)
#define ECAP_EAFS (1ull << 34)
#define ECAP_SRS (1ull << 31)
#define ECAP_SSADS (1ull << 45)
#define ECAP_DT (1ull << 2)
#define ECAP_SC (1ull << 7)
#define ECAP_EVERYTHING                                                                      \
    (ECAP_C | ECAP_QI | ECAP_DT | ECAP_IR | ECAP_PT | ECAP_SC | ECAP_NEST | ECAP_PRS |       \
     ECAP_SRS | ECAP_EAFS | 19ull << 35 | ECAP_PASID | ECAP_PDS | ECAP_SMTS | ECAP_SSADS |   \
     ECAP_SSTS | ECAP_FSTS | ECAP_SMPWCS)
#define CAP_EVERYTHING                                                                       \
    (6ull | 0xeull << 8 | 56ull << 16 | 3ull << 34 | 1ull << 39 | 52ull << 48 |             \
     CAP_HAS_FS1GP | CAP_FS5LP)

static struct machine *m;
static struct guest *g;

static void start(uint32_t kernel, const NvtdTwinIommu *iommus, uint32_t count, NvtdConfig offer)
{
    NvtdTwinConfig twin = { .size = sizeof(twin), .kernel = kernel, .iommus = iommus,
                            .iommu_count = count };

    m = machine_new(&twin, offer);
    g = m->g;
}

static int teardown(void **state)
{
    (void)state;
    machine_free(m);
    return 0;
}

static const struct {
    uint64_t cap, ecap;     /* what the host lacks */
    const char *offer, *property;
} LACKING[] = {
    { 0, ECAP_NEST, "NEST", "host=none" },
    { 0, ECAP_SMTS, "SMTS", "host=none" },
    { 0, ECAP_FSTS, "FSTS", "host=none" },
    { CAP_FS5LP, 0, "FS5LP", "aw-bits=48" },
    { CAP_HAS_FS1GP, 0, "FS1GP", "fs1gp=off" },
    { 0, ECAP_SMPWCS, "SMPWCS", "host=none" },
    { 0, ECAP_SRS, "SRS", "srs=off" },
    { 0, ECAP_EAFS, "EAFS", "eafs=off" },
    { 0, ECAP_DT, "DT", "device-iotlb=off" },
    { 0, ECAP_PRS, "PRS", "prs=off" },
    { 0, ECAP_PASID, "PASID", "pasid-bits=0" },
};

/* One host for each thing that the guest is offered and it lacks; the last one lacks nothing. */
static void hosts_that_lack_something(void **state)
{
    const unsigned count = sizeof(LACKING) / sizeof(LACKING[0]);
    NvtdTwinIommu iommus[sizeof(LACKING) / sizeof(LACKING[0]) + 1];
    NvtdConfig offer = machine_offer(NVTD_FEATURE_DEVICE_TLB | NVTD_FEATURE_PAGE_REQUEST |
                                     NVTD_FEATURE_SUPERVISOR_REQUEST |
                                     NVTD_FEATURE_EXTENDED_ACCESSED);

    (void)state;
    offer.address_width = 57;
    for (unsigned i = 0; i <= count; i++) {
        iommus[i].cap = CAP_EVERYTHING & ~(i < count ? LACKING[i].cap : 0);
        iommus[i].ecap = ECAP_EVERYTHING & ~(i < count ? LACKING[i].ecap : 0);
    }
    start(NVTD_TWIN_LINUX_7_3, iommus, count + 1, offer);
    for (unsigned i = 0; i <= count; i++) {
        struct slot *slot;
        NvtdDevice lent;

        m->count = 0;
        slot = machine_plug(m, i);
        lent = machine_lend(m, slot);
        if (i < count) {
            expect_error(nvtd_device_add(g->unit, &lent, &slot->device), -EINVAL,
                         LACKING[i].property);
            expect_error(-EINVAL, -EINVAL, LACKING[i].offer);
            assert_int_equal(machine_stats(m).ioas, 0);
        } else {
            assert_int_equal(nvtd_device_add(g->unit, &lent, &slot->device), 0);
        }
    }
}

/* 48 bits fit every host with first-stage tables. */
static void the_default_width_fits(void **state)
{
    const NvtdTwinIommu narrow = { CAP_EVERYTHING & ~CAP_FS5LP, ECAP_EVERYTHING };
    struct slot *slot;

    (void)state;
    start(NVTD_TWIN_LINUX_7_3, &narrow, 1, machine_offer(0));
    assert_int_equal(CAP_MGAW(read64(g, REG_CAP)), 48);
    slot = machine_add(m);
    machine_boot(m);
    assert_int_equal(machine_info(m, slot).state, NVTD_STATE_NESTED);
}

static void a_device_with_fewer_pasids(void **state)
{
    const NvtdTwinDevice eight = { .size = sizeof(eight), .max_pasid_bits = 8 };
    struct slot *slot;
    NvtdDevice lent;

    (void)state;
    start(NVTD_TWIN_LINUX_7_3, NULL, 0, machine_offer(0));
    slot = machine_plug_as(m, &eight);
    lent = machine_lend(m, slot);
    expect_error(nvtd_device_add(g->unit, &lent, &slot->device), -EINVAL, "pasid-bits=8");
    expect_error(-EINVAL, -EINVAL, "20 bits");
}

/* 6.12 does not attach PASIDs: without them everything else is there. */
static void an_older_kernel(void **state)
{
    NvtdConfig offer = machine_offer(0);
    struct slot *slot;
    NvtdDevice lent;

    (void)state;
    start(NVTD_TWIN_LINUX_6_12, NULL, 0, offer);
    slot = machine_plug(m, 0);
    lent = machine_lend(m, slot);
    expect_error(nvtd_device_add(g->unit, &lent, &slot->device), -EINVAL, "pasid-bits=0");
    machine_free(m);

    offer.pasid_bits = 0;
    start(NVTD_TWIN_LINUX_6_12, NULL, 0, offer);
    (void)machine_add(m);
    slot = machine_add(m);
    machine_boot(m);
    guest_map(g, 0x5000, 0x700000, 1, FS_LEAF);
    machine_context(m, &m->slots[0], 0);
    machine_context(m, slot, 0);
    expect_reaches(m, slot, 0x5678, NO_PASID, 0x700678);
    assert_int_equal(machine_stats(m).nested, 1);
    *guest_entry(g, 0x5000, 1) = 0x800000 | FS_LEAF;
    guest_flush_iova(g, 0x5000, 0);
    expect_reaches(m, slot, 0x5678, NO_PASID, 0x800678);
    machine_refuse(m, CALL_ATTACH, ENOMEM, 0, 1);
    g->pml4 = guest_page(g);
    guest_set_first_stage(g, 0, GUEST_DID, g->pml4);
    guest_flush_pasid(g, 0);
    guest_flush(g);
    assert_int_equal(machine_info(m, slot).state, NVTD_STATE_NESTED);
    assert_int_equal(machine_info(m, &m->slots[0]).state, NVTD_STATE_NESTED);
}

/* A parent is that of one kind of IOMMU: the other kind gets one, over the same IOAS. */
static void two_kinds_of_iommu(void **state)
{
    const NvtdTwinIommu kinds[] = {
        { CAP_EVERYTHING, ECAP_EVERYTHING },
        { CAP_EVERYTHING & ~(1ull << 35), ECAP_EVERYTHING }, /* no 1 GiB second-stage pages */
    };
    struct slot *slots[4];

    (void)state;
    start(NVTD_TWIN_LINUX_7_3, kinds, 2, machine_offer(0));
    for (unsigned i = 0; i < 4; i++) {
        NvtdDevice lent;

        slots[i] = machine_plug(m, i & 1);
        lent = machine_lend(m, slots[i]);
        assert_int_equal(nvtd_device_add(g->unit, &lent, &slots[i]->device), 0);
    }
    assert_int_equal(machine_stats(m).ioas, 1);
    assert_int_equal(machine_stats(m).paging, 2);
    assert_int_equal(machine_stats(m).ever_mapped, GUEST_RAM_SIZE);
    machine_boot(m);
    guest_map(g, 0x5000, 0x700000, 1, FS_LEAF);
    assert_int_equal(machine_stats(m).nested, 2);
    for (unsigned i = 0; i < 4; i++) {
        expect_reaches(m, slots[i], 0x5000, NO_PASID, 0x700000);
        assert_int_equal(machine_info(m, slots[i]).hwpt, machine_info(m, slots[i & 1]).hwpt);
    }
    *guest_entry(g, 0x5000, 1) = 0x800000 | FS_LEAF;
    guest_flush_iova(g, 0x5000, 0);
    for (unsigned i = 0; i < 4; i++) {
        expect_reaches(m, slots[i], 0x5000, NO_PASID, 0x800000);
    }
    guest_command(g, CMD_TE, false);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(machine_info(m, slots[i]).state, NVTD_STATE_PARENT);
    }
    for (unsigned i = 0; i < 4; i++) {
        machine_remove(m, slots[i]);
    }
    assert_int_equal(machine_stats(m).paging, 0);
}

/* Dirty pages. */

static uint64_t dirty(uint64_t gpa, uint64_t page_size, uint32_t flags)
{
    uint64_t bitmap = 0;

    assert_int_equal(nvtd_dirty_bitmap(g->unit, gpa, 64 * page_size, page_size, flags, &bitmap, 1),
                     0);
    return bitmap;
}

static void dirty_pages(void **state)
{
    struct slot *first, *second;
    uint64_t two[2] = { 0, 0 };

    (void)state;
    start(NVTD_TWIN_LINUX_7_3, NULL, 0, machine_offer(0));
    first = machine_add(m);
    second = machine_add(m);
    machine_boot(m);
    guest_map(g, 0x5000, 0x2003000, 1, FS_LEAF);
    assert_int_equal(nvtd_dirty_tracking(g->unit, 1), 0);
    assert_int_equal(dirty(0x2000000, 4096, 0), 0);
    /* Reads make nothing dirty. */
    expect_reaches(m, first, 0x5000, NO_PASID, 0x2003000);
    assert_int_equal(dirty(0x2000000, 4096, 0), 0);
    assert_int_equal(machine_dma(m, first, 0x5000, WRITE, NO_PASID).fault, 0);
    guest_map(g, 0x6000, 0x2009000, 1, FS_LEAF);
    assert_int_equal(machine_dma(m, second, 0x6000, WRITE, NO_PASID).fault, 0);
    assert_int_equal(dirty(0x2000000, 4096, NVTD_DIRTY_KEEP), 1 << 3 | 1 << 9);
    assert_int_equal(dirty(0x2000000, 4096, 0), 1 << 3 | 1 << 9);
    assert_int_equal(dirty(0x2000000, 4096, 0), 0);
    /* Written again: the host forgot that the page was known to be dirty. */
    assert_int_equal(machine_dma(m, first, 0x5000, WRITE, NO_PASID).fault, 0);
    assert_int_equal(dirty(0x2000000, 64 * KIB, 0), 1);
    /* Bits are only set, and only those of the range. */
    assert_int_equal(machine_dma(m, first, 0x5000, WRITE, NO_PASID).fault, 0);
    two[0] = 1ull << 63;
    assert_int_equal(nvtd_dirty_bitmap(g->unit, 0x2000000, 16 * KIB, 4096, 0, two, 2), 0);
    assert_int_equal(two[0], 1ull << 63 | 1 << 3);
    assert_int_equal(two[1], 0);
    /* Tracking begins with every page clean. */
    assert_int_equal(machine_dma(m, first, 0x5000, WRITE, NO_PASID).fault, 0);
    assert_int_equal(nvtd_dirty_tracking(g->unit, 0), 0);
    assert_int_equal(nvtd_dirty_tracking(g->unit, 1), 0);
    assert_int_equal(dirty(0x2000000, 4096, 0), 0);
    /* The unit's reset is nothing to the tracking. */
    assert_int_equal(nvtd_unit_reset(g->unit), 0);
    assert_int_equal(machine_dma(m, first, 0x2005000, WRITE, NO_PASID).fault, 0);
    assert_int_equal(dirty(0x2000000, 4096, 0), 1 << 5);
}

static void dirty_pages_misused(void **state)
{
    uint64_t bitmap[1] = { 0 };
    NvtdUnit *unit;

    (void)state;
    start(NVTD_TWIN_LINUX_7_3, NULL, 0, machine_offer(0));
    (void)machine_add(m);
    unit = g->unit;
    expect_error(nvtd_dirty_tracking(NULL, 1), -EINVAL, "unit");
    expect_error(nvtd_dirty_tracking(unit, 2), -EINVAL, "on is 2");
    assert_int_equal(nvtd_dirty_tracking(unit, 1), 0);
    expect_error(nvtd_dirty_bitmap(NULL, 0, 4096, 4096, 0, bitmap, 1), -EINVAL, "unit");
    expect_error(nvtd_dirty_bitmap(unit, 0, 4096, 4096, 0, NULL, 1), -EINVAL, "bitmap");
    expect_error(nvtd_dirty_bitmap(unit, 0, 4096, 4096, 2, bitmap, 1), -EINVAL, "flags");
    expect_error(nvtd_dirty_bitmap(unit, 0, 0, 4096, 0, bitmap, 1), -EINVAL, "length");
    expect_error(nvtd_dirty_bitmap(unit, 0, 4096, 0, 0, bitmap, 1), -EINVAL, "page_size");
    expect_error(nvtd_dirty_bitmap(unit, 0, 4096, 2048, 0, bitmap, 1), -EINVAL, "page_size");
    expect_error(nvtd_dirty_bitmap(unit, 0, 0x3000, 0x3000, 0, bitmap, 1), -EINVAL, "page_size");
    expect_error(nvtd_dirty_bitmap(unit, 0x800, 4096, 4096, 0, bitmap, 1), -EINVAL, "gpa");
    expect_error(nvtd_dirty_bitmap(unit, 0, 65 * 4096, 4096, 0, bitmap, 1), -EINVAL, "words");
    expect_error(nvtd_dirty_bitmap(unit, 0xfffffffffffff000, 8192, 4096, 0, bitmap, 1), -EINVAL,
                 "");
    machine_refuse(m, CALL_GET_DIRTY, ENOMEM, 0, 1);
    expect_error(nvtd_dirty_bitmap(unit, 0, 4096, 4096, 0, bitmap, 1), -ENOMEM,
                 "IOMMU_HWPT_GET_DIRTY_BITMAP");
    machine_refuse(m, CALL_SET_DIRTY, ENOMEM, 0, 1);
    expect_error(nvtd_dirty_tracking(unit, 0), -ENOMEM, "IOMMU_HWPT_SET_DIRTY_TRACKING");
    assert_int_equal(bitmap[0], 0);
}

static void hosts_that_cannot_track(void **state)
{
    const NvtdTwinIommu plain = { CAP_EVERYTHING, ECAP_EVERYTHING & ~ECAP_SSADS };
    uint64_t bitmap[1] = { 0 };
    struct guest *none = guest_new(NVTD_HOST_NONE, 0);

    (void)state;
    expect_error(nvtd_dirty_tracking(none->unit, 1), -EOPNOTSUPP, "host");
    expect_error(nvtd_dirty_bitmap(none->unit, 0, 4096, 4096, 0, bitmap, 1), -EOPNOTSUPP, "host");
    guest_free(none);
    start(NVTD_TWIN_LINUX_7_3, &plain, 1, machine_offer(0));
    (void)machine_add(m);
    expect_error(nvtd_dirty_tracking(g->unit, 1), -EOPNOTSUPP, "");
    expect_error(nvtd_dirty_bitmap(g->unit, 0, 4096, 4096, 0, bitmap, 1), -EOPNOTSUPP, "");
}

#define TEST(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hosts_that_lack_something),
        TEST(the_default_width_fits),
        TEST(a_device_with_fewer_pasids),
        TEST(an_older_kernel),
        TEST(two_kinds_of_iommu),
        TEST(dirty_pages),
        TEST(dirty_pages_misused),
        TEST(hosts_that_cannot_track),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
