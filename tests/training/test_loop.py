"""The training loop: gradients, reports, resumption, refusal of NaN, and that it learns."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unispector.config import BackboneConfig, DenoisingConfig
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import TrainingError
from unispector.evaluation.coco_metrics import evaluate_detections
from unispector.losses.criterion import Criterion
from unispector.modeling.postprocess import Rules, postprocess
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.structures import Batch
from unispector.training.checkpoint import Checkpointer
from unispector.training.loop import Callbacks, Recipe, fit
from unispector.training.optim import build_optimiser, linear_schedule
from unispector.training.prompts import draw_prompts, to_columns

MakeModel = Callable[..., UniSpectorModel]
DrawBatch = Callable[..., Batch]
RECIPE = Recipe(
    steps=5, seed=7, max_examples=4, cross_image=0.5, clip_norm=0.1, bf16=False, log_every=1, save_every=2
)
SILENT = Callbacks(report=lambda step, figures: None, save=lambda step: None)


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
        report, save, keep = callbacks.report, callbacks.save, checkpointer.save
        callbacks = Callbacks(report, lambda step: (keep(step, model, optimiser), save(step))[1])
    fit(model, criterion, batches, optimiser, schedule, recipe, callbacks, start=start)


@pytest.mark.parametrize("variant", ["unispector", "base"])
@pytest.mark.parametrize("fresh", [True, False])
def test_every_parameter_gets_a_gradient(
    variant: str, fresh: bool, make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion
):
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
        columns.prompt_labels, batch.prompts.image_index, images=3, classes=2, max_examples=4, cross_image=0.5
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


def test_reports_and_saves(make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion):
    reports: list[tuple[int, dict[str, float]]] = []
    saves: list[int] = []
    callbacks = Callbacks(report=lambda step, figures: reports.append((step, figures)), save=saves.append)
    run(make_model(), criterion, stream(draw_batch), replace(RECIPE, log_every=3), callbacks)
    assert saves == [2, 4]
    assert [step for step, _ in reports] == [3, 5]
    singles: list[dict[str, float]] = []
    torch.manual_seed(0)
    callbacks = Callbacks(report=lambda step, figures: singles.append(figures), save=saves.append)
    run(make_model(), criterion, stream(draw_batch), RECIPE, callbacks)
    names = {"classification", "box", "giou", "mask", "dice", "denoising", "contrastive", "relevance"}
    assert set(singles[0]) == names | {"total", "gradient_norm", "learning_rate", "images_per_second"}


def test_a_report_is_the_mean_since_the_last(
    make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion
):
    series: dict[int, list[float]] = {1: [], 5: []}
    for every, totals in series.items():
        torch.manual_seed(0)
        callbacks = Callbacks(
            lambda step, figures, totals=totals: totals.append(figures["total"]), SILENT.save
        )
        run(make_model(), criterion, stream(draw_batch), replace(RECIPE, log_every=every), callbacks)
    assert series[5] == pytest.approx([sum(series[1]) / 5])
    assert len(set(series[1])) == 5


class Interrupted(Exception):
    pass


def test_an_interrupted_training_repeats_an_undisturbed_one(
    tmp_path: Path, make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion
):
    backbone = BackboneConfig(name="test_efficientnet", weights="none", frozen=False, drop_path=0.2)

    def recorded(into: dict[int, dict[str, float]]) -> Callable[[int, dict[str, float]], None]:
        return lambda step, figures: into.update(
            {step: {k: v for k, v in figures.items() if k != "images_per_second"}}
        )

    undisturbed: dict[int, dict[str, float]] = {}
    model = make_model(backbone=backbone)
    run(model, criterion, stream(draw_batch), callbacks=Callbacks(recorded(undisturbed), SILENT.save))

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
            callbacks=Callbacks(recorded(again), stop),
            checkpointer=checkpointer,
        )
    assert sorted(again) == [1, 2]
    torch.manual_seed(99)
    resumed = make_model(backbone=backbone)
    run(
        resumed,
        criterion,
        stream(draw_batch, start=2),
        callbacks=Callbacks(recorded(again), SILENT.save),
        checkpointer=checkpointer,
    )
    assert again == undisturbed
    for (name, a), b in zip(model.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_another_seed_draws_otherwise(make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion):
    totals = []
    for seed in (1, 2):
        torch.manual_seed(0)
        callbacks = Callbacks(lambda step, figures: totals.append(figures["total"]), SILENT.save)
        run(make_model(), criterion, stream(draw_batch), replace(RECIPE, steps=1, seed=seed), callbacks)
    assert totals[0] != totals[1]


def test_a_loss_that_is_not_finite_stops_training(
    make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion
):
    good, bad = draw_batch((0, 1), (1,)), draw_batch((0,), (1,), first_id=31)
    broken = tuple(replace(t, boxes=torch.full_like(t.boxes, torch.nan)) for t in bad.targets)
    # Without denoising: its queries come from the boxes, and would carry NaN into every term.
    model = make_model(denoising=DenoisingConfig(queries=0))
    seen: list[dict[str, Tensor]] = []
    callbacks = Callbacks(
        lambda step, figures: seen.append({k: v.clone() for k, v in model.state_dict().items()}), SILENT.save
    )
    with pytest.raises(TrainingError, match=r"step 1: loss term `box` .*images \[31, 32\]") as caught:
        run(model, criterion, iter([good, replace(bad, targets=broken)]), callbacks=callbacks)
    assert "\n" not in str(caught.value)
    # The step was not taken: the weights are those of the step before.
    assert len(seen) == 1
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, seen[0][name]), name


def test_bfloat16(make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion):
    figures: list[dict[str, float]] = []
    callbacks = Callbacks(lambda step, f: figures.append(f), SILENT.save)
    model = make_model()
    run(model, criterion, stream(draw_batch), replace(RECIPE, steps=2, bf16=True), callbacks)
    exact: list[dict[str, float]] = []
    torch.manual_seed(0)
    callbacks = Callbacks(lambda step, f: exact.append(f), SILENT.save)
    run(make_model(), criterion, stream(draw_batch), replace(RECIPE, steps=1), callbacks)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert figures[0]["total"] != exact[0]["total"]
    assert figures[0]["total"] == pytest.approx(exact[0]["total"], rel=0.1)


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
    embeddings = model.encode_prompts(features, batch.prompts)
    prompts = torch.stack([embeddings[batch.prompts.labels == label].mean(0) for label in (0, 1)])
    detections = postprocess(
        model.detect(features, prompts[None]),
        batch.original_hw,
        class_names=("rectangle", "ellipse"),
        image_size=model.image_size,
        padded_size=model.padded_size,
        rules=Rules(False, False, 1.0),
    )
    return evaluate_detections(truth(batch), dict(zip(batch.image_ids, detections, strict=True))).bbox.AP50


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["unispector", "base"])
def test_four_images_are_learned_by_heart(
    variant: str, make_model: MakeModel, draw_batch: DrawBatch, criterion: Criterion
):
    batch = draw_batch((0, 1), (1,), (1, 0), (0,))
    model = make_model(variant)
    assert box_ap50(model, batch) < 50
    recipe = replace(RECIPE, steps=300, clip_norm=1.0)
    run(model.train(), criterion, (batch for _ in range(recipe.steps)), recipe, rate=2e-3)
    assert box_ap50(model, batch) > 95
