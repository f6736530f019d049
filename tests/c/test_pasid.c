/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Requests with PASID: which PASID entry is theirs, what it lets them do, and how they are recorded.
 */
#include "guest.h"

#include <errno.h>

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE
#define PASID NVTD_REQUEST_PASID
#define EXECUTE NVTD_REQUEST_EXECUTE
#define PRIVILEGED NVTD_REQUEST_PRIVILEGED
#define TRANSLATION NVTD_REQUEST_TRANSLATION
#define TRANSLATED NVTD_REQUEST_TRANSLATED
#define MAY_READ NVTD_PERMISSION_READ
#define MAY_WRITE NVTD_PERMISSION_WRITE
#define MAY_EXECUTE NVTD_PERMISSION_EXECUTE
#define OF_PRIVILEGED NVTD_PERMISSION_PRIVILEGED

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

static void start(uint64_t features)
{
    (void)teardown(NULL);
    g = guest_start(features, 48, RTADDR_SMT);
}

/* First-stage tables for a PASID, in which 0x5000 goes to `gpa`. */
static struct tables give(uint32_t pasid, uint64_t gpa, uint64_t leaf, uint64_t bits2)
{
    struct tables tables = tables_new(g, 4, FS_TABLE);

    tables_map(g, &tables, 0x5000, gpa, 1, leaf);
    guest_set_stages(g, pasid, &tables, NULL, 0, bits2);
    guest_flush(g);
    return tables;
}

static void each_pasid_has_its_tables(void **state)
{
    struct tables second;

    (void)state;
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    second = tables_new(g, 4, SS_RW);
    tables_map(g, &second, 0x5000, 0x104000, 1, SS_RW);
    give(0, 0x100000, FS_LEAF, 0);
    give(1, 0x101000, FS_LEAF, 0);
    give(63, 0x102000, FS_LEAF, 0);
    give(64, 0x103000, FS_LEAF, 0);
    guest_set_stages(g, 65, NULL, &second, 0, 0);
    guest_set_stages(g, 66, NULL, NULL, 0, 0);
    guest_flush(g);
    for (unsigned again = 0; again < 2; again++) {
        expect_address(g, 0x5000, READ, 0x100000);
        expect_page(g, 0x5000, READ | PASID, 0, 0x100000, 4096, MAY_READ | MAY_WRITE);
        expect_page(g, 0x5000, READ | PASID, 1, 0x101000, 4096, MAY_READ | MAY_WRITE);
        expect_page(g, 0x5000, WRITE | PASID, 63, 0x102000, 4096, MAY_READ | MAY_WRITE);
        expect_page(g, 0x5000, READ | PASID, 64, 0x103000, 4096, MAY_READ | MAY_WRITE);
        expect_page(g, 0x5000, READ | PASID, 65, 0x104000, 4096, MAY_READ | MAY_WRITE);
        expect_page(g, 0x5000, READ | PASID, 66, 0x5000, 4096, MAY_READ | MAY_WRITE);
    }
    expect_recorded(g, 0x5000, READ | PASID, 2, FAULT_PASID_ENTRY_PRESENT);
    expect_recorded(g, 0x5000, WRITE | PASID, 128, FAULT_PASID_DIRECTORY_PRESENT);
    expect_recorded(g, 0x6000, WRITE | PASID, 64, FAULT_FS_PRESENT);
}

