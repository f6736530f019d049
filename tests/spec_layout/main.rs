//! The layouts of `spec`, and the structures of `host` that the kernel reads, bit by
//! bit against literal values.
//!
//! The literals were compared with two public sources that do not depend on each
//! other: VirtualBox's `iommu-intel.h`, and the Linux driver (`drivers/iommu/intel`)
//! together with QEMU's `intel_iommu_internal.h`. The structures of `host` are those
//! of Linux's `include/uapi/linux/iommufd.h`.
//!
//! A row of a table is: the specification's name of the field, its getter, its setter
//! with all ones, and the bits that this is to give.

use core::fmt::Debug;

/// A test that compares a structure with its table: every named field is in the table
/// and stands where it says, and fields and unnamed bits share the word without gap or
/// overlap.
macro_rules! layout {
    ($test:ident: $type:ident($word:ident), unnamed $unnamed:literal;
     $($name:ident: $field:ident, $with:ident($ones:literal) = $mask:literal;)+) => {
        #[test]
        fn $test() {
            let mut layout = crate::Layout::new(stringify!($type));
            $(
                layout.field(
                    stringify!($name),
                    stringify!($field),
                    $type::new().$with($ones).into_bits(),
                    $mask,
                );
                crate::reads(
                    concat!(stringify!($type), ".", stringify!($name)),
                    [$mask, $word::MAX, !$mask].map(|bits: $word| $type::from_bits(bits).$field()),
                    $ones,
                );
            )+
            layout.finish($word::MAX, $unnamed, &format!("{:?}", $type::new()));
            assert_eq!(size_of::<$type>(), size_of::<$word>());
            assert_eq!($type::default().into_bits(), 0);
        }
    };
}

/// A test that compares the values of an enumeration with a table. A variant that the
/// table lacks does not compile.
macro_rules! codes {
    ($test:ident: $type:ident; $($variant:ident = $code:literal;)+) => {
        #[test]
        fn $test() {
            let code = |value| -> u8 { match value { $($type::$variant => $code,)+ } };
            for value in [$($type::$variant),+] {
                assert_eq!(value as u8, code(value), "{value:?}");
            }
        }
    };
    ($test:ident: $type:ident as $list:ident; $($variant:ident = $code:literal;)+) => {
        const $list: &[u8] = &[$($code),+];
        codes! { $test: $type; $($variant = $code;)+ }
    };
}

mod decode;
mod descriptors;
mod fault;
mod host;
mod interrupt;
mod page_request;
mod paging;
mod pasid;
mod registers;
mod root_context;

/// What the rows of a table add up to.
struct Layout {
    structure: &'static str,
    fields: Vec<&'static str>,
    named: u64,
}

impl Layout {
    fn new(structure: &'static str) -> Self {
        Self {
            structure,
            fields: Vec::new(),
            named: 0,
        }
    }

    /// The setter made `made`; the table says `mask`.
    fn field(&mut self, name: &str, field: &'static str, made: impl Into<u64>, mask: u64) {
        let made = made.into();
        let structure = self.structure;
        assert_eq!(made, mask, "{structure}.{name}: {made:#x}, not {mask:#x}");
        assert_eq!(
            self.named & mask,
            0,
            "{structure}.{name} overlaps another field"
        );
        self.named |= mask;
        self.fields.push(field);
    }

    /// Named and unnamed bits are the whole word, and `debug`, which prints every
    /// named field, names those of the table.
    fn finish(self, word: impl Into<u64>, unnamed: u64, debug: &str) {
        let structure = self.structure;
        assert_eq!(
            self.named & unnamed,
            0,
            "{structure}: named, yet listed as unnamed"
        );
        assert_eq!(
            self.named | unnamed,
            word.into(),
            "{structure}: bits that no row has"
        );
        let printed = debug
            .trim_start_matches(structure)
            .trim_matches([' ', '{', '}']);
        let printed: Vec<&str> = printed
            .split(", ")
            .filter_map(|field| field.split(':').next())
            .collect();
        assert_eq!(printed, self.fields, "{structure}: fields, and rows");
    }
}

/// The getter gave `read` of the field's bits alone, of all ones and of all ones but
/// the field's bits.
fn reads<V: Debug + Default + PartialEq>(field: &str, read: [V; 3], ones: V) {
    let [alone, full, without] = read;
    assert_eq!(alone, ones, "{field} alone");
    assert_eq!(full, ones, "{field} among ones");
    assert_eq!(without, V::default(), "{field} cleared");
}

/// Constants that belong to no structure.
#[test]
fn constants() {
    use nested_vtd::spec;
    assert_eq!(spec::PAGE_SIZE, 0x1000);
    assert_eq!(spec::INTERRUPT_RANGE_FIRST, 0xfee0_0000);
    assert_eq!(spec::INTERRUPT_RANGE_LAST, 0xfeef_ffff);
}
