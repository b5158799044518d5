"""The name of a model with an adapter: "BASE + ADAPTER", by which nothing takes a fine-tune for its base."""

_AND = " + "


def with_adapter(base: str, adapter: str) -> str:
    """What a model with an adapter is called."""
    return f"{base}{_AND}{adapter}"


def parted(name: str) -> tuple[str, str | None]:
    """The base and the adapter in the name of a model."""
    base, both, adapter = name.partition(_AND)
    return (base.strip(), adapter.strip()) if both else (name, None)
