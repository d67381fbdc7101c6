"""The prompts that a verb's `--bank` names: a bank's file, or the folder of a prompt store."""

from pathlib import Path

from unispector.errors import PromptBankError
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.prompts.store import PromptStore


def is_bank_file(prompts: Path) -> bool:
    """Return whether this names a bank's file, be it there or not, and not the folder of a prompt store."""
    return prompts.is_file() or (prompts.suffix == ".safetensors" and not prompts.is_dir())


def find_bank(prompts: Path, detector: UniSpector) -> PromptBank:
    """The prompts of a bank's file or of a prompt store's current version, for this model.

    Raises:
        PromptBankError: there is none, it is unreadable or of another model, or no class is in the store.
    """
    if is_bank_file(prompts) or not prompts.exists():
        bank = PromptBank.load(prompts)
        try:
            detector.check(bank)
        except PromptBankError as error:
            raise PromptBankError(f"{prompts}: {error}") from error
        return bank
    current = PromptStore(prompts).bank(detector)
    if current is None:
        raise PromptBankError(
            f"{prompts}: no class in this prompt store; `unispector prompts enroll` adds one"
        )
    return current
