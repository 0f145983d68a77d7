"""The report as one page: no network, readable on a phone, usable from the keyboard."""

import math
from collections.abc import Sequence
from html import escape

from sgfd.recommenders.comparison.results import Comparison
from sgfd.recommenders.comparison.statistics import Contrast, interval_text, p_text
from sgfd.recommenders.comparison.summary import (
    HOW_REFIT,
    HOW_SHOWN,
    HOW_TUNED,
    MEANINGS,
    TUNING_HEAD,
    Row,
    answers,
    described,
    further,
    further_words,
    how_made,
    in_words,
    measured,
    protocol_rows,
    refitted,
    rows_of,
    split_words,
    tuning_rows,
)

Shown = str | tuple[float, str] | None  # a number is given with how it is written

LINE = 36  # height of a plot's row: its name, and its marks below it
MARGIN, WIDTH = 12, 400  # of a plot, narrow enough to be read on a phone
MARKS = {"better": "▲", "worse": "▼", "not shown": "○"}

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#c9ced6;--soft:#f2f4f7;
--better:#11663a;--worse:#a3231c;--open:#59616d;--dot:#2458b3}
@media(prefers-color-scheme:dark){:root{--ink:#e7eaee;--paper:#14171b;--line:#454c56;--soft:#1f242b;
--better:#63d297;--worse:#ff8f85;--open:#aab2bd;--dot:#8fb6ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;font:1rem/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
.skip{position:absolute;left:-99rem}.skip:focus{position:static}
.scroll{overflow-x:auto;margin:1rem 0;border:1px solid var(--line)}
:focus-visible{outline:3px solid var(--dot);outline-offset:1px}
table{border-collapse:collapse;width:100%;overflow-wrap:normal}
caption{text-align:left;padding:.4rem .6rem;font-weight:600}
th,td{text-align:left;padding:.3rem .6rem;border-top:1px solid var(--line);white-space:nowrap}
thead th{background:var(--soft)}td.n{text-align:right;font-variant-numeric:tabular-nums}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:0;
cursor:pointer;min-height:1.5rem}
th[aria-sort=ascending] button::after{content:" ▴"}
th[aria-sort=descending] button::after{content:" ▾"}
.better{color:var(--better)}.worse{color:var(--worse)}.open{color:var(--open)}
pre{background:var(--soft);padding:.6rem;overflow-x:auto;white-space:pre-wrap}
select{font:inherit;padding:.2rem}svg{display:block;max-width:34rem;width:100%;height:auto}
figure{margin:1rem 0}figcaption{font-weight:600}
svg text{font-size:14px;fill:currentColor}
@media(max-width:28rem){svg text{font-size:17px}} /* 14px and more when drawn smaller */
"""

SCRIPT = """
for(const b of document.querySelectorAll('th button'))b.addEventListener('click',()=>{
const th=b.parentElement,t=th.closest('table'),i=[...th.parentElement.children].indexOf(th);
const up=th.getAttribute('aria-sort')!=='ascending';
for(const o of th.parentElement.children)o.removeAttribute('aria-sort');
th.setAttribute('aria-sort',up?'ascending':'descending');
const k=r=>{const c=r.children[i],v=c.dataset.v;return v===undefined?c.textContent:+v};
const rows=[...t.tBodies[0].rows].sort((x,y)=>{const a=k(x),c=k(y);
return(typeof a==='number'&&typeof c==='number'?a-c:
String(a).localeCompare(c,undefined,{numeric:true}))*(up?1:-1)});
t.tBodies[0].append(...rows)});
const s=document.getElementById('metric');
s.addEventListener('change',()=>{for(const d of document.querySelectorAll('[data-metric]'))
d.hidden=d.dataset.metric!==s.value});
"""


def page(
    comparison: Comparison, contrasts: Sequence[Contrast], answered: str, metrics: Sequence[str]
) -> str:
    """HTML of the report. `answered`: the metric shown first; `metrics`: those to choose from."""
    shown = measured(comparison, metrics) or [answered]
    title = f"Feature sets compared on {comparison.dataset}"
    failed = comparison.failed()
    places = [(protocol, part) for protocol in comparison.protocols for part in comparison.parts]
    options = "".join(f"<option>{escape(metric)}</option>" for metric in shown)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        '<a class="skip" href="#answer">To the answer</a>',
        f"<header><h1>{escape(title)}</h1>",
        f"<p>{escape(how_made(comparison))} Interactions: ",
        f"sha256 <code>{escape(comparison.fingerprint[:16])}</code>. ",
        f"{escape(split_words(comparison))}</p>",
        f"<p>Made again by:</p><pre>{escape(comparison.command)}</pre></header><main>",
        '<h2 id="answer">In words</h2>',
        _answers(comparison, contrasts, answered),
        "<h2>Figures</h2><p>Means and standard deviations over the seeds, on test. ",
        f'<label>Metric: <select id="metric" autocomplete="off">{options}</select></label></p>',
    ]
    for metric in shown:
        hidden = "" if metric == shown[0] else " hidden"
        parts.append(f'<div data-metric="{escape(metric)}"{hidden}>')
        for protocol, part in places:
            rows = rows_of(comparison, protocol, [metric], part)
            where = f"protocol {protocol}, {described(comparison, part)}"
            parts += [_figures(rows, where, metric), _dots(rows, where, metric)]
            own = [
                c for c in contrasts if (c.protocol, c.part, c.metric) == (protocol, part, metric)
            ]
            parts.append(_forest(own, where, metric))
        parts.append("</div>")
    if contrasts:
        parts.append(f"<h2>Differences from the baseline</h2><p>{escape(HOW_SHOWN)}</p>")
        parts.append(_differences(contrasts))
    if (again := refitted(comparison)).results:
        parts.append(f"<h2>Refit on train and valid</h2><p>{escape(HOW_REFIT)}</p>")
        named = ["backbone", "features", *shown]
        for part in again.parts:
            refits = [_of(row, shown) for row in rows_of(again, "honest", shown, part)]
            parts.append(_table(f"Refit, {described(again, part)}", named, refits))
    if searched := tuning_rows(comparison):
        parts.append(f"<h2>Settings searched</h2><p>{escape(HOW_TUNED)}</p>")
        parts.append(_table("Searched on valid", TUNING_HEAD, searched))
    if {"honest", "paper"} <= set(comparison.protocols):
        names, beside = protocol_rows(comparison)
        parts.append("<h2>What the paper's protocol does to the figures</h2>")
        parts.append(
            _table("Both protocols side by side", ["backbone", "features", *names], beside)
        )
    for heading, extra in further(comparison).items():
        parts.append(f"<h2>{escape(heading)}</h2>")
        for protocol, part in places:
            rows = rows_of(comparison, protocol, extra, part)
            named = ["backbone", "features", *extra]
            caption = f"{heading}, protocol {protocol}, {described(comparison, part)}"
            parts.append(_table(caption, named, [_of(row, extra) for row in rows]))
    parts.append("<h2>Cost</h2>")
    parts += [_costs(comparison, protocol) for protocol in comparison.protocols]
    words = "".join(f"<li>{escape(each)}</li>" for each in MEANINGS)
    parts.append(f"<h2>What the words mean</h2><ul>{words}</ul>")
    if failed:
        cells: list[list[Shown]] = [
            [f"{r.cell.backbone} on {r.cell.features}", r.cell.protocol, str(r.cell.seed), r.error]
            for r in failed
        ]
        head = ["training", "protocol", "seed", "what it said"]
        parts += ["<h2>Failed</h2>", _table("Failed trainings", head, cells)]
    parts.append(f"</main><script>{SCRIPT}</script></body></html>\n")
    return "".join(parts)


def _answers(comparison: Comparison, contrasts: Sequence[Contrast], metric: str) -> str:
    items = [
        f'<li class="{_colour(c.verdict)}">{MARKS[c.verdict]} {escape(in_words(c, contrasts))}</li>'
        for c in answers(comparison, contrasts, metric)
    ]
    items += [f"<li>{escape(words)}</li>" for words in further_words(comparison)]
    return f"<ul>{''.join(items)}</ul>"


def _figures(rows: Sequence[Row], where: str, metric: str) -> str:
    body: list[list[Shown]] = []
    for row in rows:
        seeds = str(row.seeds) + (f" ({row.failed} failed)" if row.failed else "")
        backbone, features, figure = _of(row, [metric])
        body.append([backbone, features, (float(row.seeds), seeds), figure])
    head = ["backbone", "features", "seeds", metric]
    return _table(f"{metric}, {where}", head, body)


def _of(row: Row, metrics: Sequence[str]) -> list[Shown]:
    """A row's names and figures; what isn't there sorts below every number."""
    values = ((row.values[metric], row.figure(metric)) for metric in metrics)
    figures = [(value.mean if value.seeds else -math.inf, text) for value, text in values]
    return [row.backbone, row.features, *figures]


def _differences(contrasts: Sequence[Contrast]) -> str:
    named = ["protocol", "part", "backbone", "features", "against", "metric"]
    head = [*named, "difference", "95 % interval", "p", "shown"]
    rows: list[list[Shown]] = [
        [
            c.protocol,
            c.part,
            c.backbone,
            c.features,
            c.baseline,
            c.metric,
            (c.difference.mean, f"{c.difference.mean:+.4f}"),
            (c.difference.low, interval_text(c.difference)),
            (c.corrected_p, p_text(c.corrected_p)),
            f"{MARKS[c.verdict]} {c.verdict}",
        ]
        for c in contrasts
    ]
    return _table("Paired over users and seeds; p after Holm's correction", head, rows)


def _costs(comparison: Comparison, protocol: str) -> str:
    sizes = {features.label: features.bytes for features in comparison.features}
    head = ["backbone", "features", "epochs", "training s", "peak MB", "features MB"]
    rows: list[list[Shown]] = [
        [
            row.backbone,
            row.features,
            _spent(row, row.epochs, f"{row.epochs:.0f}"),
            _spent(row, row.train_seconds, f"{row.train_seconds:.1f}"),
            _spent(row, row.peak_memory_bytes, f"{row.peak_memory_bytes / 1e6:.0f}"),
            (float(sizes[row.features]), f"{sizes[row.features] / 1e6:.1f}"),
        ]
        for row in rows_of(comparison, protocol, [])
    ]
    return _table(f"Means over the seeds; memory at its peak; protocol {protocol}", head, rows)


def _spent(row: Row, value: float, text: str) -> Shown:
    return (value, text) if row.seeds else (-math.inf, "failed")


def _table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Shown]],
) -> str:
    """A table that its head sorts."""
    columns = "".join(f'<th scope="col"><button>{escape(name)}</button></th>' for name in head)
    body = []
    for row in rows:
        cells = [
            f'<td class="n" data-v="{_number(cell[0])}">{escape(cell[1])}</td>'
            if isinstance(cell, tuple)
            else f"<td>{escape(cell or '')}</td>"
            for cell in row
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    name = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>'
        f"<caption>{name}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _number(value: float) -> str:
    """As JavaScript reads it."""
    return f"{value:.9g}".replace("inf", "Infinity")


def _dots(rows: Sequence[Row], where: str, metric: str) -> str:
    """A dot a seed, a bar at the mean, a line a backbone and feature set."""
    filled = [row for row in rows if row.values[metric].seeds]
    values = [value for row in filled for value in row.values[metric].seeds]
    if not values:
        return ""
    at = _Axis(0.0, max(values) or 1.0)
    marks = []
    for line, row in enumerate(filled):
        y, value = (line + 1) * LINE, row.values[metric]
        marks.append(_label(y, f"{row.backbone} · {row.features}"))
        x = at(value.mean)
        marks.append(
            f'<line x1="{x}" x2="{x}" y1="{y - 7}" y2="{y + 7}" stroke="currentColor" '
            'stroke-width="2"/>'
        )
        marks += [
            f'<circle cx="{at(seed)}" cy="{y}" r="4" fill="var(--dot)" fill-opacity=".75"/>'
            for seed in value.seeds
        ]
    return _plot(f"{metric}: a dot a seed, a bar their mean, {where}", at, len(filled), marks)


def _forest(contrasts: Sequence[Contrast], where: str, metric: str) -> str:
    """Differences with their intervals around 0; the verdict has a colour and a shape."""
    bounded = [c for c in contrasts if abs(c.difference.low) != float("inf")]
    if not bounded:
        return ""
    ends = [end for c in bounded for end in (c.difference.low, c.difference.high)]
    at = _Axis(min(0.0, *ends), max(0.0, *ends))
    baselines = " or ".join(dict.fromkeys(c.baseline for c in bounded))
    legend = ", ".join(f"{mark} {verdict}" for verdict, mark in MARKS.items())
    height = (len(bounded) + 1) * LINE
    zero = (
        f'<line x1="{at(0)}" x2="{at(0)}" y1="6" y2="{height}" stroke="var(--open)" '
        'stroke-dasharray="4"/>'
    )
    marks = [zero]
    for line, c in enumerate(bounded):
        y, colour = (line + 1) * LINE, f"var(--{_colour(c.verdict)})"
        marks += [
            _label(y, f"{c.backbone} · {c.features}"),
            f'<line x1="{at(c.difference.low)}" x2="{at(c.difference.high)}" y1="{y}" y2="{y}" '
            f'stroke="{colour}" stroke-width="2"/>',
            f'<text x="{at(c.difference.mean)}" y="{y + 5}" text-anchor="middle" '
            f'style="fill:{colour}">{MARKS[c.verdict]}</text>',
        ]
    return _plot(
        f"{metric}: difference from {baselines}, 95 % intervals ({legend}), {where}",
        at,
        len(bounded),
        marks,
    )


class _Axis:
    """From values to places in a plot."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high if high > low else low + 1.0

    def __call__(self, value: float) -> str:
        share = (value - self.low) / (self.high - self.low)
        return f"{MARGIN + share * (WIDTH - 2 * MARGIN):.1f}"


def _plot(name: str, at: _Axis, lines: int, marks: Sequence[str]) -> str:
    height = (lines + 2) * LINE
    ends = "".join(
        f'<text x="{at(value)}" y="{height - 8}" text-anchor="{anchor}">{value:.4f}</text>'
        for value, anchor in ((at.low, "start"), (at.high, "end"))
    )
    label = escape(name)
    return (
        f"<figure><figcaption>{label}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
        f"{''.join(marks)}{ends}</svg></figure>"
    )


def _label(y: int, text: str) -> str:
    short = text if len(text) <= 40 else text[:39] + "…"
    full = f"<title>{escape(text)}</title>" if short != text else ""
    return f'<text x="{MARGIN}" y="{y - 12}">{escape(short)}{full}</text>'


def _colour(verdict: str) -> str:
    return "open" if verdict == "not shown" else verdict
