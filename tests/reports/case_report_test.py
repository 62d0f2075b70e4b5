import dataclasses
import itertools
import json
import re
import urllib.parse

import numpy as np
import pytest
import report_page
import synthetic_case

from covid_tf import lung_measures
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.reports import case_pictures
from covid_tf.reports import case_report
from covid_tf.reports import pages
from covid_tf.reports import pictures


@pytest.fixture(scope='module', name='case')
def _case():
  return report_page.of_case()


def test_the_large_numbers_are_those_of_the_result(case):
  page, result = case
  assert page.by_id('score').words() == f'{result.corona_score_cm3:,.1f} cm³'
  percent = 100 * result.involved_lung_fraction
  assert page.by_id('involved').words() == f'{percent:.1f} %'
  assert page.by_id('lung-volume').words() == f'{result.lung_volume_cm3:,.0f} cm³'
  assert page.by_id('positive-slices').words() == (
    f'{len(result.positive_slices)} of {result.shape[0]}'
  )


def test_regions_are_those_of_the_result(case):
  page, result = case
  rows = [element.words() for element in page.all('tr', inside='regions')]
  names = ('right', 'left', 'apical', 'middle', 'basal')
  for row, name in zip(rows, names, strict=True):
    value = result.corona_score_by_region_cm3[name]
    assert row.lower().startswith(name) and row.endswith(f'{value:.1f} cm³')


def test_most_affected_slices_come_in_the_order_of_their_score(case):
  page, result = case
  captions = [e.words() for e in page.all('figcaption', inside='most-affected')]
  by_slice = result.corona_score_by_slice_cm3
  best = np.argsort(-by_slice, kind='stable')[:6]
  assert len(captions) == 6
  for caption, index in zip(captions, best):
    z = result.affine[2, 3] + result.affine[2, 0] * index
    assert caption == (
      f'{by_slice[index]:.1f} cm³probability {result.slice_probability[index]:.2f}'
      f'{z:+.1f} mm, slice {index}'.replace('-', '\N{MINUS SIGN}')
    )


def test_neighbours_in_thin_slices_are_shown_once():
  affine = synthetic_case.axial_affine((1.0, 6.0, 6.0), (270, 42, 64))
  volume = synthetic_case.make_volume(affine, (270, 42, 64))
  page, _ = report_page.of_case(volume)
  captions = [e.words() for e in page.all('figcaption', inside='most-affected')]
  indices = [int(caption.rpartition(' ')[2]) for caption in captions]
  assert len(indices) == 6
  assert min(abs(a - b) for a, b in itertools.combinations(indices, 2)) >= 5


def test_the_strip_shows_every_slice_and_its_side_of_the_threshold(case):
  page, result = case
  bars = page.all('rect', inside='probability')
  assert len(bars) == result.shape[0]
  widths = [float(bar.attributes['width']) for bar in bars]
  np.testing.assert_allclose(widths, result.slice_probability, atol=1e-4)
  positive = tuple(i for i, bar in enumerate(bars) if 'class' in bar.attributes)
  assert positive == result.positive_slices
  (threshold,) = page.all('path', 'threshold', inside='probability')
  assert threshold.attributes['d'].startswith('M0.5000 0v')
  tops = [float(bar.attributes['y']) for bar in bars]
  assert tops == sorted(tops, reverse=True)  # Slice 0 is the lowest: at the foot.


@pytest.mark.parametrize(
  'detected, words', [(True, 'Detected'), (False, 'Not detected')]
)
def test_a_case_threshold_gives_a_verdict(detected, words):
  thresholds = results.Thresholds(case_corona_score_cm3=41.25)
  page, _ = report_page.of_case(case_detected=detected, thresholds=thresholds)
  assert page.by_id('verdict').words() == words
  assert '41.2 cm³' in page.all('body')[0].words()


def test_without_a_case_threshold_there_is_no_verdict(case):
  page, _ = case
  assert not page.all('span', 'verdict')


