//! Paging: first stage (3.6, 9.7), second stage (3.7, 9.8), nested (3.8), and what the request may
//! do with the page it gets to.

use super::lookup::{First, Second, Stages};
use super::{Capabilities, Kind, Paging, Refusal, Request, View, bit, mask};

/// Bits to be set in a paging entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    pub address: u64,
    pub bits: u64,
    /// They are not set yet, and this fault is in the way of setting them.
    pub denied: Option<u8>,
    /// Whether they are set is open.
    pub optional: bool,
}

/// A page that the request may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where the request's own address goes.
    pub address: u64,
    /// None: no table says.
    pub size: Option<u64>,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub global: bool,
    /// Writes leave a mark in the tables.
    pub tracks_dirty: bool,
    /// Those marks are there already.
    pub dirty: bool,
    pub updates: Vec<Update>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Page(Page),
    /// Accessed bits of the entries on the way may be set all the same.
    Refused(Refusal, Vec<Update>),
}

/// The interrupt range (3.14).
pub fn in_interrupt_range(address: u64) -> bool {
    address & !0xf_ffff == 0xfee0_0000
}

const FIRST_ACCESSED: u64 = 1 << 5;
const FIRST_DIRTY: u64 = 1 << 6;
const FIRST_EXTENDED_ACCESSED: u64 = 1 << 10;
const SECOND_ACCESSED: u64 = 1 << 8;
const SECOND_DIRTY: u64 = 1 << 9;

/// A walk under way.
struct Walk<'a> {
    view: View<'a>,
    /// The tables above the last one as they are cached (6.2.4), if they are.
    above: Option<View<'a>>,
    capabilities: &'a Capabilities,
    request: &'a Request,
    updates: Vec<Update>,
}

/// What the second stage says of an address.
struct Mapped {
    address: u64,
    size: u64,
    read: bool,
    write: bool,
    execute: bool,
    leaf: u64,
}

enum SecondFault {
    TopAccess,
    Access,
    NotPresent,
    Reserved,
    /// There is no table of 4 KiB pages.
    NoTable,
}

impl SecondFault {
    /// For an access of the device itself, of that stage.
    fn codes(&self, second: &Second, request: &Request) -> Vec<u8> {
        match (self, second.legacy) {
            // LSS.1, LSS.2; LGN.2 and LGN.3 for an entry that permits nothing.
            (Self::TopAccess | Self::Access, true) => vec![0x07],
            (Self::Reserved, true) => vec![0x0c],
            (Self::NotPresent, true) => denied_legacy(false, false, request),
            // SSS.4, SSS.1, SSS.2, SSS.3.
            (Self::TopAccess, false) => vec![0x7b],
            (Self::Access, false) => vec![0x78],
            (Self::NotPresent, false) => vec![0x79],
            (Self::Reserved, false) => vec![0x7a],
            (Self::NoTable, _) => Vec::new(),
        }
    }
}

/// LGN.2 and LGN.3: which comes first for a request that is refused both is open.
fn denied_legacy(read: bool, write: bool, request: &Request) -> Vec<u8> {
    let mut codes = Vec::new();
    if request.write && !write {
        codes.push(0x05);
    }
    if request.read && !read {
        codes.push(0x06);
    }
    codes
}

/// Walk the tables for `request`.
pub fn walk(
    view: View<'_>,
    capabilities: &Capabilities,
    paging: &Paging,
    request: &Request,
) -> Outcome {
    walk_below(None, view, capabilities, paging, request)
}

