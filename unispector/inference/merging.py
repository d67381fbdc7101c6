"""Detections of the tiles of an image become those of the image; a defect cut by a seam becomes one.

Two findings of a class in neighbouring tiles show the same defect where they agree in the overlap: most
of either lies within a few pixels of the other. Boxes could not tell, as the pieces of a scratch hardly
overlap as boxes do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from cachetools import LRUCache, cached
from pycocotools import mask as coco_mask

from unispector.detections import Detections
from unispector.inference.tiles import Window
from unispector.ops.rle import BoolArray, Rle, decode_rle, joined_rle

AGREEMENT = 0.5  # share of either of two findings, in the overlap, that is the other's too
CONTAINED = 0.8  # share of a finding that another holds; then it adds nothing to it
FAINT = 0.1  # of a finding's score; what scores less does not extend it
EDGE = 32  # a finding that ends within a side of the tile in so many pixels from its edge is taken as cut
BLUR = 128  # findings are compared to a side of the tile in so many pixels: about two cells of a mask
HELD_BYTES = 256_000_000  # of decoded masks that wait for their next comparison
KEPT_PIECES = 10  # findings in tiles that are kept for each detection of the image


@dataclass(frozen=True)
class _Piece:
    """What one tile shows of a defect."""

    window: Window
    label: int
    score: float
    box_xyxy: tuple[float, ...]  # in pixels of the image
    code: Rle  # mask of the tile's size


@dataclass(frozen=True)
class _Finding:
    """A detection of the image."""

    label: int
    score: float
    box_xyxy: tuple[float, ...]
    code: Rle  # mask of the image's size
    windows: frozenset[Window]  # what shows it
    wide: bool  # larger than one tile shows


class Seams:
    """The detections of the tiles of one image, put together."""

    def __init__(self, image_hw: tuple[int, int], side: int, limit: int) -> None:
        """Nothing is found yet.

        Args:
            side: of the tiles in pixels.
            limit: detections of the image that are kept.
        """
        self._hw, self._side, self._limit = image_hw, side, limit
        self._pieces: list[_Piece] = []
        self._least = 0.0

    def add(self, window: Window, found: Detections) -> None:
        """Take in what was found in a tile, in the tile's pixels."""
        shift = (*window[:2], *window[:2])
        rows = zip(
            found.labels.tolist(),
            found.scores.tolist(),
            found.boxes_xyxy.tolist(),
            found.masks_rle,
            strict=True,
        )
        for label, score, box, code in rows:
            if score > self._least:
                corners = tuple(value + by for value, by in zip(box, shift, strict=True))
                self._pieces.append(_Piece(window, label, score, corners, code))
        most = KEPT_PIECES * self._limit
        if len(self._pieces) > 2 * most:
            self._pieces = sorted(self._pieces, key=lambda piece: -piece.score)[:most]
            self._least = self._pieces[-1].score

    def merged(self, whole: Detections, nms_iou: float) -> Detections:
        """The detections of the image, best first.

        Args:
            whole: what the image shows when looked at as a whole; only what is larger than a tile counts,
                as the tiles show the rest better.
            nms_iou: of two findings of a class whose masks overlap more, the better one is kept.
        """
        findings = [*self._joined(), *self._large(whole)]
        findings.sort(key=lambda finding: -finding.score)
        findings = _without_doubles(findings[: 2 * self._limit], nms_iou)[: self._limit]
        return Detections(
            boxes_xyxy=torch.tensor([finding.box_xyxy for finding in findings]).reshape(-1, 4),
            scores=torch.tensor([finding.score for finding in findings]),
            labels=torch.tensor([finding.label for finding in findings], dtype=torch.int64),
            masks_rle=tuple(finding.code for finding in findings),
            class_names=whole.class_names,
            image_hw=self._hw,
        )

    def _large(self, whole: Detections) -> Iterator[_Finding]:
        everything = Window(0, 0, self._hw[1], self._hw[0])
        for row, code in enumerate(whole.masks_rle):
            if max(coco_mask.toBbox(code)[2:]) > self._side:
                label, score = int(whole.labels[row]), float(whole.scores[row])
                box = tuple(whole.boxes_xyxy[row].tolist())
                yield _Finding(label, score, box, code, frozenset((everything,)), wide=True)

    def _joined(self) -> Iterator[_Finding]:
        """Pieces of one defect as one finding, with the best of their scores."""
        pieces = sorted(self._pieces, key=lambda piece: -piece.score)
        for members, shown in _Joins(pieces, self._hw, self._side).groups():
            corners = np.array([piece.box_xyxy for piece in shown])
            yield _Finding(
                label=shown[0].label,
                score=members[0].score,
                box_xyxy=(*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist()),
                code=joined_rle([(piece.code, *piece.window[:2]) for piece in shown], *self._hw),
                windows=frozenset(piece.window for piece in members),
                wide=len(shown) > 1,
            )


