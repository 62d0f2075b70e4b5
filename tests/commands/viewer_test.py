"""`covid-tf viewer`: the page of a stored result, or one line that says why not."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
import scored_studies

from covid_tf import cli
from covid_tf.reports import case_viewer
from covid_tf.storage import maps

_NIFTI = {'study_uid': '', 'series_uid': '', 'acquisition_date': None}
_SWALLOWED = '<img src=x onerror=alert(1)> "&\''


@pytest.fixture(name='place', scope='module')
def _place(tmp_path_factory):
  """ct.nii with its result/, and three other studies."""
  root = tmp_path_factory.mktemp('viewer')
  scored_studies.write_study(root / 'result', ct=root / 'ct.nii', **_NIFTI)
  shape = (15, *scored_studies.SHAPE[1:])
  scored_studies.write_study(root / 'a', ct=root / 'short.nii', shape=shape, **_NIFTI)
  moved = {'shift_mm': (9, 0, 0), **_NIFTI}
  scored_studies.write_study(root / 'b', ct=root / 'moved.nii', **moved)
  lesions = {'lesions': (), **_NIFTI}
  scored_studies.write_study(root / 'c', ct=root / 'healthy.nii', **lesions)
  return root


def _run(*arguments) -> int:
  try:
    return cli.main(['viewer', *map(str, arguments)])
  except SystemExit as end:
    return end.code or 0


def _refused(capsys, status, *arguments) -> str:
  assert _run(*arguments) == status
  said = capsys.readouterr().err.strip()
  assert said.startswith('covid-tf viewer: ') and len(said.splitlines()) == 1
  return said


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_page_appears_in_the_result_whose_files_stay(place, tmp_path, capsys):
  result = tmp_path / 'result'
  scored_studies.write_study(result, ct=tmp_path / 'ct.nii', **_NIFTI)
  (result / 'report.html').write_text('mine')
  before = _contents(result)
  assert _run(result, '--study', tmp_path / 'ct.nii') == 0
  assert str(result / 'viewer.html') in capsys.readouterr().out
  after = _contents(result)
  page = after.pop('viewer.html').decode()
  assert after == before
  assert '<a href="report.html">Report</a>' in page
  assert 'study of' not in page and 'None' not in page.partition('<script')[0]


def test_elsewhere_it_links_no_report_that_is_of_another_case(place, tmp_path):
  (tmp_path / 'report.html').write_text('of somebody else')
  page = tmp_path / 'new' / 'page.HTML'
  for path in (page, tmp_path / 'page.html'):
    study = ('--study', place / 'ct.nii')
    assert _run(place / 'result' / 'result.json', *study, '--output', path) == 0
    text = path.read_text('utf-8')
    assert 'report.html' not in text and 'The report of covid-tf score' in text
    assert 'tmp' not in text.partition('<script')[0].replace('html', '')


def test_a_dicom_result_names_its_series(tmp_path):
  ct = {'ct': tmp_path / 'study', **scored_studies.CT_GRID}
  result = scored_studies.write_study(tmp_path / 'r', series_uid='1.2.3.4', **ct)
  other = {'ct': tmp_path / 'study' / 'other', **scored_studies.CT_GRID}
  scored_studies.write_study(tmp_path / 's', series_uid='1.2.3.5', **other)
  study = ('--study', tmp_path / 'study')
  assert _run(result, *study, '--select', 'newest') == 0
  assert (result / 'viewer.html').exists()


def test_a_result_of_two_slices_has_a_page(tmp_path):
  two = {'ct': tmp_path / 'ct.nii', 'shape': (2, *scored_studies.SHAPE[1:]), **_NIFTI}
  result = scored_studies.write_study(tmp_path / 'result', **two)
  assert _run(result, '--study', tmp_path / 'ct.nii') == 0
  page = (result / 'viewer.html').read_text('utf-8')
  assert '2 slices every 16 mm' in page and 'The whole CT is here.' in page


def test_names_that_html_would_swallow_are_not_in_the_page(tmp_path):
  ct = tmp_path / f'{_SWALLOWED}.nii'
  result = scored_studies.write_study(tmp_path / _SWALLOWED, ct=ct, **_NIFTI)
  page = result / f'{_SWALLOWED}.html'
  assert _run(result, '--study', ct, '--output', page) == 0
  assert '<img' not in page.read_text('utf-8').partition('id="niivue"')[0]


def test_what_a_result_says_of_itself_runs_nowhere(tmp_path):
  ct = tmp_path / 'ct.nii'
  result = scored_studies.write_study(tmp_path / 'result', ct=ct, **_NIFTI)
  path = result / 'result.json'
  content = json.loads(path.read_text('utf-8'))
  content['software'] = content['study_uid'] = f'</script>{_SWALLOWED}'
  content['warnings'] = [f'</script>{_SWALLOWED}']
  content['models'][0]['name'] = f'</script>{_SWALLOWED}'
  path.write_text(json.dumps(content))
  assert _run(result, '--study', ct) == 0
  text = (result / 'viewer.html').read_text('utf-8')
  assert '<img' not in text.partition('id="niivue"')[0]
  assert '&lt;img' in text


@pytest.mark.parametrize(
  'study, words',
  [
    ('gone.nii', 'gone.nii: the study of'),
    ('short.nii', 'found one of another series ((17, 42, 64)'),
    ('moved.nii', 'in the place and the order of its CT is required'),
    ('healthy.nii', 'found one of other voxels'),
  ],
)
def test_another_study_or_none_is_refused(study, words, place, tmp_path, capsys):
  page = tmp_path / 'page.html'
  study = ('--study', place / study)
  assert words in _refused(capsys, 2, place / 'result', *study, '--output', page)
  assert os.listdir(tmp_path) == []


def test_a_study_that_cannot_be_read_is_refused(place, tmp_path, capsys):
  (tmp_path / 'empty').mkdir()
  study = ('--study', tmp_path / 'empty')
  assert 'empty' in _refused(capsys, 3, place / 'result', *study)
  assert case_viewer.FILE_NAME not in os.listdir(place / 'result')


@pytest.mark.parametrize('name', ['nothing', 'folder', 'ct.nii'])
def test_what_is_no_result_is_refused(name, place, tmp_path, capsys):
  (tmp_path / 'folder').mkdir()
  result = (place if name.endswith('.nii') else tmp_path) / name
  said = _refused(capsys, 2, result, '--study', place / 'ct.nii')
  assert 'result.json' in said and name in said


def test_a_result_without_its_map_is_refused(place, tmp_path, capsys):
  bare = scored_studies.write_study(tmp_path / 'bare', maps=False, **_NIFTI)
  said = _refused(capsys, 2, bare, '--study', place / 'ct.nii')
  assert 'lung_mask.nii.gz' in said and 'score the study again' in said


def test_a_map_of_another_grid_is_refused(place, tmp_path, capsys):
  ct = tmp_path / 'ct.nii'
  result = scored_studies.write_study(tmp_path / 'result', ct=ct, **_NIFTI)
  other = (place / 'a' / 'localization.nii.gz').read_bytes()
  (result / 'localization.nii.gz').write_bytes(other)
  said = _refused(capsys, 2, result, '--study', ct)
  assert 'localization.nii.gz: the grid of result.json is required' in said


def test_an_edited_mask_is_not_shown_as_that_of_the_score(place, tmp_path, capsys):
  ct = tmp_path / 'ct.nii'
  result = scored_studies.write_study(tmp_path / 'result', ct=ct, **_NIFTI)
  mask, affine = maps.read(result / maps.MASK_NAME)
  mask = np.where(np.arange(mask.shape[0])[:, None, None] > 8, mask, 0)
  image = nib.Nifti1Image(mask.T.astype(np.uint8), maps.ras_affine(affine))
  image.header.set_xyzt_units('mm')
  nib.save(image, result / maps.MASK_NAME)
  assert 'covid-tf rescore takes it' in _refused(capsys, 2, result, '--study', ct)


@pytest.mark.parametrize(
  'output, status',
  [('result.json', 2), ('report.html', 2), ('folder', 2), ('file/page.html', 5)],
)
def test_only_a_page_of_its_own_is_written(output, status, place, tmp_path, capsys):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'file').write_text('mine')
  study = ('--study', place / 'ct.nii', '--output', tmp_path / output)
  assert output in _refused(capsys, status, place / 'result', *study)
  assert sorted(os.listdir(tmp_path)) == ['file', 'folder']
