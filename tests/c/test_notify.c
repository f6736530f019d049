/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * NvtdOps.invalidate and nvtd_device_notify(): whoever keeps answers of the unit, and device TLBs,
 * are told to forget before the guest's wait completes.
 */
#include "guest.h"

#include <errno.h>

#define READ NVTD_REQUEST_READ
#define ALL 0, UINT64_MAX

static struct guest *g;
static struct tables tables;
static unsigned failures; /* of calls from inside the callback */
static unsigned known;    /* orders that is_told() has seen */

static int teardown(void **state)
{
    (void)state;
    if (g) {
        guest_free(g);
    }
    g = NULL;
    failures = 0;
    return 0;
}

static void notify(uint32_t flags)
{
    assert_int_equal(nvtd_device_notify(g->unit, g->device, flags), 0);
    g->told = 0;
    known = 0;
}

/* Booted with second-stage tables; 0x5000 goes to 0x100000. */
static void start(uint32_t flags)
{
    (void)teardown(NULL);
    g = guest_start(FEATURES_ALL, 48, RTADDR_SMT);
    guest_set_context_bits(g, CONTEXT_DTE | CONTEXT_PDTS(2), 0);
    tables = tables_new(g, 4, SS_RW);
    tables_map(g, &tables, 0x5000, 0x100000, 1, SS_RW);
    guest_set_stages(g, 0, NULL, &tables, 0, 0);
    guest_flush(g);
    notify(flags);
}

static void submit(uint64_t qw0, uint64_t qw1)
{
    guest_put(g, qw0, qw1);
    guest_sync(g);
}

/* The order with this index, of those since the last notify(). */
static void expect_order(unsigned index, uint32_t device, uint32_t flags, uint32_t pasid,
                         uint64_t first, uint64_t last)
{
    const NvtdInvalidation *order = &g->orders[index];

    assert_true(index < g->told);
    assert_int_equal(order->size, sizeof(*order));
    assert_int_equal(order->device, device);
    assert_int_equal(order->tag, guest_device(g, device).source_id);
    assert_int_equal(order->flags, flags);
    assert_int_equal(order->pasid, pasid);
    assert_int_equal(order->reserved, 0);
    assert_int_equal(order->address, first);
    assert_int_equal(order->last, last);
}

/* The descriptor makes one order to those who keep answers, before the wait's status is written. */
static void tells(uint64_t qw0, uint64_t qw1, uint64_t first, uint64_t last)
{
    g->told = 0;
    g->told_status = 77;
    submit(qw0, qw1);
    assert_int_equal(g->told, 1);
    assert_int_equal(g->told_status, 1);
    expect_order(0, g->device, NVTD_INVALIDATION_ALL_PASIDS, 0, first, last);
}

static void is_silent(uint64_t qw0, uint64_t qw1)
{
    g->told = 0;
    submit(qw0, qw1);
    assert_int_equal(g->told, 0);
}

static void wrong_calls_are_errors(void **state)
{
    (void)state;
    start(0);
    expect_error(nvtd_device_notify(NULL, g->device, NVTD_NOTIFY_UNIT), -EINVAL, "unit");
    expect_error(nvtd_device_notify(g->unit, g->device, 4), -EINVAL, "flags");
    expect_error(nvtd_device_notify(g->unit, g->device, 0x80000000u), -EINVAL, "flags");
    expect_error(nvtd_device_notify(g->unit, 7777, NVTD_NOTIFY_UNIT), -ENOENT, "7777");
    expect_error(nvtd_device_notify(g->unit, 0, 0), -ENOENT, "0");
    /* Nothing has come of them. */
    is_silent(QI_IOTLB_GLOBAL, 0);
}

