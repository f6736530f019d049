/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The header needs nothing before it and may be included twice.
 */
#include "nested_vtd.h"
#include "nested_vtd.h"

int main(void)
{
    return nvtd_abi_version() == NVTD_ABI_VERSION ? 0 : 1;
}
