//! A run: the machine, what is known of its state, and one operation after the other.

use nested_vtd::host::soft::Injection;
use nested_vtd::host::uapi::request;
use nested_vtd::unit::{HostKind, Notify};

use super::check::Before;
use super::machine::{Machine, Piece};
use super::op::{Code, Op};
use super::queue::Queue;
use super::requests::Remembered;
use super::setup::Setup;
use super::vmm::Wrote;
use super::world::{self, Levels, Mode, PAGE_QUEUE, SLOTS};
use crate::input::pick;
use crate::reference::Memory;
use crate::snapshot::registers;

/// Registers that mean something: offset and size.
pub const REGISTERS: &[(u16, u32)] = &[
    (0x00, 4),
    (0x08, 8),
    (0x10, 8),
    (0x18, 4),
    (0x1c, 4),
    (0x20, 8),
    (0x28, 8),
    (0x34, 4),
    (0x38, 4),
    (0x3c, 4),
    (0x40, 4),
    (0x44, 4),
    (0x80, 8),
    (0x88, 8),
    (0x90, 8),
    (0x9c, 4),
    (0xa0, 4),
    (0xa4, 4),
    (0xa8, 4),
    (0xac, 4),
    (0xb0, 8),
    (0xb8, 8),
    (0xc0, 8),
    (0xc8, 8),
    (0xd0, 8),
    (0xdc, 4),
    (0xe0, 4),
    (0xe4, 4),
    (0xe8, 4),
    (0xec, 4),
    (0xf0, 8),
    (0xf8, 8),
];

pub const GCMD: u64 = 0x18;
pub const GSTS: u64 = 0x1c;
pub const RTADDR: u64 = 0x20;
pub const FSTS: u64 = 0x34;
pub const IQH: u64 = 0x80;
pub const IQT: u64 = 0x88;
pub const IQA: u64 = 0x90;
pub const IRTA: u64 = 0xb8;
pub const PQA: u64 = 0xd0;

pub const TE: u32 = 1 << 31;
pub const SRTP: u32 = 1 << 30;
pub const QIE: u32 = 1 << 26;
pub const IRE: u32 = 1 << 25;
pub const SIRTP: u32 = 1 << 24;
pub const CFI: u32 = 1 << 23;
/// Calls that it takes at most until the queue is empty: each executes a descriptor or more.
const MOST_CALLS: u32 = 1 << 16;

/// What GSTS keeps of GCMD.
pub const SWITCHES: u32 = TE | QIE | IRE | CFI;

/// Requests that an injected failure can be of, and errnos that the kernel has for them.
const FAILURES: &[(u32, i32)] = &[
    (request::HWPT_ALLOC, libc::ENOMEM),
    (request::HWPT_ALLOC, libc::EINVAL),
    (request::VFIO_ATTACH, libc::EINVAL),
    (request::VFIO_ATTACH, libc::ENOMEM),
    (request::VFIO_DETACH, libc::EINVAL),
    (request::HWPT_INVALIDATE, libc::EIO),
    (request::DESTROY, libc::EBUSY),
    (request::IOAS_MAP, libc::ENOMEM),
    (request::IOAS_UNMAP, libc::ENOMEM),
    (request::IOAS_ALLOC, libc::ENOMEM),
    (request::FAULT_QUEUE_ALLOC, libc::ENOMEM),
    (request::GET_HW_INFO, libc::EOPNOTSUPP),
];

pub struct Run {
    pub setup: Setup,
    pub machine: Machine,
    pub levels: Levels,
    /// Whatever is cached is what the tables say.
    pub clean: bool,
    /// The same of interrupt entries.
    pub interrupts_clean: bool,
    /// The tables are those of the world, changed by its driver only.
    pub pristine: bool,
    /// Calls on the host may have failed since everything was invalidated.
    pub injected: bool,
    /// A device may have been refused by a parent that could have taken it, and has got one of its own.
    pub parted: bool,
    /// RTADDR at the last SRTP.
    pub root: u64,
    /// That is known: no state was loaded since that somebody else has made.
    pub knows_root: bool,
    /// IRTA at the last SIRTP.
    pub interrupt_table: Option<u64>,
    /// RAM as it is; None if the unit may have set bits in it.
    pub mirror: Option<Memory>,
    pub queue: Queue,
    pub remembered: Remembered,
    /// What was counted after the last operation.
    counted: Option<Before>,
}

