//! Recorded boots as inputs of target `guest`.
//!
//! What is recorded are the unit's trace events (docs/events.md): registers, descriptors and DMA of a real guest, in their
//! order. Paging tables are not among them, but where requests went is, and of that the tables are made again. What a
//! guest has in gigabytes is moved into the pages of this target's RAM, and its devices get the numbers that devices have here; IOVAs,
//! domains and descriptors are the guest's own.

use std::collections::BTreeMap;

use crate::guest::world::{
    CONTEXTS, DATA, INTERRUPTS, QUEUE, ROOT, SOURCE_IDS, STATUS, context_entry, root_entry,
};
use crate::guest::{Code, Op};
use crate::seeds::{GCMD, IQA, IQT, IRTA, RTADDR, header, poke, with, write};

/// Records of an input, but for what the last event may bring.
const MOST: usize = 140;

/// Devices of a recording, the others are left out. The second is an assigned one if there is a host.
const SLOTS: [usize; 4] = [0, 2, 1, 3];

/// Requests for a page until it is mapped anew: the one that misses, and one that hits.
const REQUESTS: u32 = 2;

const SRTP: u64 = 1 << 30;
const SIRTP: u64 = 1 << 24;

/// An event, as it is traced.
struct Event<'a> {
    name: &'a str,
    a: u64,
    b: u64,
    c: u64,
}

fn parse(line: &str) -> Option<Event<'_>> {
    let mut words = line.split("nested_vtd_event ").nth(1)?.split_whitespace();
    let name = words.next()?;
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (a, b, c) = (number()?, number()?, number()?);
    Some(Event { name, a, b, c })
}

/// How the guest's tables are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tables {
    Legacy,
    First,
    Second,
}

/// Pages that an invalidation names: domain, first address and bytes.
fn pages_of(kind: u64, low: u64, high: u64) -> Option<(u16, u64, u64)> {
    let is_page_selective = matches!(kind, 2 | 6) && low >> 4 & 3 == 3;
    let bytes = 0x1000_u64 << (high & 0x3f).min(40);
    is_page_selective.then_some(((low >> 16) as u16, high & !(bytes - 1), bytes))
}

struct Device {
    source: u64,
    slot: usize,
    domain: u16,
    /// Tables by their level and the bits of the address that lead to them.
    tables: BTreeMap<(u32, u64), u64>,
    /// Where pages lead to, and how often they were asked for since.
    leaves: BTreeMap<u64, (u64, u32)>,
}

/// An input in the making.
struct Recorder {
    kind: Tables,
    ops: Vec<Op>,
    free: Vec<u64>,
    devices: Vec<Device>,
    data: BTreeMap<u64, u64>,
    command: u64,
    wide: bool,
    tail: u64,
    pending: Vec<[u64; 2]>,
    waits: u64,
}

impl Recorder {
    fn new(kind: Tables, domains: &BTreeMap<u64, u16>, order: &[u64]) -> Self {
        let mut recorder = Self {
            kind,
            ops: Vec::new(),
            free: (4..28).chain([32, 33, 34, 35]).rev().collect(),
            devices: Vec::new(),
            data: BTreeMap::new(),
            command: 0,
            wide: kind != Tables::Legacy,
            tail: 0,
            pending: Vec::new(),
            waits: 0,
        };
        for (&source, slot) in order.iter().zip(SLOTS) {
            let domain = domains.get(&source).copied().unwrap_or(2);
            recorder.devices.push(Device {
                source,
                slot,
                domain,
                tables: BTreeMap::new(),
                leaves: BTreeMap::new(),
            });
        }
        recorder
    }

    fn poke(&mut self, gpa: u64, value: u64) {
        self.ops.push(poke(gpa, value));
    }

    fn page(&mut self) -> Option<u64> {
        self.free.pop().map(|page| page << 12)
    }

    /// What leads to the devices' tables.
    fn announce(&mut self) {
        let legacy = self.kind == Tables::Legacy;
        for index in 0..self.devices.len() {
            let source_id = SOURCE_IDS[self.devices[index].slot];
            let domain = u64::from(self.devices[index].domain);
            let Some(top) = self.page() else { return };
            self.devices[index].tables.insert((4, 0), top);
            let contexts = CONTEXTS[usize::from(source_id >> 8) % 2];
            self.poke(root_entry(source_id, legacy), contexts | 1);
            let context = context_entry(source_id, legacy);
            if legacy {
                self.poke(context + 8, 2 | domain << 8);
                self.poke(context, top | 1);
                continue;
            }
            let (Some(directory), Some(entry)) = (self.page(), self.page()) else {
                return;
            };
            self.poke(directory, entry | 1);
            self.poke(entry + 8, domain | 1 << 23);
            if self.kind == Tables::First {
                self.poke(entry + 16, top);
                self.poke(entry, 1 | 1 << 6);
            } else {
                self.poke(entry, top | 1 | 2 << 6 | 2 << 2);
            }
            self.poke(context, directory | 1);
        }
    }