static void directory_and_table_faults(void **state)
{
    uint64_t *directory, table, *entry;

    (void)state;
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    give(3, 0x100000, FS_LEAF, 0);
    directory = guest_qword(g, g->pasid_directory);
    table = *directory;
    entry = guest_qword(g, guest_pasid_entry(g, 3));
    *directory = table | 1 << 2;
    guest_flush(g);
    expect_recorded(g, 0x5000, READ | PASID, 3, FAULT_PASID_DIRECTORY_RESERVED);
    *directory = NOWHERE | PRESENT;
    guest_flush(g);
    expect_recorded(g, 0x5000, READ | PASID, 3, FAULT_PASID_ENTRY_ACCESS);
    *directory = table;
    /* Reserved quadwords, and a reserved field. */
    for (unsigned i = 3; i < 8; i++) {
        entry[i] = 1ull << 40;
        guest_flush(g);
        expect_recorded(g, 0x5000, READ | PASID, 3, FAULT_PASID_ENTRY_RESERVED);
        entry[i] = 0;
    }
    entry[0] |= 1 << 10;
    guest_flush(g);
    expect_recorded(g, 0x5000, READ | PASID, 3, FAULT_PASID_ENTRY_RESERVED);
    entry[0] &= ~(1ull << 10);
    guest_flush(g);
    expect_page(g, 0x5000, READ | PASID, 3, 0x100000, 4096, MAY_READ | MAY_WRITE);
    guest_set_context(g, GUEST_SID, NOWHERE | CONTEXT_PASIDE | PRESENT, 0);
    guest_flush(g);
    expect_recorded(g, 0x5000, READ | PASID, 3, FAULT_PASID_DIRECTORY_ACCESS);
}

/* FPD of an entry silences what is found in it or behind it, and nothing before it. */
static void faults_disabled(void **state)
{
    const uint32_t read = READ | PASID;
    uint64_t *directory;
    struct tables tables;

    (void)state;
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    tables = give(3, 0x100000, FS_LEAF, 0);
    directory = guest_qword(g, g->pasid_directory);
    for (unsigned where = 0; where < 3; where++) {
        bool in_context = where == 2;

        guest_set_context_bits(
            g, CONTEXT_PASIDE | CONTEXT_PDTS(2) | (in_context ? CONTEXT_FPD : 0), 0);
        *directory = where == 1 ? *directory | PASID_FPD : *directory & ~PASID_FPD;
        guest_set_stages(g, 3, &tables, NULL, where == 0 ? PASID_FPD : 0, 0);
        guest_flush(g);
        expect_page(g, 0x5000, read, 3, 0x100000, 4096, MAY_READ | MAY_WRITE);
        assert_int_equal(guest_ask(g, g->device, 0x6000, read, 3).fault, FAULT_FS_PRESENT);
        assert_int_equal(guest_ask(g, g->device, 0x5000, read | EXECUTE, 3).fault,
                         FAULT_EXECUTE_DISABLED);
        assert_int_equal(read32(g, REG_FSTS), 0);
        if (in_context) {
            assert_int_equal(guest_ask(g, g->device, 0x5000, read | TRANSLATION, 3).fault,
                             FAULT_NO_DEVICE_TLB);
            assert_int_equal(read32(g, REG_FSTS), 0);
        } else {
            expect_recorded(g, 0x5000, read | TRANSLATION, 3, FAULT_NO_DEVICE_TLB);
        }
    }
}

static void pasids_must_be_enabled(void **state)
{
    (void)state;
    start(FEATURES_ALL);
    give(0, 0x100000, FS_LEAF, 0);
    give(1, 0x101000, FS_LEAF, 0);
    expect_address(g, 0x5000, READ, 0x100000);
    expect_recorded(g, 0x5000, READ | PASID, 1, FAULT_NO_PASID);
    expect_recorded(g, 0x5000, READ | PASID, 0, FAULT_NO_PASID);
}

