/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The twin's functions: a device on a nesting parent, as a VMM would do it with the kernel, and what
 * the functions themselves refuse. The kernel's rules are checked elsewhere.
 */
#include "guest.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define IOAS_ALLOC 0x3b81u
#define IOAS_MAP 0x3b85u
#define HWPT_ALLOC 0x3b89u
#define HWPT_INVALIDATE 0x3b8du
#define FAULT_QUEUE_ALLOC 0x3b8eu
#define VFIO_BIND 0x3b76u
#define VFIO_ATTACH 0x3b77u

#define RAM_SIZE (64u * 4096)
#define PWU 7u
#define INVALID_CODE 1u

/* The structures of <linux/iommufd.h> and <linux/vfio.h>, which may be older than what is needed. */
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct ioas_map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct hwpt_alloc {
    uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len;
    uint64_t data_uptr;
    uint32_t fault_id, reserved2;
};
struct vtd_s1 { uint64_t flags, pgtbl_addr; uint32_t addr_width, reserved; };
struct hwpt_invalidate {
    uint32_t size, hwpt_id;
    uint64_t data_uptr;
    uint32_t data_type, entry_len, entry_num, reserved;
};
struct vtd_s1_invalidate { uint64_t addr, npages; uint32_t flags, reserved; };
struct fault_alloc { uint32_t size, flags, out_fault_id; int32_t out_fault_fd; };
struct pgfault {
    uint32_t flags, dev_id, pasid, grpid, perm, reserved;
    uint64_t addr;
    uint32_t length, cookie;
};
struct page_response { uint32_t cookie, code; };
struct vfio_bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct vfio_attach { uint32_t argsz, flags, pt_id; };

static NvtdTwin *twin;
static uint64_t *ram;
static int iommu, device, queue;
static uint32_t hwpt;

static void call(int fd, uint32_t request, void *argument)
{
    assert_int_equal(nvtd_twin_ioctl(twin, fd, request, argument), 0);
}

static int setup(void **state)
{
    struct ioas_alloc ioas = { .size = sizeof(ioas) };
    struct ioas_map map = { .size = sizeof(map), .flags = 7, .length = RAM_SIZE };
    struct vfio_bind bind = { .argsz = sizeof(bind) };
    struct vfio_attach attach = { .argsz = sizeof(attach) };
    struct hwpt_alloc parent = { .size = sizeof(parent), .flags = 1 };
    struct vtd_s1 table = { .pgtbl_addr = 0x1000, .addr_width = 48 };
    struct hwpt_alloc nested = { .size = sizeof(nested), .flags = 4, .data_type = 1,
                                 .data_len = sizeof(table), .data_uptr = (uintptr_t)&table };
    struct fault_alloc fault = { .size = sizeof(fault) };
    NvtdTwinDevice description = { .size = sizeof(description), .max_pasid_bits = 20,
                                   .flags = NVTD_TWIN_DEVICE_ATS | NVTD_TWIN_DEVICE_PRI };

    (void)state;
    assert_int_equal(nvtd_twin_create(NULL, &twin), 0);
    ram = aligned_alloc(4096, RAM_SIZE);
    assert_non_null(ram);
    memset(ram, 0, RAM_SIZE);
    ram[0x1000 / 8] = 0x2000 | PWU;
    ram[0x2000 / 8] = 0x3000 | PWU;
    ram[0x3000 / 8] = 0x4000 | PWU;
    ram[0x4000 / 8 + 5] = 0x8000 | PWU;

    iommu = nvtd_twin_open(twin);
    device = nvtd_twin_device(twin, &description);
    assert_true(iommu > 0 && device > 0);
    bind.iommufd = iommu;
    call(device, VFIO_BIND, &bind);
    call(iommu, IOAS_ALLOC, &ioas);
    map.ioas_id = ioas.out_ioas_id;
    map.user_va = (uintptr_t)ram;
    call(iommu, IOAS_MAP, &map);
    parent.dev_id = nested.dev_id = bind.out_devid;
    parent.pt_id = ioas.out_ioas_id;
    call(iommu, HWPT_ALLOC, &parent);
    call(iommu, FAULT_QUEUE_ALLOC, &fault);
    queue = fault.out_fault_fd;
    nested.pt_id = parent.out_hwpt_id;
    nested.fault_id = fault.out_fault_id;
    call(iommu, HWPT_ALLOC, &nested);
    hwpt = attach.pt_id = nested.out_hwpt_id;
    call(device, VFIO_ATTACH, &attach);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    nvtd_twin_destroy(twin);
    free(ram);
    return 0;
}

