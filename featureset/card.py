"""The card of a feature set: its README, for people and for data hubs."""

from sgfd.featureset.manifest import TABLE, Manifest


def card(manifest: Manifest) -> str:
    """Markdown with a YAML head that data hubs read."""
    rows = "\n".join(
        f"| {m.name} | {m.source_dimension} | {m.dimension} | {m.coverage:.1%} | "
        f"{'unit' if m.normalised else 'as they come'} |"
        for m in manifest.modalities
    )
    quality = "\n".join(_quality_lines(manifest.quality)) or "- none recorded"
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
{manifest.seed}) on {manifest.created}. It holds no user and no interaction.{_guided(manifest)}

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

{_student_lines(manifest)}
`manifest.json` has the settings, the fingerprints of the inputs and the sha256 of every file.

## Quality

{quality}
"""


def _guided(manifest: Manifest) -> str:
    """Which interactions guided the features, and what follows for whoever evaluates on them."""
    use = manifest.interactions
    if use is None:
        return ""
    return (
        f"\n{use.pairs} training interactions guided it: those of split `{use.split}`, seed "
        f"{use.split_seed}, protocol `{use.protocol}`.\nJudge it on pairs that are not among them."
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
