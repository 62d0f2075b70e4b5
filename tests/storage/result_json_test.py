import dataclasses
import json
import pathlib

import fake_models
import jsonschema
import numpy as np
import pytest
import synthetic_case

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import pipeline
from covid_tf.storage import result_json

_SCHEMA = pathlib.Path(result_json.__file__).with_name('result.schema.json')


@pytest.fixture(name='result', scope='module')
def _result():
  shape = (24, 42, 64)
  affine = synthetic_case.axial_affine((12.0, 6.0, 6.0), shape)
  volume = synthetic_case.make_volume(
    affine,
    shape,
    warnings=('2 files skipped',),
    acquisition=volume_lib.Acquisition('GE', kvp=120.0, contrast=False),
  )
  return pipeline.analyze(volume, fake_models.FakeModels())


@pytest.fixture(name='content')
def _content(result):
  return json.loads(result_json.to_text(result))


def test_every_number_comes_back(result, tmp_path):
  result_json.write_result(tmp_path / 'result.json', result)
  stored = result_json.read_result(tmp_path)
  assert stored == result_json.read_result(tmp_path / 'result.json')
  for field in dataclasses.fields(stored):
    if field.name in (
      'schema_version',
      'slice_count',
      'slice_probability',
      'corona_score_by_slice_cm3',
    ):
      continue
    assert getattr(stored, field.name) == getattr(result, field.name), field.name
  assert (stored.schema_version, stored.slice_count) == (3, 24)
  np.testing.assert_array_equal(
    np.array(stored.slice_probability, np.float32), result.slice_probability
  )
  np.testing.assert_array_equal(
    stored.corona_score_by_slice_cm3, result.corona_score_by_slice_cm3
  )


def test_the_file_keeps_the_published_schema(content):
  schema = json.loads(_SCHEMA.read_text())
  jsonschema.Draft202012Validator.check_schema(schema)
  jsonschema.validate(content, schema)
  assert set(schema['properties']) == set(content)
  later = {  # Of a later day.
    'demo_models',
    'acquisition',
    'edits',
    'hu_sha256',
    'densities',
    'zone_score',
    'zone_score_by_density',
    'label_regions',
    'lobe_score',
    'repeatability',
  }
  assert set(schema['required']) == set(content) - later
  assert set(schema['properties']['acquisition']['properties']) == {
    field.name for field in dataclasses.fields(volume_lib.Acquisition)
  }
  with pytest.raises(jsonschema.ValidationError):
    jsonschema.validate(content | {'involved_lung_fraction': 1.2}, schema)


def test_probabilities_are_short_and_exact(result):
  values = np.array([0.1, 1 / 3, 0, 1], np.float32)
  changed = dataclasses.replace(result, slice_probability=values)
  assert result_json.to_dict(changed)['slice_probability'] == [
    0.1,
    0.33333334,
    0.0,
    1.0,
  ]


def test_nan_is_never_written(result):
  with pytest.raises(ValueError):
    result_json.to_text(dataclasses.replace(result, corona_score_cm3=float('nan')))


@pytest.mark.parametrize(
  'name, value',
  [
    ('corona_score_cm3', -1),
    ('corona_score_cm3', '12'),
    ('corona_score_cm3', True),
    ('involved_lung_fraction', 1.5),
    ('shape', [24, 42]),
    ('lung_box', [1, 2, 3]),
    ('lung_box', [5, 5, 5, 9]),
    ('lung_box', [0, 0, 43, 64]),
    ('slice_count', 23),
    ('positive_slices', [0]),
    ('slice_probability', [0.5]),
    ('corona_score_by_slice_cm3', [1.0] * 24),
    ('case_detected', 'yes'),
    ('warnings', 'none'),
    ('corona_score_by_region_cm3', {'left': 1}),
    ('thresholds', {'map': 0.6}),
    ('models', [{'name': 'lungs'}]),
    ('schema_version', 4),
    ('study_uid', None),
    ('acquisition', 'GE'),
    ('acquisition', {'kvp': '120'}),
    ('acquisition', {'kvp': -120}),
    ('acquisition', {'model': 5}),
    ('acquisition', {'contrast': 'yes'}),
  ],
)
def test_a_wrong_field_is_named(content, tmp_path, name, value):
  path = tmp_path / 'result.json'
  path.write_text(json.dumps(content | {name: value}))
  with pytest.raises(errors.UsageError) as caught:
    result_json.read_result(path)
  assert name in str(caught.value) and str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'name', ['corona_score_cm3', 'thresholds', 'models', 'patient_key']
)
def test_a_missing_field_is_named(content, name):
  del content[name]
  with pytest.raises(ValueError, match=f'{name} is required, found nothing'):
    result_json.from_dict(content)


def test_a_field_of_the_future_is_ignored(content):
  assert result_json.from_dict(content | {'new': 1}) == result_json.from_dict(content)


@pytest.mark.parametrize('text', ['', '{', '[]', '{"schema_version": NaN}', '\xff'])
def test_what_is_no_result_is_refused(tmp_path, text):
  path = tmp_path / 'result.json'
  path.write_bytes(text.encode('latin-1'))
  with pytest.raises(errors.UsageError, match='not a result.json'):
    result_json.read_result(path)


