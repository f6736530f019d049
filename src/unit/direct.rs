//! Requests of devices without a host: the unit walks the guest's tables itself,
//! through its context and translation caches (6.2).

use std::cell::Cell;
use std::sync::Arc;

use super::Unit;
use super::slots::{Cached, Slot};
use super::stats::{Counters, Walks};
use super::translate::{Refusal, Request, RequestKind};
use super::work::steps;
use crate::cache::contexts::{Context, Key};
use crate::cache::translations::{Link, Owner, Ticket, contradicted};
use crate::memory::LockedMemory;
use crate::spec::PAGE_SIZE;
use crate::spec::descriptors::{PageRange, PasidPages, Scope, SourceMatch};
use crate::spec::fault::FaultReason;
use crate::spec::registers::RootTableAddress;
use crate::translate::packed::Path;
use crate::translate::stages::Stages;
use crate::translate::tables::{Purpose, Requester, TableFault, Translated, lookup};
use crate::translate::walk::Leaf;
use crate::translate::{
    Access, Diagnostic, Fault, Permissions, TableError, TableMemory, Translation,
    is_interrupt_address,
};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// The device's handle.
    pub device: u32,
    /// Its present requester ID.
    pub id: u16,
}

/// Why there is no leaf for plain DMA.
pub(super) enum Missed {
    /// The tables do not permit it.
    Refused(Refusal),
    /// They are not known any more.
    Forgotten,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The tables, or it needed none.
    Walk,
    /// A translation cache.
    Cache,
    /// A translation cache, and the oracle's walk contradicts it.
    Stale,
}

/// An answer.
pub(super) struct Found {
    pub translation: Translation,
    pub origin: Origin,
}

impl Found {
    fn fresh(translation: Translation) -> Self {
        Self {
            translation,
            origin: Origin::Walk,
        }
    }
}

/// Guest RAM as one walk sees it, counting what the walk does.
struct Walked<'a> {
    memory: LockedMemory<'a>,
    counters: &'a Counters,
    /// Through both stages.
    nested: bool,
    second_stage_walks: Cell<u64>,
    reads: Cell<u64>,
    updates: Cell<u64>,
}

impl<'a> Walked<'a> {
    fn new(unit: &'a Unit, stages: &Stages) -> Self {
        Self {
            memory: unit.memory.locked(),
            counters: &unit.counters,
            nested: matches!(stages, Stages::Nested(..)),
            second_stage_walks: Cell::default(),
            reads: Cell::default(),
            updates: Cell::default(),
        }
    }
}

fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get().wrapping_add(more));
}

impl TableMemory for Walked<'_> {
    fn read(&self, address: u64) -> Result<u64, TableError> {
        count(&self.reads, 1);
        self.memory.read(address)
    }

    fn compare_exchange(&self, address: u64, old: u64, new: u64) -> Result<bool, TableError> {
        let done = self.memory.compare_exchange(address, old, new)?;
        count(&self.updates, u64::from(done));
        Ok(done)
    }

    fn second_stage_walk(&self) {
        count(&self.second_stage_walks, 1);
    }
}

/// One addition for a counter, however long the walk was.
impl Drop for Walked<'_> {
    fn drop(&mut self) {
        self.counters.walked(Walks {
            walks: 1,
            nested_walks: self.nested.into(),
            second_stage_walks: self.second_stage_walks.get(),
            table_reads: self.reads.get(),
            table_updates: self.updates.get(),
        });
    }
}

/// What requests go through, and whose the translations are that are found on it.
#[derive(Clone, Copy)]
struct Route<'a> {
    owner: Option<Owner<'a>>,
    stages: &'a Stages,
    fault_disable: bool,
}

impl<'a> Route<'a> {
    fn of(context: &'a Context) -> Self {
        Self {
            owner: context.tag.owner(),
            stages: &context.translated.stages,
            fault_disable: context.translated.fault_disable,
        }
    }

    fn ticket(self) -> Ticket {
        self.owner.map_or(Ticket::NONE, Owner::ticket)
    }

    fn unchanged_since(self, ticket: Ticket) -> bool {
        self.ticket() == ticket
    }

    fn refuse(self, fault: Fault) -> Refusal {
        Refusal::of(fault, self.fault_disable)
    }
}

