//! Root entries and context entries (sections 9.1 to 9.4).

use nested_vtd::spec::root_context::{
    CONTEXT_ENTRY_SIZE, ContextHigh, ContextLow, LEGACY_CONTEXT_ENTRY_SIZE, LegacyContextHigh,
    LegacyContextLow, LegacyRootLow, ROOT_ENTRY_SIZE, RootEntryHalf,
};

// 9.2. The names are those of the lower half; the upper one has UP and UCTP.
layout! {
    root_entry_half: RootEntryHalf(u64), unnamed 0;
    LP: present, with_present(true) = 0x0000_0000_0000_0001;
    R: reserved, with_reserved(0x7ff) = 0x0000_0000_0000_0ffe;
    LCTP: table, with_table(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 9.4, bits 63:0.
layout! {
    context_low: ContextLow(u64), unnamed 0;
    P: present, with_present(true) = 0x0000_0000_0000_0001;
    FPD: fault_disable, with_fault_disable(true) = 0x0000_0000_0000_0002;
    DTE: device_tlb, with_device_tlb(true) = 0x0000_0000_0000_0004;
    PASIDE: pasid_enable, with_pasid_enable(true) = 0x0000_0000_0000_0008;
    PRE: page_request, with_page_request(true) = 0x0000_0000_0000_0010;
    R: reserved, with_reserved(0xf) = 0x0000_0000_0000_01e0;
    PDTS: directory_size, with_directory_size(0x7) = 0x0000_0000_0000_0e00;
    PASIDDIRPTR: directory, with_directory(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 9.4, bits 127:64.
layout! {
    context_high: ContextHigh(u64), unnamed 0;
    RID_PASID: rid_pasid, with_rid_pasid(0xf_ffff) = 0x0000_0000_000f_ffff;
    RID_PRIV: rid_privilege, with_rid_privilege(true) = 0x0000_0000_0010_0000;
    R: reserved, with_reserved(0x7ff_ffff_ffff) = 0xffff_ffff_ffe0_0000;
}

// 9.1, bits 63:0.
layout! {
    legacy_root_low: LegacyRootLow(u64), unnamed 0;
    P: present, with_present(true) = 0x0000_0000_0000_0001;
    R: reserved, with_reserved(0x7ff) = 0x0000_0000_0000_0ffe;
    CTP: table, with_table(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 9.3, bits 63:0.
layout! {
    legacy_context_low: LegacyContextLow(u64), unnamed 0;
    P: present, with_present(true) = 0x0000_0000_0000_0001;
    FPD: fault_disable, with_fault_disable(true) = 0x0000_0000_0000_0002;
    TT: translation_type, with_translation_type(0x3) = 0x0000_0000_0000_000c;
    R: reserved, with_reserved(0xff) = 0x0000_0000_0000_0ff0;
    SSPTPTR: second_stage_table, with_second_stage_table(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 9.3, bits 127:64.
layout! {
    legacy_context_high: LegacyContextHigh(u64), unnamed 0;
    AW: address_width, with_address_width(0x7) = 0x0000_0000_0000_0007;
    AVAIL: available, with_available(0xf) = 0x0000_0000_0000_0078;
    R7: reserved0, with_reserved0(true) = 0x0000_0000_0000_0080;
    DID: domain_id, with_domain_id(0xffff) = 0x0000_0000_00ff_ff00;
    R: reserved1, with_reserved1(0xff_ffff_ffff) = 0xffff_ffff_ff00_0000;
}

#[test]
fn legacy_addresses_and_sizes() {
    assert_eq!(LegacyRootLow::from_bits(0x1234_5fff).address(), 0x1234_5000);
    // As Linux writes it: present, pass-through.
    let context = LegacyContextLow::from_bits(0x0000_000f_1234_5009);
    assert_eq!(context.second_stage_address(), 0x0000_000f_1234_5000);
    assert_eq!((context.present(), context.translation_type()), (true, 2));
    assert_eq!(LEGACY_CONTEXT_ENTRY_SIZE, 16);
}

#[test]
fn addresses_and_sizes() {
    assert_eq!(
        RootEntryHalf::from_bits(0x1234_5fff).address(),
        0x0000_0000_1234_5000
    );
    // As Linux writes it: present, 2^(7 + 7) directory entries, PASIDs.
    let context = ContextLow::from_bits(0x0000_000f_1234_5e09);
    assert_eq!(context.directory_address(), 0x0000_000f_1234_5000);
    assert_eq!(context.directory_size(), 7);
    assert!(context.present() && context.pasid_enable());
    assert!(!context.fault_disable() && !context.device_tlb() && !context.page_request());
    assert_eq!(context.reserved(), 0);
    assert_eq!(ROOT_ENTRY_SIZE, 16);
    assert_eq!(CONTEXT_ENTRY_SIZE, 32);
}
