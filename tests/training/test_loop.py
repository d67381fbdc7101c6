"""The training loop: gradients, reports, resumption, refusal of NaN, and that it learns."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from torch import Tensor

from made_up_evaluation import evaluate_detections
from unispector.config import BackboneConfig, DenoisingConfig, SimilarityPriorConfig
from unispector.config.training import RIVALS
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import TrainingError
from unispector.losses.criterion import Criterion
from unispector.modeling.postprocess import Rules, postprocess
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.structures import Batch
from unispector.training.checkpoint import Checkpointer
from unispector.training.loop import Callbacks, Recipe, fit
from unispector.training.monitor import SeenPrompts
from unispector.training.optim import build_optimiser, linear_schedule
from unispector.training.prompts import draw_prompts, to_columns

MakeModel = Callable[..., UniSpectorModel]
DrawBatch = Callable[..., Batch]
RECIPE = Recipe(
    steps=5,
    seed=7,
    max_classes=None,
    max_images=4,
    cross_image=0.5,
    clip_norm=0.1,
    bf16=False,
    log_every=1,
    save_every=2,
)
SILENT = Callbacks(report=lambda step, figures: None, save=lambda step: None, look=lambda step, prompts: None)
TIMED = ("speed/", "memory/")  # what a repeated training tells otherwise


def stream(draw_batch: DrawBatch, start: int = 0) -> Iterator[Batch]:
    """A different batch each step; some images without instances."""
    for step in count(start):
        yield draw_batch((0, 1), (1,), (), first_id=1 + 3 * step)


def run(
    model: UniSpectorModel,
    criterion: Criterion,
    batches: Iterator[Batch],
    recipe: Recipe = RECIPE,
    callbacks: Callbacks = SILENT,
    checkpointer: Checkpointer | None = None,
    rate: float = 1e-3,
) -> None:
    """`fit` from the checkpointer's state, saving to it."""
    optimiser = build_optimiser(model, learning_rate=rate, backbone_rate=0.5, weight_decay=0.05)
    start = checkpointer.restore(model, optimiser) if checkpointer else 0
    schedule = linear_schedule(optimiser, steps=recipe.steps, warmup=2, start=start)
    if checkpointer:
        save, keep = callbacks.save, checkpointer.save
        callbacks = replace(callbacks, save=lambda step: (keep(step, model, optimiser), save(step))[1])
    fit(model, criterion, batches, optimiser, schedule, recipe, callbacks, start=start)


@pytest.mark.parametrize("variant", ["unispector", "base", *RIVALS])
@pytest.mark.parametrize("fresh", [True, False])
def test_every_parameter_gets_a_gradient(variant, fresh, make_model, draw_batch, criterion):
    # At side 64 the coarsest level is one cell, which its GroupNorm turns to 0.
    model = make_model(variant, image_size=96)
    if not fresh:
        # Layers that start at zero hold back the gradient of what feeds them.
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    batch = draw_batch((0, 1), (1, 0), (), side=96)
    columns = to_columns(batch.targets, batch.prompts.labels)
    mixing = draw_prompts(
        columns.prompt_labels, batch.prompts.image_index, images=3, classes=2, max_images=4, cross_image=0.5
    )
    result = model(batch.images, batch.prompts, mixing, columns.targets)
    losses = criterion(
        result.output, columns.targets, result.embeddings, columns.prompt_labels, result.level_hw
    )
    losses.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert fresh or parameter.grad.any(), name


LAYER = {"classification", "box", "giou", "mask", "dice"}
SPEED = {"speed/images_per_second", "speed/seconds_per_step", "speed/data_share", "memory/peak_mib"}
FIGURES = {
    *(f"loss_{group}/{term}" for group in ("first", "last", "denoising") for term in LAYER),
    *(f"loss/{term}" for term in ("total", "denoising", "contrastive", "relevance", "prior")),
    *(f"loss_candidate/{term}" for term in ("score", "box", "mask")),
    *("gradient/norm", "rate/learning", "rate/backbone", "prompt/angle_within", "prompt/angle_between"),
}
QUERIES = {"query/coverage", "query/levels"}


