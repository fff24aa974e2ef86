/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Circles of those who wait for each other, while an innocent IOThread goes on for ever: each
 * must be found, and told link by link. And waits that look like them but end: none of these
 * may be reported, in any schedule.
 */
#include "miniblk/osdep.h"
#include "miniblk/blockjob.h"
#include "miniblk/graph-lock.h"
#include "aio/port-note.h"
#include "hook-disk.h"
#include "lab-cases.h"

static CoMutex co_mutex, other_co_mutex;
static CoRwlock rwlock;
static BlockBackend *second;    /* that a request uses, too */

/* ---- circles ---------------------------------------------------------------------------- */

static void coroutine_fn wait_for_a_moment(void)
{
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LONG);
}

/* drain -> request -> loop of io0 -> mutex -> main */
static void mutex_over_drain(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);

    start_bystander();
    qemu_mutex_lock(&mutex);
    start_read(blk);
    wait_for_flag(&flag);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    bdrv_drained_begin(blk_bs(blk));
}

/* The same with the lock of a context that the drained node is not in. */
static void take_context_lock(void *opaque)
{
    aio_context_acquire(io_ctx[1]);
    aio_context_release(io_ctx[1]);
}

static void context_lock_over_drain(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);

    start_bystander();
    aio_context_acquire(io_ctx[1]);
    start_read(blk);
    wait_for_flag(&flag);
    aio_bh_schedule_oneshot(io_ctx[0], take_context_lock, NULL);
    bdrv_drained_begin(blk_bs(blk));
}

/* wait for a bottom half -> loop of io0 -> mutex -> main */
static void mutex_over_bh(void)
{
    start_bystander();
    qemu_mutex_lock(&mutex);
    aio_wait_bh_oneshot(io_ctx[0], take_mutex, NULL);
}

/* Two requests, each with the lock that the other wants. */
static void coroutine_fn lock_one_of_two(BlockDriverState *bs)
{
    bool first = !qatomic_read(&flag);

    set_flag(&flag);
    qemu_co_mutex_lock(first ? &co_mutex : &other_co_mutex);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LONG);
    qemu_co_mutex_lock(first ? &other_co_mutex : &co_mutex);
}

static void two_co_mutexes(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], lock_one_of_two);

    start_bystander();
    start_read(blk);
    start_read(blk);
    wait_for_flag(&flag);
    bdrv_drained_begin(blk_bs(blk));
}

/* Nobody waits for the two but those who have no cause to give. */
static void two_co_mutexes_unwatched(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], lock_one_of_two);
    static bool never;

    start_bystander();
    start_read(blk);
    start_read(blk);
    wait_for_flag(&never);
}

/* drain -> request -> writer's lock -> reader, parked -> drain */
static void coroutine_fn write_lock(BlockDriverState *bs)
{
    if (second && bs == blk_bs(second)) {
        return;
    }
    set_flag(&flag);
    qemu_co_rwlock_wrlock(&rwlock);
    qemu_co_rwlock_unlock(&rwlock);
}

static void coroutine_fn read_with_lock(void *opaque)
{
    qemu_co_rwlock_rdlock(&rwlock);
    set_flag(&flag);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LONG);
    qatomic_inc(&reads);
    read_once(opaque);
    qemu_co_rwlock_unlock(&rwlock);
}

static void rwlock_over_parking(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], write_lock);

    qemu_co_rwlock_init(&rwlock);
    start_bystander();
    aio_co_enter(io_ctx[0], qemu_coroutine_create(read_with_lock, blk));
    wait_for_flag(&flag);
    qatomic_set(&flag, false);
    start_read(blk);
    wait_for_flag(&flag);
    bdrv_drained_begin(blk_bs(blk));
}

/* drain of all -> request -> its own request to another backend, parked -> drain */
static void coroutine_fn use_second(BlockDriverState *bs)
{
    if (bs != blk_bs(second)) {
        set_flag(&flag);
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LONG);
        qatomic_inc(&reads);
        read_once(second);
    }
}

static void request_behind_request(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], use_second);

    second = disk("second", io_ctx[0], use_second);
    start_bystander();
    start_read(blk);
    wait_for_flag(&flag);
    bdrv_drain_all_begin();
}

