/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Registers and structures of VT-d that the tests use, as literal numbers of their own: the tests
 * are a second reading of the specification and take nothing from the crate.
 */
#ifndef VTD_H
#define VTD_H

/* Registers (VT-d 11.4). */
#define REG_VER 0x00
#define REG_CAP 0x08
#define REG_ECAP 0x10
#define REG_GCMD 0x18
#define REG_GSTS 0x1c
#define REG_RTADDR 0x20
#define REG_CCMD 0x28
#define REG_FSTS 0x34
#define REG_FECTL 0x38
#define REG_FEDATA 0x3c
#define REG_FEADDR 0x40
#define REG_FEUADDR 0x44
#define REG_IQH 0x80
#define REG_IQT 0x88
#define REG_IQA 0x90
#define REG_ICS 0x9c
#define REG_IECTL 0xa0
#define REG_IEDATA 0xa4
#define REG_IEADDR 0xa8
#define REG_IEUADDR 0xac
#define REG_IQERCD 0xb0
#define REG_IRTA 0xb8

#define REG_PQH 0xc0
#define REG_PQT 0xc8
#define REG_PQA 0xd0
#define REG_PRS 0xdc
#define REG_PECTL 0xe0
#define REG_PEDATA 0xe4
#define REG_PEADDR 0xe8
#define REG_PEUADDR 0xec

#define CMD_TE (1u << 31)
#define CMD_SRTP (1u << 30)
#define CMD_QIE (1u << 26)
#define CMD_IRE (1u << 25)
#define CMD_SIRTP (1u << 24)

#define CAP_CM(cap) ((cap) >> 7 & 1)
#define CAP_SAGAW(cap) ((cap) >> 8 & 0x1f)
#define CAP_MGAW(cap) (((cap) >> 16 & 0x3f) + 1)
#define CAP_FRO(cap) (((cap) >> 24 & 0x3ff) * 16)
#define CAP_NFR(cap) (((cap) >> 40 & 0xff) + 1)
#define CAP_FS1GP(cap) ((cap) >> 56 & 1)
#define CAP_ESRTPS(cap) ((cap) >> 63)

#define ECAP_C (1ull << 0)
#define ECAP_QI (1ull << 1)
#define ECAP_IR (1ull << 3)
#define ECAP_PT (1ull << 6)
#define ECAP_NEST (1ull << 26)
#define ECAP_PRS (1ull << 29)
#define ECAP_PASID (1ull << 40)
#define ECAP_PDS (1ull << 42)
#define ECAP_SMTS (1ull << 43)
#define ECAP_SSTS (1ull << 46)
#define ECAP_FSTS (1ull << 47)
#define ECAP_SMPWCS (1ull << 48)

#define RTADDR_LEGACY 0ull
#define RTADDR_SMT (1ull << 10)
#define RTADDR_RESERVED (2ull << 10)
#define RTADDR_ABORT (3ull << 10)
#define IQA_DW (1ull << 11)
#define IQA_8KIB 1ull /* QS: 2^1 pages */

#define FSTS_PFO (1u << 0)
#define FSTS_PPF (1u << 1)
#define FSTS_IQE (1u << 4)
#define FSTS_ICE (1u << 5)
#define FSTS_ITE (1u << 6)
#define IQERCD_ITESID(value) ((value) >> 32 & 0xffff)
#define IQERCD_ICESID(value) ((value) >> 48 & 0xffff)
#define FSTS_FRI(fsts) ((fsts) >> 8 & 0xff)
#define EVENT_IM (1u << 31)
#define EVENT_IP (1u << 30)
#define ICS_IWC 1u
#define PRS_PPR 1u
#define PRS_PRO 2u

/* IQERCD.IQEI (VT-d 11.4.9.9). */
#define IQEI_TAIL 1
#define IQEI_FETCH 2
#define IQEI_TYPE 3
#define IQEI_RESERVED 4
#define IQEI_WIDTH 5
#define IQEI_ALIGNMENT 6

/* Fault record, upper quadword (VT-d 11.4.14). */
#define FRCD_F (1ull << 63)
#define FRCD_READ (1ull << 62)
#define FRCD_REASON(hi) ((hi) >> 32 & 0xff)
#define FRCD_PP (1ull << 31)
#define FRCD_EXE (1ull << 30)
#define FRCD_PRIV (1ull << 29)
#define FRCD_PV(hi) ((hi) >> 40 & 0xfffff)
#define FRCD_AT(hi) ((hi) >> 60 & 3)
#define FRCD_SID(hi) ((hi) & 0xffff)

