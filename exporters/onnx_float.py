"""Float ONNX: one file, batch dimension free, opset and IR version pinned to the board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.errors import UnsupportedExportError
from exporters.model_outputs import SINGLE
from exporters.onnx_extremes import large_weights
from exporters.onnx_file import (
    read_model,
    scratch_folder,
    with_weights,
    without_weights,
    write_model,
)
from exporters.onnx_tidy import (
    lower_opset,
    name_layers,
    name_transposed_weights,
    name_weights_as,
    plain_reshapes,
    pool_means,
    strip_domains,
    weights_of_layers,
)
from exporters.quiet import quiet_step

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import nn

INPUT_NAME = "input"
EXPORT_OPSET = 18  # what torch.onnx writes natively; older ones are converted
OLDEST_OPSET = 13  # first with per-channel QuantizeLinear
PREFERRED_IR = 8  # read by every onnxruntime since 1.10


def export_float_onnx(
    model: nn.Module,
    path: Path,
    *,
    input_shape: tuple[int, int, int],
    outputs: Sequence[str] = (SINGLE,),
    opset_max: int | None,
    ir_max: int | None,
    progress: Callable[[str], None],
) -> None:
    """Write `model` as one float32 ONNX file: input [N, C, H, W] -> logits [N, classes].

    Args:
        model: as `prepare.deployable` returns it.
        outputs: names, as `model_outputs.flatten_outputs` returns them.
        opset_max, ir_max: the board's limits; None for no limit.

    Raises:
        ExportError: torch.onnx can't export the model.
        UnsupportedExportError: the board's opset is too old.
    """
    opset = min(EXPORT_OPSET, opset_max or EXPORT_OPSET)
    if opset < OLDEST_OPSET:
        raise UnsupportedExportError(
            f"the board's runtimes read ONNX opset {opset} at most, {OLDEST_OPSET} is needed"
        )
    with scratch_folder(path) as folder:
        with quiet_step("export to ONNX"):
            graph = _torch_export(model, input_shape, outputs, folder)
        name_transposed_weights(graph, _matrices(model))
        weights = weights_of_layers(graph)
        graph = _simplified(graph, progress)
        with quiet_step("tidy the ONNX graph"):
            name_weights_as(graph, weights)
            pool_means(graph)
            plain_reshapes(graph)
            if opset < EXPORT_OPSET:
                graph = lower_opset(graph, opset)
            strip_domains(graph)
            name_layers(graph)
            graph.ir_version = min(PREFERRED_IR, ir_max or PREFERRED_IR)
            graph.producer_name = "compress-export"
            write_model(graph, path)


def _matrices(model: nn.Module) -> dict[str, np.ndarray]:
    """Parameters with two axes, by name; they share the model's memory."""
    return {
        name: parameter.detach().numpy()
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2
    }


def _torch_export(
    model: nn.Module, input_shape: tuple[int, int, int], outputs: Sequence[str], folder: Path
) -> onnx.ModelProto:
    """The graph; large weights go into a file in `folder`."""
    import torch

    # Two samples: with one, torch.export would take the batch size for a constant.
    example = torch.zeros(2, *input_shape)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=EXPORT_OPSET,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT_NAME],
        output_names=list(outputs),
        verbose=False,
    )
    assert program is not None
    program.save(folder / "torch.onnx", external_data=True)
    proto = read_model(folder / "torch.onnx")
    # Per-node stack traces and doc strings would leak source paths and triple a small file.
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    for constant in proto.graph.initializer:
        del constant.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    return proto


def _simplified(graph: onnx.ModelProto, progress: Callable[[str], None]) -> onnx.ModelProto:
    """onnxsim's result; without onnxsim, or when it fails, the graph as it was and a notice."""
    try:
        import onnxsim

        with quiet_step("simplify the ONNX graph"):
            simplified, same = onnxsim.simplify(without_weights(graph, but=_folded(graph)))
    except ImportError:
        progress("notice: onnxsim isn't installed, the ONNX graph stays unsimplified")
    except RuntimeError as error:
        progress(f"notice: {error}; the ONNX graph stays unsimplified")
    else:
        if same:
            return with_weights(simplified, graph)
        progress("notice: onnxsim changed the results, the ONNX graph stays unsimplified")
    return graph


def _folded(graph: onnx.ModelProto) -> set[str]:
    """Names of the large weights whose values onnxsim may want: all but those of plain layers.

    It folds a batch norm into the layer before it, and computes what depends on constants alone.
    """
    norms = {node.input[0] for node in graph.graph.node if node.op_type == "BatchNormalization"}
    before = {name for node in graph.graph.node if norms & set(node.output) for name in node.input}
    constants = {constant.name for constant in graph.graph.initializer}
    return constants - (large_weights(graph).keys() - before)
