/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * nested-vtd: an emulated Intel VT-d remapping unit for a VMM to link.
 * Generated from src/ffi by `cargo xtask header`; do not edit.
 *
 * Use: nvtd_unit_create() with a table of callbacks, nvtd_ram_add() for the
 * guest's RAM, nvtd_device_add() for each device behind the unit. Then hand the
 * guest's accesses to the register window to nvtd_mmio_read() and
 * nvtd_mmio_write(), and ask nvtd_translate() where each DMA goes.
 *
 * Threads: every function may be called on any thread, several at once, unless
 * its description says otherwise. The unit starts no thread: all work is done
 * inside a call, on the caller's thread.
 *
 * Callbacks (NvtdOps) are made from inside a call with no lock of the unit held,
 * so they may take the VMM's own locks; what they may call back is said there.
 *
 * Errors: a function that can fail returns 0 or a negative errno, and
 * nvtd_last_error() then describes it for people. Only misuse by the VMM is an
 * error. What the guest does wrong becomes what hardware would make of it: a
 * fault, a queue error or an ignored access.
 *
 * Growth: structures that begin with `size` only ever grow at their end. Set
 * `size` to sizeof the structure and all else that you do not mean to 0: an older
 * caller then works with a newer archive, and a newer caller with an older one.
 */

#ifndef NESTED_VTD_H
#define NESTED_VTD_H

#include <stddef.h>
#include <stdint.h>

/**
 * Version of this interface: major in the upper 16 bits, minor in the lower.
 * A caller refuses to run when nvtd_abi_version() reports another major number.
 */
#define NVTD_ABI_VERSION 65536

/**
 * Size in bytes of the register window that nvtd_mmio_read() and
 * nvtd_mmio_write() serve; map it page-aligned.
 */
#define NVTD_MMIO_SIZE 4096

/**
 * NvtdConfig.host: no host behind the unit. The unit walks the guest's tables
 * itself for every device.
 */
#define NVTD_HOST_NONE 0

/**
 * NvtdConfig.host: the embedded software host. It plays an iommufd kernel and
 * its VT-d hardware for every device added with NVTD_DEVICE_ASSIGNED.
 */
#define NVTD_HOST_SOFT 1

/**
 * NvtdConfig.host: iommufd. First-stage tables of devices added with
 * NVTD_DEVICE_ASSIGNED are handed to the kernel, or to NvtdConfig.twin in its place.
 */
#define NVTD_HOST_IOMMUFD 2

/**
 * NvtdConfig.features: report CAP.CM, so that the guest announces PASID-table
 * entries that become present. Required when config.host is not NVTD_HOST_NONE.
 */
#define NVTD_FEATURE_CACHING_MODE 1

/**
 * NvtdConfig.features: report CAP.FS1GP, 1 GiB pages in first-stage tables.
 * Without NVTD_FEATURE_FIRST_STAGE it has no effect.
 */
#define NVTD_FEATURE_FS1GP 2

/**
 * NvtdConfig.features: report ECAP.PT, pass-through entries.
 */
#define NVTD_FEATURE_PASS_THROUGH 4

/**
 * NvtdConfig.features: report ECAP.SMTS, scalable mode. Without it the guest has
 * legacy mode only.
 */
#define NVTD_FEATURE_SCALABLE_MODE 8

/**
 * NvtdConfig.features: report ECAP.FSTS, first-stage tables, and CAP.FS5LP if
 * address_width is 57. Needs scalable mode.
 */
#define NVTD_FEATURE_FIRST_STAGE 16

/**
 * NvtdConfig.features: report CAP.SAGAW and ECAP.SSTS, second-stage tables, and
 * with them legacy mode. Not with a host.
 */
#define NVTD_FEATURE_SECOND_STAGE 32

/**
 * NvtdConfig.features: report ECAP.NEST, first-stage tables over second-stage
 * tables. Needs both.
 */
#define NVTD_FEATURE_NESTED 64

/**
 * NvtdConfig.features: report CAP.SSLPS for 2 MiB second-stage pages.
 */
#define NVTD_FEATURE_SECOND_STAGE_2M 128

/**
 * NvtdConfig.features: report CAP.SSLPS for 1 GiB second-stage pages.
 */
#define NVTD_FEATURE_SECOND_STAGE_1G 256

/**
 * NvtdConfig.features: report ECAP.SC, snoop control.
 */
#define NVTD_FEATURE_SNOOP_CONTROL 512

/**
 * NvtdConfig.features: report ECAP.SSADS, accessed and dirty bits of second-stage
 * entries. Needs second-stage tables and scalable mode.
 */
#define NVTD_FEATURE_SECOND_STAGE_AD 1024

/**
 * NvtdConfig.features: report ECAP.DT, device TLBs (ATS).
 */
#define NVTD_FEATURE_DEVICE_TLB 2048

/**
 * NvtdConfig.features: report ECAP.PRS and ECAP.PDS, page requests (PRI). Needs
 * device TLBs and scalable mode.
 */
#define NVTD_FEATURE_PAGE_REQUEST 4096

/**
 * NvtdConfig.features: report ECAP.IR, interrupt remapping.
 */
#define NVTD_FEATURE_INTERRUPT_REMAPPING 8192

/**
 * NvtdConfig.features: report ECAP.EIM, x2APIC destinations. Needs interrupt
 * remapping.
 */
#define NVTD_FEATURE_EXTENDED_INTERRUPT_MODE 16384

/**
 * NvtdConfig.features: report ECAP.EAFS, the extended accessed bit of first-stage
 * entries.
 */
#define NVTD_FEATURE_EXTENDED_ACCESSED 32768

/**
 * NvtdConfig.features: report ECAP.SRS, privileged requests. Needs first-stage
 * tables and PASIDs.
 */
#define NVTD_FEATURE_SUPERVISOR_REQUEST 65536

/**
 * NvtdConfig.features: report ECAP.ERS, execute requests. Needs first-stage tables
 * and PASIDs.
 */
#define NVTD_FEATURE_EXECUTE_REQUEST 131072

/**
 * NvtdConfig.features: report ECAP.RPS, RID_PASID of context entries. Needs
 * scalable mode.
 */
#define NVTD_FEATURE_RID_PASID 262144

/**
 * NvtdConfig.features: report ECAP.ADMS, abort-DMA mode. Needs scalable mode.
 */
#define NVTD_FEATURE_ABORT_DMA 524288

/**
 * NvtdConfig.inject: drop every invalidation on its way to the host, while the
 * guest is told that it completed. For proving that a test notices.
 */
#define NVTD_INJECT_DROP_INVALIDATIONS 1

/**
 * NvtdConfig.inject: the software host refuses every nested HWPT allocation
 * with ENOMEM. For proving that a refused device ends blocked.
 */
#define NVTD_INJECT_REFUSE_ALLOC 2

/**
 * NvtdConfig.checks: an oracle beside the unit's own caches. At each use of a cached
 * translation the tables are walked once more, without setting bits; one that a fresh
 * walk contradicts, with no invalidation in between, is counted in
 * NvtdStats.stale_uses. Costs a walk for each request. The software host's hardware
 * is checked so in any case.
 */
#define NVTD_CHECK_CACHED_USES 1

/**
 * nvtd_ram_add() flags: the region cannot be written by devices.
 */
#define NVTD_RAM_READ_ONLY 1

/**
 * NvtdDevice.flags: the device belongs to the host selected in NvtdConfig; its
 * DMA goes through the HWPT that the host installed for it.
 */
#define NVTD_DEVICE_ASSIGNED 1

/**
 * NvtdDevice.flags: NvtdDevice.iommufd is an open file. Only with
 * NVTD_DEVICE_ASSIGNED.
 */
#define NVTD_DEVICE_IOMMUFD 2

/**
 * NvtdDevice.flags: NvtdDevice.device_fd is an open file. Only with
 * NVTD_DEVICE_ASSIGNED.
 */
#define NVTD_DEVICE_FD 4

/**
 * NvtdDevice.flags: NvtdDevice.source_id holds for the life of the device, and
 * NvtdOps.source_id is not called for it.
 */
#define NVTD_DEVICE_FIXED_ID 8

/**
 * NvtdRequest.flags: the request reads memory.
 */
#define NVTD_REQUEST_READ 1

/**
 * NvtdRequest.flags: the request writes memory.
 */
#define NVTD_REQUEST_WRITE 2

/**
 * NvtdRequest.flags: a debugger's look. No fault is recorded, no accessed or
 * dirty bit is set, nothing is cached.
 */
#define NVTD_REQUEST_DEBUG 4

/**
 * NvtdRequest.flags: the request has the PASID in NvtdRequest.pasid.
 */
#define NVTD_REQUEST_PASID 8

/**
 * NvtdRequest.flags: the request fetches instructions. Only with PASID.
 */
#define NVTD_REQUEST_EXECUTE 16

/**
 * NvtdRequest.flags: the request is privileged. Only with PASID.
 */
#define NVTD_REQUEST_PRIVILEGED 32

