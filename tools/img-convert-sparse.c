/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding the zeroes in a buffer that are worth not writing. */
#include "miniblk/osdep.h"
#include "tools/img-convert.h"

/* Zeroes are looked for in pieces of this size; a page is what a file can leave out. */
#define GRANULE_BYTES 4096

/* Granules lie at multiples of their size in the image, so that holes fall on pages. */
static int64_t granule_length(int64_t offset, int64_t bytes, int64_t granule)
{
    return MIN(bytes, granule - offset % granule);
}

/* How many bytes from POS on lie in granules that are all zero (or all are not). */
static int64_t same_length(const uint8_t *buf, int64_t pos, int64_t bytes, int64_t offset,
                           int64_t granule, bool want_zero)
{
    int64_t start = pos;

    while (pos < bytes) {
        int64_t len = granule_length(offset + pos, bytes - pos, granule);
        if (buffer_is_zero(buf + pos, len) != want_zero) {
            break;
        }
        pos += len;
    }
    return pos - start;
}

int64_t convert_run_length(const uint8_t *buf, int64_t bytes, int64_t offset, int64_t sparse,
                           int64_t align, bool *zero)
{
    int64_t granule = MIN(sparse, GRANULE_BYTES);
    int64_t pos = 0;

    while (pos < bytes) {
        pos += same_length(buf, pos, bytes, offset, granule, false);
        int64_t len = same_length(buf, pos, bytes, offset, granule, true);
        /*
         *   pos        first             last       pos + len
         *    |00000000000|000000000000000000|00000000000|
         *      data: a      the part that       data, or nothing
         *      cluster is     is skipped        more to come
         *      not split
         */
        int64_t first = pos ? QEMU_ALIGN_UP(offset + pos, align) - offset : 0;
        int64_t last = pos + len < bytes ? QEMU_ALIGN_DOWN(offset + pos + len, align) - offset
                                         : bytes;
        if (first < last && (len >= sparse || pos + len == bytes)) {
            *zero = first == 0;
            return first == 0 ? last : first;
        }
        pos += len;
    }
    *zero = false;
    return bytes;
}