static NvtdTranslation dma(uint64_t address, uint32_t flags)
{
    NvtdRequest request = { .size = sizeof(request), .address = address, .flags = flags };
    NvtdTranslation to = { .size = sizeof(to) };

    assert_int_equal(nvtd_twin_dma(twin, device, &request, &to), 0);
    return to;
}

static void walks_and_forgets(void **state)
{
    struct vtd_s1_invalidate page = { .addr = 0x5000, .npages = 1 };
    struct hwpt_invalidate invalidate = { .size = sizeof(invalidate), .hwpt_id = hwpt,
                                          .data_uptr = (uintptr_t)&page,
                                          .entry_len = sizeof(page), .entry_num = 1 };
    NvtdTwinStats stats = { .size = sizeof(stats) };

    (void)state;
    assert_int_equal(dma(0x5010, NVTD_REQUEST_WRITE).address, 0x8010);
    assert_int_equal(ram[0x4000 / 8 + 5], 0x8000 | PWU | 0x60);
    assert_int_equal(dma(0x5010, NVTD_REQUEST_READ).flags, NVTD_TRANSLATION_CACHED);
    ram[0x4000 / 8 + 5] = 0x9000 | PWU;
    assert_int_equal(dma(0x5010, NVTD_REQUEST_READ).flags,
                     NVTD_TRANSLATION_CACHED | NVTD_TRANSLATION_STALE);
    call(iommu, HWPT_INVALIDATE, &invalidate);
    assert_int_equal(invalidate.entry_num, 1);
    assert_int_equal(dma(0x5010, NVTD_REQUEST_READ).address, 0x9010);
    assert_int_equal(dma(0x6000, NVTD_REQUEST_READ).fault, 0x71);
    assert_int_equal(nvtd_twin_stats(twin, &stats), 0);
    assert_int_equal(stats.dmas, 5);
    assert_int_equal(stats.faults, 1);
    assert_int_equal(stats.stale_uses, 1);
    assert_int_equal(stats.nested, 1);
    assert_int_equal(stats.mapped, RAM_SIZE);
    assert_int_equal(stats.invalidate_entries, 1);
    assert_int_equal(nvtd_twin_calls(twin, HWPT_ALLOC), 2);
    assert_int_equal(nvtd_twin_close(twin, device), 0);
    NvtdRequest request = { .size = sizeof(request), .flags = NVTD_REQUEST_READ };
    NvtdTranslation to = { .size = sizeof(to) };
    assert_int_equal(nvtd_twin_dma(twin, device, &request, &to), -EBADF);
}

static void asks_for_pages(void **state)
{
    NvtdPageRequest request = { .size = sizeof(request), .address = 0x5123, .group = 3,
                                .flags = NVTD_PAGE_REQUEST_READ | NVTD_PAGE_REQUEST_LAST };
    NvtdPageResponse response = { .size = sizeof(response) };
    /* Zeroed: memcheck does not see what process_vm_writev() writes. */
    struct pgfault record = { 0 };
    struct page_response answer = { .code = INVALID_CODE };
    struct pollfd pollfd = { .fd = queue, .events = POLLIN };

    (void)state;
    assert_int_equal(nvtd_twin_page_response(twin, device, &response), -EAGAIN);
    assert_int_equal(poll(&pollfd, 1, 0), 0);
    assert_int_equal(nvtd_twin_page_request(twin, device, &request), 0);
    assert_int_equal(poll(&pollfd, 1, 0), 1);
    assert_int_equal(nvtd_twin_poll(twin, queue), POLLIN | POLLRDNORM | POLLOUT);
    assert_int_equal(nvtd_twin_read(twin, queue, &record, 39), -ESPIPE);
    assert_int_equal(nvtd_twin_read(twin, queue, NULL, sizeof(record)), -EFAULT);
    assert_int_equal(nvtd_twin_read(twin, queue, &record, sizeof(record)), sizeof(record));
    assert_int_equal(record.addr, 0x5000);
    assert_int_equal(record.grpid, 3);
    assert_int_equal(poll(&pollfd, 1, 0), 0);
    answer.cookie = record.cookie;
    assert_int_equal(nvtd_twin_write(twin, queue, &answer, sizeof(answer)), sizeof(answer));
    assert_int_equal(nvtd_twin_page_response(twin, device, &response), 0);
    assert_int_equal(response.group, 3);
    assert_int_equal(response.code, NVTD_PAGE_RESPONSE_INVALID);
    assert_int_equal(nvtd_twin_close(twin, queue), 0);
    assert_int_equal(nvtd_twin_poll(twin, queue), -EBADF);
}

