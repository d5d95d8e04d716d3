"""An evaluation as one HTML file: readable from a mail, on paper, by a screen reader.

Nothing is loaded and nothing runs: style and drawings are in the file, and there is no script.
"""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from lepton_platform.training import charts
from lepton_platform.training.bootstrap import Interval
from lepton_platform.training.evaluation import (
    Confusion,
    Curves,
    Evaluation,
    Examples,
    Forest,
    Gallery,
    Reliability,
    Section,
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --dim: #5b6876; --line: #d9e0e7; --page: #f6f8fa; --card: #fff;
  --good: #0b7a75; --bad: #c2452d; --mark: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --dim: #9aa8b5; --line: #33404d; --page: #12181e;
  --card: #1a222a; --good: #3dbdb6; --bad: #ef8a72; --mark: #e3b04b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 1rem; color: var(--dim); max-width: 46rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem; margin: 1rem 0; }
dl.headline { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.25rem 0; }
dl.headline div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1.1rem; }
dt { color: var(--dim); font-size: .85rem; } dd { margin: 0; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
dd small { display: block; font-size: .8rem; color: var(--dim); }
.verdict { font-weight: 600; color: var(--good); } .verdict.no { color: var(--bad); }
.scroll { overflow-x: auto; } svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 13px; }
svg .axis { fill: var(--dim); font-size: 12px; } svg .figure { font-size: 12px; font-variant-numeric: tabular-nums; }
svg .count { font-size: 20px; font-weight: 600; } svg .grid { stroke: var(--line); }
svg .diagonal { stroke: var(--dim); stroke-dasharray: 4 4; } svg .dot, svg .right { fill: var(--good); }
svg .wrong { fill: var(--bad); } svg .whisker { stroke: var(--good); stroke-width: 2.5; }
svg .reference { fill: var(--mark); } svg .curve { fill: none; stroke-width: 2; stroke: var(--good); }
svg .curve.n1 { stroke: var(--mark); } svg .curve.n2 { stroke: var(--bad); } svg .curve.n3 { stroke: var(--dim); }
svg .chance { stroke: var(--dim); stroke-width: 7; stroke-opacity: .35; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } th, td { text-align: left; vertical-align: top;
  padding: .4rem .6rem; border-bottom: 1px solid var(--line); } th { color: var(--dim); font-weight: 500; }
.gallery { display: flex; flex-wrap: wrap; gap: .75rem; } figure { margin: 0; } figure img { display: block;
  max-width: 100%; border-radius: 6px; image-rendering: pixelated; } figcaption { color: var(--dim); font-size: .8rem; }
td.wide { min-width: 18rem; overflow-wrap: anywhere; }
td.aligned { white-space: pre; font: .8rem/1.4 ui-monospace, monospace; }
details { margin-top: .75rem; } summary { cursor: pointer; }
"""


def page(evaluation: Evaluation, title: str, verdict: str, passed: bool) -> str:
    """The whole document; every word that comes from data is escaped."""
    cards = "".join(_card(name, figure) for name, figure in evaluation.headline)
    cards += _card("gain over the yardstick", evaluation.gain, "+.3f")
    sections = "\n".join(_section(section) for section in evaluation.sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        f'<p class="verdict{"" if passed else " no"}">{escape(verdict)}</p>\n'
        f'<dl class="headline">{cards}</dl>\n<p>Every figure is given with its 95 % bootstrap interval.</p>\n'
        f"{sections}\n</main>\n</body>\n</html>\n"
    )


def _card(name: str, figure: Interval, form: str = ".3f") -> str:
    low, high = format(figure.low, form), format(figure.high, form)
    return f"<div><dt>{escape(name)}</dt><dd>{figure.estimate:{form}}<small>{low} to {high}</small></dd></div>"


def _section(section: Section) -> str:
    if isinstance(section, Examples):
        body = _table(section.columns, section.rows, "aligned" if section.monospace else "wide")
    elif isinstance(section, Forest):
        rows = [
            (name, str(n), f"{f.estimate:.3f}", f"{f.low:.3f} to {f.high:.3f}", "" if r is None else f"{r:.3f}")
            for name, n, f, r in section.rows
        ]
        body = charts.forest(section) + _figures(("slice", "rows", "figure", "interval", section.reference), rows)
    elif isinstance(section, Confusion):
        rows = [(name, *map(str, row)) for name, row in zip(section.labels, section.counts, strict=True)]
        body = charts.confusion(section) + _figures(("true", *(f"answered {name}" for name in section.labels)), rows)
    elif isinstance(section, Curves):
        rows = [(name, f"{x:.2f}", f"{y:.3f}") for name, points in section.lines for x, y in points[::10]]
        body = charts.curves(section) + _figures(("line", section.x, section.y), rows)
    elif isinstance(section, Gallery):
        body = _gallery(section)
    else:
        body = _reliability(section)
    return (
        f"<section>\n<h2>{escape(section.title)}</h2>\n<p>{escape(section.note)}</p>\n"
        f'<div class="scroll">{body}</div>\n</section>'
    )


def _reliability(section: Reliability) -> str:
    rows = [
        (f"{b.low:.3f} to {b.high:.3f}", str(b.rows), f"{b.confidence:.3f}", f"{b.accuracy:.3f}") for b in section.bins
    ]
    drawing = charts.reliability(section.bins, section.title)
    return drawing + _figures(("confidence between", "rows", "mean confidence", "accuracy"), rows)


def _gallery(section: Gallery) -> str:
    figures = (
        f'<figure style="width: {section.width}px"><img width="{section.width}" alt="{escape(caption)}" '
        f'src="data:image/png;base64,{b64encode(png).decode()}"><figcaption>{escape(caption)}</figcaption></figure>'
        for png, caption in section.pictures
    )
    return f'<div class="gallery">{"".join(figures)}</div>'


def _figures(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<details><summary>The figures</summary>{_table(columns, rows)}</details>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], last: str = "") -> str:
    """``last``: the style of the last column."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    tags = ["<td>"] * (len(columns) - 1) + [f'<td class="{last}">' if last else "<td>"]
    lines = ("".join(f"{tag}{escape(cell)}</td>" for tag, cell in zip(tags, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
