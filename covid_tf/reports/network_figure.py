"""The lung network as a drawing (Fig. 3 of the paper), from a description of its graph.

Nothing about the network is known here: layers, sizes, channels and what skips to where
come with the description, which `covid_tf.models.layer_graph` reads from an export.
"""

from collections.abc import Sequence
import dataclasses
import math

from matplotlib import patches
import matplotlib.axes
import matplotlib.figure

from covid_tf import errors
from covid_tf.reports import figures

INPUT, CONVOLUTION, POOLING = 'input', 'convolution', 'pooling'
UPSAMPLING, CONCATENATION = 'upsampling', 'concatenation'
KINDS = (INPUT, CONVOLUTION, POOLING, UPSAMPLING, CONCATENATION)

_COLOURS = {
  INPUT: '#D0D5DA',
  CONVOLUTION: figures.SKY,
  POOLING: figures.ORANGE,
  UPSAMPLING: figures.GREEN,
}
_SKIPPED = figures.AMBER  # The part of a concatenation that skipped the levels below.
_SKIP_LINE = '#8A5F00'
_HEIGHT_INCH, _SHRINKING = 0.62, 0.78  # Of the first level; from one to the next.
_LEVEL_GAP_INCH, _GAP_INCH = 0.27, 0.05
_FOOT_INCH = 0.72


@dataclasses.dataclass(frozen=True)
class Layer:
  """One layer of a network, by what it gives.

  Attributes:
    kind: one of KINDS.
    rows, columns, channels: of what it gives, for one image.
    inputs: indices of the layers it takes, in its order.
    kernel: (rows, columns) of a convolution's kernel; None of other kinds.
    activation: 'relu', 'sigmoid' or '' for none, behind a convolution.
  """

  kind: str
  rows: int
  columns: int
  channels: int
  inputs: tuple[int, ...] = ()
  kernel: tuple[int, int] | None = None
  activation: str = ''


def skips(layers: Sequence[Layer]) -> list[tuple[int, int]]:
  """(from, to) of each connection that skips layers, in the order of its end.

  Of what a concatenation takes, the layer right before it is its usual input.
  """
  return [
    (source, index)
    for index, layer in enumerate(layers)
    if layer.kind == CONCATENATION
    for source in layer.inputs
    if source != index - 1
  ]


def levels(layers: Sequence[Layer]) -> list[tuple[int, int]]:
  """(rows, columns) of each level of the network, the largest first."""
  return sorted({(layer.rows, layer.columns) for layer in layers}, reverse=True)


def network_figure(layers: Sequence[Layer], title: str) -> matplotlib.figure.Figure:
  """Draws a U-Net: its levels from large to small and back, a box for each layer.

  Args:
    layers: in the order in which they are computed, each after what it takes.
    title: what the network is, for the caption.

  Returns:
    The figure, as wide as a page, with its caption.

  Raises:
    errors.UsageError: the layers are no U-Net: none skips.
  """
  check(layers)
  found = levels(layers)
  heights = [_HEIGHT_INCH * _SHRINKING**level for level in range(len(found))]
  with figures.styled():
    height = sum(heights) + _LEVEL_GAP_INCH * (len(found) + 0.5) + _FOOT_INCH
    figure = figures.new_figure(height, figures.TWO_COLUMNS_INCH)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, figures.TWO_COLUMNS_INCH), ylim=(0, height))
    axes.set_axis_off()
    boxes = _places(layers, found, heights, height)
    for index, box in enumerate(boxes):
      _draw_layer(axes, layers, index, box)
    _draw_connections(axes, layers, boxes)
    _name_levels(axes, layers, found, boxes)
    _legend(axes, layers)
    figures.put_caption(
      figure, _caption(layers, found, title), figures.CAPTION_CHARACTERS, tight=False
    )
    return figure


def check(layers: Sequence[Layer]) -> None:
  """Raises errors.UsageError unless the layers can be drawn as a U-Net."""
  if not layers or not skips(layers):
    raise errors.UsageError(
      'network figure: a U-Net is required, with a concatenation that skips layers, '
      f'found {len(layers)} layers without one; give an export of the lung network.'
    )


@dataclasses.dataclass(frozen=True)
class _Box:
  """Where a layer is drawn, in inches from the lower left corner."""

  left: float
  bottom: float
  width: float
  height: float

  @property
  def right(self) -> float:
    return self.left + self.width

  @property
  def top(self) -> float:
    return self.bottom + self.height

  @property
  def middle(self) -> float:
    return self.left + self.width / 2


def _places(layers, found, heights, height) -> list[_Box]:
  """A box a layer, from left to right, as wide as it has channels (logarithmic)."""
  widths = [0.6 + math.log2(max(1, layer.channels)) / 4 for layer in layers]
  room = figures.TWO_COLUMNS_INCH - 0.30 - _GAP_INCH * (len(layers) - 1)
  scale = min(0.09, room / sum(widths))
  left = (figures.TWO_COLUMNS_INCH - scale * sum(widths)) / 2
  left -= _GAP_INCH * (len(layers) - 1) / 2
  boxes = []
  for layer, width in zip(layers, widths):
    level = found.index((layer.rows, layer.columns))
    above = sum(heights[: level + 1]) + _LEVEL_GAP_INCH * (level + 1)
    boxes.append(_Box(left, height - above, width * scale, heights[level]))
    left += width * scale + _GAP_INCH
  return boxes


