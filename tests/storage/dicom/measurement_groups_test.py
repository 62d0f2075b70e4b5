"""What the structured report measures: the numbers of the result, each at its place."""

import collections
import dataclasses

import pydicom
import pytest
import synthetic_case

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf.storage.dicom import codes
from covid_tf.storage.dicom import measurement_groups


@pytest.fixture(scope='module')
def result():
  shape = (9, 50, 76)
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine((30.0, 5.0, 5.0), shape), shape
  )
  return synthetic_case.measured(volume, synthetic_case.make_result(volume))


def _by_name(result):
  groups = measurement_groups.groups_of(result)
  found = {group.name: group for group in groups}
  assert len(found) == len(groups)
  return found


def _values(group):
  return {measure.quantity: measure.value for measure in group.measures}


def test_the_lungs_have_a_volume_and_no_site(result):
  lungs = _by_name(result)['lungs']
  (measure,) = lungs.measures
  assert lungs.site is None and lungs.segment == measurement_groups.LUNGS
  assert measure.value == result.lung_volume_cm3
  assert (measure.quantity, measure.method) == (codes.VOLUME, codes.SUM_OF_VOXELS)


def test_the_counted_region_has_the_scores(result):
  counted = _by_name(result)['model attention']
  assert counted.segment == measurement_groups.ATTENTION
  assert counted.site == measurement_groups.Site(codes.LUNG)
  assert not counted.evaluations
  assert _values(counted) == {
    codes.CORONA: result.corona_score_cm3,
    codes.CORONA_IN_LUNG: result.corona_score_in_lung_cm3,
    codes.INVOLVED_LUNG: 100 * result.involved_lung_fraction,
  }


@pytest.mark.parametrize('detected', [True, False])
def test_a_threshold_brings_an_answer(result, detected):
  thresholds = dataclasses.replace(result.thresholds, case_corona_score_cm3=20.0)
  changed = dataclasses.replace(result, case_detected=detected, thresholds=thresholds)
  counted = _by_name(changed)['model attention']
  answer = codes.DETECTED if detected else codes.NOT_DETECTED
  assert counted.evaluations == ((codes.CASE_DETECTED, answer),)
  assert _values(counted)[codes.CASE_THRESHOLD] == 20.0


@pytest.mark.parametrize(
  'region, place, side',
  [
    ('right', codes.LUNG, codes.RIGHT),
    ('left', codes.LUNG, codes.LEFT),
    ('apical', codes.APICAL, None),
    ('middle', codes.MIDDLE, None),
    ('basal', codes.BASAL, None),
  ],
)
def test_regions_are_where_they_are(result, region, place, side):
  group = _by_name(result)[f'model attention, {region}']
  assert group.site == measurement_groups.Site(place, side)
  assert _values(group) == {
    codes.CORONA_IN_LUNG: result.corona_score_by_region_cm3[region]
  }


def test_sites_of_lobes_have_sides_but_the_middle_one():
  site = measurement_groups.site_of('left_lower_lobe')
  assert site.words == 'Left lower lobe of lung'
  assert measurement_groups.site_of('right_middle_lobe').laterality is None
  assert measurement_groups.site_of('left_apical').words == 'Left upper zone of lung'
  assert measurement_groups.site_of('label_7') == measurement_groups.Site()
  assert measurement_groups.site_of('left_hand') == measurement_groups.Site()


def test_zone_scores_have_grades_and_shares_at_their_zones(result):
  for name, score, grade_code in (
    ('zone score', result.zone_score, codes.ZONE_GRADE),
    ('zone score by density', result.zone_score_by_density, codes.DENSITY_GRADE),
  ):
    measures = _by_name(result)[name].measures
    assert measures[0].value == score.total
    grades = {m.site.words: m.value for m in measures if m.quantity == grade_code}
    assert len(grades) == 6
    assert grades['Right lower zone of lung'] == score.zones['right_basal']


