/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The twin as the host, with IOMMUs and devices of several kinds, so that every rule can be seen.
 */
#include <nested_vtd.h>
#include <stdio.h>
#include <stdlib.h>

#include "conformance.h"

#define BIT(n) (1ull << (n))
#define MGAW(bits) ((uint64_t)((bits) - 1) << 16)
#define ALL_MGAW MGAW(64)
#define SAGAW(bits) ((uint64_t)(bits) << 8)

/* What an IOMMU lacks of all that a unit can offer, and what it has instead. */
struct iommu {
    uint64_t no_cap, cap, no_ecap;
};

static const struct configuration {
    const char *name;
    struct iommu iommu, foreign;
    bool has_foreign;
    uint32_t pasid_bits, flags;
    bool unsafe_interrupts;
} CONFIGURATIONS[] = {
    { .name = "everything",
      .has_foreign = true,
      .foreign = { .no_ecap = BIT(ECAP_NEST) | BIT(ECAP_SLADS) },
      .pasid_bits = 20,
      .flags = NVTD_TWIN_DEVICE_ATS | NVTD_TWIN_DEVICE_PRI },
    { .name = "a plain device",
      .has_foreign = true,
      .foreign = { .no_cap = ALL_MGAW | SAGAW(31), .cap = MGAW(39) | SAGAW(2) } },
    { .name = "few PASIDs and domains", .iommu = { .no_cap = 7 }, .pasid_bits = 8 },
    { .name = "no nesting, no dirty bits", .iommu = { .no_ecap = BIT(ECAP_NEST) | BIT(ECAP_SLADS) } },
    { .name = "first stage only",
      .iommu = { .no_ecap = BIT(ECAP_NEST) | BIT(ECAP_SLADS) | BIT(ECAP_SLTS) } },
    { .name = "second stage only", .iommu = { .no_ecap = BIT(ECAP_NEST) | BIT(ECAP_FLTS) } },
    { .name = "no options",
      .iommu = { .no_cap = BIT(CAP_FL5LP) | ALL_MGAW | SAGAW(8), .cap = MGAW(48),
                 .no_ecap = BIT(ECAP_PASID) | 31ull << 35 | BIT(ECAP_SRS) | BIT(ECAP_EAFS) |
                            BIT(ECAP_PRS) | BIT(ECAP_SLADS) },
      .pasid_bits = 20 },
    { .name = "unsafe interrupts", .unsafe_interrupts = true },
    { .name = "legacy mode", .iommu = { .no_ecap = BIT(ECAP_SMTS) }, .pasid_bits = 20 },
};

static unsigned release;
static uint64_t quirks_off;
static const struct configuration *configuration;
static NvtdTwin *twin;

unsigned twin_configurations(void)
{
    return sizeof(CONFIGURATIONS) / sizeof(CONFIGURATIONS[0]);
}

const char *twin_configuration(unsigned n)
{
    return CONFIGURATIONS[n].name;
}

void twin_setup(unsigned wanted, uint64_t off, unsigned n)
{
    release = wanted;
    quirks_off = off;
    configuration = &CONFIGURATIONS[n];
    twin_host.release = release;
    twin_host.has[FIRST] = twin_host.has[SECOND] = twin_host.has[SIBLING] = true;
    twin_host.has[FOREIGN] = configuration->has_foreign;
}

/* CAP and ECAP of an IOMMU that can do everything: those of a twin made without a configuration. */
static int everything(NvtdTwinIommu *iommu)
{
    static NvtdTwinIommu known;
    if (!known.cap) {
        NvtdTwin *any;
        NvtdTwinDevice device = { .size = sizeof(device) };
        struct hw_info_vtd vtd = { .flags = 0 };
        int result = nvtd_twin_create(NULL, &any);
        if (result)
            return result;
        int fd = nvtd_twin_open(any);
        struct vfio_bind bind = { .argsz = offsetof(struct vfio_bind, token_uuid_ptr), .iommufd = fd };
        result = nvtd_twin_ioctl(any, nvtd_twin_device(any, &device), VFIO_DEVICE_BIND_IOMMUFD, &bind);
        struct hw_info info = { .size = sizeof(info), .dev_id = bind.out_devid,
                                .data_len = sizeof(vtd), .data_uptr = (uintptr_t)&vtd };
        if (result == 0)
            result = nvtd_twin_ioctl(any, fd, IOMMU_GET_HW_INFO, &info);
        nvtd_twin_destroy(any);
        if (result)
            return result;
        known = (NvtdTwinIommu){ .cap = vtd.cap_reg, .ecap = vtd.ecap_reg };
    }
    *iommu = known;
    return 0;
}

static void change(NvtdTwinIommu *iommu, const struct iommu *by)
{
    iommu->cap = (iommu->cap & ~by->no_cap) | by->cap;
    iommu->ecap &= ~by->no_ecap;
}

