/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Assigned devices: what the guest's tables and invalidations become on the software host.
 */
#include "guest.h"

#include <errno.h>

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE

static struct guest *g;

static int setup(void **state)
{
    (void)state;
    g = guest_new(NVTD_HOST_SOFT, 0);
    return 0;
}

static int setup_dropping(void **state)
{
    (void)state;
    g = guest_new(NVTD_HOST_SOFT, NVTD_INJECT_DROP_INVALIDATIONS);
    return 0;
}

static int setup_refusing(void **state)
{
    (void)state;
    g = guest_new(NVTD_HOST_SOFT, NVTD_INJECT_REFUSE_ALLOC);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_free(g);
    return 0;
}

static void starts_on_the_parent(void **state)
{
    NvtdDeviceInfo info = guest_device(g, g->device);

    (void)state;
    assert_int_equal(info.state, NVTD_STATE_PARENT);
    assert_int_not_equal(info.hwpt, 0);
    assert_int_equal(info.pgtt, 0);
    assert_int_equal(info.table, 0);
    assert_int_equal(info.host_errno, 0);
    expect_address(g, 0x5000, READ | WRITE, 0x5000);
    assert_int_equal(guest_stats(g).hwpt_allocs, 0);
}

static void first_stage_becomes_a_nested_hwpt(void **state)
{
    uint32_t parent = guest_device(g, g->device).hwpt;
    NvtdDeviceInfo info;
    NvtdStats stats;

    (void)state;
    guest_boot(g);
    info = guest_device(g, g->device);
    assert_int_equal(info.state, NVTD_STATE_NESTED);
    assert_int_equal(info.pgtt, PGTT_FIRST);
    assert_int_equal(info.domain_id, GUEST_DID);
    assert_int_equal(info.table, g->pml4);
    assert_int_not_equal(info.hwpt, 0);
    assert_int_not_equal(info.hwpt, parent);
    assert_int_equal(info.host_errno, 0);
    stats = guest_stats(g);
    assert_int_equal(stats.hwpt_allocs, 1);
    assert_int_equal(stats.hwpt_alloc_errors, 0);
    assert_int_equal(stats.hwpt_destroys, 0);

    /* The same entry announced again changes nothing. */
    guest_flush_pasid(g, 0);
    guest_submit(g, QI_PASID_GLOBAL, 0);
    guest_sync(g);
    assert_int_equal(guest_stats(g).hwpt_allocs, 1);
    assert_int_equal(guest_device(g, g->device).hwpt, info.hwpt);
}

/* An entry that becomes present while translation is on: Linux's order for a hot-added device. */
static void entry_that_appears_later(void **state)
{
    (void)state;
    guest_boot(g);
    guest_set_pasid_entry(g, 0, 0, 0, 0);
    guest_flush_pasid(g, 0);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_BLOCKED);
    assert_int_equal(guest_stats(g).hwpt_destroys, 1);

    guest_set_first_stage(g, 0, GUEST_DID, g->pml4);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    guest_flush_pasid(g, 0);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_NESTED);
    assert_int_equal(guest_stats(g).hwpt_allocs, 2);
    expect_address(g, 0x1000, READ, 0x200000);
}

static void another_table_replaces_the_hwpt(void **state)
{
    uint64_t old;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    old = g->pml4;
    g->pml4 = guest_page(g);
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    guest_set_first_stage(g, 0, GUEST_DID, g->pml4);
    guest_flush_pasid(g, 0);
    assert_int_not_equal(guest_device(g, g->device).table, old);
    assert_int_equal(guest_device(g, g->device).table, g->pml4);
    expect_address(g, 0x1000, READ, 0x300000);
    assert_int_equal(guest_stats(g).hwpt_allocs, 2);
    assert_int_equal(guest_stats(g).hwpt_destroys, 1);
    assert_int_equal(guest_stats(g).stale_uses, 0);
}

static void pass_through_is_the_parent(void **state)
{
    uint32_t parent = guest_device(g, g->device).hwpt;

    (void)state;
    guest_boot(g);
    guest_set_pasid_entry(g, 0, PRESENT | PASID_AW48 | PASID_PGTT(PGTT_PASS), 1, 0);
    guest_flush_pasid(g, 0);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_PARENT);
    assert_int_equal(guest_device(g, g->device).hwpt, parent);
    expect_address(g, 0x5000, WRITE, 0x5000);
}

