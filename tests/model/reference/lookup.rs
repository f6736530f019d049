//! From a requester to the tables that translate its requests (3.4, 9.1 to 9.6).

use super::{Capabilities, Kind, Refusal, Request, View, bit, field, mask};

/// A context entry that passed its checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    Legacy {
        translation_type: u64,
        table: u64,
        levels: u32,
        domain: u16,
        quiet: bool,
    },
    Scalable {
        device_tlb: bool,
        page_requests: bool,
        pasid_enable: bool,
        rid_pasid: u32,
        directory: u64,
        /// PASIDs that the directory has room for.
        pasids: u64,
        quiet: bool,
    },
}

/// What translates a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paging {
    pub domain: u16,
    /// The PASID that cached translations are tagged with; legacy mode has none.
    pub pasid: Option<u32>,
    pub quiet: bool,
    /// ERE and SRE.
    pub execute_requests: bool,
    pub supervisor_requests: bool,
    pub stages: Stages,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stages {
    PassThrough { width: u32, legacy: bool },
    First(First),
    Second(Second),
    Nested(First, Second),
}

/// A first-stage table and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    pub table: u64,
    pub levels: u32,
    pub write_protect: bool,
    pub no_execute: bool,
    pub supervisor_execute_prevention: bool,
    pub extended_accessed: bool,
    pub snooped: bool,
}

/// A second-stage table and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Second {
    pub table: u64,
    pub levels: u32,
    /// Addresses that can be translated.
    pub width: u32,
    pub accessed_dirty: bool,
    /// SSEE: X counts.
    pub execute: bool,
    pub snooped: bool,
    pub legacy: bool,
}

/// RTADDR.TTM (11.4.5).
pub fn table_mode(root: u64) -> u64 {
    field(root, 11, 10)
}

/// Root and context entry of `source_id`.
pub fn context(
    view: View<'_>,
    capabilities: &Capabilities,
    root: u64,
    source_id: u16,
) -> Result<Context, Refusal> {
    // 11.4.5, step 1: the table mode is one that the hardware has. RTA.1, RTA.4.
    let mode = table_mode(root);
    let supported = match mode {
        0 => true,
        1 => capabilities.scalable_mode(),
        3 => capabilities.abort_dma(),
        _ => false,
    };
    if !supported {
        return Err(Refusal::new(0x30, false));
    }
    match mode {
        // Step 2: abort-DMA mode refuses everything.
        3 => Err(Refusal::new(0x33, false)),
        1 => scalable_context(view, capabilities, root & mask(63, 12), source_id),
        _ => legacy_context(view, capabilities, root & mask(63, 12), source_id),
    }
}

fn legacy_context(
    view: View<'_>,
    capabilities: &Capabilities,
    root: u64,
    source_id: u16,
) -> Result<Context, Refusal> {
    let loud = |code| Err(Refusal::new(code, false));
    let [bus, function] = source_id.to_be_bytes();
    // 9.1, step 1: read the root entry of the bus. LRT.1.
    let Some([low, high]) = view.read_all(root + u64::from(bus) * 16) else {
        return loud(0x08);
    };
    // Step 2: it is present. LRT.2.
    if !bit(low, 0) {
        return loud(0x01);
    }
    // Step 3: bits 11:1, the upper qword and addresses beyond the host's are 0. LRT.3.
    if low & mask(11, 1) != 0 || high != 0 || low & capabilities.beyond_host() != 0 {
        return loud(0x0a);
    }
    // 9.3, step 1: read the context entry of the function. LCT.1.
    let table = low & mask(63, 12);
    let Some([low, high]) = view.read_all(table + u64::from(function) * 16) else {
        return loud(0x09);
    };
    // FPD counts whether or not the entry is present.
    let quiet = bit(low, 1);
    let refuse = |code| Err(Refusal::new(code, quiet));
    // Step 2: it is present. LCT.2.
    if !bit(low, 0) {
        return refuse(0x02);
    }
    // Step 3: bits 11:4, 71 (7 of the upper qword) and 127:88 are 0, as are address bits
    // beyond the host's, unless the entry passes all through and has no table. LCT.3.
    let has_table = field(low, 3, 2) != 2;
    if low & mask(11, 4) != 0
        || (has_table && low & capabilities.beyond_host() != 0)
        || bit(high, 7)
        || high & mask(63, 24) != 0
    {
        return refuse(0x0b);
    }
    // Step 4: the translation type and the width are ones that the hardware has: a pass-through
    // entry has the largest width, the others one of SAGAW. LCT.4.
    let translation_type = field(low, 3, 2);
    let levels = field(high, 2, 0) as u32 + 2;
    let valid = match translation_type {
        0 => capabilities.second_stage_levels(levels),
        1 => capabilities.device_tlb() && capabilities.second_stage_levels(levels),
        2 => capabilities.pass_through() && capabilities.most_levels() == Some(levels),
        _ => false,
    };
    if !valid {
        return refuse(0x03);
    }
    Ok(Context::Legacy {
        translation_type,
        table: low & mask(63, 12),
        levels,
        domain: field(high, 23, 8) as u16,
        quiet,
    })
}

