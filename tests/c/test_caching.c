/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Tables that change: until the guest's invalidation completes an answer may be the old or the new
 * one, afterwards only the new one. For every granularity that names what has changed.
 */
#include "guest.h"

#include <pthread.h>

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE
#define PASID NVTD_REQUEST_PASID

#define AM(mask) ((uint64_t)(mask))
#define IH (1ull << 6) /* only leaf entries have changed */

/* Register-based invalidation (VT-d 11.4.6, 11.4.8). */
#define CCMD_ICC (1ull << 63)
#define CCMD_GRANULARITY(kind) ((uint64_t)(kind) << 61)
#define CCMD_SID(sid) ((uint64_t)(sid) << 16)
#define IOTLB_IVT (1ull << 63)
#define IOTLB_GRANULARITY(kind) ((uint64_t)(kind) << 60)
#define IOTLB_DID(did) ((uint64_t)(did) << 32)

static struct guest *g;

struct descriptor {
    uint64_t qw0, qw1;
};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static int teardown(void **state)
{
    (void)state;
    if (g) {
        guest_free(g);
    }
    g = NULL;
    return 0;
}

static void start(uint64_t mode)
{
    (void)teardown(NULL);
    g = guest_start(FEATURES_ALL, 48, mode);
    if (mode == RTADDR_SMT) {
        guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    }
}

static void invalidate(struct descriptor descriptor)
{
    guest_put(g, descriptor.qw0, descriptor.qw1);
    guest_sync(g);
}

static uint64_t ask(uint64_t address, uint32_t pasid)
{
    NvtdTranslation out =
        guest_ask(g, g->device, address, READ | (pasid ? (uint32_t)PASID : 0u), pasid);

    assert_int_equal(out.fault, 0);
    return out.address;
}

/* Asked twice, so that what can be kept is kept. */
static void fill(uint64_t address, uint32_t pasid, uint64_t expected)
{
    assert_int_equal(ask(address, pasid), expected);
    assert_int_equal(ask(address, pasid), expected);
}

static void either(uint64_t address, uint32_t pasid, uint64_t before, uint64_t after)
{
    uint64_t found = ask(address, pasid);

    assert_true(found == before || found == after);
}

/* The page of `level` at 1 GiB goes elsewhere, then nowhere; `descriptor` names it. */
static void page_changes(const struct tables *tables, unsigned level, uint64_t bits, uint32_t pasid,
                         struct descriptor descriptor)
{
    const uint64_t address = 1 * GIB, inside = address + 0x5000 % (1ull << (3 + 9 * level));
    const uint64_t offset = inside - address;
    uint64_t *entry = tables_entry(g, tables, address, level);

    tables_map(g, tables, address, 1 * GIB, level, bits);
    fill(inside, pasid, 1 * GIB + offset);
    tables_map(g, tables, address, 2 * GIB, level, bits);
    either(inside, pasid, 1 * GIB + offset, 2 * GIB + offset);
    invalidate(descriptor);
    fill(inside, pasid, 2 * GIB + offset);
    *entry = 0;
    invalidate(descriptor);
    assert_int_not_equal(
        guest_ask(g, g->device, inside, READ | (pasid ? (uint32_t)PASID : 0u), pasid).fault, 0);
    guest_clear_faults(g);
    /* What is not there is not kept. */
    tables_map(g, tables, address, 1 * GIB, level, bits);
    fill(inside, pasid, 1 * GIB + offset);
    *entry = 0;
    invalidate(descriptor);
    guest_flush(g);
}

/* By any address in the page. */
static const struct descriptor SECOND_STAGE[] = {
    { QI_IOTLB_GLOBAL, 0 },
    { QI_IOTLB_DOMAIN(GUEST_DID), 0 },
    { QI_IOTLB_PAGE(GUEST_DID), 1 * GIB | AM(0) },
    { QI_IOTLB_PAGE(GUEST_DID), 1 * GIB | AM(0) | IH },
    { QI_IOTLB_PAGE(GUEST_DID), 1 * GIB | AM(1) },
    { QI_IOTLB_PAGE(GUEST_DID), 1 * GIB | AM(9) },
    { QI_IOTLB_PAGE(GUEST_DID), 1 * GIB | AM(18) },
};

