/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "lab/names.h"

#include <elf.h>
#include <link.h>

const char *lab_agent_format(LabAgent agent, char buffer[static LAB_AGENT_NAME_MAX])
{
    switch (agent.kind) {
    case LAB_AGENT_THREAD:
        snprintf(buffer, LAB_AGENT_NAME_MAX, "T%u", agent.number);
        break;
    case LAB_AGENT_FLUSH:
        snprintf(buffer, LAB_AGENT_NAME_MAX, "flush:T%u", agent.number);
        break;
    case LAB_AGENT_DISK:
        snprintf(buffer, LAB_AGENT_NAME_MAX, "disk:T%u.%u", agent.number >> 16,
                 agent.number & 0xffff);
        break;
    case LAB_AGENT_CLOCK:
        snprintf(buffer, LAB_AGENT_NAME_MAX, "clock");
        break;
    }
    return buffer;
}

/* A decimal number <= MAX from *TEXT, which moves past it. */
static bool parse_number(const char **text, uint64_t max, uint64_t *value)
{
    char *end;

    if (!isdigit((unsigned char)**text)) {
        return false;
    }
    errno = 0;
    *value = strtoull(*text, &end, 10);
    *text = end;
    return errno == 0 && *value <= max;
}

bool lab_agent_parse(const char *text, LabAgent *agent)
{
    uint64_t number = 0, request = 0;

    if (strcmp(text, "clock") == 0) {
        *agent = (LabAgent) { LAB_AGENT_CLOCK, 0 };
        return true;
    }
    agent->kind = LAB_AGENT_THREAD;
    if (g_str_has_prefix(text, "flush:")) {
        agent->kind = LAB_AGENT_FLUSH;
        text += strlen("flush:");
    } else if (g_str_has_prefix(text, "disk:")) {
        agent->kind = LAB_AGENT_DISK;
        text += strlen("disk:");
    }
    if (*text++ != 'T' || !parse_number(&text, 0xffff, &number)) {
        return false;
    }
    if (agent->kind == LAB_AGENT_DISK) {
        if (*text++ != '.' || !parse_number(&text, 0xffff, &request)) {
            return false;
        }
        number = number << 16 | request;
    }
    agent->number = number;
    return *text == '\0';
}

char *lab_quote(const char *text)
{
    char plain[0x100 - 0x80 + 2] = { '"' };     /* not only ASCII is left as it is */

    for (unsigned i = 1; i < sizeof(plain) - 1; i++) {
        plain[i] = 0x80 + i - 1;
    }
    return g_strescape(text, plain);
}

char *lab_unquote(const char *text)
{
    size_t end = strlen(text), last = end;

    while (last > 0 && text[last - 1] == '\\') {
        last--;
    }
    return (end - last) % 2 ? NULL : g_strcompress(text);
}

/* ---- seed lines ------------------------------------------------------------------------ */

#define SECTOR_WORD "sector="

enum { SEED_FIELDS = 8 };       /* the second one, the path, may have colons of its own */

static bool has_horizon(LabStrategyKind kind)
{
    return kind == LAB_STRATEGY_PCT || kind == LAB_STRATEGY_FEW;
}

static void format_plan(GString *out, const LabPlan *plan)
{
    g_string_append_printf(out, "%s:%u", lab_strategy_name(plan->kind), plan->depth);
    if (has_horizon(plan->kind)) {
        g_string_append_printf(out, ",%" PRIu64, plan->horizon);
    }
}

static void format_seed(GString *out, const LabPlan *plan)
{
    if (plan->kind == LAB_STRATEGY_REPLAY
        || (plan->kind == LAB_STRATEGY_BOUND && plan->depth == 0)) {
        g_string_append_c(out, '-');
    } else if (plan->kind == LAB_STRATEGY_BOUND) {
        for (unsigned i = 0; i < plan->depth; i++) {
            g_string_append_printf(out, "%s%" PRIu64, i ? "." : "", plan->skip[i]);
        }
    } else {
        g_string_append_printf(out, "%" PRIx64, plan->seed);
    }
}

char *lab_seed_format(const LabSeed *seed)
{
    GString *out = g_string_new(NULL);
    g_autofree char *path = lab_quote(seed->path);

    g_string_append_printf(out, "LAB1:%s:", path);
    format_plan(out, &seed->plan);
    g_string_append_printf(out, ":%s:%s%s%s%s", seed->limits.tso ? "tso" : "sc",
                           seed->limits.clock ? "agent" : "last",
                           seed->limits.spurious ? "+spurious" : "",
                           seed->limits.faults ? "+faults" : "",
                           seed->limits.torn ? "+torn" : "");
    if (seed->limits.logical_sector) {
        g_string_append_printf(out, "+sector=%u/%u", seed->limits.logical_sector,
                               seed->limits.physical_sector);
    }
    g_string_append_c(out, ':');
    format_seed(out, &seed->plan);
    g_string_append_printf(out, ":%s", seed->build_id);
    return g_string_free(out, FALSE);
}

static bool parse_depth(const char *text, LabPlan *plan)
{
    uint64_t depth;

    if (!parse_number(&text, LAB_DEPTH_MAX, &depth)) {
        return false;
    }
    plan->depth = depth;
    if (has_horizon(plan->kind)) {
        return *text++ == ',' && parse_number(&text, UINT32_MAX, &plan->horizon)
               && *text == '\0';
    }
    return *text == '\0';
}

static bool parse_skips(const char *text, LabPlan *plan)
{
    for (unsigned i = 0; i < plan->depth; i++) {
        if ((i > 0 && *text++ != '.')
            || !parse_number(&text, UINT64_MAX / 2, &plan->skip[i])) {
            return false;
        }
    }
    return *text == '\0' || (plan->depth == 0 && strcmp(text, "-") == 0);
}

