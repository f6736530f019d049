//! The remapping unit: the machine that the guest programs.
//!
//! [`Unit`] owns all architectural state behind one lock and is driven from
//! outside only: register accesses ([`mmio`](Unit::mmio_write)) execute commands
//! and drain the invalidation queue, [`Unit::translate`] answers DMA. Whatever is
//! to be told to the VMM is collected in an outbox and delivered after the lock is
//! released.

mod assigned;
mod batch;
mod binding;
mod by_pasid;
mod compat;
mod config;
mod control;
mod device;
mod direct;
mod dump;
mod fault_log;
mod host_faults;
mod interrupts;
mod mappings;
mod notify;
mod outbox;
mod page_requests;
mod pasids;
mod queue;
mod ram;
mod registers;
mod regmap;
mod signal;
mod slots;
mod snapshot;
mod stats;
mod translate;
mod unsettled;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::cache::contexts::ContextCache;
use crate::cache::translations::TranslationCache;
use crate::event::Event;
use crate::host::ioctl::{Linux, System};
use crate::host::soft::{Injection, Twin};
use crate::host::uapi::request;
use crate::host::{Host, Offer};
use crate::interrupt;
use crate::interrupt::cache::EntryCache;
use crate::memory::GuestMemory;
use crate::spec::registers::offset;
use crate::translate::tables::Capabilities;
use crate::vmm::Vmm;
use crate::{Error, Result};

use binding::Index;
use control::Control;
use device::Devices;
use outbox::{Failures, LogBudget, Outbox};
use registers::Registers;
use slots::{Slot, Slots};
use stats::Counters;
use unsettled::Unsettled;
use work::Work;

pub use binding::BindingState;
pub use config::{Config, Features, HostKind, Inject};
pub use device::{DeviceDescription, DeviceInfo, Notify};
pub use dump::Dump;
pub use page_requests::PageRequest;
pub use stats::{DESCRIPTOR_TYPES, Stats};
pub use translate::{Answer, Known, Plain, Request, RequestKind};

/// Bytes in the register window.
pub const MMIO_SIZE: u64 = 0x1000;

/// A remapping unit. Every method may be called from any thread.
pub struct Unit {
    config: Config,
    capabilities: Capabilities,
    vmm: Arc<dyn Vmm>,
    memory: Arc<GuestMemory>,
    host: Option<Host>,
    /// The host's silicon, when it is ours to play: where assigned devices' DMA
    /// goes.
    twin: Option<Arc<Twin>>,
    devices: RwLock<Devices>,
    /// What requests that hit need of them; changed under the devices' lock.
    slots: Slots,
    /// What translation needs of the registers; changed under the state's lock.
    control: control::Shared,
    /// What interrupt remapping needs of the registers; written under the state's
    /// lock.
    interrupts: RwLock<interrupt::Control>,
    interrupt_entries: EntryCache,
    /// Context and PASID entries of devices without a host.
    contexts: ContextCache,
    /// Translations of devices without a host.
    cache: TranslationCache,
    state: Mutex<State>,
    /// Numbers of the host's spaces whose fault queue the VMM watches.
    watched: Mutex<BTreeSet<u64>>,
    counters: Counters,
    log_budget: LogBudget,
}

/// Registers and what the guest's commands have made of them.
struct State {
    registers: Registers,
    /// What assigned devices go through, by the names that invalidations use.
    index: Index,
    /// Requests that could be neither attached nor blocked.
    unsettled: Unsettled,
    /// Somebody executes the queue, and may have let go of the lock to tell the VMM.
    draining: bool,
    /// So many calls are telling the VMM what a register access ordered.
    telling: usize,
    /// So many answers of the unit to page requests are on their way to the VMM.
    answering: usize,
    /// What the call that has the queue may still do.
    work: Work,
}

impl Unit {
    /// A unit in its power-on state.
    ///
    /// # Errors
    /// `EINVAL`: values of `config` are not supported or do not go together.
    pub fn new(config: Config, vmm: Arc<dyn Vmm>) -> Result<Self> {
        let twin = match config.host {
            HostKind::Soft => Some(Arc::new(Twin::new(config.twin()?))),
            HostKind::None | HostKind::Iommufd => None,
        };
        let system: Option<Arc<dyn System>> = match (config.host, &twin) {
            (HostKind::None, _) => None,
            (_, Some(twin)) => Some(Arc::clone(twin) as _),
            (_, None) => Some(Arc::new(Linux)),
        };
        Self::assemble(config, vmm, system, twin)
    }

