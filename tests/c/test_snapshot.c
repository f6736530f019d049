/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A unit's state as bytes: a guest that goes on in another unit, and what is refused.
 */
#include "guest.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define IOVA 0x1000ull
#define BEFORE 0x200000ull
#define AFTER 0x300000ull

struct state {
    size_t size;
    uint8_t *bytes;
};

static struct state save(struct guest *g)
{
    struct state state = { 0 };
    size_t written = 0;

    assert_int_equal(nvtd_unit_save(g->unit, NULL, 0, &state.size), 0);
    assert_in_range(state.size, 100, 1000);
    state.bytes = malloc(state.size);
    assert_non_null(state.bytes);
    assert_int_equal(nvtd_unit_save(g->unit, state.bytes, state.size, &written), 0);
    assert_int_equal(written, state.size);
    return state;
}

static void assert_saved(struct guest *g, const struct state *wanted)
{
    struct state state = save(g);

    assert_int_equal(state.size, wanted->size);
    assert_memory_equal(state.bytes, wanted->bytes, state.size);
    free(state.bytes);
}

/* The same guest with another unit, and RAM of its own. */
static struct guest *elsewhere(const struct guest *g, const NvtdConfig *config)
{
    struct guest *there = guest_new_with(config);

    memcpy(there->ram + GUEST_HEAP, g->ram + GUEST_HEAP, g->heap - GUEST_HEAP);
    there->heap = g->heap;
    there->gcmd = g->gcmd;
    there->queue = g->queue;
    there->tail = g->tail;
    there->status = g->status;
    there->root = g->root;
    there->pasid_directory = g->pasid_directory;
    there->pasid_table = g->pasid_table;
    there->pml4 = g->pml4;
    return there;
}

static struct guest *moved(struct guest *g, const NvtdConfig *config)
{
    struct guest *there = elsewhere(g, config);
    struct state state = save(g);

    assert_int_equal(nvtd_unit_load(there->unit, state.bytes, state.size), 0);
    assert_saved(there, &state);
    for (uint64_t offset = 0; offset < 0x300; offset += 4) {
        assert_int_equal(read32(there, offset), read32(g, offset));
    }
    free(state.bytes);
    return there;
}

static NvtdConfig config_of(uint32_t host)
{
    NvtdConfig config = { .size = sizeof(config) };

    assert_int_equal(nvtd_config_default(&config), 0);
    config.host = host;
    return config;
}

static void the_size_is_told(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    struct state saved = save(g);
    uint8_t room[1024], untouched[sizeof(room)];
    size_t needed = 0;

    (void)state;
    memset(room, 0xa5, sizeof(room));
    memset(untouched, 0xa5, sizeof(untouched));
    expect_error(nvtd_unit_save(g->unit, room, saved.size - 1, &needed), -ENOSPC, "bytes");
    assert_int_equal(needed, saved.size);
    assert_memory_equal(room, untouched, sizeof(room));
    needed = 0;
    expect_error(nvtd_unit_save(g->unit, room, 0, &needed), -ENOSPC, "the buffer 0");
    assert_int_equal(needed, saved.size);
    assert_int_equal(nvtd_unit_save(g->unit, room, sizeof(room), &needed), 0);
    assert_int_equal(needed, saved.size);
    assert_memory_equal(room, saved.bytes, saved.size);
    assert_memory_equal(room + saved.size, untouched, sizeof(room) - saved.size);
    free(saved.bytes);
    guest_free(g);
}

static void misuse(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    struct state saved = save(g);
    size_t needed = 77;
    uint8_t byte = 0;

    (void)state;
    expect_error(nvtd_unit_save(NULL, NULL, 0, &needed), -EINVAL, "unit");
    expect_error(nvtd_unit_save(g->unit, NULL, 0, NULL), -EINVAL, "needed");
    expect_error(nvtd_unit_save(g->unit, &byte, 1, NULL), -EINVAL, "needed");
    expect_error(nvtd_unit_save(g->unit, NULL, 1, &needed), -EINVAL, "buffer");
    assert_int_equal(needed, 77);
    expect_error(nvtd_unit_load(NULL, saved.bytes, saved.size), -EINVAL, "unit");
    expect_error(nvtd_unit_load(g->unit, NULL, saved.size), -EINVAL, "data");
    expect_error(nvtd_unit_load(g->unit, NULL, 0), -EINVAL, "data");
    expect_error(nvtd_unit_load(g->unit, saved.bytes, SIZE_MAX), -EINVAL, "size");
    expect_error(nvtd_unit_load(g->unit, saved.bytes, 0), -EINVAL, "cut");
    assert_saved(g, &saved);
    free(saved.bytes);
    guest_free(g);
}

