import os
import re
import shutil

import pytest
import report_page
import scored_studies
import synthetic_case

from covid_tf import cli
from covid_tf import errors
from covid_tf.cohort import results as results_lib
from covid_tf.cohort.review import contact_sheet
from covid_tf.cohort.review import decisions
from covid_tf.reports import case_report
from covid_tf.reports import scored_study

_SHAPE, _SPACING_MM = scored_studies.SHAPE, scored_studies.SPACING_MM


@pytest.fixture(name='archive', scope='module')
def _archive(tmp_path_factory):
  """Four results: with report, without, with a doubtful mask, without maps."""
  root = tmp_path_factory.mktemp('archive')
  affine = synthetic_case.axial_affine(_SPACING_MM, _SHAPE)
  volume = synthetic_case.make_volume(affine, _SHAPE)
  result = synthetic_case.make_result(volume)
  (root / 'site' / 'whole').mkdir(parents=True)
  scored_study.write_all(root / 'site' / 'whole', result, volume, demo_models=False)
  scored_studies.write_study(root / 'site' / 'plain')
  mask = result.lung_mask.copy()
  mask[8] = 0
  scored_studies.write_study(root / 'odd', changes={'lung_mask': mask})
  scored_studies.write_study(root / 'bare', maps=False)
  (root / 'site' / 'failed').mkdir()
  (root / 'site' / 'failed' / 'result.json').write_text('{}')
  return root


@pytest.fixture(name='sheet', scope='module')
def _sheet(archive, tmp_path_factory):
  output = tmp_path_factory.mktemp('out') / 'sheet'
  assert cli.main(['review', str(archive), '--output', str(output)]) == 0
  return output


def test_the_most_doubtful_come_first_with_their_reasons(sheet):
  rows = decisions.tables.read_table(
    sheet / 'review.csv', ('result', 'decision', 'comment', 'doubts')
  )
  assert [row.cells['result'] for row in rows] == [
    'odd',
    'bare',
    'site/plain',
    'site/whole',
  ]
  assert all(row.cells['decision'] == '' for row in rows)
  assert 'above and below them: 8.' in rows[0].cells['doubts']
  page = report_page.Page((sheet / contact_sheet.FILE_NAME).read_bytes())
  names = [
    element.words()
    for element in page.all('h2')
    if element.words() in {'bare', 'odd', 'site/plain', 'site/whole'}
  ]
  assert names == ['odd', 'bare', 'site/plain', 'site/whole']
  text = (sheet / contact_sheet.FILE_NAME).read_text()
  assert 'above and below them: 8.' in text and 'No lung_mask.nii.gz' in text
  assert 'site/failed' in page.by_id('failed').words()
  assert '0 accepted, 0 rejected, 4 not reviewed.' in page.by_id('counts').words()


def test_pictures_come_from_reports_or_from_maps_and_the_page_stands_alone(
  sheet, archive
):
  page = report_page.Page((sheet / contact_sheet.FILE_NAME).read_bytes())
  assert len(page.all('image')) == 2  # CT and map of the one with a report.
  assert len(page.all('img')) == 3  # All but the one without maps.
  links = [element.attributes['href'] for element in page.all('a')]
  (link,) = links
  assert (sheet / link).resolve() == (archive / 'site/whole/report.html').resolve()
  for element in page.elements:
    for name in ('src', 'href', 'xlink:href'):
      address = element.attributes.get(name, '#')
      assert re.match('data:image/|#', address) or address in links
  assert len((sheet / contact_sheet.FILE_NAME).read_bytes()) < 100_000


def test_a_study_takes_a_few_kilobytes(archive, tmp_path):
  """Of a CT of usual size: a hundred on a page are a few MB."""
  report = tmp_path / 'report.html'
  shape = (24, 192, 192)
  affine = synthetic_case.axial_affine((12.0, 2.0, 2.0), shape)
  volume = synthetic_case.make_volume(affine, shape)
  case_report.write_report(report, synthetic_case.make_result(volume), volume)
  key = case_report.read_key_pictures(report)
  size = sum(
    map(
      len,
      (
        key.coronal.grey_uri,
        key.coronal.heat_uri,
        key.coronal.lung_path,
        key.coronal.counted_path,
        key.front_uri,
      ),
    )
  )
  assert size < 40_000


