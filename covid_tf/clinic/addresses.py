"""Where a PACS is, and who we are to it: AET@host:port, URLs, tokens, certificates.

Everything is checked before anything is sent: a wrong address is refused in words, and
a secret is read from a file that only its owner may read, never from a flag or an
address.
"""

import dataclasses
import ipaddress
import os
import pathlib
import re
import ssl
import stat
import urllib.parse

from covid_tf import errors
from covid_tf.readers import elements

# PS3.5 section 6.2, AE: at most 16 characters of the default repertoire, no backslash;
# spaces at the ends do not count. '@' and ':' are ours: they separate the parts.
_AE_TITLE = re.compile(r'[!-?A-\[\]-~](?:[ -?A-\[\]-~]{0,14}[!-?A-\[\]-~])?')
_HOST = re.compile(r'[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?')
_EXAMPLES = 'AET@host:port (DIMSE) or https://host/dicom-web (DICOMweb)'
_MOST_SECRET_BYTES = 65_536
_DEFAULT_AE_TITLE = 'COVIDTF'


@dataclasses.dataclass(frozen=True)
class DimseAddress:
  """An application entity that speaks DIMSE.

  Attributes:
    ae_title: its AE title.
    host: name, IPv4 or IPv6 address.
    port: TCP port.
  """

  ae_title: str
  host: str
  port: int

  def __str__(self) -> str:
    host = f'[{self.host}]' if ':' in self.host else self.host
    return f'{self.ae_title}@{host}:{self.port}'


@dataclasses.dataclass(frozen=True)
class WebAddress:
  """The root of DICOMweb services.

  Attributes:
    url: without a slash at its end, user, query and fragment.
    study_uid: of the study that the given URL led into, or None.
  """

  url: str
  study_uid: str | None = None

  def __str__(self) -> str:
    return self.url

  @property
  def is_protected(self) -> bool:
    """Whether nobody on the way can read what is sent."""
    parts = urllib.parse.urlsplit(self.url)
    return parts.scheme == 'https' or _is_loopback(parts.hostname or '')


@dataclasses.dataclass(frozen=True)
class OwnNode:
  """What we are to a PACS that speaks DIMSE.

  Attributes:
    ae_title: our AE title.
    port: where we listen when a PACS opens an association to us (C-MOVE, storage
      commitment); None where it cannot.
  """

  ae_title: str = _DEFAULT_AE_TITLE
  port: int | None = None

  def __post_init__(self) -> None:
    require_ae_title(self.ae_title, '--aet')
    if self.port is not None:
      _require_port(str(self.port), '--own-port')