def test_densities_of_lungs_and_attention_are_complete(result):
  for name, region in (
    ('density, lungs', result.densities.regions['lungs']),
    ('density, model attention in the lungs', result.densities.regions['opacity']),
  ):
    values = _values(_by_name(result)[name])
    assert values[codes.ATTENUATION] == region.mean_hu
    for percent, hu in region.percentiles_hu.items():
      assert values[codes.percentile(percent)] == hu
    by_value = {code.value: value for code, value in values.items()}
    assert by_value['HU-700:-300'] == region.bins_cm3['covid']['ground_glass']
    assert by_value['HU-500:-100'] == region.bins_cm3['aeration']['poorly_aerated']
    assert by_value['HU<-950'] == region.low_attenuation_cm3
    covid = sum(
      by_value[value]
      for value in ('HU<-950', 'HU-950:-700', 'HU-700:-300', 'HU-300:100', 'HU>=100')
    )
    assert covid == pytest.approx(region.volume_cm3)


def test_no_quantity_is_measured_twice_at_one_site(result):
  for group in measurement_groups.groups_of(result):
    counts = collections.Counter((m.quantity, m.site) for m in group.measures)
    assert set(counts.values()) == {1}, group.name


def test_a_region_without_voxels_has_no_mean(result):
  empty = {'aeration': lung_measures.AERATION, 'covid': lung_measures.COVID}
  bins = {name: dict.fromkeys(s.all_bins, 0.0) for name, s in empty.items()}
  region = lung_measures.RegionDensity(0.0, None, {}, bins, 0.0)
  regions = dict(result.densities.regions) | {'opacity': region}
  densities = dataclasses.replace(result.densities, regions=regions)
  groups = _by_name(dataclasses.replace(result, densities=densities))
  values = _values(groups['density, model attention in the lungs'])
  assert codes.ATTENUATION not in values and set(values.values()) == {0.0}


def test_label_regions_and_lobes_are_named_and_placed(result):
  lungs = result.densities.regions['lungs']
  region = lung_measures.LabelRegion(3, 900.0, 12.0, 0.25, lungs)
  found = lung_measures.LabelRegions(
    '0' * 64, lung_measures.DensitySchemes(), 17.0, {'left_upper_lobe': region}
  )
  lobes = lung_measures.LobeScore(
    3,
    dict.fromkeys(lung_measures.LOBES, None) | {'left_upper_lobe': 3},
    dict.fromkeys(lung_measures.LOBES, None) | {'left_upper_lobe': 0.25},
  )
  groups = _by_name(dataclasses.replace(result, label_regions=found, lobe_score=lobes))
  values = _values(groups['label 3, left_upper_lobe'])
  assert values[codes.LABEL_VOLUME] == 900.0
  assert values[codes.INVOLVED_LUNG] == 25.0
  assert groups['label 3, left_upper_lobe'].site.laterality == codes.LEFT
  assert _values(groups['lung in no label region']) == {codes.UNLABELLED_LUNG: 17.0}
  assert [m.value for m in groups['lobe score'].measures] == [3.0, 3.0, 25.0]


def test_a_result_of_an_earlier_schema_has_the_scores_alone(result):
  bare = dataclasses.replace(
    result, densities=None, zone_score=None, zone_score_by_density=None
  )
  assert len(measurement_groups.groups_of(bare)) == 7


def test_what_is_no_report_is_refused_in_words(tmp_path):
  path = tmp_path / 'report.dcm'
  for write in (
    lambda: None,
    lambda: path.write_bytes(b'no DICOM'),
    lambda: pydicom.dcmwrite(path, _empty_dataset(), enforce_file_format=True),
  ):
    write()
    with pytest.raises(errors.UsageError, match='report.dcm.*is required'):
      measurement_groups.read_measurements(path)


def _empty_dataset():
  dataset = pydicom.Dataset()
  dataset.SOPClassUID, dataset.SOPInstanceUID = (
    '1.2.840.10008.5.1.4.1.1.88.22',
    '2.25.1',
  )
  dataset.file_meta = pydicom.dataset.FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  return dataset
