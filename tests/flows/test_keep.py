"""A kept program takes all it started with it, and the next start waits for that."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

# A server of two processes, the inner one deaf to polite requests as long as it has work.
SERVER = """
import subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(inner.pid, flush=True)
sys.exit(inner.wait())
"""


def start(folder):
    command = [sys.executable, "-m", "flows.keep", "server", "--", sys.executable, "-c", SERVER]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    inner = psutil.Process(int(process.stdout.readline()))
    return process, inner.parent(), inner


def gone(process, seconds):
    end = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("killed", ["the keeper", "the server"])
def test_a_kill_leaves_nothing_behind(killed, tmp_path):
    keeper, server, inner = start(tmp_path)
    (keeper if killed == "the keeper" else server).kill()
    keeper.wait(20)
    assert gone(inner, 20)
    assert gone(server, 1)


def test_the_next_start_waits_until_the_former_is_gone(tmp_path):
    keeper, _, inner = start(tmp_path)
    keeper.kill()
    again, server, _ = start(tmp_path)  # returns once its server runs
    assert gone(inner, 0)
    again.send_signal(signal.SIGTERM)
    assert again.wait(20) == 128 + signal.SIGTERM
    assert gone(server, 1)


def test_the_exit_code_is_the_programs(tmp_path):
    command = [sys.executable, "-m", "flows.keep", "x", "--", sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, cwd=tmp_path, check=False, timeout=60).returncode == 7


# A SIGTERM that comes after the program has begun and before its keeper knows it.
STOPPED_EARLY = """
import os, signal, subprocess, sys
from flows import keep

start = subprocess.Popen

def stopped_early(command):
    child = start(command)
    os.kill(os.getpid(), signal.SIGTERM)
    return child

sys.argv[1:] = ["server", "--", sys.executable, "-c", "import time; time.sleep(600)"]
guard = keep.guard_this_process
def guarded(lock):
    guard(lock)
    subprocess.Popen = stopped_early
keep.guard_this_process = guarded
keep.main()
"""


def test_a_stop_while_it_starts_is_passed_on(tmp_path):
    code = subprocess.run([sys.executable, "-c", STOPPED_EARLY], cwd=tmp_path, check=False, timeout=60)
    assert code.returncode == 128 + signal.SIGTERM
