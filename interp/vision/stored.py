"""Pictures stored as bytes, which callers cannot change."""

from dataclasses import dataclass

from PIL import Image

from .images import open_image

_SMALL = 8_000_000  # bytes of RGB up to which a picture is kept decoded, for speed


@dataclass(frozen=True)
class StoredImage:
    """An upright RGB picture as bytes, decoded at each `open`."""

    size: tuple[int, int]
    """Width and height."""
    data: bytes
    """RGB values row by row, or, if `encoded`, a file that `open_image` decodes to this picture."""
    encoded: bool = False
    profile: bytes | None = None
    """Colour profile of RGB values; a file contains its own."""

    @classmethod
    def of(cls, picture: Image.Image) -> "StoredImage":
        """Store a decoded picture."""
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
        return cls(rgb.size, rgb.tobytes(), profile=rgb.info.get("icc_profile"))

    def as_file(self, data: bytes) -> "StoredImage":
        """The same picture, stored as the file it was read from if that is smaller and the picture is large."""
        return StoredImage(self.size, data, encoded=True) if len(data) < len(self.data) > _SMALL else self

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self.data) + len(self.profile or b"")

    def open(self) -> Image.Image:
        """A new copy of the picture, decoded."""
        if self.encoded:
            return open_image(self.data).image
        picture = Image.frombytes("RGB", self.size, self.data)
        if self.profile:
            picture.info["icc_profile"] = self.profile
        return picture