/// The same with the entries above those of 4 KiB pages, and where a second stage has the tables of a first,
/// as they were in `above` (6.2.4, paging-structure caches). Nothing is marked on the way there. Refused with
/// no code at all where there was no table of such pages, or its entry is to be marked.
pub fn walk_below<'a>(
    above: Option<View<'a>>,
    view: View<'a>,
    capabilities: &'a Capabilities,
    paging: &Paging,
    request: &'a Request,
) -> Outcome {
    let mut walk = Walk {
        view,
        above,
        capabilities,
        request,
        updates: Vec::new(),
    };
    if in_interrupt_range(request.address) {
        return interrupt_input(request, paging.quiet);
    }
    let legacy = match &paging.stages {
        Stages::PassThrough { legacy, .. } => *legacy,
        Stages::Second(second) => second.legacy,
        _ => false,
    };
    let result = match &paging.stages {
        Stages::PassThrough { width, legacy } => walk.pass_through(*width, *legacy),
        Stages::First(first) => walk.first(first, None),
        Stages::Second(second) => walk.second_only(second),
        Stages::Nested(first, second) => walk.first(first, Some(second)),
    };
    let result = result.and_then(|page| {
        // 3.14: no request may be translated into the interrupt range. LGN.4, SGN.8.
        if page.size.is_some() && in_interrupt_range(page.address) {
            return Err(vec![if legacy { 0x0e } else { 0x87 }]);
        }
        Ok(page)
    });
    // 3.6.2, 3.7.2: a page is used only once the bits that say so are set. When the walk is
    // refused for another reason, whether that comes first is open.
    let mut denied: Vec<u8> = walk
        .updates
        .iter()
        .filter(|update| !update.optional)
        .filter_map(|update| update.denied)
        .collect();
    match result {
        Ok(mut page) if denied.is_empty() => {
            page.updates = walk.updates;
            Outcome::Page(page)
        }
        Ok(page) => {
            // So it is for a translation request that may not read the page: neither can be had.
            if walk.is_translation() && request.read && !page.read && denied == [0x77] {
                denied.push(0x79);
            }
            refused(denied, paging.quiet, walk.updates)
        }
        Err(mut codes) => {
            codes.extend(denied);
            refused(codes, paging.quiet, walk.updates)
        }
    }
}

/// 3.14: the range itself is not translated. An interrupt has no PASID, SGN.8; and a device that asks
/// for a translation to keep is told to send its interrupts untranslated.
fn interrupt_input(request: &Request, quiet: bool) -> Outcome {
    if request.pasid.is_some() {
        return refused(vec![0x87], quiet, Vec::new());
    }
    Outcome::Page(Page {
        address: request.address,
        size: None,
        read: false,
        write: true,
        execute: false,
        global: false,
        tracks_dirty: false,
        dirty: false,
        updates: Vec::new(),
    })
}

fn refused(codes: Vec<u8>, quiet: bool, updates: Vec<Update>) -> Outcome {
    Outcome::Refused(Refusal { codes, quiet }, updates)
}

