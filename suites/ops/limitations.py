"""What is known not to work, as data: the checks leave it out, the documentation lists it, and a witness guards it.

A limitation whose witness passes has been fixed: the suite then fails until it is removed here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.engines.base import get_engine

from .case import Case, Tensor

EFFECTS = ("UNSUPPORTED", "LOOSE", "DIFFERENT")


@dataclass(frozen=True)
class Limitation:
    """One thing that does not work.

    Attributes:
        operators: the canonical names of the operators it concerns.
        reason: why, in a sentence that a user understands.
        effect: UNSUPPORTED (the compiler refuses: the node stays in MXNet), LOOSE (the answer is MXNet's, but not
            within the error model), DIFFERENT (the answer is another one).
        matches: whether a case is concerned.
        witness: a case that fails because of it.
        engines: the engines it concerns; () is all.
        precisions: the precisions it concerns; () is all.
        stable: False where MXNet's answer is memory that nobody wrote, which may happen to be right.
        before: of ONNX Runtime, the first version that it does not concern.
    """

    operators: tuple[str, ...]
    reason: str
    effect: str
    matches: Callable[[Case], bool]
    witness: Case
    engines: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    stable: bool = True
    before: tuple[int, int] | None = None

    @property
    def is_here(self) -> bool:
        """Whether it concerns the version that is installed."""
        return self.before is None or _release() < self.before

    def concerns(self, case: Case, engine: str, precision: str) -> bool:
        """Whether a case on an engine in a precision is concerned."""
        return (
            case.operator in self.operators
            and (not self.engines or engine in self.engines)
            and (not self.precisions or precision in self.precisions)
            and self.is_here
            and self.matches(case)
        )


def _release() -> tuple[int, ...]:
    engine: Any = get_engine("onnxruntime")
    return tuple(engine.release)


HALF_MAX = float(np.finfo(np.float16).max)
HALF_LEAST = float(np.finfo(np.float16).smallest_subnormal) / 2
FACTORIZED = (
    "_linalg_det", "_linalg_slogdet", "_linalg_inverse", "_linalg_potrf", "_linalg_potri", "_linalg_trsm",
    "_npi_cholesky", "_npi_solve",
)  # fmt: skip


def _rows(case: Case) -> int:
    return next(iter(case.inputs.values())).shape[-1]


def _is_below_half(case: Case) -> bool:
    """Whether a number that is not 0 is 0 in float16."""
    arrays = (tensor.values for tensor in case.inputs.values() if isinstance(tensor.values, np.ndarray))
    return any(bool(((array != 0) & (np.abs(array) < HALF_LEAST)).any()) for array in arrays)


def _is_singular(case: Case) -> bool:
    values = case.inputs["A"].values
    return isinstance(values, np.ndarray) and bool((np.linalg.det(values.astype(np.float64)) == 0).any())


def _has_nan(case: Case) -> bool:
    values = [tensor.values for tensor in case.inputs.values() if tensor.values is not None]
    return any(bool(np.isnan(np.asarray(v, np.float64)).any()) for v in values)


def _is_out_of_bounds(case: Case) -> bool:
    """Whether a take(mode=raise) has written-out indices below 0."""
    values = case.inputs["indices"].values
    return case.attributes.get("mode") == "raise" and values is not None and bool((np.asarray(values) < 0).any())


def _is_indefinite(case: Case) -> bool:
    values = case.inputs["A"].values
    return isinstance(values, np.ndarray) and bool((np.linalg.eigvalsh(values.astype(np.float64)) <= 0).any())


def _is_near_a_pole(case: Case) -> bool:
    """Whether a negative number rounds to a whole one in bfloat16."""
    (x,) = (np.asarray(array, np.float64) for array in case.arrays().values())
    return bool(((x < 0) & (np.abs(x - np.rint(x)) <= np.abs(x) * 2.0**-8)).any())


def _scores(count: int) -> np.ndarray:
    """Different ones, in an order without a pattern."""
    return np.random.default_rng(0).permutation(count) / count


def _is_masked(case: Case) -> bool:
    """Whether written-out regions have a negative image."""
    values = case.inputs["rois"].values
    return isinstance(values, np.ndarray) and bool((values[:, 0] <= -1).any())


def _leaves_half(case: Case) -> bool:
    """Whether a written-out float32 number is finite and too large for float16."""
    values = [t.values for t in case.inputs.values() if t.values is not None and t.dtype == "float32"]
    return any(bool((np.isfinite(v) & (np.abs(v) > HALF_MAX)).any()) for v in map(np.asarray, values))


def _has_infinity_for_the_limit(case: Case) -> bool:
    """Whether a nan_to_num of float32 replaces an infinity by its type's limit."""
    (x,) = case.arrays().values()
    signs = [sign for name, sign in (("posinf", 1), ("neginf", -1)) if case.attributes.get(name, "None") == "None"]
    return x.dtype == np.float32 and any(bool((x == sign * np.inf).any()) for sign in signs)


