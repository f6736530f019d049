//! Invalidation (6.5): which descriptors are well-formed, and what each reaches.

use super::{bit, field, mask};

/// What a command invalidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Context entries: all.
    Contexts,
    /// Context entries of a domain.
    DomainContexts {
        domain: u16,
    },
    /// Context entries of the requesters that `source_id` names but for the bits of `ignored`.
    DeviceContexts {
        domain: u16,
        source_id: u16,
        ignored: u16,
    },
    /// PASID entries: all, of a domain, of a PASID of a domain.
    Pasids,
    DomainPasids {
        domain: u16,
    },
    Pasid {
        domain: u16,
        pasid: u32,
    },
    /// Translations, by second-stage (or legacy) address.
    Translations,
    DomainTranslations {
        domain: u16,
    },
    Pages {
        domain: u16,
        address: u64,
        order: u32,
        /// IH: only entries that map pages have changed.
        leaf_only: bool,
    },
    /// Translations of a PASID, by first-stage address.
    PasidTranslations {
        domain: u16,
        pasid: u32,
    },
    PasidPages {
        domain: u16,
        pasid: u32,
        address: u64,
        order: u32,
        leaf_only: bool,
    },
    /// Device TLBs and the interrupt entry cache: nothing that translations see.
    Other,
    /// A wait: all commands before it are done when it is.
    Wait {
        status: Option<(u64, u32)>,
    },
}

/// Bits of a requester ID that FM ignores (6.5.2.1): the upper ones of the function number.
pub fn ignored_by(function_mask: u64) -> u16 {
    [0b000, 0b100, 0b110, 0b111][function_mask as usize]
}

/// The command of a descriptor, or IQEI of the error that it is (11.4.9.9). Whether a type of a
/// capability that is not reported is an error is open; it is none for the unit.
pub fn decode(words: &[u64]) -> Result<Command, u64> {
    const TYPE: u64 = 3;
    const RESERVED: u64 = 4;
    let [low, high] = [words[0], words[1]];
    let kind = field(low, 3, 0) | field(low, 11, 9) << 4;
    let granularity = field(low, 5, 4);
    let domain = field(low, 31, 16) as u16;
    let pasid = field(low, 51, 32) as u32;
    // 6.5.2: the upper half of a 256-bit descriptor is not used by any type.
    let clear = |low_reserved: u64, high_reserved: u64| {
        let upper = words[2..].iter().any(|&word| word != 0);
        if low & low_reserved != 0 || high & high_reserved != 0 || upper {
            Err(RESERVED)
        } else {
            Ok(())
        }
    };
    match kind {
        // 6.5.2.1.
        1 => {
            clear(mask(8, 6) | mask(15, 12) | mask(63, 50), u64::MAX)?;
            match granularity {
                1 => Ok(Command::Contexts),
                2 => Ok(Command::DomainContexts { domain }),
                3 => Ok(Command::DeviceContexts {
                    domain,
                    source_id: field(low, 47, 32) as u16,
                    ignored: ignored_by(field(low, 49, 48)),
                }),
                _ => Err(RESERVED),
            }
        }
        // 6.5.2.3.
        2 => {
            clear(1 << 8 | mask(15, 12) | mask(63, 32), mask(11, 7))?;
            let order = field(high, 5, 0) as u32;
            match granularity {
                1 => Ok(Command::Translations),
                2 => Ok(Command::DomainTranslations { domain }),
                // Software is to keep to MAMV; what happens if it does not is open, and the unit
                // does what is asked.
                3 => Ok(Command::Pages {
                    domain,
                    address: high & mask(63, 12),
                    order,
                    leaf_only: bit(high, 6),
                }),
                _ => Err(RESERVED),
            }
        }
        // 6.5.2.5.
        3 => {
            clear(mask(8, 4) | mask(31, 21) | mask(51, 48), mask(11, 1))?;
            Ok(Command::Other)
        }
        // 6.5.2.7.
        4 => {
            clear(mask(8, 5) | mask(26, 12) | mask(63, 48), u64::MAX)?;
            Ok(Command::Other)
        }
        // 6.5.2.8.
        5 => {
            clear(1 << 8 | mask(31, 12), mask(1, 0))?;
            let data = field(low, 63, 32) as u32;
            Ok(Command::Wait {
                status: bit(low, 5).then_some((high & mask(63, 2), data)),
            })
        }
        // 6.5.2.4.
        6 => {
            clear(mask(8, 6) | mask(15, 12) | mask(63, 52), mask(11, 7))?;
            match granularity {
                2 => Ok(Command::PasidTranslations { domain, pasid }),
                3 => Ok(Command::PasidPages {
                    domain,
                    pasid,
                    address: high & mask(63, 12),
                    order: field(high, 5, 0) as u32,
                    leaf_only: bit(high, 6),
                }),
                _ => Err(RESERVED),
            }
        }
        // 6.5.2.2.
        7 => {
            clear(mask(8, 6) | mask(15, 12) | mask(63, 52), u64::MAX)?;
            match granularity {
                0 => Ok(Command::DomainPasids { domain }),
                1 => Ok(Command::Pasid { domain, pasid }),
                3 => Ok(Command::Pasids),
                _ => Err(RESERVED),
            }
        }
        // 6.5.2.6.
        8 => {
            clear(0, mask(10, 1))?;
            Ok(Command::Other)
        }
        // 7.7.1, whoever asked. Bit 5, and bit 2 of the upper qword, had a meaning once.
        9 => {
            clear(mask(8, 6) | mask(63, 52), mask(1, 0) | mask(63, 12))?;
            Ok(Command::Other)
        }
        _ => Err(TYPE),
    }
}
