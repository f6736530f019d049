//! The session: what a guest and its VMM do from power-on to the end, in steps, and what
//! is checked after each.

use nested_vtd::event::Event;
use nested_vtd::host::soft::{Injection, OPEN, READ};
use nested_vtd::host::uapi::request;
use nested_vtd::unit::Stats;

use super::expected::{ALWAYS, given_up};
use super::machine::{
    CONTEXT_CACHE, IOTLB, Machine, PASID_CACHE, Refusal, Topology, page, pasid_cache,
};
use super::model::{DEVICES, Entry, PAGES, domain};

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// RAM, the high one or the low one.
    Ram(bool),
    /// A device is plugged in.
    Plug(usize),
    /// The queue is switched on and the root table set.
    Root,
    /// Translation is switched.
    Enable(bool),
    /// The guest flushes as after a change of everything.
    Flush,
    /// The PASID of every device gets these entries.
    Bind(usize, [Entry; DEVICES]),
    /// The pages of a table move, and are invalidated one by one.
    Move(usize),
    /// As [`Step::Move`], with an invalidation of everything.
    MoveAll(usize),
    /// A device asks for a page, and the guest answers.
    Ask(usize, usize),
    /// A device asks for a page, and the guest answers when the PASID has another table.
    AskLate(usize, usize),
    /// The high RAM is taken back.
    RamRemove,
    /// A device is taken out.
    Unplug(usize),
    /// A device that was taken out comes again.
    Replug(usize),
}

use Entry::{Table, Through};

/// The scripted session.
pub const SCRIPT: &[Step] = &[
    Step::Ram(false),
    Step::Plug(0),
    Step::Plug(1),
    Step::Ram(true),
    Step::Root,
    Step::Bind(0, [Table(0), Through]),
    Step::Enable(true),
    Step::Flush,
    Step::Bind(1, [Table(1), Table(1)]),
    Step::Bind(2, [Table(2), Table(3)]),
    Step::Bind(3, [Table(4), Table(0)]),
    Step::Move(1),
    Step::Move(0),
    Step::MoveAll(2),
    Step::Ask(0, 2),
    Step::AskLate(0, 2),
    Step::Ask(1, 0),
    Step::Bind(2, [Table(5), Table(3)]),
    Step::Bind(3, [Entry::None, Entry::None]),
    Step::Bind(0, [Through, Table(0)]),
    Step::Unplug(1),
    Step::Replug(1),
    Step::Move(3),
    Step::Enable(false),
    Step::Flush,
    Step::Enable(true),
    Step::RamRemove,
    Step::Unplug(0),
    Step::Unplug(1),
];

/// Attempts that a guest or VMM makes before what fails always is mended.
const PATIENCE: u32 = 3;

/// A machine on its way through a session.
pub struct Session {
    pub machine: Machine,
    injection: Option<Injection>,
    /// The injection has fired, and what it did was checked.
    pub fired: bool,
    group: u16,
}

/// What became of a step.
#[derive(Debug, Default)]
struct Outcome {
    /// Waits that were aborted.
    aborted: u32,
    /// The VMM's call failed before it did not.
    refused: bool,
    /// Calls that the host failed, of those that had lasting effects.
    failures: u64,
}

impl Session {
    pub fn new(topology: Topology, injection: Option<Injection>) -> Self {
        let machine = Machine::new(topology);
        if let Some(injection) = injection {
            machine.twin.inject(injection);
        }
        Self {
            machine,
            injection,
            fired: false,
            group: 0,
        }
    }

    /// Let another call fail.
    pub fn inject(&mut self, injection: Injection) {
        self.machine.twin.clear_injections();
        self.machine.twin.inject(injection);
        (self.injection, self.fired) = (Some(injection), false);
    }

    /// All of the script.
    pub fn run(&mut self) {
        self.machine.twin.record(true);
        for &step in SCRIPT {
            self.step(step);
        }
        self.machine.end();
    }

    /// ioctls that failed.
    fn failures(&self) -> u64 {
        let of = |request| {
            let stats = self.machine.twin.stats();
            stats.calls.get(&request).map_or(0, |count| count.errors)
        };
        let request = self.injection.and_then(|injection| injection.request);
        request.map_or(0, of)
    }

    pub fn step(&mut self, step: Step) {
        // Whatever can be cached is.
        if self.machine.model.low {
            self.machine.check_dma(&[]);
        }
        self.machine.forget_events();
        let (before, counters) = (self.failures(), self.machine.unit().stats());
        let outcome = self.perform(step);
        let failures = self.failures() - before;
        if failures == 0 {
            self.check_settled();
            return;
        }
        assert!(!self.fired, "{step:?}: the injection was over");
        self.fired = true;
        self.check_outcome(step, &outcome, failures, &counters);
        self.machine.twin.clear_injections();
        self.recover();
        self.check_settled();
    }

    fn check_settled(&self) {
        self.machine.check_dma(&[]);
        self.machine.check_objects(0);
    }

