"""What users do with a result: save, plot, show, read back, put into a table."""

import dataclasses
import html.parser
import io
import json
import re

import matplotlib.figure
import numpy as np
from PIL import Image
import pytest
import synthetic_case

import covid_tf
from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf.analysis import key_planes
from covid_tf.storage import maps
from covid_tf.storage import result_json

_SHAPE = (17, 42, 64)
_SPACING = (16.0, 6.0, 6.0)
_SECRET = 'a' * 64


@pytest.fixture(scope='module')
def volume():
  affine = synthetic_case.axial_affine(_SPACING, _SHAPE)
  return synthetic_case.make_volume(affine, _SHAPE, patient_key=_SECRET)


@pytest.fixture(scope='module')
def result(volume):
  made = synthetic_case.measured(volume, synthetic_case.make_result(volume))
  planes = key_planes.of_volume(volume, key_planes.places_of(made))
  return dataclasses.replace(made, key_planes=planes)


@pytest.fixture(scope='module')
def saved(result, volume, tmp_path_factory):
  return result.save(tmp_path_factory.mktemp('saved') / 'result', volume)


def test_save_writes_what_score_writes(saved):
  assert {path.name for path in saved.iterdir()} >= {
    'result.json',
    'report.html',
    'localization.nii.gz',
    'lung_mask.nii.gz',
  }


def test_to_dict_is_the_content_of_result_json(result, saved):
  content = json.loads((saved / 'result.json').read_text())
  assert json.loads(json.dumps(result.to_dict())) == content


@pytest.mark.parametrize('place', ('', 'result.json'))
def test_a_result_comes_back_as_it_was(result, saved, place):
  back = covid_tf.load_result(saved / place)
  for field in dataclasses.fields(results.CaseResult):
    before, after = getattr(result, field.name), getattr(back, field.name)
    if field.name in ('localization', 'key_planes', 'models'):
      continue
    if isinstance(before, np.ndarray):
      np.testing.assert_array_equal(before, after, err_msg=field.name)
      assert before.dtype == after.dtype, field.name
    else:
      assert before == after or field.name == 'thresholds', field.name
  np.testing.assert_array_equal(
    result.localization.to_volume(), back.localization.to_volume()
  )
  assert back.to_dict() == result.to_dict()
  assert [one.card_sha256 for one in back.models] == [
    one.card_sha256 for one in result.models
  ]


@pytest.mark.parametrize('orientation', ('RAI', 'LPS', 'PLS'))
def test_what_came_back_is_saved_to_the_same_files(volume, tmp_path, orientation):
  turned = volume.hu.transpose(0, 2, 1) if orientation == 'PLS' else volume.hu
  spacing = (16.0, 6.0, 6.0)
  ct = covid_tf.CTVolume.from_array(turned, spacing_mm=spacing, orientation=orientation)
  made = synthetic_case.make_result(
    dataclasses.replace(volume, hu=ct.hu, affine=ct.affine, series_uid=''),
    stored_grid=ct.stored_grid,
  )
  made.save(tmp_path / 'one', ct)
  covid_tf.load_result(tmp_path / 'one').save(tmp_path / 'two', ct)
  for name in ('lung_mask.nii.gz', 'localization.nii.gz', 'result.json'):
    assert (tmp_path / 'one' / name).read_bytes() == (
      tmp_path / 'two' / name
    ).read_bytes()
  assert maps.read(tmp_path / 'two' / 'lung_mask.nii.gz')[0].shape == made.shape


def test_another_ct_is_refused(result, volume, tmp_path):
  moved = dataclasses.replace(
    volume, affine=volume.affine + np.eye(4)[:, [3]] @ np.eye(4)[[3]] * 0
  )
  other = dataclasses.replace(volume, hu=volume.hu[:-1], affine=moved.affine)
  marked = dataclasses.replace(result, hu_sha256='0' * 64)
  for call in (
    lambda: result.save(tmp_path / 'x', other),
    lambda: marked.save(tmp_path / 'x', volume),
    lambda: result.save(tmp_path / 'x', 'study/'),
    lambda: result.plot(other),
    lambda: result.plot(volume.hu),
  ):
    with pytest.raises(errors.UsageError, match='volume: .*found'):
      call()
  assert not (tmp_path / 'x').exists()


def test_nothing_appears_where_a_file_stands(result, volume, tmp_path):
  (tmp_path / 'x').write_text('')
  with pytest.raises(covid_tf.OutputError, match='a file stands'):
    result.save(tmp_path / 'x', volume)
  for nowhere in (None, 5):
    with pytest.raises(errors.UsageError, match='folder: a folder .*found'):
      result.save(nowhere, volume)


@pytest.mark.parametrize('lost', ('lung_mask.nii.gz', 'localization.nii.gz'))
def test_maps_that_are_missing_are_named(result, volume, tmp_path, lost):
  folder = result.save(tmp_path / 'x', volume)
  (folder / lost).unlink()
  with pytest.raises(errors.UsageError, match=lost):
    covid_tf.load_result(folder)


