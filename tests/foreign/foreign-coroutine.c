/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines and their locks in a program without any event loop. */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "qemu/coroutine.h"
#include "qemu/coroutine_int.h"
#include "qemu/lockable.h"

static GString *events;         /* what has happened, in order */

static void happened(char what)
{
    g_string_append_c(events, what);
}

static void check_events(const char *expected)
{
    g_assert_cmpstr(events->str, ==, expected);
    g_string_truncate(events, 0);
}

/* The marker may stand before and after the type. */
static void coroutine_fn marked_after(void *opaque) { happened('a'); }
static coroutine_fn void marked_before(void *opaque) { happened('b'); }
static int no_coroutine_fn marked_not(void) { return 7; }

static void test_markers(void)
{
    g_assert_cmpint(marked_not(), ==, 7);
    qemu_coroutine_enter(qemu_coroutine_create(marked_after, NULL));
    qemu_coroutine_enter(qemu_coroutine_create(marked_before, NULL));
    check_events("ab");
}

/* ---- core ---------------------------------------------------------------------------------- */

static void coroutine_fn two_steps(void *opaque)
{
    g_assert_true(qemu_in_coroutine());
    g_assert_true(qemu_coroutine_self() == *(Coroutine **)opaque);
    g_assert_true(qemu_coroutine_entered(qemu_coroutine_self()));
    happened('1');
    qemu_coroutine_yield();
    happened('2');
}

static void test_enter_and_yield(void)
{
    Coroutine *co = qemu_coroutine_create(two_steps, &co);
    Coroutine *leader = qemu_coroutine_self();
    g_assert_false(qemu_in_coroutine());
    g_assert_false(qemu_coroutine_entered(co));
    qemu_coroutine_enter(co);
    g_assert_false(qemu_coroutine_entered(co));
    happened('-');
    qemu_coroutine_enter(co);
    check_events("1-2");
    g_assert_true(qemu_coroutine_self() == leader);
}

typedef struct Nest { int depth, deepest; Coroutine *outer; } Nest;

static void coroutine_fn nest_fn(void *opaque)
{
    Nest *n = opaque;
    if (n->outer) {
        g_assert_true(qemu_coroutine_entered(n->outer));    /* it has entered us */
    }
    if (++n->depth < n->deepest) {
        n->outer = qemu_coroutine_self();
        qemu_coroutine_enter(qemu_coroutine_create(nest_fn, n));
    }
}

static void test_nested_enters(void)
{
    Nest n = { .deepest = 200 };
    qemu_coroutine_enter(qemu_coroutine_create(nest_fn, &n));
    g_assert_cmpint(n.depth, ==, 200);
}

static void coroutine_fn nothing(void *opaque)
{
}

typedef struct Spoil { Coroutine *victim, saved; } Spoil;

static void coroutine_fn enter_and_spoil(void *opaque)
{
    Spoil *s = opaque;
    qemu_coroutine_enter(s->victim);
    /* It has finished, and lies in the pool. Whoever looks at it now would crash. */
    s->saved = *s->victim;
    memset(s->victim, 0xff, sizeof(*s->victim));
    qemu_coroutine_yield();
}

static void test_finished_stays_mapped_and_is_not_touched(void)
{
    if (!IS_ENABLED(CONFIG_COROUTINE_POOL)) {
        g_test_skip("without the pool its memory is gone");
        return;
    }
    Spoil s = { .victim = qemu_coroutine_create(nothing, NULL) };
    Coroutine *co = qemu_coroutine_create(enter_and_spoil, &s);
    qemu_coroutine_enter(co);
    qemu_coroutine_enter(co);
    *s.victim = s.saved;
    for (int i = 0; i < 3; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(nothing, NULL));
    }
}

static void test_pool_reuses(void)
{
    Coroutine *first = qemu_coroutine_create(nothing, NULL);
    qemu_coroutine_enter(first);
    bool again = false;
    for (int i = 0; i < 1000 && !again; i++) {
        Coroutine *co = qemu_coroutine_create(nothing, NULL);
        again = co == first;
        qemu_coroutine_enter(co);
    }
    g_assert_true(again);
}

/* ---- locks --------------------------------------------------------------------------------- */

typedef struct Locker {
    CoMutex *mutex;
    CoRwlock *rw;
    char name;
} Locker;

static void coroutine_fn mutex_user(void *opaque)
{
    Locker *l = opaque;
    qemu_co_mutex_lock(l->mutex);
    happened(l->name);
    qemu_coroutine_yield();
    happened(l->name);
    qemu_co_mutex_unlock(l->mutex);
    happened(g_ascii_toupper(l->name));
}

