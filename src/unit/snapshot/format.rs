//! How a saved state is laid out: header, tagged sections, checksum
//! (docs/migration.md). Everything is little-endian.

use crate::{Error, Result};

/// What a saved state begins with.
const MAGIC: [u8; 8] = *b"nvtdsnap";

/// Version of the layout. Sections may come without another one: who does not know them
/// refuses them by name.
const VERSION: u32 = 1;

/// Bytes before the sections: magic, version, length, CAP, ECAP.
const HEADER: usize = 32;

/// Bytes behind the sections.
const CHECKSUM: usize = 4;

/// Bytes before what is in a section: tag and length.
const SECTION_HEADER: usize = 8;

/// A section: four letters.
pub(in crate::unit) type Tag = &'static str;

/// What four bits do to a [`crc32`].
const CRC_OF_FOUR: [u32; 16] = [
    0,
    0x1db7_1064,
    0x3b6e_20c8,
    0x26d9_30ac,
    0x76dc_4190,
    0x6b6b_51f4,
    0x4db2_6158,
    0x5005_713c,
    0xedb8_8320,
    0xf00f_9344,
    0xd6d6_a3e8,
    0xcb61_b38c,
    0x9b64_c2b0,
    0x86d3_d2d4,
    0xa00a_e278,
    0xbdbd_f21c,
];

/// CRC-32 as of IEEE 802.3: reflected, polynomial 04c11db7h, begun and ended with all ones.
fn crc32(bytes: &[u8]) -> u32 {
    let four = |crc: u32| {
        let bits = CRC_OF_FOUR.get((crc & 15) as usize).copied();
        (crc >> 4) ^ bits.unwrap_or(0)
    };
    let begun = u32::MAX;
    !bytes
        .iter()
        .fold(begun, |crc, &byte| four(four(crc ^ u32::from(byte))))
}

/// Sections as they come up.
#[derive(Debug, Default)]
pub(in crate::unit) struct Writer {
    sections: Vec<u8>,
}

/// What is in a section.
#[derive(Debug, Default)]
pub(in crate::unit) struct Section(Vec<u8>);

impl Section {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }
}

impl Writer {
    pub fn section(&mut self, tag: Tag, fill: impl FnOnce(&mut Section)) {
        let mut section = Section::default();
        fill(&mut section);
        self.sections.extend(tag.bytes());
        self.sections.extend(length(section.0.len()).to_le_bytes());
        self.sections.extend(section.0);
    }

    /// The whole, of a unit with these values of CAP and ECAP.
    pub fn finish(self, capabilities: [u64; 2]) -> Vec<u8> {
        let size = self
            .sections
            .len()
            .saturating_add(HEADER)
            .saturating_add(CHECKSUM);
        let mut bytes = Vec::with_capacity(size);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(length(size).to_le_bytes());
        bytes.extend(capabilities.into_iter().flat_map(u64::to_le_bytes));
        bytes.extend(self.sections);
        bytes.extend(crc32(&bytes).to_le_bytes());
        bytes
    }
}

/// Page requests are what there can be most of, and a host's devices have far fewer waiting
/// than that is.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A saved state whose header and checksum are good.
#[derive(Debug)]
pub(in crate::unit) struct Opened<'a> {
    /// CAP and ECAP of the unit that it was saved of.
    pub capabilities: [u64; 2],
    pub sections: Sections<'a>,
}

impl<'a> Opened<'a> {
    /// # Errors
    /// `EINVAL`: it is none, was cut or changed, or is of a later release.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let mut header = Fields {
            section: "the header",
            left: bytes,
        };
        let magic: [u8; 8] = header.take("the magic")?;
        if magic != MAGIC {
            return Err(Error::invalid(
                "the data are no saved state of a unit: they do not begin with \"nvtdsnap\"",
            ));
        }
        let version = header.u32("the version")?;
        if version != VERSION {
            return Err(Error::invalid(format!(
                "the saved state has format version {version}, this release knows {VERSION}; \
                 load it with the release that saved it, or a later one"
            )));
        }
        let said = header.u32("the length")?;
        let there = bytes.len();
        if usize::try_from(said).ok() != Some(there) {
            let what = if u64::from(said) > there as u64 {
                "it was cut"
            } else {
                "something follows it"
            };
            return Err(Error::invalid(format!(
                "the saved state says that it has {said} bytes, but {there} were given: {what}"
            )));
        }
        let capabilities = [header.u64("CAP")?, header.u64("ECAP")?];
        let sealed = there.checked_sub(CHECKSUM);
        let (sealed, found) = sealed
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or_else(|| header.cut("the checksum"))?;
        let left = sealed
            .get(HEADER..)
            .ok_or_else(|| header.cut("the checksum"))?;
        let wanted = crc32(sealed);
        if found != wanted.to_le_bytes() {
            return Err(Error::invalid(format!(
                "the saved state's checksum is not {wanted:#010x}: it was changed since it was \
                 saved"
            )));
        }
        Ok(Self {
            capabilities,
            sections: Sections { left },
        })
    }
}

/// Sections that were not read yet.
#[derive(Debug)]
pub(in crate::unit) struct Sections<'a> {
    left: &'a [u8],
}

