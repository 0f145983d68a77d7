"""One pass over a modality: its statistics, and the student as one product a block."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sgfd.dataset import Feature
from sgfd.distill.networks import Student
from sgfd.distill.streaming import (
    Embedder,
    Standardisation,
    a_core_for_writing,
    column_statistics,
    covariance,
)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    block_rows=st.integers(1, 60),
    offset=st.sampled_from([0, 1, 1e3, -1e6]),
    scale=st.sampled_from([1e-3, 1, 1e4]),
)
def test_streamed_statistics_are_those_of_the_whole_matrix(seed, block_rows, offset, scale):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(57, 4)) * scale + offset * scale).astype(np.float32)
    values[rng.random(57) < 0.2] = np.nan
    got = column_statistics(Feature.from_array("x", values), block_rows)
    present = values[~np.isnan(values[:, 0])].astype(np.float64)
    np.testing.assert_allclose(got.mean, present.mean(axis=0), rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(got.scale, present.std(axis=0), rtol=1e-5)


def test_statistics_survive_an_offset_that_eats_the_digits_of_squares():
    values = np.tile(np.array([[2.0**24], [2.0**24 + 2]], np.float32), (500, 1))
    got = column_statistics(Feature.from_array("x", values), 7)
    assert got.mean[0] == 2.0**24 + 1 or got.mean[0] == 2.0**24  # float32 has no more digits
    assert got.scale[0] == 1


@pytest.mark.parametrize("constant", [0.0, 7.0, 0.1, -1e6, 1e30, 1e-42])
def test_a_constant_column_gets_scale_one(constant):
    values = np.full((1000, 1), constant, np.float32)
    assert column_statistics(Feature.from_array("x", values), 33).scale[0] == 1


def test_items_that_lack_the_modality_do_not_count(rng):
    values = rng.normal(size=(40, 3)).astype(np.float32)
    full = column_statistics(Feature.from_array("x", values[10:]))
    values[:10] = np.nan
    with_gaps = column_statistics(Feature.from_array("x", values), 7)
    np.testing.assert_allclose(with_gaps.mean, full.mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(with_gaps.scale, full.scale, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e3, 1e6, 1e25])
def test_rows_that_outlie_all_others_do_not_count(rng, factor):
    values = rng.normal(size=(40, 3)).astype(np.float32)
    rest = column_statistics(Feature.from_array("x", values[2:]))
    values[:2] *= factor
    values[5] = np.nan
    feature = Feature.from_array("x", values)
    assert feature.outlying.tolist() == [0, 1]
    assert feature.present.sum() == 39
    got = column_statistics(feature, 7)
    there = np.delete(values, [0, 1, 5], axis=0).astype(np.float64)
    np.testing.assert_allclose(got.mean, there.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.scale, there.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(got.scale, rest.scale, rtol=0.2)
    device = torch.device("cpu")
    expected = np.cov((there - got.mean) / got.scale, rowvar=False, bias=True)
    np.testing.assert_allclose(covariance(feature, got, device).matrix, expected, atol=1e-6)


def test_what_many_rows_are_is_no_outlier(rng):
    prices = np.where(np.arange(300) < 160, 1, 1000).astype(np.float32)[:, None]
    assert not len(Feature.from_array("x", prices).outlying)
    np.testing.assert_allclose(
        column_statistics(Feature.from_array("x", prices)).scale, prices.std()
    )
    values = rng.normal(size=(300, 4)).astype(np.float32)
    values[:4] *= 1e4
    assert not len(Feature.from_array("x", values).outlying)  # over one in a hundred
    values[3] /= 1e4
    assert Feature.from_array("x", values).outlying.tolist() == [0, 1, 2]


@given(offset=st.sampled_from([0, 1, 15, 17, 1e3, 1e6]), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_the_folded_student_is_the_student_on_standardised_rows(offset, seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    student = Student(20, 6)
    rows = (rng.normal(size=(9, 20)) * 3 + offset).astype(np.float32)
    rows[4] = np.nan
    mean, scale = np.full(20, offset, np.float32), np.full(20, 3, np.float32)
    got = Embedder(student, Standardisation(mean, scale), torch.device("cpu"))(rows)
    with torch.inference_mode():
        standardised = torch.from_numpy((rows - mean) / scale)
        expected = student(standardised).numpy()
        # A short vector's rounding error grows as it is brought to norm 1.
        norm = functional.leaky_relu(student.linear(standardised)).norm(dim=1, keepdim=True)
    np.testing.assert_allclose(got * norm.numpy(), expected * norm.numpy(), atol=1e-5)
    assert np.isnan(got).all(axis=1).tolist() == [i == 4 for i in range(9)]


def test_embedding_leaves_its_input_as_it_is(rng):
    rows = rng.normal(size=(9, 20)).astype(np.float32) + 100
    before = rows.copy()
    standardisation = Standardisation(np.full(20, 100, np.float32), np.ones(20, np.float32))
    Embedder(Student(20, 6), standardisation, torch.device("cpu"))(rows)
    np.testing.assert_array_equal(rows, before)


def test_writing_gets_a_core_for_a_while():
    torch.set_num_threads(3)
    with a_core_for_writing():
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    with a_core_for_writing():
        assert torch.get_num_threads() == 1
