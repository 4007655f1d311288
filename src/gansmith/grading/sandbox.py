"""Running a command of a hand-in within bounds: time, memory, processes, disk, and what the system can isolate.

Three kinds of sandbox, the first that works here is taken:

- bubblewrap: no network; only the system's programs, this Python and the hand-in's own folder exist, and only that
  folder can be written; processes outside cannot be seen, and all of the hand-in end together.
- unshare (util-linux): no network; every file of this user can be read, and only the own folder can be written;
  processes outside cannot be seen, and all of the hand-in end together. Of folders that root alone can enter, as its
  home is, only what Python needs is left.
- limits: what `worker.limit` sets and this module watches. The network and all files of this user are open, and a
  process that starts a session of its own may survive. Enough for mistakes; not for malice.

All share the kernel of this machine: none is a virtual machine.

For root, each hand-in runs as a user of its own, whom no account has: the system's limit of processes does not hold for
root, and watching alone is too slow for a program that does nothing but start itself again.
"""

import contextlib
import functools
import json
import math
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gansmith.errors import ConfigError, GansmithError
from gansmith.grading.settings import Settings
from gansmith.grading.worker import NO_LIBRARY, REFUSED

WATCH_S = 0.1  # between two looks at what a hand-in takes
DISK_S = 1.0  # between two looks at what it has written
MAX_FILES = 20_000
THREADS = 4  # of a process, on average
TAIL = 4_000  # of what it printed that are kept, in bytes
SHM_BYTES = 1 << 26
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
ETC = ("ld.so.cache", "alternatives", "localtime", "fonts", "passwd", "nsswitch.conf")

USERS = range(61_184, 65_184)  # for root; systemd has reserved these for users without an account

_PROBE = "import sys, gansmith.grading.worker; open('prefix', 'w', encoding='utf-8').write(sys.base_prefix)"

# For sh: makes every file system read-only but $1, hides the folders $2, leaves of those in $3 only those in $4 (a line
# each), and runs what follows, as a child: the first process of a namespace does not end by the signal that limits its
# time. Exits with 125 where some file system could not be made read-only. With -n, mount keeps no
# list of mounts in /run, which users may not write.
_UNSHARED = r"""
work=$1; hidden=$2; closed=$3; kept=$4; shift 4; umask 022; set -f; k=0; IFS='
'
mount -n --make-rprivate / && mount -n -t tmpfs -o size=64m tmpfs /dev/shm || exit 125
mount -n --bind "$work" "$work" || exit 125
for folder in $kept; do mkdir /dev/shm/$((k += 1)) && mount -n --bind "$folder" /dev/shm/$k || exit 125; done
for folder in $closed; do mount -n -t tmpfs -o mode=755,size=1m tmpfs "$folder" || exit 125; done
k=0
for folder in $kept; do
    mkdir -p "$folder" && mount -n --move /dev/shm/$((k += 1)) "$folder" && rmdir /dev/shm/$k || exit 125
done
for folder in $hidden; do if [ -d "$folder" ]; then mount -n -t tmpfs -o ro tmpfs "$folder" || exit 125; fi; done
unset IFS
while read -r _ target _; do
    mount -n -o remount,bind,ro "$(printf %b "$target")" 2>/dev/null
done < /proc/self/mounts
mount -n -o remount,bind,rw "$work" && mount -n -o remount,bind,rw /dev/shm || exit 125
for open in $(awk '{flags[$2] = $4} END {for (on in flags) if (flags[on] ~ /^rw/) print on}' /proc/self/mounts); do
    open=$(printf %b "$open")
    case $open in "$work"|/proc|/dev/shm) ;; *) exit 125 ;; esac
done
cd "$work" || exit 125
"$@"
exit $?
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        ended: "" where it exited with 0, else crashed, library missing, generator refused, out of time, out of memory,
            too many processes, too much disk.
        reason: a sentence or the last line printed; empty where it exited with 0.
        output: the last of what it printed.
        code: its exit code.
        seconds: by the clock.
    """

    ended: str
    reason: str
    output: str
    code: int
    seconds: float


def bubblewrap(work: Path, hidden: Sequence[Path]) -> list[str]:
    """Return the words before a command that run it in bubblewrap; what is not named here does not exist inside."""
    words = "bwrap --unshare-ipc --unshare-pid --unshare-net --unshare-uts --die-with-parent --new-session".split()
    words += (
        "--cap-drop ALL --cap-add CAP_SETUID --cap-add CAP_SETGID" if is_root() else "--unshare-user --cap-drop ALL"
    ).split()
    memory = f"--perms 1777 --size {SHM_BYTES} --tmpfs"
    words += f"{memory} /tmp --proc /proc --dev /dev {memory} /dev/shm".split()
    bound = [*SYSTEM, *(f"/etc/{name}" for name in ETC), *python_folders()]
    for folder in sorted(
        {str(parent) for path in (*bound, str(work)) for parent in Path(path).parents} - {"/", "/tmp"}
    ):
        words += ["--perms", "0755", "--dir", folder]
    for path in bound:
        words += ["--ro-bind-try", path, path]
    words += ["--bind", str(work), str(work), "--chdir", str(work)]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", *_as_other_user(work)]


