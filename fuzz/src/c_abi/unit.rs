//! The functions of a unit.

use core::ffi::{c_char, c_int, c_void};
use std::ffi::CStr;
use std::ptr;

use libc::{E2BIG, EINVAL, ENOENT, EOPNOTSUPP};
use nested_vtd::ffi::dump::{NvtdDump, nvtd_dump};
use nested_vtd::ffi::host::{nvtd_dirty_bitmap, nvtd_dirty_tracking, nvtd_host_faults};
use nested_vtd::ffi::interrupt::{NvtdMsi, NvtdMsiAnswer, nvtd_remap_msi};
use nested_vtd::ffi::mappings::{NvtdMapping, nvtd_for_each_mapping};
use nested_vtd::ffi::types::*;
use nested_vtd::ffi::*;
use nested_vtd::unit::Features;

use super::Op;
use super::arena::{Arena, Buffer, UNTOUCHED};
use super::callbacks::ops;
use super::world::World;
use crate::guest::world::{Mode, tables};
use crate::input::pick;
use crate::reference::Capabilities;

/// Any error that a system call has.
const ANY: &[i32] = &[];

pub fn pointer<T>(buffer: Option<Buffer>) -> *mut T {
    buffer.map_or(ptr::null_mut(), |buffer| buffer.pointer())
}

unsafe extern "C" fn line(opaque: *mut c_void, text: *const c_char) {
    // SAFETY: valid during the call.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().expect("a line is UTF-8");
    assert!(!text.contains('\n'), "{text:?}");
    // SAFETY: the world that was passed to nvtd_dump().
    let world = unsafe { &*opaque.cast::<World>() };
    world.react();
}

unsafe extern "C" fn mapping(opaque: *mut c_void, mapping: *const NvtdMapping) -> c_int {
    // SAFETY: valid during the call.
    let mapping = unsafe { *mapping };
    assert_eq!(
        (mapping.size, mapping.reserved),
        (size_of::<NvtdMapping>(), 0)
    );
    assert!(mapping.length > 0 && mapping.permissions != 0 && mapping.permissions < 8);
    // SAFETY: the world that was passed to nvtd_for_each_mapping().
    let world = unsafe { &*opaque.cast::<World>() };
    world.react();
    if world.next() > 250 { 77 } else { 0 }
}

impl World {
    pub fn call_unit(&self, op: &Op) {
        match op.code {
            0 => self.create(op),
            1 => self.destroy(op),
            2 => {
                // SAFETY: a live unit or NULL.
                let result = unsafe { nvtd_unit_reset(self.unit(op)) };
                self.judge("reset", result.into(), &[EINVAL]);
            }
            3 => self.read(op),
            4 => self.write(op),
            5 => self.work(op),
            6 => self.ram_add(op),
            7 => self.ram_remove(op),
            8 => self.device_add(op),
            9 => {
                let device = self.device(op);
                // SAFETY: a live unit or NULL.
                let result = unsafe { nvtd_device_remove(self.unit(op), device) };
                self.judge("device_remove", result.into(), &[EINVAL, ENOENT]);
                if result == 0 {
                    self.devices.borrow_mut().retain(|&known| known != device);
                }
            }
            10 => {
                let flags = op.number % 5;
                // SAFETY: a live unit or NULL.
                let result = unsafe { nvtd_device_notify(self.unit(op), self.device(op), flags) };
                self.judge("device_notify", result.into(), &[EINVAL, ENOENT]);
            }
            11 => {
                let room = self.room::<NvtdDeviceInfo>(op.sizes, op.wrong == 2);
                let before = room.map(|room| room.bytes()).unwrap_or_default();
                // SAFETY: a live unit or NULL, and as many bytes as the size says or NULL.
                let result =
                    unsafe { nvtd_device_info(self.unit(op), self.device(op), pointer(room)) };
                self.judge("device_info", result.into(), &[EINVAL, ENOENT]);
                Self::check_room::<NvtdDeviceInfo>(result, room, &before);
            }
            12 => self.translate(op),
            13 | 14 => self.snapshot(op),
            15 => self.page_request(op),
            16 => {
                let room = self.room::<NvtdStats>(op.sizes, op.wrong == 2);
                let before = room.map(|room| room.bytes()).unwrap_or_default();
                // SAFETY: as above.
                let result = unsafe { nvtd_stats(self.unit(op), pointer(room)) };
                self.judge("stats", result.into(), &[EINVAL]);
                Self::check_room::<NvtdStats>(result, room, &before);
            }
            17 => self.remap_msi(op),
            18 => self.dump(op),
            19 => self.mappings(op),
            20 => self.host(op),
            21 => self.plain(op),
            22 => self.boot(op),
            _ => {
                let gpa = (op.v as usize % Arena::RAM) & !7;
                let flip = op.sizes & 1 != 0;
                let value = if flip {
                    self.arena.peek(gpa) ^ 1 << (op.w % 64)
                } else {
                    op.w
                };
                self.arena.poke(gpa, value);
            }
        }
    }

