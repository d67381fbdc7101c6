"""The service under load for a few seconds: no error, every answer right, memory bounded."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

GROWTH_MIB = 100
"""Above the memory after the first images: 16 requests at once hold a megabyte of pixels each, and threads
keep arenas; what leaked with every request would not stay below it for long."""


@pytest.fixture(scope="module")
def benchmark_module(project_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve_load", project_root / "benchmarks" / "serve_load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_load"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.integration
def test_the_service_under_load(benchmark_module):
    start, found = benchmark_module.loads("fast", seconds=5)
    assert [load.clients for load in found] == [1, 4, 16]
    for load in found:
        assert (load.errors, load.wrong) == (0, 0)
        assert len(load.waits) >= load.clients
        assert load.rss_mib - start < GROWTH_MIB
    shown = benchmark_module.table(start, found)
    assert shown.count("| all |") == 3
