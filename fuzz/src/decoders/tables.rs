//! Root, context, directory and PASID entries, beside the model's reading of them; and capabilities.

use nested_vtd::spec::registers::RootTableAddress;
use nested_vtd::translate::first_stage::FirstStage;
use nested_vtd::translate::pasids::PasidTables;
use nested_vtd::translate::second_stage::SecondStage;
use nested_vtd::translate::stages::{Stages, Tables};
use nested_vtd::translate::tables::{Purpose, Requester, Translated, lookup};
use nested_vtd::translate::{TableError, TableMemory};
use nested_vtd::unit::{Config, Features, HostKind};

use crate::reference::lookup::{self as model, First, Second};
use crate::reference::{self, Kind, Memory, Refusal, Region, Request, bit};

const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const ENTRIES: u64 = 0x4000;
const SOURCE_ID: u16 = 0x18;

/// RAM of a few pages, which the model has as well.
struct Ram<'a>(&'a Memory);

impl TableMemory for Ram<'_> {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        self.0.read(address).ok_or(TableError::NotRam)
    }

    fn compare_exchange(&self, _: u64, _: u64, _: u64) -> Result<bool, TableError> {
        panic!("nothing is written in these tables");
    }
}

fn config(options: [u8; 7], words: &[u64]) -> Config {
    let [address_width, pasid_bits, ..] = options;
    Config {
        host: HostKind::None,
        features: Features::from_bits(words.first().copied().unwrap_or(0) & Features::DEFINED),
        address_width: [48, 57, 39, 0][usize::from(address_width % 4)],
        pasid_bits: u32::from(pasid_bits % 21),
        ..Config::DEFAULT
    }
}

/// Options: width, PASID bits, mode and which entries lead on, the request; words: features, a PASID, the
/// entries.
pub fn run(options: [u8; 7], words: &[u64]) {
    let Ok(capabilities) = config(options, words).capabilities() else {
        return;
    };
    let [_, _, mode, leading, asked, ..] = options;
    let mut rest = words.iter().copied().skip(1);
    let mut next = || rest.next().unwrap_or(0);
    let pasid = (asked & 1 != 0).then_some(next() as u32 & 0xf_ffff);
    // Each entry leads to the next one, unless it is to lead anywhere.
    let lead = |word: u64, to: u64, place: u8| {
        if leading >> place & 1 == 0 {
            word & 0xfff | to | 1
        } else {
            word
        }
    };
    let mut memory = Memory::new(vec![Region {
        base: ROOT,
        words: vec![0; 4 * 512],
        writable: true,
    }]);
    let root = RootTableAddress::from_bits(ROOT | u64::from(mode & 3) << 10);
    let [bus, function] = SOURCE_ID.to_be_bytes();
    let legacy = mode & 3 == 0;
    memory.write(ROOT + u64::from(bus) * 16, lead(next(), CONTEXTS, 0));
    if leading & 8 != 0 {
        memory.write(ROOT + u64::from(bus) * 16 + 8, next());
    }
    let context = CONTEXTS + u64::from(function) * if legacy { 16 } else { 32 };
    memory.write(context, lead(next(), DIRECTORY, 1));
    for at in [8, 16, 24] {
        let word = next();
        let used = at == 8 || leading & 16 != 0;
        memory.write(context + at, if used { word } else { 0 });
    }
    let number =
        u64::from(pasid.unwrap_or(memory.read(context + 8).unwrap_or(0) as u32 & 0xf_ffff));
    let in_directory = DIRECTORY + number / 64 % 512 * 8;
    memory.write(in_directory, lead(next(), ENTRIES, 2));
    for at in 0..8 {
        let word = next();
        let used = at < 3 || leading & 32 != 0;
        memory.write(
            ENTRIES + number % 64 * 64 + at * 8,
            if used { word } else { 0 },
        );
    }
    let of_model = reference::Capabilities {
        cap: capabilities.cap.into_bits(),
        ecap: capabilities.ecap.into_bits(),
        host_width: capabilities.address_width,
    };
    let (kind, purpose) = match asked >> 1 & 3 {
        0 | 1 => (Kind::Untranslated, Purpose::Untranslated),
        2 => (Kind::Translation, Purpose::Translation),
        _ => (Kind::Translated, Purpose::Translated),
    };
    let requester = Requester {
        source_id: SOURCE_ID,
        pasid,
        purpose,
    };
    let found = lookup(&Ram(&memory), &capabilities, root, requester);
    let request = Request {
        address: 0,
        pasid,
        kind,
        read: true,
        write: false,
        execute: false,
        privileged: false,
    };
    let expected = expected(&memory, &of_model, root.into_bits(), &request);
    match (found, expected) {
        (Err(found), Err(expected)) => {
            let code = found.fault.reason.code();
            assert!(
                expected.codes.contains(&code),
                "{found:x?}, expected {expected:x?}"
            );
            assert_eq!(found.fault_disable, expected.quiet, "{found:x?}");
        }
        (Ok(found), Ok(Some(expected))) => same(&found, &expected),
        // Translated requests need no more than the context entry.
        (Ok(_), Ok(None)) => {}
        (found, expected) => panic!("{found:x?}, expected {expected:x?}"),
    }
    visit(&memory, &capabilities, root);
}

