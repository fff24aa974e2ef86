/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "image.h"

#define MARK_CLIENT UINT32_MAX
#define PREPARE_CHUNK_BYTES (1 << 20)
#define ERRORS_PRINTED_MAX 20

bool image_fill(const char *filename, uint64_t bytes)
{
    uint8_t block[LOAD_BLOCK_BYTES];
    FILE *f = fopen(filename, "we");
    bool ok = f != NULL;

    for (uint64_t offset = 0; ok && offset < bytes; offset += sizeof(block)) {
        BlockInfo info = { .offset_bytes = offset, .generation = 1, .client = MARK_CLIENT };

        pattern_fill(block, &info);
        ok = fwrite(block, sizeof(block), 1, f) == 1;
    }
    if (f && fclose(f) != 0) {
        ok = false;
    }
    if (!ok) {
        perror(filename);
    }
    return ok;
}

static bool punch_hole(int fd, const char *image, uint64_t offset_bytes)
{
    static const uint8_t zeroes[LOAD_BLOCK_BYTES];

    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_bytes,
                  LOAD_BLOCK_BYTES) == 0
        || pwrite(fd, zeroes, sizeof(zeroes), offset_bytes) == sizeof(zeroes)) {
        return true;
    }
    perror(image);
    return false;
}

static bool is_mark(const uint8_t *block)
{
    BlockInfo found = { 0 };
    BlockVerdict verdict = pattern_check(block, 0, MARK_CLIENT, &found);

    /* A mark carries its place in the file, not on the disk. */
    return (verdict == BLOCK_GOOD || verdict == BLOCK_MISPLACED)
        && found.client == MARK_CLIENT;
}

bool image_prepare(const char *image, const BlockList *list)
{
    uint8_t block[LOAD_BLOCK_BYTES];
    int fd = open(image, O_RDWR | O_CLOEXEC);
    bool ok = fd >= 0;

    if (!ok) {
        perror(image);
        return false;
    }
    for (size_t i = 0; ok && i < list->count; i++) {
        ok = pread(fd, block, sizeof(block), list->offset_bytes[i]) == sizeof(block)
            && is_mark(block);
        if (!ok) {
            fprintf(stderr, "%s: offset %" PRIu64 " does not belong to the load's file\n",
                    image, list->offset_bytes[i]);
        }
    }
    for (size_t i = 0; ok && i < list->count; i++) {
        if (list->offset_bytes[i] / PREPARE_CHUNK_BYTES % 2) {
            ok = punch_hole(fd, image, list->offset_bytes[i]);
        }
    }
    close(fd);
    return ok;
}

/* ---- verification ----------------------------------------------------------------- */

typedef struct Verify {
    Reference image, reference;
    uint64_t load_blocks, written_blocks, static_blocks, errors;
} Verify;

static void G_GNUC_PRINTF(2, 3) wrong(Verify *v, const char *fmt, ...)
{
    va_list ap;

    if (v->errors++ < ERRORS_PRINTED_MAX) {
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        fprintf(stderr, "\n");
        va_end(ap);
    }
}

static void verify_client(Verify *v, LoadState *state)
{
    for (size_t i = 0; i < state->blocks.count; i++) {
        uint64_t offset = state->blocks.offset_bytes[i];
        g_autofree char *error = NULL;

        v->load_blocks++;
        v->written_blocks += state->block[i].maybe != 0;
        if (offset + LOAD_BLOCK_BYTES > v->image.size_bytes) {
            wrong(v, "offset %" PRIu64 " is beyond the end of the image", offset);
            continue;
        }
        error = load_state_check(state, i, v->image.data + offset, &v->reference);
        if (error) {
            wrong(v, "%s", error);
        }
    }
}

/* [BEGIN, END) belongs to nobody: it must be as it was. */
static void verify_static(Verify *v, uint64_t begin, uint64_t end)
{
    for (uint64_t offset = begin; offset < end; offset += LOAD_BLOCK_BYTES) {
        uint64_t n = MIN(LOAD_BLOCK_BYTES, end - offset);

        v->static_blocks++;
        if (memcmp(v->image.data + offset, v->reference.data + offset, n) != 0) {
            wrong(v, "offset %" PRIu64 " is outside of the load but was changed", offset);
        }
    }
}

static void verify_all_static(Verify *v, const BlockList *list)
{
    uint64_t begin = 0;

    for (size_t i = 0; i < list->count && list->offset_bytes[i] < v->image.size_bytes; i++) {
        verify_static(v, begin, list->offset_bytes[i]);
        begin = list->offset_bytes[i] + LOAD_BLOCK_BYTES;
    }
    verify_static(v, begin, v->image.size_bytes);
}

bool image_verify(const char *image, const char *reference, const BlockList *list,
                  char **states, FILE *out)
{
    Verify v = { 0 };
    bool ok = reference_open(&v.image, image) && reference_open(&v.reference, reference);

    if (ok && v.image.size_bytes != v.reference.size_bytes) {
        fprintf(stderr, "%s has %" PRIu64 " bytes, %s has %" PRIu64 "\n", image,
                v.image.size_bytes, reference, v.reference.size_bytes);
        ok = false;
    }
    for (unsigned i = 0; ok && states[i]; i++) {
        LoadState state;

        ok = load_state_reopen(&state, states[i], list);
        if (ok) {
            verify_client(&v, &state);
            load_state_close(&state);
        }
    }
    if (ok && v.load_blocks != list->count) {
        wrong(&v, "the state files cover %" PRIu64 " of %zu blocks", v.load_blocks,
              list->count);
    }
    if (ok) {
        verify_all_static(&v, list);
        ok = v.errors == 0;
        fprintf(out, "{\"image\": \"%s\", \"load_blocks\": %" PRIu64
                ", \"written_blocks\": %" PRIu64 ", \"static_blocks\": %" PRIu64
                ", \"errors\": %" PRIu64 "}\n", image, v.load_blocks, v.written_blocks,
                v.static_blocks, v.errors);
    }
    reference_close(&v.image);
    reference_close(&v.reference);
    return ok;
}
