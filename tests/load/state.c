/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include <sys/mman.h>
#include "state.h"

#define STATE_MAGIC 0x316574617453644cull       /* "LdState1" */
/* Not a multiple of a cluster's 16 blocks: neighbours then meet inside a cluster. */
#define SLICE_RUN_BLOCKS 24
#define MAX_BLOCKS (64u << 20)

typedef struct StateHeader {
    uint64_t magic;
    uint64_t total_count;
    uint64_t count;
    uint32_t client, slice, slices, reserved;
} StateHeader;

/* ---- block lists ------------------------------------------------------------------ */

static bool append_extent(GArray *array, uint64_t offset_bytes, uint64_t length_bytes)
{
    uint64_t next = array->len
        ? g_array_index(array, uint64_t, array->len - 1) + LOAD_BLOCK_BYTES : 0;

    if (offset_bytes % LOAD_BLOCK_BYTES || length_bytes % LOAD_BLOCK_BYTES
        || offset_bytes < next || offset_bytes + length_bytes < offset_bytes
        || length_bytes / LOAD_BLOCK_BYTES > MAX_BLOCKS - array->len) {
        return false;
    }
    for (uint64_t o = offset_bytes; o < offset_bytes + length_bytes; o += LOAD_BLOCK_BYTES) {
        g_array_append_val(array, o);
    }
    return true;
}

static void take_array(BlockList *list, GArray *array)
{
    list->count = array->len;
    list->offset_bytes = (uint64_t *)(void *)g_array_free(array, FALSE);
}

bool block_list_load(BlockList *list, const char *filename)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    g_autoptr(GError) err = NULL;
    GArray *array;

    if (!g_file_get_contents(filename, &text, NULL, &err)) {
        fprintf(stderr, "%s\n", err->message);
        return false;
    }
    array = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        uint64_t offset, length;
        char junk;

        if (!lines[i][0]) {
            continue;
        }
        if (sscanf(lines[i], "%" SCNu64 " %" SCNu64 " %c", &offset, &length, &junk) != 2
            || !append_extent(array, offset, length)) {
            fprintf(stderr, "%s: line %u is no extent in ascending order: '%s'\n", filename,
                    i + 1, lines[i]);
            g_array_free(array, TRUE);
            return false;
        }
    }
    take_array(list, array);
    if (!list->count) {
        fprintf(stderr, "%s: no blocks\n", filename);
        block_list_free(list);
    }
    return list->count > 0;
}

bool block_list_from_region(BlockList *list, uint64_t offset_bytes, uint64_t length_bytes)
{
    GArray *array = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    bool ok = length_bytes && append_extent(array, offset_bytes, length_bytes);

    take_array(list, array);
    if (!ok) {
        fprintf(stderr, "A region must be a multiple of %d bytes\n", LOAD_BLOCK_BYTES);
        block_list_free(list);
    }
    return ok;
}

void block_list_free(BlockList *list)
{
    g_free(list->offset_bytes);
    *list = (BlockList){ 0 };
}

