//! Answering DMA requests.

use super::Unit;
use super::device::Device;
use super::direct::{Found, Missed, Origin, Source};
use super::fault_log::Refused;
use super::outbox::Outbox;
use super::slots::{Cached, Slot};
use super::stats::Walks;
use crate::event::Event;
use crate::host::ioctl::Fd;
use crate::host::soft::{Dma, DmaFault, Twin, TwinRequest};
use crate::spec::fault::{FaultReason, RecordedType};
use crate::translate::tables::{Purpose, Requester};
use crate::translate::walk::Leaf;
use crate::translate::{Access, Diagnostic, Fault, Translation};
use crate::{Error, Result};

/// The address type of a request (PCIe AT, 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestKind {
    /// To be translated on its way.
    #[default]
    Untranslated,
    /// Asks for a translation to keep in the device (ATS).
    Translation,
    /// Carries an address that such an answer gave (ATS).
    Translated,
}

/// A DMA request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request {
    /// Address the device put on the bus.
    pub address: u64,
    /// PASID, 20 bits, if it has one.
    pub pasid: Option<u32>,
    /// Address type.
    pub kind: RequestKind,
    /// It reads. A translation request always asks for reading.
    pub read: bool,
    /// It writes, or a translation request asks for writing, too (NW clear).
    pub write: bool,
    /// It fetches instructions; only with PASID.
    pub execute: bool,
    /// Privileged mode; only with PASID.
    pub privileged: bool,
    /// A debugger's look: nothing is recorded, set or cached.
    pub debug: bool,
}

/// PASIDs have 20 bits.
const MAX_PASID: u32 = 0xf_ffff;

impl Request {
    /// Requests that nothing but the API could make wrong.
    fn check(&self) -> Result<()> {
        if !self.read && !self.write {
            return Err(Error::invalid("a request must read, write or do both"));
        }
        if let Some(pasid) = self.pasid.filter(|&pasid| pasid > MAX_PASID) {
            return Err(Error::invalid(format!(
                "PASID {pasid:#x} has more than 20 bits; use at most {MAX_PASID:#x}"
            )));
        }
        if self.pasid.is_none() && (self.execute || self.privileged) {
            return Err(Error::invalid(
                "execute and privileged requests have a PASID; give one, or leave them out",
            ));
        }
        Ok(())
    }

    /// DMA as it mostly is: untranslated, and of nobody in particular.
    #[inline]
    fn is_plain(&self) -> bool {
        self.kind == RequestKind::Untranslated
            && self.pasid.is_none()
            && !(self.execute || self.privileged || self.debug)
            && (self.read || self.write)
    }

    pub(super) fn access(&self) -> Access {
        Access::new()
            .with_read(self.read)
            .with_write(self.write)
            .with_execute(self.execute)
            .with_privileged(self.privileged)
            .with_look(self.debug)
    }

    /// Whose entries it goes through, and what for.
    fn requester(&self, source_id: u16) -> Requester {
        Requester {
            source_id,
            pasid: self.pasid,
            purpose: match self.kind {
                RequestKind::Untranslated => Purpose::Untranslated,
                RequestKind::Translation => Purpose::Translation,
                RequestKind::Translated => Purpose::Translated,
            },
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Where it goes, or why it was refused.
    pub result: core::result::Result<Translation, Fault>,
    /// The refusal of a translation request was not recorded: the device may ask
    /// for the page (7.3).
    pub recoverable: bool,
}

impl From<Translation> for Answer {
    #[inline(always)]
    fn from(translation: Translation) -> Self {
        Self {
            result: Ok(translation),
            recoverable: false,
        }
    }
}

/// What is known of a device without looking for it.
pub struct Known<'a>(&'a Slot, Cached);

/// What became of plain DMA.
pub enum Plain {
    /// It goes there, see [`Leaf::told_plainly`].
    Found(Leaf),
    /// The whole answer.
    Answered(Answer),
    /// More is to be looked at: [`Unit::translate_other`].
    Unknown,
}

/// A refused request, and whether the guest is to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub fault: Fault,
    pub record: bool,
}

impl Refusal {
    /// Recorded, unless FPD is set.
    pub fn of(fault: Fault, fault_disable: bool) -> Self {
        Self {
            fault,
            record: !fault_disable,
        }
    }
}

impl Unit {
    /// Where does this request of a device go? A refusal is an answer, not an
    /// error; unless it is a debugger's look it has been recorded and signalled.
    ///
    /// # Errors
    /// `ENOENT`: there is no such device. `EINVAL`: neither a read nor a write.
    pub fn translate(&self, handle: u32, request: Request) -> Result<Answer> {
        if request.is_plain() {
            let Request {
                address,
                read,
                write,
                ..
            } = request;
            let plain = match self.look(handle, address, read, write) {
                // At once, so that nothing is copied.
                Ok(translation) => return Ok(translation.into()),
                Err(Some(known)) => self.walk_plain(known, handle, address, read, write),
                Err(None) => Plain::Unknown,
            };
            match plain {
                Plain::Found(leaf) => return Ok(leaf.told_plainly().into()),
                Plain::Answered(answer) => return Ok(answer),
                Plain::Unknown => {}
            }
        }
        self.translate_other(handle, request)
    }