/* A request that drains its own node. */
static void coroutine_fn drain_own_node(BlockDriverState *bs)
{
    bdrv_drained_begin(bs);
    bdrv_drained_end(bs);
}

static void drain_in_a_request(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], drain_own_node);
    static bool never;

    start_bystander();
    start_read(blk);
    wait_for_flag(&never);
}

/* synchronous read -> its coroutine -> CoMutex -> coroutine in io0's loop -> mutex -> main */
static void coroutine_fn hold_co_mutex(void *opaque)
{
    qemu_co_mutex_lock(&co_mutex);
    set_flag(&flag);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LONG);
    qemu_co_mutex_unlock(&co_mutex);
}

static void coroutine_fn want_co_mutex(BlockDriverState *bs)
{
    qemu_co_mutex_lock(&co_mutex);
    qemu_co_mutex_unlock(&co_mutex);
}

static void synchronous_read(void)
{
    BlockBackend *blk = disk("disk", qemu_get_aio_context(), want_co_mutex);
    char buffer[512];

    start_bystander();
    aio_co_enter(io_ctx[0], qemu_coroutine_create(hold_co_mutex, NULL));
    wait_for_flag(&flag);
    qemu_mutex_lock(&mutex);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    blk_pread(blk, 0, sizeof(buffer), buffer, 0);
}

/* writer of the graph -> reader -> loop of io0 -> mutex -> main */
static void coroutine_fn read_graph(void *opaque)
{
    bdrv_graph_co_rdlock();
    set_flag(&flag);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LONG);
    bdrv_graph_co_rdunlock();
}

static void mutex_over_graph_lock(void)
{
    start_bystander();
    aio_co_enter(io_ctx[0], qemu_coroutine_create(read_graph, NULL));
    wait_for_flag(&flag);
    qemu_mutex_lock(&mutex);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    bdrv_graph_wrlock();
}

/* The job's coroutine needs the loop; who waits for the job has the mutex. */
static int coroutine_fn job_run(Job *job, Error **errp)
{
    set_flag(&flag);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LONG);
    return 0;
}

static const BlockJobDriver job_driver = {
    .job_driver = {
        .instance_size = sizeof(BlockJob), .job_type = JOB_TYPE_COMMIT, .run = job_run,
        .free = block_job_free, .user_resume = block_job_user_resume,
    },
};

static void mutex_over_job(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);
    aio_context_acquire(io_ctx[0]);
    BlockJob *job = block_job_create("job0", &job_driver, NULL, blk_bs(blk), 0, BLK_PERM_ALL,
                                     0, JOB_MANUAL_DISMISS, NULL, NULL, &error_abort);
    aio_context_release(io_ctx[0]);

    start_bystander();
    job_start(&job->job);
    wait_for_flag(&flag);
    qemu_mutex_lock(&mutex);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    JOB_LOCK_GUARD();
    job_cancel_sync_locked(&job->job, true);
}

/* drain -> request -> loop of io0 -> context lock -> coroutine in main -> CoMutex -> request */
static void coroutine_fn lock_co_mutex_and_sleep(BlockDriverState *bs)
{
    qemu_co_mutex_lock(&co_mutex);
    sleep_in_loop(bs);
    qemu_co_mutex_unlock(&co_mutex);
}

static void coroutine_fn context_lock_then_co_mutex(void *opaque)
{
    aio_context_acquire(io_ctx[1]);
    qemu_co_mutex_lock(&co_mutex);
    qemu_co_mutex_unlock(&co_mutex);
    aio_context_release(io_ctx[1]);
}

static void context_lock_of_a_coroutine(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], lock_co_mutex_and_sleep);

    start_bystander();
    start_read(blk);
    wait_for_flag(&flag);
    qemu_coroutine_enter(qemu_coroutine_create(context_lock_then_co_mutex, NULL));
    aio_bh_schedule_oneshot(io_ctx[0], take_context_lock, NULL);
    bdrv_drained_begin(blk_bs(blk));
}

/* In the innermost of many waits. */
enum { DEEP = 40 };
static int depth;

static void wait_in_a_wait(void *opaque)
{
    if (++depth == DEEP) {
        qemu_mutex_lock(&mutex);
        aio_wait_bh_oneshot(io_ctx[0], take_mutex, NULL);
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), wait_in_a_wait, NULL);
    wait_for_flag(&flag);
}