static int twin_begin(void)
{
    NvtdTwinIommu iommus[2];
    int result = everything(&iommus[0]);
    if (result)
        return result;
    iommus[1] = iommus[0];
    change(&iommus[0], &configuration->iommu);
    change(&iommus[1], &configuration->foreign);
    const NvtdTwinConfig config = {
        .size = sizeof(config),
        .iommus = iommus,
        .iommu_count = 2,
        .kernel = release == 612 ? NVTD_TWIN_LINUX_6_12 : NVTD_TWIN_LINUX_7_3,
        .quirks_off = quirks_off,
        .flags = configuration->unsafe_interrupts ? NVTD_TWIN_UNSAFE_INTERRUPTS : 0,
    };
    return nvtd_twin_create(&config, &twin);
}

static void twin_end(void)
{
    nvtd_twin_destroy(twin);
    twin = NULL;
}

static int twin_open_iommu(void)
{
    return nvtd_twin_open(twin);
}

static int twin_open_device(unsigned which)
{
    const NvtdTwinDevice device = {
        .size = sizeof(device),
        .iommu = which == FOREIGN,
        .max_pasid_bits = configuration->pasid_bits,
        .flags = configuration->flags,
        .group = which == FIRST || which == SIBLING,
    };
    return nvtd_twin_device(twin, &device);
}

static int twin_ioctl(int fd, uint32_t request, void *argument)
{
    return nvtd_twin_ioctl(twin, fd, request, argument);
}

static ssize_t twin_read(int fd, void *buffer, size_t count)
{
    return nvtd_twin_read(twin, fd, buffer, count);
}

static ssize_t twin_write(int fd, const void *buffer, size_t count)
{
    return nvtd_twin_write(twin, fd, buffer, count);
}

static int twin_poll(int fd)
{
    return nvtd_twin_poll(twin, fd);
}

static int twin_close(int fd)
{
    return nvtd_twin_close(twin, fd);
}

/* Where the device's address is in RAM, or NULL if it does not get there. */
static uint8_t *reached(int device, bool with_pasid, uint32_t pasid, uint64_t address, uint32_t access)
{
    const NvtdRequest request = {
        .size = sizeof(request),
        .address = address,
        .flags = access | (with_pasid ? NVTD_REQUEST_PASID : 0),
        .pasid = pasid,
    };
    NvtdTranslation to = { .size = sizeof(to) };
    int result = nvtd_twin_dma(twin, device, &request, &to);
    if (result)
        give_up("DMA: %s", nvtd_last_error());
    if (to.fault)
        return NULL;
    if (to.address < RAM_BASE || to.address - RAM_BASE > RAM_SIZE - PAGE)
        give_up("DMA goes to %#llx", (unsigned long long)to.address);
    return now.ram + (to.address - RAM_BASE);
}

static int twin_copy(int device, bool with_pasid, uint32_t pasid, uint64_t from, uint64_t to)
{
    /* A device that cannot read has nothing to write, but writes. */
    static const uint8_t nothing[PAGE];
    const uint8_t *source = reached(device, with_pasid, pasid, from, NVTD_REQUEST_READ);
    uint8_t *target = reached(device, with_pasid, pasid, to, NVTD_REQUEST_WRITE);
    if (target)
        memmove(target, source ? source : nothing, PAGE);
    return 0;
}

static int twin_page_request(int device, const struct page_request *r)
{
    const NvtdPageRequest request = {
        .size = sizeof(request),
        .address = r->address,
        .flags = (r->with_pasid ? NVTD_PAGE_REQUEST_PASID : 0) |
                 (r->read ? NVTD_PAGE_REQUEST_READ : 0) | (r->write ? NVTD_PAGE_REQUEST_WRITE : 0) |
                 (r->execute ? NVTD_PAGE_REQUEST_EXECUTE : 0) |
                 (r->privileged ? NVTD_PAGE_REQUEST_PRIVILEGED : 0) |
                 (r->last ? NVTD_PAGE_REQUEST_LAST : 0),
        .pasid = r->pasid,
        .group = r->group,
    };
    return nvtd_twin_page_request(twin, device, &request);
}

static int twin_page_answer(int device, struct page_answer *a)
{
    NvtdPageResponse response = { .size = sizeof(response) };
    int result = nvtd_twin_page_response(twin, device, &response);
    if (result)
        return result;
    *a = (struct page_answer){ .pasid = response.pasid, .code = response.code,
                               .with_pasid = response.flags & NVTD_PAGE_RESPONSE_PASID,
                               .group = response.group };
    return 0;
}

static int twin_unprivileged(int (*what)(void))
{
    nvtd_twin_limit(twin, 0x10000);
    int result = what();
    nvtd_twin_limit(twin, UINT64_MAX);
    return result;
}

struct host twin_host = {
    .name = "twin",
    .one_file = true,
    .begin = twin_begin,
    .end = twin_end,
    .open_iommu = twin_open_iommu,
    .open_device = twin_open_device,
    .ioctl = twin_ioctl,
    .read = twin_read,
    .write = twin_write,
    .poll = twin_poll,
    .close = twin_close,
    .copy = twin_copy,
    .unprivileged = twin_unprivileged,
    .page_request = twin_page_request,
    .page_answer = twin_page_answer,
};