/**
 * NvtdRequest.flags: an ATS translation request; NVTD_REQUEST_WRITE then says that
 * its no-write flag is clear.
 */
#define NVTD_REQUEST_TRANSLATION 64

/**
 * NvtdRequest.flags: an ATS translated request. Not with
 * NVTD_REQUEST_TRANSLATION.
 */
#define NVTD_REQUEST_TRANSLATED 128

/**
 * NvtdTranslation.permissions: reading is allowed.
 */
#define NVTD_PERMISSION_READ 1

/**
 * NvtdTranslation.permissions: writing is allowed.
 */
#define NVTD_PERMISSION_WRITE 2

/**
 * NvtdTranslation.permissions: fetching instructions is allowed.
 */
#define NVTD_PERMISSION_EXECUTE 4

/**
 * NvtdTranslation.permissions: these are the permissions of privileged requests.
 */
#define NVTD_PERMISSION_PRIVILEGED 8

/**
 * NvtdTranslation.permissions: the translation is global (G of the leaf).
 */
#define NVTD_PERMISSION_GLOBAL 16

/**
 * NvtdTranslation.permissions: a translation request's answer holds for
 * untranslated requests only (U): the address is in the interrupt range.
 */
#define NVTD_PERMISSION_UNTRANSLATED 32

/**
 * NvtdTranslation.flags: the fault of a translation request is recoverable. It was
 * not recorded; the device may send a page request and try again.
 */
#define NVTD_TRANSLATION_RECOVERABLE 1

/**
 * NvtdPageRequest.flags: the page is to be read.
 */
#define NVTD_PAGE_REQUEST_READ 1

/**
 * NvtdPageRequest.flags: the page is to be written.
 */
#define NVTD_PAGE_REQUEST_WRITE 2

/**
 * NvtdPageRequest.flags: the page is to be executed. Only with PASID and READ.
 */
#define NVTD_PAGE_REQUEST_EXECUTE 4

/**
 * NvtdPageRequest.flags: the page is for privileged mode. Only with PASID.
 */
#define NVTD_PAGE_REQUEST_PRIVILEGED 8

/**
 * NvtdPageRequest.flags: the request has the PASID in NvtdPageRequest.pasid.
 */
#define NVTD_PAGE_REQUEST_PASID 16

/**
 * NvtdPageRequest.flags: the last request of its group. With neither READ nor
 * WRITE it is a stop marker, which is never answered.
 */
#define NVTD_PAGE_REQUEST_LAST 32

/**
 * NvtdPageResponse.flags: NvtdPageResponse.pasid is that of the requests.
 */
#define NVTD_PAGE_RESPONSE_PASID 1

/**
 * NvtdPageResponse.code: the pages are there; the device is to ask for their
 * translations again.
 */
#define NVTD_PAGE_RESPONSE_SUCCESS 0

/**
 * NvtdPageResponse.code: a page of the group is not to be had.
 */
#define NVTD_PAGE_RESPONSE_INVALID 1

/**
 * NvtdPageResponse.code: the device is to stop asking for pages.
 */
#define NVTD_PAGE_RESPONSE_FAILURE 15

/**
 * NvtdDeviceInfo.state: the unit walks the guest's tables itself (no host).
 */
#define NVTD_STATE_DIRECT 0

/**
 * NvtdDeviceInfo.state: attached to the nesting parent (guest-physical
 * addresses): translation is off or the PASID-table entry is pass-through.
 */
#define NVTD_STATE_PARENT 1

/**
 * NvtdDeviceInfo.state: attached to a nested HWPT.
 */
#define NVTD_STATE_NESTED 2

/**
 * NvtdDeviceInfo.state: detached from everything; all DMA is blocked.
 */
#define NVTD_STATE_BLOCKED 3

/**
 * NvtdOps.log level: something failed that the operator should know of.
 */
#define NVTD_LOG_ERROR 0

/**
 * NvtdOps.log level: unusual but handled.
 */
#define NVTD_LOG_WARN 1

/**
 * NvtdOps.log level: a change of state worth a line.
 */
#define NVTD_LOG_INFO 2

/**
 * NvtdAttach.flags: the requests with the PASID in NvtdAttach.pasid; without it
 * those without PASID.
 */
#define NVTD_ATTACH_PASID 1

/**
 * NvtdAttach.flags: detach; NvtdAttach.hwpt is 0.
 */
#define NVTD_ATTACH_DETACH 2

/**
 * NvtdInvalidation.flags: the device's TLB is to forget (types 3 and 8); without it
 * whoever keeps answers of the unit, as vfio's mappings and vhost's tables are.
 */
#define NVTD_INVALIDATION_DEVICE_TLB 1

/**
 * NvtdInvalidation.flags: translations of the PASID in NvtdInvalidation.pasid.
 */
#define NVTD_INVALIDATION_PASID 2

/**
 * NvtdInvalidation.flags: translations with and without PASID.
 */
#define NVTD_INVALIDATION_ALL_PASIDS 4

/**
 * nvtd_device_notify() flags: call NvtdOps.invalidate for translations of the unit.
 */
#define NVTD_NOTIFY_UNIT 1

/**
 * nvtd_device_notify() flags: call NvtdOps.invalidate for the device's TLB.
 */
#define NVTD_NOTIFY_DEVICE_TLB 2

/**
 * NvtdDump.kind: the registers, as Linux's iommu_regset lists them. `address` is
 * where the guest has the register window; it is only printed.
 */
#define NVTD_DUMP_REGISTERS 1

/**
 * NvtdDump.kind: the invalidation queue, as Linux's invalidation_queue lists it.
 */
#define NVTD_DUMP_QUEUE 2

/**
 * NvtdDump.kind: root, context and PASID entries, as Linux's
 * dmar_translation_struct lists them; those of `device`, or with 0 all of them.
 */
#define NVTD_DUMP_TABLES 3

/**
 * NvtdDump.kind: each entry that a request of `device` (with `pasid`, if
 * NVTD_DUMP_PASID) for `address` would read, from the root entry to the leaf, and
 * what would come of reading and of writing. The tables are walked as they are
 * now, whatever is cached.
 */
#define NVTD_DUMP_WALK 4

/**
 * NvtdDump.kind: what the tables of `device` (of `pasid`, if NVTD_DUMP_PASID) map
 * from `address` to `last` (0: to the end), as Linux's domain_translation_struct
 * lists it. With nested translation first, as Linux does, all of the second stage,
 * then the first.
 */
#define NVTD_DUMP_MAPPINGS 5

/**
 * NvtdDump.kind: the interrupt remapping table, as Linux's ir_translation_struct
 * lists it.
 */
#define NVTD_DUMP_INTERRUPTS 6

/**
 * NvtdDump.flags: the requests have the PASID in `pasid`; without it they have none.
 */
#define NVTD_DUMP_PASID 1

/**
 * nvtd_dirty_bitmap() flags: ask without making the pages clean.
 */
#define NVTD_DIRTY_KEEP 1

/**
 * NvtdMsi.flags: only look. No fault is recorded, nothing is counted or cached.
 */
#define NVTD_MSI_DEBUG 1

/**
 * NvtdMsi.flags: the write has the PASID in NvtdMsi.pasid. It is no interrupt request
 * then and always refused.
 */
#define NVTD_MSI_PASID 2

/**
 * NvtdMsi.flags: do not compare source_id with the table entry (SVT), for a VMM that
 * cannot tell the requester. With it any requester may use any entry.
 */
#define NVTD_MSI_UNVERIFIED 4

/**
 * NvtdMsiAnswer.flags: the interrupt is that of a table entry. Without it, and
 * without a fault, the request is to be delivered as it is.
 */
#define NVTD_MSI_REMAPPED 1

/**
 * Flag of nvtd_for_each_mapping(): it is about requests with the PASID that is
 * given; without it about those that have none.
 */
#define NVTD_MAPPING_PASID 1

/**
 * NvtdTwinConfig.kernel: the twin plays Linux 7.3.
 */
#define NVTD_TWIN_LINUX_7_3 0

/**
 * NvtdTwinConfig.kernel: the twin plays Linux 6.12.
 */
#define NVTD_TWIN_LINUX_6_12 1

/**
 * NvtdTwinConfig.quirks_off: a failed attach leaves the device blocked, though the
 * HWPT that it had stays on record. With the bit set it changes nothing.
 */
#define NVTD_TWIN_QUIRK_FAILED_ATTACH_BLOCKS 1

/**
 * NvtdTwinConfig.quirks_off: attaching the HWPT that is on record does nothing and
 * succeeds. With the bit set the hardware is programmed again.
 */
#define NVTD_TWIN_QUIRK_SAME_HWPT_IGNORED 2

/**
 * NvtdTwinConfig.quirks_off: an invalidation covers the power of two around its
 * range. With the bit set it covers the range.
 */
#define NVTD_TWIN_QUIRK_WIDE_INVALIDATION 4

/**
 * NvtdTwinConfig.quirks_off: maps that cannot be written are refused below a
 * nesting parent. With the bit set they are not.
 */
