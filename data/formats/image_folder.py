"""`image_folder`: one subfolder per class, below a folder or below its training and validation folders.

Nothing is left out in silence: what is found and not used is said in the source's note.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from unicodedata import normalize

import numpy as np

from data.datasets import DataError, Progress
from data.files.source import FileSource
from data.files.tree import Folder, Tree
from data.messages import few, joined
from data.naming import by_split, refuse_odd_names, sounds_like, split_of

FORMATS = "JPEG, PNG, GIF or BMP files"


def load_image_folder(
    data_dir: str, chosen: Sequence[str] | None = None, progress: Progress | None = None
) -> tuple[FileSource, FileSource | None]:
    """Class subfolders of `data_dir`, or of its training and validation folders where the former holds folders.

    Classes are the sorted names of the subfolders, as numbers where all are; files follow sorted by name, those in
    deeper folders too. In the second layout only the split folders are looked at.

    Args:
        data_dir: the folder.
        chosen: only these classes; the others' folders are not looked at.
        progress: told how many folders are listed.

    Raises:
        DataError: missing folder, empty class, two folders for one split, a class of validation that training lacks,
            folders one level too high or too low, or one that may be a class or a split.
    """
    tree = Tree(progress)
    root = tree[data_dir]
    splits = named_splits(root)
    train_dir = os.path.join(data_dir, splits["train"]) if "train" in splits else None
    if train_dir is None or not tree[train_dir].folders:
        _refuse_misplaced(tree, root, train_dir)
        if chosen is None:
            _refuse_pictures_of_splits(tree, root)
        train, validation = class_folders(data_dir, chosen, tree=tree), None
    else:
        train, validation = _split_folders(tree, root, splits, chosen)
    train.folders = tree.states
    return train, validation


def _split_folders(
    tree: Tree, root: Folder, splits: dict[str, str], chosen: Sequence[str] | None
) -> tuple[FileSource, FileSource | None]:
    """What the folders of training and validation hold; `splits` are their names in `root`."""
    train_dir = os.path.join(root.path, splits["train"])
    train = class_folders(train_dir, chosen, tree=tree)
    unused = [name for name in root.folders if name not in splits.values() and split_of(name) != "test"]
    train.note = joined(train.note, unused and f"not used: {few(f'{name}/' for name in unused)} beside {train_dir}")
    if "val" not in splits:
        return train, None
    val_dir = os.path.join(root.path, splits["val"])
    found = class_folders(val_dir, chosen, may_be_empty=True, tree=tree)
    validation = _labelled(found, train, val_dir, train_dir)
    train.note = joined(train.note, validation.note)
    return train, validation


def named_splits(root: Folder) -> dict[str, str]:
    """Split -> name of its folder; DataError where two are named like training, or like validation."""
    return by_split([(name, name) for name in root.folders], root.path)


def test_folder(data_dir: str) -> str | None:
    """The folder of test pictures beside the training folder, or None."""
    splits = named_splits(Tree()[data_dir])
    return os.path.join(data_dir, splits["test"]) if {"train", "test"} <= set(splits) else None


def class_folders(
    root: str, chosen: Sequence[str] | None = None, *, may_be_empty: bool = False, tree: Tree | None = None
) -> FileSource:
    """The pictures below the class subfolders of `root`, classes in order of their names; numbers in their own order.

    Args:
        root: the folder.
        chosen: only these classes; None for all.
        may_be_empty: leave out classes without pictures.
        tree: folders that have been listed already, to which those of `root` are added.

    Raises:
        DataError: missing folder, no class folder, pictures beside the class folders, an empty class.
    """
    tree = tree or Tree()
    folder, others = tree[root], _Others()
    names = [name for name in folder.folders if chosen is None or name in chosen]
    if all(name.isdecimal() for name in names):
        names.sort(key=lambda name: (int(name), name))  # 2 before 10
    refuse_odd_names(names, f"{root}: class folder")
    tree.list_below(root, names)
    found = {name: list(_pictures(tree, os.path.join(root, name), name, others)) for name in names}
    empty = [name for name, paths in found.items() if not paths]
    _refuse_wrong_level(tree, folder, names, empty)
    if empty and not may_be_empty:
        raise DataError(
            f"class folder {os.path.join(root, empty[0])} is empty: expected {FORMATS}; add some or remove the folder"
            + (f" (so are {few(empty[1:])})." if empty[1:] else ".")
        )
    classes = [name for name in found if found[name]]
    left_out = [name for name in folder.folders if name not in names]
    paths = (path for name in classes for path in found[name])
    others.add(root, folder.others)
    labels = np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes])
    source = FileSource("image_folder", classes, root, paths, labels)
    source.note = joined(others.note(), left_out and f"{root}: --classes leaves out {few(left_out)}")
    return source


class _Others:
    """Files that are no pictures by their names: how many, and the first of them."""

    def __init__(self):
        self.count, self.first = 0, ""

    def add(self, folder: str, names: Sequence[str]) -> None:
        if names and not self.count:
            self.first = os.path.join(folder, names[0])
        self.count += len(names)

    def note(self) -> str | None:
        files = f"{self.count:,} other file{'s were' if self.count > 1 else ' was'}"
        return f"{files} passed over, such as {self.first}" if self.count else None


def _pictures(tree: Tree, path: str, relative: str, others: _Others) -> Iterator[str]:
    """Names, relative to the root, of all pictures below a folder, sorted part by part."""
    folder = tree[path]
    others.add(path, folder.others)
    if not folder.folders:
        yield from (f"{relative}/{name}" for name in folder.pictures)
        return
    deeper = set(folder.folders)
    for name in sorted([*folder.pictures, *deeper]):
        if name in deeper:
            yield from _pictures(tree, os.path.join(path, name), f"{relative}/{name}", others)
        else:
            yield f"{relative}/{name}"


def _labelled(source: FileSource, train: FileSource, val_dir: str, train_dir: str) -> FileSource:
    """Validation with the labels of training, some of which may not occur."""
    # macOS writes an accent as a letter of its own, others do not: the same name to people.
    index_of = {normalize("NFC", name): index for index, name in enumerate(train.classes)}
    index_of |= {name: index for index, name in enumerate(train.classes)}
    unknown = [name for name in source.classes if normalize("NFC", name) not in index_of]
    if unknown:
        raise DataError(
            f"class {few(unknown)} has no folder in {train_dir}: expected no other classes in {val_dir} than there; "
            "add the folder there or remove it from the other."
        )
    if not len(source):
        raise DataError(f"{val_dir} has no pictures in class folders: expected {FORMATS}; add some, or remove it.")
    labels = np.array([index_of.get(name, index_of[normalize("NFC", name)]) for name in source.classes])[source.labels]
    lacking = [train.classes[label] for label in np.setdiff1d(np.arange(len(train.classes)), labels)]
    labelled = FileSource(source.name, train.classes, source.root, source.paths, labels)
    labelled.note = joined(source.note, lacking and f"{val_dir} has no picture of class {few(lacking)}")
    return labelled


def _refuse_misplaced(tree: Tree, root: Folder, train_dir: str | None) -> None:
    """Folders that are named like splits and would be taken for classes."""
    names = root.folders
    like = [name for name in names if sounds_like(name)]
    flat = train_dir and tree[train_dir].pictures
    if flat and (len(like) > 1 or len(names) == 1):
        beside = ", ".join(f"{name}/" for name in names if os.path.join(root.path, name) != train_dir)
        raise DataError(
            f"{train_dir} has {len(flat):,} pictures ({few(flat, 2)}) and no class folders"
            + (f", beside {beside}" if beside else "")
            + ": expected a folder per class in it; move each picture into the folder of its class, or list them with "
            "their classes in a table for --dataset csv."
        )
    if like and len(like) == len(names):
        raise DataError(
            f"{root.path} has the folders {few(names)}, which sound like splits and would be the classes: expected "
            "train/ and, if there is one, val/, each with a folder per class; rename them, or point --data-dir at the "
            "one to train on."
        )
    for name in like:
        inside = set(tree[os.path.join(root.path, name)].folders)
        if len(shared := sorted(inside & set(names))) > 0:
            raise DataError(
                f"{os.path.join(root.path, name)} has class folders ({few(shared)}) as its neighbours have: expected "
                "those of training in a folder train/ beside it; move them there."
            )


def _refuse_pictures_of_splits(tree: Tree, root: Folder) -> None:
    """Pictures of no class, as in the test1/ of Kaggle's archives, whose folder would be taken for a class."""
    like = [name for name in root.folders if sounds_like(name) in ("val", "test")]
    flat = [name for name in like if tree[os.path.join(root.path, name)].pictures]
    others = [name for name in root.folders if name not in flat]
    if flat and others:
        remedy = f"--classes {','.join(others)} leaves out {few(flat)}, --classes {','.join(root.folders)} takes all"
        if len(root.folders) > 6:
            remedy = f"--classes FILE takes those that the file names, one per line, with or without {few(flat)}"
        raise DataError(
            f"{root.path} has pictures in {few(f'{name}/' for name in flat)} beside {few(others)}: named like a split, "
            f"but it would be a class; expected to be told which is meant, {remedy}."
        )