static void mutex_in_many_waits(void)
{
    start_bystander();
    wait_in_a_wait(NULL);
}

/* A coroutine has many locks, and waits for one more; whoever has that waits for its first. */
enum { MANY_LOCKS = 300 };
static CoMutex locks[MANY_LOCKS];

static void coroutine_fn lock_many(void *opaque)
{
    for (int i = 0; i < MANY_LOCKS; i++) {
        qemu_co_mutex_lock(&locks[i]);
    }
    set_flag(&flag);
    qemu_co_mutex_lock(&co_mutex);
}

static void coroutine_fn lock_one_and_the_last(void *opaque)
{
    qemu_co_mutex_lock(&co_mutex);
    wait_for_a_moment();
    qemu_co_mutex_lock(&locks[MANY_LOCKS - 1]);
}

static void lock_beyond_many(void)
{
    static bool never;

    for (int i = 0; i < MANY_LOCKS; i++) {
        qemu_co_mutex_init(&locks[i]);
    }
    start_bystander();
    aio_co_enter(io_ctx[0], qemu_coroutine_create(lock_one_and_the_last, NULL));
    aio_co_enter(io_ctx[0], qemu_coroutine_create(lock_many, NULL));
    wait_for_flag(&never);
}

/* drain -> request -> lock 99 -> coroutine -> lock 98 -> ... -> lock 0 -> loop -> mutex -> main */
enum { LINKS = 100 };

static void coroutine_fn lock_two(void *opaque)
{
    int i = GPOINTER_TO_INT(opaque);

    qemu_co_mutex_lock(&locks[i]);
    if (i > 0) {
        qemu_co_mutex_lock(&locks[i - 1]);
    } else {
        wait_for_a_moment();
    }
}

static void coroutine_fn want_last_lock(BlockDriverState *bs)
{
    set_flag(&flag);
    qemu_co_mutex_lock(&locks[LINKS - 1]);
}

static void long_way(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], want_last_lock);

    start_bystander();
    qemu_mutex_lock(&mutex);
    for (int i = 0; i < LINKS; i++) {
        qemu_co_mutex_init(&locks[i]);
        aio_co_enter(io_ctx[0], qemu_coroutine_create(lock_two, GINT_TO_POINTER(i)));
    }
    start_read(blk);
    wait_for_flag(&flag);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    bdrv_drained_begin(blk_bs(blk));
}

/* ---- waits that end --------------------------------------------------------------------- */

/* A callback takes the mutex in the middle of the drain and gives it back by itself. */
static bool callback_done;

static void mutex_in_callback(void *opaque)
{
    qemu_mutex_lock(&mutex);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    wait_for_flag(&other_flag);
    qemu_mutex_unlock(&mutex);
    callback_done = true;
}

static void set_other_flag(void *opaque)
{
    set_flag(&other_flag);
}

static void lock_in_a_nested_wait(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);

    start_read(blk);
    wait_for_flag(&flag);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), mutex_in_callback, NULL);
    aio_bh_schedule_oneshot(io_ctx[1], set_other_flag, NULL);
    bdrv_drained_begin(blk_bs(blk));
    bdrv_drained_end(blk_bs(blk));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !callback_done);
    free_disk(blk);
}

/* What main has waited for is done, although the loop does not get any further. */
static void nothing_to_do(void *opaque)
{
}

static void bh_before_the_mutex(void)
{
    qemu_mutex_lock(&mutex);
    aio_bh_schedule_oneshot(io_ctx[0], nothing_to_do, NULL);
    aio_wait_bh_oneshot(io_ctx[0], nothing_to_do, NULL);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    qemu_mutex_unlock(&mutex);
    qemu_mutex_lock(&mutex);
    aio_wait_bh_oneshot(io_ctx[1], nothing_to_do, NULL);
    qemu_mutex_unlock(&mutex);
    aio_wait_bh_oneshot(io_ctx[0], nothing_to_do, NULL);
}

static void schedule_take_mutex(void *opaque)
{
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
}

