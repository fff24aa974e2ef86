/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ledger: one bit per entry, set when it is closed; and sums per kind. */
#include "tests/soak/soak.h"

enum { KIND_BITS = 5, SLOT_BITS = 4, PRODUCER_BITS = 5, SEQUENCE_BITS = 50 };
G_STATIC_ASSERT(SOAK_KINDS <= 1 << KIND_BITS && SLOTS <= 1 << SLOT_BITS);
G_STATIC_ASSERT(PRODUCERS <= 1 << PRODUCER_BITS);

/* Bits of entries by producer, in pages allocated as the sequence grows. */
enum { PAGE_ENTRIES = 1 << 16, PAGES_MAX = 1 << 14 };
typedef struct Page { unsigned bits[PAGE_ENTRIES / 32]; } Page;

static Page **pages[PRODUCERS];
static uint32_t seed;
static struct {
    uint64_t expected, seen, voided;        /* atomic */
} sums[SOAK_KINDS];

static const char *const kind_names[SOAK_KINDS] = {
    [BH_ONESHOT] = "bottom half, one-shot",
    [BH_CHAINED] = "bottom half that schedules more",
    [BH_NESTED] = "bottom half that polls",
    [BH_REUSED] = "bottom half, scheduled by all",
    [BH_IDLE] = "bottom half, idle",
    [BH_CANCELLED] = "bottom half, cancelled",
    [BH_CANCELLED_AT_HOME] = "bottom half, cancelled at home",
    [BH_DELETED] = "bottom half, deleted",
    [BH_DELETES_ITSELF] = "bottom half, deletes itself",
    [TIMER_ONCE] = "timer",
    [TIMER_REARMED] = "timer, armed again",
    [TIMER_REARMS_ITSELF] = "timer, arms itself again",
    [TIMER_CANCELLED] = "timer, cancelled",
    [CO_ONCE] = "coroutine",
    [CO_JOURNEY] = "coroutine that travels",
    [CO_HOP] = "  move to another loop",
    [CO_WAKE_LOOP] = "  woken by another loop",
    [CO_WAKE_THREAD] = "  woken by a thread",
    [CO_SLEEP] = "  asleep until a time",
    [FD_EVENTFD] = "eventfd, writes",
    [FD_MOVED] = "eventfd, handler moved",
    [FD_RIVALS] = "eventfd, removed by another",
    [FD_PIPE] = "pipe",
    [FD_PIPE_WORDS] = "  words through it",
    [LOCK] = "context lock",
    [GLIB_SOURCE] = "another source in GLib's loop",
};

/* ---- entries ------------------------------------------------------------------------- */

static SoakKind id_kind(SoakId id)
{
    return id >> (SEQUENCE_BITS + PRODUCER_BITS + SLOT_BITS);
}
static unsigned id_slot(SoakId id)
{
    return (id >> (SEQUENCE_BITS + PRODUCER_BITS)) % (1 << SLOT_BITS);
}
static unsigned id_producer(SoakId id)
{
    return (id >> SEQUENCE_BITS) % (1 << PRODUCER_BITS);
}
static uint64_t id_sequence(SoakId id)
{
    return id % (UINT64_C(1) << SEQUENCE_BITS);
}

void ledger_init(uint32_t with_seed)
{
    seed = with_seed;
    for (int i = 0; i < PRODUCERS; i++) {
        pages[i] = g_new0(Page *, PAGES_MAX);
    }
}

void ledger_free(void)
{
    for (int i = 0; i < PRODUCERS; i++) {
        for (int page = 0; pages[i][page]; page++) {
            g_free(pages[i][page]);
        }
        g_free(pages[i]);
    }
}

SoakId ledger_open(SoakKind kind, Producer *p, const Slot *slot)
{
    /* from 1, so that no entry looks like a null pointer */
    uint64_t sequence = ++p->opened, page = sequence / PAGE_ENTRIES;

    g_assert(page < PAGES_MAX - 1);
    if (!pages[p->index][page]) {
        /* Seen by whoever is given the entry; making the work publishes it. */
        pages[p->index][page] = g_new0(Page, 1);
    }
    ledger_expect(kind, 1);
    return ((((SoakId)kind << SLOT_BITS | slot->index) << PRODUCER_BITS | p->index)
            << SEQUENCE_BITS) | sequence;
}