/* PDTS: the directory has 2^(PDTS + 7) entries of 64 PASIDs each. */
static void the_directory_has_a_size(void **state)
{
    (void)state;
    start(FEATURES_ALL);
    for (unsigned pdts = 0; pdts <= 1; pdts++) {
        uint32_t end = 64u << (pdts + 7);

        guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(pdts), 0);
        give(end - 1, 0x101000, FS_LEAF, 0);
        give(end, 0x102000, FS_LEAF, 0);
        expect_page(g, 0x5000, READ | PASID, end - 1, 0x101000, 4096, MAY_READ | MAY_WRITE);
        expect_recorded(g, 0x5000, READ | PASID, end, FAULT_PASID_BEYOND);
        expect_recorded(g, 0x5000, READ | PASID, 0xfffff, FAULT_PASID_BEYOND);
        guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(pdts), end);
        expect_recorded(g, 0x5000, READ, 0, FAULT_RID_PASID_BEYOND);
        guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(pdts), end - 1);
        expect_address(g, 0x5000, READ, 0x101000);
    }
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(7), 0);
    expect_recorded(g, 0x5000, READ | PASID, 0x7000, FAULT_PASID_DIRECTORY_PRESENT);
}

static void rid_pasid_names_the_entry_of_other_requests(void **state)
{
    (void)state;
    start(FEATURES_ALL);
    give(0, 0x100000, FS_LEAF, 0);
    give(9, 0x109000, FS_LEAF, 0);
    expect_address(g, 0x5000, READ, 0x100000);
    guest_set_context_bits(g, CONTEXT_PDTS(2), 9);
    expect_address(g, 0x5000, READ, 0x109000);
    /* The request has no PASID for all that. */
    expect_recorded(g, 0x6000, READ, 0, FAULT_FS_PRESENT);
    guest_set_context_bits(g, CONTEXT_PDTS(2), 10);
    expect_recorded(g, 0x5000, READ, 0, FAULT_PASID_ENTRY_PRESENT);

    start(FEATURES_ALL & ~(uint64_t)NVTD_FEATURE_RID_PASID);
    guest_set_context_bits(g, CONTEXT_PDTS(2), 9);
    expect_recorded(g, 0x5000, READ, 0, FAULT_CONTEXT_RESERVED);
}

/* Fields of the context entry are reserved without their capability. */
static void context_fields_are_capabilities(void **state)
{
    static const uint64_t BITS[] = { CONTEXT_DTE, CONTEXT_PASIDE, CONTEXT_PRE | CONTEXT_DTE };
    NvtdConfig config = { .size = sizeof(config) };

    (void)state;
    assert_int_equal(nvtd_config_default(&config), 0);
    g = guest_new_with(&config);
    guest_boot(g);
    for (unsigned i = 0; i < 3; i++) {
        guest_set_context_bits(g, BITS[i], 0);
        expect_recorded(g, 0x5000, READ, 0, FAULT_CONTEXT_RESERVED);
    }
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PRE, 0);
    expect_recorded(g, 0x5000, READ, 0, FAULT_CONTEXT_INVALID);
    guest_set_context_bits(g, CONTEXT_PRE | CONTEXT_DTE, 0);
    expect_recorded(g, 0x5000, READ, 0, FAULT_PASID_ENTRY_PRESENT);
    guest_set_context_bits(g, 1 << 5, 0);
    expect_recorded(g, 0x5000, READ, 0, FAULT_CONTEXT_RESERVED);
}

static void execution_must_be_enabled(void **state)
{
    (void)state;
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    give(5, 0x100000, FS_LEAF, 0);
    expect_recorded(g, 0x5000, READ | EXECUTE | PASID, 5, FAULT_EXECUTE_DISABLED);
    expect_page(g, 0x5000, READ | PASID, 5, 0x100000, 4096, MAY_READ | MAY_WRITE);
    give(5, 0x100000, FS_LEAF, PASID_ERE);
    expect_page(g, 0x5000, READ | EXECUTE | PASID, 5, 0x100000, 4096,
                MAY_READ | MAY_WRITE | MAY_EXECUTE);
    /* Granted to those who ask. */
    expect_page(g, 0x5000, READ | PASID, 5, 0x100000, 4096, MAY_READ | MAY_WRITE);
    /* XD means something with NXE only, and at every level. */
    for (unsigned level = 1; level <= 4; level++) {
        struct tables tables = give(5, 0x100000, FS_LEAF, PASID_ERE);

        *tables_entry(g, &tables, 0x5000, level) |= FS_XD;
        expect_page(g, 0x5000, READ | EXECUTE | PASID, 5, 0x100000, 4096,
                    MAY_READ | MAY_WRITE | MAY_EXECUTE);
        guest_set_stages(g, 5, &tables, NULL, 0, PASID_ERE | PASID_NXE);
        guest_flush(g);
        expect_recorded(g, 0x5000, READ | EXECUTE | PASID, 5, FAULT_NO_EXECUTE);
        expect_page(g, 0x5000, READ | PASID, 5, 0x100000, 4096, MAY_READ | MAY_WRITE);
    }
}

