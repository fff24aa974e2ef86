/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "miniblk/queue.h"
#include "miniblk/transaction.h"

typedef struct TransactionAction {
    const TransactionActionDrv *drv;
    void *opaque;
} TransactionAction;

struct Transaction {
    GArray *actions;            /* of TransactionAction, in the order of adding */
};

Transaction *tran_new(void)
{
    Transaction *tran = g_new(Transaction, 1);
    tran->actions = g_array_new(false, false, sizeof(TransactionAction));
    return tran;
}

void tran_add(Transaction *tran, const TransactionActionDrv *drv, void *opaque)
{
    TransactionAction action = { drv, opaque };
    g_array_append_val(tran->actions, action);
}

static TransactionAction *action_at(Transaction *tran, unsigned i)
{
    return &g_array_index(tran->actions, TransactionAction, i);
}

static void clean_and_free(Transaction *tran)
{
    for (unsigned i = 0; i < tran->actions->len; i++) {
        TransactionAction *a = action_at(tran, i);
        if (a->drv->clean) {
            a->drv->clean(a->opaque);
        }
    }
    g_array_free(tran->actions, true);
    g_free(tran);
}

void tran_commit(Transaction *tran)
{
    for (unsigned i = 0; i < tran->actions->len; i++) {
        TransactionAction *a = action_at(tran, i);
        if (a->drv->commit) {
            a->drv->commit(a->opaque);
        }
    }
    clean_and_free(tran);
}

void tran_abort(Transaction *tran)
{
    for (unsigned i = tran->actions->len; i-- > 0; ) {
        TransactionAction *a = action_at(tran, i);
        if (a->drv->abort) {
            a->drv->abort(a->opaque);
        }
    }
    clean_and_free(tran);
}