LIMITATIONS = [
    Limitation(
        ("gamma", "gammaln"),
        "close to a pole (0, -1, -2 ...) in 16 bits: a number that rounds to the pole gives the pole's answer",
        "LOOSE",
        _is_near_a_pole,
        Case("gamma", {}, {"data": Tensor((1,), values=np.array([-5.01]))}),
        precisions=("bf16", "fp16"),
    ),
    Limitation(
        ("_npi_nan_to_num",),
        "in float16 an infinity becomes float16's largest number, 65504, where MXNet gives float32's",
        "LOOSE",
        _has_infinity_for_the_limit,
        Case(
            "_npi_nan_to_num",
            {},
            {"data": Tensor((2,), values=np.array([np.inf, 1.0]))},
            reference_dtype="float32",
            np_shape=True,
        ),
        precisions=("fp16",),
    ),
    Limitation(
        ("max", "min", "_np_max", "_np_min"),
        "the largest or smallest of numbers with a NaN among them is NaN in MXNet; engines skip a NaN that does not come "
        "first. To look for it, all data would be read again, by models without NaN too: check with all_finite",
        "DIFFERENT",
        _has_nan,
        Case("max", {"axis": "1"}, {"data": Tensor((1, 3), values=np.array([[1.0, np.nan, 3.0]]))}),
    ),
    Limitation(
        ("argmax", "argmin", "argmax_channel", "_npi_argmax", "_npi_argmin"),
        "the position of the largest or smallest of numbers with a NaN among them is that of the NaN in MXNet; "
        "engines skip a NaN that does not come first. To look for it, all data would be read again, by models without "
        "NaN too: check with all_finite",
        "DIFFERENT",
        _has_nan,
        Case("argmax", {"axis": "1"}, {"data": Tensor((1, 3), values=np.array([[1.0, np.nan, 3.0]]))}),
    ),
    Limitation(
        (
            "relu",
            "_npx_relu",
            "hard_sigmoid",
            "Activation",
            "_maximum",
            "_minimum",
            "broadcast_maximum",
            "broadcast_minimum",
            "_maximum_scalar",
            "_minimum_scalar",
        ),
        "the larger or smaller of a number and NaN is NaN in MXNet, and so are relu and hard_sigmoid of NaN; TensorRT 10.6 "
        "gives the number, 0, and 0 or 1 (measured; its strict_nans option changes none): check with all_finite",
        "DIFFERENT",
        lambda case: _has_nan(case) and case.attributes.get("act_type", "relu") == "relu",
        Case("relu", {}, {"data": Tensor((1, 3), values=np.array([[1.0, np.nan, 3.0]]))}),
        engines=("tensorrt",),
    ),
    Limitation(
        ("multi_sum_sq",),
        "the squares of float16 are summed in float32, as on MXNet's GPU; its CPU rounds each of them to float16",
        "LOOSE",
        lambda case: any(tensor.dtype == "float16" for tensor in case.inputs.values()),
        Case(
            "multi_sum_sq",
            {"num_arrays": "1"},
            {"data_0": Tensor((5,), "float16")},
            seed=300,
            terms=5,
            reference_dtype="float32",
        ),
    ),
    Limitation(
        ("_contrib_allclose",),
        "in float16 what is below 3e-8 is 0, and the default tolerance of 1e-8 is 6e-8: gaps between are told wrong",
        "DIFFERENT",
        _is_below_half,
        Case(
            "_contrib_allclose",
            {},
            {"a": Tensor((2,), values=np.zeros(2)), "b": Tensor((2,), values=np.array([0.0, 1.1e-8]))},
        ),
        precisions=("fp16",),
    ),
    Limitation(
        ("softsign", "log1p", "_npi_log1p"),
        "a number above 65504 is infinite in fp16: where MXNet's answer is finite, that of infinity is given",
        "DIFFERENT",
        _leaves_half,
        Case("softsign", {}, {"data": Tensor((1,), values=np.array([1e6], np.float32))}),
        engines=("tensorrt",),
        precisions=("fp16",),
    ),
    Limitation(
        ("_contrib_ROIAlign",),
        "a region of a negative image is 0, as on MXNet's GPU; its CPU leaves the region unwritten, and sets a number of "
        "another one to 0",
        "DIFFERENT",
        _is_masked,
        Case(
            "_contrib_ROIAlign",
            {"pooled_size": "(2, 2)", "spatial_scale": "1.0", "sample_ratio": "2"},
            {
                "data": Tensor((1, 3, 8, 8)),
                "rois": Tensor((2, 5), values=np.array([[0, 1, 1, 5, 5], [-1, -1, -1, -1, -1]])),
            },
        ),
        stable=False,
    ),
    Limitation(
        ("_contrib_Proposal", "_contrib_MultiProposal"),
        "in 16 bits a corner close to 0 is the difference of rounded numbers far from it, and a region may pass or fail "
        "where it would not: keep what finds regions in float32 (fallback, or a model of its own)",
        "LOOSE",
        lambda case: True,
        Case(
            "_contrib_Proposal",
            {
                "rpn_pre_nms_top_n": "0",
                "rpn_post_nms_top_n": "8",
                "rpn_min_size": "9",
                "scales": "(1,)",
                "ratios": "(0.5, 2)",
                "feature_stride": "8",
                "output_score": "True",
            },
            {
                "cls_prob": Tensor((1, 4, 3, 1), values=_scores(12).reshape(1, 4, 3, 1)),
                "bbox_pred": Tensor((1, 8, 3, 1), low=-0.3, high=0.3),
                "im_info": Tensor((1, 3), values=np.array([[27, 13, 0.5]])),
            },
            reference_dtype="float32",
            outputs=2,
        ),
        precisions=("bf16", "fp16"),
    ),
    Limitation(
        ("take",),
        "mode=raise: MXNet raises an error on an index out of bounds; a compiled model whose indices are inputs counts "
        "negative ones from the end, and what others give depends on the engine",
        "DIFFERENT",
        _is_out_of_bounds,
        Case(
            "take",
            {"mode": "raise"},
            {"a": Tensor((3, 2)), "indices": Tensor((1,), "int32", values=np.array([-1]))},
        ),
    ),
    Limitation(
        FACTORIZED,
        "factorizations of matrices with more than 16 rows are not written out as ONNX",
        "UNSUPPORTED",
        lambda case: _rows(case) > 16,
        Case("_linalg_inverse", {}, {"A": Tensor((17, 17), values=np.eye(17))}),
    ),
    Limitation(
        ("_linalg_det", "_linalg_slogdet"),
        "the determinant of a matrix without rows is 0 in MXNet and 1 in mathematics",
        "UNSUPPORTED",
        lambda case: 0 in case.inputs["A"].shape,
        Case("_linalg_det", {}, {"A": Tensor((0, 0))}, np_shape=True),
    ),
    Limitation(
        ("_linalg_potrf", "_npi_cholesky"),
        "MXNet raises an error on a matrix that is not positive definite; the compiled model answers with NaN",
        "DIFFERENT",
        _is_indefinite,
        Case("_linalg_potrf", {}, {"A": Tensor((2, 2), values=-np.eye(2))}),
    ),
    Limitation(
        ("_linalg_inverse", "_npi_solve"),
        "MXNet raises an error on the inverse of a singular matrix; the compiled model answers with NaN or infinity",
        "DIFFERENT",
        _is_singular,
        Case("_linalg_inverse", {}, {"A": Tensor((2, 2), values=np.ones((2, 2)))}),
    ),
]


def all_limitations() -> list[Limitation]:
    """Those of this module, and the lists ``LIMITATIONS`` of the families' modules."""
    package = importlib.import_module(__package__)
    found: list[Limitation] = []
    for item in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        if not item.name.startswith("test_"):
            module = importlib.import_module(f"{__package__}.{item.name}")
            found += [limit for limit in getattr(module, "LIMITATIONS", []) if limit not in found]
    return found


def limitation_of(case: Case, engine: str, precision: str) -> Limitation | None:
    """The first limitation that concerns a case."""
    return next((limit for limit in all_limitations() if limit.concerns(case, engine, precision)), None)
