"""Stage `convert`: one raw set to one InsA annotation file and its report."""

from pathlib import Path

from unispector.config import Config, SetConfig
from unispector.data.convert import ConversionReport, convert_set
from unispector.data.sources import SOURCES
from unispector.errors import DataError
from unispector.stages.paths import annotation_file, conversion_report


def convert(config: Config, set_name: str, root: Path = Path()) -> ConversionReport:
    """Write `data/insa/<set>.json` and `data/insa/<set>.report.json`.

    Args:
        config: its section `data` is read.
        set_name: a key of `data.sets`.
        root: the project's folder.

    Raises:
        DataError: no such set, or its raw folder cannot be read as it is.
    """
    member = set_config(config, set_name)
    source = SOURCES[member.source].read(root / config.data.root / member.path)
    annotations, report = convert_set(set_name, source, config.data.min_side)
    annotations.write(root / annotation_file(set_name))
    report.write(root / conversion_report(set_name))
    return report


def set_config(config: Config, set_name: str) -> SetConfig:
    """The parameters of one set.

    Raises:
        DataError: no such set.
    """
    if set_name not in config.data.sets:
        known = ", ".join(config.data.sets) or "none"
        raise DataError(f"{set_name}: no such set under data.sets in params.yaml; it has {known}")
    return config.data.sets[set_name]