#define NVTD_TWIN_QUIRK_READ_ONLY_REFUSED 8

/**
 * NvtdTwinConfig.quirks_off: an HWPT without flags is a first-stage one. With the
 * bit set it is a second-stage one.
 */
#define NVTD_TWIN_QUIRK_FIRST_STAGE_DEFAULT 16

/**
 * NvtdTwinConfig.quirks_off: PASID 0 is what a device has without PASID. With the
 * bit set attaching it is refused.
 */
#define NVTD_TWIN_QUIRK_PASID_ZERO 32

/**
 * NvtdTwinConfig.quirks_off: attaching a PASID of a device without PASIDs succeeds
 * and does nothing. With the bit set it is refused.
 */
#define NVTD_TWIN_QUIRK_PASID_OF_NONE 64

/**
 * NvtdTwinConfig.quirks_off: records of page requests with PASID have flag 4 set.
 * With the bit set they do not.
 */
#define NVTD_TWIN_QUIRK_FAULT_FLAG 128

/**
 * NvtdTwinConfig.quirks_off: a failed replacement lifts the reservation of the
 * interrupt window. With the bit set it stays.
 */
#define NVTD_TWIN_QUIRK_UNRESERVE 256

/**
 * NvtdTwinConfig.flags: devices' interrupts cannot be kept apart (there is no
 * interrupt remapping), so that binding a device is refused.
 */
#define NVTD_TWIN_UNSAFE_INTERRUPTS 1

/**
 * NvtdTwinDevice.flags: the device has a device TLB (ATS).
 */
#define NVTD_TWIN_DEVICE_ATS 1

/**
 * NvtdTwinDevice.flags: the device requests pages (PRI). Needs ATS.
 */
#define NVTD_TWIN_DEVICE_PRI 2

/**
 * NvtdTwinInjection.flags: an attach that fails leaves the device blocked.
 */
#define NVTD_TWIN_INJECT_BLOCKED 1

/**
 * NvtdTranslation.flags, of nvtd_twin_dma() only: the answer came from the cache.
 */
#define NVTD_TRANSLATION_CACHED 2

/**
 * NvtdTranslation.flags, of nvtd_twin_dma() only: the answer came from the cache and
 * the tables say otherwise; an invalidation was forgotten.
 */
#define NVTD_TRANSLATION_STALE 4

/**
 * A twin of the kernel's iommufd and vfio, and the VT-d hardware below it: opaque,
 * made by nvtd_twin_create() and ended by nvtd_twin_destroy(). It answers the ioctls
 * of <linux/iommufd.h> and <linux/vfio.h> as Linux does, so that what drives
 * /dev/iommu can be tested where there is none.
 */
typedef struct NvtdTwin NvtdTwin;

/**
 * One remapping unit: opaque, made by nvtd_unit_create() and ended by
 * nvtd_unit_destroy().
 */
typedef struct NvtdUnit NvtdUnit;

/**
 * What the unit is to be. Start from nvtd_config_default().
 */
typedef struct NvtdConfig {
  /**
   * sizeof(NvtdConfig); fields beyond it take their default.
   */
  size_t size;
  /**
   * One of NVTD_HOST_*.
   */
  uint32_t host;
  /**
   * NVTD_INJECT_* bits; 0 outside of tests.
   */
  uint32_t inject;
  /**
   * NVTD_FEATURE_* bits.
   */
  uint64_t features;
  /**
   * Width in bits of guest-physical addresses, and of the widest second-stage
   * tables: 39, 48 or 57, or 0 for 48.
   */
  uint32_t address_width;
  /**
   * Width in bits of PASIDs, 1 to 20 (ECAP.PSS plus 1), or 0: requests with PASID
   * are not supported.
   */
  uint32_t pasid_bits;
  /**
   * With NVTD_HOST_IOMMUFD: the twin that answers system calls in the kernel's place,
   * which must outlive the unit; NULL for the kernel.
   */
  struct NvtdTwin *twin;
  /**
   * NVTD_CHECK_* bits; 0 outside of tests.
   */
  uint32_t checks;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} NvtdConfig;

/**
 * The answer to a page request group, given to NvtdOps.page_response.
 */
typedef struct NvtdPageResponse {
  /**
   * sizeof(NvtdPageResponse).
   */
  size_t size;
  /**
   * NvtdDevice.tag of the device.
   */
  uint64_t tag;
  /**
   * Handle of the device.
   */
  uint32_t device;
  /**
   * NVTD_PAGE_RESPONSE_PASID or 0.
   */
  uint32_t flags;
  /**
   * PASID of the group's requests, 0 if they had none.
   */
  uint32_t pasid;
  /**
   * Page request group index.
   */
  uint16_t group;
  /**
   * One of NVTD_PAGE_RESPONSE_SUCCESS, INVALID and FAILURE.
   */
  uint16_t code;
} NvtdPageResponse;

/**
 * Translations to be forgotten, for NvtdOps.invalidate.
 */
typedef struct NvtdInvalidation {
  /**
   * sizeof(NvtdInvalidation).
   */
  size_t size;
  /**
   * The VMM's own name for the device (NvtdDevice.tag).
   */
  uint64_t tag;
  /**
   * Handle of the device.
   */
  uint32_t device;
  /**
   * NVTD_INVALIDATION_* bits.
   */
  uint32_t flags;
  /**
   * PASID with NVTD_INVALIDATION_PASID, else 0.
   */
  uint32_t pasid;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * First byte address, a multiple of 4096.
   */
  uint64_t address;
  /**
   * Last byte address.
   */
  uint64_t last;
} NvtdInvalidation;

/**
 * What is to be attached, for NvtdOps.attach.
 */
typedef struct NvtdAttach {
  /**
   * sizeof(NvtdAttach).
   */
  size_t size;
  /**
   * The VMM's own name for the device (NvtdDevice.tag).
   */
  uint64_t tag;
  /**
   * NVTD_ATTACH_* bits.
   */
  uint32_t flags;
  /**
   * PASID with NVTD_ATTACH_PASID, else 0.
   */
  uint32_t pasid;
  /**
   * ID of the HWPT (pt_id of VFIO_DEVICE_ATTACH_IOMMUFD_PT), which replaces the one
   * that was attached.
   */
  uint32_t hwpt;
  /**
   * Always 0.
   */
  uint32_t reserved;
} NvtdAttach;

/**
 * Callbacks into the VMM, given to nvtd_unit_create() and copied there.
 *
 * Every callback gets the `opaque` of nvtd_unit_create() and is called from
 * inside a call into the unit, on that call's thread, with no lock of the unit
 * held. The unit starts no thread. Unless a callback says otherwise it may call
 * any nvtd_ function but nvtd_unit_destroy().
 *
 * `size` is sizeof(NvtdOps) as the caller was compiled; callbacks are only ever
 * appended, and those beyond `size` count as NULL.
 */
