//! Diagnostic codes: which check refused a request, finer than the fault reason.

use core::ffi::CStr;

macro_rules! diagnostics {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Which check refused a request. Numbers are only ever appended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Diagnostic {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Diagnostic {
            /// Name of a diagnostic number, "none" for 0, "unknown" for a number that
            /// is none.
            pub fn name_of(number: u32) -> &'static CStr {
                match number { 0 => c"none", $($number => $name,)* _ => c"unknown" }
            }
        }
    };
}

impl Diagnostic {
    /// Was a table not in RAM?
    pub fn is_table_access(self) -> bool {
        matches!(
            self,
            Self::RootAccess
                | Self::ContextAccess
                | Self::DirectoryAccess
                | Self::PasidAccess
                | Self::FirstStageAccess
                | Self::InterruptEntryAccess
                | Self::SecondStageAccess
        )
    }
}

diagnostics! {
    /// RTADDR.TTM is legacy mode, which has no requests with PASID and no page requests.
    LegacyMode = 1, c"legacy_mode";
    /// RTADDR.TTM is reserved, or a mode that is not reported.
    TableMode = 2, c"table_mode";
    /// The root table is not in RAM.
    RootAccess = 3, c"root_access";
    /// Root entry not present.
    RootNotPresent = 4, c"root_not_present";
    /// Root entry: reserved bits.
    RootReserved = 5, c"root_reserved";
    /// The context table is not in RAM.
    ContextAccess = 6, c"context_access";
    /// Context entry not present.
    ContextNotPresent = 7, c"context_not_present";
    /// Context entry: reserved bits.
    ContextReserved = 8, c"context_reserved";
    /// Context entry: DTE, PASIDE or PRE without the capability.
    ContextCapability = 9, c"context_capability";
    /// The PASID directory is not in RAM.
    DirectoryAccess = 10, c"directory_access";
    /// PASID directory entry not present.
    DirectoryNotPresent = 11, c"directory_not_present";
    /// PASID directory entry: reserved bits.
    DirectoryReserved = 12, c"directory_reserved";
    /// The PASID table is not in RAM.
    PasidAccess = 13, c"pasid_access";
    /// PASID entry not present.
    PasidNotPresent = 14, c"pasid_not_present";
    /// PASID entry: reserved bits.
    PasidReserved = 15, c"pasid_reserved";
    /// PASID entry: a bit whose capability is not reported.
    PasidCapability = 16, c"pasid_capability";
    /// PASID entry: PGTT is reserved or its capability is not reported.
    PasidTranslationType = 17, c"pasid_translation_type";
    /// PASID entry: FSPM is reserved or its capability is not reported.
    PasidPagingMode = 18, c"pasid_paging_mode";
    /// PASID entry: FSPTPTR or SSPTPTR is beyond the address width.
    PasidTablePointer = 19, c"pasid_table_pointer";
    /// The address is not canonical.
    NotCanonical = 20, c"not_canonical";
    /// A first-stage table is not in RAM.
    FirstStageAccess = 21, c"first_stage_access";
    /// A first-stage entry is not present.
    FirstStageNotPresent = 22, c"first_stage_not_present";
    /// A first-stage entry: reserved bits.
    FirstStageReserved = 23, c"first_stage_reserved";
    /// A first-stage entry denies user requests.
    FirstStageSupervisor = 24, c"first_stage_supervisor";
    /// A first-stage entry denies writing.
    FirstStageReadOnly = 25, c"first_stage_read_only";
    /// The accessed or dirty bit could not be set: the entry is in read-only RAM.
    AccessedDirtyReadOnly = 26, c"accessed_dirty_read_only";
    /// The entries changed each time the accessed or dirty bit was to be set.
    AccessedDirtyContended = 27, c"accessed_dirty_contended";
    /// The translated address is in the interrupt range.
    InterruptRange = 28, c"interrupt_range";
    /// The host's second stage does not map the page.
    ParentUnmapped = 29, c"parent_unmapped";
    /// The host's second stage maps the page read-only.
    ParentReadOnly = 30, c"parent_read_only";
    /// The host refused the configuration; the device is blocked.
    HostRefused = 31, c"host_refused";
    /// The device is blocked until the guest announces its new configuration.
    NotAnnounced = 32, c"not_announced";
    /// The address is beyond the address width.
    BeyondWidth = 33, c"beyond_width";
    /// An interrupt request outside of the interrupt range.
    InterruptAddress = 34, c"interrupt_address";
    /// An interrupt request with PASID.
    InterruptPasid = 35, c"interrupt_pasid";
    /// A remappable interrupt request: reserved bits of its data.
    InterruptData = 36, c"interrupt_data";
    /// A compatibility-format interrupt request while GSTS.CFIS is clear.
    InterruptCompatibility = 37, c"interrupt_compatibility";
    /// A compatibility-format interrupt request in extended interrupt mode.
    InterruptCompatibilityExtended = 38, c"interrupt_compatibility_extended";
    /// Interrupt remapping is on, but SIRTP never set a table.
    InterruptTableUnset = 39, c"interrupt_table_unset";
    /// The index is beyond the interrupt remapping table.
    InterruptIndex = 40, c"interrupt_index";
    /// The interrupt remapping table entry is beyond the address width.
    InterruptEntryBeyondWidth = 41, c"interrupt_entry_beyond_width";
    /// The interrupt remapping table entry is not in RAM.
    InterruptEntryAccess = 42, c"interrupt_entry_access";
    /// Interrupt remapping table entry not present.
    InterruptEntryNotPresent = 43, c"interrupt_entry_not_present";
    /// Interrupt remapping table entry: reserved bits.
    InterruptEntryReserved = 44, c"interrupt_entry_reserved";
    /// Interrupt remapping table entry: posted, which is not reported.
    InterruptEntryPosted = 45, c"interrupt_entry_posted";
    /// Interrupt remapping table entry: a destination ID of more than 8 bits without
    /// extended interrupt mode.
    InterruptEntryDestination = 46, c"interrupt_entry_destination";
    /// Interrupt remapping table entry: SVT is 11b.
    InterruptEntryValidation = 47, c"interrupt_entry_validation";
    /// The requester is not the one in the interrupt remapping table entry.
    InterruptSourceId = 48, c"interrupt_source_id";
    /// The requester's bus is not in the range of the interrupt remapping table entry.
    InterruptSourceBus = 49, c"interrupt_source_bus";
    /// A page request in legacy mode.
    PageRequestLegacy = 50, c"page_request_legacy";
    /// RTADDR.TTM is abort-DMA.
    AbortDma = 51, c"abort_dma";
    /// Context entry: PRE without DTE.
    ContextPageRequest = 52, c"context_page_request";
    /// Context entry: DTE is clear.
    DeviceTlbDisabled = 53, c"device_tlb_disabled";
    /// Context entry: PRE is clear.
    PageRequestDisabled = 54, c"page_request_disabled";
    /// Context entry: PASIDE is clear.
    PasidDisabled = 55, c"pasid_disabled";
    /// The PASID is beyond the PASID directory.
    PasidBeyondDirectory = 56, c"pasid_beyond_directory";
    /// Legacy context entry: AW is not in CAP.SAGAW, or not the largest of it.
    ContextAddressWidth = 57, c"context_address_width";
    /// Legacy context entry: TT is reserved or its capability is not reported.
    ContextTranslationType = 58, c"context_translation_type";
    /// PASID entry: AW is not in CAP.SAGAW.
    PasidAddressWidth = 59, c"pasid_address_width";
    /// An execute request, and ERE is 0.
    ExecuteDisabled = 60, c"execute_disabled";
    /// A privileged request, and SRE is 0.
    SupervisorDisabled = 61, c"supervisor_disabled";
    /// A first-stage entry denies execution.
    FirstStageNoExecute = 62, c"first_stage_no_execute";
    /// An accessed or dirty bit is to be set, and PWSNP is 0.
    AccessedDirtyNoSnoop = 63, c"accessed_dirty_no_snoop";
    /// A second-stage table is not in RAM.
    SecondStageAccess = 64, c"second_stage_access";
    /// A second-stage entry permits nothing.
    SecondStageNotPresent = 65, c"second_stage_not_present";
    /// A second-stage entry: reserved bits.
    SecondStageReserved = 66, c"second_stage_reserved";
    /// The second-stage entries deny the access.
    SecondStageDenied = 67, c"second_stage_denied";
    /// The second stage denies access to a first-stage table.
    NestedTableDenied = 68, c"nested_table_denied";
    /// A first-stage table is beyond the second stage's width.
    NestedTableBeyondWidth = 69, c"nested_table_beyond_width";
    /// Translation is off, and with it translation requests.
    TranslationOff = 70, c"translation_off";
    /// A request with PASID to the interrupt range.
    PasidInterruptRange = 71, c"pasid_interrupt_range";
}
