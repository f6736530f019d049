/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define QUEUE_ENTRIES 256u
#define DESCRIPTOR_SIZE 32u
#define STATUS_DONE 2u /* what Linux has the unit write */

static void reenter(struct guest *g)
{
    if (g->reenter && !g->inside) {
        g->inside = true;
        g->reenter(g);
        g->inside = false;
    }
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct guest *g = opaque;

    g->last_msi = (struct msi){ address, data };
    __atomic_fetch_add(&g->msis, 1, __ATOMIC_RELAXED);
    reenter(g);
}

static void on_log(void *opaque, uint32_t level, const char *message)
{
    struct guest *g = opaque;

    (void)level;
    if (message && *message) {
        __atomic_fetch_add(&g->log_lines, 1, __ATOMIC_RELAXED);
    }
    reenter(g);
}

static void on_event(void *opaque, uint32_t event, uint64_t a, uint64_t b, uint64_t c)
{
    struct guest *g = opaque;

    (void)event, (void)a, (void)b, (void)c;
    __atomic_fetch_add(&g->events, 1, __ATOMIC_RELAXED);
    reenter(g);
}

static void on_page_response(void *opaque, const NvtdPageResponse *response)
{
    struct guest *g = opaque;

    g->last_response = *response;
    __atomic_fetch_add(&g->responses, 1, __ATOMIC_RELAXED);
    reenter(g);
}

static void on_iec_invalidate(void *opaque, uint32_t global, uint32_t index, uint32_t mask)
{
    struct guest *g = opaque;

    g->last_forget = (struct forget){ global, index, mask };
    g->forgets++;
    reenter(g);
}

static int on_invalidate(void *opaque, const NvtdInvalidation *invalidation)
{
    struct guest *g = opaque;

    g->orders[g->told++ % 8] = *invalidation;
    g->told_status = (uint32_t)*guest_qword(g, g->status);
    reenter(g);
    return g->obey;
}

/* RAM of a guest that is gone, for the next: valgrind takes seconds to map that much. */
static uint8_t *spare;

