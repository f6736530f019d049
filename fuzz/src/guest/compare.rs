//! Requests to unit and model, and what is known of RAM after them.
//!
//! The model is that of `tests/model`: it reads RAM as it is. What the unit answers is that while nothing that
//! is cached is older ([`Run::clean`]), and for a debugger, for whom nothing is cached.

use nested_vtd::host::soft::{Dma, DmaFault, TwinRequest};
use nested_vtd::interrupt::Request as Interrupt;
use nested_vtd::translate::Access;
use nested_vtd::translate::tables::Purpose;
use nested_vtd::unit::{HostKind, PageRequest, RequestKind};

use super::run::{CFI, GSTS, IRE, Run};
use crate::compare::{agrees, translated};
use crate::machine::Said;
use crate::reference::interrupt::{Control, Delivered, remap};
use crate::reference::lookup::{self, Stages, table_mode};
use crate::reference::walk::{in_interrupt_range, walk};
use crate::reference::{Kind, Memory, Outcome, Paging, Refusal, Request, Update, bit, field};

/// What the model says.
struct Expected {
    paging: Option<Paging>,
    outcome: Outcome,
}

impl Expected {
    fn refused(refusal: Refusal) -> Self {
        Self {
            paging: None,
            outcome: Outcome::Refused(refusal, Vec::new()),
        }
    }

    fn updates(&self) -> &[Update] {
        match &self.outcome {
            Outcome::Page(page) => &page.updates,
            Outcome::Refused(_, updates) => updates,
        }
    }
}

impl Run {
    /// RAM as the model has it.
    fn mirror(&mut self) -> &mut Memory {
        let machine = &self.machine;
        self.mirror.get_or_insert_with(|| machine.memory())
    }

    /// RAM is what it was, but for what was seen to change.
    pub fn check_memory(&self) {
        if let Some(memory) = &self.mirror {
            let differences = self.machine.differences(memory);
            assert!(
                differences.is_empty(),
                "RAM was changed (address, found, expected): {differences:x?}"
            );
        }
    }

    /// What the tables say now.
    fn expected(&mut self, slot: usize, request: &Request) -> Expected {
        let (capabilities, root) = (self.machine.capabilities, self.root);
        let source_id = self.machine.source_id(slot);
        let view = self.mirror().now();
        // 7.1.3: RTA.2 comes before anything is read.
        if table_mode(root) == 0 && request.pasid.is_some() {
            return Expected::refused(Refusal::new(0x31, false));
        }
        let found = lookup::context(view, &capabilities, root, source_id).and_then(|context| {
            let pasid = lookup::admit(&context, request)?;
            let paging = match pasid {
                None if request.kind == Kind::Translated => {
                    let width = capabilities.host_width;
                    let outcome = translated(&context, request, width).outcome;
                    return Ok(Expected {
                        paging: None,
                        outcome,
                    });
                }
                None => lookup::legacy_paging(&context, &capabilities)
                    .expect("only legacy mode has no PASID"),
                Some(pasid) => lookup::pasid_entry(view, &capabilities, &context, pasid)?,
            };
            lookup::admit_pasid(&paging, request)?;
            let outcome = walk(view, &capabilities, &paging, request);
            Ok(Expected {
                paging: Some(paging),
                outcome,
            })
        });
        found.unwrap_or_else(Expected::refused)
    }

    /// What the unit says, if there is such a device.
    fn said(&self, slot: usize, request: &Request, debug: bool) -> Option<Said> {
        let handle = self.machine.slots[slot].handle?;
        let asked = nested_vtd::unit::Request {
            address: request.address,
            pasid: request.pasid,
            kind: match request.kind {
                Kind::Untranslated => RequestKind::Untranslated,
                Kind::Translation => RequestKind::Translation,
                Kind::Translated => RequestKind::Translated,
            },
            read: request.read,
            write: request.write,
            execute: request.execute,
            privileged: request.privileged,
            debug,
        };
        let answer = self.machine.unit().translate(handle, asked).unwrap();
        Some(match answer.result {
            Ok(to) => Said::Page {
                address: to.address,
                size: to.page_size,
                read: to.permissions.read(),
                write: to.permissions.write(),
                execute: to.permissions.execute(),
                untranslated: to.permissions.untranslated(),
            },
            Err(fault) => Said::Refused {
                code: fault.reason.code(),
                recoverable: answer.recoverable,
            },
        })
    }

