//! Requests of assigned devices that could be neither attached nor blocked.
//!
//! They may still go where they went, so no wait completes before they were tried again: each once, maybe over several
//! calls of the VMM, as a host that refuses can do so for every PASID there is.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::device::Device;

/// The requests of a device with a PASID, or those without.
pub(super) type Requests = (Arc<Device>, Option<u32>);

/// All of them, in the order in which they are tried again.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    order: VecDeque<Requests>,
    known: HashSet<(usize, Option<u32>)>,
    /// So many from the front on are to be tried in this round.
    untried: usize,
}

/// The device is kept while it is named so, and nothing else can be where it is.
fn name((device, pasid): &Requests) -> (usize, Option<u32>) {
    (Arc::as_ptr(device).addr(), *pasid)
}

impl Unsettled {
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// One of those that are left.
    pub fn first(&self) -> Option<&Requests> {
        self.order.front()
    }

    /// Not to be tried before the next round.
    pub fn push(&mut self, requests: Requests) {
        if self.known.insert(name(&requests)) {
            self.order.push_back(requests);
        }
    }

    /// Go on with the round that was left, or begin one.
    pub fn begin_round(&mut self) {
        if self.untried == 0 {
            self.untried = self.order.len();
        }
    }

    /// Has the round still some to try?
    pub fn is_in_round(&self) -> bool {
        self.untried > 0
    }

    /// The next of the round. Who fails again pushes it again.
    pub fn next(&mut self) -> Option<Requests> {
        self.untried = self.untried.checked_sub(1)?;
        let next = self.order.pop_front()?;
        self.known.remove(&name(&next));
        Some(next)
    }

    /// The device is gone.
    pub fn forget(&mut self, device: &Arc<Device>) {
        let untried = self.untried;
        let (mut place, mut gone) = (0_usize, 0_usize);
        let known = &mut self.known;
        self.order.retain(|requests| {
            let stays = !Arc::ptr_eq(&requests.0, device);
            if !stays {
                known.remove(&name(requests));
                gone = gone.saturating_add(usize::from(place < untried));
            }
            place = place.saturating_add(1);
            stays
        });
        self.untried = untried.saturating_sub(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::DeviceDescription;

    fn device() -> Arc<Device> {
        Arc::new(Device::new(DeviceDescription::default(), None))
    }

    #[test]
    fn a_round_tries_each_once() {
        let (one, other) = (device(), device());
        let mut unsettled = Unsettled::default();
        for pasid in [None, Some(1), Some(2), Some(1)] {
            unsettled.push((Arc::clone(&one), pasid));
        }
        unsettled.push((other, None));
        unsettled.begin_round();
        let mut tried = 0;
        while let Some(requests) = unsettled.next() {
            tried += 1;
            unsettled.push(requests);
        }
        assert_eq!(tried, 4);
        assert!(!unsettled.is_in_round() && !unsettled.is_empty());
    }

    #[test]
    fn a_round_goes_on_where_it_was_left() {
        let (one, other) = (device(), device());
        let mut unsettled = Unsettled::default();
        unsettled.push((Arc::clone(&one), None));
        unsettled.push((Arc::clone(&other), None));
        unsettled.push((Arc::clone(&one), Some(1)));
        unsettled.begin_round();
        let first = unsettled.next().unwrap();
        unsettled.push(first);
        unsettled.begin_round();
        unsettled.forget(&one);
        let (next, _) = unsettled.next().unwrap();
        assert!(Arc::ptr_eq(&next, &other));
        assert!(unsettled.next().is_none() && unsettled.is_empty());
    }
}
