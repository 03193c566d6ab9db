"""Folders and files that are known by their names: of a kind of frame, and what a preparation leaves behind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# A dark of the flats' exposure time.
DARK_FLAT = "dark flat"
# Folders that are called like this and nothing else, in the languages of capture programs.
_FOLDERS = {
    word: kind
    for kind, words in (
        ("light", "light lights subs lichter hellbilder brutes lumieres luces luci luzes lichten swiatla"),
        ("dark", "dark darks dunkelbilder dunkel noirs oscuros bui escuros donkeropnamen"),
        ("flat", "flat flats flatfields flatfield plu plus planos hellfelder"),
        ("bias", "bias biases biasframes offset offsets zeros zero"),
        (DARK_FLAT, "darkflat darkflats flatdark flatdarks flatsdarks darksflats dflats darkplu"),
    )
    for word in words.split()
}
# What a preparation keeps: calibrated and aligned frames; and its masters, maps of hot pixels and medians of boxes.
_ALIGNED = re.compile(r"aligned-.*-[0-9a-f]{12}\.fits")
_KEPT = re.compile(r"boxes-aligned-.*\.npy|hot-[0-9a-f]{20}\.npy|master-(dark|flat|bias|dark-flat)-[0-9a-f]{16}\.npy")


def kind_of_folder(name: str) -> str:
    """Return the kind of the frames in a folder of this name ("02 Darks"), "light" among them; or nothing."""
    return _FOLDERS.get("".join(filter(str.isalpha, name.casefold())), "")


def without_kept(files: Sequence[Path]) -> list[Path]:
    """Return files of a folder that are frames: aligned ones of a preparation only where there are no others."""
    frames = [file for file in files if not _KEPT.fullmatch(file.name)]
    return [file for file in frames if not _ALIGNED.fullmatch(file.name)] or frames


def is_kept(folder: Path) -> bool:
    """Return whether a folder is what a preparation keeps, and nothing else."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return False
    frames = [name for name in names if name.endswith((".fits", ".npy"))]
    has_notes = any(re.fullmatch(r"inputs\.json|group-[0-9a-f]{20}\.json", name) for name in names)
    return has_notes and all(_ALIGNED.fullmatch(name) or _KEPT.fullmatch(name) for name in frames)
