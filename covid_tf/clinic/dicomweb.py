"""A PACS that speaks DICOMweb (PS3.18): STOW-RS, QIDO-RS and WADO-RS.

Searches go through dicomweb-client. Storing and retrieving are done here: files are
sent as they are on disk, the answer about every instance is read also where the status
is an error, and a multipart message that ends early is refused (docs/adr, 182).
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import datetime
import email.utils
import io
import json
import pathlib
import re
import time
from typing import Any, BinaryIO
import uuid

import dicomweb_client
import requests
from requests import auth
from requests import exceptions

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import dimse
from covid_tf.clinic import pacs
from covid_tf.readers import elements

_PIECE = 1 << 20
_MOST_HEADER_BYTES = 1 << 16
# Ours: few round trips for thin slices, and below the usual limits of servers.
_REQUEST_BYTES = 16_000_000
_PAGE = 1000
_MOST_LISTED = 1_000_000
_DICOM = 'multipart/related; type="application/dicom"'
_JSON = 'application/dicom+json'
_SOP_CLASS, _SOP_INSTANCE, _SERIES, _STUDY = (
  '00080016',
  '00080018',
  '0020000E',
  '0020000D',
)
_REFERENCED_INSTANCE, _FAILURE, _WARNING = '00081155', '00081197', '00081196'
_FAILED_SEQUENCE, _STORED_SEQUENCE = '00081198', '00081199'

_STATUSES = {
  400: 'it does not understand the request',
  401: 'it wants to know who we are: give --token-file or --password-file, or renew '
  'what is in it',
  403: 'we may not do this there: ask its administrator',
  404: 'nothing is at this address: check the path of the URL',
  405: 'it does not offer this service at this address',
  406: 'it cannot answer in DICOM',
  409: 'it stored none of them',
  410: 'what is asked for is gone',
  411: 'it wants requests of a known length',
  413: 'the request is larger than it takes',
  415: 'it does not take DICOM at this address',
  507: 'it has no space left',
}
# Worth another try; of the others with 5xx, 501 and 505 say never and 507 a full disk.
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


class WebArchive:
  """A PACS reached at a URL."""

  def __init__(
    self,
    address: addresses.WebAddress,
    *,
    security: addresses.Security | None = None,
    limits: pacs.Limits | None = None,
  ):
    """Connects nothing yet.

    Args:
      address: root of its services.
      security: token or password, certificates.
      limits: how long it may take.

    Raises:
      errors.UsageError: a secret would travel readable, or its file is not in order.
    """
    self._address = address
    self._limits = limits or pacs.Limits()
    security = security or addresses.Security()
    if security.tls and address.url.startswith('http://'):
      raise errors.UsageError(
        f'--tls: an address that begins with https:// is required, found {address}.'
      )
    if security.has_secret:
      if not address.is_protected:
        raise errors.UsageError(
          f'{address}: https:// is required where a token or password is sent; over '
          'http:// everyone on the way reads it.'
        )
      security.secret()  # Found out before anything is done.
    self._session = _Session(address, security, self._limits)
    self._client = dicomweb_client.DICOMwebClient(
      address.url, session=self._session, permissive_uid=True
    )
    self._client.set_http_retry_params(retry=False)  # The session repeats.

  @property
  def name(self) -> str:
    """Its address, as messages show it."""
    return str(self._address)

  def echo(self) -> float:
    """Seconds of a search for one study."""
    start = time.monotonic()
    self._searched(lambda: self._client.search_for_studies(limit=1), 'QIDO-RS')
    return time.monotonic() - start

  def store(
    self,
    instances: Sequence[pacs.Instance],
    on_answer: Callable[[pacs.StoreAnswer], None] = lambda answer: None,
  ) -> tuple[pacs.StoreAnswer, ...]:
    """Sends instances by STOW-RS, several a request; see `pacs.Archive`."""
    answers: dict[str, pacs.StoreAnswer] = {}
    with self._session.operation():
      waiting = list(_requests(instances))
      while waiting:
        group = waiting.pop(0)
        response = self._post(group)
        if response.status_code == 413 and len(group) > 1:
          half = len(group) // 2
          waiting[:0] = [group[:half], group[half:]]
          continue
        for answer in self._answers(group, response):
          answers[answer.instance.sop_instance_uid] = answer
          on_answer(answer)
    return tuple(answers[each.sop_instance_uid] for each in instances)

  def _post(self, group: Sequence[pacs.Instance]) -> requests.Response:
    boundary = uuid.uuid4().hex
    return self._session.request(
      'POST',
      f'{self._address.url}/studies/{group[0].study_uid}',
      make_body=lambda: _Body(group, boundary),
      headers={'Content-Type': f'{_DICOM}; boundary={boundary}', 'Accept': _JSON},
      passed=(200, 202, 409, 413),
    )

  def _answers(
    self, group: Sequence[pacs.Instance], response: requests.Response
  ) -> Iterator[pacs.StoreAnswer]:
    """What a response of STOW-RS (PS3.18 10.5.3) says of each instance."""
    stored, failed = _named(response)
    for instance in group:
      uid = instance.sop_instance_uid
      if uid in failed:
        reason_code = failed[uid]
        # What is sent twice is stored once: that it is there is no failure.
        is_there = reason_code == dimse.DUPLICATE
        yield pacs.StoreAnswer(
          instance,
          pacs.Outcome.WARNING if is_there else pacs.Outcome.FAILED,
          reason_code,
          dimse.words(reason_code),
        )
      elif uid in stored:
        status = stored[uid]
        yield (
          pacs.StoreAnswer(instance, pacs.Outcome.STORED)
          if status is None
          else pacs.StoreAnswer(
            instance, pacs.Outcome.WARNING, status, dimse.words(status)
          )
        )
      elif response.status_code in (200, 202) and not failed and not stored:
        yield pacs.StoreAnswer(
          instance,
          pacs.Outcome.WARNING,
          None,
          'it took the request without a word about instances; --verify asks',
        )
      else:
        reason = _STATUSES.get(response.status_code, 'its answer does not name it')
        yield pacs.StoreAnswer(
          instance,
          pacs.Outcome.FAILED,
          None,
          f'{reason} (HTTP status {response.status_code})',
        )

  def find(
    self, study_uid: str, series_uid: str | None = None
  ) -> tuple[pacs.Listed, ...]:
    """Lists instances by QIDO-RS; see `pacs.Archive`."""
    found: dict[str, pacs.Listed] = {}
    with self._session.operation():
      while len(found) < _MOST_LISTED:
        page = self._page(study_uid, series_uid, len(found))
        listed = [self._listed(match, study_uid, series_uid) for match in page]
        new = [each for each in listed if each.sop_instance_uid not in found]
        found |= {each.sop_instance_uid: each for each in new}
        # Until nothing new comes: a server may give fewer at once than are asked for,
        # all of them, or the first ones again.
        if not new:
          break
    return tuple(found.values())

  def _page(
    self, study_uid: str, series_uid: str | None, offset: int
  ) -> list[dict[str, Any]]:
    return self._searched(
      lambda: self._client.search_for_instances(
        study_uid,
        series_uid,
        fields=[_SERIES, _SOP_INSTANCE, _SOP_CLASS],
        limit=_PAGE,
        offset=offset,
      ),
      'QIDO-RS',
      missing=[],
    )

  def _listed(
    self, match: dict[str, Any], study_uid: str, series_uid: str | None
  ) -> pacs.Listed:
    study = _value(match, _STUDY) or study_uid
    series = _value(match, _SERIES) or series_uid or ''
    instance = _value(match, _SOP_INSTANCE)
    if study != study_uid or (series_uid and series != series_uid):
      raise errors.PACSError(
        f'{self.name}: QIDO-RS answered with another study or series than was '
        'asked for.'
      )
    if not (elements.legal_uid(series) and elements.legal_uid(instance)):
      raise errors.PACSError(
        f'{self.name}: QIDO-RS answered without legal UIDs (digits and dots).'
      )
    return pacs.Listed(study_uid, series, instance, _value(match, _SOP_CLASS))

  def _searched(
    self,
    search: Callable[[], Any],
    what: str,
    missing: list[dict[str, Any]] | None = None,
  ) -> list[dict[str, Any]]:
    """Matches of a search; `missing` stands for the answer that nothing is there."""
    try:
      found = search()
    except _NotFoundError:
      if missing is None:
        raise
      return missing
    except ValueError:
      found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
      raise errors.PACSError(
        f'{self.name}: {what} answered something that is no DICOM JSON; check the path '
        'of the URL.'
      )
    return found

  def retrieve(
    self, study_uid: str, series_uid: str | None, receiver: pacs.Receiver
  ) -> None:
    """Retrieves by WADO-RS; see `pacs.Archive`."""
    url = f'{self._address.url}/studies/{study_uid}'
    if series_uid:
      url += f'/series/{series_uid}'

    def get(deadline: pacs.Deadline) -> None:
      # As it is stored; a CT gains nothing from gzip.
      response = self._session.request(
        'GET',
        url,
        headers={
          'Accept': f'{_DICOM}; transfer-syntax=*',
          'Accept-Encoding': 'identity',
        },
        stream=True,
        deadline=deadline,
      )
      with response:
        self._take_all(response, receiver, deadline)

    pacs.repeated(get, self.name, self._limits)

  def _take_all(
    self, response: requests.Response, receiver: pacs.Receiver, deadline: pacs.Deadline
  ) -> None:
    pieces = self._pieces(response, deadline)
    kind = response.headers.get('Content-Type', '')
    if kind.lower().startswith('application/dicom') and 'json' not in kind:
      path = receiver.temporary()
      with open(path, 'wb') as file:
        file.writelines(pieces)
      receiver.take(path)
      return
    boundary = re.search(r'boundary="?([^";,]+)', kind, re.IGNORECASE)
    if not kind.lower().startswith('multipart/related') or not boundary:
      raise errors.PACSError(
        f'{self.name}: WADO-RS answered without DICOM files (no multipart/related with '
        'a boundary); check the path of the URL.'
      )
    message = _Multipart(pieces, boundary[1].strip().encode('latin-1'), self.name)
    while message.next_part():
      path = receiver.temporary()
      with open(path, 'wb') as file:
        message.copy_part(file)
      receiver.take(path)

  def _pieces(
    self, response: requests.Response, deadline: pacs.Deadline
  ) -> Iterator[bytes]:
    try:
      for piece in response.iter_content(_PIECE):
        deadline.left_s()
        yield piece
    except exceptions.RequestException as error:
      raise pacs.TransientError(
        f'{self.name}: the connection was lost in the middle of an answer '
        f'({type(error).__name__}).'
      ) from error

  def commit(self, instances: Sequence[pacs.Instance]) -> pacs.Commitment | None:
    """None: storage commitment is not among the services that we use of the web."""
    del instances
    return None


class _NotFoundError(errors.PACSError):
  """Status 404 or 410."""


class _Session(requests.Session):
  """Requests to one PACS: repeated where that is safe, and never redirected.

  A redirection would carry a token or a study to an address that nobody gave.
  """

  def __init__(
    self,
    address: addresses.WebAddress,
    security: addresses.Security,
    limits: pacs.Limits,
  ):
    super().__init__()
    self._name = str(address)
    self._limits = limits
    self._deadline: pacs.Deadline | None = None
    # Set in any case: without it `requests` sends what a .netrc has for the host.
    self.auth = _Auth(security)
    self._certificates: tuple[Any, Any] = (
      security.ca_file or True,
      (security.certificate_file, security.key_file)
      if security.key_file
      else security.certificate_file,
    )

  @contextlib.contextmanager
  def operation(self) -> Iterator[None]:
    """All requests within the block share the time for one operation."""
    self._deadline = pacs.Deadline(self._name, self._limits)
    try:
      yield
    finally:
      self._deadline = None

  # What dicomweb-client calls as well, with more of the original's arguments.
  def request(  # type: ignore[override]
    self,
    method: str,
    url: str,
    *,
    headers: dict[str, str] | None = None,
    make_body: Callable[[], Any] = lambda: None,
    stream: bool = False,
    passed: Sequence[int] = (),
    deadline: pacs.Deadline | None = None,
    **ignored: Any,
  ) -> requests.Response:
    """A response whose status is a success, or one of `passed`.

    Args:
      method: of HTTP.
      url: without secrets.
      headers: of the request.
      make_body: makes the body anew for each attempt.
      stream: whether the answer is read by the caller.
      passed: statuses that the caller understands.
      deadline: of an operation that the caller repeats; then it is tried once here.

    Raises:
      errors.PACSError: no such response.
    """
    del ignored
    headers = {name: text for name, text in (headers or {}).items() if name != 'Host'}

    def attempt(end: pacs.Deadline) -> requests.Response:
      response = self._once(method, url, headers, make_body(), stream, end)
      if response.status_code in passed or 200 <= response.status_code < 300:
        return response
      with response:
        raise self._refused(response)

    if deadline:
      return attempt(deadline)
    return pacs.repeated(attempt, self._name, self._limits, self._deadline)

  def _once(
    self,
    method: str,
    url: str,
    headers: dict[str, str],
    body: Any,
    stream: bool,
    deadline: pacs.Deadline,
  ) -> requests.Response:
    left_s = deadline.left_s()
    timeout = (
      min(self._limits.connect_s, left_s),
      min(self._limits.answer_s, left_s),
    )
    verify, certificate = self._certificates
    try:
      return super().request(
        method,
        url,
        headers=headers,
        data=body,
        stream=stream,
        timeout=timeout,
        verify=verify,
        cert=certificate,
        allow_redirects=False,
      )
    except exceptions.RequestException as error:
      raise self._unreachable(error) from error

  def _refused(self, response: requests.Response) -> errors.PACSError:
    status = response.status_code
    if 300 <= status < 400:
      return errors.PACSError(
        f'{self._name}: it redirects to another address (HTTP status {status}), which '
        'is not followed; give that address if you trust it.'
      )
    reason = _STATUSES.get(status, response.reason or 'no reason given')
    text = f'{self._name}: {reason} (HTTP status {status}).'
    if status in _PASSING:
      return pacs.TransientError(text, _retry_after_s(response))
    if status in (404, 410):
      return _NotFoundError(text)
    return errors.PACSError(text)

  def _unreachable(self, error: exceptions.RequestException) -> errors.PACSError:
    if isinstance(error, exceptions.SSLError):
      return errors.PACSError(
        f'{self._name}: no encrypted connection: {_innermost(error)}; give the '
        'authority of its certificate (--tls-ca), and the host name that it has.'
      )
    if isinstance(error, exceptions.ConnectTimeout):
      reason = f'no connection within {self._limits.connect_s:g} s'
    elif isinstance(error, exceptions.Timeout):
      reason = f'no answer within {self._limits.answer_s:g} s'
    elif isinstance(error, exceptions.ConnectionError):
      reason = _innermost(error)
    else:
      return errors.PACSError(
        f'{self._name}: no usable answer ({type(error).__name__}).'
      )
    return pacs.TransientError(
      f'{self._name}: cannot be reached: {reason}; check host, port and firewall.'
    )


class _Auth(auth.AuthBase):
  """Token or password of a file, read for each request: tokens expire."""

  def __init__(self, security: addresses.Security):
    self._security = security

  def __call__(self, request: Any) -> Any:
    """Adds the header where there is a secret."""
    secret = self._security.secret()
    if isinstance(secret, str):
      request.headers['Authorization'] = f'Bearer {secret}'
    elif secret:
      user, password = (part.encode('utf-8') for part in secret)
      return auth.HTTPBasicAuth(user, password)(request)
    return request


class _Body:
  """A multipart message of files, read from the disk while it is sent.

  No file of Python's: requests asks these where they are, and without an answer sends
  no Content-Length, which some servers ask for.
  """

  def __init__(self, group: Sequence[pacs.Instance], boundary: str):
    head = f'--{boundary}\r\nContent-Type: application/dicom\r\n\r\n'.encode()
    self._parts: list[bytes | pathlib.Path] = []
    self._length = 0
    for instance in group:
      self._parts += [head, instance.path, b'\r\n']
      self._length += len(head) + instance.size_bytes + 2
    end = f'--{boundary}--\r\n'.encode()
    self._parts.append(end)
    self._length += len(end)
    self._source: BinaryIO = io.BytesIO()

  def __len__(self) -> int:
    """Bytes in all, for the header Content-Length."""
    return self._length

  def __iter__(self) -> Iterator[bytes]:
    """Its pieces."""
    return iter(self.read, b'')

  def read(self, size: int = -1) -> bytes:
    """The next bytes, at most `size`; b'' at the end."""
    del size  # Larger pieces than the 16 kB that are asked for take less time.
    while True:
      if piece := self._source.read(_PIECE):
        return piece
      self._source.close()
      if not self._parts:
        self._source = io.BytesIO()
        return b''
      part = self._parts.pop(0)
      self._source = io.BytesIO(part) if isinstance(part, bytes) else open(part, 'rb')


class _Multipart:
  """Parts of a multipart message (RFC 2046) as they come, whatever their size."""

  def __init__(self, pieces: Iterator[bytes], boundary: bytes, name: str):
    self._pieces = pieces
    self._mark = b'\r\n--' + boundary
    self._data = bytearray(b'\r\n')  # The first mark may stand at the very start.
    self._name = name
    self._is_in_part = False

  def next_part(self) -> bool:
    """Goes to the content of the next part; False at the end of the message."""
    if not self._is_in_part:
      self.copy_part(None)
    while len(self._data) < 2:
      self._more()
    if self._data.startswith(b'--'):
      return False
    while (end := self._data.find(b'\r\n\r\n')) < 0:
      if len(self._data) > _MOST_HEADER_BYTES:
        raise self._malformed()
      self._more()
    del self._data[: end + 4]
    return True

  def copy_part(self, target: BinaryIO | None) -> None:
    """Writes the content up to the next mark to a file, or leaves it out."""
    overlap = len(self._mark) - 1
    start = 0
    while (found := self._data.find(self._mark, start)) < 0:
      keep = max(len(self._data) - overlap, 0)
      if target:
        target.write(memoryview(self._data)[:keep])
      del self._data[:keep]
      self._more()
    if target:
      target.write(bytes(self._data[:found]))
    del self._data[: found + len(self._mark)]
    self._is_in_part = True

  def _more(self) -> None:
    piece = next(self._pieces, None)
    if piece is None:
      raise self._malformed()
    self._data += piece

  def _malformed(self) -> errors.PACSError:
    return pacs.TransientError(
      f'{self._name}: WADO-RS answered a multipart message that is damaged or ends in '
      'the middle; nothing is kept.'
    )


def _requests(instances: Sequence[pacs.Instance]) -> Iterator[list[pacs.Instance]]:
  """Instances in groups of a request's size, each at least one."""
  group: list[pacs.Instance] = []
  size = 0
  for instance in instances:
    if group and size + instance.size_bytes > _REQUEST_BYTES:
      yield group
      group, size = [], 0
    group.append(instance)
    size += instance.size_bytes
  if group:
    yield group


