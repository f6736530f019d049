/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Checks, rule by rule, that a host behaves as Linux's iommufd, vfio and Intel IOMMU driver do, quirks
 * included. The host is either Linux itself or the twin that this project has in place of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "conformance.h"

static const char usage[] =
    "usage: host_conformance --iommu FILE --device FILE [OPTION...]\n"
    "       host_conformance --twin[=6.12|7.3] [OPTION...]\n"
    "       host_conformance --list\n"
    "  --iommu FILE          the kernel's iommufd, /dev/iommu\n"
    "  --device FILE         a device bound to a vfio driver, /dev/vfio/devices/vfio0\n"
    "  --second-device FILE  another one, behind the same IOMMU\n"
    "  --foreign-device FILE another one, behind another IOMMU\n"
    "  --sibling-device FILE another one, in the first one's IOMMU group\n"
    "  --quirks-off BITS     a twin without some quirks, see NVTD_TWIN_QUIRK_*: their rules fail\n"
    "  --only TEXT           only rules whose name begins so\n"
    "  --list                say which rules there are\n"
    "A line is a verdict, a rule's name and what it says, and why it failed or was skipped.\n";

static const struct rule *const RULES[] = {
    rules_dispatch, rules_info,  rules_alloc, rules_invalidate, rules_dirty, rules_fault,
    rules_map,      rules_ioas,  rules_vfio,  rules_attach,     rules_pasid,
};

enum verdict { PASSED, FAILED, SKIPPED };

/* Of the rule that is being checked. */
static jmp_buf end;
static bool failed;
static char why[400];

void end_of_pages(void);

static void say_why(const char *format, va_list args)
{
    size_t length = strlen(why);
    if (length && length + 3 < sizeof(why)) {
        strcpy(why + length, "; ");
        length += 2;
    }
    vsnprintf(why + length, sizeof(why) - length, format, args);
}

void wrong(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_why(format, args);
    va_end(args);
    failed = true;
}

_Noreturn void give_up(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_why(format, args);
    va_end(args);
    failed = true;
    longjmp(end, FAILED);
}

_Noreturn void skip(const char *format, ...)
{
    /* What was seen before counts. */
    if (!failed) {
        va_list args;
        va_start(args, format);
        say_why(format, args);
        va_end(args);
    }
    longjmp(end, SKIPPED);
}

static const char *errno_name(int number)
{
    static const struct { int number; const char *name; } NAMES[] = {
        { 0, "0" }, { EPERM, "EPERM" }, { ENOENT, "ENOENT" }, { E2BIG, "E2BIG" },
        { EBADF, "EBADF" }, { EAGAIN, "EAGAIN" }, { ENOMEM, "ENOMEM" }, { EACCES, "EACCES" },
        { EFAULT, "EFAULT" }, { EBUSY, "EBUSY" }, { EEXIST, "EEXIST" }, { ENODEV, "ENODEV" },
        { EINVAL, "EINVAL" }, { ENOTTY, "ENOTTY" }, { ENOSPC, "ENOSPC" }, { ESPIPE, "ESPIPE" },
        { EOVERFLOW, "EOVERFLOW" }, { EBADFD, "EBADFD" }, { EMSGSIZE, "EMSGSIZE" },
        { EOPNOTSUPP, "EOPNOTSUPP" }, { EADDRINUSE, "EADDRINUSE" },
    };
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++)
        if (NAMES[i].number == number)
            return NAMES[i].name;
    static char text[32];
    snprintf(text, sizeof(text), "errno %d", number);
    return text;
}

void expect(int got, int wanted, const char *format, ...)
{
    if (got == -wanted)
        return;
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    if (got > 0)
        wrong("%s: %d, not %s", what, got, errno_name(wanted));
    else
        wrong("%s: %s, not %s", what, errno_name(-got), errno_name(wanted));
}

void returns(ssize_t got, size_t wanted, const char *format, ...)
{
    if (got >= 0 && (size_t)got == wanted)
        return;
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    if (got < 0)
        wrong("%s: %s, not %zu", what, errno_name((int)-got), wanted);
    else
        wrong("%s: %zd, not %zu", what, got, wanted);
}

void expect_number(uint64_t got, uint64_t wanted, const char *format, ...)
{
    if (got == wanted)
        return;
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    wrong("%s: %#llx, not %#llx", what, (unsigned long long)got, (unsigned long long)wanted);
}

/* Opens iommufd and device and asks what they can do. */
static int open_session(void)
{
    int result = now.host->begin();
    if (result < 0)
        return result;
    now.iommu = now.device = -1;
    now.iommu = now.host->open_iommu();
    if (now.iommu < 0)
        return now.iommu;
    now.device = now.host->open_device(FIRST);
    if (now.device < 0)
        return now.device;
    now.bound = bind_device(now.device, now.iommu, &now.dev_id);
    if (now.bound)
        return now.bound == -EPERM ? 0 : now.bound;
    struct hw_info_vtd vtd = { .flags = 0 };
    struct hw_info info = { .size = sizeof(info), .dev_id = now.dev_id, .data_len = sizeof(vtd),
                            .data_uptr = (uintptr_t)&vtd };
    result = call(IOMMU_GET_HW_INFO, &info);
    if (result)
        return result;
    now.cap = vtd.cap_reg;
    now.ecap = vtd.ecap_reg;
    now.capabilities = info.out_capabilities;
    now.max_pasid_log2 = info.out_max_pasid_log2;
    return 0;
}

