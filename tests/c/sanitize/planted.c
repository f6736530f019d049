/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * usage: planted [freed|behind|shift|leak]
 * A VMM that makes a mistake, or none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nested_vtd.h"

typedef struct Vmm {
    unsigned messages;
    unsigned shift;
} Vmm;

static void msi(void *opaque, uint64_t address, uint32_t data)
{
    Vmm *vmm = opaque;

    (void)address, (void)data;
    vmm->messages++;
}

/* A fault, which the unit tells of by an interrupt. */
static int fault(NvtdUnit *unit)
{
    NvtdDevice device = { .size = sizeof(device), .source_id = 3 << 3 };
    NvtdRequest read = { .size = sizeof(read), .address = 0x1000, .flags = NVTD_REQUEST_READ };
    NvtdTranslation to = { .size = sizeof(to) };
    uint32_t handle;

    return nvtd_device_add(unit, &device, &handle) ||
           nvtd_mmio_write(unit, 0x38, 4, 0) || /* FECTL: not masked */
           nvtd_mmio_write(unit, 0x20, 8, 1 << 10) || /* RTADDR: scalable mode, no RAM there */
           nvtd_mmio_write(unit, 0x18, 4, 1u << 30) || nvtd_mmio_write(unit, 0x18, 4, 1u << 31) ||
           nvtd_translate(unit, handle, &read, &to) || to.fault == 0;
}

int main(int argc, char **argv)
{
    const char *mistake = argc > 1 ? argv[1] : "";
    Vmm *vmm = calloc(1, sizeof(*vmm));
    NvtdOps ops = { .size = sizeof(ops), .msi = msi };
    NvtdUnit *unit;
    size_t needed;
    char *state;
    int failed;

    if (nvtd_unit_create(NULL, &ops, vmm, &unit) || nvtd_unit_save(unit, NULL, 0, &needed)) {
        return 1;
    }
    if (!strcmp(mistake, "freed")) {
        free(vmm); /* The unit still calls back on it. */
    }
    failed = fault(unit);
    state = malloc(strcmp(mistake, "behind") ? needed : needed - 1);
    failed |= nvtd_unit_save(unit, state, needed, &needed);
    if (!strcmp(mistake, "shift")) {
        vmm->shift = 32 * vmm->messages;
        printf("%d\n", 1 << vmm->shift);
    }
    printf("%u messages\n", vmm->messages);
    failed |= vmm->messages != 1;
    free(state);
    if (strcmp(mistake, "leak")) {
        nvtd_unit_destroy(unit);
    }
    unit = NULL;
    free(vmm);
    return failed;
}
