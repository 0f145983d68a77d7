"""The Python API answers a slip as the command line does: one line, what to do in it."""

import pytest

from sgfd import recommenders
from sgfd.dataset import load_dataset
from sgfd.distill import SGFDPlusSettings, distill, embed
from sgfd.jobs import JobError

SAMPLE = load_dataset("sample")
NAMED = {
    "train, a data set's": lambda to: recommenders.train("sample", "bm3", runs_root=to),
    "train, a set's": lambda to: recommenders.train(SAMPLE, "bm3", "demo", runs_root=to),
    "distill": lambda to: distill("sample", to / "x"),
    "embed": lambda to: embed("demo", SAMPLE, to / "x"),
    "new items": lambda to: recommenders.with_new_items(None, "demo"),
}


@pytest.mark.parametrize("call", NAMED.values(), ids=NAMED)
def test_a_name_in_place_of_what_it_names_is_refused(call, tmp_path):
    thing = (
        r"(dataset 'sample': is no Dataset; give dataset.load_dataset|features 'demo': is no Fea)"
    )
    with pytest.raises(JobError, match=thing):
        call(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_history_of_no_item_teaches_nothing_and_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        SGFDPlusSettings(history=1)
