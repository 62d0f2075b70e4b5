"""Training of the slice classifier (paper section 2.2)."""

from collections.abc import Sequence
import dataclasses

import keras
import numpy as np
from sklearn import metrics
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import grad_cam
from covid_tf.models import gradients
from covid_tf.models import networks
from covid_tf.models import preprocessing
from covid_tf.models import rewrites
from covid_tf.models import weights as weights_lib
from covid_tf.training import augmentation as augmentation_lib
from covid_tf.training import first_weights
from covid_tf.training import pipelines
from covid_tf.training import tasks

# The classifier with two helpers that say where, for training only.
#
# A slice's label is one bit; a drawn lesion is a label for each cell of a feature map.
# Where lesions are drawn (phantoms, implants), one-by-one convolutions on the ends of
# conv4 and conv5 learn which cells hold lesion, and the backbone learns with them. The
# exported classifier has neither.

HELPED_LAYERS = (networks.COARSE_LAYER, 'conv5_block3_out')
# Ours: about one cell in eight holds lesion, so that helpers begin nearly silent and
# do not shake a backbone that has learned already.
_FIRST_CELL_LOGIT = -2.0
_FIRST_KERNEL_DEVIATION = 0.01


def build_located(size: int) -> keras.Model:
  """Model from float32 [N, size, size, 3] to [logit, cells of conv4, of conv5]."""
  return add_helpers(networks.build_classifier(size=size))


def add_helpers(model: keras.Model, compute_dtype: str = 'float32') -> keras.Model:
  """Adds helpers to `networks.build_classifier`'s model; logits stay float32."""
  return with_helpers(rewrites.with_compute_dtype(model, compute_dtype), HELPED_LAYERS)


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
    1,
    1,
    name=cells_name(layer_name),
    dtype='float32',
    kernel_initializer=keras.initializers.RandomNormal(stddev=_FIRST_KERNEL_DEVIATION),
    bias_initializer=keras.initializers.Constant(_FIRST_CELL_LOGIT),
  )


# Drawn lesions tell the classifier's Grad-CAM maps where to look, in training only.
#
# The maps that are served are computed inside the training step, and a Dice loss draws
# them to the lesion; the gradient passes through the gradient. The idea is that of Li
# et al., "Tell Me Where to Look: Guided Attention Inference Network", CVPR 2018, who
# had the attention map learn from the class label and, as here, from drawn masks.

MAP_LAYERS = (networks.FINE_LAYER, networks.COARSE_LAYER)


def guided_objective(
  model: keras.Model,
  map_layers: Sequence[str] = MAP_LAYERS,
  helped_layers: Sequence[str] = HELPED_LAYERS,
  positive_weight: float = 1.0,
) -> tasks.Objective:
  """What a guided stage minimizes.

  Batch normalization is frozen: a map of the served network is wanted, and that
  network uses its stored statistics.

  Args:
    model: of `build_located`, or one of its kind.
    map_layers: the layers to explain, finest first.
    helped_layers: those whose cells a helper labels.
    positive_weight: as `tasks.located_cross_entropy`.

  Returns:
    Function from (images [N, size, size, 3], labels), as `located_example` gives
    them, batched, to a float32 scalar.
  """
  explain = _explainer(model, map_layers, helped_layers)

  def loss(images, labels):
    logit, maps, cells = explain(images)
    located = tasks.located_cross_entropy(
      labels, [logit[:, tf.newaxis], *cells], positive_weight
    )
    return located + tasks.map_dice(labels, maps)

  return loss


def _explainer(model, map_layers, helped_layers):
  """Function from images to (logit [N], maps, cell logits), in one forward pass."""
  head = gradients.find_head(classifier_of(model))
  run = gradients.channel_gradients(head, map_layers, helped_layers)
  helpers = [model.get_layer(cells_name(name)) for name in helped_layers]

  def explain(images):
    logit, activations, weights = run(images)
    maps = [
      grad_cam.normalize(grad_cam.weighted_sum(activation, weight))
      for activation, weight in zip(activations, weights)
    ]
    helped = activations[len(map_layers) :]
    return logit, maps, [helper(a) for helper, a in zip(helpers, helped)]

  return explain


