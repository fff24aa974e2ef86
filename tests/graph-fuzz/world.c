/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the fuzzer knows of its disks, and what its operations are made of. */
#include "graph-fuzz.h"

Disk disk[DISKS];
AioContext *context[CONTEXTS];
IOThread *io[CONTEXTS];
GHashTable *held;        /* our references, by node */
GHashTable *chained;     /* nodes with one of these because they are in a chain */
GPtrArray *sections;     /* of BlockDriverState; one reference each, in HELD */
int drain_all_sections;
BlockDriverState *link_node[LINKS_MAX];
int operations, refusals, nested;
int depth;               /* of operations inside of waits */

/* ---- the story so far ------------------------------------------------------------------------ */

static char story[64][96];
static unsigned told;

void G_GNUC_PRINTF(1, 2) tell(const char *fmt, ...)
{
    va_list ap;
    char *line = story[told++ % ARRAY_SIZE(story)];
    int indent = snprintf(line, sizeof(story[0]), "%*s", depth * 2, "");

    va_start(ap, fmt);
    vsnprintf(line + indent, sizeof(story[0]) - indent, fmt, ap);
    va_end(ap);
}

/* A test that fails aborts: say what led there. */
void tell_the_story(int sig)
{
    unsigned first = told > ARRAY_SIZE(story) ? told - ARRAY_SIZE(story) : 0;
    for (unsigned i = first; i < told; i++) {
        fprintf(stderr, "# %s\n", story[i % ARRAY_SIZE(story)]);
    }
}

/* ---- random choices and references ----------------------------------------------------------- */

int below(int n)
{
    return g_test_rand_int_range(0, n);
}

bool one_in(int n)
{
    return below(n) == 0;
}

void hold(BlockDriverState *bs)
{
    int n = GPOINTER_TO_INT(g_hash_table_lookup(held, bs));
    g_hash_table_insert(held, bs, GINT_TO_POINTER(n + 1));
}

void take(BlockDriverState *bs)
{
    bdrv_ref(bs);
    hold(bs);
}

void drop(BlockDriverState *bs)
{
    int n = GPOINTER_TO_INT(g_hash_table_lookup(held, bs));

    g_assert_cmpint(n, >, 0);
    if (n > 1) {
        g_hash_table_insert(held, bs, GINT_TO_POINTER(n - 1));
    } else {
        g_hash_table_remove(held, bs);
    }
    bdrv_unref(bs);
}

BlockDriverState *new_node(BlockDriver *drv)
{
    BlockDriverState *bs = bdrv_new_open_driver(drv, NULL, BDRV_O_RDWR, &error_abort);
    hold(bs);
    return bs;
}

/* ---- chains ---------------------------------------------------------------------------------- */

BlockDriverState *top_of(Disk *d)
{
    return blk_bs(d->anchor);
}

BlockDriverState *store_of(Disk *d)
{
    BlockDriverState *bs = top_of(d);

    for (BlockDriverState *next = bs; next; next = bdrv_filter_or_cow_bs(bs)) {
        bs = next;
    }
    return bs;
}

int length_of(Disk *d)
{
    int n = 0;
    for (BlockDriverState *bs = top_of(d); bs; bs = bdrv_filter_or_cow_bs(bs)) {
        n++;
    }
    return n;
}

Disk *any_disk(void)
{
    return &disk[below(DISKS)];
}

/* A reference comes with it. */
BlockDriverState *any_node(Disk *d)
{
    BlockDriverState *bs = top_of(d);

    for (int i = below(length_of(d)); i > 0; i--) {
        bs = bdrv_filter_or_cow_bs(bs);
    }
    take(bs);
    return bs;
}

bool is_filter(BlockDriverState *bs)
{
    return bs->drv == &fuzz_filter || bs->drv == &fuzz_insert;
}

bool in_a_chain(BlockDriverState *bs)
{
    for (int i = 0; i < DISKS; i++) {
        for (BlockDriverState *n = top_of(&disk[i]); n; n = bdrv_filter_or_cow_bs(n)) {
            if (n == bs) {
                return true;
            }
        }
    }
    return false;
}

static gboolean is_out(gpointer bs, gpointer unused, gpointer dropped)
{
    if (in_a_chain(bs)) {
        return FALSE;
    }
    g_ptr_array_add(dropped, bs);
    return TRUE;
}

/* Nodes that were put into a chain keep our reference as long as they are there. */
void forget_what_is_out(void)
{
    g_autoptr(GPtrArray) dropped = g_ptr_array_new();

    g_hash_table_foreach_remove(chained, is_out, dropped);
    for (unsigned i = 0; i < dropped->len; i++) {
        drop(g_ptr_array_index(dropped, i));
    }
}

/* ---- waits, and what was refused --------------------------------------------------------------- */

bool nested_pending;     /* an operation waits for the next wait */

/*
 * For what would not do what it means if nodes came in between: the next operation's waits
 * are without surprises.
 */
void no_surprises(void)
{
    while (nested_pending) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

/* What was refused must have said why. Forgets the error. */
bool done(int ret, Error **err)
{
    g_assert_true((ret < 0) == (*err != NULL));
    if (ret < 0) {
        tell("    refused: %.70s", error_get_pretty(*err));
        error_free_or_abort(err);
        refusals++;
    }
    return ret >= 0;
}
