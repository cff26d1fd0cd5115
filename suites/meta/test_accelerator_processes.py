"""Threads, forks, the end of the interpreter, and MXNet's other engine: each program in a process of its own."""

from __future__ import annotations

import pytest

from suites.meta.accelerated import STATIC, in_process

pytestmark = pytest.mark.mxnet

START = """
import os, sys, threading, time
import numpy as np
from harness.frontend.compat import mxnet
mx = mxnet()
import harness.accelerator
from harness.accelerator import segment
built, compile_segment = [], segment._compile
segment._compile = lambda *given: built.append(1) or compile_segment(*given)
flags, options, count = eval(sys.argv[1]), eval(sys.argv[2]), int(sys.argv[3])
net = mx.gluon.nn.HybridSequential()
net.add(mx.gluon.nn.Dense(16, activation="relu"), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(4))
net.initialize(mx.init.Xavier())
images = [mx.nd.random.uniform(-1, 1, (2, 8)) for _ in range(8)]
expected = [net(image).asnumpy() for image in images]
net.optimize_for(images[0], backend="TensorRT", **options, **flags)
parameters = list(net.collect_params().values())
def right(k, shift=0.0):
    return np.allclose(net(images[k]).asnumpy(), expected[k] + shift, rtol=1e-4, atol=1e-5)
def in_child(call):
    child = os.fork()
    if not child:
        os._exit(0 if call() else 1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status == 0
        time.sleep(0.01)
    os.kill(child, 9)
    raise SystemExit("the child hangs")
assert right(0)
"""

THREADS = """
wrong = []
def work(k):
    wrong.extend(k for _ in range(count) if not right(k))
workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
[w.start() for w in workers]; [w.join() for w in workers]
assert not wrong, len(wrong)
assert len(built) == 1, len(built)
"""

WAITALL = """
done = []
def wait():
    while not done:
        mx.nd.waitall()
waiter = threading.Thread(target=wait)
waiter.start()
wrong = [k for k in range(count) if not right(k % 8)]
done.append(1); waiter.join()
assert not wrong, len(wrong)
"""

# A child has none of the engine's threads; to free the parent's engine there would wait for them forever.
FORK = """
assert in_child(lambda: all(right(k) for k in range(8)))
assert all(right(k) for k in range(8))
assert in_child(lambda: in_child(lambda: right(1)) and right(2))
assert len(built) == 1  # the parent's engine stayed
"""

FORK_UNUSED = """
assert in_child(lambda: True)  # as the workers of a DataLoader, which never call the network
assert in_child(lambda: harness.accelerator.clear() or right(3))
"""

EXIT = """
for k in range(count):
    net(images[k % 8])
"""

EXIT_FAILING = """
def fail(*_): raise ValueError("planted")
segment.forward = fail
for k in range(count):
    net(images[k % 8])
"""

REBUILDS = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
bias = parameters[-1]
start = bias.data().copy()
for step in range(count):
    bias.set_data(start + step / 10)
    assert right(step % 8, step / 10), step
    if step == count // 2:
        before = resident()
grown = resident() - before
assert len(built) == count, len(built)
assert grown < 16 << 20, grown
assert sum(len(node.engines) for node in segment._nodes.values()) == 1
"""

# Weights that are written, states that are written in place, and both together: what the versions are counted for.
WRITES = """
mean, variance = (p for p in parameters if "running" in p.name)
weight = parameters[0]
twin = mx.gluon.nn.HybridSequential(params=net.collect_params())
def plain(x):  # the network by hand, from its parameters
    w0, b0, g, b, m, v, w1, b1 = (p.data() for p in parameters)
    h = mx.nd.relu(mx.nd.FullyConnected(x, w0, b0, num_hidden=16))
    h = (h - m) / mx.nd.sqrt(v + 1e-5) * g + b
    return mx.nd.FullyConnected(h, w1, b1, num_hidden=4).asnumpy()
changes = {
    "set_data of a state": lambda s: mean.set_data(mean.data() + 0.1),
    "in place": lambda s: mean.data().__setitem__(slice(None), 0.2 * s),
    "part of it": lambda s: variance.data().__setitem__(slice(0, 1), 1 + s),
    "twice": lambda s: [mean.set_data(mean.data() + 0.1), mean.set_data(mean.data() + 0.1)],
    "a weight": lambda s: weight.set_data(weight.data() * 1.1),
    "one element": lambda s: weight.data().__setitem__((3, 5), 7.0 + s),
    "all": lambda s: [p.set_data(p.data() * 0.9 + 0.05) for p in parameters],
    "nothing": lambda s: None,
    "the same value": lambda s: mean.set_data(mean.data()),
}
for step in range(count):
    for name, change in changes.items():
        for _ in range(step % 3):  # calls between the writes
            net(images[0]).wait_to_read()
        change(step)
        found, wanted = net(images[step % 8]).asnumpy(), plain(images[step % 8])
        assert np.allclose(found, wanted, rtol=1e-4, atol=1e-4), (step, name, abs(found - wanted).max())