static void goes_on(uint32_t host)
{
    const NvtdConfig config = config_of(host);
    struct guest *g = guest_new_with(&config), *there;

    guest_boot(g);
    guest_map(g, IOVA, BEFORE, 1, FS_LEAF);
    expect_address(g, IOVA, NVTD_REQUEST_READ, BEFORE);
    expect_fault(g, 0x5000, NVTD_REQUEST_WRITE, FAULT_FS_PRESENT);
    there = moved(g, &config);
    guest_free(g);

    assert_int_equal(there->msis, 0);
    assert_int_equal(guest_device(there, there->device).state,
                     host == NVTD_HOST_NONE ? NVTD_STATE_DIRECT : NVTD_STATE_NESTED);
    expect_address(there, IOVA, NVTD_REQUEST_READ, BEFORE);
    guest_clear_faults(there);
    expect_fault(there, 0x6000, NVTD_REQUEST_WRITE, FAULT_FS_PRESENT);
    assert_int_equal(there->msis, 1);
    *guest_entry(there, IOVA, 1) = AFTER | FS_LEAF;
    guest_flush_iova(there, IOVA, 0);
    expect_address(there, IOVA, NVTD_REQUEST_READ, AFTER);
    assert_int_equal(guest_stats(there).stale_uses, 0);
    guest_free(there);
}

static void a_guest_goes_on(void **state)
{
    (void)state;
    goes_on(NVTD_HOST_NONE);
}

static void a_guest_of_the_software_host_goes_on(void **state)
{
    (void)state;
    goes_on(NVTD_HOST_SOFT);
}

static void an_interrupt_waits_for_its_mask(void **state)
{
    const NvtdConfig config = config_of(NVTD_HOST_NONE);
    struct guest *g = guest_new_with(&config), *there;

    (void)state;
    guest_boot(g);
    write32(g, REG_FECTL, EVENT_IM);
    expect_fault(g, 0x5000, NVTD_REQUEST_READ, FAULT_FS_PRESENT);
    there = moved(g, &config);
    assert_int_equal(there->msis, 0);
    write32(there, REG_FECTL, 0);
    assert_int_equal(there->msis, 1);
    assert_int_equal(there->last_msi.address, FAULT_MSI_ADDRESS);
    assert_int_equal(there->last_msi.data, FAULT_MSI_DATA);
    assert_int_equal(g->msis, 0);
    guest_free(g);
    guest_free(there);
}

/* Damaged, cut, of another unit: nothing of it is taken. */
static void what_is_wrong_changes_nothing(void **state)
{
    const NvtdConfig config = config_of(NVTD_HOST_NONE);
    NvtdConfig without = config;
    struct guest *g = guest_new_with(&config), *there = guest_new_with(&config), *other;
    struct state booted, fresh;

    (void)state;
    without.features &= ~(uint64_t)NVTD_FEATURE_CACHING_MODE;
    other = guest_new_with(&without);
    guest_boot(g);
    booted = save(g);
    fresh = save(there);
    for (size_t i = 0; i < booted.size; i++) {
        booted.bytes[i] ^= 0x10;
        assert_int_equal(nvtd_unit_load(there->unit, booted.bytes, booted.size), -EINVAL);
        booted.bytes[i] ^= 0x10;
        assert_int_equal(nvtd_unit_load(there->unit, booted.bytes, i), -EINVAL);
    }
    expect_error(nvtd_unit_load(there->unit, booted.bytes, booted.size - 1), -EINVAL, "cut");
    booted.bytes[60] ^= 1;
    expect_error(nvtd_unit_load(there->unit, booted.bytes, booted.size), -EINVAL, "checksum");
    booted.bytes[60] ^= 1;
    assert_saved(there, &fresh);
    expect_error(nvtd_unit_load(other->unit, booted.bytes, booted.size), -EINVAL,
                 "caching-mode=on");
    assert_int_equal(read32(other, REG_GSTS), 0);
    assert_int_equal(nvtd_unit_load(there->unit, booted.bytes, booted.size), 0);
    assert_saved(there, &booted);
    free(booted.bytes);
    free(fresh.bytes);
    guest_free(g);
    guest_free(there);
    guest_free(other);
}

