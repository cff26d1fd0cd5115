"""UpSampling, BilinearResize2D, AdaptiveAvgPooling2D: how their attributes and shapes are drawn."""

from __future__ import annotations

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor


def up_sampling(d: Draw, a: Attributes) -> Inputs:
    batch, channels, height, width = d.sizes(4, 1, 3)
    scale = a["scale"]
    if a["sample_type"] == "bilinear":
        size = 2 * scale - scale % 2
        a["num_args"], a["num_filter"] = 2, channels
        data = Tensor((batch, channels, height, width), dynamic=(0, 2, 3))
        return {"data": data, "weight": Tensor((channels, 1, size, size), const=d.boolean())}
    count = a["num_args"] = d.integer(1, 3)
    inputs = {}
    for i, factor in enumerate((2, 1, 2)[:count]):  # relative to the smallest
        parts = channels if a.get("multi_input_mode") == "sum" else d.integer(1, 3)
        moving = (0, 2, 3) if count == 1 else ()
        inputs[f"arg{i}"] = Tensor((batch, parts, height * factor, width * factor), dynamic=moving)
    return inputs


def bilinear(d: Draw, a: Attributes) -> Inputs:
    mode = a.get("mode", "size")
    shape = d.sizes(4, 1, 7)
    inputs = {"data": Tensor(shape, d.pick(["float32", "float32", "float64", "float16"]), dynamic=(0,))}
    if mode == "like":
        inputs["like"] = Tensor((1, 1, *d.sizes(2, 1, 6)))
    elif mode == "odd_scale" or (mode == "size" and d.boolean()):
        a["scale_height"], a["scale_width"] = d.pick([0.5, 1.5, 2.0, 1.7]), d.pick([0.6, 1.0, 3.0, 1.3])
        inputs["data"] = Tensor(tuple(max(size, 2) for size in shape), dynamic=(0,))
    elif mode == "size":
        a.update(zip(("height", "width"), d.sizes(2, 1, 9)))
        a.pop(d.pick(["", "", "height", "width"]), None)  # 1 then
    elif mode.startswith("to_"):
        inputs["data"] = Tensor((*shape[:2], *(max(size, 2) for size in shape[2:])), dynamic=(0,))
    return inputs


def bilinear_of_any_size(d: Draw, a: Attributes) -> Inputs:
    """Height and width vary: the engine computes the places, in float32. That is off by some roundings of the place,
    which stay within a bound relative to the answer only where the answer is not near zero.
    """
    inputs = {"data": Tensor(d.sizes(4, 2, 5), low=1, dynamic=(0, 2, 3))}
    if a.get("mode", "size") == "size":
        a["height"], a["width"] = d.sizes(2, 1, 7)
    return inputs


SPECS = [
    Spec(
        "UpSampling",
        {
            "scale": [1, 2, 3, 4],
            "sample_type": ["nearest", "bilinear"],
            "multi_input_mode": [DEFAULT, "concat", "sum"],
            "workspace": [DEFAULT, 128, 256],
        },
        up_sampling,
        terms=lambda a, i: 4,
    ),
    Spec(
        "_contrib_BilinearResize2D",
        {
            "mode": [DEFAULT, "size", "odd_scale", "like", "to_even_down", "to_even_up", "to_odd_down", "to_odd_up"],
            "align_corners": [DEFAULT, False, True],
        },
        bilinear,
        terms=lambda a, i: 4,
        varying=10,
    ),
    Spec(
        "_contrib_BilinearResize2D",
        {
            "mode": [DEFAULT, "size", "to_even_down", "to_even_up", "to_odd_down", "to_odd_up"],
            "align_corners": [DEFAULT, False, True],
        },
        bilinear_of_any_size,
        terms=lambda a, i: 4,
        varying=4,
    ),
    Spec(
        "_contrib_BilinearResize2D",
        {"mode": ["size", "to_even_down", "to_even_up", "to_odd_down", "to_odd_up"], "align_corners": [False]},
        bilinear_of_any_size,
        terms=lambda a, i: 4,
        examples=2,
        varying=4,
    ),
    Spec(
        "_contrib_AdaptiveAvgPooling2D",
        {"output_size": [DEFAULT, (1,), (2,), (3, 2), (1, 4), (6, 5)]},
        lambda d, a: {"data": Tensor(d.sizes(4, 1, 6), dynamic=(0, 2, 3))},
        terms=lambda a, i: 36,
        varying=10,
    ),
    Spec(  # of one axis: of both, a wrong sign would go away
        "_contrib_AdaptiveAvgPooling2D",
        {"output_size": [(3, 2)]},
        lambda d, a: {"data": Tensor((1, 2, d.pick((5, 4)), 3), dynamic=(2,))},
        examples=2,
    ),
]