def test_no_file_is_refused(tmp_path):
  with pytest.raises(errors.UsageError, match='found none that can be read'):
    result_json.read_result(tmp_path)


def test_thresholds_of_few_digits_decide_alike_before_and_after(result):
  """A probability of 0.3 in float32 is not above 0.3, whichever digits it shows."""
  shape = (1, *result.shape[1:])
  probability = np.array([0.3], np.float32)
  changed = dataclasses.replace(
    result,
    shape=shape,
    slice_probability=probability,
    positive_slices=(),
    corona_score_by_slice_cm3=np.zeros(1),
    corona_score_cm3=0.0,
    thresholds=results.Thresholds(
      slice_probability=0.3, every_slice=True, smoothing_mm=6.0
    ),
  )
  stored = result_json.from_dict(json.loads(result_json.to_text(changed)))
  assert stored.positive_slices == ()
  assert stored.thresholds == changed.thresholds


def test_results_of_before_logits_were_smoothed_were_not(content):
  assert result_json.from_dict(content).thresholds.smoothing_mm == 6
  del content['thresholds']['smoothing_mm']
  assert result_json.from_dict(content).thresholds.smoothing_mm == 0
  for wrong in (-1, 'much', None, 31):
    content['thresholds']['smoothing_mm'] = wrong
    with pytest.raises(ValueError, match='thresholds must be'):
      result_json.from_dict(content)


def test_demo_models_are_a_field_and_once_were_a_sentence(content):
  assert content['demo_models'] is False
  assert result_json.from_dict(content | {'demo_models': True}).demo_models
  # The sentence is data to results of before: it stays as it is.
  sentence = (
    'Scored by the demo models, which were trained on phantoms to show how '
    'the package works: no measurement of a patient.'
  )
  said = content | {'warnings': ['another', sentence]}
  assert not result_json.from_dict(said).demo_models  # The field counts.
  del said['demo_models'], content['demo_models']
  assert result_json.from_dict(said).demo_models
  assert not result_json.from_dict(content).demo_models
  with pytest.raises(ValueError, match='demo_models must be true, false'):
    result_json.from_dict(content | {'demo_models': 'no'})


@pytest.mark.parametrize(
  'card, demo',
  [
    ({'training': {'demo_weights': True}}, True),
    ({'training': {'demo_weights': 'yes'}}, False),
    ({'training': None}, False),
    ({}, False),
  ],
)
def test_a_card_says_whether_a_model_is_a_demo_model(card, demo):
  assert results.ModelIdentity('lungs', 1, '0' * 64, card).is_demo is demo


def test_a_model_with_a_demo_card_makes_a_demo_result():
  class Demo(fake_models.FakeModels):
    def identities(self):
      return (
        results.ModelIdentity('lungs', 1, '0' * 64),
        results.ModelIdentity(
          'classifier', 1, '1' * 64, {'training': {'demo_weights': True}}
        ),
      )

  shape = (24, 42, 64)
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine((12.0, 6.0, 6.0), shape), shape
  )
  assert pipeline.analyze(volume, Demo()).demo_models


def test_an_acquisition_may_lack_fields_and_have_others(content):
  content['acquisition'] = {'kvp': 120, 'gantry_tilt_deg': -5, 'of_tomorrow': 1}
  assert result_json.from_dict(content).acquisition == volume_lib.Acquisition(
    kvp=120, gantry_tilt_deg=-5
  )
  del content['acquisition']
  assert result_json.from_dict(content).acquisition is None


_EDITS = results.Edits(
  'a' * 64, (3, 4, 7), 'b' * 64, {'map': 0.6, 'case_corona_score_cm3': None}
)


def test_edits_come_back(result, tmp_path):
  positive = tuple(index for index in result.positive_slices if index not in (3, 4, 7))
  by_slice = result.corona_score_by_slice_cm3.copy()
  by_slice[[3, 4, 7]] = 0
  edited = dataclasses.replace(
    result,
    edits=_EDITS,
    positive_slices=positive,
    corona_score_by_slice_cm3=by_slice,
    corona_score_cm3=float(by_slice.sum()),
  )
  result_json.write_result(tmp_path / 'result.json', edited)
  stored = result_json.read_result(tmp_path)
  assert stored.edits == _EDITS and stored.hu_sha256 == result.hu_sha256
  schema = json.loads(_SCHEMA.read_text())
  jsonschema.validate(json.loads((tmp_path / 'result.json').read_text()), schema)


def test_earlier_schemas_lack_edits(content):
  del content['edits'], content['hu_sha256']
  stored = result_json.from_dict(content | {'schema_version': 2})
  assert stored.edits is None and stored.hu_sha256 is None


