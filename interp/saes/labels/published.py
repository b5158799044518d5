"""Published names of SAE features: Neuronpedia's exports, and LMMs-Lab's explanations on the Hugging Face hub.

This module reads both layouts; `downloads` bounds and caches what is fetched.
"""

import functools
import gzip
import html
import io
import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

from ...errors import InterpError
from ...models.https import get, left
from ...models.hub import Dataset
from .downloads import MAX_BYTES, Row, fetched, folder_of, unnamed
from .labels import ID, MAX_UNPACKED, NUMBER, Labels, TroubleError, clean, is_neuronpedia_id

NEURONPEDIA = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
LMMS_LAB = "lmms-lab/llava-sae-explanations-5k"


def neuronpedia_labels(
    neuronpedia_id: str,
    *,
    features: int | None = None,
    base_url: str = NEURONPEDIA,
    cache: Path | None = None,
    timeout: float = 60.0,
) -> Labels:
    """Neuronpedia's exported explanations for one SAE; downloaded once, then read from `cache` (by default the hub's assets cache).

    Complete files are kept even if `timeout` seconds run out; the next attempt fetches only the rest.

    The layout was checked in Neuronpedia's documentation and in the code that writes the export, not on the bucket itself: files
    v1/{model}/{source}/explanations/batch-N.jsonl.gz of up to 1 024 rows, fields `index` (a string), `description` and
    `explanationModelName`, no scores, possibly several rows for one feature (the first counts), possibly further folders explanations-{model}
    (read only if the plain one is missing). The bucket lists which N exist.
    """
    if not base_url.startswith(("https://", "http://")):
        raise InterpError(f"base_url is {base_url!r}; it must start with https:// (or http:// for a server of your own).")
    if not is_neuronpedia_id(neuronpedia_id):
        return unnamed(f"{clean(str(neuronpedia_id))!r} is not a Neuronpedia id")
    root = base_url.rstrip("/")
    kept = folder_of(cache) / "neuronpedia" / f"{neuronpedia_id}.json"
    listing = functools.partial(_bucket_files, root, f"v1/{neuronpedia_id}/explanations")
    return fetched(f"Neuronpedia {neuronpedia_id}", kept, listing, functools.partial(_bucket_rows, root), timeout, features)


def _bucket_files(root: str, prefix: str, deadline: float) -> dict[str, int]:
    sizes: dict[str, int] = {}
    query = {"list-type": "2", "prefix": prefix}
    for _ in range(20):  # pages of 1 000 files
        page = get(f"{root}/?{urllib.parse.urlencode(query)}", 4 << 20, deadline).decode("utf-8", "replace")
        if "</ListBucketResult>" not in page:
            raise TroubleError("the answer is not a list of files")
        for entry in re.findall(r"<Contents>.*?</Contents>", page, re.DOTALL):
            key = re.search(rf"<Key>({re.escape(prefix)}(?:-[\w.-]+)?/batch-\d{{1,6}}\.jsonl\.gz)</Key>", entry, re.ASCII)
            size = re.search(r"<Size>(\d{1,15})</Size>", entry, re.ASCII)
            if key and size:
                sizes[key[1]] = int(size[1])
        more = re.search(r"<NextContinuationToken>([^<]+)<", page)
        if not more:
            break
        query["continuation-token"] = html.unescape(more[1])
    folder = min((key.rpartition("/")[0] for key in sizes), default="")
    sizes = {key: size for key, size in sizes.items() if key.rpartition("/")[0] == folder}
    if not sizes:
        raise TroubleError("Neuronpedia has no explanations for it")
    if sum(sizes.values()) > MAX_BYTES:
        raise TroubleError(f"they are {sum(sizes.values()) >> 20} MB, more than the {MAX_BYTES >> 20} MB allowed for names")
    return sizes


def _bucket_rows(root: str, key: str, size: int, deadline: float) -> tuple[list[Row], str]:
    body = get(f"{root}/{key}", size, deadline)
    if len(body) != size:
        raise EOFError
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
        text = packed.read(MAX_UNPACKED + 1)
    if len(text) > MAX_UNPACKED:
        raise TroubleError(f"{key.rpartition('/')[2]} unpacks to more than {MAX_UNPACKED >> 20} MB")
    rows, damaged = [], 0
    for line in filter(None, text.splitlines()):
        try:
            row = json.loads(line)
            number, name, by = NUMBER.fullmatch(str(row["index"])), row["description"], row.get("explanationModelName")
            rows.append((int(number[0]), clean(name or ""), f"Neuronpedia, explained by {clean(by)}" if by else "Neuronpedia"))  # type: ignore[index]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            damaged += 1
    return rows, f"{key.rpartition('/')[2]} holds {damaged} damaged lines" if damaged else ""


