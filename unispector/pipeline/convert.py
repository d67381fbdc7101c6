"""Stage `convert`: one raw set to one InsA annotation file and its account."""

from pathlib import Path

from unispector.config import Config, SetConfig
from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources import SOURCES
from unispector.errors import DataError
from unispector.project.paths import annotation_file
from unispector.project.progress import progress_bar


def convert(config: Config, set_name: str, root: Path = Path()) -> ConversionReport:
    """Write `data/insa/<set>.json`, `<set>.report.json` and `<set>.dropped.csv`.

    Raises:
        DataError: no such set, or its raw folder cannot be read as it is.
    """
    member = set_config(config, set_name)
    with progress_bar(f"convert {set_name}") as progress:
        return convert_set(
            set_name,
            SOURCES[member.source],
            root / config.data.root / member.path,
            ConversionFiles.beside(root / annotation_file(set_name)),
            min_side=config.data.min_side,
            workers=config.data.workers,
            progress=progress,
        )


def set_config(config: Config, set_name: str) -> SetConfig:
    """The parameters of one set.

    Raises:
        DataError: no such set.
    """
    if set_name not in config.data.sets:
        known = ", ".join(config.data.sets) or "none"
        raise DataError(f"{set_name}: no such set under data.sets in params.yaml; it has {known}")
    return config.data.sets[set_name]
