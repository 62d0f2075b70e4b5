import itertools

import numpy as np
import pytest
import scored_studies

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.cohort.follow_up import course
from covid_tf.cohort.follow_up import report
from covid_tf.cohort.follow_up import trend
from covid_tf.storage import maps
from covid_tf.storage import result_json

_KEY = 'ab' * 32


def _study(root, name, date, **more):
  return scored_studies.write_study(
    root / name, maps=False, acquisition_date=date, **{'patient_key': _KEY} | more
  )


def test_studies_are_put_in_the_order_of_their_dates(tmp_path):
  paths = [
    _study(tmp_path, str(n), date)
    for n, date in enumerate(('2020-04-01', '2020-02-28', '2020-03-01'))
  ]
  found = course.follow_up(paths)
  assert [point.folder for point in found.points] == [paths[1], paths[2], paths[0]]
  assert [point.days for point in found.points] == [0, 2, 33]  # 2020 is a leap year.
  assert found.by_date and found.identity == 'patient_key' and not found.warnings


def test_without_every_date_the_given_order_stays_and_is_told(tmp_path):
  paths = [_study(tmp_path, 'a', '2020-04-01'), _study(tmp_path, 'b', None)]
  found = course.follow_up(paths)
  assert [point.folder for point in found.points] == paths
  assert [point.days for point in found.points] == [None, None]
  assert any('in the order given' in warning for warning in found.warnings)


def test_changes_are_those_of_the_results(tmp_path):
  small = (((-85, 45, -70), (18, 18, 24)),)
  large = (((-85, 45, -70), (34, 30, 34)),)
  paths = [
    _study(tmp_path, name, date, lesions=lesions)
    for name, date, lesions in (
      ('a', '2020-03-01', small),
      ('b', '2020-03-05', large),
      ('c', '2020-03-20', small),
    )
  ]
  found = course.follow_up(paths)
  scores = [result_json.read_result(path).corona_score_cm3 for path in paths]
  up, down = found.steps(course.SCORE)
  assert up.direction == course.RISING and down.direction == course.FALLING
  assert up.difference == pytest.approx(scores[1] - scores[0])
  assert down.relative == pytest.approx(scores[2] / scores[1] - 1)
  overall = found.overall(course.SCORE)
  assert overall.direction == course.UNCHANGED and overall.difference == 0
  basal = next(measure for measure in course.THIRDS if measure.region == 'basal')
  regions = [point.result.corona_score_by_region_cm3['basal'] for point in found.points]
  assert found.steps(basal)[0].difference == pytest.approx(regions[1] - regions[0])


@pytest.mark.parametrize(
  'earlier, later, direction, relative',
  [
    (10, 12, 'rising', 0.2),
    (12, 9, 'falling', -0.25),
    (0, 0, 'unchanged', None),
    (0, 3, 'rising', None),
    (5000, 5003, 'unchanged', 0.0006),
    (4, 0, 'falling', -1),
  ],
)
def test_a_change_has_a_direction(earlier, later, direction, relative):
  found = course.change(earlier, later)
  assert (found.direction, found.relative) == (direction, pytest.approx(relative))
  assert found.difference == later - earlier


def test_another_patient_is_refused_even_when_vouched_for(tmp_path):
  other = 'cd' * 32
  paths = [
    _study(tmp_path, 'a', '2020-03-01'),
    _study(tmp_path, 'b', '2020-03-02', patient_key=other),
  ]
  for vouched in (False, True):
    with pytest.raises(errors.UsageError, match='another patient_key') as raised:
      course.follow_up(paths, same_patient=vouched)
    assert str(paths[1]) in str(raised.value)
    assert other not in str(raised.value) and _KEY not in str(raised.value)


def test_without_a_key_someone_must_vouch(tmp_path):
  paths = [
    _study(tmp_path, 'a', '2020-03-01', patient_key=None),
    _study(tmp_path, 'b', '2020-03-02'),
  ]
  with pytest.raises(errors.UsageError, match='--same-patient'):
    course.follow_up(paths)
  found = course.follow_up(paths, same_patient=True)
  assert found.identity == 'stated'
  assert any('the user stated it' in warning for warning in found.warnings)


