/*
 * What the guest's programs share that use a device as a host of nested guests does: a device with the DMA
 * registers of QEMU's `edu` (pasid-testdev has them, too) that vfio-pci holds, bound to an iommufd.
 *
 *   PROGRAM PCI-ADDRESS /dev/vfio/devices/vfioN ...
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
#define VFIO_DEVICE_DETACH CALL(0x78)
#define IOMMU_DESTROY CALL(0x80)
#define IOMMU_IOAS_ALLOC CALL(0x81)
#define IOMMU_IOAS_MAP CALL(0x85)
#define IOMMU_IOAS_UNMAP CALL(0x86)
#define IOMMU_HWPT_ALLOC CALL(0x89)
#define IOMMU_GET_HW_INFO CALL(0x8a)
#define IOMMU_HWPT_INVALIDATE CALL(0x8d)

enum { IOAS_MAP_FIXED = 1, IOAS_MAP_WRITE = 2, IOAS_MAP_READ = 4 };
enum { HWPT_NEST_PARENT = 1, HWPT_PASID = 8, HWPT_DATA_VTD_S1 = 1 };
enum { ATTACH_PASID = 1 };
enum { VFIO_BAR0 = 0, VFIO_CONFIG = 7 };

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t devid; };
struct attach { uint32_t argsz, flags, pt_id, pasid; };
struct detach { uint32_t argsz, flags, pasid; };
struct destroy { uint32_t size, id; };
struct region { uint32_t argsz, flags, index, cap_offset; uint64_t size, offset; };
struct ioas_alloc { uint32_t size, flags, id; };
struct ioas_map { uint32_t size, flags, id, reserved; uint64_t user, length, iova; };
struct ioas_unmap { uint32_t size, id; uint64_t iova, length; };
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

enum { PAGE = 0x1000, LEVELS = 4 };
/* Bits of first-stage entries. */
enum { PRESENT = 1, WRITABLE = 2, USER = 4 };

/* Registers of edu, and its buffer; the last two are those of pasid-testdev alone. */
enum { EDU_SOURCE = 0x80, EDU_TARGET = 0x88, EDU_COUNT = 0x90, EDU_COMMAND = 0x98, EDU_BUFFER = 0x40000 };
enum { EDU_PASID = 0xa0, EDU_REFUSED = 0xa8 };
enum { EDU_START = 1, EDU_TO_RAM = 2 };
#define EDU_PASID_VALID (1ull << 31)

static const char *address;
static int iommufd, device;
static uint32_t device_id;
static volatile uint8_t *edu;

static inline void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static inline void need(int good, const char *what)
{
    if (!good) {
        say("error %s: %s", what, strerror(errno));
        exit(1);
    }
}

/* Any number of 31 bits, the same ones in each run. */
static inline uint64_t next(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1d >> 33;
}

/* The next PASID-table entry that the driver has for the device, as the last column of its debugfs file has it: quadwords,
 * the highest first. NULL after the last; the text holds until the next call. */
static inline const char *next_entry(void)
{
    static FILE *file;
    static char line[512];
    if (!file)
        file = fopen("/sys/kernel/debug/iommu/intel/dmar_translation_struct", "r");
    need(file != NULL, "dmar_translation_struct");
    while (fgets(line, sizeof(line), file)) {
        const char *entry = strrchr(line, '\t');
        line[strcspn(line, "\n")] = 0;
        /* The device's address there has no domain. */
        if (strncmp(line, address + 5, strlen(address + 5)) == 0 && entry)
            return entry + 1;
    }
    fclose(file);
    file = NULL;
    return NULL;
}

/* Its lowest quadword, which has PGTT (VT-d 9.6). */
static inline uint64_t lowest(const char *entry)
{
    const char *low = strrchr(entry, ':');
    return low ? strtoull(low + 1, NULL, 0) : 0;
}

static inline unsigned pgtt(uint64_t lowest)
{
    return lowest >> 6 & 7;
}

