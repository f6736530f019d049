//! What the unit may have cached: from when context and PASID entries may be, and which translations
//! may be given again.

use crate::compare::{agrees, page_beside_interrupts};
use crate::machine::{SOURCE_IDS, Said};
use crate::reference::lookup::{Stages, table_mode};
use crate::reference::queue::Command;
use crate::reference::walk::walk;
use crate::reference::{Context, Kind, Outcome, Request, mask};
use crate::run::{Candidate, Run};
use crate::world::PASIDS;

/// A translation that the unit gave and may have kept.
#[derive(Debug, Clone)]
pub struct Fill {
    device: usize,
    domain: u16,
    pasid: Option<u32>,
    kind: FillKind,
    /// The page, and what is to be added to an address in it.
    base: u64,
    size: u64,
    offset: u64,
    /// What the tables permitted.
    read: bool,
    write: bool,
    execute: bool,
    privileged: bool,
    /// Usable for writes: the dirty bits are set, or there are none.
    dirty: bool,
}

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

impl Fill {
    fn overlaps(&self, address: u64, order: u32) -> bool {
        let bits = 12 + order;
        if bits >= 64 {
            return true;
        }
        let first = address >> bits << bits;
        let last = first | mask(bits - 1, 0);
        self.base <= last && first <= self.base + (self.size - 1)
    }

    /// May the unit use it for this request?
    pub fn serves(&self, device: usize, request: &Request, candidates: &[Candidate]) -> bool {
        let reachable = candidates.iter().any(|candidate| {
            candidate.paging.as_ref().is_some_and(|paging| {
                paging.pasid == self.pasid
                    && paging.domain == self.domain
                    && (paging.pasid.is_some() || device == self.device)
            })
        });
        let permitted = if request.kind == Kind::Translation {
            // It gets what there is.
            (self.read || (request.write && self.write))
                && (!request.write || !self.write || self.dirty)
        } else {
            (!request.read || self.read)
                && (!request.write || (self.write && self.dirty))
                && (!(request.execute && request.pasid.is_some()) || self.execute)
        };
        reachable
            && permitted
            && request.address & !(self.size - 1) == self.base
            && (request.privileged && request.pasid.is_some()) == self.privileged
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
        size == self.size
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
            let (page, size) = match (said, &candidate.outcome) {
                (Said::Page { size, .. }, Outcome::Page(page))
                    if agrees(&candidate.outcome, request, said).is_ok() =>
                {
                    (page.clone(), *size)
                }
                (Said::Refused { .. }, _) => {
                    let reads = Request {
                        kind: Kind::Untranslated,
                        read: true,
                        write: false,
                        execute: false,
                        ..*request
                    };
                    let view = self.machine.memory.now();
                    match walk(view, &self.machine.capabilities, paging, &reads) {
                        Outcome::Page(page) => {
                            let size = page.size.unwrap_or(0x1000);
                            let size = page_beside_interrupts(size, request.address, page.address);
                            (page, size)
                        }
                        Outcome::Refused(..) => continue,
                    }
                }
                _ => continue,
            };
            let written = matches!(said, Said::Page { .. }) && request.write && page.write;
            self.fills.push(Fill {
                device,
                domain: paging.domain,
                pasid: paging.pasid,
                kind: FillKind::of(&paging.stages),
                base: request.address & !(size - 1),
                size,
                offset: page.address.wrapping_sub(request.address),
                read: page.read,
                write: page.write,
                execute: page.execute,
                privileged: request.privileged && request.pasid.is_some(),
                dirty: !page.tracks_dirty || written || page.dirty,
            });
        }
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
            Command::Translations => self.fills.clear(),
            Command::DomainTranslations { domain } => {
                self.fills.retain(|fill| fill.domain != domain);
            }
            Command::Pages {
                domain,
                address,
                order,
            } => self.fills.retain(|fill| {
                // 6.5.2.3: the address is one of the second stage, so all nested translations of
                // the domain go; those of the first stage alone need not.
                fill.domain != domain
                    || match fill.kind {
                        FillKind::Second => !fill.overlaps(address, order),
                        FillKind::Nested => false,
                        FillKind::First | FillKind::PassThrough => true,
                    }
            }),
            Command::PasidTranslations { domain, pasid } => self.fills.retain(|fill| {
                fill.domain != domain || fill.pasid != Some(pasid) || fill.kind == FillKind::Second
            }),
            Command::PasidPages {
                domain,
                pasid,
                address,
                order,
            } => self.fills.retain(|fill| {
                fill.domain != domain
                    || fill.pasid != Some(pasid)
                    || fill.kind == FillKind::Second
                    || !fill.overlaps(address, order)
            }),
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
