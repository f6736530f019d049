/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Scalable mode with second-stage tables alone (PGTT 2).
 */
#include "guest.h"

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE
#define MAY_READ NVTD_PERMISSION_READ
#define MAY_WRITE NVTD_PERMISSION_WRITE

static struct guest *g;
static struct tables tables;

static int teardown(void **state)
{
    (void)state;
    if (g) {
        guest_free(g);
    }
    g = NULL;
    return 0;
}

static void set_entry(uint64_t bits)
{
    guest_set_stages(g, 0, NULL, &tables, bits, 0);
    guest_flush(g);
}

/* Power off, and on with second-stage tables for the device. */
static void start(uint64_t features, uint32_t address_width, unsigned levels)
{
    (void)teardown(NULL);
    g = guest_start(features, address_width, RTADDR_SMT);
    tables = tables_new(g, levels, SS_RW);
    set_entry(0);
}

static uint64_t without(uint64_t feature)
{
    return FEATURES_ALL & ~feature;
}

static void tables_of_3_to_5_levels(void **state)
{
    (void)state;
    for (unsigned levels = 3; levels <= 5; levels++) {
        uint64_t end = 1ull << (12 + 9 * levels);

        start(FEATURES_ALL, 57, levels);
        tables_map(g, &tables, end - 0x1000, 0x123000, 1, SS_RW);
        tables_map(g, &tables, end - 4 * MIB, 256 * MIB, 2, SS_RW);
        tables_map(g, &tables, end - 2 * GIB, 1 * GIB, 3, SS_RW);
        expect_page(g, end - 8, READ, 0, 0x123ff8, 4096, MAY_READ | MAY_WRITE);
        expect_page(g, end - 4 * MIB + 0x12345, WRITE, 0, 256 * MIB + 0x12345, 2 * MIB,
                    MAY_READ | MAY_WRITE);
        expect_page(g, end - 2 * GIB + 0x12345678, READ | WRITE, 0, 1 * GIB + 0x12345678, 1 * GIB,
                    MAY_READ | MAY_WRITE);
        assert_int_equal(guest_device(g, g->device).pgtt, PGTT_SECOND);
        assert_int_equal(guest_device(g, g->device).table, tables.root);
        expect_recorded(g, end, READ, 0, FAULT_BEYOND);
        expect_recorded(g, 1ull << 63, WRITE, 0, FAULT_BEYOND);
    }
}

static void widths_not_reported(void **state)
{
    static const unsigned WIDTHS[] = { 0, 3, 4, 7 };

    (void)state;
    start(FEATURES_ALL, 48, 4);
    for (size_t i = 0; i < sizeof(WIDTHS) / sizeof(*WIDTHS); i++) {
        guest_set_pasid_entry(g, 0,
                              PRESENT | PASID_PGTT(PGTT_SECOND) | PASID_AW(WIDTHS[i]) | tables.root,
                              GUEST_DID | PASID_PWSNP, 0);
        guest_flush(g);
        expect_recorded(g, 0x1000, READ, 0, FAULT_PASID_ENTRY_INVALID);
    }
    start(FEATURES_ALL & ~(uint64_t)(NVTD_FEATURE_FIRST_STAGE | NVTD_FEATURE_NESTED |
                                     NVTD_FEATURE_EXTENDED_ACCESSED |
                                     NVTD_FEATURE_SUPERVISOR_REQUEST |
                                     NVTD_FEATURE_EXECUTE_REQUEST),
          39, 4);
    expect_recorded(g, 0x1000, READ, 0, FAULT_PASID_ENTRY_INVALID);
    tables = tables_new(g, 3, SS_RW);
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW);
    set_entry(0);
    expect_address(g, 0x1000, READ, 0x101000);
}

