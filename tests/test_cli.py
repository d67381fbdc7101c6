"""The command line: its verbs on a real (tiny) model, and one line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from unispector.cli import main
from unispector.cli.main import app
from unispector.errors import DataError
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.rle import decode_rle

HEAVY = "torch torchvision timm mlflow ray prefect great_expectations pandas cv2 numpy"


def test_every_verb_has_a_file_of_its_name():
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]
    verbs += [group.name for group in app.registered_groups]
    assert len(verbs) > 15
    folder = Path(__file__).parents[1] / "unispector" / "cli"
    assert [verb for verb in verbs if not (folder / f"{verb}.py").is_file()] == []


@pytest.fixture
def photos(tmp_path):
    """A folder of three images, one not an image but a note."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, size in (("a.png", (60, 80, 3)), ("b.jpg", (64, 64, 3)), ("c.PNG", (50, 90, 3))):
        Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def prompts_file(photos):
    """A COCO file of prompts over `photos`, boxes only."""
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 80, "height": 60},
            {"id": 2, "file_name": "b.jpg", "width": 64, "height": 64},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 10]},
            {"id": 2, "image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 30]},
            {"id": 3, "image_id": 2, "category_id": 2, "bbox": [1, 1, 8, 8]},
        ],
        "categories": [{"id": 1, "name": "crack"}, {"id": 2, "name": "hole"}],
    }
    path = photos.parent / "prompts.json"
    path.write_text(json.dumps(content))
    return path


def run(arguments):
    return main([str(argument) for argument in arguments])


