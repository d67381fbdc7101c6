"""Great Expectations on the data: every rule a set and the splits must hold, and the pages that show them."""

import html
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from unispector.data.checks.rules import LeftOut, Rule, set_rules, split_rules
from unispector.data.checks.set_tables import category_table, image_table, instance_table, survey_table
from unispector.data.checks.split_tables import split_tables
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import BenchmarkSet, SplitTree
from unispector.errors import DataError
from unispector.ops.files import atomic_write_json, atomic_write_text, replaced_folder

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 20
READABLE = "annotation file and survey can be read"
SOURCE = "checked"  # Great Expectations names pages after it
INDEX = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Data checks</title></head>
<body>
<h1>Data checks</h1>
<table border>
<tr><th>checked</th><th>verdict</th><th>in short</th></tr>
ROWS
</table>
</body>
</html>
"""


@dataclass(frozen=True)
class CheckResult:
    """One rule: on how many rows it was tried, how many broke it, and the first of those."""

    rule: str
    checked: int
    failed: int
    examples: tuple[str, ...]
    asks: bool = False  # what breaks it may be right all the same, so that the check passes

    def told(self) -> str:
        """The rule, its first row that broke it, and how many more did."""
        more = f" and {self.failed - 1} more" if self.failed > 1 else ""
        return f"{self.rule}: {self.examples[0]}{more}"


@dataclass(frozen=True)
class CheckReport:
    """All rules of one check."""

    name: str  # the set, or `splits`
    passed: bool  # no rule was broken, but for those that only ask
    results: tuple[CheckResult, ...]  # rule by rule
    left_out: tuple[LeftOut, ...] = ()  # rules that do not apply, with the reason

    @classmethod
    def unreadable(cls, name: str, error: DataError) -> "CheckReport":
        """The report of a set whose files cannot be read."""
        return cls(name, False, (CheckResult(READABLE, 1, 1, (str(error),)),))

    def summary(self) -> str:
        """One line: the first broken rule of the set, where, how many more there are, and what is asked."""
        broken = [result for result in self.results if result.failed and not result.asks]
        asked = "".join(f"; to be looked at: {result.told()}" for result in self.asked)
        if not broken:
            others = "; ".join(rule.rule for rule in self.left_out)
            told = f" ({len(self.left_out)} more are for data of another kind: {others})" if others else ""
            count = len(self.results) - len(self.asked)
            return f"{self.name}: {'' if asked else 'all '}{count} checks passed{told}{asked}"
        others = f"; {len(broken) - 1} other rule(s) broken" if len(broken) > 1 else ""
        return f"{self.name}: rule broken: {broken[0].told()}{others}{asked}"

    @property
    def asked(self) -> tuple[CheckResult, ...]:
        """Rules that were not kept and only ask."""
        return tuple(result for result in self.results if result.failed and result.asks)

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, atomically."""
        atomic_write_json(path, asdict(self))