@pytest.mark.parametrize(
  'changes, kind',
  [
    ({'models': (results.ModelIdentity('lungs', 3, '0' * 64),)}, 'models'),
    ({'thresholds': results.Thresholds(map=0.55)}, 'slice and map thresholds'),
  ],
)
def test_results_that_do_not_compare_are_refused_unless_asked(tmp_path, changes, kind):
  paths = [
    _study(tmp_path, 'a', '2020-03-01'),
    _study(tmp_path, 'b', '2020-03-02', changes=changes),
  ]
  with pytest.raises(errors.UsageError, match=f'found 2 {kind}.*: .*--allow-mixed'):
    course.follow_up(paths)
  found = course.follow_up(paths, allow_mixed=True)
  assert any(f'different {kind}' in warning for warning in found.warnings)


def test_a_case_threshold_alone_makes_no_difference(tmp_path):
  changes = {'thresholds': results.Thresholds(case_corona_score_cm3=9.0)}
  paths = [
    _study(tmp_path, 'a', '2020-03-01'),
    _study(tmp_path, 'b', '2020-03-02', changes=changes),
  ]
  assert not course.follow_up(paths).warnings


def test_two_different_studies_are_required(tmp_path):
  path = _study(tmp_path, 'a', '2020-03-01')
  copy = _study(tmp_path, 'b', '2020-03-01', series_uid='1.2.3.a')
  with pytest.raises(errors.UsageError, match='two or more results'):
    course.follow_up([path])
  for second in (path, path / 'result.json', copy):
    with pytest.raises(errors.UsageError, match='found the series of'):
      course.follow_up([path, second])


@pytest.mark.parametrize('factor, warned', [(1.15, False), (1.3, True)])
def test_another_depth_of_breath_is_told(tmp_path, factor, warned):
  first = _study(tmp_path, 'a', '2020-03-01')
  volume = result_json.read_result(first).lung_volume_cm3
  second = _study(
    tmp_path, 'b', '2020-03-02', changes={'lung_volume_cm3': factor * volume}
  )
  warnings = course.follow_up([first, second]).warnings
  assert any('depth of breath' in warning for warning in warnings) == warned


@pytest.mark.parametrize(
  'reverse', [axes for n in range(4) for axes in itertools.combinations(range(3), n)]
)
def test_levels_are_counted_from_the_base_whatever_the_order(tmp_path, reverse):
  folder = scored_studies.write_study(tmp_path / 'a', reverse=reverse)
  result = result_json.read_result(folder)
  mask, map_, affine = maps.read_maps(folder, result)
  heights = [
    affine[2, 3] + affine[2, 0] * index for index in report.level_slices(mask, affine)
  ]
  # The lungs reach from -130 to 130 mm: 80 % of the height is 78 mm, and so on.
  np.testing.assert_allclose(heights, (78, 26, -26, -78), atol=16)
  assert heights == sorted(heights, reverse=True)
  # The lesion of the right lung is left in the picture of the lowest level.
  point = course.TimePoint(result, folder, None)
  lowest = report.study_maps(point).levels[-1]
  assert lowest.score_cm3 == result.corona_score_by_slice_cm3[lowest.index] > 0
  assert map_.slices == result.positive_slices and lowest.picture.counted_path
  start = float(lowest.picture.counted_path[1:].split(' ')[0]) / 10
  assert start < report.study_maps(point).view.size_mm[1] / 2


def test_maps_of_another_study_are_refused(tmp_path):
  folder = scored_studies.write_study(tmp_path / 'a')
  result = result_json.read_result(folder)
  (folder / 'localization.nii.gz').write_bytes(b'\x1f\x8bnothing')
  with pytest.raises(errors.UsageError, match='localization.nii.gz.*score the study'):
    maps.read_maps(folder, result)
  other = scored_studies.write_study(tmp_path / 'b', reverse=(0,))
  (other / 'localization.nii.gz').replace(folder / 'localization.nii.gz')
  with pytest.raises(errors.UsageError, match='on one grid'):
    maps.read_maps(folder, result)


