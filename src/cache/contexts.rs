//! The context and PASID cache (6.2): how the requests of each device and PASID are
//! translated, with the tag of their entries in the translation cache.
//!
//! An entry that is forgotten takes its tag along, so whatever was cached under
//! it is out of reach at once. Like the translation cache this one refuses what
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
    /// Whose its translations are in the cache. It is retired when the context is forgotten, so that whoever still has that caches
    /// nothing more.
    pub tag: Tag,
}

/// What a lookup that starts now must show to fill the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// The contexts of a domain, by PASID.
type Domain = HashMap<u32, BTreeMap<Key, Arc<Context>>, Secret>;

/// Entries, and what invalidations name them by.
#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, Arc<Context>, Secret>,
    by_domain: HashMap<u16, Domain, Secret>,
}

impl Entries {
    fn insert(&mut self, key: Key, context: Arc<Context>) {
        if let Some(before) = self.by_key.insert(key, Arc::clone(&context)) {
            take_name(&mut self.by_domain, key, &before);
        }
        let Translated {
            domain_id, pasid, ..
        } = context.translated;
        let domain = self.by_domain.entry(domain_id).or_default();
        domain.entry(pasid).or_default().insert(key, context);
    }

    fn forget(&mut self, named: impl Fn(&Key, &Context) -> bool) {
        let by_domain = &mut self.by_domain;
        self.by_key.retain(|key, context| {
            let gone = named(key, context);
            if gone {
                take_name(by_domain, *key, context);
            }
            !gone
        });
    }

    fn clear(&mut self) {
        self.by_key
            .values()
            .for_each(|context| context.tag.retire());
        self.by_key.clear();
        self.by_domain.clear();
    }
}

/// No invalidation names this context any more: it is forgotten.
fn take_name(by_domain: &mut HashMap<u16, Domain, Secret>, key: Key, context: &Context) {
    context.tag.retire();
    let Translated {
        domain_id, pasid, ..
    } = context.translated;
    let Some(domain) = by_domain.get_mut(&domain_id) else {
        return;
    };
    if let Some(named) = domain.get_mut(&pasid) {
        named.remove(&key);
        if named.is_empty() {
            domain.remove(&pasid);
        }
    }
    if domain.is_empty() {
        by_domain.remove(&domain_id);
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
        found.filter(|context| !context.tag.is_dead())
    }

    /// Remember `context`, unless something was forgotten since `ticket`.
    pub fn fill(&self, key: Key, ticket: Ticket, context: Arc<Context>) {
        let mut entries = self.entries.write();
        // Under the lock: whoever forgets moves the epoch on before taking it.
        if self.ticket() != ticket {
            return;
        }
        if entries.by_key.len() >= CAPACITY && !entries.by_key.contains_key(&key) {
            entries.clear();
        }
        entries.insert(key, context);
    }

    /// Forget the entries for which `named` holds. Gives how many were looked at.
    pub fn forget(&self, named: impl Fn(&Key, &Context) -> bool) -> usize {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut entries = self.entries.write();
        let looked_at = entries.by_key.len();
        entries.forget(named);
        looked_at
    }

    /// Forget everything.
    pub fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.entries.write().clear();
    }

    /// Run `work` on every entry, with the cache locked.
    pub fn for_each(&self, mut work: impl FnMut(&Context)) {
        for context in self.entries.read().by_key.values() {
            work(context);
        }
    }

    /// The entries of a domain and a PASID.
    pub fn named(&self, domain_id: u16, pasid: u32) -> Vec<Arc<Context>> {
        let entries = self.entries.read();
        let domain = entries.by_domain.get(&domain_id);
        let named = domain.and_then(|domain| domain.get(&pasid));
        named.map_or_else(Vec::new, |named| named.values().cloned().collect())
    }

    /// Run `work` on every entry of a domain, with the cache locked.
    pub fn for_each_of(&self, domain_id: u16, mut work: impl FnMut(&Context)) {
        let entries = self.entries.read();
        let domains = entries.by_domain.get(&domain_id).into_iter();
        let contexts = domains.flat_map(HashMap::values).flat_map(BTreeMap::values);
        contexts.for_each(|context| work(context));
    }
}

#[cfg(test)]
mod tests;
