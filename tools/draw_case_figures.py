r"""Draws the figures of one case: both Grad-CAM scales (Fig. 2) and the 3D map.

  python tools/draw_case_figures.py --study=study/ --models=exported/ --output=figures/

Writes scales.svg, scales.png, map.svg and map.png. Research use only.
"""

import pathlib

from absl import app
from absl import flags
import numpy as np

import covid_tf
from covid_tf.cohort import figure_style
from covid_tf.reports import figures

_STUDY = flags.DEFINE_string('study', None, 'DICOM folder or NIfTI file.', required=True)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the figures.', required=True)
_MODELS = flags.DEFINE_string('models', None, 'Folder of exported models.')
_SERVER = flags.DEFINE_string('server', None, 'HOST:PORT of a model server.')
_SLICE = flags.DEFINE_integer('slice', None, 'Slice of Fig. 2; most affected if unset.')


@flags.multi_flags_validator(
    ['models', 'server'], 'exactly one of --models and --server is required')
def _one_source(values):
  return (values['models'] is None) != (values['server'] is None)


def main(argv):
  del argv
  volume = covid_tf.read_ct(_STUDY.value)
  source = (covid_tf.load_models(_MODELS.value) if _MODELS.value
            else covid_tf.connect(_SERVER.value))
  with source as models:
    result = covid_tf.analyze(volume, models)
    index = _SLICE.value
    if index is None:
      index = int(np.argmax(result.corona_score_by_slice_cm3))
    crop = volume.hu[index:index + 1, result.lung_box.rows, result.lung_box.columns]
    explanation = models.grad_cam(np.ascontiguousarray(crop))
  output = pathlib.Path(_OUTPUT.value)
  figure_style.save(
      figures.scales_figure(volume, result, index, explanation), output / 'scales')
  figure_style.save(
      figures.map_figure(result.lung_mask, result.localization, result.affine,
                         figures.map_caption(result)), output / 'map')


if __name__ == '__main__':
  app.run(main)
