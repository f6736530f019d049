/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The invalidation queue: completion, errors and recovery from them.
 */
#include "guest.h"

static struct guest *g;

static int setup(void **state)
{
    (void)state;
    g = guest_new(NVTD_HOST_NONE, 0);
    guest_enable_queue(g);
    guest_enable_fault_event(g);
    guest_set_root(g);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_free(g);
    return 0;
}

/* The queue stands still at descriptor `head`, and says why. */
static void expect_stopped(uint32_t head, unsigned code)
{
    assert_true(read32(g, REG_FSTS) & FSTS_IQE);
    assert_int_equal(read64(g, REG_IQERCD) & 0xf, code);
    assert_int_equal(read32(g, REG_IQH), head * 32);
}

static void expect_running(void)
{
    assert_false(read32(g, REG_FSTS) & FSTS_IQE);
    assert_int_equal(read64(g, REG_IQERCD) & 0xf, 0);
    guest_sync(g);
}

static void clear_queue_error(void)
{
    write32(g, REG_FSTS, FSTS_IQE);
}

/* Puts one bad descriptor between two waits: the one before it completes, the one behind it does
 * not until the descriptor is repaired and IQE cleared, with no tail write (as Linux recovers). */
static void stops_and_recovers(uint64_t qw0, uint64_t qw1, uint64_t qw2, unsigned code)
{
    uint64_t errors = guest_stats(g).queue_errors;
    uint64_t status = guest_page(g);
    volatile uint64_t *before = guest_qword(g, status), *behind = guest_qword(g, status + 8);
    unsigned msis = g->msis;
    uint32_t head;
    uint64_t *bad;

    guest_put(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(2), status);
    head = g->tail;
    bad = guest_qword(g, guest_descriptor(g, head));
    guest_put(g, qw0, qw1);
    bad[2] = qw2;
    guest_put(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(3), status + 8);
    guest_ring(g);
    assert_int_equal(*before, 2);
    assert_int_equal(*behind, 0);
    expect_stopped(head, code);
    assert_int_equal(guest_stats(g).queue_errors, errors + 1);
    assert_int_equal(g->msis, msis + 1);
    assert_int_equal(g->last_msi.data, FAULT_MSI_DATA);

    /* Nothing moves while IQE stands. */
    guest_ring(g);
    expect_stopped(head, code);

    bad[0] = QI_WAIT | QI_WAIT_FN;
    bad[1] = bad[2] = bad[3] = 0;
    clear_queue_error();
    assert_int_equal(*behind, 3);
    expect_running();
}

static void disabled_queue_does_nothing(void **state)
{
    struct guest *off = guest_new(NVTD_HOST_NONE, 0);

    (void)state;
    off->queue = guest_pages(off, 2);
    write64(off, REG_IQA, off->queue | IQA_DW | IQA_8KIB);
    guest_submit(off, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(2), off->status);
    assert_int_equal(*guest_qword(off, off->status), 0);
    assert_int_equal(guest_stats(off).descriptors, 0);
    guest_free(off);
}

static void every_type_that_linux_sends(void **state)
{
    NvtdStats before = guest_stats(g), after;

    (void)state;
    guest_put(g, QI_CONTEXT_GLOBAL, 0);
    guest_put(g, QI_CONTEXT_DEVICE(GUEST_DID, GUEST_SID), 0);
    guest_put(g, QI_IOTLB_GLOBAL, 0);
    guest_put(g, QI_IOTLB_DOMAIN(GUEST_DID), 0);
    guest_put(g, QI_DEVICE_TLB(GUEST_SID), 0x7ffffffffffff000 | 1);
    guest_put(g, QI_INTERRUPT_GLOBAL, 0);
    guest_put(g, QI_PIOTLB_PASID(GUEST_DID, 0), 0);
    guest_put(g, QI_PIOTLB_PAGE(GUEST_DID, 0), 0x1000);
    guest_put(g, QI_PIOTLB_PAGE(GUEST_DID, 0), 0x1000 | 1 << 6); /* IH */
    guest_put(g, QI_PIOTLB_PAGE(GUEST_DID, 0), 52);              /* 6.12 says "all" so */
    guest_put(g, QI_PIOTLB_PAGE(GUEST_DID, 0), 63);
    guest_put(g, QI_PASID_DOMAIN(GUEST_DID), 0);
    guest_put(g, QI_PASID_PASID(GUEST_DID, 0), 0);
    guest_put(g, QI_PASID_GLOBAL, 0);
    guest_put(g, QI_PASID_DEVICE_TLB(GUEST_SID, 0), 0x7ffffffffffff000 | 1 << 11);
    guest_put(g, QI_PAGE_RESPONSE(GUEST_SID), 0);
    guest_put(g, QI_WAIT | QI_WAIT_FN, 0);
    guest_put(g, QI_WAIT | QI_WAIT_FN | QI_WAIT_SW | QI_WAIT_PD | QI_WAIT_DATA(9), g->status + 64);
    guest_sync(g);
    assert_int_equal(*guest_qword(g, g->status + 64), 9);
    after = guest_stats(g);
    assert_int_equal(after.queue_errors, 0);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(after.descriptors - before.descriptors, 19);
    for (unsigned type = 1; type <= 9; type++) {
        static const unsigned COUNT[] = { 0, 2, 2, 1, 1, 3, 5, 3, 1, 1 };

        assert_int_equal(after.descriptors_by_type[type],
                         before.descriptors_by_type[type] + COUNT[type]);
    }
}