    fn create(&self, op: &Op) {
        let place = &self.units[usize::from(op.a & 1)];
        if self.is_inside() {
            return;
        }
        let twin = if op.a & 2 == 0 {
            self.twins[usize::from(op.a >> 2 & 1)].get()
        } else {
            ptr::null_mut()
        };
        let all = Features::DEFINED;
        let features = match op.number & 7 {
            // What goes with a host, everything, or anything.
            0..=3 => 0x1_f81f & !(op.v & 0x1_f800),
            4 | 5 => all & !op.v,
            _ => op.v,
        };
        let host = match op.number >> 3 & 7 {
            0 | 1 if !twin.is_null() => NVTD_HOST_IOMMUFD,
            0 | 2 => NVTD_HOST_SOFT,
            1 | 3 | 4 => NVTD_HOST_NONE,
            other => other % 4,
        };
        let config = NvtdConfig {
            size: 0,
            host,
            inject: if op.wrong == 3 { op.w as u32 } else { 0 },
            features,
            address_width: pick(&[0, 48, 57, 39, 47], op.number >> 6 & 7),
            pasid_bits: pick(&[20, 7, 0, 1, 21, 10], op.number >> 9 & 7),
            twin,
            checks: u32::from(op.wrong == 4) * 3 + (op.number >> 12 & 1),
            reserved: u32::from(op.wrong == 5),
        };
        let config = self.structure(&config, op.sizes, op.wrong == 2);
        let callbacks = ops(if op.wrong == 6 {
            op.w as u32
        } else {
            op.w as u32 & !1 & 0x3ff
        });
        let callbacks = self.structure(&callbacks, op.sizes >> 4 & 7, op.wrong == 7);
        let room = self.arena.buffer(8);
        let to = if op.wrong == 8 {
            ptr::null_mut()
        } else {
            room.pointer::<*mut NvtdUnit>()
        };
        let opaque = self.opaque();
        // SAFETY: as many bytes as the sizes say or NULL; the callbacks take the world, which outlives the unit.
        let result = unsafe { nvtd_unit_create(pointer(config), pointer(callbacks), opaque, to) };
        self.judge("unit_create", result.into(), &[EINVAL]);
        if to.is_null() {
            assert_eq!(result, -EINVAL);
            return;
        }
        // SAFETY: it was written in any case.
        let made = unsafe { to.read() };
        assert_eq!(made.is_null(), result != 0, "a unit and {result}");
        if result == 0 {
            let before = place.replace(made);
            // SAFETY: it was created, and this is its last use.
            self.quietly(|| unsafe { nvtd_unit_destroy(before) });
            self.ram
                .borrow_mut()
                .retain(|(unit, ..)| *unit != usize::from(op.a & 1));
        }
    }

    fn destroy(&self, op: &Op) {
        if self.is_inside() {
            return;
        }
        let unit = self.units[usize::from(op.a & 1)].replace(ptr::null_mut());
        // SAFETY: it was created, or is NULL, and this is its last use.
        self.quietly(|| unsafe { nvtd_unit_destroy(unit) });
        self.ram
            .borrow_mut()
            .retain(|(unit, ..)| *unit != usize::from(op.a & 1));
    }

    fn read(&self, op: &Op) {
        let room = self.arena.buffer(8);
        let value = if op.wrong == 2 {
            ptr::null_mut()
        } else {
            room.pointer::<u64>()
        };
        let size = pick(&[4, 8, 1, 2, 0, 3, 16], op.sizes);
        // SAFETY: a live unit or NULL, and room for a value or NULL.
        let result = unsafe { nvtd_mmio_read(self.unit(op), op.v % 0x1010, size, value) };
        self.judge("mmio_read", result.into(), &[EINVAL]);
        if result != 0 {
            assert_eq!(
                room.bytes(),
                [UNTOUCHED; 8],
                "a value of a read that failed"
            );
        }
    }