static void second_stage_pages(void **state)
{
    (void)state;
    for (unsigned legacy = 0; legacy <= 1; legacy++) {
        struct tables tables;

        start(legacy ? RTADDR_LEGACY : RTADDR_SMT);
        tables = tables_new(g, 4, SS_RW);
        guest_set_stages(g, 0, NULL, &tables, 0, 0);
        if (legacy) {
            guest_set_legacy_context(g, GUEST_SID, PRESENT | tables.root,
                                     LEGACY_AW(2) | LEGACY_DID(GUEST_DID));
        }
        guest_flush(g);
        for (unsigned level = 1; level <= 3; level++) {
            for (size_t i = 0; i < COUNT(SECOND_STAGE); i++) {
                page_changes(&tables, level, SS_RW, 0, SECOND_STAGE[i]);
            }
        }
        /* Another address of the large page does as well. */
        page_changes(&tables, 2, SS_RW, 0,
                     (struct descriptor){ QI_IOTLB_PAGE(GUEST_DID), 1 * GIB + 0x1ff000 });
        page_changes(&tables, 3, SS_RW, 0,
                     (struct descriptor){ QI_IOTLB_PAGE(GUEST_DID), 1 * GIB + 0x3ffff000 });
        assert_true(guest_stats(g).cache_hits > 0);
    }
}

static void first_stage_pages(void **state)
{
    (void)state;
    for (uint32_t pasid = 0; pasid <= 7; pasid += 7) {
        const struct descriptor descriptors[] = {
            { QI_IOTLB_GLOBAL, 0 },
            { QI_IOTLB_DOMAIN(GUEST_DID), 0 },
            { QI_PASID_GLOBAL, 0 },
            { QI_PIOTLB_PASID(GUEST_DID, pasid), 0 },
            { QI_PIOTLB_PAGE(GUEST_DID, pasid), 1 * GIB | AM(0) },
            { QI_PIOTLB_PAGE(GUEST_DID, pasid), 1 * GIB | AM(0) | IH },
            { QI_PIOTLB_PAGE(GUEST_DID, pasid), 1 * GIB | AM(9) },
            { QI_PIOTLB_PAGE(GUEST_DID, pasid), 1 * GIB | AM(18) },
            { QI_PIOTLB_PAGE(GUEST_DID, pasid), AM(51) },
        };
        struct tables tables;

        start(RTADDR_SMT);
        tables = tables_new(g, 4, FS_TABLE);
        guest_set_stages(g, pasid, &tables, NULL, 0, 0);
        guest_flush(g);
        for (unsigned level = 1; level <= 3; level++) {
            for (size_t i = 0; i < COUNT(descriptors); i++) {
                page_changes(&tables, level, FS_LEAF, pasid, descriptors[i]);
            }
        }
        page_changes(&tables, 3, FS_LEAF, pasid,
                     (struct descriptor){ QI_PIOTLB_PAGE(GUEST_DID, pasid), 1 * GIB + 0x3ffff000 });
        assert_true(guest_stats(g).cache_hits > 0);
    }
}

/* Both stages, with the first stage's tables one to one in the second. */
static struct tables nested(struct tables *second)
{
    struct tables first;

    start(RTADDR_SMT);
    *second = tables_new(g, 4, SS_RW);
    for (unsigned i = 0; i < 256; i++) {
        tables_map(g, second, GUEST_HEAP + i * 4096, GUEST_HEAP + i * 4096, 1, SS_RW);
    }
    first = tables_new(g, 4, FS_TABLE);
    guest_set_stages(g, 0, &first, second, 0, 0);
    guest_flush(g);
    return first;
}