    /// The documented way back: the guest announces its configuration again.
    fn recover(&mut self) {
        if self.is_on() {
            let aborted = self
                .machine
                .submit(&[CONTEXT_CACHE, PASID_CACHE, IOTLB], |_, _| ());
            assert_eq!(aborted, 0, "the host is well again");
        }
    }

    fn is_on(&self) -> bool {
        let status = self.machine.unit().mmio_read(0x1c, 4).unwrap();
        status & 1 << 26 != 0
    }

    /// Submit; what fails always is mended after some attempts.
    fn submit(&mut self, descriptors: &[[u64; 2]]) -> u32 {
        self.machine.submit(descriptors, |machine, aborted| {
            if aborted == PATIENCE {
                machine.twin.clear_injections();
            }
        })
    }

    /// A call of the VMM, until it succeeds. A refusal is the host's errno, and leaves
    /// things as they were.
    fn insist(&mut self, mut call: impl FnMut(&mut Machine) -> nested_vtd::Result<()>) -> Outcome {
        let mut outcome = Outcome::default();
        for attempt in 1.. {
            let objects = |machine: &Machine| {
                let stats = machine.twin.stats();
                (
                    stats.ioas,
                    stats.paging,
                    stats.nested,
                    stats.fault_queues,
                    stats.mapped,
                )
            };
            let (before, failures) = (objects(&self.machine), self.failures());
            match call(&mut self.machine) {
                Ok(()) => {
                    outcome.failures = self.failures() - failures;
                    break;
                }
                Err(error) => {
                    let injection = self.injection.unwrap();
                    assert_eq!(error.errno(), injection.errno, "{error}");
                    assert_eq!(objects(&self.machine), before, "what a refused call left");
                    outcome.refused = true;
                    if attempt == PATIENCE {
                        self.machine.twin.clear_injections();
                    }
                }
            }
        }
        outcome
    }

    fn perform(&mut self, step: Step) -> Outcome {
        let mut descriptors = Vec::new();
        match step {
            Step::Ram(high) => return self.insist(|machine| machine.ram(high)),
            Step::RamRemove => return self.insist(Machine::ram_remove_high),
            Step::Plug(device) => return self.plug(device),
            Step::Replug(device) => {
                self.machine.open_again(device);
                return self.plug(device);
            }
            Step::Ask(device, pasid) => return self.ask(device, pasid, None),
            Step::AskLate(device, pasid) => {
                let entries = &self.machine.model.entries[device];
                let other = usize::from(entries[pasid] == Table(0));
                return self.ask(device, pasid, Some(Table(other)));
            }
            Step::Unplug(device) => {
                let before = self.failures();
                self.machine.unplug(device);
                // Whoever comes back takes the first parent.
                self.machine.apart = false;
                return Outcome {
                    failures: self.failures() - before,
                    ..Outcome::default()
                };
            }
            Step::Root => {
                self.machine.set_root();
                return Outcome::default();
            }
            Step::Enable(on) => self.machine.enable(on),
            Step::Flush => descriptors.extend([PASID_CACHE, IOTLB]),
            Step::Bind(pasid, entries) => {
                for (device, entry) in entries.into_iter().enumerate() {
                    let old = self.machine.model.entries[device][pasid];
                    self.machine.set_entry(device, pasid, entry);
                    for entry in [old, entry] {
                        if entry != Entry::None {
                            descriptors.push(pasid_cache(domain(entry), pasid));
                        }
                    }
                }
                descriptors.sort_unstable();
                descriptors.dedup();
                // One is enough for the unit, which goes by the PASID.
                descriptors.truncate(1);
            }
            Step::Move(table) => {
                self.machine.move_pages(table);
                for pasid in self.machine.pasids_of(table) {
                    for address in PAGES {
                        descriptors.push(page(domain(Table(table)), pasid, address));
                    }
                }
            }
            Step::MoveAll(table) => {
                self.machine.move_pages(table);
                descriptors.push(IOTLB);
            }
        }
        let aborted = self.submit(&descriptors);
        Outcome {
            aborted,
            ..Outcome::default()
        }
    }

    /// Each group gets one answer: the guest's, or, if it waits while its PASID goes to
    /// another table, the kernel's.
    fn ask(&mut self, device: usize, pasid: usize, meanwhile: Option<Entry>) -> Outcome {
        let mut outcome = Outcome::default();
        let (asking, there) = (self.machine.is_asking(), self.machine.model.present[device]);
        if !asking || !there || !self.machine.model.enabled {
            return outcome;
        }
        self.group = (self.group + 1) % 512;
        let taken = self.machine.ask(device, pasid, self.group);
        for _ in 0..PATIENCE {
            let Err(error) = self.machine.unit().host_faults() else {
                break;
            };
            assert_eq!(error.errno(), self.injection.unwrap().errno, "{error}");
            outcome.refused = true;
        }
        if self
            .injection
            .is_some_and(|injection| injection.request == Some(READ))
        {
            self.machine.twin.clear_injections();
        }
        self.machine.unit().host_faults().unwrap();
        let answers = self.machine.take_page_requests();
        assert_eq!(answers.len(), usize::from(taken), "{device} {pasid}");
        if let Some(entry) = meanwhile {
            self.machine.set_entry(device, pasid, entry);
            outcome.aborted += self.submit(&[pasid_cache(domain(entry), pasid)]);
        }
        outcome.aborted += self.submit(&answers);
        let code = u32::from(!taken || meanwhile.is_some());
        assert_eq!(
            self.machine.answers(device),
            [(self.group, code)],
            "{device} {pasid}"
        );
        outcome
    }

