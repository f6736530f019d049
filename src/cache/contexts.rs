//! The context and PASID cache (6.2): how the requests of each device and PASID are
//! translated, with the tags of their entries in the translation cache.
//!
//! An entry that is forgotten takes its tags along, so whatever was cached under
//! them is out of reach at once. Like the translation cache this one refuses what
//! was looked up before an invalidation and comes after it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::secret::Secret;
use super::translations::Tag;
use crate::translate::tables::Translated;

/// Most entries. A guest that uses more PASIDs makes the cache begin anew.
const CAPACITY: usize = 4096;

/// Whose requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The device's handle.
    pub device: u32,
    /// PASID of the requests, if they have one.
    pub pasid: Option<u32>,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let pasid = self.pasid.map_or(0, |pasid| u64::from(pasid) | 1 << 32);
        state.write_u64(pasid ^ u64::from(self.device) << 33);
    }
}

/// How the requests of a key are translated.
#[derive(Debug)]
pub struct Context {
    /// Requester ID with which the tables were read.
    pub source_id: u16,
    /// The content of its entries.
    pub translated: Translated,
    /// Tags of user and of privileged requests.
    pub tags: [Tag; 2],
}

impl Context {
    /// The tag of requests with this privilege.
    pub fn tag(&self, privileged: bool) -> &Tag {
        let [user, supervisor] = &self.tags;
        if privileged { supervisor } else { user }
    }

    /// It is forgotten: whoever still has it caches nothing more under its tags.
    fn retire(&self) {
        self.tags.iter().for_each(Tag::retire);
    }
}

/// What a lookup that starts now must show to fill the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// Entries, and what invalidations name them by.
#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, Arc<Context>, Secret>,
    by_domain: BTreeMap<(u16, u32, Key), Arc<Context>>,
}

impl Entries {
    fn name(key: Key, context: &Context) -> (u16, u32, Key) {
        (context.translated.domain_id, context.translated.pasid, key)
    }

    fn insert(&mut self, key: Key, context: Arc<Context>) {
        self.by_domain
            .insert(Self::name(key, &context), Arc::clone(&context));
        if let Some(before) = self.by_key.insert(key, Arc::clone(&context)) {
            let name = Self::name(key, &before);
            if name != Self::name(key, &context) {
                self.by_domain.remove(&name);
            }
            before.retire();
        }
    }

    fn forget(&mut self, named: impl Fn(&Key, &Context) -> bool) {
        let by_domain = &mut self.by_domain;
        self.by_key.retain(|key, context| {
            let gone = named(key, context);
            if gone {
                by_domain.remove(&Self::name(*key, context));
                context.retire();
            }
            !gone
        });
    }
}

/// The cache.
#[derive(Debug, Default)]
pub struct ContextCache {
    entries: RwLock<Entries>,
    epoch: AtomicU64,
}

impl ContextCache {
    /// To be taken before the tables, and the register that points to them, are
    /// read.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.epoch.load(Ordering::SeqCst))
    }

    /// The entry of a key, unless too much was invalidated under its tags.
    pub fn get(&self, key: Key) -> Option<Arc<Context>> {
        let found = self.entries.read().by_key.get(&key).cloned();
        found.filter(|context| !context.tags.iter().any(Tag::is_dead))
    }

    /// Remember `context`, unless something was forgotten since `ticket`.
    pub fn fill(&self, key: Key, ticket: Ticket, context: Arc<Context>) {
        let mut entries = self.entries.write();
        // Under the lock: whoever forgets moves the epoch on before taking it.
        if self.ticket() != ticket {
            return;
        }
        if entries.by_key.len() >= CAPACITY && !entries.by_key.contains_key(&key) {
            entries.forget(|_, _| true);
        }
        entries.insert(key, context);
    }

    /// Forget the entries for which `named` holds.
    pub fn forget(&self, named: impl Fn(&Key, &Context) -> bool) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.entries.write().forget(named);
    }

    /// Forget everything.
    pub fn clear(&self) {
        self.forget(|_, _| true);
    }

    /// Run `work` on every entry, with the cache locked.
    pub fn for_each(&self, mut work: impl FnMut(&Context)) {
        for context in self.entries.read().by_key.values() {
            work(context);
        }
    }

    /// Run `work` on every entry of a domain, and of a PASID if one is given, with the cache locked.
    pub fn for_each_of(&self, domain_id: u16, pasid: Option<u32>, mut work: impl FnMut(&Context)) {
        let key = |device, pasid| Key { device, pasid };
        let first = (domain_id, pasid.unwrap_or(0), key(0, None));
        let last = (
            domain_id,
            pasid.unwrap_or(u32::MAX),
            key(u32::MAX, Some(u32::MAX)),
        );
        let entries = self.entries.read();
        for (_, context) in entries.by_domain.range(first..=last) {
            work(context);
        }
    }
}

#[cfg(test)]
mod tests;
