"""Open-set visual inspection: show one marked image of a defect, find it on every other image.

The public names load on first use, so that `import unispector` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unispector.config import Config, load_config
    from unispector.detections import Detections
    from unispector.inference.detector import Prompt, UniSpector
    from unispector.inference.prompt_bank import PromptBank

    __version__: str

__all__ = ["Config", "Detections", "Prompt", "PromptBank", "UniSpector", "__version__", "load_config"]

_HOMES = {
    "Config": "unispector.config",
    "load_config": "unispector.config",
    "Prompt": "unispector.inference.detector",
    "UniSpector": "unispector.inference.detector",
    "PromptBank": "unispector.inference.prompt_bank",
    "Detections": "unispector.detections",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("unispector")
    if name not in _HOMES:
        raise AttributeError(f"module 'unispector' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
