"""Values of headers as the standard allows them, from whatever stands in the source.

A value is decoded, and cut or left out where it is none of its kind; what was done is
said without the value, which may name the patient.
"""

from collections.abc import Callable
import re

import pydicom
from pydicom import datadict

from covid_tf.readers import elements as elements_lib
from covid_tf.readers import privacy

# Longest values by VR (PS3.5 6.2); of a person's name each of its three groups.
_LONGEST = {'LO': 64, 'SH': 16, 'PN': 64}
# Of no text, and halves of characters that no UTF-8 holds.
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff]')
# ASCII: \d and float() take digits of every script, and float() also '1_0' and 'nan'.
_TIME = re.compile(
  r'(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?', re.ASCII
)
_AGE = re.compile(r'\d{3}[DWMY]', re.ASCII)
_INTEGER = re.compile(r'[+-]?\d{1,11}', re.ASCII)
_DECIMAL = re.compile(r'[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?', re.ASCII)
_MOST_INTEGER = 2**31 - 1  # Of an integer string.
# Where other values than the standard's say nothing.
_DEFINED = {'PatientSex': ('M', 'F', 'O'), 'PatientIdentityRemoved': ('YES', 'NO')}
# What `deidentification` reads.
DEIDENTIFICATION = (
  'PatientIdentityRemoved',
  'DeidentificationMethod',
  'DeidentificationMethodCodeSequence',
)


def tag_of(keyword: str) -> int:
  """The tag of a keyword."""
  tag = datadict.tag_for_keyword(keyword)
  assert tag is not None, keyword
  return tag


def value(elements: elements_lib.Elements, keyword: str, notes: dict[str, None]) -> str:
  """The value of an element, fit to be written; '' where there is none.

  Args:
    elements: tag to raw element, of a file.
    keyword: of the element.
    notes: where is said what could not be kept as it was; never the value itself.
  """
  tag = tag_of(keyword)
  text = privacy.decoded_text(elements, tag, elements)
  if not text:
    return ''
  clean = _CLEANERS[datadict.dictionary_VR(tag)](text)
  if clean not in _DEFINED.get(keyword, (clean,)):
    clean = ''
  if clean != text.strip():
    name = datadict.dictionary_description(tag)
    notes[
      f'{name} of the source is no legal value and was '
      f'{"changed to one" if clean else "left empty"} in the DICOM objects'
    ] = None
  return clean


def deidentification(
  elements: elements_lib.Elements, notes: dict[str, None]
) -> pydicom.Dataset:
  """What a source says of the removal of its patient's identity (PS3.3 C.7.1.1).

  Args:
    elements: of a file, DEIDENTIFICATION among them.
    notes: as of `value`.

  Returns:
    The elements; none where it says nothing, or that identity was removed and not
    how, which no object may say.
  """
  found = pydicom.Dataset()
  removed = value(elements, 'PatientIdentityRemoved', notes)
  if removed == 'YES':
    text = privacy.decoded_text(elements, tag_of('DeidentificationMethod'), elements)
    clean = _CLEANERS['LO']
    if methods := [method for method in map(clean, text.split('\\')) if method]:
      found.DeidentificationMethod = methods
    if codes := _codes(elements, notes):
      found.DeidentificationMethodCodeSequence = codes
    if not found:
      notes['How the identity of the patient was removed, the source does not say'] = (
        None
      )
      return found
  if removed:
    found.PatientIdentityRemoved = removed
  return found


def _codes(
  elements: elements_lib.Elements, notes: dict[str, None]
) -> list[pydicom.Dataset]:
  """Codes of the methods; those that are not whole are left out."""
  try:
    items = elements_lib.items(elements, tag_of('DeidentificationMethodCodeSequence'))
  except Exception:  # A damaged sequence fails anywhere inside pydicom.
    items = []
  codes = []
  for item in items:
    code = pydicom.Dataset()
    for keyword in ('CodeValue', 'CodingSchemeDesignator', 'CodeMeaning'):
      if text := value({**elements, **item}, keyword, notes):
        setattr(code, keyword, text)
    if len(code) == 3:
      codes.append(code)
  return codes


def _text(longest: int) -> Callable[[str], str]:
  # In a text of one value, '\' would be the end of it.
  return lambda text: _CONTROL.sub('', text).split('\\')[0][:longest].strip()


def _name(text: str) -> str:
  """A person's name: three groups of five components at most, each group cut."""
  groups = _CONTROL.sub('', text).split('\\')[0].split('=')[:3]
  kept = ('^'.join(group.split('^')[:5])[: _LONGEST['PN']] for group in groups)
  return '='.join(group.strip() for group in kept).rstrip('=')


def _date(text: str) -> str:
  """'YYYYMMDD', also of the retired 'YYYY.MM.DD'."""
  digits = text.replace('.', '')
  return digits if len(digits) == 8 and elements_lib.iso_date(digits) else ''


def _time(text: str) -> str:
  """'HHMMSS.FFFFFF' or its start, also of the retired 'HH:MM:SS'.

  A leap second, which most readers refuse, becomes the one before it.
  """
  found = text.replace(':', '')
  if not _TIME.fullmatch(found):
    return ''
  return found[:4] + found[4:].replace('60', '59', 1) if found[4:6] == '60' else found


def _code(text: str) -> str:
  """One word of capital letters, digits, spaces and underscores."""
  found = text.split('\\')[0].strip().upper()[:16]
  return found if re.fullmatch(r'[A-Z0-9 _]*', found) else ''


def _integer(text: str) -> str:
  found = text.split('\\')[0].strip()
  is_one = _INTEGER.fullmatch(found) and -_MOST_INTEGER <= int(found) <= _MOST_INTEGER
  return found if is_one else ''


def _measure(text: str) -> str:
  """A positive decimal number."""
  is_one = len(text) <= 16 and _DECIMAL.fullmatch(text) and 0 < float(text) < 1e6
  return text if is_one else ''


_CLEANERS: dict[str, Callable[[str], str]] = {
  'PN': _name,
  'LO': _text(_LONGEST['LO']),
  'SH': _text(_LONGEST['SH']),
  'DA': _date,
  'TM': _time,
  'CS': _code,
  'IS': _integer,
  'DS': _measure,
  'AS': lambda text: text if _AGE.fullmatch(text) else '',
}