static void answers_are_cached(void **state)
{
    NvtdStats before;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    before = guest_stats(g);
    expect_address(g, 0x1008, READ, 0x200008);
    assert_int_equal(guest_stats(g).translations, before.translations + 1);
    assert_int_equal(guest_stats(g).cache_hits, before.cache_hits + 1);
    assert_int_equal(guest_device(g, g->device).cache_hits, before.cache_hits + 1);
    assert_int_equal(guest_stats(g).stale_uses, 0);
}

static void invalidation_brings_the_new_answer(void **state)
{
    NvtdStats before, after;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    before = guest_stats(g);
    guest_flush_iova(g, 0x1000, 0);
    after = guest_stats(g);
    expect_address(g, 0x1000, READ, 0x300000);
    assert_int_equal(guest_stats(g).stale_uses, 0);
    assert_int_equal(after.invalidate_calls, before.invalidate_calls + 1);
    assert_int_equal(after.invalidate_entries, before.invalidate_entries + 1);
    assert_int_equal(after.invalidate_descriptors, before.invalidate_descriptors + 1);
    assert_int_equal(after.invalidate_errors, 0);
    assert_int_equal(after.invalidate_dropped, 0);
}

static void unmapped_page_faults_after_invalidation(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    guest_map(g, 0x2000, 0x201000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    expect_address(g, 0x2000, READ, 0x201000);
    *guest_entry(g, 0x1000, 1) = 0;
    guest_flush_iova(g, 0x1000, 0);
    expect_fault(g, 0x1000, READ, FAULT_FS_PRESENT);
    expect_address(g, 0x2000, READ, 0x201000);
    assert_int_equal(guest_stats(g).stale_uses, 0);
}

/* The host's cache is real: without an invalidation it answers from what it saw, and says so. */
static void forgotten_invalidation_is_noticed(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    assert_int_equal(guest_stats(g).stale_uses, 1);
    assert_int_equal(guest_device(g, g->device).stale_uses, 1);
    guest_flush_iova(g, 0x1000, 0);
    expect_address(g, 0x1000, READ, 0x300000);
    assert_int_equal(guest_stats(g).stale_uses, 1);
}

/* Which invalidation reaches the page at 0x40201000? */
static void reach_of_invalidations(void **state)
{
    static const struct {
        const char *name;
        uint64_t qw0, qw1;
        bool reaches;
    } CASES[] = {
        { "its page", QI_PIOTLB_PAGE(GUEST_DID, 0), 0x40201000, true },
        { "the page behind it", QI_PIOTLB_PAGE(GUEST_DID, 0), 0x40202000, false },
        { "the page before it", QI_PIOTLB_PAGE(GUEST_DID, 0), 0x40200000, false },
        { "two pages", QI_PIOTLB_PAGE(GUEST_DID, 0), 0x40200000 | 1, true },
        { "512 pages", QI_PIOTLB_PAGE(GUEST_DID, 0), 0x40200000 | 9, true },
        { "512 other pages", QI_PIOTLB_PAGE(GUEST_DID, 0), 0x40400000 | 9, false },
        { "all by address mask", QI_PIOTLB_PAGE(GUEST_DID, 0), 52, true },
        { "the PASID", QI_PIOTLB_PASID(GUEST_DID, 0), 0, true },
        { "another domain", QI_PIOTLB_PASID(GUEST_DID + 1, 0), 0, false },
        { "another PASID", QI_PIOTLB_PASID(GUEST_DID, 1), 0, false },
        { "the domain", QI_IOTLB_DOMAIN(GUEST_DID), 0, true },
        { "every domain", QI_IOTLB_GLOBAL, 0, true },
        { "interrupts", QI_INTERRUPT_GLOBAL, 0, false },
    };

    (void)state;
    guest_boot(g);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
        NvtdTranslation out;

        guest_map(g, 0x40201000, 0x200000, 1, FS_LEAF);
        guest_flush_pasid(g, 0);
        expect_address(g, 0x40201000, READ, 0x200000);
        guest_map(g, 0x40201000, 0x300000, 1, FS_LEAF);
        guest_submit(g, CASES[i].qw0, CASES[i].qw1);
        guest_sync(g);
        out = guest_dma(g, g->device, 0x40201000, READ);
        assert_int_equal(out.fault, 0);
        if (out.address != (CASES[i].reaches ? 0x300000 : 0x200000)) {
            fail_msg("an invalidation of %s %s reach the page", CASES[i].name,
                     CASES[i].reaches ? "does not" : "does");
        }
    }
}

