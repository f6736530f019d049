/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Assigned devices with iommufd: the ways to lend one, what devices share, RAM, and where a device
 * ends that is removed or whose unit is reset. The kernel is a twin.
 */
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define READ NVTD_REQUEST_READ
#define WRITE NVTD_REQUEST_WRITE

static struct machine *m;
static struct guest *g;

static int setup(void **state)
{
    (void)state;
    m = machine_new(NULL, machine_offer(0));
    g = m->g;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    machine_free(m);
    return 0;
}

/* On the nesting parent: guest-physical addresses, writable, and the table's outside is not. */
static void expect_parent(const struct slot *slot)
{
    NvtdDeviceInfo info = machine_info(m, slot);
    NvtdTranslation out = machine_dma(m, slot, 0x5000, READ | WRITE, NO_PASID);

    assert_int_equal(info.state, NVTD_STATE_PARENT);
    assert_int_not_equal(info.hwpt, 0);
    assert_int_equal(info.host_errno, 0);
    assert_int_equal(info.host_request, 0);
    assert_int_equal(out.fault, 0);
    assert_int_equal(out.address, 0x5000);
    expect_unreached(m, slot, GUEST_RAM_SIZE, NO_PASID);
}

static void expect_nothing_left(void)
{
    NvtdTwinStats stats = machine_stats(m);

    assert_int_equal(stats.ioas, 0);
    assert_int_equal(stats.paging, 0);
    assert_int_equal(stats.nested, 0);
    assert_int_equal(stats.fault_queues, 0);
    assert_int_equal(stats.mapped, 0);
}

static void a_device_that_the_unit_binds(void **state)
{
    struct slot *slot = machine_add(m);

    (void)state;
    assert_int_equal(machine_calls(m, CALL_BIND), 1);
    assert_int_equal(machine_stats(m).devices, 1);
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE);
    expect_parent(slot);
    machine_remove(m, slot);
    expect_blocked(m, slot, NO_PASID);
    expect_nothing_left();
    /* What was lent is still open: the device can be added again, by the ID it has. */
    assert_int_equal(nvtd_twin_close(m->twin, slot->file), 0);
    assert_int_equal(nvtd_twin_close(m->twin, m->iommufd), 0);
}

static void a_device_that_the_vmm_has_bound(void **state)
{
    struct slot *slot = machine_plug(m, 0);
    NvtdDevice lent = machine_lend(m, slot);

    (void)state;
    lent.dev_id = machine_bind(m, slot);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(nvtd_device_add(g->unit, &lent, &slot->device), 0);
        assert_int_equal(machine_calls(m, CALL_BIND), 1);
        expect_parent(slot);
        machine_remove(m, slot);
        expect_nothing_left();
    }
    lent.dev_id += 100;
    expect_error(nvtd_device_add(g->unit, &lent, &slot->device), -ENOENT, "IOMMU_GET_HW_INFO");
    expect_nothing_left();
}

static void an_iommufd_of_the_units_own(void **state)
{
    struct slot *slot = machine_plug(m, 0), *other = machine_add(m);
    NvtdDevice lent = machine_lend(m, slot);

    (void)state;
    lent.flags &= ~(uint32_t)NVTD_DEVICE_IOMMUFD;
    lent.iommufd = 0;
    assert_int_equal(nvtd_device_add(g->unit, &lent, &slot->device), 0);
    expect_parent(slot);
    expect_parent(other);
    /* Another iommufd, another address space. */
    assert_int_equal(machine_stats(m).ioas, 2);
    assert_int_equal(machine_stats(m).paging, 2);
    assert_int_equal(machine_stats(m).mapped, 2 * GUEST_RAM_SIZE);
    machine_remove(m, other);
    assert_int_equal(machine_stats(m).ioas, 1);
    expect_parent(slot);
    machine_remove(m, slot);
    expect_nothing_left();
}

