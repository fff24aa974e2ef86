/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads and locks of the lab, shaped like the calls they replace: port-lab.h and
 * interpose.c lead to them. Results are those of pthreads (an errno value, positive).
 *
 * The state of a lock lives in the pthread object itself, all zero bytes being a free one, so
 * static initialisers work and the state is put back with the rest of the memory.
 */
#ifndef LAB_SYNC_H
#define LAB_SYNC_H

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* KIND: PTHREAD_MUTEX_NORMAL, _RECURSIVE or _ERRORCHECK. */
int lab_mutex_init(pthread_mutex_t *m, int kind);
int lab_mutex_destroy(pthread_mutex_t *m);
int lab_mutex_lock(pthread_mutex_t *m);
int lab_mutex_trylock(pthread_mutex_t *m);
int lab_mutex_unlock(pthread_mutex_t *m);

int lab_cond_init(pthread_cond_t *c, clockid_t clock);
int lab_cond_destroy(pthread_cond_t *c);
int lab_cond_signal(pthread_cond_t *c);
int lab_cond_broadcast(pthread_cond_t *c);
int lab_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
/* By the lab's monotonic clock; ETIMEDOUT. */
int lab_cond_wait_until(pthread_cond_t *c, pthread_mutex_t *m, int64_t deadline_ns);
/* By the clock that C was made for. */
int lab_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *deadline);

int lab_rwlock_init(pthread_rwlock_t *l);
int lab_rwlock_destroy(pthread_rwlock_t *l);
int lab_rwlock_rdlock(pthread_rwlock_t *l);
int lab_rwlock_wrlock(pthread_rwlock_t *l);
int lab_rwlock_tryrdlock(pthread_rwlock_t *l);
int lab_rwlock_trywrlock(pthread_rwlock_t *l);
int lab_rwlock_unlock(pthread_rwlock_t *l);

/* Sleep while *ADDRESS == VALUE. 0, -EAGAIN, -ETIMEDOUT. TIMEOUT_NS < 0: none. */
int lab_futex_wait(const void *address, uint32_t value, int64_t timeout_ns);
/* How many were woken. */
int lab_futex_wake(const void *address, int n);

int lab_once(pthread_once_t *once, void (*fn)(void));

/* Keys below this one are libc's. */
enum { LAB_KEY_FIRST = PTHREAD_KEYS_MAX };
int lab_key_create(pthread_key_t *key, void (*destructor)(void *));
int lab_key_delete(pthread_key_t key);
int lab_key_set(pthread_key_t key, const void *value);
void *lab_key_get(pthread_key_t key);

int lab_thread_create(pthread_t *thread, void *(*start)(void *), void *arg, bool detached);
int lab_thread_join(pthread_t thread, void **result);
int lab_thread_detach(pthread_t thread);
void lab_thread_exit(void *result) __attribute__((noreturn));
pthread_t lab_thread_self(void);
int lab_thread_set_name(pthread_t thread, const char *name);
/* What gettid() says: LAB_PID + number. */
enum { LAB_PID = 1000 };
int lab_thread_id(void);
void lab_thread_yield(void);            /* sched_yield(), a turn of a busy-waiting loop */

#endif
