"""Image operators: how they are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Case, Draw, Inputs, Spec, Tensor
from .limitations import Limitation


def image(d: Draw, a: Attributes) -> Inputs:
    shape = d.pick([(), (2,)]) + d.sizes(2, 3, 6) + (d.pick([1, 3]),)
    dynamic = (0,) if len(shape) == 4 else ()
    return {"data": Tensor(shape, d.pick(["uint8", "float32", "int32"]), low=0, high=255, dynamic=dynamic)}


def tall(d: Draw, a: Attributes) -> Inputs:
    """What fits its height would not fit its width."""
    return {"data": Tensor((9, 3, d.pick([1, 3])), "float32", low=0, high=255)}


def even(d: Draw, a: Attributes) -> Inputs:
    sizes = (70, 2) if a.pop("large", False) else (2 * d.integer(1, 3), 2 * d.integer(1, 3))
    shape = (*d.pick([sizes, sizes[::-1]]), d.pick([1, 3]))
    return {"data": Tensor(shape, d.pick(["uint8", "float32", "int32"]), low=0, high=255)}


def tensor(d: Draw, a: Attributes) -> Inputs:
    channels = d.pick([1, 3]) if len(a["mean"]) == len(a["std"]) == 1 else 3
    shape = d.pick([(), (2,)]) + (channels, *d.sizes(2, 1, 5))
    return {"data": Tensor(shape, dynamic=(0,) if len(shape) == 4 else ())}


def colours(d: Draw, a: Attributes) -> Inputs:
    return {"data": Tensor((*d.sizes(2, 1, 5), 3), d.pick(["uint8", "float32"]), low=0, high=255)}


def resized(d: Draw, a: Attributes) -> Inputs:
    shape = d.pick([(), (2,)]) + d.sizes(2, 1, 6) + (d.pick([1, 3]),)
    return {"data": Tensor(shape, "uint8" if a.get("interp") == 0 and d.boolean() else "float32", low=0, high=255)}


SPECS = [
    Spec("_image_to_tensor", {}, image, reference_dtype="float32"),
    Spec(
        "_image_normalize",
        {"mean": [(0.1,), (0.1, 0.2, 0.3)], "std": [(0.5,), (1, 2, 3)]},
        tensor,
        reference_dtype="float32",
    ),
    Spec(
        "_image_crop", {"x": [0, 1], "y": [0, 1], "width": [1, 2], "height": [1, 2]}, image, reference_dtype="float32"
    ),
    Spec("_image_crop", {"x": [1], "y": [4], "width": [2], "height": [5]}, tall, reference_dtype="float32", examples=2),
    Spec("_image_flip_left_right", {"large": [DEFAULT, True]}, even, reference_dtype="float32"),
    Spec("_image_flip_top_bottom", {"large": [DEFAULT, True]}, even, reference_dtype="float32"),
    Spec("_image_adjust_lighting", {"alpha": [(0.1, 0.2, 0.3), (-1, 0.5, 2)]}, colours, reference_dtype="float32"),
    Spec(
        "_image_resize",
        {"size": [(3,), (5, 2), (4, 4)], "keep_ratio": [DEFAULT, True], "interp": [DEFAULT, 0, 1]},
        resized,
        reference_dtype="float32",
    ),
    Spec("_image_resize", {"size": [(2,), (7,)], "keep_ratio": [True]}, resized, reference_dtype="float32"),
]


def _has_middle(case: Case) -> bool:
    axis = 1 if case.operator.endswith("left_right") else 0
    return case.inputs["data"].shape[axis] % 2 == 1


LIMITATIONS = [
    Limitation(
        ("_image_flip_left_right", "_image_flip_top_bottom"),
        "MXNet does not write the middle column (or row) of an image with an odd number of them; ours copies it",
        "DIFFERENT",
        _has_middle,
        Case("_image_flip_left_right", {}, {"data": Tensor((2, 3, 1), values=np.arange(1.0, 7).reshape(2, 3, 1))}),
        stable=False,
    ),
    Limitation(
        ("_image_adjust_lighting",),
        "an image with one channel: MXNet writes nothing into its answer",
        "UNSUPPORTED",
        lambda case: case.inputs["data"].shape[2] == 1,
        Case("_image_adjust_lighting", {"alpha": "(0.1, 0.2, 0.3)"}, {"data": Tensor((2, 3, 1), low=0, high=255)}),
    ),
]
