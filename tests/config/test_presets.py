"""The presets: the paper's is what was published, the default is what params.yaml ships."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ruamel.yaml import YAML

from unispector.config import Config, load_config, params, preset_names, preset_values
from unispector.errors import ConfigError
from unispector.modeling.build import build_model
from unispector.modeling.unispector import UniSpectorModel

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"
RECIPE = ("model", "loss", "augment", "prompt", "train")

# Appendix 3.1, 3.2 and 3.4 of the paper, 1 for the seeds.
PUBLISHED = {
    "model.backbone.name": "swin_tiny_patch4_window7_224",
    "model.image_size": 720,
    "model.decoder_layers": 9,
    "model.heads": 8,
    "model.queries": 300,
    "model.spectral.enabled": True,
    "model.spectral.bins": 256,
    "model.query_selection.enabled": True,
    "model.query_selection.temperature": 1.0,
    "loss.classification": 4.0,
    "loss.box": 5.0,
    "loss.giou": 2.0,
    "loss.mask": 5.0,
    "loss.dice": 5.0,
    "loss.contrastive": 1.0,
    "loss.scale": 30.0,
    "loss.margin": 0.5,
    "augment.contrast": [0.8, 1.1],
    "augment.brightness": [0.5, 1.3],
    "prompt.test_roi": "box",
    "train.steps": 20_000,
    "train.batch_size": 48,
    "train.processes": 2,
    "train.learning_rate": 1e-4,
    "train.warmup_steps": 10,
    "train.weight_decay": 0.05,
    "train.seeds": [42, 82, 777],
    "sweep.sets": "all",
    "sweep.blur": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
    "sweep.box_iou": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "sweep.box_trials": 10,
}
# The base code that the authors release.
BASE = {
    "model.backbone.drop_path": 0.3,
    "model.backbone.frozen": False,
    "model.width": 256,
    "model.points": 4,
    "model.encoder_layers": 6,
    "model.feedforward": 2048,
    "model.class_bias": False,
    "model.boxes": "head",
    "model.nms_iou": 1.0,
    "model.prompt_reference": "corner",
    "model.denoising.queries": 100,
    "model.denoising.box_noise": 0.4,
    "loss.points": 12544,
    "augment.horizontal_flip": 0.5,
    "prompt.max_images": 4,
    "prompt.cross_image": 0.0,
    "train.backbone_rate": 0.1,
    "train.clip_norm": 0.01,
    "train.checkpoint_every": 2500,
    "evaluate.detections": 300,
}
# What this implementation adds and the paper does not have.
ABSENT = {
    "model.magnify": 1.0,
    "model.confine_masks": False,
    "model.similarity_prior.enabled": False,
    "loss.relevance": 0.0,
    "loss.prior": 0.0,
    "loss.candidates": 0.0,
    "augment.vertical_flip": 0.0,
    "augment.quarter_turns": False,
    "augment.zoom": 1.0,
    "prompt.box_slack": 0.0,
    "train.defect_free": 0,
    "train.views": 0,
}
# How a machine runs a recipe, which no preset touches.
OWN = {"train.log_every", "train.threads", "train.side_by_side", "train.retries", "train.timeout_hours"}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize(
    "path",
    [PARAMS, *sorted(PARAMS.parent.glob("unispector/shipped/*/params.yaml"))],
    ids=lambda path: path.parent.name,
)
def test_dvc_reads_the_same_values(path: Path) -> None:
    """DVC's reader is of YAML 1.2, which plain values in a list with a colon break; ours is of YAML 1.1."""
    assert YAML(typ="safe").load(path) == yaml.safe_load(path.read_text())


def written(path: Path) -> dict[str, Any]:
    return dict(leaves(yaml.safe_load(path.read_text())))


def set_by(preset: str) -> dict[str, Any]:
    """All leaves that a preset sets."""
    return dict(leaves(preset_values(preset)))


def recipe(config: Config) -> dict[str, Any]:
    """All leaves of the sections that make a recipe."""
    return dict(leaves(config.model_dump(mode="json", include=set(RECIPE))))


@pytest.mark.parametrize("table", [PUBLISHED, BASE, ABSENT], ids=["published", "base", "absent"])
def test_the_paper_preset_is_what_was_published(table: dict[str, Any]) -> None:
    found = dict(leaves(load_config(PARAMS, "paper").model_dump(mode="json")))
    assert {name: found[name] for name in table} == table


def test_the_paper_preset_leaves_no_part_of_the_recipe_to_the_defaults() -> None:
    missing = recipe(load_config(PARAMS)).keys() - set_by("paper").keys()
    # Which ablations are trained beside it is the user's choice.
    assert missing == OWN | {"train.ablation", "train.ablation_seeds"}, (
        "give a new parameter its value in presets/paper.yaml"
    )


def test_the_paper_preset_tells_where_every_value_comes_from() -> None:
    lines = (params._PRESETS / "paper.yaml").read_text().splitlines()
    values = [line for line in lines if ": " in line and not line.startswith("#")]
    assert len(values) == len(set_by("paper"))
    assert [line for line in values if " # " not in line] == []