    fn write(&self, op: &Op) {
        const OFFSETS: &[u64] = &[
            0x18, 0x20, 0x28, 0x34, 0x38, 0x3c, 0x40, 0x44, 0x88, 0x90, 0x9c, 0xa0, 0xa4, 0xb8,
            0xc0, 0xc8, 0xd0, 0xdc, 0xe0, 0xf0, 0xf8, 0x22c,
        ];
        let size = pick(&[4, 8, 4, 8, 1, 2, 0, 16], op.sizes);
        let (offset, value) = match op.number & 3 {
            0..=2 => (pick(OFFSETS, op.v), op.w),
            _ => (op.v % 0x1010, op.w),
        };
        // SAFETY: a live unit or NULL.
        let result = unsafe { nvtd_mmio_write(self.unit(op), offset, size, value) };
        self.judge("mmio_write", result.into(), &[EINVAL]);
    }

    fn ram_add(&self, op: &Op) {
        let (offset, most) = match op.number & 3 {
            // As a guest has it.
            0 => (0, Arena::RAM),
            1 => (usize::from(op.sizes & 0x3f) << 12, 0x1000 << (op.w & 3)),
            _ => (op.v as usize % Arena::RAM, op.w as usize % Arena::RAM),
        };
        let size = most.min(Arena::RAM - offset);
        let gpa = match op.number & 3 {
            0 => 0,
            1 => op.v & !0xfff,
            2 => op.v,
            _ => op.v << 44,
        };
        let host = if op.wrong == 2 {
            ptr::null_mut()
        } else {
            // SAFETY: inside of the arena's RAM, which stays for ever.
            unsafe { self.arena.ram().add(offset) }
        };
        let flags = if op.wrong == 3 {
            op.a.into()
        } else {
            u32::from(op.a >> 6 & 1)
        };
        // SAFETY: a live unit or NULL; `size` bytes are there, and stay.
        let result = unsafe { nvtd_ram_add(self.unit(op), gpa, size as u64, host.cast(), flags) };
        self.judge("ram_add", result.into(), ANY);
        if result == 0 {
            let unit = usize::from(op.a & 1);
            self.ram.borrow_mut().push((unit, gpa, size as u64));
        }
    }

    fn ram_remove(&self, op: &Op) {
        if self.is_inside() {
            return;
        }
        let known = self.ram.borrow().clone();
        let (gpa, size) = match known.len() {
            0 => (op.v, op.w),
            _ if op.wrong > 200 => (op.v, op.w),
            count => {
                let (_, gpa, size) = known[op.v as usize % count];
                (gpa, size)
            }
        };
        // SAFETY: a live unit or NULL.
        let result = unsafe { nvtd_ram_remove(self.unit(op), gpa, size) };
        self.judge("ram_remove", result.into(), ANY);
        if result == 0 {
            let gone = (usize::from(op.a & 1), gpa, size);
            self.ram.borrow_mut().retain(|region| *region != gone);
        }
    }

    fn device_add(&self, op: &Op) {
        let flags = match op.number & 7 {
            0 | 1 => 0,
            2 => NVTD_DEVICE_FIXED_ID,
            3 | 4 => NVTD_DEVICE_ASSIGNED | NVTD_DEVICE_IOMMUFD | NVTD_DEVICE_FD,
            5 => NVTD_DEVICE_ASSIGNED,
            6 => NVTD_DEVICE_ASSIGNED | NVTD_DEVICE_IOMMUFD,
            _ => op.v as u32 & 0x1f,
        };
        let desc = NvtdDevice {
            size: 0,
            tag: op.v % 64,
            source_id: (op.v % 64) as u16,
            reserved: u16::from(op.wrong == 3),
            flags,
            iommufd: self.file(op.w as u8),
            device_fd: self.file((op.w >> 8) as u8),
            dev_id: if flags & NVTD_DEVICE_FD == 0 {
                op.w as u32 >> 16 & 7
            } else {
                0
            },
            reserved2: u32::from(op.wrong == 4),
        };
        let desc = self.structure(&desc, op.sizes, op.wrong == 2);
        let room = self.arena.buffer(8);
        let to = if op.wrong == 5 {
            ptr::null_mut()
        } else {
            room.pointer::<u32>()
        };
        // SAFETY: a live unit or NULL, as many bytes as the size says or NULL, and room for a handle or NULL.
        let result = unsafe { nvtd_device_add(self.unit(op), pointer(desc), to) };
        self.judge("device_add", result.into(), ANY);
        if result != 0 {
            assert_eq!(
                room.bytes(),
                [UNTOUCHED; 8],
                "a handle of a device that is not there"
            );
            return;
        }
        // SAFETY: it was written.
        let handle = unsafe { to.read() };
        assert_ne!(handle, 0);
        self.devices.borrow_mut().push(handle);
    }

