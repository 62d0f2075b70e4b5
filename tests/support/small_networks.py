"""Keras networks of a few thousand weights, for tests that need no trained one.

Their strided 1x1 convolutions have 16 channels: with fewer, oneDNN's gradient of the
kernel is wrong or ends the process (docs/adr/0102).
"""

import keras
import numpy as np

from covid_tf.models import networks

layers = keras.layers


def classifier(seed: int = 0, pooled: int = 2048) -> keras.Model:
  """A classifier with the contract's sizes and the served network's layer names."""
  keras.utils.set_random_seed(seed)
  inputs = layers.Input((224, 224, 3))
  x = layers.AveragePooling2D(8)(layers.Rescaling(1 / 64)(inputs))
  x = _normalized(layers.Conv2D(16, 3, padding='same'), x)
  x = layers.ReLU(name=networks.FINE_LAYER)(x)
  shortcut = layers.Conv2D(16, 1, strides=2)(x)
  x = _normalized(layers.Conv2D(16, 1, strides=2, use_bias=False), x)
  x = layers.Conv2D(16, 3, padding='same')(layers.ReLU()(x))
  x = layers.ReLU(name=networks.COARSE_LAYER)(layers.Add()([x, shortcut]))
  x = layers.ReLU()(layers.Conv2D(pooled, 1, strides=2)(x))
  x = layers.GlobalAveragePooling2D(name=networks.POOLED_FEATURES_LAYER)(x)
  outputs = layers.Dense(1, name=networks.LOGIT_LAYER)(x)
  return _with_random_statistics(keras.Model(inputs, outputs, name='small'), seed)


def lungs(seed: int = 0) -> keras.Model:
  """A segmenter with the contract's sizes."""
  keras.utils.set_random_seed(seed)
  inputs = layers.Input((256, 256, 3))
  x = layers.Rescaling(1 / 64)(inputs)
  skip = _normalized(layers.Conv2D(4, 3, padding='same'), x)
  x = layers.UpSampling2D(4)(layers.Conv2D(4, 1)(layers.AveragePooling2D(4)(skip)))
  outputs = layers.Conv2D(1, 3, padding='same')(layers.Concatenate()([x, skip]))
  return _with_random_statistics(keras.Model(inputs, outputs, name='small'), seed)


def residual(
  size: int = 12,
  units: int = 1,
  activation: str | None = None,
  readers: str = '1x1',
  seed: int = 0,
) -> keras.Model:
  """A classifier with a fine and a coarse layer to explain.

  Args:
    size: rows and columns of its input, which has 2 channels.
    units: of the head.
    activation: of the head.
    readers: what takes the fine layer: '1x1' convolutions alone, as in ResNet-50,
      '3x3', or 'skipped' where a shortcut without weights takes it too.
    seed: of the weights.
  """
  keras.utils.set_random_seed(seed)
  inputs = layers.Input((size, size, 2))
  x = _normalized(layers.Conv2D(16, 3, padding='same', name='stem'), inputs)
  fine = layers.ReLU(name='fine')(x)
  kernel = 3 if readers == '3x3' else 1
  strides = 1 if readers == 'skipped' else 2
  shortcut = (
    fine
    if readers == 'skipped'
    else layers.Conv2D(16, 1, strides=2, name='shortcut')(fine)
  )
  x = layers.Conv2D(16, kernel, strides=strides, padding='same', name='reader')(fine)
  x = _normalized(layers.Conv2D(16, 3, padding='same'), layers.ReLU()(x))
  x = layers.ReLU(name='coarse')(layers.Add()([x, shortcut]))
  x = layers.ReLU(name='last')(layers.Conv2D(16, 3, padding='same')(x))
  x = layers.GlobalAveragePooling2D(name='pooled')(x)
  outputs = layers.Dense(units, activation=activation, name='head')(x)
  return _with_random_statistics(keras.Model(inputs, outputs), seed)


def images(model: keras.Model, count: int = 3, seed: int = 5) -> np.ndarray:
  """Random float32 inputs of a network."""
  shape = (count, *model.input_shape[1:])
  return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def as_float64(model: keras.Model) -> keras.Model:
  """The same network, computing in float64."""
  config = model.get_config()
  for layer in config['layers']:
    layer['config']['dtype'] = 'float64'
  copy = type(model).from_config(config)
  copy.set_weights(model.get_weights())
  return copy


def _normalized(convolution, x):
  return layers.BatchNormalization()(convolution(x))


def _with_random_statistics(model: keras.Model, seed: int) -> keras.Model:
  """What training would leave: biases, scales and statistics that are not 0 and 1."""
  random = np.random.default_rng(seed)
  for layer in model.layers:
    layer.set_weights(
      [
        weight + random.uniform(0.05, 0.3, weight.shape) if weight.ndim == 1 else weight
        for weight in layer.get_weights()
      ]
    )
  return model
