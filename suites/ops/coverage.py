"""Which attribute values the generated cases take, of those that MXNet's schema offers.

``python -m suites.ops.coverage`` prints what is missing.
"""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.operators import registry
from harness.operators.schema import AttributeType, parse, schemas

from .case import DEFAULT, Case, Spec, all_specs

NOT_COUNTED = ("ctx", "num_args", "name", "__profiler_scope__")
PER_VALUE = 3  # how many cases the quick suite runs of each value of an attribute
NOT_IN_NUMPY = "bfloat16"  # MXNet 1.9.1 cannot turn its bfloat16 arrays into anything that could be compared


@dataclass(frozen=True)
class Uncovered:
    """Attribute values that no case takes, and why that is right.

    Attributes:
        operators: canonical names.
        attribute: the attribute.
        values: the enum values or booleans that are missing; () means that fewer than two numbers are seen.
        reason: why.
    """

    operators: tuple[str, ...]
    attribute: str
    values: tuple[Any, ...]
    reason: str


_CONTROL = "it describes the subgraphs; suites/ops/test_control.py draws whole loops"

UNCOVERED = [
    *(
        Uncovered((operator,), attribute, (), _CONTROL)
        for operator in ("_foreach", "_while_loop", "_cond")
        for attribute in schemas()[operator].attributes
        if attribute not in NOT_COUNTED
    ),
    Uncovered(
        ("_contrib_DeformableConvolution", "_contrib_ModulatedDeformableConvolution"),
        "layout",
        ("NCW", "NCDHW"),
        "MXNet has it for images only",
    ),
    *(
        Uncovered((operator,), "initial", (), "MXNet refuses it, and so does the lowering")
        for operator in ("_np_max", "_np_min", "_np_prod", "_np_sum", "_npi_mean")
    ),
    Uncovered(("_arange", "_npi_arange"), "infer_range", (True,), "refused: the length would follow from the reader"),
    Uncovered(
        ("_contrib_quantized_act",),
        "act_type",
        ("sigmoid", "softrelu", "softsign", "tanh"),
        "refused: MXNet quantizes relu alone",
    ),
    Uncovered(("_contrib_quantized_conv",), "layout", ("NCW", "NHWC", "NDHWC"), "refused, by MXNet too"),
    Uncovered(("_contrib_quantized_conv",), "num_group", (), "refused, by MXNet too"),
    Uncovered(("_contrib_quantized_pooling",), "layout", ("NCW", "NWC", "NHWC", "NDHWC"), "refused, by MXNet too"),
    Uncovered(("_contrib_quantized_pooling",), "pool_type", ("lp", "sum"), "refused, by MXNet too"),
    Uncovered(("_contrib_quantized_pooling",), "p_value", (), "of lp alone, which is refused, by MXNet too"),
    Uncovered(("_contrib_quantized_pooling",), "pooling_convention", ("same",), "refused, by MXNet too"),
    Uncovered(
        ("_npi_dsplit",), "axis", (), "np.dsplit writes 2; with another number MXNet writes outside of its outputs"
    ),
    Uncovered(("_npi_pad",), "reflect_type", (), "even alone: odd is refused"),
    Uncovered(
        ("Convolution_v1",), "layout", ("NCDHW", "NCHW", "NDHWC", "NHWC"), "MXNet runs images, channels first, alone"
    ),
    Uncovered(("_rnn_param_concat",), "dim", (), "parameters of recurrent layers are vectors: 0 alone"),
    Uncovered(("Pooling",), "pooling_convention", ("same",), "refused, with a reason"),
    Uncovered(("RNN",), "lstm_state_clip_min", (), "refused, with a reason"),
    Uncovered(("RNN",), "lstm_state_clip_max", (), "refused, with a reason"),
    Uncovered(("SequenceReverse",), "axis", (), "refused, by MXNet too"),
    Uncovered(("_contrib_SparseEmbedding",), "dtype", ("int64", "int8"), "MXNet does not take them"),
    Uncovered(
        ("_contrib_SyncBatchNorm",), "output_mean_var", (True,), "refused, with a reason: MXNet leaves them undefined"
    ),
    *(
        Uncovered((operator,), "dtype", ("bool",), "refused, with a reason: cast the output instead")
        for operator in ("_np_prod", "_np_sum")
    ),
    Uncovered(("_npi_arange",), "repeat", (), "refused, by MXNet too"),
    Uncovered(
        ("_npi_blackman", "_npi_hamming", "_npi_hanning"),
        "dtype",
        ("float64",),
        "refused: MXNet's last digits are not defined",
    ),
    Uncovered(
        ("_npi_mean",), "dtype", ("bool", "int32", "int64", "int8"), "refused, with a reason: cast the output instead"
    ),
    Uncovered(("_npi_std", "_npi_var"), "dtype", ("int32", "int64", "int8"), "refused, with a reason"),
    Uncovered(("all_finite",), "data", (), "an input that MXNet's registry lists as an attribute"),
    Uncovered(("all_finite",), "init_output", (False,), "refused, with a reason"),
    Uncovered(("log_softmax",), "use_length", (True,), "refused, by MXNet too"),
    Uncovered(("multi_all_finite",), "init_output", (False,), "refused, with a reason"),
    Uncovered(("norm",), "out_dtype", ("int32", "int64", "int8"), "of integers, which are refused"),
    Uncovered(("softmin",), "use_length", (True,), "refused, by MXNet too"),
]


