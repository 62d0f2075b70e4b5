"""How a CT was acquired: scanner, kernel, tube, contrast; nothing that names a patient.

None of it decides whether a series is read. A value that is missing, damaged or not
plausible is None, and a free text is kept only as far as it cannot name anybody
(docs/adr/0161).
"""

import collections
from collections.abc import Callable, Iterable, Sequence
import math
import re
from typing import Any

from covid_tf import volume
from covid_tf.readers import elements as elements_lib
from covid_tf.readers import privacy

_MANUFACTURER = 0x00080070
_MODEL = 0x00081090
_KVP = 0x00180060
_PATIENT_POSITION = 0x00185100
_GANTRY_TILT = 0x00181120
_REVOLUTION_TIME = 0x00189305
_CONTRAST_AGENT = 0x00180010
_CONTRAST_AGENT_SEQUENCE = 0x00180012
_CONTRAST_ROUTE = 0x00181040
_CONTRAST_VOLUME = 0x00181041
_CONTRAST_TOTAL_DOSE = 0x00181044
_CONTRAST_ADMINISTERED = 0x00189342
_CODE_MEANING = 0x00080104

# Each with what it is multiplied by, the most exact first (PS3.3 C.8.2.1, C.8.15.3.8).
_EXPOSURE_MAS = ((0x00189332, 1.0), (0x00181153, 1e-3), (0x00181152, 1.0))
_TUBE_CURRENT_MA = ((0x00189330, 1.0), (0x00188151, 1e-3), (0x00181151, 1.0))
_DOUBLE_BYTES = 8  # Of VR FD, which files with implicit VR do not name.

_OF_CONTRAST = (
  _CONTRAST_AGENT,
  _CONTRAST_AGENT_SEQUENCE,
  _CONTRAST_ROUTE,
  _CONTRAST_VOLUME,
  _CONTRAST_TOTAL_DOSE,
  _CONTRAST_ADMINISTERED,
)
# Elements beside those that `elements.OF_AN_IMAGE` has for other reasons.
TAGS = (
  _MANUFACTURER,
  _MODEL,
  _KVP,
  _PATIENT_POSITION,
  _GANTRY_TILT,
  _REVOLUTION_TIME,
  *_OF_CONTRAST,
  *(tag for tag, _ in _EXPOSURE_MAS + _TUBE_CURRENT_MA),
)
# Of these, sequences that are jumped over and parsed only when they are asked for.
SEQUENCES = (_CONTRAST_AGENT_SEQUENCE,)
_OF_FRAMES = (*TAGS, elements_lib.CONVOLUTION_KERNEL, elements_lib.SLICE_THICKNESS)
# Functional groups of enhanced CT that hold them (PS3.3 C.8.15.3 and C.7.6.16.2), and
# those in which converted files keep the elements of single slices (C.7.6.16.2.25).
MACROS = (
  0x00209170,  # Unassigned Shared Converted Attributes
  0x00209171,  # Unassigned Per-Frame Converted Attributes
  0x00189304,  # CT Acquisition Details
  0x00189321,  # CT Exposure
  0x00189325,  # CT X-Ray Details
  0x00189341,  # Contrast/Bolus Usage
)

# What scanners can do, widely: zeros and placeholders lie outside.
_KV = (20.0, 200.0)
_THICKNESS_MM = (0.05, 50.0)
_MAS = (0.1, 2000.0)
_MA = (1.0, 2000.0)
_SECONDS = (0.1, 10.0)
_DEGREES = (-60.0, 60.0)
_CM3 = (0.1, 1e4)

# Defined terms of Patient Position (PS3.3 C.7.3.1.1.2).
_POSITIONS = frozenset(
  'HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL'.split()
)
# Texts that stand for nothing, and what is written where a text was taken out.
_NOTHING = frozenset(
  'NONE NULL NIL NA UNKNOWN UNK UNSPECIFIED UNDEFINED ANONYMOUS ANONYMIZED ANONYMISED '
  'ANON REMOVED DELETED DEIDENTIFIED REDACTED X XX XXX XXXX'.split()
)
# By their first word: 'GE' and 'Philips' are no patients.
_MAKERS = frozenset(
  'AGFA CANON FUJI FUJIFILM GE GEMS HITACHI MINFOUND NEUSOFT PHILIPS PICKER SAMSUNG '
  'SHIMADZU SIEMENS SINOVISION TOSHIBA UIH UNITED'.split()
)

