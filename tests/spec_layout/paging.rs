//! Paging entries (section 9.7).

use nested_vtd::spec::paging::FirstStageEntry;

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
