/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The C interface itself: life of a unit, misuse, and structures of other sizes.
 */
#include "guest.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static const NvtdOps OPS = { .size = sizeof(OPS), .msi = on_msi };

static NvtdConfig default_config(void)
{
    NvtdConfig config = { .size = sizeof(config) };

    assert_int_equal(nvtd_config_default(&config), 0);
    return config;
}

/* nvtd_unit_create() must refuse, leave *unit NULL and name the field. */
static void refuse(const NvtdConfig *config, const NvtdOps *ops, const char *named)
{
    NvtdUnit *unit = (NvtdUnit *)(uintptr_t)1;

    expect_error(nvtd_unit_create(config, ops, NULL, &unit), -EINVAL, named);
    assert_null(unit);
}

static void version_is_the_headers(void **state)
{
    (void)state;
    assert_int_equal(nvtd_abi_version(), NVTD_ABI_VERSION);
    assert_int_equal(NVTD_ABI_VERSION >> 16, 1);
}

/* What callers have compiled in must not move. */
static void layouts_stay(void **state)
{
    (void)state;
    assert_int_equal(sizeof(NvtdConfig), 48);
    assert_int_equal(offsetof(NvtdConfig, features), 16);
    assert_int_equal(offsetof(NvtdConfig, address_width), 24);
    assert_int_equal(sizeof(NvtdOps), 96);
    assert_int_equal(offsetof(NvtdOps, source_id), 32);
    assert_int_equal(offsetof(NvtdOps, iec_invalidate), 40);
    assert_int_equal(offsetof(NvtdOps, page_response), 48);
    assert_int_equal(offsetof(NvtdOps, invalidate), 56);
    assert_int_equal(offsetof(NvtdOps, attach), 64);
    assert_int_equal(offsetof(NvtdOps, watch), 72);
    assert_int_equal(offsetof(NvtdOps, wants_events), 80);
    assert_int_equal(offsetof(NvtdOps, more_work), 88);
    assert_int_equal(sizeof(NvtdAttach), 32);
    assert_int_equal(offsetof(NvtdAttach, hwpt), 24);
    assert_int_equal(sizeof(NvtdInvalidation), 48);
    assert_int_equal(offsetof(NvtdInvalidation, address), 32);
    assert_int_equal(sizeof(NvtdDevice), 40);
    assert_int_equal(offsetof(NvtdDevice, flags), 20);
    assert_int_equal(offsetof(NvtdDevice, dev_id), 32);
    assert_int_equal(offsetof(NvtdConfig, twin), 32);
    assert_int_equal(offsetof(NvtdConfig, checks), 40);
    assert_int_equal(sizeof(NvtdDeviceInfo), 80);
    assert_int_equal(offsetof(NvtdDeviceInfo, table), 24);
    assert_int_equal(offsetof(NvtdDeviceInfo, stale_uses), 64);
    assert_int_equal(sizeof(NvtdDump), 40);
    assert_int_equal(offsetof(NvtdDump, address), 24);
    assert_int_equal(sizeof(NvtdMsi), 32);
    assert_int_equal(offsetof(NvtdMsi, source_id), 20);
    assert_int_equal(offsetof(NvtdMsi, pasid), 28);
    assert_int_equal(sizeof(NvtdMsiAnswer), 32);
    assert_int_equal(offsetof(NvtdMsiAnswer, fault), 20);
    assert_int_equal(sizeof(NvtdPageRequest), 32);
    assert_int_equal(offsetof(NvtdPageRequest, group), 24);
    assert_int_equal(sizeof(NvtdPageResponse), 32);
    assert_int_equal(offsetof(NvtdPageResponse, code), 30);
    assert_int_equal(sizeof(NvtdMapping), 40);
    assert_int_equal(offsetof(NvtdMapping, permissions), 32);
    assert_int_equal(sizeof(NvtdRequest), 24);
    assert_int_equal(sizeof(NvtdTranslation), 40);
    assert_int_equal(offsetof(NvtdTranslation, fault), 28);
    assert_int_equal(offsetof(NvtdStats, descriptors_by_type), 72);
    assert_int_equal(offsetof(NvtdStats, queue_errors), 72 + 16 * 8);
    assert_int_equal(offsetof(NvtdStats, memory_errors), 72 + 16 * 8 + 14 * 8);
}

