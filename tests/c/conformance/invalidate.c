/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * HWPT_INVALIDATE.
 */
#include "conformance.h"

static const struct hwpt_vtd_s1_invalidate ONE_PAGE = { .addr = VIRTUAL, .npages = 1 };

/* A nested HWPT that no device has. */
static uint32_t some_nested(void)
{
    return new_nested(new_parent(new_ioas()), 0);
}

static struct hwpt_invalidate of(uint32_t hwpt, const struct hwpt_vtd_s1_invalidate *entries)
{
    return (struct hwpt_invalidate){ .size = sizeof(struct hwpt_invalidate), .hwpt_id = hwpt,
                                     .data_uptr = (uintptr_t)entries,
                                     .data_type = INVALIDATE_DATA_VTD_S1,
                                     .entry_len = sizeof(*entries), .entry_num = 1 };
}

/* The call fails with `wanted` and says that none was handled. */
static void refused(struct hwpt_invalidate i, int wanted, const char *what)
{
    expect(call(IOMMU_HWPT_INVALIDATE, &i), wanted, "%s", what);
    expect_number(i.entry_num, 0, "entry_num with %s", what);
}

static void reserved(void)
{
    struct hwpt_invalidate i = of(some_nested(), &ONE_PAGE);
    i.reserved = 1;
    refused(i, EOPNOTSUPP, "__reserved");
    i.hwpt_id = 0;
    i.entry_len = 0;
    refused(i, EOPNOTSUPP, "__reserved, no length and no HWPT");
}

static void bounds(void)
{
    uint32_t hwpt = some_nested();
    struct hwpt_invalidate i = of(hwpt, NULL);
    refused(i, EINVAL, "no data_uptr");
    i = of(hwpt, &ONE_PAGE);
    i.entry_len = 0;
    refused(i, EINVAL, "no entry_len");
    i.hwpt_id = 0;
    refused(i, EINVAL, "no entry_len and no HWPT");
    if (!as_7_3())
        return;
    i = of(unused_id(), pages(3));
    i.entry_len = PAGE + 1;
    refused(i, EINVAL, "an entry_len of more than a page and no HWPT");
    i.entry_len = PAGE;
    refused(i, ENOENT, "an entry_len of a page and no HWPT");
    i.entry_len = sizeof(ONE_PAGE);
    i.entry_num = (1u << 19) + 1;
    refused(i, EINVAL, "more than 2^19 entries and no HWPT");
    i.entry_num = 1u << 19;
    refused(i, ENOENT, "2^19 entries and no HWPT");
}

static void no_hwpt(void)
{
    need_nesting();
    refused(of(unused_id(), &ONE_PAGE), ENOENT, "no object");
    refused(of(0, &ONE_PAGE), ENOENT, "0");
}

static void no_nested_hwpt(void)
{
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    int wanted = as_7_3() ? EINVAL : ENOENT;
    refused(of(parent, &ONE_PAGE), wanted, "a nesting parent");
    refused(of(new_paging(ioas, 0), &ONE_PAGE), wanted, "a paging HWPT");
    refused(of(ioas, &ONE_PAGE), wanted, "an IOAS");
    refused(of(now.dev_id, &ONE_PAGE), wanted, "a device");
}

static void driver_without(void)
{
    skip("only a driver of another IOMMU than Intel's has nested HWPTs without the call");
}

static void type(void)
{
    uint32_t hwpt = some_nested();
    struct hwpt_invalidate i = of(hwpt, &ONE_PAGE);
    i.data_type = 1;
    refused(i, EINVAL, "type 1");
    i.entry_num = 0;
    refused(i, EINVAL, "type 1 without entries");
    i.data_type = UINT32_MAX;
    refused(i, EINVAL, "type 2^32 - 1 without entries");
    i.data_type = INVALIDATE_DATA_VTD_S1;
    i.data_uptr = 0;
    i.entry_len = 0;
    expect(call(IOMMU_HWPT_INVALIDATE, &i), 0, "type VTD_S1 without entries");
    expect_number(i.entry_num, 0, "entry_num without entries");
}

static void length(void)
{
    uint32_t hwpt = some_nested();
    struct hwpt_vtd_s1_invalidate *entries = pages(1);
    entries[0] = ONE_PAGE;
    const uint32_t lengths[] = { 1, 16, 20, 23, 25, 32, 48 };
    for (unsigned n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++) {
        struct hwpt_invalidate i = of(hwpt, entries);
        i.entry_len = lengths[n];
        i.entry_num = 2;
        refused(i, EINVAL, "an entry_len other than 24");
    }
}

