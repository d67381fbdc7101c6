"""Bodies of requests: what is taken, and what is refused in one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispector.serving.forms import KEPT_PAIRS, detect_form, parse_form, prompt_form, shown_name
from unispector.serving.limits import Limits
from unispector.serving.refusal import RefusedError, Room

LIMITS = Limits(pictures=3, queue=3, marks=4)
TYPE = "multipart/form-data; boundary=xyz"


def body(*parts: tuple[str, str | None, bytes]) -> bytes:
    pieces = []
    for name, filename, data in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        pieces.append(f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n")
    return b"".join(pieces) + b"--xyz--\r\n"


def detected(*parts, most=20):
    return detect_form(parse_form(body(*parts), TYPE, most), LIMITS)


def prompted(*parts):
    return prompt_form(parse_form(body(*parts), TYPE, 20), LIMITS)


IMAGE = ("images", "a.png", b"x")


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_files_come_out_as_they_went_in(contents):
    contents = [content for content in contents if b"--xyz" not in content]
    parts = [("images", f"{n}.png", content) for n, content in enumerate(contents)]
    found = parse_form(body(*parts), TYPE, 20)
    assert [(part.name, part.filename, part.data) for part in found] == parts


def test_a_request_to_detect():
    form = detected(
        IMAGE,
        ("images", "/etc/../b.png", b"y"),
        ("classes", None, b"crack"),
        ("classes", None, "vision/Löcher; 2".encode()),
        ("min_score", None, b"0.25"),
        ("limit", None, b"7"),
    )
    assert form.pictures == (("a.png", b"x"), ("b.png", b"y"))
    assert (form.classes, form.min_score, form.limit) == (("crack", "vision/Löcher; 2"), 0.25, 7)
    plain = detected(IMAGE)
    assert (plain.classes, plain.min_score, plain.limit) == ((), 0, KEPT_PAIRS)


@pytest.mark.parametrize("score", ["nan", "inf", "-0.1", "1.1", "", "a", "1e999", "[1]"])
def test_scores_from_0_to_1(score):
    with pytest.raises(RefusedError, match="min_score") as told:
        detected(IMAGE, ("min_score", None, score.encode()))
    assert told.value.status == 400


@pytest.mark.parametrize("limit", ["", "0", "-1", "301", "1.5", "1e2", "9" * 5000, "٣"])
def test_limits_from_1_to_300(limit):
    with pytest.raises(RefusedError, match="limit"):
        detected(IMAGE, ("limit", None, limit.encode()))


LABELS = ("", " a", "a ", "../x", "a/../b", "a//b", "/a", "a\nb", "a\0b", "<b>", "a" * 81, "..", "a;b", "%2e")


@pytest.mark.parametrize("label", LABELS)
def test_names_of_classes_have_few_characters(label):
    with pytest.raises(RefusedError, match="name of a class"):
        prompted(("image", "a", b""), ("boxes", None, b"[[1,1,1,1]]"), ("label", None, label.encode()))


def test_names_of_classes_have_as_many_characters_as_in_a_store():
    parts = ("image", "a", b""), ("boxes", None, b"[[1,1,1,1]]"), ("label", None, b"a" * 80)
    assert prompted(*parts).label == "a" * 80


def test_what_is_not_utf_8_is_refused():
    with pytest.raises(RefusedError, match="classes: not UTF-8"):
        detected(IMAGE, ("classes", None, b"\xff\xfe"))


def test_parts_missing_unknown_or_too_many():
    cases = {
        (): "no picture",
        (IMAGE,) * 4: "4 pictures; send at most 3",
        (IMAGE, ("min_score", None, b"0"), ("min_score", None, b"1")): "min_score: given 2 times",
        (IMAGE, ("minscore", None, b"0")): "unknown part 'minscore'",
        (("images", None, b"x"),): "images: send it as a file",
        (IMAGE, ("min_score", "f", b"0")): "min_score: a file",
    }
    for parts, message in cases.items():
        with pytest.raises(RefusedError, match=message):
            detected(*parts)
    with pytest.raises(RefusedError, match="more than 2 parts") as told:
        detected(IMAGE, IMAGE, IMAGE, most=2)
    assert told.value.status == 413
    with pytest.raises(RefusedError, match="no file") as told:
        detected(IMAGE, ("classes", None, b"a" * 70_000))
    assert told.value.status == 413


def marked(boxes: object) -> bytes:
    return boxes if isinstance(boxes, bytes) else json.dumps(boxes).encode()


def test_a_prompt_with_boxes_or_with_a_mask():
    label, image = ("label", None, b"crack"), ("image", "p.png", b"x")
    form = prompted(image, label, ("boxes", None, b"[[1, 2.5, 3, 4]]"), ("note", None, b"why"))
    assert (form.name, form.image, form.label, form.boxes) == ("p.png", b"x", "crack", ((1, 2.5, 3, 4),))
    assert (form.mask, form.by, form.note) == (None, "http", "why")
    assert prompted(image, label, ("mask", "m.png", b"m")).mask == b"m"
    for parts in ((), (("boxes", None, b"[[1,1,1,1]]"), ("mask", "m.png", b"m"))):
        with pytest.raises(RefusedError, match="one of the two"):
            prompted(image, label, *parts)
    with pytest.raises(RefusedError, match="one file as `image`"):
        prompted(label, ("boxes", None, b"[[1,1,1,1]]"))


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
def test_boxes_are_lists_of_four_finite_numbers(boxes):
    with pytest.raises(RefusedError, match="boxes: give a JSON list"):
        prompted(("image", "a", b"x"), ("label", None, b"a"), ("boxes", None, marked(boxes)))


def test_more_boxes_than_allowed():
    with pytest.raises(RefusedError, match="5 boxes; send at most 4") as told:
        prompted(("image", "a", b"x"), ("label", None, b"a"), ("boxes", None, marked([[1, 1, 1, 1]] * 5)))
    assert told.value.status == 413


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=xyz",
        # Python's own codecs of these names take minutes for a megabyte.
        "multipart/form-data; boundary=xyz; charset=punycode",
        "multipart/form-data; boundary=xyz; charset=idna",
        'multipart/form-data; boundary="x\u0100"',
    ],
)
def test_other_kinds_of_bodies(kind):
    with pytest.raises(RefusedError) as told:
        parse_form(body(IMAGE), kind, 20)
    assert told.value.status == 415


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of the kind",
        body(IMAGE)[:-8],
        body(IMAGE)[:20],
        b"--xyz\r\n\r\nno headers\r\n--xyz--\r\n",
        b"--xyz\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--xyz--\r\n",
        b"--xyz\r\n" + b"A: b\r\n" * 1000 + b"\r\nmany headers\r\n--xyz--\r\n",
        b"--xyz\r\n" + b"A" * 100_000 + b": b\r\n\r\nlong header\r\n--xyz--\r\n",
    ],
)
def test_broken_bodies(data):
    with pytest.raises(RefusedError) as told:
        parse_form(data, TYPE, 20)
    assert told.value.status == 400


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 9000])
def test_other_boundaries(kind):
    with pytest.raises(RefusedError) as told:
        parse_form(body(IMAGE), kind, 20)
    assert told.value.status == 400


def test_names_of_files_are_only_shown():
    assert shown_name("../../etc/passwd", 1) == "passwd"
    assert shown_name("C:\\a\\b.png", 1) == "b.png"
    assert shown_name('<script>"\n', 1) == "_script___"
    assert shown_name("", 4) == shown_name(None, 4) == "picture 4"
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