impl Run {
    /// Power on as a header says.
    pub fn new(header: &[u8]) -> Option<Self> {
        let setup = Setup::decode(header);
        if crate::is_printing() {
            eprintln!("{setup:x?}");
        }
        let machine = Machine::new(setup.config, setup.two_iommufds)?;
        let levels = Levels::of(&machine.capabilities);
        let mut run = Self {
            setup,
            machine,
            levels,
            clean: true,
            interrupts_clean: true,
            pristine: setup.mode != Mode::Empty,
            injected: false,
            parted: false,
            root: 0,
            knows_root: true,
            interrupt_table: None,
            mirror: None,
            queue: Queue::default(),
            remembered: Remembered::default(),
            counted: None,
        };
        run.machine.ram_add(Piece::Low).unwrap();
        if setup.read_only {
            run.machine.ram_add(Piece::ReadOnly).unwrap();
        }
        if setup.window {
            run.machine.ram_add(Piece::Window).unwrap();
        }
        let features = setup.config.features;
        for (address, value) in world::tables(setup.mode, &run.machine.capabilities, features) {
            run.machine.poke(address, value);
        }
        for slot in 0..SLOTS {
            if setup.devices >> slot & 1 != 0 {
                run.machine.plug(slot).unwrap();
            }
        }
        if setup.enabled {
            run.enable(&Op::new(Code::Enable));
        }
        Some(run)
    }

    pub fn is_legacy(&self) -> bool {
        self.setup.mode == Mode::Legacy
    }

    /// Is translation on?
    pub fn is_translating(&self) -> bool {
        self.machine.read32(GSTS) & TE != 0
    }

    /// Do an operation, and check what holds after each.
    pub fn step(&mut self, op: &Op) {
        if crate::is_printing() {
            eprintln!(
                "{op:?}\n    clean {} pristine {} translating {} FSTS {:#x} IQH {:#x} IQT {:#x}",
                self.clean,
                self.pristine,
                self.is_translating(),
                self.machine.read32(FSTS),
                self.machine.read64(IQH),
                self.machine.read64(IQT)
            );
        }
        let before = self.counted.take();
        let before = before.unwrap_or_else(|| Before::of(self));
        self.execute(op);
        self.drain();
        self.note_writes();
        self.counted = Some(self.check(op.code, &before));
    }

    fn execute(&mut self, op: &Op) {
        match op.code {
            Code::Write => self.write_register(op),
            Code::Read => {
                let (offset, size) = place(op);
                let _value = self.machine.unit().mmio_read(offset, size);
            }
            Code::Poke => self.poke(ram(op), op.value),
            Code::Flip => {
                let before = self.machine.peek(ram(op)).unwrap_or(0);
                self.poke(ram(op), before ^ 1 << (op.value % 64));
            }
            Code::Fill => {
                let step = u64::from(op.b) << 12;
                for index in 0..u64::from(op.a % 64) + 1 {
                    let value = op.value.wrapping_add(index.wrapping_mul(step));
                    self.poke(ram(op).wrapping_add(index * 8), value);
                }
            }
            Code::Root | Code::Context | Code::Directory | Code::Pasid => self.entry(op),
            Code::Table | Code::Interrupt => self.entry(op),
            Code::Queue => self.put(op),
            Code::Ring => self.ring(op),
            Code::Dma => self.dma(op),
            Code::Silicon => self.silicon(op),
            Code::Again => self.again(op),
            Code::Msi => self.msi(op),
            Code::PageRequest => self.page_request(op),
            Code::Device => self.device(op),
            Code::Ram => self.change_ram(op),
            Code::Reset => self.reset(),
            Code::Sync => self.sync(op),
            Code::Inject => self.inject(op),
            Code::Look => self.look(op),
            Code::Enable => self.enable(op),
            Code::Change => self.change(op),
            Code::Move => self.moved(op),
            Code::Tlb => self.machine.vmm.answer_invalidations(op.a),
        }
    }

    /// A write of RAM by the guest's processor.
    pub fn poke(&mut self, gpa: u64, value: u64) {
        if self.machine.poke(gpa, value) {
            if let Some(memory) = &mut self.mirror {
                memory.write(gpa, value);
            }
            self.touched(gpa);
        }
    }

