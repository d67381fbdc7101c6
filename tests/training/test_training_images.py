"""Images of a training: the examples, what is drawn, that it disturbs nothing, and MLflow's copy."""

import errno
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from unispector.config import load_config
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.modeling.saved_model import load_model
from unispector.pipeline.train import plan
from unispector.project.paths import TRACKING
from unispector.training.images import FOLDER, TrainingImages, _lowest_drawn, choose_examples
from unispector.training.job import initial_model, train
from unispector.training.monitor import SeenPrompts
from unispector.training.ray_trainer import Reported, WorkerGroup
from unispector.training.runs import recorded


@pytest.fixture
def job(tiny_project):
    return plan(load_config(tiny_project / "params.yaml"), tiny_project)[0]


def annotated(*classes_of_images, crowd=False):
    """Images that show these classes; class c has category id 10 * c."""
    images = tuple(ImageRecord(n, f"{n}.png", 9, 9) for n in range(1, len(classes_of_images) + 1))
    pairs = [(image.id, label) for image, own in zip(images, classes_of_images, strict=True) for label in own]
    instances = tuple(
        InstanceRecord(n, image_id, 10 * label, (1.0, 1.0, 3.0, 3.0), 9.0, None, iscrowd=crowd)
        for n, (image_id, label) in enumerate(pairs, start=1)
    )
    labels = sorted({label for own in classes_of_images for label in own})
    return Annotations(images, instances, tuple(CategoryRecord(10 * c, f"class {c}", "x") for c in labels))


def chosen(annotations, count):
    return [(e.category_id, e.prompt.id, e.target.id) for e in choose_examples(annotations, count)]


def test_examples_are_two_images_of_a_class_spread_over_the_classes():
    many = annotated(*[(label,) for label in range(1, 9) for _ in range(3)])
    assert chosen(many, 4) == [(10, 1, 2), (30, 7, 8), (50, 13, 14), (70, 19, 20)]
    assert chosen(many, 99)[-1] == (80, 22, 23)


def test_no_image_is_shown_twice_and_a_class_of_one_image_not_at_all():
    assert chosen(annotated((1, 2), (1, 2), (2,), (3,), (2,)), 4) == [(10, 1, 2), (20, 3, 5)]
    assert chosen(annotated((1, 2), (1, 2), (3,)), 4) == [(10, 1, 2)]
    assert chosen(annotated((1,), (2,)), 4) == []
    assert chosen(annotated((1,), (1,), crowd=True), 4) == []


def test_a_training_with_pictures_equals_one_without_to_the_bit(job, tmp_path, monkeypatch):
    backbone = job.config.model.backbone.model_copy(update={"drop_path": 0.2})
    model = job.config.model.model_copy(update={"backbone": backbone})
    job = replace(job, config=job.config.model_copy(update={"model": model}))

    def trained(name):
        own = replace(job, model_directory=tmp_path / name, work_directory=tmp_path / f"{name}-work")
        losses = []
        train(own, "", WorkerGroup(), lambda step, metrics: losses.append((step, metrics["loss/total"])))
        return load_model(own.model_directory).model.state_dict(), losses

    weights, losses = trained("with")
    monkeypatch.setattr(TrainingImages, "draw", lambda *arguments: None)
    others, other_losses = trained("without")
    drawn = sorted(path.name for path in (tmp_path / "with-work" / FOLDER).iterdir())
    assert drawn == [
        f"step-00000{step}-{name}" for step in range(1, 5) for name in ("predictions.jpg", "prompts.png")
    ]
    assert not (tmp_path / "without-work" / FOLDER).exists()
    assert losses == other_losses
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name


def test_a_training_goes_on_where_its_pictures_find_no_room(job, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TrainingImages, "draw", full)
    assert train(job, "", WorkerGroup(), lambda step, metrics: None)
    assert "step 1 is not drawn ([Errno 28] No space left on device); training continues" in caplog.text


def test_only_the_first_process_draws(job, monkeypatch):
    monkeypatch.setattr("unispector.training.job._parallel", lambda model, group: model)
    recipe = job.config.train.model_copy(update={"batch_size": 4, "steps": 1})
    job = replace(job, config=job.config.model_copy(update={"train": recipe}))
    train(job, "", WorkerGroup(rank=1, size=2), lambda step, metrics: None)
    assert not (job.work_directory / FOLDER).exists()
    train(job, "", WorkerGroup(rank=0, size=2), lambda step, metrics: None)
    assert len(list((job.work_directory / FOLDER).iterdir())) == 2


