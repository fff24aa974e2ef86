/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a message to its reply. The order of the checks decides which of several mistakes a
 * client is told about: message, negotiation, command, out-of-band, arguments.
 */
#include "miniblk/osdep.h"
#include "miniblk/main-loop.h"
#include "miniblk/timer.h"
#include "aio/port-note.h"
#include "qmp/dispatch.h"
#include "qmp/schema.h"

#define CAPS_COMMAND "qmp_capabilities"
#define CAPS_ARGS "{enable?:[{oob}]}"

static const QmpCommand *const tables[] = {
    qmp_commands_session, qmp_commands_object, qmp_commands_blockdev,
    qmp_commands_query_nodes, qmp_commands_export, qmp_commands_job, qmp_commands_block_job,
    qmp_commands_bitmap,
};

/* A message that has the form of a command. Points into the message. */
typedef struct Request {
    const char *command;
    json_t *args;               /* NULL: none */
    bool oob;
} Request;

void qmp_dispatch_init(void)
{
    schema_type(CAPS_ARGS);
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const QmpCommand *cmd = tables[i]; cmd->name; cmd++) {
            schema_type(cmd->args);
        }
    }
}

static const QmpCommand *find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const QmpCommand *cmd = tables[i]; cmd->name; cmd++) {
            if (!strcmp(cmd->name, name)) {
                return cmd;
            }
        }
    }
    return NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

json_t *qmp_list_commands(void)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    json_t *list = json_array();

    g_ptr_array_add(names, (void *)CAPS_COMMAND);
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const QmpCommand *cmd = tables[i]; cmd->name; cmd++) {
            g_ptr_array_add(names, (void *)cmd->name);
        }
    }
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++) {
        json_array_append_new(list, json_pack("{s:s}", "name",
                                              g_ptr_array_index(names, i)));
    }
    return list;
}

/* ---- the message ------------------------------------------------------------------ */

static bool take_command_name(Request *req, const char *key, const json_t *value,
                              Error **errp)
{
    if (!json_is_string(value)) {
        error_setg(errp, "QMP input member '%s' must be a string", key);
        return false;
    }
    if (req->command) {
        error_setg(errp, "QMP input member 'execute' clashes with 'exec-oob'");
        return false;
    }
    req->command = json_string_value(value);
    return true;
}

static bool parse_request(const json_t *msg, const QmpCaps *caps, Request *req,
                          Error **errp)
{
    const char *key;
    json_t *value;

    if (!json_is_object(msg)) {
        error_setg(errp, "QMP input must be a JSON object");
        return false;
    }
    json_object_foreach((json_t *)msg, key, value) {
        bool oob = caps->oob && !strcmp(key, "exec-oob");

        if (oob || !strcmp(key, "execute")) {
            if (!take_command_name(req, key, value, errp)) {
                return false;
            }
            req->oob = oob;
        } else if (!strcmp(key, "arguments")) {
            if (!json_is_object(value)) {
                error_setg(errp, "QMP input member 'arguments' must be an object");
                return false;
            }
            req->args = value;
        } else if (strcmp(key, "id")) {
            error_setg(errp, "QMP input member '%s' is unexpected", key);
            return false;
        }
    }
    if (!req->command) {
        error_setg(errp, "QMP input lacks member 'execute'");
        return false;
    }
    return true;
}

/* ---- the command ------------------------------------------------------------------ */

static json_t *check_args(const Request *req, const char *text, Error **errp)
{
    g_autoptr(json_t) none = json_object();

    return schema_convert(schema_type(text), req->args ?: none, "", SCHEMA_TYPED, errp);
}

static json_t *negotiate(const Request *req, QmpCaps *caps, Error **errp)
{
    g_autoptr(json_t) args = NULL;

    if (strcmp(req->command, CAPS_COMMAND)) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                  "Expecting capabilities negotiation with '" CAPS_COMMAND "'");
        return NULL;
    }
    if (req->oob) {
        error_setg(errp, "The command %s does not support OOB", req->command);
        return NULL;
    }
    args = check_args(req, CAPS_ARGS, errp);
    if (!args) {
        return NULL;
    }
    /* "oob" is the only capability there is. */
    caps->oob = json_array_size(json_object_get(args, "enable")) > 0;
    caps->negotiated = true;
    return json_object();
}

