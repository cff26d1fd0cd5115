"""Operators that pick or place elements by position: slices, takes, gathers, scatters, one-hot codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dims import Dim, Shape, Size, is_static, product
from ..graph import TensorType
from .context import Context, Value, check_weight, static
from .registry import Unsupported, operator, refuse
from .reshaping import axes_of, axis_of, cut, flat, given, line_of, sizes_of
from .schema import Attributes

_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


# --- slices ----------------------------------------------------------------------------------------------------------


@operator("slice")
def slice_(cx: Context, a: Attributes, data: Value) -> Value:
    """``data[begin:end:step]`` on the first axes; None stands for the end that the step's sign asks for."""
    bounds = _bounds(a, data)
    for axis, (begin, end, step) in enumerate(bounds):
        data = _sliced(cx, data, axis, begin, end, step)
    return data


def _bounds(a: Attributes, data: Value) -> list[tuple[int | None, int | None, int]]:
    """begin, end and step of each axis that a slice names."""
    begins, ends, steps = a.begin or (), a.end or (), a.step or ()
    if len(begins) != len(ends) or len(begins) > data.rank or len(steps) not in (0, len(begins)):
        raise Unsupported(f"begin={begins}, end={ends}, step={steps} do not fit data with {data.rank} axes")
    filled = [1 if step is None else step for step in steps] or [1] * len(begins)
    if 0 in filled:
        raise Unsupported("step=0")
    return list(zip(begins, ends, filled))


def _sliced(cx: Context, x: Value, axis: int, begin: int | None, end: int | None, step: int) -> Value:
    """One axis of a slice; a symbolic size stays one."""
    size = x.shape[axis]
    if (begin, end, step) == (None, None, 1):
        return x
    if isinstance(size, Dim):
        return _open_slice(cx, x, axis, begin, end, step)
    first, last, _ = slice(begin, end, step).indices(size)
    if not len(range(first, last, step)) and not cx.np_shape:
        raise Unsupported(f"begin={begin}, end={end}, step={step} leave nothing of axis {axis} with the size {size}")
    return cut(cx, x, axis, first, last, step)


def _open_slice(cx: Context, x: Value, axis: int, begin: int | None, end: int | None, step: int) -> Value:
    size = x.shape[axis]
    count: Size
    if begin is None and end is None:
        count = -((-size) // abs(step))
    elif step == 1 and (begin or 0) >= 0 and (end is None or end < 0):
        count = size + ((end or 0) - (begin or 0))
    else:
        count = cx.fresh_dim("sliced")
    first = begin if begin is not None else 0 if step > 0 else -1
    last = end if end is not None else _LAST if step > 0 else _FIRST
    kind = TensorType(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    tail = [cx.ints(step)] if step != 1 else []
    return cx.op("Slice", x, cx.ints(first), cx.ints(last), cx.ints(axis), *tail, type=kind)


@operator("slice_axis")
def slice_axis(cx: Context, a: Attributes, data: Value) -> Value:
    """``data[begin:end]`` along one axis."""
    axis = axis_of(a.axis, data.rank)
    size = data.shape[axis]
    if isinstance(size, int):
        begin, end = (b + size if b is not None and b < 0 else b for b in (a.begin, a.end))
        if begin < 0 or (end is not None and not begin < end <= size and not cx.np_shape):
            raise Unsupported(f"begin={a.begin} and end={a.end} leave the axis of size {size}")
    return _sliced(cx, data, axis, a.begin, a.end, 1)


@operator("slice_like")
def slice_like(cx: Context, a: Attributes, data: Value, shape_like: Value) -> Value:
    """The first elements along all, or some, axes: as many as the other tensor has."""
    named = given(a.axes)
    if not named and data.rank != shape_like.rank:
        raise Unsupported(f"its inputs have {data.rank} and {shape_like.rank} axes; name the axes with axes=")
    places = axes_of(named, data.rank) if named else tuple(range(data.rank))
    for original, axis in zip(named or places, places):
        data = _first_elements(cx, data, axis, shape_like, axis_of(original, shape_like.rank))
    return data


def _first_elements(cx: Context, x: Value, axis: int, like: Value, other: int) -> Value:
    size = like.shape[other]
    if size == x.shape[axis]:
        return x
    if isinstance(size, int) and isinstance(x.shape[axis], int):
        if size > x.shape[axis]:  # type: ignore[operator]
            raise Unsupported(f"axis {axis} has the size {x.shape[axis]}, and {size} are asked for")
        return cut(cx, x, axis, 0, size)
    kind = TensorType(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1 :]))
    return cx.op("Slice", x, cx.ints(0), cx.size(size, like), cx.ints(axis), type=kind)


