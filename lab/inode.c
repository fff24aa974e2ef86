/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See inode.h. */
#include "miniblk/osdep.h"
#include <sys/mman.h>
#include "lab/inode.h"
#include "lab/real.h"

enum { BACKINGS_MAX = 64, FIRST_INODE = 1000 };

/* A real file in memory; kept, as it is the same one in each schedule. */
typedef struct Backing {
    char path[PATH_MAX];
    const uint8_t *bytes;
    uint64_t size;
    dev_t dev;
    ino_t ino;
} Backing;

static LAB_KEEP Backing *backings;      /* [BACKINGS_MAX] */
static LAB_KEEP unsigned backing_count;

/* Path to inode; NULL: there was such a real file, and it has been removed. */
static GHashTable *names;
static LabInode *of_backing[BACKINGS_MAX];
static uint64_t next_inode = FIRST_INODE;

/* ---- inodes ---------------------------------------------------------------------------- */

LabInode *lab_inode_new(mode_t mode)
{
    LabInode *inode = g_new0(LabInode, 1);

    inode->number = next_inode++;
    inode->mode = mode;
    inode->locks = g_array_new(false, false, sizeof(LabLock));
    lab_disk_init(&inode->disk, NULL, 0);
    return inode;
}

void lab_inode_unref(gpointer opaque)
{
    LabInode *inode = opaque;

    if (inode && --inode->users == 0) {
        for (unsigned i = 0; i < backing_count; i++) {
            if (of_backing[i] == inode) {
                return;         /* another name may lead to it */
            }
        }
        lab_disk_destroy(&inode->disk);
        g_array_free(inode->locks, true);
        g_free(inode);
    }
}

LabInode *lab_inode_ref(LabInode *inode)
{
    inode->users++;
    return inode;
}

/* ---- names ----------------------------------------------------------------------------- */

char *lab_path_whole(const char *path)
{
    char cwd[PATH_MAX];
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    GString *s = g_string_new(path[0] == '/' || !getcwd(cwd, sizeof(cwd)) ? "" : cwd);

    for (char **p = parts; *p; p++) {
        if (**p && strcmp(*p, ".") != 0) {
            g_string_append_c(s, '/');
            g_string_append(s, *p);
        }
    }
    if (s->len == 0) {
        g_string_append_c(s, '/');
    }
    return g_string_free(s, false);
}

void lab_name_set(char *path, LabInode *inode)
{
    if (!names) {
        names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, lab_inode_unref);
    }
    LabInode *old = g_hash_table_lookup(names, path);
    if (old) {
        old->names--;
    }
    if (inode) {
        inode->names++;
        lab_inode_ref(inode);
    }
    g_hash_table_replace(names, path, inode);
}

/* The real file's bytes, read once; -1: too many of them, or it cannot be read. */
static int backing_of(const char *path, const struct stat *st)
{
    unsigned n = 0;

    while (n < backing_count &&
           (backings[n].dev != st->st_dev || backings[n].ino != st->st_ino)) {
        n++;
    }
    if (n < backing_count) {
        return n;
    }
    if (!backings) {
        backings = mmap(NULL, BACKINGS_MAX * sizeof(*backings), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    if (n == BACKINGS_MAX || fd < 0) {
        return -1;
    }
    void *bytes = st->st_size ? mmap(NULL, st->st_size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    REAL(close)(fd);
    if (bytes == MAP_FAILED) {
        return -1;
    }
    Backing *b = &backings[backing_count++];
    g_strlcpy(b->path, path, sizeof(b->path));
    b->bytes = bytes;
    b->size = st->st_size;
    b->dev = st->st_dev;
    b->ino = st->st_ino;
    return n;
}

/* The inode of a real file. */
static LabInode *adopt(const char *path, const struct stat *st)
{
    int n = backing_of(path, st);

    if (n < 0) {
        return NULL;
    }
    if (!of_backing[n]) {
        of_backing[n] = lab_inode_new(st->st_mode);
        lab_disk_init(&of_backing[n]->disk, backings[n].bytes, backings[n].size);
    }
    return of_backing[n];
}

LabFound lab_name_look_up(const char *path, LabInode **inode)
{
    struct stat st;
    gpointer known;

    *inode = NULL;
    if (names && g_hash_table_lookup_extended(names, path, NULL, &known)) {
        *inode = known;
        return known ? FOUND : FOUND_NOTHING;
    }
    if (REAL(stat)(path, &st) < 0) {
        return FOUND_NOTHING;
    }
    if (S_ISDIR(st.st_mode)) {
        return FOUND_REAL_DIRECTORY;
    }
    if (!S_ISREG(st.st_mode) || g_str_has_prefix(path, "/proc/") ||
        g_str_has_prefix(path, "/sys/")) {
        return FOUND_REAL;
    }
    *inode = adopt(path, &st);
    if (!*inode) {
        return FOUND_REAL;
    }
    lab_name_set(g_strdup(path), *inode);
    return FOUND;
}

uintptr_t lab_names_object(void)
{
    return (uintptr_t)&names;
}

void lab_refuse_proc(const char *path)
{
    if (g_str_has_prefix(path, "/proc/self/")) {
        lab_unsupported("what /proc says of the process");
    }
}

bool lab_name_parent_exists(const char *path)
{
    g_autofree char *parent = g_path_get_dirname(path);
    LabInode *inode;
    LabFound found = lab_name_look_up(parent, &inode);

    return found == FOUND_REAL_DIRECTORY || (found == FOUND && S_ISDIR(inode->mode));
}

void lab_inode_foreach(void (*fn)(LabInode *inode, void *opaque), void *opaque)
{
    GHashTableIter iter;
    gpointer inode;

    if (names) {
        g_hash_table_iter_init(&iter, names);
        while (g_hash_table_iter_next(&iter, NULL, &inode)) {
            if (inode) {
                fn(inode, opaque);
            }
        }
    }
}
