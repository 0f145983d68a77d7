"""The card of a feature set: its README, for people and for data hubs."""

import re
from typing import Any

from sgfd.featureset.manifest import ENCODINGS, MAP, TABLE, Encoding, Manifest, Modality
from sgfd.featureset.picture import Picture

MADE = {"made": "this set"}
WORDS = {
    "neighbour agreement": "how often the nearest other item has the same label; higher is better.",
    "neighbours kept": "share of the 10 nearest by generic features that are so here, too.",
    "effective rank": "how many directions are in use; higher is richer.",
    "uniformity": "lower is more evenly spread over the sphere.",
    "alignment": "mean squared distance of items that a user had both of; lower is closer.",
    "majority accuracy": "of always guessing the most frequent label, for any item: the floor.",
    "fidelity": "mean cosine of student and teacher (of sgfd-plus: the closed form it starts at).",
    "tuned on held out and valid": "of the search that chose the settings, by training and valid "
    "interactions of items left out, when the set was made; test had no part in it.",
    "held out recall@20": "share of a user's items among the 20 nearest to his others, where a fit "
    "of its own had left these items out; closed form is the start of student; raw is generic with "
    "its columns as they are; what is given at its best epoch was chosen by these very items, so a "
    "little high; higher is better.",
    "debiased": "popularity was left to the loss, as held-out items were found better so: their "
    "figure is the better of two, so a little high.",
}


def card(manifest: Manifest, picture: Picture | None = None) -> str:
    """Markdown with a YAML head that data hubs read."""
    return f"""---
pretty_name: {_yaml(manifest.name)}
tags:
- recommendation
- item-embeddings
- sgfd-feature-set
configs:
- config_name: default
  data_files: {TABLE}
---

# Feature set {_plain(manifest.name)}

Item embeddings of the data set `{manifest.dataset.name}` ({manifest.dataset.n_items} items), made
by `{manifest.method}` with {manifest.producer.name} {manifest.producer.version} on
{manifest.created}. It holds no user and no interaction.

{_map_lines(manifest, picture)}## What is in it

| modality | generic width | distilled width | items with it | norm |
| --- | --- | --- | --- | --- |
{_modality_rows(manifest)}

{_label_line(manifest)}

## How it was made

{_making(manifest)}

## How to read it

{_reading(manifest)}
{_compressed_lines(manifest)}{_neighbour_lines(manifest)}{_student_lines(manifest)}
`manifest.json` has the settings, the fingerprints of the inputs and the sha256 of every file;
`croissant.json` describes the files to whatever reads Croissant.

## Quality

{_measured_on(manifest)}{_quality(manifest)}

## Limits

{_limits(manifest)}

## Licence and contact

{_terms(manifest)}
"""


def _map_lines(manifest: Manifest, picture: Picture | None) -> str:
    if picture is None:
        return ""
    entries = [f"{square} {_plain(label)} ({count})  " for square, label, count in picture.legend]
    if picture.legend:
        entries.append("the rest in grey  ")
    legend = "\n".join(entries)
    dots = f"{picture.dots} of {manifest.dataset.n_items}"
    by = " and ".join(manifest.usual_modalities)
    return f"""![Map of the items, a dot each]({MAP})

A dot is an item ({dots}), its place the first two principal components of {by}.
{legend}

"""


def _modality_rows(manifest: Manifest) -> str:
    return "\n".join(
        f"| {m.name} | {m.source_dimension} | {m.dimension} | {m.coverage:.1%} | "
        f"{'unit' if m.normalised else 'as they come'} |"
        for m in manifest.plain
    )


def _label_line(manifest: Manifest) -> str:
    labels = manifest.labels
    if labels is None:
        return "Labels: none."
    return f"Labels: {labels.count} labels, {labels.coverage:.1%} of the items have one."


def _reading(manifest: Manifest) -> str:
    """Four lines each of pandas, numpy, torch and this project, for the folder that holds them."""
    usual = manifest.usual_modalities
    first = next((m for m in manifest.modalities if m.name in usual), None)
    if first is None:
        return "It has no modality."
    old = ""
    if any(m.coverage < 1 for m in manifest.modalities):
        old = (
            "\n\npyarrow before 26 can't read a column of lists that some items lack: there "
            "`columns=` the others, and the `.npy` files."
        )
    return f"""Each of these works in the folder of the set.{old}

```python
import pandas as pd

features = pd.read_parquet("{TABLE}")  # item_id, item_index, label, one column a modality
rows = features.set_index("item_id")["{first.name}"].dropna()
```

```python
import numpy as np

rows = np.load("{first.file}", mmap_mode="r")  # row = item_index, NaN where lacking
present = ~np.isnan(rows[:, 0])
```

```python
import numpy as np, torch

rows = torch.from_numpy(np.load("{first.file}")).nan_to_num()  # zeros where lacking
embedding = torch.nn.Embedding.from_pretrained(rows)  # frozen; index = item_index
```

```python
from sgfd import featureset

features = featureset.load(".")  # checked; `pipeline features verify` checks all
rows, item_ids = features.modalities["{first.name}"], features.item_ids
```
"""