static void nested_pages_by_the_first_stage(void **state)
{
    static const struct descriptor DESCRIPTORS[] = {
        { QI_IOTLB_GLOBAL, 0 },
        { QI_IOTLB_DOMAIN(GUEST_DID), 0 },
        { QI_PIOTLB_PASID(GUEST_DID, 0), 0 },
        { QI_PIOTLB_PAGE(GUEST_DID, 0), 1 * GIB | AM(0) },
        { QI_PIOTLB_PAGE(GUEST_DID, 0), 1 * GIB | AM(9) },
    };
    struct tables second, first = nested(&second);

    (void)state;
    tables_map(g, &second, 1 * GIB, 1 * GIB, 3, SS_RW);
    tables_map(g, &second, 2 * GIB, 2 * GIB, 3, SS_RW);
    for (unsigned level = 1; level <= 3; level++) {
        for (size_t i = 0; i < COUNT(DESCRIPTORS); i++) {
            page_changes(&first, level, FS_LEAF, 0, DESCRIPTORS[i]);
        }
    }
}

/* The second stage changes: guest-physical addresses are named, of a page or of a table. */
static void nested_pages_by_the_second_stage(void **state)
{
    const uint64_t gpa = 0x40700000;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct tables second, first = nested(&second), other;
        const struct descriptor page[] = {
            { QI_IOTLB_GLOBAL, 0 },
            { QI_IOTLB_DOMAIN(GUEST_DID), 0 },
            { QI_IOTLB_PAGE(GUEST_DID), gpa | AM(0) },
            { QI_IOTLB_PAGE(GUEST_DID), gpa | AM(9) },
        };
        struct descriptor table = page[i];
        uint64_t last_table;

        tables_map(g, &first, 0x5000, gpa, 1, FS_LEAF);
        tables_map(g, &second, gpa, 0x100000, 1, SS_RW);
        fill(0x5000, 0, 0x100000);
        tables_map(g, &second, gpa, 0x200000, 1, SS_RW);
        either(0x5000, 0, 0x100000, 0x200000);
        invalidate(page[i]);
        fill(0x5000, 0, 0x200000);

        /* The table with the leaf is another one now. */
        other = tables_new(g, 4, FS_TABLE);
        tables_map(g, &other, 0x5000, gpa + 0x1000, 1, FS_LEAF);
        tables_map(g, &second, gpa + 0x1000, 0x300000, 1, SS_RW);
        last_table = *tables_entry(g, &first, 0x5000, 2) & ~0xfffull;
        tables_map(g, &second, last_table, *tables_entry(g, &other, 0x5000, 2) & ~0xfffull, 1,
                   SS_RW);
        if (table.qw1) {
            table.qw1 = last_table | (table.qw1 & 0x3f);
        }
        either(0x5000, 0, 0x200000, 0x300000);
        invalidate(table);
        fill(0x5000, 0, 0x300000);
    }
}

/* A large page of the first stage over small ones of the second: naming one address of the page
 * names all that is kept of it. */
static void parts_of_large_nested_pages(void **state)
{
    struct tables second, first = nested(&second);

    (void)state;
    tables_map(g, &first, 1 * GIB, 2 * GIB, 2, FS_LEAF);
    for (unsigned i = 0; i < 512; i++) {
        tables_map(g, &second, 2 * GIB + i * 4096, 64 * MIB + i * 4096, 1, SS_RW);
    }
    tables_map(g, &second, 1 * GIB, 1 * GIB, 3, SS_RW);
    for (unsigned i = 0; i < 512; i += 73) {
        fill(1 * GIB + i * 4096, 0, 64 * MIB + i * 4096);
    }
    tables_map(g, &first, 1 * GIB, 1 * GIB, 2, FS_LEAF);
    invalidate((struct descriptor){ QI_PIOTLB_PAGE(GUEST_DID, 0), 1 * GIB | AM(0) });
    for (unsigned i = 0; i < 512; i += 73) {
        fill(1 * GIB + i * 4096, 0, 1 * GIB + i * 4096);
    }
}