@pytest.mark.parametrize(("variant", "queries"), [("unispector", QUERIES), ("base", set())])
def test_reports_and_saves(variant, queries, make_model, draw_batch, criterion):
    reports: list[tuple[int, dict[str, float]]] = []
    saves: list[int] = []
    callbacks = replace(
        SILENT, report=lambda step, figures: reports.append((step, figures)), save=saves.append
    )
    run(make_model(variant), criterion, stream(draw_batch), replace(RECIPE, log_every=3), callbacks)
    assert saves == [2, 4]
    assert [step for step, _ in reports] == [3, 5]
    for _, figures in reports:
        assert set(figures) == FIGURES | SPEED | queries
    speed = reports[0][1]
    assert speed["speed/images_per_second"] * speed["speed/seconds_per_step"] == pytest.approx(3)
    assert 0 < speed["speed/data_share"] < 1
    assert speed["memory/peak_mib"] > 100  # torch alone takes more
    # Warm-up over 2 steps to 1e-3, then down to 0 at step 5; the backbone's rate is half of it.
    assert [figures["rate/learning"] for _, figures in reports] == pytest.approx([1e-3 * 2 / 3, 0])
    assert reports[0][1]["rate/backbone"] == pytest.approx(1e-3 / 3)


def test_angles_are_those_of_the_reported_steps(make_model, draw_batch, criterion):
    looks: list[tuple[int, SeenPrompts]] = []
    reports: dict[int, dict[str, float]] = {}
    callbacks = replace(
        SILENT,
        report=lambda step, figures: reports.update({step: figures}),
        look=lambda step, prompts: looks.append((step, prompts)),
    )
    run(make_model(), criterion, stream(draw_batch), replace(RECIPE, log_every=4), callbacks)
    assert [step for step, _ in looks] == [2, 3, 4, 5]
    for step, seen in looks:
        assert seen.labels.tolist() == [0, 1, 1] * step
        assert seen.embeddings.shape == (3 * step, 32)
    first, last = looks[2][1], looks[3][1]
    assert np.array_equal(last.embeddings[:12], first.embeddings)
    assert first.angles().items() <= reports[4].items()
    only = SeenPrompts(last.embeddings[12:], last.labels[12:])
    assert only.angles().items() <= reports[5].items()


def test_looking_happens_before_the_report_and_changes_nothing(make_model, draw_batch, criterion):
    batch, events = draw_batch((0, 1), (1,)), list[tuple[str, int]]()

    def train(*, look: bool) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
        torch.manual_seed(0)
        model, figures = make_model(), list[dict[str, float]]()

        def report(step: int, values: dict[str, float]) -> None:
            events.append(("report", step))
            figures.append({name: v for name, v in values.items() if not name.startswith(TIMED)})

        def predict(step: int, prompts: SeenPrompts) -> None:
            events.append(("look", step))
            if look:
                torch.rand(7)
                box_ap50(model, batch)
                model.train()

        run(model, criterion, stream(draw_batch), callbacks=Callbacks(report, SILENT.save, predict))
        return model.state_dict(), figures

    plain, watched = train(look=False), train(look=True)
    assert events[:4] == [("report", 1), ("look", 2), ("report", 2), ("look", 3)]
    assert plain[1] == watched[1]
    for name, value in plain[0].items():
        assert torch.equal(value, watched[0][name]), name


def test_a_report_is_the_mean_since_the_last(make_model, draw_batch, criterion):
    series: dict[int, list[float]] = {1: [], 5: []}
    for every, totals in series.items():
        torch.manual_seed(0)
        callbacks = replace(
            SILENT, report=lambda step, figures, totals=totals: totals.append(figures["loss/total"])
        )
        run(make_model(), criterion, stream(draw_batch), replace(RECIPE, log_every=every), callbacks)
    assert series[5] == pytest.approx([sum(series[1]) / 5])
    assert len(set(series[1])) == 5


