/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A verifier that finds nothing must be able to find something: every kind of damage is
 * planted once and must be named.
 */
#include "miniblk/osdep.h"
#include "image.h"
#include "latency.h"
#include "state.h"

#define BLOCKS 64
#define CLIENT 7

typedef struct Disk {
    char *dir, *image, *reference, *state_file;
    uint8_t *contents;                  /* of the image */
    BlockList list;
    LoadState state;
} Disk;

/* Blocks 16 to 47 belong to the load, what is around them is static. */
static void disk_open(Disk *d)
{
    d->dir = g_dir_make_tmp("test-load-XXXXXX", NULL);
    g_assert_nonnull(d->dir);
    d->image = g_build_filename(d->dir, "image", NULL);
    d->reference = g_build_filename(d->dir, "reference", NULL);
    d->state_file = g_build_filename(d->dir, "state", NULL);
    d->contents = g_malloc(BLOCKS * LOAD_BLOCK_BYTES);
    for (size_t i = 0; i < BLOCKS * LOAD_BLOCK_BYTES; i++) {
        d->contents[i] = i * 31 >> 3;
    }
    g_assert_true(g_file_set_contents(d->reference, (char *)d->contents,
                                      BLOCKS * LOAD_BLOCK_BYTES, NULL));
    g_assert_true(block_list_from_region(&d->list, 16 * LOAD_BLOCK_BYTES,
                                         32 * LOAD_BLOCK_BYTES));
    g_assert_true(load_state_open(&d->state, d->state_file, &d->list, CLIENT, 0, 1));
    g_assert_cmpuint(d->state.blocks.count, ==, 32);
}

static void disk_close(Disk *d)
{
    load_state_close(&d->state);
    block_list_free(&d->list);
    g_unlink(d->image);
    g_unlink(d->reference);
    g_unlink(d->state_file);
    g_rmdir(d->dir);
    g_free(d->dir);
    g_free(d->image);
    g_free(d->reference);
    g_free(d->state_file);
    g_free(d->contents);
}

static uint8_t *block_of(Disk *d, size_t index)
{
    return d->contents + d->state.blocks.offset_bytes[index];
}

static void put(Disk *d, size_t index, uint32_t generation)
{
    BlockInfo info = { .offset_bytes = d->state.blocks.offset_bytes[index],
                       .generation = generation, .client = CLIENT };

    pattern_fill(block_of(d, index), &info);
}

static void expect(Disk *d, size_t index, uint32_t sure, uint32_t maybe)
{
    d->state.block[index].sure = sure;
    d->state.block[index].maybe = maybe;
}

static bool verify(Disk *d)
{
    char *states[] = { d->state_file, NULL };

    g_assert_true(g_file_set_contents(d->image, (char *)d->contents,
                                      BLOCKS * LOAD_BLOCK_BYTES, NULL));
    return image_verify(d->image, d->reference, &d->list, states, stderr);
}

static void check_says(Disk *d, size_t index, const char *expected)
{
    g_autofree char *wrong = load_state_check(&d->state, index, block_of(d, index),
                                              &(Reference){ 0 });

    if (!expected) {
        g_assert_cmpstr(wrong, ==, NULL);
    } else if (!wrong || !strstr(wrong, expected)) {
        g_test_message("'%s' should say '%s'", wrong ? wrong : "(nothing)", expected);
        g_test_fail();
    }
}

typedef struct Damage {
    const char *name;
    void (*plant)(Disk *d);
    const char *expected;               /* part of the message; NULL: nothing is wrong */
    bool outside;                       /* outside of the load: only the image shows it */
} Damage;

static void plant_nothing(Disk *d)
{
}

static void plant_lost(Disk *d)
{
    memset(block_of(d, 5), 0, LOAD_BLOCK_BYTES);
}

static void plant_stale(Disk *d)
{
    put(d, 5, 2);
}

static void plant_future(Disk *d)
{
    put(d, 5, 4);
}

static void plant_misplaced(Disk *d)
{
    memcpy(block_of(d, 5), block_of(d, 6), LOAD_BLOCK_BYTES);
}

static void plant_other_client(Disk *d)
{
    BlockInfo info = { .offset_bytes = d->state.blocks.offset_bytes[5], .generation = 3,
                       .client = CLIENT + 1 };

    pattern_fill(block_of(d, 5), &info);
}

static void plant_torn_sector(Disk *d)
{
    uint8_t old[LOAD_BLOCK_BYTES];

    put(d, 5, 2);
    memcpy(old, block_of(d, 5), sizeof(old));
    put(d, 5, 3);
    memcpy(block_of(d, 5) + 3584, old + 3584, 512);
}

static void plant_one_bit(Disk *d)
{
    block_of(d, 5)[4095] ^= 1;
}

static void plant_foreign(Disk *d)
{
    memset(block_of(d, 5), 0x5a, LOAD_BLOCK_BYTES);
}

static void plant_unzeroed(Disk *d)
{
    expect(d, 5, 4 | LOAD_GEN_ZEROES, 4 | LOAD_GEN_ZEROES);
}

static void plant_zeroed(Disk *d)
{
    plant_unzeroed(d);
    plant_lost(d);
}

static void plant_doubt_old(Disk *d)
{
    expect(d, 5, 3, 4);
}

static void plant_doubt_new(Disk *d)
{
    expect(d, 5, 2, 3);
}

static void plant_doubt_older(Disk *d)
{
    expect(d, 5, 3, 4);
    put(d, 5, 2);
}

static void plant_before(Disk *d)
{
    d->contents[16 * LOAD_BLOCK_BYTES - 1] ^= 1;
}

static void plant_after(Disk *d)
{
    d->contents[48 * LOAD_BLOCK_BYTES] ^= 1;
}

