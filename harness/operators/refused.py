"""Operators that no engine can run, each with the reason; MXNet runs them where a fallback is allowed."""

from __future__ import annotations

from .registry import refuse
from .schema import schemas

_RANDOM = [
    *(name for name in schemas() if name.startswith(("_random_", "_sample_")) and "_pdf_" not in name),
    "_npi_bernoulli", "_npi_choice", "_npi_exponential", "_npi_gamma", "_npi_gumbel",
    "_npi_logistic", "_npi_multinomial", "_npi_normal", "_npi_normal_n", "_npi_pareto",
    "_npi_powerd", "_npi_rayleigh", "_npi_uniform", "_npi_uniform_n", "_npi_weibull",
    "_shuffle",
]  # fmt: skip
_OPTIMIZERS = [
    *(name for name in schemas() if name.endswith("_update") and not name.startswith("_sparse")),
    *(name for name in schemas() if "lamb_update" in name and not name.endswith("_update")),
    "multi_lars",
    "reset_arrays",
]
_SPARSE = [
    *(name for name in schemas() if name.startswith(("_sparse_", "_contrib_dgl_"))),
    "cast_storage",
    "_square_sum",
    "_contrib_edge_id",
    "_contrib_getnnz",
]
_OUTSIDE = {
    "Custom": "runs Python code of the model's author",
    "_CachedOp": "stands for a compiled graph inside a MXNet process, which a model does not hold",
    "_CachedOpThreadSafe": "stands for a compiled graph inside a MXNet process, which a model does not hold",
    "_CustomFunction": "runs Python code of the model's author",
    "_Native": "runs code that is only known by its address in another process",
    "_NDArray": "runs code that is only known by its address in another process",
    "_NoGradient": "only marks gradients and has no answer",
    "_CrossDeviceCopy": "only appears inside MXNet's executor, between devices",
    "_copyto": "writes to an array of the caller; save the model with its outputs instead",
}
_SPECIAL = {
    "CTCLoss": "a loss of training: a recursion over all alignments of labels, which ONNX has no operator for; "
    "cut the model at the activations that it reads",
    "_npi_lcm": "ONNX has no greatest common divisor",
    "_npi_lcm_scalar": "ONNX has no greatest common divisor",
    "_npi_copysign_scalar": "MXNet 1.9.1 cannot run it in a graph: its number of inputs is registered wrongly",
    "_npi_rcopysign_scalar": "MXNet 1.9.1 cannot run it in a graph: its number of inputs is registered wrongly",
    "_npi_norm": "needs singular values (its order and axes are not stored in a model); use norm",
}

refuse("draws random numbers: its answer cannot be reproduced outside MXNet", *dict.fromkeys(_RANDOM))
refuse("is a step of training: it updates parameters", *dict.fromkeys(_OPTIMIZERS))
refuse("works on sparse storage, which ONNX does not have; store the array densely", *dict.fromkeys(_SPARSE))
for _name, _reason in {**_OUTSIDE, **_SPECIAL}.items():
    refuse(_reason, _name)
