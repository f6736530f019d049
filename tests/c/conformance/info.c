/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * GET_HW_INFO.
 */
#include "conformance.h"

static struct hw_info ask(struct hw_info_vtd *vtd)
{
    return (struct hw_info){ .size = sizeof(struct hw_info), .dev_id = now.dev_id,
                             .data_len = sizeof(*vtd), .data_uptr = (uintptr_t)vtd };
}

static int get(struct hw_info *info)
{
    return call(IOMMU_GET_HW_INFO, info);
}

static void flags(void)
{
    struct hw_info_vtd vtd;
    for (unsigned bit = 0; bit < 32; bit++) {
        struct hw_info info = ask(&vtd);
        info.flags = 1u << bit;
        expect(get(&info), info.flags == HW_INFO_INPUT_TYPE && as_7_3() ? 0 : EOPNOTSUPP, "flags %#x",
               info.flags);
    }
    struct hw_info info = ask(&vtd);
    info.flags = 2;
    info.dev_id = 0;
    expect(get(&info), EOPNOTSUPP, "flags 2 with an unknown device");
}

static void reserved(void)
{
    struct hw_info_vtd vtd;
    for (unsigned i = 0; i < 3; i++) {
        struct hw_info info = ask(&vtd);
        info.reserved[i] = 1;
        expect(get(&info), EOPNOTSUPP, "__reserved[%u]", i);
        info.dev_id = 0;
        expect(get(&info), EOPNOTSUPP, "__reserved[%u] with an unknown device", i);
    }
}

static void device(void)
{
    struct hw_info_vtd vtd;
    struct hw_info info = ask(&vtd);
    info.dev_id = unused_id();
    expect(get(&info), ENOENT, "no object");
    info.dev_id = new_ioas();
    expect(get(&info), ENOENT, "an IOAS");
}

static void type(void)
{
    need_7_3("INPUT_TYPE");
    struct hw_info_vtd vtd;
    const uint32_t unknown[] = { HW_INFO_TYPE_ARM_SMMUV3, 3, 4, UINT32_MAX };
    for (unsigned i = 0; i < 4; i++) {
        struct hw_info info = ask(&vtd);
        info.flags = HW_INFO_INPUT_TYPE;
        info.data_type = unknown[i];
        expect(get(&info), EOPNOTSUPP, "type %u", unknown[i]);
        info.flags = 0;
        expect(get(&info), 0, "type %u without INPUT_TYPE", unknown[i]);
    }
    struct hw_info info = ask(&vtd);
    info.flags = HW_INFO_INPUT_TYPE;
    info.data_type = HW_INFO_TYPE_INTEL_VTD;
    expect(get(&info), 0, "type INTEL_VTD");
    info = ask(&vtd);
    info.flags = HW_INFO_INPUT_TYPE;
    expect(get(&info), 0, "type DEFAULT");
    expect_number(info.data_type, HW_INFO_TYPE_INTEL_VTD, "out_data_type");
}

static void data(void)
{
    struct hw_info info = ask(NULL);
    info.data_uptr = (uintptr_t)nowhere();
    expect(get(&info), EFAULT, "data in no memory");
    info.data_len = 0;
    expect(get(&info), 0, "no data");
    expect_number(info.data_len, sizeof(struct hw_info_vtd), "data_len");

    /* A part of it, and more than all of it. */
    struct { struct hw_info_vtd vtd; uint8_t more[16]; } large;
    memset(&large, 0x55, sizeof(large));
    info = ask(&large.vtd);
    info.data_len = 8;
    expect(get(&info), 0, "8 bytes of data");
    expect_number(info.data_len, sizeof(struct hw_info_vtd), "data_len");
    expect_number(large.vtd.cap_reg, 0x5555555555555555, "what is behind the 8 bytes");
    info = ask(&large.vtd);
    info.data_len = sizeof(large);
    expect(get(&info), 0, "more data than there is");
    expect_number(info.data_len, sizeof(struct hw_info_vtd), "data_len");
    for (unsigned i = 0; i < sizeof(large.more); i++)
        expect_number(large.more[i], 0, "byte %u behind the data", i);
    /* The tail that is to be cleared is not there. */
    info = ask(NULL);
    info.data_uptr = (uintptr_t)edge_of_memory() - sizeof(struct hw_info_vtd);
    expect(get(&info), 0, "data up to the edge of memory");
    info.data_len = sizeof(struct hw_info_vtd) + 1;
    expect(get(&info), EFAULT, "data beyond the edge of memory");
}

