"""Drawings of an evaluation as SVG text: no script, no font, no file; colours come from the page's style."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, isnan

from lepton_platform.training.calibration import Bin
from lepton_platform.training.evaluation import Confusion, Curves, Forest

_ROW = 26  # pixels
_NAMES = 230
_PLOT = 400
_FIGURES = 190
_SIDE, _LEFT, _TOP = 360, 54, 12  # of the unit square that curves are drawn in


def _svg(width: float, height: float, label: str, body: Sequence[str]) -> str:
    inner = "\n".join(body)
    return (
        f'<svg role="img" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        f"<title>{escape(label)}</title>\n{inner}\n</svg>"
    )


def _text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def forest(chart: Forest) -> str:
    """One line a slice: dot and interval of the model, diamond of the reference, figures written beside them."""
    drawn = [x for _, _, figure, reference in chart.rows for x in (*figure, reference)]
    known = [x for x in drawn if x is not None and not isnan(x)]
    low = floor(min(known) * 20) / 20
    high = max(ceil(max(known) * 20) / 20, low + 0.05)

    def at(value: float) -> float:
        return _NAMES + (value - low) / (high - low) * _PLOT

    height = _ROW * len(chart.rows) + 44
    body = []
    ticks = round((high - low) / 0.05)
    for i in range(0, ticks + 1, max(1, ceil(ticks / 8))):
        value = low + i * 0.05
        body += [
            _line(at(value), 8, at(value), height - 30, "grid"),
            _text(at(value), height - 12, f"{value:.2f}", "axis", "middle"),
        ]
    for number, (name, rows, (estimate, start, end), reference) in enumerate(chart.rows):
        y = 22 + number * _ROW
        shown = name if len(name) <= 34 else name[:33] + "…"
        body.append(_text(_NAMES - 14, y + 4, shown, "name", "end"))
        if not isnan(start):
            body.append(_line(at(start), y, at(end), y, "whisker"))
        if reference is not None and not isnan(reference):
            x = at(reference)
            body.append(f'<path d="M{x:.1f} {y - 5} l5 5 l-5 5 l-5 -5 z" class="reference"/>')
        body.append(f'<circle cx="{at(estimate):.1f}" cy="{y}" r="4.5" class="dot"/>')
        body.append(_text(_NAMES + _PLOT + 16, y + 4, f"{estimate:.3f} [{start:.3f}, {end:.3f}]  n {rows}", "figure"))
    return _svg(_NAMES + _PLOT + _FIGURES + 40, height, chart.title, body)


def confusion(chart: Confusion) -> str:
    """Counts and shares of each true label's row, the darker the larger the share."""
    size, left, top, labels = 112, 150, 44, [str(name) for name in chart.labels]
    body = []
    for i, row in enumerate(chart.counts):
        body += [
            _text(left - 12, top + (i + 0.5) * size + 4, labels[i][:18], "name", "end"),
            _text(left + (i + 0.5) * size, top - 12, labels[i][:14], "name", "middle"),
        ]
        for j, count in enumerate(row):
            share = count / sum(row) if sum(row) else 0.0
            x, y, css = left + j * size, top + i * size, "right" if i == j else "wrong"
            body += [
                f'<rect x="{x}" y="{y}" width="{size - 3}" height="{size - 3}" rx="6" class="{css}" '
                f'fill-opacity="{0.08 + 0.5 * share:.3f}"/>',
                _text(x + size / 2, y + size / 2, str(count), "count", "middle"),
                _text(x + size / 2, y + size / 2 + 20, f"{share:.1%}", "axis", "middle"),
            ]
    return _svg(left + len(labels) * size + 4, top + len(labels) * size, chart.title, body)


def curves(chart: Curves) -> str:
    """Lines in the unit square, named in the upper right corner."""
    body = _unit_square(chart.x, chart.y)
    for number, (name, points) in enumerate(chart.lines):
        css = f"curve n{number % 4}"
        if points:
            path = " ".join(f"{_LEFT + x * _SIDE:.1f},{_TOP + (1 - y) * _SIDE:.1f}" for x, y in points)
            body.append(f'<polyline points="{path}" class="{css}"/>')
        y = _TOP + 16 + number * 20
        body += [_line(_LEFT + _SIDE + 16, y, _LEFT + _SIDE + 40, y, css), _text(_LEFT + _SIDE + 48, y + 4, name)]
    return _svg(_LEFT + _SIDE + 230, _TOP + _SIDE + 52, chart.title, body)


def _unit_square(x_name: str, y_name: str) -> list[str]:
    """Its grid from 0 to 1, the numbers and the names of both axes."""
    body = []
    for i in range(0, 11, 2):
        x, y = _LEFT + i / 10 * _SIDE, _TOP + _SIDE - i / 10 * _SIDE
        body += [
            _line(x, _TOP, x, _TOP + _SIDE, "grid"),
            _line(_LEFT, y, _LEFT + _SIDE, y, "grid"),
            _text(x, _TOP + _SIDE + 20, f"{i / 10:.1f}", "axis", "middle"),
            _text(_LEFT - 10, y + 4, f"{i / 10:.1f}", "axis", "end"),
        ]
    body.append(_text(_LEFT + _SIDE / 2, _TOP + _SIDE + 42, x_name, "axis", "middle"))
    body.append(
        f'<text transform="translate(14 {_TOP + _SIDE / 2:.0f}) rotate(-90)" text-anchor="middle" class="axis">'
        f"{escape(y_name)}</text>"
    )
    return body


def reliability(bins: Sequence[Bin], title: str) -> str:
    """Accuracy against confidence, the diagonal of a calibrated model, and what chance allows around it."""
    body = _unit_square("confidence", "accuracy")
    body.append(_line(_LEFT, _TOP + _SIDE, _LEFT + _SIDE, _TOP, "diagonal"))
    most = max((one.rows for one in bins), default=1)
    for one in bins:
        x, y = _LEFT + one.confidence * _SIDE, _TOP + _SIDE - one.accuracy * _SIDE
        high, low = (_TOP + _SIDE - value * _SIDE for value in reversed(one.consistent))
        body += [
            _line(x, high, x, low, "chance"),
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 6 * (one.rows / most) ** 0.5:.1f}" class="dot">'
            f"<title>{one.rows} rows, confidence {one.confidence:.3f}, accuracy {one.accuracy:.3f}</title></circle>",
        ]
    return _svg(_LEFT + _SIDE + 14, _TOP + _SIDE + 52, title, body)
