/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Devices with a TLB (ATS): translation requests, and requests that carry their answers.
 */
#include "guest.h"

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE /* of a translation request: no-write is clear */
#define PASID NVTD_REQUEST_PASID
#define TRANSLATION NVTD_REQUEST_TRANSLATION
#define TRANSLATED NVTD_REQUEST_TRANSLATED
#define MAY_READ NVTD_PERMISSION_READ
#define MAY_WRITE NVTD_PERMISSION_WRITE
#define MAY_EXECUTE NVTD_PERMISSION_EXECUTE

static struct guest *g;
static struct tables first;

static void enable(uint64_t bits0, uint64_t bits2)
{
    guest_set_context_bits(g, CONTEXT_DTE | CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    guest_set_stages(g, 0, &first, NULL, bits0, bits2);
    guest_flush(g);
}

static int setup(void **state)
{
    (void)state;
    g = guest_start(FEATURES_ALL, 48, RTADDR_SMT);
    first = tables_new(g, 4, FS_TABLE);
    enable(0, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_free(g);
    return 0;
}

/* Second-stage tables instead. */
static struct tables second_stage(uint64_t bits0)
{
    struct tables second = tables_new(g, 4, SS_RW);

    guest_set_stages(g, 0, NULL, &second, bits0, 0);
    guest_flush(g);
    return second;
}

static void the_context_entry_must_allow_it(void **state)
{
    (void)state;
    tables_map(g, &first, 0x5000, 0x100000, 1, FS_LEAF);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    expect_address(g, 0x5000, READ, 0x100000);
    expect_recorded(g, 0x5000, READ | TRANSLATION, 0, FAULT_NO_DEVICE_TLB);
    expect_recorded(g, 0x5000, READ | TRANSLATION | PASID, 7, FAULT_NO_DEVICE_TLB);
    expect_recorded(g, 0x5000, READ | TRANSLATED, 0, FAULT_NO_DEVICE_TLB);
    expect_recorded(g, 0x5000, WRITE | TRANSLATED, 0, FAULT_NO_DEVICE_TLB);
}

/* Writing is granted where the dirty bit is set, and it is set for those who may write. */
static void writing_is_granted_where_it_is_marked(void **state)
{
    uint64_t *leaf;

    (void)state;
    tables_map(g, &first, 0x5000, 0x100000, 1, FS_P | FS_W | FS_U);
    leaf = tables_entry(g, &first, 0x5000, 1);
    expect_page(g, 0x5000, READ | TRANSLATION, 0, 0x100000, 4096, MAY_READ);
    assert_int_equal(*leaf & (FS_A | FS_D), FS_A);
    expect_page(g, 0x5000, READ | WRITE | TRANSLATION, 0, 0x100000, 4096, MAY_READ | MAY_WRITE);
    assert_int_equal(*leaf & (FS_A | FS_D), FS_A | FS_D);
    expect_page(g, 0x5000, READ | TRANSLATION, 0, 0x100000, 4096, MAY_READ | MAY_WRITE);
    /* A read-only page is granted for reading. */
    tables_map(g, &first, 0x6000, 0x101000, 1, FS_P | FS_U);
    expect_page(g, 0x6000, READ | WRITE | TRANSLATION, 0, 0x101000, 4096, MAY_READ);
    assert_int_equal(*tables_entry(g, &first, 0x6000, 1) & FS_D, 0);
    tables_map(g, &first, 4 * MIB, 8 * MIB, 2, FS_LEAF);
    expect_page(g, 4 * MIB + 0x1234, READ | WRITE | TRANSLATION, 0, 8 * MIB + 0x1234, 2 * MIB,
                MAY_READ | MAY_WRITE);
    assert_int_equal(read32(g, REG_FSTS), 0);
}

/* A page that has become read-only, without an invalidation yet: never one to write. */
static void writing_that_was_permitted(void **state)
{
    (void)state;
    tables_map(g, &first, 0x5000, 0x100000, 1, FS_P | FS_W | FS_U);
    expect_page(g, 0x5000, READ, 0, 0x100000, 4096, MAY_READ);
    *tables_entry(g, &first, 0x5000, 1) &= ~FS_W;
    expect_page(g, 0x5000, READ | WRITE | TRANSLATION, 0, 0x100000, 4096, MAY_READ);
    guest_flush(g);
    expect_page(g, 0x5000, READ | WRITE | TRANSLATION, 0, 0x100000, 4096, MAY_READ);
    assert_int_equal(*tables_entry(g, &first, 0x5000, 1) & FS_D, 0);
    /* What is wrong with the tables is told all the same. */
    tables_map(g, &first, 0x6000, 0x100000, 1, FS_P | FS_W | FS_U);
    expect_page(g, 0x6000, READ, 0, 0x100000, 4096, MAY_READ);
    *tables_entry(g, &first, 0x6000, 1) |= 1ull << 51;
    expect_recorded(g, 0x6000, READ | WRITE | TRANSLATION, 0, FAULT_FS_RESERVED);
}

/* A page that can only be written, or not be executed, is granted as far as it goes. */
static void what_there_is_is_granted(void **state)
{
    const uint32_t fetch = READ | TRANSLATION | PASID | NVTD_REQUEST_EXECUTE;
    struct tables second;

    (void)state;
    enable(0, PASID_ERE | PASID_NXE);
    tables_map(g, &first, 0x5000, 0x100000, 1, FS_LEAF);
    tables_map(g, &first, 0x6000, 0x101000, 1, FS_LEAF | FS_XD);
    expect_page(g, 0x5000, fetch, 0, 0x100000, 4096, MAY_READ | MAY_WRITE | MAY_EXECUTE);
    expect_page(g, 0x6000, fetch, 0, 0x101000, 4096, MAY_READ | MAY_WRITE);

    second = second_stage(0);
    tables_map(g, &second, 0x5000, 0x100000, 1, SS_W);
    tables_map(g, &second, 0x6000, 0x101000, 1, SS_R);
    expect_page(g, 0x5000, READ | WRITE | TRANSLATION, 0, 0x100000, 4096, MAY_WRITE);
    expect_recoverable(g, 0x5000, READ | TRANSLATION, 0, FAULT_SS_PERMISSION);
    expect_page(g, 0x6000, READ | WRITE | TRANSLATION, 0, 0x101000, 4096, MAY_READ);
    expect_recoverable(g, 0x7000, READ | WRITE | TRANSLATION, 0, FAULT_SS_PERMISSION);
}

/* The device may ask for the page: nothing is recorded. An untranslated request is. */
static void recoverable_faults(void **state)
{
    struct tables second;

    (void)state;
    expect_recoverable(g, 0x5000, READ | TRANSLATION, 0, FAULT_FS_PRESENT);
    expect_recoverable(g, 0x5000, READ | WRITE | TRANSLATION, 0, FAULT_FS_PRESENT);
    expect_recorded(g, 0x5000, READ, 0, FAULT_FS_PRESENT);
    tables_map(g, &first, 0x6000, 0x100000, 1, FS_LEAF & ~FS_U);
    expect_recoverable(g, 0x6000, READ | TRANSLATION, 0, FAULT_SUPERVISOR);
    expect_recoverable(g, 1ull << 50, READ | TRANSLATION, 0, FAULT_CANONICAL);
    assert_int_equal(guest_stats(g).faults, 5);
    tables_map(g, &first, 0x5000, 0x100000, 1, FS_LEAF);
    expect_address(g, 0x5000, READ | TRANSLATION, 0x100000);

    second = second_stage(0);
    expect_recoverable(g, 0x5000, READ | TRANSLATION, 0, FAULT_SS_PERMISSION);
    expect_recoverable(g, 1ull << 48, READ | TRANSLATION, 0, FAULT_BEYOND);
    /* Nested: the tables of the first stage are not there for the second. */
    guest_set_stages(g, 0, &first, &second, 0, 0);
    guest_flush(g);
    expect_recoverable(g, 0x5000, READ | TRANSLATION, 0, FAULT_NESTED_TOP_DENIED);
    for (unsigned i = 0; i < 64; i++) {
        tables_map(g, &second, GUEST_HEAP + i * 4096, GUEST_HEAP + i * 4096, 1, SS_RW);
    }
    tables_map(g, &second, first.root, first.root, 1, SS_R);
    *tables_entry(g, &first, 0x5000, 4) &= ~FS_A;
    guest_flush(g);
    expect_recoverable(g, 0x5000, READ | TRANSLATION, 0, FAULT_NESTED_MARK_DENIED);
    *tables_entry(g, &first, 0x5000, 4) |= FS_A;
    tables_map(g, &second, *tables_entry(g, &first, 0x5000, 4) & ~0xfffull, 0, 1, 0);
    expect_recoverable(g, 0x5000, READ | TRANSLATION, 0, FAULT_NESTED_TABLE_DENIED);
}

static void nested_page_beyond_is_recoverable(void **state)
{
    struct tables second = tables_new(g, 3, SS_RW);

    (void)state;
    tables_map(g, &second, 0, 0, 3, SS_RW);
    tables_map(g, &first, 0x5000, 1ull << 39, 1, FS_LEAF);
    guest_set_stages(g, 0, &first, &second, 0, 0);
    guest_flush(g);
    expect_recoverable(g, 0x5000, READ | TRANSLATION, 0, FAULT_NESTED_BEYOND);
}

/* Of what is wrong with the tables software hears. */
static void other_faults_are_recorded(void **state)
{
    (void)state;
    tables_map(g, &first, 0x5000, 1ull << 51, 1, FS_LEAF);
    expect_recorded(g, 0x5000, READ | TRANSLATION, 0, FAULT_FS_RESERVED);
    *tables_entry(g, &first, 0x5000, 2) = NOWHERE | FS_TABLE;
    expect_recorded(g, 0x5000, READ | WRITE | TRANSLATION, 0, FAULT_FS_ACCESS);
    expect_recorded(g, 0x5000, READ | TRANSLATION | PASID, 3, FAULT_PASID_ENTRY_PRESENT);
    expect_recorded(g, 0x5000, READ | TRANSLATION | PASID | NVTD_REQUEST_EXECUTE, 0,
                    FAULT_EXECUTE_DISABLED);
    guest_set_pasid_entry(g, 0, 0, 0, 0);
    guest_flush(g);
    expect_recorded(g, 0x5000, READ | TRANSLATION, 0, FAULT_PASID_ENTRY_PRESENT);
}

static void the_interrupt_range(void **state)
{
    (void)state;
    tables_map(g, &first, 0xfee00000, 0x200000, 2, FS_LEAF);
    tables_map(g, &first, 0x5000, 0xfee05000, 1, FS_LEAF);
    /* Untranslated writes only: nothing to keep. */
    expect_page(g, 0xfee00000, READ | WRITE | TRANSLATION, 0, 0xfee00000, 4096,
                MAY_WRITE | NVTD_PERMISSION_UNTRANSLATED);
    expect_page(g, 0xfeeff123, READ | TRANSLATION, 0, 0xfeeff123, 4096,
                MAY_WRITE | NVTD_PERMISSION_UNTRANSLATED);
    expect_recorded(g, 0xfee00000, WRITE | TRANSLATED, 0, FAULT_INTERRUPT);
    expect_recorded(g, 0x5000, READ | TRANSLATION, 0, FAULT_INTERRUPT);
}

/* Translated addresses are final: only the context entry has a say. */
static void translated_requests(void **state)
{
    (void)state;
    guest_set_pasid_entry(g, 0, 0, 0, 0);
    guest_flush(g);
    expect_page(g, 0x123456, READ | TRANSLATED, 0, 0x123456, 4096, MAY_READ | MAY_WRITE);
    expect_page(g, 0x123456, WRITE | TRANSLATED, 0, 0x123456, 4096, MAY_READ | MAY_WRITE);
    expect_recorded(g, 1ull << 48, WRITE | TRANSLATED, 0, FAULT_BEYOND);
    guest_set_context(g, GUEST_SID, 0, 0);
    guest_flush(g);
    expect_recorded(g, 0x123456, READ | TRANSLATED, 0, FAULT_CONTEXT_PRESENT);
}

static void while_translation_is_off(void **state)
{
    NvtdTranslation out;

    (void)state;
    guest_command(g, CMD_TE, false);
    expect_address(g, 0x5000, READ, 0x5000);
    expect_address(g, 0x5000, READ | TRANSLATED, 0x5000);
    out = guest_ask(g, g->device, 0x5000, READ | TRANSLATION, 0);
    assert_int_not_equal(out.fault, 0);
    assert_int_equal(out.flags, 0);
    assert_int_equal(read32(g, REG_FSTS), 0);
}

/* A look at what the device would be told changes and records nothing. */
static void looks(void **state)
{
    const uint32_t look = TRANSLATION | NVTD_REQUEST_DEBUG;

    (void)state;
    tables_map(g, &first, 0x5000, 0x100000, 1, FS_P | FS_W | FS_U);
    expect_address(g, 0x5000, READ | WRITE | look, 0x100000);
    assert_int_equal(*tables_entry(g, &first, 0x5000, 1) & (FS_A | FS_D), 0);
    *tables_entry(g, &first, 0x6000, 1) = 1ull << 51 | FS_LEAF;
    assert_int_equal(guest_ask(g, g->device, 0x6000, READ | look, 0).fault, FAULT_FS_RESERVED);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(guest_stats(g).faults, 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_context_entry_must_allow_it),
        TEST(writing_is_granted_where_it_is_marked),
        TEST(writing_that_was_permitted),
        TEST(what_there_is_is_granted),
        TEST(recoverable_faults),
        TEST(nested_page_beyond_is_recoverable),
        TEST(other_faults_are_recorded),
        TEST(the_interrupt_range),
        TEST(translated_requests),
        TEST(while_translation_is_off),
        TEST(looks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