AUGMENTATION = augmentation_lib.Augmentation(
  rotation_degrees=12.0, margin_fraction=0.1, hu_offset=15.0, noise_hu=15.0
)
_PICTURES = 4
_LEAST_SIZE = 32  # keras.applications refuses less.


@dataclasses.dataclass(frozen=True)
class ClassifierTask(tasks.Task):
  """The classifier's training. Labels: see `pipelines.located_example`, batched.

  Attributes:
    weights: a previous run's folder or weights file to begin from.
    encoder_weights: 'imagenet', or a file of ResNet-50's weights without its top.
    compute_dtype: 'float32' or 'bfloat16'.
    positive_weight: what a positive slice counts in the loss.
  """

  weights: str | None = None
  encoder_weights: str | None = None
  compute_dtype: str = 'float32'
  positive_weight: float = 1.0

  kinds = tasks.STAGE_KINDS
  augmentation = AUGMENTATION
  labelled_only = True
  least_size = _LEAST_SIZE

  def build(self, size: int) -> keras.Model:
    """The classifier with its helpers."""
    model = _with_backbone(size, self.encoder_weights)
    if self.weights:
      weights_lib.load_weights(model, self.weights, contract.CLASSIFIER_MODEL)
    return add_helpers(model, self.compute_dtype)

  def served(self, model: keras.Model) -> keras.Model:
    """The classifier without its helpers."""
    return classifier_of(model)

  def freeze(self, model: keras.Model) -> None:
    """Fixes all but the logit and the helpers."""
    learning = {networks.LOGIT_LAYER, *map(cells_name, HELPED_LAYERS)}
    for layer in model.layers:
      layer.trainable = layer.name in learning

  def objective(self, model: keras.Model, stage: tasks.Stage) -> tasks.Objective:
    """Cross-entropy of slices and cells; in a guided stage with the maps' Dice."""
    if stage.kind == tasks.GUIDED:
      return guided_objective(model, positive_weight=self.positive_weight)
    return lambda images, labels: tasks.located_cross_entropy(
      labels, model(images, training=True), self.positive_weight
    )

  def example(
    self,
    record: dict[str, tf.Tensor],
    seed: tf.Tensor,
    limits: augmentation_lib.Augmentation,
    size: int,
  ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """A lung crop; the low-pass spans the same millimetres at any size."""
    served = preprocessing.CLASSIFIER
    constants = dataclasses.replace(
      served, size=size, low_pass_sigma=served.low_pass_sigma * size / served.size
    )
    return pipelines.located_example(record, seed, limits, constants)

  def measure(self, network: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
    """See `slice_figures`."""
    return slice_figures(network, batches)

  def picture(
    self, network: keras.Model, images: tf.Tensor, labels: dict[str, tf.Tensor]
  ) -> tf.Tensor:
    """See `tasks.map_pictures`: the product of both Grad-CAM maps."""
    images = images[:_PICTURES]
    _, scales = grad_cam.grad_cam(network, MAP_LAYERS)(images)
    fused = tf.ones(images.shape[:-1])
    for grid in scales:
      fused *= tf.image.resize(grid[..., tf.newaxis], images.shape[1:3])[..., 0]
    return tasks.map_pictures(images, fused, labels['lesion'][:_PICTURES])


def slice_figures(model: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
  """AUC, and sensitivity and specificity at 0.5, of batches with both classes."""
  truths, outputs = [], []
  for images, truth in batches:
    outputs.append(model(images, training=False).numpy().ravel())
    truths.append(truth['covid'].numpy().ravel() > 0)
  labels, logits = np.concatenate(truths), np.concatenate(outputs)
  return {
    'AUC': float(metrics.roc_auc_score(labels, logits)),
    'sensitivity': float((logits[labels] > 0).mean()),
    'specificity': float((logits[~labels] <= 0).mean()),
  }


def _with_backbone(size, encoder_weights):
  if encoder_weights == first_weights.IMAGENET:
    return first_weights.downloaded(
      lambda: networks.build_classifier(first_weights.IMAGENET, size=size)
    )
  if encoder_weights:
    return first_weights.from_file(
      lambda path: networks.build_classifier(path, size=size), encoder_weights
    )
  return networks.build_classifier(size=size)
