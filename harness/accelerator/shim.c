/* The door into MXNet: a library of the form that MXNet 1.8 and 1.9 load, without C++ or Python ABI.
 *
 * MXNet looks up the names below and calls them through C; each call goes on to a function pointer that Python has set.
 * It registers one subgraph operator, _mxtrt_segment, and two graph passes, TensorRT and mxtrt (which are the same).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void (*any_fn)(void);
typedef int64_t (*create_fn)(const char *const *keys, const char *const *values, int count, const char *device,
                             int device_id, unsigned **shapes, const int *dims, int inputs, const int *types);
typedef void (*destroy_fn)(int64_t state);
typedef int (*forward_fn)(int64_t state, int is_forward, const int64_t **in_shapes, const int *in_dims, void **in_data,
                          const int *in_types, const size_t *in_versions, int inputs, const int64_t **out_shapes,
                          const int *out_dims, void **out_data, const int *out_types, int outputs, void *stream);
typedef int (*pass_fn)(const char *graph, const char *const *keys, const char *const *values, int options,
                       const char *const *arg_names, int args, void *const *arg_data, const int64_t *const *arg_shapes,
                       const int *arg_dims, const int *arg_types, const char *const *arg_devices,
                       const char *const *aux_names, int auxs, void *const *aux_data, const int64_t *const *aux_shapes,
                       const int *aux_dims, const int *aux_types);

static create_fn create;
static destroy_fn destroy;
static forward_fn forward;
static pass_fn pass;

static char *message; /* of the last failure: MXNet asks for it after a call that returned 0 */
static char *result;  /* of the last pass */

/* MXNet takes it for a C++ object and reads the two flags. */
struct state {
    void *vtable;
    char ignore_warn, created, padding[6];
    int64_t number;
};

#define MXTRT_ABI 1
int mxtrt_abi(void) { return MXTRT_ABI; }

void mxtrt_connect(create_fn c, destroy_fn d, forward_fn f, pass_fn p) {
    create = c;
    destroy = d;
    forward = f;
    pass = p;
}

static char *copy(const char *text) {
    size_t size = strlen(text) + 1;
    char *target = malloc(size);
    return target ? memcpy(target, text, size) : NULL;
}

void mxtrt_fail(const char *text) {
    char *old = message;
    message = copy(text);
    free(old);
}

void mxtrt_result(const char *text) {
    free(result);
    result = copy(text);
}

int _opVersion(void) { return 11; }
int initialize(int version) {
    (void)version;
    return 1;
}
void _opCallFree(void *pointer) { free(pointer); }

int _msgSize(void) { return message ? 1 : 0; }
void _msgGet(int index, const char **text) {
    static char last[16384];
    (void)index;
    strncpy(last, message ? message : "", sizeof last - 1);
    free(message);
    message = NULL;
    *text = last;
}

/* --- the operator ------------------------------------------------------------------------------------------------ */

static void unused(void) {}
static const char *devices[] = {"cpu", "gpu"};
static any_fn markers[] = {unused, unused}; /* MXNet only passes them back */

int _opRegSize(void) { return 1; }
void _opRegGet(int index, const char **name, int *is_subgraph, const char ***forward_device, any_fn **forward_mark,
               int *forward_count, const char ***backward_device, any_fn **backward_mark, int *backward_count,
               const char ***state_device, any_fn **state_mark, int *state_count, any_fn *parse, any_fn *type,
               any_fn *storage, any_fn *shape, any_fn *mutate) {
    (void)index;
    *name = "_mxtrt_segment";
    *is_subgraph = 1;
    *forward_device = *backward_device = *state_device = devices;
    *forward_mark = *backward_mark = *state_mark = markers;
    *forward_count = *backward_count = 0;
    *state_count = 2;
    *parse = *type = *storage = *shape = *mutate = NULL;
}

int _opCallCreateOpState(any_fn mark, const char *const *keys, const char *const *values, int count,
                         const char *device, int device_id, unsigned **shapes, int *dims, int inputs, const int *types,
                         void **made) {
    struct state *fresh = calloc(1, sizeof *fresh);
    (void)mark;
    *made = NULL;
    if (!fresh) return 0;
    fresh->number = create ? create(keys, values, count, device, device_id, shapes, dims, inputs, types) : 0;
    if (!fresh->number) {
        free(fresh);
        return 0;
    }
    fresh->ignore_warn = fresh->created = 1;
    *made = fresh;
    return 1;
}

int _opCallDestroyOpState(void *made) {
    struct state *old = made;
    if (old && destroy) destroy(old->number);
    free(old);
    return 1;
}

int _opCallFStatefulCompute(int is_forward, void *made, const int64_t **in_shapes, int *in_dims, void **in_data,
                            int *in_types, size_t *in_versions, const char **in_device, int *in_device_id, int inputs,
                            const int64_t **out_shapes, int *out_dims, void **out_data, int *out_types,
                            size_t *out_versions, const char **out_device, int *out_device_id, int outputs,
                            void *cpu_malloc, void *cpu_alloc, void *gpu_malloc, void *gpu_alloc, void *stream, ...) {
    struct state *self = made;
    (void)in_device, (void)in_device_id, (void)out_versions, (void)out_device, (void)out_device_id;
    (void)cpu_malloc, (void)cpu_alloc, (void)gpu_malloc, (void)gpu_alloc;
    if (!forward) return 0; /* the interpreter is shutting down */
    return forward(self->number, is_forward, in_shapes, in_dims, in_data, in_types, in_versions, inputs, out_shapes,
                   out_dims, out_data, out_types, outputs, stream);
}

/* --- the passes -------------------------------------------------------------------------------------------------- */

int _passRegSize(void) { return 2; }
void _passRegGet(int index, any_fn *mark, const char **name) {
    *mark = unused;
    *name = index ? "mxtrt" : "TensorRT";
}

int _passCallGraphPass(any_fn mark, const char *graph, char **changed, const char *const *keys,
                       const char *const *values, int options, const char *name, const char *const *arg_names,
                       int args, void *const *arg_data, const int64_t *const *arg_shapes, const int *arg_dims,
                       const int *arg_types, const size_t *arg_versions, const char *const *arg_devices,
                       const int *arg_device_ids, const char *const *aux_names, int auxs, void *const *aux_data,
                       const int64_t *const *aux_shapes, const int *aux_dims, const int *aux_types, ...) {
    (void)mark, (void)name, (void)arg_versions, (void)arg_device_ids;
    if (!pass || !pass(graph, keys, values, options, arg_names, args, arg_data, arg_shapes, arg_dims, arg_types,
                       arg_devices, aux_names, auxs, aux_data, aux_shapes, aux_dims, aux_types))
        return 0;
    *changed = result; /* freed by MXNet through _opCallFree */
    result = NULL;
    return *changed != NULL;
}

/* --- looked up by MXNet, never called ---------------------------------------------------------------------------- */

int _partRegSize(void) { return 0; }
#define STUB(name) \
    int name(void) { return 0; }
STUB(_opCallParseAttrs)
STUB(_opCallInferShape)
STUB(_opCallInferType)
STUB(_opCallInferSType)
STUB(_opCallFCompute)
STUB(_opCallMutateInputs)
STUB(_partRegGetCount)
STUB(_partRegGet)
STUB(_partCallSupportedOps)
STUB(_partCallCreateSelector)
STUB(_partCallSelect)
STUB(_partCallSelectInput)
STUB(_partCallSelectOutput)
STUB(_partCallFilter)
STUB(_partCallReset)
STUB(_partCallReviewSubgraph)
