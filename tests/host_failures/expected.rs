//! What docs/host.md says of each call that the kernel refuses.

use nested_vtd::event::Event;
use nested_vtd::host::soft::{Injection, OPEN, READ};
use nested_vtd::host::uapi::request;

/// Fails until it is taken away.
pub const ALWAYS: u64 = u64::MAX;

/// The errnos that the kernel gives a call for what a unit cannot know beforehand.
pub fn errnos(request: u32) -> &'static [i32] {
    match request {
        request::VFIO_BIND => &[
            libc::EPERM,
            libc::EBUSY,
            libc::EINVAL,
            libc::ENODEV,
            libc::ENOMEM,
        ],
        request::GET_HW_INFO => &[libc::ENOENT, libc::EOPNOTSUPP, libc::EFAULT],
        request::IOAS_ALLOC => &[libc::ENOMEM],
        request::FAULT_QUEUE_ALLOC => &[libc::ENOMEM, libc::EMFILE, libc::ENOTTY],
        request::IOAS_MAP => &[libc::EEXIST, libc::EINVAL, libc::EFAULT, libc::ENOMEM],
        request::IOAS_UNMAP => &[libc::ENOENT, libc::EBUSY, libc::EDEADLK],
        request::HWPT_ALLOC => &[
            libc::EOPNOTSUPP,
            libc::EINVAL,
            libc::ENOENT,
            libc::ENOMEM,
            libc::EADDRINUSE,
            libc::EFAULT,
        ],
        request::VFIO_ATTACH => &[
            libc::EINVAL,
            libc::EBUSY,
            libc::ENODEV,
            libc::ENOMEM,
            libc::ENOSPC,
            libc::ENOENT,
            libc::EOPNOTSUPP,
            libc::EADDRINUSE,
        ],
        // The kernel's never fails; a VMM's may.
        request::VFIO_DETACH => &[libc::EINVAL, libc::EIO],
        request::HWPT_INVALIDATE => &[
            libc::EINVAL,
            libc::EOPNOTSUPP,
            libc::EFAULT,
            libc::ENOENT,
            libc::ETIMEDOUT,
        ],
        request::DESTROY => &[libc::EBUSY],
        OPEN => &[libc::ENOENT, libc::EACCES, libc::EMFILE],
        READ => &[libc::EFAULT, libc::EINVAL],
        other => panic!("{other:#x}: the session made a call that the table lacks"),
    }
}

/// How a call fails: the injections of one call and errno.
pub fn variants(request: u32) -> Vec<Injection> {
    let (times, handled, blocked): (&[u64], &[u32], &[bool]) = match request {
        request::VFIO_ATTACH => (&[1, 2, ALWAYS], &[0], &[false, true]),
        request::VFIO_DETACH => (&[1, 2, 3, 4, 6, ALWAYS], &[0], &[false]),
        request::HWPT_INVALIDATE => (&[1, 2, 3, 4, ALWAYS], &[0, 1, 2, 99], &[false]),
        _ => (&[1, 2, ALWAYS], &[0], &[false]),
    };
    let mut all = Vec::new();
    for &times in times {
        for &handled in handled {
            for &blocked in blocked {
                all.push(Injection {
                    request: Some(request),
                    times,
                    handled,
                    blocked,
                    ..Injection::default()
                });
            }
        }
    }
    all
}

/// How many HWPTs are blocked when `failures` invalidate calls in a row fail, each after
/// `handled` entries, and then none: "goes on at the entry that was refused; refused
/// again there, all of the HWPT is invalidated; refused again, its users are detached".
pub fn given_up(events: &[(Event, [u64; 3])], injection: &Injection, failures: u64) -> usize {
    let mut failures = failures;
    let mut fails = || {
        let fails = failures > 0;
        failures = failures.saturating_sub(1);
        fails
    };
    let mut given_up = 0;
    let made = events
        .iter()
        .filter(|(event, _)| *event == Event::Invalidate);
    for (_, [_, entries, _]) in made {
        let mut left = *entries;
        let mut refused_here = false;
        let refused_whole = loop {
            if !fails() {
                break false;
            }
            // A call that fails behind its last entry says nothing.
            let done = Some(injection.handled.into()).filter(|&done| done < left);
            let done = done.unwrap_or(0);
            left -= done;
            if done == 0 && refused_here {
                break fails();
            }
            refused_here = true;
        };
        given_up += usize::from(refused_whole);
    }
    given_up
}
