"""Fail when the documents no longer match the project: links, the file map, the version, house style.

python bench/check_docs.py
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def problems() -> list[str]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        name = document.relative_to(ROOT)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (document.parent / target).exists():
                found.append(f"{name}: there is no {target}")
        for path in re.findall(r"`((?:src|bench|tests|docs)/[\w./-]+)`", text):
            if not (ROOT / path).exists():
                found.append(f"{name}: names {path}, which does not exist")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "src/gansmith").iterdir()):
        if path.suffix == ".py" and path.name not in ("__init__.py", "__main__.py") or (path / "__init__.py").exists():
            if f"`{path.name}" not in readme:
                found.append(f"README.md: the map of the files lacks {path.name}")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"^## (\d\S*)", changelog, re.MULTILINE)
    if latest is None or latest[1] != version:
        found.append(f"CHANGELOG.md: its newest section is not version {version}")
    return found


if __name__ == "__main__":
    complaints = problems()
    print("\n".join(complaints) or f"{len(DOCUMENTS)} documents agree with the project")
    sys.exit(bool(complaints))
