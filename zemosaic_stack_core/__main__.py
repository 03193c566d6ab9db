"""``python -m zemosaic_stack_core``: the command ``zemosaic-worker``."""

from zemosaic_stack_core.command_line import main

if __name__ == "__main__":
    raise SystemExit(main())
