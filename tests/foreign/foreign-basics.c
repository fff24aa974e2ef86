/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Macros, lists, bits and atomics. */
#include "qemu/osdep.h"
#include "config-host.h"
#include "glib-compat.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/clang-tsa.h"
#include "qemu/compiler.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "qemu/module.h"
#include "qemu/queue.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"

/* ---- macros -------------------------------------------------------------------------------- */

typedef struct Inner { int a; struct { int job; } common; } Inner;
typedef struct Outer { char pad; Inner inner; } Outer;

static int evaluations;
static int evaluate(int v) { evaluations++; return v; }

static int TSA_NO_TSA annotated(void) { return 1; }

#define SWITCH_ON

static void test_macros(void)
{
    Outer o;
    int array[MAX_CONST(3, 4)] = { 0 };
    g_assert_true(container_of(&o.inner.common.job, Outer, inner.common.job) == &o);
    g_assert_true(container_of(&o.inner.a, Outer, inner.a) == &o);
    g_assert_cmpint(IS_ENABLED(SWITCH_ON), ==, 1);
    g_assert_cmpint(IS_ENABLED(SWITCH_OFF), ==, 0);
    g_assert_cmpint(IS_ENABLED(CONFIG_LINUX), ==, 1);
    g_assert_cmpint(MIN(evaluate(3), evaluate(MAX(1, 2))), ==, 2);
    g_assert_cmpint(MAX(evaluate(3), evaluate(2)), ==, 3);
    g_assert_cmpint(evaluations, ==, 4);
    g_assert_cmpint(MIN_NON_ZERO(0, 5), ==, 5);
    g_assert_cmpint(DIV_ROUND_UP(9, 4), ==, 3);
    g_assert_cmpint(ROUND_UP(9, 4), ==, 12);
    g_assert_cmpint(QEMU_ALIGN_UP(10, 7), ==, 14);
    g_assert_cmpuint(ARRAY_SIZE(array), ==, 4);
    g_assert_cmpint(O_BINARY, ==, 0);
    g_assert_cmpint(annotated(), ==, 1);
    QEMU_BUILD_BUG_ON(sizeof_field(Outer, inner.a) != sizeof(int));
    g_autofree int *copy = g_memdup2(array, sizeof(array));
    g_assert_cmpmem(copy, sizeof(array), array, sizeof(array));
}

static void test_quick_unless_asked(void)
{
    /* the suite does not ask */
    g_assert_cmpint(g_test_quick(), ==, !g_getenv("G_TEST_SLOW"));
    g_assert_cmpint(g_test_slow(), ==, !g_test_quick());
}

static void test_quick_is_off_when_asked(void)
{
    if (g_test_subprocess()) {
        g_setenv("G_TEST_SLOW", "1", true);
        exit(g_test_quick() ? 3 : 0);
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
}

/* ---- lists --------------------------------------------------------------------------------- */

typedef struct Elem {
    char name;
    QLIST_ENTRY(Elem) ql;
    QTAILQ_ENTRY(Elem) qt;
    QSIMPLEQ_ENTRY(Elem) qs;
    QSLIST_ENTRY(Elem) qsl;
} Elem;

#define NAMES(macro, head, field) ({                                            \
        char *at_ = names; Elem *e_;                                            \
        macro(e_, head, field) { *at_++ = e_->name; }                           \
        *at_ = '\0'; names; })

static char names[16];

