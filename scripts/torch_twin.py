"""An MXNet graph as a PyTorch module with the same parameters: the peer for speed comparisons."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from harness.graph import Graph


def _tuple(text: str | None, default: tuple[int, ...]) -> tuple[int, ...]:
    value = ast.literal_eval(text) if text else ()
    return tuple(value) or default


def _flag(text: str | None, default: bool) -> bool:
    return default if text is None else text in ("True", "1", "true")


class Twin(torch.nn.Module):
    """Runs the operators of Gluon's zoo as PyTorch's own functions; a parameter is a buffer of the module."""

    def __init__(self, graph: Graph, params: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.plan: list[tuple[int, str, tuple[int, ...], dict[str, Any]]] = []
        self.names: dict[int, str] = {}
        for index, node in enumerate(graph.nodes):
            if node.is_variable:
                if node.name in params:
                    self.names[index] = f"p{index}"
                    self.register_buffer(f"p{index}", torch.from_numpy(np.array(params[node.name])))
                continue
            self.plan.append((index, node.operator, tuple(e.node for e in node.inputs), dict(node.attributes)))
        self.data = next(i for i, n in enumerate(graph.nodes) if n.is_variable and n.name not in params)
        self.head = graph.heads[0].node
        self._fix_gamma()

    def _fix_gamma(self) -> None:
        for _, operator, inputs, attributes in self.plan:
            if operator == "BatchNorm" and _flag(attributes.get("fix_gamma"), True):
                getattr(self, self.names[inputs[1]]).fill_(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: dict[int, torch.Tensor] = {self.data: x}
        for index, name in self.names.items():
            values[index] = getattr(self, name)
        for index, operator, inputs, attributes in self.plan:
            values[index] = getattr(self, f"_{operator}")([values[i] for i in inputs], attributes)
        return values[self.head]

    def _Convolution(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        bias = v[2] if len(v) > 2 else None
        stride, pad, dilate = (
            _tuple(a.get(k), d) for k, d in (("stride", (1, 1)), ("pad", (0, 0)), ("dilate", (1, 1)))
        )
        return functional.conv2d(v[0], v[1], bias, stride, pad, dilate, int(a.get("num_group", 1)))

    def _BatchNorm(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        x, gamma, beta, mean, var = v
        return functional.batch_norm(x, mean, var, gamma, beta, False, 0.0, float(a.get("eps", 1e-3)))

    def _Activation(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        return {"relu": functional.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[a["act_type"]](v[0])

    def _Pooling(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        kind = a.get("pool_type", "max")
        if _flag(a.get("global_pool"), False):
            return v[0].mean((2, 3), keepdim=True) if kind == "avg" else v[0].amax((2, 3), keepdim=True)
        kernel, stride = _tuple(a.get("kernel"), ()), _tuple(a.get("stride"), (1, 1))
        pad, full = _tuple(a.get("pad"), (0, 0)), a.get("pooling_convention") == "full"
        if kind == "max":
            return functional.max_pool2d(v[0], kernel, stride, pad, ceil_mode=full)
        return functional.avg_pool2d(v[0], kernel, stride, pad, ceil_mode=full)

    def _FullyConnected(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        x = v[0].flatten(1) if _flag(a.get("flatten"), True) else v[0]
        return functional.linear(x, v[1], v[2] if len(v) > 2 else None)

    def _Flatten(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        return v[0].flatten(1)

    def _elemwise_add(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        return v[0] + v[1]

    def _clip(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:
        return v[0].clamp(float(a["a_min"]), float(a["a_max"]))

    def _Concat(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        return torch.cat(v, int(a.get("dim", 1)))

    def _Dropout(self, v: list[torch.Tensor], a: dict[str, str]) -> torch.Tensor:  # noqa: N802
        return v[0]