/* The next one runs when the unlocker ends or yields, not inside the unlock. */
static void test_mutex_is_handed_over(void)
{
    CoMutex mutex;
    qemu_co_mutex_init(&mutex);
    Locker l[3] = { { .name = 'a' }, { .name = 'b' }, { .name = 'c' } };
    Coroutine *co[3];
    for (int i = 0; i < 3; i++) {
        l[i].mutex = &mutex;
        co[i] = qemu_coroutine_create(mutex_user, &l[i]);
        qemu_coroutine_enter(co[i]);
    }
    check_events("a");
    qemu_coroutine_enter(co[0]);
    check_events("aAb");
    qemu_coroutine_enter(co[1]);
    check_events("bBc");
    qemu_coroutine_enter(co[2]);
    check_events("cC");
}

static void coroutine_fn rw_reader(void *opaque)
{
    Locker *l = opaque;
    qemu_co_rwlock_rdlock(l->rw);
    happened(l->name);
    qemu_coroutine_yield();
    qemu_co_rwlock_unlock(l->rw);
    happened(g_ascii_toupper(l->name));
}

static void coroutine_fn rw_writer(void *opaque)
{
    Locker *l = opaque;
    qemu_co_rwlock_wrlock(l->rw);
    happened(l->name);
    qemu_coroutine_yield();
    qemu_co_rwlock_unlock(l->rw);
    happened(g_ascii_toupper(l->name));
}

static void coroutine_fn rw_upgrader(void *opaque)
{
    Locker *l = opaque;
    qemu_co_rwlock_rdlock(l->rw);
    happened(l->name);
    qemu_coroutine_yield();
    qemu_co_rwlock_upgrade(l->rw);
    happened(g_ascii_toupper(l->name));
    qemu_co_rwlock_unlock(l->rw);
}

static void coroutine_fn rw_downgrader(void *opaque)
{
    Locker *l = opaque;
    qemu_co_rwlock_wrlock(l->rw);
    happened(l->name);
    qemu_coroutine_yield();
    qemu_co_rwlock_downgrade(l->rw);
    happened(g_ascii_toupper(l->name));
    qemu_coroutine_yield();
    qemu_co_rwlock_unlock(l->rw);
}

static Coroutine *start(CoroutineEntry *entry, Locker *l, CoRwlock *rw, char name)
{
    *l = (Locker) { .rw = rw, .name = name };
    Coroutine *co = qemu_coroutine_create(entry, l);
    qemu_coroutine_enter(co);
    return co;
}

static void test_rwlock_is_fifo(void)
{
    CoRwlock rw;
    Locker l[5];
    qemu_co_rwlock_init(&rw);
    Coroutine *r1 = start(rw_reader, &l[0], &rw, 'r');
    Coroutine *r2 = start(rw_reader, &l[1], &rw, 's');
    Coroutine *w = start(rw_writer, &l[2], &rw, 'w');
    Coroutine *r3 = start(rw_reader, &l[3], &rw, 't');  /* behind the writer */
    check_events("rs");
    qemu_coroutine_enter(r1);
    check_events("R");
    qemu_coroutine_enter(r2);
    check_events("Sw");
    qemu_coroutine_enter(w);
    check_events("Wt");
    qemu_coroutine_enter(r3);
    check_events("T");
}

static void test_upgrade_queues_behind_writers(void)
{
    CoRwlock rw;
    Locker l[2];
    qemu_co_rwlock_init(&rw);
    Coroutine *u = start(rw_upgrader, &l[0], &rw, 'u');
    Coroutine *w = start(rw_writer, &l[1], &rw, 'w');
    check_events("u");
    qemu_coroutine_enter(u);    /* gives up its read lock, and comes after W */
    check_events("w");
    qemu_coroutine_enter(w);
    check_events("WU");

    /* nobody else: at once */
    u = start(rw_upgrader, &l[0], &rw, 'u');
    qemu_coroutine_enter(u);
    check_events("uU");
}

static void test_downgrade_admits_the_readers_queued_next(void)
{
    CoRwlock rw;
    Locker l[5];
    qemu_co_rwlock_init(&rw);
    Coroutine *d = start(rw_downgrader, &l[0], &rw, 'd');
    Coroutine *r1 = start(rw_reader, &l[1], &rw, 'r');
    Coroutine *r2 = start(rw_reader, &l[2], &rw, 's');
    Coroutine *w = start(rw_writer, &l[3], &rw, 'w');
    Coroutine *r3 = start(rw_reader, &l[4], &rw, 't');
    check_events("d");
    qemu_coroutine_enter(d);
    check_events("Drs");
    qemu_coroutine_enter(r1);
    qemu_coroutine_enter(d);
    check_events("R");
    qemu_coroutine_enter(r2);
    check_events("Sw");
    qemu_coroutine_enter(w);
    qemu_coroutine_enter(r3);
    check_events("WtT");
}

typedef struct Sleeper { CoQueue *queue; CoMutex *mutex; char name; } Sleeper;

static void coroutine_fn queue_user(void *opaque)
{
    Sleeper *s = opaque;
    QEMU_LOCK_GUARD(s->mutex);
    qemu_co_queue_wait(s->queue, s->mutex);
    happened(s->name);
}

