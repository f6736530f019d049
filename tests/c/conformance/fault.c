/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Fault queues: their calls, and the records and responses of their files.
 */
#include <fcntl.h>
#include <poll.h>

#include "conformance.h"

static int queue; /* the file of the rule's queue */

static ssize_t get(struct hwpt_pgfault *records, size_t number)
{
    return now.host->read(queue, records, number * sizeof(*records));
}

static ssize_t respond(uint32_t cookie, uint32_t code)
{
    struct hwpt_page_response r = { .cookie = cookie, .code = code };
    return now.host->write(queue, &r, sizeof(r));
}

static void flags(void)
{
    for (unsigned bit = 0; bit < 32; bit++) {
        struct fault_alloc a = { .size = sizeof(a), .flags = 1u << bit };
        expect(call(IOMMU_FAULT_QUEUE_ALLOC, &a), EOPNOTSUPP, "flags %#x", a.flags);
    }
}

static void kept(void)
{
    uint32_t id = new_fault_queue(&queue);
    expect(destroy(id), EBUSY, "DESTROY while the file is open");
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = paging(new_ioas(), 0);
    /* Only nested HWPTs have fault queues in 6.12. */
    if (!as_7_3())
        a = nested(new_parent(a.pt_id), &data);
    a.flags = HWPT_FAULT_ID_VALID;
    a.fault_id = id;
    expect(alloc(&a), 0, "HWPT_ALLOC");
    expect(close_file(queue), 0, "close of the file");
    expect(destroy(id), EBUSY, "DESTROY while an HWPT uses it");
    expect(destroy(a.out_hwpt_id), 0, "DESTROY of the HWPT");
    expect(destroy(id), 0, "DESTROY");
}

static void empty(void)
{
    struct hwpt_pgfault records[2];
    new_fault_queue(&queue);
    returns(get(records, 2), 0, "read");
    returns(get(records, 0), 0, "read of 0 bytes");
    returns(now.host->poll(queue), POLLOUT, "poll");
    close_file(queue);
}

static void file(void)
{
    new_fault_queue(&queue);
    expect_number((uint64_t)fcntl(queue, F_GETFD), FD_CLOEXEC, "flags of the descriptor");
    close_file(queue);
}

static void odd_counts(void)
{
    uint8_t bytes[100] = { 0 };
    new_fault_queue(&queue);
    const size_t odd[] = { 1, 39, 41, 60, 100 };
    for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
        expect((int)now.host->read(queue, bytes, odd[i]), ESPIPE, "read of %zu bytes", odd[i]);
    const size_t odder[] = { 1, 7, 9, 12, 100 };
    for (unsigned i = 0; i < sizeof(odder) / sizeof(odder[0]); i++)
        expect((int)now.host->write(queue, bytes, odder[i]), ESPIPE, "write of %zu bytes", odder[i]);
    expect((int)now.host->write(queue, bytes, 0), 0, "write of 0 bytes");
    close_file(queue);
}

static void bad_responses(void)
{
    new_fault_queue(&queue);
    expect((int)respond(1, PAGE_RESP_SUCCESS), EINVAL, "a cookie of nothing");
    expect((int)respond(0, PAGE_RESP_INVALID), EINVAL, "cookie 0");
    expect((int)respond(1, 2), EINVAL, "code 2");
    expect((int)now.host->write(queue, nowhere(), 8), EFAULT, "a response in no memory");
    close_file(queue);
}

/* A queue on the nested HWPT that the device, or its PASID, has. */
static uint32_t with_queue(uint32_t pasid)
{
    need_pri();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    struct hwpt_vtd_s1 data = tables();
    struct hwpt_alloc a = nested(parent, &data);
    a.flags = HWPT_FAULT_ID_VALID | (as_7_3() ? HWPT_PASID : 0);
    a.fault_id = new_fault_queue(&queue);
    expect(alloc(&a), 0, "HWPT_ALLOC");
    int result = pasid ? attach_pasid(a.out_hwpt_id, pasid) : attach(a.out_hwpt_id);
    if (result == -ENODEV)
        skip("the device has no page requests");
    expect(result, 0, "attach");
    return a.out_hwpt_id;
}

