"""Settings that TensorFlow reads once, when it is imported."""

import os


def set_defaults() -> None:
  """Sets what its user has not set; call it before TensorFlow is imported."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # Its greetings are no news.
  # oneDNN's convolutions, which TensorFlow takes by itself only on processors with
  # AVX-512: with AVX2 alone they answer in 3/4 of the time (docs/grad_cam.md).
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
