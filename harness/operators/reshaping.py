"""Operators that move, repeat or rename elements without looking at them: reshapes, transposes, flips, broadcasts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..dims import Dim, Shape, Size, is_static, product
from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator
from .schema import Attributes

_TO_THE_START = np.iinfo(np.int64).min


# --- helpers that other families use ---------------------------------------------------------------------------------


def given(items: Iterable[int | None] | None) -> tuple[int, ...] | None:
    """A tuple attribute, or None where it is absent (which MXNet writes in several ways)."""
    if items is None:
        return None
    found = tuple(items)
    return None if None in found else found  # type: ignore[return-value]


def axis_of(axis: int, rank: int, what: str = "axis") -> int:
    """An axis counted from the front.

    Raises:
        Unsupported: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise Unsupported(f"{what}={axis} is not an axis of data with {rank} axes")
    return axis % rank


def axes_of(axes: Iterable[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, each once."""
    found = tuple(axis_of(axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise Unsupported(f"axis={found} names an axis twice")
    return found


def sizes_of(shape: Shape, what: str) -> tuple[int, ...]:
    """Sizes that must all be known at compile time."""
    return tuple(static(size, what) for size in shape)


def flat(cx: Context, x: Value) -> Value:
    """``x`` as one axis."""
    return cx.reshape(x, (product(x.shape),))


def line_of(cx: Context, x: Value, axis: int | None) -> tuple[Value, int]:
    """``x`` and one of its axes, counted from the front; flattened without an axis."""
    if axis is None:
        return flat(cx, x), 0
    return x, axis_of(axis, x.rank)


def cut(cx: Context, x: Value, axis: int, begin: int, end: int, step: int = 1) -> Value:
    """``x[begin:end:step]`` along one axis of known size; bounds as ``slice.indices`` gives them."""
    count = len(range(begin, end, step))
    if (begin, step, count) == (0, 1, x.shape[axis]):
        return x
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    stop = _TO_THE_START if end < 0 else end
    tail = [cx.ints(step)] if step != 1 else []
    kind = TensorType(x.dtype, shape)
    return cx.op("Slice", x, cx.ints(begin), cx.ints(stop), cx.ints(axis), *tail, type=kind)


def flipped(cx: Context, x: Value, axes: Sequence[int]) -> Value:
    """``x`` backwards along these axes, whose sizes may be symbolic."""
    if not axes:
        return x
    count = len(axes)
    bounds = [cx.ints(*[value] * count) for value in (-1, _TO_THE_START)]
    return cx.op("Slice", x, *bounds, cx.ints(*axes), cx.ints(*[-1] * count), type=x.type)


def same_elements(old: Shape, new: Shape, what: str) -> None:
    """Refuse a new shape with another number of elements than the old one."""
    if is_static(old) and is_static(new) and product(old) != product(new):
        raise Unsupported(f"{what} asks for the shape {new} of data with the shape {old}")


# --- reshapes --------------------------------------------------------------------------------------------------------


@operator("Reshape")
def reshape(cx: Context, a: Attributes, data: Value) -> Value:
    """Another shape: 0 copies a size, -1 infers one, -2 copies the rest, -3 merges two, -4 splits one; from the right
    with ``reverse``. ``target_shape`` and ``keep_highest`` are the form before MXNet 0.9."""
    codes = given(a["shape"])
    if codes:
        a.ignore("target_shape", "keep_highest")
        return _reshaped(cx, data, _decoded(data.shape, codes, a.reverse, _LegacyCodes))
    target = given(a.target_shape)
    if not target:
        if cx.np_shape and "shape" in a:
            return _reshaped(cx, data, ())
        raise Unsupported("shape is empty; give it the sizes that are wanted")
    sizes: list[Size] = list(target)
    if a.keep_highest:
        sizes[0] = data.shape[0]
    start = 1 if a.keep_highest else 0
    unknown = [i for i in range(start, len(sizes)) if sizes[i] == 0]
    if len(unknown) > 1:
        raise Unsupported(f"target_shape={target} leaves more than one size open")
    for i in unknown:
        sizes[i] = product(data.shape) // product(sizes[:i] + sizes[i + 1 :])
    return _reshaped(cx, data, tuple(sizes))


def _reshaped(cx: Context, data: Value, shape: Shape) -> Value:
    if any(isinstance(size, int) and size < 0 for size in shape):
        raise Unsupported(f"the shape {shape} has a negative size")
    same_elements(data.shape, shape, "its shape attribute")
    return cx.reshape(data, shape)


class _Codes:
    """Reads the sizes of a new shape off the old one, code by code."""

    def __init__(self, source: Sequence[Size], codes: Sequence[int]) -> None:
        self.source = list(source)
        self.codes = list(codes)
        self.at = 0  # in source
        self.code_at = 0
        self.sizes: list[Size] = []
        self.open: int | None = None

    def read(self) -> list[Size]:
        while self.code_at < len(self.codes):
            code = self.codes[self.code_at]
            self.code_at += 1
            self.step(code)
        if self.open is not None:
            rest = product(self.sizes)
            if rest == 0:
                raise Unsupported(f"shape={tuple(self.codes)} infers a size of data without elements")
            self.sizes[self.open] = product(self.source) // rest
        return self.sizes

    def step(self, code: int) -> None:
        raise NotImplementedError

    def infer(self) -> None:
        if self.open is not None:
            raise Unsupported(f"shape={tuple(self.codes)} leaves more than one size open")
        self.open = len(self.sizes)
        self.sizes.append(1)
        self.at += 1

    def next(self) -> Size:
        if self.at >= len(self.source):
            raise Unsupported(f"shape={tuple(self.codes)} refers to more axes than the data's {len(self.source)}")
        self.at += 1
        return self.source[self.at - 1]

    def rest(self) -> None:
        self.sizes += self.source[self.at :]
        self.at = max(self.at, len(self.source))

    def split(self) -> None:
        whole = self.next()
        parts = self.codes[self.code_at : self.code_at + 2]
        self.code_at += 2
        if len(parts) < 2 or parts == [-1, -1] or any(part < -1 or part == 0 for part in parts):
            raise Unsupported(f"shape={tuple(self.codes)} splits an axis without naming two sizes")
        first = whole // parts[1] if parts[0] == -1 else parts[0]
        second = whole // parts[0] if parts[1] == -1 else parts[1]
        if isinstance(whole, int) and first * second != whole:
            raise Unsupported(f"shape={tuple(self.codes)} splits an axis of size {whole} into {first} and {second}")
        self.sizes += [first, second]

    def plain(self, size: int) -> None:
        self.sizes.append(size)
        self.at += 1


class _LegacyCodes(_Codes):
    """The codes of ``Reshape``."""

    def step(self, code: int) -> None:
        if code == 0:
            self.sizes.append(self.next())
        elif code == -1:
            self.infer()
        elif code == -2:
            self.rest()
        elif code == -3:
            self.sizes.append(self.next() * self.next())
        elif code == -4:
            self.split()
        elif code < -4:
            raise Unsupported(f"shape={tuple(self.codes)} has the unknown code {code}")
        else:
            self.plain(code)


class _NumPyCodes(_Codes):
    """The codes of ``npx.reshape``: -2 copies a size, -3 drops a 1, -4 copies the rest, -5 merges, -6 splits."""

    def step(self, code: int) -> None:
        if code == -1:
            self.infer()
        elif code == -2:
            self.sizes.append(self.next())
        elif code == -3:
            dropped = self.next()
            if dropped != 1:
                raise Unsupported(f"newshape={tuple(self.codes)} drops an axis of size {dropped}; it must be 1")
        elif code == -4:
            self.rest()
        elif code == -5:
            self.sizes.append(self.next() * self.next())
        elif code == -6:
            self.split()
        elif code < -6:
            raise Unsupported(f"newshape={tuple(self.codes)} has the unknown code {code}")
        else:
            self.plain(code)


def _decoded(shape: Shape, codes: Sequence[int], reverse: bool, reader: type[_Codes]) -> Shape:
    if reverse:
        return tuple(reader(shape[::-1], codes[::-1]).read()[::-1])
    return tuple(reader(shape, codes).read())


@operator("_npx_reshape", ignore=("order",))
def npx_reshape(cx: Context, a: Attributes, data: Value) -> Value:
    """Another shape by the codes of ``npx.reshape``; MXNet reads ``order`` and does not use it."""
    return _reshaped(cx, data, _decoded(data.shape, given(a.newshape) or (), a.reverse, _NumPyCodes))


@operator("_np_reshape", ignore=("order",))
def np_reshape(cx: Context, a: Attributes, data: Value) -> Value:
    """Another shape, one size of which may be -1 (inferred); MXNet reads ``order`` and does not use it."""
    sizes: list[Size] = list(given(a.newshape) or ())
    unknown = [i for i, size in enumerate(sizes) if size == -1]
    if len(unknown) > 1:
        raise Unsupported(f"newshape={tuple(sizes)} leaves more than one size open")
    for i in unknown:
        rest = product(sizes[:i] + sizes[i + 1 :])
        if rest == 0:
            raise Unsupported(f"newshape={tuple(sizes)} infers a size of data without elements")
        sizes[i] = product(data.shape) // rest
    return _reshaped(cx, data, tuple(sizes))


@operator("reshape_like")
def reshape_like(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """``lhs`` with its axes [lhs_begin, lhs_end) replaced by the axes [rhs_begin, rhs_end) of ``rhs``."""
    first, last = _span(a.lhs_begin, a.lhs_end, lhs.rank, "lhs")
    start, stop = _span(a.rhs_begin, a.rhs_end, rhs.rank, "rhs")
    shape = (*lhs.shape[:first], *rhs.shape[start:stop], *lhs.shape[last:])
    same_elements(lhs.shape, shape, "reshape_like")
    unknown = {str(s) for s in shape if isinstance(s, Dim)} - {str(s) for s in lhs.shape}
    if len(unknown) > 1:  # sizes that only rhs has
        return cx.op("Reshape", lhs, cx.shape(shape, lhs, rhs), type=TensorType(lhs.dtype, shape))
    return cx.reshape(lhs, shape)


def _span(begin: int | None, end: int | None, rank: int, side: str) -> tuple[int, int]:
    first = 0 if begin is None else begin + rank if begin < 0 else begin
    last = rank if end is None else end + rank if end < 0 else end
    if not 0 <= first <= last <= rank:
        raise Unsupported(f"{side}_begin={begin} and {side}_end={end} are no range of {rank} axes")
    return first, last


@operator("expand_dims")
def expand_dims(cx: Context, a: Attributes, data: Value) -> Value:
    """A new axis of size 1."""
    return cx.unsqueeze(data, axis_of(a.axis, data.rank + 1))


@operator("squeeze")
def squeeze(cx: Context, a: Attributes, data: Value) -> Value:
    """Without some, or all, axes of size 1; one axis is left in any case."""
    places = _ones(a, data)
    if len(places) == data.rank and data.rank:
        return cx.reshape(data, (1,))
    return cx.squeeze(data, *places)


@operator("_np_squeeze")
def np_squeeze(cx: Context, a: Attributes, data: Value) -> Value:
    """Without some, or all, axes of size 1."""
    return cx.squeeze(data, *_ones(a, data))


def _ones(a: Attributes, data: Value) -> tuple[int, ...]:
    """The axes to remove, all of size 1."""
    wanted = given(a.axis)
    if wanted is None:
        return tuple(i for i, s in enumerate(data.shape) if static(s, "a size (squeeze without axis)") == 1)
    places = axes_of(wanted, data.rank)
    for place in places:
        if data.shape[place] != 1:
            raise Unsupported(f"axis {place} has the size {data.shape[place]}; only a fixed size of 1 can be removed")
    return places


def _atleast(rank: int) -> None:
    @operator(f"_np_atleast_{rank}d")
    def atleast(cx: Context, a: Attributes, *data: Value) -> list[Value]:
        """Each input with axes of size 1 added until it has at least so many."""
        return [_grown(cx, x, rank) for x in data]


for _rank in (1, 2, 3):
    _atleast(_rank)


def _grown(cx: Context, x: Value, rank: int) -> Value:
    """NumPy's places for the new axes: in front, and for three axes the last one behind."""
    if x.rank >= rank:
        return x
    if rank == 3:
        return cx.unsqueeze(x, *{0: (0, 1, 2), 1: (0, 2), 2: (2,)}[x.rank])
    return cx.unsqueeze(x, *range(rank - x.rank))


# --- axes in another order -------------------------------------------------------------------------------------------


@operator("transpose", "_np_transpose")
def transpose(cx: Context, a: Attributes, data: Value) -> Value:
    """Axes in another order; reversed where none is given."""
    order = given(a.axes)
    if not order:
        return cx.transpose(data, range(data.rank)[::-1])
    places = axes_of(order, data.rank)
    if len(places) != data.rank:
        raise Unsupported(f"axes={order} is not an order of {data.rank} axes")
    return cx.transpose(data, places)


@operator("SwapAxis")
def swap_axis(cx: Context, a: Attributes, data: Value) -> Value:
    """Two axes exchanged."""
    order = list(range(data.rank))
    first, second = axis_of(a.dim1, data.rank, "dim1"), axis_of(a.dim2, data.rank, "dim2")
    order[first], order[second] = order[second], order[first]
    return cx.transpose(data, order)


@operator("_np_moveaxis")
def moveaxis(cx: Context, a: Attributes, data: Value) -> Value:
    """Axes moved from ``source`` to ``destination``; the others keep their order."""
    source, target = axes_of(a.source, data.rank), axes_of(a.destination, data.rank)
    if len(source) != len(target):
        raise Unsupported(f"source={source} and destination={target} differ in length")
    order = [axis for axis in range(data.rank) if axis not in source]
    for place, axis in sorted(zip(target, source)):
        order.insert(place, axis)
    return cx.transpose(data, order)


@operator("_npi_rot90")
def rot90(cx: Context, a: Attributes, data: Value) -> Value:
    """Turned by 90 degrees ``k`` times in the plane of two axes."""
    axes = given(a.axes)
    if axes is None or len(axes) != 2:
        raise Unsupported(f"axes={axes}; two axes are needed")
    first, second = axes_of(axes, data.rank)
    turns = a.k % 4
    if turns == 0:
        return data
    if turns == 2:
        return flipped(cx, data, (first, second))
    order = list(range(data.rank))
    order[first], order[second] = second, first
    if turns == 1:
        return cx.transpose(flipped(cx, data, (second,)), order)
    return flipped(cx, cx.transpose(data, order), (second,))


@operator("reverse", "_npi_flip")
def flip(cx: Context, a: Attributes, data: Value) -> Value:
    """Backwards along some axes."""
    return flipped(cx, data, axes_of(given(a.axis) or (), data.rank))


@operator("_np_roll")
def roll(cx: Context, a: Attributes, data: Value) -> Value:
    """Elements moved along axes, round the end; along the flattened data without ``axis``."""
    shifts, axes = given(a.shift), given(a.axis)
    if shifts is None:
        raise Unsupported("shift is missing")
    if axes is None:
        if len(shifts) != 1:
            raise Unsupported(f"shift={shifts} without axis; one number is needed")
        return cx.reshape(_rolled(cx, flat(cx, data), 0, shifts[0]), data.shape)
    if len(shifts) == 1:
        shifts = shifts * len(axes)
    if len(shifts) != len(axes):
        raise Unsupported(f"shift={shifts} and axis={axes} differ in length")
    for axis, shift in zip(axes_of(axes, data.rank), shifts):
        data = _rolled(cx, data, axis, shift)
    return data


def _rolled(cx: Context, x: Value, axis: int, shift: int) -> Value:
    size = static(x.shape[axis], "the size of a rolled axis")
    split = -shift % size if size else 0
    if not split:
        return x
    return cx.op("Concat", cut(cx, x, axis, split, size), cut(cx, x, axis, 0, split), type=x.type, axis=axis)


@operator("depth_to_space")
def depth_to_space(cx: Context, a: Attributes, data: Value) -> Value:
    """(N, b*b*C, H, W) to (N, C, H*b, W*b)."""
    b, (n, c, h, w) = _block(a, data)
    if static(c, "the number of channels") % (b * b):
        raise Unsupported(f"{c} channels are no multiple of block_size squared, {b * b}")
    shape = (n, c // (b * b), h * b, w * b)
    if data.dtype.kind == "f":
        return cx.op("DepthToSpace", data, type=TensorType(data.dtype, shape), blocksize=b, mode="DCR")
    parts = cx.reshape(data, (n, b, b, c // (b * b), h, w))
    return cx.reshape(cx.transpose(parts, (0, 3, 4, 1, 5, 2)), shape)


@operator("space_to_depth")
def space_to_depth(cx: Context, a: Attributes, data: Value) -> Value:
    """(N, C, H*b, W*b) to (N, b*b*C, H, W)."""
    b, (n, c, h, w) = _block(a, data)
    if any(isinstance(size, int) and size % b for size in (h, w)):
        raise Unsupported(f"the sizes {h}, {w} are no multiples of block_size={b}")
    shape = (n, c * (b * b), h // b, w // b)
    if data.dtype.kind == "f":
        return cx.op("SpaceToDepth", data, type=TensorType(data.dtype, shape), blocksize=b)
    parts = cx.reshape(data, (n, c, h // b, b, w // b, b))
    return cx.reshape(cx.transpose(parts, (0, 3, 5, 1, 2, 4)), shape)


def _block(a: Attributes, data: Value) -> tuple[int, Shape]:
    if data.rank != 4:
        raise Unsupported(f"its data have {data.rank} axes; 4 are needed")
    if a.block_size < 1:
        raise Unsupported(f"block_size={a.block_size}; it must be positive")
    return a.block_size, data.shape


# --- diagonals -------------------------------------------------------------------------------------------------------


def diagonal_of(cx: Context, x: Value, offset: int, axis1: int, axis2: int) -> Value:
    """The diagonals of the planes of two axes, as the last axis; empty ones where the offset is outside."""
    first, second = axis_of(axis1, x.rank, "axis1"), axis_of(axis2, x.rank, "axis2")
    if first == second:
        raise Unsupported(f"axis1={axis1} and axis2={axis2} are the same")
    others = [axis for axis in range(x.rank) if axis not in (first, second)]
    rows, columns = sizes_of((x.shape[first], x.shape[second]), "the sizes of a diagonal's plane")
    plane = cx.transpose(x, [*others, first, second])
    row, column = max(0, -offset), max(0, offset)
    count = max(0, min(rows - row, columns - column))
    joined = cx.reshape(plane, (*plane.shape[:-2], rows * columns))
    if not count:
        return cut(cx, joined, len(others), 0, 0)
    start = row * columns + column
    return cut(cx, joined, len(others), start, start + (count - 1) * (columns + 1) + 1, columns + 1)


def diagonal_matrix(cx: Context, x: Value, offset: int) -> Value:
    """The square matrix that has the 1-D ``x`` on a diagonal, and zeros elsewhere."""
    count = static(x.shape[0], "the length of a diagonal")
    if not count and not offset:
        return cx.reshape(x, (0, 0))
    size = count + abs(offset)
    table = np.full((size, size), count, np.int64)
    rows = np.arange(count) + max(0, -offset)
    table[rows, np.arange(count) + max(0, offset)] = np.arange(count)
    longer = cx.op("Concat", x, cx.const(np.zeros(1, x.dtype)), type=TensorType(x.dtype, (count + 1,)), axis=0)
    return cx.op("Gather", longer, cx.const(table), type=TensorType(x.dtype, (size, size)), axis=0)


@operator("diag")
def diag(cx: Context, a: Attributes, data: Value) -> Value:
    """The matrix with this diagonal (1-D), or the diagonals of planes."""
    if data.rank == 1:
        a.ignore("axis1", "axis2")
        return diagonal_matrix(cx, data, a.k)
    found = diagonal_of(cx, data, a.k, a.axis1, a.axis2)
    if found.shape[-1] == 0 and not cx.np_shape:
        raise Unsupported(f"k={a.k} is outside of the data with the shape {data.shape}")
    return found


@operator("_np_diag")
def np_diag(cx: Context, a: Attributes, data: Value) -> Value:
    """The matrix with this diagonal (1-D), or the diagonal of a matrix."""
    return diagonal_matrix(cx, data, a.k) if data.rank == 1 else diagonal_of(cx, data, a.k, 0, 1)


@operator("_np_diagflat")
def diagflat(cx: Context, a: Attributes, data: Value) -> Value:
    """The matrix with the flattened data on a diagonal."""
    return diagonal_matrix(cx, flat(cx, data), a.k)


@operator("_np_diagonal")
def diagonal(cx: Context, a: Attributes, data: Value) -> Value:
    """The diagonals of planes."""
    return diagonal_of(cx, data, a.offset, a.axis1, a.axis2)


@operator("_np_trace")
def trace(cx: Context, a: Attributes, data: Value) -> Value:
    """The sums of the diagonals of planes."""
    if data.dtype.kind == "b":
        raise Unsupported("MXNet has no trace of bool")
    found = diagonal_of(cx, data, a.offset, a.axis1, a.axis2)
    if found.shape[-1] == 0:
        return cx.expand(cx.const(np.zeros((1,) * (found.rank - 1), data.dtype)), found.shape[:-1])
    small = data.dtype.kind in "iu" and data.dtype.itemsize < 4
    total = cx.reduce("ReduceSum", cx.cast(found, np.int32) if small else found, (found.rank - 1,))
    return cx.cast(total, data.dtype)


@operator("_npi_tril")
def tril(cx: Context, a: Attributes, data: Value) -> Value:
    """Planes with zeros above a diagonal; a 1-D input counts as every row of a square."""
    if data.rank == 1:
        data = cx.expand(data, (data.shape[0], data.shape[0]))
    exact = data if data.dtype.kind in "fb" else cx.cast(data, np.int64)
    kept = cx.op("Trilu", exact, cx.const(np.array(a.k, np.int64)), type=exact.type, upper=0)
    return cx.cast(kept, data.dtype)


# --- repetition ------------------------------------------------------------------------------------------------------


@operator("tile")
def tile(cx: Context, a: Attributes, data: Value) -> Value:
    """The data repeated ``reps`` times along each axis, counted from the last."""
    reps = given(a.reps) or ()
    if any(count < 0 for count in reps):
        raise Unsupported(f"reps={reps} has a negative number")
    rank = max(len(reps), data.rank)
    reps = (1,) * (rank - len(reps)) + tuple(reps)
    x = cx.unsqueeze(data, *range(rank - data.rank))
    if all(count == 1 for count in reps):
        return x
    shape = tuple(size * count for size, count in zip(x.shape, reps))
    return cx.op("Tile", x, cx.ints(*reps), type=TensorType(x.dtype, shape))


@operator("repeat")
def repeat(cx: Context, a: Attributes, data: Value) -> Value:
    """Each element repeated along an axis; along the flattened data without ``axis``."""
    if a.repeats < 0:
        raise Unsupported(f"repeats={a.repeats} is negative")
    x, axis = line_of(cx, data, a.axis)
    return repeated(cx, x, axis, a.repeats)


def repeated(cx: Context, x: Value, axis: int, count: int) -> Value:
    """Each element ``count`` times along an axis."""
    if count == 1:
        return x
    if count == 0:
        return cut(cx, x, axis, 0, 0)
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    wide = cx.expand(cx.unsqueeze(x, axis + 1), (*before, size, count, *after))
    return cx.reshape(wide, (*before, size * count, *after))


@operator("broadcast_to")
def broadcast_to(cx: Context, a: Attributes, data: Value) -> Value:
    """Axes of size 1 stretched; a size of 0 keeps the data's (legacy arrays)."""
    shape = given(a["shape"]) or ()
    if len(shape) != data.rank:
        raise Unsupported(f"shape={shape} for data with {data.rank} axes; the number of axes must be the same")
    keep = not cx.np_shape
    return stretched(cx, data, tuple(old if keep and new == 0 else new for old, new in zip(data.shape, shape)))


@operator("_npi_broadcast_to")
def np_broadcast_to(cx: Context, a: Attributes, data: Value) -> Value:
    """Broadcast by NumPy's rule; a size of -2 keeps the data's."""
    shape = given(a["shape"]) or ()
    if len(shape) < data.rank:
        raise Unsupported(f"shape={shape} for data with {data.rank} axes; there must be at least as many")
    x = cx.unsqueeze(data, *range(len(shape) - data.rank))
    return stretched(cx, x, tuple(old if new == -2 else new for old, new in zip(x.shape, shape)))


def stretched(cx: Context, x: Value, shape: Shape, *sources: Value) -> Value:
    """``x`` broadcast to a shape of equal rank; symbolic sizes come from the shapes of ``sources`` too.

    Raises:
        Unsupported: an axis of another size than 1 would change.
    """
    for axis, (old, new) in enumerate(zip(x.shape, shape)):
        if old != new and old != 1:
            raise Unsupported(f"axis {axis} has the size {old} and would become {new}; only a size of 1 is stretched")
    if not sources or is_static(shape):
        return cx.expand(x, shape)
    return x if shape == x.shape else cx.op("Expand", x, cx.shape(shape, x, *sources), type=TensorType(x.dtype, shape))


@operator("broadcast_axis")
def broadcast_axis(cx: Context, a: Attributes, data: Value) -> Value:
    """Some axes of size 1 stretched to the given sizes."""
    axes, sizes = axes_of(given(a.axis) or (), data.rank), given(a.size) or ()
    if len(axes) != len(sizes):
        raise Unsupported(f"axis={axes} and size={sizes} differ in length")
    shape = list(data.shape)
    for axis, size in zip(axes, sizes):
        if shape[axis] != 1:
            raise Unsupported(f"axis {axis} has the size {shape[axis]}; only a size of 1 is stretched")
        shape[axis] = size
    return stretched(cx, data, tuple(shape))


@operator("broadcast_like")
def broadcast_like(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """``lhs`` with its axes of size 1 stretched to the sizes of ``rhs``; or of some axes of both."""
    left, right = given(a.lhs_axes), given(a.rhs_axes)
    if (left is None) != (right is None):
        raise Unsupported("lhs_axes and rhs_axes must be given together")
    if left is None or right is None:
        if lhs.rank != rhs.rank:
            raise Unsupported(
                f"its inputs have {lhs.rank} and {rhs.rank} axes; name the axes with lhs_axes and rhs_axes"
            )
        left = right = tuple(range(lhs.rank))
    if len(left) != len(right):
        raise Unsupported(f"lhs_axes={left} and rhs_axes={right} differ in length")
    shape = list(lhs.shape)
    for mine, other in zip(axes_of(left, lhs.rank), axes_of(right, rhs.rank)):
        shape[mine] = rhs.shape[other]
    return stretched(cx, lhs, tuple(shape), rhs)


@operator("_identity_with_attr_like_rhs")
def identity_like(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """``lhs`` as it is; ``rhs`` only lends its attributes."""
    return lhs