fn scalable_context(
    view: View<'_>,
    capabilities: &Capabilities,
    root: u64,
    source_id: u16,
) -> Result<Context, Refusal> {
    let loud = |code| Err(Refusal::new(code, false));
    let [bus, function] = source_id.to_be_bytes();
    // 9.2, step 1: read the half of the bus's root entry that has the function: the upper one
    // from function 128 (device 16) on. SRT.1.
    let half = u64::from(function / 128);
    let Some(entry) = view.read(root + u64::from(bus) * 16 + half * 8) else {
        return loud(0x38);
    };
    // Step 2: it is present. SRT.2.
    if !bit(entry, 0) {
        return loud(0x39);
    }
    // Step 3: its reserved bits are 0. SRT.3.
    if entry & mask(11, 1) != 0 || entry & capabilities.beyond_host() != 0 {
        return loud(0x3a);
    }
    // 9.4, step 1: read the context entry, 32 bytes for each function. SCT.1.
    let address = (entry & mask(63, 12)) + u64::from(function % 128) * 32;
    let Some([low, high, third, fourth]) = view.read_all(address) else {
        return loud(0x40);
    };
    let quiet = bit(low, 1);
    let refuse = |code| Err(Refusal::new(code, quiet));
    // Step 2: it is present. SCT.2.
    if !bit(low, 0) {
        return refuse(0x41);
    }
    // Step 3: reserved bits are 0, among them the fields of capabilities that are not
    // reported. SCT.3.
    let without = |reported: bool, used: bool| used && !reported;
    if low & mask(8, 5) != 0
        || low & capabilities.beyond_host() != 0
        || high & mask(63, 21) != 0
        || third != 0
        || fourth != 0
        || without(capabilities.device_tlb(), bit(low, 2))
        || without(capabilities.pasid(), bit(low, 3))
        || without(capabilities.page_requests(), bit(low, 4))
        || without(capabilities.rid_pasid(), field(high, 19, 0) != 0)
        || without(capabilities.rid_privilege(), bit(high, 20))
    {
        return refuse(0x42);
    }
    // Step 4: page requests need a device TLB. SCT.4.
    if bit(low, 4) && !bit(low, 2) {
        return refuse(0x43);
    }
    Ok(Context::Scalable {
        device_tlb: bit(low, 2),
        page_requests: bit(low, 4),
        pasid_enable: bit(low, 3),
        rid_pasid: field(high, 19, 0) as u32,
        directory: low & mask(63, 12),
        // PDTS: 2^(PDTS + 7) directory entries of 64 PASIDs each.
        pasids: 64 << (field(low, 11, 9) + 7),
        quiet,
    })
}

