/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names for addresses of code and static data, from the symbol tables of the files themselves:
 * what dladdr() knows lacks static functions. */
#include "miniblk/osdep.h"
#include <link.h>
#include <sys/mman.h>
#include "lab/real.h"
#include "lab/world.h"

enum { OBJECTS_MAX = 64 };

/* A program or library that is loaded, and its table. */
typedef struct Object {
    uintptr_t base, low, high;
    char path[256];
    bool looked;                /* SYMBOLS is as good as it gets */
    const ElfW(Sym) *symbols;
    size_t count;
    const char *names;
} Object;

static LAB_KEEP Object objects[OBJECTS_MAX];
static LAB_KEEP unsigned object_count;

static int add_object(struct dl_phdr_info *info, size_t size, void *opaque)
{
    Object *o = &objects[object_count];

    if (object_count == OBJECTS_MAX) {
        return 1;
    }
    o->base = info->dlpi_addr;
    o->low = UINTPTR_MAX;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type == PT_LOAD) {
            o->low = MIN(o->low, o->base + ph->p_vaddr);
            o->high = MAX(o->high, o->base + ph->p_vaddr + ph->p_memsz);
        }
    }
    g_strlcpy(o->path, object_count == 0 ? "/proc/self/exe" : info->dlpi_name,
              sizeof(o->path));
    object_count++;
    return 0;
}

/* The file is the loader's, too, so it is well-formed; only its size is checked. */
static void read_symbols(Object *o)
{
    struct stat st;
    int fd = REAL(open)(o->path, O_RDONLY | O_CLOEXEC);

    o->looked = true;
    if (fd < 0 || REAL(fstat)(fd, &st) < 0 || st.st_size < sizeof(ElfW(Ehdr))) {
        return;
    }
    const char *file = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    REAL(close)(fd);
    if (file == MAP_FAILED) {
        return;
    }
    const ElfW(Ehdr) *eh = (void *)file;
    const ElfW(Shdr) *sections = (void *)(file + eh->e_shoff);
    if (eh->e_shoff + eh->e_shnum * sizeof(*sections) > st.st_size) {
        return;
    }
    for (unsigned i = 0; i < eh->e_shnum; i++) {
        const ElfW(Shdr) *s = &sections[i];
        bool full = s->sh_type == SHT_SYMTAB;
        if ((full || (s->sh_type == SHT_DYNSYM && !o->symbols)) && s->sh_link < eh->e_shnum &&
            s->sh_offset + s->sh_size <= st.st_size) {
            o->symbols = (void *)(file + s->sh_offset);
            o->count = s->sh_size / sizeof(ElfW(Sym));
            o->names = file + sections[s->sh_link].sh_offset;
        }
    }
}

const char *lab_symbol_name(uintptr_t address, char *buffer, size_t size)
{
    if (!object_count) {
        dl_iterate_phdr(add_object, NULL);
    }
    for (unsigned i = 0; i < object_count; i++) {
        Object *o = &objects[i];
        if (address < o->low || address >= o->high) {
            continue;
        }
        if (!o->looked) {
            read_symbols(o);
        }
        for (size_t k = 0; k < o->count; k++) {
            const ElfW(Sym) *s = &o->symbols[k];
            unsigned type = ELF64_ST_TYPE(s->st_info);
            uintptr_t offset = address - o->base - s->st_value;
            if ((type == STT_FUNC || type == STT_OBJECT) && s->st_shndx != SHN_UNDEF &&
                offset < MAX(s->st_size, (uintptr_t)1)) {
                const char *name = o->names + s->st_name;
                if (type == STT_FUNC || !offset) {
                    snprintf(buffer, size, "%s%s", name, type == STT_FUNC ? "()" : "");
                } else {
                    snprintf(buffer, size, "%s+%zu", name, (size_t)offset);
                }
                return buffer;
            }
        }
        const char *slash = strrchr(o->path, '/');
        snprintf(buffer, size, "%s", i == 0 ? "the program" : slash ? slash + 1 : o->path);
        return buffer;
    }
    return NULL;
}
