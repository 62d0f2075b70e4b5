"""Which pieces of a mask are lung: a made-up chest with bowel, windpipe and table."""

import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import ndimage
import synthetic_case

from covid_tf.analysis import lung_pieces

_SPACING, _SHAPE = (5.0, 5.0, 5.0), (72, 52, 68)
_AFFINE = synthetic_case.axial_affine(_SPACING, _SHAPE)
# Centre and half axes in LPS millimetres. The dome takes the lungs' front and middle
# at the base; a recess stays behind and beside it.
_RIGHT, _LEFT = ((-75, 0, 0), (58, 85, 130)), ((75, 0, 0), (54, 85, 130))
_DOME = ((0, -25, -150), (118, 80, 120))
_STOMACH = ((60, -50, -78), (38, 32, 30))
_FLEXURE = ((95, 0, -92), (25, 40, 22))  # In the middle: lung lies behind it.
_COLON = ((-40, -10, -160), (70, 24, 16))  # Below every lung.
_WINDPIPE = ((0, 10, 120), (9, 9, 50))
_TABLE = ((0, 118, 0), (120, 8, 150))  # The gap between the back and the table.
_JUNCTION = ((0, -20, 20), (34, 12, 12))  # Where the lungs touch in front.


def _points(affine=_AFFINE, shape=_SHAPE):
  index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), axis=-1)
  return (index @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


_POINTS = _points()


def _ball(ellipsoid, points=None):
  centre, half_axes = (np.array(part, np.float32) for part in ellipsoid)
  points = _POINTS if points is None else points
  return (((points - centre) / half_axes) ** 2).sum(axis=-1) < 1


def _lung(ellipsoid, points=None):
  return _ball(ellipsoid, points) & ~_ball(_DOME, points)


def _kept(mask, hu=None, affine=_AFFINE):
  return lung_pieces.keep_lungs(mask.astype(np.uint8), affine, hu).astype(bool)


def _hu(gas, value=-1000):
  """Aerated lung everywhere but in `gas`."""
  return np.where(gas, value, -850).astype(np.int16)


def _assert_only_lung(lungs, other, **options):
  """`other` goes, and not a voxel of `lungs`."""
  np.testing.assert_array_equal(_kept(lungs | other, **options), lungs)


@pytest.mark.parametrize('gas', [_STOMACH, _FLEXURE, _COLON, _WINDPIPE, _TABLE])
@pytest.mark.parametrize('touching', [False, True])
def test_gas_that_is_not_lung_goes(gas, touching):
  lungs = _lung(_RIGHT) | _lung(_LEFT)
  if touching:
    lungs |= _ball(_JUNCTION)
    assert len(lung_pieces.find_pieces(lungs.astype(np.uint8)).sizes) == 1
  gas = _ball(gas) & ~ndimage.binary_dilation(lungs)
  gas = lung_pieces.keep_largest(gas.astype(np.uint8), 1).astype(bool)
  assert gas.sum() > 0.003 * lungs.sum()
  _assert_only_lung(lungs, gas, hu=_hu(gas))


@pytest.mark.parametrize('gas', [_STOMACH, _COLON])
def test_bowel_goes_by_its_place_alone(gas):
  """Thick slices: bowel is as dense as lung, by partial volume."""
  lungs = _lung(_RIGHT) | _lung(_LEFT) | _ball(_JUNCTION)
  _assert_only_lung(lungs, _ball(gas) & _ball(_DOME, _POINTS + (0, 0, 8)) & ~lungs)


@pytest.mark.parametrize('hu', [None, _hu(_ball(_STOMACH))])
@pytest.mark.parametrize('lung', [_RIGHT, _LEFT])
def test_bowel_takes_the_place_of_no_missing_lung(lung, hu):
  """One lung is white, or taken out."""
  stomach = _ball(_STOMACH) & ~ndimage.binary_dilation(_lung(_LEFT))
  _assert_only_lung(_lung(lung), stomach, hu=hu)


def test_bowel_larger_than_what_is_left_of_the_lungs_goes():
  left_of_it = _ball(((-75, -10, 60), (30, 40, 40)))
  bowel = _ball(((10, -30, -110), (80, 40, 40)))
  assert bowel.sum() > 2 * left_of_it.sum()
  _assert_only_lung(left_of_it, bowel)
  _assert_only_lung(left_of_it, bowel, hu=_hu(bowel))


@pytest.mark.parametrize('hu', [None, 40, -600, -930])
def test_pieces_that_consolidation_parts_stay_whatever_their_density(hu):
  """Old rule: two of the four stay."""
  lungs = _lung(_RIGHT) | _lung(_LEFT)
  z, x = _POINTS[..., 2], _POINTS[..., 0]
  lungs &= ~((abs(z - 35) < 9) & (x < 0)) & ~((abs(z + 50) < 9) & (x < 0))
  pieces = lung_pieces.find_pieces(lungs.astype(np.uint8))
  assert sorted(pieces.sizes)[-4] > 0.01 * max(pieces.sizes)
  volume = None if hu is None else np.full(_SHAPE, hu, np.int16)
  large = pieces.sizes >= 0.01 * pieces.sizes.max()
  expected = lungs.astype(np.uint8)
  pieces.keep(np.flatnonzero(large), expected)
  np.testing.assert_array_equal(_kept(lungs, volume), expected)


def test_a_collapsed_lung_stays():
  small = _ball(((45, 20, 10), (14, 20, 45)))
  assert 0.01 < small.sum() / _lung(_RIGHT).sum() < 0.1
  assert (
    _kept(_lung(_RIGHT) | small, np.full(_SHAPE, -300, np.int16))
    == (_lung(_RIGHT) | small)
  ).all()


def test_a_lung_of_emphysema_stays():
  lungs = _lung(_RIGHT) | _lung(_LEFT)
  assert _kept(lungs, np.where(_lung(_LEFT), -955, -850).astype(np.int16)).sum() == (
    lungs.sum()
  )


def _bridge():
  return _ball(((60, -45, -50), (3.6, 3.6, 40)))


def test_bowel_on_a_narrow_bridge_goes():
  lungs = _lung(_RIGHT) | _lung(_LEFT)
  stomach = _ball(_STOMACH) & ~lungs & _ball(_DOME, _POINTS + (0, 0, 12))
  mask = lungs | stomach | _bridge()
  assert lung_pieces.find_pieces(mask.astype(np.uint8)).sizes.size == 2
  kept = _kept(mask, _hu(stomach))
  assert (kept & stomach & ~_bridge()).sum() < 0.02 * stomach.sum()
  assert (kept & lungs).sum() == lungs.sum()


def test_consolidated_lung_on_a_narrow_bridge_stays():
  lungs = _lung(_RIGHT) | _lung(_LEFT)
  piece = _ball(_STOMACH) & ~lungs & _ball(_DOME, _POINTS + (0, 0, 12))
  mask = lungs | piece | _bridge()
  np.testing.assert_array_equal(_kept(mask, np.full(_SHAPE, -200, np.int16)), mask)


@settings(max_examples=8)
@given(
  reverse=st.sets(st.integers(0, 2)),
  order=st.sampled_from(list(itertools.permutations(range(3)))),
)
def test_the_answer_is_the_patients_not_the_grids(reverse, order):
  affine = synthetic_case.axial_affine(_SPACING, _SHAPE, tuple(reverse))
  points = _points(affine)
  lungs = _lung(_RIGHT, points) | _lung(_LEFT, points)
  lungs |= _ball(_JUNCTION, points)
  mask = lungs | (_ball(_STOMACH, points) & _ball(_DOME, points + (0, 0, 8)))
  turned = np.ascontiguousarray(mask.transpose(order))
  kept = _kept(turned, affine=affine[:, [*order, 3]])
  np.testing.assert_array_equal(kept, lungs.transpose(order))


@settings(max_examples=12)
@given(st.tuples(*(st.floats(-1, 1),) * 3), st.floats(18, 35))
def test_what_lies_beside_the_heart_above_the_dome_is_lung(place, radius):
  """A piece anywhere between front and back of the other lung's upper half."""
  x, y, z = place
  piece = _ball(((70 + 10 * x, 50 * y, 65 + 25 * z), (radius,) * 3))
  mask = _lung(_RIGHT) | (piece & (_POINTS[..., 0] > 4))
  np.testing.assert_array_equal(_kept(mask, np.full(_SHAPE, -100, np.int16)), mask)


def test_the_mask_is_reduced_in_place_and_may_be_empty():
  mask = _lung(_RIGHT).astype(np.uint8)
  assert lung_pieces.keep_lungs(mask, _AFFINE) is mask
  assert not lung_pieces.keep_lungs(np.zeros((3, 4, 5), np.uint8), _AFFINE).any()
  speck = np.zeros((9, 90, 90), np.uint8)
  speck[4, 31, 31] = 1  # Between the voxels that are looked at.
  fine = synthetic_case.axial_affine((0.5, 0.5, 0.5), speck.shape)
  assert lung_pieces.keep_lungs(speck, fine).sum() == 1