/// What a context entry lets through. The PASID whose entry is to be read, or None if the request
/// has its answer without: translated requests, and all of legacy mode.
pub fn admit(context: &Context, request: &Request) -> Result<Option<u32>, Refusal> {
    match *context {
        Context::Legacy {
            translation_type,
            quiet,
            ..
        } => {
            // 3.4.2, 4.2: only TT = 01b lets a device have translations of its own. LCT.5.
            if request.kind != Kind::Untranslated && translation_type != 1 {
                return Err(Refusal::new(0x0d, quiet));
            }
            Ok(None)
        }
        Context::Scalable {
            device_tlb,
            pasid_enable,
            rid_pasid,
            pasids,
            quiet,
            ..
        } => {
            let refuse = |code| Err(Refusal::new(code, quiet));
            // 3.4.3, 4.2, step 1: a device TLB must be enabled to be used. SCT.5.
            if request.kind != Kind::Untranslated && !device_tlb {
                return refuse(0x44);
            }
            // Step 2: so must PASIDs, SCT.6; and the directory has an entry for it, SCT.7; a
            // request without gets the one that the context entry says, SCT.9.
            let pasid = match request.pasid {
                Some(_) if !pasid_enable => return refuse(0x45),
                Some(pasid) if u64::from(pasid) >= pasids => return refuse(0x46),
                None if u64::from(rid_pasid) >= pasids => return refuse(0x48),
                Some(pasid) => pasid,
                None => rid_pasid,
            };
            Ok((request.kind != Kind::Translated).then_some(pasid))
        }
    }
}

/// Legacy mode: the context entry says all.
pub fn legacy_paging(context: &Context, capabilities: &Capabilities) -> Option<Paging> {
    let Context::Legacy {
        translation_type,
        table,
        levels,
        domain,
        quiet,
    } = *context
    else {
        return None;
    };
    let width = second_stage_width(capabilities, levels);
    Some(Paging {
        domain,
        pasid: None,
        quiet,
        execute_requests: false,
        supervisor_requests: false,
        stages: if translation_type == 2 {
            Stages::PassThrough {
                width,
                legacy: true,
            }
        } else {
            Stages::Second(Second {
                table,
                levels,
                width,
                accessed_dirty: false,
                execute: false,
                snooped: true,
                legacy: true,
            })
        },
    })
}

/// 3.7: 9 bits for each level and 12 in the page, but not more than MGAW.
fn second_stage_width(capabilities: &Capabilities, levels: u32) -> u32 {
    (12 + 9 * levels).min(capabilities.guest_width())
}

/// Directory and PASID table (9.5, 9.6).
pub fn pasid_entry(
    view: View<'_>,
    capabilities: &Capabilities,
    context: &Context,
    pasid: u32,
) -> Result<Paging, Refusal> {
    let Context::Scalable {
        directory, quiet, ..
    } = *context
    else {
        panic!("legacy mode has no PASIDs");
    };
    // 9.5, step 1: read the directory entry. SPD.1.
    let Some(entry) = view.read(directory + u64::from(pasid / 64) * 8) else {
        return Err(Refusal::new(0x50, quiet));
    };
    // FPD of any entry on the way counts, present or not.
    let quiet = quiet || bit(entry, 1);
    // Step 2: it is present. SPD.2.
    if !bit(entry, 0) {
        return Err(Refusal::new(0x51, quiet));
    }
    // Step 3: its reserved bits are 0. SPD.3.
    if entry & mask(11, 2) != 0 || entry & capabilities.beyond_host() != 0 {
        return Err(Refusal::new(0x52, quiet));
    }
    // 9.6, step 1: read the PASID entry, 64 bytes. SPT.1.
    let address = (entry & mask(63, 12)) + u64::from(pasid % 64) * 64;
    let Some(words) = view.read_all::<8>(address) else {
        return Err(Refusal::new(0x58, quiet));
    };
    let quiet = quiet || bit(words[0], 1);
    // Step 2: it is present. SPT.2.
    if !bit(words[0], 0) {
        return Err(Refusal::new(0x59, quiet));
    }
    decode_pasid_entry(capabilities, &words, pasid, quiet)
}

