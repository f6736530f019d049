/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The modes of the root table: legacy mode with its tables and translation types, abort-DMA mode,
 * and scalable mode with first-stage tables of 5 levels and their accessed bits.
 */
#include "guest.h"

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE
#define TRANSLATION NVTD_REQUEST_TRANSLATION
#define TRANSLATED NVTD_REQUEST_TRANSLATED
#define MAY_READ NVTD_PERMISSION_READ
#define MAY_WRITE NVTD_PERMISSION_WRITE

static struct guest *g;

static int teardown(void **state)
{
    (void)state;
    if (g) {
        guest_free(g);
    }
    g = NULL;
    return 0;
}

/* Power off, and on as another unit. */
static void start(uint64_t features, uint32_t address_width, uint64_t mode)
{
    (void)teardown(NULL);
    g = guest_start(features, address_width, mode);
}

static void set_context(const struct tables *tables, unsigned tt, unsigned aw)
{
    guest_set_legacy_context(g, GUEST_SID, PRESENT | LEGACY_TT(tt) | tables->root,
                             LEGACY_AW(aw) | LEGACY_DID(GUEST_DID));
    guest_flush(g);
}

/* Legacy mode with tables of so many levels for the device. */
static struct tables start_legacy(uint64_t features, uint32_t address_width, unsigned levels)
{
    struct tables tables;

    start(features, address_width, RTADDR_LEGACY);
    tables = tables_new(g, levels, SS_RW);
    set_context(&tables, 0, levels - 2);
    return tables;
}

static void legacy_tables_of_3_to_5_levels(void **state)
{
    static const struct {
        uint32_t address_width;
        unsigned levels;
    } CASES[] = { { 39, 3 }, { 48, 3 }, { 48, 4 }, { 57, 3 }, { 57, 4 }, { 57, 5 } };

    (void)state;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
        struct tables tables =
            start_legacy(FEATURES_LEGACY, CASES[i].address_width, CASES[i].levels);
        uint64_t end = 1ull << (12 + 9 * CASES[i].levels);

        assert_int_equal(CAP_SAGAW(read64(g, REG_CAP)), CASES[i].address_width == 39   ? 0x2
                                                        : CASES[i].address_width == 48 ? 0x6
                                                                                       : 0xe);
        assert_int_equal(CAP_MGAW(read64(g, REG_CAP)), CASES[i].address_width);
        tables_map(g, &tables, end - 0x1000, 0x123000, 1, SS_RW);
        tables_map(g, &tables, end - 4 * MIB, 256 * MIB, 2, SS_RW);
        tables_map(g, &tables, end - 2 * GIB, 1 * GIB, 3, SS_RW);
        expect_page(g, end - 8, READ, 0, 0x123ff8, 4096, MAY_READ | MAY_WRITE);
        expect_page(g, end - 4 * MIB + 0x12345, WRITE, 0, 256 * MIB + 0x12345, 2 * MIB,
                    MAY_READ | MAY_WRITE);
        expect_page(g, end - 2 * GIB + 0x12345678, READ | WRITE, 0, 1 * GIB + 0x12345678, 1 * GIB,
                    MAY_READ | MAY_WRITE);
        assert_int_equal(guest_device(g, g->device).domain_id, GUEST_DID);
        assert_int_equal(guest_device(g, g->device).table, tables.root);
        expect_recorded(g, end - 0x2000, READ, 0, FAULT_LEGACY_NO_READ);
        expect_recorded(g, end - 0x2000, WRITE, 0, FAULT_LEGACY_NO_WRITE);
        expect_recorded(g, end, READ, 0, FAULT_LEGACY_BEYOND);
        expect_recorded(g, 1ull << 63, WRITE, 0, FAULT_LEGACY_BEYOND);
    }
}

