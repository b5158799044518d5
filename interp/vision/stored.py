"""Pictures kept as bytes: nothing that a caller does to a picture reaches the one that is kept."""

from dataclasses import dataclass

from PIL import Image

from .images import open_image

_SMALL = 8_000_000  # bytes of RGB up to which a picture is kept decoded: opening it again costs nothing


@dataclass(frozen=True)
class StoredImage:
    """An upright RGB picture as bytes, decoded anew at each `open`."""

    size: tuple[int, int]
    """Width and height."""
    data: bytes
    """Rows of RGB, or, if `encoded`, a file that `open_image` makes this picture of."""
    encoded: bool = False
    profile: bytes | None = None
    """The colour profile of plain rows; a file has its own."""

    @classmethod
    def of(cls, picture: Image.Image) -> "StoredImage":
        """Keep a decoded picture."""
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
        return cls(rgb.size, rgb.tobytes(), profile=rgb.info.get("icc_profile"))

    def as_file(self, data: bytes) -> "StoredImage":
        """The same picture, kept as the file it was read from where that saves much."""
        return StoredImage(self.size, data, encoded=True) if len(data) < len(self.data) > _SMALL else self

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self.data) + len(self.profile or b"")

    def open(self) -> Image.Image:
        """The picture, decoded: the caller's own copy."""
        if self.encoded:
            return open_image(self.data).image
        picture = Image.frombytes("RGB", self.size, self.data)
        if self.profile:
            picture.info["icc_profile"] = self.profile
        return picture