static void test_lists(void)
{
    Elem e[4] = { { 'a' }, { 'b' }, { 'c' }, { 'd' } }, *it, *next;
    QLIST_HEAD(, Elem) ql = QLIST_HEAD_INITIALIZER(ql);
    QTAILQ_HEAD(, Elem) qt = QTAILQ_HEAD_INITIALIZER(qt);
    QSIMPLEQ_HEAD(, Elem) qs = QSIMPLEQ_HEAD_INITIALIZER(qs);
    QSLIST_HEAD(, Elem) qsl = QSLIST_HEAD_INITIALIZER(qsl), taken;

    g_assert_null(QTAILQ_LAST(&qt));
    for (int i = 0; i < 4; i++) {
        QLIST_INSERT_HEAD(&ql, &e[i], ql);
        QTAILQ_INSERT_TAIL(&qt, &e[i], qt);
        QSIMPLEQ_INSERT_TAIL(&qs, &e[i], qs);
        QSLIST_INSERT_HEAD_ATOMIC(&qsl, &e[i], qsl);
    }
    g_assert_cmpstr(NAMES(QLIST_FOREACH, &ql, ql), ==, "dcba");
    g_assert_true(QLIST_FIRST(&ql) == ql.lh_first && QLIST_NEXT(&e[3], ql) == &e[2]);
    QLIST_FOREACH_SAFE(it, &ql, ql, next) {
        if (it->name == 'c' || it->name == 'd') {
            QLIST_REMOVE(it, ql);
        }
    }
    g_assert_cmpstr(NAMES(QLIST_FOREACH, &ql, ql), ==, "ba");
    QLIST_SAFE_REMOVE(&e[3], ql);
    QLIST_SAFE_REMOVE(&e[1], ql);
    g_assert_cmpstr(NAMES(QLIST_FOREACH, &ql, ql), ==, "a");

    g_assert_cmpstr(NAMES(QTAILQ_FOREACH, &qt, qt), ==, "abcd");
    g_assert_cmpstr(NAMES(QTAILQ_FOREACH_REVERSE, &qt, qt), ==, "dcba");
    g_assert_null(QTAILQ_PREV(&e[0], qt));
    g_assert_true(QTAILQ_PREV(&e[3], qt) == &e[2] && QTAILQ_LAST(&qt) == &e[3]);
    QTAILQ_REMOVE(&qt, &e[3], qt);
    QTAILQ_REMOVE(&qt, &e[0], qt);
    g_assert_false(QTAILQ_IN_USE(&e[0], qt));
    QTAILQ_INSERT_BEFORE(&e[1], &e[3], qt);
    g_assert_cmpstr(NAMES(QTAILQ_FOREACH, &qt, qt), ==, "dbc");
    QTAILQ_FOREACH_REVERSE_SAFE(it, &qt, qt, next) {
        QTAILQ_REMOVE(&qt, it, qt);
    }
    g_assert_true(QTAILQ_EMPTY(&qt));

    g_assert_cmpstr(NAMES(QSIMPLEQ_FOREACH, &qs, qs), ==, "abcd");
    QSIMPLEQ_REMOVE_HEAD(&qs, qs);
    QSIMPLEQ_REMOVE(&qs, &e[2], Elem, qs);
    g_assert_cmpstr(NAMES(QSIMPLEQ_FOREACH, &qs, qs), ==, "bd");

    QSLIST_MOVE_ATOMIC(&taken, &qsl);
    g_assert_true(QSLIST_EMPTY(&qsl));
    QSLIST_REMOVE(&taken, &e[2], Elem, qsl);
    g_assert_cmpstr(NAMES(QSLIST_FOREACH, &taken, qsl), ==, "dba");
    QSLIST_REMOVE_HEAD(&taken, qsl);
    g_assert_true(QSLIST_FIRST(&taken) == &e[1]);
}

/* ---- atomics ------------------------------------------------------------------------------- */

