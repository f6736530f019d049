//! Registers (section 11.4).

use nested_vtd::spec::registers::{
    Cap, ContextCommand, Ecap, EventControl, FaultRecordHigh, FaultRecordLow, FaultStatus, Global,
    InterruptTableAddress, IotlbCommand, PageQueueAddress, PageRequestStatus, QueueAddress,
    QueueErrorInfo, QueueErrorRecord, RootTableAddress, TableMode, offset,
};

// 11.4. IVA, IOTLB and FRCD have no fixed place; theirs is QEMU's.
#[test]
fn offsets() {
    let table = [
        (offset::VER, 0x000),
        (offset::CAP, 0x008),
        (offset::ECAP, 0x010),
        (offset::GCMD, 0x018),
        (offset::GSTS, 0x01c),
        (offset::RTADDR, 0x020),
        (offset::CCMD, 0x028),
        (offset::FSTS, 0x034),
        (offset::FECTL, 0x038),
        (offset::FEDATA, 0x03c),
        (offset::FEADDR, 0x040),
        (offset::FEUADDR, 0x044),
        (offset::IQH, 0x080),
        (offset::IQT, 0x088),
        (offset::IQA, 0x090),
        (offset::ICS, 0x09c),
        (offset::IECTL, 0x0a0),
        (offset::IEDATA, 0x0a4),
        (offset::IEADDR, 0x0a8),
        (offset::IEUADDR, 0x0ac),
        (offset::IQERCD, 0x0b0),
        (offset::IRTA, 0x0b8),
        (offset::PQH, 0x0c0),
        (offset::PQT, 0x0c8),
        (offset::PQA, 0x0d0),
        (offset::PRS, 0x0dc),
        (offset::PECTL, 0x0e0),
        (offset::PEDATA, 0x0e4),
        (offset::PEADDR, 0x0e8),
        (offset::PEUADDR, 0x0ec),
        (offset::IVA, 0x0f0),
        (offset::IOTLB, 0x0f8),
        (offset::FRCD, 0x220),
    ];
    for (offset, literal) in table {
        assert_eq!(offset, literal, "{offset:#x}, not {literal:#x}");
    }
}

// 11.4.2. Bit 61 is newer than VirtualBox's header; Linux has it.
layout! {
    cap: Cap(u64), unnamed 0x0600_0040_0080_e000;
    ND: domains, with_domains(0x7) = 0x0000_0000_0000_0007;
    AFL: advanced_fault_log, with_advanced_fault_log(true) = 0x0000_0000_0000_0008;
    RWBF: write_buffer_flush, with_write_buffer_flush(true) = 0x0000_0000_0000_0010;
    PLMR: protected_low, with_protected_low(true) = 0x0000_0000_0000_0020;
    PHMR: protected_high, with_protected_high(true) = 0x0000_0000_0000_0040;
    CM: caching_mode, with_caching_mode(true) = 0x0000_0000_0000_0080;
    SAGAW: second_stage_widths, with_second_stage_widths(0x1f) = 0x0000_0000_0000_1f00;
    MGAW: address_width, with_address_width(0x3f) = 0x0000_0000_003f_0000;
    ZLR: zero_length_read, with_zero_length_read(true) = 0x0000_0000_0040_0000;
    FRO: fault_offset, with_fault_offset(0x3ff) = 0x0000_0003_ff00_0000;
    SSLPS: second_stage_large_pages, with_second_stage_large_pages(0xf) = 0x0000_003c_0000_0000;
    PSI: page_selective, with_page_selective(true) = 0x0000_0080_0000_0000;
    NFR: fault_records, with_fault_records(0xff) = 0x0000_ff00_0000_0000;
    MAMV: max_address_mask, with_max_address_mask(0x3f) = 0x003f_0000_0000_0000;
    DWD: write_drain, with_write_drain(true) = 0x0040_0000_0000_0000;
    DRD: read_drain, with_read_drain(true) = 0x0080_0000_0000_0000;
    FS1GP: first_stage_1g, with_first_stage_1g(true) = 0x0100_0000_0000_0000;
    PI: posted_interrupts, with_posted_interrupts(true) = 0x0800_0000_0000_0000;
    FS5LP: first_stage_5_level, with_first_stage_5_level(true) = 0x1000_0000_0000_0000;
    ECMDS: enhanced_commands, with_enhanced_commands(true) = 0x2000_0000_0000_0000;
    ESIRTPS: sirtp_invalidates, with_sirtp_invalidates(true) = 0x4000_0000_0000_0000;
    ESRTPS: srtp_invalidates, with_srtp_invalidates(true) = 0x8000_0000_0000_0000;
}

