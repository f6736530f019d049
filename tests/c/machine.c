/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "machine.h"

#include <stdlib.h>

#define BLOCKED 0x59 /* the PASID entry is not present */

NvtdConfig machine_offer(uint64_t features)
{
    NvtdConfig config = { .size = sizeof(config) };

    assert_int_equal(nvtd_config_default(&config), 0);
    config.features |= features;
    config.pasid_bits = 20;
    return config;
}

struct machine *machine_new(const NvtdTwinConfig *twin, NvtdConfig offer)
{
    struct machine *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    assert_int_equal(nvtd_twin_create(twin, &m->twin), 0);
    m->iommufd = nvtd_twin_open(m->twin);
    assert_true(m->iommufd >= 0);
    offer.host = NVTD_HOST_IOMMUFD;
    offer.twin = m->twin;
    m->g = guest_new_with(&offer);
    return m;
}

void machine_free(struct machine *m)
{
    guest_free(m->g);
    nvtd_twin_destroy(m->twin);
    free(m);
}

struct slot *machine_plug_as(struct machine *m, const NvtdTwinDevice *description)
{
    struct slot *slot = &m->slots[m->count];

    assert_true(m->count < MACHINE_DEVICES);
    slot->source_id = (uint16_t)(GUEST_SID + 8 * m->count);
    slot->file = nvtd_twin_device(m->twin, description);
    assert_true(slot->file >= 0);
    m->count++;
    return slot;
}

struct slot *machine_plug(struct machine *m, uint32_t iommu)
{
    const NvtdTwinDevice description = {
        .size = sizeof(description), .iommu = iommu, .max_pasid_bits = 20,
        .flags = NVTD_TWIN_DEVICE_ATS | NVTD_TWIN_DEVICE_PRI
    };

    return machine_plug_as(m, &description);
}

NvtdDevice machine_lend(struct machine *m, const struct slot *slot)
{
    return (NvtdDevice){
        .size = sizeof(NvtdDevice), .tag = slot->source_id, .source_id = slot->source_id,
        .flags = NVTD_DEVICE_ASSIGNED | NVTD_DEVICE_IOMMUFD | NVTD_DEVICE_FD,
        .iommufd = m->iommufd, .device_fd = slot->file
    };
}

struct slot *machine_add(struct machine *m)
{
    struct slot *slot = machine_plug(m, 0);
    NvtdDevice lent = machine_lend(m, slot);

    assert_int_equal(nvtd_device_add(m->g->unit, &lent, &slot->device), 0);
    assert_int_not_equal(slot->device, 0);
    return slot;
}

void machine_remove(struct machine *m, struct slot *slot)
{
    assert_int_equal(nvtd_device_remove(m->g->unit, slot->device), 0);
    slot->device = 0;
}

uint32_t machine_bind(struct machine *m, const struct slot *slot)
{
    struct vfio_bind bind = { .argsz = sizeof(bind), .iommufd = m->iommufd };

    assert_int_equal(nvtd_twin_ioctl(m->twin, slot->file, CALL_BIND, &bind), 0);
    return bind.out_devid;
}

void machine_boot(struct machine *m)
{
    struct guest *g = m->g;

    guest_boot(g);
    for (unsigned i = 0; i < m->count; i++) {
        machine_context(m, &m->slots[i], CONTEXT_PASIDE);
    }
}

void machine_context(struct machine *m, const struct slot *slot, uint64_t bits)
{
    struct guest *g = m->g;

    guest_set_context(g, slot->source_id, g->pasid_directory | CONTEXT_PDTS(2) | bits | PRESENT,
                      0);
    machine_announce(m, QI_CONTEXT_DEVICE(0, slot->source_id));
}

struct tables machine_set_pasid(struct machine *m, uint32_t pasid, uint16_t domain, uint64_t iova,
                                uint64_t gpa)
{
    struct tables tables = tables_new(m->g, 4, FS_TABLE);

    tables_map(m->g, &tables, iova, gpa, 1, FS_LEAF);
    guest_set_first_stage(m->g, pasid, domain, tables.root);
    return tables;
}

void machine_announce(struct machine *m, uint64_t descriptor)
{
    guest_put(m->g, descriptor, 0);
    guest_sync(m->g);
}

NvtdTranslation machine_dma(struct machine *m, const struct slot *slot, uint64_t address,
                            uint32_t flags, uint32_t pasid)
{
    NvtdRequest request = { .size = sizeof(request), .address = address, .flags = flags };
    NvtdTranslation out = { .size = sizeof(out) };

    if (pasid != NO_PASID) {
        request.pasid = pasid;
        request.flags |= NVTD_REQUEST_PASID;
    }
    assert_int_equal(nvtd_twin_dma(m->twin, slot->file, &request, &out), 0);
    assert_int_equal(out.flags & (uint32_t)NVTD_TRANSLATION_STALE, 0);
    return out;
}

void expect_reaches(struct machine *m, const struct slot *slot, uint64_t address, uint32_t pasid,
                    uint64_t gpa)
{
    NvtdTranslation out = machine_dma(m, slot, address, NVTD_REQUEST_READ, pasid);

    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, gpa);
}

void expect_unreached(struct machine *m, const struct slot *slot, uint64_t address, uint32_t pasid)
{
    NvtdTranslation out = machine_dma(m, slot, address, NVTD_REQUEST_READ, pasid);

    assert_int_not_equal(out.fault, 0);
    assert_int_not_equal(out.fault, BLOCKED);
}

void expect_blocked(struct machine *m, const struct slot *slot, uint32_t pasid)
{
    assert_int_equal(machine_dma(m, slot, 0x5000, NVTD_REQUEST_READ, pasid).fault, BLOCKED);
}

NvtdTwinStats machine_stats(struct machine *m)
{
    NvtdTwinStats stats = { .size = sizeof(stats) };

    assert_int_equal(nvtd_twin_stats(m->twin, &stats), 0);
    return stats;
}

NvtdDeviceInfo machine_info(struct machine *m, const struct slot *slot)
{
    return guest_device(m->g, slot->device);
}

int64_t machine_calls(struct machine *m, uint32_t request)
{
    return nvtd_twin_calls(m->twin, request);
}

void machine_refuse(struct machine *m, uint32_t request, uint32_t error, uint64_t skip,
                    uint64_t times)
{
    NvtdTwinInjection injection = {
        .size = sizeof(injection), .request = request, .error = error, .skip = skip, .times = times
    };

    assert_int_equal(nvtd_twin_inject(m->twin, &injection), 0);
}
