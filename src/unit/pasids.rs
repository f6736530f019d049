//! Which PASIDs of an assigned device are not where the guest's tables say.
//!
//! What the guest announces may be of every PASID, and mostly is of few. So the device's
//! PASID tables and its bindings are gone through side by side, and only PASIDs that
//! differ are put elsewhere.

use super::Unit;
use super::binding::MAX_PASIDS;
use super::device::Device;
use crate::translate::pasids::PasidTables;

/// About as much as comparing so many takes.
pub(super) const STEPS_AT_A_TIME: u64 = 1 << 12;

/// How far the PASIDs of a device have been compared.
pub(super) struct Scan {
    /// None: no PASID can be translated.
    tables: Option<PasidTables>,
    /// The next PASID; None at the end.
    next: Option<u32>,
    /// PASIDs found that can be translated.
    found: usize,
}

impl Unit {
    /// Begin to compare.
    pub(super) fn scan_pasids(&self, device: &Device) -> Scan {
        let control = self.control.get();
        let tables = || {
            PasidTables::of(
                &*self.memory,
                &self.capabilities,
                control.root,
                device.source_id(),
            )
        };
        Scan {
            tables: control.enabled.then(tables).flatten(),
            next: self.capabilities.ecap.pasid().then_some(0),
            found: 0,
        }
    }

    /// Compare so many more PASIDs that nobody waits for the locks for long: those that
    /// are not where the guest's tables say, maybe none. None at the end.
    ///
    /// PASIDs that can be translated neither before nor now are passed over: those of them
    /// that the host may still have attached are unsettled, and tried again as such.
    pub(super) fn next_strays(&self, device: &Device, scan: &mut Scan) -> Option<Vec<u32>> {
        let bound = device.host.as_ref()?;
        let from = scan.next?;
        let mut strays = Vec::new();
        let memory = self.memory.locked();
        device.with_pasids(|bindings| {
            let mut known = bindings.iter_from(from).peekable();
            let found = &mut scan.found;
            scan.next = scan.tables.as_ref().and_then(|tables| {
                tables.visit(&memory, &self.capabilities, from, |translated| {
                    let pasid = translated.pasid;
                    *found = found.saturating_add(1);
                    while let Some((other, _)) = known.next_if(|&(other, _)| other < pasid) {
                        strays.push(other);
                    }
                    match known.next_if(|&(other, _)| other == pasid) {
                        Some((_, binding)) if binding.is_settled(bound, translated) => {}
                        Some(_) => strays.push(pasid),
                        None if *found <= MAX_PASIDS && self.is_pasid_of_host(pasid) => {
                            strays.push(pasid);
                        }
                        None => {}
                    }
                })
            });
            // What is left has nothing in the tables any more.
            let next = scan.next.unwrap_or(u32::MAX);
            while let Some((other, _)) = known.next_if(|&(other, _)| other < next) {
                strays.push(other);
            }
        });
        Some(strays)
    }
}
