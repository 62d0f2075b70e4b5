"""What the tiny models answer, in NumPy: the truth for tests, and a fake's answers."""

import numpy as np

from covid_tf import contract

LUNG_HU = (-950, -300)  # What the tiny segmenter takes for lung.
WEIGHT = 1 / 500.0  # Of the mean HU in the tiny classifier's logit.


def mask(hu: np.ndarray) -> np.ndarray:
  """The tiny segmenter's mask of int16 [N, H, W]: uint8 of the same shape."""
  return ((hu > LUNG_HU[0]) & (hu < LUNG_HU[1])).astype(np.uint8)


def probability(hu: np.ndarray, bias: float = 0.0) -> np.ndarray:
  """The tiny classifier's probability of int16 [N, H, W]: float32 [N]."""
  logit = hu.astype(np.float64).mean((1, 2)) * WEIGHT + bias
  return (1 / (1 + np.exp(-logit))).astype(np.float32)


def cam(hu: np.ndarray, size: int) -> np.ndarray:
  """A map of int16 [N, H, W], in [0, 1]: float32 [N, size, size]."""
  rows = np.linspace(0, hu.shape[1] - 1, size).astype(int)
  columns = np.linspace(0, hu.shape[2] - 1, size).astype(int)
  picked = hu[:, rows[:, np.newaxis], columns].astype(np.float32)
  return (1 / (1 + np.exp(-(picked + 500.0) / 200.0))).astype(np.float32)


def reference(model: str) -> dict:
  """The outputs of `self_check` of a tiny model without bias."""
  hu = np.random.default_rng(7).integers(-1000, 300, (4, 32, 40)).astype(np.int16)
  outputs = {'hu': hu}
  for signature in (
    contract.SERVING_DEFAULT,
    (contract.PROBABILITY if model == contract.LUNGS_MODEL else contract.GRAD_CAM),
  ):
    outputs |= answer(model, signature, hu, 0.0)
  return outputs


def answer(model: str, signature: str, hu: np.ndarray, bias: float) -> dict:
  """All outputs of a signature of the contract, for the fake server."""
  if model == contract.LUNGS_MODEL:
    return (
      {'lung_mask': mask(hu)}
      if signature == contract.SERVING_DEFAULT
      else {'lung_probability': cam(hu, contract.LUNG_NETWORK_SIZE)}
    )
  outputs = {'covid_probability': probability(hu, bias)}
  if signature == contract.GRAD_CAM:
    outputs |= {
      'cam_28': cam(hu, contract.FINE_CAM_SIZE),
      'cam_14': cam(hu, contract.COARSE_CAM_SIZE),
    }
  elif signature == contract.FEATURES:
    features = cam(hu, 64).reshape(-1, 4096)[:, : contract.FEATURE_COUNT]
    outputs |= {'features': features, 'gradients': 2 * features}
  return outputs
