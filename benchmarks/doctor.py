"""Does following the prompt doctor raise AP50 on images it has not seen, and does it name spoiled prompts.

    python benchmarks/doctor.py DATA --out rows.json --page reports/doctor.md --seeds 1 2 --curve

DATA holds the raw releases `magnetic_tile` and `neu_det`. Of each class and seed, candidate prompt images and
held-out targets are drawn, no image in both. The doctor sees the candidates only. Four questions:

(a) clean prompts: AP50 on the targets with all candidates, and after following the advice;
(b) two of the candidates marked wrongly: are they named, and AP50 before and after;
(c) AP50 that its curve expects of k prompt images, and that of k images on the targets;
(d) one image marked, then two more as often as it says "mark two more": AP50 with the first and with all.

A row (class, seed, question) that is in the file of rows is not measured again, so that a run that
was killed goes on. The tables of the page are written anew after every row; what stands above them stays.
`--set FOLDER:SOURCE` takes other sets, such as those to choose limits on.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unispector.benchmark.one_class import MarkedSet, read_coco_set, read_raw_set
from unispector.benchmark.real_sets import SETS
from unispector.data.coco import Annotations, InstanceRecord
from unispector.inference.detector import UniSpector
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.files import atomic_write_json, atomic_write_text
from unispector.prompts.advice import expected
from unispector.prompts.checks import CheckSettings, check_class
from unispector.prompts.doctor import ClassDiagnosis, of_class
from unispector.prompts.figures import Roi
from unispector.prompts.trials import MarkedClass, Outcome

Box = tuple[float, float, float, float]
SPOILED = 2  # of the candidates
RIVAL_IMAGES = 5  # prompt images of every other class of the set
KINDS = ("background", "another class", "twice too large")
COUNTS = (1, 2, 3, 5)
QUESTIONS = ("clean", "spoiled", "growing")
TABLES = "<!-- tables: written by benchmarks/doctor.py -->"


class Draw:
    """A class with one draw of candidates and targets; image and annotation ids are the set's."""

    def __init__(self, marked: MarkedSet, name: str, seed: int, candidates: int, targets: int) -> None:
        self.marked, self.name = marked, name
        own = of_class(marked.annotations, name)
        rng = np.random.default_rng([seed, *name.encode()])
        order = [int(n) for n in rng.permutation([image.id for image in own.images])]
        count = min(candidates, len(order) // 2)
        self.candidates, self.targets = order[:count], order[count : count + targets]
        self.own, self.rng = own, rng
        self.prompts = own.keep_images(self.candidates)
        self.told: dict[int, str] = {}

    def spoil(self) -> None:
        """Mark two of the candidates wrongly, each in another way."""
        kinds = [KINDS[int(n)] for n in self.rng.permutation(len(KINDS))[:SPOILED]]
        for place, kind in enumerate(kinds):
            if kind == "another class" and len(self.marked.annotations.categories) > 1:
                self._mislabel(place)
            else:
                self._move(self.candidates[place], "background" if kind == "another class" else kind)

    def _mislabel(self, place: int) -> None:
        """In place of a candidate, an image of another class with its mark called this one's."""
        others = [mark for mark in self.marked.annotations.instances if self._foreign(mark)]
        mark = others[int(self.rng.integers(len(others)))]
        category = self.own.categories[0].id
        image = next(i for i in self.marked.annotations.images if i.id == mark.image_id)
        kept = self.prompts.keep_images([n for n in self.candidates if n != self.candidates[place]])
        moved = replace(mark, category_id=category, segmentation=None)
        self.prompts = Annotations((*kept.images, image), (*kept.instances, moved), kept.categories)
        self.candidates[place] = image.id
        self.told[image.id] = "another class"

    def _foreign(self, mark: InstanceRecord) -> bool:
        shown = {i.image_id for i in self.own.instances}
        return not mark.iscrowd and mark.image_id not in shown

    def _move(self, image_id: int, kind: str) -> None:
        image = next(i for i in self.prompts.images if i.id == image_id)
        everything = self.marked.annotations.instances_of(image_id)
        marks = []
        for mark in self.prompts.instances:
            if mark.image_id == image_id:
                box = larger(mark.bbox, image.width, image.height)
                if kind == "background":
                    taken = [other.bbox for other in everything]
                    box = empty(mark.bbox, taken, (image.width, image.height), self.rng)
                marks.append(replace(mark, bbox=box, area=box[2] * box[3], segmentation=None))
            else:
                marks.append(mark)
        self.prompts = replace(self.prompts, instances=tuple(marks))
        self.told[image_id] = kind

    def rivals(self, detector: UniSpector, roi: Roi) -> PromptBank | None:
        """Prompts of the other classes, on images that are neither candidates nor targets."""
        used = {*self.candidates, *self.targets}
        names = [name for name in self.marked.annotations.class_names if name != self.name]
        banks: list[PromptBank] = []
        for name in names:
            other = of_class(self.marked.annotations, name)
            free = [image.id for image in other.images if image.id not in used][:RIVAL_IMAGES]
            if free:
                banks.append(detector.encode_annotations(other.keep_images(free), self.marked.images, roi))
        whole = banks[0] if banks else None
        for bank in banks[1:]:
            whole = whole.merge(bank) if whole is not None else bank
        return whole


def larger(box: Box, width: int, height: int) -> Box:
    """A box of twice the sides about the same middle, cut at the image's edge."""
    x, y, w, h = box
    left, top = max(x - w / 2, 0.0), max(y - h / 2, 0.0)
    return left, top, min(x + 1.5 * w, float(width)) - left, min(y + 1.5 * h, float(height)) - top


def empty(box: Box, taken: Sequence[Box], size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A box of the same size, at most half the image's sides, where least is marked."""
    w, h = min(box[2], size[0] / 2), min(box[3], size[1] / 2)
    places = [(rng.uniform(0, size[0] - w), rng.uniform(0, size[1] - h)) for _ in range(200)]

    def covered(place: tuple[float, float]) -> float:
        x, y = place
        return sum(
            max(0.0, min(x + w, b[0] + b[2]) - max(x, b[0]))
            * max(0.0, min(y + h, b[1] + b[3]) - max(y, b[1]))
            for b in taken
        )

    x, y = min(places, key=covered)
    return float(x), float(y), float(w), float(h)


def judged(detector: UniSpector, draw: Draw, banks: Mapping[str, PromptBank]) -> dict[str, float]:
    """AP50 on the targets of each bank."""
    held = MarkedClass(draw.own.keep_images(draw.targets), draw.marked.images)
    found: dict[str, dict[int, Outcome]] = {name: {} for name in banks}
    for target in draw.targets:
        path = held.root / held.truth.image(target).file_name
        for name, detections in zip(
            banks, next(detector.stream_banks([path], list(banks.values()))), strict=True
        ):
            found[name][target] = held.outcome(target, detections)
    return {name: float(held.average_precision(outcomes)[0]) for name, outcomes in found.items()}


def measured(detector: UniSpector, draw: Draw, curve: bool) -> dict[str, Any]:
    """One row: what the doctor says, and AP50 before and after."""
    started = time.process_time()
    root = draw.marked.images
    own = MarkedClass(draw.prompts, root)
    by_roi: dict[str, InstanceEmbeddings] = {"box": detector.encode_instances(draw.prompts, root, "box")}
    if draw.marked.has_masks:
        by_roi["mask"] = detector.encode_instances(draw.prompts, root, "mask")
    rivals = draw.rivals(detector, "box")
    settings = CheckSettings("box", changes=False, curve=curve)
    figures = check_class(detector, own, by_roi["box"], lambda _: rivals, settings, lambda *_: None)
    diagnosis = ClassDiagnosis.of(figures)
    names = {image.file_name: image.id for image in draw.prompts.images}
    everything = set(names.values())
    dropped = {names[name] for name in diagnosis.to_drop}
    suspects = {names[name] for name in diagnosis.suspects}
    masks = any(advice.kind == "marks" for advice in diagnosis.on_class)
    roi = "mask" if masks else "box"
    banks = {"all": own.bank(by_roi["box"], everything)}
    banks["dropped"] = own.bank(by_roi["box"], everything - dropped)
    banks["advice"] = own.bank(by_roi[roi], everything - dropped)
    # One who looks at the suspects sees which are wrong, and drops those.
    banks["looked"] = own.bank(by_roi[roi], everything - dropped - (suspects & draw.told.keys()))
    banks["oracle"] = own.bank(by_roi["box"], everything - draw.told.keys())
    if "mask" in by_roi:
        banks["masks"] = own.bank(by_roi["mask"], everything)
    for count in COUNTS if curve else ():
        banks[str(count)] = own.bank(by_roi["box"], draw.candidates[:count])
    ap50 = judged(detector, draw, {name: bank for name, bank in banks.items() if bank is not None})
    count = len(everything)
    return {
        "set": draw.marked.name,
        "class": draw.name,
        "candidates": count,
        "targets": len(draw.targets),
        "ap50": ap50,
        "told": {own.truth.image(n).file_name: kind for n, kind in draw.told.items()},
        "advice": [[a.kind, a.file_name, a.text] for a in diagnosis.advice if a.kind != "fine"],
        "dropped": list(diagnosis.to_drop),
        "suspects": list(diagnosis.suspects),
        "loo": figures.ap50,
        "expected": {str(k): expected(figures.curve, k) for k in (*COUNTS, count)} if curve else {},
        "curve": {str(point.images): point.mean for point in figures.curve},
        "seconds": time.process_time() - started,
        "figures": diagnosis.as_dict(),
    }


def grown(detector: UniSpector, draw: Draw) -> dict[str, Any]:
    """One row: AP50 with one image, and with as many as the doctor asks for."""
    started = time.process_time()
    whole = MarkedClass(draw.prompts, draw.marked.images)
    instances = detector.encode_instances(draw.prompts, draw.marked.images, "box")
    counts = [*range(1, len(draw.candidates), 2), len(draw.candidates)]
    for count in counts:
        own = draw.prompts.keep_images(draw.candidates[:count])
        some = instances.only({mark.id for mark in own.instances})
        settings = CheckSettings("box", changes=False)
        figures = check_class(
            detector, MarkedClass(own, whole.root), some, lambda _: None, settings, lambda *_: None
        )
        if all(advice.kind != "add" for advice in ClassDiagnosis.of(figures).on_class):
            break
    banks = {str(count): whole.bank(instances, draw.candidates[:count]) for count in counts}
    ap50 = judged(detector, draw, {name: bank for name, bank in banks.items() if bank is not None})
    return {
        "set": draw.marked.name,
        "class": draw.name,
        "candidates": len(draw.candidates),
        "targets": len(draw.targets),
        "ap50": {**ap50, "one": ap50["1"], "followed": ap50[str(count)], "all": ap50[str(counts[-1])]},
        "marked": count,
        "seconds": time.process_time() - started,
    }


def sets(options: argparse.Namespace) -> Iterator[MarkedSet]:
    """The sets asked for, or the two real ones."""
    for name in options.set or [f"{name}:{source}" for name, source in SETS.items()]:
        folder, _, source = name.partition(":")
        if source == "coco":
            base = options.data / folder
            yield replace(read_coco_set(base / "annotations.json", base), name=folder)
        else:
            yield read_raw_set(options.data / folder, source)


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures as Markdown tables."""
    clean, spoiled, growing = ([row for row in rows if row["kind"] == kind] for kind in QUESTIONS)
    lines = [TABLES, "", "## (a) Clean prompts", "", *_table(clean, ("all", "dropped", "advice", "masks"))]
    called, images = (
        sum(map(size, clean)) for size in (lambda r: len(r["suspects"]), lambda r: r["candidates"])
    )
    lines += ["", f"Of {images} rightly marked images {called} are named (drop, look, loose, confused)."]
    lines += ["", "## (b) Spoiled prompts", ""]
    lines += [*_table(spoiled, ("all", "dropped", "looked", "oracle")), "", *_naming(spoiled)]
    lines += ["", "## (c) Expected AP50", "", *_expectation(clean)]
    lines += ["", "## (d) One image, then what it asks for", "", *_growth(growing)]
    return "\n".join(lines) + "\n"


def write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Write the rows, and the tables below what stands above them in the page."""
    atomic_write_json(options.out, rows)
    if options.page:
        above = options.page.read_text().partition(TABLES)[0] if options.page.exists() else "# The doctor\n\n"
        atomic_write_text(options.page, above + page(rows))


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    yield f"| set | class | seed | prompts / targets | {' | '.join(names)} | advice |"
    yield f"|---|---|---|---|{'---:|' * len(names)}---|"
    for row in rows:
        cells = [f"{row['ap50'][name]:.1f}" if name in row["ap50"] else "-" for name in names]
        kinds = [kind for kind, *_ in row["advice"] if kind not in ("enough", "add")]
        said = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        size = f"{row['candidates']} / {row['targets']}"
        yield f"| {row['set']} | {row['class']} | {row['seed']} | {size} | {' | '.join(cells)} | {said} |"
    for name in names[1:]:
        yield from _gain(rows, "all", name)


def _gain(rows: Sequence[Mapping[str, Any]], before: str, after: str) -> Iterator[str]:
    gains = np.array([row["ap50"][after] - row["ap50"][before] for row in rows if after in row["ap50"]])
    if len(gains):
        error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        moved = int(np.count_nonzero(gains))
        yield ""
        yield (
            f"`{after}` against `{before}`: {gains.mean():+.2f} points in the mean of {len(gains)} rows "
            f"(standard error {error:.2f}); {moved} differ, {int((gains > 0).sum())} of them higher."
        )


def _growth(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| set | class | seed | targets | with one image | images when it says enough | followed | all |"
    yield "|---|---|---|---:|---:|---:|---:|---:|"
    for row in rows:
        one, followed, whole = (f"{row['ap50'][name]:.1f}" for name in ("one", "followed", "all"))
        images = f"{row['marked']} of {row['candidates']}"
        yield (
            f"| {row['set']} | {row['class']} | {row['seed']} | {row['targets']} | {one} | {images} "
            f"| {followed} | {whole} |"
        )
    yield from _gain(rows, "one", "followed")
    yield from _gain(rows, "followed", "all")


def _naming(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    named = sum(len(set(row["suspects"]) & row["told"].keys()) for row in rows)
    called, wrong = sum(len(row["suspects"]) for row in rows), sum(len(row["told"]) for row in rows)
    images = sum(row["candidates"] for row in rows)
    if not wrong:
        return
    yield (
        f"Named (drop, look, loose, confused): {named} of {wrong} spoiled images (recall), of {called} named "
        f"(precision); by chance {called * wrong / images:.1f} would be."
    )
    for kind in KINDS:
        own = [(row, name) for row in rows for name, told in row["told"].items() if told == kind]
        hit = sum(name in row["suspects"] for row, name in own)
        advice = [a for row, name in own for a, of, _ in row["advice"] if of == name]
        told = ", ".join(f"{advice.count(a)} {a}" for a in dict.fromkeys(advice))
        yield f"\n- {kind}: {hit} of {len(own)} named; advice on them: {told or 'none'}"


def _expectation(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [row for row in rows if row["expected"]]
    yield "| prompt images | expected | on the targets | mean absolute difference | correlation | rows |"
    yield "|---|---:|---:|---:|---:|---:|"
    for key in (*map(str, COUNTS), "all"):
        pairs = [
            (row["expected"].get(str(row["candidates"]) if key == "all" else key), row["ap50"].get(key))
            for row in rows
        ]
        known = np.array([pair for pair in pairs if None not in pair], dtype=float)
        if len(known) > 1:
            away = np.abs(known[:, 0] - known[:, 1]).mean()
            cells = f"{known[:, 0].mean():.1f} | {known[:, 1].mean():.1f} | {away:.1f}"
            yield f"| {key} | {cells} | {np.corrcoef(known.T)[0, 1]:.2f} | {len(known)} |"


def main() -> None:
    """Measure what is asked for and not yet in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--set", nargs="*", help="FOLDER:SOURCE; `coco` = annotations.json and images/")
    parser.add_argument("--classes", nargs="*", help="only these")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--curve", action="store_true", help="(c) too, on clean prompts")
    parser.add_argument("--only", nargs="*", choices=QUESTIONS)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else []
    write(rows, options)
    done = {(row["set"], row["class"], row["seed"], row["kind"]) for row in rows}
    torch.set_num_threads(1)  # one image at a time: two processes, by set, are faster than two threads
    detector = UniSpector.load("fast")
    known = list(sets(options))
    for seed in options.seeds:
        for marked in known:
            for name in marked.annotations.class_names:
                for kind in options.only or QUESTIONS:
                    if options.classes and name not in options.classes:
                        continue
                    if (marked.name, name, seed, kind) in done:
                        continue
                    draw = Draw(marked, name, seed, options.candidates, options.targets)
                    if kind == "growing":
                        row = grown(detector, draw)
                    else:
                        if kind == "spoiled":
                            draw.spoil()
                        row = measured(detector, draw, options.curve and kind == "clean")
                    rows.append({**row, "seed": seed, "kind": kind})
                    write(rows, options)
                    print(row["class"], seed, kind, f"{row['seconds']:.0f} s", row["ap50"], flush=True)


if __name__ == "__main__":
    main()