typedef struct NvtdOps {
  /**
   * sizeof(NvtdOps).
   */
  size_t size;
  /**
   * Required. Deliver a message-signalled interrupt: write `data` (32 bits) to
   * `address`. Called from nvtd_mmio_write() (invalidation and fault events), from
   * nvtd_translate() and nvtd_remap_msi() (fault events) and from
   * nvtd_page_request() (all events), so possibly on any thread.
   */
  void (*msi)(void *opaque, uint64_t address, uint32_t data);
  /**
   * Optional. One line of text for the operator, without a newline; `level` is
   * one of NVTD_LOG_*. The text is valid during the call only. Lines that a
   * guest can cause are limited in number. Also called, with NVTD_LOG_ERROR,
   * just before the process aborts on an internal error; in that case it must
   * not call back into the unit.
   */
  void (*log)(void *opaque, uint32_t level, const char *message);
  /**
   * Optional. One trace event: `event` is a number that nvtd_event_name()
   * names; the meaning of a, b and c is listed with the event in
   * docs/events.md. Called very often when something listens; keep it short.
   */
  void (*event)(void *opaque, uint32_t event, uint64_t a, uint64_t b, uint64_t c);
  /**
   * Optional. The present requester ID (bus << 8 | devfn) of the device that was
   * added with `tag`. A VMM whose guest can renumber buses gives it; without it, and
   * with NVTD_DEVICE_FIXED_ID, NvtdDevice.source_id holds for the life of the device. Must not call
   * back into the unit. Called on any thread that calls into the unit;
   * nvtd_translate() and nvtd_device_info() ask for their own device only.
   */
  uint16_t (*source_id)(void *opaque, uint64_t tag);
  /**
   * Optional. What nvtd_remap_msi() answered is to be forgotten and asked for
   * again: every answer if `global` is 1, else (0) those to requests whose table
   * index is in the block of 2^mask entries, aligned to that number, that `index` is
   * in. `mask` is 0 to 15. Called from nvtd_mmio_write() when the guest invalidates
   * interrupt entries, sets another table or switches interrupt remapping, and from
   * nvtd_unit_reset(). The guest is told that an invalidation is complete when this
   * has returned. A VMM that keeps answers, as for KVM's routes, gives it.
   */
  void (*iec_invalidate)(void *opaque, uint32_t global, uint32_t index, uint32_t mask);
  /**
   * Optional. A page request group of a device is answered; *response is valid
   * during the call only. Called from nvtd_mmio_write() for the guest's answers,
   * whose wait completes only when this returns, and from nvtd_page_request() for
   * those that the unit gives by itself. A VMM with devices that ask for pages
   * gives it.
   */
  void (*page_response)(void *opaque, const struct NvtdPageResponse *response);
  /**
   * Optional. Translations of a device are to be forgotten before this returns: the
   * guest's wait completes only then. *invalidation is valid during the call only.
   * Called from nvtd_mmio_write() and nvtd_unit_reset(), for devices for which
   * nvtd_device_notify() asked for it.
   *
   * Returns 0. For a device TLB (NVTD_INVALIDATION_DEVICE_TLB) also -ETIMEDOUT: it
   * did not answer; the guest is told so (FSTS.ITE), and its wait is aborted; or
   * another negative errno: it answered wrongly (FSTS.ICE).
   */
  int (*invalidate)(void *opaque, const struct NvtdInvalidation *invalidation);
  /**
   * Needed for assigned devices without NvtdDevice.device_fd: attach the device to
   * an HWPT of its iommufd, or detach it. *attach is valid during the call only.
   * The one callback that is made while the unit is locked, as if it were the
   * system call it stands for: it must not call back into the unit.
   *
   * Returns 0 or a negative errno. When attaching fails the requests are blocked.
   */
  int (*attach)(void *opaque, const struct NvtdAttach *attach);
  /**
   * Needed for page requests of assigned devices: call nvtd_host_faults() whenever
   * the file `fd` is readable (`on` is 1), or do so no longer (0), before it is
   * closed. Called from nvtd_device_add(), nvtd_device_remove() and
   * nvtd_unit_destroy().
   */
  void (*watch)(void *opaque, int fd, uint32_t on);
  /**
   * Optional. Does anything listen to `event` at present (1), or not (0)? Asked before
   * the unit works through a queue, whose events are collected first; without it
   * something always listens. Must not call back into the unit.
   */
  uint32_t (*wants_events)(void *opaque);
  /**
   * Optional. The unit has done as much of the guest's queue as one call may, and left
   * the rest: call nvtd_work() soon, from where the VMM does what can wait (a bottom
   * half, another thread), so that nobody waits long for the VMM's locks. Must not
   * call back into the unit. Without it the rest is done when the guest next reads or
   * writes IQT, IQH or FSTS, which one that waits in memory may not do.
   */
  void (*more_work)(void *opaque);
} NvtdOps;

/**
 * A device behind the unit, for nvtd_device_add().
 */
typedef struct NvtdDevice {
  /**
   * sizeof(NvtdDevice).
   */
  size_t size;
  /**
   * The VMM's own name for the device, handed back to NvtdOps.source_id.
   */
  uint64_t tag;
  /**
   * Requester ID (bus << 8 | devfn); used when NvtdOps.source_id is NULL, or with
   * NVTD_DEVICE_FIXED_ID.
   */
  uint16_t source_id;
  /**
   * Must be 0.
   */
  uint16_t reserved;
  /**
   * NVTD_DEVICE_* bits.
   */
  uint32_t flags;
  /**
   * With NVTD_DEVICE_IOMMUFD: the iommufd that the device is or is to be bound to,
   * which stays open until the device is removed. Without it the unit opens one for
   * itself. Devices of one iommufd share one IOAS.
   */
  int iommufd;
  /**
   * With NVTD_DEVICE_FD: the device's vfio file, through which it is attached, open
   * until the device is removed. Without it NvtdOps.attach is called instead, or the
   * software host plugs a device in.
   */
  int device_fd;
  /**
   * With NVTD_DEVICE_IOMMUFD: ID of the device on that iommufd (out_devid of VFIO_DEVICE_BIND_IOMMUFD); 0 if
   * the unit is to bind device_fd itself, which cannot be undone but by closing it.
   */
  uint32_t dev_id;
  /**
   * Must be 0.
   */
  uint32_t reserved2;
} NvtdDevice;

/**
 * State of one device, from nvtd_device_info(). Fields beyond the caller's
 * `size` are left out.
 */
typedef struct NvtdDeviceInfo {
  /**
   * sizeof(NvtdDeviceInfo), set by the caller.
   */
  size_t size;
  /**
   * Requester ID (bus << 8 | devfn).
   */
  uint16_t source_id;
  /**
   * Domain ID in the PASID-table entry in use, 0 without one.
   */
  uint16_t domain_id;
  /**
   * One of NVTD_STATE_*.
   */
  uint32_t state;
  /**
   * PGTT of the PASID-table entry in use (VT-d 9.6: 1 first-stage, 2
   * second-stage, 3 nested, 4 pass-through), or what a legacy context entry
   * corresponds to; 0 without one.
   */
  uint32_t pgtt;
  /**
   * ID of the host's HWPT the device is attached to, 0 without one.
   */
  uint32_t hwpt;
  /**
   * Address of the topmost table in use (of the first stage, if there is one), 0
   * without one.
   */
  uint64_t table;
  /**
   * 0, or the errno (positive) with which the host refused this device's
   * configuration; the device is then NVTD_STATE_BLOCKED.
   */
  uint32_t host_errno;
  /**
   * Number of the ioctl that the host refused (0x3b77 is
   * VFIO_DEVICE_ATTACH_IOMMUFD_PT), 0 without.
   */
  uint32_t host_request;
  /**
   * Requests translated since the device was added or the unit reset.
   */
  uint64_t translations;
  /**
   * Of these, answered from the host's translation cache.
   */
  uint64_t cache_hits;
  /**
   * Requests refused with a fault.
   */
  uint64_t faults;
  /**
   * Cached translations that were used although a fresh walk answers otherwise.
   */
  uint64_t stale_uses;
  /**
   * PASIDs of this device that are attached on the host.
   */
  uint32_t pasids;
  /**
   * PASIDs of this device whose configuration the host refused; they are blocked.
   */
  uint32_t pasids_blocked;
} NvtdDeviceInfo;

/**
 * One DMA request, for nvtd_translate().
 */
typedef struct NvtdRequest {
  /**
   * sizeof(NvtdRequest).
   */
  size_t size;
  /**
   * Address the device put on the bus.
   */
  uint64_t address;
  /**
   * NVTD_REQUEST_* bits; at least one of READ and WRITE.
   */
  uint32_t flags;
  /**
   * PASID (20 bits) with NVTD_REQUEST_PASID, else 0.
   */
  uint32_t pasid;
} NvtdRequest;

/**
 * Answer of nvtd_translate(). Fields beyond the caller's `size` are left out.
 */
typedef struct NvtdTranslation {
  /**
   * sizeof(NvtdTranslation), set by the caller.
   */
  size_t size;
  /**
   * Guest-physical address of the request's byte; 0 with a fault.
   */
  uint64_t address;
  /**
   * Size in bytes, a power of two from 4096, of the naturally aligned page around
   * `address` for which the answer holds; 4096 with a fault.
   */
  uint64_t page_size;
  /**
   * NVTD_PERMISSION_* bits of that page; 0 with a fault.
   */
  uint32_t permissions;
  /**
   * 0, or the fault reason (VT-d 7.1.3) with which the request was refused.
   */
  uint32_t fault;
  /**
   * 0, or a finer reason, named by nvtd_diagnostic_name().
   */
  uint32_t diagnostic;
  /**
   * NVTD_TRANSLATION_* bits.
   */
  uint32_t flags;
} NvtdTranslation;

/**
 * A device's request for a page (PCI Express PRI), for nvtd_page_request().
 */
typedef struct NvtdPageRequest {
  /**
   * sizeof(NvtdPageRequest).
   */
  size_t size;
  /**
   * Any address in the page, untranslated.
   */
  uint64_t address;
  /**
   * NVTD_PAGE_REQUEST_* bits.
   */
  uint32_t flags;
  /**
   * PASID (20 bits) with NVTD_PAGE_REQUEST_PASID, else 0.
   */
  uint32_t pasid;
  /**
   * Page request group index (9 bits).
   */
  uint16_t group;
  /**
   * Must be 0.
   */
  uint16_t reserved;
  /**
   * Must be 0.
   */
  uint32_t reserved2;
} NvtdPageRequest;

/**
 * Counters of the unit since it was created or reset, from nvtd_stats().
 * Fields beyond the caller's `size` are left out; fields are only appended.
 */
