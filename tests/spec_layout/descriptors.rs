//! Invalidation descriptors (sections 6.5.2 and 7.7.1).

use nested_vtd::spec::descriptors::{
    ContextCacheLow, DeviceTlbHigh, DeviceTlbLow, Generic, InterruptEntryCacheLow, IotlbHigh,
    IotlbLow, PageGroupResponseHigh, PageGroupResponseLow, PasidDeviceTlbHigh, PasidDeviceTlbLow,
    PasidLow, SourceMatch, WaitHigh, WaitLow,
};

// 6.5.2.
layout! {
    generic: Generic(u64), unnamed 0xffff_ffff_ffff_f1f0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
}

#[test]
fn kind() {
    let table = [
        (0xffff_ffff_ffff_f1f0, 0x00),
        (0x0000_0000_0000_0009, 0x09),
        (0x0000_0000_0000_0201, 0x11),
        (0x0000_0000_0000_0e01, 0x71),
        (0xffff_ffff_ffff_ffff, 0x7f),
    ];
    for (literal, kind) in table {
        assert_eq!(Generic::from_bits(literal).kind(), kind, "{literal:#x}");
    }
}

// 6.5.2.1.
layout! {
    context_cache_low: ContextCacheLow(u64), unnamed 0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    G: granularity, with_granularity(0x3) = 0x0000_0000_0000_0030;
    R: reserved0, with_reserved0(0x7) = 0x0000_0000_0000_01c0;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
    R: reserved1, with_reserved1(0xf) = 0x0000_0000_0000_f000;
    DID: domain_id, with_domain_id(0xffff) = 0x0000_0000_ffff_0000;
    SID: source_id, with_source_id(0xffff) = 0x0000_ffff_0000_0000;
    FM: function_mask, with_function_mask(0x3) = 0x0003_0000_0000_0000;
    R: reserved2, with_reserved2(0x3fff) = 0xfffc_0000_0000_0000;
}

// 6.5.2.1, FM: the source IDs of device 3 that match function 5 of it.
#[test]
fn function_mask() {
    let table: [(u8, &[u16]); 4] = [
        (0, &[0x001d]),
        (1, &[0x0019, 0x001d]),
        (2, &[0x0019, 0x001b, 0x001d, 0x001f]),
        (
            3,
            &[
                0x0018, 0x0019, 0x001a, 0x001b, 0x001c, 0x001d, 0x001e, 0x001f,
            ],
        ),
    ];
    for (function_mask, expected) in table {
        let named = SourceMatch {
            source_id: 0x001d,
            function_mask,
        };
        let matching: Vec<u16> = (0..=0xffff).filter(|&id| named.matches(id)).collect();
        assert_eq!(matching, expected, "FM {function_mask}");
    }
}

// 6.5.2.3.
layout! {
    iotlb_low: IotlbLow(u64), unnamed 0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    G: granularity, with_granularity(0x3) = 0x0000_0000_0000_0030;
    DW: drain_writes, with_drain_writes(true) = 0x0000_0000_0000_0040;
    DR: drain_reads, with_drain_reads(true) = 0x0000_0000_0000_0080;
    R: reserved0, with_reserved0(true) = 0x0000_0000_0000_0100;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
    R: reserved1, with_reserved1(0xf) = 0x0000_0000_0000_f000;
    DID: domain_id, with_domain_id(0xffff) = 0x0000_0000_ffff_0000;
    R: reserved2, with_reserved2(0xffff_ffff) = 0xffff_ffff_0000_0000;
}