/// Contexts by what an invalidation names them by.
pub(super) struct Named {
    /// Domain and PASID.
    name: (u16, u32),
    contexts: Vec<Arc<Context>>,
}

/// Addresses as they are.
fn identity(address: u64, permissions: Permissions) -> Translation {
    Translation {
        address,
        page_size: PAGE_SIZE,
        permissions,
    }
}

impl Unit {
    /// Where the request goes (3.4, 4.1).
    pub(super) fn translate_directly(
        &self,
        source: Source,
        request: &Request,
        access: Access,
    ) -> Result<Found, Refusal> {
        let control = self.control.get();
        if !control.enabled {
            return translation_off(request);
        }
        // All of the request is by this control: by another one's root table it would be refused for what the guest
        // has never said.
        let root = control.root;
        if let Some(answer) = self.interrupt_address(source, root, request) {
            return answer;
        }
        match request.kind {
            RequestKind::Translated => self.translated(source, root, request),
            RequestKind::Untranslated => {
                let context = self.context(source, root, request, Purpose::Untranslated)?;
                self.through(&context, request.address, access)
            }
            RequestKind::Translation => {
                let context = self.context(source, root, request, Purpose::Translation)?;
                self.translation_request(&context, request, access)
            }
        }
    }

    /// The leaf for plain DMA, if nothing that serves it is cached under `link`.
    ///
    /// # Errors
    /// It is refused, or the context that the link is of was forgotten.
    #[inline(always)]
    pub(super) fn translate_missed(
        &self,
        link: Link,
        address: u64,
        access: Access,
    ) -> Result<Leaf, Missed> {
        if !self.control.get().enabled {
            return Ok(Leaf::new(identity(address, Permissions::ALL), true, false));
        }
        let owner = self.cache.owner(link).ok_or(Missed::Forgotten)?;
        let ticket = owner.ticket();
        let note = owner.note().ok_or(Missed::Forgotten)?;
        let path = Path::unpack(note).ok_or(Missed::Forgotten)?;
        let route = Route {
            owner: Some(owner),
            stages: &path.stages,
            fault_disable: path.fault_disable,
        };
        let leaf = match path.stages {
            Stages::PassThrough { .. } => self.as_it_is(route, address, access),
            _ => self.walk(route, ticket, address, access, &mut false),
        };
        leaf.map_err(Missed::Refused)
    }

    /// Requests to the interrupt range are no DMA (3.15): without PASID they are asked
    /// for only by a device TLB, which is told to keep nothing of it.
    fn interrupt_address(
        &self,
        source: Source,
        root: RootTableAddress,
        request: &Request,
    ) -> Option<Result<Found, Refusal>> {
        if !is_interrupt_address(request.address) {
            return None;
        }
        let purpose = match (request.kind, request.pasid) {
            (RequestKind::Untranslated, None) => return None,
            (RequestKind::Untranslated, Some(_)) => Purpose::Untranslated,
            (RequestKind::Translation, _) => Purpose::Translation,
            (RequestKind::Translated, _) => Purpose::Translated,
        };
        let context = match self.context(source, root, request, purpose) {
            Ok(context) => context,
            Err(refusal) => return Some(Err(refusal)),
        };
        if request.kind == RequestKind::Translation && request.pasid.is_none() {
            let permissions = Permissions::ALL
                .with_read(false)
                .with_execute(false)
                .with_untranslated(true);
            return Some(Ok(Found::fresh(identity(request.address, permissions))));
        }
        let mut fault = context.translated.stages.interrupt_range();
        if request.pasid.is_some() {
            fault.diagnostic = Diagnostic::PasidInterruptRange;
        }
        Some(Err(Refusal::of(fault, context.translated.fault_disable)))
    }

    /// A translated request: root and context entry must allow it, the PASID table is
    /// not read.
    fn translated(
        &self,
        source: Source,
        root: RootTableAddress,
        request: &Request,
    ) -> Result<Found, Refusal> {
        let context = self.context(source, root, request, Purpose::Translated)?;
        let found = context
            .translated
            .stages
            .translate(&*self.memory, request.address, Access::default())
            .map_err(|fault| Refusal::of(fault, context.translated.fault_disable))?;
        Ok(Found::fresh(found.translation()))
    }

