/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 images on a disk that loses power at any moment, or whose requests fail. Natively the
 * same cases run on a disk that does neither.
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/thread.h"
#include "miniblk/lab-test.h"
#include "../unit/qcow2-test.h"
#include "disk-options.h"

enum { SECTOR = 512, CLUSTER = 4096, CLUSTERS = 3, GUESTS = 2, ROUNDS = 2 };

typedef struct Image {
    const char *name, *create, *open;
} Image;

#define NATIVE ",file.aio=native,file.cache.direct=on"

static const Image images[] = {
    { "threads", "", "" },
    { "native", "", NATIVE },
    { "lazy", ",lazy_refcounts=on", NATIVE },
    { "old", ",compat=0.10", "" },
    { "subclusters", ",extended_l2=on,cluster_size=16k", NATIVE },
    { "small-caches", "", ",l2-cache-size=512,l2-cache-entry-size=512,refcount-cache-size=512" },
};

/* ---- guests ---------------------------------------------------------------------------- */

/* What may be read from a cluster: what was durable, or anything that was written since. */
typedef struct Cluster {
    uint8_t may[16];
    unsigned n;
    bool unsure;                /* whether the last of these was done: a flush decides nothing */
} Cluster;

typedef struct Model {
    Cluster cluster[GUESTS][CLUSTERS];
} Model;

static void model_init(Model *m)
{
    for (int i = 0; i < GUESTS; i++) {
        for (int k = 0; k < CLUSTERS; k++) {
            m->cluster[i][k] = (Cluster){ .n = 1 };     /* zeroes */
        }
    }
}

typedef struct Guest {
    BlockBackend *blk;
    int first;                  /* of its clusters */
    Cluster *cluster;           /* [CLUSTERS] */
    int *running;               /* main loop's */
} Guest;

static int64_t cluster_offset(const Guest *g, int i)
{
    return (int64_t)(g->first + i) * 5 * CLUSTER;
}

static void may_be(Cluster *c, uint8_t value, int ret)
{
    g_assert_cmpuint(c->n, <, ARRAY_SIZE(c->may));
    c->may[c->n++] = value;
    c->unsure = ret < 0;
    g_assert_true(ret == 0 || lab_in_lab());
}

static void coroutine_fn guest_write(Guest *g, int i, uint8_t value)
{
    uint8_t *buf = qemu_memalign(CLUSTER, CLUSTER);

    memset(buf, value, CLUSTER);
    may_be(&g->cluster[i], value,
           blk_co_pwrite(g->blk, cluster_offset(g, i), CLUSTER, buf, 0));
    qemu_vfree(buf);
}

static void coroutine_fn guest_zero(Guest *g, int i)
{
    may_be(&g->cluster[i], 0,
           blk_co_pwrite_zeroes(g->blk, cluster_offset(g, i), CLUSTER, BDRV_REQ_MAY_UNMAP));
}

static void coroutine_fn guest_flush(Guest *g)
{
    if (blk_co_flush(g->blk) < 0) {
        g_assert_true(lab_in_lab());
        return;
    }
    for (int i = 0; i < CLUSTERS; i++) {
        Cluster *c = &g->cluster[i];
        if (!c->unsure) {
            c->may[0] = c->may[c->n - 1];
            c->n = 1;
        }
    }
}

/* New clusters, and old ones again; some are given back and allocated anew. */
static void coroutine_fn guest_entry(void *opaque)
{
    Guest *g = opaque;

    guest_write(g, 0, 1);
    guest_write(g, 1, 2);
    guest_flush(g);
    guest_write(g, 0, 3);
    guest_zero(g, 1);
    guest_write(g, 2, 4);
    guest_flush(g);
    guest_write(g, 1, 5);
    (*g->running)--;
}

/* An empty one at PATH, which is what MODEL then says. */
static BlockBackend *new_image(const Image *image, const char *path, Model *model)
{
    g_autofree char *create = g_strdup_printf("size=1M,cluster_size=4k%s", image->create);

    model_init(model);
    qcow2_create(path, create);
    return qcow2_open_file(path, image->open);
}

