"""Forms of requests: what is taken, and what is refused in one line."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from live_service import multipart
from unispector.config.evaluation import KEPT_PAIRS
from unispector.prompts.store import PromptStore
from unispector.serving.app import build_app
from unispector.serving.engine import Reloader
from unispector.serving.forms import DetectBody, FormRoute, PromptBody, shown_name
from unispector.serving.limits import Limits
from unispector.serving.metrics import Metrics
from unispector.serving.prompts import StoredPrompts
from unispector.serving.refusal import RefusedError, Room
from unispector.serving.service import Service

LIMITS = Limits(pictures=3, queue=3, marks=4)
TYPE = "multipart/form-data; boundary=xyz"

router = APIRouter(route_class=FormRoute)


@router.post("/told/detect")
async def told_detect(form: DetectBody) -> dict[str, Any]:
    images = [(file.filename, (await file.read()).hex()) for file in form.images]
    return {**form.model_dump(exclude={"images"}), "images": images}


@router.post("/told/prompts")
async def told_prompt(form: PromptBody) -> dict[str, Any]:
    mask = None if form.mask is None else (await form.mask.read()).hex()
    image = form.image.filename, (await form.image.read()).hex()
    return {**form.model_dump(exclude={"image", "mask"}), "image": image, "mask": mask}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """The service's application without a model, and with two more paths that tell what they were sent."""
    prompts = StoredPrompts(PromptStore(tmp_path_factory.mktemp("prompts")))

    def wanted() -> Any:
        raise AssertionError

    metrics = Metrics()
    app = build_app(Service(Reloader(wanted, prompts, metrics), metrics, LIMITS))
    app.include_router(router)
    return TestClient(app, base_url="http://localhost")


def sent(client: TestClient, path: str, data: bytes, kind: str = TYPE) -> httpx.Response:
    return client.post(path, content=data, headers={"Content-Type": kind})


@pytest.fixture(scope="module")
def detected(client: TestClient) -> Callable[..., Any]:
    """What the parts of a request to detect say; RefusedError where they are not taken."""
    return lambda *parts: told(sent(client, "/told/detect", multipart(*parts)))


@pytest.fixture(scope="module")
def prompted(client: TestClient) -> Callable[..., Any]:
    """What the parts of a prompt say; RefusedError where they are not taken."""
    return lambda *parts: told(sent(client, "/told/prompts", multipart(*parts)))


def told(answer: httpx.Response) -> Any:
    message = answer.json()
    if answer.status_code != 200:
        assert list(message) == ["error"]
        assert message["error"].isprintable()
        raise RefusedError(answer.status_code, message["error"])
    return message


IMAGE = ("images", "a.png", b"x")


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_files_come_out_as_they_went_in(detected, contents):
    contents = [content for content in contents if b"--xyz" not in content] or [b""]
    parts = [("images", f"{n}.png", content) for n, content in enumerate(contents)]
    found = detected(*parts)["images"]
    assert found == [[filename, content.hex()] for _, filename, content in parts]


def test_a_file_that_does_not_stay_in_memory_comes_out_as_it_went_in(detected):
    content = bytes(range(256)) * 2**13
    assert detected(("images", "a.png", content))["images"] == [["a.png", content.hex()]]


def test_a_request_to_detect(detected):
    form = detected(
        IMAGE,
        ("images", "/etc/../b.png", b"y"),
        ("classes", None, b"crack"),
        ("classes", None, "vision/Löcher; 2".encode()),
        ("min_score", None, b"0.25"),
        ("limit", None, b"7"),
    )
    assert [(shown_name(name, 1), data) for name, data in form["images"]] == [
        ("a.png", "78"),
        ("b.png", "79"),
    ]
    assert (form["classes"], form["min_score"], form["limit"]) == (["crack", "vision/Löcher; 2"], 0.25, 7)
    plain = detected(IMAGE)
    assert (plain["classes"], plain["min_score"], plain["limit"]) == ([], None, KEPT_PAIRS)


@pytest.mark.parametrize("score", ["nan", "inf", "-0.1", "1.1", "", "a", "1e999", "[1]"])
def test_scores_from_0_to_1(detected, score):
    with pytest.raises(RefusedError, match="min_score") as told:
        detected(IMAGE, ("min_score", None, score.encode()))
    assert told.value.status == 400