    fn plug(&mut self, device: usize) -> Outcome {
        let parents = self.machine.twin.stats().paging;
        let first = !self.machine.model.present.contains(&true);
        let mut outcome = self.insist(|machine| machine.plug(device));
        let injection = self.injection.unwrap_or_default();
        let of_attach = injection.request == Some(request::VFIO_ATTACH);
        let more = self.machine.twin.stats().paging - parents;
        // With EINVAL the kernel says that a device cannot share the parent.
        let shares = self.machine.shares_iommufd();
        if of_attach && injection.errno == libc::EINVAL && !first && shares && more == 1 {
            assert!(outcome.failures >= 1);
            outcome.failures -= 1;
            (self.machine.apart, self.machine.spare) = (true, true);
        }
        // A device that could not be detached from the parent is at the next wait.
        if self.is_on() {
            outcome.aborted += self.submit(&[]);
        }
        outcome
    }

    /// What docs/host.md says of the failed call.
    fn check_outcome(&self, step: Step, outcome: &Outcome, failures: u64, before: &Stats) {
        let injection = self.injection.unwrap();
        let request = injection.request.unwrap();
        let by_vmm = matches!(
            step,
            Step::Plug(_) | Step::Replug(_) | Step::Ram(_) | Step::RamRemove | Step::Unplug(_)
        );
        let lasting = if by_vmm { outcome.failures } else { failures };
        let events = self.machine.events();
        let refusals = self.machine.refusals();
        let blocked: Vec<Refusal> = refusals
            .iter()
            .copied()
            .filter(|it| it.request != request::VFIO_DETACH)
            .collect();
        for refusal in &refusals {
            assert_eq!((refusal.request, refusal.errno), (request, injection.errno));
        }
        let stats = self.machine.unit().stats();
        let mut over = 0;
        match request {
            // Only of the VMM's own calls, which it has made again.
            request::VFIO_BIND
            | request::GET_HW_INFO
            | request::IOAS_ALLOC
            | request::FAULT_QUEUE_ALLOC
            | request::IOAS_MAP
            | request::IOAS_UNMAP => {
                assert!(by_vmm && outcome.refused, "{step:?}");
            }
            request::HWPT_ALLOC | request::VFIO_ATTACH => {
                // One device's requests, or those of one PASID, each.
                assert_eq!(blocked.len() as u64, lasting, "{step:?}: {blocked:?}");
                let counted = match request {
                    request::HWPT_ALLOC => stats.hwpt_alloc_errors - before.hwpt_alloc_errors,
                    _ => stats.attach_errors - before.attach_errors,
                };
                assert_eq!(counted, lasting, "{step:?}");
            }
            request::HWPT_INVALIDATE => {
                let hwpts = given_up(&events, &injection, failures);
                self.machine.check_users(&blocked, hwpts);
                assert_eq!(stats.invalidate_errors - before.invalidate_errors, failures);
            }
            request::VFIO_DETACH => {
                if injection.times == 1 {
                    assert!(refusals.is_empty() && outcome.aborted == 0, "{refusals:?}");
                }
                let always = injection.times == ALWAYS;
                assert!(
                    by_vmm || (outcome.aborted == PATIENCE) == always,
                    "{step:?} {outcome:?}"
                );
                let timeouts = stats.host_timeouts - before.host_timeouts;
                assert_eq!(timeouts, u64::from(outcome.aborted));
                if matches!(step, Step::Unplug(_)) {
                    // Its file was still open when they were to be destroyed.
                    over = failures;
                }
            }
            request::DESTROY => {
                over = failures;
                let told = events.iter().filter(|(event, [who, call, why])| {
                    (*event, *who) == (Event::HostRefused, u64::MAX)
                        && (*call, *why) == (request.into(), injection.errno as u64)
                });
                let counted = stats.hwpt_destroy_errors - before.hwpt_destroy_errors;
                assert_eq!(told.count() as u64, counted);
                // A call of the VMM that fails destroys what it made.
                assert!(by_vmm || counted == failures);
            }
            OPEN | READ => assert!(outcome.refused && refusals.is_empty()),
            other => panic!("{other:#x}"),
        }
        if request != request::VFIO_DETACH {
            assert_eq!(outcome.aborted, 0, "{step:?}");
        }
        self.machine.check_dma(&blocked);
        let gone = self.machine.model.present == [false; DEVICES];
        if !(gone || over > 0 && by_vmm) {
            // Blocked requests use none; those of others are there.
            self.machine.check_nested_at_most(over);
        }
    }
}
