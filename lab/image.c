/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The process image: what g_test_run() found is put back before each schedule.
 *
 *      static data of the program and its libraries    by pages, those that were ever written
 *      base memory (arena.c), the stack of main()      likewise
 *      thread-local variables of the main thread       always
 *      stacks of threads and coroutines                fiber.c
 *
 * When the image is taken all of it becomes read-only. The first write to a page faults: the
 * handler keeps a copy of the page, still as it was, and lets it be written for ever. So the
 * cost of putting back is that of copying the pages which the schedules do write, some dozens,
 * and there are no more faults once they are known.
 *
 * Not put back: LAB_KEEP variables, and the loader's data, whose memory (for a library that is
 * loaded in the middle of a schedule) is keep memory.
 */
#include "miniblk/osdep.h"
#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "lab/engine.h"
#include "lab/world.h"
#include "lab/arena.h"
#include "lab/fault.h"
#include "lab/lab-config.h"

enum { RANGES_MAX = 128, PAGES_MAX = 1 << 18 };

/* Part of the image, whole pages; by page, the place of its copy. */
typedef struct Range {
    uintptr_t start, end;
    uint32_t *copy_of;          /* [pages], 0: not written yet, otherwise index + 1 */
} Range;

/* A copy, and where it goes: a page, or less where the rest of it is not the image's. */
typedef struct Copy {
    uintptr_t start;
    uint32_t size;
} Copy;

bool lab_frozen LAB_KEEP;
static LAB_KEEP Range ranges[RANGES_MAX];
static LAB_KEEP unsigned range_count;
static LAB_KEEP Copy *copies;           /* [PAGES_MAX] */
static LAB_KEEP char *copied;           /* [PAGES_MAX] pages */
static LAB_KEEP unsigned copy_count;

extern char __start_lab_keep[], __stop_lab_keep[];

bool lab_world_restores(void)
{
    return LAB_OWNS_MEMORY;
}

static void __attribute__((noreturn, format(printf, 1, 2))) fatal(const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    int length = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    /* by nothing that would allocate memory: there may be none */
    syscall(SYS_write, STDERR_FILENO, text, MIN((size_t)length, sizeof(text) - 1));
    _exit(125);
}

void *lab_reserve(uintptr_t address, size_t size, int protection)
{
    void *p = mmap((void *)address, size, protection,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
                   (address ? MAP_FIXED_NOREPLACE : 0), -1, 0);

    if (p == MAP_FAILED || (address && p != (void *)address)) {
        fatal("miniblk-lab: no room for %zu MiB at %#lx: %s\n", size >> 20,
              (unsigned long)address, strerror(errno));
    }
    return p;
}

/* ---- what belongs to the image ---------------------------------------------------------- */

/* [START, START + SIZE) is put back every time. */
static unsigned add_copy(uintptr_t start, size_t size)
{
    if (copy_count == PAGES_MAX) {
        fatal("miniblk-lab: the program writes more than %d MiB of static data\n",
              PAGES_MAX / 1024 * LAB_PAGE / 1024);
    }
    copies[copy_count] = (Copy){ start, size };
    memcpy(copied + (size_t)copy_count * LAB_PAGE, (void *)start, size);
    return copy_count++;
}

static void add_small(uintptr_t start, uintptr_t end)
{
    while (start < end) {
        size_t size = MIN(end - start, (size_t)LAB_PAGE);
        add_copy(start, size);
        start += size;
    }
}

static void add_pages(uintptr_t start, uintptr_t end)
{
    if (start >= end) {
        return;
    }
    if (range_count == RANGES_MAX) {
        fatal("miniblk-lab: the program has more than %d libraries\n", RANGES_MAX);
    }
    ranges[range_count++] = (Range){
        .start = start, .end = end,
        .copy_of = lab_reserve(0, (end - start) / LAB_PAGE * sizeof(uint32_t),
                               PROT_READ | PROT_WRITE),
    };
}

/* Bytes [start, end): its whole pages by fault, the rest always. */
static void add_bytes(uintptr_t start, uintptr_t end)
{
    uintptr_t first = ROUND_UP(start, (uintptr_t)LAB_PAGE);
    uintptr_t last = ROUND_DOWN(end, (uintptr_t)LAB_PAGE);

    if (first >= last) {
        add_small(start, end);
        return;
    }
    add_small(start, first);
    add_pages(first, last);
    add_small(last, end);
}

/* Less the variables that are kept. */
static void add_data(uintptr_t start, uintptr_t end)
{
    uintptr_t keep_start = (uintptr_t)__start_lab_keep, keep_end = (uintptr_t)__stop_lab_keep;

    if (keep_start >= start && keep_start < end) {
        add_bytes(start, keep_start);
        add_bytes(keep_end, end);
    } else {
        add_bytes(start, end);
    }
}