static void files_that_are_none(void **state)
{
    struct slot *slot = machine_plug(m, 0);
    NvtdDevice lent = machine_lend(m, slot);
    uint32_t device = 7;

    (void)state;
    lent.iommufd = -1;
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EINVAL, "VFIO_DEVICE_BIND_IOMMUFD");
    lent.iommufd = slot->file;
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EBADFD, "VFIO_DEVICE_BIND_IOMMUFD");
    lent.iommufd = m->iommufd;
    lent.device_fd = -1;
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EBADF, "VFIO_DEVICE_BIND_IOMMUFD");
    lent.device_fd = slot->file;
    machine_refuse(m, CALL_BIND, EPERM, 0, 1);
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EPERM, "VFIO_DEVICE_BIND_IOMMUFD");
    expect_nothing_left();
    assert_int_equal(nvtd_device_add(g->unit, &lent, &slot->device), 0);
    expect_parent(slot);
}

static void fields_that_do_not_go_together(void **state)
{
    struct slot *slot = machine_plug(m, 0);
    NvtdDevice lent = machine_lend(m, slot);
    uint32_t device = 7;

    (void)state;
    lent.flags &= ~(uint32_t)NVTD_DEVICE_ASSIGNED;
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EINVAL, "NVTD_DEVICE_ASSIGNED");
    lent = machine_lend(m, slot);
    lent.flags |= 16;
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EINVAL, "flags");
    lent = machine_lend(m, slot);
    lent.reserved2 = 1;
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EINVAL, "reserved2");
    lent = machine_lend(m, slot);
    lent.flags &= ~(uint32_t)NVTD_DEVICE_IOMMUFD;
    lent.dev_id = 1;
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EINVAL, "NVTD_DEVICE_IOMMUFD");
    /* Neither a file to bind nor the ID of what is bound. */
    lent = machine_lend(m, slot);
    lent.flags &= ~(uint32_t)NVTD_DEVICE_FD;
    expect_error(nvtd_device_add(g->unit, &lent, &device), -EINVAL, "dev_id");
    assert_int_equal(machine_calls(m, CALL_BIND), 0);
    expect_nothing_left();
}

static void configurations_with_a_twin(void **state)
{
    NvtdConfig config = machine_offer(0);
    NvtdOps ops = { .size = sizeof(ops) };
    NvtdUnit *unit = g->unit;

    (void)state;
    config.twin = m->twin;
    for (uint32_t host = NVTD_HOST_NONE; host <= NVTD_HOST_SOFT; host++) {
        config.host = host;
        expect_error(nvtd_unit_create(&config, &ops, NULL, &unit), -EINVAL, "");
        assert_null(unit);
    }
    config.host = NVTD_HOST_IOMMUFD + 1;
    expect_error(nvtd_unit_create(&config, &ops, NULL, &unit), -EINVAL, "");
}

/* A unit that was made without a twin asks the kernel. Where that has no iommufd, it says so. */
static void the_kernels_own_iommufd(void **state)
{
    NvtdConfig offer = machine_offer(0);
    NvtdDevice desc = { .size = sizeof(desc), .flags = NVTD_DEVICE_ASSIGNED | NVTD_DEVICE_FD,
                        .device_fd = -1 };
    struct guest *other;
    uint32_t device;

    (void)state;
    offer.host = NVTD_HOST_IOMMUFD;
    other = guest_new_with(&offer);
    assert_true(nvtd_device_add(other->unit, &desc, &device) < 0);
    assert_int_not_equal(nvtd_last_error()[0], 0);
    guest_free(other);
}

/* The VMM attaches: what it was asked to do. */
static NvtdAttach asked[16];
static unsigned asks;
static int answer;

