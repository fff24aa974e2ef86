/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Strings: bounded copying, prefixes, and numbers that are checked to the last character. */
#ifndef MINIBLK_CUTILS_H
#define MINIBLK_CUTILS_H

#include <stddef.h>
#include <stdint.h>

/* Copy, or append, what fits into the BUF_SIZE bytes of BUF, with a terminating NUL. */
void pstrcpy(char *buf, int buf_size, const char *str);
char *pstrcat(char *buf, int buf_size, const char *s);
/*
 * 1 when STR begins with PREFIX, and *PTR (unless PTR is NULL) is what follows; else 0. The
 * second does not tell a from A.
 */
int strstart(const char *str, const char *prefix, const char **ptr);
int stristart(const char *str, const char *prefix, const char **ptr);

/*
 * The number at the beginning of NPTR, in BASE (0: by its prefix, as in C), in *RESULT. Where
 * it ends is stored in *ENDPTR; with ENDPTR NULL it must end the string. 0; -EINVAL: not a
 * number, or more than one (*RESULT is 0 or the number); -ERANGE: *RESULT is the nearest.
 */
int qemu_strtoi(const char *nptr, const char **endptr, int base, int *result);
int qemu_strtoi64(const char *nptr, const char **endptr, int base, int64_t *result);
int qemu_strtou64(const char *nptr, const char **endptr, int base, uint64_t *result);

#endif