def test_a_negative_case_has_no_heat_and_says_so():
  volume = synthetic_case.make_volume(lesions=())
  page, result = report_page.of_case(
    volume, synthetic_case.make_result(volume, lesions=())
  )
  assert result.corona_score_cm3 == 0 and page.by_id('score').words() == '0.0 cm³'
  assert page.by_id('most-affected').words().endswith('No slice adds to the score.')
  assert page.by_id('shown').words() == (
    'No slice is positive. The three planes go through the widest lung.'
  )
  areas = result.lung_mask.sum(axis=(1, 2))
  (first,) = (e for e in json.loads(page.by_id('slices').text) if e['start'])
  assert first['title'].startswith(f'Axial, slice {areas.argmax()} ')
  assert not any('href' in image.attributes for image in page.all('image', 'map'))
  slices = json.loads(page.by_id('slices').text)
  assert not any(entry['heat'] or entry['counted'] for entry in slices)


def test_a_viewer_beside_the_report_is_linked_whole_and_at_its_slices():
  volume = _coarse_volume()
  result = synthetic_case.make_result(volume)
  source = case_report.report_html(result, volume, viewer_name='viewer.html')
  page = report_page.Page(source)
  links = [link.attributes['href'] for link in page.all('a')]
  ranked = case_pictures.most_affected_slices(result)
  assert links == ['viewer.html', *(f'viewer.html#slice={index}' for index in ranked)]
  assert page.by_id('viewer').words().endswith('viewer.html')
  assert all(link.words() for link in page.all('a'))


def test_a_name_that_html_would_swallow_stays_a_name():
  volume = _coarse_volume()
  name = '"><script>alert(1)</script>.html'
  source = case_report.report_html(
    synthetic_case.make_result(volume), volume, viewer_name=name
  )
  page = report_page.Page(source)
  assert len(page.all('script')) == 2
  assert urllib.parse.unquote(page.by_id('viewer').attributes['href']) == name


def test_text_from_the_study_is_escaped():
  evil = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;'
  volume = synthetic_case.make_volume(
    study_uid=evil, series_uid=evil, acquisition_date=evil, warnings=(evil,)
  )
  models = (results.ModelIdentity(evil, 1, evil, {'window_hu': (-1000, 0)}),)
  page, _ = report_page.of_case(volume, models=models, software=evil)
  assert len(page.all('script')) == 2
  assert not any('onerror' in e.attributes for e in page.elements)
  assert page.by_id('warnings').words() == f'Read with care {evil}'.replace('  ', ' ')
  assert evil in page.by_id('provenance').text


def test_the_page_refers_to_nothing_outside(case):
  page, _ = case
  for element in page.elements:
    for name in ('src', 'href', 'action', 'data', 'poster', 'srcset'):
      if name in element.attributes:
        assert element.attributes[name].startswith('data:image/')
    assert element.tag not in ('link', 'iframe', 'object', 'embed', 'form', 'base')
  source = case_report.report_html(case[1], synthetic_case.make_volume()).decode()
  assert not re.search(r'https?:|url\(|@import|//\w+\.\w', source)
  (policy,) = (
    e
    for e in page.all('meta')
    if e.attributes.get('http-equiv') == 'Content-Security-Policy'
  )
  assert policy.attributes['content'].startswith("default-src 'none';")


def test_the_pseudonym_of_the_patient_is_not_on_the_page():
  key = 'f00dfeed' * 8
  volume = synthetic_case.make_volume(patient_key=key)
  assert key.encode() not in case_report.report_html(
    synthetic_case.make_result(volume), volume
  )


def test_it_says_what_it_is_for_and_who_answered(case):
  page, result = case
  notes = [e.words() for e in page.all('p', 'research')]
  assert notes == ['Research use only. Not for diagnosis.']
  assert not page.all('p', 'demo')
  methods, provenance = page.by_id('methods').words(), page.by_id('provenance').words()
  for model in result.models:
    assert f'{model.name} version {model.version}' in methods
    assert model.card_sha256 in provenance
  for text in (
    result.study_uid,
    result.series_uid,
    result.software,
    '34 × 84 × 128',
    '8.000 × 3.000 × 3.000 mm',
    '72.0000 mm³',
    'probability > 0.5',
    'map > 0.6',
    '-1350 to 150 HU',
  ):
    assert text in provenance


def test_demo_models_are_called_so():
  page, _ = report_page.of_case(demo_models=True)
  (banner,) = page.all('p', 'demo')
  assert banner.words().startswith('Demo models trained on phantoms.')
  assert 'demonstration models trained on phantoms' in page.by_id('methods').words()


