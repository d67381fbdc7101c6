"""Published checkpoints of full size, by their names and shapes, to starting weights and into models."""

import hashlib
import re
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from published import HEAD, WIDTH, Shapes, official_state, pair
from unispector.cli import main
from unispector.config import BackboneConfig, ModelConfig, SimilarityPriorConfig
from unispector.errors import CheckpointError
from unispector.modeling.build import build_backbone, build_model
from unispector.modeling.starting_weights import load_starting_weights
from unispector.training.import_weights import ConvertedWeights, convert_weights

PAPER = ModelConfig(
    image_size=720,
    prompt_reference="corner",  # what the published weights were trained with
    width=256,
    heads=8,
    points=4,
    encoder_layers=6,
    decoder_layers=9,
    feedforward=2048,
    queries=300,
    class_bias=False,
    backbone=BackboneConfig(name="swin_tiny_patch4_window7_224", weights="none", frozen=False),
    similarity_prior=SimilarityPriorConfig(enabled=False),
)


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return official_state()


@pytest.fixture(scope="module")
def checkpoint(official: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("published") / "base.pth"
    torch.save({"model": official, "iteration": 20_000}, file)
    return file


@pytest.fixture(scope="module")
def converted(checkpoint: Path) -> tuple[ConvertedWeights, Path]:
    out = checkpoint.parent / "base.safetensors"
    return convert_weights(checkpoint, out), out


def test_every_entry_of_the_base_is_taken_a_copy_or_unused_for_a_reason(official, converted):
    outcome, out = converted
    assert len(official) == outcome.entries == 676
    expected = {
        name.removeprefix("model.")
        for name in official
        if re.search(r"relative_position_index|class_embed$|iou_prediction_head|mask_tokens|criterion", name)
    }
    assert outcome.report.unused.keys() == expected
    assert all(outcome.report.unused.values())
    tensors = load_file(out)
    # 19 box heads are one, two norms are one, two tables of two rows become one of two.
    assert len(tensors) == 676 - len(expected) - 18 * 6 - 2 - 1
    # As measured on the published network, less its unused heads and the rows of those tables.
    assert sum(value.numel() for value in tensors.values()) == 53_982_703 - 264_449 - 2 * WIDTH


def test_the_base_of_the_papers_size_takes_all_of_it(official, converted):
    _, out = converted
    model = build_model(PAPER.with_parts(sspe=False, pqs=False), load_weights=False)
    report = load_starting_weights(model, out)
    assert report.new == ()
    assert report.unused == {}
    own = model.state_dict()
    for name, theirs in (
        (
            "backbone.network.layers_3.downsample.reduction.weight",
            "backbone.layers.2.downsample.reduction.weight",
        ),
        ("backbone.network.layers_2.blocks.5.attn.qkv.bias", "backbone.layers.2.blocks.5.attn.qkv.bias"),
        ("backbone.out_norms.2.weight", "backbone.norm2.weight"),
        (
            "decoder.layers.8.cross_attention.value_proj.weight",
            f"{HEAD}decoder.layers.8.cross_attn.value_proj.weight",
        ),
        ("decoder.box.layers.2.bias", f"{HEAD}_bbox_embed.layers.2.bias"),
        ("decoder.norm.weight", f"{HEAD}decoder_norm.weight"),
        ("heads.classes", f"{HEAD}class_embed_openset"),
    ):
        assert torch.equal(own[name], official[f"model.{theirs}"]), name


def test_of_the_full_model_only_its_contributions_are_new(converted):
    outcome, _ = converted
    parts = {re.match(r"\w+\.\w+", name)[0] for name in outcome.report.new}
    assert {
        "prompt_encoder.frequency_encoder",
        "prompt_encoder.frequency_aligner",
        "prompt_encoder.visual_aligner",
        "query_selection.project",
        "query_selection.box",
    } <= parts
    base = build_model(PAPER.with_parts(sspe=False, pqs=False), load_weights=False).state_dict()
    assert base.keys().isdisjoint(outcome.report.new)
    fitting = ModelConfig.model_validate(
        {
            **outcome.model,
            "image_size": 720,
            "similarity_prior": {"enabled": False},
            "backbone": {**PAPER.backbone.model_dump(), **outcome.model["backbone"]},
        }
    )
    assert fitting == PAPER


def test_a_backbone_takes_its_part_of_a_detectors_file(official, converted):
    _, out = converted
    module = build_backbone(PAPER.backbone.model_copy(update={"weights": str(out)}), 64)
    own = module.state_dict()
    table = "layers_1.blocks.1.attn.relative_position_bias_table"
    assert torch.equal(own[f"network.{table}"], official[f"model.backbone.{table.replace('_', '.', 1)}"])
    assert torch.equal(own["out_norms.3.bias"], official["model.backbone.norm3.bias"])


# MobileSAM's image encoder.


def convolution(name: str, *shape: int) -> Shapes:
    found: Shapes = {f"{name}.c.weight": shape}
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        found[f"{name}.bn.{leaf}"] = shape[:1]
    return found | {f"{name}.bn.num_batches_tracked": ()}


def mobile_sam_state() -> dict[str, Tensor]:
    part, widths = "image_encoder", (64, 128, 160, 320)
    found = convolution(f"{part}.patch_embed.seq.0", 32, 3, 3, 3)
    found |= convolution(f"{part}.patch_embed.seq.2", 64, 32, 3, 3)
    for stage, (c, depth, heads, window) in enumerate(
        zip(widths, (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7), strict=True)
    ):
        for index in range(depth):
            name = f"{part}.layers.{stage}.blocks.{index}"
            if stage == 0:
                found |= convolution(f"{name}.conv1", 256, 64, 1, 1) | convolution(
                    f"{name}.conv2", 256, 1, 3, 3
                )
                found |= convolution(f"{name}.conv3", 64, 256, 1, 1)
                continue
            found |= pair(f"{name}.attn.norm", c) | pair(f"{name}.attn.qkv", 3 * c, c)
            found |= pair(f"{name}.attn.proj", c, c) | {f"{name}.attn.attention_biases": (heads, window**2)}
            found |= pair(f"{name}.mlp.norm", c) | pair(f"{name}.mlp.fc1", 4 * c, c)
            found |= pair(f"{name}.mlp.fc2", c, 4 * c) | convolution(f"{name}.local_conv", c, 1, 3, 3)
        if stage < 3:
            name, out = f"{part}.layers.{stage}.downsample", widths[stage + 1]
            found |= convolution(f"{name}.conv1", out, c, 1, 1) | convolution(f"{name}.conv2", out, 1, 3, 3)
            found |= convolution(f"{name}.conv3", out, out, 1, 1)
    found |= pair(f"{part}.norm_head", 320) | pair(f"{part}.head", 1000, 320)
    found |= {f"{part}.neck.0.weight": (256, 320, 1, 1)} | pair(f"{part}.neck.1", 256)
    found |= {f"{part}.neck.2.weight": (256, 256, 3, 3)} | pair(f"{part}.neck.3", 256)
    found |= {"prompt_encoder.not_a_point_embed.weight": (1, 256)} | pair("mask_decoder.iou_token", 1, 256)
    return {
        name: torch.tensor(7) if name.endswith("tracked") else torch.rand(shape)
        for name, shape in found.items()
    }


@pytest.fixture(scope="module")
def mobile_sam() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return mobile_sam_state()


def test_mobile_sam_fills_the_whole_tiny_vit(mobile_sam, tmp_path, capsys):
    file, out = tmp_path / "mobile_sam.pt", tmp_path / "tiny_vit.safetensors"
    torch.save(mobile_sam, file)
    assert main(["weights", "convert", str(file), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "mobile_sam: 292 of 305 tensors taken" in told
    assert "new" not in told
    assert '{"backbone": {"name": "tiny_vit_5m_224"}}' in told
    with safe_open(out, "pt") as written:
        assert written.metadata() == {
            "source": "mobile_sam.pt",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "layout": "mobile_sam",
        }
    network = timm.create_model("tiny_vit_5m_224", features_only=True)
    assert {f"backbone.network.{name}" for name in network.state_dict()} == set(load_file(out))

    config = BackboneConfig(name="tiny_vit_5m_224", weights=str(out), frozen=True)
    module = build_backbone(config, 256)
    # The published file itself will do as well.
    straight = build_backbone(config.model_copy(update={"weights": str(file)}), 256).state_dict()
    assert all(torch.equal(value, straight[name]) for name, value in module.state_dict().items())
    images = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
    with torch.no_grad():
        assert [tuple(m.shape[1:]) for m in module(images)] == [
            (64, 64, 64),
            (128, 32, 32),
            (160, 16, 16),
            (320, 8, 8),
        ]


def test_a_converted_block_computes_mobile_sams(mobile_sam, tmp_path):
    """Window attention of stage 1 on one window, by the published formula and tensors."""
    torch.save(mobile_sam, tmp_path / "mobile_sam.pt")
    convert_weights(tmp_path / "mobile_sam.pt", tmp_path / "out.safetensors")
    config = BackboneConfig(name="tiny_vit_5m_224", weights=str(tmp_path / "out.safetensors"), frozen=True)
    block = build_backbone(config, 64).network.stages_1.blocks[1].attn
    part = {
        name.removeprefix(prefix): value
        for prefix in ["image_encoder.layers.1.blocks.1.attn."]
        for name, value in mobile_sam.items()
        if name.startswith(prefix)
    }
    x, heads, depth = torch.randn(49, 128) * 5, 4, 32
    normed = F.layer_norm(x, (128,), part["norm.weight"], part["norm.bias"])
    qkv = (normed @ part["qkv.weight"].T + part["qkv.bias"]).view(49, heads, 3, depth)
    places = [(index // 7, index % 7) for index in range(49)]
    # Biases are stored by (|dy|, |dx|) in the order in which the first cell meets them.
    bias = torch.stack(
        [
            torch.stack([part["attention_biases"][:, abs(a - c) * 7 + abs(b - d)] for c, d in places])
            for a, b in places
        ]
    )
    parts = []
    for head in range(heads):
        query, key, value = qkv[:, head].unbind(1)
        parts.append((query @ key.T / depth**0.5 + bias[..., head]).softmax(1) @ value)
    expected = torch.cat(parts, dim=1) @ part["proj.weight"].T + part["proj.bias"]
    with torch.no_grad():
        torch.testing.assert_close(block(x[None])[0], expected, atol=1e-3, rtol=1e-4)


def test_a_tensor_of_another_shape_is_named_with_both(mobile_sam, tmp_path):
    name = "image_encoder.layers.3.blocks.1.mlp.fc1.weight"
    torch.save({**mobile_sam, name: torch.zeros(1280, 319)}, tmp_path / "bad.pt")
    with pytest.raises(
        CheckpointError, match=r"stages_3.blocks.1.mlp.fc1.weight .*\[1280, 319\].*\[1280, 320\]"
    ) as caught:
        convert_weights(tmp_path / "bad.pt", tmp_path / "out.safetensors")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_mistakes_are_told_in_one_line(mobile_sam, tmp_path, capsys):
    file, other = tmp_path / "mobile_sam.pt", tmp_path / "other.pth"
    torch.save(mobile_sam, file)
    torch.save({"conv1.weight": torch.zeros(1)}, other)
    save_file({"a": torch.zeros(1)}, tmp_path / "own.safetensors")
    for arguments, told in (
        ([file, "--out", tmp_path / "out.pth"], "must end in .safetensors"),
        ([tmp_path / "no.pth", "--out", tmp_path / "out.safetensors"], "no such file"),
        ([other, "--out", tmp_path / "out.safetensors"], "no known layout"),
        ([tmp_path / "own.safetensors", "--out", tmp_path / "out.safetensors"], "own.safetensors: "),
    ):
        assert main(["weights", "convert", *map(str, arguments)]) == 1
        captured = capsys.readouterr()
        assert told in captured.err
        assert captured.err.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()


def test_the_table_counts_by_module(converted):
    text = converted[0].table()
    assert text.startswith("unispector: 655 of 676 tensors taken, 544 without copies")
    assert re.search(r"^ +\d+  decoder\.layers$", text, re.MULTILINE)
    assert re.search(r"^not used, .*index.*:\n +12  backbone\.layers$", text, re.MULTILINE)
    assert re.search(r"^ +6  sem_seg_head\.predictor\.iou_prediction_head$", text, re.MULTILINE)
    assert "new, not in the file:" in text
    assert '"encoder_layers": 6' in text
