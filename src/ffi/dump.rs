//! Dumps: what is in the unit and in the guest's tables, as text.

use core::ffi::{c_char, c_int, c_void};
use std::ffi::CString;

use super::convert::{only, pasid_of};
use super::error::{guard, invalid};
use super::outstruct::read_sized;
use super::{NvtdUnit, unit_ref};
use crate::Result;
use crate::unit::Dump;

/// NvtdDump.kind: the registers, as Linux's iommu_regset lists them. `address` is
/// where the guest has the register window; it is only printed.
pub const NVTD_DUMP_REGISTERS: u32 = 1;
/// NvtdDump.kind: the invalidation queue, as Linux's invalidation_queue lists it.
pub const NVTD_DUMP_QUEUE: u32 = 2;
/// NvtdDump.kind: root, context and PASID entries, as Linux's
/// dmar_translation_struct lists them; those of `device`, or with 0 all of them.
pub const NVTD_DUMP_TABLES: u32 = 3;
/// NvtdDump.kind: each entry that a request of `device` (with `pasid`, if
/// NVTD_DUMP_PASID) for `address` would read, from the root entry to the leaf, and
/// what would come of reading and of writing. The tables are walked as they are
/// now, whatever is cached.
pub const NVTD_DUMP_WALK: u32 = 4;
/// NvtdDump.kind: what the tables of `device` (of `pasid`, if NVTD_DUMP_PASID) map
/// from `address` to `last` (0: to the end), as Linux's domain_translation_struct
/// lists it. With nested translation first, as Linux does, all of the second stage,
/// then the first.
pub const NVTD_DUMP_MAPPINGS: u32 = 5;
/// NvtdDump.kind: the interrupt remapping table, as Linux's ir_translation_struct
/// lists it.
pub const NVTD_DUMP_INTERRUPTS: u32 = 6;

/// NvtdDump.flags: the requests have the PASID in `pasid`; without it they have none.
pub const NVTD_DUMP_PASID: u32 = 1;

/// What nvtd_dump() is to give. Fields that the kind does not name are 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NvtdDump {
    /// sizeof(NvtdDump).
    pub size: usize,
    /// NVTD_DUMP_*.
    pub kind: u32,
    /// Handle of a device.
    pub device: u32,
    /// NVTD_DUMP_PASID or 0.
    pub flags: u32,
    /// PASID, 20 bits.
    pub pasid: u32,
    /// An address.
    pub address: u64,
    /// The last address.
    pub last: u64,
}

impl NvtdDump {
    const EMPTY: Self = Self {
        size: size_of::<Self>(),
        kind: 0,
        device: 0,
        flags: 0,
        pasid: 0,
        address: 0,
        last: 0,
    };

    fn pasid(&self) -> Result<Option<u32>> {
        only("what->flags", self.flags.into(), NVTD_DUMP_PASID.into())?;
        pasid_of(self.flags & NVTD_DUMP_PASID != 0, self.pasid)
    }
}

/// A field that the kind of dump does not have must be 0.
fn unused(kind: &str, fields: &[(&str, u64)]) -> Result<()> {
    match fields.iter().find(|(_, value)| *value != 0) {
        None => Ok(()),
        Some((name, value)) => Err(invalid(format!(
            "what->{name} is {value:#x}, but {kind} has no use for it; leave it 0"
        ))),
    }
}

impl Dump {
    fn from_c(what: &NvtdDump) -> Result<Self> {
        let device = ("device", u64::from(what.device));
        let flags = ("flags", u64::from(what.flags));
        let pasid = ("pasid", u64::from(what.pasid));
        let address = ("address", what.address);
        let last = ("last", what.last);
        match what.kind {
            NVTD_DUMP_REGISTERS => {
                unused("NVTD_DUMP_REGISTERS", &[device, flags, pasid, last])?;
                Ok(Self::Registers { base: what.address })
            }
            NVTD_DUMP_QUEUE => {
                unused("NVTD_DUMP_QUEUE", &[device, flags, pasid, address, last])?;
                Ok(Self::Queue)
            }
            NVTD_DUMP_TABLES => {
                unused("NVTD_DUMP_TABLES", &[flags, pasid, address, last])?;
                Ok(Self::Tables {
                    device: (what.device != 0).then_some(what.device),
                })
            }
            NVTD_DUMP_WALK => {
                unused("NVTD_DUMP_WALK", &[last])?;
                Ok(Self::Walk {
                    device: what.device,
                    pasid: what.pasid()?,
                    address: what.address,
                })
            }
            NVTD_DUMP_MAPPINGS => Ok(Self::Mappings {
                device: what.device,
                pasid: what.pasid()?,
                range: what.address..=if what.last == 0 { u64::MAX } else { what.last },
            }),
            NVTD_DUMP_INTERRUPTS => {
                unused(
                    "NVTD_DUMP_INTERRUPTS",
                    &[device, flags, pasid, address, last],
                )?;
                Ok(Self::Interrupts)
            }
            other => Err(invalid(format!(
                "what->kind is {other}; use one of NVTD_DUMP_*"
            ))),
        }
    }
}

/// Give a text about the unit's state to `line`, line by line: NUL-terminated,
/// without line ends, valid during the call of `line`. Where Linux's driver has a
/// debugfs file for the same thing the text is laid out as there, with "dmar0" as
/// the unit's name, and ends with an empty line as there, so that both can be
/// diffed. Only for people: the wording is not stable.
///
/// The dump only looks: no accessed or dirty bit is set, no fault recorded, nothing
/// counted. It has at most 16384 lines and reads at most 4194304 table entries; if
/// that is not enough its last line says that it was cut. Any thread; `line` is
/// called with no lock held and may call anything but nvtd_unit_destroy(). What the
/// guest changes meanwhile may be seen half.
///
/// Returns 0; -EINVAL: unit, what or line is NULL, what->size is wrong, the kind is
/// none or a field that it does not have is not 0; -ENOENT: no such device. No line
/// was then given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtd_dump(
    unit: *mut NvtdUnit,
    what: *const NvtdDump,
    line: Option<unsafe extern "C" fn(opaque: *mut c_void, text: *const c_char)>,
    opaque: *mut c_void,
) -> c_int {
    guard(|| {
        // SAFETY: C promises a live unit or NULL.
        let unit = unsafe { unit_ref(unit) }?;
        // SAFETY: C promises that `what` is NULL or holds what->size bytes.
        let what = unsafe { read_sized(what, "what", NvtdDump::EMPTY) }?;
        let Some(line) = line else {
            return Err(invalid(
                "line is NULL; pass the function that takes the lines",
            ));
        };
        unit.dump(Dump::from_c(&what)?, &mut |text| {
            let text = CString::new(text).unwrap_or_default();
            // SAFETY: C promises that `line` can be called with `opaque`; the text
            // outlives the call.
            unsafe { line(opaque, text.as_ptr()) };
        })
    })
}