static void privileged_requests_must_be_enabled(void **state)
{
    const uint32_t all = MAY_READ | MAY_WRITE;

    (void)state;
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    give(5, 0x100000, FS_LEAF & ~FS_U, 0);
    expect_recorded(g, 0x5000, READ | PRIVILEGED | PASID, 5, FAULT_PRIVILEGED_DISABLED);
    give(5, 0x100000, FS_LEAF & ~FS_U, PASID_SRE);
    /* A page of the supervisor's. */
    expect_page(g, 0x5000, WRITE | PRIVILEGED | PASID, 5, 0x100000, 4096, all | OF_PRIVILEGED);
    expect_recorded(g, 0x5000, READ | PASID, 5, FAULT_SUPERVISOR);
    expect_recorded(g, 0x5000, WRITE | PASID, 5, FAULT_SUPERVISOR);
    expect_page(g, 0x5000, READ | PRIVILEGED | PASID, 5, 0x100000, 4096, all | OF_PRIVILEGED);
    /* A page that is read-only for users. */
    give(5, 0x101000, FS_LEAF & ~FS_W, PASID_SRE);
    expect_recorded(g, 0x5000, WRITE | PASID, 5, FAULT_NO_WRITE);
    expect_page(g, 0x5000, READ | PASID, 5, 0x101000, 4096, MAY_READ);
    expect_page(g, 0x5000, WRITE | PRIVILEGED | PASID, 5, 0x101000, 4096, all | OF_PRIVILEGED);
    expect_recorded(g, 0x5000, WRITE | PASID, 5, FAULT_NO_WRITE);
    give(5, 0x101000, FS_LEAF & ~FS_W, PASID_SRE | PASID_WPE);
    expect_recorded(g, 0x5000, WRITE | PRIVILEGED | PASID, 5, FAULT_NO_WRITE);
    expect_page(g, 0x5000, READ | PRIVILEGED | PASID, 5, 0x101000, 4096, MAY_READ | OF_PRIVILEGED);
}

static void supervisors_may_be_kept_from_executing_users_pages(void **state)
{
    const uint32_t fetch = READ | EXECUTE | PRIVILEGED | PASID;

    (void)state;
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    give(5, 0x100000, FS_LEAF, PASID_SRE | PASID_ERE);
    assert_true(guest_ask(g, g->device, 0x5000, fetch, 5).permissions & MAY_EXECUTE);
    give(5, 0x100000, FS_LEAF, PASID_SRE | PASID_ERE | PASID_SMEP);
    expect_recorded(g, 0x5000, fetch, 5, FAULT_NO_EXECUTE);
    assert_true(guest_ask(g, g->device, 0x5000, READ | EXECUTE | PASID, 5).permissions &
                MAY_EXECUTE);
    give(5, 0x100000, FS_LEAF & ~FS_U, PASID_SRE | PASID_ERE | PASID_SMEP);
    assert_true(guest_ask(g, g->device, 0x5000, fetch, 5).permissions & MAY_EXECUTE);
}