typedef struct NvtdStats {
  /**
   * sizeof(NvtdStats), set by the caller.
   */
  size_t size;
  /**
   * Requests given to nvtd_translate(), debug looks excepted.
   */
  uint64_t translations;
  /**
   * Of these, answered from a translation cache.
   */
  uint64_t cache_hits;
  /**
   * Table walks made.
   */
  uint64_t walks;
  /**
   * Cached translations that were used although a fresh walk answers otherwise.
   */
  uint64_t stale_uses;
  /**
   * Requests refused with a fault.
   */
  uint64_t faults;
  /**
   * Faults that found no free fault recording register.
   */
  uint64_t fault_overflows;
  /**
   * Register accesses that were ignored: unaligned, wrong width or not defined.
   */
  uint64_t mmio_ignored;
  /**
   * Invalidation descriptors executed, waits included.
   */
  uint64_t descriptors;
  /**
   * Of these, by type: index is the descriptor type, 1 to 9.
   */
  uint64_t descriptors_by_type[16];
  /**
   * Invalidation queue errors (FSTS.IQE raised).
   */
  uint64_t queue_errors;
  /**
   * Wait status writes that did not hit writable RAM.
   */
  uint64_t status_write_errors;
  /**
   * Message-signalled interrupts sent.
   */
  uint64_t msis;
  /**
   * Nested HWPTs allocated by the host.
   */
  uint64_t hwpt_allocs;
  /**
   * Nested HWPT allocations that the host refused.
   */
  uint64_t hwpt_alloc_errors;
  /**
   * Nested HWPTs destroyed.
   */
  uint64_t hwpt_destroys;
  /**
   * Attachments of a device to an HWPT, replacements included.
   */
  uint64_t attaches;
  /**
   * Detachments of a device; its DMA is blocked afterwards.
   */
  uint64_t detaches;
  /**
   * Attach or detach calls that the host refused.
   */
  uint64_t attach_errors;
  /**
   * Invalidate calls made on the host.
   */
  uint64_t invalidate_calls;
  /**
   * Entries in those calls.
   */
  uint64_t invalidate_entries;
  /**
   * Guest descriptors from which those entries came.
   */
  uint64_t invalidate_descriptors;
  /**
   * Invalidate calls that the host refused, fully or in part.
   */
  uint64_t invalidate_errors;
  /**
   * Invalidate entries that were dropped by NVTD_INJECT_DROP_INVALIDATIONS.
   */
  uint64_t invalidate_dropped;
  /**
   * Requests and queue fetches that found a table or the queue outside of RAM.
   */
  uint64_t memory_errors;
  /**
   * Page requests given to nvtd_page_request().
   */
  uint64_t page_requests;
  /**
   * Of these, refused by the guest's tables.
   */
  uint64_t page_requests_refused;
  /**
   * Of these, dropped as the page request queue had overflowed.
   */
  uint64_t page_request_overflows;
  /**
   * Page group responses of the guest that were handed to a device.
   */
  uint64_t page_responses;
  /**
   * Page group responses that the unit gave by itself.
   */
  uint64_t page_responses_by_unit;
  /**
   * Page group responses of the guest to requesters that are not there.
   */
  uint64_t page_responses_ignored;
  /**
   * Interrupt requests given to nvtd_remap_msi(), those with NVTD_MSI_DEBUG
   * excepted.
   */
  uint64_t interrupts;
  /**
   * Of these, answered from the interrupt entry cache.
   */
  uint64_t interrupt_cache_hits;
  /**
   * Of these, refused with a fault.
   */
  uint64_t interrupt_faults;
  /**
   * Faults that were not recorded as a pending record told of them already.
   */
  uint64_t faults_collapsed;
  /**
   * Device-TLB invalidations for which NvtdOps.invalidate returned an error.
   */
  uint64_t device_tlb_errors;
  /**
   * Objects of the host that could not be destroyed at the time; it is tried again.
   */
  uint64_t hwpt_destroy_errors;
  /**
   * Invalidate calls that went on after a refused one.
   */
  uint64_t invalidate_resumed;
  /**
   * Waits that were aborted (FSTS.ITE) as a device of the host could be neither
   * flushed nor blocked.
   */
  uint64_t host_timeouts;
  /**
   * Page requests that came from the host.
   */
  uint64_t host_page_requests;
  /**
   * Of these, answered at once as they were malformed or of no device.
   */
  uint64_t host_page_requests_refused;
  /**
   * Times that a PASID was not attached as its device has 2^17 of them, the most.
   */
  uint64_t pasids_ignored;
  /**
   * Of the walks that the unit made by itself, those through both stages.
   */
  uint64_t nested_walks;
  /**
   * Walks of second-stage tables, as a request's only stage, or for one table or page
   * of a nested walk.
   */
  uint64_t second_stage_walks;
  /**
   * Paging entries read in walks of the unit; the oracle's are not counted.
   */
  uint64_t table_reads;
  /**
   * Times that accessed and dirty bits were set in a paging entry.
   */
  uint64_t table_updates;
  /**
   * Times that the rest of the queue was left for later; see NvtdOps.more_work.
   */
  uint64_t queue_pauses;
} NvtdStats;

/**
 * What nvtd_dump() is to give. Fields that the kind does not name are 0.
 */
typedef struct NvtdDump {
  /**
   * sizeof(NvtdDump).
   */
  size_t size;
  /**
   * NVTD_DUMP_*.
   */
  uint32_t kind;
  /**
   * Handle of a device.
   */
  uint32_t device;
  /**
   * NVTD_DUMP_PASID or 0.
   */
  uint32_t flags;
  /**
   * PASID, 20 bits.
   */
  uint32_t pasid;
  /**
   * An address.
   */
  uint64_t address;
  /**
   * The last address.
   */
  uint64_t last;
} NvtdDump;

/**
 * An interrupt request, for nvtd_remap_msi(): a write of 32 bits to the interrupt
 * range.
 */
typedef struct NvtdMsi {
  /**
   * sizeof(NvtdMsi).
   */
  size_t size;
  /**
   * Address the requester writes to.
   */
  uint64_t address;
  /**
   * What it writes.
   */
  uint32_t data;
  /**
   * The requester (bus << 8 | devfn); an I/O APIC or HPET has one, too.
   */
  uint16_t source_id;
  /**
   * Must be 0.
   */
  uint16_t reserved;
  /**
   * NVTD_MSI_DEBUG, NVTD_MSI_PASID and NVTD_MSI_UNVERIFIED.
   */
  uint32_t flags;
  /**
   * PASID (20 bits) with NVTD_MSI_PASID, else 0.
   */
  uint32_t pasid;
} NvtdMsi;

/**
 * Answer of nvtd_remap_msi(). Fields beyond the caller's `size` are left out.
 */
typedef struct NvtdMsiAnswer {
  /**
   * sizeof(NvtdMsiAnswer), set by the caller.
   */
  size_t size;
  /**
   * Address of the interrupt: destination ID bits 7:0 in bits 19:12 and bits 31:8 in
   * bits 63:40, redirection hint in bit 3, destination mode in bit 2. 0 with a fault.
   */
  uint64_t address;
  /**
   * Its data: vector in bits 7:0, delivery mode in bits 10:8, level in bit 14, trigger
   * mode in bit 15. 0 with a fault.
   */
  uint32_t data;
  /**
   * 0, or the fault reason (VT-d 7.1.3) with which the request was refused: no
   * interrupt is to be delivered.
   */
  uint32_t fault;
  /**
   * 0, or a finer reason, named by nvtd_diagnostic_name().
   */
  uint32_t diagnostic;
  /**
   * NVTD_MSI_REMAPPED or 0.
   */
  uint32_t flags;
} NvtdMsiAnswer;

/**
 * A run of addresses that a device's tables map: addresses next to each other that
 * go to addresses next to each other, with the same permissions. Neither its place
 * nor its length is a power of two in general; it is never empty.
 */
typedef struct NvtdMapping {
  /**
   * sizeof(NvtdMapping).
   */
  size_t size;
  /**
   * First address, as the device uses it.
   */
  uint64_t address;
  /**
   * Where that goes: a guest-physical address.
   */
  uint64_t translated;
  /**
   * Length in bytes.
   */
  uint64_t length;
  /**
   * NVTD_PERMISSION_READ, _WRITE and _EXECUTE bits of a user's requests.
   */
  uint32_t permissions;
  /**
   * 0.
   */
  uint32_t reserved;
} NvtdMapping;

/**
 * An IOMMU of a twin.
 */
typedef struct NvtdTwinIommu {
  /**
   * Its capability register.
   */
  uint64_t cap;
  /**
   * Its extended capability register.
   */
  uint64_t ecap;
} NvtdTwinIommu;

/**
 * What a twin plays.
 */
typedef struct NvtdTwinConfig {
  /**
   * sizeof(NvtdTwinConfig).
   */
  size_t size;
  /**
   * Its IOMMUs; NULL for one that can do all that a unit can offer.
   */
  const struct NvtdTwinIommu *iommus;
  /**
   * How many there are, at most 64; 0 with NULL.
   */
  uint32_t iommu_count;
  /**
   * NVTD_TWIN_LINUX_7_3 or NVTD_TWIN_LINUX_6_12.
   */
  uint32_t kernel;
  /**
   * NVTD_TWIN_QUIRK_* bits of the kernel's oddities that it does not have.
   */
  uint64_t quirks_off;
  /**
   * NVTD_TWIN_UNSAFE_INTERRUPTS or 0.
   */
  uint64_t flags;
} NvtdTwinConfig;

