/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a file holds, as a disk with a volatile cache does: NOW is what reads see, DURABLE what
 * a power cut leaves, and PENDING are the writes between the two, oldest first. A cut keeps
 * any of the pending sectors, in any combination: a disk writes its cache back as it likes.
 *
 * The length belongs to the file system's metadata: growth since the last flush is kept or
 * lost, as a whole; shrinking takes effect at once.
 */
#ifndef LAB_DISK_H
#define LAB_DISK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum { LAB_SECTOR_MIN = 512, LAB_DISK_BLOCK = 4096 };

typedef struct LabWrite LabWrite;

/* All zero bytes: an empty file. */
typedef struct LabDisk {
    uint64_t size, durable_size;
    GHashTable *now, *durable;          /* block number to its bytes; over BACKING */
    const uint8_t *backing;             /* both begin with these bytes */
    uint64_t backing_size;
    LabWrite *first, *last;             /* pending */
    uint64_t pending_bytes;
} LabDisk;

void lab_disk_init(LabDisk *disk, const uint8_t *backing, uint64_t size);
void lab_disk_destroy(LabDisk *disk);

/* What is past the end reads as zero. */
void lab_disk_read(const LabDisk *disk, uint64_t offset, void *buffer, size_t size);
/* Grows the file. DATA NULL: zeroes, which need no space where they cover whole blocks. */
void lab_disk_write(LabDisk *disk, uint64_t offset, const void *data, uint64_t size);
void lab_disk_resize(LabDisk *disk, uint64_t size);
/* Everything pending becomes durable. */
void lab_disk_flush(LabDisk *disk);
/* Nothing pending becomes durable, now or later; reads go on seeing it. */
void lab_disk_lose(LabDisk *disk);
/* FUA: what is in that range now, and no more. */
void lab_disk_flush_range(LabDisk *disk, uint64_t offset, uint64_t size);
/* Have blocks there, which read as before. False: too much of it. */
bool lab_disk_reserve(LabDisk *disk, uint64_t offset, uint64_t size);
/* So many bytes have blocks. */
uint64_t lab_disk_allocated(const LabDisk *disk);
/* The first byte at or after OFFSET that has a block, or has none; at most the size. */
uint64_t lab_disk_seek(const LabDisk *disk, uint64_t offset, bool data);

/*
 * The power goes: of what was pending pieces survive, by chance, the same ones for the same
 * PATTERN. A piece is what a write has in one sector; all of a write of zeroes; or the growth
 * of the length since the last flush.
 */
enum { LAB_CUT_PATTERNS = 64 };
typedef struct LabCut {
    unsigned pattern;           /* 0: nothing; 1: all; with few pieces every set has one */
    unsigned sector_bytes;      /* a power of two: whole or not there ... */
    bool torn;                  /* ... or, some of them, only the first bytes */
    uint64_t pieces;            /* of all disks: sum of lab_disk_pieces(), before any is cut */
    uint64_t next;              /* the piece to decide about; 0 before the first disk */
} LabCut;
uint64_t lab_disk_pieces(const LabDisk *disk, const LabCut *cut);
/* NOW and DURABLE are what survives. */
void lab_disk_cut(LabDisk *disk, LabCut *cut);

#endif
