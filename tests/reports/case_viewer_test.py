"""What viewer.html carries of a case, and what it says where something is missing."""

import dataclasses
import re
import zlib

import browser
import numpy as np
import pytest
import synthetic_case

from covid_tf import errors
from covid_tf.reports import case_viewer
from covid_tf.reports import scored_study
from covid_tf.reports import viewed_volume


def _case():
  volume = synthetic_case.make_volume()
  return volume, synthetic_case.make_result(
    volume, warnings=('</script><img src=x onerror=alert(1)>',)
  )


def _unpacked(part, blocks):
  """int16 HU of the first slice, by the inverse of `_residuals`."""
  _, rows, columns = blocks.shape
  data = np.frombuffer(zlib.decompress(part), np.uint8)
  size = len(data) // 4
  packed = data[:size].astype(int) | data[size : 2 * size].astype(int) << 8
  change = (packed >> 1) ^ -(packed & 1)
  hu = np.zeros((rows, columns), int)
  for row in range(rows):
    for column in range(columns):
      before = [hu[row, column - 1]] * bool(column) + [hu[row - 1, column]] * bool(row)
      hu[row, column] = change[row * columns + column] + (
        sum(before) >> (len(before) - 1) if before else 0
      )
  return hu


def test_every_hu_is_carried_exactly_where_the_ct_fits():
  volume, result = _case()
  viewed = viewed_volume.viewed_volume(volume, result)
  assert viewed.is_exact and viewed.in_words().startswith('The whole CT is here.')
  np.testing.assert_array_equal(_unpacked(viewed.parts[0], viewed.blocks), volume.hu[0])


def test_what_does_not_fit_is_averaged_and_said():
  volume, result = _case()
  viewed = viewed_volume.viewed_volume(volume, result, max_text_bytes=60_000)
  assert sum(map(viewed_volume.text_bytes, viewed.parts)) <= 60_000
  _, k, _ = viewed.blocks.factors
  assert k > 1 and f'averages over {k} × {k} pixels' in viewed.in_words()
  start = viewed.blocks.start
  block = volume.hu[viewed.blocks.slices(0)][
    :, start[1] : start[1] + k, start[2] : start[2] + k
  ]
  assert _unpacked(viewed.parts[0], viewed.blocks)[0, 0] == np.rint(block.mean())


def test_of_many_thin_slices_the_limit_holds_and_blocks_are_not_flat():
  shape, spacing_mm = (300, 21, 32), (0.6, 12.0, 12.0)
  affine = synthetic_case.axial_affine(spacing_mm, shape)
  volume = synthetic_case.make_volume(affine, shape)
  result = synthetic_case.make_result(volume)
  viewed = viewed_volume.viewed_volume(volume, result, max_text_bytes=20_000)
  assert sum(map(viewed_volume.text_bytes, viewed.parts)) <= 20_000
  slices, rows, columns = viewed.blocks.factors
  assert rows == columns > 1 < slices
  sides_mm = np.multiply(spacing_mm, viewed.blocks.factors)
  assert sides_mm[0] <= sides_mm[1] < sides_mm[0] + 2 * spacing_mm[1]
  assert f'{rows} × {columns} pixels of {slices} slices' in viewed.in_words()


def test_whatever_is_carried_the_page_stays_below_25_mb():
  volume, result = _case()
  page = len(case_viewer.viewer_html(result, volume))
  parts = viewed_volume.viewed_volume(volume, result).parts
  rest = page - sum(map(viewed_volume.text_bytes, parts))
  # Tags around parts, and numbers of each slice, of 2,000 slices: some 60 kB.
  assert rest + viewed_volume.MAX_TEXT_BYTES + 100_000 < 25_000_000


def test_levels_keep_their_side_of_the_threshold():
  values = np.array([0, 0.5999, 0.6, 0.6001, 1], np.float32)
  assert (viewed_volume.map_levels(values, 0.6) > 153).tolist() == (
    values > 0.6
  ).tolist()


def test_the_viewer_is_a_file_of_the_result_where_asked_for(tmp_path):
  volume, result = _case()
  for asked in (True, False):
    folder = tmp_path / str(asked)
    folder.mkdir()
    scored_study.write_all(folder, result, volume, demo_models=True, viewer=asked)
    assert (folder / case_viewer.FILE_NAME).exists() is asked
    report = (folder / 'report.html').read_text('utf-8')
    assert ('href="viewer.html"' in report) is asked
  page = (tmp_path / 'True' / case_viewer.FILE_NAME).read_text('utf-8')
  assert 'Demo models trained on phantoms' in page
  assert '<img src=x' not in page  # The warning of _case.


def test_a_stored_result_is_looked_at_with_its_own_ct_alone(tmp_path):
  volume, result = _case()
  result = dataclasses.replace(result, warnings=())
  scored_study.write_all(tmp_path, result, volume, demo_models=False)
  path = tmp_path / case_viewer.FILE_NAME
  case_viewer.write_stored_viewer(tmp_path, volume, path)
  assert f'{result.corona_score_cm3:.1f} cm³' in path.read_text('utf-8')
  path.unlink()
  other = synthetic_case.make_volume(shape=(34, 80, 128))
  with pytest.raises(errors.UsageError, match='of the CT at hand is required'):
    case_viewer.write_stored_viewer(tmp_path, other, path)
  assert not path.exists()


@pytest.fixture(name='page_of_a_case', scope='module')
def _page_of_a_case(tmp_path_factory):
  """(the page, the volume)."""
  path = tmp_path_factory.mktemp('viewer') / case_viewer.FILE_NAME
  volume, result = _case()
  case_viewer.write_viewer(path, result, volume)
  return path, volume


@pytest.fixture(name='chromium', scope='module')
def _chromium():
  with browser.chromium(webgl=False) as started:
    yield started


def test_without_scripts_it_says_so_and_links_the_report(chromium, page_of_a_case):
  path, _ = page_of_a_case
  with chromium.page(path, scripts=False) as page:
    words = page.locator('#no-script')
    assert words.is_visible() and 'needs JavaScript' in words.inner_text()
    assert words.locator('a').get_attribute('href') == 'report.html'
    assert not page.locator('#app').is_visible()


def test_without_webgl_it_says_so_and_the_planes_are_there(chromium, page_of_a_case):
  path, volume = page_of_a_case
  with chromium.page(path) as page:
    page.wait_for_selector('body[data-turning=no]')
    words = page.locator('#no-webgl')
    assert words.is_visible() and 'WebGL 2' in words.inner_text()
    assert words.locator('a').get_attribute('href') == 'report.html'
    assert not page.locator('#turning').is_visible()
    page.locator('#axial').focus()
    page.keyboard.press('v')  # Nothing to turn, and nothing breaks.
    page.keyboard.press('ArrowUp')
    page.keyboard.press('a')
    page.keyboard.press('Home')
    page.keyboard.press('PageUp')
    page.locator('#at', has_text='slice 1,').wait_for()
    text = page.locator('#at').inner_text().replace('\N{MINUS SIGN}', '-')
    voxel = tuple(map(int, re.findall(r'(?:slice|row|column) (\d+)', text)))
    assert int(text.split(' HU')[0]) == volume.hu[voxel]
    assert browser.screenshot(page, '#coronal')[..., 0].max() > 0.5