static struct page_request request(uint64_t address, uint16_t group, bool last)
{
    return (struct page_request){ .address = address, .read = true, .group = group, .last = last };
}

static void ask(struct page_request r)
{
    int result = now.host->page_request(now.device, &r);
    if (result == -EOPNOTSUPP)
        skip("the device has no page requests");
    if (result)
        give_up("page request: %s", strerror(-result));
}

/* The device's next answer, or none if `code` is -1. */
static void answered(uint16_t group, int code, const char *what)
{
    struct page_answer a = { .code = 99 };
    int result = now.host->page_answer(now.device, &a);
    if (code < 0) {
        expect(result, EAGAIN, "an answer to %s", what);
        return;
    }
    expect(result, 0, "an answer to %s", what);
    if (result)
        return;
    expect_number(a.code, (uint64_t)code, "the answer to %s", what);
    expect_number(a.group, group, "the group of the answer to %s", what);
}

static void one_request(void)
{
    with_queue(0);
    struct page_request r = request(VIRTUAL + 0x123, 7, true);
    r.write = true;
    ask(r);
    returns(now.host->poll(queue), POLLIN | POLLRDNORM | POLLOUT, "poll");
    struct hwpt_pgfault records[2];
    memset(records, 0x55, sizeof(records));
    returns(get(records, 2), sizeof(records[0]), "read");
    expect_number(records[0].flags, PGFAULT_LAST_PAGE, "flags");
    expect_number(records[0].dev_id, now.dev_id, "dev_id");
    expect_number(records[0].grpid, 7, "grpid");
    expect_number(records[0].perm, PGFAULT_PERM_READ | PGFAULT_PERM_WRITE, "perm");
    expect_number(records[0].reserved, 0, "__reserved");
    expect_number(records[0].addr, VIRTUAL, "addr");
    expect_number(records[0].length, 0, "length");
    expect_number(records[0].cookie, 1, "cookie");
    expect_number(records[1].flags, 0x55555555, "what is behind the record");
    returns(now.host->poll(queue), POLLOUT, "poll after the read");
    answered(7, -1, "a request that waits");
    returns(respond(1, PAGE_RESP_SUCCESS), 8, "write");
    answered(7, PAGE_RESP_SUCCESS, "the request");
    expect((int)respond(1, PAGE_RESP_SUCCESS), EINVAL, "the same response again");
    close_file(queue);
}

static void a_group(void)
{
    with_queue(0);
    struct hwpt_pgfault records[8];
    ask(request(VIRTUAL, 3, false));
    returns(get(records, 8), 0, "read before the group's last request");
    ask(request(VIRTUAL + 5 * PAGE, 3, false));
    ask(request(VIRTUAL + 9 * PAGE, 3, true));
    expect((int)get(records, 2), EINVAL, "read of less than the group");
    returns(get(records, 8), 3 * sizeof(records[0]), "read");
    const uint64_t addresses[] = { VIRTUAL, VIRTUAL + 5 * PAGE, VIRTUAL + 9 * PAGE };
    for (unsigned i = 0; i < 3; i++) {
        expect_number(records[i].addr, addresses[i], "addr of record %u", i);
        expect_number(records[i].flags, i == 2 ? PGFAULT_LAST_PAGE : 0, "flags of record %u", i);
        expect_number(records[i].cookie, records[0].cookie, "cookie of record %u", i);
        expect_number(records[i].grpid, 3, "grpid of record %u", i);
    }
    returns(respond(records[0].cookie, PAGE_RESP_INVALID), 8, "write");
    answered(3, PAGE_RESP_INVALID, "the group");
    answered(3, -1, "the group once more");
    close_file(queue);
}

