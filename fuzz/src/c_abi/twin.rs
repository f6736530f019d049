//! The functions of a twin.

use core::ffi::c_int;
use std::ptr;

use libc::{EAGAIN, EBADF, EINVAL, EOPNOTSUPP};
use nested_vtd::ffi::twin::types::*;
use nested_vtd::ffi::twin::*;
use nested_vtd::ffi::types::{NvtdPageResponse, NvtdTranslation};
use nested_vtd::host::soft::capable_iommu;

use super::Op;
use super::unit::pointer;
use super::world::World;
use crate::input::pick;

/// Any error that a system call has.
const ANY: &[i32] = &[];

/// Calls and the sizes of their structures.
const CALLS: &[(u32, u32)] = &[
    (0x3b80, 8),
    (0x3b81, 12),
    (0x3b82, 24),
    (0x3b83, 40),
    (0x3b84, 32),
    (0x3b85, 40),
    (0x3b86, 24),
    (0x3b87, 24),
    (0x3b88, 12),
    (0x3b89, 48),
    (0x3b8a, 40),
    (0x3b8b, 16),
    (0x3b8c, 48),
    (0x3b8d, 32),
    (0x3b8e, 16),
    (0x3b8f, 40),
    (0x3b90, 40),
    (0x3b91, 24),
    (0x3b92, 8),
    (0x3b93, 32),
    (0x3b94, 40),
    (0x3b95, 32),
    (0x3b76, 16),
    (0x3b77, 16),
    (0x3b78, 12),
];

impl World {
    pub fn call_twin(&self, op: &Op) {
        match op.code {
            24 => self.twin_create(op),
            25 => {
                if self.is_inside() {
                    return;
                }
                let twin = self.twins[usize::from(op.a & 1)].replace(ptr::null_mut());
                // SAFETY: it was created, or is NULL, and this is its last use; units keep it for themselves.
                unsafe { nvtd_twin_destroy(twin) };
            }
            26 => {
                // SAFETY: a live twin or NULL.
                let fd = unsafe { nvtd_twin_open(self.twin(op)) };
                self.judge("twin_open", fd.into(), &[EINVAL]);
                self.keep(fd);
            }
            27 => self.twin_device(op),
            28..=33 => self.twin_ioctl(op),
            34 => self.twin_transfer(op),
            35 => self.twin_file(op),
            36 => self.twin_dma(op),
            37 => self.twin_pages(op),
            38 => self.twin_inject(op),
            _ => self.twin_look(op),
        }
    }

    fn keep(&self, fd: c_int) {
        let mut files = self.files.borrow_mut();
        if fd >= 0 && files.len() < 64 {
            files.push(fd);
        }
    }

    fn twin_create(&self, op: &Op) {
        if self.is_inside() {
            return;
        }
        let count = if op.number & 1 == 0 {
            0
        } else {
            op.number >> 1 & 0x7f
        };
        let iommus = self.arena.buffer(count.min(64) as usize * 16);
        let capable = capable_iommu();
        for index in 0..count.min(64) as usize {
            let flip = if index % 2 == 0 { 0 } else { op.v };
            let cap = capable.cap.into_bits() ^ flip;
            let ecap = capable.ecap.into_bits() ^ flip.rotate_left(7);
            iommus.write(index * 16, &cap.to_ne_bytes());
            iommus.write(index * 16 + 8, &ecap.to_ne_bytes());
        }
        let config = NvtdTwinConfig {
            size: 0,
            iommus: if count == 0 {
                ptr::null()
            } else {
                iommus.pointer()
            },
            iommu_count: if op.wrong == 3 { 65 } else { count },
            kernel: op.number >> 8 & if op.wrong == 4 { 7 } else { 1 },
            quirks_off: if op.wrong == 5 { op.w } else { op.w & 0x1ff },
            flags: u64::from(op.number >> 16 == 7),
        };
        let config = self.structure(&config, op.sizes, op.wrong == 2);
        let room = self.arena.buffer(8);
        let to = if op.wrong == 6 {
            ptr::null_mut()
        } else {
            room.pointer::<*mut NvtdTwin>()
        };
        // SAFETY: as many bytes as the size says, IOMMUs as the count says up to the most, or NULL.
        let result = unsafe { nvtd_twin_create(pointer(config), to) };
        self.judge("twin_create", result.into(), &[EINVAL]);
        if to.is_null() {
            assert_eq!(result, -EINVAL);
            return;
        }
        // SAFETY: it was written in any case.
        let made = unsafe { to.read() };
        assert_eq!(made.is_null(), result != 0, "a twin and {result}");
        if result == 0 {
            let before = self.twins[usize::from(op.a & 1)].replace(made);
            // SAFETY: it was created, and this is its last use.
            unsafe { nvtd_twin_destroy(before) };
        }
    }

