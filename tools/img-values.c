/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values on the command lines of all tools: sizes and cache modes. */
#include "miniblk/osdep.h"
#include "tools/img.h"

/* The power of 1024 that C stands for, -1 if none. */
static int suffix_power(char c)
{
    static const char suffixes[] = "BKMGTPE";
    const char *at = c ? strchr(suffixes, g_ascii_toupper(c)) : NULL;

    return at ? (int)(at - suffixes) : -1;
}

int img_parse_size_quiet(const char *value, uint64_t *size)
{
    const char *p = value;
    char *end;
    double fraction = 0;

    while (g_ascii_isspace(*p)) {
        p++;
    }
    if (*p == '+') {
        p++;
    }
    if (!g_ascii_isdigit(*p)) {
        return -EINVAL;
    }

    bool hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X');
    if (hex && !g_ascii_isxdigit(p[2])) {
        return -EINVAL;
    }
    errno = 0;
    uint64_t whole = g_ascii_strtoull(p, &end, hex ? 16 : 10);
    if (errno == ERANGE) {
        return -ERANGE;
    }
    if (*end == '.' && !hex) {
        double scale = 0.1;
        for (end++; g_ascii_isdigit(*end); end++, scale /= 10) {
            fraction += (*end - '0') * scale;
        }
    }

    int power = 0;
    if (*end) {
        power = suffix_power(*end);
        if (power < 0 || end[1]) {
            return -EINVAL;
        }
        if (hex) {
            warn_report("Using a multiplier suffix on hex numbers is deprecated: %s", value);
        }
    }
    if (fraction > 0 && power == 0) {
        return -EINVAL;         /* there is no part of a byte */
    }
    uint64_t unit = 1ULL << (10 * power);
    uint64_t part = (uint64_t)(fraction * (double)unit + 0.5);
    if (whole > (UINT64_MAX - part) / unit) {
        return -ERANGE;
    }
    *size = whole * unit + part;
    return 0;
}

bool img_parse_cache(const char *mode, int *flags, bool *writethrough)
{
    static const struct {
        const char *name;
        int flags;
        bool writethrough;
    } modes[] = {
        { "none", BDRV_O_NOCACHE, false },
        { "off", BDRV_O_NOCACHE, false },
        { "directsync", BDRV_O_NOCACHE, true },
        { "writeback", 0, false },
        { "writethrough", 0, true },
        { "unsafe", BDRV_O_NO_FLUSH, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (!strcmp(mode, modes[i].name)) {
            *flags = (*flags & ~BDRV_O_CACHE_MASK) | modes[i].flags;
            *writethrough = modes[i].writethrough;
            return true;
        }
    }
    return false;
}
