/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hooks by which engines hand over what one iteration has queued. Home thread only. */
#include "aio/aio-internal.h"

void aio_batch_arm(AioContext *ctx, AioBatchHook *hook)
{
    if (!hook->armed) {
        hook->armed = true;
        hook->next = ctx->batch_hooks;
        ctx->batch_hooks = hook;
    }
}

void aio__batch_disarm(AioContext *ctx, AioBatchHook *hook)
{
    if (hook->armed) {
        AioBatchHook **p = &ctx->batch_hooks;
        while (*p != hook) {
            p = &(*p)->next;
        }
        *p = hook->next;
        hook->armed = false;
    }
}

void aio__batch_flush(AioContext *ctx)
{
    while (unlikely(ctx->batch_hooks)) {
        AioBatchHook *hook = ctx->batch_hooks;
        ctx->batch_hooks = hook->next;
        hook->armed = false;
        hook->flush(hook);
    }
}
