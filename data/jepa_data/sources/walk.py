"""The files below a folder: one rule for every command that looks through folders.

Links to folders are followed, and each folder is read once: through its own path if it lies below the root, whatever
links lead to it. Names that begin with a dot are left out. Nothing is passed over silently: what is not among the files
is counted.
"""

import os
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from jepa_data.errors import DataError
from jepa_data.printable import printable

SHOWN = 5  # names or endings in a note


@dataclass
class FolderFiles:
    """What lies below a folder.

    Attributes:
        files: regular files with one of the wanted endings, sorted.
        others: regular files that were left out, counted by ending.
        unreadable: folders that cannot be listed, and wanted names that are no files (broken links, pipes): each with
            the reason, ready to print.
        hidden: names that begin with a dot.
        repeated: links to folders that were read already.
    """

    files: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    hidden: int = 0
    repeated: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each kind of thing that was left out."""
        notes = list[str]()
        if self.others:
            kinds = ", ".join(f"{count} {ending}" for ending, count in self.others.most_common(SHOWN))
            notes.append(f"{self.others.total()} other files were left out: {kinds}")
        if self.hidden:
            notes.append(f"{self.hidden} names that begin with a dot were left out")
        if self.repeated:
            notes.append(f"{self.repeated} links to folders that were read already were left out")
        if self.unreadable:
            more = ", …" if len(self.unreadable) > SHOWN else ""
            names = ", ".join(self.unreadable[:SHOWN])
            notes.append(f"{len(self.unreadable)} folders or files cannot be read and were left out: {names}{more}")
        return tuple(notes)


def walk(root: Path, endings: Collection[str]) -> FolderFiles:
    """The files below `root` whose names end in one of `endings` (small letters, without the dot).

    Raises:
        DataError: `root` is no folder, or cannot be listed.
    """
    if not os.path.isdir(root):
        raise DataError(f"{printable(root)}: {'is not a folder' if os.path.exists(root) else 'no such folder'}")
    listing = FolderFiles()
    seen = set[tuple[int, int]]()
    # Links wait until every folder that is really there was read, so that a folder keeps its own name.
    folders = deque([root])
    while folders:
        folder = folders.popleft()
        linked = folder.is_symlink() and folder != root
        try:
            about = folder.stat()
            if (about.st_dev, about.st_ino) in seen:
                listing.repeated += linked
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as names:
                entries = sorted(names, key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise DataError(f"{printable(root)}: cannot be read ({error.strerror})") from error
            listing.unreadable.append(_named(root, folder, error.strerror or "unreadable"))
            continue
        for entry in entries:
            path = folder / entry.name
            wanted = path.suffix[1:].lower() in endings
            what = _kind(entry)
            if what == "hidden":
                listing.hidden += 1
            elif what == "folder":
                folders.appendleft(path)
            elif what == "link to a folder":
                folders.append(path)
            elif what == "file" and wanted:
                listing.files.append(path)
            elif wanted or what == "not permitted":
                listing.unreadable.append(_named(root, path, what))
            else:
                listing.others[printable(path.suffix) or "without an ending"] += 1
    listing.files.sort()
    return listing


def _kind(entry: "os.DirEntry[str]") -> str:
    """Folder, file, or why it is neither. A link to a file is a file."""
    if entry.name.startswith("."):
        return "hidden"
    try:
        if entry.is_dir():
            return "link to a folder" if entry.is_symlink() else "folder"
        if entry.is_file():
            return "file"
        return "broken link" if entry.is_symlink() else "not a regular file"
    except PermissionError:
        return "not permitted"
    except OSError:  # a link that leads to itself
        return "broken link"


def _named(root: Path, path: Path, why: str) -> str:
    return f"{printable(path.relative_to(root))} ({why})"