static void legacy_widths_not_reported(void **state)
{
    struct tables tables = start_legacy(FEATURES_LEGACY, 48, 4);
    static const unsigned WIDTHS[] = { 0, 3, 4, 7 };

    (void)state;
    for (size_t i = 0; i < sizeof(WIDTHS) / sizeof(*WIDTHS); i++) {
        set_context(&tables, 0, WIDTHS[i]);
        expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_INVALID);
    }
    tables = start_legacy(FEATURES_LEGACY, 39, 3);
    set_context(&tables, 0, 2);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_INVALID);
}

static void legacy_permissions(void **state)
{
    struct tables tables = start_legacy(FEATURES_LEGACY, 48, 4);

    (void)state;
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_R);
    tables_map(g, &tables, 0x2000, 0x102000, 1, SS_W);
    expect_page(g, 0x1000, READ, 0, 0x101000, 4096, MAY_READ);
    expect_page(g, 0x2000, WRITE, 0, 0x102000, 4096, MAY_WRITE);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_LEGACY_NO_WRITE);
    expect_recorded(g, 0x1000, READ | WRITE, 0, FAULT_LEGACY_NO_WRITE);
    expect_recorded(g, 0x2000, READ, 0, FAULT_LEGACY_NO_READ);
    expect_recorded(g, 0x2000, READ | WRITE, 0, FAULT_LEGACY_NO_READ);
    /* Every level has a say. */
    for (unsigned level = 2; level <= 4; level++) {
        uint64_t *entry = tables_entry(g, &tables, 0x1000, level);

        *entry &= ~SS_R;
        guest_flush(g);
        expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_NO_READ);
        expect_page(g, 0x2000, WRITE, 0, 0x102000, 4096, MAY_WRITE);
        *entry = (*entry | SS_R) & ~SS_W;
        guest_flush(g);
        expect_recorded(g, 0x2000, WRITE, 0, FAULT_LEGACY_NO_WRITE);
        expect_page(g, 0x1000, READ, 0, 0x101000, 4096, MAY_READ);
        *entry &= ~SS_RW;
        guest_flush(g);
        expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_NO_READ);
        expect_recorded(g, 0x1000, WRITE, 0, FAULT_LEGACY_NO_WRITE);
        *entry |= SS_RW;
        guest_flush(g);
    }
}

static void legacy_reserved_bits(void **state)
{
    struct tables tables = start_legacy(NVTD_FEATURE_SECOND_STAGE, 48, 4);
    uint64_t *entry;

    (void)state;
    /* Snoop control, transient mapping, large pages: none is reported. */
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW | SS_SNP);
    tables_map(g, &tables, 0x2000, 0x101000, 1, SS_RW | SS_TM);
    tables_map(g, &tables, 0x3000, 1ull << 48, 1, SS_RW);
    tables_map(g, &tables, 2 * MIB, 2 * MIB, 2, SS_RW);
    tables_map(g, &tables, 1 * GIB, 1 * GIB, 3, SS_RW);
    tables_map(g, &tables, 1ull << 39, 0, 4, SS_RW);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_PAGING_RESERVED);
    expect_recorded(g, 0x2000, READ, 0, FAULT_LEGACY_PAGING_RESERVED);
    expect_recorded(g, 0x3000, WRITE, 0, FAULT_LEGACY_PAGING_RESERVED);
    expect_recorded(g, 2 * MIB, READ, 0, FAULT_LEGACY_PAGING_RESERVED);
    expect_recorded(g, 1 * GIB, READ, 0, FAULT_LEGACY_PAGING_RESERVED);
    expect_recorded(g, 1ull << 39, READ, 0, FAULT_LEGACY_PAGING_RESERVED);

    tables = start_legacy(FEATURES_LEGACY, 48, 4);
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW | SS_SNP | SS_TM);
    expect_address(g, 0x1000, READ, 0x101000);
    tables_map(g, &tables, 2 * MIB, 2 * MIB + 0x1000, 2, SS_RW);
    expect_recorded(g, 2 * MIB, READ, 0, FAULT_LEGACY_PAGING_RESERVED);
    tables_map(g, &tables, 1 * GIB, 1 * GIB + 2 * MIB, 3, SS_RW);
    expect_recorded(g, 1 * GIB, READ, 0, FAULT_LEGACY_PAGING_RESERVED);
    /* Above the leaf they are reserved all the same. */
    tables_map(g, &tables, 1ull << 40, 0x101000, 1, SS_RW);
    entry = tables_entry(g, &tables, 1ull << 40, 3);
    *entry |= SS_SNP;
    expect_recorded(g, 1ull << 40, READ, 0, FAULT_LEGACY_PAGING_RESERVED);
    *entry = (*entry & ~SS_SNP) | SS_TM;
    expect_recorded(g, 1ull << 40, READ, 0, FAULT_LEGACY_PAGING_RESERVED);
    *entry &= ~SS_TM;
    expect_address(g, 1ull << 40, READ, 0x101000);
}

