/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * vfio's character devices: BIND, and the arguments of ATTACH and DETACH.
 */
#include <unistd.h>

#include "conformance.h"

static int bind_call(int device, struct vfio_bind bind)
{
    return call_on(device, VFIO_DEVICE_BIND_IOMMUFD, &bind);
}

static struct vfio_bind bind_to(int iommu)
{
    return (struct vfio_bind){ .argsz = offsetof(struct vfio_bind, token_uuid_ptr),
                               .iommufd = iommu };
}

/* The rule's device again, not bound. */
static int free_device(void)
{
    close_file(now.device);
    now.device = -1;
    return now.device = open_device(FIRST);
}

static void unbound(void)
{
    int device = free_device();
    struct vfio_attach a = { .argsz = sizeof(a), .pt_id = new_ioas() };
    expect(call_on(device, VFIO_DEVICE_ATTACH, &a), EINVAL, "ATTACH");
    expect(call_on(device, VFIO_DEVICE_ATTACH, NULL), EINVAL, "ATTACH without an argument");
    expect(detach(), EINVAL, "DETACH");
    struct vfio_region_info info = { .argsz = sizeof(info) };
    expect(call_on(device, VFIO_DEVICE_GET_REGION_INFO, &info), EINVAL, "GET_REGION_INFO");
    expect(call_on(device, CALL(0xf0), &info), EINVAL, "an unknown call");
}

static void bind_size(void)
{
    int device = free_device();
    struct vfio_bind b = bind_to(now.iommu);
    b.argsz = 15;
    expect(bind_call(device, b), EINVAL, "15 bytes");
    expect(call_on(device, VFIO_DEVICE_BIND_IOMMUFD, NULL), EFAULT, "no argument");
    if (as_7_3()) {
        struct { struct vfio_bind b; uint64_t more; } longer = { .b = bind_to(now.iommu), .more = 1 };
        longer.b.argsz = sizeof(longer);
        expect(call_on(device, VFIO_DEVICE_BIND_IOMMUFD, &longer), E2BIG, "trailing bytes");
        longer.more = 0;
        expect(call_on(device, VFIO_DEVICE_BIND_IOMMUFD, &longer), 0, "trailing zeros");
    }
}

static void bind_arguments(void)
{
    int device = free_device();
    struct vfio_bind b = bind_to(-1);
    expect(bind_call(device, b), EINVAL, "iommufd -1");
    for (unsigned bit = as_7_3() ? 1 : 0; bit < 32; bit++) {
        b = bind_to(now.iommu);
        b.flags = 1u << bit;
        expect(bind_call(device, b), EINVAL, "flags %#x", b.flags);
    }
    expect(bind_call(device, bind_to(now.iommu)), 0, "no flags");
}

static void bind_file(void)
{
    int device = free_device(), none = 1000000, other = now.host->real_files ? dup(0) : device;
    expect(bind_call(device, bind_to(none)), EBADF, "a file that is not open");
    if (other >= 0)
        expect(bind_call(device, bind_to(other)), EBADFD, "a file that is no iommufd");
    if (now.host->real_files && other >= 0)
        close(other);
    uint32_t id;
    expect(bind_device(device, now.iommu, &id), 0, "an iommufd");
}

static void bind_twice(void)
{
    expect(bind_call(now.device, bind_to(now.iommu)), EINVAL, "the same file again");
    if (now.host->one_file)
        return;
    int again = now.host->open_device(FIRST);
    if (again < 0)
        give_up("the device cannot be opened a second time: %s", strerror(-again));
    expect(bind_call(again, bind_to(now.iommu)), EINVAL, "another file of a bound device");
    expect(close_file(now.device), 0, "close of the first");
    now.device = again;
    expect(bind_call(again, bind_to(now.iommu)), 0, "the other file afterwards");
}

