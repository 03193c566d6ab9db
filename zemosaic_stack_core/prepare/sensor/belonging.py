"""Which calibration frames belong to which frames: groups of one state of the sensor, and the one that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.headers.sensor_facts import COMPARED, SAME_TEMPERATURE, SensorFacts

_TRUST = "or --trust-calibration"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Calibration frames of one kind and one state of the sensor."""

    kind: str
    frames: tuple[RawFrame, ...]
    # Their master, where it was made.
    path: Path | None = None
    # What is wrong with the frames all the same.
    said: str = ""

    @property
    def facts(self) -> SensorFacts:
        """What their headers say."""
        return self.frames[0].facts

    @property
    def line(self) -> str:
        """How many they are, and the first of them."""
        return f"{len(self.frames)} {self.kind} frames ({self.frames[0].path.name}, ...)"


def group_calibration(frames: Sequence[RawFrame], kind: str) -> list[Group]:
    """Return the groups of one kind: nothing that both say contradicts or is said by one of them only."""
    groups: list[list[RawFrame]] = []
    names = COMPARED[kind]
    warmth = {"bias": 1e9, "flat": 1e9}.get(kind, SAME_TEMPERATURE)
    for frame in sorted(frames, key=lambda f: f.facts.temperature or 0.0):
        for group in groups:
            against, unknown = frame.facts.judge(group[0].facts, names)
            same_size = (frame.shape, frame.channels) == (group[0].shape, group[0].channels)
            if not against and not unknown and same_size and frame.facts.degrees_from(group[-1].facts) <= warmth:
                group.append(frame)
                break
        else:
            groups.append([frame])
    order = {id(frame): place for place, frame in enumerate(frames)}
    ordered = [tuple(sorted(group, key=lambda f: order[id(f)])) for group in groups]
    return [Group(kind=kind, frames=group) for group in sorted(ordered, key=lambda g: order[id(g[0])])]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The group for a frame."""

    group: Group
    # What only one of both headers says.
    unknown: tuple[str, ...] = ()
    # What contradicts, where the user trusts the frames all the same.
    against: tuple[str, ...] = ()


def fitting_group(frame: RawFrame, groups: Sequence[Group], *, trusts: bool, skip: tuple[str, ...] = ()) -> Fit | None:
    """Return the group that belongs to a frame, None where there is none; raise where it can't be said which does.

    What is not named is not equal: a group whose facts are known to be the frame's comes before one of which only one
    header says them; where two such groups differ, nobody knows which one is right.
    """
    found: list[tuple[tuple[int, int, float], Fit]] = []
    for group in groups:
        names = COMPARED[group.kind]
        against, unknown = frame.facts.judge(group.facts, tuple(name for name in names if name not in skip))
        if (frame.shape, frame.channels) != (group.frames[0].shape, group.frames[0].channels) or (
            against and not trusts
        ):
            continue
        degrees = min(frame.facts.degrees_from(one.facts) for one in group.frames)
        warmth = degrees if degrees > SAME_TEMPERATURE and group.kind.startswith("dark") else 0.0
        fit = Fit(group=group, unknown=tuple(unknown), against=tuple(against))
        found.append(((len(against), len(unknown), warmth), fit))
    if not found:
        return None
    found.sort(key=lambda item: item[0])
    (_, best), rivals = found[0], [fit for rank, fit in found[1:] if rank[:2] == found[0][0][:2]]
    for rival in rivals:
        differing, _ = rival.group.facts.judge(best.group.facts, best.unknown)
        if differing and not trusts:
            name = differing[0]
            raise InvalidInputError(
                f"{frame.name}: {frame.facts.describe(name)}; {best.group.line} have {best.group.facts.describe(name)} "
                f"and {rival.group.line} {rival.group.facts.describe(name)}; expected frames that name it, {_TRUST}"
            )
    return best


def mismatch(frame: RawFrame, groups: Sequence[Group], skip: tuple[str, ...] = ()) -> InvalidInputError:
    """Return the error for a frame that none of the groups belongs to: what contradicts in the nearest."""

    def strangeness(group: Group) -> tuple[bool, int]:
        return group.frames[0].shape != frame.shape, len(_against(frame, group, skip))

    group = min(groups, key=strangeness)
    if (group.frames[0].shape, group.frames[0].channels) != (frame.shape, frame.channels):
        first = group.frames[0]
        return InvalidInputError(
            f"{first.name} is {first.rows} x {first.columns} with {first.channels} channels; "
            f"expected {frame.rows} x {frame.columns} with {frame.channels} channels as in {frame.name}"
        )
    name = _against(frame, group, skip)[0]
    others = sorted({one.facts.describe(name).removeprefix(f"{name} ") for one in groups})
    return InvalidInputError(
        f"{frame.name}: {frame.facts.describe(name)}, {_plural(group.kind)} of {', '.join(others)} "
        f"({group.frames[0].path.name}); expected {_plural(group.kind)} of the same {name}, {_TRUST}"
    )


def _against(frame: RawFrame, group: Group, skip: tuple[str, ...]) -> list[str]:
    """Return what contradicts between a frame and a group."""
    names = COMPARED[group.kind]
    return frame.facts.judge(group.facts, tuple(name for name in names if name not in skip))[0]


def _plural(kind: str) -> str:
    """Return the name of several frames of a kind."""
    return "biases" if kind == "bias" else f"{kind}s"


def fit_lines(fits: Sequence[tuple[RawFrame, Fit]]) -> list[str]:
    """Return a line for each group whose fit is not proven: what is not named, contradicts, or is of another warmth."""
    lines: dict[str, None] = {}
    for frame, fit in fits:
        group = fit.group
        for name in fit.unknown:
            said = f"{group.facts.describe(name)}, {frame.path.name}: {frame.facts.describe(name)}"
            lines.setdefault(f"{group.line}: {said}; taken as belonging, which can't be compared")
        for name in fit.against:
            said = f"{group.facts.describe(name)}, {frame.path.name}: {frame.facts.describe(name)}"
            lines.setdefault(f"{group.line}: {said}; used because you trust them")
        degrees = min(frame.facts.degrees_from(one.facts) for one in group.frames)
        if degrees > SAME_TEMPERATURE and group.kind.startswith("dark"):
            lines.setdefault(f"{group.line}: {group.facts.describe('temperature')}, lights of other temperatures")
    return list(lines)


def left_out_line(groups: Sequence[Group], frames: Sequence[RawFrame]) -> str:
    """Return a line about groups that belong to none of the frames."""
    parts = []
    for group in groups:
        against = min((_against(frame, group, ()) for frame in frames), key=len, default=[])
        parts.append(group.line + (f": {group.facts.describe(against[0])}" if against else ""))
    return f"left out, as they belong to no frame: {'; '.join(parts)}"
