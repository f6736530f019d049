//! The directed cases of every condition, and docs/faults.md, which is made of what they give.

use std::fmt::Write as _;

use crate::conditions::{self, Case, Condition, Guest, Mode, WRITE};
use crate::coverage::Coverage;
use crate::machine::Said;
use crate::reference::{Kind, Request};
use crate::run::Run;

/// Unit and model on the guest's request. Their answers; the model's may be more than one code.
fn answer(guest: &Guest, request: &Request) -> (Said, Vec<u8>) {
    let mut coverage = Coverage::default();
    let mut run = Run::new(guest.setup, guest.memory.clone(), guest.root, &mut coverage);
    let expected = run.expected_codes(0, request);
    let said = run
        .request(0, request)
        .unwrap_or_else(|error| panic!("{error}"));
    (said.expect("is no interrupt"), expected)
}

fn code(said: &Said) -> Option<u8> {
    match *said {
        Said::Refused { code, .. } => Some(code),
        Said::Page { .. } => None,
    }
}

/// The row of a condition, every case of which has been tried.
fn measure(condition: &Condition) -> String {
    let mut tests = Vec::new();
    let (mut units, mut models) = (Vec::new(), Vec::new());
    for (name, case) in &condition.cases {
        match case {
            Case::Dma {
                mode,
                request,
                guest: bring_about,
            } => {
                // Without it there is no fault: the case shows what its name says.
                let plain = Guest::new(*mode, *request);
                let mut guest = Guest::new(*mode, *request);
                bring_about(&mut guest);
                let (said, expected) = answer(&guest, request);
                let found = code(&said).unwrap_or_else(|| panic!("{name}: {said:x?}"));
                assert_eq!(found, condition.code, "{name}");
                if plain.setup == guest.setup
                    && plain.root == guest.root
                    && *request == plain.request
                {
                    let same = plain.memory == guest.memory;
                    let (said, _) = answer(&plain, request);
                    assert!(
                        same || code(&said) != Some(condition.code),
                        "{name}: {said:x?}"
                    );
                }
                also_as_translation(&guest, request);
                units.push(found);
                models.extend(expected);
                tests.push((*name).to_owned());
            }
            Case::Other(measure) => {
                let (unit, model) = measure();
                assert_eq!(unit, condition.code, "{name}");
                units.push(unit);
                models.push(model);
                tests.push((*name).to_owned());
            }
            Case::Never(why) => tests.push(format!("none: {why}")),
        }
    }
    let codes = |mut codes: Vec<u8>| {
        codes.sort_unstable();
        codes.dedup();
        if codes.is_empty() {
            return "not raised".to_owned();
        }
        let codes: Vec<String> = codes.iter().map(|code| format!("{code:02X}")).collect();
        codes.join(", ")
    };
    format!(
        "| {} | {} | {:02X} | {} | {} | {} | {} |\n",
        condition.name,
        condition.words,
        condition.code,
        codes(units),
        codes(models),
        tests.join("; "),
        if condition.qemu.is_empty() {
            "same"
        } else {
            condition.qemu
        },
    )
}

/// The same by a device that asks for a translation to keep: unit and model agree there, too.
fn also_as_translation(guest: &Guest, request: &Request) {
    let request = Request {
        kind: Kind::Translation,
        read: true,
        ..*request
    };
    answer(guest, &request);
}

/// Who asks to read and to write a page that may only be written, and not be marked as written, gets nothing: 79 for
/// reading, or 77 for writing.
#[test]
fn a_page_to_be_written_alone_cannot_be_marked() {
    let mut guest = Guest::new(Mode::Nested, WRITE);
    guest.set(Guest::first(1), 0x20);
    guest.clear(Guest::second_of_table(1), 2);
    guest.clear(Guest::second_of_page(), 1);
    also_as_translation(&guest, &WRITE);
}

#[test]
fn every_condition_has_its_code() {
    let mut text = String::from(HEAD);
    for condition in conditions::all() {
        assert!(!condition.cases.is_empty(), "{}", condition.name);
        text += &measure(&condition);
    }
    let _ = write!(text, "{TAIL}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    if std::env::var_os("NVTD_WRITE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == text,
        "docs/faults.md is not what the tests give; NVTD_WRITE_DOCS=1 cargo test -p nested-vtd \
         --test model writes it"
    );
}

const HEAD: &str = "\
# Fault conditions

Every condition of the specification's fault tables (7.1.3, 5.1.4): the code that the specification
gives, the one that the unit gave in the named cases, and the one that the model gave. The test
`faults::every_condition_has_its_code` of `tests/model` makes this file and fails where the three differ;
the named cases are in `tests/model/conditions`. Each DMA case is also run as a translation
request (ATS) and compared with the model.

The last column says what intel-iommu of QEMU 10.0 does instead.

| condition | when | code | unit | model | cases | QEMU |
|---|---|---|---|---|---|---|
";

const TAIL: &str = "
Where two conditions hold at once, the unit reports the one that the specification's order of steps meets first:
root, context, directory and PASID entry from the top, and of each present before reserved; then each stage from
the top; permissions after the stage's whole walk, user before execute before write; then the interrupt range;
then accessed and dirty bits. Where the specification leaves the order open the model accepts either.

An ATS translation request that meets 04 to 06, 71, 75 to 77, 79 or 80 to 86 is answered without permissions and
not recorded. Every other fault of it is recorded, as are all faults of untranslated and translated requests, unless FPD
is set in an entry on the way.
";
