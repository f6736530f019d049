/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Nested translation (PGTT 3). Everything the first stage names, tables and pages, lies BASE higher
 * for it than in RAM: the second stage takes that off again.
 */
#include "guest.h"

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE
#define MAY_READ NVTD_PERMISSION_READ
#define MAY_WRITE NVTD_PERMISSION_WRITE

#define BASE (8 * GIB)

static struct guest *g;
static struct tables first, second;

static int teardown(void **state)
{
    (void)state;
    if (g) {
        guest_free(g);
    }
    g = NULL;
    return 0;
}

static void set_entry(uint64_t bits0, uint64_t bits2)
{
    guest_set_stages(g, 0, &first, &second, bits0, bits2);
    guest_flush(g);
}

/* A page of RAM in the second stage. */
static void map_below(uint64_t gpa, uint64_t bits)
{
    tables_map(g, &second, gpa + BASE, gpa, 1, bits);
}

/* Power off, and on with both stages; every page that the tables of the test may take is there for
 * the first stage. */
static void start_with(const NvtdConfig *config, unsigned first_levels, unsigned second_levels)
{
    (void)teardown(NULL);
    g = guest_started(guest_new_with(config), RTADDR_SMT);
    second = tables_new(g, second_levels, SS_RW);
    for (unsigned i = 0; i < 256; i++) {
        map_below(GUEST_HEAP + i * 4 * KIB, SS_RW);
    }
    first = tables_new(g, first_levels, FS_TABLE);
    first.base = BASE;
    set_entry(0, 0);
}

static void start(uint64_t features, unsigned first_levels, unsigned second_levels)
{
    NvtdConfig config = guest_config(features, 57);

    start_with(&config, first_levels, second_levels);
}

/* 0x5000 goes to `page` of the second stage's addresses. */
static void map_5000(uint64_t page)
{
    tables_map(g, &first, 0x5000, page, 1, FS_LEAF);
}

/* RAM address of the table in which the entry of 0x5000 at this level is. */
static uint64_t table_of_5000(unsigned level)
{
    uint64_t offset = (uint64_t)((uint8_t *)tables_entry(g, &first, 0x5000, level) - g->ram);

    return offset & ~0xfffull;
}

static void two_stages_of_any_depth(void **state)
{
    (void)state;
    for (unsigned levels = 4; levels <= 5; levels++) {
        for (unsigned below = 3; below <= 5; below++) {
            start(FEATURES_ALL, levels, below);
            tables_map(g, &second, 0x700000, 0x123000, 1, SS_RW);
            map_5000(0x700000);
            expect_page(g, 0x5678, READ, 0, 0x123678, 4096, MAY_READ | MAY_WRITE);
            expect_page(g, 0x5678, WRITE, 0, 0x123678, 4096, MAY_READ | MAY_WRITE);
            assert_int_equal(guest_device(g, g->device).pgtt, PGTT_NESTED);
            assert_int_equal(guest_device(g, g->device).table, first.root + BASE);
            expect_recorded(g, 0x6000, READ, 0, FAULT_FS_PRESENT);
            expect_recorded(g, 1ull << 63, READ, 0, FAULT_CANONICAL);
        }
    }
}

/* The second stage is really in the way: without its mapping the same entries lead nowhere. */
static void the_pasid_entry_chooses_the_stages(void **state)
{
    (void)state;
    start(FEATURES_ALL, 4, 4);
    tables_map(g, &second, 0x700000, 0x123000, 1, SS_RW);
    map_5000(0x700000);
    expect_address(g, 0x5000, READ, 0x123000);
    guest_set_stages(g, 0, NULL, &second, 0, 0);
    guest_flush(g);
    expect_address(g, 0x700000, READ, 0x123000);
    guest_set_stages(g, 0, &first, NULL, 0, 0);
    guest_flush(g);
    expect_recorded(g, 0x5000, READ, 0, FAULT_PML4_ACCESS);

    start(FEATURES_ALL & ~(uint64_t)NVTD_FEATURE_NESTED, 4, 4);
    expect_recorded(g, 0x5000, READ, 0, FAULT_PASID_ENTRY_INVALID);
}

