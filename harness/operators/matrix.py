"""Matrix products: dot, batch_dot, matmul, tensordot, einsum."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import numpy as np

from ..dims import Dim, Shape, Size, is_static, product
from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator
from .schema import Attributes

_LETTERS = string.ascii_lowercase + string.ascii_uppercase


@operator("dot", ignore=("forward_stype",))
def dot(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """The sum over lhs's last axis (``transpose_a``: its first) and rhs's first (``transpose_b``: its last); 1-D x 1-D is (1,)."""
    check_floats(lhs, rhs)
    if not lhs.rank or not rhs.rank:
        raise Unsupported(f"its inputs are {lhs.type} and {rhs.type}; MXNet's dot takes arrays of 1 axis and more")
    if lhs.rank == rhs.rank == 1:
        if a.transpose_a or a.transpose_b:
            raise Unsupported("MXNet's dot does not transpose vectors")
        return cx.reshape(contract(cx, lhs, rhs, [0], [0]), (1,))
    left = 0 if a.transpose_a else lhs.rank - 1
    right = rhs.rank - 1 if a.transpose_b else 0
    return contract(cx, lhs, rhs, [left], [right])


@operator("batch_dot", ignore=("forward_stype",))
def batch_dot(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """The product of the matrices in the last two axes; the other axes of both are equal."""
    check_floats(lhs, rhs)
    if lhs.rank < 3 or lhs.rank != rhs.rank:
        raise Unsupported(f"its inputs are {lhs.type} and {rhs.type}; MXNet asks for equal ranks of 3 and more")
    check_equal(lhs.shape[:-2], rhs.shape[:-2], "the leading axes")
    return product_of(cx, transposed(cx, lhs, a.transpose_a), transposed(cx, rhs, a.transpose_b))


@operator("_npi_matmul")
def matmul(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """NumPy's matmul: matrices in the last two axes, the others broadcast; vectors count as a row or a column."""
    check_floats(lhs, rhs)
    if not lhs.rank or not rhs.rank:
        raise Unsupported(f"its inputs are {lhs.type} and {rhs.type}; matmul does not take scalars")
    if rhs.rank == 1:
        return contract(cx, lhs, rhs, [lhs.rank - 1], [0])
    if lhs.rank == 1:
        y = product_of(cx, cx.unsqueeze(lhs, 0), rhs)  # TensorRT refuses a vector times a stack of matrices
        return cx.squeeze(y, y.rank - 2)
    return product_of(cx, lhs, rhs)


