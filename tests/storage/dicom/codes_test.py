"""Codes: short enough for code values, one meaning each, standard ones as published."""

import pydicom.sr
import pytest

from covid_tf import lung_measures
from covid_tf.storage.dicom import codes
from covid_tf.storage.dicom import identity


def _codes():
  found = [value for value in vars(codes).values() if isinstance(value, tuple)]
  found = [value for value in found if hasattr(value, 'scheme_designator')]
  return [*found, *codes.LOBES.values()]


def test_private_codes_fit_a_code_value():
  values = [code.value for code in codes.PRIVATE]
  assert len(set(values)) == len(values)
  assert len({code.meaning for code in codes.PRIVATE}) == len(values)
  for code in codes.PRIVATE:
    assert len(code.value) <= 16 and len(code.meaning) <= 64
    assert code.scheme_designator == codes.SCHEME


def test_private_holds_every_private_code_of_the_module():
  private = {code for code in _codes() if code.scheme_designator == codes.SCHEME}
  assert private == set(codes.PRIVATE)


_PUBLISHED = {
  codes.LUNG: ('SCT', 'Lung'),
  codes.ANATOMICAL_STRUCTURE: ('SCT', 'AnatomicalStructure'),
  codes.MORPHOLOGICALLY_ABNORMAL: ('SCT', 'MorphologicallyAbnormalStructure'),
  codes.RIGHT: ('SCT', 'Right'),
  codes.LEFT: ('SCT', 'Left'),
  codes.APICAL: ('SCT', 'UpperZoneOfLung'),
  codes.MIDDLE: ('SCT', 'MiddleZoneOfLung'),
  codes.BASAL: ('SCT', 'LowerZoneOfLung'),
  codes.LOBES['right_upper_lobe']: ('SCT', 'UpperLobeOfLung'),
  codes.LOBES['right_middle_lobe']: ('SCT', 'MiddleLobeOfRightLung'),
  codes.LOBES['right_lower_lobe']: ('SCT', 'LowerLobeOfLung'),
  codes.VOLUME: ('SCT', 'Volume'),
  codes.SUM_OF_VOXELS: ('DCM', 'SumOfSegmentedVoxelMethodForVolume'),
  codes.ATTENUATION: ('DCM', 'AttenuationCoefficient'),
  codes.MEAN: ('SCT', 'Mean'),
  codes.GRAD_CAM: ('DCM', 'GradientWeightedClassActivation'),
  codes.ARTIFICIAL_INTELLIGENCE: ('DCM', 'ArtificialIntelligence'),
  codes.CM3: ('UCUM', 'CubicCentimeter'),
  codes.PERCENT: ('UCUM', 'Percent'),
  codes.NO_UNITS: ('UCUM', 'NoUnits'),
  codes.HOUNSFIELD: ('UCUM', 'HounsfieldUnit'),
}
# Of CIDs that pydicom's dictionary leaves out.
_NOT_IN_PYDICOM = {codes.DETECTED, codes.NOT_DETECTED}


def test_standard_codes_are_those_of_the_codes():
  standard = {code for code in _codes() if code.scheme_designator != codes.SCHEME}
  assert standard == {*_PUBLISHED, *_NOT_IN_PYDICOM}
  for code, (scheme, keyword) in _PUBLISHED.items():
    published = getattr(getattr(pydicom.sr.codes, scheme), keyword)
    assert (code.value, code.meaning.lower()) == (
      published.value,
      published.meaning.lower(),
    )


def test_a_code_of_densities_holds_its_range():
  assert codes.density_bin('ground_glass', -700, -300).value == 'HU-700:-300'
  assert codes.density_bin('below', None, -950).value == 'HU<-950'
  assert codes.density_bin('above', 100).value == 'HU>=100'
  assert 'ground_glass' in codes.density_bin('ground_glass', -700, -300).meaning
  assert codes.percentile(5).value == 'HU-P5'


def test_codes_of_every_allowed_scheme_fit():
  low, high = -32767, 32767
  scheme = lung_measures.DensityScheme((low, high), ('x' * 200,))
  code = codes.density_bin(scheme.bins[0], *scheme.edges_hu)
  assert code.value == 'HU-32767:32767' and len(code.meaning) == 64
  assert codes.density_bin('b', low - 1, low).value == 'HU-32768:-32767'


def test_a_name_that_is_no_text_of_dicom_becomes_one():
  meaning = codes.density_bin('dichte\\\nLunge, grün', 0, 9).meaning
  assert meaning == 'Lung of 0 to below 9 HU (dichte__Lunge, grün)'


def test_a_bin_without_a_range_is_refused():
  with pytest.raises(ValueError, match='found neither'):
    codes.density_bin('everything')


def test_the_scheme_is_declared_with_all_that_a_reader_needs():
  (item,) = identity.coding_schemes()
  assert item.CodingSchemeDesignator == '99COVIDTF'
  assert item.CodingSchemeUID == codes.SCHEME_UID
  assert item.CodingSchemeName and item.CodingSchemeResponsibleOrganization