def failure(capsys, arguments, code=1):
    """The one line a failing command prints."""
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_and_import_load_no_heavy_package():
    code = (
        "import sys\n"
        "import unispector, unispector.cli\n"
        "assert unispector.cli.main(['--help']) == 0\n"
        "assert unispector.cli.main(['detect', '--help']) == 0\n"
        f"print('LOADED', [name for name in {HEAVY.split()!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("LOADED []\n")
    assert "--prompt bad.png --box 120,80,40,24" in done.stdout


@pytest.mark.parametrize(
    "verb",
    ["detect", "prompts build", "evaluate", "convert", "data add", "report", "params show", "params use"]
    + ["params write"]
    + [f"stage {name}" for name in ("generate", "convert", "survey", "validate", "split", "statistics")]
    + [f"stage {name}" for name in ("fingerprint", "evaluate", "report")],
)
def test_every_verb_explains_itself(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    assert f"Usage: unispector {verb}" in capsys.readouterr().out


def test_detect_draws_every_picture_and_writes_coco(photos, tiny_model, tmp_path, capsys):
    out = tmp_path / "new" / "found"
    arguments = ["detect", photos, photos / "a.png", "--model", tiny_model, "--out", out, "--min-score", 0]
    arguments += ["--prompt", photos / "a.png", "--box", "5,5,20,10", "--label", "crack"]
    arguments += ["--prompt", photos / "b.jpg", "--box", "10,10,30,30", "--label", "hole"]
    assert run(arguments) == 0
    assert capsys.readouterr().out.startswith("4 images, ")
    record = json.loads((out / "detections.json").read_text())
    drawn = [f"{name}.png" for name in ("a", "b", "c", "a-2")]
    assert [image["picture"] for image in record["images"]] == [f"pictures/{name}" for name in drawn]
    sizes = {image["id"]: (image["height"], image["width"]) for image in record["images"]}
    assert list(sizes.values()) == [(60, 80), (64, 64), (50, 90), (60, 80)]
    assert record["categories"] == [{"id": 1, "name": "crack"}, {"id": 2, "name": "hole"}]
    assert {path.name for path in (out / "pictures").iterdir()} == set(drawn)
    annotations = record["annotations"]
    assert [annotation["id"] for annotation in annotations] == list(range(1, len(annotations) + 1))
    assert {annotation["image_id"] for annotation in annotations} == {1, 2, 3, 4}
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        height, width = sizes[annotation["image_id"]]
        assert 0 <= x <= x + w <= width + 0.01
        assert 0 <= y <= y + h <= height + 0.01
        assert 0 < annotation["score"] <= 1
        assert annotation["category_id"] in (1, 2)
        assert decode_rle(annotation["segmentation"]).shape == (height, width)
    drawn = np.asarray(Image.open(out / "pictures" / "b.png"))
    assert drawn.shape[0] == drawn.shape[1] >= 64


def test_a_bank_detects_what_its_prompts_do(photos, prompts_file, tiny_model, tmp_path, capsys):
    bank = tmp_path / "bank.safetensors"
    build = ["prompts", "build", "--annotations", prompts_file, "--images", photos]
    build += ["--model", tiny_model, "--out", bank]
    assert run(build) == 0
    assert capsys.readouterr().out == f"{bank}: crack (1), hole (2)\n"
    assert PromptBank.load(bank).counts == (1, 2)
    common = ["detect", photos / "c.PNG", "--model", tiny_model, "--min-score", 0, "--out"]
    by_hand = ["--prompt", photos / "a.png", "--box", "5,5,20,10", "--label", "crack"]
    by_hand += ["--prompt", photos / "b.jpg", "--box", "10,10,30,30", "--label", "hole"]
    by_hand += ["--prompt", photos / "b.jpg", "--box", "1,1,8,8", "--label", "hole"]
    assert run([*common, tmp_path / "one", "--bank", bank]) == 0
    assert run([*common, tmp_path / "two", *by_hand]) == 0
    one, two = (json.loads((tmp_path / name / "detections.json").read_text()) for name in ("one", "two"))
    assert len(one["annotations"]) == len(two["annotations"]) > 0
    for left, right in zip(one["annotations"], two["annotations"], strict=True):
        assert left["score"] == pytest.approx(right["score"], abs=1e-4)
        assert left["bbox"] == pytest.approx(right["bbox"], abs=0.1)


def test_large_images_are_searched_in_tiles(photos, prompts_file, tiny_model, tmp_path, capsys):
    """`c.PNG` is 90 pixels wide: too much for a tile of 64, at which its prompts were encoded."""
    bank = tmp_path / "bank.safetensors"
    build = ["prompts", "build", "--annotations", prompts_file, "--images", photos, "--model", tiny_model]
    assert run([*build, "--out", bank, "--tile", 64]) == 0
    crack, hole = PromptBank.load(bank).tiles
    # A tile holds five typical marks.
    expected = f"{bank}: crack (1, in tiles of {crack} pixels), hole (2, in tiles of {hole} pixels)\n"
    assert capsys.readouterr().out == expected
    assert (crack, hole) == (96, 96)
    assert run([*build, "--out", bank, "--tile", "off"]) == 0
    assert PromptBank.load(bank).tiles == (0, 0)
    common = ["detect", photos / "c.PNG", "--model", tiny_model, "--min-score", 0, "--bank", bank]
    found = {}
    for tile in ("off", "auto", "64"):
        assert run([*common, "--tile", tile, "--out", tmp_path / tile]) == 0
        found[tile] = json.loads((tmp_path / tile / "detections.json").read_text())["annotations"]
    assert found["off"] == found["auto"] != found["64"]
    for annotation in found["64"]:
        assert decode_rle(annotation["segmentation"]).shape == (50, 90)
    capsys.readouterr()
    for bad in ("x", "63", "-1", "0", "1.5"):
        error = failure(capsys, [*common, "--tile", bad, "--out", tmp_path / "no"])
        assert f"--tile {bad}: give auto, off, or the side of a tile in pixels, 64 or more" in error


@pytest.mark.parametrize(("labels", "name"), [([], "defect"), (["dent"], "dent")])
def test_one_label_goes_for_all_prompts(photos, tiny_model, tmp_path, labels, name):
    arguments = ["detect", photos / "a.png", "--model", tiny_model, "--out", tmp_path / "out"]
    arguments += ["--prompt", photos / "a.png", "--box", "5,5,20,10"] * 2
    arguments += [part for label in labels for part in ("--label", label)]
    assert run(arguments) == 0
    record = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert record["categories"] == [{"id": 1, "name": name}]


def test_evaluate_measures_own_files(photos, prompts_file, tiny_model, tmp_path, capsys):
    out = tmp_path / "metrics.json"
    arguments = ["evaluate", "--prompts", prompts_file, "--targets", prompts_file, "--images", photos]
    arguments += ["--model", tiny_model, "--out", out]
    assert run(arguments) == 0
    metrics = json.loads(out.read_text())
    assert (metrics["images"], metrics["instances"]) == (2, 3)
    assert set(metrics["bbox"]["per_class"]) == {"crack", "hole"}
    shown = capsys.readouterr().out
    assert f"AP50 boxes {metrics['bbox']['AP50']:.1f}, masks {metrics['segm']['AP50']:.1f}" in shown


def test_evaluate_needs_matching_categories(photos, prompts_file, tiny_model, tmp_path, capsys):
    targets = tmp_path / "targets.json"
    targets.write_text(prompts_file.read_text().replace("crack", "krack"))
    arguments = ["evaluate", "--prompts", prompts_file, "--targets", targets, "--images", photos]
    arguments += ["--model", tiny_model, "--out", tmp_path / "metrics.json"]
    assert run(arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]  # after the progress bar
    assert last.startswith("error: ")
    assert "no prompt for class 'krack'" in last


def test_bad_prompts_are_one_line(photos, tiny_model, tmp_path, capsys):
    def fails(*arguments):
        return failure(
            capsys, ["detect", photos, "--model", tiny_model, "--out", tmp_path / "out", *arguments]
        )

    prompt = ("--prompt", photos / "a.png")
    assert "a.png: box 200,5,20,10 has less than a pixel inside" in fails(*prompt, "--box", "200,5,20,10")
    wide = fails(*prompt, "--box", "0,5,2000,10")
    assert "a.png: box 0,5,2000,10 has less than a tenth of its area inside" in wide
    assert "a.png: the defect marked on it has an empty name" in fails(
        *prompt, "--box", "5,5,20,10", "--label", " "
    )
    for labels in (("--label", "*"), ("--label", "*", "--label", "*")):
        assert "--label '*' stands for all classes" in fails(
            *prompt, "--box", "5,5,20,10", "--not", photos / "a.png", "--box", "1,1,9,9", *labels
        )
    assert "--box 5,5,20: four numbers" in fails(*prompt, "--box", "5,5,20")
    assert "--box a,b,c,d: four numbers" in fails(*prompt, "--box", "a,b,c,d")
    assert "1 --prompt but 2 --box" in fails(*prompt, "--box", "1,1,5,5", "--box", "2,2,5,5")
    assert "2 --prompt but 3 --label" in fails(*((*prompt, "--box", "1,1,5,5")) * 2, *("--label", "x") * 3)
    assert "nothing to look for" in fails()
    assert "--bank already holds" in fails("--bank", "b.safetensors", *prompt, "--box", "1,1,5,5")
    assert "no such prompt bank" in fails("--bank", tmp_path / "absent.safetensors")
    assert "notes.txt: not a readable image" in fails("--prompt", photos / "notes.txt", "--box", "1,1,5,5")
    assert not (tmp_path / "out").exists()


def test_bad_targets_are_one_line(photos, tiny_model, tmp_path, capsys):
    mark = ["--model", tiny_model, "--out", tmp_path / "out"]
    mark += ["--prompt", photos / "a.png", "--box", "5,5,20,10"]
    assert "absent.png: no such image or folder" in failure(
        capsys, ["detect", tmp_path / "absent.png", *mark]
    )
    (tmp_path / "empty").mkdir()
    assert "empty: no image in this folder" in failure(capsys, ["detect", tmp_path / "empty", *mark])
    (tmp_path / "empty" / "below").mkdir()
    assert "name its subfolders" in failure(capsys, ["detect", tmp_path / "empty", *mark])
    whole = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(whole[: len(whole) // 2])
    assert "b.jpg: not a readable image" in failure(capsys, ["detect", photos / "b.jpg", *mark])
    assert "no image or video matches" in failure(capsys, ["detect", photos / "*.bmp", *mark])
    assert "camera:97: no such camera" in failure(capsys, ["detect", "camera:97", *mark])
    assert not (tmp_path / "out").exists()


def test_one_bad_image_is_skipped_and_told(photos, tiny_model, tmp_path, capsys):
    whole = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(whole[: len(whole) - 10])  # Pillow calls this truncated
    mark = ["--prompt", photos / "a.png", "--box", "5,5,20,10", "--model", tiny_model]
    assert run(["detect", photos, *mark, "--out", tmp_path / "out"]) == 1
    captured = capsys.readouterr()
    skipped, count = captured.err.splitlines()
    assert skipped.startswith(f"skipped: {photos / 'b.jpg'}: not a readable image")
    assert count == "error: 1 of 3 images could not be read"
    assert captured.out.startswith("2 images, ")
    record = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [image["picture"] for image in record["images"]] == ["pictures/a.png", "pictures/c.png"]


def test_the_summary_counts_classes_and_speaks_of_one_image(photos, tiny_model, tmp_path, capsys):
    marks = ["--prompt", photos / "a.png", "--box", "5,5,20,10"]
    common = ["detect", photos / "*.png", "--model", tiny_model, "--out", tmp_path / "out"]
    assert run([*common, *marks, "--min-score", 1]) == 0
    first, hint = capsys.readouterr().out.splitlines()
    record = json.loads((tmp_path / "out" / "detections.json").read_text())
    found = len(record["annotations"])
    noun = "detection" if found == 1 else "detections"
    where = tmp_path / "out" / "detections.json"
    assert first == f"1 image, {found} {noun}, 0 drawn (score >= 1): {where}"
    assert hint.startswith("the highest score is 0.")
    two = [*marks, "--label", "crack", *marks[:3], "10,10,30,30", "--label", "hole"]
    assert run([*common, *two, "--min-score", 0]) == 0
    _, crack, hole = capsys.readouterr().out.splitlines()
    annotations = json.loads(where.read_text())["annotations"]
    for line, name, category in ((crack, "crack", 1), (hole, "hole", 2)):
        scores = [each["score"] for each in annotations if each["category_id"] == category]
        count = f"{len(scores)} detection{'' if len(scores) == 1 else 's'}"
        assert line == f"  {name}: {count}, {len(scores)} drawn, best score {max(scores):.3f}"


@pytest.mark.parametrize("kind", ["grey", "alpha"])
def test_a_mask_marks_what_a_box_does(photos, tiny_model, tmp_path, kind):
    from unispector.inference.detector import Prompt, UniSpector

    marked = np.zeros((60, 80), bool)
    marked[5:15, 5:25] = True
    white = np.full((60, 80, 3), 255, np.uint8)
    pixels = marked.astype(np.uint8) * 255
    Image.fromarray(pixels if kind == "grey" else np.dstack([white, pixels])).save(tmp_path / "mask.png")
    common = ["detect", photos / "c.PNG", "--model", tiny_model, "--min-score", 0, "--out", tmp_path / "out"]
    assert run([*common, "--prompt", photos / "a.png", "--mask", tmp_path / "mask.png"]) == 0
    detector = UniSpector.load(tiny_model)
    expected = detector.detect(photos / "c.PNG", detector.encode(Prompt(photos / "a.png", masks=marked)))
    record = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [each["score"] for each in record["annotations"]] == pytest.approx(
        expected.scores.tolist(), abs=1e-5
    )


def test_a_bad_mask_is_one_line(photos, tiny_model, tmp_path, capsys):
    def fails(*arguments):
        return failure(
            capsys, ["detect", photos, "--model", tiny_model, "--out", tmp_path / "out", *arguments]
        )

    prompt = ("--prompt", photos / "a.png")
    Image.new("L", (80, 60)).save(tmp_path / "black.png")
    Image.new("L", (8, 6), 255).save(tmp_path / "small.png")
    assert "a.png: its mask is all black" in fails(*prompt, "--mask", tmp_path / "black.png")
    assert "its mask is 8x6 pixels, the image 80x60" in fails(*prompt, "--mask", tmp_path / "small.png")
    assert "none.png: no such image" in fails(*prompt, "--mask", tmp_path / "none.png")
    assert "1 --prompt but 2 --mask" in fails(*prompt, "--mask", "x", "--mask", "y")
    assert "--box and --mask at once" in fails(*prompt, "--mask", "x", "--box", "1,1,2,2")
    assert "leave out --prompt, --box, --mask and --label" in fails("--bank", "b", "--mask", "x")


def test_a_prompt_folder_is_a_bank(photos, tiny_model, tmp_path):
    from unispector.prompts.store import MarkedImage, PromptStore

    image = MarkedImage((photos / "a.png").read_bytes(), "a.png", ((5.0, 5.0, 20.0, 10.0),))
    PromptStore(tmp_path / "prompts").add("crack", [image], "ann", "", {})
    common = ["detect", photos / "c.PNG", "--model", tiny_model, "--min-score", 0, "--out"]
    assert run([*common, tmp_path / "one", "--bank", tmp_path / "prompts"]) == 0
    marks = ["--prompt", photos / "a.png", "--box", "5,5,20,10", "--label", "crack"]
    assert run([*common, tmp_path / "two", *marks]) == 0
    one, two = ((tmp_path / name / "detections.json").read_text() for name in ("one", "two"))
    assert json.loads(one)["categories"] == [{"id": 1, "name": "crack"}]
    for left, right in zip(json.loads(one)["annotations"], json.loads(two)["annotations"], strict=True):
        assert left["score"] == pytest.approx(right["score"], abs=1e-4)


def test_a_bit_depth_goes_for_prompts_and_targets(photos, prompts_file, tiny_model, tmp_path, capsys):
    pixels = np.asarray(Image.open(photos / "a.png"))[..., 0]
    for name, image in {"8.png": pixels, "12.png": pixels.astype(np.uint16) << 4}.items():
        Image.fromarray(image).save(tmp_path / name)
    scores = {}
    for name, depth in (("8", []), ("12", ["--bit-depth", "12"]), ("12", [])):
        image, out = tmp_path / f"{name}.png", tmp_path / f"out-{len(scores)}"
        marks = ["--prompt", image, "--box", "5,5,20,10", "--model", tiny_model, "--min-score", 0]
        assert run(["detect", image, *marks, *depth, "--out", out]) == 0
        record = json.loads((out / "detections.json").read_text())
        scores[len(scores)] = [each["score"] for each in record["annotations"]]
    assert scores[0] == scores[1] != scores[2]
    capsys.readouterr()
    bank = tmp_path / "bank.safetensors"
    build = ["prompts", "build", "--annotations", prompts_file, "--images", photos]
    assert run([*build, "--model", tiny_model, "--out", bank]) == 0
    arguments = [
        "detect",
        tmp_path / "12.png",
        "--bank",
        bank,
        "--model",
        tiny_model,
        "--out",
        tmp_path / "out",
    ]
    assert run([*arguments, "--bit-depth", "12"]) == 0
    assert "its 16-bit prompts were read with 16 bits, the targets are with 12" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--batch-size", "--frames", "--frame-step", "--bit-depth"])
def test_a_number_out_of_range_is_wrong_usage(option, tmp_path, capsys):
    assert option in failure(capsys, ["detect", "x", "--out", tmp_path, option, "0"], code=2)


def test_a_device_that_is_not_there_is_one_line(photos, tiny_model, tmp_path, capsys):
    arguments = ["detect", photos, "--prompt", photos / "a.png", "--box", "5,5,20,10", "--model", tiny_model]
    told = failure(capsys, [*arguments, "--device", "cuda:97", "--out", tmp_path / "out"])
    assert "no device 'cuda:97'; this machine has" in told


def test_a_class_without_prompt_is_one_line(photos, prompts_file, tiny_model, tmp_path, capsys):
    content = json.loads(prompts_file.read_text())
    content["categories"].append({"id": 3, "name": "dent"})
    prompts_file.write_text(json.dumps(content))
    out = tmp_path / "bank.safetensors"
    build = ["prompts", "build", "--annotations", prompts_file, "--images", photos]
    build += ["--model", tiny_model, "--out", out]
    assert "class 'dent' has no prompt" in failure(capsys, build)
    assert not out.exists()


def test_a_wrong_model_is_one_line(photos, tiny_model, other_tiny_model, tmp_path, capsys):
    rest = ["--out", tmp_path / "out", "--prompt", photos / "a.png", "--box", "5,5,20,10"]
    assert "no such model folder" in failure(capsys, ["detect", photos, "--model", "nowhere", *rest])
    assert "not a model directory" in failure(capsys, ["detect", photos, "--model", tmp_path, *rest])
    bank = tmp_path / "bank.safetensors"
    arguments = ["detect", photos, "--model", other_tiny_model, "--out", tmp_path / "out", "--bank", bank]
    from unispector.inference.detector import Prompt, UniSpector

    UniSpector.load(tiny_model).encode([Prompt(photos / "a.png", [(5, 5, 20, 10)])]).save(bank)
    assert "build the bank again with this model" in failure(capsys, arguments)


def test_wrong_usage_is_one_line_and_code_2(capsys):
    assert "No such option: --promt" in failure(capsys, ["detect", "x", "--promt", "y"], code=2)
    assert "No such command 'detekt'" in failure(capsys, ["detekt"], code=2)
    assert "Missing option '--out'" in failure(capsys, ["detect", "x"], code=2)


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        (["measure", "set.json"], "'{}' is a file"),
        (["detect", "photos"], "'{}' is a file"),
        (["prompts", "build"], "'{}' is a directory"),
        (["inspect", "photos"], "'{}' is a directory"),
    ],
)
def test_an_output_of_the_wrong_kind_is_told_before_the_work(verb, told, tmp_path, capsys):
    out = tmp_path / "out"
    if told.endswith("file"):
        out.touch()
    else:
        out.mkdir()
    assert told.format(out) in failure(capsys, [*verb, "--out", out], code=2)


def test_a_misspelt_parameter_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("data: {sets: {}}\ntrain:\n  step: 3\n")
    message = failure(capsys, ["stage", "generate"])
    assert message == "error: params.yaml: train.step: unknown parameter; check its spelling\n"


def test_an_interrupt_is_code_130(monkeypatch, tiny_model, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("unispector.inference.targets.Targets.find", interrupted)
    assert main(["detect", "x", "--model", str(tiny_model), "--out", str(tmp_path), "--bank", "b"]) == 130


def test_the_program_exits_with_mains_code(tmp_path):
    command = "-m unispector.cli detect x --model nowhere --out y --bank z"
    done = subprocess.run(
        [sys.executable, *command.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: nowhere: no such model folder, nor an MLflow run id; `make repro` trains models, "
        "`fast` and `accurate` are the package's\n"
    )


def test_convert_tells_what_it_kept_and_dropped(tmp_path, capsys):
    for folder, names in (("images/crack", ("a.png", "b.png")), ("masks/crack", ("a.png", "c.png"))):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for name in names:
            picture = np.zeros((40, 60), np.uint8)
            picture[10:20, 10 : 30 if name == "a.png" else 11] = 255
            cv2.imwrite(str(tmp_path / "set" / folder / name), picture)
    out = tmp_path / "set.json"

    assert main(["convert", "masks", str(tmp_path / "set"), "--out", str(out)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "set: 1 of 1 images, 1 of 1 instances"
    assert "  image without its mask: 1 files (images/crack/b.png)" in lines
    assert "  mask without its image: 1 files (masks/crack/c.png)" in lines
    assert lines[-1].startswith(f"{out}: set: all ")
    assert json.loads(out.read_text())["annotations"][0]["bbox"] == [10, 10, 20, 10]


def test_convert_asks_about_a_mask_turned_inside_out(tmp_path, capsys):
    for folder, value in (("images", 90), ("masks", 255)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        picture = np.full((40, 60), value, np.uint8)
        picture[10:14, 10:18] = 0
        cv2.imwrite(str(tmp_path / "set" / folder / "a.png"), picture)
    assert main(["convert", "masks", str(tmp_path / "set"), "--out", str(tmp_path / "set.json")]) == 0
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "to be looked at" in line]
    assert "checks passed" in told
    assert told.endswith("(are they inverted?): images/a.png: mask_share 0.9866666667")


def test_convert_needs_to_know_what_where_and_whither(tmp_path, capsys):
    assert failure(capsys, ["convert", "voc"]).startswith("error: convert needs NAME, RAW_DIR and --out")
    message = failure(capsys, ["convert", "tiles", str(tmp_path), "--out", "x.json"])
    assert message.startswith("error: tiles: no such source; known are gc10, ")
    assert main(["convert", "--list"]) == 0
    assert "real_iad: Real-IAD" in capsys.readouterr().out


def test_marks_belong_to_prompts_and_look_alikes_in_the_order_given(tmp_path, monkeypatch, tiny_model):
    """Boxes of `--not` are never taken for those of `--prompt`, wherever it stands."""
    for name in ("a", "b", "c", "target"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    seen = {}

    def encode(self, prompts, *_, **__):
        seen["prompts"] = [(Path(p.image).stem, tuple(p.boxes_xywh[0]), p.label) for p in prompts]
        raise DataError("enough")

    def with_negatives(self, bank, negatives, *_):
        seen["negatives"] = [(Path(p.image).stem, tuple(p.boxes_xywh[0]), p.label) for p in negatives]
        raise DataError("enough")

    monkeypatch.setattr("unispector.inference.detector.UniSpector.encode", encode)
    monkeypatch.setattr("unispector.inference.detector.UniSpector.with_negatives", with_negatives)
    paths = {name: str(tmp_path / f"{name}.png") for name in ("a", "b", "c")}
    common = [
        "detect",
        str(tmp_path / "target.png"),
        "--model",
        str(tiny_model),
        "--out",
        str(tmp_path / "out"),
    ]
    marks = ["--not", paths["b"], "--box", "1,2,30,40", "--prompt", paths["a"], "--box", "5,6,20,20"]
    assert main([*common, *marks]) == 1
    assert seen == {"prompts": [("a", (5.0, 6.0, 20.0, 20.0), "defect")]}
    marks += [
        "--not",
        paths["c"],
        "--box",
        "3,3,9,9",
        "--label",
        "hole",
        "--label",
        "hole",
        "--label",
        "dent",
    ]
    assert main([*common, *marks]) == 1
    assert seen == {"prompts": [("a", (5.0, 6.0, 20.0, 20.0), "hole")]}

    monkeypatch.setattr("unispector.cli.detect._stored", lambda *_: "a bank")
    marks = ["--bank", "x", "--not", paths["b"], "--box", "1,2,30,40", f"--not={paths['c']}", "--box=3,3,9,9"]
    assert main([*common, *marks]) == 1
    assert seen["negatives"] == [("b", (1.0, 2.0, 30.0, 40.0), "*"), ("c", (3.0, 3.0, 9.0, 9.0), "*")]


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        (["--not", "b.png", "--box", "1,2,3,4"], "nothing to look for"),
        (["--prompt", "a.png", "--not", "b.png", "--box", "1,2,3,4"], "2 --prompt and --not but 1 --box"),
        (["--bank", "x", "--prompt", "a.png", "--box", "1,2,3,4"], "mark what is not the defect with --not"),
    ],
)
def test_look_alikes_that_do_not_belong_to_anything_are_refused(tmp_path, capsys, marks, said):
    assert main(["detect", str(tmp_path), "--out", str(tmp_path / "out"), *marks]) == 1
    assert said in capsys.readouterr().err
