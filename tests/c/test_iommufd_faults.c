/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Page requests of assigned devices: from the host's fault queue into the guest's, and the guest's
 * answers back. The kernel is a twin.
 */
#include "machine.h"

#include <errno.h>
#include <poll.h>

#define ASK_READ NVTD_PAGE_REQUEST_READ
#define ASK_WRITE NVTD_PAGE_REQUEST_WRITE
#define LAST NVTD_PAGE_REQUEST_LAST
#define SUCCESS NVTD_PAGE_RESPONSE_SUCCESS
#define INVALID NVTD_PAGE_RESPONSE_INVALID
#define PERMITTED (CONTEXT_DTE | CONTEXT_PASIDE | CONTEXT_PRE)
#define RING_ENTRIES (4096 / PAGE_REQUEST_SIZE)

static struct machine *m;
static struct guest *g;
static struct slot *slot;
static uint64_t ring;

static int setup(void **state)
{
    (void)state;
    m = machine_new(NULL, machine_offer(NVTD_FEATURE_DEVICE_TLB | NVTD_FEATURE_PAGE_REQUEST));
    g = m->g;
    assert_int_equal(g->watched, -1);
    slot = machine_add(m);
    machine_boot(m);
    machine_context(m, slot, PERMITTED);
    ring = guest_page(g);
    write64(g, REG_PQH, 0);
    write64(g, REG_PQT, 0);
    write64(g, REG_PQA, ring);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    machine_free(m);
    return 0;
}

/* The device asks on the bus. */
static void ask(const struct slot *from, uint64_t address, uint32_t flags, uint32_t pasid,
                uint16_t group)
{
    NvtdPageRequest request = { .size = sizeof(request), .address = address, .flags = flags,
                                .group = group };

    if (pasid != NO_PASID) {
        request.pasid = pasid;
        request.flags |= NVTD_PAGE_REQUEST_PASID;
    }
    assert_int_equal(nvtd_twin_page_request(m->twin, from->file, &request), 0);
}

/* The VMM's loop: it serves the file when it is readable. */
static bool serve_file(void)
{
    struct pollfd file = { .fd = g->watched, .events = POLLIN };

    assert_true(g->watched >= 0);
    if (poll(&file, 1, 0) != 1 || !(file.revents & POLLIN)) {
        return false;
    }
    assert_int_equal(nvtd_host_faults(g->unit), 0);
    assert_int_equal(poll(&file, 1, 0), 0);
    return true;
}

static unsigned waiting(void)
{
    return (unsigned)((read64(g, REG_PQT) - read64(g, REG_PQH)) % 4096 / PAGE_REQUEST_SIZE);
}

/* The guest takes the oldest request out of its queue. */
static void expect_request(uint64_t low, uint64_t high)
{
    uint64_t head = read64(g, REG_PQH);

    assert_int_not_equal(head, read64(g, REG_PQT));
    assert_int_equal(guest_qword(g, ring + head)[0], low);
    assert_int_equal(guest_qword(g, ring + head)[1], high);
    write64(g, REG_PQH, (head + PAGE_REQUEST_SIZE) % 4096);
}

static void respond(const struct slot *to, uint32_t pasid, uint16_t group, unsigned code)
{
    uint64_t with = pasid == NO_PASID ? 0 : QI_PAGE_RESPONSE_PASID(pasid);

    guest_put(g, QI_PAGE_RESPONSE(to->source_id) | with | QI_PAGE_RESPONSE_CODE(code),
              QI_PAGE_RESPONSE_GROUP(group));
    guest_sync(g);
}

static void expect_answer(const struct slot *of, uint32_t pasid, uint16_t group, uint16_t code)
{
    NvtdPageResponse out = { .size = sizeof(out) };

    assert_int_equal(nvtd_twin_page_response(m->twin, of->file, &out), 0);
    assert_int_equal(out.group, group);
    assert_int_equal(out.code, code);
    assert_int_equal(out.flags, pasid == NO_PASID ? 0 : NVTD_PAGE_RESPONSE_PASID);
    assert_int_equal(out.pasid, pasid == NO_PASID ? 0 : pasid);
}

static void expect_no_answer(const struct slot *of)
{
    NvtdPageResponse out = { .size = sizeof(out) };

    assert_int_equal(nvtd_twin_page_response(m->twin, of->file, &out), -EAGAIN);
}

