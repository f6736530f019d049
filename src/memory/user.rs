//! Memory of this process by address, as the kernel reaches it from a system call:
//! what is not mapped is an error, not a crash.

use core::ffi::c_void;

/// Part of the memory is not mapped, or not for this access (`EFAULT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAddress;

/// Fill `into` from memory at `address`.
///
/// # Errors
/// [`BadAddress`]; `into` may be filled in part.
pub fn read(address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
    if into.is_empty() {
        return Ok(());
    }
    let local = vector(into.as_mut_ptr(), into.len());
    let remote = vector(pointer(address)?, into.len());
    // SAFETY: the kernel checks the remote range, and the local one is ours to write.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    all(copied, into.len())
}

/// Write `from` to memory at `address`.
///
/// The caller was given the address to write to, as a system call's output is.
///
/// # Errors
/// [`BadAddress`]; some of it may have been written.
pub fn write(address: u64, from: &[u8]) -> Result<(), BadAddress> {
    if from.is_empty() {
        return Ok(());
    }
    let to = pointer(address)?;
    let local = vector(from.as_ptr().cast_mut(), from.len());
    let remote = vector(to, from.len());
    // SAFETY: the kernel checks the remote range, and only reads the local one.
    let copied = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    all(copied, from.len())?;
    // Once more with the processor: memory checkers (valgrind) do not see what the kernel
    // writes by this call.
    for (byte, to) in from
        .iter()
        .zip((0..from.len()).map(|offset| to.wrapping_add(offset)))
    {
        // SAFETY: the kernel just wrote there, and the caller was given it to write to.
        unsafe { to.write_volatile(*byte) };
    }
    Ok(())
}

/// Is every page of the range mapped?
pub fn is_mapped(address: u64, length: u64) -> bool {
    const PAGE: u64 = 4096;
    let start = address & !(PAGE - 1);
    let Some(length) = address
        .checked_add(length)
        .map(|end| end.wrapping_sub(start))
        .and_then(|length| usize::try_from(length).ok())
    else {
        return false;
    };
    let Ok(start) = pointer(start) else {
        return false;
    };
    // SAFETY: asynchronous synchronisation changes nothing, whatever is mapped there; it
    // fails where nothing is.
    unsafe { libc::msync(start.cast(), length, libc::MS_ASYNC) == 0 }
}

/// Is every page of the range mapped for reading, and for writing if `write`?
pub fn permits(address: u64, length: u64, write: bool) -> bool {
    let Some(end) = address.checked_add(length) else {
        return false;
    };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return is_mapped(address, length);
    };
    // Lines are sorted by address: "first-end rwxp ...".
    let mut covered = address;
    for line in maps.lines() {
        let Some((first, last, rights)) = region(line) else {
            continue;
        };
        if last <= covered {
            continue;
        }
        if first > covered || !rights.starts_with(if write { "rw" } else { "r" }) {
            return false;
        }
        covered = last;
        if covered >= end {
            return true;
        }
    }
    covered >= end
}

/// First address, end and rights of a line of `/proc/self/maps`.
fn region(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.split(' ');
    let (first, end) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(first)?, number(end)?, words.next()?))
}

fn pointer(address: u64) -> Result<*mut u8, BadAddress> {
    let address = usize::try_from(address).map_err(|_| BadAddress)?;
    Ok(core::ptr::with_exposed_provenance_mut(address))
}

fn vector(base: *mut u8, length: usize) -> libc::iovec {
    libc::iovec {
        iov_base: base.cast::<c_void>(),
        iov_len: length,
    }
}

fn all(copied: isize, wanted: usize) -> Result<(), BadAddress> {
    if usize::try_from(copied) == Ok(wanted) {
        Ok(())
    } else {
        Err(BadAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "system calls")]
    fn own_memory_is_read_and_written() {
        let mut cells = [1_u8, 2, 3, 4];
        let address = cells.as_mut_ptr().expose_provenance() as u64;
        let mut copy = [0; 4];
        assert_eq!(read(address, &mut copy), Ok(()));
        assert_eq!(copy, [1, 2, 3, 4]);
        assert_eq!(write(address, &[9, 8]), Ok(()));
        assert_eq!(cells, [9, 8, 3, 4]);
        assert!(is_mapped(address, 4));
        assert!(permits(address, 4, true));
    }

    #[test]
    #[cfg_attr(miri, ignore = "system calls")]
    fn constants_can_be_read_only() {
        static CONSTANT: [u64; 512] = [7; 512];
        let address = CONSTANT.as_ptr().expose_provenance() as u64;
        assert!(permits(address, 8, false));
        assert!(!permits(address, 8, true));
    }

    #[test]
    #[cfg_attr(miri, ignore = "system calls")]
    fn what_is_not_mapped_is_an_error() {
        let mut byte = [0];
        for address in [0, 8, 0xffff_8000_0000_0000, u64::MAX] {
            assert_eq!(read(address, &mut byte), Err(BadAddress), "{address:#x}");
            assert_eq!(write(address, &byte), Err(BadAddress), "{address:#x}");
            assert!(!is_mapped(address, 1), "{address:#x}");
            assert!(!permits(address, 1, false), "{address:#x}");
        }
        assert!(!permits(u64::MAX, 2, false), "beyond the end");
        assert_eq!(read(0, &mut []), Ok(()), "nothing is asked for");
    }
}
