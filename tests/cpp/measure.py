"""LIMIT_BYTES PROGRAM BUNDLE FILE...: run the program on each file; prints one JSON line with what that took.

A process of its own, because the kernel counts a parent's memory as its child's until the child is another program.
"""

import json
import os
import resource
import sys


def measure(limit: int, command: list[str]) -> dict[str, float | int | str]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.execv(command[0], command)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as file:
        text = file.read()
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024, "text": text}


if __name__ == "__main__":
    for path in sys.argv[4:]:
        print(json.dumps(measure(int(sys.argv[1]), [*sys.argv[2:4], path])))
