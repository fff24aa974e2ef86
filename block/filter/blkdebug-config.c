/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rules in a file: sections of key = "value" lines. */
#include "block/filter/blkdebug.h"

/* Long enough for any list of rules; the file may be anything. */
enum { CONFIG_BYTES_MAX = 1 << 20 };

typedef struct Parser {
    QDict *options;
    json_t *section;            /* the rule being read; NULL: none yet */
    const char *name;
    unsigned line;
    Error **errp;
} Parser;

static bool parse_error(Parser *p, const char *what)
{
    error_setg(p->errp, "%s:%u: %s", p->name, p->line, what);
    return false;
}

/* "[section]" or "[section "id"]". */
static bool parse_section(Parser *p, const char *line)
{
    static const char *const sections[] = { "inject-error", "set-state", NULL };
    size_t len = strcspn(line + 1, " \t\"]");
    g_autofree char *section = g_strndup(line + 1, len);
    size_t total = strlen(line);

    if (line[total - 1] != ']') {
        return parse_error(p, "parse error");
    }
    if (!g_strv_contains(sections, section)) {
        error_setg(p->errp, "There is no option group '%s'", section);
        return false;
    }
    json_t *rules = json_object_get(p->options, section);
    if (!rules) {
        rules = json_array();
        json_object_set_new(p->options, section, rules);
    }
    p->section = json_object();
    json_array_append_new(rules, p->section);
    return true;
}

/* key = "value" */
static bool parse_setting(Parser *p, const char *line)
{
    size_t len = strcspn(line, " \t=");
    g_autofree char *key = g_strndup(line, len);

    line += len;
    line += strspn(line, " \t");
    if (!len || *line++ != '=') {
        return parse_error(p, "parse error");
    }
    line += strspn(line, " \t");
    size_t rest = strlen(line);
    if (rest < 2 || line[0] != '"' || strchr(line + 1, '"') != line + rest - 1) {
        return parse_error(p, "parse error");
    }
    g_autofree char *value = g_strndup(line + 1, rest - 2);
    qdict_put_str(p->section, key, value);
    return true;
}

static bool parse_line(Parser *p, char *line)
{
    g_strstrip(line);
    if (!*line || *line == '#') {
        return true;
    }
    if (*line == '[') {
        return parse_section(p, line);
    }
    if (!p->section) {
        error_setg(p->errp, "no group defined");
        return false;
    }
    return parse_setting(p, line);
}

QDict *blkdebug__parse_config(const char *text, const char *name, Error **errp)
{
    g_autoptr(json_t) options = qdict_new();
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    Parser p = { .options = options, .name = name, .errp = errp };

    for (char **line = lines; *line; line++) {
        p.line++;
        if (!parse_line(&p, *line)) {
            return NULL;
        }
    }
    return g_steal_pointer(&options);
}

/* Up to SIZE bytes; their number, or -errno. */
static ssize_t read_file(const char *path, char *buf, size_t size)
{
    /* a pipe that nobody writes to shall not hold up the main loop */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t done = 0;
    ssize_t n = 0;

    if (fd < 0) {
        return -errno;
    }
    while (done < size && (n = read(fd, buf + done, size - done)) != 0) {
        if (n < 0 && errno != EINTR) {
            break;
        }
        done += MAX(n, 0);
    }
    ssize_t ret = n < 0 ? -errno : (ssize_t)done;
    close(fd);
    return ret;
}

QDict *blkdebug__read_config(const char *path, Error **errp)
{
    g_autofree char *text = g_malloc(CONFIG_BYTES_MAX + 1);
    ssize_t n = read_file(path, text, CONFIG_BYTES_MAX);

    if (n == CONFIG_BYTES_MAX) {
        n = -EFBIG;
    }
    if (n < 0) {
        error_setg_errno(errp, -n, "Could not read blkdebug config file");
        return NULL;
    }
    text[n] = '\0';
    return blkdebug__parse_config(text, path, errp);
}
