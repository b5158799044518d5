"""The indexes of studies that the app was started with. They need no model, and anyone who sees the page may look into them."""

import weakref
from collections.abc import Sequence

from ..errors import InterpError
from ..saes.sae import Sae
from ..study.feature_index import FeatureIndex
from ..study.study import about_sae
from ..validation import shown


class StudyShelf:
    """The studies in some folders, by name. Raises InterpError for a folder without an index, and for two studies of one name."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._held: dict[str, FeatureIndex] = {}
        self._weights: weakref.WeakKeyDictionary[Sae, str] = weakref.WeakKeyDictionary()
        for folder in folders:
            found = FeatureIndex.open(folder)
            if found.name in self._held:
                raise InterpError(
                    f"Two studies have the name {shown(found.name)}. Rename the folder of one, and run its serve-index again."
                )
            self._held[found.name] = found

    @property
    def names(self) -> tuple[str, ...]:
        """The studies, the default first."""
        return tuple(self._held)

    def get(self, name: str | None) -> FeatureIndex:
        """A study by name; "" or None is the first."""
        if not self._held:
            raise InterpError(
                "No study is open here. Make one (python -m interp.study --help), then its index (serve-index), and start the app with --study FOLDER."
            )
        found = self._held.get(name or next(iter(self._held)))
        if found is None:
            raise InterpError(f"study is {shown(name)}; it must be one of {', '.join(self._held)}, or empty for the first.")
        return found

    def of(self, sae: Sae) -> str | None:
        """The first study that is of this SAE, whatever either is called; None if none is."""
        if not self._held:
            return None
        if sae not in self._weights:
            self._weights[sae] = about_sae(sae)["weights"]
        return next((name for name, found in self._held.items() if found.about["sae"]["weights"] == self._weights[sae]), None)