    /// The decoded entries of a requester: cached, or read now.
    fn context(
        &self,
        source: Source,
        root: RootTableAddress,
        request: &Request,
        purpose: Purpose,
    ) -> Result<Arc<Context>, Refusal> {
        let key = Key {
            device: source.device,
            pasid: request.pasid,
        };
        // The whole of a context is cached, so only those that went through the PASID
        // table are kept; a debugger sees the tables as they are.
        let kept = !request.debug && purpose != Purpose::Translated;
        let cached = if kept { self.contexts.get(key) } else { None };
        let context = match cached.filter(|context| context.source_id == source.id) {
            Some(context) => {
                if request.pasid.is_none() && purpose == Purpose::Untranslated {
                    self.remember(source, &context);
                }
                context
            }
            None => {
                let requester = Requester {
                    source_id: source.id,
                    pasid: request.pasid,
                    purpose,
                };
                self.read_context(root, requester, kept.then_some(key))?
            }
        };
        let translated = &context.translated;
        translated
            .check_purpose(purpose)
            .map_err(|fault| Refusal::of(fault, translated.context_fault_disable))?;
        if purpose != Purpose::Translated {
            translated
                .check_attributes(request.execute, request.privileged)
                .map_err(|fault| Refusal::of(fault, translated.fault_disable))?;
        }
        Ok(context)
    }

    /// Later requests without PASID are to find their translations without a lock. The context is
    /// a cached one, so that its tags die with it when it is forgotten.
    fn remember(&self, source: Source, context: &Context) {
        let Some(link) = context.tag.link() else {
            return;
        };
        let cached = Cached {
            link,
            source_id: source.id,
        };
        let is_new = |slot: &Slot| slot.cached(source.device) != Some(cached);
        if self.slots.get(source.device).is_some_and(is_new) {
            // With the lock held no other device gets the slot.
            let _devices = self.devices.read();
            if let Some(slot) = self.slots.get(source.device) {
                slot.set_cached(cached);
            }
        }
    }

    fn read_context(
        &self,
        root: RootTableAddress,
        requester: Requester,
        keep: Option<Key>,
    ) -> Result<Arc<Context>, Refusal> {
        // The ticket comes first: SRTP and TE change the control before they forget. What was read by an earlier
        // control is for this request only.
        let ticket = self.contexts.ticket();
        let keep = keep.filter(|_| self.control.get().root == root);
        let mut translated =
            lookup(&*self.memory, &self.capabilities, root, requester).map_err(Refusal::from)?;
        if let (Purpose::Translated, Stages::SecondStage(second)) =
            (requester.purpose, translated.stages)
        {
            // Legacy mode: the tables are there, but the address is final.
            translated.stages = Stages::PassThrough {
                width: second.format.address_width,
                legacy: true,
            };
        }
        let note = Path::from(&translated).pack().unwrap_or_default();
        let context = Arc::new(Context {
            source_id: requester.source_id,
            translated,
            tag: self.cache.new_tag_with(note),
        });
        if let Some(key) = keep {
            self.contexts.fill(key, ticket, Arc::clone(&context));
        }
        Ok(context)
    }

    /// Through the stages of a context, or what is cached of them.
    fn through(&self, context: &Context, address: u64, access: Access) -> Result<Found, Refusal> {
        self.leaf(Route::of(context), address, access)
            .map(|(leaf, origin)| Found {
                translation: leaf.told(access.look()),
                origin,
            })
    }

    /// The leaf for an address, and where it came from. One that does not serve
    /// the access is walked for again, so permissions may grow without invalidation.
    fn leaf(
        &self,
        route: Route<'_>,
        address: u64,
        access: Access,
    ) -> Result<(Leaf, Origin), Refusal> {
        if access.look() || matches!(route.stages, Stages::PassThrough { .. }) {
            let leaf = self.as_it_is(route, address, access)?;
            return Ok((leaf, Origin::Walk));
        }
        let ticket = route.ticket();
        let cached = self.cache.get(route.owner, access.privileged(), address);
        if let Some(leaf) = cached.filter(|leaf| leaf.serves(access)) {
            let stale = self.is_stale(route, ticket, leaf, address, access);
            let origin = if stale { Origin::Stale } else { Origin::Cache };
            return Ok((leaf, origin));
        }
        let mut stale = false;
        let leaf = self.walk(route, ticket, address, access, &mut stale)?;
        let origin = if stale { Origin::Stale } else { Origin::Walk };
        Ok((leaf, origin))
    }

