"""The enrolment flow: what Prefect shows of it, and how it ends on the command line."""

import re
import shutil

import cv2
import numpy as np
import pytest

from unispector.errors import DataError
from unispector.project.paths import CHAMPION_MODEL
from unispector.prompts.store import PromptStore


@pytest.fixture
def project(tmp_path, project_root, monkeypatch):
    """A working folder with three images of a hole, and with three whose marks lie elsewhere."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(project_root / "params.yaml", tmp_path)
    for number in range(3):
        rng = np.random.default_rng(number)
        pixels = 150 + cv2.GaussianBlur(rng.normal(0, 60, (200, 200)), (0, 0), 1.5)
        hole, elsewhere = np.zeros((2, 200, 200), np.uint8)
        cv2.circle(hole, (60 + 20 * number, 50), 12, 255, -1)
        cv2.circle(elsewhere, (50 + 30 * number, 140 - 10 * number), 12, 255, -1)
        pixels[hole > 0] -= 90
        for folder, mask in (("holes", hole), ("nothing", elsewhere)):
            for kind, image in (("images", pixels.clip(0, 255).astype(np.uint8)), ("masks", mask)):
                (tmp_path / folder / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(tmp_path / folder / kind / f"{number}.png"), image)
    return tmp_path


def test_a_mistake_is_one_line(monkeypatch):
    from flows import enroll

    def refuse(source, folder, label, model, store):
        assert (source, folder.as_posix(), label, model) == ("masks", "holes", "hole", CHAMPION_MODEL)
        assert store.as_posix() == "data/prompts"
        raise DataError("holes: no such folder")

    monkeypatch.setattr(enroll, "enroll_flow", refuse)
    with pytest.raises(SystemExit) as stopped:
        enroll.main(["masks", "holes", "hole"])
    assert stopped.value.code == "error: holes: no such folder"


@pytest.mark.slow
@pytest.mark.integration
def test_enrolled_and_refused(project, prefect_server, capsys):
    from prefect.client.orchestration import get_client

    from flows.enroll import enroll_flow, main

    main(["masks", "holes", "hole", "--model", "fast"])
    told = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"hole: passed: [23] of 3 \(\d+%\) marks", told)
    assert told.endswith("; enrolled as version 1")
    with pytest.raises(SystemExit) as stopped:
        main(["masks", "nothing", "phantom", "--model", "fast"])
    assert str(stopped.value.code).startswith("phantom: refused: only 0 of 3")
    again = enroll_flow("masks", "holes", "hole", "fast", by="ann")
    assert again.outcome == "unchanged"
    assert list(PromptStore(project / "data/prompts").current().classes) == ["hole"]
    with get_client(sync_client=True) as client:
        pages = [artifact.data for artifact in client.read_artifacts() if artifact.key == "enroll"]
        assert {run.state.name for run in client.read_flow_runs()} == {"Completed"}
    assert len(pages) == 3
    assert sum("**passed: " in page for page in pages) == 1
    assert sum("**refused: only 0 of 3" in page for page in pages) == 1