static void create_with_defaults_and_destroy(void **state)
{
    NvtdUnit *unit = NULL;

    (void)state;
    assert_int_equal(nvtd_unit_create(NULL, &OPS, NULL, &unit), 0);
    assert_non_null(unit);
    assert_int_equal(nvtd_work(unit), 0);
    assert_int_equal(nvtd_unit_reset(unit), 0);
    nvtd_unit_destroy(unit);
    nvtd_unit_destroy(NULL);
}

static void default_config_names_every_field(void **state)
{
    NvtdConfig config = default_config();

    (void)state;
    assert_int_equal(config.size, sizeof(config));
    assert_int_equal(config.host, NVTD_HOST_NONE);
    assert_int_equal(config.inject, 0);
    assert_int_equal(config.checks, 0);
    assert_int_equal(config.reserved, 0);
    assert_int_equal(config.pasid_bits, 0);
    assert_true(config.address_width == 0 || config.address_width == 48);
}

static void create_refuses_misuse(void **state)
{
    NvtdOps no_msi = OPS;

    (void)state;
    no_msi.msi = NULL;
    refuse(NULL, NULL, "ops");
    refuse(NULL, &no_msi, "msi");
    expect_error(nvtd_unit_create(NULL, &OPS, NULL, NULL), -EINVAL, "unit");
}

static void create_refuses_values(void **state)
{
    NvtdConfig config = default_config();

    (void)state;
    config.host = 7;
    refuse(&config, &OPS, "host");
    config = default_config();
    config.inject = 1u << 31;
    refuse(&config, &OPS, "inject");
    config = default_config();
    config.checks = 2;
    refuse(&config, &OPS, "checks");
    config = default_config();
    config.reserved = 1;
    refuse(&config, &OPS, "reserved");
    config = default_config();
    config.features |= 1ull << 63;
    refuse(&config, &OPS, "features");
    config = default_config();
    config.address_width = 39;
    refuse(&config, &OPS, "address width");
    config = default_config();
    config.pasid_bits = 21;
    refuse(&config, &OPS, "PASID");
    config = default_config();
    config.host = NVTD_HOST_SOFT;
    config.features &= ~(uint64_t)NVTD_FEATURE_CACHING_MODE;
    refuse(&config, &OPS, "caching mode");
}

/* 0, less than `size` itself, and nonsense such as an uninitialised field. */
static const size_t WRONG_SIZES[] = { 0, 4, sizeof(size_t) - 1, 1u << 20, SIZE_MAX };

static void every_wrong_size_is_refused(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    uint32_t device = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(WRONG_SIZES) / sizeof(*WRONG_SIZES); i++) {
        NvtdConfig config = default_config();
        NvtdOps ops = OPS;
        NvtdDevice desc = { .size = WRONG_SIZES[i], .source_id = 0x100 };
        NvtdDeviceInfo info = { .size = WRONG_SIZES[i] };
        NvtdRequest request = { .size = sizeof(request), .flags = NVTD_REQUEST_READ };
        NvtdTranslation out = { .size = WRONG_SIZES[i] };
        NvtdStats stats = { .size = WRONG_SIZES[i] };
        NvtdMsi msi = { .size = sizeof(msi), .address = 0xfee00000 };
        NvtdMsiAnswer answer = { .size = WRONG_SIZES[i] };

        config.size = WRONG_SIZES[i];
        expect_error(nvtd_config_default(&config), -EINVAL, "size");
        refuse(&config, &OPS, "size");
        ops.size = WRONG_SIZES[i];
        refuse(NULL, &ops, "size");
        expect_error(nvtd_device_add(g->unit, &desc, &device), -EINVAL, "size");
        assert_int_equal(device, 0);
        expect_error(nvtd_device_info(g->unit, g->device, &info), -EINVAL, "size");
        expect_error(nvtd_translate(g->unit, g->device, &request, &out), -EINVAL, "size");
        out.size = sizeof(out);
        request.size = WRONG_SIZES[i];
        expect_error(nvtd_translate(g->unit, g->device, &request, &out), -EINVAL, "size");
        expect_error(nvtd_stats(g->unit, &stats), -EINVAL, "size");
        expect_error(nvtd_remap_msi(g->unit, &msi, &answer), -EINVAL, "size");
        answer.size = sizeof(answer);
        msi.size = WRONG_SIZES[i];
        expect_error(nvtd_remap_msi(g->unit, &msi, &answer), -EINVAL, "size");
    }
    guest_free(g);
}