static void nobody_is_told_unasked(void **state)
{
    (void)state;
    start(0);
    is_silent(QI_IOTLB_GLOBAL, 0);
    is_silent(QI_IOTLB_PAGE(GUEST_DID), 0x5000);
    is_silent(QI_PIOTLB_PASID(GUEST_DID, 0), 0);
    is_silent(QI_PASID_GLOBAL, 0);
    is_silent(QI_CONTEXT_GLOBAL, 0);
    is_silent(QI_DEVICE_TLB(GUEST_SID), 0x5000);
    is_silent(QI_PASID_DEVICE_TLB(GUEST_SID, 0), 0x5000);
    notify(NVTD_NOTIFY_UNIT);
    is_silent(QI_DEVICE_TLB(GUEST_SID), 0x5000);
    is_silent(QI_PASID_DEVICE_TLB(GUEST_SID, 0), 0x5000);
    tells(QI_IOTLB_GLOBAL, 0, ALL);
    notify(NVTD_NOTIFY_DEVICE_TLB);
    is_silent(QI_IOTLB_GLOBAL, 0);
    is_silent(QI_PASID_GLOBAL, 0);
    is_silent(QI_CONTEXT_GLOBAL, 0);
    notify(NVTD_NOTIFY_UNIT | NVTD_NOTIFY_DEVICE_TLB);
    guest_put(g, QI_IOTLB_GLOBAL, 0);
    submit(QI_DEVICE_TLB(GUEST_SID), 0x5000);
    assert_int_equal(g->told, 2);
    notify(0);
    is_silent(QI_IOTLB_GLOBAL, 0);
    is_silent(QI_DEVICE_TLB(GUEST_SID), 0x5000);
    /* Nor after the device has gone. */
    notify(NVTD_NOTIFY_UNIT | NVTD_NOTIFY_DEVICE_TLB);
    assert_int_equal(nvtd_device_remove(g->unit, g->device), 0);
    is_silent(QI_IOTLB_GLOBAL, 0);
    is_silent(QI_DEVICE_TLB(GUEST_SID), 0x5000);
}

static void ranges_of_the_second_stage(void **state)
{
    (void)state;
    start(NVTD_NOTIFY_UNIT);
    tells(QI_IOTLB_GLOBAL, 0, ALL);
    tells(QI_IOTLB_DOMAIN(GUEST_DID), 0, ALL);
    tells(QI_IOTLB_PAGE(GUEST_DID), 0x5000, 0x5000, 0x5fff);
    tells(QI_IOTLB_PAGE(GUEST_DID), 0x7000 | 2, 0x4000, 0x7fff);
    tells(QI_IOTLB_PAGE(GUEST_DID), 5 * GIB | 18, 5 * GIB, 6 * GIB - 1);
    is_silent(QI_IOTLB_DOMAIN(GUEST_DID + 1), 0);
    is_silent(QI_IOTLB_PAGE(GUEST_DID + 1), 0x5000);
    tells(QI_PASID_PASID(GUEST_DID, 0), 0, ALL);
    tells(QI_PASID_DOMAIN(GUEST_DID), 0, ALL);
    tells(QI_PASID_GLOBAL, 0, ALL);
    tells(QI_CONTEXT_GLOBAL, 0, ALL);
    tells(QI_CONTEXT_DEVICE(0, GUEST_SID), 0, ALL);
    is_silent(QI_CONTEXT_DEVICE(0, GUEST_SID + 8), 0);
    is_silent(QI_INTERRUPT_GLOBAL, 0);
}

static void ranges_of_the_first_stage(void **state)
{
    struct tables first;

    (void)state;
    start(NVTD_NOTIFY_UNIT);
    first = tables_new(g, 4, FS_TABLE);
    guest_set_stages(g, 0, &first, NULL, 0, 0);
    guest_flush(g);
    tells(QI_PIOTLB_PASID(GUEST_DID, 0), 0, ALL);
    tells(QI_PIOTLB_PAGE(GUEST_DID, 0), 0x5000, 0x5000, 0x5fff);
    tells(QI_PIOTLB_PAGE(GUEST_DID, 0), 0xffff800000000000 | 9, 0xffff800000000000,
          0xffff8000001fffff);
    is_silent(QI_PIOTLB_PAGE(GUEST_DID + 1, 0), 0x5000);
    is_silent(QI_PIOTLB_PASID(GUEST_DID + 1, 0), 0);
    is_silent(QI_PIOTLB_PASID(GUEST_DID, 1), 0);
    tells(QI_IOTLB_GLOBAL, 0, ALL);
    /* Addresses of a second stage say nothing about those of the first. */
    guest_set_stages(g, 0, &first, &tables, 0, 0);
    guest_flush(g);
    tells(QI_IOTLB_PAGE(GUEST_DID), 0x5000, ALL);
    tells(QI_IOTLB_DOMAIN(GUEST_DID), 0, ALL);
    tells(QI_PIOTLB_PAGE(GUEST_DID, 0), 0x5000, 0x5000, 0x5fff);
}

