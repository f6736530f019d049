/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Translations on several threads while the guest changes its tables and invalidates, and while other
 * units come and go.
 */
#include "guest.h"

#include <pthread.h>

#define READERS 3
#define ROUNDS 2000
#define IOVA 0x1000
#define ODD 0x200000
#define EVEN 0x300000

struct reader {
    struct guest *g;
    bool *stop;
    uint64_t answers, wrong;
};

/* No cmocka here: its assertions belong to the main thread. */
static void *translate(void *opaque)
{
    struct reader *reader = opaque;

    while (!guest_atomic_flag(reader->stop)) {
        NvtdRequest request = {
            .size = sizeof(request), .address = IOVA, .flags = NVTD_REQUEST_READ
        };
        NvtdTranslation out = { .size = sizeof(out) };
        NvtdStats stats = { .size = sizeof(stats) };
        NvtdDeviceInfo info = { .size = sizeof(info) };

        if (nvtd_translate(reader->g->unit, reader->g->device, &request, &out) || out.fault ||
            (out.address != ODD && out.address != EVEN) || nvtd_stats(reader->g->unit, &stats) ||
            nvtd_device_info(reader->g->unit, reader->g->device, &info)) {
            reader->wrong++;
        }
        __atomic_fetch_add(&reader->answers, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void run(uint32_t host)
{
    struct guest *g = guest_new(host, 0);
    struct reader readers[READERS] = { 0 };
    pthread_t threads[READERS];
    bool stop = false;
    uint64_t *leaf;
    const unsigned rounds = guest_rounds(ROUNDS);

    guest_boot(g);
    guest_map(g, IOVA, ODD, 1, FS_LEAF);
    leaf = guest_entry(g, IOVA, 1);
    for (unsigned i = 0; i < READERS; i++) {
        readers[i].g = g;
        readers[i].stop = &stop;
        assert_int_equal(pthread_create(&threads[i], NULL, translate, &readers[i]), 0);
    }
    for (unsigned round = 1; round <= rounds; round++) {
        uint64_t gpa = round & 1 ? ODD : EVEN;

        guest_atomic_store(leaf, gpa | FS_LEAF);
        guest_flush_iova(g, IOVA, 0);
        /* From here on no old answer, whatever walks were under way. */
        expect_address(g, IOVA, NVTD_REQUEST_READ, gpa);
        if (round % 200 == 0) {
            guest_flush_pasid(g, 0);
        }
    }
    for (unsigned i = 0; i < READERS; i++) {
        while (__atomic_load_n(&readers[i].answers, __ATOMIC_RELAXED) == 0) {
        }
    }
    guest_atomic_raise(&stop);
    for (unsigned i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(readers[i].wrong, 0);
        assert_true(readers[i].answers > 0);
    }
    assert_int_equal(guest_stats(g).faults, 0);
    assert_int_equal(guest_stats(g).queue_errors, 0);
    guest_free(g);
}

/* What these calls answer depends on who came first; that they succeed does not. */
static void *change(void *opaque)
{
    struct reader *other = opaque;
    NvtdUnit *unit = other->g->unit;

    while (!guest_atomic_flag(other->stop)) {
        NvtdDevice desc = {
            .size = sizeof(desc), .source_id = 0x0500, .flags = NVTD_DEVICE_ASSIGNED
        };
        NvtdRequest request = { .size = sizeof(request), .flags = NVTD_REQUEST_WRITE };
        NvtdTranslation out = { .size = sizeof(out) };
        uint32_t device;

        if (nvtd_device_add(unit, &desc, &device)) {
            other->wrong++;
            continue;
        }
        for (uint64_t address = 0; address < 16; address++) {
            request.address = address << 12;
            other->wrong += nvtd_translate(unit, device, &request, &out) != 0;
        }
        other->wrong += nvtd_ram_add(unit, 8 * GIB, 4096, other->g->ram, 0) != 0;
        other->wrong += nvtd_ram_remove(unit, 8 * GIB, 4096) != 0;
        other->wrong += nvtd_device_remove(unit, device) != 0;
        __atomic_fetch_add(&other->answers, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void devices_and_ram_come_and_go(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_SOFT, 0);
    bool stop = false;
    struct reader other = { .g = g, .stop = &stop };
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, change, &other), 0);
    for (unsigned round = 0; round < 20; round++) {
        guest_boot(g);
        guest_map(g, IOVA, ODD, 1, FS_LEAF);
        expect_address(g, IOVA, NVTD_REQUEST_READ, ODD);
        for (unsigned i = 0; i < 20; i++) {
            guest_flush_pasid(g, 0);
        }
        assert_int_equal(nvtd_unit_reset(g->unit), 0);
        g->gcmd = 0;
        expect_address(g, IOVA, NVTD_REQUEST_READ, IOVA);
    }
    while (__atomic_load_n(&other.answers, __ATOMIC_RELAXED) == 0) {
    }
    guest_atomic_raise(&stop);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(other.wrong, 0);
    guest_free(g);
}

/* A unit in legacy mode goes on, whatever others do. */
static void *translate_in_legacy_mode(void *opaque)
{
    struct reader *other = opaque;
    NvtdRequest request = { .size = sizeof(request), .address = IOVA, .flags = NVTD_REQUEST_READ };
    NvtdTranslation out = { .size = sizeof(out) };

    while (!guest_atomic_flag(other->stop)) {
        other->wrong += nvtd_translate(other->g->unit, other->g->device, &request, &out) ||
                        out.fault || out.address != EVEN;
        __atomic_fetch_add(&other->answers, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* Units with the same requester ID, domain and addresses, in other modes, are booted, reset and
 * destroyed beside one that is at work. Neither answers for the other, or counts what it does. */
static void units_come_and_go_beside_another(void **state)
{
    static const uint32_t hosts[] = { NVTD_HOST_SOFT, NVTD_HOST_NONE };
    struct guest *g = guest_start(FEATURES_LEGACY, 48, RTADDR_LEGACY);
    struct tables tables = tables_new(g, 4, SS_RW);
    bool stop = false;
    struct reader other = { .g = g, .stop = &stop };
    const unsigned rounds = guest_rounds(200) / 10 + 1;
    NvtdStats before, after;
    pthread_t thread;

    (void)state;
    tables_map(g, &tables, IOVA, EVEN, 1, SS_RW);
    guest_set_legacy_context(g, GUEST_SID, PRESENT | tables.root,
                             LEGACY_AW(2) | LEGACY_DID(GUEST_DID));
    guest_flush(g);
    expect_address(g, IOVA, NVTD_REQUEST_READ, EVEN);
    before = guest_stats(g);
    assert_int_equal(pthread_create(&thread, NULL, translate_in_legacy_mode, &other), 0);
    for (unsigned round = 0; round < rounds; round++) {
        struct guest *a = guest_new(hosts[round % 2], 0);

        guest_boot(a);
        guest_map(a, IOVA, ODD, 1, FS_LEAF);
        expect_address(a, IOVA, NVTD_REQUEST_READ, ODD);
        guest_flush(a);
        expect_address(a, IOVA, NVTD_REQUEST_READ, ODD);
        assert_int_equal(guest_stats(a).translations, 2);
        assert_int_equal(guest_stats(a).faults, 0);
        if (round % 4 < 2) {
            assert_int_equal(nvtd_unit_reset(a->unit), 0);
            a->gcmd = 0;
            expect_address(a, IOVA, NVTD_REQUEST_READ, IOVA);
            assert_int_equal(guest_stats(a).translations, 1);
        }
        guest_free(a);
    }
    while (__atomic_load_n(&other.answers, __ATOMIC_RELAXED) == 0) {
    }
    guest_atomic_raise(&stop);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(other.wrong, 0);
    after = guest_stats(g);
    assert_int_equal(after.translations - before.translations, other.answers);
    assert_int_equal(after.walks - before.walks, 0);
    assert_int_equal(after.descriptors - before.descriptors, 0);
    assert_int_equal(after.faults, 0);
    guest_free(g);
}

static void walked_by_the_unit(void **state)
{
    (void)state;
    run(NVTD_HOST_NONE);
}

static void walked_by_the_software_host(void **state)
{
    (void)state;
    run(NVTD_HOST_SOFT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walked_by_the_unit),
        cmocka_unit_test(walked_by_the_software_host),
        cmocka_unit_test(devices_and_ram_come_and_go),
        cmocka_unit_test(units_come_and_go_beside_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
