//! Answering DMA requests.

use super::Unit;
use super::device::Device;
use super::fault_log::Refused;
use super::outbox::Outbox;
use crate::event::Event;
use crate::host::HostDevice;
use crate::host::soft::hardware::{Dma, DmaFault};
use crate::spec::fault::{FaultReason, RecordedType};
use crate::spec::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST, PAGE_SIZE};
use crate::translate::tables::{Stages, TableFault};
use crate::translate::walk::walk;
use crate::translate::{Access, Diagnostic, Fault, Permissions, Translation};
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

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Where it goes, or why it was refused.
    pub result: core::result::Result<Translation, Fault>,
    /// The refusal of a translation request was not recorded: the device may ask
    /// for the page (7.3).
    pub recoverable: bool,
}

/// A refused request, and whether the guest is to know.
struct Refusal {
    fault: Fault,
    record: bool,
}

impl Unit {
    /// Where does this request of a device go? A refusal is an answer, not an
    /// error; unless it is a debugger's look it has been recorded and signalled.
    ///
    /// # Errors
    /// `ENOENT`: there is no such device. `EINVAL`: neither a read nor a write.
    pub fn translate(&self, handle: u32, request: Request) -> Result<Answer> {
        if !request.read && !request.write {
            return Err(Error::invalid("a request must read, write or do both"));
        }
        let device = self.devices.read().get(handle)?;
        let source_id = device.refresh_source_id(&*self.vmm);
        let access = Access {
            write: request.write,
            execute: request.execute,
            privileged: request.privileged,
            look: request.debug,
        };
        let mut out = Outbox::new(&*self.vmm);
        let result = match device.host {
            Some(bound) => {
                self.translate_on_host(&device, bound, source_id, request.address, access, &mut out)
            }
            None => self.translate_directly(source_id, request.address, access),
        };
        if !request.debug {
            self.account(&device, source_id, request, &result, &mut out);
        }
        self.deliver(out);
        Ok(Answer {
            result: result
                .map(|translation| told(translation, &request))
                .map_err(|refusal| refusal.fault),
            recoverable: false,
        })
    }

    /// The request goes through what the host installed for the device.
    fn translate_on_host(
        &self,
        device: &Device,
        bound: HostDevice,
        source_id: u16,
        address: u64,
        access: Access,
        out: &mut Outbox,
    ) -> core::result::Result<Translation, Refusal> {
        let Some(hardware) = &self.hardware else {
            return Err(self.blocked(device, source_id));
        };
        let Dma {
            result,
            cache_hit,
            stale,
            walks,
        } = hardware.dma(bound, address, access);
        if !access.look {
            self.counters.walks.add(u64::from(walks));
        }
        if cache_hit {
            self.counters.cache_hits.add(1);
            device.cache_hits.add(1);
        }
        if stale {
            self.counters.stale_uses.add(1);
            device.stale_uses.add(1);
            let used = result.map_or(0, |translation| translation.address);
            out.event(Event::StaleUse, [u64::from(source_id), address, used]);
        }
        result.map_err(|fault| match fault {
            DmaFault::Blocked => self.blocked(device, source_id),
            DmaFault::Table(fault) => {
                // Without a PASID entry the guest has not asked for translation, and
                // there is no fault to tell it of.
                let translated = device.binding.lock().translated;
                let record = translated.is_some_and(|translated| !translated.fault_disable);
                Refusal { fault, record }
            }
        })
    }

    /// Why is the device blocked? The guest's tables say, or else the host.
    fn blocked(&self, device: &Device, source_id: u16) -> Refusal {
        let refusal = |diagnostic, fault_disable: bool| Refusal {
            fault: Fault::new(FaultReason::PasidInvalid, diagnostic),
            record: !fault_disable,
        };
        match self.look_up(source_id) {
            Some(Err(TableFault {
                fault,
                fault_disable,
            })) => Refusal {
                fault,
                record: !fault_disable,
            },
            Some(Ok(translated)) => {
                let refused = device.binding.lock().errno.is_some();
                let why = if refused {
                    Diagnostic::HostRefused
                } else {
                    Diagnostic::NotAnnounced
                };
                refusal(why, translated.fault_disable)
            }
            None => refusal(Diagnostic::HostRefused, true),
        }
    }

    /// The unit walks the guest's tables itself.
    fn translate_directly(
        &self,
        source_id: u16,
        address: u64,
        access: Access,
    ) -> core::result::Result<Translation, Refusal> {
        let translated = match self.look_up(source_id) {
            None => return Ok(identity(address)),
            Some(Ok(translated)) => translated,
            Some(Err(TableFault {
                fault,
                fault_disable,
            })) => {
                return Err(Refusal {
                    fault,
                    record: !fault_disable,
                });
            }
        };
        let refuse = |fault| Refusal {
            fault,
            record: !translated.fault_disable,
        };
        let translation = match translated.stages {
            Stages::PassThrough => {
                if address
                    .checked_shr(self.capabilities.address_width)
                    .unwrap_or(0)
                    != 0
                {
                    let fault = Fault::new(FaultReason::BeyondWidth, Diagnostic::BeyondWidth);
                    return Err(refuse(fault));
                }
                identity(address)
            }
            Stages::FirstStage { table, format } => {
                if !access.look {
                    self.counters.walks.add(1);
                }
                walk(&*self.memory, &format, table, address, access)
                    .map_err(refuse)?
                    .translation
            }
        };
        if (INTERRUPT_RANGE_FIRST..=INTERRUPT_RANGE_LAST).contains(&translation.address) {
            let fault = Fault::new(FaultReason::InterruptRange, Diagnostic::InterruptRange);
            return Err(refuse(fault));
        }
        Ok(translation)
    }

    /// Count the request, and record what is to be recorded.
    fn account(
        &self,
        device: &Device,
        source_id: u16,
        request: Request,
        result: &core::result::Result<Translation, Refusal>,
        out: &mut Outbox,
    ) {
        self.counters.translations.add(1);
        device.translations.add(1);
        let requester = u64::from(source_id);
        match result {
            Ok(translation) => {
                out.event(
                    Event::Translate,
                    [requester, request.address, translation.address],
                );
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
            pasid: request.pasid,
            execute: request.execute,
            privileged: request.privileged,
        };
        self.record_fault(refused, out);
    }

    /// Record a refused request.
    pub(super) fn record_fault(&self, refused: Refused, out: &mut Outbox) {
        if !self.state.lock().registers.faults.record(refused, out) {
            self.counters.fault_overflows.add(1);
        }
    }
}

/// The answer as the requester gets it: execution is granted to those who ask.
fn told(translation: Translation, request: &Request) -> Translation {
    Translation {
        permissions: Permissions {
            execute: translation.permissions.execute && request.execute,
            ..translation.permissions
        },
        ..translation
    }
}

/// No translation.
fn identity(address: u64) -> Translation {
    Translation {
        address,
        page_size: PAGE_SIZE,
        permissions: Permissions::ALL,
    }
}
