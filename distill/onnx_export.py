"""The student as ONNX: embedding new items without torch and without this program.

One file a modality, opset 17: `image.onnx` takes `x`, float32 (batch, D), the generic features,
and gives `z`, float32 (batch, d), what `FeatureSet.embed` gives. Standardisation and norms are
inside. A modality that is the sum of parts takes one input a part, `x_image` (batch, D_image),
`x_text` (batch, D_text); there a row of NaN is a part that an item lacks, and adds nothing.

Which items lack a modality is otherwise the caller's business: its row of NaN comes out as NaN,
and NaN in part or infinity as what arithmetic makes of it. Compressed modalities have no file:
encode `z` as the set's card says.
"""

import functools
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgfd.distill.embedding import refuse_inside
from sgfd.distill.errors import DistillError
from sgfd.featureset import FeatureSet, Modality
from sgfd.jobs import WorkFolder, refuse_existing

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8  # that of opset 17: runtimes from 2022 on read it
MARKER = "*.onnx"
SMALLEST_NORM = 1e-12  # as `FeatureSet.embed` divides


def export_onnx(
    features: FeatureSet, target: str | Path, overwrite: bool = False
) -> dict[str, Path]:
    """Write the student of a feature set to a folder of ONNX files, `{modality}.onnx`.

    Args:
        target: the folder to be.
        overwrite: replace an existing folder of ONNX files.

    Returns:
        The file of each modality.

    Raises:
        FeatureSetError: the set has no student.
        DistillError: the package onnx is not installed, or the target holds other files.
        JobError: the target exists, or another process is making it.
    """
    try:
        import onnx
    except ImportError:
        raise DistillError(
            "the package onnx", "is not installed", "pip install 'sgfd[onnx]'"
        ) from None
    target = Path(target)
    features.student()  # refused at once where there is none
    if overwrite and target.is_dir() and any(path.suffix != ".onnx" for path in target.iterdir()):
        raise DistillError(target, "holds other files than .onnx", "choose another --out")
    refuse_existing(target, overwrite, MARKER)
    refuse_inside(features, target)
    files = {}
    with WorkFolder(target, {"onnx": features.manifest_sha256}, overwrite, MARKER) as work:
        for modality in features.manifest.plain:
            model = student_model(features, modality)
            onnx.checker.check_model(model, full_check=True)
            files[modality.name] = target / f"{modality.name}.onnx"
            (work.result / files[modality.name].name).write_bytes(model.SerializeToString())
        work.publish()
    return files


def student_model(features: FeatureSet, modality: Modality) -> "onnx.ModelProto":
    """The student of one modality, or of the parts that it is the sum of."""
    from onnx import helper

    student = features.manifest.student
    assert student is not None
    graph, tensors = _Graph(), features.student()
    widths = {layer.name: layer.source_dimension for layer in features.manifest.layers}
    parts = {name: f"x_{name}" for name in modality.parts} or {modality.name: "x"}
    layers = [
        _layer(graph, x, tensors, name, student.negative_slope, student.input_normalised)
        for name, x in parts.items()
    ]
    lacking = [graph.add("IsNaN", y) for y in layers] if modality.parts else []
    z = _sum_of_present(graph, layers, lacking) if modality.parts else layers[0]
    if student.normalised:
        z = _unit(graph, z)
    if modality.parts:
        all_lack = functools.reduce(lambda one, other: graph.add("And", one, other), lacking)
        z = graph.add("Where", all_lack, graph.constant("nan", np.nan), z)
    graph.add("Identity", z, output="z")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            modality.name,
            [_matrix(x, widths[name]) for name, x in parts.items()],
            [_matrix("z", modality.dimension)],
            graph.constants,
        ),
        producer_name="sgfd",
        producer_version=version("sgfd"),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(
        model,
        {
            "feature_set": features.manifest.name,
            "manifest_sha256": features.manifest_sha256,
            "modality": modality.name,
        },
    )
    return model


class _Graph:
    """Nodes and constants of an ONNX graph as they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output; its name."""
        from onnx import helper

        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, values: NDArray[np.float32] | float) -> str:
        """Add a tensor, unless it is there already; its name."""
        from onnx import numpy_helper

        if name not in [tensor.name for tensor in self.constants]:
            self.constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name


def _matrix(name: str, columns: int) -> "onnx.ValueInfoProto":
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", columns))


def _layer(
    graph: _Graph,
    x: str,
    tensors: dict[str, NDArray[np.float32]],
    name: str,
    negative_slope: float,
    input_normalised: bool,
) -> str:
    """leaky_relu(W ((x - mean) / scale) + b) of a modality's layer, (batch, d), before the norm."""
    weight, bias, mean, scale = (
        graph.constant(f"{name}.{part}", tensors[f"{name}.{part}"])
        for part in ("weight", "bias", "mean", "scale")
    )
    rows = graph.add("Div", graph.add("Sub", x, mean), scale)
    if input_normalised:
        rows = _unit(graph, rows)
    rows = graph.add("Add", graph.add("MatMul", rows, graph.add("Transpose", weight)), bias)
    return rows if negative_slope == 1 else graph.add("LeakyRelu", rows, alpha=negative_slope)


def _sum_of_present(graph: _Graph, layers: list[str], lacking: list[str]) -> str:
    """The sum of what the layers give where an item has their modality."""
    zero = graph.constant("zero", 0)
    there = [graph.add("Where", none, zero, y) for y, none in zip(layers, lacking, strict=True)]
    return graph.add("Sum", *there)


def _unit(graph: _Graph, rows: str) -> str:
    """Rows divided by their norm."""
    norm = graph.add("ReduceL2", rows, axes=[1], keepdims=1)
    smallest = graph.constant("smallest_norm", SMALLEST_NORM)
    return graph.add("Div", rows, graph.add("Max", norm, smallest))
