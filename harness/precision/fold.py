"""BatchNormalization folded into the convolution or matrix product before it.

In 16 bits a variance may overflow and an eps vanish; folded in float64 before rounding, neither matters, and weights
are rounded once.
"""

from __future__ import annotations

import json

import onnx_ir as ir

from ..engines.layers import FOLDED, owner_of


def fold_batch_norm(model: ir.Model) -> None:
    """Fold in place, wherever the parameters are constants that nothing else uses."""
    from onnxscript.rewriter import RewriteRuleSet
    from onnxscript.rewriter.rules import common

    rules = [common.fuse_batchnorm_into_conv_rule, common.fuse_batchnorm_into_gemm_rule]
    transposed = [node for node in model.graph if node.op_type == "ConvTranspose"]
    if all(_group(node) == 1 for node in transposed):  # the rule scales the wrong axis of grouped ones
        rules.append(common.fuse_batchnorm_into_conv_transpose_rule)
    known = {node.name for node in model.graph}
    before = {
        str(node.outputs[0].name): owner_of(str(source.producer().name))  # type: ignore[union-attr]
        for node in model.graph
        if node.op_type == "BatchNormalization" and (source := node.inputs[0]) is not None and source.producer()
    }
    RewriteRuleSet(rules).apply_to_model(model)
    for node in model.graph:
        if node.name not in known:  # a fused node answers for the MXNet node of the BatchNormalization it ends with
            result = str(node.outputs[0].name)
            node.name = f"{result.rpartition('/')[0] or result}/{node.op_type}"
            if result in before:
                node.metadata_props[FOLDED] = json.dumps([before[result]])


def _group(node: ir.Node) -> int:
    attribute = node.attributes.get("group")
    return attribute.as_int() if attribute is not None else 1