static int attach(struct guest *guest, const NvtdAttach *attach)
{
    uint32_t pasid_flag = attach->flags & NVTD_ATTACH_PASID;
    struct slot *slot = &m->slots[attach->tag >> 3 & 7];

    (void)guest;
    /* The tag is the source ID, 00:03.0 and on. */
    slot -= GUEST_SID >> 3;
    assert_true(asks < 16);
    asked[asks++] = *attach;
    if (answer && !(attach->flags & NVTD_ATTACH_DETACH)) {
        return answer;
    }
    if (attach->flags & NVTD_ATTACH_DETACH) {
        struct vfio_detach detach = { .argsz = sizeof(detach), .flags = pasid_flag,
                                      .pasid = attach->pasid };

        assert_int_equal(attach->hwpt, 0);
        return nvtd_twin_ioctl(m->twin, slot->file, CALL_DETACH, &detach);
    } else {
        struct vfio_attach to = { .argsz = sizeof(to), .flags = pasid_flag,
                                  .pt_id = attach->hwpt, .pasid = attach->pasid };

        return nvtd_twin_ioctl(m->twin, slot->file, CALL_ATTACH, &to);
    }
}

static int setup_attach(void **state)
{
    (void)setup(state);
    asks = 0;
    answer = 0;
    g->attach = attach;
    return 0;
}

static NvtdDevice lend_without_file(struct slot *slot)
{
    NvtdDevice lent = machine_lend(m, slot);

    lent.flags &= ~(uint32_t)NVTD_DEVICE_FD;
    lent.device_fd = 0;
    lent.dev_id = machine_bind(m, slot);
    return lent;
}

static void expect_asked(unsigned index, uint32_t flags, uint32_t pasid, uint32_t hwpt)
{
    assert_true(index < asks);
    assert_int_equal(asked[index].tag, GUEST_SID);
    assert_int_equal(asked[index].flags, flags);
    assert_int_equal(asked[index].pasid, pasid);
    assert_int_equal(asked[index].hwpt, hwpt);
}

/* Once for each change, and not at all without one. */
static void the_vmm_attaches(void **state)
{
    struct slot *slot = machine_plug(m, 0);
    NvtdDevice lent = lend_without_file(slot);
    uint32_t parent, nested;

    (void)state;
    assert_int_equal(nvtd_device_add(g->unit, &lent, &slot->device), 0);
    parent = machine_info(m, slot).hwpt;
    assert_int_equal(asks, 1);
    expect_asked(0, 0, 0, parent);
    expect_parent(slot);

    machine_boot(m);
    nested = machine_info(m, slot).hwpt;
    assert_int_not_equal(nested, parent);
    assert_int_equal(asks, 2);
    expect_asked(1, 0, 0, nested);
    guest_flush(g);
    guest_flush(g);
    assert_int_equal(asks, 2);

    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x700000);
    machine_announce(m, QI_PASID_PASID(GUEST_DID, 9));
    assert_int_equal(asks, 3);
    assert_int_equal(asked[2].flags, NVTD_ATTACH_PASID);
    assert_int_equal(asked[2].pasid, 9);
    expect_reaches(m, slot, 0x5000, 9, 0x700000);
    guest_flush(g);
    assert_int_equal(asks, 3);

    guest_set_pasid_entry(g, 9, 0, 0, 0);
    machine_announce(m, QI_PASID_PASID(GUEST_DID, 9));
    assert_int_equal(asks, 4);
    expect_asked(3, NVTD_ATTACH_PASID | NVTD_ATTACH_DETACH, 9, 0);
    expect_blocked(m, slot, 9);

    machine_remove(m, slot);
    assert_int_equal(asks, 5);
    expect_asked(4, NVTD_ATTACH_DETACH, 0, 0);
    expect_nothing_left();
}

