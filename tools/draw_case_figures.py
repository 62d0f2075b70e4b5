r"""Draws the figures of one case: the system (Fig. 1), both scales (Fig. 2), 3D map.

  python tools/draw_case_figures.py --study=study/ --models=exported/ --output=figures/

Writes system, scales and map, each as .svg and .png. Research use only.
"""

import pathlib

from absl import flags
import script

import covid_tf
from covid_tf.reports import case_figures

_STUDY = flags.DEFINE_string(
  'study', None, 'DICOM folder or NIfTI file.', required=True
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the figures.', required=True)
_MODELS = flags.DEFINE_string('models', None, 'Folder of exported models.')
_SERVER = flags.DEFINE_string('server', None, 'HOST:PORT of a model server.')
_SLICE = flags.DEFINE_integer('slice', None, 'Slice of Fig. 2; most affected if unset.')


@flags.multi_flags_validator(
  ['models', 'server'], 'exactly one of --models and --server is required'
)
def _one_source(values):
  return (values['models'] is None) != (values['server'] is None)


def main():
  volume = covid_tf.read_ct(_STUDY.value)
  source = (
    covid_tf.load_models(_MODELS.value)
    if _MODELS.value
    else covid_tf.connect(_SERVER.value)
  )
  with source as models:
    case_figures.write_figures(
      pathlib.Path(_OUTPUT.value),
      volume,
      covid_tf.analyze(volume, models),
      models,
      _SLICE.value,
    )


if __name__ == '__main__':
  script.run(main)
