/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * PASIDs of assigned devices: which commands of the guest put them on the host, what of a PASID entry
 * the host is told, and which PASIDs an invalidation reaches. The kernel is a twin.
 */
#include "machine.h"

#include <errno.h>

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE
#define PRIVILEGED NVTD_REQUEST_PRIVILEGED
#define OTHER_DID 6

static struct machine *m;
static struct guest *g;
static struct slot *slot;

static int start(NvtdConfig offer)
{
    m = machine_new(NULL, offer);
    g = m->g;
    slot = machine_add(m);
    machine_boot(m);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return start(machine_offer(NVTD_FEATURE_SUPERVISOR_REQUEST | NVTD_FEATURE_EXTENDED_ACCESSED));
}

static int setup_57(void **state)
{
    NvtdConfig offer = machine_offer(0);

    (void)state;
    offer.address_width = 57;
    return start(offer);
}

static int teardown(void **state)
{
    (void)state;
    machine_free(m);
    return 0;
}

static void announce(uint32_t pasid)
{
    machine_announce(m, QI_PASID_PASID(GUEST_DID, pasid));
}

static void expect_pasids(uint32_t attached, uint32_t blocked)
{
    NvtdDeviceInfo info = machine_info(m, slot);

    assert_int_equal(info.pasids, attached);
    assert_int_equal(info.pasids_blocked, blocked);
}

/* A request that the cache answers although the tables say otherwise, as is its right. */
static void expect_stale(uint64_t address, uint32_t pasid, uint64_t gpa)
{
    NvtdRequest request = { .size = sizeof(request), .address = address,
                            .flags = READ | NVTD_REQUEST_PASID, .pasid = pasid };
    NvtdTranslation out = { .size = sizeof(out) };

    assert_int_equal(nvtd_twin_dma(m->twin, slot->file, &request, &out), 0);
    assert_int_equal(out.flags, NVTD_TRANSLATION_CACHED | NVTD_TRANSLATION_STALE);
    assert_int_equal(out.address, gpa);
}

/* Entries that come and go, by each command that announces them. */
static void every_command_announces(void **state)
{
    static const uint64_t COMMANDS[] = {
        QI_PASID_DOMAIN(GUEST_DID), QI_PASID_GLOBAL, QI_CONTEXT_DEVICE(0, GUEST_SID),
        QI_CONTEXT_DOMAIN(0), QI_CONTEXT_GLOBAL,
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++) {
        (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
        (void)machine_set_pasid(m, 0x7fff, GUEST_DID, 0x5000, 0x800000);
        expect_blocked(m, slot, 9);
        machine_announce(m, COMMANDS[i]);
        expect_reaches(m, slot, 0x5000, 9, 0x700000);
        expect_reaches(m, slot, 0x5000, 0x7fff, 0x800000);
        expect_blocked(m, slot, 10);
        expect_pasids(2, 0);
        assert_int_equal(machine_stats(m).nested, 3);
        guest_set_pasid_entry(g, 9, 0, 0, 0);
        guest_set_pasid_entry(g, 0x7fff, 0, 0, 0);
        machine_announce(m, COMMANDS[i]);
        expect_blocked(m, slot, 9);
        expect_blocked(m, slot, 0x7fff);
        expect_pasids(0, 0);
        assert_int_equal(machine_stats(m).nested, 1);
    }
}

static void one_pasid_is_announced(void **state)
{
    (void)state;
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    (void)machine_set_pasid(m, 10, GUEST_DID, 0x5000, 0x800000);
    announce(9);
    expect_reaches(m, slot, 0x5000, 9, 0x700000);
    expect_blocked(m, slot, 10);
    expect_pasids(1, 0);
    announce(10);
    expect_reaches(m, slot, 0x5000, 10, 0x800000);
    guest_set_pasid_entry(g, 9, 0, 0, 0);
    guest_set_pasid_entry(g, 10, 0, 0, 0);
    announce(10);
    expect_reaches(m, slot, 0x5000, 9, 0x700000);
    expect_blocked(m, slot, 10);
    expect_pasids(1, 0);
}

static void a_table_is_replaced(void **state)
{
    int64_t attaches;

    (void)state;
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    announce(9);
    expect_reaches(m, slot, 0x5000, 9, 0x700000);
    attaches = machine_calls(m, CALL_ATTACH);
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x800000);
    guest_flush_pasid(g, 9);
    expect_reaches(m, slot, 0x5000, 9, 0x800000);
    /* In one step: the PASID is never without a table. */
    assert_int_equal(machine_calls(m, CALL_ATTACH), attaches + 1);
    assert_int_equal(machine_calls(m, CALL_DETACH), 0);
    assert_int_equal(machine_stats(m).nested, 2);
    assert_int_equal(machine_stats(m).peak_nested, 3);
    /* The same again is no change. */
    guest_flush_pasid(g, 9);
    assert_int_equal(machine_calls(m, CALL_ATTACH), attaches + 1);
}