static inline void edu_write(uint32_t offset, uint64_t value)
{
    *(volatile uint64_t *)(edu + offset) = value;
}

static inline uint64_t edu_read(uint32_t offset)
{
    return *(volatile uint64_t *)(edu + offset);
}

/* Lets the device move this many bytes, a page at most; returns 0 when it says that it is done. QEMU tries
 * refused DMA again in parts of 4 bytes. */
static inline int edu_move(uint64_t source, uint64_t target, uint64_t count, uint64_t command)
{
    edu_write(EDU_SOURCE, source);
    edu_write(EDU_TARGET, target);
    edu_write(EDU_COUNT, count);
    edu_write(EDU_COMMAND, command | EDU_START);
    for (int i = 0; i < 200; i++) {
        if (!(edu_read(EDU_COMMAND) & EDU_START))
            return 0;
        usleep(20000);
    }
    return -1;
}

static inline uint32_t new_ioas(void)
{
    struct ioas_alloc ioas = { .size = sizeof(ioas) };
    need(ioctl(iommufd, IOMMU_IOAS_ALLOC, &ioas) == 0, "IOAS_ALLOC");
    return ioas.id;
}

static inline void map(uint32_t ioas, uint64_t iova, void *memory, uint64_t length)
{
    struct ioas_map call = { .size = sizeof(call), .flags = IOAS_MAP_FIXED | IOAS_MAP_WRITE | IOAS_MAP_READ,
                             .id = ioas, .user = (uintptr_t)memory, .length = length, .iova = iova };
    need(ioctl(iommufd, IOMMU_IOAS_MAP, &call) == 0, "IOAS_MAP");
}

static inline void unmap(uint32_t ioas, uint64_t iova, uint64_t length)
{
    struct ioas_unmap call = { .size = sizeof(call), .id = ioas, .iova = iova, .length = length };
    need(ioctl(iommufd, IOMMU_IOAS_UNMAP, &call) == 0, "IOAS_UNMAP");
}

/* A HWPT for the device; 0 and errno set on an error. */
static inline uint32_t hwpt(uint32_t flags, uint32_t on, const struct vtd_s1 *s1)
{
    struct hwpt_alloc call = { .size = sizeof(call), .flags = flags, .dev_id = device_id, .pt_id = on };
    if (s1) {
        call.data_type = HWPT_DATA_VTD_S1;
        call.data_len = sizeof(*s1);
        call.data = (uintptr_t)s1;
    }
    return ioctl(iommufd, IOMMU_HWPT_ALLOC, &call) ? 0 : call.id;
}

static inline void attach(uint32_t to)
{
    struct attach call = { .argsz = 12, .pt_id = to };
    need(ioctl(device, VFIO_DEVICE_ATTACH, &call) == 0, "attach");
}

/* The pages from `iova` on have changed in the first-stage table of `nested`. */
static inline void invalidate(uint32_t nested, uint64_t iova, uint64_t pages)
{
    struct vtd_s1_invalidate entry = { .address = iova, .pages = pages };
    struct invalidate call = { .size = sizeof(call), .hwpt_id = nested, .data = (uintptr_t)&entry,
                               .entry_len = sizeof(entry), .entry_num = 1 };
    need(ioctl(iommufd, IOMMU_HWPT_INVALIDATE, &call) == 0 && call.entry_num == 1, "HWPT_INVALIDATE");
}

/* The device's registers, with its memory and bus mastering on. */
static inline void open_registers(void)
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

/* Opens the device of the command line, and binds it. Its registers want it attached to something. */
static inline void open_device(char **argv)
{
    address = argv[1];
    iommufd = open("/dev/iommu", O_RDWR);
    need(iommufd >= 0, "/dev/iommu");
    device = open(argv[2], O_RDWR);
    need(device >= 0, argv[2]);
    struct bind bind = { .argsz = sizeof(bind), .iommufd = iommufd };
    need(ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind) == 0, "bind");
    device_id = bind.devid;
}
