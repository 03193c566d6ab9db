"""Print the lowest version that pyproject.toml allows of everything it names, as a file of constraints for pip."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
named = [*project["dependencies"], *(one for name in extras if name not in ("dev", "docs") for one in extras[name])]
lowest = {re.sub(r"\[.*\]", "", one.replace(">=", "==")) for one in named if ">=" in one}
sys.stdout.write("\n".join(sorted(lowest)) + "\n")