/* A PASID entry leads to other tables, of another domain. */
static void pasid_entries(void **state)
{
    for (uint32_t pasid = 0; pasid <= 7; pasid += 7) {
        const struct descriptor descriptors[] = {
            { QI_PASID_GLOBAL, 0 },
            { QI_PASID_DOMAIN(GUEST_DID), 0 },
            { QI_PASID_PASID(GUEST_DID, pasid), 0 },
            { QI_CONTEXT_GLOBAL, 0 },
            { QI_CONTEXT_DEVICE(0, GUEST_SID), 0 },
        };

        (void)state;
        for (size_t i = 0; i < COUNT(descriptors); i++) {
            struct tables one, two;

            start(RTADDR_SMT);
            one = tables_new(g, 4, FS_TABLE);
            two = tables_new(g, 4, FS_TABLE);
            tables_map(g, &one, 0x5000, 0x100000, 1, FS_LEAF);
            tables_map(g, &two, 0x5000, 0x200000, 1, FS_LEAF);
            guest_set_stages(g, pasid, &one, NULL, 0, 0);
            guest_flush(g);
            fill(0x5000, pasid, 0x100000);
            guest_set_pasid_entry(g, pasid, PRESENT | PASID_PGTT(PGTT_FIRST),
                                  (GUEST_DID + 1) | PASID_PWSNP, two.root);
            either(0x5000, pasid, 0x100000, 0x200000);
            /* As Linux tears an entry down: PASID cache, then the translations. */
            guest_put(g, descriptors[i].qw0, descriptors[i].qw1);
            guest_put(g, QI_PIOTLB_PASID(GUEST_DID, pasid), 0);
            guest_sync(g);
            fill(0x5000, pasid, 0x200000);
            *guest_qword(g, guest_pasid_entry(g, pasid)) = 0;
            guest_put(g, QI_PASID_PASID(GUEST_DID + 1, pasid), 0);
            guest_put(g, QI_PIOTLB_PASID(GUEST_DID + 1, pasid), 0);
            guest_sync(g);
            expect_recorded(g, 0x5000, READ | (pasid ? (uint32_t)PASID : 0u), pasid,
                            FAULT_PASID_ENTRY_PRESENT);
        }
    }
}

static void context_entries(void **state)
{
    static const struct descriptor DESCRIPTORS[] = {
        { QI_CONTEXT_GLOBAL, 0 },
        { QI_CONTEXT_DOMAIN(GUEST_DID), 0 },
        { QI_CONTEXT_DEVICE(GUEST_DID, GUEST_SID), 0 },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(DESCRIPTORS); i++) {
        struct tables one, two;
        uint64_t directory;

        start(RTADDR_LEGACY);
        one = tables_new(g, 4, SS_RW);
        two = tables_new(g, 4, SS_RW);
        tables_map(g, &one, 0x5000, 0x100000, 1, SS_RW);
        tables_map(g, &two, 0x5000, 0x200000, 1, SS_RW);
        guest_set_legacy_context(g, GUEST_SID, PRESENT | one.root,
                                 LEGACY_AW(2) | LEGACY_DID(GUEST_DID));
        guest_flush(g);
        fill(0x5000, 0, 0x100000);
        guest_set_legacy_context(g, GUEST_SID, PRESENT | two.root,
                                 LEGACY_AW(2) | LEGACY_DID(GUEST_DID + 1));
        either(0x5000, 0, 0x100000, 0x200000);
        guest_put(g, DESCRIPTORS[i].qw0, DESCRIPTORS[i].qw1);
        guest_put(g, QI_IOTLB_DOMAIN(GUEST_DID), 0);
        guest_sync(g);
        fill(0x5000, 0, 0x200000);

        start(RTADDR_SMT);
        one = tables_new(g, 4, FS_TABLE);
        two = tables_new(g, 4, FS_TABLE);
        tables_map(g, &one, 0x5000, 0x100000, 1, FS_LEAF);
        tables_map(g, &two, 0x5000, 0x200000, 1, FS_LEAF);
        guest_set_stages(g, 0, &one, NULL, 0, 0);
        guest_flush(g);
        fill(0x5000, 0, 0x100000);
        directory = g->pasid_directory;
        g->pasid_directory = guest_page(g);
        assert_int_not_equal(directory, g->pasid_directory);
        guest_set_stages(g, 0, &two, NULL, 0, 0);
        guest_set_context(g, GUEST_SID, g->pasid_directory | CONTEXT_PDTS(2) | PRESENT, 0);
        either(0x5000, 0, 0x100000, 0x200000);
        guest_put(g, DESCRIPTORS[i].qw0, DESCRIPTORS[i].qw1);
        guest_put(g, QI_PASID_GLOBAL, 0);
        guest_put(g, QI_IOTLB_GLOBAL, 0);
        guest_sync(g);
        fill(0x5000, 0, 0x200000);
    }
}