    /// The leaf as the tables have it now, past the caches.
    fn as_it_is(&self, route: Route<'_>, address: u64, access: Access) -> Result<Leaf, Refusal> {
        let found = route.stages.translate(&*self.memory, address, access);
        found.map_err(|fault| route.refuse(fault))
    }

    /// The oracle's judgement of what was cached, if it is asked for: wrong, and nothing was invalidated since `ticket`.
    fn is_stale(
        &self,
        route: Route<'_>,
        ticket: Ticket,
        leaf: Leaf,
        address: u64,
        access: Access,
    ) -> bool {
        let looked = |access| route.stages.translate(&*self.memory, address, access);
        self.config.oracle
            && contradicted(&leaf.translation(), access, looked)
            && route.unchanged_since(ticket)
    }

    /// Walk, from a cached table on if there is one, and cache what is found unless something was invalidated since `ticket`. Says
    /// whether that table was stale, if the oracle is to tell.
    // What is handed on would else be written in pieces and read as a whole, which has to wait.
    #[inline(always)]
    fn walk(
        &self,
        route: Route<'_>,
        ticket: Ticket,
        address: u64,
        access: Access,
        stale: &mut bool,
    ) -> Result<Leaf, Refusal> {
        let Route { owner, stages, .. } = route;
        let privileged = access.privileged();
        let memory = Walked::new(self, stages);
        let table = self.cache.table(owner, privileged, address);
        let resumed = table.and_then(|table| stages.resume(&memory, table, address, access));
        let leaf = match resumed {
            Some(leaf) => leaf,
            None => {
                let found = stages.find(&memory, address, access);
                let found = found.map_err(|fault| route.refuse(fault))?;
                if let Some(table) = found.table {
                    self.cache
                        .fill_table(owner, ticket, privileged, address, table);
                }
                found.leaf
            }
        };
        drop(memory);
        *stale = resumed.is_some_and(|leaf| self.is_stale(route, ticket, leaf, address, access));
        self.cache.fill(owner, ticket, privileged, address, leaf);
        Ok(leaf)
    }

    /// A translation request (4.2.2): what of the page is permitted, if anything is that
    /// it asks for. Writing is granted only where the dirty bit is set, and it is set
    /// for those who ask for writing.
    fn translation_request(
        &self,
        context: &Context,
        request: &Request,
        access: Access,
    ) -> Result<Found, Refusal> {
        let reading = access.with_read(true).with_write(false).with_execute(false);
        let writing = reading.with_read(false).with_write(true);
        let route = Route::of(context);
        let read = self.leaf(route, request.address, reading);
        let (mut leaf, mut origin) = match read {
            // A page that cannot be read may be one to write.
            Err(refusal) if request.write && refusal.fault.reason.is_recoverable() => self
                .leaf(route, request.address, writing)
                .map_err(|other| {
                    if other.fault.reason.is_recoverable() {
                        refusal
                    } else {
                        other
                    }
                })?,
            other => other?,
        };
        if request.write && leaf.translation().permissions.write() && !leaf.flags().dirty() {
            leaf = match self.leaf(route, request.address, writing) {
                Ok((marked, _)) => marked,
                // What was cached, be it the table alone, may be older than what refuses.
                Err(refusal) if refusal.fault.reason.is_recoverable() => {
                    match route
                        .stages
                        .translate(&*self.memory, request.address, reading)
                    {
                        Ok(fresh) if !fresh.translation().permissions.write() => {
                            origin = Origin::Walk;
                            fresh
                        }
                        Ok(_) => return Err(refusal),
                        Err(fault) => return Err(route.refuse(fault)),
                    }
                }
                Err(refusal) => return Err(refusal),
            };
        }
        Ok(Found {
            translation: leaf.told(access.look()),
            origin,
        })
    }

    /// Forget context entries (6.5.2.1). In scalable mode they have no domain ID, so
    /// a domain is everything there. Gives how many were looked at.
    pub(super) fn forget_contexts(&self, scope: Scope<SourceMatch>) -> usize {
        self.contexts.forget(|_, context| match scope {
            Scope::Global => true,
            Scope::Domain(domain_id) => {
                !context.translated.legacy || context.translated.domain_id == domain_id
            }
            Scope::Fine(_, matching) => matching.matches(context.source_id),
        })
    }

