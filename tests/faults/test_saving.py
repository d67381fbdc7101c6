"""Checkpoints when the disk is full, and when the process is killed while it writes one."""

import os
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from unispector.errors import CheckpointError
from unispector.training.checkpoint import Checkpointer
from unispector.training.optim import build_optimiser

SIZE = 3 * 4 * 501_000


def small_model() -> tuple[nn.Module, AdamW]:
    model = nn.Linear(1000, 500)
    return model, build_optimiser(model, learning_rate=1e-3, backbone_rate=1, weight_decay=0)


def save_until(path: Path, steps: int, limit: int = 0) -> None:
    """Save again and again; every value is the step, so that a mixture of two saves would show."""
    model, optimiser = small_model()
    checkpointer = Checkpointer(path, "job")
    for step in range(checkpointer.restore(model, optimiser) + 1, steps + 1):
        for parameter in model.parameters():
            nn.init.constant_(parameter, step)
            optimiser.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": torch.full_like(parameter, step),
                "exp_avg_sq": torch.full_like(parameter, step),
            }
        if limit and step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        checkpointer.save(step, model, optimiser)


def in_a_child(work: Callable[[], None], error_file: Path) -> int:
    """Start `work` in a copy of this process, which has loaded torch already; returns its pid."""
    if pid := os.fork():
        return pid
    try:
        work()
    except CheckpointError as error:
        error_file.write_text(str(error))
        os._exit(1)
    finally:
        os._exit(0)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def restored(path: Path) -> tuple[int, set[float]]:
    """The step of a checkpoint and all values in it."""
    model, optimiser = small_model()
    step = Checkpointer(path, "job").restore(model, optimiser)
    states = [value for state in optimiser.state.values() for value in state.values()]
    values = torch.cat([value.detach().flatten() for value in (*model.parameters(), *states)])
    return step, set(values.unique().tolist())


def test_killed_while_saving_the_old_or_the_new_one_is_there(tmp_path):
    folder, error_file = tmp_path / "work", tmp_path / "error"
    folder.mkdir()
    path = folder / "checkpoint.safetensors"
    chance, last, halves = random.Random(42), 0, 0
    for _ in range(12):
        pid = in_a_child(lambda: save_until(path, 10**6), error_file)
        time.sleep(chance.uniform(0.05, 0.3))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL  # a damaged checkpoint would have ended it with an error
        left = list(folder.iterdir())
        assert len(left) <= 2, "temporary files pile up"
        halves += len(left) - path.exists()
        step, values = restored(path)
        assert step >= last
        assert step == 0 or values == {float(step)}
        assert [file.name for file in folder.iterdir()] == [path.name] * path.exists()
        last = step
    assert last > 0
    assert halves > 0, "no kill came in the middle of a save"


def told(message: str, path: Path, reason: str) -> None:
    assert "\n" not in message.strip()
    assert message.startswith(
        f"{path}: the checkpoint of step 2 cannot be written ({reason}; it takes 6.0 MB, "
    )
    assert re.search(r" \d+\.\d MB are free\); that of step 1 stays usable; make room", message)


def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path):
    path, error_file = tmp_path / "work" / "checkpoint.safetensors", tmp_path / "error"
    assert ended(in_a_child(lambda: save_until(path, 3, limit=SIZE // 2), error_file)) == 1
    told(error_file.read_text(), path, "File too large")
    assert restored(path) == (1, {1.0})
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """A real file system with room for one and a half checkpoints, in a mount namespace of its own."""
    full, kept, error_file = tmp_path / "full", tmp_path / "kept", tmp_path / "error"
    full.mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE * 3 // 2}", "none", str(full)]
    try:
        subprocess.run([*alone, *mount], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a file system here")
    path = full / "checkpoint.safetensors"
    program = "import runpy, sys; runpy.run_path(sys.argv[1])['main'](*sys.argv[2:])"
    # What lies there is copied out, because the file system goes with the namespace.
    script = f'{shlex.join(mount)} && "$@"; code=$?; cp -a {full} {kept}; exit $code'
    command = [*alone, "sh", "-c", script, "sh", sys.executable, "-c", program]
    done = subprocess.run([*command, __file__, str(path), str(error_file)], check=False)
    assert done.returncode == 1
    told(error_file.read_text(), path, "No space left on device")
    assert restored(kept / path.name) == (1, {1.0})
    assert [file.name for file in kept.iterdir()] == [path.name]


def main(path: str, error_file: str) -> None:
    """What the process on the full disk does."""
    sys.exit(ended(in_a_child(lambda: save_until(Path(path), 3), Path(error_file))))
