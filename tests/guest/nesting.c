/*
 * What a host of nested guests does, at a device of QEMU's type `edu` that vfio-pci holds: it asks for
 * the IOMMU's capabilities, makes a nesting parent of its "guest's RAM" and attaches the device to it,
 * then makes a nested HWPT of the guest's first-stage table and attaches that. At each stage it lets
 * the device copy a page and shows the PASID-table entry in force.
 *
 *   nesting PCI-ADDRESS /dev/vfio/devices/vfioN
 *
 * It says one fact per line:
 *
 *   hw-info TYPE CAP ECAP
 *   parent ok|ERROR                  HWPT_ALLOC with NEST_PARENT; on an error a plain HWPT is used
 *   entry STAGE WORD:WORD:WORD       PASID-table entry at that stage, highest word first
 *   dma STAGE ok|WHAT                a page was copied
 *   nested ok|ERROR                  HWPT_ALLOC with VTD_S1 on the parent
 *   remapped ok|WHAT                 a page was copied after its first-stage entry had been changed
 *   bits HEX HEX                     the first-stage entries of the page read and the page written
 *   end                              it got to its end
 */
#include "host.h"

/* The guest's RAM: where it is in the guest, and what is where in it. The device reaches 28 bits. */
#define RAM_BASE 0x1000000ull
#define RAM_SIZE 0x400000ull
enum { TABLE = 0, SOURCE = 0x10000, OTHER = 0x20000, TARGET = 0x30000 };
/* Where the guest's first-stage table has the source page; the target follows. */
#define VIRTUAL 0x8000000ull

static uint8_t *ram;

/* The PASID-table entry that the driver has for the device, from its debugfs file. */
static void say_entry(const char *stage)
{
    for (const char *entry; (entry = next_entry());)
        say("entry %s %s", stage, entry);
}

/* Copies a page by the device; `expected` and TARGET are offsets in ram, the others the device's addresses. */
static void copy(const char *what, uint64_t from, uint64_t to, uint32_t expected)
{
    memset(ram + TARGET, 0xee, PAGE);
    if (edu_move(from, EDU_BUFFER, PAGE, 0) || edu_move(EDU_BUFFER, to, PAGE, EDU_TO_RAM))
        say("%s the device did not end", what);
    else if (memcmp(ram + TARGET, ram + expected, PAGE))
        say("%s wrong data, first byte %#x, expected %#x", what, ram[TARGET], ram[expected]);
    else
        say("%s ok", what);
}

/* The guest's first-stage table: VIRTUAL to the source, one page on to the target. Returns the last level. */
static uint64_t *make_table(void)
{
    uint64_t *last = NULL;
    for (int level = LEVELS; level > 0; level--) {
        uint32_t table = TABLE + (LEVELS - level) * PAGE;
        last = (uint64_t *)(ram + table);
        last += VIRTUAL >> (12 + 9 * (level - 1)) & 511;
        *last = (RAM_BASE + table + PAGE) | PRESENT | WRITABLE | USER;
    }
    last[0] = (RAM_BASE + SOURCE) | PRESENT | WRITABLE | USER;
    last[1] = (RAM_BASE + TARGET) | PRESENT | WRITABLE | USER;
    return last;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return fprintf(stderr, "usage: nesting PCI-ADDRESS VFIO-DEVICE\n"), 2;
    open_device(argv);

    struct hw_info_vtd vtd = { 0 };
    struct hw_info info = { .size = sizeof(info), .dev_id = device_id, .data_len = sizeof(vtd), .data = (uintptr_t)&vtd };
    need(ioctl(iommufd, IOMMU_GET_HW_INFO, &info) == 0, "GET_HW_INFO");
    say("hw-info %u %#llx %#llx", info.type, (unsigned long long)vtd.cap, (unsigned long long)vtd.ecap);

    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    need(ram != MAP_FAILED, "mmap");
    for (int i = 0; i < PAGE; i++) {
        ram[SOURCE + i] = i * 7 + (i >> 8);
        ram[OTHER + i] = i * 13 + 5;
    }
    uint32_t ioas = new_ioas();
    map(ioas, RAM_BASE, ram, RAM_SIZE);

    uint32_t parent = hwpt(HWPT_NEST_PARENT, ioas, NULL);
    say("parent %s", parent ? "ok" : strerror(errno));
    uint32_t first = parent ? parent : hwpt(0, ioas, NULL);
    need(first != 0, "HWPT_ALLOC");
    attach(first);
    open_registers();
    const char *stage = parent ? "parent" : "plain";
    char what[32];
    say_entry(stage);
    snprintf(what, sizeof(what), "dma %s", stage);
    copy(what, RAM_BASE + SOURCE, RAM_BASE + TARGET, SOURCE);

    if (parent) {
        uint64_t *entry = make_table();
        struct vtd_s1 s1 = { .table = RAM_BASE + TABLE, .width = 48 };
        uint32_t nested = hwpt(0, parent, &s1);
        say("nested %s", nested ? "ok" : strerror(errno));
        need(nested != 0, "HWPT_ALLOC");
        attach(nested);
        say_entry("nested");
        copy("dma nested", VIRTUAL, VIRTUAL + PAGE, SOURCE);
        say("bits %llx %llx", (unsigned long long)entry[0], (unsigned long long)entry[1]);

        entry[0] = (RAM_BASE + OTHER) | PRESENT | USER;
        invalidate(nested, VIRTUAL, 1);
        copy("remapped", VIRTUAL, VIRTUAL + PAGE, OTHER);
    }
    say("end");
    return 0;
}
