//! Interrupt requests and interrupt remapping table entries, beside the model's reading of them.

use nested_vtd::interrupt::cache::EntryCache;
use nested_vtd::interrupt::{Control, Message, Request};
use nested_vtd::spec::registers::InterruptTableAddress;
use nested_vtd::translate::{TableError, TableMemory};

use crate::reference::interrupt::{self, Delivered};
use crate::reference::{Memory, Region, bit, field};

const TABLE: u64 = 0x1000;

/// RAM of a few pages, which the model has as well.
struct Ram<'a>(&'a Memory);

impl TableMemory for Ram<'_> {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        self.0.read(address).ok_or(TableError::NotRam)
    }

    fn compare_exchange(&self, _: u64, _: u64, _: u64) -> Result<bool, TableError> {
        panic!("nothing is written in an interrupt remapping table");
    }
}

/// Options: the table's size and modes, two bytes; the requester; words: requests and entries.
pub fn run(options: [u8; 7], words: &[u64]) {
    let [size, modes, low, high, ..] = options;
    let source_id = u16::from_le_bytes([low, high]);
    let register = TABLE | u64::from(size & 15) | u64::from(modes & 1) << 11;
    // The first two words are requests, the others entries, again and again.
    let (requests, entries) = words.split_at(words.len().min(4));
    let mut cells = vec![0; 2 * 512];
    if !entries.is_empty() {
        for (index, cell) in cells.iter_mut().enumerate() {
            *cell = entries[index % entries.len()];
        }
    }
    let memory = Memory::new(vec![Region {
        base: TABLE,
        words: cells,
        writable: true,
    }]);
    let control = Control {
        enabled: modes & 2 == 0,
        compatibility: modes & 4 != 0,
        table: Some(InterruptTableAddress::from_bits(register).into()),
    };
    let of_model = interrupt::Control {
        enabled: control.enabled,
        compatibility: control.compatibility,
        table: register,
    };
    let cache = EntryCache::default();
    for pair in requests.chunks(2) {
        let address = match modes & 8 {
            0 => 0xfee0_0000 | pair[0] & 0xf_ffff,
            _ => pair[0],
        };
        let data = pair.get(1).copied().unwrap_or(0) as u32;
        let request = Request {
            message: Message { address, data },
            source_id,
            verify: true,
            pasid: None,
            look: false,
        };
        let _format = request.message.format();
        for cached in [false, true] {
            let outcome = control.remap(&Ram(&memory), &cache, cache.ticket(), 48, &request);
            if address >> 20 != 0xfee {
                let refused = outcome.result.is_err();
                assert_eq!(refused, control.enabled, "{request:x?}: {outcome:x?}");
                continue;
            }
            let expected = interrupt::remap(memory.now(), &of_model, address, data, source_id);
            match (outcome.result, &expected) {
                (Ok(message), Ok(Delivered::AsSent)) => assert_eq!(message, request.message),
                (Ok(message), Ok(Delivered::Remapped { .. })) => {
                    let upper = message.address >> 40 << 8;
                    let found = Delivered::Remapped {
                        destination: (upper | field(message.address, 19, 12)) as u32,
                        vector: message.data as u8,
                        delivery_mode: (message.data >> 8 & 7) as u8,
                        logical: bit(message.address, 2),
                        level: message.data >> 15 & 1 != 0,
                    };
                    assert_eq!(Ok(found), expected, "{request:x?}");
                }
                (Err(refusal), Err(expected)) => {
                    let code = refusal.fault.reason.code();
                    assert!(expected.codes.contains(&code), "{code:#x} {expected:x?}");
                    assert_eq!(refusal.fault_disable, expected.quiet, "{request:x?}");
                }
                (found, expected) => panic!("{request:x?}: {found:x?}, expected {expected:x?}"),
            }
            let is_entry = matches!(expected, Ok(Delivered::Remapped { .. }));
            assert!(!cached || !is_entry || outcome.cached, "it is not kept");
        }
    }
}
