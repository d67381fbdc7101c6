"""Features of a transformer of timm, with weights from wherever they come."""

import importlib.util

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from unispector.config import BackboneConfig
from unispector.data.transforms import resize_image
from unispector.errors import CheckpointError, ConfigError
from unispector.modeling.backbones.packaged_dinov2 import NAME, PACKAGE
from unispector.modeling.build import build_backbone
from unispector.systems.vit_features import VitFeatures

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()


def test_features_are_the_last_tokens_as_unit_vectors_row_by_row(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    features = VitFeatures(f"test_vit={tmp_path / 'vit.safetensors'}", 5, "cpu")
    assert features.side == 80
    assert features.parameters == sum(weight.numel() for weight in network.parameters())
    square = torch.from_numpy(resize_image(PIXELS, 80)).permute(2, 0, 1)[None] / 255
    # test_vit was trained with 0.5 and 0.5, which its `hub` entry says.
    known = timm.get_pretrained_cfg("test_vit")
    mean, std = (torch.tensor(three).view(1, 3, 1, 1) for three in (known.mean, known.std))
    with torch.inference_mode():
        tokens = network.forward_features((square - mean) / std)[0, network.num_prefix_tokens :]
    expected = tokens / tokens.norm(dim=1, keepdim=True)
    torch.testing.assert_close(features(PIXELS), expected, atol=1e-5, rtol=1e-4)


def test_a_file_of_the_networks_authors_serves_too(network, tmp_path):
    """DINOv2's has a token for masked patches; positions of another image size are resampled."""
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    torch.save(network.state_dict() | {"mask_token": torch.zeros(1, 64)}, tmp_path / "vit.pth")
    ours, theirs = (
        VitFeatures(f"test_vit={tmp_path / name}", 5, "cpu")(PIXELS)
        for name in ("vit.safetensors", "vit.pth")
    )
    assert torch.equal(ours, theirs)


def test_of_the_packaged_dinov2_the_cells_are_those_that_the_detector_compares():
    if not all(importlib.util.find_spec(package) for package in (PACKAGE, "onnx")):
        pytest.skip("needs the extra `accurate`")
    backbone = build_backbone(BackboneConfig(name=NAME, weights="packaged", blocks=(5, 8)), 224).eval()
    square = torch.from_numpy(resize_image(PIXELS, 224)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        (level,) = backbone.matching(backbone(square))
    torch.testing.assert_close(VitFeatures("", 16, "cpu")(PIXELS), level[0].flatten(1).T, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_dinov3_runs(tmp_path):
    torch.manual_seed(0)
    name = "vit_tiny_patch16_dinov3_qkvb"
    save_file(timm.create_model(name, num_classes=0).state_dict(), tmp_path / "v3.safetensors")
    cells = VitFeatures(f"{name}={tmp_path / 'v3.safetensors'}", 6, "cpu")(PIXELS)
    assert cells.shape == (36, 192)
    torch.testing.assert_close(cells.norm(dim=1), torch.ones(36))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("dino.safetensors", "--weights dino.safetensors: give NAME=FILE"),
        ("=dino.safetensors", "give NAME=FILE"),
        ("test_vit=", "give NAME=FILE"),
        ("no_such_vit=hub", "--weights no_such_vit=...: no vision transformer of timm"),
        ("test_resnet=hub", "--weights test_resnet=...: no vision transformer of timm"),
    ],
)
def test_weights_that_name_no_transformer_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message) as caught:
        VitFeatures(weights, 5, "cpu")
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(network, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"a.weight": torch.ones(3)}, file)
    with pytest.raises(CheckpointError, match=r"other.safetensors: none of its tensors"):
        VitFeatures(f"test_vit={file}", 5, "cpu")
    state = network.state_dict()
    del state["blocks.3.attn.qkv.weight"], state["norm.bias"]
    save_file(state, file)
    with pytest.raises(
        CheckpointError, match=r"other.safetensors: lacks blocks.3.attn.qkv.weight \(2 absent"
    ):
        VitFeatures(f"test_vit={file}", 5, "cpu")
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
        VitFeatures(f"test_vit={tmp_path / 'none.pth'}", 5, "cpu")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"broken\.pth"):
        VitFeatures(f"test_vit={tmp_path / 'broken.pth'}", 5, "cpu")
