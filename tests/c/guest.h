/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A guest in miniature: RAM, the tables a driver builds in it, and the register accesses by which
 * it drives the unit, in the order in which Linux makes them.
 */
#ifndef GUEST_H
#define GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nested_vtd.h"
#include "vtd.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* Guest RAM is [0, GUEST_RAM_SIZE); pages are taken from GUEST_HEAP up. */
#define GUEST_RAM_SIZE (3 * GIB)
#define NOWHERE (64 * GIB)
#define GUEST_HEAP (16 * MIB)

/* What a unit can offer: all of it, and what there is without scalable mode. */
#define FEATURES_ALL 0xfffffull
#define FEATURES_LEGACY                                                                     \
    ((uint64_t)(NVTD_FEATURE_SECOND_STAGE | NVTD_FEATURE_SECOND_STAGE_2M |                  \
                NVTD_FEATURE_SECOND_STAGE_1G | NVTD_FEATURE_SNOOP_CONTROL |                 \
                NVTD_FEATURE_DEVICE_TLB | NVTD_FEATURE_PASS_THROUGH))

#define GUEST_SID 0x0018 /* 00:03.0 */
#define GUEST_DID 5

#define FAULT_MSI_ADDRESS 0xfee01000ull
#define FAULT_MSI_DATA 0x41u
#define WAIT_MSI_ADDRESS 0xfee02000ull
#define WAIT_MSI_DATA 0x42u

struct msi {
    uint64_t address;
    uint32_t data;
};

/* Tables of one stage. `base` is what addresses in them have added, as a second stage translates
 * them. */
struct tables {
    uint64_t root;   /* where it is in RAM */
    unsigned levels; /* 3 to 5 */
    uint64_t link;   /* bits of an entry that points to a table */
    uint64_t base;
};

struct guest {
    NvtdUnit *unit;
    uint8_t *ram;
    uint64_t heap; /* next free page */

    uint32_t device; /* handle of GUEST_SID */

    /* Shadow of GCMD: the enables that stay. */
    uint32_t gcmd;
    uint64_t queue;
    uint32_t tail; /* index of the next free descriptor */
    uint64_t status;

    uint64_t root;
    uint64_t pasid_directory;
    uint64_t pasid_table;
    uint64_t pml4;

    /* If set, called from inside every callback but not from inside itself. */
    void (*reenter)(struct guest *g);
    bool inside;

    unsigned msis;
    struct msi last_msi;
    unsigned responses;
    NvtdPageResponse last_response;
    unsigned log_lines;
    unsigned events;
    unsigned forgets; /* iec_invalidate */
    struct forget {
        uint32_t global, index, mask;
    } last_forget;

    /* NvtdOps.invalidate: the last calls, what the wait's status was meanwhile, what is answered. */
    unsigned told;
    NvtdInvalidation orders[8];
    uint32_t told_status;
    int obey;

    /* NvtdOps.attach, which is -ENOSYS without it, and .watch. */
    int (*attach)(struct guest *g, const NvtdAttach *attach);
    int watched; /* -1 without a file */
};

/* Life: a unit, RAM and one device, assigned to the software host if that is selected. With iommufd
 * there is no device yet. */
struct guest *guest_new(uint32_t host, uint32_t inject);
struct guest *guest_new_with(const NvtdConfig *config);
NvtdConfig guest_config(uint64_t features, uint32_t address_width); /* 20 PASID bits */
struct guest *guest_new_features(uint64_t features, uint32_t address_width);
void guest_free(struct guest *g);
uint32_t guest_add_device(struct guest *g, uint16_t source_id, uint32_t flags);

/* Memory. */
uint64_t guest_page(struct guest *g); /* a zeroed page of RAM */
uint64_t guest_pages(struct guest *g, unsigned count);
uint64_t *guest_qword(struct guest *g, uint64_t gpa);

/* Accesses beside those of other threads; helgrind knows them by these names. */
bool guest_atomic_flag(const bool *flag);
void guest_atomic_raise(bool *flag);
void guest_atomic_store(uint64_t *qword, uint64_t value);
unsigned guest_rounds(unsigned rounds); /* fewer where NVTD_TEST_ROUNDS says so: for slow tools */

/* Registers. */
uint32_t read32(struct guest *g, uint64_t offset);
uint64_t read64(struct guest *g, uint64_t offset);
void write32(struct guest *g, uint64_t offset, uint32_t value);
void write64(struct guest *g, uint64_t offset, uint64_t value);
void guest_command(struct guest *g, uint32_t bit, bool on); /* GCMD, and wait for GSTS */

