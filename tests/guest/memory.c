/*
 * Reads a disk past the page cache into memory all over the place, again and again, and compares what came.
 *
 *   memory DISK BYTES MEBIBYTES
 *
 * It says how many pages it read into, and how many of these are above 4 GiB, where memory is that was plugged in:
 *
 *   pages N high N wrong N
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 0x1000 };

static void need(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "memory: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static uint8_t *get(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    return memory;
}

static int is_high(int pagemap, const uint8_t *page)
{
    uint64_t entry = 0;
    need(pread(pagemap, &entry, 8, (off_t)((uintptr_t)page / PAGE * 8)) == 8 && entry >> 63, "pagemap");
    return (entry & ((1ull << 55) - 1)) >= (1ull << 32) / PAGE;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fprintf(stderr, "usage: memory DISK BYTES MEBIBYTES\n"), 2;
    int disk = open(argv[1], O_RDONLY | O_DIRECT | O_CLOEXEC);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    need(disk >= 0 && pagemap >= 0, "open");
    size_t bytes = strtoul(argv[2], NULL, 0), copies = (strtoul(argv[3], NULL, 0) << 20) / bytes;
    uint8_t *model = get(bytes), *memory = get(bytes * copies);
    unsigned long high = 0, wrong = 0;

    need(pread(disk, model, bytes, 0) == (ssize_t)bytes, "read");
    for (size_t copy = 0; copy < copies; copy++) {
        uint8_t *to = memory + copy * bytes;
        /* In pieces of several sizes, so that mappings of several sizes come and go. */
        size_t piece = (size_t)PAGE << copy % 8;
        for (size_t at = 0; at < bytes; at += piece) {
            size_t size = bytes - at < piece ? bytes - at : piece;
            need(pread(disk, to + at, size, (off_t)at) == (ssize_t)size, "read");
        }
        for (size_t at = 0; at < bytes; at += PAGE) {
            high += (unsigned)is_high(pagemap, to + at);
            wrong += memcmp(to + at, model + at, PAGE) != 0;
        }
    }
    printf("pages %zu high %lu wrong %lu\n", bytes * copies / PAGE, high, wrong);
    return 0;
}
