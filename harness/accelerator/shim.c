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
                             int device_id, int inputs, char *roles);
typedef void (*destroy_fn)(int64_t state);
typedef int (*forward_fn)(int64_t state, int is_forward, const int64_t *call, int words, uint64_t place,
                          uint64_t content, const int64_t **in_shapes, const int *in_dims, void **in_data,
                          const int *in_types, const size_t *in_versions, void *stream);
typedef int (*pass_fn)(const char *graph, const char *const *keys, const char *const *values, int options,
                       const char *const *arg_names, int args, void *const *arg_data, const int64_t *const *arg_shapes,
                       const int *arg_dims, const int *arg_types, const char *const *arg_devices,
                       const char *const *aux_names, int auxs, void *const *aux_data, const int64_t *const *aux_shapes,
                       const int *aux_dims, const int *aux_types);

static create_fn create;
static destroy_fn destroy;
static forward_fn forward;
static pass_fn pass;

/* Of the thread: MXNet asks for them on the thread of the call. */
static __thread char *message; /* of the last failure: MXNet asks for it after a call that returned 0 */
static __thread char *result;  /* of the last pass */

/* MXNet takes it for a C++ object and reads the two flags. */
struct state {
    void *vtable;
    char ignore_warn, created, padding[6];
    int64_t number;
    uint64_t place, watched, samples, bytes; /* of the weights at the last call, see watch */
    char *roles;                             /* of each input; behind `versions` */
    size_t versions[];                       /* of each STATE at the last call */
};

enum { DATA, WEIGHT, STATE }; /* each call counts as a write of a STATE (BatchNorm's mean), though it writes none */

#define MXTRT_ABI 3
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
    static __thread char last[16384];
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
    struct state *fresh = calloc(1, sizeof *fresh + inputs * (sizeof *fresh->versions + 1));
    (void)mark, (void)shapes, (void)dims, (void)types;
    *made = NULL;
    if (!fresh) return 0;
    fresh->roles = (char *)(fresh->versions + inputs);
    fresh->number = create ? create(keys, values, count, device, device_id, inputs, fresh->roles) : 0;
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

/* A call in numbers: for each data input (or output), its address, type, rank and sizes. */
static int64_t *describe(int64_t *out, const struct state *self, const int64_t **shapes, const int *dims, void **data,
                         const int *types, int count) {
    for (int i = 0; i < count; i++) {
        if (self && self->roles[i] != DATA) continue;
        *out++ = (int64_t)(intptr_t)data[i];
        *out++ = types[i];
        *out++ = dims[i];
        for (int axis = 0; axis < dims[i]; axis++) *out++ = shapes[i][axis];
    }
    return out;
}

static size_t words_for(const struct state *self, const int *dims, int count) {
    size_t words = 0;
    for (int i = 0; i < count; i++)
        if (!self || self->roles[i] == DATA) words += 3 + (dims[i] > 0 ? dims[i] : 0);
    return words;
}

static uint64_t mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ (hash >> 29);
}

/* Of every `step`-th block of 32 bytes, and of the rest. Four hashes at a time, because a multiplication takes long. */
static uint64_t mix_bytes(uint64_t hash, const char *bytes, size_t size, size_t step) {
    uint64_t lanes[4] = {1, 2, 3, 4}, block[4] = {0, 0, 0, 0};
    size_t i, blocks = size / 32;
    for (i = 0; i < blocks; i += step) {
        memcpy(block, bytes + 32 * i, 32);
        for (int lane = 0; lane < 4; lane++) lanes[lane] = mix(lanes[lane], block[lane]);
    }
    memset(block, 0, sizeof block);
    memcpy(block, bytes + 32 * blocks, size % 32);
    for (int lane = 0; lane < 4; lane++) hash = mix(mix(hash, lanes[lane]), block[lane]);
    return hash;
}

static size_t bytes_of(const int64_t *shape, int rank, int type) {
    static const size_t sizes[] = {4, 8, 2, 1, 4, 1, 8, 1, 2, 2, 4, 8, 2}; /* mshadow's types, in order */
    size_t size = type >= 0 && type < 13 ? sizes[type] : 1;
    for (int axis = 0; axis < rank; axis++) size *= shape[axis] > 0 ? (size_t)shape[axis] : 0;
    return size;
}

