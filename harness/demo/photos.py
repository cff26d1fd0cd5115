"""Photographs that scikit-image, scikit-learn and matplotlib carry, as the network takes them."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import EngineMissing

Array = npt.NDArray[Any]
SHORT_SIDE, SIDE = 256, 224

# package, file, what a person sees
_FILES = (
    ("skimage", "data/chelsea.png", "a cat"),
    ("skimage", "data/coffee.png", "a cup of coffee"),
    ("skimage", "data/rocket.jpg", "a rocket"),
    ("skimage", "data/motorcycle_left.png", "a motorcycle"),
    ("skimage", "data/astronaut.png", "an astronaut"),
    ("skimage", "data/camera.png", "a man with a camera"),
    ("sklearn", "datasets/images/china.jpg", "a Chinese palace"),
    ("sklearn", "datasets/images/flower.jpg", "a flower"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "Grace Hopper"),
)


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph: its name, what it shows, the square the network sees, and that as an array (3, 224, 224)."""

    name: str
    shows: str
    square: Image.Image
    pixels: Array


def photos() -> list[Photo]:
    """All photographs.

    Raises:
        EngineMissing: a package that carries one is not installed.
    """
    return [_photo(package, file, shows) for package, file, shows in _FILES]


def _photo(package: str, file: str, shows: str) -> Photo:
    spec = importlib.util.find_spec(package)  # not imported: only its files are needed
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    if path is None or not path.is_file():
        raise EngineMissing(f"{package} with its {file} is not installed; pip install 'mxtrt[demo]'")
    with Image.open(path) as image:
        square = _centre(image.convert("RGB"))
    pixels = (np.asarray(square, np.float32) - 127) / 128  # as the network was trained
    return Photo(path.stem.removesuffix("_left"), shows, square, np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _centre(image: Image.Image) -> Image.Image:
    scale = SHORT_SIDE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return image.crop((left, top, left + SIDE, top + SIDE))


@functools.cache
def class_names() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, as GluonCV has them (Apache License 2.0)."""
    return tuple(resources.files(__package__).joinpath("imagenet_classes.txt").read_text("utf-8").splitlines())