static void the_ring_wraps(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 600; i++) {
        guest_put(g, QI_IOTLB_GLOBAL, 0);
        guest_sync(g);
    }
    /* Full but for one slot. */
    while (g->tail != 0) {
        guest_sync(g);
    }
    for (unsigned i = 0; i < 254; i++) {
        guest_put(g, QI_IOTLB_GLOBAL, 0);
    }
    guest_sync(g);
    assert_int_equal(guest_stats(g).queue_errors, 0);
}

static void status_write_is_4_bytes(void **state)
{
    uint64_t *status = guest_qword(g, g->status + 16);

    (void)state;
    *status = 0x1111111122222222ull;
    guest_submit(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(0xabcdef01), g->status + 16);
    assert_int_equal(*status, 0x11111111abcdef01ull);
    *status = 0;
    guest_submit(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(0xabcdef01), g->status + 20);
    assert_int_equal(*status, 0xabcdef0100000000ull);
}

static void status_outside_ram_is_counted(void **state)
{
    (void)state;
    guest_submit(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(2), 64 * GIB);
    assert_int_equal(guest_stats(g).status_write_errors, 1);
    expect_running();
}

static void wait_interrupt(void **state)
{
    (void)state;
    write32(g, REG_IEDATA, WAIT_MSI_DATA);
    write32(g, REG_IEADDR, (uint32_t)WAIT_MSI_ADDRESS);
    write32(g, REG_IEUADDR, 0);
    write32(g, REG_IECTL, 0);
    guest_submit(g, QI_WAIT | QI_WAIT_IF, 0);
    assert_int_equal(read32(g, REG_ICS), ICS_IWC);
    assert_int_equal(g->msis, 1);
    assert_int_equal(g->last_msi.address, WAIT_MSI_ADDRESS);
    assert_int_equal(g->last_msi.data, WAIT_MSI_DATA);
    write32(g, REG_ICS, ICS_IWC);
    assert_int_equal(read32(g, REG_ICS), 0);
    guest_submit(g, QI_WAIT | QI_WAIT_IF | QI_WAIT_SW | QI_WAIT_DATA(5), g->status);
    assert_int_equal(*guest_qword(g, g->status), 5);
    assert_int_equal(g->msis, 2);
}

static void masked_wait_interrupt_is_pending(void **state)
{
    (void)state;
    write32(g, REG_IEDATA, WAIT_MSI_DATA);
    write32(g, REG_IEADDR, (uint32_t)WAIT_MSI_ADDRESS);
    guest_submit(g, QI_WAIT | QI_WAIT_IF, 0);
    assert_int_equal(g->msis, 0);
    assert_int_equal(read32(g, REG_ICS), ICS_IWC);
    assert_int_equal(read32(g, REG_IECTL), EVENT_IM | EVENT_IP);
    write32(g, REG_IECTL, 0);
    assert_int_equal(g->msis, 1);
    assert_int_equal(g->last_msi.data, WAIT_MSI_DATA);
    assert_int_equal(read32(g, REG_IECTL), 0);
    /* Served without an interrupt: clearing IWC takes back what is pending. */
    write32(g, REG_ICS, ICS_IWC);
    write32(g, REG_IECTL, EVENT_IM);
    guest_submit(g, QI_WAIT | QI_WAIT_IF, 0);
    write32(g, REG_ICS, ICS_IWC);
    assert_int_equal(read32(g, REG_IECTL), EVENT_IM);
    write32(g, REG_IECTL, 0);
    assert_int_equal(g->msis, 1);
}

static void bad_types(void **state)
{
    (void)state;
    stops_and_recovers(0, 0, 0, IQEI_TYPE);
    stops_and_recovers(10, 0, 0, IQEI_TYPE);
    stops_and_recovers(QI_IOTLB_GLOBAL | 0x200, 0, 0, IQEI_TYPE); /* type is bits 11:9 and 3:0 */
}

static void reserved_fields(void **state)
{
    (void)state;
    stops_and_recovers(QI_IOTLB_GLOBAL, 0, 1, IQEI_RESERVED); /* third quadword */
    stops_and_recovers(QI_CONTEXT_GLOBAL, 1, 0, IQEI_RESERVED);
    stops_and_recovers(QI_WAIT | QI_WAIT_SW | 1ull << 31, g->status, 0, IQEI_RESERVED);
    stops_and_recovers(QI_PASID_GLOBAL | 1ull << 63, 0, 0, IQEI_RESERVED);
}

static void tail_beyond_the_ring(void **state)
{
    uint32_t tail = g->tail;

    (void)state;
    write32(g, REG_IQT, 0x2000);
    expect_stopped(tail, IQEI_TAIL);
    write32(g, REG_IQT, tail * 32);
    clear_queue_error();
    expect_running();
    assert_int_equal(guest_stats(g).queue_errors, 1);
}

