"""Blocks of code in documents, to be run."""

import re
import shlex
import subprocess
import sys
import textwrap

import httpx

from unispector.cli import main


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """Language and code of each block of these languages, in order; blocks of a list are indented."""
    kinds = "|".join(languages)
    found = re.findall(rf"^( *)```({kinds})\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(language, textwrap.dedent(code)) for _, language, code in found]


def commands(block: str) -> list[list[str]]:
    """The arguments of each call of `unispector`, the only program of the block."""
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert {program for program, *_ in lines} == {"unispector"}
    return [arguments for _, *arguments in lines]


def run_blocks(text: str, name: str) -> dict[str, object]:
    """Run all bash and python blocks of a document in order, in the working directory.

    Returns:
        The names that the python blocks leave.
    """
    names: dict[str, object] = {}
    for language, code in blocks(text, "bash", "python"):
        if language == "python":
            exec(compile(code, name, "exec"), names)
            continue
        for arguments in commands(code):
            if arguments[0] == "ui":
                _open_page(arguments)
            else:
                assert main(arguments) == 0, arguments
    return names


def _open_page(arguments: list[str]) -> None:
    """Start the page, without a browser, ask for it, and end it."""
    command = [sys.executable, "-m", "unispector.cli", *arguments, "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            said = program.stdout.readline() if program.stdout else ""
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+", said)
            assert "<title>UniSpector</title>" in httpx.get(address, timeout=60).text
        finally:
            program.terminate()
