/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Root tables (active L1, refcount table): wholly in memory, written sector by sector. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

#define SECTOR_ENTRIES 64u

void qcow2_root_init(Qcow2Root *root, uint64_t *entries, uint32_t size, uint64_t offset)
{
    root->entries = entries;
    root->size = size;
    root->offset = offset;
    root->changed = g_new0(uint64_t, size / 64 + 1);
    root->changed_list = g_array_new(false, false, sizeof(uint32_t));
}

void qcow2_root_free(Qcow2Root *root)
{
    g_clear_pointer(&root->entries, g_free);
    g_clear_pointer(&root->changed, g_free);
    if (root->changed_list) {
        g_array_free(root->changed_list, true);
        root->changed_list = NULL;
    }
    root->size = 0;
}

int qcow2_root_read(Qcow2State *s, Qcow2Root *root, uint64_t offset, uint32_t size)
{
    /* The caller has bounded SIZE. One entry more, so that an empty table has memory too. */
    uint64_t *entries = g_try_malloc0(((size_t)size + 1) * 8);
    if (!entries) {
        return -ENOMEM;
    }
    int ret = size ? qcow2_file_read(s, offset, (size_t)size * 8, entries) : 0;
    if (ret < 0) {
        g_free(entries);
        return ret;
    }
    for (uint32_t i = 0; i < size; i++) {
        entries[i] = GUINT64_FROM_BE(entries[i]);
    }
    qcow2_root_init(root, entries, size, offset);
    return 0;
}

void qcow2_root_set(Qcow2Root *root, uint32_t index, uint64_t value)
{
    g_assert(index < root->size);
    root->entries[index] = value;
    if (!qcow2_root_changed(root, index)) {
        root->changed[index / 64] |= 1ULL << (index % 64);
        g_array_append_val(root->changed_list, index);
    }
}

static int compare_indices(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Write the 512-byte sector with entry INDEX; one sector is written whole or not at all. */
static int coroutine_fn write_sector(Qcow2State *s, Qcow2Root *root, uint32_t index)
{
    uint64_t sector[SECTOR_ENTRIES];
    uint32_t first = ROUND_DOWN(index, SECTOR_ENTRIES);

    for (uint32_t i = 0; i < SECTOR_ENTRIES; i++) {
        /* Clusters hold whole sectors, so what lies behind the last entry is the table's. */
        uint64_t e = first + i < root->size ? root->entries[first + i] : 0;
        sector[i] = GUINT64_TO_BE(e);
    }
    BLKDBG_EVENT(s->bs->file, root == &s->l1 ? BLKDBG_L1_UPDATE
                                             : BLKDBG_REFBLOCK_ALLOC_HOOKUP);
    return bdrv_co_pwrite(s->bs->file, root->offset + (uint64_t)first * 8, sizeof(sector),
                          sector, 0);
}

int coroutine_fn qcow2_root_write(Qcow2State *s, Qcow2Root *root)
{
    GArray *list = root->changed_list;
    uint32_t last = UINT32_MAX;

    g_array_sort(list, compare_indices);
    for (guint i = 0; i < list->len; i++) {
        uint32_t index = g_array_index(list, uint32_t, i);
        if (index / SECTOR_ENTRIES == last) {
            continue;
        }
        int ret = write_sector(s, root, index);
        if (ret < 0) {
            return ret;         /* all stay marked: writing one twice does no harm */
        }
        last = index / SECTOR_ENTRIES;
    }
    for (guint i = 0; i < list->len; i++) {
        uint32_t index = g_array_index(list, uint32_t, i);
        root->changed[index / 64] &= ~(1ULL << (index % 64));
    }
    g_array_set_size(list, 0);
    return 0;
}