static bool parse_seed(const char *text, LabPlan *plan)
{
    char *end;

    if (plan->kind == LAB_STRATEGY_REPLAY) {
        return strcmp(text, "-") == 0;
    }
    if (plan->kind == LAB_STRATEGY_BOUND) {
        return parse_skips(text, plan);
    }
    errno = 0;
    plan->seed = strtoull(text, &end, 16);
    return isxdigit((unsigned char)*text) && *end == '\0' && errno == 0;
}

bool lab_sectors_parse(const char *text, LabLimits *limits)
{
    enum { MIN_BYTES = 512, MAX_BYTES = 4096 };
    uint64_t logical, physical;

    if (!parse_number(&text, MAX_BYTES, &logical)) {
        return false;
    }
    physical = logical;
    if (*text == '/' && (text++, !parse_number(&text, MAX_BYTES, &physical))) {
        return false;
    }
    if (*text || logical < MIN_BYTES || physical < logical || (logical & (logical - 1)) ||
        (physical & (physical - 1))) {
        return false;
    }
    limits->logical_sector = logical;
    limits->physical_sector = physical;
    return true;
}

static bool parse_clock(const char *text, LabLimits *limits)
{
    g_auto(GStrv) words = g_strsplit(text, "+", -1);

    if (!words[0] || (strcmp(words[0], "last") && strcmp(words[0], "agent"))) {
        return false;
    }
    limits->clock = strcmp(words[0], "agent") == 0;
    for (unsigned i = 1; words[i]; i++) {
        if (strcmp(words[i], "spurious") == 0) {
            limits->spurious = true;
        } else if (strcmp(words[i], "faults") == 0) {
            limits->faults = true;
        } else if (strcmp(words[i], "torn") == 0) {
            limits->torn = true;
        } else if (!g_str_has_prefix(words[i], SECTOR_WORD) ||
                   !lab_sectors_parse(words[i] + strlen(SECTOR_WORD), limits)) {
            return false;
        }
    }
    return true;
}

const char *lab_seed_parse(const char *line, LabSeed *seed)
{
    g_auto(GStrv) fields = g_strsplit(line, ":", -1);
    g_autofree char *path = NULL;
    unsigned n = g_strv_length(fields);
    char **last;

    memset(seed, 0, sizeof(*seed));
    if (n < SEED_FIELDS || strcmp(fields[0], "LAB1") != 0) {
        return "not of the form LAB1:test:strategy:d:tso:clock:seed:build-id";
    }
    last = &fields[n - (SEED_FIELDS - 2)];      /* strategy and what follows */
    if (!lab_strategy_parse(last[0], &seed->plan.kind)
        || seed->plan.kind == LAB_STRATEGY_PORTFOLIO) {
        return "no such strategy";
    }
    if (!parse_depth(last[1], &seed->plan)) {
        return "bad depth";
    }
    if (strcmp(last[2], "tso") != 0 && strcmp(last[2], "sc") != 0) {
        return "the memory model is neither tso nor sc";
    }
    seed->limits.tso = strcmp(last[2], "tso") == 0;
    if (!parse_clock(last[3], &seed->limits)) {
        return "bad clock";
    }
    if (!parse_seed(last[4], &seed->plan)) {
        return "bad seed";
    }
    seed->build_id = g_strdup(last[5]);
    g_clear_pointer(&last[0], g_free);          /* ends the vector after the path */
    for (unsigned i = 1; i < SEED_FIELDS - 2; i++) {
        g_clear_pointer(&last[i], g_free);
    }
    path = g_strjoinv(":", &fields[1]);
    seed->path = lab_unquote(path);
    return seed->path ? NULL : "the test's name ends in a backslash";
}

void lab_seed_clear(LabSeed *seed)
{
    g_clear_pointer(&seed->path, g_free);
    g_clear_pointer(&seed->build_id, g_free);
}

/* ---- build id -------------------------------------------------------------------------- */

enum { BUILD_ID_BYTES_MAX = 20 };

typedef struct BuildId {
    char text[2 * BUILD_ID_BYTES_MAX + 1];
} BuildId;

static void read_notes(const char *at, const char *end, BuildId *id)
{
    while (end - at >= (ptrdiff_t)sizeof(ElfW(Nhdr))) {
        const ElfW(Nhdr) *note = (const void *)at;
        const unsigned char *bytes = (const void *)(at + sizeof(*note)
                                                    + ROUND_UP(note->n_namesz, 4));

        if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == sizeof("GNU")
            && memcmp(note + 1, "GNU", sizeof("GNU")) == 0) {
            for (unsigned i = 0; i < MIN(note->n_descsz, BUILD_ID_BYTES_MAX); i++) {
                snprintf(id->text + 2 * i, 3, "%02x", bytes[i]);
            }
            return;
        }
        at = (const char *)bytes + ROUND_UP(note->n_descsz, 4);
    }
}

/* The first object is the program itself. */
static int read_program(struct dl_phdr_info *info, size_t size, void *opaque)
{
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

        if (segment->p_type == PT_NOTE) {
            const char *at = (const char *)(info->dlpi_addr + segment->p_vaddr);

            read_notes(at, at + segment->p_memsz, opaque);
        }
    }
    return 1;
}

const char *lab_build_id(void)
{
    static BuildId id;

    if (!id.text[0]) {
        dl_iterate_phdr(read_program, &id);
    }
    return id.text[0] ? id.text : "unknown";
}