static void the_vmm_refuses_to_attach(void **state)
{
    struct slot *slot = machine_plug(m, 0);
    NvtdDevice lent = lend_without_file(slot);
    NvtdDeviceInfo info;

    (void)state;
    answer = -ENOMEM;
    expect_error(nvtd_device_add(g->unit, &lent, &slot->device), -ENOMEM,
                 "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
    expect_nothing_left();
    answer = 0;
    assert_int_equal(nvtd_device_add(g->unit, &lent, &slot->device), 0);

    answer = -ENOSPC;
    asks = 0;
    machine_boot(m);
    info = machine_info(m, slot);
    assert_int_equal(info.state, NVTD_STATE_BLOCKED);
    assert_int_equal(info.hwpt, 0);
    assert_int_equal(info.host_errno, ENOSPC);
    assert_int_equal(info.host_request, CALL_ATTACH);
    expect_blocked(m, slot, NO_PASID);
    assert_int_equal(asked[asks - 1].flags, NVTD_ATTACH_DETACH);
    assert_int_equal(machine_stats(m).nested, 0);

    /* Not an errno. */
    answer = 5;
    guest_flush(g);
    assert_int_equal(machine_info(m, slot).host_errno, EIO);
    answer = 0;
    guest_flush(g);
    info = machine_info(m, slot);
    assert_int_equal(info.state, NVTD_STATE_NESTED);
    assert_int_equal(info.host_errno, 0);
    assert_int_equal(info.host_request, 0);
}

static void a_vmm_that_cannot_attach(void **state)
{
    struct slot *slot = machine_plug(m, 0);
    NvtdDevice lent = lend_without_file(slot);

    (void)state;
    g->attach = NULL;
    expect_error(nvtd_device_add(g->unit, &lent, &slot->device), -ENOSYS,
                 "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
    expect_nothing_left();
}

static void devices_share(void **state)
{
    (void)state;
    for (unsigned count = 2; count <= MACHINE_DEVICES; count = count == 2 ? 8 : 9) {
        uint32_t hwpt;

        while (m->count < count) {
            (void)machine_add(m);
        }
        assert_int_equal(machine_stats(m).devices, count);
        assert_int_equal(machine_stats(m).peak_ioas, 1);
        assert_int_equal(machine_stats(m).peak_paging, 1);
        assert_int_equal(machine_stats(m).ever_mapped, GUEST_RAM_SIZE);
        if (count == 2) {
            machine_boot(m);
            guest_map(g, 0x5000, 0x700000, 1, FS_LEAF);
        } else {
            for (unsigned i = 0; i < count; i++) {
                machine_context(m, &m->slots[i], CONTEXT_PASIDE);
            }
        }
        hwpt = machine_info(m, &m->slots[0]).hwpt;
        for (unsigned i = 0; i < count; i++) {
            assert_int_equal(machine_info(m, &m->slots[i]).state, NVTD_STATE_NESTED);
            assert_int_equal(machine_info(m, &m->slots[i]).hwpt, hwpt);
            expect_reaches(m, &m->slots[i], 0x5000, NO_PASID, 0x700000);
        }
        assert_int_equal(machine_stats(m).peak_nested, 1);
        assert_int_equal(guest_stats(g).hwpt_allocs, 1);
    }
    /* One invalidation for them all. */
    *guest_entry(g, 0x5000, 1) = 0x900000 | FS_LEAF;
    assert_int_equal(machine_stats(m).invalidate_calls, 0);
    guest_flush_iova(g, 0x5000, 0);
    assert_int_equal(machine_stats(m).invalidate_calls, 1);
    assert_int_equal(machine_stats(m).invalidate_entries, 1);
    for (unsigned i = 0; i < MACHINE_DEVICES; i++) {
        expect_reaches(m, &m->slots[i], 0x5000, NO_PASID, 0x900000);
    }
    for (unsigned i = 0; i < MACHINE_DEVICES; i++) {
        assert_int_equal(machine_stats(m).nested, 1);
        machine_remove(m, &m->slots[i]);
        expect_blocked(m, &m->slots[i], NO_PASID);
    }
    expect_nothing_left();
}

/* RAM. */

static uint8_t *ram_of(size_t size)
{
    uint8_t *ram = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_ptr_not_equal(ram, MAP_FAILED);
    return ram;
}

static void ram_comes_and_goes(void **state)
{
    struct slot *slot = machine_add(m), *own = machine_plug(m, 0);
    NvtdDevice lent = machine_lend(m, own);
    uint8_t *ram = ram_of(2 * MIB);

    (void)state;
    lent.flags &= ~(uint32_t)NVTD_DEVICE_IOMMUFD;
    assert_int_equal(nvtd_device_add(g->unit, &lent, &own->device), 0);
    expect_unreached(m, slot, 4 * GIB, NO_PASID);
    assert_int_equal(nvtd_ram_add(g->unit, 4 * GIB, 2 * MIB, ram, 0), 0);
    for (unsigned i = 0; i < 2; i++) {
        expect_reaches(m, &m->slots[i], 4 * GIB, NO_PASID, 4 * GIB);
        expect_reaches(m, &m->slots[i], 4 * GIB + 2 * MIB - 1, NO_PASID, 4 * GIB + 2 * MIB - 1);
        expect_unreached(m, &m->slots[i], 4 * GIB + 2 * MIB, NO_PASID);
    }
    /* The guest's tables reach it, too, and no longer when it has gone. */
    machine_boot(m);
    guest_map(g, 0x5000, 4 * GIB + 0x1000, 1, FS_LEAF);
    expect_reaches(m, slot, 0x5678, NO_PASID, 4 * GIB + 0x1678);
    assert_int_equal(nvtd_ram_remove(g->unit, 4 * GIB, 2 * MIB), 0);
    assert_int_equal(machine_stats(m).mapped, 2 * GUEST_RAM_SIZE);
    munmap(ram, 2 * MIB);
    for (unsigned i = 0; i < 2; i++) {
        expect_unreached(m, &m->slots[i], 0x5678, NO_PASID);
    }
}

/* What a nesting parent cannot map, and what is no memory for devices. */
static void ram_that_is_left_out(void **state)
{
    const uint64_t start = 0xfed00000, size = 3 * MIB;
    struct slot *slot = machine_add(m);
    uint8_t *ram = ram_of(size), *rom = ram_of(64 * KIB);

    (void)state;
    assert_int_equal(nvtd_ram_add(g->unit, start, size, ram, 0), 0);
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE + size - 1 * MIB);
    expect_reaches(m, slot, 0xfedff000, NO_PASID, 0xfedff000);
    expect_reaches(m, slot, 0xfef00000, NO_PASID, 0xfef00000);
    assert_int_not_equal(machine_dma(m, slot, 0xfee00000, READ, NO_PASID).fault, 0);
    assert_int_not_equal(machine_dma(m, slot, 0xfeeff000, READ, NO_PASID).fault, 0);

    assert_int_equal(nvtd_ram_add(g->unit, 5 * GIB, 64 * KIB, rom, NVTD_RAM_READ_ONLY), 0);
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE + size - 1 * MIB);
    expect_unreached(m, slot, 5 * GIB, NO_PASID);
    assert_int_equal(nvtd_ram_remove(g->unit, 5 * GIB, 64 * KIB), 0);
    assert_int_equal(nvtd_ram_remove(g->unit, start, size), 0);
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE);

    /* The same with the device last: it is mapped then. */
    assert_int_equal(nvtd_ram_add(g->unit, start, size, ram, 0), 0);
    assert_int_equal(nvtd_ram_add(g->unit, 5 * GIB, 64 * KIB, rom, NVTD_RAM_READ_ONLY), 0);
    machine_remove(m, slot);
    slot = machine_add(m);
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE + size - 1 * MIB);
    expect_reaches(m, slot, 0xfef00000, NO_PASID, 0xfef00000);
    munmap(rom, 64 * KIB);
    munmap(ram, size);
}

