//! Interrupt requests, entries of the interrupt remapping table and messages (sections
//! 5.1.2 and 9.10).

use nested_vtd::spec::interrupt::*;

// 5.1.2.2. VirtualBox and Linux (struct x86_msi_addr_lo, dmar_*).
layout! {
    request_address: RequestAddress(u32), unnamed 0x0000_0003;
    HANDLE: handle_high, with_handle_high(true) = 0x0000_0004;
    SHV: subhandle_valid, with_subhandle_valid(true) = 0x0000_0008;
    FORMAT: remappable, with_remappable(true) = 0x0000_0010;
    HANDLE: handle_low, with_handle_low(0x7fff) = 0x000f_ffe0;
    BASE: base, with_base(0xfff) = 0xfff0_0000;
}

layout! {
    request_data: RequestData(u32), unnamed 0;
    SUBHANDLE: subhandle, with_subhandle(0xffff) = 0x0000_ffff;
    R: reserved, with_reserved(0xffff) = 0xffff_0000;
}

// 9.10, bits 63:0.
layout! {
    entry_low: EntryLow(u64), unnamed 0;
    P: present, with_present(true) = 0x0000_0000_0000_0001;
    FPD: fault_disable, with_fault_disable(true) = 0x0000_0000_0000_0002;
    DM: logical, with_logical(true) = 0x0000_0000_0000_0004;
    RH: redirection_hint, with_redirection_hint(true) = 0x0000_0000_0000_0008;
    TM: level, with_level(true) = 0x0000_0000_0000_0010;
    DLM: delivery_mode, with_delivery_mode(0x7) = 0x0000_0000_0000_00e0;
    AVAIL: available, with_available(0xf) = 0x0000_0000_0000_0f00;
    R: reserved0, with_reserved0(0x7) = 0x0000_0000_0000_7000;
    IM: posted, with_posted(true) = 0x0000_0000_0000_8000;
    V: vector, with_vector(0xff) = 0x0000_0000_00ff_0000;
    R: reserved1, with_reserved1(0xff) = 0x0000_0000_ff00_0000;
    DST: destination, with_destination(0xffff_ffff) = 0xffff_ffff_0000_0000;
}

// 9.10, bits 127:64.
layout! {
    entry_high: EntryHigh(u64), unnamed 0;
    SID: source_id, with_source_id(0xffff) = 0x0000_0000_0000_ffff;
    SQ: qualifier, with_qualifier(0x3) = 0x0000_0000_0003_0000;
    SVT: validation, with_validation(0x3) = 0x0000_0000_000c_0000;
    R: reserved, with_reserved(0xfff_ffff_ffff) = 0xffff_ffff_fff0_0000;
}

codes! {
    validation: Validation;
    None = 0x0;
    SourceId = 0x1;
    Bus = 0x2;
    Reserved = 0x3;
}

// 5.1.2.1. VirtualBox (MSIADDR, MSIDATA), Linux (x86_msi_addr_lo, x86_msi_addr_hi,
// x86_msi_data) and QEMU (X86IOMMU_MSIMessage).
layout! {
    message_address: MessageAddress(u64), unnamed 0x0000_00ff_0000_0ff3;
    DM: logical, with_logical(true) = 0x0000_0000_0000_0004;
    RH: redirection_hint, with_redirection_hint(true) = 0x0000_0000_0000_0008;
    DST: destination_low, with_destination_low(0xff) = 0x0000_0000_000f_f000;
    BASE: base, with_base(0xfff) = 0x0000_0000_fff0_0000;
    DST: destination_high, with_destination_high(0xff_ffff) = 0xffff_ff00_0000_0000;
}

layout! {
    message_data: MessageData(u32), unnamed 0xffff_3800;
    V: vector, with_vector(0xff) = 0x0000_00ff;
    DLM: delivery_mode, with_delivery_mode(0x7) = 0x0000_0700;
    L: assert, with_assert(true) = 0x0000_4000;
    TM: level, with_level(true) = 0x0000_8000;
}

#[test]
fn handles_and_types() {
    // As Linux writes it: index 0x8123 with a subhandle.
    let request = RequestAddress::from_bits(0xfee0_247c);
    assert_eq!(request.handle(), 0x8123);
    assert!(request.remappable() && request.subhandle_valid());
    assert_eq!(request.base(), MESSAGE_BASE);
    assert_eq!(MESSAGE_BASE, 0xfee);
    assert_eq!(ENTRY_SIZE, 16);
    for (bits, validation) in [
        (0x0_1234, Validation::None),
        (0x4_1234, Validation::SourceId),
        (0x8_1234, Validation::Bus),
        (0xc_1234, Validation::Reserved),
    ] {
        assert_eq!(Validation::from(EntryHigh::from_bits(bits)), validation);
    }
}
