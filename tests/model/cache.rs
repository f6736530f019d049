//! What the unit may have cached: from when context and PASID entries may be, and which translations
//! may be given again.

use crate::compare::{agrees, page_beside_interrupts};
use crate::machine::{SOURCE_IDS, Said};
use crate::reference::lookup::{Stages, table_mode};
use crate::reference::queue::Command;
use crate::reference::walk::{Page, walk_below};
use crate::reference::{Context, Kind, Outcome, Paging, Request, mask};
use crate::run::{Candidate, Run};
use crate::world::PASIDS;

/// What invalidations name something cached by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    device: usize,
    domain: u16,
    pasid: Option<u32>,
    kind: FillKind,
    /// What of the address space it is for.
    base: u64,
    size: u64,
    privileged: bool,
}

/// A table of 4 KiB pages whose place the unit may have kept, as memory was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastTable {
    name: Name,
    moment: usize,
}

/// A translation that the unit gave and may have kept.
#[derive(Debug, Clone)]
pub struct Fill {
    name: Name,
    /// What is to be added to an address in the page.
    offset: u64,
    /// What the tables permitted.
    read: bool,
    write: bool,
    execute: bool,
    /// Usable for writes: the dirty bits are set, or there are none.
    dirty: bool,
}

/// What a table of 4 KiB pages is for.
const TABLE_REACH: u64 = 1 << 21;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillKind {
    PassThrough,
    First,
    Second,
    Nested,
}

impl FillKind {
    fn of(stages: &Stages) -> Self {
        match stages {
            Stages::PassThrough { .. } => Self::PassThrough,
            Stages::First(_) => Self::First,
            Stages::Second(_) => Self::Second,
            Stages::Nested(..) => Self::Nested,
        }
    }
}

impl Name {
    /// Is it of the tables that one of the candidates goes through, for this request?
    fn is_for(&self, device: usize, request: &Request, candidates: &[Candidate]) -> bool {
        candidates
            .iter()
            .any(|candidate| self.is_of(device, candidate))
            && request.address & !(self.size - 1) == self.base
            && (request.privileged && request.pasid.is_some()) == self.privileged
    }

    fn is_of(&self, device: usize, candidate: &Candidate) -> bool {
        candidate.paging.as_ref().is_some_and(|paging| {
            paging.pasid == self.pasid
                && paging.domain == self.domain
                && (paging.pasid.is_some() || device == self.device)
        })
    }

    /// Must it go?
    fn is_covered(&self, command: Command) -> bool {
        match command {
            Command::Translations => true,
            Command::DomainTranslations { domain } => self.domain == domain,
            // 6.5.2.3: the address is one of the second stage, so all nested translations of
            // the domain go; those of the first stage alone need not.
            Command::Pages {
                domain,
                address,
                order,
                ..
            } => {
                self.domain == domain
                    && match self.kind {
                        FillKind::Second => self.overlaps(address, order),
                        FillKind::Nested => true,
                        FillKind::First | FillKind::PassThrough => false,
                    }
            }
            Command::PasidTranslations { domain, pasid } => {
                self.domain == domain && self.pasid == Some(pasid) && self.kind != FillKind::Second
            }
            Command::PasidPages {
                domain,
                pasid,
                address,
                order,
                ..
            } => {
                self.domain == domain
                    && self.pasid == Some(pasid)
                    && self.kind != FillKind::Second
                    && self.overlaps(address, order)
            }
            _ => false,
        }
    }

    fn overlaps(&self, address: u64, order: u32) -> bool {
        let bits = 12 + order;
        if bits >= 64 {
            return true;
        }
        let first = address >> bits << bits;
        let last = first | mask(bits - 1, 0);
        self.base <= last && first <= self.base + (self.size - 1)
    }
}