static struct {
    unsigned saves, failures;
    uint8_t bytes[1024];
    size_t size;
} inside;

/* The first time that somebody is told to forget: the queue is in the middle of being executed. */
static void save_inside(struct guest *g)
{
    if (g->told == 0 || inside.saves++ > 0) {
        return;
    }
    inside.failures += nvtd_unit_save(g->unit, inside.bytes, sizeof(inside.bytes),
                                      &inside.size) != 0;
    inside.failures += nvtd_unit_load(g->unit, inside.bytes, inside.size) != -EBUSY;
}

/* In the middle of the queue, which goes on elsewhere when FSTS is read. */
static void in_a_callback(void **state)
{
    const NvtdConfig config = config_of(NVTD_HOST_NONE);
    struct guest *g = guest_new_with(&config), *there;
    uint64_t *status;

    (void)state;
    guest_boot(g);
    assert_int_equal(nvtd_device_notify(g->unit, g->device, NVTD_NOTIFY_UNIT), 0);
    there = elsewhere(g, &config);
    guest_map(there, IOVA, BEFORE, 1, FS_LEAF);
    status = guest_qword(there, there->status);
    *status = 0;
    memset(&inside, 0, sizeof(inside));
    g->told = 0;
    g->reenter = save_inside;
    guest_flush_iova(g, IOVA, 0);
    g->reenter = NULL;
    assert_true(inside.saves > 0);
    assert_int_equal(inside.failures, 0);
    /* The descriptors, too, are in RAM. */
    memcpy(there->ram + g->queue, g->ram + g->queue, 8192);
    assert_int_equal(nvtd_unit_load(there->unit, inside.bytes, inside.size), 0);
    assert_int_equal(*status, 0);
    assert_int_equal(read32(there, REG_FSTS), 0);
    assert_int_not_equal(*status, 0);
    assert_int_equal(read64(there, REG_IQH), read64(g, REG_IQH));
    expect_address(there, IOVA, NVTD_REQUEST_READ, BEFORE);
    guest_free(g);
    guest_free(there);
}

struct saver {
    NvtdUnit *from, *to;
    bool stop;
    uint64_t rounds, wrong;
};

/* No cmocka here: its assertions belong to the main thread. */
static void *save_and_load(void *opaque)
{
    struct saver *saver = opaque;
    uint8_t bytes[1024], again[sizeof(bytes)];

    while (!guest_atomic_flag(&saver->stop)) {
        size_t size = 0, second = 0;

        if (nvtd_unit_save(saver->from, bytes, sizeof(bytes), &size) ||
            nvtd_unit_load(saver->to, bytes, size) ||
            nvtd_unit_save(saver->to, again, sizeof(again), &second) || size != second ||
            memcmp(bytes, again, size)) {
            saver->wrong++;
        }
        __atomic_fetch_add(&saver->rounds, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void beside_other_threads(void **state)
{
    const NvtdConfig config = config_of(NVTD_HOST_NONE);
    struct guest *g = guest_new_with(&config), *there;
    struct saver saver = { .from = g->unit };
    const unsigned rounds = guest_rounds(2000);
    pthread_t thread;

    (void)state;
    guest_boot(g);
    guest_map(g, IOVA, BEFORE, 1, FS_LEAF);
    there = elsewhere(g, &config);
    saver.to = there->unit;
    assert_int_equal(pthread_create(&thread, NULL, save_and_load, &saver), 0);
    for (unsigned round = 0; round < rounds; round++) {
        expect_address(g, IOVA, NVTD_REQUEST_READ, BEFORE);
        guest_flush_iova(g, IOVA, 0);
        expect_fault(g, 0x5000, NVTD_REQUEST_READ, FAULT_FS_PRESENT);
        guest_clear_faults(g);
    }
    while (__atomic_load_n(&saver.rounds, __ATOMIC_RELAXED) == 0) {
    }
    guest_atomic_raise(&saver.stop);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(saver.wrong, 0);
    guest_free(g);
    guest_free(there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_size_is_told),
        cmocka_unit_test(misuse),
        cmocka_unit_test(a_guest_goes_on),
        cmocka_unit_test(a_guest_of_the_software_host_goes_on),
        cmocka_unit_test(an_interrupt_waits_for_its_mask),
        cmocka_unit_test(what_is_wrong_changes_nothing),
        cmocka_unit_test(in_a_callback),
        cmocka_unit_test(beside_other_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
