use std::cell::Cell;

use super::*;
use crate::translate::TableError;

/// A table at 0x1000 with the entries given; other memory is no RAM. Counts reads.
struct Memory {
    entries: Vec<[u64; 2]>,
    reads: Cell<u32>,
}

impl TableMemory for Memory {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        self.reads.set(self.reads.get() + 1);
        let offset = address.checked_sub(0x1000).ok_or(TableError::NotRam)? as usize;
        let entry = self.entries.get(offset / 16).ok_or(TableError::NotRam)?;
        Ok(entry[offset / 8 % 2])
    }

    fn compare_exchange(&self, _: u64, _: u64, _: u64) -> Result<bool, TableError> {
        panic!("interrupt remapping only reads");
    }
}

fn memory(entries: &[[u64; 2]]) -> Memory {
    Memory {
        entries: entries.to_vec(),
        reads: Cell::new(0),
    }
}

/// Present, fixed, vector 0x55 for the 8-bit destination 3.
const PLAIN: u64 = 0x0000_0300_0055_0001;

/// Remapping is on with 16 entries at 0x1000.
fn control(extended: bool) -> Control {
    let register =
        InterruptTableAddress::from_bits(0x1000 | 3).with_extended_interrupt_mode(extended);
    Control {
        enabled: true,
        compatibility: false,
        table: Some(register.into()),
    }
}

fn request(address: u64, data: u32) -> Request {
    Request {
        message: Message { address, data },
        source_id: 0x0108,
        verify: true,
        pasid: None,
        look: false,
    }
}

fn remap(control: &Control, memory: &Memory, request: &Request) -> Outcome {
    let cache = EntryCache::default();
    control.remap(memory, &cache, cache.ticket(), 48, request)
}

/// The request's fault code, 0 if it was delivered.
fn code(control: &Control, entry: [u64; 2], request: &Request) -> u8 {
    let outcome = remap(control, &memory(&[entry]), request);
    outcome
        .result
        .err()
        .map_or(0, |refusal| refusal.fault.reason.code())
}

/// Index `index` without a subhandle.
fn address(index: u64) -> u64 {
    0xfee0_0010 | ((index & 0x7fff) << 5) | ((index >> 15) << 2)
}

#[test]
fn handle_and_subhandle_make_the_index() {
    for (address, data, index) in [
        (0xfee0_0010, 0, 0),
        (0xfee0_0010, 0x80ff, 0), // an I/O APIC's vector and trigger mode
        (0xfee0_0010, u32::MAX, 0),
        (0xfee0_0030, 0, 1),
        (0xfeef_fff4, 0, 0xffff),
        (0xfee0_0038, 0x0102, 0x103),
        (0xfeef_fffc, 0xffff, 0x1_fffe),
        (0xfee0_0013, 0, 0), // bits 1:0 are ignored
    ] {
        let format = Message { address, data }.format();
        assert_eq!(
            format,
            Ok(Format::Remappable(index)),
            "{address:#x} {data:#x}"
        );
    }
    for address in [0xfee0_0000, 0xfeef_ffef, 0xfee0_100c] {
        assert_eq!(
            Message {
                address,
                data: 0xffff_ffff
            }
            .format(),
            Ok(Format::Compatibility)
        );
    }
    for (address, data) in [
        (0xfee0_0018, 0x8000_0000),
        (0xfed0_0010, 0),
        (0xfef0_0000, 0),
        (0x1_fee0_0010, 0),
        (0xffff_ff00_fee0_0000, 0),
    ] {
        let fault = Message { address, data }.format().unwrap_err();
        assert_eq!(fault.reason.code(), 0x20, "{address:#x} {data:#x}");
    }
}

#[test]
fn an_entry_becomes_a_message() {
    // DM, RH, TM and DLM 111b.
    let all = 0x0000_ab00_00fe_00fd;
    let of = |extended, low| {
        let entry = Entry::decode([low, 0], extended).unwrap().message();
        (entry.address, entry.data)
    };
    assert_eq!(of(false, PLAIN), (0xfee0_3000, 0x4055));
    assert_eq!(of(false, all), (0xfeea_b00c, 0xc7fe));
    assert_eq!(of(true, 0x0000_0003_0055_0001), (0xfee0_3000, 0x4055));
    assert_eq!(
        of(true, 0x8765_4321_0030_0011),
        (0x8765_4300_fee2_1000, 0xc030)
    );
    // AVAIL is software's.
    assert_eq!(of(false, PLAIN | 0xf00), (0xfee0_3000, 0x4055));
}

