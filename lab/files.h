/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lab's file system: regular files in memory. A file of the real system is copied on its
 * first use and never written to. All of it is gone with the schedule.
 *
 * Calls are shaped like the system's: -1 and errno. Those by name are points; before those of an
 * open file its descriptor is looked up by lab_file_at_point(), which is one.
 */
#ifndef LAB_FILES_H
#define LAB_FILES_H

#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include "lab/disk.h"

typedef struct LabInode LabInode;

/* An open file description. */
typedef struct LabOpenFile {
    LabInode *inode;
    int flags;                  /* O_ACCMODE, O_APPEND, O_DIRECT, O_DSYNC... */
    uint64_t position;
    unsigned users;             /* the descriptor table, and requests in flight */
} LabOpenFile;

/* The one behind FD, when it is a file of the lab; errno is left alone. */
LabOpenFile *lab_file_of(int fd);
void lab_file_unref(LabOpenFile *f);
/* The point of a call of FD, then the file, as FD may have been closed at the point. NULL: none
 * of the lab's files. */
LabOpenFile *lab_file_at_point(int fd, bool is_write);

/* -2: nothing that the lab knows (a device, /proc): ask the real system. */
int lab_file_open(const char *path, int flags, mode_t mode);
int lab_file_stat(const char *path, struct stat *st);

int lab_file_fstat(const LabOpenFile *f, struct stat *st);
/* The file of the lab at PATH, or NULL. Not a point. */
LabInode *lab_file_find(const char *path);
int lab_file_chmod(LabInode *inode, mode_t mode);
int lab_file_fstatfs(const LabOpenFile *f, struct statfs *st);
int lab_file_truncate(LabOpenFile *f, int64_t size);
int lab_file_allocate(LabOpenFile *f, int mode, int64_t offset, int64_t size);
int64_t lab_file_seek(LabOpenFile *f, int64_t offset, int whence);
int lab_file_sync(LabOpenFile *f);
/* fcntl() but for F_DUPFD and the descriptor's own flags. */
int lab_file_fcntl(LabOpenFile *f, int cmd, long arg);
/* The locks that F holds in [START, END) are gone. */
void lab_file_unlock(LabOpenFile *f, int64_t start, int64_t end);

/* Whole requests, from files, workers and AIO. RWF: RWF_*. Bytes or -errno. */
ssize_t lab_file_transfer(LabOpenFile *f, const struct iovec *iov, int niov, int64_t offset,
                          bool write, int rwf);
int lab_file_flush(LabOpenFile *f);
/* The same for those who want -1 and errno. */
ssize_t lab_file_rw(LabOpenFile *f, const struct iovec *iov, int niov, int64_t offset,
                    bool write, int rwf);

/* In a case: a path in /proc/self ends it, as what is there is not the lab's. */
void lab_refuse_proc(const char *path);
int lab_file_unlink(const char *path, bool directory);
int lab_file_rename(const char *from, const char *to);
int lab_file_mkdir(const char *path);

#endif
