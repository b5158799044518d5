"""The blocks of the page, whose listeners yield several times."""

from typing import Any

from gradio.utils import is_prop_update

from .refusals import CheckedBlocks


class PageBlocks(CheckedBlocks):
    """`CheckedBlocks` whose components get everything that a listener yields for them, also if they are not rendered yet."""

    def handle_streaming_diffs(
        self,
        block_fn: Any,
        data: list[Any],
        session_hash: Any,
        run: Any,
        final: bool,  # noqa: FBT001
        simple_format: bool = False,  # noqa: FBT001, FBT002
    ) -> list[Any]:
        """As in gradio, but "no change" is sent as it is, not as a difference.

        The page applies differences in place to what came before. A component that is only now being rendered has not taken that yet: from the
        difference to "no change" it would get a value without its keys.
        """
        later = session_hash is not None and run in self.pending_diff_streams[session_hash]
        whole = list(data)
        sent: list[Any] = super().handle_streaming_diffs(block_fn, data, session_hash, run, final, simple_format)
        if later and not final and not simple_format:
            sent = [[["replace", [], new]] if is_prop_update(new) else change for new, change in zip(whole, sent, strict=True)]
        return sent