# Words of contrast agents, routes and phases; others of a free text are not kept.
# Generic and trade names of agents for CT.
_AGENTS = frozenset(
  'IOHEXOL OMNIPAQUE ACCUPAQUE OPAXOL IOPAMIDOL ISOVUE IOPAMIRO IOPAMIRON NIOPAM '
  'SOLUTRAST SCANLUX IOPROMIDE ULTRAVIST IOVERSOL OPTIRAY IODIXANOL VISIPAQUE IOMEPROL '
  'IOMERON IMERON IOBITRIDOL XENETIX IOXAGLATE HEXABRIX IOXILAN OXILAN IOXITALAMATE '
  'TELEBRIX IOTHALAMATE CONRAY DIATRIZOATE AMIDOTRIZOATE GASTROGRAFIN GASTROGRAPHIN '
  'GASTROVIEW UROGRAFIN HYPAQUE RENOGRAFIN MD76 BARIUM READICAT XENON KRYPTON '
  'GADOLINIUM'.split()
)
_THROUGH_THE_GUT = frozenset('ORAL ORALLY PO RECTAL ENTERAL READICAT BARIUM'.split())
_OTHER_WORDS = frozenset(
  'IV INTRAVENOUS INTRAVENOUSLY INTRAVASCULAR INTRA VENOUS ARTERIAL PORTAL DELAYED '
  'BOLUS CONTRAST CONTRASTE KONTRAST KM CM CE ENHANCED MEDIA MEDIUM AGENT DYE IODINE '
  'IODINATED IONIC NON NONIONIC LOCM HOCM LOW HIGH ISO OSMOLAR INJECTION INJECTED '
  'APPLIED GIVEN YES WITH'.split()
)
_KEPT_WORDS = _AGENTS | _THROUGH_THE_GUT | _OTHER_WORDS
_NEGATIONS = frozenset(
  'NO NONE NOT WITHOUT WO NIL NULL FALSE N SANS SIN SENZA OHNE KEIN KEINE NATIVE NATIV '
  'UNENHANCED NONENHANCED NONCONTRAST PLAIN 0'.split()
) | {'無', '无', 'なし', '平扫', '未使用'}
_NEGATED = re.compile(r'NON[ -]?(CONTRAST|ENHANCED)|NON')


def of_image(
  image: elements_lib.Elements, file: elements_lib.Elements
) -> volume.Acquisition:
  """What one image says of its acquisition.

  Args:
    image: tag to raw element, of a file or of a frame with its functional groups.
    file: the elements of the file, which hold the patient and the character set.

  Returns:
    An acquisition without distance of slices.
  """
  kernel = '/'.join(elements_lib.texts(image, elements_lib.CONVOLUTION_KERNEL))
  contrast, agent = _contrast(image, file)
  position = elements_lib.text(image, _PATIENT_POSITION).upper()
  return volume.Acquisition(
    manufacturer=_device_text(file, privacy.decoded_text(image, _MANUFACTURER, file)),
    model=_device_text(file, privacy.decoded_text(image, _MODEL, file)),
    kernel=_device_text(file, kernel),
    kvp=_number(image, _KVP, _KV),
    slice_thickness_mm=_number(image, elements_lib.SLICE_THICKNESS, _THICKNESS_MM),
    contrast=contrast,
    contrast_agent=agent,
    patient_position=position if position in _POSITIONS else None,
    exposure_mas=_first(image, _EXPOSURE_MAS, _MAS),
    tube_current_ma=_first(image, _TUBE_CURRENT_MA, _MA),
    rotation_time_s=_number(image, _REVOLUTION_TIME, _SECONDS),
    gantry_tilt_deg=_number(image, _GANTRY_TILT, _DEGREES),
  )


def of_macros(group: elements_lib.Elements) -> dict[int, elements_lib.Element]:
  """Elements of acquisition in a functional group; what is damaged is left out."""
  values: dict[int, elements_lib.Element] = {}
  for macro in MACROS:
    try:
      items = elements_lib.items(group, macro)
    except Exception:  # A damaged sequence fails anywhere inside pydicom.
      continue
    # Of several agents, the first that was given says that contrast was.
    for item in reversed(items):
      values.update((tag, item[tag]) for tag in _OF_FRAMES if tag in item)
  return values


def _number(
  elements: elements_lib.Elements, tag: int, limits: tuple[float, float]
) -> float | None:
  """The one number of an element; None if it is none, several or not plausible."""
  if not elements_lib.raw(elements, tag):
    return None
  found = set(elements_lib.binary_numbers(elements, tag) or ())
  if not found:
    try:
      found = set(map(float, elements_lib.texts(elements, tag)))
    except ValueError:
      if len(elements_lib.raw(elements, tag)) == _DOUBLE_BYTES:
        found = {float(elements_lib.binary_text(elements, tag, 'd'))}
  if len(found) != 1:
    return None
  (value,) = found
  # False for NaN too.
  return value if limits[0] <= value <= limits[1] else None


def _first(
  elements: elements_lib.Elements,
  tags: Iterable[tuple[int, float]],
  limits: tuple[float, float],
) -> float | None:
  for tag, unit in tags:
    value = _number(elements, tag, (limits[0] / unit, limits[1] / unit))
    if value is not None:
      return value * unit
  return None


def _device_text(file: elements_lib.Elements, text: str) -> str | None:
  """A text that a scanner wrote of itself; None if it may name the patient."""
  words = _words(text) if text else []
  if not words or ''.join(words) in _NOTHING:
    return None
  if words[0] not in _MAKERS and privacy.names_patient(file, text):
    return None
  return elements_lib.printable(text, most=64)


def _words(text: str) -> list[str]:
  """Words in capital letters; 'I.V.' is one, and so is 'W/O'."""
  text = re.sub(r'\bW/O?\b', lambda found: found[0].replace('/', ''), text.upper())
  return re.findall(r'[^\W_]+', text.replace('.', '').replace("'", ''))