    /// The same for who has asked [`Self::look`], or could not.
    ///
    /// # Errors
    /// As [`Self::translate`].
    pub fn translate_other(&self, handle: u32, request: Request) -> Result<Answer> {
        request.check()?;
        let device = self.devices.read().get(handle)?;
        let source_id = device.refresh_source_id(&*self.vmm);
        let access = request.access();
        let silicon = match (&self.twin, device.host.as_ref().and_then(|it| it.file)) {
            (Some(twin), Some(file)) => Some((&**twin, file)),
            // What real silicon does is answered as the unit would do it.
            _ => None,
        };
        let result = match silicon {
            Some((twin, file)) => self.translate_on_host(twin, file, &device, &request, access),
            None => {
                let source = Source {
                    device: handle,
                    id: source_id,
                };
                self.translate_directly(source, &request, access)
            }
        };
        Ok(self.answer(&device, source_id, &request, result))
    }

    /// What the device is told, and whoever else is to know.
    fn answer(
        &self,
        device: &Device,
        source_id: u16,
        request: &Request,
        result: core::result::Result<Found, Refusal>,
    ) -> Answer {
        let mut out = Outbox::new(&*self.vmm);
        // The device may ask for what a translation request did not get, and software
        // is not to hear of it twice (7.3).
        let recoverable = request.kind == RequestKind::Translation
            && matches!(&result, Err(refusal) if refusal.fault.reason.is_recoverable());
        let result = result.map_err(|refusal| Refusal {
            record: refusal.record && !recoverable,
            ..refusal
        });
        if !request.debug {
            self.account(device, source_id, *request, &result, &mut out);
        }
        self.deliver(out);
        Answer {
            result: result
                .map(|found| told(found.translation, request))
                .map_err(|refusal| refusal.fault),
            recoverable,
        }
    }

    /// Where plain DMA goes that [`Self::look`] did not find: for an answer to what is known the device need not be looked for.
    pub fn walk_plain(
        &self,
        Known(slot, Cached { link, source_id }): Known<'_>,
        handle: u32,
        address: u64,
        read: bool,
        write: bool,
    ) -> Plain {
        let access = Access::new().with_read(read).with_write(write);
        match self.translate_missed(link, address, access) {
            Ok(leaf) => {
                slot.count_miss();
                self.trace_translation(source_id, address, leaf.address());
                Plain::Found(leaf)
            }
            Err(Missed::Forgotten) => Plain::Unknown,
            Err(Missed::Refused(refusal)) => {
                // Not with the lock held: the answer calls the VMM.
                let device = self.devices.read().get(handle);
                let request = Request {
                    address,
                    read,
                    write,
                    ..Request::default()
                };
                device.map_or(Plain::Unknown, |device| {
                    Plain::Answered(self.answer(&device, source_id, &request, Err(refusal)))
                })
            }
        }
    }

