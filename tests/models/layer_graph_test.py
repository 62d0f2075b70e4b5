"""Layers read from an export are those of the network that was exported."""

import keras
import pytest
import tensorflow as tf
import tiny_models

from covid_tf import errors
from covid_tf.models import layer_graph
from covid_tf.models import rewrites
from covid_tf.reports import network_figure

_SIZE = 32


def _u_net() -> keras.Model:
  """Two levels; batch normalization, as it is before an export folds it."""
  layers = keras.layers
  inputs = layers.Input((_SIZE, _SIZE, 3))
  skip = layers.Conv2D(5, 3, padding='same', activation='relu')(inputs)
  x = layers.MaxPooling2D(2)(skip)
  x = layers.Conv2D(7, 3, padding='same', use_bias=False)(x)
  x = layers.ReLU()(layers.BatchNormalization()(x))
  x = layers.UpSampling2D(2)(x)
  x = layers.Concatenate()([x, skip])
  x = layers.Conv2D(6, 1, activation='relu')(x)
  return keras.Model(inputs, layers.Conv2D(1, 3, padding='same')(x))


@pytest.fixture(scope='module', name='folder')
def _folder(tmp_path_factory):
  model = rewrites.fold_batch_norm(_u_net())

  @tf.function(input_signature=[tf.TensorSpec((None, None, None), tf.float32)])
  def probability(hu):
    images = tf.image.resize(tf.repeat(hu[..., tf.newaxis], 3, -1), (_SIZE, _SIZE))
    return {'lung_probability': tf.sigmoid(model(images, training=False))[..., 0]}

  folder = tmp_path_factory.mktemp('lungs') / '1'
  archive = keras.export.ExportArchive()
  archive.track(model)
  archive.add_endpoint('probability', probability)
  archive.write_out(str(folder), verbose=False)
  return folder


def test_layers_sizes_channels_and_skips_are_those_of_the_network(folder):
  layers = layer_graph.read_layers(folder)
  convolution = network_figure.CONVOLUTION
  half = _SIZE // 2
  assert [(layer.kind, layer.rows, layer.channels) for layer in layers] == [
    (network_figure.INPUT, _SIZE, 3),
    (convolution, _SIZE, 5),
    (network_figure.POOLING, half, 5),
    (convolution, half, 7),
    (network_figure.UPSAMPLING, _SIZE, 7),
    (network_figure.CONCATENATION, _SIZE, 12),
    (convolution, _SIZE, 6),
    (convolution, _SIZE, 1),
  ]
  assert [layer.inputs for layer in layers] == [
    (), (0,), (1,), (2,), (3,), (4, 1), (5,), (6,)
  ]  # fmt: skip
  assert network_figure.skips(layers) == [(1, 5)]
  found = [(x.kernel, x.activation) for x in layers if x.kind == convolution]
  assert found == [
    ((3, 3), 'relu'),
    ((3, 3), 'relu'),
    ((1, 1), 'relu'),
    ((3, 3), 'sigmoid'),
  ]
  assert network_figure.network_figure(layers, 'It').axes  # Can be drawn.


def test_what_is_no_network_of_the_kind_is_refused(folder, tmp_path):
  with pytest.raises(errors.ModelError, match='found no saved_model.pb'):
    layer_graph.read_layers(tmp_path)
  with pytest.raises(errors.ModelError, match='signature mask is required'):
    layer_graph.read_layers(folder, 'mask')
  tiny = tiny_models.export(tmp_path, 'lungs')
  with pytest.raises(errors.ModelError, match='convolutions is required, found none'):
    layer_graph.read_layers(tiny)
