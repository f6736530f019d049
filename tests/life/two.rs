//! Two units in one process, with the same requester IDs, PASIDs and addresses: each does, and counts, exactly what it
//! does alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nested_vtd::host::soft::Twin;
use nested_vtd::unit::{Config, Features, Stats};

use crate::common::*;
use crate::machine::*;
use crate::toggles::Stop;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Scalable mode, devices on a host and one without.
    Host,
    /// Scalable mode, emulated devices.
    Scalable,
    /// Legacy mode.
    Legacy,
}

const KINDS: [Kind; 3] = [Kind::Host, Kind::Scalable, Kind::Legacy];

/// A machine that has booted; at the same addresses are other pages for each mode.
fn booted(kind: Kind, twin: &Arc<Twin>) -> Machine {
    let mut machine = match kind {
        Kind::Host => Machine::on(twin),
        Kind::Scalable => Machine::without_host(config()),
        Kind::Legacy => Machine::without_host(Config {
            features: Features::new().with_second_stage(true),
            address_width: 48,
            ..Config::DEFAULT
        }),
    };
    if kind != Kind::Host {
        (0..3).for_each(|index| machine.plug(index, false));
    }
    if kind == Kind::Legacy {
        boot_legacy(&machine);
    } else {
        machine.run(&boot(3));
    }
    machine
}

/// The same requester IDs, domain, tables and addresses.
fn boot_legacy(machine: &Machine) {
    let guest = &machine.guest;
    guest.poke(ROOT, CONTEXT | 1);
    for index in 0..3 {
        let context = CONTEXT + (u64::from(SOURCE_ID) + index) * 16;
        guest.poke(context, PML4 | 1);
        // AW: 4 levels.
        guest.poke(context + 8, u64::from(DOMAIN) << 8 | 2);
    }
    for [table, next] in [[PML4, PDPT], [PDPT, PD], [PD, PT], [PT + 5 * 8, 0x30_0000]] {
        guest.poke(table, next | 3);
    }
    guest.write64(0x90, QUEUE);
    guest.write32(0x18, QIE as u32);
    guest.write64(0x20, ROOT);
    guest.write32(0x18, (QIE | SRTP) as u32);
    guest.write32(0x18, (QIE | TE) as u32);
    for &device in &machine.devices {
        assert_eq!(machine.read(device, None, 0x5000), Some(0x30_0000));
    }
}

/// What a machine did.
#[derive(Debug, Clone, PartialEq)]
struct Life {
    reads: Vec<Option<u64>>,
    counters: Stats,
    registers: Vec<u64>,
    state: Vec<u8>,
    msis: Vec<(u64, u32)>,
    events: usize,
}

/// A machine on its way.
struct Walk {
    machine: Machine,
    random: Random,
    reads: Vec<Option<u64>>,
}

impl Walk {
    fn new(kind: Kind, seed: u64, twin: &Arc<Twin>) -> Self {
        Self {
            machine: booted(kind, twin),
            random: Random(seed),
            reads: Vec::new(),
        }
    }

    fn step(&mut self) {
        let went = self.random.act(&mut self.machine);
        self.reads.push(went);
    }

    fn end(self) -> Life {
        let guest = &self.machine.guest;
        Life {
            reads: self.reads,
            counters: guest.unit.stats(),
            registers: self.machine.registers(),
            state: guest.unit.save(),
            msis: guest.notes.msis.lock().unwrap().clone(),
            events: guest.notes.events.lock().unwrap().len(),
        }
    }
}

const STEPS: usize = 400;

fn alone(kind: Kind, seed: u64) -> Life {
    let mut walk = Walk::new(kind, seed, &Arc::default());
    (0..STEPS).for_each(|_| walk.step());
    walk.end()
}

/// Pairs of kinds, with the seeds of their guests.
fn pairs() -> impl Iterator<Item = [(Kind, u64); 2]> {
    let seeds = if cfg!(debug_assertions) { 3 } else { 20 };
    let kinds = KINDS.into_iter().flat_map(|a| KINDS.map(|b| (a, b)));
    kinds
        .flat_map(move |(a, b)| (1..=seeds).map(move |seed| [(a, seed * 2 + 1), (b, seed * 2 + 2)]))
}

/// A seed as one that xorshift can use.
fn seed(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn step_by_step() {
    let mut pairs_seen = 0;
    for [(a, first), (b, second)] in pairs() {
        let expected = [alone(a, seed(first)), alone(b, seed(second))];
        // On one host, each with an iommufd of its own.
        let twin = Arc::default();
        let mut walks = [
            Walk::new(a, seed(first), &twin),
            Walk::new(b, seed(second), &twin),
        ];
        let mut order = Random(seed(first + second));
        let mut left = [STEPS; 2];
        while left != [0; 2] {
            let who = order.below(2);
            if left[who] > 0 {
                walks[who].step();
                left[who] -= 1;
            }
        }
        assert!(
            walks.map(Walk::end) == expected,
            "{a:?} {first} beside {b:?} {second}"
        );
        pairs_seen += 1;
    }
    println!("{pairs_seen} pairs of units, {STEPS} steps each, as alone");
}

#[test]
fn on_threads() {
    for [(a, first), (b, second)] in pairs() {
        let expected = [alone(a, seed(first)), alone(b, seed(second))];
        let twin: Arc<Twin> = Arc::default();
        let lives = std::thread::scope(|scope| {
            [(a, first), (b, second)]
                .map(|(kind, number)| {
                    let twin = &twin;
                    scope.spawn(move || {
                        let mut walk = Walk::new(kind, seed(number), twin);
                        (0..STEPS).for_each(|_| walk.step());
                        walk.end()
                    })
                })
                .map(|thread| thread.join().unwrap())
        });
        assert!(lives == expected, "{a:?} {first} beside {b:?} {second}");
    }
}

/// Others come, boot, are reset and end, on the same host.
#[test]
fn one_ends_while_the_other_works() {
    let twin: Arc<Twin> = Arc::default();
    let stop = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut ended = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                let kind = KINDS[ended as usize % 3];
                let mut walk = Walk::new(kind, seed(ended + 1), &twin);
                (0..20).for_each(|_| walk.step());
                if ended % 2 == 0 {
                    walk.machine.guest.unit.reset();
                }
                ended += 1;
            }
            ended
        });
        let ends = Stop(&stop);
        for kind in KINDS {
            for number in 1..=if cfg!(debug_assertions) { 10 } else { 100 } {
                let mut walk = Walk::new(kind, seed(number), &twin);
                (0..STEPS).for_each(|_| walk.step());
                assert!(walk.end() == alone(kind, seed(number)), "{kind:?} {number}");
            }
        }
        drop(ends);
        other.join().unwrap()
    });
    let left = twin.stats();
    assert_eq!(
        (left.ioas, left.paging, left.nested, left.mapped),
        (0, 0, 0, 0)
    );
    println!("{ended} units ended beside another one at work");
}
