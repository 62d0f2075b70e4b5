"""Every page in a browser: names, contrast, keyboard, no network, on a phone."""

import dataclasses

import browser
import cohort_files
import pytest
import scored_studies
import synthetic_case

from covid_tf import cli
from covid_tf.cohort.review import contact_sheet
from covid_tf.datasets.phantom import written
from covid_tf.demo import drawing
from covid_tf.demo import summary
from covid_tf.reports import case_report


@pytest.fixture(scope='module', name='chromium')
def _chromium():
  with browser.chromium(webgl=False) as started:
    yield started


@pytest.fixture(scope='module', name='report')
def _report(tmp_path_factory):
  path = tmp_path_factory.mktemp('report') / 'report.html'
  shape, spacing_mm = scored_studies.SHAPE, scored_studies.SPACING_MM
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine(spacing_mm, shape), shape, warnings=('Thick slices.',)
  )
  result = synthetic_case.measured(volume, synthetic_case.make_result(volume))
  result = dataclasses.replace(result, case_detected=True)
  result = dataclasses.replace(
    result,
    thresholds=dataclasses.replace(result.thresholds, case_corona_score_cm3=20.0),
  )
  case_report.write_report(
    path, result, volume, demo_models=True, viewer_name='viewer.html'
  )
  return path


def test_a_report_can_be_read_by_everybody(chromium, report):
  browser.check_page(chromium, report)


def test_a_report_is_scrolled_by_keyboard_alone(chromium, report):
  with chromium.page(report) as page:
    title = page.locator('#axial-title')
    before = title.inner_text()
    for _ in range(12):
      page.keyboard.press('Tab')
      if page.evaluate('document.activeElement.id') == 'axial':
        break
    assert page.evaluate('document.activeElement.id') == 'axial'
    name = page.evaluate("document.activeElement.getAttribute('aria-labelledby')")
    assert page.locator(f'#{name}').inner_text() == before
    lines = {
      page.locator(f'#{plane} .level').get_attribute('d')
      for plane in ('coronal', 'sagittal')
    }
    page.keyboard.press('ArrowUp')
    assert title.inner_text() != before
    moved = {
      page.locator(f'#{plane} .level').get_attribute('d').partition('h')[0]
      for plane in ('coronal', 'sagittal')
    }
    assert len(moved) == 1 and not any(line.startswith(*moved) for line in lines)
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.id') == 'slider'
    page.keyboard.press('Home')
    assert f'slice {scored_studies.SHAPE[0] - 1} ' in title.inner_text()


def test_a_click_on_the_sagittal_picture_shows_that_slice(chromium, report):
  with chromium.page(report) as page:
    box = page.locator('#sagittal').bounding_box()
    page.locator('#sagittal').click(position={'x': 40, 'y': box['height'] * 0.2})
    title = page.locator('#axial-title').inner_text()
    number = int(title.split('slice ')[1].split()[0])
    assert number > scored_studies.SHAPE[0] * 0.6  # Near the head.


def test_without_scripts_a_report_shows_the_finding(chromium, report):
  with chromium.page(report, scripts=False) as page:
    for plane in ('axial', 'coronal', 'sagittal'):
      assert page.locator(f'#{plane} path.counted').get_attribute('d')
    assert not page.locator('#controls').is_visible()


def _demo(root):
  folder = drawing.DemoFolder(root)
  cases = [
    summary.CaseAgreement(
      f'phantom-{kind}',
      written.Truth(1, kind, kind == 'diffuse', '2.25.1', '2.25.9', volume, 4e3, (), 4),
      score,
      0.0,
      3900.0,
      (1, 2),
      (0.1, 0.9, 0.9, 0.1),
      0.97,
      0,
      0,
      8.0,
    )
    for kind, volume, score in (('none', 0.0, 3.0), ('diffuse', 300.0, 80.0))
  ]
  shown = summary.Thumbnail(_PIXEL, '', '', 100.0, 80.0, 1)
  summary.write_page(folder, cases, {case.name: shown for case in cases})
  return folder.page


_PIXEL = (
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNg'
  'AAAAAgABSK+kcQAAAABJRU5ErkJggg=='
)


def _cohort(root):
  results, labels = cohort_files.write_cohort(
    root, range(20, 200, 10), range(0, 90, 5), severity=('severe', 'non-severe') * 5
  )
  arguments = ['cohort', str(results), str(labels), '--draws', '200']
  assert cli.main([*arguments, '--output', str(root / 'out')]) == 0
  return root / 'out' / 'cohort.html'


def _compare(root):
  paths = [
    scored_studies.write_study(
      root / f'study-{number}', acquisition_date=date, patient_key='ab' * 32
    )
    for number, date in enumerate(('2020-03-01', '2020-03-09', '2020-04-01'))
  ]
  output = root / 'out'
  assert cli.main(['compare', *map(str, paths), '--output', str(output)]) == 0
  return output / 'compare.html'


def _sheet(root):
  scored_studies.write_study(root / 'archive' / 'a<b>&c')
  scored_studies.write_study(root / 'archive' / 'bare', maps=False)
  output = root / 'out'
  assert cli.main(['review', str(root / 'archive'), '--output', str(output)]) == 0
  return output / contact_sheet.FILE_NAME


@pytest.mark.parametrize('make', [_demo, _cohort, _compare, _sheet])
def test_every_other_page_can_be_read_by_everybody(chromium, make, tmp_path):
  browser.check_page(chromium, make(tmp_path))
