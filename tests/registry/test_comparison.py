"""What a comparison of two models measures against the evaluation of files that were made by hand."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmark_project import make_model
from unispector.benchmark.evaluate import evaluate_files
from unispector.benchmark.plan import evaluations_of
from unispector.config import PromoteConfig, SweepConfig
from unispector.data.coco import Annotations
from unispector.data.prompt_changes import with_shifted_boxes
from unispector.evaluation.coco_metrics import evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.intervals import Interval
from unispector.inference.detector import UniSpector
from unispector.registry.comparison import ModelPair, compare_models, fair_set

MODELS = ("challenger", "champion")


@pytest.fixture(scope="module")
def config(benchmark):
    return benchmark.config.model_copy(
        update={
            "promote": PromoteConfig(resamples=100, blur=2.0, box_iou=0.5, box_trials=2),
            "sweep": SweepConfig(sets=("steel",), prompt_seeds=(1,)),
        }
    )


@pytest.fixture(scope="module")
def unseen(benchmark, config, sharp_model):
    evaluations = evaluations_of(config, benchmark.root, [("challenger", 42, sharp_model)])
    return {each.set_name: each for each in evaluations if each.subset == "unseen"}


@pytest.fixture(scope="module")
def directories(sharp_model, other_model):
    return {"challenger": sharp_model, "champion": other_model}


def compared(challenger, champion, evaluations, config, trained=()):
    """One pair of models."""
    return compare_models(
        [ModelPair(42, challenger, champion, tuple(evaluations), frozenset(trained))], config
    )


@pytest.fixture(scope="module")
def measured(directories, unseen, config):
    comparison = compared(*directories.values(), unseen.values(), config)
    return {member.name: member for member in comparison.sets} | {"all": comparison}


@pytest.mark.parametrize("name", ["tile", "steel"])
@pytest.mark.parametrize("who", MODELS)
def test_figures_are_those_of_the_evaluation_mean_over_draws(
    measured, unseen, directories, config, name, who
):
    evaluation = unseen[name]
    metrics = [
        evaluate_files(directories[who], t.prompt, t.target, evaluation.images, config=config.evaluate)
        for t in evaluation.tests
    ]
    assert len(metrics) == 2
    member = measured[name]
    assert getattr(member.boxes, who) == pytest.approx(np.mean([m.bbox.AP50 for m in metrics]), abs=1e-4)
    assert getattr(member.masks, who) == pytest.approx(np.mean([m.segm.AP50 for m in metrics]), abs=1e-4)
    assert member.boxes.challenger != member.boxes.champion


def judged_by_hand(detector, bank, targets, images, config):
    truth = GroundTruth(targets)
    files = [images / image.file_name for image in targets.images]
    found = detector.detect(files, bank, limit=config.evaluate.detections)
    overlaps = {
        image.id: truth.overlaps(image.id, each) for image, each in zip(targets.images, found, strict=True)
    }
    return evaluate_overlaps(truth, overlaps).bbox.AP50


@pytest.mark.parametrize("who", MODELS)
def test_changed_prompts_are_changed_files(measured, unseen, directories, config, tmp_path, who):
    evaluation = unseen["steel"]
    test = evaluation.tests[0]
    assert test.prompt_seed == 1
    prompts, targets = Annotations.read(test.prompt), Annotations.read(test.target)
    detector = UniSpector.load(directories[who])
    for image in prompts.images:
        pixels = cv2.imread(str(evaluation.images / image.file_name))
        cv2.imwrite(str(tmp_path / image.file_name), cv2.GaussianBlur(pixels, (0, 0), 2.0))
    bank = detector.encode_annotations(prompts, tmp_path)
    blurred = judged_by_hand(detector, bank, targets, evaluation.images, config)
    assert getattr(measured["steel"].blurred, who) == pytest.approx(blurred, abs=1e-3)
    shifted = []
    for trial in (0, 1):
        bank = detector.encode_annotations(with_shifted_boxes(prompts, 0.5, 1, trial), evaluation.images)
        shifted.append(judged_by_hand(detector, bank, targets, evaluation.images, config))
    assert getattr(measured["steel"].shifted, who) == pytest.approx(np.mean(shifted), abs=1e-3)
    if who == "challenger":  # the other finds nothing here
        assert len({blurred, *shifted, measured["steel"].boxes.challenger, 0.0}) == 5


def test_prompts_are_changed_on_the_sets_and_draws_of_the_sweep_only(measured, unseen, config):
    assert measured["tile"].blurred is None
    assert measured["tile"].shifted is None
    everywhere = config.model_copy(update={"sweep": SweepConfig(sets=(), prompt_seeds=(1,))})
    assert fair_set(unseen["tile"], (), everywhere).changed


@pytest.mark.parametrize("who", MODELS)
def test_alarms_are_counted_on_defect_free_pictures(measured, unseen, directories, config, benchmark, who):
    evaluation = unseen["tile"]
    detector = UniSpector.load(directories[who])
    data_set = fair_set(evaluation, (), config)
    assert len(data_set.good) == config.evaluate.good_images
    counts = []
    for test in evaluation.tests:
        bank = detector.encode_annotations(Annotations.read(test.prompt), evaluation.images)
        found = detector.detect(data_set.good, bank, limit=config.evaluate.detections)
        counts += [len(each.above(config.evaluate.alarm_score)) for each in found]
    assert getattr(measured["tile"].alarms, who) == pytest.approx(np.mean(counts))
    assert measured["steel"].alarms is None


def test_the_interval_is_about_the_mean_of_the_sets(measured):
    comparison = measured["all"]
    change = np.mean([member.boxes.change for member in comparison.sets])
    assert comparison.mean(lambda s: s.boxes).change == pytest.approx(change)
    assert comparison.interval.low < change < comparison.interval.high
    assert comparison.left_out == ()


def test_a_model_against_itself_differs_by_nothing(sharp_model, unseen, config, sure):
    comparison = compared(sharp_model, sharp_model, [unseen["tile"]], config)
    (member,) = comparison.sets
    assert (member.boxes.change, member.masks.change, member.alarms.change) == (0, 0, 0)
    assert member.interval == Interval(0, 0)
    # Another training of the same recipe would differ.
    assert comparison.interval.low < 0 < comparison.interval.high
    assert compared(sharp_model, sharp_model, [unseen["tile"]], sure).interval == Interval(0, 0)


@pytest.fixture(scope="module")
def sure(config):
    """Parameters without luck."""
    return config.model_copy(update={"promote": config.promote.model_copy(update={"seed_spread": 0.0})})


@pytest.fixture(scope="module")
def of_seeds(sharp_model, sure, benchmark, tmp_path_factory):
    """A pair of each seed, of models that are soon measured; those of the second are exchanged."""
    quick = make_model(tmp_path_factory.mktemp("quick"), seed=4, prior=False)
    pairs = []
    for seed, models in ((42, (sharp_model, quick)), (82, (quick, sharp_model))):
        own = evaluations_of(sure, benchmark.root, [("challenger", seed, models[0])])
        unseen = tuple(each for each in own if each.subset == "unseen")
        pairs.append(ModelPair(seed, *models, unseen, frozenset()))
    return pairs


def test_figures_are_means_over_the_pairs_of_all_seeds(of_seeds, sure):
    both = compare_models(of_seeds, sure)
    alone = [compare_models([pair], sure) for pair in of_seeds]
    for member, *parts in zip(both.sets, *(one.sets for one in alone), strict=True):
        for figure in ("boxes", "masks"):
            for who in MODELS:
                expected = np.mean([getattr(getattr(part, figure), who) for part in parts])
                assert getattr(getattr(member, figure), who) == pytest.approx(expected)
        assert set(member.classes) == {label for part in parts for label in part.classes}
    tile, steel = both.sets
    assert steel.boxes.change == pytest.approx(
        0
    )  # the same targets, the models exchanged, the same resamples
    assert (steel.interval.low, steel.interval.high) == pytest.approx((0, 0))
    assert tile.interval.high > tile.interval.low
    changes = [one.mean(lambda s: s.boxes).change for one in alone]
    assert [(each.seed, each.boxes.change) for each in both.seeds] == [
        (seed, pytest.approx(change)) for seed, change in zip((42, 82), changes, strict=True)
    ]
    assert both.luck == pytest.approx(np.std(changes, ddof=1) / np.sqrt(2))
    assert both.luck > 1
    assert alone[0].luck == 0


def test_a_set_that_one_seed_alone_has_counts_for_that_seed(of_seeds, sure):
    tile = next(each for each in of_seeds[0].evaluations if each.set_name == "tile")
    names = Annotations.read(tile.tests[0].target).class_names
    first = replace(of_seeds[0], trained=frozenset(f"tile/{name}" for name in names))
    both, alone = compare_models([first, of_seeds[1]], sure), compare_models([of_seeds[1]], sure)
    assert both.left_out == ()
    assert both.seeds[1] == alone.seeds[0]
    found = {member.name: member for member in both.sets}
    assert found["tile"].boxes == alone.sets[0].boxes
    assert both.seeds[0].boxes.champion == pytest.approx(
        2 * found["steel"].boxes.champion - alone.sets[1].boxes.champion
    )


def without(file, name, folder):
    """A copy of a COCO file without a class, and without the images that show no other."""
    content = json.loads(file.read_text())
    gone = next(c["id"] for c in content["categories"] if c["name"] == name)
    content["categories"] = [c for c in content["categories"] if c["id"] != gone]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != gone]
    shown = {a["image_id"] for a in content["annotations"]}
    content["images"] = [i for i in content["images"] if i["id"] in shown]
    copy = folder / f"{file.parent.name}-{file.name}"
    copy.write_text(json.dumps(content))
    return copy


def test_a_class_either_model_was_trained_on_is_left_out_for_both(unseen, directories, config, tmp_path):
    steel = unseen["steel"]
    assert "dark" in Annotations.read(steel.tests[0].target).class_names
    comparison = compared(*directories.values(), [steel], config, {"steel/dark", "tile/half", "bright"})
    (member,) = comparison.sets
    assert (sorted(member.classes), member.trained) == (["black", "bright", "half"], ("dark",))
    for who, directory in directories.items():
        metrics = [
            evaluate_files(
                directory,
                without(test.prompt, "dark", tmp_path),
                without(test.target, "dark", tmp_path),
                steel.images,
                config=config.evaluate,
            )
            for test in steel.tests
        ]
        reached = np.mean([each.bbox.AP50 for each in metrics])
        assert getattr(member.boxes, who) == pytest.approx(reached, abs=1e-4)


def test_a_set_without_a_class_left_is_left_out(directories, unseen, config):
    names = Annotations.read(unseen["tile"].tests[0].target).class_names
    known = {f"tile/{name}" for name in names}
    comparison = compared(*directories.values(), unseen.values(), config, known)
    assert [member.name for member in comparison.sets] == ["steel"]
    assert comparison.left_out == ("tile",)
    nothing = compared(*directories.values(), [unseen["tile"]], config, known)
    assert (nothing.sets, nothing.left_out) == ((), ("tile",))


def test_prompts_can_be_targets_too(unseen, config):
    too = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"include_prompts": True})})
    alone, joined = (fair_set(unseen["tile"], (), each).draws[0] for each in (config, too))
    assert len(joined.targets.images) == len(alone.targets.images) + len(alone.prompts.images)