static void ram_within_pages(void **state)
{
    struct slot *slot = machine_add(m);
    uint8_t *ram = ram_of(64 * KIB);

    (void)state;
    expect_error(nvtd_ram_add(g->unit, 4 * GIB + 8, 32 * KIB, ram, 0), -EINVAL, "page");
    expect_error(nvtd_ram_remove(g->unit, 4 * GIB + 8, 32 * KIB), -ENOENT, "");
    /* The whole pages of what does not begin or end with one. */
    assert_int_equal(nvtd_ram_add(g->unit, 4 * GIB + 8, 8 * KIB, ram + 8, 0), 0);
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE + 4 * KIB);
    expect_unreached(m, slot, 4 * GIB, NO_PASID);
    expect_reaches(m, slot, 4 * GIB + 0x1000, NO_PASID, 4 * GIB + 0x1000);
    expect_unreached(m, slot, 4 * GIB + 0x2000, NO_PASID);
    assert_int_equal(nvtd_ram_remove(g->unit, 4 * GIB + 8, 8 * KIB), 0);
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE);
    munmap(ram, 64 * KIB);
}

static void the_host_refuses_ram(void **state)
{
    struct slot *slot = machine_add(m);
    uint8_t *ram = ram_of(2 * MIB);

    (void)state;
    machine_refuse(m, CALL_MAP, ENOMEM, 0, 1);
    expect_error(nvtd_ram_add(g->unit, 4 * GIB, 2 * MIB, ram, 0), -ENOMEM, "IOMMU_IOAS_MAP");
    expect_error(nvtd_ram_remove(g->unit, 4 * GIB, 2 * MIB), -ENOENT, "");
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE);
    /* Refused in the middle: around the interrupt range there are two pieces. */
    machine_refuse(m, CALL_MAP, ENOSPC, 1, 1);
    expect_error(nvtd_ram_add(g->unit, 0xfed80000, 2 * MIB, ram, 0), -ENOSPC, "IOMMU_IOAS_MAP");
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE);
    expect_unreached(m, slot, 0xfed80000, NO_PASID);

    assert_int_equal(nvtd_ram_add(g->unit, 4 * GIB, 2 * MIB, ram, 0), 0);
    machine_refuse(m, CALL_UNMAP, EBUSY, 0, 1);
    expect_error(nvtd_ram_remove(g->unit, 4 * GIB, 2 * MIB), -EBUSY, "IOMMU_IOAS_UNMAP");
    expect_reaches(m, slot, 4 * GIB, NO_PASID, 4 * GIB);
    assert_int_equal(nvtd_ram_remove(g->unit, 4 * GIB, 2 * MIB), 0);
    expect_unreached(m, slot, 4 * GIB, NO_PASID);
    munmap(ram, 2 * MIB);
}