static void ranges_in_legacy_mode(void **state)
{
    (void)state;
    (void)teardown(NULL);
    g = guest_start(FEATURES_LEGACY, 48, RTADDR_LEGACY);
    tables = tables_new(g, 4, SS_RW);
    guest_set_legacy_context(g, GUEST_SID, PRESENT | tables.root,
                             LEGACY_AW(2) | LEGACY_DID(GUEST_DID));
    guest_flush(g);
    notify(NVTD_NOTIFY_UNIT);
    tells(QI_IOTLB_GLOBAL, 0, ALL);
    tells(QI_IOTLB_DOMAIN(GUEST_DID), 0, ALL);
    tells(QI_IOTLB_PAGE(GUEST_DID), 0x7000 | 2, 0x4000, 0x7fff);
    is_silent(QI_IOTLB_PAGE(GUEST_DID + 1), 0x5000);
    tells(QI_CONTEXT_GLOBAL, 0, ALL);
    tells(QI_CONTEXT_DEVICE(GUEST_DID, GUEST_SID), 0, ALL);
    /* Whose domain that was may have changed with the entry. */
    tells(QI_CONTEXT_DOMAIN(GUEST_DID), 0, ALL);
}

/* Answers to requests with PASID are kept, too, whatever the tables of those without. */
static void ranges_of_a_pasid(void **state)
{
    struct tables first;

    (void)state;
    start(NVTD_NOTIFY_UNIT);
    guest_set_context_bits(g, CONTEXT_PASIDE | CONTEXT_PDTS(2), 0);
    guest_set_pasid_entry(g, 0, PRESENT | PASID_PGTT(PGTT_PASS), GUEST_DID + 1, 0);
    first = tables_new(g, 4, FS_TABLE);
    tables_map(g, &first, 0x5000, 0x100000, 1, FS_LEAF);
    guest_set_stages(g, 7, &first, NULL, 0, 0);
    guest_flush(g);
    assert_int_equal(
        guest_ask(g, g->device, 0x5000, READ | NVTD_REQUEST_PASID, 7).address, 0x100000);
    tells(QI_PIOTLB_PAGE(GUEST_DID, 7), 0x5000, 0x5000, 0x5fff);
    tells(QI_PIOTLB_PASID(GUEST_DID, 7), 0, ALL);
    tells(QI_IOTLB_DOMAIN(GUEST_DID), 0, ALL);
    tells(QI_PASID_PASID(GUEST_DID, 7), 0, ALL);
    is_silent(QI_PIOTLB_PAGE(GUEST_DID + 1, 7), 0x5000);
    /* The entry has gone: what was kept of it goes. */
    guest_set_pasid_entry(g, 7, 0, 0, 0);
    tells(QI_PIOTLB_PASID(GUEST_DID, 7), 0, ALL);
}

/* Size in the address: S, and the lowest clear bit from 12 on (VT-d 6.5.2.5, PCIe 10.3). */
static void ranges_of_device_tlbs(void **state)
{
    const uint32_t tlb = NVTD_INVALIDATION_DEVICE_TLB;
    static const struct {
        uint64_t address, first, last;
        bool size;
    } CASES[] = {
        { 0x5000, 0x5000, 0x5fff, false },
        { 0x4000, 0x4000, 0x5fff, true },
        { 0x5000, 0x4000, 0x7fff, true },
        { 0x7000, 0x0000, 0xffff, true },
        { 0x40000000 | 0xff000, 0x40000000, 0x401fffff, true },
        { 0x7ffffffffffff000, ALL, true },
    };

    (void)state;
    start(NVTD_NOTIFY_DEVICE_TLB);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
        g->told = 0;
        submit(QI_DEVICE_TLB(GUEST_SID), CASES[i].address | (CASES[i].size ? 1 : 0));
        assert_int_equal(g->told_status, 1);
        submit(QI_PASID_DEVICE_TLB(GUEST_SID, 0xabcde),
               CASES[i].address | (CASES[i].size ? 1 << 11 : 0));
        submit(QI_PASID_DEVICE_TLB(GUEST_SID, 0xabcde),
               CASES[i].address | 1 | (CASES[i].size ? 1 << 11 : 0));
        assert_int_equal(g->told, 3);
        expect_order(0, g->device, tlb, 0, CASES[i].first, CASES[i].last);
        expect_order(1, g->device, tlb | NVTD_INVALIDATION_PASID, 0xabcde, CASES[i].first,
                     CASES[i].last);
        expect_order(2, g->device, tlb | NVTD_INVALIDATION_ALL_PASIDS, 0, CASES[i].first,
                     CASES[i].last);
    }
    is_silent(QI_DEVICE_TLB(GUEST_SID + 1), 0x5000);
    is_silent(QI_PASID_DEVICE_TLB(GUEST_SID + 1, 0), 0x5000);
}

