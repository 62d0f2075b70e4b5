"""viewer.html under hands in a browser: places, HU, pixels, and what may be missing."""

import re

import browser
import numpy as np
import pytest
import synthetic_case

from covid_tf.reports import case_viewer
from covid_tf.reports import viewed_volume

_READING = re.compile(
  r'(?P<hu>\S+) HU, map (?P<map>\S+); slice (?P<slice>\d+), row (?P<row>\d+), '
  r'column (?P<column>\d+); x (?P<x>\S+), y (?P<y>\S+), z (?P<z>\S+) mm'
)
_PLANES = ('axial', 'coronal', 'sagittal')
# Of `synthetic_case.LESIONS`, the large one: right, dorsal and basal.
_LESION_MM, _LESION_HU, _LUNG_HU = (-85.0, 45.0, -70.0), -350, -850
# What each pixel of a line through the middle of a plane says.
_SCAN = """(canvas, isDown) => {
  const box = canvas.getBoundingClientRect(), said = [];
  const length = isDown ? box.height : box.width;
  for (let at = 0.5; at < length; at++) {
    canvas.dispatchEvent(new PointerEvent('pointermove', {
      pointerId: 7,
      clientX: box.left + (isDown ? box.width / 2 : at),
      clientY: box.top + (isDown ? at : box.height / 2)}));
    said.push(document.getElementById('pointer').textContent);
  }
  return said;
}"""


@pytest.fixture(name='chromium', scope='module')
def _chromium():
  with browser.chromium() as started:
    yield started


@pytest.fixture(name='case', scope='module')
def _case(tmp_path_factory):
  """(the page, the volume): slices of 8 mm, a large lesion on the right."""
  path = tmp_path_factory.mktemp('viewer') / case_viewer.FILE_NAME
  return path, _write(path, synthetic_case.make_volume())


def _write(path, volume, lesions=synthetic_case.LESIONS):
  case_viewer.write_viewer(path, synthetic_case.make_result(volume, lesions), volume)
  return volume


def _reading(text):
  """(HU, (slice, row, column), LPS mm) of a line under crosshair or pointer."""
  found = _READING.fullmatch(text.replace('\N{MINUS SIGN}', '-'))
  assert found, text
  voxel = tuple(int(found[name]) for name in ('slice', 'row', 'column'))
  return int(found['hu']), voxel, tuple(float(found[name]) for name in 'xyz')


def _draw(page):
  """Waits until what was done is in the picture: input is taken once a frame."""
  page.evaluate(
    'new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))'
  )


def _crosshair(page):
  _draw(page)
  return _reading(page.locator('#at').inner_text())


def _scanned(page, plane, is_down):
  """Canvas pixel to reading, along a line through the middle of a plane."""
  texts = page.locator(f'#{plane}').evaluate(_SCAN, is_down)
  return {
    at + 0.5: _reading(text)
    for at, text in enumerate(texts)
    if text != 'beyond the picture'
  }


def _pixels_per_mm(page, plane, is_down):
  scanned = _scanned(page, plane, is_down)
  places = list(scanned)
  changes = [
    at for before, at in zip(places, places[1:]) if scanned[before][1] != scanned[at][1]
  ]
  first, last = scanned[changes[0]][2], scanned[changes[-1]][2]
  return (changes[-1] - changes[0]) / np.linalg.norm(np.subtract(last, first))


