//! System calls on the host's files: `/dev/iommu`, vfio devices, fault queues.
//!
//! [`System`] is what iommufd is reached through: the kernel ([`Linux`]), or the twin
//! that plays it. Whoever is behind it gets the same bytes.

use core::ffi::c_void;
use core::fmt::Debug;

use super::Errno;
use super::soft::Twin;
use super::uapi::Plain;

/// A file descriptor.
pub type Fd = i32;

/// Who answers system calls.
pub trait System: Send + Sync + Debug {
    /// ioctl(2).
    ///
    /// # Safety
    /// `argument` points to a structure as `request` takes it; addresses inside of it are
    /// of memory that may be read or written as the call does.
    ///
    /// # Errors
    /// The errno.
    unsafe fn ioctl(&self, fd: Fd, request: u32, argument: *mut c_void) -> Result<i32, Errno>;

    /// Open `/dev/iommu`.
    ///
    /// # Errors
    /// The errno.
    fn open_iommu(&self) -> Result<Fd, Errno>;

    /// read(2).
    ///
    /// # Errors
    /// The errno.
    fn read(&self, fd: Fd, into: &mut [u8]) -> Result<usize, Errno>;

    /// write(2).
    ///
    /// # Errors
    /// The errno.
    fn write(&self, fd: Fd, from: &[u8]) -> Result<usize, Errno>;

    /// close(2).
    ///
    /// # Errors
    /// The errno.
    fn close(&self, fd: Fd) -> Result<(), Errno>;
}

/// Make a call with `argument`, which it may change.
pub(super) fn call<T: Plain>(
    system: &dyn System,
    fd: Fd,
    request: u32,
    argument: &mut T,
) -> Result<(), Errno> {
    // SAFETY: structures are made only in `iommufd.rs`, where the addresses inside of
    // them are of memory that is borrowed for the length of the call, with its true
    // length; or of guest RAM, whose owner keeps it while it is registered.
    unsafe { system.ioctl(fd, request, (&raw mut *argument).cast()) }.map(drop)
}

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linux;

/// The result of a system call.
fn result(returned: i64) -> Result<i64, Errno> {
    if returned < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error();
        return Err(errno.unwrap_or(libc::EIO));
    }
    Ok(returned)
}

/// As [`result`], once a signal no longer interrupts it.
fn retry(mut call: impl FnMut() -> i64) -> Result<i64, Errno> {
    loop {
        match result(call()) {
            Err(libc::EINTR) => {}
            other => return other,
        }
    }
}

impl System for Linux {
    unsafe fn ioctl(&self, fd: Fd, request: u32, argument: *mut c_void) -> Result<i32, Errno> {
        // SAFETY: the caller promises what `argument` points to.
        let returned = retry(|| unsafe { libc::ioctl(fd, request.into(), argument) }.into())?;
        Ok(i32::try_from(returned).unwrap_or(0))
    }

    fn open_iommu(&self) -> Result<Fd, Errno> {
        let flags = libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: the path ends with a NUL.
        let fd = retry(|| unsafe { libc::open(c"/dev/iommu".as_ptr(), flags) }.into())?;
        i32::try_from(fd).map_err(|_| libc::EBADF)
    }

    fn read(&self, fd: Fd, into: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: `into` is ours to write.
        let read =
            retry(|| unsafe { libc::read(fd, into.as_mut_ptr().cast(), into.len()) } as i64)?;
        usize::try_from(read).map_err(|_| libc::EIO)
    }

    fn write(&self, fd: Fd, from: &[u8]) -> Result<usize, Errno> {
        // SAFETY: `from` is only read.
        let written =
            retry(|| unsafe { libc::write(fd, from.as_ptr().cast(), from.len()) } as i64)?;
        usize::try_from(written).map_err(|_| libc::EIO)
    }

    fn close(&self, fd: Fd) -> Result<(), Errno> {
        // SAFETY: the file is ours to close. An interrupted close has closed it.
        match result(unsafe { libc::close(fd) }.into()) {
            Ok(_) | Err(libc::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl System for Twin {
    unsafe fn ioctl(&self, fd: Fd, request: u32, argument: *mut c_void) -> Result<i32, Errno> {
        Self::ioctl(self, fd, request, argument.expose_provenance() as u64)
    }

    fn open_iommu(&self) -> Result<Fd, Errno> {
        self.may_open()?;
        Ok(self.open())
    }

    fn read(&self, fd: Fd, into: &mut [u8]) -> Result<usize, Errno> {
        Self::read(self, fd, into)
    }

    fn write(&self, fd: Fd, from: &[u8]) -> Result<usize, Errno> {
        Self::write(self, fd, from)
    }

    fn close(&self, fd: Fd) -> Result<(), Errno> {
        Self::close(self, fd)
    }
}