/* A second device, in another domain. */
static void each_device_for_itself(void **state)
{
    const uint16_t sid = 0x0100;
    uint32_t other;

    (void)state;
    start(NVTD_NOTIFY_UNIT);
    other = guest_add_device(g, sid, 0);
    guest_set_context(g, sid, g->pasid_directory | PRESENT, 3);
    guest_set_pasid_entry(g, 3, PRESENT | PASID_PGTT(PGTT_SECOND) | PASID_AW48 | tables.root,
                          (GUEST_DID + 1) | PASID_PWSNP, 0);
    guest_flush(g);
    assert_int_equal(guest_dma(g, other, 0x5000, READ).address, 0x100000);
    is_silent(QI_IOTLB_DOMAIN(GUEST_DID + 1), 0);
    assert_int_equal(
        nvtd_device_notify(g->unit, other, NVTD_NOTIFY_UNIT | NVTD_NOTIFY_DEVICE_TLB), 0);
    tells(QI_IOTLB_DOMAIN(GUEST_DID), 0, ALL);
    g->told = 0;
    submit(QI_IOTLB_PAGE(GUEST_DID + 1), 0x5000);
    submit(QI_DEVICE_TLB(sid), 0x6000);
    assert_int_equal(g->told, 2);
    expect_order(0, other, NVTD_INVALIDATION_ALL_PASIDS, 0, 0x5000, 0x5fff);
    expect_order(1, other, NVTD_INVALIDATION_DEVICE_TLB, 0, 0x6000, 0x6fff);
    g->told = 0;
    submit(QI_IOTLB_GLOBAL, 0);
    assert_int_equal(g->told, 2);
    assert_int_not_equal(g->orders[0].device, g->orders[1].device);
}

static void orders_come_as_queued(void **state)
{
    (void)state;
    start(NVTD_NOTIFY_UNIT | NVTD_NOTIFY_DEVICE_TLB);
    for (uint64_t i = 0; i < 4; i++) {
        guest_put(g, QI_IOTLB_PAGE(GUEST_DID), 0x10000 + i * 0x1000);
        guest_put(g, QI_DEVICE_TLB(GUEST_SID), 0x10000 + i * 0x1000);
    }
    guest_sync(g);
    assert_int_equal(g->told, 8);
    for (unsigned i = 0; i < 8; i++) {
        expect_order(i, g->device,
                     i & 1 ? NVTD_INVALIDATION_DEVICE_TLB : NVTD_INVALIDATION_ALL_PASIDS, 0,
                     0x10000 + i / 2 * 0x1000, 0x10fff + i / 2 * 0x1000);
    }
    /* Without a wait they are told all the same. */
    g->told = 0;
    guest_submit(g, QI_IOTLB_GLOBAL, 0);
    assert_int_equal(g->told, 1);
}

/* More than the unit hands out at a time: still all of them before the wait. */
static void many_orders(void **state)
{
    const unsigned devices = 24, descriptors = 240;

    (void)state;
    start(NVTD_NOTIFY_UNIT);
    for (uint16_t i = 1; i < devices; i++) {
        uint32_t device = guest_add_device(g, 0x0100 + i, 0);

        assert_int_equal(nvtd_device_notify(g->unit, device, NVTD_NOTIFY_UNIT), 0);
    }
    for (unsigned i = 0; i < descriptors; i++) {
        guest_put(g, QI_IOTLB_GLOBAL, 0);
    }
    guest_sync(g);
    assert_int_equal(g->told, devices * descriptors);
    assert_int_equal(g->told_status, 1);
}

