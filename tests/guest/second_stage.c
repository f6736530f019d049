/*
 * Changes an entry of a second-stage table that the kernel has in memory, behind its back.
 *
 *   second_stage PCI-ADDRESS HEX           takes the page with this address out; says `was AT HEX`
 *   second_stage PCI-ADDRESS HEX AT HEX    writes the entry back
 *
 * The table is that of the device's PASID-table entry for requests without PASID (VT-d 9.6), found in the
 * driver's debugfs file; memory is reached through /dev/mem.
 */
#include "host.h"

static int memory;

static uint64_t entry_at(uint64_t at)
{
    uint64_t entry = 0;
    need(pread(memory, &entry, 8, (off_t)at) == 8, "/dev/mem");
    return entry;
}

static void set_entry(uint64_t at, uint64_t entry)
{
    need(pwrite(memory, &entry, 8, (off_t)at) == 8, "/dev/mem");
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 5)
        return fprintf(stderr, "usage: second_stage PCI-ADDRESS HEX [AT HEX]\n"), 2;
    address = argv[1];
    memory = open("/dev/mem", O_RDWR | O_SYNC);
    need(memory >= 0, "/dev/mem");
    if (argc == 5)
        return set_entry(strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0)), 0;

    const char *first = next_entry();
    need(first != NULL, "the device has no entry");
    uint64_t page = strtoull(argv[2], NULL, 0), entry = lowest(first);
    /* AW counts levels from 2 on; SSPTPTR is the rest. */
    int level = (int)(entry >> 2 & 7) + 2;
    uint64_t table = entry & ~0xfffull;
    need((entry & 1) && (pgtt(entry) == 2 || pgtt(entry) == 3), "the device has no second stage");
    for (;; level--) {
        uint64_t at = table + (page >> (12 + 9 * (level - 1)) & 511) * 8;
        entry = entry_at(at);
        need(entry & 3, "the page is not mapped");
        if (level == 1 || entry & 1 << 7) {
            say("was %#llx %#llx", (unsigned long long)at, (unsigned long long)entry);
            return set_entry(at, 0), 0;
        }
        table = entry & 0xffffffffff000ull;
    }
}