def _quality(manifest: Manifest) -> str:
    """Figures that generic features have too as a table, the others as a list."""
    compressed = {m.name for m in manifest.modalities if m.encoding is not None}
    figures = {name: each for name, each in manifest.quality.items() if name not in compressed}
    beside, others = _parted(figures)
    parts = []
    if beside:
        kinds = list(dict.fromkeys(kind for values in beside.values() for kind in values))
        kinds.sort(key=lambda kind: kind != "generic")
        heads = [MADE.get(kind, kind.replace("_", " ")) for kind in kinds]
        rows = [f"| | {' | '.join(heads)} |", "| --- |" + " --- |" * len(kinds)]
        for name, values in beside.items():
            shown = [_share(values[kind]) if kind in values else "" for kind in kinds]
            rows.append(f"| {name} | {' | '.join(shown)} |")
        parts.append("Beside the generic features that it was made from:\n\n" + "\n".join(rows))
    if lines := _quality_lines(others):
        parts.append("\n".join(lines))
    known = {name for figures in (beside, others) for name in _names(figures)}
    words = [f"- {name}: {text}" for name, text in WORDS.items() if name in known]
    if words:
        parts.append("\n".join(words))
    return "\n\n".join(parts) or "None recorded."


def _parted(
    figures: dict[str, Any], prefix: str = ""
) -> tuple[dict[str, dict[str, float | None]], dict[str, Any]]:
    """Figures of several kinds of features, generic ones among them, by name; and all others."""
    beside: dict[str, dict[str, float | None]] = {}
    others: dict[str, Any] = {}
    for name, value in figures.items():
        full = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict) and "generic" in value:
            beside[full] = value
        elif isinstance(value, dict):
            inner, left = _parted(value, f"{full}, ")
            beside |= inner
            others |= left
        else:
            others[full] = value
    return beside, others


def _names(figures: dict[str, Any]) -> set[str]:
    return {part for name in figures for part in name.split(", ")}


def _limits(manifest: Manifest) -> str:
    """What whoever uses it should know first."""
    limits = [
        f"{1 - m.coverage:.1%} of the items lack `{m.name}`: NaN in the `.npy`, null in the table."
        for m in manifest.plain
        if m.coverage < 1
    ]
    if manifest.interactions is not None:
        limits.append(
            f"It saw {manifest.interactions.pairs} interactions. A recommender that is judged on "
            "any of these looks better than it is."
        )
    if manifest.student is None:
        limits.append("Items that come later can't be embedded: there is no student.")
    else:
        limits.append(
            "Later items are embedded by its student, from generic features of the same kind: the "
            "same encoder, the same preprocessing."
        )
    if manifest.quality:
        limits.append("The figures are of one training with one seed, on a sample of the items.")
    limits.append(
        "What the generic features miss or distort, these do too: they are made from nothing else"
        + (" but the interactions." if manifest.interactions else ".")
    )
    return "\n".join(f"- {limit}" for limit in limits)


def _terms(manifest: Manifest) -> str:
    licence = (
        f"Licence: {_plain(manifest.licence)}."
        if manifest.licence
        else "No licence is stated: ask before you pass it on."
    )
    contact = (
        f"Contact: {_plain(manifest.contact)}." if manifest.contact else "No contact is stated."
    )
    return f"{licence} {contact}"


def _plain(text: str) -> str:
    """Text from data as Markdown that means nothing but these characters."""
    return re.sub(r"([\\`*_\[\]<|#!~$]|&(?=[#\w]))", r"\\\1", " ".join(text.split()))


def _making(manifest: Manifest) -> str:
    settings = ", ".join(f"`{name}` {value}" for name, value in manifest.settings.items())
    lines = [
        f"Method `{manifest.method}`, seed {manifest.seed}, settings: {settings or 'none'}.",
        _guided(manifest),
        _derived(manifest),
        f"The catalogue's sha256 is `{manifest.dataset.fingerprints.catalogue}`.",
    ]
    return "\n".join(line for line in lines if line)


