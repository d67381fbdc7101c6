"""Blocks of code in documents, to be run."""

import re
import shlex


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """Language and code of each block of these languages, in order."""
    kinds = "|".join(languages)
    return re.findall(rf"^```({kinds})\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The arguments of each call of `unispector`, the only program of the block."""
    lines = [shlex.split(line) for line in block.splitlines()]
    assert {program for program, *_ in lines} == {"unispector"}
    return [arguments for _, *arguments in lines]
