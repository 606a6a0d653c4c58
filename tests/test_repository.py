"""What a repository on GitHub is read by: workflows, forms, and how to cite."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import samdeploy

yaml = pytest.importorskip("yaml", reason="pip install 'samdeploy[dev]'")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_have_few_rights_and_an_end(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 120, name
        rights = {"id-token": "write"} if name == "publish" else {"contents": "read"}
        assert job["permissions"] == rights, name


def test_scripts_that_are_named_exist() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*WORKFLOWS, ROOT / "CONTRIBUTING.md")]
    named = set(re.findall(r"\bscripts/[a-z_]+", " ".join(texts)))
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_python_that_is_promised_is_tested() -> None:
    versions = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))["jobs"]["versions"]
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert versions["strategy"]["matrix"]["python"] == promised
    (extras,) = re.findall(r'-e "\.\[(.*)\]"', str(versions["steps"]))
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == samdeploy.__version__
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])
