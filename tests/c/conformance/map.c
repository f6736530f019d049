/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * IOAS_MAP, IOAS_MAP_FILE, IOAS_UNMAP and IOAS_COPY.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "conformance.h"

#define FIXED (MAP_FIXED_IOVA | MAP_RW)

static int map_at(uint32_t ioas, uint64_t iova, uint64_t length)
{
    return map(ioas, FIXED, now.ram, length, iova);
}

static void map_flags(void)
{
    uint32_t ioas = new_ioas();
    for (unsigned bit = 3; bit < 32; bit++)
        expect(map(ioas, FIXED | 1u << bit, now.ram, PAGE, PAGE), EOPNOTSUPP, "flags %#x", 1u << bit);
    struct ioas_map m = { .size = sizeof(m), .ioas_id = 0, .reserved = 1 };
    expect(call(IOMMU_IOAS_MAP, &m), EOPNOTSUPP, "__reserved and no IOAS");
}

static void map_limits(void)
{
    uint32_t ioas = unused_id();
    expect(map(ioas, MAP_RW, now.ram, UINT64_MAX, 0), EOVERFLOW, "length 2^64 - 1 and no IOAS");
    expect(map(ioas, FIXED, now.ram, PAGE, UINT64_MAX), EOVERFLOW, "iova 2^64 - 1 and no IOAS");
}

static void map_permissions(void)
{
    uint32_t ioas = unused_id();
    expect(map(ioas, MAP_FIXED_IOVA, now.ram, PAGE, PAGE), EINVAL, "no permission and no IOAS");
    expect(map(ioas, MAP_FIXED_IOVA, now.ram, UINT64_MAX, PAGE), EOVERFLOW,
           "no permission and length 2^64 - 1");
}

static void map_nowhere(void)
{
    expect(map_at(unused_id(), PAGE, PAGE), ENOENT, "no object");
    uint32_t ioas = unused_id();
    expect(map(ioas, FIXED, now.ram, 0, PAGE), ENOENT, "no object and length 0");
}

static void map_user_overflow(void)
{
    uint32_t ioas = new_ioas();
    expect(map(ioas, FIXED, (void *)-PAGE, 2 * PAGE, PAGE), EOVERFLOW, "user_va around the end");
}

static void map_length(void)
{
    uint32_t ioas = new_ioas();
    expect(map_at(ioas, PAGE, 0), EINVAL, "length 0");
    new_paging(ioas, 0);
    expect(map_at(ioas, PAGE, 0x800), EINVAL, "half a page");
    expect(map_at(ioas, PAGE + 0x800, PAGE), EINVAL, "an odd iova");
    expect(map(ioas, FIXED, now.ram + 0x800, PAGE, PAGE), EINVAL, "an odd user_va");
}

static void map_fixed(void)
{
    uint32_t ioas = new_ioas();
    expect(map_at(ioas, -PAGE, 2 * PAGE), EOVERFLOW, "iova around the end");
    expect(map_at(ioas, 4 * PAGE, 4 * PAGE), 0, "4 pages");
    expect(map_at(ioas, 4 * PAGE, 4 * PAGE), EEXIST, "the same again");
    expect(map_at(ioas, 7 * PAGE, 2 * PAGE), EEXIST, "its last page and one more");
    expect(map_at(ioas, 0, 64 * PAGE), EEXIST, "more than all of it");
    expect(map_at(ioas, 8 * PAGE, PAGE), 0, "the page behind it");
    expect(map_at(ioas, 0, PAGE), 0, "iova 0");
}

static void map_reserved(void)
{
    uint32_t ioas = new_ioas();
    expect(map_at(ioas, MSI_WINDOW, PAGE), 0, "the MSI window, without a device");
    expect(unmap(ioas, 0, UINT64_MAX, NULL), 0, "IOAS_UNMAP");
    expect(attach(ioas), 0, "attach");
    expect(map_at(ioas, MSI_WINDOW, PAGE), EINVAL, "the MSI window, with a device");
    expect(map_at(ioas, MSI_WINDOW - PAGE, 2 * PAGE), EINVAL, "what touches it");
    expect(map_at(ioas, MSI_WINDOW - PAGE, PAGE), 0, "the page before it");
    expect(map_at(ioas, MSI_WINDOW + 0x100000, PAGE), 0, "the page behind it");
    expect(map_at(ioas, 1ull << 58, PAGE), EINVAL, "what is beyond the table");
    expect(detach(), 0, "detach");
    expect(map_at(ioas, MSI_WINDOW, PAGE), 0, "the MSI window, after the detach");
}

