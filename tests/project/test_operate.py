"""What is kept alive, and where it listens."""

import shlex
import socket
from configparser import RawConfigParser

import pytest

from unispector.errors import ConfigError
from unispector.project.operate import Program, operate, port, programs, write_configuration


def test_everything_listens_on_loopback_on_the_ports_asked_for(monkeypatch):
    monkeypatch.setenv("UNISPECTOR_PREFECT_PORT", "4299")
    known = {each.name: each for each in programs()}
    assert list(known) == ["mlflow", "prefect", "worker", "service"]
    assert known["prefect"].address == "http://127.0.0.1:4299"
    assert shlex.join(known["prefect"].command).endswith("--host 127.0.0.1 --port 4299")
    assert "0.0.0.0" not in " ".join(part for each in known.values() for part in each.command)


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "-1", "80.5"])
def test_a_port_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("UNISPECTOR_SERVICE_PORT", text)
    with pytest.raises(ConfigError, match=f"UNISPECTOR_SERVICE_PORT={text}"):
        port("service")


def test_supervisord_reads_back_what_was_written(tmp_path):
    awkward = Program("odd", ("/bin/a b", "100%", "it's x"), "an odd one", stop_seconds=7)
    file = write_configuration([awkward, Program("other", ("true",), "another")], tmp_path / "state")
    parser = RawConfigParser()
    parser.read(file)
    assert parser.sections()[-2:] == ["program:odd", "program:other"]
    section = parser["program:odd"]
    assert section["stopwaitsecs"] == "7"

    from supervisor.options import ServerOptions

    options = ServerOptions()
    options.realize(["-n", "-c", str(file)])
    (odd, _) = (group.process_configs[0] for group in options.process_group_configs)
    assert shlex.split(odd.command)[-5:] == ["odd", "--", "/bin/a b", "100%", "it's x"]
    assert odd.autorestart is not False
    assert odd.killasgroup


def test_a_port_in_use_is_told_before_anything_starts(monkeypatch, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setenv("UNISPECTOR_MLFLOW_PORT", str(taken))
        with pytest.raises(ConfigError, match=f"^mlflow: port {taken} .* UNISPECTOR_MLFLOW_PORT$"):
            operate(["mlflow"], tmp_path)
    assert not list(tmp_path.iterdir())