def test_many_noisy_slices_stay_below_three_megabytes():
  shape = (330, 96, 128)
  affine = synthetic_case.axial_affine((0.8, 3.0, 3.0), shape)
  volume = synthetic_case.make_volume(affine, shape)
  noise = np.random.default_rng(1).integers(-600, 600, shape, np.int16)
  volume = dataclasses.replace(
    volume, hu=np.clip(volume.hu + noise, -1024, 3071).astype(np.int16)
  )
  source = case_report.report_html(synthetic_case.make_result(volume), volume)
  assert len(source) < 3_000_000
  slices = json.loads(report_page.Page(source).by_id('slices').text)
  assert 150 < len(slices) <= 320
  assert sum(entry['start'] for entry in slices) == 1


def test_the_viewer_holds_every_slice_with_its_own_numbers(case):
  page, result = case
  slices = json.loads(page.by_id('slices').text)
  assert len(slices) == result.shape[0]
  for entry, index in zip(slices, reversed(range(result.shape[0]))):
    assert entry['title'].startswith(f'Axial, slice {index} ')
    assert f'probability {result.slice_probability[index]:.2f},' in entry['caption']
    assert bool(entry['heat']) == (index in result.positive_slices)


def test_volume_and_result_of_different_grids_are_refused():
  volume = synthetic_case.make_volume()
  other = synthetic_case.make_volume(synthetic_case.axial_affine((8.0, 2.0, 2.0)))
  with pytest.raises(ValueError, match='one grid'):
    case_report.report_html(synthetic_case.make_result(volume), other)


def test_the_report_is_written_under_its_name(tmp_path):
  volume = synthetic_case.make_volume()
  result = synthetic_case.make_result(volume)
  case_report.write_report(tmp_path / 'a' / 'report.html', result, volume)
  written = tmp_path / 'a' / 'report.html'
  assert written.read_bytes() == case_report.report_html(result, volume)
  assert [path.name for path in written.parent.iterdir()] == ['report.html']


def test_heat_rises_in_lightness_for_any_colour_vision():
  srgb = pictures.heat_colours(np.linspace(0.15, 1, 40))[:, :3] / 255.0
  # IEC 61966-2-1: from sRGB to light, then to luminance.
  light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
  assert (np.diff(light @ (0.2126, 0.7152, 0.0722)) > 0).all()


def test_how_the_ct_was_acquired_is_one_line():
  acquisition = volume_lib.Acquisition(
    manufacturer='GE <b>',
    model='LightSpeed16',
    kernel='STANDARD',
    kvp=120.0,
    slice_thickness_mm=2.5,
    contrast=True,
    contrast_agent='IV',
    patient_position='FFS',
  )
  page, _ = report_page.of_case(acquisition=acquisition)
  expected = (
    'GE <b> LightSpeed16, kernel STANDARD, 120 kV, slices of 2.5 mm, contrast (IV), '
    'position FFS'
  )
  assert page.by_id('scan').words() == expected
  assert expected in page.by_id('provenance').words()


@pytest.mark.parametrize(
  'acquisition, words',
  (
    (None, ''),
    (volume_lib.Acquisition(slice_distance_mm=5.0), ''),
    (volume_lib.Acquisition(contrast=False, kvp=100.0), '100 kV, without contrast'),
    (volume_lib.Acquisition(contrast=True), 'contrast'),
  ),
)
def test_of_an_acquisition_what_is_stated_is_shown(acquisition, words):
  assert pages.acquisition(acquisition) == words


def test_without_an_acquisition_there_is_no_line(case):
  page, _ = case
  assert not [e for e in page.all('span') if e.attributes.get('id') == 'scan']


def _measured_page(**changes):
  volume = _coarse_volume()
  result = synthetic_case.measured(volume, synthetic_case.make_result(volume))
  return report_page.of_case(volume, result, **changes)


def _coarse_volume():
  shape = (17, 42, 64)
  affine = synthetic_case.axial_affine((16.0, 6.0, 6.0), shape)
  return synthetic_case.make_volume(affine, shape)


