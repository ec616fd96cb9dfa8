"""What the twins have in common with bench.h without PyTorch: the options and the line of figures."""

import argparse
import resource
import statistics
import sys
import time

POOL, WARM_UP, MIN_STEPS = 4, 3, 3


def parse(modes):
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=modes, default=modes[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    options.name = sys.argv[0].rsplit("/")[-1].removesuffix(".py")
    return options


def run(options, engine, batch, parameters, step, value, start):
    """The first step, of whose result `value` makes a number, and the rounds."""
    first_value = value(step(0))
    first_step = time.perf_counter() - start
    known = (
        f"{options.name} {engine} {options.mode} dtype={options.dtype} threads={options.threads} "
        f"parameters={parameters} loss={first_value:.4g} first_step_seconds={first_step:.3f}"
    )
    if options.check:
        return print(known)
    for index in range(1, WARM_UP):
        step(index)
    done = WARM_UP

    def measure(seconds):
        nonlocal done
        durations, begin, now = [], time.perf_counter(), 0.0
        while now - begin < seconds or len(durations) < MIN_STEPS:
            before = time.perf_counter()
            step(done)
            now = time.perf_counter()
            durations.append(now - before)
            done += 1
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
        speed = batch / statistics.median(durations)
        print(f"{known} steps={len(durations)} samples_per_second={speed:.5g} peak_rss_mib={rss:.1f}", flush=True)

    if not options.serve:
        return measure(options.seconds)
    print(known, flush=True)
    while line := sys.stdin.readline():
        measure(float(line))
