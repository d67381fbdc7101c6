"""Stage `promote`: the registered challenger against the champion, decided by the rules of `params.yaml`.

A decision is written down before anything is done about it, and doing is repeated until it is in the
registry's history: a promotion that is killed and starts again comes to the same decision and one event.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from unispector.config import Config
from unispector.data.checks.expectations import CheckReport, CheckResult
from unispector.errors import CheckpointError, RegistryError
from unispector.evaluation.promotion import (
    Decision,
    Limits,
    compared_rules,
    data_rule,
    working_rule,
)
from unispector.inference.marking import Prompt
from unispector.ops.files import atomic_write_json, atomic_write_text, sha256_of_tree
from unispector.stages.contest import contest
from unispector.stages.evaluation_plan import Evaluation, evaluations_of
from unispector.stages.judging import load_detector
from unispector.stages.paths import check_report
from unispector.stages.register import read_lineage
from unispector.stages.registry_actions import promote_version, refuse
from unispector.tracking.registry import CHALLENGER, CHAMPION, ModelRegistry, ModelVersion, now
from unispector.tracking.run import TrackingStore

PROMOTIONS = Path("reports/promotion")
"""Folder of the decisions, `<challenger>-vs-<champion>.md` and `.json`."""

BY_RULES = "rules"
"""Who decides here, as the registry's history names it."""


def promote(config: Config, root: Path, store: TrackingStore) -> Decision:
    """Decide whether the registered challenger becomes champion, and do it.

    A decision that was made before, of the same versions, rules and data, is returned as it was; so is the
    decision on the newest version where no challenger is left. What it asks for is done where it was cut
    short.

    Args:
        config: all parameters.
        root: the project's folder.
        store: the experiment store that holds the registry.

    Raises:
        RegistryError: there is no challenger and no decision on the newest version, or the store cannot be
            used.
        CheckpointError: the champion cannot be loaded.
        DataError: a file of the splits or an image is unusable.
    """
    registry = ModelRegistry(store)
    challenger, champion = registry.find(CHALLENGER), registry.find(CHAMPION)
    if challenger is None or (champion is not None and challenger.number == champion.number):
        decision = _latest_decision(registry, root)
    else:
        decision = _decision(config, root, registry, challenger, champion)
    _carry_out(registry, decision, root)
    return decision


def decision_files(decision: Decision, root: Path = Path()) -> tuple[Path, Path]:
    """Where a decision lies: as a page, and as JSON."""
    name = f"{decision.challenger}-vs-{'none' if decision.champion is None else decision.champion}"
    return root / PROMOTIONS / f"{name}.md", root / PROMOTIONS / f"{name}.json"


def read_decisions(files: Iterable[Path]) -> list[Decision]:
    """The decisions among some files; others are passed over, as are damaged ones: they are made anew."""
    decisions = []
    for file in files:
        try:
            decisions.append(Decision.from_dict(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return decisions


def _decision(
    config: Config,
    root: Path,
    registry: ModelRegistry,
    challenger: ModelVersion,
    champion: ModelVersion | None,
) -> Decision:
    """The decision on a pair: the one that was written down, or a new one, written down."""
    directory = registry.model_directory(challenger.number)
    seed = read_lineage(directory).split_seed
    evaluations = [
        each
        for each in evaluations_of(config, root, [("challenger", seed, directory)])
        if each.subset == "unseen"
    ]
    key = _key(config, root, evaluations)
    before = None if champion is None else champion.number
    for known in _known(registry, root, challenger.number):
        if (known.champion, known.key) == (before, key):
            return known
    rules = (data_rule(list(_data_problems(config, root))), working_rule(_problem(directory)))
    comparison = None
    if champion is not None:
        if all(rule.passed for rule in rules):
            other = registry.model_directory(champion.number)
            trained = {name for each in (directory, other) for name in read_lineage(each).trained_classes}
            comparison = contest(directory, other, evaluations, trained, config)
        rules += compared_rules(comparison, _limits(config))
    automatic = config.promote.automatic
    decision = Decision(challenger.number, before, key, now(), automatic, rules, comparison)
    page, data = decision_files(decision, root)
    atomic_write_text(page, decision.markdown())
    atomic_write_json(data, decision.as_dict())
    return decision


def _latest_decision(registry: ModelRegistry, root: Path) -> Decision:
    versions = registry.versions()
    known = _known(registry, root, versions[0].number) if versions else []
    if not known:
        raise RegistryError(
            f"{registry.place}: no version of {registry.name} is a challenger; register a newly trained "
            "model first"
        )
    return max(known, key=lambda decision: decision.time)


def _known(registry: ModelRegistry, root: Path, number: int) -> list[Decision]:
    """Every decision on a version that is on the disk or in the history."""
    files = list((root / PROMOTIONS).glob(f"{number}-vs-*.json"))
    for event in registry.history():
        if (event.version, event.by) == (number, BY_RULES):
            files += registry.event_files(event)
    return [decision for decision in read_decisions(files) if decision.challenger == number]


def _carry_out(registry: ModelRegistry, decision: Decision, root: Path) -> None:
    ...


def _key(config: Config, root: Path, evaluations: Iterable[Evaluation]) -> str:
    """Hash of the rules and of the data that a decision rests on."""
    tests = [test for evaluation in evaluations for test in evaluation.tests]
    files = [
        *(file for test in tests for file in (test.prompt, test.target)),
        *_reports(root),
    ]
    sections = {name: getattr(config, name).model_dump(mode="json") for name in ("promote", "evaluate", "sweep")}
    text = json.dumps([sections, config.prompt.test_roi, sha256_of_tree(files)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _reports(root: Path) -> list[Path]:
    return sorted((root / check_report("")).parent.glob("*.json"))


def _data_problems(config: Config, root: Path) -> Iterator[str]:
    """A line for each report of the data checks that is missing, damaged or did not pass."""
    reports = {path.stem: path for path in _reports(root)}
    for name in config.data.sets:
        if name not in reports:
            yield f"{name}: no report; run the stage validate"
    for name, path in reports.items():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            results = tuple(CheckResult(**result) for result in content["results"])
            report = CheckReport(content["name"], content["passed"], results)
        except (OSError, ValueError, KeyError, TypeError):
            yield f"{name}: damaged report; run the stage validate"
            continue
        if report.passed is not True:
            yield report.summary()


def _problem(directory: Path) -> str:
    """Why a model does not work, one line; empty where it loads and predicts finite numbers."""
    try:
        detector = load_detector(directory)
    except CheckpointError as error:
        return str(error)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    bank = detector.encode([Prompt(picture, boxes_xywh=[(16, 16, 32, 32)])])
    (found,) = detector.detect([picture], bank)
    if not (found.scores.isfinite().all() and found.boxes_xyxy.isfinite().all()):
        return f"{directory}: what it predicts is not finite; its weights are broken"
    return ""


def _limits(config: Config) -> Limits:
    rules = config.promote
    return Limits(
        level=rules.level,
        mask_drop=rules.mask_drop,
        set_drop=rules.set_drop,
        robustness_drop=rules.robustness_drop,
        blur=rules.blur,
        box_iou=rules.box_iou,
        alarm_score=config.evaluate.alarm_score,
        alarm_rise=rules.alarm_rise,
    )
