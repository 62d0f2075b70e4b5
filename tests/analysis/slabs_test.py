import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import slabs as slabs_lib

_DISTANCES = st.floats(0.3, 3.9)
_COUNTS = st.integers(2, 400)


def _whole(slabs):
  return slice(0, slabs.count)


@hypothesis.given(_COUNTS, _DISTANCES)
def test_slabs_fill_the_height_at_nearly_the_stated_thickness(count, distance_mm):
  slabs = slabs_lib.divide(count, distance_mm, 5.0)
  height_mm = count * distance_mm
  assert slabs.count * slabs.thickness_mm == pytest.approx(height_mm)
  if slabs.count > 1 and slabs.is_averaged:
    assert abs(height_mm / slabs.thickness_mm - height_mm / 5) <= 0.5 + 1e-9
  covered = [slabs.covered(slab) for slab in range(slabs.count)]
  assert covered[0][0] == 0 and covered[-1][-1] == count - 1
  for below, above in zip(covered, covered[1:], strict=False):
    assert above[0] in (below[-1], below[-1] + 1)


@hypothesis.given(_COUNTS, _DISTANCES)
def test_weights_are_overlaps_in_millimetres(count, distance_mm):
  slabs = slabs_lib.divide(count, distance_mm, 5.0)
  edges = np.arange(slabs.count + 1) * slabs.thickness_mm
  for index in range(count):
    low, high = index * distance_mm, (index + 1) * distance_mm
    overlap = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    shares = np.zeros(slabs.count)
    for slab, share in slabs.shares(index):
      shares[slab] = share
    assert shares.sum() == pytest.approx(1, abs=1e-12) and (shares >= 0).all()
    np.testing.assert_allclose(shares, np.maximum(overlap, 0) / distance_mm, atol=1e-9)


@hypothesis.given(_COUNTS, _DISTANCES, st.integers(0, 2**32 - 1))
def test_averages_keep_the_sum_over_the_body(count, distance_mm, seed):
  slabs = slabs_lib.divide(count, distance_mm, 5.0)
  hu = np.random.default_rng(seed).integers(-1024, 3071, (count, 2, 3), np.int16)
  averages = slabs.average(hu, _whole(slabs))
  assert averages.dtype == np.int16 and averages.shape == (slabs.count, 2, 3)
  shares = np.zeros((count, slabs.count))
  for index in range(count):
    for slab, share in slabs.shares(index):
      shares[index, slab] = share
  expected = shares.T @ hu.reshape(count, -1) / shares.sum(axis=0)[:, np.newaxis]
  np.testing.assert_allclose(averages.reshape(slabs.count, -1), expected, atol=0.5001)
  # The other way round is the same study.
  np.testing.assert_array_equal(slabs.average(hu[::-1], _whole(slabs))[::-1], averages)


