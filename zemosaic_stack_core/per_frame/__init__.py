"""The numbers of each frame, estimated once: scale and offset, noise, star width, weight."""

from __future__ import annotations
