"""Reshapes, transposes, flips, diagonals, repetition: how their attributes and shapes are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Build, Draw, Inputs, Spec, Tensor

NUMBERS = ("float32", "float64", "float16", "int32", "int64", "int8", "uint8")
ALL = (*NUMBERS, "bool")
EDGES = (np.nan, np.inf, -np.inf, -0.0, 1.5, -3e38)


def moved(d: Draw, shape: tuple[int, ...], dtypes: tuple[str, ...] = NUMBERS, dynamic: tuple[int, ...] = ()) -> Tensor:
    """A tensor whose elements an operator only moves: any type, edge values and integers of any size included."""
    dtype = d.pick(dtypes)
    values = EDGES if dtype == "float32" and d.boolean() else None
    reach = 100 if np.dtype(dtype).kind == "f" else 2**40
    return Tensor(shape, dtype, low=-reach, high=reach, values=values, dynamic=dynamic)


def any_data(rank: tuple[int, int], dtypes: tuple[str, ...] = NUMBERS, low: int = 1, dynamic: bool = True) -> Build:
    """One input of any rank in a range, all of whose sizes may vary."""

    def build(d: Draw, a: Attributes) -> Inputs:
        shape = d.shape(rank, low)
        return {"data": moved(d, shape, dtypes, tuple(range(len(shape))) if dynamic else ())}

    return build


def shaped(name: str, table: dict[tuple[int, ...], tuple[int, ...]], dynamic: tuple[int, ...] = ()) -> Build:
    """Data of the shape that a table has for the attribute's value."""

    def build(d: Draw, a: Attributes) -> Inputs:
        return {"data": moved(d, table[a[name]], dynamic=dynamic)}

    return build


RESHAPES = {
    (6, 4): (2, 3, 4),
    (0, -1): (2, 3, 5),
    (-1, 0): (2, 3),
    (0, 0, -1): (2, 3, 5, 2),
    (5, -1, 0): (5, 3, 4, 5),
    (-1, 2, 2, 1): (2, 4, 5, 3),
    (-2,): (2, 3, 5, 6),
    (6, 1, -2): (2, 3, 5, 6),
    (-3, -3): (2, 3, 5, 6),
    (-3, 0): (2, 3, 5),
    (0, -3): (2, 3, 5),
    (-3, -1): (2, 3, 5, 6),
    (-4, 4, 4): (16,),
    (-4, 2, -1, -2): (8, 1, 2, 3),
    (-4, -1, 2, 0): (8, 3),
    (0, -4, 2, -1, -2): (3, 6, 2, 2),
    (-1,): (2, 3, 4),
    (1, -1): (5,),
}
REVERSED = {(0, -1): (2, 3, 5, 5), (0, 0, -1): (2, 3, 5, 5), (-1, 0): (2, 3, 6), (-2, 1, 30): (2, 3, 5, 6),
            (-3, -3): (2, 3, 5, 6), (4, 4, -4): (16,), (-2, -1, 2, -4): (1, 2, 3, 8), (-3, 0): (2, 3, 4)}  # fmt: skip
NPX_RESHAPES = {(6, 4): (2, 3, 4), (-2, -1): (2, 3, 5), (-2, -2, -1): (2, 3, 4, 5), (-3, -1): (1, 2, 3), (-4,): (2, 3),
                (-5, -4): (2, 3, 4), (-6, 2, -1, -4): (6, 2, 2), (-2, -6, -1, 2): (3, 4), (-2, -3, -2): (2, 1, 3),
                (-5, -5): (2, 3, 4, 5)}  # fmt: skip
NPX_REVERSED = {(-2, -1): (2, 3, 4, 5), (-4, -5): (2, 3, 4), (-1, -2): (2, 3, 4), (2, -1, -6): (4,)}


def legacy_reshape(d: Draw, a: Attributes) -> Inputs:
    keeps = a["target_shape"]
    return {"data": moved(d, (3, 4, 2) if keeps != (0, 2) else (5, 2, 3), dynamic=(0,) if keeps[0] == 0 else ())}


def like(d: Draw, a: Attributes) -> Inputs:
    rhs = (2, 3, 5)
    begin, end = a.get("rhs_begin"), a.get("rhs_end")
    middle = rhs[begin:end]
    first = a.get("lhs_begin") or 0
    last = a.get("lhs_end")
    behind = 0 if last is None else -last if last < 0 else 1
    before = d.sizes(first if first >= 0 else 1, 1, 3)
    joined = (int(np.prod(middle)),)
    if first < 0 or (last is not None and last > 0):
        return {"lhs": moved(d, (*before, *joined, *d.sizes(-first - 1 if first < 0 else 1))), "rhs": Tensor(rhs)}
    moving = (0, 1, 2) if (begin or 0, end) == (0, None) else ()
    lhs = moved(d, (*before, *joined, *d.sizes(behind)), dynamic=(len(before),) if moving else ())
    return {"lhs": lhs, "rhs": Tensor(rhs, d.pick(NUMBERS), dynamic=moving)}