static void there_and_back(void **state)
{
    (void)state;
    assert_false(serve_file());
    ask(slot, 0x5678, ASK_READ | LAST, NO_PASID, 7);
    expect_no_answer(slot);
    assert_true(serve_file());
    expect_request(PAGE_REQUEST(GUEST_SID),
                   0x5000 | PAGE_REQUEST_RD | PAGE_REQUEST_LPIG | PAGE_REQUEST_GROUP(7));
    expect_no_answer(slot);
    respond(slot, NO_PASID, 7, SUCCESS);
    expect_answer(slot, NO_PASID, 7, SUCCESS);
    ask(slot, 0x6000, ASK_READ | ASK_WRITE | LAST, NO_PASID, 8);
    assert_true(serve_file());
    respond(slot, NO_PASID, 8, INVALID);
    expect_answer(slot, NO_PASID, 8, INVALID);
    /* The group is answered: the guest's second answer is nobody's. */
    respond(slot, NO_PASID, 8, SUCCESS);
    expect_no_answer(slot);
    assert_int_equal(guest_stats(g).host_page_requests, 2);
    assert_int_equal(guest_stats(g).host_page_requests_refused, 0);
    /* Nothing to do is no error. */
    assert_int_equal(nvtd_host_faults(g->unit), 0);
}

/* The host's records of requests with PASID have a flag set that the interface does not define. */
static void requests_with_pasid(void **state)
{
    (void)state;
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    machine_announce(m, QI_PASID_PASID(GUEST_DID, 9));
    ask(slot, 0x9000, ASK_WRITE | LAST, 9, 3);
    assert_true(serve_file());
    expect_request(PAGE_REQUEST(GUEST_SID) | PAGE_REQUEST_PASID(9),
                   0x9000 | PAGE_REQUEST_WR | PAGE_REQUEST_LPIG | PAGE_REQUEST_GROUP(3));
    /* A group is that of its PASID. */
    respond(slot, NO_PASID, 3, SUCCESS);
    expect_no_answer(slot);
    respond(slot, 9, 3, SUCCESS);
    expect_answer(slot, 9, 3, SUCCESS);
    /* A PASID that is attached to nothing is answered by the host. */
    ask(slot, 0x9000, ASK_WRITE | LAST, 10, 3);
    assert_false(serve_file());
    expect_answer(slot, 10, 3, INVALID);
}

static void groups_come_whole(void **state)
{
    struct slot *other = machine_add(m);

    (void)state;
    machine_context(m, other, PERMITTED);
    ask(slot, 0x1000, ASK_READ, NO_PASID, 1);
    ask(slot, 0x2000, ASK_READ, NO_PASID, 1);
    ask(slot, 0x8000, ASK_READ, NO_PASID, 2);
    assert_false(serve_file());
    ask(slot, 0x3000, ASK_WRITE | LAST, NO_PASID, 1);
    ask(other, 0x4000, ASK_READ | LAST, NO_PASID, 1);
    assert_true(serve_file());
    assert_int_equal(waiting(), 4);
    expect_request(PAGE_REQUEST(GUEST_SID), 0x1000 | PAGE_REQUEST_RD | PAGE_REQUEST_GROUP(1));
    expect_request(PAGE_REQUEST(GUEST_SID), 0x2000 | PAGE_REQUEST_RD | PAGE_REQUEST_GROUP(1));
    expect_request(PAGE_REQUEST(GUEST_SID),
                   0x3000 | PAGE_REQUEST_WR | PAGE_REQUEST_LPIG | PAGE_REQUEST_GROUP(1));
    expect_request(PAGE_REQUEST(other->source_id),
                   0x4000 | PAGE_REQUEST_RD | PAGE_REQUEST_LPIG | PAGE_REQUEST_GROUP(1));
    respond(other, NO_PASID, 1, SUCCESS);
    expect_answer(other, NO_PASID, 1, SUCCESS);
    expect_no_answer(slot);
    respond(slot, NO_PASID, 1, INVALID);
    expect_answer(slot, NO_PASID, 1, INVALID);
    ask(slot, 0x9000, ASK_READ | LAST, NO_PASID, 2);
    assert_true(serve_file());
    assert_int_equal(waiting(), 2);
    respond(slot, NO_PASID, 2, SUCCESS);
    expect_answer(slot, NO_PASID, 2, SUCCESS);
}

