//! The context and PASID cache (6.2): how the requests of each device and PASID are
//! translated, with the tags of their entries in the translation cache.
//!
//! An entry that is forgotten takes its tags along, so whatever was cached under
//! them is out of reach at once. Like the translation cache this one refuses what
//! was looked up before an invalidation and comes after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::translations::Tag;
use crate::translate::tables::Translated;

/// Most entries. A guest that uses more PASIDs makes the cache begin anew.
const CAPACITY: usize = 4096;

/// Whose requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The device's handle.
    pub device: u32,
    /// PASID of the requests, if they have one.
    pub pasid: Option<u32>,
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
}

/// What a lookup that starts now must show to fill the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// The cache.
#[derive(Debug, Default)]
pub struct ContextCache {
    entries: RwLock<HashMap<Key, Arc<Context>>>,
    epoch: AtomicU64,
}

impl ContextCache {
    /// To be taken before the tables, and the register that points to them, are
    /// read.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.epoch.load(Ordering::SeqCst))
    }

    /// The entry of a key.
    pub fn get(&self, key: Key) -> Option<Arc<Context>> {
        self.entries.read().get(&key).cloned()
    }

    /// Remember `context`, unless something was forgotten since `ticket`.
    pub fn fill(&self, key: Key, ticket: Ticket, context: Arc<Context>) {
        let mut entries = self.entries.write();
        // Under the lock: whoever forgets moves the epoch on before taking it.
        if self.ticket() != ticket {
            return;
        }
        if entries.len() >= CAPACITY && !entries.contains_key(&key) {
            entries.clear();
        }
        entries.insert(key, context);
    }

    /// Forget the entries for which `named` holds.
    pub fn forget(&self, named: impl Fn(&Key, &Context) -> bool) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.entries
            .write()
            .retain(|key, context| !named(key, context));
    }

    /// Forget everything.
    pub fn clear(&self) {
        self.forget(|_, _| true);
    }

    /// Run `work` on every entry, with the cache locked.
    pub fn for_each(&self, mut work: impl FnMut(&Context)) {
        for context in self.entries.read().values() {
            work(context);
        }
    }
}

#[cfg(test)]
mod tests;
