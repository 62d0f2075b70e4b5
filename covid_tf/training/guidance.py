"""Drawn lesions tell the classifier's Grad-CAM maps where to look, in training only.

The maps that are served are computed inside the training step, and a Dice loss draws
them to the lesion; the gradient passes through the gradient. The idea is that of Li
et al., "Tell Me Where to Look: Guided Attention Inference Network", CVPR 2018, who
had the attention map learn from the class label and, as here, from drawn masks.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from covid_tf.models import channel_gradients
from covid_tf.models import classifier
from covid_tf.models import grad_cam
from covid_tf.models import logits
from covid_tf.training import located_classifier
from covid_tf.training import losses

MAP_LAYERS = (classifier.FINE_LAYER, classifier.COARSE_LAYER)


def objective(
    model: keras.Model, map_layers: Sequence[str] = MAP_LAYERS,
    helped_layers: Sequence[str] = located_classifier.HELPED_LAYERS,
    positive_weight: float = 1.0) -> Callable:
  """What a guided stage minimizes.

  Batch normalization is frozen: a map of the served network is wanted, and that
  network uses its stored statistics.

  Args:
    model: of `located_classifier.build`, or one of its kind.
    map_layers: the layers to explain, finest first.
    helped_layers: those whose cells a helper labels.
    positive_weight: as `losses.located_cross_entropy`.

  Returns:
    Function from (images [N, size, size, 3], labels), as `located_example` gives
    them, batched, to a float32 scalar.
  """
  explain = _explainer(model, map_layers, helped_layers)

  def loss(images, labels):
    logit, maps, cells = explain(images)
    located = losses.located_cross_entropy(
        labels, [logit[:, tf.newaxis], *cells], positive_weight)
    return located + losses.map_dice(labels, maps)

  return loss


def _explainer(model, map_layers, helped_layers):
  """Function from images to (logit [N], maps, cell logits), in one forward pass."""
  head = logits.find_head(located_classifier.classifier_of(model))
  run = channel_gradients.channel_gradients(head, map_layers, helped_layers)
  helpers = [model.get_layer(located_classifier.cells_name(name))
             for name in helped_layers]

  def explain(images):
    logit, activations, weights = run(images)
    maps = [grad_cam.normalize(grad_cam.weighted_sum(activation, weight))
            for activation, weight in zip(activations, weights)]
    helped = activations[len(map_layers):]
    return logit, maps, [helper(a) for helper, a in zip(helpers, helped)]

  return explain
