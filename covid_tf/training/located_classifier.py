"""The classifier with two helpers that say where, for training only.

A slice's label is one bit; a drawn lesion is a label for each cell of a feature map.
Where lesions are drawn (phantoms, implants), one-by-one convolutions on the ends of
conv4 and conv5 learn which cells hold lesion, and the backbone learns with them. The
exported classifier has neither.
"""

from collections.abc import Sequence

import keras

from covid_tf.models import classifier
from covid_tf.models import precision

HELPED_LAYERS = (classifier.COARSE_LAYER, 'conv5_block3_out')
# Ours: about one cell in eight holds lesion, so that helpers begin nearly silent and
# do not shake a backbone that has learned already.
_FIRST_CELL_LOGIT = -2.0
_FIRST_KERNEL_DEVIATION = 0.01


def build(size: int) -> keras.Model:
  """Model from float32 [N, size, size, 3] to [logit, cells of conv4, of conv5]."""
  return add_helpers(classifier.build(size=size))


def add_helpers(model: keras.Model, compute_dtype: str = 'float32') -> keras.Model:
  """A classifier of `classifier.build` with its helpers; logits stay float32."""
  return with_helpers(
      precision.with_compute_dtype(model, compute_dtype), HELPED_LAYERS)


def with_helpers(model: keras.Model, layer_names: Sequence[str]) -> keras.Model:
  """Adds cell logits [N, h, w, 1] of some layers to a classifier's logit."""
  cells = [_helper(name)(model.get_layer(name).output) for name in layer_names]
  return keras.Model(model.input, [model.output, *cells])


def cells_name(layer_name: str) -> str:
  """Name of the helper that labels a layer's cells."""
  return f'{layer_name}_cells'


def classifier_of(model: keras.Model) -> keras.Model:
  """The classifier inside, sharing its variables."""
  return keras.Model(model.input, model.outputs[0], name='covid_classifier')


def _helper(layer_name):
  return keras.layers.Conv2D(
      1, 1, name=cells_name(layer_name), dtype='float32',
      kernel_initializer=keras.initializers.RandomNormal(
          stddev=_FIRST_KERNEL_DEVIATION),
      bias_initializer=keras.initializers.Constant(_FIRST_CELL_LOGIT))