@pytest.mark.parametrize("limit", ["", "0", "-1", "301", "1.5", "1e2", "9" * 5000, "٣"])
def test_limits_from_1_to_300(detected, limit):
    with pytest.raises(RefusedError, match="limit") as told:
        detected(IMAGE, ("limit", None, limit.encode()))
    assert told.value.status == 400


LABELS = (" a", "a ", "../x", "a/../b", "a//b", "/a", "a\nb", "a\0b", "<b>", "a" * 81, "..", "a;b", "%2e")
BOXES = ("boxes", None, b"[[1,1,1,1]]")


@pytest.mark.parametrize("label", LABELS)
def test_names_of_classes_have_few_characters(prompted, label):
    with pytest.raises(RefusedError, match="name of a class"):
        prompted(("image", "a", b""), BOXES, ("label", None, label.encode()))


def test_names_of_classes_have_as_many_characters_as_in_a_store(prompted):
    assert prompted(("image", "a", b""), BOXES, ("label", None, b"a" * 80))["label"] == "a" * 80
    with pytest.raises(RefusedError, match="label") as told:
        prompted(("image", "a", b""), BOXES, ("label", None, b""))
    assert told.value.status == 400


def test_what_is_not_utf_8_is_read_as_latin_1(detected):
    assert detected(IMAGE, ("classes", None, "Löcher".encode("latin-1")))["classes"] == ["Löcher"]


def test_parts_missing_unknown_or_too_many(detected):
    cases = {
        (): "images: Field required",
        (IMAGE, ("min_score", None, b"0"), ("min_score", None, b"1")): "min_score: given 2 times",
        (IMAGE, ("minscore", None, b"0")): "minscore: Extra inputs are not permitted",
        (("images", None, b"x"),): r"images\.0: Expected UploadFile",
        (IMAGE, ("min_score", "f", b"0")): "min_score: Input should be a valid number",
    }
    for parts, message in cases.items():
        with pytest.raises(RefusedError, match=message) as told:
            detected(*parts)
        assert told.value.status == 400
    most = LIMITS.pictures + LIMITS.marks
    for part in (IMAGE, ("classes", None, b"a")):
        with pytest.raises(RefusedError, match=f"Maximum number of .* is {most}") as told:
            detected(IMAGE, *[part] * (most + 1))
        assert told.value.status == 413
    with pytest.raises(RefusedError, match="maximum size of 64KB") as told:
        detected(IMAGE, ("classes", None, b"a" * 70_000))
    assert told.value.status == 413


def test_more_pictures_than_allowed(client):
    with pytest.raises(RefusedError, match="4 images; send at most 3") as refused:
        told(sent(client, "/detect", multipart(*[IMAGE] * 4)))
    assert refused.value.status == 413


def marked(boxes: object) -> bytes:
    return boxes if isinstance(boxes, bytes) else json.dumps(boxes).encode()


def test_a_prompt_with_boxes_or_with_a_mask(prompted):
    label, image = ("label", None, b"crack"), ("image", "p.png", b"x")
    form = prompted(image, label, ("boxes", None, b"[[1, 2.5, 3, 4]]"), ("note", None, b"why"))
    assert (form["image"], form["label"], form["boxes"]) == (["p.png", "78"], "crack", [[1, 2.5, 3, 4]])
    assert (form["mask"], form["by"], form["note"]) == (None, "http", "why")
    assert prompted(image, label, ("mask", "m.png", b"m"))["mask"] == "6d"
    for parts in ((), (BOXES, ("mask", "m.png", b"m"))):
        with pytest.raises(RefusedError, match="one of the two"):
            prompted(image, label, *parts)
    with pytest.raises(RefusedError, match="image: Field required"):
        prompted(label, BOXES)
    for twice in (image, ("mask", "m.png", b"m")):
        with pytest.raises(RefusedError, match=f"{twice[0]}: given 2 times"):
            prompted(label, *{image, twice}, twice)