    fn twin_device(&self, op: &Op) {
        let device = NvtdTwinDevice {
            size: 0,
            iommu: op.number & if op.wrong == 3 { 0xff } else { 0 },
            max_pasid_bits: pick(&[20, 0, 8, 21], op.number >> 8 & 3),
            flags: pick(&[3, 0, 1, 2, 4], op.number >> 10 & 7),
            group: op.number >> 13 & 3,
        };
        let device = self.structure(&device, op.sizes, op.wrong == 2);
        // SAFETY: a live twin or NULL, and as many bytes as the size says or NULL.
        let fd = unsafe { nvtd_twin_device(self.twin(op), pointer(device)) };
        self.judge("twin_device", fd.into(), &[EINVAL]);
        self.keep(fd);
    }

    /// A qword of a structure, by a byte: nothing, a small number, two of them, an address, a length, a file, a number in the
    /// upper half, or anything.
    fn word(&self, choice: u8, raw: u64) -> u64 {
        let number = u64::from(choice >> 3);
        let ram = self.arena.ram().addr() as u64;
        match choice & 7 {
            0 => 0,
            1 => number,
            2 => number >> 2 << 32 | number & 3,
            3 => ram + (number << 12),
            4 => (number + 1) << 12,
            5 => u64::from(self.file(number as u8) as u32),
            6 => number << 32,
            _ if self.arena.is_harmless(raw) => raw,
            _ => raw & 0x3fff_ffff_ffff,
        }
    }

    fn twin_ioctl(&self, op: &Op) {
        let (request, size) = pick(CALLS, op.number);
        let request = if op.wrong == 3 { op.number } else { request };
        let said = match op.sizes & 7 {
            6 => u32::from(op.sizes),
            7 => size + 8,
            _ => size,
        };
        let length = (said as usize).clamp(8, 4096);
        let buffer = self.arena.buffer(length);
        let choices = op.v.to_le_bytes().into_iter().chain(op.w.to_le_bytes());
        for (index, choice) in choices.enumerate() {
            let raw = op.v.rotate_left(index as u32 * 8) ^ op.w;
            buffer.write(index * 8, &self.word(choice, raw).to_ne_bytes());
        }
        buffer.write(0, &said.to_ne_bytes());
        let fd = self.file(op.a >> 1);
        let argument = match op.wrong {
            2 => ptr::null_mut(),
            4 => ptr::without_provenance_mut(0xffff_8000_0000_0000_u64 as usize),
            _ => buffer.pointer(),
        };
        // SAFETY: a live twin or NULL. What is written goes to this buffer, or to addresses inside of it, which are
        // of the arena, or none of this process.
        let result = unsafe { nvtd_twin_ioctl(self.twin(op), fd, request, argument) };
        self.judge("twin_ioctl", result.into(), ANY);
        buffer.check_end();
        // The file of a fault queue.
        if result == 0 && request == 0x3b8e {
            let bytes = buffer.bytes();
            if let Some(Ok(fd)) = bytes.get(12..16).map(<[u8; 4]>::try_from) {
                self.keep(c_int::from_ne_bytes(fd));
            }
        }
    }

    fn twin_transfer(&self, op: &Op) {
        let length = match op.sizes & 3 {
            0 => 48,
            1 => 8,
            2 => 96,
            _ => usize::from(op.sizes),
        };
        let buffer = self.arena.buffer(length);
        buffer.write(0, &op.v.to_ne_bytes());
        buffer.write(8, &op.w.to_ne_bytes());
        let (twin, fd) = (self.twin(op), self.file(op.a >> 1));
        let bytes = if op.wrong == 2 {
            ptr::null_mut()
        } else {
            buffer.pointer()
        };
        let result = if op.number & 1 == 0 {
            // SAFETY: a live twin or NULL, and so many bytes or NULL.
            unsafe { nvtd_twin_read(twin, fd, bytes, length) }
        } else {
            // SAFETY: as above.
            unsafe { nvtd_twin_write(twin, fd, bytes, length) }
        };
        assert!(result <= length as i64, "{result} of {length} bytes");
        self.judge("twin_read or twin_write", result, ANY);
        buffer.check_end();
    }

