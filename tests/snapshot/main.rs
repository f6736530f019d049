//! Saved states: that a guest goes on where it was, whatever the moment (`moments`, `host`, `random`), that
//! what was damaged or cannot be is refused and changes nothing (`damage`, `refusals`), and that states of
//! earlier releases are loaded (`kept`).
//!
//! The model's guests move, too: `fixed_cases_of_moving_guests` in `tests/model`.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod host;
mod kept;
mod moments;
mod random;
mod refusals;
mod states;

use common::Guest;
use nested_vtd::interrupt::{Message, Request as MsiRequest};
use nested_vtd::unit::{Features, Request};

const CAP: u64 = 0x08;
const ECAP: u64 = 0x10;
const GCMD: u64 = 0x18;
const GSTS: u64 = 0x1c;
const RTADDR: u64 = 0x20;
const CCMD: u64 = 0x28;
const FSTS: u64 = 0x34;
const FECTL: u64 = 0x38;
const FEDATA: u64 = 0x3c;
const FEADDR: u64 = 0x40;
const FEUADDR: u64 = 0x44;
const IQH: u64 = 0x80;
const IQT: u64 = 0x88;
const IQA: u64 = 0x90;
const ICS: u64 = 0x9c;
const IECTL: u64 = 0xa0;
const IEDATA: u64 = 0xa4;
const IEADDR: u64 = 0xa8;
const IQERCD: u64 = 0xb0;
const IRTA: u64 = 0xb8;
const PQH: u64 = 0xc0;
const PQT: u64 = 0xc8;
const PQA: u64 = 0xd0;
const PRS: u64 = 0xdc;
const PECTL: u64 = 0xe0;
const PEDATA: u64 = 0xe4;
const PEADDR: u64 = 0xe8;
const IVA: u64 = 0xf0;
const IOTLB: u64 = 0xf8;
const FRCD: u64 = 0x220;

const IM: u32 = 1 << 31;
const IP: u32 = 1 << 30;
const TE: u32 = 1 << 31;
const SRTP: u32 = 1 << 30;
const QIE: u32 = 1 << 26;
const IRE: u32 = 1 << 25;
const SIRTP: u32 = 1 << 24;
const PFO: u32 = 1;
const PPF: u32 = 1 << 1;
const IQE: u32 = 1 << 4;
const ICE: u32 = 1 << 5;
const ITE: u32 = 1 << 6;

/// What a unit without a host can offer.
fn everything() -> Features {
    Features::from_bits(Features::DEFINED)
}

/// Every register that the guest can read; FSTS and IQH make a queue go on that was left.
fn registers(guest: &Guest) -> Vec<u64> {
    let all = (0..0x100).chain(FRCD..FRCD + 0x80).step_by(8);
    all.map(|at| guest.read64(at)).collect()
}

/// The guest goes on elsewhere, exactly as it is here.
fn moved(guest: &Guest) -> Guest {
    let there = guest.elsewhere();
    load(&there, &guest.unit.save());
    assert_eq!(registers(&there), registers(guest));
    there
}

/// Load a state that is good. Nothing is sent, and it comes out again as it was.
fn load(there: &Guest, saved: &[u8]) {
    let sent = there.notes.msis.lock().unwrap().len();
    there.unit.load(saved).unwrap();
    assert_eq!(there.notes.msis.lock().unwrap().len(), sent);
    assert_eq!(there.unit.save(), saved);
}

/// What the unit says to a state that is bad; it stays as it is.
fn refusal(guest: &Guest, saved: &[u8]) -> String {
    let before = (guest.unit.save(), guest.unit.stats());
    let error = guest.unit.load(saved).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL, "{error}");
    assert_eq!((guest.unit.save(), guest.unit.stats()), before);
    error.message().to_owned()
}

/// Where a read goes, or the code of the fault.
fn read(guest: &Guest, address: u64) -> Result<u64, u8> {
    ask(guest, address, None, false)
}

fn ask(guest: &Guest, address: u64, pasid: Option<u32>, write: bool) -> Result<u64, u8> {
    let request = Request {
        address,
        pasid,
        read: !write,
        write,
        ..Request::default()
    };
    let answer = guest.unit.translate(guest.device, request).unwrap();
    answer
        .result
        .map(|to| to.address)
        .map_err(|fault| fault.reason.code())
}

/// What becomes of an interrupt request of the device in remappable format.
fn remap(guest: &Guest, index: u64) -> Result<(u64, u32), u8> {
    let request = MsiRequest {
        message: Message {
            address: 0xfee0_0018 | index << 5,
            data: 0,
        },
        source_id: common::SOURCE_ID,
        verify: true,
        pasid: None,
        look: false,
    };
    match guest.unit.remap_msi(request).result {
        Ok(message) => Ok((message.address, message.data)),
        Err(refusal) => Err(refusal.fault.reason.code()),
    }
}

/// MSIs since the last call.
fn sent(guest: &Guest) -> Vec<(u64, u32)> {
    std::mem::take(&mut *guest.notes.msis.lock().unwrap())
}
