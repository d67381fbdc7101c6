"""What the page is told."""

from dataclasses import dataclass

from unispector.ops.drawing import class_colour
from unispector.scores import DEFAULT_SCORE
from unispector.workbench.bench import Bench
from unispector.workbench.exports import FILES
from unispector.workbench.findings import LOWEST, Summary
from unispector.workbench.joined import Advice, holds, promise, thresholds
from unispector.workbench.marks import Box, Polygon, outlines
from unispector.workbench.pictures import OVERLAP, TILE
from unispector.workbench.project import Job, News, Project, Run
from unispector.workbench.session import SessionClass


@dataclass(frozen=True)
class Start:
    """What the page must know before a folder is open."""

    program: str  # of this run of the program; another one after a restart
    opened: bool
    fixed: bool  # the page opens no other folder
    home: str  # where the choice of a folder begins
    tile: int  # side of a tile in pixels
    overlap: int  # pixels that a tile shares with each neighbour
    lowest: float  # score under which nothing is told
    exports: list[str]  # kinds of exports that can be written


@dataclass(frozen=True)
class ShownClass:
    """A class, in the order of the page."""

    name: str
    colour: str  # #rrggbb
    threshold: float  # lowest score that counts
    default: float  # the prompts' own threshold
    marks: int  # positive ones
    negatives: int
    images: int  # with positive marks
    prompted: bool  # has prompts from elsewhere than this session
    promise: str  # what its threshold was chosen for; empty of one that was not
    proved: bool  # whether it still holds


@dataclass(frozen=True)
class ShownMark:
    """A mark, ready to be drawn."""

    id: str
    image: str
    label: str
    box: Box
    hw: tuple[int, int]
    outlines: list[Polygon]  # of a mask; none of a box
    negative: bool
    origin: str


@dataclass(frozen=True)
class ShownSession:
    """The session."""

    version: int
    folder: str
    session: str  # folder that keeps it
    notice: str
    classes: list[ShownClass]
    marks: list[ShownMark]
    reviewed: list[str]
    good: list[str]  # images without a defect
    advice: list[Advice]
    undo: bool
    redo: bool


@dataclass(frozen=True)
class ShownImages:
    """The list of images."""

    listing: int  # its version
    names: list[str]
    stamps: list[str]


@dataclass(frozen=True)
class ShownFinding:
    """A finding with its outlines."""

    id: str
    outlines: list[Polygon]


@dataclass(frozen=True)
class ShownResult(Summary):
    """What was found on an image, and what became of it."""

    verdicts: list[int]  # 1 = marked, 2 = rejected


@dataclass(frozen=True)
class ShownNews:
    """What happened since the page asked last."""

    program: str
    project: str  # another one when another folder was opened
    number: int
    more: bool
    version: int
    listing: int
    run: Run
    job: Job
    messages: tuple[str, ...]  # warnings about images, one of each kind
    results: list[ShownResult]


@dataclass(frozen=True)
class ImageSize:
    """Of an image, upright, in pixels."""

    width: int
    height: int


def shown_session(project: Project) -> ShownSession:
    """The session as the page shows it."""
    version, state, undo, redo = project.state()
    with project.lock:
        bank = project.bank
    defaults = thresholds(bank) if bank is not None else {}
    own = {each.name: each for each in state.classes}
    marked = {mark.label for mark in state.marks if not mark.negative}
    classes = []
    for number, name in enumerate(project.class_names()):
        default = defaults.get(name, DEFAULT_SCORE)
        each = own.get(name, SessionClass(name))
        positive = [mark for mark in state.marks if mark.label == name and not mark.negative]
        classes.append(
            ShownClass(
                name,
                "#{:02x}{:02x}{:02x}".format(*class_colour(number)),
                default if each.threshold is None else each.threshold,
                default,
                len(positive),
                sum(mark.label == name and mark.negative for mark in state.marks),
                len({mark.image for mark in positive}),
                name in defaults and name not in marked,
                promise(each.chosen, bank) if each.chosen is not None else "",
                each.chosen is not None and holds(each.chosen, bank),
            )
        )
    marks = [
        ShownMark(
            *(mark.id, mark.image, mark.label, mark.box, mark.hw),
            outlines(mark.mask) if mark.mask else [],
            mark.negative,
            mark.origin,
        )
        for mark in state.marks
    ]
    return ShownSession(
        version,
        str(project.folder.root),
        str(project.session),
        project.notice,
        classes,
        marks,
        sorted(state.reviewed),
        sorted(state.good),
        project.advice(),
        undo,
        redo,
    )


def shown_news(news: News, program: str) -> ShownNews:
    """News as the page is told them."""
    results = [ShownResult(**vars(own), verdicts=said) for own, said in news.results]
    known = (news.project, news.number, news.more, news.version, news.listing)
    return ShownNews(program, *known, news.run, news.job, news.messages, results)


def shown_findings(project: Project, image: str) -> list[ShownFinding]:
    """The outlines of everything found on an image."""
    with project.lock:
        result = project.results.whole(image)
    return [ShownFinding(own.id, own.outlines) for own in result.findings] if result else []


def start(program: str, bench: Bench) -> Start:
    """What the page must know first."""
    return Start(program, bench.opened, bench.fixed, str(bench.home), TILE, OVERLAP, LOWEST, list(FILES))