    /// A request of a device.
    pub fn ask(&mut self, slot: usize, request: Request) {
        if self.machine.slots[slot].handle.is_none() {
            return;
        }
        // Interrupts are not DMA: no VMM asks where one goes.
        let is_interrupt = request.kind == Kind::Untranslated
            && request.pasid.is_none()
            && in_interrupt_range(request.address);
        // On the software host its hardware answers.
        if self.machine.config.host == HostKind::Soft && self.machine.is_assigned(slot) {
            self.ask_software_host(slot, request, is_interrupt);
            return;
        }
        if is_interrupt || !self.clean {
            self.mirror = None;
            let _said = self.said(slot, &request, false);
            return;
        }
        if !self.is_translating() {
            let said = self.said(slot, &request, false).expect("it is there");
            let right = match said {
                Said::Page { address, .. } => {
                    request.kind != Kind::Translation && address == request.address
                }
                Said::Refused { recoverable, .. } => {
                    request.kind == Kind::Translation && !recoverable
                }
            };
            assert!(right, "translation is off: {said:x?} for {request:x?}");
            return;
        }
        let expected = self.expected(slot, &request);
        let stale = self.machine.vmm.told().stale;
        let said = self.said(slot, &request, false).expect("it is there");
        if let Err(why) = agrees(&expected.outcome, &request, &said) {
            panic!(
                "{why}: the unit says {said:x?} to {request:x?} of device {slot}, the model {:x?} by {:x?}",
                expected.outcome, expected.paging
            );
        }
        assert_eq!(
            self.machine.vmm.told().stale,
            stale,
            "a stale use by {request:x?} of device {slot}"
        );
        self.marked(&expected);
    }

    /// Accessed and dirty bits may have been set, no others.
    fn marked(&mut self, expected: &Expected) {
        let mut updates: Vec<(u64, u64)> = Vec::new();
        for update in expected.updates() {
            match updates.iter_mut().find(|(at, _)| *at == update.address) {
                Some((_, bits)) => *bits |= update.bits,
                None => updates.push((update.address, update.bits)),
            }
        }
        for (address, bits) in updates {
            let found = self.machine.peek(address).expect("the model has read it");
            let memory = self.mirror.as_mut().expect("the model has read it");
            let before = memory.read(address).unwrap_or(0);
            assert!(
                found == before || (found & !bits == before & !bits && found & before == before),
                "{address:#x} was {before:#x} and is {found:#x}, to be set is {bits:#x}"
            );
            memory.write(address, found);
            // Outside of the world's tables the entry may be one of another kind as well.
            self.clean &= self.pristine || found == before;
            self.interrupts_clean &= self.pristine || found == before;
        }
    }

    /// A debugger's look: at the tables as they are, whatever is cached; and nothing changes.
    pub fn debug(&mut self, slot: usize, request: Request) {
        let is_silicon =
            self.machine.config.host == HostKind::Soft && self.machine.is_assigned(slot);
        let is_interrupt = request.kind == Kind::Untranslated
            && request.pasid.is_none()
            && in_interrupt_range(request.address);
        if self.machine.slots[slot].handle.is_none() {
            return;
        }
        self.mirror = None;
        let expected = self.expected(slot, &request);
        let before = self.machine.unit().stats();
        let said = self.said(slot, &request, true).expect("it is there");
        assert_eq!(self.machine.unit().stats(), before, "a look is counted");
        self.check_memory();
        if is_silicon || is_interrupt || !self.is_translating() {
            return;
        }
        let agree = match (&expected.outcome, said) {
            // A look sets no bits, so it cannot say that they cannot be set.
            (Outcome::Refused(refusal, _), Said::Refused { code, .. }) => {
                refusal.codes.contains(&code)
            }
            (Outcome::Refused(refusal, updates), Said::Page { .. }) => {
                let denied: Vec<u8> = updates.iter().filter_map(|update| update.denied).collect();
                refusal.codes.iter().all(|code| denied.contains(code))
            }
            (Outcome::Page(page), Said::Page { address, .. }) => page.address == address,
            _ => false,
        };
        assert!(
            agree,
            "a look: the unit says {said:x?} to {request:x?}, the model {:x?} by {:x?}",
            expected.outcome, expected.paging
        );
    }

