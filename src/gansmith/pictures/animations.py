"""Animations: the training film from a run's saved grids, and walks from one sample to another.

They are GIF or WebP by Pillow, or MP4 with the extra `video`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from gansmith.data.image_files import open_picture
from gansmith.errors import GansmithError, NotFoundError
from gansmith.files import replacing
from gansmith.pictures.grids import enlarge
from gansmith.runs import RunDirectory

FRAME_MS, HOLD_MS = 200, 2_000  # each frame; the last one, so that the result stays in view
_CAPTION_PX = 22
MAX_FRAMES, MAX_PX = 500, 2_400  # that a film holds, and the width of a frame: all are in memory at once
_MAX_EQUAL_MS = 600_000  # of equal frames of a GIF together, which counts their time in 16 bits


def film_frames(run: RunDirectory) -> list[Image.Image]:
    """Return a frame for each grid the run saved, oldest first, with a caption and a bar of the images seen.

    Of more than MAX_FRAMES grids some are left out, and large ones are reduced.

    Raises NotFoundError where the run saved none.
    """
    grids = run.grids()
    step = math.ceil(len(grids) / MAX_FRAMES)  # of very many those evenly apart, the newest among them
    grids = grids[(len(grids) - 1) % step :: step] if grids else grids
    if not grids:
        raise NotFoundError(f"{run.directory} has no pictures in samples/ yet; let it train longer")
    frames = []
    for images_seen, path in grids:
        grid = enlarge(open_picture(path).convert("RGB"))
        grid.thumbnail((MAX_PX, MAX_PX), Image.Resampling.BOX)
        frame = Image.new("RGB", (grid.width, grid.height + _CAPTION_PX))
        frame.paste(grid)
        draw = ImageDraw.Draw(frame)
        text = f"{images_seen:,} images seen"
        draw.text((6, grid.height + 4), text, fill="white", font=ImageFont.load_default(size=12))
        done = min(1.0, images_seen / run.config.images)
        draw.rectangle((0, frame.height - 3, round(done * frame.width), frame.height), fill="#56B4E9")
        frames.append(frame)
    return frames


def write_film(frames: Sequence[Image.Image], path: Path, *, frame_ms: int = FRAME_MS, hold_ms: int = HOLD_MS) -> None:
    """Write an endless animation of these frames, all of one size; the last one stays for `hold_ms`.

    Raises GansmithError for a kind of file not in `FORMATS`, and for MP4 without its extra.
    """
    if path.suffix.lower() not in FORMATS:
        raise GansmithError(f"{path.name} does not end in one of {', '.join(FORMATS)}; choose one of these")
    durations = [frame_ms] * (len(frames) - 1) + [hold_ms]
    with replacing(path) as partial:
        FORMATS[path.suffix.lower()](frames, durations, partial)


def _write_gif(frames: Sequence[Image.Image], durations: Sequence[int], path: Path) -> None:
    # Pillow gives equal neighbours one frame of their summed time, which looks the same.
    frames = _told_apart(frames, durations)
    first, *rest = (frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames)
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)


def _told_apart(frames: Sequence[Image.Image], durations: Sequence[int]) -> list[Image.Image]:
    """Return the frames with another pixel in the corner where so many before are equal that their sum is too long."""
    found, total = list(frames[:1]), durations[0]
    for frame, before, duration in zip(frames[1:], frames, durations[1:], strict=False):
        total = total + duration if frame.tobytes() == before.tobytes() else duration
        if total > _MAX_EQUAL_MS:
            frame, total = frame.copy(), duration
            frame.putpixel((0, 0), (1, 1, 1) if found[-1].getpixel((0, 0)) == (0, 0, 0) else (0, 0, 0))
        found.append(frame)
    return found


def _write_webp(frames: Sequence[Image.Image], durations: Sequence[int], path: Path) -> None:
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, lossless=True)


def _write_mp4(frames: Sequence[Image.Image], durations: Sequence[int], path: Path) -> None:
    """Write H.264 with a constant rate of 50 frames a second, each picture repeated until its time is over."""
    try:
        import av
    except ModuleNotFoundError:
        raise GansmithError(
            "MP4 needs the extra `video`: pip install 'gansmith[video]', or choose .gif or .webp"
        ) from None
    rate, written, end_ms = 50, 0, 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height = (side + side % 2 for side in frames[0].size)  # the codec wants even sides
        stream.pix_fmt = "yuv420p"
        for picture, duration_ms in zip(frames, durations, strict=True):
            canvas = Image.new("RGB", (stream.width, stream.height))
            canvas.paste(picture)
            end_ms += duration_ms
            until = max(written + 1, round(end_ms * rate / 1000))
            for _ in range(written, until):
                container.mux(stream.encode(av.VideoFrame.from_image(canvas)))
            written = until
        container.mux(stream.encode(None))


FORMATS = {".gif": _write_gif, ".webp": _write_webp, ".mp4": _write_mp4}