static void legacy_root_and_context_faults(void **state)
{
    struct tables tables = start_legacy(FEATURES_LEGACY, 48, 4);
    uint64_t *root = guest_qword(g, g->root), context = *root;

    (void)state;
    set_context(&tables, 0, 2 | 1 << 7);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_RESERVED);
    guest_set_legacy_context(g, GUEST_SID, PRESENT | 1 << 4 | tables.root, LEGACY_AW(2));
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_RESERVED);
    guest_set_legacy_context(g, GUEST_SID, PRESENT | 1ull << 48, LEGACY_AW(2));
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_RESERVED);
    guest_set_legacy_context(g, GUEST_SID, tables.root, LEGACY_AW(2));
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_PRESENT);
    *root = NOWHERE | PRESENT;
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_ACCESS);
    *root = context | 1 << 1;
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_ROOT_RESERVED);
    *root = 0;
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_ROOT_PRESENT);
    write64(g, REG_RTADDR, NOWHERE | RTADDR_LEGACY);
    guest_command(g, CMD_SRTP, true);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_ROOT_ACCESS);
}

static void legacy_tables_outside_ram(void **state)
{
    struct tables tables = start_legacy(FEATURES_LEGACY, 48, 4);

    (void)state;
    *tables_entry(g, &tables, 0x1000, 3) = NOWHERE | SS_RW;
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_PAGING_ACCESS);
    tables.root = NOWHERE;
    set_context(&tables, 0, 2);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_LEGACY_PAGING_ACCESS);
}

/* FPD: refused, and not recorded. */
static void legacy_faults_disabled(void **state)
{
    struct tables tables = start_legacy(FEATURES_LEGACY, 48, 4);

    (void)state;
    guest_set_legacy_context(g, GUEST_SID, PRESENT | 1 << 1 | tables.root, LEGACY_AW(2));
    guest_flush(g);
    expect_fault(g, 0x1000, READ, FAULT_LEGACY_NO_READ);
    assert_int_equal(read32(g, REG_FSTS), 0);
}