def legal_like(a: Attributes) -> bool:
    first, last = a.get("lhs_begin"), a.get("lhs_end")
    return (first, last) in ((None, None), (None, -1), (0, 1), (1, None), (1, 2), (1, -1), (-1, None), (-2, -1))


def with_ones(d: Draw, a: Attributes) -> Inputs:
    axis = a.get("axis")
    rank = 4 if axis is not None else d.integer(1, 4)
    shape = list(d.shape(rank))
    for place in axis if axis is not None else ():
        shape[place] = 1
    return {"data": moved(d, tuple(shape), dynamic=(1,) if axis in ((0,), (-1,), (0, 2)) else ())}


def of_rank(rank: int, dtypes: tuple[str, ...] = NUMBERS, dynamic: tuple[int, ...] = ()) -> Build:
    return lambda d, a: {"data": moved(d, d.shape(rank), dtypes, dynamic)}


def permuted(d: Draw, a: Attributes) -> Inputs:
    axes = a.get("axes")
    rank = len(axes) if axes else d.integer(1, 6)
    return {"data": moved(d, d.shape(rank, 1, 4), dynamic=tuple(range(rank)))}


def several(ranks: tuple[int, int]) -> Build:
    def build(d: Draw, a: Attributes) -> Inputs:
        a["num_args"], dtype = d.integer(1, 3), d.pick(NUMBERS)
        shapes = [d.shape(ranks) for _ in range(a["num_args"])]
        return {
            f"x{i}": Tensor(shape, dtype, high=100, dynamic=(0,) if shape else ()) for i, shape in enumerate(shapes)
        }

    return build


def blocks(d: Draw, a: Attributes) -> Inputs:
    b = a["block_size"]
    n, c, h, w = d.sizes(4, 1, 3)
    return {"data": moved(d, (n, c * b * b, h, w), dynamic=(0, 2, 3))}


def tiles(d: Draw, a: Attributes) -> Inputs:
    b = a["block_size"]
    n, c, h, w = d.sizes(4, 1, 3)
    return {"data": moved(d, (n, c, h * b, w * b), dynamic=(0,))}


def diagonals(d: Draw, a: Attributes) -> Inputs:
    rank = 3 if "axis1" in a or "axis2" in a else d.integer(1, 4)
    return {"data": moved(d, d.shape(rank, 4, 5))}


def planes(d: Draw, a: Attributes) -> Inputs:
    return {"data": moved(d, d.shape(3, 3, 5))}


def broadcast(d: Draw, a: Attributes) -> Inputs:
    return {"data": moved(d, tuple(d.pick((1, s or 3)) if s != 0 else 3 for s in a["shape"]))}


def np_broadcast(d: Draw, a: Attributes) -> Inputs:
    shape = a["shape"]
    kept = shape[d.integer(0, len(shape)) :] if -2 not in shape else shape
    return {"data": moved(d, tuple(3 if s == -2 else d.pick((1, s)) for s in kept), dynamic=())}


def axis_broadcast(d: Draw, a: Attributes) -> Inputs:
    shape = list(d.shape(3))
    for axis in a["axis"]:
        shape[axis] = 1
    a["size"] = d.sizes(len(a["axis"]), 1, 4)
    return {"data": moved(d, tuple(shape), dynamic=tuple(i for i in range(3) if i not in a["axis"]))}


def legal_axes(a: Attributes) -> bool:
    return ("lhs_axes" in a) == ("rhs_axes" in a) and len(a.get("lhs_axes", ())) == len(a.get("rhs_axes", ()))


def broadcast_like(d: Draw, a: Attributes) -> Inputs:
    rhs = d.shape(3)
    lhs = list(rhs)
    pairs = list(zip(a["lhs_axes"], a["rhs_axes"])) if "lhs_axes" in a else [(i, i) for i in range(3) if d.boolean()]
    for mine, _ in pairs:
        lhs[mine] = 1
    return {"lhs": moved(d, tuple(lhs)), "rhs": Tensor(rhs, dynamic=tuple(theirs % 3 for _, theirs in pairs))}


def rolled(d: Draw, a: Attributes) -> Inputs:
    return {"data": moved(d, d.shape(3))}


def legal_roll(a: Attributes) -> bool:
    axis = a.get("axis")
    return len(a["shift"]) == 1 if axis is None else len(a["shift"]) in (1, len(axis))


def legal_move(a: Attributes) -> bool:
    return len(a["source"]) == len(a["destination"])