static void pass_through(void **state)
{
    (void)state;
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    announce(9);
    guest_set_stages(g, 9, NULL, NULL, PASID_AW48, 0);
    announce(9);
    expect_reaches(m, slot, 0x5000, 9, 0x5000);
    expect_unreached(m, slot, GUEST_RAM_SIZE, 9);
    expect_pasids(1, 0);
    assert_int_equal(machine_stats(m).nested, 1);
}

/* SRE, WPE and EAFE: each is another HWPT over the same table. */
static void flags_of_the_entry(void **state)
{
    struct tables tables = machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    uint64_t *entry = tables_entry(g, &tables, 0x5000, 1);

    (void)state;
    *entry &= ~FS_W;
    announce(9);
    assert_int_equal(machine_dma(m, slot, 0x5000, READ | PRIVILEGED, 9).fault,
                     FAULT_PRIVILEGED_DISABLED);
    guest_set_stages(g, 9, &tables, NULL, 0, PASID_SRE);
    guest_flush_pasid(g, 9);
    assert_int_equal(machine_dma(m, slot, 0x5000, READ | PRIVILEGED, 9).fault, 0);
    assert_int_equal(machine_dma(m, slot, 0x5000, WRITE | PRIVILEGED, 9).fault, 0);
    assert_int_equal(machine_dma(m, slot, 0x5000, WRITE, 9).fault, FAULT_NO_WRITE);
    guest_set_stages(g, 9, &tables, NULL, 0, PASID_SRE | PASID_WPE);
    guest_flush_pasid(g, 9);
    assert_int_equal(machine_dma(m, slot, 0x5000, READ | PRIVILEGED, 9).fault, 0);
    assert_int_equal(machine_dma(m, slot, 0x5000, WRITE | PRIVILEGED, 9).fault, FAULT_NO_WRITE);
    assert_int_equal(*entry & FS_EA, 0);
    guest_set_stages(g, 9, &tables, NULL, 0, PASID_EAFE);
    guest_flush_pasid(g, 9);
    assert_int_equal(machine_dma(m, slot, 0x5000, READ, 9).fault, 0);
    assert_int_equal(*entry & FS_EA, FS_EA);
    assert_int_equal(guest_stats(g).hwpt_allocs, 5);
    assert_int_equal(machine_stats(m).nested, 2);
}

static void five_levels(void **state)
{
    const uint64_t high = 1ull << 50;
    struct tables tables = tables_new(g, 5, FS_TABLE);

    (void)state;
    tables_map(g, &tables, high, 0x700000, 1, FS_LEAF);
    guest_set_stages(g, 9, &tables, NULL, 0, 0);
    (void)machine_set_pasid(m, 10, GUEST_DID, 0x5000, 0x800000);
    announce(9);
    announce(10);
    expect_reaches(m, slot, high, 9, 0x700000);
    expect_unreached(m, slot, high, 10);
    expect_reaches(m, slot, 0x5000, 10, 0x800000);
}