    /// A request, with fields that go together or not.
    pub fn request(op: &Op) -> NvtdRequest {
        let flags = match op.number & 15 {
            0..=3 => NVTD_REQUEST_READ,
            4 | 5 => NVTD_REQUEST_WRITE,
            6 => NVTD_REQUEST_READ | NVTD_REQUEST_PASID,
            7 => NVTD_REQUEST_READ | NVTD_REQUEST_TRANSLATION,
            8 => NVTD_REQUEST_READ | NVTD_REQUEST_WRITE | NVTD_REQUEST_TRANSLATION,
            9 => NVTD_REQUEST_READ | NVTD_REQUEST_DEBUG,
            10 => NVTD_REQUEST_READ | NVTD_REQUEST_TRANSLATED,
            11 => NVTD_REQUEST_READ | NVTD_REQUEST_PASID | NVTD_REQUEST_PRIVILEGED,
            _ => op.number >> 4 & 0x1ff,
        };
        NvtdRequest {
            size: 0,
            address: op.v,
            flags,
            pasid: if flags & NVTD_REQUEST_PASID != 0 || op.wrong == 9 {
                pick(&[0, 1, 5, 64, 70, 0xf_ffff, 0x10_0000], op.w)
            } else {
                0
            },
        }
    }

    fn translate(&self, op: &Op) {
        let request = self.structure(&Self::request(op), op.sizes, op.wrong == 2);
        let out = self.room::<NvtdTranslation>(op.sizes >> 4 & 7, op.wrong == 3);
        let before = out.map(|out| out.bytes()).unwrap_or_default();
        let (unit, device) = (self.unit(op), self.device(op));
        // SAFETY: a live unit or NULL, and as many bytes as the sizes say or NULL.
        let result = unsafe { nvtd_translate(unit, device, pointer(request), pointer(out)) };
        self.judge("translate", result.into(), &[EINVAL, ENOENT]);
        Self::check_room::<NvtdTranslation>(result, out, &before);
    }

    /// A page request, with fields that go together or not.
    pub fn page(op: &Op) -> NvtdPageRequest {
        let flags = match op.number & 7 {
            0..=3 => NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_LAST,
            4 => NVTD_PAGE_REQUEST_WRITE | NVTD_PAGE_REQUEST_LAST,
            5 => NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_PASID | NVTD_PAGE_REQUEST_LAST,
            6 => NVTD_PAGE_REQUEST_LAST,
            _ => op.number >> 3 & 0x7f,
        };
        NvtdPageRequest {
            size: 0,
            address: op.v,
            flags,
            pasid: if flags & NVTD_PAGE_REQUEST_PASID != 0 {
                (op.w & 0x1f_ffff) as u32
            } else {
                0
            },
            group: (op.w >> 32) as u16 & 0x3ff,
            reserved: u16::from(op.wrong == 3),
            reserved2: u32::from(op.wrong == 4),
        }
    }

    fn page_request(&self, op: &Op) {
        let request = self.structure(&Self::page(op), op.sizes, op.wrong == 2);
        // SAFETY: a live unit or NULL, and as many bytes as the size says or NULL.
        let result = unsafe { nvtd_page_request(self.unit(op), self.device(op), pointer(request)) };
        self.judge("page_request", result.into(), &[EINVAL, ENOENT, EOPNOTSUPP]);
    }

