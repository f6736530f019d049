//! Random sessions: what a guest and its VMM may do in any order, while calls on the host
//! fail now and then.

use nested_vtd::host::soft::Injection;
use nested_vtd::host::uapi::request;

use super::expected::{errnos, variants};
use super::machine::Topology;
use super::model::{DEVICES, Entry, PASIDS, TABLES};
use super::session::{Session, Step};

/// Calls that fail, the more often made ones first.
const REQUESTS: [u32; 11] = [
    request::HWPT_ALLOC,
    request::VFIO_ATTACH,
    request::VFIO_DETACH,
    request::HWPT_INVALIDATE,
    request::DESTROY,
    request::VFIO_BIND,
    request::GET_HW_INFO,
    request::IOAS_ALLOC,
    request::FAULT_QUEUE_ALLOC,
    request::IOAS_MAP,
    request::IOAS_UNMAP,
];

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn entry(&mut self) -> Entry {
        match self.below(8) {
            0 => Entry::None,
            1 => Entry::Through,
            _ => Entry::Table(self.below(TABLES)),
        }
    }

    fn step(&mut self, session: &Session) -> Step {
        let model = &session.machine.model;
        let (device, pasid) = (self.below(DEVICES), self.below(PASIDS));
        match self.below(20) {
            0 if model.high => Step::RamRemove,
            0 => Step::Ram(true),
            1 | 2 if model.present[device] => Step::Unplug(device),
            1 | 2 => Step::Replug(device),
            3 => Step::Enable(!model.enabled),
            4 => Step::Flush,
            5 | 6 => Step::Ask(device, pasid),
            7 => Step::AskLate(device, pasid),
            8..=11 => Step::Move(self.below(TABLES)),
            12 => Step::MoveAll(self.below(TABLES)),
            _ => Step::Bind(pasid, [self.entry(), self.entry()]),
        }
    }

    fn injection(&mut self, topology: Topology) -> Option<Injection> {
        let often = if self.below(4) > 0 { 5 } else { REQUESTS.len() };
        let request = self.pick(&REQUESTS[..often]);
        let errno = self.pick(errnos(request));
        // The VMM's own; another parent; another kind of HWPT.
        let apart = match request {
            request::VFIO_BIND => topology == Topology::ByVmm,
            request::VFIO_ATTACH => matches!(errno, libc::EINVAL | libc::ENODEV),
            _ => false,
        };
        let variant = self.pick(&variants(request));
        (!apart).then_some(Injection {
            errno,
            skip: self.below(3) as u64,
            ..variant
        })
    }
}

/// A session of so many steps. How many injections fired.
pub fn walk(topology: Topology, seed: u64, steps: usize) -> usize {
    let mut random = Random(seed);
    let mut session = Session::new(topology, None);
    for step in [Step::Ram(false), Step::Plug(0), Step::Plug(1), Step::Root] {
        session.step(step);
    }
    let mut fired = 0;
    for _ in 0..steps {
        if session.fired || random.below(3) == 0 {
            fired += usize::from(session.fired);
            session.fired = false;
            if let Some(injection) = random.injection(topology) {
                session.inject(injection);
            }
        }
        let step = random.step(&session);
        session.step(step);
    }
    session.machine.twin.clear_injections();
    session.machine.end();
    fired
}