class DataDocs:
    """The pages of all checks that were given it: what was tried, in words, and which rows broke a rule."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self._gx = gx
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._context.delete_data_docs_site("local_site")  # it would lie in a temporary folder
        self._source = self._context.data_sources.add_pandas(SOURCE)

    def judge(self, name: str, table: "pd.DataFrame", rules: Sequence[Rule]) -> dict[str, Any]:
        """Try the rules on a table whose columns are named `<table> <column>`.

        `name` is also that of the check's page; the table's column `where` names its rows; cells without a
        value are passed over. Returns Great Expectations' outcome by rule in words.
        """
        expectations = [self._expectation(rule) for rule in rules]
        suite = self._context.suites.add(self._gx.ExpectationSuite(name=name, expectations=expectations))
        rows = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("rows")
        definition = self._gx.ValidationDefinition(name=name, data=rows, suite=suite)
        outcome = self._context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": table},
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": ["where"],
                "return_unexpected_index_query": False,
            },
        )
        results: Sequence[Any] = outcome.results
        return {item.expectation_config.meta["rule"]: item for item in results}

    def _expectation(self, rule: Rule) -> Any:
        columns = {key: f"{rule.table} {column}" for key, column in rule.columns.items()}
        kind = getattr(self._gx.expectations, rule.expectation)
        told = {"description": rule.text, "meta": {"rule": rule.text}}
        return kind(**columns, **rule.arguments, **told, severity="warning" if rule.asks else "critical")

    def write(self, folder: Path, reports: Sequence[CheckReport]) -> None:
        """Write the site; what lay in `folder` before is replaced as a whole.

        `index.html`, the checks in the order given, and a page per check go to `folder`.
        """
        with replaced_folder(folder) as temporary:
            store: Any = {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(temporary.absolute()),
            }
            site: Any = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store}
            self._context.add_data_docs_site(site_name=folder.name, site_config=site)
            self._context.build_data_docs()
            self._context.delete_data_docs_site(folder.name)
            # Great Expectations' own index is empty without a network: it fetches scripts to fill itself.
            atomic_write_text(temporary / "index.html", _index(temporary, reports))


def check_set(
    name: str,
    annotations: Annotations,
    survey: "pd.DataFrame",
    *,
    min_side: float,
    categories: Collection[str] = (),
    docs: DataDocs | None = None,
) -> CheckReport:
    """Check one InsA file against its survey (see `unispector.data.survey`); no image is opened.

    `min_side` is the smallest share of the image's sides a box may have, 0 = the size rule is left out;
    `categories` are the names the release may have, compared without regard to case, empty = no such list;
    `docs` get a page. The report has ids, files, sizes, categories, boxes, areas and masks, rule by rule; a
    broken rule names the image.
    """
    tables = {
        "image": image_table(annotations, survey),
        "survey": survey_table(annotations, survey),
        "instance": instance_table(annotations),
        "category": category_table(annotations, categories),
    }
    rules, left_out = set_rules(
        len(tables["image"]), len(tables["instance"]), min_side, categories=bool(categories)
    )
    return _check(name, tables, rules, left_out, docs)


def check_splits(
    sets: Sequence[BenchmarkSet],
    tree: SplitTree,
    split_seeds: Sequence[int],
    prompt_seeds: Sequence[int],
    *,
    naive: bool = False,
    official: bool = False,
    scored_on_prompts: bool = False,
    docs: DataDocs | None = None,
) -> CheckReport:
    """Check that no split file leaks: every image is looked up in its set's own file.

    There must be a training file, prompts and targets of every seed. The report names rules left out, with
    the reason; `docs` get a page of it.

    Args:
        naive: images that show unseen classes may train, without the instances of those. The rules against
            such training images, and against training on test images of unseen classes, are left out.
        official: InsA's official files choose the targets. The rule that all images of an unseen class
            are prompts or targets is left out.
        scored_on_prompts: the target files hold the prompt images. The rule that no image is both is left
            out.

    Raises:
        DataError: a split file is missing or malformed.
    """
    tables = split_tables(sets, tree, split_seeds, prompt_seeds, naive)
    all_train = all(member.unseen == () for member in sets if member.domain == "in")
    rules, left_out = split_rules(naive, official, scored_on_prompts, all_train and tables["unseen"].empty)
    return _check("splits", tables, rules, left_out, docs)


def _check(
    name: str,
    tables: "Mapping[str, pd.DataFrame]",
    rules: Sequence[Rule],
    left_out: Sequence[LeftOut],
    docs: DataDocs | None,
) -> CheckReport:
    """Judge all tables as one, for a page per check: a row has values in its own table's columns only."""
    import pandas as pd

    whole = pd.concat(
        [
            table.rename(columns={column: f"{key} {column}" for column in table if column != "where"})
            for key, table in tables.items()
        ],
        ignore_index=True,
    )
    found = (docs or DataDocs()).judge(name, whole, rules)
    results = tuple(_result(rule, len(tables[rule.table]), found[rule.text]) for rule in rules)
    broken = any(result.failed and not result.asks for result in results)
    return CheckReport(name, not broken, results, tuple(left_out))


def _result(rule: Rule, checked: int, outcome: Any) -> CheckResult:
    """Translate one outcome; broken rows are reported with the values that broke the rule."""
    rows = outcome.result.get("unexpected_index_list") or []
    if not rows and not outcome.success:
        return CheckResult(rule.text, checked, max(checked, 1), ("the rule could not be evaluated",))
    examples = tuple(_told(rule, row) for row in rows[:EXAMPLES])
    return CheckResult(rule.text, checked, len(rows), examples, rule.asks)


def _told(rule: Rule, row: Mapping[str, Any]) -> str:
    values = [f"{column} {_short(row[f'{rule.table} {column}'])}" for column in rule.columns.values()]
    return f"{row['where']}: {', '.join(values)}"


def _short(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _index(site: Path, reports: Sequence[CheckReport]) -> str:
    """The site's first page: a row per check with a link to its page, where it has one."""
    rows = []
    for report in reports:
        page = next((site / "validations").rglob(f"{SOURCE}-{report.name}.html"), None)
        name, summary = html.escape(report.name), html.escape(report.summary())
        link = f'<a href="{quote(page.relative_to(site).as_posix())}">{name}</a>' if page else name
        verdict = "passed" if report.passed else "<b>broken</b>"
        rows.append(f"<tr><td>{link}</td><td>{verdict}</td><td>{summary}</td></tr>")
    return INDEX.replace("ROWS", "\n".join(rows))
