/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Interrupt remapping through the C interface; its rules are tested in tests/interrupts.rs.
 */
#include "guest.h"

#include <errno.h>

static struct guest *g;
static uint64_t table;

/* As Linux starts in x2APIC mode: the queue, a table of 64 Ki entries, remapping on. */
static int setup(void **state)
{
    NvtdConfig config = { .size = sizeof(config) };

    (void)state;
    assert_int_equal(nvtd_config_default(&config), 0);
    config.features |= NVTD_FEATURE_INTERRUPT_REMAPPING | NVTD_FEATURE_EXTENDED_INTERRUPT_MODE;
    g = guest_new_with(&config);
    guest_boot(g);
    table = guest_pages(g, 256);
    write64(g, REG_IRTA, table | IRTA_EIME | 0xf);
    guest_command(g, CMD_SIRTP, true);
    guest_command(g, CMD_IRE, true);
    g->forgets = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_free(g);
    return 0;
}

static void set_entry(unsigned index, uint64_t qw0, uint64_t qw1)
{
    uint64_t *entry = guest_qword(g, table + index * 16ull);

    entry[1] = qw1;
    entry[0] = qw0;
}

static NvtdMsi request(unsigned index, uint32_t flags)
{
    return (NvtdMsi){
        .size = sizeof(NvtdMsi),
        .address = MSI_REMAPPABLE(index),
        .source_id = GUEST_SID,
        .flags = flags,
    };
}

static NvtdMsiAnswer ask(NvtdMsi msi)
{
    NvtdMsiAnswer answer = { .size = sizeof(answer) };

    assert_int_equal(nvtd_remap_msi(g->unit, &msi, &answer), 0);
    assert_int_equal(answer.size, sizeof(answer));
    return answer;
}

static void expect_refusal(NvtdMsi msi, uint32_t fault, const char *diagnostic)
{
    NvtdMsiAnswer answer = ask(msi);

    assert_int_equal(answer.fault, fault);
    assert_string_equal(nvtd_diagnostic_name(answer.diagnostic), diagnostic);
    assert_int_equal(answer.address, 0);
    assert_int_equal(answer.data, 0);
    assert_int_equal(answer.flags, 0);
}

static void an_interrupt_is_remapped(void **state)
{
    NvtdMsiAnswer answer;

    (void)state;
    set_entry(0xabcd, IRTE_P | IRTE_VECTOR(0x37) | IRTE_DST(0x12345), IRTE_SVT_SID(GUEST_SID));
    for (unsigned round = 0; round < 2; round++) {
        answer = ask(request(0xabcd, 0));
        assert_int_equal(answer.address, 0x00012300fee45000ull);
        assert_int_equal(answer.data, 0x4037);
        assert_int_equal(answer.fault, 0);
        assert_int_equal(answer.diagnostic, 0);
        assert_int_equal(answer.flags, NVTD_MSI_REMAPPED);
    }
    assert_int_equal(guest_stats(g).interrupts, 2);
    assert_int_equal(guest_stats(g).interrupt_cache_hits, 1);
    assert_int_equal(guest_stats(g).interrupt_faults, 0);
}

static void a_refusal_is_recorded_and_signalled(void **state)
{
    uint64_t hi;

    (void)state;
    expect_refusal(request(7, NVTD_MSI_DEBUG), FAULT_IRTE_PRESENT, "interrupt_entry_not_present");
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(guest_stats(g).interrupts, 0);
    expect_refusal(request(7, 0), FAULT_IRTE_PRESENT, "interrupt_entry_not_present");
    assert_int_equal(read32(g, REG_FSTS), FSTS_PPF);
    assert_int_equal(read64(g, fault_register(g, 0)), 7ull << 48);
    hi = read64(g, fault_register(g, 0) + 8);
    assert_true(hi & FRCD_F);
    assert_false(hi & FRCD_READ);
    assert_int_equal(FRCD_REASON(hi), FAULT_IRTE_PRESENT);
    assert_int_equal(FRCD_SID(hi), GUEST_SID);
    assert_int_equal(g->msis, 1);
    assert_int_equal(g->last_msi.address, FAULT_MSI_ADDRESS);
    assert_int_equal(g->last_msi.data, FAULT_MSI_DATA);
    assert_int_equal(guest_stats(g).interrupt_faults, 1);
}