static void the_smaller_page_counts(void **state)
{
    static const uint64_t SIZE[] = { 0, 4 * KIB, 2 * MIB, 1 * GIB };

    (void)state;
    for (unsigned above = 1; above <= 3; above++) {
        for (unsigned below = 1; below <= 3; below++) {
            uint64_t smaller = above < below ? SIZE[above] : SIZE[below];

            start(FEATURES_ALL, 4, 4);
            tables_map(g, &first, 64 * GIB, 16 * GIB, above, FS_LEAF);
            tables_map(g, &second, 16 * GIB, 1 * GIB, below, SS_RW);
            expect_page(g, 64 * GIB + 0x678, WRITE, 0, 1 * GIB + 0x678, smaller,
                        MAY_READ | MAY_WRITE);
        }
    }
}

static void both_stages_must_permit(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool above = i & 1, below = i & 2;
        uint32_t permissions = MAY_READ | (above && below ? MAY_WRITE : 0u);

        start(FEATURES_ALL, 4, 4);
        tables_map(g, &first, 0x5000, 0x700000, 1, above ? FS_LEAF : FS_LEAF & ~FS_W);
        tables_map(g, &second, 0x700000, 0x123000, 1, below ? SS_RW : SS_R);
        expect_page(g, 0x5000, READ, 0, 0x123000, 4096, permissions);
        if (!above) {
            expect_recorded(g, 0x5000, WRITE, 0, FAULT_NO_WRITE);
        } else if (!below) {
            expect_recorded(g, 0x5000, WRITE, 0, FAULT_SS_PERMISSION);
        }
    }
    start(FEATURES_ALL, 4, 4);
    map_5000(0x700000);
    expect_recorded(g, 0x5000, READ, 0, FAULT_SS_PERMISSION);
    tables_map(g, &second, 0x700000, 0x123000, 1, SS_W);
    expect_recorded(g, 0x5000, READ, 0, FAULT_SS_PERMISSION);
    expect_page(g, 0x5000, WRITE, 0, 0x123000, 4096, MAY_WRITE);
}

static void addresses_beyond_the_second_stage(void **state)
{
    const uint64_t beyond = 1ull << 39;

    (void)state;
    start(FEATURES_ALL, 4, 3);
    map_5000(beyond);
    expect_recorded(g, 0x5000, READ, 0, FAULT_NESTED_BEYOND);
    *tables_entry(g, &first, 0x5000, 3) |= beyond;
    expect_recorded(g, 0x5000, READ, 0, FAULT_NESTED_TABLE_BEYOND);
    first.base |= beyond;
    set_entry(0, 0);
    expect_recorded(g, 0x5000, READ, 0, FAULT_NESTED_TABLE_BEYOND);
}

/* What the second stage says about the first stage's tables. */
static void tables_that_the_second_stage_denies(void **state)
{
    (void)state;
    for (unsigned level = 1; level <= 4; level++) {
        start(FEATURES_ALL & ~(uint64_t)NVTD_FEATURE_SNOOP_CONTROL, 4, 4);
        map_5000(0x700000);
        tables_map(g, &second, 0x700000, 0x123000, 1, SS_RW);
        map_below(table_of_5000(level), SS_W);
        expect_recorded(g, 0x5000, READ, 0,
                        level == 4 ? FAULT_NESTED_TOP_DENIED : FAULT_NESTED_TABLE_DENIED);
        map_below(table_of_5000(level), 0);
        expect_recorded(g, 0x5000, WRITE, 0,
                        level == 4 ? FAULT_NESTED_TOP_DENIED : FAULT_NESTED_TABLE_DENIED);
        /* To be read only: the accessed bit cannot be set. */
        map_below(table_of_5000(level), SS_R);
        *tables_entry(g, &first, 0x5000, level) &= ~FS_A;
        expect_recorded(g, 0x5000, READ, 0, FAULT_NESTED_MARK_DENIED);
        *tables_entry(g, &first, 0x5000, level) |= FS_A;
        expect_address(g, 0x5000, READ, 0x123000);
        map_below(table_of_5000(level), SS_RW | SS_SNP);
        guest_flush(g);
        expect_recorded(g, 0x5000, READ, 0, FAULT_SS_RESERVED);
        /* Found, but not in RAM. */
        tables_map(g, &second, table_of_5000(level) + BASE, NOWHERE, 1, SS_RW);
        expect_recorded(g, 0x5000, READ, 0, level == 4 ? FAULT_PML4_ACCESS : FAULT_FS_ACCESS);
    }
}

