use nested_vtd::spec::page_request::*;

// 7.4.1.1. From Linux and QEMU: VirtualBox has no page requests. Bits 10:9 of the low
// qword (SRF, PDP) and the upper two qwords have a meaning in older revisions.
layout! {
    page_request_low: PageRequestLow(u64), unnamed 0;
    TYPE: kind, with_kind(0xff) = 0x0000_0000_0000_00ff;
    PP: pasid_present, with_pasid_present(true) = 0x0000_0000_0000_0100;
    R: reserved0, with_reserved0(0x7f) = 0x0000_0000_0000_fe00;
    RID: source_id, with_source_id(0xffff) = 0x0000_0000_ffff_0000;
    PASID: pasid, with_pasid(0xf_ffff) = 0x000f_ffff_0000_0000;
    EXE: execute, with_execute(true) = 0x0010_0000_0000_0000;
    PRIV: privileged, with_privileged(true) = 0x0020_0000_0000_0000;
    R: reserved1, with_reserved1(0x3ff) = 0xffc0_0000_0000_0000;
}

layout! {
    page_request_high: PageRequestHigh(u64), unnamed 0;
    RD: read, with_read(true) = 0x0000_0000_0000_0001;
    WR: write, with_write(true) = 0x0000_0000_0000_0002;
    LPIG: last, with_last(true) = 0x0000_0000_0000_0004;
    PRGI: group, with_group(0x1ff) = 0x0000_0000_0000_0ff8;
    ADDR: page, with_page(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 7.7.1.
codes! {
    response_codes: ResponseCode;
    Success = 0x0;
    Invalid = 0x1;
    Failure = 0xf;
}

#[test]
fn unused_response_codes_are_failures() {
    let codes: Vec<u8> = (0..16).map(|code| ResponseCode::from(code) as u8).collect();
    assert_eq!(codes[..3], [0, 1, 15]);
    assert!(codes[2..].iter().all(|&code| code == 15));
}

#[test]
fn sizes() {
    assert_eq!((PAGE_REQUEST_TYPE, PAGE_REQUEST_SIZE), (1, 32));
}
