//! The registers in a saved state, section by section. What cannot be is refused; what
//! follows from something else is not saved.

use super::format::{Fields, Section, Sections, Tag, Writer, check};
use crate::Result;
use crate::interrupt::{self, Table};
use crate::spec::registers::{
    ContextCommand, Ecap, FaultStatus, Global, InterruptTableAddress, IotlbCommand,
    PageQueueAddress, PageRequestStatus, QueueAddress, QueueErrorInfo, QueueErrorRecord,
    RootTableAddress,
};
use crate::unit::control::Control;
use crate::unit::fault_log::FaultLog;
use crate::unit::interrupts::Interrupts;
use crate::unit::page_requests::{self, PageRequests};
use crate::unit::registers::{COMPLETED, INVALIDATE_ADDRESS, QUEUE_OFFSET, Registers};
use crate::unit::signal::Signal;

/// GSTS, the root table.
const ROOT: Tag = "ROOT";
/// Invalidation by registers.
const COMMANDS: Tag = "CMDS";
/// The invalidation queue and its event.
const QUEUE: Tag = "QUEU";
/// The fault log and its event.
const FAULTS: Tag = "FALT";
/// The interrupt remapping table, of a unit that remaps interrupts.
const INTERRUPTS: Tag = "IREM";
/// The page request queue and its event, of a unit that takes page requests.
const PAGE_REQUESTS: Tag = "PREQ";

/// All bits that RTADDR can have, and IRTA with and without EIME.
const ROOT_BITS: u64 = RootTableAddress::new()
    .with_mode(3)
    .with_table(u64::MAX >> 12)
    .into_bits();
const TABLE_BITS: u64 = InterruptTableAddress::new()
    .with_size(15)
    .with_table(u64::MAX >> 12)
    .into_bits();
const EXTENDED_TABLE_BITS: u64 = InterruptTableAddress::from_bits(TABLE_BITS)
    .with_extended_interrupt_mode(true)
    .into_bits();

/// What the guest has programmed.
#[derive(Debug)]
pub(super) struct Programmed {
    pub registers: Registers,
    /// TE and the root table in force.
    pub control: Control,
    /// IRE, CFI and the interrupt table in force.
    pub interrupts: interrupt::Control,
}

/// Put it into `writer`.
pub(super) fn save(
    writer: &mut Writer,
    ecap: Ecap,
    registers: &Registers,
    control: Control,
    interrupts: &interrupt::Control,
) {
    writer.section(ROOT, |section| {
        section.u32(registers.status.into_bits());
        section.u64(registers.root.into_bits());
        section.u64(control.root.into_bits());
    });
    writer.section(COMMANDS, |section| {
        // What is still being told to the VMM is done where it is loaded, as everything is
        // forgotten there.
        let context = registers.context_command.with_invalidate(false);
        section.u64(context.into_bits());
        let iotlb = registers.iotlb_command.with_invalidate(false);
        section.u64(iotlb.into_bits());
        section.u64(registers.invalidate_address);
    });
    writer.section(QUEUE, |section| {
        section.u64(registers.queue_address.into_bits());
        section.u64(registers.queue_error.into_bits());
        section.u32(offset(registers.queue_head));
        section.u32(offset(registers.queue_tail));
        section.u32(registers.completed.into());
        registers.completion_signal.save(section);
    });
    writer.section(FAULTS, |section| registers.faults.save(section));
    if ecap.interrupt_remapping() {
        writer.section(INTERRUPTS, |section| {
            section.u64(registers.interrupts.table.into_bits());
            let table = interrupts.table.map(InterruptTableAddress::from);
            section.u64(table.unwrap_or_default().into_bits());
        });
    }
    if ecap.page_request() {
        writer.section(PAGE_REQUESTS, |section| {
            save_page_requests(section, &registers.page_requests);
        });
    }
}

