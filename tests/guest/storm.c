/*
 * Maps and unmaps memory for a device of QEMU's type `pasid-testdev` that vfio-pci holds, as fast as it
 * goes: DMA through what is mapped must reach it, through what is not it must be refused, from the very
 * return of the call that unmapped it.
 *
 *   storm PCI-ADDRESS /dev/vfio/devices/vfioN SECONDS
 *
 *   storm MAPS UNMAPS DMAS REFUSED WRONG
 */
#include "host.h"

#include <time.h>

enum { SLOTS = 48, SLOT_PAGES = 64 };
#define SLOT (SLOT_PAGES * 4096ull)
#define VIRTUAL(slot) (0x100000000ull + (slot) * 0x200000ull)

int main(int argc, char **argv)
{
    uint64_t pages[SLOTS] = { 0 }, maps = 0, unmaps = 0, dmas = 0, refused = 0, wrong = 0;
    if (argc != 4)
        return fprintf(stderr, "usage: storm PCI-ADDRESS VFIO-DEVICE SECONDS\n"), 2;
    open_device(argv);
    uint8_t *memory = mmap(NULL, SLOTS * SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    uint32_t ioas = new_ioas();
    attach(ioas);
    open_registers();
    for (time_t end = time(NULL) + strtol(argv[3], NULL, 0); time(NULL) < end;) {
        unsigned slot = (unsigned)(next() % SLOTS);
        uint64_t page = next() % SLOT_PAGES;
        uint8_t *there = memory + slot * SLOT + page * PAGE;
        if (next() % 2) {
            if (pages[slot]) {
                unmap(ioas, VIRTUAL(slot), pages[slot] * PAGE);
                pages[slot] = 0;
                unmaps++;
            } else {
                pages[slot] = 1 + next() % SLOT_PAGES;
                map(ioas, VIRTUAL(slot), memory + slot * SLOT, pages[slot] * PAGE);
                maps++;
            }
        }
        /* A write of the device: something that was not there before. */
        uint64_t before = edu_read(EDU_REFUSED);
        uint32_t mark = (uint32_t)next();
        memcpy(there, &mark, 4);
        int mapped = page < pages[slot];
        need(edu_move(VIRTUAL(slot) + page * PAGE, EDU_BUFFER, 4, 0) == 0 &&
             edu_move(EDU_BUFFER, VIRTUAL(slot) + page * PAGE + 4, 4, EDU_TO_RAM) == 0, "the device did not end");
        uint64_t now = edu_read(EDU_REFUSED) - before;
        dmas += 2;
        refused += now;
        wrong += mapped ? now != 0 || memcmp(there, there + 4, 4) != 0 : now != 2;
    }
    say("storm %llu %llu %llu %llu %llu", (unsigned long long)maps, (unsigned long long)unmaps, (unsigned long long)dmas,
        (unsigned long long)refused, (unsigned long long)wrong);
    return 0;
}
