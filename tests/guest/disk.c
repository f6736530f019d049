/*
 * Reads and writes a disk past the page cache, in pieces of 4 to 256 KiB at random offsets.
 *
 *   disk read  DEVICE FIRST BYTES SEED    all of these bytes go to stdout, in their order
 *   disk write DEVICE FIRST BYTES SEED    writes a pattern made of SEED
 *   disk pattern BYTES SEED               the pattern goes to stdout
 *
 * FIRST and BYTES are multiples of 4096. The order of the pieces follows from SEED.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 0x1000, LARGEST = 0x40000 };

static uint64_t state;

/* xorshift64* */
static uint64_t next(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1d;
}

static void seed(const char *text)
{
    state = strtoull(text, NULL, 0) | 1ull << 63;
}

static void need(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "disk: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void pattern(uint8_t *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t value = next();
        memcpy(to + i, &value, 8);
    }
}

static void out(const uint8_t *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t now = write(1, from + done, bytes - done);
        need(now > 0, "stdout");
        done += (size_t)now;
    }
}

int main(int argc, char **argv)
{
    int writes = argc == 6 && strcmp(argv[1], "write") == 0;
    int reads = argc == 6 && strcmp(argv[1], "read") == 0;
    size_t bytes = strtoull(argv[argc == 4 ? 2 : argc == 6 ? 4 : 0], NULL, 0) & ~(size_t)(PAGE - 1);
    uint8_t *data;

    if (!writes && !reads && !(argc == 4 && strcmp(argv[1], "pattern") == 0))
        return fprintf(stderr, "usage: disk read|write DEVICE FIRST BYTES SEED, disk pattern BYTES SEED\n"), 2;
    need(posix_memalign((void **)&data, LARGEST, bytes + PAGE) == 0, "memory");
    memset(data, 0xee, bytes);
    seed(argv[argc - 1]);
    if (!reads)
        pattern(data, bytes);
    if (!reads && !writes)
        return out(data, bytes), 0;

    int disk = open(argv[2], (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
    off_t first = (off_t)strtoull(argv[3], NULL, 0);
    size_t pages = bytes / PAGE, count = 0;
    size_t *starts = calloc(pages + 1, sizeof(*starts)), *order = calloc(pages + 1, sizeof(*order));
    need(disk >= 0, argv[2]);
    need(starts && order, "memory");
    /* Cut into pieces, and shuffled. */
    for (size_t page = 0; page < pages; count++) {
        size_t size = 1u << next() % 7;
        starts[count] = page;
        order[count] = count;
        page += size < pages - page ? size : pages - page;
    }
    starts[count] = pages;
    for (size_t i = count; i-- > 1;) {
        size_t other = next() % (i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (size_t i = 0; i < count; i++) {
        size_t from = starts[order[i]] * PAGE, size = starts[order[i] + 1] * PAGE - from;
        ssize_t done = writes ? pwrite(disk, data + from, size, first + (off_t)from)
                              : pread(disk, data + from, size, first + (off_t)from);
        need(done == (ssize_t)size, writes ? "write" : "read");
    }
    if (reads)
        out(data, bytes);
    else
        need(fsync(disk) == 0, "fsync");
    return 0;
}
