"""Which evaluations the protocol asks for."""

import re

import pytest

from unispector.benchmark.plan import main_evaluations, plan
from unispector.config import Config, DataConfig, SetConfig, SplitConfig, TrainConfig
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import CheckpointError, DataError
from unispector.project.paths import MODELS, SPLITS

CONFIG = Config(
    data=DataConfig(
        sets={
            "tile": SetConfig(source="coco", path="A/tile", domain="in"),
            "wood": SetConfig(source="coco", path="B/wood", domain="in"),
            "steel": SetConfig(source="coco", path="C/steel", domain="cross"),
        }
    ),
    split=SplitConfig(seeds=(42, 82), prompt_seeds=(1, 2, 3)),
    train=TrainConfig(seeds=(42, 82), ablation_seeds=(82,)),
)


def pairs(root, config):
    """All pairs the protocol has; there is nothing to test wood's seen classes on with seed 42."""
    tree = SplitTree(root / SPLITS)
    for prompt_seed in config.split.prompt_seeds:
        yield tree.cross_domain("steel", prompt_seed)
        for seed in config.split.seeds:
            for name in ("tile", "wood"):
                yield tree.in_domain(name, "unseen", seed, prompt_seed)
                if (name, seed) != ("wood", 42):
                    yield tree.in_domain(name, "seen", seed, prompt_seed)


@pytest.fixture
def project(tmp_path):
    for pair in pairs(tmp_path, CONFIG):
        for file in (pair.prompt, pair.target):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    for model in ("unispector/seed42", "unispector/seed82", "base/seed82", "untrained/seed82"):
        (tmp_path / MODELS / model).mkdir(parents=True)
    return tmp_path


def told(evaluations):
    return [(e.variant, e.split_seed, e.set_name, e.subset) for e in evaluations]


def test_every_model_meets_every_set_and_seen_classes_only_where_they_can_be_tested(project):
    of_42 = [("tile", "unseen"), ("tile", "seen"), ("wood", "unseen"), ("steel", "unseen")]
    of_82 = [*of_42[:3], ("wood", "seen"), of_42[3]]
    todo = plan(CONFIG, project)
    expected = [("unispector", 42, *where) for where in of_42]
    for variant in ("unispector", "base", "untrained"):
        expected += [(variant, 82, *where) for where in of_82]
    assert told(todo) == expected
    for evaluation in todo:
        assert evaluation.model == project / MODELS / evaluation.variant / f"seed{evaluation.split_seed}"
        assert [test.prompt_seed for test in evaluation.tests] == [1, 2, 3]
        split_seed = None if evaluation.set_name == "steel" else evaluation.split_seed
        assert {test.split_seed for test in evaluation.tests} == {split_seed}
        assert evaluation.images == project / "data/raw" / CONFIG.data.sets[evaluation.set_name].path
        assert evaluation.dropped == project / "data/insa" / f"{evaluation.set_name}.dropped.csv"


def test_every_file_is_used_by_each_model_that_may(project):
    used = {file for e in plan(CONFIG, project) for test in e.tests for file in (test.prompt, test.target)}
    assert used == {file for pair in pairs(project, CONFIG) for file in (pair.prompt, pair.target)}


def test_a_set_of_which_every_class_trains_is_only_tested_on_seen_ones(project):
    sets = {**CONFIG.data.sets, "tile": SetConfig(source="coco", path="A/tile", domain="in", unseen=())}
    config = CONFIG.model_copy(update={"data": DataConfig(sets=sets)})
    tree = SplitTree(project / SPLITS)
    for seed in (42, 82):
        for prompt_seed in (1, 2, 3):
            tree.in_domain("tile", "unseen", seed, prompt_seed).target.unlink()
    own = [each[2:] for each in told(plan(config, project)) if each[1] == 42]
    assert own == [("tile", "seen"), ("wood", "unseen"), ("steel", "unseen")]
    with pytest.raises(DataError, match="tile_unseen"):
        plan(CONFIG, project)


def test_pictures_are_of_the_main_models_first_look_at_each_subset(project):
    assert told(main_evaluations(plan(CONFIG, project))) == [
        ("unispector", 42, "tile", "unseen"),
        ("unispector", 42, "tile", "seen"),
        ("unispector", 42, "wood", "unseen"),
        ("unispector", 42, "steel", "unseen"),
        ("unispector", 82, "wood", "seen"),
    ]


@pytest.mark.parametrize("model", ["unispector/seed42", "base/seed82"])
def test_a_missing_model_is_named(project, model):
    (project / MODELS / model).rmdir()
    with pytest.raises(CheckpointError, match=f"{model}: no such model; run the train stage"):
        plan(CONFIG, project)


@pytest.mark.parametrize("part", ["prompt", "target"])
def test_a_missing_file_of_the_splits_is_named(project, part):
    for pair in list(pairs(project, CONFIG)):
        file = getattr(pair, part)
        if pair.part == "seen" and pair.prompt_seed == 1 and part == "target":
            continue  # without the first draw's targets there is nothing to test these classes on
        file.unlink()
        with pytest.raises(DataError, match=f"{re.escape(str(file))}: no such file; run `dvc repro split`"):
            plan(CONFIG, project)
        file.touch()