static void coroutine_fn queue_waker(void *opaque)
{
    Sleeper *s = opaque;
    WITH_QEMU_LOCK_GUARD(s->mutex) {
        g_assert_true(qemu_co_queue_next(s->queue));
        happened('.');
        qemu_co_queue_restart_all(s->queue);
        happened('.');
    }
    g_assert_true(qemu_co_queue_empty(s->queue));
}

static void test_queue(void)
{
    CoQueue queue;
    CoMutex mutex;
    qemu_co_queue_init(&queue);
    qemu_co_mutex_init(&mutex);
    Sleeper s[4] = { { &queue, &mutex, 'a' }, { &queue, &mutex, 'b' },
                     { &queue, &mutex, 'c' }, { &queue, &mutex, '-' } };
    for (int i = 0; i < 3; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(queue_user, &s[i]));
    }
    qemu_coroutine_enter(qemu_coroutine_create(queue_waker, &s[3]));
    check_events("..abc");
}

/* ---- lockables ----------------------------------------------------------------------------- */

static int lock_and_look(QemuLockable *x)
{
    if (!x) {
        return 0;
    }
    qemu_lockable_lock(x);
    qemu_lockable_unlock(x);
    return 1;
}

static void coroutine_fn lockable_kinds(void *opaque)
{
    QemuMutex mutex, *no_mutex = NULL;
    QemuRecMutex rec, *no_rec = NULL;
    CoMutex co, *no_co = NULL;
    QemuSpin spin, *no_spin = NULL;

    qemu_mutex_init(&mutex);
    qemu_rec_mutex_init(&rec);
    qemu_co_mutex_init(&co);
    qemu_spin_init(&spin);
    g_assert_cmpint(lock_and_look(QEMU_MAKE_LOCKABLE(&mutex)), ==, 1);
    g_assert_cmpint(lock_and_look(QEMU_MAKE_LOCKABLE(&rec)), ==, 1);
    g_assert_cmpint(lock_and_look(QEMU_MAKE_LOCKABLE(&co)), ==, 1);
    g_assert_cmpint(lock_and_look(QEMU_MAKE_LOCKABLE(&spin)), ==, 1);
    g_assert_null(QEMU_MAKE_LOCKABLE(no_mutex));
    g_assert_null(QEMU_MAKE_LOCKABLE(no_rec));
    g_assert_null(QEMU_MAKE_LOCKABLE(no_co));
    g_assert_null(QEMU_MAKE_LOCKABLE(no_spin));
    g_assert_null(QEMU_MAKE_LOCKABLE(NULL));

    QemuLockable *x = QEMU_MAKE_LOCKABLE(&mutex);
    g_assert_true(QEMU_MAKE_LOCKABLE(x) == x);
    {
        QEMU_LOCK_GUARD(&mutex);
        g_assert_cmpint(qemu_mutex_trylock(&mutex), !=, 0);
        QEMU_LOCK_GUARD(&rec);
        WITH_QEMU_LOCK_GUARD(&spin) {
            g_assert_true(qemu_spin_locked(&spin));
        }
        g_assert_false(qemu_spin_locked(&spin));
    }
    g_assert_cmpint(qemu_mutex_trylock(&mutex), ==, 0);
    qemu_mutex_unlock(&mutex);
    WITH_QEMU_LOCK_GUARD(&mutex) {
        break;                  /* leaves the block, and releases */
    }
    g_assert_cmpint(qemu_mutex_trylock(&mutex), ==, 0);
    qemu_mutex_unlock(&mutex);
    qemu_spin_destroy(&spin);
    qemu_rec_mutex_destroy(&rec);
    qemu_mutex_destroy(&mutex);
}

static void test_lockables(void)
{
    qemu_coroutine_enter(qemu_coroutine_create(lockable_kinds, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    events = g_string_new(NULL);
    g_assert_null(qemu_get_current_aio_context());

    g_test_add_func("/foreign/coroutine/markers", test_markers);
    g_test_add_func("/foreign/coroutine/enter", test_enter_and_yield);
    g_test_add_func("/foreign/coroutine/nested", test_nested_enters);
    g_test_add_func("/foreign/coroutine/finished", test_finished_stays_mapped_and_is_not_touched);
    g_test_add_func("/foreign/coroutine/pool", test_pool_reuses);
    g_test_add_func("/foreign/coroutine/mutex", test_mutex_is_handed_over);
    g_test_add_func("/foreign/coroutine/rwlock/fifo", test_rwlock_is_fifo);
    g_test_add_func("/foreign/coroutine/rwlock/upgrade", test_upgrade_queues_behind_writers);
    g_test_add_func("/foreign/coroutine/rwlock/downgrade",
                    test_downgrade_admits_the_readers_queued_next);
    g_test_add_func("/foreign/coroutine/queue", test_queue);
    g_test_add_func("/foreign/coroutine/lockables", test_lockables);
    int ret = g_test_run();
    g_string_free(events, true);
    return ret;
}
