"""`unispector prompts list`, `history` and `show`: the prompts in production as text.

All raise PromptBankError where the store is damaged or has no such version.
"""

import getpass
from collections.abc import Iterable

from unispector.project.columns import columns
from unispector.prompts.store import PromptSet, PromptStore, StoredPrompt


def user_name() -> str:
    """Return the name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in a container
        return "unknown"


def list_classes(store: PromptStore) -> str:
    """The current version and its classes, a line each."""
    return _classes(store.current())


def list_history(store: PromptStore) -> str:
    """All versions, newest first, a line each; of one that is damaged, the file's name."""
    history = store.history()
    rows = [(str(v.version), v.time, v.by, f"{len(v.classes)} classes", v.note) for v in history]
    return "\n".join(columns(rows)) or f"{store.folder}: nothing was enrolled yet"


def show_version(store: PromptStore, number: int) -> str:
    """Everything of one version: who made it, why and from what, its classes, images and marks."""
    version = store.version(number)
    made = [("made", version.time), ("by", version.by), ("note", version.note), *version.lineage.items()]
    prompts = [
        (label, prompt.source, _marks([prompt]), prompt.picture)
        for label, prompts in version.classes.items()
        for prompt in prompts
    ]
    blocks = ([_classes(version)], columns(made) if version.version else [], columns(prompts))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _classes(version: PromptSet) -> str:
    rows = [
        (f"  {label}", f"{len({prompt.picture for prompt in prompts})} images", _marks(prompts))
        for label, prompts in version.classes.items()
    ]
    return "\n".join([f"version {version.version}, {len(rows)} classes", *columns(rows)])


def _marks(prompts: Iterable[StoredPrompt]) -> str:
    prompts = list(prompts)
    boxes = sum(len(prompt.boxes_xywh) for prompt in prompts if not prompt.negative)
    masks = sum(len(prompt.masks_rle) for prompt in prompts if not prompt.negative)
    negatives = sum(len(prompt.marks()) for prompt in prompts if prompt.negative)
    counts = ((boxes, "boxes"), (masks, "masks"), (negatives, "negatives"))
    return ", ".join(f"{count} {name}" for count, name in counts if count)
