import base64
import io
import re

import numpy as np
from PIL import Image
import pytest
import scored_studies

from covid_tf import errors
from covid_tf.cohort.follow_up import course
from covid_tf.cohort.follow_up import ct_files
from covid_tf.cohort.follow_up import ct_pictures
from covid_tf.cohort.follow_up import zones

_KEY = 'ab' * 32
_LARGE = (((-85, 45, -70), (34, 30, 34)),)
_SMALL = (((-85, 45, -70), (20, 18, 26)),)


def _compared(tmp_path, *studies):
  paths = [
    scored_studies.write_study(
      tmp_path / 'results' / str(number),
      ct=tmp_path / 'ct' / str(number),
      patient_key=_KEY,
      measured=True,
      acquisition_date=f'2020-03-{number + 1:02}',
      **scored_studies.CT_GRID | study,
    )
    for number, study in enumerate(studies)
  ]
  follow_up = course.follow_up(paths)
  return follow_up, ct_pictures.compare(follow_up, ct_files.find(tmp_path / 'ct'))


@pytest.fixture(scope='module', name='three')
def _three(tmp_path_factory):
  """One patient, shifted and on other grids; the lesion grows and shrinks."""
  return _compared(
    tmp_path_factory.mktemp('three'),
    {'lesions': _SMALL},
    {
      'lesions': _LARGE,
      'shift_mm': (20, -15, 60),
      'spacing_mm': (8.0, 5.0, 5.0),
      'shape': (34, 50, 76),
      'reverse': (1, 2),  # Prone: rows and columns run the other way.
    },
    {'lesions': _SMALL, 'shift_mm': (-10, 5, -300), 'shape': (18, 50, 76)},
  )


def _grey(picture):
  data = base64.b64decode(picture.grey_uri.partition(',')[2])
  return np.asarray(Image.open(io.BytesIO(data)).convert('L'), float)


def test_all_studies_are_on_the_planes_of_the_first(three):
  _, compared = three
  titles = [plane.title for plane in compared.planes]
  assert titles[-1] == 'Coronal, most affected of study 2'
  assert 'Most affected, of study 2' in titles and '80 % of lung height' in titles
  for study in compared.studies:
    assert len(study.pictures) == len(study.captions) == len(compared.planes)
  assert compared.studies[0].alignment is None
  for study in compared.studies[1:]:
    assert study.alignment.mean_mm < 2
  np.testing.assert_allclose(
    compared.studies[1].alignment.to_other(np.zeros(3)), (20, -15, 60), atol=2
  )


def test_the_same_place_shows_the_same_anatomy(three):
  """Heart, lungs and spine lie on each other, whatever grid and order of slices."""
  _, compared = three
  for number in range(len(compared.planes) - 1):
    first, *others = [_grey(study.pictures[number]) for study in compared.studies]
    for other in others:
      assert other.shape == first.shape
      assert np.abs(first - other).mean() < 14  # Of 255; apart by 20 mm: over 30.


def test_the_lesion_lies_right_and_dorsal_in_every_study(three):
  _, compared = three
  number = next(
    number
    for number, plane in enumerate(compared.planes)
    if plane.title.startswith('Most affected')
  )
  height, width = compared.planes[number].view.size_mm
  places = []
  for study in compared.studies:
    start = re.match(r'M(-?\d+) (-?\d+)', study.pictures[number].counted_path)
    x, y = (int(text) / 10 for text in start.groups())
    assert x < width / 2 and y > height / 2
    places.append((x, y))
  assert np.ptp(places, axis=0).max() < 40


def test_the_most_affected_place_is_where_the_lesion_is(three):
  _, compared = three
  (plane,) = [plane for plane in compared.planes if plane.title.startswith('Most aff')]
  assert plane.points_mm[0, 0, 2] == pytest.approx(-70, abs=12)
  assert compared.planes[-1].points_mm[0, 0, 1] == pytest.approx(45, abs=12)


def test_captions_name_the_slices_of_each_study(three):
  _, compared = three
  for study in compared.studies:
    assert all(re.match(r'slices? \d+', text) for text in study.captions[:-1])
  assert compared.studies[0].captions[0] != compared.studies[1].captions[0]


def test_without_a_score_there_is_no_most_affected_place(tmp_path):
  healthy = {'lesions': ()}
  _, compared = _compared(tmp_path, healthy, healthy | {'shape': (18, 50, 76)})
  assert len(compared.planes) == len(ct_pictures.LEVELS) + 1
  assert compared.planes[-1].title == 'Coronal, the middle of the lungs'


def test_two_slices_are_refused_by_the_name_of_the_result(tmp_path):
  with pytest.raises(errors.UsageError) as raised:
    _compared(tmp_path, {}, {'shape': (2, 50, 76), 'spacing_mm': (20.0, 5.0, 5.0)})
  text = str(raised.value)
  assert text.startswith(str(tmp_path / 'results' / '1'))
  assert 'cannot be aligned' in text and '2 slice(s) with lung' in text


def test_pictures_get_coarser_before_the_page_grows(monkeypatch, tmp_path):
  monkeypatch.setattr(ct_pictures, '_BUDGET_PIXELS', 200_000)
  _, compared = _compared(tmp_path, {}, {'shift_mm': (5, 5, 5), 'lesions': _SMALL})
  pixels = sum(
    _grey(picture).size for study in compared.studies for picture in study.pictures
  )
  assert 120_000 < pixels < 230_000


def test_zones_move_with_the_lesion(three):
  follow_up, _ = three
  courses = zones.zone_courses(follow_up)
  involved, mean, *_ = courses['right_basal']
  assert involved.measure.name == 'involved_share'
  assert involved.values[1] > involved.values[0] > 0
  first, last = (follow_up.points[place].result for place in (0, -1))
  assert mean.values[0] == first.densities.regions['right_basal'].mean_hu
  assert mean.change.difference == mean.values[-1] - mean.values[0]
  assert last.zone_score.shares['right_basal'] == involved.values[-1]
  assert courses['left_apical'][0].values == (0, 0, 0)
  stored = zones.to_dict(follow_up)['right_basal']['mean_density_hu']
  assert stored['by_study'] == list(mean.values)
