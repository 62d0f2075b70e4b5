"""Requests of HTTP to one PACS: repeated where that is safe, and never redirected.

Whatever fails is an errors.PACSError in words; what a later attempt may mend is a
pacs.TransientError. Secrets are read for each request and stand in a header alone.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import datetime
import email.utils
import io
import re
from typing import Any

import requests
from requests import auth
from requests import exceptions
from urllib3 import exceptions as urllib3_exceptions

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs

_PIECE = 1 << 20
# Of an answer that is read as a whole: a list of 100,000 instances takes a fifth of it.
_MOST_ANSWER_BYTES = 1 << 28
# Status of HTTP to words.
STATUSES = {
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


class NotFoundError(errors.PACSError):
  """Status 404 or 410."""


class Session(requests.Session):
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
      response = super().request(
        method,
        url,
        headers=headers,
        data=body,
        stream=True,
        timeout=timeout,
        verify=verify,
        cert=certificate,
        allow_redirects=False,
      )
    except exceptions.RequestException as error:
      raise self._unreachable(error) from error
    if not stream:
      # What it came by is closed, not the answer, which is still to be read.
      with contextlib.closing(response.raw):
        response.raw = self._whole(response, deadline)
    return response

  def _whole(self, response: requests.Response, deadline: pacs.Deadline) -> io.BytesIO:
    """All of an answer, for `requests` to read from."""
    whole = io.BytesIO()
    for piece in pieces(response, deadline, self._name):
      if whole.tell() + len(piece) > _MOST_ANSWER_BYTES:
        raise errors.PACSError(
          f'{self._name}: an answer of at most {_MOST_ANSWER_BYTES >> 20} MB is '
          'required, found a larger one; check the path of the URL.'
        )
      whole.write(piece)
    whole.seek(0)
    return whole

  def _refused(self, response: requests.Response) -> errors.PACSError:
    status = response.status_code
    if 300 <= status < 400:
      return errors.PACSError(
        f'{self._name}: it redirects to another address (HTTP status {status}), which '
        'is not followed; give that address if you trust it.'
      )
    reason = STATUSES.get(status, response.reason or 'no reason given')
    text = f'{self._name}: {reason} (HTTP status {status}).'
    if status in _PASSING:
      return pacs.TransientError(text, _retry_after_s(response))
    if status in (404, 410):
      return NotFoundError(text)
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


def pieces(
  response: requests.Response, deadline: pacs.Deadline, name: str
) -> Iterator[bytes]:
  """The body of an answer as it comes, decoded.

  A piece is what has arrived, and not a number of bytes to be waited for: a server that
  sends a byte a minute never breaks the limit of one answer, so that of the whole must
  be looked at after each.

  Args:
    response: one that was asked for with `stream`.
    deadline: of the operation.
    name: of the PACS, for messages.

  Raises:
    errors.PACSError: the time is over.
    pacs.TransientError: the connection was lost, or the answer is damaged.
  """
  try:
    while piece := response.raw.read1(_PIECE, decode_content=True):
      deadline.left_s()
      yield piece
  except urllib3_exceptions.HTTPError as error:
    raise pacs.TransientError(
      f'{name}: the connection was lost in the middle of an answer '
      f'({type(error).__name__}).'
    ) from error


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


def _retry_after_s(response: requests.Response) -> float | None:
  """Seconds of the header Retry-After, which is a number or a date."""
  text = response.headers.get('Retry-After', '').strip()
  if re.fullmatch('[0-9]{1,9}', text):
    return float(text)
  try:
    moment = email.utils.parsedate_to_datetime(text)
  except ValueError:
    return None
  if moment.tzinfo is None:  # Of the zone -0000; HTTP knows no other than UTC.
    moment = moment.replace(tzinfo=datetime.UTC)
  return max((moment - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)


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