static void bind_token(void)
{
    need_7_3("tokens");
    int device = free_device();
    uint8_t *token = pages(1);
    struct vfio_bind b = bind_to(now.iommu);
    b.argsz = sizeof(b);
    b.flags = VFIO_BIND_TOKEN;
    b.token_uuid_ptr = (uintptr_t)nowhere();
    expect(bind_call(device, b), EFAULT, "a token in no memory");
    b.token_uuid_ptr = (uintptr_t)token;
    expect(bind_call(device, b), EINVAL, "a token for a device without virtual functions");
}

static void bind_other_owner(void)
{
    int sibling = open_device(SIBLING), other = now.host->open_iommu();
    uint32_t id;
    expect(bind_device(sibling, other, &id), EPERM, "another iommufd");
    expect(bind_device(sibling, now.iommu, &id), 0, "the same iommufd");
    close_file(other);
    close_file(sibling);
}

static void bind_group(void)
{
    int group, device;
    if (!now.host->open_by_group)
        skip("there are no files of groups");
    device = now.host->open_by_group(FIRST, now.iommu, &group);
    if (device == -ENOENT)
        skip("this kernel has no files of groups");
    expect(device, EBUSY, "the group's file while its device is bound");
    free_device();
    device = now.host->open_by_group(FIRST, now.iommu, &group);
    if (device < 0)
        give_up("the device cannot be opened by its group: %s", strerror(-device));
    expect(bind_call(device, bind_to(now.iommu)), EINVAL, "a file of the group");
    expect(bind_call(now.device, bind_to(now.iommu)), EBUSY, "a device opened by its group");
    close_file(device);
    expect(bind_call(now.device, bind_to(now.iommu)), EBUSY, "a device whose group's file is open");
    close_file(group);
    expect(bind_call(now.device, bind_to(now.iommu)), 0, "the device when that is closed");
}

static void bind_unsafe(void)
{
    if (now.bound == 0)
        skip("interrupts are remapped, or unsafe ones allowed");
    expect(now.bound, EPERM, "BIND");
}

static void bind_reply(void)
{
    int device = free_device();
    struct vfio_bind b = bind_to(now.iommu);
    expect(call_on(device, VFIO_DEVICE_BIND_IOMMUFD, write_protected(&b, sizeof(b))), EFAULT,
           "memory that cannot be written");
    expect(bind_call(device, b), 0, "memory that can");
}

static void bind_id(void)
{
    /* The ID goes with the file, and comes again. */
    uint32_t next = unused_id(), id;
    free_device();
    struct hw_info info = { .size = sizeof(info), .dev_id = now.dev_id };
    expect(call(IOMMU_GET_HW_INFO, &info), ENOENT, "GET_HW_INFO after the device was closed");
    expect(bind_device(now.device, now.iommu, &id), 0, "BIND");
    expect_number(id, now.dev_id, "the device's ID");
    expect_number(unused_id(), next, "the next ID");
}

static void attach_size(void)
{
    struct vfio_attach a = { .argsz = 11, .pt_id = new_ioas() };
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, &a), EINVAL, "11 bytes");
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, NULL), EFAULT, "no argument");
    /* Of more than 12 bytes the rest is not looked at. */
    struct { struct vfio_attach a; uint32_t more; } longer = { .a = a, .more = 1 };
    longer.a.argsz = sizeof(longer);
    longer.a.pasid = 0x77777777;
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, &longer), 0, "20 bytes");
    if (as_7_3()) {
        a = (struct vfio_attach){ .argsz = 15, .flags = VFIO_PASID, .pt_id = a.pt_id, .pasid = 1 };
        expect(call_on(now.device, VFIO_DEVICE_ATTACH, &a), EINVAL, "15 bytes with PASID");
    }
}

static void attach_flags(void)
{
    struct vfio_attach a = { .argsz = sizeof(a), .pt_id = new_ioas() };
    for (unsigned bit = as_7_3() ? 1 : 0; bit < 32; bit++) {
        a.flags = 1u << bit;
        expect(call_on(now.device, VFIO_DEVICE_ATTACH, &a), EINVAL, "flags %#x", a.flags);
    }
}

