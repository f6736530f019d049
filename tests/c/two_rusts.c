/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The archive and another Rust static library in one program, both at work.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "nested_vtd.h"

uint32_t neighbour_call(void);

static void msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

int main(void)
{
    NvtdOps ops = { .size = sizeof(ops), .msi = msi };
    NvtdUnit *unit = NULL;

    if (neighbour_call() != 201) {
        return 1;
    }
    if (nvtd_unit_create(NULL, &ops, NULL, &unit) || nvtd_unit_reset(NULL) == 0) {
        return 2;
    }
    /* Thread-locals and panics of the other library, with this one's hook installed. */
    if (neighbour_call() != 202 || !strstr(nvtd_last_error(), "unit")) {
        return 3;
    }
    nvtd_unit_destroy(unit);
    return neighbour_call() == 203 ? 0 : 4;
}
