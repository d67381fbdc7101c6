"""The evaluations of the protocol: models, sets, and draws of prompts that are evaluated together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unispector.config import Config, SetConfig
from unispector.data.protocol.split_tree import SplitTree, TestPair
from unispector.errors import CheckpointError, DataError
from unispector.evaluation.results import MAIN_VARIANT, UNTRAINED, Subset
from unispector.project.paths import MODELS, SPLITS, dropped_file


@dataclass(frozen=True)
class Evaluation:
    """One model on one set, seen or unseen classes, under all draws of prompts."""

    variant: str
    split_seed: int
    model: Path
    tests: tuple[TestPair, ...]  # prompts and targets of each draw; at least one
    images: Path  # folder the file names are relative to
    dropped: Path  # table that lists the set's defect-free images

    @property
    def set_name(self) -> str:
        """The data set."""
        return self.tests[0].set_name

    @property
    def subset(self) -> Subset:
        """A cross-domain set counts as unseen: training knew none of its classes."""
        return "seen" if self.tests[0].part == "seen" else "unseen"


def plan(config: Config, root: Path) -> tuple[Evaluation, ...]:
    """All evaluations in order; seen classes only where the split found enough images to test on.

    Raises:
        CheckpointError: a model is missing.
        DataError: a file of the splits is missing.
    """
    return evaluations_of(config, root, _models(config, root / MODELS))


def evaluations_of(
    config: Config, root: Path, models: Sequence[tuple[str, int, Path]]
) -> tuple[Evaluation, ...]:
    """The protocol's evaluations of given models.

    Args:
        models: variant, split seed and directory of each.

    Raises:
        DataError: a file of the splits is missing.
    """
    splits = SplitTree(root / SPLITS)
    return tuple(
        Evaluation(
            variant,
            split_seed,
            model,
            tests,
            root / config.data.root / data_set.path,
            root / dropped_file(name),
        )
        for variant, split_seed, model in models
        for name, data_set in config.data.sets.items()
        for tests in _tests(splits, name, data_set, split_seed, config.split.prompt_seeds)
    )


def main_evaluations(evaluations: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """The main variant's first evaluation of each set and subset: those that images are drawn of."""
    firsts: dict[tuple[str, Subset], Evaluation] = {}
    for evaluation in evaluations:
        if evaluation.variant == MAIN_VARIANT:
            firsts.setdefault((evaluation.set_name, evaluation.subset), evaluation)
    return tuple(firsts.values())


def _models(config: Config, root: Path) -> list[tuple[str, int, Path]]:
    """Variant, split seed and directory of every model to judge."""
    required = {MAIN_VARIANT: config.train.seeds}
    # A closed set takes no prompts: `unispector benchmark maskdino` judges it.
    rows = [row for row in config.train.ablation if row != "maskdino"]
    required |= dict.fromkeys(rows, config.train.ablation_seeds)
    models = [
        (variant, seed, root / variant / f"seed{seed}")
        for variant, seeds in required.items()
        for seed in seeds
    ]
    for _, _, directory in models:
        if not directory.is_dir():
            raise CheckpointError(f"{directory}: no such model; run the train stage first")
    untrained = [(UNTRAINED, seed, root / UNTRAINED / f"seed{seed}") for seed in config.train.seeds]
    return models + [model for model in untrained if model[2].is_dir()]


def _tests(
    splits: SplitTree, name: str, data_set: SetConfig, split_seed: int, prompt_seeds: Sequence[int]
) -> Iterator[tuple[TestPair, ...]]:
    if data_set.domain == "cross":
        yield _checked(tuple(splits.cross_domain(name, seed) for seed in prompt_seeds))
        return
    unseen = tuple(splits.in_domain(name, "unseen", split_seed, seed) for seed in prompt_seeds)
    if data_set.unseen != () or unseen[0].target.is_file():  # all classes of the set may train
        yield _checked(unseen)
    seen = tuple(splits.in_domain(name, "seen", split_seed, seed) for seed in prompt_seeds)
    if seen[0].target.is_file():
        yield _checked(seen)


def _checked(tests: tuple[TestPair, ...]) -> tuple[TestPair, ...]:
    for test in tests:
        for file in (test.prompt, test.target):
            if not file.is_file():
                raise DataError(f"{file}: no such file; run `dvc repro split`")
    return tests
