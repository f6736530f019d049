//! One line for one entry: where it is, its qwords, and what they say.

use crate::spec::paging::{FirstStageEntry, SecondStageEntry};
use crate::spec::pasid::{
    DirectoryEntry, PASID_ENTRY_QWORDS, PasidEntry0, PasidEntry1, PasidEntry2,
};
use crate::spec::registers::TableMode;
use crate::spec::root_context::{
    ContextHigh, ContextLow, LegacyContextHigh, LegacyContextLow, LegacyRootLow, RootEntryHalf,
};

/// A qword that was read, None where there is no RAM.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub address: u64,
    pub value: Option<u64>,
}

/// Lines for the entries that a lookup has read: each begins where the one before
/// is complete.
pub(super) fn of_tables(mode: TableMode, mut reads: &[Read]) -> Vec<String> {
    let legacy: &[Layout] = &[
        ("Root entry", 2, legacy_root),
        ("Context entry", 2, legacy_context),
    ];
    let scalable: &[Layout] = &[
        ("Root entry", 1, root),
        ("Context entry", 4, context),
        ("PASID directory entry", 1, directory),
        ("PASID entry", PASID_ENTRY_QWORDS, pasid),
    ];
    let layouts = if mode == TableMode::Legacy {
        legacy
    } else {
        scalable
    };
    let mut lines = Vec::new();
    for &(name, qwords, decode) in layouts {
        let (entry, rest) = reads.split_at(qwords.min(reads.len()));
        if !entry.is_empty() {
            lines.push(line(name, entry, decode));
        }
        reads = rest;
    }
    lines
}

/// Name, qwords, and what those say.
type Layout = (&'static str, usize, fn(&[u64]) -> String);

/// A first-stage entry, by Linux's names of the levels.
pub(super) fn first_stage(level: u32, read: Read) -> String {
    line(
        &format!("First-stage {}", level_name(level)),
        &[read],
        |qwords| {
            let entry = FirstStageEntry::from_bits(qword(qwords, 0));
            flags(&[
                ("P", entry.present()),
                ("RW", entry.writable()),
                ("US", entry.user()),
                ("A", entry.accessed()),
                ("D", entry.dirty()),
                ("PS", entry.page_size()),
                ("G", entry.global()),
                ("EA", entry.extended_accessed()),
                ("XD", entry.execute_disable()),
            ])
        },
    )
}

/// A second-stage entry.
pub(super) fn second_stage(level: u32, read: Read) -> String {
    line(
        &format!("Second-stage {}", level_name(level)),
        &[read],
        |qwords| {
            let entry = SecondStageEntry::from_bits(qword(qwords, 0));
            flags(&[
                ("R", entry.readable()),
                ("W", entry.writable()),
                ("X", entry.executable()),
                ("PS", entry.page_size()),
                ("A", entry.accessed()),
                ("D", entry.dirty()),
                ("SNP", entry.snoop()),
                ("TM", entry.transient_mapping()),
            ])
        },
    )
}

fn level_name(level: u32) -> &'static str {
    match level {
        1 => "PTE",
        2 => "PDE",
        3 => "PDPE",
        4 => "PML4E",
        _ => "PML5E",
    }
}

fn line(name: &str, reads: &[Read], decode: fn(&[u64]) -> String) -> String {
    let address = reads.first().map_or(0, |read| read.address);
    let mut text = format!("{name:<21} @{address:#018x}");
    let mut qwords = Vec::new();
    for read in reads {
        match read.value {
            Some(qword) => {
                text.push_str(&format!(" {qword:#018x}"));
                qwords.push(qword);
            }
            None => text.push_str(" not in RAM"),
        }
    }
    if qwords.len() == reads.len() {
        text.push_str(&decode(&qwords));
    }
    text
}

fn qword(qwords: &[u64], index: usize) -> u64 {
    qwords.get(index).copied().unwrap_or(0)
}

fn flags(flags: &[(&str, bool)]) -> String {
    flags
        .iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| format!(" {name}"))
        .collect()
}

fn legacy_root(qwords: &[u64]) -> String {
    flags(&[("P", LegacyRootLow::from_bits(qword(qwords, 0)).present())])
}

fn legacy_context(qwords: &[u64]) -> String {
    let low = LegacyContextLow::from_bits(qword(qwords, 0));
    let high = LegacyContextHigh::from_bits(qword(qwords, 1));
    let set = flags(&[("P", low.present()), ("FPD", low.fault_disable())]);
    format!(
        "{set} TT={} AW={} DID={}",
        low.translation_type(),
        high.address_width(),
        high.domain_id()
    )
}

fn root(qwords: &[u64]) -> String {
    flags(&[("P", RootEntryHalf::from_bits(qword(qwords, 0)).present())])
}

fn context(qwords: &[u64]) -> String {
    let low = ContextLow::from_bits(qword(qwords, 0));
    let high = ContextHigh::from_bits(qword(qwords, 1));
    let set = flags(&[
        ("P", low.present()),
        ("FPD", low.fault_disable()),
        ("DTE", low.device_tlb()),
        ("PASIDE", low.pasid_enable()),
        ("PRE", low.page_request()),
        ("RID_PRIV", high.rid_privilege()),
    ]);
    format!(
        "{set} PDTS={} RID_PASID={:#x}",
        low.directory_size(),
        high.rid_pasid()
    )
}

fn directory(qwords: &[u64]) -> String {
    let entry = DirectoryEntry::from_bits(qword(qwords, 0));
    flags(&[("P", entry.present()), ("FPD", entry.fault_disable())])
}

fn pasid(qwords: &[u64]) -> String {
    let first = PasidEntry0::from_bits(qword(qwords, 0));
    let second = PasidEntry1::from_bits(qword(qwords, 1));
    let third = PasidEntry2::from_bits(qword(qwords, 2));
    let set = flags(&[
        ("P", first.present()),
        ("FPD", first.fault_disable()),
        ("SSEE", first.second_stage_execute()),
        ("SSADE", first.second_stage_accessed_dirty()),
        ("PWSNP", second.page_walk_snoop()),
        ("PGSNP", second.page_snoop()),
        ("SRE", third.supervisor_request()),
        ("ERE", third.execute_request()),
        ("WPE", third.write_protect()),
        ("NXE", third.no_execute()),
        ("SMEP", third.supervisor_execute_prevention()),
        ("EAFE", third.extended_accessed()),
    ]);
    format!(
        "{set} PGTT={} AW={} FSPM={} DID={}",
        first.translation_type(),
        first.address_width(),
        third.paging_mode(),
        second.domain_id()
    )
}
