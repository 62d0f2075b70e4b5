"""A U-Net is drawn from its description: a box a layer, an arrow a skip."""

import pytest

from covid_tf import errors
from covid_tf.reports import figures
from covid_tf.reports import network_figure

_Layer = network_figure.Layer

# Two levels, with sizes and channels of no network of ours.
_LAYERS = (
  _Layer('input', 48, 64, 2),
  _Layer('convolution', 48, 64, 11, (0,), (5, 3), 'relu'),
  _Layer('pooling', 16, 32, 11, (1,)),
  _Layer('convolution', 16, 32, 23, (2,), (5, 3), 'relu'),
  _Layer('upsampling', 48, 64, 23, (3,)),
  _Layer('concatenation', 48, 64, 34, (4, 1)),
  _Layer('convolution', 48, 64, 1, (5,), (1, 1), 'sigmoid'),
)


def _boxes(figure):
  return {patch.get_gid(): patch for patch in figure.axes[0].patches if patch.get_gid()}


def test_every_layer_is_a_box_with_its_channels():
  figure = network_figure.network_figure(_LAYERS, 'A network')
  boxes = _boxes(figure)
  assert list(boxes) == [f'layer-{index}' for index in range(len(_LAYERS))]
  words = [text.get_text() for text in figure.axes[0].texts]
  for layer in _LAYERS:
    assert str(layer.channels) in words
  assert '48 × 64' in words and '16 × 32' in words
  lefts = [box.get_x() for box in boxes.values()]
  assert lefts == sorted(lefts)
  assert boxes['layer-2'].get_y() < boxes['layer-1'].get_y()  # A level below.
  assert boxes['layer-3'].get_width() > boxes['layer-0'].get_width()
  right = max(box.get_x() + box.get_width() for box in boxes.values())
  assert lefts[0] >= 0 and right <= figures.TWO_COLUMNS_INCH


def test_what_skips_is_a_line_to_its_concatenation():
  assert network_figure.skips(_LAYERS) == [(1, 5)]
  figure = network_figure.network_figure(_LAYERS, 'A network')
  (line,) = figure.axes[0].lines
  assert line.get_gid() == 'skip-1-5'
  boxes = _boxes(figure)
  for index, x in ((1, line.get_xdata()[0]), (5, line.get_xdata()[-1])):
    box = boxes[f'layer-{index}']
    assert box.get_x() < x < box.get_x() + box.get_width()


def test_a_concatenation_is_divided_as_its_channels_are():
  figure = network_figure.network_figure(_LAYERS, 'A network')
  whole = _boxes(figure)['layer-5']
  parts = [
    patch.get_width()
    for patch in figure.axes[0].patches
    if not patch.get_gid()
    and whole.get_x() - 1e-6 <= patch.get_x() < whole.get_x() + whole.get_width()
    and patch.get_y() == whole.get_y()
  ]
  assert parts == pytest.approx([whole.get_width() * part / 34 for part in (23, 11)])


def test_legend_and_caption_count_what_is_there():
  words = [text for _, text in network_figure.kinds_in_words(_LAYERS)]
  assert words == [
    'convolution 5 × 3, ReLU: 2',
    'convolution 1 × 1, sigmoid: 1',
    'pooling ÷ 3: 1',
    'upsampling × 3: 1',
    'concatenation, what skipped: 1',
  ]
  figure = network_figure.network_figure(_LAYERS, 'A network')
  drawn = [text.get_text() for text in figure.axes[0].texts]
  assert all(text in drawn for text in words)
  caption = ' '.join(figure.texts[0].get_text().split())
  assert caption.startswith('A network, drawn from its exported graph: 3 convolutions')
  assert '2 levels, from 48 × 64 pixels with 2 channels to 48 × 64 with 1.' in caption


def test_the_svg_holds_boxes_and_numbers_and_is_the_same_each_time():
  svg = figures.svg_text(network_figure.network_figure(_LAYERS, 'A network'))
  for index, layer in enumerate(_LAYERS):
    assert f'id="layer-{index}"' in svg
    assert f'<!-- {layer.channels} -->' in svg  # Glyphs are paths, named so.
  assert 'id="skip-1-5"' in svg
  again = figures.svg_text(network_figure.network_figure(_LAYERS, 'A network'))
  assert svg == again


@pytest.mark.parametrize('layers', [(), _LAYERS[:4]])
def test_what_is_no_u_net_is_refused(layers):
  with pytest.raises(errors.UsageError, match=f'found {len(layers)} layers without'):
    network_figure.network_figure(layers, 'A network')
