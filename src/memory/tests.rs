use super::*;
use crate::spec::PAGE_SIZE;

fn add(memory: &GuestMemory, gpa: u64, pages: u64, read_only: bool) -> Result<()> {
    memory.add(gpa, OwnedRam::new(pages * PAGE_SIZE).into(), read_only)
}

#[test]
fn values_go_where_the_region_says() {
    let memory = GuestMemory::default();
    add(&memory, 0x10_0000, 1, false).unwrap();
    add(&memory, 0, 2, false).unwrap();

    memory.write_u32(0x10_0004, 0xdead_beef).unwrap();
    assert_eq!(memory.read_u64(0x10_0000), Ok(0xdead_beef_0000_0000));
    assert_eq!(memory.compare_exchange_u64(0x1ff8, 0, 7), Ok(true));
    assert_eq!(memory.compare_exchange_u64(0x1ff8, 0, 8), Ok(false));
    assert_eq!(memory.read_qwords::<2>(0x1ff0), Ok([0, 7]));
}

#[test]
fn accesses_outside_are_refused() {
    let memory = GuestMemory::default();
    add(&memory, 0x1000, 1, false).unwrap();
    add(&memory, 0x8000, 1, true).unwrap();

    for gpa in [0, 0xff8, 0x2000, 0x7ff8, 0x9000, u64::MAX - 7] {
        assert_eq!(memory.read_u64(gpa), Err(MemoryError::NotRam), "{gpa:#x}");
    }
    assert_eq!(memory.read_u64(0x1004), Err(MemoryError::Misaligned));
    assert_eq!(memory.write_u32(0x8000, 1), Err(MemoryError::ReadOnly));
    assert_eq!(memory.read_u64(0x8000), Ok(0));
    assert_eq!(memory.read_qwords::<2>(0x1ff8), Err(MemoryError::NotRam));
}

#[test]
fn many_qwords_are_read_across_regions_that_touch() {
    let memory = GuestMemory::default();
    add(&memory, 0, 1, false).unwrap();
    add(&memory, 0x1000, 1, true).unwrap();
    memory.write_qwords(0xff0, [1, 2]).unwrap();
    let mut qwords = [7; 4];
    assert_eq!(memory.locked().read_into(0xff0, &mut qwords), Ok(()));
    assert_eq!(qwords, [1, 2, 0, 0]);
    for gpa in [0x1ff0, 0x2000] {
        let read = memory.locked().read_into(gpa, &mut qwords);
        assert_eq!(read, Err(MemoryError::NotRam), "{gpa:#x}");
    }
    let read = memory.locked().read_into(0xff4, &mut qwords);
    assert_eq!(read, Err(MemoryError::Misaligned));
    assert_eq!(memory.locked().read_into(0x8000, &mut []), Ok(()));
}

#[test]
fn bad_regions_are_refused_whole() {
    let memory = GuestMemory::default();
    add(&memory, 0x2000, 2, false).unwrap();
    for gpa in [0x0, 0x1000, 0x2000, 0x3000] {
        assert_eq!(
            add(&memory, gpa, 4, false).unwrap_err().errno(),
            libc::EEXIST
        );
    }
    assert_eq!(
        add(&memory, u64::MAX - 0xfff, 4, false)
            .unwrap_err()
            .errno(),
        libc::EINVAL
    );
    assert_eq!(
        add(&memory, 0x4004, 4, false).unwrap_err().errno(),
        libc::EINVAL
    );
    assert_eq!(
        memory.remove(0x2000, 0x1000).unwrap_err().errno(),
        libc::ENOENT
    );
    assert_eq!(memory.read_u64(0x4000), Err(MemoryError::NotRam));
    memory.remove(0x2000, 0x2000).unwrap();
    assert_eq!(memory.read_u64(0x2000), Err(MemoryError::NotRam));
}

#[test]
fn a_page_counts_only_when_a_region_holds_all_of_it() {
    let memory = GuestMemory::default();
    add(&memory, 0x1800, 2, false).unwrap();
    add(&memory, 0x8000, 1, true).unwrap();
    assert_eq!(memory.page(0x1800, PAGE_SIZE), None);
    assert_eq!(memory.page(0x2fff, PAGE_SIZE), Some(PageKind::Writable));
    assert_eq!(memory.page(0x3000, PAGE_SIZE), None);
    assert_eq!(memory.page(0x8010, PAGE_SIZE), Some(PageKind::ReadOnly));
    assert_eq!(memory.page(0x2000, 1 << 21), None);
}
