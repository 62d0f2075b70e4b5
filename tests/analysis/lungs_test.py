import numpy as np
import pytest

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import lungs


def _chest(shape=(12, 60, 80)):
  """Two lungs, the right one larger, and bowel gas that would make a wider box."""
  mask = np.zeros(shape, np.uint8)
  mask[2:11, 10:50, 10:36] = 1
  mask[3:11, 12:50, 44:70] = 1
  mask[0, 4:58, 2:78] = 1  # Below the lungs, apart from them.
  return mask


def test_bowel_below_the_lungs_makes_no_box():
  found = lungs.find_lungs(_chest(), voxel_volume_mm3=20)
  assert found.box == results.LungBox(10, 10, 50, 70)
  assert not found.mask[0].any()
  assert found.voxel_count == 9 * 40 * 26 + 8 * 38 * 26
  assert found.volume_cm3 == pytest.approx(found.voxel_count * 20 / 1000)


def test_the_mask_is_reduced_in_place():
  mask = _chest()
  assert lungs.find_lungs(mask, 20).mask is mask


def test_of_equal_boxes_the_lower_slice_gives_its_own():
  mask = np.zeros((3, 20, 20), np.uint8)
  mask[1, 2:8, 3:13] = 1  # 6 x 10.
  mask[2, 2:12, 3:9] = 1  # 10 x 6.
  boxes = lungs.slice_boxes(mask)
  assert boxes[0] is None
  assert lungs.largest_box(boxes) == boxes[1] == results.LungBox(2, 3, 8, 13)
  assert lungs.largest_box(boxes[::-1]) == boxes[2]


def test_lung_outside_the_box_is_counted_and_warned_of():
  mask = np.zeros((4, 50, 50), np.uint8)
  mask[:3, 5:45, 5:45] = 1
  mask[3, 5:45, 10:50] = 1  # Leaves the box by 5 columns; as large, but higher.
  found = lungs.find_lungs(mask, voxel_volume_mm3=40)
  assert found.box == results.LungBox(5, 5, 45, 45)
  assert found.outside_box_fraction == pytest.approx(40 * 5 / (4 * 40 * 40))
  assert '3.1%' in found.warnings[0]


def test_up_to_two_percent_outside_is_no_warning():
  mask = np.zeros((5, 50, 50), np.uint8)
  mask[:, 5:45, 5:45] = 1
  mask[4, 5:45, 45:47] = 1
  mask[4, 5:45, 5:7] = 0
  found = lungs.find_lungs(mask, voxel_volume_mm3=40)
  assert 0 < found.outside_box_fraction < lungs.MAX_OUTSIDE_FRACTION
  assert found.warnings == ()


@pytest.mark.parametrize('voxel_volume_mm3, refused', [(199.9, True), (200, False)])
def test_less_than_200_cm3_is_no_lung(voxel_volume_mm3, refused):
  mask = np.zeros((10, 12, 12), np.uint8)
  mask[:, 1:11, 1:11] = 1  # A thousand voxels.
  if not refused:
    assert lungs.find_lungs(mask, voxel_volume_mm3).volume_cm3 == 200
    return
  with pytest.raises(errors.NoLungsError, match='at least 200 cm³.*found 200 cm³'):
    lungs.find_lungs(mask, voxel_volume_mm3)


def test_an_empty_mask_is_no_lung():
  with pytest.raises(errors.NoLungsError, match='found 0 cm³'):
    lungs.find_lungs(np.zeros((3, 8, 8), np.uint8), 1000)
