r"""Draws docs/images/thickness.png: slices of 1 mm and slabs of 5 mm of a phantom.

  python tools/draw_thickness.py --output=docs/images/thickness.png

A held-out phantom with the noise that slices of 1 mm have: one slice, the slab that
holds it, and the lungs' base from the front with the masks of every slice and of slabs.
Without --models the demo models that come with the package answer.
"""

import dataclasses

from absl import flags
from matplotlib import figure
import numpy as np
import script

import covid_tf
from covid_tf import results
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.datasets import phantom
from covid_tf.storage import files

_OUTPUT = flags.DEFINE_string('output', None, 'PNG to write.', required=True)
_MODELS = flags.DEFINE_string('models', None, 'Exported models; else the demo ones.')

_SEED = phantom.TRAINING_SEED_LIMIT + 350  # Held out.
_NOISE_HU = 60.0  # Of 1 mm at the dose at which 5 mm have 27.
_LUNG_WINDOW = (-1350, 150)
_EVERY_SLICE, _SLABS = '#ffb000', '#58c4f5'
_BASE_MM = 70  # Of the lungs, from the lowest slice up.
_DOTS_PER_INCH = 110


def main():
  case = phantom.draw_case(_SEED, 'focal', slice_spacing_mm=1.0, lesion_fraction=0.06)
  drawn = phantom.generate(dataclasses.replace(case, noise_hu=_NOISE_HU))
  volume = drawn.volume
  with covid_tf.load_models(_MODELS.value) as models:
    masks = [
      covid_tf.analyze(volume, models, thresholds=thresholds).lung_mask
      for thresholds in (results.Thresholds(every_slice=True), results.Thresholds())
    ]
  page = figure.Figure(figsize=(10, 3.1), layout='constrained')
  first, second, third = page.subplots(1, 3, width_ratios=(1, 1, 1.3))
  index = int(drawn.lesion_mask.sum(axis=(1, 2)).argmax())
  slabs = slabs_lib.divide(
    volume.shape[0], volume.spacing_mm[0], slabs_lib.DEFAULT_THICKNESS_MM
  )
  slab, _ = slabs.shares(index)[0]
  _show(first, volume.hu[index], f'one slice of {volume.spacing_mm[0]:g} mm')
  average = slabs.average(volume.hu, slice(slab, slab + 1))[0]
  _show(second, average, f'the slab of {slabs.thickness_mm:.2g} mm that holds it')
  _show_base(third, volume, masks)
  with files.replacing(_OUTPUT.value) as path:
    page.savefig(path, format='png', dpi=_DOTS_PER_INCH, metadata={'Software': None})


def _show(axes, hu, title):
  axes.imshow(
    hu, cmap='gray', vmin=_LUNG_WINDOW[0], vmax=_LUNG_WINDOW[1], interpolation='none'
  )
  axes.set_title(title, fontsize=9)
  axes.set_axis_off()


def _show_base(axes, volume, masks):
  """A lung's base from the front, at the row with most lung in the lowest part."""
  low = int(np.flatnonzero(masks[0].any(axis=(1, 2)))[0])
  part = slice(max(0, low - 5), low - 5 + _BASE_MM)
  row = int(masks[0][part].sum(axis=(0, 2)).argmax())
  columns = np.flatnonzero(masks[0][part, row].any(axis=0))
  side = slice(columns[0] - 10, volume.shape[2] // 2)  # The patient's right.
  slice_mm, _, column_mm = volume.spacing_mm
  _show(axes, volume.hu[part, row, side], 'the right base from the front: masks')
  for mask, colour in zip(masks, (_EVERY_SLICE, _SLABS), strict=True):
    axes.contour(mask[part, row, side], [0.5], colors=colour, linewidths=0.8)
  axes.set_aspect(slice_mm / column_mm)
  axes.invert_yaxis()
  for place, (words, colour) in enumerate(
    (('of every slice', _EVERY_SLICE), ('of slabs', _SLABS))
  ):
    axes.text(
      0.02,
      0.03 + 0.08 * place,
      words,
      color=colour,
      fontsize=8,
      transform=axes.transAxes,
    )


if __name__ == '__main__':
  script.run(main)