static void older_config_takes_defaults_for_the_rest(void **state)
{
    NvtdConfig config;
    NvtdUnit *unit = NULL;

    (void)state;
    memset(&config, 0xa5, sizeof(config));
    config.size = offsetof(NvtdConfig, features);
    assert_int_equal(nvtd_config_default(&config), 0);
    assert_int_equal(config.size, offsetof(NvtdConfig, features));
    assert_int_equal(config.host, NVTD_HOST_NONE);
    assert_int_equal(config.features, 0xa5a5a5a5a5a5a5a5ull);
    assert_int_equal(nvtd_unit_create(&config, &OPS, NULL, &unit), 0);
    nvtd_unit_destroy(unit);
}

static void older_ops_have_no_later_callbacks(void **state)
{
    NvtdOps ops;
    NvtdUnit *unit = NULL;
    NvtdDevice desc = { .size = sizeof(desc), .source_id = 0x123, .tag = 9 };
    NvtdDeviceInfo info = { .size = sizeof(info) };
    uint32_t device;

    (void)state;
    /* Pointers beyond `size` would crash if they were called. */
    memset(&ops, 0xa5, sizeof(ops));
    ops.size = offsetof(NvtdOps, log);
    ops.msi = on_msi;
    assert_int_equal(nvtd_unit_create(NULL, &ops, NULL, &unit), 0);
    assert_int_equal(nvtd_device_add(unit, &desc, &device), 0);
    assert_int_equal(nvtd_device_info(unit, device, &info), 0);
    assert_int_equal(info.source_id, 0x123);
    assert_int_equal(nvtd_unit_reset(unit), 0);
    nvtd_unit_destroy(unit);
}

static void older_out_structures_keep_what_lies_beyond(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    NvtdTranslation out;
    NvtdDeviceInfo info;
    NvtdStats stats;
    NvtdRequest request = {
        .size = sizeof(request), .address = 0x5000, .flags = NVTD_REQUEST_READ
    };

    (void)state;
    memset(&out, 0xa5, sizeof(out));
    out.size = offsetof(NvtdTranslation, page_size);
    assert_int_equal(nvtd_translate(g->unit, g->device, &request, &out), 0);
    assert_int_equal(out.address, 0x5000);
    assert_int_equal(out.size, offsetof(NvtdTranslation, page_size));
    assert_int_equal(out.page_size, 0xa5a5a5a5a5a5a5a5ull);

    memset(&info, 0xa5, sizeof(info));
    info.size = offsetof(NvtdDeviceInfo, pgtt);
    assert_int_equal(nvtd_device_info(g->unit, g->device, &info), 0);
    assert_int_equal(info.source_id, GUEST_SID);
    assert_int_equal(info.state, NVTD_STATE_DIRECT);
    assert_int_equal(info.pgtt, 0xa5a5a5a5);

    memset(&stats, 0xa5, sizeof(stats));
    stats.size = offsetof(NvtdStats, cache_hits);
    assert_int_equal(nvtd_stats(g->unit, &stats), 0);
    assert_int_equal(stats.translations, 1);
    assert_int_equal(stats.cache_hits, 0xa5a5a5a5a5a5a5a5ull);
    guest_free(g);
}

/* A structure of a later version: this one, and fields that this archive does not know. */
static void newer_structures_work_while_their_new_fields_are_0(void **state)
{
    struct {
        NvtdRequest known;
        uint64_t later;
    } request = { { .size = sizeof(request), .address = 0x5000, .flags = NVTD_REQUEST_READ }, 0 };
    struct {
        NvtdTranslation known;
        uint64_t later;
    } out = { { .size = sizeof(out) }, 77 };
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);

    (void)state;
    assert_int_equal(nvtd_translate(g->unit, g->device, &request.known, &out.known), 0);
    assert_int_equal(out.known.address, 0x5000);
    assert_int_equal(out.later, 77);
    request.later = 1;
    expect_error(nvtd_translate(g->unit, g->device, &request.known, &out.known), -EINVAL,
                 "request");
    guest_free(g);
}