static const Damage damages[] = {
    { "none", plant_nothing, NULL },
    { "lost-write", plant_lost, "lost write" },
    { "stale-data", plant_stale, "stale data" },
    { "never-written", plant_future, "wrong data" },
    { "misplaced-write", plant_misplaced, "misplaced write" },
    { "other-client", plant_other_client, "misplaced write" },
    { "torn-sector", plant_torn_sector, "torn block" },
    { "one-bit", plant_one_bit, "torn block" },
    { "foreign-data", plant_foreign, "foreign data" },
    { "zeroes-not-written", plant_unzeroed, "stale data" },
    { "zeroes-written", plant_zeroed, NULL },
    { "in-doubt-and-old", plant_doubt_old, NULL },
    { "in-doubt-and-new", plant_doubt_new, NULL },
    { "in-doubt-and-older-still", plant_doubt_older, "stale data" },
    { "static-area-before", plant_before, "outside", true },
    { "static-area-after", plant_after, "outside", true },
};

static void test_damage(gconstpointer opaque)
{
    const Damage *damage = opaque;
    Disk d;

    disk_open(&d);
    for (size_t i = 0; i < 16; i++) {
        put(&d, i, 3);
        expect(&d, i, 3, 3);
    }
    damage->plant(&d);
    g_assert_cmpint(verify(&d), ==, damage->expected == NULL);
    if (!damage->outside) {
        check_says(&d, 5, damage->expected);
    }
    disk_close(&d);
}

/* Once the new contents of a block in doubt were seen, the old ones are an error. */
static void test_doubt_is_settled_by_reading(void)
{
    Disk d;

    disk_open(&d);
    put(&d, 5, 3);
    expect(&d, 5, 2, 3);
    check_says(&d, 5, NULL);
    g_assert_cmpuint(load_state_in_doubt(&d.state), ==, 0);
    put(&d, 5, 2);
    check_says(&d, 5, "stale data");
    disk_close(&d);
}

/* A successor that finds a write in doubt may read the block but not write it. */
static void test_killed_client_leaves_quarantine(void)
{
    Disk d;
    LoadState again;

    disk_open(&d);
    expect(&d, 5, 2, 3);
    expect(&d, 6, 2, 2);
    g_assert_true(load_state_open(&again, d.state_file, &d.list, CLIENT, 0, 1));
    g_assert_cmpuint(again.block[5].quarantined, ==, 1);
    g_assert_cmpuint(again.block[6].quarantined, ==, 0);
    load_state_close(&again);
    g_assert_false(load_state_open(&again, d.state_file, &d.list, CLIENT + 1, 0, 1));
    disk_close(&d);
}

static void test_missing_state_file_is_noticed(void)
{
    Disk d;
    LoadState other;
    char *states[] = { NULL, NULL };

    disk_open(&d);
    states[0] = g_build_filename(d.dir, "half", NULL);
    g_assert_true(load_state_open(&other, states[0], &d.list, CLIENT, 0, 2));
    load_state_close(&other);
    g_assert_true(verify(&d));
    g_assert_false(image_verify(d.image, d.reference, &d.list, states, stderr));
    g_unlink(states[0]);
    g_free(states[0]);
    disk_close(&d);
}

static void test_histogram_quantiles(void)
{
    Histogram h = { 0 };

    g_assert_cmpuint(histogram_quantile(&h, 0.5), ==, 0);
    for (uint64_t i = 1; i <= 100000; i++) {
        histogram_add(&h, i);
    }
    g_assert_cmpuint(h.max, ==, 100000);
    for (double q = 0.01; q < 1; q += 0.01) {
        double got = histogram_quantile(&h, q);

        g_assert_cmpfloat(got, >=, q * 100000 * 0.999);
        g_assert_cmpfloat(got, <=, q * 100000 * 1.04 + 1);
    }
    histogram_add(&h, UINT64_MAX);
    g_assert_cmpuint(histogram_quantile(&h, 1.0), ==, UINT64_MAX);
}

static void test_block_lists(void)
{
    static const struct { const char *text; size_t count; } table[] = {
        { "0 4096\n", 1 },
        { "4096 8192\n16384 4096\n", 3 },
        { "", 0 },                      /* nothing to do is a mistake */
        { "0 4095\n", 0 },
        { "1 4096\n", 0 },
        { "4096 4096\n0 4096\n", 0 },   /* out of order */
        { "0 8192\n4096 4096\n", 0 },   /* overlapping */
        { "0 4096 x\n", 0 },
        { "zero 4096\n", 0 },
        { "18446744073709547520 8192\n", 0 },
    };
    g_autofree char *file = g_build_filename(g_get_tmp_dir(), "test-load-list-XXXXXX", NULL);
    int fd = g_mkstemp(file);

    close(fd);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        BlockList list = { 0 };

        g_assert_true(g_file_set_contents(file, table[i].text, -1, NULL));
        g_assert_cmpint(block_list_load(&list, file), ==, table[i].count > 0);
        g_assert_cmpuint(list.count, ==, table[i].count);
        block_list_free(&list);
    }
    g_unlink(file);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
        g_autofree char *path = g_strdup_printf("/load/damage/%s", damages[i].name);

        g_test_add_data_func(path, &damages[i], test_damage);
    }
    g_test_add_func("/load/doubt-is-settled-by-reading", test_doubt_is_settled_by_reading);
    g_test_add_func("/load/killed-client-leaves-quarantine",
                    test_killed_client_leaves_quarantine);
    g_test_add_func("/load/missing-state-file-is-noticed",
                    test_missing_state_file_is_noticed);
    g_test_add_func("/load/histogram-quantiles", test_histogram_quantiles);
    g_test_add_func("/load/block-lists", test_block_lists);
    return g_test_run();
}