fn decode_pasid_entry(
    capabilities: &Capabilities,
    words: &[u64; 8],
    pasid: u32,
    quiet: bool,
) -> Result<Paging, Refusal> {
    let [zero, one, two, ..] = *words;
    let refuse = |code| Err(Refusal::new(code, quiet));
    let without = |reported: bool, used: bool| used && !reported;
    // 9.6, step 3: reserved bits are 0, among them the fields of capabilities that are not
    // reported: SSADE (SSADS), PWSNP (SMPWCS), PGSNP (SC), EMTE (MTS), SRE, WPE and SMEP (SRS), ERE
    // and SSEE (ERS), EAFE (EAFS). Pointers that are used have no bits beyond the host's
    // addresses; that of a nested first stage is one of the second stage. SPT.3.
    let translation_type = field(zero, 8, 6);
    if zero & mask(11, 10) != 0
        || one & mask(22, 16) != 0
        || two & mask(11, 8) != 0
        || words[3..].iter().any(|&word| word != 0)
        || (matches!(translation_type, 2 | 3) && zero & capabilities.beyond_host() != 0)
        || (translation_type == 1 && two & capabilities.beyond_host() != 0)
        || without(capabilities.second_stage_accessed_dirty(), bit(zero, 9))
        || without(capabilities.page_walk_snoop(), bit(one, 23))
        || without(capabilities.snoop_control(), bit(one, 24))
        || without(capabilities.memory_types(), bit(one, 26))
        || without(capabilities.supervisor(), two & 0b101_0001 != 0)
        || without(capabilities.execute(), bit(two, 1) || bit(zero, 5))
        || without(capabilities.extended_accessed(), bit(two, 7))
    {
        return refuse(0x5a);
    }
    // Step 4: the translation type is one that the hardware has, and what it names is as well:
    // the second stage's width, the first stage's paging mode. SPT.4.
    let snooped = bit(one, 23);
    let levels = field(zero, 4, 2) as u32 + 2;
    let second = Second {
        table: zero & mask(63, 12),
        levels,
        width: second_stage_width(capabilities, levels),
        accessed_dirty: bit(zero, 9),
        execute: bit(zero, 5),
        snooped,
        legacy: false,
    };
    let second_valid = capabilities.second_stage_levels(levels);
    let mode = field(two, 3, 2) as u32;
    let first = First {
        table: two & mask(63, 12),
        levels: 4 + mode,
        write_protect: bit(two, 4),
        no_execute: bit(two, 5),
        supervisor_execute_prevention: bit(two, 6),
        extended_accessed: bit(two, 7),
        snooped,
    };
    let first_valid = mode == 0 || (mode == 1 && capabilities.first_stage_5_level());
    let stages = match translation_type {
        1 if capabilities.first_stage() && first_valid => Stages::First(first),
        2 if capabilities.second_stage() && second_valid => Stages::Second(second),
        3 if capabilities.nested() && first_valid && second_valid => Stages::Nested(first, second),
        4 if capabilities.pass_through() => Stages::PassThrough {
            width: capabilities.guest_width(),
            legacy: false,
        },
        _ => return refuse(0x5b),
    };
    Ok(Paging {
        domain: field(one, 15, 0) as u16,
        pasid: Some(pasid),
        quiet,
        execute_requests: bit(two, 1),
        supervisor_requests: bit(two, 0),
        stages,
    })
}

/// What a PASID entry lets through: only requests with PASID can ask for execution or privilege.
pub fn admit_pasid(paging: &Paging, request: &Request) -> Result<(), Refusal> {
    if request.pasid.is_none() {
        return Ok(());
    }
    // 9.6, step 5: ERE. SPT.5.
    if request.execute && !paging.execute_requests {
        return Err(Refusal::new(0x5c, paging.quiet));
    }
    // Step 6: SRE. SPT.6.
    if request.privileged && !paging.supervisor_requests {
        return Err(Refusal::new(0x5d, paging.quiet));
    }
    Ok(())
}

/// 7.4.1: may a device ask for pages?
pub fn page_request(
    view: View<'_>,
    capabilities: &Capabilities,
    root: u64,
    source_id: u16,
    with_pasid: Option<u32>,
) -> Result<(), Refusal> {
    // Step 1: not in legacy mode. RTA.3.
    if table_mode(root) == 0 {
        return Err(Refusal::new(0x32, false));
    }
    // Step 2: as for every request that needs a device TLB.
    let context = context(view, capabilities, root, source_id)?;
    let request = Request {
        address: 0,
        pasid: with_pasid,
        kind: Kind::Translation,
        read: true,
        write: false,
        execute: false,
        privileged: false,
    };
    admit(&context, &request)?;
    // Step 3: page requests are enabled. SCT.8.
    match context {
        Context::Scalable {
            page_requests: false,
            quiet,
            ..
        } => Err(Refusal::new(0x47, quiet)),
        _ => Ok(()),
    }
}