AXES = [DEFAULT, (), (1, 0), (0, 1), (2, 0, 1), (0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (0, 2, 1, 4, 3)]

SPECS = [
    Spec("Reshape", {"shape": list(RESHAPES), "reverse": [DEFAULT, False]}, shaped("shape", RESHAPES)),
    Spec("Reshape", {"shape": list(REVERSED), "reverse": [True]}, shaped("shape", REVERSED)),
    Spec("Reshape", {"shape": [(0, -1), (-1, 0), (0, -3), (-3, 0), (-2,), (-1,), (0, 0, 0), (0, 5, 3), (-1, 5), (1, -1)]},
         lambda d, a: {"data": moved(d, (4, 3, 5) if a["shape"] != (-1, 0) else (4, 3), dynamic=(0,))}),
    Spec("Reshape", {"shape": [(), (-1,)], "reverse": [DEFAULT, False]}, lambda d, a: {"data": moved(d, (1,) * d.integer(0, 2))},
         np_shape=True),
    Spec("Reshape", {"target_shape": [(0, 8), (12, 2), (3, 0, 2), (6, 0), (0, 2)],
                     "keep_highest": [DEFAULT, True, False]}, legacy_reshape,
         legal=lambda a: not a.get("keep_highest") or a["target_shape"] == (0, 8)),
    Spec("Reshape", {"target_shape": [(0, 0)], "keep_highest": [True]}, legacy_reshape, examples=1),
    Spec("_npx_reshape", {"newshape": list(NPX_RESHAPES), "reverse": [DEFAULT, False], "order": [DEFAULT, "C"]},
         shaped("newshape", NPX_RESHAPES), np_shape=True),
    Spec("_npx_reshape", {"newshape": [(-2, -1), (-2, -4), (-5, -4), (-1, 5)]},
         lambda d, a: {"a": moved(d, (4, 3, 5), dynamic=(0,))}, np_shape=True),
    Spec("_npx_reshape", {"newshape": list(NPX_REVERSED), "reverse": [True]}, shaped("newshape", NPX_REVERSED), np_shape=True),
    Spec("_npx_reshape", {"newshape": [(), (0, 3), (-2, 5), (-4, 1)]}, np_shape=True, build=lambda d, a: {
        "data": moved(d, {(): (1, 1), (0, 3): (3, 0), (-2, 5): (0, 5), (-4, 1): ()}[a["newshape"]])}),
    Spec("_np_reshape", {"newshape": [(-1,), (6, 4), (4, -1), (2, 3, 2, 2), (24,)], "order": [DEFAULT, "C"]},
         lambda d, a: {"a": moved(d, (2, 3, 4))}, np_shape=True),
    Spec("_np_reshape", {"newshape": [(-1, 12), (-1, 3, 4), (-1,)]}, lambda d, a: {"a": moved(d, (2, 3, 4), dynamic=(0,))}),
    Spec("reshape_like", {"lhs_begin": [DEFAULT, None, 0, 1, -1, -2], "lhs_end": [DEFAULT, None, 1, 2, -1],
                          "rhs_begin": [DEFAULT, None, 0, 1, -2], "rhs_end": [DEFAULT, None, 3, -1, 2]},
         like, legal=legal_like, varying=5),
    Spec("expand_dims", {"axis": [0, 1, 3, -1, -2, -4]}, any_data((3, 5))),
    Spec("expand_dims", {"axis": [0, -1]}, any_data((0, 2), ALL, low=0, dynamic=False), np_shape=True),
    Spec("squeeze", {"axis": [DEFAULT, None, (0,), (-1,), (0, 2), (0, 1, 2, 3), (-2, 0)]}, with_ones),
    Spec("squeeze", {"axis": [DEFAULT, (0,), (0, 1, 2, 3)]}, with_ones, np_shape=True, also=("_np_squeeze",)),
    *[Spec(f"_np_atleast_{n}d", {}, several((1, 4)), outputs=lambda a: a["num_args"]) for n in (1, 2, 3)],
    *[Spec(f"_np_atleast_{n}d", {}, several((0, 2)), outputs=lambda a: a["num_args"], np_shape=True) for n in (1, 2, 3)],
    Spec("transpose", {"axes": AXES}, permuted),
    Spec("_np_transpose", {"axes": [DEFAULT, *AXES[2:], None, (1, -2), (-1, 0, 1)]}, permuted, np_shape=True),
    Spec("SwapAxis", {"dim1": [DEFAULT, 0, 1, -1], "dim2": [DEFAULT, 0, 2, -2]}, of_rank(3, dynamic=(0, 1, 2))),
    Spec("_np_moveaxis", {"source": [(0,), (-1,), (0, 1), (2, 0)], "destination": [(2,), (0,), (1, 2), (-1, 0)]},
         of_rank(3, dynamic=(0, 1, 2)), legal=legal_move),
    Spec("_npi_rot90", {"k": [DEFAULT, 0, 1, 2, 3, -1, 5], "axes": [(0, 1), (1, 0), (0, -1), (2, 1)]},
         of_rank(3, dynamic=(0, 1))),
    Spec("reverse", {"axis": [(0,), (2,), (0, 1), (0, 1, 2)]}, of_rank(3, dynamic=(0, 1, 2)), also=("_npi_flip",)),
    Spec("_npi_flip", {"axis": [()]}, any_data((0, 2), dynamic=False), np_shape=True),
    Spec("_np_roll", {"shift": [(1,), (-2,), (7,), (1, -1), (0, 3)], "axis": [DEFAULT, None, (0,), (-1,), (0, 1), (0, 2)]},
         rolled, legal=legal_roll),
    Spec("depth_to_space", {"block_size": [1, 2, 3]}, blocks),
    Spec("space_to_depth", {"block_size": [1, 2, 3]}, tiles),
    Spec("diag", {"k": [DEFAULT, 0, 1, -1, 3, -2], "axis1": [DEFAULT, 1, -1], "axis2": [DEFAULT, 2, -2]}, diagonals,
         legal=lambda a: (a.get("axis1", 0) - a.get("axis2", 1)) % 3 != 0),
    Spec("_np_diag", {"k": [DEFAULT, 0, 1, -1, 3, -7]}, lambda d, a: {"data": moved(d, d.shape((1, 2)))}, np_shape=True),
    Spec("_np_diag", {"k": [0, 1]}, lambda d, a: {"data": Tensor((0,))}, np_shape=True, examples=1),
    # Not of nothing: MXNet's process ends with it.
    Spec("_np_diagflat", {"k": [DEFAULT, 0, 2, -1]}, any_data((1, 3), dynamic=False), np_shape=True),
    Spec("_np_diagonal", {"offset": [DEFAULT, 0, 1, -2, 9], "axis1": [DEFAULT, 1, -1], "axis2": [DEFAULT, 2, -2]}, planes,
         legal=lambda a: (a.get("axis1", 0) - a.get("axis2", 1)) % 3 != 0, np_shape=True),
    Spec("_np_trace", {"offset": [DEFAULT, 0, 1, -2, 9], "axis1": [DEFAULT, 1, -1], "axis2": [DEFAULT, 2, -2]},
         lambda d, a: {"data": Tensor(d.shape(3, 3, 5), d.pick(("float32", "float64", "float16", "int32", "int8", "uint8")), low=-100, high=100)},
         legal=lambda a: (a.get("axis1", 0) - a.get("axis2", 1)) % 3 != 0, np_shape=True, terms=lambda a, i: 5),
    Spec("_np_trace", {"offset": [0, -1]}, lambda d, a: {"data": Tensor(d.shape(3, 3, 5), "int64", low=-(2**40), high=2**40)},
         np_shape=True, examples=1),
    Spec("_npi_tril", {"k": [DEFAULT, 0, 1, -1, 4, -5]}, lambda d, a: {"data": moved(d, d.shape((1, 4)), NUMBERS)}, np_shape=True),
    Spec("tile", {"reps": [(1,), (2,), (2, 3), (1, 1, 2), (2, 1, 3, 1), ()]}, any_data((1, 3))),
    Spec("tile", {"reps": [(0, 2), (2,), ()]}, any_data((0, 2), dynamic=False), np_shape=True),
    Spec("repeat", {"repeats": [1, 2, 3], "axis": [DEFAULT, None, 0, 1, -1]}, any_data((2, 3))),
    Spec("repeat", {"repeats": [0, 2], "axis": [DEFAULT]}, any_data((0, 2), dynamic=False), np_shape=True),
    Spec("broadcast_to", {"shape": [(3,), (2, 3), (0, 4), (2, 0, 4), (1, 1, 1), (2, 3, 1, 2)]}, broadcast),
    Spec("broadcast_to", {"shape": [(0, 4)]}, lambda d, a: {"data": moved(d, (3, 1), dynamic=(0,))}),
    Spec("_npi_broadcast_to", {"shape": [(3,), (2, 3), (2, -2, 4), (-2,), (2, 1, 4)]}, np_broadcast, np_shape=True),
    Spec("broadcast_axis", {"axis": [(0,), (2,), (2, 0), (0, 1, 2), ()]}, axis_broadcast),
    Spec("broadcast_axis", {}, lambda d, a: {"data": moved(d, d.shape((1, 3)))}, examples=2),
    Spec("broadcast_like", {"lhs_axes": [DEFAULT, (0,), (-1,), (0, 1)], "rhs_axes": [DEFAULT, (1,), (-1,), (2, 0)]},
         broadcast_like, legal=legal_axes, varying=5),
    Spec("_identity_with_attr_like_rhs", {}, lambda d, a: {"lhs": Tensor((2, 3)), "rhs": Tensor((2, 3))}),
]  # fmt: skip
