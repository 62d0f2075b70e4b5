"""The demo networks as the SavedModels that a server or `load_models` takes."""

import os
import pathlib

from covid_tf import contract
from covid_tf.models import demo_weights
from covid_tf.models import export


def export_demo_models(directory: str | os.PathLike) -> pathlib.Path:
  """Exports both networks with the weights that come with the package.

  Args:
    directory: gets `lungs/1` and `classifier/1`; a version that is there
      already, from an earlier call, is kept as it is.

  Returns:
    The directory.

  Raises:
    errors.ModelError: the weights are absent or damaged.
    errors.OutputError: the directory cannot be written.
  """
  directory = pathlib.Path(directory)
  training = demo_weights.training_cards()
  for name, load in ((contract.LUNGS_MODEL, demo_weights.load_lung_unet),
                     (contract.CLASSIFIER_MODEL, demo_weights.load_classifier)):
    if not (directory / name / '1').exists():
      # Said in the card, so that results from a server of these say so too.
      export.export(name, load(), directory, training[name] | {'demo_weights': True},
                    version=1)
  return directory