static void second_stage_tables_outside_ram(void **state)
{
    (void)state;
    start(FEATURES_ALL, 4, 4);
    map_5000(0x700000);
    *tables_entry(g, &second, 0x700000, 2) = NOWHERE | SS_RW;
    expect_recorded(g, 0x5000, READ, 0, FAULT_SS_ACCESS);
    second.root = NOWHERE;
    set_entry(0, 0);
    expect_recorded(g, 0x5000, READ, 0, FAULT_SS_TOP_ACCESS);
}

static void results_in_the_interrupt_range(void **state)
{
    (void)state;
    start(FEATURES_ALL, 4, 4);
    map_5000(0xfee00000);
    tables_map(g, &second, 0xfee00000, 0x123000, 1, SS_RW);
    expect_address(g, 0x5000, WRITE, 0x123000);
    tables_map(g, &second, 0xfee00000, 0xfee03000, 1, SS_RW);
    guest_flush(g);
    expect_recorded(g, 0x5000, WRITE, 0, FAULT_INTERRUPT);
}

static void accessed_and_dirty_in_both(void **state)
{
    (void)state;
    start(FEATURES_ALL, 4, 4);
    set_entry(PASID_SSADE, 0);
    tables_map(g, &first, 0x5000, 0x700000, 1, FS_P | FS_W | FS_U);
    tables_map(g, &second, 0x700000, 0x123000, 1, SS_RW);
    expect_page(g, 0x5000, READ, 0, 0x123000, 4096, MAY_READ);
    assert_int_equal(*tables_entry(g, &first, 0x5000, 1) & (FS_A | FS_D), FS_A);
    assert_int_equal(*tables_entry(g, &second, 0x700000, 1) & (SS_A | SS_D), SS_A);
    /* The tables in which bits were set are written themselves. */
    assert_int_equal(*tables_entry(g, &second, table_of_5000(1) + BASE, 1) & (SS_A | SS_D),
                     SS_A | SS_D);
    expect_page(g, 0x5000, WRITE, 0, 0x123000, 4096, MAY_READ | MAY_WRITE);
    assert_int_equal(*tables_entry(g, &first, 0x5000, 1) & (FS_A | FS_D), FS_A | FS_D);
    assert_int_equal(*tables_entry(g, &second, 0x700000, 1) & (SS_A | SS_D), SS_A | SS_D);
}

/* SSEE: the second stage has a say in execution. */
static void execution_through_both(void **state)
{
    const uint32_t fetch = READ | NVTD_REQUEST_EXECUTE | NVTD_REQUEST_PASID;

    (void)state;
    start(FEATURES_ALL, 4, 4);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    set_entry(0, PASID_ERE | PASID_NXE);
    map_5000(0x700000);
    tables_map(g, &second, 0x700000, 0x123000, 1, SS_RW);
    assert_true(guest_ask(g, g->device, 0x5000, fetch, 0).permissions & NVTD_PERMISSION_EXECUTE);
    set_entry(PASID_SSEE, PASID_ERE | PASID_NXE);
    expect_recorded(g, 0x5000, fetch, 0, FAULT_SS_PERMISSION);
    expect_address(g, 0x5000, WRITE, 0x123000);
    for (unsigned level = 1; level <= 4; level++) {
        *tables_entry(g, &second, 0x700000, level) |= SS_X;
    }
    assert_true(guest_ask(g, g->device, 0x5000, fetch, 0).permissions & NVTD_PERMISSION_EXECUTE);
    *tables_entry(g, &first, 0x5000, 1) |= FS_XD;
    guest_flush(g);
    expect_recorded(g, 0x5000, fetch, 0, FAULT_NO_EXECUTE);
}

