"""Who may ask."""

import httpx
import pytest

from live_service import follow, serving
from unispector.serving.gate import check_sender
from unispector.serving.prompts import FixedPrompts
from unispector.serving.refusal import RefusedError

TOKEN = "a long random text"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.0.0.2:80", "[::1]:8000", "[::1]"]
)
def test_without_a_token_this_machine_is_answered(host):
    check_sender({"host": host}, "", "/prompts")
    check_sender({"host": host, "origin": "http://127.0.0.1:3000"}, "", "/prompts")


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "192.168.1.7", "[::1", "a b"],
)
def test_without_a_token_other_names_of_this_machine_are_refused(host):
    for path in ("/prompts", "/health"):
        with pytest.raises(RefusedError) as told:
            check_sender({"host": host}, "", path)
        assert told.value.status == 403


@pytest.mark.parametrize(
    "origin", ["null", "https://evil.example", "http://localhost.evil.example", "", "x://["]
)
def test_pages_of_other_sites_are_refused(origin):
    with pytest.raises(RefusedError) as told:
        check_sender({"host": "localhost", "origin": origin}, "", "/prompts")
    assert told.value.status == 403


@pytest.mark.parametrize(
    "given",
    [None, "", TOKEN, f"Bearer {TOKEN} ", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer ", "Bearer é"],
)
def test_with_a_token_it_must_be_right(given):
    headers = {"host": "localhost"} | ({} if given is None else {"authorization": given})
    with pytest.raises(RefusedError) as told:
        check_sender(headers, TOKEN, "/detect")
    assert told.value.status == 401
    check_sender(headers, TOKEN, "/health")
    check_sender(headers, TOKEN, "/ready")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_with_a_token_others_are_answered(scheme):
    """Schemes have no case, and one or more spaces follow (RFC 9110, 11.1 and 11.4)."""
    check_sender({"host": "line3.example", "authorization": f"{scheme} {TOKEN}"}, TOKEN, "/detect")


def test_of_two_headers_that_say_who_asks_neither_is_believed(tiny_model, bank_file):
    with serving(follow(tiny_model), FixedPrompts(bank_file), token=TOKEN) as live:
        for first, second in (("wrong", TOKEN), (TOKEN, "wrong"), (TOKEN, TOKEN)):
            headers = [("authorization", f"Bearer {each}") for each in (first, second)]
            told = live.client.build_request("GET", "/prompts")
            told.headers = httpx.Headers([("host", f"127.0.0.1:{live.port}"), *headers])
            answer = live.client.send(told)
            assert answer.status_code == 400
            assert answer.json() == {"error": "the header Authorization comes twice; send one"}


def test_a_head_is_answered_as_a_get_without_its_body(tiny_model, bank_file):
    with serving(follow(tiny_model), FixedPrompts(bank_file)) as live:
        for path in ("/health", "/ready", "/prompts"):
            head, get = live.client.head(path), live.client.get(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(get.content))
        refused = live.client.head("/detect")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_the_service_asks_for_the_token_before_it_reads_a_body(tiny_model, bank_file, files):
    with serving(follow(tiny_model), FixedPrompts(bank_file), token=TOKEN) as live:
        right = live.client.post("/detect", files={"images": files[0]})
        assert right.status_code == 200
        del live.client.headers["authorization"]
        assert live.client.get("/health").status_code == 200
        for method, path in (
            ("GET", "/metrics"),
            ("GET", "/prompts"),
            ("GET", "/openapi.json"),
            ("POST", "/detect"),
            ("DELETE", "/prompts/spot"),
            ("GET", "/nothing"),
        ):
            refused = live.client.request(method, path)
            assert (refused.status_code, list(refused.json())) == (401, ["error"])
            assert refused.headers["www-authenticate"] == "Bearer"

        assert live.client.post("/prompts", content=iter([b"never finished"])).status_code == 401