fn expected(
    memory: &Memory,
    capabilities: &reference::Capabilities,
    root: u64,
    request: &Request,
) -> Result<Option<reference::Paging>, Refusal> {
    if model::table_mode(root) == 0 && request.pasid.is_some() {
        return Err(Refusal::new(0x31, false));
    }
    let view = memory.now();
    let context = model::context(view, capabilities, root, SOURCE_ID)?;
    match model::admit(&context, request)? {
        Some(pasid) => model::pasid_entry(view, capabilities, &context, pasid).map(Some),
        None if request.kind == Kind::Translated => Ok(None),
        None => Ok(model::legacy_paging(&context, capabilities)),
    }
}

fn same(found: &Translated, expected: &reference::Paging) {
    let pasid = expected.pasid.unwrap_or(0);
    assert_eq!(
        (found.domain_id, found.pasid, found.fault_disable),
        (expected.domain, pasid, expected.quiet)
    );
    assert_eq!(
        (found.execute_request, found.supervisor_request),
        (expected.execute_requests, expected.supervisor_requests)
    );
    let same = match (&found.stages, &expected.stages) {
        (
            Stages::PassThrough { width, legacy },
            model::Stages::PassThrough {
                width: of_model,
                legacy: is_legacy,
            },
        ) => (width, legacy) == (of_model, is_legacy),
        (Stages::FirstStage(first), model::Stages::First(expected)) => same_first(first, expected),
        (Stages::SecondStage(second), model::Stages::Second(expected)) => {
            same_second(second, expected)
        }
        (Stages::Nested(first, second), model::Stages::Nested(one, two)) => {
            same_first(first, one) && same_second(second, two)
        }
        _ => false,
    };
    assert!(same, "{:x?}, expected {:x?}", found.stages, expected.stages);
}

fn same_first(found: &Tables<FirstStage>, expected: &First) -> bool {
    let format = found.format;
    (found.table, format.levels) == (expected.table, expected.levels)
        && format.write_protect == expected.write_protect
        && format.no_execute == expected.no_execute
        && format.supervisor_execute_prevention == expected.supervisor_execute_prevention
        && format.extended_accessed == expected.extended_accessed
        && format.snoop == expected.snooped
}

fn same_second(found: &Tables<SecondStage>, expected: &Second) -> bool {
    let format = found.format;
    (found.table, format.levels) == (expected.table, expected.levels)
        && format.accessed_dirty == expected.accessed_dirty
        && format.execute_enable == expected.execute
        && format.snoop == expected.snooped
}

/// Going through PASID tables ends, and finds each PASID once and in order.
fn visit(
    memory: &Memory,
    capabilities: &nested_vtd::translate::tables::Capabilities,
    root: RootTableAddress,
) {
    let Some(tables) = PasidTables::of(&Ram(memory), capabilities, root, SOURCE_ID) else {
        return;
    };
    let (mut from, mut last) = (0, None);
    for _ in 0..1 << 14 {
        let next = tables.visit(&Ram(memory), capabilities, from, |found| {
            assert!(
                last.is_none_or(|last| found.pasid > last),
                "{found:x?} comes again"
            );
            assert!(found.pasid >= from);
            last = Some(found.pasid);
        });
        match next {
            None => return,
            Some(next) => {
                assert!(next > from && next % 64 == 0, "{next} after {from}");
                from = next;
            }
        }
    }
    panic!("the PASIDs have no end");
}

/// Whatever is asked for is refused with a sentence, or reported.
pub fn capabilities(options: [u8; 7], words: &[u64]) {
    let [address_width, pasid_bits, host, ..] = options;
    let config = Config {
        host: [HostKind::None, HostKind::Iommufd, HostKind::Soft][usize::from(host % 3)],
        features: Features::from_bits(words.first().copied().unwrap_or(0)),
        address_width: u32::from(address_width),
        pasid_bits: u32::from(pasid_bits),
        ..Config::DEFAULT
    };
    let reported = match config.capabilities() {
        Ok(reported) => reported,
        Err(error) => {
            assert_eq!(error.errno(), libc::EINVAL);
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let (cap, ecap) = (reported.cap.into_bits(), reported.ecap.into_bits());
    let features = config.features;
    for (offered, is_reported) in [
        (features.caching_mode(), bit(cap, 7)),
        (features.second_stage(), cap >> 8 & 0x1f != 0),
        (features.device_tlb(), bit(ecap, 2)),
        (features.interrupt_remapping(), bit(ecap, 3)),
        (features.pass_through(), bit(ecap, 6)),
        (features.nested(), bit(ecap, 26)),
        (features.page_request(), bit(ecap, 29)),
        (config.pasid_bits > 0, bit(ecap, 40)),
        (features.scalable_mode(), bit(ecap, 43)),
        (features.first_stage(), bit(ecap, 47)),
    ] {
        assert_eq!(
            offered, is_reported,
            "{config:x?} reports {cap:#x} {ecap:#x}"
        );
    }
    // What a host takes.
    assert!(config.host == HostKind::None || bit(ecap, 47) && !features.second_stage());
}