/* What a walk costs: with 4 levels over 4, each of the 4 tables and the page take a walk of 4. */
static void walks_are_counted(void **state)
{
    NvtdStats before, after;

    (void)state;
    start(FEATURES_ALL, 4, 4);
    map_5000(0x700000);
    tables_map(g, &second, 0x700000, 0x123000, 1, SS_RW);
    before = guest_stats(g);
    expect_address(g, 0x5000, READ, 0x123000);
    after = guest_stats(g);
    assert_int_equal(after.walks - before.walks, 1);
    assert_int_equal(after.nested_walks - before.nested_walks, 1);
    /* To set the accessed bits of the three entries above the page's, which has its own, their
     * tables are found once more, for writing. */
    assert_int_equal(after.table_updates - before.table_updates, 3);
    assert_int_equal(after.second_stage_walks - before.second_stage_walks, 4 + 1 + 3);
    assert_int_equal(after.table_reads - before.table_reads, 4 + 4 * (4 + 1 + 3));

    guest_flush(g);
    before = guest_stats(g);
    expect_address(g, 0x5000, READ, 0x123000);
    after = guest_stats(g);
    assert_int_equal(after.table_updates, before.table_updates);
    assert_int_equal(after.second_stage_walks - before.second_stage_walks, 4 + 1);
    assert_int_equal(after.table_reads - before.table_reads, 4 + 4 * (4 + 1));

    expect_address(g, 0x5678, READ, 0x123678);
    before = guest_stats(g);
    assert_int_equal(before.cache_hits - after.cache_hits, 1);
    assert_int_equal(before.table_reads, after.table_reads);
    (void)guest_ask(g, g->device, 0x5000, READ | NVTD_REQUEST_DEBUG, 0);
    assert_int_equal(guest_stats(g).table_reads, before.table_reads);
}

/* A guest that changes tables and says nothing: the oracle sees each use, whichever stage it was. */
static void the_oracle_sees_stale_uses(void **state)
{
    NvtdConfig config = guest_config(FEATURES_ALL, 57);

    (void)state;
    for (uint32_t checks = 0; checks <= NVTD_CHECK_CACHED_USES; checks++) {
        config.checks = checks;
        start_with(&config, 4, 4);
        map_5000(0x700000);
        tables_map(g, &second, 0x700000, 0x123000, 1, SS_RW);
        expect_address(g, 0x5000, READ, 0x123000);
        expect_address(g, 0x5000, READ, 0x123000);
        assert_int_equal(guest_stats(g).stale_uses, 0);

        map_5000(0x701000);
        tables_map(g, &second, 0x701000, 0x124000, 1, SS_RW);
        expect_address(g, 0x5000, READ, 0x123000);
        assert_int_equal(guest_stats(g).stale_uses, checks);
        assert_int_equal(guest_device(g, g->device).stale_uses, checks);
        guest_flush_iova(g, 0x5000, 0);
        expect_address(g, 0x5000, READ, 0x124000);
        assert_int_equal(guest_stats(g).stale_uses, checks);

        tables_map(g, &second, 0x701000, 0x124000, 1, 0);
        expect_address(g, 0x5000, READ, 0x124000);
        assert_int_equal(guest_stats(g).stale_uses, 2 * checks);
        guest_flush(g);
        expect_recorded(g, 0x5000, READ, 0, FAULT_SS_PERMISSION);

        /* More may be allowed than was, without a word. */
        tables_map(g, &second, 0x701000, 0x124000, 1, SS_R);
        expect_address(g, 0x5000, READ, 0x124000);
        tables_map(g, &second, 0x701000, 0x124000, 1, SS_RW);
        expect_address(g, 0x5000, READ, 0x124000);
        assert_int_equal(guest_stats(g).stale_uses, 2 * checks);
    }
}

#define TEST(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_stages_of_any_depth),
        TEST(the_pasid_entry_chooses_the_stages),
        TEST(the_smaller_page_counts),
        TEST(both_stages_must_permit),
        TEST(addresses_beyond_the_second_stage),
        TEST(tables_that_the_second_stage_denies),
        TEST(second_stage_tables_outside_ram),
        TEST(results_in_the_interrupt_range),
        TEST(accessed_and_dirty_in_both),
        TEST(execution_through_both),
        TEST(walks_are_counted),
        TEST(the_oracle_sees_stale_uses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