// 6.5.2.3, 6.5.2.4.
layout! {
    iotlb_high: IotlbHigh(u64), unnamed 0;
    AM: address_mask, with_address_mask(0x3f) = 0x0000_0000_0000_003f;
    IH: leaf_only, with_leaf_only(true) = 0x0000_0000_0000_0040;
    R: reserved, with_reserved(0x1f) = 0x0000_0000_0000_0f80;
    ADDR: page, with_page(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 6.5.2.5.
layout! {
    device_tlb_low: DeviceTlbLow(u64), unnamed 0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    R: reserved0, with_reserved0(0x1f) = 0x0000_0000_0000_01f0;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
    PFSID: pf_source_low, with_pf_source_low(0xf) = 0x0000_0000_0000_f000;
    MIP: max_pending, with_max_pending(0x1f) = 0x0000_0000_001f_0000;
    R: reserved1, with_reserved1(0x7ff) = 0x0000_0000_ffe0_0000;
    SID: source_id, with_source_id(0xffff) = 0x0000_ffff_0000_0000;
    R: reserved2, with_reserved2(0xf) = 0x000f_0000_0000_0000;
    PFSID: pf_source_high, with_pf_source_high(0xfff) = 0xfff0_0000_0000_0000;
}

layout! {
    device_tlb_high: DeviceTlbHigh(u64), unnamed 0;
    S: size, with_size(true) = 0x0000_0000_0000_0001;
    R: reserved, with_reserved(0x7ff) = 0x0000_0000_0000_0ffe;
    ADDR: page, with_page(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 6.5.2.7.
layout! {
    interrupt_entry_cache_low: InterruptEntryCacheLow(u64), unnamed 0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    G: by_index, with_by_index(true) = 0x0000_0000_0000_0010;
    R: reserved0, with_reserved0(0xf) = 0x0000_0000_0000_01e0;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
    R: reserved1, with_reserved1(0x7fff) = 0x0000_0000_07ff_f000;
    IM: index_mask, with_index_mask(0x1f) = 0x0000_0000_f800_0000;
    IIDX: index, with_index(0xffff) = 0x0000_ffff_0000_0000;
    R: reserved2, with_reserved2(0xffff) = 0xffff_0000_0000_0000;
}

// 6.5.2.8.
layout! {
    wait_low: WaitLow(u64), unnamed 0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    IF: interrupt, with_interrupt(true) = 0x0000_0000_0000_0010;
    SW: status_write, with_status_write(true) = 0x0000_0000_0000_0020;
    FN: fence, with_fence(true) = 0x0000_0000_0000_0040;
    PD: page_drain, with_page_drain(true) = 0x0000_0000_0000_0080;
    R: reserved0, with_reserved0(true) = 0x0000_0000_0000_0100;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
    R: reserved1, with_reserved1(0xf_ffff) = 0x0000_0000_ffff_f000;
    DATA: data, with_data(0xffff_ffff) = 0xffff_ffff_0000_0000;
}

layout! {
    wait_high: WaitHigh(u64), unnamed 0;
    R: reserved, with_reserved(0x3) = 0x0000_0000_0000_0003;
    ADDR: dword, with_dword(0x3fff_ffff_ffff_ffff) = 0xffff_ffff_ffff_fffc;
}

// 6.5.2.2, 6.5.2.4.
layout! {
    pasid_low: PasidLow(u64), unnamed 0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    G: granularity, with_granularity(0x3) = 0x0000_0000_0000_0030;
    R: reserved0, with_reserved0(0x7) = 0x0000_0000_0000_01c0;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
    R: reserved1, with_reserved1(0xf) = 0x0000_0000_0000_f000;
    DID: domain_id, with_domain_id(0xffff) = 0x0000_0000_ffff_0000;
    PASID: pasid, with_pasid(0xf_ffff) = 0x000f_ffff_0000_0000;
    R: reserved2, with_reserved2(0xfff) = 0xfff0_0000_0000_0000;
}

// 6.5.2.6.
layout! {
    pasid_device_tlb_low: PasidDeviceTlbLow(u64), unnamed 0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    MIP: max_pending, with_max_pending(0x1f) = 0x0000_0000_0000_01f0;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
    PFSID: pf_source_low, with_pf_source_low(0xf) = 0x0000_0000_0000_f000;
    SID: source_id, with_source_id(0xffff) = 0x0000_0000_ffff_0000;
    PASID: pasid, with_pasid(0xf_ffff) = 0x000f_ffff_0000_0000;
    PFSID: pf_source_high, with_pf_source_high(0xfff) = 0xfff0_0000_0000_0000;
}

layout! {
    pasid_device_tlb_high: PasidDeviceTlbHigh(u64), unnamed 0;
    G: global, with_global(true) = 0x0000_0000_0000_0001;
    R: reserved, with_reserved(0x3ff) = 0x0000_0000_0000_07fe;
    S: size, with_size(true) = 0x0000_0000_0000_0800;
    ADDR: page, with_page(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 7.7.1. From Linux and QEMU: VirtualBox has no page requests. Bit 5 of the low qword
// (PDP) and bit 2 of the high one (LPIG) have a meaning in older revisions.
layout! {
    page_group_response_low: PageGroupResponseLow(u64), unnamed 0;
    TYPE: type_low, with_type_low(0xf) = 0x0000_0000_0000_000f;
    PP: pasid_present, with_pasid_present(true) = 0x0000_0000_0000_0010;
    R: reserved0, with_reserved0(0xf) = 0x0000_0000_0000_01e0;
    TYPE: type_high, with_type_high(0x7) = 0x0000_0000_0000_0e00;
    RC: code, with_code(0xf) = 0x0000_0000_0000_f000;
    RID: source_id, with_source_id(0xffff) = 0x0000_0000_ffff_0000;
    PASID: pasid, with_pasid(0xf_ffff) = 0x000f_ffff_0000_0000;
    R: reserved1, with_reserved1(0xfff) = 0xfff0_0000_0000_0000;
}

layout! {
    page_group_response_high: PageGroupResponseHigh(u64), unnamed 0;
    R: reserved0, with_reserved0(0x7) = 0x0000_0000_0000_0007;
    PRGI: group, with_group(0x1ff) = 0x0000_0000_0000_0ff8;
    R: reserved1, with_reserved1(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

#[test]
fn addresses() {
    assert_eq!(
        IotlbHigh::from_bits(0x0000_0001_2345_6fff).address(),
        0x0000_0001_2345_6000
    );
    assert_eq!(
        WaitHigh::from_bits(0x0000_0001_2345_678f).address(),
        0x0000_0001_2345_678c
    );
}