/* Each device has its PASIDs: what is one's is not the other's. */
static void devices_have_pasids_of_their_own(void **state)
{
    struct slot *other = machine_add(m);
    uint64_t directory = g->pasid_directory;

    (void)state;
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    g->pasid_directory = guest_page(g);
    machine_context(m, other, CONTEXT_PASIDE);
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x800000);
    (void)machine_set_pasid(m, 10, GUEST_DID, 0x5000, 0x900000);
    announce(9);
    announce(10);
    expect_reaches(m, slot, 0x5000, 9, 0x700000);
    expect_reaches(m, other, 0x5000, 9, 0x800000);
    expect_reaches(m, other, 0x5000, 10, 0x900000);
    expect_blocked(m, slot, 10);
    expect_pasids(1, 0);
    assert_int_equal(machine_info(m, other).pasids, 2);
    assert_int_equal(machine_info(m, other).state, NVTD_STATE_BLOCKED);
    /* Back in one directory, they share tables again. */
    g->pasid_directory = directory;
    machine_context(m, other, CONTEXT_PASIDE);
    expect_reaches(m, other, 0x5000, 9, 0x700000);
    expect_blocked(m, other, 10);
    assert_int_equal(machine_stats(m).nested, 2);
}

static void a_context_entry_without_pasids(void **state)
{
    (void)state;
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    announce(9);
    machine_context(m, slot, 0);
    expect_blocked(m, slot, 9);
    assert_int_equal(machine_info(m, slot).state, NVTD_STATE_NESTED);
    machine_context(m, slot, CONTEXT_PASIDE);
    expect_reaches(m, slot, 0x5000, 9, 0x700000);
    guest_set_context(g, GUEST_SID, 0, 0);
    machine_announce(m, QI_CONTEXT_DEVICE(0, GUEST_SID));
    expect_blocked(m, slot, 9);
    expect_blocked(m, slot, NO_PASID);
    assert_int_equal(machine_info(m, slot).state, NVTD_STATE_BLOCKED);
    assert_int_equal(machine_stats(m).nested, 0);
}

static void invalidations_reach_their_pasids(void **state)
{
    struct tables tables[3];
    NvtdTwinStats before;

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        tables[i] = machine_set_pasid(m, 9 + i, i < 2 ? GUEST_DID : OTHER_DID, 0x5000, 0x700000);
        tables_map(g, &tables[i], 0x1000005000, 0x700000, 1, FS_LEAF);
    }
    machine_announce(m, QI_PASID_GLOBAL);
    for (uint32_t i = 0; i < 3; i++) {
        expect_reaches(m, slot, 0x5000, 9 + i, 0x700000);
        expect_reaches(m, slot, 0x1000005000, 9 + i, 0x700000);
        tables_map(g, &tables[i], 0x5000, 0x800000, 1, FS_LEAF);
        tables_map(g, &tables[i], 0x1000005000, 0x800000, 1, FS_LEAF);
    }
    /* One page of one PASID. */
    before = machine_stats(m);
    guest_put(g, QI_PIOTLB_PAGE(GUEST_DID, 9), 0x5000);
    guest_sync(g);
    expect_reaches(m, slot, 0x5000, 9, 0x800000);
    expect_stale(0x1000005000, 9, 0x700000);
    expect_stale(0x5000, 10, 0x700000);
    expect_stale(0x5000, 11, 0x700000);
    assert_int_equal(machine_stats(m).invalidate_calls, before.invalidate_calls + 1);
    assert_int_equal(machine_stats(m).invalidate_entries, before.invalidate_entries + 1);
    /* Nobody's: that PASID is in another domain. */
    machine_announce(m, QI_PIOTLB_PASID(OTHER_DID, 9));
    expect_stale(0x1000005000, 9, 0x700000);
    assert_int_equal(machine_stats(m).invalidate_calls, before.invalidate_calls + 1);
    /* All of one PASID, */
    machine_announce(m, QI_PIOTLB_PASID(GUEST_DID, 9));
    expect_reaches(m, slot, 0x1000005000, 9, 0x800000);
    expect_stale(0x5000, 10, 0x700000);
    /* of one domain, */
    machine_announce(m, QI_IOTLB_DOMAIN(OTHER_DID));
    expect_reaches(m, slot, 0x5000, 11, 0x800000);
    expect_stale(0x5000, 10, 0x700000);
    /* and of all. */
    machine_announce(m, QI_IOTLB_GLOBAL);
    expect_reaches(m, slot, 0x5000, 10, 0x800000);
}

