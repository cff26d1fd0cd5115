"""Each limitation is still there: its witness fails. One that passes has been fixed, and fails the suite."""

from __future__ import annotations

import pytest

from harness.engines.base import get_engine
from harness.errors import EngineMissing, HarnessError
from harness.operators.schema import schemas

from .check import check, compiled
from .limitations import EFFECTS, Limitation, all_limitations
from .reference import MXNetRefuses

LIMITATIONS = all_limitations()
FAILURES: dict[str, tuple[type[Exception], ...]] = {
    "UNSUPPORTED": (HarnessError,), "LOOSE": (AssertionError,), "DIFFERENT": (AssertionError, MXNetRefuses),
}  # fmt: skip


def _marked(limit: Limitation) -> object:
    raises = FAILURES[limit.effect] if limit.stable else (*FAILURES[limit.effect], RuntimeWarning)  # of garbage
    mark = pytest.mark.xfail(strict=limit.stable, raises=raises, reason=limit.reason)
    on_gpu = () if limit.engines in ((), ("onnxruntime",)) else (pytest.mark.gpu,)
    return pytest.param(limit, marks=(mark, *on_gpu))


@pytest.mark.parametrize("limit", [_marked(limit) for limit in LIMITATIONS], ids=range(len(LIMITATIONS)))
def test_witness(limit: Limitation) -> None:
    engine, precision = (limit.engines or ("onnxruntime",))[0], (limit.precisions or ("fp32",))[0]
    if not limit.is_here:
        pytest.skip(f"of ONNX Runtime before {limit.before}")
    try:
        get_engine(engine)
    except EngineMissing as error:
        pytest.skip(str(error))
    if limit.effect == "UNSUPPORTED":  # refused before MXNet is asked, some of whose answers here nobody wrote
        compiled(limit.witness, limit.witness.arrays(), engine, precision)
    check(limit.witness, engine, precision, limited=False)


@pytest.mark.parametrize("limit", LIMITATIONS, ids=range(len(LIMITATIONS)))
def test_limitation_is_complete(limit: Limitation) -> None:
    assert limit.effect in EFFECTS
    assert limit.reason.strip()
    assert set(limit.operators) <= set(schemas())
    engine, precision = (limit.engines or ("onnxruntime",))[0], (limit.precisions or ("fp32",))[0]
    assert limit.concerns(limit.witness, engine, precision) == limit.is_here
    assert limit.before is None or limit.engines == ("onnxruntime",)