@operator("_slice_assign")
def slice_assign(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """``lhs`` with ``rhs`` in place of a slice of it."""
    return _assigned(cx, lhs, rhs, _ranges(cx, a, lhs))


@operator("_slice_assign_scalar")
def slice_assign_scalar(cx: Context, a: Attributes, data: Value) -> Value:
    """The data with a number in place of a slice of it."""
    ranges = _ranges(cx, a, data)
    counts = [len(part) for part in ranges]
    number = cx.const(np.full((1,) * data.rank, np.array(a.scalar).astype(data.dtype)))
    return _assigned(cx, data, cx.expand(number, (*counts, *data.shape[len(counts) :])), ranges)


def _ranges(cx: Context, a: Attributes, x: Value) -> list[range]:
    bounds = _bounds(a, x)
    sizes = sizes_of(x.shape[: len(bounds)], "the size of a sliced axis")
    found = [range(*slice(*bound).indices(size)) for bound, size in zip(bounds, sizes)]
    if not cx.np_shape and not all(found):
        raise Unsupported(f"begin={a.begin}, end={a.end} leave nothing of the shape {x.shape}")
    return found


def _assigned(cx: Context, x: Value, part: Value, ranges: Sequence[range]) -> Value:
    """``x`` with ``part`` at the product of these ranges of its first axes."""
    if part.dtype != x.dtype:
        raise Unsupported(f"its inputs have the types {x.dtype} and {part.dtype}; they must be equal")
    expected = (*(len(r) for r in ranges), *x.shape[len(ranges) :])
    if part.shape != expected:
        raise Unsupported(f"its second input has the shape {part.shape}, the slice has {expected}")
    if not all(ranges):
        return x
    if all(r.step == 1 for r in ranges):
        return _pasted(cx, x, part, ranges, 0)
    grid = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).astype(np.int64)
    return cx.op("ScatterND", x, cx.const(grid), part, type=x.type)


def _pasted(cx: Context, x: Value, part: Value, ranges: Sequence[range], axis: int) -> Value:
    """A block pasted by joining: what lies before, the block, what lies behind, axis by axis."""
    if axis == len(ranges):
        return part
    span, size = ranges[axis], static(x.shape[axis], "the size of a sliced axis")
    inner = _pasted(cx, cut(cx, x, axis, span.start, span.stop), part, ranges, axis + 1)
    pieces = [cut(cx, x, axis, 0, span.start)] if span.start else []
    pieces += [inner]
    pieces += [cut(cx, x, axis, span.stop, size)] if span.stop < size else []
    return inner if len(pieces) == 1 else cx.op("Concat", *pieces, type=x.type, axis=axis)


@operator("Crop")
def crop(cx: Context, a: Attributes, data: Value, like: Value | None = None) -> Value:
    """A window of the last two axes: ``h_w`` large, or as large as the second input; at ``offset`` or centred."""
    if data.rank != 4:
        raise Unsupported(f"its data have {data.rank} axes; 4 are needed")
    wanted = a.h_w if like is None else like.shape[2:4]
    a.ignore("h_w")
    for i in (0, 1):
        data = _window(cx, data, 2 + i, wanted[i], a.offset[i], a.center_crop, like)
    a.ignore("offset")
    return data