/* A drain makes one call for each HWPT, whatever the number of descriptors, devices and PASIDs. */
static void one_call_for_a_drain(void **state)
{
    NvtdTwinStats before;
    struct tables tables;

    (void)state;
    while (m->count < MACHINE_DEVICES) {
        (void)machine_add(m);
        machine_context(m, &m->slots[m->count - 1], CONTEXT_PASIDE);
    }
    tables = machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    for (unsigned i = 0; i < 200; i++) {
        tables_map(g, &tables, 0x100000 + i * 0x2000, 0x700000, 1, FS_LEAF);
    }
    announce(9);
    for (unsigned d = 0; d < MACHINE_DEVICES; d++) {
        for (unsigned i = 0; i < 200; i++) {
            expect_reaches(m, &m->slots[d], 0x100000 + i * 0x2000, 9, 0x700000);
        }
    }
    before = machine_stats(m);
    for (unsigned i = 0; i < 200; i++) {
        *tables_entry(g, &tables, 0x100000 + i * 0x2000, 1) = 0x800000 | FS_LEAF;
        guest_put(g, QI_PIOTLB_PAGE(GUEST_DID, 9), 0x100000 + i * 0x2000);
    }
    guest_sync(g);
    assert_int_equal(machine_stats(m).invalidate_calls, before.invalidate_calls + 1);
    for (unsigned d = 0; d < MACHINE_DEVICES; d++) {
        for (unsigned i = 0; i < 200; i++) {
            expect_reaches(m, &m->slots[d], 0x100000 + i * 0x2000, 9, 0x800000);
        }
    }
    assert_int_equal(machine_stats(m).stale_uses, 0);
}

/* Two PASIDs with one table are one HWPT, and an invalidation by either name is for both. */
static void pasids_share_a_table(void **state)
{
    struct tables tables = machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);

    (void)state;
    guest_set_first_stage(g, 10, OTHER_DID, tables.root);
    machine_announce(m, QI_PASID_GLOBAL);
    assert_int_equal(machine_stats(m).nested, 2);
    expect_pasids(2, 0);
    expect_reaches(m, slot, 0x5000, 9, 0x700000);
    expect_reaches(m, slot, 0x5000, 10, 0x700000);
    *tables_entry(g, &tables, 0x5000, 1) = 0x800000 | FS_LEAF;
    machine_announce(m, QI_PIOTLB_PASID(OTHER_DID, 10));
    expect_reaches(m, slot, 0x5000, 10, 0x800000);
    *tables_entry(g, &tables, 0x5000, 1) = 0x900000 | FS_LEAF;
    machine_announce(m, QI_PIOTLB_PASID(GUEST_DID, 9));
    expect_reaches(m, slot, 0x5000, 9, 0x900000);
    guest_set_pasid_entry(g, 9, 0, 0, 0);
    announce(9);
    assert_int_equal(machine_stats(m).nested, 2);
    expect_reaches(m, slot, 0x5000, 10, 0x900000);
}

