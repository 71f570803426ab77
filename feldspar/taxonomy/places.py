"""Where leaves lie: the folders of a taxonomy that hold a qna.yaml, with their branch."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import TaxonomyError
from feldspar.files import walk
from feldspar.records import Branch
from feldspar.taxonomy.documents.find import QNA

log = logging.getLogger(__name__)

BRANCH_FOLDERS: dict[str, Branch] = {
    "knowledge": "knowledge",
    "foundational_skills": "foundational",
    "compositional_skills": "compositional",
}


class Place(NamedTuple):
    """Where a leaf lies: `taxonomy` is the folder that holds the branch folders."""

    path: str
    file: Path
    branch: Branch | None
    taxonomy: Path


def find_places(root: Path) -> list[Place]:
    """Every qna.yaml under `root`, in path order; links to folders are not followed."""
    if not root.exists():
        raise TaxonomyError(f"{root}: no such folder; name the folder that holds the leaves")
    if root.is_file():
        return [place_of(root, root.parent)]
    places = []
    for folder, subfolders, names in walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for link in (path for name in subfolders if (path := Path(folder, name)).is_symlink()):
            if _holds_leaf(link):
                log.warning("%s: a link to a folder is not followed; copy its leaves there", link)
        places += [
            place_of(Path(folder, name), root) for name in names if name.lower() in (QNA, "qna.yml")
        ]
    return sorted(places, key=lambda place: (place.path, place.file))


def _holds_leaf(link: Path) -> bool:
    """Whether a leaf lies at a link, or up to two folders below it."""
    return any(any(link.glob(f"{below}{QNA}")) for below in ("", "*/", "*/*/"))


def place_of(file: Path, root: Path) -> Place:
    """Of a qna.yaml that lies, or will lie, below `root`."""
    below = file.parent.relative_to(root).parts
    for depth, part in enumerate(below):
        if part in BRANCH_FOLDERS:
            path = "/".join(below[depth:])
            return Place(path, file, BRANCH_FOLDERS[part], root.joinpath(*below[:depth]))
    # The folder given may be a branch or a leaf itself.
    folder = Path(os.path.abspath(file.parent))
    for above in folder.parents:
        name = folder.relative_to(above).parts[0]
        if name in BRANCH_FOLDERS:
            path = folder.relative_to(above).as_posix()
            return Place(path, file, BRANCH_FOLDERS[name], above)
    return Place("", file, None, root)
