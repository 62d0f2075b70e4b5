"""The two networks: U-Net with VGG-16 encoder, and ResNet-50 (paper, 2.1 and 2.2)."""

import contextlib
import io
import os

import keras

from covid_tf import contract
from covid_tf.models import preprocessing

# The slice classifier: ResNet-50 with one logit (paper section 2.2).

# Where keras.applications' ResNet-50 has 28x28 and 14x14 activations at 224: the
# ends of the stages conv3 and conv4 (paper section 2.3).
FINE_LAYER = 'conv3_block4_out'
COARSE_LAYER = 'conv4_block6_out'
POOLED_FEATURES_LAYER = 'pooled_features'
LOGIT_LAYER = 'logit'


def build_classifier(
  weights: str | None = None, size: int | None = None
) -> keras.Model:
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
    include_top=False, weights=weights, input_shape=(size, size, 3)
  )
  pooled = keras.layers.GlobalAveragePooling2D(name=POOLED_FEATURES_LAYER)(
    backbone.output
  )
  assert pooled.shape[-1] == contract.FEATURE_COUNT
  logit = keras.layers.Dense(1, name=LOGIT_LAYER)(pooled)
  return keras.Model(backbone.input, logit, name='covid_classifier')


# The lung segmenter: a U-Net with a VGG-16 encoder (paper section 2.1).

# segmentation-models picks its backend from this when it is first imported, and
# says so on standard output, which belongs to the commands.
os.environ.setdefault('SM_FRAMEWORK', 'tf.keras')
with contextlib.redirect_stdout(io.StringIO()):
  import segmentation_models as sm


def build_lung_unet(
  encoder_weights: str | None = None, size: int | None = None
) -> keras.Model:
  """Builds the U-Net.

  Args:
    encoder_weights: 'imagenet' (downloaded by the library), or None for random
      weights.
    size: rows and columns of the input, a multiple of 32; None for the served
      size, 256. The weights do not depend on it.

  Returns:
    A model from float32 [N, size, size, 3], as `preprocessing.lung_input` gives
    it, to logits float32 [N, size, size, 1]: the sigmoid is the signature's.
  """
  size = preprocessing.LUNGS.size if size is None else size
  return sm.Unet(
    'vgg16',
    input_shape=(size, size, 3),
    classes=1,
    activation='linear',
    encoder_weights=encoder_weights,
  )
