/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The register window: what it reports, and that no access does more than it should.
 */
#include "guest.h"

static struct guest *g;

static int setup(void **state)
{
    (void)state;
    g = guest_new(NVTD_HOST_NONE, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_free(g);
    return 0;
}

static void version_and_capabilities(void **state)
{
    uint64_t cap = read64(g, REG_CAP);
    uint64_t ecap = read64(g, REG_ECAP);
    uint32_t ver = read32(g, REG_VER);

    (void)state;
    assert_in_range(ver >> 4 & 0xf, 1, 15);
    assert_int_equal(ver >> 8, 0);

    assert_int_equal(cap & 7, 6); /* ND: 64K domains */
    assert_int_equal(CAP_CM(cap), 1);
    assert_int_equal(CAP_SAGAW(cap), 0);
    assert_int_equal(CAP_MGAW(cap), 48);
    assert_int_equal(CAP_FS1GP(cap), 1);
    assert_in_range(CAP_FRO(cap), 0xc0, NVTD_MMIO_SIZE - 16);
    assert_true(CAP_FRO(cap) + CAP_NFR(cap) * 16 <= NVTD_MMIO_SIZE);

    assert_true(ecap & ECAP_SMTS);
    assert_true(ecap & ECAP_FSTS);
    assert_true(ecap & ECAP_QI);
    assert_true(ecap & ECAP_C);
    assert_true(ecap & ECAP_SMPWCS);
    assert_true(ecap & ECAP_PT);
    assert_false(ecap & ECAP_SSTS);
    assert_false(ecap & ECAP_NEST);
    assert_false(ecap & ECAP_IR);
    assert_false(ecap & ECAP_PASID);
}

static void no_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static void capabilities_follow_the_configuration(void **state)
{
    NvtdOps ops = { .size = sizeof(ops), .msi = no_msi };
    NvtdConfig config = { .size = sizeof(config) };
    struct guest bare = { 0 };

    (void)state;
    assert_int_equal(nvtd_config_default(&config), 0);
    config.features = NVTD_FEATURE_SCALABLE_MODE | NVTD_FEATURE_FIRST_STAGE;
    assert_int_equal(nvtd_unit_create(&config, &ops, NULL, &bare.unit), 0);
    assert_int_equal(CAP_CM(read64(&bare, REG_CAP)), 0);
    assert_int_equal(CAP_FS1GP(read64(&bare, REG_CAP)), 0);
    assert_false(read64(&bare, REG_ECAP) & ECAP_PT);
    nvtd_unit_destroy(bare.unit);
}

static void reset_values(void **state)
{
    (void)state;
    assert_int_equal(read32(g, REG_GSTS), 0);
    assert_int_equal(read64(g, REG_RTADDR), 0);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(read32(g, REG_FECTL), EVENT_IM);
    assert_int_equal(read32(g, REG_IECTL), EVENT_IM);
    assert_int_equal(read64(g, REG_IQH), 0);
    assert_int_equal(read64(g, REG_IQT), 0);
    assert_int_equal(read64(g, REG_IQERCD), 0);
    assert_int_equal(read32(g, REG_ICS), 0);
}

static void halves_of_a_quadword(void **state)
{
    (void)state;
    assert_int_equal(read32(g, REG_CAP) | (uint64_t)read32(g, REG_CAP + 4) << 32,
                     read64(g, REG_CAP));
    assert_int_equal(read32(g, REG_ECAP) | (uint64_t)read32(g, REG_ECAP + 4) << 32,
                     read64(g, REG_ECAP));
    write32(g, REG_RTADDR + 4, 0x12);
    write32(g, REG_RTADDR, 0x3000 | (uint32_t)RTADDR_SMT);
    assert_int_equal(read64(g, REG_RTADDR), 0x1200003000ull | RTADDR_SMT);
    write32(g, REG_RTADDR, 0x5000);
    assert_int_equal(read64(g, REG_RTADDR), 0x1200005000ull);
}

static void read_only_registers_stay(void **state)
{
    static const uint64_t WIDE[] = { REG_CAP, REG_ECAP, REG_IQH };
    uint32_t ver = read32(g, REG_VER), status = read32(g, REG_GSTS);

    (void)state;
    for (size_t i = 0; i < sizeof(WIDE) / sizeof(*WIDE); i++) {
        uint64_t before = read64(g, WIDE[i]);

        write64(g, WIDE[i], ~before);
        assert_int_equal(read64(g, WIDE[i]), before);
    }
    write32(g, REG_VER, ~ver);
    write32(g, REG_GSTS, ~status);
    assert_int_equal(read32(g, REG_VER), ver);
    assert_int_equal(read32(g, REG_GSTS), status);
}

static void undefined_registers_read_zero(void **state)
{
    uint64_t before = guest_stats(g).mmio_ignored;

    (void)state;
    assert_int_equal(read32(g, 0x4), 0);
    assert_int_equal(read64(g, 0x400), 0);
    assert_int_equal(read32(g, NVTD_MMIO_SIZE - 4), 0);
    write32(g, NVTD_MMIO_SIZE - 4, 1);
    assert_int_equal(read32(g, NVTD_MMIO_SIZE - 4), 0);
    assert_true(guest_stats(g).mmio_ignored > before);
}

/* 8 bytes at a 4-byte register: the neighbour must not see the upper half. */
static void wide_writes_spare_the_neighbour(void **state)
{
    static const uint64_t NARROW[] = { REG_FECTL, REG_FEADDR, REG_IECTL, REG_IEADDR };
    uint64_t ignored;

    (void)state;
    write32(g, REG_FEDATA, 0x1111);
    write32(g, REG_FEUADDR, 0);
    write32(g, REG_FEADDR, 0xfee00000);
    write32(g, REG_IEDATA, 0x3333);
    write32(g, REG_IEUADDR, 0);
    write32(g, REG_IEADDR, 0xfee00000);
    for (size_t i = 0; i < sizeof(NARROW) / sizeof(*NARROW); i++) {
        uint32_t own = read32(g, NARROW[i]), next = read32(g, NARROW[i] + 4);

        ignored = guest_stats(g).mmio_ignored;
        write64(g, NARROW[i], 0x0000777700007770ull);
        assert_int_equal(read32(g, NARROW[i] + 4), next);
        assert_int_equal(read32(g, NARROW[i]), own);
        assert_int_equal(guest_stats(g).mmio_ignored, ignored + 1);
        (void)read64(g, NARROW[i]);
    }
    assert_int_equal(read32(g, REG_FEDATA), 0x1111);
    assert_int_equal(read32(g, REG_IEDATA), 0x3333);
}

static void unaligned_writes_change_nothing(void **state)
{
    static const struct {
        uint64_t offset;
        uint32_t size;
    } ACCESS[] = {
        { REG_RTADDR + 1, 8 }, { REG_RTADDR + 2, 4 }, { REG_RTADDR + 4, 8 }, { REG_RTADDR + 7, 2 },
        { REG_FEDATA + 1, 4 }, { REG_FEDATA + 2, 4 }, { REG_FECTL - 2, 4 },  { REG_IQA + 3, 8 },
    };

    (void)state;
    write64(g, REG_RTADDR, 0x5000);
    write32(g, REG_FEDATA, 0x1111);
    write64(g, REG_IQA, 0x7000);
    for (size_t i = 0; i < sizeof(ACCESS) / sizeof(*ACCESS); i++) {
        uint64_t value, ignored = guest_stats(g).mmio_ignored;

        assert_int_equal(nvtd_mmio_write(g->unit, ACCESS[i].offset, ACCESS[i].size, ~0ull), 0);
        assert_int_equal(guest_stats(g).mmio_ignored, ignored + 1);
        assert_int_equal(nvtd_mmio_read(g->unit, ACCESS[i].offset, ACCESS[i].size, &value), 0);
    }
    assert_int_equal(read64(g, REG_RTADDR), 0x5000);
    assert_int_equal(read32(g, REG_FEDATA), 0x1111);
    assert_int_equal(read32(g, REG_FECTL), EVENT_IM);
    assert_int_equal(read64(g, REG_IQA), 0x7000);
}

static uint64_t random_state = 0x9e3779b97f4a7c15ull;

static uint64_t random64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Whatever a guest writes, wherever: the call returns, and the constants stay. */
static void random_accesses_do_no_harm(void **state)
{
    uint64_t cap = read64(g, REG_CAP), ecap = read64(g, REG_ECAP);

    (void)state;
    for (unsigned i = 0; i < guest_rounds(200000); i++) {
        uint32_t size = 1u << (random64() & 3);
        uint64_t offset = random64() % (random64() & 1 ? 0x100 : NVTD_MMIO_SIZE);
        uint64_t value = random64();

        if (random64() & 1) {
            offset &= ~(uint64_t)(size - 1);
        }
        if (random64() & 1) {
            /* Values that mean something: a page of RAM, a command bit, all ones, nothing. */
            const uint64_t page = GUEST_HEAP | (value & 0xfff), bit = 1ull << (value & 63);
            const uint64_t telling[] = { page, bit, ~0ull, 0 };

            value = telling[random64() & 3];
        }
        if (offset + size > NVTD_MMIO_SIZE) {
            continue;
        }
        if (random64() & 1) {
            assert_int_equal(nvtd_mmio_write(g->unit, offset, size, value), 0);
        } else {
            assert_int_equal(nvtd_mmio_read(g->unit, offset, size, &value), 0);
            assert_true(size == 8 || value >> (8 * size) == 0);
        }
    }
    assert_int_equal(read64(g, REG_CAP), cap);
    assert_int_equal(read64(g, REG_ECAP), ecap);
    assert_int_equal(nvtd_unit_reset(g->unit), 0);
    reset_values(state);
}

static void reset_brings_back_power_on(void **state)
{
    uint64_t zero = 0;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, NVTD_REQUEST_READ, 0x200000);
    expect_fault(g, 0x2000, NVTD_REQUEST_READ, FAULT_FS_PRESENT);
    assert_int_equal(nvtd_unit_reset(g->unit), 0);
    reset_values(state);
    assert_int_equal(read64(g, fault_register(g, 0)), zero);
    assert_int_equal(read64(g, fault_register(g, 0) + 8), zero);
    assert_int_equal(guest_stats(g).translations, 0);
    assert_int_equal(guest_stats(g).descriptors, 0);
    assert_int_equal(guest_device(g, g->device).translations, 0);
    assert_int_equal(guest_device(g, g->device).source_id, GUEST_SID);
    expect_address(g, 0x1000, NVTD_REQUEST_READ, 0x1000);

    /* Devices and RAM stay: the guest boots again. */
    g->gcmd = 0;
    guest_boot(g);
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    expect_address(g, 0x1000, NVTD_REQUEST_READ, 0x300000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(version_and_capabilities, setup, teardown),
        cmocka_unit_test(capabilities_follow_the_configuration),
        cmocka_unit_test_setup_teardown(reset_values, setup, teardown),
        cmocka_unit_test_setup_teardown(halves_of_a_quadword, setup, teardown),
        cmocka_unit_test_setup_teardown(read_only_registers_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(undefined_registers_read_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(wide_writes_spare_the_neighbour, setup, teardown),
        cmocka_unit_test_setup_teardown(unaligned_writes_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(random_accesses_do_no_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_brings_back_power_on, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
