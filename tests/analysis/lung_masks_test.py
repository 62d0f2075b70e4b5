import numpy as np
import pytest

from covid_tf.analysis import lung_masks
from covid_tf.analysis import orientation
from covid_tf.analysis import slabs as slabs_lib

_AS_STORED = orientation.PlaneTurn(False, (False, False))
_SIDE, _GRID = 64, 32
_LUNG, _TISSUE = -850, 40


def _cone(slices):
  """A lung that ends downwards in a tip, 1 mm slices: masks [slice, row, column]."""
  radius = np.linspace(2, 28, slices)
  place = np.arange(_SIDE) - _SIDE / 2 + 0.5
  distance = np.hypot(*np.meshgrid(place, place))
  return distance < radius[:, np.newaxis, np.newaxis]


def _network(averages):
  """Probabilities as a network gives them: the share of lung, seen in the HU."""
  share = np.clip((_TISSUE - averages) / (_TISSUE - _LUNG), 0, 1).astype(np.float32)
  return share.reshape(len(averages), _GRID, 2, _GRID, 2).mean(axis=(2, 4))


def _answers(slabs, hu, turn, size=7):
  for start in range(0, slabs.count, size):
    averages = turn.to_usual(slabs.average(hu, slice(start, start + size)))
    yield lung_masks.SlabAnswers(averages, _network(averages))


def _masks(hu, turn=_AS_STORED, size=7):
  slabs = slabs_lib.divide(len(hu), 1.0, 5.0)
  answers = _answers(slabs, hu, turn, size)
  found = list(lung_masks.between_slabs(slabs, answers, hu, turn))
  assert [index for index, _ in found] == list(range(len(hu)))
  return np.stack([mask for _, mask in found])


def _dice(first, second):
  return 2 * np.count_nonzero(first & second) / (first.sum() + second.sum())


@pytest.fixture(name='hu', scope='module')
def _hu():
  noise = np.random.default_rng(4).normal(0, 30, (60, _SIDE, _SIDE))
  return (np.where(_cone(60), _LUNG, _TISSUE) + noise).astype(np.int16)


def test_masks_follow_the_slices_between_slabs(hu):
  found, wanted = _masks(hu), _cone(60)
  assert found.dtype == bool
  assert _dice(found, wanted) > 0.98
  # Slices of one slab differ: the cone grows from slice to slice.
  sizes = found.sum(axis=(1, 2))
  assert (np.diff(sizes[5:55]) > 0).mean() > 0.9


def test_a_slice_moves_the_mask_where_the_network_doubts(hu):
  """Without its own HU a slice would get what lies between its slabs."""
  blind = hu.copy()
  blind[::] = hu.mean(axis=(1, 2), keepdims=True).astype(np.int16)
  slabs = slabs_lib.divide(60, 1.0, 5.0)
  seen = np.stack(
    [
      mask
      for _, mask in lung_masks.between_slabs(
        slabs, _answers(slabs, hu, _AS_STORED), hu, _AS_STORED
      )
    ]
  )
  unseen = np.stack(
    [
      mask
      for _, mask in lung_masks.between_slabs(
        slabs, _answers(slabs, hu, _AS_STORED), blind, _AS_STORED
      )
    ]
  )
  wanted = _cone(60)
  assert _dice(seen, wanted) > _dice(unseen, wanted) + 0.005


def test_the_size_of_a_call_changes_nothing(hu):
  np.testing.assert_array_equal(_masks(hu, size=1), _masks(hu, size=100))


@pytest.mark.parametrize('swapped', [False, True])
@pytest.mark.parametrize('flipped', [(False, True), (True, False), (True, True)])
def test_masks_are_as_stored(hu, swapped, flipped):
  hu = hu.copy()
  hu[:, :20, :9] = _LUNG  # So that no turn maps the study to itself.
  turn = orientation.PlaneTurn(swapped, flipped)
  stored = np.ascontiguousarray(turn.to_stored(hu))
  np.testing.assert_array_equal(_masks(stored, turn), turn.to_stored(_masks(hu)))


def test_answers_of_the_planes_own_size_and_certain_ones():
  """Models without probabilities answer by masks."""
  hu = np.where(_cone(30), _LUNG, _TISSUE).astype(np.int16)
  slabs = slabs_lib.divide(30, 1.0, 5.0)
  averages = slabs.average(hu, slice(0, slabs.count))
  answers = [lung_masks.SlabAnswers(averages, (averages < -400).astype(np.float32))]
  found = [m for _, m in lung_masks.between_slabs(slabs, answers, hu, _AS_STORED)]
  assert _dice(np.stack(found), _cone(30)) > 0.95
