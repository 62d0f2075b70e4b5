import json
import re
import shutil

import browser
import pytest
import report_page
import scored_studies
import synthetic_case

from covid_tf import cli
from covid_tf import results
from covid_tf.cohort.follow_up import report
from covid_tf.storage import result_json

_KEY = 'ab' * 32
_SMALL = (((-85, 45, -70), (20, 18, 26)),)


@pytest.fixture(scope='module', name='compared')
def _compared(tmp_path_factory):
  root = tmp_path_factory.mktemp('compared')
  paths = [
    scored_studies.write_study(
      root / 'later', acquisition_date='2020-03-20', patient_key=_KEY, lesions=_SMALL
    ),
    scored_studies.write_study(
      root / 'first', acquisition_date='2020-03-02', patient_key=_KEY
    ),
  ]
  status = cli.main(['compare', *map(str, paths), '--output', str(root / 'out')])
  assert status == 0
  return root / 'out', [result_json.read_result(path) for path in paths[::-1]]


def test_everything_appears(compared):
  out, _ = compared
  assert {path.name for path in out.iterdir()} == set(report.FILE_NAMES)


def test_the_numbers_are_those_of_the_results(compared):
  out, (first, last) = compared
  content = json.loads((out / 'compare.json').read_text())
  assert [study['days_since_first'] for study in content['studies']] == [0, 18]
  assert [study['series_uid'] for study in content['studies']] == [
    first.series_uid,
    last.series_uid,
  ]
  for name in ('corona_score_cm3', 'involved_lung_fraction', 'lung_volume_cm3'):
    values = [study[name] for study in content['studies']]
    assert values == [getattr(first, name), getattr(last, name)]
    change = content['first_to_last'][name]
    assert change['difference'] == values[1] - values[0]
  assert content['first_to_last']['corona_score_cm3']['direction'] == 'falling'
  basal = content['changes'][0]['basal_cm3']
  assert basal['difference'] == pytest.approx(
    last.corona_score_by_region_cm3['basal'] - first.corona_score_by_region_cm3['basal']
  )
  assert content['patient_identity'] == 'patient_key' and not content['demo_models']


def test_the_page_shows_the_change_and_both_studies(compared):
  out, (first, last) = compared
  page = report_page.Page((out / 'compare.html').read_bytes())
  headline = page.by_id('headline').words()
  assert f'{first.corona_score_cm3:.1f} → {last.corona_score_cm3:.1f} cm³' in headline
  assert '↓ falling' in headline
  assert len(page.all('img', inside='maps')) == 2
  assert len(page.all('image', 'grey', inside='maps')) == 8  # Four levels of each.
  for table in ('maps', 'course'):  # Two studies of one day are told apart.
    assert all(f'study {number}' in page.by_id(table).words() for number in (1, 2))
  provenance = page.by_id('provenance').words()
  assert all(result.series_uid in provenance for result in (first, last))
  assert page.all('p', 'research') and not page.all('p', 'demo')


def test_nothing_outside_and_no_pseudonym_on_the_page(compared):
  out, _ = compared
  for name in ('compare.html', 'compare.json'):
    text = (out / name).read_text()
    assert _KEY not in text and str(out.parent) not in text
  page = report_page.Page((out / 'compare.html').read_bytes())
  for element in page.elements:
    for name in ('src', 'href', 'xlink:href'):
      assert re.match('data:image/|#', element.attributes.get(name, '#'))


def _compare_a_and_b(folder) -> int:
  a, b, output = (str(folder / name) for name in ('a', 'b', 'out'))
  return cli.main(['compare', a, b, '--output', output])


def test_text_from_results_is_escaped(tmp_path):
  evil = '<script>alert(1)</script>'
  for name in 'ab':
    scored_studies.write_study(
      tmp_path / name, maps=False, patient_key=_KEY, study_uid=evil, warnings=(evil,)
    )
  assert _compare_a_and_b(tmp_path) == 0
  page = report_page.Page((tmp_path / 'out' / 'compare.html').read_bytes())
  assert not page.all('script') and evil in page.by_id('provenance').text


def test_results_without_maps_are_compared_in_numbers(tmp_path, capsys):
  paths = [
    scored_studies.write_study(tmp_path / 'a', patient_key=_KEY),
    scored_studies.write_study(tmp_path / 'b', patient_key=_KEY, maps=False),
  ]
  assert cli.main(['compare', *map(str, paths), '--output', str(tmp_path / 'out')]) == 0
  assert 'map and lung mask' in (tmp_path / 'out' / 'compare.html').read_text()
  page = report_page.Page((tmp_path / 'out' / 'compare.html').read_bytes())
  assert len(page.all('img', inside='maps')) == 1
  captured = capsys.readouterr()
  assert 'Corona score: ' in captured.out and 'no maps are shown' in captured.err


