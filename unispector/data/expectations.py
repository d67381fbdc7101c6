"""Great Expectations on the data: every rule an annotation file and a split must hold, row by row."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unispector.data.check_tables import Row, image_rows, instance_rows, split_tables
from unispector.data.coco import Annotations
from unispector.data.split_tree import BenchmarkSet, SplitTree
from unispector.ops.files import atomic_write_text

EXAMPLES = 20
EDGES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class CheckResult:
    """One rule: on how many rows it was tried, how many broke it, and the first of those."""

    rule: str
    checked: int
    failed: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """All rules of one check.

    Attributes:
        name: the set, or `splits`.
        passed: no rule was broken.
        results: rule by rule.
    """

    name: str
    passed: bool
    results: tuple[CheckResult, ...]

    def summary(self) -> str:
        """One line: the first broken rule of the set and where, and how many more there are."""
        broken = [result for result in self.results if result.failed]
        if not broken:
            return f"{self.name}: all {len(self.results)} checks passed"
        first = broken[0]
        more = f" and {first.failed - 1} more" if first.failed > 1 else ""
        others = f"; {len(broken) - 1} other rule(s) broken" if len(broken) > 1 else ""
        return f"{self.name}: rule broken: {first.rule}: {first.examples[0]}{more}{others}"

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, atomically."""
        atomic_write_text(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class _Rule:
    """A rule in words, the expectation that says it (its class in Great Expectations) and its columns."""

    text: str
    expectation: str
    arguments: dict[str, Any]


def check_set(name: str, annotations: Annotations, root: Path, min_side: float) -> CheckReport:
    """Check one InsA file against its images and masks.

    Args:
        name: name of the set, for messages.
        annotations: the file's content.
        root: raw folder of the set.
        min_side: smallest share of the image's sides a box may have.

    Returns:
        Ids, files, sizes, boxes, areas and masks, rule by rule; a broken rule names the image.
    """
    images, instances = image_rows(annotations, root), instance_rows(annotations)
    results = _judge(images, _image_rules(len(images)))
    results += _judge(instances, _instance_rules(len(instances), min_side))
    return _report(name, results)


def check_splits(
    sets: Sequence[BenchmarkSet], tree: SplitTree, split_seeds: Sequence[int], prompt_seeds: Sequence[int]
) -> CheckReport:
    """Check that no split file leaks: every image is looked up in its set's own file.

    Args:
        sets: the benchmark.
        tree: where the split files lie.
        split_seeds: for which of them there must be a training file, prompts and targets.
        prompt_seeds: for which of them there must be prompts and targets.

    Raises:
        DataError: a split file is missing or malformed.
    """
    tables = split_tables(sets, tree, split_seeds, prompt_seeds)
    results = _judge(tables.training, TRAINING_RULES)
    results += _judge(tables.testing, TESTING_RULES)
    results += _judge(tables.classes, CLASS_RULES)
    return _report("splits", results)


def _between(text: str, column: str, low: float | None, high: float | None = None) -> _Rule:
    arguments = {"column": column, "min_value": low, "max_value": high}
    return _Rule(text, "ExpectColumnValuesToBeBetween", arguments)


def _always(text: str, column: str, value: object) -> _Rule:
    return _Rule(text, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": [value]})


def _unique(text: str, column: str) -> _Rule:
    return _Rule(text, "ExpectColumnValuesToBeUnique", {"column": column})


def _equal(text: str, first: str, second: str) -> _Rule:
    return _Rule(text, "ExpectColumnPairValuesToBeEqual", {"column_A": first, "column_B": second})


def _at_most(text: str, small: str, large: str) -> _Rule:
    arguments = {"column_A": large, "column_B": small, "or_equal": True}
    return _Rule(text, "ExpectColumnPairValuesAToBeGreaterThanB", arguments)


def _image_rules(count: int) -> list[_Rule]:
    return [
        _between(f"image ids run from 1 to {count}", "id", 1, count),
        _unique("image ids are unique", "id"),
        _unique("no image is listed twice", "where"),
        _always("image opens", "problem", ""),
        _equal("image has its stated width", "width", "file_width"),
        _equal("image has its stated height", "height", "file_height"),
        _between("image has an instance", "instances", 1),
    ]


def _instance_rules(count: int, min_side: float) -> list[_Rule]:
    share = f"at least {min_side:g} of its image's"
    return [
        _between(f"annotation ids run from 1 to {count}", "id", 1, count),
        _unique("annotation ids are unique", "id"),
        _between("box starts right of its image's left edge", "left", 0),
        _between("box starts below its image's top edge", "top", 0),
        _at_most("box ends left of its image's right edge", "right", "width"),
        _at_most("box ends above its image's bottom edge", "bottom", "height"),
        _between(f"box width is {share}", "width_share", min_side),
        _between(f"box height is {share}", "height_share", min_side),
        _between("area is positive", "area", 1),
        _always("mask decodes and marks a pixel", "problem", ""),
        _equal("area is the mask's", "area", "mask_area"),
        *(_equal(f"box's {edge} edge is the mask's", edge, f"mask_{edge}") for edge in EDGES),
    ]


TRAINING_RULES = (
    _always("training image is an image of its set", "known", 1),
    _always("training image shows no unseen class", "unseen_classes", 0),
    _equal("training image keeps all its instances", "instances", "set_instances"),
    _unique("no training image is listed twice", "where"),
)
TESTING_RULES = (
    _always("test image is an image of its set", "known", 1),
    _always("prompt image shows one class only", "prompt_classes", 1),
    _always("no image is both prompt and target", "in_other", 0),
    _always("test image does not train", "in_training", 0),
    _between("test image shows a prompted class", "prompted_classes", 1),
    _equal("test image keeps all instances of the prompted classes", "instances", "set_instances"),
)
CLASS_RULES = (
    _always("no class is both seen and unseen", "trained", 0),
    _between("class has a prompt image", "prompt_images", 1),
    _between("class has a target image", "target_images", 1),
)


def _judge(rows: Sequence[Row], rules: Sequence[_Rule]) -> list[CheckResult]:
    """Run the rules on a table; rows are named by their column `where`."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": pd.DataFrame(rows)})
    suite = gx.ExpectationSuite(name="rules")
    for rule in rules:
        expectation = getattr(gx.expectations, rule.expectation)
        suite.add_expectation(expectation(**rule.arguments, meta={"rule": rule.text}))
    outcome = batch.validate(
        suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["where"]}
    )
    found: dict[str, Any] = {}  # results come sorted by column, so they are told apart by their rule
    for item in outcome.results:
        configuration: Any = item.expectation_config
        found[configuration.meta["rule"]] = item
    return [_result(rule.text, len(rows), found[rule.text]) for rule in rules]


def _result(rule: str, checked: int, outcome: Any) -> CheckResult:
    """Translate one outcome; broken rows are told with the values that broke the rule."""
    rows = outcome.result.get("unexpected_index_list") or []
    if not rows and not outcome.success:
        return CheckResult(rule, checked, max(checked, 1), ("the rule could not be evaluated",))
    return CheckResult(rule, checked, len(rows), tuple(_told(row) for row in rows[:EXAMPLES]))


def _told(row: dict[str, Any]) -> str:
    values = [f"{key} {_short(value)}" for key, value in row.items() if key != "where"]
    return f"{row['where']}: {', '.join(values)}" if values else str(row["where"])


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _report(name: str, results: Sequence[CheckResult]) -> CheckReport:
    return CheckReport(name, all(result.failed == 0 for result in results), tuple(results))
