"""The rows of the paper's ablation: each has the parts of those before it."""

import pytest

from unispector.config import Config, DataConfig, ModelConfig
from unispector.config.training import ABLATION

WHOLE = Config(data=DataConfig(sets={}), model=ModelConfig(image_size=96))


def parts(config: Config) -> set[str]:
    """Which of the paper's parts are on."""
    model, loss = config.model, config.loss
    switches = {
        "spectrum": model.spectral.enabled,
        "aligner": model.visual_aligner,
        "cpe": loss.contrastive > 0,
        "pqs": model.query_selection.enabled,
        "relevance": loss.relevance > 0,
        "visible": model.prompt_visible,
    }
    return {part for part, there in switches.items() if there}


@pytest.mark.parametrize(
    ("row", "on"),
    [
        ("base", set()),
        ("sspe", {"spectrum", "aligner"}),
        ("cpe", {"spectrum", "aligner", "cpe"}),
        ("unispector", {"spectrum", "aligner", "cpe", "pqs", "relevance", "visible"}),
        ("untrained", {"spectrum", "aligner", "cpe", "pqs", "relevance", "visible"}),
    ],
)
def test_a_row_has_its_parts_and_those_of_the_rows_before(row: str, on: set[str]) -> None:
    assert parts(WHOLE.variant(row)) == on


@pytest.mark.parametrize("row", ABLATION)
@pytest.mark.parametrize("prior", [True, False])
def test_nothing_else_changes_not_even_the_prior(row: str, prior: bool) -> None:
    similarity = WHOLE.model.similarity_prior.model_copy(update={"enabled": prior})
    config = WHOLE.model_copy(
        update={"model": WHOLE.model.model_copy(update={"similarity_prior": similarity})}
    )
    found = config.variant(row)
    own = {
        name: getattr(config.model, name)
        for name in ("spectral", "visual_aligner", "query_selection", "prompt_visible")
    }
    losses = {"contrastive": config.loss.contrastive, "relevance": config.loss.relevance}
    assert found.model.similarity_prior.enabled is prior
    assert found.model.model_copy(update=own) == config.model
    assert found.loss.model_copy(update=losses) == config.loss
    assert (found.augment, found.prompt, found.data) == (config.augment, config.prompt, config.data)


@pytest.mark.parametrize(
    ("name", "encoder", "selects"),
    [("dinov", "sspe", False), ("trex2", "boxes", True), ("maskdino", "classes", True)],
)
def test_a_rival_has_nothing_that_is_ours(name: str, encoder: str, selects: bool) -> None:
    found = WHOLE.variant(name)
    assert parts(found) == ({"pqs", "relevance"} if selects else set())
    model = found.model
    assert (model.prompt_encoder, model.query_selection.noise) == (encoder, 0.0)
    assert not model.similarity_prior.enabled
    assert (model.boxes, model.confine_masks, model.nms_iou, model.magnify) == ("head", False, 1.0, 1.0)
    sizes = ("image_size", "width", "heads", "queries", "encoder_layers", "decoder_layers", "backbone")
    assert all(getattr(model, size) == getattr(WHOLE.model, size) for size in sizes)
    assert (found.augment, found.prompt, found.data) == (WHOLE.augment, WHOLE.prompt, WHOLE.data)


def test_a_part_that_is_off_stays_off() -> None:
    model = WHOLE.model.model_copy(update={"visual_aligner": False})
    assert not WHOLE.model_copy(update={"model": model}).variant("cpe").model.visual_aligner