/* CAP.ESRTPS: setting the root table invalidates everything. */
static void root_tables(void **state)
{
    struct tables one, two;

    (void)state;
    start(RTADDR_SMT);
    assert_true(CAP_ESRTPS(read64(g, REG_CAP)));
    one = tables_new(g, 4, FS_TABLE);
    two = tables_new(g, 4, SS_RW);
    tables_map(g, &one, 0x5000, 0x100000, 1, FS_LEAF);
    tables_map(g, &two, 0x5000, 0x200000, 1, SS_RW);
    guest_set_stages(g, 0, &one, NULL, 0, 0);
    guest_flush(g);
    fill(0x5000, 0, 0x100000);
    g->root = guest_page(g);
    guest_set_legacy_context(g, GUEST_SID, PRESENT | two.root,
                             LEGACY_AW(2) | LEGACY_DID(GUEST_DID));
    write64(g, REG_RTADDR, g->root | RTADDR_LEGACY);
    fill(0x5000, 0, 0x100000);
    guest_command(g, CMD_SRTP, true);
    fill(0x5000, 0, 0x200000);
}

/* Legacy mode without a queue. */
static void commands_in_registers(void **state)
{
    (void)state;
    for (uint64_t kind = 1; kind <= 3; kind++) {
        struct tables one, two;
        uint64_t iotlb;

        start(RTADDR_LEGACY);
        iotlb = (read64(g, REG_ECAP) >> 8 & 0x3ff) * 16;
        one = tables_new(g, 4, SS_RW);
        two = tables_new(g, 4, SS_RW);
        tables_map(g, &one, 0x5000, 0x100000, 1, SS_RW);
        tables_map(g, &two, 0x5000, 0x300000, 1, SS_RW);
        guest_set_legacy_context(g, GUEST_SID, PRESENT | one.root,
                                 LEGACY_AW(2) | LEGACY_DID(GUEST_DID));
        guest_flush(g);
        guest_command(g, CMD_QIE, false);
        fill(0x5000, 0, 0x100000);
        tables_map(g, &one, 0x5000, 0x200000, 1, SS_RW);
        either(0x5000, 0, 0x100000, 0x200000);
        write64(g, iotlb, 0x5000);
        write64(g, iotlb + 8, IOTLB_IVT | IOTLB_GRANULARITY(kind) | IOTLB_DID(GUEST_DID));
        assert_int_equal(read64(g, iotlb + 8) & IOTLB_IVT, 0);
        fill(0x5000, 0, 0x200000);

        guest_set_legacy_context(g, GUEST_SID, PRESENT | two.root,
                                 LEGACY_AW(2) | LEGACY_DID(GUEST_DID));
        either(0x5000, 0, 0x200000, 0x300000);
        write64(g, REG_CCMD,
                CCMD_ICC | CCMD_GRANULARITY(kind) | CCMD_SID(GUEST_SID) | GUEST_DID);
        assert_int_equal(read64(g, REG_CCMD) & CCMD_ICC, 0);
        write64(g, iotlb + 8, IOTLB_IVT | IOTLB_GRANULARITY(1));
        fill(0x5000, 0, 0x300000);
    }
}

