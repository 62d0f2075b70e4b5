"""Puts NiiVue, one version of it, beside the reports that draw with it.

  python tools/vendor_niivue.py            # What the record beside it says, again.
  python tools/vendor_niivue.py 0.69.0     # Another version.

Asks the registry that npm is configured for, and verifies what comes: the version of
the record must be, to the bit, what it was. Needs npm.
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

from covid_tf import errors
from covid_tf import streams
from covid_tf.reports import case_viewer
from covid_tf.storage import files

_PACKAGE = '@niivue/niivue'
_SCRIPT = 'package/dist/niivue.umd.js'
_BUNDLED = 'package/dist/metafile-esm.json'  # What its build took from elsewhere.
# The package names its licence and holds no text of it; this is that of its source.
_LICENSE = """BSD 2-Clause License

Copyright (c) 2021, Niivue
All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this
   list of conditions and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice,
   this list of conditions and the following disclaimer in the documentation
   and/or other materials provided with the distribution.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"
AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""
_FONT = 'The font inside is Roboto, Copyright 2011 Google LLC, Apache License 2.0.'


def vendored(version: str, folder: pathlib.Path) -> tuple[dict[str, str], bytes, str]:
  """Fetches a version.

  Args:
    version: of NiiVue.
    folder: an empty one, for what npm leaves.

  Returns:
    (the record, the script, the licences of all that it holds).

  Raises:
    errors.UsageError: npm is missing or has no such version.
  """
  packed = json.loads(_npm(folder, 'pack', f'{_PACKAGE}@{version}', '--json'))[0]
  with tarfile.open(folder / packed['filename']) as archive:
    script, bundled, manifest = (
      archive.extractfile(name).read()
      for name in (_SCRIPT, _BUNDLED, 'package/package.json')
    )
  (folder / 'package.json').write_text('{"private": true}', 'utf-8')
  options = ('--ignore-scripts', '--omit=dev', '--no-audit', '--no-fund')
  _npm(folder, 'install', *options, f'{_PACKAGE}@{version}')
  record = {
    'package': _PACKAGE,
    'version': json.loads(manifest)['version'],
    'license': json.loads(manifest)['license'],
    'file': _SCRIPT.partition('/')[2],
    'sha256': hashlib.sha256(script).hexdigest(),
    'package_integrity': packed['integrity'],
  }
  return record, script, _licenses(version, json.loads(bundled), folder)


def _licenses(version: str, bundled: dict, folder: pathlib.Path) -> str:
  """The notices of NiiVue and of what its build holds of other packages."""
  names = set()
  for path in bundled['inputs']:
    parts = path.rpartition('node_modules/')[2].split('/')
    if 'node_modules/' in path:
      names.add('/'.join(parts[:2]) if path and parts[0][0] == '@' else parts[0])
  texts = [f'NiiVue {version} ({_PACKAGE})\n\n{_LICENSE}\n{_FONT}\n']
  for name in sorted(names):
    home = folder / 'node_modules' / name
    own = json.loads((home / 'package.json').read_text('utf-8'))
    (text,) = (
      path.read_text('utf-8')
      for path in home.iterdir()
      if path.stem.lower() in ('license', 'licence')
    )
    texts.append(f'{name} {own["version"]}\n\n{text.strip()}\n')
  return ('\n' + '-' * 72 + '\n\n').join(texts)


def _npm(folder: pathlib.Path, *arguments: str) -> str:
  try:
    done = subprocess.run(
      ['npm', *arguments], cwd=folder, capture_output=True, text=True
    )
  except FileNotFoundError:
    raise errors.UsageError('npm is required, found none; install it.') from None
  if done.returncode:
    raise errors.UsageError(f'npm {" ".join(arguments)}: {done.stderr.strip()}')
  return done.stdout


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('version', nargs='?', help='default: that of the record')
  asked = parser.parse_args().version
  before = {}
  if case_viewer.NIIVUE_RECORD.exists():
    before = json.loads(case_viewer.NIIVUE_RECORD.read_text('utf-8'))
  try:
    if not (asked or before):
      raise errors.UsageError('VERSION is required where there is no record yet.')
    with tempfile.TemporaryDirectory() as folder:
      record, script, licenses = vendored(
        asked or before['version'], pathlib.Path(folder)
      )
    if record['version'] == before.get('version') and record != before:
      raise errors.UsageError(
        f'{_PACKAGE} {record["version"]}: what {case_viewer.NIIVUE_RECORD.name} '
        f'records is required, found {record}; do not use it before you know why.'
      )
  except errors.UsageError as error:
    print(f'vendor_niivue: {error}', file=sys.stderr)
    sys.exit(error.exit_status)
  files.write_atomically(case_viewer.NIIVUE_SCRIPT, gzip.compress(script, 9, mtime=0))
  files.write_atomically(case_viewer.NIIVUE_LICENSES, licenses.encode())
  files.write_json(case_viewer.NIIVUE_RECORD, record)
  print(f'{case_viewer.NIIVUE_SCRIPT}: NiiVue {record["version"]}')


if __name__ == '__main__':
  with streams.safe_streams():
    main()