@pytest.mark.parametrize("variant", ["unispector", "base", *RIVALS])
@pytest.mark.parametrize("labels", [((0, 1), (1, 0), (), ()), ((), (0,))])
def test_images_without_a_defect_are_trained_on(variant, labels, make_model, draw_batch, criterion):
    model, figures = make_model(variant, image_size=96), list[dict[str, float]]()
    callbacks = replace(SILENT, report=lambda step, values: figures.append(values))
    batch = draw_batch(*labels, side=96)
    run(model, criterion, iter([batch]), replace(RECIPE, steps=1), callbacks)
    assert all(np.isfinite(list(values.values())).all() for values in figures)
    assert all(value.isfinite().all() for value in model.parameters())


def test_an_image_without_a_defect_silences_its_queries(make_model, draw_batch, criterion):
    model = make_model("base", image_size=96)
    batch = draw_batch((0, 1), (1, 0), (), side=96)
    columns = to_columns(batch.targets, batch.prompts.labels)
    mixing = draw_prompts(
        columns.prompt_labels, batch.prompts.image_index, images=3, classes=2, max_images=5, cross_image=1.0
    )
    result = model(batch.images, batch.prompts, mixing, columns.targets)
    total = criterion(
        result.output, columns.targets, result.embeddings, columns.prompt_labels, result.level_hw
    ).total
    for layer in result.output.layers:
        (gradient,) = torch.autograd.grad(total, layer.logits, retain_graph=True)
        assert (gradient[2] > 0).all()
        assert (gradient[:2] < 0).any()  # what is matched is to be found


class Interrupted(Exception):
    pass


