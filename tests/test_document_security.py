"""docs/security.md states what is installed, and the limits that the code has."""

import re
from pathlib import Path

from unispector.ops.files import MOST_ASPECT, MOST_SIDE
from unispector.ops.memory import PEAK_BYTES, WEBP_BYTES
from unispector.serving.decoding.decoders import HEADER_SECONDS, MEGAPIXEL_SECONDS
from unispector.serving.server import CONNECTIONS

ROOT = Path(__file__).parents[1]
TEXT = " ".join((ROOT / "docs" / "security.md").read_text(encoding="utf-8").split())


def test_versions_are_those_of_the_lock():
    rows = re.findall(r"\| ([a-z0-9-]+) \| (\d\S*) \|", TEXT)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert len(rows) > 15
    for name, version in rows:
        assert f"\n{name}=={version} " in lock, name


def test_limits_are_those_of_the_code():
    assert f"sides up to {MOST_SIDE:,} pixels and {MOST_ASPECT} : 1" in TEXT
    assert f"{PEAK_BYTES} bytes a pixel ({WEBP_BYTES} of WebP)" in TEXT
    assert f"{CONNECTIONS} connections" in TEXT
    assert (HEADER_SECONDS, MEGAPIXEL_SECONDS) == (1, 0.25)
    assert "1 s and a quarter of a second a million pixels" in TEXT
