//! Plain memory that remembers its past.

/// A stretch of RAM.
#[derive(Clone)]
pub struct Region {
    pub base: u64,
    pub words: Vec<u64>,
    pub writable: bool,
}

/// Guest RAM, with a log of what each change overwrote.
#[derive(Clone)]
pub struct Memory {
    pub regions: Vec<Region>,
    changes: Vec<(u64, u64)>,
}

impl Memory {
    pub fn new(regions: Vec<Region>) -> Self {
        Self {
            regions,
            changes: Vec::new(),
        }
    }

    fn place(&self, address: u64) -> Option<(usize, usize)> {
        assert_eq!(address % 8, 0, "{address:#x} is no qword's address");
        self.regions.iter().enumerate().find_map(|(index, region)| {
            let word = (address.checked_sub(region.base)? / 8) as usize;
            (word < region.words.len()).then_some((index, word))
        })
    }

    /// The qword there, unless it is not RAM.
    pub fn read(&self, address: u64) -> Option<u64> {
        let (region, word) = self.place(address)?;
        Some(self.regions[region].words[word])
    }

    /// Change RAM that is there.
    pub fn write(&mut self, address: u64, value: u64) {
        let (region, word) = self.place(address).expect("RAM");
        let cell = &mut self.regions[region].words[word];
        if *cell != value {
            self.changes.push((address, *cell));
            *cell = value;
        }
    }

    /// May a device change it?
    pub fn writable(&self, address: u64) -> bool {
        let place = self.place(address);
        place.is_some_and(|(region, _)| self.regions[region].writable)
    }

    /// Moves on with each change.
    pub fn version(&self) -> usize {
        self.changes.len()
    }

    /// Memory as it was.
    pub fn at(&self, version: usize) -> View<'_> {
        View {
            memory: self,
            version,
        }
    }

    /// Memory as it is.
    pub fn now(&self) -> View<'_> {
        self.at(self.version())
    }
}

/// Memory at one moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub memory: &'a Memory,
    version: usize,
}

impl View<'_> {
    pub fn read(&self, address: u64) -> Option<u64> {
        let later = &self.memory.changes[self.version..];
        match later.iter().find(|(changed, _)| *changed == address) {
            Some(&(_, before)) => Some(before),
            None => self.memory.read(address),
        }
    }

    /// So many qwords from `address` on, unless one is not RAM.
    pub fn read_all<const N: usize>(&self, address: u64) -> Option<[u64; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.read(address + index as u64 * 8)?;
        }
        Some(words)
    }
}