def all_uncovered() -> list[Uncovered]:
    """Those of this module, and the lists ``UNCOVERED`` of the families' modules."""
    package = importlib.import_module(__package__)
    found = list(UNCOVERED)
    for item in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        if not item.name.startswith("test_") and item.name != "coverage":
            found += getattr(importlib.import_module(f"{__package__}.{item.name}"), "UNCOVERED", [])
    return found


def drawn(strategy: st.SearchStrategy[Case], count: int, seed: int | None = None) -> list[Case]:
    """Cases from a strategy: the same ones every time, or those of a seed."""
    found: list[Case] = []

    @settings(
        max_examples=count,
        phases=(Phase.generate,),
        derandomize=seed is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(case: Case) -> None:
        found.append(case)

    if seed is not None:
        collect = hypothesis.seed(seed)(collect)
    collect()
    return found


def seed_of(spec: Spec, *what: Any) -> int:
    """A seed for the tests of a spec: operators that are drawn alike see different cases, the same ones every time."""
    return zlib.crc32(
        repr((spec.operator, list(spec.attributes), ["DEFAULT" if x is DEFAULT else x for x in what])).encode()
    )


def suite_cases(spec: Spec) -> list[tuple[Case, bool]]:
    """What suites/ops/test_operators.py draws from a spec, each with whether its sizes vary."""
    found = [(case, False) for case in drawn(spec.cases(), spec.examples, seed_of(spec))]
    found += [
        (case, False) for pair in spec.pairs() for case in drawn(spec.cases(pair), PER_VALUE, seed_of(spec, *pair))
    ]
    varying = drawn(spec.cases(), spec.varying, seed_of(spec, "varying"))
    for pair in spec.pairs():
        varying += drawn(spec.cases(pair), 1, seed_of(spec, *pair, "varying"))
    return found + [(case, True) for case in varying if any(tensor.dynamic for tensor in case.inputs.values())]


def cases_of(spec: Spec, per_value: int = PER_VALUE, free: int | None = None, seed: int | None = None) -> list[Case]:
    """What the quick suite runs of one spec: some cases of each attribute value, and some with everything drawn."""
    found: list[Case] = []
    for number, pair in enumerate(spec.pairs()):
        found += drawn(spec.cases(pair), per_value, None if seed is None else seed * 1000 + number)
    return found + drawn(spec.cases(), free or spec.examples, seed)


def missing(operator: str, cases: list[Case]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each attribute of an operator with values that no case takes; () stands for a second number."""
    definition = registry.definitions()[operator]
    for name, kind in schemas()[operator].attributes.items():
        if name in NOT_COUNTED or name in definition.ignore or name in schemas()[operator].inputs:
            continue
        seen = {_seen(kind, case.attributes.get(name)) for case in cases}
        wanted: tuple[Any, ...] = kind.choices or ((False, True) if kind.kind == "boolean" else ())
        lacking = tuple(value for value in wanted if value not in seen and value != NOT_IN_NUMPY)
        if lacking:
            yield name, lacking
        elif not wanted and len(seen) < 2:
            yield name, ()


def _seen(kind: AttributeType, text: str | None) -> Any:
    value = kind.default if text is None else parse(kind, text)
    return value if isinstance(value, (str, bool)) else repr(value)


def gaps() -> dict[str, list[tuple[str, tuple[Any, ...]]]]:
    """Lowered operator -> its attributes with values that no case takes and no :class:`Uncovered` explains."""
    by_operator: dict[str, list[Case]] = {}
    for spec in all_specs():
        by_operator.setdefault(spec.operator, []).extend(cases_of(spec, per_value=1, free=20))
    explained = {(name, item.attribute): item for item in all_uncovered() for name in item.operators}
    found: dict[str, list[tuple[str, tuple[Any, ...]]]] = {}
    for operator in registry.definitions():
        for attribute, values in missing(operator, by_operator.get(operator, [])):
            known = explained.get((operator, attribute))
            left = tuple(value for value in values if known is None or value not in known.values)
            if left or (not values and known is None):
                found.setdefault(operator, []).append((attribute, left))
    return found


def counts() -> tuple[int, int]:
    """How many attribute values (a number counts as two) are seen, and how many there are."""
    left = sum(len(values) or 1 for entries in gaps().values() for _, values in entries)
    total = 0
    for operator, definition in registry.definitions().items():
        for name, kind in schemas()[operator].attributes.items():
            if name not in NOT_COUNTED and name not in definition.ignore:
                total += len(kind.choices) or 2
    return total - left, total


def main() -> None:
    """Print what is missing."""
    found = gaps()
    for operator, entries in sorted(found.items()):
        for attribute, values in entries:
            print(f"{operator}.{attribute}: {', '.join(map(str, values)) or 'fewer than two values'}")
    left = sum(len(values) or 1 for entries in found.values() for _, values in entries)
    print(f"{left} attribute values of {len(registry.definitions())} lowered operators are not seen")


if __name__ == "__main__":
    main()
