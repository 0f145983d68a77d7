"""The card of a feature set: its README, for people and for data hubs."""

from sgfd.featureset.manifest import ENCODINGS, TABLE, Encoding, Manifest, Modality


def card(manifest: Manifest) -> str:
    """Markdown with a YAML head that data hubs read."""
    rows = "\n".join(
        f"| {m.name} | {m.source_dimension} | {m.dimension} | {m.coverage:.1%} | "
        f"{'unit' if m.normalised else 'as they come'} |"
        for m in manifest.modalities
        if m.encoding is None
    )
    compressed = [m.name for m in manifest.modalities if m.encoding is not None]
    figures = {name: each for name, each in manifest.quality.items() if name not in compressed}
    quality = "\n".join(_quality_lines(figures)) or "- none recorded"
    labels = manifest.labels
    label_line = (
        f"{labels.count} labels, {labels.coverage:.1%} of the items have one" if labels else "none"
    )
    first = manifest.modalities[0].name if manifest.modalities else "image"
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

# Feature set {manifest.name}

Item embeddings of the data set `{manifest.dataset.name}` ({manifest.dataset.n_items} items), made
by `{manifest.method}` with {manifest.producer.name} {manifest.producer.version} (seed
{manifest.seed}) on {manifest.created}. It holds no user and no interaction.{_origin(manifest)}

| modality | generic width | distilled width | items with it | norm |
| --- | --- | --- | --- | --- |
{rows}

Labels: {label_line}.

## How to read it

```python
import pandas as pd

features = pd.read_parquet("{TABLE}")  # item_id, item_index, label, one column a modality
```

```python
import numpy as np

{first} = np.load("{first}.npy", mmap_mode="r")  # row = item_index, NaN where lacking
```

{_compressed_lines(manifest)}{_neighbour_lines(manifest)}{_student_lines(manifest)}
`manifest.json` has the settings, the fingerprints of the inputs and the sha256 of every file.

## Quality

{_measured_on(manifest)}{quality}
"""


def _origin(manifest: Manifest) -> str:
    return _guided(manifest) + _derived(manifest)


def _guided(manifest: Manifest) -> str:
    """Which interactions guided the features, and what follows for whoever evaluates on them."""
    use = manifest.interactions
    if use is None:
        return ""
    return (
        f"\n{use.pairs} training interactions guided it: those of split `{use.split}`, seed "
        f"{use.split_seed}, protocol `{use.protocol}`.\nJudge it on pairs that are not among them."
    )


def _derived(manifest: Manifest) -> str:
    """Which rows are another set's, and which its student made."""
    origin = manifest.derived_from
    if origin is None:
        return ""
    made = f"from the catalogue `{origin.catalogue.name}` by the student of `{origin.name}` alone"
    if not origin.kept:
        return f"\nIts rows were made {made}."
    return (
        f"\nThe first {origin.kept} rows are those of `{origin.name}`, "
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


def _quality_lines(figures: dict[str, object], prefix: str = "") -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += _quality_lines(value, f"{prefix}{name}, ")
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else value
            lines.append(f"- {prefix}{name}: {shown}".replace("_", " "))
    return lines


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