// 11.4.3. Linux also has bits 51 (PMS) and 50, newer than VirtualBox's header, and 28
// and 27 of older revisions; none has a name here.
layout! {
    ecap: Ecap(u64), unnamed 0xffcc_0001_190c_0020;
    C: coherent, with_coherent(true) = 0x0000_0000_0000_0001;
    QI: queued_invalidation, with_queued_invalidation(true) = 0x0000_0000_0000_0002;
    DT: device_tlb, with_device_tlb(true) = 0x0000_0000_0000_0004;
    IR: interrupt_remapping, with_interrupt_remapping(true) = 0x0000_0000_0000_0008;
    EIM: extended_interrupt_mode, with_extended_interrupt_mode(true) = 0x0000_0000_0000_0010;
    PT: pass_through, with_pass_through(true) = 0x0000_0000_0000_0040;
    SC: snoop_control, with_snoop_control(true) = 0x0000_0000_0000_0080;
    IRO: iotlb_offset, with_iotlb_offset(0x3ff) = 0x0000_0000_0003_ff00;
    MHMV: max_handle_mask, with_max_handle_mask(0xf) = 0x0000_0000_00f0_0000;
    MTS: memory_type, with_memory_type(true) = 0x0000_0000_0200_0000;
    NEST: nested, with_nested(true) = 0x0000_0000_0400_0000;
    PRS: page_request, with_page_request(true) = 0x0000_0000_2000_0000;
    ERS: execute_request, with_execute_request(true) = 0x0000_0000_4000_0000;
    SRS: supervisor_request, with_supervisor_request(true) = 0x0000_0000_8000_0000;
    NWFS: no_write_flag, with_no_write_flag(true) = 0x0000_0002_0000_0000;
    EAFS: extended_accessed, with_extended_accessed(true) = 0x0000_0004_0000_0000;
    PSS: pasid_size, with_pasid_size(0x1f) = 0x0000_00f8_0000_0000;
    PASID: pasid, with_pasid(true) = 0x0000_0100_0000_0000;
    DIT: device_tlb_throttle, with_device_tlb_throttle(true) = 0x0000_0200_0000_0000;
    PDS: page_request_drain, with_page_request_drain(true) = 0x0000_0400_0000_0000;
    SMTS: scalable_mode, with_scalable_mode(true) = 0x0000_0800_0000_0000;
    VCS: virtual_command, with_virtual_command(true) = 0x0000_1000_0000_0000;
    SSADS: second_stage_accessed_dirty, with_second_stage_accessed_dirty(true)
        = 0x0000_2000_0000_0000;
    SSTS: second_stage, with_second_stage(true) = 0x0000_4000_0000_0000;
    FSTS: first_stage, with_first_stage(true) = 0x0000_8000_0000_0000;
    SMPWCS: page_walk_coherent, with_page_walk_coherent(true) = 0x0001_0000_0000_0000;
    RPS: rid_pasid, with_rid_pasid(true) = 0x0002_0000_0000_0000;
    ADMS: abort_dma, with_abort_dma(true) = 0x0010_0000_0000_0000;
    RPRIVS: rid_privilege, with_rid_privilege(true) = 0x0020_0000_0000_0000;
}

// 11.4.4. The names are those of GCMD; each bit of GSTS stands where GCMD has it.
layout! {
    global: Global(u32), unnamed 0x007f_ffff;
    CFI: compatibility_interrupts, with_compatibility_interrupts(true) = 0x0080_0000;
    SIRTP: interrupt_table, with_interrupt_table(true) = 0x0100_0000;
    IRE: interrupt_remapping, with_interrupt_remapping(true) = 0x0200_0000;
    QIE: queued_invalidation, with_queued_invalidation(true) = 0x0400_0000;
    WBF: write_buffer_flush, with_write_buffer_flush(true) = 0x0800_0000;
    EAFL: advanced_fault_log, with_advanced_fault_log(true) = 0x1000_0000;
    SFL: fault_log, with_fault_log(true) = 0x2000_0000;
    SRTP: root_table, with_root_table(true) = 0x4000_0000;
    TE: translation, with_translation(true) = 0x8000_0000;
}

