"""Preparation: from pictures of any kind and size to square uint8 images of one size, grey or RGB.

`settle` decides what is left open from a look at some of the pictures, and says why; `prepare` does it to one picture.
"""

import io
import math
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from struct import error as StructError

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from gansmith.data.archives import MAX_MEMBER_BYTES
from gansmith.errors import ConfigError, DataError, reason_of

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_MARKS = {
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP", b"BM": "BMP", b"GIF8": "GIF", b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # fmt: skip
RESIZES, COLORS = ("crop", "pad", "stretch"), ("auto", "grey", "rgb")
MIN_SIZE, MAX_SIZE, MAX_AUTO_SIZE, SIZE_STEP = 8, 128, 64, 4  # that are chosen where none is asked for
NEARLY_BLACK = 16  # of 255: where no picture reaches more, its numbers were another scale, as 0 to 1
COMMON = 0.95  # of the pictures looked at that have one size: the others are brought to it
MAX_PIXELS = 89_000_000  # of one picture
REDUCING_GAP = (
    2.0  # larger pictures are first averaged in whole blocks to so many times the size, as Pillow's thumbnails
)
MIN_CONTENT = 0.02  # mean opacity below which a picture's visible part says nothing of its ground
TRANSPARENT, COLORED = "transparent", "in color"  # what pictures may be that their images are not
_WIDE_MODES = ("I", "F")  # the beginnings of Pillow's modes of more than 8 bits
DAMAGE = (
    UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, EOFError, StructError, zlib.error,
    OverflowError, MemoryError,
)  # fmt: skip

LARGE_PIXELS = 2**24  # from which pictures are decoded one at a time, for each may take gigabytes on the way
_ONE_LARGE = threading.Lock()

Pixels = NDArray[np.uint8]
Watch = Callable[[int, int], None]  # called with the number of pictures prepared so far, and of all


@dataclass(frozen=True)
class Preparation:
    """How pictures become images; recorded in the run.

    Attributes:
        size: side of the images in pixels; 0 where it is still open.
        resize: crop the longer side, pad it with the background, or stretch to a square.
        color: grey or rgb; auto where it is still open.
        background: color under transparency and around padded pictures: white or black; auto where it is still open.
        strict: refuse pictures that cannot be read, instead of leaving out up to one in ten.
    """

    size: int = 0
    resize: str = "crop"
    color: str = "auto"
    background: str = "auto"
    strict: bool = field(default=False, compare=False)  # it changes no pixel

    def __post_init__(self) -> None:
        if self.size and not 4 <= self.size <= 1024:
            raise ConfigError(f"size is {self.size}; it must be between 4 and 1024 pixels, such as 32")
        for name, allowed in (("resize", RESIZES), ("color", COLORS), ("background", ("auto", "white", "black"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")

    @property
    def channels(self) -> int:
        return 1 if self.color == "grey" else 3

    def in_words(self) -> str:
        """Return the preparation as a sentence."""
        how = {"crop": "cropped to squares", "pad": f"padded with {self.background}", "stretch": "stretched to squares"}
        return f"prepared as {self.size}x{self.size} {self.color}, {how[self.resize]}"


@dataclass(frozen=True)
class Look:
    """What one picture says of how its set should be prepared.

    Attributes:
        width, height: in pixels, upright.
        is_grey: whether all its channels agree everywhere.
        has_transparency: whether any pixel is transparent.
        is_content_light: whether the visible pixels are light on average; None where hardly any is visible.
        is_edge_light: whether the outermost pixels are light on average.
        mode: Pillow's name of how its pixels are stored, such as RGB, P or I;16; empty where it is not known.
        pages: of its file, a TIFF; the first is the picture.
        brightest: its lightest pixel, 0 to 255.
    """

    width: int
    height: int
    is_grey: bool
    has_transparency: bool
    is_content_light: bool | None
    is_edge_light: bool = False
    mode: str = ""
    pages: int = 1
    brightest: int = 255


def decode(data: bytes) -> Image.Image:
    """Return a picture, whole and upright, as L, LA, RGB or RGBA.

    Raises DataError for anything else, damage or too many pixels.

    Of an animation the first frame counts. 16-bit and floating-point pictures are scaled by their own range.
    """
    with quiet():
        return _decode(data)[0]


def look_into(data: bytes) -> Look:
    """Return what a picture's file says of its set. Raises DataError as `decode` does."""
    with quiet():
        picture, _, mode = _decode(data)
        pages = _count_pages(data)
    brightest = 255 if "A" in picture.getbands() else int(np.max(picture.convert("L").getextrema()))
    return replace(look_at(picture), mode=mode, pages=pages, brightest=brightest)


def _count_pages(data: bytes) -> int:
    """Return 2 for a TIFF of several pages, which take long to count; 1 for other files, and where it does not say."""
    if not data.startswith((b"II", b"MM")):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            picture.seek(1)
            return 2
    except DAMAGE:  # EOFError among them, where there is one page
        return 1


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings of odd files; of all threads, so one around them all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_prepared(data: bytes, how: Preparation, seen: Counter[str] | None = None) -> "Pixels | str":
    """Return a picture's file as uint8 (C, size, size), or why it cannot be read; to be called inside `quiet`.

    A JPEG at least twice as large as needed is decoded at a half, a quarter or an eighth of its size, which libjpeg
    does in the frequencies: photographs differ by .3 to 1.2 grey levels of 255 on average from a full reduction.

    Args:
        seen: counts which of its keys pictures are, as of `lost_properties`.
    """
    try:
        picture, extent, _ = _decode(data, smallest=math.ceil(REDUCING_GAP * how.size))
        if seen:
            seen.update(lost_properties(picture, seen))
        return prepare(picture, how, extent)
    except DataError as error:
        return str(error)


def _decode(data: bytes, smallest: int = 0) -> "tuple[Image.Image, tuple[float, float], str]":
    """Return what `decode` does, its width and height, whose last pixels may be partial, and its mode in the file.

    Args:
        smallest: width and height that a JPEG may be reduced to while it is decoded; 0 not at all.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"it has {picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}")
            mode = picture.mode
            drafted = picture.draft(None, (smallest, smallest)) if smallest else None
            is_large = picture.width * picture.height > LARGE_PIXELS
            with _ONE_LARGE if is_large else nullcontext():
                found = upright(picture)
            is_as_stored = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
            return found, drafted[1][2:] if drafted and is_as_stored else found.size, mode
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"it has more than {MAX_PIXELS:,} pixels") from None
    except DAMAGE as error:
        if len(data) > MAX_MEMBER_BYTES:
            raise DataError(f"its file is larger than {MAX_MEMBER_BYTES:,} bytes") from None
        if isinstance(error, UnidentifiedImageError):
            kind = next((kind for mark, kind in _MARKS.items() if data.startswith(mark)), None)
            known = f"it is damaged, or a {kind} of bits or bands that are not read; save it as PNG of 8 bits"
            raise DataError(known if kind else f"it is none of {', '.join(FORMATS)}") from None
        raise DataError(reason_of(error)) from None


def upright(picture: Image.Image) -> Image.Image:
    """Return an open picture, loaded and turned as its EXIF orientation says, as L, LA, RGB or RGBA."""
    picture.load()
    if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:  # else a picture as it is would be copied
        return _canonical(picture)
    return _canonical(ImageOps.exif_transpose(picture))


def _canonical(picture: Image.Image) -> Image.Image:
    """Return the picture in one of four modes; palettes, CMYK and others are converted.

    Raises DataError for floats that are not all finite, which have no range.
    """
    if picture.mode.startswith(_WIDE_MODES):
        values = np.asarray(picture, dtype=np.float64)
        if not np.isfinite(values).all():
            raise DataError("some of its pixels are NaN or infinite")
        low, high = float(values.min()), float(values.max())
        if high == low:
            return Image.new("L", picture.size, _grey_level(low, picture.mode))
        scaled = (values - low) * (255.0 / (high - low))
        return Image.fromarray(scaled.round().astype(np.uint8))
    if picture.mode in ("L", "LA", "RGB", "RGBA") and "transparency" not in picture.info:
        return picture
    if picture.mode == "PA" or "transparency" in picture.info:
        return picture.convert("RGBA")
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _grey_level(value: float, mode: str) -> int:
    """Return the grey level of a picture of one value, which has no range of its own: by that of its type.

    >>> _grey_level(65535, "I;16"), _grey_level(0.2, "F"), _grey_level(51, "F")
    (255, 51, 51)
    """
    limits = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0, 2.0**31)
    limit = next((limit for limit in limits if value <= limit), value)
    return round(max(0.0, value) / limit * 255)


def unforeseen(asked: Preparation, settled: Preparation, looks: Sequence[Look]) -> Counter[str]:
    """Return a count of 0 for TRANSPARENT and COLORED each, where no one asked to lose it and no look showed it."""
    is_watched = {
        TRANSPARENT: asked.background == "auto" and not any(look.has_transparency for look in looks),
        COLORED: asked.color == "auto" and settled.color == "grey",
    }
    return Counter({what: 0 for what, may_be in is_watched.items() if may_be})


def lost_properties(picture: Image.Image, watched: Collection[str]) -> list[str]:
    """Return which of those watched, TRANSPARENT and COLORED, a decoded picture is."""
    found = []
    if TRANSPARENT in watched and picture.mode in ("LA", "RGBA"):
        found += [TRANSPARENT] if int(np.asarray(picture.getchannel("A")).min()) < 255 else []
    if COLORED in watched and picture.mode in ("RGB", "RGBA"):
        found += [] if _is_grey(_small(picture)) else [COLORED]
    return found


def lost_in_words(seen: Mapping[str, int], settled: Preparation, count: int) -> tuple[str, ...]:
    """Return a sentence on each loss that was counted."""
    found = []
    if seen.get(TRANSPARENT):
        found.append(
            f"{seen[TRANSPARENT]:,} of {count:,} pictures are transparent, and are laid over {settled.background}; "
            "--background chooses another"
        )
    if seen.get(COLORED):
        found.append(f"{seen[COLORED]:,} of {count:,} pictures are in color, and become grey; --color rgb keeps it")
    return tuple(found)


def _small(picture: Image.Image) -> NDArray[np.uint8]:
    """Return RGBA (h, w, 4), no more than 64 pixels wide or high."""
    return np.asarray(picture.convert("RGBA").resize((min(64, picture.width), min(64, picture.height))))


def _is_grey(small: NDArray[np.uint8]) -> bool:
    return bool((np.ptp(small[..., :3], axis=-1) == 0).all())


def look_at(picture: Image.Image) -> Look:
    """Return what a decoded picture says of its set."""
    small = _small(picture)
    pixels = small.astype(np.float64) / 255
    colors, alpha = pixels[..., :3], pixels[..., 3]
    is_grey = picture.mode in ("L", "LA") or _is_grey(small)
    visible = float(alpha.mean())
    is_light = None
    if visible > MIN_CONTENT:
        is_light = bool((colors.mean(axis=-1) * alpha).sum() / alpha.sum() > 0.5)
    inner = np.zeros(alpha.shape, dtype=bool)
    inner[1:-1, 1:-1] = True
    is_edge_light = bool(colors[~inner].mean() > 0.5)
    return Look(picture.width, picture.height, is_grey, bool((alpha < 1).any()), is_light, is_edge_light)


def settle(asked: Preparation, looks: Sequence[Look]) -> tuple[Preparation, tuple[str, ...]]:
    """Return the preparation with nothing left open, and a sentence for each thing a user should know.

    Args:
        looks: at some pictures of the set, at least one.
    """
    if not looks:
        raise DataError("there is no picture that can be read; give at least one")
    notices = []
    if not asked.size:
        size, reason = _common_size(looks)
        asked = replace(asked, size=size)
        if reason:
            notices.append(reason)
    elif asked.size % SIZE_STEP:
        notices.append(f"size is {asked.size}, which only fully connected networks take; others need a multiple of 4")
    if asked.color == "auto":
        asked = replace(asked, color="grey" if all(look.is_grey for look in looks) else "rgb")
    if asked.background == "auto":
        asked = replace(asked, background=_background(looks))
        if any(look.has_transparency for look in looks):
            notices.append(f"transparent pictures are laid over {asked.background}; --background chooses another")
    hidden = sum(look.has_transparency and look.is_content_light is None for look in looks)
    if 2 * hidden > len(looks):
        notices.append(
            f"{hidden} of {len(looks)} pictures looked at are transparent nearly everywhere, so hardly anything of "
            "them is seen; save them without an alpha channel to use the colors under it"
        )
    stacks = sum(look.pages > 1 for look in looks)
    if stacks:
        notices.append(f"{stacks} of {len(looks)} pictures looked at have several pages, of which the first is used")
    if any(look.mode.startswith(_WIDE_MODES) for look in looks):
        notices.append("pictures of 16 bits or of floats are scaled to 8 bits, each by its own range")
    brightest = max(look.brightest for look in looks)
    if brightest < NEARLY_BLACK:
        scale = f"; where {brightest} stands for white, save them times {255 // brightest}" if brightest else ""
        notices.append(f"its pictures reach only {brightest} of 255{scale}")
    return asked, tuple(notices)


def _background(looks: Sequence[Look]) -> str:
    """Return the ground of transparent pictures: in contrast to what they show, or as the edges of most are opaque."""
    transparent = [look for look in looks if look.has_transparency]
    if 2 * len(transparent) < len(looks):
        light_edges = sum(look.is_edge_light for look in looks if not look.has_transparency)
        return "white" if 2 * light_edges > len(looks) - len(transparent) else "black"
    light = Counter(look.is_content_light for look in transparent if look.is_content_light is not None)
    return "black" if light[True] >= light[False] else "white"


def _common_size(looks: Sequence[Look]) -> tuple[int, str]:
    """Return the size that all pictures have, but for a few, or one near theirs; and why if some are brought to it."""
    sizes = Counter((look.width, look.height) for look in looks)
    (width, height), count = sizes.most_common(1)[0]
    is_common = count >= COMMON * len(looks) and keeps_size(width, height)
    if is_common and len(sizes) == 1:
        return width, ""
    middle = sorted(min(look.width, look.height) for look in looks)[len(looks) // 2]
    nearest = SIZE_STEP * math.floor(middle / SIZE_STEP + 0.5)
    size = width if is_common else max(MIN_SIZE, min(MAX_AUTO_SIZE, nearest))
    listing = ", ".join(f"{w}x{h} ({count})" for (w, h), count in sizes.most_common(3))
    more = f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
    return size, f"pictures are {listing}{more}; prepared as {size}x{size}: --size chooses another"


def keeps_size(width: int, height: int) -> bool:
    """Return whether images of this size are trained on as they are, where no other is asked for."""
    return width == height and width % SIZE_STEP == 0 and MIN_SIZE <= width <= MAX_SIZE


def laid_over(picture: Image.Image, ground: int) -> Image.Image:
    """Return a picture over this grey level where it has transparency, else the picture itself."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    under = Image.new("RGBA", picture.size, (ground, ground, ground, 255))
    return Image.alpha_composite(under, picture.convert("RGBA")).convert("RGB")


def prepare(picture: Image.Image, how: Preparation, extent: "tuple[float, float] | None" = None) -> Pixels:
    """Return a decoded picture as uint8 (C, size, size).

    Reduction averages (Lanczos, antialiased); enlargement is Lanczos too.

    Args:
        extent: width and height of what it shows, where that is not a whole number of pixels.
    """
    mode = "L" if how.color == "grey" else "RGB"
    ground = 255 if how.background == "white" else 0
    picture = laid_over(picture, ground)
    picture = picture if picture.mode == mode else picture.convert(mode)
    side = how.size
    if picture.size != (side, side):
        if how.resize == "pad":
            if 2 * side * min(picture.size) <= max(picture.size):
                raise DataError(f"it is too narrow to be padded to {side} pixels")
            color = ground if mode == "L" else (ground, ground, ground)
            picture = ImageOps.pad(picture, (side, side), Image.Resampling.LANCZOS, color=color)
        else:
            width, height = extent or picture.size
            left, top = ((width - height) / 2, 0.0) if width > height else (0.0, (height - width) / 2)
            box = (0, 0, width, height) if how.resize == "stretch" else (left, top, width - left, height - top)
            picture = picture.resize((side, side), Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
