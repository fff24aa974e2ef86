/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the library has said about its objects: tables, for note.c, waitfor.c and circle.c. */
#include "miniblk/osdep.h"
#include "lab/note.h"

enum { INDEX = 4 * LAB_FACTS_MAX };

/* In the order in which they were noted; found by a hash of the address. */
static LabFact facts[LAB_FACTS_MAX] LAB_LAST;
static unsigned n_facts LAB_LAST;
static uint16_t by_address[INDEX] LAB_LAST;     /* number + 1 */

static bool missing LAB_LAST;

static LabHold *holds;
static unsigned n_holds, holds_room;

static uint16_t *slot_of(const void *object)
{
    unsigned i = ((uintptr_t)object * 0x9e3779b97f4a7c15) >> 32;
    while (by_address[i % INDEX] && facts[by_address[i % INDEX] - 1].object != object) {
        i++;
    }
    return &by_address[i % INDEX];
}

LabFact *lab__fact(const void *object)
{
    uint16_t *slot = slot_of(object);
    return *slot ? &facts[*slot - 1] : NULL;
}

LabFact *lab__fact_for(const void *object)
{
    uint16_t *slot = slot_of(object);
    if (!*slot) {
        if (n_facts == LAB_FACTS_MAX) {
            missing = true;
            return NULL;
        }
        facts[n_facts] = (LabFact) { .object = object };
        *slot = ++n_facts;
    }
    return &facts[*slot - 1];
}

LabFact *lab__facts(unsigned *count)
{
    *count = n_facts;
    return facts;
}

bool lab__facts_are_missing(void)
{
    return missing;
}

const char *lab__note_name(const void *object)
{
    const LabFact *f = lab__fact(object);
    bool has_name = f && (f->kind == LAB_FACT_NAME || f->kind == LAB_FACT_QUEUE ||
                          f->kind == LAB_FACT_TURN);
    return has_name && f->text[0] ? f->text : NULL;
}

void *lab__grown(void *array, unsigned n, unsigned *room, size_t size)
{
    enum { FIRST_ROOM = 8 };

    if (n < *room) {
        return array;
    }
    *room = *room ? 2 * *room : FIRST_ROOM;
    return g_realloc_n(array, *room, size);
}

/* ---- who holds what -------------------------------------------------------------------- */

const LabHold *lab__holds(unsigned *count)
{
    *count = n_holds;
    return holds;
}

void lab__hold_add(const LabHold *hold)
{
    holds = lab__grown(holds, n_holds, &holds_room, sizeof(*holds));
    holds[n_holds++] = *hold;
}

static void remove_hold(unsigned i)
{
    n_holds--;
    memmove(&holds[i], &holds[i + 1], (n_holds - i) * sizeof(holds[0]));
}

void lab__hold_remove(const void *object, const void *coroutine)
{
    int found = -1;

    for (unsigned i = n_holds; i-- > 0;) {
        if (holds[i].object == object) {
            if (holds[i].coroutine == coroutine) {
                found = i;
                break;
            }
            found = found < 0 ? (int)i : found;
        }
    }
    if (found >= 0) {
        remove_hold(found);
    }
}

void lab__hold_clear(const void *object)
{
    for (unsigned i = n_holds; i-- > 0;) {
        if (holds[i].object == object) {
            remove_hold(i);
        }
    }
}

void lab__hold_forget(const void *coroutine)
{
    for (unsigned i = n_holds; i-- > 0;) {
        if (holds[i].coroutine == coroutine) {
            remove_hold(i);
        }
    }
}

void lab__hold_end_section(uint32_t section)
{
    for (unsigned i = n_holds; i-- > 0;) {
        if (holds[i].section == section) {
            remove_hold(i);
        }
    }
}
