"""The whole detector: nothing leaks between images, regions or classes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unispector.config import ModelConfig, SimilarityPriorConfig
from unispector.modeling.pixel_decoder import token_centres
from unispector.modeling.prior.candidates import GIVEN, GROWN, OF_QUERY
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.boxes import xyxy_to_cxcywh
from unispector.prior_structures import PriorFeatures, PriorPrompts
from unispector.structures import ClassPrompts, ImageFeatures, Targets, VisualPrompts

LEVELS = ((2, 2), (3, 3), (6, 6), (12, 12))
MakeModel = Callable[..., UniSpectorModel]
Regions = Callable[..., VisualPrompts]
Prompts = Callable[..., ClassPrompts]


def images(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 3, 72, 72), dtype=torch.uint8)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def one(features: ImageFeatures, image: int) -> ImageFeatures:
    index, prior = slice(image, image + 1), features.prior
    return replace(
        features,
        memory=features.memory[index],
        mask_features=features.mask_features[index],
        prior=prior and PriorFeatures(tuple(level[index] for level in prior.levels), prior.detail[index]),
    )


def some(prompts: ClassPrompts, sets: slice | list[int], classes: slice | list[int]) -> ClassPrompts:
    """Some of the sets and, in a given order, of the classes."""
    prior = prompts.prior
    if prior is not None:
        members, typical = prior.members[sets][:, classes], prior.typical[sets][:, classes]
        prior = PriorPrompts(prior.memory, members, typical)
    return ClassPrompts(prompts.embeddings[sets][:, classes], prior)


EVERY = slice(None)


@pytest.fixture(params=["unispector", "grown", "base"])
def either(
    request: pytest.FixtureRequest, small_model: MakeModel, small_config: ModelConfig
) -> UniSpectorModel:
    if request.param == "base":
        return small_model(small_config.with_parts(sspe=False, pqs=False))
    return small_model(similarity_prior=SimilarityPriorConfig(grown=2 if request.param == "grown" else 0))


@torch.no_grad()
def test_a_batch_is_its_images_one_by_one(either, draw_regions, draw_prompts):
    batch = images()
    regions = draw_regions([0, 0, 2])
    features = either.encode_images(batch)
    encoded = either.encode_prompts(features, regions)
    classes = draw_prompts(either, 4)
    output = either.detect(features, classes)
    for image in range(3):
        alone = either.encode_images(batch[image : image + 1])
        assert alone.level_hw == features.level_hw
        close(alone.memory[0], features.memory[image])
        close(alone.mask_features[0], features.mask_features[image])
        mine = regions.image_index == image
        own = VisualPrompts(
            regions.roi_masks[mine],
            torch.zeros(int(mine.sum())).long(),
            regions.labels[mine],
            regions.spectra[mine],
        )
        again = either.encode_prompts(alone, own)
        close(again.embeddings, encoded.embeddings[mine])
        single = either.detect(alone, classes)
        for name in ("logits", "boxes", "masks"):
            close(getattr(single.layers[-1], name)[0], getattr(output.layers[-1], name)[image])
        if either.similarity is not None:
            for kind in ("inside", "outside", "plainness"):
                for one_level, level in zip(
                    getattr(again.memory, kind), getattr(encoded.memory, kind), strict=True
                ):
                    close(one_level, level[mine])
            assert (encoded.memory.image[mine] == image).all()
            close(again.memory.sizes, encoded.memory.sizes[mine])
            for name in ("logits", "presence", "likeness", "coarse", "fine", "shared"):
                close(getattr(single.prior, name)[0], getattr(output.prior, name)[image])


@torch.no_grad()
def test_other_images_of_a_batch_do_not_matter(either: UniSpectorModel, draw_prompts: Prompts):
    batch = images(2)
    other = batch.clone()
    other[1] = 255 - other[1]
    classes = draw_prompts(either, 2)
    first, second = (either.detect(either.encode_images(b), classes).layers[-1] for b in (batch, other))
    assert torch.equal(first.logits[0], second.logits[0])
    assert torch.equal(first.masks[0], second.masks[0])
    assert not torch.equal(first.masks[1], second.masks[1])


@torch.no_grad()
def test_shapes_and_layers(either: UniSpectorModel, draw_prompts: Prompts):
    output = either.detect(either.encode_images(images(2)), draw_prompts(either, 5))
    (last,) = output.layers
    assert last.logits.shape == (2, 10, 5)
    assert last.boxes.shape == (2, 10, 4)
    assert last.masks.shape == (2, 10, 24, 24)
    assert output.denoising == ()
    assert (output.prior is None) == (output.candidates is None) == (either.similarity is None)
    if output.prior is not None:
        assert output.prior.logits.shape == (2, 5, 48, 48)
        assert output.prior.presence.shape == (2, 5)
        judged, candidates = output.candidates, output.candidates.candidates
        assert len(judged) > 0
        assert 0 <= candidates.map.min() <= candidates.map.max() < 2 * 5
        assert candidates.canvas.max() < len(judged.canvases)
        # Parts are cut from the class masks, queries and what is grown from their own.
        of_query, grown = candidates.facts[:, OF_QUERY] == 1, candidates.facts[:, GROWN] == 1
        assert of_query.any()
        assert grown.any() == (either.similarity.grown > 0)
        part = ~(of_query | grown)
        assert torch.equal(candidates.canvas[part], candidates.map[part])
        assert (candidates.canvas[~part] >= 10).all()
        assert not set(candidates.canvas[grown].tolist()) & set(candidates.canvas[of_query].tolist())
        assert torch.equal(judged.canvases[:10], output.prior.logits.flatten(0, 1))


@torch.no_grad()
def test_candidates_of_queries_are_those_of_the_last_layer(small_model: MakeModel, draw_prompts: Prompts):
    """Each of them covers what its query's mask, refined by the prior, covers in the image that it is of."""
    model = small_model()
    output = model.detect(model.encode_images(images(2)), draw_prompts(model, 3, 2))
    masks = torch.nn.functional.interpolate(
        output.layers[-1].masks.flatten(0, 1)[:, None], (48, 48), mode="bilinear", align_corners=False
    )[:, 0]
    candidates, canvases = output.candidates.candidates, output.candidates.canvases
    of_query = (candidates.facts[:, OF_QUERY] == 1).nonzero().flatten()
    for number in of_query.tolist():
        row, column = divmod(int(candidates.map[number]), 3)
        canvas = canvases[candidates.canvas[number]]
        distances = (masks[row * 10 : row * 10 + 10] - canvas).abs().amax((1, 2))
        assert distances.min() < 1e-3
        likely = output.layers[-1].logits[row, int(distances.argmin()), column].sigmoid()
        close(candidates.facts[number, GIVEN], likely)


