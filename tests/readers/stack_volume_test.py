"""What is said of a stack whose voxels are read: units, gaps, changed voxels."""

import re

import numpy as np
import odd_series
import pytest

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import stack_volume


def _refusal(folder) -> str:
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(folder)
  return str(caught.value)


@pytest.mark.parametrize('writer', ('GDCM 3.2.6', 'PYDICOM 3.0.2', None))
@pytest.mark.parametrize('unit, is_reported', (('US', False), ('CT NUMBER', True)))
def test_units_that_are_not_stated_are_those_of_the_voxels(
  tmp_path, writer, unit, is_reported
):
  slices = odd_series.series(odd_series.body_hu())
  for ds in slices:
    ds.RescaleType = unit
    if writer:
      ds.file_meta.ImplementationVersionName = writer
  volume = readers.read_ct(odd_series.save(slices, tmp_path))
  np.testing.assert_array_equal(volume.hu, odd_series.body_hu())
  assert (
    volume.warnings
    == (
      "Rescale Type is 'CT NUMBER'; the voxels look like Hounsfield units and were "
      'read as such',
    )
    * is_reported
  )


@pytest.mark.parametrize(
  'thickness, is_reported', ((2.5, False), (2.0, False), (1.25, True))
)
def test_gaps_between_thin_slices_are_reported(tmp_path, thickness, is_reported):
  slices = odd_series.series()
  for ds in slices:
    ds.SliceThickness = thickness
  warnings = readers.read_ct(odd_series.save(slices, tmp_path)).warnings
  assert (
    warnings
    == (
      'slices of 1.25 mm lie 2.5 mm apart: what is between them was not imaged, or is '
      'missing',
    )
    * is_reported
  )


def test_dicom_without_air_is_read_and_reported(tmp_path):
  hu = np.maximum(odd_series.chest_hu(), -200)  # An abdomen, say: CT states its HU.
  volume = readers.read_ct(odd_series.save(odd_series.series(hu), tmp_path))
  np.testing.assert_array_equal(volume.hu, hu)
  assert volume.warnings == (
    'no voxel is air, below -850 HU; the lowest is -200: is this a chest?',
  )


def test_stored_values_that_lost_their_intercept_are_reported(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.RescaleIntercept = 0  # As some anonymizers leave it.
  (warning,) = readers.read_ct(odd_series.save(slices, tmp_path)).warnings
  assert warning.endswith('is this a chest?')


@pytest.mark.parametrize('writer', ('GDCM 3.2.6', 'PYDICOM 3.0.2'))
@pytest.mark.parametrize('unit', ('US', 'BQML', 'unknown'))
def test_unstated_units_of_voxels_that_are_no_chest(tmp_path, writer, unit):
  slices = odd_series.series(odd_series.body_hu())
  for ds in slices:
    ds.RescaleType, ds.RescaleIntercept = unit, 0  # The intercept was lost.
    ds.file_meta.ImplementationVersionName = writer
  odd_series.save(slices, tmp_path)
  assert f"Rescale Type must be HU where .* found '{unit}': no voxel is air" in re.sub(
    'the voxels do not look so,', '.*', _refusal(tmp_path)
  )


def test_what_was_changed_is_counted(tmp_path, monkeypatch):
  hu = odd_series.chest_hu()
  hu[2, 3, 4:7] = -1500
  slices = odd_series.series(hu, signed=True, bits_stored=16, intercept=0)
  odd_series.save([*slices, slices[1]], tmp_path)
  stacks = []
  load = stack_volume.load_voxels
  monkeypatch.setattr(
    stack_volume, 'load_voxels', lambda stack: stacks.append(stack) or load(stack)
  )
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, np.maximum(hu, -1024))
  assert volume.warnings == (
    '1 identical copies of slices were dropped',
    '3 voxels below -1024 HU were set to -1024 HU',
  )
  assert [len(place) for place in stacks[0].places] == [1, 2, 1, 1, 1, 1, 1, 1]