static void bh_then_mutex(void)
{
    qemu_mutex_lock(&mutex);
    aio_wait_bh_oneshot(io_ctx[0], schedule_take_mutex, NULL);
    qemu_mutex_unlock(&mutex);
    aio_wait_bh_oneshot(io_ctx[0], nothing_to_do, NULL);
}

/* The section has begun, and a callback ends it. */
static void end_section(void *opaque)
{
    bdrv_drained_end(opaque);
}

static void section_ended_by_a_callback(void)
{
    BlockBackend *blk = disk("disk", qemu_get_aio_context(), sleep_in_loop);

    bdrv_drained_begin(blk_bs(blk));
    start_read(blk);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), end_section, blk_bs(blk));
    wait_for_flag(&flag);
    bdrv_drain(blk_bs(blk));
    free_disk(blk);
}

/* AIO_WAIT_WHILE() drops the lock that the loop of the request needs. */
static void take_own_context_lock(void *opaque)
{
    aio_context_acquire(io_ctx[0]);
    aio_context_release(io_ctx[0]);
}

static void context_lock_that_is_dropped(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);

    start_read(blk);
    wait_for_flag(&flag);
    aio_context_acquire(io_ctx[0]);
    aio_bh_schedule_oneshot(io_ctx[0], take_own_context_lock, NULL);
    bdrv_drained_begin(blk_bs(blk));
    bdrv_drained_end(blk_bs(blk));
    aio_context_release(io_ctx[0]);
    free_disk(blk);
}

/* The lock is its coroutine's, not main's, which begins to wait before it is given back. */
static void coroutine_fn context_lock_over_sleep(void *opaque)
{
    aio_context_acquire(io_ctx[1]);
    wait_for_a_moment();
    aio_context_release(io_ctx[1]);
}

static void context_lock_over_yield(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);

    start_read(blk);
    wait_for_flag(&flag);
    qemu_coroutine_enter(qemu_coroutine_create(context_lock_over_sleep, NULL));
    aio_bh_schedule_oneshot(io_ctx[0], take_context_lock, NULL);
    bdrv_drain(blk_bs(blk));
    free_disk(blk);
}

/* The same with a CoMutex that a coroutine deep down has. */
static void coroutine_fn enter_another(void *opaque)
{
    if (++depth < DEEP) {
        qemu_coroutine_enter(qemu_coroutine_create(enter_another, NULL));
    } else {
        hold_co_mutex(NULL);
    }
}

static void lock_of_the_innermost_coroutine(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], want_co_mutex);

    qemu_coroutine_enter(qemu_coroutine_create(enter_another, NULL));
    start_read(blk);
    bdrv_drain(blk_bs(blk));
    free_disk(blk);
}

/* A callback looks whether a request is in flight; the wait that runs it has another reason. */
static void look_at_disk(void *opaque)
{
    port_note(PORT_NOTE_WAIT_FOR, opaque, NULL);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    aio_bh_schedule_oneshot(io_ctx[1], set_other_flag, NULL);
}

static void condition_of_somebody_else(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);

    start_read(blk);
    wait_for_flag(&flag);
    qemu_mutex_lock(&mutex);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), look_at_disk, blk_bs(blk));
    wait_for_flag(&other_flag);
    qemu_mutex_unlock(&mutex);
    free_disk(blk);
}

/* Whoever holds the lock sleeps, and wakes up. */
static void lock_of_a_sleeper(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], want_co_mutex);

    aio_co_enter(io_ctx[0], qemu_coroutine_create(hold_co_mutex, NULL));
    wait_for_flag(&flag);
    start_read(blk);
    bdrv_drain(blk_bs(blk));
    free_disk(blk);
}

/* A reader that is parked in the section of one disk, while a writer on another waits. */
static void coroutine_fn end_section_later(void *opaque)
{
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 3 * LONG);
    bdrv_drained_end(opaque);
}

static void rwlock_beside_parking(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], write_lock);
    BlockBackend *parks = second = disk("parks", io_ctx[1], write_lock);

    qemu_co_rwlock_init(&rwlock);
    bdrv_drained_begin(blk_bs(parks));
    aio_co_enter(io_ctx[1], qemu_coroutine_create(read_with_lock, parks));
    wait_for_flag(&flag);
    start_read(blk);
    qemu_coroutine_enter(qemu_coroutine_create(end_section_later, blk_bs(parks)));
    bdrv_drain(blk_bs(blk));
    AIO_WAIT_WHILE_UNLOCKED(NULL, blk_bs(parks)->quiesce_counter > 0);
    free_disk(blk);
    free_disk(parks);
}

