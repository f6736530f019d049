/*
 * PASIDs of a device of QEMU's type `pasid-testdev` that vfio-pci holds. Each has a first-stage table of
 * its own, nested on one parent, and each table has the same page of the device go elsewhere.
 *
 *   pasid PCI-ADDRESS /dev/vfio/devices/vfioN SECONDS
 *
 * First each step is tried once, then for so long they come in any order, with DMA after each. It says one
 * fact per line:
 *
 *   unsupported WHAT                 the kernel or the device has no PASIDs to attach
 *   attached ok|WHAT                 DMA with each PASID went through its own table
 *   entries N                        PASID-table entries of the device that are nested (PGTT 3)
 *   replaced ok|WHAT                 after another table took one's place
 *   invalidated ok|WHAT              after its table had changed
 *   detached ok|WHAT                 DMA was refused, and other PASIDs went on
 *   churn STEPS DMAS REFUSED WRONG   after all that; REFUSED counts every refused DMA since the beginning
 */
#include "host.h"

#include <time.h>

#define RAM_BASE 0x1000000ull
#define RAM_SIZE 0x400000ull
#define VIRTUAL 0x8000000ull

enum { PASIDS = 6, TABLES = 8 };

/* Where a table's last level is, and the page that it leads to, in ram. */
#define TABLE(n) (0x10000u * (n))
#define TARGET(n) (0x100000u + 0x1000u * (n))
enum { SINK = 0x200000 };

static uint8_t *ram;
static uint32_t ioas, parent;
static uint64_t *entries[TABLES];
static unsigned target[TABLES];  /* of each table, as it was last told */
static uint32_t nested[TABLES];  /* HWPTs */
static int table_of[PASIDS + 1]; /* that a PASID has; -1 for none */
static uint64_t refused, wrong, dmas;

static uint64_t leaf(unsigned n)
{
    return (RAM_BASE + TARGET(n)) | PRESENT | WRITABLE | USER;
}

static void make_table(unsigned n)
{
    for (int level = LEVELS; level > 0; level--) {
        uint32_t table = TABLE(n) + (uint32_t)(LEVELS - level) * PAGE;
        uint64_t *entry = (uint64_t *)(ram + table) + (VIRTUAL >> (12 + 9 * (level - 1)) & 511);
        *entry = (RAM_BASE + table + PAGE) | PRESENT | WRITABLE | USER;
        entries[n] = entry;
    }
    *entries[n] = leaf(n);
    target[n] = n;
}

static void make_hwpt(unsigned n)
{
    struct vtd_s1 s1 = { .table = RAM_BASE + TABLE(n), .width = 48 };
    nested[n] = hwpt(HWPT_PASID, parent, &s1);
    need(nested[n] != 0, "HWPT_ALLOC of a first-stage table");
}

static int attach_pasid(uint32_t pasid, uint32_t to)
{
    struct attach call = { .argsz = sizeof(call), .flags = ATTACH_PASID, .pt_id = to, .pasid = pasid };
    return ioctl(device, VFIO_DEVICE_ATTACH, &call);
}

static void set_table(uint32_t pasid, int n)
{
    struct detach none = { .argsz = sizeof(none), .flags = ATTACH_PASID, .pasid = pasid };
    if (n >= 0)
        need(attach_pasid(pasid, nested[n]) == 0, "attach a PASID");
    else
        need(ioctl(device, VFIO_DEVICE_DETACH, &none) == 0, "detach a PASID");
    table_of[pasid] = n;
}

static void change_table(unsigned n, unsigned to)
{
    *entries[n] = leaf(to);
    target[n] = to;
    invalidate(nested[n], VIRTUAL, 1);
}