def _refuse_wrong_level(tree: Tree, folder: Folder, names: list[str], empty: list[str]) -> None:
    """Class folders that lie one level deeper or higher than `folder`, and pictures that belong to no class."""
    pictures, filled = folder.pictures, [name for name in names if name not in empty]
    if not filled and pictures:
        above = _classes_above(tree, folder.path)
        remedy = f"point --data-dir at {above}" if above else "make a folder for each class"
        raise DataError(f"{folder.path} has pictures and no class folders: expected a folder per class; {remedy}.")
    if pictures:
        raise DataError(
            f"{os.path.join(folder.path, pictures[0])} lies next to the class folders"
            + (f", as {len(pictures) - 1:,} more pictures do" if pictures[1:] else "")
            + ": expected only subfolders, one per class; move it away."
        )
    if len(filled) == 1 and (below := _classes_below(tree, os.path.join(folder.path, filled[0]))):
        raise DataError(
            f"{folder.path} has pictures in the one folder {filled[0]}/, which would be the only class: point "
            f"--data-dir at {below}."
        )
    if not names:
        raise DataError(
            f"{folder.path} has no subfolders with pictures: expected one per class; point --data-dir at the folder "
            "above them."
        )


def _classes_above(tree: Tree, path: str) -> str | None:
    """The folder to name where `path` is one class of it."""
    parent = os.path.dirname(os.path.abspath(path))
    like = (name for name in tree[parent].folders if tree[os.path.join(parent, name)].pictures)
    if len(list(itertools.islice(like, 2))) < 2:
        return None
    return os.path.dirname(parent) if split_of(os.path.basename(parent)) == "train" else parent


def _classes_below(tree: Tree, path: str) -> str | None:
    """The first folder from `path` on with a training folder or with several folders, none of whose pictures are its
    own."""
    while not (folder := tree[path]).pictures and folder.folders:
        if len(folder.folders) > 1 or split_of(folder.folders[0]) == "train":
            return path
        path = os.path.join(path, folder.folders[0])
    return None
