/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libc's names for memory: what the program defines is what its libraries call, too. */
#include "miniblk/osdep.h"
#include <malloc.h>
#include "lab/arena.h"
#include "lab/lab-config.h"

#if LAB_OWNS_MEMORY

enum { ALIGNMENT = 16 };
#define CALLER __builtin_return_address(0)

static void *no_memory(void *p)
{
    if (!p) {
        errno = ENOMEM;
    }
    return p;
}

static bool is_alignment(size_t alignment)
{
    return alignment && (alignment & (alignment - 1)) == 0;
}

void *malloc(size_t size)
{
    return no_memory(lab_arena_alloc(size, ALIGNMENT, false, CALLER));
}

void *calloc(size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes)) {
        return no_memory(NULL);
    }
    return no_memory(lab_arena_alloc(bytes, ALIGNMENT, true, CALLER));
}

void free(void *p)
{
    if (p) {
        int saved_errno = errno;
        lab_arena_free(p, CALLER);
        errno = saved_errno;
    }
}

void *realloc(void *p, size_t size)
{
    if (!p) {
        return no_memory(lab_arena_alloc(size, ALIGNMENT, false, CALLER));
    }
    if (size == 0) {
        lab_arena_free(p, CALLER);
        return NULL;
    }
    /* Always elsewhere: who kept the old address is found out. */
    size_t old_size = lab_arena_size(p, CALLER);
    void *new = lab_arena_alloc(size, ALIGNMENT, false, CALLER);
    if (new) {
        memcpy(new, p, MIN(old_size, size));
        lab_arena_free(p, CALLER);
    }
    return no_memory(new);
}

void *memalign(size_t alignment, size_t size)
{
    if (!is_alignment(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    return no_memory(lab_arena_alloc(size, MAX(alignment, (size_t)ALIGNMENT), false, CALLER));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size)
{
    if (!is_alignment(alignment) || alignment % sizeof(void *)) {
        return EINVAL;
    }
    void *p = lab_arena_alloc(size, MAX(alignment, (size_t)ALIGNMENT), false, CALLER);
    if (!p) {
        return ENOMEM;
    }
    *result = p;
    return 0;
}

void *valloc(size_t size)
{
    return memalign(LAB_PAGE, size);
}

void *pvalloc(size_t size)
{
    return memalign(LAB_PAGE, ROUND_UP(size, (size_t)LAB_PAGE));
}

size_t malloc_usable_size(void *p)
{
    return p ? lab_arena_size(p, CALLER) : 0;
}

/* GLib's, so that the caller is the program's function and not GLib's. */
static void *checked(void *p, size_t size)
{
    if (!p && size) {
        g_error("failed to allocate %zu bytes", size);
    }
    return p;
}

gpointer g_malloc(gsize size)
{
    return size ? checked(lab_arena_alloc(size, ALIGNMENT, false, CALLER), size) : NULL;
}

gpointer g_malloc0(gsize size)
{
    return size ? checked(lab_arena_alloc(size, ALIGNMENT, true, CALLER), size) : NULL;
}

gpointer g_malloc_n(gsize n, gsize size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes)) {
        g_error("%zu blocks of %zu bytes overflow", n, size);
    }
    return bytes ? checked(lab_arena_alloc(bytes, ALIGNMENT, false, CALLER), bytes) : NULL;
}

gpointer g_malloc0_n(gsize n, gsize size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes)) {
        g_error("%zu blocks of %zu bytes overflow", n, size);
    }
    return bytes ? checked(lab_arena_alloc(bytes, ALIGNMENT, true, CALLER), bytes) : NULL;
}

void (g_free)(gpointer p)
{
    if (p) {
        int saved_errno = errno;
        lab_arena_free(p, CALLER);
        errno = saved_errno;
    }
}

#endif
