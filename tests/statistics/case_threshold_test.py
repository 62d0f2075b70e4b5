import json

import fake_models
import pytest

from covid_tf import errors
from covid_tf import results
from covid_tf.statistics import operating_points

_DIGESTS = results.card_digests(fake_models.IDENTITIES)
_CONTENT = {
  'schema_version': 1,
  'case_corona_score_cm3': 12.5,
  'rule': 'Youden',
  'models': _DIGESTS,
}


def _write(tmp_path, content):
  path = tmp_path / 'operating_point.json'
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return str(path)


def test_a_number_is_a_threshold_for_any_models():
  threshold = operating_points.parse_case_threshold('7.5')
  assert threshold.corona_score_cm3 == 7.5
  threshold.require_same_models(())


def test_an_operating_point_holds_for_its_own_models(tmp_path):
  threshold = operating_points.parse_case_threshold(_write(tmp_path, _CONTENT))
  assert (threshold.corona_score_cm3, threshold.rule) == (12.5, 'Youden')
  threshold.require_same_models(fake_models.IDENTITIES)
  with pytest.raises(errors.UsageError, match='classifier model bbbbbbbbbbbb'):
    threshold.require_same_models(fake_models.IDENTITIES[:1])
  other = _CONTENT | {'models': _DIGESTS | {'lungs': 'f' * 64}}
  with pytest.raises(errors.UsageError, match='lungs model ffffffffffff'):
    operating_points.parse_case_threshold(_write(tmp_path, other)).require_same_models(
      fake_models.IDENTITIES
    )


@pytest.mark.parametrize(
  'change',
  [
    {'schema_version': 2},
    {'case_corona_score_cm3': None},
    {'case_corona_score_cm3': -1},
    {'case_corona_score_cm3': True},
    {'models': ['lungs']},
    {'models': {'lungs': 1}},
  ],
)
def test_what_is_no_operating_point_is_refused(tmp_path, change):
  with pytest.raises(errors.UsageError, match='required, found') as caught:
    operating_points.parse_case_threshold(_write(tmp_path, _CONTENT | change))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('text', ['', '[]', 'nonsense'])
def test_no_json_is_refused(tmp_path, text):
  with pytest.raises(errors.UsageError, match='required, found'):
    operating_points.parse_case_threshold(_write(tmp_path, text))


@pytest.mark.parametrize('text', ['-1', 'nan', 'inf', 'absent.json'])
def test_no_threshold_is_refused(text):
  with pytest.raises(errors.UsageError, match='required, found'):
    operating_points.parse_case_threshold(text)


def test_an_operating_point_holds_for_its_own_thickness(tmp_path):
  number = operating_points.parse_case_threshold('7.5')
  number.require_same_analysis(results.Thresholds(thickness_mm=3))
  for stated, same, other, flag in (
    ({'thickness_mm': 5.0}, {'thickness_mm': 5}, {'thickness_mm': 3}, 'thickness-mm 5'),
    ({'thickness_mm': 5.0}, {'thickness_mm': 5}, {'every_slice': True}, 'mm 5'),
    ({'thickness_mm': None}, {'every_slice': True}, {'thickness_mm': 5}, 'every-slice'),
    ({}, {'every_slice': True}, {'thickness_mm': 5}, 'every-slice'),
  ):
    path = _write(tmp_path, _CONTENT | stated)
    threshold = operating_points.parse_case_threshold(path)
    threshold.require_same_analysis(results.Thresholds(**same))
    thick = (results.Thresholds(**other), False)  # Nothing is averaged.
    if flag == 'every-slice':
      threshold.require_same_analysis(*thick)
    with pytest.raises(errors.UsageError, match=f'give --.*{flag}, or'):
      threshold.require_same_analysis(results.Thresholds(**other))
  smooth = operating_points.parse_case_threshold(
    _write(tmp_path, _CONTENT | {'smoothing_mm': 6.0})
  )
  smooth.require_same_analysis(results.Thresholds(smoothing_mm=6, every_slice=True))
  number.require_same_analysis(results.Thresholds(smoothing_mm=6, every_slice=True))
  for other in (0, 3):
    with pytest.raises(errors.UsageError, match='score with --smoothing-mm 6, or'):
      smooth.require_same_analysis(
        results.Thresholds(smoothing_mm=other, every_slice=True)
      )
  for stated, same, other in (
    ({}, {}, {'slice_probability': 0.4}),
    ({'slice_probability': 0.4}, {'slice_probability': 0.4}, {}),
    ({}, {'map': 0.6}, {'map': 0.3}),
    ({'map': 0.3}, {'map': 0.3}, {'map': 0.6}),
  ):
    chosen = operating_points.parse_case_threshold(_write(tmp_path, _CONTENT | stated))
    chosen.require_same_analysis(results.Thresholds(**same))
    number.require_same_analysis(results.Thresholds(**other))
    with pytest.raises(errors.UsageError, match='give --(slice|map)-threshold 0'):
      chosen.require_same_analysis(results.Thresholds(**other))
  for name in ('map', 'slice_probability'):
    with pytest.raises(errors.UsageError, match=f'{name} must be a number from 0 to'):
      operating_points.parse_case_threshold(_write(tmp_path, _CONTENT | {name: 'x'}))
  for wrong in (-1, 'much', [5], 1e9):
    path = _write(tmp_path, _CONTENT | {'smoothing_mm': wrong})
    with pytest.raises(errors.UsageError, match='smoothing_mm must be millimetres'):
      operating_points.parse_case_threshold(path)
  for wrong in (0, 'thick', [5], 1e9):
    path = _write(tmp_path, _CONTENT | {'thickness_mm': wrong})
    with pytest.raises(errors.UsageError, match='thickness_mm must be millimetres'):
      operating_points.parse_case_threshold(path)