impl Fill {
    /// May the unit use it for this request?
    pub fn serves(&self, device: usize, request: &Request, candidates: &[Candidate]) -> bool {
        let permitted = if request.kind == Kind::Translation {
            // It gets what there is.
            (self.read || (request.write && self.write))
                && (!request.write || !self.write || self.dirty)
        } else {
            (!request.read || self.read)
                && (!request.write || (self.write && self.dirty))
                && (!(request.execute && request.pasid.is_some()) || self.execute)
        };
        permitted && self.name.is_for(device, request, candidates)
    }

    /// Is this what the unit said?
    pub fn is(&self, request: &Request, said: &Said) -> bool {
        let Said::Page {
            address,
            size,
            read,
            write,
            execute,
            ..
        } = *said
        else {
            return false;
        };
        size == self.name.size
            && address == request.address.wrapping_add(self.offset)
            && (!read || self.read)
            && (!write || (self.write && self.dirty))
            && (!execute || self.execute)
            && (!request.read || read || !self.read)
            && (!request.write || write || !self.write)
            && (!request.execute || execute || !self.execute)
    }
}

impl Run<'_> {
    /// The unit may keep what it answered; and of what it refused to write, that it may be read.
    pub fn remember(
        &mut self,
        device: usize,
        request: &Request,
        said: &Said,
        candidates: &[Candidate],
    ) {
        for candidate in candidates {
            let Some(paging) = &candidate.paging else {
                continue;
            };
            match (said, &candidate.outcome) {
                (Said::Page { size, .. }, Outcome::Page(page))
                    if agrees(&candidate.outcome, request, said).is_ok() =>
                {
                    let written = request.write && page.write;
                    self.keep(device, request, paging, page, *size, written);
                }
                (Said::Refused { .. }, _) => {
                    for page in self.readable(device, request, candidate, candidates) {
                        let size = page.size.unwrap_or(0x1000);
                        let size = page_beside_interrupts(size, request.address, page.address);
                        self.keep(device, request, paging, &page, size, false);
                    }
                }
                _ => {}
            }
        }
    }

    /// What reading comes to, now or from a cached table on.
    fn readable(
        &self,
        device: usize,
        request: &Request,
        candidate: &Candidate,
        candidates: &[Candidate],
    ) -> Vec<Page> {
        let reads = Request {
            kind: Kind::Untranslated,
            read: true,
            write: false,
            execute: false,
            ..*request
        };
        let Some(paging) = &candidate.paging else {
            return Vec::new();
        };
        let memory = &self.machine.memory;
        let moments = self
            .tables
            .iter()
            .filter(|table| table.name.is_for(device, &reads, candidates))
            .filter(|table| table.name.is_of(device, candidate))
            .map(|table| Some(memory.at(table.moment)));
        moments
            .chain([None])
            .filter_map(|above| {
                let capabilities = &self.machine.capabilities;
                match walk_below(above, memory.now(), capabilities, paging, &reads) {
                    Outcome::Page(page) => Some(page),
                    Outcome::Refused(..) => None,
                }
            })
            .collect()
    }

    fn keep(
        &mut self,
        device: usize,
        request: &Request,
        paging: &Paging,
        page: &Page,
        size: u64,
        written: bool,
    ) {
        let name = Name {
            device,
            domain: paging.domain,
            pasid: paging.pasid,
            kind: FillKind::of(&paging.stages),
            base: request.address & !(size - 1),
            size,
            privileged: request.privileged && request.pasid.is_some(),
        };
        let table = LastTable {
            name: Name {
                base: request.address & !(TABLE_REACH - 1),
                size: TABLE_REACH,
                ..name.clone()
            },
            moment: self.machine.memory.version(),
        };
        if !self.tables.contains(&table) {
            self.tables.push(table);
        }
        self.fills.push(Fill {
            name,
            offset: page.address.wrapping_sub(request.address),
            read: page.read,
            write: page.write,
            execute: page.execute,
            dirty: !page.tracks_dirty || written || page.dirty,
        });
    }

    /// The candidates, and what they come to from a cached table on, if the request then succeeds.
    pub fn with_cached_tables(
        &self,
        device: usize,
        request: &Request,
        mut candidates: Vec<Candidate>,
    ) -> Vec<Candidate> {
        let memory = &self.machine.memory;
        let mut more = Vec::new();
        for table in &self.tables {
            if !table.name.is_for(device, request, &candidates) {
                continue;
            }
            for candidate in &candidates {
                let Some(paging) = candidate.paging.as_ref() else {
                    continue;
                };
                if !table.name.is_of(device, candidate) {
                    continue;
                }
                let above = Some(memory.at(table.moment));
                let capabilities = &self.machine.capabilities;
                let outcome = walk_below(above, memory.now(), capabilities, paging, request);
                if matches!(outcome, Outcome::Page(_)) {
                    more.push(Candidate {
                        paging: Some(paging.clone()),
                        outcome,
                    });
                }
            }
        }
        candidates.append(&mut more);
        candidates
    }

    /// All that is cached of this is gone.
    pub fn covered(&mut self, command: Command) {
        let now = self.machine.memory.version();
        match command {
            Command::Contexts => self.since.contexts = [now; 2],
            Command::DomainContexts { domain } => {
                // In scalable mode context entries have no domain, and none need go.
                for device in 0..2 {
                    if table_mode(self.root) == 0 && self.all_of_domain(device, domain) {
                        self.since.contexts[device] = now;
                    }
                }
            }
            Command::DeviceContexts {
                domain,
                source_id,
                ignored,
            } => {
                for (device, &id) in SOURCE_IDS.iter().enumerate() {
                    let scalable = table_mode(self.root) == 1;
                    if id & !ignored == source_id & !ignored
                        && (scalable || self.all_of_domain(device, domain))
                    {
                        self.since.contexts[device] = now;
                    }
                }
            }
            Command::Pasids => {
                for since in &mut self.since.pasids {
                    *since = [now; 2];
                }
            }
            Command::DomainPasids { domain } => {
                for pasid in PASIDS {
                    self.pasid_covered(domain, pasid);
                }
            }
            Command::Pasid { domain, pasid } => self.pasid_covered(domain, pasid),
            Command::Translations
            | Command::DomainTranslations { .. }
            | Command::Pages { .. }
            | Command::PasidTranslations { .. }
            | Command::PasidPages { .. } => {
                self.fills.retain(|fill| !fill.name.is_covered(command));
                let tables_stay = match command {
                    Command::Pages { leaf_only, .. } | Command::PasidPages { leaf_only, .. } => {
                        leaf_only
                    }
                    _ => false,
                };
                if !tables_stay {
                    self.tables.retain(|table| !table.name.is_covered(command));
                }
            }
            Command::Other | Command::Wait { .. } => {}
        }
    }

    /// Do all contexts that the unit may have of a device belong to the domain?
    fn all_of_domain(&self, device: usize, wanted: u16) -> bool {
        let contexts = self.contexts(device, self.since.contexts[device]);
        contexts.iter().all(|context| match context {
            Ok(Context::Legacy { domain, .. }) => *domain == wanted,
            _ => false,
        })
    }

    fn pasid_covered(&mut self, domain: u16, pasid: u32) {
        if table_mode(self.root) != 1 {
            return;
        }
        let Some(index) = PASIDS.iter().position(|&known| known == pasid) else {
            return;
        };
        for device in 0..2 {
            let now = self.machine.memory.version();
            let contexts = self.contexts(device, self.since.contexts[device]);
            let all = contexts.iter().all(|context| match context {
                Ok(context @ Context::Scalable { .. }) => self
                    .pagings(device, context, pasid)
                    .iter()
                    .all(|paging| matches!(paging, Ok(paging) if paging.domain == domain)),
                _ => false,
            });
            if all {
                self.since.pasids[index][device] = now;
            }
        }
    }
}
