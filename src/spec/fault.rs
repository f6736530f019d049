//! Fault reasons (section 7.1.3).

/// Why a request was refused: the FR field of a fault recording register. Those of
/// interrupts are 0x20 to 0x29, those of scalable mode 0x30 and above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FaultReason {
    /// LCT.4: a legacy-mode context entry is programmed in a way the hardware
    /// does not support.
    ContextInvalidLegacy = 0x03,
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
    /// SCT.5: a translation, translated or page request, but DTE is clear.
    DeviceTlbDisabled = 0x44,
    /// SCT.6: a request with PASID, but PASIDE is clear.
    PasidDisabled = 0x45,
    /// SCT.7: the PASID is beyond the PASID directory.
    PasidBeyondDirectory = 0x46,
    /// SCT.8: a page request, but PRE is clear.
    PageRequestDisabled = 0x47,
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
    /// SFS.1: a first-stage paging entry other than the topmost could not be read.
    FirstStageAccess = 0x70,
    /// SFS.2: a first-stage paging entry is not present.
    FirstStageNotPresent = 0x71,
    /// SFS.3: a reserved field of a first-stage paging entry is not 0.
    FirstStageReserved = 0x72,
    /// SFS.4: the topmost first-stage entry could not be read.
    FirstStageRootAccess = 0x73,
    /// SSS.2: the second stage does not permit the access, or does not map it:
    /// its entries have no present bit.
    SecondStagePermission = 0x79,
    /// SGN.1: the address is not canonical for the first stage.
    NotCanonical = 0x80,
    /// SGN.2: a user request to a supervisor page.
    Privilege = 0x81,
    /// SGN.4: the address is beyond the hardware's width.
    BeyondWidth = 0x83,
    /// SGN.6: a write without write permission.
    NoWrite = 0x85,
    /// SGN.8: the translated address is in the interrupt range.
    InterruptRange = 0x87,
    /// SFS.10: the accessed or dirty bit could not be set.
    AccessedDirty = 0x91,
}

impl FaultReason {
    /// The FR value.
    pub fn code(self) -> u8 {
        self as u8
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
