"""Being told to end is heard, wherever it hits."""

import subprocess
import sys

IN_A_DESTRUCTOR = """
import signal, time
from zemosaic_stack_core.command_line.termination import term_is_interrupt

class Table:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        [None for _ in range(1000)]

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with term_is_interrupt():
        Table()
        for _ in range(500):
            time.sleep(0.01)
except KeyboardInterrupt:
    print("heard")
"""


def test_an_interruption_in_a_destructor_comes_again():
    done = subprocess.run([sys.executable, "-c", IN_A_DESTRUCTOR], capture_output=True, text=True, check=False)
    assert done.stdout == "heard\n"
    assert done.stderr == ""