class _Joins:
    """Which of some pieces show the same defect."""

    def __init__(self, pieces: Sequence[_Piece], image_hw: tuple[int, int], side: int) -> None:
        """Compare all pieces; they come best first."""
        self._pieces, self._hw = pieces, image_hw
        self._blur, self._edge = max(side // BLUR, 1), max(side // EDGE, 1)
        self._reach = [_reach(piece) for piece in pieces]
        self._group = list(range(len(pieces)))
        self._held: set[int] = set()  # pieces that add nothing to another of their group
        # Pieces cut at a seam that the neighbour shows better, such as what is but a rim of its tile.
        self._gone = {row for row in range(len(pieces)) if self._is_rim(row)}
        # Bounded in bytes: the user chooses how large a tile is.
        held = cached(LRUCache(HELD_BYTES, getsizeof=lambda mask: mask.nbytes))
        self._mask = held(lambda row: decode_rle(pieces[row].code))
        for better, worse in self._neighbours():
            if not self._gone & {better, worse}:
                self._compare(better, worse)

    def groups(self) -> Iterator[tuple[list[_Piece], list[_Piece]]]:
        """The pieces of each defect, best first, and those of them that make up its mask."""
        groups: dict[int, list[int]] = {}
        for row in range(len(self._pieces)):
            if row not in self._gone:
                groups.setdefault(self._root(row), []).append(row)
        for rows in groups.values():
            shown = [row for row in rows if row not in self._held] or rows[:1]
            yield [self._pieces[row] for row in rows], [self._pieces[row] for row in shown]

    def _neighbours(self) -> Iterator[tuple[int, int]]:
        """Pairs of pieces of one class that meet in the overlap of their tiles, the best first."""
        pieces = self._pieces
        tiles = np.array([piece.window for piece in pieces]).reshape(-1, 4)
        boxes = np.array(self._reach).reshape(-1, 4)
        low = np.maximum(boxes[:, :2] - self._blur, tiles[:, :2])
        high = np.minimum(boxes[:, 2:] + self._blur, tiles[:, 2:])
        labels = np.array([piece.label for piece in pieces])
        for worse in range(1, len(pieces)):
            start = np.maximum(np.maximum(low[:worse], low[worse]), tiles[worse, :2])
            end = np.minimum(np.minimum(high[:worse], high[worse]), tiles[worse, 2:])
            start, end = np.maximum(start, tiles[:worse, :2]), np.minimum(end, tiles[:worse, 2:])
            near = (start < end).all(axis=1) & (labels[:worse] == labels[worse])
            near &= (tiles[:worse] != tiles[worse]).any(axis=1)
            yield from ((int(better), worse) for better in np.flatnonzero(near))

    def _compare(self, better: int, worse: int) -> None:
        """Look at two pieces where both tiles show them, and join them if they show the same."""
        overlap = self._pieces[better].window.common(self._pieces[worse].window)
        seen = [self._seen(row, overlap) for row in (better, worse)]
        areas = [int(part.sum()) for part in seen]
        if not all(areas):
            return
        near = [_grown(part, self._blur) for part in seen]
        shared = [int((seen[0] & near[1]).sum()), int((seen[1] & near[0]).sum())]
        held = [self._held_share(row, part) for row, part in zip((better, worse), shared, strict=True)]
        agree = min(part / area for part, area in zip(shared, areas, strict=True)) >= AGREEMENT
        if agree and self._pieces[worse].score >= FAINT * self._pieces[better].score:
            self._group[self._root(worse)] = self._root(better)
            # What a tile shows whole is not made better by what others show of it.
            if not self._is_cut(better):
                self._held.add(worse)
            elif held[0] >= CONTAINED and not self._is_cut(worse):
                self._held.add(better)
        elif held[1] >= CONTAINED and self._is_cut(worse) and not self._is_cut(better):
            self._gone.add(worse)

    def _seen(self, row: int, part: Window) -> BoolArray:
        """A piece's mask in a part of its tile."""
        left, top = self._pieces[row].window[:2]
        mask: BoolArray = self._mask(row)[
            part.top - top : part.bottom - top, part.left - left : part.right - left
        ]
        return mask

    def _held_share(self, row: int, shared: int) -> float:
        return shared / max(int(coco_mask.area(self._pieces[row].code)), 1)

    def _is_cut(self, row: int) -> bool:
        """Return whether a piece reaches an edge of its tile that is none of the image."""
        return self._nears_seam(row, self._reach[row], self._edge)

    def _is_rim(self, row: int) -> bool:
        """Return whether all of a piece lies at such an edge."""
        left, top, right, bottom = self._reach[row]
        return self._nears_seam(row, (right, bottom, left, top), 2 * self._blur)

    def _nears_seam(self, row: int, sides: tuple[float, ...], pixels: int) -> bool:
        ends = (0, 0, self._hw[1], self._hw[0])
        gaps = zip(sides, self._pieces[row].window, ends, strict=True)
        return any(abs(side - edge) <= pixels and edge != end for side, edge, end in gaps)

    def _root(self, row: int) -> int:
        while self._group[row] != row:
            row = self._group[row]
        return row


def _reach(piece: _Piece) -> tuple[float, ...]:
    """Tight corners xyxy of a piece's mask in pixels of the image."""
    left, top, width, height = coco_mask.toBbox(piece.code).tolist()
    left, top = left + piece.window.left, top + piece.window.top
    return left, top, left + width, top + height


def _grown(mask: BoolArray, pixels: int) -> BoolArray:
    """All pixels within so many, along either axis, of a marked one."""
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), dtype=np.uint8)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(np.bool_)


