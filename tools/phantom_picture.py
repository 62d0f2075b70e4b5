"""Draws docs/images/phantoms.png: one phantom of each kind, truth outlined.

python tools/phantom_picture.py --output=docs/images/phantoms.png
"""

from absl import flags
import matplotlib
import numpy as np
import script

from covid_tf.datasets import phantom
from covid_tf.storage import files

_OUTPUT = flags.DEFINE_string('output', 'docs/images/phantoms.png', 'The PNG to write.')
_SEED = flags.DEFINE_integer('seed', 1_000_021, 'Of the first phantom.')
_LUNG_WINDOW, _SOFT_WINDOW = (-1350, 150), (-160, 240)
_BODY = slice(70, 330), slice(28, 356)  # Rows and columns shown, 1 mm each.
_TITLES = {'none': 'no lesion', 'focal': 'focal', 'diffuse': 'diffuse'}


def main():
  matplotlib.use('Agg')
  from matplotlib import pyplot as plt  # pylint: disable=import-outside-toplevel

  figure, axes = plt.subplots(
    3,
    4,
    figsize=(10, 5.7),
    facecolor='black',
    gridspec_kw={'width_ratios': (1, 1, 1, 0.98)},
  )
  for row, (kind, axis) in enumerate(zip(phantom.KINDS, axes)):
    drawn = phantom.generate(
      phantom.draw_case(
        _SEED.value + row,
        kind,
        matrix=384,
        slice_spacing_mm=2.0,
        padded=False,
        slice_thickness_mm=3.0,
        noise_hu=9.0,
        motion_mm=0.0,
        pixel_spacing_mm=1.0,
      )
    )
    _draw_row(axis, drawn)
    axis[0].set_title(_TITLES[kind], color='white', fontsize=9, loc='left', pad=2)
  figure.subplots_adjust(0, 0, 1, 0.97, 0.02, 0.07)
  with files.replacing(_OUTPUT.value) as path:
    figure.savefig(path, dpi=100, pil_kwargs={'optimize': True})


def _draw_row(axes, drawn):
  """Axial in the lung window, the same with the truth, soft tissue, coronal."""
  hu, lesion, lung = (
    array[(slice(None), *_BODY)]
    for array in (drawn.volume.hu, drawn.lesion_mask, drawn.lung_mask)
  )
  shown = lesion if lesion.any() else lung
  index = int(shown.sum((1, 2)).argmax())
  for axis, window in zip(axes, (_LUNG_WINDOW, _LUNG_WINDOW, _SOFT_WINDOW)):
    _show(axis, hu[index], window)
  if lesion[index].any():
    axes[1].contour(lesion[index], [0.5], colors='#58f5a0', linewidths=0.8)
  axes[1].contour(lung[index], [0.5], colors='#58c4f5', linewidths=0.5)
  plane = int(np.argmax(shown.sum((0, 2))))
  step, _, column = drawn.volume.spacing_mm
  _show(axes[3], hu[::-1, plane], _LUNG_WINDOW, step / column)


def _show(axis, plane, window, aspect=1.0):
  axis.imshow(plane, cmap='gray', vmin=window[0], vmax=window[1], aspect=aspect)
  axis.set_xticks([])
  axis.set_yticks([])


if __name__ == '__main__':
  script.run(main)