    /// Where requests of a device are cached, if it still has the requester ID it had then. None as well if the oracle
    /// is to look at all of them.
    #[inline(always)]
    fn known(&self, handle: u32) -> Option<Known<'_>> {
        if self.config.oracle {
            return None;
        }
        let (slot, cached) = self.slots.cached(handle)?;
        let is_same = slot.has_fixed_id() || {
            let source_id = self.vmm.source_id(slot.tag());
            source_id.is_none_or(|source_id| source_id == cached.source_id)
        };
        is_same.then_some(Known(slot, cached))
    }

    /// Tell of an answer. Called with no lock held: a message in the outbox would have to be allocated.
    #[inline]
    fn trace_translation(&self, source_id: u16, address: u64, target: u64) {
        self.vmm
            .event(Event::Translate, source_id.into(), address, target);
    }

    /// Where plain DMA goes whose page is cached, without a lock: untranslated, without PASID, for data, and no debugger's.
    ///
    /// # Errors
    /// It is not cached, or there is more to it. What is known then is for [`Self::walk_plain`]; if nothing is,
    /// [`Self::translate_other`] finds out.
    #[inline(always)]
    pub fn look(
        &self,
        handle: u32,
        address: u64,
        read: bool,
        write: bool,
    ) -> core::result::Result<Translation, Option<Known<'_>>> {
        let known = self.known(handle).ok_or(None)?;
        self.hit(&known, address, read, write).ok_or(Some(known))
    }

    #[inline(always)]
    fn hit(
        &self,
        Known(slot, cached): &Known<'_>,
        address: u64,
        read: bool,
        write: bool,
    ) -> Option<Translation> {
        let hit = self.cache.get_by(cached.link, address)?;
        let page = hit.permissions();
        // As `Leaf::told` and `Leaf::serves`.
        let may_write = page.write() && hit.is_dirty();
        if (read && !page.read()) || (write && !may_write) {
            return None;
        }
        slot.count_hit();
        let target = hit.address(address);
        self.trace_translation(cached.source_id, address, target);
        Some(Translation {
            address: target,
            page_size: hit.page_size(),
            permissions: page.with_write(may_write).with_execute(false),
        })
    }

    /// The request goes through what the host installed for the device.
    fn translate_on_host(
        &self,
        twin: &Twin,
        file: Fd,
        device: &Device,
        request: &Request,
        access: Access,
    ) -> core::result::Result<Found, Refusal> {
        let requester = request.requester(device.source_id());
        // Only the guest's entries know whether it may have a device TLB.
        if request.kind != RequestKind::Untranslated {
            match self.look_up_requester(requester) {
                Some(Ok(_)) => {}
                Some(Err(refused)) => return Err(Refusal::from(refused)),
                None => return Err(self.blocked(device, requester)),
            }
        }
        let asked = TwinRequest {
            address: request.address,
            pasid: request.pasid,
            access,
            kind: requester.purpose,
        };
        let Dma {
            result,
            cache_hit,
            stale,
            walks,
        } = twin.dma(file, &asked);
        if !access.look() {
            self.counters.walked(Walks {
                walks: walks.into(),
                ..Walks::default()
            });
        }
        let origin = match (stale, cache_hit) {
            (true, _) => Origin::Stale,
            (false, true) => Origin::Cache,
            (false, false) => Origin::Walk,
        };
        let result = result.map_err(|fault| match fault {
            DmaFault::Blocked => self.blocked(device, requester),
            DmaFault::Table(fault) => {
                // Without a PASID entry the guest has not asked for translation, and
                // there is no fault to tell it of.
                let translated = device
                    .binding_of(request.pasid)
                    .and_then(|binding| binding.translated);
                let record = translated.is_some_and(|translated| !translated.fault_disable);
                Refusal { fault, record }
            }
        });
        result.map(|translation| Found {
            translation,
            origin,
        })
    }

    /// Why are the requests blocked? The guest's tables say, or else the host.
    fn blocked(&self, device: &Device, requester: Requester) -> Refusal {
        let refusal = |diagnostic, fault_disable: bool| Refusal {
            fault: Fault::new(FaultReason::PasidInvalid, diagnostic),
            record: !fault_disable,
        };
        match self.look_up_requester(requester) {
            Some(Err(refused)) => Refusal::from(refused),
            Some(Ok(translated)) => {
                let binding = device.binding_of(requester.pasid);
                let why = if binding.is_some_and(|binding| binding.refused.is_some()) {
                    Diagnostic::HostRefused
                } else {
                    Diagnostic::NotAnnounced
                };
                refusal(why, translated.fault_disable)
            }
            None => refusal(Diagnostic::HostRefused, true),
        }
    }

    /// Count the request, and record what is to be recorded.
    fn account(
        &self,
        device: &Device,
        source_id: u16,
        request: Request,
        result: &core::result::Result<Found, Refusal>,
        out: &mut Outbox,
    ) {
        self.counters.translations.add(1);
        device.translations.add(1);
        let requester = u64::from(source_id);
        match result {
            Ok(found) => {
                let address = found.translation.address;
                if found.origin != Origin::Walk {
                    self.counters.cache_hits.add(1);
                    device.cache_hits.add(1);
                }
                if found.origin == Origin::Stale {
                    self.counters.stale_uses.add(1);
                    device.stale_uses.add(1);
                    out.event(Event::StaleUse, [requester, request.address, address]);
                }
                self.trace_translation(source_id, request.address, address);
            }
            Err(Refusal { fault, record }) => {
                self.counters.faults.add(1);
                device.faults.add(1);
                self.counters
                    .memory_errors
                    .add(u64::from(fault.diagnostic.is_table_access()));
                let why = u64::from(fault.reason.code()) | ((fault.diagnostic as u64) << 8);
                out.event(Event::Fault, [requester, request.address, why]);
                if *record {
                    self.record(source_id, request, fault.reason, out);
                }
            }
        }
    }

    fn record(&self, source_id: u16, request: Request, reason: FaultReason, out: &mut Outbox) {
        let refused = Refused {
            source_id,
            address: request.address,
            reason,
            kind: if request.write {
                RecordedType::Write
            } else {
                RecordedType::Read
            },
            address_type: match request.kind {
                RequestKind::Untranslated => 0,
                RequestKind::Translation => 1,
                RequestKind::Translated => 2,
            },
            pasid: request.pasid,
            execute: request.execute,
            privileged: request.privileged,
        };
        self.record_fault(&mut self.state.lock(), refused, out);
    }
}

/// The answer as the requester gets it: execution is granted to those who ask, where
/// they can read.
fn told(translation: Translation, request: &Request) -> Translation {
    Translation {
        permissions: translation.permissions.with_execute(
            translation.permissions.execute() && translation.permissions.read() && request.execute,
        ),
        ..translation
    }
}
