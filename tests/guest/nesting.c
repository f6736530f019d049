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
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* The calls of iommufd and of vfio's devices, as far as they are used here. C libraries of the time of
 * Debian 12 have no headers for them. */
#define CALL(number) (';' << 8 | (number))
#define VFIO_DEVICE_GET_REGION_INFO CALL(0x6c)
#define VFIO_DEVICE_BIND_IOMMUFD CALL(0x76)
#define VFIO_DEVICE_ATTACH CALL(0x77)
#define IOMMU_IOAS_ALLOC CALL(0x81)
#define IOMMU_IOAS_MAP CALL(0x85)
#define IOMMU_HWPT_ALLOC CALL(0x89)
#define IOMMU_GET_HW_INFO CALL(0x8a)
#define IOMMU_HWPT_INVALIDATE CALL(0x8d)

enum { IOAS_MAP_FIXED = 1, IOAS_MAP_WRITE = 2, IOAS_MAP_READ = 4 };
enum { HWPT_NEST_PARENT = 1, HWPT_DATA_VTD_S1 = 1 };
enum { VFIO_BAR0 = 0, VFIO_CONFIG = 7 };

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t devid; };
struct attach { uint32_t argsz, flags, pt_id; };
struct region { uint32_t argsz, flags, index, cap_offset; uint64_t size, offset; };
struct ioas_alloc { uint32_t size, flags, id; };
struct ioas_map { uint32_t size, flags, id, reserved; uint64_t user, length, iova; };
struct hwpt_alloc {
    uint32_t size, flags, dev_id, pt_id, id, reserved, data_type, data_len;
    uint64_t data;
    uint32_t fault_id, reserved2;
};
struct vtd_s1 { uint64_t flags, table; uint32_t width, reserved; };
struct hw_info { uint32_t size, flags, dev_id, data_len; uint64_t data; uint32_t type, more; uint64_t capabilities; };
struct hw_info_vtd { uint32_t flags, reserved; uint64_t cap, ecap; };
struct invalidate { uint32_t size, hwpt_id; uint64_t data; uint32_t type, entry_len, entry_num, reserved; };
struct vtd_s1_invalidate { uint64_t address, pages; uint32_t flags, reserved; };

/* The guest's RAM: where it is in the guest, and what is where in it. The device reaches 28 bits. */
#define RAM_BASE 0x1000000ull
#define RAM_SIZE 0x400000ull
enum { PAGE = 0x1000, LEVELS = 4, TABLE = 0, SOURCE = 0x10000, OTHER = 0x20000, TARGET = 0x30000 };
/* Where the guest's first-stage table has the source page; the target follows. */
#define VIRTUAL 0x8000000ull
enum { PRESENT = 1, WRITABLE = 2, USER = 4 };

/* Registers of edu, and its buffer. */
enum { EDU_SOURCE = 0x80, EDU_TARGET = 0x88, EDU_COUNT = 0x90, EDU_COMMAND = 0x98, EDU_BUFFER = 0x40000 };
enum { EDU_START = 1, EDU_TO_RAM = 2 };

static const char *address;
static int iommufd, device;
static uint32_t device_id;
static volatile uint8_t *edu;
static uint8_t *ram;

static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static void need(int good, const char *what)
{
    if (!good) {
        say("error %s: %s", what, strerror(errno));
        exit(1);
    }
}

/* The PASID-table entry that the driver has for the device, from its debugfs file. */
static void say_entry(const char *stage)
{
    char line[512];
    FILE *file = fopen("/sys/kernel/debug/iommu/intel/dmar_translation_struct", "r");
    need(file != NULL, "dmar_translation_struct");
    while (fgets(line, sizeof(line), file)) {
        /* The device's address there has no domain. */
        if (strncmp(line, address + 5, strlen(address + 5)) == 0) {
            char *last = strrchr(line, '\t');
            line[strcspn(line, "\n")] = 0;
            say("entry %s %s", stage, last ? last + 1 : line);
        }
    }
    fclose(file);
}

static void edu_write(uint32_t offset, uint64_t value)
{
    *(volatile uint64_t *)(edu + offset) = value;
}