static void flags_say_what_the_vmm_knows(void **state)
{
    NvtdMsi msi = request(3, 0);

    (void)state;
    set_entry(3, IRTE_P | IRTE_VECTOR(0x38), IRTE_SVT_SID(GUEST_SID + 1));
    expect_refusal(msi, FAULT_IR_SOURCE, "interrupt_source_id");
    msi.flags = NVTD_MSI_UNVERIFIED;
    assert_int_equal(ask(msi).data, 0x4038);
    msi.flags = NVTD_MSI_PASID | NVTD_MSI_UNVERIFIED;
    msi.pasid = 0xfffff;
    expect_refusal(msi, FAULT_IR_PASID, "interrupt_pasid");
    msi = request(0, 0);
    msi.address = 0xfee01000;
    expect_refusal(msi, FAULT_CFI_BLOCKED, "interrupt_compatibility_extended");
    /* Off again: as it is. */
    guest_command(g, CMD_IRE, false);
    msi.data = 0x1234;
    assert_int_equal(ask(msi).address, 0xfee01000);
    assert_int_equal(ask(msi).data, 0x1234);
    assert_int_equal(ask(msi).flags, 0);
}

static void answers_are_to_be_forgotten(void **state)
{
    (void)state;
    set_entry(0x120, IRTE_P | IRTE_VECTOR(0x40), 0);
    assert_int_equal(ask(request(0x120, 0)).data, 0x4040);
    set_entry(0x120, IRTE_P | IRTE_VECTOR(0x41), 0);
    guest_put(g, QI_INTERRUPT_INDEX(0x123, 2), 0);
    guest_sync(g);
    assert_int_equal(g->forgets, 1);
    assert_int_equal(g->last_forget.global, 0);
    assert_int_equal(g->last_forget.index, 0x123);
    assert_int_equal(g->last_forget.mask, 2);
    assert_int_equal(ask(request(0x120, 0)).data, 0x4041);
    guest_put(g, QI_INTERRUPT_GLOBAL, 0);
    guest_sync(g);
    assert_int_equal(g->forgets, 2);
    assert_int_equal(g->last_forget.global, 1);
    assert_int_equal(g->last_forget.index, 0);
    assert_int_equal(g->last_forget.mask, 0);
    assert_int_equal(nvtd_unit_reset(g->unit), 0);
    assert_int_equal(g->forgets, 3);
    assert_int_equal(g->last_forget.global, 1);
}

static uint32_t asked_inside, status_inside;
static unsigned asked_at; /* forgets, when that was */

static void ask_again(struct guest *guest)
{
    NvtdMsi msi = request(5, 0);
    NvtdMsiAnswer answer = { .size = sizeof(answer) };

    if (guest->forgets == asked_at) {
        return; /* another callback */
    }
    asked_at = guest->forgets;
    asked_inside = nvtd_remap_msi(guest->unit, &msi, &answer) ? 0 : answer.data;
    status_inside = *(uint32_t *)(void *)guest_qword(guest, guest->status);
}

static void answers_may_be_asked_for_from_inside(void **state)
{
    (void)state;
    set_entry(5, IRTE_P | IRTE_VECTOR(0x50), 0);
    assert_int_equal(ask(request(5, 0)).data, 0x4050);
    set_entry(5, IRTE_P | IRTE_VECTOR(0x51), 0);
    asked_at = g->forgets;
    g->reenter = ask_again;
    guest_put(g, QI_INTERRUPT_INDEX(5, 0), 0);
    guest_sync(g);
    g->reenter = NULL;
    assert_int_equal(asked_inside, 0x4051);
    assert_int_equal(status_inside, 1); /* guest_sync()'s wait has not completed yet */
}

static void misuse_is_refused(void **state)
{
    NvtdMsiAnswer answer = { .size = sizeof(answer) };
    NvtdMsi msi = request(0, 0);

    (void)state;
    expect_error(nvtd_remap_msi(NULL, &msi, &answer), -EINVAL, "unit");
    expect_error(nvtd_remap_msi(g->unit, NULL, &answer), -EINVAL, "request");
    expect_error(nvtd_remap_msi(g->unit, &msi, NULL), -EINVAL, "out");
    msi.flags = 8;
    expect_error(nvtd_remap_msi(g->unit, &msi, &answer), -EINVAL, "flags");
    msi = request(0, 0);
    msi.reserved = 1;
    expect_error(nvtd_remap_msi(g->unit, &msi, &answer), -EINVAL, "reserved");
    msi = request(0, 0);
    msi.pasid = 1;
    expect_error(nvtd_remap_msi(g->unit, &msi, &answer), -EINVAL, "pasid");
    msi = request(0, NVTD_MSI_PASID);
    msi.pasid = 1u << 20;
    expect_error(nvtd_remap_msi(g->unit, &msi, &answer), -EINVAL, "pasid");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_interrupt_is_remapped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refusal_is_recorded_and_signalled, setup, teardown),
        cmocka_unit_test_setup_teardown(flags_say_what_the_vmm_knows, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_are_to_be_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_may_be_asked_for_from_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(misuse_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
