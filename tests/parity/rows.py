"""What the sections of parity.py share: rows with a figure and a bound, and the misses among them."""

import importlib.util
import pathlib
import subprocess

TESTS = pathlib.Path(__file__).resolve().parent.parent


class Report:
    def __init__(self):
        self.rows, self.misses = 0, []

    def row(self, section, name, figure, bound, note=""):
        """Good if figure <= bound."""
        good = figure <= bound
        print(f"{section:12}{name:34}{figure:>10.1e}  bound {bound:<8.1e} {'ok  ' if good else 'MISS'} {note}".rstrip(), flush=True)
        self.count(f"{section} {name}", good)

    def count(self, name, good):
        self.rows += 1
        if not good:
            self.misses.append(name)


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def load_script(path):
    """A script of the tests as a module: some names are there twice."""
    spec = importlib.util.spec_from_file_location("parity_" + path.replace("/", "_").removesuffix(".py"), TESTS / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