#[test]
fn malformed_entries_have_their_reason_and_honour_fpd() {
    use Diagnostic::*;
    let cases = [
        ([0, 0], 0x22, InterruptEntryNotPresent),
        ([PLAIN | 0x1000, 0], 0x24, InterruptEntryReserved),
        ([PLAIN | 0x4000, 0], 0x24, InterruptEntryReserved),
        ([PLAIN | 0x0100_0000, 0], 0x24, InterruptEntryReserved),
        ([PLAIN | 0x8000_0000, 0], 0x24, InterruptEntryReserved),
        ([PLAIN, 1 << 20], 0x24, InterruptEntryReserved),
        ([PLAIN, 1 << 63], 0x24, InterruptEntryReserved),
        ([PLAIN | 0x8000, 0], 0x24, InterruptEntryPosted),
        ([PLAIN | 1 << 32, 0], 0x24, InterruptEntryDestination),
        ([PLAIN | 1 << 39, 0], 0x24, InterruptEntryDestination),
        ([PLAIN | 1 << 48, 0], 0x24, InterruptEntryDestination),
        ([PLAIN | 1 << 63, 0], 0x24, InterruptEntryDestination),
        ([PLAIN, 0xc_0000], 0x24, InterruptEntryValidation),
    ];
    for ([low, high], reason, diagnostic) in cases {
        for fault_disable in [false, true] {
            let low = low | (u64::from(fault_disable) << 1);
            let refusal = Entry::decode([low, high], false).unwrap_err();
            assert_eq!(refusal.fault.reason.code(), reason, "{low:#x} {high:#x}");
            assert_eq!(refusal.fault.diagnostic, diagnostic, "{low:#x} {high:#x}");
            assert_eq!(refusal.fault_disable, fault_disable);
        }
    }
}

#[test]
fn the_requester_is_compared_as_svt_and_sq_say() {
    let may = |high, source_id| {
        Entry::decode([PLAIN, high], false)
            .unwrap()
            .verify(source_id)
    };
    // SVT 0: SID and SQ mean nothing.
    assert_eq!(may(0x3_0108, 0xffff), Ok(()));
    // SVT 1: function bits 2, 2:1 and 2:0 are left out with SQ 1, 2 and 3.
    for (qualifier, ignored) in [(0, 0), (1, 0b100), (2, 0b110), (3, 0b111)] {
        let high = 0x4_0108 | qualifier << 16;
        for bit in 0..16 {
            let allowed = may(high, 0x0108 ^ (1 << bit)).is_ok();
            assert_eq!(
                allowed,
                ignored & (1 << bit) != 0,
                "SQ {qualifier} bit {bit}"
            );
        }
        assert_eq!(may(high, 0x0108), Ok(()));
    }
    // SVT 2: buses 2 to 4.
    for (bus, allowed) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
        assert_eq!(may(0x8_0204, bus << 8 | 0xff).is_ok(), allowed, "bus {bus}");
    }
    assert!(may(0x8_0402, 0x0300).is_err(), "an empty range");
    for (high, diagnostic) in [
        (0x4_0001, Diagnostic::InterruptSourceId),
        (0x8_0204, Diagnostic::InterruptSourceBus),
    ] {
        let refusal = Entry::decode([PLAIN | 2, high], false)
            .unwrap()
            .verify(0x0108)
            .unwrap_err();
        assert_eq!(
            refusal.fault,
            Fault::new(FaultReason::InterruptSource, diagnostic)
        );
        assert!(refusal.fault_disable);
    }
}

#[test]
fn requests_are_checked_in_the_order_of_the_reasons() {
    let (on, extended) = (control(false), control(true));
    let good = request(address(0), 0);
    assert_eq!(code(&on, [PLAIN, 0], &good), 0);
    assert_eq!(code(&on, [PLAIN, 0], &request(address(16), 0)), 0x21);
    assert_eq!(code(&on, [PLAIN, 0], &request(address(0x8000), 0)), 0x21);
    // The sum does not wrap to index 0.
    assert_eq!(
        code(&on, [PLAIN, 0], &request(address(0xffff) | 8, 1)),
        0x21
    );
    assert_eq!(
        code(&on, [PLAIN, 0], &request(address(16) | 8, 0x1_0000)),
        0x20
    );
    assert_eq!(code(&on, [PLAIN, 0], &request(address(1), 0)), 0x23);
    assert_eq!(code(&on, [PLAIN, 0x4_0000], &good), 0x26);
    assert_eq!(code(&on, [PLAIN, 0x4_0000 | 1 << 20], &good), 0x24);
    assert_eq!(
        code(
            &on,
            [PLAIN, 0x4_0000],
            &Request {
                verify: false,
                ..good
            }
        ),
        0
    );
    assert_eq!(
        code(
            &on,
            [PLAIN, 0],
            &Request {
                pasid: Some(0),
                ..good
            }
        ),
        0x29
    );
    assert_eq!(code(&extended, [PLAIN, 0], &good), 0);
    let unset = Control { table: None, ..on };
    assert_eq!(code(&unset, [PLAIN, 0], &good), 0x23);
    // A table that ends beyond the address width.
    let high = InterruptTableAddress::from_bits(0xffff_ffff_f00f);
    let high = Control {
        table: Some(high.into()),
        ..on
    };
    assert_eq!(code(&high, [PLAIN, 0], &request(address(0xff), 0)), 0x23);
    assert_eq!(code(&high, [PLAIN, 0], &request(address(0x100), 0)), 0x21);
    let last = InterruptTableAddress::from_bits(!0x7f0);
    let last = Control {
        table: Some(last.into()),
        ..on
    };
    assert_eq!(code(&last, [PLAIN, 0], &request(address(0xffff), 0)), 0x21);
}

