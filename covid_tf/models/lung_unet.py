"""The lung segmenter: a U-Net with a VGG-16 encoder (paper section 2.1)."""

import contextlib
import io
import os

import keras

from covid_tf.models import preprocessing

# segmentation-models picks its backend from this when it is first imported, and
# says so on standard output, which belongs to the commands.
os.environ.setdefault('SM_FRAMEWORK', 'tf.keras')
with contextlib.redirect_stdout(io.StringIO()):
  import segmentation_models as sm


def build(
    encoder_weights: str | None = None, size: int | None = None) -> keras.Model:
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
      'vgg16', input_shape=(size, size, 3), classes=1, activation='linear',
      encoder_weights=encoder_weights)
