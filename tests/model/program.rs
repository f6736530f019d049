//! Programs of operations, made of bytes.
//!
//! Caches show only when the same page is used again after something about it has changed, so much
//! of a program is about one request, the focus.

use crate::machine::SOURCE_IDS;
use crate::reference::{Kind, Request, field, mask};
use crate::world::{
    Choices, FIRST_SETS, PASIDS, SECOND_SETS, World, context_entry, directory_entry, pasid_entry,
    root_entry, table,
};

/// A change of a qword of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub address: u64,
    pub how: How,
}

#[derive(Debug, Clone, Copy)]
pub enum How {
    Toggle(u32),
    /// Another page in bits 51:12.
    Page(u64),
    Clear,
    /// As at first.
    Restore,
}

/// A change of some entry that requests meet.
pub fn change(choices: &mut Choices<'_>, legacy: bool) -> Change {
    let set = usize::from(choices.byte() % 2);
    let first = choices.chance(50);
    let base = if first {
        FIRST_SETS[set]
    } else {
        SECOND_SETS[set]
    };
    let kind = choices.byte() % 16;
    let address = match kind {
        // Pages.
        0..=6 if first => base + u64::from(choices.byte() % 4) * 8,
        0..=6 => base + (40 + u64::from(choices.byte() % 4)) * 8,
        // Tables above.
        7..=11 => {
            let level = choices.pick(&[2, 3, 2, 4, 5]);
            table(base, level) + u64::from(choices.byte() % 3) * 8
        }
        12 => {
            let word = u64::from(choices.byte() % if legacy { 2 } else { 4 });
            context_entry(set, legacy) + word * 8
        }
        13 => root_entry(set, legacy),
        14 if !legacy => directory_entry(choices.pick(&PASIDS)),
        _ if legacy => context_entry(set, legacy) + u64::from(choices.byte() % 2) * 8,
        _ => {
            let pasid = choices.pick(&PASIDS);
            pasid_entry(pasid) + u64::from(choices.pick(&[0, 0, 1, 2, 2, 3, 7_u8])) * 8
        }
    };
    Change {
        address,
        how: how(choices),
    }
}

fn how(choices: &mut Choices<'_>) -> How {
    match choices.byte() % 8 {
        0..=3 => How::Toggle(choices.pick(&[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 22, 23, 24, 26, 29, 30, 38, 39, 45,
            46, 47, 48, 51, 52, 57, 62, 63,
        ])),
        4 | 5 => How::Page(u64::from(choices.byte() % 48)),
        6 => How::Clear,
        _ => How::Restore,
    }
}

/// An operation of guest or device.
#[derive(Debug)]
pub enum Op {
    Request {
        device: usize,
        request: Request,
    },
    Change(Change),
    Invalidate {
        descriptors: Vec<[u64; 4]>,
        wait: bool,
    },
    ContextCommand(u64),
    IotlbCommand {
        address: u64,
        command: u64,
    },
    Root {
        mode: u64,
    },
    Translation(bool),
}

/// An address that the tables say something about.
fn address(choices: &mut Choices<'_>) -> u64 {
    match choices.byte() % 32 {
        // Beyond 48 or 57 bits, not canonical, at the edges.
        27 => return choices.pick(&[1 << 47, 1 << 48, 1 << 56, 1 << 57, 1 << 63, 1 << 39]),
        28 => return choices.pick(&[u64::MAX - 7, mask(63, 47), mask(63, 56)]),
        // Through a 1 GiB page to the interrupt range and its neighbours.
        29 | 30 => return choices.pick(&[0xbee0_1008, 0xbedf_f008, 0xbef0_0008, 0xbeef_fff8]),
        31 => return choices.pick(&[0x20_1008, 0x2f_fff8, 0x30_0000]),
        _ => {}
    }
    let mut address = u64::from(choices.byte() % 4) << 12;
    let up = choices.byte();
    if up >= 128 {
        address |= u64::from(choices.byte() % 8) << 12;
        address |= u64::from(choices.byte() % 5) << 21;
    }
    if up >= 192 {
        address |= u64::from(choices.byte() % 4) << 30;
        match choices.byte() % 8 {
            6 => address |= 1 << 39,
            7 => address |= mask(63, 39),
            5 => address |= 1 << 48,
            _ => {}
        }
    }
    address | u64::from(choices.byte()) << 3
}

/// Of the focus, or any.
fn request(choices: &mut Choices<'_>, world: &World, focused: bool) -> Request {
    let legacy = world.legacy;
    let mut pasid = match choices.byte() % 16 {
        _ if legacy && !choices.chance(5) => None,
        0..=7 => None,
        8..=14 => Some(choices.pick(&[0, 1, 5, 64, 70, 1, 5])),
        _ => Some(choices.pick(&[2, 130, 0x3fff, 0xf_ffff])),
    };
    if focused {
        pasid = world.focus.pasid;
    }
    let kind = choices.pick(&[
        Kind::Untranslated,
        Kind::Untranslated,
        Kind::Translation,
        Kind::Untranslated,
        Kind::Untranslated,
        Kind::Translation,
        Kind::Untranslated,
        Kind::Translated,
    ]);
    let access = choices.byte() % 8;
    let read = kind == Kind::Translation || access % 4 != 1;
    Request {
        address: if focused {
            world.focus.address | u64::from(choices.byte()) << 3
        } else {
            address(choices)
        },
        pasid,
        kind,
        read,
        write: access % 2 == 1,
        execute: read && pasid.is_some() && choices.chance(20),
        privileged: pasid.is_some() && choices.chance(25),
    }
}