    /// A unit whose host is reached through `system`, for [`HostKind::Iommufd`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_system(config: Config, vmm: Arc<dyn Vmm>, system: Arc<dyn System>) -> Result<Self> {
        Self::assemble(config, vmm, Some(system), None)
    }

    fn assemble(
        config: Config,
        vmm: Arc<dyn Vmm>,
        system: Option<Arc<dyn System>>,
        twin: Option<Arc<Twin>>,
    ) -> Result<Self> {
        let memory = Arc::new(GuestMemory::default());
        let offer = Offer {
            pasid_bits: config.pasid_bits,
            page_requests: config.features.page_request(),
        };
        if config.inject.refuse_alloc {
            if let Some(twin) = &twin {
                // The first one is the nesting parent.
                twin.inject(Injection {
                    skip: 1,
                    request: Some(request::HWPT_ALLOC),
                    errno: libc::ENOMEM,
                    times: u64::MAX,
                    ..Injection::default()
                });
            }
        }
        let host = system.map(|system| Host::new(system, Arc::clone(&memory), offer));
        Ok(Self {
            config,
            capabilities: config.capabilities()?,
            vmm,
            memory,
            host,
            twin,
            devices: RwLock::default(),
            slots: Slots::default(),
            control: control::Shared::default(),
            interrupts: RwLock::default(),
            interrupt_entries: EntryCache::default(),
            contexts: ContextCache::default(),
            cache: TranslationCache::default(),
            state: Mutex::new(State {
                registers: Registers::default(),
                index: Index::default(),
                unsettled: Unsettled::default(),
                draining: false,
                telling: 0,
                answering: 0,
                work: Work::default(),
            }),
            watched: Mutex::default(),
            counters: Counters::default(),
            log_budget: LogBudget::new(),
        })
    }

    /// Run `work` on the locked state, then tell the VMM what came up.
    fn with_state<T>(&self, work: impl FnOnce(&mut State, &mut Outbox) -> T) -> T {
        let mut out = Outbox::new(&*self.vmm);
        let (result, telling) = {
            let state = &mut self.state.lock();
            let result = work(state, &mut out);
            let telling = usize::from(out.has_orders());
            state.telling = state.telling.saturating_add(telling);
            (result, telling)
        };
        let failures = self.deliver(out);
        if telling > 0 {
            let mut out = Outbox::new(&*self.vmm);
            {
                let state = &mut self.state.lock();
                state.telling = state.telling.saturating_sub(telling);
                self.record_failures(state, failures, &mut out);
            }
            self.deliver(out);
        }
        result
    }

    /// Guests may renumber buses; commands name devices by their present numbers.
    fn refresh_source_ids(&self) {
        let devices = self.devices.read().named();
        for device in devices.iter() {
            device.refresh_source_id(&*self.vmm);
        }
    }

    /// The present requester ID of a device. Called with no lock held.
    fn source_id_of(&self, handle: u32) -> Result<u16> {
        let device = self.devices.read().get(handle)?;
        Ok(device.refresh_source_id(&*self.vmm))
    }

    fn deliver(&self, out: Outbox) -> Failures {
        let (msis, failures) = out.deliver(&*self.vmm);
        self.counters.msis.add(msis);
        failures
    }

    /// Registers, caches and counters as after power-on. Devices and RAM stay;
    /// assigned devices are on the host's parent again.
    pub fn reset(&self) {
        self.refresh_source_ids();
        self.with_state(|state, out| {
            out.event(Event::Reset, [0; 3]);
            state.registers = Registers::default();
            self.control.set(Control::default());
            self.reset_interrupts(out);
            self.contexts.clear();
            self.tell_everything(state, out);
            self.sync_all(state, out);
        });
        self.devices.read().clear_counters();
        self.slots.all().for_each(Slot::clear_answers);
        self.counters.clear();
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let counted = self.counters.read();
        let answers = self.slots.answers();
        Stats {
            translations: counted.translations.wrapping_add(answers.all()),
            cache_hits: counted.cache_hits.wrapping_add(answers.hits),
            ..counted
        }
    }

    /// Read `size` bytes at `offset` of the register window.
    ///
    /// # Errors
    /// `EINVAL`: the VMM asks for a size or place that is no register access.
    pub fn mmio_read(&self, offset: u64, size: u32) -> Result<u64> {
        check_window(offset, size)?;
        let value = self.with_state(|state, out| self.read_window(state, offset, size, out));
        if matches!(offset, offset::IQH | offset::FSTS) {
            self.run_queue();
        }
        Ok(value)
    }

    /// Write `size` bytes at `offset` of the register window, and do what the guest
    /// commands with it.
    ///
    /// # Errors
    /// As [`Self::mmio_read`].
    pub fn mmio_write(&self, offset: u64, size: u32, value: u64) -> Result<()> {
        check_window(offset, size)?;
        self.refresh_source_ids();
        self.with_state(|state, out| self.write_window(state, offset, size, value, out));
        self.run_queue();
        Ok(())
    }

    /// Go on with the queue, of which an earlier call has left a part.
    pub fn work(&self) {
        self.refresh_source_ids();
        self.run_queue();
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn check_window(offset: u64, size: u32) -> Result<()> {
    if !matches!(size, 1 | 2 | 4 | 8) {
        return Err(Error::invalid(format!(
            "access size {size} is not 1, 2, 4 or 8"
        )));
    }
    match offset.checked_add(u64::from(size)) {
        Some(end) if end <= MMIO_SIZE => Ok(()),
        _ => Err(Error::invalid(format!(
            "offset {offset:#x} with size {size} is beyond the register window of {MMIO_SIZE:#x} \
             bytes"
        ))),
    }
}

#[cfg(test)]
mod tests;