/*
 * A reader that has been admitted, but is not awake yet, no longer waits for the other readers.
 *
 *      io0: writer             io1: reader             main: reader
 *      has the rwlock          has co_mutex
 *                              waits for the rwlock
 *      unlocks: admits
 *                                                      reads, waits for co_mutex
 *      wakes
 *                              reads, releases both
 */
static Coroutine *writer;

static void coroutine_fn write_until_entered(void *opaque)
{
    writer = qemu_coroutine_self();
    qemu_co_rwlock_wrlock(&rwlock);
    set_flag(&flag);
    qemu_coroutine_yield();
    set_flag(&flag);
    qemu_co_rwlock_unlock(&rwlock);
}

static void coroutine_fn lock_then_read(void *opaque)
{
    qemu_co_mutex_lock(&co_mutex);
    set_flag(&other_flag);
    qemu_co_rwlock_rdlock(&rwlock);
    qemu_co_rwlock_unlock(&rwlock);
    qemu_co_mutex_unlock(&co_mutex);
}

static void coroutine_fn read_then_lock(void *opaque)
{
    qemu_co_rwlock_rdlock(&rwlock);
    qemu_co_mutex_lock(&co_mutex);
    qemu_co_mutex_unlock(&co_mutex);
    qemu_co_rwlock_unlock(&rwlock);
    qatomic_dec(&reads);
}

static void reader_admitted_but_not_awake(void)
{
    qemu_co_rwlock_init(&rwlock);
    aio_co_enter(io_ctx[0], qemu_coroutine_create(write_until_entered, NULL));
    wait_for_flag(&flag);
    aio_co_enter(io_ctx[1], qemu_coroutine_create(lock_then_read, NULL));
    wait_for_flag(&other_flag);
    /* their loops have turned: both have yielded */
    aio_wait_bh_oneshot(io_ctx[0], take_mutex, NULL);
    aio_wait_bh_oneshot(io_ctx[1], take_mutex, NULL);
    qatomic_set(&flag, false);
    aio_co_wake(writer);
    wait_for_flag(&flag);
    qatomic_inc(&reads);
    qemu_coroutine_enter(qemu_coroutine_create(read_then_lock, NULL));
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&reads) > 0);
}

/* Nested sections, and requests in all of them. */
static void drain_second(void *opaque)
{
    bdrv_drain(blk_bs(second));
}

static void drains_in_drains(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);

    second = disk("second", io_ctx[1], sleep_in_loop);
    start_read(blk);
    start_read(second);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), drain_second, NULL);
    bdrv_drained_begin(blk_bs(blk));
    start_read(second);
    bdrv_drain_all_begin();
    bdrv_drain_all_end();
    bdrv_drained_end(blk_bs(blk));
    free_disk(blk);
    free_disk(second);
}

static void graph_writer_and_readers(void)
{
    aio_co_enter(io_ctx[0], qemu_coroutine_create(read_graph, NULL));
    aio_co_enter(io_ctx[1], qemu_coroutine_create(read_graph, NULL));
    bdrv_graph_wrlock();
    bdrv_graph_wrunlock();
    aio_co_enter(io_ctx[0], qemu_coroutine_create(read_graph, NULL));
    bdrv_graph_wrlock();
    bdrv_graph_wrunlock();
    bdrv_graph_wrlock();
    bdrv_graph_wrunlock();
}

/* A loop that goes from one thread to another, which may then do what it likes. */
static AioContext *loop;
static bool done;

static void *turn_then_take_mutex(void *still_bound)
{
    qemu_set_current_aio_context(loop);
    while (!qatomic_read(&flag)) {
        aio_poll(loop, true);
    }
    if (!still_bound) {
        qemu_set_current_aio_context(NULL);
    }
    set_flag(&other_flag);
    take_mutex(NULL);
    qemu_set_current_aio_context(NULL);
    return NULL;
}