static void legacy_translation_types(void **state)
{
    struct tables tables = start_legacy(FEATURES_LEGACY, 48, 4);

    (void)state;
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW);
    /* 0: untranslated requests only. */
    expect_address(g, 0x1000, READ, 0x101000);
    assert_int_equal(guest_device(g, g->device).pgtt, PGTT_SECOND);
    expect_recorded(g, 0x1000, READ | TRANSLATION, 0, FAULT_LEGACY_BLOCKED);
    expect_recorded(g, 0x1000, READ | TRANSLATED, 0, FAULT_LEGACY_BLOCKED);

    /* 1: all requests. */
    set_context(&tables, 1, 2);
    expect_address(g, 0x1000, READ, 0x101000);
    expect_page(g, 0x1000, READ | WRITE | TRANSLATION, 0, 0x101000, 4096, MAY_READ | MAY_WRITE);
    assert_int_equal(guest_ask(g, g->device, 0x7000, READ | TRANSLATED, 0).address, 0x7000);
    expect_recoverable(g, 0x2000, READ | TRANSLATION, 0, FAULT_LEGACY_NO_READ);
    expect_recoverable(g, 1ull << 48, READ | TRANSLATION, 0, FAULT_LEGACY_BEYOND);

    /* 2: pass-through, with the largest width and whatever pointer. */
    tables.root = 0;
    set_context(&tables, 2, 2);
    expect_address(g, 0x345678, READ | WRITE, 0x345678);
    assert_int_equal(guest_device(g, g->device).pgtt, PGTT_PASS);
    expect_recorded(g, 1ull << 48, WRITE, 0, FAULT_LEGACY_BEYOND);
    expect_recorded(g, 0x1000, READ | TRANSLATION, 0, FAULT_LEGACY_BLOCKED);
    set_context(&tables, 2, 1);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_INVALID);

    /* 3 is reserved. */
    set_context(&tables, 3, 2);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_INVALID);

    /* 1 and 2 have capabilities of their own. */
    tables = start_legacy(NVTD_FEATURE_SECOND_STAGE, 48, 4);
    set_context(&tables, 1, 2);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_INVALID);
    set_context(&tables, 2, 2);
    expect_recorded(g, 0x1000, READ, 0, FAULT_LEGACY_CONTEXT_INVALID);
}

static void legacy_has_no_pasid(void **state)
{
    struct tables tables;

    (void)state;
    start(FEATURES_ALL, 48, RTADDR_LEGACY);
    tables = tables_new(g, 4, SS_RW);
    tables_map(g, &tables, 0x1000, 0x101000, 1, SS_RW);
    set_context(&tables, 0, 2);
    expect_address(g, 0x1000, READ, 0x101000);
    expect_recorded(g, 0x1000, READ | NVTD_REQUEST_PASID, 3, FAULT_LEGACY_PASID);
}

static void legacy_results_in_the_interrupt_range(void **state)
{
    struct tables tables = start_legacy(FEATURES_LEGACY, 48, 4);

    (void)state;
    tables_map(g, &tables, 0x1000, 0xfee01000, 1, SS_RW);
    tables_map(g, &tables, 1 * GIB, 0xc0000000, 3, SS_RW);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_LEGACY_INTERRUPT);
    expect_recorded(g, 1 * GIB + 0x3ee00000, WRITE, 0, FAULT_LEGACY_INTERRUPT);
    /* Of a page around the range the answer is a part that is clear of it. */
    expect_page(g, 1 * GIB, READ, 0, 0xc0000000, 2 * MIB, MAY_READ | MAY_WRITE);
    expect_page(g, 1 * GIB + 0x3ef00000, READ, 0, 0xfef00000, 4096, MAY_READ | MAY_WRITE);
}

/* TTM of the root table address. */
static void root_table_modes(void **state)
{
    (void)state;
    start(FEATURES_ALL, 48, RTADDR_ABORT);
    expect_recorded(g, 0x1000, READ, 0, FAULT_ABORT_DMA);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_ABORT_DMA);
    expect_recorded(g, 0x1000, READ | NVTD_REQUEST_PASID, 7, FAULT_ABORT_DMA);
    expect_recorded(g, 0x1000, READ | TRANSLATION, 0, FAULT_ABORT_DMA);
    expect_recorded(g, 0x1000, READ | TRANSLATED, 0, FAULT_ABORT_DMA);
    /* The queue goes on, and the mode is left like any other. */
    guest_sync(g);
    guest_set_root(g);
    guest_attach(g, GUEST_SID, 2);
    guest_set_stages(g, 0, NULL, NULL, 0, 0);
    guest_flush(g);
    expect_address(g, 0x1000, READ, 0x1000);
    guest_set_root_mode(g, RTADDR_ABORT);
    expect_recorded(g, 0x1000, READ, 0, FAULT_ABORT_DMA);

    start(FEATURES_ALL & ~(uint64_t)NVTD_FEATURE_ABORT_DMA, 48, RTADDR_ABORT);
    expect_recorded(g, 0x1000, READ, 0, FAULT_TABLE_MODE);
    guest_set_root_mode(g, RTADDR_RESERVED);
    expect_recorded(g, 0x1000, READ, 0, FAULT_TABLE_MODE);
    start(FEATURES_LEGACY, 48, RTADDR_LEGACY);
    guest_set_root_mode(g, RTADDR_SMT);
    expect_recorded(g, 0x1000, READ, 0, FAULT_TABLE_MODE);
}