def unshare(work: Path, hidden: Sequence[Path]) -> list[str]:
    """Return the words before a command that run it in namespaces of its own, with all but `work` read-only."""
    words = "unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc".split()
    words += [] if is_root() else ["--user", "--map-root-user"]
    needed = {folder: _closed_around(folder, hidden) for folder in (*python_folders(), str(work))}
    kept = [folder for folder, closed in needed.items() if closed]
    closed = dict.fromkeys(needed[folder] for folder in kept)  # none is inside another: each is an outermost one
    elsewhere = [str(folder) for folder in hidden if not any(map(folder.is_relative_to, closed))]
    words += ["sh", "-c", _UNSHARED, "sh", str(work), *map("\n".join, (elsewhere, closed, kept))]
    drop = "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs".split()
    return [*words, *(_as_other_user(work) or drop)]


def _closed_around(folder: str, hidden: Sequence[Path]) -> str:
    """Return the outermost folder around this one that is hidden or, for root's users, cannot be entered; or ""."""
    return next(
        (
            str(path)
            for path in reversed(Path(folder).parents)
            if path in hidden or (is_root() and not path.stat().st_mode & stat.S_IXOTH)
        ),
        "",
    )


def limits(work: Path, hidden: Sequence[Path]) -> list[str]:
    """Return no words, or for root those that change the user: only the limits that `worker` sets hold."""
    return _as_other_user(work)


def is_root() -> bool:
    """Return whether this process may do everything."""
    return getattr(os, "geteuid", lambda: 1)() == 0


def user_of(work: Path) -> int | None:
    """Return the user that runs what works in a folder: one of its own for root, else this one, None on Windows."""
    if is_root():
        return USERS[zlib.crc32(str(work).encode()) % len(USERS)]
    return getattr(os, "getuid", lambda: None)()


def _as_other_user(work: Path) -> list[str]:
    """Return the words before a command that change the user; none where this one is not root."""
    user = user_of(work)
    change = f"setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs"
    return change.split() if is_root() else []


def hand_over(work: Path) -> None:
    """Give a folder and all in it to the user that will work in it, where that is another one."""
    if is_root():
        user = user_of(work)
        assert user is not None
        for root, folders, names in os.walk(work):
            for path in (root, *(os.path.join(root, name) for name in (*folders, *names))):
                os.chown(path, user, user, follow_symlinks=False)
        work.chmod(0o711)  # bubblewrap enters it as root without its privileges


SANDBOXES: dict[str, Callable[[Path, Sequence[Path]], list[str]]] = {
    "bubblewrap": bubblewrap,
    "unshare": unshare,
    "limits": limits,
}
MEANING = {
    "bubblewrap": "no network, no files but the system's and its own, none of them written but its own",
    "unshare": "no network, no files written but its own; it can read this user's files, and reach this user's sockets",
    "limits": "time, memory and processes are limited; THE NETWORK AND ALL FILES OF THIS USER ARE OPEN TO IT",
}


def find_sandbox(wanted: str = "auto") -> str:
    """Return the name of the best sandbox that works here, or the wanted one.

    Raises ConfigError for an unknown name, GansmithError where the wanted one does not work here.
    """
    if wanted not in ("auto", *SANDBOXES):
        raise ConfigError(f"sandbox is {wanted!r}; it must be auto, {', '.join(SANDBOXES)}")
    if find_spec("psutil") is None:
        raise GansmithError("hand-ins are watched with psutil, which is missing; run: pip install 'gansmith[teaching]'")
    for name in SANDBOXES if wanted == "auto" else [wanted]:
        if works(name):
            return name
    if wanted in ("auto", "limits"):
        raise GansmithError(
            "no sandbox works here; for root, hand-ins run as other users, who must be able to read this Python: "
            "install bubblewrap, allow namespaces, or grade as another user"
        )
    raise GansmithError(
        f"the sandbox {wanted} does not work here (is it installed, are user namespaces allowed?); install it, or "
        "accept less with --sandbox limits"
    )


