//! Paging entries (sections 9.7 and 9.8).

use nested_vtd::spec::paging::{FirstStageEntry, SecondStageEntry};

// 9.7. EA is VirtualBox's alone, as nothing in Linux or QEMU sets it. D, PS and G are
// bits of a leaf; VirtualBox gives the entry that leads to a table, where they have no
// meaning.
layout! {
    first_stage_entry: FirstStageEntry(u64), unnamed 0x7ff0_0000_0000_0a00;
    P: present, with_present(true) = 0x0000_0000_0000_0001;
    RW: writable, with_writable(true) = 0x0000_0000_0000_0002;
    US: user, with_user(true) = 0x0000_0000_0000_0004;
    PWT: write_through, with_write_through(true) = 0x0000_0000_0000_0008;
    PCD: cache_disable, with_cache_disable(true) = 0x0000_0000_0000_0010;
    A: accessed, with_accessed(true) = 0x0000_0000_0000_0020;
    D: dirty, with_dirty(true) = 0x0000_0000_0000_0040;
    PS: page_size, with_page_size(true) = 0x0000_0000_0000_0080;
    G: global, with_global(true) = 0x0000_0000_0000_0100;
    EA: extended_accessed, with_extended_accessed(true) = 0x0000_0000_0000_0400;
    ADDR: frame, with_frame(0xff_ffff_ffff) = 0x000f_ffff_ffff_f000;
    XD: execute_disable, with_execute_disable(true) = 0x8000_0000_0000_0000;
}

#[test]
fn address() {
    assert_eq!(
        FirstStageEntry::from_bits(0xffff_ffff_ffff_ffff).address(),
        0x000f_ffff_ffff_f000
    );
    assert_eq!(
        FirstStageEntry::from_bits(0x8000_0001_2345_6067).address(),
        0x0000_0001_2345_6000
    );
}

// 9.8. The leaf's bits; a non-leaf entry has R, W, X, PS, A and the address.
layout! {
    second_stage_entry: SecondStageEntry(u64), unnamed 0xbff0_0000_0000_0400;
    R: readable, with_readable(true) = 0x0000_0000_0000_0001;
    W: writable, with_writable(true) = 0x0000_0000_0000_0002;
    X: executable, with_executable(true) = 0x0000_0000_0000_0004;
    EMT: memory_type, with_memory_type(0x7) = 0x0000_0000_0000_0038;
    IPAT: ignore_attributes, with_ignore_attributes(true) = 0x0000_0000_0000_0040;
    PS: page_size, with_page_size(true) = 0x0000_0000_0000_0080;
    A: accessed, with_accessed(true) = 0x0000_0000_0000_0100;
    D: dirty, with_dirty(true) = 0x0000_0000_0000_0200;
    SNP: snoop, with_snoop(true) = 0x0000_0000_0000_0800;
    ADDR: frame, with_frame(0xff_ffff_ffff) = 0x000f_ffff_ffff_f000;
    TM: transient_mapping, with_transient_mapping(true) = 0x4000_0000_0000_0000;
}

#[test]
fn second_stage_address() {
    assert_eq!(
        SecondStageEntry::from_bits(u64::MAX).address(),
        0x000f_ffff_ffff_f000
    );
}