"""

FLAGS = {"dynamic": {}, "static": STATIC}
NAIVE = {"MXNET_ENGINE_TYPE": "NaiveEngine"}
# name: program, options, count, environment
PROGRAMS: dict[str, tuple[str, dict[str, object], int, dict[str, str]]] = {
    "threads": (THREADS, {"threads": 1}, 500, {}),
    "waitall in another thread": (WAITALL, {"threads": 1}, 300, {}),
    "fork": (FORK, {}, 0, {}),
    "fork, unused": (FORK_UNUSED, {"threads": 2}, 0, {}),
    "exit with work pending": (EXIT, {}, 200, {}),
    "exit with failures pending": (EXIT_FAILING, {}, 200, {}),
    "rebuilds": (REBUILDS, {"threads": 1}, 200, {}),
    "writes": (WRITES, {"threads": 1}, 4, {}),
    "writes, NaiveEngine": (WRITES, {"threads": 1}, 4, NAIVE),
    "threads, NaiveEngine": (THREADS, {"threads": 1}, 50, NAIVE),
    "fork, NaiveEngine": (FORK, {}, 0, NAIVE),
}
# The same with the other flags, and what MXNet's second engine adds, take a process each: only some are in `make test`.
QUICK = {
    ("threads", "static"), ("fork", "static"), ("fork, unused", "static"), ("exit with failures pending", "static"),
    ("writes", "static"), ("writes", "dynamic"), ("writes, NaiveEngine", "static"), ("rebuilds", "dynamic"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        pytest.param(name, flags, marks=[] if (name, flags) in QUICK else [pytest.mark.slow])
        for name in PROGRAMS
        for flags in FLAGS
    ],
)
def test_process(name: str, flags: str) -> None:
    program, options, count, variables = PROGRAMS[name]
    done = in_process(START + program, repr(FLAGS[flags]), repr(options), str(count), **variables)
    assert done.returncode == 0, done.stderr[-2000:]


# oneDNN keeps weights in a layout of its own, and MXNet converts them to ours at each call: they lie elsewhere each time.
SHARED = """
import os, sys
import numpy as np
from harness.frontend.compat import mxnet
mx = mxnet()
import harness.accelerator
from harness.accelerator import segment
built, compile_segment = [], segment._compile
segment._compile = lambda *given: built.append(1) or compile_segment(*given)
def network(**more):
    net = mx.gluon.nn.HybridSequential(prefix="net_", **more)
    with net.name_scope():
        net.add(mx.gluon.nn.Conv2D(32, 3), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Conv2D(32, 3), mx.gluon.nn.Dense(3))
    return net
x = mx.nd.random.uniform(-1, 1, (1, 16, 16, 16))
plain = network()
plain.initialize(mx.init.Xavier())
plain.hybridize(**eval(sys.argv[1]))
plain(x)
fast = network(params=plain.collect_params())
fast.optimize_for(x, backend="TensorRT", threads=1, **eval(sys.argv[1]))
for _ in range(4):
    expected = plain(x).asnumpy()
    for _ in range(2):
        np.testing.assert_allclose(fast(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)
assert len(built) == 1, len(built)
"""


@pytest.mark.parametrize("flags", [pytest.param("dynamic", marks=pytest.mark.slow), "static"])
def test_parameters_shared_with_a_network_on_onednn(flags: str) -> None:
    done = in_process(SHARED, repr(FLAGS[flags]), MXNET_MKLDNN_ENABLED="1")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables", [NAIVE, {"MXNET_MKLDNN_ENABLED": "1"}, {"MXNET_CPU_WORKER_NTHREADS": "4"}], ids=lambda v: next(iter(v))
)
def test_the_other_tests_in_another_mxnet(variables: dict[str, str]) -> None:
    """Everything that runs in one process, again with MXNet set up otherwise."""
    code = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    files = [f"suites/meta/test_accelerator{name}.py" for name in ("", "_operators", "_graphs")]
    done = in_process(code, "-q", "-p", "no:cacheprovider", *files, timeout=900, **variables)
    assert done.returncode == 0, done.stdout[-3000:]