@functools.cache
def works(name: str) -> bool:
    """Return whether the worker can be loaded in a sandbox of this name, by the user as whom hand-ins run."""
    with TemporaryDirectory(prefix="gansmith-") as folder:
        place = Path(folder).resolve()
        place.chmod(0o711)
        work = place / "0"  # in a folder that is hidden, as hand-ins are
        work.mkdir()
        environment = _environment(work)
        hand_over(work)
        command = [*SANDBOXES[name](work, (place,)), sys.executable, "-P", "-c", _PROBE]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                command, cwd=work, env=environment, capture_output=True, timeout=30, stdin=subprocess.DEVNULL
            )
            return done.returncode == 0 and (work / "prefix").read_text("utf-8") == sys.base_prefix
        return False


def run_bounded(
    words: Sequence[str],
    work: Path,
    settings: Settings,
    *,
    sandbox: str,
    hidden: Sequence[Path] = (),
    stop: threading.Event | None = None,
    jobs: int = 1,
) -> Outcome:
    """Run the worker with these words, and wait until it and all it started have ended.

    Args:
        work: the one folder it may write in; what it prints goes to the file beside it.
        hidden: folders of which it must see no more than `work`: that of all hand-ins, that in which they run.
        stop: ends it when it is set.
        jobs: hand-ins that run at once, whose threads may count together.
    """
    bounds = {
        "seconds": settings.seconds,
        "memory_mb": settings.memory_mb,
        "threads": _threads_of(user_of(work)) + THREADS * settings.processes * jobs,
        "disk_mb": settings.disk_mb,
    }
    command = [sys.executable, "-P", "-m", "gansmith.grading.worker", json.dumps(bounds), *words]
    environment = _environment(work)
    hand_over(work)
    printed = work.with_name(f"{work.name}.txt")
    started_at = time.monotonic()
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [*SANDBOXES[sandbox](work, hidden), *command],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            breach = _watch(process, work, settings, stop or threading.Event())
        finally:
            _end(process, work)
    text = _tail(printed).replace(f"{work}{os.sep}", "")
    if process.returncode and printed.stat().st_size >= settings.disk_mb << 20:
        breach = "too much disk", f"it prints more than {settings.disk_mb:,} MB"
    ended, reason = breach or _reason(process.returncode, text)
    return Outcome(ended, reason, text, process.returncode, time.monotonic() - started_at)


def _environment(work: Path) -> dict[str, str]:
    """Return the environment of a hand-in: nothing of the teacher's but where programs are."""
    home = work / ".home"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(_import_folders()),
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "USER": "student",
        "LOGNAME": "student",
        "LANG": "C.UTF-8",
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # Windows does not ask LANG
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",  # what was printed last is the error
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GANSMITH_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(home),
        "KERAS_BACKEND": "tensorflow" if find_spec("tensorflow") else "torch",
    }


def _import_folders() -> list[str]:
    """Return the folders that packages are imported from: this one's, and those of this Python; no working folder."""
    own = str(Path(__file__).parents[2])
    prefixes = tuple({sys.prefix, sys.base_prefix})
    libraries = [path for path in sys.path if path.startswith(prefixes) or Path(path).name.endswith("-packages")]
    return list(dict.fromkeys([own, *libraries]))


def python_folders() -> list[str]:
    """Return the folders that this Python and its packages need."""
    folders = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1]), *_import_folders()]
    return [folder for folder in dict.fromkeys(folders) if Path(folder).is_dir() and folder != "/"]


def _threads_of(user: int | None) -> int:
    """Return how many threads a user has, all programs together: the limit is on their sum."""
    import psutil

    total = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if user is None or process.uids().real == user:
                total += _threads(process)
    return total


def _watch(
    process: "subprocess.Popen[bytes]", work: Path, settings: Settings, stop: threading.Event
) -> tuple[str, str] | None:
    """Wait for the process to end; returns early with what is exceeded, and a sentence."""
    started_at = looked_at = time.monotonic()
    while process.poll() is None:
        now = time.monotonic()
        if stop.is_set():
            return "stopped", "grading was interrupted"
        if now - started_at > 2 * settings.seconds:
            return "out of time", f"it takes more than {2 * settings.seconds} seconds by the clock"
        found = _processes(process.pid)
        if len(found) > settings.processes or sum(map(_threads, found)) > THREADS * settings.processes:
            most = f"{settings.processes} processes or {THREADS * settings.processes} threads"
            return "too many processes", f"it runs more than {most} at once"
        limit = settings.memory_mb << 20
        if sum(map(_resident, found)) > limit and sum(map(_memory, found)) > limit:  # exactness takes milliseconds
            return "out of memory", f"its processes take more than {settings.memory_mb:,} MB"
        if now - looked_at > DISK_S:
            looked_at = now
            if _is_over(work, settings.disk_mb << 20, found):
                return "too much disk", f"it writes more than {settings.disk_mb:,} MB or {MAX_FILES:,} files"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(WATCH_S)
    return None