# Contrast agents.


def _contrast(
  image: elements_lib.Elements, file: elements_lib.Elements
) -> tuple[bool | None, str | None]:
  """(whether contrast was given, kept words of agent and route)."""
  if not any(tag in image for tag in _OF_CONTRAST):
    return None, None
  texts = [
    privacy.decoded_text(image, _CONTRAST_AGENT, file),
    privacy.decoded_text(image, _CONTRAST_ROUTE, file),
    *_coded_agents(image),
  ]
  agent, route, *coded = texts
  administered = elements_lib.text(image, _CONTRAST_ADMINISTERED).upper()
  if administered in ('YES', 'NO'):
    given: bool | None = administered == 'YES'
  else:
    given = _says_given(agent)
  if given is None and (
    _says_given(route)
    or any(map(_says_given, coded))
    or _number(image, _CONTRAST_VOLUME, _CM3)
    or _number(image, _CONTRAST_TOTAL_DOSE, _CM3)
  ):
    given = True
  return given, _kept(texts) if given else None


def _says_given(text: str) -> bool | None:
  """Whether a free text says that something was given; None if it says nothing."""
  if ''.join(_words(text)) in _NOTHING - {'NONE', 'NIL', 'NULL'}:
    return None
  parts = _parts(text)
  return not all(map(_is_negated, parts)) if parts else None


def _parts(text: str) -> list[list[str]]:
  """Words of each part of 'NO ORAL, IV OMNIPAQUE'."""
  parts = re.split(r'[,;&+]|\bAND\b', text.upper())
  return [words for part in parts if (words := _words(part))]


def _is_negated(words: Sequence[str]) -> bool:
  return words[0] in _NEGATIONS or bool(_NEGATED.fullmatch(' '.join(words)))


def _kept(texts: Iterable[str]) -> str | None:
  """The words of free texts that a list has, each once, in their order."""
  words = dict.fromkeys(
    word
    for text in texts
    for part in _parts(text)
    for word in part
    if word in _KEPT_WORDS and not _is_negated(part)
  )
  return ' '.join(words) or None


def _coded_agents(image: elements_lib.Elements) -> list[str]:
  try:
    return [
      elements_lib.text(item, _CODE_MEANING)
      for item in elements_lib.items(image, _CONTRAST_AGENT_SEQUENCE)
    ]
  except Exception:  # A damaged sequence fails anywhere inside pydicom.
    return []


# What a series says.

# Rounded nominal values are one: 3.98734 and 3.9873 mm.
_EQUAL_WITHIN = 0.01


def _same(values: Sequence[Any]) -> Any:
  """The value that all have, or None."""
  return values[0] if len(set(values)) == 1 else None


def _nearly_same(values: Sequence[float]) -> float | None:
  """The commonest of values that are equal but for rounding, or None."""
  least, most = min(values), max(values)
  if most - least > _EQUAL_WITHIN * max(abs(least), abs(most), 1):
    return None
  counts = collections.Counter(values)
  return max(sorted(counts), key=counts.__getitem__)


def _average(values: Sequence[float]) -> float:
  return round(math.fsum(values) / len(values), 2)


def _all_words(texts: Sequence[str]) -> str:
  return ' '.join(dict.fromkeys(word for text in texts for word in text.split()))


_MERGED: dict[str, Callable[[Sequence[Any]], Any]] = {
  'manufacturer': _same,
  'model': _same,
  'kernel': _same,
  'kvp': _same,
  'slice_thickness_mm': _nearly_same,
  'contrast': any,
  'contrast_agent': _all_words,
  'patient_position': _same,
  'exposure_mas': _average,
  'tube_current_ma': _average,
  'rotation_time_s': _nearly_same,
  'gantry_tilt_deg': _nearly_same,
}

_SHOWN = {
  'kvp': 'tube voltage',
  'slice_thickness_mm': 'slice thickness',
  'patient_position': 'patient position',
  'rotation_time_s': 'rotation time',
  'gantry_tilt_deg': 'gantry tilt',
}


def of_series(
  images: Sequence[volume.Acquisition], slice_distance_mm: float
) -> tuple[volume.Acquisition, tuple[str, ...]]:
  """What all images of a series say, each image giving what it has.

  Args:
    images: of its images.
    slice_distance_mm: between neighbouring slice positions.

  Returns:
    (the series' acquisition, warnings of what differs between slices). Exposure and
    tube current are averages, contrast was given if any image says so; of other
    values that differ, none is the series'.
  """
  values: dict[str, Any] = {}
  differing = []
  for name, merge in _MERGED.items():
    given = [getattr(image, name) for image in images]
    given = [value for value in given if value is not None]
    values[name] = merge(given) if given else None
    if given and values[name] is None:
      differing.append(_SHOWN.get(name, name))
  warnings: tuple[str, ...] = ()
  if differing:
    warnings = (
      f'slices differ in {", ".join(differing)}, which is not stated of the series',
    )
  return volume.Acquisition(slice_distance_mm=slice_distance_mm, **values), warnings
