"""The demo networks as the SavedModels that a server or `load_models` takes."""

import os
import pathlib

from covid_tf import contract
from covid_tf.models import export
from covid_tf.models import trained


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
  for name in (contract.LUNGS_MODEL, contract.CLASSIFIER_MODEL):
    if not (directory / name / '1').exists():
      model, training = trained.load(name, trained.DEMO)
      export.export(name, model, directory, training, version=1)
  return directory