impl<'a> Sections<'a> {
    /// What is in the next section, which is to be this one.
    pub fn next(&mut self, tag: Tag) -> Result<Fields<'a>> {
        if self.left.is_empty() {
            return Err(Error::invalid(format!(
                "the saved state ends where section {tag} is to be"
            )));
        }
        let mut header = Fields {
            section: "a section's header",
            left: self.left,
        };
        let found: [u8; 4] = header.take("the tag")?;
        if found != tag.as_bytes() {
            return Err(Error::invalid(format!(
                "the saved state has section {} where {tag} is to be; if a later release saved \
                 it, load it with that one",
                found.escape_ascii()
            )));
        }
        let size = header.u32("the length")?;
        let body = self.left.get(SECTION_HEADER..).unwrap_or_default();
        let parts = usize::try_from(size)
            .ok()
            .and_then(|size| body.split_at_checked(size));
        let Some((body, left)) = parts else {
            return Err(Error::invalid(format!(
                "section {tag} of the saved state says that it has {size} bytes, but {} are left",
                body.len()
            )));
        };
        self.left = left;
        Ok(Fields {
            section: tag,
            left: body,
        })
    }

    /// There is nothing more.
    pub fn end(self) -> Result<()> {
        match self.left.first_chunk::<4>() {
            _ if self.left.is_empty() => Ok(()),
            Some(tag) => Err(Error::invalid(format!(
                "the saved state has section {} at its end, which this release does not know or \
                 this unit has no use for; load it with the release that saved it",
                tag.escape_ascii()
            ))),
            None => Err(Error::invalid(format!(
                "{} bytes follow the last section of the saved state; there are to be none",
                self.left.len()
            ))),
        }
    }
}

/// Fields of a section that were not read yet.
#[derive(Debug)]
pub(in crate::unit) struct Fields<'a> {
    section: &'static str,
    left: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let (field, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or_else(|| self.cut(field))?;
        self.left = left;
        Ok(*field)
    }

    fn cut(&self, field: &str) -> Error {
        Error::invalid(format!(
            "the saved state ends before {field} in {}: it was cut, or of another layout",
            self.section
        ))
    }

    pub fn u8(&mut self, field: &str) -> Result<u8> {
        Ok(u8::from_le_bytes(self.take(field)?))
    }

    pub fn u16(&mut self, field: &str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.take(field)?))
    }

    pub fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(field)?))
    }

    pub fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(field)?))
    }

    /// A register of 32 bits of which only `known` can be 1.
    pub fn bits32(&mut self, field: &str, known: u32) -> Result<u32> {
        let value = self.u32(field)?;
        only(field, value.into(), known.into())?;
        Ok(value)
    }

    /// A register of 64 bits of which only `known` can be 1.
    pub fn bits64(&mut self, field: &str, known: u64) -> Result<u64> {
        let value = self.u64(field)?;
        only(field, value, known)?;
        Ok(value)
    }

    /// Is there nothing more?
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// There is nothing more.
    pub fn end(self) -> Result<()> {
        if self.left.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "section {} of the saved state has {} bytes more than this release knows; load it \
             with the release that saved it",
            self.section,
            self.left.len()
        )))
    }
}

/// Bits that cannot be 1 are 0.
pub(in crate::unit) fn only(field: &str, value: u64, known: u64) -> Result<()> {
    let reserved = value & !known;
    check(reserved == 0, || {
        format!("{field} is {value:#x}, of which {reserved:#x} is reserved; these bits are to be 0")
    })
}

/// What has to hold of saved values.
pub(in crate::unit) fn check(holds: bool, why_not: impl FnOnce() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    let why_not = why_not();
    Err(Error::invalid(format!("in the saved state {why_not}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_ieee_802_3() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.section("ONE1", |section| {
            section.u8(0x12);
            section.u16(0x3456);
        });
        writer.section("NONE", |_| {});
        writer.section("TWO2", |section| {
            section.u32(0x789a_bcde);
            section.u64(u64::MAX - 1);
        });
        let bytes = writer.finish([1, 2]);
        assert_eq!(bytes.len(), 32 + 8 + 3 + 8 + 8 + 12 + 4);
        let mut opened = Opened::new(&bytes).unwrap();
        assert_eq!(opened.capabilities, [1, 2]);
        let mut one = opened.sections.next("ONE1").unwrap();
        assert_eq!((one.u8("").unwrap(), one.u16("").unwrap()), (0x12, 0x3456));
        one.end().unwrap();
        opened.sections.next("NONE").unwrap().end().unwrap();
        let mut two = opened.sections.next("TWO2").unwrap();
        assert_eq!(two.u32("").unwrap(), 0x789a_bcde);
        assert_eq!(two.u64("").unwrap(), u64::MAX - 1);
        two.end().unwrap();
        opened.sections.end().unwrap();
    }

    /// The message of an error, of which there has to be one.
    fn refusal<T: core::fmt::Debug>(result: Result<T>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL);
        error.message().to_owned()
    }

    #[test]
    fn sections_are_as_long_and_where_they_are_to_be() {
        let mut writer = Writer::default();
        writer.section("ONE1", |section| section.u16(7));
        let bytes = writer.finish([0, 0]);
        let open = || Opened::new(&bytes).unwrap().sections;
        assert!(refusal(open().next("TWO2")).contains("section ONE1 where TWO2"));
        assert!(refusal(open().end()).contains("section ONE1 at its end"));
        let mut sections = open();
        let mut one = sections.next("ONE1").unwrap();
        assert!(refusal(one.u32("X")).contains("before X in ONE1"));
        assert_eq!(one.u8("X").unwrap(), 7);
        assert!(!one.is_empty());
        assert!(refusal(one.end()).contains("1 bytes more"));
        assert!(refusal(sections.next("TWO2")).contains("ends where section TWO2"));
    }
}
