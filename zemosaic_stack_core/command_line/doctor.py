"""``zemosaic-worker doctor``: is the GPU usable, and if not, why and what to do."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from zemosaic_stack_core.command_line.exit_codes import ExitCode
from zemosaic_stack_core.command_line.messages import answer_either

_EPILOG = "exit code: 0 where the GPU is usable and gives the CPU's bits, 1 where not; stacks then run on the CPU."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="say whether the GPU is usable, why not, and what to install",
        description="Check the GPU in a process of its own, which a broken driver can't hang, and compare what it and "
        "the CPU make of a cube of real size.",
        epilog=_EPILOG,
    )
    parser.add_argument("--quick", action="store_true", help="only the health check, not the cube of real size")
    parser.add_argument("--json", action="store_true", help="machine-readable findings on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Diagnose the GPU and the machine."""
    from zemosaic_stack_core.gpu.doctor import REAL_SIZE, diagnose_gpu
    from zemosaic_stack_core.system.quantities import size_text
    from zemosaic_stack_core.zemosaic.parallel_plan import detect_parallel_capabilities

    machine = detect_parallel_capabilities(probe_gpu=False)
    diagnosis = diagnose_gpu(None if arguments.quick else REAL_SIZE)
    facts = {
        "usable": diagnosis.usable,
        "lines": list(diagnosis.lines),
        "health": asdict(diagnosis.health),
        "comparison": None if diagnosis.comparison is None else asdict(diagnosis.comparison),
        "machine": asdict(machine),
    }
    cpu = (
        f"CPU: {machine.cpu_logical_cores} cores for this program, {size_text(machine.ram_total_bytes)} of memory, "
        f"{size_text(machine.ram_available_bytes)} free."
    )
    answer_either(facts, [cpu, *diagnosis.lines], as_json=arguments.json)
    return ExitCode.DONE if diagnosis.usable else ExitCode.FAILED