@pytest.mark.parametrize(("name", "most"), [("by", 40), ("note", 200)])
def test_notes_are_one_short_line(prompted, name, most):
    parts = ("image", "a", b"x"), ("label", None, b"a"), BOXES
    assert prompted(*parts, (name, None, b"a" * most))[name] == "a" * most
    for text in (b"a" * (most + 1), b"a\nb", b"a\x1b[2J"):
        with pytest.raises(RefusedError, match=f"^{name}: ") as told:
            prompted(*parts, (name, None, text))
        assert told.value.status == 400


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        {},
        None,
        "[[1,1,1,1]]",
        [[1, 1, 1]],
        [[1, 1, 1, 1, 1]],
        [[1, 1, 1, "1"]],
        [[1, 1, 1, None]],
        [[1, 1, 1, True]],
        b"[[1,1,1,NaN]]",
        b"[[1,1,1,Infinity]]",
        b"[[1,1,1,1e999]]",
        b"[[1,1,1,1" + b"0" * 5000 + b"]]",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"[[1,1,1,1]",
        b"\x00",
    ],
)
def test_boxes_are_lists_of_four_finite_numbers(prompted, boxes):
    with pytest.raises(RefusedError, match=r"^boxes") as told:
        prompted(("image", "a", b"x"), ("label", None, b"a"), ("boxes", None, marked(boxes)))
    assert told.value.status == 400


def test_more_boxes_than_allowed(client):
    parts = ("image", "a", b"x"), ("label", None, b"a"), ("boxes", None, marked([[1, 1, 1, 1]] * 5))
    with pytest.raises(RefusedError, match="5 boxes; send at most 4") as refused:
        told(sent(client, "/prompts", multipart(*parts)))
    assert refused.value.status == 413


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=xyz",
        # Python's own codecs of these names take minutes for a megabyte.
        "multipart/form-data; boundary=xyz; charset=punycode",
        "multipart/form-data; boundary=xyz; charset=idna",
    ],
)
def test_other_kinds_of_bodies(client, kind):
    with pytest.raises(RefusedError) as refused:
        told(sent(client, "/told/detect", multipart(IMAGE), kind))
    assert refused.value.status == 415


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of the kind",
        multipart(IMAGE)[:-8],
        multipart(IMAGE)[:20],
        b"--xyz\r\n\r\nno headers\r\n--xyz--\r\n",
        b"--xyz\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--xyz--\r\n",
        b"--xyz\r\n" + b"A: b\r\n" * 1000 + b"\r\nmany headers\r\n--xyz--\r\n",
        b"--xyz\r\n" + b"A" * 100_000 + b": b\r\n\r\nlong header\r\n--xyz--\r\n",
    ],
)
def test_broken_bodies(client, data):
    with pytest.raises(RefusedError) as refused:
        told(sent(client, "/told/detect", data))
    assert refused.value.status == 400


def test_a_form_cut_off_anywhere_is_refused(client):
    whole = multipart(IMAGE, ("images", "b.png", b"b"), ("classes", None, b"crack"))
    needed = len(whole) - len(b"\r\n")
    assert sent(client, "/told/detect", whole[:needed]).status_code == 200
    for length in range(needed):
        assert sent(client, "/told/detect", whole[:length]).status_code == 400, length


def test_what_follows_a_form_is_passed_over(client):
    assert sent(client, "/told/detect", multipart(IMAGE) + b"an epilogue").status_code == 200


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 9000])
def test_other_boundaries(client, kind):
    with pytest.raises(RefusedError) as refused:
        told(sent(client, "/told/detect", multipart(IMAGE), kind))
    assert refused.value.status == 400


def test_names_of_files_are_only_shown():
    assert shown_name("../../etc/passwd", 1) == "passwd"
    assert shown_name("C:\\a\\b.png", 1) == "b.png"
    assert shown_name('<script>"\n', 1) == "_script___"
    assert shown_name("", 4) == shown_name(None, 4) == "image 4"
    assert len(shown_name("a" * 500, 1)) == 100


def test_a_room_is_never_overfull_and_gets_everything_back():
    room = Room(10, "things")
    with room.share() as first, room.share() as second:
        first.take(6)
        second.take(4)
        with pytest.raises(RefusedError) as told:
            second.take(1)
        assert told.value.status == 503
        with pytest.raises(RefusedError) as told:
            first.take(5)
        assert told.value.status == 413
        assert room.used == 10
    assert room.used == 0
