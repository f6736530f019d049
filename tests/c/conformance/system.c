/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Linux as the host: its iommufd, and devices bound to a vfio driver. DMA is shown with QEMU's
 * device `edu`, which copies what it is told to, and with `pasid-testdev` of this project's patches, which
 * has the same registers and PASIDs.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conformance.h"

/* Device and vendor ID, registers, and the buffer that they copy through. */
#define EDU_ID 0x11e81234u
#define PASID_TESTDEV_ID 0x11e91234u
enum { EDU_SOURCE = 0x80, EDU_TARGET = 0x88, EDU_COUNT = 0x90, EDU_COMMAND = 0x98 };
enum { EDU_BUFFER = 0x40000, EDU_START = 1, EDU_TO_RAM = 2 };
/* Only pasid-testdev has it. */
enum { EDU_PASID = 0xa0 };
#define EDU_PASID_VALID (1ull << 31)

static const char *iommu_file;
static const char *device_files[DEVICES];
/* Each device's registers, once it has copied. */
struct opened {
    int fd;
    volatile uint8_t *registers;
    size_t size;
    bool has_pasids;
};
static struct opened opened[DEVICES];

static int failure(void)
{
    return -errno;
}

static int sys_begin(void)
{
    for (int i = 0; i < DEVICES; i++)
        opened[i].fd = -1;
    return 0;
}

static void sys_end(void) {}

static int sys_open_iommu(void)
{
    int fd = open(iommu_file, O_RDWR | O_CLOEXEC);
    return fd < 0 ? failure() : fd;
}

static int sys_open_device(unsigned which)
{
    int fd = open(device_files[which], O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return failure();
    /* The same device may be opened a second time; what is known of it belongs to the first. */
    if (opened[which].fd < 0)
        opened[which].fd = fd;
    return fd;
}

/* What this link of a device leads to, without the path. */
static void linked(unsigned which, const char *link, char name[64])
{
    const char *file = strrchr(device_files[which], '/');
    char path[128], to[256], *last;
    snprintf(path, sizeof(path), "/sys/class/vfio-dev/%s/device%s", file ? file + 1 : "", link);
    ssize_t length = readlink(path, to, sizeof(to) - 1);
    if (length < 0)
        give_up("%s: %s", path, strerror(errno));
    to[length] = 0;
    last = strrchr(to, '/');
    snprintf(name, 64, "%.63s", last ? last + 1 : to);
}

static int sys_open_by_group(unsigned which, int iommu, int *group)
{
    char number[64], name[64], path[80];
    linked(which, "/iommu_group", number);
    linked(which, "", name);
    snprintf(path, sizeof(path), "/dev/vfio/%s", number);
    *group = open(path, O_RDWR | O_CLOEXEC);
    if (*group < 0)
        return failure();
    int device = ioctl(*group, VFIO_GROUP_SET_CONTAINER, &iommu);
    if (device == 0)
        device = ioctl(*group, VFIO_GROUP_GET_DEVICE_FD, name);
    if (device >= 0)
        return device;
    int result = failure();
    close(*group);
    return result;
}

static int sys_ioctl(int fd, uint32_t request, void *argument)
{
    int result = ioctl(fd, request, argument);
    return result < 0 ? failure() : result;
}

static ssize_t sys_read(int fd, void *buffer, size_t count)
{
    ssize_t result = read(fd, buffer, count);
    return result < 0 ? failure() : result;
}

static ssize_t sys_write(int fd, const void *buffer, size_t count)
{
    ssize_t result = write(fd, buffer, count);
    return result < 0 ? failure() : result;
}

static int sys_poll(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDNORM };
    return poll(&p, 1, 0) < 0 ? failure() : p.revents;
}

static int sys_close(int fd)
{
    for (int i = 0; i < DEVICES; i++) {
        if (opened[i].fd == fd) {
            if (opened[i].registers)
                munmap((void *)opened[i].registers, opened[i].size);
            opened[i].registers = NULL;
            opened[i].fd = -1;
        }
    }
    return close(fd) < 0 ? failure() : 0;
}