@pytest.mark.parametrize('by_field', [True, False])
def test_demo_models_are_called_so(tmp_path, by_field):
  """Results without the field `demo_models` said it by a warning alone."""
  for name in 'ab':
    folder = scored_studies.write_study(
      tmp_path / name,
      maps=False,
      patient_key=_KEY,
      changes={'demo_models': by_field},
      warnings=() if by_field else (result_json.DEMO_WARNING,),
    )
    if not by_field:
      path = folder / result_json.FILE_NAME
      content = json.loads(path.read_text())
      del content['demo_models']
      path.write_text(json.dumps(content))
  assert _compare_a_and_b(tmp_path) == 0
  page = report_page.Page((tmp_path / 'out' / 'compare.html').read_bytes())
  assert page.all('p', 'demo')
  assert json.loads((tmp_path / 'out' / 'compare.json').read_text())['demo_models']


def test_wrong_use_is_one_line_and_leaves_nothing(tmp_path, capsys):
  one = scored_studies.write_study(tmp_path / 'a', maps=False)
  two = scored_studies.write_study(tmp_path / 'b', maps=False)
  out = tmp_path / 'out'
  for arguments in ([one, two], [one], [one, tmp_path / 'absent']):
    status = cli.main(['compare', *map(str, arguments), '--output', str(out)])
    error = capsys.readouterr().err
    assert status == 2 and error.startswith('covid-tf compare: ')
    assert error.count('\n') == 1 and not out.exists()
  assert (
    cli.main(['compare', str(one), str(two), '--same-patient', '--output', str(out)])
    == 0
  )


def test_an_edited_study_is_said(tmp_path, capsys):
  paths = [
    scored_studies.write_study(tmp_path / 'a', patient_key=_KEY),
    scored_studies.write_study(
      tmp_path / 'b',
      patient_key=_KEY,
      changes={'edits': results.Edits('a' * 64), 'study_uid': '1.2.9'},
    ),
  ]
  assert cli.main(['compare', *map(str, paths), '--output', str(tmp_path / 'out')]) == 0
  assert '1 of 2 (lung mask given)' in capsys.readouterr().err
  assert 'Edited results' in (tmp_path / 'out' / 'compare.html').read_text()


def _run(root, *measured):
  paths = [
    scored_studies.write_study(
      root / str(day),
      acquisition_date=f'2020-03-0{day}',
      patient_key=_KEY,
      lesions=lesions,
      measured=has,
      maps=False,
    )
    for day, lesions, has in zip((1, 2), (synthetic_case.LESIONS, _SMALL), measured)
  ]
  out = root / 'out'
  assert cli.main(['compare', *map(str, paths), '--output', str(out)]) == 0
  return (
    json.loads((out / 'compare.json').read_text()),
    report_page.Page((out / 'compare.html').read_bytes()),
    [result_json.read_result(path) for path in paths],
  )


def test_densities_and_zone_scores_are_followed(tmp_path, capsys):
  content, page, (first, last) = _run(tmp_path, True, True)
  means = [r.densities.regions['lungs'].mean_hu for r in (first, last)]
  assert [study['mean_lung_density_hu'] for study in content['studies']] == means
  density = content['first_to_last']['mean_lung_density_hu']
  assert density['difference'] == means[1] - means[0] < 0
  assert density['relative'] is None  # Of HU, below 0, a share would say nothing.
  zones = content['changes'][0]['zone_score']
  assert zones['difference'] == last.zone_score.total - first.zone_score.total < 0
  lungs = first.densities.regions['lungs']
  assert content['studies'][0]['ground_glass_share'] == pytest.approx(
    lungs.bins_cm3['covid']['ground_glass'] / lungs.volume_cm3
  )
  words = page.by_id('course').words()
  assert f'Mean lung density, HU {means[0]:.0f}'.replace('-', '\N{MINUS SIGN}') in words
  assert f'Zone score of the network, of 24 {first.zone_score.total}' in words
  assert 'Zone score by density: ' in capsys.readouterr().out


def test_what_one_study_lacks_is_not_followed(tmp_path):
  content, page, _ = _run(tmp_path, True, False)
  assert 'zone_score' not in content['studies'][0]
  assert 'zone_score' not in content['first_to_last']
  assert 'Zone score' not in page.by_id('course').words()