static void *turn_until_done(void *opaque)
{
    qemu_set_current_aio_context(loop);
    while (!qatomic_read(&done)) {
        aio_poll(loop, true);
    }
    qemu_set_current_aio_context(NULL);
    return NULL;
}

static void set_flag_in_loop(void *opaque)
{
    set_flag(opaque);
}

static void hand_loop_over(bool still_bound)
{
    QemuThread first, next;

    loop = aio_context_new(&error_abort);
    qemu_mutex_lock(&mutex);
    qemu_thread_create(&first, "first", turn_then_take_mutex, still_bound ? loop : NULL,
                       QEMU_THREAD_JOINABLE);
    aio_bh_schedule_oneshot(loop, set_flag_in_loop, &flag);
    wait_for_flag(&other_flag);
    qemu_thread_create(&next, "next", turn_until_done, NULL, QEMU_THREAD_JOINABLE);
    aio_wait_bh_oneshot(loop, nothing_to_do, NULL);
    qemu_mutex_unlock(&mutex);
    aio_bh_schedule_oneshot(loop, set_flag_in_loop, &done);
    qemu_thread_join(&next);
    qemu_thread_join(&first);
    aio_context_unref(loop);
}

static void loop_handed_over(void)
{
    hand_loop_over(false);
}

/* ---- what is supposed ------------------------------------------------------------------- */

/*
 * These would end, and are circles all the same: each breaks one of the two rules by which a
 * circle is known. A case that is no circle any more has made a rule superfluous.
 *
 *      main                                    io0
 *      takes mutex
 *      drained_begin: polls
 *          waits for other_flag
 *                                              sets other_flag
 *                                              wants mutex: a circle is seen
 *          gives mutex back
 */
static void set_other_flag_and_take_mutex(void *opaque)
{
    set_flag(&other_flag);
    take_mutex(NULL);
}

static void release_mutex(void *opaque)
{
    wait_for_flag(&other_flag);
    qemu_mutex_unlock(&mutex);
}

static void lock_given_back_by_a_callback(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], sleep_in_loop);

    start_read(blk);
    wait_for_flag(&flag);
    qemu_mutex_lock(&mutex);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), release_mutex, NULL);
    aio_bh_schedule_oneshot(io_ctx[0], set_other_flag_and_take_mutex, NULL);
    bdrv_drain(blk_bs(blk));
    free_disk(blk);
}

/* Its first thread still has it, as far as anybody knows, while the next one turns it. */
static void loop_with_two_threads(void)
{
    hand_loop_over(true);
}

/* ---- all of them ------------------------------------------------------------------------ */

enum { MANY = 2000 };

