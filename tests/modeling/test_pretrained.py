"""The packaged EfficientNet-Lite0 maps onto timm's, tensor by tensor."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch

from unispector.config import BackboneConfig
from unispector.errors import CheckpointError
from unispector.modeling import pretrained
from unispector.modeling.build import build_backbone
from unispector.modeling.pretrained import PACKAGE, PACKAGED_BACKBONE, packaged_weights, timm_key

HEAD = ("conv_head.", "bn2.", "classifier.")


def packaged_keys() -> list[str]:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    (folder,) = spec.submodule_search_locations or []
    (file,) = Path(folder).rglob("*.pth")
    return list(torch.load(file, map_location="cpu", weights_only=True))


def test_keys_map_one_to_one():
    keys = packaged_keys()
    mapped = [name for key in keys if (name := timm_key(key)) is not None]
    network = timm.create_model(PACKAGED_BACKBONE).state_dict()
    body = {name: value.shape for name, value in network.items() if not name.startswith(HEAD)}
    assert len(mapped) == len(set(mapped))
    assert set(mapped) == set(body)
    # The rest is the classifier's head, nothing else: all of timm's tensors are accounted for.
    assert len(keys) - len(mapped) == len(network) - len(body)
    assert {name: value.shape for name, value in packaged_weights().items()} == body


def test_the_backbone_holds_the_packaged_weights():
    module = build_backbone(BackboneConfig(), 64)
    weights = packaged_weights()
    state = module.network.state_dict()
    for name, value in state.items():
        assert torch.equal(value, weights[name]), name
    assert module.mean.flatten().tolist() == [127.0] * 3
    assert module.std.flatten().tolist() == [128.0] * 3
    # The package's first convolution and its last block by hand, in case the mapping shifted a stage.
    assert state["conv_stem.weight"].shape == (32, 3, 3, 3)
    assert state["blocks.6.0.conv_pwl.weight"].shape == (320, 1152, 1, 1)


def test_blocks_are_numbered_by_stage():
    assert timm_key("_blocks.0._project_conv.weight") == "blocks.0.0.conv_pw.weight"
    assert timm_key("_blocks.2._expand_conv.weight") == "blocks.1.1.conv_pw.weight"
    assert timm_key("_blocks.15._bn2.running_var") == "blocks.6.0.bn3.running_var"
    assert timm_key("_fc.weight") is None


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(CheckpointError, match=r"no_such_package_of_weights.*`none`") as caught:
        packaged_weights()
    assert "\n" not in str(caught.value)
