"""An operator of one's own: NumPy on the CPU, a CUDA kernel on the GPU, for a Custom operator of an MXNet model.

    python examples/plugin.py                      # ONNX Runtime; the operator is a part of its own, run by NumPy
    python examples/plugin.py --engine tensorrt    # the kernel is a layer of TensorRT's network

MXNet is not needed: the model is its JSON. NVRTC compiles the kernel (``pip install nvidia-cuda-nvrtc-cu12``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness.engines.memory import Kernel

KERNEL = Kernel(
    """
    extern "C" __global__ void capped_swish(const float* x, float* y, float beta, float cap, int count) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < count) y[i] = fminf(x[i] / (1.0f + expf(-beta * x[i])), cap);
    }
    """,
    "capped_swish",
)


@harness.plugin("Custom", op_type="capped_swish", attributes={"beta": 1.0, "cap": float}, version="1")
class CappedSwish:
    """min(x * sigmoid(beta * x), cap)."""

    def infer(self, attributes: dict[str, Any], x: Any) -> Any:
        """The output has the input's type and shape."""
        return x

    def numpy(self, attributes: dict[str, Any], x: np.ndarray) -> np.ndarray:
        """On the CPU."""
        beta, cap = np.float32(attributes["beta"]), np.float32(attributes["cap"])
        return np.minimum(x / (1 + np.exp(-beta * x)), cap)

    def cuda(self, attributes: dict[str, Any], inputs: list, outputs: list, stream: int, workspace: int) -> None:
        """On the GPU: enqueue, and do not wait."""
        count = int(np.prod(inputs[0].shape))
        beta, cap = np.float32(attributes["beta"]), np.float32(attributes["cap"])
        if count:
            KERNEL((count + 255) // 256, 256, stream, inputs[0], outputs[0], beta, cap, np.int32(count))


def write_model(folder: Path) -> tuple[str, dict[str, np.ndarray]]:
    """data -> FullyConnected -> Custom, as MXNet writes it; and its parameters."""
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "null", "name": "fc_weight", "inputs": []},
        {"op": "null", "name": "fc_bias", "inputs": []},
        {
            "op": "FullyConnected",
            "name": "fc",
            "attrs": {"num_hidden": "4"},
            "inputs": [[0, 0, 0], [1, 0, 0], [2, 0, 0]],
        },
        {
            "op": "Custom",
            "name": "swish",
            "attrs": {"op_type": "capped_swish", "cap": "0.75"},
            "inputs": [[3, 0, 0]],
        },
    ]
    document = {
        "nodes": nodes,
        "arg_nodes": [0, 1, 2],
        "heads": [[4, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }
    path = folder / "net-symbol.json"
    path.write_text(json.dumps(document))
    draw = np.random.default_rng(0).standard_normal
    return str(path), {"fc_weight": draw((4, 3)).astype(np.float32), "fc_bias": draw(4).astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="auto")
    engine = parser.parse_args().engine
    with tempfile.TemporaryDirectory() as folder:
        path, params = write_model(Path(folder))
        model = harness.compile(path, params, {"data": ((1, 2, 8), 3)}, engine=engine, fallback="error")
    print(model.explain())
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    (found,) = model(data=x)
    wanted = CappedSwish().numpy({"beta": 1.0, "cap": 0.75}, x @ params["fc_weight"].T + params["fc_bias"])
    print(f"largest difference from NumPy: {np.abs(found - wanted).max():.2g}")


if __name__ == "__main__":
    main()