/* Boot, as Linux does it: queue, fault event, root table, tables for GUEST_SID, translation on.
 * guest_boot() does all of it with an empty first-stage table; the parts are there for tests that
 * leave the path. */
void guest_enable_queue(struct guest *g);
void guest_enable_fault_event(struct guest *g);
void guest_set_root(struct guest *g);
void guest_set_root_mode(struct guest *g, uint64_t mode); /* RTADDR_LEGACY ... */
void guest_attach(struct guest *g, uint16_t source_id, uint32_t pdts);
void guest_boot(struct guest *g);

/* A unit with translation on in any mode; in scalable mode the context entry leads to a PASID table
 * without entries, in legacy mode there is none. */
struct guest *guest_start(uint64_t features, uint32_t address_width, uint64_t mode);
struct guest *guest_started(struct guest *g, uint64_t mode); /* the same, of a new one */

/* Invalidation queue, 256-bit descriptors. */
uint64_t guest_descriptor(struct guest *g, uint32_t index); /* address of a slot */
void guest_put(struct guest *g, uint64_t qw0, uint64_t qw1); /* into the ring, tail not written */
void guest_ring(struct guest *g);                            /* write the tail */
void guest_submit(struct guest *g, uint64_t qw0, uint64_t qw1);
void guest_sync(struct guest *g); /* wait descriptor; asserts that its status arrived */
void guest_flush_pasid(struct guest *g, uint32_t pasid); /* PC and PIOTLB, PASID-selective */
void guest_flush_iova(struct guest *g, uint64_t iova, unsigned address_mask);
void guest_flush(struct guest *g); /* everything, whatever the mode */

/* Tables. Entries are written, nothing is invalidated. */
void guest_set_context(struct guest *g, uint16_t source_id, uint64_t qw0, uint64_t qw1);
void guest_set_context_bits(struct guest *g, uint64_t bits, uint32_t rid_pasid); /* and flushes */
uint64_t guest_pasid_entry(struct guest *g, uint32_t pasid); /* its address */
void guest_set_pasid_entry(struct guest *g, uint32_t pasid, uint64_t qw0, uint64_t qw1,
                           uint64_t qw2);
void guest_set_first_stage(struct guest *g, uint32_t pasid, uint16_t domain, uint64_t pml4);
uint64_t *guest_entry(struct guest *g, uint64_t iova, unsigned level); /* 4 PML4E ... 1 PTE */
void guest_map(struct guest *g, uint64_t iova, uint64_t gpa, unsigned level, uint64_t bits);

/* Tables of any mode. A stage that is not there is NULL; the bits are those of the PASID entry's
 * first and third quadword beyond what the stages need. */
void guest_set_legacy_context(struct guest *g, uint16_t source_id, uint64_t qw0, uint64_t qw1);
void guest_set_stages(struct guest *g, uint32_t pasid, const struct tables *first,
                      const struct tables *second, uint64_t bits0, uint64_t bits2);
struct tables tables_new(struct guest *g, unsigned levels, uint64_t link);
uint64_t *tables_entry(struct guest *g, const struct tables *tables, uint64_t address,
                       unsigned level); /* makes the tables above it */
void tables_map(struct guest *g, const struct tables *tables, uint64_t address, uint64_t to,
                unsigned level, uint64_t bits);

/* DMA. */
NvtdTranslation guest_dma(struct guest *g, uint32_t device, uint64_t address, uint32_t flags);
void expect_address(struct guest *g, uint64_t address, uint32_t flags, uint64_t gpa);
void expect_fault(struct guest *g, uint64_t address, uint32_t flags, uint32_t reason);
NvtdTranslation guest_ask(struct guest *g, uint32_t device, uint64_t address, uint32_t flags,
                          uint32_t pasid); /* guest_dma() for any request */
void expect_page(struct guest *g, uint64_t address, uint32_t flags, uint32_t pasid, uint64_t gpa,
                 uint64_t page_size, uint32_t permissions);
void expect_recorded(struct guest *g, uint64_t address, uint32_t flags, uint32_t pasid,
                     uint32_t reason); /* in the answer, a record, FSTS and by MSI; then cleared */
void expect_recoverable(struct guest *g, uint64_t address, uint32_t flags, uint32_t pasid,
                        uint32_t reason); /* in the answer alone */

/* What the unit says. */
NvtdStats guest_stats(struct guest *g);
NvtdDeviceInfo guest_device(struct guest *g, uint32_t device);
uint64_t fault_register(struct guest *g, unsigned index); /* offset of a fault record */
void guest_clear_faults(struct guest *g);                 /* as Linux's handler does */
void expect_error(int rc, int expected, const char *named); /* rc, and that the text names it */

#endif