/// Offsets in a queue have 19 bits.
fn offset(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn save_page_requests(section: &mut Section, queue: &PageRequests) {
    section.u64(queue.queue.into_bits());
    section.u32(offset(queue.head));
    section.u32(offset(queue.tail));
    section.u32(queue.status.into_bits());
    queue.signal.save(section);
}

/// What `sections` say that the guest has programmed.
///
/// # Errors
/// `EINVAL`: that cannot be.
pub(super) fn load(sections: &mut Sections<'_>, ecap: Ecap) -> Result<Programmed> {
    let mut registers = Registers::default();
    let mut fields = sections.next(ROOT)?;
    let (status, root, control) = load_root(&mut fields, ecap)?;
    fields.end()?;
    registers.status = status;
    registers.root = root;

    let mut fields = sections.next(COMMANDS)?;
    load_commands(&mut fields, &mut registers)?;
    fields.end()?;

    let mut queue = sections.next(QUEUE)?;
    load_queue(&mut queue, &mut registers)?;
    queue.end()?;

    let mut fields = sections.next(FAULTS)?;
    registers.faults = FaultLog::load(&mut fields)?;
    fields.end()?;
    check_errors(registers.queue_error, registers.faults.status())?;

    let mut interrupts = interrupt::Control {
        enabled: status.interrupt_remapping(),
        compatibility: status.compatibility_interrupts(),
        table: None,
    };
    if ecap.interrupt_remapping() {
        let mut fields = sections.next(INTERRUPTS)?;
        let (written, table) = load_table(&mut fields, status, ecap)?;
        fields.end()?;
        registers.interrupts = Interrupts { table: written };
        interrupts.table = table;
    }
    if ecap.page_request() {
        let mut fields = sections.next(PAGE_REQUESTS)?;
        registers.page_requests = load_page_requests(&mut fields)?;
        fields.end()?;
    }
    Ok(Programmed {
        registers,
        control,
        interrupts,
    })
}

fn load_root(fields: &mut Fields<'_>, ecap: Ecap) -> Result<(Global, RootTableAddress, Control)> {
    let remaps = ecap.interrupt_remapping();
    let known = Global::new()
        .with_compatibility_interrupts(remaps)
        .with_interrupt_table(remaps)
        .with_interrupt_remapping(remaps)
        .with_queued_invalidation(true)
        .with_root_table(true)
        .with_translation(true);
    let status = Global::from_bits(fields.bits32("GSTS", known.into_bits())?);
    let written = fields.bits64("RTADDR", ROOT_BITS)?;
    let in_force = fields.bits64("the root table in force", ROOT_BITS)?;
    check(status.root_table() || in_force == 0, || {
        format!("GSTS.RTPS is 0, but the root table in force is {in_force:#x}; it is to be 0")
    })?;
    let control = Control {
        enabled: status.translation(),
        root: RootTableAddress::from_bits(in_force),
    };
    Ok((status, RootTableAddress::from_bits(written), control))
}

/// What software wrote there is in them, and what was done of it; no command is under way.
fn load_commands(fields: &mut Fields<'_>, registers: &mut Registers) -> Result<()> {
    let known = ContextCommand::new()
        .with_domain_id(u16::MAX)
        .with_source_id(u16::MAX)
        .with_function_mask(3)
        .with_actual_granularity(3)
        .with_granularity(3)
        .with_invalidate(true);
    let context = ContextCommand::from_bits(fields.bits64("CCMD", known.into_bits())?);
    let known = IotlbCommand::new()
        .with_domain_id(u16::MAX)
        .with_drain_writes(true)
        .with_drain_reads(true)
        .with_actual_granularity(3)
        .with_granularity(3)
        .with_invalidate(true);
    let iotlb = IotlbCommand::from_bits(fields.bits64("IOTLB", known.into_bits())?);
    check(!context.invalidate(), || {
        "CCMD.ICC is 1; a state is saved with it clear".to_owned()
    })?;
    check(!iotlb.invalidate(), || {
        "IOTLB.IVT is 1; a state is saved with it clear".to_owned()
    })?;
    registers.context_command = context;
    registers.iotlb_command = iotlb;
    registers.invalidate_address = fields.bits64("IVA", INVALIDATE_ADDRESS)?;
    Ok(())
}

fn load_queue(fields: &mut Fields<'_>, registers: &mut Registers) -> Result<()> {
    let known = QueueAddress::new()
        .with_size(7)
        .with_wide(true)
        .with_queue(u64::MAX >> 12);
    let queue = QueueAddress::from_bits(fields.bits64("IQA", known.into_bits())?);
    let known = QueueErrorRecord::new()
        .with_info(15)
        .with_timeout_source(u16::MAX)
        .with_completion_source(u16::MAX);
    let error = QueueErrorRecord::from_bits(fields.bits64("IQERCD", known.into_bits())?);
    let head = u64::from(fields.u32("IQH")?);
    // A tail beyond the queue, or within a descriptor, is an error of software's that the
    // queue finds.
    let tail = u64::from(fields.bits32("IQT", offset(QUEUE_OFFSET))?);
    let on = registers.status.queued_invalidation();
    check(on || head == 0, || {
        format!("IQH is {head:#x} while GSTS.QIES is 0; it is to be 0")
    })?;
    check(
        head < queue.bytes() && head & queue.descriptor_size().wrapping_sub(1) == 0,
        || {
            format!(
                "IQH is {head:#x}; it is to be a multiple of {} below {:#x}, the queue's size",
                queue.descriptor_size(),
                queue.bytes()
            )
        },
    )?;
    registers.queue_address = queue;
    registers.queue_error = error;
    registers.queue_head = head;
    registers.queue_tail = tail;
    registers.completed = fields.bits32("ICS", COMPLETED)? != 0;
    let cause = ("ICS.IWC", registers.completed);
    registers.completion_signal = Signal::load(fields, "IE", cause)?;
    Ok(())
}

/// IQERCD tells of the errors in FSTS, and of nothing else (11.4.9.9).
fn check_errors(record: QueueErrorRecord, status: FaultStatus) -> Result<()> {
    let info = record.info();
    let last = QueueErrorInfo::BadTableMode as u8;
    check(status.queue_error() == (info != 0) && info <= last, || {
        format!(
            "IQERCD.IQEI is {info} and FSTS.IQE is {}; IQEI is to be 1 to {last} with IQE, and 0 \
             without",
            u8::from(status.queue_error())
        )
    })?;
    for (set, source, name, of) in [
        (
            status.timeout_error(),
            record.timeout_source(),
            "ITESID",
            "ITE",
        ),
        (
            status.completion_error(),
            record.completion_source(),
            "ICESID",
            "ICE",
        ),
    ] {
        check(set || source == 0, || {
            format!("IQERCD.{name} is {source:#x}, but FSTS.{of} is 0; it is to be 0")
        })?;
    }
    Ok(())
}

fn load_table(
    fields: &mut Fields<'_>,
    status: Global,
    ecap: Ecap,
) -> Result<(InterruptTableAddress, Option<Table>)> {
    let known = if ecap.extended_interrupt_mode() {
        EXTENDED_TABLE_BITS
    } else {
        TABLE_BITS
    };
    let written = InterruptTableAddress::from_bits(fields.bits64("IRTA", known)?);
    let in_force = fields.bits64("the interrupt table in force", known)?;
    check(status.interrupt_table() || in_force == 0, || {
        format!("GSTS.IRTPS is 0, but the interrupt table in force is {in_force:#x}; it is to be 0")
    })?;
    let table = InterruptTableAddress::from_bits(in_force);
    let table = status.interrupt_table().then(|| table.into());
    Ok((written, table))
}

fn load_page_requests(fields: &mut Fields<'_>) -> Result<PageRequests> {
    let known = PageQueueAddress::new()
        .with_size(7)
        .with_queue(u64::MAX >> 12);
    let queue = PageQueueAddress::from_bits(fields.bits64("PQA", known.into_bits())?);
    // Software may have set them to beyond the queue, which is then full.
    let within = offset(page_requests::QUEUE_OFFSET);
    let head = fields.bits32("PQH", within)?.into();
    let tail = fields.bits32("PQT", within)?.into();
    let known = PageRequestStatus::new()
        .with_pending(true)
        .with_overflow(true);
    let status = PageRequestStatus::from_bits(fields.bits32("PRS", known.into_bits())?);
    let cause = ("PRS", status != PageRequestStatus::new());
    Ok(PageRequests {
        head,
        tail,
        queue,
        status,
        signal: Signal::load(fields, "PE", cause)?,
    })
}