impl Walk<'_> {
    /// A request without PASID is neither for execution nor privileged.
    fn execute(&self) -> bool {
        self.request.execute && self.request.pasid.is_some()
    }

    fn privileged(&self) -> bool {
        self.request.privileged && self.request.pasid.is_some()
    }

    /// Are they set, or will they be once the walk is done?
    fn is_set(&self, address: u64, bits: u64) -> bool {
        let value = self.view.read(address).expect("was read before");
        let pending = |update: &&Update| update.address == address && !update.optional;
        let set = self.updates.iter().filter(pending);
        set.fold(value, |value, update| value | update.bits) & bits == bits
    }

    /// Is all set that the first of the updates are to set?
    fn is_marked(&self, updates: usize) -> bool {
        self.updates[..updates].iter().all(|update| {
            let value = self.view.read(update.address).expect("was read before");
            value & update.bits == update.bits
        })
    }

    /// On the way to the last table.
    fn above<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let Some(above) = self.above.take() else {
            return work(self);
        };
        let view = core::mem::replace(&mut self.view, above);
        let updates = self.updates.len();
        let result = work(self);
        self.updates.truncate(updates);
        self.view = view;
        self.above = Some(above);
        result
    }

    fn is_translation(&self) -> bool {
        self.request.kind == Kind::Translation
    }

    /// Remember that `bits` of the entry are to be set.
    fn update(&mut self, address: u64, bits: u64, snooped: bool, codes: (u8, u8)) {
        let value = self.view.read(address).expect("was read before");
        let denied = if value & bits == bits {
            None
        } else if !snooped {
            Some(codes.0)
        } else if !self.view.memory.writable(address) {
            Some(codes.1)
        } else {
            None
        };
        self.updates.push(Update {
            address,
            bits,
            denied,
            optional: false,
        });
    }

    // 3.9, pass-through.
    fn pass_through(&mut self, width: u32, legacy: bool) -> Result<Page, Vec<u8>> {
        // Step 1: the address is within the supported width. LGN.1, SGN.4.
        if beyond(self.request.address, width) {
            return Err(vec![if legacy { 0x04 } else { 0x83 }]);
        }
        // Step 2: it is its own result.
        Ok(Page {
            address: self.request.address,
            size: None,
            read: true,
            write: true,
            execute: true,
            global: false,
            tracks_dirty: false,
            dirty: false,
            updates: Vec::new(),
        })
    }

    // 3.7, second stage alone.
    fn second_only(&mut self, second: &Second) -> Result<Page, Vec<u8>> {
        let request = self.request;
        // Step 1: the address is within the table's width. LGN.1, SGN.4.
        if beyond(request.address, second.width) {
            return Err(vec![if second.legacy { 0x04 } else { 0x83 }]);
        }
        // Step 2: walk.
        let mapped = self
            .second(second, request.address, true)
            .map_err(|fault| fault.codes(second, request))?;
        // Step 3: the page permits what is asked; a translation request is refused only if it
        // would get nothing.
        let (read, write) = (request.read && mapped.read, request.write && mapped.write);
        let granted = if self.is_translation() {
            read || write
        } else {
            read == request.read && write == request.write
        };
        if !granted {
            return Err(if second.legacy {
                denied_legacy(mapped.read, mapped.write, request)
            } else {
                vec![0x79]
            });
        }
        // Which of the two codes execution gets that SSEE and X deny is not public.
        if self.execute() && !mapped.execute && !self.is_translation() {
            return Err(vec![0x79, 0x82]);
        }
        // Step 4: a write leaves its mark.
        if second.accessed_dirty && write {
            self.second_dirty(second, mapped.leaf);
        }
        if self.above.is_some() && !self.is_marked(self.updates.len()) {
            return Err(Vec::new());
        }
        Ok(Page {
            address: mapped.address,
            size: Some(mapped.size),
            read: mapped.read,
            write: mapped.write,
            execute: mapped.execute,
            global: false,
            tracks_dirty: second.accessed_dirty,
            dirty: self.is_set(mapped.leaf, SECOND_DIRTY),
            updates: Vec::new(),
        })
    }

    fn second_dirty(&mut self, second: &Second, leaf: u64) {
        // SSS.5, SSS.6.
        self.update(leaf, SECOND_DIRTY, second.snooped, (0x7c, 0x7d));
    }

    // 3.7.1, 9.8: the walk of second-stage tables, which begin the request's own walk or are
    // below another stage's.
    fn second(&mut self, second: &Second, input: u64, own: bool) -> Result<Mapped, SecondFault> {
        let mut table = second.table;
        let (mut read, mut write, mut execute) = (true, true, true);
        for level in (1..=second.levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let address = table + (input >> shift & 0x1ff) * 8;
            // Step 1: read the entry.
            let cached = self.above.filter(|_| own && level > 1);
            let Some(entry) = cached.unwrap_or(self.view).read(address) else {
                return Err(if level == second.levels {
                    SecondFault::TopAccess
                } else {
                    SecondFault::Access
                });
            };
            // Step 2: an entry that permits nothing is not present.
            let permits = if second.execute { 0b111 } else { 0b11 };
            if entry & permits == 0 {
                return Err(SecondFault::NotPresent);
            }
            // Step 3: reserved bits. PS is one where there are no such pages; SNP (11) where
            // snooping cannot be controlled, and in tables; bit 62 (formerly TM) without device
            // TLBs, and in tables.
            let page = match level {
                1 => true,
                2 => bit(entry, 7) && self.capabilities.second_stage_2m(),
                3 => bit(entry, 7) && self.capabilities.second_stage_1g(),
                _ => false,
            };
            let mut reserved = self.capabilities.beyond_host_in_entry();
            if !page {
                reserved |= 1 << 7 | 1 << 11 | 1 << 62;
            } else {
                if !self.capabilities.snoop_control() {
                    reserved |= 1 << 11;
                }
                if !self.capabilities.device_tlb() {
                    reserved |= 1 << 62;
                }
                if level > 1 {
                    reserved |= mask(shift - 1, 12);
                }
            }
            if entry & reserved != 0 {
                return Err(SecondFault::Reserved);
            }
            // Step 4: it has been used.
            if second.accessed_dirty && cached.is_none() {
                self.update(address, SECOND_ACCESSED, second.snooped, (0x7c, 0x7d));
            }
            // Step 5: permissions are those of all entries together.
            read &= bit(entry, 0);
            write &= bit(entry, 1);
            execute &= bit(entry, 2);
            table = entry & mask(51, 12);
            if page && cached.is_some() {
                return Err(SecondFault::NoTable);
            }
            if page {
                let size = 1 << shift;
                return Ok(Mapped {
                    address: table & !(size - 1) | input & (size - 1),
                    size,
                    read,
                    write,
                    execute: if second.execute { execute } else { read },
                    leaf: address,
                });
            }
        }
        unreachable!("level 1 is a page");
    }

    // 3.6, first stage, and 3.8, nested: there each address of the first stage is one of the
    // second.
    fn first(&mut self, first: &First, second: Option<&Second>) -> Result<Page, Vec<u8>> {
        let request = self.request;
        // Step 1: the address is canonical. SGN.1.
        let top = 12 + 9 * first.levels - 1;
        let upper = request.address & mask(63, top);
        if upper != 0 && upper != mask(63, top) {
            return Err(vec![0x80]);
        }
        // Step 2: walk.
        let mut table = first.table;
        let (mut write, mut user, mut execute) = (true, true, true);
        let (mut leaf, mut size, mut dirty_stage) = (0, 0, None);
        for level in (1..=first.levels).rev() {
            let shift = 12 + 9 * (level - 1);
            let address = table + (request.address >> shift & 0x1ff) * 8;
            let is_top = level == first.levels;
            // Step 2.1: nested: where is the entry?
            let (address, writer) = match second {
                None => (address, None),
                Some(second) => {
                    let mapped = self.above(|walk| walk.table_address(second, address, is_top))?;
                    (mapped.address, Some(mapped))
                }
            };
            // Step 2.2: read it. SFS.4, SFS.1.
            let cached = self.above.filter(|_| level > 1);
            let Some(entry) = cached.unwrap_or(self.view).read(address) else {
                return Err(vec![if is_top { 0x73 } else { 0x70 }]);
            };
            // Step 2.3: it is present. SFS.2.
            if !bit(entry, 0) {
                return Err(vec![0x71]);
            }
            // Step 2.4: its reserved bits are 0: PS where there are no such pages, addresses
            // beyond the host's, and of a large page the bits below it (but PAT, 12). SFS.3.
            let page = match level {
                1 => true,
                2 => bit(entry, 7),
                3 => bit(entry, 7) && self.capabilities.first_stage_1g(),
                _ => false,
            };
            let mut reserved = self.capabilities.beyond_host_in_entry();
            if !page {
                reserved |= 1 << 7;
            } else if level > 1 {
                reserved |= mask(shift - 1, 13);
            }
            if entry & reserved != 0 {
                return Err(vec![0x72]);
            }
            // Step 2.5: permissions are those of all entries together. XD counts only with NXE.
            write &= bit(entry, 1);
            user &= bit(entry, 2);
            execute &= !(first.no_execute && bit(entry, 63));
            // Step 2.6: it has been used.
            let mut bits = FIRST_ACCESSED;
            if first.extended_accessed {
                bits |= FIRST_EXTENDED_ACCESSED;
            }
            if cached.is_none() {
                self.first_update(first, second, address, writer.as_ref(), bits);
            }
            table = entry & mask(51, 12);
            if page && cached.is_some() {
                return Err(Vec::new());
            }
            if page {
                (leaf, size, dirty_stage) = (address, 1 << shift, writer);
                break;
            }
        }
        let leaf_entry = self.view.read(leaf).expect("was read before");
        let mut address = table & !(size - 1) | request.address & (size - 1);

        // Step 3: the first stage permits the access. A supervisor may use all pages, and write
        // them all unless WPE is set; with SMEP it may not execute a user's. SGN.2, SGN.3, SGN.6.
        let privileged = self.privileged();
        if !privileged && !user {
            return Err(vec![0x81]);
        }
        if privileged && user && first.supervisor_execute_prevention {
            execute = false;
        }
        if self.execute() && !execute && !self.is_translation() {
            return Err(vec![0x82]);
        }
        if privileged && !first.write_protect {
            write = true;
        }
        if request.write && !write && !self.is_translation() {
            return Err(vec![0x85]);
        }

        // Step 4: nested: the page's address is translated in turn. SGN.5.
        let mut read = true;
        let mut second_leaf = None;
        let first_writes = write;
        let unmarked = self.updates.len();
        if request.write && write {
            // Whether it is marked as written before the second stage refuses it is open.
            self.first_update(first, second, leaf, dirty_stage.as_ref(), FIRST_DIRTY);
        }
        let marked = self.updates.len();
        if self.above.is_some() && !self.is_marked(unmarked) {
            return Err(Vec::new());
        }
        if let Some(second) = second {
            if beyond(address, second.width) {
                return Err(vec![0x84]);
            }
            let mapped = self
                .second(second, address, false)
                .map_err(|fault| fault.codes(second, request))?;
            read = mapped.read;
            write &= mapped.write;
            execute &= mapped.execute;
            let granted = if self.is_translation() {
                read || (request.write && write)
            } else {
                (!request.read || read) && (!request.write || write)
            };
            if !granted {
                // The first stage's word on writing comes to the same for a translation request.
                let mut codes = vec![0x79];
                if self.is_translation() && request.write && !first_writes {
                    codes.push(0x85);
                }
                return Err(codes);
            }
            if self.execute() && !execute && !self.is_translation() {
                return Err(vec![0x79, 0x82]);
            }
            if !write {
                for update in &mut self.updates[unmarked..marked] {
                    update.optional = true;
                }
            }
            address = mapped.address;
            size = size.min(mapped.size);
            second_leaf = Some(mapped.leaf);
        }
        if self.above.is_some() && write && !self.is_marked(marked) {
            return Err(Vec::new());
        }
        // Step 5: a write leaves its mark, in each stage.
        if request.write && write {
            if let (Some(second), Some(leaf)) = (second, second_leaf) {
                if second.accessed_dirty {
                    self.second_dirty(second, leaf);
                }
            }
        }
        Ok(Page {
            address,
            size: Some(size),
            read,
            write,
            execute: execute && read,
            global: bit(leaf_entry, 8),
            tracks_dirty: true,
            dirty: self.is_set(leaf, FIRST_DIRTY)
                && second.is_none_or(|second| {
                    !second.accessed_dirty
                        || second_leaf.is_some_and(|leaf| self.is_set(leaf, SECOND_DIRTY))
                }),
            updates: Vec::new(),
        })
    }

    /// Nested: the host's address of a first-stage entry.
    fn table_address(
        &mut self,
        second: &Second,
        address: u64,
        is_top: bool,
    ) -> Result<Mapped, Vec<u8>> {
        // 3.8, step 1: it is within the second stage's width. SFS.5.
        if beyond(address, second.width) {
            return Err(vec![0x74]);
        }
        // Step 2: the second stage permits reading it. SFS.6, SFS.7; other faults of the
        // second stage are its own.
        let denied = vec![if is_top { 0x75 } else { 0x76 }];
        match self.second(second, address, false) {
            Ok(mapped) if mapped.read => Ok(mapped),
            Ok(_) | Err(SecondFault::NotPresent) => Err(denied),
            Err(fault) => Err(fault.codes(second, self.request)),
        }
    }

    /// Accessed or dirty bits of a first-stage entry; nested, the second stage must permit the
    /// write, and notes it.
    fn first_update(
        &mut self,
        first: &First,
        second: Option<&Second>,
        address: u64,
        mapped: Option<&Mapped>,
        bits: u64,
    ) {
        let needed = self.view.read(address).expect("was read before") & bits != bits;
        // SFS.9, SFS.10.
        self.update(address, bits, first.snooped, (0x90, 0x91));
        let (Some(second), Some(mapped), true) = (second, mapped, needed) else {
            return;
        };
        if !mapped.write {
            // SFS.8. Whether it comes before the others is open.
            self.updates.push(Update {
                address,
                bits,
                denied: Some(0x77),
                optional: false,
            });
        } else if second.accessed_dirty {
            self.second_dirty(second, mapped.leaf);
        }
    }
}

fn beyond(address: u64, width: u32) -> bool {
    width < 64 && address >> width != 0
}