static void close_entry(SoakId id)
{
    Producer *p = &producers[id_producer(id)];
    uint64_t sequence = id_sequence(id);
    Page *page;

    if (!sequence || id_kind(id) >= SOAK_KINDS || id_producer(id) >= PRODUCERS ||
        sequence / PAGE_ENTRIES >= PAGES_MAX ||
        !(page = pages[id_producer(id)][sequence / PAGE_ENTRIES])) {
        soak_fail(0, "%" PRIx64 " is no entry", id);
    }
    if (slot_here() != &slots[id_slot(id)]) {
        soak_fail(id, "it ran in the loop of slot %d",
                  slot_here() ? (int)slot_here()->index : -1);
    }
    unsigned mask = 1u << sequence % 32;
    if (qatomic_fetch_or(&page->bits[sequence % PAGE_ENTRIES / 32], mask) & mask) {
        soak_fail(id, "it was seen twice, or after it was cancelled");
    }
    qatomic_inc(&p->closed);
    qemu_event_set(&p->progress);
}

void ledger_seen(SoakId id)
{
    close_entry(id);
    ledger_saw(id_kind(id), 1);
}

void ledger_void(SoakId id)
{
    close_entry(id);
    qatomic_inc(&sums[id_kind(id)].voided);
}

void ledger_expect(SoakKind kind, uint64_t n)
{
    qatomic_add(&sums[kind].expected, n);
}

void ledger_saw(SoakKind kind, uint64_t n)
{
    qatomic_add(&sums[kind].seen, n);
}

/* ---- judgement ----------------------------------------------------------------------- */

void ledger_check(void)
{
    for (int i = 0; i < PRODUCERS; i++) {
        for (uint64_t n = 1; n <= producers[i].opened; n++) {
            const Page *page = pages[i][n / PAGE_ENTRIES];
            if (!(page->bits[n % PAGE_ENTRIES / 32] & 1u << n % 32)) {
                soak_fail(0, "entry %" PRIu64 " of producer %d was lost", n, i);
            }
        }
    }
    for (int kind = 0; kind < SOAK_KINDS; kind++) {
        if (sums[kind].expected != sums[kind].seen + sums[kind].voided) {
            soak_fail(0, "%s: the sums do not agree", kind_names[kind]);
        }
        if (!sums[kind].seen && kind != BH_CANCELLED_AT_HOME && !g_getenv("MINIBLK_SOAK_OP")) {
            soak_fail(0, "%s: nothing was tried", kind_names[kind]);
        }
    }
}

void ledger_print(FILE *out)
{
    uint64_t expected = 0, seen = 0, voided = 0, generations = 0;

    fprintf(out, "# %-32s %12s %12s %12s\n", "", "expected", "seen", "cancelled");
    for (int kind = 0; kind < SOAK_KINDS; kind++) {
        uint64_t e = qatomic_read(&sums[kind].expected), s = qatomic_read(&sums[kind].seen);
        uint64_t v = qatomic_read(&sums[kind].voided);
        expected += e;
        seen += s;
        voided += v;
        fprintf(out, "# %-32s %12" PRIu64 " %12" PRIu64 " %12" PRIu64 "%s\n", kind_names[kind],
                e, s, v, e == s + v ? "" : "   <--");
    }
    fprintf(out, "# %-32s %12" PRIu64 " %12" PRIu64 " %12" PRIu64 "\n", "all", expected, seen,
            voided);
    for (int i = 0; i < LOOPS; i++) {
        generations += slots[i].generation;
    }
    fprintf(out, "# %d threads, %d loops at a time, %" PRIu64 " in all, seed %" PRIu32 "\n",
            THREADS, LOOPS, generations, seed);
    fflush(out);
}

void soak_fail(SoakId id, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "soak: ");
    if (id) {
        fprintf(stderr, "%s, entry %" PRIu64 " of producer %u, for slot %u: ",
                kind_names[id_kind(id)], id_sequence(id), id_producer(id), id_slot(id));
    }
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nsoak: MINIBLK_SOAK_SEED=%" PRIu32 " tries the same again\n", seed);
    ledger_print(stderr);
    abort();
}
