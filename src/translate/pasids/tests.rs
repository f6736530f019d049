use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::spec::pasid::PASID_ENTRY_SIZE;
use crate::spec::registers::{Cap, Ecap};
use crate::translate::TableError;
use crate::translate::tables::{Purpose, Requester, lookup};

const ROOT: u64 = 0x1000;
const CONTEXT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const TABLES: u64 = 0x4000;
/// The fourth PASID table ends within an entry.
const RAM: u64 = TABLES + 0x3000 + 5 * PASID_ENTRY_SIZE + 3 * 8;

struct Ram(Vec<u64>);

impl TableMemory for Ram {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        let at = usize::try_from(address / 8).unwrap();
        self.0.get(at).copied().ok_or(TableError::NotRam)
    }

    fn compare_exchange(&self, _: u64, _: u64, _: u64) -> Result<bool, TableError> {
        panic!("PASID tables are only read");
    }
}

impl Ram {
    fn set(&mut self, address: u64, value: u64) {
        if let Some(qword) = self.0.get_mut((address / 8) as usize) {
            *qword = value;
        }
    }
}

/// FPD, reserved bits, and types of all kinds.
fn first() -> impl Strategy<Value = u64> {
    (0_u64..5, 0_u64..4, prop::bool::weighted(0.1))
        .prop_map(|(pgtt, low, reserved)| pgtt << 6 | low | u64::from(reserved) << 10 | 0x7000)
}

proptest! {
    /// Those that looking up finds, as it finds them, and no others.
    #[test]
    fn visiting_is_looking_up(
        entries in vec((0_u32..64 * 4, first(), 0_u64..4, 0_u64..256), 0..200),
        directory in vec((0_u32..200, 0_u64..5, 0_u64..8), 0..60),
        (pdts, pss, context) in (0_u64..2, 4_u8..15, 0_u64..16),
        reports in any::<u64>(),
    ) {
        let mut ram = Ram(vec![0; (RAM / 8) as usize]);
        ram.set(ROOT, CONTEXT | 1);
        // P, FPD, DTE, PASIDE; mostly present and with PASIDs.
        ram.set(CONTEXT, DIRECTORY | pdts << 9 | context | if reports & 1 == 0 { 0b1001 } else { 0 });
        for (index, table, low) in directory {
            ram.set(DIRECTORY + u64::from(index) * 8, (TABLES + table * 0x1000) | low);
        }
        for (place, first, second, third) in entries {
            let at = TABLES + u64::from(place) * PASID_ENTRY_SIZE;
            ram.set(at, first);
            ram.set(at + 8, second);
            ram.set(at + 16, third | 0x9000);
        }
        let ecap = Ecap::from_bits(reports)
            .with_scalable_mode(true)
            .with_pasid(reports & 0xf0 != 0)
            .with_first_stage(true)
            .with_pasid_size(pss);
        let capabilities = Capabilities {
            cap: Cap::new(),
            ecap,
            address_width: 39,
        };
        let root = RootTableAddress::from_bits(ROOT | 1 << 10);
        let mut visited = Vec::new();
        if let Some(tables) = PasidTables::of(&ram, &capabilities, root, 0) {
            let mut next = Some(0);
            while let Some(from) = next {
                next = tables.visit(&ram, &capabilities, from, |it| visited.push(*it));
                prop_assert!(next.is_none_or(|next| next > from && next % 64 == 0));
            }
        }
        let mut found = Vec::new();
        // With PASID, as many as there are.
        if ecap.pasid() {
            for pasid in 0..2 << pss {
                let requester = Requester {
                    source_id: 0,
                    pasid: Some(pasid),
                    purpose: Purpose::Untranslated,
                };
                found.extend(lookup(&ram, &capabilities, root, requester));
            }
        }
        prop_assert_eq!(visited, found);
    }
}