static void ram_refuses_misuse(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    NvtdUnit *u = g->unit;
    uint8_t *at = g->ram;
    const uint64_t high = 16 * GIB;

    (void)state;
    expect_error(nvtd_ram_add(NULL, high, 4096, at, 0), -EINVAL, "unit");
    expect_error(nvtd_ram_add(u, high, 4096, NULL, 0), -EINVAL, "host");
    expect_error(nvtd_ram_add(u, high, 0, at, 0), -EINVAL, "size");
    expect_error(nvtd_ram_add(u, high, 4096, at, 0x80), -EINVAL, "flags");
    expect_error(nvtd_ram_add(u, high + 4, 4096, at, 0), -EINVAL, "gpa");
    expect_error(nvtd_ram_add(u, high, 4092, at, 0), -EINVAL, "size");
    expect_error(nvtd_ram_add(u, high, 4096, at + 1, 0), -EINVAL, "host");
    expect_error(nvtd_ram_add(u, UINT64_MAX - 4095, 8192, at, 0), -EINVAL, "gpa");

    expect_error(nvtd_ram_add(u, 0, 4096, at, 0), -EEXIST, "0x0");
    expect_error(nvtd_ram_add(u, GUEST_RAM_SIZE - 4096, 8192, at, 0), -EEXIST, "overlap");
    assert_int_equal(nvtd_ram_add(u, high, 8192, at, 0), 0);
    expect_error(nvtd_ram_add(u, high - 4096, 8192, at, 0), -EEXIST, "overlap");
    expect_error(nvtd_ram_add(u, high - 4096, 5 * 4096, at, 0), -EEXIST, "overlap");
    assert_int_equal(nvtd_ram_add(u, high + 8192, 4096, at, NVTD_RAM_READ_ONLY), 0);

    expect_error(nvtd_ram_remove(NULL, high, 8192), -EINVAL, "unit");
    expect_error(nvtd_ram_remove(u, high, 4096), -ENOENT, "0x");
    expect_error(nvtd_ram_remove(u, high + 4096, 4096), -ENOENT, "0x");
    assert_int_equal(nvtd_ram_remove(u, high, 8192), 0);
    expect_error(nvtd_ram_remove(u, high, 8192), -ENOENT, "0x");
    assert_int_equal(nvtd_ram_add(u, high, 8192, at, 0), 0);
    guest_free(g);
}

static void ram_regions_are_limited(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    int rc = 0;
    unsigned added = 1; /* the guest's own */

    (void)state;
    for (; added < 5000; added++) {
        rc = nvtd_ram_add(g->unit, 16 * GIB + added * 8192ull, 4096, g->ram, 0);
        if (rc) {
            break;
        }
    }
    expect_error(rc, -ENOSPC, "4096");
    assert_int_equal(added, 4096);
    guest_free(g);
}

static void device_refuses_misuse(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    NvtdDevice desc = { .size = sizeof(desc), .source_id = 0x200 };
    NvtdDeviceInfo info = { .size = sizeof(info) };
    uint32_t device = 0;

    (void)state;
    expect_error(nvtd_device_add(NULL, &desc, &device), -EINVAL, "unit");
    expect_error(nvtd_device_add(g->unit, NULL, &device), -EINVAL, "desc");
    expect_error(nvtd_device_add(g->unit, &desc, NULL), -EINVAL, "device");
    desc.flags = 1u << 30;
    expect_error(nvtd_device_add(g->unit, &desc, &device), -EINVAL, "flags");
    desc.flags = NVTD_DEVICE_ASSIGNED;
    expect_error(nvtd_device_add(g->unit, &desc, &device), -EINVAL, "assigned");
    assert_int_equal(device, 0);

    desc.flags = NVTD_DEVICE_FIXED_ID;
    assert_int_equal(nvtd_device_add(g->unit, &desc, &device), 0);
    assert_int_equal(nvtd_device_info(g->unit, device, &info), 0);
    assert_int_equal(info.source_id, 0x200);
    assert_int_equal(nvtd_device_remove(g->unit, device), 0);

    expect_error(nvtd_device_info(NULL, g->device, &info), -EINVAL, "unit");
    expect_error(nvtd_device_info(g->unit, g->device, NULL), -EINVAL, "info");
    expect_error(nvtd_device_info(g->unit, 0, &info), -ENOENT, "device");
    expect_error(nvtd_device_info(g->unit, g->device + 1000, &info), -ENOENT, "device");
    expect_error(nvtd_device_remove(NULL, g->device), -EINVAL, "unit");
    expect_error(nvtd_device_remove(g->unit, 0), -ENOENT, "device");
    assert_int_equal(nvtd_device_remove(g->unit, g->device), 0);
    expect_error(nvtd_device_remove(g->unit, g->device), -ENOENT, "device");
    expect_error(nvtd_device_info(g->unit, g->device, &info), -ENOENT, "device");
    guest_free(g);
}