/* Every call that adding a device takes, refused: nothing is left, and it can be added then. */
static void the_host_refuses_a_device(void **state)
{
    static const struct {
        uint32_t request;
        const char *name;
    } CALLS[] = {
        { CALL_BIND, "VFIO_DEVICE_BIND_IOMMUFD" },
        { CALL_HW_INFO, "IOMMU_GET_HW_INFO" },
        { CALL_IOAS_ALLOC, "IOMMU_IOAS_ALLOC" },
        { CALL_MAP, "IOMMU_IOAS_MAP" },
        { CALL_HWPT_ALLOC, "IOMMU_HWPT_ALLOC" },
        { CALL_ATTACH, "VFIO_DEVICE_ATTACH_IOMMUFD_PT" },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(CALLS) / sizeof(CALLS[0]); i++) {
        struct slot *slot = machine_plug(m, 0);
        NvtdDevice lent = machine_lend(m, slot);

        if (i > 0) {
            lent.dev_id = machine_bind(m, slot);
        }
        machine_refuse(m, CALLS[i].request, ENOMEM, 0, 1);
        expect_error(nvtd_device_add(g->unit, &lent, &slot->device), -ENOMEM, CALLS[i].name);
        expect_nothing_left();
        assert_int_equal(nvtd_device_add(g->unit, &lent, &slot->device), 0);
        expect_parent(slot);
        machine_remove(m, slot);
        expect_nothing_left();
    }
}