static void map_anywhere(void)
{
    uint32_t ioas = new_ioas();
    uint64_t had[3];
    for (unsigned i = 0; i < 3; i++) {
        struct ioas_map m = { .size = sizeof(m), .flags = MAP_RW, .ioas_id = ioas,
                              .user_va = (uintptr_t)now.ram, .length = 3 * PAGE };
        expect(call(IOMMU_IOAS_MAP, &m), 0, "IOAS_MAP of 3 pages");
        had[i] = m.iova;
        if (m.iova == 0)
            wrong("iova is 0");
        expect_number(m.iova % PAGE, 0, "iova in its page");
        for (unsigned k = 0; k < i; k++)
            if (had[k] < m.iova + 3 * PAGE && m.iova < had[k] + 3 * PAGE)
                wrong("%#llx and %#llx overlap", (unsigned long long)had[k],
                      (unsigned long long)m.iova);
    }
    /* The address in its page is the memory's. */
    struct ioas_map m = { .size = sizeof(m), .flags = MAP_RW, .ioas_id = ioas,
                          .user_va = (uintptr_t)now.ram + 0x10, .length = 0x20 };
    expect(call(IOMMU_IOAS_MAP, &m), 0, "IOAS_MAP of 0x20 bytes");
    expect_number(m.iova % PAGE, 0x10, "iova in its page");
}

static void map_anywhere_huge(void)
{
    uint32_t ioas = new_ioas();
    expect(map(ioas, MAP_RW, NULL, (1ull << 63) + PAGE, 0), EOVERFLOW, "length 2^63 + 4096");
    /* One range is allowed, and it is full. */
    struct iova_range range = { .start = 0x10000, .last = 0x13fff };
    struct ioas_allow_iovas a = { .size = sizeof(a), .ioas_id = ioas, .num_iovas = 1,
                                  .allowed_iovas = (uintptr_t)&range };
    expect(call(IOMMU_IOAS_ALLOW_IOVAS, &a), 0, "IOAS_ALLOW_IOVAS");
    struct ioas_map m = { .size = sizeof(m), .flags = MAP_RW, .ioas_id = ioas,
                          .user_va = (uintptr_t)now.ram, .length = 4 * PAGE };
    expect(call(IOMMU_IOAS_MAP, &m), 0, "IOAS_MAP of all that is allowed");
    expect_number(m.iova, range.start, "iova");
    m.length = PAGE;
    expect(call(IOMMU_IOAS_MAP, &m), ENOSPC, "IOAS_MAP of more");
    /* A fixed address need not be allowed. */
    expect(map_at(ioas, 0x20000, PAGE), 0, "a fixed address outside of what is allowed");
}

static void map_bad_memory(void)
{
    uint32_t ioas = new_ioas();
    expect(map(ioas, FIXED, nowhere(), PAGE, 0x100000), 0, "no memory, without an HWPT");
    expect(unmap(ioas, 0, UINT64_MAX, NULL), 0, "IOAS_UNMAP");
    uint32_t hwpt = new_paging(ioas, 0);
    expect(map(ioas, FIXED, nowhere(), PAGE, 0x100000), EFAULT, "no memory, with an HWPT");
    expect(map(ioas, FIXED, (uint8_t *)edge_of_memory() - PAGE, 2 * PAGE, 0x200000), EFAULT,
           "the edge of memory");
    expect(map(ioas, FIXED, read_only_pages(1), PAGE, 0x300000), EFAULT,
           "to be written what cannot be written");
    expect(map(ioas, MAP_FIXED_IOVA | MAP_READABLE, read_only_pages(1), PAGE, 0x300000), 0,
           "to be read what can be read");
    /* What failed has left nothing. */
    expect(map_at(ioas, 0x100000, PAGE), 0, "the same address");
    expect(map_at(ioas, 0x200000, PAGE), 0, "the same address");
    expect(destroy(hwpt), 0, "DESTROY of the HWPT");
    expect(map(ioas, FIXED, nowhere(), PAGE, 0x400000), 0, "no memory, without an HWPT again");
}

