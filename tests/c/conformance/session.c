/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Calls and tables that the rules have in common.
 */
#include <sys/mman.h>

#include "conformance.h"

struct session now;

bool as_7_3(void)
{
    if (now.host->release > 612 && now.host->release < 703)
        skip("it came in some release between Linux 6.12 and 7.3");
    return now.host->release >= 703;
}

void need_7_3(const char *what)
{
    if (!as_7_3())
        skip("Linux 6.12 has no %s", what);
}

bool can(unsigned ecap_bit)
{
    return now.ecap >> ecap_bit & 1;
}

bool cannest(void)
{
    return can(ECAP_SMTS) && can(ECAP_NEST);
}

bool cantrackdirty(void)
{
    return can(ECAP_SMTS) && can(ECAP_SLADS) && can(ECAP_SMPWC);
}

/* The width of a second-stage domain's addresses: the largest table that MGAW and SAGAW allow. */
unsigned second_stage_bits(void)
{
    unsigned mgaw = (now.cap >> 16 & 63) + 1, sagaw = now.cap >> 8 & 31;
    for (unsigned level = 5; level >= 3; level--) {
        unsigned bits = 12 + 9 * level;
        if (mgaw > bits - 9 && sagaw >= 1u << (level - 2))
            return mgaw < bits ? mgaw : bits;
    }
    return 0;
}

void need_nesting(void)
{
    if (!cannest() || !can(ECAP_SLTS))
        skip("the IOMMU has no nested translation");
}

void need_dirty_tracking(void)
{
    if (!cantrackdirty() || !can(ECAP_SLTS))
        skip("the IOMMU has no second-stage dirty bits");
}

void need_pasid(void)
{
    need_7_3("PASID attachments");
    if (now.max_pasid_log2 < 2)
        skip(now.max_pasid_log2 ? "the device has one PASID" : "the device has no PASID");
}

void need_pri(void)
{
    if (!now.host->page_request)
        skip("nobody can make the device ask for pages");
    if (!can(ECAP_PRS))
        skip("the IOMMU has no page requests");
}

void need_dma(void)
{
    if (!now.host->copy)
        skip("nobody can make the device access memory");
}

int call_on(int fd, uint32_t request, void *argument)
{
    return now.host->ioctl(fd, request, argument);
}

int call(uint32_t request, void *argument)
{
    return call_on(now.iommu, request, argument);
}

int close_file(int fd)
{
    return now.host->close(fd);
}

int bind_device(int device, int iommu, uint32_t *id)
{
    struct vfio_bind bind = { .argsz = sizeof(bind), .iommufd = iommu };
    if (now.host->release <= 612)
        bind.argsz = offsetof(struct vfio_bind, token_uuid_ptr);
    int result = call_on(device, VFIO_DEVICE_BIND_IOMMUFD, &bind);
    if (result == 0)
        *id = bind.out_devid;
    return result;
}

int open_device(unsigned which)
{
    static const char *const MISSING[DEVICES] = {
        [FIRST] = "there is no device",
        [SECOND] = "there is no second device",
        [FOREIGN] = "there is no device on another IOMMU",
        [SIBLING] = "there is no other device in the IOMMU group",
    };
    if (!now.host->has[which])
        skip("%s", MISSING[which]);
    int device = now.host->open_device(which);
    if (device < 0)
        give_up("cannot open the device: %s", strerror(-device));
    return device;
}

int bound_device(unsigned which, uint32_t *id)
{
    int device = open_device(which), result = bind_device(device, now.iommu, id);
    if (result)
        give_up("cannot bind the device: %s", strerror(-result));
    return device;
}

int destroy(uint32_t id)
{
    struct destroy d = { .size = sizeof(d), .id = id };
    return call(IOMMU_DESTROY, &d);
}

uint32_t new_ioas(void)
{
    struct ioas_alloc a = { .size = sizeof(a) };
    int result = call(IOMMU_IOAS_ALLOC, &a);
    if (result)
        give_up("IOAS_ALLOC: %s", strerror(-result));
    return a.out_ioas_id;
}

