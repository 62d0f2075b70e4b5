"""Messages of several files: sent as they are, and found again however cut."""

import dimse_faults
import pytest

from covid_tf import errors
from covid_tf.clinic import multipart


@pytest.fixture(name='instances', scope='module')
def _instances(tmp_path_factory):
  return dimse_faults.read_study(tmp_path_factory.mktemp('study'))


def _parts(pieces, folder):
  message = multipart.Message(iter(pieces), b'boundary', 'name')
  found = []
  while message.next_part():
    with open(folder / 'part', 'wb') as file:
      message.copy_part(file)
    found.append((folder / 'part').read_bytes())
  return found


def test_what_is_sent_is_found_again(instances, tmp_path):
  body = multipart.Body(instances, 'boundary')
  length = len(body)
  content = b''.join(body)
  assert len(content) == length
  assert _parts([content], tmp_path) == [each.path.read_bytes() for each in instances]
  with pytest.raises(errors.PACSError, match='damaged or ends'):
    _parts([content[:-5]], tmp_path)


def test_groups_are_of_a_requests_size(instances, monkeypatch):
  monkeypatch.setattr(multipart, '_REQUEST_BYTES', 3 * instances[0].size_bytes)
  groups = list(multipart.groups(instances))
  assert [len(group) for group in groups] == [3, 3, 2]
  assert sum(groups, []) == list(instances)
  monkeypatch.setattr(multipart, '_REQUEST_BYTES', 1)
  assert [len(group) for group in multipart.groups(instances)] == [1] * 8


@pytest.mark.parametrize('size', [1, 2, 7, 64, 1000])
def test_parts_are_found_however_a_message_is_cut(size, tmp_path):
  contents = [b'', b'\r\n--x', b'a\r\n--boundar', bytes(range(256)) * 3]
  message = b'preamble\r\n' + b''.join(
    b'--boundary\r\nContent-Type: x\r\n\r\n' + content + b'\r\n' for content in contents
  )
  message += b'--boundary--\r\nepilogue'
  pieces = (message[i : i + size] for i in range(0, len(message), size))
  assert _parts(pieces, tmp_path) == contents


@pytest.mark.parametrize(
  'content_type, expected',
  [
    ('multipart/related; boundary=abc', b'abc'),
    ('multipart/related; type="application/dicom"; Boundary = "a b" ; x=1', b'a b'),
    ('multipart/related;boundary="a;b,c=d:?/()+_\'.-";type=x', b"a;b,c=d:?/()+_'.-"),
    ('multipart/related; boundary="a\\"b"', b'a"b'),
    ('multipart/related; notboundary=abc', None),
    ('multipart/related', None),
    ('multipart/related; boundary=', None),
    ('multipart/related; boundary=""', None),
  ],
)
def test_boundaries_of_headers(content_type, expected):
  assert multipart.boundary(content_type) == expected
