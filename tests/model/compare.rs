//! Is what the unit said what the model says?

use crate::machine::Said;
use crate::reference::walk::{Page, in_interrupt_range};
use crate::reference::{Context, Kind, Outcome, Refusal, Request, mask, recoverable};
use crate::run::Candidate;

/// 4.2.4: a translated request carries its result, and nothing is looked up for it beyond the context
/// entry. It may not carry an address of the interrupt range (3.14), nor one beyond the host's.
pub fn translated(context: &Context, request: &Request, width: u32) -> Candidate {
    let (legacy, quiet) = match *context {
        Context::Legacy { quiet, .. } => (true, quiet),
        Context::Scalable { quiet, .. } => (false, quiet),
    };
    let outcome = if in_interrupt_range(request.address) {
        let code = if legacy { 0x0e } else { 0x87 };
        Outcome::Refused(Refusal::new(code, quiet), Vec::new())
    } else if request.address & mask(63, width) != 0 {
        let code = if legacy { 0x04 } else { 0x83 };
        Outcome::Refused(Refusal::new(code, quiet), Vec::new())
    } else {
        Outcome::Page(Page {
            address: request.address,
            size: None,
            read: true,
            write: true,
            execute: true,
            global: false,
            tracks_dirty: false,
            dirty: false,
            updates: Vec::new(),
        })
    };
    Candidate {
        paging: None,
        outcome,
    }
}

/// The largest page that neither reaches into the interrupt range nor is reached from there: whoever
/// keeps the answer may use it for the whole page.
pub fn page_beside_interrupts(size: u64, input: u64, result: u64) -> u64 {
    let touches = |address: u64, size: u64| {
        let base = address & !(size - 1);
        base <= 0xfeef_ffff && base + (size - 1) >= 0xfee0_0000
    };
    [1 << 30, 1 << 21]
        .into_iter()
        .filter(|&candidate| candidate <= size)
        .find(|&candidate| !touches(input, candidate) && !touches(result, candidate))
        .unwrap_or(0x1000)
}

/// Is what the unit said this outcome? If not, why?
pub fn agrees(outcome: &Outcome, request: &Request, said: &Said) -> Result<(), &'static str> {
    let check = |condition: bool, why| if condition { Ok(()) } else { Err(why) };
    match (outcome, *said) {
        (
            Outcome::Refused(refusal, _),
            Said::Refused {
                code,
                recoverable: answered,
            },
        ) => {
            check(refusal.codes.contains(&code), "another code")?;
            let expected = request.kind == Kind::Translation && recoverable(code);
            check(answered == expected, "recoverable or not")
        }
        (
            Outcome::Page(page),
            Said::Page {
                address,
                size,
                read,
                write,
                execute,
                ..
            },
        ) => {
            check(address == page.address, "another address")?;
            check(size.is_power_of_two() && size >= 0x1000, "no page size")?;
            if let Some(expected) = page.size {
                let expected = page_beside_interrupts(expected, request.address, page.address);
                check(size == expected, "another page size")?;
            }
            // No more than the tables permit, and writing only with the dirty bits set.
            check(!read || page.read, "may not be read")?;
            let writes = page.write && (!page.tracks_dirty || page.dirty || request.write);
            check(!write || writes, "may not be written")?;
            check(
                !execute || page.execute || !page.read,
                "may not be executed",
            )?;
            // And what was asked for; of a translation request, what there is of it.
            check(!request.read || read || !page.read, "may be read")?;
            check(!request.write || write || !page.write, "may be written")?;
            check(
                !request.execute || execute || !page.execute,
                "may be executed",
            )
        }
        (Outcome::Page(_), _) => Err("is refused"),
        (Outcome::Refused(..), _) => Err("is not refused"),
    }
}