def _with_ct(root, *, as_nifti=False, **more):
  """Two studies with their CT; arguments of the command."""
  suffix = '.nii' if as_nifti else ''
  named = {'study_uid': '', 'series_uid': '', 'acquisition_date': None}
  paths = [
    scored_studies.write_study(
      root / 'results' / name,
      ct=root / 'ct' / f'{name}{suffix}',
      patient_key=_KEY,
      measured=True,
      lesions=lesions,
      shift_mm=shift_mm,
      **scored_studies.CT_GRID,
      **{'acquisition_date': date, 'series_uid': uid}
      | (named if as_nifti else {})
      | more,
    )
    for name, date, uid, lesions, shift_mm in (
      ('a', '2020-03-01', '1.2.3.10', _SMALL, (0, 0, 0)),
      ('b', '2020-03-21', '1.2.3.11', synthetic_case.LESIONS, (20, -10, 60)),
    )
  ]
  return [
    *map(str, paths),
    '--studies',
    str(root / 'ct'),
    '--output',
    str(root / 'out'),
  ]


@pytest.fixture(scope='module', name='with_ct')
def _compared_with_ct(tmp_path_factory):
  root = tmp_path_factory.mktemp('with_ct')
  evil = '<img src=x onerror=alert(1)>'
  arguments = _with_ct(root, warnings=(evil,))
  assert cli.main(['compare', *arguments]) == 0
  return root / 'out'


def test_the_ct_stands_side_by_side_with_its_error(with_ct):
  page = report_page.Page((with_ct / 'compare.html').read_bytes())
  # Four levels, the most affected one and a coronal plane, of each study.
  assert len(page.all('image', 'grey', inside='ct')) == 12
  assert not page.all('image', 'grey', inside='maps')
  content = json.loads((with_ct / 'compare.json').read_text())
  (found,) = content['alignment']
  assert found['to_study'] == 1 and 0 <= found['surface_distance_mean_mm'] < 2
  assert found['surface_distance_p95_mm'] >= found['surface_distance_mean_mm']
  moved = [row[3] for row in found['matrix_lps_mm'][:3]]
  assert moved == pytest.approx((20, -10, 60), abs=3)
  words = page.by_id('alignment').words()
  assert f'{found["surface_distance_mean_mm"]:.1f} mm apart on average' in words
  assert f'95 % within {found["surface_distance_p95_mm"]:.1f} mm' in words
  zone = content['zones']['right_basal']['involved_share']
  assert zone['first_to_last']['direction'] == 'rising'
  assert 'Involved, by the network' in page.by_id('zones').words()


def test_the_page_with_ct_is_small_and_nothing_on_it_runs(with_ct):
  data = (with_ct / 'compare.html').read_bytes()
  assert len(data) < 1_000_000
  page = report_page.Page(data)
  assert not page.all('script')
  for element in page.elements:
    for name in ('src', 'href', 'xlink:href'):
      assert re.match('data:image/|#', element.attributes.get(name, '#'))


def test_without_studies_there_is_no_alignment(compared):
  out, _ = compared
  assert json.loads((out / 'compare.json').read_text())['alignment'] is None


def test_nifti_without_date_is_compared_in_the_order_given(tmp_path, capsys):
  arguments = _with_ct(tmp_path, as_nifti=True)
  assert cli.main(['compare', *arguments]) == 0
  captured = capsys.readouterr()
  assert 'in the order given' in captured.err
  assert 'Study 2 to study 1: surfaces of the lungs' in captured.out
  page = report_page.Page((tmp_path / 'out' / 'compare.html').read_bytes())
  assert 'no date' in page.by_id('ct').words()


def test_a_study_that_is_gone_leaves_nothing(tmp_path, capsys):
  arguments = _with_ct(tmp_path)
  shutil.rmtree(tmp_path / 'ct' / 'b')
  assert cli.main(['compare', *arguments]) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and str(tmp_path / 'results' / 'b') in error
  assert not (tmp_path / 'out').exists()


def test_the_same_voxels_twice_are_refused(tmp_path, capsys):
  same = {'lesions': _SMALL, 'patient_key': _KEY, 'changes': {'hu_sha256': 'a' * 64}}
  paths = [
    scored_studies.write_study(tmp_path / name, maps=False, series_uid='', **same)
    for name in 'ab'
  ]
  arguments = [*map(str, paths), '--output', str(tmp_path / 'out')]
  assert cli.main(['compare', *arguments]) == 2
  assert 'found the voxels of' in capsys.readouterr().err


@pytest.mark.parametrize('width, dark', ((1400, False), (412, True)))
def test_the_page_with_ct_in_a_browser(with_ct, width, dark):
  with (
    browser.chromium() as chromium,
    chromium.page(with_ct / 'compare.html', width=width, dark=dark) as page,
  ):
    browser.check_accessibility(page)
    # The page itself never scrolls sideways; what is wide scrolls inside.
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    shown = page.locator('#ct svg')
    assert shown.count() == 12
    first, second = (shown.nth(number).bounding_box() for number in (0, 1))
    assert first['y'] == second['y'] and first['width'] == second['width']
