"""The slice classifier: ResNet-50 with one logit (paper section 2.2)."""

import keras

from covid_tf import contract
from covid_tf.models import preprocessing

# Where keras.applications' ResNet-50 has 28x28 and 14x14 activations at 224: the
# ends of the stages conv3 and conv4 (paper section 2.3).
FINE_LAYER = 'conv3_block4_out'
COARSE_LAYER = 'conv4_block6_out'
POOLED_FEATURES_LAYER = 'pooled_features'
LOGIT_LAYER = 'logit'


def build(weights: str | None = None, size: int | None = None) -> keras.Model:
  """Builds the classifier.

  Args:
    weights: 'imagenet' (downloaded by Keras), the path of a weights file of the
      backbone without its top, or None for random weights.
    size: rows and columns of the input; None for the served size, 224. The
      weights do not depend on it, so training may begin on smaller slices.

  Returns:
    A model from float32 [N, size, size, 3], as `preprocessing.classifier_input`
    gives it, to logits float32 [N, 1] (positive: COVID): the sigmoid is the
    signature's, and Grad-CAM starts from the logit.
  """
  size = preprocessing.CLASSIFIER.size if size is None else size
  backbone = keras.applications.ResNet50(
      include_top=False, weights=weights, input_shape=(size, size, 3))
  pooled = keras.layers.GlobalAveragePooling2D(name=POOLED_FEATURES_LAYER)(
      backbone.output)
  assert pooled.shape[-1] == contract.FEATURE_COUNT
  logit = keras.layers.Dense(1, name=LOGIT_LAYER)(pooled)
  return keras.Model(backbone.input, logit, name='covid_classifier')