    /// RAM has changed that may be in some cache.
    fn touched(&mut self, gpa: u64) {
        if !self.pristine {
            self.clean = false;
            self.interrupts_clean = false;
        } else if gpa >> 12 == world::INTERRUPTS >> 12 {
            self.interrupts_clean = false;
        } else if world::is_table(gpa) {
            self.pristine = false;
            self.clean = false;
            self.interrupts_clean = false;
        }
    }

    /// What the unit wrote by itself: the VMM was told of all of it, but for accessed and dirty bits.
    pub fn note_writes(&mut self) {
        for wrote in self.machine.vmm.take_wrote() {
            match wrote {
                Wrote::Status(address) => self.learn(address & !7),
                Wrote::PageRequest(words, tail) => {
                    let at = self.machine.read64(PQA) & !0xfff;
                    let at = at.wrapping_add(tail);
                    let [low, high] = words;
                    for (index, expected) in [low, high, 0, 0].into_iter().enumerate() {
                        let address = at + index as u64 * 8;
                        assert_eq!(
                            self.machine.peek(address),
                            Some(expected),
                            "the page request at {address:#x}"
                        );
                        self.learn(address);
                    }
                }
            }
        }
    }

    /// The unit has written there.
    fn learn(&mut self, gpa: u64) {
        let Some(value) = self.machine.peek(gpa) else {
            return;
        };
        let changed = match &mut self.mirror {
            Some(memory) => {
                let changed = memory.read(gpa) != Some(value);
                memory.write(gpa, value);
                changed
            }
            None => true,
        };
        if changed {
            self.touched(gpa);
        }
    }

    fn write_register(&mut self, op: &Op) {
        let (offset, size) = place(op);
        let known = self.machine.unit().mmio_read(offset, size).unwrap_or(0);
        let value = match op.c % 5 {
            0 | 1 => op.value,
            2 => op.value % (64 << 12),
            3 => known ^ 1 << (op.value % 64),
            // As a driver commands: what is on stays on.
            _ => u64::from(self.machine.read32(GSTS) & SWITCHES) ^ 1 << (23 + op.value % 9),
        };
        self.write(offset, size, value);
    }

    /// A write of the window, and what is known after it.
    pub fn write(&mut self, offset: u64, size: u32, value: u64) {
        let (root, table) = (self.machine.read64(RTADDR), self.machine.read64(IRTA));
        let before = self.machine.read32(GSTS);
        if self.machine.unit().mmio_write(offset, size, value).is_err() {
            let is_access = matches!(size, 1 | 2 | 4 | 8) && offset + u64::from(size) <= 0x1000;
            assert!(
                !is_access,
                "a write of {size} bytes at {offset:#x} is refused"
            );
            return;
        }
        if (offset, size) != (GCMD, 4) {
            return;
        }
        let command = value as u32;
        if command & SRTP != 0 {
            self.root = root;
            self.knows_root = true;
            let own = world::ROOT | u64::from(!self.is_legacy()) << 10;
            // Other tables may be anywhere, also where these are.
            self.pristine &= root == own;
            // 11.4.4.1: with ESRTPS that invalidates everything.
            self.clean = !self.injected;
        }
        let remapping = self.machine.capabilities.ecap >> 3 & 1 != 0;
        if remapping && command & SIRTP != 0 {
            self.interrupt_table = Some(table);
            self.interrupts_clean = true;
        }
        let after = self.machine.read32(GSTS);
        assert_eq!(after & (TE | QIE), command & (TE | QIE), "TES and QIES");
        assert_eq!(
            after & (1 << 30 | 1 << 24),
            (before | command & (SRTP | if remapping { SIRTP } else { 0 })) & (1 << 30 | 1 << 24),
            "RTPS and IRTPS stay set"
        );
    }

    /// Write GCMD with these bits beside the switches that are on; `off` goes off.
    pub fn command(&mut self, on: u32, off: u32) {
        let kept = self.machine.read32(GSTS) & SWITCHES;
        self.write(GCMD, 4, u64::from(kept & !off | on));
    }

