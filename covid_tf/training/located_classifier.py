"""The classifier with two helpers that say where, for training only.

A slice's label is one bit; a drawn lesion is a label for each cell of a feature map.
Where lesions are drawn (phantoms, implants), one-by-one convolutions on the ends of
conv4 and conv5 learn which cells hold lesion, and the backbone learns with them. The
exported classifier has neither.
"""

import keras

from covid_tf.models import classifier

_HELPED_LAYERS = (classifier.COARSE_LAYER, 'conv5_block3_out')


def build(size: int) -> keras.Model:
  """Model from float32 [N, size, size, 3] to [logit, cells of conv4, of conv5]."""
  model = classifier.build(size=size)
  cells = [
      keras.layers.Conv2D(1, 1, name=f'{name}_cells')(model.get_layer(name).output)
      for name in _HELPED_LAYERS]
  return keras.Model(model.input, [model.output, *cells])


def classifier_of(model: keras.Model) -> keras.Model:
  """The classifier inside, sharing its variables."""
  logit = model.get_layer(classifier.LOGIT_LAYER).output
  return keras.Model(model.input, logit, name='covid_classifier')