def _without_doubles(findings: Sequence[_Finding], nms_iou: float) -> list[_Finding]:
    """Findings, best first, without those that a better one of their class shows too."""
    kept: list[_Finding] = []
    for label in sorted({finding.label for finding in findings}):
        own = [finding for finding in findings if finding.label == label]
        codes = [finding.code for finding in own]
        overlaps = coco_mask.iou(codes, codes, [0] * len(codes))
        inside = coco_mask.iou(
            codes, codes, [1] * len(codes)
        )  # of a "crowd": intersection by the first's area
        stay: list[int] = []
        for row, finding in enumerate(own):
            others = [better for better in stay if own[better].wide or own[better].windows != finding.windows]
            if not any(
                overlaps[row, better] > nms_iou or (own[better].wide and inside[row, better] >= CONTAINED)
                for better in others
            ):
                stay.append(row)
        kept += [own[row] for row in stay]
    return sorted(kept, key=lambda finding: -finding.score)


def best_of(parts: Sequence[Detections], class_names: tuple[str, ...], limit: int) -> Detections:
    """The detections of all of a bank's classes, found in one or more passes over an image."""
    if len(parts) == 1 and parts[0].class_names == class_names:
        return parts[0]
    scores = torch.cat([part.scores for part in parts])
    order = scores.argsort(descending=True, stable=True)[:limit]
    masks = [mask for part in parts for mask in part.masks_rle]
    labels = [class_names.index(part.class_names[label]) for part in parts for label in part.labels.tolist()]
    return Detections(
        boxes_xyxy=torch.cat([part.boxes_xyxy for part in parts])[order],
        scores=scores[order],
        labels=torch.tensor(labels, dtype=torch.int64)[order],
        masks_rle=tuple(masks[row] for row in order.tolist()),
        class_names=class_names,
        image_hw=parts[0].image_hw,
    )
