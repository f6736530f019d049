/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A machine with VT-d, played by a twin, on which a guest has devices: what a VMM does with
 * /dev/iommu and vfio.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include "guest.h"

#define MACHINE_DEVICES 8

/* Calls of <linux/iommufd.h> and <linux/vfio.h>. */
#define CALL_BIND 0x3b76u
#define CALL_ATTACH 0x3b77u
#define CALL_DETACH 0x3b78u
#define CALL_DESTROY 0x3b80u
#define CALL_IOAS_ALLOC 0x3b81u
#define CALL_MAP 0x3b85u
#define CALL_UNMAP 0x3b86u
#define CALL_HWPT_ALLOC 0x3b89u
#define CALL_HW_INFO 0x3b8au
#define CALL_SET_DIRTY 0x3b8bu
#define CALL_GET_DIRTY 0x3b8cu
#define CALL_INVALIDATE 0x3b8du
#define CALL_FAULT_QUEUE 0x3b8eu

struct vfio_bind {
    uint32_t argsz, flags;
    int32_t iommufd;
    uint32_t out_devid;
};
struct vfio_attach {
    uint32_t argsz, flags, pt_id, pasid;
};
struct vfio_detach {
    uint32_t argsz, flags, pasid;
};

#define NO_PASID UINT32_MAX

struct machine {
    NvtdTwin *twin;
    int iommufd; /* one that is lent */
    struct guest *g;
    unsigned count;
    struct slot {
        uint16_t source_id;
        int file;        /* vfio's */
        uint32_t device; /* its handle, 0 if it is not added */
    } slots[MACHINE_DEVICES];
};

/* What a unit offers here unless a test asks for something else: the defaults, and 20 PASID bits. */
NvtdConfig machine_offer(uint64_t features);
/* A host with one IOMMU that has everything, unless `twin` says otherwise. */
struct machine *machine_new(const NvtdTwinConfig *twin, NvtdConfig offer);
void machine_free(struct machine *m);

/* Plug a device into the machine and open it: 20 PASID bits, ATS and PRI, behind `iommu`. */
struct slot *machine_plug(struct machine *m, uint32_t iommu);
struct slot *machine_plug_as(struct machine *m, const NvtdTwinDevice *description);
/* How it would be added: its file and the machine's iommufd lent, not bound yet. */
NvtdDevice machine_lend(struct machine *m, const struct slot *slot);
/* Plug one, and add it to the guest so. */
struct slot *machine_add(struct machine *m);
void machine_remove(struct machine *m, struct slot *slot);
uint32_t machine_bind(struct machine *m, const struct slot *slot); /* as the VMM: its dev_id */

/* The guest's side: queue, root table, one PASID directory for all devices, translation on; the
 * requests without PASID go through g->pml4. */
void machine_boot(struct machine *m);
void machine_context(struct machine *m, const struct slot *slot, uint64_t bits);
/* A first-stage table of its own for a PASID, in which `iova` is mapped to `gpa`. */
struct tables machine_set_pasid(struct machine *m, uint32_t pasid, uint16_t domain, uint64_t iova,
                                uint64_t gpa);
void machine_announce(struct machine *m, uint64_t descriptor); /* and a wait */

/* DMA on the host, past the unit. */
NvtdTranslation machine_dma(struct machine *m, const struct slot *slot, uint64_t address,
                            uint32_t flags, uint32_t pasid);
void expect_reaches(struct machine *m, const struct slot *slot, uint64_t address, uint32_t pasid,
                    uint64_t gpa);
void expect_unreached(struct machine *m, const struct slot *slot, uint64_t address, uint32_t pasid);
void expect_blocked(struct machine *m, const struct slot *slot, uint32_t pasid);

/* What there is, and what was done. */
NvtdTwinStats machine_stats(struct machine *m);
NvtdDeviceInfo machine_info(struct machine *m, const struct slot *slot);
int64_t machine_calls(struct machine *m, uint32_t request);
void machine_refuse(struct machine *m, uint32_t request, uint32_t error, uint64_t skip,
                    uint64_t times);

#endif