def _window(cx: Context, x: Value, axis: int, count: Size, offset: int, centred: bool, like: Value | None) -> Value:
    size = x.shape[axis]
    if count == size and (centred or offset == 0):
        return x
    if isinstance(size, int) and isinstance(count, int):
        first = (size - count) // 2 if centred else offset
        if not 0 <= first <= first + count <= size or count < 1:
            raise Unsupported(f"the window [{first}, {first + count}) is not inside axis {axis} with the size {size}")
        return cut(cx, x, axis, first, first + count)
    sources = (x,) if like is None else (x, like)
    start = cx.size((size - count) // 2, *sources) if centred else cx.ints(offset)
    stop = cx.op("Add", start, cx.size(count, *sources))
    kind = TensorType(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    return cx.op("Slice", x, start, stop, cx.ints(axis), type=kind)


# --- positions that are data -----------------------------------------------------------------------------------------


def whole(cx: Context, indices: Value) -> Value:
    """Indices as int64; floats lose their fraction."""
    return cx.cast(indices, np.int64)


def inside(cx: Context, indices: Value, size: Value | int, mode: str) -> Value:
    """int64 indices brought into [0, size): clipped, or wrapped round."""
    count = cx.const(np.array(size, np.int64)) if isinstance(size, int) else size
    if mode == "wrap":
        return cx.op("Mod", indices, count, type=indices.type)
    top = (
        cx.const(np.array(size - 1, np.int64)) if isinstance(size, int) else cx.op("Sub", count, cx.const(1, np.int64))
    )
    low = cx.op("Max", indices, cx.const(np.array(0, np.int64)), type=indices.type)
    return cx.op("Min", low, top, type=indices.type)


def _length(cx: Context, x: Value, axis: int) -> Value | int:
    """The size of an axis, without axes of its own: indices may have none."""
    size = x.shape[axis]
    return size if isinstance(size, int) else cx.squeeze(cx.size(size, x), 0)


def _gathered(cx: Context, x: Value, indices: Value, axis: int) -> Value:
    kind = TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    return cx.op("Gather", x, indices, type=kind, axis=axis)


@operator("take")
def take(cx: Context, a: Attributes, data: Value, indices: Value) -> Value:
    """Slices of an axis by index. Outside indices are clipped or wrapped; ``raise`` is for indices that are inside."""
    axis = axis_of(a.axis, data.rank)
    places = whole(cx, indices)
    if a.mode != "raise":
        places = inside(cx, places, _length(cx, data, axis), a.mode)
    elif places.const is not None:
        size = static(data.shape[axis], "the size of the axis (mode=raise)")
        if places.const.size and (places.const.min() < 0 or places.const.max() >= size):
            raise Unsupported("mode=raise, and an index is out of bounds")
    return _gathered(cx, data, places, axis)


@operator("Embedding", "_contrib_SparseEmbedding", ignore=("sparse_grad",))
def embedding(cx: Context, a: Attributes, data: Value, weight: Value) -> Value:
    """Rows of ``weight`` by index; indices outside are clipped."""
    check_weight(weight, (a.input_dim, a.output_dim))
    a.ignore("dtype")  # the weight has it
    return _gathered(cx, weight, inside(cx, whole(cx, data), a.input_dim, "clip"), 0)


def _coordinates(cx: Context, indices: Value) -> Value:
    """(coordinate, places...) as ONNX has it: (places..., coordinate)."""
    return cx.transpose(whole(cx, indices), (*range(1, indices.rank), 0))


@operator("gather_nd")
def gather_nd(cx: Context, a: Attributes, data: Value, indices: Value) -> Value:
    """Elements, or slices, at coordinates; the first axis of ``indices`` counts the coordinates. Negatives wrap."""
    depth = _depth(indices, data.shape)
    kind = TensorType(data.dtype, (*indices.shape[1:], *data.shape[depth:]))
    return cx.op("GatherND", data, _wrapped(cx, _coordinates(cx, indices), data, depth), type=kind)


def _wrapped(cx: Context, places: Value, data: Value, depth: int) -> Value:
    """Coordinates with negative ones counted from the end, which not every engine's GatherND does."""
    if places.const is not None and not (places.const < 0).any():
        return places
    ends = cx.op("Add", places, cx.shape(data.shape[:depth], data), type=places.type)
    negative = cx.op("Less", places, cx.const(0, np.int64), type=TensorType(np.dtype(bool), places.shape))
    return cx.op("Where", negative, ends, places, type=places.type)


def _depth(indices: Value, shape: Shape) -> int:
    if indices.rank < 1:
        raise Unsupported("its indices have no axis")
    depth = static(indices.shape[0], "the number of coordinates")
    if not 1 <= depth <= len(shape):
        raise Unsupported(f"its indices have {depth} coordinates for {len(shape)} axes")
    return depth


@operator("scatter_nd")
def scatter_nd(cx: Context, a: Attributes, data: Value, indices: Value) -> Value:
    """Zeros with the data at these coordinates."""
    shape = given(a["shape"]) or ()
    return _scattered(cx, cx.const(np.zeros(shape, data.dtype)), indices, data)


@operator("_scatter_set_nd", ignore=("shape",))
def scatter_set_nd(cx: Context, a: Attributes, lhs: Value, rhs: Value, indices: Value) -> Value:
    """``lhs`` with ``rhs`` at these coordinates."""
    return _scattered(cx, lhs, indices, rhs)


def _scattered(cx: Context, x: Value, indices: Value, updates: Value) -> Value:
    depth = _depth(indices, x.shape)
    expected = (*indices.shape[1:], *x.shape[depth:])
    if updates.shape != expected:
        raise Unsupported(f"its data have the shape {updates.shape}; shape and indices ask for {expected}")
    return cx.op("ScatterND", x, _coordinates(cx, indices), updates, type=x.type)


@operator("pick")
def pick(cx: Context, a: Attributes, data: Value, index: Value) -> Value:
    """One element of each line along an axis, by index; indices outside are clipped or wrapped."""
    if a.axis is None:
        raise Unsupported("axis=None, which MXNet does not support either")
    axis = axis_of(a.axis, data.rank)
    picked = _picked(cx, data, index, axis, a.mode)
    return picked if a.keepdims or data.rank == 1 else cx.squeeze(picked, axis)  # of a vector, the axis stays


@operator("batch_take")
def batch_take(cx: Context, a: Attributes, data: Value, indices: Value) -> Value:
    """One element of each row, by index; indices outside are clipped."""
    return cx.reshape(_picked(cx, data, indices, 1, "clip"), indices.shape)


def _picked(cx: Context, data: Value, index: Value, axis: int, mode: str) -> Value:
    lines = (*data.shape[:axis], 1, *data.shape[axis + 1 :])
    fits = index.rank == data.rank - 1 or (index.rank == data.rank and index.shape[axis] == 1)
    if not fits and not (data.rank == 1 and index.shape == (1,)):
        raise Unsupported(f"its index has the shape {index.shape}, and its data {data.shape} (axis {axis})")
    places = inside(cx, whole(cx, index), _length(cx, data, axis), mode)
    column = cx.reshape(places, lines) if index.rank == data.rank else cx.unsqueeze(places, axis)
    if column.shape != lines:
        raise Unsupported(f"its index has the shape {index.shape}, and its data {data.shape} (axis {axis})")
    return cx.op("GatherElements", data, column, type=TensorType(data.dtype, lines), axis=axis)


@operator("one_hot")
def one_hot(cx: Context, a: Attributes, indices: Value) -> Value:
    """``on_value`` at the index along a new last axis, ``off_value`` elsewhere; an index outside gives none."""
    dtype = _output_dtype(a.dtype)
    hit = cx.op(
        "Equal",
        cx.unsqueeze(whole(cx, indices), indices.rank),
        cx.const(np.arange(a.depth)),
        type=TensorType(np.dtype(bool), (*indices.shape, a.depth)),
    )
    if (a.on_value, a.off_value) == (1, 0):
        return cx.cast(hit, dtype)
    return chosen(cx, hit, cx.const(_converted(a.on_value, dtype)), cx.const(_converted(a.off_value, dtype)))


def _converted(number: float, dtype: np.dtype) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(number).astype(np.int64).astype(dtype) if dtype.kind in "iu" else np.array(number, dtype)


def _output_dtype(name: str) -> np.dtype:  # type: ignore[type-arg]
    if name == "bfloat16":
        raise Unsupported("dtype=bfloat16; NumPy arrays cannot hold it")
    return np.dtype(name)


def chosen(cx: Context, condition: Value, x: Value, y: Value) -> Value:
    """``x`` where the condition holds, else ``y``; they have one type, and broadcast to the condition."""
    wide = np.dtype(np.int32) if x.dtype.kind == "b" or x.dtype.itemsize == 1 else x.dtype
    kind = TensorType(wide, _broadcast(condition.shape, x.shape, y.shape))
    return cx.cast(cx.op("Where", condition, cx.cast(x, wide), cx.cast(y, wide), type=kind), x.dtype)


def _broadcast(*shapes: Shape) -> Shape:
    rank = max(len(shape) for shape in shapes)
    sizes: list[Size] = []
    for column in zip(*((1,) * (rank - len(shape)) + tuple(shape) for shape in shapes)):
        others = [size for size in column if size != 1]
        sizes.append(others[0] if others else 1)
    return tuple(sizes)


@operator("_contrib_index_copy")
def index_copy(cx: Context, a: Attributes, old: Value, index: Value, new: Value) -> Value:
    """``old`` with rows of ``new`` at the rows that the index names."""
    if old.dtype != new.dtype or new.shape != (*index.shape, *old.shape[1:]) or index.rank != 1:
        raise Unsupported(f"its inputs are {old.type}, {index.type} and {new.type}")
    return cx.op("ScatterND", old, cx.unsqueeze(whole(cx, index), 1), new, type=old.type)


@operator("_contrib_index_array")
def index_array(cx: Context, a: Attributes, data: Value) -> Value:
    """Each element's position, or the part of it along some axes, as int64."""
    axes = given(a.axes)
    places = tuple(range(data.rank)) if axes is None else tuple(axis_of(axis, data.rank) for axis in axes)
    if is_static(data.shape):
        grid = np.indices(tuple(data.shape), np.int64)
        return cx.const(np.stack([grid[i] for i in places], -1) if places else np.zeros((*grid.shape[1:], 0), np.int64))
    return cx.op(
        "Concat",
        *(_positions(cx, data, axis) for axis in places),
        type=TensorType(np.dtype(np.int64), (*data.shape, len(places))),
        axis=data.rank,
    )


def _positions(cx: Context, data: Value, axis: int) -> Value:
    line = counted(cx, data, axis)
    column = cx.unsqueeze(line, *(i for i in range(data.rank + 1) if i != axis))
    return cx.op("Expand", column, cx.shape((*data.shape, 1), data), type=TensorType(line.dtype, (*data.shape, 1)))


def counted(cx: Context, x: Value, axis: int) -> Value:
    """0, 1, ... along an axis, as int64."""
    size = x.shape[axis]
    if isinstance(size, int):
        return cx.const(np.arange(size))
    stop = cx.squeeze(cx.size(size, x), 0)
    zero, one = cx.const(np.array(0, np.int64)), cx.const(np.array(1, np.int64))
    return cx.op("Range", zero, stop, one, type=TensorType(np.dtype(np.int64), (size,)))


# --- masks -----------------------------------------------------------------------------------------------------------


def _mask(cx: Context, data: Value, mask: Value, start: int) -> Value:
    """A mask over some axes, as bool, with axes of size 1 for those behind them."""
    axis = axis_of(start, data.rank, "start_axis") if data.rank else 0
    if data.shape[axis : axis + mask.rank] != mask.shape:
        raise Unsupported(f"its mask has the shape {mask.shape}, its data {data.shape} from axis {axis}")
    behind = data.rank - axis - mask.rank
    return cx.unsqueeze(cx.cast(mask, bool), *range(mask.rank, mask.rank + behind))


@operator("_npi_boolean_mask_assign_scalar")
def mask_assign_scalar(cx: Context, a: Attributes, data: Value, mask: Value) -> Value:
    """The data with a number where the mask holds."""
    condition = _mask(cx, data, mask, a.start_axis)
    return chosen(cx, condition, cx.const(np.array(a.value).astype(data.dtype)), data)


@operator("_npi_boolean_mask_assign_tensor")
def mask_assign_tensor(cx: Context, a: Attributes, data: Value, mask: Value, value: Value) -> Value:
    """The data with a tensor's slices, one after the other (or one for all), where the mask holds."""
    if value.dtype != data.dtype:
        raise Unsupported(f"its data are {data.dtype} and its value {value.dtype}; they must be equal")
    condition = _mask(cx, data, mask, a.start_axis)
    axis = a.start_axis % max(data.rank, 1)
    inner = data.rank - axis - mask.rank
    if value.rank <= inner or value.shape[-inner - 1] == 1:  # one slice for all
        return chosen(cx, condition, _aligned(cx, value, mask.rank, inner), data)
    if value.rank != axis + 1 + inner:
        raise Unsupported(f"its value has the shape {value.shape} for data {data.shape} and a mask {mask.shape}")
    order = cx.op("CumSum", cx.cast(flat(cx, mask), np.int64), cx.const(np.array(0, np.int64)))
    place = inside(cx, cx.op("Sub", order, cx.ints(1), type=order.type), _length(cx, value, axis), "clip")
    spread = _gathered(cx, value, cx.reshape(place, mask.shape), axis)
    return chosen(cx, condition, spread, data)


def _aligned(cx: Context, value: Value, mask_rank: int, inner: int) -> Value:
    """One slice, with an axis of size 1 for each axis of the mask."""
    if value.rank <= inner or mask_rank == 1:
        return value
    place = value.rank - inner - 1
    return cx.unsqueeze(value, *range(place, place + mask_rank - 1))


@operator("_npi_delete")
def delete(cx: Context, a: Attributes, data: Value, obj: Value | None = None) -> Value:
    """The data without some positions of an axis, or of the flattened data."""
    x, axis = line_of(cx, data, a.axis)
    size = static(x.shape[axis], "the size of the axis")
    dropped = _dropped(a, obj, size)
    kept = np.setdiff1d(np.arange(size), dropped)
    if not kept.size and not cx.np_shape:
        raise Unsupported("nothing of the axis is left")
    return _gathered(cx, x, cx.const(kept.astype(np.int64)), axis)


def _dropped(a: Attributes, obj: Value | None, size: int) -> np.ndarray:  # type: ignore[type-arg]
    if obj is not None:
        a.ignore("start", "stop", "step", "int_ind")
        if obj.const is None:
            raise Unsupported("the positions to delete are data, so that the output's shape depends on them")
        found = obj.const.astype(np.int64).ravel()
        if (found < 0).any():
            raise Unsupported(
                "a position to delete is negative; MXNet counts from the end where it is one number alone"
            )
    elif a.int_ind is not None:
        found = np.array([a.int_ind], np.int64)
    else:
        return np.arange(size)[slice(a.start, a.stop, a.step)]
    if found.size and not (-size <= found.min() and found.max() < size):
        raise Unsupported(f"a position to delete is outside of the axis of size {size}")
    return found % size if size else found


# --- flat positions --------------------------------------------------------------------------------------------------


def _strides(shape: Sequence[int]) -> list[int]:
    return [int(product(shape[i + 1 :])) for i in range(len(shape))]  # type: ignore[arg-type]


@operator("_ravel_multi_index")
def ravel(cx: Context, a: Attributes, data: Value) -> Value:
    """Coordinates (the first axis) turned into flat positions of an array of this shape, in the data's type."""
    shape = given(a["shape"]) or ()
    if data.rank != 2 or data.shape[0] != len(shape):
        raise Unsupported(f"its data have the shape {data.shape} for coordinates of {len(shape)} axes")
    strides = cx.const(np.array(_strides(shape), np.int64).reshape(-1, *[1] * (data.rank - 1)))
    terms = cx.op("Mul", whole(cx, data), strides, type=TensorType(np.dtype(np.int64), data.shape))
    return cx.cast(cx.reduce("ReduceSum", terms, (0,)), data.dtype)


@operator("_unravel_index")
def unravel(cx: Context, a: Attributes, data: Value) -> Value:
    """Flat positions turned into coordinates (a new first axis), in the data's type."""
    if data.rank != 1:
        raise Unsupported(f"its data have the shape {data.shape}; MXNet writes outside of its output unless it is 1-D")
    shape = given(a["shape"]) or ()
    rest = cx.unsqueeze(whole(cx, data), 0)
    parts: list[Value] = []
    for size in reversed(shape[1:]):
        count = cx.const(np.array(size, np.int64))
        quotient = cx.op("Div", rest, count, type=rest.type)  # towards zero, as MXNet's
        parts.insert(0, cx.op("Sub", rest, cx.op("Mul", quotient, count, type=rest.type), type=rest.type))
        rest = quotient
    parts.insert(0, rest)
    kind = TensorType(np.dtype(np.int64), (len(shape), *data.shape))
    joined = cx.op("Concat", *parts, type=kind, axis=0) if len(parts) > 1 else rest
    return cx.cast(joined, data.dtype)


refuse(
    "its output's shape depends on the data",
    "_contrib_boolean_mask",
    "_npx_nonzero",
    "_npi_unique",
)
refuse(
    "MXNet's kernel reads outside of its values, so that its answer is not defined",
    "_npi_insert_scalar",
    "_npi_insert_slice",
    "_npi_insert_tensor",
)
refuse(
    "is a function of NDArrays from before operators had symbols; no graph can hold it",
    "_onehot_encode",
    "fill_element_0index",
    "_set_value",
)
refuse("asks whether two arrays share memory, which a compiled graph does not tell", "_npi_share_memory")
refuse("raises an error that depends on the data", "_npx_constraint_check")