def _place_of(page, plane, lps_mm):
  """(x, y) in a canvas of the voxel nearest to a place in the patient's millimetres."""
  found = []
  for is_down in (False, True):
    scanned = _scanned(page, plane, is_down)
    axes = [value[2] for value in scanned.values()]
    along = np.argmax(np.abs(np.subtract(axes[-1], axes[0])))
    distance = [abs(mm[along] - lps_mm[along]) for mm in axes]
    nearest = np.flatnonzero(np.isclose(distance, min(distance)))
    found.append(list(scanned)[nearest[len(nearest) // 2]])
  return {'x': found[0], 'y': found[1]}


def _bare(page):
  """Hides map, outline and crosshair, and the smoothing: pixels are HU alone."""
  page.locator('#axial').focus()
  for key in 'mlxi':
    page.keyboard.press(key)


def _grey(page, plane, place):
  """0 to 255, at a place in a canvas."""
  _draw(page)
  picture = browser.screenshot(page, f'#{plane}')
  return round(255 * float(picture[int(place['y']), int(place['x']), 0]))


@pytest.mark.parametrize(
  'width, dark, reverse', [(1400, False, ()), (412, True, (0, 1, 2))]
)
def test_hu_sides_and_windows_at_a_known_place(
  chromium, tmp_path, width, dark, reverse
):
  path = tmp_path / case_viewer.FILE_NAME
  affine = synthetic_case.axial_affine(reverse=reverse)
  volume = _write(path, synthetic_case.make_volume(affine))
  with chromium.page(path, width=width, dark=dark, height=1400) as page:
    page.wait_for_selector('body[data-loaded=yes]')
    marks = [page.locator(f'#axial ~ .mark.{side}') for side in ('left', 'top')]
    assert [mark.inner_text() for mark in marks] == ['R', 'A']
    _bare(page)
    start = _place_of(page, 'coronal', _LESION_MM)
    page.locator('#coronal').click(position=start)
    place = _place_of(page, 'axial', _LESION_MM)
    width = page.locator('#axial').bounding_box()['width']
    assert place['x'] < width / 2 < place['x'] + width / 2  # The right is on the left.
    page.locator('#axial').click(position=place)
    hu, voxel, mm = _crosshair(page)
    assert hu == volume.hu[voxel] == _LESION_HU
    np.testing.assert_allclose(mm, volume.index_to_lps_mm(voxel), atol=0.05)
    assert np.all(np.abs(np.subtract(mm, _LESION_MM)) <= np.array([1.6, 1.6, 4.1]))
    other = {**place, 'x': width - place['x']}
    for key, (center, width_hu) in {
      '1': (-600, 1500),
      '2': (40, 400),
      '3': (400, 1800),
    }.items():
      page.keyboard.press(key)
      for shown, value in ((place, _LESION_HU), (other, _LUNG_HU)):
        grey = (value - center + width_hu / 2) / width_hu * 255
        # The lungs have a grain of 25 HU.
        tolerance = 2 + 255 * (4 * 25 if value == _LUNG_HU else 0) / width_hu
        found = _grey(page, 'axial', shown)
        assert abs(found - np.clip(grey, 0, 255)) <= tolerance, (key, value, found)
    page.locator('#center').fill('-350')
    page.locator('#width').fill('100')
    page.locator('#width').press('Enter')
    assert _grey(page, 'axial', place) == pytest.approx(127.5, abs=2)


def _hovered(page, plane, x, y):
  page.locator(f'#{plane}').hover(position={'x': x, 'y': y})
  _draw(page)
  return _reading(page.locator('#pointer').inner_text())


def test_wheel_drag_and_zoom(chromium, case):
  path, volume = case
  with chromium.page(path, anchor='slice=12', height=1400) as page:
    page.wait_for_selector('body[data-loaded=yes]')
    for plane, axis, step in (('axial', 0, 1), ('coronal', 1, -1), ('sagittal', 2, -1)):
      before = _crosshair(page)[1]
      page.locator(f'#{plane}').hover()
      page.mouse.wheel(0, -100)  # Away from oneself: to the head, front or right.
      after = _crosshair(page)[1]
      expected = list(before)
      expected[axis] += step
      assert after == tuple(expected), plane
    x, y = 180.5, 150.5
    reading = _hovered(page, 'axial', x, y)
    scale = _pixels_per_mm(page, 'axial', False)
    page.locator('#axial').hover(position={'x': x, 'y': y})
    page.keyboard.down('Control')
    page.mouse.wheel(0, -100)
    page.keyboard.up('Control')
    _draw(page)
    assert _pixels_per_mm(page, 'axial', False) == pytest.approx(1.2 * scale, rel=0.04)
    page.locator('#zoom-in').click()
    page.locator('#zoom-in').click()
    reading = _hovered(page, 'axial', x, y)
    at = _crosshair(page)
    for button, modifier in (('left', 'Shift'), ('middle', None)):
      page.locator('#axial').hover(position={'x': x, 'y': y})
      if modifier:
        page.keyboard.down(modifier)
      box = page.locator('#axial').bounding_box()
      page.mouse.down(button=button)
      page.mouse.move(box['x'] + x + 30, box['y'] + y + 20, steps=3)
      page.mouse.up(button=button)
      if modifier:
        page.keyboard.up(modifier)
      assert _crosshair(page) == at  # What is shown moved, not the crosshair.
      assert _hovered(page, 'axial', x + 30, y + 20)[1] == reading[1]
      x, y = x + 30, y + 20
    box = page.locator('#axial').bounding_box()
    page.mouse.down(button='right')
    page.mouse.move(box['x'] + x + 50, box['y'] + y - 25, steps=5)
    page.mouse.up(button='right')
    window = [page.locator(f'#{name}').input_value() for name in ('center', 'width')]
    assert window == ['-650', '1700'] and _crosshair(page) == at
    page.locator('#axial').hover(position={'x': x, 'y': y})
    page.mouse.down()
    page.mouse.move(box['x'] + x + 40, box['y'] + y - 10, steps=3)
    page.mouse.up()
    dragged = _crosshair(page)
    assert dragged == _hovered(page, 'axial', x + 40, y - 10)
    assert dragged[0] == volume.hu[dragged[1]]
    page.locator('#reset').click()
    _draw(page)
    assert _pixels_per_mm(page, 'axial', False) == pytest.approx(scale, rel=0.02)


def test_two_fingers_zoom(chromium, case):
  path, _ = case
  with chromium.page(path, width=412, dark=True) as page:
    page.wait_for_selector('body[data-loaded=yes]')
    page.locator('#axial').scroll_into_view_if_needed()
    before = _pixels_per_mm(page, 'axial', True)
    box = page.locator('#axial').bounding_box()
    session = page.context.new_cdp_session(page)
    middle = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    for kind, half in (('Start', 40), ('Move', 60), ('Move', 80), ('End', None)):
      points = [
        {'x': middle[0] + side * (half or 0), 'y': middle[1], 'id': number}
        for number, side in enumerate((-1, 1))
      ]
      session.send(
        'Input.dispatchTouchEvent',
        {'type': f'touch{kind}', 'touchPoints': points if half else []},
      )
    _draw(page)
    assert _pixels_per_mm(page, 'axial', True) == pytest.approx(2 * before, rel=0.08)


def test_all_of_it_works_by_keyboard(chromium, case):
  path, volume = case
  with chromium.page(path, anchor='slice=12') as page:
    page.wait_for_selector('body[data-turning=yes]')
    order = []
    for _ in range(60):  # Every control is reached by Tab alone, and named.
      page.keyboard.press('Tab')
      order.append(page.evaluate('document.activeElement.id'))
    wanted = {'axial', 'axial-slider', 'turning', 'opacity', 'threshold', 'show-map'}
    assert wanted | {'center', 'width', 'zoom-in', 'reset'} <= set(order)
    page.keyboard.press('a')
    before = _crosshair(page)[1]
    for key, axis, step in (
      ('PageUp', 0, 1),
      ('ArrowRight', 2, 1),
      ('ArrowDown', 1, 1),
      ('ArrowUp', 1, -1),
      ('ArrowLeft', 2, -1),
      ('PageDown', 0, -1),
    ):
      page.keyboard.press(key)
      moved = list(before)
      moved[axis] += step
      before = _crosshair(page)[1]
      assert before == tuple(moved), key
    page.keyboard.press('End')
    assert _crosshair(page)[1][0] == volume.shape[0] - 1
    for key, name, value in (
      ('3', 'center', '400'),
      (']', 'center', '425'),
      ('{', 'width', '1750'),
      ('o', 'opacity', '0.4'),
      ('y', 'threshold', '0.65'),
    ):
      page.keyboard.press(key)
      assert page.locator(f'#{name}').input_value() == value, key
    page.keyboard.press('n')
    pressed = page.locator('[data-slice][aria-pressed=true]')
    pressed.first.wait_for()
    first = pressed.inner_text()
    page.keyboard.press('n')
    _draw(page)
    assert pressed.inner_text() != first
    assert f'Slice {_crosshair(page)[1][0]}:' in pressed.inner_text()
    _turns(page)


def _turns(page):
  """Asserts that keys, buttons and a drag turn the lungs, in pixels too."""
  page.locator('#turning').scroll_into_view_if_needed()
  pictures = [browser.screenshot(page, '#turning')]

  def drag():
    page.locator('#turning').scroll_into_view_if_needed()
    box = page.locator('#turning').bounding_box()
    x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 90, y + 30, steps=3)
    page.mouse.up()

  for turn, words in (
    (lambda: page.locator('[data-turn="90"]').click(), 'Turned 90°, from 0° above'),
    (lambda: (page.keyboard.press('v'), page.keyboard.press('ArrowUp')), 'from 10°'),
    (drag, 'Turned 135°, from 25° above'),
  ):
    turn()
    _draw(page)
    assert words in page.locator('#turned').inner_text()
    pictures.append(browser.screenshot(page, '#turning'))
  for before, after in zip(pictures, pictures[1:]):
    changed = np.abs(before - after)[..., :3].max(axis=2) > 0.05
    assert changed.mean() > 0.02
  sides = {}
  for angle in (0, 90, 180, 270):
    page.locator(f'[data-turn="{angle}"]').click()
    sides[angle] = ''.join(
      page.locator(f'#turning ~ .mark.{side}').inner_text()
      for side in ('left', 'right', 'top', 'bottom')
    )
  assert sides == {0: 'RLHF', 90: 'PAHF', 180: 'LRHF', 270: 'APHF'}
  shown = pictures[0][..., :3]
  assert (shown.max(axis=2) > 0.2).mean() > 0.05  # Lungs, on black.
  assert ((shown[..., 0] - shown[..., 2]) > 0.2).any()  # The map, in orange.


@pytest.mark.parametrize('spacing_mm', [(8.0, 3.0, 3.0), (1.0, 4.0, 4.0)])
def test_proportions_are_true(chromium, tmp_path, spacing_mm):
  path = tmp_path / case_viewer.FILE_NAME
  shape = (34, 84, 128) if spacing_mm[0] > 1 else (90, 63, 96)
  lesions = (((-85, 45, 10), (30, 28, 20)),)
  affine = synthetic_case.axial_affine(spacing_mm, shape)
  _write(path, synthetic_case.make_volume(affine, shape, lesions), lesions)
  with chromium.page(path, height=1400) as page:
    page.wait_for_selector('body[data-loaded=yes]')
    for plane in _PLANES:
      across, down = (_pixels_per_mm(page, plane, is_down) for is_down in (False, True))
      assert across == pytest.approx(down, rel=0.03), plane


def test_an_oblique_study_is_read_in_its_own_places(chromium, tmp_path):
  turned, slope = np.radians(18), np.radians(12)
  about_x = np.array(
    [
      [1, 0, 0],
      [0, np.cos(turned), -np.sin(turned)],
      [0, np.sin(turned), np.cos(turned)],
    ]
  )
  about_z = np.array(
    [
      [np.cos(slope), -np.sin(slope), 0],
      [np.sin(slope), np.cos(slope), 0],
      [0, 0, 1],
    ]
  )
  affine = synthetic_case.axial_affine()
  affine[:3] = about_z @ about_x @ affine[:3]
  path = tmp_path / case_viewer.FILE_NAME
  volume = _write(path, synthetic_case.make_volume(affine))
  wanted = np.linalg.solve(affine, [*_LESION_MM, 1])[:3]
  index = tuple(int(value) for value in np.rint(wanted))
  with chromium.page(path, anchor=f'slice={index[0]}', height=1400) as page:
    page.wait_for_selector('body[data-loaded=yes]')
    for plane in _PLANES:
      across, down = (_pixels_per_mm(page, plane, is_down) for is_down in (False, True))
      assert across == pytest.approx(down, rel=0.03), plane
    lines = [_scanned(page, 'axial', is_down) for is_down in (False, True)]
    x, y = (
      next(at for at, (_, voxel, _) in line.items() if voxel[axis] == index[axis]) + 2
      for line, axis in zip(lines, (2, 1))
    )
    page.locator('#axial').click(position={'x': x, 'y': y})
    hu, voxel, mm = _crosshair(page)
    assert voxel == index and hu == volume.hu[index] == _LESION_HU
    np.testing.assert_allclose(mm, volume.index_to_lps_mm(index), atol=0.05)
    assert 'R' in page.locator('#axial ~ .mark.left').inner_text()


def test_of_a_coarsened_ct_the_average_is_read_and_said(
  chromium, tmp_path, monkeypatch
):
  monkeypatch.setattr(viewed_volume, '_MAX_VOXELS', 30_000)
  path = tmp_path / case_viewer.FILE_NAME
  volume = _write(path, synthetic_case.make_volume())
  with chromium.page(path, height=1400) as page:
    page.wait_for_selector('body[data-loaded=yes]')
    stated = page.locator('#stated').inner_text()
    rows, columns = map(int, re.search(r'over (\d+) × (\d+) pixels', stated).groups())
    assert rows == columns > 1
    text = page.locator('#at').inner_text().replace('\N{MINUS SIGN}', '-')
    spans = [
      slice(int(first), int(last or first) + 1)
      for first, last in re.findall(r'(?:slice|row|column) (\d+)(?:–(\d+))?', text)
    ]
    assert [span.stop - span.start for span in spans[1:]] == [rows, columns]
    block = volume.hu[tuple(spans)]
    assert int(text.split(' HU')[0]) == np.rint(block.mean())


def test_a_place_in_the_middle_has_no_minus(chromium, tmp_path):
  path = tmp_path / case_viewer.FILE_NAME
  affine = synthetic_case.axial_affine()
  affine[0, 3] = -3.0 * 64 - 0.04
  _write(path, synthetic_case.make_volume(affine))
  with chromium.page(path) as page:
    page.wait_for_selector('body[data-loaded=yes]')
    page.locator('#sagittal-slider').fill('64')
    assert '; x 0.0, y' in page.locator('#at').inner_text()


def test_two_slices_are_looked_at(chromium, tmp_path):
  path = tmp_path / case_viewer.FILE_NAME
  shape = (2, 84, 128)
  volume = synthetic_case.make_volume(synthetic_case.axial_affine(shape=shape), shape)
  _write(path, volume)
  with chromium.page(path, width=412) as page:
    page.wait_for_selector('body[data-turning=yes]')
    page.locator('#axial-slider').fill('1')
    hu, voxel, _ = _crosshair(page)
    assert voxel[0] == 1 and hu == volume.hu[voxel]


def test_wide_and_narrow_light_and_dark(chromium, case):
  path, _ = case
  with chromium.page(path) as page:
    page.wait_for_selector('body[data-turning=yes]')
    for width in browser.WIDTHS:
      page.set_viewport_size({'width': width, 'height': 900})
      for scheme in ('light', 'dark'):
        page.emulate_media(color_scheme=scheme)
        browser.check_accessibility(page)
        assert page.evaluate('document.documentElement.scrollWidth') <= width
        for plane in (*_PLANES, 'turning'):
          box = page.locator(f'#{plane}').bounding_box()
          assert box['width'] >= 340 and box['height'] >= 240, plane