static void test_atomics(void)
{
    unsigned u = 1;
    bool flag = false;
    void *ptr = NULL;
    uint8_t byte = 250;
    int64_t wide = 0;

    g_assert_cmpuint(qatomic_read(&u), ==, 1);
    qatomic_set(&u, 5);
    g_assert_cmpuint(qatomic_xchg(&u, 6), ==, 5);
    g_assert_cmpuint(qatomic_cmpxchg(&u, 6, 7), ==, 6);
    g_assert_cmpuint(qatomic_cmpxchg(&u, 6, 8), ==, 7);
    g_assert_cmpuint(qatomic_fetch_inc(&u), ==, 7);
    qatomic_inc(&u);
    qatomic_dec(&u);
    qatomic_or(&u, 0x10);
    g_assert_cmpuint(u, ==, 0x18);
    qatomic_and(&u, 0x0f);
    qatomic_xor(&u, 0x01);
    g_assert_cmpuint(qatomic_add_fetch(&u, 3), ==, 12);
    g_assert_cmpuint(qatomic_fetch_sub(&u, 2), ==, 12);
    g_assert_cmpuint(qatomic_fetch_or(&u, 1), ==, 10);
    qatomic_set_mb(&u, 3);
    g_assert_cmpuint(u, ==, 3);

    g_assert_false(qatomic_xchg(&flag, true));
    g_assert_true(qatomic_cmpxchg(&flag, true, false));
    g_assert_null(qatomic_cmpxchg(&ptr, NULL, &u));
    g_assert_true(qatomic_read(&ptr) == &u);
    g_assert_cmpint(qatomic_cmpxchg(&byte, 250, 3), ==, 250);
    g_assert_cmpint(byte, ==, 3);
    qatomic_store_release(&wide, INT64_MIN);
    g_assert_true(qatomic_load_acquire(&wide) == INT64_MIN);
    smp_mb();
    smp_rmb();
    smp_wmb();
    barrier();
}

/* ---- bits and strings ---------------------------------------------------------------------- */