/**
 * A device of a twin.
 */
typedef struct NvtdTwinDevice {
  /**
   * sizeof(NvtdTwinDevice).
   */
  size_t size;
  /**
   * Index of its IOMMU in NvtdTwinConfig.iommus.
   */
  uint32_t iommu;
  /**
   * Bits in its PASIDs, at most 20; 0 for none.
   */
  uint32_t max_pasid_bits;
  /**
   * NVTD_TWIN_DEVICE_* bits.
   */
  uint32_t flags;
  /**
   * Devices with the same number share an IOMMU group, and must be behind the same
   * IOMMU; 0 for a group of its own.
   */
  uint32_t group;
} NvtdTwinDevice;

/**
 * ioctls that are to fail.
 */
typedef struct NvtdTwinInjection {
  /**
   * sizeof(NvtdTwinInjection).
   */
  size_t size;
  /**
   * Calls from now on that still go through.
   */
  uint64_t skip;
  /**
   * How many calls then fail, at least 1.
   */
  uint64_t times;
  /**
   * Count and fail only calls with this number; 0 for all.
   */
  uint32_t request;
  /**
   * The errno, positive.
   */
  uint32_t error;
  /**
   * IOMMU_HWPT_INVALIDATE: entries that are done before it fails.
   */
  uint32_t handled;
  /**
   * NVTD_TWIN_INJECT_* bits.
   */
  uint32_t flags;
} NvtdTwinInjection;

/**
 * Counters of a twin since it was made. Fields beyond the caller's `size` are left
 * out; fields are only appended.
 */
typedef struct NvtdTwinStats {
  /**
   * sizeof(NvtdTwinStats), set by the caller.
   */
  size_t size;
  /**
   * ioctls.
   */
  uint64_t calls;
  /**
   * ioctls that failed.
   */
  uint64_t errors;
  /**
   * IOAS objects that exist.
   */
  uint64_t ioas;
  /**
   * HWPTs on an IOAS that exist.
   */
  uint64_t paging;
  /**
   * Nested HWPTs that exist.
   */
  uint64_t nested;
  /**
   * Fault queues that exist.
   */
  uint64_t fault_queues;
  /**
   * Bound devices.
   */
  uint64_t devices;
  /**
   * Most IOAS objects at a time.
   */
  uint64_t peak_ioas;
  /**
   * Most HWPTs on an IOAS at a time.
   */
  uint64_t peak_paging;
  /**
   * Most nested HWPTs at a time.
   */
  uint64_t peak_nested;
  /**
   * Bytes mapped into IOAS objects.
   */
  uint64_t mapped;
  /**
   * Bytes ever mapped.
   */
  uint64_t ever_mapped;
  /**
   * IOMMU_HWPT_INVALIDATE calls.
   */
  uint64_t invalidate_calls;
  /**
   * Entries of these that were done.
   */
  uint64_t invalidate_entries;
  /**
   * DMA requests, debug looks excepted.
   */
  uint64_t dmas;
  /**
   * DMA requests that were refused.
   */
  uint64_t faults;
  /**
   * Cached translations that were used although the tables say otherwise.
   */
  uint64_t stale_uses;
  /**
   * Page requests.
   */
  uint64_t page_requests;
  /**
   * Answers to groups of page requests.
   */
  uint64_t page_responses;
} NvtdTwinStats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The interface version this archive was built with: NVTD_ABI_VERSION.
 * Any thread, from anywhere, before anything else.
 */
uint32_t nvtd_abi_version(void);

/**
 * Text of the last error that a nvtd_ function returned on this thread: what was
 * wrong and what would be right. Never NULL; empty before the first error. The
 * pointer is valid until the next nvtd_ call on this thread. The wording is for
 * people and not stable.
 */
const char *nvtd_last_error(void);

/**
 * Name of a trace event given to NvtdOps.event, a static string; "unknown" for
 * a number that is none. Any thread, from anywhere.
 */
const char *nvtd_event_name(uint32_t event);

/**
 * Name of NvtdTranslation.diagnostic, a static string; "unknown" for a number
 * that is none. Any thread, from anywhere.
 */
const char *nvtd_diagnostic_name(uint32_t diagnostic);

/**
 * Fill `config` with the default for every field within config->size, which the
 * caller sets first. Any thread.
 *
 * Returns 0, or -EINVAL: config is NULL or config->size is too small to hold a
 * field.
 */
int nvtd_config_default(struct NvtdConfig *config);

/**
 * Make a remapping unit and store it in *unit.
 *
 * `config` may be NULL for the defaults. `ops` is copied; `opaque` is handed to
 * every callback. Any thread.
 *
 * Returns 0, or -EINVAL: ops or unit is NULL, a `size` is wrong, ops->msi is
 * missing, a field has an unknown bit or value, or values do not go together
 * (nvtd_last_error() names them). *unit is then NULL.
 */
int nvtd_unit_create(const struct NvtdConfig *config,
                     const struct NvtdOps *ops,
                     void *opaque,
                     struct NvtdUnit **unit);

/**
 * End a unit. NULL is allowed and does nothing. The caller makes sure that no
 * other call into the unit is under way and that none follows; registered RAM
 * and devices need not be removed before: assigned ones are, as by
 * nvtd_device_remove(), with its callbacks. Not from inside a callback.
 */
void nvtd_unit_destroy(struct NvtdUnit *unit);

/**
 * Put the unit into the state after power-on: registers at their reset values,
 * caches and counters empty, translation off, assigned devices on the host's
 * nesting parent. Devices and RAM regions stay. Any thread; translations that
 * run at the same time see the state before or after.
 *
 * Returns 0, or -EINVAL: unit is NULL.
 */
int nvtd_unit_reset(struct NvtdUnit *unit);

/**
 * Read `size` bytes (1, 2, 4 or 8) of the register window at `offset` (bytes
 * from its start) into *value. What the guest does wrong (unaligned, undefined,
 * 8 bytes of a 4-byte register) reads as the hardware would give it, never as an
 * error. Any thread; several at once are serialised.
 *
 * Returns 0, or -EINVAL: unit or value is NULL, size is none of the four, or
 * offset + size is beyond NVTD_MMIO_SIZE. *value is then untouched.
 */
int nvtd_mmio_read(struct NvtdUnit *unit,
                   uint64_t offset,
                   uint32_t size,
                   uint64_t *value);

/**
 * Write the low `size` bytes (1, 2, 4 or 8) of `value` to the register window at
 * `offset`. A write to IQT, GCMD or FSTS does its work before it returns:
 * invalidation descriptors are executed, at most one queue length of them, the
 * host is called, wait statuses are written and interrupts are sent through
 * NvtdOps.msi. Descriptors that make much work may be left for later, see
 * NvtdOps.more_work. Writes of the guest that hardware would ignore are ignored and
 * counted. Any thread; several at once are serialised.
 *
 * Returns 0, or -EINVAL as nvtd_mmio_read(); nothing is then changed.
 */
int nvtd_mmio_write(struct NvtdUnit *unit,
                    uint64_t offset,
                    uint32_t size,
                    uint64_t value);

/**
 * Go on with the queue, of which an earlier call has left a part, see
 * NvtdOps.more_work. Nothing happens if there is none. Any thread; not from inside
 * callbacks.
 *
 * Returns 0, or -EINVAL: unit is NULL.
 */
int nvtd_work(struct NvtdUnit *unit);

/**
 * Register guest RAM: `size` bytes at guest-physical `gpa`, which the process
 * has at `host`. Tables, queues and wait statuses are read and written there
 * directly, and an assigned device may reach only registered RAM. Regions do not
 * overlap. The memory stays valid and mapped until nvtd_ram_remove() returns or
 * the unit is destroyed. Flags: NVTD_RAM_*. Any thread.
 *
 * With assigned devices it is mapped for them all, once: the whole pages of regions
 * that are not read-only, the interrupt range excepted.
 *
 * Returns 0; -EINVAL: unit or host is NULL, size is 0, gpa + size overflows, an
 * unknown flag, gpa, size or host is not a multiple of 8, or with a host gpa and host
 * are not at the same place within a page, or the host unit of an assigned device does
 * not map such addresses; -EEXIST: overlaps a
 * region; -ENOSPC: more than 4096 regions; any other: the host could not map it.
 * Nothing is then registered.
 */
int nvtd_ram_add(struct NvtdUnit *unit,
                 uint64_t gpa,
                 uint64_t size,
                 void *host,
                 uint32_t flags);

/**
 * Take back a region exactly as it was registered. When the call returns the
 * unit no longer touches the memory. Cached translations into it are dropped.
 * Any thread; not from inside a callback.
 *
 * Returns 0; -EINVAL: unit is NULL; -ENOENT: no region has this gpa and size; any
 * other: the host could not unmap it. The region then stays registered.
 */
int nvtd_ram_remove(struct NvtdUnit *unit, uint64_t gpa, uint64_t size);