static void add_segment(const struct dl_phdr_info *info, const ElfW(Phdr) *ph,
                        uintptr_t relro_start, uintptr_t relro_end)
{
    uintptr_t start = info->dlpi_addr + ph->p_vaddr, end = start + ph->p_memsz;

    if (relro_start >= start && relro_start < end) {
        /* the loader has made it read-only, to the end of its last whole page */
        start = MAX(start, relro_end);
    }
    add_data(start, end);
}

static int add_object(struct dl_phdr_info *info, size_t size, void *opaque)
{
    uintptr_t *tls_low = opaque;
    uintptr_t relro_start = 0, relro_end = 0;

    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type == PT_GNU_RELRO) {
            relro_start = info->dlpi_addr + ph->p_vaddr;
            relro_end = ROUND_DOWN(relro_start + ph->p_memsz, (uintptr_t)LAB_PAGE);
        } else if (ph->p_type == PT_TLS && info->dlpi_tls_data) {
            *tls_low = MIN(*tls_low, (uintptr_t)info->dlpi_tls_data);
        }
    }
    if (info->dlpi_addr == getauxval(AT_BASE)) {
        return 0;       /* the loader; without one it is the program's own, which is 0 */
    }
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type == PT_LOAD && (ph->p_flags & PF_W)) {
            add_segment(info, ph, relro_start, relro_end);
        }
    }
    return 0;
}

static uintptr_t stack_end(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    uintptr_t here = (uintptr_t)line, start, end;

    while (maps && fgets(line, sizeof(line), maps)) {
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && here >= start && here < end) {
            fclose(maps);
            return end;
        }
    }
    fatal("miniblk-lab: /proc/self/maps has no stack\n");
}

/* ---- taking it ------------------------------------------------------------------------- */

void lab_world_freeze(void *frame)
{
    uintptr_t base_start, base_end, tls_low = (uintptr_t)__builtin_thread_pointer();

    lab_frozen = true;
    if (!LAB_OWNS_MEMORY) {
        lab_sanitizer_prepare();
        return;
    }
    copies = lab_reserve(0, PAGES_MAX * sizeof(Copy), PROT_READ | PROT_WRITE);
    copied = lab_reserve(0, PAGES_MAX * (size_t)LAB_PAGE, PROT_READ | PROT_WRITE);
    uintptr_t end = stack_end();        /* before the image: it uses stdio */
    lab__fibers_save();
    lab_fault_install();
    lab_arena_freeze();
    lab_arena_base(&base_start, &base_end);

    add_pages(base_start, base_end);
    dl_iterate_phdr(add_object, &tls_low);
    add_small(tls_low, (uintptr_t)__builtin_thread_pointer());
    add_bytes((uintptr_t)frame, end);
    for (unsigned i = 0; i < range_count; i++) {
        if (mprotect((void *)ranges[i].start, ranges[i].end - ranges[i].start,
                     PROT_READ) < 0) {
            fatal("miniblk-lab: mprotect: %s\n", strerror(errno));
        }
    }
}

bool lab_image_fault(uintptr_t address)
{
    for (unsigned i = 0; i < range_count; i++) {
        Range *r = &ranges[i];
        if (address < r->start || address >= r->end) {
            continue;
        }
        uintptr_t page = ROUND_DOWN(address, (uintptr_t)LAB_PAGE);
        uint32_t *copy = &r->copy_of[(page - r->start) / LAB_PAGE];
        if (*copy) {
            return false;       /* it is writable: something else is wrong */
        }
        *copy = add_copy(page, LAB_PAGE) + 1;
        return mprotect((void *)page, LAB_PAGE, PROT_READ | PROT_WRITE) == 0;
    }
    return lab_pages_fault(address);
}

void lab_image_touch(void *address, size_t size)
{
    volatile char *p = address;

    if (!LAB_OWNS_MEMORY || !lab_frozen || !size) {
        return;
    }
    for (size_t i = 0; i < size; i += LAB_PAGE) {
        p[i] = p[i];
    }
    p[size - 1] = p[size - 1];
}

/* ---- putting it back -------------------------------------------------------------------- */

void lab_world_reset(void)
{
    const char *from = copied;

    if (!LAB_OWNS_MEMORY || !lab_frozen) {
        return;
    }
    for (unsigned i = 0; i < copy_count; i++, from += LAB_PAGE) {
        memcpy((void *)copies[i].start, from, copies[i].size);
    }
    lab_arena_reset();
    lab__fibers_restore();
}

size_t lab_image_dirty_pages(void)
{
    return copy_count;
}