def test_the_default_preset_is_what_params_yaml_ships() -> None:
    shipped, default = written(PARAMS), set_by("default")
    differing = {name for name in default if shipped.get(name) != default[name]}
    assert not differing, "params.yaml must say what the code's defaults are"
    missing = recipe(load_config(PARAMS)).keys() - default.keys()
    assert missing == OWN | {"train.ablation"}, "a new parameter of the recipe must be in a preset"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_undone_by_the_default(name: str) -> None:
    config = load_config(PARAMS, name)
    values = set_by(name)
    in_force = dict(leaves(config.model_dump(mode="json")))
    assert {leaf: in_force[leaf] for leaf in values} == values
    kept = {leaf: value for leaf, value in written(PARAMS).items() if leaf not in values}
    assert {leaf: in_force[leaf] for leaf in kept} == kept
    sets = {
        leaf for leaf in values if leaf.startswith("data.sets.")
    }  # they stay until somebody takes them out
    undone = set_by("default").keys()
    assert values.keys() - sets <= undone, "`params use default` must undo all of it"
    assert not any(leaf.startswith(("data.", "split.")) for leaf in values.keys() - sets)


def test_the_real_preset_holds_out_classes_to_choose_by() -> None:
    before, after = load_config(PARAMS), load_config(PARAMS, "real")
    assert before.data.sets.items() <= after.data.sets.items()
    added = {name: member for name, member in after.data.sets.items() if name not in before.data.sets}
    assert set(added) == {"rust_seg", "weld_seg", "fabric_sach", "cardamage", "indrive_dent", "cookie"}
    assert all((member.source, member.path) == ("coco", name) for name, member in added.items())
    held_out = {name: member.unseen for name, member in added.items() if member.unseen}
    assert held_out == {"fabric_sach": ("hole",), "cardamage": ("glass crack",)}
    assert {name for name, member in added.items() if member.domain == "cross"} == {"cookie"}


def test_a_new_preset_is_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params, "_PRESETS", tmp_path)
    (tmp_path / "wide.yaml").write_text("model:\n  width: 192\n  backbone: {drop_path: 0.1}\n")
    assert preset_names() == ("default", "wide")
    base, wide = load_config(PARAMS), load_config(PARAMS, "wide")
    backbone = base.model.backbone.model_copy(update={"drop_path": 0.1})
    model = base.model.model_copy(update={"width": 192, "backbone": backbone})
    assert wide == base.model_copy(update={"model": model})
    assert set_by("default") == {"model.width": 64, "model.backbone.drop_path": 0.0}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("model: {widht: 96}", r"with preset odd: model\.widht: unknown parameter"),
        ("model: {width: 100}", "with preset odd: model: .*multiple"),
        ("model: 3", "with preset odd: model: "),
        ("model: [", "preset odd: not valid YAML"),
        ("- 3", "preset odd: holds no sections"),
    ],
)
def test_an_unusable_preset_is_told_in_one_line(content, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(params, "_PRESETS", tmp_path)
    (tmp_path / "odd.yaml").write_text(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        load_config(PARAMS, "odd")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["papers", "", "../params"])
def test_an_unknown_preset_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no such preset; there are .*default.*paper"):
        load_config(PARAMS, name)


@pytest.fixture(scope="module")
def paper_model() -> UniSpectorModel:
    with torch.random.fork_rng():
        return build_model(load_config(PARAMS, "paper").model, load_weights=False)


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


# The base's own numbers where a part is the base's; the rest by hand from the sizes.
PARTS = {
    "backbone": 27_520_698,
    "pixel_decoder": 10_491_904,
    "decoder.layers": 13_912_704,
    "decoder.position": 197_120,
    "decoder.box": 132_612,
    "decoder.norm": 512,
    "prompt_encoder.cross_attention": 1_054_720,
    "prompt_encoder.visual_aligner": 2 * linear(256, 256),
    "prompt_encoder.frequency_encoder": 2 * 256 + 2 * linear(256, 256),
    "prompt_encoder.frequency_aligner": 2 * linear(256, 256),
    "heads": 131_072 + 197_376,
    # Projection, its norm, the reference's MLP, and scale and bias of the relevance logit.
    "query_selection": linear(256, 256) + 512 + 2 * linear(256, 256) + linear(256, 4) + 2,
}


@pytest.mark.parametrize("part", PARTS)
def test_the_paper_model_has_the_published_size(part: str, paper_model: UniSpectorModel) -> None:
    parameters = paper_model.get_submodule(part).parameters()
    assert sum(parameter.numel() for parameter in parameters) == PARTS[part]


def test_nothing_in_the_paper_model_is_frozen_or_larger(paper_model: UniSpectorModel) -> None:
    assert all(parameter.requires_grad for parameter in paper_model.parameters())
    total = sum(parameter.numel() for parameter in paper_model.parameters())
    # Beside the parts: content and position of a prompt, the two token types.
    assert total == sum(PARTS.values()) + 2 * 256 + 2 * 256