static void memory(void)
{
    uint32_t hwpt = some_nested(), handled;
    expect(invalidate(hwpt, nowhere(), 1, &handled), EFAULT, "an entry in no memory");
    expect_number(handled, 0, "entry_num");
    struct hwpt_vtd_s1_invalidate *entries = (struct hwpt_vtd_s1_invalidate *)edge_of_memory() - 3;
    for (unsigned i = 0; i < 3; i++)
        entries[i] = ONE_PAGE;
    expect(invalidate(hwpt, entries, 3, &handled), 0, "entries up to the edge of memory");
    expect_number(handled, 3, "entry_num");
    expect(invalidate(hwpt, entries, 5, &handled), EFAULT, "entries beyond the edge of memory");
    expect_number(handled, 3, "entry_num");
}

/* The third of four entries is `bad`. */
static void bad_entry(struct hwpt_vtd_s1_invalidate bad, int wanted, const char *what)
{
    struct hwpt_vtd_s1_invalidate entries[4] = { ONE_PAGE, ONE_PAGE, bad, ONE_PAGE };
    uint32_t handled, hwpt = some_nested();
    expect(invalidate(hwpt, entries, 4, &handled), wanted, "%s", what);
    expect_number(handled, 2, "entry_num with %s", what);
}

static void entry_flags(void)
{
    for (unsigned bit = 1; bit < 32; bit++)
        bad_entry((struct hwpt_vtd_s1_invalidate){ VIRTUAL, 1, 1u << bit, 0 }, EOPNOTSUPP, "flags");
    bad_entry((struct hwpt_vtd_s1_invalidate){ VIRTUAL, 1, 0, 1 }, EOPNOTSUPP, "__reserved");
    bad_entry((struct hwpt_vtd_s1_invalidate){ VIRTUAL + 1, 1, 2, 0 }, EOPNOTSUPP,
              "flags and an odd address");
    uint32_t handled;
    struct hwpt_vtd_s1_invalidate leaf = { VIRTUAL, 1, INVALIDATE_LEAF, 0 };
    expect(invalidate(some_nested(), &leaf, 1, &handled), 0, "LEAF");
}

static void entry_address(void)
{
    bad_entry((struct hwpt_vtd_s1_invalidate){ VIRTUAL + 1, 1, 0, 0 }, EINVAL, "an odd address");
    bad_entry((struct hwpt_vtd_s1_invalidate){ VIRTUAL + 0x800, 1, 0, 0 }, EINVAL, "half a page");
    bad_entry((struct hwpt_vtd_s1_invalidate){ VIRTUAL, UINT64_MAX, 0, 0 }, EINVAL,
              "all pages from an address on");
}

static void odd_ranges(void)
{
    const struct hwpt_vtd_s1_invalidate odd[] = {
        { 0, UINT64_MAX, 0, 0 }, { 0, 0, 0, 0 },         { 0x1000, 0, 0, 0 },
        { 0, 1ull << 52, 0, 0 }, { VIRTUAL, 3, 0, 0 },   { 0x7ffffffff000, 1ull << 36, 0, 0 },
        { 0xfffffffffffff000, 1, 0, 0 },                 { 0xfffffffffffff000, 2, 0, 0 },
    };
    uint32_t handled, hwpt = some_nested(), n = sizeof(odd) / sizeof(odd[0]);
    expect(invalidate(hwpt, odd, n, &handled), 0, "ranges that are odd");
    expect_number(handled, n, "entry_num");
}

/* A device on a nested HWPT that has cached the page at VIRTUAL, which then becomes another page. */
static uint32_t stale(uint64_t **entry)
{
    need_dma();
    uint32_t ioas = new_ioas(), parent = new_parent(ioas);
    map_ram(ioas);
    *entry = make_tables();
    uint32_t hwpt = new_nested(parent, 0);
    expect(attach(hwpt), 0, "attach");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        give_up("a page did not arrive");
    (*entry)[0] = (RAM_BASE + OTHER) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    return hwpt;
}

/* Is the page forgotten after these entries, of which `wanted` go through? */
static void forgets(const struct hwpt_vtd_s1_invalidate *entries, uint32_t number, uint32_t wanted)
{
    uint64_t *entry;
    uint32_t handled, hwpt = stale(&entry);
    expect(invalidate(hwpt, entries, number, &handled), wanted == number ? 0 : EINVAL, "INVALIDATE");
    expect_number(handled, wanted, "entry_num");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the old page is still used");
}

static void page(void)
{
    forgets(&ONE_PAGE, 1, 1);
}

