/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files of the lab and their names, for those who make files. No call here is a point. */
#ifndef LAB_INODE_H
#define LAB_INODE_H

#include <glib.h>
#include "lab/files.h"

/* An OFD lock. */
typedef struct LabLock {
    const LabOpenFile *owner;
    short type;                 /* F_RDLCK, F_WRLCK */
    int64_t start, end;         /* end exclusive; INT64_MAX: for ever */
} LabLock;

struct LabInode {
    uint64_t number;
    unsigned users;             /* names and open files */
    unsigned names;
    mode_t mode;                /* S_IFREG, S_IFDIR or S_IFSOCK, and permissions */
    LabDisk disk;
    GArray *locks;              /* of LabLock */
    void *socket;               /* that is bound to it, see socket.c; NULL: closed */
};

typedef enum LabFound {
    FOUND,                      /* *INODE */
    FOUND_NOTHING,
    FOUND_REAL_DIRECTORY,
    FOUND_REAL,                 /* a device or the like, not ours */
} LabFound;

LabInode *lab_inode_new(mode_t mode);
LabInode *lab_inode_ref(LabInode *inode);
void lab_inode_unref(gpointer inode);

/* Absolute, without "//" and "." parts. */
char *lab_path_whole(const char *path);
LabFound lab_name_look_up(const char *path, LabInode **inode);
bool lab_name_parent_exists(const char *path);
/* Takes PATH. INODE NULL: there is no such file any more. */
void lab_name_set(char *path, LabInode *inode);
/* The object of points of calls that look for a name, or change one; those of an open file
 * have its inode. */
uintptr_t lab_names_object(void);
/* Call FN for the file of each name. */
void lab_inode_foreach(void (*fn)(LabInode *inode, void *opaque), void *opaque);

#endif
