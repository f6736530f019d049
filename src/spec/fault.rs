//! Fault reasons (section 7.1.3).
//!
//! The names in capitals are the specification's condition names. Older revisions
//! call the stages levels (SFL, SSL, LSL); the numbers are the same.

/// Why a request was refused: the FR field of a fault recording register. Those of
/// interrupts are 0x20 to 0x29, those of scalable mode 0x30 and above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FaultReason {
    /// LRT.2: the legacy root entry is not present.
    LegacyRootNotPresent = 0x01,
    /// LCT.2: the legacy context entry is not present.
    LegacyContextNotPresent = 0x02,
    /// LCT.4: a legacy context entry is programmed in a way the hardware does not
    /// support.
    ContextInvalidLegacy = 0x03,
    /// LGN.1: the address is beyond the width, in legacy mode.
    LegacyBeyondWidth = 0x04,
    /// LGN.2: no permission to write, in legacy mode.
    LegacyNoWrite = 0x05,
    /// LGN.3: no permission to read, in legacy mode.
    LegacyNoRead = 0x06,
    /// LSS.1: a second-stage entry could not be read, in legacy mode.
    LegacyPagingAccess = 0x07,
    /// LRT.1: the legacy root entry could not be read.
    LegacyRootAccess = 0x08,
    /// LCT.1: the legacy context entry could not be read.
    LegacyContextAccess = 0x09,
    /// LRT.3: a reserved field of the legacy root entry is not 0.
    LegacyRootReserved = 0x0a,
    /// LCT.3: a reserved field of the legacy context entry is not 0.
    LegacyContextReserved = 0x0b,
    /// LSS.2: a reserved field of a second-stage entry is not 0, in legacy mode.
    LegacyPagingReserved = 0x0c,
    /// LCT.5: a translation or translated request, and TT is not 01b.
    LegacyRequestBlocked = 0x0d,
    /// LGN.4: the translated address is in the interrupt range, in legacy mode.
    LegacyInterruptRange = 0x0e,
    /// A reserved field of an interrupt request is not 0.
    InterruptRequestReserved = 0x20,
    /// The index of an interrupt request is beyond the table, or its entry beyond the
    /// address width.
    InterruptIndex = 0x21,
    /// The interrupt remapping table entry is not present.
    InterruptEntryNotPresent = 0x22,
    /// The interrupt remapping table entry could not be read.
    InterruptEntryAccess = 0x23,
    /// A reserved field of the interrupt remapping table entry is not 0, or a field
    /// has a reserved value.
    InterruptEntryReserved = 0x24,
    /// Interrupt requests in compatibility format are blocked.
    InterruptCompatibility = 0x25,
    /// The interrupt remapping table entry is not for this requester.
    InterruptSource = 0x26,
    /// A request with PASID to the interrupt range.
    InterruptPasid = 0x29,
    /// RTA.1: RTADDR.TTM has a value that is reserved or not supported.
    RootTableMode = 0x30,
    /// RTA.2: a request with PASID in legacy mode.
    PasidInLegacyMode = 0x31,
    /// RTA.3: a page request in legacy mode.
    PageRequestLegacy = 0x32,
    /// RTA.4: RTADDR.TTM is abort-DMA.
    AbortDma = 0x33,
    /// SRT.1: the root entry could not be read.
    RootAccess = 0x38,
    /// SRT.2: the root entry is not present.
    RootNotPresent = 0x39,
    /// SRT.3: a reserved field of the root entry is not 0.
    RootReserved = 0x3a,
    /// SCT.1: the context entry could not be read.
    ContextAccess = 0x40,
    /// SCT.2: the context entry is not present.
    ContextNotPresent = 0x41,
    /// SCT.3: a reserved field of the context entry is not 0.
    ContextReserved = 0x42,
    /// SCT.4: the context entry is programmed in a way the hardware does not support.
    ContextInvalid = 0x43,
    /// SCT.5: a translation, translated or page request, and DTE is 0.
    DeviceTlbDisabled = 0x44,
    /// SCT.6: a request with PASID, and PASIDE is 0.
    PasidDisabled = 0x45,
    /// SCT.7: the PASID is beyond the directory.
    PasidBeyondDirectory = 0x46,
    /// SCT.8: a page request, and PRE is 0.
    PageRequestDisabled = 0x47,
    /// SCT.9: RID_PASID is beyond the directory.
    RidPasidBeyondDirectory = 0x48,
    /// SPD.1: the PASID directory entry could not be read.
    DirectoryAccess = 0x50,
    /// SPD.2: the PASID directory entry is not present.
    DirectoryNotPresent = 0x51,
    /// SPD.3: a reserved field of the PASID directory entry is not 0.
    DirectoryReserved = 0x52,
    /// SPT.1: the PASID entry could not be read.
    PasidAccess = 0x58,
    /// SPT.2: the PASID entry is not present.
    PasidNotPresent = 0x59,
    /// SPT.3: a reserved field of the PASID entry is not 0.
    PasidReserved = 0x5a,
    /// SPT.4: the PASID entry is programmed in a way the hardware does not
    /// support.
    PasidInvalid = 0x5b,
    /// SPT.5: an execute request, and ERE is 0.
    ExecuteDisabled = 0x5c,
    /// SPT.6: a privileged request, and SRE is 0.
    SupervisorDisabled = 0x5d,
    /// SFS.1: a first-stage paging entry other than the topmost could not be read.
    FirstStageAccess = 0x70,
    /// SFS.2: a first-stage paging entry is not present.
    FirstStageNotPresent = 0x71,
    /// SFS.3: a reserved field of a first-stage paging entry is not 0.
    FirstStageReserved = 0x72,
    /// SFS.4: the topmost first-stage entry could not be read.
    FirstStageRootAccess = 0x73,
    /// SFS.5: nested, a first-stage table is beyond the second stage's width.
    FirstStageTableBeyondWidth = 0x74,
    /// SFS.6: nested, the second stage denies reading the topmost first-stage entry.
    NestedRootRead = 0x75,
    /// SFS.7: nested, the second stage denies reading another first-stage entry.
    NestedRead = 0x76,
    /// SFS.8: nested, the second stage denies setting bits in a first-stage entry.
    NestedWrite = 0x77,
    /// SSS.1: a second-stage entry other than the topmost could not be read.
    SecondStageAccess = 0x78,
    /// SSS.2: the second stage does not permit the access, or does not map it:
    /// its entries have no present bit.
    SecondStagePermission = 0x79,
    /// SSS.3: a reserved field of a second-stage entry is not 0.
    SecondStageReserved = 0x7a,
    /// SSS.4: the topmost second-stage entry could not be read.
    SecondStageRootAccess = 0x7b,
    /// SSS.5: a second-stage accessed or dirty bit is to be set, and PWSNP is 0.
    SecondStageNoSnoop = 0x7c,
    /// SSS.6: a second-stage accessed or dirty bit could not be set.
    SecondStageAccessedDirty = 0x7d,
    /// SGN.1: the address is not canonical for the first stage.
    NotCanonical = 0x80,
    /// SGN.2: a user request to a supervisor page.
    Privilege = 0x81,
    /// SGN.3: an execute request without permission to execute.
    NoExecute = 0x82,
    /// SGN.4: the address is beyond the width of the second stage or pass-through.
    BeyondWidth = 0x83,
    /// SGN.5: nested, the page is beyond the width of the second stage.
    NestedBeyondWidth = 0x84,
    /// SGN.6: a write without write permission of the first stage.
    NoWrite = 0x85,
    /// SGN.7: a read without read permission of the first stage.
    NoRead = 0x86,
    /// SGN.8: the translated address is in the interrupt range.
    InterruptRange = 0x87,
    /// SFS.9: a first-stage accessed or dirty bit is to be set, and PWSNP is 0.
    FirstStageNoSnoop = 0x90,
    /// SFS.10: a first-stage accessed or dirty bit could not be set.
    AccessedDirty = 0x91,
}

