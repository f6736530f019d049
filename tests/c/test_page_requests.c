/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Page requests: a device asks, the guest finds the request in its queue and answers the group, the
 * device gets the answer.
 */
#include "guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MSI_ADDRESS 0xfee03000ull
#define PAGE_MSI_DATA 0x43u

static struct guest *g;
static uint64_t ring;

static NvtdConfig config(void)
{
    NvtdConfig config = { .size = sizeof(config) };

    assert_int_equal(nvtd_config_default(&config), 0);
    config.features |= NVTD_FEATURE_DEVICE_TLB | NVTD_FEATURE_PAGE_REQUEST;
    config.pasid_bits = 20;
    return config;
}

static void permit(uint64_t bits)
{
    guest_set_context(g, GUEST_SID, g->pasid_directory | CONTEXT_PDTS(2) | bits | PRESENT, 0);
    guest_put(g, QI_CONTEXT_DEVICE(0, GUEST_SID), 0);
    guest_sync(g);
}

static int setup(void **state)
{
    NvtdConfig with_requests = config();

    (void)state;
    g = guest_new_with(&with_requests);
    guest_boot(g);
    ring = guest_page(g);
    write64(g, REG_PQH, 0);
    write64(g, REG_PQT, 0);
    write64(g, REG_PQA, ring);
    write32(g, REG_PEDATA, PAGE_MSI_DATA);
    write32(g, REG_PEADDR, (uint32_t)PAGE_MSI_ADDRESS);
    write32(g, REG_PEUADDR, 0);
    write32(g, REG_PECTL, 0);
    permit(CONTEXT_DTE | CONTEXT_PASIDE | CONTEXT_PRE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_free(g);
    return 0;
}

static NvtdPageRequest request(uint64_t address, uint32_t flags)
{
    return (NvtdPageRequest){ .size = sizeof(NvtdPageRequest), .address = address, .flags = flags };
}

static void ask(uint64_t address, uint32_t flags, uint32_t pasid, uint16_t group)
{
    NvtdPageRequest asked = request(address, flags);

    asked.pasid = pasid;
    asked.group = group;
    assert_int_equal(nvtd_page_request(g->unit, g->device, &asked), 0);
}

/* What a guest's interrupt handler does, in the order of Linux: answers every group with `code`,
 * after it mapped the pages. Gives the number of requests found. */
static unsigned serve(unsigned code)
{
    uint64_t head, tail;
    unsigned found = 0;

    write32(g, REG_PRS, PRS_PPR);
    tail = read64(g, REG_PQT);
    head = read64(g, REG_PQH);
    for (; head != tail; head = (head + PAGE_REQUEST_SIZE) % 4096, found++) {
        uint64_t *entry = guest_qword(g, ring + head);
        uint64_t pasid = entry[0] & (0xfffffull << 32);
        uint64_t present = entry[0] >> 4 & 1ull << 4;

        assert_int_equal(entry[0] & 0xff, 1);
        if (!(entry[1] & PAGE_REQUEST_LPIG) || !(entry[1] & 3)) {
            continue;
        }
        guest_put(g, QI_PAGE_RESPONSE(0) | (entry[0] & 0xffff0000) | present | pasid |
                         QI_PAGE_RESPONSE_CODE(code),
                  entry[1] & 0xff8);
        guest_sync(g);
    }
    write64(g, REG_PQH, tail);
    if (read32(g, REG_PRS) & PRS_PRO && read64(g, REG_PQH) == read64(g, REG_PQT)) {
        write32(g, REG_PRS, PRS_PRO);
    }
    return found;
}

static void expect_response(unsigned count, uint16_t group, uint16_t code, uint32_t flags,
                            uint32_t pasid)
{
    const NvtdPageResponse *last = &g->last_response;

    assert_int_equal(g->responses, count);
    assert_int_equal(last->size, sizeof(*last));
    assert_int_equal(last->tag, GUEST_SID);
    assert_int_equal(last->device, g->device);
    assert_int_equal(last->group, group);
    assert_int_equal(last->code, code);
    assert_int_equal(last->flags, flags);
    assert_int_equal(last->pasid, pasid);
}

static void a_group_is_asked_for_and_answered(void **state)
{
    const uint32_t first = NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_PASID;
    uint64_t *entry = guest_qword(g, ring);

    (void)state;
    assert_int_equal(read64(g, REG_ECAP) & (ECAP_PRS | ECAP_PDS | ECAP_PASID),
                     ECAP_PRS | ECAP_PDS | ECAP_PASID);
    ask(0x7fff00001234, first, 9, 0x155);
    assert_int_equal(g->msis, 1);
    assert_int_equal(g->last_msi.address, PAGE_MSI_ADDRESS);
    assert_int_equal(g->last_msi.data, PAGE_MSI_DATA);
    ask(0x7fff00002000, first | NVTD_PAGE_REQUEST_WRITE | NVTD_PAGE_REQUEST_LAST, 9, 0x155);
    assert_int_equal(g->msis, 1);
    assert_int_equal(entry[0], PAGE_REQUEST(GUEST_SID) | PAGE_REQUEST_PASID(9));
    assert_int_equal(entry[1], 0x7fff00001000 | PAGE_REQUEST_RD | PAGE_REQUEST_GROUP(0x155));
    assert_int_equal(entry[5], 0x7fff00002000 | PAGE_REQUEST_RD | PAGE_REQUEST_WR |
                                   PAGE_REQUEST_LPIG | PAGE_REQUEST_GROUP(0x155));
    assert_int_equal(g->responses, 0);
    assert_int_equal(serve(0), 2);
    expect_response(1, 0x155, NVTD_PAGE_RESPONSE_SUCCESS, NVTD_PAGE_RESPONSE_PASID, 9);

    ask(0x3000, NVTD_PAGE_REQUEST_WRITE | NVTD_PAGE_REQUEST_LAST, 0, 0);
    assert_int_equal(g->msis, 2);
    assert_int_equal(serve(1), 1);
    expect_response(2, 0, NVTD_PAGE_RESPONSE_INVALID, 0, 0);
    ask(0x3000, NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_LAST, 0, 0x1ff);
    assert_int_equal(serve(15), 1);
    expect_response(3, 0x1ff, NVTD_PAGE_RESPONSE_FAILURE, 0, 0);
    assert_int_equal(guest_stats(g).page_requests, 4);
    assert_int_equal(guest_stats(g).page_responses, 3);
}

static void a_device_that_may_not_ask_is_told(void **state)
{
    const uint32_t last = NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_LAST;

    (void)state;
    permit(CONTEXT_DTE | CONTEXT_PASIDE);
    ask(0x1000, last | NVTD_PAGE_REQUEST_PASID, 3, 7);
    expect_response(1, 7, NVTD_PAGE_RESPONSE_INVALID, NVTD_PAGE_RESPONSE_PASID, 3);
    assert_int_equal(FRCD_REASON(read64(g, fault_register(g, 0) + 8)),
                     FAULT_PAGE_REQUEST_DISABLED);
    assert_int_equal(g->last_msi.data, FAULT_MSI_DATA);
    assert_int_equal(read32(g, REG_PRS), 0);
    assert_int_equal(guest_stats(g).page_requests_refused, 1);
    assert_int_equal(guest_stats(g).page_responses_by_unit, 1);
}

static void a_full_queue_makes_the_device_ask_again(void **state)
{
    const uint32_t last = NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_LAST;

    (void)state;
    for (unsigned i = 0; i < 127; i++) {
        ask(i * 4096ull, last, 0, (uint16_t)i);
    }
    assert_int_equal(g->responses, 0);
    ask(0x5000, last, 0, 200);
    expect_response(1, 200, NVTD_PAGE_RESPONSE_SUCCESS, 0, 0);
    assert_int_equal(read32(g, REG_PRS), PRS_PPR | PRS_PRO);
    assert_int_equal(serve(0), 127);
    expect_response(128, 126, NVTD_PAGE_RESPONSE_SUCCESS, 0, 0);
    assert_int_equal(read32(g, REG_PRS), 0);
    ask(0x5000, last, 0, 200);
    assert_int_equal(serve(0), 1);
    expect_response(129, 200, NVTD_PAGE_RESPONSE_SUCCESS, 0, 0);
    assert_int_equal(guest_stats(g).page_request_overflows, 1);
}

static void answers_to_nobody_are_counted(void **state)
{
    (void)state;
    guest_put(g, QI_PAGE_RESPONSE(0x1234), 0);
    guest_sync(g);
    assert_int_equal(g->responses, 0);
    assert_int_equal(guest_stats(g).page_responses_ignored, 1);
}

/* A device model asks again from inside the answer. */
static void ask_again(struct guest *again)
{
    NvtdPageRequest asked = request(0x9000, NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_LAST);

    again->reenter = NULL;
    (void)nvtd_page_request(again->unit, again->device, &asked);
}

static void a_device_may_ask_from_inside_the_answer(void **state)
{
    (void)state;
    ask(0x5000, NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_LAST, 0, 1);
    write32(g, REG_PRS, PRS_PPR);
    write64(g, REG_PQH, 32);
    guest_put(g, QI_PAGE_RESPONSE(GUEST_SID), 0);
    g->reenter = ask_again;
    guest_ring(g);
    assert_int_equal(g->responses, 1);
    assert_int_equal(read64(g, REG_PQT), 64);
    assert_int_equal(serve(0), 1);
}

static void wrong_calls_are_errors(void **state)
{
    NvtdPageRequest good = request(0x1000, NVTD_PAGE_REQUEST_READ), bad = good;
    struct {
        NvtdPageRequest request;
        uint8_t newer;
    } longer;
    struct guest *plain = guest_new(NVTD_HOST_NONE, 0);

    (void)state;
    expect_error(nvtd_page_request(NULL, g->device, &good), -EINVAL, "unit");
    expect_error(nvtd_page_request(g->unit, g->device, NULL), -EINVAL, "request");
    expect_error(nvtd_page_request(g->unit, 0x7777, &good), -ENOENT, "device");
    expect_error(nvtd_page_request(plain->unit, plain->device, &good), -EOPNOTSUPP,
                 "page requests");
    guest_free(plain);

    bad.size = 1;
    expect_error(nvtd_page_request(g->unit, g->device, &bad), -EINVAL, "request->size");
    bad = good;
    bad.flags = 0x40;
    expect_error(nvtd_page_request(g->unit, g->device, &bad), -EINVAL, "request->flags");
    bad.flags = 0;
    expect_error(nvtd_page_request(g->unit, g->device, &bad), -EINVAL, "stop marker");
    bad = good;
    bad.pasid = 1;
    expect_error(nvtd_page_request(g->unit, g->device, &bad), -EINVAL, "request->pasid");
    bad = good;
    bad.group = 0x200;
    expect_error(nvtd_page_request(g->unit, g->device, &bad), -EINVAL, "9 bits");
    bad = good;
    bad.reserved = 1;
    expect_error(nvtd_page_request(g->unit, g->device, &bad), -EINVAL, "request->reserved");
    bad = good;
    bad.reserved2 = 1;
    expect_error(nvtd_page_request(g->unit, g->device, &bad), -EINVAL, "request->reserved2");

    memset(&longer, 0, sizeof(longer));
    longer.request = good;
    longer.request.size = sizeof(NvtdPageRequest) + 1;
    assert_int_equal(nvtd_page_request(g->unit, g->device, &longer.request), 0);
    longer.newer = 1;
    expect_error(nvtd_page_request(g->unit, g->device, &longer.request), -EINVAL, "request");
    assert_int_equal(guest_stats(g).page_requests, 1);
}

/* Without NvtdOps.page_response the answers go nowhere. */
static void ignore_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static void the_callback_is_optional(void **state)
{
    NvtdConfig with_requests = config();
    NvtdOps ops = { .size = sizeof(ops), .msi = ignore_msi };
    NvtdDevice desc = { .size = sizeof(desc), .source_id = GUEST_SID };
    NvtdPageRequest asked = request(0x1000, NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_LAST);
    NvtdUnit *unit = NULL;
    uint32_t device = 0;

    (void)state;
    assert_int_equal(nvtd_unit_create(&with_requests, &ops, NULL, &unit), 0);
    assert_int_equal(nvtd_device_add(unit, &desc, &device), 0);
    assert_int_equal(nvtd_page_request(unit, device, &asked), 0);
    nvtd_unit_destroy(unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_group_is_asked_for_and_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(a_device_that_may_not_ask_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_queue_makes_the_device_ask_again, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_to_nobody_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(a_device_may_ask_from_inside_the_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_calls_are_errors, setup, teardown),
        cmocka_unit_test(the_callback_is_optional),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