    fn twin_file(&self, op: &Op) {
        let (twin, fd) = (self.twin(op), self.file(op.a >> 1));
        if op.number & 3 != 0 {
            // SAFETY: a live twin or NULL.
            let result = unsafe { nvtd_twin_poll(twin, fd) };
            self.judge("twin_poll", result.into(), &[EBADF, EINVAL]);
            return;
        }
        // SAFETY: a live twin or NULL.
        let result = unsafe { nvtd_twin_close(twin, fd) };
        self.judge("twin_close", result.into(), &[EBADF, EINVAL]);
        if result == 0 {
            self.files.borrow_mut().retain(|&known| known != fd);
        }
    }

    fn twin_dma(&self, op: &Op) {
        let request = self.structure(&Self::request(op), op.sizes, op.wrong == 2);
        let out = self.room::<NvtdTranslation>(op.sizes >> 4 & 7, op.wrong == 3);
        let before = out.map(|out| out.bytes()).unwrap_or_default();
        let (twin, fd) = (self.twin(op), self.file(op.a >> 1));
        // SAFETY: a live twin or NULL, and as many bytes as the sizes say or NULL.
        let result = unsafe { nvtd_twin_dma(twin, fd, pointer(request), pointer(out)) };
        self.judge("twin_dma", result.into(), &[EINVAL, EBADF]);
        Self::check_room::<NvtdTranslation>(result, out, &before);
    }

    fn twin_pages(&self, op: &Op) {
        let (twin, fd) = (self.twin(op), self.file(op.a >> 1));
        if op.number & 0x100 == 0 {
            let request = self.structure(&Self::page(op), op.sizes, op.wrong == 2);
            // SAFETY: a live twin or NULL, and as many bytes as the size says or NULL.
            let result = unsafe { nvtd_twin_page_request(twin, fd, pointer(request)) };
            self.judge(
                "twin_page_request",
                result.into(),
                &[EINVAL, EBADF, EOPNOTSUPP],
            );
            return;
        }
        let out = self.room::<NvtdPageResponse>(op.sizes, op.wrong == 3);
        let before = out.map(|out| out.bytes()).unwrap_or_default();
        // SAFETY: as above.
        let result = unsafe { nvtd_twin_page_response(twin, fd, pointer(out)) };
        self.judge(
            "twin_page_response",
            result.into(),
            &[EAGAIN, EINVAL, EBADF],
        );
        Self::check_room::<NvtdPageResponse>(result, out, &before);
    }

    fn twin_inject(&self, op: &Op) {
        let (request, _) = pick(CALLS, op.number);
        let injection = NvtdTwinInjection {
            size: 0,
            skip: op.v & 7,
            times: op.v >> 3 & 3,
            request: if op.a & 2 == 0 { request } else { 0 },
            error: pick(&[12, 22, 5, 16, 0, 4096], op.w),
            handled: (op.w >> 8 & 7) as u32,
            flags: op.number >> 8 & 3,
        };
        let injection = self.structure(&injection, op.sizes, op.wrong == 2);
        // SAFETY: a live twin or NULL, and as many bytes as the size says or NULL.
        let result = unsafe { nvtd_twin_inject(self.twin(op), pointer(injection)) };
        self.judge("twin_inject", result.into(), &[EINVAL]);
    }

    fn twin_look(&self, op: &Op) {
        let twin = self.twin(op);
        match op.number & 3 {
            0 => {
                let limit = if op.v & 1 == 0 { u64::MAX } else { op.v };
                // SAFETY: a live twin or NULL.
                let result = unsafe { nvtd_twin_limit(twin, limit) };
                self.judge("twin_limit", result.into(), &[EINVAL]);
            }
            1 => {
                let (request, _) = pick(CALLS, op.v);
                // SAFETY: a live twin or NULL.
                let result = unsafe { nvtd_twin_calls(twin, request) };
                self.judge("twin_calls", result, &[EINVAL]);
            }
            _ => {
                let room = self.room::<NvtdTwinStats>(op.sizes, op.wrong == 2);
                let before = room.map(|room| room.bytes()).unwrap_or_default();
                // SAFETY: a live twin or NULL, and as many bytes as the size says or NULL.
                let result = unsafe { nvtd_twin_stats(twin, pointer(room)) };
                self.judge("twin_stats", result.into(), &[EINVAL]);
                Self::check_room::<NvtdTwinStats>(result, room, &before);
            }
        }
    }
}