/* One reason for what is not there, not readable and not writable. */
static void permissions(void **state)
{
    (void)state;
    start(FEATURES_ALL, 48, 4);
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_R);
    tables_map(g, &tables, 0x2000, 0x102000, 1, SS_W);
    tables_map(g, &tables, 0x3000, 0x103000, 1, 0);
    expect_page(g, 0x1000, READ, 0, 0x101000, 4096, MAY_READ);
    expect_page(g, 0x2000, WRITE, 0, 0x102000, 4096, MAY_WRITE);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_SS_PERMISSION);
    expect_recorded(g, 0x1000, READ | WRITE, 0, FAULT_SS_PERMISSION);
    expect_recorded(g, 0x2000, READ, 0, FAULT_SS_PERMISSION);
    expect_recorded(g, 0x2000, READ | WRITE, 0, FAULT_SS_PERMISSION);
    expect_recorded(g, 0x3000, READ, 0, FAULT_SS_PERMISSION);
    expect_recorded(g, 0x3000, WRITE, 0, FAULT_SS_PERMISSION);
    for (unsigned level = 2; level <= 4; level++) {
        uint64_t *entry = tables_entry(g, &tables, 0x1000, level);

        *entry &= ~SS_R;
        guest_flush(g);
        expect_recorded(g, 0x1000, READ, 0, FAULT_SS_PERMISSION);
        expect_page(g, 0x2000, WRITE, 0, 0x102000, 4096, MAY_WRITE);
        *entry = (*entry | SS_R) & ~SS_W;
        guest_flush(g);
        expect_recorded(g, 0x2000, WRITE, 0, FAULT_SS_PERMISSION);
        expect_page(g, 0x1000, READ, 0, 0x101000, 4096, MAY_READ);
        *entry &= ~SS_RW;
        guest_flush(g);
        expect_recorded(g, 0x1000, READ, 0, FAULT_SS_PERMISSION);
        *entry |= SS_RW;
        guest_flush(g);
    }
}

static void page_sizes_are_capabilities(void **state)
{
    (void)state;
    start(without(NVTD_FEATURE_SECOND_STAGE_2M), 48, 4);
    tables_map(g, &tables, 2 * MIB, 2 * MIB, 2, SS_RW);
    tables_map(g, &tables, 1 * GIB, 1 * GIB, 3, SS_RW);
    expect_recorded(g, 2 * MIB, READ, 0, FAULT_SS_RESERVED);
    expect_page(g, 1 * GIB, READ, 0, 1 * GIB, 1 * GIB, MAY_READ | MAY_WRITE);
    start(without(NVTD_FEATURE_SECOND_STAGE_1G), 48, 4);
    tables_map(g, &tables, 2 * MIB, 2 * MIB, 2, SS_RW);
    tables_map(g, &tables, 1 * GIB, 1 * GIB, 3, SS_RW);
    tables_map(g, &tables, 1ull << 39, 0, 4, SS_RW);
    expect_page(g, 2 * MIB, READ, 0, 2 * MIB, 2 * MIB, MAY_READ | MAY_WRITE);
    expect_recorded(g, 1 * GIB, READ, 0, FAULT_SS_RESERVED);
    expect_recorded(g, 1ull << 39, READ, 0, FAULT_SS_RESERVED);
    /* Below the size of the page the address is reserved. */
    start(FEATURES_ALL, 48, 4);
    tables_map(g, &tables, 2 * MIB, 2 * MIB + 0x1000, 2, SS_RW);
    tables_map(g, &tables, 1 * GIB, 1 * GIB + 2 * MIB, 3, SS_RW);
    tables_map(g, &tables, 0x1000, 1ull << 48, 1, SS_RW);
    expect_recorded(g, 2 * MIB, READ, 0, FAULT_SS_RESERVED);
    expect_recorded(g, 1 * GIB, READ, 0, FAULT_SS_RESERVED);
    expect_recorded(g, 0x1000, READ, 0, FAULT_SS_RESERVED);
}

