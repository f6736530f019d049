//! Trace events: one list of numbers, names and arguments.
//!
//! `docs/events.md` is written from this list; numbers are only ever appended.

use core::ffi::CStr;

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A trace event and its number in the C ABI. The documentation of each
        /// lists the arguments a, b and c.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Event {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Event {
            /// Every event, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Stable name.
            pub fn name(self) -> &'static CStr {
                match self { $(Self::$variant => $name,)* }
            }

            /// Name of an event number, "unknown" for a number that is none.
            pub fn name_of(number: u32) -> &'static CStr {
                match number { $($number => $name,)* _ => c"unknown" }
            }
        }
    };
}

events! {
    /// A register access was ignored: offset, size, value (0 for a read).
    MmioIgnored = 1, c"mmio_ignored";
    /// The guest set the root table: RTADDR.
    RootTable = 2, c"root_table";
    /// Translation was switched: 1 on, 0 off.
    TranslationEnable = 3, c"translation_enable";
    /// The invalidation queue was switched: 1 on, 0 off; IQA.
    QueueEnable = 4, c"queue_enable";
    /// The invalidation queue stopped with an error: IQEI, IQH, IQT.
    QueueError = 5, c"queue_error";
    /// An invalidation descriptor is executed: type, first and second qword.
    Descriptor = 6, c"descriptor";
    /// A wait completed: status address, status data.
    WaitDone = 7, c"wait_done";
    /// A wait's status write missed writable RAM: status address.
    WaitStatusError = 8, c"wait_status_error";
    /// The host allocated a nested HWPT: HWPT, table, source ID of the device.
    HwptAlloc = 9, c"hwpt_alloc";
    /// The host refused a nested HWPT: errno, table, source ID of the device.
    HwptAllocError = 10, c"hwpt_alloc_error";
    /// A nested HWPT was destroyed: HWPT.
    HwptDestroy = 11, c"hwpt_destroy";
    /// A device was attached: source ID, HWPT, PGTT (0: translation is off).
    Attach = 12, c"attach";
    /// The host refused an attachment: source ID, HWPT, errno.
    AttachError = 13, c"attach_error";
    /// A device was detached, its DMA is blocked: source ID, fault reason.
    Detach = 14, c"detach";
    /// An invalidate call was made: HWPT, entries, guest descriptors.
    Invalidate = 15, c"invalidate";
    /// The host refused an invalidate call: HWPT, entries done, errno.
    InvalidateError = 16, c"invalidate_error";
    /// Invalidate entries were dropped by fault injection: HWPT, entries.
    InvalidateDropped = 17, c"invalidate_dropped";
    /// A request was refused: source ID, address, reason | diagnostic << 8.
    Fault = 18, c"fault";
    /// A cached translation was used that a fresh walk contradicts: source ID,
    /// address, cached guest-physical address.
    StaleUse = 19, c"stale_use";
    /// A request was translated: source ID, address, guest-physical address.
    Translate = 20, c"translate";
    /// A message-signalled interrupt is sent: address, data.
    Msi = 21, c"msi";
    /// A RAM region was added: guest-physical address, size, 1 if read-only.
    RamAdd = 22, c"ram_add";
    /// A RAM region was removed: guest-physical address, size.
    RamRemove = 23, c"ram_remove";
    /// The unit was reset.
    Reset = 24, c"reset";
    /// A page request was queued: first and second qword of its descriptor, PQT before
    /// it.
    PageRequest = 25, c"page_request";
    /// A page request was dropped as the queue had overflowed: first and second qword
    /// of its descriptor.
    PageRequestOverflow = 26, c"page_request_overflow";
    /// A page group response goes to a device: source ID, group index, response code.
    PageResponse = 27, c"page_response";
    /// A page group response names no device: source ID, group index.
    PageResponseIgnored = 28, c"page_response_ignored";
    /// The guest set the interrupt remapping table: IRTA.
    InterruptTable = 29, c"interrupt_table";
    /// Interrupt remapping or compatibility-format interrupts were switched: GSTS.IRES,
    /// GSTS.CFIS.
    InterruptEnable = 30, c"interrupt_enable";
    /// An interrupt request was remapped: source ID | index << 32, address, data.
    Interrupt = 31, c"interrupt";
    /// An interrupt request was refused: source ID | index << 32, address of the
    /// request, reason | diagnostic << 8.
    InterruptFault = 32, c"interrupt_fault";
    /// What interrupt requests were remapped to is forgotten: 1 if everything, else 0
    /// and index, log2 of the number of entries.
    InterruptInvalidate = 33, c"interrupt_invalidate";
    /// A device's translations are to be forgotten: source ID | holder << 16 (0 who
    /// keeps answers of the unit, 1 the device TLB), first address, last address.
    DeviceInvalidate = 34, c"device_invalidate";
    /// A device TLB was not invalidated: source ID, 1 if it timed out, 0 if it failed.
    DeviceInvalidateError = 35, c"device_invalidate_error";
    /// A call on the host for a device was refused: source ID, or with a PASID also PASID
    /// << 16 and bit 63, or all ones for an object that is of no device; number of the call;
    /// errno.
    HostRefused = 36, c"host_refused";
    /// An invalidation goes on after its call was refused: HWPT, entries left, 1 if all of
    /// the HWPT is invalidated instead.
    InvalidateResumed = 37, c"invalidate_resumed";
    /// A wait was aborted as a device could be neither flushed nor blocked: source ID.
    HostTimeout = 38, c"host_timeout";
    /// The unit's state was saved: bytes.
    Save = 39, c"save";
    /// The unit was given a saved state: bytes.
    Load = 40, c"load";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        for (index, event) in Event::ALL.iter().enumerate() {
            assert_eq!(*event as usize, index + 1, "numbers are dense");
            assert_eq!(Event::name_of(*event as u32), event.name());
        }
        assert_eq!(Event::name_of(0), c"unknown");
        assert_eq!(Event::name_of(9999), c"unknown");
    }

    #[test]
    fn every_event_is_documented() {
        let page = include_str!("../docs/events.md");
        for event in Event::ALL {
            let row = format!(
                "| {} | `{}` |",
                *event as u32,
                event.name().to_str().unwrap()
            );
            assert!(page.contains(&row), "docs/events.md lacks the row {row}");
        }
    }
}
