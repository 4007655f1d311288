"""Coverage-guided fuzzing of one parser: python tests/fuzz/fuzz.py PARSER -max_total_time=600

Flags are libFuzzer's. It starts from the parser's whole files and its corpus. What finds new ways through the code is
kept in a folder of its own, named on the first line; what breaks the promise of `parsers.py` ends the run and is
written down there as crash-*. Copy either to tests/fuzz/corpus/PARSER, and the tests replay it for good.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["gansmith", "numpy.lib", "PIL", "zipfile", "gzip", "tomllib", "json"]):
    from parsers import CORPUS, PARSERS, read_or_refuse


def main() -> None:
    warnings.simplefilter("ignore")  # a refusal may come with one
    name, *flags = sys.argv[1:]
    parser, folder = PARSERS[name], Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    found = folder / "found"
    found.mkdir()
    for k, data in enumerate(parser.whole()):
        (found / f"whole-{k}").write_bytes(data)
    path = folder / parser.name
    print(f"kept in {found}")

    def once(data: bytes) -> None:
        path.write_bytes(data)
        read_or_refuse(parser, path)

    kept = [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
    limits = ["-rss_limit_mb=2048", "-timeout=20", "-max_len=20000", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *limits, *flags, str(found), *kept], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
