/* SPDX-License-Identifier: MIT OR Apache-2.0 - below this line it is the README's example. */
#include <nested_vtd.h>
#include <stdio.h>

static void msi(void *vm, uint64_t address, uint32_t data) { (void)vm, (void)address, (void)data; }
static uint64_t ram[1 << 17]; /* 1 MiB of guest RAM */

int main(void)
{
    NvtdOps ops = { .size = sizeof(ops), .msi = msi };
    NvtdDevice nic = { .size = sizeof(nic), .source_id = 3 << 3 }; /* 00:03.0 */
    NvtdRequest read = { .size = sizeof(read), .address = 0x1234, .flags = NVTD_REQUEST_READ };
    NvtdTranslation to = { .size = sizeof(to) };
    NvtdUnit *unit;
    uint32_t device;
    if (nvtd_unit_create(NULL, &ops, NULL, &unit) || nvtd_ram_add(unit, 0, sizeof(ram), ram, 0) ||
        nvtd_device_add(unit, &nic, &device) || nvtd_translate(unit, device, &read, &to))
        return fprintf(stderr, "%s\n", nvtd_last_error()), 1;
    printf("%#llx goes to %#llx\n", (unsigned long long)read.address, (unsigned long long)to.address);
    nvtd_unit_destroy(unit);
}