static void attach_table(void)
{
    expect(attach(unused_id()), ENOENT, "no object");
    expect(attach(0), ENOENT, "0");
    expect(attach(now.dev_id), EINVAL, "a device");
    int fd;
    expect(attach(new_fault_queue(&fd)), EINVAL, "a fault queue");
    close_file(fd);
}

static void attach_reply(void)
{
    struct vfio_attach a = { .argsz = offsetof(struct vfio_attach, pasid), .pt_id = new_ioas() };
    uint32_t hwpt = new_paging(a.pt_id, 0);
    a.pt_id = hwpt;
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, write_protected(&a, sizeof(a))), EFAULT,
           "memory that cannot be written");
    expect(destroy(hwpt), 0, "DESTROY of the HWPT, which no device has");
}

static void attach_ioas(void)
{
    uint32_t ioas = new_ioas();
    struct vfio_attach a = { .argsz = offsetof(struct vfio_attach, pasid), .pt_id = ioas };
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, &a), 0, "ATTACH");
    if (a.pt_id == ioas)
        wrong("pt_id is still the IOAS");
    expect(destroy(a.pt_id), EBUSY, "DESTROY of the HWPT");
    uint32_t automatic = a.pt_id;
    expect(detach(), 0, "DETACH");
    /* It goes with the last device. */
    expect(destroy(automatic), ENOENT, "DESTROY of the HWPT after the DETACH");
    expect(destroy(ioas), 0, "DESTROY of the IOAS");
}

static void attach_ioas_shared(void)
{
    uint32_t ioas = new_ioas(), id;
    int second = bound_device(SECOND, &id);
    struct vfio_attach a = { .argsz = offsetof(struct vfio_attach, pasid), .pt_id = ioas }, b = a;
    expect(call_on(now.device, VFIO_DEVICE_ATTACH, &a), 0, "ATTACH");
    expect(call_on(second, VFIO_DEVICE_ATTACH, &b), 0, "ATTACH of the second");
    expect_number(b.pt_id, a.pt_id, "the HWPT of the second");
    expect(detach(), 0, "DETACH");
    expect(destroy(a.pt_id), EBUSY, "DESTROY of the HWPT that the second has");
    close_file(second);
}

static void detach_arguments(void)
{
    struct vfio_detach d = { .argsz = 7 };
    expect(call_on(now.device, VFIO_DEVICE_DETACH, &d), EINVAL, "7 bytes");
    expect(call_on(now.device, VFIO_DEVICE_DETACH, NULL), EFAULT, "no argument");
    for (unsigned bit = as_7_3() ? 1 : 0; bit < 32; bit++) {
        d = (struct vfio_detach){ .argsz = sizeof(d), .flags = 1u << bit };
        expect(call_on(now.device, VFIO_DEVICE_DETACH, &d), EINVAL, "flags %#x", d.flags);
    }
    expect(detach(), 0, "what is not attached");
    if (as_7_3()) {
        d = (struct vfio_detach){ .argsz = 11, .flags = VFIO_PASID, .pasid = 1 };
        expect(call_on(now.device, VFIO_DEVICE_DETACH, &d), EINVAL, "11 bytes with PASID");
        expect(detach_pasid(1), 0, "a PASID that is not attached");
        expect(detach_pasid(0x7fffffff), 0, "PASID 2^31 - 1");
    }
}

static void closing(void)
{
    uint32_t ioas = new_ioas(), hwpt = new_paging(ioas, 0);
    expect(attach(hwpt), 0, "ATTACH");
    expect(destroy(hwpt), EBUSY, "DESTROY");
    free_device();
    expect(destroy(hwpt), 0, "DESTROY after the device was closed");
    expect(destroy(now.dev_id), ENOENT, "DESTROY of the device after it was closed");
}

