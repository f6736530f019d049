//! How much one call of the VMM does for the guest.
//!
//! A guest can put commands into the queue that each cost a look at all there is: its PASID tables, what is cached,
//! what the host has. So work is counted in steps as it is done, and the queue is left for later when a call has done
//! its share: the VMM is then asked to come again ([`Vmm::more_work`]).
//!
//! [`Vmm::more_work`]: crate::vmm::Vmm::more_work

/// Steps that a call does of the queue before it leaves the rest for later. A step takes some nanoseconds: one entry of a table or cache
/// looked at. The largest queue of invalidations that each name one page or device fits. The descriptor that takes the last of them is
/// executed whole.
pub(super) const SHARE: u64 = 1 << 22;

/// Steps of other things, as many as take about as long.
pub(super) mod steps {
    /// A descriptor: fetched, decoded, traced.
    pub const DESCRIPTOR: u64 = 8;
    /// An entry of one of the unit's own tables or caches.
    pub const ENTRY: u64 = 4;
    /// The way from a requester to its PASID entry.
    pub const LOOKUP: u64 = 16;
    /// A system call of the host's, and what the kernel does for it.
    pub const CALL: u64 = 1024;
    /// An order for the VMM, obeyed.
    pub const ORDER: u64 = 128;
}

/// What is left of the present call's share.
#[derive(Debug, Default)]
pub(super) struct Work {
    left: u64,
    /// What it has done.
    taken: u64,
}

impl Work {
    /// A call begins.
    pub fn begin(&mut self) {
        *self = Self {
            left: SHARE,
            taken: 0,
        };
    }

    /// So many steps were done, or will be.
    pub fn charge(&mut self, steps: u64) {
        self.left = self.left.saturating_sub(steps);
        self.taken = self.taken.saturating_add(steps);
    }

    /// So many things were done that each take `steps`.
    pub fn charge_each(&mut self, count: usize, steps: u64) {
        self.charge(steps.saturating_mul(count as u64));
    }

    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Steps since the call began: its share at most, and what the last descriptor took.
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_spent_once() {
        let mut work = Work::default();
        assert!(work.is_spent());
        work.begin();
        work.charge(SHARE - 1);
        assert!(!work.is_spent());
        work.charge_each(3, u64::MAX);
        assert!(work.is_spent());
        assert_eq!(work.taken(), u64::MAX);
        work.begin();
        assert!(!work.is_spent());
        assert_eq!(work.taken(), 0);
    }
}
