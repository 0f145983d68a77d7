"""SGFD's losses have the values of their formulas, and its networks the paper's shapes."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from sgfd.dataset import load_dataset
from sgfd.distill.losses import feature_loss, response_loss, semantic_loss
from sgfd.distill.networks import Classifier, Fusion, Student, Teacher, teacher_widths
from sgfd.distill.settings import PRESETS, SGFDSettings
from sgfd.distill.sgfd import SGFD, ItemBatch, ItemReader
from sgfd.distill.streaming import column_statistics

LOG3 = math.log(3)


def test_semantic_loss_is_the_cross_entropy_of_the_labelled_items():
    logits = torch.tensor([[LOG3, 0.0], [0.0, 0.0], [9.0, -9.0]])  # softmax: 3/4, 1/2, ...
    labels = torch.tensor([0, 1, -1])
    expected = (-math.log(3 / 4) - math.log(1 / 2)) / 2
    assert semantic_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_semantic_loss_of_nothing_labelled_is_zero():
    assert semantic_loss(torch.randn(3, 2), torch.full((3,), -1)).item() == 0
    assert semantic_loss(torch.empty(0, 2), torch.empty(0, dtype=torch.int64)).item() == 0


def test_response_loss_l1_by_hand():
    teacher = torch.tensor([[2 * LOG3, 0.0]])  # at temperature 2: 3/4, 1/4
    student = torch.tensor([[0.0, 0.0]])  # 1/2, 1/2
    assert response_loss(teacher, student, 2.0, "l1").item() == pytest.approx(1 / 4, rel=1e-6)


def test_response_loss_kl_by_hand():
    teacher, student = torch.tensor([[2 * LOG3, 0.0]]), torch.tensor([[0.0, 0.0]])
    divergence = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    got = response_loss(teacher, student, 2.0, "kl").item()
    assert got == pytest.approx(4 * divergence, rel=1e-6)


def test_feature_loss_by_hand():
    got = feature_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert got.item() == 1.0


@pytest.mark.parametrize("kind", ["l1", "kl"])
def test_gradients_agree_with_finite_differences(kind):
    torch.manual_seed(0)
    teacher = torch.randn(4, 3, dtype=torch.float64)
    student = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, -1, 1])
    assert torch.autograd.gradcheck(lambda s: response_loss(teacher, s, 3.0, kind), student)
    assert torch.autograd.gradcheck(lambda s: feature_loss(teacher, s), student)
    assert torch.autograd.gradcheck(lambda s: semantic_loss(s, labels), student)


def test_the_student_does_not_drag_the_teacher():
    teacher = torch.randn(4, 3, requires_grad=True)
    student = torch.randn(4, 3, requires_grad=True)
    (response_loss(teacher, student, 2.0, "l1") + feature_loss(teacher, student)).backward()
    assert teacher.grad is None
    assert student.grad is not None


@pytest.mark.parametrize(
    ("source", "widths"),
    [
        (4096, [4096, 1024, 256, 128]),
        (384, [384, 128]),
        (1280, [1280, 320, 128]),
        (64, [64, 128]),
        (513, [513, 128]),
        (520, [520, 130, 128]),
    ],
)
def test_the_teacher_divides_its_width_by_four(source, widths):
    assert teacher_widths(source, 128) == widths


@pytest.mark.parametrize("network", [Teacher(40, 4), Student(40, 4), Teacher(40, 4, "none")])
def test_both_end_on_the_unit_sphere(network):
    norms = network(torch.randn(9, 40)).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(9))


def test_a_classifier_s_logits_are_scaled_cosines():
    classifier = Classifier(5, 3, scale=16.0)
    unit = torch.nn.functional.normalize(torch.randn(2, 5), dim=1)
    directions = torch.nn.functional.normalize(classifier.directions, dim=1)
    torch.testing.assert_close(classifier(unit), 16 * unit @ directions.T)


def test_the_fusion_takes_all_modalities_side_by_side():
    assert Fusion(3, 4, 7, 16.0)(torch.randn(2, 12)).shape == (2, 7)


def test_presets_are_the_authors_commands():
    assert SGFDSettings(**PRESETS["office"]) == SGFDSettings(
        ce_weight=0.1, kd_weight=0.01, temperature=50
    )
    assert PRESETS["clothing-grcn"] == {"ce_weight": 1e-2, "kd_weight": 1e-2, "temperature": 100}
    assert len(PRESETS) == 12


@pytest.mark.parametrize(
    "wrong",
    [
        {"dimension": 0},
        {"kd_weight": 0},
        {"temperature": -1},
        {"learning_rate": math.inf},
        {"held_out_share": 0.9},
        {"response_loss": "l2"},
        {"epohcs": 3},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        SGFDSettings(**wrong)


def test_every_setting_says_what_it_is():
    schema = TypeAdapter(SGFDSettings).json_schema()["properties"]
    assert set(schema) == {field.name for field in fields(SGFDSettings)}
    assert all(entry["description"].endswith(".") for entry in schema.values())


@pytest.mark.parametrize(("kind", "temperature"), [("l1", 1), ("l1", 7), ("kl", 1), ("kl", 7)])
def test_response_loss_agrees_with_numpy(kind, temperature, rng):
    teacher, student = rng.normal(size=(2, 5, 4)) * 3
    p, q = (np.exp(z / temperature) for z in (teacher, student))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    expected = {
        "l1": np.abs(p - q).mean(),
        "kl": temperature**2 * (p * np.log(p / q)).sum(axis=1).mean(),
    }
    got = response_loss(torch.from_numpy(teacher), torch.from_numpy(student), temperature, kind)
    assert got.item() == pytest.approx(expected[kind], rel=1e-9)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SGFD({"image": 10, "text": 6}, 3, SGFDSettings(dimension=4))


def batch(labels, image_present, text_present):
    torch.manual_seed(1)
    n = len(labels)
    rows = {"image": torch.randn(n, 10), "text": torch.randn(n, 6)}
    present = {"image": torch.tensor(image_present), "text": torch.tensor(text_present)}
    return ItemBatch(rows, present, torch.tensor(labels))


def test_an_unlabelled_item_is_distilled_but_adds_nothing_semantic(model):
    three = batch([0, 1, -1], [True] * 3, [True] * 3)
    with_it = model.loss(three)
    without = model.loss(batch([0, 1, 2], [True] * 3, [True] * 3))
    first_two = ItemBatch(
        {name: rows[:2] for name, rows in three.rows.items()},
        {name: present[:2] for name, present in three.present.items()},
        three.labels[:2],
    )
    only_two = model.loss(first_two)
    for part in ("semantic", "fusion"):
        torch.testing.assert_close(with_it[part], only_two[part])
    for part in ("response", "feature"):
        torch.testing.assert_close(with_it[part], without[part])
        assert not torch.isclose(with_it[part], only_two[part])


def test_a_lacking_modality_takes_no_part_whatever_its_row_holds(model):
    clean = batch([0, 1, 2], [True, False, True], [True] * 3)
    wild = batch([0, 1, 2], [True, False, True], [True] * 3)
    wild.rows["image"][1] = 1e6
    for part, value in model.loss(clean).items():
        torch.testing.assert_close(model.loss(wild)[part], value)


def gradients(model, items):
    model.zero_grad()
    sum(model.loss(items).values()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_lacking_modality_leaves_no_trace_in_any_gradient(model):
    clean = batch([0, 1, 2], [True, False, True], [True] * 3)
    wild = batch([0, 1, 2], [True, False, True], [True] * 3)
    wild.rows["image"][1] = torch.nan
    expected = gradients(model, clean)
    for name, gradient in gradients(model, wild).items():
        assert torch.equal(gradient, expected[name]), name


def test_what_one_modality_lacks_changes_nothing_in_the_other(model):
    full = gradients(model, batch([0, 1, 2], [True] * 3, [True] * 3))
    lacking = gradients(model, batch([0, 1, 2], [False] * 3, [True] * 3))
    place = model.names.index("text")
    students = [name for name in full if name.startswith(f"networks.{place}.student.")]
    assert len(students) == 2
    assert all(torch.equal(full[name], lacking[name]) for name in students)


def test_gradients_are_finite_on_a_catalogue_with_gaps():
    catalog = load_dataset("sample").catalog
    assert any(not feature.present.all() for feature in catalog.features.values())
    statistics = {name: column_statistics(f) for name, f in catalog.features.items()}
    reader = ItemReader(catalog, statistics, torch.device("cpu"))
    widths = {name: feature.dimension for name, feature in catalog.features.items()}
    sgfd = SGFD(widths, len(catalog.label_names), SGFDSettings(dimension=8))
    for gradient in gradients(sgfd, reader.read(np.arange(catalog.n_items))).values():
        assert torch.isfinite(gradient).all()


def test_a_batch_without_a_modality_at_all_is_fine(model):
    loss = sum(model.loss(batch([0, 1, 2], [False] * 3, [True] * 3)).values())
    loss.backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in found)


def test_gradients_reach_every_parameter(model):
    sum(model.loss(batch([0, 1, 2], [True] * 3, [True] * 3)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_total_is_weighted_as_the_method_says():
    torch.manual_seed(0)
    plain = SGFD({"image": 10}, 3, SGFDSettings(dimension=4))
    torch.manual_seed(0)
    weighted = SGFD({"image": 10}, 3, SGFDSettings(dimension=4, ce_weight=2, kd_weight=5))
    rows = batch([0, 1, 2], [True] * 3, [True] * 3)
    one, other = plain.loss(rows), weighted.loss(rows)
    ratios = {name: (other[name] / one[name]).item() for name in one}
    assert ratios == pytest.approx({"semantic": 2, "fusion": 2, "response": 5, "feature": 5})
    assert np.isclose(sum(other.values()).item(), sum(ratios[n] * one[n].item() for n in one))
