"""torch.compile in FP16, channels last, with CUDA graphs.

--mode reduce-overhead: every network and batch.  --mode max-autotune: the two first batches, since one compilation
takes minutes there.  Compiling may go on beside other work and ends after --prepare-seconds; measuring waits for its
turn.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

import torch
from child import emit, reason, run, wait_for_turn
from networks import GRAPH_NETS, Plan, buffers_of, load_nets, logits_of, on_device
from timing import agreement, measure

_RUNTIMES = {"reduce-overhead": "compile", "max-autotune": "compile-max"}


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    end, px, mode = time.monotonic() + options.prepare_seconds, options.px, options.mode
    torch._dynamo.config.recompile_limit = 64
    # A folder of its own: cold compilations take the same time in every run.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(work / f"inductor-{options.name}"))
    batches = plan.batches if mode == "reduce-overhead" else plan.batches[:2]
    backend = {"backend": "aot_eager"} if plan.device == "cpu" else {"mode": mode}
    expected, ready = logits_of(work, px), {}
    loaded = load_nets(plan, work, GRAPH_NETS)
    with torch.no_grad():
        for batch in batches:
            images = buffers_of(plan, work, px, batch)[0]
            for name, net in loaded.items():
                row = {"kind": "inference", "runtime": _RUNTIMES[mode], "net": name, "px": px, "batch": batch}
                if time.monotonic() > end - 1:
                    emit(**row, status=f"not run: the {options.prepare_seconds:.0f} s for compiling are spent")
                    continue
                begun = time.monotonic()
                signal.signal(signal.SIGALRM, _out_of_time)
                signal.setitimer(signal.ITIMER_REAL, end - begun)
                try:
                    # An instance for each batch: its own code, never a recompilation for a dynamic one.
                    typed = on_device(net, plan, px)
                    compiled = torch.compile(typed, dynamic=False, fullgraph=True, **backend)
                    for _ in range(3):  # the second call records the CUDA graph, the third replays it
                        logits = compiled(images).clone()
                    row |= agreement(logits, expected[name.removesuffix("-folded")])
                    row["compile_seconds"] = round(time.monotonic() - begun, 1)
                    ready[name, batch] = (row, compiled)
                except Exception as error:
                    late = time.monotonic() > end - 1
                    why = f"not run: not compiled in {time.monotonic() - begun:.0f} s" if late else reason(error)
                    emit(**row, status=why if late else f"failed: {why}")
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        wait_for_turn(work, options.name)
        for batch in batches:
            buffers = buffers_of(plan, work, px, batch)
            nets = {name: net for (name, size), (_, net) in ready.items() if size == batch}
            calls = {n: [lambda net=net, images=images: net(images) for images in buffers] for n, net in nets.items()}
            for name, ms in measure(calls, plan.seconds, plan.device).items():
                emit(**ready[name, batch][0], status="ok", ms=ms)


def _out_of_time(*_: object) -> None:
    raise TimeoutError("the time for compiling is spent")


if __name__ == "__main__":
    run(step)