/* What is permitted can shrink with an invalidation, and grow without. */
static void permissions(void **state)
{
    struct tables tables;

    (void)state;
    start(RTADDR_SMT);
    tables = tables_new(g, 4, FS_TABLE);
    tables_map(g, &tables, 0x5000, 0x100000, 1, FS_LEAF);
    guest_set_stages(g, 7, &tables, NULL, 0, PASID_SRE | PASID_WPE);
    guest_flush(g);
    for (unsigned privileged = 0; privileged <= 1; privileged++) {
        uint32_t who = PASID | (privileged ? (uint32_t)NVTD_REQUEST_PRIVILEGED : 0u);

        for (unsigned again = 0; again < 2; again++) {
            assert_int_equal(guest_ask(g, g->device, 0x5000, WRITE | who, 7).fault, 0);
        }
        *tables_entry(g, &tables, 0x5000, 1) &= ~FS_W;
        invalidate((struct descriptor){ QI_PIOTLB_PAGE(GUEST_DID, 7), 0x5000 });
        expect_recorded(g, 0x5000, WRITE | who, 7, FAULT_NO_WRITE);
        assert_int_equal(guest_ask(g, g->device, 0x5000, READ | who, 7).fault, 0);
        *tables_entry(g, &tables, 0x5000, 1) |= FS_W;
        assert_int_equal(guest_ask(g, g->device, 0x5000, WRITE | who, 7).fault, 0);
    }
}

/* Naming less than what has changed promises nothing; naming others' must not hurt. */
static void others_stay_usable(void **state)
{
    struct tables one, two;

    (void)state;
    start(RTADDR_SMT);
    one = tables_new(g, 4, FS_TABLE);
    two = tables_new(g, 4, FS_TABLE);
    tables_map(g, &one, 0x5000, 0x100000, 1, FS_LEAF);
    tables_map(g, &two, 0x5000, 0x200000, 1, FS_LEAF);
    guest_set_stages(g, 7, &one, NULL, 0, 0);
    guest_set_stages(g, 8, &two, NULL, 0, 0);
    guest_flush(g);
    fill(0x5000, 7, 0x100000);
    fill(0x5000, 8, 0x200000);
    invalidate((struct descriptor){ QI_PIOTLB_PASID(GUEST_DID, 7), 0 });
    invalidate((struct descriptor){ QI_PASID_PASID(GUEST_DID, 7), 0 });
    invalidate((struct descriptor){ QI_IOTLB_DOMAIN(GUEST_DID + 1), 0 });
    fill(0x5000, 7, 0x100000);
    fill(0x5000, 8, 0x200000);
    /* A look sees what is there now. */
    tables_map(g, &two, 0x5000, 0x300000, 1, FS_LEAF);
    assert_int_equal(
        guest_ask(g, g->device, 0x5000, READ | PASID | NVTD_REQUEST_DEBUG, 8).address, 0x300000);
    invalidate((struct descriptor){ QI_PIOTLB_PAGE(GUEST_DID, 8), 0x5000 });
    fill(0x5000, 8, 0x300000);
}

/* RAM that is taken back takes along what was cached of the tables in it. */
static void tables_in_ram_that_goes(void **state)
{
    const uint64_t gpa = 4 * GIB;
    uint64_t *page;
    struct tables first;

    (void)state;
    start(RTADDR_SMT);
    page = guest_qword(g, guest_page(g));
    first = tables_new(g, 4, FS_TABLE);
    assert_int_equal(nvtd_ram_add(g->unit, gpa, 4096, page, 0), 0);
    *tables_entry(g, &first, 0x5000, 2) = gpa | FS_TABLE;
    page[5] = 0x100000 | FS_LEAF;
    guest_set_stages(g, 0, &first, NULL, 0, 0);
    guest_flush(g);
    fill(0x5000, 0, 0x100000);
    assert_int_equal(nvtd_ram_remove(g->unit, gpa, 4096), 0);
    expect_recorded(g, 0x5000, READ, 0, FAULT_FS_ACCESS);
}