/* What the guest's tables do not permit is answered at once. */
static void the_tables_refuse(void **state)
{
    (void)state;
    guest_clear_faults(g);
    machine_context(m, slot, CONTEXT_DTE | CONTEXT_PASIDE);
    ask(slot, 0x5000, ASK_READ | LAST, NO_PASID, 7);
    assert_true(serve_file());
    assert_int_equal(waiting(), 0);
    expect_answer(slot, NO_PASID, 7, INVALID);
    assert_int_equal(guest_stats(g).page_requests_refused, 1);
    assert_int_equal(FRCD_REASON(read64(g, fault_register(g, 0) + 8)),
                     FAULT_PAGE_REQUEST_DISABLED);
}

static void the_guests_queue_is_full(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RING_ENTRIES; i++) {
        ask(slot, 0x5000 + i * 0x1000, ASK_READ | LAST, NO_PASID, (uint16_t)i);
    }
    assert_true(serve_file());
    assert_int_equal(waiting(), RING_ENTRIES - 1);
    assert_int_equal(read32(g, REG_PRS) & PRS_PRO, PRS_PRO);
    /* The one that found no room may try again. */
    expect_answer(slot, NO_PASID, RING_ENTRIES - 1, SUCCESS);
    expect_no_answer(slot);
    assert_int_equal(guest_stats(g).page_request_overflows, 1);
    for (unsigned i = 0; i < RING_ENTRIES - 1; i++) {
        respond(slot, NO_PASID, (uint16_t)i, SUCCESS);
        expect_answer(slot, NO_PASID, (uint16_t)i, SUCCESS);
    }
}

/* More than one read's worth. */
static void many_requests_at_once(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned i = 0; i < 100; i++) {
            ask(slot, 0x5000, ASK_READ, NO_PASID, (uint16_t)round);
        }
        ask(slot, 0x5000, ASK_READ | LAST, NO_PASID, (uint16_t)round);
    }
    assert_true(serve_file());
    assert_int_equal(guest_stats(g).host_page_requests, 12 * 101);
    /* Only those that found no room are answered. */
    for (unsigned round = 1; round < 12; round++) {
        expect_answer(slot, NO_PASID, (uint16_t)round, SUCCESS);
    }
    expect_no_answer(slot);
}

/* The kernel answers what a device has open when it leaves; the guest's answer comes too late, and
 * must not be taken for one to whoever has the same cookie now. */
static void the_device_leaves_in_between(void **state)
{
    struct slot *other = machine_add(m);

    (void)state;
    machine_context(m, other, PERMITTED);
    ask(slot, 0x5000, ASK_READ | LAST, NO_PASID, 7);
    assert_true(serve_file());
    ask(slot, 0x6000, ASK_READ | LAST, NO_PASID, 8);
    machine_remove(m, slot);
    expect_answer(slot, NO_PASID, 8, INVALID);
    expect_answer(slot, NO_PASID, 7, INVALID);
    assert_false(serve_file());
    ask(other, 0x7000, ASK_READ | LAST, NO_PASID, 7);
    assert_true(serve_file());
    respond(slot, NO_PASID, 7, SUCCESS);
    expect_no_answer(slot);
    expect_no_answer(other);
    assert_int_equal(guest_stats(g).page_responses_ignored, 1);
    respond(other, NO_PASID, 7, SUCCESS);
    expect_answer(other, NO_PASID, 7, SUCCESS);
}

static void the_table_changes_in_between(void **state)
{
    (void)state;
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    machine_announce(m, QI_PASID_PASID(GUEST_DID, 9));
    ask(slot, 0x9000, ASK_WRITE | LAST, 9, 3);
    assert_true(serve_file());
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x800000);
    machine_announce(m, QI_PASID_PASID(GUEST_DID, 9));
    expect_answer(slot, 9, 3, INVALID);
    ask(slot, 0xa000, ASK_WRITE | LAST, 9, 4);
    assert_true(serve_file());
    respond(slot, 9, 3, SUCCESS);
    expect_no_answer(slot);
    respond(slot, 9, 4, SUCCESS);
    expect_answer(slot, 9, 4, SUCCESS);
}

