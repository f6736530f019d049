//! Each call on the host fails in turn, with each errno that the kernel has for it, at
//! each step of a guest's session: what is then left of DMA, objects and the guest's
//! commands is what docs/host.md says, and the next good configuration works.

mod expected;
mod machine;
mod session;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nested_vtd::host::soft::Injection;
use nested_vtd::host::uapi::request;

use machine::Topology;
use session::Session;

/// Without optimization every so manieth case is enough for every day.
const EVERY: usize = if cfg!(debug_assertions) { 11 } else { 1 };

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
            for variant in expected::variants(request) {
                all.push(Injection {
                    skip,
                    errno,
                    ..variant
                });
            }
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
    for topology in [
        Topology::Shared,
        Topology::Two,
        Topology::Own,
        Topology::ByVmm,
    ] {
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
        "{} injected cases over {session_calls} calls of 4 sessions, {} errnos",
        cases.len(),
        errnos.len()
    );
}
