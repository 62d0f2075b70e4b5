"""One network out of several runs: the mean of their weights.

Of runs that began from one another (or from the same weights) it often does better on
data that none of them saw than each alone, at the cost of one network (Izmailov et al.
2018, "Averaging Weights Leads to Wider Optima"; Wortsman et al. 2022, "Model soups").
"""

from collections.abc import Sequence
import json
import os

import keras
import numpy as np

from covid_tf import errors
from covid_tf import files
from covid_tf.models import trained


def mean(name: str, sources: Sequence[str | os.PathLike]) -> keras.Model:
  """The network whose weights are the mean of those of several.

  Statistics of batch normalization are weights too, and are averaged likewise.

  Args:
    name: a model name of the contract.
    sources: of each: as `trained.load` takes it. They must have begun from common
      weights: the mean of strangers is no network worth having.

  Raises:
    errors.UsageError: fewer than two, no weights there, those of another network, or
      weights that are not finite.
    errors.ModelError: the demo weights are absent or damaged.
  """
  if len(sources) < 2:
    raise errors.UsageError(
        f'{name}: at least two runs are required for a mean, found {len(sources)}.')
  sums = 0
  for source in sources:
    model, _ = trained.load(name, source)
    # One flat vector: a mean of it is the mean of every weight.
    weights = np.concatenate(
        [weight.ravel() for weight in model.get_weights()], dtype=np.float64)
    if not np.isfinite(weights).all():
      raise errors.UsageError(
          f'{source}: finite weights of the {name} network are required, found NaN '
          'or infinity; leave this run out.')
    sums = sums + weights
  _assign(model, sums / len(sources))
  return model


def _assign(model: keras.Model, flat: np.ndarray) -> None:
  shapes = [weight.shape for weight in model.get_weights()]
  parts = np.split(flat, np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1])
  model.set_weights([
      part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])


def write(
    model: keras.Model, sources: Sequence[str | os.PathLike],
    output: str | os.PathLike) -> None:
  """Leaves what a finished run leaves: weights, and what they are the mean of.

  Args:
    model: as `mean` returned it.
    sources: as `mean` took them.
    output: folder to make; whole, or not at all.

  Raises:
    errors.UsageError: the folder is in use.
    errors.OutputError: it cannot be written.
  """
  files.require_unused(output)
  text = json.dumps({'mean_of': list(map(str, sources))}, indent=2) + '\n'
  with files.replacing_directory(output) as folder:
    model.save_weights(folder / trained.FINAL_WEIGHTS)
    (folder / trained.CONFIGURATION).write_text(text, encoding='utf-8')
