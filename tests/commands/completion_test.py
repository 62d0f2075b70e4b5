"""Scripts of shells: every command and flag is in them, and the shells complete them.

A shell that is not installed skips its tests.
"""

import shutil
import subprocess

import pytest

from covid_tf import cli
from covid_tf import commands

# What is typed, and what the shell makes of it: a command, a flag, a folder, a choice.
_TYPED = {
  'covid-tf sco': 'covid-tf score',
  'covid-tf score study --thick': 'covid-tf score study --thickness-mm',
  'covid-tf score study --output res': 'covid-tf score study --output results/',
  'covid-tf completion fi': 'covid-tf completion fish',
}


@pytest.fixture(params=['bash', 'zsh', 'fish'])
def shell(request):
  return request.param


@pytest.fixture
def script(shell, capsys, tmp_path):
  """The script of a shell, in a folder and under a name where zsh looks for it."""
  assert cli.main(['completion', shell]) == 0
  path = tmp_path / 'functions' / '_covid-tf'
  path.parent.mkdir()
  path.write_text(capsys.readouterr().out)
  (tmp_path / 'work' / 'results').mkdir(parents=True)
  return path


def _require(shell):
  if shutil.which(shell) is None:
    pytest.skip(f'{shell} is not installed: its script was not read by it.')


def test_every_command_is_in_it(script):
  text = script.read_text()
  assert all(name in text for name in commands.COMMANDS)
  for flag in ('thickness-mm', 'model_base_path', 'log-file', 'config'):
    assert flag in text


def test_the_shell_reads_it_without_a_word(shell, script):
  _require(shell)
  done = subprocess.run([shell, '-n', script], capture_output=True)
  assert (done.returncode, done.stdout, done.stderr) == (0, b'', b'')


def test_the_shell_completes_commands_flags_folders_and_choices(shell, script):
  _require(shell)
  completed = {'bash': _by_bash, 'zsh': _by_zsh, 'fish': _by_fish}[shell](script)
  assert completed == list(_TYPED.values())


def _lines(*command, folder):
  done = subprocess.run(
    command,
    check=True,
    capture_output=True,
    text=True,
    cwd=folder,
    timeout=300,
    stdin=subprocess.DEVNULL,
  )
  return [line.rstrip() for line in done.stdout.splitlines()]


def _by_bash(script):
  asked = f'source {script}; set -o noglob\n'
  for line in _TYPED:
    asked += f"""
      COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
      set +o noglob; _shtab_covid_tf; set -o noglob; echo "${{COMPREPLY[@]}}"
    """
  answers = _lines('bash', '-c', asked, folder=script.parents[1] / 'work')
  # Readline, which is not asked here, adds the slash of a folder.
  return [
    line.rpartition(' ')[0] + f' {answer}' + '/' * (answer == 'results')
    for line, answer in zip(_TYPED, answers, strict=True)
  ]


def _by_fish(script):
  asked = f'source {script}\n'
  asked += '\n'.join(f"complete -C '{line}'" for line in _TYPED)
  answers = _lines(
    'fish', '--no-config', '-c', asked, folder=script.parents[1] / 'work'
  )
  return [
    line.rpartition(' ')[0] + f' {answer.partition(chr(9))[0]}'
    for line, answer in zip(_TYPED, answers, strict=True)
  ]


def _by_zsh(script):
  """As typed on a terminal of its own: Tab, and a key that leaves what stands there."""
  seen = script.parent / 'seen'
  asked = f"""
    zmodload zsh/zpty
    zpty shell 'zsh -f -i'
    zpty -w shell 'fpath=({script.parent} $fpath)'
    zpty -w shell 'autoload -Uz compinit; compinit -u -D'
    zpty -w shell 'leave() {{ print -r -- $BUFFER >> {seen}; BUFFER= }}'
    zpty -w shell "zle -N leave; bindkey '^G' leave; cd {script.parents[1] / 'work'}"
  """
  for line in _TYPED:
    asked += f"zpty -w -n shell $'{line}\\t\\x07'\n"
  asked += 'zpty -w shell exit\nwhile zpty -r shell line; do :; done'
  _lines('zsh', '-f', '-c', asked, folder=script.parent)
  return [line.rstrip() for line in seen.read_text().splitlines()]