    /// What a device of the host gets to by its hardware: None if it is refused, no answer if hardware may differ
    /// from what the unit would do by itself.
    fn on_host(&mut self, slot: usize, request: &Request) -> Option<Option<u64>> {
        // PASID 0 is that of requests without; the interrupt range is no RAM.
        let comparable = request.kind == Kind::Untranslated
            && request.pasid != Some(0)
            && !in_interrupt_range(request.address);
        if !comparable {
            return None;
        }
        if !self.is_translating() {
            let to = self.machine.is_mapped(request.address);
            return Some((to && request.pasid.is_none()).then_some(request.address));
        }
        let expected = self.expected(slot, request);
        if let Some(Paging {
            stages: Stages::First(first),
            ..
        }) = &expected.paging
        {
            // A host's walks always snoop. And it does not see tables in RAM that it does not map.
            if !first.snooped || !self.pristine && self.machine.has_hidden_ram() {
                return None;
            }
        }
        match &expected.outcome {
            // A host cannot be told that there are no pages of 1 GiB (docs/architecture.md).
            Outcome::Refused(refusal, _)
                if !self.machine.capabilities.first_stage_1g() && refusal.codes.contains(&0x72) =>
            {
                None
            }
            Outcome::Refused(..) => Some(None),
            Outcome::Page(page) => {
                let there = self.machine.is_mapped(page.address);
                // The way there is through tables that may not be mapped either.
                let hidden = request.address >> 21 == 2;
                if hidden && self.setup.read_only {
                    return None;
                }
                Some(there.then_some(page.address))
            }
        }
    }

    /// The twin's hardware is asked.
    pub fn ask_silicon(&mut self, slot: usize, request: Request) {
        let (Some(twin), Some(file)) = (&self.machine.twin, self.machine.slots[slot].file) else {
            return;
        };
        let twin = std::sync::Arc::clone(twin);
        let asked = TwinRequest {
            address: request.address,
            pasid: request.pasid,
            access: Access::new()
                .with_read(request.read)
                .with_write(request.write)
                .with_execute(request.execute)
                .with_privileged(request.privileged),
            kind: match request.kind {
                Kind::Untranslated => Purpose::Untranslated,
                Kind::Translation => Purpose::Translation,
                Kind::Translated => Purpose::Translated,
            },
        };
        if !self.clean {
            self.mirror = None;
            let _dma = twin.dma(file, &asked);
            return;
        }
        let expected = self.on_host(slot, &request);
        let marks = self.expected(slot, &request);
        let dma = twin.dma(file, &asked);
        assert!(!dma.stale, "a stale use by {request:x?} of device {slot}");
        self.compare_host(slot, &request, expected, &dma);
        self.learn_marks(expected.is_some(), &marks);
    }

    fn compare_host(
        &self,
        slot: usize,
        request: &Request,
        expected: Option<Option<u64>>,
        dma: &Dma,
    ) {
        let Some(expected) = expected else { return };
        let went = dma.result.ok().map(|to| to.address);
        assert_eq!(
            went,
            expected,
            "the hardware's answer to {request:x?} of device {slot} is {:x?}; {:x?}",
            dma.result,
            self.machine.slots[slot].handle.map(|handle| self
                .machine
                .unit()
                .device_info(handle)
                .unwrap())
        );
        let blocked = matches!(dma.result, Err(DmaFault::Blocked));
        assert!(!blocked || dma.walks == 0, "it walked for a blocked device");
    }

    /// What the hardware may have set is that of the model, if it does the same. What it refuses it may refuse later, as
    /// it has addresses of more bits.
    fn learn_marks(&mut self, same: bool, marks: &Expected) {
        if same && self.is_translating() && matches!(marks.outcome, Outcome::Page(_)) {
            self.marked(marks);
        } else {
            self.mirror = None;
            self.clean &= self.pristine;
            self.interrupts_clean &= self.pristine;
        }
    }

