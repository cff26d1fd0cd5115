"""Markers, options and Hypothesis profiles of the suites."""

from __future__ import annotations

import os

# The reference must be MXNet's own kernels: oneDNN changes edge cases (NaN in relu, target_shape of Deconvolution).
os.environ.setdefault("MXNET_MKLDNN_ENABLED", "0")
os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")
os.environ.setdefault("MXNET_STORAGE_FALLBACK_LOG_VERBOSE", "0")
os.environ.setdefault("OMP_NUM_THREADS", "2")

from hypothesis import HealthCheck, settings

settings.register_profile("quick", derandomize=True, deadline=None, database=None, print_blob=True,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.load_profile("quick")

pytest_plugins = ["harness.benchmark.pytest_plugin"]


def pytest_addoption(parser):
    parser.addoption("--isolate", action="store_true", help="run each operator case in a process of its own (slow)")


def pytest_configure(config):
    if config.getoption("--isolate"):
        os.environ["MXTRT_ISOLATE"] = "1"