// 11.4.5.
layout! {
    root_table_address: RootTableAddress(u64), unnamed 0x0000_0000_0000_03ff;
    TTM: mode, with_mode(0x3) = 0x0000_0000_0000_0c00;
    RTA: table, with_table(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

#[test]
fn root_table_address_and_mode() {
    let table = [
        (0x1234_5000, TableMode::Legacy),
        (0x1234_5400, TableMode::Scalable),
        (0x1234_5800, TableMode::Reserved),
        (0x1234_5c00, TableMode::AbortDma),
    ];
    for (literal, mode) in table {
        let register = RootTableAddress::from_bits(literal);
        assert_eq!(TableMode::from(register), mode);
        assert_eq!(register.address(), 0x1234_5000);
    }
}

// 11.4.6.1.
layout! {
    context_command: ContextCommand(u64), unnamed 0x07ff_fffc_0000_0000;
    DID: domain_id, with_domain_id(0xffff) = 0x0000_0000_0000_ffff;
    SID: source_id, with_source_id(0xffff) = 0x0000_0000_ffff_0000;
    FM: function_mask, with_function_mask(0x3) = 0x0000_0003_0000_0000;
    CAIG: actual_granularity, with_actual_granularity(0x3) = 0x1800_0000_0000_0000;
    CIRG: granularity, with_granularity(0x3) = 0x6000_0000_0000_0000;
    ICC: invalidate, with_invalidate(true) = 0x8000_0000_0000_0000;
}

// 11.4.6.2. IVA beside it is as the address qword of an IOTLB descriptor.
layout! {
    iotlb_command: IotlbCommand(u64), unnamed 0x49fc_0000_ffff_ffff;
    DID: domain_id, with_domain_id(0xffff) = 0x0000_ffff_0000_0000;
    DW: drain_writes, with_drain_writes(true) = 0x0001_0000_0000_0000;
    DR: drain_reads, with_drain_reads(true) = 0x0002_0000_0000_0000;
    IAIG: actual_granularity, with_actual_granularity(0x3) = 0x0600_0000_0000_0000;
    IIRG: granularity, with_granularity(0x3) = 0x3000_0000_0000_0000;
    IVT: invalidate, with_invalidate(true) = 0x8000_0000_0000_0000;
}

// 11.4.7.1. PRO is Linux's; VirtualBox has bit 7 as deprecated.
layout! {
    fault_status: FaultStatus(u32), unnamed 0xffff_0000;
    PFO: overflow, with_overflow(true) = 0x0000_0001;
    PPF: pending, with_pending(true) = 0x0000_0002;
    AFO: advanced_overflow, with_advanced_overflow(true) = 0x0000_0004;
    APF: advanced_pending, with_advanced_pending(true) = 0x0000_0008;
    IQE: queue_error, with_queue_error(true) = 0x0000_0010;
    ICE: completion_error, with_completion_error(true) = 0x0000_0020;
    ITE: timeout_error, with_timeout_error(true) = 0x0000_0040;
    PRO: page_request_overflow, with_page_request_overflow(true) = 0x0000_0080;
    FRI: first_record, with_first_record(0xff) = 0x0000_ff00;
}

// 11.4.7.2, 11.4.9.5.
layout! {
    event_control: EventControl(u32), unnamed 0x3fff_ffff;
    IP: pending, with_pending(true) = 0x4000_0000;
    IM: masked, with_masked(true) = 0x8000_0000;
}

// 11.4.9.3.
layout! {
    queue_address: QueueAddress(u64), unnamed 0x0000_0000_0000_07f8;
    QS: size, with_size(0x7) = 0x0000_0000_0000_0007;
    DW: wide, with_wide(true) = 0x0000_0000_0000_0800;
    IQA: queue, with_queue(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

#[test]
fn queue_geometry() {
    // IQA, base, bytes in a descriptor, bytes in the queue.
    let table = [
        (0x1234_5000, 0x1234_5000, 0x10, 0x1000),
        // Linux: 256 descriptors of 256 bits are two pages.
        (0x1234_5801, 0x1234_5000, 0x20, 0x2000),
        (0xffff_ffff_ffff_f807, 0xffff_ffff_ffff_f000, 0x20, 0x8_0000),
        (0xffff_ffff_ffff_f007, 0xffff_ffff_ffff_f000, 0x10, 0x8_0000),
    ];
    for (literal, address, descriptor, bytes) in table {
        let register = QueueAddress::from_bits(literal);
        assert_eq!(register.address(), address, "{literal:#x}");
        assert_eq!(register.descriptor_size(), descriptor, "{literal:#x}");
        assert_eq!(register.bytes(), bytes, "{literal:#x}");
    }
}

// 11.4.10.1.
layout! {
    interrupt_table_address: InterruptTableAddress(u64), unnamed 0x0000_0000_0000_07f0;
    S: size, with_size(0xf) = 0x0000_0000_0000_000f;
    EIME: extended_interrupt_mode, with_extended_interrupt_mode(true) = 0x0000_0000_0000_0800;
    IRTA: table, with_table(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 11.4.11.3.
layout! {
    page_queue_address: PageQueueAddress(u64), unnamed 0x0000_0000_0000_0ff8;
    PQS: size, with_size(0x7) = 0x0000_0000_0000_0007;
    PQA: queue, with_queue(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 11.4.11.4.
layout! {
    page_request_status: PageRequestStatus(u32), unnamed 0xffff_fffc;
    PPR: pending, with_pending(true) = 0x0000_0001;
    PRO: overflow, with_overflow(true) = 0x0000_0002;
}

#[test]
fn interrupt_table_and_page_queue_geometry() {
    let table = InterruptTableAddress::from_bits(0x0000_0012_3456_780f);
    assert_eq!(
        (table.address(), table.entries()),
        (0x0000_0012_3456_7000, 65536)
    );
    assert_eq!(InterruptTableAddress::from_bits(0).entries(), 2);
    let queue = PageQueueAddress::from_bits(0x0000_0012_3456_7007);
    assert_eq!(
        (queue.address(), queue.bytes()),
        (0x0000_0012_3456_7000, 0x8_0000)
    );
}

// 11.4.9.9.
layout! {
    queue_error_record: QueueErrorRecord(u64), unnamed 0x0000_0000_ffff_fff0;
    IQEI: info, with_info(0xf) = 0x0000_0000_0000_000f;
    ITESID: timeout_source, with_timeout_source(0xffff) = 0x0000_ffff_0000_0000;
    ICESID: completion_source, with_completion_source(0xffff) = 0xffff_0000_0000_0000;
}

// 11.4.9.9, IQEI. 0 is no information. Only VirtualBox names the values.
codes! {
    queue_error_info: QueueErrorInfo;
    BadTail = 1;
    FetchError = 2;
    BadType = 3;
    ReservedField = 4;
    BadWidth = 5;
    MisalignedTail = 6;
    BadTableMode = 7;
}

// 11.4.7.7.
layout! {
    fault_record_low: FaultRecordLow(u64), unnamed 0x0000_0000_0000_0fff;
    FI: page, with_page(0xf_ffff_ffff_ffff) = 0xffff_ffff_ffff_f000;
}

// 11.4.7.7. T1 set and T2 clear is a read, both clear a write.
layout! {
    fault_record_high: FaultRecordHigh(u64), unnamed 0x0000_0000_0fff_0000;
    SID: source_id, with_source_id(0xffff) = 0x0000_0000_0000_ffff;
    T2: type2, with_type2(true) = 0x0000_0000_1000_0000;
    PRIV: privileged, with_privileged(true) = 0x0000_0000_2000_0000;
    EXE: execute, with_execute(true) = 0x0000_0000_4000_0000;
    PP: pasid_present, with_pasid_present(true) = 0x0000_0000_8000_0000;
    FR: reason, with_reason(0xff) = 0x0000_00ff_0000_0000;
    PV: pasid, with_pasid(0xf_ffff) = 0x0fff_ff00_0000_0000;
    AT: address_type, with_address_type(0x3) = 0x3000_0000_0000_0000;
    T1: read, with_read(true) = 0x4000_0000_0000_0000;
    F: fault, with_fault(true) = 0x8000_0000_0000_0000;
}