/* A superpage goes when any page in it goes. */
static void part_of_a_superpage(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x40000000, 512 * MIB, 2, FS_LEAF);
    expect_address(g, 0x40000000, READ, 512 * MIB);
    guest_map(g, 0x40000000, 514 * MIB, 2, FS_LEAF);
    guest_flush_iova(g, 0x40123000, 0);
    expect_address(g, 0x40000000, READ, 514 * MIB);
    assert_int_equal(guest_stats(g).stale_uses, 0);
}

/* Descriptors before one wait reach the host together. */
static void one_call_per_drain(void **state)
{
    NvtdStats before, after;

    (void)state;
    guest_boot(g);
    before = guest_stats(g);
    for (unsigned i = 0; i < 16; i++) {
        guest_put(g, QI_PIOTLB_PAGE(GUEST_DID, 0), 0x100000 + i * 0x10000ull);
    }
    guest_sync(g);
    after = guest_stats(g);
    assert_int_equal(after.invalidate_descriptors, before.invalidate_descriptors + 16);
    assert_int_equal(after.invalidate_calls, before.invalidate_calls + 1);
    assert_in_range(after.invalidate_entries - before.invalidate_entries, 1, 16);
}

static void dropped_invalidations_go_stale(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    guest_flush_iova(g, 0x1000, 0); /* the guest is told that it completed */
    expect_address(g, 0x1000, READ, 0x200000);
    assert_true(guest_stats(g).stale_uses > 0);
    assert_true(guest_device(g, g->device).stale_uses > 0);
    assert_true(guest_stats(g).invalidate_dropped > 0);
    assert_int_equal(guest_stats(g).queue_errors, 0);
}

static void refused_allocation_blocks(void **state)
{
    NvtdDeviceInfo info;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    info = guest_device(g, g->device);
    assert_int_equal(info.state, NVTD_STATE_BLOCKED);
    assert_int_equal(info.host_errno, ENOMEM);
    assert_int_equal(info.hwpt, 0);
    assert_int_equal(guest_stats(g).hwpt_allocs, 0);
    assert_true(guest_stats(g).hwpt_alloc_errors > 0);
    assert_true(g->log_lines > 0);

    /* Its DMA goes nowhere: not by the guest's table, and not untranslated. */
    assert_int_not_equal(guest_dma(g, g->device, 0x1000, READ).fault, 0);
    assert_int_not_equal(guest_dma(g, g->device, 0x200000, WRITE).fault, 0);
    assert_int_equal(guest_device(g, g->device).faults, 2);
    assert_int_equal(guest_stats(g).faults, 2);

    /* The guest is alive, and pass-through needs no nested HWPT. */
    guest_sync(g);
    guest_set_pasid_entry(g, 0, PRESENT | PASID_AW48 | PASID_PGTT(PGTT_PASS), 1, 0);
    guest_flush_pasid(g, 0);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_PARENT);
    assert_int_equal(guest_device(g, g->device).host_errno, 0);
    expect_address(g, 0x1000, READ, 0x1000);
}

/* Linux's teardown: clear P, PASID cache, IOTLB, zero the entry. */
static void teardown_blocks(void **state)
{
    uint64_t *entry;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    entry = guest_qword(g, guest_pasid_entry(g, 0));
    entry[0] &= ~PRESENT;
    guest_flush_pasid(g, 0);
    entry[0] = entry[1] = entry[2] = 0;
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_BLOCKED);
    assert_int_equal(guest_device(g, g->device).hwpt, 0);
    assert_int_equal(guest_device(g, g->device).table, 0);
    assert_int_equal(guest_device(g, g->device).host_errno, 0);
    assert_int_equal(guest_stats(g).hwpt_destroys, 1);
    assert_true(guest_stats(g).detaches > 0);
    expect_fault(g, 0x1000, READ, FAULT_PASID_ENTRY_PRESENT);
    expect_fault(g, 0x200000, READ, FAULT_PASID_ENTRY_PRESENT);
    assert_int_equal(guest_stats(g).stale_uses, 0);
}