static void group(void)
{
    /* Devices of different groups are attached by themselves. */
    uint32_t id, ioas = new_ioas(), a = new_paging(ioas, 0), b = new_paging(ioas, 0);
    int second = bound_device(SECOND, &id);
    struct vfio_attach to = { .argsz = offsetof(struct vfio_attach, pasid), .pt_id = b };
    expect(attach(a), 0, "ATTACH");
    expect(call_on(second, VFIO_DEVICE_ATTACH, &to), 0, "ATTACH of the second to another HWPT");
    expect(detach(), 0, "DETACH");
    expect(destroy(b), EBUSY, "DESTROY of the second's HWPT");
    close_file(second);
    expect(destroy(b), 0, "DESTROY after it was closed");
}

static void siblings(void)
{
    uint32_t id, ioas = new_ioas(), a = new_paging(ioas, 0), b = new_paging(ioas, 0);
    int sibling = bound_device(SIBLING, &id);
    struct vfio_attach to = { .argsz = offsetof(struct vfio_attach, pasid), .pt_id = b };
    expect(attach(a), 0, "ATTACH");
    expect(call_on(sibling, VFIO_DEVICE_ATTACH, &to), EINVAL, "ATTACH of the other to another HWPT");
    to.pt_id = a;
    expect(call_on(sibling, VFIO_DEVICE_ATTACH, &to), 0, "ATTACH of the other to the same HWPT");
    expect(attach(b), 0, "ATTACH of the first to another HWPT");
    expect(destroy(a), 0, "DESTROY of the HWPT that both have left");
    expect(detach(), 0, "DETACH");
    expect(destroy(b), EBUSY, "DESTROY of the HWPT that the other has");
    close_file(sibling);
    expect(destroy(b), 0, "DESTROY after the other was closed");
}

const struct rule rules_vfio[] = {
    { "VFIO-unbound", "any call before BIND is EINVAL", unbound },
    { "BIND-size", "BIND: less than 16 bytes are EINVAL; in 7.3 trailing bytes are E2BIG", bind_size },
    { "BIND-arguments", "BIND: a negative iommufd and unknown flags are EINVAL", bind_arguments },
    { "BIND-file", "BIND: what is not open is EBADF, what is no iommufd EBADFD", bind_file },
    { "BIND-twice", "BIND: a device that is bound is EINVAL, by whichever file", bind_twice },
    { "BIND-token", "BIND: a token that nobody asked for is EINVAL, one that cannot be read EFAULT",
      bind_token },
    { "BIND-group", "BIND: a file of the group is EINVAL, a device opened by its group EBUSY", bind_group },
    { "BIND-owner", "BIND: a device whose group another iommufd has is EPERM", bind_other_owner },
    { "BIND-interrupts", "BIND: without interrupt remapping it is EPERM", bind_unsafe },
    { "BIND-reply", "BIND: a reply that cannot be written is EFAULT, and the device is free", bind_reply },
    { "BIND-id", "the device's ID goes when its file is closed", bind_id },
    { "ATTACH-size", "ATTACH: less than 12 bytes, and less than 16 with PASID, are EINVAL; of more the"
      " rest is not looked at", attach_size },
    { "ATTACH-flags", "ATTACH: unknown flags are EINVAL", attach_flags },
    { "ATTACH-table", "ATTACH: a pt_id that is not there is ENOENT, one of another kind EINVAL",
      attach_table },
    { "ATTACH-reply", "ATTACH: a reply that cannot be written is EFAULT, and the device is detached",
      attach_reply },
    { "ATTACH-ioas", "ATTACH to an IOAS makes an HWPT that goes with its last device", attach_ioas },
    { "ATTACH-ioas-shared", "devices attached to an IOAS share an HWPT", attach_ioas_shared },
    { "ATTACH-several", "devices of different groups have different HWPTs", group },
    { "ATTACH-siblings", "devices of a group have one HWPT, and change it together", siblings },
    { "DETACH", "DETACH: less than 8 bytes, and less than 12 with PASID, and unknown flags are EINVAL; it"
      " never fails otherwise", detach_arguments },
    { "VFIO-close", "closing a device detaches it", closing },
    { NULL, NULL, NULL },
};
