"""Options of the backends: MXNet's own and ours, read from the text that MXNet passes on."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import OptionError
from ..precision import PRECISIONS

OPTIONS = {
    "precision": "fp32 (default), tf32, fp16, bf16, int8 or fp8",
    "calibration_iters": "int8 and fp8: the first N forward calls run in float32 and are the calibration samples",
    "engine": "auto (default: TensorRT on a GPU context, ONNX Runtime on the CPU), onnxruntime or tensorrt",
    "min_segment_size": "parts with fewer nodes stay in MXNet (default 1)",
    "cache_dir": "folder of built plans",
    "threads": "threads of one segment on ONNX Runtime",
}
_MXNET_OWN = ("is_np_shape", "clear", "active")  # MXNet itself may add these


@dataclass(frozen=True, slots=True)
class Options:
    """See OPTIONS; ``engine_options`` go on to ``harness.compile``."""

    precision: str = "fp32"
    calibration_iters: int = 0
    engine: str = "auto"
    min_segment_size: int = 1
    cache_dir: str | None = None
    engine_options: Mapping[str, Any] = field(default_factory=dict)


def read_options(texts: Mapping[str, str]) -> Options:
    """Options from MXNet's text.

    Raises:
        OptionError: an option is unknown (with the list), or its value is not possible.
    """
    known: dict[str, Any] = {}
    for name, text in texts.items():
        if name in _MXNET_OWN:
            continue
        if name not in OPTIONS:
            listing = "; ".join(f"{option}: {meaning}" for option, meaning in OPTIONS.items())
            raise OptionError(f"backend option {name!r} is unknown. Options: {listing}")
        known[name] = _value(name, text)
    threads = known.pop("threads", None)
    options = Options(**known, engine_options={} if threads is None else {"threads": threads})
    if options.precision not in PRECISIONS:
        raise OptionError(f"precision: {options.precision!r} is none of {', '.join(PRECISIONS)}")
    if options.precision in ("int8", "fp8") and options.calibration_iters < 1:
        raise OptionError(f"precision={options.precision} needs calibration_iters=N, the number of calls to learn from")
    return options


def _value(name: str, text: str) -> Any:
    if name not in ("calibration_iters", "min_segment_size", "threads"):
        return text
    try:
        number = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise OptionError(f"{name}: {text!r} is not a positive integer")
    return number