def _draw_layer(axes: matplotlib.axes.Axes, layers, index, box) -> None:
  layer = layers[index]
  parts = [(box.left, box.width, _COLOURS.get(layer.kind, figures.GREY))]
  if layer.kind == CONCATENATION:
    parts, left = [], box.left
    for source in layer.inputs:
      width = box.width * layers[source].channels / layer.channels
      colour = _COLOURS[UPSAMPLING] if source == index - 1 else _SKIPPED
      parts.append((left, width, colour))
      left += width
  for left, width, colour in parts:
    axes.add_patch(
      patches.Rectangle((left, box.bottom), width, box.height, fc=colour, ec='none')
    )
  axes.add_patch(
    patches.Rectangle(
      (box.left, box.bottom),
      box.width,
      box.height,
      fill=False,
      ec='black',
      lw=0.5,
      gid=f'layer-{index}',
    )
  )
  axes.text(
    box.middle,
    box.bottom - 0.03,
    str(layer.channels),
    ha='center',
    va='top',
    fontsize=5,
    rotation=90 if layer.channels >= 10 else 0,
  )


def _draw_connections(axes, layers, boxes) -> None:
  for index in range(1, len(layers)):
    before, box = boxes[index - 1], boxes[index]
    if before.height != box.height:  # To another level.
      colour = _COLOURS[POOLING if before.height > box.height else UPSAMPLING]
      down = before.height > box.height
      start = (before.right + 0.01, before.bottom + 0.06 if down else before.top - 0.06)
      end = (box.middle, box.top + 0.01 if down else box.bottom - 0.20)
      _arrow(axes, start, end, colour, 'angle,angleA=0,angleB=90,rad=0')
  for source, index in skips(layers):
    start, end = boxes[source], boxes[index]
    above = start.top + 0.09
    axes.plot(
      [start.middle, start.middle, end.middle],
      [start.top + 0.01, above, above],
      color=_SKIP_LINE,
      lw=0.8,
      gid=f'skip-{source}-{index}',
    )
    down = (end.middle, end.top + 0.01)
    _arrow(axes, (end.middle, above), down, _SKIP_LINE, 'arc3,rad=0')


def _arrow(axes, start, end, colour, style) -> None:
  axes.annotate(
    '',
    end,
    start,
    arrowprops={
      'arrowstyle': '-|>,head_length=0.25,head_width=0.12',
      'color': colour,
      'lw': 0.8,
      'shrinkA': 0,
      'shrinkB': 0,
      'connectionstyle': style,
    },
  )


def _name_levels(axes, layers, found, boxes) -> None:
  for level, size in enumerate(found):
    first = next(
      box for box, layer in zip(boxes, layers) if (layer.rows, layer.columns) == size
    )
    # Beside the first box; the first level begins at the edge, and has room above.
    x, y, across, up = (
      (first.left - 0.05, first.bottom + first.height / 2, 'right', 'center')
      if level
      else (first.left, first.top + 0.04, 'left', 'bottom')
    )
    axes.text(
      x, y, '{} × {}'.format(*size), ha=across, va=up, fontsize=6, color=figures.GREY
    )


def kinds_in_words(layers: Sequence[Layer]) -> list[tuple[str, str]]:
  """(kind, which and how many), of each kind of layer but the input."""
  counted: dict[tuple[str, str], int] = {}
  for layer in layers:
    if layer.kind == CONVOLUTION and layer.kernel is not None:
      end = {'relu': ', ReLU', 'sigmoid': ', sigmoid'}.get(layer.activation, '')
      words = 'convolution {} × {}'.format(*layer.kernel) + end
    elif layer.kind == INPUT:
      continue
    elif layer.kind == CONCATENATION:
      words = 'concatenation, what skipped'
    else:
      ratio = _ratio(layers[layer.inputs[0]], layer)
      words = f'{layer.kind} {ratio}'
    counted[layer.kind, words] = counted.get((layer.kind, words), 0) + 1
  return [
    (kind, f'{words}: {count}')
    for (kind, words), count in sorted(
      counted.items(), key=lambda item: KINDS.index(item[0][0])
    )
  ]


def _ratio(before, after) -> str:
  if before.rows > after.rows:
    return f'÷ {before.rows // after.rows}'
  return f'× {after.rows // before.rows}'


def _legend(axes, layers) -> None:
  entries = kinds_in_words(layers)
  place = figures.TWO_COLUMNS_INCH / 2
  height = axes.get_ylim()[1]
  for number, (kind, words) in enumerate(entries):
    y = height - 0.25 - 0.15 * number
    colour = _COLOURS.get(kind, _SKIPPED)
    axes.add_patch(
      patches.Rectangle(
        (place - 0.82, y - 0.04), 0.12, 0.09, fc=colour, ec='black', lw=0.4
      )
    )
    axes.text(place - 0.64, y, words, va='center', fontsize=6.5)


def _caption(layers, found, title) -> str:
  first, last = layers[0], layers[-1]
  convolutions = sum(layer.kind == CONVOLUTION for layer in layers)
  return (
    f'{title}, drawn from its exported graph: {convolutions} convolutions on '
    f'{len(found)} levels, from {first.rows} × {first.columns} pixels with '
    f'{first.channels} channels to {last.rows} × {last.columns} with {last.channels}. '
    'Numbers under the boxes are channels; sizes of levels are rows × columns. Brown '
    'arrows: what skips the levels below and is concatenated. Batch normalization is '
    'folded into the convolutions. Research use only.'
  )