static struct hammer {
    bool stop;
    unsigned asked, failed;
} hammer;

static void *ask_all_the_time(void *unused)
{
    while (!guest_atomic_flag(&hammer.stop)) {
        NvtdRequest request = { .size = sizeof(request), .address = 0x5000, .flags = READ };
        NvtdTranslation out = { .size = sizeof(out) };
        bool good = nvtd_translate(g->unit, g->device, &request, &out) == 0 && out.fault == 0;

        __atomic_fetch_add(&hammer.asked, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&hammer.failed, !good, __ATOMIC_RELAXED);
    }
    return unused;
}

/* A walk on another thread that began before an invalidation leaves nothing behind it. What changes
 * is what the walk reads first: the PASID entry, or the topmost table. */
static void while_others_ask(void **state)
{
    static const struct descriptor DESCRIPTORS[] = {
        { QI_PASID_PASID(GUEST_DID, 0), 0 },
        { QI_PIOTLB_PAGE(GUEST_DID, 0), 0x5000 },
        { QI_PIOTLB_PASID(GUEST_DID, 0), 0 },
        { QI_IOTLB_GLOBAL, 0 },
    };
    struct tables second, tables[2] = { nested(&second) };
    const unsigned rounds = guest_rounds(20000);
    uint64_t *pointer, *top, tops[2];
    pthread_t threads[2];

    (void)state;
    hammer = (struct hammer){ 0 };
    tables[1] = tables_new(g, 4, FS_TABLE);
    for (unsigned i = 0; i < 2; i++) {
        tables_map(g, &tables[i], 0x5000, 0x40000000 + i * 0x1000, 1, FS_LEAF);
        tables_map(g, &second, 0x40000000 + i * 0x1000, 0x100000 + i * 0x1000, 1, SS_RW);
        tops[i] = *tables_entry(g, &tables[i], 0x5000, 4);
    }
    pointer = guest_qword(g, guest_pasid_entry(g, 0) + 16);
    top = tables_entry(g, &tables[0], 0x5000, 4);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_all_the_time, NULL), 0);
    }
    for (unsigned i = 0; i < rounds; i++) {
        const struct descriptor *how = &DESCRIPTORS[i / 2 % COUNT(DESCRIPTORS)];
        const unsigned which = i % 2 ? 0 : 1;
        NvtdRequest request = { .size = sizeof(request), .address = 0x5000, .flags = READ };
        NvtdTranslation out = { .size = sizeof(out) };

        /* Once to have the others walk, and while they do, after a change. */
        invalidate(*how);
        for (volatile unsigned pause = i % 97 * 4; pause; pause--) {
        }
        if (how == DESCRIPTORS) {
            guest_atomic_store(pointer, tables[which].root);
        } else {
            guest_atomic_store(top, tops[which]);
        }
        invalidate(*how);
        if (nvtd_translate(g->unit, g->device, &request, &out) ||
            out.address != 0x100000 + which * 0x1000) {
            __atomic_fetch_add(&hammer.failed, 1, __ATOMIC_RELAXED);
        }
    }
    guest_atomic_raise(&hammer.stop);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(hammer.failed, 0);
    assert_true(hammer.asked > 0);
}

#define TEST(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(second_stage_pages),
        TEST(first_stage_pages),
        TEST(nested_pages_by_the_first_stage),
        TEST(nested_pages_by_the_second_stage),
        TEST(parts_of_large_nested_pages),
        TEST(pasid_entries),
        TEST(context_entries),
        TEST(root_tables),
        TEST(commands_in_registers),
        TEST(permissions),
        TEST(others_stay_usable),
        TEST(tables_in_ram_that_goes),
        TEST(while_others_ask),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