/* What else changes translations. */
static void switches_and_registers(void **state)
{
    const uint64_t iotlb_register = 1ull << 63 | 1ull << 60;

    (void)state;
    start(NVTD_NOTIFY_UNIT);
    guest_command(g, CMD_TE, false);
    assert_true(g->told > 0);
    expect_order(0, g->device, NVTD_INVALIDATION_ALL_PASIDS, 0, ALL);
    g->told = 0;
    guest_command(g, CMD_TE, true);
    assert_true(g->told > 0);
    g->told = 0;
    guest_command(g, CMD_SRTP, true);
    assert_true(g->told > 0);
    expect_order(0, g->device, NVTD_INVALIDATION_ALL_PASIDS, 0, ALL);
    guest_command(g, CMD_QIE, false);
    g->told = 0;
    write64(g, (read64(g, REG_ECAP) >> 8 & 0x3ff) * 16 + 8, iotlb_register);
    assert_int_equal(g->told, 1);
    expect_order(0, g->device, NVTD_INVALIDATION_ALL_PASIDS, 0, ALL);
    write64(g, REG_CCMD, 1ull << 63 | 1ull << 61);
    assert_int_equal(g->told, 2);
    assert_int_equal(nvtd_unit_reset(g->unit), 0);
    assert_true(g->told > 2);
}

/* Is this the first callback since an order, which is the order itself? */
static bool is_told(struct guest *inside)
{
    bool told = inside->told != known && inside->told > 0;

    known = inside->told;
    return told;
}

/* Whoever keeps answers asks anew, and must get what is so now. */
static NvtdTranslation asked;

static void ask_again(struct guest *inside)
{
    NvtdRequest request = { .size = sizeof(request), .address = 0x5000, .flags = READ };

    if (!is_told(inside)) {
        return;
    }
    asked = (NvtdTranslation){ .size = sizeof(asked) };
    failures += nvtd_translate(inside->unit, inside->device, &request, &asked) != 0;
}

static void answers_inside_are_new(void **state)
{
    static const uint64_t DESCRIPTORS[] = { QI_IOTLB_GLOBAL, QI_IOTLB_DOMAIN(GUEST_DID),
                                            QI_IOTLB_PAGE(GUEST_DID), QI_PASID_GLOBAL,
                                            QI_CONTEXT_GLOBAL };

    (void)state;
    for (size_t i = 0; i < sizeof(DESCRIPTORS) / sizeof(*DESCRIPTORS); i++) {
        start(NVTD_NOTIFY_UNIT);
        expect_address(g, 0x5000, READ, 0x100000);
        tables_map(g, &tables, 0x5000, 0x200000, 1, SS_RW);
        g->reenter = ask_again;
        asked.address = 0;
        submit(DESCRIPTORS[i], DESCRIPTORS[i] == QI_IOTLB_PAGE(GUEST_DID) ? 0x5000 : 0);
        g->reenter = NULL;
        assert_int_equal(g->told, 1);
        assert_int_equal(asked.address, 0x200000);
        assert_int_equal(failures, 0);
    }
}

static int no_mapping(void *opaque, const NvtdMapping *mapping)
{
    (void)mapping;
    ++*(unsigned *)opaque;
    return 0;
}

static void no_line(void *opaque, const char *text)
{
    (void)text;
    ++*(unsigned *)opaque;
}