static void snoop_and_transient_mapping(void **state)
{
    static const uint64_t BITS[] = { SS_SNP, SS_TM };
    const uint64_t no_device_tlb = FEATURES_ALL & ~(uint64_t)(NVTD_FEATURE_DEVICE_TLB |
                                                              NVTD_FEATURE_PAGE_REQUEST);

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t *above;

        start(i ? no_device_tlb : without(NVTD_FEATURE_SNOOP_CONTROL), 48, 4);
        tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW | BITS[i]);
        tables_map(g, &tables, 0x2000, 0x101000, 1, SS_RW | BITS[!i]);
        tables_map(g, &tables, 2 * MIB, 2 * MIB, 2, SS_RW | BITS[i]);
        expect_recorded(g, 0x1000, READ, 0, FAULT_SS_RESERVED);
        expect_recorded(g, 2 * MIB, READ, 0, FAULT_SS_RESERVED);
        expect_address(g, 0x2000, READ, 0x101000);

        start(FEATURES_ALL, 48, 4);
        tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW | BITS[i]);
        tables_map(g, &tables, 2 * MIB, 2 * MIB, 2, SS_RW | BITS[i]);
        expect_address(g, 0x1000, READ, 0x101000);
        expect_address(g, 2 * MIB, READ, 2 * MIB);
        tables_map(g, &tables, 3 * GIB, 0x101000, 1, SS_RW);
        above = tables_entry(g, &tables, 3 * GIB, 2);
        *above |= BITS[i];
        expect_recorded(g, 3 * GIB, READ, 0, FAULT_SS_RESERVED);
        *above &= ~BITS[i];
        expect_address(g, 3 * GIB, READ, 0x101000);
    }
}

static void tables_outside_ram(void **state)
{
    (void)state;
    start(FEATURES_ALL, 48, 4);
    *tables_entry(g, &tables, 0x1000, 3) = NOWHERE | SS_RW;
    expect_recorded(g, 0x1000, READ, 0, FAULT_SS_ACCESS);
    tables.root = NOWHERE;
    set_entry(0);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_SS_TOP_ACCESS);
    tables.root = 1ull << 48;
    set_entry(0);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_PASID_ENTRY_RESERVED);
}

static void accessed_and_dirty(void **state)
{
    (void)state;
    start(FEATURES_ALL, 48, 4);
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW);
    tables_map(g, &tables, 2 * MIB, 4 * MIB, 2, SS_RW);
    expect_page(g, 0x1000, WRITE, 0, 0x101000, 4096, MAY_READ | MAY_WRITE);
    assert_int_equal(*tables_entry(g, &tables, 0x1000, 1), 0x101000 | SS_RW);

    set_entry(PASID_SSADE);
    expect_page(g, 0x1000, READ, 0, 0x101000, 4096, MAY_READ);
    for (unsigned level = 1; level <= 4; level++) {
        assert_int_equal(*tables_entry(g, &tables, 0x1000, level) & (SS_A | SS_D), SS_A);
    }
    expect_page(g, 0x1000, WRITE, 0, 0x101000, 4096, MAY_READ | MAY_WRITE);
    assert_int_equal(*tables_entry(g, &tables, 0x1000, 1) & (SS_A | SS_D), SS_A | SS_D);
    assert_int_equal(*tables_entry(g, &tables, 0x1000, 2) & SS_D, 0);
    expect_page(g, 2 * MIB, WRITE, 0, 4 * MIB, 2 * MIB, MAY_READ | MAY_WRITE);
    assert_int_equal(*tables_entry(g, &tables, 2 * MIB, 2) & (SS_A | SS_D), SS_A | SS_D);
    /* A look sets nothing. */
    tables_map(g, &tables, 0x3000, 0x103000, 1, SS_RW);
    expect_address(g, 0x3000, READ | WRITE | NVTD_REQUEST_DEBUG, 0x103000);
    assert_int_equal(*tables_entry(g, &tables, 0x3000, 1), 0x103000 | SS_RW);
    /* Nor does a request that is refused. */
    tables_map(g, &tables, 0x4000, 0x103000, 1, SS_R);
    expect_recorded(g, 0x4000, WRITE, 0, FAULT_SS_PERMISSION);
    assert_int_equal(*tables_entry(g, &tables, 0x4000, 1), 0x103000 | SS_R);

    start(without(NVTD_FEATURE_SECOND_STAGE_AD), 48, 4);
    set_entry(PASID_SSADE);
    expect_recorded(g, 0x1000, READ, 0, FAULT_PASID_ENTRY_RESERVED);
}

