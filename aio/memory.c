/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Aligned memory. */
#include "miniblk/osdep.h"

void *qemu_try_memalign(size_t alignment, size_t size)
{
    void *ptr;
    g_assert(alignment && (alignment & (alignment - 1)) == 0);
    if (posix_memalign(&ptr, MAX(alignment, sizeof(void *)), size ? size : 1)) {
        return NULL;
    }
    return ptr;
}

void *qemu_memalign(size_t alignment, size_t size)
{
    void *ptr = qemu_try_memalign(alignment, size);
    if (!ptr) {
        fprintf(stderr, "miniblk: failed to allocate %zu bytes\n", size);
        abort();
    }
    return ptr;
}

void qemu_vfree(void *ptr)
{
    free(ptr);
}