    fn remap_msi(&self, op: &Op) {
        let request = NvtdMsi {
            size: 0,
            address: match op.number & 3 {
                0 => op.v,
                _ => 0xfee0_0010 | op.v & 0xf_ffff,
            },
            data: op.w as u32,
            source_id: (op.w >> 32) as u16,
            reserved: u16::from(op.wrong == 4),
            flags: op.number >> 2 & if op.wrong == 5 { 0xff } else { 7 },
            pasid: if op.number >> 3 & 1 != 0 { 5 } else { 0 },
        };
        let request = self.structure(&request, op.sizes, op.wrong == 2);
        let out = self.room::<NvtdMsiAnswer>(op.sizes >> 4 & 7, op.wrong == 3);
        let before = out.map(|out| out.bytes()).unwrap_or_default();
        // SAFETY: a live unit or NULL, and as many bytes as the sizes say or NULL.
        let result = unsafe { nvtd_remap_msi(self.unit(op), pointer(request), pointer(out)) };
        self.judge("remap_msi", result.into(), &[EINVAL]);
        Self::check_room::<NvtdMsiAnswer>(result, out, &before);
    }

    fn dump(&self, op: &Op) {
        let kind = op.number % 8;
        let with_device = matches!(kind, 3..=5) || op.wrong == 4;
        let with_pasid = matches!(kind, 4 | 5) && op.w & 1 != 0;
        let first = if matches!(kind, 1 | 4 | 5) { op.v } else { 0 };
        let what = NvtdDump {
            size: 0,
            kind,
            device: if with_device { self.device(op) } else { 0 },
            flags: u32::from(with_pasid) | u32::from(op.wrong == 5) << 1,
            pasid: if with_pasid {
                pick(&[0, 1, 5, 64, 1 << 20], op.w >> 1)
            } else {
                0
            },
            address: first,
            // Not all of the address space: that takes long.
            last: if kind == 5 {
                first.saturating_add(op.w & 0xff_ffff)
            } else {
                0
            },
        };
        let what = self.structure(&what, op.sizes, op.wrong == 2);
        let opaque = self.opaque();
        let take = (op.wrong != 3).then_some(line as unsafe extern "C" fn(_, _));
        // SAFETY: a live unit or NULL, as many bytes as the size says or NULL, and a function that takes the world.
        let result = unsafe { nvtd_dump(self.unit(op), pointer(what), take, opaque) };
        self.judge("dump", result.into(), &[EINVAL, ENOENT]);
    }

    fn mappings(&self, op: &Op) {
        let flags = if op.wrong == 4 {
            op.number
        } else {
            op.number & 1
        };
        let pasid = if flags & 1 != 0 {
            (op.w >> 32) as u32 & 0x1f_ffff
        } else {
            0
        };
        let last = op.v.saturating_add(op.w & 0xfff_ffff);
        let (first, last) = if op.wrong == 5 {
            (last, op.v)
        } else {
            (op.v, last)
        };
        let take = (op.wrong != 3).then_some(mapping as unsafe extern "C" fn(_, _) -> _);
        let (unit, device, limit) = (self.unit(op), self.device(op), u64::from(op.sizes & 63));
        let opaque = self.opaque();
        // SAFETY: a live unit or NULL, and a function that takes the world.
        let result = unsafe {
            nvtd_for_each_mapping(unit, device, flags, pasid, first, last, limit, take, opaque)
        };
        assert!(result <= 0 || result == 77, "{result}");
        self.judge("for_each_mapping", result.into(), &[EINVAL, ENOENT, E2BIG]);
    }

    /// Those for a host.
    fn host(&self, op: &Op) {
        let unit = self.unit(op);
        match op.number % 4 {
            0 => {
                // SAFETY: a live unit or NULL.
                let result = unsafe { nvtd_host_faults(unit) };
                self.judge("host_faults", result.into(), ANY);
            }
            1 => {
                // SAFETY: a live unit or NULL.
                let result = unsafe { nvtd_dirty_tracking(unit, u32::from(op.sizes % 3)) };
                self.judge("dirty_tracking", result.into(), ANY);
            }
            _ => {
                let words = usize::from(op.sizes % 9);
                let room = self.arena.buffer(words * 8);
                room.write(0, &vec![0; words * 8]);
                let bitmap = if op.wrong == 2 {
                    ptr::null_mut()
                } else {
                    room.pointer()
                };
                let (gpa, length, page) = match op.number >> 2 & 3 {
                    0 => (0, (words as u64) << 18, 0x1000),
                    1 => (op.v, op.w & 0xff_ffff, 0x1000),
                    2 => (op.v & !0xfff, op.w & 0xff_f000, 0x1000 << (op.w & 15)),
                    _ => (op.v, op.w, op.w),
                };
                let flags = op.number >> 4 & 3;
                // SAFETY: a live unit or NULL, and so many words or NULL.
                let result =
                    unsafe { nvtd_dirty_bitmap(unit, gpa, length, page, flags, bitmap, words) };
                self.judge("dirty_bitmap", result.into(), ANY);
                room.check_end();
            }
        }
    }

