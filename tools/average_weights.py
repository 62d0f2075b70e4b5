r"""Averages the weights of several runs into one network.

  python tools/average_weights.py --network=classifier --run=runs/c --run=runs/e \
      --output=runs/mean

The runs must have begun from one another, or from the same weights. The folder holds
what a finished run's does, for tools/evaluate.py, tools/export_models.py and --weights.
"""

from absl import flags
import script

from covid_tf import contract
from covid_tf.training import first_weights

_NETWORK = flags.DEFINE_enum(
  'network',
  None,
  [contract.LUNGS_MODEL, contract.CLASSIFIER_MODEL],
  'What the runs trained.',
  required=True,
)
_RUN = flags.DEFINE_multi_string(
  'run',
  None,
  "A run's folder, a .weights.h5 file or 'demo'; two or more.",
  required=True,
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to make.', required=True)


def main():
  """Averages, as the flags say."""
  model = first_weights.mean_weights(_NETWORK.value, _RUN.value)
  first_weights.write_mean(model, _RUN.value, _OUTPUT.value)
  print(f'{_OUTPUT.value}: the mean of {len(_RUN.value)} runs')


if __name__ == '__main__':
  script.run(main)