/* Fault reasons (VT-d 7.1.3). */
#define FAULT_LEGACY_ROOT_PRESENT 0x01
#define FAULT_LEGACY_CONTEXT_PRESENT 0x02
#define FAULT_LEGACY_CONTEXT_INVALID 0x03
#define FAULT_LEGACY_BEYOND 0x04
#define FAULT_LEGACY_NO_WRITE 0x05
#define FAULT_LEGACY_NO_READ 0x06
#define FAULT_LEGACY_PAGING_ACCESS 0x07
#define FAULT_LEGACY_ROOT_ACCESS 0x08
#define FAULT_LEGACY_CONTEXT_ACCESS 0x09
#define FAULT_LEGACY_ROOT_RESERVED 0x0a
#define FAULT_LEGACY_CONTEXT_RESERVED 0x0b
#define FAULT_LEGACY_PAGING_RESERVED 0x0c
#define FAULT_LEGACY_BLOCKED 0x0d
#define FAULT_LEGACY_INTERRUPT 0x0e
#define FAULT_IRTE_PRESENT 0x22
#define FAULT_CFI_BLOCKED 0x25
#define FAULT_IR_SOURCE 0x26
#define FAULT_IR_PASID 0x29
#define FAULT_TABLE_MODE 0x30
#define FAULT_LEGACY_PASID 0x31
#define FAULT_ABORT_DMA 0x33
#define FAULT_ROOT_ACCESS 0x38
#define FAULT_ROOT_PRESENT 0x39
#define FAULT_CONTEXT_PRESENT 0x41
#define FAULT_CONTEXT_RESERVED 0x42
#define FAULT_CONTEXT_INVALID 0x43
#define FAULT_NO_DEVICE_TLB 0x44
#define FAULT_NO_PASID 0x45
#define FAULT_PASID_BEYOND 0x46
#define FAULT_PAGE_REQUEST_DISABLED 0x47
#define FAULT_RID_PASID_BEYOND 0x48
#define FAULT_PASID_DIRECTORY_ACCESS 0x50
#define FAULT_PASID_DIRECTORY_PRESENT 0x51
#define FAULT_PASID_DIRECTORY_RESERVED 0x52
#define FAULT_PASID_ENTRY_ACCESS 0x58
#define FAULT_PASID_ENTRY_PRESENT 0x59
#define FAULT_PASID_ENTRY_RESERVED 0x5a
#define FAULT_PASID_ENTRY_INVALID 0x5b
#define FAULT_EXECUTE_DISABLED 0x5c
#define FAULT_PRIVILEGED_DISABLED 0x5d
#define FAULT_FS_ACCESS 0x70
#define FAULT_FS_PRESENT 0x71
#define FAULT_FS_RESERVED 0x72
#define FAULT_PML4_ACCESS 0x73
#define FAULT_NESTED_TABLE_BEYOND 0x74
#define FAULT_NESTED_TOP_DENIED 0x75
#define FAULT_NESTED_TABLE_DENIED 0x76
#define FAULT_NESTED_MARK_DENIED 0x77
#define FAULT_SS_ACCESS 0x78
#define FAULT_SS_PERMISSION 0x79
#define FAULT_SS_RESERVED 0x7a
#define FAULT_SS_TOP_ACCESS 0x7b
#define FAULT_SS_NO_SNOOP 0x7c
#define FAULT_SS_MARK 0x7d
#define FAULT_CANONICAL 0x80
#define FAULT_SUPERVISOR 0x81
#define FAULT_NO_EXECUTE 0x82
#define FAULT_BEYOND 0x83
#define FAULT_NESTED_BEYOND 0x84
#define FAULT_NO_WRITE 0x85
#define FAULT_NO_READ 0x86
#define FAULT_INTERRUPT 0x87
#define FAULT_FS_NO_SNOOP 0x90
#define FAULT_FS_MARK 0x91

/* Legacy-mode context entry (VT-d 9.3). */
#define LEGACY_TT(tt) ((uint64_t)(tt) << 2)
#define LEGACY_AW(aw) ((uint64_t)(aw)) /* second quadword */
#define LEGACY_DID(did) ((uint64_t)(did) << 8)

/* Scalable-mode context entry, PASID directory and table entry (VT-d 9.4 to 9.6). */
#define PRESENT 1ull
#define CONTEXT_PDTS(pdts) ((uint64_t)(pdts) << 9)
#define CONTEXT_FPD (1ull << 1)
#define CONTEXT_DTE (1ull << 2)
#define CONTEXT_PASIDE (1ull << 3)
#define CONTEXT_PRE (1ull << 4)
#define PASID_FPD (1ull << 1)
#define PASID_AW48 (2ull << 2)
#define PASID_AW(aw) ((uint64_t)(aw) << 2) /* 1 39 bits, 2 48, 3 57 */
#define PASID_SSEE (1ull << 5)
#define PASID_SSADE (1ull << 9)
#define PASID_PGTT(pgtt) ((uint64_t)(pgtt) << 6)
#define PGTT_FIRST 1
#define PGTT_SECOND 2
#define PGTT_NESTED 3
#define PGTT_PASS 4
#define PASID_PWSNP (1ull << 23) /* second quadword */
#define PASID_SRE (1ull << 0)    /* third quadword from here */
#define PASID_ERE (1ull << 1)
#define PASID_FSPM(fspm) ((uint64_t)(fspm) << 2) /* 1 5-level */
#define PASID_WPE (1ull << 4)
#define PASID_NXE (1ull << 5)
#define PASID_SMEP (1ull << 6)
#define PASID_EAFE (1ull << 7)