    /// Start the unit as Linux's driver does. `b` leaves steps out.
    pub fn enable(&mut self, op: &Op) {
        let without = |bit: u8| op.b >> bit & 1 != 0;
        if !without(0) {
            self.start_queue(op.a);
        }
        for control in [0x38, 0xa0, 0xe0] {
            // Data, address, then unmasked.
            self.write(control + 4, 4, 0x4021 + control);
            self.write(control + 8, 4, 0xfee0_1000);
            self.write(control, 4, 0);
        }
        if !without(1) {
            self.write(PQA, 8, PAGE_QUEUE | u64::from(op.c & 1));
            self.write(0xc0, 8, 0);
            self.write(0xc8, 8, 0);
            self.write(0xdc, 4, 3);
        }
        if !without(2) {
            let size = world::INTERRUPT_SIZE | u64::from(op.c >> 1 & 1) << 11;
            self.write(IRTA, 8, world::INTERRUPTS | size);
            self.command(SIRTP, 0);
            self.command(IRE, 0);
        }
        if !without(3) {
            let mode = u64::from(!self.is_legacy());
            self.write(RTADDR, 8, world::ROOT | mode << 10);
            self.command(SRTP, 0);
        }
        if !without(4) {
            self.command(TE, 0);
        }
    }

    fn reset(&mut self) {
        self.machine.unit().reset();
        self.root = 0;
        self.knows_root = true;
        self.interrupt_table = None;
        self.interrupts_clean = true;
        self.clean = !self.injected;
        self.queue.forget();
        assert_eq!(self.machine.read32(GSTS), 0, "GSTS after a reset");
        assert_eq!(self.machine.read32(FSTS), 0, "FSTS after a reset");
    }

    /// The VMM comes again until nothing of the queue is left.
    pub fn drain(&self) {
        // FSTS makes a queue go on that was loaded.
        self.machine.read32(FSTS);
        let mut calls = 0;
        while self.machine.vmm.take_more() {
            self.machine.unit().work();
            calls += 1;
            assert!(calls <= MOST_CALLS, "the queue has no end");
        }
    }

    /// Nothing is known of tables and caches any more.
    pub fn forget(&mut self) {
        self.clean = false;
        self.interrupts_clean = false;
        self.pristine = false;
        self.mirror = None;
        self.queue.forget();
        self.counted = None;
        self.knows_root = false;
    }

    /// The state is saved, and loaded where it is, after a reset, or (`a` 1, modulo 4) in another unit with the same RAM and devices.
    fn moved(&mut self, op: &Op) {
        if let Some(twin) = &self.machine.twin {
            twin.clear_injections();
        }
        self.drain();
        let saved = self.machine.unit().save();
        let read = registers(self);
        match op.a % 4 {
            0 => {}
            1 => self.machine.replace(),
            _ => self.machine.unit().reset(),
        }
        let msis = self.machine.vmm.told().msis;
        let loaded = self.machine.unit().load(&saved);
        loaded.expect("a unit takes what it has saved");
        assert_eq!(self.machine.vmm.told().msis, msis, "a load sends nothing");
        assert!(
            self.machine.unit().save() == saved,
            "the state is not the one that was loaded"
        );
        assert_eq!(registers(self), read, "registers after a move");
        self.interrupts_clean = true;
        self.clean = !self.injected;
    }

    fn inject(&mut self, op: &Op) {
        let Some(twin) = &self.machine.twin else {
            return;
        };
        let (request, errno) = pick(FAILURES, op.a);
        let asked = (op.c & 1 == 0).then_some(request);
        // As the kernel says that the parent is of another host unit.
        self.parted |= errno == libc::EINVAL && asked.is_none_or(|it| it == request::VFIO_ATTACH);
        twin.inject(Injection {
            skip: u64::from(op.b % 8),
            request: asked,
            errno,
            handled: u32::from(op.d % 4),
            blocked: op.c & 2 != 0,
            times: u64::from(op.e % 4) + 1,
        });
        self.injected = true;
        self.clean = false;
    }

    fn device(&mut self, op: &Op) {
        let slot = usize::from(op.a) % SLOTS;
        match op.b % 8 {
            0 => drop(self.plugged(slot)),
            1 => self.machine.unplug(slot),
            2 => {
                self.machine.vmm.renumber(slot, op.d);
                // Where an assigned one is follows when the guest announces something.
                if self.machine.is_assigned(slot) {
                    self.clean = false;
                }
            }
            3 | 4 => {
                let notify = Notify {
                    unit: op.c & 1 != 0,
                    device_tlb: op.c & 2 != 0,
                };
                if let Some(handle) = self.machine.slots[slot].handle {
                    self.machine.unit().device_notify(handle, notify).unwrap();
                    self.machine.slots[slot].notify = notify != Notify::default();
                }
            }
            5 => {
                self.machine.unplug(slot);
                drop(self.plugged(slot));
            }
            6 => {
                // Handles that are none.
                let unit = self.machine.unit();
                let known = |slot: &super::machine::Slot| slot.handle == Some(op.value as u32);
                if !self.machine.slots.iter().any(known) {
                    let none = op.value as u32;
                    assert!(unit.device_remove(none).is_err());
                    assert!(unit.device_notify(none, Notify::default()).is_err());
                    assert!(unit.device_info(none).is_err());
                }
            }
            _ => {
                let everyone = (0..SLOTS).filter(|slot| op.c >> slot & 1 != 0);
                everyone.for_each(|slot| self.machine.unplug(slot));
            }
        }
    }

