from matplotlib import patches
import numpy as np
import pytest
import synthetic_case

from covid_tf import results
from covid_tf.analysis import localization
from covid_tf.reports import pictures
from covid_tf.reports import system_figure


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


def test_the_system_is_drawn_stage_by_stage_with_the_pictures_of_the_case():
  volume = synthetic_case.make_volume()
  result = synthetic_case.make_result(volume)
  explanation = _explanation()
  figure = system_figure.system_figure(volume, result, 8, explanation)
  words = [text.get_text() for text in figure.texts]
  stages = ('CT', 'Lungs', 'Lung box', 'Classifier', 'Grad-CAM', 'Map', '3D map')
  for title in (*stages, 'Corona score', '28 × 28', '14 × 14', '×', '='):
    assert title in words
  assert len(figure.axes) == 9
  slices, lungs, crop, probability, fine, coarse, product, rendered, score = figure.axes
  assert len(slices.get_images()) == 1
  (frame,) = (patch for patch in lungs.patches if patch.get_width())
  box = result.lung_box
  assert frame.get_bbox().bounds == pytest.approx(
    (
      box.column0 * 3.0,
      box.row0 * 3.0,
      (box.column1 - box.column0) * 3.0,
      (box.row1 - box.row0) * 3.0,
    )
  )
  assert crop.get_images()[0].get_extent()[1] == (box.column1 - box.column0) * 3.0
  fused = localization.fuse_scales(
    explanation.cam_28[0], explanation.cam_14[0], box.shape
  )
  np.testing.assert_array_equal(_heat(product), pictures.heat_colours(fused))
  assert not np.array_equal(_heat(fine), _heat(coarse))
  drawn = [patch.get_data().values for patch in probability.patches]
  np.testing.assert_allclose(np.maximum(*drawn), result.slice_probability, rtol=1e-6)
  positive = tuple(np.flatnonzero(drawn[1]).tolist())
  assert positive == result.positive_slices
  assert rendered.get_images()[0].get_array().shape[-1] == 3
  assert f'{result.corona_score_cm3:.1f} cm³' in [t.get_text() for t in score.texts]
  arrows = [a for a in figure.artists if isinstance(a, patches.FancyArrowPatch)]
  assert len(arrows) == 6


def test_the_box_of_the_system_is_where_a_mirrored_grid_has_it():
  affine = synthetic_case.axial_affine((8.0, 3.0, 3.0), reverse=(1, 2))
  volume = synthetic_case.make_volume(affine)
  result = synthetic_case.make_result(volume)
  usual = synthetic_case.make_volume()
  frames = []
  for one, of in ((volume, result), (usual, synthetic_case.make_result(usual))):
    figure = system_figure.system_figure(one, of, 8, _explanation())
    frames.append(figure.axes[1].patches[0].get_bbox().bounds)
  assert frames[0] == pytest.approx(frames[1])


def test_a_case_without_positive_slices_has_its_system_too():
  volume = synthetic_case.make_volume(lesions=())
  result = synthetic_case.make_result(volume, lesions=())
  figure = system_figure.system_figure(volume, result, 8, _explanation())
  assert '0 of 34 slices' in [text.get_text() for text in figure.texts]
  assert '0.0 cm³' in [text.get_text() for text in figure.axes[8].texts]
