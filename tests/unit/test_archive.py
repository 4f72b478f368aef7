"""Where records of purged instances are kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lungfish.runtime.errors import UsageError
from lungfish.runtime.store.archive import FolderArchive, ObjectArchive, file_name, open_archive


class FakeSystem:
    """An object store as fsspec shows one."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def makedirs(self, path: str, exist_ok: bool) -> None:
        assert exist_ok

    def invalidate_cache(self) -> None:
        pass

    def pipe_file(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def cat_file(self, path: str) -> bytes:
        return self.files[path]

    def ls(self, path: str, detail: bool) -> list[str]:
        assert not detail
        found = [name for name in self.files if name.startswith(f"{path}/")]
        if not found:
            raise FileNotFoundError(path)
        return found


@pytest.fixture(params=["folder", "object store"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> FolderArchive | ObjectArchive:
    if request.param == "folder":
        return FolderArchive(tmp_path / "not" / "yet")
    return ObjectArchive(FakeSystem(), "bucket/path/")


class TestArchives:
    def test_what_is_written_is_read(self, archive: FolderArchive | ObjectArchive) -> None:
        assert archive.read("hub", "i") is None
        archive.write("hub", "i", "1", "one ☃")
        assert archive.read("hub", "i") == "one ☃"
        assert archive.read("hub", "j") is None
        assert archive.read("other", "i") is None

    def test_the_latest_of_an_id(self, archive: FolderArchive | ObjectArchive) -> None:
        for edition in ("000000000002-b", "000000000001-a", "000000000002-b"):
            archive.write("hub", "i", edition, edition)
        assert archive.read("hub", "i") == "000000000002-b"

    @pytest.mark.parametrize("instance", ["..", ".", "a/b", "../../x", "ü☃", "a" * 512, "C:\\x", "a b%2F"])
    def test_any_id(self, archive: FolderArchive | ObjectArchive, instance: str) -> None:
        archive.write("hub", instance, "1", instance)
        assert archive.read("hub", instance) == instance


class TestFolder:
    def test_a_write_that_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = FolderArchive(tmp_path)
        archive.write("hub", "i", "1", "whole")

        def broken(_descriptor: int) -> None:
            raise OSError("disk full")

        monkeypatch.setattr("os.fsync", broken)
        with pytest.raises(OSError, match="disk full"):
            archive.write("hub", "i", "2", "half")
        assert archive.read("hub", "i") == "whole"
        assert [path.name for path in (tmp_path / "hub" / "i").iterdir()] == ["1.json"]

    def test_nothing_leaves_the_folder(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        for instance in ("..", "../x", "/etc/x"):
            FolderArchive(root).write("hub", instance, "..", "x")
        assert [path.name for path in tmp_path.iterdir()] == ["root"]


class TestOpening:
    def test_a_path_needs_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "fsspec", None)
        assert isinstance(open_archive(str(tmp_path)), FolderArchive)
        assert isinstance(open_archive(tmp_path), FolderArchive)

    def test_an_address_needs_fsspec(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "fsspec", None)
        with pytest.raises(UsageError, match=r"lungfish\[archive\]"):
            open_archive("s3://bucket/path")

    def test_an_address_of_no_known_sort(self) -> None:
        with pytest.raises(UsageError, match="nosuch"):
            open_archive("nosuch://bucket")


def test_names_of_different_texts_differ() -> None:
    texts = ["a" * 500 + end for end in "bc"] + ["", ".", "..", "...", "%2E", "a", "A", "a/", "a%2F"]
    assert len({file_name(text) for text in texts}) == len(texts)
    assert all(0 < len(name) < 200 and "/" not in name for name in map(file_name, texts[3:]))
