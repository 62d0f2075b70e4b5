"""Graphs in which two requests at once disturb one another are found and refused."""

import contextlib
import os
import pathlib
import subprocess
import sys

import concurrency_graphs
import keras
import numpy as np
import pytest
import small_networks
import tensorflow as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import export
from covid_tf.models import export_check
from covid_tf.models import weights
from covid_tf.sessions import servable

layers = keras.layers
v1 = tf.compat.v1
_GRAPHS = pathlib.Path(concurrency_graphs.__file__)


def _hazards(kind: str, fuses: bool = True) -> list[export_check.Hazard]:
  """Of a small graph as this process optimizes it, or as one without oneDNN."""
  small = concurrency_graphs.build(kind)
  config = v1.ConfigProto()
  if not fuses:
    config.graph_options.rewrite_options.remapping = (
      rewriter_config_pb2.RewriterConfig.OFF
    )
  with v1.Session(graph=small.graph, config=config) as session:
    graphs = export_check.optimized_graphs(
      session, small.fetches, {small.images: np.zeros((1, 28, 28, 64), np.float32)}
    )
  return [hazard for graph in graphs for hazard in export_check.hazards(graph, fuses)]


@pytest.mark.parametrize('kind', concurrency_graphs.UNSAFE)
def test_a_summand_that_somebody_else_needs_is_found(kind):
  assert _hazards(kind, fuses=False)
  if export_check.fuses_additions():
    assert _hazards(kind)


@pytest.mark.parametrize('kind', concurrency_graphs.SAFE)
def test_a_summand_that_only_the_convolution_still_needs_is_none(kind):
  assert not _hazards(kind, fuses=False)
  assert not _hazards(kind, fuses=export_check.fuses_additions())


def test_a_hazard_says_who_adds_what_and_who_else_needs_it():
  (hazard,) = _hazards('fetched', fuses=False)
  assert hazard.summand == 'Relu' and 'Relu' in hazard.reader


def _asked(kind: str, count: int) -> subprocess.CompletedProcess:
  """A small graph asked by two threads, in a process that may die."""
  return subprocess.run(
    [sys.executable, _GRAPHS, kind, str(count)],
    capture_output=True,
    text=True,
    env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3'},
  )


def test_two_threads_get_the_same_bits_where_nothing_is_found():
  done = _asked('apart', 400)
  assert done.returncode == 0 and done.stdout.split()[-1] == '0', done.stderr


def test_the_smallest_graph_that_meets_the_fault_is_refused(tmp_path):
  """It is on every processor; on some, TensorFlow dies of it within seconds."""
  small = concurrency_graphs.build('added')
  with v1.Session(graph=small.graph) as session:
    v1.saved_model.simple_save(
      session,
      str(tmp_path / 'model'),
      {'images': small.images},
      {str(k): tensor for k, tensor in enumerate(small.fetches)},
    )
  with pytest.raises(errors.ModelError) as caught:
    export_check.check_concurrency('classifier', tmp_path / 'model')
  message = str(caught.value)
  assert 'signature serving_default' in message and 'Relu' in message
  assert 'keras.layers.Add' in message


class ResidualBlock(keras.layers.Layer):
  """A residual block that no walk over layers can look into."""

  def build(self, shape):
    make = lambda: layers.Conv2D(shape[-1], 3, padding='same')
    self.first, self.second = make(), make()
    self.first.build(shape)
    self.second.build(shape)

  def call(self, x):
    # AddN has a gradient without shapes, so that it is fused in every signature.
    return tf.nn.relu(tf.add_n([self.second(tf.nn.relu(self.first(x))), x]))