static struct tables start_first_stage(uint64_t features, uint32_t width, unsigned levels)
{
    struct tables first;

    start(features, width, RTADDR_SMT);
    first = tables_new(g, levels, FS_TABLE);
    guest_set_stages(g, 0, &first, NULL, 0, 0);
    guest_flush(g);
    return first;
}

static void first_stage_of_5_levels(void **state)
{
    const uint64_t low = (1ull << 56) - 0x1000, high = 0xff00000000000000ull;
    struct tables first = start_first_stage(FEATURES_ALL, 57, 5);

    (void)state;
    assert_true(read64(g, REG_CAP) >> 60 & 1); /* FS5LP */
    tables_map(g, &first, low, 0x101000, 1, FS_LEAF);
    tables_map(g, &first, high, 256 * MIB, 2, FS_LEAF);
    tables_map(g, &first, 1ull << 48, 1 * GIB, 3, FS_LEAF);
    expect_page(g, low + 8, READ, 0, 0x101008, 4096, MAY_READ | MAY_WRITE);
    expect_page(g, high + 0x1234, WRITE, 0, 256 * MIB + 0x1234, 2 * MIB, MAY_READ | MAY_WRITE);
    expect_page(g, 1ull << 48, READ, 0, 1 * GIB, 1 * GIB, MAY_READ | MAY_WRITE);
    expect_recorded(g, low + 0x1000, READ, 0, FAULT_CANONICAL);
    expect_recorded(g, high - 0x1000, READ, 0, FAULT_CANONICAL);
    expect_recorded(g, 0x1000, READ, 0, FAULT_FS_PRESENT);
    *tables_entry(g, &first, low, 5) |= FS_PS;
    guest_flush(g);
    expect_recorded(g, low, READ, 0, FAULT_FS_RESERVED);

    /* 4 levels stay 48 bits wide. */
    first = start_first_stage(FEATURES_ALL, 57, 4);
    tables_map(g, &first, 0x1000, 0x101000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x101000);
    expect_recorded(g, 1ull << 48, READ, 0, FAULT_CANONICAL);

    first = start_first_stage(FEATURES_ALL, 48, 5);
    expect_recorded(g, 0x1000, READ, 0, FAULT_PASID_ENTRY_INVALID);
    for (unsigned mode = 2; mode <= 3; mode++) {
        first = start_first_stage(FEATURES_ALL, 57, 4);
        guest_set_stages(g, 0, &first, NULL, 0, PASID_FSPM(mode));
        guest_flush(g);
        expect_recorded(g, 0x1000, READ, 0, FAULT_PASID_ENTRY_INVALID);
    }
}

/* The extended accessed bit is set along with the accessed bit. */
static void extended_accessed_bits(void **state)
{
    struct tables first = start_first_stage(FEATURES_ALL, 48, 4);

    (void)state;
    tables_map(g, &first, 0x1000, 0x101000, 1, FS_LEAF & ~FS_D);
    expect_address(g, 0x1000, READ, 0x101000);
    assert_int_equal(*tables_entry(g, &first, 0x1000, 1) & FS_EA, 0);
    guest_set_stages(g, 0, &first, NULL, 0, PASID_EAFE);
    guest_flush(g);
    expect_address(g, 0x1000, READ, 0x101000);
    for (unsigned level = 1; level <= 4; level++) {
        assert_true(*tables_entry(g, &first, 0x1000, level) & FS_EA);
    }
    assert_int_equal(*tables_entry(g, &first, 0x1000, 1) & FS_D, 0);
    expect_address(g, 0x1000, WRITE, 0x101000);
    assert_true(*tables_entry(g, &first, 0x1000, 1) & FS_D);

    first = start_first_stage(FEATURES_ALL & ~(uint64_t)NVTD_FEATURE_EXTENDED_ACCESSED, 48, 4);
    guest_set_stages(g, 0, &first, NULL, 0, PASID_EAFE);
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_PASID_ENTRY_RESERVED);
}

