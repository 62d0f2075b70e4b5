"""Files about the project: one version everywhere, and forms with their questions."""

import configparser
import pathlib
import re

import pytest
import yaml

from covid_tf import version

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def _yaml(name):
  return yaml.safe_load((_ROOT / name).read_text('utf-8'))


def test_every_file_states_the_version():
  changelog = (_ROOT / 'CHANGELOG.md').read_text('utf-8')
  titles = re.findall(r'^## (.*)$', changelog, re.MULTILINE)
  released = [title for title in titles if title != 'Unreleased']
  assert released[0] == version.__version__
  assert titles in (released, ['Unreleased', *released])
  assert str(_yaml('CITATION.cff')['version']) == version.__version__
  images = [
    found
    for path in (_ROOT / 'serving').rglob('*')
    if path.is_file()
    for found in re.findall(r'covid-tf-scorer:([\d.]+)', path.read_text('utf-8'))
  ]
  assert len(images) >= 3 and set(images) == {version.__version__}


def test_the_citation_has_what_its_format_requires():
  # Of the Citation File Format 1.2.0; a reference needs authors, title and type.
  citation = _yaml('CITATION.cff')
  assert citation['cff-version'] == '1.2.0' and citation['message']
  assert citation['title'].startswith('covid_tf') and citation['type'] == 'software'
  assert citation['license'] in (_ROOT / 'setup.cfg').read_text('utf-8')
  (paper,) = citation['references']
  for work in (citation, paper):
    assert work['title'] and work['authors'] and work['type']
    assert all(
      {'name'} == set(author) or {'family-names', 'given-names'} == set(author)
      for author in work['authors']
    )
  assert (paper['year'], paper['authors'][0]['family-names']) == (2020, 'Gozes')


@pytest.mark.parametrize('name', ['fault', 'proposal'])
def test_forms_have_named_questions_and_an_answer_that_is_required(name):
  form = _yaml(f'.github/ISSUE_TEMPLATE/{name}.yml')
  assert form['name'] and form['description']
  questions = [part for part in form['body'] if part['type'] != 'markdown']
  ids = [question['id'] for question in questions]
  assert len(set(ids)) == len(ids) >= 3
  assert all(question['attributes']['label'] for question in questions)
  assert any(question.get('validations', {}).get('required') for question in questions)


def test_checks_before_a_commit_download_nothing():
  (repository,) = _yaml('.pre-commit-config.yaml')['repos']
  assert repository['repo'] == 'local'
  hooks = {hook['id']: hook for hook in repository['hooks']}
  assert {'ruff', 'mypy', 'codespell'} <= set(hooks)
  assert {hook['language'] for hook in hooks.values()} == {'system'}
  setup = (_ROOT / 'setup.cfg').read_text('utf-8')
  assert all(f'    {name.split("-")[0]}>=' in setup for name in hooks)


def test_editors_indent_as_ruff_checks():
  settings = configparser.ConfigParser()
  settings.read_string('[top]\n' + (_ROOT / '.editorconfig').read_text('utf-8'))
  assert settings['*']['indent_size'] == '2'
  assert settings['*']['indent_style'] == 'space'
  project = (_ROOT / 'pyproject.toml').read_text('utf-8')
  assert f'line-length = {settings["*.py"]["max_line_length"]}' in project


def test_a_wheel_holds_every_file_of_the_package():
  setup = configparser.ConfigParser()
  setup.read(_ROOT / 'setup.cfg')
  named = set()
  for package, patterns in setup['options.package_data'].items():
    for pattern in patterns.replace(',', ' ').split():
      found = set((_ROOT / package.replace('.', '/')).glob(pattern))
      assert found, f'{package}: {pattern} names nothing'
      named |= found
  files = {
    path
    for path in (_ROOT / 'covid_tf').rglob('*')
    if path.is_file() and path.suffix not in ('.py', '.pyc') and path.name != 'BUILD'
  }
  assert files and files <= named
