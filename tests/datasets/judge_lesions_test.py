"""The judge's opacities: bodies in millimetres, in the lungs, on the chest's noise."""

import pathlib
import re

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest
from scipy import ndimage

from covid_tf import errors
from covid_tf.datasets import judge_lesions
from covid_tf.datasets import judge_textures

_NOISE_HU = 25.0


def _chest(slice_mm=3.0, pixel_mm=1.6):
  """Two ellipsoids of aerated lung, with noise: hu, lungs, spacing."""
  shape = (round(150 / slice_mm), round(180 / pixel_mm), round(240 / pixel_mm))
  height, back, left = np.ogrid[: shape[0], : shape[1], : shape[2]]
  lungs = np.zeros(shape, bool)
  for middle in (65.0, 175.0):
    lungs |= ((height + 0.5) * slice_mm / 72 - 75 / 72) ** 2 + (
      ((back + 0.5) * pixel_mm - 90) / 80
    ) ** 2 + (((left + 0.5) * pixel_mm - middle) / 50) ** 2 < 1
  noise = np.random.default_rng(0).normal(0, _NOISE_HU, shape)
  hu = np.where(lungs, -850.0, 40.0) + noise
  spacing_mm = (slice_mm, pixel_mm, pixel_mm)
  return np.rint(hu).astype(np.int16), lungs.astype(np.uint8), spacing_mm


@pytest.fixture(name='chest', scope='module')
def _fixture():
  return _chest()


def _implant(chest, seed, *arguments, **named):
  hu, lungs, spacing_mm = chest
  return judge_lesions.implant(
    hu, lungs, spacing_mm, np.random.default_rng(seed), *arguments, **named
  )


@pytest.fixture(name='drawn', scope='module')
def _drawn(chest):
  return [_implant(chest, seed) for seed in range(16)]


def test_opacities_are_denser_lung_and_what_is_no_lung_stays(chest, drawn):
  hu, lungs, spacing_mm = chest
  np.testing.assert_array_equal(hu, _chest(*spacing_mm[:2])[0])  # Not changed.
  rim = ndimage.binary_dilation(lungs, np.ones((1, 3, 3)), iterations=2)
  for found in drawn:
    assert found.hu.dtype == np.int16 and found.lesion_mask.dtype == np.uint8
    lesion = found.lesion_mask > 0
    assert lesion.any() and not lesion[lungs == 0].any()
    assert (found.hu >= hu).all()
    assert found.hu[lesion].mean() > hu[lesion].mean() + 50
    np.testing.assert_array_equal(found.hu[~rim], hu[~rim])


@hypothesis.settings(max_examples=8)
@hypothesis.given(
  slice_mm=strategies.floats(1.5, 8.0),
  pixel_mm=strategies.floats(1.2, 2.0),
  amount_cm3=strategies.floats(20.0, 300.0),
  seed=strategies.integers(0, 1000),
)
def test_amounts_are_cubic_centimetres_whatever_the_grid(
  slice_mm, pixel_mm, amount_cm3, seed
):
  chest = _chest(slice_mm, pixel_mm)
  found = _implant(chest, seed, (amount_cm3, amount_cm3))
  painted = found.lesion_mask.sum() * slice_mm * pixel_mm**2 / 1000
  # Opacities that overlap, and small ones that are left out, make it less.
  assert 0.35 * amount_cm3 < painted < 1.25 * amount_cm3


def test_an_opacity_is_one_body_through_the_slices(chest):
  for seed in range(16):
    found = _implant(chest, seed, (8.0, 12.0))
    if len(found.kinds) == 1:
      labels, _ = ndimage.label(found.lesion_mask, np.ones((3, 3, 3)))
      sizes = np.bincount(labels.ravel())[1:]
      assert sizes.max() > 0.85 * sizes.sum()
      body = labels == np.argmax(sizes) + 1
      assert body.any((1, 2)).sum() > 3


def test_the_noise_of_the_chest_stays(chest):
  hu, _, _ = chest
  found = _implant(chest, 5, (150.0, 200.0))
  core = ndimage.binary_erosion(found.lesion_mask, iterations=2)
  for image in (hu, found.hu):
    image = image.astype(float)
    detail = (image - ndimage.gaussian_filter(image, (0, 1.5, 1.5)))[core]
    # Without the noise that a blur of this width takes with it: a few percent.
    assert 0.85 * _NOISE_HU < detail.std() < 1.25 * _NOISE_HU


