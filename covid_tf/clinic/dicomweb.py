"""A PACS that speaks DICOMweb (PS3.18): STOW-RS, QIDO-RS and WADO-RS.

Searches go through dicomweb-client. Storing and retrieving are done here: files are
sent as they are on disk, the answer about every instance is read also where the status
is an error, and a multipart message that ends early is refused (docs/adr, 182).
"""

from collections.abc import Callable, Iterator, Sequence
import json
import time
from typing import Any
import uuid

import dicomweb_client
import requests

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import associations
from covid_tf.clinic import multipart
from covid_tf.clinic import pacs
from covid_tf.clinic import web_session
from covid_tf.readers import elements

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
    self._session = web_session.Session(address, security, self._limits)
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
      waiting = list(multipart.groups(instances))
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
      make_body=lambda: multipart.Body(group, boundary),
      headers={'Content-Type': f'{_DICOM}; boundary={boundary}', 'Accept': _JSON},
      passed=(200, 202, 409, 413),
    )

  def _answers(
    self, group: Sequence[pacs.Instance], response: requests.Response
  ) -> Iterator[pacs.StoreAnswer]:
    """What a response of STOW-RS (PS3.18 10.5.3) says of each instance."""
    if response.ok and _is_page(response):
      raise errors.PACSError(
        f'{self.name}: STOW-RS answered with a page for people (HTML), such as one to '
        'sign in, so nothing is stored; check the path of the URL, and give '
        '--token-file or --password-file where it asks who we are.'
      )
    stored, failed = _named(response)
    for instance in group:
      uid = instance.sop_instance_uid
      if uid in failed:
        reason_code = failed[uid]
        # What is sent twice is stored once: that it is there is no failure.
        is_there = reason_code == associations.DUPLICATE
        yield pacs.StoreAnswer(
          instance,
          pacs.Outcome.WARNING if is_there else pacs.Outcome.FAILED,
          reason_code,
          associations.words(reason_code),
        )
      elif uid in stored:
        status = stored[uid]
        yield (
          pacs.StoreAnswer(instance, pacs.Outcome.STORED)
          if status is None
          else pacs.StoreAnswer(
            instance, pacs.Outcome.WARNING, status, associations.words(status)
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
        reason = web_session.STATUSES.get(
          response.status_code, 'its answer does not name it'
        )
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
    except web_session.NotFoundError:
      if missing is None:
        raise
      return missing
    except (ValueError, RecursionError):  # The latter of brackets without end.
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
    pieces = web_session.pieces(response, deadline, self.name)
    kind = response.headers.get('Content-Type', '')
    if kind.lower().startswith('application/dicom') and 'json' not in kind:
      path = receiver.temporary()
      with open(path, 'wb') as file:
        file.writelines(pieces)
      receiver.take(path)
      return
    boundary = multipart.boundary(kind)
    if not kind.lower().startswith('multipart/related') or not boundary:
      raise errors.PACSError(
        f'{self.name}: WADO-RS answered without DICOM files (no multipart/related with '
        'a boundary); check the path of the URL.'
      )
    message = multipart.Message(pieces, boundary, self.name)
    while message.next_part():
      path = receiver.temporary()
      with open(path, 'wb') as file:
        message.copy_part(file)
      receiver.take(path)

  def commit(self, instances: Sequence[pacs.Instance]) -> pacs.Commitment | None:
    """None: storage commitment is not among the services that we use of the web."""
    del instances
    return None


def _is_page(response: requests.Response) -> bool:
  """Whether an answer is HTML, whatever its header calls it."""
  kind = response.headers.get('Content-Type', '').lower()
  start = response.content[:256].lstrip(b'\xef\xbb\xbf \t\r\n').lower()
  return kind.startswith('text/html') or start.startswith((b'<!doctype html', b'<html'))


def _named(
  response: requests.Response,
) -> tuple[dict[str, int | None], dict[str, int]]:
  """Of an answer to STOW-RS: stored to warning or None, failed to reason."""
  try:
    content = json.loads(response.content)
  except (ValueError, RecursionError):
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