static uint32_t full_ioas;

static int map_a_mebibyte(void)
{
    return map_at(full_ioas, 0x100000, 0x100000);
}

static void map_locked(void)
{
    /* The limit is 64 KiB, see struct host. */
    full_ioas = new_ioas();
    uint32_t hwpt = new_paging(full_ioas, 0);
    expect(now.host->unprivileged(map_a_mebibyte), ENOMEM, "1 MiB");
    expect(map_at(full_ioas, 0x100000, 0x100000), 0, "1 MiB, by root");
    expect(destroy(hwpt), 0, "DESTROY of the HWPT");
}

static void map_read_only(void)
{
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    expect(map(ioas, MAP_FIXED_IOVA | MAP_READABLE, now.ram, PAGE, PAGE), EINVAL,
           "read-only under a parent");
    expect(map(ioas, MAP_FIXED_IOVA | MAP_WRITEABLE, now.ram, PAGE, PAGE), 0,
           "write-only under a parent");
    expect(map_at(ioas, 2 * PAGE, PAGE), 0, "both under a parent");
    expect(destroy(parent), 0, "DESTROY of the parent");
    expect(map(ioas, MAP_FIXED_IOVA | MAP_READABLE, now.ram, PAGE, 3 * PAGE), 0,
           "read-only without the parent");
}

