"""Tests of what a difference between two answers says."""

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from covid_tf import contract
from covid_tf import results
from covid_tf.predictors import differences


def _maps(scale=1.0, shift=0.0):
  maps = np.random.default_rng(0).random((4, 28, 28)) * scale + shift
  return maps.clip(0, 1).astype(np.float32)


@pytest.mark.parametrize('maps', [_maps(), _maps(0.01), np.zeros((4, 28, 28), 'f4')])
def test_sums_of_small_maps_are_judged_by_what_a_cell_changes(maps):
  changed = maps.copy()
  changed[:, 3:6, 3:6] += np.where(changed[:, 3:6, 3:6] < 0.8, 0.15, -0.15)
  found = differences.compare({'cam_28': maps}, contract.GRAD_CAM, {'cam_28': changed})
  assert {one.verdict for one in found} == {differences.Verdict.NARROWER}
  found = differences.compare(
    {'cam_28': maps}, contract.GRAD_CAM, {'cam_28': maps + np.float32(0.1)}
  )
  assert {one.verdict for one in found} == {differences.Verdict.WRONG}


@pytest.mark.parametrize(
  'card, verdict',
  [
    (
      {
        'compute_dtype': 'bfloat16',
        contract.DIFFERENCES: {'cam_28': [0.2, 0.03], 'sum of cam_28': [9.0, 0.03]},
      },
      'NARROWER',
    ),
    (
      {
        'compute_dtype': 'bfloat16',
        contract.DIFFERENCES: {'cam_28': [0.01, 0.001], 'sum of cam_28': [0.01, 0.001]},
      },
      'WRONG',
    ),
    (
      {
        'compute_dtype': 'float32',
        contract.DIFFERENCES: {'cam_28': [0.2, 0.03], 'sum of cam_28': [9.0, 0.03]},
      },
      'WRONG',
    ),
    (
      {
        'compute_dtype': 'bfloat16',
        contract.DIFFERENCES: {
          'cam_28': [float('inf'), 1],
          'sum of cam_28': 'a',
          'cam_14': [1, 'b'],
        },
      },
      'WRONG',
    ),
    ({'compute_dtype': 'bfloat16', contract.DIFFERENCES: [1]}, 'WRONG'),
    ({'compute_dtype': 'bfloat16'}, 'WRONG'),
  ],
)
def test_what_a_card_measured_of_its_narrower_type_may_come_again(card, verdict):
  maps = _maps()
  found = differences.compare(
    {'cam_28': maps},
    contract.GRAD_CAM,
    {'cam_28': np.maximum(maps - 0.1, 0)},
    differences.of_card(results.ModelIdentity('classifier', 1, '', card)),
  )
  assert {one.verdict.name for one in found} == {verdict}


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(strategies.integers(0, 2**31), strategies.floats(-2e-4, 2e-4))
def test_a_pixel_may_turn_only_where_its_probability_is_at_the_threshold(seed, shift):
  random = np.random.default_rng(seed)
  probability = random.uniform(0.4999, 0.5001, (1, 256, 256)).astype(np.float32)
  probability[:, :128] = random.uniform(0, 1, (1, 128, 256))
  full = differences._interpolated(probability, (60, 70))
  reference = {
    'lung_probability': probability,
    'lung_mask': (full > 0.5).astype(np.uint8),
  }
  moved = (full + shift > 0.5).astype(np.uint8)
  (found,) = differences.compare(
    reference, contract.SERVING_DEFAULT, {'lung_mask': moved}
  )
  if abs(shift) <= differences.PROBABILITY_TOLERANCE:
    assert found.verdict is differences.Verdict.RIGHT
  turned = moved.copy()
  farthest = np.unravel_index(np.argmax(np.abs(full - 0.5)), full.shape)
  turned[farthest] ^= 1
  (found,) = differences.compare(
    reference, contract.SERVING_DEFAULT, {'lung_mask': turned}
  )
  assert found.verdict is differences.Verdict.WRONG
  assert found.difference == np.abs(full - 0.5).max()
