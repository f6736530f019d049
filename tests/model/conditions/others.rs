//! Interrupts (5.1.4) and page requests (7.4.1).

use super::{Condition, condition};
use crate::others;

pub fn conditions() -> Vec<Condition> {
    let posting = "posted interrupts are not reported, and IM is a reserved bit";
    vec![
        condition("RTA.3", 0x32, "A page request in legacy mode.")
            .qemu("No page requests.")
            .other(
                "page request in legacy mode",
                others::page_request_in_legacy_mode,
            ),
        condition("SCT.8", 0x47, "A page request, and PRE=0.")
            .qemu("No page requests.")
            .other("page request without PRE", others::page_request_without_pre),
        condition(
            "interrupt",
            0x20,
            "A reserved bit of a remappable request is set.",
        )
        .other(
            "subhandle with upper data bits",
            others::reserved_in_request,
        ),
        condition("interrupt", 0x21, "The index is beyond the table.")
            .other("index beyond the table", others::index_beyond_the_table),
        condition("interrupt", 0x22, "The entry is not present.")
            .other("interrupt entry not present", others::entry_not_present),
        condition("interrupt", 0x23, "The entry cannot be read.")
            .other("interrupt table outside RAM", others::table_outside_ram),
        condition("interrupt", 0x24, "A reserved field of the entry is not 0.")
            .qemu("Destination bits reserved without EIME are ignored.")
            .other(
                "reserved bits of an interrupt entry",
                others::reserved_in_entry,
            ),
        condition(
            "interrupt",
            0x25,
            "A request in compatibility format, with CFIS clear or EIME set.",
        )
        .qemu("Such requests always pass.")
        .other("compatibility format", others::compatibility_format),
        condition(
            "interrupt",
            0x26,
            "The requester is not the one that the entry is for (SVT, SQ, SID).",
        )
        .other("another requester", others::another_requester),
        condition(
            "interrupt",
            0x27,
            "The posted interrupt descriptor cannot be read.",
        )
        .never(posting),
        condition(
            "interrupt",
            0x28,
            "A reserved field of the posted descriptor is not 0.",
        )
        .never(posting),
        condition(
            "interrupt",
            0x29,
            "A write with PASID to the interrupt range.",
        )
        .qemu("87.")
        .other("interrupt request with PASID", others::with_pasid),
    ]
}