/* The device's registers, with its memory and bus mastering on. */
static const struct opened *with_registers(int device)
{
    int i = 0;
    while (i < DEVICES && opened[i].fd != device)
        i++;
    if (i == DEVICES)
        give_up("the device is not open");
    if (opened[i].registers)
        return &opened[i];
    struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_CONFIG };
    struct vfio_region_info bar = { .argsz = sizeof(bar), .index = VFIO_BAR0 };
    uint32_t id = 0;
    uint16_t command = 6;
    if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) ||
        ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &bar) ||
        pread(device, &id, sizeof(id), (off_t)config.offset) != sizeof(id))
        give_up("the device's configuration space: %s", strerror(errno));
    if (id != EDU_ID && id != PASID_TESTDEV_ID)
        skip("only QEMU's devices edu and pasid-testdev can be told to access memory");
    if (pwrite(device, &command, sizeof(command), (off_t)config.offset + 4) != sizeof(command))
        give_up("the device's command register: %s", strerror(errno));
    void *at = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)bar.offset);
    if (at == MAP_FAILED)
        give_up("the device's registers: %s", strerror(errno));
    opened[i].size = bar.size;
    opened[i].registers = at;
    opened[i].has_pasids = id == PASID_TESTDEV_ID;
    return &opened[i];
}

static int edu_move(volatile uint8_t *edu, uint64_t source, uint64_t target, uint64_t command)
{
    *(volatile uint64_t *)(edu + EDU_SOURCE) = source;
    *(volatile uint64_t *)(edu + EDU_TARGET) = target;
    *(volatile uint64_t *)(edu + EDU_COUNT) = PAGE;
    *(volatile uint64_t *)(edu + EDU_COMMAND) = command | EDU_START;
    for (int i = 0; i < 1000; i++) {
        if (!(*(volatile uint64_t *)(edu + EDU_COMMAND) & EDU_START))
            return 0;
        usleep(5000);
    }
    return -ETIMEDOUT;
}

static int sys_copy(int device, bool with_pasid, uint32_t pasid, uint64_t from, uint64_t to)
{
    const struct opened *it = with_registers(device);
    volatile uint8_t *edu = it->registers;
    if (with_pasid && !it->has_pasids)
        skip("the device has no PASID");
    if (it->has_pasids)
        *(volatile uint64_t *)(edu + EDU_PASID) = with_pasid ? EDU_PASID_VALID | pasid : 0;
    int result = edu_move(edu, from, EDU_BUFFER, 0);
    return result ? result : edu_move(edu, EDU_BUFFER, to, EDU_TO_RAM);
}

static int sys_unprivileged(int (*what)(void))
{
    if (geteuid() != 0)
        skip("only root can become somebody else");
    pid_t child = fork();
    if (child < 0)
        give_up("fork: %s", strerror(errno));
    if (child == 0) {
        const struct rlimit limit = { .rlim_cur = 0x10000, .rlim_max = 0x10000 };
        if (setrlimit(RLIMIT_MEMLOCK, &limit) || setuid(65534))
            _exit(255);
        _exit(-what());
    }
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) == 255)
        give_up("the process that is not root has died");
    return -WEXITSTATUS(status);
}

struct host system_host = {
    .name = "Linux",
    .begin = sys_begin,
    .end = sys_end,
    .open_iommu = sys_open_iommu,
    .open_device = sys_open_device,
    .open_by_group = sys_open_by_group,
    .ioctl = sys_ioctl,
    .read = sys_read,
    .write = sys_write,
    .poll = sys_poll,
    .close = sys_close,
    .copy = sys_copy,
    .unprivileged = sys_unprivileged,
    .real_files = true,
};

int system_setup(const char *iommu, const char *const devices[DEVICES])
{
    struct utsname name;
    unsigned major = 0, minor = 0;
    if (uname(&name) || sscanf(name.release, "%u.%u", &major, &minor) != 2) {
        fprintf(stderr, "host_conformance: which Linux is this?\n");
        return -1;
    }
    system_host.release = major * 100 + minor;
    printf("Linux %s\n", name.release);
    iommu_file = iommu;
    for (int i = 0; i < DEVICES; i++)
        system_host.has[i] = (device_files[i] = devices[i]) != NULL;
    if (access(iommu, R_OK | W_OK) || access(devices[FIRST], R_OK | W_OK)) {
        fprintf(stderr, "host_conformance: %s or %s: %s\n", iommu, devices[FIRST], strerror(errno));
        return -1;
    }
    return 0;
}
