"""A new folder of raw images leads to a challenger and a written decision; a bad one to neither.

The whole of it for real on a small project: DVC, Great Expectations, Prefect, Ray, MLflow.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unispector.project.paths import RETRAINING, TRACKING
from unispector.registry.decisions import approve
from unispector.registry.promote import BY_RULES
from unispector.tracking.registry import CHAMPION, ModelRegistry
from unispector.tracking.run import TrackingStore

pytestmark = [pytest.mark.slow, pytest.mark.integration]


class Factory:
    """The project, and who was told what."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.alerts = project.parent / "alerts.txt"
        self.hook = project.parent / "hook.py"
        self.hook.write_text(f"import sys; open({str(self.alerts)!r}, 'a').write(sys.argv[1] + '\\n')")

    def retrain(self) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"UNISPECTOR_ALERT": f"{sys.executable} {self.hook}"}
        command = [sys.executable, "-m", "flows.retrain"]
        return subprocess.run(
            command,
            cwd=self.project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def told(self) -> list[str]:
        return self.alerts.read_text().splitlines() if self.alerts.exists() else []

    def last(self) -> dict[str, object]:
        return json.loads((self.project / RETRAINING).read_text())

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(TrackingStore(self.project / TRACKING))


def test_from_raw_pictures_to_a_decision(factory, new_batch):
    line = Factory(factory)
    raw = factory / "data/raw/line"

    first = line.retrain()
    assert first.returncode == 0, first.stdout + first.stderr
    assert [each.number for each in line.registry.versions()] == [1]
    assert line.last()["outcome"] == "decided"
    (decision,) = line.registry.history()
    assert (decision.version, decision.by) == (1, BY_RULES)
    if line.registry.find(CHAMPION) is None:  # four steps need not make it better than the untrained one
        approve(line.registry, 1, "ada", "the first")

    began = time.monotonic()
    again = line.retrain()
    assert again.returncode == 0
    assert "nothing new since" in again.stdout
    assert time.monotonic() - began < 60  # most of it is Prefect's own start
    assert [each.number for each in line.registry.versions()] == [1]

    new_batch(raw / "second", 2)
    second = line.retrain()
    assert second.returncode == 0, second.stdout + second.stderr
    assert [each.number for each in line.registry.versions()] == [2, 1]
    page = (factory / "reports/promotion/2-vs-1.md").read_text()
    assert page.startswith("# Version 2 against version 1\n")
    events = [event for event in line.registry.history() if event.by == BY_RULES]
    assert [event.version for event in events] == [2, 1]
    assert (events[0].action == "promoted") == (line.registry.version(CHAMPION).number == 2)

    champion, told = line.registry.version(CHAMPION).number, line.told()
    assert len(told) == 2  # a decision each
    new_batch(raw / "third", 3)
    picture = raw / "third" / "1.png"
    picture.write_bytes(picture.read_bytes()[:-40])
    refused = line.retrain()
    assert refused.returncode != 0
    assert line.last()["outcome"] == "data refused"
    assert "third/1.png" in str(line.last()["reason"])
    assert line.registry.version(CHAMPION).number == champion
    assert [each.number for each in line.registry.versions()] == [2, 1]
    assert line.told()[-1].startswith("retraining: data refused: validate: line: ")
    line.retrain()
    assert len(line.told()) == len(told) + 1  # once is enough

    picture.unlink()
    marks = raw / "third" / "marks.json"
    content = json.loads(marks.read_text())
    content["images"] = [image for image in content["images"] if image["file_name"] != "1.png"]
    content["annotations"] = [mark for mark in content["annotations"] if mark["image_id"] != 1]
    marks.unlink()
    marks.write_text(json.dumps(content))
    mended = line.retrain()
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert [each.number for each in line.registry.versions()] == [3, 2, 1]
