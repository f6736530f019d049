/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * usage: planted [race]
 * Two threads work on one unit, which calls back on both. With `race` the callback counts without a
 * lock, as a VMM might that took the unit's calls for ordered.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nested_vtd.h"

static NvtdUnit *unit;
static int race;
static unsigned plain, guarded;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static void event(void *opaque, uint32_t number, uint64_t a, uint64_t b, uint64_t c)
{
    (void)opaque, (void)number, (void)a, (void)b, (void)c;
    if (race) {
        plain++;
    }
    pthread_mutex_lock(&lock);
    guarded++;
    pthread_mutex_unlock(&lock);
    if (race) {
        usleep(1000); /* The other thread is to come by: locks order threads that never meet. */
    }
}

static void *work(void *opaque)
{
    (void)opaque;
    for (unsigned round = 0; round < 100; round++) {
        NvtdDevice device = { .size = sizeof(device), .source_id = 3 << 3 };
        NvtdRequest read = { .size = sizeof(read), .address = 0x1000, .flags = NVTD_REQUEST_READ };
        NvtdTranslation to = { .size = sizeof(to) };
        uint64_t value;
        uint32_t handle;

        if (nvtd_device_add(unit, &device, &handle) || nvtd_translate(unit, handle, &read, &to) ||
            nvtd_mmio_write(unit, 0x18, 4, 1u << 30) || /* GCMD.SRTP: drops what is cached */
            nvtd_mmio_read(unit, 0x1c, 4, &value) || nvtd_device_remove(unit, handle)) {
            return unit;
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    NvtdOps ops = { .size = sizeof(ops), .msi = msi, .event = event };
    pthread_t threads[2];
    int failed = 0;

    race = argc > 1 && strcmp(argv[1], "race") == 0;
    if (nvtd_unit_create(NULL, &ops, NULL, &unit)) {
        return 1;
    }
    for (unsigned i = 0; i < 2; i++) {
        failed |= pthread_create(&threads[i], NULL, work, NULL);
    }
    for (unsigned i = 0; i < 2; i++) {
        void *wrong = NULL;

        failed |= pthread_join(threads[i], &wrong) || wrong;
    }
    nvtd_unit_destroy(unit);
    printf("%u events\n", guarded);
    return failed || guarded == 0;
}