static void translate_refuses_misuse(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    NvtdRequest request = {
        .size = sizeof(request), .address = 0x1000, .flags = NVTD_REQUEST_READ
    };
    NvtdTranslation out = { .size = sizeof(out) };

    (void)state;
    expect_error(nvtd_translate(NULL, g->device, &request, &out), -EINVAL, "unit");
    expect_error(nvtd_translate(g->unit, g->device, NULL, &out), -EINVAL, "request");
    expect_error(nvtd_translate(g->unit, g->device, &request, NULL), -EINVAL, "out");
    expect_error(nvtd_translate(g->unit, 12345, &request, &out), -ENOENT, "device");
    request.flags = 0;
    expect_error(nvtd_translate(g->unit, g->device, &request, &out), -EINVAL, "read");
    request.flags = NVTD_REQUEST_DEBUG;
    expect_error(nvtd_translate(g->unit, g->device, &request, &out), -EINVAL, "read");
    request.flags = NVTD_REQUEST_READ | 1u << 20;
    expect_error(nvtd_translate(g->unit, g->device, &request, &out), -EINVAL, "flags");
    request.flags = NVTD_REQUEST_READ;
    request.pasid = 1;
    expect_error(nvtd_translate(g->unit, g->device, &request, &out), -EINVAL, "PASID");
    expect_error(nvtd_stats(NULL, NULL), -EINVAL, "unit");
    expect_error(nvtd_stats(g->unit, NULL), -EINVAL, "stats");
    expect_error(nvtd_unit_reset(NULL), -EINVAL, "unit");
    expect_error(nvtd_work(NULL), -EINVAL, "unit");
    guest_free(g);
}

static void mmio_refuses_misuse(void **state)
{
    static const uint32_t SIZES[] = { 0, 3, 5, 16, UINT32_MAX };
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    uint64_t value = 0x1234;

    (void)state;
    expect_error(nvtd_mmio_read(NULL, 0, 4, &value), -EINVAL, "unit");
    expect_error(nvtd_mmio_read(g->unit, 0, 4, NULL), -EINVAL, "value");
    expect_error(nvtd_mmio_write(NULL, 0, 4, 0), -EINVAL, "unit");
    for (size_t i = 0; i < sizeof(SIZES) / sizeof(*SIZES); i++) {
        expect_error(nvtd_mmio_read(g->unit, 0, SIZES[i], &value), -EINVAL, "size");
        expect_error(nvtd_mmio_write(g->unit, 0, SIZES[i], 0), -EINVAL, "size");
    }
    expect_error(nvtd_mmio_read(g->unit, NVTD_MMIO_SIZE, 4, &value), -EINVAL, "offset");
    expect_error(nvtd_mmio_read(g->unit, NVTD_MMIO_SIZE - 4, 8, &value), -EINVAL, "offset");
    expect_error(nvtd_mmio_read(g->unit, UINT64_MAX - 3, 8, &value), -EINVAL, "offset");
    expect_error(nvtd_mmio_write(g->unit, NVTD_MMIO_SIZE, 1, 0), -EINVAL, "offset");
    expect_error(nvtd_mmio_write(g->unit, UINT64_MAX, 8, 0), -EINVAL, "offset");
    assert_int_equal(value, 0x1234);
    assert_int_equal(nvtd_mmio_read(g->unit, NVTD_MMIO_SIZE - 8, 8, &value), 0);
    guest_free(g);
}

/* The last error is the thread's own: empty where nothing failed, not touched by other threads. */
static void *other_thread(void *opaque)
{
    char *texts = opaque;

    strncpy(texts, nvtd_last_error(), 255);
    nvtd_unit_reset(NULL);
    strncpy(texts + 256, nvtd_last_error(), 255);
    return NULL;
}

