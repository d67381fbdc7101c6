import json
import os
import random
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from unispector.batch import results as inspection_results
from unispector.batch import source as image_source
from unispector.batch.inspection import SCHEMA, Inspection, as_table, bank_hash, failed_row, look, one_thread
from unispector.batch.results import InspectionResults
from unispector.batch.source import ImageFile, ImageSource
from unispector.batch.tables import new_table, read_group
from unispector.errors import DataError
from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.prompt_bank import PromptBank

SUFFIXES = {".png", ".jpg", ".tif"}


def noise(seed, height=90, width=120):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tiny_model):
    return UniSpector.load(tiny_model)


@pytest.fixture(scope="module")
def bank(detector):
    marks = [Prompt(noise(1), [[10, 10, 40, 40]], label="a"), Prompt(noise(2), [[5, 5, 30, 60]], label="b")]
    return detector.encode(marks)


@pytest.fixture
def folder(tmp_path):
    """Images of several kinds and depths, and what no listing should show."""
    folder = tmp_path / "pictures"
    for name in ("b.png", "deep/er/a.png", "deep/c d.PNG", "é/x.png", ".hidden/x.png", ".x.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(len(name))).save(folder / name)
    Image.fromarray(noise(9, 40, 70)).save(folder / "turned.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08" + TURNED)
    (folder / "notes.txt").write_text("none")
    return folder


# One entry: orientation (0x0112), a short, 6 = turned by 90 degrees.
TURNED = bytes.fromhex("0001 0112 0003 00000001 00060000 00000000")
LISTED = ["b.png", "deep/c d.PNG", "deep/er/a.png", "turned.jpg", "é/x.png"]


@pytest.fixture
def inspection(folder, tiny_model, bank):
    return Inspection(ImageSource.at(str(folder)), tiny_model, bank, min_score=0.0, limit=12)


def looked(detector, inspection, files=None):
    with one_thread():
        files = inspection.source.pictures(SUFFIXES) if files is None else files
        return look(detector, inspection, files)


def test_rows_are_the_detections_of_one_process(detector, inspection, folder):
    rows = looked(detector, inspection).to_pylist()
    assert list(dict.fromkeys(row["path"] for row in rows)) == LISTED
    with one_thread():
        expected = detector.detect([folder / name for name in LISTED], inspection.bank, 1, 12)
    at_once = detector.detect([folder / name for name in LISTED], inspection.bank, 8, 12)
    for name, found, close in zip(LISTED, expected, at_once, strict=True):
        own = [row for row in rows if row["path"] == name]
        assert len(found) > 0
        assert [row["detection"] for row in own] == list(range(1, len(found) + 1))
        assert [row["score"] for row in own] == found.scores.tolist()
        assert [row["label"] for row in own] == ["ab"[label] for label in found.labels.tolist()]
        left, top, right, bottom = found.boxes_xyxy.T
        boxes = [[row[f"box_{side}"] for side in "xywh"] for row in own]
        assert boxes == torch.stack([left, top, right - left, bottom - top], 1).tolist()
        assert [json.loads(row["mask"]) for row in own] == list(found.masks_rle)
        # What batches change is rounding.
        assert [row["score"] for row in own] == pytest.approx(close.scores.tolist(), abs=1e-5)
        assert {(row["width"], row["height"]) for row in own} == {found.image_hw[::-1]}
        assert {row["size"] for row in own} == {(folder / name).stat().st_size}
        modified = own[0]["modified"].timestamp() * 1e6
        assert round(modified) == (folder / name).stat().st_mtime_ns // 1000
    assert next(row["width"] for row in rows if row["path"] == "turned.jpg") == 40


def test_a_picture_without_detections_has_a_row_with_its_size(detector, inspection, folder):
    none = Inspection(inspection.source, inspection.model, inspection.bank, min_score=1.0)
    rows = looked(detector, none).to_pylist()
    assert [row["path"] for row in rows] == LISTED
    assert [(row["width"], row["height"]) for row in rows] == [(120, 90)] * 3 + [(40, 70), (120, 90)]
    assert {row[name] for row in rows for name in ("detection", "label", "score", "mask", "error")} == {None}


def test_what_cannot_be_read_is_a_row_with_the_reason(detector, inspection, folder):
    whole = (folder / "b.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(folder / "float.tif")
    Image.new("L", (1, 5_000_000)).save(folder / "thread.png")
    os.mkfifo(folder / "pipe.png")
    files = [*inspection.source.pictures(SUFFIXES), ImageFile("removed.png", 3, 0)]
    rows = {row["path"]: row for row in looked(detector, inspection, files).to_pylist()}
    for name, reason in (
        ("cut.png", "not a readable image (image file is truncated"),
        (
            "empty.png",
            "not a readable image (of no known format)",
        ),
        ("nowhere.png", "no such image"),
        ("float.tif", "floating-point pixels"),
        ("removed.png", "no such image"),
        ("thread.png", "1 x 5000000 pixels; cut it"),
        ("pipe.png", "a pipe or a device"),
    ):
        assert rows[name]["error"].startswith(reason)
        assert rows[name]["width"] is rows[name]["detection"] is None
    assert [name for name in rows if rows[name]["error"] is None] == LISTED  # neighbours do not mind


def test_a_listing_follows_links_but_not_in_circles(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(folder / "b.png", outside / "z.png")
    (folder / "linked").symlink_to(outside)
    (folder / "deep/loop").symlink_to(folder)
    (outside / "back").symlink_to(outside)
    found = ImageSource.at(str(folder)).pictures(SUFFIXES)
    assert [file.path for file in found] == sorted([*LISTED, "linked/z.png"])


def test_sources_that_cannot_be_used(folder, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no such folder of images"):
        ImageSource.at(str(tmp_path / "absent"))
    with pytest.raises(DataError, match="holds a key") as told:
        ImageSource.at("s3://me:secret@bucket/x")
    assert "secret" not in str(told.value)
    with pytest.raises(DataError, match=r"no image in it \(.jpg"):
        ImageSource.at(str(folder / "deep/er")).pictures({".jpg"})
    with pytest.raises(DataError, match=r"foo://x/y: cannot be listed"):
        ImageSource.at("foo://x/y/").pictures(SUFFIXES)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).touch()
    with pytest.raises(DataError, match=r"'\\udcff.png': a name that is not UTF-8"):
        ImageSource.at(str(folder)).pictures(SUFFIXES)


class Bucket(BaseHTTPRequestHandler):
    """As much of S3 as listing and reading need: bucket `cam`, whose keys are the files of `root`."""

    root: Path
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = urlsplit(self.path)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        if bucket != "cam":
            return self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        if not key:
            return self.answer(200, self.listing(asked.get("prefix", "")) if "list-type" in asked else b"")
        file = self.root / key
        if not file.is_file():
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        data = file.read_bytes()
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1]
            return self.answer(206, part, {"Content-Range": f"bytes {first}-{last}/{len(data)}"})
        return self.answer(200, data)

    def listing(self, prefix):
        files = sorted(path for path in self.root.rglob("*") if path.is_file())
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{file.stat().st_size}</Size>"
            "<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
            for file in files
            if (key := file.relative_to(self.root).as_posix()).startswith(prefix)
        )
        found = f"<KeyCount>{len(files)}</KeyCount><IsTruncated>false</IsTruncated>{entries}"
        return f"<ListBucketResult>{found}</ListBucketResult>".encode()

    def answer(self, code, body, headers=None):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def bucket(folder, monkeypatch):
    """The environment of a bucket `cam` that holds the folder below `line 1/`."""
    lines = folder.parent / "bucket"
    shutil.copytree(folder, lines / "line 1")
    Bucket.root = lines
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    image_source._bucket.cache_clear()
    yield lines / "line 1"
    server.shutdown()
    server.server_close()
    image_source._bucket.cache_clear()


def test_a_bucket_gives_the_same_rows_as_a_folder(detector, inspection, bucket):
    (bucket / "broken.png").write_bytes(b"no image")
    source = ImageSource.at("s3://cam/line 1/")
    files = source.pictures(SUFFIXES)
    assert [file.path for file in files] == sorted([*LISTED, "broken.png"])
    assert {file.modified for file in files} == {1767323045 * 1000000}
    own = Inspection(source, inspection.model, inspection.bank, 0.0, 12)
    in_bucket = looked(detector, own, [*files, ImageFile("gone.png", 1, 1)]).to_pylist()
    errors = {row["path"]: row["error"] for row in in_bucket if row["error"]}
    assert sorted(errors) == ["broken.png", "gone.png"]
    assert errors["broken.png"].startswith("not a readable image")
    assert errors["broken.png"].endswith("; replace or remove the file")
    known = [row | {"modified": None} for row in in_bucket if not row["error"]]
    assert known == [row | {"modified": None} for row in looked(detector, inspection).to_pylist()]
    with pytest.raises(DataError, match=r"s3://other/x: cannot be listed \(.*check the address"):
        ImageSource.at("s3://other/x").pictures(SUFFIXES)


def test_a_bank_is_told_by_what_it_holds(bank, tmp_path):
    bank.save(tmp_path / "bank")
    assert bank_hash(PromptBank.load(tmp_path / "bank")) == bank_hash(bank)
    others = [bank.select(["b", "a"]), bank.select(["a"])]
    moved = replace(bank, embeddings=bank.embeddings + 1e-6)
    closer = replace(bank, image_sizes=tuple(2 * size for size in bank.image_sizes))
    deeper = replace(bank, bit_depth=12)
    assert len({bank_hash(each) for each in (bank, moved, closer, deeper, *others)}) == 6


def test_images_are_read_at_the_depth_of_the_bank(detector, inspection, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    rows = []
    for depth, image in ((16, pixels), (12, pixels.astype(np.uint16) << 4)):
        Image.fromarray(image).save(tmp_path / "a.png")
        source = ImageSource.at(str(tmp_path))
        own = Inspection(source, inspection.model, replace(inspection.bank, bit_depth=depth), 0.0)
        rows.append(looked(detector, own, source.pictures(SUFFIXES)).to_pylist())
    eight, twelve = ([(row["label"], row["score"], row["mask"]) for row in each] for each in rows)
    assert eight == twelve
    assert len(eight) > 1


def test_a_large_image_is_looked_at_in_the_tiles_of_the_bank(detector, inspection, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 190, 3), dtype=np.uint8)
    (tmp_path / "large").mkdir()
    Image.fromarray(pixels).save(tmp_path / "large/a.png")
    source = ImageSource.at(str(tmp_path / "large"))
    tiled = replace(inspection, source=source, bank=inspection.bank.tiled(64))
    rows = looked(detector, tiled).to_pylist()
    with one_thread():
        found, whole = (detector.detect(pixels, bank, 1, 12) for bank in (tiled.bank, inspection.bank))
    assert [json.loads(row["mask"]) for row in rows] == list(found.masks_rle) != list(whole.masks_rle)
    assert [row["score"] for row in rows] == found.scores.tolist()


@pytest.mark.parametrize("part", ["inside", "outside", "plainness", "image", "sizes"])
def test_a_bank_is_told_by_all_that_it_remembers(bank, part):
    held = getattr(bank.memory, part)
    changed = tuple(-t for t in held) if isinstance(held, tuple) else held + 1
    other = replace(bank, memory=replace(bank.memory, **{part: changed}))
    assert bank_hash(other) != bank_hash(bank)


def finished(out, inspection, detector, blocks):
    """The bytes of the file when images were looked at in such blocks."""
    results = InspectionResults(out, inspection)
    with results.held():
        list(results.keep(looked(detector, inspection, block) for block in blocks))
        results.finish(inspection.source.pictures(SUFFIXES))
    return out.read_bytes()


def test_the_file_is_the_same_whoever_looked_and_when(detector, inspection, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection_results, "_GROUP_IMAGES", 2)
    monkeypatch.setattr(inspection_results, "_PART_IMAGES", 2)
    monkeypatch.setattr(inspection_results, "_HELD_BYTES", 1)
    files = inspection.source.pictures(SUFFIXES)
    expected = finished(tmp_path / "one.parquet", inspection, detector, [files])
    table = pq.read_table(tmp_path / "one.parquet")
    assert table.to_pylist() == looked(detector, inspection).to_pylist()
    assert table.schema.equals(SCHEMA)
    for seed in range(3):
        shuffled = random.Random(seed).sample(files, len(files))
        out = tmp_path / f"{seed}.parquet"
        assert finished(out, inspection, detector, [[file] for file in shuffled]) == expected
    assert sorted(path.name for path in tmp_path.iterdir() if "parquet" in path.name) == [
        "0.parquet", "1.parquet", "2.parquet", "one.parquet",
    ]  # fmt: skip


def test_the_file_says_what_made_it(detector, inspection, tmp_path):
    finished(tmp_path / "a.parquet", inspection, detector, [inspection.source.pictures(SUFFIXES)])
    stored = {
        key.decode(): value.decode() for key, value in pq.read_schema(tmp_path / "a.parquet").metadata.items()
    }
    assert stored["unispector.model"] == detector.fingerprint
    assert stored["unispector.bank"] == bank_hash(inspection.bank)
    assert json.loads(stored["unispector.options"]) == {"min_score": 0.0, "limit": 12}
    assert json.loads(stored["unispector.classes"]) == ["a", "b"]
    assert stored["unispector.source"] == inspection.source.place


def test_a_run_goes_on_where_another_was_cut_off(detector, inspection, tmp_path, folder):
    files = inspection.source.pictures(SUFFIXES)
    expected = finished(tmp_path / "whole.parquet", inspection, detector, [files])
    results = InspectionResults(tmp_path / "cut.parquet", inspection)
    with results.held():
        counts = results.keep(
            [looked(detector, inspection, files[:2]), looked(detector, inspection, files[3:4])]
        )
        assert list(counts) == [2, 1]
    (results._parts / ".torn.0a1b2c3d~.parquet").write_bytes(b"PAR1")  # killed while it wrote a part
    again = InspectionResults(tmp_path / "cut.parquet", inspection)
    with again.held():
        assert not list(results._parts.glob(".*"))
        missing = again.missing(files)
        assert missing == [files[2], files[4]]
        list(again.keep([looked(detector, inspection, missing)]))
        again.finish(files)
    assert (tmp_path / "cut.parquet").read_bytes() == expected


def test_only_what_changed_or_failed_is_looked_at_again(detector, inspection, tmp_path, folder):
    (folder / "broken.png").write_bytes(b"no image")
    out = tmp_path / "a.parquet"
    finished(out, inspection, detector, [inspection.source.pictures(SUFFIXES)])
    os.utime(folder / "b.png", (1, 1))
    Image.fromarray(noise(77)).save(folder / "new.png")
    (folder / "turned.jpg").unlink()
    results = InspectionResults(out, inspection)
    files = inspection.source.pictures(SUFFIXES)
    with results.held():
        missing = results.missing(files)
        assert [file.path for file in missing] == ["b.png", "broken.png", "new.png"]
        list(results.keep([looked(detector, inspection, missing)]))
        summary = results.finish(files)
    assert (summary.pictures, summary.with_detections, summary.failed) == (6, 5, 1)
    assert summary.detections == sum(row["detection"] is not None for row in pq.read_table(out).to_pylist())
    fresh = finished(tmp_path / "fresh.parquet", inspection, detector, [files])
    assert out.read_bytes() == fresh


def test_a_failure_that_passed_by_leaves_no_trace(detector, inspection, tmp_path):
    files = inspection.source.pictures(SUFFIXES)
    expected = finished(tmp_path / "whole.parquet", inspection, detector, [files])
    out = tmp_path / "a.parquet"
    results = InspectionResults(out, inspection)
    with results.held():
        away = as_table([failed_row(file, "the store is away") for file in files[1:]])
        list(results.keep([looked(detector, inspection, files[:1]), away]))
        assert results.finish(files).failed == 4
    with results.held():
        missing = results.missing(files)
        assert missing == files[1:]
        list(results.keep([looked(detector, inspection, missing)]))
        assert results.finish(files).failed == 0
    assert out.read_bytes() == expected


def test_rows_of_another_model_bank_or_option_never_mix(
    detector, inspection, tmp_path, other_tiny_model, folder
):
    files = inspection.source.pictures(SUFFIXES)
    out = tmp_path / "a.parquet"
    finished(out, inspection, detector, [files])
    source, model, bank = inspection.source, inspection.model, inspection.bank
    marks = [Prompt(noise(1), [[10, 10, 40, 40]], label="a")]
    elsewhere = tmp_path / "copy"
    shutil.copytree(folder, elsewhere)
    for other in (
        Inspection(source, other_tiny_model, UniSpector.load(other_tiny_model).encode(marks), 0.0, 12),
        Inspection(source, model, bank.select(["a"]), 0.0, 12),
        Inspection(source, model, bank, 0.1, 12),
        Inspection(source, model, bank, 0.0, 13),
        Inspection(ImageSource.at(str(elsewhere)), model, bank, 0.0, 12),
    ):
        assert InspectionResults(out, other).missing(files) == files
    assert InspectionResults(out, inspection).missing(files) == []


def test_two_runs_do_not_write_one_file_and_no_foreign_file_is_replaced(inspection, tmp_path):
    out = tmp_path / "a.parquet"
    results = InspectionResults(out, inspection)
    second = InspectionResults(out, inspection)
    with (
        results.held(),
        pytest.raises(DataError, match=r"a\.parquet: another inspection is writing it"),
        second.held(),
    ):
        pytest.fail("both hold it")
    with second.held():
        pass
    for content in (b"my notes", b""):
        out.write_bytes(content)
        with pytest.raises(DataError, match="not the file of an inspection"), results.held():
            pytest.fail("held")
        assert out.read_bytes() == content


def test_a_part_of_another_inspection_is_put_aside(detector, inspection, tmp_path, caplog):
    files = inspection.source.pictures(SUFFIXES)
    other = replace(inspection, min_score=0.5)
    with (foreign := InspectionResults(tmp_path / "b.parquet", other)).held():
        list(foreign.keep([looked(detector, other, [files[0]])]))
        (part,) = foreign._parts.glob("*.parquet")
        content = part.read_bytes()
    results = InspectionResults(tmp_path / "a.parquet", inspection)
    with results.held():
        (results._parts / part.name).write_bytes(content)
        strange = pa.table({"file": ["a.png"]}).replace_schema_metadata(results._metadata)
        with new_table(results._parts / "1.parquet", strange.schema) as write:
            write(strange)
        assert results.missing(files) == files
        assert sorted(path.suffix for path in results._parts.iterdir()) == [".damaged", ".damaged"]
    assert len(caplog.records) == 2


def test_damaged_parts_are_put_aside_and_done_again(detector, inspection, tmp_path, caplog):
    files = inspection.source.pictures(SUFFIXES)
    expected = finished(tmp_path / "whole.parquet", inspection, detector, [files])
    out = tmp_path / "a.parquet"
    results = InspectionResults(out, inspection)
    with results.held():
        for own in ([files[0]], [files[1]], [files[2]]):
            list(results.keep([looked(detector, inspection, own)]))
        parts = sorted(results._parts.glob("*.parquet"))
        parts[0].write_bytes(parts[0].read_bytes()[:-20])
        whole = bytearray(parts[1].read_bytes())
        whole[whole.index(files[1].path.encode())] ^= 1
        parts[1].write_bytes(whole)
        missing = results.missing(files)
        assert missing == [files[0], files[1], *files[3:]]
        assert sorted(path.name for path in results._parts.iterdir()) == [
            f"{parts[0].name}.damaged", f"{parts[1].name}.damaged", parts[2].name,
        ]  # fmt: skip
        list(results.keep([looked(detector, inspection, missing)]))
        results.finish(files)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        str(part) for part in parts[:2]
    ]
    assert out.read_bytes() == expected