int map(uint32_t ioas, uint32_t flags, const void *memory, uint64_t length, uint64_t iova)
{
    struct ioas_map m = { .size = sizeof(m), .flags = flags, .ioas_id = ioas,
                          .user_va = (uintptr_t)memory, .length = length, .iova = iova };
    return call(IOMMU_IOAS_MAP, &m);
}

void map_ram(uint32_t ioas)
{
    int result = map(ioas, MAP_FIXED_IOVA | MAP_RW, now.ram, RAM_SIZE, RAM_BASE);
    if (result)
        give_up("IOAS_MAP of RAM: %s", strerror(-result));
}

int unmap(uint32_t ioas, uint64_t iova, uint64_t length, uint64_t *unmapped)
{
    struct ioas_unmap u = { .size = sizeof(u), .ioas_id = ioas, .iova = iova, .length = length };
    int result = call(IOMMU_IOAS_UNMAP, &u);
    if (unmapped)
        *unmapped = u.length;
    return result;
}

struct hwpt_alloc paging(uint32_t pt, uint32_t flags)
{
    return (struct hwpt_alloc){ .size = sizeof(struct hwpt_alloc), .flags = flags,
                                .dev_id = now.dev_id, .pt_id = pt };
}

struct hwpt_alloc nested(uint32_t parent, const struct hwpt_vtd_s1 *data)
{
    struct hwpt_alloc a = paging(parent, 0);
    a.data_type = HWPT_DATA_VTD_S1;
    a.data_len = sizeof(*data);
    a.data_uptr = (uintptr_t)data;
    return a;
}

int alloc(struct hwpt_alloc *a)
{
    return call(IOMMU_HWPT_ALLOC, a);
}

static uint32_t allocated(struct hwpt_alloc a)
{
    int result = alloc(&a);
    if (result)
        give_up("HWPT_ALLOC on %u with flags %#x: %s", a.pt_id, a.flags, strerror(-result));
    return a.out_hwpt_id;
}

uint32_t new_paging(uint32_t ioas, uint32_t flags)
{
    return allocated(paging(ioas, flags));
}

uint32_t new_parent(uint32_t ioas)
{
    need_nesting();
    return new_paging(ioas, HWPT_NEST_PARENT);
}

uint32_t new_nested_with(uint32_t parent, uint32_t flags, const struct hwpt_vtd_s1 *data)
{
    struct hwpt_alloc a = nested(parent, data);
    a.flags = flags;
    return allocated(a);
}

uint32_t new_nested(uint32_t parent, uint32_t flags)
{
    struct hwpt_vtd_s1 data = tables();
    return new_nested_with(parent, flags, &data);
}

uint32_t unused_id(void)
{
    uint32_t id = new_ioas();
    int result = destroy(id);
    if (result)
        give_up("DESTROY: %s", strerror(-result));
    return id;
}

uint32_t new_fault_queue(int *fd)
{
    struct fault_alloc a = { .size = sizeof(a) };
    int result = call(IOMMU_FAULT_QUEUE_ALLOC, &a);
    if (result)
        give_up("FAULT_QUEUE_ALLOC: %s", strerror(-result));
    *fd = a.out_fault_fd;
    return a.out_fault_id;
}

int attach(uint32_t pt)
{
    struct vfio_attach a = { .argsz = offsetof(struct vfio_attach, pasid), .pt_id = pt };
    return call_on(now.device, VFIO_DEVICE_ATTACH, &a);
}

int attach_pasid(uint32_t pt, uint32_t pasid)
{
    struct vfio_attach a = { .argsz = sizeof(a), .flags = VFIO_PASID, .pt_id = pt, .pasid = pasid };
    return call_on(now.device, VFIO_DEVICE_ATTACH, &a);
}

int detach(void)
{
    struct vfio_detach d = { .argsz = offsetof(struct vfio_detach, pasid) };
    return call_on(now.device, VFIO_DEVICE_DETACH, &d);
}