static json_t *run_command(const Request *req, Error **errp)
{
    const QmpCommand *cmd = find_command(req->command);
    g_autoptr(json_t) args = NULL;
    Error *local_err = NULL;
    json_t *ret;

    if (!cmd && !strcmp(req->command, CAPS_COMMAND)) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND, "Capabilities negotiation is "
                  "already complete, command ignored");
        return NULL;
    }
    if (!cmd) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                  "The command %s has not been found", req->command);
        return NULL;
    }
    if (req->oob) {
        error_setg(errp, "The command %s does not support OOB", req->command);
        return NULL;
    }
    args = check_args(req, cmd->args, errp);
    if (!args) {
        return NULL;
    }
    port_note(PORT_NOTE_COMMAND_BEGIN, NULL, "%s", cmd->name);
    ret = cmd->func(args, &local_err);
    port_note(PORT_NOTE_COMMAND_END, NULL, NULL);
    if (local_err) {
        g_assert(!ret);
        error_propagate(errp, local_err);
        return NULL;
    }
    return ret ?: json_object();
}

static json_t *execute(const JsonMessage *msg, QmpCaps *caps, Error **errp)
{
    Request req = { NULL };

    if (msg->error) {
        error_propagate(errp, error_copy(msg->error));
        return NULL;
    }
    if (!parse_request(msg->value, caps, &req, errp)) {
        return NULL;
    }
    return caps->negotiated ? run_command(&req, errp) : negotiate(&req, caps, errp);
}

/* ---- the reply -------------------------------------------------------------------- */

static const char *error_class_name(ErrorClass error_class)
{
    static const char *const names[] = {
        [ERROR_CLASS_GENERIC_ERROR] = "GenericError",
        [ERROR_CLASS_COMMAND_NOT_FOUND] = "CommandNotFound",
        [ERROR_CLASS_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
        [ERROR_CLASS_DEVICE_NOT_FOUND] = "DeviceNotFound",
        [ERROR_CLASS_KVM_MISSING_CAP] = "KVMMissingCap",
    };
    return names[error_class];
}

static void write_member(GString *out, const char *key, bool pretty)
{
    g_string_append(out, pretty ? "\n    \"" : "\"");
    g_string_append(out, key);
    g_string_append(out, "\": ");
}

static void write_end(GString *out, bool pretty)
{
    g_string_append(out, pretty ? "\n}\r\n" : "}\r\n");
}

/* Successes have the id last and errors have it first, as the peer's do. */
static void write_success(GString *out, const json_t *ret, const char *id_text, bool pretty)
{
    g_string_append_c(out, '{');
    write_member(out, "return", pretty);
    json_write(out, ret, pretty, 1);
    if (id_text) {
        g_string_append(out, pretty ? "," : ", ");
        write_member(out, "id", pretty);
        g_string_append(out, id_text);
    }
    write_end(out, pretty);
}

static void write_error(GString *out, const Error *err, const char *id_text, bool pretty)
{
    g_autoptr(json_t) body = json_object();

    qdict_put_str(body, "class", error_class_name(error_get_class(err)));
    qdict_put_str(body, "desc", error_get_pretty(err));
    g_string_append_c(out, '{');
    if (id_text) {
        write_member(out, "id", pretty);
        g_string_append(out, id_text);
        g_string_append(out, pretty ? "," : ", ");
    }
    write_member(out, "error", pretty);
    json_write(out, body, pretty, 1);
    write_end(out, pretty);
}

void qmp_dispatch(const JsonMessage *msg, QmpCaps *caps, bool pretty, GString *out)
{
    g_autoptr(Error) err = NULL;
    g_autoptr(json_t) ret = NULL;

    g_assert(qemu_in_main_thread());
    ret = execute(msg, caps, &err);
    g_assert(!ret == !!err);
    if (err) {
        write_error(out, err, msg->id_text, pretty);
    } else {
        write_success(out, ret, msg->id_text, pretty);
    }
}

/* ---- what comes without being asked for ------------------------------------------- */

/* The version of the protocol's original implementation whose commands ours match. */
json_t *qmp_version(void)
{
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "micro", 0, "minor", 2, "major", 8,
                     "package", "miniblk-" MINIBLK_VERSION);
}

static void write_line(GString *out, json_t *value, bool pretty)
{
    json_write(out, value, pretty, 0);
    g_string_append(out, "\r\n");
    json_decref(value);
}

void qmp_write_greeting(GString *out, bool pretty)
{
    write_line(out, json_pack("{s:{s:o, s:[s]}}", "QMP", "version", qmp_version(),
                              "capabilities", "oob"), pretty);
}

void qmp_write_event(GString *out, const char *name, const json_t *data, bool pretty)
{
    int64_t now_us = qemu_clock_get_us(QEMU_CLOCK_HOST);
    json_t *event = json_pack("{s:{s:I, s:I}, s:s}", "timestamp",
                              "seconds", (json_int_t)(now_us / 1000000),
                              "microseconds", (json_int_t)(now_us % 1000000),
                              "event", name);

    if (data) {
        json_object_set(event, "data", (json_t *)data);
    }
    write_line(out, event, pretty);
}
