/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stack switching with ucontext, for machines without one of our own. Each switch costs a
 * system call (swapcontext saves the signal mask).
 */
#include <ucontext.h>
#include "aio/coroutine-internal.h"

static void start(void)
{
    coroutine__main();
}

void coroutine__stack_prepare(Coroutine *co)
{
    /* The initial context sits at the far end of the stack, out of the frames' way. */
    ucontext_t *uc = co->stack;
    if (getcontext(uc) < 0) {
        abort();
    }
    uc->uc_stack.ss_sp = (char *)co->stack + sizeof(*uc);
    uc->uc_stack.ss_size = co->stack_size - sizeof(*uc);
    uc->uc_link = NULL;
    makecontext(uc, start, 0);
    co->sp = uc;
}

void coroutine__switch(void **save_sp, void *to_sp)
{
    ucontext_t self;
    *save_sp = &self;
    swapcontext(&self, to_sp);
}
