//! Each call on the host fails in turn, with each errno that the kernel has for it, at
//! each step of a guest's session: what is then left of DMA, objects and the guest's
//! commands is what docs/host.md says, and the next good configuration works.

mod expected;
mod machine;
mod model;
mod random;
mod session;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nested_vtd::host::soft::{Injection, OPEN, READ};
use nested_vtd::host::uapi::request;

use machine::Topology;
use session::{Session, Step};

/// Without optimization every so manieth case is enough for every day.
const EVERY: usize = if cfg!(debug_assertions) { 17 } else { 1 };

const TOPOLOGIES: [Topology; 5] = [
    Topology::Shared,
    Topology::Two,
    Topology::Own,
    Topology::ByVmm,
    Topology::Asking,
];

/// The calls of the session.
fn calls(topology: Topology) -> Vec<u32> {
    let mut session = Session::new(topology, None);
    session.run();
    session.machine.twin.recorded()
}

/// Everything that can fail in a session.
fn injections(topology: Topology) -> (usize, Vec<Injection>) {
    let calls = calls(topology);
    let mut all = Vec::new();
    for (index, &request) in calls.iter().enumerate() {
        if topology == Topology::ByVmm && request == request::VFIO_BIND {
            continue;
        }
        let skip = calls[..index].iter().filter(|&&it| it == request).count() as u64;
        for &errno in expected::errnos(request) {
            // What a device without PRI gets with a fault queue is no refusal.
            if topology == Topology::Asking && errno == libc::ENODEV {
                continue;
            }
            for variant in expected::variants(request) {
                all.push(Injection {
                    skip,
                    errno,
                    ..variant
                });
            }
        }
    }
    let others: &[u32] = match topology {
        Topology::Own => &[OPEN],
        Topology::Asking => &[READ],
        _ => &[],
    };
    for &request in others {
        for &errno in expected::errnos(request) {
            let variants = expected::variants(request).into_iter();
            all.extend(variants.map(|variant| Injection { errno, ..variant }));
        }
    }
    (calls.len(), all)
}

/// Run cases on two threads; the first that fails is told.
fn run(cases: &[(Topology, Injection)]) {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&(topology, injection)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let ran = catch_unwind(AssertUnwindSafe(|| {
                        let mut session = Session::new(topology, Some(injection));
                        session.run();
                        assert!(session.fired, "it did not fire");
                    }));
                    if ran.is_err() {
                        eprintln!("in: {topology:?} {injection:?}");
                        failed.lock().unwrap().push((topology, injection));
                        if failed.lock().unwrap().len() > 20 {
                            return;
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {} cases failed",
        failed.len(),
        cases.len()
    );
}

#[test]
fn each_call_fails_in_turn() {
    let (mut cases, mut session_calls, mut errnos) = (Vec::new(), 0, BTreeSet::new());
    for topology in TOPOLOGIES {
        let (calls, injections) = injections(topology);
        session_calls += calls;
        errnos.extend(injections.iter().map(|injection| injection.errno));
        cases.extend(
            injections
                .into_iter()
                .map(|injection| (topology, injection)),
        );
    }
    let cases: Vec<_> = cases.into_iter().step_by(EVERY).collect();
    run(&cases);
    println!(
        "{} injected cases over {session_calls} calls of 5 sessions, {} errnos",
        cases.len(),
        errnos.len()
    );
}

/// Sessions in any order, with seeds from `first` on.
fn walks(first: u64, count: u64, steps: usize) {
    let (mut fired, mut sessions) = (0, 0);
    for seed in first..first + count {
        for topology in TOPOLOGIES {
            let walked = catch_unwind(|| random::walk(topology, seed, steps));
            fired += walked.unwrap_or_else(|_| panic!("in: {topology:?} with seed {seed}"));
            sessions += 1;
        }
    }
    println!("{sessions} random sessions of {steps} steps, {fired} injections fired");
}

#[test]
fn calls_fail_in_random_sessions() {
    walks(1, if cfg!(debug_assertions) { 4 } else { 40 }, 60);
}

/// `cargo test --release --test host_failures -- --ignored`; a seed of its own each time.
#[test]
#[ignore = "some minutes"]
fn calls_fail_in_many_random_sessions() {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let first = since.as_secs() << 20;
    println!("seeds from {first} on");
    walks(first, 2000, 120);
}

/// RAM that was mapped in part, and of which that part cannot be unmapped again, is
/// unmapped before anything else is mapped.
#[test]
fn what_is_no_ram_after_all_is_unmapped_later() {
    let mut session = Session::new(Topology::Shared, None);
    for step in [Step::Ram(false), Step::Plug(0), Step::Root] {
        session.step(step);
    }
    let machine = &mut session.machine;
    let mapped = machine.twin.stats().mapped;
    let fail = |request, skip, errno| Injection {
        request: Some(request),
        skip,
        errno,
        times: 1,
        ..Injection::default()
    };
    machine
        .twin
        .inject(fail(request::IOAS_MAP, 1, libc::ENOMEM));
    machine
        .twin
        .inject(fail(request::IOAS_UNMAP, 0, libc::EBUSY));
    assert_eq!(machine.ram(true).unwrap_err().errno(), libc::ENOMEM);
    assert!(machine.twin.stats().mapped > mapped);
    machine.ram(true).unwrap();
    machine.check_objects(0);
    machine.ram_remove_high().unwrap();
    assert_eq!(machine.twin.stats().mapped, mapped);
    machine.end();
}
