"""GluonCV's networks as symbols, with random but fixed weights and the smallest inputs that they take."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SMALLEST_PROPOSALS = 16  # instead of 300 or 1000: the heads behind them run once per proposal

Array = npt.NDArray[Any]
Draw = Callable[[str, tuple[int, ...], "np.dtype[Any]", np.random.Generator], Array]
Sizes = Sequence[tuple[tuple[int, ...], Mapping[str, Any]]]


def _images(*sizes: int) -> Sizes:
    return [((1, 3, size, size), {}) for size in sizes]


def _crops(*sizes: int) -> Sizes:
    return [((1, 3, size, size), {"crop_size": size, "base_size": size}) for size in sizes]


def _videos(frames: int, *sizes: int) -> Sizes:
    return [((1, 3, frames, size, size), {}) for size in sizes]


# family, the names that belong to it (the first that matches counts), the inputs to try, smallest first
FAMILIES: Sequence[tuple[str, str, Sizes]] = (
    ("int8", r"_int8$", _images(64, 224)),
    ("custom classes", r"custom", _images(64, 224)),
    ("frames of videos", r"^(inception|resnet|vgg).*_(hmdb51|ucf101|sthsthv2|kinetics400)$", _images(64, 224, 299)),
    ("ssd_300", r"^ssd_300", _images(300)),
    ("ssd_512", r"^ssd_512", _images(256, 512)),
    ("yolo3", r"^yolo3", _images(96, 320)),
    ("mask_rcnn", r"mask_rcnn", _images(128, 320)),
    ("faster_rcnn", r"rcnn", _images(128, 320)),
    ("center_net", r"^center_net", _images(128, 512)),
    ("fcn", r"^fcn", _crops(96, 480)),
    ("psp", r"^psp", _crops(96, 480)),
    ("deeplab", r"^deeplab", _crops(96, 480)),
    ("icnet", r"^icnet", _crops(192, 480)),
    ("danet", r"^danet", _crops(96, 480)),
    ("fastscnn", r"^fastscnn", _crops(192, 480)),
    ("hrnet segmentation", r"^hrnet.*_s$", _crops(96, 480)),
    ("simple_pose", r"^simple_pose", [((1, 3, 64, 64), {}), ((1, 3, 256, 192), {})]),
    ("alpha_pose", r"^alpha_pose", [((1, 3, 64, 64), {}), ((1, 3, 256, 192), {})]),
    ("mobile_pose", r"^mobile_pose", [((1, 3, 64, 64), {}), ((1, 3, 256, 192), {})]),
    ("c3d", r"^c3d", _videos(16, 112)),
    ("r2plus1d", r"^r2plus1d", _videos(8, 64, 112)),
    ("p3d", r"^p3d", _videos(16, 64, 112, 224)),
    ("slowfast", r"^slowfast_4x16", _videos(36, 64, 224)),  # frames of the slow and of the fast path
    ("slowfast", r"^slowfast_8x8", _videos(40, 64, 224)),
    ("slowfast", r"^slowfast_16x8", _videos(80, 64, 224)),
    ("i3d", r"^i3d", _videos(8, 64) + _videos(16, 64, 112, 224) + _videos(32, 224)),
    (
        "monodepth2",
        r"^monodepth2",
        [((1, 3, 64, 96), {}), ((1, 3, 192, 640), {}), ((1, 6, 64, 96), {}), ((1, 6, 192, 640), {})],
    ),
    ("cifar", r"^cifar", _images(32)),
    ("residual attention", r"^residualattention", _images(64, 224, 448)),
    ("inception", r"^inception|^googlenet", _images(96, 128, 224, 299)),
    ("nasnet", r"^nasnet", _images(96, 224, 331)),
    ("se_resnet", r"^se_resnet", _images(64, 224)),
    ("se_resnext, senet", r"^se_resnext|^senet", _images(64, 224)),
    ("resnext", r"^resnext", _images(64, 224)),
    ("resnest", r"^resnest", _images(64, 224)),
    ("resnet v1b to v1s", r"^resnet\d+_v1[bcdes]", _images(64, 224)),
    ("resnet v1, v2", r"^resnet", _images(64, 224)),
    ("hrnet", r"^hrnet", _images(64, 224)),
    ("mobilenet", r"^mobilenet", _images(64, 224)),
    ("shufflenet", r"^shufflenet", _images(64, 224)),
    ("xception", r"^xception", _images(64, 299)),
    ("densenet", r"^densenet", _images(64, 224)),
    ("vgg, alexnet, squeezenet", r"^vgg|^alexnet|^squeezenet", _images(64, 128, 224)),
    ("dla, darknet", r"^dla|^darknet", _images(64, 224)),
    ("others", r"", _images(64, 224)),
)


class NotTraceable(Exception):
    """GluonCV cannot make a symbol of the network: it needs weights, classes, or more than one input."""


def family_of(name: str) -> tuple[str, Sizes]:
    """A network's family and the inputs to try."""
    return next((family, sizes) for family, pattern, sizes in FAMILIES if re.search(pattern, name))


