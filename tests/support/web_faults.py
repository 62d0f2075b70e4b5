"""A PACS on loopback that answers by DICOMweb as a test wants it to."""

from collections.abc import Iterator
import contextlib
import http.server
import io
import json
import re
import threading
import urllib.parse

import pydicom
import pytest

from covid_tf import clinic
from covid_tf.clinic import pacs

LIMITS = pacs.Limits(connect_s=60, answer_s=60, total_s=300, attempts=3)
_BOUNDARY = 'limit-of-parts'


class FakeWeb:
  """A PACS; change its attributes before it is asked.

  Attributes:
    kept: SOP Instance UID to the bytes of its file.
    answers: statuses that come first, each once: an int, or (int, headers).
    failure: failure reason for every instance of STOW-RS, or None.
    warning: warning reason for every instance, or None.
    forgets: whether it keeps nothing.
    most_bytes: larger requests are answered with 413.
    silent: whether it stores without naming instances.
    damage: bytes of a WADO-RS answer to the bytes that are sent.
    content_type: of WADO-RS, or None for the right one.
    page: most matches of one answer.
    listed: matches of QIDO-RS instead of its own, or None.
    requests: (method, path, headers) of all requests.
    delay: waited for by every answer.
  """

  def __init__(self):
    self.kept: dict[str, bytes] = {}
    self.answers: list = []
    self.failure = self.warning = None
    self.forgets = self.silent = False
    self.most_bytes = 1 << 40
    self.damage = lambda content: content
    self.content_type: str | None = None
    self.page = 1 << 30
    self.listed = None
    self.requests: list = []
    self.delay = threading.Event()
    self.delay_s = 0.0
    self.url = ''

  def archive(self, **options) -> pacs.Archive:
    """The same PACS as we see it, within `LIMITS` unless an option says otherwise."""
    return clinic.connect(self.url, **{'limits': LIMITS, **options})

  @contextlib.contextmanager
  def running(self) -> Iterator['FakeWeb']:
    """Answers, past any proxy; what we repeat meanwhile is repeated after 10 ms."""
    handler = type('Handler', (_Handler,), {'fake': self})
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    self.url = f'http://127.0.0.1:{server.server_address[1]}/dw'
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pacs, '_FIRST_PAUSE_S', 0.01)
        patch.setenv('NO_PROXY', '127.0.0.1')
        yield self
    finally:
      self.delay.set()
      server.shutdown()
      server.server_close()
      thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
  fake: FakeWeb
  protocol_version = 'HTTP/1.1'

  def log_message(self, *arguments):
    """Nothing."""

  def _begins(self) -> bool:
    """Whether the request is to be answered as usual."""
    fake = self.fake
    fake.requests.append((self.command, self.path, dict(self.headers)))
    fake.delay.wait(fake.delay_s)
    if not fake.answers:
      return True
    answer = fake.answers.pop(0)
    if answer == 'drop':
      self.close_connection = True
      self.connection.close()
      return False
    status, headers = answer if isinstance(answer, tuple) else (answer, {})
    self._answer(status, b'', headers)
    return False

  def _answer(self, status, content, headers):
    self.send_response(status)
    for name, value in {'Content-Length': len(content), **headers}.items():
      self.send_header(name, str(value))
    self.end_headers()
    self.wfile.write(content)

  def do_POST(self):  # noqa: N802
    content = self.rfile.read(int(self.headers['Content-Length']))
    if not self._begins():
      return
    if len(content) > self.fake.most_bytes:
      self._answer(413, b'', {})
      return
    boundary = re.search('boundary=(.*)', self.headers['Content-Type'])[1].encode()
    names = {'00081198': [], '00081199': []}
    for part in content.split(b'--' + boundary)[1:-1]:
      data = part.partition(b'\r\n\r\n')[2].removesuffix(b'\r\n')
      dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
      item = {'00081155': {'vr': 'UI', 'Value': [dataset.SOPInstanceUID]}}
      if self.fake.failure is not None:
        item['00081197'] = {'vr': 'US', 'Value': [self.fake.failure]}
        names['00081198'].append(item)
        continue
      if self.fake.warning is not None:
        item['00081196'] = {'vr': 'US', 'Value': [self.fake.warning]}
      names['00081199'].append(item)
      if not self.fake.forgets:
        self.fake.kept.setdefault(dataset.SOPInstanceUID, data)
    answer = {tag: {'vr': 'SQ', 'Value': items} for tag, items in names.items()}
    status = 409 if self.fake.failure is not None else 200
    body = b'' if self.fake.silent else json.dumps(answer).encode()
    self._answer(status, body, {'Content-Type': 'application/dicom+json'})

  def do_GET(self):  # noqa: N802
    if not self._begins():
      return
    path, _, query = self.path.partition('?')
    if path.endswith(('/instances', '/studies')):
      self._search(urllib.parse.parse_qs(query))
    else:
      self._retrieve()

  def _search(self, query):
    offset = int(query.get('offset', ['0'])[0])
    matches = self.fake.listed
    if matches is None:
      matches = [self._match(data) for data in self.fake.kept.values()]
      matches = matches[offset : offset + self.fake.page]
    content = matches if isinstance(matches, bytes) else json.dumps(matches).encode()
    self._answer(200, content, {'Content-Type': 'application/dicom+json'})

  def _match(self, data):
    dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    return {
      tag: {'vr': 'UI', 'Value': [str(dataset[keyword].value)]}
      for tag, keyword in (
        ('00080016', 'SOPClassUID'),
        ('00080018', 'SOPInstanceUID'),
        ('0020000D', 'StudyInstanceUID'),
        ('0020000E', 'SeriesInstanceUID'),
      )
    }

  def _retrieve(self):
    head = b'--' + _BOUNDARY.encode() + b'\r\nContent-Type: application/dicom\r\n\r\n'
    parts = b''.join(head + data + b'\r\n' for data in self.fake.kept.values())
    content = self.fake.damage(parts + b'--' + _BOUNDARY.encode() + b'--\r\n')
    kind = f'multipart/related; type="application/dicom"; boundary="{_BOUNDARY}"'
    self._answer(200, content, {'Content-Type': self.fake.content_type or kind})