def _named(
  response: requests.Response,
) -> tuple[dict[str, int | None], dict[str, int]]:
  """Of an answer to STOW-RS: stored to warning or None, failed to reason."""
  try:
    content = json.loads(response.content)
  except ValueError:
    return {}, {}
  if isinstance(content, list) and len(content) == 1:
    content = content[0]
  if not isinstance(content, dict):
    return {}, {}
  stored = {
    _value(item, _REFERENCED_INSTANCE): _number(item, _WARNING)
    for item in _items(content, _STORED_SEQUENCE)
  }
  failed = {
    _value(item, _REFERENCED_INSTANCE): _number(item, _FAILURE) or 0x0110
    for item in _items(content, _FAILED_SEQUENCE)
  }
  return stored, failed


def _items(content: dict[str, Any], tag: str) -> list[dict[str, Any]]:
  values = _values(content, tag)
  return [value for value in values if isinstance(value, dict)]


def _values(content: dict[str, Any], tag: str) -> list[Any]:
  element = content.get(tag)
  values = element.get('Value') if isinstance(element, dict) else None
  return values if isinstance(values, list) else []


def _value(content: dict[str, Any], tag: str) -> str:
  values = _values(content, tag)
  return values[0].strip(' \0') if values and isinstance(values[0], str) else ''


