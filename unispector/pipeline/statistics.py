"""Stage `statistics`: the benchmark's sets in figures, beside the published ones."""

from pathlib import Path

from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.statistics import PromptRules, SetStatistics, Statistics, set_statistics
from unispector.data.survey import read_survey
from unispector.ops.files import atomic_write_bytes, atomic_write_text
from unispector.project.paths import (
    STATISTICS,
    STATISTICS_FIGURE,
    STATISTICS_PAGE,
    annotation_file,
    survey_file,
)
from unispector.reporting.render import markdown
from unispector.reporting.statistics_report import ratio_figure, statistics_report


def statistics(config: Config, root: Path = Path()) -> Statistics:
    """Write `reports/statistics.json`, `.md` and `.png` from all annotation files and surveys.

    Raises:
        DataError: a set's annotation file or survey is missing or damaged, or the two do not belong
            together.
    """
    rules = PromptRules(config.split.prompts_per_class, config.split.tail_images)

    def of_set(name: str) -> SetStatistics:
        annotations = Annotations.read(root / annotation_file(name))
        return set_statistics(name, annotations, read_survey(root / survey_file(name)), rules)

    result = Statistics(rules, tuple(of_set(name) for name in config.data.sets))
    result.write(root / STATISTICS)
    atomic_write_text(root / STATISTICS_PAGE, markdown(statistics_report(result, STATISTICS_FIGURE.name)))
    atomic_write_bytes(root / STATISTICS_FIGURE, ratio_figure(result))
    return result