uint64_t mxtrt_hash(uint64_t hash, const char *bytes, uint64_t size) { return mix_bytes(hash, bytes, size, 1); }

/* Where the weights are, and what is in them, as two hashes.
 *
 * What is in them: the versions of WEIGHTs (MXNet counts writes) and the bytes of STATEs. Where a STATE's version is one
 * more than at the last call, only that call counted, and the bytes are those of then. When the state is new or anything
 * has changed, samples of all bytes count too, because another network's array may lie where one was. On a GPU bytes
 * cannot be read here: segment.py does. */
static void watch(struct state *self, const int64_t **shapes, const int *dims, void **data, const int *types,
                  const size_t *versions, int count, int on_cpu, uint64_t *place, uint64_t *content) {
    uint64_t where = 1, what = 1;
    int ours = 1;
    for (int i = 0; i < count; i++) {
        if (self->roles[i] == DATA) continue;
        where = mix(where, (uint64_t)(uintptr_t)data[i]);
        if (self->roles[i] == WEIGHT) what = mix(what, versions[i]);
        else ours &= versions[i] == self->versions[i] + 1;
        self->versions[i] = versions[i];
    }
    if (on_cpu && !(ours && where == self->place)) {
        self->bytes = 1;
        for (int i = 0; i < count; i++)
            if (self->roles[i] == STATE)
                self->bytes = mix_bytes(self->bytes, data[i], bytes_of(shapes[i], dims[i], types[i]), 1);
    }
    what = mix(what, self->bytes);
    if (on_cpu && !(where == self->place && what == self->watched)) {
        self->samples = 1;
        for (int i = 0; i < count; i++) {
            size_t size = bytes_of(shapes[i], dims[i], types[i]);
            if (self->roles[i] == WEIGHT) self->samples = mix_bytes(self->samples, data[i], size, size / 4096 + 1);
        }
    }
    self->place = *place = where;
    self->watched = what;
    *content = mix(what, self->samples);
}

static int is_sparse(const int *storage, int count) {
    for (int i = 0; storage && i < count; i++)
        if (storage[i] != 0) return 1; /* 0 is MXNet's kDefaultStorage */
    return 0;
}

int _opCallFStatefulCompute(int is_forward, void *made, const int64_t **in_shapes, int *in_dims, void **in_data,
                            int *in_types, size_t *in_versions, const char **in_device, int *in_device_id, int inputs,
                            const int64_t **out_shapes, int *out_dims, void **out_data, int *out_types,
                            size_t *out_versions, const char **out_device, int *out_device_id, int outputs,
                            void *cpu_malloc, void *cpu_alloc, void *gpu_malloc, void *gpu_alloc, void *stream,
                            void *sparse_malloc, void *sparse_alloc, const int *in_storage, const int *out_storage,
                            ...) {
    struct state *self = made;
    forward_fn run = forward; /* the exit of the interpreter may take it away meanwhile */
    int on_cpu = !inputs || !in_device || !in_device[0] || strcmp(in_device[0], "gpu");
    uint64_t place = 0, content = 0;
    int64_t *call, *end;
    int done;
    (void)in_device_id, (void)out_versions, (void)out_device, (void)out_device_id;
    (void)cpu_malloc, (void)cpu_alloc, (void)gpu_malloc, (void)gpu_alloc, (void)sparse_malloc, (void)sparse_alloc;
    if (!run) {
        mxtrt_fail("mxtrt: Python is shutting down");
        return 0;
    }
    if (is_sparse(in_storage, inputs) || is_sparse(out_storage, outputs)) {
        mxtrt_fail("mxtrt: an input or output of this segment is a sparse array; segments take and give dense ones: "
                   "convert the network's inputs with x.tostype('default')");
        return 0;
    }
    call = malloc(sizeof *call * (words_for(self, in_dims, inputs) + words_for(NULL, out_dims, outputs) + 1));
    if (!call) return 0;
    end = describe(call, self, in_shapes, in_dims, in_data, in_types, inputs);
    end = describe(end, NULL, out_shapes, out_dims, out_data, out_types, outputs);
    if (is_forward) watch(self, in_shapes, in_dims, in_data, in_types, in_versions, inputs, on_cpu, &place, &content);
    done = run(self->number, is_forward, call, (int)(end - call), place, content, in_shapes, in_dims, in_data, in_types,
               in_versions, stream);
    free(call);
    return done;
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