fn invalidations(choices: &mut Choices<'_>, world: &World) -> Vec<[u64; 4]> {
    let World { legacy, focus, .. } = world;
    let legacy = *legacy;
    let mut domain = u64::from(choices.byte() % 10 + 1) << 16;
    let mut pasid = u64::from(choices.pick(&PASIDS)) << 32;
    let source = u64::from(choices.pick(&SOURCE_IDS)) << 32;
    let mut page = address(choices) & mask(63, 12);
    if !choices.chance(35) {
        domain = u64::from(focus.domain) << 16;
        pasid = u64::from(focus.pasid.unwrap_or(0)) << 32;
        // Or a page beside it.
        page = focus.address ^ u64::from(choices.pick(&[0, 0, 0, 1_u8])) << 12;
    }
    let order = u64::from(choices.pick(&[0, 0, 1, 2, 9, 18_u8]));
    let all_translations = [2 | 1 << 4, 0, 0, 0];
    let mut list = match choices.byte() % 12 {
        // As a driver does after each change of the configuration.
        0 | 1 => vec![
            [1 | 1 << 4, 0, 0, 0],
            [7 | 3 << 4, 0, 0, 0],
            all_translations,
        ],
        2 => vec![
            [7 | 1 << 4 | domain | pasid, 0, 0, 0],
            [6 | 2 << 4 | domain | pasid, 0, 0, 0],
        ],
        3 | 4 => vec![[6 | 3 << 4 | domain | pasid, page | order, 0, 0]],
        5 => vec![[
            6 | 3 << 4 | domain | pasid,
            page | u64::from(choices.byte() % 64),
            0,
            0,
        ]],
        6 => vec![[6 | 2 << 4 | domain | pasid, 0, 0, 0]],
        7 | 8 => vec![[2 | 3 << 4 | domain, page | order, 0, 0]],
        9 => vec![[2 | 2 << 4 | domain | 0b11 << 6, 0, 0, 0]],
        10 => vec![[
            1 | u64::from(choices.pick(&[3, 2, 3_u8])) << 4
                | if legacy { domain } else { 0 }
                | source
                | u64::from(choices.byte() % 4) << 48,
            0,
            0,
            0,
        ]],
        _ => vec![[
            7 | u64::from(choices.pick(&[3, 0, 1_u8])) << 4 | domain | pasid,
            0,
            0,
            0,
        ]],
    };
    if legacy {
        list.retain(|descriptor| field(descriptor[0], 3, 0) < 6);
    }
    if choices.chance(8) {
        // A bit that may be wrong.
        if let Some(descriptor) = list.first_mut() {
            let number = choices.byte();
            descriptor[usize::from(number / 64 % 4)] ^= 1 << (number % 64);
        }
    }
    list
}

impl Op {
    pub fn decode(bytes: &[u8], world: &World) -> Self {
        let World { legacy, focus, .. } = world;
        let legacy = *legacy;
        let mut choices = Choices::new(bytes);
        let choices = &mut choices;
        match choices.byte() {
            0..=149 => {
                let focused = !choices.chance(45);
                let any = usize::from(choices.chance(30));
                Self::Request {
                    device: if focused { focus.device } else { any },
                    request: request(choices, world, focused),
                }
            }
            150..=189 if !choices.chance(40) => Self::Change(Change {
                address: choices.pick(&focus.entries),
                how: how(choices),
            }),
            150..=189 => Self::Change(change(choices, legacy)),
            190..=235 => Self::Invalidate {
                descriptors: invalidations(choices, world),
                wait: !choices.chance(10),
            },
            236..=239 => Self::ContextCommand(
                1 << 63
                    | u64::from(choices.pick(&[1, 2, 3_u8])) << 61
                    | u64::from(choices.byte() % 10 + 1)
                    | u64::from(choices.pick(&SOURCE_IDS)) << 16,
            ),
            240..=245 => Self::IotlbCommand {
                address: address(choices) & mask(63, 12) | u64::from(choices.pick(&[0, 1, 9_u8])),
                command: 1 << 63
                    | u64::from(choices.pick(&[1, 2, 3_u8])) << 60
                    | u64::from(choices.byte() % 10 + 1) << 32,
            },
            246..=251 => Self::Root {
                mode: if choices.chance(15) {
                    choices.pick(&[0, 1, 3])
                } else {
                    u64::from(!legacy)
                },
            },
            _ => Self::Translation(choices.chance(60)),
        }
    }
}
