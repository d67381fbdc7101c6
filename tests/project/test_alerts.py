"""Alerts go where the hook says, and trouble with the hook stops nothing."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from unispector.project.alerts import HOOK, alert


@pytest.fixture
def webhook():
    """A real server on loopback: its address, and what was posted to it."""
    posted = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204 if self.path == "/ok" else 500)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_the_text(webhook, monkeypatch):
    address, posted = webhook
    monkeypatch.setenv(HOOK, f"{address}/ok")
    assert alert("version 3 was promoted")
    assert posted == [{"text": "version 3 was promoted"}]


def test_a_command_gets_the_text_as_one_argument_that_no_shell_reads(tmp_path, monkeypatch):
    file = tmp_path / "told"
    program = tmp_path / "tell.py"
    program.write_text("import sys; open(sys.argv[1], 'w').write('|'.join(sys.argv[2:]))")
    monkeypatch.setenv(HOOK, f"{sys.executable} '{program}' {file}")
    assert alert("refused: $(touch x); 'a' b")
    assert file.read_text() == "refused: $(touch x); 'a' b"


def test_without_a_hook_nobody_is_told(monkeypatch):
    monkeypatch.delenv(HOOK, raising=False)
    assert not alert("something")


def test_trouble_with_the_hook_is_a_warning_that_keeps_its_address_secret(webhook, monkeypatch, caplog):
    address, _ = webhook
    hooks = [f"{address}/secret", "http://127.0.0.1:9/secret", "no-such-program secret", "'secret"]
    hooks += ["https://host:80x/secret", f"{address}/a secret"]
    for hook in hooks:
        monkeypatch.setenv(HOOK, hook)
        caplog.clear()
        assert not alert("something")
        assert "could not be sent" in caplog.text
        assert "secret" not in caplog.text
