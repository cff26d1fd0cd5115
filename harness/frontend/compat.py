"""Importing MXNet 1.9.1, which was written for NumPy below 1.24, on NumPy 1.26."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import warnings
from types import ModuleType

import numpy as np

from ..errors import EngineMissing

# NumPy 1.24 removed these names; MXNet's import needs the first, mxnet.test_utils and GluonCV the others (mxnet#21165).
_REMOVED_NAMES = {"bool": bool, "int": int, "float": float, "object": object}


def available() -> bool:
    """Whether MXNet is installed beside a NumPy that it can run on; imports nothing."""
    return int(np.__version__.split(".")[0]) < 2 and importlib.util.find_spec("mxnet") is not None


@functools.cache
def mxnet() -> ModuleType:
    """The module ``mxnet``, imported with the shim it needs.

    Raises:
        EngineMissing: MXNet is not installed, or cannot be imported.
    """
    if int(np.__version__.split(".")[0]) >= 2 and "mxnet" not in sys.modules:
        raise EngineMissing(f"MXNet needs NumPy below 2, and {np.__version__} is installed; pip install 'mxtrt[mxnet]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in _REMOVED_NAMES.items():
            if name not in vars(np):
                setattr(np, name, value)
        try:
            return importlib.import_module("mxnet")
        except (ImportError, OSError, AttributeError) as error:
            raise EngineMissing(f"MXNet cannot be imported ({error}); pip install 'mxtrt[mxnet]'") from error
