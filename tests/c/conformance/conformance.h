/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What the rules of the conformance program are written with. A rule is a function that makes calls
 * and says of each answer what it is to be; it runs with a fresh iommufd and one device bound to it.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "uapi.h"

#define PAGE 0x1000ull
#define MSI_WINDOW 0xfee00000ull

/* The device that the rules are about; another one on its IOMMU; one on another IOMMU; one in the first's
 * IOMMU group. */
enum { FIRST, SECOND, FOREIGN, SIBLING, DEVICES };

/* A page request of a device, and the answer that it gets. */
struct page_request {
    uint64_t address;
    uint32_t pasid;
    bool with_pasid, read, write, execute, privileged, last;
    uint16_t group;
};
struct page_answer {
    uint32_t pasid, code;
    bool with_pasid;
    uint16_t group;
};

/* Who answers: Linux, or the twin. Every function returns what is at least 0, or -errno. */
struct host {
    const char *name;
    /* 612 for Linux 6.12, 703 for 7.3. */
    unsigned release;
    /* Which devices there are. */
    bool has[DEVICES];
    int (*begin)(void);
    void (*end)(void);
    int (*open_iommu)(void);
    int (*open_device)(unsigned which);
    /* Opens a device by its IOMMU group's file, which goes to *group, for this iommufd. NULL if there are no
     * such files. */
    int (*open_by_group)(unsigned which, int iommu, int *group);
    int (*ioctl)(int fd, uint32_t request, void *argument);
    ssize_t (*read)(int fd, void *buffer, size_t count);
    ssize_t (*write)(int fd, const void *buffer, size_t count);
    int (*poll)(int fd);
    int (*close)(int fd);
    /* Lets a device copy a page, from one of its addresses to another. NULL if it cannot. */
    int (*copy)(int device, bool with_pasid, uint32_t pasid, uint64_t from, uint64_t to);
    /* NULL if nobody can make the device ask. */
    int (*page_request)(int device, const struct page_request *request);
    /* The next answer that the device got, or -EAGAIN. */
    int (*page_answer)(int device, struct page_answer *answer);
    /* The result of `what` for who is not root and may lock 64 KiB of memory. */
    int (*unprivileged)(int (*what)(void));
    /* Files are the process's own; a device can be opened only once at a time. */
    bool real_files, one_file;
};

/* The rule that is being checked. */
struct session {
    const struct host *host;
    int iommu, device;
    uint32_t dev_id;
    /* Of BIND. Without interrupt remapping it is -EPERM, and most rules are skipped. */
    int bound;
    /* Of GET_HW_INFO. */
    uint64_t cap, ecap, capabilities;
    unsigned max_pasid_log2;
    /* The guest's RAM, mapped by map_ram() at RAM_BASE of an IOAS. */
    uint8_t *ram;
};
extern struct session now;

struct rule {
    const char *name, *says;
    void (*check)(void);
};
extern const struct rule rules_dispatch[], rules_info[], rules_alloc[], rules_invalidate[],
    rules_dirty[], rules_fault[], rules_map[], rules_ioas[], rules_vfio[], rules_attach[],
    rules_pasid[];

/* What is in the guest's RAM, as offsets. An emulated device reaches 28 bits. */
#define RAM_BASE 0x1000000ull
#define RAM_SIZE 0x400000ull
enum { TABLE = 0, SOURCE = 0x10000, OTHER = 0x20000, TARGET = 0x30000 };
/* Where the guest's first-stage table has SOURCE; TARGET is the next page. */
#define VIRTUAL 0x8000000ull
enum { PTE_PRESENT = 1, PTE_WRITE = 2, PTE_USER = 4 };