@hypothesis.given(_COUNTS, _DISTANCES)
def test_a_part_is_a_part_of_the_whole(count, distance_mm):
  slabs = slabs_lib.divide(count, distance_mm, 5.0)
  hu = np.arange(count, dtype=np.int16).reshape(-1, 1, 1)
  part = slice(slabs.count // 2, slabs.count)
  np.testing.assert_array_equal(
    slabs.average(hu, part), slabs.average(hu, _whole(slabs))[part]
  )
  assert slabs.middles(part) == slabs.middles(_whole(slabs))[part]
  for slab, middle in enumerate(slabs.middles(_whole(slabs))):
    assert middle in slabs.covered(slab)


@hypothesis.given(_COUNTS, _DISTANCES)
def test_answers_go_back_by_the_same_overlaps(count, distance_mm):
  slabs = slabs_lib.divide(count, distance_mm, 5.0)
  values = np.random.default_rng(count).random((slabs.count, 2)).astype(np.float32)
  found = slabs.to_slices(values)
  assert found.dtype == np.float32 and found.shape == (count, 2)
  for index in range(count):
    expected = sum(share * values[slab] for slab, share in slabs.shares(index))
    np.testing.assert_allclose(found[index], expected, rtol=1e-6)
    if len(slabs.shares(index)) == 1:  # To the bit where one slab covers a slice.
      np.testing.assert_array_equal(found[index], values[slabs.shares(index)[0][0]])


@hypothesis.given(_COUNTS, _DISTANCES)
def test_interpolation_is_exact_for_what_is_linear(count, distance_mm):
  slabs = slabs_lib.divide(count, distance_mm, 5.0)
  middles_mm = (np.arange(slabs.count) + 0.5) * slabs.thickness_mm
  values = [np.full((1, 2), middle, np.float32) for middle in middles_mm]
  found = dict(slabs.interpolated(values))
  assert list(found) == list(range(count))
  wanted_mm = np.clip(
    (np.arange(count) + 0.5) * distance_mm, middles_mm[0], middles_mm[-1]
  )
  np.testing.assert_allclose(
    [found[index][0, 0] for index in range(count)], wanted_mm, rtol=1e-5
  )


@hypothesis.given(_COUNTS, _DISTANCES, st.integers(0, 2**32 - 1))
def test_half_steps_are_the_slabs_and_those_between_them(count, distance_mm, seed):
  slabs = slabs_lib.divide(count, distance_mm, 5.0)
  averages = slabs_lib.classified(slabs, 6.0)
  if not slabs.is_averaged or slabs.count == 1:
    assert averages is slabs
    return
  hu = np.random.default_rng(seed).integers(-1024, 3071, (count, 2, 3), np.int16)
  found = averages.average(hu, _whole(averages))
  assert found.dtype == np.int16 and found.shape == (2 * slabs.count - 1, 2, 3)
  own = slabs.average(hu, _whole(slabs))
  np.testing.assert_array_equal(slabs_lib.of_slabs(averages, found), own)
  np.testing.assert_array_equal(
    slabs_lib.of_slabs(averages, averages.positions_mm), slabs.positions_mm
  )
  middles_mm = averages.positions_mm
  edges_mm = distance_mm * np.arange(count + 1)
  for place in range(1, averages.count, 2):
    low, high = middles_mm[place] + np.array((-0.5, 0.5)) * slabs.thickness_mm
    overlap = np.minimum(high, edges_mm[1:]) - np.maximum(low, edges_mm[:-1])
    weights = np.maximum(overlap, 0) / slabs.thickness_mm
    expected = np.tensordot(weights, hu, 1)
    np.testing.assert_allclose(found[place], expected, atol=0.5001)
    # What rounding of millimetres makes of an edge is no part of it.
    assert set(np.flatnonzero(weights > 1e-9)) == set(averages.covered(place))
    middle = averages.middles(_whole(averages))[place]
    assert abs((middle + 0.5) * distance_mm - middles_mm[place]) <= distance_mm
  part = slice(averages.count // 3, averages.count)
  np.testing.assert_array_equal(averages.average(hu, part), found[part])


def test_nothing_between_slabs_is_asked_where_nothing_is_smoothed_or_averaged():
  thin, thick = slabs_lib.divide(300, 1.0, 5.0), slabs_lib.divide(30, 8.0, 5.0)
  assert slabs_lib.classified(thin, 6.0) == slabs_lib.HalfSteps(thin)
  assert slabs_lib.classified(thin, 0.0) is thin
  assert slabs_lib.classified(thick, 6.0) is thick
  values = np.arange(30)
  assert slabs_lib.of_slabs(thick, values) is values


@pytest.mark.parametrize('distance_mm', [3.9999, 4.0, 4.4, 5.0, 8.0])
def test_near_the_stated_thickness_slices_are_as_they_are(distance_mm):
  slabs = slabs_lib.divide(30, distance_mm, 5.0)
  assert not slabs.is_averaged and slabs.thickness_mm == distance_mm
  hu = np.zeros((30, 2, 2), np.int16)
  assert slabs.average(hu, slice(3, 9)).base is hu
  values = np.random.default_rng(0).random(30)
  assert slabs.to_slices(values) is values
  assert slabs.shares(7) == ((7, 1.0),)


def test_every_slice_and_few_slices():
  assert not slabs_lib.divide(300, 1.0, None).is_averaged
  assert not slabs_lib.divide(1, 1.0, 5.0).is_averaged
  two = slabs_lib.divide(2, 1.0, 5.0)
  assert (two.count, two.thickness_mm) == (1, 2.0)
  assert slabs_lib.divide(300, 1.0, 5.0) == slabs_lib.Slabs(300, 60, 5.0)


def _classifier(card):
  return (
    results.ModelIdentity('lungs', 1, 'a' * 64, {'thickness_mm': 3}),
    results.ModelIdentity('classifier', 1, 'b' * 64, card),
  )


def test_thickness_and_smoothing_are_stated_or_the_cards_or_usual():
  asked = results.Thresholds(map=0.5)
  usual = results.Thresholds(map=0.5, thickness_mm=5, smoothing_mm=6)
  assert slabs_lib.as_used(asked, ()) == usual
  assert slabs_lib.as_used(asked, _classifier({})) == usual
  card = _classifier({'thickness_mm': 8, 'smoothing_mm': 4})
  assert slabs_lib.as_used(asked, card) == results.Thresholds(
    map=0.5, thickness_mm=8.0, smoothing_mm=4.0
  )
  none = slabs_lib.as_used(asked, _classifier({'smoothing_mm': 0}))
  assert none.smoothing_mm == 0 and none.thickness_mm == 5
  stated = results.Thresholds(thickness_mm=2, smoothing_mm=0)
  assert slabs_lib.as_used(stated, card) == stated
  # As in the paper, unless somebody states another smoothing.
  paper = results.Thresholds(every_slice=True)
  assert slabs_lib.as_used(paper, card) == results.Thresholds(
    every_slice=True, smoothing_mm=0
  )
  both = results.Thresholds(every_slice=True, smoothing_mm=3)
  assert slabs_lib.as_used(both, card) == both


@pytest.mark.parametrize('found', ['thick', -1, math.nan, 1e9, [5], {}])
@pytest.mark.parametrize('name', ['thickness_mm', 'smoothing_mm'])
def test_a_card_with_another_length_is_refused(name, found):
  with pytest.raises(errors.ModelError, match=f'card must say {name} .* found'):
    slabs_lib.as_used(results.Thresholds(), _classifier({name: found}))


def test_a_card_with_no_thickness_is_refused():
  with pytest.raises(errors.ModelError, match='card must say thickness_mm .* found 0'):
    slabs_lib.as_used(results.Thresholds(), _classifier({'thickness_mm': 0}))


@pytest.mark.parametrize('wrong', [-1, math.nan, math.inf, 100])
def test_a_stated_smoothing_is_checked(wrong):
  with pytest.raises(ValueError, match=r'0 or more and at most 30 mm, found'):
    results.Thresholds(smoothing_mm=wrong)


_PROBABILITIES = st.lists(
  st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 1.0])),
  min_size=1,
  max_size=60,
).map(lambda values: np.array(values, np.float32))
_SMOOTHINGS = st.floats(0.1, 30)


