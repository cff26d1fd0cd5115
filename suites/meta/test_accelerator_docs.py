"""docs/drop-in.md and the example scripts do what they say: every snippet runs, and gives MXNet's numbers."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.frontend import compat

pytestmark = pytest.mark.mxnet

HOME = Path(__file__).parents[2]
PAGE = HOME / "docs" / "drop-in.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def names(tmp_path: Path) -> dict[str, Any]:
    """What the snippets take for granted: a network as Gluon block, symbol and checkpoint, and an input."""
    mx = compat.mxnet()
    mx.random.seed(3)
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(8, 3), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Activation("relu"), mx.gluon.nn.Dense(4))
    net.initialize(mx.init.Xavier())
    x = mx.nd.random.uniform(-1, 1, (1, 3, 32, 32))
    net.hybridize()
    expected = net(x).asnumpy()
    prefix = str(tmp_path / "net")
    net.export(prefix)
    symbol, args, aux = mx.model.load_checkpoint(prefix, 0)
    return {
        "mx": mx, "net": net, "x": x, "symbol": symbol, "args": args, "aux": aux, "prefix": prefix, "expected": expected,
    }  # fmt: skip


@pytest.mark.parametrize("number", range(len(SNIPPETS)), ids=lambda n: f"{n}: {SNIPPETS[n][:30]}")
def test_snippet(number: int, names: dict[str, Any]) -> None:
    exec(SNIPPETS[0], names)  # the import, once in the program
    expected = names.pop("expected")
    exec(SNIPPETS[number], names)
    if number == 0:
        assert names["harness"].accelerator.BACKENDS == ("TensorRT", "mxtrt")
        return
    assert "backend" in SNIPPETS[number] or '"TensorRT"' in SNIPPETS[number]
    limit = 1e-2 if "fp16" in SNIPPETS[number] else 1e-5
    np.testing.assert_allclose(names["scores"].asnumpy(), expected, rtol=limit, atol=limit * abs(expected).max())
    from harness.accelerator import clear, segment

    assert any(node.engines for node in segment._nodes.values()), "no segment has run"
    clear()


def test_the_table_of_options() -> None:
    from harness.accelerator import OPTIONS

    rows = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in OPTIONS.items())
    table = f"<!-- options -->\n| option | meaning |\n|---|---|\n{rows}<!-- /options -->"
    assert table in PAGE.read_text("utf-8"), f"paste this into {PAGE}:\n{table}"


@pytest.mark.parametrize("name", ["insightface_style", "gluoncv_style"])
def test_example(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The changed line changes what is printed by a unit of the last digit at most, and takes the network to a segment."""
    from harness.accelerator import clear, segment

    printed = []
    for arguments in ([], ["--fast"]):
        clear()
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(HOME / "examples" / f"{name}.py"), run_name="__main__")
        printed.append(re.findall(r"-?\d+\.\d+|\d+", capsys.readouterr().out))
        assert any(node.engines for node in segment._nodes.values()) is bool(arguments)
    assert printed[0] and len(printed[0]) == len(printed[1])
    np.testing.assert_allclose(np.array(printed[0], np.float64), np.array(printed[1], np.float64), rtol=0, atol=2e-5)
    clear()
