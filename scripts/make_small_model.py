"""Remake suites/meta/data/small*: a small network as MXNet writes it, and its migrated form with MXNet's answers.

The files let an environment without MXNet prove that it still gives MXNet's numbers. Needs MXNet; the seed is fixed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from harness import proof
from harness.frontend import compat

DATA = Path(__file__).parents[1] / "suites" / "meta" / "data"
SHAPE = (1, 3, 20, 20)


def main() -> None:
    mx = compat.mxnet()
    data = mx.sym.var("data")
    x = mx.sym.Convolution(data, num_filter=8, kernel=(3, 3), pad=(1, 1), no_bias=True, name="stem")
    x = mx.sym.BatchNorm(x, fix_gamma=False, eps=2e-5, name="stem_norm")
    x = mx.sym.Activation(x, act_type="relu", name="stem_relu")
    y = mx.sym.Convolution(x, num_filter=8, kernel=(3, 3), pad=(1, 1), num_group=8, name="depthwise")
    y = mx.sym.BatchNorm(y, name="depthwise_norm")  # fix_gamma stays True
    y = mx.sym.Activation(y, act_type="relu", name="depthwise_relu")
    x = mx.sym.elemwise_add(x, y, name="sum")
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="full", name="pool")
    x = mx.sym.Concat(x, mx.sym.Pooling(x, kernel=(3, 3), pad=(1, 1), pool_type="avg", name="blur"), name="join")
    x = mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg", name="global")
    symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=10, name="scores"), name="softmax")
    rng = np.random.default_rng(0)
    shapes, _, auxiliary = symbol.infer_shape(data=SHAPE)
    names = dict(zip(symbol.list_arguments(), shapes))
    arguments = {
        name: rng.normal(0, 0.3, shape) for name, shape in names.items() if name not in ("data", "softmax_label")
    }
    states = {name: rng.uniform(0.5, 1.5, shape) for name, shape in zip(symbol.list_auxiliary_states(), auxiliary)}
    DATA.mkdir(parents=True, exist_ok=True)
    prefix = DATA / "small"
    as_mxnet = [{name: mx.nd.array(a, dtype="float32") for name, a in part.items()} for part in (arguments, states)]
    mx.model.save_checkpoint(str(prefix), 0, symbol, *as_mxnet)
    shutil.rmtree(DATA / "small.mxtrt", ignore_errors=True)
    proof.migrate(str(prefix), DATA / "small.mxtrt", inputs={"data": SHAPE}, vectors=2)


if __name__ == "__main__":
    main()