def test_pictures_show_what_is_there(job):
    annotations = Annotations.read(job.train_file)
    model = initial_model(job).train()
    prompts = SeenPrompts(np.random.default_rng(0).normal(size=(9, 4)), np.arange(9) % 2)
    TrainingImages(annotations, job.image_root, job.config, job.work_directory).draw(70, model, prompts)
    assert model.training
    assert model.decoder.training
    sheet = cv2.imread(str(job.work_directory / "step-000070-predictions.jpg"))
    # Two examples below one another; each a prompt, its truth and a prediction of 512 pixels.
    assert sheet.shape == (2 * (58 + 512 + 40), 3 * 512 + 4 * 16, 3)
    for row, example in enumerate(choose_examples(annotations, 4)):
        for column, image in enumerate((example.prompt, example.target, example.target)):
            top, left = row * 610 + 58, 16 + column * 528
            shown = cv2.resize(
                sheet[top : top + 512, left : left + 512], (64, 64), interpolation=cv2.INTER_AREA
            )
            truth = cv2.imread(str(job.image_root / image.file_name))
            # Boxes, masks and captions hide a part of it.
            assert np.median(np.abs(shown.astype(int) - truth)) < 30, (row, column)
    assert cv2.imread(str(job.work_directory / "step-000070-prompts.png")) is not None


@pytest.mark.parametrize(
    ("scores", "lowest"),
    [
        ([], 0.05),
        ([0.9, 0.7, 0.5, 0.2], 0.05),
        ([0.9, 0.0312], 0.031),
        ([0.0479, 0.0433, 0.0412, 0.04], 0.041),
    ],
)
def test_early_on_the_surest_are_drawn_whatever_their_score(scores, lowest):
    count = len(scores)
    found = Detections(
        torch.zeros(count, 4), torch.tensor(scores), torch.zeros(count, dtype=torch.long), (), ("a",), (9, 9)
    )
    assert _lowest_drawn(found) == pytest.approx(lowest)


def test_without_examples_or_prompts_there_is_no_picture(job):
    annotations = annotated((1,), (2,))
    empty = SeenPrompts(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    TrainingImages(annotations, job.image_root, job.config, job.work_directory).draw(
        1, initial_model(job), empty
    )
    assert not job.work_directory.exists()


def test_the_driver_records_each_picture_once(template, job, tiny_project):
    shutil.copytree(template, tiny_project / TRACKING)
    folder = job.work_directory / FOLDER
    folder.mkdir(parents=True)
    job.model_directory.mkdir(parents=True)
    (job.model_directory / "config.json").write_text("{}")

    with recorded(job, tiny_project) as follower:
        follower(Reported(1, 1.0, {"loss/total": 3.0}))
        (folder / "step-000002-prompts.png").write_bytes(b"one")
        (folder / ".step-000003-prompts.abcd.png").write_bytes(b"half written")
        follower(Reported(2, 2.0, {"loss/total": 2.0, "query/coverage": 0.5}))
        (folder / "step-000002-prompts.png").write_bytes(b"changed")
        (folder / "step-000004-prompts.png").write_bytes(b"two")
        follower(Reported(4, 3.0, {"loss/total": 1.0}))
    stored = (tiny_project / TRACKING).glob(f"artifacts/training/{follower.run_id}/**/*.png")
    assert {path.name: path.read_bytes() for path in stored} == {
        "step-000002-prompts.png": b"one",
        "step-000004-prompts.png": b"two",
    }


def test_a_curve_has_a_column_for_each_figure_there_is_at_any_step(template, job, tiny_project):
    shutil.copytree(template, tiny_project / TRACKING)
    job.model_directory.mkdir(parents=True)
    (job.model_directory / "config.json").write_text("{}")
    with recorded(job, tiny_project) as follower:
        follower(Reported(1, 1.0, {"loss/total": 3.0}))
        follower(Reported(2, 2.0, {"loss/total": 2.0, "query/coverage": 0.5}))
        follower(Reported(3, 3.0, {"loss/total": 1.0}))
    follower.write_curve(job.work_directory / "curve.csv")
    assert (job.work_directory / "curve.csv").read_text().splitlines() == [
        "step,loss/total,query/coverage",
        "1,3.0,",
        "2,2.0,0.5",
        "3,1.0,",
    ]
