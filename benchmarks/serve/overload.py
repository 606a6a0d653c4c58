"""10,000 requests at twice what the server can do: nothing wrong, nothing lost, memory flat, the accepted ones in time.

    python benchmarks/serve/overload.py BUNDLE [--requests 10000] [--times 2] [--precision fp32] [--out FILE]

First the capacity is measured with 32 clients that wait for their answers.  Then requests are sent at a fixed rate,
whatever comes back, each over one of 400 connections.  Every answer is looked at: the bundle's logits, 503 with
Retry-After, or 504; exit code 1 for anything else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from load import HEADER_LENGTH, Question, ask, free_port, infer, running

from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle
from samdeploy.evaluate.machine import machine, versions

CONNECTIONS = 400
TIMEOUT = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--times", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    images, _ = bundle.golden()
    with open_session(bundle, options.backend, precision=options.precision) as session:
        logits = np.concatenate([session.run(image[None]) for image in images])
    questions = [infer("model", image, row, 1e-3) for image, row in zip(images, logits, strict=True)]
    port = free_port()
    command = [sys.executable, "-m", "samdeploy", "serve", f"model={options.bundle.resolve()}", "--port", str(port)]
    command += ["--backend", options.backend, "--precision", options.precision, "--timeout", str(TIMEOUT)]
    with running(command, port) as pid:
        ask(f"http://127.0.0.1:{port}", questions, 32, 3)
        capacity = ask(f"http://127.0.0.1:{port}", questions, 32, 5).rate
        found = asyncio.run(_storm(port, questions, options.requests, options.times * capacity, pid))
    rss = found.pop("rss_mib")
    tenth = max(1, len(rss) // 10)
    first, last = max(rss[tenth : 2 * tenth]), max(rss[-tenth:])
    values = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(), "versions": versions(),
        "command": f"benchmarks/serve/overload.py BUNDLE --precision {options.precision}",
        "network": f"{bundle.spec.arch}, {bundle.spec.preprocessing.width} px, {options.backend}, {options.precision}",
        "capacity_per_s": round(capacity, 1), **found, "timeout_s": TIMEOUT,
        "rss_mib_early": first, "rss_mib_late": last, "rss_growth_percent": round(100 * (last / first - 1), 2),
    }  # fmt: skip
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n")
    is_sound = set(found["answers"]) <= {"right", "503", "504"} and found["p99_ms_of_right"] < 1000 * TIMEOUT
    raise SystemExit(0 if is_sound and last < 1.05 * first else 1)


async def _storm(port: int, questions: list[Question], requests: int, rate: float, pid: int) -> dict[str, object]:
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    counts: Counter[str] = Counter()
    seconds: list[float] = []
    rss: list[float] = []

    async def one(question: Question) -> None:
        reader, writer = await free.get()
        begin = time.perf_counter()
        try:
            kind = await asyncio.wait_for(_ask(reader, writer, question), 60)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            kind = f"lost: {type(error).__name__}"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if kind == "right":
            seconds.append(time.perf_counter() - begin)
        counts[kind] += 1
        free.put_nowait((reader, writer))

    tasks, begin = [], time.perf_counter()
    for number in range(requests):
        due = begin + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(questions[number % len(questions)])))
        if number % 100 == 0:
            rss.append(_rss(pid))
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    took = time.perf_counter() - begin
    return {
        "requests": requests, "asked_per_s": round(rate, 1), "reached_per_s": round(requests / took, 1),
        "answers": dict(counts),
        "p50_ms_of_right": round(1000 * float(np.percentile(seconds, 50)), 1),
        "p99_ms_of_right": round(1000 * float(np.percentile(seconds, 99)), 1),
        "rss_mib": rss,
    }  # fmt: skip


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: Question) -> str:
    headers = {**question.headers, "Host": "127.0.0.1", "Content-Length": str(len(question.body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST {question.path} HTTP/1.1\r\n{head}\r\n".encode() + question.body)
    await writer.drain()
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body = await reader.readexactly(int(found["content-length"]))
    status = lines[0].split()[1]
    if status == "200":
        return "right" if question.is_right(body, found.get(HEADER_LENGTH.lower(), "")) else "wrong"
    if status == "503" and "retry-after" not in found:
        return "503 without Retry-After"
    return status


def _rss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    main()