def _positions(count, seed):
  """Ascending, in steps of 0.3 to 10 mm."""
  return np.cumsum(np.random.default_rng(seed).uniform(0.3, 10, count))


@hypothesis.given(_PROBABILITIES, _SMOOTHINGS, st.integers(0, 2**32 - 1))
def test_smoothing_is_a_weighted_mean_whatever_the_positions(p, smoothing_mm, seed):
  positions_mm = _positions(len(p), seed)
  smooth = slabs_lib.smoothed(p, positions_mm, smoothing_mm)
  assert smooth.dtype == np.float32 and smooth.shape == p.shape
  assert (smooth >= p.min()).all() and (smooth <= p.max()).all()
  turned = slabs_lib.smoothed(p[::-1], -positions_mm[::-1], smoothing_mm)
  np.testing.assert_allclose(turned[::-1], smooth, rtol=1e-5, atol=1e-7)
  moved = slabs_lib.smoothed(p, positions_mm + 1234.5, smoothing_mm)
  np.testing.assert_allclose(moved, smooth, rtol=1e-5, atol=1e-7)


@hypothesis.given(
  st.floats(0, 1, width=32), st.integers(1, 50), _SMOOTHINGS, st.integers(0, 2**32 - 1)
)
def test_a_constant_stays_one(value, count, smoothing_mm, seed):
  p = np.full(count, value, np.float32)
  smooth = slabs_lib.smoothed(p, _positions(count, seed), smoothing_mm)
  np.testing.assert_array_equal(smooth, p)


