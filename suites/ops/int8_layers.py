"""The layers that INT8 quantizes, wide enough for it, drawn as their families draw them.

They are not in ``SPECS``: their precision is int8 alone. Each is calibrated with its own input, by largest magnitude,
and held to the error model, in which "int8" moves a tensor by half a step of its largest magnitude.
"""

from __future__ import annotations

from dataclasses import replace

from .case import DEFAULT, Attributes, Build, Draw, Inputs, Spec, Tensor
from .convolution import FIRST, POOL, WINDOW, convolution, deconvolution, fits_deconvolution, fits_kernel, pooling
from .convolution import products as products
from .convolution import window as window

CHANNELS = 16  # the narrowest layer that is quantized


def _widened(tensor: Tensor, axes: tuple[int, ...], const: bool) -> Tensor:
    shape = tuple(size * CHANNELS if axis in axes else size for axis, size in enumerate(tensor.shape))
    return replace(tensor, shape=shape, const=const, low=-1.0, high=2.0)


def _wide(build: Build) -> Build:
    def draw(d: Draw, a: Attributes) -> Inputs:
        inputs = build(d, a)
        a["num_filter"] *= CHANNELS
        axes = {"data": (1,), "weight": (0, 1), "bias": (0,)}
        return {name: _widened(tensor, axes[name], name != "data") for name, tensor in inputs.items()}

    return draw


def dense(d: Draw, a: Attributes) -> Inputs:
    rows, inputs, outputs = d.integer(1, 9), CHANNELS * d.integer(1, 4), CHANNELS * d.integer(1, 3)
    a["num_hidden"] = outputs
    found = {"data": Tensor((rows, inputs), low=-1.0), "weight": Tensor((outputs, inputs), const=True)}
    if not a.get("no_bias", False):
        found["bias"] = Tensor((outputs,), const=True)
    return found


def average(d: Draw, a: Attributes) -> Inputs:
    return {name: replace(tensor, dtype="float32") for name, tensor in pooling(d, a).items()}


LAYERS = [
    Spec("Convolution", {**WINDOW, "layout": [DEFAULT, *FIRST.values()]}, _wide(convolution),
         legal=fits_kernel, terms=products),
    Spec("Deconvolution",
         {"kernel": [(3,), (1, 1), (3, 2)], "stride": [DEFAULT, (2,), (2, 3)], "pad": [DEFAULT, (1,), (1, 0)],
          "adj": [DEFAULT, (1,), (1, 2)], "no_bias": [DEFAULT, False, True]},
         _wide(deconvolution), legal=fits_deconvolution, terms=products),
    Spec("FullyConnected", {"no_bias": [DEFAULT, False, True]}, dense, terms=products),
    Spec("Pooling", {**POOL, "pool_type": ["avg"]}, average, terms=window),
]  # fmt: skip