def _processes(pid: int) -> list[Any]:
    """Return a process and all that it started."""
    import psutil

    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _threads(process: Any) -> int:
    """Return its number of threads; 0 where it has ended."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return int(process.num_threads())
    return 0


def _resident(process: Any) -> int:
    """Return its memory in bytes, with all that it shares; 0 where it has ended."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _memory(process: Any) -> int:
    """Return its memory in bytes, less what it shares with others; 0 where it has ended."""
    import psutil

    with contextlib.suppress(psutil.Error):
        with contextlib.suppress(OSError, ValueError):  # its own share of what it has mapped together with others, too
            parts = dict(
                line.split(":") for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
            )
            return sum(int(parts[name].split()[0]) << 10 for name in ("Pss_Anon", "Pss_Shmem") if name in parts)
        found = process.memory_info()
        return int(found.rss - getattr(found, "shared", 0))
    return 0


def _is_over(folder: Path, most: int, processes: Sequence[Any]) -> bool:
    """Return whether the files in a folder, and those removed that processes keep open, take too many bytes."""
    total, count = float(_removed_bytes(processes)), 0
    for size in _sizes(folder):
        total, count = total + size, count + 1
        if total > most or count > MAX_FILES:
            return True
    return False


def _removed_bytes(processes: Sequence[Any]) -> int:
    """Return the bytes of files that processes have removed and keep open, on a disk or in memory."""
    kept: dict[tuple[int, int], int] = {}
    for process in processes:
        with contextlib.suppress(OSError):
            opened = [found for entry in os.scandir(f"/proc/{process.pid}/fd") if (found := _stat_of(entry.path))]
            removed = [one for one in opened if one.st_nlink == 0 and stat.S_ISREG(one.st_mode)]
            kept |= {(one.st_dev, one.st_ino): one.st_blocks * 512 for one in removed}
    return sum(kept.values())


def _stat_of(path: str) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.stat(path)
    return None


def _sizes(folder: Path) -> Iterator[float]:
    """Yield the size of every file in a folder; infinite for one that cannot be looked at, which may hold anything."""
    folders = [str(folder)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except (FileNotFoundError, NotADirectoryError):  # removed meanwhile
            continue
        except OSError:  # closed, or too deep for a path
            yield math.inf
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError:
                yield math.inf
                continue
            yield max(found.st_size, 512 * getattr(found, "st_blocks", 0))  # space may be taken beyond the end
            if stat.S_ISDIR(found.st_mode):
                folders.append(entry.path)


def _end(process: "subprocess.Popen[bytes]", work: Path) -> None:
    """End a process and all that it started, and wait until they are gone.

    Without namespaces, what has left its session is known by its environment, if it has not changed that.
    """
    import psutil

    children = _processes(process.pid) if process.poll() is None else []
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):  # its whole session at once, so that none can start another
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for _ in range(10):
        left = [*children, *_processes_of(work)]
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        children = []
        psutil.wait_procs(left, timeout=10)
        if not left:
            return


def _processes_of(work: Path) -> list[Any]:
    """Return the processes that have the environment of a hand-in."""
    import psutil

    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if one.environ().get("HOME") == str(work / ".home"):
                found.append(one)
    return found


def _tail(path: Path) -> str:
    """Return the end of what was printed, without what a terminal would take for commands."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        text = file.read(TAIL).decode("utf-8", errors="replace")
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")


def _reason(code: int, text: str) -> tuple[str, str]:
    """Return how a command ended by itself, and why."""
    if code == 0:
        return "", ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1][:240] if lines else "it printed nothing"
    if code == REFUSED:
        return "generator refused", last
    needed = re.fullmatch(r"needs ([A-Za-z_][A-Za-z0-9_]{0,60}), which is not installed here", last)
    if code == NO_LIBRARY and needed and find_spec(needed[1]) is None:  # a hand-in may end with this code, too
        return "library missing", last
    number = -code if code < 0 else code - 128
    if number == getattr(signal, "SIGXCPU", 0):
        return "out of time", "it takes more of a core's time than allowed"
    if number == getattr(signal, "SIGKILL", 0):
        return "crashed", "it was killed, by itself or by the system for lack of memory"
    if any(word in last for word in ("MemoryError", "allocate memory", "bad_alloc")):
        return "out of memory", last
    if "Resource temporarily unavailable" in last:
        return "too many processes", last
    return "crashed", last


def copy_fonts(work: Path) -> None:
    """Give a hand-in Matplotlib's list of fonts, which it would else spend seconds on making."""
    import matplotlib

    for file in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
        (work / ".home").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, work / ".home")
