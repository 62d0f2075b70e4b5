"""Scripts of shells: every command and flag is in them, and the shells read them."""

import shutil
import subprocess

import pytest

from covid_tf import cli
from covid_tf import commands


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_every_command_is_completed(shell, capsys, tmp_path):
  assert cli.main(['completion', shell]) == 0
  script = capsys.readouterr().out
  assert all(name in script for name in commands.COMMANDS)
  for flag in ('thickness-mm', 'model_base_path', 'log-file', 'config'):
    assert flag in script
  if shutil.which(shell) is None:
    pytest.skip(f'{shell} is not installed: its script was not read by it.')
  path = tmp_path / 'script'
  path.write_text(script)
  subprocess.run([shell, '-n', path], check=True)


def test_bash_offers_flags_and_folders(capsys, tmp_path):
  assert cli.main(['completion', 'bash']) == 0
  path = tmp_path / 'script'
  path.write_text(capsys.readouterr().out)
  (tmp_path / 'results').mkdir()
  asked = f"""
    source {path}
    cd {tmp_path}
    COMP_WORDS=(covid-tf score study --thick) COMP_CWORD=3
    _shtab_covid_tf; echo "${{COMPREPLY[@]}}"
    COMP_WORDS=(covid-tf score study --output res) COMP_CWORD=4
    _shtab_covid_tf; echo "${{COMPREPLY[@]}}"
  """
  done = subprocess.run(
    ['bash', '-c', asked], check=True, capture_output=True, text=True
  )
  assert done.stdout.split() == ['--thickness-mm', 'results']