/* DMA with this PASID, of a size that is one request, and whether it did what its table says. */
static int good(uint32_t pasid)
{
    uint64_t before = edu_read(EDU_REFUSED);
    int n = table_of[pasid], is;
    uint64_t sum;

    memset(ram + SINK, 0xee, 4);
    edu_write(EDU_PASID, EDU_PASID_VALID | pasid);
    need(edu_move(VIRTUAL, EDU_BUFFER, 4, 0) == 0, "the device did not end");
    edu_write(EDU_PASID, 0);
    sum = edu_read(EDU_REFUSED) - before;
    need(edu_move(EDU_BUFFER, RAM_BASE + SINK, 4, EDU_TO_RAM) == 0, "the device did not end");
    dmas++;
    refused += sum;
    is = n < 0 ? sum == 1 : sum == 0 && memcmp(ram + SINK, ram + TARGET(target[n]), 4) == 0;
    wrong += !is;
    return is;
}

static const char *all_good(void)
{
    static char text[32];
    for (uint32_t pasid = 1; pasid <= PASIDS; pasid++) {
        if (!good(pasid)) {
            snprintf(text, sizeof(text), "PASID %u went wrong", pasid);
            return text;
        }
    }
    return "ok";
}

/* How many PASID-table entries the kernel has for the device with PGTT 3 (VT-d 9.6). */
static unsigned nested_entries(void)
{
    unsigned count = 0;
    for (const char *entry; (entry = next_entry());)
        count += pgtt(lowest(entry)) == 3;
    return count;
}

static int in_use(unsigned n)
{
    for (uint32_t pasid = 1; pasid <= PASIDS; pasid++) {
        if (table_of[pasid] == (int)n)
            return 1;
    }
    return 0;
}

static void churn(time_t seconds)
{
    uint64_t steps = 0;
    for (time_t end = time(NULL) + seconds; time(NULL) < end; steps++) {
        uint32_t pasid = 1 + (uint32_t)(next() % PASIDS);
        unsigned n = (unsigned)(next() % TABLES);
        switch (next() % 4) {
        case 0:
            set_table(pasid, (int)n);
            break;
        case 1:
            if (table_of[pasid] >= 0)
                set_table(pasid, -1);
            break;
        case 2:
            change_table(n, (unsigned)(next() % TABLES));
            break;
        default:
            if (!in_use(n)) {
                struct destroy old = { .size = sizeof(old), .id = nested[n] };
                need(ioctl(iommufd, IOMMU_DESTROY, &old) == 0, "DESTROY");
                make_hwpt(n);
            }
        }
        good(pasid);
        good(1 + (uint32_t)(next() % PASIDS));
    }
    say("churn %llu %llu %llu %llu", (unsigned long long)steps, (unsigned long long)dmas,
        (unsigned long long)refused, (unsigned long long)wrong);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fprintf(stderr, "usage: pasid PCI-ADDRESS VFIO-DEVICE SECONDS\n"), 2;
    open_device(argv);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    need(ram != MAP_FAILED, "mmap");
    for (unsigned n = 0; n < TABLES; n++) {
        make_table(n);
        memset(ram + TARGET(n), 0x11 * (int)(n + 1), PAGE);
    }
    ioas = new_ioas();
    map(ioas, RAM_BASE, ram, RAM_SIZE);
    parent = hwpt(HWPT_NEST_PARENT | HWPT_PASID, ioas, NULL);
    if (!parent)
        return say("unsupported HWPT_ALLOC: %s", strerror(errno)), 0;
    attach(parent);
    open_registers();
    for (unsigned n = 0; n < TABLES; n++)
        make_hwpt(n);
    if (attach_pasid(1, nested[0]))
        return say("unsupported attach: %s", strerror(errno)), 0;
    for (uint32_t pasid = 1; pasid <= PASIDS; pasid++)
        set_table(pasid, (int)pasid % TABLES);
    say("attached %s", all_good());
    say("entries %u", nested_entries());
    set_table(1, 7);
    say("replaced %s", all_good());
    change_table(2, 5);
    say("invalidated %s", all_good());
    set_table(3, -1);
    say("detached %s", all_good());
    churn(strtol(argv[3], NULL, 0));
    return 0;
}