impl FaultReason {
    /// The FR value.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Is this the FR value of a reason?
    pub fn is_code(code: u8) -> bool {
        matches!(
            code,
            0x01..=0x0e
                | 0x20..=0x26
                | 0x29
                | 0x30..=0x33
                | 0x38..=0x3a
                | 0x40..=0x48
                | 0x50..=0x52
                | 0x58..=0x5d
                | 0x70..=0x7d
                | 0x80..=0x87
                | 0x90..=0x91
        )
    }

    /// May the device of a refused translation request ask for the page? Such a
    /// request is answered without permissions and not recorded (7.1.3, 7.3).
    pub fn is_recoverable(self) -> bool {
        matches!(
            self,
            Self::LegacyBeyondWidth
                | Self::LegacyNoWrite
                | Self::LegacyNoRead
                | Self::FirstStageNotPresent
                | Self::NestedRootRead
                | Self::NestedRead
                | Self::NestedWrite
                | Self::SecondStagePermission
                | Self::NotCanonical
                | Self::Privilege
                | Self::NoExecute
                | Self::BeyondWidth
                | Self::NestedBeyondWidth
                | Self::NoWrite
                | Self::NoRead
        )
    }
}

/// The type of a recorded request: T1, the upper bit, and T2 of a fault recording
/// register (11.4.7.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordedType {
    /// A write.
    Write = 0b00,
    /// A page request.
    Page = 0b01,
    /// A read.
    Read = 0b10,
}