def _guided(manifest: Manifest) -> str:
    """Which interactions guided the features, and what follows for whoever evaluates on them."""
    use = manifest.interactions
    if use is None:
        return ""
    return (
        f"{use.pairs} training interactions guided it: those of split `{use.split}`, seed "
        f"{use.split_seed}, protocol `{use.protocol}`.\nJudge it on pairs that are not among them."
    )


def _derived(manifest: Manifest) -> str:
    """Which rows are another set's, and which its student made."""
    origin = manifest.derived_from
    if origin is None:
        return ""
    made = f"from the catalogue `{origin.catalogue.name}` by the student of `{origin.name}` alone"
    if not origin.kept:
        return f"Its rows were made {made}."
    return (
        f"The first {origin.kept} rows are those of `{origin.name}`, "
        f"the other {origin.added} were made\n{made}."
    )


def _measured_on(manifest: Manifest) -> str:
    origin = manifest.derived_from
    if origin is None:
        return ""
    made_from = f"{origin.trained_on.n_items} items of `{origin.trained_on.name}`"
    return (
        f"That of the student on the {made_from} from which it was made; that of compressed "
        "modalities\non the rows here.\n\n"
    )


def _student_lines(manifest: Manifest) -> str:
    student = manifest.student
    if student is None:
        return "It has no student: new items need the method itself."
    inputs = "unit((x - mean) / scale)" if student.input_normalised else "((x - mean) / scale)"
    linear = f"W {inputs} + b"
    formula = linear if student.negative_slope == 1 else f"leaky_relu({linear})"
    end = ", to unit norm." if student.normalised else "."
    lines = [f"`{student.file}` embeds new items: `{formula}`{end}"]
    lines += [
        f"`{modality.name}` sums them, before the norm, over those of "
        f"{', '.join(modality.parts)} that an item has."
        for modality in manifest.modalities
        if modality.parts
    ]
    return "\n".join(lines)


def _compressed_lines(manifest: Manifest) -> str:
    """What each compressed modality loses, and how it is decoded."""
    rows, formulas = [], []
    for modality in manifest.modalities:
        encoding = modality.encoding
        if encoding is None:
            continue
        lost = manifest.quality.get(modality.name, {})
        cosine, kept = (_share(lost.get(key)) for key in ("mean_cosine", "neighbours_kept@10"))
        size = modality.bytes_an_item
        rows.append(f"| {modality.name} | {encoding.of} | {size} | {cosine} | {kept} |")
        norm = ", to unit norm" if modality.normalised else ""
        formulas.append(f"- `{modality.name}` ({modality.stored_type}): x = {_formula(modality)}")
        formulas[-1] += f"{norm}; lacking where {_lacking(encoding)}."
    if not rows:
        return ""
    table, how = "\n".join(rows), "\n".join(formulas)
    return f"""Compressed modalities hold numbers q, in a `.npy` and a Parquet column of their own,
which stand for the numbers x of another modality; the column is null where an item lacks it.
The tensors of the formulas are in `{ENCODINGS}`.

| modality | of | bytes an item | mean cosine | 10 nearest kept |
| --- | --- | --- | --- | --- |
{table}

{how}

"""


def _lacking(encoding: Encoding) -> str:
    return "q is NaN" if encoding.file is None else f"`{encoding.of}.present` is false"


def _formula(modality: Modality) -> str:
    encoding = modality.encoding
    assert encoding is not None
    if encoding.kind == "float16":
        return "q"
    if encoding.kind == "int8":
        return f"q * `{modality.name}.scale`"
    return (
        f"the vectors `{modality.name}.codebooks`[m, q_m], m = 0 to {encoding.columns - 1}, "
        f"side by side, the first {modality.dimension} numbers of them"
    )


def _neighbour_lines(manifest: Manifest) -> str:
    neighbours = manifest.neighbours
    if neighbours is None:
        return ""
    several = len(neighbours.modalities) > 1
    mean = ", their mean, 0 where one of them is lacking" if several else ""
    return f"""```python
nearest = pd.read_parquet("{neighbours.file}")  # item_id, neighbour_id, similarity
```

Every item's {neighbours.k} nearest others, the most similar first, by the cosine of
{", ".join(neighbours.modalities)}{mean}.

"""


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _quality_lines(figures: dict[str, Any]) -> list[str]:
    return [
        f"- {name}: {f'{value:.4f}' if isinstance(value, float) else value}"
        for name, value in figures.items()
    ]


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