@dataclasses.dataclass(frozen=True)
class Security:
  """How a PACS knows us, and we it.

  Attributes:
    tls: whether DIMSE is encrypted (a URL says it itself).
    ca_file: PEM file of the authorities that the PACS's certificate must be signed by;
      None: the system's.
    certificate_file, key_file: PEM files of our own certificate and its key.
    token_file: file of a bearer token.
    password_file: file of `user:password`.
  """

  tls: bool = False
  ca_file: str | None = None
  certificate_file: str | None = None
  key_file: str | None = None
  token_file: str | None = None
  password_file: str | None = None

  def __post_init__(self) -> None:
    if self.key_file and not self.certificate_file:
      raise errors.UsageError(
        '--tls-key: its certificate is required too; give --tls-certificate.'
      )
    if self.token_file and self.password_file:
      raise errors.UsageError(
        '--token-file and --password-file: one of the two is required, found both.'
      )
    for flag, path in (('--tls-ca', self.ca_file), ('--tls-key', self.key_file)):
      if path:
        _readable(flag, path)
    if self.certificate_file:
      _readable('--tls-certificate', self.certificate_file)

  @property
  def names_files(self) -> bool:
    """Whether any file of TLS is given."""
    return bool(self.ca_file or self.certificate_file)

  @property
  def has_secret(self) -> bool:
    """Whether a token or a password is sent."""
    return bool(self.token_file or self.password_file)

  def ssl_context(self) -> ssl.SSLContext:
    """A client's context: TLS 1.2 or newer, the PACS's certificate and name checked.

    Raises:
      errors.UsageError: a file does not hold what its flag asks for.
    """
    context = self._context(ssl.Purpose.SERVER_AUTH)
    if self.certificate_file:
      self._show_certificate(context)
    return context

  def server_ssl_context(self, *, callers_anonymous: bool = False) -> ssl.SSLContext:
    """A server's context, for associations that others open to us: TLS 1.2 or newer.

    Whoever opens one shows a certificate that `ca_file` signed. The name in it is not
    checked: callers come from addresses that have none.

    Args:
      callers_anonymous: whether callers need no certificate; one that is shown is
        checked all the same where there is a `ca_file`.

    Raises:
      errors.UsageError: our certificate or their authority is not given, or a file does
        not hold what its flag asks for.
    """
    if not self.certificate_file:
      raise errors.UsageError(
        '--tls-certificate: our own certificate is required where others open '
        'associations to us with TLS; give it and its key, --tls-key.'
      )
    if not (self.ca_file or callers_anonymous):
      raise errors.UsageError(
        '--tls-ca: the authority of the certificates of those who open associations '
        'to us is required; those of the system would let everybody in.'
      )
    context = self._context(ssl.Purpose.CLIENT_AUTH)
    if self.ca_file:
      context.verify_mode = (
        ssl.CERT_OPTIONAL if callers_anonymous else ssl.CERT_REQUIRED
      )
    self._show_certificate(context)
    return context

  def _context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
    try:
      context = ssl.create_default_context(purpose, cafile=self.ca_file)
    except (ssl.SSLError, OSError):
      raise _no_pem('--tls-ca', self.ca_file, 'certificates') from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

  def _show_certificate(self, context: ssl.SSLContext) -> None:
    assert self.certificate_file
    try:
      # A key that asks for a password would wait for a person.
      context.load_cert_chain(self.certificate_file, self.key_file, password='')
    except (ssl.SSLError, OSError, ValueError):
      raise _no_pem(
        '--tls-certificate, --tls-key',
        self.certificate_file,
        'a certificate and its key without a password',
      ) from None

  def secret(self) -> tuple[str, str] | str | None:
    """(user, password), a token, or None; read anew, since tokens expire.

    Raises:
      errors.UsageError: others may read the file, or it holds no such thing.
    """
    if self.token_file:
      token = _secret_of('--token-file', self.token_file)
      if not re.fullmatch(r'[!-~]+', token):
        raise errors.UsageError(
          f'--token-file {self.token_file}: one token of printable ASCII without '
          'spaces is required; the file holds something else.'
        )
      return token
    if self.password_file:
      user, colon, password = _secret_of(
        '--password-file', self.password_file
      ).partition(':')
      if not (user and colon) or not (user + password).isprintable():
        raise errors.UsageError(
          f'--password-file {self.password_file}: one line user:password is required; '
          'the file holds something else.'
        )
      return user, password
    return None


def parse(text: str, flag: str) -> DimseAddress | WebAddress:
  """The address that a person wrote.

  Args:
    text: `AET@host:port` or a URL.
    flag: where it was written, for messages.

  Raises:
    errors.UsageError: it is neither; says what is missing, never a password in it.
  """
  text = text.strip()
  if re.match(r'https?://', text, re.IGNORECASE):
    return _web(text, flag)
  if '://' in text:
    raise errors.UsageError(
      f'{flag}: {_EXAMPLES} is required, found a URL of another kind, '
      f'{text.partition("://")[0]}://.'
    )
  title, at, place = text.rpartition('@')
  host, colon, port = place.rpartition(':')
  if not (at and colon and title and host and port):
    raise errors.UsageError(f'{flag}: {_EXAMPLES} is required, found {_shown(text)}.')
  require_ae_title(title, flag)
  return DimseAddress(title, _require_host(host, flag), _require_port(port, flag))


def require_ae_title(title: str, flag: str) -> None:
  """Raises errors.UsageError where a text is no AE title."""
  if not _AE_TITLE.fullmatch(title):
    raise errors.UsageError(
      f'{flag}: an AE title of 1 to 16 ASCII characters without backslash and @ is '
      f'required, found {_shown(title)}.'
    )


