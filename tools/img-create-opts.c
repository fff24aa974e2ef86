/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of image creation: -o lists, their help, and how they are printed. */
#include "miniblk/osdep.h"
#include "tools/img.h"

typedef enum OptionType { OPTION_STRING, OPTION_BOOL, OPTION_NUMBER, OPTION_SIZE } OptionType;

typedef struct CreateOption {
    const char *name;
    OptionType type;
    const char *fallback;       /* the value when none is given; NULL: none to print */
    const char *help;
    enum { OF_FORMAT, OF_CLUSTERS, OF_FILE } owner;     /* see is_own() */
} CreateOption;

/*
 * All options of all drivers, in the order in which "Formatting ..." prints them: those of
 * the format, then those of the file (to whom a format without clusters leaves
 * preallocation). Which of them a driver has is the driver's create_opts to say.
 */
static const CreateOption known_options[] = {
    { "encrypt.format", OPTION_STRING, NULL,
      "Encrypt the image, format choices: 'aes', 'luks'" },
    { "encryption", OPTION_BOOL, NULL,
      "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)" },
    { "encrypt.state", OPTION_STRING, NULL,
      "Select new state of affected keyslots (active/inactive)" },
    { "encrypt.keyslot", OPTION_NUMBER, NULL, "Select a single keyslot to modify explicitly" },
    { "encrypt.old-secret", OPTION_STRING, NULL,
      "Select all keyslots that match this password" },
    { "encrypt.new-secret", OPTION_STRING, NULL,
      "New secret to set in the matching keyslots. Empty string to erase" },
    { "encrypt.iter-time", OPTION_NUMBER, NULL, "Time to spend in PBKDF in milliseconds" },
    { "cluster_size", OPTION_SIZE, "65536", "qcow2 cluster size" },
    { "extended_l2", OPTION_BOOL, "off", "Extended L2 tables" },
    { "preallocation", OPTION_STRING, NULL, "Preallocation mode", OF_CLUSTERS },
    { "compression_type", OPTION_STRING, "zlib",
      "Compression method used for image cluster compression" },
    { "size", OPTION_SIZE, NULL, "Virtual disk size" },
    { "compat", OPTION_STRING, NULL, "Compatibility level (v2 [0.10] or v3 [1.1])" },
    { "backing_file", OPTION_STRING, NULL, "File name of a base image" },
    { "backing_fmt", OPTION_STRING, NULL, "Image format of the base image" },
    { "data_file", OPTION_STRING, NULL, "File name of an external data file" },
    { "data_file_raw", OPTION_BOOL, NULL,
      "The external data file must stay valid as a raw image" },
    { "lazy_refcounts", OPTION_BOOL, "off", "Postpone refcount updates" },
    { "refcount_bits", OPTION_NUMBER, "16", "Width of a reference count entry in bits" },
    { "nocow", OPTION_BOOL, NULL, "Turn off copy-on-write (valid only on btrfs)",
      OF_FILE },
    { "preallocation", OPTION_STRING, NULL, "Preallocation mode", OF_FILE },
    { "extent_size_hint", OPTION_SIZE, NULL,
      "Extent size hint for the image file, 0 to disable", OF_FILE },
};

static const char *const type_names[] = {
    [OPTION_STRING] = "str", [OPTION_BOOL] = "bool (on/off)",
    [OPTION_NUMBER] = "num", [OPTION_SIZE] = "size",
};

bool img_knows_option(const BlockDriver *drv, const char *name)
{
    return drv->create_opts && g_strv_contains(drv->create_opts, name);
}

static bool has_clusters(const BlockDriver *drv)
{
    return img_knows_option(drv, "cluster_size");
}

static const CreateOption *find_known(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(known_options); i++) {
        if (!strcmp(known_options[i].name, name)) {
            return &known_options[i];
        }
    }
    return NULL;
}

