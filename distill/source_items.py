"""What a catalogue knows of the items of a feature set that was made from it, or from its like."""

import numpy as np

from sgfd.dataset import Dataset, ItemCatalog
from sgfd.distill.errors import DistillError
from sgfd.distill.streaming import column_statistics
from sgfd.featureset import FeatureSet
from sgfd.featureset.explorer import Generic, SourceItems


def source_items(features: FeatureSet, dataset: Dataset) -> SourceItems:
    """Titles and standardised generic features of a set's items, in the order of its rows.

    Of the modalities those from which the set's usual ones were made, as far as the set tells, else
    all that the catalogue has.

    Raises:
        DistillError: the data set has no items, or none of the set's.
        DatasetError: a feature file is broken.
    """
    catalog = dataset.catalog
    where = f"data set {dataset.name}"
    if catalog is None:
        raise DistillError(where, "has no items", "name the catalogue that the set was made from")
    places = catalog.items.index(features.item_ids)
    if not (places >= 0).any():
        raise DistillError(
            where,
            f"has none of the items of {features.path} (such as {features.item_ids[0]!r})"
            if features.n_items
            else f"has no item of {features.path}, which is empty",
            "name the catalogue that the set was made from",
        )
    titles = None
    if catalog.titles is not None:
        titles = np.array(catalog.titles[places], dtype=object)
        titles[places < 0] = None
    generic = {}
    for name in _sources(features, catalog):
        feature = catalog.features[name]
        _ = feature.present  # refuses a broken row
        columns = column_statistics(feature)
        generic[name] = Generic(feature.values, places, columns.mean, columns.scale)
    return SourceItems(titles, generic)


def _sources(features: FeatureSet, catalog: ItemCatalog) -> list[str]:
    described = {modality.name: modality for modality in features.manifest.modalities}
    usual = [described[name] for name in features.manifest.usual_modalities]
    names = dict.fromkeys(part for each in usual for part in (each.parts or [each.name]))
    return [name for name in names if name in catalog.features] or list(catalog.features)
