import fake_models
import numpy as np
from PIL import Image
import pytest
import synthetic_case

from covid_tf import results
from covid_tf.analysis import localization
from covid_tf.reports import case_figures
from covid_tf.reports import pictures


@pytest.fixture(scope='module', name='case')
def _case():
  volume = synthetic_case.make_volume()
  return volume, synthetic_case.make_result(volume)


def _explanation():
  rng = np.random.default_rng(2)
  return results.SliceExplanation(
    np.array((0.87,), np.float32),
    rng.random((1, 28, 28), np.float32),
    rng.random((1, 14, 14), np.float32),
  )


def _heat(axes):
  """The colours drawn over the CT."""
  return axes.get_images()[1].get_array()


def test_the_last_panel_is_the_product_of_the_other_two(case):
  volume, result = case
  explanation = _explanation()
  figure = case_figures.scales_figure(volume, result, 8, explanation)
  plain, fine, coarse, product, bar = figure.axes
  assert [axes.get_title() for axes in figure.axes[:4]] == [
    'CT and segmented lungs',
    '28 × 28',
    '14 × 14',
    'Product',
  ]
  assert len(plain.get_images()) == 1
  fused = localization.fuse_scales(
    explanation.cam_28[0], explanation.cam_14[0], result.lung_box.shape
  )
  np.testing.assert_array_equal(_heat(product), pictures.heat_colours(fused))
  for axes, cam in ((fine, explanation.cam_28), (coarse, explanation.cam_14)):
    pair = (
      (cam, np.ones((1, 14, 14), np.float32))
      if cam.shape[1] == 28
      else (np.ones((1, 28, 28), np.float32), cam)
    )
    alone = localization.fuse_scales(pair[0][0], pair[1][0], result.lung_box.shape)
    assert np.abs(_heat(axes).astype(int) - pictures.heat_colours(alone)).max() <= 1
  assert bar.get_xticks().tolist() == [0, 0.6, 1]


def test_panels_are_in_millimetres_and_lettered_by_the_affine():
  affine = synthetic_case.axial_affine((8.0, 3.0, 2.0), reverse=(2,))
  volume = synthetic_case.make_volume(affine)
  result = synthetic_case.make_result(volume)
  figure = case_figures.scales_figure(volume, result, 8, _explanation())
  rows, columns = result.lung_box.shape
  for axes in figure.axes[:4]:
    assert axes.get_images()[0].get_extent() == [0, columns * 2.0, rows * 3.0, 0]
    letters = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert letters['R'] < 0.5 < letters['L']


def test_captions_tell_the_numbers_of_the_result(case):
  volume, result = case
  figure = case_figures.scales_figure(volume, result, 8, _explanation())
  caption = ' '.join(figure.texts[0].get_text().split())
  assert 'slice 8 of 0 to 33, COVID-19 probability 0.87' in caption
  assert f'({result.corona_score_by_slice_cm3[8]:.1f} cm³ here)' in caption
  assert f'score {result.corona_score_cm3:.1f} cm³' in case_figures.map_caption(result)


def test_the_map_is_drawn_from_four_sides(case):
  _, result = case
  figure = case_figures.map_figure(
    result.lung_mask,
    result.localization,
    result.affine,
    case_figures.map_caption(result),
  )
  assert [axes.get_title() for axes in figure.axes] == [
    'From the front',
    "From the patient's right",
    "From the patient's left",
    'From the right, above',
  ]
  front = figure.axes[0].get_images()[0].get_array()
  warm = front[..., 0].astype(int) - front[..., 2]
  rows, columns = np.nonzero(warm > 40)
  assert columns.size and columns.mean() < warm.shape[1] / 2  # The right lung's lesion.
  assert rows.mean() > warm.shape[0] / 2


@pytest.mark.parametrize('index', [None, 18])
def test_all_figures_are_written_of_the_slice_asked_for(case, tmp_path, index):
  volume, result = case
  models = fake_models.FakeModels()
  case_figures.write_figures(tmp_path, volume, result, models, index)
  assert models.crops == [(1, *result.lung_box.shape)]
  assert {path.name for path in tmp_path.iterdir()} == {
    'scales.svg',
    'scales.png',
    'map.svg',
    'map.png',
    'system.svg',
    'system.png',
  }
  for name in ('scales', 'map', 'system'):
    assert (tmp_path / f'{name}.svg').read_text().startswith('<?xml')
    assert Image.open(tmp_path / f'{name}.png').width == 2100  # 7 inches at 300 dpi.
