/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filter "blklogwrites": what it logs is read by code that shares nothing with it, and
 * replayed.
 */
#include "qcow2-test.h"
#include "log-writes.h"

enum { DISK_BYTES = 1 << 20 };

static char *disk_path, *log_path;

/* ---- reading the log -------------------------------------------------------------- */

/* "write 0+512 flush ..." */
static char *describe(const Log *log)
{
    GString *s = g_string_new(NULL);

    for (guint i = 0; i < log->entries->len; i++) {
        LogEntry *e = &g_array_index(log->entries, LogEntry, i);
        const char *what = e->flags & LOG_FLUSH ? "flush" : e->flags & LOG_DISCARD ? "discard"
                         : e->flags & LOG_FUA ? "fua" : "write";
        g_string_append_printf(s, "%s%s", i ? " " : "", what);
        if (!(e->flags & LOG_FLUSH)) {
            g_string_append_printf(s, " %" PRIu64 "+%" PRIu64, e->offset, e->bytes);
        }
    }
    return g_string_free(s, false);
}

static void assert_log(const char *expected)
{
    Log log = log_read(log_path);
    g_autofree char *found = describe(&log);
    g_assert_cmpstr(found, ==, expected);
    log_free(&log);
}

/* The first N entries of the log, applied to an empty disk. */
static uint8_t *replay(const Log *log, guint n, size_t disk_bytes)
{
    uint8_t *disk = g_malloc0(disk_bytes);

    for (guint i = 0; i < n; i++) {
        LogEntry *e = &g_array_index(log->entries, LogEntry, i);
        g_assert_cmpuint(e->offset + e->bytes, <=, disk_bytes);
        if (e->data) {
            memcpy(disk + e->offset, e->data, e->bytes);
        } else if (e->flags & LOG_DISCARD) {
            memset(disk + e->offset, 0, e->bytes);
        }
    }
    return disk;
}

/* ---- opening ---------------------------------------------------------------------- */

static QDict *filter_options(const char *more)
{
    return options_of("driver=blklogwrites,discard=unmap,file.driver=file,file.filename=%s,"
                      "log.driver=file,log.filename=%s%s", disk_path, log_path, more);
}

static BlockBackend *open_filter(const char *more)
{
    return open_rw(filter_options(more));
}

static void fresh_files(void)
{
    g_free(disk_path);
    g_free(log_path);
    disk_path = scratch_file("disk", DISK_BYTES);
    log_path = scratch_file("log", 0);
}

/* ---- what is logged --------------------------------------------------------------- */

static void test_changes_are_logged_in_their_order(void)
{
    fresh_files();
    BlockBackend *blk = open_filter("");
    uint8_t buf[512];

    write_pattern(blk, 0, 512, 1);
    write_pattern(blk, 4096, 1024, 2);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, 0);     /* no change */
    g_assert_cmpint(blk_pwrite_zeroes(blk, 8192, 4096, 0), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 0, 4096), ==, 0);
    write_pattern(blk, 512, 512, 3);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);

    assert_log("write 0+512 write 4096+1024 flush write 8192+4096 discard 0+4096 "
               "write 512+512 flush");
    Log log = log_read(log_path);
    g_assert_cmpuint(log.sector, ==, 512);
    assert_bytes(g_array_index(log.entries, LogEntry, 1).data, 1024, 2);
    assert_bytes(g_array_index(log.entries, LogEntry, 3).data, 4096, 0);
    log_free(&log);
}