def test_vessels_show_and_airways_stay_open(chest):
  hu, lungs, spacing_mm = chest
  hu = hu.copy()
  rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
  tubes = []
  for number, row in enumerate(range(26, 92, 10)):  # Along the body, in turns.
    for column in (*range(22, 62, 10), *range(90, 130, 10)):
      tubes.append((row, column, -1000 if number % 2 else 30))
      tube = (rows - row) ** 2 + (columns - column) ** 2 < 5
      hu[:, tube & lungs.any(0)] = tubes[-1][2]
  found = judge_lesions.implant(
    hu, lungs, spacing_mm, np.random.default_rng(2), (250.0, 250.0)
  )
  around = ndimage.uniform_filter(found.lesion_mask.astype(float), (1, 9, 9)) > 0.6
  for vessels in (True, False):
    values = np.concatenate(
      [
        found.hu[around[:, row, column], row, column]
        for row, column, value in tubes
        if (value > 0) == vessels
      ]
    )
    assert len(values) > 20
    assert (values == 30).all() if vessels else np.median(values) < -950


def test_draws_repeat_and_patients_differ(chest, drawn):
  np.testing.assert_array_equal(_implant(chest, 7).hu, drawn[7].hu)
  kinds = {kind for found in drawn for kind in found.kinds}
  assert len(kinds) >= 5 and kinds <= set(judge_lesions.KINDS)
  volumes = [found.lesion_mask.sum() for found in drawn]
  assert max(volumes) > 20 * min(volumes)
  counts = [len(found.kinds) for found in drawn]
  assert min(counts) <= 2 and max(counts) >= 12


def test_posterior_and_basal_are_likelier(chest, drawn):
  _, lungs, _ = chest
  sums = sum(found.lesion_mask.astype(int) for found in drawn)
  height, back, _ = np.nonzero(lungs)
  weights = sums[lungs > 0]
  assert np.average(back, weights=weights) > back.mean() + 2
  assert np.average(height, weights=weights) < height.mean() - 1


def test_opacities_that_no_lung_holds_are_skipped(chest):
  hu, lungs, spacing_mm = chest
  plates = lungs.copy()
  plates[:, :, ::4] = 0  # Pieces 5 mm wide.
  found = judge_lesions.implant(
    hu, plates, spacing_mm, np.random.default_rng(0), (150.0, 150.0)
  )
  assert found.skipped
  assert not found.lesion_mask[plates == 0].any()


@pytest.mark.parametrize('lungs_cm3', [0, 40])
def test_a_chest_without_lungs_is_refused(chest, lungs_cm3):
  hu, lungs, spacing_mm = chest
  mask = np.zeros_like(lungs)
  mask[20:25, 40:60, 30 : 30 + lungs_cm3] = 1
  with pytest.raises(errors.NoLungsError, match='lungs to implant|100 cm³'):
    judge_lesions.implant(hu, mask, spacing_mm, np.random.default_rng(0))


def test_the_density_of_a_real_lesion_is_transplanted(chest):
  hu, lungs, _ = chest
  source, mask = hu[25].copy(), lungs[25]
  source[35:80, 18:62] = -410  # Half of the air of -850 HU: water of 30 HU.
  texture = judge_textures.texture_of(source, mask, 1.6)
  assert texture.water.mean() == pytest.approx(0.5, abs=0.06)
  assert 20 < min(texture.water.shape) * texture.pixel_mm < 65
  found = _implant(chest, 1, (100.0, 100.0), textures=[texture])
  assert judge_lesions.TRANSPLANTED in found.kinds
  changed = [
    _implant(chest, seed, (60.0, 60.0), textures=[texture]) for seed in range(3)
  ]
  for case in changed:
    rise = (case.hu.astype(float) - hu)[case.lesion_mask > 0]
    assert 200 < np.percentile(rise, 75)


def test_the_judge_shares_no_code_with_what_paints_training_sets():
  package = pathlib.Path(judge_lesions.__file__).parents[1]
  own = {'judge_grid', 'judge_lesions', 'judge_textures'}
  for name in own:
    text = pathlib.Path(package, 'datasets', f'{name}.py').read_text('utf-8')
    taken = set(re.findall('^from covid_tf.* import (.*)$', text, re.M))
    assert taken <= {'errors', 'volume'} | own
  using = {
    path.stem
    for path in package.rglob('*.py')
    if re.search(
      '^ *from .* import judge_(grid|lesions|textures)$', path.read_text('utf-8'), re.M
    )
  }
  assert using == {'judged_chests'} | {'judge_lesions', 'judge_textures'}
