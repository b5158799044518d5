"""`report`: write all that a study has found into FOLDER/report.html: one page that needs neither a server nor other files."""

import argparse
from pathlib import Path

import jinja2

from ..errors import InterpError
from ..files import write_whole
from ..validation import whole_number
from . import charts, work
from .report_gallery import gallery
from .report_parts import about, asked, attributed, cached, scored, steered, trained
from .study import Study

NAME, HELP = "report", "write one page with all that was found"
FILE = "report.html"
_PAGES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined)
_PAGES.filters |= {"number": charts.number, "percent": charts.percent}


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--each", type=int, default=4, metavar="N", help="features to show of the best, the median, the worst and any")
    parser.add_argument("--seed", type=int, default=0, help="of the features drawn at random")


def run(study: Study, args: argparse.Namespace) -> None:
    """Write the page, from what there is."""
    each = whole_number("--each", args.each, 0, 50)
    work.once(lambda: _write(study, each, args.seed))


def _write(study: Study, each: int, seed: int) -> None:
    file = study.folder / FILE
    try:
        write_whole(file, page(study, each, seed))
    except OSError as error:
        raise InterpError(f"{file} cannot be written ({error.strerror}).") from error
    print(file)  # noqa: T201 - what the command is for


def page(study: Study, each: int, seed: int) -> str:
    """The page. Whatever comes from models, pictures or servers is text in it, never markup."""
    return _PAGES.get_template(FILE).render(
        about=about(study),
        command=f"python -m interp.study {{}} {study.folder.resolve().name}".format,
        cache=cached(study),
        asked=asked(study),
        scores=scored(study),
        training=trained(study),
        steering=steered(study),
        attribution=attributed(study),
        gallery=gallery(study, each, seed),
        width=charts.WIDTH,
        height=charts.HEIGHT,
        bottom=charts.BOTTOM,
    )