def test_decisions_stay_when_the_sheet_is_written_again(archive, tmp_path, capsys):
  output = tmp_path / 'sheet'
  assert cli.main(['review', str(archive), '--output', str(output)]) == 0
  (output / 'review.csv').write_text(
    'result,decision,comment\nodd,rejected,slice 8\nsite/whole,accepted,\n'
  )
  assert cli.main(['review', str(archive), '--output', str(output)]) == 0
  assert '1 accepted, 1 rejected, 2 not reviewed' in capsys.readouterr().out
  folders = ('bare', 'odd', 'site/plain', 'site/whole')
  review = decisions.read_review(output / 'review.csv', folders)
  assert review.rejected() == {'odd': 'slice 8'}
  page = (output / contact_sheet.FILE_NAME).read_text()
  assert '<span class="tag rejected">rejected</span> slice 8' in page
  # Of another archive, nothing is lost in silence.
  (output / 'review.csv').write_text('result,decision\ngone,accepted\n')
  assert cli.main(['review', str(archive), '--output', str(output)]) == 2
  assert "no result in a folder 'gone'" in capsys.readouterr().err
  assert (output / 'review.csv').read_text() == 'result,decision\ngone,accepted\n'


def test_less_doubtful_results_can_be_left_in_words(archive, tmp_path):
  looked = contact_sheet.look_through(archive, progress=False)
  contact_sheet.write(looked, tmp_path, most_pictures=1)
  page = report_page.Page((tmp_path / contact_sheet.FILE_NAME).read_bytes())
  assert len(page.all('img')) == 1 and not page.all('image')
  assert (tmp_path / contact_sheet.FILE_NAME).read_text().count('in words only') == 3


def test_what_cannot_be_looked_through_is_refused(tmp_path, archive, capsys):
  for arguments, words in (
    ((str(tmp_path / 'nothing'),), 'a folder of results is required'),
    ((str(tmp_path),), 'at least one result.json'),
    ((str(archive), '--most-pictures', '-1'), '0 or more, found -1'),
  ):
    assert cli.main(['review', *arguments, '--output', str(tmp_path / 'out')]) == 2
    assert words in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_the_output_is_a_folder(archive, tmp_path, capsys):
  output = tmp_path / 'sheet.html'
  assert cli.main(['review', str(archive), '--output', str(output)]) == 2
  assert 'a folder is required' in capsys.readouterr().err and not output.exists()


def test_names_are_escaped(tmp_path):
  evil = '<script>alert(1)</script>'.replace('/', '_')
  scored_studies.write_study(tmp_path / 'archive' / evil, warnings=('<b>bold</b>',))
  looked = contact_sheet.look_through(tmp_path / 'archive', progress=False)
  contact_sheet.write(looked, tmp_path / 'out')
  page = report_page.Page((tmp_path / 'out' / contact_sheet.FILE_NAME).read_bytes())
  assert not page.all('script') and not page.all('b')


def test_a_report_gives_nothing_but_pictures(archive, tmp_path):
  report = tmp_path / 'report.html'
  shutil.copy(archive / 'site' / 'whole' / 'report.html', report)
  assert case_report.read_key_pictures(report) is not None
  text = report.read_text()
  for odd in (
    text.replace('data:image/', 'https://example.org/'),
    text.replace('id="coronal"', ''),
    text[: len(text) // 20],
    '',
    re.sub('base64,....', 'base64,AAAA', text),
  ):
    report.write_text(odd)
    assert case_report.read_key_pictures(report) is None
  report.write_bytes(b'\xff\xfe')
  assert case_report.read_key_pictures(report) is None
  assert case_report.read_key_pictures(tmp_path / 'none.html') is None
  report.write_text(
    re.sub(r'(class="lungs" transform="scale\(.1\)" d=")', r'\1"/><script>', text)
  )
  found = case_report.read_key_pictures(report)
  assert found is None or 'script' not in repr(found)


def test_a_sheet_among_its_results_is_no_failed_study(tmp_path):
  scored_studies.write_study(tmp_path / 'study')
  looked = contact_sheet.look_through(tmp_path, progress=False)
  contact_sheet.write(looked, tmp_path / 'sheet')
  again = contact_sheet.look_through(tmp_path, progress=False)
  assert [one.folder for one in again.looked] == ['study'] and not again.failed
  _, failed = results_lib.load_results(tmp_path)
  assert not failed


def test_an_archive_of_one_result_is_named_by_a_dot(tmp_path):
  scored_studies.write_study(tmp_path / 'study')
  (looked,) = contact_sheet.look_through(tmp_path / 'study', progress=False).looked
  assert looked.folder == '.'
  with pytest.raises(errors.UsageError, match='a folder of results'):
    contact_sheet.look_through(tmp_path / 'study' / 'result.json')