/* An answer says that writing is permitted only where the dirty bit is set: it may be kept. */
static void answers_permit_writing_where_it_is_marked(void **state)
{
    struct tables first = start_first_stage(FEATURES_ALL, 48, 4);

    (void)state;
    tables_map(g, &first, 0x1000, 0x101000, 1, FS_LEAF & ~FS_D);
    expect_page(g, 0x1000, READ, 0, 0x101000, 4096, MAY_READ);
    assert_int_equal(*tables_entry(g, &first, 0x1000, 1) & FS_D, 0);
    expect_page(g, 0x1000, WRITE, 0, 0x101000, 4096, MAY_READ | MAY_WRITE);
    assert_true(*tables_entry(g, &first, 0x1000, 1) & FS_D);
    expect_page(g, 0x1000, READ, 0, 0x101000, 4096, MAY_READ | MAY_WRITE);
}

/* Bits that are to be set where nothing can be set. */
static void first_stage_bits_that_cannot_be_set(void **state)
{
    const uint64_t rom = 4 * GIB;
    struct tables first = start_first_stage(FEATURES_ALL, 48, 4);
    uint64_t *page = guest_qword(g, guest_page(g));

    (void)state;
    tables_map(g, &first, 0x1000, 0x101000, 1, FS_LEAF & ~FS_D);
    guest_set_pasid_entry(g, 0, PRESENT | PASID_PGTT(PGTT_FIRST), GUEST_DID, first.root);
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_FS_NO_SNOOP);
    for (unsigned level = 2; level <= 4; level++) {
        *tables_entry(g, &first, 0x1000, level) |= FS_A;
    }
    expect_address(g, 0x1000, READ, 0x101000);
    expect_recorded(g, 0x1000, WRITE, 0, FAULT_FS_NO_SNOOP);

    /* The last table in memory that cannot be written. */
    assert_int_equal(nvtd_ram_add(g->unit, rom, 4096, page, NVTD_RAM_READ_ONLY), 0);
    page[1] = 0x101000 | FS_P | FS_W | FS_U;
    page[2] = 0x102000 | FS_LEAF;
    guest_set_stages(g, 0, &first, NULL, 0, 0);
    *tables_entry(g, &first, 0x1000, 2) = rom | FS_TABLE;
    guest_flush(g);
    expect_recorded(g, 0x1000, READ, 0, FAULT_FS_MARK);
    expect_address(g, 0x2000, WRITE, 0x102000);
    expect_address(g, 0x1000, READ | NVTD_REQUEST_DEBUG, 0x101000);
}

#define TEST(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(legacy_tables_of_3_to_5_levels),
        TEST(legacy_widths_not_reported),
        TEST(legacy_permissions),
        TEST(legacy_reserved_bits),
        TEST(legacy_root_and_context_faults),
        TEST(legacy_tables_outside_ram),
        TEST(legacy_faults_disabled),
        TEST(legacy_translation_types),
        TEST(legacy_has_no_pasid),
        TEST(legacy_results_in_the_interrupt_range),
        TEST(root_table_modes),
        TEST(first_stage_of_5_levels),
        TEST(extended_accessed_bits),
        TEST(answers_permit_writing_where_it_is_marked),
        TEST(first_stage_bits_that_cannot_be_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
