/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A list of steps that have been prepared and are then all committed (in order) or all
 * aborted (in reverse). Neither commit nor abort can fail; neither may poll. Main thread.
 */
#ifndef MINIBLK_TRANSACTION_H
#define MINIBLK_TRANSACTION_H

typedef struct Transaction Transaction;
typedef struct TransactionActionDrv {
    void (*commit)(void *opaque);   /* Optional */
    void (*abort)(void *opaque);    /* Optional */
    void (*clean)(void *opaque);    /* Optional; after all commits or aborts */
} TransactionActionDrv;

Transaction *tran_new(void);
void tran_add(Transaction *tran, const TransactionActionDrv *drv, void *opaque);
void tran_commit(Transaction *tran);
void tran_abort(Transaction *tran);
/* Commit when RET >= 0, else abort. */
static inline void tran_finalize(Transaction *tran, int ret)
{
    if (ret < 0) {
        tran_abort(tran);
    } else {
        tran_commit(tran);
    }
}

#endif