static void test_requests_are_made_whole_sectors(void)
{
    static const struct {
        const char *more;
        int sector;
        const char *log;
    } table[] = {
        { "", 512, "write 0+512 write 512+1024 discard 4096+4608 flush" },
        { ",log-sector-size=512", 512, "write 0+512 write 512+1024 discard 4096+4608 flush" },
        { ",log-sector-size=4096", 4096, "write 0+4096 write 0+4096 discard 4096+4096 flush" },
        { ",log-sector-size=64", 64, "write 64+128 write 640+704 discard 4032+4928 flush" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        fresh_files();
        BlockBackend *blk = open_filter(table[i].more);
        write_pattern(blk, 100, 90, 1);
        write_pattern(blk, 700, 600, 2);
        g_assert_cmpint(blk_pdiscard(blk, 4000, 5000), ==, 0);
        g_assert_cmpint(blk_flush(blk), ==, 0);
        assert_content(blk, 100, 90, 1);
        assert_content(blk, 700, 600, 2);
        blk_unref(blk);
        Log log = log_read(log_path);
        g_assert_cmpuint(log.sector, ==, table[i].sector);
        log_free(&log);
        assert_log(table[i].log);
    }
}

static void test_replay_makes_the_disk_again(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(g_test_rand_int());

    fresh_files();
    BlockBackend *blk = open_filter(",log-super-update-interval=7");
    for (int i = 0; i < 300; i++) {
        int64_t at = g_rand_int_range(rand, 0, DISK_BYTES - 70000);
        int64_t n = g_rand_int_range(rand, 1, 70000);
        switch (g_rand_int_range(rand, 0, 8)) {
        case 0:
            g_assert_cmpint(blk_pwrite_zeroes(blk, at, n, 0), ==, 0);
            break;
        case 1:
            g_assert_cmpint(blk_pdiscard(blk, at, n), ==, 0);
            break;
        case 2:
            g_assert_cmpint(blk_flush(blk), ==, 0);
            break;
        default:
            write_pattern(blk, at, n, g_rand_int(rand));
            break;
        }
    }
    blk_unref(blk);
    Log log = log_read(log_path);
    g_autofree uint8_t *disk = replay(&log, log.entries->len, DISK_BYTES);
    g_autofree char *found = NULL;
    gsize len;
    g_assert_true(g_file_get_contents(disk_path, &found, &len, NULL));
    g_assert_cmpmem(found, len, disk, DISK_BYTES);
    log_free(&log);
}

/* ---- order ------------------------------------------------------------------------ */

static Op *start(BlockBackend *blk, OpType type, int64_t offset, const char *event,
                 const char *tag, int *pending)
{
    BlockDriverState *bs = blk_bs(blk);
    Op *op = g_new0(Op, 1);

    *op = (Op) { blk, type, offset, 512, g_malloc0(512), 1, pending };
    g_assert_cmpint(bdrv_debug_breakpoint(bs, event, tag), ==, 0);
    qemu_coroutine_enter(qemu_coroutine_create(op_entry, op));
    while (!bdrv_debug_is_suspended(bs, tag)) {
        aio_poll(qemu_get_aio_context(), true);
    }
    return op;
}

/* Let TAG go and run until the request has ended, or (flush) as far as it gets. */
static void finish(BlockBackend *blk, const char *tag, Op *op)
{
    g_assert_cmpint(bdrv_debug_resume(blk_bs(blk), tag), ==, 0);
    while (op->ret == 1) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(op->ret, ==, 0);
}

/*
 * The example of the documentation (W: write, C: complete):
 *
 *      W1,W2,W3,C3,C2,Wflush,C1,Cflush     is logged as    W3,W2,flush,W1
 */
static void test_flush_comes_before_what_completes_during_it(void)
{
    Op *w[4], *flush;
    int pending = 4;

    fresh_files();
    BlockBackend *blk = open_rw(options_of(
        "driver=blklogwrites,file.driver=raw,file.file.driver=blkdebug,"
        "file.file.image.driver=file,file.file.image.filename=%s,log.driver=file,"
        "log.filename=%s", disk_path, log_path));
    w[1] = start(blk, OP_WRITE, 512, "write_aio", "1", &pending);
    w[2] = start(blk, OP_WRITE, 1024, "write_aio", "2", &pending);
    w[3] = start(blk, OP_WRITE, 1536, "write_aio", "3", &pending);
    finish(blk, "3", w[3]);
    finish(blk, "2", w[2]);
    flush = start(blk, OP_FLUSH, 0, "flush_to_disk", "flush", &pending);
    /* C1: the write has been done, and waits to be logged */
    g_assert_cmpint(bdrv_debug_resume(blk_bs(blk), "1"), ==, 0);
    for (int i = 0; i < 100; i++) {
        aio_poll(qemu_get_aio_context(), false);
    }
    finish(blk, "flush", flush);
    while (pending) {
        aio_poll(qemu_get_aio_context(), true);
    }
    blk_unref(blk);
    assert_log("write 1536+512 write 1024+512 flush write 512+512 flush");
    for (int i = 1; i < 4; i++) {
        g_free(w[i]->buf);
        g_free(w[i]);
    }
    g_free(flush->buf);
    g_free(flush);
}

static void test_failed_request_is_not_logged(void)
{
    uint8_t buf[512] = { 0 };

    fresh_files();
    BlockBackend *blk = open_rw(options_of(
        "driver=blklogwrites,file.driver=raw,file.file.driver=blkdebug,"
        "file.file.image.driver=file,file.file.image.filename=%s,"
        "file.file.inject-error.0.event=none,file.file.inject-error.0.sector=2,"
        "file.file.inject-error.1.event=none,file.file.inject-error.1.iotype=flush,"
        "file.file.inject-error.1.once=on,log.driver=file,log.filename=%s", disk_path,
        log_path));
    write_pattern(blk, 0, 512, 1);
    g_assert_cmpint(blk_pwrite(blk, 1024, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_flush(blk), ==, -EIO);
    write_pattern(blk, 512, 512, 1);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
    assert_log("write 0+512 write 512+512 flush");
}

/* What the log cannot take must not be told to have been written. */
static void test_failing_log_fails_the_request(void)
{
    uint8_t buf[512] = { 0 };

    fresh_files();
    BlockBackend *blk = open_rw(options_of(
        "driver=blklogwrites,file.driver=file,file.filename=%s,log.driver=raw,"
        "log.file.driver=blkdebug,log.file.image.driver=file,log.file.image.filename=%s,"
        "log.file.inject-error.0.event=none,log.file.inject-error.0.errno=28,"
        "log.file.inject-error.0.sector=3", disk_path, log_path));
    write_pattern(blk, 0, 512, 1);
    g_assert_cmpint(blk_pwrite(blk, 512, 512, buf, 0), ==, -ENOSPC);
    blk_unref(blk);
    assert_log("write 0+512");
}

/* ---- the super block -------------------------------------------------------------- */

static uint64_t entries_on_disk(void)
{
    g_autofree char *text = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(log_path, &text, &len, NULL));
    return len ? log_number(text + 16, 8) : 0;
}

static void test_super_block_is_updated_now_and_then(void)
{
    fresh_files();
    BlockBackend *blk = open_filter(",log-super-update-interval=3");

    for (int i = 1; i <= 7; i++) {
        write_pattern(blk, i * 512, 512, i);
        g_assert_cmpuint(entries_on_disk(), ==, i / 3 * 3);
    }
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpuint(entries_on_disk(), ==, 8);
    write_pattern(blk, 0, 512, 9);
    g_assert_cmpuint(entries_on_disk(), ==, 8);
    blk_unref(blk);             /* flushes what is new */
    g_assert_cmpuint(entries_on_disk(), ==, 10);
}

/* A new log over an old one: at no time does the super block count entries of both. */
static void test_new_log_forgets_the_old_one(void)
{
    fresh_files();
    BlockBackend *blk = open_filter("");
    for (int i = 0; i < 5; i++) {
        write_pattern(blk, i * 512, 512, 1);
    }
    blk_unref(blk);
    g_assert_cmpuint(entries_on_disk(), ==, 6);
    blk = open_filter("");
    g_assert_cmpuint(entries_on_disk(), ==, 6);         /* nothing has happened yet */
    write_pattern(blk, 0, 512, 2);
    g_assert_cmpuint(entries_on_disk(), ==, 0);
    blk_unref(blk);
    assert_log("write 0+512 flush");
}

static void test_log_is_continued(void)
{
    fresh_files();
    BlockBackend *blk = open_filter(",log-append=on");  /* an empty one is begun */
    write_pattern(blk, 0, 512, 1);
    g_assert_cmpint(blk_pdiscard(blk, 4096, 4096), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
    blk = open_filter(",log-append=on");
    write_pattern(blk, 512, 1024, 2);
    blk_unref(blk);
    assert_log("write 0+512 discard 4096+4096 flush write 512+1024 flush");
    /* with the sector size that it has */
    fresh_files();
    blk = open_filter(",log-sector-size=4096");
    write_pattern(blk, 0, 512, 1);
    blk_unref(blk);
    blk = open_filter(",log-append=on");
    g_assert_cmpint(blk_bs(blk)->bl.request_alignment, ==, 4096);
    write_pattern(blk, 4096, 512, 1);
    blk_unref(blk);
    assert_log("write 0+4096 flush write 4096+4096 flush");
}

/* ---- refusals --------------------------------------------------------------------- */

static void overwrite_log(uint64_t offset, int bytes, uint64_t value)
{
    int fd = open(log_path, O_WRONLY | O_CLOEXEC);

    value = GUINT64_TO_LE(value);
    g_assert_cmpint(pwrite(fd, &value, bytes, offset), ==, bytes);
    close(fd);
}

/* A log of one write and a flush, with BYTES of VALUE at OFFSET. */
static void damaged_log(uint64_t offset, int bytes, uint64_t value)
{
    fresh_files();
    BlockBackend *blk = open_filter("");
    write_pattern(blk, 0, 512, 1);
    blk_unref(blk);
    overwrite_log(offset, bytes, value);
}

static void test_damaged_log_is_not_continued(void)
{
    static const struct {
        uint64_t offset, value;
        int bytes;
        const char *error;
    } table[] = {
        {   0, 5, 8, "Invalid log superblock magic" },
        {   8, 2, 8, "Unsupported log version 2" },
        {  24, 0, 4, "Invalid log sector size 0" },
        {  24, 1000, 4, "Invalid log sector size 1000" },
        {  24, 1 << 24, 4, "Invalid log sector size 16777216" },
        {  16, 3, 8, "The log ends before entry 2" },
        {  16, UINT64_MAX, 8, "The log ends before entry 2" },
        { 528, 0xf0, 8, "Invalid flags 0xf0 in log entry 0" },
        { 520, 1ULL << 60, 8, "Log entry 0 does not lie in the log" },
        { 520, UINT64_MAX, 8, "Log entry 0 does not lie in the log" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        damaged_log(table[i].offset, table[i].bytes, table[i].value);
        assert_open_fails(filter_options(",log-append=on"), BDRV_O_RDWR, table[i].error,
                          NULL);
    }
    /* a mark, which others may put there, is skipped with its text */
    damaged_log(528, 8, LOG_MARK);
    overwrite_log(536, 8, 100);
    blk_unref(open_filter(",log-append=on"));
}

static void test_bad_options_are_refused(void)
{
    static const struct {
        const char *more, *error;
    } table[] = {
        { ",log-append=on,log-sector-size=4096",
          "log-append and log-sector-size are mutually exclusive" },
        { ",log-sector-size=1000", "Invalid log sector size 1000" },
        { ",log-sector-size=0", "Invalid log sector size 0" },
        { ",log-sector-size=16", "Invalid log sector size 16" },
        { ",log-sector-size=16M", "Invalid log sector size 16777216" },
        { ",log-super-update-interval=0", "Invalid log superblock update interval 0" },
        { ",foo=1", "Block format 'blklogwrites' does not support the option 'foo'" },
    };

    fresh_files();
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_open_fails(filter_options(table[i].more), BDRV_O_RDWR, table[i].error, NULL);
    }
    assert_open_fails(options_of("driver=blklogwrites,file.driver=null-co"), 0,
                      "A block device must be specified for \"log\"", NULL);
}

/* ---- with others ------------------------------------------------------------------ */

/* The peer continues our log, and we continue the peer's. */
static void test_peer_and_we_share_a_log(void)
{
    g_autofree char *peer = g_find_program_in_path("qemu-io");
    int status;

    if (!peer) {
        g_test_skip("qemu-io is not installed");
        return;
    }
    fresh_files();
    BlockBackend *blk = open_filter("");
    write_pattern(blk, 0, 512, 1);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
    g_autofree char *command = g_strdup_printf(
        "%s --image-opts driver=blklogwrites,log-append=on,file.driver=file,file.filename=%s,"
        "log.driver=file,log.filename=%s -c \"write -P 7 4096 1024\"", peer, disk_path,
        log_path);
    g_autofree char *out = NULL;
    g_assert_true(g_spawn_command_line_sync(command, &out, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    blk = open_filter(",log-append=on");
    write_pattern(blk, 8192, 512, 3);
    blk_unref(blk);
    assert_log("write 0+512 flush write 4096+1024 flush write 8192+512 flush");
    Log log = log_read(log_path);
    assert_bytes(g_array_index(log.entries, LogEntry, 2).data, 1024, 7);
    log_free(&log);
}

/*
 * What it is for: an image whose every state between two writes, as a power failure would
 * leave it, is without corruption.
 */
static void test_qcow2_is_consistent_after_every_flush(void)
{
    enum { CLUSTERS = 40 };
    g_autofree char *state_path = scratch_path("state.qcow2");

    fresh_files();
    BlockBackend *blk = open_filter("");
    blk_unref(blk);
    qcow2_create(disk_path, "size=4M,cluster_size=4k");
    blk = open_rw(options_of("driver=qcow2,file.driver=blklogwrites,file.file.driver=file,"
                             "file.file.filename=%s,file.log.driver=file,file.log.filename=%s",
                             disk_path, log_path));
    g_autofree char *initial = NULL;
    gsize initial_len;
    g_assert_true(g_file_get_contents(disk_path, &initial, &initial_len, NULL));
    for (int i = 0; i < CLUSTERS; i++) {
        write_pattern(blk, i * 65536, 5000, i + 1);
        if (i % 8 == 7) {
            g_assert_cmpint(blk_flush(blk), ==, 0);
        }
    }
    blk_unref(blk);

    Log log = log_read(log_path);
    g_autofree uint8_t *disk = g_malloc0(16 << 20);
    size_t end = initial_len;
    memcpy(disk, initial, initial_len);
    int states = 0;
    for (guint i = 0; i < log.entries->len; i++) {
        LogEntry *e = &g_array_index(log.entries, LogEntry, i);
        if (e->data) {
            memcpy(disk + e->offset, e->data, e->bytes);
            end = MAX(end, e->offset + e->bytes);
        } else if (e->flags & LOG_FLUSH) {
            g_assert_true(g_file_set_contents(state_path, (char *)disk, end, NULL));
            BlockBackend *state = open_with_perms(
                options_of("driver=qcow2,file.driver=file,file.filename=%s", state_path), 0,
                BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
            qcow2_assert_consistent(state, true);
            blk_unref(state);
            states++;
        }
    }
    g_assert_cmpint(states, >=, CLUSTERS / 8);
    log_free(&log);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
#define ADD(name) g_test_add_func("/blklogwrites/" #name, test_##name)
    ADD(changes_are_logged_in_their_order);
    ADD(requests_are_made_whole_sectors);
    ADD(replay_makes_the_disk_again);
    ADD(flush_comes_before_what_completes_during_it);
    ADD(failed_request_is_not_logged);
    ADD(failing_log_fails_the_request);
    ADD(super_block_is_updated_now_and_then);
    ADD(new_log_forgets_the_old_one);
    ADD(log_is_continued);
    ADD(damaged_log_is_not_continued);
    ADD(bad_options_are_refused);
    ADD(peer_and_we_share_a_log);
    ADD(qcow2_is_consistent_after_every_flush);
    int ret = image_test_run();
    g_free(disk_path);
    g_free(log_path);
    return ret;
}
