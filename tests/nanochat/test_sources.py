"""Every source gives its text exactly, and says what is wrong with it and where."""

from __future__ import annotations

import codecs
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.dataset import readers
from nanochat.dataset.sources import Document, Source, parse_source
from nanochat.dataset.splitting import split_python, split_text
from nanochat.dataset.stdlib_source import PIECE_CHARACTERS, StdlibSource, decoded
from nanochat.errors import DataError

LONG_TEXT = "".join(f"Line {i} of a long text, ünïcode too.\n" * 3 + "\n" for i in range(3000))


def texts(source: Source) -> list[str]:
    return [document.text for document in source.documents()]


def files(tmp_path: Path, pattern: str) -> Source:
    return parse_source(f"files:{pattern}", tmp_path)


# --- names


def test_a_pattern_without_a_kind_is_told_its_kind(tmp_path: Path) -> None:
    for spec in ("/texts/*.txt", "*.parquet", "~/texts/a.txt"):
        with pytest.raises(DataError) as caught:
            parse_source(spec, tmp_path)
        assert caught.value.fix == f"write 'files:{spec}'"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("embeded", "did you mean 'embedded'"),
        ("file:*.txt", "did you mean 'files:PATTERN'"),
        ("zzz", "no data source is called 'zzz'"),
        ("files:", "files:PATTERN"),
    ],
)
def test_unknown_sources_are_refused_with_the_alternatives(
    tmp_path: Path, spec: str, says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        parse_source(spec, tmp_path)
    assert "--data embedded" in str(caught.value.fix)
    assert "--data 'files:~/text/**/*.txt'" in str(caught.value.fix)


def test_sources_import_without_numpy_or_torch() -> None:
    program = (
        "import sys; from pathlib import Path; from nanochat.dataset.sources import parse_source; "
        "next(parse_source('embedded', Path()).documents()); "
        "assert not {'numpy', 'torch', 'tiktoken', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- embedded


def test_embedded_documents_add_up_to_their_files() -> None:
    source = StdlibSource()
    lengths = []
    for file in source.files:
        documents = list(source.documents([file]))
        assert "".join(d.text for d in documents) == decoded(file.path.read_bytes()), file.name
        assert all(d.continuous for d in documents)
        lengths += [len(d.text) for d in documents]
    assert len(source.files) > 300
    assert sum(lengths) > 5_000_000
    assert max(lengths) <= PIECE_CHARACTERS
    assert sum(lengths) / len(lengths) > PIECE_CHARACTERS / 2


def test_embedded_has_the_library_and_not_its_tests_or_packages() -> None:
    names = [file.name for file in StdlibSource().files]
    assert names == sorted(names)
    assert {"argparse.py", "json/decoder.py"} <= set(names)
    parts = {part for name in names for part in name.split("/")[:-1]}
    assert not parts & {"test", "tests", "site-packages", "dist-packages", "__pycache__"}


def test_a_library_without_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "only.py").write_text("1\n")
    with pytest.raises(DataError, match=r"no \.py files"):
        StdlibSource(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", []),
        ("a = 1\nb = 2\n", ["a = 1\nb = 2\n"]),
        ("a = 1\n# of b\nb = 23456789\n", ["a = 1\n", "# of b\nb = 23456789\n"]),
        ("a = 1; b = 2\n\x0cc = 345678901\n", ["a = 1; b = 2\n", "\x0cc = 345678901\n"]),
        ("\x0ca = 1\nb = 22222\nc = 3333333\n", ["\x0ca = 1\nb = 22222\n", "c = 3333333\n"]),
        (
            "class A:\n    x = 1\n    y = 22\n    z = 333\nend = 1\n",
            ["class A:\n    x = 1\n", "    y = 22\n", "    z = 333\n", "end = 1\n"],
        ),
        ("def broken(:\n\nx = 1\n\ny = 2\n", ["def broken(:\n\nx = 1\n\n", "y = 2\n"]),
    ],
)
def test_python_is_cut_between_statements(source: str, expected: list[str]) -> None:
    assert split_python(source, 21) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("short", ["short"]),
        ("aaaaaaa\n\nbb\ncc", ["aaaaaaa\n\n", "bb\ncc"]),
        ("aaaaaaa\nbbb\ncc", ["aaaaaaa\n", "bbb\ncc"]),
        ("a\n\nbbbbbbbbbbbb", ["a\n\nbbbbbbb", "bbbbb"]),
        ("aaaaa\r\n\r\nbbbbb", ["aaaaa\r\n\r\n", "bbbbb"]),
    ],
)
def test_text_is_cut_at_blank_lines_then_newlines_then_anywhere(
    text: str, expected: list[str]
) -> None:
    assert list(split_text(text, 10)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", "# -*- coding: latin-1 -*-\nx = 'é'\n"),
        (codecs.BOM_UTF8 + b"x = 1\n", "x = 1\n"),
        (b"x = '\xff'\n", "x = '�'\n"),
        (b"# coding: klingon\n", "# coding: klingon\n"),
    ],
)
def test_python_is_decoded_by_its_coding_line(source: bytes, expected: str) -> None:
    assert decoded(source) == expected


