"""Stage `generate`: the embedded default data, insa-mini, as seven raw releases."""

from pathlib import Path
from typing import TYPE_CHECKING

from unispector.config import Config
from unispector.project.progress import progress_bar

if TYPE_CHECKING:
    from unispector.data.mini import MiniReport

MINI = "insa-mini"


def generate(config: Config, root: Path = Path()) -> "MiniReport":
    """Write insa-mini to `<data.root>/insa-mini`, a folder per set; an older one is replaced as a whole.

    Raises:
        DataError: the folder cannot be written, or the numbers or the size in `mini` cannot be met.
    """
    from unispector.data.mini import generate_mini

    with progress_bar(MINI) as progress:
        return generate_mini(config.mini, root / config.data.root / MINI, progress)