static const LabCase cases[] = {
    { "/circle/mutex-over-drain", mutex_over_drain, LAB_CYCLE,
      { "main would wait for itself", "main, in drained_begin of node 'disk', waits for "
        "request R1 (read 4096+512 of disk)", "waits for a timer of the loop of IO io0",
        "IO io0 waits for lock mutex, held by main" } },
    { "/circle/context-lock-over-drain", context_lock_over_drain, LAB_CYCLE,
      { "main would wait for itself", "IO io0 waits for context lock of 'io1', held by main" } },
    { "/circle/mutex-over-bh", mutex_over_bh, LAB_CYCLE,
      { "main, in AIO_WAIT_WHILE(bh_is_pending(&w)), waits for the bottom half of IO io0",
        "IO io0 waits for lock mutex, held by main" } },
    { "/circle/two-co-mutexes", two_co_mutexes, LAB_CYCLE,
      { "would wait for itself", "waits for CoMutex co_mutex, held by request R",
        "waits for CoMutex other_co_mutex, held by request R" } },
    { "/circle/two-co-mutexes-unwatched", two_co_mutexes_unwatched, LAB_CYCLE,
      { "would wait for itself", "waits for CoMutex other_co_mutex, held by request R" } },
    { "/circle/rwlock-over-parking", rwlock_over_parking, LAB_CYCLE,
      { "waits for CoRwlock rwlock, held by coroutine C",
        "waits for the end of a drained section of main" } },
    { "/circle/request-behind-request", request_behind_request, LAB_CYCLE,
      { "main, in drained_begin of all nodes, waits for request R1",
        "waits for the end of a drained section of main" } },
    { "/circle/drain-in-a-request", drain_in_a_request, LAB_CYCLE,
      { "main, in drained_begin of node 'disk', waits for request R1",
        "request R1 (read 4096+512 of disk) waits for a drained section of main" } },
    { "/circle/synchronous-read", synchronous_read, LAB_CYCLE,
      { "main, in AIO_WAIT_WHILE(still_runs(&r, co)), waits for request R1",
        "waits for CoMutex co_mutex, held by coroutine C",
        "waits for a timer of the loop of IO io0" } },
    { "/circle/mutex-over-graph-lock", mutex_over_graph_lock, LAB_CYCLE,
      { "waits for the graph lock of coroutine C", "waits for a timer of the loop of IO io0",
        "IO io0 waits for lock mutex, held by main" } },
    { "/circle/mutex-over-job", mutex_over_job, LAB_CYCLE,
      { "main, in AIO_WAIT_WHILE(at_work(job)), waits for coroutine C",
        "waits for a timer of the loop of IO io0" } },
    { "/circle/context-lock-of-a-coroutine", context_lock_of_a_coroutine, LAB_CYCLE,
      { "IO io0 waits for context lock of 'io1', held by coroutine C",
        "waits for CoMutex co_mutex, held by request R1" } },
    { "/circle/mutex-in-many-waits", mutex_in_many_waits, LAB_CYCLE,
      { "main, in AIO_WAIT_WHILE(bh_is_pending(&w)), waits for the bottom half of IO io0",
        "IO io0 waits for lock mutex, held by main" } },
    { "/circle/lock-beyond-many", lock_beyond_many, LAB_CYCLE,
      { "waits for CoMutex locks+", "waits for CoMutex co_mutex, held by coroutine C" } },
    { "/circle/long-way", long_way, LAB_CYCLE,
      { "main would wait for itself", "main, in drained_begin of node 'disk'", " more ...",
        "IO io0 waits for lock mutex, held by main" } },

    { "/ends/lock-in-a-nested-wait", lock_in_a_nested_wait, .schedules = MANY },
    { "/ends/bh-before-the-mutex", bh_before_the_mutex, .schedules = MANY },
    { "/ends/bh-then-mutex", bh_then_mutex, .schedules = MANY },
    { "/ends/section-ended-by-a-callback", section_ended_by_a_callback, .schedules = MANY },
    { "/ends/context-lock-that-is-dropped", context_lock_that_is_dropped, .schedules = MANY },
    { "/ends/context-lock-over-yield", context_lock_over_yield, .schedules = MANY },
    { "/ends/lock-of-the-innermost-coroutine", lock_of_the_innermost_coroutine,
      .schedules = MANY },
    { "/ends/condition-of-somebody-else", condition_of_somebody_else, .schedules = MANY },
    { "/ends/lock-of-a-sleeper", lock_of_a_sleeper, .schedules = MANY },
    { "/ends/rwlock-beside-parking", rwlock_beside_parking, .schedules = MANY },
    { "/ends/reader-admitted-but-not-awake", reader_admitted_but_not_awake,
      .schedules = 10 * MANY },
    { "/ends/drains-in-drains", drains_in_drains, .schedules = MANY },
    { "/ends/graph-writer-and-readers", graph_writer_and_readers, .schedules = MANY },
    { "/ends/loop-handed-over", loop_handed_over, .schedules = MANY },

    { "/supposed/lock-given-back-by-a-callback", lock_given_back_by_a_callback, LAB_CYCLE,
      { "main, in drained_begin of node 'disk', waits for request R1",
        "IO io0 waits for lock mutex, held by main" } },
    { "/supposed/loop-with-two-threads", loop_with_two_threads, LAB_CYCLE,
      { "main, in AIO_WAIT_WHILE(bh_is_pending(&w)), waits for a bottom half in the loop of "
        "first", "first waits for lock mutex, held by main" } },
};

int main(int argc, char **argv)
{
    hook_disk_init(&argc, &argv);
    qemu_co_mutex_init(&co_mutex);
    qemu_co_mutex_init(&other_co_mutex);
    lab_cases_add(cases, G_N_ELEMENTS(cases));
    return g_test_run();
}
