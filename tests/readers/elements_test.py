"""Values from raw bytes: what the standard writes is read exactly, the rest refused."""

import struct

import hypothesis
from hypothesis import strategies as st
import pydicom
from pydicom import datadict
from pydicom import dataelem
from pydicom import uid
import pytest

from covid_tf.readers import elements

_ROWS = elements.ROWS
_SPACING = elements.PIXEL_SPACING
_finite = st.floats(-1e30, 1e30)


def _of(tag, vr, value, little=True):
  return {
    tag: dataelem.RawDataElement(
      pydicom.tag.Tag(tag), vr, len(value or b''), value, 0, False, little
    )
  }


@hypothesis.given(st.lists(_finite, min_size=1, max_size=6))
def test_decimal_strings_come_back_as_they_were_written(numbers):
  text = '\\'.join(map(repr, numbers)) + ' '
  found = elements.decimals(_of(_SPACING, 'DS', text.encode()), _SPACING, len(numbers))
  assert found == tuple(numbers)


@hypothesis.given(st.lists(_finite, min_size=1, max_size=6), st.booleans())
def test_binary_numbers_come_back_in_either_byte_order(numbers, little):
  value = struct.pack(f'{"<" if little else ">"}{len(numbers)}d', *numbers)
  element = _of(_SPACING, 'FD', value, little)
  assert elements.binary_numbers(element, _SPACING) == tuple(numbers)
  assert elements.decimals(element, _SPACING, len(numbers)) == tuple(numbers)


@pytest.mark.parametrize(
  'text', ('nan', 'inf', '1_000', '1e999', '0x10', '1,5', '', '1\\2\\3', '٣', '1\n')
)
def test_what_is_no_pair_of_finite_numbers_is_refused(text):
  value = text.encode('utf-8')
  values = text if '\\' in text else f'{text}\\1'
  for written in (value, values.encode('utf-8')):
    with pytest.raises(elements.ElementError, match=r'^Pixel Spacing \(0028,0030\)'):
      elements.decimals(_of(_SPACING, 'DS', written), _SPACING, 2)


def test_an_error_shows_no_letters_that_could_be_a_name():
  with pytest.raises(elements.ElementError) as caught:
    elements.decimals(_of(_SPACING, 'DS', b'MEIER^OTTO\\1'), _SPACING, 2)
  assert 'must be 2 finite numbers' in str(caught.value)
  for part in ('MEIER', 'OTTO', '^'):
    assert part not in str(caught.value)
  assert elements.decimal_or_none(_of(_SPACING, 'DS', b'MEIER'), _SPACING) is None
  assert elements.decimal_or_none(_of(_SPACING, 'DS', b' 0.5 '), _SPACING) == 0.5


@hypothesis.given(st.integers(0, 0xFFFF), st.booleans())
def test_unsigned_values_are_read_from_every_representation(number, little):
  order = '<' if little else '>'
  written = {
    'US': struct.pack(order + 'H', number),
    'UL': struct.pack(order + 'L', number),
    'FD': struct.pack(order + 'd', number),
    'UN': struct.pack(order + 'H', number),
    'IS': str(number).encode(),
  }
  for vr, value in written.items():
    assert elements.unsigned(_of(_ROWS, vr, value, little), _ROWS) == number


@pytest.mark.parametrize(
  'vr, value, found',
  (
    ('SS', struct.pack('<h', -1), 'one number from 0 to 65535'),
    ('UL', struct.pack('<L', 65536), 'one number from 0 to 65535'),
    ('US', struct.pack('<2H', 4, 4), 'one number from 0 to 65535'),
    ('FD', struct.pack('<d', 0.5), 'one number from 0 to 65535'),
    ('UN', b'\1\2\3', 'has 3 bytes instead of 2'),
    ('IS', b'many', 'must be 1 finite number'),
    ('US', b'', 'is missing'),
    ('US', None, 'is missing'),
  ),
)
def test_what_is_no_unsigned_value_is_refused_by_name(vr, value, found):
  with pytest.raises(elements.ElementError, match=found) as caught:
    elements.unsigned(_of(_ROWS, vr, value), _ROWS)
  assert str(caught.value).startswith('Rows (0028,0010) ')


