/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands about user-creatable objects of any type. */
#include "miniblk/osdep.h"
#include "miniblk/id.h"
#include "qmp/object.h"
#include "qmp/qmp.h"

static const QmpObjectType *const types[] = {
    &qmp_object_iothread,
    &qmp_object_throttle_group,
};

/* An object and what it is. */
typedef struct ObjectRef {
    const QmpObjectType *type;
    void *obj;
} ObjectRef;

/* False when there is none. */
static bool find_object(const char *id, ObjectRef *ref)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        for (void *obj = types[i]->next(NULL); obj; obj = types[i]->next(obj)) {
            g_autofree char *this_id = types[i]->get_id(obj);

            if (!strcmp(this_id, id)) {
                *ref = (ObjectRef) { types[i], obj };
                return true;
            }
        }
    }
    return false;
}

/* ---- making and removing ----------------------------------------------------------- */

bool qmp_object_add(QDict *args, Error **errp)
{
    const char *type_name = qdict_get_try_str(args, "qom-type");
    const char *id = qdict_get_try_str(args, "id");
    ObjectRef existing;

    if (!id_wellformed(id)) {
        error_setg(errp, "Parameter 'id' expects an identifier");
        return false;
    }
    if (find_object(id, &existing)) {
        error_setg(errp, "attempt to add duplicate property '%s' to object "
                   "(type 'container')", id);
        return false;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        if (!strcmp(types[i]->name, type_name)) {
            return types[i]->add(id, args, errp);
        }
    }
    g_assert_not_reached();     /* ObjectOptions lists the same types */
}

void qmp_object_help(GString *out)
{
    g_string_append(out, "List of user creatable objects:\n");
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        g_string_append_printf(out, "  %s%s\n", types[i]->name, types[i]->help);
    }
}

static json_t *cmd_object_add(json_t *args, Error **errp)
{
    qmp_object_add(args, errp);
    return NULL;
}

static json_t *cmd_object_del(json_t *args, Error **errp)
{
    const char *id = qdict_get_try_str(args, "id");
    ObjectRef ref;

    if (find_object(id, &ref)) {
        ref.type->del(ref.obj, errp);
    } else {
        error_setg(errp, "object '%s' not found", id);
    }
    return NULL;
}

/* ---- paths: /objects and /objects/ID ---------------------------------------------- */

#define OBJECTS_PATH "/objects"

/* The object that PATH names, or an error. */
static bool find_by_path(const char *path, ObjectRef *ref, Error **errp)
{
    const char *prefix = OBJECTS_PATH "/";

    if (g_str_has_prefix(path, prefix) && find_object(path + strlen(prefix), ref)) {
        return true;
    }
    error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found", path);
    return false;
}

static void add_entry(json_t *list, const char *name, const char *type)
{
    json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "type", type));
}

static void list_objects(json_t *list)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autofree char *type = g_strdup_printf("child<%s>", types[i]->name);

        for (void *obj = types[i]->next(NULL); obj; obj = types[i]->next(obj)) {
            g_autofree char *id = types[i]->get_id(obj);
            add_entry(list, id, type);
        }
    }
}

static json_t *cmd_qom_list(json_t *args, Error **errp)
{
    const char *path = qdict_get_try_str(args, "path");
    g_autoptr(json_t) list = json_array();
    ObjectRef ref;

    add_entry(list, "type", "string");
    if (!strcmp(path, OBJECTS_PATH)) {
        list_objects(list);
    } else if (find_by_path(path, &ref, errp)) {
        for (const QmpObjectProperty *p = ref.type->properties; p->name; p++) {
            add_entry(list, p->name, p->type);
        }
    } else {
        return NULL;
    }
    return g_steal_pointer(&list);
}

static bool check_property(const ObjectRef *ref, const char *name, Error **errp)
{
    for (const QmpObjectProperty *p = ref->type->properties; p->name; p++) {
        if (!strcmp(p->name, name)) {
            return true;
        }
    }
    error_setg(errp, "Property '%s.%s' not found", ref->type->name, name);
    return false;
}

bool qmp_property_is_int(const char *name, const json_t *value, Error **errp)
{
    if (!json_is_integer(value)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: integer", name);
        return false;
    }
    return true;
}

static json_t *cmd_qom_get(json_t *args, Error **errp)
{
    const char *name = qdict_get_try_str(args, "property");
    ObjectRef ref;

    if (!find_by_path(qdict_get_try_str(args, "path"), &ref, errp)) {
        return NULL;
    }
    if (!strcmp(name, "type")) {
        return json_string(ref.type->name);
    }
    return check_property(&ref, name, errp) ? ref.type->get(ref.obj, name) : NULL;
}

static json_t *cmd_qom_set(json_t *args, Error **errp)
{
    const char *name = qdict_get_try_str(args, "property");
    ObjectRef ref;

    if (find_by_path(qdict_get_try_str(args, "path"), &ref, errp) &&
        check_property(&ref, name, errp)) {
        ref.type->set(ref.obj, name, json_object_get(args, "value"), errp);
    }
    return NULL;
}

const QmpCommand qmp_commands_object[] = {
    { "object-add", "ObjectOptions", cmd_object_add },
    { "object-del", "{id:str}", cmd_object_del },
    { "query-iothreads", "{}", qmp_query_iothreads },
    { "qom-list", "{path:str}", cmd_qom_list },
    { "qom-get", "{path:str, property:str}", cmd_qom_get },
    { "qom-set", "{path:str, property:str, value:any}", cmd_qom_set },
    { NULL }
};