    /// Add a device; refused only if the host's calls are.
    fn plugged(&mut self, slot: usize) -> nested_vtd::Result<()> {
        let added = self.machine.plug(slot);
        if let Err(error) = &added {
            assert!(self.injected, "{error}");
        }
        added
    }

    fn change_ram(&mut self, op: &Op) {
        let piece = match op.a % 6 {
            0 => Piece::Low,
            1 => Piece::ReadOnly,
            2 => Piece::Window,
            3 => Piece::Extra {
                gpa: 1 << 20,
                size: 8 << 12,
                read_only: op.c & 1 != 0,
            },
            4 => Piece::Extra {
                gpa: op.value,
                size: u64::from(op.d),
                read_only: op.c & 1 != 0,
            },
            _ => Piece::Extra {
                gpa: op.value & !0xfff,
                size: u64::from(op.d % 9) << 12,
                read_only: op.c & 1 != 0,
            },
        };
        if op.b % 2 == 0 {
            let _added = self.machine.ram_add(piece);
        } else {
            let known = self.machine.ram.iter().find(|ram| match piece {
                Piece::Extra { .. } => matches!(ram.piece, Piece::Extra { .. }),
                piece => ram.piece == piece,
            });
            let (gpa, size) = known.map_or((op.value, 8), |ram| (ram.gpa, ram.size));
            if let Err(error) = self.machine.ram_remove(gpa, size) {
                assert!(known_error(&error, self.injected), "{error}");
            }
        }
        // Other addresses may be tables now.
        self.mirror = None;
        self.clean = false;
        self.interrupts_clean = false;
    }

    /// Everything goes; nothing is left.
    pub fn end(mut self) {
        if crate::is_printing() {
            eprintln!("the end");
        }
        self.check_memory();
        if let Some(twin) = &self.machine.twin {
            twin.clear_injections();
        }
        for slot in 0..SLOTS {
            self.machine.unplug(slot);
        }
        if self.machine.config.host != HostKind::None {
            // What could not be destroyed at the time is tried again with the next change.
            self.machine.unit().reset();
        }
        assert_eq!(
            self.machine.objects(),
            [0; 5],
            "without devices: IOAS, parents, nested HWPTs, fault queues, bytes mapped"
        );
        assert!(
            self.machine.vmm.watched.lock().unwrap().is_empty(),
            "fault queues are watched that are not there"
        );
        self.machine.unit = None;
        assert_eq!(self.machine.objects(), [0; 5], "without a unit");
    }
}

fn known_error(error: &nested_vtd::Error, injected: bool) -> bool {
    injected || error.errno() == libc::ENOENT
}

/// A place in the register window, and the size of an access.
fn place(op: &Op) -> (u64, u32) {
    if op.b % 4 == 0 {
        let records = 16;
        let number = usize::from(op.d) % (REGISTERS.len() + records);
        let (offset, size) = match REGISTERS.get(number) {
            Some(&(offset, size)) => (u64::from(offset), size),
            None => (0x220 + (number - REGISTERS.len()) as u64 * 8, 8),
        };
        return match op.a % 8 {
            // Halves.
            6 => (offset, 4),
            7 => (offset + 4, 4),
            _ => (offset, size),
        };
    }
    let size = pick(&[4, 8, 1, 2, 4, 8, 16, 3], op.a);
    let offset = u64::from(op.d % 0x1004);
    if op.b % 4 == 1 {
        (offset & !7, size)
    } else {
        (offset, size)
    }
}

/// A qword of RAM at 0, or of what is behind it.
fn ram(op: &Op) -> u64 {
    (u64::from(op.d % 64) << 12) | (u64::from(op.e % 512) * 8)
}
