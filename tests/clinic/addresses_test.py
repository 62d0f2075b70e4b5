"""Addresses that are taken, and what is said of others; secrets, who may read them."""

import ssl

import pytest
import trustme

from covid_tf import errors
from covid_tf.clinic import addresses


@pytest.mark.parametrize(
  'text, title, host, port',
  [
    ('PACS@host:104', 'PACS', 'host', 104),
    ('MY PACS@10.0.0.1:11112', 'MY PACS', '10.0.0.1', 11112),
    ('A:B@pacs.example.org:4242', 'A:B', 'pacs.example.org', 4242),
    (' ORTHANC@[::1]:4242 ', 'ORTHANC', '::1', 4242),
  ],
)
def test_application_entities(text, title, host, port):
  found = addresses.parse(text, '--to')
  assert found == addresses.DimseAddress(title, host, port)
  assert addresses.parse(str(found), '--to') == found


@pytest.mark.parametrize(
  'text, url, study',
  [
    ('https://host/dicom-web', 'https://host/dicom-web', None),
    ('HTTPS://host:8443/a/b/', 'https://host:8443/a/b', None),
    ('http://host', 'http://host', None),
    ('https://h/dw/studies', 'https://h/dw', None),
    ('https://h/dw/studies/1.2.3', 'https://h/dw', '1.2.3'),
    ('https://h/dw/studies/1.2.3/series/4', 'https://h/dw', '1.2.3'),
  ],
)
def test_urls(text, url, study):
  assert addresses.parse(text, '--to') == addresses.WebAddress(url, study)


@pytest.mark.parametrize(
  'text',
  [
    '',
    'host:104',
    'PACS@host',
    'PACS@host:0',
    'PACS@host:65536',
    'PACS@host:x',
    'PACS@:104',
    '@host:104',
    'A_TITLE_OF_17_XXX@host:104',
    'BACK\\SLASH@host:104',
    'PACS@ho st:104',
    'PACS@[::zz]:104',
    'ftp://host/x',
    'dicom://PACS@host:104',
    'https://',
    'https://host:port/x',
    'https://host:0/x',
    'https://host/x?token=4711',
    'https://host/x#4711',
    'https://me:4711@host/x',
    'https://host/dw/studies/..%2F4711',
  ],
)
def test_other_texts_are_refused_without_a_secret_in_the_words(text):
  with pytest.raises(errors.UsageError) as caught:
    addresses.parse(text, '--to')
  assert str(caught.value).startswith('--to') and 'required' in str(caught.value)
  assert '4711' not in str(caught.value) or '..' in text


@pytest.mark.parametrize('uid', ['', '*', '1.2.*', '../x', '1.2/3', '1' * 65, 'a.b'])
def test_what_is_no_uid_asks_for_nothing(uid):
  with pytest.raises(errors.UsageError, match='digits and dots'):
    addresses.require_uid(uid, 'STUDY_UID')
  assert addresses.require_uid(' 1.2.3 ', 'STUDY_UID') == '1.2.3'


def _file(path, text, mode=0o600):
  path.write_text(text)
  path.chmod(mode)
  return str(path)


@pytest.mark.parametrize('mode', [0o644, 0o640, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_refused(tmp_path, mode):
  token = _file(tmp_path / 'token', 'secret-4711', mode)
  with pytest.raises(errors.UsageError) as caught:
    addresses.Security(token_file=token).secret()
  assert f'{mode:04o}' in str(caught.value) and 'chmod 600' in str(caught.value)
  assert '4711' not in str(caught.value)


def test_secrets_are_read_anew(tmp_path):
  token = _file(tmp_path / 'token', 'one\n')
  security = addresses.Security(token_file=token)
  assert security.secret() == 'one'
  _file(tmp_path / 'token', 'two')
  assert security.secret() == 'two'
  password = _file(tmp_path / 'password', 'me:pass:word\n')
  assert addresses.Security(password_file=password).secret() == ('me', 'pass:word')
  assert addresses.Security().secret() is None


@pytest.mark.parametrize(
  'flag, text',
  [
    ('token_file', ''),
    ('token_file', 'two words'),
    ('token_file', 'line\nline'),
    ('token_file', 'x' * 70_000),
    ('password_file', 'nocolon'),
    ('password_file', ':empty'),
    ('password_file', 'a:b\nc:d'),
  ],
)
def test_what_is_no_secret_is_refused_without_showing_it(tmp_path, flag, text):
  path = _file(tmp_path / 'secret', text)
  with pytest.raises(errors.UsageError, match='required') as caught:
    addresses.Security(**{flag: path}).secret()
  assert not text or text not in str(caught.value)


def test_files_that_are_missing_or_do_not_fit(tmp_path):
  missing = str(tmp_path / 'missing')
  for flag in ('ca_file', 'certificate_file'):
    with pytest.raises(errors.UsageError, match='readable file'):
      addresses.Security(**{flag: missing})
  with pytest.raises(errors.UsageError, match='--tls-certificate'):
    addresses.Security(key_file=missing)
  with pytest.raises(errors.UsageError, match='one of the two'):
    addresses.Security(token_file='a', password_file='b')
  wrong = _file(tmp_path / 'wrong.pem', 'no certificate')
  with pytest.raises(errors.UsageError, match='PEM'):
    addresses.Security(ca_file=wrong).ssl_context()
  with pytest.raises(errors.UsageError, match='PEM'):
    addresses.Security(certificate_file=wrong).ssl_context()


def test_certificates_make_a_context_that_checks_names(tmp_path):
  authority = trustme.CA()
  path = str(tmp_path / 'ca.pem')
  authority.cert_pem.write_to_path(path)
  context = addresses.Security(tls=True, ca_file=path).ssl_context()
  assert context.check_hostname and len(context.get_ca_certs()) == 1


def test_whom_we_let_in(tmp_path):
  authority = trustme.CA()
  ca, own = str(tmp_path / 'ca.pem'), str(tmp_path / 'me.pem')
  authority.cert_pem.write_to_path(ca)
  authority.issue_cert('me').private_key_and_cert_chain_pem.write_to_path(own)

  def context(anonymous=False, **files):
    security = addresses.Security(tls=True, **files)
    return security.server_ssl_context(callers_anonymous=anonymous)

  strict = context(ca_file=ca, certificate_file=own)
  assert strict.verify_mode is ssl.CERT_REQUIRED and len(strict.get_ca_certs()) == 1
  assert strict.minimum_version is ssl.TLSVersion.TLSv1_2
  lenient = context(True, ca_file=ca, certificate_file=own)
  assert lenient.verify_mode is ssl.CERT_OPTIONAL
  assert context(True, certificate_file=own).verify_mode is ssl.CERT_NONE
  with pytest.raises(errors.UsageError, match='--tls-certificate: our own'):
    context(ca_file=ca)
  with pytest.raises(errors.UsageError, match='--tls-ca: the authority'):
    context(certificate_file=own)
  with pytest.raises(errors.UsageError, match='without a password'):
    context(ca_file=ca, certificate_file=ca)


def test_what_is_protected():
  for url in (
    'https://host',
    'http://localhost:8042/x',
    'http://127.0.0.1',
    'http://[::1]',
  ):
    assert addresses.WebAddress(url).is_protected
  assert not addresses.WebAddress('http://host.example').is_protected


def test_our_own_node():
  with pytest.raises(errors.UsageError, match='--aet'):
    addresses.OwnNode('MUCH_TOO_LONG_A_TITLE')
  with pytest.raises(errors.UsageError, match='--own-port'):
    addresses.OwnNode('ME', 70_000)
