//! PASID directory and PASID table entries (sections 9.5 and 9.6).

use nested_vtd::spec::pasid::{
    DIRECTORY_ENTRY_SIZE, DirectoryEntry, PASID_ENTRY_QWORDS, PASID_ENTRY_SIZE,
    PASID_TABLE_ENTRIES, PasidEntry0, PasidEntry1, PasidEntry2, TranslationType,
};

// 9.5.
layout! {
    directory_entry: DirectoryEntry(u64), unnamed 0;
    P: present, with_present(true) = 0x0000_0000_0000_0001;
    FPD: fault_disable, with_fault_disable(true) = 0x0000_0000_0000_0002;
    R: reserved, with_reserved(0x3ff) = 0x0000_0000_0000_0ffc;
    SMPTBLPTR: table, with_table(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 9.6, bits 63:0.
layout! {
    pasid_entry_0: PasidEntry0(u64), unnamed 0;
    P: present, with_present(true) = 0x0000_0000_0000_0001;
    FPD: fault_disable, with_fault_disable(true) = 0x0000_0000_0000_0002;
    AW: address_width, with_address_width(0x7) = 0x0000_0000_0000_001c;
    SSEE: second_stage_execute, with_second_stage_execute(true) = 0x0000_0000_0000_0020;
    PGTT: translation_type, with_translation_type(0x7) = 0x0000_0000_0000_01c0;
    SSADE: second_stage_accessed_dirty, with_second_stage_accessed_dirty(true)
        = 0x0000_0000_0000_0200;
    R: reserved, with_reserved(0x3) = 0x0000_0000_0000_0c00;
    SSPTPTR: second_stage_table, with_second_stage_table(0xf_ffff_ffff_ffff)
        = 0xffff_ffff_ffff_f000;
}

// 9.6, bits 127:64.
layout! {
    pasid_entry_1: PasidEntry1(u64), unnamed 0;
    DID: domain_id, with_domain_id(0xffff) = 0x0000_0000_0000_ffff;
    R: reserved, with_reserved(0x7f) = 0x0000_0000_007f_0000;
    PWSNP: page_walk_snoop, with_page_walk_snoop(true) = 0x0000_0000_0080_0000;
    PGSNP: page_snoop, with_page_snoop(true) = 0x0000_0000_0100_0000;
    CD: cache_disable, with_cache_disable(true) = 0x0000_0000_0200_0000;
    EMTE: memory_type_enable, with_memory_type_enable(true) = 0x0000_0000_0400_0000;
    EMT: memory_type, with_memory_type(0x7) = 0x0000_0000_3800_0000;
    PWT: write_through, with_write_through(true) = 0x0000_0000_4000_0000;
    PCD: page_cache_disable, with_page_cache_disable(true) = 0x0000_0000_8000_0000;
    PAT: page_attributes, with_page_attributes(0xffff_ffff) = 0xffff_ffff_0000_0000;
}

// 9.6, bits 191:128.
layout! {
    pasid_entry_2: PasidEntry2(u64), unnamed 0;
    SRE: supervisor_request, with_supervisor_request(true) = 0x0000_0000_0000_0001;
    ERE: execute_request, with_execute_request(true) = 0x0000_0000_0000_0002;
    FSPM: paging_mode, with_paging_mode(0x3) = 0x0000_0000_0000_000c;
    WPE: write_protect, with_write_protect(true) = 0x0000_0000_0000_0010;
    NXE: no_execute, with_no_execute(true) = 0x0000_0000_0000_0020;
    SMEP: supervisor_execute_prevention, with_supervisor_execute_prevention(true)
        = 0x0000_0000_0000_0040;
    EAFE: extended_accessed, with_extended_accessed(true) = 0x0000_0000_0000_0080;
    R: reserved, with_reserved(0xf) = 0x0000_0000_0000_0f00;
    FSPTPTR: first_stage_table, with_first_stage_table(0xf_ffff_ffff_ffff)
        = 0xffff_ffff_ffff_f000;
}

// 9.6, PGTT.
codes! {
    translation_type: TranslationType;
    FirstStage = 1;
    SecondStage = 2;
    Nested = 3;
    PassThrough = 4;
}

#[test]
fn translation_type_of_pgtt() {
    let table = [
        (0x000, None),
        (0x040, Some(TranslationType::FirstStage)),
        (0x080, Some(TranslationType::SecondStage)),
        (0x0c0, Some(TranslationType::Nested)),
        (0x100, Some(TranslationType::PassThrough)),
        (0x140, None),
        (0x180, None),
        (0x1c0, None),
    ];
    for (literal, expected) in table {
        let pgtt = PasidEntry0::from_bits(literal).translation_type();
        assert_eq!(TranslationType::from_pgtt(pgtt), expected, "{literal:#x}");
    }
    assert_eq!(TranslationType::from_pgtt(8), None);
}

// As Linux writes a first-stage entry: P, AW 48-bit, PGTT 1; domain 2, PWSNP; the
// table, 5-level.
#[test]
fn first_stage_entry_of_linux() {
    let first = PasidEntry0::from_bits(0x0000_0000_0000_0049);
    assert!(first.present() && !first.fault_disable());
    assert_eq!(first.address_width(), 2);
    assert_eq!(first.translation_type(), 1);
    let second = PasidEntry1::from_bits(0x0000_0000_0080_0002);
    assert_eq!(second.domain_id(), 2);
    assert!(second.page_walk_snoop() && !second.page_snoop());
    let third = PasidEntry2::from_bits(0x0000_0001_2345_6004);
    assert_eq!(third.paging_mode(), 1);
    assert_eq!(third.first_stage_address(), 0x0000_0001_2345_6000);
    assert_eq!(
        (first.reserved(), second.reserved(), third.reserved()),
        (0, 0, 0)
    );
}

#[test]
fn addresses_and_sizes() {
    assert_eq!(
        DirectoryEntry::from_bits(0x1234_5fff).address(),
        0x1234_5000
    );
    assert_eq!(DIRECTORY_ENTRY_SIZE, 8);
    assert_eq!(PASID_ENTRY_SIZE, 64);
    assert_eq!(PASID_ENTRY_QWORDS, 8);
    assert_eq!(PASID_TABLE_ENTRIES, 64);
}