#[test]
fn compatibility_format_passes_only_if_asked_for_and_without_eime() {
    let old = request(0xfee0_300c, 0x55);
    let with = |extended, compatibility| Control {
        compatibility,
        ..control(extended)
    };
    for (control, reason) in [
        (with(false, false), 0x25),
        (with(false, true), 0),
        (with(true, false), 0x25),
        (with(true, true), 0x25),
    ] {
        assert_eq!(code(&control, [PLAIN, 0], &old), reason, "{control:?}");
    }
    let passed = remap(&with(false, true), &memory(&[]), &old);
    assert_eq!((passed.result, passed.index), (Ok(old.message), None));
}

#[test]
fn without_remapping_everything_passes_but_what_has_a_pasid() {
    let off = Control {
        enabled: false,
        ..control(false)
    };
    for (address, data) in [(0xfee0_0010, 0x1_0000), (0xfee0_3000, 0x55), (0, 0)] {
        let outcome = remap(&off, &memory(&[]), &request(address, data));
        assert_eq!(outcome.result, Ok(Message { address, data }));
        assert_eq!((outcome.index, outcome.cached), (None, false));
    }
    let tagged = Request {
        pasid: Some(7),
        ..request(0xfee0_3000, 0x55)
    };
    assert_eq!(code(&off, [PLAIN, 0], &tagged), 0x29);
}

#[test]
fn entries_are_cached_and_what_is_refused_is_not() {
    let (on, cache) = (control(false), EntryCache::default());
    let memory = memory(&[[PLAIN, 0], [0, 0], [PLAIN, 0x4_0000]]);
    let ask = |index, look| {
        let request = Request {
            look,
            ..request(address(index), 0)
        };
        let before = memory.reads.get();
        let outcome = on.remap(&memory, &cache, cache.ticket(), 48, &request);
        (outcome.cached, memory.reads.get() - before)
    };
    assert_eq!(ask(0, true), (false, 2));
    assert_eq!(ask(0, false), (false, 2), "a look caches nothing");
    assert_eq!(ask(0, false), (true, 0));
    assert_eq!(ask(1, false), (false, 2));
    assert_eq!(ask(1, false), (false, 2), "not present");
    assert_eq!(ask(2, false), (false, 2));
    assert_eq!(
        ask(2, false),
        (true, 0),
        "the entry is good, the requester is not"
    );
    cache.invalidate(1, 0);
    assert_eq!(ask(0, false), (true, 0));
    cache.invalidate(1, 1);
    assert_eq!(ask(0, false), (false, 2));
}

mod cache {
    use super::*;

    fn entry(vector: u64) -> Entry {
        Entry::decode([1 | vector << 16, 0], false).unwrap()
    }

    #[test]
    fn an_invalidation_forgets_its_block_and_no_more() {
        let cache = EntryCache::default();
        let kept = |range: core::ops::Range<u16>| range.filter(|&i| cache.get(i).is_some()).count();
        let fill = || (0..512).for_each(|i| cache.fill(cache.ticket(), i, entry(1)));
        fill();
        assert_eq!(kept(0..512), 512);
        cache.invalidate(0x23, 4);
        assert_eq!((kept(0x20..0x30), kept(0..512)), (0, 496));
        cache.invalidate(0x40, 6);
        assert_eq!((kept(0x40..0x80), kept(0..512)), (0, 432));
        // Larger blocks are not looked up one by one.
        cache.invalidate(0, 7);
        assert_eq!(kept(0..512), 0);
        for mask in [15, 16, 31, 32, 255] {
            fill();
            cache.invalidate(0xffff, mask);
            assert_eq!(kept(0..512), 0, "{mask}");
        }
        fill();
        cache.invalidate(0xffff, 6);
        assert_eq!(kept(0..512), 512, "the last block of the table");
    }

    #[test]
    fn entries_that_share_a_place_are_told_apart() {
        let cache = EntryCache::default();
        let other = EntryCache::CAPACITY as u16;
        cache.fill(cache.ticket(), 0, entry(1));
        assert_eq!(cache.get(other), None);
        cache.fill(cache.ticket(), other, entry(2));
        assert_eq!((cache.get(0), cache.get(other)), (None, Some(entry(2))));
        cache.invalidate(0, 0);
        assert_eq!(cache.get(other), Some(entry(2)));
    }

    #[test]
    fn what_was_read_before_an_invalidation_fills_nothing() {
        let cache = EntryCache::default();
        let invalidations: [&dyn Fn(); 2] =
            [&|| cache.invalidate(9, 0), &|| cache.invalidate_all()];
        for invalidate in invalidations {
            let before = cache.ticket();
            invalidate();
            cache.fill(before, 3, entry(1));
            assert_eq!(cache.get(3), None);
        }
        cache.fill(cache.ticket(), 3, entry(1));
        assert_eq!(cache.get(3), Some(entry(1)));
        cache.invalidate_all();
        assert_eq!(cache.get(3), None);
    }
}