def explanation_labels(
    repo_id: str = LMMS_LAB,
    *,
    module: str = "model.layers.24",
    folder: str = "legacy",
    revision: str = "main",
    features: int | None = None,
    cache: Path | None = None,
    timeout: float = 120.0,
) -> Labels:
    """The explanations of one module's features in a data set on the hub; downloaded once, then read from `cache` as for Neuronpedia.

    Reads {module with _ for .}.json in any folder: the list of {"model.layers.24_feature7": "..."} that LMMs-Lab's own code writes (or one
    such dict). If there is none, it reads the parquet files of `folder`, of which only columns of words and whole numbers are fetched.

    Checked in LMMs-Lab's code: the JSON form and its two texts for "no explanation". Checked on the hub's pages of lmms-lab's data set:
    it is parquet with pictures, three files of 416 MB in "legacy" (5 000 rows) and 29 of 400 to 500 MB in "revised" (4 800). Not checked: the
    names of its columns. They are therefore recognised by their contents, and if that fails there are no names.
    """
    for what, value in (("module", module), ("folder", folder), ("revision", revision)):
        if not re.fullmatch(r"(?!.*\.\.)[A-Za-z0-9][\w.-]*", value, re.ASCII):
            raise InterpError(f"{what} is {value!r}; it must be a plain name of letters, digits, '.', '_' and '-'.")
    if not isinstance(repo_id, str) or not ID.fullmatch(repo_id):
        return unnamed(f"{clean(str(repo_id))!r} is not a data set id")
    source = "LMMs-Lab explanation" if repo_id.startswith("lmms-lab/") else f"explanation from {repo_id}"

    dataset = Dataset(repo_id, revision)

    def listing(_deadline: float) -> dict[str, int]:
        sizes = dataset.files()
        found = [key for key in sizes if key.endswith(f"/{module.replace('.', '_')}.json")]
        found = found or [key for key in sizes if f"/{folder}/" in key and key.endswith(".parquet")]
        if not found:
            raise TroubleError(f"it has no explanations of {module}")
        return {key: sizes[key] for key in found}

    def read(key: str, size: int, deadline: float) -> tuple[list[Row], str]:
        parquet = key.endswith(".parquet")
        if not parquet and size > MAX_UNPACKED:
            raise TroubleError(f"{key.rpartition('/')[2]} has more than {MAX_UNPACKED >> 20} MB")
        with dataset.open(key) as file:  # read in parts: between two text columns there are pictures
            pairs = _parquet_pairs(file, module, deadline) if parquet else _json_pairs(file.read(MAX_UNPACKED), module)
        unable = re.compile(r"Unable to produce descriptions|Explanation could not be parsed")
        return [(feature, clean(name), source) for feature, name in pairs if not unable.search(name)], ""

    kept = folder_of(cache) / "explanations" / f"{repo_id}@{revision}-{folder}-{module}.json"
    return fetched(f"{repo_id} {module}", kept, listing, read, timeout, features)


def _json_pairs(data: bytes, module: str) -> list[tuple[int, str]]:
    entries = json.loads(data)
    pairs = []
    for entry in entries if isinstance(entries, list) else [entries]:
        for key, name in entry.items():
            found = re.fullmatch(rf"{re.escape(module)}_feature({NUMBER.pattern})", key, re.ASCII)
            if found and isinstance(name, str):
                pairs.append((int(found[1]), name))
    return pairs


def _parquet_pairs(file: Any, module: str, deadline: float) -> list[tuple[int, str]]:
    import pyarrow as pa  # noqa: PLC0415 - comes with sae-lens, and only this needs it
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pq.ParquetFile(file)
    plain = [
        field.name
        for field in table.schema_arrow
        if pa.types.is_integer(field.type) or pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    if sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in plain) > MAX_UNPACKED:
        raise TroubleError(f"its texts are more than {MAX_UNPACKED >> 20} MB")
    columns: dict[str, list[Any]] = {name: [] for name in plain}
    for i in range(table.num_row_groups):
        left(deadline)
        for name, values in table.read_row_group(i, columns=plain, use_threads=False).to_pydict().items():
            columns[name] += values
    number = re.compile(rf"(?:{re.escape(module)}[_.])?(?:feature_?)?({NUMBER.pattern})", re.ASCII)
    numbers = {name: [number.fullmatch(str(value)) for value in values] for name, values in columns.items()}
    # A column of numbers must say that it holds features, and several must agree: a wrong name is worse than none.
    features = [name for name in plain if all(numbers[name]) and "feature" in f"{name.lower()} {columns[name][:1]}"]
    texts = [name for name in plain if name not in features and all(isinstance(value, str | None) for value in columns[name])]
    told = [name for name in texts if "expla" in name.lower()] or texts
    if len(told) != 1 or len({tuple(int(found[1]) for found in numbers[name] if found) for name in features}) != 1:
        raise TroubleError(f"its columns ({clean(', '.join(table.schema_arrow.names))}) are not recognised")
    return [(int(found[1]), name) for found, name in zip(numbers[features[0]], columns[told[0]], strict=True) if found and name]
