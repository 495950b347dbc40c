"""One kind of file -> its documents, in bounded memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat.dataset.document import Document, readable
from nanochat.dataset.splitting import split_text
from nanochat.errors import DataError

CHUNK_BYTES = 1_000_000
# Small enough that one piece in a hundred is a fair sample of a text of 1 MB, large enough that
# few pieces end inside a row: 16,384 characters are some 4,000 tokens.
PIECE_CHARACTERS = 16_384
PARQUET_BATCH_ROWS = 256


def read_text(path: Path) -> Iterator[Document]:
    """Plain text in continuous pieces. Raises DataError with the byte offset of bad UTF-8."""
    rest = ""
    for text in _decoded_chunks(path):
        *whole, rest = split_text(rest + text, PIECE_CHARACTERS)
        for piece in whole:
            yield Document(piece, continuous=True)
    if rest:
        yield Document(rest, continuous=True)


def read_jsonl(path: Path) -> Iterator[Document]:
    """A document per line, from its string `text`. Raises DataError with the line's number."""
    with readable(path), path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, start=1):
            start, offset = offset, offset + len(line)
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
                start = offset - len(line)
            if not line.strip():
                continue
            try:
                content = json.loads(line.decode())
            except UnicodeDecodeError as error:
                raise _not_utf8(f"{path}:{number}", start + error.start) from error
            except ValueError as error:
                raise _bad_line(path, number, f"not JSON ({error})") from error
            if not isinstance(content, dict) or not isinstance(content.get("text"), str):
                raise _bad_line(path, number, "no object with a string `text`")
            # JSON can spell halves of a surrogate pair, which no UTF-8 text can hold
            text = content["text"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if text:
                yield Document(text, continuous=False)


def read_parquet(path: Path) -> Iterator[Document]:
    """A document per row, from the column `text`, a batch of rows at a time; nulls are passed over.

    Raises DataError where the file or its column is not as it should be.
    """
    import pyarrow as pa

    with readable(path), _parquet(path) as file:
        row = 0
        try:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=["text"]):
                for value in batch.column(0):
                    text = value.as_py()
                    if text:
                        yield Document(text, continuous=False)
                    row += 1
        except (pa.ArrowException, OSError) as error:  # of a codec: an OSError
            raise DataError(f"{path}: damaged after row {row}: {error}", fix=_REMAKE) from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: row {row} is not UTF-8: {error}", fix=_REMAKE) from error


def parquet_text_bytes(path: Path) -> int:
    """Uncompressed bytes of the column `text`, from the file's footer."""
    with readable(path), _parquet(path) as file:
        column = file.schema_arrow.get_field_index("text")
        groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
        return sum(group.column(column).total_uncompressed_size for group in groups)


_REMAKE = "write the file again, or leave it out of the glob"


def _parquet(path: Path) -> Any:
    """An open ParquetFile with a text column `text`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file: {error}", fix=_REMAKE) from error
    schema = file.schema_arrow
    if "text" not in schema.names:
        file.close()
        raise DataError(
            f"{path}: no column `text`; its columns are {', '.join(schema.names)}",
            fix="rename the column that holds the text to `text`",
        )
    kind = schema.field("text").type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        file.close()
        raise DataError(
            f"{path}: the column `text` holds {kind}, not strings",
            fix="write it as strings",
        )
    return file


def _decoded_chunks(path: Path) -> Iterator[str]:
    with readable(path), path.open("rb") as file:
        data = file.read(CHUNK_BYTES)
        offset = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
        data = data[offset:]
        while data:
            more = file.read(CHUNK_BYTES)
            try:
                text, used = codecs.utf_8_decode(data, "strict", not more)
            except UnicodeDecodeError as error:
                raise _not_utf8(str(path), offset + error.start) from error
            yield text
            offset += used
            data = data[used:] + more


def _not_utf8(place: str, offset: int) -> DataError:
    return DataError(
        f"{place}: not UTF-8 at byte {offset:,}",
        fix="convert it: iconv -f LATIN1 -t UTF-8 OLD > NEW (with its real encoding for LATIN1), "
        "or leave it out of the glob",
    )


def _bad_line(path: Path, number: int, what: str) -> DataError:
    return DataError(
        f"{path}:{number}: {what}", fix='write each line as an object like {"text": "..."}'
    )