/* Whether DRV itself, not the file below it, heeds OPTION. */
static bool is_own(const BlockDriver *drv, const CreateOption *option)
{
    return drv->protocol_name || option->owner == OF_FORMAT ||
           (option->owner == OF_CLUSTERS && has_clusters(drv));
}

/* ---- lists ------------------------------------------------------------------------ */

/* A list that starts or ends with a separating comma would swallow its neighbour. */
static bool valid_list(const char *list)
{
    size_t commas = 0;

    for (const char *p = list + strlen(list); p > list && p[-1] == ','; p--) {
        commas++;
    }
    return *list && *list != ',' && commas % 2 == 0;
}

bool img_add_options(char **options, const char *arg)
{
    if (!valid_list(arg)) {
        error_report("Invalid option list: %s", arg);
        return false;
    }
    char *joined = *options ? g_strconcat(*options, ",", arg, NULL) : g_strdup(arg);
    g_free(*options);
    *options = joined;
    return true;
}

char *img_next_element(const char **list)
{
    const char *p = *list;

    if (!p || !*p) {
        return NULL;
    }
    GString *element = g_string_new(NULL);
    while (*p) {
        if (*p == ',') {
            if (p[1] != ',') {
                p++;
                break;
            }
            p++;
        }
        g_string_append_c(element, *p++);
    }
    *list = p;
    return g_string_free(element, FALSE);
}

bool img_options_ask_help(const char *options)
{
    const char *rest = options;

    for (;;) {
        g_autofree char *element = img_next_element(&rest);
        if (!element) {
            return false;
        }
        if (!strcmp(element, "help") || !strcmp(element, "?")) {
            return true;
        }
    }
}

/* ---- drivers ---------------------------------------------------------------------- */

bool img_create_drivers(const char *filename, const char *format, BlockDriver **drv,
                        BlockDriver **proto_drv, Error **errp)
{
    *drv = bdrv_find_format(format);
    if (!*drv) {
        error_setg(errp, "Unknown file format '%s'", format);
        return false;
    }
    *proto_drv = bdrv_find_protocol(filename, true, errp);
    if (!*proto_drv) {
        return false;
    }
    if (!(*drv)->create_opts) {
        error_setg(errp, "Format driver '%s' does not support image creation", format);
        return false;
    }
    if (!(*proto_drv)->create_opts) {
        error_setg(errp, "Protocol driver '%s' does not support image creation",
                   (*proto_drv)->format_name);
        return false;
    }
    return true;
}

/* The values that "preallocation" takes are the driver's business: a format can do more. */
static char *option_help(const CreateOption *option, bool clusters)
{
    if (!strcmp(option->name, "preallocation")) {
        return g_strdup_printf("%s (allowed values: off, %sfalloc, full)", option->help,
                               clusters ? "metadata, " : "");
    }
    return g_strdup(option->help);
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void img_print_option_list(const BlockDriver *drv, const char *const *list, bool with_file)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (const char *const *name = list; *name; name++) {
        g_ptr_array_add(names, (gpointer)*name);
    }
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        const CreateOption *option = find_known(name);
        if (option && !with_file && !is_own(drv, option)) {
            continue;
        }
        OptionType type = option ? option->type : OPTION_STRING;
        g_autofree char *left = g_strdup_printf("%s=<%s>", name, type_names[type]);
        if (option) {
            g_autofree char *help = option_help(option, has_clusters(drv));
            printf("  %-22s - %s\n", left, help);
        } else {
            printf("  %s\n", left);
        }
    }
}

int img_print_create_options(const char *filename, const char *format)
{
    Error *err = NULL;
    BlockDriver *drv = bdrv_find_format(format);
    BlockDriver *proto_drv = NULL;

    if (!drv) {
        error_report("Unknown file format '%s'", format);
        return EXIT_FAILURE;
    }
    if (!drv->create_opts) {
        error_report("Format driver '%s' does not support image creation", format);
        return EXIT_FAILURE;
    }
    if (filename) {
        if (!img_create_drivers(filename, format, &drv, &proto_drv, &err)) {
            error_report_err(err);
            return EXIT_FAILURE;
        }
        printf("Supported options:\n");
    } else {
        printf("Supported %s options:\n", format);
    }
    img_print_option_list(drv, drv->create_opts, filename != NULL);
    if (!filename) {
        printf("\nThe protocol level may support further options.\n"
               "Specify the target filename to include those options.\n");
    }
    return EXIT_SUCCESS;
}

