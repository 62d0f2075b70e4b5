"""The segmentation object: two segments on the CT's own slices."""

import dicom_series
import numpy as np
import pytest
import synthetic_case

from covid_tf.storage.dicom import codes
from covid_tf.storage.dicom import segmentation
from covid_tf.storage.dicom import source as source_lib

_SHAPE, _SPACING_MM = (9, 50, 76), (30.0, 5.0, 5.0)


@pytest.fixture(scope='module')
def case(tmp_path_factory):
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine(_SPACING_MM, _SHAPE), _SHAPE
  )
  folder = dicom_series.write(tmp_path_factory.mktemp('study'), volume)
  result = synthetic_case.make_result(volume)
  source = source_lib.read_source(folder)
  return source, result, segmentation.segmentation(source, result)


def _frames(made):
  """bool [segment, slice, row, column], by what each frame says of itself."""
  frames = made.pixel_array > 0
  found = np.zeros((2, *_SHAPE), bool)
  for frame, groups in zip(frames, made.PerFrameFunctionalGroupsSequence):
    number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    source = groups.DerivationImageSequence[0].SourceImageSequence[0]
    index = int(source.ReferencedSOPInstanceUID.rpartition('.')[2]) - 1
    found[number - 1, index] = frame
  return found


def test_the_segments_are_the_lungs_and_what_eq_1_counts(case):
  _, result, made = case
  assert made.NumberOfFrames == 2 * _SHAPE[0]
  lungs, attention = _frames(made)
  np.testing.assert_array_equal(lungs, result.lung_mask > 0)
  map_ = result.localization.to_volume()
  np.testing.assert_array_equal(attention, map_ > result.thresholds.map)
  score = map_[attention].sum(dtype=float) * result.voxel_volume_mm3 / 1000
  assert score == pytest.approx(result.corona_score_cm3, rel=1e-6)


def test_segments_say_what_they_are(case):
  _, _, made = case
  first, second = made.SegmentSequence
  assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == '39607008'
  code = second.SegmentedPropertyTypeCodeSequence[0]
  assert code.CodingSchemeDesignator == codes.SCHEME
  assert len(code.CodeValue) <= 16
  assert second.SegmentLabel == 'Model attention'
  assert 'No drawn opacity' in second.SegmentDescription
  assert first.TrackingUID != second.TrackingUID
  schemes = [
    item.CodingSchemeDesignator for item in made.CodingSchemeIdentificationSequence
  ]
  assert schemes == [codes.SCHEME]


def test_each_frame_has_the_place_of_its_source(case):
  source, _, made = case
  (series,) = made.ReferencedSeriesSequence
  assert series.SeriesInstanceUID == source.series_uid
  assert len(series.ReferencedInstanceSequence) == _SHAPE[0]
  positions = {
    header.SOPInstanceUID: list(header.ImagePositionPatient)
    for header in source.headers
  }
  for groups in made.PerFrameFunctionalGroupsSequence:
    reference = groups.DerivationImageSequence[0].SourceImageSequence[0]
    assert (
      list(groups.PlanePositionSequence[0].ImagePositionPatient)
      == positions[reference.ReferencedSOPInstanceUID]
    )
