//! Page groups that the guest has not answered, in a saved state.
//!
//! They are those of a host's devices. Whoever emulates a device keeps by itself what the
//! device has asked.

use super::format::{Section, Sections, Tag, Writer, check, only};
use crate::Result;

/// Groups without an answer, of a unit that takes page requests.
const GROUPS: Tag = "GRPS";

/// The group's requests have a PASID.
const WITH_PASID: u32 = 1 << 31;
const PASID: u32 = 0xf_ffff;
const GROUP: u16 = 0x1ff;

/// A group, by what its answer names it by. In the order in which it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// Requester ID of the device.
    pub source_id: u16,
    pub pasid: Option<u32>,
    pub index: u16,
}

impl Group {
    /// Can a guest have been told of it? What a host's device cannot ask is refused when
    /// it comes up.
    pub fn is_good(&self) -> bool {
        self.index & !GROUP == 0 && self.pasid.is_none_or(|pasid| pasid & !PASID == 0)
    }

    fn save(&self, section: &mut Section) {
        section.u16(self.source_id);
        section.u16(self.index);
        section.u32(self.pasid.map_or(0, |pasid| WITH_PASID | pasid));
    }
}

/// Put them into `writer`; `groups` are in order.
pub(super) fn save(writer: &mut Writer, groups: impl IntoIterator<Item = Group>) {
    writer.section(GROUPS, |section| {
        for group in groups {
            group.save(section);
        }
    });
}

/// What `sections` say is not answered.
///
/// # Errors
/// `EINVAL`: that cannot be.
pub(super) fn load(sections: &mut Sections<'_>) -> Result<Vec<Group>> {
    let mut fields = sections.next(GROUPS)?;
    let mut groups = Vec::new();
    while !fields.is_empty() {
        let number = groups.len();
        let source_id = fields.u16("a page group's requester ID")?;
        let index = fields.u16("a page group's index")?;
        let pasid = fields.u32("a page group's PASID")?;
        only(
            &format!("the index of page group {number}"),
            index.into(),
            GROUP.into(),
        )?;
        only(
            &format!("the PASID of page group {number}"),
            pasid.into(),
            (WITH_PASID | PASID).into(),
        )?;
        let has = pasid & WITH_PASID != 0;
        check(has || pasid == 0, || {
            format!("page group {number} has PASID {pasid:#x} without the bit that says so")
        })?;
        let group = Group {
            source_id,
            pasid: has.then_some(pasid & PASID),
            index,
        };
        check(groups.last().is_none_or(|last| *last < group), || {
            format!("page group {number} is not behind the one before it in order")
        })?;
        groups.push(group);
    }
    Ok(groups)
}
