//! What the guest is offered against what the host of a device has.

use super::Unit;
use crate::host::HostInfo;
use crate::memory::RegionInfo;
use crate::{Error, Result};

impl Unit {
    /// Can a device with this host keep what the guest is offered? Each refusal names
    /// both values, and the property to change.
    ///
    /// # Errors
    /// `EINVAL`: the first thing that the host lacks.
    pub(super) fn check_host(&self, host: &HostInfo) -> Result<()> {
        let (cap, ecap) = (self.capabilities.cap, self.capabilities.ecap);
        let pasid_bits = self.config.pasid_bits;
        let host_pasids = if host.ecap.pasid() {
            host.pasid_bits
        } else {
            0
        };
        let lacks = [
            (
                !host.ecap.scalable_mode() || !host.ecap.nested(),
                "the host's unit has no nested translation (ECAP.SMTS and ECAP.NEST are not \
                 both 1), which assigned devices need; use a host that has it, or host=none \
                 with caching-mode=on and second-stage=on or first-stage=on for shadowed \
                 tables"
                    .to_owned(),
            ),
            (
                !host.ecap.second_stage() || host.parent_bits() == 0,
                "the host's unit has no second-stage translation (ECAP.SSTS is 0, or CAP.SAGAW \
                 has no width), which guest RAM is mapped by for assigned devices; use a host \
                 that has it, or host=none"
                    .to_owned(),
            ),
            (
                !host.ecap.first_stage(),
                "the host's unit has no first-stage translation (ECAP.FSTS is 0), the guest is \
                 offered it; use a host that has it, or host=none"
                    .to_owned(),
            ),
            (
                cap.first_stage_5_level() && !host.cap.first_stage_5_level(),
                "the guest is offered 57-bit addresses (CAP.FS5LP is 1), the host's unit has 48 \
                 (FS5LP is 0); use aw-bits=48 or aw-bits=auto"
                    .to_owned(),
            ),
            (
                cap.first_stage_1g() && !host.cap.first_stage_1g(),
                "the guest is offered 1 GiB first-stage pages (CAP.FS1GP is 1), the host's unit \
                 has none (FS1GP is 0); use fs1gp=off"
                    .to_owned(),
            ),
            (
                ecap.page_walk_coherent() && !host.ecap.page_walk_coherent(),
                "the guest is offered coherent table walks (ECAP.SMPWCS is 1), the host's unit \
                 has none (SMPWCS is 0); use another host, or host=none"
                    .to_owned(),
            ),
            (
                ecap.supervisor_request() && !host.ecap.supervisor_request(),
                "the guest is offered privileged requests (ECAP.SRS is 1), the host's unit has \
                 none (SRS is 0); use srs=off"
                    .to_owned(),
            ),
            (
                ecap.extended_accessed() && !host.ecap.extended_accessed(),
                "the guest is offered extended accessed bits (ECAP.EAFS is 1), the host's unit \
                 has none (EAFS is 0); use eafs=off"
                    .to_owned(),
            ),
            (
                ecap.device_tlb() && !host.ecap.device_tlb(),
                "the guest is offered device TLBs (ECAP.DT is 1), the host's unit has none (DT \
                 is 0); use device-iotlb=off"
                    .to_owned(),
            ),
            (
                ecap.page_request() && !host.ecap.page_request(),
                "the guest is offered page requests (ECAP.PRS is 1), the host's unit has none \
                 (PRS is 0); use prs=off"
                    .to_owned(),
            ),
            (
                pasid_bits > host_pasids,
                format!(
                    "the guest is offered PASIDs of {pasid_bits} bits, the device has \
                     {host_pasids} on this host; use pasid-bits={host_pasids}"
                ),
            ),
        ];
        match lacks.into_iter().find(|(lacking, _)| *lacking) {
            Some((_, sentence)) => Err(Error::invalid(sentence)),
            None => self
                .memory
                .regions()
                .iter()
                .try_for_each(|region| check_reach(host, region)),
        }
    }

    /// Can the hosts of all assigned devices map this RAM?
    ///
    /// # Errors
    /// `EINVAL`: it is beyond what one can map.
    pub(super) fn check_ram(&self, region: &RegionInfo) -> Result<()> {
        let devices = self.devices.read().all();
        devices
            .iter()
            .filter_map(|device| device.host.as_ref())
            .try_for_each(|host| check_reach(&host.info, region))
    }
}

/// The kernel would refuse it as well, but with an errno that says nothing.
fn check_reach(host: &HostInfo, region: &RegionInfo) -> Result<()> {
    let last = region.gpa.saturating_add(region.size).saturating_sub(1);
    let (needed, bits) = (
        last.checked_ilog2().map_or(0, |bit| bit.saturating_add(1)),
        host.parent_bits(),
    );
    if region.read_only || needed <= bits {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "guest RAM reaches {last:#x}, an address of {needed} bits, the host's unit maps {bits} \
         bits (CAP.MGAW and CAP.SAGAW); use less RAM or a lower place for it, so that it ends \
         below {:#x}, or another host",
        1_u64.checked_shl(bits).unwrap_or(u64::MAX)
    )))
}
