"""Stage `survey`: every image of a converted set is opened once."""

from pathlib import Path

from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.sources import SOURCES
from unispector.data.survey import survey_set
from unispector.pipeline.convert import set_config
from unispector.project.paths import annotation_file, survey_file
from unispector.project.progress import progress_bar


def survey(config: Config, set_name: str, root: Path = Path()) -> Path:
    """Write `data/insa/<set>.survey.parquet`.

    Raises:
        DataError: no such set, its annotation file or its release cannot be read, or they do not belong
            together; a damaged image is recorded in the table instead.
    """
    member = set_config(config, set_name)
    out = root / survey_file(set_name)
    with progress_bar(f"survey {set_name}") as progress:
        survey_set(
            Annotations.read(root / annotation_file(set_name)),
            SOURCES[member.source],
            root / config.data.root / member.path,
            out,
            min_side=config.data.min_side,
            workers=config.data.workers,
            progress=progress,
        )
    return out
