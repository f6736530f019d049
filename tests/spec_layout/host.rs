//! Structures and flags of the kernel's iommufd interface.

use core::mem::offset_of;

use nested_vtd::host::{
    VTD_INV_FLAGS_LEAF, VTD_S1_EAFE, VTD_S1_SRE, VTD_S1_WPE, VtdS1, VtdS1Invalidate,
};

/// A test of size, alignment, and type and offset of every field.
macro_rules! structure {
    ($test:ident: $type:ident, size $size:literal, align $align:literal;
     $($field:ident: $kind:ty, at $offset:literal;)+) => {
        #[test]
        fn $test() {
            let $type { $($field),+ } = $type::default();
            $(
                let zero: $kind = $field;
                assert_eq!(zero, 0);
                assert_eq!(offset_of!($type, $field), $offset, stringify!($field));
            )+
            assert_eq!(size_of::<$type>(), $size);
            assert_eq!(align_of::<$type>(), $align);
        }
    };
}

// struct iommu_hwpt_vtd_s1.
structure! {
    vtd_s1: VtdS1, size 24, align 8;
    flags: u64, at 0;
    pgtbl_addr: u64, at 8;
    addr_width: u32, at 16;
    reserved: u32, at 20;
}

// struct iommu_hwpt_vtd_s1_invalidate.
structure! {
    vtd_s1_invalidate: VtdS1Invalidate, size 24, align 8;
    addr: u64, at 0;
    npages: u64, at 8;
    flags: u32, at 16;
    reserved: u32, at 20;
}

// enum iommu_hwpt_vtd_s1_flags, enum iommu_hwpt_vtd_s1_invalidate_flags.
#[test]
fn flags() {
    assert_eq!(VTD_S1_SRE, 0x1);
    assert_eq!(VTD_S1_EAFE, 0x2);
    assert_eq!(VTD_S1_WPE, 0x4);
    assert_eq!(VTD_INV_FLAGS_LEAF, 0x1);
}

// The kernel takes address 0 with all ones as everything.
#[test]
fn everything() {
    let all = VtdS1Invalidate::ALL;
    assert_eq!(all.addr, 0);
    assert_eq!(all.npages, 0xffff_ffff_ffff_ffff);
    assert_eq!((all.flags, all.reserved), (0, 0));
}