    /// The entry of a page, with the tables that lead to it.
    fn leaf(&mut self, device: usize, iova: u64) -> Option<u64> {
        let flags = if self.kind == Tables::First { 7 } else { 3 };
        let mut table = *self.devices[device].tables.get(&(4, 0))?;
        for level in (1..4).rev() {
            let shift = 12 + 9 * level;
            let prefix = iova >> shift;
            let entry = table + (prefix & 511) * 8;
            table = match self.devices[device].tables.get(&(level, prefix)) {
                Some(&known) => known,
                None => {
                    let new = self.page()?;
                    self.poke(entry, new | flags);
                    self.devices[device].tables.insert((level, prefix), new);
                    new
                }
            };
        }
        Some(table + (iova >> 12 & 511) * 8)
    }

    /// The page of this RAM that stands for one of the guest's.
    fn moved(&mut self, page: u64) -> u64 {
        let next = self.data.len() as u64 % 12;
        *self.data.entry(page).or_insert(DATA + (next << 12))
    }

    fn translate(&mut self, source: u64, address: u64, target: u64) {
        let Some(device) = self.devices.iter().position(|it| it.source == source) else {
            return;
        };
        let (page, target) = (address & !0xfff, target & !0xfff);
        let known = self.devices[device].leaves.get(&page).copied();
        let times = known.map_or(0, |(_, times)| times);
        if known.is_none_or(|(to, _)| to != target) {
            let to = self.moved(target);
            let Some(entry) = self.leaf(device, page) else {
                return;
            };
            let flags = if self.kind == Tables::First { 0x67 } else { 3 };
            self.poke(entry, to | flags);
        } else if times >= REQUESTS {
            return;
        }
        let fresh = known.is_none_or(|(to, _)| to != target);
        let times = if fresh { 1 } else { times + 1 };
        self.devices[device].leaves.insert(page, (target, times));
        let slot = self.devices[device].slot as u8;
        self.ops.push(with(Code::Dma, |op| {
            (op.a, op.d, op.e) = (slot, 0x8000, (address & 0xfff) as u16);
            op.value = address;
        }));
    }

    /// Pages that a driver invalidates are not mapped any more.
    fn unmap(&mut self, (domain, first, bytes): (u16, u64, u64)) {
        for device in 0..self.devices.len() {
            if self.devices[device].domain != domain {
                continue;
            }
            let range = first..first.saturating_add(bytes);
            let leaves = &self.devices[device].leaves;
            let gone: Vec<u64> = leaves.range(range).map(|(&page, _)| page).collect();
            for page in gone {
                self.devices[device].leaves.remove(&page);
                if let Some(entry) = self.leaf(device, page) {
                    self.poke(entry, 0);
                }
            }
        }
    }

    fn descriptor(&mut self, kind: u64, low: u64, high: u64) {
        if let Some(pages) = pages_of(kind, low, high) {
            self.unmap(pages);
        }
        if kind != 5 {
            self.pending.push([low, high]);
            return;
        }
        self.waits = self.waits % 500 + 1;
        let status = STATUS + self.waits * 4;
        self.pending
            .push([low & 0xffff_ffff | self.waits << 32, status]);
        let stride = if self.wide { 32 } else { 16 };
        for words in std::mem::take(&mut self.pending) {
            for (index, word) in words.into_iter().enumerate() {
                self.poke(QUEUE + self.tail + index as u64 * 8, word);
            }
            self.tail = (self.tail + stride) % 4096;
        }
        self.ops.push(write(IQT, self.tail));
    }

    fn commanded(&mut self, once: u64) {
        self.ops.push(write(GCMD, self.command | once));
    }

    fn switch(&mut self, bit: u32, on: bool) {
        self.command = self.command & !(1 << bit) | u64::from(on) << bit;
        self.commanded(0);
    }