def test_an_interrupted_training_repeats_an_undisturbed_one(tmp_path, make_model, draw_batch, criterion):
    backbone = BackboneConfig(name="test_efficientnet", weights="none", frozen=False, drop_path=0.2)

    def recorded(into: dict[int, dict[str, float]]) -> Callable[[int, dict[str, float]], None]:
        return lambda step, figures: into.update(
            {step: {k: v for k, v in figures.items() if not k.startswith(TIMED)}}
        )

    undisturbed: dict[int, dict[str, float]] = {}
    model = make_model(backbone=backbone)
    run(model, criterion, stream(draw_batch), callbacks=replace(SILENT, report=recorded(undisturbed)))

    torch.manual_seed(0)
    again: dict[int, dict[str, float]] = {}
    checkpointer = Checkpointer(tmp_path / "c.safetensors", "job")

    def stop(step: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        run(
            make_model(backbone=backbone),
            criterion,
            stream(draw_batch),
            callbacks=replace(SILENT, report=recorded(again), save=stop),
            checkpointer=checkpointer,
        )
    assert sorted(again) == [1, 2]
    torch.manual_seed(99)
    resumed = make_model(backbone=backbone)
    run(
        resumed,
        criterion,
        stream(draw_batch, start=2),
        callbacks=replace(SILENT, report=recorded(again)),
        checkpointer=checkpointer,
    )
    assert again == undisturbed
    for (name, a), b in zip(model.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_another_seed_draws_otherwise(make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion):
    totals = []
    for seed in (1, 2):
        torch.manual_seed(0)
        callbacks = replace(SILENT, report=lambda step, figures: totals.append(figures["loss/total"]))
        run(make_model(), criterion, stream(draw_batch), replace(RECIPE, steps=1, seed=seed), callbacks)
    assert totals[0] != totals[1]


def test_a_loss_that_is_not_finite_stops_training(make_model, draw_batch, criterion):
    good, bad = draw_batch((0, 1), (1,)), draw_batch((0,), (1,), first_id=31)
    broken = tuple(replace(t, boxes=torch.full_like(t.boxes, torch.nan)) for t in bad.targets)
    # Without denoising: its queries come from the boxes, and would carry NaN into every term.
    model = make_model(denoising=DenoisingConfig(queries=0))
    seen: list[dict[str, Tensor]] = []
    callbacks = replace(
        SILENT,
        report=lambda step, figures: seen.append({k: v.clone() for k, v in model.state_dict().items()}),
    )
    with pytest.raises(
        TrainingError, match=r"step 2: loss term `loss_last/box` .*images \[31, 32\]"
    ) as caught:
        run(model, criterion, iter([good, replace(bad, targets=broken)]), callbacks=callbacks)
    assert "\n" not in str(caught.value)
    # The step was not taken: the weights are those of the step before.
    assert len(seen) == 1
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, seen[0][name]), name


def test_bfloat16(make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion):
    figures: list[dict[str, float]] = []
    callbacks = replace(SILENT, report=lambda step, f: figures.append(f))
    model = make_model()
    run(model, criterion, stream(draw_batch), replace(RECIPE, steps=2, bf16=True), callbacks)
    exact: list[dict[str, float]] = []
    torch.manual_seed(0)
    callbacks = replace(SILENT, report=lambda step, f: exact.append(f))
    run(make_model(), criterion, stream(draw_batch), replace(RECIPE, steps=1), callbacks)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert figures[0]["loss/total"] != exact[0]["loss/total"]
    assert figures[0]["loss/total"] == pytest.approx(exact[0]["loss/total"], rel=0.1)


def truth(batch: Batch) -> Annotations:
    instances = []
    for image_id, target, (height, width) in zip(
        batch.image_ids, batch.targets, batch.original_hw, strict=True
    ):
        for label, box in zip(target.labels.tolist(), cxcywh_to_xyxy(target.boxes), strict=True):
            x1, y1, x2, y2 = (box * torch.tensor([width, height] * 2)).tolist()
            xywh = (x1, y1, x2 - x1, y2 - y1)
            instances.append(
                InstanceRecord(len(instances) + 1, image_id, label + 1, xywh, xywh[2] * xywh[3], None)
            )
    images = tuple(
        ImageRecord(i, f"{i}.png", w, h) for i, (h, w) in zip(batch.image_ids, batch.original_hw, strict=True)
    )
    return Annotations(
        images, tuple(instances), (CategoryRecord(1, "rectangle", "x"), CategoryRecord(2, "ellipse", "x"))
    )


@torch.no_grad()
def box_ap50(model: UniSpectorModel, batch: Batch) -> float:
    """Box AP50 in percent, every class prompted by the mean of its instances."""
    features = model.eval().encode_images(batch.images)
    encoded = model.encode_prompts(features, batch.prompts)
    members = batch.prompts.labels == torch.tensor([[0], [1]])
    means = members / members.sum(1, keepdim=True) @ encoded.embeddings
    prompts = model.class_prompts(means[None], encoded.memory, members[None])
    detections = postprocess(
        model.detect(features, prompts),
        batch.original_hw,
        class_names=("rectangle", "ellipse"),
        image_size=batch.images.shape[-1],
        rules=Rules(False, False, 1.0),
        limit=300,
    )
    return evaluate_detections(truth(batch), dict(zip(batch.image_ids, detections, strict=True))).bbox.AP50


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["unispector", "base"])
def test_four_images_are_learned_by_heart(variant, make_model, draw_batch, criterion):
    batch = draw_batch((0, 1), (1,), (1, 0), (0,))
    # The similarity prior would find most of them before any step.
    model = make_model(variant, similarity_prior=SimilarityPriorConfig(enabled=False))
    assert box_ap50(model, batch) < 50
    recipe = replace(RECIPE, steps=300, clip_norm=1.0)
    run(model.train(), criterion, (batch for _ in range(recipe.steps)), recipe, rate=2e-3)
    assert box_ap50(model, batch) > 95