static void misaligned_tail(void **state)
{
    uint32_t tail = g->tail;

    (void)state;
    write32(g, REG_IQT, tail * 32 + 16);
    expect_stopped(tail, IQEI_ALIGNMENT);
    write32(g, REG_IQT, tail * 32);
    clear_queue_error();
    expect_running();
}

/* Clearing IQE alone repairs nothing: the error comes back, and the call returns. */
static void error_comes_back(void **state)
{
    uint32_t head = g->tail;

    (void)state;
    guest_submit(g, 0, 0);
    expect_stopped(head, IQEI_TYPE);
    clear_queue_error();
    expect_stopped(head, IQEI_TYPE);
    assert_int_equal(guest_stats(g).queue_errors, 2);
}

/* A guest cannot fill the operator's disk. */
static void log_lines_are_limited(void **state)
{
    (void)state;
    guest_submit(g, 0, 0);
    for (unsigned i = 0; i < 10000; i++) {
        clear_queue_error();
    }
    assert_int_equal(guest_stats(g).queue_errors, 10001);
    assert_in_range(g->log_lines, 1, 1000);
}

static void restart_queue(uint64_t iqa)
{
    guest_command(g, CMD_QIE, false);
    write32(g, REG_IQT, 0);
    write64(g, REG_IQA, iqa);
    guest_command(g, CMD_QIE, true);
}

static void queue_outside_ram(void **state)
{
    (void)state;
    restart_queue(64 * GIB | IQA_DW | IQA_8KIB);
    write32(g, REG_IQT, 32);
    expect_stopped(0, IQEI_FETCH);
    assert_true(guest_stats(g).memory_errors > 0);

    /* The guest can start over. */
    g->tail = 0;
    clear_queue_error();
    restart_queue(g->queue | IQA_DW | IQA_8KIB);
    clear_queue_error();
    expect_running();
}

/* Scalable mode needs 256-bit descriptors. */
static void narrow_descriptors_in_scalable_mode(void **state)
{
    (void)state;
    restart_queue(g->queue);
    write32(g, REG_IQT, 16);
    expect_stopped(0, IQEI_WIDTH);
}

/* With no scalable-mode root table the 128-bit form works (firmware uses it). */
static void narrow_descriptors_before_scalable_mode(void **state)
{
    struct guest *early = guest_new(NVTD_HOST_NONE, 0);
    uint64_t queue = guest_page(early);

    (void)state;
    guest_qword(early, queue)[0] = QI_IOTLB_GLOBAL;
    guest_qword(early, queue)[2] = QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(7);
    guest_qword(early, queue)[3] = early->status;
    write64(early, REG_IQA, queue);
    guest_command(early, CMD_QIE, true);
    write32(early, REG_IQT, 32);
    assert_int_equal(*guest_qword(early, early->status), 7);
    assert_int_equal(read32(early, REG_IQH), 32);
    assert_int_equal(guest_stats(early).queue_errors, 0);
    guest_free(early);
}

/* Random descriptors: every call returns, and the queue can always be brought back. */
static void random_descriptors_do_no_harm(void **state)
{
    uint64_t seed = 88172645463325252ull;

    (void)state;
    for (unsigned round = 0; round < guest_rounds(20000); round++) {
        uint64_t *slot = guest_qword(g, guest_descriptor(g, g->tail));

        for (unsigned i = 0; i < 4; i++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            slot[i] = i == 0 || seed & 8 ? seed : 0;
        }
        if (seed & 16) {
            slot[0] = (slot[0] & 0xffff00000030ull) | (1 + (seed >> 32) % 9);
        }
        g->tail = (g->tail + 1) % 256;
        guest_ring(g);
        if (read32(g, REG_FSTS) & FSTS_IQE) {
            slot[0] = QI_WAIT | QI_WAIT_FN;
            slot[1] = slot[2] = slot[3] = 0;
            clear_queue_error();
        }
        assert_false(read32(g, REG_FSTS) & FSTS_IQE);
    }
    expect_running();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disabled_queue_does_nothing),
        cmocka_unit_test_setup_teardown(every_type_that_linux_sends, setup, teardown),
        cmocka_unit_test_setup_teardown(the_ring_wraps, setup, teardown),
        cmocka_unit_test_setup_teardown(status_write_is_4_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(status_outside_ram_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(wait_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(masked_wait_interrupt_is_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_types, setup, teardown),
        cmocka_unit_test_setup_teardown(reserved_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(tail_beyond_the_ring, setup, teardown),
        cmocka_unit_test_setup_teardown(misaligned_tail, setup, teardown),
        cmocka_unit_test_setup_teardown(error_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(log_lines_are_limited, setup, teardown),
        cmocka_unit_test_setup_teardown(queue_outside_ram, setup, teardown),
        cmocka_unit_test_setup_teardown(narrow_descriptors_in_scalable_mode, setup, teardown),
        cmocka_unit_test(narrow_descriptors_before_scalable_mode),
        cmocka_unit_test_setup_teardown(random_descriptors_do_no_harm, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