int detach_pasid(uint32_t pasid)
{
    struct vfio_detach d = { .argsz = sizeof(d), .flags = VFIO_PASID, .pasid = pasid };
    return call_on(now.device, VFIO_DEVICE_DETACH, &d);
}

int invalidate(uint32_t hwpt, const struct hwpt_vtd_s1_invalidate *entries, uint32_t number,
               uint32_t *handled)
{
    struct hwpt_invalidate i = { .size = sizeof(i), .hwpt_id = hwpt,
                                 .data_uptr = (uintptr_t)entries,
                                 .data_type = INVALIDATE_DATA_VTD_S1,
                                 .entry_len = sizeof(*entries), .entry_num = number };
    int result = call(IOMMU_HWPT_INVALIDATE, &i);
    *handled = i.entry_num;
    return result;
}

int invalidate_all(uint32_t hwpt)
{
    struct hwpt_vtd_s1_invalidate all = { .npages = UINT64_MAX };
    uint32_t handled;
    return invalidate(hwpt, &all, 1, &handled);
}

uint64_t *make_tables(void)
{
    uint64_t *last = NULL;
    for (unsigned level = 4; level > 0; level--) {
        uint64_t table = TABLE + (4 - level) * PAGE;
        memset(now.ram + table, 0, PAGE);
        last = (uint64_t *)(void *)(now.ram + table) + (VIRTUAL >> (12 + 9 * (level - 1)) & 511);
        *last = (RAM_BASE + table + PAGE) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    }
    last[0] = (RAM_BASE + SOURCE) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    last[1] = (RAM_BASE + TARGET) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    return last;
}

struct hwpt_vtd_s1 tables(void)
{
    return (struct hwpt_vtd_s1){ .pgtbl_addr = RAM_BASE + TABLE, .addr_width = 48 };
}

static bool arrived(int device, bool with_pasid, uint32_t pasid, uint64_t from, uint64_t to)
{
    need_dma();
    for (unsigned i = 0; i < PAGE; i++) {
        now.ram[SOURCE + i] = (uint8_t)(i * 7 + (i >> 8));
        now.ram[TARGET + i] = 0xee;
    }
    int result = now.host->copy(device, with_pasid, pasid, from, to);
    if (result < 0)
        give_up("the device does not copy: %s", strerror(-result));
    return memcmp(now.ram + SOURCE, now.ram + TARGET, PAGE) == 0;
}

bool copies(int device, uint64_t from, uint64_t to)
{
    return arrived(device, false, 0, from, to);
}

bool copies_with_pasid(int device, uint32_t pasid, uint64_t from, uint64_t to)
{
    return arrived(device, true, pasid, from, to);
}

/* Mappings that go when the rule ends, see end_of_pages(). */
static struct { void *start; size_t length; } taken[64];
static unsigned taken_number;

static void *take(size_t length, int protection)
{
    void *start = mmap(NULL, length, protection, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || taken_number == sizeof(taken) / sizeof(taken[0]))
        give_up("no memory");
    taken[taken_number].start = start;
    taken[taken_number++].length = length;
    return start;
}

void end_of_pages(void)
{
    while (taken_number) {
        taken_number--;
        munmap(taken[taken_number].start, taken[taken_number].length);
    }
}

void *pages(size_t count)
{
    return take(count * PAGE, PROT_READ | PROT_WRITE);
}

void *read_only_pages(size_t count)
{
    return take(count * PAGE, PROT_READ);
}

void *nowhere(void)
{
    return take(16 * PAGE, PROT_NONE);
}

void *edge_of_memory(void)
{
    uint8_t *page = take(2 * PAGE, PROT_READ | PROT_WRITE);
    if (mprotect(page + PAGE, PAGE, PROT_NONE))
        give_up("mprotect");
    return page + PAGE;
}

void *write_protected(const void *what, size_t size)
{
    void *page = take(PAGE, PROT_READ | PROT_WRITE);
    memcpy(page, what, size);
    if (mprotect(page, PAGE, PROT_READ))
        give_up("mprotect");
    return page;
}
