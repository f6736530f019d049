/*
 * Reads 4 KiB at random places of a disk, past the page cache, one after the other.
 *
 *   random DEVICE READS SEED    says how many nanoseconds that took
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 0x1000 };

static void need(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "random: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

int main(int argc, char **argv)
{
    void *page;

    if (argc != 4)
        return fprintf(stderr, "usage: random DEVICE READS SEED\n"), 2;
    need(posix_memalign(&page, PAGE, PAGE) == 0, "memory");
    int disk = open(argv[1], O_RDONLY | O_DIRECT);
    need(disk >= 0, argv[1]);
    off_t size = lseek(disk, 0, SEEK_END);
    need(size >= PAGE, "size");
    uint64_t reads = strtoull(argv[2], NULL, 0), state = strtoull(argv[3], NULL, 0) | 1ull << 63;
    uint64_t start = now();
    for (uint64_t i = 0; i < reads; i++) {
        /* xorshift64* */
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        off_t at = (off_t)(state * 0x2545f4914f6cdd1d % (uint64_t)(size / PAGE)) * PAGE;
        need(pread(disk, page, PAGE, at) == PAGE, "read");
    }
    printf("%llu\n", (unsigned long long)(now() - start));
    return 0;
}
