"""The parametric map: every slice, in steps of 1/65535 or exactly."""

import dicom_series
import numpy as np
from pydicom import uid
import pytest
import synthetic_case

from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import parametric_map
from covid_tf.storage.dicom import source as source_lib

_SHAPE, _SPACING_MM = (9, 50, 76), (30.0, 5.0, 5.0)


@pytest.fixture(name='case', scope='module')
def _case(tmp_path_factory):
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine(_SPACING_MM, _SHAPE), _SHAPE
  )
  folder = dicom_series.write(tmp_path_factory.mktemp('study'), volume)
  return source_lib.read_source(folder), synthetic_case.make_result(volume)


def _values(made):
  """float64 [slice, row, column] by the real world mapping, in the order of slices."""
  mapping = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
  values = made.pixel_array * mapping.RealWorldValueSlope
  places = [
    float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
    for groups in made.PerFrameFunctionalGroupsSequence
  ]
  return (values + mapping.RealWorldValueIntercept)[np.argsort(places)]


@pytest.mark.parametrize('form, tolerance', [('uint16', 1e-5), ('float32', 0)])
def test_values_are_those_of_the_map(case, form, tolerance):
  source, result = case
  made = parametric_map.parametric_map(source, result, map_form=form)
  assert made.NumberOfFrames == _SHAPE[0]
  expected = result.localization.to_volume().astype(float)
  assert np.abs(_values(made) - expected).max() <= tolerance
  assert made.file_meta.TransferSyntaxUID == (
    uid.RLELossless if form == 'uint16' else uid.ExplicitVRLittleEndian
  )


@pytest.mark.parametrize('form', objects.MAP_FORMS)
def test_it_says_what_its_values_are(case, form):
  made = parametric_map.parametric_map(*case, map_form=form)
  shared = made.SharedFunctionalGroupsSequence[0]
  (mapping,) = shared.RealWorldValueMappingSequence
  (quantity,) = (
    item.ConceptCodeSequence[0].CodeValue for item in mapping.QuantityDefinitionSequence
  )
  assert quantity == '130403'
  assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == '1'
  (anatomy,) = shared.FrameAnatomySequence
  assert anatomy.FrameLaterality == 'B'
  assert anatomy.AnatomicRegionSequence[0].CodeValue == '39607008'
  assert made.ContentQualification == 'RESEARCH'


def test_forms_have_their_own_identity(case):
  first, second = (
    parametric_map.parametric_map(*case, map_form=form) for form in objects.MAP_FORMS
  )
  assert first.SOPInstanceUID != second.SOPInstanceUID
  assert first.SeriesInstanceUID != second.SeriesInstanceUID