# --- files


def test_files_come_in_the_order_of_names_relative_to_the_fixed_folder(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/b/c.txt", "skip.bin"):
        path = tmp_path / "text" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert [f.name for f in files(tmp_path, "text/**/*.txt").files] == ["a/b/c.txt", "b.txt"]
    assert texts(files(tmp_path, "text/a/**/*")) == ["a/b/c.txt", "a/z.md"]
    assert texts(parse_source(f"files:{tmp_path}/text/a/z.md", Path("/"))) == ["a/z.md"]


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text("mine")
    assert texts(parse_source("files:~/*.txt", Path("/"))) == ["mine"]


def test_content_decides_the_identity(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("same")
    one, two = files(tmp_path, "one/*.txt"), files(tmp_path, "two/*.txt")
    assert one.identity() == two.identity()
    assert one.identity()[0][:2] == ("a.txt", 4)
    (tmp_path / "two" / "a.txt").write_text("sama")
    assert one.identity() != two.identity()


def test_plain_text_is_streamed_in_pieces_that_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CHUNK_BYTES", 1001)  # cuts through characters
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF8 + LONG_TEXT.encode())
    documents = list(files(tmp_path, "*.txt").documents())
    assert "".join(d.text for d in documents) == LONG_TEXT
    assert len(documents) == pytest.approx(len(LONG_TEXT) / readers.PIECE_CHARACTERS, rel=0.1)
    assert all(d.continuous and len(d.text) <= readers.PIECE_CHARACTERS for d in documents)
    assert all(d.text.endswith("\n\n") for d in documents)


def test_jsonl_is_a_document_a_line(tmp_path: Path) -> None:
    lines = [r'{"text": "first\nline", "id": 1}', "", r'{"text": ""}', r'{"text": "\ud800 é"}']
    (tmp_path / "a.jsonl").write_bytes(codecs.BOM_UTF8 + "\r\n".join(lines).encode())
    assert list(files(tmp_path, "*.jsonl").documents()) == [
        Document("first\nline", continuous=False),
        Document("� é", continuous=False),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_parquet_is_a_document_a_row(tmp_path: Path, kind: pa.DataType) -> None:
    rows = [f"row {i}" for i in range(1000)]
    table = pa.table({"id": range(1002), "text": pa.array([*rows, None, ""], kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    source = files(tmp_path, "*.parquet")
    assert texts(source) == rows
    assert not any(d.continuous for d in source.documents())
    assert source.text_bytes() == pytest.approx(sum(map(len, rows)), rel=0.8)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"good \xff bad", "a.txt: not UTF-8 at byte 5\n"),
        ("a.txt", codecs.BOM_UTF8 + b"x" * 2_500_000 + b"\xe9t\xe9", "at byte 2,500,003\n"),
        ("a.txt", b"x" * 999_999 + "é".encode() + b"ab\xff", "at byte 1,000,003\n"),
        ("a.md", b"cut off \xe2\x82", "a.md: not UTF-8 at byte 8\n"),
        ("a.txt", "utf-16".encode("utf-16"), "not UTF-8 at byte 0\n"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "a.jsonl:2: not UTF-8 at byte 24\n"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl:2: not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', "a.jsonl:1: no object with a string `text`"),
        ("a.jsonl", b'\n["text"]\n', "a.jsonl:2: no object"),
        ("a.jsonl", b'{"text": 5}\n', "a.jsonl:1: no object"),
        ("a.parquet", b"PAR2", "a.parquet: not a parquet file"),
        ("a.docx", b"PK", "a.docx: cannot read this kind of file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_the_place(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        texts(files(tmp_path, "*"))
    assert says in f"{caught.value.message}\n"
    assert caught.value.fix


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"body": ["x"], "id": [1]}, "no column `text`; its columns are body, id"),
        ({"text": [1, 2]}, "holds int64, not strings"),
        ({"text": pa.array([b"ok", b"\xff"]).view(pa.string())}, "row 1 is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_parquet_column_is_said(
    tmp_path: Path, table: dict[str, object], says: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=says):
        texts(files(tmp_path, "*.parquet"))


def test_empty_globs_folders_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no file matches"):
        files(tmp_path, "*.txt")
    with pytest.raises(DataError, match="folder is a folder") as caught:
        files(tmp_path, "folder")
    assert re.match(r"name the files in it.*/\*\*/\*", str(caught.value.fix))
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"gone\.txt: cannot read it"):
        files(tmp_path, "*.txt")
    (tmp_path / "nowhere").write_text("")
    source = files(tmp_path, "*.txt")
    (tmp_path / "nowhere").unlink()
    for read in (source.identity, source.text_bytes, lambda: texts(source)):
        with pytest.raises(DataError, match=r"gone\.txt: cannot read it"):
            read()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x"}))
    (tmp_path / "a.jsonl").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        files(tmp_path, "*.jsonl")
