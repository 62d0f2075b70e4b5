"""Seconds that lungmask's network takes for so many slices, printed.

R231's architecture in torch, random weights: five levels of two 3 x 3 convolutions with
ReLU and batch normalization, 64 to 1024 channels, transposed convolutions on the way
up, three classes at 256 x 256 (Hofmanninger et al. 2020). Batches of 20, as lungmask
asks it. Run by analyze.py in a Python that has torch; 60 slices are timed and scaled.
"""

import time

import torch
from torch import nn

_BATCH, _TIMED, _WARM = 20, 60, 20
_LEVELS, _CHANNELS, _CLASSES, _SIZE = 5, 64, 3, 256


def _block(inputs: int, outputs: int) -> nn.Sequential:
  layers: list[nn.Module] = []
  for channels in (inputs, outputs):
    layers += [
      nn.Conv2d(channels, outputs, 3, padding=1),
      nn.ReLU(),
      nn.BatchNorm2d(outputs),
    ]
  return nn.Sequential(*layers)


class _Network(nn.Module):
  def __init__(self):
    super().__init__()
    sizes = [_CHANNELS << level for level in range(_LEVELS)]
    self._down = nn.ModuleList(map(_block, [1, *sizes[:-1]], sizes))
    pairs = list(zip(sizes[:0:-1], sizes[-2::-1], strict=True))
    self._enlarge = nn.ModuleList(
      nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs
    )
    self._up = nn.ModuleList(_block(2 * b, b) for _, b in pairs)
    self._last = nn.Conv2d(_CHANNELS, _CLASSES, 1)

  def forward(self, image):
    bridges = []
    for level, block in enumerate(self._down):
      image = block(image if not level else nn.functional.max_pool2d(image, 2))
      bridges.append(image)
    for enlarge, block, bridge in zip(
      self._enlarge, self._up, bridges[-2::-1], strict=True
    ):
      image = block(torch.cat((enlarge(image), bridge), 1))
    return self._last(image)


def main(slices: int) -> None:
  """Prints the seconds."""
  network = _Network().eval()
  with torch.inference_mode():
    network(torch.zeros(_WARM, 1, _SIZE, _SIZE))
    begin = time.perf_counter()
    for _ in range(_TIMED // _BATCH):
      network(torch.rand(_BATCH, 1, _SIZE, _SIZE)).argmax(1)
    seconds = time.perf_counter() - begin
  print(seconds * slices / _TIMED)
