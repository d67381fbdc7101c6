"""The promotion flow around the stage, which has tests of its own."""

import pytest

from unispector.errors import RegistryError
from unispector.project.paths import TRACKING


def test_a_mistake_is_one_line(monkeypatch):
    from flows import promote

    def refuse():
        raise RegistryError("no version is a challenger; register one")

    monkeypatch.setattr(promote, "promote_flow", refuse)
    with pytest.raises(SystemExit) as stopped:
        promote.main()
    assert stopped.value.code == "error: no version is a challenger; register one"


def test_the_task_judges_the_project_of_the_parameters(tiny_project):
    from flows.promote import decide

    with pytest.raises(RegistryError, match="challenger") as refused:
        decide.fn(tiny_project / "params.yaml")
    assert str((tiny_project / TRACKING).resolve()) in str(refused.value)
