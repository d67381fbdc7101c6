"""Stage `generate`: the embedded default data, insa-mini, as a raw release."""

from pathlib import Path
from typing import TYPE_CHECKING

from unispector.config import Config

if TYPE_CHECKING:
    from unispector.data.mini import MiniReport

MINI = "insa-mini"


def generate(config: Config, root: Path = Path()) -> "MiniReport":
    """Write insa-mini to `<data.root>/insa-mini`; an older one is replaced as a whole.

    Args:
        config: its sections `mini` and `data` are read.
        root: the project's folder.

    Raises:
        DataError: the folder cannot be written.
    """
    from unispector.data.mini import generate_mini

    return generate_mini(config.mini, root / config.data.root / MINI)