/* Linux's context teardown: a device-selective context-cache invalidation and nothing else. */
static void context_teardown_blocks(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    guest_set_context(g, GUEST_SID, 0, 0);
    guest_submit(g, QI_CONTEXT_DEVICE(GUEST_DID, GUEST_SID), 0);
    guest_sync(g);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_BLOCKED);
    expect_fault(g, 0x1000, READ, FAULT_CONTEXT_PRESENT);
}

/* A change of the entry reaches the host by any invalidation of the PASID cache that covers it. */
static void any_pasid_cache_invalidation_rereads(void **state)
{
    static const struct {
        uint64_t qw0;
        bool reaches;
    } CASES[] = {
        { QI_PASID_GLOBAL, true },
        { QI_PASID_DOMAIN(GUEST_DID), true },
        { QI_PASID_PASID(GUEST_DID, 0), true },
    };

    (void)state;
    guest_boot(g);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
        g->pml4 = guest_page(g);
        guest_set_first_stage(g, 0, GUEST_DID, g->pml4);
        guest_submit(g, CASES[i].qw0, 0);
        guest_sync(g);
        assert_int_equal(guest_device(g, g->device).table == g->pml4, CASES[i].reaches);
    }
}

static void translation_off_returns_to_the_parent(void **state)
{
    uint32_t parent = guest_device(g, g->device).hwpt;

    (void)state;
    guest_boot(g);
    guest_command(g, CMD_TE, false);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_PARENT);
    assert_int_equal(guest_device(g, g->device).hwpt, parent);
    expect_address(g, 0x1000, READ, 0x1000);
    guest_command(g, CMD_TE, true);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_NESTED);
}

static void reset_returns_to_the_parent(void **state)
{
    (void)state;
    guest_boot(g);
    assert_int_equal(nvtd_unit_reset(g->unit), 0);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_PARENT);
    expect_address(g, 0x1000, READ, 0x1000);
}

static void hot_added_device_finds_its_tables(void **state)
{
    const uint16_t sid = 0x0100;
    uint32_t other;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    guest_attach(g, sid, 2);
    guest_set_first_stage(g, 0, GUEST_DID, g->pml4);
    guest_flush_pasid(g, 0);
    other = guest_add_device(g, sid, NVTD_DEVICE_ASSIGNED);
    assert_int_equal(guest_device(g, other).state, NVTD_STATE_NESTED);
    assert_int_equal(guest_dma(g, other, 0x1000, READ).address, 0x200000);

    assert_int_equal(nvtd_device_remove(g->unit, other), 0);
    expect_address(g, 0x1000, READ, 0x200000);
    assert_int_equal(guest_device(g, g->device).state, NVTD_STATE_NESTED);
    /* Its invalidations still work. */
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    guest_flush_iova(g, 0x1000, 0);
    expect_address(g, 0x1000, READ, 0x300000);
}

/* Two devices in one domain: one invalidation reaches both. */
static void shared_domain(void **state)
{
    const uint16_t sid = 0x0020;
    uint32_t other = guest_add_device(g, sid, NVTD_DEVICE_ASSIGNED);

    (void)state;
    guest_boot(g);
    guest_set_context(g, sid, g->pasid_directory | CONTEXT_PDTS(2) | PRESENT, 0);
    guest_put(g, QI_CONTEXT_DEVICE(0, sid), 0);
    guest_flush_pasid(g, 0);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    assert_int_equal(guest_dma(g, other, 0x1000, READ).address, 0x200000);
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    guest_flush_iova(g, 0x1000, 0);
    expect_address(g, 0x1000, READ, 0x300000);
    assert_int_equal(guest_dma(g, other, 0x1000, READ).address, 0x300000);
    assert_int_equal(guest_stats(g).stale_uses, 0);
}