static void everything(struct guest *inside)
{
    NvtdStats stats = { .size = sizeof(stats) };
    NvtdDeviceInfo info = { .size = sizeof(info) };
    NvtdDump registers = { .size = sizeof(registers), .kind = NVTD_DUMP_REGISTERS };
    NvtdDevice desc = { .size = sizeof(desc), .source_id = 0x0700 };
    uint64_t value;
    uint32_t device = 0;
    unsigned mappings = 0, lines = 0;

    ask_again(inside);
    failures += nvtd_stats(inside->unit, &stats) != 0;
    failures += nvtd_device_info(inside->unit, inside->device, &info) != 0;
    failures += nvtd_mmio_read(inside->unit, REG_IQH, 8, &value) != 0;
    failures += nvtd_mmio_read(inside->unit, REG_FSTS, 4, &value) != 0;
    failures += nvtd_mmio_write(inside->unit, REG_FSTS, 4, 0) != 0;
    failures += nvtd_dump(inside->unit, &registers, no_line, &lines) != 0 || lines == 0;
    failures += nvtd_for_each_mapping(inside->unit, inside->device, 0, 0, 0, UINT64_MAX, 0,
                                      no_mapping, &mappings) != 0 || mappings > 1;
    failures += nvtd_device_add(inside->unit, &desc, &device) != 0;
    failures += nvtd_device_notify(inside->unit, device, NVTD_NOTIFY_UNIT) != 0;
    failures += nvtd_device_remove(inside->unit, device) != 0;
    failures += nvtd_device_notify(inside->unit, inside->device, NVTD_NOTIFY_UNIT) != 0;
}

static void every_function_works_inside(void **state)
{
    (void)state;
    start(NVTD_NOTIFY_UNIT);
    g->reenter = everything;
    tells(QI_IOTLB_DOMAIN(GUEST_DID), 0, ALL);
    tells(QI_PASID_GLOBAL, 0, ALL);
    guest_command(g, CMD_TE, false);
    g->reenter = NULL;
    assert_int_equal(failures, 0);
}

/* Another processor queues more meanwhile; it is this call that executes it. */
static void queue_more(struct guest *inside)
{
    if (!is_told(inside)) {
        return;
    }
    inside->reenter = NULL;
    guest_put(inside, QI_IOTLB_PAGE(GUEST_DID), 0x9000);
    guest_put(inside, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(9), inside->status + 8);
    guest_ring(inside);
    /* The first wait is still to come, and this one behind it. */
    failures += *guest_qword(inside, inside->status + 8) != 0;
}

static void a_queue_that_grows_inside(void **state)
{
    (void)state;
    start(NVTD_NOTIFY_UNIT);
    guest_put(g, QI_IOTLB_GLOBAL, 0);
    guest_put(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(8), g->status);
    g->reenter = queue_more;
    guest_ring(g);
    assert_int_equal(*guest_qword(g, g->status), 8);
    assert_int_equal(*guest_qword(g, g->status + 8), 9);
    assert_int_equal(read32(g, REG_IQH), g->tail * 32);
    assert_int_equal(g->told, 2);
    expect_order(1, g->device, NVTD_INVALIDATION_ALL_PASIDS, 0, 0x9000, 0x9fff);
    assert_null(g->reenter);
    assert_int_equal(failures, 0);
}

static void a_device_tlb_that_does_not_answer(void **state)
{
    volatile uint32_t *status;
    unsigned msis;
    uint32_t head;

    (void)state;
    start(NVTD_NOTIFY_DEVICE_TLB);
    status = (uint32_t *)(void *)guest_qword(g, g->status);
    *status = 1;
    msis = g->msis;
    g->obey = -ETIMEDOUT;
    guest_put(g, QI_DEVICE_TLB(GUEST_SID), 0x5000);
    guest_put(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(2), g->status);
    head = g->tail * 32;
    guest_put(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(3), g->status + 8);
    guest_ring(g);
    /* The wait is aborted: behind it the queue stands, and its status is never written. */
    assert_int_equal(g->told, 1);
    assert_int_equal(*status, 1);
    assert_int_equal(*guest_qword(g, g->status + 8), 0);
    assert_int_equal(read32(g, REG_IQH), head);
    assert_int_equal(read32(g, REG_FSTS) & (FSTS_IQE | FSTS_ICE | FSTS_ITE), FSTS_ITE);
    assert_int_equal(IQERCD_ITESID(read64(g, REG_IQERCD)), GUEST_SID);
    assert_int_equal(g->msis, msis + 1);
    assert_int_equal(g->last_msi.data, FAULT_MSI_DATA);
    assert_int_equal(guest_stats(g).device_tlb_errors, 1);
    /* It stands whatever is queued. */
    g->obey = 0;
    guest_put(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(4), g->status + 16);
    guest_ring(g);
    assert_int_equal(read32(g, REG_IQH), head);
    /* Clearing ITE lets it go on. */
    write32(g, REG_FSTS, FSTS_ITE);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(IQERCD_ITESID(read64(g, REG_IQERCD)), 0);
    assert_int_equal(*status, 1);
    assert_int_equal(*guest_qword(g, g->status + 8), 3);
    assert_int_equal(*guest_qword(g, g->status + 16), 4);
    assert_int_equal(read32(g, REG_IQH), g->tail * 32);
    submit(QI_DEVICE_TLB(GUEST_SID), 0x5000);
    assert_int_equal(g->told, 2);
}

