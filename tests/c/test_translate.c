/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The guest's tables, walked by the unit itself and by the software host: every test runs with both
 * and must see the same.
 */
#include "guest.h"

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE

static struct guest *g;

static int setup_direct(void **state)
{
    (void)state;
    g = guest_new(NVTD_HOST_NONE, 0);
    return 0;
}

static int setup_soft(void **state)
{
    (void)state;
    g = guest_new(NVTD_HOST_SOFT, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_free(g);
    return 0;
}

static void faults_everywhere(uint64_t address, uint32_t flags, uint32_t reason)
{
    expect_recorded(g, address, flags, 0, reason);
}

static void before_boot_addresses_are_physical(void **state)
{
    NvtdTranslation out = guest_dma(g, g->device, 0x12345678, READ | WRITE);

    (void)state;
    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, 0x12345678);
    assert_int_equal(out.permissions, NVTD_PERMISSION_READ | NVTD_PERMISSION_WRITE);
    assert_int_equal(guest_stats(g).translations, 1);
}

static void boots_as_linux_does(void **state)
{
    (void)state;
    guest_boot(g);
    assert_int_equal(read32(g, REG_GSTS), CMD_TE | CMD_SRTP | CMD_QIE);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(guest_stats(g).queue_errors, 0);
    assert_true(guest_stats(g).descriptors_by_type[5] >= 2);
    assert_int_equal(guest_stats(g).descriptors_by_type[7], 1);
    assert_int_equal(guest_stats(g).descriptors_by_type[6], 1);
    assert_true(g->events > 0);
}

static void pages_of_4k(void **state)
{
    NvtdTranslation out;

    (void)state;
    guest_boot(g);
    guest_map(g, 0xfffff000, 0x123000, 1, FS_LEAF);
    out = guest_dma(g, g->device, 0xfffff678, READ);
    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, 0x123678);
    assert_int_equal(out.page_size, 4096);
    assert_int_equal(out.permissions, NVTD_PERMISSION_READ | NVTD_PERMISSION_WRITE);
    expect_address(g, 0xfffffffc, WRITE, 0x123ffc);
    faults_everywhere(0xffffe123, READ, FAULT_FS_PRESENT);
}

static void pages_of_2m(void **state)
{
    NvtdTranslation out;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x7f0000200000, 256 * MIB, 2, FS_LEAF);
    out = guest_dma(g, g->device, 0x7f000023abcd, WRITE);
    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, 256 * MIB + 0x3abcd);
    assert_int_equal(out.page_size, 2 * MIB);
    faults_everywhere(0x7f0000400000, WRITE, FAULT_FS_PRESENT);
}

static void pages_of_1g(void **state)
{
    NvtdTranslation out;

    (void)state;
    guest_boot(g);
    guest_map(g, 5 * GIB, 1 * GIB, 3, FS_LEAF);
    out = guest_dma(g, g->device, 5 * GIB + 0x3abcdef0, READ | WRITE);
    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, 1 * GIB + 0x3abcdef0);
    assert_int_equal(out.page_size, 1 * GIB);
    faults_everywhere(6 * GIB, WRITE, FAULT_FS_PRESENT);
}

static void not_present_at_each_level(void **state)
{
    (void)state;
    guest_boot(g);
    for (unsigned level = 1; level <= 4; level++) {
        *guest_entry(g, 0x40201000, level) = 0;
        faults_everywhere(0x40201000, READ, FAULT_FS_PRESENT);
        g->pml4 = guest_page(g);
        guest_set_first_stage(g, 0, GUEST_DID, g->pml4);
        guest_flush_pasid(g, 0);
    }
}

static void read_only_pages(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF & ~FS_W);
    guest_map(g, 0x2000, 0x201000, 1, FS_LEAF);
    expect_address(g, 0x1010, READ, 0x200010);
    assert_int_equal(guest_dma(g, g->device, 0x1000, READ).permissions, NVTD_PERMISSION_READ);
    faults_everywhere(0x1010, WRITE, FAULT_NO_WRITE);
    expect_address(g, 0x2000, WRITE, 0x201000);
    /* Also by an entry above the leaf. */
    *guest_entry(g, 0x2000, 2) &= ~FS_W;
    guest_flush_pasid(g, 0);
    expect_address(g, 0x2000, READ, 0x201000);
    faults_everywhere(0x2000, WRITE, FAULT_NO_WRITE);
}

/* Requests without PASID have user privilege. */
static void supervisor_pages(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF & ~FS_U);
    faults_everywhere(0x1000, READ, FAULT_SUPERVISOR);
}

