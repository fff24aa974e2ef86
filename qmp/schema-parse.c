/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The text of schema.h to a tree of types. The text is ours: mistakes abort. */
#include "miniblk/osdep.h"
#include "qmp/schema-internal.h"

/* Named types; filled once, before threads start. A name used before its line is made
 * empty and filled later, so that types may be recursive. */
static GHashTable *named_types;

typedef struct Reader {
    const char *text, *p;
} Reader;

static SchemaType *read_type(Reader *r);

static void G_GNUC_NORETURN bad_text(Reader *r, const char *expected)
{
    g_error("schema: expected %s at '%s' of '%s'", expected, r->p, r->text);
}

static void skip_space(Reader *r)
{
    r->p += strspn(r->p, " \n");
}

static bool accept(Reader *r, char c)
{
    skip_space(r);
    if (*r->p != c) {
        return false;
    }
    r->p++;
    return true;
}

static void expect(Reader *r, char c)
{
    char what[] = { c, 0 };

    if (!accept(r, c)) {
        bad_text(r, what);
    }
}

static char *read_word(Reader *r)
{
    size_t len = 0;
    char *word;

    skip_space(r);
    while (g_ascii_isalnum(r->p[len]) || (r->p[len] && strchr("-_.", r->p[len]))) {
        len++;
    }
    if (!len) {
        bad_text(r, "a name");
    }
    word = g_strndup(r->p, len);
    r->p += len;
    return word;
}

static SchemaType *new_type(SchemaKind kind)
{
    SchemaType *type = g_new0(SchemaType, 1);

    type->kind = kind;
    return type;
}

static SchemaType *find_or_make(const char *name)
{
    SchemaType *type = g_hash_table_lookup(named_types, name);

    if (!type) {
        type = new_type(SCHEMA_UNDEFINED);
        type->name = g_strdup(name);
        g_hash_table_insert(named_types, type->name, type);
    }
    return type;
}

/* After "{word" of an enumeration. */
static SchemaType *read_enum(Reader *r, char *first)
{
    GPtrArray *names = g_ptr_array_new();
    SchemaType *type = new_type(SCHEMA_ENUM);

    g_ptr_array_add(names, first);
    while (accept(r, '|')) {
        g_ptr_array_add(names, read_word(r));
    }
    expect(r, '}');
    g_ptr_array_add(names, NULL);
    type->names = (char **)g_ptr_array_free(names, false);
    return type;
}

/* After "{word" of an object, or after "{" of an empty one (NAME NULL). */
static SchemaType *read_object(Reader *r, char *name)
{
    SchemaType *type = new_type(SCHEMA_OBJECT);

    type->members = g_array_new(false, false, sizeof(SchemaMember));
    while (name) {
        SchemaMember member = { .name = name };

        member.optional = accept(r, '?');
        expect(r, ':');
        member.type = read_type(r);
        g_array_append_val(type->members, member);
        name = accept(r, ',') ? read_word(r) : NULL;
    }
    if (accept(r, '<')) {
        type->tag = read_word(r);
        expect(r, '>');
    }
    expect(r, '}');
    return type;
}

static SchemaType *read_braces(Reader *r)
{
    char *word;

    skip_space(r);
    if (*r->p == '}') {
        return read_object(r, NULL);
    }
    word = read_word(r);
    skip_space(r);
    return *r->p == '|' || *r->p == '}' ? read_enum(r, word) : read_object(r, word);
}

static SchemaType *read_alternate(Reader *r)
{
    SchemaType *type = new_type(SCHEMA_ALTERNATE);

    type->choices = g_ptr_array_new();
    do {
        g_ptr_array_add(type->choices, read_type(r));
    } while (accept(r, '/'));
    expect(r, ')');
    return type;
}

static SchemaType *read_named(Reader *r)
{
    static const char *const words[] = {
        [SCHEMA_STR] = "str", [SCHEMA_INT] = "int", [SCHEMA_UINT] = "uint",
        [SCHEMA_UINT32] = "uint32", [SCHEMA_SIZE] = "size", [SCHEMA_BOOL] = "bool",
        [SCHEMA_NULL] = "null", [SCHEMA_ANY] = "any", [SCHEMA_DRIVER] = "driver",
    };
    g_autofree char *word = read_word(r);

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (words[i] && !strcmp(words[i], word)) {
            return new_type(i);
        }
    }
    if (!g_ascii_isupper(word[0])) {
        bad_text(r, "a type before here");
    }
    return find_or_make(word);
}

static SchemaType *read_type(Reader *r)
{
    SchemaType *type;

    if (accept(r, '{')) {
        return read_braces(r);
    }
    if (accept(r, '(')) {
        return read_alternate(r);
    }
    if (accept(r, '[')) {
        type = new_type(SCHEMA_ARRAY);
        type->element = read_type(r);
        expect(r, ']');
        return type;
    }
    return read_named(r);
}

static void define(const char *line)
{
    Reader r = { .text = line, .p = line };
    char *name = read_word(&r);
    SchemaType *named, *type;
    char *kept_name;

    expect(&r, '=');
    type = read_type(&r);
    skip_space(&r);
    if (*r.p) {
        bad_text(&r, "the end");
    }
    if (type->name) {
        /* Another name for a type; nothing may have referred to it yet. */
        g_assert(!g_hash_table_contains(named_types, name));
        g_hash_table_insert(named_types, name, type);
        return;
    }
    named = find_or_make(name);
    g_assert(named->kind == SCHEMA_UNDEFINED);
    kept_name = named->name;
    *named = *type;
    named->name = kept_name;
    g_free(type);
    g_free(name);
}

static void load_named_types(void)
{
    GHashTableIter iter;
    gpointer value;

    named_types = g_hash_table_new(g_str_hash, g_str_equal);
    for (int i = 0; schema_type_lines[i]; i++) {
        define(schema_type_lines[i]);
    }
    g_hash_table_iter_init(&iter, named_types);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const SchemaType *type = value;
        if (type->kind == SCHEMA_UNDEFINED) {
            g_error("schema: type %s is not defined", type->name);
        }
    }
}

const SchemaType *schema__branch(const SchemaType *object, const char *tag_value)
{
    g_autofree char *name = g_strdup_printf("%s.%s", object->name, tag_value);

    return g_hash_table_lookup(named_types, name);
}

const SchemaType *schema_type(const char *text)
{
    /* Texts are literals in tables; each is read once. */
    static GHashTable *by_text;
    SchemaType *type;

    if (!named_types) {
        load_named_types();
        by_text = g_hash_table_new(g_str_hash, g_str_equal);
    }
    type = g_hash_table_lookup(by_text, text);
    if (!type) {
        Reader r = { .text = text, .p = text };

        type = read_type(&r);
        skip_space(&r);
        if (*r.p || type->kind == SCHEMA_UNDEFINED) {
            bad_text(&r, "one defined type");
        }
        g_hash_table_insert(by_text, g_strdup(text), type);
    }
    return type;
}