static void a_device_tlb_that_answers_wrongly(void **state)
{
    unsigned msis;

    (void)state;
    start(NVTD_NOTIFY_DEVICE_TLB);
    msis = g->msis;
    g->obey = -EIO;
    submit(QI_PASID_DEVICE_TLB(GUEST_SID, 3), 0x5000);
    assert_int_equal(read32(g, REG_FSTS) & (FSTS_IQE | FSTS_ICE | FSTS_ITE), FSTS_ICE);
    assert_int_equal(IQERCD_ICESID(read64(g, REG_IQERCD)), GUEST_SID);
    assert_int_equal(g->msis, msis + 1);
    assert_int_equal(guest_stats(g).device_tlb_errors, 1);
    /* The queue goes on. */
    g->obey = 0;
    submit(QI_DEVICE_TLB(GUEST_SID), 0x5000);
    assert_int_equal(g->told, 2);
    assert_int_equal(guest_stats(g).device_tlb_errors, 1);
    write32(g, REG_FSTS, FSTS_ICE);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(IQERCD_ICESID(read64(g, REG_IQERCD)), 0);
}

/* Without NvtdOps.invalidate there is nobody to tell, and the queue does not care. */
static void ignore_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static void the_callback_is_optional(void **state)
{
    const uint64_t queue = 0x1000, status = 0x2000;
    static _Alignas(4096) uint64_t ram[2048];
    NvtdOps ops = { .size = offsetof(NvtdOps, invalidate), .msi = ignore_msi };
    NvtdDevice desc = { .size = sizeof(desc), .source_id = GUEST_SID };
    uint32_t device = 0;
    NvtdUnit *unit = NULL;

    (void)state;
    assert_int_equal(nvtd_unit_create(NULL, &ops, NULL, &unit), 0);
    assert_int_equal(nvtd_ram_add(unit, 0, sizeof(ram), ram, 0), 0);
    assert_int_equal(nvtd_device_add(unit, &desc, &device), 0);
    assert_int_equal(
        nvtd_device_notify(unit, device, NVTD_NOTIFY_UNIT | NVTD_NOTIFY_DEVICE_TLB), 0);
    ram[queue / 8] = QI_IOTLB_GLOBAL;
    ram[queue / 8 + 4] = QI_DEVICE_TLB(GUEST_SID);
    ram[queue / 8 + 8] = QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(2);
    ram[queue / 8 + 9] = status;
    assert_int_equal(nvtd_mmio_write(unit, REG_IQA, 8, queue | IQA_DW), 0);
    assert_int_equal(nvtd_mmio_write(unit, REG_GCMD, 4, CMD_QIE), 0);
    assert_int_equal(nvtd_mmio_write(unit, REG_IQT, 4, 3 * 32), 0);
    assert_int_equal(ram[status / 8], 2);
    nvtd_unit_destroy(unit);
}

#define TEST(test) cmocka_unit_test_teardown(test, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(wrong_calls_are_errors),
        TEST(nobody_is_told_unasked),
        TEST(ranges_of_the_second_stage),
        TEST(ranges_of_the_first_stage),
        TEST(ranges_in_legacy_mode),
        TEST(ranges_of_a_pasid),
        TEST(ranges_of_device_tlbs),
        TEST(each_device_for_itself),
        TEST(orders_come_as_queued),
        TEST(many_orders),
        TEST(switches_and_registers),
        TEST(answers_inside_are_new),
        TEST(every_function_works_inside),
        TEST(a_queue_that_grows_inside),
        TEST(a_device_tlb_that_does_not_answer),
        TEST(a_device_tlb_that_answers_wrongly),
        TEST(the_callback_is_optional),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
