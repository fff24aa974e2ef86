/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "miniblk/cutils.h"

void pstrcpy(char *buf, int buf_size, const char *str)
{
    if (buf_size > 0) {
        g_strlcpy(buf, str, buf_size);
    }
}

char *pstrcat(char *buf, int buf_size, const char *s)
{
    if (buf_size > 0) {
        g_strlcat(buf, s, buf_size);
    }
    return buf;
}

static int starts(const char *str, const char *prefix, const char **ptr,
                  int (*compare)(const char *, const char *, size_t))
{
    size_t len = strlen(prefix);
    if (compare(str, prefix, len)) {
        return 0;
    }
    if (ptr) {
        *ptr = str + len;
    }
    return 1;
}

int strstart(const char *str, const char *prefix, const char **ptr)
{
    return starts(str, prefix, ptr, strncmp);
}

int stristart(const char *str, const char *prefix, const char **ptr)
{
    return starts(str, prefix, ptr, strncasecmp);
}

/* What follows a conversion that began at NPTR, ended at END and left ERR in errno. */
static int conclude(const char *nptr, const char *end, const char **endptr, int err)
{
    if (endptr) {
        *endptr = end;
    }
    if (end == nptr || (!endptr && *end)) {
        return -EINVAL;
    }
    return -err;
}

/* strtoll() and its like take no NULL. */
static int no_string(const char **endptr)
{
    if (endptr) {
        *endptr = NULL;
    }
    return -EINVAL;
}

int qemu_strtoi64(const char *nptr, const char **endptr, int base, int64_t *result)
{
    char *end;

    *result = 0;
    if (!nptr) {
        return no_string(endptr);
    }
    errno = 0;
    *result = strtoll(nptr, &end, base);
    return conclude(nptr, end, endptr, errno);
}

int qemu_strtou64(const char *nptr, const char **endptr, int base, uint64_t *result)
{
    char *end;

    *result = 0;
    if (!nptr) {
        return no_string(endptr);
    }
    errno = 0;
    *result = strtoull(nptr, &end, base);
    return conclude(nptr, end, endptr, errno);
}

int qemu_strtoi(const char *nptr, const char **endptr, int base, int *result)
{
    int64_t wide;
    int ret = qemu_strtoi64(nptr, endptr, base, &wide);

    *result = CLAMP(wide, INT_MIN, INT_MAX);
    return ret == 0 && *result != wide ? -ERANGE : ret;
}
