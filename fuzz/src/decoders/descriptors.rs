//! Invalidation descriptors: the crate's reading beside the model's.

use nested_vtd::spec::descriptors::{Descriptor, PageRange, PasidPages, Scope, SourceMatch};

use super::ranges::is_range;
use crate::reference::queue::{Command, decode, ignored_by};
use crate::reference::{bit, field, mask};

/// Four qwords; and the first two of them as a descriptor of 128 bits.
pub fn run(words: [u64; 4]) {
    compare(words, &words);
    let [low, high, ..] = words;
    compare([low, high, 0, 0], &words[..2]);
}

fn compare(words: [u64; 4], of_model: &[u64]) {
    let found = Descriptor::decode(words);
    let expected = decode(of_model);
    let kind = field(words[0], 3, 0) | field(words[0], 11, 9) << 4;
    match (found, expected) {
        // The unit is lenient where revisions of the specification differ.
        (Ok(descriptor @ Descriptor::PageGroupResponse { .. }), _) if kind == 9 => {
            page_group(words, descriptor);
        }
        (Err(info), Err(code)) => assert_eq!(info as u64, code, "{words:x?}"),
        // More entries than an interrupt remapping table has.
        (Err(info), Ok(Command::Other)) if kind == 4 => {
            assert!(
                info as u64 == 4 && field(words[0], 31, 27) > 15,
                "{words:x?}"
            );
        }
        (Ok(descriptor), Ok(command)) => same(words, descriptor, command),
        (found, expected) => panic!("{words:x?} is {found:x?}, expected {expected:x?}"),
    }
}

fn pages_of(range: PageRange) -> (u64, u32, bool) {
    is_range(range);
    (range.address, range.address_mask.into(), range.leaf_only)
}

/// The same command, with the same fields.
fn same(words: [u64; 4], descriptor: Descriptor, command: Command) {
    let [low, high, ..] = words;
    let read = match descriptor {
        Descriptor::ContextCache(Scope::Global) => Command::Contexts,
        Descriptor::ContextCache(Scope::Domain(domain)) => Command::DomainContexts { domain },
        Descriptor::ContextCache(Scope::Fine(domain, matching)) => {
            sources(matching);
            Command::DeviceContexts {
                domain,
                source_id: matching.source_id,
                ignored: ignored_by(matching.function_mask.into()),
            }
        }
        Descriptor::Iotlb(Scope::Global) => Command::Translations,
        Descriptor::Iotlb(Scope::Domain(domain)) => Command::DomainTranslations { domain },
        Descriptor::Iotlb(Scope::Fine(domain, range)) => {
            let (address, order, leaf_only) = pages_of(range);
            Command::Pages {
                domain,
                address,
                order,
                leaf_only,
            }
        }
        Descriptor::PasidIotlb {
            domain_id: domain,
            pasid,
            pages: PasidPages::All,
        } => Command::PasidTranslations { domain, pasid },
        Descriptor::PasidIotlb {
            domain_id: domain,
            pasid,
            pages: PasidPages::Range(range),
        } => {
            let (address, order, leaf_only) = pages_of(range);
            Command::PasidPages {
                domain,
                pasid,
                address,
                order,
                leaf_only,
            }
        }
        Descriptor::PasidCache(Scope::Global) => Command::Pasids,
        Descriptor::PasidCache(Scope::Domain(domain)) => Command::DomainPasids { domain },
        Descriptor::PasidCache(Scope::Fine(domain, pasid)) => Command::Pasid { domain, pasid },
        Descriptor::Wait {
            status,
            interrupt,
            fence,
            page_drain,
        } => {
            assert_eq!(
                (interrupt, fence, page_drain),
                (bit(low, 4), bit(low, 6), bit(low, 7))
            );
            Command::Wait { status }
        }
        Descriptor::DeviceTlb { source_id, range } => {
            assert_eq!(u64::from(source_id), field(low, 47, 32));
            assert_eq!(
                range,
                device_tlb_range(high >> 12, bit(high, 0)),
                "{words:x?}"
            );
            Command::Other
        }
        Descriptor::PasidDeviceTlb {
            source_id,
            pasid,
            range,
        } => {
            assert_eq!(u64::from(source_id), field(low, 31, 16));
            let of_one = (!bit(high, 0)).then_some(field(low, 51, 32) as u32);
            assert_eq!(pasid, of_one, "{words:x?}");
            assert_eq!(
                range,
                device_tlb_range(high >> 12, bit(high, 11)),
                "{words:x?}"
            );
            Command::Other
        }
        Descriptor::InterruptEntryCache { range } => {
            let fields = (field(low, 47, 32) as u16, field(low, 31, 27) as u8);
            assert_eq!(range, bit(low, 4).then_some(fields), "{words:x?}");
            Command::Other
        }
        Descriptor::PageGroupResponse { .. } => Command::Other,
    };
    assert_eq!(read, command, "{words:x?} as {descriptor:x?}");
}

fn page_group([low, high, ..]: [u64; 4], descriptor: Descriptor) {
    let expected = Descriptor::PageGroupResponse {
        source_id: field(low, 31, 16) as u16,
        pasid: bit(low, 4).then_some(field(low, 51, 32) as u32),
        code: field(low, 15, 12) as u8,
        group: field(high, 11, 3) as u16,
    };
    assert_eq!(descriptor, expected);
}

/// Of all functions exactly those that differ in ignored bits match.
fn sources(matching: SourceMatch) {
    let ignored = ignored_by(matching.function_mask.into());
    for other in 0..16 {
        let source_id = matching.source_id ^ other;
        assert_eq!(
            matching.matches(source_id),
            other & !ignored == 0,
            "{matching:x?} {other:#x}"
        );
    }
}

/// As ATS has it: without S one page. With S the number of low bits of the page's number that are set says how many: none
/// two pages, one four, and so on.
fn device_tlb_range(page: u64, size: bool) -> (u64, u64) {
    let mut pages: u128 = 1;
    if size {
        pages = 2;
        let mut bits = page;
        while bits & 1 != 0 {
            pages *= 2;
            bits >>= 1;
        }
    }
    let bytes = pages * 4096;
    let address = u128::from(page) * 4096;
    let first = address / bytes * bytes;
    let last = (first + bytes - 1).min(u128::from(u64::MAX));
    assert!(first <= u128::from(mask(63, 0)));
    (first as u64, last as u64)
}