/* ---- values ----------------------------------------------------------------------- */

/* VALUE of option NAME in its one spelling; NULL with ERRP set. */
static char *canonical_value(OptionType type, const char *name, const char *value,
                             Error **errp)
{
    uint64_t size;
    bool on;
    char *end;

    switch (type) {
    case OPTION_STRING:
        return g_strdup(value);
    case OPTION_BOOL:
        return qapi_bool_parse(name, value, &on, errp) ? g_strdup(value) : NULL;
    case OPTION_NUMBER:
        errno = 0;
        size = g_ascii_strtoull(value, &end, 0);
        if (!g_ascii_isdigit(*value) || *end || errno) {
            error_setg(errp, "Parameter '%s' expects a number", name);
            return NULL;
        }
        return g_strdup_printf("%" PRIu64, size);
    case OPTION_SIZE:
        if (!parse_option_size(name, value, &size, errp)) {
            return NULL;
        }
        return g_strdup_printf("%" PRIu64, size);
    }
    g_assert_not_reached();
}

/* Split "name=value"; a lone name is a switch that is on, or with "no" before it off. */
static void split_element(char *element, const char **name, const char **value)
{
    char *equals = strchr(element, '=');

    *name = element;
    if (equals) {
        *equals = '\0';
        *value = equals + 1;
    } else if (g_str_has_prefix(element, "no") && strcmp(element, "nocow") != 0) {
        *name = element + strlen("no");
        *value = "off";
    } else {
        *value = "on";
    }
}

QDict *img_parse_create_options(const BlockDriver *drv, const char *list, Error **errp)
{
    QDict *opts = qdict_new();
    const char *rest = list;

    for (;;) {
        g_autofree char *element = img_next_element(&rest);
        const char *name, *value;
        if (!element) {
            return opts;
        }
        split_element(element, &name, &value);
        if (!img_knows_option(drv, name)) {
            error_setg(errp, "Invalid parameter '%s'", name);
            break;
        }
        const CreateOption *option = find_known(name);
        g_autofree char *text = canonical_value(option ? option->type : OPTION_STRING, name,
                                                value, errp);
        if (!text) {
            break;
        }
        qdict_put_str(opts, name, text);
    }
    qobject_unref(opts);
    return NULL;
}

static void append_option(GString *out, const char *name, const char *value)
{
    g_string_append_printf(out, " %s=", name);
    for (const char *p = value; *p; p++) {
        g_string_append(out, *p == ',' ? "," : "");     /* a literal comma is doubled */
        g_string_append_c(out, *p);
    }
}

char *img_describe_create_options(const BlockDriver *drv, const QDict *opts)
{
    GString *out = g_string_new(NULL);

    for (size_t i = 0; i < ARRAY_SIZE(known_options); i++) {
        const CreateOption *option = &known_options[i];
        const char *value = qdict_get_try_str(opts, option->name);
        /* preallocation, which both may own, is in the table twice. */
        if (!strcmp(option->name, "preallocation") &&
            (option->owner == OF_CLUSTERS) != has_clusters(drv)) {
            continue;
        }
        if (!value && img_knows_option(drv, option->name)) {
            value = option->fallback;
        }
        if (value) {
            append_option(out, option->name, value);
        }
    }
    const char *name;
    json_t *member;
    json_object_foreach((json_t *)opts, name, member) {
        if (!find_known(name) && json_is_string(member)) {
            append_option(out, name, json_string_value(member));
        }
    }
    return g_string_free(out, FALSE);
}