def test_densities_and_zones_are_a_bar_a_grid_and_three_lines_at_most():
  by_density = lung_measures.ZoneScore(
    11, dict.fromkeys(lung_measures.ZONES, 1), dict.fromkeys(lung_measures.ZONES, 0.1)
  )
  page, result = _measured_page(
    label_regions=_label_regions(), zone_score_by_density=by_density
  )
  lungs = result.densities.regions['lungs']
  lines = [element.words() for element in page.all('p', inside='measures')][:-1]
  assert len(lines) == 3
  assert f'{lungs.mean_hu:.0f} HU'.replace('-', '\N{MINUS SIGN}') in lines[0]
  assert lines[1] == (
    f"Zone score {result.zone_score.total} of 24 by the network's map, not by a "
    'radiologist; 11 of 24 by density.'
  )
  assert lines[2] == (
    '2 regions of a label map, left lower lobe the most involved (25.0 % of its lung).'
  )
  parts = page.all('span', inside='density-bins')
  shares = [float(part.attributes['style'].rpartition(':')[2]) for part in parts]
  bins = lungs.bins_cm3['covid']
  np.testing.assert_allclose(
    shares, [cm3 / lungs.volume_cm3 for cm3 in bins.values()], atol=1e-4
  )
  assert sum(shares) == pytest.approx(1, abs=1e-3)


def test_each_zone_stands_where_it_lies_with_both_grades():
  page, result = _measured_page()
  cells = [
    cell for cell in page.all('td', inside='zones') if 'title' in cell.attributes
  ]
  order = [f'{side}_{level}' for level in _LEVELS for side in ('right', 'left')]
  grades, by_density = result.zone_score.zones, result.zone_score_by_density.zones
  assert len(set(grades.values())) > 1
  for cell, zone in zip(cells, order, strict=True):
    side, level = zone.split('_')
    assert cell.attributes['title'].startswith(f'{side.capitalize()} lung, {level}')
    assert cell.words() == f'{grades[zone]} density {by_density[zone]}'


_LEVELS = ('apical', 'middle', 'basal')


def test_a_zone_without_lung_has_a_dash():
  lost = lung_measures.ZoneScore(
    1,
    dict.fromkeys(lung_measures.ZONES) | {'right_basal': 1},
    dict.fromkeys(lung_measures.ZONES) | {'right_basal': 0.1},
  )
  page, _ = _measured_page(zone_score=lost, zone_score_by_density=None)
  cells = [
    cell for cell in page.all('td', inside='zones') if 'title' in cell.attributes
  ]
  assert [cell.words() for cell in cells] == ['–', '–', '–', '–', '1', '–']
  assert 'no lung' in cells[0].attributes['title']
  assert 'by density' not in page.by_id('measures').words()


def test_lobes_are_a_part_of_the_line_on_regions():
  lobes = lung_measures.LobeScore(7, {}, {})
  page, _ = _measured_page(label_regions=_label_regions(), lobe_score=lobes)
  assert 'Lobe score 7 of 25' in page.by_id('measures').words()


def test_earlier_results_have_no_densities_and_no_empty_place_for_them(case):
  page, _ = case
  assert not page.all('section', 'measures')
  assert 'Zones are' not in page.all('body')[0].words()


def _label_regions():
  density = lung_measures.RegionDensity(0.0, None, {}, {}, 0.0)
  return lung_measures.LabelRegions(
    '0' * 64,
    lung_measures.DensitySchemes(),
    0.0,
    {
      'left_lower_lobe': lung_measures.LabelRegion(1, 9.0, 1.0, 0.25, density),
      'rib_1': lung_measures.LabelRegion(2, 9.0, 0.0, None, density),
    },
  )


@pytest.mark.parametrize(
  'difference, relative, unit, words',
  [
    (-46.5, -0.79, 'cm³', '−46.5 cm³ (−79 %)'),
    (-0.21, -0.004, 'cm³', '−0.21 cm³ (less than 1 %)'),
    (-0.4, None, 'HU', 'less than 1 HU'),
    (12.0, None, 'HU', '+12 HU'),
    (1, 0.5, 'of 24', '+1 grade (+50 %)'),
    (-2, -1.0, 'of 24', '−2 grades (−100 %)'),
    (0.0, None, '%', 'no change'),
  ],
)
def test_a_change_is_said_and_none_of_them_is_minus_nothing(
  difference, relative, unit, words
):
  assert pages.change(difference, relative, unit) == words


def test_zero_has_no_minus():
  assert pages.hu(-0.4) == pages.hu(0.0) == '0' and pages.hu(-0.6) == '−1'
  assert pages.signed(-0.04) == '+0.0' and pages.signed(-0.06) == '−0.1'