static uint8_t *ram_new(void)
{
    uint8_t *ram = spare;

    spare = NULL;
    if (!ram) {
        /* Only the pages that a test touches take memory. */
        ram = mmap(NULL, GUEST_RAM_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        assert_ptr_not_equal(ram, MAP_FAILED);
    }
    return ram;
}

static void ram_free(uint8_t *ram)
{
    if (spare) {
        munmap(ram, GUEST_RAM_SIZE);
    } else {
        assert_int_equal(madvise(ram, GUEST_RAM_SIZE, MADV_DONTNEED), 0); /* zeroes it */
        spare = ram;
    }
}

/* Or memcheck would look through all of it for pointers. */
__attribute__((destructor)) static void unmap_spare(void)
{
    if (spare) {
        munmap(spare, GUEST_RAM_SIZE);
    }
}

static int on_attach(void *opaque, const NvtdAttach *attach)
{
    struct guest *g = opaque;

    assert_int_equal(attach->size, sizeof(*attach));
    assert_int_equal(attach->reserved, 0);
    return g->attach ? g->attach(g, attach) : -ENOSYS;
}

static void on_watch(void *opaque, int fd, uint32_t on)
{
    struct guest *g = opaque;

    assert_true(on ? g->watched < 0 : g->watched == fd);
    g->watched = on ? fd : -1;
    reenter(g);
}

struct guest *guest_new(uint32_t host, uint32_t inject)
{
    NvtdConfig config = { .size = sizeof(config) };

    assert_int_equal(nvtd_config_default(&config), 0);
    config.host = host;
    config.inject = inject;
    return guest_new_with(&config);
}

struct guest *guest_new_with(const NvtdConfig *config)
{
    struct guest *g = calloc(1, sizeof(*g));
    NvtdOps ops = {
        .size = sizeof(ops),
        .msi = on_msi,
        .log = on_log,
        .event = on_event,
        .iec_invalidate = on_iec_invalidate,
        .page_response = on_page_response,
        .invalidate = on_invalidate,
        .attach = on_attach,
        .watch = on_watch,
    };

    assert_non_null(g);
    g->watched = -1;
    assert_int_equal(nvtd_unit_create(config, &ops, g, &g->unit), 0);
    assert_non_null(g->unit);

    g->ram = ram_new();
    assert_int_equal(nvtd_ram_add(g->unit, 0, GUEST_RAM_SIZE, g->ram, 0), 0);
    g->heap = GUEST_HEAP;
    g->status = guest_page(g);
    if (config->host != NVTD_HOST_IOMMUFD) {
        g->device = guest_add_device(g, GUEST_SID,
                                     config->host == NVTD_HOST_NONE ? 0 : NVTD_DEVICE_ASSIGNED);
    }
    return g;
}

struct guest *guest_new_features(uint64_t features, uint32_t address_width)
{
    NvtdConfig config = guest_config(features, address_width);

    return guest_new_with(&config);
}

NvtdConfig guest_config(uint64_t features, uint32_t address_width)
{
    NvtdConfig config = { .size = sizeof(config) };

    assert_int_equal(nvtd_config_default(&config), 0);
    config.features = features;
    config.address_width = address_width;
    config.pasid_bits = features & NVTD_FEATURE_SCALABLE_MODE ? 20 : 0;
    return config;
}

void guest_free(struct guest *g)
{
    nvtd_unit_destroy(g->unit);
    ram_free(g->ram);
    free(g);
}

uint32_t guest_add_device(struct guest *g, uint16_t source_id, uint32_t flags)
{
    NvtdDevice desc = {
        .size = sizeof(desc), .tag = source_id, .source_id = source_id, .flags = flags
    };
    uint32_t device = 0;

    assert_int_equal(nvtd_device_add(g->unit, &desc, &device), 0);
    assert_int_not_equal(device, 0);
    return device;
}

uint64_t guest_pages(struct guest *g, unsigned count)
{
    uint64_t gpa = g->heap;

    g->heap += count * 4 * KIB;
    assert_true(g->heap <= 64 * MIB);
    return gpa;
}

uint64_t guest_page(struct guest *g)
{
    return guest_pages(g, 1);
}

uint64_t *guest_qword(struct guest *g, uint64_t gpa)
{
    assert_true(gpa <= GUEST_RAM_SIZE - 8);
    return (uint64_t *)(void *)(g->ram + gpa);
}

bool guest_atomic_flag(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

void guest_atomic_raise(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

void guest_atomic_store(uint64_t *qword, uint64_t value)
{
    __atomic_store_n(qword, value, __ATOMIC_RELEASE);
}

unsigned guest_rounds(unsigned rounds)
{
    const char *limit = getenv("NVTD_TEST_ROUNDS");
    unsigned long most = limit ? strtoul(limit, NULL, 10) : 0;

    return most > 0 && most < rounds ? (unsigned)most : rounds;
}

static uint64_t mmio_read(struct guest *g, uint64_t offset, uint32_t size)
{
    uint64_t value = ~0ull;

    assert_int_equal(nvtd_mmio_read(g->unit, offset, size, &value), 0);
    return value;
}

uint32_t read32(struct guest *g, uint64_t offset)
{
    uint64_t value = mmio_read(g, offset, 4);

    assert_true(value <= UINT32_MAX);
    return (uint32_t)value;
}

uint64_t read64(struct guest *g, uint64_t offset)
{
    return mmio_read(g, offset, 8);
}

void write32(struct guest *g, uint64_t offset, uint32_t value)
{
    assert_int_equal(nvtd_mmio_write(g->unit, offset, 4, value), 0);
}

void write64(struct guest *g, uint64_t offset, uint64_t value)
{
    assert_int_equal(nvtd_mmio_write(g->unit, offset, 8, value), 0);
}

void guest_command(struct guest *g, uint32_t bit, bool on)
{
    uint32_t shot = g->gcmd | (on ? bit : 0);

    if (!on) {
        shot &= ~bit;
    }
    write32(g, REG_GCMD, shot);
    assert_int_equal(read32(g, REG_GSTS) & bit, on ? bit : 0);
    if (bit != CMD_SRTP && bit != CMD_SIRTP) {
        g->gcmd = shot;
    }
}

void guest_enable_queue(struct guest *g)
{
    g->queue = guest_pages(g, 2);
    g->tail = 0;
    write32(g, REG_IQT, 0);
    write64(g, REG_IQA, g->queue | IQA_DW | IQA_8KIB);
    guest_command(g, CMD_QIE, true);
}

void guest_enable_fault_event(struct guest *g)
{
    write32(g, REG_FEDATA, FAULT_MSI_DATA);
    write32(g, REG_FEADDR, (uint32_t)FAULT_MSI_ADDRESS);
    write32(g, REG_FEUADDR, 0);
    write32(g, REG_FECTL, 0);
    assert_int_equal(read32(g, REG_FECTL) & EVENT_IM, 0);
    write32(g, REG_FSTS, read32(g, REG_FSTS));
}

void guest_set_root_mode(struct guest *g, uint64_t mode)
{
    g->root = guest_page(g);
    write64(g, REG_RTADDR, g->root | mode);
    guest_command(g, CMD_SRTP, true);
    if (!CAP_ESRTPS(read64(g, REG_CAP))) {
        guest_flush(g);
    }
}

void guest_set_root(struct guest *g)
{
    guest_set_root_mode(g, RTADDR_SMT);
}

void guest_set_legacy_context(struct guest *g, uint16_t source_id, uint64_t qw0, uint64_t qw1)
{
    uint64_t *root = guest_qword(g, g->root + (source_id >> 8) * 16ull);
    uint64_t *entry;

    if (!(*root & PRESENT)) {
        *root = guest_page(g) | PRESENT;
    }
    entry = guest_qword(g, (*root & ~0xfffull) + (source_id & 0xff) * 16ull);
    entry[1] = qw1;
    entry[0] = qw0;
}

void guest_set_context(struct guest *g, uint16_t source_id, uint64_t qw0, uint64_t qw1)
{
    uint64_t *root = guest_qword(g, g->root + (source_id >> 8) * 16ull);
    unsigned devfn = source_id & 0xff;
    uint64_t *half = &root[devfn >= 0x80];
    uint64_t *entry;

    if (!(*half & PRESENT)) {
        *half = guest_page(g) | PRESENT;
    }
    entry = guest_qword(g, (*half & ~0xfffull) + (devfn & 0x7f) * 32ull);
    entry[1] = qw1;
    entry[2] = entry[3] = 0;
    entry[0] = qw0;
}

void guest_set_context_bits(struct guest *g, uint64_t bits, uint32_t rid_pasid)
{
    guest_set_context(g, GUEST_SID, g->pasid_directory | bits | PRESENT, rid_pasid);
    guest_flush(g);
}

uint64_t guest_pasid_entry(struct guest *g, uint32_t pasid)
{
    uint64_t *entry = guest_qword(g, g->pasid_directory + (pasid >> 6) * 8ull);

    assert_true(pasid >> 6 < 512);
    if (!(*entry & PRESENT)) {
        *entry = guest_page(g) | PRESENT;
    }
    return (*entry & ~0xfffull) + (pasid & 63) * 64ull;
}

void guest_set_pasid_entry(struct guest *g, uint32_t pasid, uint64_t qw0, uint64_t qw1,
                           uint64_t qw2)
{
    uint64_t *entry = guest_qword(g, guest_pasid_entry(g, pasid));

    entry[2] = qw2;
    entry[1] = qw1;
    entry[0] = qw0;
}

void guest_set_first_stage(struct guest *g, uint32_t pasid, uint16_t domain, uint64_t pml4)
{
    guest_set_pasid_entry(g, pasid, PRESENT | PASID_AW48 | PASID_PGTT(PGTT_FIRST),
                          domain | PASID_PWSNP, pml4);
}

void guest_set_stages(struct guest *g, uint32_t pasid, const struct tables *first,
                      const struct tables *second, uint64_t bits0, uint64_t bits2)
{
    uint64_t qw0 = PRESENT | bits0, qw2 = bits2;

    qw0 |= PASID_PGTT(first && second ? PGTT_NESTED
                      : second        ? PGTT_SECOND
                      : first         ? PGTT_FIRST
                                      : PGTT_PASS);
    if (second) {
        qw0 |= second->root | PASID_AW(second->levels - 2);
    }
    if (first) {
        qw2 |= (first->root + first->base) | PASID_FSPM(first->levels - 4);
    }
    guest_set_pasid_entry(g, pasid, qw0, GUEST_DID | PASID_PWSNP, qw2);
}

void guest_attach(struct guest *g, uint16_t source_id, uint32_t pdts)
{
    g->pasid_directory = guest_page(g);
    g->pasid_table = guest_page(g);
    *guest_qword(g, g->pasid_directory) = g->pasid_table | PRESENT;
    guest_set_context(g, source_id, g->pasid_directory | CONTEXT_PDTS(pdts) | PRESENT, 0);
    guest_put(g, QI_CONTEXT_DEVICE(0, source_id), 0);
    guest_put(g, QI_IOTLB_DOMAIN(0), 0);
    guest_sync(g);
}

void guest_boot(struct guest *g)
{
    guest_enable_queue(g);
    guest_enable_fault_event(g);
    guest_set_root(g);
    guest_attach(g, GUEST_SID, 2);
    g->pml4 = guest_page(g);
    guest_set_first_stage(g, 0, GUEST_DID, g->pml4);
    guest_flush_pasid(g, 0);
    guest_command(g, CMD_TE, true);
}

struct guest *guest_start(uint64_t features, uint32_t address_width, uint64_t mode)
{
    return guest_started(guest_new_features(features, address_width), mode);
}

struct guest *guest_started(struct guest *g, uint64_t mode)
{
    guest_enable_queue(g);
    guest_enable_fault_event(g);
    guest_set_root_mode(g, mode);
    if (mode == RTADDR_SMT) {
        guest_attach(g, GUEST_SID, 2);
    }
    guest_command(g, CMD_TE, true);
    return g;
}

uint64_t guest_descriptor(struct guest *g, uint32_t index)
{
    return g->queue + (index % QUEUE_ENTRIES) * DESCRIPTOR_SIZE;
}

void guest_put(struct guest *g, uint64_t qw0, uint64_t qw1)
{
    uint64_t *descriptor = guest_qword(g, guest_descriptor(g, g->tail));

    descriptor[0] = qw0;
    descriptor[1] = qw1;
    descriptor[2] = descriptor[3] = 0;
    g->tail = (g->tail + 1) % QUEUE_ENTRIES;
}

void guest_ring(struct guest *g)
{
    write32(g, REG_IQT, g->tail * DESCRIPTOR_SIZE);
}

void guest_submit(struct guest *g, uint64_t qw0, uint64_t qw1)
{
    guest_put(g, qw0, qw1);
    guest_ring(g);
}

void guest_sync(struct guest *g)
{
    volatile uint32_t *status = (uint32_t *)(void *)guest_qword(g, g->status);

    *status = 1;
    guest_submit(g, QI_WAIT | QI_WAIT_SW | QI_WAIT_DATA(STATUS_DONE), g->status);
    assert_int_equal(*status, STATUS_DONE);
    assert_int_equal(read32(g, REG_IQH), g->tail * DESCRIPTOR_SIZE);
}

void guest_flush_pasid(struct guest *g, uint32_t pasid)
{
    guest_put(g, QI_PASID_PASID(GUEST_DID, pasid), 0);
    guest_put(g, QI_PIOTLB_PASID(GUEST_DID, pasid), 0);
    guest_sync(g);
}

void guest_flush_iova(struct guest *g, uint64_t iova, unsigned address_mask)
{
    guest_put(g, QI_PIOTLB_PAGE(GUEST_DID, 0), (iova & ~0xfffull) | address_mask);
    guest_sync(g);
}

void guest_flush(struct guest *g)
{
    guest_put(g, QI_CONTEXT_GLOBAL, 0);
    if ((read64(g, REG_RTADDR) & RTADDR_ABORT) == RTADDR_SMT) {
        guest_put(g, QI_PASID_GLOBAL, 0);
    }
    guest_put(g, QI_IOTLB_GLOBAL, 0);
    guest_sync(g);
}

struct tables tables_new(struct guest *g, unsigned levels, uint64_t link)
{
    return (struct tables){ .root = guest_page(g), .levels = levels, .link = link };
}

uint64_t *tables_entry(struct guest *g, const struct tables *tables, uint64_t address,
                       unsigned level)
{
    uint64_t table = tables->root;

    for (unsigned at = tables->levels;; at--) {
        uint64_t *entry = guest_qword(g, table + (address >> (3 + 9 * at) & 0x1ff) * 8);

        if (at == level) {
            return entry;
        }
        if (!(*entry & tables->link)) {
            *entry = (guest_page(g) + tables->base) | tables->link;
        }
        assert_false(*entry & FS_PS);
        table = (*entry & 0x000ffffffffff000ull) - tables->base;
    }
}

void tables_map(struct guest *g, const struct tables *tables, uint64_t address, uint64_t to,
                unsigned level, uint64_t bits)
{
    *tables_entry(g, tables, address, level) = to | bits | (level > 1 ? FS_PS : 0);
}

static struct tables own_tables(struct guest *g)
{
    return (struct tables){ .root = g->pml4, .levels = 4, .link = FS_TABLE };
}

uint64_t *guest_entry(struct guest *g, uint64_t iova, unsigned level)
{
    struct tables tables = own_tables(g);

    return tables_entry(g, &tables, iova, level);
}

void guest_map(struct guest *g, uint64_t iova, uint64_t gpa, unsigned level, uint64_t bits)
{
    struct tables tables = own_tables(g);

    tables_map(g, &tables, iova, gpa, level, bits);
}

NvtdTranslation guest_ask(struct guest *g, uint32_t device, uint64_t address, uint32_t flags,
                          uint32_t pasid)
{
    NvtdRequest request = {
        .size = sizeof(request), .address = address, .flags = flags, .pasid = pasid
    };
    NvtdTranslation out = { .size = sizeof(out), .flags = 77 };

    assert_int_equal(nvtd_translate(g->unit, device, &request, &out), 0);
    assert_int_equal(out.size, sizeof(out));
    assert_true(out.page_size >= 4096 && (out.page_size & (out.page_size - 1)) == 0);
    if (!(flags & NVTD_REQUEST_TRANSLATION)) {
        assert_int_equal(out.flags, 0);
    }
    if (out.fault) {
        assert_int_equal(out.flags & ~(uint32_t)NVTD_TRANSLATION_RECOVERABLE, 0);
        assert_int_equal(out.address, 0);
        assert_int_equal(out.page_size, 4096);
        assert_int_equal(out.permissions, 0);
        return out;
    }
    assert_int_equal(out.flags, 0);
    assert_int_equal((out.address ^ address) & (4096 - 1), 0);
    if (!(flags & (NVTD_REQUEST_TRANSLATION | NVTD_REQUEST_TRANSLATED))) {
        assert_true(!(flags & NVTD_REQUEST_READ) || out.permissions & NVTD_PERMISSION_READ);
        assert_true(!(flags & NVTD_REQUEST_WRITE) || out.permissions & NVTD_PERMISSION_WRITE);
        assert_true(!(flags & NVTD_REQUEST_EXECUTE) || out.permissions & NVTD_PERMISSION_EXECUTE);
    }
    return out;
}

NvtdTranslation guest_dma(struct guest *g, uint32_t device, uint64_t address, uint32_t flags)
{
    return guest_ask(g, device, address, flags, 0);
}

void expect_page(struct guest *g, uint64_t address, uint32_t flags, uint32_t pasid, uint64_t gpa,
                 uint64_t page_size, uint32_t permissions)
{
    NvtdTranslation out = guest_ask(g, g->device, address, flags, pasid);

    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, gpa);
    assert_int_equal(out.page_size, page_size);
    assert_int_equal(out.permissions, permissions);
}

void guest_clear_faults(struct guest *g)
{
    for (unsigned i = 0; i < CAP_NFR(read64(g, REG_CAP)); i++) {
        write32(g, fault_register(g, i) + 12, 1u << 31);
    }
    write32(g, REG_FSTS, FSTS_PFO);
    assert_int_equal(read32(g, REG_FSTS) & (FSTS_PFO | FSTS_PPF | FSTS_IQE), 0);
}

void expect_recorded(struct guest *g, uint64_t address, uint32_t flags, uint32_t pasid,
                     uint32_t reason)
{
    uint64_t faults = guest_stats(g).faults, own = guest_device(g, g->device).faults;
    bool with_pasid = flags & NVTD_REQUEST_PASID;
    unsigned msis = g->msis;
    NvtdTranslation out = guest_ask(g, g->device, address, flags, pasid);
    uint64_t record, hi;
    uint32_t status;

    assert_int_equal(out.fault, reason);
    assert_int_equal(out.flags, 0);
    assert_int_equal(guest_stats(g).faults, faults + 1);
    assert_int_equal(guest_device(g, g->device).faults, own + 1);
    status = read32(g, REG_FSTS);
    assert_int_equal(status & (FSTS_PPF | FSTS_PFO), FSTS_PPF);
    record = fault_register(g, FSTS_FRI(status));
    hi = read64(g, record + 8);
    assert_true(hi & FRCD_F);
    assert_int_equal(FRCD_REASON(hi), reason);
    assert_int_equal(FRCD_SID(hi), GUEST_SID);
    if (flags & NVTD_REQUEST_TRANSLATION) {
        assert_int_equal(FRCD_AT(hi), 1);
    } else {
        assert_int_equal(FRCD_AT(hi), flags & NVTD_REQUEST_TRANSLATED ? 2 : 0);
        assert_int_equal(hi & FRCD_READ, flags & NVTD_REQUEST_WRITE ? 0 : FRCD_READ);
    }
    assert_int_equal(hi & FRCD_PP, with_pasid ? FRCD_PP : 0);
    assert_int_equal(FRCD_PV(hi), pasid);
    assert_int_equal(hi & FRCD_EXE, flags & NVTD_REQUEST_EXECUTE ? FRCD_EXE : 0);
    assert_int_equal(hi & FRCD_PRIV, flags & NVTD_REQUEST_PRIVILEGED ? FRCD_PRIV : 0);
    assert_int_equal(read64(g, record), address & ~0xfffull);
    /* As Linux reads it. */
    assert_int_equal(read32(g, record + 12) >> 31, 1);
    assert_int_equal(read32(g, record + 8) & 0xffff, GUEST_SID);
    assert_int_equal(g->msis, msis + 1);
    assert_int_equal(g->last_msi.address, FAULT_MSI_ADDRESS);
    assert_int_equal(g->last_msi.data, FAULT_MSI_DATA);
    guest_clear_faults(g);
    assert_int_equal(read64(g, record + 8) & FRCD_F, 0);
}

void expect_recoverable(struct guest *g, uint64_t address, uint32_t flags, uint32_t pasid,
                        uint32_t reason)
{
    unsigned msis = g->msis;
    NvtdTranslation out = guest_ask(g, g->device, address, flags, pasid);

    assert_int_equal(out.fault, reason);
    assert_int_equal(out.flags, NVTD_TRANSLATION_RECOVERABLE);
    assert_int_equal(read32(g, REG_FSTS), 0);
    assert_int_equal(g->msis, msis);
}

void expect_address(struct guest *g, uint64_t address, uint32_t flags, uint64_t gpa)
{
    NvtdTranslation out = guest_dma(g, g->device, address, flags);

    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, gpa);
}

void expect_fault(struct guest *g, uint64_t address, uint32_t flags, uint32_t reason)
{
    assert_int_equal(guest_dma(g, g->device, address, flags).fault, reason);
}

NvtdStats guest_stats(struct guest *g)
{
    NvtdStats stats = { .size = sizeof(stats) };

    assert_int_equal(nvtd_stats(g->unit, &stats), 0);
    return stats;
}

NvtdDeviceInfo guest_device(struct guest *g, uint32_t device)
{
    NvtdDeviceInfo info = { .size = sizeof(info) };

    assert_int_equal(nvtd_device_info(g->unit, device, &info), 0);
    return info;
}

uint64_t fault_register(struct guest *g, unsigned index)
{
    return CAP_FRO(read64(g, REG_CAP)) + index * 16ull;
}

void expect_error(int rc, int expected, const char *named)
{
    assert_int_equal(rc, expected);
    assert_non_null(nvtd_last_error());
    if (!strstr(nvtd_last_error(), named)) {
        fail_msg("the error text \"%s\" does not name \"%s\"", nvtd_last_error(), named);
    }
}