@operator("_np_dot")
def np_dot(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """NumPy's dot: the sum over lhs's last axis and rhs's last but one (or only) axis; a scalar multiplies."""
    check_floats(lhs, rhs)
    if not lhs.rank or not rhs.rank:
        kind = TensorType(lhs.dtype, lhs.shape or rhs.shape)
        return cx.op("Mul", lhs, rhs, type=kind)
    return contract(cx, lhs, rhs, [lhs.rank - 1], [max(rhs.rank - 2, 0)])


@operator("_npi_tensordot")
def tensordot(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """The sum over pairs of axes, one of each tensor."""
    check_floats(lhs, rhs)
    left, right = a.a_axes_summed, a.b_axes_summed
    if len(left) != len(right):
        raise Unsupported(f"a_axes_summed={left} and b_axes_summed={right} differ in length")
    return contract(cx, lhs, rhs, _places(left, lhs), _places(right, rhs))


@operator("_npi_tensordot_int_axes")
def tensordot_int_axes(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """The sum over the last ``axes`` axes of one tensor and the first ones of the other."""
    check_floats(lhs, rhs)
    count = a.axes
    if not 0 <= count <= min(lhs.rank, rhs.rank):
        raise Unsupported(f"axes={count} of inputs of {lhs.rank} and {rhs.rank} axes")
    return contract(cx, lhs, rhs, list(range(lhs.rank - count, lhs.rank)), list(range(count)))


def contract(cx: Context, lhs: Value, rhs: Value, left: Sequence[int], right: Sequence[int]) -> Value:
    """The sum over pairs of axes, in the cheapest form: MatMul or Gemm of matrices, Einsum of anything else."""
    check_equal([lhs.shape[i] for i in left], [rhs.shape[j] for j in right], "the axes it sums over")
    kept_left = [i for i in range(lhs.rank) if i not in left]
    kept_right = [j for j in range(rhs.rank) if j not in right]
    shape = (*(lhs.shape[i] for i in kept_left), *(rhs.shape[j] for j in kept_right))
    kind = TensorType(lhs.dtype, shape)
    if any(lhs.shape[i] == 0 for i in left) and is_static(shape):
        sizes = [size for size in shape if isinstance(size, int)]
        return cx.const(np.zeros(sizes, lhs.dtype))  # TensorRT does not build the product of empty vectors
    if lhs.rank == rhs.rank == 2 and len(left) == 1:
        if (left[0], right[0]) == (1, 0):
            return cx.op("MatMul", lhs, rhs, type=kind)
        return cx.op("Gemm", lhs, rhs, type=kind, transA=1 - left[0], transB=right[0])
    if rhs.rank == 2 and list(left) == [lhs.rank - 1] and list(right) == [0] and lhs.rank > 1:
        return cx.op("MatMul", lhs, rhs, type=kind)
    if lhs.rank + rhs.rank > len(_LETTERS):
        raise Unsupported(f"its inputs have {lhs.rank} and {rhs.rank} axes")
    first = _LETTERS[: lhs.rank]
    second = list(_LETTERS[lhs.rank : lhs.rank + rhs.rank])
    for i, j in zip(left, right):
        second[j] = first[i]
    result = [first[i] for i in kept_left] + [second[j] for j in kept_right]
    return _einsum(cx, [first, "".join(second)], [lhs, rhs], "".join(result), shape)


def product_of(cx: Context, lhs: Value, rhs: Value) -> Value:
    """``lhs @ rhs`` of matrices or stacks of them, leading axes broadcast; the type is right for symbolic sizes too."""
    check_equal(lhs.shape[-1:], rhs.shape[-2:-1], "the axes it sums over")
    lead = _broadcast(lhs.shape[:-2], rhs.shape[:-2])
    return cx.op("MatMul", lhs, rhs, type=TensorType(lhs.dtype, (*lead, lhs.shape[-2], rhs.shape[-1])))


def transposed(cx: Context, x: Value, wanted: bool = True) -> Value:
    """``x`` with its last two axes exchanged, if wanted."""
    return cx.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2]) if wanted else x


def check_floats(*values: Value) -> None:
    """Refuse what MXNet's matrix kernels refuse: integers, and inputs of different types."""
    first = values[0].dtype
    if first.kind not in "fV" or any(value.dtype != first for value in values):
        types = " and ".join(str(value.type) for value in values)
        raise Unsupported(f"its inputs are {types}; MXNet multiplies matrices of one float type only: cast them")


def check_equal(left: Sequence[Size], right: Sequence[Size], what: str) -> None:
    """Refuse sizes that are known to differ; symbolic ones are checked by the engine, call after call."""
    known = [(x, y) for x, y in zip(left, right) if isinstance(x, int) and isinstance(y, int)]
    if len(left) != len(right) or any(x != y for x, y in known):
        raise Unsupported(f"{what} have the sizes {tuple(left)} and {tuple(right)}; they must be equal")


def _places(axes: Sequence[int], x: Value) -> list[int]:
    places = [axis + x.rank if axis < 0 else axis for axis in axes]
    if any(not 0 <= place < x.rank for place in places) or len(set(places)) < len(places):
        raise Unsupported(f"the axes {tuple(axes)} of an input with {x.rank} axes")
    return places


def _broadcast(left: Shape, right: Shape) -> Shape:
    count = max(len(left), len(right))
    pairs = zip((1,) * (count - len(left)) + left, (1,) * (count - len(right)) + right)
    return tuple(_common([x, y]) for x, y in pairs)


def _common(sizes: Sequence[Size]) -> Size:
    """The size that these broadcast to: a fixed one other than 1 decides, then a symbolic one."""
    fixed = {size for size in sizes if isinstance(size, int) and size != 1}
    if len(fixed) > 1:
        raise Unsupported(f"the sizes {tuple(sizes)} do not broadcast")
    symbolic = [size for size in sizes if isinstance(size, Dim)]
    return fixed.pop() if fixed else symbolic[0] if symbolic else 1


# --- einsum ----------------------------------------------------------------------------------------------------------


@operator("_npi_einsum", ignore=("optimize",))
def einsum(cx: Context, a: Attributes, *data: Value) -> Value:
    """Einstein's summation, in NumPy's notation: ellipsis, repeated labels (diagonals), implicit output."""
    if any(value.dtype != data[0].dtype for value in data):
        raise Unsupported(f"its inputs are {', '.join(str(value.type) for value in data)}; they must have one type")
    terms, result = _subscripts(a.subscripts, [value.rank for value in data])
    sizes = _label_sizes(terms, data)
    dtype = data[0].dtype
    operands = [cx.cast(value, _einsum_dtype(dtype)) for value in data]
    labelled = [_without_repeats(cx, term, value) for term, value in zip(terms, operands)]
    labelled = [_without_ones(cx, term, value, sizes) for term, value in labelled]
    term, value = labelled[0]
    for position, (other, operand) in enumerate(labelled[1:], 1):
        needed = set(result).union(*(later for later, _ in labelled[position + 1 :]))
        kept = "".join(label for label in dict.fromkeys(term + other) if label in needed)
        target = _ordered(kept, result) if position == len(labelled) - 1 else kept
        value = _einsum(cx, [term, other], [value, operand], target, tuple(sizes[label] for label in target))
        term = target
    kept = _ordered(term, result)
    if term != kept:
        value = _einsum(cx, [term], [value], kept, tuple(sizes[label] for label in kept))
    return cx.cast(_with_ones(cx, kept, value, result, sizes), dtype)


def _einsum(cx: Context, terms: Sequence[str], values: Sequence[Value], result: str, shape: Shape) -> Value:
    kind = TensorType(values[0].dtype, shape)
    if any(0 in value.shape for value in values):  # ONNX Runtime's Einsum divides by the size
        return _summed_product(cx, terms, values, result, kind)
    if len(values) == 1 or kind.dtype.kind in "iu":  # TensorRT's Einsum does not take integers
        return _summed_product(cx, terms, values, result, kind)
    return cx.op("Einsum", *values, type=kind, equation=f"{','.join(terms)}->{result}")


def _summed_product(cx: Context, terms: Sequence[str], values: Sequence[Value], result: str, kind: TensorType) -> Value:
    """The same as a product of broadcast tensors, summed over the labels that the result lacks."""
    summed = "".join(label for label in dict.fromkeys("".join(terms)) if label not in result)
    labels = result + summed
    aligned = []
    for term, value in zip(terms, values):
        turned = cx.transpose(value, sorted(range(value.rank), key=_places_of(term, labels)))
        aligned.append(cx.unsqueeze(turned, *(i for i, label in enumerate(labels) if label not in term)))
    y = aligned[0] if len(aligned) == 1 else cx.op("Mul", *aligned)
    if not summed:
        return y
    return cx.op("ReduceSum", y, cx.ints(*range(len(result), len(labels))), type=kind, keepdims=0)


def _places_of(term: str, labels: str) -> Callable[[int], int]:
    return lambda axis: labels.index(term[axis])


def _einsum_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Small integers and booleans are summed in 32 bits: cast back, they wrap as MXNet's do (a boolean sum is "any")."""
    return np.dtype(np.int32) if dtype.kind in "biu" and dtype.itemsize < 4 else dtype


def _ordered(labels: str, result: str) -> str:
    return "".join(label for label in result if label in labels)


def _subscripts(text: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, an ellipsis written out."""
    plain = text.replace(" ", "")
    left, arrow, right = plain.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Unsupported(f"subscripts={text!r} names {len(terms)} operands, and there are {len(ranks)}")
    used = {letter for letter in plain if letter in _LETTERS}
    if any(part.replace("...", "", 1).strip(_LETTERS) for part in [*terms, right]):
        raise Unsupported(f"subscripts={text!r} holds more than letters, commas, one ellipsis an operand, and an arrow")
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks)]
    for term, count, rank in zip(terms, counts, ranks):
        if count < 0 or (count and "..." not in term):
            raise Unsupported(f"subscripts={text!r}: {term!r} does not fit an operand with {rank} axes")
    widest = max(count for count in counts)
    spare = [letter for letter in _LETTERS if letter not in used]
    if widest > len(spare):
        raise Unsupported(f"subscripts={text!r} needs more than {len(_LETTERS)} labels")
    dots = "".join(spare[:widest])
    if not arrow:
        once = sorted(letter for letter in used if plain.count(letter) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    expanded = [term.replace("...", dots[widest - count :]) for term, count in zip(terms, counts)]
    result = right.replace("...", dots)
    if len(set(result)) < len(result) or not set(result) <= set("".join(expanded)):
        raise Unsupported(f"subscripts={text!r}: the output repeats a label, or has one that no operand has")
    if not set(dots) <= set(result):
        raise Unsupported(f"subscripts={text!r} sums over an ellipsis")
    return expanded, result


def _label_sizes(terms: Sequence[str], values: Sequence[Value]) -> dict[str, Size]:
    found: dict[str, list[Size]] = {}
    for term, value in zip(terms, values):
        for label, size in zip(term, value.shape):
            found.setdefault(label, []).append(size)
    return {label: _common(sizes) for label, sizes in found.items()}


def _without_repeats(cx: Context, term: str, x: Value) -> tuple[str, Value]:
    """A label that occurs twice in one operand means its diagonal: TensorRT's Einsum does not take it."""
    for label in term:
        while term.count(label) > 1:
            i = term.index(label)
            j = term.index(label, i + 1)
            x = diagonal(cx, x, i, j)
            term = "".join(other for k, other in enumerate(term) if k not in (i, j)) + label
    return term, x


def diagonal(cx: Context, x: Value, i: int, j: int) -> Value:
    """The main diagonal over two axes of equal, known size, as the last axis."""
    size = static(x.shape[i], "a size whose diagonal is taken")
    check_equal([size], [x.shape[j]], "the axes of a diagonal")
    rest = [k for k in range(x.rank) if k not in (i, j)]
    turned = cx.transpose(x, [*rest, i, j])
    flat = cx.reshape(turned, (*(x.shape[k] for k in rest), product((size, size))))
    places = cx.const(np.arange(size, dtype=np.int64) * (size + 1))
    kind = TensorType(x.dtype, (*(x.shape[k] for k in rest), size))
    return cx.op("Gather", flat, places, type=kind, axis=len(rest))


def _without_ones(cx: Context, term: str, x: Value, sizes: dict[str, Size]) -> tuple[str, Value]:
    """Axes of size 1 that broadcast against others: left out, which is the same and which every engine takes."""
    axes = [axis for axis, label in enumerate(term) if x.shape[axis] == 1]
    return "".join(label for axis, label in enumerate(term) if axis not in axes), cx.squeeze(x, *axes)


def _with_ones(cx: Context, term: str, x: Value, result: str, sizes: dict[str, Size]) -> Value:
    """The axes of size 1 back in their places."""
    return cx.unsqueeze(x, *(axis for axis, label in enumerate(result) if label not in term))