static void fails_on_purpose(void **state)
{
    NvtdTwinInjection injection = { .size = sizeof(injection), .skip = 1, .times = 1,
                                    .request = IOAS_ALLOC, .error = ENOMEM };
    struct ioas_alloc ioas = { .size = sizeof(ioas) };

    (void)state;
    assert_int_equal(nvtd_twin_inject(twin, &injection), 0);
    call(iommu, IOAS_ALLOC, &ioas);
    assert_int_equal(nvtd_twin_ioctl(twin, iommu, IOAS_ALLOC, &ioas), -ENOMEM);
    call(iommu, IOAS_ALLOC, &ioas);
    assert_int_equal(nvtd_twin_inject(twin, &injection), 0);
    assert_int_equal(nvtd_twin_inject(twin, NULL), 0);
    call(iommu, IOAS_ALLOC, &ioas);
    call(iommu, IOAS_ALLOC, &ioas);
    injection.times = 0;
    assert_int_equal(nvtd_twin_inject(twin, &injection), -EINVAL);
    injection.times = 1;
    injection.error = 0;
    assert_int_equal(nvtd_twin_inject(twin, &injection), -EINVAL);
    injection.error = EIO;
    injection.flags = 2;
    assert_int_equal(nvtd_twin_inject(twin, &injection), -EINVAL);
}

static void refuses_what_it_cannot_mean(void **state)
{
    NvtdTwinIommu iommus[2] = { { 0 } };
    NvtdTwinConfig config = { .size = sizeof(config) };
    NvtdTwinDevice wrong = { .size = sizeof(wrong) };
    NvtdTwin *other = (NvtdTwin *)&config;

    (void)state;
    assert_int_equal(nvtd_twin_create(&config, NULL), -EINVAL);
    config.kernel = 2;
    assert_int_equal(nvtd_twin_create(&config, &other), -EINVAL);
    assert_null(other);
    assert_non_null(strstr(nvtd_last_error(), "NVTD_TWIN_LINUX_7_3"));
    config.kernel = NVTD_TWIN_LINUX_6_12;
    config.quirks_off = 0x200;
    assert_int_equal(nvtd_twin_create(&config, &other), -EINVAL);
    config.quirks_off = 0x1ff;
    config.flags = 2;
    assert_int_equal(nvtd_twin_create(&config, &other), -EINVAL);
    config.flags = NVTD_TWIN_UNSAFE_INTERRUPTS;
    config.iommu_count = 1;
    assert_int_equal(nvtd_twin_create(&config, &other), -EINVAL);
    config.iommus = iommus;
    config.iommu_count = 65;
    assert_int_equal(nvtd_twin_create(&config, &other), -EINVAL);
    config.iommu_count = 2;
    assert_int_equal(nvtd_twin_create(&config, &other), 0);
    wrong.iommu = 2;
    assert_int_equal(nvtd_twin_device(other, &wrong), -EINVAL);
    wrong.iommu = 1;
    wrong.max_pasid_bits = 21;
    assert_int_equal(nvtd_twin_device(other, &wrong), -EINVAL);
    wrong.max_pasid_bits = 0;
    wrong.flags = NVTD_TWIN_DEVICE_PRI;
    assert_int_equal(nvtd_twin_device(other, &wrong), -EINVAL);
    wrong.flags = 4;
    assert_int_equal(nvtd_twin_device(other, &wrong), -EINVAL);
    wrong.flags = 0;
    wrong.group = 1;
    assert_true(nvtd_twin_device(other, &wrong) > 0);
    wrong.iommu = 0;
    assert_int_equal(nvtd_twin_device(other, &wrong), -EINVAL);
    assert_non_null(strstr(nvtd_last_error(), "group"));
    nvtd_twin_destroy(other);
    nvtd_twin_destroy(NULL);
    assert_int_equal(nvtd_twin_open(NULL), -EINVAL);
    assert_int_equal(nvtd_twin_ioctl(NULL, iommu, IOAS_ALLOC, NULL), -EINVAL);
    assert_int_equal(nvtd_twin_ioctl(twin, iommu, IOAS_ALLOC, NULL), -EFAULT);
    assert_int_equal(nvtd_twin_ioctl(twin, -1, IOAS_ALLOC, NULL), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(walks_and_forgets, setup, teardown),
        cmocka_unit_test_setup_teardown(asks_for_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(fails_on_purpose, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_what_it_cannot_mean, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
