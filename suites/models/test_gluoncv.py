"""GluonCV's zoo: a fixed small subset, held to MXNet; ``python -m scripts.run_zoo`` does the same with all of it.

Each family has one small network here.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from scripts.run_zoo import comparison
from scripts.zoo_networks import prepare
from scripts.zoo_reference import compiled, held_to_mxnet, run_mxnet, with_masked_regions, without_sorting

QUICK = (
    "cifar_resnet20_v1",
    "mobilenetv3_small",
    "shufflenet_v1",
    "ssd_300_mobilenet0.25_voc",
    "yolo3_mobilenet0.25_voc",
    "center_net_resnet18_v1b_voc",
    "simple_pose_resnet18_v1b",
    "mobile_pose_mobilenetv3_small",
    "monodepth2_resnet18_posenet_kitti_mono_640x192",
    "mobilenet1.0_int8",
    "simple_pose_resnet18_v1b_int8",
)
SLOW = (
    "fcn_resnet50_voc",
    "psp_resnet50_ade",
    "deeplab_resnet50_citys",
    "icnet_resnet50_citys",
    "danet_resnet50_citys",
    "faster_rcnn_resnet50_v1b_voc",
    "faster_rcnn_fpn_resnet50_v1b_coco",
    "mask_rcnn_fpn_resnet18_v1b_coco",
    "center_net_resnet18_v1b_dcnv2_voc",
    "alpha_pose_resnet101_v1b_coco",
    "i3d_inceptionv1_kinetics400",
    "r2plus1d_resnet18_kinetics400",
    "slowfast_4x16_resnet50_kinetics400",
    "hrnet_w18_small_v1_s",
    "nasnet_4_1056",
)


@pytest.mark.skipif(importlib.util.find_spec("gluoncv") is None, reason="needs GluonCV: pip install 'mxtrt[zoo]'")
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_network(name: str) -> None:
    row = comparison(name)
    assert (row["segments"], row["fallbacks"]) == (1, 0), row["reason"]
    assert row["status"] == "agrees", row["difference"]


def test_cut_at_sorting() -> None:
    """The outputs of sorting nodes become inputs; what goes into them and the rest stay outputs."""
    mx = prepare()
    scores = mx.sym.exp(mx.sym.var("data"), name="scores")
    both = mx.sym.topk(scores, k=2, ret_typ="both", name="best")
    symbol = both[0] + mx.sym.sum(both[1])
    found = without_sorting(symbol)
    assert found is not None
    rest, jumps, names = found
    assert rest.list_arguments() == ["data", *names]
    assert rest.list_outputs()[0] == "scores_output"
    assert len(rest.list_outputs()) == 2
    assert jumps.list_outputs() == ["best_output0", "best_output1"]
    assert without_sorting(scores) is None


def test_a_small_fault_is_seen() -> None:
    """A weight that is off by a hundredth of a percent is a different network."""
    mx = prepare()
    data = mx.sym.var("data")
    symbol = mx.sym.Convolution(mx.sym.relu(data), kernel=(3, 3), num_filter=8, no_bias=True, name="conv")
    rng = np.random.default_rng(3)
    params = {"conv_weight": rng.standard_normal((8, 4, 3, 3)).astype(np.float32)}
    inputs = {"data": rng.standard_normal((1, 4, 9, 9)).astype(np.float32)}
    right = compiled(symbol, params, inputs)
    assert held_to_mxnet(symbol, inputs, params, right)[1] <= 1
    wrong = compiled(symbol, {"conv_weight": params["conv_weight"] * np.float32(1.0001)}, inputs)
    assert held_to_mxnet(symbol, inputs, params, wrong)[1] > 1


@pytest.mark.parametrize("batch", [1, 2])
def test_regions_of_a_negative_image_are_zero(batch: int) -> None:
    """Feature pyramids mask the regions of other levels so; with one image they were taken from it."""
    mx = prepare()
    symbol = mx.sym.contrib.ROIAlign(
        mx.sym.var("data"), mx.sym.var("rois"), pooled_size=(2, 3), spatial_scale=0.5, sample_ratio=2, name="align"
    )
    rng = np.random.default_rng(5)
    rois = np.array([[0, 1, 1, 9, 9], [-1, -1, -1, -1, -1], [-1, 1, 1, 9, 9], [batch - 1, 2, 4, 15, 7]], np.float32)
    inputs = {"data": rng.standard_normal((batch, 3, 8, 8)).astype(np.float32), "rois": rois}
    (found,) = compiled(symbol, {}, inputs)(**inputs)
    masked = with_masked_regions(symbol)
    assert masked.list_outputs() == ["align_output"]
    (exact,) = run_mxnet(masked, inputs, "float64")
    assert not exact[1:3].any() and exact[[0, 3]].all()
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
