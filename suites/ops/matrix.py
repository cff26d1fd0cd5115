"""Matrix products: how their attributes and shapes are drawn."""

from __future__ import annotations

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor

FLOATS = ["float32", "float32", "float64"]


def _two(d: Draw, left: tuple[int, ...], right: tuple[int, ...], dynamic: bool = True) -> Inputs:
    kind = d.pick(FLOATS)
    axes = lambda shape: tuple(range(len(shape))) if dynamic else ()  # noqa: E731
    return {
        "lhs": Tensor(left, kind, dynamic=axes(left)),
        "rhs": Tensor(right, kind, const=d.pick([False, False, True]), dynamic=()),
    }


def varying_sum(d: Draw, a: Attributes) -> Inputs:
    """Of two sizes that are summed over, one may vary: known to be equal only when it is run."""
    rows, k, columns = d.sizes(3)
    varying = d.boolean()
    return {
        "lhs": Tensor((rows, k), dynamic=(0, 1) if varying else (0,)),
        "rhs": Tensor((k, columns), dynamic=() if varying else (0, 1)),
    }


def dot(d: Draw, a: Attributes) -> Inputs:
    turn_a, turn_b = a.get("transpose_a", False), a.get("transpose_b", False)
    k = d.integer(1, 5)
    ranks = [(1, 2), (2, 1), (2, 2), (2, 2), (3, 2), (2, 3), (3, 3), (3, 1), (1, 3), (4, 2)]
    if not turn_a and not turn_b:
        ranks.append((1, 1))
    if a.get("forward_stype") == "csr":
        ranks = [(2, 2)]  # MXNet casts the result, and only matrices are CSR
    left_rank, right_rank = d.pick(ranks)
    left, right = d.sizes(left_rank - 1), d.sizes(right_rank - 1)
    lhs = (k, *left) if turn_a else (*left, k)
    rhs = (*right, k) if turn_b else (k, *right)
    inputs = _two(d, lhs, rhs, dynamic=False)
    free = tuple(range(1, left_rank)) if turn_a else tuple(range(left_rank - 1))
    inputs["lhs"] = Tensor(lhs, inputs["lhs"].dtype, dynamic=free)
    return inputs


def batch_dot(d: Draw, a: Attributes) -> Inputs:
    lead = d.shape((1, 3), high=3)
    m, k, n = d.sizes(3)
    kind = d.pick(FLOATS)
    lhs = (k, m) if a.get("transpose_a", False) else (m, k)
    rhs = (n, k) if a.get("transpose_b", False) else (k, n)
    batch = tuple(range(len(lead)))
    return {
        "lhs": Tensor((*lead, *lhs), kind, dynamic=batch),
        "rhs": Tensor((*lead, *rhs), kind, dynamic=batch),
    }


def matmul(d: Draw, a: Attributes) -> Inputs:
    k = d.integer(0, 4)
    m, n = d.sizes(2, 0, 4)
    left, right = d.broadcastable((0, 2), 1, 3)
    if d.boolean():
        left = left[d.integer(0, len(left)) :]
    form = d.pick(["matrices", "matrices", "row", "column", "vectors"])
    if form == "matrices":
        return _two(d, (*left, m, k), (*right, k, n), dynamic=False)
    if form == "row":
        return _two(d, (k,), (*right, k, n), dynamic=False)
    if form == "column":
        return _two(d, (*left, m, k), (k,), dynamic=False)
    return _two(d, (k,), (k,), dynamic=False)


def matmul_dynamic(d: Draw, a: Attributes) -> Inputs:
    inputs = matmul(d, a)
    lhs = inputs["lhs"]
    rows = len(lhs.shape) - 2
    if rows >= 0:
        inputs["lhs"] = Tensor(lhs.shape, lhs.dtype, dynamic=(rows,))
    return inputs


def empty_dot(d: Draw, a: Attributes) -> Inputs:
    """A sum over nothing, beside an axis that may vary."""
    dtype = d.pick(("float32", "float64"))
    return {"lhs": Tensor((d.integer(1, 3), d.integer(0, 2), 0), dtype, dynamic=(0,)), "rhs": Tensor((3, 0, 2), dtype)}


def np_dot(d: Draw, a: Attributes) -> Inputs:
    k = d.integer(0, 4)
    left_rank, right_rank = d.integer(0, 3), d.integer(0, 3)
    left = (*d.sizes(left_rank - 1, 0, 4), k) if left_rank else ()
    right = (*d.sizes(max(right_rank - 2, 0), 0, 3), k, *d.sizes(min(right_rank - 1, 1), 1, 4)) if right_rank else ()
    inputs = _two(d, left, right, dynamic=False)
    if left_rank > 1:
        inputs["lhs"] = Tensor(left, inputs["lhs"].dtype, dynamic=(0,))
    return inputs