@hypothesis.given(_PROBABILITIES, st.floats(0.3, 10))
def test_no_smoothing_and_no_neighbours_change_no_bit(p, distance_mm):
  positions_mm = distance_mm * np.arange(len(p))
  assert slabs_lib.smoothed(p, positions_mm, 0) is p
  inside = np.clip(p, 1e-6, 1 - 1e-6).astype(np.float32)
  far = slabs_lib.smoothed(inside, 100 * positions_mm, 1.0)
  np.testing.assert_allclose(far, inside, rtol=1e-5)


@hypothesis.given(st.floats(25, 80), st.floats(0, 2 * np.pi), st.floats(4, 9))
def test_thin_and_thick_slices_of_one_body_are_smoothed_alike(
  period_mm, phase, smoothing_mm
):
  def logits(z):
    return 6 * np.sin(2 * np.pi * z / period_mm + phase) + z / 100

  found = []
  for distance_mm in (1.0, 5.0):
    slabs = slabs_lib.divide(round(300 / distance_mm), distance_mm, None)
    p = 1 / (1 + np.exp(-logits(slabs.positions_mm)))
    found.append(
      slabs_lib.smoothed(p.astype(np.float32), slabs.positions_mm, smoothing_mm)
    )
  thin, thick = found[0][2::5], found[1]  # The same positions.
  np.testing.assert_allclose(thin[10:-10], thick[10:-10], atol=0.002)


def test_smoothing_means_a_gaussian_in_millimetres():
  p = np.full(41, 0.5, np.float32)
  p[20] = 1 / (1 + np.exp(-3.0))  # One slab of logit 3 among zeros.
  for distance_mm in (1.0, 5.0, 8.0):
    positions_mm = distance_mm * np.arange(41)
    smooth = slabs_lib.smoothed(p, positions_mm, 6.0).astype(np.float64)
    weights = np.exp(-((positions_mm - positions_mm[20]) ** 2) / 72)
    logits = np.log(smooth / (1 - smooth))
    np.testing.assert_allclose(logits[20], 3 / weights.sum(), rtol=1e-3)
    np.testing.assert_allclose(logits[21], logits[20] * weights[21], rtol=1e-3)
  # A lone, sure answer outweighs unsure ones; a lone unsure one does not.
  p = np.full(9, 0.3, np.float32)
  for lone, is_positive in ((0.7, False), (0.999, True)):
    p[4] = lone
    smooth = slabs_lib.smoothed(p, 5.0 * np.arange(9), 6.0)
    assert (smooth[4] > 0.5) == is_positive


@pytest.mark.parametrize('wrong', [0, -1, math.nan, math.inf, 100])
def test_a_stated_thickness_is_checked(wrong):
  with pytest.raises(ValueError, match=r'above 0 and at most 20 mm, found'):
    results.Thresholds(thickness_mm=wrong)
  with pytest.raises(ValueError, match='give one of the two'):
    results.Thresholds(thickness_mm=5, every_slice=True)


def test_a_thickness_that_was_asked_for_in_vain_is_a_warning():
  slabs = slabs_lib.divide(30, 8.0, 5.0)
  assert slabs_lib.warnings(slabs, results.Thresholds()) == ()
  (warning,) = slabs_lib.warnings(slabs, results.Thresholds(thickness_mm=5))
  assert '5 mm was asked for' in warning and '8 mm apart' in warning
  thin = slabs_lib.divide(300, 1.0, 5.0)
  assert slabs_lib.warnings(thin, results.Thresholds(thickness_mm=5)) == ()