@pytest.mark.parametrize(
  'change, words',
  [
    ({'excluded_slices': [99]}, 'edits contradicts'),
    ({'excluded_slices': [2, 1]}, 'excluded_slices ascend'),
    ({'excluded_slices': ['3']}, 'an integer not below 0'),
    ({'thresholds_before': [0.6]}, 'thresholds_before names numbers'),
    ({'lung_mask_sha256': 5}, 'edits must be text'),
  ],
)
def test_edits_are_checked(content, change, words):
  edits = {
    'lung_mask_sha256': None,
    'excluded_slices': [],
    'rescored_from_sha256': None,
    'thresholds_before': {},
  }
  assert result_json.from_dict(content | {'edits': edits}).edits == results.Edits()
  with pytest.raises(ValueError, match=words):
    result_json.from_dict(content | {'edits': edits | change})
  with pytest.raises(ValueError, match='an object of lung_mask_sha256'):
    result_json.from_dict(content | {'edits': {}})


def test_a_positive_slice_that_is_excluded_contradicts(content):
  edits = {
    'lung_mask_sha256': None,
    'excluded_slices': content['positive_slices'][:1],
    'rescored_from_sha256': None,
    'thresholds_before': {},
  }
  with pytest.raises(ValueError, match='positive_slices contradicts'):
    result_json.from_dict(content | {'edits': edits})


def _densities(content, **changes):
  regions = content['densities']['regions']
  lungs = regions['lungs'] | changes
  return content['densities'] | {'regions': regions | {'lungs': lungs}}


@pytest.mark.parametrize(
  'said, change',
  [
    ('finite numbers', lambda c: {'densities': _densities(c, volume_cm3=-1)}),
    ('add up', lambda c: {'densities': _densities(c, volume_cm3=9999.0)}),
    ('mean_hu', lambda c: {'densities': _densities(c, mean_hu=None)}),
    ('object of 5', lambda c: {'densities': _densities(c, percentiles_hu={})}),
    ('an object of schemes', lambda c: {'densities': {'regions': {}}}),
    ('right_apical', lambda c: {'zone_score': {'total': 0, 'zones': {}, 'shares': {}}}),
    ('the sum', lambda c: {'zone_score': c['zone_score'] | {'total': 25}}),
    (
      'from 0 to 4',
      lambda c: {
        'zone_score': c['zone_score']
        | {'zones': c['zone_score']['zones'] | {'left_basal': 5}}
      },
    ),
  ],
)
def test_densities_and_grades_that_cannot_be_are_refused(content, said, change):
  with pytest.raises(ValueError, match=said):
    result_json.from_dict(content | change(content))


def test_shares_stand_beside_volumes(content):
  lungs = content['densities']['regions']['lungs']
  for scheme, parts in lungs['bins_cm3'].items():
    assert sum(parts.values()) == pytest.approx(lungs['volume_cm3'])
    for part, cm3 in parts.items():
      assert lungs['bin_shares'][scheme][part] == cm3 / lungs['volume_cm3']
  assert 'network' in content['zone_score']['method']
  assert 'network' not in content['zone_score_by_density']['method']


def test_results_without_opacity_have_no_density_of_it(result):
  empty = dataclasses.replace(
    result.densities.regions['opacity'],
    volume_cm3=0.0,
    mean_hu=None,
    percentiles_hu={},
    bins_cm3={
      name: dict.fromkeys(parts, 0.0)
      for name, parts in result.densities.regions['opacity'].bins_cm3.items()
    },
    low_attenuation_cm3=0.0,
  )
  changed = dataclasses.replace(
    result,
    densities=dataclasses.replace(
      result.densities, regions={**result.densities.regions, 'opacity': empty}
    ),
  )
  content = json.loads(result_json.to_text(changed))
  jsonschema.validate(content, json.loads(_SCHEMA.read_text()))
  assert content['densities']['regions']['opacity']['low_attenuation_share'] is None
  assert result_json.from_dict(content).densities == changed.densities


def test_label_regions_and_lobes_come_back(result):
  lobes = lung_measures.LOBES
  region = lung_measures.LabelRegion(
    7, 900.0, 3.5, 0.25, result.densities.regions['right']
  )
  changed = dataclasses.replace(
    result,
    label_regions=lung_measures.LabelRegions(
      'a' * 64, result.densities.schemes, 12.0, dict.fromkeys(lobes, region)
    ),
    lobe_score=lung_measures.LobeScore(
      4,
      dict.fromkeys(lobes, 1) | {lobes[0]: None},
      dict.fromkeys(lobes, 0.04) | {lobes[0]: None},
    ),
  )
  content = json.loads(result_json.to_text(changed))
  jsonschema.validate(content, json.loads(_SCHEMA.read_text()))
  stored = result_json.from_dict(content)
  assert stored.label_regions == changed.label_regions
  assert stored.lobe_score == changed.lobe_score
  for name, wrong in (
    ('lobe_score', content['lobe_score'] | {'total': 5}),
    ('label_regions', content['label_regions'] | {'labels_sha256': None}),
    ('label_regions', content['label_regions'] | {'regions': {'x': {'label': 0}}}),
  ):
    with pytest.raises(ValueError, match=name):
      result_json.from_dict(content | {name: wrong})