/**
 * Add a device behind the unit; *device becomes its handle (never 0), valid
 * until nvtd_device_remove(). An assigned device starts on the host's nesting
 * parent, or where the guest's tables put it if translation is on. Any thread.
 *
 * Returns 0; -EINVAL: a pointer is NULL, a `size` is wrong, an unknown flag, fields
 * that do not go together, NVTD_DEVICE_ASSIGNED while config.host is NVTD_HOST_NONE,
 * or the host lacks what the guest is offered (nvtd_last_error() names both values and
 * the property to change); -ENOSPC: more than 65536 devices; any other: a system call
 * was refused with it. The device is then as it was, but that it may have been bound.
 */
int nvtd_device_add(struct NvtdUnit *unit,
                    const struct NvtdDevice *desc,
                    uint32_t *device);

/**
 * Remove a device: it is detached from the host and its handle ends.
 * Translations for it that are under way on other threads still finish. Any thread.
 *
 * Returns 0; -EINVAL: unit is NULL; -ENOENT: no such device.
 */
int nvtd_device_remove(struct NvtdUnit *unit, uint32_t device);

/**
 * Say who keeps the device's translations and is to be told of invalidations
 * through NvtdOps.invalidate: flags are NVTD_NOTIFY_* bits, 0 for nobody. For
 * devices that the unit translates for; an assigned device's host flushes by itself.
 * Any thread, also from inside callbacks.
 *
 * Returns 0; -EINVAL: unit is NULL or an unknown flag; -ENOENT: no such device.
 */
int nvtd_device_notify(struct NvtdUnit *unit, uint32_t device, uint32_t flags);

/**
 * Where is this device, and what became of its requests? Fills *info up to
 * info->size. Any thread, also from inside callbacks.
 *
 * Returns 0; -EINVAL: a pointer is NULL or info->size is wrong; -ENOENT: no such
 * device.
 */
int nvtd_device_info(struct NvtdUnit *unit, uint32_t device, struct NvtdDeviceInfo *info);

/**
 * Where does this DMA go? Addresses of the interrupt range (0xfee00000 to
 * 0xfeefffff) are no DMA and must not be asked. A request that is refused is no
 * error: the call returns 0, out->fault holds the reason, and the fault has been
 * recorded and, if the guest wants it, signalled (not with NVTD_REQUEST_DEBUG).
 * Any thread, several at once; no lock of the VMM is needed. The answer holds
 * until the guest's invalidation of it completes.
 *
 * Returns 0; -EINVAL: a pointer is NULL, a `size` is wrong or request->flags is
 * not a valid combination; -ENOENT: no such device.
 */
int nvtd_translate(struct NvtdUnit *unit,
                   uint32_t device,
                   const struct NvtdRequest *request,
                   struct NvtdTranslation *out);

/**
 * A device asks for a page, after a translation request that was answered with a
 * recoverable fault (PCI Express PRI). The request goes into the guest's page
 * request queue; the guest answers the group of requests later, through
 * NvtdOps.page_response. If the guest's tables do not let the device ask, or the
 * queue overflows, the request is dropped; if it is the last of its group the unit
 * answers by itself, from inside this call, with NVTD_PAGE_RESPONSE_INVALID or,
 * after an overflow, NVTD_PAGE_RESPONSE_SUCCESS. If the guest's invalidation queue
 * stopped for such an answer (a wait with PD) the call goes on with it, as
 * nvtd_mmio_write() does. Any thread, several at once.
 *
 * Returns 0; -EINVAL: a pointer is NULL, a `size` is wrong, a field has an unknown
 * bit or value, or no device can ask so; -ENOENT: no such device; -EOPNOTSUPP: the
 * unit was made without NVTD_FEATURE_PAGE_REQUEST.
 */
int nvtd_page_request(struct NvtdUnit *unit,
                      uint32_t device,
                      const struct NvtdPageRequest *request);

/**
 * The unit's counters. Fills *stats up to stats->size. Any thread, also from
 * inside callbacks; counters that move at the same time may be of different
 * moments.
 *
 * Returns 0, or -EINVAL: a pointer is NULL or stats->size is wrong.
 */
int nvtd_stats(struct NvtdUnit *unit, struct NvtdStats *stats);

/**
 * Give a text about the unit's state to `line`, line by line: NUL-terminated,
 * without line ends, valid during the call of `line`. Where Linux's driver has a
 * debugfs file for the same thing the text is laid out as there, with "dmar0" as
 * the unit's name, and ends with an empty line as there, so that both can be
 * diffed. Only for people: the wording is not stable.
 *
 * The dump only looks: no accessed or dirty bit is set, no fault recorded, nothing
 * counted. It has at most 16384 lines and reads at most 4194304 table entries; if
 * that is not enough its last line says that it was cut. Any thread; `line` is
 * called with no lock held and may call anything but nvtd_unit_destroy(). What the
 * guest changes meanwhile may be seen half.
 *
 * Returns 0; -EINVAL: unit, what or line is NULL, what->size is wrong, the kind is
 * none or a field that it does not have is not 0; -ENOENT: no such device. No line
 * was then given.
 */
int nvtd_dump(struct NvtdUnit *unit,
              const struct NvtdDump *what,
              void (*line)(void *opaque, const char *text),
              void *opaque);

/**
 * Read the page requests that assigned devices have sent to the host, and put them into
 * the guest's page request queue. To be called when a file of NvtdOps.watch is
 * readable; without anything to read it does nothing. Any thread; not from inside
 * NvtdOps.attach.
 *
 * Returns 0; -EINVAL: unit is NULL; any other: a fault queue could not be read.
 */
int nvtd_host_faults(struct NvtdUnit *unit);

/**
 * Track which pages assigned devices write (`on` is 1), or stop it (0). Tracking begins
 * with every page clean. Any thread.
 *
 * Returns 0; -EINVAL: unit is NULL or on is neither; -EOPNOTSUPP: there is no host, or a
 * host unit cannot track; any other: the host refused.
 */
int nvtd_dirty_tracking(struct NvtdUnit *unit, uint32_t on);

/**
 * Which pages of the `length` bytes of guest RAM at `gpa` have assigned devices written
 * since this was asked last, or tracking began? Sets bit n of `bitmap`, an array of
 * 64-bit words of which the caller has `words`, for page n; bits are only set, never
 * cleared. `page_size` is a power of two of at least 4096, of which gpa and length are
 * multiples. Flags: NVTD_DIRTY_KEEP. Any thread.
 *
 * Returns 0; -EINVAL: a pointer is NULL, an unknown flag, or gpa, length, page_size and
 * words do not go together; -EOPNOTSUPP: nothing is tracked; any other: the host
 * refused.
 */
int nvtd_dirty_bitmap(struct NvtdUnit *unit,
                      uint64_t gpa,
                      uint64_t length,
                      uint64_t page_size,
                      uint32_t flags,
                      uint64_t *bitmap,
                      size_t words);

/**
 * What becomes of an interrupt request, that is of a 32-bit write by a device or an
 * I/O APIC to an address from 0xfee00000 to 0xfeefffff? A request that is refused is
 * no error: the call returns 0, out->fault holds the reason, and the fault has been
 * recorded and, if the guest wants it, signalled (not with NVTD_MSI_DEBUG). While the
 * guest has interrupt remapping off every request is to be delivered as it is,
 * whatever its address. While it is on, one with an address outside of the range is
 * refused. The unit's own interrupts (NvtdOps.msi) are not remapped and must not be
 * asked. Any thread, several at once; no lock of the VMM is needed. The answer holds
 * until NvtdOps.iec_invalidate is called for it.
 *
 * Returns 0, or -EINVAL: a pointer is NULL, a `size` is wrong, request->flags has an
 * unknown bit, or a field that must be 0 is not.
 */
int nvtd_remap_msi(struct NvtdUnit *unit,
                   const struct NvtdMsi *request,
                   struct NvtdMsiAnswer *out);

/**
 * Give `mapping` what the requests of a device can reach from the addresses `first`
 * to `last`, both included: in maximal runs, in rising order, clipped to the range.
 * With NVTD_MAPPING_PASID in `flags` it is about requests with `pasid`, else about
 * those without PASID. At most `limit` runs are given, any number with 0. For a VMM
 * that shadows the guest's tables: after an invalidation it asks for the range that
 * was invalidated and compares with what it has.
 *
 * The tables are read as they are now, whatever is cached, and no accessed or dirty
 * bit is set; nested translation is composed of its stages. Addresses that would
 * fault are left out, and so are those in the interrupt range or that would go
 * there. While translation is off, and in pass-through, nothing is given: there are
 * no tables to shadow, and all of guest RAM is to be mapped. A debug look of
 * nvtd_translate(), which then gives the address itself, tells this from tables that
 * map nothing.
 *
 * If `mapping` returns anything but 0, the enumeration ends and the call returns
 * that. Any thread; `mapping` is called with no lock held and may call anything but
 * nvtd_unit_destroy(). The structure is valid during the call of `mapping`. What the
 * guest changes meanwhile may be seen half; it then invalidates.
 *
 * Returns 0 or what `mapping` returned; -EINVAL: unit or mapping is NULL, an unknown
 * flag, a PASID without NVTD_MAPPING_PASID or of more than 20 bits, or first is beyond
 * last; -ENOENT: no such device; -E2BIG: there are more than `limit` runs, or more
 * than 16777216 paging entries would be read; runs given before are good.
 */
