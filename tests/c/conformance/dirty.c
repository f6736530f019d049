/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Dirty tracking.
 */
#include "conformance.h"

static int set(uint32_t hwpt, uint32_t flags)
{
    struct hwpt_set_dirty_tracking s = { .size = sizeof(s), .flags = flags, .hwpt_id = hwpt };
    return call(IOMMU_HWPT_SET_DIRTY_TRACKING, &s);
}

/* Of a page, with room for 64 bits. */
static struct hwpt_get_dirty_bitmap of(uint32_t hwpt, uint64_t *bits)
{
    return (struct hwpt_get_dirty_bitmap){ .size = sizeof(struct hwpt_get_dirty_bitmap),
                                           .hwpt_id = hwpt, .iova = RAM_BASE, .length = PAGE,
                                           .page_size = PAGE, .data = (uintptr_t)bits };
}

static int get(struct hwpt_get_dirty_bitmap g)
{
    return call(IOMMU_HWPT_GET_DIRTY_BITMAP, &g);
}

static uint32_t tracked(uint32_t ioas)
{
    need_dirty_tracking();
    return new_paging(ioas, HWPT_DIRTY_TRACKING);
}

static void set_flags(void)
{
    uint32_t ioas = new_ioas(), hwpt = new_paging(ioas, 0);
    for (unsigned bit = 1; bit < 32; bit++)
        expect(set(hwpt, 1u << bit), EOPNOTSUPP, "flags %#x", 1u << bit);
    expect(set(0, 2), EOPNOTSUPP, "flags 2 and no HWPT");
}

static void set_unknown(void)
{
    uint32_t ioas = new_ioas();
    expect(set(unused_id(), 0), ENOENT, "no object");
    expect(set(ioas, 0), ENOENT, "an IOAS");
    if (cannest() && can(ECAP_SLTS))
        expect(set(new_nested(new_parent(ioas), 0), DIRTY_TRACKING_ENABLE), ENOENT, "a nested HWPT");
}

static void set_untracked(void)
{
    uint32_t hwpt = new_paging(new_ioas(), 0);
    expect(set(hwpt, DIRTY_TRACKING_ENABLE), EOPNOTSUPP, "enable without DIRTY_TRACKING");
    expect(set(hwpt, 0), EOPNOTSUPP, "disable without DIRTY_TRACKING");
    if (!cantrackdirty() || !can(ECAP_SLTS))
        return;
    hwpt = tracked(new_ioas());
    expect(set(hwpt, DIRTY_TRACKING_ENABLE), 0, "enable");
    expect(set(hwpt, DIRTY_TRACKING_ENABLE), 0, "enable again");
    expect(set(hwpt, 0), 0, "disable");
    expect(set(hwpt, 0), 0, "disable again");
}

static void get_flags(void)
{
    uint64_t bits = 0;
    uint32_t hwpt = new_paging(new_ioas(), 0);
    for (unsigned bit = 1; bit < 32; bit++) {
        struct hwpt_get_dirty_bitmap g = of(hwpt, &bits);
        g.flags = 1u << bit;
        expect(get(g), EOPNOTSUPP, "flags %#x", g.flags);
    }
    struct hwpt_get_dirty_bitmap g = of(0, &bits);
    g.reserved = 1;
    expect(get(g), EOPNOTSUPP, "__reserved and no HWPT");
}

static void get_unknown(void)
{
    uint64_t bits = 0;
    expect(get(of(unused_id(), &bits)), ENOENT, "no object");
    struct hwpt_get_dirty_bitmap g = of(new_ioas(), &bits);
    expect(get(g), ENOENT, "an IOAS");
    g.length = 0;
    expect(get(g), ENOENT, "an IOAS and no length");
}