static void reserved_bits_of_paging_entries(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    *guest_entry(g, 0x1000, 4) |= FS_PS;
    faults_everywhere(0x1000, READ, FAULT_FS_RESERVED);
    *guest_entry(g, 0x1000, 4) &= ~FS_PS;
    *guest_entry(g, 0x1000, 1) |= 1ull << 51;
    guest_flush_pasid(g, 0);
    faults_everywhere(0x1000, READ, FAULT_FS_RESERVED);
    guest_map(g, 0x200000, 0x200000 | 1ull << 13, 2, FS_LEAF);
    faults_everywhere(0x200000, READ, FAULT_FS_RESERVED);
    guest_map(g, 0x40000000, 0x40000000 | 1ull << 21, 3, FS_LEAF);
    faults_everywhere(0x40000000, READ, FAULT_FS_RESERVED);
}

static void accessed_and_dirty(void **state)
{
    uint64_t *leaf;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_P | FS_W | FS_U);
    leaf = guest_entry(g, 0x1000, 1);
    expect_address(g, 0x1000, READ, 0x200000);
    assert_int_equal(*leaf & (FS_A | FS_D), FS_A);
    assert_true(*guest_entry(g, 0x1000, 2) & FS_A);
    assert_true(*guest_entry(g, 0x1000, 3) & FS_A);
    assert_true(*guest_entry(g, 0x1000, 4) & FS_A);
    expect_address(g, 0x1000, WRITE, 0x200000);
    assert_int_equal(*leaf & (FS_A | FS_D), FS_A | FS_D);
}

static void canonical_addresses(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x00007ffffffff000, 0x200000, 1, FS_LEAF);
    guest_map(g, 0xffff800000000000, 0x201000, 1, FS_LEAF);
    expect_address(g, 0x00007ffffffff008, READ, 0x200008);
    expect_address(g, 0xffff800000000008, READ, 0x201008);
    faults_everywhere(0x0000800000000000, READ, FAULT_CANONICAL);
    faults_everywhere(0xffff7ffffffff000, WRITE, FAULT_CANONICAL);
    faults_everywhere(0x8000000000000000, READ, FAULT_CANONICAL);
}

static void pass_through(void **state)
{
    NvtdTranslation out;

    (void)state;
    guest_boot(g);
    guest_set_pasid_entry(g, 0, PRESENT | PASID_AW48 | PASID_PGTT(PGTT_PASS), 1, 0);
    guest_flush_pasid(g, 0);
    out = guest_dma(g, g->device, 0x345678, READ | WRITE);
    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, 0x345678);
    assert_int_equal(guest_device(g, g->device).pgtt, PGTT_PASS);
}

static void pasid_entry_not_present(void **state)
{
    (void)state;
    guest_boot(g);
    guest_set_pasid_entry(g, 0, 0, 0, 0);
    guest_flush_pasid(g, 0);
    faults_everywhere(0x1000, READ, FAULT_PASID_ENTRY_PRESENT);
}

static void pasid_directory_not_present(void **state)
{
    (void)state;
    guest_boot(g);
    *guest_qword(g, g->pasid_directory) = 0;
    guest_submit(g, QI_PASID_GLOBAL, 0);
    guest_sync(g);
    faults_everywhere(0x1000, READ, FAULT_PASID_DIRECTORY_PRESENT);
}

static void pasid_entry_of_a_kind_not_offered(void **state)
{
    static const unsigned KINDS[] = { 0, PGTT_SECOND, PGTT_NESTED, 5, 7 };

    (void)state;
    guest_boot(g);
    for (size_t i = 0; i < sizeof(KINDS) / sizeof(*KINDS); i++) {
        guest_set_pasid_entry(g, 0, PRESENT | PASID_AW48 | PASID_PGTT(KINDS[i]), GUEST_DID,
                              g->pml4);
        guest_flush_pasid(g, 0);
        faults_everywhere(0x1000, READ, FAULT_PASID_ENTRY_INVALID);
    }
    /* 5-level paging is not offered either. */
    guest_set_first_stage(g, 0, GUEST_DID, g->pml4 | 1 << 2);
    guest_flush_pasid(g, 0);
    faults_everywhere(0x1000, READ, FAULT_PASID_ENTRY_INVALID);
}

/* What the configuration leaves out is refused, and not merely left out of CAP and ECAP. */
static void features_left_out(void **state)
{
    NvtdConfig config = { .size = sizeof(config) };
    struct guest *mine = g;

    (void)state;
    assert_int_equal(nvtd_config_default(&config), 0);
    config.features &= ~(uint64_t)(NVTD_FEATURE_FS1GP | NVTD_FEATURE_PASS_THROUGH);
    if (guest_device(g, g->device).state != NVTD_STATE_DIRECT) {
        config.host = NVTD_HOST_SOFT;
    }
    g = guest_new_with(&config);
    guest_boot(g);
    if (config.host == NVTD_HOST_NONE) {
        /* Behind a host its hardware walks, and that knows 1 GiB pages. */
        guest_map(g, 5 * GIB, 1 * GIB, 3, FS_LEAF);
        faults_everywhere(5 * GIB, READ, FAULT_FS_RESERVED);
    }
    guest_set_pasid_entry(g, 0, PRESENT | PASID_AW48 | PASID_PGTT(PGTT_PASS), 1, 0);
    guest_flush_pasid(g, 0);
    faults_everywhere(0x1000, READ, FAULT_PASID_ENTRY_INVALID);
    guest_free(g);
    g = mine;
}