static void close_session(void)
{
    if (now.device >= 0)
        now.host->close(now.device);
    if (now.iommu >= 0)
        now.host->close(now.iommu);
    now.host->end();
    end_of_pages();
}

/* All HWPTs of 6.12 have second-stage tables. */
static bool attachable(void)
{
    return now.bound || now.host->release > 612 || !can(ECAP_SMTS) || can(ECAP_SLTS);
}

/* One rule, once; what there is to say about it is in `why`. */
static enum verdict check(const struct rule *rule)
{
    failed = false;
    why[0] = 0;
    memset(now.ram, 0, RAM_SIZE);
    int result = open_session();
    int ended = 0;
    if (result)
        wrong("cannot set up: %s", strerror(-result));
    else if ((ended = setjmp(end)) == 0) {
        if (now.bound && strcmp(rule->name, "BIND-interrupts"))
            skip("the device cannot be bound");
        if (!attachable() && strcmp(rule->name, "P8"))
            skip("the device cannot be attached to anything");
        rule->check();
    }
    close_session();
    return failed ? FAILED : ended == SKIPPED ? SKIPPED : PASSED;
}

#ifndef NO_TWIN
/* Of all configurations of the twin: failed if it fails in one, passed if it passes in one. */
static enum verdict check_on_twins(const struct rule *rule, unsigned release, uint64_t quirks_off)
{
    enum verdict verdict = SKIPPED;
    for (unsigned n = 0; n < twin_configurations(); n++) {
        twin_setup(release, quirks_off, n);
        enum verdict one = check(rule);
        if (one == FAILED) {
            size_t length = strlen(why);
            snprintf(why + length, sizeof(why) - length, " (twin: %s)", twin_configuration(n));
            return FAILED;
        }
        if (one == PASSED)
            verdict = PASSED;
    }
    return verdict;
}
#endif

static void list(void)
{
    for (size_t i = 0; i < sizeof(RULES) / sizeof(RULES[0]); i++)
        for (const struct rule *rule = RULES[i]; rule->name; rule++)
            printf("%s %s\n", rule->name, rule->says);
}

static int die(const char *what)
{
    fprintf(stderr, "host_conformance: %s\n%s", what, usage);
    return 2;
}

int main(int argc, char **argv)
{
    const char *iommu = NULL, *devices[DEVICES] = { NULL }, *only = "", *quirks_off = "0";
    unsigned twin = 0;
    for (int i = 1; i < argc; i++) {
        const struct { const char *option, **value; } OPTIONS[] = {
            { "--iommu", &iommu },
            { "--device", &devices[FIRST] },
            { "--second-device", &devices[SECOND] },
            { "--foreign-device", &devices[FOREIGN] },
            { "--sibling-device", &devices[SIBLING] },
            { "--quirks-off", &quirks_off },
            { "--only", &only },
        };
        bool known = true;
        if (strcmp(argv[i], "--list") == 0)
            return list(), 0;
        else if (strcmp(argv[i], "--twin") == 0 || strcmp(argv[i], "--twin=7.3") == 0)
            twin = 703;
        else if (strcmp(argv[i], "--twin=6.12") == 0)
            twin = 612;
        else
            known = false;
        for (size_t n = 0; !known && i + 1 < argc && n < sizeof(OPTIONS) / sizeof(OPTIONS[0]); n++)
            if (strcmp(argv[i], OPTIONS[n].option) == 0) {
                *OPTIONS[n].value = argv[++i];
                known = true;
            }
        if (!known)
            return die(argv[i]);
    }
    if (!twin == !iommu || !iommu != !devices[FIRST])
        return die("which host?");
    now.ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (now.ram == MAP_FAILED)
        return perror("host_conformance: mmap"), 2;
#ifdef NO_TWIN
    if (twin)
        return die("this program was built without the twin");
    now.host = &system_host;
#else
    now.host = twin ? &twin_host : &system_host;
    uint64_t without = strtoull(quirks_off, NULL, 0);
#endif
    if (iommu && system_setup(iommu, (const char *const *)devices))
        return 2;

    static const char *const VERDICTS[] = { "passed ", "failed ", "skipped" };
    unsigned tally[3] = { 0 };
    for (size_t i = 0; i < sizeof(RULES) / sizeof(RULES[0]); i++) {
        for (const struct rule *rule = RULES[i]; rule->name; rule++) {
            if (strncmp(rule->name, only, strlen(only)))
                continue;
#ifdef NO_TWIN
            enum verdict verdict = check(rule);
#else
            enum verdict verdict = twin ? check_on_twins(rule, twin, without) : check(rule);
#endif
            tally[verdict]++;
            bool bare = verdict == PASSED || !why[0];
            printf("%s  %-24s %s%s%s%s\n", VERDICTS[verdict], rule->name, rule->says,
                   bare ? "" : "  [", bare ? "" : why, bare ? "" : "]");
            fflush(stdout);
        }
    }
    printf("%u passed, %u failed, %u skipped\n", tally[PASSED], tally[FAILED], tally[SKIPPED]);
    return tally[FAILED] ? 1 : 0;
}
