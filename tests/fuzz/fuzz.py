"""Coverage-guided fuzzing of one parser: python tests/fuzz/fuzz.py PARSER -max_total_time=600

Flags are libFuzzer's. It starts from the parser's valid files and its corpus. Inputs that reach new code are saved in a
folder of their own, named on the first line; one that is neither read nor refused as `parsers.py` says ends the run and
is saved there as crash-*. Copy either to tests/fuzz/corpus/PARSER, and the tests replay it from then on.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(
    include=["gansmith", "numpy.lib", "PIL", "zipfile", "tarfile", "gzip", "lzma", "scipy.io", "tomllib", "json"]
):
    from parsers import CORPUS, PARSERS, read_or_refuse


def main() -> None:
    warnings.simplefilter("ignore")  # damaged files may cause some
    name, *flags = sys.argv[1:]
    parser, folder = PARSERS[name], Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    found = folder / "found"
    found.mkdir()
    for k, data in enumerate(parser.valid()):
        (found / f"valid-{k}").write_bytes(data)
    path = folder / parser.name
    print(f"saved in {found}")

    def once(data: bytes) -> None:
        path.write_bytes(data)
        read_or_refuse(parser, path)

    kept = [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
    limits = ["-rss_limit_mb=2048", "-timeout=20", "-max_len=20000", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *limits, *flags, str(found), *kept], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