static void whole_groups(void)
{
    with_queue(0);
    struct hwpt_pgfault records[4];
    ask(request(VIRTUAL, 1, true));
    ask(request(VIRTUAL, 2, false));
    ask(request(VIRTUAL + PAGE, 2, true));
    returns(get(records, 2), sizeof(records[0]), "read of one group and half of the next");
    expect_number(records[0].cookie, 1, "the first cookie");
    returns(now.host->poll(queue), POLLIN | POLLRDNORM | POLLOUT, "poll with a group left");
    returns(get(records, 4), 2 * sizeof(records[0]), "read of the next");
    expect_number(records[0].cookie, 2, "the second cookie");
    /* The lowest free one is given again. */
    returns(respond(1, PAGE_RESP_SUCCESS), 8, "write");
    ask(request(VIRTUAL, 4, true));
    returns(get(records, 4), sizeof(records[0]), "read of the third");
    expect_number(records[0].cookie, 1, "the cookie given again");
    close_file(queue);
}

static void responses_in_a_row(void)
{
    with_queue(0);
    struct hwpt_pgfault records[2];
    ask(request(VIRTUAL, 1, true));
    ask(request(VIRTUAL, 2, true));
    returns(get(records, 2), 2 * sizeof(records[0]), "read");
    const struct hwpt_page_response three[] = { { 2, PAGE_RESP_SUCCESS }, { 77, PAGE_RESP_SUCCESS },
                                                { 1, PAGE_RESP_SUCCESS } };
    returns(now.host->write(queue, three, sizeof(three)), 8, "write with a bad one");
    answered(2, PAGE_RESP_SUCCESS, "the one before the bad one");
    answered(1, -1, "the one after the bad one");
    close_file(queue);
}

static void read_into_nothing(void)
{
    with_queue(0);
    struct hwpt_pgfault record;
    ask(request(VIRTUAL, 1, true));
    expect((int)now.host->read(queue, nowhere(), sizeof(record)), EFAULT, "read into no memory");
    returns(get(&record, 1), sizeof(record), "read afterwards");
    close_file(queue);
}

static void detached(void)
{
    with_queue(0);
    struct hwpt_pgfault record;
    ask(request(VIRTUAL, 1, true));
    returns(get(&record, 1), sizeof(record), "read");
    ask(request(VIRTUAL, 2, true));
    expect(detach(), 0, "detach");
    struct page_answer a, b;
    expect(now.host->page_answer(now.device, &a), 0, "the first answer");
    expect(now.host->page_answer(now.device, &b), 0, "the second answer");
    expect_number(a.code, PAGE_RESP_INVALID, "the first answer");
    expect_number(b.code, PAGE_RESP_INVALID, "the second answer");
    expect_number(a.group + b.group, 3, "the groups of the answers");
    expect((int)respond(record.cookie, PAGE_RESP_SUCCESS), EINVAL, "a response afterwards");
    returns(get(&record, 1), 0, "read afterwards");
    returns(now.host->poll(queue), POLLOUT, "poll afterwards");
    close_file(queue);
}

static void replaced(void)
{
    uint32_t hwpt = with_queue(0);
    (void)hwpt;
    ask(request(VIRTUAL, 1, true));
    expect(attach(new_paging(new_ioas(), as_7_3() ? HWPT_PASID : 0)), 0, "attach to another");
    answered(1, PAGE_RESP_INVALID, "what waited");
    close_file(queue);
}

static void stop_marker(void)
{
    with_queue(0);
    struct page_request r = request(VIRTUAL, 1, true);
    r.read = false;
    ask(r);
    struct hwpt_pgfault record;
    returns(get(&record, 1), 0, "read");
    answered(1, -1, "a stop marker");
    close_file(queue);
}

