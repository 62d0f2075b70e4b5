"""A page as a test sees it: elements with their attributes and text."""

import base64
import dataclasses
from html import parser
import io

import numpy as np
from PIL import Image
import synthetic_case

from covid_tf.reports import case_report

_VOID = {'meta', 'input', 'img', 'br', 'link', 'image', 'path', 'rect', 'line'}


@dataclasses.dataclass
class Element:
  """One element; `text` holds that of what is inside too."""

  tag: str
  attributes: dict
  parents: tuple
  text: str = ''

  def inside(self, id_: str) -> bool:
    return any(parent.attributes.get('id') == id_ for parent in self.parents)

  def words(self) -> str:
    return ' '.join(self.text.split())


class Page(parser.HTMLParser):
  """Parses a page; `elements` in the order in which they open."""

  def __init__(self, page: bytes):
    super().__init__()
    self.elements, self._open = [], []
    self.feed(page.decode())

  def handle_starttag(self, tag, attrs):
    element = Element(tag, dict(attrs), tuple(self._open))
    self.elements.append(element)
    if tag not in _VOID:
      self._open.append(element)

  def handle_startendtag(self, tag, attrs):
    self.elements.append(Element(tag, dict(attrs), tuple(self._open)))

  def handle_endtag(self, tag):
    if tag in (element.tag for element in self._open):
      while self._open.pop().tag != tag:
        pass

  def handle_data(self, data):
    for element in self._open:
      element.text += data

  def by_id(self, id_: str) -> Element:
    (found,) = (e for e in self.elements if e.attributes.get('id') == id_)
    return found

  def all(self, tag: str, class_: str = '', inside: str = '') -> list[Element]:
    return [
      e
      for e in self.elements
      if e.tag == tag
      and set(class_.split()) <= set((e.attributes.get('class') or '').split())
      and (not inside or e.inside(inside))
    ]


def pixels(uri: str) -> np.ndarray:
  """What a data URI shows, as float32 RGBA in [0, 1]."""
  data = base64.b64decode(uri.partition('base64,')[2], validate=True)
  image = Image.open(io.BytesIO(data)).convert('RGBA')
  return np.asarray(image, np.float32) / 255


def points_mm(part: str) -> np.ndarray:
  """float [N, 2]: (x, y) of one closed line of a path in tenths of millimetres."""
  start, _, steps = part.lstrip('M').partition('l')
  steps = np.array(steps.split(), float).reshape(-1, 2)
  return (
    np.array(start.split(), float) + np.cumsum(np.vstack(((0, 0), steps)), axis=0)
  ) / 10


def of_case(volume=None, result=None, demo_models=False, **changes):
  """The report of the patient of synthetic_case, or another one, and its result.

  Args:
    volume: CTVolume, or None.
    result: CaseResult, or None for that of synthetic_case.
    demo_models: as for `case_report.report_html`.
    **changes: fields of the result to replace.
  """
  volume = synthetic_case.make_volume() if volume is None else volume
  result = synthetic_case.make_result(volume) if result is None else result
  result = dataclasses.replace(result, **changes)
  source = case_report.report_html(result, volume, demo_models=demo_models)
  return Page(source), result
