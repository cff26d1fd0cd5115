"""Image operators with a fixed result: to tensor, normalize, crop, flip, lighting; those that draw or decode cannot be."""

from __future__ import annotations

import numpy as np

from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator, refuse
from .schema import Attributes

_EIGEN = (  # principal components of ImageNet's colours, times their size (AlexNet's lighting noise), as MXNet has them
    (55.46 * -0.5675, 4.794 * 0.7192, 1.148 * 0.4009),
    (55.46 * -0.5808, 4.794 * -0.0045, 1.148 * -0.8140),
    (55.46 * -0.5836, 4.794 * -0.6948, 1.148 * 0.4203),
)


def _check_rank(data: Value) -> None:
    if data.rank not in (3, 4):
        raise Unsupported(f"its data have {data.rank} axes; an image has 3, a batch of images 4")


@operator("_image_to_tensor")
def to_tensor(cx: Context, a: Attributes, data: Value) -> Value:
    """(H, W, C) in 0 to 255 as float32 (C, H, W) in 0 to 1; or a batch of them."""
    _check_rank(data)
    first = data.rank - 3
    x = cx.transpose(cx.cast(data, np.float32), [*range(first), first + 2, first, first + 1])
    return cx.op("Div", x, cx.const(255, np.float32))


@operator("_image_normalize")
def normalize(cx: Context, a: Attributes, data: Value) -> Value:
    """(C, H, W) less the mean, over the deviation, by channel; one number serves all channels."""
    _check_rank(data)
    channels = static(data.shape[-3], "the number of channels")
    if channels not in (1, 3):
        raise Unsupported(f"{channels} channels; MXNet takes 1 or 3")
    mean, deviation = (_by_channel(cx, values, channels, data) for values in (a.mean, a.std))
    return cx.op("Div", cx.op("Sub", data, mean), deviation)


def _by_channel(cx: Context, values: tuple[float, ...], channels: int, data: Value) -> Value:
    if len(values) not in (1, channels):
        raise Unsupported(
            f"mean or std = {values} for {channels} channels: MXNet takes one number, or one for each channel"
        )
    return cx.const(np.array(values).reshape(-1, 1, 1), data.dtype)


@operator("_image_crop")
def crop(cx: Context, a: Attributes, data: Value) -> Value:
    """The part of (H, W, C) with its corner at (x, y)."""
    _check_rank(data)
    height, width = data.shape[-3:-1]
    for size, start, length, what in ((height, a.y, a.height, "high"), (width, a.x, a.width, "wide")):
        if start < 0 or length < 1 or (isinstance(size, int) and start + length > size):
            raise Unsupported(f"the crop from {start} of {length} does not fit an image {size} {what}")
    return cx.slice(data, [a.y, a.x], [a.y + a.height, a.x + a.width], [data.rank - 3, data.rank - 2])


def _flipped(cx: Context, data: Value, axis: int) -> Value:
    if data.rank != 3:
        raise Unsupported(f"its data have {data.rank} axes; an image has 3")
    if data.dtype in (np.uint8, np.int8):  # ONNX Runtime reverses no bytes
        return cx.cast(cx.slice(cx.cast(data, np.int32), [-1], [-(2**31)], [axis], [-1]), data.dtype)
    return cx.slice(data, [-1], [-(2**31)], [axis], [-1])


@operator("_image_flip_left_right")
def flip_left_right(cx: Context, a: Attributes, data: Value) -> Value:
    """(H, W, C) mirrored."""
    return _flipped(cx, data, data.rank - 2)


@operator("_image_flip_top_bottom")
def flip_top_bottom(cx: Context, a: Attributes, data: Value) -> Value:
    """(H, W, C) upside down."""
    return _flipped(cx, data, data.rank - 3)


@operator("_image_adjust_lighting")
def adjust_lighting(cx: Context, a: Attributes, data: Value) -> Value:
    """(H, W, 3) plus the principal components of colours times alpha; integers are clipped and truncated."""
    if data.rank != 3 or data.shape[2] != 3:
        raise Unsupported(
            "its data are no image (H, W, 3); what MXNet gives for one with a single channel, it does not write"
        )
    if len(a.alpha) != 3:
        raise Unsupported(f"alpha={a.alpha} are not three numbers")
    shift = cx.const((np.array(_EIGEN) @ np.array(a.alpha)).reshape(1, 1, 3), np.float32)
    y = cx.op("Add", cx.cast(data, np.float32), shift)
    if data.dtype.kind in "iu":
        info = np.iinfo(data.dtype)
        y = cx.op("Clip", y, cx.const(info.min, np.float32), cx.const(info.max, np.float32))
    return cx.cast(y, data.dtype)


@operator("_image_resize")
def resize(cx: Context, a: Attributes, data: Value) -> Value:
    """(H, W, C) at another size, as OpenCV: nearest (interp=0), bilinear (1)."""
    _check_rank(data)
    if a.interp not in (0, 1):
        raise Unsupported(
            f"interp={a.interp}: OpenCV's other interpolations have no counterpart; 0 and 1 are supported"
        )
    if data.dtype != np.float32 and a.interp == 1:
        raise Unsupported("bilinear resizing of integers rounds in OpenCV's fixed point; cast the image to float32")
    height, width = (static(size, "a spatial size (of _image_resize's data)") for size in data.shape[-3:-1])
    new = _new_size(a, height, width)
    x = data
    for axis, old, size in ((data.rank - 3, height, new[0]), (data.rank - 2, width, new[1])):
        x = _along(cx, x, axis, old, size, linear=a.interp == 1)
    return x


def _new_size(a: Attributes, height: int, width: int) -> tuple[int, int]:
    """Height and width; ``size`` is one number or (width, height)."""
    if not 1 <= len(a.size) <= 2 or min(a.size) < 1:
        raise Unsupported(f"size={a.size} is neither one positive number nor two")
    if len(a.size) == 2:
        a.ignore("keep_ratio")
        return a.size[1], a.size[0]
    size = a.size[0]
    if not a.keep_ratio:
        return size, size
    if height > width:
        return int(height * size / width), size
    return size, int(width * size / height)


def _along(cx: Context, x: Value, axis: int, old: int, new: int, linear: bool) -> Value:
    if old == new:
        return x
    if not linear:
        places = np.minimum(np.floor(np.arange(new) * (old / new)), old - 1).astype(np.int64)
        return cx.op("Gather", x, cx.const(places), axis=axis)
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, old - 1)
    shape = [-1 if i == axis else 1 for i in range(x.rank)]
    share = cx.const((at - low).reshape(shape), np.float32)
    kind = TensorType(x.dtype, tuple(new if i == axis else size for i, size in enumerate(x.shape)))
    first, second = (cx.op("Gather", x, cx.const(places), axis=axis, type=kind) for places in (low, high))
    return cx.op("Add", first, cx.op("Mul", cx.op("Sub", second, first), share), type=kind)


refuse(
    "draws random numbers: it is for training",
    "_image_random_brightness",
    "_image_random_color_jitter",
    "_image_random_contrast",
    "_image_random_flip_left_right",
    "_image_random_flip_top_bottom",
    "_image_random_hue",
    "_image_random_lighting",
    "_image_random_saturation",
)
refuse(
    "reads or decodes images on the CPU before a network sees them: do that outside",
    "_cvcopyMakeBorder",
    "_cvimdecode",
    "_cvimread",
    "_cvimresize",
    "_imdecode",
)