/* Legacy and abort mode: no DMA passes. */
static void other_root_table_modes_block(void **state)
{
    static const uint64_t MODES[] = { 0, 2ull << 10, 3ull << 10 };

    (void)state;
    guest_boot(g);
    for (size_t i = 0; i < sizeof(MODES) / sizeof(*MODES); i++) {
        write64(g, REG_RTADDR, g->root | MODES[i]);
        guest_command(g, CMD_SRTP, true);
        assert_int_not_equal(guest_dma(g, g->device, 0x1000, READ).fault, 0);
        assert_int_not_equal(guest_dma(g, g->device, 0x1000, WRITE).fault, 0);
    }
}

/* A root table takes effect when it is latched, not when its address is written. */
static void root_table_is_latched(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    write64(g, REG_RTADDR, guest_page(g) | RTADDR_SMT);
    guest_submit(g, QI_CONTEXT_GLOBAL, 0);
    guest_submit(g, QI_PASID_GLOBAL, 0);
    guest_sync(g);
    expect_address(g, 0x1000, READ, 0x200000);
    guest_command(g, CMD_SRTP, true);
    faults_everywhere(0x1000, READ, FAULT_ROOT_PRESENT);
}

static void context_entry_faults(void **state)
{
    (void)state;
    guest_boot(g);
    guest_set_context(g, GUEST_SID, g->pasid_directory | CONTEXT_PDTS(2), 0);
    guest_submit(g, QI_CONTEXT_DEVICE(0, GUEST_SID), 0);
    guest_sync(g);
    faults_everywhere(0x1000, READ, FAULT_CONTEXT_PRESENT);
    guest_set_context(g, GUEST_SID, g->pasid_directory | CONTEXT_PDTS(2) | 1ull << 8 | PRESENT, 0);
    guest_submit(g, QI_CONTEXT_GLOBAL, 0);
    guest_sync(g);
    faults_everywhere(0x1000, READ, FAULT_CONTEXT_RESERVED);
}

static void root_entry_faults(void **state)
{
    (void)state;
    guest_boot(g);
    *guest_qword(g, g->root) = 0;
    guest_submit(g, QI_CONTEXT_GLOBAL, 0);
    guest_sync(g);
    faults_everywhere(0x1000, READ, FAULT_ROOT_PRESENT);
}

static void tables_outside_ram(void **state)
{
    uint64_t nowhere = 64 * GIB;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    *guest_entry(g, 0x1000, 2) = nowhere | FS_TABLE;
    faults_everywhere(0x1000, READ, FAULT_FS_ACCESS);
    guest_set_first_stage(g, 0, GUEST_DID, nowhere);
    guest_flush_pasid(g, 0);
    faults_everywhere(0x1000, READ, FAULT_PML4_ACCESS);
    assert_true(guest_stats(g).memory_errors >= 2);
}

static void a_second_function_has_its_own_tables(void **state)
{
    const uint16_t sid = 0x03ff; /* 03:1f.7, upper half of its bus */
    bool assigned = guest_device(g, g->device).state != NVTD_STATE_DIRECT;
    uint32_t other = guest_add_device(g, sid, assigned ? NVTD_DEVICE_ASSIGNED : 0);
    uint64_t first_pml4;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    first_pml4 = g->pml4;
    assert_int_equal(guest_dma(g, other, 0x1000, READ).fault, FAULT_ROOT_PRESENT);

    guest_attach(g, sid, 2);
    g->pml4 = guest_page(g);
    assert_int_not_equal(g->pml4, first_pml4);
    guest_set_first_stage(g, 0, GUEST_DID + 1, g->pml4);
    guest_put(g, QI_PASID_PASID(GUEST_DID + 1, 0), 0);
    guest_put(g, QI_PIOTLB_PASID(GUEST_DID + 1, 0), 0);
    guest_sync(g);
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    assert_int_equal(guest_dma(g, other, 0x1000, READ).address, 0x300000);
    assert_int_equal(guest_device(g, other).domain_id, GUEST_DID + 1);
    expect_address(g, 0x1000, READ, 0x200000);
}

