from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import hypothesis.extra.numpy as hnp
import numpy as np
import scipy.ndimage

from covid_tf.analysis import lung_pieces

_MASKS = hnp.arrays(
  np.uint8,
  hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7),
  elements=st.integers(0, 1),
)


def _by_labels(mask, count):
  labels, _ = scipy.ndimage.label(mask)
  sizes = np.bincount(labels.ravel())[1:]
  return np.isin(labels, np.argsort(-sizes, kind='stable')[:count] + 1)


@settings(max_examples=200)
@given(_MASKS, st.integers(1, 3))
def test_same_as_labelling_the_volume(mask, count):
  np.testing.assert_array_equal(
    lung_pieces.keep_largest(mask, count), _by_labels(mask, count)
  )


@given(_MASKS)
def test_in_place_gives_the_same_and_a_copy_leaves_the_mask(mask):
  before = mask.copy()
  kept = lung_pieces.keep_largest(mask, 1)
  np.testing.assert_array_equal(mask, before)
  assert lung_pieces.keep_largest(mask, 1, out=mask) is mask
  np.testing.assert_array_equal(mask, kept)


def test_runs_do_not_join_across_the_edge_of_a_row_or_a_slice():
  mask = np.zeros((2, 3, 4), np.uint8)
  mask[0, 0, 3] = mask[0, 1, 0] = 1  # End of a row and start of the next.
  mask[0, 2, 2] = mask[1, 0, 2] = 1  # Last row of a slice and first of the next.
  kept = lung_pieces.keep_largest(mask, 1)
  assert kept.sum() == 1 and kept[0, 0, 3] == 1


def test_a_bridge_in_the_third_dimension_joins():
  mask = np.zeros((3, 4, 9), np.uint8)
  mask[0, 1, 1] = mask[0, 1, 7] = 1
  mask[1, 1, 1:8] = 1
  mask[0, 3, 0:3] = 1
  kept = lung_pieces.keep_largest(mask, 1)
  assert kept.sum() == 9 and not kept[0, 3].any()


def test_nothing_has_no_components():
  assert lung_pieces.keep_largest(np.zeros((0, 4, 4), np.uint8), 2).shape == (0, 4, 4)
  assert not lung_pieces.keep_largest(np.zeros((2, 4, 4), np.uint8), 2).any()