/* Ends the rule: it cannot be seen here, and why. */
_Noreturn void skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the rule as failed: it makes no sense to go on. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The rule fails, and goes on. */
void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* `got` is a call's result and `wanted` 0 or an errno. */
void expect(int got, int wanted, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* `got` is how much a call moved, or its bits, or -errno. */
void returns(ssize_t got, size_t wanted, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void expect_number(uint64_t got, uint64_t wanted, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Does the host behave as Linux 7.3 where 6.12 differs? In between it cannot be said. */
bool as_7_3(void);
void need_7_3(const char *what);

/* What the IOMMU and the device can do. */
enum { ECAP_SC = 7, ECAP_NEST = 26, ECAP_PRS = 29, ECAP_SRS = 31, ECAP_EAFS = 34, ECAP_PASID = 40,
       ECAP_SMTS = 43, ECAP_SLADS = 45, ECAP_SLTS = 46, ECAP_FLTS = 47, ECAP_SMPWC = 48 };
enum { CAP_FL1GP = 56, CAP_FL5LP = 60 };
bool can(unsigned ecap_bit);
bool cannest(void);
bool cantrackdirty(void);
unsigned second_stage_bits(void);
void need_nesting(void);
void need_dirty_tracking(void);
void need_pasid(void);
void need_pri(void);
void need_dma(void);

/* Calls, on the rule's iommufd and device or on others. */
int call(uint32_t request, void *argument);
int call_on(int fd, uint32_t request, void *argument);
int open_device(unsigned which);
/* A device of its own, bound; its ID goes to *id. */
int bound_device(unsigned which, uint32_t *id);
int bind_device(int device, int iommu, uint32_t *id);
int close_file(int fd);
int destroy(uint32_t id);
uint32_t new_ioas(void);
int map(uint32_t ioas, uint32_t flags, const void *memory, uint64_t length, uint64_t iova);
void map_ram(uint32_t ioas);
int unmap(uint32_t ioas, uint64_t iova, uint64_t length, uint64_t *unmapped);
/* HWPT_ALLOC, with the rule's device unless `call` says otherwise. */
struct hwpt_alloc paging(uint32_t pt, uint32_t flags);
struct hwpt_alloc nested(uint32_t parent, const struct hwpt_vtd_s1 *data);
int alloc(struct hwpt_alloc *call);
uint32_t new_paging(uint32_t ioas, uint32_t flags);
uint32_t new_parent(uint32_t ioas);
uint32_t new_nested(uint32_t parent, uint32_t flags);
uint32_t new_nested_with(uint32_t parent, uint32_t flags, const struct hwpt_vtd_s1 *data);
/* IDs of the rule's objects. */
uint32_t unused_id(void);
uint32_t new_fault_queue(int *fd);
int attach(uint32_t pt);
int attach_pasid(uint32_t pt, uint32_t pasid);
int detach(void);
int detach_pasid(uint32_t pasid);
int invalidate(uint32_t hwpt, const struct hwpt_vtd_s1_invalidate *entries, uint32_t number,
               uint32_t *handled);
int invalidate_all(uint32_t hwpt);

/* The first-stage table: VIRTUAL to SOURCE, then TARGET. Returns the last level's two entries. */
uint64_t *make_tables(void);
struct hwpt_vtd_s1 tables(void);
/* Does the device get a page from one of its addresses to another, which is TARGET? */
bool copies(int device, uint64_t from, uint64_t to);
bool copies_with_pasid(int device, uint32_t pasid, uint64_t from, uint64_t to);

/* Memory that is not there, and the end of a page with such memory behind it. */
void *nowhere(void);
void *edge_of_memory(void);
/* Pages of this process, zeroed. They go when the rule ends. */
void *pages(size_t count);
void *read_only_pages(size_t count);
/* A copy of `what` in memory that can only be read. */
void *write_protected(const void *what, size_t size);

/* The backends. */
extern struct host system_host;
int system_setup(const char *iommu, const char *const devices[DEVICES]);
#ifndef NO_TWIN
extern struct host twin_host;
/* How many configurations a twin is tried with, and what they are called. */
unsigned twin_configurations(void);
const char *twin_configuration(unsigned n);
void twin_setup(unsigned release, uint64_t quirks_off, unsigned n);
#endif

#endif