static void run_guests(BlockBackend *blk, Model *m)
{
    int running = GUESTS;
    Guest guests[GUESTS];

    for (int i = 0; i < GUESTS; i++) {
        guests[i] = (Guest){ blk, i * CLUSTERS, m->cluster[i], &running };
        qemu_coroutine_enter(qemu_coroutine_create(guest_entry, &guests[i]));
    }
    while (running) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void check_cluster(Guest *g, int i)
{
    Cluster *c = &g->cluster[i];
    uint8_t buf[CLUSTER];

    g_assert_cmpint(blk_pread(g->blk, cluster_offset(g, i), CLUSTER, buf, 0), ==, 0);
    for (int at = 0; at < CLUSTER; at++) {
        if (!memchr(c->may, buf[at], c->n)) {
            g_error("cluster %d of %d: 0x%02x at byte %d", i, g->first, buf[at], at);
        }
        if (at % SECTOR && !lab_disk_tears()) {
            g_assert_cmpint(buf[at], ==, buf[at - 1]);
        }
    }
}

static void check_contents(BlockBackend *blk, Model *m)
{
    for (int i = 0; i < GUESTS; i++) {
        Guest g = { blk, i * CLUSTERS, m->cluster[i], NULL };
        for (int k = 0; k < CLUSTERS; k++) {
            check_cluster(&g, k);
            /* by sectors it may be one and the other */
            g.cluster[k].unsure = g.cluster[k].n > 1;
        }
    }
}

static void check_image(BlockBackend *blk, Model *m)
{
    qcow2_assert_consistent(blk, true);
    check_contents(blk, m);
}

/* ---- power cuts ------------------------------------------------------------------------ */

static void *cut_thread(void *opaque)
{
    lab_power_cut();
    return NULL;
}

/*
 *      guests   write   flush   write   zero   flush   write   close    open, check, again
 *      cutter     ^--------------------- anywhere -----------------^
 *
 * All that was flushed is there; of the rest each sector is of some write since; the image is
 * sound, and can be worked on.
 */
static void test_cut(gconstpointer data)
{
    const Image *image = data;
    g_autofree char *path = scratch_path("cut.qcow2");
    Model model;
    BlockBackend *blk = new_image(image, path, &model);

    g_assert_cmpint(blk_flush(blk), ==, 0);
    for (int round = 0; round < ROUNDS; round++) {
        QemuThread cutter;
        qemu_thread_create(&cutter, "cutter", cut_thread, NULL, QEMU_THREAD_JOINABLE);
        run_guests(blk, &model);
        qemu_thread_join(&cutter);
        blk_unref(blk);         /* cannot write its caches back, where the power is off */
        lab_power_on();
        blk = qcow2_open_file(path, image->open);
        check_image(blk, &model);
    }
    blk_unref(blk);
    unlink(path);
}

/* ---- faults ---------------------------------------------------------------------------- */

/*
 * Requests fail; when the disk has healed all is as if they had not, or had never been. After
 * a flush through the page cache has failed the node cannot flush any more, so the image is
 * checked when it has been opened again.
 */
static void test_faults(gconstpointer data)
{
    const Image *image = data;
    g_autofree char *path = scratch_path("faults.qcow2");
    Model model;
    BlockBackend *blk = new_image(image, path, &model);

    lab_faults(true);
    run_guests(blk, &model);
    lab_faults(false);
    blk_drain(blk);
    check_contents(blk, &model);
    blk_unref(blk);
    blk = qcow2_open_file(path, image->open);
    check_image(blk, &model);
    blk_unref(blk);
    unlink(path);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    for (unsigned i = 0; i < ARRAY_SIZE(images); i++) {
        g_autofree char *cut = g_strdup_printf("/disk-image/cut/%s", images[i].name);
        g_autofree char *faults = g_strdup_printf("/disk-image/faults/%s", images[i].name);
        g_test_add_data_func(cut, &images[i], test_cut);
        g_test_add_data_func(faults, &images[i], test_faults);
    }
    return image_test_run();
}