static void all(void)
{
    const struct hwpt_vtd_s1_invalidate entry = { .npages = UINT64_MAX };
    forgets(&entry, 1, 1);
}

static void before_the_bad_one(void)
{
    const struct hwpt_vtd_s1_invalidate entries[] = { ONE_PAGE, { .addr = 1, .npages = 1 } };
    forgets(entries, 2, 1);
}

static void range(void)
{
    /* Two pages; the second is the one that is written. */
    const struct hwpt_vtd_s1_invalidate both = { .addr = VIRTUAL, .npages = 2 };
    const struct hwpt_vtd_s1_invalidate many = { .addr = VIRTUAL, .npages = 0x200 };
    uint64_t *entry;
    uint32_t handled, hwpt = stale(&entry);
    entry[0] = (RAM_BASE + SOURCE) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    entry[1] = (RAM_BASE + OTHER) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    expect(invalidate(hwpt, &both, 1, &handled), 0, "INVALIDATE of both pages");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the second page is still the old one");
    entry[1] = (RAM_BASE + TARGET) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    expect(invalidate(hwpt, &many, 1, &handled), 0, "INVALIDATE of many pages");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the second page is still the other one");
}

static void hull(void)
{
    /* Two pages that do not begin at a multiple of two: the four around them. */
    const struct hwpt_vtd_s1_invalidate entry = { .addr = VIRTUAL + PAGE, .npages = 2 };
    forgets(&entry, 1, 1);
}

static void no_pages(void)
{
    if (!as_7_3())
        skip("6.12 computes with a shift by 64 bits");
    /* From an address on to the one before it. */
    const struct hwpt_vtd_s1_invalidate entry = { .addr = VIRTUAL + PAGE, .npages = 0 };
    forgets(&entry, 1, 1);
}

static void keeps_other_pages(void)
{
    if (now.host->real_files)
        skip("hardware may forget more than it is told to");
    uint64_t *entry;
    const struct hwpt_vtd_s1_invalidate other = { .addr = VIRTUAL + 0x100 * PAGE, .npages = 1 };
    uint32_t handled, hwpt = stale(&entry);
    expect(invalidate(hwpt, &other, 1, &handled), 0, "INVALIDATE of another page");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the page was forgotten");
}

static void not_attached(void)
{
    uint64_t *entry;
    uint32_t hwpt = stale(&entry);
    expect(detach(), 0, "detach");
    expect(invalidate_all(hwpt), 0, "INVALIDATE of an HWPT without devices");
    expect(attach(hwpt), 0, "attach");
    if (copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        wrong("the old page is used after a new attachment");
}

const struct rule rules_invalidate[] = {
    { "I1", "__reserved is refused with EOPNOTSUPP", reserved },
    { "I2", "entries without address or length are refused with EINVAL; in 7.3 also entries of more than"
      " a page, and more than 2^19", bounds },
    { "I3", "an ID that is not there is refused with ENOENT", no_hwpt },
    { "I4", "an object that is no nested HWPT is refused with EINVAL, in 6.12 with ENOENT",
      no_nested_hwpt },
    { "I5", "a driver without the call refuses with EOPNOTSUPP", driver_without },
    { "I6", "a type other than VTD_S1, which is 0, is refused with EINVAL, even without entries", type },
    { "I7", "an entry_len other than 24 is refused with EINVAL", length },
    { "I8", "an entry that cannot be read is EFAULT; entry_num counts those before", memory },
    { "I9", "an entry's flags other than LEAF and its __reserved are EOPNOTSUPP; entry_num counts those"
      " before", entry_flags },
    { "I10", "an entry's odd address, and all pages from one on, are EINVAL; entry_num counts those"
      " before", entry_address },
    { "I-odd", "ranges of no pages, beyond the address space and around its end are accepted",
      odd_ranges },
    { "I-page", "a page that is invalidated is read anew", page },
    { "I-range", "every page of a range that is invalidated is read anew", range },
    { "I-all", "0 with 2^64 - 1 pages is everything", all },
    { "I-no-pages", "no pages from an address on is a range that ends before it begins", no_pages },
    { "I-partial", "entries before a refused one have been obeyed", before_the_bad_one },
    { "I-other", "a page outside of the range stays cached", keeps_other_pages },
    { "I-idle", "an HWPT without devices accepts invalidations, and nothing old is used later",
      not_attached },
    { "Q4", "a range is widened to the power of two around it", hull },
    { "Q10", "entry_num is written on errors, too: 0, or how many were handled", before_the_bad_one },
    { NULL, NULL, NULL },
};