static void get_range(void)
{
    uint64_t bits = 0;
    /* The range is looked at before it is asked whether the HWPT tracks. */
    uint32_t hwpt = new_paging(new_ioas(), 0);
    struct hwpt_get_dirty_bitmap g = of(hwpt, &bits);
    g.length = 0;
    int error = get(g);
    /* 6.12.107 has no check of its own, and the end of nothing overflows; 6.12.117 has one. */
    expect(error == EOVERFLOW && !as_7_3() ? EINVAL : error, EINVAL, "no length");
    g = of(hwpt, &bits);
    g.iova = -PAGE;
    g.length = 2 * PAGE;
    expect(get(g), EOVERFLOW, "a range around the end");
    g = of(hwpt, &bits);
    g.iova += 0x10;
    g.page_size = 0x10;
    expect(get(g), EINVAL, "an address that is not aligned");
    g = of(hwpt, &bits);
    g.length -= 0x10;
    g.page_size = 0x10;
    expect(get(g), EINVAL, "a length that is not aligned");
    g = of(hwpt, &bits);
    g.page_size = 0;
    expect(get(g), EINVAL, "page_size 0");
    g = of(hwpt, &bits);
    g.page_size = 2 * PAGE;
    expect(get(g), EINVAL, "a length that page_size does not divide");
    g = of(hwpt, &bits);
    g.iova += PAGE;
    g.length = PAGE;
    g.page_size = 2 * PAGE;
    expect(get(g), EINVAL, "an address that page_size does not divide");
}

static void get_untracked(void)
{
    uint64_t bits = 0;
    expect(get(of(new_paging(new_ioas(), 0), &bits)), EOPNOTSUPP, "without DIRTY_TRACKING");
    if (cantrackdirty() && can(ECAP_SLTS)) {
        uint32_t ioas = new_ioas(), hwpt = tracked(ioas);
        map_ram(ioas);
        expect(get(of(hwpt, &bits)), 0, "with DIRTY_TRACKING");
    }
}

static void get_memory(void)
{
    uint32_t ioas = new_ioas(), hwpt = tracked(ioas);
    uint64_t bits = 0;
    map_ram(ioas);
    struct hwpt_get_dirty_bitmap g = of(hwpt, &bits);
    g.iova = 0;
    expect(get(g), 0, "what is not mapped");
    expect(get(of(hwpt, nowhere())), 0, "a bitmap in no memory");
}

