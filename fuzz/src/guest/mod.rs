//! Target `guest`: whatever a guest, its devices and its VMM do to a unit.
//!
//! An input is a header, which says what unit and which tables there are, and operations ([`op`]): accesses
//! of registers and RAM, entries and descriptors that mostly make sense, requests of devices, devices and
//! RAM that come and go, refusals of the host. After each of them holds what holds for every guest
//! ([`check`]): nothing panics, registers and the fault log are consistent, work and objects are bounded.
//!
//! As long as everything that was changed was also invalidated, the unit and the twin's hardware answer
//! as the model of `tests/model` does, and no cached translation is stale ([`compare`]). That is so
//! after an invalidation of everything (`Sync`, SRTP), and stays so while only a driver changes tables that invalidates
//! as Linux does ([`driver`]).

mod check;
mod compare;
mod driver;
mod entries;
pub mod machine;
pub mod op;
mod queue;
mod requests;
pub(crate) mod run;
mod setup;
pub mod vmm;
pub mod world;

pub use op::{Code, Op, SHAPE};

/// Run an input.
///
/// # Panics
/// The unit did what no unit may do.
pub fn run(input: &[u8]) {
    let header = &input[..input.len().min(SHAPE.header)];
    let Some(mut run) = run::Run::new(header) else {
        return;
    };
    for record in SHAPE.records(input) {
        run.step(&Op::decode(record));
    }
    run.end();
}