def test_the_head_teaches_the_prior_but_neither_decoder_nor_class_masks(small_model, draw_prompts):
    model = small_model()
    judged = model.detect(model.encode_images(images(1)), draw_prompts(model, 2)).candidates
    (judged.scores.sum() + judged.boxes.sum() + judged.masks.square().sum()).backward()
    taught = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name.rsplit(".")[0] for name in taught} == {"similarity"}
    assert {name for name, _ in model.named_parameters() if name.startswith("similarity.head.")} <= taught
    assert any(name.startswith("similarity.prior.") for name in taught)
    assert "similarity.prior.mask.weight" not in taught


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 4])
def test_sets_of_prompts_together_are_each_set_alone(either, draw_prompts, count):
    features, sets = either.encode_images(images()), draw_prompts(either, 5, count)
    output = either.detect(features, sets)
    together = output.layers[-1]
    assert together.logits.shape == (3 * count, 10, 5)
    for number in range(count):
        single = either.detect(features, some(sets, [number], EVERY))
        alone = single.layers[-1]
        for image in range(3):
            # The rows of an image follow one another.
            row = image * count + number
            for name in ("logits", "boxes", "masks"):
                close(getattr(together, name)[row], getattr(alone, name)[image])
            if output.prior is not None:
                for kind in ("logits", "presence", "likeness", "coarse", "fine"):
                    close(getattr(output.prior, kind)[row], getattr(single.prior, kind)[image])
    rows = together.logits.flatten(1)
    assert torch.pdist(rows).min() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("pqs", [True, False])
def test_queries_are_chosen_for_each_image_and_set_of_prompts(small_model, small_config, draw_prompts, pqs):
    model = small_model(small_config if pqs else small_config.with_parts(sspe=False, pqs=False))
    features, sets = model.encode_images(images(2)), draw_prompts(model, 4, 3)
    selection = model.detect(features, sets).selection
    assert selection.content.shape == (6, 10, model.width)
    if not pqs:
        assert (selection.content == selection.content[0]).all()
        return
    assert len({tuple(row) for row in selection.indices.tolist()}) == 6
    for image in range(2):
        for number in range(3):
            alone = model.detect(one(features, image), some(sets, [number], EVERY)).selection
            assert torch.equal(selection.indices[image * 3 + number], alone.indices[0])
            close(selection.content[image * 3 + number], alone.content[0])


@torch.no_grad()
def test_a_class_list_in_another_order(either: UniSpectorModel, draw_prompts: Prompts):
    features, classes = either.encode_images(images(2)), draw_prompts(either, 4)
    order = [3, 0, 2, 1]
    first, second = (either.detect(features, c).layers[-1] for c in (classes, some(classes, EVERY, order)))
    close(first.logits[..., order], second.logits)
    close(first.boxes, second.boxes)
    close(first.masks, second.masks)


@torch.no_grad()
@pytest.mark.parametrize("prompt_visible", [False, True])
def test_classes_are_independent_unless_queries_see_prompts(
    prompt_visible: bool, small_model: MakeModel, small_config: ModelConfig, draw_prompts: Prompts
):
    plain = {"prompt_visible": prompt_visible, "similarity_prior": SimilarityPriorConfig(enabled=False)}
    model = small_model(small_config.with_parts(sspe=False, pqs=False), **plain)
    features, classes = model.encode_images(images(2)), draw_prompts(model, 3)
    joint, fewer = (model.detect(features, c).layers[-1] for c in (classes, some(classes, EVERY, [0, 2])))
    same = torch.allclose(joint.logits[..., [0, 2]], fewer.logits, atol=2e-4, rtol=1e-3)
    assert same != prompt_visible
    assert torch.allclose(joint.masks, fewer.masks, atol=2e-4, rtol=1e-3) != prompt_visible