/* A group that is refused for one of its requests is answered once, and its cookie is then another
 * group's. */
static void a_malformed_request_in_a_group(void **state)
{
    struct slot *other = machine_add(m);
    uint32_t privileged = NVTD_PAGE_REQUEST_PRIVILEGED;

    (void)state;
    machine_context(m, other, PERMITTED);
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    machine_announce(m, QI_PASID_PASID(GUEST_DID, 9));
    ask(slot, 0x5000, privileged, 9, 3);
    ask(slot, 0x6000, ASK_READ | LAST, 9, 3);
    assert_true(serve_file());
    expect_answer(slot, 9, 3, INVALID);
    assert_int_equal(waiting(), 0);
    assert_int_equal(guest_stats(g).host_page_requests, 2);
    assert_int_equal(guest_stats(g).host_page_requests_refused, 2);
    ask(other, 0x7000, ASK_READ | LAST, NO_PASID, 3);
    assert_true(serve_file());
    respond(slot, 9, 3, SUCCESS);
    expect_no_answer(slot);
    expect_no_answer(other);
    respond(other, NO_PASID, 3, SUCCESS);
    expect_answer(other, NO_PASID, 3, SUCCESS);
}

/* Without PRI an HWPT with a fault queue is refused with ENODEV; one without does. */
static void a_device_without_page_requests(void **state)
{
    const NvtdTwinDevice plain = { .size = sizeof(plain), .max_pasid_bits = 20,
                                   .flags = NVTD_TWIN_DEVICE_ATS };
    struct slot *other = machine_plug_as(m, &plain);
    NvtdDevice lent = machine_lend(m, other);

    (void)state;
    guest_map(g, 0x5000, 0x700000, 1, FS_LEAF);
    assert_int_equal(nvtd_device_add(g->unit, &lent, &other->device), 0);
    machine_context(m, other, PERMITTED);
    assert_int_equal(machine_info(m, other).state, NVTD_STATE_NESTED);
    assert_int_equal(machine_info(m, other).host_errno, 0);
    expect_reaches(m, other, 0x5000, NO_PASID, 0x700000);
    expect_reaches(m, slot, 0x5000, NO_PASID, 0x700000);
    assert_int_not_equal(machine_info(m, other).hwpt, machine_info(m, slot).hwpt);
    *guest_entry(g, 0x5000, 1) = 0x800000 | FS_LEAF;
    guest_flush_iova(g, 0x5000, 0);
    expect_reaches(m, other, 0x5000, NO_PASID, 0x800000);
    expect_reaches(m, slot, 0x5000, NO_PASID, 0x800000);
    /* It is asked once only. */
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x900000);
    machine_announce(m, QI_PASID_GLOBAL);
    expect_reaches(m, other, 0x5000, 9, 0x900000);
    assert_int_equal(guest_stats(g).attach_errors, 1);
}

static void files_are_watched_while_there_are_devices(void **state)
{
    struct slot *other = machine_add(m);
    int file = g->watched;

    (void)state;
    assert_true(file >= 0);
    machine_remove(m, slot);
    assert_int_equal(g->watched, file);
    machine_remove(m, other);
    assert_int_equal(g->watched, -1);
    assert_int_equal(machine_stats(m).fault_queues, 0);
    assert_int_equal(nvtd_host_faults(g->unit), 0);
    (void)machine_add(m);
    assert_true(g->watched >= 0);
    /* The unit's end unwatches them, too. */
    guest_free(g);
    assert_int_equal(machine_stats(m).fault_queues, 0);
    m->g = g = guest_new(NVTD_HOST_NONE, 0);
    assert_int_equal(nvtd_host_faults(g->unit), 0);
    expect_error(nvtd_host_faults(NULL), -EINVAL, "unit");
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(there_and_back),
        TEST(requests_with_pasid),
        TEST(groups_come_whole),
        TEST(the_tables_refuse),
        TEST(the_guests_queue_is_full),
        TEST(many_requests_at_once),
        TEST(the_device_leaves_in_between),
        TEST(the_table_changes_in_between),
        TEST(a_malformed_request_in_a_group),
        TEST(a_device_without_page_requests),
        TEST(files_are_watched_while_there_are_devices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
