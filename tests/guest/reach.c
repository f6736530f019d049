/*
 * A device of QEMU's type `pasid-testdev` that vfio-pci holds copies within the first 4 KiB of a huge page,
 * each time the page is mapped anew: what the IOMMU knows of the page's addresses is known for none of them yet.
 *
 *   reach PCI-ADDRESS /dev/vfio/devices/vfioN
 *
 * It says where the page is in this machine's memory, then waits for the file /tmp/reach.N to be there
 * before try N, 1 to 3:
 *
 *   page HEX
 *   try N ok|refused|wrong
 */
#include "host.h"

#define SIZE 0x200000ull
#define VIRTUAL(n) (0x40000000ull + (n) * 0x1000000ull)

static uint64_t physical(const void *page)
{
    uint64_t entry = 0;
    int file = open("/proc/self/pagemap", O_RDONLY);
    need(file >= 0, "pagemap");
    need(pread(file, &entry, 8, (off_t)((uintptr_t)page / PAGE * 8)) == 8, "pagemap");
    close(file);
    need(entry >> 63, "the page is not there");
    return (entry & ((1ull << 55) - 1)) * PAGE;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return fprintf(stderr, "usage: reach PCI-ADDRESS VFIO-DEVICE\n"), 2;
    open_device(argv);
    uint8_t *page = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    need(page != MAP_FAILED, "a huge page");
    uint32_t ioas = new_ioas();
    attach(ioas);
    open_registers();
    say("page %#llx", (unsigned long long)physical(page));
    for (unsigned n = 1; n <= 3; n++) {
        char go[32];
        snprintf(go, sizeof(go), "/tmp/reach.%u", n);
        while (access(go, F_OK))
            usleep(50000);
        map(ioas, VIRTUAL(n), page, SIZE);
        memset(page, (int)n, 4);
        memset(page + 4, 0xee, 4);
        uint64_t before = edu_read(EDU_REFUSED);
        /* Of a size that is one request. */
        need(edu_move(VIRTUAL(n), EDU_BUFFER, 4, 0) == 0 &&
             edu_move(EDU_BUFFER, VIRTUAL(n) + 4, 4, EDU_TO_RAM) == 0, "the device did not end");
        int copied = memcmp(page, page + 4, 4) == 0;
        say("try %u %s", n, edu_read(EDU_REFUSED) != before ? "refused" : copied ? "ok" : "wrong");
        unmap(ioas, VIRTUAL(n), SIZE);
    }
    return 0;
}