def networks() -> list[str]:
    """All networks that GluonCV registers."""
    prepare()
    from gluoncv.model_zoo import model_zoo

    return sorted(model_zoo._models)


def prepare() -> Any:
    """MXNet, imported so that GluonCV can be; with its own kernels (set MXNET_MKLDNN_ENABLED=1 for INT8)."""
    os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")
    os.environ.setdefault("MXNET_MKLDNN_ENABLED", "0")
    from harness.frontend.compat import mxnet

    return mxnet()


def build(name: str, draw: Draw, sizes: Sizes | None = None) -> tuple[Any, dict[str, Array], Array]:
    """The network's symbol, its parameters as ``draw`` makes them, and a random but fixed input.

    Args:
        sizes: the inputs to try and the network's options with each; None takes the family's.

    Raises:
        NotTraceable: GluonCV cannot make a symbol of it, or no input fits.
    """
    mx = prepare()
    reason = "no size is known for it"
    for shape, options in sizes or family_of(name)[1]:
        mx.random.seed(7)
        np.random.seed(7)
        try:
            net = _network(name, options)
            _propose_less(net)
            flat = list(_flat(net(mx.sym.var("data"))))
            symbol = mx.sym.Group(flat) if len(flat) > 1 else flat[0]
            arguments, _, states = symbol.infer_shape(data=shape)
        except Exception as error:  # noqa: BLE001 - GluonCV raises whatever it likes
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            continue
        shapes = dict(zip(symbol.list_arguments(), arguments)) | dict(zip(symbol.list_auxiliary_states(), states))
        data = np.random.default_rng(11).uniform(-1, 1, shape).astype(np.float32)
        return symbol, _parameters(net, shapes, draw), data
    raise NotTraceable(reason)


def _network(name: str, options: Mapping[str, Any]) -> Any:
    import requests
    from gluoncv.model_zoo import get_model

    requests.get = _no_download
    tries = ({"pretrained_base": False, **options}, {"pretrained_base": False}, {})
    for attempt in tries[:-1]:
        try:
            return get_model(name, pretrained=False, **attempt)
        except (TypeError, Warning):  # it does not know an option
            continue
    return get_model(name, pretrained=False)


def _no_download(*_args: Any, **_options: Any) -> None:
    raise NotTraceable("its definition downloads weights")


def _propose_less(block: Any) -> None:
    """Fewer proposals for the second stage of R-CNNs."""
    for attribute in ("_rpn_test_post_nms", "_test_post_nms"):
        if hasattr(block, attribute):
            setattr(block, attribute, SMALLEST_PROPOSALS)
    for child in block._children.values():
        _propose_less(child)


def _parameters(net: Any, shapes: Mapping[str, tuple[int, ...]], draw: Draw) -> dict[str, Array]:
    """Constants as the network has them, the rest drawn."""
    mx = prepare()
    rng = np.random.default_rng(5)
    result = {}
    for _, param in sorted(net.collect_params().items()):
        if isinstance(param, mx.gluon.parameter.Constant):
            param.initialize()
            result[param.name] = param.data().asnumpy()
        elif param.name in shapes:
            result[param.name] = draw(param.name, shapes[param.name], np.dtype(param.dtype), rng)
    return {name: array for name, array in result.items() if name in shapes}


def random_weights(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """LeCun's rule, so that a signal reaches the end of a deep network; statistics and scales around one."""
    if dtype.kind in "iu":
        return rng.integers(-100, 100, shape).astype(dtype)
    if name.endswith(("_min", "_max")):  # the range of a quantized tensor
        return np.full(shape, -1 if name.endswith("_min") else 1, dtype)
    values = rng.standard_normal(shape, np.float32)
    if name.endswith(("gamma", "var")):
        values = np.exp(values / 4)
    elif len(shape) > 1:
        values *= np.float32(np.prod(shape[1:]) ** -0.5)
    else:
        values *= np.float32(0.1)
    return values.astype(dtype)


def no_weights(_name: str, shape: tuple[int, ...], dtype: np.dtype[Any], _rng: np.random.Generator) -> Array:
    """Zeros, which take no time and no memory."""
    return np.zeros(shape, dtype)


def _flat(item: Any) -> Iterator[Any]:
    if isinstance(item, (list, tuple)):
        for part in item:
            yield from _flat(part)
    else:
        yield item
