/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands about the session and the program; starting and ending it all. */
#include "miniblk/osdep.h"
#include "miniblk/export.h"
#include "qmp/chardev.h"
#include "qmp/dispatch.h"
#include "qmp/qmp.h"
#include "qmp/session.h"

static json_t *cmd_query_version(json_t *args, Error **errp)
{
    return qmp_version();
}

static json_t *cmd_query_commands(json_t *args, Error **errp)
{
    return qmp_list_commands();
}

static json_t *cmd_quit(json_t *args, Error **errp)
{
    qmp_request_quit();
    return NULL;
}

const QmpCommand qmp_commands_session[] = {
    { "query-version", "{}", cmd_query_version },
    { "query-commands", "{}", cmd_query_commands },
    { "quit", "{}", cmd_quit },
    { NULL }
};

static void export_deleted(const char *id)
{
    qmp_send_event("BLOCK_EXPORT_DELETED", json_pack("{s:s}", "id", id));
}

void qmp_init(void)
{
    /* Otherwise done by whichever thread makes the first object. */
    json_object_seed(0);
    qmp_dispatch_init();
    monitor__init();
    blk_exp_set_deleted_callback(export_deleted);
    qmp_listen_to_jobs(true);
    qmp_listen_to_write_thresholds(true);
}

void qmp_cleanup(void)
{
    blk_exp_set_deleted_callback(NULL);
    qmp_listen_to_jobs(false);
    qmp_listen_to_write_thresholds(false);
    monitor__cleanup();
    chardev_cleanup_all();
}
