/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Threads: create, join, end; what each has of its own. */
#include "miniblk/osdep.h"
#include "aio/port.h"
#include "lab/engine.h"
#include "lab/tsan.h"

#define E lab__engine

/* A pthread_t is the thread's number + 1, so that 0 is none. */
static LabThread *thread_of(pthread_t id)
{
    return id >= 1 && id <= E.n_threads ? &lab__threads[id - 1] : NULL;
}

/* ---- variables by key ------------------------------------------------------------------ */

typedef struct Key {
    bool used;
    void (*destructor)(void *);
} Key;
static Key keys[LAB_KEYS_MAX];

/* NULL: there is no such key. */
static Key *key_of(pthread_key_t key)
{
    return key - LAB_KEY_FIRST < LAB_KEYS_MAX && keys[key - LAB_KEY_FIRST].used
           ? &keys[key - LAB_KEY_FIRST] : NULL;
}

int lab_key_create(pthread_key_t *key, void (*destructor)(void *))
{
    for (unsigned i = 0; i < LAB_KEYS_MAX; i++) {
        if (!keys[i].used) {
            keys[i] = (Key) { true, destructor };
            for (int t = 0; t < E.n_threads; t++) {
                lab__threads[t].keys[i] = NULL;
            }
            *key = LAB_KEY_FIRST + i;
            return 0;
        }
    }
    return EAGAIN;
}

int lab_key_delete(pthread_key_t key)
{
    Key *k = key_of(key);

    if (!k) {
        return EINVAL;
    }
    k->used = false;
    return 0;
}

int lab_key_set(pthread_key_t key, const void *value)
{
    Key *k = key_of(key);

    if (!k) {
        return EINVAL;
    }
    lab__self()->keys[k - keys] = (void *)value;
    return 0;
}

void *lab_key_get(pthread_key_t key)
{
    Key *k = key_of(key);
    return k ? lab__self()->keys[k - keys] : NULL;
}

static void run_destructors(LabThread *t)
{
    bool again = true;

    for (unsigned round = 0; again && round < LAB_DESTRUCTOR_ROUNDS; round++) {
        again = false;
        for (unsigned i = 0; i < LAB_KEYS_MAX; i++) {
            void *value = t->keys[i];
            if (value && keys[i].used && keys[i].destructor) {
                t->keys[i] = NULL;
                LAB_PROGRAM(keys[i].destructor(value));
                again = true;
            }
        }
    }
}

/* ---- beginning and end ----------------------------------------------------------------- */

void lab_thread_exit(void *result)
{
    LabThread *t = lab__self();

    run_destructors(t);
    lab_syscall_point(LAB_OP_EXIT, lab_thread_self(), true);
    lab__drain();
    lab_release(t);
    t->result = result;
    t->finished = true;
    lab__thread_gone();
}

static void thread_main(void)
{
    LabThread *t = lab__self();
    void *result;

    LAB_PROGRAM(result = t->start(t->arg));
    lab_thread_exit(result);
}

/* A new number while there are any: then they are the same in more schedules. */
static int find_slot(void)
{
    if (E.n_threads < LAB_THREADS_MAX) {
        return E.n_threads++;
    }
    for (int i = 1; i < LAB_THREADS_MAX; i++) {
        const LabThread *t = &lab__threads[i];
        if (t->finished && (t->joined || t->detached)) {
            return i;
        }
    }
    return -1;
}

int lab_thread_create(pthread_t *thread, void *(*start)(void *), void *arg, bool detached)
{
    lab_syscall_point(LAB_OP_CREATE, 0, true);
    int i = find_slot();
    if (i < 0) {
        return EAGAIN;
    }
    LabThread *t = &lab__threads[i];
    *t = (LabThread) {
        .op = { .kind = LAB_OP_START, .object = i + 1, .is_write = true },
        .start = start, .arg = arg, .detached = detached, .id = i + 1,
    };
    snprintf(t->name, sizeof(t->name), "T%d", i);
    lab__affinity_inherit(i);
    lab_acquire(t);             /* its stack may have been that of a thread that has ended */
    lab__fiber_init(i, thread_main);
    E.live |= lab__bit(i);
    *thread = i + 1;
    return 0;
}

static bool has_finished(const void *opaque)
{
    return ((const LabThread *)opaque)->finished;
}

int lab_thread_join(pthread_t thread, void **result)
{
    static const uint32_t from_its_start = 0;
    LabThread *t = thread_of(thread);

    if (!t || t->joined) {
        return ESRCH;
    }
    if (t->detached) {
        return EINVAL;
    }
    if (t == lab__self()) {
        return EDEADLK;
    }
    lab__drain_at_point("join");
    LabBlock block = {
        .op = { .kind = LAB_OP_JOIN, .is_write = true, .object = thread },
        .ready = has_finished, .opaque = t, .deadline_ns = -1, .holder = &t->id,
        .since = &from_its_start,
    };
    lab_block(&block);
    lab_acquire(t);
    t->joined = true;
    if (result) {
        *result = t->result;
    }
    return 0;
}

int lab_thread_detach(pthread_t thread)
{
    LabThread *t = thread_of(thread);

    if (!t || t->joined) {
        return ESRCH;
    }
    if (t->detached) {
        return EINVAL;
    }
    t->detached = true;
    return 0;
}

/* ---- what a thread is called ----------------------------------------------------------- */

pthread_t lab_thread_self(void)
{
    return E.self + 1;
}

int lab_thread_id(void)
{
    return LAB_PID + E.self;
}

int lab_thread_set_name(pthread_t thread, const char *name)
{
    LabThread *t = thread_of(thread);

    if (!t) {
        return ESRCH;
    }
    if (strlen(name) >= sizeof(t->name)) {
        /* port.h has it cut, pthread_setname_np() refused */
        snprintf(t->name, sizeof(t->name), "%.15s", name);
        return ERANGE;
    }
    strcpy(t->name, name);
    return 0;
}

const char *lab_thread_name(unsigned thread)
{
    return thread < LAB_THREADS_MAX ? lab__threads[thread].name : "?";
}

void port_thread_name(int id, char name[16])
{
    LabThread *t = thread_of(id - LAB_PID + 1);
    strcpy(name, t && !t->finished ? t->name : "");
}

void lab_thread_yield(void)
{
    lab_idle();
    lab_point(LAB_OP_RELAX, 0, false);
}

/* ---- the rest of port-lab.h ------------------------------------------------------------ */

bool port_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, int64_t timeout_ns)
{
    int64_t deadline_ns = E.now_ns + MAX(timeout_ns, 0);
    return lab_cond_wait_until(c, m, deadline_ns) == 0;
}

int port_eventfd_signal(int fd)
{
    uint64_t one = 1;
    /* EAGAIN: the counter is full, so it is signalled already. */
    return lab_write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN ? -errno : 0;
}

bool port_eventfd_clear(int fd)
{
    uint64_t value;
    return lab_read(fd, &value, sizeof(value)) == sizeof(value);
}
