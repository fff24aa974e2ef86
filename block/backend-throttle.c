/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A BlockBackend as a member of a throttle group. */
#include "block/backend-internal.h"

BlockBackendPublic *blk_get_public(BlockBackend *blk)
{
    return &blk->public;
}

BlockBackend *blk_by_public(BlockBackendPublic *public)
{
    return container_of(public, BlockBackend, public);
}

void blk_set_io_limits(BlockBackend *blk, ThrottleConfig *cfg)
{
    throttle_group_config(&blk->public.throttle_group_member, cfg);
}

/* No request is between its look at the group and its end while that changes. */
static void begin_change(BlockBackend *blk)
{
    blk__begin_section(blk);
    AIO_WAIT_WHILE(blk_get_aio_context(blk), blk__section_poll(blk));
}

void blk_io_limits_enable(BlockBackend *blk, const char *group)
{
    GLOBAL_STATE_CODE();
    begin_change(blk);
    throttle_group_register_tgm(&blk->public.throttle_group_member, group,
                                blk_get_aio_context(blk));
    blk__end_section(blk);
}

void blk_io_limits_disable(BlockBackend *blk)
{
    GLOBAL_STATE_CODE();
    begin_change(blk);
    throttle_group_unregister_tgm(&blk->public.throttle_group_member);
    blk__end_section(blk);
}

void blk_io_limits_update_group(BlockBackend *blk, const char *group)
{
    ThrottleGroupMember *tgm = &blk->public.throttle_group_member;

    GLOBAL_STATE_CODE();
    if (!tgm->throttle_state || !strcmp(throttle_group_get_name(tgm), group)) {
        return;
    }
    begin_change(blk);
    throttle_group_unregister_tgm(tgm);
    throttle_group_register_tgm(tgm, group, blk_get_aio_context(blk));
    blk__end_section(blk);
}
