//! What a nested HWPT is to forget, in as few entries as cover the same.

use std::cmp::Reverse;

use super::uapi::{VTD_INV_FLAGS_LEAF, VtdS1Invalidate};
use crate::spec::PAGE_SIZE;

/// A range of pages, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    leaf_only: bool,
}

impl Range {
    fn of(entry: &VtdS1Invalidate) -> Self {
        let first = entry.addr / PAGE_SIZE;
        Self {
            first,
            last: first.saturating_add(entry.npages.saturating_sub(1)),
            leaf_only: entry.flags & VTD_INV_FLAGS_LEAF != 0,
        }
    }

    fn entry(&self) -> VtdS1Invalidate {
        VtdS1Invalidate {
            addr: self.first.wrapping_mul(PAGE_SIZE),
            npages: self.last.wrapping_sub(self.first).saturating_add(1),
            flags: if self.leaf_only {
                VTD_INV_FLAGS_LEAF
            } else {
                0
            },
            reserved: 0,
        }
    }

    /// Does forgetting this forget all of `other`?
    fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last && (other.leaf_only || !self.leaf_only)
    }

    /// Pages in the smallest aligned power of two around it, which is what hardware is
    /// asked to forget.
    fn hull(&self) -> u64 {
        let bits = u64::BITS.saturating_sub((self.first ^ self.last).leading_zeros());
        1_u64.checked_shl(bits).unwrap_or(u64::MAX)
    }

    /// This and `next` as one, if they touch, are of a kind, and hardware is not asked
    /// to forget much more than it would be for the two.
    fn joined(&self, next: &Self) -> Option<Self> {
        if self.leaf_only != next.leaf_only || next.first > self.last.saturating_add(1) {
            return None;
        }
        let joined = Self {
            last: self.last.max(next.last),
            ..*self
        };
        let parts = self.hull().saturating_add(next.hull());
        (joined.hull() <= parts.saturating_mul(2)).then_some(joined)
    }
}

/// Merge covered and adjoining ranges. What is covered stays the same; entries with a
/// number of pages of 0 or all ones are everything.
pub fn merge(entries: &[VtdS1Invalidate]) -> Vec<VtdS1Invalidate> {
    if entries
        .iter()
        .any(|entry| matches!(entry.npages, 0 | u64::MAX))
    {
        return vec![VtdS1Invalidate::ALL];
    }
    let mut ranges: Vec<Range> = entries.iter().map(Range::of).collect();
    // Those that cover others come before them.
    ranges.sort_unstable_by_key(|range| (range.first, Reverse(range.last), range.leaf_only));
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        merged.push(range);
        // Joining may make the last one fit the one before it.
        while let [.., before, last] = merged.as_slice() {
            let one = if before.covers(last) {
                *before
            } else if let Some(joined) = before.joined(last) {
                joined
            } else {
                break;
            };
            merged.truncate(merged.len().saturating_sub(2));
            merged.push(one);
        }
    }
    merged.iter().map(Range::entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(first: u64, count: u64) -> VtdS1Invalidate {
        VtdS1Invalidate {
            addr: first * PAGE_SIZE,
            npages: count,
            flags: 0,
            reserved: 0,
        }
    }

    fn leaf(entry: VtdS1Invalidate) -> VtdS1Invalidate {
        VtdS1Invalidate {
            flags: VTD_INV_FLAGS_LEAF,
            ..entry
        }
    }

    fn covered(entries: &[VtdS1Invalidate], page: u64, leaf_only: bool) -> bool {
        let page = Range {
            first: page,
            last: page,
            leaf_only,
        };
        entries.iter().any(|entry| Range::of(entry).covers(&page))
    }

    #[test]
    fn neighbours_become_one() {
        let single: Vec<_> = (0..255).map(|page| pages(page, 1)).collect();
        assert_eq!(merge(&single), [pages(0, 255)]);
        let mut backwards = single;
        backwards.reverse();
        assert_eq!(merge(&backwards), [pages(0, 255)]);
    }

    #[test]
    fn what_is_covered_goes() {
        let entries = [pages(5, 1), pages(0, 16), pages(5, 1), leaf(pages(3, 2))];
        assert_eq!(merge(&entries), [pages(0, 16)]);
        let entries = [leaf(pages(0, 16)), pages(5, 1)];
        assert_eq!(merge(&entries), entries, "a leaf covers leaves only");
        assert_eq!(
            merge(&[pages(5, 1), VtdS1Invalidate::ALL]),
            [VtdS1Invalidate::ALL]
        );
    }

    #[test]
    fn hardware_is_not_asked_to_forget_half_the_world() {
        let middle = 1 << 40;
        let entries = [pages(middle - 1, 1), pages(middle, 1)];
        assert_eq!(merge(&entries), entries);
    }

    #[test]
    fn the_same_is_covered_by_no_more_entries() {
        // A fixed generator: every case can be repeated.
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..2000 {
            let entries: Vec<_> = (0..next(12) + 1)
                .map(|_| {
                    let entry = pages(next(64), next(9) + 1);
                    if next(3) == 0 { leaf(entry) } else { entry }
                })
                .collect();
            let merged = merge(&entries);
            assert!(merged.len() <= entries.len());
            for page in 0..80 {
                for leaf_only in [false, true] {
                    assert_eq!(
                        covered(&merged, page, leaf_only),
                        covered(&entries, page, leaf_only),
                        "page {page} of {entries:?} as {merged:?}"
                    );
                }
            }
        }
    }
}
