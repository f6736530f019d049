/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Calls from inside callbacks: no lock of the unit is held there, so every function works.
 */
#include "guest.h"

/* Calls from inside a callback that failed: an assertion there would leave the unit by longjmp. */
static unsigned failures;
static uint32_t added;

static int setup(void **state)
{
    (void)state;
    failures = 0;
    added = 0;
    return 0;
}

static void everything(struct guest *g)
{
    NvtdStats stats = { .size = sizeof(stats) };
    NvtdDeviceInfo info = { .size = sizeof(info) };
    NvtdRequest request = {
        .size = sizeof(request), .address = 0x1000, .flags = NVTD_REQUEST_READ
    };
    NvtdTranslation out = { .size = sizeof(out) };
    NvtdDevice desc = { .size = sizeof(desc), .source_id = 0x0700 };
    uint64_t value;

    failures += nvtd_stats(g->unit, &stats) != 0;
    failures += nvtd_mmio_read(g->unit, REG_FSTS, 4, &value) != 0;
    failures += nvtd_mmio_write(g->unit, REG_FSTS, 4, 0) != 0;
    if (g->device == 0) {
        return; /* the device is being added */
    }
    failures += nvtd_device_info(g->unit, g->device, &info) != 0;
    failures += nvtd_translate(g->unit, g->device, &request, &out) != 0;
    if (added) {
        failures += nvtd_device_remove(g->unit, added) != 0;
        added = 0;
    } else {
        failures += nvtd_device_add(g->unit, &desc, &added) != 0;
    }
}

static void every_callback_may_call_back(uint32_t host)
{
    struct guest *g = guest_new(host, 0);
    unsigned before;

    g->reenter = everything;
    guest_boot(g);
    guest_map(g, 0x1000, 0x200000, 1, FS_LEAF);
    before = g->events;
    expect_address(g, 0x1000, NVTD_REQUEST_READ, 0x200000);
    guest_flush_iova(g, 0x1000, 0);
    guest_flush_pasid(g, 0);
    expect_fault(g, 0x5000, NVTD_REQUEST_READ, FAULT_FS_PRESENT); /* msi, on a translation */
    assert_true(g->msis > 0);
    guest_submit(g, 0, 0); /* msi and log, on a register write */
    assert_true(g->log_lines > 0);
    assert_true(g->events > before);
    assert_int_equal(failures, 0);
    g->reenter = NULL;
    guest_free(g);
}

static void with_no_host(void **state)
{
    (void)state;
    every_callback_may_call_back(NVTD_HOST_NONE);
}

static void with_the_software_host(void **state)
{
    (void)state;
    every_callback_may_call_back(NVTD_HOST_SOFT);
}

/* A handler that does at once what Linux does later: reads, clears and acknowledges. */
static void handle_fault(struct guest *g)
{
    uint64_t fsts = 0, hi = 0, record;

    failures += nvtd_mmio_read(g->unit, REG_FSTS, 4, &fsts) != 0;
    if (!(fsts & FSTS_PPF)) {
        return;
    }
    record = fault_register(g, FSTS_FRI((uint32_t)fsts));
    failures += nvtd_mmio_read(g->unit, record + 8, 8, &hi) != 0;
    failures += !(hi & FRCD_F);
    failures += nvtd_mmio_write(g->unit, record + 12, 4, 1u << 31) != 0;
}

static void faults_handled_inside_the_interrupt(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_SOFT, 0);

    (void)state;
    guest_boot(g);
    g->reenter = handle_fault;
    for (unsigned i = 0; i < 100; i++) {
        expect_fault(g, 0x5000 + i * 4096, NVTD_REQUEST_WRITE, FAULT_FS_PRESENT);
        assert_int_equal(read32(g, REG_FSTS) & (FSTS_PPF | FSTS_PFO), 0);
    }
    assert_int_equal(g->msis, 100);
    assert_int_equal(guest_stats(g).fault_overflows, 0);
    assert_int_equal(failures, 0);
    guest_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(with_no_host, setup),
        cmocka_unit_test_setup(with_the_software_host, setup),
        cmocka_unit_test_setup(faults_handled_inside_the_interrupt, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
