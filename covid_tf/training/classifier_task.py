"""Training of the slice classifier (paper section 2.2)."""

import dataclasses

import keras
import numpy as np
from sklearn import metrics
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import classifier
from covid_tf.models import grad_cam
from covid_tf.models import preprocessing
from covid_tf.models import trained
from covid_tf.training import augmentation
from covid_tf.training import first_weights
from covid_tf.training import guidance
from covid_tf.training import located_classifier
from covid_tf.training import losses
from covid_tf.training import pictures
from covid_tf.training import pipelines
from covid_tf.training import stages
from covid_tf.training import tasks

AUGMENTATION = augmentation.Augmentation(
    rotation_degrees=12.0, margin_fraction=0.1, hu_offset=15.0, noise_hu=15.0)
_PICTURES = 4
_LEAST_SIZE = 32  # keras.applications refuses less.


def task(
    weights: str | None = None, encoder_weights: str | None = None,
    compute_dtype: str = 'float32', positive_weight: float = 1.0) -> tasks.Task:
  """The classifier's training.

  Args:
    weights: a previous run's folder or weights file to begin from.
    encoder_weights: 'imagenet', or a file of ResNet-50's weights without its top.
    compute_dtype: 'float32' or 'bfloat16'.
    positive_weight: what a positive slice counts in the loss.
  """
  def build(size):
    model = _with_backbone(size, encoder_weights)
    if weights:
      trained.load_weights(model, weights, contract.CLASSIFIER_MODEL)
    return located_classifier.add_helpers(model, compute_dtype)

  return tasks.Task(
      build=build, served=located_classifier.classifier_of, freeze=freeze_backbone,
      objective=_objective(positive_weight), example=_example, measure=slice_figures,
      picture=_picture, kinds=stages.KINDS, augmentation=AUGMENTATION,
      labelled_only=True, least_size=_LEAST_SIZE)


def freeze_backbone(model: keras.Model) -> None:
  """Fixes all but the logit and the helpers."""
  learning = {classifier.LOGIT_LAYER, *map(
      located_classifier.cells_name, located_classifier.HELPED_LAYERS)}
  for layer in model.layers:
    layer.trainable = layer.name in learning


def slice_figures(model: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
  """AUC, and sensitivity and specificity at 0.5, of batches with both classes."""
  labels, logits = [], []
  for images, truth in batches:
    logits.append(model(images, training=False).numpy().ravel())
    labels.append(truth['covid'].numpy().ravel() > 0)
  labels, logits = np.concatenate(labels), np.concatenate(logits)
  return {'AUC': float(metrics.roc_auc_score(labels, logits)),
          'sensitivity': float((logits[labels] > 0).mean()),
          'specificity': float((logits[~labels] <= 0).mean())}


def _with_backbone(size, encoder_weights):
  if encoder_weights == first_weights.IMAGENET:
    return first_weights.downloaded(
        lambda: classifier.build(first_weights.IMAGENET, size=size))
  if encoder_weights:
    return first_weights.from_file(
        lambda path: classifier.build(path, size=size), encoder_weights)
  return classifier.build(size=size)


def _objective(positive_weight):
  def objective(model, stage):
    if stage.kind == stages.GUIDED:
      return guidance.objective(model, positive_weight=positive_weight)
    return lambda images, labels: losses.located_cross_entropy(
        labels, model(images, training=True), positive_weight)

  return objective


def _example(record, seed, how, size):
  """Preprocessing of a stage: the low-pass spans the same millimetres at any size."""
  served = preprocessing.CLASSIFIER
  constants = dataclasses.replace(
      served, size=size, low_pass_sigma=served.low_pass_sigma * size / served.size)
  return pipelines.located_example(record, seed, how, constants)


def _picture(model, images, labels):
  images = images[:_PICTURES]
  _, scales = grad_cam.grad_cam(model, guidance.MAP_LAYERS)(images)
  fused = tf.ones(images.shape[:-1])
  for grid in scales:
    fused *= tf.image.resize(grid[..., tf.newaxis], images.shape[1:3])[..., 0]
  return pictures.maps(images, fused, labels['lesion'][:_PICTURES])