/* A debugger's look leaves no trace. */
static void debug_requests_leave_no_trace(void **state)
{
    uint64_t translations;

    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_P | FS_W | FS_U);
    translations = guest_stats(g).translations;
    expect_address(g, 0x1000, READ | WRITE | NVTD_REQUEST_DEBUG, 0x200000);
    expect_fault(g, 0x2000, READ | NVTD_REQUEST_DEBUG, FAULT_FS_PRESENT);
    assert_int_equal(*guest_entry(g, 0x1000, 1) & (FS_A | FS_D), 0);
    assert_int_equal(guest_stats(g).translations, translations);
    assert_int_equal(guest_stats(g).faults, 0);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(g->msis, 0);
    /* Nothing was cached: the entry may change without an invalidation. */
    guest_map(g, 0x1000, 0x300000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x300000);
    assert_int_equal(guest_stats(g).stale_uses, 0);
}

/* FPD set: the request is refused, nothing is recorded. */
static void fault_processing_disabled(void **state)
{
    (void)state;
    guest_boot(g);
    guest_set_pasid_entry(g, 0, PRESENT | PASID_FPD | PASID_AW48 | PASID_PGTT(PGTT_FIRST),
                          GUEST_DID | PASID_PWSNP, g->pml4);
    guest_flush_pasid(g, 0);
    expect_fault(g, 0x1000, READ, FAULT_FS_PRESENT);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(g->msis, 0);
}

static void masked_fault_event_waits(void **state)
{
    (void)state;
    guest_boot(g);
    write32(g, REG_FECTL, EVENT_IM);
    expect_fault(g, 0x1000, READ, FAULT_FS_PRESENT);
    assert_int_equal(g->msis, 0);
    assert_int_equal(read32(g, REG_FECTL), EVENT_IM | EVENT_IP);
    write32(g, REG_FECTL, 0);
    assert_int_equal(g->msis, 1);
    assert_int_equal(g->last_msi.address, FAULT_MSI_ADDRESS);
    assert_int_equal(read32(g, REG_FECTL), 0);
}

static void fault_records_overflow(void **state)
{
    unsigned records = (unsigned)CAP_NFR(read64(g, REG_CAP));

    (void)state;
    guest_boot(g);
    for (unsigned i = 0; i < records; i++) {
        expect_fault(g, 0x100000 + i * 4096, READ, FAULT_FS_PRESENT);
    }
    assert_int_equal(read32(g, REG_FSTS) & FSTS_PFO, 0);
    assert_int_equal(guest_stats(g).fault_overflows, 0);
    expect_fault(g, 0x900000, READ, FAULT_FS_PRESENT);
    assert_int_equal(read32(g, REG_FSTS) & (FSTS_PFO | FSTS_PPF), FSTS_PFO | FSTS_PPF);
    assert_int_equal(guest_stats(g).fault_overflows, 1);
    for (unsigned i = 0; i < records; i++) {
        assert_int_equal(read64(g, fault_register(g, i)), 0x100000 + i * 4096);
    }
    guest_clear_faults(g);
    faults_everywhere(0x1000, READ, FAULT_FS_PRESENT);
}

static void translation_off_again(void **state)
{
    (void)state;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    expect_address(g, 0x1000, READ, 0x200000);
    guest_command(g, CMD_TE, false);
    expect_address(g, 0x1000, READ, 0x1000);
    guest_command(g, CMD_TE, true);
    expect_address(g, 0x1000, READ, 0x200000);
}

/* One list for both hosts. */
#define BOTH(test)                                              \
    { #test " (host none)", test, setup_direct, teardown, NULL }, \
        { #test " (host soft)", test, setup_soft, teardown, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(before_boot_addresses_are_physical),
        BOTH(boots_as_linux_does),
        BOTH(pages_of_4k),
        BOTH(pages_of_2m),
        BOTH(pages_of_1g),
        BOTH(not_present_at_each_level),
        BOTH(read_only_pages),
        BOTH(supervisor_pages),
        BOTH(reserved_bits_of_paging_entries),
        BOTH(accessed_and_dirty),
        BOTH(canonical_addresses),
        BOTH(pass_through),
        BOTH(pasid_entry_not_present),
        BOTH(pasid_directory_not_present),
        BOTH(pasid_entry_of_a_kind_not_offered),
        BOTH(features_left_out),
        BOTH(other_root_table_modes_block),
        BOTH(root_table_is_latched),
        BOTH(context_entry_faults),
        BOTH(root_entry_faults),
        BOTH(tables_outside_ram),
        BOTH(a_second_function_has_its_own_tables),
        BOTH(debug_requests_leave_no_trace),
        BOTH(fault_processing_disabled),
        BOTH(masked_fault_event_waits),
        BOTH(fault_records_overflow),
        BOTH(translation_off_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
