"""What a header says of the sensor's state, and which frames it lets belong to each other: `SensorFacts`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zemosaic_stack_core.frames.heads import FileHead

Fact = float | str | None

# Relative difference of exposure times that are the same; timers are that good.
_SAME_EXPOSURE = 0.02
# Degrees; a cooled sensor's temperature is held to better than that.
SAME_TEMPERATURE = 2.0
# What frames of a kind must share with what they calibrate.
COMPARED = {
    "bias": ("camera", "gain", "offset", "binning", "readout"),
    "dark": ("exposure", "camera", "gain", "offset", "binning", "readout"),
    "dark flat": ("exposure", "camera", "gain", "offset", "binning", "readout"),
    "flat": ("filter", "camera", "binning"),
}


@dataclass(frozen=True, kw_only=True)
class SensorFacts:
    """Exposure, settings and state of the sensor; None where the header does not say."""

    # Seconds.
    exposure: float | None = None
    filter: str | None = None
    camera: str | None = None
    gain: Fact = None
    offset: Fact = None
    # Pixels of the sensor per pixel, "2 x 2".
    binning: str | None = None
    readout: str | None = None
    # Degrees Celsius; never a contradiction: one line says how far apart frames are.
    temperature: float | None = None

    @classmethod
    def of(cls, head: FileHead) -> SensorFacts:
        """Return what a file's header says."""

        def text(*keywords: str) -> str | None:
            return " ".join((head.get(*keywords) or "").split()) or None

        def value(*keywords: str) -> Fact:
            number = head.number(*keywords)
            return text(*keywords) if number is None else number

        across, down = value("XBINNING", "BINNING", "XBIN", "CCDXBIN"), value("YBINNING", "YBIN", "CCDYBIN")
        binning = f"{across:g} x {across if down is None else down:g}" if isinstance(across, float) else across
        return cls(
            exposure=head.observing.exposure,
            filter=head.observing.filter or None,
            camera=text("INSTRUME", "CAMERA"),
            gain=value("GAIN", "ISOSPEED", "ISO"),
            offset=value("OFFSET", "BLKLEVEL", "BRIGHTNS"),
            binning=str(binning) if isinstance(down, (float, type(None))) and binning else None,
            readout=text("READOUTM", "READMODE"),
            temperature=head.number("CCD-TEMP", "SET-TEMP", "CCD_TEMP", "DET-TEMP", "TEMPERAT"),
        )

    def judge(self, other: SensorFacts, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Return the names of what contradicts, and of what only one of both says."""
        against, unknown = [], []
        for name in names:
            mine, theirs = getattr(self, name), getattr(other, name)
            if (mine is None) != (theirs is None):
                unknown.append(name)
            elif mine is not None and not is_same(name, mine, theirs):
                against.append(name)
        return against, unknown

    def degrees_from(self, other: SensorFacts) -> float:
        """Return how far the temperatures are apart; 0 where that is not known."""
        if self.temperature is None or other.temperature is None:
            return 0.0
        return abs(self.temperature - other.temperature)

    def describe(self, name: str) -> str:
        """Return a fact in words."""
        value = getattr(self, name)
        if value is None:
            return f"{name} not named"
        unit = {"exposure": " s", "temperature": " C"}.get(name, "")
        return f"{name} {value:g}{unit}" if isinstance(value, float) else f"{name} {value}"


# Of a file without a header.
NO_SENSOR_FACTS = SensorFacts()


def is_same(name: str, first: float | str, second: float | str) -> bool:
    """Return whether two values of a fact are the same."""
    if isinstance(first, str) or isinstance(second, str):
        return _plain(first) == _plain(second)
    if name == "exposure":
        return abs(first - second) <= _SAME_EXPOSURE * max(first, second, 1e-9)
    return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)


def _plain(value: float | str) -> str:
    """Return a value without what programs write differently."""
    return "".join(filter(str.isalnum, str(value).casefold()))