static void map_reaches(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), hwpt = new_paging(ioas, 0);
    expect(attach(hwpt), 0, "attach");
    if (copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("a page arrives before the map");
    map_ram(ioas);
    if (!copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("a page does not arrive after the map");
    expect(unmap(ioas, RAM_BASE, RAM_SIZE, NULL), 0, "IOAS_UNMAP");
    if (copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("a page arrives after the unmap");
    expect(map(ioas, MAP_FIXED_IOVA | MAP_READABLE, now.ram, RAM_SIZE, RAM_BASE), 0,
           "a read-only map");
    if (copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        wrong("a page arrives in a read-only map");
}

static void unmap_under_nested(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    make_tables();
    expect(attach(new_nested(parent, 0)), 0, "attach");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        give_up("a page did not arrive");
    expect(unmap(ioas, RAM_BASE, RAM_SIZE, NULL), 0, "IOAS_UNMAP");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("a page arrives after the unmap of the parent's IOAS");
}

static void unmap_all(void)
{
    uint32_t ioas = new_ioas();
    uint64_t length = 1;
    expect(unmap(ioas, 0, UINT64_MAX, &length), 0, "all of nothing");
    expect_number(length, 0, "length");
    expect(map_at(ioas, PAGE, 3 * PAGE), 0, "IOAS_MAP");
    expect(map_at(ioas, 1ull << 40, PAGE), 0, "IOAS_MAP");
    expect(unmap(ioas, 0, UINT64_MAX, &length), 0, "all");
    expect_number(length, 4 * PAGE, "length");
}

static void unmap_limits(void)
{
    uint32_t ioas = new_ioas();
    expect(unmap(unused_id(), 0, PAGE, NULL), ENOENT, "no object");
    expect(unmap(ioas, UINT64_MAX, PAGE, NULL), EOVERFLOW, "iova 2^64 - 1");
    expect(unmap(ioas, PAGE, UINT64_MAX, NULL), EOVERFLOW, "length 2^64 - 1 from an address on");
    expect(unmap(ioas, PAGE, 0, NULL), EINVAL, "length 0");
    expect(unmap(ioas, -PAGE, 2 * PAGE, NULL), EOVERFLOW, "a range around the end");
    expect(unmap(ioas, PAGE, PAGE, NULL), ENOENT, "nothing");
}

static void unmap_parts(void)
{
    uint32_t ioas = new_ioas();
    uint64_t length;
    expect(map_at(ioas, 0x10000, 2 * PAGE), 0, "IOAS_MAP");
    expect(map_at(ioas, 0x20000, 4 * PAGE), 0, "IOAS_MAP");
    expect(unmap(ioas, 0x20000, PAGE, NULL), ENOENT, "the first of 4 pages");
    expect(unmap(ioas, 0x21000, 3 * PAGE, NULL), ENOENT, "the last 3 of 4 pages");
    expect(unmap(ioas, 0x10000, 0x11000, &length), ENOENT, "2 pages and the first of 4");
    expect_number(length, 0x11000, "length");
    expect(map_at(ioas, 0x10000, 2 * PAGE), 0, "IOAS_MAP where the 2 pages were");
    expect(unmap(ioas, 0x10000, 0x20000, &length), 0, "both");
    expect_number(length, 6 * PAGE, "length");
}

static void copy(void)
{
    uint32_t from = new_ioas(), to = new_ioas(), none = unused_id();
    expect(map_at(from, 0x10000, 8 * PAGE), 0, "IOAS_MAP");
    const struct ioas_copy good = { .size = sizeof(good), .flags = FIXED, .dst_ioas_id = to,
                                    .src_ioas_id = from, .length = 4 * PAGE, .dst_iova = 0x40000,
                                    .src_iova = 0x12000 };
    struct ioas_copy c = good;
    for (unsigned bit = 3; bit < 32; bit++) {
        c.flags = FIXED | 1u << bit;
        expect(call(IOMMU_IOAS_COPY, &c), EOPNOTSUPP, "flags %#x", c.flags);
    }
    c = good, c.length = UINT64_MAX;
    expect(call(IOMMU_IOAS_COPY, &c), EOVERFLOW, "length 2^64 - 1");
    c = good, c.dst_iova = UINT64_MAX;
    expect(call(IOMMU_IOAS_COPY, &c), EOVERFLOW, "dst_iova 2^64 - 1");
    c = good, c.src_iova = UINT64_MAX;
    expect(call(IOMMU_IOAS_COPY, &c), EOVERFLOW, "src_iova 2^64 - 1");
    c = good, c.flags = MAP_FIXED_IOVA;
    expect(call(IOMMU_IOAS_COPY, &c), EINVAL, "no permission");
    c = good, c.src_ioas_id = none;
    expect(call(IOMMU_IOAS_COPY, &c), ENOENT, "no source");
    c = good, c.dst_ioas_id = none;
    expect(call(IOMMU_IOAS_COPY, &c), ENOENT, "no target");
    c = good, c.src_iova = 0x17000;
    expect(call(IOMMU_IOAS_COPY, &c), ENOENT, "a source that is not mapped throughout");
    c = good, c.length = 0;
    expect(call(IOMMU_IOAS_COPY, &c), EINVAL, "length 0");
    expect(map(from, MAP_FIXED_IOVA | MAP_READABLE, now.ram, PAGE, 0x30000), 0, "IOAS_MAP, read-only");
    c = good, c.src_iova = 0x30000, c.length = PAGE;
    expect(call(IOMMU_IOAS_COPY, &c), EPERM, "to be written what was mapped read-only");
    c = good;
    expect(call(IOMMU_IOAS_COPY, &c), 0, "a part of a map");
    expect(call(IOMMU_IOAS_COPY, &c), EEXIST, "the same again");
    uint64_t length;
    expect(unmap(to, 0x40000, 4 * PAGE, &length), 0, "IOAS_UNMAP");
    expect_number(length, 4 * PAGE, "length");
}

static void map_file(void)
{
    need_7_3("IOAS_MAP_FILE");
    uint32_t ioas = new_ioas();
    int file = memfd_create("conformance", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file < 0 || ftruncate(file, 4 * PAGE))
        skip("no memfd: %s", strerror(errno));
    const struct ioas_map_file good = { .size = sizeof(good), .flags = FIXED, .ioas_id = ioas,
                                        .fd = file, .length = 4 * PAGE, .iova = 0x10000 };
    struct ioas_map_file m = good;
    m.flags |= 8;
    expect(call(IOMMU_IOAS_MAP_FILE, &m), EOPNOTSUPP, "flags");
    m = good, m.iova = UINT64_MAX;
    expect(call(IOMMU_IOAS_MAP_FILE, &m), EOVERFLOW, "iova 2^64 - 1");
    m = good, m.flags = MAP_FIXED_IOVA;
    expect(call(IOMMU_IOAS_MAP_FILE, &m), EINVAL, "no permission");
    m = good, m.ioas_id = unused_id();
    expect(call(IOMMU_IOAS_MAP_FILE, &m), ENOENT, "no object");
    m = good, m.length = 0;
    expect(call(IOMMU_IOAS_MAP_FILE, &m), EINVAL, "length 0");
    m = good, m.start = UINT64_MAX - PAGE + 1;
    expect(call(IOMMU_IOAS_MAP_FILE, &m), EOVERFLOW, "a range around the end");
    m = good, m.fd = -1;
    expect(call(IOMMU_IOAS_MAP_FILE, &m), EBADF, "no file");
    m = good;
    expect(call(IOMMU_IOAS_MAP_FILE, &m), 0, "a memfd");
    expect(call(IOMMU_IOAS_MAP_FILE, &m), EEXIST, "the same again");
    close(file);
    expect(unmap(ioas, 0x10000, 4 * PAGE, NULL), 0, "IOAS_UNMAP");
}

static void change_process(void)
{
    need_7_3("IOAS_CHANGE_PROCESS");
    struct ioas_change_process c = { .size = sizeof(c), .reserved = 1 };
    expect(call(IOMMU_IOAS_CHANGE_PROCESS, &c), EOPNOTSUPP, "__reserved");
    c.reserved = 0;
    expect(call(IOMMU_IOAS_CHANGE_PROCESS, &c), 0, "without maps");
    uint32_t ioas = new_ioas();
    expect(map_at(ioas, PAGE, PAGE), 0, "IOAS_MAP");
    expect(call(IOMMU_IOAS_CHANGE_PROCESS, &c), EINVAL, "with a map of memory");
}

const struct rule rules_map[] = {
    { "IOAS-MAP-flags", "flags but FIXED_IOVA, WRITEABLE and READABLE, and __reserved, are EOPNOTSUPP",
      map_flags },
    { "IOAS-MAP-limits", "iova or length of 2^64 - 1 is EOVERFLOW", map_limits },
    { "IOAS-MAP-permissions", "neither to be read nor written is EINVAL", map_permissions },
    { "IOAS-MAP-ioas", "an ID that is no IOAS is ENOENT", map_nowhere },
    { "IOAS-MAP-user", "user_va around the end of the address space is EOVERFLOW", map_user_overflow },
    { "IOAS-MAP-length", "nothing, and what is not aligned once there is an HWPT, is EINVAL", map_length },
    { "IOAS-MAP-fixed", "a fixed range around the end is EOVERFLOW, one that overlaps a map EEXIST",
      map_fixed },
    { "IOAS-MAP-reserved", "with a device, the MSI window and what the table cannot reach are EINVAL",
      map_reserved },
    { "IOAS-MAP-any", "without FIXED_IOVA an address is found, never 0", map_anywhere },
    { "IOAS-MAP-space", "if there is none it is ENOSPC; from 2^63 on the length is EOVERFLOW",
      map_anywhere_huge },
    { "IOAS-MAP-memory", "memory that is not there, or not to be written, is EFAULT with an HWPT, and"
      " nothing without", map_bad_memory },
    { "IOAS-MAP-locked", "with an HWPT, more than RLIMIT_MEMLOCK is ENOMEM", map_locked },
    { "IOAS-MAP-read-only", "a read-only map under a nesting parent is EINVAL", map_read_only },
    { "IOAS-MAP-dma", "a device reaches what is mapped, as it is mapped, and nothing else", map_reaches },
    { "IOAS-UNMAP-nested", "what is unmapped under a nesting parent is gone for its nested HWPTs",
      unmap_under_nested },
    { "IOAS-UNMAP-all", "0 with 2^64 - 1 is everything, which may be nothing", unmap_all },
    { "IOAS-UNMAP-limits", "2^64 - 1 and a range around the end are EOVERFLOW, no length EINVAL, nothing"
      " ENOENT", unmap_limits },
    { "IOAS-UNMAP-parts", "a part of a map is ENOENT; maps before it are gone, and length is not written",
      unmap_parts },
    { "IOAS-COPY", "IOAS_COPY: what it refuses, and that a part of a map is copied", copy },
    { "IOAS-MAP-FILE", "IOAS_MAP_FILE: what it refuses, and that a memfd is mapped", map_file },
    { "CHANGE-PROCESS", "IOAS_CHANGE_PROCESS refuses maps of memory with EINVAL", change_process },
    { NULL, NULL, NULL },
};
