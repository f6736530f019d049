/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The header in C++: it compiles alone, links, and callbacks are plain function pointers.
 */
#include "nested_vtd.h"

#include <cerrno>
#include <cstring>
#include <type_traits>

static_assert(std::is_standard_layout<NvtdStats>::value && std::is_trivial<NvtdOps>::value,
              "plain C structures");

int main()
{
    NvtdOps ops = {};
    NvtdUnit *unit = nullptr;

    ops.size = sizeof(ops);
    if (nvtd_unit_create(nullptr, &ops, nullptr, &unit) != -EINVAL ||
        !std::strstr(nvtd_last_error(), "msi")) {
        return 1;
    }
    ops.msi = [](void *, uint64_t, uint32_t) {};
    if (nvtd_unit_create(nullptr, &ops, nullptr, &unit) != 0) {
        return 2;
    }
    nvtd_unit_destroy(unit);
    return 0;
}
