/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of the command line that stand for commands, with the same schema. */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"
#include "qmp/json.h"
#include "qmp/qmp.h"
#include "qmp/schema.h"

typedef struct OptionKind {
    const char *name;
    const char *implied_key;    /* of a first part without "="; may be NULL */
    const char *args;           /* see schema.h */
    bool (*func)(QDict *args, Error **errp);
} OptionKind;

static const OptionKind kinds[] = {
    { "blockdev", "driver", "BlockdevOptions", qmp_blockdev_add },
    { "chardev", "backend", "any", chardev_add },
    { "export", "type", "BlockExportOptions", qmp_block_export_add },
    { "monitor", "chardev", "{chardev:str, mode?:{control}, pretty?:bool}", monitor_add },
    { "nbd-server", NULL, "NbdServerOptions", qmp_nbd_server_start },
    { "object", "qom-type", "ObjectOptions", qmp_object_add },
};

static const OptionKind *find_kind(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (!strcmp(kinds[i].name, name)) {
            return &kinds[i];
        }
    }
    g_assert_not_reached();
}

bool qmp_command_line_option(const char *name, const char *arg, Error **errp)
{
    const OptionKind *kind = find_kind(name);
    bool is_json = arg[0] == '{';
    g_autoptr(json_t) given = is_json ? json_parse_text(arg, errp)
                                      : keyval_parse(arg, kind->implied_key, errp);
    g_autoptr(json_t) args = NULL;

    if (!given) {
        return false;
    }
    args = schema_convert(schema_type(kind->args), given, "",
                          is_json ? SCHEMA_TYPED : SCHEMA_KEYVAL, errp);
    return args && kind->func(args, errp);
}

/* ---- help ------------------------------------------------------------------------- */

static void list_drivers(GString *out)
{
    g_string_append(out, "List of block drivers:\n");
    for (BlockDriver *drv = bdrv_next_driver(NULL); drv; drv = bdrv_next_driver(drv)) {
        g_string_append_printf(out, "  %s\n", drv->format_name);
    }
}

char *qmp_command_line_help(const char *name, const char *arg)
{
    bool wanted = !strcmp(arg, "help") || !strcmp(arg, "?") || g_str_has_suffix(arg, ",help");
    GString *out;

    if (!wanted) {
        return NULL;
    }
    out = g_string_new(NULL);
    if (!strcmp(name, "blockdev")) {
        list_drivers(out);
    } else if (!strcmp(name, "object")) {
        qmp_object_help(out);
    } else if (!strcmp(name, "export")) {
        g_string_append(out, "List of export types:\n"
                        "  nbd,id=ID,node-name=NODE[,name=NAME][,description=TEXT]\n"
                        "      [,writable=on|off][,writethrough=on|off][,iothread=ID]\n"
                        "      [,fixed-iothread=on|off][,allocation-depth=on|off]\n");
    } else if (!strcmp(name, "chardev")) {
        g_string_append(out, "Available chardev backend types:\n"
                        "  socket,id=ID,path=PATH[,server=on|off][,wait=on|off]\n"
                        "  socket,id=ID,host=HOST,port=PORT[,server=on|off][,wait=on|off]\n"
                        "  socket,id=ID,fd=N[,server=on|off][,wait=on|off]\n"
                        "  fd,id=ID,fd=N\n"
                        "  stdio,id=ID\n");
    } else if (!strcmp(name, "monitor")) {
        g_string_append(out, "[chardev=]ID[,mode=control][,pretty=on|off]\n");
    } else {
        g_string_append(out, "addr.type=unix,addr.path=PATH\n"
                        "addr.type=inet,addr.host=HOST,addr.port=PORT\n"
                        "  [,max-connections=N][,handshake-max-seconds=N]\n");
    }
    return g_string_free(out, false);
}