/* Refused, a PASID is blocked, alone, until the guest announces it again. */
static void the_host_refuses_a_pasid(void **state)
{
    static const uint32_t CALLS[] = { CALL_HWPT_ALLOC, CALL_ATTACH };

    (void)state;
    guest_map(g, 0x5000, 0x600000, 1, FS_LEAF);
    for (unsigned i = 0; i < 2; i++) {
        uint32_t pasid = 9 + i;

        (void)machine_set_pasid(m, pasid, GUEST_DID, 0x5000, 0x700000);
        machine_refuse(m, CALLS[i], ENOMEM, 0, 1);
        announce(pasid);
        expect_pasids(i, 1);
        expect_blocked(m, slot, pasid);
        expect_reaches(m, slot, 0x5000, NO_PASID, 0x600000);
        assert_int_equal(machine_info(m, slot).state, NVTD_STATE_NESTED);
        assert_int_equal(machine_info(m, slot).host_errno, 0);
        assert_int_equal(machine_stats(m).nested, 1 + i);
        announce(pasid);
        expect_pasids(i + 1, 0);
        expect_reaches(m, slot, 0x5000, pasid, 0x700000);
    }
    /* Replacing: what was there is gone, too. */
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x800000);
    machine_refuse(m, CALL_ATTACH, ENOSPC, 0, 1);
    announce(9);
    expect_blocked(m, slot, 9);
    expect_pasids(1, 1);
    guest_set_pasid_entry(g, 9, 0, 0, 0);
    announce(9);
    expect_pasids(1, 0);
    expect_reaches(m, slot, 0x5000, 10, 0x700000);

    /* Without PASID the device says which call it was. */
    machine_refuse(m, CALL_HWPT_ALLOC, EIO, 0, 1);
    g->pml4 = guest_page(g);
    guest_set_first_stage(g, 0, GUEST_DID, g->pml4);
    guest_flush_pasid(g, 0);
    assert_int_equal(machine_info(m, slot).state, NVTD_STATE_BLOCKED);
    assert_int_equal(machine_info(m, slot).host_errno, EIO);
    assert_int_equal(machine_info(m, slot).host_request, CALL_HWPT_ALLOC);
    expect_blocked(m, slot, NO_PASID);
    expect_reaches(m, slot, 0x5000, 10, 0x700000);
}

/* What cannot be flushed blocks; what cannot be blocked either keeps the guest's wait from
 * completing. */
static void the_host_refuses_to_invalidate(void **state)
{
    struct tables tables = machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    volatile uint32_t *status = (uint32_t *)(void *)guest_qword(g, g->status);

    (void)state;
    announce(9);
    expect_reaches(m, slot, 0x5000, 9, 0x700000);
    *tables_entry(g, &tables, 0x5000, 1) = 0x800000 | FS_LEAF;
    machine_refuse(m, CALL_INVALIDATE, EIO, 0, 1);
    machine_announce(m, QI_PIOTLB_PASID(GUEST_DID, 9));
    expect_reaches(m, slot, 0x5000, 9, 0x800000);

    *tables_entry(g, &tables, 0x5000, 1) = 0x900000 | FS_LEAF;
    machine_refuse(m, CALL_INVALIDATE, EIO, 0, 100);
    machine_announce(m, QI_PIOTLB_PASID(GUEST_DID, 9));
    expect_blocked(m, slot, 9);
    expect_pasids(0, 1);
    assert_int_equal(nvtd_twin_inject(m->twin, NULL), 0);
    announce(9);
    expect_reaches(m, slot, 0x5000, 9, 0x900000);

    *tables_entry(g, &tables, 0x5000, 1) = 0xa00000 | FS_LEAF;
    machine_refuse(m, CALL_INVALIDATE, EIO, 0, 100);
    machine_refuse(m, CALL_DETACH, EIO, 0, 100);
    *status = 1;
    guest_put(g, QI_PIOTLB_PASID(GUEST_DID, 9), 0);
    guest_submit(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(2), g->status);
    assert_int_equal(*status, 1);
    assert_int_equal(read32(g, REG_FSTS) & FSTS_ITE, FSTS_ITE);
    assert_int_equal(nvtd_twin_inject(m->twin, NULL), 0);
    write32(g, REG_FSTS, FSTS_ITE);
    announce(9);
    expect_reaches(m, slot, 0x5000, 9, 0xa00000);
    assert_int_equal(machine_stats(m).stale_uses, 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_command_announces),
        TEST(one_pasid_is_announced),
        TEST(a_table_is_replaced),
        TEST(pass_through),
        TEST(flags_of_the_entry),
        cmocka_unit_test_setup_teardown(five_levels, setup_57, teardown),
        TEST(devices_have_pasids_of_their_own),
        TEST(a_context_entry_without_pasids),
        TEST(invalidations_reach_their_pasids),
        TEST(one_call_for_a_drain),
        TEST(pasids_share_a_table),
        TEST(the_host_refuses_a_pasid),
        TEST(the_host_refuses_to_invalidate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