def tensordot(d: Draw, a: Attributes) -> Inputs:
    left_axes, right_axes = a["a_axes_summed"], a["b_axes_summed"]
    left_rank = max([axis + 1 if axis >= 0 else -axis for axis in left_axes], default=0) + d.integer(0, 1)
    right_rank = max([axis + 1 if axis >= 0 else -axis for axis in right_axes], default=0) + d.integer(0, 1)
    left, right = list(d.sizes(left_rank, 1, 3)), list(d.sizes(right_rank, 1, 3))
    while len({axis % left_rank for axis in left_axes}) < len(left_axes):  # e.g. (0, -1) of one axis
        left_rank, left = left_rank + 1, [*left, 2]
    while len({axis % right_rank for axis in right_axes}) < len(right_axes):
        right_rank, right = right_rank + 1, [*right, 2]
    for i, j in zip(left_axes, right_axes):
        right[j] = left[i]
    return _two(d, tuple(left), tuple(right), dynamic=False)


def tensordot_int(d: Draw, a: Attributes) -> Inputs:
    shared = d.sizes(a["axes"], 0, 3)
    return _two(
        d, (*d.sizes(d.integer(0, 2), 0, 3), *shared), (*shared, *d.sizes(d.integer(0, 2), 1, 3)), dynamic=False
    )


EQUATIONS = [
    "ij,jk", "ij,jk->ik", "ij,kj->ik", "ii", "ii->i", "ij->ji", "ba", "i,i", "ij,j", "...j,j", "...ij,...jk->...ik",
    "ij,jk,kl->il", ",ij", "i->", "i,j->ij", "i...->...", "ij,ij->i", " i j , j k -> i k ", "...", "Ab,bA->A", "iij->j",
    "ij,ij->ij", "bij,bjk->bik", "bhqd,bhkd->bhqk", "iji->ij", "a,b,c->cab", "...ii->...i", "i,i,i->i", "ij->", "aabb->ab",
    "ij...,jk...->ik...",
]  # fmt: skip


def einsum(d: Draw, a: Attributes) -> Inputs:
    terms = a["subscripts"].replace(" ", "").partition("->")[0].split(",")
    sizes = {label: d.integer(0 if label == "i" else 1, 3) for label in sorted(set("".join(terms)) - {"."})}
    dots = d.sizes(d.integer(0, 2), 1, 3)
    kind = d.pick(["float32", "float32", "float32", "float64", "float16", "int32", "int64", "int8", "uint8"])
    inputs: Inputs = {}
    for number, term in enumerate(terms):
        before, mark, after = term.partition("...")
        shape = (*(sizes[x] for x in before), *(dots if mark else ()), *(sizes[x] for x in after))
        alone = [x for x in term if term.count(x) > 1]
        if len(terms) > 1 and not alone and d.pick([False, False, True]):  # an axis of size 1 broadcasts
            shape = tuple(1 if d.pick([False, False, True]) and size else size for size in shape)
        free = (0,) if number == 0 and "iji" not in term and not alone and shape else ()
        inputs[f"data{number}"] = (
            Tensor(shape, kind, -9, 9, dynamic=free) if kind[0] in "iu" else Tensor(shape, kind, dynamic=free)
        )
    a["num_args"] = len(terms)
    return inputs


def length(a: Attributes, inputs: Inputs) -> int:
    return max((max(tensor.shape, default=1) for tensor in inputs.values()), default=1)


def long_sums(d: Draw, a: Attributes) -> Inputs:
    """Small integers whose sums of products float32 does not hold."""
    a["num_args"] = 2
    return {name: Tensor((2, 1201), "int8", low=119, high=127) for name in ("data0", "data1")}


BOTH = [DEFAULT, False, True]

SPECS = [
    Spec("dot", {"transpose_a": BOTH, "transpose_b": BOTH, "forward_stype": [DEFAULT, "csr", "default", "row_sparse"]}, dot,
         terms=length, examples=20),
    Spec("dot", {}, varying_sum, terms=length, examples=4),
    Spec("batch_dot", {"transpose_a": BOTH, "transpose_b": BOTH, "forward_stype": [DEFAULT, "csr", "default", "row_sparse"]}, batch_dot,
         terms=length),
    Spec("_npi_matmul", {}, matmul_dynamic, np_shape=True, terms=length, examples=20),
    Spec("_np_dot", {}, np_dot, np_shape=True, terms=length, examples=20),
    Spec("_np_dot", {}, empty_dot, np_shape=True, terms=length, examples=2),
    Spec("_npi_tensordot", {"a_axes_summed": [(1,), (0,), (-1,), (1, 2), (0, -1)],
                            "b_axes_summed": [(0,), (1,), (-2,), (1, 0), (-1, 0)]}, tensordot,
         legal=lambda a: len(a["a_axes_summed"]) == len(a["b_axes_summed"]), np_shape=True,
         terms=lambda a, i: length(a, i) ** 2),
    Spec("_npi_tensordot_int_axes", {"axes": [0, 1, 2]}, tensordot_int, np_shape=True, terms=lambda a, i: length(a, i) ** 2),
    Spec("_npi_einsum", {"subscripts": ["ij,ij->i"]}, long_sums, np_shape=True, examples=1),
    Spec("_npi_einsum", {"subscripts": EQUATIONS, "optimize": [DEFAULT, 0, 1]}, einsum, np_shape=True,
         terms=lambda a, i: length(a, i) ** 3, examples=20),
]  # fmt: skip