static void test_bits(void)
{
    g_autofree unsigned long *map = bitmap_new(3 * BITS_PER_LONG);
    set_bit(BITS_PER_LONG + 3, map);
    g_assert_true(test_bit(BITS_PER_LONG + 3, map));
    g_assert_cmpuint(find_next_bit(map, 3 * BITS_PER_LONG, 0), ==, BITS_PER_LONG + 3);
    clear_bit(BITS_PER_LONG + 3, map);
    g_assert_true(bitmap_empty(map, 3 * BITS_PER_LONG));
    uint8_t raw[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    uint32_t w32;
    uint64_t w64;
    memcpy(&w32, raw, 4);
    memcpy(&w64, raw, 8);
    g_assert_cmphex(le32_to_cpu(w32), ==, 0x04030201);
    g_assert_cmphex(le64_to_cpu(w64), ==, 0x0807060504030201);
    g_assert_cmpint(ctz32(8), ==, 3);
    g_assert_cmpuint(pow2ceil(33), ==, 64);
    g_assert_true(is_power_of_2(64));
}

static void test_strings(void)
{
    char buf[6];
    const char *rest;
    int i;
    int64_t i64;
    uint64_t u64;
    pstrcpy(buf, sizeof(buf), "abcdefgh");
    g_assert_cmpstr(buf, ==, "abcde");
    pstrcpy(buf, sizeof(buf), "ab");
    g_assert_cmpstr(pstrcat(buf, sizeof(buf), "cdef"), ==, "abcde");
    g_assert_true(strstart("file:x", "file:", &rest) && !strcmp(rest, "x"));
    g_assert_false(strstart("FILE:x", "file:", NULL));
    g_assert_true(stristart("FILE:x", "file:", NULL));
    g_assert_cmpint(qemu_strtoi64("12k", &rest, 0, &i64), ==, 0);
    g_assert_true(i64 == 12 && *rest == 'k');
    g_assert_cmpint(qemu_strtoi64("12k", NULL, 0, &i64), ==, -EINVAL);
    g_assert_cmpint(qemu_strtoi64("", NULL, 0, &i64), ==, -EINVAL);
    g_assert_cmpint(qemu_strtou64("99999999999999999999", NULL, 10, &u64), ==, -ERANGE);
    g_assert_true(u64 == UINT64_MAX);
    g_assert_cmpint(qemu_strtoi("-3000000000", NULL, 0, &i), ==, -ERANGE);
    g_assert_cmpint(i, ==, INT_MIN);
    g_assert_cmpint(qemu_strtoi("0x10", NULL, 0, &i), ==, 0);
    g_assert_cmpint(i, ==, 16);
}

/* ---- threads ------------------------------------------------------------------------------- */

typedef struct Shared {
    QemuMutex mutex;
    QemuCond cond;
    QemuEvent *event;           /* freed by whoever was woken */
    QemuSemaphore sem;
    int *published;             /* read under RCU */
    bool stop;
    long reads;
} Shared;

static void *wait_and_free(void *opaque)
{
    QemuEvent *event = opaque;
    qemu_event_wait(event);
    qemu_event_destroy(event);
    g_free(event);
    return NULL;
}

static void test_event_may_go_when_the_wait_returns(void)
{
    for (int i = 0; i < 500; i++) {
        QemuEvent *event = g_new(QemuEvent, 1);
        QemuThread thread;
        qemu_event_init(event, false);
        qemu_thread_create(&thread, "freer", wait_and_free, event, QEMU_THREAD_JOINABLE);
        qemu_event_set(event);
        qemu_thread_join(&thread);
    }
    QemuEvent e;
    qemu_event_init(&e, true);
    qemu_event_wait(&e);
    qemu_event_reset(&e);
    qemu_event_set(&e);
    qemu_event_wait(&e);
    qemu_event_destroy(&e);
}

static void *rcu_reader(void *opaque)
{
    Shared *s = opaque;
    rcu_register_thread();
    while (!qatomic_read(&s->stop)) {
        WITH_RCU_READ_LOCK_GUARD() {
            RCU_READ_LOCK_GUARD();
            const int *p = qatomic_rcu_read(&s->published);
            g_assert_cmpint(*p, ==, 42);
            g_assert_cmpint(*p, ==, 42);
        }
        qatomic_inc(&s->reads);
    }
    rcu_unregister_thread();
    qemu_sem_post(&s->sem);
    return NULL;
}

static int *new_answer(void)
{
    int *p = g_new(int, 1);
    *p = 42;
    return p;
}

static void test_rcu_readers_never_see_what_was_freed(void)
{
    Shared s = { .published = new_answer() };
    QemuThread reader[3], self;
    qemu_sem_init(&s.sem, 0);
    for (int i = 0; i < 3; i++) {
        qemu_thread_create(&reader[i], "reader", rcu_reader, &s, QEMU_THREAD_JOINABLE);
    }
    for (int i = 0; i < 200 || qatomic_read(&s.reads) < 1000; i++) {
        int *old = s.published;
        qatomic_rcu_set(&s.published, new_answer());
        synchronize_rcu();
        *old = 0;
        g_free(old);
    }
    qatomic_set(&s.stop, true);
    for (int i = 0; i < 3; i++) {
        qemu_sem_wait(&s.sem);
    }
    g_assert_cmpint(qemu_sem_timedwait(&s.sem, 1), ==, -1);
    for (int i = 0; i < 3; i++) {
        qemu_thread_join(&reader[i]);
    }
    qemu_sem_destroy(&s.sem);
    g_free(s.published);
    qemu_thread_get_self(&self);
    g_assert_true(qemu_thread_is_self(&self));
    g_assert_false(qemu_thread_is_self(&reader[0]));
}

/* ---- modules ------------------------------------------------------------------------------- */

static int module_calls;
static void count_module(void) { module_calls++; }
module_init(count_module, MODULE_INIT_QOM)

static void test_module_init(void)
{
    g_assert_cmpint(MODULE_INIT_QOM, ==, 3);
    module_call_init(MODULE_INIT_OPTS);
    g_assert_cmpint(module_calls, ==, 0);
    module_call_init(MODULE_INIT_QOM);
    module_call_init(MODULE_INIT_QOM);
    g_assert_cmpint(module_calls, ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/foreign/basics/macros", test_macros);
    g_test_add_func("/foreign/basics/quick", test_quick_unless_asked);
    g_test_add_func("/foreign/basics/slow", test_quick_is_off_when_asked);
    g_test_add_func("/foreign/basics/lists", test_lists);
    g_test_add_func("/foreign/basics/atomics", test_atomics);
    g_test_add_func("/foreign/basics/bits", test_bits);
    g_test_add_func("/foreign/basics/strings", test_strings);
    g_test_add_func("/foreign/basics/event", test_event_may_go_when_the_wait_returns);
    g_test_add_func("/foreign/basics/rcu", test_rcu_readers_never_see_what_was_freed);
    g_test_add_func("/foreign/basics/module", test_module_init);
    return g_test_run();
}
