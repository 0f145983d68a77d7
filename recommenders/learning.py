"""From prepared inputs to a trained backbone."""

import time
from collections.abc import Callable
from dataclasses import replace

from sgfd.jobs import Checkpoint, WorkFolder, seed_everything
from sgfd.recommenders.backbone import Backbone, BackboneSettings
from sgfd.recommenders.evaluation import judge
from sgfd.recommenders.inputs import make_inputs
from sgfd.recommenders.newcomers import KnownItems
from sgfd.recommenders.preparation import Prepared
from sgfd.recommenders.protocols import SplitSets
from sgfd.recommenders.ranking import rank_by_model, rank_by_shortlist
from sgfd.recommenders.training import TrainingState, fit


def learn(
    prepared: Prepared,
    settings: BackboneSettings,
    seed: int,
    checkpoint: WorkFolder | Checkpoint,
    *,
    epochs: int | None = None,
    watch: Callable[[TrainingState], None] | None = None,
) -> tuple[Backbone, TrainingState]:
    """Build the backbone and train it, where there is anything to train.

    Args:
        epochs: train for exactly so many and keep the last weights; where None, the epoch is
            chosen by Recall@20 on the part that the protocol says.
        watch: told of the state after each epoch whose Recall@20 is known.

    Raises:
        DivergenceError: the loss is no longer finite.
        KeyboardInterrupt: interrupted; the same call goes on from the checkpoint.
    """
    seed_everything(seed)
    kind, sets = prepared.kind, prepared.sets
    inputs = make_inputs(sets.train, prepared.features, prepared.device)
    if not kind.trained:
        start = time.perf_counter()
        model = kind(inputs, settings).to(prepared.device)
        return model, TrainingState(epoch=0, step=0, seconds=time.perf_counter() - start)
    growing = None
    if sets.split != "given" and kind.scores_new_items and prepared.features:
        growing = KnownItems(kind, inputs, settings)
        learner, inputs = growing.learner, growing.inputs
    else:
        learner = kind(inputs, settings).to(prepared.device)

    def current() -> Backbone:
        return learner if growing is None else growing.with_new()

    if epochs is None:
        state = fit(
            learner,
            inputs,
            settings,
            seed,
            checkpoint,
            lambda _: chosen_by(current(), sets),
            watch,
        )
    else:
        state = fit(learner, inputs, replace(settings, epochs=epochs), seed, checkpoint, None)
    return current(), state


def chosen_by(model: Backbone, split: SplitSets) -> float:
    """Recall@20 on the part that the protocol chooses the model on."""
    part = split.chosen_on
    rank = (
        rank_by_model(model)
        if model.shortlist is None
        else rank_by_shortlist(model, model.shortlist)
    )
    candidates = split.candidates(part)
    judgement = judge(
        rank, split.seen_before(part), split.to_judge(part), (20,), candidates=candidates
    )
    return judgement.metrics["recall@20"]