static void bits_that_cannot_be_set(void **state)
{
    const uint64_t rom = 4 * GIB;
    uint64_t *page;

    (void)state;
    start(FEATURES_ALL, 48, 4);
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW | SS_A);
    for (unsigned level = 2; level <= 4; level++) {
        *tables_entry(g, &tables, 0x1000, level) |= SS_A;
    }
    guest_set_pasid_entry(g, 0,
                          PRESENT | PASID_PGTT(PGTT_SECOND) | PASID_AW48 | PASID_SSADE |
                              tables.root,
                          GUEST_DID, 0);
    guest_flush(g);
    expect_address(g, 0x1000, READ, 0x101000);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_SS_NO_SNOOP);

    page = guest_qword(g, guest_page(g));
    assert_int_equal(nvtd_ram_add(g->unit, rom, 4096, page, NVTD_RAM_READ_ONLY), 0);
    page[1] = 0x101000 | SS_RW;
    page[2] = 0x102000 | SS_RW | SS_A | SS_D;
    *tables_entry(g, &tables, 0x1000, 2) = rom | SS_RW | SS_A;
    set_entry(PASID_SSADE);
    expect_recorded(g, 0x1000, READ, 0, FAULT_SS_MARK);
    expect_address(g, 0x2000, WRITE, 0x102000);
    set_entry(0);
    expect_address(g, 0x1000, WRITE, 0x101000);
}

static void results_in_the_interrupt_range(void **state)
{
    (void)state;
    start(FEATURES_ALL, 48, 4);
    tables_map(g, &tables, 0x1000, 0xfeeff000, 1, SS_RW);
    tables_map(g, &tables, 0x2000, 0xfef00000, 1, SS_RW);
    tables_map(g, &tables, 1 * GIB, 0xc0000000, 3, SS_RW);
    tables_map(g, &tables, 3 * GIB, 0, 3, SS_RW);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_INTERRUPT);
    expect_recorded(g, 0x1000, READ, 0, FAULT_INTERRUPT);
    expect_address(g, 0x2000, WRITE, 0xfef00000);
    expect_recorded(g, 1 * GIB + 0x3ee00000, WRITE, 0, FAULT_INTERRUPT);
    /* A page that is kept must neither reach into the range nor cover it. */
    expect_page(g, 1 * GIB, READ, 0, 0xc0000000, 2 * MIB, MAY_READ | MAY_WRITE);
    expect_page(g, 1 * GIB + 0x3ef00000, READ, 0, 0xfef00000, 4096, MAY_READ | MAY_WRITE);
    expect_page(g, 3 * GIB, READ, 0, 0, 2 * MIB, MAY_READ | MAY_WRITE);
    expect_page(g, 3 * GIB + 0x3ed00000, READ, 0, 0x3ed00000, 2 * MIB, MAY_READ | MAY_WRITE);
    expect_page(g, 3 * GIB + 0x3ef00000, READ, 0, 0x3ef00000, 4096, MAY_READ | MAY_WRITE);
}

#define TEST(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tables_of_3_to_5_levels),
        TEST(widths_not_reported),
        TEST(permissions),
        TEST(page_sizes_are_capabilities),
        TEST(snoop_and_transient_mapping),
        TEST(tables_outside_ram),
        TEST(accessed_and_dirty),
        TEST(bits_that_cannot_be_set),
        TEST(results_in_the_interrupt_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