/* Lets the device move a page; returns 0 when it says that it is done. */
static int edu_move(uint64_t source, uint64_t target, uint64_t command)
{
    edu_write(EDU_SOURCE, source);
    edu_write(EDU_TARGET, target);
    edu_write(EDU_COUNT, PAGE);
    edu_write(EDU_COMMAND, command | EDU_START);
    for (int i = 0; i < 200; i++) {
        if (!(*(volatile uint64_t *)(edu + EDU_COMMAND) & EDU_START))
            return 0;
        usleep(20000);
    }
    return -1;
}

/* Copies a page by the device; `expected` and TARGET are offsets in ram, the others the device's addresses. */
static void copy(const char *what, uint64_t from, uint64_t to, uint32_t expected)
{
    memset(ram + TARGET, 0xee, PAGE);
    if (edu_move(from, EDU_BUFFER, 0) || edu_move(EDU_BUFFER, to, EDU_TO_RAM))
        say("%s the device did not end", what);
    else if (memcmp(ram + TARGET, ram + expected, PAGE))
        say("%s wrong data, first byte %#x, expected %#x", what, ram[TARGET], ram[expected]);
    else
        say("%s ok", what);
}

/* A HWPT for the device; 0 and errno set on an error. */
static uint32_t hwpt(uint32_t flags, uint32_t on, const struct vtd_s1 *s1)
{
    struct hwpt_alloc call = { .size = sizeof(call), .flags = flags, .dev_id = device_id, .pt_id = on };
    if (s1) {
        call.data_type = HWPT_DATA_VTD_S1;
        call.data_len = sizeof(*s1);
        call.data = (uintptr_t)s1;
    }
    return ioctl(iommufd, IOMMU_HWPT_ALLOC, &call) ? 0 : call.id;
}

static void attach(uint32_t to)
{
    struct attach call = { .argsz = sizeof(call), .pt_id = to };
    need(ioctl(device, VFIO_DEVICE_ATTACH, &call) == 0, "attach");
}

/* The device's registers, with its memory and bus mastering on. */
static void open_device(void)
{
    struct region config = { .argsz = sizeof(config), .index = VFIO_CONFIG };
    struct region bar = { .argsz = sizeof(bar), .index = VFIO_BAR0 };
    uint16_t command = 6;
    need(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) == 0, "configuration space");
    need(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &bar) == 0, "BAR 0");
    need(pwrite(device, &command, 2, config.offset + 4) == 2, "command register");
    edu = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, bar.offset);
    need(edu != MAP_FAILED, "mmap of BAR 0");
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
    address = argv[1];
    iommufd = open("/dev/iommu", O_RDWR);
    need(iommufd >= 0, "/dev/iommu");
    device = open(argv[2], O_RDWR);
    need(device >= 0, argv[2]);
    struct bind bind = { .argsz = sizeof(bind), .iommufd = iommufd };
    need(ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind) == 0, "bind");
    device_id = bind.devid;

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
    struct ioas_alloc ioas = { .size = sizeof(ioas) };
    need(ioctl(iommufd, IOMMU_IOAS_ALLOC, &ioas) == 0, "IOAS_ALLOC");
    struct ioas_map map = { .size = sizeof(map), .flags = IOAS_MAP_FIXED | IOAS_MAP_WRITE | IOAS_MAP_READ,
                            .id = ioas.id, .user = (uintptr_t)ram, .length = RAM_SIZE, .iova = RAM_BASE };
    need(ioctl(iommufd, IOMMU_IOAS_MAP, &map) == 0, "IOAS_MAP");

    uint32_t parent = hwpt(HWPT_NEST_PARENT, ioas.id, NULL);
    say("parent %s", parent ? "ok" : strerror(errno));
    uint32_t first = parent ? parent : hwpt(0, ioas.id, NULL);
    need(first != 0, "HWPT_ALLOC");
    attach(first);
    open_device();
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
        struct vtd_s1_invalidate page = { .address = VIRTUAL, .pages = 1 };
        struct invalidate call = { .size = sizeof(call), .hwpt_id = nested, .data = (uintptr_t)&page,
                                   .entry_len = sizeof(page), .entry_num = 1 };
        need(ioctl(iommufd, IOMMU_HWPT_INVALIDATE, &call) == 0 && call.entry_num == 1, "HWPT_INVALIDATE");
        copy("remapped", VIRTUAL, VIRTUAL + PAGE, OTHER);
    }
    say("end");
    return 0;
}