def test_one_damaged_row_group_costs_its_images_only(detector, inspection, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(inspection_results, "_GROUP_IMAGES", 2)
    files = inspection.source.pictures(SUFFIXES)
    out = tmp_path / "a.parquet"
    expected = finished(out, inspection, detector, [files])
    second = pq.read_metadata(out).row_group(1).column(SCHEMA.names.index("mask"))
    flipped = bytearray(expected)
    flipped[second.dictionary_page_offset + second.total_compressed_size // 2] ^= 1
    out.write_bytes(flipped)
    results = InspectionResults(out, inspection)
    with results.held():
        assert results.missing(files) == files[2:4]
        list(results.keep([looked(detector, inspection, files[2:4])]))
        results.finish(files)
    assert out.read_bytes() == expected
    assert [record.message for record in caplog.records] == [
        f"{out}: damaged; the images whose rows it held are looked at again"
    ]


def test_no_flipped_byte_of_a_table_is_kept_as_truth(detector, inspection, tmp_path):
    files = inspection.source.pictures(SUFFIXES)[:2]
    small = replace(inspection, limit=3)
    out = tmp_path / "a.parquet"
    results = InspectionResults(out, small)
    with results.held():
        list(results.keep([looked(detector, small, files)]))
        results.finish(files)
    whole, rows = out.read_bytes(), pq.read_table(out).to_pylist()
    shares = {"refused": 0, "again": 0, "equal": 0}
    for place in range(0, len(whole), 3):
        out.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        results = InspectionResults(out, small)
        try:
            results._check_old()
        except DataError:  # that says what to do
            shares["refused"] += 1
            continue
        known = results._known(files)
        if set(known) != {file.path for file in files}:
            shares["again"] += 1
            continue
        held = [read_group(at.file, at.group).slice(at.start, at.stop - at.start) for at in known.values()]
        assert [row for table in held for row in table.to_pylist()] == rows
        shares["equal"] += 1
    assert min(shares.values()) > 0  # "equal": of headers and statistics, which rows do not depend on