@pytest.mark.parametrize('given', (None, 3, {'a': 1}))
def test_what_is_no_folder(given):
  with pytest.raises(errors.UsageError, match='folder'):
    covid_tf.load_result(given)
  with pytest.raises(errors.UsageError, match='folder'):
    covid_tf.results_table([given])


def test_a_figure_shows_itself(result):
  figure = result.plot()
  assert isinstance(figure, matplotlib.figure.Figure)
  picture = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert('RGB'))
  assert picture.shape[0] > 200 and picture.shape[1] > 500
  titles = [axes.get_title() for axes in figure.axes]
  assert titles[0].startswith('Slice ') and titles[1:3] == ['Coronal', 'From the front']
  # Colours of the map stand where the lesion is.
  red = (picture[..., 0].astype(int) - picture[..., 2] > 60).mean()
  assert red > 0.002


def test_the_same_planes_with_and_without_the_ct(result, volume):
  by_volume = result.plot(volume)
  assert by_volume._repr_png_() == result.plot()._repr_png_()


def test_a_result_that_came_back_says_that_it_has_no_ct(saved, volume):
  back = covid_tf.load_result(saved)
  assert 'plot(volume) shows it' in _texts(back.plot())
  assert 'plot(volume)' not in _texts(back.plot(volume))


def _texts(figure):
  return ' '.join(text.get_text().replace('\n', ' ') for text in figure.texts)


def test_planes_are_chosen_where_the_score_is(result):
  axial, axis, row = key_planes.places_of(result)
  assert axial == int(np.argmax(result.corona_score_by_slice_cm3))
  assert axis == 1
  counted = result.localization.to_volume() > result.thresholds.map
  assert (counted & (result.lung_mask > 0))[:, row].any()


def test_a_healthy_result_has_planes_too(volume):
  healthy = synthetic_case.make_result(volume, lesions=())
  assert healthy.corona_score_cm3 == 0
  axial, _, row = key_planes.places_of(healthy)
  assert healthy.lung_mask[axial].any() and healthy.lung_mask[:, row].any()
  assert healthy.plot()._repr_png_()


def test_columns_that_run_to_the_back_are_still_shown_coronal(volume):
  turned = covid_tf.CTVolume.from_array(
    volume.hu.transpose(0, 2, 1), spacing_mm=_SPACING, orientation='PLS'
  )
  made = synthetic_case.make_result(
    dataclasses.replace(volume, hu=turned.hu, affine=turned.affine)
  )
  assert key_planes.places_of(made)[1] == 2
  figure = made.plot(turned)
  letters = [text.get_text() for text in figure.axes[1].texts]
  assert letters == ['R', 'L', 'H']


def test_a_line_says_what_it_is(result):
  text = repr(result)
  assert f'{result.corona_score_cm3:.1f} cm³' in text and len(text) < 200
  assert 'DEMO' not in text
  assert 'DEMO MODELS' in repr(dataclasses.replace(result, demo_models=True))
  assert len(repr(result.localization)) < 200


class _Balanced(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.open, self.tags = [], set()

  def handle_starttag(self, tag, attributes):
    self.open.append(tag)
    self.tags.add(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_a_table_is_small_escaped_and_names_nobody(result):
  bad = '<script>alert(1)</script>' + 'x' * 500
  table = dataclasses.replace(
    result, warnings=(bad,) * 9, demo_models=True
  )._repr_html_()
  parser = _Balanced()
  parser.feed(table)
  assert not parser.open and parser.tags == {'table', 'caption', 'tr', 'th', 'td'}
  assert len(table) < 4000 and '6 more' in table and 'Demo models' in table
  assert f'{result.lung_volume_cm3:,.0f} cm³' in table
  for hidden in (_SECRET, result.study_uid, result.series_uid, '2020-03-14'):
    assert hidden not in table
    assert hidden not in repr(result)


def test_reading_knows_nothing_that_a_file_did_not_say(volume):
  assert 'patient_key' not in repr(volume) and _SECRET not in repr(volume)


def test_a_result_is_scored_again_from_what_was_saved(tmp_path, volume):
  path = synthetic_case.write_nifti(tmp_path / 'ct.nii.gz', volume)
  ct = readers.read_ct(path)
  made = synthetic_case.make_result(
    dataclasses.replace(ct, study_uid='', series_uid='')
  )
  folder = made.save(tmp_path / 'result', ct)
  again = covid_tf.rescore(folder, ct)
  assert again.corona_score_cm3 == pytest.approx(made.corona_score_cm3, rel=1e-6)
  assert re.search('positive', repr(again)) and again.key_planes is not None
  assert result_json.read_result(folder).hu_sha256 is None