@pytest.mark.parametrize(
  'dates, label, ticks',
  [
    (('2020-03-01', '2020-03-01'), 'Study, all of one day', ['1', '2']),
    (
      ('2020-03-01', '2020-03-02'),
      'Date of the study (1 day in all)',
      ['2020-03-01', '2020-03-02'],
    ),
    ((None, None), 'Study', ['1', '2']),
  ],
)
def test_the_course_is_drawn_over_whole_days_or_studies(tmp_path, dates, label, ticks):
  """Old: studies of one day on an axis from -0.06 to 0.06 days."""
  paths = [_study(tmp_path, str(n), date) for n, date in enumerate(dates)]
  figure = trend.trend_figure(course.follow_up(paths))
  for axes in figure.axes:
    assert axes.get_xlabel() == label
    low, high = axes.get_xlim()
    shown = [
      text.get_text()
      for place, text in zip(axes.get_xticks(), axes.get_xticklabels())
      if low <= place <= high
    ]
    assert shown == ticks


@pytest.mark.parametrize(
  'first, second, told',
  (
    ({'kernel': 'B40f'}, {'kernel': 'B60f'}, ['kernel (B40f, B60f)']),
    ({'kernel': 'B40f'}, {'kernel': None}, []),
    (
      {'contrast': True, 'model': 'A'},
      {'contrast': False, 'model': 'B'},
      ['scanner (A, B)', 'contrast (given, none given)'],
    ),
    ({'model': 'A', 'manufacturer': 'GE'}, {'model': 'a', 'manufacturer': 'Ge'}, []),
  ),
)
def test_scans_of_other_kinds_are_told(tmp_path, first, second, told):
  paths = [
    _study(
      tmp_path,
      name,
      date,
      changes={'acquisition': volume_lib.Acquisition(**acquired)},
    )
    for name, date, acquired in (
      ('a', '2020-03-01', first),
      ('b', '2020-03-05', second),
    )
  ]
  warnings = course.follow_up(paths).warnings
  assert [
    text.split(' differ in ')[1].split('),')[0] + ')' for text in warnings
  ] == told


def test_lungs_that_are_cut_off_in_one_study_are_told(tmp_path):
  cut = ('Lungs reach the highest slice (200 cm² there): …',)
  paths = [
    _study(tmp_path, 'a', '2020-03-01'),
    _study(tmp_path, 'b', '2020-03-05', changes={'warnings': cut}),
  ]
  (text,) = course.follow_up(paths).warnings
  assert text.startswith('In 1 of 2 studies lungs are cut off')


def test_a_change_is_judged_by_the_scores_repeatability(tmp_path):
  small, large = (((-85, 45, -70), (18, 18, 24)),), (((-85, 45, -70), (34, 30, 34)),)
  known = lung_measures.Repeatability(cm3=0.5, relative=0.2)
  vague = lung_measures.Repeatability(cm3=0.5, relative=5.0)

  def followed(name, *stated):
    return course.follow_up(
      [
        _study(
          tmp_path,
          f'{name}0',
          '2020-03-01',
          lesions=small,
          changes={'repeatability': stated[0]},
        ),
        _study(
          tmp_path,
          f'{name}1',
          '2020-03-05',
          lesions=large,
          changes={'repeatability': stated[1]},
        ),
      ]
    )

  sure = followed('sure', known, known)
  scores = [point.result.corona_score_cm3 for point in sure.points]
  assert sure.limit_cm3 == pytest.approx(max(0.5, 0.2 * sum(scores) / 2))
  assert sure.exceeds and 'more than the' in sure.repeatability_in_words
  unsure = followed('unsure', known, vague)  # The larger one of two counts.
  assert unsure.limit_cm3 == pytest.approx(5.0 * sum(scores) / 2)
  assert unsure.exceeds is False and 'no more than' in unsure.repeatability_in_words
  unknown = followed('unknown', known, None)
  assert unknown.limit_cm3 is None and unknown.exceeds is None
  assert 'is not known' in unknown.repeatability_in_words
  assert report.to_dict(unknown)['repeatability'] == {
    'limit_cm3': None,
    'exceeded': None,
  }
  assert report.to_dict(sure)['repeatability']['exceeded'] is True
