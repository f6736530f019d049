//! Interrupt remapping (5.1).

use super::{Refusal, View, bit, field, mask};

/// What the guest has programmed (11.4.4, 11.4.8).
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// GSTS.IRES.
    pub enabled: bool,
    /// GSTS.CFIS.
    pub compatibility: bool,
    /// IRTA: the table, EIME (11) and the size (3:0).
    pub table: u64,
}

/// What a remapped interrupt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// As the device sent it.
    AsSent,
    Remapped {
        destination: u32,
        vector: u8,
        delivery_mode: u8,
        logical: bool,
        level: bool,
    },
}

/// Where an interrupt request goes.
pub fn remap(
    view: View<'_>,
    control: &Control,
    address: u64,
    data: u32,
    source_id: u16,
) -> Result<Delivered, Refusal> {
    let loud = |code| Err(Refusal::new(code, false));
    // 5.1.4, step 1: with remapping off, requests pass.
    if !control.enabled {
        return Ok(Delivered::AsSent);
    }
    let extended = bit(control.table, 11);
    // Step 2: address bit 4 tells the format. Compatibility format passes if CFIS is set, and
    // never in extended mode. 25.
    if !bit(address, 4) {
        return if control.compatibility && !extended {
            Ok(Delivered::AsSent)
        } else {
            loud(0x25)
        };
    }
    // Step 3: SHV (bit 3) says that the data has a subhandle, and then its upper half is
    // reserved. 20.
    let subhandle = bit(address, 3);
    if subhandle && data >> 16 != 0 {
        return loud(0x20);
    }
    // Step 4: handle (19:5, and bit 2 is its bit 15) and subhandle are the index. 21.
    let mut index = field(address, 19, 5) | u64::from(bit(address, 2)) << 15;
    if subhandle {
        index += u64::from(data & 0xffff);
    }
    if index >= 2 << field(control.table, 3, 0) {
        return loud(0x21);
    }
    // Step 5: read the entry. 23.
    let table = control.table & mask(63, 12);
    let Some([low, high]) = view.read_all(table + index * 16) else {
        return loud(0x23);
    };
    let quiet = bit(low, 1);
    let refuse = |code| Err(Refusal::new(code, quiet));
    // Step 6: it is present. 22.
    if !bit(low, 0) {
        return refuse(0x22);
    }
    // Step 7: reserved bits are 0: 14:12, 31:24, 127:84; IM (15) without posting; without
    // extended mode all of the destination but 47:40; and SVT 3. 24. That delivery modes 3 and 6
    // are reserved has no public consequence.
    let destination_reserved = if extended {
        0
    } else {
        mask(39, 32) | mask(63, 48)
    };
    let delivery_mode = field(low, 7, 5) as u8;
    if low & (mask(15, 12) | mask(31, 24) | destination_reserved) != 0
        || high & mask(63, 20) != 0
        || field(high, 19, 18) == 3
    {
        return refuse(0x24);
    }
    // Step 8: the requester is the one that the entry is for. 26.
    let entry = field(high, 15, 0) as u16;
    let verified = match field(high, 19, 18) {
        0 => true,
        // SQ: the bits of the function number that do not count.
        1 => {
            let ignored = [0b000, 0b100, 0b110, 0b111][field(high, 17, 16) as usize];
            source_id & !ignored == entry & !ignored
        }
        // A range of buses: first and last.
        _ => (entry >> 8..=entry & 0xff).contains(&(source_id >> 8)),
    };
    if !verified {
        return refuse(0x26);
    }
    let destination = if extended {
        field(low, 63, 32)
    } else {
        field(low, 47, 40)
    };
    Ok(Delivered::Remapped {
        destination: destination as u32,
        vector: field(low, 23, 16) as u8,
        delivery_mode,
        logical: bit(low, 2),
        level: bit(low, 4),
    })
}
