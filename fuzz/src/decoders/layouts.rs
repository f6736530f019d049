//! Layouts: what is decoded into fields and encoded from them again is what it was, but for bits that
//! have no field.

use nested_vtd::spec::{
    descriptors, interrupt, page_request, paging, pasid, registers, root_context,
};

macro_rules! layouts {
    ($word:ident, $($module:ident::$name:ident: $kind:ty, $mask:literal, $($get:ident $with:ident)+;)+) => {
        $({
            // Truncation is what a 4-byte register does.
            let word = $word as $kind;
            let decoded = $module::$name::from_bits(word);
            assert_eq!(decoded.into_bits(), word, stringify!($name));
            let encoded = $module::$name::new()$(.$with(decoded.$get()))+;
            assert_eq!(encoded.into_bits(), word & $mask, "{} of {word:#x}", stringify!($name));
        })+
    };
}

/// All layouts of a word.
pub fn run(word: u64) {
    layouts! {
        word,
        descriptors::Generic: u64, 0xe0f, type_low with_type_low type_high with_type_high;
        descriptors::ContextCacheLow: u64, 0xffff_ffff_ffff_ffff, type_low with_type_low granularity
            with_granularity reserved0 with_reserved0 type_high with_type_high reserved1 with_reserved1
            domain_id with_domain_id source_id with_source_id function_mask with_function_mask reserved2
            with_reserved2;
        descriptors::IotlbLow: u64, 0xffff_ffff_ffff_ffff, type_low with_type_low granularity
            with_granularity drain_writes with_drain_writes drain_reads with_drain_reads reserved0
            with_reserved0 type_high with_type_high reserved1 with_reserved1 domain_id with_domain_id
            reserved2 with_reserved2;
        descriptors::IotlbHigh: u64, 0xffff_ffff_ffff_ffff, address_mask with_address_mask leaf_only
            with_leaf_only reserved with_reserved page with_page;
        descriptors::DeviceTlbLow: u64, 0xffff_ffff_ffff_ffff, type_low with_type_low reserved0
            with_reserved0 type_high with_type_high pf_source_low with_pf_source_low max_pending
            with_max_pending reserved1 with_reserved1 source_id with_source_id reserved2 with_reserved2
            pf_source_high with_pf_source_high;
        descriptors::DeviceTlbHigh: u64, 0xffff_ffff_ffff_ffff, size with_size reserved with_reserved
            page with_page;
        descriptors::InterruptEntryCacheLow: u64, 0xffff_ffff_ffff_ffff, type_low with_type_low by_index
            with_by_index reserved0 with_reserved0 type_high with_type_high reserved1 with_reserved1
            index_mask with_index_mask index with_index reserved2 with_reserved2;
        descriptors::WaitLow: u64, 0xffff_ffff_ffff_ffff, type_low with_type_low interrupt
            with_interrupt status_write with_status_write fence with_fence page_drain with_page_drain
            reserved0 with_reserved0 type_high with_type_high reserved1 with_reserved1 data with_data;
        descriptors::WaitHigh: u64, 0xffff_ffff_ffff_ffff, reserved with_reserved dword with_dword;
        descriptors::PasidLow: u64, 0xffff_ffff_ffff_ffff, type_low with_type_low granularity
            with_granularity reserved0 with_reserved0 type_high with_type_high reserved1 with_reserved1
            domain_id with_domain_id pasid with_pasid reserved2 with_reserved2;
        descriptors::PasidDeviceTlbLow: u64, 0xffff_ffff_ffff_ffff, type_low with_type_low max_pending
            with_max_pending type_high with_type_high pf_source_low with_pf_source_low source_id
            with_source_id pasid with_pasid pf_source_high with_pf_source_high;
        descriptors::PasidDeviceTlbHigh: u64, 0xffff_ffff_ffff_ffff, global with_global reserved
            with_reserved size with_size page with_page;
        descriptors::PageGroupResponseLow: u64, 0xffff_ffff_ffff_ffff, type_low with_type_low
            pasid_present with_pasid_present reserved0 with_reserved0 type_high with_type_high code
            with_code source_id with_source_id pasid with_pasid reserved1 with_reserved1;
        descriptors::PageGroupResponseHigh: u64, 0xffff_ffff_ffff_ffff, reserved0 with_reserved0 group
            with_group reserved1 with_reserved1;
        interrupt::RequestAddress: u32, 0xffff_fffc, handle_high with_handle_high subhandle_valid
            with_subhandle_valid remappable with_remappable handle_low with_handle_low base with_base;
        interrupt::RequestData: u32, 0xffff_ffff, subhandle with_subhandle reserved with_reserved;
        interrupt::EntryLow: u64, 0xffff_ffff_ffff_ffff, present with_present fault_disable
            with_fault_disable logical with_logical redirection_hint with_redirection_hint level
            with_level delivery_mode with_delivery_mode available with_available reserved0
            with_reserved0 posted with_posted vector with_vector reserved1 with_reserved1 destination
            with_destination;
        interrupt::EntryHigh: u64, 0xffff_ffff_ffff_ffff, source_id with_source_id qualifier
            with_qualifier validation with_validation reserved with_reserved;
        interrupt::MessageAddress: u64, 0xffff_ff00_ffff_f00c, logical with_logical redirection_hint
            with_redirection_hint destination_low with_destination_low base with_base destination_high
            with_destination_high;
        interrupt::MessageData: u32, 0xc7ff, vector with_vector delivery_mode with_delivery_mode assert
            with_assert level with_level;
        page_request::PageRequestLow: u64, 0xffff_ffff_ffff_ffff, kind with_kind pasid_present
            with_pasid_present reserved0 with_reserved0 source_id with_source_id pasid with_pasid
            execute with_execute privileged with_privileged reserved1 with_reserved1;
        page_request::PageRequestHigh: u64, 0xffff_ffff_ffff_ffff, read with_read write with_write last
            with_last group with_group page with_page;
        paging::FirstStageEntry: u64, 0x800f_ffff_ffff_f5ff, present with_present writable with_writable
            user with_user write_through with_write_through cache_disable with_cache_disable accessed
            with_accessed dirty with_dirty page_size with_page_size global with_global extended_accessed
            with_extended_accessed frame with_frame execute_disable with_execute_disable;
        paging::SecondStageEntry: u64, 0x400f_ffff_ffff_fbff, readable with_readable writable
            with_writable executable with_executable memory_type with_memory_type ignore_attributes
            with_ignore_attributes page_size with_page_size accessed with_accessed dirty with_dirty
            snoop with_snoop frame with_frame transient_mapping with_transient_mapping;
        pasid::DirectoryEntry: u64, 0xffff_ffff_ffff_ffff, present with_present fault_disable
            with_fault_disable reserved with_reserved table with_table;
        pasid::PasidEntry0: u64, 0xffff_ffff_ffff_ffff, present with_present fault_disable
            with_fault_disable address_width with_address_width second_stage_execute
            with_second_stage_execute translation_type with_translation_type second_stage_accessed_dirty
            with_second_stage_accessed_dirty reserved with_reserved second_stage_table
            with_second_stage_table;
        pasid::PasidEntry1: u64, 0xffff_ffff_ffff_ffff, domain_id with_domain_id reserved with_reserved
            page_walk_snoop with_page_walk_snoop page_snoop with_page_snoop cache_disable
            with_cache_disable memory_type_enable with_memory_type_enable memory_type with_memory_type
            write_through with_write_through page_cache_disable with_page_cache_disable page_attributes
            with_page_attributes;
        pasid::PasidEntry2: u64, 0xffff_ffff_ffff_ffff, supervisor_request with_supervisor_request
            execute_request with_execute_request paging_mode with_paging_mode write_protect
            with_write_protect no_execute with_no_execute supervisor_execute_prevention
            with_supervisor_execute_prevention extended_accessed with_extended_accessed reserved
            with_reserved first_stage_table with_first_stage_table;
        registers::Cap: u64, 0xf9ff_ffbf_ff7f_1fff, domains with_domains advanced_fault_log
            with_advanced_fault_log write_buffer_flush with_write_buffer_flush protected_low
            with_protected_low protected_high with_protected_high caching_mode with_caching_mode
            second_stage_widths with_second_stage_widths address_width with_address_width
            zero_length_read with_zero_length_read fault_offset with_fault_offset
            second_stage_large_pages with_second_stage_large_pages page_selective with_page_selective
            fault_records with_fault_records max_address_mask with_max_address_mask write_drain
            with_write_drain read_drain with_read_drain first_stage_1g with_first_stage_1g
            posted_interrupts with_posted_interrupts first_stage_5_level with_first_stage_5_level
            enhanced_commands with_enhanced_commands sirtp_invalidates with_sirtp_invalidates
            srtp_invalidates with_srtp_invalidates;
        registers::Ecap: u64, 0x33_fffe_e6f3_ffdf, coherent with_coherent queued_invalidation
            with_queued_invalidation device_tlb with_device_tlb interrupt_remapping
            with_interrupt_remapping extended_interrupt_mode with_extended_interrupt_mode pass_through
            with_pass_through snoop_control with_snoop_control iotlb_offset with_iotlb_offset
            max_handle_mask with_max_handle_mask memory_type with_memory_type nested with_nested
            page_request with_page_request execute_request with_execute_request supervisor_request
            with_supervisor_request no_write_flag with_no_write_flag extended_accessed
            with_extended_accessed pasid_size with_pasid_size pasid with_pasid device_tlb_throttle
            with_device_tlb_throttle page_request_drain with_page_request_drain scalable_mode
            with_scalable_mode virtual_command with_virtual_command second_stage_accessed_dirty
            with_second_stage_accessed_dirty second_stage with_second_stage first_stage with_first_stage
            page_walk_coherent with_page_walk_coherent rid_pasid with_rid_pasid abort_dma with_abort_dma
            rid_privilege with_rid_privilege;
        registers::Global: u32, 0xff80_0000, compatibility_interrupts with_compatibility_interrupts
            interrupt_table with_interrupt_table interrupt_remapping with_interrupt_remapping
            queued_invalidation with_queued_invalidation write_buffer_flush with_write_buffer_flush
            advanced_fault_log with_advanced_fault_log fault_log with_fault_log root_table
            with_root_table translation with_translation;
        registers::RootTableAddress: u64, 0xffff_ffff_ffff_fc00, mode with_mode table with_table;
        registers::ContextCommand: u64, 0xf800_0003_ffff_ffff, domain_id with_domain_id source_id
            with_source_id function_mask with_function_mask actual_granularity with_actual_granularity
            granularity with_granularity invalidate with_invalidate;
        registers::IotlbCommand: u64, 0xb603_ffff_0000_0000, domain_id with_domain_id drain_writes
            with_drain_writes drain_reads with_drain_reads actual_granularity with_actual_granularity
            granularity with_granularity invalidate with_invalidate;
        registers::FaultStatus: u32, 0xffff, overflow with_overflow pending with_pending
            advanced_overflow with_advanced_overflow advanced_pending with_advanced_pending queue_error
            with_queue_error completion_error with_completion_error timeout_error with_timeout_error
            page_request_overflow with_page_request_overflow first_record with_first_record;
        registers::EventControl: u32, 0xc000_0000, pending with_pending masked with_masked;
        registers::QueueAddress: u64, 0xffff_ffff_ffff_f807, size with_size wide with_wide queue
            with_queue;
        registers::QueueErrorRecord: u64, 0xffff_ffff_0000_000f, info with_info timeout_source
            with_timeout_source completion_source with_completion_source;
        registers::InterruptTableAddress: u64, 0xffff_ffff_ffff_f80f, size with_size
            extended_interrupt_mode with_extended_interrupt_mode table with_table;
        registers::PageQueueAddress: u64, 0xffff_ffff_ffff_f007, size with_size queue with_queue;
        registers::PageRequestStatus: u32, 0x3, pending with_pending overflow with_overflow;
        registers::FaultRecordLow: u64, 0xffff_ffff_ffff_f000, page with_page;
        registers::FaultRecordHigh: u64, 0xffff_ffff_f000_ffff, source_id with_source_id type2
            with_type2 privileged with_privileged execute with_execute pasid_present with_pasid_present
            reason with_reason pasid with_pasid address_type with_address_type read with_read fault
            with_fault;
        root_context::RootEntryHalf: u64, 0xffff_ffff_ffff_ffff, present with_present reserved
            with_reserved table with_table;
        root_context::ContextLow: u64, 0xffff_ffff_ffff_ffff, present with_present fault_disable
            with_fault_disable device_tlb with_device_tlb pasid_enable with_pasid_enable page_request
            with_page_request reserved with_reserved directory_size with_directory_size directory
            with_directory;
        root_context::ContextHigh: u64, 0xffff_ffff_ffff_ffff, rid_pasid with_rid_pasid rid_privilege
            with_rid_privilege reserved with_reserved;
        root_context::LegacyRootLow: u64, 0xffff_ffff_ffff_ffff, present with_present reserved
            with_reserved table with_table;
        root_context::LegacyContextLow: u64, 0xffff_ffff_ffff_ffff, present with_present fault_disable
            with_fault_disable translation_type with_translation_type reserved with_reserved
            second_stage_table with_second_stage_table;
        root_context::LegacyContextHigh: u64, 0xffff_ffff_ffff_ffff, address_width with_address_width
            available with_available reserved0 with_reserved0 domain_id with_domain_id reserved1
            with_reserved1;
    }
}
