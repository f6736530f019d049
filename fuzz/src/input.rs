//! What an input is: a header and records of one size, each of them an operation.
//!
//! With records of one size an operation stays the same whatever is inserted before it, so
//! libFuzzer's own mutations are applied inside of a record, and whole records are moved, doubled
//! and left out ([`Shape::mutate`], [`Shape::cross`]).

/// Bytes of an input, taken one after the other; behind the last there are zeros.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let count = N.min(self.0.len());
        let (front, rest) = self.0.split_at(count);
        taken[..count].copy_from_slice(front);
        self.0 = rest;
        taken
    }

    pub fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// One of `options`, by a number.
pub fn pick<T: Copy>(options: &[T], number: impl Into<u64>) -> T {
    options[(number.into() % options.len() as u64) as usize]
}

/// The form of a target's inputs.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Bytes before the first record.
    pub header: usize,
    /// Bytes of a record.
    pub record: usize,
    /// Records at most.
    pub most: usize,
    /// Numbers of operations: the first byte of a record, modulo this.
    pub operations: u8,
}

/// Small random numbers: what they are for needs no better ones.
pub struct Random(u64);

impl Random {
    /// Of a seed that is not 0.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % limit.max(1) as u64) as usize
    }

    /// Mostly near 1.
    fn few(&mut self, limit: usize) -> usize {
        let bound = [1, 1, 1, 2, 4, 16][self.below(6)];
        1 + self.below(bound.min(limit))
    }
}

impl Shape {
    /// Records of an input; what is left at the end is none.
    pub fn records<'a>(&self, input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let rest = input.get(self.header..).unwrap_or_default();
        rest.chunks_exact(self.record).take(self.most)
    }

    /// Bytes of the longest input.
    pub fn longest(&self) -> usize {
        self.header + self.record * self.most
    }

    /// Another input, made of the first `size` bytes of `data`, in place, with at most `most`; `bytes` is
    /// libFuzzer's own mutation: of so many bytes, to at most so many. Gives the new size.
    pub fn mutate(
        &self,
        data: &mut [u8],
        size: usize,
        most: usize,
        seed: u32,
        bytes: impl Fn(&mut [u8], usize, usize) -> usize,
    ) -> usize {
        let mut random = Random(u64::from(seed) | 1 << 40);
        let room = most.min(data.len()).min(self.longest());
        if random.below(16) == 0 || room < self.header + self.record {
            return bytes(data, size.min(room), room);
        }
        let count = size.saturating_sub(self.header) / self.record;
        let count = count.min((room - self.header) / self.record);
        let mut header = data[..self.header.min(size)].to_vec();
        header.resize(self.header, 0);
        let mut records: Vec<Vec<u8>> = data[self.header.min(size)..size]
            .chunks_exact(self.record)
            .take(count)
            .map(<[u8]>::to_vec)
            .collect();
        for _ in 0..random.few(4) {
            self.change(&mut header, &mut records, &mut random, &bytes);
        }
        records.truncate((room - self.header) / self.record);
        let all = [header, records.concat()].concat();
        data[..all.len()].copy_from_slice(&all);
        all.len()
    }

    fn change(
        &self,
        header: &mut [u8],
        records: &mut Vec<Vec<u8>>,
        random: &mut Random,
        bytes: &impl Fn(&mut [u8], usize, usize) -> usize,
    ) {
        let in_place = |part: &mut [u8]| {
            let length = part.len();
            if length > 0 {
                let kept = bytes(part, length, length);
                part[kept.min(length)..].fill(0);
            }
        };
        let count = records.len();
        let at = random.below(count);
        match random.below(16) {
            0 => in_place(header),
            _ if count == 0 => records.push(self.fresh(random)),
            1..=5 => in_place(&mut records[at]),
            6 => records[at][0] = random.below(self.operations.into()) as u8,
            7..=8 => {
                let copies = records[at..].iter().take(random.few(count)).cloned();
                let copies: Vec<_> = copies.collect();
                let to = random.below(count + 1);
                records.splice(to..to, copies);
            }
            9..=10 => {
                let end = (at + random.few(count)).min(count);
                records.drain(at..end);
            }
            11 => {
                let other = random.below(count);
                records.swap(at, other);
            }
            12 => {
                // The same, but for one byte, right behind it.
                let mut near = records[at].clone();
                let place = random.below(self.record);
                near[place] = near[place].wrapping_add(1 << random.below(8));
                records.insert(at + 1, near);
            }
            _ => records.insert(random.below(count + 1), self.fresh(random)),
        }
    }

    /// A record of small numbers, most of them 0.
    fn fresh(&self, random: &mut Random) -> Vec<u8> {
        let mut record = vec![0; self.record];
        for byte in &mut record {
            if random.below(3) == 0 {
                *byte = random.below(256) as u8;
            } else if random.below(3) == 0 {
                *byte = random.below(8) as u8;
            }
        }
        record[0] = random.below(self.operations.into()) as u8;
        record
    }

    /// The beginning of one input and the end of another, into `out`. Gives the size.
    pub fn cross(&self, one: &[u8], two: &[u8], out: &mut [u8], seed: u32) -> usize {
        let mut random = Random(u64::from(seed) | 1 << 41);
        let first: Vec<&[u8]> = self.records(one).collect();
        let second: Vec<&[u8]> = self.records(two).collect();
        let begin = random.below(first.len() + 1);
        let end = random.below(second.len() + 1);
        let mut all = one[..self.header.min(one.len())].to_vec();
        all.resize(self.header, 0);
        for record in first[..begin].iter().chain(&second[end..]) {
            all.extend_from_slice(record);
        }
        all.truncate(out.len().min(self.longest()));
        out[..all.len()].copy_from_slice(&all);
        all.len()
    }
}