def require_uid(uid: str, name: str) -> str:
  """A UID without padding, as it may stand in a query, a URL and a file's name.

  Raises:
    errors.UsageError: it is none; a * would ask for everything.
  """
  uid = uid.strip(' \0')
  if not elements.legal_uid(uid):
    raise errors.UsageError(
      f'{name}: a UID of digits and dots, at most 64 characters, is required, found '
      f'{_shown(uid)}; `covid-tf inspect` prints those of a study.'
    )
  return uid


def _web(text: str, flag: str) -> WebAddress:
  try:
    parts = urllib.parse.urlsplit(text)
    port = parts.port
  except ValueError:
    raise errors.UsageError(
      f'{flag}: a URL such as https://host:8443/dicom-web is required; its host or '
      'port cannot be understood.'
    ) from None
  if parts.username is not None or parts.password is not None:
    raise errors.UsageError(
      f'{flag}: a URL without user and password is required: addresses are printed and '
      'logged; put them in a file, --password-file.'
    )
  if parts.query or parts.fragment:
    raise errors.UsageError(
      f'{flag}: the root of DICOMweb services is required, found a URL with a query or '
      'fragment; leave out all from ? or # on, and give tokens by --token-file.'
    )
  _require_host(parts.hostname or '', flag)
  if port == 0:
    raise errors.UsageError(f'{flag}: a port from 1 to 65535 is required, found 0.')
  root, study = _split_study(parts.path, flag)
  url = urllib.parse.urlunsplit((parts.scheme.lower(), parts.netloc, root, '', ''))
  return WebAddress(url, study)


def _split_study(path: str, flag: str) -> tuple[str, str | None]:
  """The services' root, and the study that a path leads into."""
  root, found, rest = path.rstrip('/').partition('/studies')
  if not found:
    return path.rstrip('/'), None
  study = rest.strip('/').partition('/')[0]
  if not study:
    return root, None
  return root, require_uid(urllib.parse.unquote(study), flag)


def _require_host(host: str, flag: str) -> str:
  inner = host[1:-1] if host.startswith('[') and host.endswith(']') else host
  if ':' in inner:
    try:
      return str(ipaddress.IPv6Address(inner))
    except ValueError:
      pass
  elif _HOST.fullmatch(inner):
    return inner
  raise errors.UsageError(
    f'{flag}: a host name or IP address is required, found {_shown(host)}; '
    f'the whole is {_EXAMPLES}.'
  )


def _require_port(port: str, flag: str) -> int:
  if not re.fullmatch('[0-9]{1,5}', port) or not 1 <= int(port) <= 65535:
    raise errors.UsageError(
      f'{flag}: a port from 1 to 65535 is required, found {_shown(port)}.'
    )
  return int(port)


def _is_loopback(host: str) -> bool:
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def _shown(text: str) -> str:
  """A text of a person's, short and printable."""
  return repr(text if len(text) <= 60 else text[:57] + '...')


def _readable(flag: str, path: str) -> None:
  try:
    with open(path, 'rb'):
      pass
  except OSError as error:
    raise errors.UsageError(
      f'{flag} {path}: a readable file is required, found: {error.strerror}.'
    ) from error


def _no_pem(flag: str, path: str | None, what: str) -> errors.UsageError:
  return errors.UsageError(
    f'{flag} {path}: a PEM file with {what} is required; the file holds something else.'
  )


def _secret_of(flag: str, path: str | os.PathLike[str]) -> str:
  """The text of a file that only its owner may read; never part of a message."""
  try:
    with open(path, 'rb') as file:
      mode = os.fstat(file.fileno()).st_mode
      if not stat.S_ISREG(mode):
        raise errors.UsageError(f'{flag} {path}: a regular file is required.')
      if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise errors.UsageError(
          f'{flag} {path}: a file that only its owner may read is required, found mode '
          f'{stat.S_IMODE(mode):04o}; change it: chmod 600 {pathlib.Path(path).name}'
        )
      content = file.read(_MOST_SECRET_BYTES + 1)
  except OSError as error:
    raise errors.UsageError(
      f'{flag} {path}: a readable file is required, found: {error.strerror}.'
    ) from error
  text = content.decode('utf-8', 'replace').strip()
  if not text or len(content) > _MOST_SECRET_BYTES:
    raise errors.UsageError(
      f'{flag} {path}: a secret of 1 to {_MOST_SECRET_BYTES} bytes is required, found '
      f'{"an empty file" if not text else "a larger file"}.'
    )
  return text
