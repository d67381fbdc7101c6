"""What of a file a model starts from, and what is said of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unispector.config import BackboneConfig, ModelConfig
from unispector.errors import CheckpointError
from unispector.modeling.starting_weights import load_starting_weights, match_weights, widen
from unispector.modeling.unispector import UniSpectorModel

Make = Callable[..., UniSpectorModel]


def test_what_fits_is_loaded_and_the_rest_keeps_its_values(small_model, small_config, tmp_path):
    """A full model starts from a base, which has no spectral branch, aligner, or PQS."""
    base, model = small_model(small_config.with_parts(sspe=False, pqs=False)), small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = {name: value.contiguous() for name, value in base.state_dict().items()}
    save_file(given, tmp_path / "base.safetensors")
    report = load_starting_weights(model, tmp_path / "base.safetensors")
    after = model.state_dict()
    assert set(report.loaded) == before.keys() & given.keys()
    assert report.unused.keys() == {"query_selection.content", "query_selection.reference"}
    assert set(report.new) == before.keys() - given.keys()
    assert all(torch.equal(after[name], given[name]) for name in report.loaded)
    assert all(torch.equal(after[name], before[name]) for name in report.new)
    line = report.line("base.safetensors")
    total = len(report.loaded) + len(report.new)
    assert line.startswith(f"loaded {len(report.loaded)} of {total} tensors from base.safetensors; new: ")
    assert "prompt_encoder.frequency_encoder, " in line
    assert "prompt_encoder.cross_attention" not in line
    assert line.endswith("; not used: query_selection")
    assert "\n" not in line


def test_a_module_that_is_new_as_a_whole_is_named_as_a_whole():
    one = torch.zeros(1)
    own = {"body.a.weight": one, "body.b.weight": one, "head.a.weight": one, "head.b.weight": one}
    report = match_weights(own, {"body.a.weight": one, "other.x.bias": one}, "file")
    assert report.line("file") == "loaded 1 of 4 tensors from file; new: body.b, head; not used: other"
    assert match_weights({"a": one}, {"a": one}, "file").line("file") == "loaded 1 of 1 tensors from file"


def test_counts_of_batches_are_neither_new_nor_missed():
    own = {"n.weight": torch.zeros(1), "n.num_batches_tracked": torch.tensor(0)}
    assert match_weights(own, {"n.weight": torch.zeros(1)}, "file").new == ()


def test_files_that_do_not_fit_change_nothing(small_model: Make, tmp_path: Path):
    model, file = small_model(), tmp_path / "weights.safetensors"
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match) as caught:
            load_starting_weights(model, file)
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)

    refused("no readable safetensors")
    good = {name: torch.ones(value.shape) for name, value in before.items()}
    save_file({**good, "decoder.norm.bias": torch.zeros(33)}, file)
    refused(r"decoder.norm.bias has another shape, \[33\] in place of \[32\] \(1 such tensors\)")
    save_file({"conv1.weight": torch.zeros(1)}, file)
    refused(r"none of its tensors \(conv1.weight, ...\).*unispector weights convert")
    torch.save(good, file)
    refused("no readable safetensors")
    file = tmp_path / "weights.pth"
    torch.save(good, file)
    refused("names of no known layout")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_joined_model_begins_as_the_one_it_starts_from(small_model: Make, small_config: ModelConfig):
    further = BackboneConfig(name="test_vit", weights="none", blocks=(1, 4))
    one = small_config
    both = one.model_copy(update={"backbone": (*one.backbones, further)})
    assert both.extends(one)
    assert one.extends(one)
    assert not one.extends(both)
    assert not both.extends(one.model_copy(update={"queries": one.queries + 1}))
    assert not both.extends(one.model_copy(update={"backbone": further}))
    start, model = small_model(one).eval(), small_model(both).eval()
    for parameter in start.parameters():  # an untrained prior is zero in places
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    widen(model, start)
    images = torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8)
    with torch.inference_mode():
        known, found = start.encode_images(images), model.encode_images(images)
    assert torch.allclose(found.memory, known.memory, atol=1e-6)
    assert torch.allclose(found.mask_features, known.mask_features, atol=1e-6)
    assert torch.equal(found.prior.detail, known.prior.detail)
    a, b = start.similarity.prior, model.similarity.prior
    given = a.stems[0][0].weight.shape[1]
    assert b.stems[0][0].weight.shape[1] > given
    assert torch.equal(b.stems[0][0].weight[:, :given], a.stems[0][0].weight)
    assert not b.stems[0][0].weight[:, given:].any()
    assert not b.shared[len(a.shared)].weight.any()


def test_a_vision_transformer_gives_its_weights_to_a_joined_model(small_model, small_config):
    tokens = BackboneConfig(name="test_vit", weights="none", blocks=(1, 4))
    one = small_config.model_copy(update={"backbone": tokens})
    start = small_model(one)
    model = small_model(one.model_copy(update={"backbone": (tokens, *small_config.backbones)}))
    widen(model, start)
    assert torch.equal(model.backbone.parts[0].norms[0].weight, start.backbone.norms[0].weight)
    assert torch.equal(model.backbone.parts[0].mixes[1].weight, start.backbone.mixes[1].weight)


@pytest.mark.parametrize(("value", "told"), [(torch.nan, "not finite"), (None, "no weights")])
def test_weights_that_are_no_numbers_are_refused(value: float | None, told: str):
    own = {"a.weight": torch.ones(2, 2)}
    given = {"a.weight": torch.ones(2, 2).long() if value is None else torch.full((2, 2), value)}
    with pytest.raises(CheckpointError, match=rf"file: a\.weight .*{told}"):
        match_weights(own, given, "file")