    /// Forget PASID entries (6.5.2.2). Gives how many were looked at.
    pub(super) fn forget_pasids(&self, scope: Scope<u32>) -> usize {
        self.contexts.forget(|_, context| {
            let translated = &context.translated;
            match scope {
                Scope::Global => true,
                Scope::Domain(domain_id) => translated.domain_id == domain_id,
                Scope::Fine(domain_id, pasid) => {
                    translated.domain_id == domain_id && translated.pasid == pasid
                }
            }
        })
    }

    /// Forget translations of a domain (6.5.2.3). The address is one of the second
    /// stage: where a first stage stands before it, all of the domain goes. Gives the steps
    /// this took.
    pub(super) fn forget_translations(&self, scope: Scope<PageRange>) -> u64 {
        let mut taken = 0_u64;
        let forget = |context: &Context| {
            let pages = match scope {
                Scope::Fine(_, range)
                    if matches!(context.translated.stages, Stages::SecondStage(_)) =>
                {
                    PasidPages::Range(range)
                }
                _ => PasidPages::All,
            };
            taken = taken.saturating_add(self.forget_pages(context, pages));
        };
        match scope {
            Scope::Global => self.contexts.for_each(forget),
            Scope::Domain(domain_id) | Scope::Fine(domain_id, _) => {
                self.contexts.for_each_of(domain_id, forget);
            }
        }
        taken
    }

    /// Forget translations of a PASID (6.5.2.4). Gives the steps this took.
    pub(super) fn forget_pasid_translations(&self, named: &Named, pages: PasidPages) -> u64 {
        let contexts = named.contexts.iter();
        contexts.fold(0, |taken, context| {
            taken.saturating_add(self.forget_pages(context, pages))
        })
    }

    /// The contexts that a domain and a PASID name now. It will do for everything that software had queued before: a context that
    /// comes later has cached nothing yet, and its walks find the tables as they are after what is being executed.
    pub(super) fn named<'a>(
        &self,
        domain_id: u16,
        pasid: u32,
        known: &'a mut Option<Named>,
    ) -> &'a Named {
        let name = (domain_id, pasid);
        if known.as_ref().is_none_or(|named| named.name != name) {
            *known = None;
        }
        known.get_or_insert_with(|| Named {
            name,
            contexts: self.contexts.named(domain_id, pasid),
        })
    }

    /// Forget what is cached for a page that a device asks for: the answer to a page
    /// request changes tables without an invalidation (6.5.3).
    pub(super) fn forget_requested_page(&self, device: u32, pasid: Option<u32>, address: u64) {
        if let Some(context) = self.contexts.get(Key { device, pasid }) {
            let Translated {
                domain_id, pasid, ..
            } = context.translated;
            let page = PageRange {
                address,
                address_mask: 0,
                leaf_only: false,
            };
            let named = &mut None;
            let named = self.named(domain_id, pasid, named);
            let _steps = self.forget_pasid_translations(named, PasidPages::Range(page));
        }
    }

    /// Gives the steps this took.
    fn forget_pages(&self, context: &Context, pages: PasidPages) -> u64 {
        let tag = &context.tag;
        let mut one_by_one = 0;
        match pages {
            PasidPages::All => self.cache.invalidate_all(tag),
            PasidPages::Range(range) => match range.bounds() {
                Some((first, pages)) => {
                    one_by_one = self
                        .cache
                        .invalidate_range(tag, first, pages, range.leaf_only);
                }
                None => self.cache.invalidate_all(tag),
            },
        }
        steps::ENTRY.saturating_add(steps::ENTRY.saturating_mul(one_by_one))
    }
}

/// With translation off requests pass as they are, and device TLBs get nothing.
fn translation_off(request: &Request) -> Result<Found, Refusal> {
    if request.kind == RequestKind::Translation {
        let fault = Fault::new(
            FaultReason::LegacyRequestBlocked,
            Diagnostic::TranslationOff,
        );
        return Err(Refusal {
            fault,
            record: false,
        });
    }
    Ok(Found::fresh(identity(request.address, Permissions::ALL)))
}

impl From<TableFault> for Refusal {
    fn from(refused: TableFault) -> Self {
        Self::of(refused.fault, refused.fault_disable)
    }
}