int nvtd_for_each_mapping(struct NvtdUnit *unit,
                          uint32_t device,
                          uint32_t flags,
                          uint32_t pasid,
                          uint64_t first,
                          uint64_t last,
                          uint64_t limit,
                          int (*mapping)(void *opaque, const struct NvtdMapping *mapping),
                          void *opaque);

/**
 * Save the unit's architectural state: registers and what is latched of them, the fault
 * log, the queues' heads and tails, and page requests that the guest has not answered.
 * Not in it are caches, counters, devices, guest RAM, and whatever is on a host. *needed
 * becomes its size in bytes, which is some hundred, and 8 more for each group of page
 * requests. If `size` is at least that, it is written to `buffer`, of which the caller has
 * `size` bytes; else nothing is written. To ask for the size alone pass NULL and 0. The
 * layout is described in the project's docs/migration.md, and later releases load it too.
 *
 * It is the state between two accesses. An access that another thread is making is in it
 * or not, and what such a call still sends through NvtdOps.msi is not. So stop the guest's
 * processors and devices first, let calls under way return, save the unit, and after it the
 * interrupt controllers. Any thread; not from inside NvtdOps.attach.
 *
 * Returns 0; -EINVAL: unit or needed is NULL, or buffer is NULL and size is not 0;
 * -ENOSPC: size is less than *needed.
 */
int nvtd_unit_save(struct NvtdUnit *unit,
                   void *buffer,
                   size_t size,
                   size_t *needed);

/**
 * Put the unit into a state of `size` bytes at `data` that nvtd_unit_save() gave for a
 * unit of the same capabilities, here or elsewhere. Devices and RAM are to be there before,
 * the RAM with what was in it. Caches are empty then, assigned devices are where the guest's
 * tables say, and from inside the call NvtdOps.invalidate and NvtdOps.iec_invalidate are
 * called for all that was kept. Counters stay.
 *
 * Nothing is sent and nothing executed by the call: a masked interrupt waits until the guest
 * unmasks it. If the state was saved in the middle of the invalidation queue, the rest is
 * executed with the next access of IQT, IQH or FSTS; a VMM that wants it done without one
 * reads FSTS when the guest goes on.
 *
 * Any thread, but not from inside callbacks; translations that run at the same time see the
 * state before or after.
 *
 * Returns 0; -EINVAL: unit or data is NULL, or data are no saved state, were cut or changed,
 * are of a later release or a unit with other capabilities (nvtd_last_error() names the
 * property), or are of a state that cannot be (it names the register); -EBUSY: another call
 * executes what the guest has commanded. The unit is then unchanged.
 */
int nvtd_unit_load(struct NvtdUnit *unit,
                   const void *data,
                   size_t size);

/**
 * Make a twin and store it in *twin. `config` may be NULL for Linux 7.3 with one
 * IOMMU that can do everything. Any thread.
 *
 * Returns 0, or -EINVAL: twin is NULL, config->size is wrong or a field has an
 * unknown bit or value. *twin is then NULL.
 */
int nvtd_twin_create(const struct NvtdTwinConfig *config, struct NvtdTwin **twin);

/**
 * End a twin, and with it all files that are still open. NULL is allowed and does
 * nothing. A unit that was made with it (NvtdConfig.twin) keeps it alive for itself.
 * The caller makes sure that no other call with this pointer is under way.
 */
void nvtd_twin_destroy(struct NvtdTwin *twin);

/**
 * open("/dev/iommu"). Files of a twin are for nvtd_twin_ioctl() and so on, and no file
 * descriptors of the process, except fault queues: these are, so that they can be
 * polled, but all else goes through the twin. Any thread.
 *
 * Returns the file, or -EINVAL: twin is NULL.
 */
int nvtd_twin_open(struct NvtdTwin *twin);

/**
 * Plug in a device and open its vfio file. Closing the file
 * unplugs it. Any thread.
 *
 * Returns the file, or -EINVAL: a pointer is NULL, device->size is wrong, or a field
 * has a value that no device has.
 */
int nvtd_twin_device(struct NvtdTwin *twin, const struct NvtdTwinDevice *device);

/**
 * ioctl(2) on a file of the twin. `argument` and the addresses inside of it are read
 * and written as the kernel does: what is not mapped is -EFAULT. Memory that is mapped
 * with IOMMU_IOAS_MAP must stay mapped in the process until it is unmapped there. Any
 * thread.
 *
 * Returns what the kernel would: 0 or more, or -errno.
 */
int nvtd_twin_ioctl(struct NvtdTwin *twin, int fd, uint32_t request, void *argument);

/**
 * read(2) on a file of the twin, that is on a fault queue. Any thread.
 *
 * Returns the bytes read, or -errno.
 */
int64_t nvtd_twin_read(struct NvtdTwin *twin, int fd, void *buffer, size_t length);

/**
 * write(2) on a file of the twin, that is on a fault queue. Any thread.
 *
 * Returns the bytes written, or -errno.
 */
int64_t nvtd_twin_write(struct NvtdTwin *twin, int fd, const void *buffer, size_t length);

/**
 * What is a file of the twin ready for? Any thread.
 *
 * Returns POLLIN and so on, or -EBADF: the twin has no such file; -EINVAL: twin is
 * NULL.
 */
int nvtd_twin_poll(struct NvtdTwin *twin, int fd);

/**
 * close(2) on a file of the twin. Closing a device detaches and unplugs it. Any thread.
 *
 * Returns 0, or -EBADF: the twin has no such file; -EINVAL: twin is NULL.
 */
int nvtd_twin_close(struct NvtdTwin *twin, int fd);

/**
 * A DMA request of a device arrives at the hardware. The answer's address is the one
 * in the IOAS that the device, or the PASID, is attached to. A request that is refused
 * is no error: the call returns 0 and out->fault holds the reason; 59h (the PASID entry
 * is not present) if the device or PASID is attached to nothing, or is blocked.
 * out->flags has NVTD_TRANSLATION_CACHED and NVTD_TRANSLATION_STALE. Any thread, several at once.
 *
 * Returns 0, or -EINVAL: a pointer is NULL, a `size` is wrong or request->flags is not
 * a valid combination; -EBADF: the twin has no such device.
 */
int nvtd_twin_dma(struct NvtdTwin *twin,
                  int device_fd,
                  const struct NvtdRequest *request,
                  struct NvtdTranslation *out);

/**
 * A device requests a page. The request goes to the fault queue of the HWPT it is
 * attached to, or is answered at once if there is none. Any thread.
 *
 * Returns 0, or -EINVAL: a pointer is NULL, a `size` is wrong or a field has an unknown
 * bit or value; -EBADF: the twin has no such device; -EOPNOTSUPP: it, or its IOMMU, has
 * no page requests.
 */
int nvtd_twin_page_request(struct NvtdTwin *twin,
                           int device_fd,
                           const struct NvtdPageRequest *request);

/**
 * Fetch the oldest answer that a device got to its page requests. Fills *out up to
 * out->size; out->tag and out->device are 0. Any thread.
 *
 * Returns 0, or -EAGAIN: there is none; -EINVAL: a pointer is NULL or out->size is
 * wrong; -EBADF: the twin has no such device.
 */
int nvtd_twin_page_response(struct NvtdTwin *twin,
                            int device_fd,
                            struct NvtdPageResponse *out);

/**
 * Let ioctls fail. Several injections count side by side; the first that is due
 * decides. A call fails after its structure was read and before anything is done. NULL
 * takes back all that have not fired. Any thread.
 *
 * Returns 0, or -EINVAL: twin is NULL, injection->size is wrong, times is 0, error is
 * none, or flags has an unknown bit.
 */
int nvtd_twin_inject(struct NvtdTwin *twin, const struct NvtdTwinInjection *injection);

/**
 * Take those who make system calls for a user without privileges, who may have
 * `locked` bytes pinned (RLIMIT_MEMLOCK), instead of root; UINT64_MAX for root again.
 * Any thread.
 *
 * Returns 0, or -EINVAL: twin is NULL.
 */
int nvtd_twin_limit(struct NvtdTwin *twin, uint64_t locked);

/**
 * Fill *stats up to stats->size. Any thread.
 *
 * Returns 0, or -EINVAL: a pointer is NULL or stats->size is wrong.
 */
int nvtd_twin_stats(struct NvtdTwin *twin, struct NvtdTwinStats *stats);

/**
 * How many ioctls were made with this number, failed ones included? Any thread.
 *
 * Returns the number of calls, or -EINVAL: twin is NULL.
 */
int64_t nvtd_twin_calls(struct NvtdTwin *twin, uint32_t request);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NESTED_VTD_H */