def _classifier(body) -> keras.Model:
  """A classifier of the contract around `body`, a function of [N, 28, 28, 16]."""
  keras.utils.set_random_seed(0)
  inputs = layers.Input((224, 224, 3))
  x = layers.AveragePooling2D(8)(layers.Rescaling(1 / 64)(inputs))
  x = layers.Conv2D(16, 3, padding='same', activation='relu', name='conv3_block4_out')(
    x
  )
  x = layers.ReLU(name='conv4_block6_out')(
    layers.Conv2D(16, 3, strides=2, padding='same')(body(x))
  )
  x = layers.Conv2D(2048, 1, strides=2, activation='relu')(x)
  x = layers.GlobalAveragePooling2D(name='pooled_features')(x)
  return keras.Model(inputs, layers.Dense(1, name='logit')(x))


def _convolve(x, kernel=3):
  return layers.Conv2D(16, kernel, padding='same')(x)


def _residual(x):
  for _ in range(2):
    x = layers.ReLU()(layers.Add()([x, _convolve(layers.ReLU()(_convolve(x)))]))
  return x


def _operators(x):
  x = layers.ReLU()(_convolve(layers.ReLU()(_convolve(x))) + x)
  return layers.ReLU()(keras.ops.add(x, _convolve(x))) + 1.0


def _before_activation(x):
  for _ in range(2):
    x = layers.Add()([_convolve(layers.ReLU()(_convolve(layers.ReLU()(x)))), x])
  return x


def _of_three(x):
  y = layers.ReLU()(_convolve(x))
  return layers.ReLU()(layers.Add()([x, y, _convolve(y)]))


def _dense(x):
  for _ in range(2):
    x = layers.Concatenate()([x, _convolve(layers.ReLU()(x))])
  return x


def _inverted(x):
  y = layers.ReLU(6.0)(_convolve(x, 1))
  y = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding='same')(y))
  return layers.Add()([x, _convolve(y, 1)])


def _nested(x):
  inner = layers.Input((28, 28, 16))
  block = keras.Model(
    inner,
    layers.Add()(
      [inner, keras.Sequential([layers.Conv2D(16, 1), layers.Dropout(0.5)])(inner)]
    ),
  )
  return layers.ReLU()(block(layers.ReLU()(block(x))))


def _averaged(x):
  y = layers.Subtract()([x, _convolve(x)])
  return layers.ReLU()(layers.Average()([_convolve(x), y]))


@pytest.mark.parametrize(
  'body',
  [
    _residual,
    _operators,
    _before_activation,
    _of_three,
    _dense,
    _inverted,
    _nested,
    _averaged,
  ],
)
def test_networks_of_every_build_are_exported_safely(tmp_path, body):
  folder = export.export('classifier', _classifier(body), tmp_path, {})
  export_check.check_concurrency('classifier', folder)


def test_an_addition_inside_a_layer_of_ones_own_is_refused(tmp_path):
  model = _classifier(lambda x: ResidualBlock()(ResidualBlock()(x)))
  with pytest.raises(errors.ModelError, match='signature grad_cam, node .*AddN|Relu'):
    export.export('classifier', model, tmp_path, {})
  assert not list((tmp_path / 'classifier').iterdir())


def test_a_small_network_is_exported_safely_in_bfloat16(tmp_path):
  folder = export.export(
    'classifier', small_networks.classifier(), tmp_path, {}, compute_dtype='bfloat16'
  )
  export_check.check_concurrency('classifier', folder)


@pytest.mark.parametrize(
  'name, signature_name, count',
  [
    (contract.CLASSIFIER_MODEL, contract.GRAD_CAM, 300),
    (contract.LUNGS_MODEL, contract.SERVING_DEFAULT, 60),
  ],
)
def test_the_shipped_networks_answer_two_threads_with_the_same_bits(
  tmp_path, name, signature_name, count
):
  (hu, other) = export_check.fixed_batch()[:, np.newaxis]
  model, _ = weights.load_network(name, weights.DEMO)
  folder = export.export(name, model, tmp_path, {})
  with contextlib.closing(servable.Servable(folder)) as served:
    run = lambda batch: export_check.answer(
      served, signature_name, {'hu': batch}
    ).values()
    assert concurrency_graphs.ask(run, [hu, other, hu // 2], 2, count) == 0