def test_a_default_is_for_what_is_missing_only():
  assert elements.unsigned({}, _ROWS, default=1) == 1
  assert elements.unsigned(_of(_ROWS, 'US', b'\7\0'), _ROWS, default=1) == 7
  with pytest.raises(elements.ElementError, match='missing'):
    elements.unsigned({}, _ROWS)
  with pytest.raises(elements.ElementError, match='has 3 bytes'):
    elements.unsigned(_of(_ROWS, 'UN', b'\1\2\3'), _ROWS, default=1)


def test_texts_lose_their_padding_and_nothing_else():
  tag = elements.IMAGE_TYPE
  found = _of(tag, 'CS', b'ORIGINAL \\ PRIMARY\\\\AX IAL\0')
  assert elements.texts(found, tag) == ('ORIGINAL', 'PRIMARY', '', 'AX IAL')
  assert elements.text(found, tag) == 'ORIGINAL'
  for empty in ({}, _of(tag, 'CS', None), _of(tag, 'CS', b'  \0')):
    assert elements.texts(empty, tag) == () and elements.text(empty, tag) == ''


@pytest.mark.parametrize('little', (True, False))
def test_binary_marks_are_shown_as_numbers(little):
  tag, kind = elements.MARKS['NominalCardiacTriggerDelayTime']
  value = struct.pack(('<' if little else '>') + kind, 412.5)
  assert elements.binary_text(_of(tag, 'FD', value, little), tag, kind) == '412.5'
  assert elements.binary_text(_of(tag, 'FD', value[:4]), tag, kind) == ''
  assert elements.binary_text({}, tag, kind) == ''


def test_marks_are_the_elements_of_their_keywords():
  for keyword, (tag, kind) in elements.MARKS.items():
    assert datadict.keyword_for_tag(tag) == keyword
    assert tag in elements.OF_AN_IMAGE
    vr = datadict.dictionary_VR(tag)
    assert kind == {'UL': 'L', 'FL': 'f', 'FD': 'd', 'US': 'H'}.get(vr, '')


@hypothesis.given(st.text(max_size=80))
def test_a_safe_uid_is_legal_and_always_the_same(text):
  safe = elements.safe_uid(text)
  assert safe == elements.safe_uid(text)
  if text:
    assert elements.legal_uid(safe) and uid.RE_VALID_UID.match(safe)
  assert (safe == text) == (not text or elements.legal_uid(text))


def test_different_illegal_uids_stay_different():
  texts = ('../x', '..\\x', '=cmd', '1.2.', '1..2', '1.2\n', '1' * 65, '١')
  assert not any(map(elements.legal_uid, texts))
  assert len(set(map(elements.safe_uid, texts))) == len(texts)
  assert elements.legal_uid('1' * 64)


@pytest.mark.parametrize(
  'text, date',
  (
    ('20200229', '2020-02-29'),
    ('20200229101500.5', '2020-02-29'),
    ('20210229', None),
    ('2020', None),
    ('', None),
    ('OTTO', None),
  ),
)
def test_dates_exist_or_are_none(text, date):
  assert elements.iso_date(text) == date


@hypothesis.given(st.text(max_size=60))
def test_printable_text_is_short_and_harmless(text):
  found = elements.printable(text)
  assert len(found) == min(len(text), 32)
  assert found.isascii() and found.isprintable() or not found
  assert not set(found) & set('<>&"\'\\;|`$')


def test_items_of_a_sequence_parsed_or_raw():
  ds = pydicom.Dataset()
  ds.PixelSpacing = [0.5, 0.75]
  tag = elements.SHARED_FUNCTIONAL_GROUPS
  outer = pydicom.Dataset()
  outer.SharedFunctionalGroupsSequence = [ds, pydicom.Dataset()]
  first, second = elements.items({tag: outer[tag]}, tag)
  assert list(first) == [_SPACING] and second == {}
  item = b'\x28\x00\x30\x00DS\x04\x000.5 '
  raw = b'\xfe\xff\x00\xe0' + struct.pack('<L', len(item)) + item
  (only,) = elements.items(_of(tag, 'SQ', raw), tag)
  assert elements.decimals(only, _SPACING, 1) == (0.5,)
  assert elements.items({}, tag) == []


def test_classes_are_named_in_words():
  assert elements.sop_class_name(uid.CTImageStorage) == 'CT Image Storage'
  assert elements.sop_class_name('<script>') == 'no legal UID'
  assert not elements.CT_SOP_CLASSES & elements.OVER_A_SERIES
