//! Fault reasons (section 7.1.3).

use nested_vtd::spec::fault::{FaultReason, RecordedType};

// The names beside the codes are VirtualBox's, which still says SFL and SSL for SFS and
// SSS. Linux has a sentence for each code but 0x91, which QEMU has.
codes! {
    fault_reason: FaultReason as REASONS;
    LegacyRootNotPresent = 0x01; // LRT.2
    LegacyContextNotPresent = 0x02; // LCT.2
    ContextInvalidLegacy = 0x03; // LCT.4
    LegacyBeyondWidth = 0x04; // LGN.1
    LegacyNoWrite = 0x05; // LGN.2
    LegacyNoRead = 0x06; // LGN.3
    LegacyPagingAccess = 0x07; // LSS.1
    LegacyRootAccess = 0x08; // LRT.1
    LegacyContextAccess = 0x09; // LCT.1
    LegacyRootReserved = 0x0a; // LRT.3
    LegacyContextReserved = 0x0b; // LCT.3
    LegacyPagingReserved = 0x0c; // LSS.2
    LegacyRequestBlocked = 0x0d; // LCT.5
    LegacyInterruptRange = 0x0e; // LGN.4
    InterruptRequestReserved = 0x20; // these have no names
    InterruptIndex = 0x21;
    InterruptEntryNotPresent = 0x22;
    InterruptEntryAccess = 0x23;
    InterruptEntryReserved = 0x24;
    InterruptCompatibility = 0x25;
    InterruptSource = 0x26;
    InterruptPasid = 0x29; // VirtualBox only
    RootTableMode = 0x30; // RTA.1
    PasidInLegacyMode = 0x31; // RTA.2
    PageRequestLegacy = 0x32; // RTA.3
    AbortDma = 0x33; // RTA.4
    RootAccess = 0x38; // SRT.1
    RootNotPresent = 0x39; // SRT.2
    RootReserved = 0x3a; // SRT.3
    ContextAccess = 0x40; // SCT.1
    ContextNotPresent = 0x41; // SCT.2
    ContextReserved = 0x42; // SCT.3
    ContextInvalid = 0x43; // SCT.4
    DeviceTlbDisabled = 0x44; // SCT.5
    PasidDisabled = 0x45; // SCT.6
    PasidBeyondDirectory = 0x46; // SCT.7
    PageRequestDisabled = 0x47; // SCT.8
    RidPasidBeyondDirectory = 0x48; // SCT.9
    DirectoryAccess = 0x50; // SPD.1
    DirectoryNotPresent = 0x51; // SPD.2
    DirectoryReserved = 0x52; // SPD.3
    PasidAccess = 0x58; // SPT.1
    PasidNotPresent = 0x59; // SPT.2
    PasidReserved = 0x5a; // SPT.3
    PasidInvalid = 0x5b; // SPT.4
    ExecuteDisabled = 0x5c; // SPT.5
    SupervisorDisabled = 0x5d; // SPT.6
    FirstStageAccess = 0x70; // SFS.1
    FirstStageNotPresent = 0x71; // SFS.2
    FirstStageReserved = 0x72; // SFS.3
    FirstStageRootAccess = 0x73; // SFS.4
    FirstStageTableBeyondWidth = 0x74; // SFS.5
    NestedRootRead = 0x75; // SFS.6
    NestedRead = 0x76; // SFS.7
    NestedWrite = 0x77; // SFS.8
    SecondStageAccess = 0x78; // SSS.1
    SecondStagePermission = 0x79; // SSS.2
    SecondStageReserved = 0x7a; // SSS.3
    SecondStageRootAccess = 0x7b; // SSS.4
    SecondStageNoSnoop = 0x7c; // SSS.5
    SecondStageAccessedDirty = 0x7d; // SSS.6
    NotCanonical = 0x80; // SGN.1
    Privilege = 0x81; // SGN.2
    NoExecute = 0x82; // SGN.3
    BeyondWidth = 0x83; // SGN.4
    NestedBeyondWidth = 0x84; // SGN.5
    NoWrite = 0x85; // SGN.6
    NoRead = 0x86; // SGN.7
    InterruptRange = 0x87; // SGN.8
    FirstStageNoSnoop = 0x90; // SFS.9
    AccessedDirty = 0x91; // SFS.10
}

// 11.4.7.7. VirtualBox names all types; Linux takes T1 for "read".
codes! {
    recorded_type: RecordedType;
    Write = 0x0;
    Page = 0x1;
    Read = 0x2;
}

#[test]
fn code_is_the_value() {
    assert_eq!(FaultReason::ContextInvalidLegacy.code(), 0x03);
    assert_eq!(FaultReason::FirstStageNotPresent.code(), 0x71);
    assert_eq!(FaultReason::AccessedDirty.code(), 0x91);
}

#[test]
fn no_other_value_is_a_code() {
    for code in 0..=u8::MAX {
        assert_eq!(
            FaultReason::is_code(code),
            REASONS.contains(&code),
            "{code:#x}"
        );
    }
}