static void answer(void)
{
    struct hw_info_vtd vtd;
    memset(&vtd, 0x55, sizeof(vtd));
    struct hw_info info = ask(&vtd);
    info.out_capabilities = 0x5555;
    expect(get(&info), 0, "GET_HW_INFO");
    expect_number(info.data_type, HW_INFO_TYPE_INTEL_VTD, "out_data_type");
    expect_number(info.data_len, sizeof(vtd), "data_len");
    expect_number(vtd.flags, VTD_ERRATA_772415_SPR17, "flags of the data");
    expect_number(vtd.reserved, 0, "__reserved of the data");
    if (!vtd.cap_reg || !vtd.ecap_reg)
        wrong("cap_reg is %#llx, ecap_reg %#llx", (unsigned long long)vtd.cap_reg,
              (unsigned long long)vtd.ecap_reg);
    expect_number(info.out_capabilities & HW_CAP_DIRTY_TRACKING, cantrackdirty(), "DIRTY_TRACKING");
    if (!as_7_3())
        return;
    expect_number(info.reserved[0] | info.reserved[1] | info.reserved[2], 0, "__reserved");
    expect_number(info.out_capabilities &
                  ~(uint64_t)(HW_CAP_DIRTY_TRACKING | HW_CAP_PASID_EXEC | HW_CAP_PASID_PRIV |
                              HW_CAP_ATS_NOT_SUPPORTED), 0, "unknown capabilities");
    /* The number of PASIDs is the device's or the IOMMU's, whichever is less. */
    unsigned pss = (now.ecap >> 35 & 31) + 1;
    if (!can(ECAP_PASID) || !can(ECAP_SMTS))
        expect_number(info.out_max_pasid_log2, 0, "out_max_pasid_log2 without PASID");
    else if (info.out_max_pasid_log2 > pss)
        wrong("out_max_pasid_log2 is %u, more than the IOMMU's %u", info.out_max_pasid_log2, pss);
    if (!info.out_max_pasid_log2)
        expect_number(info.out_capabilities & (HW_CAP_PASID_EXEC | HW_CAP_PASID_PRIV), 0,
                      "execute and privileged requests without PASID");
}

static void short_answer(void)
{
    struct { struct hw_info info; uint64_t more; } longer = { .info = ask(NULL), .more = 0 };
    longer.info.size = sizeof(longer);
    longer.info.data_len = 0;
    expect(get(&longer.info), 0, "GET_HW_INFO of 48 bytes");
    expect_number(longer.info.size, sizeof(longer), "size");
    expect_number(longer.more, 0, "what is behind the structure");
}

const struct rule rules_info[] = {
    { "H1", "flags other than INPUT_TYPE are refused with EOPNOTSUPP", flags },
    { "H2", "__reserved is refused with EOPNOTSUPP", reserved },
    { "H3", "a dev_id that is no device is refused with ENOENT", device },
    { "H4", "with INPUT_TYPE a type other than DEFAULT and INTEL_VTD is refused with EOPNOTSUPP;"
      " without it the type is not looked at", type },
    { "H5", "data that cannot be written is refused with EFAULT; a tail beyond it is cleared", data },
    { "HW-INFO-answer", "24 bytes of INTEL_VTD data: the erratum, CAP and ECAP as they are;"
      " capabilities and PASIDs of IOMMU and device", answer },
    { "HW-INFO-size", "a longer structure is accepted and left as it is behind what is known",
      short_answer },
    { NULL, NULL, NULL },
};
