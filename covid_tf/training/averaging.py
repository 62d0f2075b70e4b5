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
  models = [_finite(name, source) for source in sources]
  weights = zip(*(model.get_weights() for model in models), strict=True)
  models[0].set_weights(
      [np.mean(each, axis=0, dtype=np.float64) for each in weights])
  return models[0]


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


def _finite(name: str, source: str | os.PathLike) -> keras.Model:
  model, _ = trained.load(name, source)
  if not all(np.isfinite(weight).all() for weight in model.get_weights()):
    raise errors.UsageError(
        f'{source}: finite weights of the {name} network are required, found NaN '
        'or infinity; leave this run out.')
  return model