    fn event(&mut self, event: &Event<'_>) {
        match event.name {
            "queue_enable" => {
                if event.a == 1 {
                    self.wide = event.b & 0x800 != 0;
                    self.tail = 0;
                    self.ops.push(write(IQT, 0));
                    self.ops.push(write(IQA, QUEUE | event.b & 0x800));
                }
                self.switch(26, event.a == 1);
            }
            "interrupt_table" => {
                self.ops.push(write(IRTA, INTERRUPTS | event.a & 0x800 | 3));
                self.commanded(SIRTP);
            }
            "interrupt_enable" => self.switch(25, event.a != 0),
            "root_table" => {
                if self.devices.iter().all(|device| device.tables.is_empty()) {
                    self.announce();
                }
                self.ops.push(write(RTADDR, ROOT | event.a & 0xc00));
                self.commanded(SRTP);
            }
            "translation_enable" => self.switch(31, event.a == 1),
            "descriptor" => self.descriptor(event.a, event.b, event.c),
            "translate" => self.translate(event.a, event.b, event.c),
            _ => {}
        }
    }
}

/// Names that set registers: what is after the last of each is in force later.
const REGISTERS: [&str; 5] = [
    "queue_enable",
    "interrupt_table",
    "interrupt_enable",
    "root_table",
    "translation_enable",
];

/// Devices in the order in which they come up, and the domains that invalidations of what they use name.
fn devices(events: &[Event<'_>]) -> (Vec<u64>, BTreeMap<u64, u16>) {
    let mut order = Vec::new();
    let mut used: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut votes: BTreeMap<(u64, u16), u32> = BTreeMap::new();
    for event in events {
        if event.name == "translate" {
            if !order.contains(&event.a) {
                order.push(event.a);
            }
            used.entry(event.b & !0xfff).or_default().push(event.a);
        } else if event.name == "descriptor" {
            let Some((domain, first, bytes)) = pages_of(event.a, event.b, event.c) else {
                continue;
            };
            for page in (0..bytes >> 12).take(64).map(|page| first + (page << 12)) {
                for source in used.remove(&page).unwrap_or_default() {
                    *votes.entry((source, domain)).or_default() += 1;
                }
            }
        }
    }
    let mut domains: BTreeMap<u64, (u16, u32)> = BTreeMap::new();
    for ((source, domain), count) in votes {
        let best = domains.entry(source).or_insert((domain, count));
        if count > best.1 {
            *best = (domain, count);
        }
    }
    let domains = domains
        .into_iter()
        .map(|(source, (domain, _))| (source, domain));
    (order, domains.collect())
}

/// The inputs of a trace: from power-on, from the first translated request, and from two later moments.
pub fn inputs(trace: &str) -> Vec<Vec<u8>> {
    let events: Vec<Event<'_>> = trace.lines().filter_map(parse).collect();
    let named = |name: &'static str| events.iter().filter(move |event| event.name == name);
    let legacy = named("root_table").all(|event| event.a & 0xc00 == 0);
    let kind = match (legacy, named("descriptor").any(|event| event.a == 6)) {
        (true, _) => Tables::Legacy,
        (false, true) => Tables::First,
        (false, false) => Tables::Second,
    };
    let (order, domains) = devices(&events);
    let is_on = |event: &Event<'_>| event.name == "translation_enable" && event.a == 1;
    let on = events.iter().position(is_on).unwrap_or(0);
    let first = events[on..]
        .iter()
        .position(|event| event.name == "translate");
    let moments = [
        0,
        (on + first.unwrap_or(0)).saturating_sub(8),
        events.len() / 2,
        events.len() * 3 / 4,
    ];
    let mut inputs = Vec::new();
    for begin in moments {
        let (before, after) = events.split_at(begin);
        let mut recorder = Recorder::new(kind, &domains, &order);
        for name in REGISTERS {
            if let Some(last) = before.iter().rev().find(|event| event.name == name) {
                recorder.event(last);
            }
        }
        for event in after {
            recorder.event(event);
            if recorder.ops.len() >= MOST {
                break;
            }
        }
        recorder.ops.truncate(MOST + 18);
        recorder.ops.push(Op::new(Code::Sync));
        let host = if kind == Tables::First { 0 } else { 2 };
        let records: Vec<u8> = recorder.ops.iter().flat_map(Op::encode).collect();
        inputs.push([header(4, host, 4).as_slice(), &records].concat());
    }
    inputs
}