static void dirty_pages(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), hwpt = tracked(ioas);
    map_ram(ioas);
    expect(attach(hwpt), 0, "attach");
    expect(set(hwpt, DIRTY_TRACKING_ENABLE), 0, "enable");
    if (!copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        give_up("a page did not arrive");
    /* 64 pages: SOURCE is the 16th, TARGET the 48th. */
    uint64_t bits = 0;
    struct hwpt_get_dirty_bitmap g = of(hwpt, &bits);
    g.length = 64 * PAGE;
    g.flags = DIRTY_BITMAP_NO_CLEAR;
    expect(get(g), 0, "GET without clearing");
    expect_number(bits, 1ull << (TARGET / PAGE), "the pages written");
    bits = 0;
    g.flags = 0;
    expect(get(g), 0, "GET");
    expect_number(bits, 1ull << (TARGET / PAGE), "the pages written, after a look");
    bits = 0;
    expect(get(g), 0, "GET again");
    expect_number(bits, 0, "the pages written since");
    /* Bits are set in what is there. */
    if (!copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        give_up("a page did not arrive");
    bits = 1;
    expect(get(g), 0, "GET into other bits");
    expect_number(bits, 1 | 1ull << (TARGET / PAGE), "the bits");
    if (!copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        give_up("a page did not arrive");
    expect(set(hwpt, DIRTY_TRACKING_ENABLE), 0, "enable again");
    bits = 0;
    expect(get(g), 0, "GET after it was enabled again");
    expect_number(bits, 0, "the pages written since then");
}

static void dirty_large_pages(void)
{
    need_dma();
    uint32_t ioas = new_ioas(), hwpt = tracked(ioas);
    map_ram(ioas);
    expect(attach(hwpt), 0, "attach");
    expect(set(hwpt, DIRTY_TRACKING_ENABLE), 0, "enable");
    if (!copies(now.device, RAM_BASE + SOURCE, RAM_BASE + TARGET))
        give_up("a page did not arrive");
    uint64_t bits = 0;
    struct hwpt_get_dirty_bitmap g = of(hwpt, &bits);
    g.length = 64 * PAGE;
    g.page_size = 16 * PAGE;
    expect(get(g), 0, "GET with pages of 64 KiB");
    expect_number(bits, 1ull << (TARGET / PAGE / 16), "the pages written");
}

/* A parent with dirty tracking. */
static uint32_t tracked_parent(void)
{
    need_dma();
    need_nesting();
    need_dirty_tracking();
    uint32_t ioas = new_ioas(), parent = new_paging(ioas, HWPT_NEST_PARENT | HWPT_DIRTY_TRACKING);
    map_ram(ioas);
    make_tables();
    return parent;
}

static void dirty_nested(void)
{
    uint32_t parent = tracked_parent();
    expect(attach(new_nested(parent, 0)), 0, "attach");
    expect(set(parent, DIRTY_TRACKING_ENABLE), 0, "enable on the parent");
    if (!copies(now.device, VIRTUAL, VIRTUAL + PAGE))
        give_up("a page did not arrive");
    uint64_t bits = 0;
    struct hwpt_get_dirty_bitmap g = of(parent, &bits);
    g.iova += TARGET;
    expect(get(g), 0, "GET");
    expect_number(bits, 1, "the page written through a nested HWPT");
    bits = 0;
    g.iova = RAM_BASE + SOURCE;
    expect(get(g), 0, "GET");
    expect_number(bits, 0, "the page read through a nested HWPT");
}

static void dirty_with_pasid(void)
{
    need_pasid();
    uint32_t parent = tracked_parent(), hwpt = new_nested(parent, HWPT_PASID);
    expect(attach_pasid(hwpt, 1), 0, "attach a PASID");
    expect(set(parent, DIRTY_TRACKING_ENABLE), 0, "enable on the parent");
    expect(attach_pasid(hwpt, 2), 0, "attach another PASID");
    for (uint32_t pasid = 1; pasid <= 2; pasid++) {
        uint64_t bits = 0;
        struct hwpt_get_dirty_bitmap g = of(parent, &bits);
        g.iova += TARGET;
        if (!copies_with_pasid(now.device, pasid, VIRTUAL, VIRTUAL + PAGE))
            give_up("a page did not arrive");
        expect(get(g), 0, "GET");
        expect_number(bits, 1, "the page written with PASID %u", pasid);
    }
}

static void reserved(void)
{
    need_dirty_tracking();
    struct hwpt_set_dirty_tracking s = { .size = sizeof(s), .hwpt_id = tracked(new_ioas()),
                                         .reserved = 1 };
    expect(call(IOMMU_HWPT_SET_DIRTY_TRACKING, &s), 0, "SET with __reserved");
}

const struct rule rules_dirty[] = {
    { "D1", "SET: flags other than ENABLE are refused with EOPNOTSUPP", set_flags },
    { "D2", "SET: an ID that is no paging HWPT is refused with ENOENT", set_unknown },
    { "D3", "SET: an HWPT without DIRTY_TRACKING is refused with EOPNOTSUPP", set_untracked },
    { "D4", "GET: flags other than NO_CLEAR and __reserved are refused with EOPNOTSUPP", get_flags },
    { "D5", "GET: an ID that is no paging HWPT is refused with ENOENT", get_unknown },
    { "D6", "GET: an empty or odd range or page size is EINVAL, one around the end EOVERFLOW", get_range },
    { "D7", "GET: an HWPT without DIRTY_TRACKING is refused with EOPNOTSUPP", get_untracked },
    { "D8", "GET: what is not mapped, and a bitmap that cannot be written, are no errors", get_memory },
    { "D-pages", "the pages written since are told and cleared; bits are only set; enabling clears",
      dirty_pages },
    { "D-large", "page_size gathers pages", dirty_large_pages },
    { "D-nested", "pages written through nested HWPTs are the parent's", dirty_nested },
    { "D-PASID", "so are those written with a PASID that was attached before tracking began, or after",
      dirty_with_pasid },
    { "Q13", "SET does not look at its __reserved", reserved },
    { NULL, NULL, NULL },
};