    /// The unit asks its own twin.
    fn ask_software_host(&mut self, slot: usize, request: Request, is_interrupt: bool) {
        if is_interrupt || !self.clean {
            self.mirror = None;
            let _said = self.said(slot, &request, false);
            return;
        }
        let expected = self.on_host(slot, &request);
        let marks = self.expected(slot, &request);
        let stale = self.machine.vmm.told().stale;
        let said = self.said(slot, &request, false).expect("it is there");
        assert_eq!(
            self.machine.vmm.told().stale,
            stale,
            "a stale use by {request:x?} of device {slot}"
        );
        if let Some(expected) = expected {
            let went = match said {
                Said::Page { address, .. } => Some(address),
                Said::Refused { .. } => None,
            };
            assert_eq!(went, expected, "{said:x?} to {request:x?} of device {slot}");
        }
        self.learn_marks(expected.is_some(), &marks);
    }

    /// An interrupt request.
    pub fn ask_interrupt(&mut self, request: Interrupt) {
        let status = self.machine.read32(GSTS);
        let outcome = self.machine.unit().remap_msi(request);
        let on = status & IRE != 0;
        match (&outcome.result, outcome.index) {
            (Ok(passed), None) => assert_eq!(*passed, request.message),
            (Ok(remapped), Some(_)) => {
                assert!(on, "remapped while remapping is off");
                assert_eq!(remapped.address & 0xff_fff0_0ff3, 0xfee0_0000);
                assert_eq!(remapped.data & 0xffff_7800, 0x4000);
            }
            (Err(refusal), _) => {
                let code = refusal.fault.reason.code();
                // A write with PASID is none of an interrupt request in any case.
                let right = if request.pasid.is_some() {
                    code == 0x29
                } else {
                    on && (0x20..=0x26).contains(&code)
                };
                assert!(right, "{refusal:x?} to {request:x?}");
            }
        }
        let address = request.message.address;
        let is_known = self.interrupts_clean
            && request.verify
            && request.pasid.is_none()
            && in_interrupt_range(address);
        // Without a table there is none that the model could read, and beyond the width none for the unit.
        let width = self.machine.capabilities.host_width;
        let Some(table) = self
            .interrupt_table
            .filter(|table| (table + (2 << field(*table, 3, 0)) * 16) >> width == 0)
        else {
            return;
        };
        if !is_known || !on {
            return;
        }
        let control = Control {
            enabled: on,
            compatibility: status & CFI != 0,
            table,
        };
        self.mirror = None;
        let view = self.mirror().now();
        let expected = remap(
            view,
            &control,
            address,
            request.message.data,
            request.source_id,
        );
        match (outcome.result, expected) {
            (Ok(message), Ok(Delivered::AsSent)) => assert_eq!(message, request.message),
            (
                Ok(message),
                Ok(Delivered::Remapped {
                    destination,
                    vector,
                    delivery_mode,
                    logical,
                    level,
                }),
            ) => {
                let upper = message.address >> 40 << 8;
                let found = (
                    (upper | field(message.address, 19, 12)) as u32,
                    (message.data & 0xff) as u8,
                    (message.data >> 8 & 7) as u8,
                    bit(message.address, 2),
                    message.data >> 15 & 1 != 0,
                );
                let expected = (destination, vector, delivery_mode, logical, level);
                assert_eq!(found, expected, "{message:x?} for {request:x?}");
            }
            (Err(refusal), Err(expected)) => {
                let code = refusal.fault.reason.code();
                assert!(
                    expected.codes.contains(&code),
                    "{refusal:x?} to {request:x?}, expected {expected:x?}"
                );
            }
            (said, expected) => {
                panic!("the unit says {said:x?} to {request:x?}, the model {expected:x?}")
            }
        }
    }

    /// A device that the unit answers for asks for a page.
    pub fn ask_for_page(&mut self, slot: usize, request: PageRequest) {
        let Some(handle) = self.machine.slots[slot].handle else {
            return;
        };
        self.mirror = None;
        let (capabilities, root) = (self.machine.capabilities, self.root);
        let source_id = self.machine.source_id(slot);
        let view = self.mirror().now();
        let expected = lookup::page_request(view, &capabilities, root, source_id, request.pasid);
        let translating = self.is_translating();
        let before = self.machine.unit().stats().page_requests_refused;
        let asked = self.machine.unit().page_request(handle, request);
        let refused = self.machine.unit().stats().page_requests_refused - before;
        if asked.is_ok() && translating && self.knows_root {
            assert_eq!(
                refused == 1,
                expected.is_err(),
                "{request:x?}: {expected:x?}"
            );
        }
    }
}