@torch.no_grad()
def test_a_class_changes_the_prompts_token_of_no_other(small_model: MakeModel, draw_prompts: Prompts):
    """With PQS, too: same queries by a doubled prompt, which can change neither choice nor scores."""
    model = small_model(prompt_visible=False)
    features, classes = model.encode_images(images(2)), draw_prompts(model, 2)
    twice = some(classes, EVERY, [0, 1, 1])
    single, doubled = (model.detect(features, c).layers[-1] for c in (classes, twice))
    close(single.logits, doubled.logits[..., :2])
    close(doubled.logits[..., 1], doubled.logits[..., 2])


@torch.no_grad()
def test_queries_stay_off_the_padded_band(small_model: MakeModel, draw_prompts: Prompts):
    model = small_model()
    centres = token_centres(LEVELS, torch.device("cpu"))
    for training in (False, True):
        model.query_selection.train(training)
        selection = model.detect(model.encode_images(images(2)), draw_prompts(model, 2)).selection
        assert (centres[selection.indices] < 0.75).all()


def training_case(draw_regions: Regions) -> tuple[VisualPrompts, tuple[Targets, ...], Tensor]:
    """Regions in two of three images, their targets, and a mixing of two classes."""
    regions = draw_regions([0, 0, 1])
    targets = []
    for image in range(3):
        masks = regions.roi_masks[regions.image_index == image]
        places = [m.nonzero() for m in masks]
        corners = [torch.cat((p.amin(0).flip(0), p.amax(0).flip(0) + 1)) / 96 for p in places]
        boxes = xyxy_to_cxcywh(torch.stack(corners)) if corners else torch.zeros(0, 4)
        targets.append(Targets(torch.zeros(len(masks)).long(), boxes, masks))
    mixing = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]).expand(3, 2, 3).clone()
    return regions, tuple(targets), mixing


def test_training_predicts_at_every_layer(either: UniSpectorModel, draw_regions: Regions):
    regions, targets, mixing = training_case(draw_regions)
    result = either.train()(images(), regions, mixing, targets)
    assert result.embeddings.shape == (3, either.width)
    assert result.level_hw == LEVELS
    assert len(result.output.layers) == len(result.output.denoising) == 2
    for layer in result.output.layers:
        assert layer.logits.shape == (3, 10, 2)
    for layer in result.output.denoising:
        # Eight denoising queries, two instances at most: four groups.
        assert layer.logits.shape == (3, 8, 2)
        assert layer.masks.shape == (3, 8, 24, 24)


@torch.no_grad()
def test_denoising_queries_do_not_leak(small_model: MakeModel, draw_regions: Regions):
    """The ground truth in the sequence must not help the object queries."""
    model = small_model()
    regions, targets, mixing = training_case(draw_regions)
    batch = images()
    empty = tuple(Targets(t.labels[:0], t.boxes[:0], t.masks[:0]) for t in targets)
    shown, hidden = (model(batch, regions, mixing, t).output for t in (targets, empty))
    assert hidden.denoising == ()
    for a, b in zip(shown.layers, hidden.layers, strict=True):
        close(a.logits, b.logits)
        close(a.boxes, b.boxes)
        close(a.masks, b.masks)


@torch.no_grad()
def test_training_and_detection_agree(small_model: MakeModel, draw_regions: Regions):
    model = small_model()
    regions, targets, mixing = training_case(draw_regions)
    batch = images()
    trained = model(batch, regions, mixing, targets).output.layers[-1]
    features = model.encode_images(batch)
    encoded = model.encode_prompts(features, regions)
    classes = (mixing[0] @ encoded.embeddings)[None]
    # The two regions of the first image and class are one marked image to the prior.
    memory, owner = encoded.memory.by_image(regions.labels)
    assert owner.tolist() == [0, 0, 1]
    prompts = model.class_prompts(classes, memory, torch.tensor([[[True, False], [False, True]]]))
    detected = model.detect(features, prompts).layers[-1]
    close(trained.logits, detected.logits)
    close(trained.boxes, detected.boxes)
    close(trained.masks, detected.masks)


def test_maps_that_are_known_already_change_nothing(either: UniSpectorModel, draw_regions: Regions):
    """What the backbone puts out may come from elsewhere; it is then not computed."""
    regions, targets, mixing = training_case(draw_regions)
    batch = images()
    either.eval()
    with torch.no_grad():
        maps = either.backbone(batch)
        expected = either(batch, regions, mixing, targets).output
        either.backbone.forward = None
        found = either(batch, regions, mixing, targets, maps).output
    for a, b in zip(found.layers, expected.layers, strict=True):
        close(a.logits, b.logits)
        close(a.masks, b.masks)
    if either.similarity is not None:
        close(found.prior.logits, expected.prior.logits)
        close(found.candidates.scores, expected.candidates.scores)
