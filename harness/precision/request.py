"""What is asked of the conversion to a precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Sample = Mapping[str, Array]
Samples = Callable[[], Iterable[Sample]]

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
OPTIONS = {
    "calibrator": "how ranges are found: 'percentile' (int8's default), 'minmax' (fp8's), 'mse', or MXNet's 'entropy'",
    "percentile": "share of values, in percent, that the range of the percentile calibrator covers (default 99.99)",
    "calibration_table": "path of a table that `mxtrt calibrate` wrote, instead of samples",
    "exclude": "names of MXNet nodes that are not quantized",
    "min_channels": "layers with fewer input or output channels are not quantized (default 16; 1 quantizes all)",
    "base_precision": "'fp32' (default), 'fp16' or 'bf16': what int8 and fp8 models compute the rest in",
    "min_sqnr": "quantize only as many layers as keep every output at this signal-to-noise ratio in dB",
}


@dataclass(frozen=True)
class Request:
    """What is asked of the conversion.

    Attributes:
        precision: fp32, tf32, fp16, bf16, int8 or fp8.
        samples: gives the calibration samples of this model's inputs, anew at each call; None if there are none.
        narrow_types: of "fp16" and "bf16", those the engine has kernels for; values of the others are rounded to them
            and computed in float32.
        options: see OPTIONS.
    """

    precision: str = "fp32"
    samples: Samples | None = None
    narrow_types: tuple[str, ...] = ("fp16", "bf16")
    options: Mapping[str, Any] = field(default_factory=dict)