/* An assigned device reaches registered RAM and nothing else. */
static void ram_bounds_what_a_device_reaches(void **state)
{
    const uint64_t rom = 8 * GIB, extra = 16 * GIB;

    (void)state;
    assert_int_equal(nvtd_ram_add(g->unit, rom, 8192, g->ram + GIB, NVTD_RAM_READ_ONLY), 0);
    assert_int_equal(nvtd_ram_add(g->unit, extra, 8192, g->ram + GIB + 8192, 0), 0);
    guest_boot(g);
    guest_map(g, 0x1000, rom, 1, FS_LEAF);
    guest_map(g, 0x2000, extra, 1, FS_LEAF);
    guest_map(g, 0x3000, 64 * GIB, 1, FS_LEAF);
    /* A nesting parent cannot map what is read-only. */
    assert_int_not_equal(guest_dma(g, g->device, 0x1000, READ).fault, 0);
    assert_int_not_equal(guest_dma(g, g->device, 0x1000, WRITE).fault, 0);
    expect_address(g, 0x2000, WRITE, extra);
    assert_int_not_equal(guest_dma(g, g->device, 0x3000, READ).fault, 0);

    /* RAM that goes away is gone at once. */
    assert_int_equal(nvtd_ram_remove(g->unit, extra, 8192), 0);
    assert_int_not_equal(guest_dma(g, g->device, 0x2000, WRITE).fault, 0);
    assert_int_equal(guest_stats(g).stale_uses, 0);
}

/* A guest's superpage that is wider than the RAM behind it gives no more than the RAM. */
static void superpage_wider_than_ram(void **state)
{
    const uint64_t island = 5 * GIB + 0x10000;
    NvtdTranslation out;

    (void)state;
    assert_int_equal(nvtd_ram_add(g->unit, island, 0x3000, g->ram + GIB, 0), 0);
    guest_boot(g);
    guest_map(g, 10 * GIB, 5 * GIB, 3, FS_LEAF);
    for (uint64_t offset = 0; offset < 0x3000; offset += 0x800) {
        uint64_t start;

        out = guest_dma(g, g->device, 10 * GIB + 0x10000 + offset, READ | WRITE);
        assert_int_equal(out.fault, 0);
        assert_int_equal(out.address, island + offset);
        start = out.address & ~(out.page_size - 1);
        assert_true(start >= island && start + out.page_size <= island + 0x3000);
    }
    assert_int_not_equal(guest_dma(g, g->device, 10 * GIB + 0xf000, READ).fault, 0);
    assert_int_not_equal(guest_dma(g, g->device, 10 * GIB + 0x13000, READ).fault, 0);
}

/* A device that is not assigned is walked by the unit even beside a host. */
static void emulated_device_beside_a_host(void **state)
{
    const uint16_t sid = 0x0028;
    uint32_t other = guest_add_device(g, sid, 0);

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    guest_set_context(g, sid, g->pasid_directory | CONTEXT_PDTS(2) | PRESENT, 0);
    guest_submit(g, QI_CONTEXT_DEVICE(0, sid), 0);
    guest_sync(g);
    assert_int_equal(guest_device(g, other).state, NVTD_STATE_DIRECT);
    assert_int_equal(guest_device(g, other).hwpt, 0);
    assert_int_equal(guest_dma(g, other, 0x1000, READ).address, 0x200000);
    assert_int_equal(guest_stats(g).hwpt_allocs, 1);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(starts_on_the_parent),
        TEST(first_stage_becomes_a_nested_hwpt),
        TEST(entry_that_appears_later),
        TEST(another_table_replaces_the_hwpt),
        TEST(pass_through_is_the_parent),
        TEST(answers_are_cached),
        TEST(invalidation_brings_the_new_answer),
        TEST(unmapped_page_faults_after_invalidation),
        TEST(forgotten_invalidation_is_noticed),
        TEST(reach_of_invalidations),
        TEST(part_of_a_superpage),
        TEST(one_call_per_drain),
        cmocka_unit_test_setup_teardown(dropped_invalidations_go_stale, setup_dropping, teardown),
        cmocka_unit_test_setup_teardown(refused_allocation_blocks, setup_refusing, teardown),
        TEST(teardown_blocks),
        TEST(context_teardown_blocks),
        TEST(any_pasid_cache_invalidation_rereads),
        TEST(translation_off_returns_to_the_parent),
        TEST(reset_returns_to_the_parent),
        TEST(hot_added_device_finds_its_tables),
        TEST(shared_domain),
        TEST(ram_bounds_what_a_device_reaches),
        TEST(superpage_wider_than_ram),
        TEST(emulated_device_beside_a_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
