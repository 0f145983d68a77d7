"""The pages of results say what the files beside them hold, and their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = sorted(RESULTS.glob("*.md"))


def test_the_tables_are_those_of_the_files():
    command = [sys.executable, "benchmarks/result_tables.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file_and_a_heading(page):
    for target, _, heading in (
        link.partition("#") for link in re.findall(r"\]\(([^):]+)\)", page.read_text())
    ):
        to = (page.parent / target) if target else page
        assert to.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", to.read_text(), flags=re.MULTILINE)
            names = [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles]
            assert heading in names, (target, heading)