static void attributes_are_capabilities(void **state)
{
    static const uint64_t SUPERVISOR[] = { PASID_SRE, PASID_WPE, PASID_SMEP };

    (void)state;
    start(FEATURES_ALL & ~(uint64_t)NVTD_FEATURE_SUPERVISOR_REQUEST);
    for (unsigned i = 0; i < 3; i++) {
        give(0, 0x100000, FS_LEAF, SUPERVISOR[i]);
        expect_recorded(g, 0x5000, READ, 0, FAULT_PASID_ENTRY_RESERVED);
    }
    start(FEATURES_ALL & ~(uint64_t)NVTD_FEATURE_EXECUTE_REQUEST);
    give(0, 0x100000, FS_LEAF, PASID_ERE);
    expect_recorded(g, 0x5000, READ, 0, FAULT_PASID_ENTRY_RESERVED);
    give(0, 0x100000, FS_LEAF, PASID_NXE);
    expect_address(g, 0x5000, READ, 0x100000);
}

static void global_pages_are_told(void **state)
{
    (void)state;
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    give(5, 0x100000, FS_LEAF | FS_G, 0);
    expect_page(g, 0x5000, READ | PASID, 5, 0x100000, 4096,
                MAY_READ | MAY_WRITE | NVTD_PERMISSION_GLOBAL);
}

/* With PASID the interrupt range is refused, whatever the tables map there. */
static void the_interrupt_range_has_no_pasid(void **state)
{
    struct tables tables;

    (void)state;
    start(FEATURES_ALL);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_DTE | CONTEXT_PDTS(2), 0);
    tables = give(5, 0x100000, FS_LEAF, 0);
    tables_map(g, &tables, 0xfee00000, 0x200000, 2, FS_LEAF);
    expect_recorded(g, 0xfee00000, WRITE | PASID, 5, FAULT_INTERRUPT);
    expect_recorded(g, 0xfeefffff, READ | PASID, 5, FAULT_INTERRUPT);
    expect_recorded(g, 0xfee00000, READ | PASID | TRANSLATION, 5, FAULT_INTERRUPT);
    /* Who has no entry is refused for that. */
    expect_recorded(g, 0xfee00000, WRITE | PASID, 6, FAULT_PASID_ENTRY_PRESENT);
}

static int ask(uint32_t flags, uint32_t pasid)
{
    NvtdRequest request = {
        .size = sizeof(request), .address = 0x5000, .flags = flags, .pasid = pasid
    };
    NvtdTranslation out = { .size = sizeof(out) };

    return nvtd_translate(g->unit, g->device, &request, &out);
}

static void requests_that_cannot_be(void **state)
{
    (void)state;
    start(FEATURES_ALL);
    expect_error(ask(READ, 1), -EINVAL, "request->pasid");
    expect_error(ask(READ | PASID, 1 << 20), -EINVAL, "20 bits");
    expect_error(ask(READ | EXECUTE, 0), -EINVAL, "PASID");
    expect_error(ask(READ | PRIVILEGED, 0), -EINVAL, "PASID");
    expect_error(ask(PASID, 1), -EINVAL, "read");
    expect_error(ask(READ | TRANSLATION | TRANSLATED, 0), -EINVAL, "NVTD_REQUEST_TRANSLATED");
    expect_error(ask(READ | 0x100, 0), -EINVAL, "request->flags");
    assert_int_equal(guest_stats(g).translations, 0);
    assert_int_equal(read32(g, REG_FSTS), 0);
}

#define TEST(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_pasid_has_its_tables),
        TEST(directory_and_table_faults),
        TEST(faults_disabled),
        TEST(pasids_must_be_enabled),
        TEST(the_directory_has_a_size),
        TEST(rid_pasid_names_the_entry_of_other_requests),
        TEST(context_fields_are_capabilities),
        TEST(execution_must_be_enabled),
        TEST(privileged_requests_must_be_enabled),
        TEST(supervisors_may_be_kept_from_executing_users_pages),
        TEST(attributes_are_capabilities),
        TEST(global_pages_are_told),
        TEST(the_interrupt_range_has_no_pasid),
        TEST(requests_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
