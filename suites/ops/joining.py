"""Joining and splitting: how their attributes and shapes are drawn."""

from __future__ import annotations

from .case import DEFAULT, Attributes, Build, Draw, Inputs, Spec, Tensor
from .reshaping import NUMBERS, moved


def joined(axis: str | None, rank: int | tuple[int, int] = 3, default: int = 1, low: int = 1) -> Build:
    """Several tensors of one type whose sizes differ on the joined axis."""

    def build(d: Draw, a: Attributes) -> Inputs:
        a["num_args"] = d.integer(1, 4)
        shape, dtype = d.shape(rank, low), d.pick(NUMBERS)
        place = default if axis is None else a.get(axis, default)
        tensors = {}
        for i in range(a["num_args"]):
            own = list(shape)
            if place is not None and own:
                own[place] = d.integer(low, 4)
            batch = () if place is None or not own or place % len(own) == 0 else (0,)
            tensors[f"x{i}"] = Tensor(tuple(own), dtype, low=-100, high=100, dynamic=batch)
        return tensors

    return build


def equal(rank: int | tuple[int, int], dynamic: tuple[int, ...] = (0,), low: int = 1) -> Build:
    def build(d: Draw, a: Attributes) -> Inputs:
        a["num_args"] = d.integer(1, 4)
        shape, dtype = d.shape(rank, low), d.pick(NUMBERS)
        kept = dynamic if shape else ()
        return {f"x{i}": Tensor(shape, dtype, low=-100, high=100, dynamic=kept) for i in range(a["num_args"])}

    return build


def columns(d: Draw, a: Attributes) -> Inputs:
    a["num_args"] = d.integer(1, 3)
    rows, dtype = d.integer(1, 4), d.pick(NUMBERS)
    return {
        f"x{i}": Tensor((rows,) if d.boolean() else (rows, d.integer(1, 3)), dtype, high=9)
        for i in range(a["num_args"])
    }


def parts(d: Draw, a: Attributes) -> Inputs:
    count, axis = a["num_outputs"], a.get("axis", 1)
    shape = list(d.shape(3))
    shape[axis] = count if a.get("squeeze_axis") else count * d.integer(1, 2)
    return {"data": moved(d, tuple(shape), dynamic=() if axis % 3 == 0 else (0,))}


def elements(d: Draw, a: Attributes) -> Inputs:
    """A vector that is split into its elements."""
    return {"data": moved(d, (a.get("sections") or a["num_outputs"],))}


def split(axis_default: int | None) -> Build:
    def build(d: Draw, a: Attributes) -> Inputs:
        axis = a.get("axis", 1) if axis_default is None else axis_default
        shape = list(d.shape(3))
        starts, count = a["indices"], a.get("sections", 0)
        shape[axis] = count * (1 if a.get("squeeze_axis") else d.integer(1, 2)) if count else max(starts) + 1
        return {"data": moved(d, tuple(shape), dynamic=() if axis % 3 == 0 else (0,))}

    return build


def legal_split(a: Attributes) -> bool:
    starts, sections = a["indices"], a.get("sections", 0)
    if bool(starts) == bool(sections):
        return False
    return not a.get("squeeze_axis") or not starts or starts == (0, 1, 2)


def split_outputs(a: Attributes) -> int:
    return a.get("sections") or len(a["indices"])


def matrices(d: Draw, a: Attributes) -> Inputs:
    a["num_args"] = d.integer(1, 3)
    columns = d.integer(1, 4)
    return {f"x{i}": Tensor((d.integer(1, 4), columns), dynamic=(0,) if i == 0 else ()) for i in range(a["num_args"])}


SPLITS = {
    "indices": [(), (0,), (0, 1), (0, 2, 3), (0, 1, 2)],
    "axis": [DEFAULT, 0, 1, -1],
    "squeeze_axis": [DEFAULT, True, False],
    "sections": [DEFAULT, 0, 1, 2, 3],
}

SPECS = [
    Spec("Concat", {"dim": [DEFAULT, 0, 1, 2, -1, -3]}, joined("dim")),
    Spec("Concat", {"dim": [0, 1]}, joined("dim", 2, low=0), np_shape=True),
    Spec("_rnn_param_concat", {"dim": [0]}, joined("dim", 1)),
    Spec("_npi_concatenate", {"axis": [DEFAULT, 0, 1, -1, None]}, joined("axis", 3, 0), np_shape=True),
    Spec("stack", {"axis": [DEFAULT, 0, 1, 3, -1, -4]}, equal(3, (0, 1)), also=("_npi_stack",)),
    Spec("_npi_stack", {"axis": [DEFAULT, -1]}, equal((0, 1)), np_shape=True),
    Spec("_npi_vstack", {}, joined(None, (2, 3), 0)),
    Spec("_npi_vstack", {}, equal((0, 1), ()), np_shape=True),
    Spec("_npi_hstack", {"dim": [DEFAULT, 0]}, joined(None, (2, 3), 1)),
    Spec("_npi_hstack", {}, equal((0, 1), ()), np_shape=True),
    Spec("_npi_dstack", {"dim": [DEFAULT, 0]}, joined(None, 3, 2)),
    Spec("_npi_dstack", {}, equal((0, 2), ()), np_shape=True),
    Spec("_npi_column_stack", {}, columns),
    Spec("_npi_column_stack", {}, equal((0, 3), ()), np_shape=True),
    Spec("SliceChannel", {"num_outputs": [1, 2, 3], "axis": [DEFAULT, 0, 1, 2, -1], "squeeze_axis": [DEFAULT, True, False]},
         parts, outputs=lambda a: a["num_outputs"]),
    Spec("SliceChannel", {"num_outputs": [3], "axis": [0], "squeeze_axis": [DEFAULT, True]}, elements, outputs=3, examples=2),
    Spec("_split_v2", {"indices": [()], "sections": [3], "axis": [0], "squeeze_axis": [DEFAULT, True]}, elements, outputs=3, examples=2),
    Spec("_split_v2", SPLITS, split(None), legal=legal_split, outputs=split_outputs),
    Spec("_npi_hsplit", {**SPLITS, "axis": [1]}, split(1), legal=legal_split, outputs=split_outputs),
    Spec("_npi_dsplit", {**SPLITS, "axis": [2]}, split(2), legal=legal_split, outputs=split_outputs),
    Spec("khatri_rao", {}, matrices),
]  # fmt: skip