static void reset_brings_devices_back_to_the_parent(void **state)
{
    struct slot *slot = machine_add(m), *other = machine_add(m);

    (void)state;
    machine_boot(m);
    guest_map(g, 0x5000, 0x700000, 1, FS_LEAF);
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x800000);
    machine_announce(m, QI_PASID_GLOBAL);
    expect_reaches(m, slot, 0x5000, NO_PASID, 0x700000);
    expect_reaches(m, other, 0x5000, 9, 0x800000);
    assert_int_equal(machine_stats(m).nested, 2);
    assert_int_equal(nvtd_unit_reset(g->unit), 0);
    for (unsigned i = 0; i < 2; i++) {
        expect_parent(&m->slots[i]);
        expect_blocked(m, &m->slots[i], 9);
        assert_int_equal(machine_info(m, &m->slots[i]).pasids, 0);
    }
    assert_int_equal(machine_stats(m).nested, 0);
    assert_int_equal(machine_stats(m).paging, 1);
    assert_int_equal(machine_stats(m).mapped, GUEST_RAM_SIZE);
    assert_int_equal(machine_stats(m).ever_mapped, GUEST_RAM_SIZE);
    /* And up again. */
    g->gcmd = 0;
    machine_boot(m);
    guest_map(g, 0x5000, 0x900000, 1, FS_LEAF);
    expect_reaches(m, slot, 0x5000, NO_PASID, 0x900000);
    expect_reaches(m, other, 0x5000, NO_PASID, 0x900000);
}

static void translation_off_and_on(void **state)
{
    struct slot *slot = machine_add(m);

    (void)state;
    machine_boot(m);
    guest_map(g, 0x5000, 0x700000, 1, FS_LEAF);
    for (unsigned i = 0; i < 2; i++) {
        expect_reaches(m, slot, 0x5000, NO_PASID, 0x700000);
        guest_command(g, CMD_TE, false);
        expect_parent(slot);
        guest_command(g, CMD_TE, true);
    }
    assert_int_equal(machine_info(m, slot).state, NVTD_STATE_NESTED);
}

static void a_nested_device_is_removed(void **state)
{
    struct slot *slot = machine_add(m), *other = machine_add(m);

    (void)state;
    machine_boot(m);
    guest_map(g, 0x5000, 0x700000, 1, FS_LEAF);
    (void)machine_set_pasid(m, 9, GUEST_DID, 0x5000, 0x800000);
    machine_announce(m, QI_PASID_GLOBAL);
    expect_reaches(m, slot, 0x5000, 9, 0x800000);
    machine_remove(m, slot);
    expect_blocked(m, slot, NO_PASID);
    expect_blocked(m, slot, 9);
    assert_int_equal(machine_stats(m).nested, 2);
    expect_reaches(m, other, 0x5000, NO_PASID, 0x700000);
    expect_reaches(m, other, 0x5000, 9, 0x800000);
    machine_remove(m, other);
    expect_blocked(m, other, 9);
    expect_nothing_left();
}

/* A unit that ends with devices leaves nothing behind. */
static void the_unit_ends_first(void **state)
{
    struct slot *slot = machine_add(m);

    (void)state;
    machine_boot(m);
    assert_int_equal(machine_stats(m).nested, 1);
    guest_free(g);
    expect_blocked(m, slot, NO_PASID);
    expect_nothing_left();
    m->g = g = guest_new(NVTD_HOST_NONE, 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define TEST_ATTACH(test) cmocka_unit_test_setup_teardown(test, setup_attach, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_device_that_the_unit_binds),
        TEST(a_device_that_the_vmm_has_bound),
        TEST(an_iommufd_of_the_units_own),
        TEST(files_that_are_none),
        TEST(fields_that_do_not_go_together),
        TEST(configurations_with_a_twin),
        TEST(the_kernels_own_iommufd),
        TEST_ATTACH(the_vmm_attaches),
        TEST_ATTACH(the_vmm_refuses_to_attach),
        TEST_ATTACH(a_vmm_that_cannot_attach),
        TEST(devices_share),
        TEST(ram_comes_and_goes),
        TEST(ram_that_is_left_out),
        TEST(ram_within_pages),
        TEST(the_host_refuses_ram),
        TEST(the_host_refuses_a_device),
        TEST(reset_brings_devices_back_to_the_parent),
        TEST(translation_off_and_on),
        TEST(a_nested_device_is_removed),
        TEST(the_unit_ends_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
