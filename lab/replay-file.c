/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "lab/replay.h"

static const char magic[] = "miniblk-lab replay file 1";

static const char *const choice_names[] = {
    [LAB_CHOICE_AGENT] = "agent",
    [LAB_CHOICE_WAITER] = "waiter",
    [LAB_CHOICE_READY] = "ready",
    [LAB_CHOICE_SPURIOUS] = "spurious",
    [LAB_CHOICE_FAULT] = "fault",
    [LAB_CHOICE_VALUE] = "value",
};

static bool parse_choice_kind(const char *name, LabChoiceKind *kind)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(choice_names); i++) {
        if (strcmp(choice_names[i], name) == 0) {
            *kind = i;
            return true;
        }
    }
    return false;
}

static bool parse_verdict(const char *name, LabVerdict *verdict)
{
    for (unsigned i = 0; i <= LAB_DIVERGED; i++) {
        if (strcmp(lab_verdict_name(i), name) == 0) {
            *verdict = i;
            return true;
        }
    }
    return false;
}

/* ---- saving ---------------------------------------------------------------------------- */

static void format_deviation(GString *out, const LabDeviation *d)
{
    char agent[LAB_AGENT_NAME_MAX];

    g_string_append_printf(out, "deviation T%u %u %u %s %u/%u", d->thread, d->op, d->turn,
                           choice_names[d->kind], d->option, d->n);
    if (d->kind == LAB_CHOICE_AGENT) {
        g_string_append_printf(out, " %s %08x", lab_agent_format(d->agent, agent), d->set);
    }
    g_string_append_c(out, '\n');
}

int lab_replay_save(const char *filename, const LabReplayFile *file, char **problem)
{
    g_autoptr(GString) out = g_string_new(NULL);
    g_autofree char *seed = lab_seed_format(&file->seed);
    g_autofree char *program = lab_quote(file->program);
    int first_line = strcspn(file->message, "\n");
    FILE *stream;
    int ret = 0;

    g_string_append_printf(out, "%s\nseed %s\nprogram %s\nverdict %s\nmessage %.*s\n", magic,
                           seed, program, lab_verdict_name(file->verdict), first_line,
                           file->message);
    for (uint32_t i = 0; i < file->list->count; i++) {
        format_deviation(out, &file->list->items[i]);
    }
    g_string_append(out, "end\n");

    stream = fopen(filename, "we");
    if (!stream || fwrite(out->str, 1, out->len, stream) != out->len) {
        ret = -errno;
    }
    if (stream && fclose(stream) != 0 && ret == 0) {
        ret = -errno;
    }
    if (ret < 0) {
        *problem = g_strdup_printf("cannot write '%s': %s", filename, strerror(-ret));
    }
    return ret;
}

/* ---- loading --------------------------------------------------------------------------- */

static bool parse_u32(const char *text, uint32_t *value)
{
    guint64 number;

    if (!g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX, &number, NULL)) {
        return false;
    }
    *value = number;
    return true;
}

static bool parse_option(const char *text, LabDeviation *d)
{
    g_auto(GStrv) parts = g_strsplit(text, "/", 2);

    return g_strv_length(parts) == 2 && parse_u32(parts[0], &d->option)
           && parse_u32(parts[1], &d->n) && d->n >= 2 && d->n <= LAB_OPTIONS_MAX
           && d->option >= 1 && d->option < d->n;
}

static bool parse_deviation(const char *text, LabDeviation *d)
{
    g_auto(GStrv) words = g_strsplit(text, " ", -1);
    unsigned n = g_strv_length(words);

    memset(d, 0, sizeof(*d));
    if (n < 5 || words[0][0] != 'T' || !parse_u32(words[0] + 1, &d->thread)
        || !parse_u32(words[1], &d->op) || !parse_u32(words[2], &d->turn)
        || d->thread >= LAB_THREADS_MAX || d->turn > UINT16_MAX
        || !parse_choice_kind(words[3], &d->kind) || !parse_option(words[4], d)) {
        return false;
    }
    if (d->kind != LAB_CHOICE_AGENT) {
        return n == 5;
    }
    if (n == 7) {
        char *end;

        d->set = strtoul(words[6], &end, 16);
        return isxdigit((unsigned char)words[6][0]) && *end == '\0'
               && lab_agent_parse(words[5], &d->agent);
    }
    return false;
}

/* One place cannot be left in two ways. */
static bool is_new_place(const LabDeviations *list)
{
    const LabDeviation *d = &list->items[list->count - 1];

    for (uint32_t i = 0; i + 1 < list->count; i++) {
        const LabDeviation *other = &list->items[i];

        if (d->thread == other->thread && d->op == other->op && d->turn == other->turn) {
            return false;
        }
    }
    return true;
}

static const char *parse_next_deviation(LabDeviations *list, const char *text)
{
    if (list->count == LAB_DEVIATIONS_MAX) {
        return "too many deviations";
    }
    if (!parse_deviation(text, &list->items[list->count++])) {
        return "bad deviation";
    }
    return is_new_place(list) ? NULL : "a second deviation at the same place";
}

/* What is wrong with LINE, or NULL. */
static const char *parse_line(LabReplayFile *file, const char *line)
{
    if (g_str_has_prefix(line, "seed ") && !file->seed.path) {
        return lab_seed_parse(line + strlen("seed "), &file->seed);
    }
    if (g_str_has_prefix(line, "program ") && !file->program) {
        file->program = lab_unquote(line + strlen("program "));
        return file->program ? NULL : "the name ends in a backslash";
    }
    if (g_str_has_prefix(line, "verdict ")) {
        return parse_verdict(line + strlen("verdict "), &file->verdict) ? NULL
               : "no such verdict";
    }
    if (g_str_has_prefix(line, "message ") && !file->message) {
        file->message = g_strdup(line + strlen("message "));
        return NULL;
    }
    if (g_str_has_prefix(line, "deviation ")) {
        return parse_next_deviation(file->list, line + strlen("deviation "));
    }
    return "not understood";
}

static char *parse_file(LabReplayFile *file, const char *filename, char *text)
{
    bool ended = false;
    unsigned number = 1;
    char *line, *rest = text;

    line = strsep(&rest, "\n");
    if (strcmp(line, magic) != 0) {
        return g_strdup_printf("'%s' is not a replay file", filename);
    }
    while (!ended && (line = strsep(&rest, "\n"))) {
        const char *wrong;

        if (*line == '\0' && !rest) {
            break;              /* after the last newline */
        }
        number++;
        ended = strcmp(line, "end") == 0;
        wrong = ended ? NULL : parse_line(file, line);
        if (wrong) {
            return g_strdup_printf("'%s' line %u: %s", filename, number, wrong);
        }
    }
    if (!ended || !file->seed.path || !file->program || file->verdict == LAB_OK) {
        return g_strdup_printf("'%s' is not complete", filename);
    }
    return NULL;
}

bool lab_replay_load(const char *filename, LabReplayFile *file, char **problem)
{
    g_autofree char *text = lab_replay_read(filename, problem);

    memset(file, 0, sizeof(*file));
    if (!text) {
        return false;
    }
    file->list = g_new0(LabDeviations, 1);
    *problem = parse_file(file, filename, text);
    if (*problem) {
        lab_replay_clear(file);
        return false;
    }
    if (!file->message) {
        file->message = g_strdup("");
    }
    return true;
}

void lab_replay_clear(LabReplayFile *file)
{
    lab_seed_clear(&file->seed);
    g_clear_pointer(&file->program, g_free);
    g_clear_pointer(&file->message, g_free);
    g_clear_pointer(&file->list, g_free);
}