    /// Those that need no unit.
    fn plain(&self, op: &Op) {
        assert_eq!(nvtd_abi_version() >> 16, 1);
        // SAFETY: static strings.
        let names = unsafe {
            [
                CStr::from_ptr(nvtd_event_name(op.number)),
                CStr::from_ptr(nvtd_diagnostic_name(op.number)),
                CStr::from_ptr(nvtd_event_name(op.number % 64)),
                CStr::from_ptr(nvtd_diagnostic_name(op.number % 128)),
            ]
        };
        assert!(names.iter().all(|name| !name.is_empty()));
        let room = self.room::<NvtdConfig>(op.sizes, op.wrong == 2);
        let before = room.map(|room| room.bytes()).unwrap_or_default();
        // SAFETY: as many bytes as the size says or NULL.
        let result = unsafe { nvtd_config_default(pointer(room)) };
        self.judge("config_default", result.into(), &[EINVAL]);
        Self::check_room::<NvtdConfig>(result, room, &before);
    }

    /// A guest's tables, and what its driver writes to start the unit.
    fn boot(&self, op: &Op) {
        let unit = self.unit(op);
        let read = |offset| {
            let room = self.arena.buffer(8);
            // SAFETY: a live unit or NULL, and room for a value.
            let result = unsafe { nvtd_mmio_read(unit, offset, 8, room.pointer()) };
            let bytes = room.bytes().try_into().unwrap_or_default();
            if result == 0 {
                u64::from_ne_bytes(bytes)
            } else {
                0
            }
        };
        let capabilities = Capabilities {
            cap: read(0x08),
            ecap: read(0x10),
            host_width: 48,
        };
        let modes = [Mode::First, Mode::Nested, Mode::Second, Mode::Legacy];
        let mode = pick(&modes, op.number & 3);
        for (address, value) in tables(mode, &capabilities, Features::from_bits(0xf_ffff)) {
            if (address as usize) < Arena::RAM {
                self.arena.poke(address as usize, value);
            }
        }
        let legacy = u64::from(mode == Mode::Legacy);
        let queue = 29 << 12;
        for (offset, size, value) in [
            (0x90, 8, queue | 0x800),
            (0x18, 4, 1 << 26),
            (0x20, 8, 0x1000 | (1 - legacy) << 10),
            (0xb8, 8, 28 << 12 | 3),
            (0xd0, 8, 31 << 12),
            (0x18, 4, 1 << 26 | 1 << 30 | 1 << 24),
            (0x38, 4, 0),
            (0xa0, 4, 0),
            (0xe0, 4, 0),
            (
                0x18,
                4,
                1 << 31 | 1 << 26 | u64::from(op.number >> 2 & 1) << 25,
            ),
        ] {
            // SAFETY: a live unit or NULL.
            let result = unsafe { nvtd_mmio_write(unit, offset, size, value) };
            self.judge("mmio_write", result.into(), &[EINVAL]);
        }
        // Descriptors of each type, and a wait.
        let descriptors = [
            [1 | 1 << 4, 0],
            [7 | 3 << 4, 0],
            [2 | 1 << 4, 0],
            [6 | 2 << 4 | 2 << 16, 0],
            [4, 0],
            [3 | 3 << 32, 0x1000],
            [9, 0],
            [5 | 3 << 4 | 7 << 32, 30 << 12],
        ];
        for (number, words) in descriptors.into_iter().enumerate() {
            for (index, word) in words.into_iter().chain([0, 0]).enumerate() {
                self.arena
                    .poke(queue as usize + number * 32 + index * 8, word);
            }
        }
        // SAFETY: a live unit or NULL.
        let result = unsafe { nvtd_mmio_write(unit, 0x88, 8, 8 * 32) };
        self.judge("mmio_write", result.into(), &[EINVAL]);
    }
}