def _number(content: dict[str, Any], tag: str) -> int | None:
  values = _values(content, tag)
  return values[0] if values and isinstance(values[0], int) else None


def _retry_after_s(response: requests.Response) -> float | None:
  """Seconds of the header Retry-After, which is a number or a date."""
  text = response.headers.get('Retry-After', '').strip()
  if re.fullmatch('[0-9]{1,9}', text):
    return float(text)
  try:
    moment = email.utils.parsedate_to_datetime(text)
  except ValueError:
    return None
  now = datetime.datetime.now(datetime.UTC)
  return max((moment.astimezone(datetime.UTC) - now).total_seconds(), 0.0)


def _innermost(error: BaseException) -> str:
  """What the system said, without the addresses of objects that libraries add."""
  found: BaseException | None = error
  seen: list[BaseException] = []
  while found is not None and found not in seen:
    seen.append(found)
    text = getattr(found, 'verify_message', '') or getattr(found, 'strerror', None)
    if text:
      return str(text)
    inner = getattr(found, 'reason', None)
    found = (
      inner
      if isinstance(inner, BaseException)
      else (found.__cause__ or found.__context__ or _argument(found))
    )
  return type(error).__name__


def _argument(error: BaseException) -> BaseException | None:
  first = error.args[0] if error.args else None
  return first if isinstance(first, BaseException) else None
