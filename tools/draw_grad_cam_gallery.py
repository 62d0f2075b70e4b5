r"""Draws docs/images/grad_cam.png: maps over phantom lesions, truth outlined.

  python tools/draw_grad_cam_gallery.py --output=docs/images/grad_cam.png

One held-out phantom a row: the slice with most lesion, or of one without disease the
slice with most lung; both scales, and their product. The true lesion is green; in the
product, what would count for the score is outlined in white. Without --models the demo
models that come with the package answer.
"""

from absl import flags
from matplotlib import figure
from matplotlib.backends import backend_agg
import numpy as np
from PIL import Image
import script

import covid_tf
from covid_tf import results
from covid_tf.analysis import localization
from covid_tf.datasets import phantom
from covid_tf.storage import files

_OUTPUT = flags.DEFINE_string('output', None, 'PNG to write.', required=True)
_MODELS = flags.DEFINE_string('models', None, 'Exported models; else the demo ones.')

_FIRST_SEED = phantom.TRAINING_SEED_LIMIT + 900  # Held out.
# Row by row: what is asked of the phantom, and what it is called.
_CASES = (
  ('ground glass, focal', 'focal', {'consolidation': 0.0, 'crazy_paving': 0.0}),
  ('consolidation, focal', 'focal', {'consolidation': 0.9, 'crazy_paving': 0.0}),
  ('diffuse', 'diffuse', {'severe': False}),
  ('diffuse, severe', 'diffuse', {'severe': True}),
  ('no disease', 'none', {}),
)
_LUNG_WINDOW = (-1350, 150)
_TRUTH, _COUNTED = '#35d04c', '#ffffff'
_DOTS_PER_INCH = 80
_COLORS = 256  # Of the PNG: a third of the bytes, and no difference to the eye.


def main():
  page = figure.Figure(figsize=(10, 1.95 * len(_CASES)), layout='constrained')
  axes = page.subplots(len(_CASES), 4, squeeze=False)
  with covid_tf.load_models(_MODELS.value) as models:
    for number, (row, (name, kind, changes)) in enumerate(zip(axes, _CASES)):
      case = phantom.draw_case(
        _FIRST_SEED + number, kind, slice_spacing_mm=10.0, **changes
      )
      _draw_row(row, name, phantom.generate(case), models)
  for column, title in zip(
    axes[0],
    (
      'phantom, lesion in green',
      '28 × 28',
      '14 × 14',
      f'product, above {results.Thresholds.map} in white',
    ),
  ):
    column.set_title(title, fontsize=9)
  with files.replacing(_OUTPUT.value) as temporary:
    _save(page, temporary)


def _draw_row(row, name, drawn, models):
  index = _shown_slice(drawn)
  rows, columns = (
    np.flatnonzero(drawn.lung_mask.any(axis=axes)) for axes in ((0, 2), (0, 1))
  )
  box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
  crop = np.ascontiguousarray(drawn.volume.hu[index][box])
  lesion = drawn.lesion_mask[index][box]
  answer = models.grad_cam(crop[np.newaxis])
  scales = [_enlarged(scale[0], crop.shape) for scale in (answer.cam_28, answer.cam_14)]
  fused = localization.fuse_scales(answer.cam_28[0], answer.cam_14[0], crop.shape)
  for axis, overlay in zip(row, (None, *scales, fused)):
    axis.imshow(crop, cmap='gray', vmin=_LUNG_WINDOW[0], vmax=_LUNG_WINDOW[1])
    if overlay is not None:
      axis.imshow(overlay, cmap='inferno', alpha=0.5, vmin=0, vmax=1)
    if lesion.any():
      axis.contour(lesion, [0.5], colors=_TRUTH, linewidths=0.9)
    axis.set_axis_off()
  probability = float(answer.covid_probability[0])
  is_positive = probability > results.Thresholds.slice_probability
  if is_positive and fused.max() > results.Thresholds.map:
    row[-1].contour(fused, [results.Thresholds.map], colors=_COUNTED, linewidths=0.9)
  elif not is_positive:
    _write(row[-1], 'negative: counts nothing')
  _write(row[0], f'{name}, p = {probability:.2f}')


def _write(axis, text):
  axis.text(
    0.02,
    0.04,
    text,
    color='white',
    fontsize=8,
    transform=axis.transAxes,
    bbox={'facecolor': 'black', 'alpha': 0.65, 'linewidth': 0, 'pad': 2},
  )


def _shown_slice(drawn) -> int:
  mask = drawn.lesion_mask if drawn.lesion_mask.any() else drawn.lung_mask
  return int(np.argmax(mask.sum(axis=(1, 2))))


def _enlarged(scale, shape):
  rows, columns = (
    localization.interpolation_matrix(source, size)
    for source, size in zip(scale.shape, shape)
  )
  return rows @ scale @ columns.T


def _save(page, path):
  canvas = backend_agg.FigureCanvasAgg(page)
  page.set_dpi(_DOTS_PER_INCH)
  canvas.draw()
  picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
  picture.quantize(_COLORS).save(path, format='PNG', optimize=True)


if __name__ == '__main__':
  script.run(main)
