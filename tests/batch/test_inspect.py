import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image

from unispector.batch import inspect as stage
from unispector.batch.inspect import inspect
from unispector.cli.inspect import inspect as command
from unispector.errors import DataError, PromptBankError
from unispector.inference.detector import Prompt, UniSpector
from unispector.prompts.marks import MarkedImage
from unispector.prompts.store import PromptStore

ROOT = Path(__file__).parents[2]


def fill(folder, count, side=64):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def pictures(tmp_path):
    return fill(tmp_path / "pictures", 6)


@pytest.fixture
def bank(tmp_path, tiny_model):
    picture = fill(tmp_path / "marked", 1) / "000.png"
    UniSpector.load(tiny_model).encode([Prompt(picture, [[4, 4, 30, 30]])]).save(tmp_path / "a.bank")
    return tmp_path / "a.bank"


def test_a_folder_becomes_a_table(pictures, bank, tiny_model, tmp_path):
    (pictures / "broken.png").write_bytes(b"no image")
    out = tmp_path / "new/results.parquet"
    report = inspect(str(pictures), out, tiny_model, bank, min_score=0.0)
    assert (report.summary.pictures, report.summary.failed, report.looked) == (7, 1, 7)
    rows = pq.read_table(out).to_pylist()
    assert len({row["path"] for row in rows}) == 7
    assert report.summary.detections == sum(row["score"] is not None for row in rows) > 6
    assert [path.name for path in out.parent.iterdir()] == ["results.parquet"]
    again = inspect(str(pictures), out, tiny_model, bank, min_score=0.0)
    assert (again.looked, again.summary) == (1, report.summary)  # the one that failed


def test_the_command_says_what_it_did(pictures, bank, tiny_model, tmp_path, capsys):
    (pictures / "broken.png").write_bytes(b"no image")
    out = tmp_path / "results.parquet"
    with pytest.raises(typer.Exit) as ended:
        command(str(pictures), out, str(tiny_model), bank, 1.0, 1)
    told = capsys.readouterr()
    assert told.out == f"7 images (7 looked at now), 0 detections on 0, 1 could not be read: {out}\n"
    assert (ended.value.exit_code, told.err.count("\n")) == (1, 1)
    (pictures / "broken.png").unlink()
    command(str(pictures), out, str(tiny_model), bank, 1.0, 1)  # ends well


def test_prompts_of_a_store(pictures, bank, tiny_model, tmp_path):
    marked = (bank.parent / "marked/000.png").read_bytes()
    store = PromptStore(tmp_path / "store")
    store.add("defect", [MarkedImage(marked, "a.png", boxes_xywh=((4.0, 4.0, 30.0, 30.0),))], "me", "", {})
    by_store, by_file = tmp_path / "store.parquet", tmp_path / "file.parquet"
    inspect(str(pictures), by_store, tiny_model, store.folder, min_score=0.0)
    inspect(str(pictures), by_file, tiny_model, bank, min_score=0.0)
    assert pq.read_table(by_store).to_pylist() == pq.read_table(by_file).to_pylist()


def test_mistakes_are_told_before_any_picture_is_looked_at(
    pictures, bank, tiny_model, other_tiny_model, tmp_path
):
    out = tmp_path / "results.parquet"
    (tmp_path / "empty").mkdir()
    for place, model, prompts, kind, reason in (
        (tmp_path / "absent", tiny_model, bank, DataError, "no such folder of images"),
        (tmp_path / "empty", tiny_model, bank, DataError, "no image in it"),
        (pictures, other_tiny_model, bank, PromptBankError, "was made by model"),
        (pictures, tiny_model, tmp_path / "absent", PromptBankError, "no such prompt bank"),
        (pictures, tiny_model, tmp_path / "empty", PromptBankError, "no class in this prompt store"),
    ):
        with pytest.raises(kind, match=reason):
            inspect(str(place), out, model, prompts)
        assert not [path for path in tmp_path.iterdir() if "results" in path.name]


RUN = """
import sys
from pathlib import Path
from unispector.environment import work_offline
from unispector.batch.inspect import inspect
if __name__ == "__main__":
    work_offline(Path(sys.argv[1]))
    place, out, model, bank = sys.argv[2:6]
    inspect(place, Path(out), Path(model), Path(bank), min_score=0.0, workers=int(sys.argv[6]))
"""


def started(tmp_path, *arguments):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command_line = [sys.executable, str(script), str(tmp_path), *map(str, arguments)]
    return subprocess.Popen(
        command_line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.integration
def test_a_killed_run_goes_on_where_it_was(bank, tiny_model, tmp_path):
    """The driver gets SIGKILL once parts are there; the file is the one of a run that nobody disturbed."""
    folder = fill(tmp_path / "many", stage.FEW + 300, side=160)
    out, whole = tmp_path / "killed.parquet", tmp_path / "whole.parquet"
    parts = tmp_path / ".killed.parquet.parts"
    running = started(tmp_path, folder, out, tiny_model, bank, 2)
    deadline = time.monotonic() + 300
    while not any(parts.glob("*/[0-9]*.parquet")) and time.monotonic() < deadline:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    seen = sum(len(set(pq.read_table(part)["path"].to_pylist())) for part in parts.glob("*/[0-9]*.parquet"))
    assert 0 < seen < stage.FEW + 300
    assert not out.exists()
    shutil.rmtree(tmp_path / "marked")
    report = inspect(str(folder), out, tiny_model, bank, min_score=0.0, workers=1)
    assert report.looked == stage.FEW + 300 - seen
    inspect(str(folder), whole, tiny_model, bank, min_score=0.0, workers=1)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.integration
def test_the_file_does_not_depend_on_the_number_of_workers(bank, tiny_model, tmp_path):
    folder = fill(tmp_path / "many", stage.FEW + 1)
    files = [tmp_path / f"{workers}.parquet" for workers in (1, 2)]
    for workers, out in zip((1, 2), files, strict=True):
        running = started(tmp_path, folder, out, tiny_model, bank, workers)
        assert running.wait(300) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
