r"""Draws the lung network as it is exported (Fig. 3 of the paper).

  python tools/draw_network.py --models=exported/ --output=figures/

Writes network.svg and network.png. Layers, channels and sizes are read from the graph.
"""

import pathlib

from absl import flags
import script

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import export
from covid_tf.models import layer_graph
from covid_tf.reports import figures
from covid_tf.reports import network_figure

_MODELS = flags.DEFINE_string(
  'models', None, 'Folder of exported models.', required=True
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the figure.', required=True)
_VERSION = flags.DEFINE_integer('version', None, 'Of the network; newest if unset.')


def main():
  folder = pathlib.Path(_MODELS.value) / contract.LUNGS_MODEL
  found = export.versions(folder)
  if not found:
    raise errors.UsageError(
      f'--models={_MODELS.value}: a folder with {contract.LUNGS_MODEL}/VERSION is '
      'required, found none; export the models first (tools/export_models.py).'
    )
  version = found[-1] if _VERSION.value is None else _VERSION.value
  layers = layer_graph.read_layers(folder / str(version))
  figure = network_figure.network_figure(layers, f'Lung network, version {version}')
  figures.save(figure, pathlib.Path(_OUTPUT.value) / 'network')


if __name__ == '__main__':
  script.run(main)