/* First-stage paging entry (VT-d 9.7). */
#define FS_P (1ull << 0)
#define FS_W (1ull << 1)
#define FS_U (1ull << 2)
#define FS_A (1ull << 5)
#define FS_D (1ull << 6)
#define FS_PS (1ull << 7)
#define FS_G (1ull << 8)
#define FS_EA (1ull << 10)
#define FS_XD (1ull << 63)
#define FS_TABLE (FS_P | FS_W | FS_U)
#define FS_LEAF (FS_P | FS_W | FS_U | FS_A | FS_D) /* as Linux maps a page for DMA */

/* Second-stage paging entry (VT-d 9.8). */
#define SS_R (1ull << 0)
#define SS_W (1ull << 1)
#define SS_X (1ull << 2)
#define SS_PS (1ull << 7)
#define SS_A (1ull << 8)
#define SS_D (1ull << 9)
#define SS_SNP (1ull << 11)
#define SS_TM (1ull << 62)
#define SS_RW (SS_R | SS_W)

/* Interrupt remapping (VT-d 5.1.2, 9.10, 11.4.10). */
#define IRTA_EIME (1ull << 11)
#define IRTE_P (1ull << 0)
#define IRTE_FPD (1ull << 1)
#define IRTE_VECTOR(vector) ((uint64_t)(vector) << 16)
#define IRTE_DST(id) ((uint64_t)(id) << 32)
#define IRTE_SVT_SID(sid) (1ull << 18 | (sid))
#define MSI_REMAPPABLE(index) \
    (0xfee00018ull | (uint64_t)((index) & 0x7fff) << 5 | (uint64_t)((index) >> 15) << 2)

/* Invalidation descriptors (VT-d 6.5.2), first quadwords. */
#define QI_CONTEXT_GLOBAL (1ull | 1ull << 4)
#define QI_CONTEXT_DOMAIN(did) (1ull | 2ull << 4 | (uint64_t)(did) << 16)
#define QI_CONTEXT_DEVICE(did, sid) \
    (1ull | 3ull << 4 | (uint64_t)(did) << 16 | (uint64_t)(sid) << 32)
#define QI_IOTLB_GLOBAL (2ull | 1ull << 4)
#define QI_IOTLB_DOMAIN(did) (2ull | 2ull << 4 | (uint64_t)(did) << 16)
#define QI_IOTLB_PAGE(did) (2ull | 3ull << 4 | (uint64_t)(did) << 16)
#define QI_DEVICE_TLB(sid) (3ull | (uint64_t)(sid) << 32)
#define QI_INTERRUPT_GLOBAL 4ull
#define QI_INTERRUPT_INDEX(index, mask) \
    (4ull | 1ull << 4 | (uint64_t)(mask) << 27 | (uint64_t)(index) << 32)
#define QI_WAIT 5ull
#define QI_WAIT_IF (1ull << 4)
#define QI_WAIT_SW (1ull << 5)
#define QI_WAIT_FN (1ull << 6)
#define QI_WAIT_PD (1ull << 7)
#define QI_WAIT_DATA(data) ((uint64_t)(data) << 32)
#define QI_PIOTLB_PASID(did, pasid) \
    (6ull | 2ull << 4 | (uint64_t)(did) << 16 | (uint64_t)(pasid) << 32)
#define QI_PIOTLB_PAGE(did, pasid) \
    (6ull | 3ull << 4 | (uint64_t)(did) << 16 | (uint64_t)(pasid) << 32)
#define QI_PASID_DOMAIN(did) (7ull | (uint64_t)(did) << 16)
#define QI_PASID_PASID(did, pasid) \
    (7ull | 1ull << 4 | (uint64_t)(did) << 16 | (uint64_t)(pasid) << 32)
#define QI_PASID_GLOBAL (7ull | 3ull << 4)
#define QI_PASID_DEVICE_TLB(sid, pasid) (8ull | (uint64_t)(sid) << 16 | (uint64_t)(pasid) << 32)
#define QI_PAGE_RESPONSE(rid) (9ull | (uint64_t)(rid) << 16)
#define QI_PAGE_RESPONSE_PASID(pasid) (1ull << 4 | (uint64_t)(pasid) << 32)
#define QI_PAGE_RESPONSE_CODE(code) ((uint64_t)(code) << 12)
#define QI_PAGE_RESPONSE_GROUP(group) ((uint64_t)(group) << 3) /* second quadword */

/* Page request descriptor (VT-d 7.4.1.1). */
#define PAGE_REQUEST_SIZE 32
#define PAGE_REQUEST(rid) (1ull | (uint64_t)(rid) << 16)
#define PAGE_REQUEST_PASID(pasid) (1ull << 8 | (uint64_t)(pasid) << 32)
#define PAGE_REQUEST_RD (1ull << 0) /* second quadword from here */
#define PAGE_REQUEST_WR (1ull << 1)
#define PAGE_REQUEST_LPIG (1ull << 2)
#define PAGE_REQUEST_GROUP(group) ((uint64_t)(group) << 3)

#endif
