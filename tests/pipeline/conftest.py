"""What the tests of commands share."""

import shutil

import pytest


@pytest.fixture
def here(made, tmp_path):
    """A copy, for this test alone, of the folders that the module's `made` holds."""
    for path in made.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    return tmp_path
