"""Fail when the documents no longer match the project: links, names of files, the layout, the version, the wording.

python scripts/check_docs.py
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import draw_layout

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gansmith"
MOST_README_LINES = 135
COMMENTS = {".py", ".md", ".toml", ".yml", ".jinja", ".typ", ".html", ".js", ".ipynb"}

# Wording that this project avoids: private words for things that have a name in the field. A pattern a line.
AVOIDED = re.compile(
    r"""
    times[ ]real | by[ ]heart | known[ ]by[ ]the[ ]judge | \bthe[ ]judge\b | \bplayers?\b | \bquick[ ]score
    | \btold[ ](?:the|no|a|an|its|what|labels?|clusters?|nothing|ids?|of|apart|it|them|which|by|only|that|otherwise)\b
    | \b(?:is|are|was|were)[ ]told\b | \bids[ ]told\b | \bdivided[ ]labels? | \bgroups[ ]within\b
    | leave[ ](?:it|them|the[ ]\w+)[ ]away | \bset[ ](?:it[ ])?back\b | \banew\b | \bfor[ ]ever\b | \bat[ ]hand\b
    | \ba[ ]side\b | \bthat[ ]is[ ]none\b | \bno[ ]longer[ ]a[ ]number\b | \bis[ ]no[ ]number\b
    | \bnudg(?:e|es|ed)\b | \bton(?:e|es)\b | \bno(?:body|thing)[ ]heeds\b | \bunhee\w+
    | memory[ ]of[ ](?:Adam|the[ ](?:squared[ ])?gradient) | Adam's[ ](?:rate[ ]and[ ])?memory
    | slopes?[ ]in[ ]check | \brests?[ ]while\b | comes?[ ]out[ ]otherwise | knows?[ ]its[ ]images
    | \btells[ ](?:G|D)[ ](?!nothing|little) | \bin[ ]check\b | \bD[ ]judges\b
    | \bone[ ]screen\b | \bmaterial\b | \btroubles?\b | on_trouble | \bmemorises\b | collapse-(?:within|across)
    """,
    re.VERBOSE | re.IGNORECASE,
)
ALLOWED = re.compile(r'rng\("ton\w+"\)')  # names a stream of random numbers, which a new name would change
# Fields and flags of before 0.2.0, which the changelog alone may name.
RENAMED = re.compile(
    r"(?<![\w-])(?:--)?(?:z[_-]dim|[gd][_-]learning[_-]rate|first[_-]images|stop[_-]early|flip[_-]probability|penalty[_-]boost"
    r"|rate[_-]boost|clusters[_-]per[_-]label|penalty[_-]warmup|match[_-]ton|on[_-]trouble|d[_-]noise|(?:real|fake)[_-]target"
    r"|clip[_-]gradient\b|decay[_-]from|decay[_-]factor|frechet\b(?!-)(?=[`\"])|spread[_-](?:within|across)|classes[_-]drawn"
    r"|--(?:dataset|batch|r1|r2|dropout|update|balance|latent|initialisation)(?![\w-]))"
)


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def broken_links() -> Iterator[str]:
    """Yield links to files or headings, and names of files, that do not exist."""
    for document in documents():
        text, name = document.read_text(encoding="utf-8"), document.relative_to(ROOT)
        for target, heading in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", text):
            if "://" in target or target.startswith("mailto:"):
                continue
            path = document.parent / target if target else document
            if not path.exists():
                yield f"{name}: there is no {target}"
            elif heading and heading[1:] not in headings(path):
                yield f"{name}: {target or name} has no heading {heading}"
        for path in re.findall(r"`((?:src|scripts|tests|docs|notebooks)/[\w./-]+)`", text):
            if not (ROOT / path).exists():
                yield f"{name}: names {path}, which does not exist"


def headings(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as code hosts make them."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def module_names() -> set[str]:
    """Return the modules and folders of the package, but for the two that every package has."""
    found = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    return found | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def layout_errors() -> Iterator[str]:
    """Yield what the README's map and the drawing of the layout lack or have too many."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Layout$(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| (`.*?) \|", section[1], re.MULTILINE) if section else []
    named = set(re.findall(r"`([\w.]+)`", " ".join(rows)))
    for where, names in (("README.md's layout", named), ("scripts/draw_layout.py", draw_layout.module_names())):
        for name in sorted(module_names() ^ names):
            yield f"{where} {'lacks' if name in module_names() else 'names the absent'} {name}"
    if not draw_layout.OUT.is_file() or draw_layout.OUT.read_text(encoding="utf-8") != draw_layout.draw():
        yield "docs/images/layout.svg is not what scripts/draw_layout.py draws; run it"
    if len(readme.splitlines()) > MOST_README_LINES:
        yield f"README.md has {len(readme.splitlines())} lines, more than {MOST_README_LINES}"


def missing_names() -> Iterator[str]:
    """Yield public names of the package that the Python page does not mention."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    homes = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOME"
    )
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    table = page[page.index("## Names") :]
    for name in ast.literal_eval(homes):
        if f"`{name}`" not in table:
            yield f"docs/python.md: its table of names lacks {name}"


def wrong_version() -> Iterator[str]:
    """Yield a complaint unless the newest section of the changelog is of this version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    latest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    if latest is None or latest[1] != version:
        yield f"CHANGELOG.md: its newest section is not version {version}"


def avoided_wording() -> Iterator[str]:
    """Yield each line of documents, source and scripts with wording to avoid."""
    folders = [ROOT / "docs", ROOT / "src", ROOT / "scripts"]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in COMMENTS]
    for path in [*ROOT.glob("*.md"), *files]:
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = AVOIDED.search(ALLOWED.sub("", line))
            if not found and path.suffix == ".md" and path.name != "CHANGELOG.md":
                found = RENAMED.search(line)
            if found:
                yield f"{path.relative_to(ROOT)}:{number}: avoid {found[0]!r}"


CHECKS = (broken_links, layout_errors, missing_names, wrong_version, avoided_wording)

if __name__ == "__main__":
    complaints = [complaint for check in CHECKS for complaint in check()]
    print("\n".join(complaints) or f"{len(documents())} documents agree with the project")
    sys.exit(bool(complaints))