static void bad_requests(void)
{
    with_queue(0);
    struct page_request bad[3] = { request(1ull << 60, 1, true), request(VIRTUAL, 2, true),
                                   request(VIRTUAL, 3, true) };
    bad[1].privileged = true;
    bad[2].execute = true;
    static const char *const what[] = { "an address that is not canonical", "a privileged request",
                                        "a request to read and execute" };
    struct hwpt_pgfault record;
    for (unsigned i = 0; i < 3; i++) {
        ask(bad[i]);
        returns(get(&record, 1), 0, "read after %s", what[i]);
        answered((uint16_t)(i + 1), PAGE_RESP_INVALID, what[i]);
    }
    close_file(queue);
}

static void without_queue(void)
{
    need_pri();
    uint32_t ioas = new_ioas();
    expect(attach(new_nested(new_parent(ioas), 0)), 0, "attach");
    ask(request(VIRTUAL, 5, true));
    answered(5, PAGE_RESP_INVALID, "a request without a queue");
    expect(detach(), 0, "detach");
    ask(request(VIRTUAL, 6, true));
    answered(6, PAGE_RESP_INVALID, "a request of a detached device");
}

static void leaked_bit(void)
{
    need_pasid();
    with_queue(1);
    struct page_request r = request(VIRTUAL, 1, false);
    r.with_pasid = true;
    r.pasid = 1;
    ask(r);
    r.last = true;
    ask(r);
    struct hwpt_pgfault records[2];
    returns(get(records, 2), 2 * sizeof(records[0]), "read");
    expect_number(records[0].flags, PGFAULT_PASID_VALID | PGFAULT_LEAKED, "flags");
    expect_number(records[1].flags, PGFAULT_PASID_VALID | PGFAULT_LAST_PAGE | PGFAULT_LEAKED,
                  "flags of the last");
    expect_number(records[0].pasid, 1, "pasid");
    returns(respond(records[0].cookie, PAGE_RESP_SUCCESS), 8, "write");
    struct page_answer a = { .code = 99 };
    expect(now.host->page_answer(now.device, &a), 0, "the answer");
    expect_number(a.pasid, 1, "its PASID");
    expect_number(a.with_pasid, true, "that it has a PASID");
    close_file(queue);
}

const struct rule rules_fault[] = {
    { "F1", "flags are refused with EOPNOTSUPP", flags },
    { "F-kept", "a queue cannot be destroyed while its file is open or an HWPT uses it", kept },
    { "F-empty", "an empty queue reads 0 bytes and polls as writable", empty },
    { "F-file", "a queue's file is closed by exec", file },
    { "F-count", "reading other than multiples of 40 bytes and writing other than of 8 is ESPIPE",
      odd_counts },
    { "F-response", "a response with an unknown cookie or code is EINVAL, one that cannot be read EFAULT",
      bad_responses },
    { "F-record", "a request becomes a record: device, group, permissions, page, cookie; it is answered as"
      " the response says", one_request },
    { "F-group", "a group is told when its last request comes, in order, with one cookie", a_group },
    { "F-whole", "only whole groups are read: EINVAL if the first does not fit; the lowest free cookie",
      whole_groups },
    { "F-partial", "of several responses those before a bad one count, and their bytes are returned",
      responses_in_a_row },
    { "F-read-fault", "a read into no memory is EFAULT and loses nothing", read_into_nothing },
    { "F-detach", "a detach answers INVALID to what waits, and its cookies are unknown then", detached },
    { "F-replace", "so does an attachment to another HWPT", replaced },
    { "F-stop", "stop markers are dropped", stop_marker },
    { "F-bad", "addresses that are not canonical, privileged requests and execute requests are answered"
      " INVALID at once", bad_requests },
    { "F-none", "a request that nobody waits for is answered INVALID", without_queue },
    { "F-leak", "with a PASID the kernel's own flag 4 is in the records", leaked_bit },
    { NULL, NULL, NULL },
};
