//! An independent account of what the guest's tables say, and of the RAM they lead to.

/// Devices.
pub const DEVICES: usize = 2;
/// PASIDs of a device: 0 stands for requests without one.
pub const PASIDS: usize = 4;
/// First-stage tables of the guest.
pub const TABLES: usize = 6;

/// RAM from 0 on.
pub const LOW_SIZE: u64 = 0x8_0000;
/// Pages that tables map.
const DATA: u64 = 0x6_0000;
/// RAM around the interrupt window, which is two maps of an IOAS.
pub const HIGH: u64 = 0xfedf_f000;
/// Its bytes.
pub const HIGH_SIZE: u64 = 0x10_2000;

/// Pages that every table maps: to data pages that change, to the two ends of the high
/// RAM; and one that is not mapped.
pub const PAGES: [u64; 3] = [0x5000, 0x9000, 0x2_0000];
pub const HIGH_PAGES: [(u64, u64); 2] = [(0x3_0000, HIGH), (0x3_2000, HIGH + HIGH_SIZE - 0x1000)];
pub const HOLE: u64 = 0x4_0000;

/// What a PASID entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Not present.
    None,
    /// First-stage translation by this table.
    Table(usize),
    /// Pass-through.
    Through,
}

/// The domain ID of an entry: Linux has one for each table.
pub fn domain(entry: Entry) -> u16 {
    match entry {
        Entry::Table(table) => 10 + table as u16,
        Entry::None | Entry::Through => 9,
    }
}

/// What the guest's tables say, as far as it was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub enabled: bool,
    pub entries: [[Entry; PASIDS]; DEVICES],
    /// How often the pages of each table were moved.
    pub moved: [u64; TABLES],
    /// Devices that are plugged in.
    pub present: [bool; DEVICES],
    pub low: bool,
    pub high: bool,
}

impl Model {
    /// Where a page of a table leads.
    pub fn data(&self, table: usize, page: usize) -> u64 {
        let number = table as u64 * 7 + page as u64 * 3 + self.moved[table] * 5;
        DATA + number % 32 * 0x1000
    }

    /// What requests go through: None if nothing.
    pub fn through(&self, device: usize, pasid: usize) -> Entry {
        match (self.enabled, pasid) {
            _ if !self.present[device] => Entry::None,
            (false, 0) => Entry::Through,
            (false, _) => Entry::None,
            (true, _) => self.entries[device][pasid],
        }
    }

    fn ram(&self, address: u64) -> Option<u64> {
        let low = self.low && address < LOW_SIZE;
        let high = self.high && (HIGH..HIGH + HIGH_SIZE).contains(&address);
        (low || high).then_some(address)
    }

    /// Where a request goes; None if it is to be refused.
    pub fn target(&self, device: usize, pasid: usize, address: u64) -> Option<u64> {
        let page = match self.through(device, pasid) {
            Entry::None => None,
            Entry::Through => Some(address),
            Entry::Table(table) => {
                let data = PAGES.iter().position(|&page| page == address);
                let high = HIGH_PAGES.iter().find(|(page, _)| *page == address);
                data.map(|page| self.data(table, page))
                    .or(high.map(|&(_, target)| target))
            }
        };
        page.and_then(|page| self.ram(page))
    }
}