/* Index of the first block that ends after OFFSET_BYTES. */
static size_t lower_bound(const BlockList *list, uint64_t offset_bytes)
{
    size_t low = 0, high = list->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (list->offset_bytes[mid] + LOAD_BLOCK_BYTES <= offset_bytes) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

bool block_list_overlaps(const BlockList *list, uint64_t offset_bytes, uint64_t length_bytes)
{
    size_t i = lower_bound(list, offset_bytes);

    return i < list->count && list->offset_bytes[i] < offset_bytes + length_bytes;
}

static void make_slice(BlockList *mine, const BlockList *all, uint32_t slice, uint32_t slices)
{
    GArray *array = g_array_new(FALSE, FALSE, sizeof(uint64_t));

    for (size_t i = 0; i < all->count; i++) {
        if (i / SLICE_RUN_BLOCKS % slices == slice) {
            g_array_append_val(array, all->offset_bytes[i]);
        }
    }
    take_array(mine, array);
}

/* ---- the mapped file -------------------------------------------------------------- */

static bool map_file(LoadState *state, const char *filename, size_t bytes, bool create)
{
    int fd = -1;
    struct stat st;

    state->map_bytes = bytes;
    if (!filename) {
        state->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
    } else {
        fd = open(filename, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0644);
        if (fd < 0 || fstat(fd, &st) < 0
            || (create && st.st_size == 0 && ftruncate(fd, bytes) < 0)) {
            perror(filename);
            goto fail;
        }
        if (st.st_size != 0 && (uint64_t)st.st_size != bytes) {
            fprintf(stderr, "%s: belongs to another list of blocks\n", filename);
            goto fail;
        }
        state->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (state->map == MAP_FAILED) {
        perror("mmap");
        goto fail;
    }
    if (fd >= 0) {
        close(fd);
    }
    return true;
fail:
    if (fd >= 0) {
        close(fd);
    }
    state->map = NULL;
    return false;
}

static void quarantine_doubtful(LoadState *state)
{
    for (size_t i = 0; i < state->blocks.count; i++) {
        if (state->block[i].sure != state->block[i].maybe) {
            state->block[i].quarantined = 1;
        }
    }
}

bool load_state_open(LoadState *state, const char *filename, const BlockList *all,
                     uint32_t client, uint32_t slice, uint32_t slices)
{
    StateHeader want, *header;

    *state = (LoadState){ .client = client };
    make_slice(&state->blocks, all, slice, slices);
    if (!map_file(state, filename,
                  sizeof(want) + state->blocks.count * sizeof(BlockState), true)) {
        load_state_close(state);
        return false;
    }
    want = (StateHeader){
        .magic = STATE_MAGIC, .total_count = all->count, .count = state->blocks.count,
        .client = client, .slice = slice, .slices = slices };
    header = state->map;
    if (!header->magic) {
        *header = want;
    } else if (memcmp(header, &want, sizeof(want)) != 0) {
        fprintf(stderr, "%s: belongs to another client or list of blocks\n", filename);
        load_state_close(state);
        return false;
    }
    state->block = (BlockState *)(header + 1);
    quarantine_doubtful(state);
    return true;
}

bool load_state_reopen(LoadState *state, const char *filename, const BlockList *all)
{
    StateHeader header;
    int fd = open(filename, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : pread(fd, &header, sizeof(header), 0);

    if (fd >= 0) {
        close(fd);
    }
    if (got != sizeof(header) || header.magic != STATE_MAGIC || !header.slices
        || header.total_count != all->count) {
        fprintf(stderr, "%s: no state file for this list of blocks\n", filename);
        return false;
    }
    return load_state_open(state, filename, all, header.client, header.slice, header.slices);
}

void load_state_close(LoadState *state)
{
    if (state->map) {
        munmap(state->map, state->map_bytes);
    }
    block_list_free(&state->blocks);
    *state = (LoadState){ 0 };
}

size_t load_state_in_doubt(const LoadState *state)
{
    size_t n = 0;

    for (size_t i = 0; i < state->blocks.count; i++) {
        n += state->block[i].sure != state->block[i].maybe;
    }
    return n;
}

/* ---- the reference image ---------------------------------------------------------- */

bool reference_open(Reference *ref, const char *filename)
{
    struct stat st;
    int fd = open(filename, O_RDONLY | O_CLOEXEC);
    void *map;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0) {
        fprintf(stderr, "%s: %s\n", filename, fd < 0 ? strerror(errno) : "no data");
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) {
        perror(filename);
        return false;
    }
    *ref = (Reference){ .data = map, .size_bytes = st.st_size };
    return true;
}

void reference_close(Reference *ref)
{
    if (ref->data) {
        munmap((void *)ref->data, ref->size_bytes);
    }
    *ref = (Reference){ 0 };
}

/* ---- verdicts --------------------------------------------------------------------- */

/* Whether DATA is what generation GEN of the block at OFFSET looks like. */
static bool is_generation(const LoadState *state, uint64_t offset, uint32_t gen,
                          const uint8_t *data, BlockVerdict verdict, const BlockInfo *found,
                          const Reference *ref)
{
    if (gen == 0) {
        return !ref->data || (offset + LOAD_BLOCK_BYTES <= ref->size_bytes
                              && memcmp(ref->data + offset, data, LOAD_BLOCK_BYTES) == 0);
    }
    if (gen & LOAD_GEN_ZEROES) {
        return verdict == BLOCK_ZERO;
    }
    return verdict == BLOCK_GOOD && found->generation == gen;
}

static char *describe(const LoadState *state, uint64_t offset, const BlockState *want,
                      BlockVerdict verdict, const BlockInfo *found)
{
    g_autofree char *expected = want->sure == want->maybe
        ? g_strdup_printf("generation %u%s", LOAD_GEN_NUMBER(want->sure),
                          want->sure & LOAD_GEN_ZEROES ? " (zeroes)" : "")
        : g_strdup_printf("generation %u%s or %u%s", LOAD_GEN_NUMBER(want->sure),
                          want->sure & LOAD_GEN_ZEROES ? " (zeroes)" : "",
                          LOAD_GEN_NUMBER(want->maybe),
                          want->maybe & LOAD_GEN_ZEROES ? " (zeroes)" : "");
    const char *prefix = "block of client";

    switch (verdict) {
    case BLOCK_ZERO:
        return g_strdup_printf("lost write: %s %u at offset %" PRIu64
                               " reads as zeroes, expected %s", prefix, state->client,
                               offset, expected);
    case BLOCK_MISPLACED:
        return g_strdup_printf("misplaced write: %s %u at offset %" PRIu64 " has generation "
                               "%u of client %u for offset %" PRIu64 ", expected %s", prefix,
                               state->client, offset, found->generation, found->client,
                               found->offset_bytes, expected);
    case BLOCK_TORN:
        return g_strdup_printf("torn block: %s %u at offset %" PRIu64
                               " fails its checksum, expected %s", prefix, state->client,
                               offset, expected);
    case BLOCK_FOREIGN:
        return g_strdup_printf("foreign data: %s %u at offset %" PRIu64 ", expected %s",
                               prefix, state->client, offset, expected);
    case BLOCK_GOOD:
    default:
        return g_strdup_printf("%s: %s %u at offset %" PRIu64 " has generation %u, "
                               "expected %s",
                               found->generation < LOAD_GEN_NUMBER(want->sure)
                               ? "stale data" : "wrong data", prefix, state->client, offset,
                               found->generation, expected);
    }
}

char *load_state_check(LoadState *state, size_t index, const uint8_t *data,
                       const Reference *ref)
{
    BlockState *want = &state->block[index];
    uint64_t offset = state->blocks.offset_bytes[index];
    BlockInfo found = { 0 };
    BlockVerdict verdict = pattern_check(data, offset, state->client, &found);

    if (want->maybe != want->sure
        && is_generation(state, offset, want->maybe, data, verdict, &found, ref)) {
        /* It has happened: from now on the old contents would be an error. */
        want->sure = want->maybe;
        return NULL;
    }
    if (is_generation(state, offset, want->sure, data, verdict, &found, ref)) {
        return NULL;
    }
    return describe(state, offset, want, verdict, &found);
}