static void last_error_belongs_to_the_thread(void **state)
{
    NvtdUnit *unit;
    pthread_t thread;
    char *texts = calloc(2, 256);
    char *mine;

    (void)state;
    expect_error(nvtd_unit_create(NULL, NULL, NULL, &unit), -EINVAL, "ops");
    mine = strdup(nvtd_last_error());
    assert_int_equal(pthread_create(&thread, NULL, other_thread, texts), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(texts, "");
    assert_non_null(strstr(texts + 256, "unit"));
    assert_string_equal(nvtd_last_error(), mine);
    free(mine);
    free(texts);
}

static void numbers_without_a_name_are_unknown(void **state)
{
    (void)state;
    assert_string_equal(nvtd_event_name(UINT32_MAX), "unknown");
    assert_string_equal(nvtd_diagnostic_name(UINT32_MAX), "unknown");
    assert_string_not_equal(nvtd_event_name(1), "");
    assert_string_not_equal(nvtd_diagnostic_name(1), "");
}

static uint16_t source_id_of_tag(void *opaque, uint64_t tag)
{
    assert_int_equal(tag, 42);
    return *(uint16_t *)opaque;
}

static void source_id_comes_from_the_callback(void **state)
{
    NvtdOps ops = OPS;
    NvtdDevice desc = { .size = sizeof(desc), .tag = 42, .source_id = 0x111 };
    NvtdDeviceInfo info = { .size = sizeof(info) };
    NvtdUnit *unit = NULL;
    uint16_t now = 0x222;
    uint32_t device;

    (void)state;
    ops.source_id = source_id_of_tag;
    assert_int_equal(nvtd_unit_create(NULL, &ops, &now, &unit), 0);
    assert_int_equal(nvtd_device_add(unit, &desc, &device), 0);
    assert_int_equal(nvtd_device_info(unit, device, &info), 0);
    assert_int_equal(info.source_id, 0x222);
    now = 0x333;
    assert_int_equal(nvtd_device_info(unit, device, &info), 0);
    assert_int_equal(info.source_id, 0x333);
    nvtd_unit_destroy(unit);
}

static void two_units_do_not_meet(void **state)
{
    struct guest *a = guest_new(NVTD_HOST_NONE, 0);
    struct guest *b = guest_new(NVTD_HOST_SOFT, 0);

    (void)state;
    guest_boot(b);
    expect_fault(b, 0x5000, NVTD_REQUEST_READ, FAULT_FS_PRESENT);
    expect_address(a, 0x5000, NVTD_REQUEST_READ, 0x5000);
    assert_int_equal(guest_stats(a).faults, 0);
    assert_int_equal(guest_stats(b).faults, 1);
    guest_free(a);
    expect_fault(b, 0x6000, NVTD_REQUEST_READ, FAULT_FS_PRESENT);
    guest_free(b);
}

/* What is only there with a host says so without one. */
static void without_a_host(void **state)
{
    struct guest *g = guest_new(NVTD_HOST_NONE, 0);
    uint64_t bits = 0;

    (void)state;
    assert_int_equal(nvtd_host_faults(g->unit), 0);
    assert_int_equal(nvtd_host_faults(NULL), -EINVAL);
    assert_int_equal(nvtd_dirty_tracking(g->unit, 1), -EOPNOTSUPP);
    assert_int_equal(nvtd_dirty_tracking(NULL, 1), -EINVAL);
    assert_int_equal(nvtd_dirty_bitmap(g->unit, 0, 4096, 4096, NVTD_DIRTY_KEEP, &bits, 1),
                     -EOPNOTSUPP);
    assert_int_equal(nvtd_dirty_bitmap(NULL, 0, 4096, 4096, NVTD_DIRTY_KEEP, &bits, 1), -EINVAL);
    assert_int_equal(bits, 0);
    guest_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_is_the_headers),
        cmocka_unit_test(layouts_stay),
        cmocka_unit_test(create_with_defaults_and_destroy),
        cmocka_unit_test(default_config_names_every_field),
        cmocka_unit_test(create_refuses_misuse),
        cmocka_unit_test(create_refuses_values),
        cmocka_unit_test(every_wrong_size_is_refused),
        cmocka_unit_test(older_config_takes_defaults_for_the_rest),
        cmocka_unit_test(older_ops_have_no_later_callbacks),
        cmocka_unit_test(older_out_structures_keep_what_lies_beyond),
        cmocka_unit_test(newer_structures_work_while_their_new_fields_are_0),
        cmocka_unit_test(ram_refuses_misuse),
        cmocka_unit_test(ram_regions_are_limited),
        cmocka_unit_test(device_refuses_misuse),
        cmocka_unit_test(translate_refuses_misuse),
        cmocka_unit_test(mmio_refuses_misuse),
        cmocka_unit_test(last_error_belongs_to_the_thread),
        cmocka_unit_test(numbers_without_a_name_are_unknown),
        cmocka_unit_test(source_id_comes_from_the_callback),
        cmocka_unit_test(two_units_do_not_meet),
        cmocka_unit_test(without_a_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
