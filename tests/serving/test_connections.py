"""Connections that dawdle, do not read, or do not speak HTTP."""

import json
import socket
import time
from contextlib import closing, suppress

import pytest

from live_service import follow, serving
from unispector.serving import server
from unispector.serving.limits import Limits
from unispector.serving.prompts import FixedPrompts

QUICK = Limits(body_seconds=0.5, body_mib=1, megapixels=1)
FORM = b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'


@pytest.fixture(scope="module")
def live(tiny_model, bank_file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "KEEP_ALIVE_SECONDS", 1)
        with serving(follow(tiny_model), FixedPrompts(bank_file), QUICK) as live:
            live.client.close()
            yield live


def connected(live) -> closing:
    return closing(socket.create_connection(("127.0.0.1", live.port), timeout=20))


def answer(sock: socket.socket) -> tuple[int, dict[str, str]]:
    """Status and body of what comes until the other side closes or has sent what it announced."""
    data = b""
    while True:
        head, ended, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if ended and lengths and len(body) >= int(lengths[0].split(b":")[1]):
            return int(head.split()[1]), json.loads(body)
        piece = sock.recv(65536)
        assert piece, data
        data += piece


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def drip(sock: socket.socket, data: bytes) -> None:
    """A byte at a time until nobody listens."""
    deadline = time.monotonic() + 15
    sock.settimeout(0.05)
    for byte in data:
        try:
            sock.sendall(bytes([byte]))
            if sock.recv(1, socket.MSG_PEEK) or time.monotonic() > deadline:
                break
        except TimeoutError:
            continue
        except OSError:
            break
    sock.settimeout(20)


def test_a_slow_body(live):
    with connected(live) as sock:
        sock.sendall(FORM + b"Content-Length: 100000\r\n\r\n--x\r\n")
        assert answer(sock) == (408, {"error": "the body took more than 0.5 s"})


def test_a_dripping_body_is_neither_waited_for_nor_read_on_for_ever(live):
    with connected(live) as sock:
        sock.sendall(FORM + b"Content-Length: 100000\r\n\r\n" + PART)
        drip(sock, b"x" * 1000)
        assert answer(sock)[0] == 408
        drip(sock, b"x" * 1000)
        assert is_closed(sock)


def test_a_body_that_is_announced_too_large_is_not_waited_for(live):
    with connected(live) as sock:
        sock.sendall(FORM + b"Content-Length: 99999999999999\r\n\r\n")
        assert answer(sock) == (413, {"error": "a body of more than 1 MiB; send less at a time"})


def test_a_body_of_unknown_size_is_counted_while_it_arrives(live):
    with connected(live) as sock:
        sock.sendall(FORM + b"Transfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"%x\r\n%s\r\n" % (len(PART), PART))
        for _ in range(17):
            sock.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        # The body has not ended.
        assert answer(sock)[0] == 413
    assert live.service.memory.used == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 300_000,
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_not_http(live, raw):
    with connected(live) as sock:
        sock.sendall(raw)
        status, body = answer(sock)
        assert status == 400
        assert list(body) == ["error"]
        assert is_closed(sock)


def test_an_idle_connection_is_closed_and_a_busy_one_kept(live):
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(live) as sock:
        for _ in range(3):
            time.sleep(0.2)
            sock.sendall(ask)
            assert answer(sock)[0] == 200
        assert is_closed(sock)


def test_pipelined_requests_are_all_answered(live):
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(live) as sock:
        sock.sendall(ask * 3)
        received = b""
        while piece := sock.recv(65536):  # until it is closed for being idle
            received += piece
        assert received.count(b"HTTP/1.1 200 OK") == 3


def test_answers_that_are_not_read_keep_nobody_from_theirs(live):
    with closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", live.port))
        sock.settimeout(0.5)
        with suppress(TimeoutError):  # sends until the other side takes no more
            while True:
                sock.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        with connected(live) as other:
            other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(other)[0] == 200


def test_of_too_many_connections_the_one_that_was_idle_longest_goes(live, monkeypatch):
    monkeypatch.setattr(server._Protocol, "most", 3)
    with connected(live) as busy, connected(live) as oldest, connected(live) as younger:
        busy.sendall(FORM + b"Content-Length: 1000\r\n\r\n")
        for sock in (oldest, younger):
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(sock)[0] == 200
        with connected(live) as newest:
            newest.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(newest)[0] == 200
            assert is_closed(oldest)
            younger.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(younger)[0] == 200
            assert answer(busy)[0] == 408


def test_a_burst_of_connections_stays_within_the_limit(live, monkeypatch):
    monkeypatch.setattr(server._Protocol, "most", 20)
    socks = [socket.create_connection(("127.0.0.1", live.port), timeout=20) for _ in range(300)]
    time.sleep(0.5)
    with connected(live) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer(sock)[0] == 200
    still = 0
    for sock in socks:
        sock.settimeout(0.001)
        try:
            still += sock.recv(1) != b""
        except TimeoutError:
            still += 1
        except ConnectionError:
            pass
        sock.close()
    assert still <= 20


def test_a_body_of_crumbs_is_refused_at_once(live):
    with connected(live) as sock:
        began = time.process_time()
        sock.sendall(FORM + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 20_000)
        assert answer(sock)[0] == 400
        assert time.process_time() - began < 0.5
    with connected(live) as sock:  # a large piece pays for small ones
        pieces = b"%x\r\n%s\r\n" % (500_000, bytes(500_000)) + b"1\r\na\r\n" * 2000
        sock.sendall(FORM + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
        assert answer(sock) == (400, {"error": "Invalid multipart data."})


def test_with_none_idle_a_connection_too_many_is_refused(live, monkeypatch):
    monkeypatch.setattr(server._Protocol, "most", 1)
    with connected(live) as busy:
        busy.sendall(FORM + b"Content-Length: 1000\r\n\r\n")
        time.sleep(0.1)
        with connected(live) as another:
            assert answer(another) == (503, {"error": "too many connections; try again in a moment"})
            assert is_closed(another)
        assert answer(busy)[0] == 408


def test_no_request_takes_for_ever(tiny_model, bank_file):
    limits = Limits(body_seconds=20, request_seconds=0.5)
    with serving(follow(tiny_model), FixedPrompts(bank_file), limits) as live, connected(live) as sock:
        sock.sendall(FORM + b"Content-Length: 100000\r\n\r\n--x\r\n")
        assert answer(sock) == (503, {"error": "took too long"})


def test_a_connection_that_came_in_as_the_service_stops_does_not_hold_it(tiny_model, bank_file, monkeypatch):
    """The service asks all open connections to close once; one that is not among them then stays open."""
    asked, missed = server._Protocol.shutdown, []

    def shutdown(connection):
        if missed and connection in missed:
            asked(connection)
        missed.append(connection)

    monkeypatch.setattr(server._Protocol, "shutdown", shutdown)
    with serving(follow(tiny_model), FixedPrompts(bank_file)) as live:
        idle = socket.create_connection(("127.0.0.1", live.port), timeout=20)
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer(idle)[0] == 200
        live.client.close()
        began = time.monotonic()
    assert missed
    assert time.monotonic() - began < 10
    assert is_closed(idle)
    idle.close()
