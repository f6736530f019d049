//! A map by PASID.
//!
//! Guests give PASIDs out in order, and global invalidations go through all of them. So
//! those of 64 neighbours lie together, in order: many are then read as fast as memory
//! is, where the nodes of a tree would each be somewhere else.

use std::collections::BTreeMap;

/// PASIDs of a block.
const BLOCK: u32 = u64::BITS;

/// Values by PASID.
#[derive(Debug)]
pub(super) struct ByPasid<T> {
    /// By the PASIDs' upper bits; none is empty.
    blocks: BTreeMap<u32, Block<T>>,
    len: usize,
}

#[derive(Debug)]
struct Block<T> {
    /// Of which PASIDs there are values.
    present: u64,
    /// These values, in order.
    values: Vec<T>,
}

impl<T> Default for ByPasid<T> {
    fn default() -> Self {
        Self {
            blocks: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        Self {
            present: 0,
            values: Vec::new(),
        }
    }
}

impl<T> Block<T> {
    /// The bit of a PASID, and the place its value has or would have.
    fn place(&self, pasid: u32) -> (u64, usize) {
        let bit = 1_u64 << (pasid % BLOCK);
        let before = self.present & bit.wrapping_sub(1);
        (bit, before.count_ones() as usize)
    }

    fn iter(&self, index: u32) -> impl Iterator<Item = (u32, &T)> {
        let mut left = self.present;
        self.values.iter().map(move |value| {
            let pasid = index.wrapping_mul(BLOCK) | (left.trailing_zeros() % BLOCK);
            left &= left.wrapping_sub(1);
            (pasid, value)
        })
    }
}

impl<T> ByPasid<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, pasid: u32) -> Option<&T> {
        let block = self.blocks.get(&(pasid / BLOCK))?;
        let (bit, place) = block.place(pasid);
        block.values.get(place).filter(|_| block.present & bit != 0)
    }

    /// Gives the value before.
    pub fn insert(&mut self, pasid: u32, value: T) -> Option<T> {
        let block = self.blocks.entry(pasid / BLOCK).or_default();
        let (bit, place) = block.place(pasid);
        if block.present & bit != 0 {
            let before = block.values.get_mut(place)?;
            return Some(core::mem::replace(before, value));
        }
        block.present |= bit;
        block.values.insert(place, value);
        self.len = self.len.saturating_add(1);
        None
    }

    pub fn remove(&mut self, pasid: u32) -> Option<T> {
        let index = pasid / BLOCK;
        let block = self.blocks.get_mut(&index)?;
        let (bit, place) = block.place(pasid);
        if block.present & bit == 0 {
            return None;
        }
        block.present &= !bit;
        let before = block.values.remove(place);
        self.len = self.len.saturating_sub(1);
        if block.present == 0 {
            self.blocks.remove(&index);
        } else if block.values.len() <= block.values.capacity() / 4 {
            block.values.shrink_to_fit();
        }
        Some(before)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// All values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.iter_from(0)
    }

    /// Those of the 64 PASIDs around `from`, and all behind them, in order.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = (u32, &T)> {
        self.blocks
            .range(from / BLOCK..)
            .flat_map(|(&index, block)| block.iter(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_like_another_map(ops in proptest::collection::vec((0_u32..200, any::<bool>()), 0..400)) {
            let mut map = ByPasid::default();
            let mut other = BTreeMap::new();
            for (number, (pasid, insert)) in ops.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(map.insert(pasid, number), other.insert(pasid, number));
                } else {
                    prop_assert_eq!(map.remove(pasid), other.remove(&pasid));
                }
                prop_assert_eq!(map.get(pasid), other.get(&pasid));
                prop_assert_eq!(map.len(), other.len());
            }
            let of = |(&pasid, value)| (pasid, value);
            prop_assert!(map.iter().eq(other.iter().map(of)));
            for from in [0, 64, 128, 192, 256] {
                prop_assert!(map.iter_from(from).eq(other.range(from..).map(of)));
            }
            prop_assert!(map.blocks.values().all(|block| !block.values.is_empty()));
            map.clear();
            prop_assert_eq!((map.len(), map.iter().count()), (0, 0));
        }
    }
}
